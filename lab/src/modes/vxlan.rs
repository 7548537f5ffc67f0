//! VXLAN, as Flannel: each node packs what goes to another node's pods into UDP datagrams to that node. Nobody asks and
//! nobody learns: for each peer there is a permanent neighbour, a forwarding entry and a route. The fabric knows nothing
//! of pods but for packets from outside. Packets of each IP version go over that version, in a tunnel of its own.

use std::net::IpAddr;

use anyhow::{Context, Result};
use ipnetwork::IpNetwork;
use kernel::addr;
use kernel::link::{self, LinkKind, NewLink};
use kernel::route::{self, Route};
use kernel::{Family, Mac, Netns, Rtnl, neigh};

use super::{Ground, Mode, Routers, Siblings, Tunnel, WIRE_MTU, Wire, bridge};
use crate::cluster::Node;
use crate::fabric;
use crate::topology::{Topology, mac};

/// Flannel's names and numbers.
const DEVICE: &str = "flannel.1";
const DEVICE_V6: &str = "flannel-v6.1";
const VNI: u32 = 1;
const PORT: u16 = 8472;
/// Ethernet, IPv4, UDP and VXLAN headers around a frame; the frame's own Ethernet header counts to the inner packet's.
const OVERHEAD: usize = 50;
/// The same with IPv6, whose header has 20 bytes more.
const OVERHEAD_V6: usize = OVERHEAD + 20;
/// Flannel's DirectRouting.
const DIRECT: &str = "direct";

/// The mode.
pub(super) struct Vxlan;
pub(super) const MODE: Vxlan = Vxlan;

impl Mode for Vxlan {
    fn summary(&self) -> &'static str {
        "packed into UDP from node to node, as Flannel; MTU 1450, with IPv6 1430"
    }

    fn options(&self) -> &'static [(&'static str, &'static str)] {
        &[(DIRECT, "to nodes on the same link by a route instead, as Flannel's DirectRouting")]
    }

    fn require(&self, _option: Option<&str>) -> Result<()> {
        let kind = LinkKind::Vxlan { vni: VNI, local: [127, 0, 0, 1].into(), port: PORT };
        Ok(link::require(&mut Rtnl::open_in(&Netns::create()?)?, &kind)?)
    }

    fn network(&self, _option: Option<&str>, ip_masq: bool, families: &[Family]) -> Option<String> {
        // A pod has one link for both versions.
        let mtu = families.iter().map(|family| mtu(*family)).min();
        Some(bridge(ip_masq, mtu, families))
    }

    fn routers(&self, _option: Option<&str>, _topology: &Topology) -> Routers {
        Routers::FromOutside
    }

    fn prepare(&self, option: Option<&str>, ground: &Ground<'_>) -> Result<()> {
        for (index, node) in ground.nodes.iter().enumerate() {
            let mut rtnl = Rtnl::open_in(&node.space.netns)?;
            let prepare = |rtnl: &mut Rtnl| -> Result<()> {
                for family in ground.topology.ranges.pods.families() {
                    let Some(address) = node.address.of(family) else { continue };
                    let device = add_device(rtnl, index, node, address)?;
                    for (number, peer) in fabric::peers(ground, node) {
                        let ends = peer.pod_cidr.of(family).zip(peer.address.of(family));
                        let Some((pods, far)) = ends else { continue };
                        if is_direct(option, node, peer) {
                            fabric::add_route(rtnl, pods, far)?;
                        } else {
                            add_peer(rtnl, device, number, (pods, far))?;
                        }
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

    fn wire(&self, option: Option<&str>, near: &Node, far: &Node, family: Family) -> Wire {
        match is_direct(option, near, far) {
            true => Wire::Plain,
            false => Wire::Tunnel(Tunnel { device: device(family), vni: VNI, port: PORT }),
        }
    }
}

fn is_direct(option: Option<&str>, near: &Node, far: &Node) -> bool {
    option == Some(DIRECT) && near.rack == far.rack
}

fn device(family: Family) -> &'static str {
    match family {
        Family::V4 => DEVICE,
        Family::V6 => DEVICE_V6,
    }
}

fn mtu(family: Family) -> usize {
    match family {
        Family::V4 => WIRE_MTU - OVERHEAD,
        Family::V6 => WIRE_MTU - OVERHEAD_V6,
    }
}

/// The address of a node's end of the tunnel: the first of its PodCIDR, which no pod gets.
fn end(pods: IpNetwork) -> IpAddr {
    pods.network()
}

fn end_mac(index: usize) -> Mac {
    mac(0x1c, index + 1)
}

/// The device that packs and unpacks what goes over `local`; returns its index.
fn add_device(rtnl: &mut Rtnl, index: usize, node: &Node, local: IpAddr) -> Result<u32> {
    let family = Family::of(local);
    let name = device(family);
    let kind = LinkKind::Vxlan { vni: VNI, local, port: PORT };
    let wanted =
        NewLink { mac: Some(end_mac(index)), mtu: mtu(family) as u32, up: true, ..NewLink::new(name, kind) };
    link::add(rtnl, &wanted)?;
    let device = link::by_name(rtnl, name)?.index;
    if let Some(pods) = node.pod_cidr.of(family) {
        addr::add(rtnl, device, IpNetwork::from(end(pods)), &fabric::NODAD)?;
    }
    Ok(device)
}

/// In Flannel's order: what the route needs is there before it, so the kernel never asks for a neighbour.
fn add_peer(rtnl: &mut Rtnl, device: u32, number: usize, (pods, far): (IpNetwork, IpAddr)) -> Result<()> {
    neigh::add_permanent(rtnl, device, end(pods), end_mac(number))?;
    neigh::add_fdb(rtnl, device, end_mac(number), far)?;
    let route = Route {
        dst: Some(pods),
        gateway: Some(end(pods)),
        oif: Some(device),
        onlink: true,
        ..Route::default()
    };
    Ok(route::add(rtnl, &route)?)
}
