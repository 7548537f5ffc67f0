//! Load: what `podlab bench` has sidecars do to each other, as fast as they can for a time.
//!
//! One sidecar opens a server, another one (or the same one, over loopback) runs against it, and the server is closed and
//! tells what arrived. Standard sockets and blocking calls; nothing is judged here.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use kernel::uninterrupted;
use nix::poll::PollFlags;
use serde::{Deserialize, Serialize};

use super::sidecar::{unspecified, wait};

/// Bytes that a stream is written in.
const CHUNK: usize = 128 * 1024;
/// Bytes of a request, and of the answer to it.
const MESSAGE: usize = 64;
/// Bytes of a datagram: as many as fit into a frame in every mode.
pub const DATAGRAM: usize = 1200;
/// How long a server waits before it looks whether it is to end.
const LOOK: Duration = Duration::from_millis(20);
/// How long a client waits for anything.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Bytes over one TCP connection, one way.
    #[serde(rename = "tcp-stream")]
    Stream,
    /// Requests of 64 bytes and answers as long, one after the other, over one TCP connection.
    #[serde(rename = "tcp-rr")]
    Requests,
    /// TCP connections, one after the other, with one request and one answer in each.
    #[serde(rename = "tcp-crr")]
    Connections,
    /// Datagrams of [`DATAGRAM`] bytes, one way.
    #[serde(rename = "udp")]
    Datagrams,
}

impl Kind {
    /// All of them, in the order of the report.
    pub const ALL: [Kind; 4] = [Kind::Stream, Kind::Requests, Kind::Connections, Kind::Datagrams];
}

/// What a sidecar is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Order {
    /// Be a server, on a port that is free.
    Open {
        /// Of what.
        kind: Kind,
    },
    /// Be a client for so long.
    Run {
        /// Of what.
        kind: Kind,
        /// The server.
        target: SocketAddr,
        /// The time, in milliseconds.
        millis: u64,
    },
    /// End the server.
    Close,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Done {
    /// The server's port.
    Opened {
        /// TCP or UDP, as the kind wants it.
        port: u16,
    },
    /// What the client sent.
    Ran(Count),
    /// What the server received.
    Closed(Count),
}

/// What went by on one side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Requests, connections or datagrams; of a stream 1.
    pub items: u64,
    /// Bytes of all of them, without those of answers.
    pub bytes: u64,
    /// How long it took, in microseconds; 0 on the server's side.
    pub micros: u64,
}

impl Count {
    fn add(&mut self, bytes: usize) {
        self.items += 1;
        self.bytes += bytes as u64;
    }
}

/// The server of a sidecar, if it has one.
#[derive(Default)]
pub(super) struct Server(Option<Running>);

struct Running {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<Count>>,
}

impl Server {
    /// Does what it is told.
    ///
    /// # Errors
    /// What did not work, in words.
    pub(super) fn follow(&mut self, order: &Order) -> Result<Done, String> {
        let done = match order {
            Order::Open { kind } => self.open(*kind).map(|port| Done::Opened { port }),
            Order::Run { kind, target, millis } => {
                run(*kind, *target, Duration::from_millis(*millis)).map(Done::Ran)
            }
            Order::Close => self.close().map(Done::Closed),
        };
        done.map_err(|err| format!("{order:?}: {err}"))
    }

    fn open(&mut self, kind: Kind) -> io::Result<u16> {
        // One that was forgotten.
        let _ = self.close();
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let (port, thread) = match kind {
            Kind::Datagrams => {
                let socket = bind(UdpSocket::bind)?;
                (socket.local_addr()?.port(), thread::spawn(move || datagrams(&socket, &told)))
            }
            Kind::Stream | Kind::Requests | Kind::Connections => {
                let listener = bind(TcpListener::bind)?;
                listener.set_nonblocking(true)?;
                (listener.local_addr()?.port(), thread::spawn(move || connections(kind, &listener, &told)))
            }
        };
        self.0 = Some(Running { stop, thread });
        Ok(port)
    }

    fn close(&mut self) -> io::Result<Count> {
        let Some(running) = self.0.take() else { return Err(io::Error::other("no server is open")) };
        running.stop.store(true, Ordering::Relaxed);
        running.thread.join().unwrap_or_else(|_| Err(io::Error::other("the server panicked")))
    }
}

/// A socket on all addresses, of both families where the kernel has both.
fn bind<T>(open: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    open((Ipv6Addr::UNSPECIFIED, 0).into()).or_else(|_| open((Ipv4Addr::UNSPECIFIED, 0).into()))
}

/// Whether an error means that nothing has come yet.
fn is_silence(err: &io::Error) -> bool {
    matches!(err.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn connections(kind: Kind, listener: &TcpListener, stop: &AtomicBool) -> io::Result<Count> {
    let mut count = Count::default();
    while !stop.load(Ordering::Relaxed) {
        match uninterrupted(|| listener.accept()) {
            Ok((stream, _)) => match kind {
                Kind::Stream => stream_in(stream, stop, &mut count)?,
                _ => answers(stream, kind, stop, &mut count)?,
            },
            Err(err) if is_silence(&err) => match wait(listener, PollFlags::POLLIN, Instant::now() + LOOK) {
                Err(err) if !is_silence(&err) => return Err(err),
                _ => {}
            },
            Err(err) => return Err(err),
        }
    }
    Ok(count)
}

/// Reads into the whole buffer or to the end of the stream; the number of bytes. None when the server is to end first.
fn fill(stream: &mut TcpStream, buffer: &mut [u8], stop: &AtomicBool) -> io::Result<Option<usize>> {
    let mut filled = 0;
    while filled < buffer.len() {
        match uninterrupted(|| stream.read(&mut buffer[filled..])) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(err) if is_silence(&err) && !stop.load(Ordering::Relaxed) => {}
            Err(err) if is_silence(&err) => return Ok(None),
            Err(err) => return Err(err),
        }
    }
    Ok(Some(filled))
}

/// Takes a stream, and tells its client how long it was.
fn stream_in(mut stream: TcpStream, stop: &AtomicBool, count: &mut Count) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(LOOK))?;
    let mut buffer = vec![0; CHUNK];
    count.items += 1;
    let before = count.bytes;
    while let Some(some @ 1..) = fill(&mut stream, &mut buffer, stop)? {
        count.bytes += some as u64;
    }
    // A client that has gone does not ask.
    let _ = stream.write_all(&(count.bytes - before).to_be_bytes());
    Ok(())
}

/// Answers requests until the client ends; where every connection has one request, the server ends first, so that the
/// client's port is free again.
fn answers(mut stream: TcpStream, kind: Kind, stop: &AtomicBool, count: &mut Count) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(LOOK))?;
    stream.set_nodelay(true)?;
    let mut message = [0; MESSAGE];
    while let Some(MESSAGE) = fill(&mut stream, &mut message, stop)? {
        stream.write_all(&message)?;
        count.add(MESSAGE);
        if kind == Kind::Connections {
            break;
        }
    }
    Ok(())
}

fn datagrams(socket: &UdpSocket, stop: &AtomicBool) -> io::Result<Count> {
    socket.set_read_timeout(Some(LOOK))?;
    let mut buffer = [0; DATAGRAM + 1];
    let mut count = Count::default();
    loop {
        match uninterrupted(|| socket.recv(&mut buffer)) {
            Ok(bytes) => count.add(bytes),
            // What was sent before the end was asked for is in the socket's queue.
            Err(err) if is_silence(&err) && stop.load(Ordering::Relaxed) => return Ok(count),
            Err(err) if is_silence(&err) => {}
            Err(err) => return Err(err),
        }
    }
}

fn dial(target: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&target, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn ask(stream: &mut TcpStream, count: &mut Count) -> io::Result<()> {
    let mut message = [b'x'; MESSAGE];
    stream.write_all(&message)?;
    stream.read_exact(&mut message)?;
    count.add(MESSAGE);
    Ok(())
}

fn run(kind: Kind, target: SocketAddr, time: Duration) -> io::Result<Count> {
    let mut count = Count::default();
    let mut one = match kind {
        Kind::Stream | Kind::Requests => Some(dial(target)?),
        Kind::Connections | Kind::Datagrams => None,
    };
    let began = Instant::now();
    let is_over = || began.elapsed() >= time;
    match (kind, &mut one) {
        (Kind::Stream, Some(stream)) => {
            let chunk = vec![b'x'; CHUNK];
            count.items = 1;
            while !is_over() {
                stream.write_all(&chunk)?;
                count.bytes += CHUNK as u64;
            }
            stream.shutdown(Shutdown::Write)?;
            // The time ends when all of it has arrived.
            let mut told = [0; 8];
            stream.read_exact(&mut told)?;
            if u64::from_be_bytes(told) != count.bytes {
                return Err(io::Error::other(format!(
                    "{} bytes sent, {} received",
                    count.bytes,
                    u64::from_be_bytes(told)
                )));
            }
        }
        (Kind::Requests, Some(stream)) => {
            while !is_over() {
                ask(stream, &mut count)?;
            }
        }
        (Kind::Datagrams, _) => {
            let socket = UdpSocket::bind((unspecified(target), 0))?;
            socket.set_write_timeout(Some(PATIENCE))?;
            socket.connect(target)?;
            while !is_over() {
                match uninterrupted(|| socket.send(&[b'x'; DATAGRAM])) {
                    Ok(bytes) => count.add(bytes),
                    // A queue on the way is full.
                    Err(err) if err.raw_os_error() == Some(nix::libc::ENOBUFS) => {}
                    Err(err) => return Err(err),
                }
            }
        }
        _ => {
            while !is_over() {
                let mut stream = dial(target)?;
                ask(&mut stream, &mut count)?;
                // The server's end of the connection comes first.
                if stream.read(&mut [0])? != 0 {
                    return Err(io::Error::other("more than an answer came"));
                }
            }
        }
    }
    count.micros = began.elapsed().as_micros() as u64;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a client sent and a server received, over loopback.
    fn measured(kind: Kind) -> (Count, Count) {
        let mut server = Server::default();
        let Ok(Done::Opened { port }) = server.follow(&Order::Open { kind }) else { panic!("no server") };
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let Ok(Done::Ran(sent)) = server.follow(&Order::Run { kind, target, millis: 30 }) else {
            panic!("no client")
        };
        let Ok(Done::Closed(received)) = server.follow(&Order::Close) else { panic!("no end") };
        (sent, received)
    }

    #[test]
    fn what_arrives_is_what_was_sent() {
        for kind in [Kind::Stream, Kind::Requests, Kind::Connections] {
            let (sent, received) = measured(kind);
            assert_eq!((sent.items, sent.bytes), (received.items, received.bytes), "{kind:?}");
            assert!(sent.items > 0 && sent.bytes > 0 && sent.micros >= 30_000, "{kind:?}: {sent:?}");
        }
        let (sent, received) = measured(Kind::Datagrams);
        assert!(received.items > 0 && received.items <= sent.items, "{sent:?} {received:?}");
        assert_eq!(received.bytes, received.items * DATAGRAM as u64);
    }

    #[test]
    fn a_server_that_is_not_there_is_an_error_in_words() {
        let refused = Server::default().follow(&Order::Close).unwrap_err();
        assert_eq!(refused, "Close: no server is open");
        // Port 1 of loopback: tcpmux, which nobody has.
        let order = Order::Run { kind: Kind::Stream, target: ([127, 0, 0, 1], 1).into(), millis: 1 };
        assert!(Server::default().follow(&order).unwrap_err().contains("refused"));
    }
}
