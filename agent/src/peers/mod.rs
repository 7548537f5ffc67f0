//! Whether the network between nodes does what it is to: every agent answers with the source address that it sees, and asks
//! the others.
//!
//! Two paths lead to each peer in each IP version: from InternalIP to InternalIP, which the cluster's operator answers for,
//! and from the gateway address of the own pods to that of the peer's pods, which podnet answers for: it takes the routes
//! and tunnels that pods' packets take. On either the source has to arrive as it was sent ([`Outcome::Nat`] names what
//! came instead), and a datagram as long as the path promises has to arrive whole.
//!
//! [`asks`] says what there is to ask, [`Schedule`] when, [`probe`](probe()) asks. [`Server`] answers, on all addresses:
//!
//! ```text
//!   TCP, at once:                     podnet NODE ADDRESS\n
//!   UDP, to "podnet?" NONCE padding:  podnet!NONCE NODE ADDRESS
//! ```
//! An answer tells no more than the one who asks knows, and is never longer than the question.

mod probe;
mod schedule;
mod server;
mod wire;

use std::fmt;
use std::net::IpAddr;

use kernel::Family;

pub use probe::{Limits, probe};
pub use schedule::{Schedule, Standing};
pub use server::Server;

use crate::model::Node;
use crate::routing::{How, Plan, gateway, overhead};

/// The TCP and UDP port that agents answer on.
pub const PORT: u16 = 10181;

/// Which way to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Path {
    /// From InternalIP to InternalIP.
    Nodes,
    /// From the gateway of the pods to that of the peer's pods.
    Pods,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Path::Nodes => "node to node",
            Path::Pods => "pods to pods",
        })
    }
}

/// A question to a peer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ask {
    /// The peer's name.
    pub node: String,
    /// Which way.
    pub path: Path,
    /// Asked from here, and to be seen so.
    pub from: IpAddr,
    /// Asked there.
    pub to: IpAddr,
    /// The longest packet in bytes that has to get there.
    pub mtu: u32,
}

/// What came of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The peer answered and saw the address that it was asked from; a packet of full length got there.
    Good,
    /// The peer saw another address: somebody on the way translates.
    Nat(IpAddr),
    /// Another node answered.
    Other(String),
    /// Short packets get there, those of full length do not.
    TooLong(u32),
    /// Nobody answered, and why.
    NoAnswer(String),
}

/// A question and what came of it; shown as one line that names peer, path and addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The question.
    pub ask: Ask,
    /// What came of it.
    pub outcome: Outcome,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ask { node, path, from, to, mtu } = &self.ask;
        write!(f, "{node}, {path}, {from} to {to}: ")?;
        match &self.outcome {
            Outcome::Good => f.write_str("good"),
            Outcome::Nat(seen) => write!(f, "seen as {seen}, so somebody on the way translates addresses"),
            Outcome::Other(other) => write!(f, "node {other} answered"),
            Outcome::TooLong(_) => write!(f, "packets of {mtu} bytes do not arrive, short ones do"),
            Outcome::NoAnswer(why) => write!(f, "no answer: {why}"),
        }
    }
}

/// All that there is to ask of peers that the plan has a way to.
pub fn asks(own: &Node, nodes: &[&Node], plan: &Plan) -> Vec<Ask> {
    let mut all = Vec::new();
    for peer in plan.peers.iter().filter(|it| it.how.is_served()) {
        let Some(node) = nodes.iter().find(|it| it.name == peer.node) else { continue };
        let ipv6 = peer.family == Family::V6;
        let outside = match peer.how {
            How::Tunnel { .. } => peer.mtu + overhead(peer.family),
            _ => peer.mtu,
        };
        // Pods send no longer packets than their links take.
        let inside = peer.mtu.min(plan.mtu);
        let pods =
            |node: &Node| node.pod_cidrs.iter().find(|it| it.is_ipv6() == ipv6).and_then(|it| gateway(*it));
        let ways = [
            (Path::Nodes, own.address(ipv6).zip(peer.address), outside),
            (Path::Pods, pods(own).zip(pods(node)), inside),
        ];
        for (path, ends, mtu) in ways {
            if let Some((from, to)) = ends {
                all.push(Ask { node: peer.node.clone(), path, from, to, mtu });
            }
        }
    }
    all
}
