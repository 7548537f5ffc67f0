//! nf_tables over netlink: tables, chains, rules, sets and elements, changed in batches that the kernel makes whole or
//! not at all, and listed.
//!
//! What is written can be listed by `nft`, an older one too: comments and set types are in the user data where it looks
//! for them, and addresses and ports are matched in the steps by which it knows them again.
//!
//! The attributes are written and read here, a few lines for each expression. The crate netlink-packet-netfilter has
//! types for six of the twenty expressions that pods need, so they would have stood beside ours; its types decode our
//! messages in the tests.
//!
//! What it deliberately does not hold: the syntax of `nft`, anonymous sets, flow tables, objects.

mod attr;
mod batch;
pub mod compat;
mod decode;
mod dump;
mod expr;
mod feature;
mod rule;
mod set;
#[cfg(test)]
mod tests;
mod trace;
mod userdata;

use std::fmt;

pub use batch::{Batch, remove};
pub use dump::{
    ChainInfo, RuleInfo, SetInfo, TableInfo, chain, chains, elements, handles, rules, rules_by_chain,
    rules_of, sets, table, tables,
};
pub use expr::{Base, Ct, Expr, Fib, Meta, Op, Reg, Verdict, ct_state, ct_status, fib_flag, nat_flag};
pub use rule::{Rule, ip_bytes, name_bytes};
pub use set::{Data, Element, Set, Type, Value};
pub use trace::{TraceEvent, TraceKind, Tracer};
pub use userdata::{COMMENT_MAX, Userdata};

pub(crate) use attr::{Attrs, Body, to_u16, to_u32};
pub(crate) use feature::lacking;

/// Messages (`NFT_MSG_*`, linux/netfilter/nf_tables.h) and their subsystem.
pub(crate) mod msg {
    /// linux/netfilter/nfnetlink.h, `NFNL_SUBSYS_NFTABLES`
    pub(crate) const SUBSYSTEM: u16 = 10;
    pub(crate) const NEWTABLE: u8 = 0;
    pub(crate) const GETTABLE: u8 = 1;
    pub(crate) const DELTABLE: u8 = 2;
    pub(crate) const NEWCHAIN: u8 = 3;
    pub(crate) const GETCHAIN: u8 = 4;
    pub(crate) const DELCHAIN: u8 = 5;
    pub(crate) const NEWRULE: u8 = 6;
    pub(crate) const GETRULE: u8 = 7;
    pub(crate) const DELRULE: u8 = 8;
    pub(crate) const NEWSET: u8 = 9;
    pub(crate) const GETSET: u8 = 10;
    pub(crate) const DELSET: u8 = 11;
    pub(crate) const NEWSETELEM: u8 = 12;
    pub(crate) const GETSETELEM: u8 = 13;
    pub(crate) const DELSETELEM: u8 = 14;
    pub(crate) const GETGEN: u8 = 16;

    pub(crate) const fn kind(message: u8) -> u16 {
        SUBSYSTEM << 8 | message as u16
    }
}

/// What a table's chains see (`NFPROTO_*`, linux/netfilter.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// IPv4.
    Ip,
    /// ARP.
    Arp,
    /// Frames of one link, before anything else.
    Netdev,
    /// Frames that a bridge carries.
    Bridge,
    /// IPv6.
    Ip6,
}

impl Family {
    /// The kernel's number.
    pub const fn number(self) -> u8 {
        match self {
            Family::Inet => 1,
            Family::Ip => 2,
            Family::Arp => 3,
            Family::Netdev => 5,
            Family::Bridge => 7,
            Family::Ip6 => 10,
        }
    }

    /// The family with the kernel's number, if it is one of tables.
    pub const fn from_number(number: u8) -> Option<Family> {
        Some(match number {
            1 => Family::Inet,
            2 => Family::Ip,
            3 => Family::Arp,
            5 => Family::Netdev,
            7 => Family::Bridge,
            10 => Family::Ip6,
            _ => return None,
        })
    }

    /// `nft`'s word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Family::Inet => "inet",
            Family::Ip => "ip",
            Family::Arp => "arp",
            Family::Netdev => "netdev",
            Family::Bridge => "bridge",
            Family::Ip6 => "ip6",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which table is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Table<'a> {
    /// Its family.
    pub family: Family,
    /// Its name.
    pub name: &'a str,
}

impl<'a> Table<'a> {
    /// The table of that name.
    pub const fn new(family: Family, name: &'a str) -> Table<'a> {
        Table { family, name }
    }

    fn attrs(self) -> Attrs {
        Attrs::message(self.family.number(), 0)
    }
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family, self.name)
    }
}

/// What a base chain is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainKind {
    /// Lets through or drops.
    Filter,
    /// Rewrites addresses, asked once for each connection.
    Nat,
    /// Has the packet routed again when it was changed.
    Route,
}

impl ChainKind {
    const fn as_str(self) -> &'static str {
        match self {
            ChainKind::Filter => "filter",
            ChainKind::Nat => "nat",
            ChainKind::Route => "route",
        }
    }
}

/// Where packets pass a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Before routing.
    Prerouting,
    /// For this machine.
    Input,
    /// Through this machine.
    Forward,
    /// From this machine.
    Output,
    /// After routing.
    Postrouting,
    /// As it comes from the link.
    Ingress,
    /// As it goes to the link.
    Egress,
}

impl Point {
    /// The hook's number in chains of a family (linux/netfilter.h, `NF_INET_*`, `NF_NETDEV_*`).
    pub const fn number(self, family: Family) -> u32 {
        match (self, family) {
            (Point::Ingress, Family::Netdev) => 0,
            (Point::Egress, _) => 1,
            (Point::Prerouting, _) => 0,
            (Point::Input, _) => 1,
            (Point::Forward, _) => 2,
            (Point::Output, _) => 3,
            (Point::Postrouting, _) => 4,
            (Point::Ingress, _) => 5,
        }
    }
}

/// What makes a chain a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hook<'a> {
    /// What it is for.
    pub kind: ChainKind,
    /// Where it stands.
    pub point: Point,
    /// Its place among the chains there; the names are in [`priority`].
    pub priority: i32,
    /// Packets that come to its end go on; else they are dropped.
    pub accept: bool,
    /// The link, in family netdev and for inet ingress.
    pub device: Option<&'a str>,
}

impl Hook<'_> {
    /// A base chain whose packets go on at its end.
    pub const fn new(kind: ChainKind, point: Point, priority: i32) -> Hook<'static> {
        Hook { kind, point, priority, accept: true, device: None }
    }
}

/// Priorities with names in `nft`.
pub mod priority {
    /// `raw`
    pub const RAW: i32 = -300;
    /// `mangle`
    pub const MANGLE: i32 = -150;
    /// `dstnat`
    pub const DSTNAT: i32 = -100;
    /// `filter`
    pub const FILTER: i32 = 0;
    /// `security`
    pub const SECURITY: i32 = 50;
    /// `srcnat`
    pub const SRCNAT: i32 = 100;
    /// `dstnat` of family bridge
    pub const BRIDGE_DSTNAT: i32 = -300;
    /// `filter` of family bridge
    pub const BRIDGE_FILTER: i32 = -200;
    /// `out` of family bridge
    pub const BRIDGE_OUT: i32 = 100;
    /// `srcnat` of family bridge
    pub const BRIDGE_SRCNAT: i32 = 300;
}
