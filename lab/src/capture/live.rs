//! A capture that hands sightings on as they come, in order of time, until it is told to end: by a number, a time, a
//! signal, the end of the lab, or a reader that has gone.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use kernel::packet::Batch;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::ear::{Ear, Facts, LONGEST};
use super::now_ns;
use crate::cluster::Space;
use crate::sighting::{self, Sighting};

/// A frame is handed on when everything that has come before it must have been read, in nanoseconds.
const SETTLED_NS: u64 = 2_000_000;
/// Frames that wait to be settled are looked at again after so many milliseconds.
const SOON_MS: u8 = 5;
/// Events that are no socket.
const SIGNAL: u64 = u64::MAX;
const GONE: u64 = u64::MAX - 1;

/// When a capture ends by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// After so many sightings.
    pub count: Option<u64>,
    /// After this time.
    pub time: Option<Duration>,
}

/// What a capture came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Sightings handed on.
    pub taken: u64,
    /// All frames that went by.
    pub frames: u64,
    /// Frames that the kernel dropped, by namespace, where there are any.
    pub drops: HashMap<String, u64>,
}

/// A live capture.
pub struct Live {
    ears: Vec<Ear>,
    epoll: Epoll,
    signals: SignalFd,
    /// When it began, in nanoseconds since 1970.
    pub began: u64,
}

impl Live {
    /// Listens in `spaces` from now on, and to SIGINT, SIGTERM and SIGHUP, which the calling thread no longer gets
    /// otherwise.
    ///
    /// # Errors
    /// The kernel's words.
    pub fn open<'a>(spaces: impl IntoIterator<Item = &'a Space>) -> Result<Live> {
        let mut ended_by = SigSet::empty();
        [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().for_each(|signal| ended_by.add(signal));
        ended_by.thread_block().context("block signals")?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&ended_by, flags).context("wait for signals")?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("make an epoll instance")?;
        epoll.add(&signals, EpollEvent::new(EpollFlags::EPOLLIN, SIGNAL)).context("wait for signals")?;
        let ears: Vec<Ear> =
            spaces.into_iter().map(|space| Ear::open(space, &[], true)).collect::<Result<_>>()?;
        for (i, ear) in ears.iter().enumerate() {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, i as u64);
            epoll.add(&ear.socket, event).context("watch a packet socket")?;
        }
        Ok(Live { ears, epoll, signals, began: now_ns() })
    }

    /// Ends when the other side of this descriptor closes it. What cannot be watched, such as a file, does not close.
    pub fn ends_with(&self, descriptor: BorrowedFd<'_>) {
        let event = EpollEvent::new(EpollFlags::EPOLLRDHUP, GONE);
        // EPERM: a file.
        let _ = self.epoll.add(descriptor, event);
    }

    /// The interfaces that are listened on.
    pub fn facts(&self) -> impl Iterator<Item = &Facts> {
        self.ears.iter().flat_map(Ear::facts)
    }

    /// Hands on what is wanted until the end. `flush` is called after each lot.
    ///
    /// # Errors
    /// The kernel's words, or those of the one who takes. A reader that has gone is an end and no error.
    pub fn run(
        &mut self,
        limits: Limits,
        wanted: impl Fn(&Sighting) -> bool,
        take: &mut dyn FnMut(&Sighting) -> io::Result<()>,
        flush: &mut dyn FnMut() -> io::Result<()>,
    ) -> Result<Totals> {
        let mut totals = Totals::default();
        let handed = self.hand_on(limits, &wanted, &mut totals, take, flush);
        for ear in &self.ears {
            let stats = ear.stats()?;
            totals.frames += stats.packets;
            if stats.drops > 0 {
                totals.drops.insert(ear.space.clone(), stats.drops);
            }
        }
        match handed {
            Err(err)
                if err.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe) =>
            {
                Ok(totals)
            }
            Err(err) => Err(err),
            Ok(()) => Ok(totals),
        }
    }

    fn hand_on(
        &mut self,
        limits: Limits,
        wanted: &impl Fn(&Sighting) -> bool,
        totals: &mut Totals,
        take: &mut dyn FnMut(&Sighting) -> io::Result<()>,
        flush: &mut dyn FnMut() -> io::Result<()>,
    ) -> Result<()> {
        let deadline = limits.time.map(|time| Instant::now() + time);
        let mut waiting: Vec<Sighting> = Vec::new();
        let mut batch = Batch::new(LONGEST);
        let mut events = vec![EpollEvent::empty(); self.ears.len() + 3];
        loop {
            let soon = (!waiting.is_empty()).then(|| Duration::from_millis(SOON_MS.into()));
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let patience = soon.into_iter().chain(left).min();
            // Rounded up, or the last millisecond would be spent turning round.
            let timeout = patience.map(|time| EpollTimeout::try_from(time + Duration::from_micros(999)));
            let timeout = timeout.transpose().unwrap_or(None).unwrap_or(EpollTimeout::NONE);
            let ready = match self.epoll.wait(&mut events, timeout) {
                Ok(n) => &events[..n],
                Err(Errno::EINTR) => &[],
                Err(err) => return Err(err).context("wait for frames"),
            };
            let settled = now_ns().saturating_sub(SETTLED_NS);
            let mut is_over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            for event in ready {
                match event.data() {
                    SIGNAL => is_over |= self.signals.read_signal().is_ok_and(|signal| signal.is_some()),
                    GONE => is_over = true,
                    i => drop(self.read(i as usize, &mut batch, wanted, &mut waiting)?),
                }
            }
            if is_over {
                // All that has come until now; what comes meanwhile need not be waited for.
                let over = now_ns();
                for i in 0..self.ears.len() {
                    while self.read(i, &mut batch, wanted, &mut waiting)?.is_some_and(|last| last < over) {}
                }
            }
            sighting::sort(&mut waiting);
            let until =
                if is_over { waiting.len() } else { waiting.partition_point(|s| s.stamp_ns <= settled) };
            for s in waiting.drain(..until) {
                take(&s)?;
                totals.taken += 1;
                if limits.count.is_some_and(|count| totals.taken >= count) {
                    is_over = true;
                    break;
                }
            }
            if until > 0 {
                flush()?;
            }
            if is_over {
                return Ok(());
            }
        }
    }

    fn read(
        &mut self,
        i: usize,
        batch: &mut Batch,
        wanted: &impl Fn(&Sighting) -> bool,
        waiting: &mut Vec<Sighting>,
    ) -> Result<Option<u64>> {
        self.ears[i].read(batch, &|_| true, super::TURN, &mut |s| {
            if wanted(&s) {
                waiting.push(s);
            }
        })
    }
}
