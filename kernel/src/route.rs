//! Routes of all tables: add, replace, delete, list.
//!
//! Multipath routes are shown, one [`Route`] for each nexthop, but not made; encapsulations are neither.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use netlink_packet_core::{Emitable, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteVia,
};

use crate::error::{Cause, Result};
use crate::rtnl::Rtnl;
use crate::wire;

/// RT_SCOPE_UNIVERSE: the destination may be anywhere.
pub const SCOPE_UNIVERSE: u8 = 0;
/// RT_SCOPE_LINK: the destination is on the link; what a gateway must be reached by.
pub const SCOPE_LINK: u8 = 253;
/// RT_SCOPE_HOST: the destination is this host.
pub const SCOPE_HOST: u8 = 254;
/// RT_SCOPE_NOWHERE, in a deletion: any scope.
const SCOPE_NOWHERE: u8 = 255;
/// RT_TABLE_MAIN.
pub const TABLE_MAIN: u32 = 254;
/// RT_TABLE_LOCAL.
pub const TABLE_LOCAL: u32 = 255;
/// RTN_UNICAST.
pub const KIND_UNICAST: u8 = 1;
/// RTN_UNREACHABLE.
pub const KIND_UNREACHABLE: u8 = 7;
/// RTN_BLACKHOLE.
pub const KIND_BLACKHOLE: u8 = 6;
/// RTPROT_KERNEL: made by the kernel itself, for example with an address.
pub const PROTOCOL_KERNEL: u8 = 2;
/// RTPROT_BOOT: what a tool adds by default.
pub const PROTOCOL_BOOT: u8 = 3;

/// linux/rtnetlink.h, `RTA_*`
mod rta {
    pub(super) const DST: u16 = 1;
    pub(super) const OIF: u16 = 4;
    pub(super) const GATEWAY: u16 = 5;
    pub(super) const PRIORITY: u16 = 6;
    pub(super) const PREFSRC: u16 = 7;
    pub(super) const METRICS: u16 = 8;
    pub(super) const MULTIPATH: u16 = 9;
    pub(super) const TABLE: u16 = 15;
    pub(super) const VIA: u16 = 18;
    pub(super) const METRIC_MTU: u16 = 2;
    pub(super) const METRIC_ADVMSS: u16 = 8;
}

/// An IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(ip: IpAddr) -> Family {
        if ip.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// IPv6, or else IPv4.
    pub const fn v6_if(v6: bool) -> Family {
        if v6 { Family::V6 } else { Family::V4 }
    }

    pub(crate) fn number(self) -> AddressFamily {
        match self {
            Family::V4 => AddressFamily::Inet,
            Family::V6 => AddressFamily::Inet6,
        }
    }

    pub(crate) fn from_number(family: AddressFamily) -> Option<Family> {
        match family {
            AddressFamily::Inet => Some(Family::V4),
            AddressFamily::Inet6 => Some(Family::V6),
            _ => None,
        }
    }

    /// All addresses: `0.0.0.0/0` or `::/0`.
    pub fn any(self) -> IpNetwork {
        match self {
            Family::V4 => IpNetwork::V4(ANY_V4),
            Family::V6 => IpNetwork::V6(ANY_V6),
        }
    }
}

const ANY_V4: Ipv4Network = match Ipv4Network::new_checked(Ipv4Addr::UNSPECIFIED, 0) {
    Some(net) => net,
    None => panic!("0.0.0.0/0 is a prefix"),
};
const ANY_V6: Ipv6Network = match Ipv6Network::new_checked(Ipv6Addr::UNSPECIFIED, 0) {
    Some(net) => net,
    None => panic!("::/0 is a prefix"),
};

/// A route (RTM_NEWROUTE, rtnetlink(7)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where to; None, like any prefix of length 0, is the default route. From [`list`], None for default routes.
    pub dst: Option<IpNetwork>,
    /// The family; None takes that of `dst`, else of `gateway`, else of `src`, else IPv4. From [`list`], always set.
    pub family: Option<Family>,
    /// The next hop; for an IPv4 route it may be an IPv6 address.
    pub gateway: Option<IpAddr>,
    /// The index of the outgoing link.
    pub oif: Option<u32>,
    /// The preferred source address.
    pub src: Option<IpAddr>,
    /// The metric; of several routes the lowest wins. None is the kernel's default: 0, for IPv6 1024.
    pub priority: Option<u32>,
    /// The table; None is main (254). From [`list`], always set.
    pub table: Option<u32>,
    /// `RT_SCOPE_*`; None adds with scope universe, also without a gateway, as the reference plugins do, and
    /// deletes whatever the scope. IPv6 knows universe only. From [`list`], always set.
    pub scope: Option<u8>,
    /// The MTU along the route in bytes (RTAX_MTU).
    pub mtu: Option<u32>,
    /// The TCP MSS to announce, in bytes (RTAX_ADVMSS).
    pub advmss: Option<u32>,
    /// `RTN_*`; 1 is unicast.
    pub kind: u8,
    /// `RTPROT_*`; 3 is boot. Deletion does not look at it.
    pub protocol: u8,
    /// The gateway is on the link, whatever the addresses say (RTNH_F_ONLINK).
    pub onlink: bool,
}

impl Default for Route {
    /// The default route of the main table, unicast, protocol boot.
    fn default() -> Self {
        Route {
            dst: None,
            family: None,
            gateway: None,
            oif: None,
            src: None,
            priority: None,
            table: None,
            scope: None,
            mtu: None,
            advmss: None,
            kind: KIND_UNICAST,
            protocol: PROTOCOL_BOOT,
            onlink: false,
        }
    }
}

impl Route {
    /// The family that the route is added to.
    pub fn family(&self) -> Family {
        let told = || self.dst.map(|d| d.ip()).or(self.gateway).or(self.src).map(Family::of);
        self.family.or_else(told).unwrap_or(Family::V4)
    }

    /// The destination as a prefix, also for the default route.
    pub fn destination(&self) -> IpNetwork {
        self.dst.unwrap_or_else(|| self.family().any())
    }

    /// The table's number, main where none is given.
    pub fn table_id(&self) -> u32 {
        self.table.unwrap_or(TABLE_MAIN)
    }
}

/// Adds a route, without exclusion: an exact duplicate is `is_exists()`, another next hop for the same IPv4 prefix is
/// put in front, for IPv6 it joins a multipath route.
pub fn add(rtnl: &mut Rtnl, route: &Route) -> Result<()> {
    rtnl.change(libc::RTM_NEWROUTE, NLM_F_CREATE, &message(route)).map_err(|c| c.about(about("add", route)))
}

/// Adds a route where there is none with the same destination, table and priority; `is_exists()` when there is one,
/// whatever its next hop.
pub fn add_exclusive(rtnl: &mut Rtnl, route: &Route) -> Result<()> {
    rtnl.change(libc::RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &message(route))
        .map_err(|c| c.about(about("add", route)))
}

/// Adds a route or takes the place of the one with the same destination, table and priority.
pub fn replace(rtnl: &mut Rtnl, route: &Route) -> Result<()> {
    rtnl.change(libc::RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &message(route))
        .map_err(|c| c.about(about("replace", route)))
}

/// Deletes the first route that has what is given. `is_not_found()` when none has.
pub fn delete(rtnl: &mut Rtnl, route: &Route) -> Result<()> {
    rtnl.change(libc::RTM_DELROUTE, 0, &delete_message(route)).map_err(|c| c.about(about("delete", route)))
}

/// All routes of one family in the socket's namespace, all tables, without cached ones.
pub fn list(rtnl: &mut Rtnl, family: Family) -> Result<Vec<Route>> {
    let mut query = RouteMessage::default();
    query.header.address_family = family.number();
    rtnl.dump(libc::RTM_GETROUTE, &query, read).map_err(|c| c.about("list routes"))
}

/// The route that a packet of this host's to `ip` takes; its destination is the address alone. ENETUNREACH when there
/// is none.
pub fn lookup(rtnl: &mut Rtnl, ip: IpAddr) -> Result<Route> {
    let mut query = RouteMessage::default();
    query.header.address_family = Family::of(ip).number();
    query.header.destination_prefix_length = if ip.is_ipv4() { 32 } else { 128 };
    query.attributes.push(RouteAttribute::Destination(ip.into()));
    let first = |payload: &[u8]| {
        let mut all = Vec::new();
        read(payload, &mut all)?;
        all.into_iter().next().ok_or_else(|| wire::malformed("a route of no IP family"))
    };
    rtnl.get(libc::RTM_GETROUTE, &query, first).map_err(|c| c.about(format!("look up the route to {ip}")))
}

/// A packet, as far as routes and rules look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Where it goes.
    pub destination: IpAddr,
    /// Where it comes from; None lets the kernel choose.
    pub source: Option<IpAddr>,
    /// The link that it came in by; None for a packet of this host's own.
    pub iif: Option<u32>,
}

/// What the kernel would do with a packet now: the entry of a table that rules and routes lead to (RTM_F_FIB_MATCH, so from
/// 4.13 on). The error is the kernel's own for such a packet: ENETUNREACH without a route, EHOSTUNREACH where it does not
/// forward, EXDEV (EINVAL from 6.14 on) where the source is expected elsewhere (`rp_filter`). Of IPv6 it is about routes and rules alone:
/// whether this host forwards is not looked at.
pub fn decide(rtnl: &mut Rtnl, packet: &Packet) -> Result<Route> {
    let bits = |ip: IpAddr| if ip.is_ipv4() { 32 } else { 128 };
    let mut query = RouteMessage::default();
    query.header.address_family = Family::of(packet.destination).number();
    query.header.destination_prefix_length = bits(packet.destination);
    // IPv6 always tells the table, and refuses to be asked for it.
    query.header.flags = match packet.destination {
        IpAddr::V4(_) => RouteFlags::FibMatch | RouteFlags::LookupTable,
        IpAddr::V6(_) => RouteFlags::FibMatch,
    };
    query.attributes.push(RouteAttribute::Destination(packet.destination.into()));
    if let Some(source) = packet.source {
        query.header.source_prefix_length = bits(source);
        query.attributes.push(RouteAttribute::Source(source.into()));
    }
    query.attributes.extend(packet.iif.map(RouteAttribute::Iif));
    let first = |payload: &[u8]| {
        let mut all = Vec::new();
        read(payload, &mut all)?;
        all.into_iter().next().ok_or_else(|| wire::malformed("a route of no IP family"))
    };
    let subject = || format!("decide on a packet to {}", packet.destination);
    rtnl.get(libc::RTM_GETROUTE, &query, first).map_err(|c| c.about(subject()))
}

pub(crate) fn about(verb: &str, route: &Route) -> String {
    let mut text = format!("{verb} route {}", route.destination());
    let mut more = |word: &str, value: Option<String>| {
        if let Some(v) = value {
            text.push_str(&format!(" {word} {v}"));
        }
    };
    more("via", route.gateway.map(|g| g.to_string()));
    more("dev", route.oif.map(|i| i.to_string()));
    more("table", route.table.map(|t| t.to_string()));
    text
}

pub(crate) fn message(route: &Route) -> RouteMessage {
    let family = route.family();
    let mut m = RouteMessage::default();
    let h = &mut m.header;
    h.address_family = family.number();
    h.scope = route.scope.unwrap_or(SCOPE_UNIVERSE).into();
    h.kind = route.kind.into();
    h.protocol = route.protocol.into();
    if route.onlink {
        h.flags |= RouteFlags::Onlink;
    }
    // The header has eight bits for the table; a greater one is in the attribute alone.
    h.table = u8::try_from(route.table_id()).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);

    let a = &mut m.attributes;
    a.reserve(8);
    if let Some(dst) = route.dst.filter(|d| d.prefix() > 0) {
        m.header.destination_prefix_length = dst.prefix();
        a.push(RouteAttribute::Destination(dst.network().into()));
    }
    if m.header.table == RouteHeader::RT_TABLE_UNSPEC {
        a.push(RouteAttribute::Table(route.table_id()));
    }
    a.extend(route.gateway.map(|g| match Family::of(g) == family {
        true => RouteAttribute::Gateway(g.into()),
        false => RouteAttribute::Via(RouteVia::from(g)),
    }));
    a.extend(route.oif.map(RouteAttribute::Oif));
    a.extend(route.src.map(|s| RouteAttribute::PrefSource(s.into())));
    a.extend(route.priority.map(RouteAttribute::Priority));
    let metrics: Vec<_> =
        route.mtu.map(RouteMetric::Mtu).into_iter().chain(route.advmss.map(RouteMetric::Advmss)).collect();
    if !metrics.is_empty() {
        a.push(RouteAttribute::Metrics(metrics));
    }
    m
}

pub(crate) fn delete_message(route: &Route) -> RouteMessage {
    let mut m = message(route);
    m.header.scope = route.scope.unwrap_or(SCOPE_NOWHERE).into();
    m.header.protocol = 0.into();
    m
}

/// As [`delete_message`], for the route that another program's of the same destination must not stand in for: protocol
/// and all that is given have to agree.
pub(crate) fn delete_own_message(route: &Route) -> RouteMessage {
    let mut m = delete_message(route);
    m.header.protocol = route.protocol.into();
    m
}

/// Reads an RTM_NEWROUTE and appends its nexthops; leaves out what is no IP route.
pub(crate) fn read(payload: &[u8], all: &mut Vec<Route>) -> std::result::Result<(), Cause> {
    let header = RouteHeader::parse(payload).map_err(wire::malformed)?;
    let Some(family) = Family::from_number(header.address_family) else { return Ok(()) };
    let mut route = Route {
        family: Some(family),
        table: Some(u32::from(header.table)),
        scope: Some(header.scope.into()),
        kind: header.kind.into(),
        protocol: header.protocol.into(),
        onlink: header.flags.contains(RouteFlags::Onlink),
        ..Route::default()
    };
    let (mut dst, mut metrics, mut multipath) = (None, None, None);
    wire::attributes(wire::after(payload, header.buffer_len()), |kind, value| match kind {
        rta::DST => dst = wire::to_ip(value),
        rta::TABLE => route.table = wire::to_u32(value).or(route.table),
        rta::PRIORITY => route.priority = wire::to_u32(value),
        rta::PREFSRC => route.src = wire::to_ip(value),
        rta::METRICS => metrics = Some(value),
        rta::MULTIPATH => multipath = Some(value),
        _ => hop(&mut route, kind, value),
    })?;
    if let Some(ip) = dst {
        route.dst = Some(IpNetwork::new(ip, header.destination_prefix_length).map_err(wire::malformed)?);
    }
    if let Some(metrics) = metrics {
        wire::attributes(metrics, |kind, value| match kind {
            rta::METRIC_MTU => route.mtu = wire::to_u32(value),
            rta::METRIC_ADVMSS => route.advmss = wire::to_u32(value),
            _ => {}
        })?;
    }
    match multipath {
        Some(hops) => nexthops(hops, &route, all)?,
        None => all.push(route),
    }
    Ok(())
}

/// The attributes that a route and a nexthop of a multipath route have in common.
fn hop(route: &mut Route, kind: u16, value: &[u8]) {
    match kind {
        rta::OIF => route.oif = wire::to_u32(value),
        rta::GATEWAY => route.gateway = wire::to_ip(value),
        // struct rtvia: a family of two bytes, then the address.
        rta::VIA => route.gateway = wire::to_ip(wire::after(value, 2)),
        _ => {}
    }
}

/// RTA_MULTIPATH is an array of `struct rtnexthop` (length u16, flags u8, hops u8, ifindex u32), each followed by
/// attributes.
fn nexthops(mut bytes: &[u8], route: &Route, all: &mut Vec<Route>) -> std::result::Result<(), Cause> {
    while let [l0, l1, flags, _hops, index @ ..] = bytes {
        let len = usize::from(u16::from_ne_bytes([*l0, *l1]));
        let attributes = bytes.get(8..len).ok_or_else(|| wire::malformed("a nexthop's length"))?;
        let mut one = Route { oif: wire::to_u32(index), ..route.clone() };
        one.onlink = flags & RouteFlags::Onlink.bits() as u8 != 0;
        wire::attributes(attributes, |kind, value| hop(&mut one, kind, value))?;
        all.push(one);
        bytes = wire::after(bytes, len.next_multiple_of(4));
    }
    Ok(())
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    fn bytes(m: &RouteMessage) -> Vec<u8> {
        let mut out = vec![0xee; m.buffer_len()];
        m.emit(&mut out);
        out
    }

    #[test]
    fn message_has_metrics_and_a_great_table_in_attributes() {
        let route = Route {
            dst: Some("10.5.6.7/16".parse().unwrap()),
            gateway: Some("10.1.0.1".parse().unwrap()),
            oif: Some(3),
            priority: Some(9),
            table: Some(1000),
            mtu: Some(1300),
            advmss: Some(1200),
            ..Route::default()
        };
        let expected = [
            2, 16, 0, 0, 0, 3, 0, 1, 0, 0, 0,
            0, // rtmsg: family, lengths, tos, table, protocol, scope, type
            8, 0, 1, 0, 10, 5, 0, 0, // RTA_DST, host bits gone
            8, 0, 15, 0, 0xe8, 3, 0, 0, // RTA_TABLE
            8, 0, 5, 0, 10, 1, 0, 1, // RTA_GATEWAY
            8, 0, 4, 0, 3, 0, 0, 0, // RTA_OIF
            8, 0, 6, 0, 9, 0, 0, 0, // RTA_PRIORITY
            20, 0, 8, 0, // RTA_METRICS
            8, 0, 2, 0, 0x14, 5, 0, 0, // RTAX_MTU
            8, 0, 8, 0, 0xb0, 4, 0, 0, // RTAX_ADVMSS
        ];
        assert_eq!(bytes(&message(&route)), expected);
    }

    #[test]
    fn deletion_asks_for_any_scope_and_protocol() {
        let expected = [10, 0, 0, 0, 254, 0, 255, 1, 0, 0, 0, 0];
        let default = Route { family: Some(Family::V6), ..Route::default() };
        assert_eq!(bytes(&delete_message(&default)), expected);
    }

    #[test]
    fn nexthops_of_a_multipath_route_become_routes() {
        let mut payload = vec![2, 16, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
        payload.extend([8, 0, 1, 0, 10, 5, 0, 0]); // RTA_DST
        payload.extend([36, 0, 9, 0]); // RTA_MULTIPATH
        payload.extend([16, 0, 0, 0, 3, 0, 0, 0, 8, 0, 5, 0, 10, 1, 0, 1]); // rtnexthop, RTA_GATEWAY
        payload.extend([16, 0, 4, 9, 4, 0, 0, 0, 8, 0, 5, 0, 10, 2, 0, 1]); // the same with RTNH_F_ONLINK
        let mut all = Vec::new();
        read(&payload, &mut all).unwrap();
        let hops: Vec<_> = all.iter().map(|r| (r.oif, r.gateway.unwrap().to_string(), r.onlink)).collect();
        assert_eq!(hops, [(Some(3), "10.1.0.1".into(), false), (Some(4), "10.2.0.1".into(), true)]);
        assert!(all.iter().all(|r| r.dst == Some("10.5.0.0/16".parse().unwrap())));

        let cut = payload.len() - 16;
        payload[cut] = 200;
        assert!(read(&payload, &mut all).is_err(), "a nexthop longer than the attribute");
        payload[cut] = 0;
        assert!(read(&payload, &mut all).is_err(), "a nexthop without length");
    }

    #[test]
    fn family_follows_what_is_known() {
        let route = Route::default();
        assert_eq!((route.family(), route.destination().to_string()), (Family::V4, "0.0.0.0/0".into()));
        let by_gateway = Route { gateway: Some("fd00::1".parse().unwrap()), ..Route::default() };
        assert_eq!(by_gateway.family(), Family::V6);
        let told = Route { family: Some(Family::V4), ..by_gateway };
        assert_eq!((told.family(), told.table_id()), (Family::V4, TABLE_MAIN));
    }
}
