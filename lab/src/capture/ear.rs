//! One namespace's packet socket, and what is known of the links that it hears.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use foldhash::fast::RandomState;
use ipnetwork::IpNetwork;
use kernel::packet::{Batch, Frame as Received, Instruction, PacketSocket, Stats};
use kernel::{Mac, Rtnl, addr, link};

use crate::cluster::{Role, Space};
use crate::packet::Packet;
use crate::pcapng::Reception;
use crate::sighting::{Direction, Frame, Sighting, Spot};

/// `PACKET_*`, linux/if_packet.h.
const HOST: u8 = 0;
const BROADCAST: u8 = 1;
const MULTICAST: u8 = 2;
const OTHERHOST: u8 = 3;
/// EtherType of a VLAN tag (IEEE 802.1Q).
const VLAN: [u8; 2] = [0x81, 0x00];
/// Longer than any frame, those that an offload put together included.
pub(super) const LONGEST: usize = 128 * 1024;

/// What is known of an interface besides its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Where it is.
    pub spot: Arc<Spot>,
    /// The kind of link; None for loopback.
    pub kind: Option<String>,
    /// Its hardware address; None when its packets have no Ethernet header.
    pub mac: Option<Mac>,
    /// Its addresses.
    pub addresses: Vec<IpNetwork>,
    /// Frames that went by while it was listened on.
    pub received: u64,
}

impl Facts {
    /// Its packets have no Ethernet header.
    pub(super) fn is_bare(&self) -> bool {
        self.mac.is_none()
    }
}

/// The interfaces of a namespace.
///
/// # Errors
/// The kernel's words.
pub fn facts(space: &Space) -> Result<Vec<Facts>> {
    Ok(numbered(space, true)?.into_iter().map(|(_, facts)| facts).collect())
}

/// The interfaces of a namespace by number; addresses are read where they are wanted.
fn numbered(space: &Space, with_addresses: bool) -> Result<Vec<(u32, Facts)>> {
    let read = || -> kernel::Result<_> {
        let mut rtnl = Rtnl::open_in(&space.netns)?;
        let links = link::list(&mut rtnl)?;
        let addresses = if with_addresses { addr::list(&mut rtnl, None)? } else { Vec::new() };
        Ok((links, addresses))
    };
    let (links, addresses) = read().with_context(|| format!("read the links of {}", space.name))?;
    let name_of = |index: u32| links.iter().find(|l| l.index == index).map(|l| l.name.clone());
    let all = links.iter().map(|link| {
        let spot = Spot {
            space: space.name.clone(),
            role: space.role,
            interface: link.name.clone(),
            port_of: link.master.and_then(name_of),
            is_bridge: link.kind.as_deref() == Some("bridge"),
        };
        let own = addresses.iter().filter(|address| address.index == link.index);
        let facts = Facts {
            spot: Arc::new(spot),
            kind: link.kind.clone(),
            mac: link.mac,
            addresses: own.map(|address| address.net).collect(),
            received: 0,
        };
        (link.index, facts)
    });
    Ok(all.collect())
}

/// A socket in one namespace, and what its links are called.
pub(super) struct Ear {
    pub(super) space: String,
    role: Role,
    pub(super) socket: PacketSocket,
    links: HashMap<u32, Facts, RandomState>,
    pub(super) keep_frames: bool,
}

impl Ear {
    pub(super) fn open(space: &Space, filter: &[Instruction], keep_frames: bool) -> Result<Ear> {
        let context = || format!("capture in {}", space.name);
        let socket = PacketSocket::open_filtered(&space.netns, filter).with_context(context)?;
        let links = numbered(space, keep_frames)?.into_iter().collect();
        Ok(Ear { space: space.name.clone(), role: space.role, links, socket, keep_frames })
    }

    /// The counts since the socket was opened.
    pub(super) fn stats(&self) -> Result<Stats> {
        self.socket.stats().with_context(|| format!("capture in {}", self.space))
    }

    /// The interfaces, by number, where frames are kept; then there are none left.
    pub(super) fn take_facts(&mut self) -> Vec<Facts> {
        if !self.keep_frames {
            return Vec::new();
        }
        let mut all: Vec<(u32, Facts)> = self.links.drain().collect();
        all.sort_by_key(|(index, _)| *index);
        all.into_iter().map(|(_, facts)| facts).collect()
    }

    /// The interfaces as they are known now, by number.
    pub(super) fn facts(&self) -> Vec<&Facts> {
        let mut all: Vec<(&u32, &Facts)> = self.links.iter().collect();
        all.sort_by_key(|(index, _)| **index);
        all.into_iter().map(|(_, facts)| facts).collect()
    }

    /// A link that was made after the capture began has a number only.
    fn link(&mut self, index: u32) -> &mut Facts {
        let made_later = || Facts {
            spot: Arc::new(Spot {
                space: self.space.clone(),
                role: self.role,
                interface: format!("link {index}"),
                port_of: None,
                is_bridge: false,
            }),
            kind: None,
            // Until it is known otherwise its packets are read as Ethernet.
            mac: Some(Mac([0; 6])),
            addresses: Vec::new(),
            received: 0,
        };
        self.links.entry(index).or_insert_with(made_later)
    }

    /// Reads `most` frames or a batch more, fewer when there are no more, and hands them on with their link. Returns the
    /// time of the last one where there may be more.
    pub(super) fn read(
        &mut self,
        batch: &mut Batch,
        most: usize,
        take: &mut impl FnMut(&Facts, &Received, &[u8]),
    ) -> Result<Option<u64>> {
        let (mut last, mut count) = (None, 0);
        while count < most {
            self.socket.recv_batch(batch).with_context(|| format!("capture in {}", self.space))?;
            for (received, bytes) in batch.frames() {
                last = Some(received.stamp_ns);
                count += 1;
                let link = self.link(received.ifindex);
                link.received += 1;
                take(link, received, bytes);
            }
            if !batch.is_full() {
                return Ok(None);
            }
        }
        Ok(last)
    }
}

/// A frame that was received on a link, if it is decoded and wanted.
pub(super) fn sighting(
    at: &Arc<Spot>,
    is_bare: bool,
    (received, bytes): (&Received, &[u8]),
    keep_frames: bool,
    wanted: impl FnOnce(&Packet) -> bool,
) -> Option<Sighting> {
    let decode = if is_bare { Packet::decode_bare } else { Packet::decode };
    let packet = decode(bytes).filter(wanted)?;
    Some(Sighting {
        at: at.clone(),
        direction: direction(received),
        stamp_ns: received.stamp_ns,
        is_overheard: received.packet_type == OTHERHOST,
        packet,
        frame: keep_frames.then(|| Arc::new(frame(received, bytes))),
    })
}

pub(super) fn direction(received: &Received) -> Direction {
    if received.outgoing { Direction::Out } else { Direction::In }
}

/// The frame as it was on the wire.
fn frame(received: &Received, bytes: &[u8]) -> Frame {
    let mut bytes = bytes.to_vec();
    let mut original_len = received.original_len as u32;
    if let Some(tci) = received.vlan_tci
        && bytes.len() >= 12
    {
        let [a, b] = tci.to_be_bytes();
        bytes.splice(12..12, VLAN.into_iter().chain([a, b]));
        original_len += 4;
    }
    let reception = match received.packet_type {
        HOST => Reception::Unicast,
        BROADCAST => Reception::Broadcast,
        MULTICAST => Reception::Multicast,
        OTHERHOST => Reception::Overheard,
        _ => Reception::Unknown,
    };
    Frame { bytes, original_len, reception, is_unfinished: received.csum_not_ready }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tag_that_the_kernel_took_out_is_put_back() {
        let received = Received {
            len: 16,
            original_len: 16,
            ifindex: 2,
            outgoing: false,
            packet_type: MULTICAST,
            stamp_ns: 1,
            csum_not_ready: true,
            vlan_tci: Some(0x2064),
        };
        let untagged: Vec<u8> = (0..16).collect();
        let found = frame(&received, &untagged);
        assert_eq!(found.bytes[10..18], [10, 11, 0x81, 0x00, 0x20, 0x64, 12, 13]);
        assert_eq!((found.bytes.len(), found.original_len), (20, 20));
        assert_eq!((found.reception, found.is_unfinished), (Reception::Multicast, true));
        let plain = frame(&Received { vlan_tci: None, ..received }, &untagged);
        assert_eq!((plain.bytes, plain.original_len), (untagged, 16));
    }
}
