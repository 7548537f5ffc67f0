//! A leg: the namespaces that a packet passes one after the other, and what each of them would do with it by what its
//! kernel has. What does not fit is a find.
//!
//! ```text
//!  pod ─ node (bridge, routes, rules, tunnel) ─ fabric ─ node ─ pod (who listens)
//! ```

use std::net::{IpAddr, SocketAddr};

use kernel::Family;
use kernel::link::Link;
use kernel::nft::Point;
use kernel::tc;

use super::rules::{Deed, Packet, meet};
use super::state::{Outline, State};
use super::symptom::Sign;
use crate::cluster::{Cluster, Node, Role};
use crate::fabric::{UPLINK, forwarding};
use crate::modes::Siblings;

/// Something that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Find {
    pub(super) place: String,
    pub(super) part: String,
    pub(super) what: String,
    /// What shows when this is broken.
    pub(super) explains: &'static [Sign],
    /// The part of `podlab inspect` that shows it; empty for all.
    pub(super) look: &'static str,
}

/// What ends a packet.
pub(super) const ENDS: &[Sign] = &[Sign::Fails, Sign::Lossy, Sign::WrongHost];
/// What ends some packets.
const SOME: &[Sign] = &[Sign::Fails, Sign::Lossy, Sign::LargeHangs];
const REWRITES: &[Sign] = &[Sign::Rewritten];
const LARGE: &[Sign] = &[Sign::LargeHangs];
const SLOW: &[Sign] = &[Sign::Slow, Sign::Fails, Sign::Lossy, Sign::LargeHangs];
/// linux/in.h, `IPPROTO_TCP`
const TCP: u8 = 6;

/// One way of a connection.
pub(super) struct Leg<'l> {
    pub(super) cluster: &'l Cluster,
    /// The namespaces, in order.
    pub(super) states: Vec<&'l State>,
    /// Links and addresses of everything in the lab.
    pub(super) all: &'l [Outline],
    pub(super) source: SocketAddr,
    pub(super) target: SocketAddr,
    /// The target's port is to be listened on.
    pub(super) is_request: bool,
}

impl Leg<'_> {
    /// Everything on the way that does not fit.
    pub(super) fn walk(&self) -> Vec<Find> {
        let mut finds = Vec::new();
        let last = self.states.len() - 1;
        for (i, state) in self.states.iter().enumerate() {
            match state.role {
                Role::Pod | Role::Outside if i == 0 => self.sender(state, &mut finds),
                Role::Pod | Role::Outside if i == last => self.receiver(state, &mut finds),
                Role::Node => self.node(i, &mut finds),
                Role::Fabric => self.fabric(i, &mut finds),
                Role::Pod | Role::Outside => {}
            }
        }
        finds
    }

    pub(super) fn node_of(&self, name: &str) -> Option<&Node> {
        self.cluster.nodes.iter().find(|node| node.space.name == name)
    }

    /// The link that leads to the pod at an end of the leg, as its node has it.
    fn port(&self, node: &State, pod: &State) -> Option<Link> {
        let interface = &self.cluster.pod(&pod.name)?.ifname;
        node.link(pod.link_named(interface)?.link?).cloned()
    }

    fn sender(&self, state: &State, finds: &mut Vec<Find>) {
        let place = || state.name.clone();
        let interface = self.cluster.pod(&state.name).map_or(UPLINK, |pod| pod.ifname.as_str());
        match state.link_named(interface) {
            None => find(finds, place(), interface, "it is not there".into(), ENDS, "interfaces"),
            Some(link) if !link.up => {
                find(finds, place(), interface, "it is down".into(), ENDS, "interfaces")
            }
            Some(_) => {}
        }
        if !state.has(self.source.ip()) {
            let what = format!("no interface has {}", self.source.ip());
            find(finds, place(), "address", what, ENDS, "interfaces");
        }
        self.routed(state, None, finds);
        self.rules(state, &[Point::Output, Point::Postrouting], ("", interface), finds);
        // Who shares the link is asked by ARP, everybody else by a router.
        let Some(route) = state.lookup(self.target.ip(), self.source.ip(), None) else { return };
        let is_far = self.states.get(2).is_some_and(|next| next.role != Role::Pod);
        if route.gateway.is_none() && is_far && !self.cluster.mode.on_lan() && state.role == Role::Pod {
            let net = state.addresses.iter().find(|address| address.net.contains(self.target.ip()));
            let prefix =
                net.map(|address| address.net.to_string()).unwrap_or(route.destination().to_string());
            let what = format!("with {prefix} it takes {} for a neighbour on its own link", self.target.ip());
            find(finds, place(), "address", what, ENDS, "interfaces");
        }
    }

    fn receiver(&self, state: &State, finds: &mut Vec<Find>) {
        let place = || state.name.clone();
        if !state.has(self.target.ip()) {
            let what = format!("no interface has {}", self.target.ip());
            find(finds, place(), "address", what, ENDS, "interfaces");
        }
        let interface = self.cluster.pod(&state.name).map_or(UPLINK, |pod| pod.ifname.as_str());
        if state.link_named(interface).is_some_and(|link| !link.up) {
            find(finds, place(), interface, "it is down".into(), ENDS, "interfaces");
        }
        self.rules(state, &[Point::Ingress, Point::Prerouting, Point::Input], (interface, ""), finds);
        if self.is_request {
            listens(state, self.target, finds);
        }
    }

    fn node(&self, i: usize, finds: &mut Vec<Find>) {
        let state = self.states[i];
        let (before, after) = (self.states.get(i.wrapping_sub(1)), self.states.get(i + 1));
        for pod in [before, after].into_iter().flatten().filter(|state| state.role == Role::Pod) {
            self.wire_of_pod(state, pod, finds);
        }
        let from_uplink = before.is_some_and(|state| state.role != Role::Pod);
        let to_uplink = after.is_some_and(|state| state.role != Role::Pod);
        if from_uplink || to_uplink {
            self.uplink(state, finds);
        }
        if self.cluster.mode.on_lan() {
            return;
        }
        let is_switched = !from_uplink && !to_uplink && self.cluster.mode.siblings() == Siblings::Switched;
        let tunnel_from = before.and_then(|_| self.tunnel(i, false));
        let iif = match (from_uplink, &tunnel_from) {
            (true, Some(tunnel)) => tunnel.device.to_owned(),
            (true, None) => UPLINK.to_owned(),
            (false, _) => self.toward(state, self.source.ip()),
        };
        if !is_switched {
            self.forwards(state, finds);
            self.routed(state, Some(&iif), finds);
            self.way_on(i, &iif, finds);
            self.reverse(state, &iif, finds);
        }
        let oif = self.toward(state, self.target.ip());
        let hooks = [Point::Prerouting, Point::Forward, Point::Postrouting];
        self.rules(state, &hooks, (&iif, &oif), finds);
        if from_uplink {
            self.rules(state, &[Point::Ingress], (UPLINK, ""), finds);
        }
        if let Some(tunnel) = tunnel_from {
            self.unpacked(i, &tunnel, finds);
        }
    }

    /// The name of the link by which the place would send to an address.
    fn toward(&self, state: &State, address: IpAddr) -> String {
        let route = state.lookup(address, self.source.ip(), None);
        route.and_then(|route| state.link(route.oif?)).map(|link| link.name.clone()).unwrap_or_default()
    }

    /// The node's end of a pod's wire.
    fn wire_of_pod(&self, node: &State, pod: &State, finds: &mut Vec<Find>) {
        let Some(port) = self.port(node, pod) else { return };
        let what = |text: &str| format!("the end of {}'s wire {text}", pod.name);
        if !port.up {
            find(finds, node.name.clone(), &port.name, what("is down"), ENDS, "interfaces");
        }
        if self.cluster.mode.siblings() == Siblings::Switched && port.master.is_none() {
            find(finds, node.name.clone(), &port.name, what("is no port of a bridge"), ENDS, "interfaces");
        }
        self.limited(node, &port, finds);
    }

    fn uplink(&self, state: &State, finds: &mut Vec<Find>) {
        let Some(link) = state.link_named(UPLINK) else {
            return find(finds, state.name.clone(), UPLINK, "it is not there".into(), ENDS, "interfaces");
        };
        let far = self.states.iter().find(|other| other.link_named(&state.name).is_some());
        let port = far.and_then(|far| far.link_named(&state.name).map(|port| (far, port)));
        match port {
            _ if !link.up => find(finds, state.name.clone(), UPLINK, "it is down".into(), ENDS, "interfaces"),
            Some((far, port)) if !port.up => {
                let what = format!("the port is down, so {}/{UPLINK} has no carrier", state.name);
                find(finds, far.name.clone(), &port.name, what, ENDS, "interfaces");
            }
            Some((far, port)) if port.mtu < link.mtu => {
                let what = format!(
                    "it passes {} bytes, {}/{UPLINK} sends {}; a switch tells nobody what it drops",
                    port.mtu, state.name, link.mtu
                );
                find(finds, far.name.clone(), &port.name, what, LARGE, "interfaces");
            }
            _ => {}
        }
        self.limited(state, link, finds);
    }

    /// A qdisc that holds packets back.
    fn limited(&self, state: &State, link: &Link, finds: &mut Vec<Find>) {
        let of_link = state.qdiscs.iter().filter(|qdisc| qdisc.index == link.index);
        for qdisc in of_link {
            if let tc::Kind::Tbf(tbf) = &qdisc.kind {
                let what = format!("a token bucket lets {} kbit/s out of {}", tbf.rate * 8 / 1000, link.name);
                find(finds, state.name.clone(), &format!("qdisc of {}", link.name), what, SLOW, "qdiscs");
            }
        }
    }

    fn fabric(&self, i: usize, finds: &mut Vec<Find>) {
        let state = self.states[i];
        let neighbours = [self.states.get(i.wrapping_sub(1)), self.states.get(i + 1)];
        let is_router = neighbours.into_iter().flatten().any(|state| state.role != Role::Node);
        let iif = neighbours[0].map(|before| match before.role {
            Role::Outside => self.cluster.host(&before.name).map(|host| host.wan.clone()).unwrap_or_default(),
            _ => self.toward(state, self.source.ip()),
        });
        let iif = iif.unwrap_or_default();
        if is_router {
            self.routed(state, Some(&iif), finds);
            self.forwards(state, finds);
            self.rules(state, &[Point::Prerouting, Point::Forward, Point::Postrouting], (&iif, ""), finds);
        }
    }

    fn forwards(&self, state: &State, finds: &mut Vec<Find>) {
        let family = Family::of(self.target.ip());
        if !state.forwards(family) {
            let sysctl = forwarding(family).replace('/', ".");
            let part = sysctl.rsplit('.').next().unwrap_or_default().to_owned();
            let what = format!("{sysctl} is 0: it routes for nobody");
            find(finds, state.name.clone(), &part, what, ENDS, "sysctls");
        }
    }

    fn rules(&self, state: &State, hooks: &[Point], (iif, oif): (&str, &str), finds: &mut Vec<Find>) {
        let (source, target) = (self.source.ip(), self.target.ip());
        let ports = (self.source.port(), self.target.port());
        let packet = Packet { iif, oif, source, target, protocol: TCP, ports };
        deeds(state, hooks, &packet, finds);
    }
}

pub(super) fn deeds(state: &State, hooks: &[Point], packet: &Packet<'_>, finds: &mut Vec<Find>) {
    for met in meet(state, hooks, packet) {
        let (what, explains) = match (met.deed, met.is_certain) {
            (Deed::Drop, true) => ("a rule drops such packets", ENDS),
            (Deed::Drop, false) => ("a rule drops some of such packets", SOME),
            (Deed::Reject, _) => ("a rule refuses such packets", ENDS),
            (Deed::Rewrite, _) => ("a rule rewrites the source of such packets", REWRITES),
        };
        find(finds, state.name.clone(), &format!("chain {}", met.chain), what.into(), explains, "chains");
    }
}

pub(super) fn holds(node: &Node, address: IpAddr) -> bool {
    node.pod_cidr.iter().any(|pods| pods.contains(address))
}

/// Somebody listens on the port, and not on localhost only.
pub(super) fn listens(state: &State, target: SocketAddr, finds: &mut Vec<Find>) {
    let Some(listening) = &state.listening else { return };
    let on_port = || listening.iter().filter(|socket| socket.port() == target.port());
    let is_reached = |socket: &SocketAddr| {
        let ip = socket.ip().to_canonical();
        ip.is_unspecified() || ip == target.ip() || target.ip().is_loopback() && ip.is_loopback()
    };
    let part = format!("port {}", target.port());
    if on_port().next().is_none() {
        find(finds, state.name.clone(), &part, "nobody listens on it".into(), ENDS, "");
    } else if !on_port().any(is_reached) {
        let at: Vec<String> = on_port().map(|socket| socket.ip().to_string()).collect();
        let what = format!("the app listens on {} only", at.join(", "));
        find(finds, state.name.clone(), &part, what, ENDS, "");
    }
}

pub(super) fn find(
    finds: &mut Vec<Find>,
    place: String,
    part: &str,
    what: String,
    explains: &'static [Sign],
    look: &'static str,
) {
    let found = Find { place, part: part.to_owned(), what, explains, look };
    if !finds.contains(&found) {
        finds.push(found);
    }
}
