//! RTM_NEWLINK messages as [`Link`] values.

use netlink_packet_core::Emitable;
use netlink_packet_route::link::{LinkFlags, LinkHeader};

use super::{Link, Port, kind};
use crate::error::Cause;
use crate::tap;
use crate::wire::{self, ifla};

/// Reads the payload of an RTM_NEWLINK.
pub(crate) fn link(payload: &[u8]) -> Result<Link, Cause> {
    let header = LinkHeader::parse(payload).map_err(wire::malformed)?;
    let mut link = Link {
        index: header.index,
        name: String::new(),
        kind: None,
        mac: None,
        mtu: 0,
        up: header.flags.contains(LinkFlags::Up),
        promisc: header.flags.contains(LinkFlags::Promisc),
        oper_up: false,
        oper_state: String::new(),
        master: None,
        link: None,
        link_netnsid: None,
        allmulti: header.flags.contains(LinkFlags::Allmulti),
        flags: header.flags.bits(),
        txqlen: 0,
        group: 0,
        alias: None,
        data: None,
        learns: None,
        tun: None,
        vlan_filtering: None,
        port: None,
        port_number: None,
        accept_ra: None,
    };
    let mut info = None;
    wire::attributes(wire::after(payload, header.buffer_len()), |kind, value| match kind {
        ifla::IFNAME => link.name = wire::to_text(value),
        ifla::ADDRESS => link.mac = wire::to_mac(value),
        ifla::MTU => link.mtu = wire::to_u32(value).unwrap_or(0),
        ifla::LINK => link.link = wire::to_u32(value),
        ifla::LINK_NETNSID => link.link_netnsid = wire::to_i32(value),
        ifla::MASTER => link.master = wire::to_u32(value).filter(|&i| i != 0),
        ifla::TXQLEN => link.txqlen = wire::to_u32(value).unwrap_or(0),
        ifla::IFALIAS => link.alias = Some(wire::to_text(value)),
        ifla::GROUP => link.group = wire::to_u32(value).unwrap_or(0),
        ifla::OPERSTATE => {
            let state = wire::to_u8(value).unwrap_or(0);
            link.oper_up = state == wire::OPER_UP;
            link.oper_state = oper_word(state).into();
        }
        ifla::LINKINFO => info = Some(value),
        ifla::AF_SPEC => link.accept_ra = accept_ra(value),
        _ => {}
    })?;
    if let Some(info) = info {
        link_info(info, &mut link)?;
    }
    Ok(link)
}

/// The operational state in an RTM_NEWLINK of the link itself (not of its role as a bridge port): index and state.
pub(crate) fn oper_state(payload: &[u8]) -> Option<(u32, Option<u8>)> {
    let header = LinkHeader::parse(payload).ok()?;
    if u8::from(header.interface_family) != libc::AF_UNSPEC as u8 {
        return None;
    }
    let mut state = None;
    wire::attributes(wire::after(payload, header.buffer_len()), |kind, value| {
        if kind == ifla::OPERSTATE {
            state = wire::to_u8(value);
        }
    })
    .ok()?;
    Some((header.index, state))
}

/// `net.ipv6.conf.NAME.accept_ra` as IFLA_AF_SPEC / AF_INET6 / IFLA_INET6_CONF shows it: an array of numbers.
fn accept_ra(af_spec: &[u8]) -> Option<i32> {
    let (mut inet6, mut conf) = (None, None);
    wire::attributes(af_spec, |kind, value| {
        if kind == libc::AF_INET6 as u16 {
            inet6 = Some(value);
        }
    })
    .ok()?;
    wire::attributes(inet6?, |kind, value| {
        if kind == ifla::INET6_CONF {
            conf = Some(value);
        }
    })
    .ok()?;
    wire::to_i32(conf?.chunks_exact(4).nth(wire::DEVCONF_ACCEPT_RA)?)
}

fn link_info(bytes: &[u8], link: &mut Link) -> Result<(), Cause> {
    let (mut data, mut port_kind, mut port_data) = (None, None, None);
    wire::attributes(bytes, |kind, value| match kind {
        ifla::INFO_KIND => link.kind = Some(wire::to_text(value)),
        ifla::INFO_DATA => data = Some(value),
        ifla::INFO_SLAVE_KIND => port_kind = Some(wire::to_text(value)),
        ifla::INFO_SLAVE_DATA => port_data = Some(value),
        _ => {}
    })?;
    if let Some(name) = &link.kind {
        link.data = kind::read(name, data)?;
    }
    if let (Some("tun"), Some(data)) = (link.kind.as_deref(), data) {
        link.tun = Some(tap::read(data)?);
    }
    if let (Some("vxlan"), Some(data)) = (link.kind.as_deref(), data) {
        wire::attributes(data, |kind, value| {
            if kind == ifla::VXLAN_LEARNING {
                link.learns = Some(is_on(value));
            }
        })?;
    }
    if let (Some("bridge"), Some(data)) = (link.kind.as_deref(), data) {
        wire::attributes(data, |kind, value| {
            if kind == ifla::BR_VLAN_FILTERING {
                link.vlan_filtering = Some(is_on(value));
            }
        })?;
    }
    if let (Some("bridge"), Some(data)) = (port_kind.as_deref(), port_data) {
        let mut port = Port { hairpin: false, isolated: false, learning: false };
        wire::attributes(data, |kind, value| match kind {
            ifla::BRPORT_MODE => port.hairpin = is_on(value),
            ifla::BRPORT_ISOLATED => port.isolated = is_on(value),
            ifla::BRPORT_LEARNING => port.learning = is_on(value),
            ifla::BRPORT_NO => link.port_number = wire::to_u16(value),
            _ => {}
        })?;
        link.port = Some(port);
    }
    Ok(())
}

fn is_on(value: &[u8]) -> bool {
    wire::to_u8(value).is_some_and(|v| v != 0)
}

/// The states of linux/if.h in the words of /sys/class/net/*/operstate (net-sysfs.c).
fn oper_word(state: u8) -> &'static str {
    match state {
        1 => "notpresent",
        2 => "down",
        3 => "lowerlayerdown",
        4 => "testing",
        5 => "dormant",
        6 => "up",
        _ => "unknown",
    }
}
