//! What the rules of other programs do with a packet, as far as that can be told without one.
//!
//! A chain is read as the kernel reads it, with the conditions left out that cannot be judged: a rule counts when it has no
//! condition, or when the packet that is asked for is just what it is about. So a verdict found here is one that the packet
//! really gets, unless a rule with another condition is before it.

use anyhow::Result;
use kernel::Nfnl;
use kernel::nft::{
    self, Base, ChainInfo, Expr, Family, Meta, Op, Point, RuleInfo, Table, TableInfo, Verdict,
};

/// How deep chains are followed; nf_tables itself allows 16 jumps.
const DEEPEST: usize = 16;

/// Tables that are ours begin so.
const OURS: &str = "podnet-";

/// What becomes of a packet in a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// It passes the base chain.
    Accepted,
    /// It is dropped or refused; where.
    Dropped(String),
}

/// Asks every base chain of others at a hook what it does with packets that rules with `is_about` are made for: where
/// they are dropped.
pub(super) fn dropped(
    nfnl: &mut Nfnl,
    families: &[Family],
    point: Point,
    is_about: &dyn Fn(&RuleInfo) -> bool,
) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for table in tables(nfnl, families)? {
        let chains = nft::chains(nfnl, table.table())?;
        for chain in &chains {
            let at_hook = chain.hook.is_some_and(|(number, _)| number == point.number(table.family));
            if !at_hook || chain.kind.as_deref() != Some("filter") {
                continue;
            }
            let place = format!("table {}, chain {}", table.table(), chain.name);
            match fate(nfnl, table.table(), &chain.name, is_about, 0)? {
                Some(Fate::Dropped(place)) => found.push(place),
                None if chain.accept == Some(false) => {
                    found.push(format!("{place}: policy drop, and no rule that lets them through"));
                }
                Some(Fate::Accepted) | None => {}
            }
        }
    }
    Ok(found)
}

/// Tables of these families that are not ours.
fn tables(nfnl: &mut Nfnl, families: &[Family]) -> Result<Vec<TableInfo>> {
    let tables = nft::tables(nfnl, None)?.into_iter();
    Ok(tables.filter(|it| families.contains(&it.family) && !it.name.starts_with(OURS)).collect())
}

fn fate(
    nfnl: &mut Nfnl,
    table: Table<'_>,
    chain: &str,
    is_about: &dyn Fn(&RuleInfo) -> bool,
    depth: usize,
) -> Result<Option<Fate>> {
    for rule in nft::rules(nfnl, table, chain)? {
        if !(is_unconditional(&rule) || is_about(&rule)) {
            continue;
        }
        let place = || format!("table {table}, chain {chain}: rule {} drops them", rule.handle);
        match verdict(&rule) {
            Some(Verdict::Accept) => return Ok(Some(Fate::Accepted)),
            Some(Verdict::Drop) => return Ok(Some(Fate::Dropped(place()))),
            Some(Verdict::Return) => return Ok(None),
            Some(ref leads @ (Verdict::Jump(ref next) | Verdict::Goto(ref next))) if depth < DEEPEST => {
                let fate = fate(nfnl, table, next, is_about, depth + 1)?;
                if fate.is_some() || matches!(leads, Verdict::Goto(_)) {
                    return Ok(fate);
                }
            }
            _ => {}
        }
    }
    Ok(None)
}

/// What a rule does at its end; a refusal counts as a drop.
fn verdict(rule: &RuleInfo) -> Option<Verdict> {
    rule.expressions.iter().find_map(|expression| match expression {
        Expr::Verdict(verdict) => Some(verdict.clone()),
        Expr::Reject { .. } => Some(Verdict::Drop),
        Expr::Target { name, .. } if name == "REJECT" || name == "DROP" => Some(Verdict::Drop),
        _ => None,
    })
}

/// Whether it does what it does with every packet.
fn is_unconditional(rule: &RuleInfo) -> bool {
    rule.expressions.iter().all(|expression| match expression {
        Expr::Verdict(_) | Expr::Counter { .. } | Expr::Reject { .. } | Expr::Target { .. } => true,
        Expr::Match { name, .. } => name == "comment",
        Expr::Other { name, .. } => name == "log",
        _ => false,
    })
}

/// Whether its only conditions are `count` comparisons, besides the one of the packet's family.
fn has_conditions(rule: &RuleInfo, count: usize) -> bool {
    let mut compared = 0;
    let mut previous: Option<&Expr> = None;
    for expression in &rule.expressions {
        match expression {
            Expr::Cmp { op: Op::Eq, .. } => {
                if !matches!(previous, Some(Expr::Meta { key: Meta::NfProto, .. })) {
                    compared += 1;
                }
            }
            Expr::Payload { .. } | Expr::Bitwise { .. } | Expr::Meta { .. } | Expr::Verdict(_) => {}
            Expr::Counter { .. } | Expr::Reject { .. } | Expr::Target { .. } => {}
            Expr::Match { name, .. } if name == "comment" => {}
            _ => return false,
        }
        previous = Some(expression);
    }
    compared == count
}

/// Whether a rule is about all packets from or to one of these networks, and nothing else.
pub(super) fn is_about_network(rule: &RuleInfo, networks: &[ipnetwork::IpNetwork]) -> bool {
    let (source, destination) = (rule.source(), rule.destination());
    let covers = |net: ipnetwork::IpNetwork| {
        networks.iter().any(|own| net.contains(own.network()) && net.prefix() <= own.prefix())
    };
    let named: Vec<_> = source.into_iter().chain(destination).collect();
    !named.is_empty() && named.iter().all(|net| covers(*net)) && has_conditions(rule, named.len())
}

/// Whether a rule is about all UDP datagrams to a port, and nothing else.
pub(super) fn is_about_udp(rule: &RuleInfo, port: u16) -> bool {
    let mut to_port = false;
    for pair in rule.expressions.windows(2) {
        if let [
            Expr::Payload { base: Base::Transport, offset: 2, len: 2, .. },
            Expr::Cmp { op: Op::Eq, data, .. },
        ] = pair
        {
            to_port |= data.as_slice() == port.to_be_bytes();
        }
    }
    let is_xtables =
        rule.expressions.iter().any(|it| matches!(it, Expr::Match { name, .. } if name == "udp"));
    // Protocol and port; what iptables' own matches compare cannot be read here, and is taken for right.
    (to_port && has_conditions(rule, 2)) || is_xtables
}

/// Rules that drop what comes in by a link and leaves by the same: the link, and where the rule is.
pub(super) fn dropping_within(nfnl: &mut Nfnl, families: &[Family]) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for table in tables(nfnl, families)? {
        for ChainInfo { name: chain, .. } in nft::chains(nfnl, table.table())? {
            for rule in nft::rules(nfnl, table.table(), &chain)? {
                let (by, to) = (link_of(&rule, Meta::IifName), link_of(&rule, Meta::OifName));
                if let (Some(by), Some(to)) = (by, to)
                    && by == to
                    && verdict(&rule) == Some(Verdict::Drop)
                    && has_conditions(&rule, 2)
                {
                    let place = format!("table {}, chain {chain}: rule {}", table.table(), rule.handle);
                    found.push((by, place));
                }
            }
        }
    }
    Ok(found)
}

/// The link to whose name a rule compares the incoming or outgoing one.
fn link_of(rule: &RuleInfo, which: Meta) -> Option<String> {
    rule.expressions.windows(2).find_map(|pair| match pair {
        [Expr::Meta { key, .. }, Expr::Cmp { op: Op::Eq, data, .. }] if *key == which => {
            let name = data.split(|byte| *byte == 0).next().unwrap_or_default();
            Some(String::from_utf8_lossy(name).into_owned())
        }
        _ => None,
    })
}
