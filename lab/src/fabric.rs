//! The fabric: the wires and routers between nodes, and to the host outside.
//!
//! ```text
//!  one rack                                  several racks
//!      fabric  lan0 (switch and router)          fabric  rack1, rack2 (a router)
//!      ├ node1                                   ├ rack1  up0; lan0 (switch and router)
//!      ├ node2                                   │ └ node1, node2
//!      └ wan0 ── outside                         ├ rack2  up0; lan0
//!                                                │ └ node3
//!                                                └ wan0 ── outside
//! ```
//! What nodes and routers know of pods is the mode's affair; here are links, addresses, default routes, and the routes
//! to PodCIDRs that [`Routers`] asks for.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ipnetwork::{IpNetwork, Ipv4Network};
use kernel::addr::{self, AddrOptions};
use kernel::link::{self, Bridge, Change, Veth};
use kernel::route::{self, Family, Route};
use kernel::rule::{self, Rule};
use kernel::{Mac, Rtnl, packet, sysctl};

use crate::cluster::{Node, Space};
use crate::modes::{Ground, Routers};
use crate::topology::{OUTSIDE, Topology, host, mac};

/// The link of a node, and of the host outside, to the fabric.
pub const UPLINK: &str = "eth0";
/// The bridge of a rack, or of the fabric where there is one rack.
pub const SWITCH: &str = "lan0";
/// The fabric's link to the host outside.
pub const WAN: &str = "wan0";
/// A rack's link to the fabric.
pub const RACK_UPLINK: &str = "up0";
/// The routes to pods for packets from outside.
pub(crate) const INGRESS_TABLE: u32 = 100;
/// How long a wire may take to carry frames.
const WIRE_LIMIT: Duration = Duration::from_secs(5);

/// Wires, addresses, routes and forwarding of the fabric, the nodes and outside.
///
/// # Errors
/// What failed, where.
pub fn wire(ground: &Ground<'_>, outside: &Space) -> Result<()> {
    let mut rtnl = Rtnl::open_in(&ground.fabric.netns)?;
    let wan = plug(&mut rtnl, WAN, None, (mac(0xfa, 2), mac(0x0f, 9)), outside, UPLINK)?;
    addr::add(&mut rtnl, wan, with_prefix(host(OUTSIDE, 1), OUTSIDE)?, &AddrOptions::default())
        .context("fabric")?;
    attach(outside, UPLINK, host(OUTSIDE, 9), OUTSIDE, host(OUTSIDE, 1))?;
    let routers = ground.topology.mode.routers(ground.topology);
    // In every mode: services have their ways in there too.
    rule::add(&mut rtnl, &to_ingress_table(Some(WAN.to_owned()), None)).context("fabric")?;
    let mut ports = vec![wan];
    if ground.racks.is_empty() {
        ports.extend(add_switch(&mut rtnl, ground, 0, ground.fabric)?);
    }
    for (rack, space) in ground.racks.iter().enumerate() {
        ports.push(add_rack(&mut rtnl, ground, rack, space, routers)?);
    }
    let forwarding = [ground.fabric].into_iter().chain(ground.racks);
    for space in forwarding.chain(ground.nodes.iter().map(|node| &node.space)) {
        space
            .netns
            .run(|| sysctl::ensure("net/ipv4/ip_forward", "1"))?
            .with_context(|| format!("forwarding of {}", space.name))?;
    }
    wait_for(&mut rtnl, &ports)
}

fn wait_for(rtnl: &mut Rtnl, ports: &[u32]) -> Result<()> {
    for port in ports {
        if !link::wait_oper_up(rtnl, *port, WIRE_LIMIT)? {
            bail!("wire {port} of the fabric carries no frames after {} s", WIRE_LIMIT.as_secs());
        }
    }
    Ok(())
}

/// A rack: its wire to the fabric, its switch with its nodes, and the ways to them. Returns the fabric's port.
fn add_rack(
    rtnl: &mut Rtnl,
    ground: &Ground<'_>,
    rack: usize,
    space: &Space,
    routers: Routers,
) -> Result<u32> {
    let macs = (mac(0xfc, rack + 1), mac(0xfd, rack + 1));
    let port = plug(rtnl, &space.name, None, macs, space, RACK_UPLINK)?;
    let (above, own) = Topology::rack_uplink(rack);
    addr::add(rtnl, port, with_prefix(above.ip(), above)?, &AddrOptions::default()).context("fabric")?;
    attach(space, RACK_UPLINK, own.ip(), own, above.ip())?;
    add_route(rtnl, ground.topology.rack_net(rack), own.ip()).context("fabric")?;
    for node in ground.nodes.iter().filter(|node| node.rack == rack) {
        add_pods(rtnl, routers, node.pod_cidr, own.ip()).context("fabric")?;
    }

    let mut inside = Rtnl::open_in(&space.netns)?;
    if routers == Routers::FromOutside {
        rule::add(&mut inside, &to_ingress_table(None, Some(IpNetwork::V4(OUTSIDE))))
            .with_context(|| space.name.clone())?;
    }
    let ports = add_switch(&mut inside, ground, rack, space)?;
    wait_for(&mut inside, &ports)?;
    Ok(port)
}

/// The switch and router of a rack in `space`, and its nodes. Returns the ports.
fn add_switch(rtnl: &mut Rtnl, ground: &Ground<'_>, rack: usize, space: &Space) -> Result<Vec<u32>> {
    let what = || space.name.clone();
    let switch =
        Bridge { name: SWITCH, mac: Some(mac(0xfa, 1 + (rack << 8))), up: true, ..Bridge::default() };
    link::add_bridge(rtnl, &switch).with_context(what)?;
    let lan = link::by_name(rtnl, SWITCH)?.index;
    let net = ground.topology.rack_net(rack);
    let router = host(net, 1);
    addr::add(rtnl, lan, with_prefix(router, net)?, &AddrOptions::default()).with_context(what)?;
    let routers = ground.topology.mode.routers(ground.topology);
    let mut ports = Vec::new();
    for (index, node) in ground.nodes.iter().enumerate().filter(|(_, node)| node.rack == rack) {
        let macs = (mac(0xfb, index + 1), mac(0x0e, index + 1));
        ports.push(plug(rtnl, &node.space.name, Some(lan), macs, &node.space, UPLINK)?);
        attach(&node.space, UPLINK, node.address, net, router)?;
        add_pods(rtnl, routers, node.pod_cidr, node.address).with_context(what)?;
    }
    Ok(ports)
}

/// The way to a PodCIDR, as far as routers are to know it.
fn add_pods(rtnl: &mut Rtnl, routers: Routers, pods: Ipv4Network, via: Ipv4Addr) -> Result<()> {
    let table = match routers {
        Routers::Know => None,
        Routers::FromOutside => Some(INGRESS_TABLE),
        Routers::Told => return Ok(()),
    };
    let route =
        Route { dst: Some(IpNetwork::V4(pods)), gateway: Some(via.into()), table, ..Route::default() };
    Ok(route::add(rtnl, &route)?)
}

fn to_ingress_table(iif: Option<String>, src: Option<IpNetwork>) -> Rule {
    Rule {
        family: Family::V4,
        priority: 100,
        src,
        dst: None,
        iif,
        oif: None,
        mark: None,
        action: rule::ACTION_TABLE,
        table: INGRESS_TABLE,
    }
}

/// The other nodes, with their indices.
pub fn peers<'c>(ground: &Ground<'c>, node: &Node) -> impl Iterator<Item = (usize, &'c Node)> {
    let own = node.address;
    ground.nodes.iter().enumerate().filter(move |(_, peer)| peer.address != own)
}

/// Every node gets a route to the pods of each peer on its own link, by the peer.
///
/// # Errors
/// What failed, where.
pub fn routes_to_pods_of_peers(ground: &Ground<'_>) -> Result<()> {
    for node in ground.nodes {
        let mut rtnl = Rtnl::open_in(&node.space.netns)?;
        for (_, peer) in peers(ground, node).filter(|(_, peer)| peer.rack == node.rack) {
            add_route(&mut rtnl, peer.pod_cidr, peer.address).with_context(|| node.space.name.clone())?;
        }
    }
    Ok(())
}

/// Adds a route by a gateway.
///
/// # Errors
/// The kernel's words.
pub fn add_route(rtnl: &mut Rtnl, to: Ipv4Network, via: Ipv4Addr) -> Result<()> {
    let route = Route { dst: Some(IpNetwork::V4(to)), gateway: Some(via.into()), ..Route::default() };
    Ok(route::add(rtnl, &route)?)
}

fn with_prefix(address: Ipv4Addr, net: Ipv4Network) -> Result<IpNetwork> {
    Ok(IpNetwork::new(IpAddr::V4(address), net.prefix())?)
}

/// A wire from the namespace of `rtnl`, where its end is `name`, to `space`, where it is `far_name`.
fn plug(
    rtnl: &mut Rtnl,
    name: &str,
    master: Option<u32>,
    (near, far): (Mac, Mac),
    space: &Space,
    far_name: &str,
) -> Result<u32> {
    let what = || format!("wire from the fabric to {}", space.name);
    let veth = Veth {
        name,
        peer: far_name,
        mac: Some(near),
        peer_mac: Some(far),
        mtu: 0,
        master,
        up: true,
        peer_netns: Some(space.netns.as_fd()),
    };
    link::add_veth(rtnl, &veth).with_context(what)?;
    Ok(link::by_name(rtnl, name).with_context(what)?.index)
}

/// A link of `space` gets its address and its default route. Segmentation is off, so that a capture shows the packets
/// that a real wire would carry.
fn attach(space: &Space, name: &str, address: Ipv4Addr, net: Ipv4Network, gateway: Ipv4Addr) -> Result<()> {
    let configure = || -> Result<()> {
        let mut rtnl = Rtnl::open_in(&space.netns)?;
        let link = link::by_name(&mut rtnl, name)?.index;
        addr::add(&mut rtnl, link, with_prefix(address, net)?, &AddrOptions::default())?;
        link::set(&mut rtnl, link, &Change { up: Some(true), ..Change::default() })?;
        route::add(&mut rtnl, &Route { gateway: Some(gateway.into()), ..Route::default() })?;
        Ok(space.netns.run(|| packet::ethtool_offloads(name, false))??)
    };
    configure().with_context(|| format!("{name} of {}", space.name))
}
