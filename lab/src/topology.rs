//! The topology: what a lab is to be, complete and checked before anything is made. Names, addresses and MACs follow
//! from it alone, so the same topology gives the same lab every time. How it is written, in a file or on the command
//! line, is in `written`.

mod written;

use std::net::Ipv4Addr;
use std::path::PathBuf;

use ipnetwork::Ipv4Network;
use kernel::Mac;
use serde::{Deserialize, Serialize};

use crate::modes::Selected;
pub use written::{Affinity, App, Cni, OneOrMany, Port, ServiceEntry, Workload, Written};

/// The name that a topology file's `schema` must have.
pub const SCHEMA: &str = "podlab.topology/1";
/// Addresses of the wire between the nodes of a lab with one rack: .1 is the router, node n is .(10 + n).
pub const FABRIC: Ipv4Network = prefix(Ipv4Addr::new(192, 0, 2, 0), 24);
/// The world outside (RFC 5737, TEST-NET-3): .1 is the router, .9 the host.
pub const OUTSIDE: Ipv4Network = prefix(Ipv4Addr::new(203, 0, 113, 0), 24);
/// Most racks: their wires to the fabric share a /24 of /30s.
const MOST_RACKS: u32 = 60;

/// Ports of a Linux bridge (BR_MAX_PORTS, net/bridge/br_private.h, less port 0).
const PORTS: u32 = 1023;
/// Pods on a node that has a /24 for them.
const SMALL: u32 = 250;

/// A prefix that is known to be one.
pub(crate) const fn prefix(ip: Ipv4Addr, length: u8) -> Ipv4Network {
    match Ipv4Network::new_checked(ip, length) {
        Some(net) => net,
        None => panic!("a prefix"),
    }
}

/// The addresses of pods and of services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ranges {
    /// All PodCIDRs; the first one of its size is nobody's.
    pub pods: Ipv4Network,
    /// Addresses of services inside the cluster. No interface has one.
    pub services: Ipv4Network,
}

impl Default for Ranges {
    fn default() -> Self {
        Self {
            pods: prefix(Ipv4Addr::new(10, 244, 0, 0), 16),
            services: prefix(Ipv4Addr::new(10, 96, 0, 0), 16),
        }
    }
}

impl Ranges {
    /// The address of the router of pods that share one subnet.
    pub fn gateway(&self) -> Ipv4Addr {
        numbered(self.pods, 1)
    }

    /// The address of the cluster's DNS.
    pub fn dns(&self) -> Ipv4Addr {
        numbered(self.services, 10)
    }
}

/// The address with that number of a network.
fn numbered(net: Ipv4Network, number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(net.network()) + number)
}

/// The prefix length of a PodCIDR: a /24, or a /21 where a node has more pods than that has room for.
fn pod_prefix(pods: u32) -> u8 {
    if pods <= SMALL { 24 } else { 21 }
}

/// A complete, valid topology.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Topology {
    /// The lab's name.
    pub name: String,
    /// How many nodes, 1 to 200.
    pub nodes: u32,
    /// How many pods on each node, 0 to 1023.
    pub pods: u32,
    /// How many racks the nodes stand in, 1 to as many as nodes, at most 60.
    pub racks: u32,
    /// How packets get from node to node.
    pub mode: Selected,
    /// Where the CNI plugins are; empty: the podnet beside podlab.
    pub cni_bin: Vec<PathBuf>,
    /// The network configuration, with `${NODE}` and the other words of [`Topology::network`] still in it.
    pub cni_conf: String,
    /// The addresses of pods and services.
    pub ranges: Ranges,
    /// What the names of pods made by controllers follow from; none: they are those of the seed document.
    pub seed: Option<u64>,
    /// Pods that controllers keep from the beginning.
    pub workloads: Vec<Workload>,
    /// Services from the beginning.
    pub services: Vec<ServiceEntry>,
    /// The checks of a `podlab verify` that names none; empty means all.
    pub verify: Vec<String>,
}

impl Topology {
    /// The name of node `index` (from 0).
    pub fn node_name(index: usize) -> String {
        format!("node{}", index + 1)
    }

    /// The name of rack `rack` (from 0).
    pub fn rack_name(rack: usize) -> String {
        format!("rack{}", rack + 1)
    }

    /// The rack that node `index` stands in: neighbours share one, and no rack has two nodes more than another.
    pub fn rack(&self, index: usize) -> usize {
        index * self.racks as usize / self.nodes as usize
    }

    /// The addresses of a rack's link: .1 is the router, node n is .(10 + n).
    pub fn rack_net(&self, rack: usize) -> Ipv4Network {
        // RFC 2544's addresses, which are nobody's, for what is between routers and more than one link.
        if self.racks == 1 { FABRIC } else { prefix(Ipv4Addr::new(198, 18, rack as u8 + 1, 0), 24) }
    }

    /// The two addresses of the wire between the fabric and a rack: the fabric's, the rack's.
    pub fn rack_uplink(rack: usize) -> (Ipv4Network, Ipv4Network) {
        let end = |last: usize| prefix(Ipv4Addr::new(198, 18, 0, (4 * rack + last) as u8), 30);
        (end(1), end(2))
    }

    /// The address of node `index` on its rack's link.
    pub fn node_address(&self, index: usize) -> Ipv4Addr {
        host(self.rack_net(self.rack(index)), 11 + index as u8)
    }

    /// The PodCIDR of node `index`: a /24, or a /21 where a node has more pods than that has room for.
    pub fn pod_cidr(&self, index: usize) -> Ipv4Network {
        let length = pod_prefix(self.pods);
        let number = 1 + index as u32;
        prefix(numbered(self.ranges.pods, number << (32 - length)), length)
    }

    /// How many pods a node's PodCIDR and bridge have room for.
    pub fn most_pods(&self) -> usize {
        if self.pods <= SMALL { SMALL as usize } else { PORTS as usize }
    }

    /// The name of pod `number` (from 0) of node `index`.
    pub fn pod_name(&self, index: usize, number: usize) -> String {
        format!("kubia-{}", index * self.pods as usize + number + 1)
    }

    /// The network configuration of node `index`: `${NODE}`, `${POD_CIDR}`, `${FIRST_POD}` and `${LAST_POD}` become the
    /// node's own, `${CLUSTER_CIDR}` and `${CLUSTER_GATEWAY}` are the same on every node.
    pub fn network(&self, index: usize) -> String {
        let pods = |number| numbered(self.pod_cidr(index), number);
        self.cni_conf
            .replace("${NODE}", &Self::node_name(index))
            .replace("${POD_CIDR}", &self.pod_cidr(index).to_string())
            .replace("${FIRST_POD}", &pods(2).to_string())
            .replace("${LAST_POD}", &pods(self.pod_cidr(index).size() - 2).to_string())
            .replace("${CLUSTER_CIDR}", &self.ranges.pods.to_string())
            .replace("${CLUSTER_GATEWAY}", &self.ranges.gateway().to_string())
    }
}

/// The address of a /24 with that last number.
pub fn host(net: Ipv4Network, last: u8) -> Ipv4Addr {
    let [a, b, c, _] = net.ip().octets();
    Ipv4Addr::new(a, b, c, last)
}

/// The MAC of the pod that is number `number` (from 0) of all that node `index` has had: `02:01:`, the node and the pod from
/// 1 on, two bytes each.
pub fn pod_mac(index: usize, number: usize) -> Mac {
    let ([a, b], [c, d]) = ((index as u16 + 1).to_be_bytes(), (number as u16 + 1).to_be_bytes());
    Mac([0x02, 0x01, a, b, c, d])
}

/// The MAC of a wire's end: `02:`, what it belongs to, which one.
pub fn mac(kind: u8, index: usize) -> Mac {
    let [high, low] = (index as u16).to_be_bytes();
    Mac([0x02, 0x00, 0x00, kind, high, low])
}

#[cfg(test)]
mod tests;
