//! The quality of a wire: packets lost, held up, too large.

use anyhow::Result;
use kernel::Rtnl;
use kernel::link::{self, Change};
use kernel::nft::{ChainKind, Expr, Family, Hook, Meta, Op, Point, Reg, Rule, Table};
use kernel::tc::{self, Kind, Qdisc, ROOT, Tbf};

use super::firewall::add_table;
use super::{Act, Amount, Fault, always};
use crate::breaking::{Work, unless_gone};
use crate::cluster::{Cluster, Node, Space};
use crate::fabric::UPLINK;
use crate::look::{link_of, switch_of};
use crate::modes::WIRE_MTU;

/// The faults.
pub(super) const FAULTS: &[Fault] = &[
    Fault {
        id: "loss",
        does: "a node's uplink loses packets that come in, by chance",
        seen: "some connections work, some are slow, some TIMEOUT",
        amount: Some(Amount { unit: "percent", default: 30, range: (1, 100) }),
        unless: always,
        act: Act::Node(loss),
    },
    Fault {
        id: "drop-every",
        does: "a node's uplink loses each so many-th packet that comes in",
        seen: "exactly one ping of so many gets no answer",
        amount: Some(Amount { unit: "packets", default: 5, range: (1, 250) }),
        unless: always,
        act: Act::Node(drop_every),
    },
    Fault {
        id: "rate",
        does: "a node's uplink sends no faster than so much",
        seen: "all works, and everything that is large is slow",
        amount: Some(Amount { unit: "kbit/s", default: 64, range: (8, 10_000_000) }),
        unless: always,
        act: Act::Node(rate),
    },
    Fault {
        id: "mtu-hole",
        does: "the switch drops frames to a node that are larger than so much, and tells nobody",
        seen: "ping and small answers work, large ones hang",
        amount: Some(Amount { unit: "bytes", default: 1400, range: (576, WIRE_MTU as u32 - 1) }),
        unless: always,
        act: Act::Node(mtu_hole),
    },
];

/// linux/if_ether.h, `ETH_P_IP`
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// A bucket that one frame of any size fits into, in bytes.
const BURST: u32 = 1600;
/// What waits behind it, in bytes: more than the probes of a check, so that they are slow and not lost.
const QUEUE: u32 = 256 * 1024;

fn loss(work: &mut Work<'_>, _: &Cluster, node: &Node) -> Result<()> {
    // Both numbers are below 256, so they compare as bytes as they do as numbers.
    let rule = of_ip(work).expr(numgen(100, true)).expr(compare(Op::Lt, work.amount)).drop();
    drop_incoming(work, &node.space, &rule)
}

fn drop_every(work: &mut Work<'_>, _: &Cluster, node: &Node) -> Result<()> {
    let last = work.amount - 1;
    let rule = of_ip(work).expr(numgen(work.amount, false)).expr(compare(Op::Eq, last)).drop();
    drop_incoming(work, &node.space, &rule)
}

/// ARP is not counted; its counterpart in IPv6 is.
fn of_ip(work: &Work<'_>) -> Rule {
    let protocol_number = match work.family() {
        kernel::Family::V4 => IPV4,
        kernel::Family::V6 => IPV6,
    };
    let protocol = Expr::Meta { key: Meta::Protocol, dreg: Reg::R1 };
    Rule::new().expr(protocol).expr(Expr::Cmp {
        sreg: Reg::R1,
        op: Op::Eq,
        data: protocol_number.to_be_bytes().to_vec(),
    })
}

fn numgen(modulus: u32, random: bool) -> Expr {
    Expr::Numgen { dreg: Reg::R1, modulus, random, offset: 0 }
}

fn compare(op: Op, value: u32) -> Expr {
    Expr::Cmp { sreg: Reg::R1, op, data: value.to_ne_bytes().to_vec() }
}

fn drop_incoming(work: &mut Work<'_>, space: &Space, rule: &Rule) -> Result<()> {
    let hook = Hook { device: Some(UPLINK), ..Hook::new(ChainKind::Filter, Point::Ingress, 0) };
    add_table(work, space, Table::new(Family::Netdev, "wire"), ("ingress", &hook), rule)
}

fn rate(work: &mut Work<'_>, _: &Cluster, node: &Node) -> Result<()> {
    let bytes = u64::from(work.amount) * 1000 / 8;
    let index = link_of(&node.space, UPLINK)?.index;
    let buffer = tc::ticks(u64::from(BURST) * 1_000_000 / bytes);
    let kind = Kind::Tbf(Tbf { rate: bytes, limit: QUEUE, buffer });
    let qdisc = Qdisc { index, handle: tc::handle(1, 0), parent: ROOT, kind };
    let change = |space: &Space| Ok(tc::add_qdisc(&mut Rtnl::open_in(&space.netns)?, &qdisc)?);
    work.change_in(&node.space, format!("qdisc of {UPLINK}"), change, move |space, ()| {
        unless_gone(tc::delete_qdisc(&mut Rtnl::open_in(&space.netns)?, index, ROOT))
    })
}

fn mtu_hole(work: &mut Work<'_>, cluster: &Cluster, node: &Node) -> Result<()> {
    let (space, port) = (switch_of(cluster, node), node.space.name.clone());
    let link = link_of(space, &port)?;
    let (index, was, mtu) = (link.index, link.mtu, work.amount);
    let set = |space: &Space, index: u32, mtu: u32| -> Result<()> {
        let change = Change { mtu: Some(mtu), ..Change::default() };
        Ok(link::set(&mut Rtnl::open_in(&space.netns)?, index, &change)?)
    };
    let change = |space: &Space| set(space, index, mtu);
    work.change_in(space, format!("MTU of {port}"), change, move |space, ()| set(space, index, was))
}
