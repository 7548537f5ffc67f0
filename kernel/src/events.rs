//! What the kernel announces when something is changed, by whomever: links, addresses, routes, neighbours, rules,
//! IP configuration (rtnetlink) and tables of nf_tables.
//!
//! A [`Listener`] is a descriptor that can be polled; reading it never waits. It tells what an event is about, not all that
//! it says: who wants to know how things are looks.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Instant;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::rule::RuleHeader;
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use nix::sys::socket::{setsockopt, sockopt};

use crate::addr::{self, Address};
use crate::channel::Channel;
use crate::error::{Cause, Result};
use crate::link;
use crate::neigh;
use crate::nft::{self, msg};
use crate::route::{self, Family, Route};
use crate::wire::{self, Message};

/// linux/netfilter/nfnetlink.h, `NFNLGRP_NFTABLES`
const TABLES: u32 = 7;
/// linux/rtnetlink.h, `RTM_NEWNETCONF`, `RTM_DELNETCONF`
const NEWNETCONF: u16 = 80;
const DELNETCONF: u16 = 81;
/// linux/netconf.h, `NETCONFA_IFINDEX`
const NETCONF_IFINDEX: u16 = 1;
/// `NFT_MSG_NEWGEN`, and `NFT_MSG_TRACE`, which nobody sends to this group: neither is about a table.
const NEWGEN: u8 = 15;
const TRACE: u8 = 17;
/// The room for events that wait to be read, in bytes; some thousand routes can be changed at once.
const ROOM: usize = 4 << 20;

/// Something was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A link was made, changed or deleted.
    Link {
        /// Its index.
        index: u32,
        /// Its name.
        name: String,
        /// Its device group; None once it is deleted.
        group: Option<u32>,
    },
    /// An address was added, changed or deleted.
    Address(Address),
    /// A route was added, replaced or deleted; of one with several nexthops, each.
    Route(Route),
    /// A neighbour or a forwarding entry was added, changed or deleted.
    Neigh {
        /// The link that it is on.
        index: u32,
    },
    /// A routing policy rule was added or deleted.
    Rule(Family),
    /// The IP configuration of a link was changed (forwarding, `rp_filter` and some more sysctls).
    Config {
        /// Of this IP version.
        family: Family,
        /// The link; None for what holds for all links, or for links to come.
        index: Option<u32>,
    },
    /// A table of nf_tables, or something in it, was added, changed or deleted.
    Table {
        /// Its family.
        family: nft::Family,
        /// Its name.
        name: String,
        /// The port of the socket that changed it ([`crate::Nfnl::port`]).
        port: u32,
    },
}

/// What was waiting to be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    /// In the order in which the kernel announced them.
    pub events: Vec<Event>,
    /// There was more: it did not fit into the socket's buffer, or could not be understood.
    pub lost: bool,
}

/// A socket that hears of changes in one namespace, from its opening on.
#[derive(Debug)]
pub struct Listener {
    channel: Channel,
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl Listener {
    /// Listens to links, addresses, routes, neighbours, rules and IP configuration in the calling thread's namespace.
    pub fn routing() -> Result<Listener> {
        let groups = [
            libc::RTNLGRP_LINK,
            libc::RTNLGRP_NEIGH,
            libc::RTNLGRP_IPV4_IFADDR,
            libc::RTNLGRP_IPV4_ROUTE,
            libc::RTNLGRP_IPV4_RULE,
            libc::RTNLGRP_IPV4_NETCONF,
            libc::RTNLGRP_IPV6_IFADDR,
            libc::RTNLGRP_IPV6_ROUTE,
            libc::RTNLGRP_IPV6_RULE,
            libc::RTNLGRP_IPV6_NETCONF,
        ];
        Listener::open(NETLINK_ROUTE, &groups).map_err(|c| c.about("listen to changes of links and routes"))
    }

    /// Listens to changes of nf_tables in the calling thread's namespace. `lacks()` tells when the kernel has none.
    pub fn tables() -> Result<Listener> {
        let open = Listener::open(NETLINK_NETFILTER, &[TABLES]).map_err(|c| match c {
            Cause::Os { errno: libc::EPROTONOSUPPORT, .. } => {
                Cause::Lacks("nfnetlink (CONFIG_NETFILTER_NETLINK)".into())
            }
            other => other,
        });
        open.map_err(|c| c.about("listen to changes of nf_tables"))
    }

    fn open(protocol: isize, groups: &[u32]) -> std::result::Result<Listener, Cause> {
        let mut channel = Channel::open(protocol)?;
        // Without the privilege the kernel's own bound holds, and more may be lost.
        if setsockopt(&channel.socket, sockopt::RcvBufForce, &ROOM).is_err() {
            let _ = setsockopt(&channel.socket, sockopt::RcvBuf, &ROOM);
        }
        groups.iter().try_for_each(|&group| channel.join(group))?;
        Ok(Listener { channel })
    }

    /// Everything that waits to be read; nothing when nothing does.
    ///
    /// # Errors
    /// The socket cannot be read. That events were lost is no error, see [`Heard::lost`].
    pub fn heard(&mut self) -> Result<Heard> {
        let mut heard = Heard::default();
        loop {
            let mut unusable = false;
            let mut each = |m: &Message<'_>| unusable |= read(m, &mut heard.events).is_err();
            match self.channel.events(Instant::now(), &mut each) {
                Ok(true) => heard.lost |= unusable,
                Ok(false) => return Ok(heard),
                Err(Cause::Os { errno: libc::ENOBUFS, .. }) => heard.lost = true,
                Err(cause) => return Err(cause.about("read what the kernel announces")),
            }
        }
    }
}

fn read(m: &Message<'_>, all: &mut Vec<Event>) -> std::result::Result<(), Cause> {
    if (m.kind >> 8) == msg::SUBSYSTEM {
        if !matches!(m.kind as u8, NEWGEN | msg::GETGEN | TRACE) {
            all.extend(table(m)?);
        }
        return Ok(());
    }
    match m.kind {
        libc::RTM_NEWLINK | libc::RTM_DELLINK => {
            let link = link::parse(m.payload)?;
            let group = (m.kind == libc::RTM_NEWLINK).then_some(link.group);
            all.push(Event::Link { index: link.index, name: link.name, group });
        }
        libc::RTM_NEWADDR | libc::RTM_DELADDR => all.extend(addr::read(m.payload)?.map(Event::Address)),
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE => {
            let mut routes = Vec::new();
            route::read(m.payload, &mut routes)?;
            all.extend(routes.into_iter().map(Event::Route));
        }
        libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH => {
            all.push(Event::Neigh { index: neigh::read(m.payload)?.0.ifindex });
        }
        libc::RTM_NEWRULE | libc::RTM_DELRULE => {
            let header = RuleHeader::parse(m.payload).map_err(wire::malformed)?;
            all.extend(Family::from_number(header.family).map(Event::Rule));
        }
        NEWNETCONF | DELNETCONF => all.extend(config(m.payload)?),
        _ => {}
    }
    Ok(())
}

/// `struct netconfmsg` is the family alone, padded to four bytes.
fn config(payload: &[u8]) -> std::result::Result<Option<Event>, Cause> {
    let family = payload.first().map(|&family| AddressFamily::from(family));
    let Some(family) = family.and_then(Family::from_number) else { return Ok(None) };
    let mut index = None;
    wire::attributes(wire::after(payload, 4), |kind, value| {
        if kind == NETCONF_IFINDEX {
            // Of all links and of links to come it is negative.
            index = wire::to_i32(value).and_then(|index| u32::try_from(index).ok());
        }
    })?;
    Ok(Some(Event::Config { family, index }))
}

/// Of every message about a table or something in it the first attribute is the table's name.
fn table(m: &Message<'_>) -> std::result::Result<Option<Event>, Cause> {
    let Some(family) = m.payload.first().copied().and_then(nft::Family::from_number) else { return Ok(None) };
    let mut name = None;
    wire::attributes(wire::after(m.payload, 4), |kind, value| {
        if kind == 1 {
            name = Some(wire::to_text(value));
        }
    })?;
    Ok(name.map(|name| Event::Table { family, name, port: m.port }))
}
