//! `bench`: how fast pods reach each other, on one node and across nodes, beside the loopback of one of them.
//!
//! Every measurement is cut into slices, and every slice between two pods is taken right after one over loopback: what
//! else the machine does hits both, and what is told first is the ratio. Segmentation offload is off on the lab's links,
//! so that a capture shows what a wire would carry; a stream between pods costs a packet for every 1500 bytes, over
//! loopback one for every 64 KiB. The ratios compare paths and modes, and say nothing of a network card.

mod plot;
mod render;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kernel::Family;
use serde::{Deserialize, Serialize};

use crate::cluster::{Cluster, Node, Pod};
use crate::exit::Failure;
use crate::fabric::UPLINK;
use crate::probe::Sidecar;
use crate::probe::load::{Count, Done, Kind, Order};
use crate::stack;

pub use plot::plot;
pub use render::render_table;

/// The name of the JSON document's form.
pub const SCHEMA: &str = "podlab.bench/1";
/// Slices of a measurement.
pub const ROUNDS: u32 = 5;
/// Frames of others on an otherwise quiet wire, in a measurement: ARP, a routing protocol's hellos.
const CHATTER: u64 = 64;

/// Where the two ends are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Path {
    /// In one pod, over 127.0.0.1.
    Loopback,
    /// Two pods of one node.
    SameNode,
    /// Pods of two nodes.
    CrossNode,
}

impl Path {
    /// As in the document.
    pub fn word(self) -> &'static str {
        match self {
            Path::Loopback => "loopback",
            Path::SameNode => "same-node",
            Path::CrossNode => "cross-node",
        }
    }
}

impl Kind {
    /// As in the document.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Stream => "tcp-stream",
            Kind::Requests => "tcp-rr",
            Kind::Connections => "tcp-crr",
            Kind::Datagrams => "udp",
        }
    }

    /// What a rate is in.
    pub fn unit(self) -> &'static str {
        match self {
            Kind::Stream => "bit/s",
            Kind::Requests => "requests/s",
            Kind::Connections => "connections/s",
            Kind::Datagrams => "datagrams/s",
        }
    }

    /// The rate of what was received.
    fn rate(self, sent: &Count, received: &Count) -> f64 {
        let count = if self == Kind::Stream { received.bytes * 8 } else { received.items };
        count as f64 * 1e6 / sent.micros.max(1) as f64
    }
}

/// What `podlab bench` has measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bench {
    /// [`SCHEMA`].
    pub schema: String,
    /// How long each measurement took between two pods, and as long over loopback.
    pub seconds: f64,
    /// The slices of a measurement.
    pub rounds: u32,
    /// A lab each.
    pub labs: Vec<LabBench>,
    /// The modes that could not be measured here.
    pub skipped: Vec<Skipped>,
}

/// A mode that this machine lacks something for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// The mode.
    pub mode: String,
    /// What is lacking.
    pub why: String,
}

/// The measurements of one lab.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabBench {
    /// The lab's name.
    pub lab: String,
    /// Its mode.
    pub mode: String,
    /// The pod that every client is in.
    pub client: String,
    /// Loopback first, for each kind.
    pub results: Vec<Measured>,
}

/// One kind of load on one path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The load.
    pub kind: Kind,
    /// The path.
    pub path: Path,
    /// The pod that the server is in.
    pub server: String,
    /// The rate of what the server received: the median of the slices.
    pub rate: f64,
    /// In what.
    pub unit: String,
    /// Of the rate over loopback right before, slice by slice.
    pub ratio: Ratio,
    /// What the clients sent, in all slices.
    pub sent: Count,
    /// What the servers received.
    pub received: Count,
    /// Packets that went through the uplink of the client's node meanwhile, both ways.
    pub uplink_packets: u64,
}

/// The ratio in the middle, the least and the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// The middle one.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The greatest.
    pub most: f64,
}

impl Ratio {
    /// Of a list that is not empty.
    fn of(mut all: Vec<f64>) -> Ratio {
        let median = median(&mut all);
        Ratio { median, least: all[0], most: all[all.len() - 1] }
    }
}

/// The one in the middle; the list is sorted then, and must not be empty.
fn median(all: &mut [f64]) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// Where servers are for a client.
struct Aim<'c> {
    path: Path,
    pod: &'c Pod,
    address: IpAddr,
}

/// One slice.
struct Slice {
    sent: Count,
    received: Count,
    uplink_packets: u64,
}

/// Measures a lab, `time` for each kind and path and as long over loopback.
///
/// # Errors
/// A lab without two pods is wrong use; else what did not work, or what went another way than it should have.
pub fn run(cluster: &Cluster, time: Duration, progress: &mut dyn FnMut(&str, Duration)) -> Result<LabBench> {
    let (client, aims) = ends(cluster)?;
    let node = &cluster.nodes[client.node];
    let mut results = Vec::new();
    for kind in Kind::ALL {
        let began = std::time::Instant::now();
        let mut loopback = Vec::new();
        let mut rates: Vec<(Vec<Slice>, Vec<f64>)> = aims.iter().map(|_| Default::default()).collect();
        let own =
            Aim { path: Path::Loopback, pod: client, address: stack::localhost(Family::of(aims[0].address)) };
        for _ in 0..ROUNDS {
            for (aim, (slices, ratios)) in aims.iter().zip(&mut rates) {
                let near = slice(node, client, &own, kind, time / ROUNDS)?;
                let far = slice(node, client, aim, kind, time / ROUNDS)?;
                ratios.push(
                    kind.rate(&far.sent, &far.received)
                        / kind.rate(&near.sent, &near.received).max(f64::MIN_POSITIVE),
                );
                loopback.push(near);
                slices.push(far);
            }
        }
        results.push(measured(kind, &own, &loopback, vec![1.0]));
        for (aim, (slices, ratios)) in aims.iter().zip(rates) {
            let result = measured(kind, aim, &slices, ratios);
            went_right(&result, node)?;
            results.push(result);
        }
        progress(&format!("{} {}", cluster.mode, kind.word()), began.elapsed());
    }
    let (lab, mode) = (cluster.name.clone(), cluster.mode.to_string());
    Ok(LabBench { lab, mode, client: client.space.name.clone(), results })
}

/// The pod of the clients, and where its servers are: a pod of its node, a pod of another one.
fn ends(cluster: &Cluster) -> Result<(&Pod, Vec<Aim<'_>>), Failure> {
    let aims_of = |client: &Pod| -> Vec<Aim<'_>> {
        let other = |pod: &&Pod| pod.space.name != client.space.name;
        let near = cluster.pods.iter().filter(other).find(|pod| pod.node == client.node);
        let far = cluster.pods.iter().find(|pod| pod.node != client.node);
        let both = [(Path::SameNode, near), (Path::CrossNode, far)];
        let known = both
            .into_iter()
            .filter_map(|(path, pod)| Some(Aim { path, pod: pod?, address: *pod?.addresses.first()? }));
        known.collect()
    };
    let all = cluster.pods.iter().map(|pod| (pod, aims_of(pod)));
    let best = all.rev().max_by_key(|(_, aims)| aims.len()).filter(|(_, aims)| !aims.is_empty());
    best.ok_or_else(|| {
        Failure::usage(format!("lab {:?} has no two pods · try: podlab up --pods 2", cluster.name))
    })
}

fn slice(node: &Node, client: &Pod, aim: &Aim<'_>, kind: Kind, time: Duration) -> Result<Slice> {
    let ask = |pod: &Pod, order: Order| {
        let sidecar: &Mutex<Sidecar> = &pod.containers.sidecar;
        let done = sidecar.lock().unwrap_or_else(PoisonError::into_inner).load(order);
        done.with_context(|| format!("{} {} in {}", aim.path.word(), kind.word(), pod.space.name))
    };
    let before = uplink_packets(node)?;
    let Done::Opened { port } = ask(aim.pod, Order::Open { kind })? else { bail!("no server was opened") };
    let target = SocketAddr::new(aim.address, port);
    let ran = ask(client, Order::Run { kind, target, millis: time.as_millis() as u64 });
    let closed = ask(aim.pod, Order::Close);
    match (ran?, closed?) {
        (Done::Ran(sent), Done::Closed(received)) => {
            let uplink_packets = uplink_packets(node)?.saturating_sub(before);
            Ok(Slice { sent, received, uplink_packets })
        }
        other => bail!("a sidecar says {other:?}"),
    }
}

fn measured(kind: Kind, aim: &Aim<'_>, slices: &[Slice], ratios: Vec<f64>) -> Measured {
    let mut rates: Vec<f64> = slices.iter().map(|it| kind.rate(&it.sent, &it.received)).collect();
    let sum = |of: fn(&Slice) -> &Count| {
        slices.iter().map(of).fold(Count::default(), |sum, count| Count {
            items: sum.items + count.items,
            bytes: sum.bytes + count.bytes,
            micros: sum.micros + count.micros,
        })
    };
    Measured {
        kind,
        path: aim.path,
        server: aim.pod.space.name.clone(),
        rate: median(&mut rates),
        unit: kind.unit().to_owned(),
        ratio: Ratio::of(ratios),
        sent: sum(|slice| &slice.sent),
        received: sum(|slice| &slice.received),
        uplink_packets: slices.iter().map(|slice| slice.uplink_packets).sum(),
    }
}

/// What stays on a node must not be on its wire, and what leaves it must.
fn went_right(result: &Measured, node: &Node) -> Result<()> {
    let (what, packets) = (result.kind.word(), result.uplink_packets);
    let uplink = format!("{}/{UPLINK}", node.space.name);
    // A stream's segments may be put together on the way; no packet has more than 64 KiB.
    let least = match result.kind {
        Kind::Stream => result.received.bytes >> 16,
        _ => result.received.items,
    };
    match result.path {
        Path::CrossNode if packets < least => {
            bail!("{what} to {}: {packets} packets at {uplink}, and {least} were received", result.server)
        }
        Path::SameNode if packets > least / 2 + CHATTER => {
            bail!("{what} to {} on the same node: {packets} packets at {uplink}", result.server)
        }
        _ => Ok(()),
    }
}

/// Packets that the node's uplink has had, both ways (proc_pid_net(5), dev).
fn uplink_packets(node: &Node) -> Result<u64> {
    let read = || std::fs::read_to_string("/proc/thread-self/net/dev");
    let about = || format!("counters of {}/{UPLINK}", node.space.name);
    let table = node.space.netns.run(read)?.with_context(about)?;
    packets_of(&table, UPLINK).with_context(about)
}

/// Received and sent packets of a link: the second and the tenth number of its line.
fn packets_of(table: &str, link: &str) -> Option<u64> {
    let own = table.lines().find_map(|line| line.trim_start().strip_prefix(link)?.strip_prefix(':'))?;
    let numbers: Vec<u64> = own.split_whitespace().map_while(|number| number.parse().ok()).collect();
    Some(numbers.get(1)? + numbers.get(9)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_by_name() {
        let table = "Inter-|   Receive\n face |bytes packets errs\n    lo:  100 1 0 0 0 0 0 0 100 1 0 0 0 0 0 0\n\
                     eth01: 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9\n  eth0: 5000 40 0 0 0 0 0 0 700 3 0 0 0 0 0 0\n";
        assert_eq!(packets_of(table, "eth0"), Some(43));
        assert_eq!(packets_of(table, "eth9"), None);
    }

    #[test]
    fn the_middle_one_stands_for_all() {
        let ratio = Ratio::of(vec![0.5, 0.1, 0.9, 0.4, 0.6]);
        assert_eq!((ratio.median, ratio.least, ratio.most), (0.5, 0.1, 0.9));
    }

    #[test]
    fn a_rate_is_of_what_was_received_in_the_time_of_sending() {
        let sent = Count { items: 1, bytes: 4_000_000, micros: 2_000_000 };
        let received = Count { items: 1, bytes: 2_000_000, micros: 0 };
        assert_eq!(Kind::Stream.rate(&sent, &received), 8_000_000.0);
        assert_eq!(Kind::Datagrams.rate(&sent, &received), 0.5);
    }
}
