//! Packet sockets: see every frame of a namespace, with time, link and direction; or, of one link, what a
//! filter lets through, and send on it.
//!
//! For the lab's captures and for protocols that must speak before the link has an address. Nothing is decoded
//! here; packet(7).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Cause, Result};
use crate::ethtool::{self, Offload};
use crate::netns::Netns;
use crate::sys;

/// `sll_pkttype` of a frame that this host sent (PACKET_OUTGOING, linux/if_packet.h).
pub const OUTGOING: u8 = 4;

/// The receive buffer of a capture, in bytes; the kernel gives an ordinary user no more than net.core.rmem_max.
pub const BUFFER: i32 = 16 * 1024 * 1024;

/// The nice value of a thread that reads packets.
const READER_NICE: i32 = -15;

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

/// One instruction of a classic BPF program (`struct sock_filter`, linux/filter.h). A program that returns 0 drops
/// the frame, any other number keeps as many bytes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// `BPF_*`.
    pub code: u16,
    /// How many instructions to pass over when a comparison holds.
    pub yes: u8,
    /// How many when it does not.
    pub no: u8,
    /// The operand.
    pub value: u32,
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
        Self::open(ns, 0, Some(bytes), &[])
    }

    /// As [`PacketSocket::open_in`], of the frames that `filter` keeps; the others are not counted either.
    pub fn open_filtered(ns: &Netns, filter: &[Instruction]) -> Result<PacketSocket> {
        Self::open(ns, 0, Some(BUFFER), filter)
    }

    fn open(ns: &Netns, index: u32, buffer: Option<i32>, filter: &[Instruction]) -> Result<PacketSocket> {
        let on = || if index == 0 { String::new() } else { format!(" on link {index}") };
        let fd = ns.run(|| sys::packet_socket(index, buffer, filter))?;
        let fd = fd.map_err(|e| Cause::from(e).about(format!("open packet socket{}", on())))?;
        Ok(PacketSocket { fd, packets: AtomicU64::new(0), drops: AtomicU64::new(0) })
    }

    /// Opens a socket in `ns` that sees the frames of link `index` that `filter` keeps, and can send on that link.
    /// `is_not_found()` when there is no such link.
    pub fn open_on(ns: &Netns, index: u32, filter: &[Instruction]) -> Result<PacketSocket> {
        Self::open(ns, index, None, filter)
    }

    /// Sends a whole frame, link-layer header included, on the link of [`PacketSocket::open_on`].
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        sys::packet_send(&self.fd, frame).map_err(|e| Cause::from(e).about("send frame"))
    }

    /// The next frame, its first bytes in `buffer`; None when there is none at the moment.
    pub fn recv(&self, buffer: &mut [u8]) -> Result<Option<Frame>> {
        let (longest, mut frames) = (buffer.len(), Vec::new());
        self.read(buffer, longest, &mut frames)?;
        Ok(frames.pop())
    }

    /// As many of the next frames as are waiting and as there is room for, in the place of those that are in `batch`.
    pub fn recv_batch(&self, batch: &mut Batch) -> Result<()> {
        batch.frames.clear();
        self.read(&mut batch.bytes, batch.longest, &mut batch.frames)
    }

    fn read(&self, buffer: &mut [u8], longest: usize, frames: &mut Vec<Frame>) -> Result<()> {
        sys::packet_recv(&self.fd, buffer, longest, frames)
            .map_err(|e| Cause::from(e).about("read packet socket"))
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

/// Has the calling thread run before others (its nice value): one that reads packets loses some when it has to wait longer
/// than the sockets have room for. Returns whether it may (CAP_SYS_NICE).
pub fn read_before_others() -> bool {
    sys::set_nice(READER_NICE).is_ok()
}

/// Room for frames that are read in one call, which costs as much as for one frame.
#[derive(Debug)]
pub struct Batch {
    bytes: Vec<u8>,
    longest: usize,
    frames: Vec<Frame>,
}

impl Batch {
    /// Room for frames of `longest` bytes, more than 0.
    pub fn new(longest: usize) -> Batch {
        Batch { bytes: vec![0; longest * sys::BATCH], longest, frames: Vec::with_capacity(sys::BATCH) }
    }

    /// There may be more where this one is full.
    pub fn is_full(&self) -> bool {
        self.frames.len() == sys::BATCH
    }

    /// The frames that were read, with their bytes.
    pub fn frames(&self) -> impl Iterator<Item = (&Frame, &[u8])> {
        let parts = self.bytes.chunks_exact(self.longest);
        self.frames.iter().zip(parts).map(|(frame, part)| (frame, &part[..frame.len]))
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
