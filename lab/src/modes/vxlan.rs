//! VXLAN, as Flannel: each node packs what goes to another node's pods into UDP datagrams to that node. Nobody asks and
//! nobody learns: for each peer there is a permanent neighbour, a forwarding entry and a route. The fabric knows nothing
//! of pods but for packets from outside.

use std::net::IpAddr;

use anyhow::{Context, Result};
use ipnetwork::{IpNetwork, Ipv4Network};
use kernel::addr::{self, AddrOptions};
use kernel::link::{self, LinkKind, NewLink};
use kernel::route::{self, Route};
use kernel::{Mac, Netns, Rtnl, neigh};

use super::{Ground, Mode, Routers, Siblings, Tunnel, WIRE_MTU, Wire, bridge};
use crate::cluster::Node;
use crate::fabric;
use crate::topology::{Topology, mac};

/// Flannel's names and numbers.
const DEVICE: &str = "flannel.1";
const VNI: u32 = 1;
const PORT: u16 = 8472;
/// Ethernet, IPv4, UDP and VXLAN headers around a frame; the frame's own Ethernet header counts to the inner packet's.
const OVERHEAD: usize = 50;
/// Flannel's DirectRouting.
const DIRECT: &str = "direct";

/// The mode.
pub(super) struct Vxlan;
pub(super) const MODE: Vxlan = Vxlan;

impl Mode for Vxlan {
    fn summary(&self) -> &'static str {
        "packed into UDP from node to node, as Flannel; MTU 1450"
    }

    fn options(&self) -> &'static [(&'static str, &'static str)] {
        &[(DIRECT, "to nodes on the same link by a route instead, as Flannel's DirectRouting")]
    }

    fn require(&self, _option: Option<&str>) -> Result<()> {
        let kind = LinkKind::Vxlan { vni: VNI, local: [127, 0, 0, 1].into(), port: PORT };
        Ok(link::require(&mut Rtnl::open_in(&Netns::create()?)?, &kind)?)
    }

    fn network(&self, _option: Option<&str>, ip_masq: bool) -> Option<String> {
        Some(bridge(ip_masq, Some(WIRE_MTU - OVERHEAD)))
    }

    fn routers(&self, _option: Option<&str>, _topology: &Topology) -> Routers {
        Routers::FromOutside
    }

    fn prepare(&self, option: Option<&str>, ground: &Ground<'_>) -> Result<()> {
        for (index, node) in ground.nodes.iter().enumerate() {
            let mut rtnl = Rtnl::open_in(&node.space.netns)?;
            let prepare = |rtnl: &mut Rtnl| -> Result<()> {
                let device = add_device(rtnl, index, node)?;
                for (number, peer) in fabric::peers(ground, node) {
                    if is_direct(option, node, peer) {
                        fabric::add_route(rtnl, peer.pod_cidr, peer.address)?;
                    } else {
                        add_peer(rtnl, device, number, peer)?;
                    }
                }
                Ok(())
            };
            prepare(&mut rtnl).with_context(|| node.space.name.clone())?;
        }
        Ok(())
    }

    fn siblings(&self) -> Siblings {
        Siblings::Switched
    }

    fn wire(&self, option: Option<&str>, near: &Node, far: &Node) -> Wire {
        match is_direct(option, near, far) {
            true => Wire::Plain,
            false => Wire::Tunnel(Tunnel { device: DEVICE, vni: VNI, port: PORT }),
        }
    }
}

fn is_direct(option: Option<&str>, near: &Node, far: &Node) -> bool {
    option == Some(DIRECT) && near.rack == far.rack
}

/// The address of a node's end of the tunnel: the first of its PodCIDR, which no pod gets.
fn end(node: &Node) -> IpAddr {
    node.pod_cidr.network().into()
}

fn end_mac(index: usize) -> Mac {
    mac(0x1c, index + 1)
}

/// The device that packs and unpacks; returns its index.
fn add_device(rtnl: &mut Rtnl, index: usize, node: &Node) -> Result<u32> {
    let kind = LinkKind::Vxlan { vni: VNI, local: node.address, port: PORT };
    let wanted = NewLink {
        mac: Some(end_mac(index)),
        mtu: (WIRE_MTU - OVERHEAD) as u32,
        up: true,
        ..NewLink::new(DEVICE, kind)
    };
    link::add(rtnl, &wanted)?;
    let device = link::by_name(rtnl, DEVICE)?.index;
    addr::add(rtnl, device, IpNetwork::from(end(node)), &AddrOptions::default())?;
    Ok(device)
}

/// In Flannel's order: what the route needs is there before it, so the kernel never asks for a neighbour.
fn add_peer(rtnl: &mut Rtnl, device: u32, number: usize, peer: &Node) -> Result<()> {
    neigh::add_permanent(rtnl, device, end(peer), end_mac(number))?;
    neigh::add_fdb(rtnl, device, end_mac(number), peer.address.into())?;
    let pods = Ipv4Network::new(peer.pod_cidr.network(), peer.pod_cidr.prefix())?;
    let route = Route {
        dst: Some(IpNetwork::V4(pods)),
        gateway: Some(end(peer)),
        oif: Some(device),
        onlink: true,
        ..Route::default()
    };
    Ok(route::add(rtnl, &route)?)
}
