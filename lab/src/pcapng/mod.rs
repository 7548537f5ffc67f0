//! The packet-capture file format pcapng (draft-ietf-opsawg-pcapng): blocks in memory, written and read.
//!
//! Packet evidence stands in this format, so what is written here is what other programs read. One section, in the byte
//! order of the writer; interfaces, names, packets with direction, identity and comment, statistics. What it does not
//! hold: decryption secrets, several sections, packets without a time.

mod read;
#[cfg(test)]
mod tests;
mod write;

use std::borrow::Cow;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use kernel::Mac;

pub use read::{Broken, File, read};
pub use write::Writer;

/// `LINKTYPE_ETHERNET`: a frame from its Ethernet header on.
pub const ETHERNET: u16 = 1;
/// `LINKTYPE_RAW`: an IP packet and nothing before it.
pub const RAW: u16 = 101;

/// Block types (section 4 of the draft).
mod block {
    pub(super) const SECTION: u32 = 0x0a0d_0d0a;
    pub(super) const INTERFACE: u32 = 1;
    pub(super) const OLD_PACKET: u32 = 2;
    pub(super) const SIMPLE_PACKET: u32 = 3;
    pub(super) const NAMES: u32 = 4;
    pub(super) const STATISTICS: u32 = 5;
    pub(super) const PACKET: u32 = 6;
}

/// Options (sections 3.5 and 4); each block has numbers of its own from 2 on.
mod option {
    pub(super) const END: u16 = 0;
    pub(super) const COMMENT: u16 = 1;
    pub(super) const SECTION_HARDWARE: u16 = 2;
    pub(super) const SECTION_OS: u16 = 3;
    pub(super) const SECTION_APPLICATION: u16 = 4;
    pub(super) const NAME: u16 = 2;
    pub(super) const DESCRIPTION: u16 = 3;
    pub(super) const IPV4: u16 = 4;
    pub(super) const IPV6: u16 = 5;
    pub(super) const MAC: u16 = 6;
    pub(super) const RESOLUTION: u16 = 9;
    pub(super) const OFFSET: u16 = 14;
    pub(super) const FLAGS: u16 = 2;
    pub(super) const PACKET_ID: u16 = 5;
    pub(super) const START: u16 = 2;
    pub(super) const STOP: u16 = 3;
    pub(super) const RECEIVED: u16 = 4;
    pub(super) const DROPPED: u16 = 7;
    pub(super) const DELIVERED: u16 = 8;
}

/// The byte-order magic of a section header.
const MAGIC: u32 = 0x1a2b_3c4d;
/// Ten to the power of minus nine seconds, as `if_tsresol` says it.
const NANOSECONDS: u8 = 9;

/// What the file is about (section header block).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Section {
    /// The machine's processor.
    pub hardware: String,
    /// The kernel that saw the packets.
    pub os: String,
    /// The program that wrote the file.
    pub application: String,
    /// What was captured.
    pub comment: String,
}

/// Where packets are seen (interface description block).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// `node1/eth0`.
    pub name: String,
    /// What it is, in words.
    pub description: String,
    /// What its packets begin with: [`ETHERNET`] or [`RAW`].
    pub link_type: u16,
    /// Its hardware address.
    pub mac: Option<Mac>,
    /// Its addresses.
    pub addresses: Vec<IpNetwork>,
}

/// How a packet got to the one that captured it (`epb_flags`, bits 2 to 4).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reception {
    /// Not known.
    #[default]
    Unknown,
    /// For this host.
    Unicast,
    /// For a group.
    Multicast,
    /// For all.
    Broadcast,
    /// For another host, and seen all the same.
    Overheard,
}

/// One packet (enhanced packet block).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet<'b> {
    /// The number of its interface.
    pub interface: u32,
    /// Nanoseconds since 1970.
    pub stamp_ns: u64,
    /// Its length on the wire.
    pub original_len: u32,
    /// Its bytes, or the first of them.
    pub bytes: Cow<'b, [u8]>,
    /// It was leaving by the interface; None when the file does not say.
    pub outgoing: Option<bool>,
    /// How it was received.
    pub reception: Reception,
    /// The same number for all sightings of one packet (`epb_packetid`).
    pub id: Option<u64>,
    /// What was found.
    pub comment: Option<Cow<'b, str>>,
}

/// An address and what it is called (name resolution block).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The address.
    pub address: IpAddr,
    /// Its name.
    pub name: String,
}

/// What an interface has counted (interface statistics block).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Statistics {
    /// The number of the interface.
    pub interface: u32,
    /// When the capture began, in nanoseconds since 1970.
    pub start_ns: u64,
    /// When it ended.
    pub stop_ns: u64,
    /// Packets that went by (`isb_ifrecv`).
    pub received: u64,
    /// Packets that the kernel dropped before the capture could read them (`isb_osdrop`).
    pub dropped: u64,
    /// Packets that are in the file (`isb_usrdeliv`).
    pub delivered: u64,
    /// What is to be known about the numbers.
    pub comment: Option<String>,
}
