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

pub(crate) fn change_message(index: u32, change: &Change<'_>) -> LinkMessage {
    let mut m = address_only(index);
    set_flag(&mut m, LinkFlags::Up, change.up);
    set_flag(&mut m, LinkFlags::Promisc, change.promisc);
    let a = &mut m.attributes;
    a.extend(change.netns.map(netns));
    a.extend(change.mac.map(address));
    a.extend(change.mtu.map(LinkAttribute::Mtu));
    a.extend(change.name.map(|n| LinkAttribute::IfName(n.into())));
    a.extend(change.alias.map(|text| LinkAttribute::IfAlias(text.into())));
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
    let mut m = address_only(index);
    m.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(options)),
    ]));
    m
}

fn end(name: &str, mac: Option<Mac>, mtu: u32) -> LinkMessage {
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

fn set_flag(m: &mut LinkMessage, flag: LinkFlags, value: Option<bool>) {
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
