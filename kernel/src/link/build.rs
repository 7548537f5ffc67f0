//! Link messages as the kernel wants them. Building only: nothing is sent here.

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::DefaultNla;
use netlink_packet_route::link::{
    AfSpecInet, AfSpecUnspec, InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind,
    InfoVeth, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
};

use super::{Bridge, Change, Port, Veth};
use crate::mac::Mac;
use crate::wire::{self, ifla};

/// RTM_GETLINK for one link or all, without statistics.
pub(crate) fn query(index: u32, name: Option<&str>) -> LinkMessage {
    let mut m = address_only(index);
    m.attributes.extend(name.map(|n| LinkAttribute::IfName(n.into())));
    m.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    m
}

/// A message that says which link and nothing else.
pub(crate) fn address_only(index: u32) -> LinkMessage {
    let mut m = LinkMessage::default();
    m.header.index = index;
    m
}

/// All links of a device group.
pub(crate) fn group_message(group: u32) -> LinkMessage {
    let mut m = address_only(0);
    m.attributes.push(LinkAttribute::Group(group));
    m
}

pub(crate) fn veth_message(veth: &Veth<'_>) -> LinkMessage {
    let mut peer = end(veth.peer, veth.peer_mac, veth.mtu);
    peer.attributes.extend(one_queue());
    peer.attributes.extend(veth.peer_netns.map(netns));

    let mut m = end(veth.name, veth.mac, veth.mtu);
    m.attributes.extend(one_queue());
    m.attributes.extend(veth.master.map(LinkAttribute::Controller));
    let data = InfoData::Veth(InfoVeth::Peer(peer));
    m.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(data)]));
    set_flag(&mut m, LinkFlags::Up, veth.up.then_some(true));
    m
}

pub(crate) fn bridge_message(bridge: &Bridge<'_>) -> LinkMessage {
    let mut m = end(bridge.name, bridge.mac, bridge.mtu);
    let mut info = vec![LinkInfo::Kind(InfoKind::Bridge)];
    if bridge.vlan_filtering {
        info.push(LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::VlanFiltering(true)])));
    }
    m.attributes.push(LinkAttribute::LinkInfo(info));
    set_flag(&mut m, LinkFlags::Up, bridge.up.then_some(true));
    m
}

/// A queue length is sent, 0 too: without one the kernel gives 32 packets.
pub(crate) fn ifb_message(name: &str, mtu: u32) -> LinkMessage {
    let mut m = end(name, None, mtu);
    m.attributes.push(LinkAttribute::TxQueueLen(0));
    m.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Ifb)]));
    set_flag(&mut m, LinkFlags::Up, Some(true));
    m
}

pub(crate) fn change_message(index: u32, change: &Change<'_>) -> LinkMessage {
    let mut m = address_only(index);
    set_flag(&mut m, LinkFlags::Up, change.up);
    set_flag(&mut m, LinkFlags::Promisc, change.promisc);
    set_flag(&mut m, LinkFlags::Allmulti, change.allmulti);
    let a = &mut m.attributes;
    a.extend(change.netns.map(netns));
    a.extend(change.mac.map(address));
    a.extend(change.mtu.map(LinkAttribute::Mtu));
    a.extend(change.name.map(|n| LinkAttribute::IfName(n.into())));
    a.extend(change.alias.map(alias));
    a.extend(change.group.map(LinkAttribute::Group));
    a.extend(change.master.map(LinkAttribute::Controller));
    a.extend(change.txqlen.map(LinkAttribute::TxQueueLen));
    a.extend(change.arp_notify.map(arp_notify));
    m
}

/// RTM_NEWLINK on an existing port: the bridge takes the options as IFLA_INFO_SLAVE_DATA.
pub(crate) fn port_message(index: u32, port: &Port) -> LinkMessage {
    let options = vec![
        InfoBridgePort::HairpinMode(port.hairpin),
        InfoBridgePort::Isolated(port.isolated),
        InfoBridgePort::Learning(port.learning),
    ];
    port_options(index, options)
}

/// The same, by which the bridge answers for what is behind the port.
pub(super) fn answering_message(index: u32) -> LinkMessage {
    port_options(index, vec![InfoBridgePort::ProxyARPWifi(true)])
}

fn port_options(index: u32, options: Vec<InfoBridgePort>) -> LinkMessage {
    let mut m = address_only(index);
    m.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(options)),
    ]));
    m
}

pub(super) fn end(name: &str, mac: Option<Mac>, mtu: u32) -> LinkMessage {
    let mut m = LinkMessage::default();
    m.attributes.reserve(8);
    m.attributes.push(LinkAttribute::IfName(name.into()));
    m.attributes.extend(mac.map(address));
    m.attributes.extend((mtu != 0).then_some(LinkAttribute::Mtu(mtu)));
    m
}

/// More queues than one cost two RCU grace periods when the device is made, and a pod's veth uses one.
fn one_queue() -> [LinkAttribute; 2] {
    [LinkAttribute::NumTxQueues(1), LinkAttribute::NumRxQueues(1)]
}

fn address(mac: Mac) -> LinkAttribute {
    LinkAttribute::Address(mac.0.to_vec())
}

fn netns(fd: BorrowedFd<'_>) -> LinkAttribute {
    LinkAttribute::NetNsFd(fd.as_raw_fd())
}

/// The kernel counts a final NUL as part of the text, which would make 255 bytes too long; but an empty text needs
/// one to be a text at all.
fn alias(text: &str) -> LinkAttribute {
    let value = if text.is_empty() { vec![0] } else { text.as_bytes().to_vec() };
    LinkAttribute::Other(DefaultNla::new(ifla::IFALIAS, value))
}

pub(super) fn set_flag(m: &mut LinkMessage, flag: LinkFlags, value: Option<bool>) {
    if let Some(on) = value {
        m.header.change_mask |= flag;
        m.header.flags.set(flag, on);
    }
}

/// netlink-packet-route leaves out values of 0, so this nest is spelled out here.
fn arp_notify(on: bool) -> LinkAttribute {
    let value = DefaultNla::new(wire::DEVCONF_ARP_NOTIFY, u32::from(on).to_ne_bytes().to_vec());
    let conf = AfSpecInet::Other(wire::nest(ifla::INET_CONF, &[value]));
    LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet(vec![conf])])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{AsFd, AsRawFd};

    use netlink_packet_core::Emitable;

    fn bytes(m: &LinkMessage) -> Vec<u8> {
        let mut out = vec![0xee; m.buffer_len()];
        m.emit(&mut out);
        out
    }

    /// `struct ifinfomsg`: family, pad, type, index, flags, change.
    fn head(index: u8, flags: u8, change: u8) -> Vec<u8> {
        vec![0, 0, 0, 0, index, 0, 0, 0, flags, 0, 0, 0, change, 0, 0, 0]
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn veth_is_one_message_with_one_queue_on_both_ends() {
        let ns = std::fs::File::open("/proc/self/ns/net").unwrap();
        let fd = u8::try_from(ns.as_raw_fd()).unwrap();
        let veth = Veth {
            name: "v0",
            peer: "eth0",
            mac: None,
            peer_mac: Some(Mac([2, 0, 0, 0, 0, 9])),
            mtu: 1400,
            master: Some(7),
            up: true,
            peer_netns: Some(ns.as_fd()),
        };
        let mut expected = head(0, 1, 1);
        expected.extend([7, 0, 3, 0, b'v', b'0', 0, 0]); // IFLA_IFNAME
        expected.extend([8, 0, 4, 0, 0x78, 0x05, 0, 0]); // IFLA_MTU
        expected.extend([8, 0, 31, 0, 1, 0, 0, 0]); // IFLA_NUM_TX_QUEUES
        expected.extend([8, 0, 32, 0, 1, 0, 0, 0]); // IFLA_NUM_RX_QUEUES
        expected.extend([8, 0, 10, 0, 7, 0, 0, 0]); // IFLA_MASTER
        expected.extend([96, 0, 18, 0]); // IFLA_LINKINFO
        expected.extend([9, 0, 1, 0, b'v', b'e', b't', b'h', 0, 0, 0, 0]); // IFLA_INFO_KIND
        expected.extend([80, 0, 2, 0]); // IFLA_INFO_DATA
        expected.extend([76, 0, 1, 0]); // VETH_INFO_PEER
        expected.extend(head(0, 0, 0));
        expected.extend([9, 0, 3, 0, b'e', b't', b'h', b'0', 0, 0, 0, 0]);
        expected.extend([10, 0, 1, 0, 2, 0, 0, 0, 0, 9, 0, 0]); // IFLA_ADDRESS
        expected.extend([8, 0, 4, 0, 0x78, 0x05, 0, 0]);
        expected.extend([8, 0, 31, 0, 1, 0, 0, 0]);
        expected.extend([8, 0, 32, 0, 1, 0, 0, 0]);
        expected.extend([8, 0, 28, 0, fd, 0, 0, 0]); // IFLA_NET_NS_FD
        assert_eq!(bytes(&veth_message(&veth)), expected);
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn arp_notify_is_a_nest_of_three_levels_also_when_switched_off() {
        for on in [true, false] {
            let change = Change { arp_notify: Some(on), ..Change::default() };
            let mut expected = head(3, 0, 0);
            expected.extend([20, 0, 26, 0]); // IFLA_AF_SPEC
            expected.extend([16, 0, 2, 0]); // AF_INET
            expected.extend([12, 0, 1, 0x80]); // IFLA_INET_CONF, NLA_F_NESTED
            expected.extend([8, 0, 22, 0, u8::from(on), 0, 0, 0]); // IPV4_DEVCONF_ARP_NOTIFY
            assert_eq!(bytes(&change_message(3, &change)), expected);
        }
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn port_options_are_the_bridges_slave_data() {
        let port = Port { hairpin: true, isolated: false, learning: true };
        let mut expected = head(5, 0, 0);
        expected.extend([44, 0, 18, 0]); // IFLA_LINKINFO
        expected.extend([11, 0, 4, 0, b'b', b'r', b'i', b'd', b'g', b'e', 0, 0]); // IFLA_INFO_SLAVE_KIND
        expected.extend([28, 0, 5, 0]); // IFLA_INFO_SLAVE_DATA
        expected.extend([5, 0, 4, 0, 1, 0, 0, 0]); // IFLA_BRPORT_MODE
        expected.extend([5, 0, 33, 0, 0, 0, 0, 0]); // IFLA_BRPORT_ISOLATED
        expected.extend([5, 0, 8, 0, 1, 0, 0, 0]); // IFLA_BRPORT_LEARNING
        assert_eq!(bytes(&port_message(5, &port)), expected);
        let mut expected = head(5, 0, 0);
        expected.extend([28, 0, 18, 0]); // IFLA_LINKINFO
        expected.extend([11, 0, 4, 0, b'b', b'r', b'i', b'd', b'g', b'e', 0, 0]); // IFLA_INFO_SLAVE_KIND
        expected.extend([12, 0, 5, 0]); // IFLA_INFO_SLAVE_DATA
        expected.extend([5, 0, 12, 0, 1, 0, 0, 0]); // IFLA_BRPORT_PROXYARP_WIFI
        assert_eq!(bytes(&answering_message(5)), expected);
    }

    #[test]
    fn flags_change_only_what_is_asked() {
        let change = Change { up: Some(false), ..Change::default() };
        assert_eq!(bytes(&change_message(4, &change)), head(4, 0, 1));
        assert_eq!(bytes(&change_message(4, &Change::default())), head(4, 0, 0));
    }
}
