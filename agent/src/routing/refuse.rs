//! What the nodes of a cluster say that cannot all be true, or would cut this node off: such a node is refused by name,
//! and the others are served.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use kernel::Family;

use super::facts::Facts;
use crate::model::Node;

/// Reasons for refusing PodCIDRs and addresses of nodes.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    cidrs: HashMap<(String, IpNetwork), String>,
    addresses: HashMap<(String, IpAddr), String>,
}

impl Refusals {
    /// Looks at all nodes, this one among them.
    pub(super) fn of(own: &Node, nodes: &[&Node], facts: &Facts) -> Refusals {
        let mut all = Refusals::default();
        let mut cidrs: Vec<(IpNetwork, &Node)> = nodes
            .iter()
            .flat_map(|node| node.pod_cidrs.iter().map(|cidr| (canonical(*cidr), *node)))
            .collect();
        cidrs.sort_by_key(|(cidr, node)| (cidr.is_ipv6(), cidr.network(), cidr.prefix(), node.name.clone()));
        all.overlaps(own, &cidrs);
        all.claims(nodes);
        all.cut_off(own, nodes, &cidrs, facts);
        all
    }

    /// Why a node's PodCIDR, or the address that it would be reached at, is refused.
    pub(super) fn why(&self, node: &Node, cidr: IpNetwork, address: IpAddr) -> Option<&str> {
        let cidr = self.cidrs.get(&(node.name.clone(), canonical(cidr)));
        cidr.or_else(|| self.addresses.get(&(node.name.clone(), address))).map(String::as_str)
    }

    /// Two prefixes are one within the other or have nothing in common, so those that are around one in the order of
    /// their first addresses are a stack.
    fn overlaps(&mut self, own: &Node, cidrs: &[(IpNetwork, &Node)]) {
        let mut around: Vec<(IpNetwork, &Node)> = Vec::new();
        for &(cidr, node) in cidrs {
            while around.last().is_some_and(|(outer, _)| !holds(*outer, cidr.network())) {
                around.pop();
            }
            if let Some(&(outer, other)) = around.last()
                && other.name != node.name
            {
                for ((mine, me), (theirs, they)) in
                    [((cidr, node), (outer, other)), ((outer, other), (cidr, node))]
                {
                    let whose = match they.name == own.name {
                        true => format!("this node's {theirs}"),
                        false => format!("{theirs} of node {}", they.name),
                    };
                    let reason = format!("its PodCIDR {mine} overlaps {whose}");
                    self.cidrs.entry((me.name.clone(), mine)).or_insert(reason);
                }
            }
            around.push((cidr, node));
        }
    }

    /// One address cannot be two nodes'.
    fn claims(&mut self, nodes: &[&Node]) {
        let mut by_address: BTreeMap<IpAddr, Vec<&Node>> = BTreeMap::new();
        for node in nodes {
            for ipv6 in [false, true] {
                if let Some(address) = node.address(ipv6) {
                    by_address.entry(address).or_default().push(node);
                }
            }
        }
        for (address, who) in by_address {
            for node in &who {
                if let Some(other) = who.iter().find(|it| it.name != node.name) {
                    let reason = format!("its InternalIP {address} is that of node {} too", other.name);
                    self.addresses.insert((node.name.clone(), address), reason);
                }
            }
        }
    }

    /// A route to a PodCIDR that contains a node's address would lead that node's packets astray.
    fn cut_off(&mut self, own: &Node, nodes: &[&Node], cidrs: &[(IpNetwork, &Node)], facts: &Facts) {
        let mut addresses: BTreeMap<(Family, IpAddr), String> = BTreeMap::new();
        for (link, ip) in &facts.addresses {
            // The gateway addresses of the node's own pods are in its PodCIDR, and so in the way of nobody else's.
            if !own.pod_cidrs.iter().any(|it| holds(*it, *ip)) {
                addresses.insert((Family::of(*ip), *ip), format!("this node's {}", facts.name(*link)));
            }
        }
        for node in nodes {
            for ip in &node.addresses {
                addresses.entry((Family::of(*ip), *ip)).or_insert_with(|| format!("node {}", node.name));
            }
        }
        for (cidr, node) in cidrs {
            let family = Family::of(cidr.ip());
            let (first, last) = ((family, cidr.network()), (family, cidr.broadcast()));
            if let Some(((_, ip), whose)) = addresses.range(first..=last).next() {
                let reason = format!("its PodCIDR {cidr} contains {ip}, an address of {whose}");
                self.cidrs.entry((node.name.clone(), *cidr)).or_insert(reason);
            }
        }
    }
}

/// A prefix without bits of a host.
pub(super) fn canonical(cidr: IpNetwork) -> IpNetwork {
    IpNetwork::new(cidr.network(), cidr.prefix()).unwrap_or(cidr)
}

fn holds(cidr: IpNetwork, ip: IpAddr) -> bool {
    cidr.is_ipv6() == ip.is_ipv6() && cidr.contains(ip)
}
