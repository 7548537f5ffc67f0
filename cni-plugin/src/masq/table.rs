//! The table of masquerade rules, as the reference's nftables backend lays it out: a base chain that leaves
//! multicast alone and goes on to a chain with one rule for each address.
//!
//! Unlike the reference's, ADD leaves a base chain alone that is as it should be (what it deletes or changes makes
//! the process wait) and does not read the other attachments' rules, so that their number costs nothing; and whoever
//! removes the last rule removes chains and table, if nothing else is in them.

use ipnetwork::IpNetwork;
use kernel::nft::{
    self, Batch, ChainKind, Expr, Family, Hook, Op, Point, Rule, RuleInfo, Table, Verdict, priority,
};
use kernel::{Nfnl, Result};

use super::Owner;

pub(super) const TABLE: Table<'static> = Table::new(Family::Inet, "cni_plugins_masquerade");
const COMMENT: &str = "Masquerading for plugins from github.com/containernetworking/plugins";
const POSTROUTING: &str = "postrouting";
const CHECKS: &str = "masq_checks";
const HOOK: Hook<'static> = Hook::new(ChainKind::Nat, Point::Postrouting, priority::SRCNAT);

/// Adds the rules of an attachment.
pub(super) fn add(nfnl: &mut Nfnl, owner: &Owner, ips: &[IpNetwork]) -> Result<()> {
    let comment = owner.comment();
    let put = |batch: &mut Batch| {
        for ip in ips {
            batch.append(TABLE, CHECKS, &masquerade(*ip).comment(&comment));
        }
    };
    let has_way_in = |nfnl: &mut Nfnl| Ok(nft::rules(nfnl, TABLE, POSTROUTING)?.iter().any(is_way_in));
    // Rules put behind those that are there depend on nothing but the chain, so no turn is taken. Should somebody take
    // the chain away meanwhile, with the last of its rules, the kernel refuses.
    if has_way_in(nfnl)? {
        let mut batch = Batch::new();
        put(&mut batch);
        match nfnl.commit(batch) {
            Err(err) if err.is_not_found() => {}
            done => return done,
        }
    }
    nfnl.transact(|nfnl, batch| {
        // Chains that are there are not added again: that counts as a change of them, and makes the end wait.
        if !has_way_in(nfnl)? {
            put_chains(batch);
        }
        put(batch);
        Ok(())
    })
}

/// Asks the kernel whether it would take the rules.
pub(super) fn try_out(nfnl: &mut Nfnl) -> Result<()> {
    let mut batch = Batch::new();
    put_chains(&mut batch);
    batch.append(TABLE, CHECKS, &masquerade(multicast(false)));
    nfnl.try_out(batch)
}

/// Removes the rules whose comment is `stale`, and with the last of all rules chains and table.
pub(super) fn remove(nfnl: &mut Nfnl, stale: &dyn Fn(&str) -> bool) -> Result<()> {
    nfnl.transact(|nfnl, batch| {
        let rules = nft::handles(nfnl, TABLE, CHECKS)?;
        for (handle, userdata) in &rules {
            if userdata.text().is_some_and(stale) {
                batch.delete_rule(TABLE, CHECKS, *handle);
            }
        }
        if !batch.is_empty() && batch.len() == rules.len() {
            remove_chains(nfnl, rules.len(), batch)?;
        }
        Ok(())
    })
}

/// Those of `ips` that no rule of the attachment masquerades.
pub(super) fn missing(nfnl: &mut Nfnl, owner: &Owner, ips: &[IpNetwork]) -> Result<Vec<IpNetwork>> {
    let mark = owner.mark();
    if !nft::rules(nfnl, TABLE, POSTROUTING)?.iter().any(is_way_in) {
        return Ok(ips.to_vec());
    }
    let mut rules = nft::rules(nfnl, TABLE, CHECKS)?;
    rules.retain(|rule| {
        rule.comment().is_some_and(|text| text.starts_with(&mark))
            && rule.expressions.iter().any(|e| matches!(e, Expr::Masquerade { .. }))
    });
    let is_covered = |ip: &IpNetwork| rules.iter().any(|rule| rule.source() == Some(ip.ip().into()));
    Ok(ips.iter().copied().filter(|ip| !is_covered(ip)).collect())
}

fn put_chains(batch: &mut Batch) {
    batch.add_table(TABLE, Some(COMMENT)).add_chain(TABLE, CHECKS, None).add_chain(
        TABLE,
        POSTROUTING,
        Some(&HOOK),
    );
    for v6 in [false, true] {
        let to = multicast(v6);
        batch.append(TABLE, POSTROUTING, &Rule::new().nfproto(to.ip()).daddr(Op::Eq, to).return_());
    }
    batch.append(TABLE, POSTROUTING, &Rule::new().goto(CHECKS));
}

/// What a pod sends beyond its subnet leaves with the node's address.
fn masquerade(ip: IpNetwork) -> Rule {
    Rule::new().nfproto(ip.ip()).saddr(Op::Eq, ip.ip().into()).daddr(Op::Neq, ip).masquerade()
}

fn multicast(v6: bool) -> IpNetwork {
    let net = if v6 {
        IpNetwork::new([0xff00, 0, 0, 0, 0, 0, 0, 0].into(), 8)
    } else {
        IpNetwork::new([224, 0, 0, 0].into(), 4)
    };
    // Both lengths are good ones.
    net.unwrap_or_else(|_| unreachable!())
}

/// The rule that leads from the base chain to the rules of all attachments.
fn is_way_in(rule: &RuleInfo) -> bool {
    rule.expressions == [Expr::Verdict(Verdict::Goto(CHECKS.into()))]
}

/// A rule of the base chain that ADD puts there, the reference's or ours.
fn is_known(rule: &RuleInfo) -> bool {
    let leaves = rule.expressions.last() == Some(&Expr::Verdict(Verdict::Return));
    is_way_in(rule)
        || leaves && [false, true].map(multicast).iter().any(|net| rule.destination() == Some(*net))
}

/// Removes chains and table behind their last rule, of which `count` are there still: what holds or serves
/// anything that ADD did not put there stays.
fn remove_chains(nfnl: &mut Nfnl, count: usize, batch: &mut Batch) -> Result<()> {
    let Some(table) = nft::table(nfnl, TABLE)? else { return Ok(()) };
    let entry = nft::rules(nfnl, TABLE, POSTROUTING)?;
    let used = |nfnl: &mut Nfnl, chain| Ok(nft::chain(nfnl, TABLE, chain)?.map(|chain| chain.used as usize));
    let ours = entry.iter().all(is_known)
        && entry.iter().any(is_way_in)
        && used(nfnl, POSTROUTING)? == Some(entry.len())
        && used(nfnl, CHECKS)? == Some(count + entry.iter().filter(|rule| is_way_in(rule)).count());
    if !ours {
        return Ok(());
    }
    batch.flush_chain(TABLE, POSTROUTING).delete_chain(TABLE, POSTROUTING).delete_chain(TABLE, CHECKS);
    // An older kernel keeps no comment of a table.
    let made_by_add = table.userdata.text().is_none_or(|text| text == COMMENT);
    if table.used == 2 && made_by_add {
        batch.delete_empty_table(TABLE);
    }
    Ok(())
}
