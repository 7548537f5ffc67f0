//! What an ADD cannot do without: the link with its far end straight in the pod, one queue each; then, in the pod, the
//! link up, its addresses and the default routes in one send.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, RawFd};

use anyhow::{Context, Result};
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns};

use crate::message::{CREATE, CREATE_OR_CHANGE, Messages, Socket};

/// linux/rtnetlink.h.
const NEWLINK: u16 = 16;
const SETLINK: u16 = 19;
const NEWADDR: u16 = 20;
const NEWROUTE: u16 = 24;
/// linux/if_link.h: IFLA_*.
const ADDRESS: u16 = 1;
const IFNAME: u16 = 3;
const LINK: u16 = 5;
const MASTER: u16 = 10;
const LINKINFO: u16 = 18;
const NET_NS_FD: u16 = 28;
const NUM_TX_QUEUES: u16 = 31;
const NUM_RX_QUEUES: u16 = 32;
/// IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER, IFLA_MACVLAN_MODE and MACVLAN_MODE_BRIDGE.
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const PEER: u16 = 1;
const MACVLAN_MODE: u16 = 1;
const MODE_BRIDGE: u32 = 4;
/// IFF_UP.
const UP: u32 = 1;
/// IFA_F_NODAD: the address is known to be unique.
const NODAD: u8 = 2;
/// RT_SCOPE_LINK.
const SCOPE_LINK: u8 = 253;

/// The addresses of a pod and the next hops of its default routes.
pub(crate) struct Plan {
    gateways: Vec<IpAddr>,
    addresses: Vec<(IpAddr, u8)>,
}

impl Plan {
    /// From the lists of the command line.
    pub(crate) fn parse(gateways: &str, addresses: &str) -> Result<Self> {
        let parts = |list: &'static str, text: &str| {
            let parts: Vec<String> = text.split(',').filter(|p| !p.is_empty()).map(str::to_owned).collect();
            parts.into_iter().map(move |part| (part.clone(), format!("{list} {part}")))
        };
        let gateways = parts("gateway", gateways).map(|(text, what)| text.parse().context(what));
        let addresses = parts("address", addresses).map(|(text, what)| {
            let (ip, length) = text.split_once('/').with_context(|| format!("{what}: no prefix length"))?;
            Ok((ip.parse().with_context(|| what.clone())?, length.parse().context(what)?))
        });
        Ok(Plan { gateways: gateways.collect::<Result<_>>()?, addresses: addresses.collect::<Result<_>>()? })
    }
}

/// `struct ifinfomsg` of a link by its index, 0 for one that is named.
fn link_header(index: u32, up: bool) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    if up {
        header[8..12].copy_from_slice(&UP.to_ne_bytes());
        header[12..16].copy_from_slice(&UP.to_ne_bytes());
    }
    header
}

fn one_queue(messages: &mut Messages) {
    messages.number(NUM_TX_QUEUES, 1);
    messages.number(NUM_RX_QUEUES, 1);
}

/// A MAC that no other pod of the node has, from its first address, as the kernel's random one costs nothing either.
fn mac(plan: &Plan) -> [u8; 6] {
    match plan.addresses.first() {
        Some((IpAddr::V4(ip), _)) => {
            let [a, b, c, d] = ip.octets();
            [0x02, 0x42, a, b, c, d]
        }
        _ => [0x02, 0x42, 0, 0, 0, 1],
    }
}

fn veth(host: &str, master: Option<u32>, pod: RawFd, ifname: &str, plan: &Plan) -> Messages {
    let mut messages = Messages::default();
    messages.put(NEWLINK, CREATE, &link_header(0, true), |m| {
        m.text(IFNAME, host);
        if let Some(master) = master {
            m.number(MASTER, master);
        }
        one_queue(m);
        m.nest(LINKINFO, |m| {
            m.attribute(INFO_KIND, b"veth");
            m.nest(INFO_DATA, |m| {
                m.nest(PEER, |m| {
                    m.raw(&link_header(0, false));
                    m.text(IFNAME, ifname);
                    m.attribute(ADDRESS, &mac(plan));
                    m.number(NET_NS_FD, pod as u32);
                    one_queue(m);
                });
            });
        });
    });
    messages
}

/// A link of a kind that takes no more than a name, up from the start.
pub(crate) fn named_link(name: &str, kind: &str) -> Messages {
    let mut messages = Messages::default();
    messages.put(NEWLINK, CREATE, &link_header(0, true), |m| {
        m.text(IFNAME, name);
        one_queue(m);
        m.nest(LINKINFO, |m| m.attribute(INFO_KIND, kind.as_bytes()));
    });
    messages
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn family(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { nix::libc::AF_INET as u8 } else { nix::libc::AF_INET6 as u8 }
}

fn put_address(messages: &mut Messages, index: u32, ip: IpAddr, length: u8) {
    let flags = if ip.is_ipv6() { NODAD } else { 0 };
    let mut header = vec![family(ip), length, flags, 0];
    header.extend_from_slice(&index.to_ne_bytes());
    messages.put(NEWADDR, CREATE, &header, |m| {
        // IFA_ADDRESS and IFA_LOCAL.
        m.attribute(1, &octets(ip));
        m.attribute(2, &octets(ip));
    });
}

/// A route to a single address on the link, or the default route by a next hop.
fn put_route(messages: &mut Messages, index: u32, to: Option<IpAddr>, by: Option<IpAddr>) {
    let any = to.or(by).map_or(nix::libc::AF_INET as u8, family);
    let length = to.map_or(0, |ip| octets(ip).len() as u8 * 8);
    let scope = if to.is_some() && any == nix::libc::AF_INET as u8 { SCOPE_LINK } else { 0 };
    // Table main, protocol boot, unicast; linux/rtnetlink.h.
    let header = [any, length, 0, 0, 254, 3, scope, 1, 0, 0, 0, 0];
    messages.put(NEWROUTE, CREATE_OR_CHANGE, &header, |m| {
        // RTA_DST, RTA_GATEWAY, RTA_OIF.
        if let Some(to) = to {
            m.attribute(1, &octets(to));
        }
        if let Some(by) = by {
            m.attribute(5, &octets(by));
        }
        m.number(4, index);
    });
}

fn put_up(messages: &mut Messages, index: u32) {
    messages.put(SETLINK, 0, &link_header(index, true), |_| ());
}

/// Opens a pod's namespace.
pub(crate) fn open(netns: &str) -> Result<File> {
    File::open(netns).with_context(|| format!("open {netns}"))
}

/// Goes there.
pub(crate) fn enter(netns: &File) -> Result<()> {
    setns(netns, CloneFlags::CLONE_NEWNET).context("enter the pod's namespace")
}

/// The index of a link of the current namespace.
pub(crate) fn index(name: &str) -> Result<u32> {
    if_nametoindex(name).with_context(|| format!("link {name}"))
}

/// What is done inside the pod.
fn configure(pod: &File, ifname: &str, plan: &Plan, on_link: bool) -> Result<()> {
    enter(pod)?;
    let socket = Socket::route(0)?;
    let index = index(ifname)?;
    let mut messages = Messages::default();
    put_up(&mut messages, index);
    for &(ip, length) in &plan.addresses {
        put_address(&mut messages, index, ip, length);
    }
    for &gateway in &plan.gateways {
        if on_link {
            put_route(&mut messages, index, Some(gateway), None);
        }
        put_route(&mut messages, index, None, Some(gateway));
    }
    socket.send(messages, "configure the pod's end")
}

/// A veth pair whose near end is a port of a bridge.
pub(crate) fn bridge(netns: &str, ifname: &str, host: &str, bridge: &str, plan: &Plan) -> Result<()> {
    let pod = open(netns)?;
    let node = File::open("/proc/thread-self/ns/net").context("open the node's namespace")?;
    let messages = veth(host, Some(index(bridge)?), pod.as_raw_fd(), ifname, plan);
    Socket::route(0)?.send(messages, "create the pair")?;
    configure(&pod, ifname, plan, false)?;
    enter(&node)
}

/// A veth pair with routes at both ends.
pub(crate) fn ptp(netns: &str, ifname: &str, host: &str, plan: &Plan) -> Result<()> {
    let pod = open(netns)?;
    let socket = Socket::route(0)?;
    socket.send(veth(host, None, pod.as_raw_fd(), ifname, plan), "create the pair")?;
    let near = index(host)?;
    let mut messages = Messages::default();
    for &gateway in &plan.gateways {
        put_address(&mut messages, near, gateway, octets(gateway).len() as u8 * 8);
    }
    for &(ip, _) in &plan.addresses {
        put_route(&mut messages, near, Some(ip), None);
    }
    socket.send(messages, "configure the node's end")?;
    configure(&pod, ifname, plan, true)
}

/// A macvlan in bridge mode.
pub(crate) fn macvlan(netns: &str, ifname: &str, parent: &str, plan: &Plan) -> Result<()> {
    let pod = open(netns)?;
    let below = index(parent)?;
    let mut messages = Messages::default();
    messages.put(NEWLINK, CREATE, &link_header(0, false), |m| {
        m.text(IFNAME, ifname);
        m.number(LINK, below);
        m.number(NET_NS_FD, pod.as_raw_fd() as u32);
        one_queue(m);
        m.nest(LINKINFO, |m| {
            m.attribute(INFO_KIND, b"macvlan");
            m.nest(INFO_DATA, |m| m.number(MACVLAN_MODE, MODE_BRIDGE));
        });
    });
    Socket::route(0)?.send(messages, "create the macvlan")?;
    configure(&pod, ifname, plan, false)
}

/// The loopback device up or down; its index is 1 in every namespace.
pub(crate) fn loopback(netns: &str, up: bool) -> Result<()> {
    enter(&open(netns)?)?;
    let mut header = link_header(1, true);
    if !up {
        header[8..12].fill(0);
    }
    let mut messages = Messages::default();
    messages.put(SETLINK, 0, &header, |_| ());
    Socket::route(0)?.send(messages, "set loopback")
}
