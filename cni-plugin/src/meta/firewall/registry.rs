//! A table of our own, `inet podnet_firewall`: who has which ingress policy on which bridge and which address
//! in which zone of firewalld, and the rules that follow from it. `bridge podnet_firewall` beside it is
//! for what a bridge carries past those.
//!
//! Each attachment has its entries, rules in a chain that no packet passes, so that what several share is
//! taken away with the last, whoever that is. The rules for a bridge are the same however many pods it has.

use std::net::IpAddr;

use kernel::nft::{
    self, Batch, ChainKind, Element, Expr, Family, Hook, Meta, Op, Point, Reg, Rule, RuleInfo, Set, Table,
    Type, Userdata, priority,
};
use kernel::{Nfnl, Result};

use super::config::Policy;
use crate::meta::owner::{self, Owner};

const NAME: &str = "podnet_firewall";
const COMMENT: &str = "podnet: ingress policies of bridges";
/// Packets through the node.
const ROUTED: Table<'static> = Table::new(Family::Inet, NAME);
/// Frames that a bridge carries, which packet filters see only with br_netfilter.
const BRIDGED: Table<'static> = Table::new(Family::Bridge, NAME);

/// The entries.
const ENTRIES: &str = "attachments";
const FORWARD: &str = "forward";
/// Packets that leave one bridge with a policy for another link.
const LEAVING: &str = "leaving";

const ROUTED_HOOK: Hook<'static> = Hook::new(ChainKind::Filter, Point::Forward, priority::FILTER);
const BRIDGED_HOOK: Hook<'static> = Hook::new(ChainKind::Filter, Point::Forward, priority::BRIDGE_FILTER);

/// The ports of pods that no other port of their bridge may reach.
const PORTS: Set<'static> = Set {
    name: "isolated",
    key: &[Type::IfName],
    value: None,
    interval: false,
    timeout_ms: None,
    comment: None,
};
/// EtherTypes of IPv4 and IPv6.
const IP: [[u8; 2]; 2] = [[0x08, 0x00], [0x86, 0xdd]];

/// What an attachment has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// A policy on a bridge; isolated is the pod on this port of it.
    Policy { bridge: String, isolated: Option<String> },
    /// An address in a zone of firewalld.
    Source { zone: String, ip: IpAddr },
}

impl Entry {
    fn text(&self) -> String {
        match self {
            Entry::Policy { bridge, isolated: None } => format!("same-bridge {bridge}"),
            Entry::Policy { bridge, isolated: Some(port) } => format!("isolated {bridge} {port}"),
            Entry::Source { zone, ip } => format!("source {ip} {zone}"),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (word, rest) = text.split_once(' ')?;
        match word {
            "same-bridge" => Some(Entry::Policy { bridge: rest.to_owned(), isolated: None }),
            "isolated" => {
                // No name of a link has a space in it.
                let (bridge, port) = rest.split_once(' ')?;
                Some(Entry::Policy { bridge: bridge.to_owned(), isolated: Some(port.to_owned()) })
            }
            "source" => {
                let (ip, zone) = rest.split_once(' ')?;
                Some(Entry::Source { zone: zone.to_owned(), ip: ip.parse().ok()? })
            }
            _ => None,
        }
    }

    /// The entry that a rule is, whatever attachment it belongs to.
    fn of(rule: &RuleInfo) -> Option<Self> {
        Entry::parse(std::str::from_utf8(owner::more(&rule.userdata)?).ok()?)
    }
}

/// All that is in the tables.
struct Seen {
    there: bool,
    bridged: bool,
    chains: Vec<String>,
    entries: Vec<RuleInfo>,
    rules: Vec<(Table<'static>, &'static str, Vec<RuleInfo>)>,
    ports: Vec<Vec<u8>>,
}

impl Seen {
    fn read(nfnl: &mut Nfnl) -> Result<Self> {
        let mut seen = Seen {
            there: nft::table(nfnl, ROUTED)?.is_some(),
            bridged: nft::table(nfnl, BRIDGED)?.is_some(),
            chains: Vec::new(),
            entries: Vec::new(),
            rules: Vec::new(),
            ports: Vec::new(),
        };
        if seen.there {
            seen.chains = nft::chains(nfnl, ROUTED)?.into_iter().map(|chain| chain.name).collect();
            seen.entries = nft::rules(nfnl, ROUTED, ENTRIES)?;
            for chain in [FORWARD, LEAVING] {
                seen.rules.push((ROUTED, chain, nft::rules(nfnl, ROUTED, chain)?));
            }
        }
        if seen.bridged {
            seen.rules.push((BRIDGED, FORWARD, nft::rules(nfnl, BRIDGED, FORWARD)?));
            seen.ports = nft::elements(nfnl, BRIDGED, PORTS.name)?.into_iter().map(|port| port.key).collect();
        }
        Ok(seen)
    }

    fn has(&self, table: Table<'_>, chain: &str, rule: &Rule) -> bool {
        let mut there = self.rules.iter().filter(|(t, c, _)| *t == table && *c == chain);
        there.any(|(_, _, rules)| rules.iter().any(|one| one.does(rule)))
    }
}

/// What entries ask for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    rules: Vec<(Table<'static>, &'static str, Rule)>,
    /// Elements of [`PORTS`].
    ports: Vec<Vec<u8>>,
}

fn wanted(entries: &[Entry]) -> Wanted {
    let mut policies: Vec<(&str, bool)> = Vec::new();
    let mut wanted = Wanted::default();
    for entry in entries {
        let Entry::Policy { bridge, isolated } = entry else { continue };
        match policies.iter_mut().find(|(name, _)| name == bridge) {
            Some((_, strict)) => *strict |= isolated.is_some(),
            None => policies.push((bridge, isolated.is_some())),
        }
        wanted.ports.extend(isolated.as_ref().map(|port| nft::name_bytes(port).to_vec()));
    }
    policies.sort_unstable();
    wanted.ports.sort_unstable();
    wanted.ports.dedup();
    for (bridge, isolated) in policies {
        let from = || Rule::new().iifname(Op::Eq, bridge);
        wanted.rules.push((ROUTED, FORWARD, from().oifname(Op::Neq, bridge).jump(LEAVING)));
        wanted.rules.push((ROUTED, LEAVING, Rule::new().oifname(Op::Eq, bridge).drop()));
        if isolated {
            wanted.rules.push((ROUTED, FORWARD, from().oifname(Op::Eq, bridge).drop()));
        }
    }
    if !wanted.ports.is_empty() {
        for ethertype in IP {
            for side in [Meta::IifName, Meta::OifName] {
                let ip = Rule::new()
                    .expr(Expr::Meta { key: Meta::Protocol, dreg: Reg::R1 })
                    .expr(Expr::Cmp { sreg: Reg::R1, op: Op::Eq, data: ethertype.to_vec() });
                let port = ip.expr(Expr::Meta { key: side, dreg: Reg::R1 }).in_set(PORTS.name, false);
                wanted.rules.push((BRIDGED, FORWARD, port.drop()));
            }
        }
    }
    wanted
}

/// Changes the entries and makes the rules those that they ask for: the entries that `gone` picks go, `new`
/// ones come, with a comment for people. Gives the sources that no entry holds any more.
pub(super) fn change(
    nfnl: &mut Nfnl,
    gone: impl Fn(&RuleInfo) -> bool,
    new: Option<(Owner, &str, &[Entry])>,
) -> Result<Vec<Entry>> {
    nfnl.transact(|nfnl, batch| {
        let seen = Seen::read(nfnl)?;
        let (leaving, staying): (Vec<_>, Vec<_>) = seen.entries.iter().partition(|rule| gone(rule));
        let mut entries: Vec<Entry> = staying.into_iter().filter_map(Entry::of).collect();
        let fresh = new.map(|(_, _, entries)| entries).unwrap_or_default();
        entries.extend(fresh.iter().cloned());
        let lost = |entry: &Entry| matches!(entry, Entry::Source { .. }) && !entries.contains(entry);
        let sources = leaving.iter().filter_map(|rule| Entry::of(rule)).filter(lost).collect();
        if entries.is_empty() {
            for (there, table) in [(seen.there, ROUTED), (seen.bridged, BRIDGED)] {
                if there {
                    batch.delete_table(table);
                }
            }
            return Ok(sources);
        }
        let wanted = wanted(&entries);
        make_room(&seen, batch, &wanted);
        for rule in leaving {
            batch.delete_rule(ROUTED, ENTRIES, rule.handle);
        }
        if let Some((owner, comment, entries)) = new {
            for entry in entries {
                let text = entry.text();
                let userdata =
                    owner.record(Userdata::comment(&format!("{text}: {comment}")), text.as_bytes());
                batch.append(ROUTED, ENTRIES, &Rule::new().return_().userdata(userdata));
            }
        }
        settle(&seen, batch, &wanted);
        Ok(sources)
    })
}

/// Adds the tables, chains and sets that are missing for what is wanted.
fn make_room(seen: &Seen, batch: &mut Batch, wanted: &Wanted) {
    if !seen.there {
        batch.add_table(ROUTED, Some(COMMENT));
    }
    let needed = |chain: &str| wanted.rules.iter().any(|(of, name, _)| *of == ROUTED && *name == chain);
    for (chain, hook) in [(ENTRIES, None), (LEAVING, None), (FORWARD, Some(&ROUTED_HOOK))] {
        if (chain == ENTRIES || needed(chain)) && !seen.chains.iter().any(|name| name == chain) {
            batch.add_chain(ROUTED, chain, hook);
        }
    }
    if !seen.bridged && !wanted.ports.is_empty() {
        batch.add_table(BRIDGED, Some(COMMENT)).add_chain(BRIDGED, FORWARD, Some(&BRIDGED_HOOK));
        batch.add_set(BRIDGED, &PORTS);
    }
}

/// Makes rules and elements those wanted, and removes a table that has none.
fn settle(seen: &Seen, batch: &mut Batch, wanted: &Wanted) {
    let bridged = !wanted.ports.is_empty();
    if seen.bridged && !bridged {
        batch.delete_table(BRIDGED);
    }
    for (table, chain, there) in seen.rules.iter().filter(|(table, ..)| *table != BRIDGED || bridged) {
        let kept = |rule: &RuleInfo| {
            wanted.rules.iter().any(|(t, c, one)| (t, c) == (table, chain) && rule.does(one))
        };
        for rule in there.iter().filter(|rule| !kept(rule)) {
            batch.delete_rule(*table, chain, rule.handle);
        }
    }
    for (table, chain, rule) in &wanted.rules {
        if !seen.has(*table, chain, rule) {
            batch.append(*table, chain, rule);
        }
    }
    let elements = |of: &[Vec<u8>], but: &[Vec<u8>]| -> Vec<Element> {
        of.iter().filter(|port| !but.contains(port)).map(|port| Element::key_of(&[port])).collect()
    };
    if bridged {
        batch.delete_elements(BRIDGED, PORTS.name, &elements(&seen.ports, &wanted.ports));
        batch.add_elements(BRIDGED, PORTS.name, &elements(&wanted.ports, &seen.ports));
    }
}

/// Whether an attachment has an entry.
pub(super) fn has_entries(nfnl: &mut Nfnl, owner: Owner) -> Result<bool> {
    Ok(nft::rules(nfnl, ROUTED, ENTRIES)?.iter().any(|rule| owner.owns(&rule.userdata)))
}

/// Whether any attachment has this entry.
pub(super) fn is_held(nfnl: &mut Nfnl, entry: &Entry) -> Result<bool> {
    Ok(nft::rules(nfnl, ROUTED, ENTRIES)?.iter().any(|rule| Entry::of(rule).as_ref() == Some(entry)))
}

/// CHECK: the attachment has the entry, and the rules that follow from it are there.
pub(super) fn check(nfnl: &mut Nfnl, owner: Owner, entry: &Entry) -> Result<std::result::Result<(), String>> {
    let seen = Seen::read(nfnl)?;
    let own = |rule: &&RuleInfo| owner.owns(&rule.userdata) && Entry::of(rule).as_ref() == Some(entry);
    if !seen.entries.iter().any(|rule| own(&rule)) {
        return Ok(Err(format!(
            "no entry {:?} of this attachment in chain {ROUTED} {ENTRIES}",
            entry.text()
        )));
    }
    let wanted = wanted(std::slice::from_ref(entry));
    for (table, chain, rule) in &wanted.rules {
        if !seen.has(*table, chain, rule) {
            return Ok(Err(format!("a rule of {:?} is missing in chain {table} {chain}", entry.text())));
        }
    }
    if wanted.ports.iter().any(|port| !seen.ports.contains(port)) {
        return Ok(Err(format!("the port of {:?} is missing in set {BRIDGED} {}", entry.text(), PORTS.name)));
    }
    Ok(Ok(()))
}

/// STATUS: the rules of a policy, for the kernel to look at.
pub(super) fn probe(policy: Policy) -> Batch {
    let isolated = match policy {
        Policy::Open => return Batch::new(),
        Policy::SameBridge => None,
        Policy::Isolated => Some("port0".to_owned()),
    };
    let wanted = wanted(&[Entry::Policy { bridge: "br0".into(), isolated }]);
    let mut batch = Batch::new();
    for (table, chain, rule) in &wanted.rules {
        let probed = Table::new(table.family, "podnet_probe");
        let hook = if *table == BRIDGED { &BRIDGED_HOOK } else { &ROUTED_HOOK };
        batch.add_table(probed, None).add_chain(probed, LEAVING, None).add_chain(probed, FORWARD, Some(hook));
        batch.add_set(probed, &PORTS).append(probed, chain, rule);
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(bridge: &str, port: Option<&str>) -> Entry {
        Entry::Policy { bridge: bridge.into(), isolated: port.map(str::to_owned) }
    }

    #[test]
    fn entries_are_written_and_read_back() {
        for entry in [
            policy("cni0", None),
            policy("br-é", Some("veth0")),
            Entry::Source { zone: "trusted zone".into(), ip: "fd00::1".parse().unwrap() },
        ] {
            assert_eq!(Entry::parse(&entry.text()), Some(entry));
        }
        for text in ["", "open cni0", "isolated cni0", "source x trusted", "source 10.0.0.1"] {
            assert_eq!(Entry::parse(text), None, "{text}");
        }
    }

    #[test]
    fn rules_are_once_for_a_bridge_and_the_strictest_policy_wins() {
        let count = |entries: &[Entry]| {
            let wanted = wanted(entries);
            (wanted.rules.len(), wanted.ports.len())
        };
        let (a, b) = (policy("a", None), policy("b", None));
        let strict = policy("a", Some("v1"));
        assert_eq!(count(&[]), (0, 0));
        assert_eq!(count(std::slice::from_ref(&a)), (2, 0));
        assert_eq!(count(&[a.clone(), a.clone()]), (2, 0));
        assert_eq!(count(&[a.clone(), strict.clone()]), (3 + 4, 1));
        assert_eq!(count(&[strict.clone(), policy("a", Some("v2")), a.clone(), b.clone()]), (3 + 4 + 2, 2));
        assert_eq!(wanted(&[strict.clone(), b.clone()]), wanted(&[b, strict]));
        assert_eq!(count(&[Entry::Source { zone: "z".into(), ip: [10, 0, 0, 1].into() }]), (0, 0));
    }
}
