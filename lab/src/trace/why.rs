//! Why a packet is where it is: the route that sent it there, the bridge that passed it on.
//!
//! From the main route table of each namespace by longest prefix, read after the packet has passed. Rules and other tables
//! are not looked at: where they decide, what the kernel says ([`super::causes`]) takes the place of the reason given here.

use std::collections::HashMap;
use std::net::IpAddr;

use anyhow::{Context, Result};
use kernel::route::{self, Family, KIND_UNICAST, Route, TABLE_LOCAL, TABLE_MAIN};
use kernel::{Rtnl, link};

use crate::cluster::Cluster;
use crate::encap::Outer;
use crate::sighting::{Direction, Flow, Sighting};
use crate::step::{TO_NODE, TO_SWITCH};

/// `RTN_LOCAL`: the address is this host's.
const KIND_LOCAL: u8 = 2;

/// The routes of the namespaces that a flow passed.
#[derive(Debug, Default)]
pub(super) struct Tables {
    spaces: HashMap<String, Table>,
}

#[derive(Debug, Default)]
struct Table {
    routes: Vec<Route>,
    names: HashMap<u32, String>,
}

impl Tables {
    pub(super) fn read(cluster: &Cluster, flow: &Flow<'_>) -> Result<Tables> {
        let mut tables = Tables::default();
        let all = [&flow.knock, &flow.welcome, &flow.request, &flow.reply].into_iter().flatten();
        for s in all {
            let name = &s.at.space;
            if tables.spaces.contains_key(name) {
                continue;
            }
            let Some(space) = cluster.space(name) else { continue };
            let mut rtnl = Rtnl::open_in(&space.netns)?;
            let mut read = || -> kernel::Result<Table> {
                let mut routes = route::list(&mut rtnl, Family::V4)?;
                routes.extend(route::list(&mut rtnl, Family::V6)?);
                let links = link::list(&mut rtnl)?;
                Ok(Table { routes, names: links.into_iter().map(|l| (l.index, l.name)).collect() })
            };
            let table = read().with_context(|| format!("read the routes of {name}"))?;
            tables.spaces.insert(name.clone(), table);
        }
        Ok(tables)
    }

    /// Why the walk's sighting `i` is there or where it goes from there.
    pub(super) fn why(&self, walk: &[&Sighting], i: usize) -> String {
        let s = walk[i];
        if let Some(outer) = &s.packet.outer {
            return self.packed(s, outer, walk.get(i + 1).copied());
        }
        let next = walk.get(i + 1).filter(|next| next.at.space == s.at.space);
        if let Some(words) = held(s, next) {
            return words.into();
        }
        match (s.direction, &s.at.port_of) {
            (Direction::Out, Some(bridge)) => format!("bridge {bridge}"),
            (Direction::Out, None) => self.route(s),
            (Direction::In, Some(bridge)) => match next {
                Some(next) if next.at.interface == *bridge => format!("bridge {bridge}, to host"),
                Some(next) => format!("bridge {bridge}, to {}", next.at.interface),
                None => format!("bridge {bridge}, no further"),
            },
            (Direction::In, None) if s.is_overheard => "for another MAC: ignored".into(),
            (Direction::In, None) => match next {
                Some(_) => "not its address: forwarded".into(),
                None => self.end(s),
            },
        }
    }

    /// Of a packet in another: what it is in, and where that goes.
    fn packed(&self, s: &Sighting, outer: &Outer, next: Option<&Sighting>) -> String {
        let target = outer.target.ip();
        let unpacked = next.filter(|next| next.at.space == s.at.space && next.packet.outer.is_none());
        let why = match (s.direction, &s.at.port_of, unpacked) {
            (Direction::In, _, Some(next)) => format!("unpacked by {}", next.at.interface),
            (_, Some(bridge), _) => format!("bridge {bridge}"),
            (Direction::Out, None, _) => self.route_to(s, target),
            (Direction::In, None, _) if self.is_local(s, target) => {
                "its own address: nobody unpacks it".into()
            }
            (Direction::In, None, _) => "not its address: forwarded".into(),
        };
        format!("in {outer}: {why}")
    }

    fn is_local(&self, s: &Sighting, target: IpAddr) -> bool {
        self.spaces.get(&s.at.space).is_some_and(|table| table.is_local(target))
    }

    /// The route that a packet going out took.
    fn route(&self, s: &Sighting) -> String {
        s.ip().map(|ip| self.route_to(s, ip.target)).unwrap_or_default()
    }

    fn route_to(&self, s: &Sighting, target: IpAddr) -> String {
        let Some(table) = self.spaces.get(&s.at.space) else { return String::new() };
        match table.lookup(target) {
            Some(route) => table.words(route),
            None if table.is_local(target) => "its own address".into(),
            None => format!("no route to {target} in the main table"),
        }
    }

    /// What became of a packet that was not seen going on.
    fn end(&self, s: &Sighting) -> String {
        let (Some(table), Some(ip)) = (self.spaces.get(&s.at.space), s.ip()) else { return String::new() };
        match table.lookup(ip.target) {
            _ if table.is_local(ip.target) => "its own address: delivered".into(),
            Some(route) => format!("no further, though there is {}", table.words(route)),
            None => format!("no route to {}: dropped", ip.target),
        }
    }
}

impl Table {
    /// The best route of the main table: the longest prefix, then the lowest metric.
    fn lookup(&self, target: IpAddr) -> Option<&Route> {
        let of_main = |r: &&Route| r.table_id() == TABLE_MAIN && r.family() == Family::of(target);
        let fitting = self.routes.iter().filter(of_main).filter(|r| r.destination().contains(target));
        fitting.min_by_key(|r| (u8::MAX - r.destination().prefix(), r.priority.unwrap_or(0)))
    }

    fn is_local(&self, target: IpAddr) -> bool {
        let of_local = |r: &&Route| r.table_id() == TABLE_LOCAL && r.kind == KIND_LOCAL;
        self.routes.iter().filter(of_local).any(|r| r.destination().contains(target))
    }

    /// `route 10.244.2.0/24 via 192.0.2.12`, `default via 10.244.1.1`, `route 10.244.1.0/24 on cni0`.
    fn words(&self, route: &Route) -> String {
        let destination = route.destination();
        let what = match destination.prefix() {
            0 => "default".to_owned(),
            _ => format!("route {destination}"),
        };
        let link = route.oif.and_then(|index| self.names.get(&index));
        match (route.kind, route.gateway, link) {
            (KIND_UNICAST, Some(gateway), _) => format!("{what} via {gateway}"),
            (KIND_UNICAST, None, Some(name)) => format!("{what} on {name}"),
            (KIND_UNICAST, None, None) => what,
            (kind, ..) => format!("{what} (kind {kind}: refused)"),
        }
    }
}

/// What happens at the ends of a wire that is held ([`crate::step`]); the kernel has no table for it.
fn held(s: &Sighting, next: Option<&&Sighting>) -> Option<&'static str> {
    let is_end = |s: &Sighting| [TO_NODE, TO_SWITCH].contains(&s.at.interface.as_str());
    match s.direction {
        Direction::Out if is_end(s) => Some("waits until it is let go by"),
        Direction::In if s.at.interface == TO_NODE => Some("let go by, to the node"),
        Direction::In if !is_end(s) && next.is_some_and(|next| next.at.interface == TO_NODE) => {
            Some("the held wire")
        }
        Direction::In | Direction::Out => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sighting::tests::seen;

    fn route(dst: &str, gateway: Option<&str>, oif: u32) -> Route {
        Route {
            dst: Some(dst.parse().unwrap()),
            gateway: gateway.map(|g| g.parse().unwrap()),
            oif: Some(oif),
            table: Some(TABLE_MAIN),
            ..Route::default()
        }
    }

    fn node1() -> Tables {
        let own = Route { table: Some(TABLE_LOCAL), kind: KIND_LOCAL, ..route("10.244.1.1/32", None, 2) };
        let table = Table {
            routes: vec![
                route("0.0.0.0/0", Some("192.0.2.1"), 3),
                Route { priority: Some(100), ..route("10.244.2.0/24", Some("192.0.2.99"), 3) },
                route("10.244.2.0/24", Some("192.0.2.12"), 3),
                route("10.244.1.0/24", None, 2),
                Route { kind: route::KIND_BLACKHOLE, ..route("10.66.0.0/16", None, 3) },
                own,
            ],
            names: HashMap::from([(2, "cni0".into()), (3, "eth0".into())]),
        };
        Tables { spaces: HashMap::from([("node1".into(), table)]) }
    }

    fn why(place: &str, to: &str) -> String {
        let s = seen(place, 1, "10.244.1.2:40000", to, 64, "");
        node1().why(&[&s], 0)
    }

    #[test]
    fn packet_going_out_names_the_best_route() {
        assert_eq!(why("node1/eth0 out", "10.244.2.2:8080"), "route 10.244.2.0/24 via 192.0.2.12");
        assert_eq!(why("node1/cni0 out", "10.244.1.3:8080"), "route 10.244.1.0/24 on cni0");
        assert_eq!(why("node1/eth0 out", "203.0.113.9:8080"), "default via 192.0.2.1");
        assert_eq!(why("node1/veth2 out", "10.244.1.3:8080"), "bridge cni0");
        assert_eq!(why("node1/eth0 out", "10.66.0.1:80"), "route 10.66.0.0/16 (kind 6: refused)");
    }

    #[test]
    fn packet_coming_in_tells_where_it_goes_next() {
        let tables = node1();
        let at = |place: &str| seen(place, 1, "10.244.1.2:40000", "10.244.2.2:8080", 64, "");
        let (veth, bridge, other) = (at("node1/veth1 in"), at("node1/cni0 in"), at("node1/veth2 out"));
        assert_eq!(tables.why(&[&veth, &bridge], 0), "bridge cni0, to host");
        assert_eq!(tables.why(&[&veth, &other], 0), "bridge cni0, to veth2");
        assert_eq!(tables.why(&[&veth], 0), "bridge cni0, no further");
        assert_eq!(tables.why(&[&bridge, &at("node1/eth0 out")], 0), "not its address: forwarded");
        let flooded = Sighting { is_overheard: true, ..at("kubia-9/eth0 in") };
        assert_eq!(tables.why(&[&flooded], 0), "for another MAC: ignored");
    }

    #[test]
    fn packed_packet_follows_the_route_of_what_it_is_in() {
        let tables = node1();
        let outer = |from: &str, to: &str| {
            Some(Outer { vni: 1, source: from.parse().unwrap(), target: to.parse().unwrap(), overhead: 50 })
        };
        let at = |place: &str| seen(place, 1, "10.244.1.2:40000", "10.244.2.2:8080", 63, "");
        let mut out = at("node1/eth0 out");
        out.packet.outer = outer("192.0.2.11:50000", "192.0.2.12:8472");
        let text = "in VXLAN 1 192.0.2.11 > 192.0.2.12:8472: default via 192.0.2.1";
        assert_eq!(tables.why(&[&out], 0), text);
        let mut back = at("node1/eth0 in");
        back.packet.outer = outer("192.0.2.12:50000", "10.244.1.1:8472");
        let text = "in VXLAN 1 192.0.2.12 > 10.244.1.1:8472: unpacked by vx0";
        assert_eq!(tables.why(&[&back, &at("node1/vx0 in")], 0), text);
        let text = "in VXLAN 1 192.0.2.12 > 10.244.1.1:8472: its own address: nobody unpacks it";
        assert_eq!(tables.why(&[&back], 0), text);
    }

    #[test]
    fn a_wire_that_is_held_is_told_at_each_of_its_ends() {
        let tables = node1();
        let at = |place: &str| seen(place, 1, "10.244.1.2:40000", "10.244.2.2:8080", 63, "");
        let (port, near, far) =
            (at("fabric/node1 in"), at("fabric/step-node out"), at("fabric/step-switch in"));
        assert_eq!(tables.why(&[&port, &near], 0), "the held wire");
        assert_eq!(tables.why(&[&near, &far], 0), "waits until it is let go by");
        assert_eq!(
            tables.why(&[&at("fabric/step-node in"), &at("fabric/node1 out")], 0),
            "let go by, to the node"
        );
        assert_ne!(tables.why(&[&port, &at("fabric/lan0 in")], 0), "the held wire");
    }

    #[test]
    fn packet_that_ends_is_delivered_or_lost() {
        assert_eq!(why("node1/cni0 in", "10.244.1.1:8080"), "its own address: delivered");
        let text = "no further, though there is route 10.244.2.0/24 via 192.0.2.12";
        assert_eq!(why("node1/cni0 in", "10.244.2.2:8080"), text);
        assert_eq!(why("node1/cni0 in", "[fd00::1]:80"), "no route to fd00::1: dropped");
    }
}
