//! What rules of nf_tables do with a packet: which one drops, refuses or rewrites it.
//!
//! As much of the rules' language as firewalls are made of. What is not known of a packet (a connection's state, chance,
//! the content of a set) is taken as if it fitted, and told as not certain. Maps of single fields to verdicts are followed.

use std::collections::HashMap;
use std::net::IpAddr;

use kernel::nft::{
    Base, ChainInfo, Ct, Data, Element, Expr, Family, Meta, Op, Point, Reg, RuleInfo, Verdict, ip_bytes,
    name_bytes,
};

use super::state::{State, TableState};

/// A packet, as far as rules look at one.
#[derive(Debug, Clone)]
pub(super) struct Packet<'p> {
    pub(super) iif: &'p str,
    pub(super) oif: &'p str,
    pub(super) source: IpAddr,
    pub(super) target: IpAddr,
    pub(super) protocol: u8,
    pub(super) ports: (u16, u16),
}

/// Whether chains of a family are at a hook for the packet: the link's own is that of family netdev.
fn is_at(point: Point, family: Family, packet: &Packet<'_>) -> bool {
    match family {
        Family::Ip if packet.target.is_ipv6() => false,
        Family::Ip6 if packet.target.is_ipv4() => false,
        Family::Ip | Family::Ip6 | Family::Inet => point != Point::Ingress,
        Family::Netdev => point == Point::Ingress,
        _ => false,
    }
}

/// What a rule does with the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    Drop,
    Reject,
    Rewrite,
}

/// A rule that does something with the packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Met {
    pub(super) deed: Deed,
    /// `ip guard forward`
    pub(super) chain: String,
    /// It does so with every such packet.
    pub(super) is_certain: bool,
}

/// The rules of a place that do something with the packet at one of these hooks.
pub(super) fn meet(state: &State, hooks: &[Point], packet: &Packet<'_>) -> Vec<Met> {
    let mut met = Vec::new();
    for table in &state.tables {
        let Some(family) = table.family else { continue };
        for point in hooks.iter().filter(|point| is_at(**point, family, packet)) {
            for (chain, rules) in &table.chains {
                if chain.hook.is_some_and(|(number, _)| number == point.number(family)) {
                    met.extend(through(table, chain, rules, packet));
                }
            }
        }
    }
    met
}

/// A base chain: what it does in the end, if it is not to let the packet pass.
fn through(table: &TableState, chain: &ChainInfo, rules: &[RuleInfo], packet: &Packet<'_>) -> Option<Met> {
    let family = table.family.map_or("", Family::as_str);
    let name = |chain: &str| format!("{family} {} {chain}", table.name);
    match walk(table, &chain.name, rules, packet, 0) {
        Walked::Ended(End::Deed(deed, chain, is_certain)) => {
            Some(Met { deed, chain: name(&chain), is_certain })
        }
        Walked::Ended(End::Accept) => None,
        Walked::Through if chain.accept == Some(false) => {
            Some(Met { deed: Deed::Drop, chain: name(&chain.name), is_certain: true })
        }
        Walked::Through => None,
    }
}

enum Walked {
    Through,
    Ended(End),
}

enum End {
    Accept,
    Deed(Deed, String, bool),
}

/// Chains jump to each other no deeper than this (NFT_JUMP_STACK_SIZE, net/netfilter/nf_tables.h).
const DEEPEST: usize = 16;

fn walk(table: &TableState, chain: &str, rules: &[RuleInfo], packet: &Packet<'_>, depth: usize) -> Walked {
    for rule in rules {
        let mut registers = Registers { packet, maps: &table.maps, values: HashMap::new(), is_certain: true };
        let Some(end) = registers.run(&rule.expressions) else { continue };
        let is_certain = registers.is_certain;
        let deed = |deed| Walked::Ended(End::Deed(deed, chain.to_owned(), is_certain));
        let (to, comes_back) = match end {
            Did::Deed(it) => return deed(it),
            Did::Verdict(Verdict::Drop) => return deed(Deed::Drop),
            Did::Verdict(Verdict::Accept) if is_certain => return Walked::Ended(End::Accept),
            Did::Verdict(Verdict::Return) if is_certain => return Walked::Through,
            Did::Verdict(Verdict::Jump(to)) => (to, true),
            Did::Verdict(Verdict::Goto(to)) => (to, !is_certain),
            Did::Verdict(_) => continue,
        };
        let next = table.chains.iter().find(|(info, _)| info.name == to).filter(|_| depth < DEEPEST);
        if let Some((info, rules)) = next {
            match walk(table, &info.name, rules, packet, depth + 1) {
                Walked::Ended(end) => return Walked::Ended(end),
                Walked::Through if comes_back => {}
                Walked::Through => return Walked::Through,
            }
        }
    }
    Walked::Through
}

enum Did {
    Verdict(Verdict),
    Deed(Deed),
}

/// The registers of a rule under way. A register that is not in the map holds what is not known.
struct Registers<'p> {
    packet: &'p Packet<'p>,
    maps: &'p HashMap<String, Vec<Element>>,
    values: HashMap<Reg, Vec<u8>>,
    is_certain: bool,
}

impl Registers<'_> {
    /// What the rule ends with; None when it does not fit the packet, or does nothing with it.
    fn run(&mut self, expressions: &[Expr]) -> Option<Did> {
        for expression in expressions {
            match expression {
                Expr::Meta { key, dreg } => self.put(*dreg, self.meta(*key)),
                Expr::Payload { base, offset, len, dreg } => {
                    self.put(*dreg, self.payload(*base, *offset, *len));
                }
                Expr::Immediate { dreg, data } => self.put(*dreg, Some(data.clone())),
                Expr::Bitwise { sreg, dreg, mask, xor } => {
                    let value = self.values.get(sreg).map(|value| {
                        let bits = value.iter().zip(mask).zip(xor);
                        bits.map(|((byte, mask), xor)| byte & mask ^ xor).collect()
                    });
                    self.put(*dreg, value);
                }
                Expr::Cmp { sreg, op, data } => match self.values.get(sreg) {
                    Some(value) if !compare(value, *op, data) => return None,
                    Some(_) => {}
                    None => self.is_certain = false,
                },
                // Nor the connection.
                Expr::Ct { key: Ct::Mark, dreg, .. } => self.put(*dreg, Some(vec![0; 4])),
                Expr::Ct { dreg, .. } | Expr::Fib { dreg, .. } | Expr::Numgen { dreg, .. } => {
                    self.put(*dreg, None);
                }
                Expr::Lookup { to_verdict: false, .. } | Expr::Range { .. } | Expr::Limit { .. } => {
                    self.is_certain = false;
                }
                // Where what is looked up is not known as a whole, neither is where it leads.
                Expr::Lookup { set, sreg, .. } => return self.found(set, *sreg).map(Did::Verdict),
                Expr::Verdict(verdict) => return Some(Did::Verdict(verdict.clone())),
                Expr::Reject { .. } => return Some(Did::Deed(Deed::Reject)),
                Expr::Masquerade { .. } | Expr::Snat { .. } => return Some(Did::Deed(Deed::Rewrite)),
                Expr::Counter { .. } => {}
                _ => self.is_certain = false,
            }
        }
        None
    }

    /// The verdict to which a map leads.
    fn found(&self, map: &str, register: Reg) -> Option<Verdict> {
        let (elements, value) = (self.maps.get(map)?, self.values.get(&register)?);
        // Of ranges none is looked for.
        let is_range = |it: &Element| it.is_end || it.key_end.is_some();
        if elements.iter().any(is_range) {
            return None;
        }
        match &elements.iter().find(|it| it.key == *value)?.data {
            Some(Data::Verdict(verdict)) => Some(verdict.clone()),
            _ => None,
        }
    }

    fn put(&mut self, register: Reg, value: Option<Vec<u8>>) {
        match value {
            Some(value) => self.values.insert(register, value),
            None => self.values.remove(&register),
        };
    }

    fn meta(&self, key: Meta) -> Option<Vec<u8>> {
        let packet = self.packet;
        match key {
            Meta::IifName => Some(name_bytes(packet.iif).to_vec()),
            Meta::OifName => Some(name_bytes(packet.oif).to_vec()),
            Meta::L4Proto => Some(vec![packet.protocol]),
            // linux/netfilter.h, `NFPROTO_*`; linux/if_ether.h, `ETH_P_*`
            Meta::NfProto => Some(vec![if packet.target.is_ipv4() { 2 } else { 10 }]),
            Meta::Protocol => Some(if packet.target.is_ipv4() { vec![8, 0] } else { vec![0x86, 0xdd] }),
            // Nobody has marked it yet.
            Meta::Mark => Some(vec![0; 4]),
            _ => None,
        }
    }

    /// The fields of RFC 791, of RFC 8200 and of the ports that TCP and UDP begin with.
    fn payload(&self, base: Base, offset: u32, len: u32) -> Option<Vec<u8>> {
        let (packet, (source, target)) = (self.packet, self.packet.ports);
        let is_v6 = packet.target.is_ipv6();
        let (start, field) = match (base, offset) {
            (Base::Network, 8..24) if is_v6 => (8, ip_bytes(packet.source)),
            (Base::Network, 24..40) if is_v6 => (24, ip_bytes(packet.target)),
            (Base::Network, _) if is_v6 => return None,
            (Base::Network, 9) => (9, vec![packet.protocol]),
            (Base::Network, 12..16) => (12, ip_bytes(packet.source)),
            (Base::Network, 16..20) => (16, ip_bytes(packet.target)),
            (Base::Transport, 0..2) => (0, source.to_be_bytes().to_vec()),
            (Base::Transport, 2..4) => (2, target.to_be_bytes().to_vec()),
            _ => return None,
        };
        let from = (offset - start) as usize;
        field.get(from..from + len as usize).map(<[u8]>::to_vec)
    }
}

fn compare(value: &[u8], op: Op, data: &[u8]) -> bool {
    let value = &value[..value.len().min(data.len())];
    match op {
        Op::Eq => value == data,
        Op::Neq => value != data,
        Op::Lt => value < data,
        Op::Lte => value <= data,
        Op::Gt => value > data,
        Op::Gte => value >= data,
        Op::Other(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use kernel::nft::{self, Batch, ChainKind, Point, Rule, Set, Table, Type, Value, priority};
    use kernel::{Netns, Nfnl};

    use super::*;
    use crate::cluster::{Role, Space};

    const TABLE: Table<'static> = Table::new(Family::Ip, "t");

    fn packet() -> Packet<'static> {
        let (source, target) = ("10.244.2.2".parse().unwrap(), "10.244.1.2".parse().unwrap());
        Packet { iif: "eth0", oif: "cni0", source, target, protocol: 6, ports: (40_000, 8080) }
    }

    /// What the kernel gives back of these rules does this with the packet at the forward hook.
    fn met(rules: &[Rule], policy_accepts: bool) -> Vec<(Deed, bool)> {
        let netns = Netns::create().unwrap();
        let mut nfnl = Nfnl::open_in(&netns).unwrap();
        let hook = nft::Hook {
            accept: policy_accepts,
            ..nft::Hook::new(ChainKind::Filter, Point::Forward, priority::FILTER)
        };
        let mut batch = Batch::new();
        batch.add_table(TABLE, None).add_chain(TABLE, "side", None).add_chain(TABLE, "forward", Some(&hook));
        batch.append(TABLE, "side", &Rule::new().dport(Op::Eq, 8080).reject());
        batch.add_set(TABLE, &map(MAP));
        batch.add_set(TABLE, &map(NONE));
        let to = |verdict| Some(Data::Verdict(verdict));
        for (net, verdict) in [(1, Verdict::Goto("side".to_owned())), (2, Verdict::Accept)] {
            let element = Element { key: vec![10, 244, net, 2], data: to(verdict), ..Element::default() };
            batch.add_elements(TABLE, MAP, &[element]);
        }
        for rule in rules {
            batch.append(TABLE, "forward", rule);
        }
        nfnl.commit(batch).unwrap();
        let space = Space { name: "node1".into(), netns, uts: None, role: Role::Node };
        let state = State::read(&space, None).unwrap();
        assert!(meet(&state, &[Point::Input, Point::Output], &packet()).is_empty(), "another hook");
        meet(&state, &[Point::Forward], &packet()).into_iter().map(|met| (met.deed, met.is_certain)).collect()
    }

    const MAP: &str = "map";
    const NONE: &str = "none";

    fn map(name: &str) -> Set<'_> {
        Set {
            name,
            key: &[Type::Ipv4Addr],
            value: Some(Value::Verdict),
            interval: false,
            timeout_ms: None,
            comment: None,
        }
    }

    /// `ip FIELD vmap @MAP`, the field being at this offset.
    fn looked_up(offset: u32, map: &str) -> Rule {
        let field = Expr::Payload { base: Base::Network, offset, len: 4, dreg: Reg::R1 };
        let (set, sreg) = (map.to_owned(), Reg::R1);
        let lookup = Expr::Lookup { set, sreg, dreg: None, to_verdict: true, invert: false };
        Rule::new().nfproto("10.0.0.0".parse().unwrap()).expr(field).expr(lookup)
    }

    #[test]
    fn maps_lead_to_what_they_have_for_the_packet() {
        const SOURCE: u32 = 12;
        const TARGET: u32 = 16;
        assert_eq!(met(&[looked_up(TARGET, MAP), Rule::new().accept()], true), [(Deed::Reject, true)]);
        assert_eq!(met(&[looked_up(SOURCE, MAP), Rule::new().drop()], true), []);
        assert_eq!(met(&[looked_up(TARGET, NONE), Rule::new().drop()], true), [(Deed::Drop, true)]);
        // A connection that nobody has marked yet.
        assert_eq!(met(&[Rule::new().ct_mark(1).drop()], true), []);
    }

    fn net(text: &str) -> ipnetwork::IpNetwork {
        text.parse().unwrap()
    }

    #[test]
    fn a_rule_that_fits_is_met_and_one_that_does_not_is_passed_over() {
        let to_pods = || Rule::new().daddr(Op::Eq, net("10.244.1.0/24")).l4proto(6);
        assert_eq!(met(&[to_pods().dport(Op::Eq, 8080).drop()], true), [(Deed::Drop, true)]);
        assert_eq!(met(&[to_pods().dport(Op::Eq, 8080).reject()], true), [(Deed::Reject, true)]);
        for passed in [
            to_pods().dport(Op::Eq, 8081).drop(),
            to_pods().saddr(Op::Neq, net("10.244.2.0/24")).drop(),
            Rule::new().iifname(Op::Neq, "eth0").drop(),
            Rule::new().oifname(Op::Eq, "eth0").drop(),
            Rule::new().mark(Op::Eq, 0x4000, 0x4000).drop(),
            Rule::new().l4proto(17).drop(),
        ] {
            assert_eq!(met(&[passed], true), []);
        }
    }

    #[test]
    fn chains_verdicts_and_policies_are_followed() {
        assert_eq!(met(&[Rule::new().jump("side")], true), [(Deed::Reject, true)]);
        assert_eq!(met(&[Rule::new().accept(), Rule::new().drop()], true), []);
        assert_eq!(met(&[Rule::new().return_(), Rule::new().drop()], false), [(Deed::Drop, true)]);
        assert_eq!(met(&[], false), [(Deed::Drop, true)]);
    }

    #[test]
    fn chance_and_state_are_not_certain() {
        let chance = Expr::Numgen { dreg: Reg::R1, modulus: 100, random: true, offset: 0 };
        let less = Expr::Cmp { sreg: Reg::R1, op: Op::Lt, data: 30_u32.to_ne_bytes().to_vec() };
        assert_eq!(met(&[Rule::new().expr(chance).expr(less).drop()], true), [(Deed::Drop, false)]);
        let new = Rule::new().ct_state(kernel::nft::ct_state::NEW);
        assert_eq!(met(&[new.accept(), Rule::new().drop()], true), [(Deed::Drop, true)]);
    }
}
