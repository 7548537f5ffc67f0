//! Rules that accept a pod's packets, in the tables of iptables-nft (`ip filter`, `ip6 filter`).
//!
//! They are there and nowhere else because what would drop a pod's packets is there: the policy and the rules
//! of FORWARD that Docker, kube-proxy and administrators set with iptables. An accept in a table of our own
//! would not lift a drop in another. Chains, comments and expressions are those that the reference makes with
//! iptables-nft, byte for byte, so that iptables shows and deletes them and the reference's CHECK and DEL find them;
//! an owner's record in the user data, which iptables passes over, tells whose they are.

use std::net::IpAddr;

use kernel::nft::{
    self, Batch, ChainInfo, ChainKind, Expr, Family, Hook, Op, Point, Rule, RuleInfo, Table, Userdata,
    compat, priority,
};
use kernel::{Nfnl, Result};

use crate::meta::owner::{self, Owner};

const FORWARD: &str = "FORWARD";
const OWN: &str = "CNI-FORWARD";
/// The hook of FORWARD, as iptables-nft makes it.
const HOOK: Hook<'static> = Hook::new(ChainKind::Filter, Point::Forward, priority::FILTER);

/// `struct xt_conntrack_mtinfo3` (linux/netfilter/xt_conntrack.h): its length aligned as xtables does, and
/// where `match_flags` and `state_mask` are.
const CONNTRACK_LEN: usize = 168;
const MATCH_FLAGS: usize = 146;
const STATE_MASK: usize = 150;
const CONNTRACK_STATE: u16 = 1;
const ESTABLISHED: u16 = 2;
const RELATED: u16 = 4;

const fn table(v6: bool) -> Table<'static> {
    Table::new(if v6 { Family::Ip6 } else { Family::Ip }, "filter")
}

/// `-m comment --comment TEXT -j CHAIN`
fn commented_jump(comment: &str, chain: &str) -> Rule {
    Rule::new().expr(compat::comment_match(comment)).counter().jump(chain)
}

fn to_own() -> Rule {
    commented_jump("CNI firewall plugin rules", OWN)
}

fn to_admin(chain: &str) -> Rule {
    commented_jump("CNI firewall plugin admin overrides", chain)
}

/// `-m conntrack --ctstate RELATED,ESTABLISHED`
fn answers() -> Expr {
    let mut info = vec![0; CONNTRACK_LEN];
    info[MATCH_FLAGS..MATCH_FLAGS + 2].copy_from_slice(&CONNTRACK_STATE.to_ne_bytes());
    info[STATE_MASK..STATE_MASK + 2].copy_from_slice(&(ESTABLISHED | RELATED).to_ne_bytes());
    Expr::Match { name: "conntrack".into(), revision: 3, info }
}

/// What lets the packets of one address through: answers to it, and all that it sends.
fn of_address(ip: IpAddr) -> [Rule; 2] {
    [
        Rule::new().daddr(Op::Eq, ip.into()).expr(answers()).counter().accept(),
        Rule::new().saddr(Op::Eq, ip.into()).counter().accept(),
    ]
}

/// What of the table concerns us.
struct Seen {
    v6: bool,
    /// The table, and whether we made it.
    table: Option<bool>,
    forward: Option<ChainInfo>,
    own: Option<ChainInfo>,
    forward_rules: Vec<RuleInfo>,
    own_rules: Vec<RuleInfo>,
}

impl Seen {
    fn read(nfnl: &mut Nfnl, v6: bool) -> Result<Self> {
        let info = nft::table(nfnl, table(v6))?;
        let mut seen = Seen {
            v6,
            table: info.map(|info| owner::is_scaffolding(&info.userdata)),
            forward: None,
            own: None,
            forward_rules: Vec::new(),
            own_rules: Vec::new(),
        };
        if seen.table.is_some() {
            seen.forward = nft::chain(nfnl, table(v6), FORWARD)?;
            seen.own = nft::chain(nfnl, table(v6), OWN)?;
            seen.forward_rules = nft::rules(nfnl, table(v6), FORWARD)?;
            seen.own_rules = nft::rules(nfnl, table(v6), OWN)?;
        }
        Ok(seen)
    }

    /// The rules of addresses that `which` picks.
    fn of_addresses(&self, which: impl Fn(&RuleInfo) -> bool) -> Vec<&RuleInfo> {
        self.own_rules.iter().filter(|rule| rule.leads_to().is_none() && which(rule)).collect()
    }
}

/// Adds the rules for the addresses of one family. An earlier ADD's of the same attachment are replaced.
pub(super) fn add(nfnl: &mut Nfnl, owner: Owner, admin: &str, addresses: &[IpAddr], v6: bool) -> Result<()> {
    nfnl.transact(|nfnl, batch| {
        let seen = Seen::read(nfnl, v6)?;
        let scaffolding = owner::scaffolding(Userdata::new());
        let table = table(v6);
        if seen.table.is_none() {
            batch.add_table_with(table, &scaffolding);
        }
        if seen.forward.is_none() {
            batch.add_chain_with(table, FORWARD, Some(&HOOK), &scaffolding);
        }
        if seen.own.is_none() {
            batch.add_chain_with(table, OWN, None, &scaffolding);
        }
        if nft::chain(nfnl, table, admin)?.is_none() {
            batch.add_chain_with(table, admin, None, &scaffolding);
        }
        for (chain, rules, jump) in
            [(FORWARD, &seen.forward_rules, to_own()), (OWN, &seen.own_rules, to_admin(admin))]
        {
            if !rules.iter().any(|rule| rule.does(&jump)) {
                batch.insert(table, chain, &jump.userdata(scaffolding.clone()));
            }
        }
        for rule in seen.of_addresses(|rule| owner.owns(&rule.userdata)) {
            batch.delete_rule(table, OWN, rule.handle);
        }
        for rule in addresses.iter().flat_map(|ip| of_address(*ip)) {
            batch.append(table, OWN, &rule.userdata(owner.record(Userdata::new(), &[])));
        }
        Ok(())
    })
}

/// Removes the rules of addresses that `which` picks, and the scaffolding that we made once nothing needs it.
/// Gives how many went.
pub(super) fn remove(nfnl: &mut Nfnl, v6: bool, which: impl Fn(&RuleInfo) -> bool) -> Result<usize> {
    nfnl.transact(|nfnl, batch| {
        let seen = Seen::read(nfnl, v6)?;
        let gone = seen.of_addresses(&which);
        for rule in &gone {
            batch.delete_rule(table(v6), OWN, rule.handle);
        }
        if seen.of_addresses(|_| true).len() == gone.len() {
            sweep(nfnl, &seen, batch)?;
        }
        Ok(gone.len())
    })
}

/// Removes what we made around the rules of addresses, of which none is left: unless rules of others are in
/// the administrator's chains or in ours.
fn sweep(nfnl: &mut Nfnl, seen: &Seen, batch: &mut Batch) -> Result<()> {
    let table = table(seen.v6);
    let ours = |rule: &&RuleInfo| owner::is_scaffolding(&rule.userdata);
    let jumps: Vec<&RuleInfo> = seen.own_rules.iter().filter(|rule| rule.leads_to().is_some()).collect();
    if jumps.iter().any(|rule| !ours(rule)) {
        return Ok(());
    }
    let mut admins = Vec::new();
    for name in jumps.iter().filter_map(|rule| rule.leads_to()) {
        if !nft::rules(nfnl, table, name)?.is_empty() {
            return Ok(());
        }
        admins.extend(nft::chain(nfnl, table, name)?);
    }
    for rule in &jumps {
        batch.delete_rule(table, OWN, rule.handle);
    }
    let (leads, others): (Vec<&RuleInfo>, Vec<&RuleInfo>) =
        seen.forward_rules.iter().partition(|rule| ours(rule) && rule.leads_to() == Some(OWN));
    for rule in &leads {
        batch.delete_rule(table, FORWARD, rule.handle);
    }
    // A chain may go when what is deleted above is all that relies on it.
    let made = |chain: &ChainInfo| owner::is_scaffolding(&chain.userdata);
    let led_to = |chain: &ChainInfo| jumps.iter().filter(|rule| rule.leads_to() == Some(&chain.name)).count();
    let own = seen.own.iter().map(|chain| (chain, leads.len() + seen.own_rules.len()));
    let admin = admins.iter().map(|chain| (chain, led_to(chain)));
    let mut gone: Vec<&ChainInfo> = own
        .chain(admin)
        .filter(|(chain, uses)| made(chain) && chain.used as usize <= *uses)
        .map(|(chain, _)| chain)
        .collect();
    let empty = |chain: &&ChainInfo| made(chain) && others.is_empty() && chain.accept == Some(true);
    gone.extend(seen.forward.as_ref().filter(empty));
    for chain in &gone {
        batch.delete_chain(table, &chain.name);
    }
    if seen.table == Some(true) && nft::chains(nfnl, table)?.len() == gone.len() {
        batch.delete_table(table);
    }
    Ok(())
}

/// Removes the rules of an attachment; when there are none of ours, those that the reference made for its
/// addresses, which name no owner.
pub(super) fn remove_attachment(nfnl: &mut Nfnl, v6: bool, owner: Owner, addresses: &[IpAddr]) -> Result<()> {
    if remove(nfnl, v6, |rule| owner.owns(&rule.userdata))? > 0 {
        return Ok(());
    }
    let rules: Vec<Rule> = addresses.iter().flat_map(|ip| of_address(*ip)).collect();
    let of_reference =
        |rule: &RuleInfo| owner::owner(&rule.userdata).is_none() && rules.iter().any(|one| rule.does(one));
    remove(nfnl, v6, of_reference).map(drop)
}

/// CHECK: the chains lead to the rules, and the rules of the addresses are there: the attachment's own, or the
/// reference's.
pub(super) fn check(
    nfnl: &mut Nfnl,
    owner: Owner,
    admin: &str,
    addresses: &[IpAddr],
    v6: bool,
) -> Result<std::result::Result<(), String>> {
    let seen = Seen::read(nfnl, v6)?;
    let table = table(v6);
    for (chain, rules, jump, to) in
        [(FORWARD, &seen.forward_rules, to_own(), OWN), (OWN, &seen.own_rules, to_admin(admin), admin)]
    {
        if !rules.iter().any(|rule| rule.does(&jump)) {
            return Ok(Err(format!("no rule in chain {table} {chain} leads to chain {to}")));
        }
    }
    for ip in addresses {
        for wanted in of_address(*ip) {
            let found = seen.of_addresses(|rule| {
                rule.does(&wanted) && owner::owner(&rule.userdata).is_none_or(|of| of == owner)
            });
            if found.is_empty() {
                return Ok(Err(format!("a rule for {ip} is missing in chain {table} {OWN}")));
            }
        }
    }
    Ok(Ok(()))
}

/// STATUS: rules of every kind that ADD makes, for the kernel to look at.
pub(super) fn probe() -> Batch {
    let table = Table::new(Family::Ip, "podnet_probe");
    let mut batch = Batch::new();
    batch.add_table(table, None).add_chain(table, FORWARD, Some(&HOOK)).add_chain(table, OWN, None);
    batch.append(table, FORWARD, &to_own());
    for rule in of_address(std::net::Ipv4Addr::LOCALHOST.into()) {
        batch.append(table, OWN, &rule);
    }
    batch
}
