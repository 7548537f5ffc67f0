//! Probes: what a pod's sidecar is asked to send, and what came of it; and load, of which there is as much as possible.
//!
//! The types and the caller's end. What a sidecar does with a request is in `sidecar` and `load`. Nothing is judged here: an
//! outcome says what the client of a connection saw, which is not what the wire carried.

pub mod load;
mod sidecar;

use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

use crate::packet::Nonce;
pub(crate) use sidecar::http_answer;
pub use sidecar::serve as serve_sidecar;

/// How long an answer to a batch may take beyond the time-outs of its probes.
const GRACE: Duration = Duration::from_secs(10);

/// What a probe is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// An HTTP request over a TCP connection of its own.
    Tcp,
    /// A datagram that kubia answers.
    Udp,
    /// An ICMP echo.
    Icmp,
}

impl Protocol {
    /// Its number in packets of a family (IANA, "Assigned Internet Protocol Numbers").
    pub fn number(self, family: kernel::Family) -> u8 {
        match (self, family) {
            (Protocol::Tcp, _) => 6,
            (Protocol::Udp, _) => 17,
            (Protocol::Icmp, kernel::Family::V4) => 1,
            (Protocol::Icmp, kernel::Family::V6) => 58,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Icmp => "icmp",
        })
    }
}

/// Source ports of probes whose source is to be kept: below those of net.ipv4.ip_local_port_range, from which the kernel chooses. A
/// connection that was translated is known for a while, and one that comes with its ports and the address it was led to is given
/// another source port: probes to services must not have ports in common with these.
pub(crate) const APART: Range<u16> = 20_000..32_000;

/// The next port of [`APART`]: two probes at once have none in common, whichever pods they leave. Where a node masquerades, two of
/// its pods that connect from one port to one server at the same moment would be given one port of the node, and the kernel
/// drops the packet of the second (nf_conntrack_confirm, "insert_failed").
pub(crate) fn port_apart() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    APART.start + NEXT.fetch_add(1, Ordering::Relaxed) % (APART.end - APART.start)
}

/// One probe to send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeRequest {
    /// What the probe's payload carries.
    pub nonce: Nonce,
    /// What it is made of.
    pub protocol: Protocol,
    /// Where to; the port means nothing to ICMP.
    pub target: SocketAddr,
    /// How long to wait for the answer, in milliseconds.
    pub timeout_ms: u64,
    /// Bytes that the request carries besides, which nobody reads.
    #[serde(default)]
    pub padding: usize,
    /// By TCP from this port or the next one that is free below those that the kernel gives by itself.
    #[serde(default)]
    pub source_port: Option<u16>,
}

/// How a probe ended, in the words of Kubernetes' agnhost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Word {
    /// The right kind of answer came.
    Ok,
    /// No answer came in time.
    Timeout,
    /// The target refused the connection, or nobody listens on its UDP port.
    Refused,
    /// Anything else: no route, a broken answer.
    Other,
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Word::Ok => "OK",
            Word::Timeout => "TIMEOUT",
            Word::Refused => "REFUSED",
            Word::Other => "OTHER",
        })
    }
}

/// What the client of a probe saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeOutcome {
    /// Which probe.
    pub nonce: Nonce,
    /// How it ended.
    pub word: Word,
    /// The kernel's words, or what was wrong with the answer; None when all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The address and port that the client's socket had; None when it got none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<SocketAddr>,
    /// The host that says it answered (`You've hit HOST`); None for ICMP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The client's address as the answer reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<IpAddr>,
    /// From the first system call to the end, in microseconds.
    pub micros: u64,
}

impl ProbeOutcome {
    /// `OK`, or the word with its detail: `OTHER (network is unreachable)`.
    pub fn words(&self) -> String {
        match &self.detail {
            Some(detail) => format!("{} ({detail})", self.word),
            None => self.word.to_string(),
        }
    }
}

/// What goes to a sidecar in one line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    number: u64,
    task: Task,
}

/// What a sidecar is to do.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Task {
    Probes(Vec<ProbeRequest>),
    Load(load::Order),
}

/// A sidecar's line in return.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    number: u64,
    came: Came,
}

/// What came of a task.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Came {
    Outcomes(Vec<ProbeOutcome>),
    Load(Result<load::Done, String>),
}

/// The caller's end of a running sidecar: its standard input and output.
#[derive(Debug)]
pub struct Sidecar {
    requests: File,
    answers: File,
    unread: Vec<u8>,
    number: u64,
}

impl Sidecar {
    /// Takes the pipes of a process that runs [`serve_sidecar`].
    pub fn new(stdin: impl Into<OwnedFd>, stdout: impl Into<OwnedFd>) -> Sidecar {
        Sidecar {
            requests: stdin.into().into(),
            answers: stdout.into().into(),
            unread: Vec::new(),
            number: 0,
        }
    }

    /// Sends the probes and waits for all outcomes, in the order of the probes. An error means that the sidecar is
    /// gone or stuck, not that a probe came to nothing.
    pub fn probe(&mut self, probes: Vec<ProbeRequest>) -> Result<Vec<ProbeOutcome>> {
        let wanted = probes.len();
        let patience: u64 = probes.iter().map(|p| p.timeout_ms).sum();
        match self.ask(Task::Probes(probes), Duration::from_millis(patience))? {
            Came::Outcomes(outcomes) if outcomes.len() == wanted => Ok(outcomes),
            Came::Outcomes(outcomes) => bail!("the sidecar answered {} of {wanted} probes", outcomes.len()),
            Came::Load(_) => bail!("the sidecar answered a probe with a load"),
        }
    }

    /// Has it do its part of a load. An error is also what it could not do, in its words.
    pub fn load(&mut self, order: load::Order) -> Result<load::Done> {
        let patience = match order {
            load::Order::Run { millis, .. } => Duration::from_millis(millis),
            load::Order::Open { .. } | load::Order::Close => Duration::ZERO,
        };
        match self.ask(Task::Load(order), patience)? {
            Came::Load(done) => done.map_err(anyhow::Error::msg),
            Came::Outcomes(_) => bail!("the sidecar answered a load with probes"),
        }
    }

    fn ask(&mut self, task: Task, patience: Duration) -> Result<Came> {
        let deadline = Instant::now() + patience + GRACE;
        self.number += 1;
        let mut line = serde_json::to_vec(&Order { number: self.number, task })?;
        line.push(b'\n');
        self.requests.write_all(&line).context("ask the sidecar")?;
        loop {
            let line = self.line(deadline)?;
            let answer: Answer = serde_json::from_slice(&line).context("read the sidecar's answer")?;
            // An earlier one is the late answer to what was given up.
            if answer.number >= self.number {
                return Ok(answer.came);
            }
        }
    }

    fn line(&mut self, deadline: Instant) -> Result<Vec<u8>> {
        let mut searched = 0;
        loop {
            if let Some(end) = self.unread[searched..].iter().position(|&b| b == b'\n') {
                let rest = self.unread.split_off(searched + end + 1);
                return Ok(std::mem::replace(&mut self.unread, rest));
            }
            searched = self.unread.len();
            wait_readable(&self.answers, deadline).context("wait for the sidecar")?;
            let mut part = [0; 16 * 1024];
            let n = self.answers.read(&mut part).context("read from the sidecar")?;
            if n == 0 {
                bail!("the sidecar is gone");
            }
            self.unread.extend_from_slice(&part[..n]);
        }
    }
}

/// Waits until `file` can be read or has ended.
fn wait_readable(file: &File, deadline: Instant) -> Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(file.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) if Instant::now() >= deadline => bail!("no answer in time"),
            Ok(0) | Err(nix::errno::Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(e) => return Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::pipe;

    use super::*;

    fn request(nonce: u128) -> ProbeRequest {
        ProbeRequest {
            nonce: Nonce(nonce),
            protocol: Protocol::Tcp,
            target: "10.244.2.2:8080".parse().unwrap(),
            timeout_ms: 1000,
            padding: 0,
            source_port: None,
        }
    }

    fn outcome(nonce: u128) -> ProbeOutcome {
        ProbeOutcome {
            nonce: Nonce(nonce),
            word: Word::Ok,
            detail: None,
            local: None,
            host: None,
            remote: None,
            micros: 1,
        }
    }

    #[test]
    fn late_answer_of_an_earlier_batch_is_passed_over() {
        let (stdin, requests) = pipe().unwrap();
        let (answers, mut stdout) = pipe().unwrap();
        let mut sidecar = Sidecar::new(requests, answers);
        sidecar.number = 6;
        for (number, nonce) in [(6, 1), (7, 2)] {
            let came = Came::Outcomes(vec![outcome(nonce)]);
            serde_json::to_writer(&mut stdout, &Answer { number, came }).unwrap();
            stdout.write_all(b"\n").unwrap();
        }
        assert_eq!(sidecar.probe(vec![request(2)]).unwrap(), [outcome(2)]);
        drop(stdin);
    }

    #[test]
    fn sidecar_that_ends_or_answers_in_part_is_an_error() {
        let (_stdin, requests) = pipe().unwrap();
        let (answers, mut stdout) = pipe().unwrap();
        let mut sidecar = Sidecar::new(requests, answers);
        let came = Came::Outcomes(Vec::new());
        serde_json::to_writer(&mut stdout, &Answer { number: 1, came }).unwrap();
        stdout.write_all(b"\n").unwrap();
        let e = sidecar.probe(vec![request(1)]).unwrap_err();
        assert_eq!(e.to_string(), "the sidecar answered 0 of 1 probes");
        drop(stdout);
        assert_eq!(sidecar.probe(vec![request(1)]).unwrap_err().to_string(), "the sidecar is gone");
    }

    #[test]
    fn outcome_is_shown_with_its_detail() {
        let mut o = outcome(1);
        assert_eq!(o.words(), "OK");
        (o.word, o.detail) = (Word::Other, Some("network is unreachable".into()));
        assert_eq!(o.words(), "OTHER (network is unreachable)");
        let json = serde_json::to_string(&o).unwrap();
        assert!(json.contains(r#""word":"OTHER""#) && !json.contains("local"), "{json}");
        assert_eq!(serde_json::from_str::<ProbeOutcome>(&json).unwrap(), o);
    }
}
