//! What in the kernel sent a packet on, and what became of one that was lost: the entries of routes, neighbours,
//! forwarding databases and connection tracking, looked up right after the packet has passed.
//!
//! The kernel itself is asked what it would do with such a packet, so policy rules, other tables, forwarding and
//! `rp_filter` are in the answer.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use kernel::conntrack::{self, Tuple};
use kernel::neigh::{FdbEntry, Neigh};
use kernel::route::{self, KIND_UNICAST, Packet as Asked, Route, TABLE_MAIN};
use kernel::{Family, Mac, Nfnl, Rtnl, link, neigh, sysctl};
use nix::libc;
use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;
use crate::fabric::forwarding;
use crate::packet::Ip;
use crate::probe::Protocol;
use crate::sighting::{Direction, Sighting};

use super::hooks::HookStep;

/// `RTN_LOCAL`
const KIND_LOCAL: u8 = 2;
/// `RTN_*` beside these two, by what they do to a packet (linux/rtnetlink.h).
const REFUSING: [(u8, &str); 3] = [(6, "blackhole"), (7, "unreachable"), (8, "prohibit")];

/// What to try when nothing that was asked has lost a packet.
const HINT: &str = "a firewall? try: podlab trace --hooks";

/// What became of a packet that did not arrive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// Which packet: `SYN`.
    pub packet: String,
    /// Where it was last seen; None when it was on no interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// What kind of thing lost it.
    pub kind: LostKind,
    /// In words, with the kernel's entry.
    pub reason: String,
    /// The kernel's own word for dropping a packet then and there (`skb:kfree_skb`), where it can be heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
}

/// What was dropped meanwhile, anywhere on this machine.
#[derive(Default)]
pub(super) struct Dropped(pub(super) Vec<kernel::drops::Dropped>);

/// A packet is dropped this soon after it was seen last, in nanoseconds.
const SOON_NS: u64 = 300_000;
/// What the kernel says when a socket of our own has looked at a packet and lets it go.
const NO_LOSS: [&str; 2] = ["SOCKET_FILTER", "PACKET_SOCK_ERROR"];

impl Dropped {
    /// The reason for the first packet of the kind that was dropped right after a sighting.
    fn after(&self, s: &Sighting) -> Option<String> {
        let ether_type = if s.ip()?.source.is_ipv4() { 0x0800 } else { 0x86dd };
        let is_it = |d: &&kernel::drops::Dropped| {
            let after = d.stamp_ns.checked_sub(s.stamp_ns);
            d.ether_type == ether_type
                && after.is_some_and(|ns| ns < SOON_NS)
                && !NO_LOSS.contains(&d.reason.as_str())
        };
        self.0.iter().find(is_it).map(|dropped| dropped.reason.clone())
    }
}

/// What loses packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LostKind {
    /// A rule or policy of nf_tables.
    Firewall,
    /// There is no route, or one that refuses.
    NoRoute,
    /// The host does not forward.
    NoForwarding,
    /// The source is expected on another link, or can be none.
    ReversePath,
    /// The next hop does not answer.
    Neighbour,
    /// The TTL has come to its end.
    Ttl,
    /// The frame was for another MAC.
    OtherMac,
    /// A link is down.
    LinkDown,
    /// The bridge knows no port for it, or the port is none any more.
    Bridge,
    /// It arrived, and nobody took it.
    NobodyListens,
    /// It is longer than the next link takes, and must not be cut.
    TooBig,
    /// Nothing that could be asked tells.
    Unknown,
}

/// A namespace as it was right after.
struct Place {
    rtnl: RefCell<Rtnl>,
    links: Vec<link::Link>,
    neighbours: Vec<Neigh>,
    fdb: Vec<FdbEntry>,
    flows: Flows,
    forwards: bool,
}

/// The connections of a namespace, read where something was translated: the kernel has one table for all of the machine,
/// and passing over it takes it longer than all other questions of a trace together.
struct Flows {
    /// None where there is no connection tracking, which then has done nothing.
    nfnl: Option<RefCell<Nfnl>>,
    filter: conntrack::Filter,
    all: OnceCell<Vec<conntrack::Flow>>,
}

impl Flows {
    fn all(&self) -> &[conntrack::Flow] {
        self.all.get_or_init(|| {
            let list = |nfnl: &RefCell<Nfnl>| conntrack::list(&mut nfnl.borrow_mut(), &self.filter).ok();
            self.nfnl.as_ref().and_then(list).unwrap_or_default()
        })
    }
}

/// The namespaces of a flow.
#[derive(Default)]
pub(super) struct Causes {
    places: HashMap<String, Place>,
}

/// What the kernel says of a packet.
enum Decision {
    Route(Route),
    Refused(i32),
}

impl Causes {
    /// Reads the namespaces of these names.
    pub(super) fn read<'n>(
        cluster: &Cluster,
        names: impl IntoIterator<Item = &'n str>,
        packet: (Protocol, Family),
    ) -> Result<Causes> {
        let mut causes = Causes::default();
        for name in names {
            if causes.places.contains_key(name) {
                continue;
            }
            let Some(space) = cluster.space(name) else { continue };
            let place = Place::read(space, packet).with_context(|| format!("look into {name}"))?;
            causes.places.insert(name.to_owned(), place);
        }
        Ok(causes)
    }

    /// The entries that sent sighting `i` of a walk where it is, or on from there.
    pub(super) fn of(&self, walk: &[&Sighting], i: usize) -> Vec<String> {
        let s = walk[i];
        let (Some(place), Some(ip)) = (self.places.get(&s.at.space), s.ip()) else { return Vec::new() };
        let mut all = Vec::new();
        let arrival = arrival(walk, i);
        match (s.direction, &s.at.port_of) {
            (Direction::In, Some(_)) => all.extend(place.bridged(s)),
            (Direction::Out, None) => {
                let target = s.packet.outer.map_or(ip.target, |outer| outer.target.ip());
                let asked = match (s.packet.outer, arrival) {
                    (None, Some(arrival)) => place.asked(target, arrival),
                    _ => Asked { destination: target, source: None, iif: None },
                };
                if let Decision::Route(route) = place.decide(&asked) {
                    all.push(place.route_words(&route));
                    all.extend(place.neighbour_words(&route, target));
                }
                all.extend(
                    s.packet.outer.and_then(|outer| place.tunnelled(outer.target.ip(), s.packet.target_mac)),
                );
            }
            _ => {}
        }
        let before = i.checked_sub(1).map(|i| walk[i]).filter(|before| before.at.space == s.at.space);
        let ends = |ip: &Ip| (ip.from(), ip.to());
        if let Some(before) = before.and_then(|before| before.ip())
            && ends(before) != ends(ip)
        {
            all.extend(place.translated([ends(before), ends(ip)]));
        }
        all
    }

    /// What became of the packet of a walk that did not go on after its last sighting.
    pub(super) fn lost(
        &self,
        packet: &str,
        walk: &[&Sighting],
        steps: &[&HookStep],
        dropped: &Dropped,
    ) -> Option<Lost> {
        let s = *walk.last()?;
        let place = self.places.get(&s.at.space)?;
        let drop = steps.iter().rev().find(|step| step.space == s.at.space && step.is_drop());
        let (kind, reason) = match drop {
            Some(step) => (LostKind::Firewall, format!("dropped at {}", step.words())),
            None => place.fate(s, arrival(walk, walk.len())),
        };
        let kernel = dropped.after(s);
        let kind = match (kind, kernel.as_deref()) {
            (LostKind::Unknown, Some("NETFILTER_DROP" | "TC_INGRESS" | "TC_EGRESS" | "XDP")) => {
                LostKind::Firewall
            }
            _ => kind,
        };
        Some(Lost { packet: packet.into(), at: Some(s.to_string()), kind, reason, kernel })
    }

    /// What became of a packet that was seen nowhere: it never left the namespace that sent it.
    pub(super) fn never_left(&self, space: &str, target: IpAddr, steps: &[&HookStep]) -> Option<Lost> {
        let place = self.places.get(space)?;
        let drop = steps.iter().rev().find(|step| step.space == space && step.is_drop());
        let (kind, reason) = match drop {
            Some(step) => (LostKind::Firewall, format!("dropped at {}", step.words())),
            None => place.onward(&Asked { destination: target, source: None, iif: None }, None),
        };
        Some(Lost {
            packet: "the first packet".into(),
            at: None,
            kind,
            reason: format!("{space}: {reason}"),
            kernel: None,
        })
    }
}

/// The sighting by which the packet came to the host where `walk[i]` is, as routing sees it: not on a bridge's port.
fn arrival<'w>(walk: &[&'w Sighting], i: usize) -> Option<&'w Sighting> {
    let space = &walk.get(i).or(walk.last())?.at.space;
    let here = walk[..i].iter().rev().take_while(|s| s.at.space == *space);
    here.copied().find(|s| s.direction == Direction::In && s.at.port_of.is_none())
}

impl Place {
    fn read(space: &crate::cluster::Space, (protocol, family): (Protocol, Family)) -> Result<Place> {
        let mut rtnl = Rtnl::open_in(&space.netns)?;
        let filter = conntrack::Filter {
            family,
            protocol: protocol.number(family),
            port: None,
            destination: None,
            server: None,
        };
        let nfnl = Nfnl::open_in(&space.netns).ok().map(RefCell::new);
        let forwards = space.netns.run(|| sysctl::read(forwarding(family)))?;
        Ok(Place {
            links: link::list(&mut rtnl)?,
            neighbours: neigh::list(&mut rtnl)?,
            fdb: neigh::fdb(&mut rtnl)?,
            flows: Flows { nfnl, filter, all: OnceCell::new() },
            forwards: forwards.is_ok_and(|value| value.trim() == "1"),
            rtnl: RefCell::new(rtnl),
        })
    }

    fn link(&self, name: &str) -> Option<&link::Link> {
        self.links.iter().find(|link| link.name == name)
    }

    fn name(&self, index: u32) -> &str {
        self.links.iter().find(|link| link.index == index).map_or("?", |link| &link.name)
    }

    /// A packet to `target` that came as `arrival` did.
    fn asked(&self, target: IpAddr, arrival: &Sighting) -> Asked {
        Asked {
            destination: target,
            source: arrival.ip().map(|ip| ip.source),
            iif: self.link(&arrival.at.interface).map(|link| link.index),
        }
    }

    fn decide(&self, asked: &Asked) -> Decision {
        match route::decide(&mut self.rtnl.borrow_mut(), asked) {
            Ok(route) => Decision::Route(route),
            Err(err) => Decision::Refused(err.errno().unwrap_or(0)),
        }
    }

    /// `route 10.244.2.0/24 via 192.0.2.12 on eth0`, `default via …`, with the table where it is not the main one.
    fn route_words(&self, route: &Route) -> String {
        let mut text = match route.destination() {
            net if net.prefix() == 0 => "default".to_owned(),
            net => format!("route {net}"),
        };
        if let Some((_, word)) = REFUSING.iter().find(|(kind, _)| *kind == route.kind) {
            text = format!("{word} {text}");
        }
        text.extend(route.gateway.map(|gateway| format!(" via {gateway}")));
        text.extend(route.oif.map(|index| format!(" on {}", self.name(index))));
        if ![TABLE_MAIN, route::TABLE_LOCAL].contains(&route.table_id()) {
            text.push_str(&format!(" of table {}", route.table_id()));
        }
        text
    }

    /// The neighbour that a route leads to, if its link has such.
    fn neighbour(&self, route: &Route, target: IpAddr) -> Option<(IpAddr, Option<&Neigh>)> {
        let hop = route.gateway.unwrap_or(target);
        let index = route.oif?;
        let has_frames = self.links.iter().any(|l| l.index == index && l.mac.is_some() && l.name != "lo");
        has_frames.then(|| (hop, self.neighbours.iter().find(|n| n.index == index && n.addr == hop)))
    }

    fn neighbour_words(&self, route: &Route, target: IpAddr) -> Option<String> {
        let (hop, found) = self.neighbour(route, target)?;
        let found = found?;
        let at = found.mac.map(|mac| format!(" is at {mac}")).unwrap_or_default();
        Some(format!("neighbour {hop}{at} ({})", found.state_word()))
    }

    /// The port that a frame's destination is behind.
    fn bridged(&self, s: &Sighting) -> Option<String> {
        let bridge = self.link(s.at.port_of.as_deref()?)?.index;
        let mac = s.packet.target_mac;
        let of_bridge =
            |entry: &&FdbEntry| entry.mac == mac && (entry.master == Some(bridge) || entry.index == bridge);
        let entry = self.fdb.iter().find(of_bridge)?;
        Some(format!("FDB {mac} at {}", self.name(entry.index)))
    }

    /// The entry that tells a tunnel's device which node a MAC is on.
    fn tunnelled(&self, node: IpAddr, mac: Mac) -> Option<String> {
        let entry = self.fdb.iter().find(|entry| entry.dst == Some(node) && entry.mac == mac)?;
        Some(format!("FDB {mac} at {node} by {}", self.name(entry.index)))
    }

    /// The connection that a packet belongs to, by its ends before and after a rewriting.
    fn translated(&self, ends: [(SocketAddr, SocketAddr); 2]) -> Option<String> {
        let end = |ip: IpAddr, port: u16| SocketAddr::new(ip, port);
        let both = |t: &Tuple| (end(t.source, t.source_port), end(t.destination, t.destination_port));
        let is_of = |flow: &&conntrack::Flow| {
            let known = [both(&flow.original), both(&flow.reply)];
            // A packet that is translated twice is, after the first time, neither as it was sent nor as it arrives.
            known.iter().any(|&(from, to)| ends.contains(&(from, to)) || ends.contains(&(to, from)))
        };
        let flow = self.flows.all().iter().find(is_of)?;
        let words = |t: &Tuple| {
            let (from, to) = both(t);
            format!("{} > {}", super::walk::show(from), super::walk::show(to))
        };
        Some(format!("conntrack {}, answers {}", words(&flow.original), words(&flow.reply)))
    }

    /// Why a packet that was last seen here went no further.
    fn fate(&self, s: &Sighting, arrival: Option<&Sighting>) -> (LostKind, String) {
        let Some(ip) = s.ip() else { return (LostKind::Unknown, "no IP packet".into()) };
        let is_down =
            |link: &&link::Link| !link.up || link.oper_state == "down" || link.oper_state == "lowerlayerdown";
        let own = self.link(&s.at.interface);
        match (s.direction, &s.at.port_of) {
            (Direction::Out, _) => match own.filter(is_down) {
                Some(link) => (LostKind::LinkDown, format!("link {} is {}", link.name, link.oper_state)),
                None => (
                    LostKind::Unknown,
                    format!("it left by {} and was not seen at the other end", s.at.interface),
                ),
            },
            (Direction::In, Some(bridge)) => {
                let mac = s.packet.target_mac;
                match self.bridged(s) {
                    Some(port) => {
                        (LostKind::Bridge, format!("bridge {bridge} did not pass it on, though {port}"))
                    }
                    None => (LostKind::Bridge, format!("no port of bridge {bridge} has {mac}")),
                }
            }
            (Direction::In, None) if s.is_overheard => {
                let own =
                    own.and_then(|link| link.mac).map(|mac| format!(", and {} has {mac}", s.at.interface));
                let text = format!("the frame is for {}{}", s.packet.target_mac, own.unwrap_or_default());
                (LostKind::OtherMac, text)
            }
            (Direction::In, None) => match s.packet.outer {
                Some(outer) => {
                    let asked = Asked { destination: outer.target.ip(), source: None, iif: None };
                    let (kind, reason) = self.onward(&asked, Some((s, ip)));
                    (kind, format!("in {outer}, which nobody unpacked: {reason}"))
                }
                None => self.onward(&self.asked(ip.target, arrival.unwrap_or(s)), Some((s, ip))),
            },
        }
    }

    /// Why the kernel refuses a packet: for its destination, which a packet of the host's own would tell too, or for the way
    /// it came.
    fn refused(&self, asked: &Asked) -> (LostKind, String) {
        let to = asked.destination;
        let own = self.decide(&Asked { source: None, iif: None, ..*asked });
        match own {
            Decision::Refused(libc::EINVAL) => {
                (LostKind::NoRoute, format!("the route to {to} is a blackhole"))
            }
            Decision::Refused(libc::EACCES) => (LostKind::NoRoute, format!("the route to {to} prohibits it")),
            Decision::Refused(_) => (LostKind::NoRoute, format!("no route to {to}")),
            Decision::Route(_) if !self.forwards => self.not_forwarded(to),
            Decision::Route(_) => {
                let source = asked.source.map(|source| source.to_string()).unwrap_or_default();
                let text = format!(
                    "a packet from {source} is not expected on this link (rp_filter), or none can be"
                );
                (LostKind::ReversePath, text)
            }
        }
    }

    fn not_forwarded(&self, to: IpAddr) -> (LostKind, String) {
        let sysctl = forwarding(Family::of(to)).replace('/', ".");
        (LostKind::NoForwarding, format!("it does not forward ({sysctl} is 0)"))
    }

    /// What the kernel would do with a packet, as a reason for not having seen it again.
    fn onward(&self, asked: &Asked, packet: Option<(&Sighting, &Ip)>) -> (LostKind, String) {
        let to = asked.destination;
        let route = match self.decide(asked) {
            Decision::Route(route) => route,
            Decision::Refused(_) => return self.refused(asked),
        };
        let words = self.route_words(&route);
        if route.kind == KIND_LOCAL {
            let text = format!("{to} is its own address: it arrived, and nobody took it");
            return (LostKind::NobodyListens, text);
        }
        if route.kind != KIND_UNICAST {
            return (LostKind::NoRoute, words);
        }
        if asked.iif.is_some() && !self.forwards {
            return self.not_forwarded(to);
        }
        if packet.is_some_and(|(_, ip)| ip.ttl <= 1) {
            return (LostKind::Ttl, format!("its TTL has come to an end, before {words}"));
        }
        let out = route.oif.and_then(|index| self.links.iter().find(|link| link.index == index));
        if let Some(link) = out.filter(|link| !link.up || link.oper_state == "lowerlayerdown") {
            return (LostKind::LinkDown, format!("{words}, and that link is {}", link.oper_state));
        }
        match self.neighbour(&route, to) {
            Some((hop, Some(found))) if matches!(found.state_word(), "failed" | "incomplete") => {
                return (LostKind::Neighbour, format!("neighbour {hop} does not answer ({words})"));
            }
            // Whoever had come so far would have asked for it.
            Some((hop, None)) => {
                let text = format!("something took it before {words} asked for neighbour {hop} · {HINT}");
                return (LostKind::Unknown, text);
            }
            _ => {}
        }
        let len = packet.and_then(|(s, _)| s.frame.as_ref()).map(|frame| frame.original_len);
        if let Some((link, len)) = out.zip(len).filter(|(link, len)| *len > link.mtu + 14) {
            return (LostKind::TooBig, format!("{len} bytes, and {} takes {}", link.name, link.mtu));
        }
        (LostKind::Unknown, format!("it was not seen to leave, though there is {words} · {HINT}"))
    }
}
