//! Rules and elements in the kernel's terms.

use std::net::IpAddr;
use std::sync::Arc;

use kernel::nft::{Base, Element, Expr, Meta, Op, Reg, Rule, ct_state, ip_bytes};

use super::to_verdict;
use crate::policy::Direction;
use crate::policy::blocks::{self, Interval};
use crate::policy::program::{self, CUT, LINKS, Line, Ports, Set, Target};

/// The elements of `set` that `other`, the same set at another time, does not have.
pub(super) fn elements(set: &Set, other: Option<&Set>) -> Vec<Element> {
    match (set, other) {
        (Set::Pods { addresses, .. }, other) => {
            let there = match other {
                Some(Set::Pods { addresses: there, .. }) if Arc::ptr_eq(addresses, there) => {
                    return Vec::new();
                }
                Some(Set::Pods { addresses: there, .. }) => Some(there),
                _ => None,
            };
            let fresh = addresses.keys().filter(|it| there.is_none_or(|there| !there.contains_key(*it)));
            fresh.map(|it| Element::key_of(&[&ip_bytes(*it)])).collect()
        }
        (Set::Named { ports, .. }, other) => {
            let there = match other {
                Some(Set::Named { ports: there, .. }) if Arc::ptr_eq(ports, there) => return Vec::new(),
                Some(Set::Named { ports: there, .. }) => Some(there),
                _ => None,
            };
            let fresh = ports.iter().filter(|it| there.is_none_or(|there| !there.contains(*it)));
            fresh
                .map(|(ip, protocol, port)| {
                    Element::key_of(&[&ip_bytes(*ip), &[protocol.number()], &port.to_be_bytes()])
                })
                .collect()
        }
        // Named by their content.
        (Set::Block { .. } | Set::Ports(_), Some(_)) => Vec::new(),
        (Set::Block { ipv6, intervals }, None) => {
            let last = if *ipv6 { u128::MAX } else { u32::MAX.into() };
            ranges(intervals, last, |number| ip_bytes(blocks::address(number, *ipv6)))
        }
        (Set::Ports(intervals), None) => {
            ranges(intervals, u16::MAX.into(), |number| (number as u16).to_be_bytes().to_vec())
        }
    }
}

/// Where each range begins and, unless it reaches to the last key, what comes behind it.
fn ranges(intervals: &[Interval], last: u128, key: impl Fn(u128) -> Vec<u8>) -> Vec<Element> {
    let mut all = Vec::with_capacity(intervals.len() * 2);
    for (first, end) in intervals {
        all.push(Element::key_of(&[&key(*first)]));
        if *end < last {
            all.push(Element { is_end: true, ..Element::key_of(&[&key(end + 1)]) });
        }
    }
    all
}

/// The element of a pod's map.
pub(super) fn verdict(address: IpAddr, target: &Target) -> Element {
    Element::key_of(&[&ip_bytes(address)]).to_verdict(to_verdict(target))
}

/// The element of a pod paired with itself.
pub(super) fn pair(address: IpAddr) -> Element {
    let bytes = ip_bytes(address);
    Element::key_of(&[&bytes, &bytes])
}

/// The kernel's rule of a line.
pub(in crate::policy) fn rule(line: &Line) -> Rule {
    match line {
        Line::Forged => Rule::new().iifgroup(Op::Eq, LINKS).came_another_way().drop(),
        Line::Unmarked(net) => {
            let rule = Rule::new().iifgroup(Op::Neq, LINKS);
            family(rule, net.is_ipv6()).saddr(Op::Eq, *net).drop()
        }
        Line::Cut => Rule::new().ct_mark(CUT).drop(),
        Line::Established => Rule::new().ct_state(ct_state::ESTABLISHED | ct_state::RELATED).accept(),
        Line::Itself { ipv6 } => {
            let rule = family(Rule::new(), *ipv6);
            let rule = address(rule, true, *ipv6, 0);
            let next = words(*ipv6);
            address(rule, false, *ipv6, next).in_set(program::itself(*ipv6), false).accept()
        }
        Line::Pods { direction, ipv6 } => {
            let rule = address(family(Rule::new(), *ipv6), *direction == Direction::Egress, *ipv6, 0);
            rule.verdict_map(program::map(*direction, *ipv6))
        }
        Line::Closed { direction, net } => {
            let rule = family(Rule::new(), net.is_ipv6());
            match direction {
                Direction::Egress => rule.saddr(Op::Eq, *net).drop(),
                Direction::Ingress => rule.daddr(Op::Eq, *net).drop(),
            }
        }
        Line::Ask(chain) => Rule::new().jump(chain),
        Line::Drop => Rule::new().drop(),
        Line::Accept { direction, ipv6, peers, ports } => {
            let mut rule = Rule::new();
            let ipv6 = ipv6.inspect(|ipv6| rule = family(std::mem::take(&mut rule), *ipv6)).unwrap_or(false);
            if let Some(set) = peers {
                rule = address(rule, *direction == Direction::Ingress, ipv6, 0).in_set(set, false);
            }
            let of = |rule: Rule, protocol: crate::model::Protocol| rule.l4proto(protocol.number());
            let port = Expr::Payload { base: Base::Transport, offset: 2, len: 2, dreg: Reg::R1 };
            rule = match ports {
                Ports::All => rule,
                Ports::Protocol(protocol) => of(rule, *protocol),
                Ports::Range(protocol, first, last) if first == last => {
                    of(rule, *protocol).dport(Op::Eq, *first)
                }
                Ports::Range(protocol, first, last) => of(rule, *protocol).expr(port).expr(Expr::Range {
                    sreg: Reg::R1,
                    op: Op::Eq,
                    from: first.to_be_bytes().to_vec(),
                    to: last.to_be_bytes().to_vec(),
                }),
                Ports::Set(protocol, set) => of(rule, *protocol).expr(port).in_set(set, false),
                Ports::Named(set) => {
                    let next = words(ipv6);
                    address(rule, false, ipv6, 0)
                        .expr(Expr::Meta { key: Meta::L4Proto, dreg: Reg::word(next) })
                        .expr(Expr::Payload {
                            base: Base::Transport,
                            offset: 2,
                            len: 2,
                            dreg: Reg::word(next + 1),
                        })
                        .in_set(set, false)
                }
            };
            rule.accept()
        }
    }
}

fn family(rule: Rule, ipv6: bool) -> Rule {
    let any: IpAddr = if ipv6 { [0u16; 8].into() } else { [0u8; 4].into() };
    rule.nfproto(any)
}

/// How many registers of 4 bytes an address takes.
fn words(ipv6: bool) -> u32 {
    if ipv6 { 4 } else { 1 }
}

/// Loads source or destination address into the registers from `word` on.
fn address(rule: Rule, source: bool, ipv6: bool, word: u32) -> Rule {
    let (offset, len) = match (source, ipv6) {
        (true, false) => (12, 4),
        (false, false) => (16, 4),
        (true, true) => (8, 16),
        (false, true) => (24, 16),
    };
    rule.expr(Expr::Payload { base: Base::Network, offset, len, dreg: Reg::word(word) })
}
