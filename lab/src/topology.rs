//! The topology: what a lab is to be, complete and checked before anything is made. Names, addresses and MACs follow
//! from it alone, so the same topology gives the same lab every time. How it is written, in a file or on the command
//! line, is in `written`.

mod forms;
mod hosts;
mod ranges;
mod written;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use kernel::{Family, Mac};
use serde::{Deserialize, Serialize};

use crate::modes::Selected;
use crate::stack::{Each, IpFamily, Versioned};
pub use hosts::{Host, HostEntry, Nodes};
pub use written::{Affinity, App, CheckEntry, Cni, OneOrMany, Port, ServiceEntry, Workload, Written};

/// The name that a topology file's `schema` must have.
pub const SCHEMA: &str = "podlab.topology/1";
/// Addresses of the wire between the nodes of a lab with one rack: .1 is the router, node n is .(10 + n).
pub const FABRIC: Ipv4Network = prefix(Ipv4Addr::new(192, 0, 2, 0), 24);
/// As [`FABRIC`]: unique local addresses (RFC 4193) that read like the IPv4 ones.
pub const FABRIC_V6: Ipv6Network = prefix_v6([0xfd00, 0x192, 0, 2], 64);
/// The world outside (RFC 5737, TEST-NET-3): .1 is the router, .9 the host.
pub const OUTSIDE: Ipv4Network = prefix(Ipv4Addr::new(203, 0, 113, 0), 24);
/// The world outside (RFC 3849, documentation addresses): ::1 is the router, ::9 the host.
pub const OUTSIDE_V6: Ipv6Network = prefix_v6([0x2001, 0xdb8, 0x203, 0x113], 64);
/// The links of racks and between routers: RFC 2544's addresses, which are nobody's.
const RACKS: Ipv4Network = prefix(Ipv4Addr::new(198, 18, 0, 0), 16);
const RACKS_V6: Ipv6Network = prefix_v6([0xfd00, 0x198, 0x18, 0], 48);
/// Where no option and no file says otherwise.
const PODS: Ipv4Network = prefix(Ipv4Addr::new(10, 244, 0, 0), 16);
const PODS_V6: Ipv6Network = prefix_v6([0xfd00, 0x10, 0x244, 0], 56);
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

/// The same of IPv6, by the address' first half.
const fn prefix_v6([a, b, c, d]: [u16; 4], length: u8) -> Ipv6Network {
    match Ipv6Network::new_checked(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0), length) {
        Some(net) => net,
        None => panic!("a prefix"),
    }
}

/// The addresses of pods and of services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ranges {
    /// All PodCIDRs; the first one of its size is nobody's. Its IP versions are those of the lab.
    pub pods: Each<IpNetwork>,
    /// Addresses of services inside the cluster, which are IPv4's. No interface has one.
    pub services: Ipv4Network,
}

impl Default for Ranges {
    fn default() -> Self {
        Self { pods: Each::one(IpNetwork::V4(PODS)), services: prefix(Ipv4Addr::new(10, 96, 0, 0), 16) }
    }
}

impl Ranges {
    /// The address of the router of pods that share one subnet.
    pub fn gateway(&self) -> Each<IpAddr> {
        self.pods.map(|net| numbered(net, 1))
    }

    /// The address of the cluster's DNS.
    pub fn dns(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.services.network()) + 10)
    }

    /// The addresses of services as they are written, where there are services.
    pub fn of_services(&self) -> Option<String> {
        self.has_services().then(|| self.services.to_string())
    }

    /// There is IPv4, and with it services.
    pub fn has_services(&self) -> bool {
        self.pods.of(Family::V4).is_some()
    }
}

/// All PodCIDRs of a lab where none are given.
fn default_pods(family: IpFamily) -> Each<IpNetwork> {
    match family {
        IpFamily::Ipv4 => Each::one(PODS.into()),
        IpFamily::Ipv6 => Each::one(PODS_V6.into()),
        IpFamily::Dual => Each { first: PODS.into(), second: Some(PODS_V6.into()) },
    }
}

/// The address with that number of a network.
pub(crate) fn numbered(net: IpNetwork, number: u128) -> IpAddr {
    match net {
        // Whoever asks stays inside the network, whose numbers have 32 bits.
        IpNetwork::V4(net) => Ipv4Addr::from(u32::from(net.network()) + number as u32).into(),
        IpNetwork::V6(net) => Ipv6Addr::from(u128::from(net.network()) + number).into(),
    }
}

/// The prefix length of a PodCIDR: a /64; of IPv4 a /24, or a /21 where a node has more pods than that has room for.
fn pod_prefix(family: Family, pods: u32) -> u8 {
    match family {
        Family::V6 => 64,
        Family::V4 if pods <= SMALL => 24,
        Family::V4 => 21,
    }
}

/// The bits of an address.
fn bits(family: Family) -> u8 {
    match family {
        Family::V4 => 32,
        Family::V6 => 128,
    }
}

/// A complete, valid topology.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Topology {
    /// The lab's name.
    pub name: String,
    /// The nodes, 1 to 200.
    pub nodes: Vec<Host>,
    /// The hosts outside, 1 to 50; the first one is meant where one has to do.
    pub outside: Vec<Host>,
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
    /// The checks of a `podlab verify` that names none, as on its command line; empty means all.
    pub verify: Vec<String>,
}

impl Topology {
    /// The name of node `index` (from 0).
    pub fn node_name(&self, index: usize) -> &str {
        &self.nodes[index].name
    }

    /// The name of rack `rack` (from 0).
    pub fn rack_name(rack: usize) -> String {
        format!("rack{}", rack + 1)
    }

    /// The rack that node `index` stands in: neighbours share one, and no rack has two nodes more than another.
    pub fn rack(&self, index: usize) -> usize {
        rack(index, self.nodes.len(), self.racks)
    }

    /// The addresses of a rack's link: .1 is the router, node n is .(10 + n).
    pub fn rack_net(&self, rack: usize) -> Each<IpNetwork> {
        rack_net(&self.ranges, self.racks, rack)
    }

    /// The two addresses of the wire between the fabric and a rack: the fabric's, the rack's.
    pub fn rack_uplink(&self, rack: usize) -> (Each<IpNetwork>, Each<IpNetwork>) {
        let end = |last: u8| {
            let v4 = prefix(Ipv4Addr::new(198, 18, 0, 4 * rack as u8 + last), 30);
            let [a, b, c, ..] = RACKS_V6.ip().segments();
            let v6 = Ipv6Addr::new(a, b, c, 0x100 + rack as u16, 0, 0, 0, last.into());
            self.ranges.pods.map(|pods| match pods {
                IpNetwork::V4(_) => v4.into(),
                IpNetwork::V6(_) => Ipv6Network::new_checked(v6, 64).unwrap_or(RACKS_V6).into(),
            })
        };
        (end(1), end(2))
    }

    /// The addresses of the link to the world outside.
    pub fn outside_net(&self) -> Each<IpNetwork> {
        outside_net(&self.ranges)
    }

    /// The addresses of node `index` on its rack's link.
    pub fn node_address(&self, index: usize) -> Each<IpAddr> {
        self.nodes[index].address
    }

    /// The PodCIDR of node `index`: a /64; of IPv4 a /24, or a /21 where a node has more pods than that has room for.
    pub fn pod_cidr(&self, index: usize) -> Each<IpNetwork> {
        self.ranges.pods.map(|pods| {
            let family = pods.family();
            let length = pod_prefix(family, self.pods);
            let start = numbered(pods, (1 + index as u128) << (bits(family) - length));
            IpNetwork::new(start, length).unwrap_or(pods)
        })
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
    /// node's own, `${CLUSTER_CIDR}` and `${CLUSTER_GATEWAY}` are the same on every node. They are of the lab's first IP
    /// version, and with `_V6` before the brace of IPv6.
    pub fn network(&self, index: usize) -> String {
        let own = self.pod_cidr(index);
        let v6 = own.of(Family::V6).zip(self.ranges.pods.of(Family::V6));
        let sets = [Some(("", (own.first, self.ranges.pods.first))), v6.map(|nets| ("_V6", nets))];
        let mut text = self.cni_conf.replace("${NODE}", self.node_name(index));
        for (suffix, (own, all)) in sets.into_iter().flatten() {
            let last = (1_u128 << (bits(own.family()) - own.prefix())) - 2;
            for (name, value) in [
                ("POD_CIDR", own.to_string()),
                ("FIRST_POD", numbered(own, 2).to_string()),
                ("LAST_POD", numbered(own, last).to_string()),
                ("CLUSTER_CIDR", all.to_string()),
                ("CLUSTER_GATEWAY", numbered(all, 1).to_string()),
            ] {
                text = text.replace(&format!("${{{name}{suffix}}}"), &value);
            }
        }
        text
    }
}

/// The rack of node `index` of so many in so many racks.
fn rack(index: usize, nodes: usize, racks: u32) -> usize {
    index * racks as usize / nodes
}

/// The networks of these two of which a lab has the IP version.
fn nets(ranges: &Ranges, v4: Ipv4Network, v6: Ipv6Network) -> Each<IpNetwork> {
    ranges.pods.map(|pods| match pods {
        IpNetwork::V4(_) => v4.into(),
        IpNetwork::V6(_) => v6.into(),
    })
}

/// The addresses of the link of one of so many racks.
fn rack_net(ranges: &Ranges, racks: u32, rack: usize) -> Each<IpNetwork> {
    match racks {
        1 => nets(ranges, FABRIC, FABRIC_V6),
        _ => nets(
            ranges,
            prefix(Ipv4Addr::new(198, 18, rack as u8 + 1, 0), 24),
            prefix_v6([0xfd00, 0x198, 0x18, rack as u16 + 1], 64),
        ),
    }
}

/// The addresses of the link to the world outside.
fn outside_net(ranges: &Ranges) -> Each<IpNetwork> {
    nets(ranges, OUTSIDE, OUTSIDE_V6)
}

/// The address of a network with that last number, which of IPv6 reads the same: 192.0.2.11, fd00:192:0:2::11.
pub fn host(net: IpNetwork, last: u8) -> IpAddr {
    let number = match net {
        IpNetwork::V4(_) => last.into(),
        IpNetwork::V6(_) => {
            u128::from(last / 100) << 8 | u128::from(last / 10 % 10) << 4 | u128::from(last % 10)
        }
    };
    numbered(net, number)
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
