//! Neighbours: MAC addresses that are somebody else's, or nobody's.

use anyhow::{Context, Result, bail};
use kernel::link::{self, Change};
use kernel::{Mac, Rtnl, neigh};

use super::addresses::asked_anew;
use super::{Act, Fault, always};
use crate::breaking::{Work, unless_gone};
use crate::cluster::{Cluster, Node, Pod, Space};
use crate::fabric::UPLINK;
use crate::look::{address_of_node, link_of};

/// The faults.
pub(super) const FAULTS: &[Fault] = &[
    Fault {
        id: "dup-mac",
        does: "another pod of the node has a pod's MAC address",
        seen: "the two do not reach each other, and the bridge finds their one MAC now here, now there",
        amount: None,
        unless: always,
        act: Act::Pods(dup_mac),
    },
    Fault {
        id: "bad-neigh",
        does: "a node has a permanent, wrong MAC address for another node",
        seen: "packets leave the node and nobody takes them; no ARP is ever asked",
        amount: None,
        unless: always,
        act: Act::Nodes(bad_neigh),
    },
];

/// Locally administered and nobody's.
const NOBODY: Mac = Mac([0x02, 0x00, 0x00, 0xff, 0xde, 0xad]);

fn dup_mac(work: &mut Work<'_>, cluster: &Cluster, pod: &Pod, other: &Pod) -> Result<()> {
    let taken = link_of(&pod.space, &pod.ifname)?.mac.context("no MAC address to take")?;
    let link = link_of(&other.space, &other.ifname)?;
    let own = link.mac.context("no MAC address to change")?;
    let set = |space: &Space, index: u32, mac: Mac| -> Result<()> {
        let change = Change { mac: Some(mac), ..Change::default() };
        Ok(link::set(&mut Rtnl::open_in(&space.netns)?, index, &change)?)
    };
    for pod in [pod, other] {
        for address in pod.addresses.iter() {
            asked_anew(work, cluster, *address)?;
        }
    }
    let index = link.index;
    let change = |space: &Space| set(space, index, taken);
    let what = format!("MAC of {}", other.ifname);
    work.change_in(&other.space, what, change, move |space, ()| set(space, index, own))
}

fn bad_neigh(work: &mut Work<'_>, _: &Cluster, near: &Node, far: &Node) -> Result<()> {
    if near.rack != far.rack {
        bail!("{} and {} are not on one link", near.space.name, far.space.name);
    }
    let index = link_of(&near.space, UPLINK)?.index;
    let address = address_of_node(far, work.family())?;
    let change = |space: &Space| {
        let mut rtnl = Rtnl::open_in(&space.netns)?;
        let is_it = |entry: &neigh::Neigh| entry.index == index && entry.addr == address;
        let entry = neigh::list(&mut rtnl)?.into_iter().find(is_it);
        neigh::replace_permanent(&mut rtnl, index, address, NOBODY)?;
        Ok(entry.filter(|entry| entry.state_word() == "permanent").and_then(|entry| entry.mac))
    };
    work.change_in(&near.space, format!("neighbour {address}"), change, move |space, was| {
        let mut rtnl = Rtnl::open_in(&space.netns)?;
        match was {
            Some(mac) => Ok(neigh::replace_permanent(&mut rtnl, index, address, *mac)?),
            None => unless_gone(neigh::delete(&mut rtnl, index, address)),
        }
    })
}
