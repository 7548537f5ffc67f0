//! Captures: one packet socket in every namespace of a lab, read by one thread.
//!
//! Frames are decoded as they come and forgotten unless they are asked for; their bytes are kept only where a file is to
//! be written. Nothing is joined or judged here. How many frames the kernel had to drop is always told: a capture with
//! holes proves nothing.

mod ear;
pub mod filter;
pub mod live;

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow};
use kernel::Netns;
use kernel::packet::{Batch, Instruction, PacketSocket};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::cluster::Space;
use crate::packet::Packet;
use crate::sighting::{self, Sighting};
use ear::{Ear, LONGEST};

pub use ear::{Facts, facts};

/// Frames read from one socket before the next has its turn.
const TURN: usize = 256;
/// Frames are let gather for this long: a wake-up for each would cost the probes more than the frames do.
const GATHER_MS: u8 = 4;
/// A capture that is so far behind lets senders wait, in nanoseconds.
const BEHIND_NS: u64 = 20_000_000;
/// Drops ARP (ETH_P_ARP at offset 12) and keeps all else: ld half, jeq, ret, ret (linux/filter.h).
const NO_ARP: [Instruction; 4] = [
    Instruction { code: 0x28, yes: 0, no: 0, value: 12 },
    Instruction { code: 0x15, yes: 0, no: 1, value: 0x0806 },
    Instruction { code: 0x06, yes: 0, no: 0, value: 0 },
    Instruction { code: 0x06, yes: 0, no: 0, value: u32::MAX },
];
/// Drops everything.
const NOTHING: [Instruction; 1] = [Instruction { code: 0x06, yes: 0, no: 0, value: 0 }];
/// Sockets closed at once.
const CLOSERS: usize = 64;
/// The event that is no socket.
const STOP: u64 = u64::MAX;

/// Has the kernel stamp packets as they come, for as long as this process lives. The kernel begins only some time after
/// the first socket has asked for it (`net_enable_timestamp` leaves it to a worker), and until then a packet's stamp is the
/// time at which it is read: so the first capture of a lab would have no order between namespaces.
///
/// # Errors
/// There is no packet socket to be had.
pub fn keep_stamping() -> Result<()> {
    static ASKS: OnceLock<PacketSocket> = OnceLock::new();
    if ASKS.get().is_none() {
        let own = Netns::open(Path::new("/proc/self/ns/net"))?;
        let socket = PacketSocket::open_filtered(&own, &NOTHING).context("have packets stamped")?;
        // Another thread may have been faster, which is as good.
        let _ = ASKS.set(socket);
    }
    Ok(())
}

/// What a capture saw.
#[derive(Debug, Default)]
pub struct Recording {
    /// The packets that were asked for, in order of time.
    pub sightings: Vec<Sighting>,
    /// All frames that went by.
    pub frames: u64,
    /// Frames that the kernel dropped because they were not read fast enough, by namespace, where there are any.
    pub drops: HashMap<String, u64>,
    /// The interfaces that were listened on, where frames are kept.
    pub interfaces: Vec<Facts>,
    /// When it began and ended, in nanoseconds since 1970.
    pub lasted: (u64, u64),
}

/// What a capture passes over, and what it keeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// ARP is passed over by the kernel: a bridge with hundreds of ports sends each question to all of them, hundreds of
    /// frames to every one that a probe is made of.
    pub without_arp: bool,
    /// The bytes of frames and the properties of interfaces are kept, to be written to a file.
    pub keep_frames: bool,
}

/// Nanoseconds since 1970.
pub(crate) fn now_ns() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// A capture that runs.
#[derive(Debug)]
pub struct Capture {
    thread: Option<JoinHandle<Result<Recording>>>,
    stop: Arc<EventFd>,
    behind: Arc<AtomicU64>,
}

impl Drop for Capture {
    /// A capture that nobody asks for its recording ends all the same.
    fn drop(&mut self) {
        // Adding to a counter that is far from its end cannot be refused.
        let _ = self.stop.write(1);
    }
}

impl Capture {
    /// Opens a socket in each of `spaces` and keeps the packets for which `wanted` holds. From the return on no frame
    /// is missed.
    pub fn start<'a>(
        spaces: impl IntoIterator<Item = &'a Space>,
        wanted: impl Fn(&Packet) -> bool + Send + 'static,
    ) -> Result<Capture> {
        Self::start_with(spaces, Options::default(), wanted)
    }

    /// As [`Capture::start`], with options.
    pub fn start_with<'a>(
        spaces: impl IntoIterator<Item = &'a Space>,
        options: Options,
        wanted: impl Fn(&Packet) -> bool + Send + 'static,
    ) -> Result<Capture> {
        let filter: &[Instruction] = if options.without_arp { &NO_ARP } else { &[] };
        let ears = spaces.into_iter().map(|space| Ear::open(space, filter, options.keep_frames));
        Self::listen(ears.collect::<Result<_>>()?, wanted)
    }

    fn listen(ears: Vec<Ear>, wanted: impl Fn(&Packet) -> bool + Send + 'static) -> Result<Capture> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("make an epoll instance")?;
        let stop = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .context("make an event descriptor")?;
        let stop = Arc::new(stop);
        epoll.add(&*stop, EpollEvent::new(EpollFlags::EPOLLIN, STOP)).context("watch an event")?;
        for (i, ear) in ears.iter().enumerate() {
            epoll
                .add(&ear.socket, EpollEvent::new(EpollFlags::EPOLLIN, i as u64))
                .context("watch a packet socket")?;
        }
        let told = stop.clone();
        let behind = Arc::new(AtomicU64::new(0));
        let tells = behind.clone();
        let thread = std::thread::Builder::new()
            .name("capture".into())
            .spawn(move || Listener { ears, epoll, told, wanted, behind: tells, began: now_ns() }.listen())
            .context("start the capture's thread")?;
        Ok(Capture { thread: Some(thread), stop, behind })
    }

    /// Waits until the frames that are read now are not much older than now: what is sent faster than it is read fills the
    /// sockets' buffers, and is lost.
    pub fn catch_up(&self) {
        while self.behind.load(Ordering::Relaxed) > BEHIND_NS {
            std::thread::sleep(Duration::from_millis(GATHER_MS.into()));
        }
    }

    /// Ends the capture. Every frame that went by before the call is in the recording: the kernel hands a frame to
    /// packet sockets before anyone can receive it, and all of them are read until they are empty.
    pub fn stop(mut self) -> Result<Recording> {
        self.stop.write(1).context("stop the capture")?;
        let ended = self.thread.take().map(JoinHandle::join);
        ended.and_then(Result::ok).unwrap_or_else(|| Err(anyhow!("the capture's thread panicked")))
    }
}

struct Listener<F> {
    ears: Vec<Ear>,
    epoll: Epoll,
    told: Arc<EventFd>,
    wanted: F,
    behind: Arc<AtomicU64>,
    began: u64,
}

impl<F: Fn(&Packet) -> bool> Listener<F> {
    fn listen(mut self) -> Result<Recording> {
        let mut recording = Recording::default();
        let mut batch = Batch::new(LONGEST);
        let mut events = vec![EpollEvent::empty(); self.ears.len() + 1];
        let mut oldest: Option<u64> = None;
        loop {
            // What may have been the last frame is known to be when there is none after it.
            let patience = if oldest.is_some() { EpollTimeout::ZERO } else { EpollTimeout::NONE };
            let ready = match self.epoll.wait(&mut events, patience) {
                Ok(n) => &events[..n],
                Err(Errno::EINTR) => continue,
                Err(e) => return Err(e).context("wait for frames"),
            };
            oldest = None;
            for event in ready.iter().filter(|e| e.data() != STOP) {
                let last = self.read(event.data() as usize, &mut batch, TURN, &mut recording)?;
                oldest = last.into_iter().chain(oldest).min();
            }
            // Whoever is behind has gathered enough.
            let gather = if oldest.is_some() { 0 } else { GATHER_MS };
            self.behind.store(oldest.map_or(0, |stamp| now_ns().saturating_sub(stamp)), Ordering::Relaxed);
            let mut told = [PollFd::new(self.told.as_fd(), PollFlags::POLLIN)];
            match poll(&mut told, PollTimeout::from(gather)) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => break,
                Err(e) => return Err(e).context("wait for frames"),
            }
        }
        for i in 0..self.ears.len() {
            self.read(i, &mut batch, usize::MAX, &mut recording)?;
            let ear = &mut self.ears[i];
            let stats = ear.stats()?;
            recording.frames += stats.packets;
            if stats.drops > 0 {
                recording.drops.insert(ear.space.clone(), stats.drops);
            }
            recording.interfaces.append(&mut ear.take_facts());
        }
        recording.lasted = (self.began, now_ns());
        let ears = self.ears;
        meanwhile(move || close(ears));
        sighting::sort(&mut recording.sightings);
        Ok(recording)
    }

    fn read(
        &mut self,
        i: usize,
        batch: &mut Batch,
        most: usize,
        recording: &mut Recording,
    ) -> Result<Option<u64>> {
        let (ear, wanted) = (&mut self.ears[i], &self.wanted);
        let keep_frames = ear.keep_frames;
        ear.read(batch, most, &mut |link, received, bytes| {
            let seen = ear::sighting(&link.spot, link.is_bare(), (received, bytes), keep_frames, wanted);
            recording.sightings.extend(seen);
        })
    }
}

/// Closes the sockets, many at once: the close of a packet socket waits for an RCU grace period (packet_release,
/// net/packet/af_packet.c), which those that wait at the same time share.
fn close(mut ears: Vec<Ear>) {
    let each = ears.len().div_ceil(CLOSERS).max(1);
    std::thread::scope(|scope| {
        while !ears.is_empty() {
            let part = ears.split_off(ears.len().saturating_sub(each));
            // Where there can be no more threads, the failed start has dropped, and so closed, its part.
            let _ = std::thread::Builder::new().spawn_scoped(scope, move || drop(part));
        }
    });
}

/// Has a thread do what takes the kernel long and nobody waits for: to close things.
pub(crate) fn meanwhile(work: impl FnOnce() + Send + 'static) {
    // Where there can be no more threads, the failed start has dropped what the work holds.
    let _ = std::thread::Builder::new().name("closer".into()).spawn(work);
}
