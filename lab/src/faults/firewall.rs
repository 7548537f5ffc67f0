//! Rules: packets dropped, refused and rewritten by nf_tables.

use anyhow::Result;
use kernel::Nfnl;
use kernel::nft::{self, Batch, ChainKind, Family, Hook, Op, Point, Rule, Table, priority};

use super::routes::routed;
use super::{Act, Fault};
use crate::breaking::{Work, unless_gone};
use crate::cluster::{Cluster, Node, Space};
use crate::kubia::PORT;
use crate::look::pods_of;
use crate::services::model::Transport;

/// The faults.
pub(super) const FAULTS: &[Fault] = &[
    Fault {
        id: "masq-all",
        does: "a node rewrites the source of everything that leaves it, as ipMasq does in many tutorials",
        seen: "everything answers, and servers on other nodes see the node instead of the pod",
        amount: None,
        unless: routed,
        act: Act::Node(masq_all),
    },
    Fault {
        id: "fw-drop",
        does: "a node drops what others send to its pods' port 8080",
        seen: "TIMEOUT from other nodes and from outside, ping works",
        amount: None,
        unless: routed,
        act: Act::Node(fw_drop),
    },
    Fault {
        id: "fw-reject",
        does: "a node refuses what others send to its pods' port 8080",
        seen: "REFUSED from other nodes and from outside at once, though the app listens",
        amount: None,
        unless: routed,
        act: Act::Node(fw_reject),
    },
];

fn masq_all(work: &mut Work<'_>, _: &Cluster, node: &Node) -> Result<()> {
    let hook = Hook::new(ChainKind::Nat, Point::Postrouting, priority::SRCNAT);
    let (pods, family) = (pods_of(node, work.family())?, of_ip(work.family()));
    let rule = Rule::new().saddr(Op::Eq, pods).daddr(Op::Neq, pods).masquerade();
    add_table(work, &node.space, Table::new(family, "nat"), ("postrouting", &hook), &rule)
}

fn fw_drop(work: &mut Work<'_>, _: &Cluster, node: &Node) -> Result<()> {
    policy(work, node, Rule::drop)
}

fn fw_reject(work: &mut Work<'_>, _: &Cluster, node: &Node) -> Result<()> {
    policy(work, node, Rule::reject)
}

fn policy(work: &mut Work<'_>, node: &Node, end: fn(Rule) -> Rule) -> Result<()> {
    let hook = Hook::new(ChainKind::Filter, Point::Forward, priority::FILTER);
    // Frames between ports of a bridge may pass here too.
    let (pods, family) = (pods_of(node, work.family())?, of_ip(work.family()));
    let from_others = Rule::new().saddr(Op::Neq, pods).daddr(Op::Eq, pods);
    let rule = end(from_others.l4proto(Transport::Tcp.number()).dport(Op::Eq, PORT));
    // A word that nft takes for a name, so that a student can delete the table by it.
    add_table(work, &node.space, Table::new(family, "guard"), ("forward", &hook), &rule)
}

/// nf_tables' family of an IP version.
pub(super) fn of_ip(family: kernel::Family) -> Family {
    match family {
        kernel::Family::V4 => Family::Ip,
        kernel::Family::V6 => Family::Ip6,
    }
}

/// A table with one chain and one rule.
pub(super) fn add_table(
    work: &mut Work<'_>,
    space: &Space,
    table: Table<'static>,
    (chain, hook): (&str, &Hook<'_>),
    rule: &Rule,
) -> Result<()> {
    let change = |space: &Space| {
        let mut nfnl = Nfnl::open_in(&space.netns)?;
        if nft::table(&mut nfnl, table)?.is_some() {
            anyhow::bail!("there is one already");
        }
        let mut batch = Batch::new();
        batch.add_table(table, None).add_chain(table, chain, Some(hook)).append(table, chain, rule);
        Ok(nfnl.commit(batch)?)
    };
    work.change_in(space, format!("table {table}"), change, move |space, ()| {
        let mut batch = Batch::new();
        batch.delete_table(table);
        unless_gone(Nfnl::open_in(&space.netns)?.commit(batch))
    })
}
