//! The rules that a configuration and a pod's address ask for: pure, one family at a time.
//!
//! Chains and their order are the reference's (table `cni_hostport`). Beyond it, conditions stand on each
//! rule, so that networks do not overwrite each other's; and a connection to be masqueraded is marked where it
//! is rewritten, so that connections which reach the pod in another way keep their source.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use kernel::nft::{Base, Expr, Meta, Op, Reg, Rule};

use super::conditions::{Match, On};
use super::config::{HostIp, Mapping, PortmapConfig};

/// The chain for mappings.
pub(super) const HOSTPORTS: &str = "hostports";
/// The chain for mappings in which older releases of the reference had those with a hostIP.
pub(super) const HOSTIP_HOSTPORTS: &str = "hostip_hostports";
/// The base chain that masquerades.
pub(super) const MASQUERADING: &str = "masquerading";

/// What one attachment needs in one family.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Mappings of one address of the node.
    pub(super) specific: Vec<Rule>,
    /// Mappings of all its addresses.
    pub(super) general: Vec<Rule>,
    /// For [`MASQUERADING`].
    pub(super) masquerading: Vec<Rule>,
    mappings: usize,
}

impl Wanted {
    /// No mapping is for this family.
    pub(super) fn is_empty(&self) -> bool {
        self.specific.is_empty() && self.general.is_empty()
    }

    /// How many rules the reference would have for the same.
    pub(super) fn mappings(&self) -> usize {
        self.mappings
    }
}

/// The rules for the mappings of the family of `pod`, the pod's address with its subnet.
pub(super) fn wanted(config: &PortmapConfig, pod: IpNetwork) -> Wanted {
    let v6 = pod.is_ipv6();
    let mut wanted = Wanted::default();
    for mapping in config.mappings.iter().filter(|mapping| mapping.host_ip.is_for(v6)) {
        wanted.mappings += 1;
        let rules = match mapping.host_ip {
            HostIp::One(_) => &mut wanted.specific,
            HostIp::Any | HostIp::AnyOf { .. } => &mut wanted.general,
        };
        for conditions in config.conditions(v6) {
            let matched = || to_mapping(conditions.iter().fold(led(v6), matching), mapping);
            if config.snat {
                rules.extend(masqueraded(config, pod).into_iter().map(|source| {
                    let from = source.into_iter().fold(matched(), |rule, net| rule.saddr(Op::Eq, net));
                    from.set_mark_bits(config.mark)
                }));
            }
            rules.push(matched().dnat(pod.ip(), Some(mapping.container_port)));
        }
    }
    if config.snat && !wanted.is_empty() {
        let marked = Rule::new().mark(Op::Eq, config.mark, config.mark);
        wanted.masquerading.push(marked.daddr(Op::Eq, pod.ip().into()).masquerade());
    }
    wanted
}

/// Whose connections are masqueraded: all, or those that the pod would answer past the node, which are those
/// of its own subnet (itself included) and of the node's loopback address.
fn masqueraded(config: &PortmapConfig, pod: IpNetwork) -> Vec<Option<IpNetwork>> {
    if config.masquerade_all {
        return vec![None];
    }
    let loopback = (!pod.is_ipv6()).then(|| IpNetwork::from(IpAddr::from(Ipv4Addr::LOCALHOST)));
    std::iter::once(pod).chain(loopback).map(Some).collect()
}

/// IPv6 lets no packet from ::1 out to a link, whatever is done to it later: left alone, a client on the node is
/// refused at once and tries 127.0.0.1, instead of waiting for nothing.
fn led(v6: bool) -> Rule {
    match v6 {
        true => Rule::new().saddr(Op::Neq, IpAddr::from(Ipv6Addr::LOCALHOST).into()),
        false => Rule::new(),
    }
}

fn to_mapping(rule: Rule, mapping: &Mapping) -> Rule {
    let rule = match mapping.host_ip {
        HostIp::One(ip) => rule.daddr(Op::Eq, ip.into()),
        HostIp::Any | HostIp::AnyOf { .. } => rule,
    };
    rule.l4proto(mapping.protocol.0).dport(Op::Eq, mapping.host_port)
}

/// Adds a condition to a rule.
fn matching(rule: Rule, condition: &Match) -> Rule {
    let op = if condition.negated { Op::Neq } else { Op::Eq };
    match &condition.on {
        On::Source(net) => rule.saddr(op, *net),
        On::Destination(net) => rule.daddr(op, *net),
        On::Input(name) => named(rule, Meta::IifName, op, name),
        On::Output(name) => named(rule, Meta::OifName, op, name),
        On::Mark { value, mask } => rule.mark(op, *value, *mask),
        On::Protocol(number) => {
            let loaded = rule.expr(Expr::Meta { key: Meta::L4Proto, dreg: Reg::R1 });
            loaded.expr(Expr::Cmp { sreg: Reg::R1, op, data: vec![*number] })
        }
        On::SourcePort(first, last) => ports(rule, 0, op, *first, *last),
        On::DestinationPort(first, last) => ports(rule, 2, op, *first, *last),
    }
}

/// A link's name, whole with the NULs behind it, or its beginning.
fn named(rule: Rule, key: Meta, op: Op, name: &str) -> Rule {
    let data = match name.strip_suffix('*') {
        Some(head) => head.as_bytes().to_vec(),
        None => kernel::nft::name_bytes(name).to_vec(),
    };
    rule.expr(Expr::Meta { key, dreg: Reg::R1 }).expr(Expr::Cmp { sreg: Reg::R1, op, data })
}

fn ports(rule: Rule, offset: u32, op: Op, first: u16, last: u16) -> Rule {
    let loaded = rule.expr(Expr::Payload { base: Base::Transport, offset, len: 2, dreg: Reg::R1 });
    let (from, to) = (first.to_be_bytes().to_vec(), last.to_be_bytes().to_vec());
    loaded.expr(if from == to {
        Expr::Cmp { sreg: Reg::R1, op, data: from }
    } else {
        Expr::Range { sreg: Reg::R1, op, from, to }
    })
}
