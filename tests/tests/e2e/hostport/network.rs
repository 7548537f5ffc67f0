//! Servers and clients in namespaces. A TCP server writes the client's address to every connection; a UDP one
//! answers each datagram with it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kernel::{Netns, uninterrupted};
use nix::sys::socket::{Shutdown, shutdown};

/// How long something may take that is expected to happen.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long is waited for an answer that is lost, before it is asked for again.
const AGAIN: Duration = Duration::from_millis(200);

/// A server, ended when dropped.
pub(super) struct Server {
    stop: Box<dyn Fn() + Send + Sync>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        (self.stop)();
        if let Some(thread) = self.thread.take() {
            // A server that panicked has been seen by its client.
            let _ = thread.join();
        }
    }
}

/// Serves TCP on a port, of both families.
pub(super) fn tcp(netns: &Netns, port: u16) -> Result<Server> {
    let listener = Arc::new(netns.run(|| TcpListener::bind(("::", port)))?.context("listen")?);
    let shared = Arc::clone(&listener);
    let thread = std::thread::spawn(move || {
        while let Ok((mut stream, from)) = shared.accept() {
            // The client's loss.
            let _ = stream.write_all(from.ip().to_canonical().to_string().as_bytes());
        }
    });
    let stop = move || _ = shutdown(listener.as_raw_fd(), Shutdown::Both);
    Ok(Server { stop: Box::new(stop), thread: Some(thread) })
}

/// Serves UDP on a port of all addresses, of both families; see [`udp_at`].
pub(super) fn udp(netns: &Netns, port: u16, name: &'static str) -> Result<Server> {
    udp_at(netns, &format!("[::]:{port}"), name)
}

/// Serves UDP at an address: answers are what was asked, `name`, and the client's address.
pub(super) fn udp_at(netns: &Netns, at: &str, name: &'static str) -> Result<Server> {
    let socket = netns.run(|| UdpSocket::bind(at))?.with_context(|| format!("bind {at}"))?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    let ended = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&ended);
    let thread = std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while !seen.load(Ordering::Relaxed) {
            if let Ok((n, from)) = socket.recv_from(&mut buffer) {
                let asked = String::from_utf8_lossy(&buffer[..n]);
                let answer = format!("{asked} {name} {}", from.ip().to_canonical());
                let _ = socket.send_to(answer.as_bytes(), from);
            }
        }
    });
    Ok(Server { stop: Box::new(move || ended.store(true, Ordering::Relaxed)), thread: Some(thread) })
}

/// Connects and reads what the server says: the address under which it sees the client.
pub(super) fn ask(netns: &Netns, to: &str) -> Result<String> {
    let address: SocketAddr = to.parse().with_context(|| to.to_owned())?;
    let connect = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    netns.run(connect)?.with_context(|| format!("ask {to}"))
}

/// Nobody listens there: the node itself refuses.
pub(super) fn refused(netns: &Netns, to: &str) -> Result<()> {
    let address: SocketAddr = to.parse()?;
    let outcome = netns.run(|| TcpStream::connect_timeout(&address, PATIENCE))?;
    let kind = outcome.as_ref().err().map(std::io::Error::kind);
    ensure!(kind == Some(std::io::ErrorKind::ConnectionRefused), "{to}: expected a refusal: {outcome:?}");
    Ok(())
}

/// A client that keeps its port, as a flow does.
pub(super) struct Flow {
    socket: UdpSocket,
    asked: AtomicU32,
}

impl Flow {
    pub(super) fn new(netns: &Netns, to: &str) -> Result<Self> {
        let address: SocketAddr = to.parse()?;
        let any: SocketAddr = if address.is_ipv6() { ([0u16; 8], 0).into() } else { ([0u8; 4], 0).into() };
        let socket = netns.run(|| UdpSocket::bind(any))?.context("bind")?;
        socket.connect(address)?;
        socket.set_read_timeout(Some(AGAIN))?;
        Ok(Flow { socket, asked: AtomicU32::new(0) })
    }

    /// Sends a datagram. That the last one was refused is told here and is no matter.
    pub(super) fn send(&self, text: &str) {
        let _ = self.socket.send(text.as_bytes());
    }

    /// Asks until an answer to this question comes; late ones to earlier questions are passed over.
    pub(super) fn answer(&self) -> Result<String> {
        let question = format!("question{}", self.asked.fetch_add(1, Ordering::Relaxed));
        let began = Instant::now();
        let mut buffer = [0; 128];
        while began.elapsed() < PATIENCE {
            self.send(&question);
            while let Ok(n) = uninterrupted(|| self.socket.recv(&mut buffer)) {
                let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
                if let Some((asked, answer)) = text.split_once(' ')
                    && asked == question
                {
                    return Ok(answer.to_owned());
                }
            }
        }
        anyhow::bail!("no answer from {:?}", self.socket.peer_addr())
    }
}

/// A listener for datagrams that tells who has knocked.
pub(super) struct Door {
    socket: UdpSocket,
    port: u16,
}

impl Door {
    pub(super) fn new(netns: &Netns) -> Result<Self> {
        let socket = netns.run(|| UdpSocket::bind("[::]:0"))?.context("bind")?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Door { port: socket.local_addr()?.port(), socket })
    }

    /// Sends one datagram with this word to the door, at an address of its namespace.
    pub(super) fn knock(&self, from: &Netns, at: &str, word: &str) -> Result<()> {
        let address = SocketAddr::new(at.parse()?, self.port);
        let any: SocketAddr = if address.is_ipv6() { ([0u16; 8], 0).into() } else { ([0u8; 4], 0).into() };
        let socket = from.run(|| UdpSocket::bind(any))?.context("bind")?;
        // Refused by a filter that says so, or with no route: not arrived, which is what is asked.
        let _ = socket.send_to(word.as_bytes(), address);
        Ok(())
    }

    /// Whether a datagram from `from` arrives. `open` is a namespace whose datagrams are never filtered: when its
    /// one is here, an earlier one would be too. Neighbours must have been resolved before.
    pub(super) fn is_reached(&self, from: &Netns, open: &Netns, at: &str) -> Result<bool> {
        self.knock(from, at, "guest")?;
        self.knock(open, at, "last")?;
        let mut reached = false;
        let mut buffer = [0; 64];
        loop {
            let n = uninterrupted(|| self.socket.recv(&mut buffer))
                .context("the datagram that is never filtered")?;
            match &buffer[..n] {
                b"guest" => reached = true,
                b"last" => return Ok(reached),
                other => anyhow::bail!("a datagram {other:?}"),
            }
        }
    }

    /// Knocks until it is heard: neighbours are resolved then.
    pub(super) fn warm_up(&self, from: &Netns, at: &str) -> Result<()> {
        let mut buffer = [0; 64];
        self.socket.set_read_timeout(Some(AGAIN))?;
        let began = Instant::now();
        let mut heard = false;
        while !heard && began.elapsed() < PATIENCE {
            self.knock(from, at, "warm")?;
            heard = uninterrupted(|| self.socket.recv(&mut buffer)).is_ok();
        }
        // One that was late is none of the next question.
        while uninterrupted(|| self.socket.recv(&mut buffer)).is_ok() {}
        self.socket.set_read_timeout(Some(PATIENCE))?;
        ensure!(heard, "nothing arrives at {at} before there is a policy");
        Ok(())
    }
}
