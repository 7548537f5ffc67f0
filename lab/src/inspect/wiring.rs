//! The links of the whole lab, and what each hangs at: the other end of a pair, the bridge it is a port of, the link below.
//!
//! The kernel numbers other namespaces by numbers of its own; here the other end is the one whose numbers answer in the
//! namespace that may hold it: a pod's is on its node, a node's on its rack or the fabric.

use std::collections::HashMap;

use anyhow::Context;
use kernel::link::{self, Link};
use kernel::{Rtnl, addr};
use serde_json::{Value, json};

use crate::cluster::{Cluster, Space};
use crate::fabric::UPLINK;

/// The driver has signalled that it can send (linux/if.h).
const IFF_LOWER_UP: u32 = 1 << 16;

/// The links of a namespace, as they were read.
struct Found<'c> {
    space: &'c Space,
    links: Vec<Link>,
    addresses: Vec<addr::Address>,
}

/// Every link but the loopbacks, in the order of [`Cluster::spaces`] and then of the kernel.
///
/// # Errors
/// The kernel's words.
pub(super) fn links(cluster: &Cluster) -> anyhow::Result<Vec<Value>> {
    let found = cluster.spaces().map(read).collect::<anyhow::Result<Vec<Found<'_>>>>()?;
    let numbers: HashMap<&str, usize> = found.iter().map(|it| it.space.name.as_str()).zip(0..).collect();
    let pairs = pairs(cluster, &found, &numbers);
    let mut all = Vec::new();
    for (number, it) in found.iter().enumerate() {
        let name = |index: u32| it.links.iter().find(|link| link.index == index).map(|link| &link.name);
        for link in it.links.iter().filter(|link| !is_loopback(link)) {
            let below = link.link.filter(|_| link.kind.as_deref() != Some("veth")).and_then(|index| {
                match link.link_netnsid {
                    None => name(index).map(|below| format!("{}/{below}", it.space.name)),
                    // A macvlan of a pod lies on a link of its node.
                    Some(_) => below(cluster, &found, &numbers, it.space, index),
                }
            });
            let own = it.addresses.iter().filter(|address| address.index == link.index);
            all.push(json!({
                "place": it.space.name,
                "name": link.name,
                "kind": link.kind,
                "mac": link.mac.map(|mac| mac.to_string()),
                "mtu": link.mtu,
                "up": link.up,
                "state": state(link),
                "master": link.master.and_then(name),
                "peer": pairs.get(&(number, link.index)),
                "below": below,
                "addresses": own.map(|address| address.net.to_string()).collect::<Vec<_>>(),
            }));
        }
    }
    Ok(all)
}

fn read(space: &Space) -> anyhow::Result<Found<'_>> {
    let read = || -> kernel::Result<Found<'_>> {
        let mut rtnl = Rtnl::open_in(&space.netns)?;
        Ok(Found { space, links: link::list(&mut rtnl)?, addresses: addr::list(&mut rtnl, None)? })
    };
    read().with_context(|| format!("links of {}", space.name))
}

fn is_loopback(link: &Link) -> bool {
    link.flags & (nix::libc::IFF_LOOPBACK as u32) != 0
}

/// The other end of every pair, by the number of the namespace and the link's own.
fn pairs(
    cluster: &Cluster,
    found: &[Found<'_>],
    numbers: &HashMap<&str, usize>,
) -> HashMap<(usize, u32), String> {
    let mut all = HashMap::new();
    let mut join = |near: (usize, &Link), far: (usize, &Link)| {
        let at = |(number, link): (usize, &Link)| format!("{}/{}", found[number].space.name, link.name);
        all.insert((near.0, near.1.index), at(far));
        all.insert((far.0, far.1.index), at(near));
    };
    let is_veth = |link: &&Link| link.kind.as_deref() == Some("veth") && link.link_netnsid.is_some();
    let answers = |near: &Link, far: &&Link| {
        is_veth(far) && far.link == Some(near.index) && near.link == Some(far.index)
    };
    // Upwards only, so that every pair has one way to be found. A wire has at its upper end the name of the place below.
    for (number, it) in found.iter().enumerate() {
        let name = it.space.name.as_str();
        let above = above(cluster, name).and_then(|above| numbers.get(above)).copied();
        let Some(above) = above else { continue };
        let is_pod = cluster.pod(name).is_some();
        for link in it.links.iter().filter(is_veth) {
            let is_end = |far: &&Link| {
                let named = cluster.host(name).map_or(name, |host| &host.wan);
                answers(link, far) && (is_pod && far.name != UPLINK || !is_pod && far.name == named)
            };
            if let Some(far) = found[above].links.iter().find(is_end) {
                join((number, link), (above, far));
            }
        }
    }
    all
}

/// The place that a place's wire leads to.
fn above<'c>(cluster: &'c Cluster, name: &str) -> Option<&'c str> {
    let fabric = cluster.fabric.name.as_str();
    if let Some(pod) = cluster.pod(name) {
        return Some(&cluster.nodes[pod.node].space.name);
    }
    if let Some(node) = cluster.nodes.iter().find(|node| node.space.name == name) {
        return Some(cluster.racks.get(node.rack).map_or(fabric, |rack| &rack.name));
    }
    (name != fabric).then_some(fabric)
}

/// The link of that number in the place above.
fn below(
    cluster: &Cluster,
    found: &[Found<'_>],
    numbers: &HashMap<&str, usize>,
    space: &Space,
    index: u32,
) -> Option<String> {
    let above = above(cluster, &space.name)?;
    let links = &found[*numbers.get(above)?].links;
    let link = links.iter().find(|link| link.index == index)?;
    Some(format!("{above}/{}", link.name))
}

/// Whether frames go through, in the kernel's words for operational states; from the link's flags, which are right at once. The
/// operational state itself follows them a moment later (net/core/link_watch.c), so a link that works is told as down for a while.
pub(super) fn state(link: &Link) -> &'static str {
    match (link.up, link.flags & IFF_LOWER_UP != 0) {
        (false, _) => "down",
        (true, false) => "lowerlayerdown",
        (true, true) => "up",
    }
}
