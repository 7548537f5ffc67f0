//! Rules into the kernel: the table `podlab` of a node, replaced in one batch that the kernel makes whole or not at all.
//! Which clients stay with which pod outlives the change, as long as the pod does.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::{IpNetwork, Ipv4Network};
use kernel::Nfnl;
use kernel::nft::{
    self, Base, Batch, Element, Expr, Family, Meta, Op, Reg, Rule, Set, Table, Type, Value, Verdict,
};

use super::ruleset::{
    AFFINITY_SECONDS, Key, MASQUERADE_MARK, Map, NODE_PORT_MAP, Ruleset, SERVICE_MAP, Step, hook_of,
};

/// The table.
pub const TABLE: Table<'static> = Table::new(Family::Ip, "podlab");

/// Makes the table hold these rules and nothing else; without rules there is no table.
///
/// # Errors
/// The kernel's refusal; the table is as it was.
pub fn apply(nfnl: &mut Nfnl, rules: &Ruleset) -> kernel::Result<()> {
    nfnl.transact(|nfnl, batch| {
        let there = nft::table(nfnl, TABLE)?.is_some();
        if rules.chains.is_empty() {
            if there {
                batch.delete_table(TABLE);
            }
            return Ok(());
        }
        batch.add_table(TABLE, Some("services of the lab"));
        if there {
            clear(nfnl, batch, rules)?;
        }
        put(batch, rules);
        Ok(())
    })
}

/// Everything goes but base chains, which stay as they are, and the sets of clients that are still wanted.
fn clear(nfnl: &mut Nfnl, batch: &mut Batch, rules: &Ruleset) -> kernel::Result<()> {
    let chains = nft::chains(nfnl, TABLE)?;
    for chain in &chains {
        batch.flush_chain(TABLE, &chain.name);
    }
    for set in nft::sets(nfnl, TABLE)? {
        if !rules.affinities.contains(&set.name) {
            batch.delete_set(TABLE, &set.name);
        }
    }
    let wanted: BTreeSet<&str> = rules.chains.iter().map(|chain| chain.name.as_str()).collect();
    for chain in chains.iter().filter(|chain| !wanted.contains(chain.name.as_str())) {
        batch.delete_chain(TABLE, &chain.name);
    }
    Ok(())
}

fn put(batch: &mut Batch, rules: &Ruleset) {
    for name in &rules.affinities {
        let timeout_ms = Some(AFFINITY_SECONDS * 1000);
        batch.add_set(TABLE, &Set { name, key: &[Type::Ipv4Addr], timeout_ms, ..Set::default() });
    }
    for chain in &rules.chains {
        batch.add_chain(TABLE, &chain.name, chain.hook.map(hook_of).as_ref());
    }
    for map in &rules.maps {
        let key = keys(map);
        batch.add_set(TABLE, &Set { name: &map.name, key, value: Some(Value::Verdict), ..Set::default() });
        let elements: Vec<Element> = map.elements.iter().map(element).collect();
        batch.add_elements(TABLE, &map.name, &elements);
    }
    for chain in &rules.chains {
        for step in &chain.steps {
            batch.append(TABLE, &chain.name, &rule(step));
        }
    }
}

fn keys(map: &Map) -> &'static [Type] {
    match map.name.as_str() {
        SERVICE_MAP => &[Type::Ipv4Addr, Type::InetProto, Type::InetService],
        NODE_PORT_MAP => &[Type::InetProto, Type::InetService],
        // Turns are numbers of four bytes in the host's order, as marks are.
        _ => &[Type::Mark],
    }
}

fn element((key, chain): &(Key, String)) -> Element {
    let element = match key {
        Key::Service(address, protocol, port) => {
            Element::key_of(&[&address.octets(), &[protocol.number()], &port.to_be_bytes()])
        }
        Key::NodePort(protocol, port) => Element::key_of(&[&[protocol.number()], &port.to_be_bytes()]),
        Key::Turn(turn) => Element::key_of(&[&turn.to_ne_bytes()]),
    };
    element.to_verdict(Verdict::Goto(chain.clone()))
}

fn load_address(rule: Rule, to: Reg) -> Rule {
    rule.expr(Expr::Payload { base: Base::Network, offset: 16, len: 4, dreg: to })
}

/// Protocol and destination port, one behind the other.
fn load_port(rule: Rule, (protocol, port): (Reg, Reg)) -> Rule {
    rule.expr(Expr::Meta { key: Meta::L4Proto, dreg: protocol }).expr(Expr::Payload {
        base: Base::Transport,
        offset: 2,
        len: 2,
        dreg: port,
    })
}

fn from(rule: Rule, network: Ipv4Network) -> Rule {
    rule.saddr(Op::Eq, IpNetwork::V4(network))
}

fn rule(step: &Step) -> Rule {
    let rule = Rule::new();
    match step {
        Step::Jump(chain) => rule.jump(chain),
        Step::ServiceMap => {
            load_port(load_address(rule, Reg::word(0)), (Reg::word(1), Reg::word(2))).verdict_map(SERVICE_MAP)
        }
        Step::NodePortMap(address) => {
            let to = rule.daddr(Op::Eq, IpNetwork::from(IpAddr::V4(*address)));
            load_port(to, (Reg::word(0), Reg::word(1))).verdict_map(NODE_PORT_MAP)
        }
        Step::Mark => rule.set_mark_bits(MASQUERADE_MARK),
        Step::MarkFrom(network) => from(rule, *network).set_mark_bits(MASQUERADE_MARK),
        Step::GotoFrom(network, chain) => from(rule, *network).goto(chain),
        Step::Goto(chain) => rule.goto(chain),
        Step::Sticky(set, chain) => rule
            .expr(Expr::Payload { base: Base::Network, offset: 12, len: 4, dreg: Reg::R1 })
            .in_set(set, false)
            .goto(chain),
        Step::Turns(among, map) => rule.in_turn(*among as u32, map),
        Step::Remember(set) => rule.remember_saddr(set),
        Step::Dnat(protocol, to) => {
            rule.l4proto(protocol.number()).dnat(IpAddr::V4(*to.ip()), Some(to.port()))
        }
        Step::Masquerade => rule.mark(Op::Eq, MASQUERADE_MARK, MASQUERADE_MARK).masquerade(),
        Step::Reject(network) => rule.daddr(Op::Eq, IpNetwork::V4(*network)).reject(),
        Step::Drop => rule.drop(),
    }
}
