//! What the table of one node is to hold, as values: maps of pods, sets, chains. Shown in nftables' own syntax.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use super::Direction;
use super::blocks::{self, Interval};
use crate::model::Protocol;

/// The bit of the connection mark by which connections are cut. kube-proxy marks packets, not connections, and uses
/// other bits there.
pub const CUT: u32 = 0x0008_0000;
/// The device group of pods' links on the node, into which `podnet-policy` puts them: `ip link show group 10180`.
pub const LINKS: u32 = 10180;
/// The chain that every packet meets first.
pub const SOURCES: &str = "sources";
/// The table's name, in family inet.
pub const TABLE: &str = "podnet-policy";

/// Addresses of pods, with the number of pods that claim each.
pub type Addresses = BTreeMap<IpAddr, u32>;
/// Address, protocol and port.
pub type NamedPorts = BTreeSet<(IpAddr, Protocol, u16)>;

/// Where a pod's packets of one direction go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// No policy isolates it.
    Open,
    /// To the chain of the policies that isolate it.
    Chain(Arc<str>),
}

/// One pod's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdicts {
    /// For what it opens.
    pub egress: Target,
    /// For what is opened to it.
    pub ingress: Target,
}

impl Verdicts {
    /// For one direction.
    pub fn of(&self, direction: Direction) -> &Target {
        match direction {
            Direction::Egress => &self.egress,
            Direction::Ingress => &self.ingress,
        }
    }
}

/// A set that rules look into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Set {
    /// Addresses of pods; it changes as pods come and go.
    Pods {
        /// Of which family.
        ipv6: bool,
        /// Its elements.
        addresses: Arc<Addresses>,
    },
    /// Address, protocol and port of the pods that name a port so; it changes likewise.
    Named {
        /// Of which family.
        ipv6: bool,
        /// Its elements.
        ports: Arc<NamedPorts>,
    },
    /// Ranges of addresses. Named by its content, it never changes.
    Block {
        /// Of which family.
        ipv6: bool,
        /// Its elements.
        intervals: Vec<Interval>,
    },
    /// Ranges of ports, likewise.
    Ports(Vec<Interval>),
}

/// Which ports a rule lets through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ports {
    /// All of every protocol.
    All,
    /// All of one.
    Protocol(Protocol),
    /// From the first to the last.
    Range(Protocol, u16, u16),
    /// Those of a set.
    Set(Protocol, String),
    /// What the destination calls so: a set of address, protocol and port.
    Named(String),
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// Drops what a pod sends under an address that is not its own.
    Forged,
    /// Drops what claims to be of one of this node's pods and came in by no pod's link.
    Unmarked(IpNetwork),
    /// Drops what is of a connection that was cut.
    Cut,
    /// Lets through what is of a connection that was let through.
    Established,
    /// Lets a pod reach itself, which it does through a Service.
    Itself {
        /// Of which family.
        ipv6: bool,
    },
    /// On by the map of pods.
    Pods {
        /// Which of the two maps.
        direction: Direction,
        /// Of which family.
        ipv6: bool,
    },
    /// Drops what is of an address that is in no map.
    Closed {
        /// Source or destination.
        direction: Direction,
        /// The node's own range.
        net: IpNetwork,
    },
    /// Asks a policy.
    Ask(Arc<str>),
    /// Drops.
    Drop,
    /// Lets through.
    Accept {
        /// Which end is the peer: the destination at egress, the source at ingress.
        direction: Direction,
        /// Of which family; both where nothing asks for an address.
        ipv6: Option<bool>,
        /// The peer is in this set.
        peers: Option<String>,
        /// On these ports.
        ports: Ports,
    },
}

impl Line {
    /// The policy's sets that it looks into.
    pub fn sets(&self) -> impl Iterator<Item = &str> {
        let (peers, ports) = match self {
            Line::Accept { peers, ports: Ports::Set(_, ports) | Ports::Named(ports), .. } => {
                (peers.as_deref(), Some(ports))
            }
            Line::Accept { peers, .. } => (peers.as_deref(), None),
            _ => (None, None),
        };
        peers.into_iter().chain(ports.map(String::as_str))
    }

    /// The policy's chain that it asks.
    pub fn asks(&self) -> Option<&str> {
        if let Line::Ask(chain) = self { Some(chain) } else { None }
    }
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// What it is for: the comment that `nft` shows.
    pub about: String,
    /// Its rules.
    pub lines: Vec<Line>,
}

/// What a node's table is to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Program {
    /// This node's pods by address. What is in none is dropped where it is of the node's own ranges.
    pub pods: BTreeMap<IpAddr, Verdicts>,
    /// Sets by name.
    pub sets: BTreeMap<String, Set>,
    /// Chains by name. Those of the hook have the directions' names.
    pub chains: BTreeMap<Arc<str>, Arc<Chain>>,
}

/// The map of a direction and family.
pub fn map(direction: Direction, ipv6: bool) -> &'static str {
    match (direction, ipv6) {
        (Direction::Egress, false) => "egress4",
        (Direction::Egress, true) => "egress6",
        (Direction::Ingress, false) => "ingress4",
        (Direction::Ingress, true) => "ingress6",
    }
}

/// The set of pods paired with themselves.
pub fn itself(ipv6: bool) -> &'static str {
    if ipv6 { "itself6" } else { "itself4" }
}

/// `nft`'s word for a family's header.
fn ip(ipv6: bool) -> &'static str {
    if ipv6 { "ip6" } else { "ip" }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |protocol: &Protocol| protocol.name().to_lowercase();
        match self {
            Ports::All | Ports::Named(_) => Ok(()),
            Ports::Protocol(protocol) => write!(f, "meta l4proto {} ", word(protocol)),
            Ports::Range(protocol, first, last) if first == last => {
                write!(f, "{} dport {first} ", word(protocol))
            }
            Ports::Range(protocol, first, last) => write!(f, "{} dport {first}-{last} ", word(protocol)),
            Ports::Set(protocol, set) => write!(f, "{} dport @{set} ", word(protocol)),
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Forged => write!(f, "iifgroup {LINKS} fib saddr . iif oif missing drop"),
            Line::Unmarked(net) => {
                write!(f, "iifgroup != {LINKS} {} saddr {net} drop", ip(net.is_ipv6()))
            }
            Line::Cut => write!(f, "ct mark & {CUT:#010x} != 0 drop"),
            Line::Established => f.write_str("ct state established,related accept"),
            Line::Itself { ipv6 } => {
                let ip = ip(*ipv6);
                write!(f, "{ip} saddr . {ip} daddr @{} accept", itself(*ipv6))
            }
            Line::Pods { direction, ipv6 } => {
                let end = if *direction == Direction::Egress { "saddr" } else { "daddr" };
                write!(f, "{} {end} vmap @{}", ip(*ipv6), map(*direction, *ipv6))
            }
            Line::Closed { direction, net } => {
                let end = if *direction == Direction::Egress { "saddr" } else { "daddr" };
                write!(f, "{} {end} {net} drop", ip(net.is_ipv6()))
            }
            Line::Ask(chain) => write!(f, "jump {chain}"),
            Line::Drop => f.write_str("drop"),
            Line::Accept { direction, ipv6, peers, ports } => {
                let ip = ip(ipv6.unwrap_or(false));
                let end = if *direction == Direction::Egress { "daddr" } else { "saddr" };
                if let Some(set) = peers {
                    write!(f, "{ip} {end} @{set} ")?;
                }
                if let Ports::Named(set) = ports {
                    write!(f, "{ip} daddr . meta l4proto . th dport @{set} ")?;
                }
                write!(f, "{ports}accept")
            }
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Open => f.write_str("accept"),
            Target::Chain(chain) => write!(f, "goto {chain}"),
        }
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all: Vec<String> = Vec::new();
        match self {
            Set::Pods { addresses, .. } => all.extend(addresses.keys().map(ToString::to_string)),
            Set::Named { ports, .. } => {
                all.extend(ports.iter().map(|(ip, protocol, port)| {
                    format!("{ip} . {} . {port}", protocol.name().to_lowercase())
                }))
            }
            Set::Block { ipv6, intervals } => all.extend(intervals.iter().map(|(first, last)| {
                format!("{}-{}", blocks::address(*first, *ipv6), blocks::address(*last, *ipv6))
            })),
            Set::Ports(intervals) => {
                all.extend(intervals.iter().map(|(first, last)| format!("{first}-{last}")));
            }
        }
        write!(f, "{{ {} }}", all.join(", "))
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (address, verdicts) in &self.pods {
            writeln!(f, "pod {address}: egress {}, ingress {}", verdicts.egress, verdicts.ingress)?;
        }
        for (name, set) in &self.sets {
            writeln!(f, "set {name} {set}")?;
        }
        for (name, chain) in &self.chains {
            writeln!(f, "chain {name} # {}", chain.about)?;
            for line in &chain.lines {
                writeln!(f, "\t{line}")?;
            }
        }
        Ok(())
    }
}
