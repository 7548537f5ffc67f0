//! One netlink socket of any protocol: send a request, read its answer, and nothing that belongs to another request.
//!
//! It knows messages and sequence numbers, not what they mean: that is for [`crate::Rtnl`] and [`crate::Nfnl`], each a
//! protocol over this.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use netlink_packet_core::NLMSG_DONE;
use netlink_packet_core::{Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_ECHO, NLM_F_REQUEST};
use netlink_packet_core::{NLMSG_ERROR, NLMSG_OVERRUN};
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{Cause, uninterrupted};
use crate::sys;
use crate::wire::{self, Message, Messages};

/// The kernel makes the parts of a dump as big as the buffer they are read into, up to this (af_netlink.c).
pub(crate) const BUFFER: usize = 32 * 1024;
/// How often a dump is asked for before it counts as interrupted.
pub(crate) const TRIES: u32 = 5;

/// What an ack says.
pub(crate) type Answer = std::result::Result<(), Cause>;

/// A netlink socket: blocking, with extended acks and capped acks.
///
/// It keeps acting in the namespace in which it was opened, wherever the thread goes.
pub(crate) struct Channel {
    pub(crate) socket: Socket,
    pub(crate) port: u32,
    pub(crate) seq: u32,
    out: Vec<u8>,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel").field("port", &self.port).field("seq", &self.seq).finish_non_exhaustive()
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Channel {
    /// Opens a socket of a protocol (`NETLINK_*`) in the calling thread's namespace.
    pub(crate) fn open(protocol: isize) -> std::result::Result<Channel, Cause> {
        let mut socket = Socket::new(protocol)?;
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        let port = socket.bind_auto()?.port_number();
        // Connected to the kernel, the socket takes no message from another process.
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Channel { socket, port, seq: 0, out: Vec::with_capacity(512), buffer: Vec::with_capacity(BUFFER) })
    }

    /// Reads what the kernel says of `count` requests numbered from `first` on. The refusals come in order, and the last
    /// request ends them: by its ack, or by the object it asked for, of which `show` gets the payload. Of a request that
    /// was neither refused nor the last nothing is said: it was done.
    pub(crate) fn answers_to(
        &mut self,
        first: u32,
        count: usize,
        mut show: impl FnMut(&[u8]),
    ) -> std::result::Result<Vec<Answer>, Cause> {
        let mut answers = vec![Ok(()); count];
        let mut ended = count == 0;
        while !ended {
            let n = self.fill()?;
            for m in Messages(&self.buffer[..n]).filter(|m| m.port == self.port) {
                let at = m.seq.wrapping_sub(first) as usize;
                let Some(answer) = answers.get_mut(at) else { continue };
                match m.kind {
                    NLMSG_ERROR => *answer = wire::ack(&m),
                    _ => show(m.payload),
                }
                ended |= at + 1 == count;
            }
        }
        Ok(answers)
    }

    /// Asks for a change and waits for its ack.
    pub(crate) fn change(&mut self, kind: u16, flags: u16, body: &dyn Emitable) -> Answer {
        let seq = self.ask(kind, flags | NLM_F_ACK, body)?;
        loop {
            let n = self.fill()?;
            if let Some(m) =
                Messages(&self.buffer[..n]).find(|m| self.answers(m, seq) && m.kind == NLMSG_ERROR)
            {
                return wire::ack(&m);
            }
        }
    }

    /// As [`Channel::change`], asking the kernel to show what it made: `read` gets the payload of that message, which a
    /// kernel before 6.2 does not send.
    pub(crate) fn change_echo<T>(
        &mut self,
        kind: u16,
        flags: u16,
        body: &dyn Emitable,
        read: impl Fn(&[u8]) -> std::result::Result<T, Cause>,
    ) -> std::result::Result<Option<T>, Cause> {
        let seq = self.ask(kind, flags | NLM_F_ACK | NLM_F_ECHO, body)?;
        let mut shown = None;
        loop {
            let n = self.fill()?;
            for m in Messages(&self.buffer[..n]).filter(|m| self.answers(m, seq)) {
                if m.kind == NLMSG_ERROR {
                    return wire::ack(&m).map(|()| shown);
                }
                shown = read(m.payload).ok();
            }
        }
    }

    /// As [`Channel::change`] for a change after which the kernel makes the asker wait: a child of this process asks and
    /// waits, and this returns on the kernel's event of which `is_it` says that it tells of the change. The socket
    /// listens to such events. The child holds `keep` as long as it waits, and nothing else of this process.
    ///
    /// Where no child can be had, or it is killed, the change is made and waited for here.
    pub(crate) fn change_announced(
        &mut self,
        kind: u16,
        body: &dyn Emitable,
        keep: &[BorrowedFd<'_>],
        is_it: impl Fn(&Message<'_>) -> bool,
    ) -> Answer {
        let seq = self.take_seq(1);
        let mut out = Vec::with_capacity(64);
        wire::push(&mut out, kind, NLM_F_REQUEST | NLM_F_ACK, seq, body);
        let keep: Vec<BorrowedFd<'_>> = keep.iter().copied().chain([self.socket.as_fd()]).collect();
        let Ok(end) = sys::detach(&keep, &|| while sending(&self.socket, &out) {}) else {
            return self.change(kind, 0, body);
        };
        let mut asked = true;
        while asked {
            let [mut ours, mut childs] =
                [self.socket.as_fd(), end.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            let mut fds = [ours, childs];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) => [ours, childs] = fds,
                Err(Errno::EINTR) => continue,
                Err(e) => return Err(e.into()),
            }
            // Read after the child's end was seen, so that nothing which it led to is missed.
            asked = childs.any() != Some(true);
            if ours.any() != Some(true) {
                continue;
            }
            let n = match self.fill() {
                Ok(n) => n,
                // The event may be among those that were lost: asking again finds out.
                Err(c) if lost(&c) => break,
                Err(c) => return Err(c),
            };
            asked = true;
            for m in Messages(&self.buffer[..n]) {
                if self.answers(&m, seq) && m.kind == NLMSG_ERROR {
                    return wire::ack(&m);
                }
                if is_it(&m) {
                    return Ok(());
                }
            }
        }
        self.change(kind, 0, body)
    }

    /// Asks for one object; `read` gets the payload of the message that answers.
    pub(crate) fn get<T>(
        &mut self,
        kind: u16,
        body: &dyn Emitable,
        read: impl Fn(&[u8]) -> std::result::Result<T, Cause>,
    ) -> std::result::Result<T, Cause> {
        for _ in 0..TRIES {
            let seq = self.ask(kind, 0, body)?;
            loop {
                let n = match self.fill() {
                    Ok(n) => n,
                    // Events that overflowed took the answer with them; asking again changes nothing.
                    Err(c) if lost(&c) => break,
                    Err(c) => return Err(c),
                };
                if let Some(m) = Messages(&self.buffer[..n]).find(|m| self.answers(m, seq)) {
                    return match m.kind {
                        NLMSG_ERROR => wire::ack(&m).and(Err(wire::malformed("an ack without an answer"))),
                        _ => read(m.payload),
                    };
                }
            }
        }
        Err(Cause::errno(libc::ENOBUFS))
    }

    /// Asks for all objects of a kind; `read` appends what it finds in each message's payload. Asked again, up to
    /// five times, when the kernel says that changes interrupted the dump.
    pub(crate) fn dump<T>(
        &mut self,
        kind: u16,
        body: &dyn Emitable,
        mut read: impl FnMut(&[u8], &mut Vec<T>) -> Answer,
    ) -> std::result::Result<Vec<T>, Cause> {
        let mut all = Vec::new();
        for _ in 0..TRIES {
            all.clear();
            if self.dump_once(kind, body, &mut |payload| read(payload, &mut all))? {
                return Ok(all);
            }
        }
        Err(Cause::Interrupted { tries: TRIES })
    }

    /// True when the dump is complete and consistent.
    fn dump_once(
        &mut self,
        kind: u16,
        body: &dyn Emitable,
        each: &mut dyn FnMut(&[u8]) -> Answer,
    ) -> std::result::Result<bool, Cause> {
        let seq = self.ask(kind, NLM_F_DUMP, body)?;
        let mut whole = true;
        // The dump is read to its end also after an unusable part: until then the socket takes no other.
        let mut unusable = Ok(());
        loop {
            let n = self.fill()?;
            for m in Messages(&self.buffer[..n]).filter(|m| self.answers(m, seq)) {
                whole &= m.flags & NLM_F_DUMP_INTR == 0;
                match m.kind {
                    NLMSG_DONE => return wire::done(&m).and(unusable).map(|()| whole),
                    NLMSG_ERROR => return wire::ack(&m).and(unusable).map(|()| whole),
                    NLMSG_OVERRUN => whole = false,
                    _ if unusable.is_ok() => unusable = each(m.payload),
                    _ => {}
                }
            }
        }
    }

    /// Joins a multicast group (`RTNLGRP_*`, linux/rtnetlink.h).
    pub(crate) fn join(&mut self, group: u32) -> Answer {
        Ok(self.socket.add_membership(group)?)
    }

    /// Leaves a multicast group and forgets the events that are still waiting.
    pub(crate) fn leave(&mut self, group: u32) -> Answer {
        self.socket.drop_membership(group)?;
        self.drain()
    }

    /// Waits for the next datagram until `deadline` and hands its messages to `each`; false when the time is over.
    /// ENOBUFS says that events were lost.
    pub(crate) fn events(
        &mut self,
        deadline: Instant,
        mut each: impl FnMut(&Message<'_>),
    ) -> std::result::Result<bool, Cause> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // Rounded up, or the last millisecond would spin.
            let millis = left.as_nanos().div_ceil(1_000_000);
            let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
            let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, timeout) {
                Ok(0) if left.is_zero() => return Ok(false),
                Ok(0) | Err(Errno::EINTR) => continue,
                Ok(_) => break,
                Err(e) => return Err(e.into()),
            }
        }
        let n = self.fill()?;
        Messages(&self.buffer[..n]).for_each(|m| each(&m));
        Ok(true)
    }

    pub(crate) fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        body: &dyn Emitable,
    ) -> std::result::Result<u32, Cause> {
        let seq = self.take_seq(1);
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        wire::push(&mut out, kind, NLM_F_REQUEST | flags, seq, body);
        let sent = self.put(&out);
        self.out = out;
        sent.map(|()| seq)
    }

    /// Takes `n` sequence numbers, of which the first is returned; 0 is the number of events and never taken.
    pub(crate) fn take_seq(&mut self, n: u32) -> u32 {
        if self.seq.checked_add(n).is_none() {
            self.seq = 0;
        }
        let first = self.seq + 1;
        self.seq += n;
        first
    }

    /// Answers carry the number of the request and the port of the socket that asked; events of other sockets'
    /// requests may share the first, never both.
    fn answers(&self, m: &Message<'_>, seq: u32) -> bool {
        m.seq == seq && m.port == self.port
    }

    pub(crate) fn put(&self, bytes: &[u8]) -> Answer {
        uninterrupted(|| self.socket.send(bytes, 0))?;
        Ok(())
    }

    /// Reads one datagram into the buffer. On ENOBUFS everything that waits is thrown away: while the receive buffer
    /// is full the kernel drops answers too, and it says so only once.
    pub(crate) fn fill(&mut self) -> std::result::Result<usize, Cause> {
        match self.read(0) {
            Ok(n) if n > self.buffer.len() => Err(wire::malformed(format_args!("a datagram of {n} bytes"))),
            Ok(n) => Ok(n),
            Err(e) => {
                if e.raw_os_error() == Some(libc::ENOBUFS) {
                    self.drain()?;
                }
                Err(e.into())
            }
        }
    }

    /// What [`Channel::fill`] read.
    pub(crate) fn received(&self, n: usize) -> &[u8] {
        &self.buffer[..n]
    }

    /// Throws away what waits to be read.
    fn drain(&mut self) -> Answer {
        loop {
            match self.read(libc::MSG_DONTWAIT) {
                Ok(_) => {}
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(e) if e.raw_os_error() == Some(libc::EAGAIN) => return Ok(()),
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn read(&mut self, flags: libc::c_int) -> std::io::Result<usize> {
        uninterrupted(|| {
            // Memory that nothing was read into is never touched.
            self.buffer.clear();
            self.socket.recv(&mut self.buffer, flags | libc::MSG_TRUNC)
        })
    }
}

/// Sends; true when it was interrupted. For a child: it allocates nothing.
fn sending(socket: &Socket, bytes: &[u8]) -> bool {
    socket.send(bytes, 0).is_err_and(|e| e.raw_os_error() == Some(libc::EINTR))
}

fn lost(cause: &Cause) -> bool {
    matches!(cause, Cause::Os { errno: libc::ENOBUFS, .. })
}
