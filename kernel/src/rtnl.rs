//! One rtnetlink socket: a channel of NETLINK_ROUTE, and the sending of batches.
//!
//! The verbs are in [`crate::link`], [`crate::addr`], [`crate::route`] and their neighbours.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use netlink_packet_core::Emitable;
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::batch::Batch;
use crate::channel::{Answer, BUFFER, Channel};
use crate::error::{Cause, Result};
use crate::netns::Netns;
use crate::wire::Message;

/// Messages in one send of a batch: the acks of all of them wait in the socket's receive buffer (208 KiB).
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
        let first = self.channel.take_seq(requests.len() as u32);
        for (i, (start, _)) in requests.iter().enumerate() {
            let seq = first.wrapping_add(i as u32);
            bytes[start + 8..start + 12].copy_from_slice(&seq.to_ne_bytes());
        }
        let start = |i: usize| requests.get(i).map_or(bytes.len(), |r| r.0);
        let mut results = Vec::with_capacity(requests.len());
        while results.len() < requests.len() {
            let from = results.len();
            let mut to = from + 1;
            while to < requests.len() && to - from < BURST && start(to + 1) - start(from) <= BUFFER {
                to += 1;
            }
            self.channel.put(&bytes[start(from)..start(to)]).map_err(|c| c.about("send a batch"))?;
            let acks = self.channel.acks(first.wrapping_add(from as u32), to - from);
            let acks = acks.map_err(|c| c.about("read the answers to a batch"))?;
            let named = acks.into_iter().zip(&requests[from..to]);
            results.extend(named.map(|(ack, (_, subject))| ack.map_err(|c| c.about(subject.as_str()))));
        }
        Ok(results)
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
