//! A capture that hands sightings on as they come, in order of time, until it is told to end: by a number, a time, a
//! signal, the end of the lab, or a reader that has gone.
//!
//! One thread reads (`reader.rs`), and does no more than to copy frames out of the kernel's buffers; the calling thread puts
//! them in order, decodes them and hands them on. So a moment in which frames come faster than they are written loses none.

mod reader;

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::ear::{Ear, Facts, direction, sighting};
use super::now_ns;
use crate::cluster::Space;
use crate::sighting::{Sighting, Spot, rank};
use reader::{GONE, Lot, Reader, SIGNAL, STOP};

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
    /// The one who hands on has had enough.
    stop: EventFd,
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
        let stop = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .context("make an event descriptor")?;
        epoll.add(&stop, EpollEvent::new(EpollFlags::EPOLLIN, STOP)).context("watch an event")?;
        Ok(Live { ears, epoll, signals, stop, began: now_ns() })
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
        let (lots, received) = mpsc::channel();
        let Live { ears, epoll, signals, stop, .. } = self;
        let reader = Reader::new(ears, epoll, signals, stop, deadline);
        std::thread::scope(|scope| {
            let reading = std::thread::Builder::new()
                .name("capture".into())
                .spawn_scoped(scope, move || reader.run(&lots))
                .context("start the capture's thread")?;
            let mut queue = Queue::default();
            let handed = received.iter().find_map(|lot| {
                match queue.hand_on(lot, limits.count, wanted, totals, take, flush) {
                    Ok(true) => None,
                    Ok(false) => Some(Ok(())),
                    Err(err) => Some(Err(err)),
                }
            });
            // Nobody hands on any more; adding to a counter that is far from its end cannot be refused.
            let _ = stop.write(1);
            drop(received);
            let read = reading.join().unwrap_or_else(|_| Err(anyhow!("the capture's thread panicked")));
            handed.unwrap_or(Ok(())).and(read)
        })
    }
}

/// Frames that wait until all that came before them has been read.
#[derive(Default)]
struct Queue {
    /// The links by the reader's numbers, and whether their packets have no Ethernet header.
    links: Vec<(Arc<Spot>, bool)>,
    waiting: Vec<Waiting>,
}

struct Waiting {
    order: (u64, u8),
    lot: Rc<Lot>,
    at: usize,
}

impl Queue {
    /// Takes what was read, and hands on what is settled. Whether there may be more.
    fn hand_on(
        &mut self,
        mut lot: Lot,
        most: Option<u64>,
        wanted: &impl Fn(&Sighting) -> bool,
        totals: &mut Totals,
        take: &mut dyn FnMut(&Sighting) -> io::Result<()>,
        flush: &mut dyn FnMut() -> io::Result<()>,
    ) -> Result<bool> {
        self.links.append(&mut lot.links);
        let lot = Rc::new(lot);
        self.waiting.extend(lot.frames.iter().enumerate().map(|(at, frame)| {
            let (spot, received) = (&self.links[frame.link].0, &frame.received);
            let order = (received.stamp_ns, rank(spot, direction(received)));
            Waiting { order, lot: lot.clone(), at }
        }));
        self.waiting.sort_by_key(|waiting| waiting.order);
        let settled = self.waiting.partition_point(|waiting| waiting.order.0 <= lot.settled);
        for Waiting { lot, at, .. } in self.waiting.drain(..settled) {
            let (frame, bytes) = lot.frame(at);
            let (spot, is_bare) = &self.links[frame.link];
            let seen = sighting(spot, *is_bare, (&frame.received, bytes), true, |_| true);
            let Some(seen) = seen.filter(|seen| wanted(seen)) else { continue };
            take(&seen)?;
            totals.taken += 1;
            if most.is_some_and(|most| totals.taken >= most) {
                flush()?;
                return Ok(false);
            }
        }
        if settled > 0 {
            flush()?;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sighting::tests::spot;

    /// Time and place of what is handed on.
    fn handed(queue: &mut Queue, lot: Lot, most: Option<u64>) -> (Vec<(u64, String)>, bool) {
        let mut all = Vec::new();
        let mut take = |s: &Sighting| {
            all.push((s.stamp_ns, s.at.to_string()));
            Ok(())
        };
        let goes_on =
            queue.hand_on(lot, most, &|_| true, &mut Totals::default(), &mut take, &mut || Ok(())).unwrap();
        (all, goes_on)
    }

    #[test]
    fn frames_of_many_sockets_are_handed_on_in_order_and_not_before_all_older_ones() {
        let [port, bridge, uplink] = ["node1/veth1", "node1/cni0", "node2/eth0"].map(spot);
        let frame: &[u8] = &[2; 60];
        let mut queue = Queue::default();
        // node1's socket has more: what it has not handed over yet may be as old as 6.
        let first =
            Lot::made(&[bridge, port], &[(0, 5, frame), (1, 5, frame), (1, 6, frame), (0, 9, frame)], 5);
        let of = |at: u64, name: &str| (at, name.to_owned());
        let (seen, goes_on) = handed(&mut queue, first, None);
        assert_eq!((seen, goes_on), (vec![of(5, "node1/veth1"), of(5, "node1/cni0")], true));
        let second = Lot::made(&[uplink], &[(2, 7, frame), (0, 6, frame), (2, 20, frame)], 10);
        let expected =
            vec![of(6, "node1/veth1"), of(6, "node1/cni0"), of(7, "node2/eth0"), of(9, "node1/cni0")];
        assert_eq!(handed(&mut queue, second, None).0, expected);
        // The end: nothing waits any more, but no more than so many are wanted.
        let last = Lot::made(&[], &[(1, 21, frame), (1, 22, frame)], u64::MAX);
        let (seen, goes_on) = handed(&mut queue, last, Some(2));
        assert_eq!((seen, goes_on), (vec![of(20, "node2/eth0"), of(21, "node1/veth1")], false));
    }
}
