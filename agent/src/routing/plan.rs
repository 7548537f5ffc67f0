//! Which way leads to the pods of each peer, and all that the kernel has to hold for it. Nothing here asks the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use kernel::route::TABLE_MAIN;
use kernel::{Family, Mac};

use super::facts::{Facts, Way};
use super::refuse::{Refusals, canonical};
use super::{TABLE, alone, gateway, overhead, tunnel_mac, word};
use crate::model::Node;

/// The MTU where nothing tells one: Ethernet's.
const DEFAULT_MTU: u32 = 1500;
/// The least MTU of a link that carries IPv6 (RFC 8200, section 5); IPv4's is 68 (RFC 791, section 3.2).
const LEAST: [u32; 2] = [68, 1280];

/// What becomes of a peer's pods of one IP version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The peer's name.
    pub node: String,
    /// The IP version.
    pub family: Family,
    /// Its PodCIDR of that version.
    pub cidr: Option<IpNetwork>,
    /// The InternalIP at which it is reached.
    pub address: Option<IpAddr>,
    /// The way, and why.
    pub how: How,
    /// The longest packet in bytes that a pod can send there; 0 where there is no way.
    pub mtu: u32,
}

/// The way to a peer's pods; shown as the reason for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// By its InternalIP.
    Direct {
        /// The link that both are on.
        link: String,
    },
    /// Through the tunnel.
    Tunnel {
        /// The router in between that is next to this node.
        router: IpAddr,
        /// The link to it.
        link: String,
    },
    /// There is no way, for now.
    Skipped(String),
    /// What the peer says cannot be, or would cut others off.
    Refused(String),
}

impl How {
    /// There is a way.
    pub fn is_served(&self) -> bool {
        matches!(self, How::Direct { .. } | How::Tunnel { .. })
    }
}

/// Where a route leads out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Out {
    /// By the link with this index.
    Link(u32),
    /// Through the tunnel of a family.
    Tunnel(Family),
}

/// A route that the kernel is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub dst: IpNetwork,
    /// The next hop.
    pub via: IpAddr,
    /// The way out.
    pub out: Out,
    /// The source of what this node itself sends.
    pub src: Option<IpAddr>,
    /// The MTU of the path in bytes, where it is not the link's.
    pub mtu: Option<u32>,
    /// The table: main, or [`TABLE`].
    pub table: u32,
    /// The node that it leads to.
    pub node: String,
}

/// A tunnel that the kernel is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// The IP version of what it carries, inside and outside.
    pub family: Family,
    /// The address that its datagrams come from.
    pub local: IpAddr,
    /// The hardware address of this end.
    pub mac: Mac,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// The other ends.
    pub ends: Vec<End>,
}

/// The other end of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// The next hop of routes, by which the end is found: the first address of the peer's PodCIDR, which nobody has.
    pub inner: IpAddr,
    /// Its hardware address.
    pub mac: Mac,
    /// Where datagrams to it go.
    pub outer: IpAddr,
    /// The node whose end it is.
    pub node: String,
}

/// All that the kernel is to hold so that packets get to the pods of peers. [`Plan::default`] is: nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Every peer, by name and family.
    pub peers: Vec<Peer>,
    /// The routes, by table and destination.
    pub routes: Vec<Route>,
    /// The tunnels, of which each has an end at least.
    pub tunnels: Vec<Tunnel>,
    /// PodCIDRs of this node from which packets to InternalIPs behind routers go through the tunnel.
    pub tunnelled: Vec<IpNetwork>,
    /// The gateway addresses of this node's pods.
    pub gateways: Vec<IpAddr>,
    /// The IP versions that this node forwards.
    pub forwards: Vec<Family>,
    /// Links by name that would lose their router advertisements when the node begins to forward IPv6.
    pub advertised: Vec<String>,
    /// The links, by index, that peers are reached over or that have this node's InternalIP.
    pub uplinks: BTreeSet<u32>,
    /// The MTU of pods' links in bytes: that of the narrowest path.
    pub mtu: u32,
    /// What is wrong with this node itself.
    pub trouble: Vec<String>,
}

impl Plan {
    /// The IP versions in which a peer of that name is not served, with the reasons.
    pub fn unserved<'a>(&'a self, node: &'a str) -> impl Iterator<Item = (Family, &'a How)> {
        let peers = self.peers.iter().filter(move |it| it.node == node && !it.how.is_served());
        peers.map(|it| (it.family, &it.how))
    }
}

/// The plan of the node `own`; `nodes` are all of the cluster, `own` may be among them.
pub fn plan<'a>(own: &'a Node, nodes: impl IntoIterator<Item = &'a Node>, facts: &Facts) -> Plan {
    let mut peers: Vec<&Node> = nodes.into_iter().filter(|it| it.name != own.name).collect();
    peers.sort_by(|a, b| a.name.cmp(&b.name));
    let all: Vec<&Node> = std::iter::once(own).chain(peers.iter().copied()).collect();
    let refusals = Refusals::of(own, &all, facts);
    let mut work = Work { own, facts, refusals, plan: Plan::default(), tunnels: BTreeMap::new(), mtu: None };
    work.this_node();
    for family in [Family::V4, Family::V6] {
        for peer in &peers {
            work.peer(peer, family);
        }
    }
    work.finished()
}

/// A plan in the making.
struct Work<'a> {
    own: &'a Node,
    facts: &'a Facts,
    refusals: Refusals,
    plan: Plan,
    tunnels: BTreeMap<Family, Tunnel>,
    mtu: Option<u32>,
}

impl Work<'_> {
    fn this_node(&mut self) {
        let own = self.own;
        for cidr in own.pod_cidrs.iter().map(|it| canonical(*it)) {
            match gateway(cidr) {
                Some(gateway) => self.plan.gateways.push(gateway),
                None => self.plan.trouble.push(format!("the PodCIDR {cidr} has no room for pods")),
            }
            self.plan.forwards.push(Family::of(cidr.ip()));
        }
        if own.pod_cidrs.is_empty() {
            let hint = "does the controller manager allocate node CIDRs?";
            self.plan.trouble.push(format!("node {} has no PodCIDR ({hint})", own.name));
        }
        for address in [false, true].into_iter().filter_map(|ipv6| own.address(ipv6)) {
            let Some(link) = self.facts.link_of(address) else {
                self.plan.trouble.push(format!("no link of this machine has its InternalIP {address}"));
                continue;
            };
            self.plan.uplinks.insert(link);
            self.narrow(self.path_mtu(link, None));
        }
    }

    fn peer(&mut self, peer: &Node, family: Family) {
        let ipv6 = family == Family::V6;
        let cidr = peer.pod_cidrs.iter().map(|it| canonical(*it)).find(|it| it.is_ipv6() == ipv6);
        let address = peer.address(ipv6);
        if cidr.is_none() && !self.own.pod_cidrs.iter().any(|it| it.is_ipv6() == ipv6) {
            return;
        }
        let (how, mtu) = match (cidr, address) {
            (None, _) => Err(How::Skipped(format!("no {} PodCIDR yet", word(family)))),
            (_, None) => Err(How::Skipped(format!("no {} InternalIP", word(family)))),
            (Some(cidr), Some(address)) => match self.refusals.why(peer, cidr, address) {
                Some(reason) => Err(How::Refused(reason.to_owned())),
                None => self.way(peer, cidr, address),
            },
        }
        .unwrap_or_else(|how| (how, 0));
        self.plan.peers.push(Peer { node: peer.name.clone(), family, cidr, address, how, mtu });
    }

    /// The way and its MTU, or why there is none.
    fn way(&mut self, peer: &Node, cidr: IpNetwork, address: IpAddr) -> Result<(How, u32), How> {
        match self.facts.ways.get(&address) {
            None => Err(How::Skipped(format!("the way to {address} is not known yet"))),
            Some(Way::Own) => Err(How::Refused(format!("its InternalIP {address} is one of this machine's"))),
            Some(Way::Unreachable(words)) => Err(How::Skipped(format!("no way to {address}: {words}"))),
            Some(&Way::Link(link, mtu)) => {
                let mtu = self.path_mtu(link, mtu);
                self.plan.uplinks.insert(link);
                self.narrow(mtu);
                self.route(peer, cidr, address, Out::Link(link), None);
                Ok((How::Direct { link: self.facts.name(link) }, mtu.unwrap_or(DEFAULT_MTU)))
            }
            Some(&Way::Router(router, link, mtu)) => {
                self.plan.uplinks.insert(link);
                let mtu = self.path_mtu(link, mtu).unwrap_or(DEFAULT_MTU);
                let inside = self.tunnel(peer, (cidr, address), mtu).map_err(How::Skipped)?;
                Ok((How::Tunnel { router, link: self.facts.name(link) }, inside))
            }
        }
    }

    /// Leads the packets to a peer's pods into the tunnel, `mtu` being that of the path to its other end; gives the MTU
    /// inside.
    fn tunnel(&mut self, peer: &Node, (cidr, address): (IpNetwork, IpAddr), mtu: u32) -> Result<u32, String> {
        let family = Family::of(address);
        let ipv6 = family == Family::V6;
        let inside = mtu.saturating_sub(overhead(family));
        let least = LEAST[usize::from(ipv6)];
        if inside < least {
            let word = word(family);
            return Err(format!("a tunnel over an MTU of {mtu} has {inside}, and {word} needs {least}"));
        }
        let local = self.own.address(ipv6).filter(|it| self.facts.link_of(*it).is_some());
        let Some(local) = local else {
            let word = word(family);
            return Err(format!("a tunnel needs this node's {word} InternalIP, and no link has one"));
        };
        let (inner, mac) = (cidr.network(), tunnel_mac(&peer.name));
        let own_mac = tunnel_mac(&self.own.name);
        let tunnel = self.tunnels.entry(family).or_insert_with(|| Tunnel {
            family,
            local,
            mac: own_mac,
            mtu: 0,
            ends: Vec::new(),
        });
        tunnel.mtu = tunnel.mtu.max(inside);
        tunnel.ends.push(End { inner, mac, outer: address, node: peer.name.clone() });
        self.narrow(Some(inside));
        self.route(peer, cidr, inner, Out::Tunnel(family), Some(inside));
        // What pods send to the node itself goes the same way.
        let of_family = |it: &&IpNetwork| it.is_ipv6() == ipv6;
        if let Some(own) = self.own.pod_cidrs.iter().find(of_family).map(|it| canonical(*it)) {
            if !self.plan.tunnelled.contains(&own) {
                self.plan.tunnelled.push(own);
            }
            let node = peer.name.clone();
            let (dst, out, mtu) = (alone(address), Out::Tunnel(family), Some(inside));
            self.plan.routes.push(Route { dst, via: inner, out, src: None, mtu, table: TABLE, node });
        }
        Ok(inside)
    }

    fn route(&mut self, peer: &Node, dst: IpNetwork, via: IpAddr, out: Out, mtu: Option<u32>) {
        // The kernel takes no source that is not this machine's.
        let own = self.own.address(dst.is_ipv6());
        let src = own.filter(|it| self.facts.link_of(*it).is_some());
        let node = peer.name.clone();
        self.plan.routes.push(Route { dst, via, out, src, mtu, table: TABLE_MAIN, node });
    }

    /// The MTU of a path over a link, whose route may have one of its own.
    fn path_mtu(&self, link: u32, route: Option<u32>) -> Option<u32> {
        self.facts.links.get(&link).map(|it| it.mtu).into_iter().chain(route.filter(|it| *it > 0)).min()
    }

    /// Takes over the least MTU so far.
    fn narrow(&mut self, mtu: Option<u32>) {
        self.mtu = self.mtu.into_iter().chain(mtu).min();
    }

    fn finished(self) -> Plan {
        let Work { mut plan, tunnels, mtu, facts, .. } = self;
        plan.tunnels = tunnels.into_values().collect();
        plan.routes.sort_by_key(|it| (it.table, it.dst.is_ipv6(), it.dst));
        plan.peers.sort_by(|a, b| (&a.node, a.family).cmp(&(&b.node, b.family)));
        plan.mtu = mtu.unwrap_or(DEFAULT_MTU);
        if plan.forwards.contains(&Family::V6) {
            let links = plan.uplinks.iter().filter_map(|it| facts.links.get(it));
            plan.advertised = links.filter(|it| it.loses_advertisements).map(|it| it.name.clone()).collect();
        }
        plan
    }
}
