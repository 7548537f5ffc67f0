//! Netlink messages as bytes, and a socket that sends several at once (linux/netlink.h). Only the last of them asks for an
//! ack: the kernel takes them in order, and one that it refuses is answered in any case.

use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, socket,
};

/// NLM_F_REQUEST, NLM_F_ACK.
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
/// NLM_F_CREATE with NLM_F_EXCL.
pub(crate) const CREATE: u16 = 0x400 | 0x200;
/// NLM_F_CREATE alone.
pub(crate) const CREATE_OR_CHANGE: u16 = 0x400;
/// NLA_F_NESTED.
const NESTED: u16 = 0x8000;
/// NLMSG_ERROR, which is an ack too.
const ERROR: u16 = 2;
const HEADER: usize = 16;

/// Messages one after the other.
#[derive(Default)]
pub(crate) struct Messages {
    bytes: Vec<u8>,
    /// Where the last one starts.
    last: usize,
    count: u32,
}

impl Messages {
    /// Puts a message: its type, flags, the fixed part of its body, and its attributes.
    pub(crate) fn put(&mut self, kind: u16, flags: u16, body: &[u8], attributes: impl FnOnce(&mut Self)) {
        self.last = self.bytes.len();
        self.count += 1;
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(REQUEST | flags).to_ne_bytes());
        self.bytes.extend_from_slice(&self.count.to_ne_bytes());
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(body);
        self.pad();
        attributes(self);
        let length = (self.bytes.len() - self.last) as u32;
        self.bytes[self.last..self.last + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Puts an attribute.
    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.bytes.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    /// Puts an attribute whose value is a number in the machine's byte order.
    pub(crate) fn number(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    /// Puts an attribute whose value is a text with its final zero.
    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes);
    }

    /// Puts an attribute of attributes.
    pub(crate) fn nest(&mut self, kind: u16, inner: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.attribute(kind | NESTED, &[]);
        inner(self);
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    /// Puts bytes within an attribute, such as the fixed part of a peer's message.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.pad();
    }

    /// Lets the message that was put last be the one that is acked.
    fn ask_for_ack(&mut self) {
        let flags = u16::from_ne_bytes([self.bytes[self.last + 6], self.bytes[self.last + 7]]) | ACK;
        self.bytes[self.last + 6..self.last + 8].copy_from_slice(&flags.to_ne_bytes());
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// A netlink socket.
pub(crate) struct Socket(OwnedFd);

impl Socket {
    /// A socket of rtnetlink in the current namespace, listening to these groups (a bit mask).
    pub(crate) fn route(groups: u32) -> Result<Self> {
        let socket = Self::open(SockProtocol::NetlinkRoute)?;
        if groups != 0 {
            bind(socket.0.as_raw_fd(), &NetlinkAddr::new(0, groups)).context("listen to links")?;
        }
        Ok(socket)
    }

    /// A socket of nfnetlink in the current namespace.
    pub(crate) fn netfilter() -> Result<Self> {
        Self::open(SockProtocol::NetlinkNetFilter)
    }

    fn open(protocol: SockProtocol) -> Result<Self> {
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol);
        Ok(Socket(fd.context("open a netlink socket")?))
    }

    /// Sends and waits for the last message's ack, or the first refusal.
    pub(crate) fn send(&self, mut messages: Messages, what: &str) -> Result<()> {
        messages.ask_for_ack();
        let last = messages.count;
        self.put(&messages, what)?;
        self.wait(what, |kind, sequence, _| kind == ERROR && sequence == last)
    }

    /// Sends messages that already say which of them is acked: the answer to the first that is.
    pub(crate) fn send_batch(&self, messages: &Messages, what: &str) -> Result<()> {
        self.put(messages, what)?;
        self.wait(what, |kind, _, _| kind == ERROR)
    }

    fn put(&self, messages: &Messages, what: &str) -> Result<()> {
        let kernel = NetlinkAddr::new(0, 0);
        sendto(self.0.as_raw_fd(), &messages.bytes, &kernel, MsgFlags::empty())
            .with_context(|| format!("send: {what}"))?;
        Ok(())
    }

    /// Reads messages until one of this type, sequence number and body is the one that is waited for.
    pub(crate) fn wait(&self, what: &str, mut done: impl FnMut(u16, u32, &[u8]) -> bool) -> Result<()> {
        let mut buffer = [0; 16384];
        loop {
            let length = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty())
                .with_context(|| format!("read the answer: {what}"))?;
            let mut rest = &buffer[..length];
            while let Some((header, _)) = rest.split_first_chunk::<HEADER>() {
                let size = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
                let kind = u16::from_ne_bytes([header[4], header[5]]);
                let sequence = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
                if size < HEADER || size > rest.len() {
                    bail!("{what}: an answer of {size} bytes in {}", rest.len());
                }
                let body = &rest[HEADER..size];
                if let (ERROR, Some((&code, _))) = (kind, body.split_first_chunk::<4>())
                    && code != [0; 4]
                {
                    return Err(Errno::from_raw(-i32::from_ne_bytes(code))).context(what.to_owned());
                }
                if done(kind, sequence, body) {
                    return Ok(());
                }
                rest = &rest[size.next_multiple_of(4).min(rest.len())..];
            }
        }
    }
}

/// NLM_F_ACK, for batches whose last message is not the one to be acked.
pub(crate) const WITH_ACK: u16 = ACK;
