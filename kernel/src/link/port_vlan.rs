//! VLANs of bridge ports (CONFIG_BRIDGE_VLAN_FILTERING): the VLANs that a port is a member of, and whether its bridge
//! minds them.
//!
//! Messages of family AF_BRIDGE about the port; its VLANs stand in IFLA_AF_SPEC, as single ones or as ranges.

use netlink_packet_core::{Emitable, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{
    AfSpecBridge, BridgeVlanInfo, BridgeVlanInfoFlags, InfoBridge, InfoData, InfoKind, LinkAttribute,
    LinkExtentMask, LinkHeader, LinkInfo, LinkMessage,
};

use super::build;
use crate::error::{Cause, Result};
use crate::rtnl::Rtnl;
use crate::wire::{self, ifla};

/// The first and last VLAN that a port can be a member of.
const ALL: (u16, u16) = (1, 4094);

/// A VLAN that a bridge port is a member of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortVlan {
    /// Its number, 1 to 4094.
    pub id: u16,
    /// Frames that come in without a tag are of this VLAN; of one VLAN of a port at most.
    pub pvid: bool,
    /// Frames of it go out without a tag.
    pub untagged: bool,
}

/// Makes a port a member of these VLANs, or changes how it is one; neighbours with the same flags share one entry.
/// `lacks()` tells when the kernel lacks VLAN filtering.
pub fn add_port_vlans(rtnl: &mut Rtnl, port: u32, vlans: &[PortVlan]) -> Result<()> {
    let asked = rtnl.change(libc::RTM_SETLINK, 0, &message(port, entries(vlans)));
    asked.map_err(|c| named(c).about(format!("add VLANs to bridge port {port}")))
}

/// Takes a port out of all its VLANs, also out of the bridge's default one. Where the kernel lacks VLAN filtering
/// there are none, and nothing is done.
pub fn clear_port_vlans(rtnl: &mut Rtnl, port: u32) -> Result<()> {
    let asked = rtnl.change(libc::RTM_DELLINK, 0, &message(port, range(ALL, BridgeVlanInfoFlags::empty())));
    asked.map_err(|c| named(c).about(format!("remove VLANs of bridge port {port}")))
}

/// The VLANs of all bridges and bridge ports of the socket's namespace: the link's index, and one VLAN of it. Empty
/// where the kernel lacks VLAN filtering.
pub fn port_vlans(rtnl: &mut Rtnl) -> Result<Vec<(u32, PortVlan)>> {
    rtnl.dump(libc::RTM_GETLINK, &query(), read).map_err(|c| c.about("list VLANs of bridge ports"))
}

/// Lets a bridge filter frames by VLAN, or not. `lacks()` tells when the kernel lacks it.
pub fn set_vlan_filtering(rtnl: &mut Rtnl, bridge: u32, on: bool) -> Result<()> {
    let mut m = build::address_only(bridge);
    m.attributes.push(filtering(vec![InfoBridge::VlanFiltering(on)]));
    rtnl.change(libc::RTM_NEWLINK, 0, &m)
        .map_err(|c| named(c).about(format!("set VLAN filtering of bridge {bridge}")))
}

/// Asks whether the kernel's bridges can filter by VLAN; nothing is made. `lacks()` tells when they cannot.
pub fn require_vlan_filtering(rtnl: &mut Rtnl) -> Result<()> {
    // 0 is the EtherType of no VLAN tag: a kernel with VLAN filtering refuses it before it makes anything, one
    // without refuses the filtering.
    let protocol = netlink_packet_core::DefaultNla::new(ifla::BR_VLAN_PROTOCOL, vec![0, 0]);
    let mut m = build::address_only(0);
    m.attributes.push(filtering(vec![InfoBridge::VlanFiltering(true), InfoBridge::Other(protocol)]));
    match rtnl.change(libc::RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &m).map_err(named) {
        Err(c @ (Cause::Lacks(_) | Cause::Os { errno: libc::EPERM, .. })) => {
            Err(c.about("look for VLAN filtering"))
        }
        _ => Ok(()),
    }
}

/// The kernel answers EOPNOTSUPP to all that concerns VLANs of bridges when it was built without them.
pub(super) fn named(cause: Cause) -> Cause {
    match cause {
        Cause::Os { errno: libc::EOPNOTSUPP, .. } => {
            Cause::Lacks("VLAN filtering of bridges (CONFIG_BRIDGE_VLAN_FILTERING)".into())
        }
        other => other,
    }
}

fn filtering(options: Vec<InfoBridge>) -> LinkAttribute {
    LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge), LinkInfo::Data(InfoData::Bridge(options))])
}

fn message(port: u32, entries: Vec<BridgeVlanInfo>) -> LinkMessage {
    let mut m = build::address_only(port);
    m.header.interface_family = AddressFamily::Bridge;
    m.attributes.push(LinkAttribute::AfSpecBridge(entries.into_iter().map(AfSpecBridge::VlanInfo).collect()));
    m
}

fn query() -> LinkMessage {
    let mut m = LinkMessage::default();
    m.header.interface_family = AddressFamily::Bridge;
    m.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::BrvlanCompressed]));
    m
}

/// The VLANs in ascending order, neighbours with the same flags as a range. The kernel takes no range of PVIDs.
fn entries(vlans: &[PortVlan]) -> Vec<BridgeVlanInfo> {
    let mut sorted = vlans.to_vec();
    sorted.sort_unstable();
    sorted.dedup_by_key(|vlan| vlan.id);
    let together =
        |a: &PortVlan, b: &PortVlan| a.id + 1 == b.id && !a.pvid && !b.pvid && a.untagged == b.untagged;
    sorted
        .chunk_by(together)
        .flat_map(|run| range((run[0].id, run[run.len() - 1].id), flags(run[0])))
        .collect()
}

fn flags(vlan: PortVlan) -> BridgeVlanInfoFlags {
    let mut flags = BridgeVlanInfoFlags::empty();
    flags.set(BridgeVlanInfoFlags::Pvid, vlan.pvid);
    flags.set(BridgeVlanInfoFlags::Untagged, vlan.untagged);
    flags
}

fn range((first, last): (u16, u16), flags: BridgeVlanInfoFlags) -> Vec<BridgeVlanInfo> {
    if first == last {
        return vec![BridgeVlanInfo { flags, vid: first }];
    }
    vec![
        BridgeVlanInfo { flags: flags | BridgeVlanInfoFlags::RangeBegin, vid: first },
        BridgeVlanInfo { flags: flags | BridgeVlanInfoFlags::RangeEnd, vid: last },
    ]
}

/// Reads an RTM_NEWLINK of family AF_BRIDGE.
fn read(payload: &[u8], all: &mut Vec<(u32, PortVlan)>) -> std::result::Result<(), Cause> {
    let header = LinkHeader::parse(payload).map_err(wire::malformed)?;
    let mut spec: &[u8] = &[];
    wire::attributes(wire::after(payload, header.buffer_len()), |kind, value| {
        if kind == ifla::AF_SPEC {
            spec = value;
        }
    })?;
    let mut first = None;
    wire::attributes(spec, |kind, value| {
        let info = BridgeVlanInfo::try_from(value).ok().filter(|_| kind == ifla::BRIDGE_VLAN_INFO);
        let Some(BridgeVlanInfo { flags, vid }) = info else { return };
        if flags.contains(BridgeVlanInfoFlags::RangeBegin) {
            first = Some(vid);
            return;
        }
        let from = first.take().filter(|_| flags.contains(BridgeVlanInfoFlags::RangeEnd)).unwrap_or(vid);
        all.extend((from..=vid).map(|id| {
            let pvid = flags.contains(BridgeVlanInfoFlags::Pvid);
            (header.index, PortVlan { id, pvid, untagged: flags.contains(BridgeVlanInfoFlags::Untagged) })
        }));
    })
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    fn bytes(m: &LinkMessage) -> Vec<u8> {
        let mut out = vec![0xee; m.buffer_len()];
        m.emit(&mut out);
        out
    }

    /// `struct ifinfomsg` of family AF_BRIDGE.
    fn head(index: u8) -> Vec<u8> {
        vec![7, 0, 0, 0, index, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    }

    fn tagged(id: u16) -> PortVlan {
        PortVlan { id, pvid: false, untagged: false }
    }

    const NATIVE: PortVlan = PortVlan { id: 11, pvid: true, untagged: true };

    #[test]
    fn vlans_are_sent_in_order_with_neighbours_as_ranges() {
        let vlans = [tagged(300), NATIVE, tagged(10), tagged(12), tagged(13), tagged(14), tagged(300)];
        let mut expected = head(9);
        expected.extend([52, 0, 26, 0]); // IFLA_AF_SPEC
        expected.extend([8, 0, 2, 0, 0, 0, 10, 0]); // IFLA_BRIDGE_VLAN_INFO: flags, VLAN
        expected.extend([8, 0, 2, 0, 6, 0, 11, 0]); // PVID, UNTAGGED
        expected.extend([8, 0, 2, 0, 8, 0, 12, 0]); // RANGE_BEGIN
        expected.extend([8, 0, 2, 0, 16, 0, 14, 0]); // RANGE_END
        expected.extend([8, 0, 2, 0, 0, 0, 0x2c, 0x01]);
        let mut m = bytes(&message(9, entries(&vlans)));
        // The nest's flag is the emitter's choice; the kernel takes it either way.
        m[19] &= 0x7f;
        expected[16] = (expected.len() - 16) as u8;
        assert_eq!(m, expected);
    }

    #[test]
    fn clearing_names_all_vlans_as_one_range() {
        let mut expected = head(9);
        expected.extend([20, 0, 26, 0]);
        expected.extend([8, 0, 2, 0, 8, 0, 1, 0, 8, 0, 2, 0, 16, 0, 0xfe, 0x0f]);
        let mut m = bytes(&message(9, range(ALL, BridgeVlanInfoFlags::empty())));
        m[19] &= 0x7f;
        assert_eq!(m, expected);
    }

    #[test]
    fn query_asks_for_ranges() {
        let mut expected = head(0);
        expected.extend([8, 0, 29, 0, 4, 0, 0, 0]); // IFLA_EXT_MASK: RTEXT_FILTER_BRVLAN_COMPRESSED
        assert_eq!(bytes(&query()), expected);
    }

    #[test]
    fn ranges_of_an_answer_are_read_as_single_vlans() {
        let mut m = head(4);
        m.extend([8, 0, 10, 0, 2, 0, 0, 0]); // IFLA_MASTER
        m.extend([36, 0, 26, 0x80]);
        m.extend([8, 0, 2, 0, 6, 0, 11, 0]);
        m.extend([8, 0, 2, 0, 12, 0, 20, 0]); // RANGE_BEGIN, UNTAGGED
        m.extend([8, 0, 2, 0, 20, 0, 22, 0]); // RANGE_END, UNTAGGED
        m.extend([8, 0, 2, 0, 0, 0, 30, 0]);
        let mut all = Vec::new();
        read(&m, &mut all).unwrap();
        let untagged = |id| PortVlan { id, pvid: false, untagged: true };
        let expected = [NATIVE, untagged(20), untagged(21), untagged(22), tagged(30)];
        assert_eq!(all, expected.map(|vlan| (4, vlan)));

        let mut none = Vec::new();
        read(&m[..24], &mut none).unwrap();
        assert!(none.is_empty(), "no IFLA_AF_SPEC");
        assert!(read(&m[..30], &mut none).is_err(), "cut");
    }

    #[test]
    fn what_is_sent_is_read_back_whatever_the_order() {
        let vlans = [tagged(4094), tagged(1), tagged(2), NATIVE, tagged(4093), tagged(3)];
        let mut all = Vec::new();
        read(&bytes(&message(5, entries(&vlans))), &mut all).unwrap();
        let mut sorted = vlans;
        sorted.sort_unstable();
        assert_eq!(all, sorted.map(|vlan| (5, vlan)));
    }
}
