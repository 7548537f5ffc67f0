//! Neighbours (ARP and ND) and the forwarding databases of bridges, listed. Nothing here changes an entry.

use std::net::IpAddr;

use netlink_packet_core::Emitable;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{NeighbourHeader, NeighbourMessage};

use crate::error::{Cause, Result};
use crate::mac::Mac;
use crate::rtnl::Rtnl;
use crate::wire;

/// linux/neighbour.h, `NDA_*`
mod nda {
    pub(super) const DST: u16 = 1;
    pub(super) const LLADDR: u16 = 2;
    pub(super) const VLAN: u16 = 5;
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
            state: header.state.into(),
        }));
        Ok(())
    })
    .map_err(|c| c.about("list forwarding databases"))
}

#[derive(Default)]
struct Attributes {
    dst: Option<IpAddr>,
    mac: Option<Mac>,
    vlan: Option<u16>,
    master: Option<u32>,
}

fn read(payload: &[u8]) -> std::result::Result<(NeighbourHeader, Attributes), Cause> {
    let header = NeighbourHeader::parse(payload).map_err(wire::malformed)?;
    let mut a = Attributes::default();
    wire::attributes(wire::after(payload, header.buffer_len()), |kind, value| match kind {
        nda::DST => a.dst = wire::to_ip(value),
        nda::LLADDR => a.mac = wire::to_mac(value),
        nda::VLAN => a.vlan = value.try_into().ok().map(u16::from_ne_bytes),
        nda::MASTER => a.master = wire::to_u32(value),
        _ => {}
    })?;
    Ok((header, a))
}
