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
//! Each of several hosts outside has a wire of its own, wan0, wan1 and so on, and reaches the others by the fabric.
//! What nodes and routers know of pods is the mode's affair; here are links, addresses, default routes, and the routes
//! to PodCIDRs that [`Routers`] asks for.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ipnetwork::IpNetwork;
use kernel::addr::{self, AddrOptions};
use kernel::link::{self, Bridge, Change, Veth};
use kernel::route::{self, Route};
use kernel::rule::{self, Rule};
use kernel::{Family, Mac, Rtnl, packet, sysctl};

use crate::cluster::{Node, Space};
use crate::modes::{Ground, Routers};
use crate::stack::{Each, Versioned};
use crate::topology::{host, mac};

/// The link of a node, and of the host outside, to the fabric.
pub const UPLINK: &str = "eth0";
/// The bridge of a rack, or of the fabric where there is one rack.
pub const SWITCH: &str = "lan0";
/// What the fabric's links to hosts outside begin with; a number follows.
const WANS: &str = "wan";
/// A rack's link to the fabric.
pub const RACK_UPLINK: &str = "up0";
/// The routes to pods for packets from outside.
pub(crate) const INGRESS_TABLE: u32 = 100;
/// Addresses that are known to be nobody else's are of use at once.
pub const NODAD: AddrOptions =
    AddrOptions { nodad: true, optimistic: false, noprefixroute: false, scope: None };
/// `RT_SCOPE_LINK` (linux/rtnetlink.h): what is at the other end of a wire.
const SCOPE_LINK: u8 = 253;
/// How long a wire may take to carry frames.
const WIRE_LIMIT: Duration = Duration::from_secs(5);

/// Wires, addresses, routes and forwarding of the fabric, the nodes and outside.
///
/// # Errors
/// What failed, where.
pub fn wire(ground: &Ground<'_>, outside: &[Space]) -> Result<()> {
    let mut rtnl = Rtnl::open_in(&ground.fabric.netns)?;
    let net = ground.topology.outside_net();
    let routers = ground.topology.mode.routers(ground.topology);
    let mut ports = Vec::new();
    for (index, space) in outside.iter().enumerate() {
        ports.push(add_host(&mut rtnl, ground, index, space, outside.len() == 1)?);
    }
    if ground.racks.is_empty() {
        ports.extend(add_switch(&mut rtnl, ground, 0, ground.fabric)?);
    }
    for (rack, space) in ground.racks.iter().enumerate() {
        ports.push(add_rack(&mut rtnl, ground, rack, space, routers)?);
    }
    let routing = [ground.fabric].into_iter().chain(ground.racks);
    for space in routing.chain(ground.nodes.iter().map(|node| &node.space)) {
        for family in net.families() {
            let enable = || sysctl::ensure(forwarding(family), "1");
            space.netns.run(enable)?.with_context(|| format!("forwarding of {}", space.name))?;
        }
    }
    wait_for(&mut rtnl, &ports)?;
    if net.families().any(|family| family == Family::V6) {
        let racks = ground.racks.iter().map(|rack| (rack, RACK_UPLINK));
        let nodes = ground.nodes.iter().map(|node| (&node.space, UPLINK));
        for (space, name) in racks.chain(nodes).chain(outside.iter().map(|host| (host, UPLINK))) {
            settle(space, name).with_context(|| format!("{name} of {}", space.name))?;
        }
    }
    Ok(())
}

/// The fabric's link to the host outside with that number, from 0.
pub fn wan(index: usize) -> String {
    format!("{WANS}{index}")
}

/// A link of the fabric of that name leads outside.
pub fn is_wan(name: &str) -> bool {
    let number = name.strip_prefix(WANS).unwrap_or_default();
    !number.is_empty() && number.chars().all(|c| c.is_ascii_digit())
}

/// A host outside and its wire. Where there are several they have addresses of one network without being on one link, so
/// each has routes to the router only, and the router has one to each. Returns the fabric's port.
fn add_host(
    rtnl: &mut Rtnl,
    ground: &Ground<'_>,
    index: usize,
    space: &Space,
    is_alone: bool,
) -> Result<u32> {
    let (name, net) = (wan(index), ground.topology.outside_net());
    let macs = (mac(0xfa, 2 + (index << 8)), mac(0x0f, 9 + index));
    let port = plug(rtnl, &name, None, macs, space, UPLINK)?;
    let router = net.map(|net| host(net, 1));
    let own = ground.topology.outside[index].address;
    let to = |rtnl: &mut Rtnl, link: u32, address: IpAddr| {
        let dst = Some(IpNetwork::from(address));
        let scope = address.is_ipv4().then_some(SCOPE_LINK);
        route::add(rtnl, &Route { dst, oif: Some(link), scope, ..Route::default() })
    };
    if is_alone {
        add_addresses(rtnl, port, router, net).context("fabric")?;
        attach(space, UPLINK, own, net, router)?;
    } else {
        let add = |rtnl: &mut Rtnl, link, address: IpAddr, net: IpNetwork| -> Result<()> {
            let options = AddrOptions { noprefixroute: true, ..NODAD };
            Ok(addr::add(rtnl, link, IpNetwork::new(address, net.prefix())?, &options)?)
        };
        for (net, (router, own)) in net.iter().zip(router.iter().zip(own.iter())) {
            add(rtnl, port, router, net).context("fabric")?;
            to(rtnl, port, own).context("fabric")?;
        }
        let configure = || -> Result<()> {
            let mut inside = Rtnl::open_in(&space.netns)?;
            let link = link::by_name(&mut inside, UPLINK)?.index;
            for (net, own) in net.iter().zip(own.iter()) {
                add(&mut inside, link, own, net)?;
            }
            link::set(&mut inside, link, &Change { up: Some(true), ..Change::default() })?;
            router.iter().try_for_each(|router| to(&mut inside, link, router))?;
            Ok(())
        };
        configure().with_context(|| format!("{UPLINK} of {}", space.name))?;
        finish(space, UPLINK, router)?;
    }
    // In every mode: services have their ways in there too.
    for family in net.families() {
        rule::add(rtnl, &to_ingress_table(family, Some(name.clone()), None)).context("fabric")?;
    }
    Ok(port)
}

/// IPv6 begins to use a link only when the kernel has worked off the news that it carries frames ([`carries`]), which it
/// leaves for later where nobody asks.
fn settle(space: &Space, name: &str) -> Result<()> {
    let mut rtnl = Rtnl::open_in(&space.netns)?;
    let index = link::by_name(&mut rtnl, name)?.index;
    wait_for(&mut rtnl, &[index])
}

/// The sysctl by which a namespace is a router.
pub fn forwarding(family: Family) -> &'static str {
    match family {
        Family::V4 => "net/ipv4/ip_forward",
        Family::V6 => "net/ipv6/conf/all/forwarding",
    }
}

fn wait_for(rtnl: &mut Rtnl, ports: &[u32]) -> Result<()> {
    ports.iter().try_for_each(|port| carries(rtnl, *port).with_context(|| format!("wire {port}")))
}

/// Waits until the kernel sends by a link: it tells a link's state some time after the link has changed, and until then it
/// sends nothing (linkwatch, net/core/link_watch.c).
///
/// # Errors
/// It does not in five seconds, or the kernel's words.
pub fn carries(rtnl: &mut Rtnl, link: u32) -> Result<()> {
    match link::wait_oper_up(rtnl, link, WIRE_LIMIT)? {
        true => Ok(()),
        false => bail!("it is up and carries no frames after {} s", WIRE_LIMIT.as_secs()),
    }
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
    let (above, own) = ground.topology.rack_uplink(rack);
    let (over, under) = (above.map(|net| net.ip()), own.map(|net| net.ip()));
    add_addresses(rtnl, port, over, above).context("fabric")?;
    attach(space, RACK_UPLINK, under, own, over)?;
    for (net, via) in ground.topology.rack_net(rack).iter().zip(under.iter()) {
        add_route(rtnl, net, via).context("fabric")?;
    }
    for node in ground.nodes.iter().filter(|node| node.rack == rack) {
        add_pods(rtnl, routers, node.pod_cidr, under).context("fabric")?;
    }

    let mut inside = Rtnl::open_in(&space.netns)?;
    for outside in ground.topology.outside_net().iter().filter(|_| routers == Routers::FromOutside) {
        rule::add(&mut inside, &to_ingress_table(outside.family(), None, Some(outside)))
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
    let router = net.map(|net| host(net, 1));
    add_addresses(rtnl, lan, router, net).with_context(what)?;
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

/// The ways to PodCIDRs, as far as routers are to know them.
fn add_pods(rtnl: &mut Rtnl, routers: Routers, pods: Each<IpNetwork>, via: Each<IpAddr>) -> Result<()> {
    let table = match routers {
        Routers::Know => None,
        Routers::FromOutside => Some(INGRESS_TABLE),
        Routers::Told => return Ok(()),
    };
    for (pods, via) in pods.iter().zip(via.iter()) {
        let route = Route { dst: Some(pods), gateway: Some(via), table, ..Route::default() };
        route::add(rtnl, &route)?;
    }
    Ok(())
}

fn to_ingress_table(family: Family, iif: Option<String>, src: Option<IpNetwork>) -> Rule {
    Rule {
        family,
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
            for (pods, via) in peer.pod_cidr.iter().zip(peer.address.iter()) {
                add_route(&mut rtnl, pods, via).with_context(|| node.space.name.clone())?;
            }
        }
    }
    Ok(())
}

/// Adds a route by a gateway.
///
/// # Errors
/// The kernel's words.
pub fn add_route(rtnl: &mut Rtnl, to: IpNetwork, via: IpAddr) -> Result<()> {
    let route = Route { dst: Some(to), gateway: Some(via), ..Route::default() };
    Ok(route::add(rtnl, &route)?)
}

/// A link's addresses, with the prefixes of its networks.
fn add_addresses(rtnl: &mut Rtnl, link: u32, own: Each<IpAddr>, nets: Each<IpNetwork>) -> Result<()> {
    for (address, net) in own.iter().zip(nets.iter()) {
        addr::add(rtnl, link, IpNetwork::new(address, net.prefix())?, &NODAD)?;
    }
    Ok(())
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

/// A link of `space` gets its addresses and its default routes.
fn attach(
    space: &Space,
    name: &str,
    own: Each<IpAddr>,
    nets: Each<IpNetwork>,
    gateways: Each<IpAddr>,
) -> Result<()> {
    let configure = || -> Result<()> {
        let mut rtnl = Rtnl::open_in(&space.netns)?;
        let link = link::by_name(&mut rtnl, name)?.index;
        add_addresses(&mut rtnl, link, own, nets)?;
        Ok(link::set(&mut rtnl, link, &Change { up: Some(true), ..Change::default() })?)
    };
    configure().with_context(|| format!("{name} of {}", space.name))?;
    finish(space, name, gateways)
}

/// Default routes of `space`. Segmentation is off, so that a capture shows the packets that a real wire would carry.
fn finish(space: &Space, name: &str, gateways: Each<IpAddr>) -> Result<()> {
    let configure = || -> Result<()> {
        let mut rtnl = Rtnl::open_in(&space.netns)?;
        for gateway in gateways.iter() {
            route::add(&mut rtnl, &Route { gateway: Some(gateway), ..Route::default() })?;
        }
        Ok(space.netns.run(|| packet::ethtool_offloads(name, false))??)
    };
    configure().with_context(|| format!("{name} of {}", space.name))
}
