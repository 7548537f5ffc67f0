//! Looking things up in a running lab's kernels: links by name, the node's end of a pod, routes; and having the lab
//! forget what it has learned of an address.

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use ipnetwork::IpNetwork;
use kernel::link::{self, Link};
use kernel::route::{self, Family, Route, TABLE_MAIN};
use kernel::{Rtnl, neigh};

use crate::cluster::{Cluster, Node, Pod, Space};
use crate::stack;

/// The link of that name in a space.
///
/// # Errors
/// There is none, or the kernel's words.
pub(crate) fn link_of(space: &Space, name: &str) -> Result<Link> {
    Ok(link::by_name(&mut Rtnl::open_in(&space.netns)?, name)?)
}

/// The node's end of a pod's wire.
///
/// # Errors
/// The pod has no such wire, or the kernel's words.
pub(crate) fn veth_of(cluster: &Cluster, pod: &Pod) -> Result<Link> {
    let end = link_of(&pod.space, &pod.ifname)?;
    let far = end.link.filter(|_| end.kind.as_deref() == Some("veth"));
    let Some(far) = far else { bail!("{}/{} is no veth", pod.space.name, pod.ifname) };
    let node = &cluster.nodes[pod.node].space;
    let found = link::by_index(&mut Rtnl::open_in(&node.netns)?, far);
    found.with_context(|| format!("{}'s end of {}", node.name, pod.space.name))
}

/// The space that a node's uplink is plugged into: its rack, or the fabric. There the port has the node's name.
pub(crate) fn switch_of<'c>(cluster: &'c Cluster, node: &Node) -> &'c Space {
    cluster.racks.get(node.rack).unwrap_or(&cluster.fabric)
}

/// The address of a pod.
///
/// # Errors
/// It has none of that IP version.
pub(crate) fn address_of(pod: &Pod, family: Family) -> Result<IpAddr> {
    let found = pod.addresses.iter().find(|address| Family::of(**address) == family).copied();
    found.with_context(|| format!("{} has no {} address", pod.space.name, stack::word(family)))
}

/// The address of a node on its link.
///
/// # Errors
/// As [`address_of`].
pub(crate) fn address_of_node(node: &Node, family: Family) -> Result<IpAddr> {
    let none = || format!("{} has no {} address", node.space.name, stack::word(family));
    node.address.of(family).with_context(none)
}

/// The main table's routes of a space.
///
/// # Errors
/// The kernel's words.
pub(crate) fn routes_of(space: &Space) -> Result<Vec<Route>> {
    let mut rtnl = Rtnl::open_in(&space.netns)?;
    let mut all = route::list(&mut rtnl, Family::V4)?;
    all.extend(route::list(&mut rtnl, Family::V6)?);
    Ok(all.into_iter().filter(|route| route.table_id() == TABLE_MAIN).collect())
}

/// The main table's route to exactly this network.
///
/// # Errors
/// There is none.
pub(crate) fn route_to(space: &Space, to: IpNetwork) -> Result<Route> {
    let found = routes_of(space)?.into_iter().find(|route| route.destination() == to);
    found.with_context(|| format!("{} has no route to {to} of its own", space.name))
}

/// Adds those routes that are not there.
///
/// # Errors
/// The kernel's words.
pub(crate) fn restore_routes(space: &Space, routes: &[Route]) -> Result<()> {
    let now = routes_of(space)?;
    let mut rtnl = Rtnl::open_in(&space.netns)?;
    for route in routes.iter().filter(|route| !now.contains(route)) {
        crate::breaking::unless_there(route::add(&mut rtnl, route))?;
    }
    Ok(())
}

/// A PodCIDR as a destination.
///
/// # Errors
/// As [`address_of`].
pub(crate) fn pods_of(node: &Node, family: Family) -> Result<IpNetwork> {
    let none = || format!("{} has no {} PodCIDR", node.space.name, stack::word(family));
    node.pod_cidr.of(family).with_context(none)
}

/// Has every namespace of the lab forget what it has learned of an address, so that it is asked for anew.
///
/// # Errors
/// The kernel's words.
pub(crate) fn forget(cluster: &Cluster, address: IpAddr) -> Result<()> {
    forget_if(cluster, |entry| entry.addr == address && entry.state_word() != "permanent")
}

/// Has every namespace of the lab ask anew for those that did not answer: the kernel waits between its questions, and
/// tells who sends meanwhile that there is no route to the host.
///
/// # Errors
/// The kernel's words.
pub(crate) fn forget_silence(cluster: &Cluster) -> Result<()> {
    forget_if(cluster, |entry| matches!(entry.state_word(), "incomplete" | "failed" | "probe"))
}

/// Has a namespace forget that it knows these addresses, so that others have room. One that is being asked for is left
/// alone: what waits for the answer would be lost.
///
/// # Errors
/// The kernel's words.
pub(crate) fn forget_known(space: &Space, addresses: &[IpAddr]) -> Result<()> {
    let is_known =
        |entry: &neigh::Neigh| matches!(entry.state_word(), "reachable" | "stale" | "delay" | "failed");
    forget_in(space, |entry| is_known(entry) && addresses.contains(&entry.addr))
}

fn forget_if(cluster: &Cluster, is_meant: impl Fn(&neigh::Neigh) -> bool) -> Result<()> {
    cluster.spaces().try_for_each(|space| forget_in(space, &is_meant))
}

fn forget_in(space: &Space, is_meant: impl Fn(&neigh::Neigh) -> bool) -> Result<()> {
    let mut rtnl = Rtnl::open_in(&space.netns)?;
    for entry in neigh::list(&mut rtnl)?.iter().filter(|entry| is_meant(entry)) {
        crate::breaking::unless_gone(neigh::delete(&mut rtnl, entry.index, entry.addr))
            .with_context(|| space.name.clone())?;
    }
    Ok(())
}
