//! What only the kernel's netem can do to a wire. podlab has no other means for it, and says so by name.

use anyhow::{Result, bail};

use super::{Act, Fault, lacking};
use crate::breaking::Work;
use crate::cluster::{Cluster, Node};
use crate::exit::Failure;

const fn fault(id: &'static str, does: &'static str, seen: &'static str) -> Fault {
    Fault { id, does, seen, amount: None, unless: refused, act: Act::Node(refuse) }
}

/// The faults.
pub(super) const FAULTS: &[Fault] = &[
    fault("delay", "not on this kernel: a node's uplink holds packets", "round trips take longer"),
    fault(
        "jitter",
        "not on this kernel: a node's uplink holds packets for times that vary",
        "round trips vary",
    ),
    fault("reorder", "not on this kernel: a node's uplink lets packets overtake", "TCP sees duplicate ACKs"),
    fault("duplicate", "not on this kernel: a node's uplink sends packets twice", "ping says DUP!"),
    fault(
        "corrupt",
        "not on this kernel: a node's uplink changes bits",
        "checksums are wrong, packets are lost",
    ),
];

fn refused(_: &Cluster) -> Result<(), Failure> {
    Err(lacking(
        "it needs netem (sch_netem), which this kernel or podlab lacks · try: loss, drop-every, rate",
    ))
}

fn refuse(_: &mut Work<'_>, _: &Cluster, _: &Node) -> Result<()> {
    bail!("it needs netem")
}
