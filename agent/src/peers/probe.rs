//! Asks peers, many at a time and each within a limit.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::wire::{self, NONCE, Said};
use super::{Answer, Ask, Outcome};

/// Bytes of IP and UDP headers around a datagram, of IPv4 (without options) and of IPv6.
const HEADERS: [usize; 2] = [20 + 8, 40 + 8];
/// How often a datagram is sent: one may be lost.
const TRIES: u32 = 3;

/// How much is asked at a time, and how long is waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// So many questions are under way at most.
    pub at_once: usize,
    /// How long one by TCP may take, and likewise the datagrams of one length.
    pub patience: Duration,
    /// Where the peers answer.
    pub port: u16,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { at_once: 32, patience: Duration::from_secs(3), port: super::PORT }
    }
}

/// Asks all, from the calling thread's namespace; the answers are in the order of the questions. Within a tokio runtime.
pub async fn probe(asks: Vec<Ask>, limits: Limits) -> Vec<Answer> {
    let room = Arc::new(Semaphore::new(limits.at_once.max(1)));
    let mut running = JoinSet::new();
    for (number, ask) in asks.into_iter().enumerate() {
        let room = room.clone();
        running.spawn(async move {
            let _place = room.acquire().await;
            let outcome = outcome(&ask, limits).await;
            (number, Answer { ask, outcome })
        });
    }
    let mut answers = Vec::with_capacity(running.len());
    while let Some(done) = running.join_next().await {
        match done {
            Ok(done) => answers.push(done),
            // Nobody ends them, so one of them panicked.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    answers.sort_by_key(|it| it.0);
    answers.into_iter().map(|it| it.1).collect()
}

async fn outcome(ask: &Ask, limits: Limits) -> Outcome {
    match timeout(limits.patience, by_tcp(ask, limits.port)).await {
        Err(_) => return Outcome::NoAnswer(format!("nothing within {:?} by TCP", limits.patience)),
        Ok(Err(error)) => return Outcome::NoAnswer(format!("by TCP: {error}")),
        Ok(Ok(said)) => match judged(ask, &said) {
            Outcome::Good => {}
            other => return other,
        },
    }
    let full = (ask.mtu as usize).saturating_sub(HEADERS[usize::from(ask.to.is_ipv6())]);
    match by_udp(ask, limits, full).await {
        Ok(Some(said)) => judged(ask, &said),
        Err(error) if error.raw_os_error() != Some(nix::libc::EMSGSIZE) => {
            Outcome::NoAnswer(format!("by UDP: {error}"))
        }
        // Too long for this node's own link (EMSGSIZE) or for one behind; or is it that no datagram arrives?
        _ => match by_udp(ask, limits, 0).await {
            Ok(Some(_)) => Outcome::TooLong(ask.mtu),
            Ok(None) => Outcome::NoAnswer(format!("nothing within {:?} by UDP, by TCP yes", limits.patience)),
            Err(error) => Outcome::NoAnswer(format!("by UDP: {error}")),
        },
    }
}

fn judged(ask: &Ask, said: &Said) -> Outcome {
    if said.node != ask.node {
        return Outcome::Other(said.node.clone());
    }
    if said.seen != ask.from {
        return Outcome::Nat(said.seen);
    }
    Outcome::Good
}

async fn by_tcp(ask: &Ask, port: u16) -> io::Result<Said> {
    let socket = if ask.to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(SocketAddr::new(ask.from, 0))?;
    let stream = socket.connect(SocketAddr::new(ask.to, port)).await?;
    let mut text = Vec::new();
    stream.take(wire::LONGEST as u64).read_to_end(&mut text).await?;
    wire::read_line(&text).ok_or_else(|| io::Error::other("what answers is not podnetd"))
}

/// Sends a question of `len` bytes until it is answered, several times in all.
async fn by_udp(ask: &Ask, limits: Limits, len: usize) -> io::Result<Option<Said>> {
    let socket = UdpSocket::bind(SocketAddr::new(ask.from, 0)).await?;
    kernel::path::send_whole(&socket, ask.to.is_ipv6()).map_err(io::Error::other)?;
    socket.connect(SocketAddr::new(ask.to, limits.port)).await?;
    let nonce = nonce(&socket, ask.to);
    let question = wire::question(nonce, len);
    let mut buffer = [0; wire::LONGEST];
    for _ in 0..TRIES {
        let until = Instant::now() + limits.patience / TRIES;
        socket.send(&question).await?;
        while let Ok(received) = timeout_at(until, socket.recv(&mut buffer)).await {
            if let Some(said) = wire::read_answer(&buffer[..received?], nonce) {
                return Ok(Some(said));
            }
        }
    }
    Ok(None)
}

/// Tells this question's answers from those to an earlier one of the same port: the time and the ends will do, as
/// nothing secret is protected by it.
fn nonce(socket: &UdpSocket, to: IpAddr) -> [u8; NONCE] {
    use std::hash::{BuildHasher, RandomState};
    let from = socket.local_addr().ok();
    RandomState::new().hash_one((from, to)).to_ne_bytes()
}
