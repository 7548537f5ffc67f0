//! The sidecar: the second container of every pod, which sends probes and tells what came of them.
//!
//! Blocking system calls and plain threads, no runtime. It decides nothing, keeps nothing between two requests but
//! the server of a load, and ends when its standard input does.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use kernel::uninterrupted;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect, getsockname,
    getsockopt, recv, send, setsockopt, socket,
    sockopt::{ReuseAddr, SocketError},
};

use super::load::Server;
use super::{APART, Answer as Line, Came, Order, ProbeOutcome, ProbeRequest, Protocol, Task, Word};
use crate::bytes::checksum;
use crate::kubia::{NONCE_HEADER, REMOTE_HEADER};
use crate::packet::{MARK, Nonce};

/// When no probe has ended for this long, one more is started beside those that wait.
const STALL: Duration = Duration::from_millis(20);
/// No more probes than this are under way at once.
const CROWD: usize = 64;
/// An answer longer than this is not kubia's.
const LONGEST_ANSWER: u64 = 64 * 1024;

/// Serves requests, one JSON line each, until `requests` ends.
pub fn serve(requests: impl Read, mut answers: impl Write) -> io::Result<()> {
    let mut server = Server::default();
    for line in io::BufReader::new(requests).lines() {
        let order: Order = serde_json::from_str(&line?)?;
        let came = match order.task {
            Task::Probes(probes) => Came::Outcomes(send_all(probes)),
            Task::Load(order) => Came::Load(server.follow(&order)),
        };
        let mut line = serde_json::to_vec(&Line { number: order.number, came })?;
        line.push(b'\n');
        answers.write_all(&line)?;
        answers.flush()?;
    }
    Ok(())
}

/// Sends the probes one after the other, and more beside them while some wait for an answer that does not come.
fn send_all(probes: Vec<ProbeRequest>) -> Vec<ProbeOutcome> {
    let mut outcomes: Vec<Option<ProbeOutcome>> = probes.iter().map(|_| None).collect();
    let queue = Mutex::new(probes.into_iter().enumerate().collect::<VecDeque<_>>());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let has_more = || !queue.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
    thread::scope(|scope| {
        let (done, results) = mpsc::channel();
        let start = || {
            let done = done.clone();
            scope.spawn(move || {
                while let Some((i, probe)) = next() {
                    // The receiver lives until every probe is done.
                    let _ = done.send((i, run(&probe)));
                }
            });
        };
        let mut workers = 0;
        let mut missing = outcomes.len();
        while missing > 0 {
            if workers == 0 {
                start();
                workers = 1;
            }
            match results.recv_timeout(STALL) {
                Ok((i, outcome)) => {
                    outcomes[i] = Some(outcome);
                    missing -= 1;
                }
                Err(RecvTimeoutError::Timeout) if workers < CROWD && has_more() => {
                    start();
                    workers += 1;
                }
                Err(_) => {}
            }
        }
    });
    outcomes.into_iter().flatten().collect()
}

/// Sends one probe and waits for its end.
fn run(probe: &ProbeRequest) -> ProbeOutcome {
    let began = Instant::now();
    let mut seen = Seen::default();
    let deadline = began + Duration::from_millis(probe.timeout_ms);
    let ended = match probe.protocol {
        Protocol::Tcp => tcp(probe, deadline, &mut seen),
        Protocol::Udp => udp(probe, deadline, &mut seen),
        Protocol::Icmp => icmp(probe, deadline, &mut seen),
    };
    let (word, detail) = match ended {
        Ok(()) => (Word::Ok, None),
        Err(e) => classify(&e),
    };
    ProbeOutcome {
        nonce: probe.nonce,
        word,
        detail,
        local: seen.local,
        host: seen.host,
        remote: seen.remote,
        micros: began.elapsed().as_micros() as u64,
    }
}

/// What a probe has learned, whether or not it comes to a good end.
#[derive(Default)]
struct Seen {
    local: Option<SocketAddr>,
    host: Option<String>,
    remote: Option<IpAddr>,
}

fn classify(e: &io::Error) -> (Word, Option<String>) {
    use io::ErrorKind::{ConnectionRefused, TimedOut, WouldBlock};
    match e.kind() {
        ConnectionRefused => (Word::Refused, None),
        TimedOut | WouldBlock => (Word::Timeout, None),
        _ => {
            let words = match e.raw_os_error() {
                Some(errno) => Errno::from_raw(errno).desc().to_lowercase(),
                None => e.to_string(),
            };
            (Word::Other, Some(words))
        }
    }
}

fn unusable(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// The time that is left; a time-out error when there is none.
fn left(deadline: Instant) -> io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
        some => Ok(some),
    }
}

pub(super) fn wait(fd: &impl AsFd, flags: PollFlags, deadline: Instant) -> io::Result<()> {
    loop {
        let timeout = PollTimeout::try_from(left(deadline)?).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(fd.as_fd(), flags)], timeout) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(e) => return Err(e.into()),
        }
    }
}

fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn local_address(fd: &impl AsRawFd) -> Option<SocketAddr> {
    let name: SockaddrStorage = getsockname(fd.as_raw_fd()).ok()?;
    let v4 = name.as_sockaddr_in().map(|a| SocketAddr::new(a.ip().into(), a.port()));
    v4.or_else(|| name.as_sockaddr_in6().map(|a| SocketAddr::new(a.ip().into(), a.port())))
}

/// The local address must be known also when the connection never comes about, so the connect is done by hand.
fn connected(probe: &ProbeRequest, deadline: Instant, seen: &mut Seen) -> io::Result<TcpStream> {
    let target = probe.target;
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd: OwnedFd = socket(family(target.ip()), SockType::Stream, flags, None)?;
    if let Some(port) = probe.source_port {
        bind_from(&fd, target, port)?;
    }
    match connect(fd.as_raw_fd(), &SockaddrStorage::from(target)) {
        Ok(()) => {}
        Err(Errno::EINPROGRESS) => {
            seen.local = local_address(&fd);
            wait(&fd, PollFlags::POLLOUT, deadline)?;
            match getsockopt(&fd, SocketError)? {
                0 => {}
                errno => return Err(io::Error::from_raw_os_error(errno)),
            }
        }
        Err(e) => return Err(e.into()),
    }
    seen.local = local_address(&fd).or(seen.local);
    let stream = TcpStream::from(fd);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Binds to this port, or to the next of [`APART`] that is free.
fn bind_from(fd: &OwnedFd, target: SocketAddr, first: u16) -> io::Result<()> {
    // One that an earlier connection of this process has left in TIME-WAIT may be taken.
    setsockopt(fd, ReuseAddr, &true)?;
    for port in (first..APART.end).chain(APART) {
        match bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(unspecified(target), port))) {
            Err(Errno::EADDRINUSE) => {}
            Err(errno) => return Err(errno.into()),
            Ok(()) => return Ok(()),
        }
    }
    Err(Errno::EADDRINUSE.into())
}

/// The address of no interface, of the target's family.
pub(super) fn unspecified(target: SocketAddr) -> IpAddr {
    if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

fn tcp(probe: &ProbeRequest, deadline: Instant, seen: &mut Seen) -> io::Result<()> {
    let mut stream = connected(probe, deadline, seen)?;
    let request = format!(
        "GET /{} HTTP/1.1\r\nHost: {}\r\nUser-Agent: podlab\r\nConnection: close\r\n{}\r\n",
        probe.nonce.marked(),
        probe.target,
        padding(probe.padding)
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::with_capacity(512);
    let mut limited = (&stream).take(LONGEST_ANSWER);
    loop {
        limited.get_ref().set_read_timeout(Some(left(deadline)?))?;
        let mut part = [0; 2048];
        match uninterrupted(|| limited.read(&mut part))? {
            0 => break,
            n => answer.extend_from_slice(&part[..n]),
        }
    }
    let answer = http_answer(&answer, probe.nonce)?;
    (seen.host, seen.remote) = (Some(answer.host), answer.remote);
    Ok(())
}

/// What kubia's answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Who answers.
    pub(crate) host: String,
    /// Whom the server saw.
    pub(crate) remote: Option<IpAddr>,
}

/// Reads kubia's HTTP answer to the probe with this nonce.
pub(crate) fn http_answer(bytes: &[u8], nonce: Nonce) -> io::Result<Answer> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| unusable("no HTTP answer"))?;
    let (status, fields) = head.split_once("\r\n").unwrap_or((head, ""));
    if !status.starts_with("HTTP/1.1 200 ") {
        return Err(unusable(format!("answer {status:?}")));
    }
    let field = |name: &str| {
        let is = |line: &&str| line.split_once(':').is_some_and(|(n, _)| n.eq_ignore_ascii_case(name));
        fields.lines().find(is).and_then(|line| line.split_once(':')).map(|(_, value)| value.trim())
    };
    let host = greeting(body)?;
    own_nonce(field(NONCE_HEADER).unwrap_or_default().as_bytes(), nonce)?;
    Ok(Answer { host, remote: field(REMOTE_HEADER).and_then(|v| v.parse().ok()) })
}

/// A header field of so many bytes; none when they are too few for one.
fn padding(bytes: usize) -> String {
    const FIELD: &str = "Padding: ";
    let value = bytes.saturating_sub(FIELD.len() + 2);
    if value == 0 { String::new() } else { format!("{FIELD}{}\r\n", "x".repeat(value)) }
}

/// Reads `You've hit HOST`.
fn greeting(text: &str) -> io::Result<String> {
    let host = text.lines().next().and_then(|line| line.strip_prefix("You've hit "));
    host.map(str::to_owned).ok_or_else(|| unusable("the answer is not kubia's"))
}

fn own_nonce(bytes: &[u8], wanted: Nonce) -> io::Result<()> {
    match Nonce::find(bytes) {
        Some(nonce) if nonce == wanted => Ok(()),
        _ => Err(unusable("the answer is to another probe")),
    }
}

fn udp(probe: &ProbeRequest, deadline: Instant, seen: &mut Seen) -> io::Result<()> {
    let socket = UdpSocket::bind((unspecified(probe.target), 0))?;
    socket.connect(probe.target)?;
    seen.local = socket.local_addr().ok();
    socket.send(probe.nonce.marked().as_bytes())?;
    let mut answer = [0; 2048];
    loop {
        socket.set_read_timeout(Some(left(deadline)?))?;
        let n = uninterrupted(|| socket.recv(&mut answer))?;
        if Nonce::find(&answer[..n]) == Some(probe.nonce) {
            let text = String::from_utf8_lossy(&answer[..n]);
            seen.remote = text.lines().nth(2).and_then(|line| line.parse().ok());
            seen.host = Some(greeting(&text)?);
            return Ok(());
        }
    }
}

fn icmp(probe: &ProbeRequest, deadline: Instant, seen: &mut Seen) -> io::Result<()> {
    let ip = probe.target.ip();
    let (protocol, ask, answer) =
        if ip.is_ipv4() { (SockProtocol::Icmp, 8, 0) } else { (SockProtocol::IcmpV6, 128, 129) };
    let fd = socket(family(ip), SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    connect(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(ip, 0)))?;
    seen.local = local_address(&fd).map(|a| SocketAddr::new(a.ip(), 0));
    let message = echo(ask, probe.nonce, probe.padding, ip.is_ipv4());
    send(fd.as_raw_fd(), &message, MsgFlags::empty())?;
    let mut buffer = [0; 2048];
    loop {
        wait(&fd, PollFlags::POLLIN, deadline)?;
        let n = recv(fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT)?;
        // A raw IPv4 socket gives the IP header too, an IPv6 one does not (raw(7), ipv6(7)).
        let header = if ip.is_ipv4() { usize::from(buffer[0] & 0x0f) * 4 } else { 0 };
        let inner = buffer[..n].get(header..).unwrap_or_default();
        if inner.first() == Some(&answer) && Nonce::find(inner) == Some(probe.nonce) {
            return Ok(());
        }
    }
}

/// An echo request whose identifier is taken from the nonce. The kernel fills in ICMPv6's checksum itself.
fn echo(kind: u8, nonce: Nonce, padding: usize, with_checksum: bool) -> Vec<u8> {
    let id = (nonce.0 as u16).to_be_bytes();
    let mut message = vec![kind, 0, 0, 0, id[0], id[1], 0, 1];
    message.extend(nonce.marked().bytes());
    message.resize(message.len() + padding, b'x');
    if with_checksum {
        let sum = checksum(&message).to_be_bytes();
        message[2..4].copy_from_slice(&sum);
    }
    message
}

const _: () = assert!(MARK.len() == 7, "an echo's data, mark and digits, is 39 bytes long");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn echo_is_a_literal_message_with_a_right_checksum() {
        let padded = echo(8, Nonce(0x1234), 1000, true);
        assert_eq!((padded.len(), checksum(&padded)), (8 + 39 + 1000, 0));
        let message = echo(8, Nonce(0x1234), 0, true);
        assert_eq!(message[..2], [8, 0]);
        assert_eq!(message[4..8], [0x12, 0x34, 0, 1]);
        assert_eq!(&message[8..], b"podlab/00000000000000000000000000001234");
        assert_eq!(checksum(&message), 0, "a message with its checksum sums up to nothing");
    }

    #[test]
    fn padding_is_a_field_of_so_many_bytes_or_none() {
        assert_eq!([padding(0), padding(11)], ["", ""]);
        assert_eq!(padding(14), "Padding: xxx\r\n");
        assert_eq!(padding(4000).len(), 4000);
    }

    #[test]
    fn errors_become_the_four_words() {
        let os = |errno: Errno| classify(&io::Error::from_raw_os_error(errno as i32));
        assert_eq!(os(Errno::ECONNREFUSED), (Word::Refused, None));
        assert_eq!(os(Errno::ETIMEDOUT), (Word::Timeout, None));
        assert_eq!(os(Errno::EAGAIN), (Word::Timeout, None));
        assert_eq!(os(Errno::ENETUNREACH), (Word::Other, Some("network is unreachable".into())));
        assert_eq!(classify(&unusable("no HTTP answer")), (Word::Other, Some("no HTTP answer".into())));
    }

    #[test]
    fn request_that_is_no_json_ends_the_sidecar() {
        assert!(serve(&b"probe everything\n"[..], io::sink()).is_err());
        assert!(serve(&b""[..], io::sink()).is_ok());
    }
}
