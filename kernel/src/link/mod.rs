//! Links: look up, create (veth, bridge, ifb, and links of one piece), change, delete, wait for carrier.
//!
//! Nothing here chooses names or addresses, and a link that exists is never adopted: creation is always exclusive.
//! How a message is laid out is in `build`, how an answer is understood in `read`.

mod build;
mod kind;
mod port_vlan;
mod read;
mod wait;

use std::os::fd::BorrowedFd;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};

use crate::error::{Cause, Result};
use crate::mac::Mac;
use crate::rtnl::Rtnl;
use crate::tap::Tun;
use crate::wire::Message;

pub(crate) use build::{address_only as delete_message, change_message, port_message, query, veth_message};
pub use kind::{IpvlanMode, LinkKind, MacvlanMode, NewLink, VlanProtocol, add, require};
pub use port_vlan::{
    PortVlan, add_port_vlans, clear_port_vlans, port_vlans, require_vlan_filtering, set_vlan_filtering,
};
pub(crate) use read::link as parse;
pub use wait::wait_oper_up;

/// A link as the kernel shows it (RTM_NEWLINK, rtnetlink(7)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The number that names the link inside its namespace, from 1 on.
    pub index: u32,
    /// The name, at most 15 bytes.
    pub name: String,
    /// The kind: `veth`, `bridge`, …; None for links without one, such as loopback and hardware.
    pub kind: Option<String>,
    /// The hardware address, if it has the length of an Ethernet address.
    pub mac: Option<Mac>,
    /// The MTU in bytes.
    pub mtu: u32,
    /// IFF_UP: set up by the administrator, which says nothing about carrier.
    pub up: bool,
    /// IFF_PROMISC: asked for by the administrator; a bridge port that the kernel itself made promiscuous is not.
    pub promisc: bool,
    /// The operational state is `up` (RFC 2863).
    pub oper_up: bool,
    /// The operational state in the words of /sys/class/net: `up`, `down`, `unknown`, `lowerlayerdown`, ….
    pub oper_state: String,
    /// The index of the bridge (or bond, VRF) that the link is a port of.
    pub master: Option<u32>,
    /// IFLA_LINK: the index of the link below, for a veth that of its peer, in namespace `link_netnsid`.
    pub link: Option<u32>,
    /// The namespace of `link`, as this namespace numbers its peers; None when it is this namespace.
    pub link_netnsid: Option<i32>,
    /// IFF_ALLMULTI: asked for by the administrator.
    pub allmulti: bool,
    /// All flags (`IFF_*`, netdevice(7)).
    pub flags: u32,
    /// The transmit queue's length in packets.
    pub txqlen: u32,
    /// The device group (IFLA_GROUP); 0 is the default one.
    pub group: u32,
    /// The text that an administrator or program attached to the link (IFLA_IFALIAS).
    pub alias: Option<String>,
    /// Of a macvlan, ipvlan, vlan, dummy, VRF or VXLAN: its properties. None too for a mode that [`LinkKind`] does not know.
    pub data: Option<LinkKind>,
    /// Of a VXLAN: whether it takes senders of frames into its forwarding database (IFLA_VXLAN_LEARNING).
    pub learns: Option<bool>,
    /// Of a TUN or TAP device: its properties.
    pub tun: Option<Tun>,
    /// Of a bridge: whether it filters by VLAN.
    pub vlan_filtering: Option<bool>,
    /// Of a bridge's port: its options.
    pub port: Option<Port>,
    /// Of a bridge's port: its number, the lowest that was free, from 1 on (IFLA_BRPORT_NO).
    pub port_number: Option<u16>,
    /// The sysctl net.ipv6.conf.NAME.accept_ra: takes router advertisements never (0), unless the link's node forwards
    /// (1), or always (2). None where IPv6 is not to be had.
    pub accept_ra: Option<i32>,
}

/// The options of a bridge port that pods need (`IFLA_BRPORT_*`, linux/if_link.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// Frames may leave by the port that they came in on.
    pub hairpin: bool,
    /// No traffic to or from other isolated ports.
    pub isolated: bool,
    /// The bridge learns source addresses here.
    pub learning: bool,
}

impl Default for Port {
    /// What the kernel gives a new port: learning only.
    fn default() -> Self {
        Port { hairpin: false, isolated: false, learning: true }
    }
}

/// A pair of veth ends to create in one request; each has one transmit and one receive queue.
///
/// The kernel cannot set the peer up while it is being created (ENOTCONN), so there is no way to ask for that.
#[derive(Debug, Clone, Copy, Default)]
pub struct Veth<'a> {
    /// The near end's name; it is created in the socket's namespace.
    pub name: &'a str,
    /// The far end's name.
    pub peer: &'a str,
    /// The near end's hardware address; None lets the kernel make one up.
    pub mac: Option<Mac>,
    /// The far end's hardware address; None lets the kernel make one up.
    pub peer_mac: Option<Mac>,
    /// The MTU of both ends in bytes; 0 is the kernel's default.
    pub mtu: u32,
    /// The index of the bridge that the near end becomes a port of.
    pub master: Option<u32>,
    /// Sets the near end up.
    pub up: bool,
    /// Where the far end is created; None is the socket's namespace.
    pub peer_netns: Option<BorrowedFd<'a>>,
}

/// A bridge to create.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bridge<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its hardware address. Given one, the bridge keeps it; without, it follows the lowest of its ports'.
    pub mac: Option<Mac>,
    /// Its MTU in bytes; 0 is the kernel's default, which follows the ports.
    pub mtu: u32,
    /// Filters frames by VLAN; a kernel without CONFIG_BRIDGE_VLAN_FILTERING refuses that (`lacks()` tells).
    pub vlan_filtering: bool,
    /// Sets it up.
    pub up: bool,
}

/// What to change on a link; None leaves a property as it is. One request, so the kernel does all or reports the
/// first refusal, in this order: namespace, MAC, MTU, group, name, alias, up and promisc, master, txqlen, arp_notify.
#[derive(Debug, Clone, Copy, Default)]
pub struct Change<'a> {
    /// Sets the link up or down.
    pub up: Option<bool>,
    /// The MTU in bytes.
    pub mtu: Option<u32>,
    /// The hardware address.
    pub mac: Option<Mac>,
    /// The new name; with `netns`, the name it arrives under.
    pub name: Option<&'a str>,
    /// The index of the bridge to become a port of; 0 leaves the one it is in.
    pub master: Option<u32>,
    /// Receives all frames (IFF_PROMISC).
    pub promisc: Option<bool>,
    /// Receives all multicast frames (IFF_ALLMULTI).
    pub allmulti: Option<bool>,
    /// Moves the link to this namespace.
    pub netns: Option<BorrowedFd<'a>>,
    /// Announces addresses by gratuitous ARP when the link comes up or changes its MAC: the sysctl
    /// net.ipv4.conf.NAME.arp_notify, set through IFLA_AF_SPEC / AF_INET / IFLA_INET_CONF.
    pub arp_notify: Option<bool>,
    /// The transmit queue's length in packets.
    pub txqlen: Option<u32>,
    /// The device group.
    pub group: Option<u32>,
    /// A text for people and programs, at most 255 bytes; an empty one removes it (IFLA_IFALIAS).
    pub alias: Option<&'a str>,
}

/// The link of this name. `is_not_found()` when there is none.
pub fn by_name(rtnl: &mut Rtnl, name: &str) -> Result<Link> {
    rtnl.get(libc::RTM_GETLINK, &build::query(0, Some(name)), read::link)
        .map_err(|c| c.about(format!("look up link {name:?}")))
}

/// The link with this index. `is_not_found()` when there is none.
pub fn by_index(rtnl: &mut Rtnl, index: u32) -> Result<Link> {
    rtnl.get(libc::RTM_GETLINK, &build::query(index, None), read::link)
        .map_err(|c| c.about(about_look(index)))
}

pub(crate) fn about_look(index: u32) -> String {
    format!("look up link {index}")
}

/// All links of the socket's namespace, by index.
pub fn list(rtnl: &mut Rtnl) -> Result<Vec<Link>> {
    rtnl.dump(libc::RTM_GETLINK, &build::query(0, None), |payload, all| {
        all.push(read::link(payload)?);
        Ok(())
    })
    .map_err(|c| c.about("list links"))
}

/// Creates both ends of a veth and gives the near end, whose `link` is the far one's index; None where the kernel shows
/// nothing (before Linux 6.2). `is_exists()` when either name is taken where it is to appear.
pub fn add_veth(rtnl: &mut Rtnl, veth: &Veth<'_>) -> Result<Option<Link>> {
    rtnl.change_echo(libc::RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &veth_message(veth), read::link)
        .map_err(|c| c.about(about_create(veth.name)))
}

/// Creates a bridge. `is_exists()` when the name is taken, by whatever kind of link.
pub fn add_bridge(rtnl: &mut Rtnl, bridge: &Bridge<'_>) -> Result<()> {
    let made = rtnl.change(libc::RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &build::bridge_message(bridge));
    // Of all that can be asked of a bridge, a kernel may have been built without this alone.
    let named = |c| if bridge.vlan_filtering { port_vlan::named(c) } else { c };
    made.map_err(|c| named(c).about(about_create(bridge.name)))
}

/// Creates an ifb, up, without a queue of its own: whatever is sent to it comes back as if it had come in on the link
/// that it was taken from, when its qdisc lets it go. `mtu` 0 is the kernel's default. `is_exists()` when the name is
/// taken, `lacks()` when the kernel has no ifb.
pub fn add_ifb(rtnl: &mut Rtnl, name: &str, mtu: u32) -> Result<()> {
    let made = rtnl.change(libc::RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &build::ifb_message(name, mtu));
    let named = |c| match c {
        Cause::Os { errno: libc::EOPNOTSUPP, .. } => Cause::Lacks("ifb (CONFIG_IFB)".into()),
        other => other,
    };
    made.map_err(|c| named(c).about(about_create(name)))
}

pub(crate) fn about_create(name: &str) -> String {
    format!("create link {name:?}")
}

/// Changes a link. `is_not_found()` when there is none with this index.
pub fn set(rtnl: &mut Rtnl, index: u32, change: &Change<'_>) -> Result<()> {
    rtnl.change(libc::RTM_SETLINK, 0, &change_message(index, change)).map_err(|c| c.about(about_set(index)))
}

pub(crate) fn about_set(index: u32) -> String {
    format!("change link {index}")
}

/// Sets all options of a bridge port, with or without VLAN filtering on the bridge.
pub fn set_port(rtnl: &mut Rtnl, index: u32, port: &Port) -> Result<()> {
    rtnl.change(libc::RTM_NEWLINK, 0, &port_message(index, port)).map_err(|c| c.about(about_port(index)))
}

/// Lets the bridge answer ARP requests for what is behind a port, by its own neighbours and forwarding entries
/// (IFLA_BRPORT_PROXYARP_WIFI): a request that it has answered does not go out by such ports. `br_do_proxy_suppress_arp`,
/// net/bridge/br_arp_nd_proxy.c.
pub fn answer_for_port(rtnl: &mut Rtnl, index: u32) -> Result<()> {
    let m = build::answering_message(index);
    rtnl.change(libc::RTM_NEWLINK, 0, &m).map_err(|c| c.about(about_port(index)))
}

pub(crate) fn about_port(index: u32) -> String {
    format!("change bridge port {index}")
}

/// Deletes a link; for a veth, both ends. `is_not_found()` when there is none with this index.
pub fn delete(rtnl: &mut Rtnl, index: u32) -> Result<()> {
    rtnl.change(libc::RTM_DELLINK, 0, &delete_message(index)).map_err(|c| c.about(about_delete(index)))
}

/// As [`delete`], but returns as soon as the kernel announces that the link is gone (RTM_DELLINK): its name is free, and
/// its addresses and routes are gone with it. What the kernel then still makes the asker wait for, about 20 ms until no
/// processor can be using the freed memory, a child of this process waits for; it holds the descriptors of `keep` that
/// long, and no others of this process. Where no child can be had this is `delete`.
pub fn delete_announced(rtnl: &mut Rtnl, index: u32, keep: &[BorrowedFd<'_>]) -> Result<()> {
    let gone = |m: &Message<'_>| {
        m.kind == libc::RTM_DELLINK && read::oper_state(m.payload).is_some_and(|(at, _)| at == index)
    };
    let mut delete = || {
        rtnl.join(libc::RTNLGRP_LINK)?;
        let deleted = rtnl.change_announced(libc::RTM_DELLINK, &delete_message(index), keep, gone);
        rtnl.leave(libc::RTNLGRP_LINK).and(deleted)
    };
    delete().map_err(|c| c.about(about_delete(index)))
}

/// Deletes all links of a device group at once, which takes the time of one. `is_not_found()` when it has none.
///
/// # Errors
/// EOPNOTSUPP, with none deleted, when one of them cannot be deleted: a physical one.
pub fn delete_group(rtnl: &mut Rtnl, group: u32) -> Result<()> {
    rtnl.change(libc::RTM_DELLINK, 0, &build::group_message(group))
        .map_err(|c| c.about(format!("delete the links of group {group}")))
}

pub(crate) fn about_delete(index: u32) -> String {
    format!("delete link {index}")
}
