//! `trace --step`: the frames of a wire wait until somebody lets them go by, one at a time.
//!
//! The supervisor holds the wire and does what its client orders; without the client, however it has ended, the wire is
//! put back. What waits are the kernels' own frames: both ends of a connection see a slow wire and nothing else.

mod frame;
mod wire;

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, PoisonError, mpsc};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{MsgFlags, recv};
use serde::{Deserialize, Serialize};

use crate::cluster::{Cluster, Node};
use crate::control::{self, Event};
use crate::exit::Failure;
use crate::probe::{ProbeOutcome, ProbeRequest, Word};
use crate::trace::{self, Followed, TraceOptions};
use crate::verify::Prober;
use wire::Wire;
pub(crate) use wire::{TO_NODE, TO_SWITCH};

/// How long the probe waits for its answer, in milliseconds: five minutes.
const TIMEOUT_MS: u64 = 300_000;

/// One side of the held wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The node's.
    Node,
    /// The switch's, behind which is everything else.
    Switch,
}

impl Side {
    const BOTH: [Side; 2] = [Side::Node, Side::Switch];

    fn index(self) -> usize {
        match self {
            Side::Node => 0,
            Side::Switch => 1,
        }
    }

    fn other(self) -> Side {
        match self {
            Side::Node => Side::Switch,
            Side::Switch => Side::Node,
        }
    }
}

/// What the client orders, of the frame that has waited longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Act {
    /// It goes on.
    Next,
    /// It is lost.
    Drop,
    /// It goes on twice.
    Duplicate,
    /// Its TTL is another one.
    Ttl(u8),
    /// One of its bytes is another one: where, and what.
    Byte(usize, u8),
    /// The one behind it goes before it.
    Swap,
    /// Nothing waits any more, from now on.
    Go,
    /// The wire is put back, and the probe given up.
    Quit,
}

/// An order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// What to do.
    pub act: Act,
    /// Wait until there is a frame to do it to; otherwise that is refused.
    pub is_patient: bool,
}

/// What the client is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum News {
    /// The wire of this node is held; orders are taken from now on.
    Held(String),
    /// A frame waits: its number, where it comes from, its bytes.
    Waits(u64, Side, Vec<u8>),
    /// The same frame has come again, so often in all; one of them waits.
    Again(u64, u32),
    /// What became of a frame.
    Done(u64, String),
    /// An order that cannot be.
    Refused(String),
    /// How the probe ended.
    Ended(String),
}

/// Traces a probe over a held wire.
///
/// # Errors
/// Wrong use: no wire of a node is on the way; else as [`trace::follow`], or the wire cannot be held or put back.
pub fn follow(
    cluster: &Cluster,
    options: &TraceOptions,
    keep_frames: bool,
    stream: &UnixStream,
) -> Result<Followed> {
    let node = node_on_the_way(cluster, options)?;
    let space = cluster.space(&options.source).context("the source has gone")?;
    let mut wire = Wire::hold(cluster, node)?;
    let mut session =
        Session { wire: &mut wire, stream, news: Vec::new(), waiting: VecDeque::new(), last: 0, goes: false };
    session.tell(News::Held(node.space.name.clone()));
    let followed = trace::follow_by(cluster, options, keep_frames, TIMEOUT_MS, |request| {
        session.run(Prober::start(space)?, request)
    });
    wire.mend()?;
    followed
}

/// The node whose wire the probe passes: the source's, or from outside the target's.
fn node_on_the_way<'c>(cluster: &'c Cluster, options: &TraceOptions) -> Result<&'c Node, Failure> {
    trace::sender(cluster, &options.source)?;
    let address = trace::address_of(cluster, &options.target, options.family)?;
    let pod = cluster.pods.iter().find(|pod| pod.addresses.contains(&address));
    let by_address = || cluster.nodes.iter().position(|node| node.address.has(&address));
    let far = pod.map(|pod| pod.node).or_else(by_address);
    let near = cluster.pod(&options.source).map(|pod| pod.node);
    let (source, target) = (&options.source, &options.target);
    match (near, far) {
        (Some(near), Some(far)) if near == far => Err(Failure::usage(format!(
            "{source} and {target} are on one node, and no wire between nodes is on the way"
        ))),
        (Some(node), _) | (None, Some(node)) => Ok(&cluster.nodes[node]),
        (None, None) => {
            Err(Failure::usage(format!("no wire of a node is on the way from {source} to {target}")))
        }
    }
}

/// A frame that waits.
struct Held {
    number: u64,
    from: Side,
    bytes: Vec<u8>,
    times: u32,
}

struct Session<'w, 'c, 's> {
    wire: &'w mut Wire<'c>,
    stream: &'s UnixStream,
    /// What has come of a line that is not whole.
    news: Vec<u8>,
    waiting: VecDeque<Held>,
    last: u64,
    /// Nothing waits any more.
    goes: bool,
}

impl Session<'_, '_, '_> {
    /// A client that has gone is seen when it is read from.
    fn tell(&self, news: News) {
        let _ = control::send(&mut &*self.stream, &Event::Step { news });
    }

    /// Sends the probe and lets frames by as it is ordered, until the probe has ended and nothing waits.
    fn run(&mut self, prober: Prober, request: ProbeRequest) -> Result<ProbeOutcome> {
        let nonce = request.nonce;
        let (result, outcome) = mpsc::channel();
        let bell = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let ring = Arc::clone(&bell);
        // Given up, it goes on until its answer comes by the wire that is whole again, or its time is over.
        std::thread::Builder::new().name("step".into()).spawn(move || {
            let sent = prober.sidecar.lock().unwrap_or_else(PoisonError::into_inner).probe(vec![request]);
            let _ = result.send(sent);
            let _ = ring.write(1);
        })?;
        let mut orders: VecDeque<Order> = VecDeque::new();
        let mut ended: Option<ProbeOutcome> = None;
        loop {
            for side in Side::BOTH {
                self.take(side)?;
            }
            while orders.front().is_some_and(|order| self.can(order)) {
                let Some(order) = orders.pop_front() else { break };
                if order.act == Act::Quit {
                    self.let_go()?;
                    return Ok(ended.unwrap_or_else(|| given_up(nonce)));
                }
                self.obey(order.act)?;
            }
            if ended.is_none()
                && let Ok(sent) = outcome.try_recv()
            {
                let sent = sent?.remove(0);
                self.tell(News::Ended(sent.words()));
                ended = Some(sent);
                // What it has sent last may just have come.
                continue;
            }
            if let Some(outcome) = ended.take_if(|_| self.waiting.is_empty()) {
                return Ok(outcome);
            }
            // What is known already is not waited for.
            let is_waited_for = ended.is_none();
            let Some([near, far]) = self.wire.ends() else { continue };
            let read = |fd| PollFd::new(fd, PollFlags::POLLIN);
            let mut all = vec![read(near.as_fd()), read(far.as_fd()), read(self.stream.as_fd())];
            all.extend(is_waited_for.then(|| read(bell.as_fd())));
            match poll(&mut all, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno).context("wait for frames"),
            }
            orders.extend(self.orders()?);
        }
    }

    /// Reads the frames that have come from a side.
    fn take(&mut self, from: Side) -> Result<()> {
        while let Some(bytes) = self.wire.receive(from)? {
            if self.goes || !frame::waits(&bytes) {
                self.wire.send(from.other(), &bytes)?;
                continue;
            }
            if let Some(same) = self.waiting.iter_mut().find(|held| held.from == from && held.bytes == bytes)
            {
                same.times += 1;
                let news = News::Again(same.number, same.times);
                self.tell(news);
                continue;
            }
            self.last += 1;
            self.tell(News::Waits(self.last, from, bytes.clone()));
            self.waiting.push_back(Held { number: self.last, from, bytes, times: 1 });
        }
        Ok(())
    }

    /// Whether an order can be followed, or refused, now.
    fn can(&self, order: &Order) -> bool {
        let wanted = match order.act {
            Act::Go | Act::Quit => 0,
            Act::Swap => 2,
            Act::Next | Act::Drop | Act::Duplicate | Act::Ttl(_) | Act::Byte(..) => 1,
        };
        !order.is_patient || self.waiting.len() >= wanted
    }

    fn obey(&mut self, act: Act) -> Result<()> {
        if act == Act::Go {
            self.goes = true;
            return self.let_go();
        }
        let Some(first) = self.waiting.front_mut() else {
            self.tell(News::Refused("nothing waits".to_owned()));
            return Ok(());
        };
        let number = first.number;
        let changed = match act {
            Act::Ttl(ttl) => frame::set_ttl(&mut first.bytes, ttl).map(|()| format!("has TTL {ttl} now")),
            Act::Byte(offset, value) => frame::set_byte(&mut first.bytes, offset, value)
                .map(|was| format!("byte {offset}: {was:#04x} > {value:#04x}")),
            Act::Swap if self.waiting.len() < 2 => Err("nothing waits behind it".to_owned()),
            Act::Swap => {
                self.waiting.swap(0, 1);
                Ok(format!("waits behind {}", self.waiting[0].number))
            }
            Act::Next => self.pass(1),
            Act::Duplicate => self.pass(2),
            Act::Drop => self.pass(0),
            Act::Go | Act::Quit => return Ok(()),
        };
        self.tell(match changed {
            Ok(text) => News::Done(number, text),
            Err(text) => News::Refused(format!("frame {number}: {text}")),
        });
        Ok(())
    }

    /// The first frame goes on, so often.
    fn pass(&mut self, times: usize) -> Result<String, String> {
        let Some(held) = self.waiting.pop_front() else { return Err("nothing waits".to_owned()) };
        let sent = (0..times).try_for_each(|_| self.wire.send(held.from.other(), &held.bytes));
        sent.map_err(|err| format!("{err:#}"))?;
        Ok(match times {
            0 => "is dropped".to_owned(),
            1 => "goes on".to_owned(),
            _ => "goes on twice".to_owned(),
        })
    }

    /// Everything that waits goes on.
    fn let_go(&mut self) -> Result<()> {
        for held in std::mem::take(&mut self.waiting) {
            self.wire.send(held.from.other(), &held.bytes)?;
            self.tell(News::Done(held.number, "goes on".to_owned()));
        }
        Ok(())
    }

    /// The orders that have come; that to give up where the client has gone.
    fn orders(&mut self) -> Result<Vec<Order>> {
        let mut orders = Vec::new();
        let gone = Order { act: Act::Quit, is_patient: false };
        loop {
            let mut part = [0; 4096];
            match recv(self.stream.as_raw_fd(), &mut part, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return Ok(vec![gone]),
                Ok(bytes) => self.news.extend(&part[..bytes]),
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                Err(_) => return Ok(vec![gone]),
            }
        }
        while let Some(end) = self.news.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.news.drain(..=end).collect();
            orders.push(serde_json::from_slice(&line).context("an order")?);
        }
        Ok(orders)
    }
}

/// What is said of a probe that nobody waits for any more.
fn given_up(nonce: crate::packet::Nonce) -> ProbeOutcome {
    ProbeOutcome {
        nonce,
        word: Word::Other,
        detail: Some("given up while its frames waited".to_owned()),
        local: None,
        host: None,
        remote: None,
        micros: 0,
    }
}
