//! From hop to hop: routes, neighbours and tunnels of the places on a leg, and the filter for where a packet comes in.

use std::net::IpAddr;

use kernel::Family;
use kernel::nft::Point;
use kernel::route::{KIND_UNICAST, Route};

use super::leg::{ENDS, Find, Leg, deeds, find, holds};
use super::rules::Packet;
use super::state::State;
use crate::cluster::Role;
use crate::fabric::UPLINK;
use crate::modes::{Tunnel, Wire};

/// linux/in.h, `IPPROTO_UDP`
const UDP: u8 = 17;

impl Leg<'_> {
    fn family(&self) -> Family {
        Family::of(self.target.ip())
    }

    /// The route that the place has for the target.
    pub(super) fn routed(&self, state: &State, iif: Option<&str>, finds: &mut Vec<Find>) {
        let (target, source) = (self.target.ip(), self.source.ip());
        if state.has(target) {
            return;
        }
        let Some(route) = state.lookup(target, source, iif) else {
            let what = format!("there is no route to {target}");
            let part = if state.role == Role::Pod { "default route".to_owned() } else { self.network() };
            return find(finds, state.name.clone(), &format!("route {part}"), what, ENDS, "routes");
        };
        if route.kind != KIND_UNICAST {
            let what = format!("the route to {target} is no way but an end: {}", kind_word(route.kind));
            let part = format!("route {}", route.destination());
            return find(finds, state.name.clone(), &part, what, ENDS, "routes");
        }
        self.neighbour(state, route, target, finds);
    }

    /// The network that the target is in: a PodCIDR, or the address alone.
    fn network(&self) -> String {
        let node = self.cluster.nodes.iter().find(|node| holds(node, self.target.ip()));
        let pods = node.and_then(|node| node.pod_cidr.of(self.family()));
        pods.map_or_else(|| self.target.ip().to_string(), |pods| pods.to_string())
    }

    /// Where the route leads has to be further on the way.
    pub(super) fn way_on(&self, i: usize, iif: &str, finds: &mut Vec<Find>) {
        let state = self.states[i];
        let Some(route) = state.lookup(self.target.ip(), self.source.ip(), Some(iif)) else { return };
        let Some(gateway) = route.gateway else { return };
        let part = format!("route {}", route.destination());
        let is_back = self.states[..i].iter().any(|before| before.has(gateway));
        let is_own_pod = self.node_of(&state.name).is_some_and(|node| holds(node, self.target.ip()));
        if is_own_pod {
            let back = if is_back { ", where it came from" } else { "" };
            let what = format!("{} is on this node, and is sent to {gateway}{back}", self.target.ip());
            return find(finds, state.name.clone(), &part, what, ENDS, "routes");
        }
        // On one link the nodes know each other's pods; who knows only the router has lost a route.
        let far = self.states[i..]
            .iter()
            .rev()
            .find(|state| state.role == Role::Node && state.name != self.states[i].name);
        let Some(far) = far else { return };
        let (Some(near_node), Some(far_node)) = (self.node_of(&state.name), self.node_of(&far.name)) else {
            return;
        };
        let is_default = route.destination().prefix() == 0;
        let pods = near_node.pod_cidr.of(self.family()).zip(far_node.pod_cidr.of(self.family()));
        let Some((near_pods, far_pods)) = pods else { return };
        let back = far.lookup(near_pods.ip(), self.target.ip(), None);
        let is_known = back.is_some_and(|route| route.destination().prefix() > 0);
        if is_default && is_known && near_node.rack == far_node.rack {
            let part = format!("route {far_pods}");
            let what =
                format!("there is none, so packets go by default to {gateway}; {} has one back", far.name);
            find(finds, state.name.clone(), &part, what, ENDS, "routes");
        }
        self.packed(i, route, finds);
    }

    /// A neighbour that was written down has to have the MAC of the one who has the address.
    fn neighbour(&self, state: &State, route: &Route, target: IpAddr, finds: &mut Vec<Find>) {
        let Some(index) = route.oif else { return };
        let next = route.gateway.unwrap_or(target);
        let Some(entry) = state.neighbour(index, next).filter(|entry| entry.state_word() == "permanent")
        else {
            return;
        };
        let owner = self.all.iter().find_map(|space| space.owner(next).map(|link| (space, link)));
        let Some((space, link)) = owner else { return };
        if let Some(mac) = entry.mac.filter(|mac| Some(*mac) != link.mac) {
            let what = format!("it is written down as {mac}, and {} has another MAC", space.name);
            find(finds, state.name.clone(), &format!("neighbour {next}"), what, ENDS, "neigh");
        }
    }

    /// The tunnel between the node at `i` and the one before or after it on the leg.
    pub(super) fn tunnel(&self, i: usize, onward: bool) -> Option<Tunnel> {
        let near = self.node_of(&self.states[i].name)?;
        let others = if onward { &self.states[i + 1..] } else { &self.states[..i] };
        let far = others.iter().find_map(|state| self.node_of(&state.name))?;
        match self.cluster.mode.wire(near, far, self.family()) {
            Wire::Tunnel(tunnel) => Some(tunnel),
            Wire::Plain | Wire::Sealed { .. } => None,
        }
    }

    /// What goes into a tunnel has to come out at the right node, in the right network.
    fn packed(&self, i: usize, route: &Route, finds: &mut Vec<Find>) {
        let (state, Some(_)) = (self.states[i], self.tunnel(i, true)) else { return };
        let Some(far) = self.states[i + 1..].iter().find_map(|state| self.node_of(&state.name)) else {
            return;
        };
        let (Some(index), Some(gateway)) = (route.oif, route.gateway) else { return };
        if state.link(index).is_none_or(|link| link.kind.as_deref() != Some("vxlan")) {
            return;
        }
        let Some(around) = far.address.of(self.family()) else { return };
        if let Some(route) = state.lookup(around, around, None) {
            self.neighbour(state, route, around, finds);
        }
        let Some(mac) = state.neighbour(index, gateway).and_then(|entry| entry.mac) else {
            let what = format!("the tunnel has no MAC for {gateway}");
            return find(finds, state.name.clone(), &format!("neighbour {gateway}"), what, ENDS, "neigh");
        };
        let part = format!("forwarding entry {mac}");
        match state.fdb.iter().find(|entry| entry.index == index && entry.mac == mac) {
            None => find(
                finds,
                state.name.clone(),
                &part,
                format!("the tunnel does not know where {mac} is"),
                ENDS,
                "fdb",
            ),
            Some(entry) if entry.dst != Some(around) => {
                let what = format!("it leads elsewhere than to {around}");
                find(finds, state.name.clone(), &part, what, ENDS, "fdb");
            }
            Some(entry) => {
                if let Some(vni) = entry.vni {
                    let what =
                        format!("packets for {} go into network {vni}, which nobody unpacks", far.space.name);
                    find(finds, state.name.clone(), &part, what, ENDS, "fdb");
                }
            }
        }
    }

    /// The datagram around the packet meets rules of its own.
    pub(super) fn unpacked(&self, i: usize, tunnel: &Tunnel, finds: &mut Vec<Find>) {
        let state = self.states[i];
        let far = self.states[..i].iter().find_map(|state| self.node_of(&state.name));
        let (Some(near), Some(far)) = (self.node_of(&state.name), far) else { return };
        let ends = far.address.of(self.family()).zip(near.address.of(self.family()));
        let Some((source, target)) = ends else { return };
        let packet = Packet { iif: UPLINK, oif: "", source, target, protocol: UDP, ports: (0, tunnel.port) };
        deeds(state, &[Point::Prerouting, Point::Input], &packet, finds);
    }

    /// With a strict filter a packet has to come in where one to its source would go out.
    pub(super) fn reverse(&self, state: &State, iif: &str, finds: &mut Vec<Find>) {
        if self.family() == Family::V6 || state.rp_filter.get(iif) != Some(&1) {
            return;
        }
        let back = state.lookup(self.source.ip(), self.target.ip(), None);
        let by = back.and_then(|route| state.link(route.oif?)).map(|link| link.name.as_str());
        if by != Some(iif) {
            let by = by.map_or("by no link".to_owned(), |name| format!("by {name}"));
            let what = format!(
                "rp_filter of {iif} is 1, and an answer to {} would go {by}: what comes in is dropped",
                self.source.ip()
            );
            find(finds, state.name.clone(), &format!("rp_filter of {iif}"), what, ENDS, "sysctls");
        }
    }
}

/// linux/rtnetlink.h, `RTN_*`
fn kind_word(kind: u8) -> &'static str {
    match kind {
        6 => "a black hole",
        7 => "unreachable",
        8 => "prohibited",
        _ => "of a kind that leads nowhere",
    }
}
