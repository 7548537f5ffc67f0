//! The chain of one policy in one direction, and which sets its rules look into.

use std::sync::Arc;

use ipnetwork::IpNetwork;

use super::peers::Spec;
use crate::model::{Peer, Policy, Port, Protocol, Rule};
use crate::policy::Direction;
use crate::policy::blocks::{self, Interval};
use crate::policy::names::name;
use crate::policy::program::{Line, Ports, Set};

/// A policy's chain.
#[derive(Debug)]
pub(super) struct Compiled {
    /// Its name.
    pub(super) chain: Arc<str>,
    /// What it is for.
    pub(super) about: String,
    /// Its rules.
    pub(super) lines: Vec<Line>,
    /// Sets that do not change.
    pub(super) fixed: Vec<(String, Set)>,
    /// Sets of pods.
    pub(super) peers: Vec<Arc<Spec>>,
    /// Names of ports of all pods.
    pub(super) named: Vec<(Protocol, String)>,
    /// Names of ports of this node's pods: set, protocol, name, family.
    pub(super) own_ports: Vec<(String, Protocol, String, bool)>,
}

/// The name of the set of pods that call a port so.
pub(super) fn named_set(protocol: Protocol, port: &str, ipv6: bool, direction: Direction) -> String {
    let of = if direction == Direction::Egress { "named" } else { "own" };
    name(&format!("{of}{}", if ipv6 { 6 } else { 4 }), [protocol.name(), port])
}

/// Compiles a policy that says something of `direction`.
pub(super) fn compiled(policy: &Policy, direction: Direction, families: &[bool]) -> Compiled {
    let kind = if direction == Direction::Egress { "out" } else { "in" };
    let mut made = Compiled {
        chain: name(kind, [&policy.key.namespace, &policy.key.name]).into(),
        about: format!("{} of {}", direction.name(), policy.key),
        lines: Vec::new(),
        fixed: Vec::new(),
        peers: Vec::new(),
        named: Vec::new(),
        own_ports: Vec::new(),
    };
    for rule in direction.rules(policy).unwrap_or_default() {
        made.rule(rule, &policy.key.namespace, direction, families);
    }
    made
}

impl Compiled {
    fn rule(&mut self, rule: &Rule, namespace: &str, direction: Direction, families: &[bool]) {
        let ports = self.ports(rule);
        // Of each family, the sets in which a peer may be; none at all where everyone is one.
        let mut sets: Vec<(bool, String)> = Vec::new();
        if let Some(peers) = &rule.peers {
            let spec = Spec::of(peers, namespace);
            let blocks: Vec<(&IpNetwork, &[IpNetwork])> = peers
                .iter()
                .filter_map(|peer| match peer {
                    Peer::Block { cidr, except } => Some((cidr, except.as_slice())),
                    Peer::Pods { .. } => None,
                })
                .collect();
            for &ipv6 in families {
                sets.extend(spec.iter().map(|spec| (ipv6, spec.set(ipv6))));
                let intervals = blocks::of_blocks(blocks.iter().copied(), ipv6);
                if !intervals.is_empty() {
                    let set = name(if ipv6 { "block6" } else { "block4" }, texts(&intervals));
                    self.fixed.push((set.clone(), Set::Block { ipv6, intervals }));
                    sets.push((ipv6, set));
                }
            }
            self.peers.extend(spec.map(Arc::new));
        }
        let everyone = rule.peers.is_none();
        for ports in &ports {
            let accept = |ipv6, peers, ports| Line::Accept { direction, ipv6, peers, ports };
            let (protocol, port) = match ports {
                Wanted::Named(protocol, port) => (*protocol, port),
                Wanted::Ports(ports) => {
                    if everyone {
                        self.lines.push(accept(None, None, ports.clone()));
                    }
                    let among =
                        |(ipv6, set): &(bool, String)| accept(Some(*ipv6), Some(set.clone()), ports.clone());
                    self.lines.extend(sets.iter().map(among));
                    continue;
                }
            };
            let of_family = |ipv6: bool| sets.iter().filter(move |(of, _)| *of == ipv6);
            for &ipv6 in families.iter().filter(|&&ipv6| everyone || of_family(ipv6).next().is_some()) {
                let set = named_set(protocol, port, ipv6, direction);
                match direction {
                    Direction::Egress => self.named.push((protocol, port.clone())),
                    Direction::Ingress => self.own_ports.push((set.clone(), protocol, port.clone(), ipv6)),
                }
                if everyone {
                    self.lines.push(accept(Some(ipv6), None, Ports::Named(set.clone())));
                }
                let among = |(_, peers): &(bool, String)| {
                    accept(Some(ipv6), Some(peers.clone()), Ports::Named(set.clone()))
                };
                self.lines.extend(of_family(ipv6).map(among));
            }
        }
    }

    /// The rule's ports, of each protocol as few matches as can be.
    fn ports(&mut self, rule: &Rule) -> Vec<Wanted> {
        let Some(ports) = &rule.ports else { return vec![Wanted::Ports(Ports::All)] };
        let mut all = Vec::new();
        for protocol in Protocol::ALL {
            let own = || ports.iter().filter(move |(of, _)| *of == protocol).map(|(_, port)| port);
            if own().any(|port| *port == Port::Any) {
                all.push(Wanted::Ports(Ports::Protocol(protocol)));
                continue;
            }
            let range = |port: &Port| match port {
                Port::Range(first, last) => Some(((*first).into(), (*last).into())),
                _ => None,
            };
            let intervals = blocks::union(own().filter_map(range).collect());
            match intervals.as_slice() {
                [] => {}
                [(first, last)] => {
                    all.push(Wanted::Ports(Ports::Range(protocol, *first as u16, *last as u16)));
                }
                _ => {
                    let set = name("ports", texts(&intervals));
                    self.fixed.push((set.clone(), Set::Ports(intervals)));
                    all.push(Wanted::Ports(Ports::Set(protocol, set)));
                }
            }
            let mut names: Vec<&String> = own()
                .filter_map(|port| match port {
                    Port::Named(name) => Some(name),
                    _ => None,
                })
                .collect();
            names.sort_unstable();
            names.dedup();
            all.extend(names.into_iter().map(|name| Wanted::Named(protocol, name.clone())));
        }
        all
    }
}

/// Ports of a rule before it is known in which family.
enum Wanted {
    Ports(Ports),
    Named(Protocol, String),
}

fn texts(intervals: &[Interval]) -> impl Iterator<Item = String> {
    intervals.iter().map(|(first, last)| format!("{first}-{last}"))
}
