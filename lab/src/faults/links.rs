//! Links: cables that are pulled, and ports that do not do their part.

use anyhow::{Context, Result, bail};
use kernel::Rtnl;
use kernel::link::{self, Change, Port};

use super::{Act, Fault, always, lacking, not_in_mode};
use crate::breaking::Work;
use crate::cluster::{Cluster, Node, Pod, Space};
use crate::exit::Failure;
use crate::fabric::{UPLINK, carries};
use crate::look::{link_of, restore_routes, routes_of, switch_of, veth_of};
use crate::modes::Siblings;
use crate::services;

/// The faults.
pub(super) const FAULTS: &[Fault] = &[
    Fault {
        id: "link-down",
        does: "the cable of a node's uplink is pulled out of the switch",
        seen: "TIMEOUT of everything that crosses the node's uplink; eth0 of the node has no carrier",
        amount: None,
        unless: always,
        act: Act::Node(link_down),
    },
    Fault {
        id: "veth-down",
        does: "the node's end of a pod's wire is down",
        seen: "the pod reaches nobody and nobody reaches it; its eth0 has no carrier",
        amount: None,
        unless: wired,
        act: Act::Pod(veth_down),
    },
    Fault {
        id: "port-detached",
        does: "the node's end of a pod's wire is no port of the bridge any more",
        seen: "every link is up, and the pod's ARP questions are heard by nobody",
        amount: None,
        unless: bridged,
        act: Act::Pod(port_detached),
    },
    Fault {
        id: "lo-down",
        does: "the loopback interface of a pod is down",
        seen: "the containers of the pod do not reach each other over localhost, all else works",
        amount: None,
        unless: always,
        act: Act::Pod(lo_down),
    },
    Fault {
        id: "hairpin-off",
        does: "a pod's port of the bridge sends nothing back where it came from",
        seen: "a pod behind a service does not reach itself through it, all others do",
        amount: None,
        unless: hairpinned,
        act: Act::Pod(hairpin_off),
    },
];

fn wired(cluster: &Cluster) -> Result<(), Failure> {
    if cluster.mode.on_lan() { Err(not_in_mode(cluster, "no wire between node and pod")) } else { Ok(()) }
}

fn bridged(cluster: &Cluster) -> Result<(), Failure> {
    match cluster.mode.siblings() {
        Siblings::Switched => Ok(()),
        Siblings::Routed | Siblings::Direct => Err(not_in_mode(cluster, "no bridge on its nodes")),
    }
}

/// Where a node routes what a pod sends to a service, the packet comes to the bridge from above and needs no hairpin.
fn hairpinned(cluster: &Cluster) -> Result<(), Failure> {
    bridged(cluster)?;
    let sees = |index| services::view(cluster, index).is_ok_and(|view| view.sees_bridged);
    match (0..cluster.nodes.len()).all(sees) {
        true => Ok(()),
        false => Err(lacking("bridges do not call netfilter here (net.bridge.bridge-nf-call-iptables)")),
    }
}

fn link_down(work: &mut Work<'_>, cluster: &Cluster, node: &Node) -> Result<()> {
    carried_again(work, &node.space, UPLINK)?;
    down(work, switch_of(cluster, node), &node.space.name)
}

fn veth_down(work: &mut Work<'_>, cluster: &Cluster, pod: &Pod) -> Result<()> {
    let veth = veth_of(cluster, pod)?;
    carried_again(work, &pod.space, &pod.ifname)?;
    down(work, &cluster.nodes[pod.node].space, &veth.name)
}

fn lo_down(work: &mut Work<'_>, _: &Cluster, pod: &Pod) -> Result<()> {
    down(work, &pod.space, "lo")
}

/// Takes a link down. The kernel deletes the routes by it, which come back with it.
fn down(work: &mut Work<'_>, space: &Space, name: &str) -> Result<()> {
    let link = link_of(space, name)?;
    if !link.up {
        bail!("{}/{name} is down already", space.name);
    }
    let index = link.index;
    let change = |space: &Space| {
        let routes = routes_of(space)?;
        set_up(space, index, false)?;
        Ok(routes)
    };
    let what = format!("link {name}");
    let name = name.to_owned();
    work.change_in(space, what, change, move |space, routes| {
        set_up(space, link_of(space, &name)?.index, true)?;
        wait_for(space, &name)?;
        restore_routes(space, routes)
    })
}

/// The other end of a link that goes down is waited for when it has come up again.
fn carried_again(work: &mut Work<'_>, space: &Space, name: &str) -> Result<()> {
    let own = name.to_owned();
    work.change_in(space, format!("carrier of {name}"), |_| Ok(()), move |space, ()| wait_for(space, &own))
}

fn wait_for(space: &Space, name: &str) -> Result<()> {
    if name == "lo" {
        return Ok(());
    }
    let index = link_of(space, name)?.index;
    carries(&mut Rtnl::open_in(&space.netns)?, index).with_context(|| format!("{}/{name}", space.name))
}

fn set_up(space: &Space, index: u32, up: bool) -> Result<()> {
    let change = Change { up: Some(up), ..Change::default() };
    Ok(link::set(&mut Rtnl::open_in(&space.netns)?, index, &change)?)
}

fn port_detached(work: &mut Work<'_>, cluster: &Cluster, pod: &Pod) -> Result<()> {
    let veth = veth_of(cluster, pod)?;
    let (master, port) = (veth.master, veth.port.unwrap_or_default());
    let master = master.with_context(|| format!("{} is no port of a bridge", veth.name))?;
    let node = &cluster.nodes[pod.node].space;
    let plug = |space: &Space, name: &str, master: u32| -> Result<()> {
        let index = link_of(space, name)?.index;
        let change = Change { master: Some(master), ..Change::default() };
        Ok(link::set(&mut Rtnl::open_in(&space.netns)?, index, &change)?)
    };
    let name = veth.name.clone();
    let change = |space: &Space| plug(space, &veth.name, 0);
    work.change_in(node, format!("port {}", veth.name), change, move |space, ()| {
        plug(space, &name, master)?;
        set_port(space, &name, &port)
    })
}

fn hairpin_off(work: &mut Work<'_>, cluster: &Cluster, pod: &Pod) -> Result<()> {
    let veth = veth_of(cluster, pod)?;
    let Some(port) = veth.port.filter(|port| port.hairpin) else { bail!("{} sends nothing back", veth.name) };
    let node = &cluster.nodes[pod.node].space;
    let name = veth.name.clone();
    let change = |space: &Space| set_port(space, &veth.name, &Port { hairpin: false, ..port });
    let what = format!("port {}", veth.name);
    work.change_in(node, what, change, move |space, ()| set_port(space, &name, &port))
}

fn set_port(space: &Space, name: &str, port: &Port) -> Result<()> {
    let index = link_of(space, name)?.index;
    Ok(link::set_port(&mut Rtnl::open_in(&space.netns)?, index, port)?)
}
