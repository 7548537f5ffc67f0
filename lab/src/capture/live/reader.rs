//! The reading half of a live capture: frames out of the kernel's buffers, as fast as they come.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use foldhash::fast::RandomState;
use kernel::packet::{Batch, Frame, read_before_others};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollEvent, EpollTimeout};
use nix::sys::eventfd::EventFd;
use nix::sys::signalfd::SignalFd;

use super::super::ear::{Ear, LONGEST};
use super::super::{TURN, now_ns};
use crate::sighting::Spot;

/// A frame is handed on when everything that has come before it must have been read, in nanoseconds.
const SETTLED_NS: u64 = 2_000_000;
/// Frames that wait to be settled are looked at again after so many milliseconds.
const SOON_MS: u8 = 5;
/// Frames are let gather for this long: a wake-up for each would cost whoever sends them more than the frames do.
const GATHER_MS: u8 = 2;
/// So many bytes of frames wait in memory at most. What comes then waits in the kernel's buffers, and what does not fit
/// there is lost and counted.
const HELD: usize = 256 << 20;
/// Events that are no socket.
pub(super) const SIGNAL: u64 = u64::MAX;
pub(super) const GONE: u64 = u64::MAX - 1;
pub(super) const STOP: u64 = u64::MAX - 2;

/// What was read in one go.
pub(super) struct Lot {
    /// Links that were not heard of before; their numbers go on from those of the lots before.
    pub(super) links: Vec<(Arc<Spot>, bool)>,
    pub(super) frames: Vec<Raw>,
    bytes: Vec<u8>,
    /// No frame that is older than this, in nanoseconds since 1970, is in a later lot.
    pub(super) settled: u64,
    held: Arc<AtomicUsize>,
}

/// A frame, and where its bytes begin.
pub(super) struct Raw {
    /// The number of its link.
    pub(super) link: usize,
    pub(super) received: Frame,
    start: usize,
}

impl Lot {
    fn new(held: Arc<AtomicUsize>) -> Lot {
        Lot { links: Vec::new(), frames: Vec::new(), bytes: Vec::new(), settled: 0, held }
    }

    /// As if it had been read: links, and of each frame the number of its link, its time and its bytes.
    #[cfg(test)]
    pub(super) fn made(links: &[Arc<Spot>], frames: &[(usize, u64, &[u8])], settled: u64) -> Lot {
        let mut lot = Lot::new(Arc::new(AtomicUsize::new(1 << 20)));
        lot.links = links.iter().map(|spot| (spot.clone(), false)).collect();
        lot.settled = settled;
        for (link, stamp_ns, bytes) in frames {
            let received = Frame {
                len: bytes.len(),
                original_len: bytes.len(),
                ifindex: 1,
                outgoing: false,
                packet_type: 0,
                stamp_ns: *stamp_ns,
                csum_not_ready: false,
                vlan_tci: None,
            };
            lot.frames.push(Raw { link: *link, received, start: lot.bytes.len() });
            lot.bytes.extend_from_slice(bytes);
        }
        lot
    }

    /// One of its frames, with the bytes.
    pub(super) fn frame(&self, at: usize) -> (&Raw, &[u8]) {
        let raw = &self.frames[at];
        (raw, &self.bytes[raw.start..raw.start + raw.received.len])
    }
}

impl Drop for Lot {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

/// Reads until it is told to end.
pub(super) struct Reader<'l> {
    ears: &'l mut [Ear],
    epoll: &'l Epoll,
    signals: &'l SignalFd,
    stop: &'l EventFd,
    deadline: Option<Instant>,
    /// The numbers of links, by where their spots are in memory.
    numbers: HashMap<usize, usize, RandomState>,
    held: Arc<AtomicUsize>,
    batch: Batch,
}

impl<'l> Reader<'l> {
    /// Of sockets that `epoll` watches by their index, beside signals, the other end and the order to stop.
    pub(super) fn new(
        ears: &'l mut [Ear],
        epoll: &'l Epoll,
        signals: &'l SignalFd,
        stop: &'l EventFd,
        deadline: Option<Instant>,
    ) -> Reader<'l> {
        let (numbers, held, batch) = (HashMap::default(), Arc::default(), Batch::new(LONGEST));
        Reader { ears, epoll, signals, stop, deadline, numbers, held, batch }
    }

    /// Sends what is read, until the end or until nobody takes it any more.
    ///
    /// # Errors
    /// The kernel's words.
    pub(super) fn run(mut self, lots: &Sender<Lot>) -> Result<()> {
        // Whoever may not be preferred reads as everybody else.
        read_before_others();
        let mut events = vec![EpollEvent::empty(); self.ears.len() + 3];
        // The time of the newest frame that was sent, and until when all were.
        let (mut newest, mut settled) = (0, 0);
        let mut is_behind = false;
        loop {
            let patience = self.patience(newest > settled, is_behind);
            let ready = match self.epoll.wait(&mut events, patience) {
                Ok(n) => &events[..n],
                Err(Errno::EINTR) => &[],
                Err(err) => return Err(err).context("wait for frames"),
            };
            let began = now_ns();
            let mut is_over = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
            let mut lot = Lot::new(self.held.clone());
            let mut oldest: Option<u64> = None;
            for event in ready {
                match event.data() {
                    SIGNAL => is_over |= self.signals.read_signal().is_ok_and(|signal| signal.is_some()),
                    GONE => is_over = true,
                    STOP => return Ok(()),
                    i => oldest = self.read(i as usize, &mut lot)?.into_iter().chain(oldest).min(),
                }
            }
            is_behind = oldest.is_some();
            lot.settled = began.saturating_sub(SETTLED_NS);
            if let Some(oldest) = oldest {
                // A socket that is not empty yet has frames that are as old as the last one of it, or younger.
                lot.settled = lot.settled.min(oldest.saturating_sub(1));
            }
            if is_over {
                // All that has come until now; what comes meanwhile need not be waited for.
                for i in 0..self.ears.len() {
                    while self.read(i, &mut lot)?.is_some_and(|last| last < began) {}
                }
                lot.settled = u64::MAX;
            }
            let is_of_use = !lot.frames.is_empty() || newest > settled || is_over;
            newest =
                lot.frames.iter().map(|frame| frame.received.stamp_ns).chain([newest]).max().unwrap_or(0);
            settled = lot.settled;
            self.held.fetch_add(lot.bytes.len(), Ordering::Relaxed);
            if is_of_use && lots.send(lot).is_err() || is_over {
                return Ok(());
            }
            while self.held.load(Ordering::Relaxed) > HELD && self.pause()? {}
            if !is_behind {
                self.pause()?;
            }
        }
    }

    /// How long to wait for the next frame.
    fn patience(&self, is_unsettled: bool, is_behind: bool) -> EpollTimeout {
        if is_behind {
            return EpollTimeout::ZERO;
        }
        let soon = is_unsettled.then(|| Duration::from_millis(SOON_MS.into()));
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        // Rounded up, or the last millisecond would be spent turning round.
        let time = soon.into_iter().chain(left).min().map(|time| time + Duration::from_micros(999));
        time.and_then(|time| EpollTimeout::try_from(time).ok()).unwrap_or(EpollTimeout::NONE)
    }

    /// Lets frames gather, unless there is an order to stop.
    fn pause(&self) -> Result<bool> {
        let mut told = [PollFd::new(self.stop.as_fd(), PollFlags::POLLIN)];
        match poll(&mut told, PollTimeout::from(GATHER_MS)) {
            Ok(0) | Err(Errno::EINTR) => Ok(true),
            Ok(_) => Ok(false),
            Err(err) => Err(err).context("wait for frames"),
        }
    }

    /// Reads a socket; the time of its last frame where there may be more.
    fn read(&mut self, i: usize, lot: &mut Lot) -> Result<Option<u64>> {
        let numbers = &mut self.numbers;
        self.ears[i].read(&mut self.batch, TURN, &mut |facts, received, bytes| {
            let next = numbers.len();
            let link = *numbers.entry(Arc::as_ptr(&facts.spot).addr()).or_insert(next);
            if link == next {
                lot.links.push((facts.spot.clone(), facts.is_bare()));
            }
            lot.frames.push(Raw { link, received: *received, start: lot.bytes.len() });
            lot.bytes.extend_from_slice(bytes);
        })
    }
}
