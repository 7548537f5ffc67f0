//! What is the machine's and not a namespace's. A lab leaves the machine alone, so these are refused by name.

use anyhow::{Result, bail};

use super::{Act, Fault, lacking};
use crate::breaking::Work;
use crate::cluster::{Cluster, Node};
use crate::exit::Failure;

/// The faults.
pub(super) const FAULTS: &[Fault] = &[Fault {
    id: "conntrack-full",
    does: "not on this kernel: a node's table of connections is full",
    seen: "new connections TIMEOUT, old ones go on",
    amount: None,
    unless: refused,
    act: Act::Node(refuse),
}];

fn refused(_: &Cluster) -> Result<(), Failure> {
    Err(lacking("net.netfilter.nf_conntrack_max is one for the whole machine, which a lab leaves alone"))
}

fn refuse(_: &mut Work<'_>, _: &Cluster, _: &Node) -> Result<()> {
    bail!("the limit is the machine's")
}
