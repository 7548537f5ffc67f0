//! Packet sockets: see every frame of a namespace, with time, link and direction.
//!
//! For the lab's captures. Nothing is decoded, filtered or sent here; packet(7).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Cause, Result};
use crate::ethtool::{self, Offload};
use crate::netns::Netns;
use crate::sys;

/// `sll_pkttype` of a frame that this host sent (PACKET_OUTGOING, linux/if_packet.h).
pub const OUTGOING: u8 = 4;

const BUFFER: i32 = 16 * 1024 * 1024;

/// A raw, nonblocking packet socket that sees all protocols on all links of one namespace.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
    packets: AtomicU64,
    drops: AtomicU64,
}

/// What is known of one captured frame besides its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// How many bytes were stored in the buffer.
    pub len: usize,
    /// How long the frame was. With a VLAN tag that the kernel took out, four bytes less than on the wire.
    pub original_len: usize,
    /// The link it was seen on.
    pub ifindex: u32,
    /// It was leaving by the link; else it was coming in.
    pub outgoing: bool,
    /// `PACKET_*` of linux/if_packet.h: 0 to this host, 1 broadcast, 2 multicast, 3 to another host, 4 outgoing.
    pub packet_type: u8,
    /// When the kernel saw it, in nanoseconds since 1970 (SO_TIMESTAMPNS).
    pub stamp_ns: u64,
    /// Its transport checksum is still to be filled in (TP_STATUS_CSUMNOTREADY): offload, no damage.
    pub csum_not_ready: bool,
    /// The VLAN tag's control information (priority, DEI, id), when the kernel took a tag out of the frame.
    pub vlan_tci: Option<u16>,
}

/// What a socket has counted since it was opened (PACKET_STATISTICS).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames seen, dropped ones included.
    pub packets: u64,
    /// Frames that found the receive buffer full.
    pub drops: u64,
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl PacketSocket {
    /// Opens a socket in `ns` that sees every frame from now on. Its receive buffer holds 16 MiB where the process
    /// may ask for that (CAP_NET_ADMIN), else what net.core.rmem_max allows.
    pub fn open_in(ns: &Netns) -> Result<PacketSocket> {
        Self::open_with(ns, BUFFER)
    }

    /// As [`PacketSocket::open_in`], with a receive buffer of `bytes` (the kernel counts its own overhead too).
    pub fn open_with(ns: &Netns, bytes: i32) -> Result<PacketSocket> {
        let fd = ns.run(|| sys::packet_socket(bytes))?;
        let fd = fd.map_err(|e| Cause::from(e).about("open packet socket"))?;
        Ok(PacketSocket { fd, packets: AtomicU64::new(0), drops: AtomicU64::new(0) })
    }

    /// The next frame, its first bytes in `buffer`; None when there is none at the moment.
    pub fn recv(&self, buffer: &mut [u8]) -> Result<Option<Frame>> {
        sys::packet_recv(&self.fd, buffer).map_err(|e| Cause::from(e).about("read packet socket"))
    }

    /// The counts since the socket was opened.
    pub fn stats(&self) -> Result<Stats> {
        // Each reading sets the kernel's own counts back to 0.
        let (packets, drops) =
            sys::packet_stats(&self.fd).map_err(|e| Cause::from(e).about("read packet statistics"))?;
        let add = |total: &AtomicU64, n: u32| total.fetch_add(n.into(), Ordering::Relaxed) + u64::from(n);
        Ok(Stats { packets: add(&self.packets, packets), drops: add(&self.drops, drops) })
    }
}

/// Switches GRO, GSO and TSO of the link `name` of the calling thread's namespace, so that captures show packets as
/// they would be on a wire. `is_not_found()` when there is no such link.
pub fn ethtool_offloads(name: &str, on: bool) -> Result<()> {
    for offload in [Offload::Gro, Offload::Gso, Offload::Tso] {
        ethtool::set(name, offload, on)?;
    }
    Ok(())
}
