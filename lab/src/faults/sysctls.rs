//! Sysctls: what the kernel is told to do with packets of others.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use anyhow::{Context, Result, bail};
use ipnetwork::IpNetwork;
use kernel::addr::{self, AddrOptions};
use kernel::link::{self, Change, Veth};
use kernel::route::{self, Route};
use kernel::{Rtnl, sysctl};

use super::routes::routed;
use super::{Act, Fault};
use crate::breaking::{Work, unless_gone};
use crate::cluster::{Cluster, Node, Space};
use crate::fabric::{SWITCH, forwarding};
use crate::look::{address_of_node, link_of, pods_of, route_to, switch_of};

/// The faults.
pub(super) const FAULTS: &[Fault] = &[
    Fault {
        id: "forward-off",
        does: "a node does not forward (net.ipv4.ip_forward = 0)",
        seen: "pods of the node reach each other, and nobody beyond the node",
        amount: None,
        unless: routed,
        act: Act::Node(forward_off),
    },
    Fault {
        id: "rp-filter",
        does: "a node answers another one by a second cable, and takes packets only where it would answer (rp_filter)",
        seen: "packets of the other node's pods come in at eth0 and go no further; no rule drops them",
        amount: None,
        unless: routed,
        act: Act::Nodes(rp_filter),
    },
];

/// The second cable: the node's end.
const SECOND: &str = "eth1";
/// The filter of the first one.
const UPLINK_FILTER: &str = "net/ipv4/conf/eth0/rp_filter";

fn forward_off(work: &mut Work<'_>, _: &Cluster, node: &Node) -> Result<()> {
    let path = forwarding(work.family());
    if node.space.netns.run(|| sysctl::read(path))??.trim() == "0" {
        bail!("it does not forward already");
    }
    set(work, &node.space, path, "0")
}

/// Each half of it would do no harm: an asymmetric path, and a strict filter.
fn rp_filter(work: &mut Work<'_>, cluster: &Cluster, node: &Node, peer: &Node) -> Result<()> {
    work.ipv4_only("rp_filter")?;
    second_cable(work, cluster, node)?;
    let pods = pods_of(peer, work.family())?;
    let via = address_of_node(peer, work.family())?;
    let right = route_to(&node.space, pods)?;
    let change = |space: &Space| {
        let mut rtnl = Rtnl::open_in(&space.netns)?;
        let (dst, priority) = (right.dst, right.priority);
        let oif = Some(link::by_name(&mut rtnl, SECOND)?.index);
        let gateway = Some(via);
        let other = Route { dst, priority, oif, gateway, onlink: true, ..Route::default() };
        route::replace(&mut rtnl, &other)?;
        Ok(right)
    };
    work.change_in(&node.space, format!("route {pods}"), change, |space, right| {
        Ok(route::replace(&mut Rtnl::open_in(&space.netns)?, right)?)
    })?;
    // The greater of the two counts, and 2 is less strict than 1.
    set(work, &node.space, "net/ipv4/conf/all/rp_filter", "1")?;
    set(work, &node.space, UPLINK_FILTER, "1")
}

/// One more wire from a node to its switch. The node answers ARP questions for its address on the first one only.
fn second_cable(work: &mut Work<'_>, cluster: &Cluster, node: &Node) -> Result<()> {
    let switch = switch_of(cluster, node);
    let port = format!("{}-b", node.space.name);
    let master = link_of(switch, SWITCH)?.index;
    let plug = |switch: &Space| -> Result<()> {
        let far = Some(node.space.netns.as_fd());
        let (name, peer, master) = (port.as_str(), SECOND, Some(master));
        let veth = Veth { name, peer, master, up: true, peer_netns: far, ..Veth::default() };
        link::add_veth(&mut Rtnl::open_in(&switch.netns)?, &veth)?;
        Ok(())
    };
    let own = port.clone();
    work.change_in(switch, format!("link {port}"), plug, move |switch, ()| {
        let mut rtnl = Rtnl::open_in(&switch.netns)?;
        match link::by_name(&mut rtnl, &own) {
            Ok(link) => unless_gone(link::delete(&mut rtnl, link.index)),
            Err(err) => unless_gone(Err(err)),
        }
    })?;
    let configure = || -> Result<()> {
        node.space.netns.run(|| sysctl::write("net/ipv4/conf/eth1/arp_ignore", "1"))??;
        let mut rtnl = Rtnl::open_in(&node.space.netns)?;
        let index = link::by_name(&mut rtnl, SECOND)?.index;
        let [a, b, c, last] = node.v4().context("no IPv4")?.0.octets();
        let second = IpNetwork::from(std::net::IpAddr::V4(Ipv4Addr::new(a, b, c, last ^ 0x80)));
        addr::add(&mut rtnl, index, second, &AddrOptions::default())?;
        Ok(link::set(&mut rtnl, index, &Change { up: Some(true), ..Change::default() })?)
    };
    // It goes with the wire.
    configure().with_context(|| format!("{}: {SECOND}", node.space.name))
}

fn set(work: &mut Work<'_>, space: &Space, path: &'static str, value: &str) -> Result<()> {
    let change = |space: &Space| {
        let was = space.netns.run(|| sysctl::read(path))??.trim().to_owned();
        space.netns.run(|| sysctl::write(path, value))??;
        Ok(was)
    };
    work.change_in(space, format!("sysctl {path}"), change, move |space, was| {
        Ok(space.netns.run(|| sysctl::write(path, was))??)
    })
}
