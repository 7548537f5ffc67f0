//! What pods send out of the cluster carries the node's address, as nobody out there knows the way to a pod. Nothing
//! within the cluster is rewritten, nodes and the pods in their network among it.
//!
//! ```text
//! table inet podnet-masq {
//!     set kept4 { type ipv4_addr; flags interval; elements = { 10.244.0.0/22, 172.18.0.2-172.18.0.4, 224.0.0.0/4 } }
//!     chain postrouting {
//!         type nat hook postrouting priority srcnat; policy accept;
//!         ip saddr 10.244.1.0/24 ip daddr != @kept4 fib daddr type != local masquerade fully-random
//!     }
//! }
//! ```
//! [`Masquerade::of`] is a pure function of the nodes; [`apply`] makes the kernel's table equal to it in one transaction,
//! and changes nothing where it is. Rules of others, such as Docker's for its DNS, are never touched.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use kernel::nft::{
    self, Base, Batch, ChainKind, Element, Expr, Family, Hook, Op, Point, Reg, Rule, Set, Table, Type,
    nat_flag, priority,
};
use kernel::{Nfnl, Result};

use crate::model::Node;

/// The table.
pub const TABLE: Table<'static> = Table::new(Family::Inet, "podnet-masq");
const COMMENT: &str = "podnet: what pods send out of the cluster gets the node's address";
const CHAIN: &str = "postrouting";
const HOOK: Hook<'static> = Hook::new(ChainKind::Nat, Point::Postrouting, priority::SRCNAT);
/// The sets of destinations to which pods keep their addresses, IPv4 and IPv6.
const SETS: [&str; 2] = ["kept4", "kept6"];

/// Addresses from a first to a last one, both included.
pub type Range = (IpAddr, IpAddr);

/// The table as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Masquerade {
    /// PodCIDRs of this node, whose packets are meant.
    pub pods: Vec<IpNetwork>,
    /// Where their packets go as they are: PodCIDRs and InternalIPs of all nodes, multicast and broadcast; sorted, none
    /// next to another.
    pub kept: Vec<Range>,
}

impl Masquerade {
    /// The table of the node `own`; `nodes` are all of the cluster, `own` may be among them.
    pub fn of<'a>(own: &'a Node, nodes: impl IntoIterator<Item = &'a Node>) -> Masquerade {
        let mut pods: Vec<IpNetwork> = own.pod_cidrs.iter().map(|it| whole(*it)).collect();
        pods.sort_by_key(|it| (it.is_ipv6(), *it));
        let mut ranges = always();
        for node in std::iter::once(own).chain(nodes) {
            ranges.extend(node.pod_cidrs.iter().map(|it| (it.network(), it.broadcast())));
            ranges.extend(node.addresses.iter().map(|it| (*it, *it)));
        }
        Masquerade { pods, kept: merged(ranges) }
    }

    fn kept_of(&self, ipv6: bool) -> impl Iterator<Item = Range> {
        self.kept.iter().copied().filter(move |it| it.0.is_ipv6() == ipv6)
    }

    fn elements(&self, ipv6: bool) -> Vec<Element> {
        self.kept_of(ipv6).flat_map(|(first, last)| Element::range(first, last)).collect()
    }

    fn rules(&self) -> Vec<Rule> {
        self.pods.iter().map(|it| rule(*it)).collect()
    }

    fn put(&self, batch: &mut Batch) {
        batch.add_table(TABLE, Some(COMMENT));
        for (ipv6, name) in [false, true].into_iter().zip(SETS) {
            let key = if ipv6 { Type::Ipv6Addr } else { Type::Ipv4Addr };
            batch.add_set(TABLE, &Set { name, key: &[key], interval: true, ..Set::default() });
            batch.add_elements(TABLE, name, &self.elements(ipv6));
        }
        batch.add_chain(TABLE, CHAIN, Some(&HOOK));
        for rule in self.rules() {
            batch.append(TABLE, CHAIN, &rule);
        }
    }

    /// Whether the kernel's table is this one.
    fn is_there(&self, nfnl: &mut Nfnl) -> Result<bool> {
        let Some(chain) = nft::chain(nfnl, TABLE, CHAIN)? else { return Ok(false) };
        let hook = (HOOK.point.number(TABLE.family), HOOK.priority);
        if chain.hook != Some(hook) || chain.kind.as_deref() != Some("nat") || chain.accept != Some(true) {
            return Ok(false);
        }
        // Something more would do something more.
        if nft::chains(nfnl, TABLE)?.len() != 1 {
            return Ok(false);
        }
        let (there, wanted) = (nft::rules(nfnl, TABLE, CHAIN)?, self.rules());
        if there.len() != wanted.len() || !there.iter().zip(&wanted).all(|(it, wanted)| it.does(wanted)) {
            return Ok(false);
        }
        for (ipv6, name) in [false, true].into_iter().zip(SETS) {
            let keys = |elements: Vec<Element>| -> BTreeMap<(Vec<u8>, bool), ()> {
                elements.into_iter().map(|it| ((it.key, it.is_end), ())).collect()
            };
            if keys(nft::elements(nfnl, TABLE, name)?) != keys(self.elements(ipv6)) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Makes the kernel's table equal to `wanted`; true when it was not. Packets see the old one or the new one.
///
/// # Errors
/// The kernel refuses, or lacks what the table needs (`lacks()` tells).
pub fn apply(nfnl: &mut Nfnl, wanted: &Masquerade) -> Result<bool> {
    if wanted.is_there(nfnl)? {
        return Ok(false);
    }
    let mut batch = Batch::new();
    // Added first, so that there is one to delete.
    batch.add_table(TABLE, None).delete_table(TABLE);
    wanted.put(&mut batch);
    nfnl.commit(batch)?;
    Ok(true)
}

/// Asks the kernel whether it would take the table, for a look at what it lacks before pods are promised anything.
///
/// # Errors
/// As [`apply`].
pub fn try_out(nfnl: &mut Nfnl, wanted: &Masquerade) -> Result<()> {
    let mut batch = Batch::new();
    batch.add_table(TABLE, None).delete_table(TABLE);
    wanted.put(&mut batch);
    nfnl.try_out(batch)
}

fn rule(pods: IpNetwork) -> Rule {
    let ipv6 = pods.is_ipv6();
    // Where the destination is in the IP header.
    let (offset, len) = if ipv6 { (24, 16) } else { (16, 4) };
    Rule::new()
        .nfproto(pods.ip())
        .saddr(Op::Eq, pods)
        .expr(Expr::Payload { base: Base::Network, offset, len, dreg: Reg::R1 })
        .in_set(SETS[usize::from(ipv6)], true)
        .daddr_local(Op::Neq)
        .expr(Expr::Masquerade { flags: nat_flag::FULLY_RANDOM })
}

/// Multicast and the broadcast address, which are nobody's beyond the link (RFC 5771, RFC 919, RFC 4291), and IPv6's
/// link-local addresses.
fn always() -> Vec<Range> {
    let v4 = |a: [u8; 4], b: [u8; 4]| (IpAddr::V4(Ipv4Addr::from(a)), IpAddr::V4(Ipv4Addr::from(b)));
    let v6 = |a: u16, b: u16| -> Range {
        let last = Ipv6Addr::new(b, u16::MAX, u16::MAX, u16::MAX, u16::MAX, u16::MAX, u16::MAX, u16::MAX);
        (IpAddr::V6(Ipv6Addr::new(a, 0, 0, 0, 0, 0, 0, 0)), IpAddr::V6(last))
    };
    vec![
        v4([224, 0, 0, 0], [239, 255, 255, 255]),
        v4([255; 4], [255; 4]),
        v6(0xfe80, 0xfebf),
        v6(0xff00, 0xffff),
    ]
}

/// The ranges in order, those that overlap or touch made one.
pub fn merged(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort();
    let mut all: Vec<Range> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match all.last_mut() {
            Some(before) if before.0.is_ipv6() == first.is_ipv6() && !lies_behind(before.1, first) => {
                before.1 = before.1.max(last);
            }
            _ => all.push((first, last)),
        }
    }
    all
}

/// Whether there is an address between the end of one range and the beginning of the next.
fn lies_behind(last: IpAddr, first: IpAddr) -> bool {
    let number = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    };
    number(last).checked_add(1).is_some_and(|next| number(first) > next)
}

fn whole(cidr: IpNetwork) -> IpNetwork {
    IpNetwork::new(cidr.network(), cidr.prefix()).unwrap_or(cidr)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::tests::node;

    fn ranges(all: &[(&str, &str)]) -> Vec<Range> {
        all.iter().map(|(a, b)| (a.parse().unwrap(), b.parse().unwrap())).collect()
    }

    #[test]
    fn ranges_that_overlap_or_touch_are_one() {
        let wanted = ranges(&[("10.0.0.0", "10.0.3.255"), ("10.0.5.0", "10.0.5.0"), ("fd00::", "fd00::2")]);
        let found = merged(ranges(&[
            ("10.0.2.0", "10.0.3.255"),
            ("fd00::1", "fd00::2"),
            ("10.0.0.0", "10.0.1.255"),
            ("10.0.5.0", "10.0.5.0"),
            ("10.0.1.7", "10.0.1.9"),
            ("fd00::", "fd00::"),
        ]));
        assert_eq!(found, wanted);
    }

    #[test]
    fn the_end_of_one_family_does_not_touch_the_other() {
        let all = ranges(&[("255.255.255.255", "255.255.255.255"), ("::", "::1")]);
        assert_eq!(merged(all.clone()), all);
        let last = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        let all = ranges(&[(last, last), ("ff00::", last)]);
        assert_eq!(merged(all), ranges(&[("ff00::", last)]));
    }

    #[test]
    fn pods_and_nodes_of_the_whole_cluster_are_kept() {
        let a = node("a", &["10.244.0.7/24", "fd00:1::/64"], &["172.18.0.2", "fc00::2"]);
        let b = node("b", &["10.244.1.0/24"], &["172.18.0.3"]);
        let table = Masquerade::of(&a, [&a, &b]);
        insta::assert_debug_snapshot!(table);
        assert_eq!(table, Masquerade::of(&a, [&b]), "whether or not the node is in the list");
    }
}
