//! Neighbours (ARP and ND) and forwarding databases: listed; and entries that stay until they are deleted, for links
//! on which nobody asks or learns.

use std::net::IpAddr;

use netlink_packet_core::{Emitable, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourHeader, NeighbourMessage, NeighbourState,
};

use crate::error::{Cause, Result};
use crate::mac::Mac;
use crate::route::Family;
use crate::rtnl::Rtnl;
use crate::wire;

/// linux/neighbour.h, `NDA_*`
mod nda {
    pub(super) const DST: u16 = 1;
    pub(super) const LLADDR: u16 = 2;
    pub(super) const VLAN: u16 = 5;
    pub(super) const VNI: u16 = 7;
    pub(super) const MASTER: u16 = 9;
}

/// A neighbour (RTM_NEWNEIGH, rtnetlink(7)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neigh {
    /// The link it is on.
    pub index: u32,
    /// Its address.
    pub addr: IpAddr,
    /// Its hardware address; None while it is not known.
    pub mac: Option<Mac>,
    /// `NUD_*`, linux/neighbour.h.
    pub state: u16,
}

impl Neigh {
    /// The state in ip-neighbour(8)'s words: `reachable`, `stale`, `failed`, ….
    pub fn state_word(&self) -> &'static str {
        match self.state {
            libc::NUD_INCOMPLETE => "incomplete",
            libc::NUD_REACHABLE => "reachable",
            libc::NUD_STALE => "stale",
            libc::NUD_DELAY => "delay",
            libc::NUD_PROBE => "probe",
            libc::NUD_FAILED => "failed",
            libc::NUD_NOARP => "noarp",
            libc::NUD_PERMANENT => "permanent",
            _ => "none",
        }
    }
}

/// An entry of a forwarding database (RTM_NEWNEIGH of family AF_BRIDGE).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FdbEntry {
    /// The port, or the bridge itself for its own addresses.
    pub index: u32,
    /// The bridge, when the entry is in a bridge's database.
    pub master: Option<u32>,
    /// The hardware address found there.
    pub mac: Mac,
    /// The VLAN, when the bridge filters by VLAN.
    pub vlan: Option<u16>,
    /// Of a VXLAN: the address that frames for `mac` are sent to.
    pub dst: Option<IpAddr>,
    /// Of a VXLAN: the network's number, where it is not the link's own.
    pub vni: Option<u32>,
    /// `NUD_*`: permanent entries are local to the host, noarp ones are static, others are learned.
    pub state: u16,
}

/// The neighbours of all links of the socket's namespace, IPv4 and IPv6.
pub fn list(rtnl: &mut Rtnl) -> Result<Vec<Neigh>> {
    rtnl.dump(libc::RTM_GETNEIGH, &NeighbourMessage::default(), |payload, all| {
        let (header, a) = read(payload)?;
        if let Some(addr) = a.dst.filter(|_| header.family != AddressFamily::Bridge) {
            all.push(Neigh { index: header.ifindex, addr, mac: a.mac, state: header.state.into() });
        }
        Ok(())
    })
    .map_err(|c| c.about("list neighbours"))
}

/// The forwarding databases of all bridges of the socket's namespace, and of devices that have one of their own.
pub fn fdb(rtnl: &mut Rtnl) -> Result<Vec<FdbEntry>> {
    let mut query = NeighbourMessage::default();
    query.header.family = AddressFamily::Bridge;
    rtnl.dump(libc::RTM_GETNEIGH, &query, |payload, all| {
        let (header, a) = read(payload)?;
        all.extend(a.mac.map(|mac| FdbEntry {
            index: header.ifindex,
            master: a.master,
            mac,
            vlan: a.vlan,
            dst: a.dst,
            vni: a.vni,
            state: header.state.into(),
        }));
        Ok(())
    })
    .map_err(|c| c.about("list forwarding databases"))
}

/// Adds a neighbour that is never asked for: `addr` on link `index` has `mac`. `is_exists()` when there is an entry for
/// it, of whatever kind.
pub fn add_permanent(rtnl: &mut Rtnl, index: u32, addr: IpAddr, mac: Mac) -> Result<()> {
    let m = permanent_message(index, addr, mac);
    rtnl.change(libc::RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_EXCL, &m)
        .map_err(|c| c.about(format!("add neighbour {addr} on link {index}")))
}

/// As [`add_permanent`], in the place of whatever entry there is for `addr`.
pub fn replace_permanent(rtnl: &mut Rtnl, index: u32, addr: IpAddr, mac: Mac) -> Result<()> {
    let m = permanent_message(index, addr, mac);
    rtnl.change(libc::RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, &m)
        .map_err(|c| c.about(about_replace(index, addr)))
}

pub(crate) fn about_replace(index: u32, addr: IpAddr) -> String {
    format!("replace neighbour {addr} on link {index}")
}

pub(crate) fn about_fdb(verb: &str, index: u32, mac: Mac, dst: IpAddr) -> String {
    format!("{verb} forwarding entry {mac} to {dst} of link {index}")
}

/// Deletes a neighbour of whatever kind; one that was learned is asked for again when it is needed. `is_not_found()`
/// when there is none.
pub fn delete(rtnl: &mut Rtnl, index: u32, addr: IpAddr) -> Result<()> {
    rtnl.change(libc::RTM_DELNEIGH, 0, &delete_message(index, addr))
        .map_err(|c| c.about(about_delete(index, addr)))
}

pub(crate) fn about_delete(index: u32, addr: IpAddr) -> String {
    format!("delete neighbour {addr} of link {index}")
}

pub(crate) fn delete_message(index: u32, addr: IpAddr) -> NeighbourMessage {
    let mut m = NeighbourMessage::default();
    m.header.family = Family::of(addr).number();
    m.header.ifindex = index;
    m.attributes = vec![NeighbourAttribute::Destination(wire_address(addr))];
    m
}

/// Deletes an entry from the forwarding database of the VXLAN with this index; `vni` is the network's number where it is
/// not the link's own: without it such an entry stays, though Linux 6.18 answers that all is well. `is_not_found()` when
/// there is no entry for `mac`.
pub fn delete_fdb(rtnl: &mut Rtnl, index: u32, mac: Mac, dst: IpAddr, vni: Option<u32>) -> Result<()> {
    let m = delete_fdb_message(index, mac, dst, vni);
    rtnl.change(libc::RTM_DELNEIGH, 0, &m).map_err(|c| c.about(about_fdb("delete", index, mac, dst)))
}

pub(crate) fn delete_fdb_message(index: u32, mac: Mac, dst: IpAddr, vni: Option<u32>) -> NeighbourMessage {
    let mut m = fdb_message(index, mac, dst);
    m.attributes.extend(vni.map(NeighbourAttribute::Vni));
    m
}

/// As [`add_fdb`], in the network with the number `vni` instead of the link's own (NDA_VNI).
pub fn add_fdb_in(rtnl: &mut Rtnl, index: u32, mac: Mac, dst: IpAddr, vni: u32) -> Result<()> {
    let mut m = fdb_message(index, mac, dst);
    m.attributes.push(NeighbourAttribute::Vni(vni));
    rtnl.change(libc::RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_EXCL, &m)
        .map_err(|c| c.about(format!("add forwarding entry {mac} to {dst}, VNI {vni}, of link {index}")))
}

/// Adds an entry to the forwarding database of the VXLAN with this index: frames for `mac` are sent to `dst`.
/// `is_exists()` when there is one for that address.
pub fn add_fdb(rtnl: &mut Rtnl, index: u32, mac: Mac, dst: IpAddr) -> Result<()> {
    let m = fdb_message(index, mac, dst);
    rtnl.change(libc::RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_EXCL, &m)
        .map_err(|c| c.about(about_fdb("add", index, mac, dst)))
}

/// Has a bridge know for good that `mac` is behind port `index`, in the place of what it has learned (NUD_NOARP, NTF_MASTER).
pub fn replace_fdb_of_port(rtnl: &mut Rtnl, index: u32, mac: Mac) -> Result<()> {
    rtnl.change(libc::RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, &port_message(index, mac))
        .map_err(|c| c.about(format!("forward frames for {mac} to bridge port {index}")))
}

fn port_message(index: u32, mac: Mac) -> NeighbourMessage {
    let mut m = NeighbourMessage::default();
    m.header.family = AddressFamily::Bridge;
    m.header.ifindex = index;
    m.header.state = NeighbourState::Noarp;
    m.header.flags = NeighbourFlags::Controller;
    m.attributes = vec![NeighbourAttribute::LinkLayerAddress(mac.0.to_vec())];
    m
}

pub(crate) fn permanent_message(index: u32, addr: IpAddr, mac: Mac) -> NeighbourMessage {
    let mut m = NeighbourMessage::default();
    m.header.family = Family::of(addr).number();
    m.header.ifindex = index;
    m.header.state = NeighbourState::Permanent;
    m.attributes = vec![
        NeighbourAttribute::Destination(wire_address(addr)),
        NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()),
    ];
    m
}

/// The entry is of the device itself (NTF_SELF), not of a bridge that it may be a port of.
pub(crate) fn fdb_message(index: u32, mac: Mac, dst: IpAddr) -> NeighbourMessage {
    let mut m = permanent_message(index, dst, mac);
    m.header.family = AddressFamily::Bridge;
    m.header.flags = NeighbourFlags::Own;
    m
}

fn wire_address(addr: IpAddr) -> NeighbourAddress {
    match addr {
        IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
        IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
    }
}

#[derive(Default)]
pub(crate) struct Attributes {
    pub(crate) dst: Option<IpAddr>,
    pub(crate) mac: Option<Mac>,
    vlan: Option<u16>,
    vni: Option<u32>,
    master: Option<u32>,
}

pub(crate) fn read(payload: &[u8]) -> std::result::Result<(NeighbourHeader, Attributes), Cause> {
    let header = NeighbourHeader::parse(payload).map_err(wire::malformed)?;
    let mut a = Attributes::default();
    wire::attributes(wire::after(payload, header.buffer_len()), |kind, value| match kind {
        nda::DST => a.dst = wire::to_ip(value),
        nda::LLADDR => a.mac = wire::to_mac(value),
        nda::VLAN => a.vlan = value.try_into().ok().map(u16::from_ne_bytes),
        nda::VNI => a.vni = wire::to_u32(value),
        nda::MASTER => a.master = wire::to_u32(value),
        _ => {}
    })?;
    Ok((header, a))
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0x1c, 0, 2]);

    fn bytes(m: &NeighbourMessage) -> Vec<u8> {
        let mut out = vec![0xee; m.buffer_len()];
        m.emit(&mut out);
        out
    }

    #[test]
    fn permanent_neighbour_and_forwarding_entry_are_literal_messages() {
        let addr = IpAddr::from([10, 244, 2, 0]);
        // struct ndmsg: family, pad, index, NUD_PERMANENT, flags, type; NDA_DST, NDA_LLADDR
        let mut expected = vec![2, 0, 0, 0, 5, 0, 0, 0, 0x80, 0, 0, 0, 8, 0, 1, 0, 10, 244, 2, 0];
        expected.extend([10, 0, 2, 0, 2, 0, 0, 0x1c, 0, 2, 0, 0]);
        assert_eq!(bytes(&permanent_message(5, addr, MAC)), expected);
        // AF_BRIDGE, NTF_SELF
        let mut expected = vec![7, 0, 0, 0, 5, 0, 0, 0, 0x80, 0, 2, 0, 8, 0, 1, 0, 192, 0, 2, 12];
        expected.extend([10, 0, 2, 0, 2, 0, 0, 0x1c, 0, 2, 0, 0]);
        assert_eq!(bytes(&fdb_message(5, MAC, [192, 0, 2, 12].into())), expected);
        // AF_BRIDGE, NUD_NOARP, NTF_MASTER
        let mut expected = vec![7, 0, 0, 0, 5, 0, 0, 0, 0x40, 0, 4, 0];
        expected.extend([10, 0, 2, 0, 2, 0, 0, 0x1c, 0, 2, 0, 0]);
        assert_eq!(bytes(&port_message(5, MAC)), expected);
    }
}
