//! Looking things up in a running lab's kernels: links by name, the node's end of a pod, routes; and having the lab
//! forget what it has learned of an address.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result, bail};
use ipnetwork::{IpNetwork, Ipv4Network};
use kernel::link::{self, Link};
use kernel::route::{self, Family, Route, TABLE_MAIN};
use kernel::{Rtnl, neigh};

use crate::cluster::{Cluster, Node, Pod, Space};

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

/// The IPv4 address of a pod.
///
/// # Errors
/// It has none.
pub(crate) fn address_of(pod: &Pod) -> Result<Ipv4Addr> {
    let v4 = pod.addresses.iter().find_map(|address| match address {
        IpAddr::V4(v4) => Some(*v4),
        IpAddr::V6(_) => None,
    });
    v4.with_context(|| format!("{} has no IPv4 address", pod.space.name))
}

/// The main table's routes of a space.
///
/// # Errors
/// The kernel's words.
pub(crate) fn routes_of(space: &Space) -> Result<Vec<Route>> {
    let all = route::list(&mut Rtnl::open_in(&space.netns)?, Family::V4)?;
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
pub(crate) fn pods_of(node: &Node) -> IpNetwork {
    IpNetwork::V4(masked(node.pod_cidr))
}

fn masked(net: Ipv4Network) -> Ipv4Network {
    Ipv4Network::new(net.network(), net.prefix()).unwrap_or(net)
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
