//! Addresses: one that two pods have, one whose prefix is too short.

use std::net::IpAddr;

use anyhow::{Context, Result};
use ipnetwork::IpNetwork;
use kernel::addr::{self, Address};
use kernel::{Family, Rtnl};

use super::{Act, Fault, always, not_in_mode};
use crate::breaking::{Work, unless_gone, unless_there};
use crate::cluster::{Cluster, Pod, Space};
use crate::exit::Failure;
use crate::fabric::NODAD;
use crate::look::{address_of, forget, link_of, restore_routes, routes_of};
use crate::modes::Siblings;

/// The faults.
pub(super) const FAULTS: &[Fault] = &[
    Fault {
        id: "dup-ip",
        does: "another pod of the node has a pod's address too",
        seen: "two MACs answer for one address, and connections go to whoever answered first",
        amount: None,
        unless: always,
        act: Act::Pods(dup_ip),
    },
    Fault {
        id: "wrong-prefix",
        does: "a pod's address has the prefix /16 instead of its node's",
        seen: "the pod asks by ARP for pods on other nodes, and nobody answers; its own node and outside work",
        amount: None,
        unless: prefixed,
        act: Act::Pod(wrong_prefix),
    },
];

/// The prefix of all PodCIDRs together, as it is by default; IPv6's is the lab's own.
const TOO_SHORT: u8 = 16;

/// Where pods are behind a bridge, their addresses have the prefix of the node's network.
fn prefixed(cluster: &Cluster) -> Result<(), Failure> {
    match cluster.mode.siblings() {
        Siblings::Switched => Ok(()),
        Siblings::Routed | Siblings::Direct => {
            Err(not_in_mode(cluster, "no link that a pod shares with its siblings and with a router"))
        }
    }
}

fn dup_ip(work: &mut Work<'_>, cluster: &Cluster, pod: &Pod, other: &Pod) -> Result<()> {
    let address = address_of(pod, work.family())?;
    let own = address_of(other, work.family())?;
    let index = link_of(&other.space, &other.ifname)?.index;
    let listed = addr::list(&mut Rtnl::open_in(&other.space.netns)?, Some(index))?;
    let prefix = listed.iter().find(|it| it.net.ip() == own).map(|it| it.net.prefix());
    let prefix = prefix.with_context(|| format!("{} does not have its address {own}", other.space.name))?;
    let twice = IpNetwork::new(address, prefix)?;
    asked_anew(work, cluster, address)?;
    let change = |space: &Space| Ok(addr::add(&mut Rtnl::open_in(&space.netns)?, index, twice, &NODAD)?);
    work.change_in(&other.space, format!("address {address}"), change, move |space, ()| {
        unless_gone(addr::delete(&mut Rtnl::open_in(&space.netns)?, index, twice))
    })
}

/// What was learned of an address is forgotten now, and again when what is changed after this has been undone.
pub(super) fn asked_anew(work: &mut Work<'_>, cluster: &Cluster, address: IpAddr) -> Result<()> {
    let change = || forget(cluster, address);
    work.change(format!("neighbours {address}"), change, move |lab, ()| forget(&lab.cluster(), address))
}

fn wrong_prefix(work: &mut Work<'_>, cluster: &Cluster, pod: &Pod) -> Result<()> {
    let address = address_of(pod, work.family())?;
    let index = link_of(&pod.space, &pod.ifname)?.index;
    let listed = addr::list(&mut Rtnl::open_in(&pod.space.netns)?, Some(index))?;
    let right = listed.into_iter().find(|it| it.net.ip() == address);
    let right: Address = right.with_context(|| format!("{} does not have its address", pod.space.name))?;
    let all = cluster.ranges.pods.of(Family::of(address)).filter(|_| address.is_ipv6());
    let wrong = IpNetwork::new(address, all.map_or(TOO_SHORT, |all| all.prefix()))?;
    let change = |space: &Space| {
        let routes = routes_of(space)?;
        let mut rtnl = Rtnl::open_in(&space.netns)?;
        // The new one first: with its last address a link loses its routes. IPv6 has an address once, whatever its prefix.
        if address.is_ipv6() {
            addr::delete(&mut rtnl, index, right.net)?;
        }
        if let Err(err) = addr::add(&mut rtnl, index, wrong, &NODAD) {
            unless_there(addr::restore(&mut rtnl, &right))?;
            return Err(err.into());
        }
        if address.is_ipv4() {
            addr::delete(&mut rtnl, index, right.net)?;
        }
        restore_routes(space, &without(&routes, right.net))?;
        Ok((right, routes))
    };
    work.change_in(&pod.space, format!("address {address}"), change, move |space, (right, routes)| {
        let mut rtnl = Rtnl::open_in(&space.netns)?;
        if address.is_ipv6() {
            unless_gone(addr::delete(&mut rtnl, right.index, wrong))?;
        }
        unless_there(addr::restore(&mut rtnl, right))?;
        unless_gone(addr::delete(&mut rtnl, right.index, wrong))?;
        restore_routes(space, routes)
    })
}

/// The routes but for the one that an address brings with it.
fn without(routes: &[kernel::route::Route], net: IpNetwork) -> Vec<kernel::route::Route> {
    let connected = |route: &&kernel::route::Route| {
        route.destination().ip() != net.network() || route.destination().prefix() != net.prefix()
    };
    routes.iter().filter(connected).cloned().collect()
}
