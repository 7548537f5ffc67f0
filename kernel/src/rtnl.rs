//! One rtnetlink socket: a channel of NETLINK_ROUTE, and the sending of batches.
//!
//! The verbs are in [`crate::link`], [`crate::addr`], [`crate::route`] and their neighbours.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use netlink_packet_core::{Emitable, NLM_F_ACK};
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::batch::Batch;
use crate::channel::{Answer, BUFFER, Channel};
use crate::error::{Cause, Error, Result};
use crate::link::{self, Link};
use crate::netns::Netns;
use crate::sys;
use crate::wire::{self, Message};

/// Messages in one send of a batch: the refusals of all of them wait in the socket's receive buffer (208 KiB).
const BURST: usize = 64;

/// A NETLINK_ROUTE socket: blocking, with extended acks, capped acks and strict checks of what is asked.
///
/// It keeps acting in the namespace in which it was opened, wherever the thread goes.
#[derive(Debug)]
pub struct Rtnl {
    channel: Channel,
}

impl AsFd for Rtnl {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

impl Rtnl {
    /// Opens a socket in the calling thread's namespace.
    pub fn open() -> Result<Rtnl> {
        let open = || {
            let channel = Channel::open(NETLINK_ROUTE)?;
            channel.socket.set_netlink_get_strict_chk(true)?;
            Ok(Rtnl { channel })
        };
        open().map_err(|c: Cause| c.about("open rtnetlink socket"))
    }

    /// Opens a socket in `ns`; the thread is back in its own namespace afterwards.
    pub fn open_in(ns: &Netns) -> Result<Rtnl> {
        ns.run(Rtnl::open)?
    }

    /// Sends the requests of a batch, as many at once as the acks allow, in order. The kernel handles each by
    /// itself: one that is refused does not stop those after it. The outer error means that the answers were lost.
    pub fn send(&mut self, batch: Batch) -> Result<Vec<Result<()>>> {
        let Batch { mut bytes, requests } = batch;
        let first = self.number(&mut bytes, &requests);
        let end = bytes.len();
        let start = |i: usize| requests.get(i).map_or(end, |r| r.0);
        let mut results = Vec::with_capacity(requests.len());
        while results.len() < requests.len() {
            let from = results.len();
            let mut to = from + 1;
            while to < requests.len() && to - from < BURST && start(to + 1) - start(from) <= BUFFER {
                to += 1;
            }
            let flags = start(to - 1) + 6;
            let asked = u16::from_ne_bytes([bytes[flags], bytes[flags + 1]]) | NLM_F_ACK;
            bytes[flags..flags + 2].copy_from_slice(&asked.to_ne_bytes());
            self.channel.put(&bytes[start(from)..start(to)]).map_err(about_sending)?;
            let answers = self.channel.answers_to(first.wrapping_add(from as u32), to - from, |_| ());
            results.extend(named(answers.map_err(about_answers)?, &requests[from..to]));
        }
        Ok(results)
    }

    /// As [`Rtnl::send`] for a few requests, and the link `index` as it is after them, all in one send.
    pub fn send_and_look(&mut self, mut batch: Batch, index: u32) -> Result<(Vec<Result<()>>, Link)> {
        batch.link_look(index);
        let Batch { mut bytes, requests } = batch;
        let first = self.number(&mut bytes, &requests);
        self.channel.put(&bytes).map_err(about_sending)?;
        let mut link = None;
        let answers =
            self.channel.answers_to(first, requests.len(), |payload| link = Some(link::parse(payload)));
        let mut results = named(answers.map_err(about_answers)?, &requests);
        if let Some(looked) = results.pop() {
            looked?;
        }
        let link = link.unwrap_or_else(|| Err(wire::malformed("an ack without a link")));
        Ok((results, link.map_err(about_answers)?))
    }

    /// Has a child of this process send the requests, for what keeps the kernel busy for long and need not be waited for:
    /// nobody hears whether they were refused. The child holds nothing else of this process.
    ///
    /// # Errors
    /// No child can be had; nothing was sent then.
    pub fn send_by_child(mut self, batch: Batch) -> Result<()> {
        let Batch { mut bytes, requests } = batch;
        self.number(&mut bytes, &requests);
        let send = || drop(self.channel.put(&bytes));
        sys::detach(&[self.as_fd()], &send).map(drop).map_err(|e| about_sending(e.into()))
    }

    /// Writes the sequence numbers of a batch into it and gives the first.
    fn number(&mut self, bytes: &mut [u8], requests: &[(usize, String)]) -> u32 {
        let first = self.channel.take_seq(requests.len() as u32);
        for (i, (start, _)) in requests.iter().enumerate() {
            let seq = first.wrapping_add(i as u32);
            bytes[start + 8..start + 12].copy_from_slice(&seq.to_ne_bytes());
        }
        first
    }

    /// As [`Channel::change`].
    pub(crate) fn change(&mut self, kind: u16, flags: u16, body: &dyn Emitable) -> Answer {
        self.channel.change(kind, flags, body)
    }

    /// As [`Channel::change_echo`].
    pub(crate) fn change_echo<T>(
        &mut self,
        kind: u16,
        flags: u16,
        body: &dyn Emitable,
        read: impl Fn(&[u8]) -> std::result::Result<T, Cause>,
    ) -> std::result::Result<Option<T>, Cause> {
        self.channel.change_echo(kind, flags, body, read)
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

    /// As [`Channel::change_announced`].
    pub(crate) fn change_announced(
        &mut self,
        kind: u16,
        body: &dyn Emitable,
        keep: &[BorrowedFd<'_>],
        is_it: impl Fn(&Message<'_>) -> bool,
    ) -> Answer {
        self.channel.change_announced(kind, body, keep, is_it)
    }

    /// As [`Channel::join`].
    pub(crate) fn join(&mut self, group: u32) -> Answer {
        self.channel.join(group)
    }

    /// As [`Channel::leave`].
    pub(crate) fn leave(&mut self, group: u32) -> Answer {
        self.channel.leave(group)
    }

    /// As [`Channel::events`].
    pub(crate) fn events(
        &mut self,
        deadline: Instant,
        each: impl FnMut(&Message<'_>),
    ) -> std::result::Result<bool, Cause> {
        self.channel.events(deadline, each)
    }
}

fn about_sending(cause: Cause) -> Error {
    cause.about("send a batch")
}

fn about_answers(cause: Cause) -> Error {
    cause.about("read the answers to a batch")
}

/// Answers with what each was about.
fn named(answers: Vec<Answer>, requests: &[(usize, String)]) -> Vec<Result<()>> {
    let named = answers.into_iter().zip(requests);
    named.map(|(answer, (_, subject))| answer.map_err(|c| c.about(subject.as_str()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{self, Change, Veth};

    #[test]
    fn lookup_works_after_more_events_than_the_socket_holds() {
        let ns = Netns::create().unwrap();
        let (mut deaf, mut busy) = (Rtnl::open_in(&ns).unwrap(), Rtnl::open_in(&ns).unwrap());
        link::add_veth(&mut busy, &Veth { name: "a", peer: "b", ..Veth::default() }).unwrap();
        let a = link::by_name(&mut busy, "a").unwrap().index;
        let mut flood = || {
            for mtu in 1000..1600 {
                link::set(&mut busy, a, &Change { mtu: Some(mtu), ..Change::default() }).unwrap();
            }
        };
        deaf.join(libc::RTNLGRP_LINK).unwrap();
        flood();
        assert_eq!(link::by_index(&mut deaf, a).unwrap().mtu, 1599);
        flood();
        let missed = deaf.events(Instant::now() + std::time::Duration::from_secs(5), |_| ());
        assert_eq!(missed, Err(Cause::errno(libc::ENOBUFS)));
        assert_eq!(link::by_index(&mut deaf, a).unwrap().mtu, 1599);
        flood();
        deaf.leave(libc::RTNLGRP_LINK).unwrap();
        link::set(&mut deaf, a, &Change { mtu: Some(900), ..Change::default() }).unwrap();
        assert_eq!(link::list(&mut deaf).unwrap().len(), 3);
    }

    #[test]
    fn sequence_numbers_wrap_without_zero() {
        let ns = Netns::create().unwrap();
        let mut rtnl = Rtnl::open_in(&ns).unwrap();
        rtnl.channel.seq = u32::MAX - 1;
        for _ in 0..3 {
            assert_eq!(link::by_index(&mut rtnl, 1).unwrap().name, "lo");
        }
        assert_eq!(rtnl.channel.seq, 2);
        rtnl.channel.seq = u32::MAX - 1;
        let mut batch = Batch::new();
        batch.link_delete(70).link_delete(71).link_delete(72);
        assert_eq!(rtnl.send(batch).unwrap().len(), 3);
        assert_eq!(rtnl.channel.seq, 3);
    }
}
