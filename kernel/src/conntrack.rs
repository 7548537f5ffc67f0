//! Connections that the kernel follows: listed, marked, and forgotten by what they were opened to or whose they are.
//!
//! Needed where a rewriting of addresses has changed: a flow that the kernel knows keeps its old rewriting, for UDP as
//! long as datagrams come. Nothing here makes an entry, and nothing of one is changed but its mark.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use crate::error::{Cause, Result};
use crate::nfnl::Nfnl;
use crate::nft::{Attrs, Body, to_u16, to_u32};
use crate::route::Family;
use crate::wire;

/// linux/netfilter/nfnetlink.h, `NFNL_SUBSYS_CTNETLINK`; linux/netfilter/nfnetlink_conntrack.h, `IPCTNL_MSG_CT_*`
const CHANGE: u16 = 1 << 8;
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
const GET_STATS: u16 = 1 << 8 | 5;
/// `struct nfgenmsg`
const HEADER: usize = 4;

/// `CTA_*`
mod cta {
    pub(super) const TUPLE_ORIG: u16 = 1;
    pub(super) const TUPLE_REPLY: u16 = 2;
    pub(super) const MARK: u16 = 8;
    pub(super) const ID: u16 = 12;
    pub(super) const ZONE: u16 = 18;
    pub(super) const MARK_MASK: u16 = 21;
    pub(super) const FILTER: u16 = 25;
    pub(super) const TUPLE_IP: u16 = 1;
    pub(super) const IP_V4_SRC: u16 = 1;
    pub(super) const TUPLE_PROTO: u16 = 2;
    pub(super) const PROTO_NUM: u16 = 1;
    pub(super) const PROTO_SRC_PORT: u16 = 2;
    pub(super) const PROTO_DST_PORT: u16 = 3;
    pub(super) const STATS_GLOBAL_ENTRIES: u16 = 1;
    pub(super) const FILTER_ORIG_FLAGS: u16 = 1;
    pub(super) const FILTER_REPLY_FLAGS: u16 = 2;
}

/// Bits of CTA_FILTER_ORIG_FLAGS: which fields of the tuple count (nf_conntrack_netlink.c).
const BY_SOURCE: u32 = 1;
const BY_PROTOCOL: u32 = 1 << 3;
const BY_DST_PORT: u32 = 1 << 5;

/// From how many connections on the kernel is asked for those of one IPv4 address alone. It goes through its table twice
/// for that, which takes as long as it takes to tell of some thousand.
const MANY: u32 = 8_000;

/// Which connections are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filter {
    /// Their IP version.
    pub family: Family,
    /// Their transport protocol: 6 TCP, 17 UDP, 132 SCTP.
    pub protocol: u8,
    /// The port they were opened to, before any rewriting.
    pub port: Option<u16>,
    /// The address they were opened to, before any rewriting.
    pub destination: Option<IpAddr>,
    /// The address that answers: behind a rewriting of the destination, who really serves.
    pub server: Option<IpAddr>,
}

/// Addresses and ports of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple {
    /// Where packets of this direction come from.
    pub source: IpAddr,
    /// Where they go.
    pub destination: IpAddr,
    /// Transport protocol.
    pub protocol: u8,
    /// Source port; 0 where the protocol has none.
    pub source_port: u16,
    /// Destination port; 0 where the protocol has none.
    pub destination_port: u16,
}

/// A connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// As it was opened.
    pub original: Tuple,
    /// As the answers are expected.
    pub reply: Tuple,
    /// The connection mark (`ct mark`); 0 on a kernel without CONFIG_NF_CONNTRACK_MARK.
    pub mark: u32,
    /// The attributes that name it to the kernel.
    key: Vec<u8>,
}

impl Flow {
    /// Whether this is one of the ends: the client before any rewriting, or the one who really answers.
    pub fn is_of(&self, address: IpAddr) -> bool {
        self.original.source == address || self.reply.source == address
    }
}

/// Every connection of both IP versions, in one pass over the kernel's table.
pub fn all(nfnl: &mut Nfnl) -> Result<Vec<Flow>> {
    dump(nfnl, &Attrs::message(0, 0), |_| true)
}

/// The connections of which one of these addresses is an end ([`Flow::is_of`]). The kernel tells no others of a family of
/// which there are none, and, where it follows many and one address is IPv4, none but its.
pub fn of(nfnl: &mut Nfnl, addresses: &[IpAddr]) -> Result<Vec<Flow>> {
    let own: BTreeSet<IpAddr> = addresses.iter().copied().collect();
    let v4: Vec<Ipv4Addr> =
        own.iter().filter_map(|it| if let IpAddr::V4(v4) = it { Some(*v4) } else { None }).collect();
    let is_own = |it: &Flow| own.contains(&it.original.source) || own.contains(&it.reply.source);
    let of_family = |family: u8| Attrs::message(family, 0);
    let v6 = own.len() > v4.len();
    match v4[..] {
        [] if !v6 => Ok(Vec::new()),
        // A kernel that cannot count says in the pass over all what it lacks.
        [address] if count(nfnl).is_ok_and(|it| it >= MANY) => {
            let mut all = dump(nfnl, &from(address, false), |it| it.original.source == IpAddr::V4(address))?;
            // None twice: one that has both ends here was told as its client's.
            let served = |it: &Flow| is_own(it) && it.original.source != IpAddr::V4(address);
            all.extend(dump(nfnl, &from(address, true), served)?);
            if v6 {
                all.extend(dump(nfnl, &of_family(Family::V6.number().into()), is_own)?);
            }
            Ok(all)
        }
        [] => dump(nfnl, &of_family(Family::V6.number().into()), is_own),
        _ if v6 => dump(nfnl, &of_family(0), is_own),
        _ => dump(nfnl, &of_family(Family::V4.number().into()), is_own),
    }
}

/// How many connections the kernel follows in the socket's namespace.
pub fn count(nfnl: &mut Nfnl) -> Result<u32> {
    let read = |payload: &[u8]| {
        let mut entries = 0;
        wire::attributes(wire::after(payload, HEADER), |kind, value| {
            if kind == cta::STATS_GLOBAL_ENTRIES {
                entries = to_u32(value).unwrap_or(0);
            }
        })?;
        Ok(entries)
    };
    let counted = nfnl.get(GET_STATS, &Body(&Attrs::message(0, 0).bytes), read);
    counted.map_err(|c| c.about("count connections"))
}

/// The connections that fit.
pub fn list(nfnl: &mut Nfnl, filter: &Filter) -> Result<Vec<Flow>> {
    dump(nfnl, &query(filter), |flow| filter.fits(flow))
}

fn dump(nfnl: &mut Nfnl, query: &Attrs, which: impl Fn(&Flow) -> bool) -> Result<Vec<Flow>> {
    nfnl.dump(GET, &Body(&query.bytes), |payload, all| {
        all.extend(read(payload)?.filter(&which));
        Ok(())
    })
    .map_err(|c| {
        match c {
            Cause::Os { errno: libc::EINVAL | libc::EOPNOTSUPP, kernel: None } => {
                Cause::Lacks("nf_conntrack_netlink (CONFIG_NF_CT_NETLINK)".into())
            }
            other => other,
        }
        .about("list connections")
    })
}

/// Has the kernel forget the connections that fit; returns how many those were. One that ended meanwhile counts.
pub fn delete(nfnl: &mut Nfnl, filter: &Filter) -> Result<usize> {
    let flows = list(nfnl, filter)?;
    forget(nfnl, &flows)
}

/// Has the kernel forget the connections of which one of these addresses is an end ([`Flow::is_of`]); returns how many
/// those were.
pub fn delete_of(nfnl: &mut Nfnl, addresses: &[IpAddr]) -> Result<usize> {
    let flows = of(nfnl, addresses)?;
    forget(nfnl, &flows)
}

fn forget(nfnl: &mut Nfnl, flows: &[Flow]) -> Result<usize> {
    for flow in flows {
        match nfnl.change(DELETE, 0, &Body(&flow.request().bytes)) {
            Ok(()) | Err(Cause::Os { errno: libc::ENOENT, .. }) => {}
            Err(c) => return Err(c.about(format!("delete the connection {flow}"))),
        }
    }
    Ok(flows.len())
}

/// Gives the bits of `mask` in the connection's mark those of `mark`, and leaves the others. False when the connection
/// has ended meanwhile. The kernel makes no connection anew for this.
pub fn set_mark(nfnl: &mut Nfnl, flow: &Flow, mark: u32, mask: u32) -> Result<bool> {
    let mut a = flow.request();
    a.u32(cta::MARK, mark & mask).u32(cta::MARK_MASK, mask);
    match nfnl.change(CHANGE, 0, &Body(&a.bytes)) {
        Ok(()) => Ok(true),
        Err(Cause::Os { errno: libc::ENOENT, .. }) => Ok(false),
        Err(c) => {
            let c = match c {
                Cause::Os { errno: libc::EOPNOTSUPP, .. } => {
                    Cause::Lacks("marks of connections (CONFIG_NF_CONNTRACK_MARK)".into())
                }
                other => other,
            };
            Err(c.about(format!("mark the connection {flow}")))
        }
    }
}

impl Flow {
    /// A request about this connection.
    fn request(&self) -> Attrs {
        let family = if self.original.source.is_ipv6() { Family::V6 } else { Family::V4 };
        let mut a = Attrs::message(family.number().into(), 0);
        a.bytes.extend(&self.key);
        a
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tuple { source, destination, destination_port, .. } = &self.original;
        write!(f, "from {source} to {destination} port {destination_port}")
    }
}

impl Filter {
    fn fits(&self, flow: &Flow) -> bool {
        flow.original.protocol == self.protocol
            && self.port.is_none_or(|port| flow.original.destination_port == port)
            && self.destination.is_none_or(|ip| flow.original.destination == ip)
            && self.server.is_none_or(|ip| flow.reply.source == ip)
    }
}

/// The request of a dump. A kernel from 5.8 on leaves out what does not fit; an older one passes the filter over.
/// Addresses are compared here: for IPv6 the kernel leaves out those that are equal instead of the others.
fn query(filter: &Filter) -> Attrs {
    let mut a = Attrs::message(filter.family.number().into(), 0);
    let mut flags = BY_PROTOCOL;
    a.nest(cta::TUPLE_ORIG, |tuple| {
        tuple.nest(cta::TUPLE_PROTO, |proto| {
            proto.u8(cta::PROTO_NUM, filter.protocol);
            if let Some(port) = filter.port {
                flags |= BY_DST_PORT;
                proto.u16(cta::PROTO_DST_PORT, port);
            }
        });
    });
    // In the host's byte order, unlike all else here.
    a.nest(cta::FILTER, |f| _ = f.raw(cta::FILTER_ORIG_FLAGS, &flags.to_ne_bytes()));
    a
}

/// The request of a dump of what an IPv4 address opened, or with `replies` of what it answers. As [`query`], an older kernel
/// passes the filter over.
fn from(address: Ipv4Addr, replies: bool) -> Attrs {
    let mut a = Attrs::message(Family::V4.number().into(), 0);
    a.nest(if replies { cta::TUPLE_REPLY } else { cta::TUPLE_ORIG }, |tuple| {
        tuple.nest(cta::TUPLE_IP, |ip| _ = ip.raw(cta::IP_V4_SRC, &address.octets()));
    });
    let flags = if replies { cta::FILTER_REPLY_FLAGS } else { cta::FILTER_ORIG_FLAGS };
    a.nest(cta::FILTER, |f| _ = f.raw(flags, &BY_SOURCE.to_ne_bytes()));
    a
}

/// None for what has no addresses that this crate knows.
fn read(payload: &[u8]) -> std::result::Result<Option<Flow>, Cause> {
    let (mut original, mut reply, mut mark) = (None, None, 0);
    let mut key = Attrs::default();
    wire::attributes(wire::after(payload, HEADER), |kind, value| match kind {
        cta::TUPLE_ORIG => {
            original = Some(value);
            key.nest(kind, |inner| inner.bytes.extend(value));
        }
        cta::TUPLE_REPLY => reply = Some(value),
        cta::MARK => mark = to_u32(value).unwrap_or(0),
        cta::ID | cta::ZONE => _ = key.raw(kind, value),
        _ => {}
    })?;
    let original = original.map(tuple).transpose()?.flatten();
    let reply = reply.map(tuple).transpose()?.flatten();
    Ok(original.zip(reply).map(|(original, reply)| Flow { original, reply, mark, key: key.bytes }))
}

fn tuple(bytes: &[u8]) -> std::result::Result<Option<Tuple>, Cause> {
    let (mut source, mut destination) = (None, None);
    let (mut protocol, mut source_port, mut destination_port) = (0, 0, 0);
    let (mut ip, mut proto) = (&[][..], &[][..]);
    wire::attributes(bytes, |kind, value| match kind {
        cta::TUPLE_IP => ip = value,
        cta::TUPLE_PROTO => proto = value,
        _ => {}
    })?;
    wire::attributes(ip, |kind, value| match kind {
        1 | 3 => source = wire::to_ip(value),
        2 | 4 => destination = wire::to_ip(value),
        _ => {}
    })?;
    wire::attributes(proto, |kind, value| match kind {
        cta::PROTO_NUM => protocol = wire::to_u8(value).unwrap_or(0),
        cta::PROTO_SRC_PORT => source_port = to_u16(value).unwrap_or(0),
        cta::PROTO_DST_PORT => destination_port = to_u16(value).unwrap_or(0),
        _ => {}
    })?;
    Ok(source.zip(destination).map(|(source, destination)| Tuple {
        source,
        destination,
        protocol,
        source_port,
        destination_port,
    }))
}
