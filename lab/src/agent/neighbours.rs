//! Neighbours that every pod needs, made permanent where a lab has many pods.
//!
//! The kernel keeps at most 1024 neighbours that come and go (net.ipv4.neigh.default.gc_thresh3), and this one table serves
//! all namespaces of a machine: from some 500 pods on, each of which knows its gateway and is known to it, packets are
//! lost for want of an entry. Permanent entries are not counted (net/core/neighbour.c, `exempt_from_gc`).
//!
//! Pods of one node still ask for each other, and a bridge copies each question to every port: all copies wait in one queue of
//! the processor, which has room for 1000 (net.core.netdev_max_backlog, of the machine), and the first pods of a full bridge
//! hear nothing. So the bridge of a node with many pods answers for them, by those neighbours and by forwarding entries that
//! stay.

use std::net::IpAddr;

use anyhow::{Context, Result};
use kernel::{Mac, Netns, Rtnl, link, neigh};
use serde_json::Value;

use crate::construct::{IFNAME, netns_path};

/// From so many pods on a machine the neighbours are permanent.
const MANY: usize = 256;
/// From so many pods on a node its bridge answers for them.
const MANY_PORTS: usize = 256;

/// Who is at the other end of a pod's wire, by the result of its ADD.
struct Ends<'r> {
    pod: Mac,
    node: (&'r str, Mac),
    /// The bridge's port, where `node` is a bridge.
    port: Option<&'r str>,
    addresses: Vec<(IpAddr, IpAddr)>,
}

impl<'r> Ends<'r> {
    /// None where a pod has no gateway on its node, as with macvlan.
    fn of(result: &'r Value) -> Option<Self> {
        let interfaces = result["interfaces"].as_array()?;
        let inside = |one: &&Value| one["sandbox"].as_str().is_some_and(|path| !path.is_empty());
        let mac = |one: &Value| one["mac"].as_str()?.parse().ok();
        let pod = interfaces.iter().find(|one| inside(one) && one["name"] == IFNAME)?;
        let mut outside = interfaces.iter().filter(|one| !inside(one));
        let node = outside.next()?;
        let ip = |text: &Value| text.as_str()?.split('/').next()?.parse().ok();
        let ips = result["ips"].as_array()?.iter();
        Some(Ends {
            pod: mac(pod)?,
            node: (node["name"].as_str()?, mac(node)?),
            port: outside.next().and_then(|one| one["name"].as_str()),
            addresses: ips.filter_map(|one| Some((ip(&one["address"])?, ip(&one["gateway"])?))).collect(),
        })
    }
}

/// Lets the pods, by name and result, and their node know each other for good, where a lab has `all` pods.
///
/// # Errors
/// A pod's or the node's link is not there, or the kernel's words.
pub(super) fn settle(pods: &[(String, Value)], all: usize) -> Result<()> {
    if all < MANY {
        return Ok(());
    }
    let mut node = Rtnl::open()?;
    for (name, result) in pods {
        let Some(ends) = Ends::of(result) else { continue };
        let about = || format!("permanent neighbours of pod {name} and its node");
        let there = link::by_name(&mut node, ends.node.0).with_context(about)?;
        if let Some(port) = ends.port.filter(|_| pods.len() >= MANY_PORTS) {
            let port = link::by_name(&mut node, port).with_context(about)?;
            if port.master == Some(there.index) {
                neigh::replace_fdb_of_port(&mut node, port.index, ends.pod).with_context(about)?;
                link::answer_for_port(&mut node, port.index).with_context(about)?;
            }
        }
        let mut pod = Rtnl::open_in(&Netns::open(&netns_path(name))?).with_context(about)?;
        let here = link::by_name(&mut pod, IFNAME).with_context(about)?;
        for (address, gateway) in &ends.addresses {
            for (rtnl, index, ip, mac) in
                [(&mut node, there.index, *address, ends.pod), (&mut pod, here.index, *gateway, ends.node.1)]
            {
                match neigh::add_permanent(rtnl, index, ip, mac) {
                    Err(err) if err.is_exists() => {}
                    done => done.with_context(about)?,
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_ends_of_a_wire_are_read_from_a_result() {
        let result = json!({
            "interfaces": [
                {"name": "cni0", "mac": "02:00:00:00:00:01"},
                {"name": "veth1", "mac": "02:00:00:00:00:02"},
                {"name": "eth0", "mac": "02:00:00:00:00:03", "sandbox": "/run/netns/a"}
            ],
            "ips": [{"address": "10.244.1.2/24", "gateway": "10.244.1.1", "interface": 2}]
        });
        let ends = Ends::of(&result).unwrap();
        assert_eq!(ends.pod.to_string(), "02:00:00:00:00:03");
        assert_eq!(ends.port, Some("veth1"));
        assert_eq!((ends.node.0, ends.node.1.to_string().as_str()), ("cni0", "02:00:00:00:00:01"));
        assert_eq!(ends.addresses, [("10.244.1.2".parse().unwrap(), "10.244.1.1".parse().unwrap())]);
        let alone =
            json!({"interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:03", "sandbox": "/a"}], "ips": []});
        assert!(Ends::of(&alone).is_none());
    }
}
