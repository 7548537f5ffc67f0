//! Links of one piece: macvlan, ipvlan, vlan, dummy, VRF, VXLAN, WireGuard. What they are, creation straight into another namespace,
//! reading back, and whether the running kernel has them at all.
//!
//! A link that stands on another finds it by its index in the socket's namespace, wherever it is created itself.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::link::{
    InfoData, InfoIpVlan, InfoKind, InfoMacVlan, InfoVlan, InfoVrf, InfoVxlan, IpVlanMode, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage, MacVlanMode, VlanProtocol as WireProtocol,
};

use super::{about_create, build};
use crate::error::{Cause, Result};
use crate::mac::Mac;
use crate::rtnl::Rtnl;
use crate::wire::{self, ifla};

/// What a link of one piece is, with the properties of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkKind {
    /// Another Ethernet address on the link below (CONFIG_MACVLAN).
    Macvlan {
        /// Who reaches whom.
        mode: MacvlanMode,
        /// Broadcasts that wait to be delivered, in frames; None is the kernel's default (1000).
        bc_queue_len: Option<u32>,
    },
    /// Other IP addresses on the link below, with its Ethernet address (CONFIG_IPVLAN).
    Ipvlan {
        /// Where frames become packets.
        mode: IpvlanMode,
    },
    /// The frames of the link below that carry one VLAN tag (CONFIG_VLAN_8021Q).
    Vlan {
        /// The VLAN, 0 to 4095.
        id: u16,
        /// The tag's EtherType.
        protocol: VlanProtocol,
    },
    /// Frames go nowhere (CONFIG_DUMMY).
    Dummy,
    /// A routing domain, whose ports look up their routes in one table (CONFIG_NET_VRF).
    Vrf {
        /// The table, not 0.
        table: u32,
    },
    /// A wire in UDP datagrams (RFC 7348, CONFIG_VXLAN), whose forwarding database is filled by hand: it learns
    /// nothing and floods nothing.
    Vxlan {
        /// The network's number (VNI), below 2²⁴.
        vni: u32,
        /// The address that datagrams are sent from; its family is that of all of them.
        local: IpAddr,
        /// The UDP port that datagrams are sent to and received on; the standard has 4789, Linux' old default is 8472.
        port: u16,
    },
    /// Packets encrypted to their peers (CONFIG_WIREGUARD); see [`crate::wireguard`].
    Wireguard,
}

/// Who reaches whom among the macvlans of one link (`MACVLAN_MODE_*`, linux/if_link.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MacvlanMode {
    /// Nobody another one.
    Private,
    /// One another, by way of a switch outside that sends frames back.
    Vepa,
    /// One another, directly.
    #[default]
    Bridge,
    /// There is only one, with the link's own address.
    Passthru,
}

/// What an ipvlan looks at (`IPVLAN_MODE_*`, linux/if_link.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IpvlanMode {
    /// Frames.
    #[default]
    L2,
    /// Packets, without ARP and broadcasts.
    L3,
    /// As L3, and packets pass the netfilter hooks of the namespace of the link below.
    L3s,
}

/// The EtherType of a VLAN tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VlanProtocol {
    /// 802.1Q, 0x8100.
    #[default]
    Dot1q,
    /// 802.1ad, 0x88a8.
    Dot1ad,
}

/// A link of one piece to create.
#[derive(Debug, Clone, Copy)]
pub struct NewLink<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it is.
    pub kind: LinkKind,
    /// The index, in the socket's namespace, of the link that it stands on.
    pub parent: Option<u32>,
    /// Its hardware address; None leaves it to the kernel, which makes one up or takes the parent's.
    pub mac: Option<Mac>,
    /// Its MTU in bytes; 0 is the kernel's default, the parent's where there is one.
    pub mtu: u32,
    /// Sets it up.
    pub up: bool,
    /// Where it is created; None is the socket's namespace. Before Linux 6.15 the name must be free in the
    /// socket's namespace too.
    pub netns: Option<BorrowedFd<'a>>,
}

impl<'a> NewLink<'a> {
    /// A link with this name, all else left to the kernel.
    pub fn new(name: &'a str, kind: LinkKind) -> NewLink<'a> {
        NewLink { name, kind, parent: None, mac: None, mtu: 0, up: false, netns: None }
    }
}

impl LinkKind {
    /// The kind's name, as in [`super::Link::kind`].
    pub fn name(&self) -> &'static str {
        self.feature().0
    }

    /// The kind's name, and the kernel's option that provides it.
    fn feature(&self) -> (&'static str, &'static str) {
        match self {
            LinkKind::Macvlan { .. } => ("macvlan", "CONFIG_MACVLAN"),
            LinkKind::Ipvlan { .. } => ("ipvlan", "CONFIG_IPVLAN"),
            LinkKind::Vlan { .. } => ("vlan", "CONFIG_VLAN_8021Q"),
            LinkKind::Dummy => ("dummy", "CONFIG_DUMMY"),
            LinkKind::Vrf { .. } => ("vrf", "CONFIG_NET_VRF"),
            LinkKind::Vxlan { .. } => ("vxlan", "CONFIG_VXLAN"),
            LinkKind::Wireguard => ("wireguard", "CONFIG_WIREGUARD"),
        }
    }

    fn info(&self) -> Vec<LinkInfo> {
        let (kind, data) = match *self {
            LinkKind::Macvlan { mode, bc_queue_len } => {
                let mut data = vec![InfoMacVlan::Mode(mode.into())];
                data.extend(bc_queue_len.map(InfoMacVlan::BcQueueLen));
                (InfoKind::MacVlan, Some(InfoData::MacVlan(data)))
            }
            LinkKind::Ipvlan { mode } => {
                (InfoKind::IpVlan, Some(InfoData::IpVlan(vec![InfoIpVlan::Mode(mode.into())])))
            }
            LinkKind::Vlan { id, protocol } => {
                let data = vec![InfoVlan::Id(id), InfoVlan::Protocol(protocol.into())];
                (InfoKind::Vlan, Some(InfoData::Vlan(data)))
            }
            LinkKind::Dummy => (InfoKind::Dummy, None),
            LinkKind::Wireguard => (InfoKind::Wireguard, None),
            LinkKind::Vrf { table } => (InfoKind::Vrf, Some(InfoData::Vrf(vec![InfoVrf::TableId(table)]))),
            LinkKind::Vxlan { vni, local, port } => {
                let data = vec![
                    InfoVxlan::Id(vni),
                    match local {
                        IpAddr::V4(local) => InfoVxlan::Local(local),
                        IpAddr::V6(local) => InfoVxlan::Local6(local),
                    },
                    InfoVxlan::Learning(false),
                    InfoVxlan::Port(port),
                ];
                (InfoKind::Vxlan, Some(InfoData::Vxlan(data)))
            }
        };
        let mut info = vec![LinkInfo::Kind(kind)];
        info.extend(data.map(LinkInfo::Data));
        info
    }
}

impl MacvlanMode {
    /// Every mode.
    pub const ALL: [MacvlanMode; 4] =
        [MacvlanMode::Private, MacvlanMode::Vepa, MacvlanMode::Bridge, MacvlanMode::Passthru];

    /// The mode's name, as in `ip link`.
    pub fn name(self) -> &'static str {
        match self {
            MacvlanMode::Private => "private",
            MacvlanMode::Vepa => "vepa",
            MacvlanMode::Bridge => "bridge",
            MacvlanMode::Passthru => "passthru",
        }
    }
}

impl IpvlanMode {
    /// Every mode.
    pub const ALL: [IpvlanMode; 3] = [IpvlanMode::L2, IpvlanMode::L3, IpvlanMode::L3s];

    /// The mode's name, as in `ip link`.
    pub fn name(self) -> &'static str {
        match self {
            IpvlanMode::L2 => "l2",
            IpvlanMode::L3 => "l3",
            IpvlanMode::L3s => "l3s",
        }
    }
}

impl From<MacvlanMode> for MacVlanMode {
    fn from(mode: MacvlanMode) -> MacVlanMode {
        match mode {
            MacvlanMode::Private => MacVlanMode::Private,
            MacvlanMode::Vepa => MacVlanMode::Vepa,
            MacvlanMode::Bridge => MacVlanMode::Bridge,
            MacvlanMode::Passthru => MacVlanMode::Passthrough,
        }
    }
}

impl From<IpvlanMode> for IpVlanMode {
    fn from(mode: IpvlanMode) -> IpVlanMode {
        match mode {
            IpvlanMode::L2 => IpVlanMode::L2,
            IpvlanMode::L3 => IpVlanMode::L3,
            IpvlanMode::L3s => IpVlanMode::L3S,
        }
    }
}

impl From<VlanProtocol> for WireProtocol {
    fn from(protocol: VlanProtocol) -> WireProtocol {
        match protocol {
            VlanProtocol::Dot1q => WireProtocol::Ieee8021Q,
            VlanProtocol::Dot1ad => WireProtocol::Ieee8021Ad,
        }
    }
}

/// Creates a link of one piece. `is_exists()` when its name is taken, or when the parent has a VLAN of this number
/// already; `lacks()` tells when the kernel lacks the kind.
pub fn add(rtnl: &mut Rtnl, link: &NewLink<'_>) -> Result<()> {
    let made = rtnl.change(libc::RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &message(link));
    made.map_err(|c| {
        // A parent that takes no VLANs is refused with the same errno.
        let unsupported = matches!(c, Cause::Os { errno: libc::EOPNOTSUPP, .. });
        let c = if unsupported { probe(rtnl, &link.kind).err().unwrap_or(c) } else { c };
        c.about(about_create(link.name))
    })
}

/// Asks whether the kernel can create links of this kind, loading its module where there is one. Nothing is created.
/// `lacks()` tells when it lacks the kind.
pub fn require(rtnl: &mut Rtnl, kind: &LinkKind) -> Result<()> {
    probe(rtnl, kind).map_err(|c| c.about(format!("look for kind {:?}", kind.name())))
}

/// A request that every kind refuses, but each with its own words: it has no parent, and no link may have the address
/// that it asks for. Only a kernel that does not know the kind answers EOPNOTSUPP.
fn probe(rtnl: &mut Rtnl, kind: &LinkKind) -> std::result::Result<(), Cause> {
    let mut m = LinkMessage::default();
    m.attributes.push(LinkAttribute::Address(vec![0; 6]));
    m.attributes.push(LinkAttribute::LinkInfo(kind.info()));
    match rtnl.change(libc::RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &m) {
        Err(Cause::Os { errno: libc::EOPNOTSUPP, .. }) => {
            let (name, option) = kind.feature();
            Err(Cause::Lacks(format!("{name} ({option})")))
        }
        Err(c @ Cause::Os { errno: libc::EPERM, .. }) => Err(c),
        _ => Ok(()),
    }
}

fn message(link: &NewLink<'_>) -> LinkMessage {
    let mut m = build::end(link.name, link.mac, link.mtu);
    m.attributes.extend(link.netns.map(|fd| LinkAttribute::NetNsFd(fd.as_raw_fd())));
    m.attributes.extend(link.parent.map(LinkAttribute::Link));
    m.attributes.push(LinkAttribute::LinkInfo(link.kind.info()));
    build::set_flag(&mut m, LinkFlags::Up, link.up.then_some(true));
    m
}

/// Reads IFLA_INFO_DATA of a link of this kind; None for a kind or mode that is not one of ours.
pub(super) fn read(kind: &str, data: Option<&[u8]>) -> std::result::Result<Option<LinkKind>, Cause> {
    let (mut first, mut queue, mut protocol) = (None, None, None);
    let (mut local, mut port) = (None, None);
    wire::attributes(data.unwrap_or(&[]), |number, value| match (kind, number) {
        // IFLA_MACVLAN_MODE, IFLA_IPVLAN_MODE, IFLA_VLAN_ID, IFLA_VRF_TABLE, IFLA_VXLAN_ID
        (_, 1) => first = wire::to_u32(value).or_else(|| wire::to_u16(value).map(u32::from)),
        ("macvlan", ifla::MACVLAN_BC_QUEUE_LEN) => queue = wire::to_u32(value),
        ("vlan", ifla::VLAN_PROTOCOL) => protocol = wire::to_u16(value).map(u16::from_be),
        ("vxlan", ifla::VXLAN_LOCAL | ifla::VXLAN_LOCAL6) => local = wire::to_ip(value),
        ("vxlan", ifla::VXLAN_PORT) => port = wire::to_u16(value).map(u16::from_be),
        _ => {}
    })?;
    Ok(match (kind, first) {
        ("macvlan", Some(mode)) => {
            let mode = match mode {
                1 => MacvlanMode::Private,
                2 => MacvlanMode::Vepa,
                4 => MacvlanMode::Bridge,
                8 => MacvlanMode::Passthru,
                _ => return Ok(None),
            };
            Some(LinkKind::Macvlan { mode, bc_queue_len: queue })
        }
        ("ipvlan", Some(mode)) => {
            let mode = match mode {
                0 => IpvlanMode::L2,
                1 => IpvlanMode::L3,
                2 => IpvlanMode::L3s,
                _ => return Ok(None),
            };
            Some(LinkKind::Ipvlan { mode })
        }
        ("vlan", Some(id)) => {
            let protocol = if protocol == Some(0x88a8) { VlanProtocol::Dot1ad } else { VlanProtocol::Dot1q };
            Some(LinkKind::Vlan { id: id as u16, protocol })
        }
        ("dummy", _) => Some(LinkKind::Dummy),
        ("wireguard", _) => Some(LinkKind::Wireguard),
        ("vrf", Some(table)) => Some(LinkKind::Vrf { table }),
        ("vxlan", Some(vni)) => match (local, port) {
            (Some(local), Some(port)) => Some(LinkKind::Vxlan { vni, local, port }),
            _ => None,
        },
        _ => None,
    })
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    use netlink_packet_core::Emitable;

    fn bytes(m: &LinkMessage) -> Vec<u8> {
        let mut out = vec![0xee; m.buffer_len()];
        m.emit(&mut out);
        out
    }

    /// `struct ifinfomsg` of a link that is not there yet, and IFLA_IFNAME.
    fn head(up: u8) -> Vec<u8> {
        let mut head = vec![0, 0, 0, 0, 0, 0, 0, 0, up, 0, 0, 0, up, 0, 0, 0];
        head.extend([7, 0, 3, 0, b'p', b'0', 0, 0]);
        head
    }

    /// IFLA_LINKINFO of this kind with these bytes of IFLA_INFO_DATA.
    fn info(kind: &str, data: &[u8]) -> Vec<u8> {
        let mut inner = vec![5 + kind.len() as u8, 0, 1, 0]; // IFLA_INFO_KIND, with a NUL
        inner.extend(kind.bytes().chain([0]));
        inner.resize(inner.len().next_multiple_of(4), 0);
        if !data.is_empty() {
            inner.extend([4 + data.len() as u8, 0, 2, 0]); // IFLA_INFO_DATA
            inner.extend(data);
        }
        let mut out = vec![4 + inner.len() as u8, 0, 18, 0];
        out.extend(inner);
        out
    }

    #[test]
    fn macvlan_is_made_in_the_pod_on_a_parent_of_this_namespace() {
        let ns = std::fs::File::open("/proc/self/ns/net").unwrap();
        let fd = u8::try_from(ns.as_raw_fd()).unwrap();
        let kind = LinkKind::Macvlan { mode: MacvlanMode::Private, bc_queue_len: Some(500) };
        let link = NewLink {
            parent: Some(7),
            mac: Some(Mac([2, 0, 0, 0, 0, 9])),
            mtu: 1400,
            netns: Some(ns.as_fd()),
            ..NewLink::new("p0", kind)
        };
        let mut expected = head(0);
        expected.extend([10, 0, 1, 0, 2, 0, 0, 0, 0, 9, 0, 0]); // IFLA_ADDRESS
        expected.extend([8, 0, 4, 0, 0x78, 0x05, 0, 0]); // IFLA_MTU
        expected.extend([8, 0, 28, 0, fd, 0, 0, 0]); // IFLA_NET_NS_FD
        expected.extend([8, 0, 5, 0, 7, 0, 0, 0]); // IFLA_LINK
        // IFLA_MACVLAN_MODE, IFLA_MACVLAN_BC_QUEUE_LEN
        expected.extend(info("macvlan", &[8, 0, 1, 0, 1, 0, 0, 0, 8, 0, 7, 0, 0xf4, 1, 0, 0]));
        assert_eq!(bytes(&message(&link)), expected);
    }

    #[test]
    fn modes_have_the_kernels_numbers() {
        for (mode, number) in [
            (MacvlanMode::Private, 1),
            (MacvlanMode::Vepa, 2),
            (MacvlanMode::Bridge, 4),
            (MacvlanMode::Passthru, 8),
        ] {
            let kind = LinkKind::Macvlan { mode, bc_queue_len: None };
            let data = [8, 0, 1, 0, number, 0, 0, 0];
            let mut expected = head(0);
            expected.extend(info("macvlan", &data));
            assert_eq!(bytes(&message(&NewLink::new("p0", kind))), expected);
            assert_eq!(read("macvlan", Some(&data)), Ok(Some(kind)));
        }
        for (mode, number) in [(IpvlanMode::L2, 0), (IpvlanMode::L3, 1), (IpvlanMode::L3s, 2)] {
            let kind = LinkKind::Ipvlan { mode };
            let data = [6, 0, 1, 0, number, 0, 0, 0];
            let mut expected = head(0);
            expected.extend(info("ipvlan", &data));
            assert_eq!(bytes(&message(&NewLink::new("p0", kind))), expected);
            assert_eq!(read("ipvlan", Some(&data)), Ok(Some(kind)));
        }
    }

    #[test]
    fn vlan_has_its_number_in_host_order_and_its_protocol_in_network_order() {
        for (protocol, [high, low]) in
            [(VlanProtocol::Dot1q, [0x81, 0x00]), (VlanProtocol::Dot1ad, [0x88, 0xa8])]
        {
            let kind = LinkKind::Vlan { id: 0x0123, protocol };
            // IFLA_VLAN_ID, IFLA_VLAN_PROTOCOL
            let data = [6, 0, 1, 0, 0x23, 0x01, 0, 0, 6, 0, 5, 0, high, low, 0, 0];
            let mut expected = head(1);
            expected.extend([8, 0, 5, 0, 3, 0, 0, 0]);
            expected.extend(info("vlan", &data));
            let link = NewLink { parent: Some(3), up: true, ..NewLink::new("p0", kind) };
            assert_eq!(bytes(&message(&link)), expected);
            assert_eq!(read("vlan", Some(&data)), Ok(Some(kind)));
        }
    }

    #[test]
    fn dummy_and_wireguard_have_no_data_and_a_vrf_its_table() {
        let mut expected = head(0);
        expected.extend(info("dummy", &[]));
        assert_eq!(bytes(&message(&NewLink::new("p0", LinkKind::Dummy))), expected);
        assert_eq!(read("dummy", None), Ok(Some(LinkKind::Dummy)));
        let mut expected = head(0);
        expected.extend(info("wireguard", &[]));
        assert_eq!(bytes(&message(&NewLink::new("p0", LinkKind::Wireguard))), expected);

        let kind = LinkKind::Vrf { table: 0x1_0001 };
        let data = [8, 0, 1, 0, 1, 0, 1, 0];
        let mut expected = head(0);
        expected.extend(info("vrf", &data));
        assert_eq!(bytes(&message(&NewLink::new("p0", kind))), expected);
        assert_eq!(read("vrf", Some(&data)), Ok(Some(kind)));
    }

    #[test]
    fn vxlan_has_its_port_in_network_order_and_learns_nothing() {
        let kind = LinkKind::Vxlan { vni: 1, local: [192, 0, 2, 11].into(), port: 8472 };
        // IFLA_VXLAN_ID, IFLA_VXLAN_LOCAL, IFLA_VXLAN_LEARNING, IFLA_VXLAN_PORT
        let mut data = vec![8, 0, 1, 0, 1, 0, 0, 0, 8, 0, 4, 0, 192, 0, 2, 11];
        data.extend([5, 0, 7, 0, 0, 0, 0, 0, 6, 0, 15, 0, 0x21, 0x18, 0, 0]);
        let mut expected = head(0);
        expected.extend(info("vxlan", &data));
        assert_eq!(bytes(&message(&NewLink::new("p0", kind))), expected);
        assert_eq!(read("vxlan", Some(&data)), Ok(Some(kind)));
        assert_eq!(read("vxlan", Some(&data[..8])), Ok(None), "without an address of its own");
    }

    #[test]
    fn what_is_not_ours_is_read_as_none() {
        assert_eq!(read("macvlan", Some(&[8, 0, 1, 0, 16, 0, 0, 0])), Ok(None), "source mode");
        assert_eq!(read("ipvlan", None), Ok(None));
        assert_eq!(read("veth", Some(&[8, 0, 1, 0, 1, 0, 0, 0])), Ok(None));
        assert!(read("vlan", Some(&[9, 0, 1, 0])).is_err());
        let queue = [8, 0, 1, 0, 4, 0, 0, 0, 8, 0, 7, 0, 0xf4, 1, 0, 0];
        let kind = LinkKind::Macvlan { mode: MacvlanMode::Bridge, bc_queue_len: Some(500) };
        assert_eq!(read("macvlan", Some(&queue)), Ok(Some(kind)));
    }
}
