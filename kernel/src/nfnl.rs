//! One nfnetlink socket: a [`Channel`] of NETLINK_NETFILTER, and the sending of batches that are whole or nothing.
//!
//! The verbs are in [`crate::nft`] and [`crate::conntrack`].

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd};

use netlink_packet_core::{Emitable, NLM_F_ACK, NLM_F_REQUEST, NLMSG_ERROR};
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{setsockopt, sockopt};

use crate::channel::{Answer, Channel};
use crate::error::{Cause, Error, Result};
use crate::netns::Netns;
use crate::nft::{self, Attrs, Body, msg};
use crate::sys;
use crate::wire::{self, Messages};

/// linux/netfilter/nfnetlink.h: `NFNL_MSG_BATCH_BEGIN`, `NFNL_MSG_BATCH_END`, `NFNL_BATCH_GENID`
const BEGIN: u16 = 0x10;
const END: u16 = 0x11;
const GENERATION: u16 = 1;
/// The kernel takes a batch as one datagram, and by default none of more than about 208 KiB.
const SEND_BUFFER: usize = 160 * 1024;
/// How often a change that depends on what is there is tried before the others have won.
const TRIES: u32 = 500;

/// What becomes of a batch that the kernel finds good.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Keep,
    Discard,
}

/// A NETLINK_NETFILTER socket: blocking, with extended acks and capped acks.
///
/// It keeps acting in the namespace in which it was opened, wherever the thread goes. After a batch that deletes
/// something, or adds a chain that is there already, its end makes the process wait until the kernel has freed what it
/// needs no more (8 to 18 ms).
#[derive(Debug)]
pub struct Nfnl {
    channel: Channel,
    /// A batch was kept, so the end may wait.
    changed: bool,
}

impl AsFd for Nfnl {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

impl Nfnl {
    /// Opens a socket in the calling thread's namespace.
    pub fn open() -> Result<Nfnl> {
        let open = Channel::open(NETLINK_NETFILTER).map_err(|c| match c {
            Cause::Os { errno: libc::EPROTONOSUPPORT, .. } => {
                Cause::Lacks("nfnetlink (CONFIG_NETFILTER_NETLINK)".into())
            }
            other => other,
        });
        Ok(Nfnl { channel: open.map_err(|c| c.about("open nfnetlink socket"))?, changed: false })
    }

    /// Opens a socket in `ns`; the thread is back in its own namespace afterwards.
    pub fn open_in(ns: &Netns) -> Result<Nfnl> {
        ns.run(Nfnl::open)?
    }

    /// The socket's port: the kernel's announcements name it with the changes that were made by this socket.
    pub fn port(&self) -> u32 {
        self.channel.port
    }

    /// Ends the socket without a wait: a child holds it until this process has ended, and then waits in its place. The
    /// child holds nothing else of this process. For a process that ends soon; where no child can be had, the end waits
    /// here.
    pub fn leave(self) {
        let leave = || {
            let (gate, open) = std::io::pipe()?;
            let until_the_end =
                || while (&gate).read(&mut [0]).is_err_and(|e| e.kind() == ErrorKind::Interrupted) {};
            sys::detach(&[self.as_fd(), gate.as_fd()], &until_the_end)?;
            // Closed by the kernel, when this process ends.
            let _ = open.into_raw_fd();
            Ok::<(), std::io::Error>(())
        };
        if self.changed {
            let _ = leave();
        }
    }

    /// Makes all changes of a batch, or none. The error is the first request's that the kernel refused.
    pub fn commit(&mut self, batch: nft::Batch) -> Result<()> {
        self.send(batch, None, Outcome::Keep)
    }

    /// Asks whether the kernel would make all changes of a batch; it makes none.
    pub fn try_out(&mut self, batch: nft::Batch) -> Result<()> {
        self.send(batch, None, Outcome::Discard)
    }

    /// Makes a change that depends on what is there: `prepare` looks, puts what is to be changed into the batch and
    /// gives a value, and is called again whenever another program has changed anything in between. Programs that use
    /// this function take turns, or many at once would overtake each other without end.
    pub fn transact<T>(
        &mut self,
        mut prepare: impl FnMut(&mut Nfnl, &mut nft::Batch) -> Result<T>,
    ) -> Result<T> {
        let _turn = turn();
        for _ in 0..TRIES {
            let generation = self.generation()?;
            let mut batch = nft::Batch::new();
            let value = match prepare(self, &mut batch) {
                Ok(value) => value,
                // Looking takes several dumps, between which another program may have made the first one stale.
                Err(_) if self.generation()? != generation => continue,
                Err(e) => return Err(e),
            };
            match self.send(batch, Some(generation), Outcome::Keep) {
                Ok(()) => return Ok(value),
                Err(e) if e.errno() == Some(libc::ERESTART) => {}
                Err(e) => return Err(e),
            }
        }
        Err(Cause::Interrupted { tries: TRIES }.about("change nf_tables"))
    }

    /// The number of the ruleset, which every change of anyone raises, whatever the table.
    pub fn generation(&mut self) -> Result<u32> {
        let query = Attrs::message(0, 0);
        let read = |payload: &[u8]| {
            let mut id = None;
            wire::attributes(wire::after(payload, 4), |kind, value| {
                if kind == 1 {
                    id = nft::to_u32(value);
                }
            })?;
            id.ok_or_else(|| wire::malformed("a generation without its number"))
        };
        self.get(msg::kind(msg::GETGEN), &Body(&query.bytes), read)
            .map_err(|c| without_tables(c).about("read the generation of nf_tables"))
    }

    fn send(&mut self, batch: nft::Batch, generation: Option<u32>, outcome: Outcome) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let nft::Batch { bytes: requests, requests: places, .. } = batch;
        let first = self.channel.take_seq(places.len() as u32 + 2);
        let last = first.wrapping_add(places.len() as u32);
        let mut out = Vec::with_capacity(requests.len() + 64);
        let mut begin = Attrs::message(0, msg::SUBSYSTEM);
        if let Some(generation) = generation {
            begin.u32(GENERATION, generation);
        }
        wire::push(&mut out, BEGIN, NLM_F_REQUEST, first, &Body(&begin.bytes));
        let base = out.len();
        out.extend(&requests);
        for (i, (start, _)) in places.iter().enumerate() {
            let seq = first.wrapping_add(1 + i as u32);
            out[base + start + 8..base + start + 12].copy_from_slice(&seq.to_ne_bytes());
        }
        // One ack tells that all is done: the kernel hands them out after the last message.
        if let Some((start, _)) = places.last() {
            let flags = &mut out[base + start + 6..base + start + 8];
            let wanted = u16::from_ne_bytes([flags[0], flags[1]]) | NLM_F_ACK;
            flags.copy_from_slice(&wanted.to_ne_bytes());
        }
        // Without its end the kernel checks a batch and throws it away.
        if outcome == Outcome::Keep {
            let end = Attrs::message(0, msg::SUBSYSTEM);
            wire::push(&mut out, END, NLM_F_REQUEST, last.wrapping_add(1), &Body(&end.bytes));
        }

        self.make_room(out.len());
        self.channel.put(&out).map_err(|c| c.about("send a batch to nf_tables"))?;
        let answer = self.answers(first, last).map_err(|c| c.about("read the answer to a batch"))?;
        let Err((seq, cause, offset)) = answer else {
            self.changed |= outcome == Outcome::Keep;
            return Ok(());
        };
        // What is refused at the batch's beginning concerns all of it.
        let Some(i) =
            seq.wrapping_sub(first).checked_sub(1).map(|i| i as usize).filter(|&i| i < places.len())
        else {
            let subject = places.first().map_or("", |(_, subject)| subject);
            return Err(without_tables(cause).about(subject));
        };
        let (start, subject) = &places[i];
        let request = &requests[*start..places.get(i + 1).map_or(requests.len(), |next| next.0)];
        let cause = match cause {
            Cause::Os { errno, .. } => nft::lacking(errno, request, offset).unwrap_or(cause),
            other => other,
        };
        Err(cause.about(subject.as_str()))
    }

    /// Reads until the batch is answered: the ack of its last request, or a refusal of the whole. Gives the first
    /// refusal, by number, with the offset that the extended ack names.
    #[allow(clippy::type_complexity, reason = "one caller")]
    fn answers(
        &mut self,
        first: u32,
        last: u32,
    ) -> std::result::Result<std::result::Result<(), (u32, Cause, Option<u32>)>, Cause> {
        let mut refused: Option<(u32, Cause, Option<u32>)> = None;
        loop {
            let n = self.channel.fill()?;
            for m in Messages(self.channel.received(n)) {
                if m.port != self.channel.port
                    || m.kind != NLMSG_ERROR
                    || m.seq.wrapping_sub(first) > last.wrapping_sub(first)
                {
                    continue;
                }
                if let Err(cause) = wire::ack(&m)
                    && refused.is_none()
                {
                    refused = Some((m.seq, cause, wire::bad_offset(&m)));
                }
                let whole = m.seq == first && refused.is_some();
                if m.seq == last || whole {
                    return Ok(refused.map_or(Ok(()), Err));
                }
            }
        }
    }

    /// Lets the socket send a datagram of `len` bytes; without the privilege to, the kernel's own bound holds.
    fn make_room(&self, len: usize) {
        if len > SEND_BUFFER && setsockopt(&self.channel.socket, sockopt::SndBufForce, &(len * 2)).is_err() {
            let _ = setsockopt(&self.channel.socket, sockopt::SndBuf, &(len * 2));
        }
    }

    /// As [`Channel::change`].
    pub(crate) fn change(&mut self, kind: u16, flags: u16, body: &dyn Emitable) -> Answer {
        self.channel.change(kind, flags, body)
    }

    /// As [`Channel::get`].
    pub(crate) fn get<T>(
        &mut self,
        kind: u16,
        body: &dyn Emitable,
        read: impl Fn(&[u8]) -> std::result::Result<T, Cause>,
    ) -> std::result::Result<T, Cause> {
        self.channel.get(kind, body, read)
    }

    /// As [`Channel::dump`].
    pub(crate) fn dump<T>(
        &mut self,
        kind: u16,
        body: &dyn Emitable,
        read: impl FnMut(&[u8], &mut Vec<T>) -> Answer,
    ) -> std::result::Result<Vec<T>, Cause> {
        self.channel.dump(kind, body, read)
    }
}

/// Waits for this program's turn among those in the calling thread's namespace. The lock is on a file of procfs that is
/// another one in each namespace, so nothing is written anywhere. Without it the generation alone decides.
fn turn() -> Option<Flock<File>> {
    let file = File::open("/proc/thread-self/net/dev").ok()?;
    Flock::lock(file, FlockArg::LockExclusive).ok()
}

/// A kernel without nf_tables does not know the subsystem.
fn without_tables(cause: Cause) -> Cause {
    match cause {
        Cause::Os { errno: libc::EOPNOTSUPP | libc::EINVAL, .. } => {
            Cause::Lacks("nf_tables (CONFIG_NF_TABLES)".into())
        }
        other => other,
    }
}

impl Error {
    /// Of another program's change that came between looking and changing; [`Nfnl::transact`] tries again by itself.
    pub fn is_overtaken(&self) -> bool {
        self.errno() == Some(libc::ERESTART)
    }
}
