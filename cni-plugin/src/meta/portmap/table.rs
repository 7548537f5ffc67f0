//! The table `cni_hostport` of one family: what is in it, and what is to change.
//!
//! Name, chains and comments are the reference's, so that its DEL removes what we made. Nothing is flushed:
//! rules of ours are known by their record, the reference's by their comment alone. What leads to the mappings
//! (tables, chains, jumps: the scaffolding) is marked as ours when we made it, and goes with the last mapping.
//!
//! The reference puts the conditions of the network that came last in front of all mappings. Where such
//! an entry stands, our mappings go to the chain `hostip_hostports`, which the reference keeps empty but
//! still clears in DEL, with an entry of their own; so neither side's conditions cover the other's mappings.

use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::Ipv4Network;
use kernel::nft::{
    self, Base, Batch, ChainInfo, ChainKind, Expr, Family, Hook, Meta, Op, Point, Rule, RuleInfo, Table,
    TableInfo, Userdata, priority,
};
use kernel::{Nfnl, Result};

use super::config::{HostIp, Mapping, Protocol};
use super::rules::{HOSTIP_HOSTPORTS, HOSTPORTS, MASQUERADING, Wanted};
use crate::meta::owner::{self, Owner};

const NAME: &str = "cni_hostport";
const COMMENT: &str = "CNI portmap plugin";
const ALL: &str = "hostports_all";
const PREROUTING: &str = "prerouting";
const OUTPUT: &str = "output";
/// Ours alone: keeps frames for loopback addresses out where route_localnet had to be switched on.
const GUARD: &str = "localnet_guard";

/// The chains that hold rules of attachments.
const CONTENT: [&str; 3] = [HOSTPORTS, HOSTIP_HOSTPORTS, MASQUERADING];
/// All chains of the table.
const CHAINS: [(&str, Option<Hook<'static>>); 7] = [
    (HOSTPORTS, None),
    (HOSTIP_HOSTPORTS, None),
    (ALL, None),
    (PREROUTING, Some(Hook::new(ChainKind::Nat, Point::Prerouting, priority::DSTNAT))),
    (OUTPUT, Some(Hook::new(ChainKind::Nat, Point::Output, priority::DSTNAT))),
    (MASQUERADING, Some(Hook::new(ChainKind::Nat, Point::Postrouting, priority::SRCNAT))),
    (GUARD, Some(Hook::new(ChainKind::Filter, Point::Prerouting, priority::RAW))),
];

const LOOPBACK: Ipv4Network = match Ipv4Network::new_checked(Ipv4Addr::new(127, 0, 0, 0), 8) {
    Some(net) => net,
    None => panic!("127.0.0.0/8 is a prefix"),
};

/// The table of a family.
pub(super) const fn table(v6: bool) -> Table<'static> {
    Table::new(if v6 { Family::Ip6 } else { Family::Ip }, NAME)
}

/// What is in the table of a family.
pub(super) struct Seen {
    v6: bool,
    info: Option<TableInfo>,
    chains: Vec<ChainInfo>,
    /// The rules of each chain, as in `chains`.
    rules: Vec<Vec<RuleInfo>>,
}

/// A rule that is there, with its chain.
pub(super) type Found<'s> = (&'s str, &'s RuleInfo);

impl Seen {
    /// Looks; no table is an empty one. Of the rules of attachments only those that `which` picks are read
    /// whole: there may be thousands.
    pub(super) fn read(nfnl: &mut Nfnl, v6: bool, which: impl Fn(&Userdata) -> bool) -> Result<Self> {
        let mut seen = Seen { v6, info: nft::table(nfnl, table(v6))?, chains: Vec::new(), rules: Vec::new() };
        if seen.info.is_some() {
            seen.chains = nft::chains(nfnl, table(v6))?;
            for chain in &seen.chains {
                let whole = |userdata: &Userdata| !CONTENT.contains(&chain.name.as_str()) || which(userdata);
                seen.rules.push(nft::rules_of(nfnl, table(v6), &chain.name, whole)?);
            }
        }
        Ok(seen)
    }

    fn chain(&self, name: &str) -> Option<&ChainInfo> {
        self.chains.iter().find(|chain| chain.name == name)
    }

    fn rules(&self, chain: &str) -> &[RuleInfo] {
        let at = self.chains.iter().position(|one| one.name == chain);
        at.map_or(&[], |at| self.rules[at].as_slice())
    }

    /// Every rule, with its chain.
    fn all(&self) -> impl Iterator<Item = Found<'_>> {
        self.chains
            .iter()
            .zip(&self.rules)
            .flat_map(|(chain, rules)| rules.iter().map(move |rule| (chain.name.as_str(), rule)))
    }

    /// The rules of attachments that `which` picks.
    pub(super) fn content<'s>(&'s self, which: impl Fn(&RuleInfo) -> bool + 's) -> Vec<Found<'s>> {
        self.all().filter(|(chain, rule)| CONTENT.contains(chain) && which(rule)).collect()
    }

    /// The chain for mappings, and where its entry leads: the reference's, unless an entry with conditions
    /// leads there.
    fn home(&self) -> (&'static str, &'static str) {
        let foreign = |chain: &str| {
            let mut jumps = self.rules(chain).iter().filter(|rule| rule.leads_to().is_some());
            jumps.any(|rule| !rule.does(&entry(ALL)) && !rule.does(&entry(HOSTIP_HOSTPORTS)))
        };
        if foreign(PREROUTING) || foreign(OUTPUT) {
            (HOSTIP_HOSTPORTS, HOSTIP_HOSTPORTS)
        } else {
            (HOSTPORTS, ALL)
        }
    }
}

/// What leads packets for an address of the node to the mappings, with no other condition.
fn entry(to: &str) -> Rule {
    Rule::new().daddr_local(Op::Eq).jump(to)
}

fn guard(device: &str) -> Rule {
    Rule::new().iifname(Op::Eq, device).daddr(Op::Eq, LOOPBACK.into()).drop()
}

/// The links for which there is a guard, which are those whose route_localnet we switched on.
pub(super) fn guarded(seen: &Seen) -> Vec<String> {
    let name = |rule: &RuleInfo| match rule.expressions.get(1)? {
        Expr::Cmp { data, .. } => {
            let end = data.iter().position(|&byte| byte == 0).unwrap_or(data.len());
            String::from_utf8(data[..end].to_vec()).ok()
        }
        _ => None,
    };
    let ours = |rule: &&RuleInfo| owner::is_scaffolding(&rule.userdata);
    seen.rules(GUARD).iter().filter(ours).filter_map(name).collect()
}

/// Puts into `batch` what is missing of the rules of `owner`, whose container's id is their comment. Rules
/// that an earlier ADD of the same attachment left are replaced.
pub(super) fn install(
    seen: &Seen,
    batch: &mut Batch,
    (owner, container): (Owner, &str),
    wanted: &Wanted,
    guarded_device: Option<&str>,
) {
    let table = table(seen.v6);
    let scaffolding = owner::scaffolding(Userdata::new());
    if seen.info.is_none() {
        batch.add_table_with(table, &owner::scaffolding(Userdata::comment(COMMENT)));
    }
    for (name, hook) in &CHAINS {
        let needed = match *name {
            MASQUERADING => !wanted.masquerading.is_empty(),
            GUARD => guarded_device.is_some(),
            _ => true,
        };
        if needed && seen.chain(name).is_none() {
            batch.add_chain_with(table, name, hook.as_ref(), &scaffolding);
        }
    }
    let (home, lead) = seen.home();
    let jump = |to: &str| Rule::new().jump(to);
    let needed = [
        (ALL, jump(HOSTIP_HOSTPORTS)),
        (ALL, jump(HOSTPORTS)),
        (PREROUTING, entry(lead)),
        (OUTPUT, entry(lead)),
    ];
    let guards = guarded_device.map(|device| (GUARD, guard(device)));
    for (chain, rule) in needed.into_iter().chain(guards) {
        if !seen.rules(chain).iter().any(|there| there.does(&rule)) {
            batch.append(table, chain, &rule.userdata(scaffolding.clone()));
        }
    }
    for (chain, rule) in seen.content(|rule| owner.owns(&rule.userdata)) {
        batch.delete_rule(table, chain, rule.handle);
    }
    let userdata = owner.record(Userdata::comment(container), &[]);
    let owned = |rule: &Rule| rule.clone().userdata(userdata.clone());
    // One address of the node is asked for before all of them, whoever came first.
    for rule in wanted.specific.iter().rev() {
        batch.insert(table, home, &owned(rule));
    }
    for rule in &wanted.general {
        batch.append(table, home, &owned(rule));
    }
    for rule in &wanted.masquerading {
        batch.append(table, MASQUERADING, &owned(rule));
    }
}

/// Puts into `batch` the deletion of `gone`, and of the scaffolding that is ours and no longer needed. True
/// when the guards go too.
pub(super) fn remove(seen: &Seen, batch: &mut Batch, gone: &[Found<'_>]) -> bool {
    let table = table(seen.v6);
    let stays = |rule: &RuleInfo| !gone.iter().any(|(_, one)| one.handle == rule.handle);
    let left = seen.content(stays);
    for (chain, rule) in gone {
        batch.delete_rule(table, chain, rule.handle);
    }
    if seen.info.is_none() || left.iter().any(|(_, rule)| owner::owner(&rule.userdata).is_some()) {
        return false;
    }
    let ours = |userdata: &Userdata| owner::is_scaffolding(userdata);
    let known = |chain: &ChainInfo| CHAINS.iter().any(|(name, _)| *name == chain.name);
    let only_jumps = seen
        .all()
        .all(|(chain, rule)| CONTENT.contains(&chain) || rule.leads_to().is_some() || ours(&rule.userdata));
    let whole = left.is_empty() && only_jumps && seen.chains.iter().all(known);
    if whole && seen.info.as_ref().is_some_and(|info| ours(&info.userdata)) {
        batch.delete_table(table);
        return true;
    }
    let scaffolding: Vec<Found<'_>> =
        seen.all().filter(|(chain, rule)| !CONTENT.contains(chain) && ours(&rule.userdata)).collect();
    for (chain, rule) in &scaffolding {
        batch.delete_rule(table, chain, rule.handle);
    }
    let remain: Vec<Found<'_>> = seen
        .all()
        .filter(|(_, rule)| stays(rule) && !scaffolding.iter().any(|(_, one)| one.handle == rule.handle))
        .collect();
    for chain in seen.chains.iter().filter(|chain| ours(&chain.userdata)) {
        let used = |(at, rule): &Found<'_>| *at == chain.name || rule.leads_to() == Some(&chain.name);
        if !remain.iter().any(used) {
            batch.delete_chain(table, &chain.name);
        }
    }
    true
}

/// STATUS: a table with every kind of rule in it, for the kernel to look at.
pub(super) fn probe(v6: bool) -> Batch {
    let table = Table::new(table(v6).family, "podnet_probe");
    let ip: IpAddr = if v6 { std::net::Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
    let mut batch = Batch::new();
    batch.add_table(table, None);
    for (name, hook) in &CHAINS {
        batch.add_chain(table, name, hook.as_ref());
    }
    batch
        .append(table, PREROUTING, &entry(HOSTPORTS))
        .append(table, HOSTPORTS, &Rule::new().l4proto(6).dport(Op::Eq, 1).set_mark_bits(1))
        .append(table, HOSTPORTS, &Rule::new().l4proto(6).dport(Op::Eq, 1).dnat(ip, Some(1)))
        .append(table, MASQUERADING, &Rule::new().mark(Op::Eq, 1, 1).masquerade());
    batch
}

/// CHECK: the rules of `owner` are those wanted, in order, and packets are led to them.
pub(super) fn check(seen: &Seen, owner: Owner, wanted: &Wanted) -> std::result::Result<(), String> {
    let table = table(seen.v6);
    let compare = |chain: &str, wanted: &[&Rule]| {
        let found: Vec<&RuleInfo> =
            seen.rules(chain).iter().filter(|rule| owner.owns(&rule.userdata)).collect();
        if found.len() == wanted.len() && found.iter().zip(wanted).all(|(found, rule)| found.does(rule)) {
            return Ok(());
        }
        let same = found.iter().filter(|found| wanted.iter().any(|rule| found.does(rule))).count();
        Err(format!(
            "hostport rules in chain {table} {chain}: {} are there, of which {same} are among the {} expected",
            found.len(),
            wanted.len()
        ))
    };
    let mappings: Vec<&Rule> = wanted.specific.iter().chain(&wanted.general).collect();
    let in_hostip = seen.rules(HOSTIP_HOSTPORTS).iter().any(|rule| owner.owns(&rule.userdata));
    let (home, leads): (_, &[&str]) =
        if in_hostip { (HOSTIP_HOSTPORTS, &[HOSTIP_HOSTPORTS, ALL]) } else { (HOSTPORTS, &[ALL]) };
    compare(home, &mappings)?;
    compare(MASQUERADING, &wanted.masquerading.iter().collect::<Vec<_>>())?;
    if mappings.is_empty() {
        return Ok(());
    }
    for chain in [PREROUTING, OUTPUT] {
        let led = |rule: &RuleInfo| leads.iter().any(|to| rule.does(&entry(to)));
        if !seen.rules(chain).iter().any(led) {
            return Err(format!("no rule in chain {table} {chain} leads every packet to chain {home}"));
        }
    }
    if !in_hostip && !seen.rules(ALL).iter().any(|rule| rule.does(&Rule::new().jump(HOSTPORTS))) {
        return Err(format!("no rule in chain {table} {ALL} leads to chain {home}"));
    }
    Ok(())
}

/// What a mapping's rule says, read back: the mapping and the pod's address. `None` for rules of another
/// kind.
pub(super) fn mapping_of(rule: &RuleInfo) -> Option<(Mapping, IpAddr)> {
    let ip = |bytes: &[u8]| match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    };
    let port = |bytes: &[u8]| bytes.try_into().ok().map(u16::from_be_bytes);
    let (mut protocol, mut host_port, mut host_ip) = (None, None, HostIp::Any);
    let (mut target, mut target_port) = (None, None);
    let mut loaded: Option<&Expr> = None;
    for expression in &rule.expressions {
        match (expression, loaded) {
            (Expr::Cmp { op: Op::Eq, data, .. }, Some(Expr::Meta { key: Meta::L4Proto, .. })) => {
                protocol = data.first().copied();
            }
            (Expr::Cmp { op: Op::Eq, data, .. }, Some(Expr::Payload { base, offset, .. })) => match base {
                Base::Transport if *offset == 2 => host_port = port(data),
                Base::Network if matches!((*offset, data.len()), (16, 4) | (24, 16)) => {
                    host_ip = ip(data).map_or(host_ip, HostIp::One);
                }
                _ => {}
            },
            (Expr::Immediate { data, .. }, _) if data.len() == 2 => target_port = port(data),
            (Expr::Immediate { data, .. }, _) => target = ip(data),
            _ => {}
        }
        loaded = Some(expression);
    }
    let dnat = rule.expressions.iter().any(|one| matches!(one, Expr::Dnat { .. }));
    let mapping = Mapping {
        protocol: Protocol(protocol?),
        host_port: host_port?,
        container_port: target_port?,
        host_ip,
    };
    target.filter(|_| dnat).map(|target| (mapping, target))
}

/// Whether a rule of the reference's is about the pod with this address: it is rewritten to it, or
/// masqueraded on the way to it.
pub(super) fn leads_to_pod(rule: &RuleInfo, pod: IpAddr) -> bool {
    let bytes = nft::ip_bytes(pod);
    rule.expressions.iter().any(|expression| match expression {
        Expr::Immediate { data, .. } | Expr::Cmp { data, .. } => *data == bytes,
        _ => false,
    })
}
