//! Tunnels: the wrong network's number, a peer that is not known, a port that is closed.

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use kernel::nft::{ChainKind, Hook, Op, Point, Rule, Table, priority};
use kernel::{Mac, Rtnl, neigh};

use super::firewall::{add_table, of_ip};
use super::{Act, Fault, not_in_mode};
use crate::breaking::{Work, unless_gone, unless_there};
use crate::cluster::{Cluster, Node, Space};
use crate::exit::Failure;
use crate::look::{address_of_node, link_of};
use crate::modes::{Tunnel, Wire};
use crate::services::model::Transport;

/// The faults.
pub(super) const FAULTS: &[Fault] = &[
    Fault {
        id: "vxlan-vni",
        does: "a node packs what goes to another one into another network (VNI)",
        seen: "datagrams arrive at the other node, and nobody unpacks them",
        amount: None,
        unless: tunnelled,
        act: Act::Nodes(vni),
    },
    Fault {
        id: "vxlan-fdb",
        does: "a node's tunnel does not know where another node is",
        seen: "packets go into the tunnel's link and no datagram comes out",
        amount: None,
        unless: tunnelled,
        act: Act::Nodes(fdb),
    },
    Fault {
        id: "vxlan-port-blocked",
        does: "a node's firewall drops the tunnel's UDP port",
        seen: "datagrams arrive at the node, and nothing comes out of its tunnel",
        amount: None,
        unless: tunnelled,
        act: Act::Node(port_blocked),
    },
];

fn tunnelled(cluster: &Cluster) -> Result<(), Failure> {
    match some_tunnel(cluster) {
        Some(_) => Ok(()),
        None => Err(not_in_mode(cluster, "no tunnel between its nodes · try: podlab up --mode vxlan")),
    }
}

fn some_tunnel(cluster: &Cluster) -> Option<Tunnel> {
    let pairs = cluster.nodes.iter().flat_map(|near| cluster.nodes.iter().map(move |far| (near, far)));
    pairs
        .filter(|(near, far)| near.address != far.address)
        .find_map(|(near, far)| cluster.families().find_map(|family| tunnel(cluster, near, far, family)))
}

fn tunnel(cluster: &Cluster, near: &Node, far: &Node, family: kernel::Family) -> Option<Tunnel> {
    match cluster.mode.wire(near, far, family) {
        Wire::Tunnel(tunnel) => Some(tunnel),
        Wire::Plain | Wire::Sealed { .. } => None,
    }
}

/// The tunnel between two nodes, its link on the near one, and the MAC that leads to the far one.
fn entry(cluster: &Cluster, near: &Node, far: &Node, dst: IpAddr) -> Result<(Tunnel, u32, Mac)> {
    let none = || format!("no tunnel from {} to {}", near.space.name, far.space.name);
    let tunnel = tunnel(cluster, near, far, kernel::Family::of(dst)).with_context(none)?;
    let index = link_of(&near.space, tunnel.device)?.index;
    let entries = neigh::fdb(&mut Rtnl::open_in(&near.space.netns)?)?;
    let to_far = |entry: &&neigh::FdbEntry| entry.index == index && entry.dst == Some(dst);
    let unknown = || format!("{} does not know {}", tunnel.device, dst);
    let mac = entries.iter().find(to_far).map(|entry| entry.mac).with_context(unknown)?;
    Ok((tunnel, index, mac))
}

fn vni(work: &mut Work<'_>, cluster: &Cluster, near: &Node, far: &Node) -> Result<()> {
    let dst = address_of_node(far, work.family())?;
    let (tunnel, index, mac) = entry(cluster, near, far, dst)?;
    let wrong = tunnel.vni + 1;
    let change = |space: &Space| {
        let mut rtnl = Rtnl::open_in(&space.netns)?;
        neigh::delete_fdb(&mut rtnl, index, mac, dst, None)?;
        let changed = neigh::add_fdb_in(&mut rtnl, index, mac, dst, wrong);
        if let Err(err) = changed {
            neigh::add_fdb(&mut rtnl, index, mac, dst)?;
            bail!(err);
        }
        Ok(())
    };
    work.change_in(&near.space, format!("forwarding entry {mac}"), change, move |space, ()| {
        let mut rtnl = Rtnl::open_in(&space.netns)?;
        unless_gone(neigh::delete_fdb(&mut rtnl, index, mac, dst, Some(wrong)))?;
        unless_there(neigh::add_fdb(&mut rtnl, index, mac, dst))
    })
}

fn fdb(work: &mut Work<'_>, cluster: &Cluster, near: &Node, far: &Node) -> Result<()> {
    let dst = address_of_node(far, work.family())?;
    let (_, index, mac) = entry(cluster, near, far, dst)?;
    let change =
        |space: &Space| Ok(neigh::delete_fdb(&mut Rtnl::open_in(&space.netns)?, index, mac, dst, None)?);
    work.change_in(&near.space, format!("forwarding entry {mac}"), change, move |space, ()| {
        unless_there(neigh::add_fdb(&mut Rtnl::open_in(&space.netns)?, index, mac, dst))
    })
}

fn port_blocked(work: &mut Work<'_>, cluster: &Cluster, node: &Node) -> Result<()> {
    let port = some_tunnel(cluster).context("no tunnel")?.port;
    let hook = Hook::new(ChainKind::Filter, Point::Input, priority::FILTER);
    let rule = Rule::new().l4proto(Transport::Udp.number()).dport(Op::Eq, port).drop();
    add_table(work, &node.space, Table::new(of_ip(work.family()), "guard"), ("input", &hook), &rule)
}
