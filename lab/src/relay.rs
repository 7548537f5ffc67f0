//! The relay of an encrypted mesh: a process on a node that takes packets from a TUN device, sends them as ESP in UDP
//! (RFC 3948) to the node whose pods they are for, and hands on what comes from there. What a peer may send is bound to
//! its PodCIDR.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use ipnetwork::IpNetwork;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

use crate::esp::{Receiver, SECRET, Sender};
use crate::stack::Each;

/// ESP in UDP.
pub(crate) const PORT: u16 = 4500;

/// One direction of a pair of nodes.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Secret {
    pub(crate) spi: u32,
    pub(crate) key: Vec<u8>,
}

/// What a process knows of another node.
#[derive(Serialize, Deserialize)]
pub(crate) struct Peer {
    pub(crate) address: IpAddr,
    pub(crate) pods: Each<IpNetwork>,
    pub(crate) send: Secret,
    pub(crate) receive: Secret,
}

/// What a process is to do.
#[derive(Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) address: IpAddr,
    pub(crate) pods: Each<IpNetwork>,
    pub(crate) peers: Vec<Peer>,
}

/// Both directions to and from another node.
struct Pair {
    address: SocketAddr,
    pods: Each<IpNetwork>,
    sender: Sender,
    receiver: Receiver,
}

/// The process: packets from the device go encrypted to the node whose pods they are for, and back.
pub(crate) struct Relay {
    device: File,
    socket: UdpSocket,
    pods: Each<IpNetwork>,
    pairs: Vec<Pair>,
}

impl Relay {
    /// Of a TUN device and a socket bound to [`PORT`], neither of which may block.
    pub(crate) fn new(plan: Plan, device: File, socket: UdpSocket) -> Result<Relay> {
        let pair = |peer: Peer| -> Result<Pair> {
            let secret = |secret: &Secret| -> Result<[u8; SECRET]> {
                secret.key[..].try_into().context("a key of another length")
            };
            Ok(Pair {
                address: SocketAddr::new(peer.address, PORT),
                pods: peer.pods,
                sender: Sender::new(peer.send.spi, &secret(&peer.send)?),
                receiver: Receiver::new(peer.receive.spi, &secret(&peer.receive)?),
            })
        };
        let pairs = plan.peers.into_iter().map(pair).collect::<Result<_>>()?;
        Ok(Relay { device, socket, pods: plan.pods, pairs })
    }

    /// Runs until the device or the socket is no more.
    pub(crate) fn run(mut self) -> Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let mut ready = [
                PollFd::new(self.device.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut ready, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(err) => return Err(err).context("wait for packets"),
            }
            while let Some(len) = waiting(self.device.read(&mut buffer)).context("read the device")? {
                self.send(&buffer[..len])?;
            }
            while let Some((len, from)) = waiting(self.socket.recv_from(&mut buffer)).context("receive")? {
                self.receive(&buffer[..len], from)?;
            }
        }
    }

    /// What is for no peer's pods is dropped, as a router without a route does.
    fn send(&mut self, packet: &[u8]) -> Result<()> {
        let Some((_, target)) = ends(packet) else { return Ok(()) };
        let Some(pair) = self.pairs.iter_mut().find(|pair| has(&pair.pods, target)) else { return Ok(()) };
        let sealed = pair.sender.seal(packet).context("the sequence numbers are used up")?;
        match self.socket.send_to(&sealed, pair.address) {
            // A peer that is not there yet, or no more: datagrams get lost.
            Err(err) if !matches!(err.kind(), ErrorKind::ConnectionRefused | ErrorKind::WouldBlock) => {
                eprintln!("send to {}: {err}", pair.address);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A peer may send packets of its own pods to ours, and nothing else.
    fn receive(&mut self, esp: &[u8], from: SocketAddr) -> Result<()> {
        let Some(pair) = self.pairs.iter_mut().find(|pair| pair.address == from) else { return Ok(()) };
        let Some(packet) = pair.receiver.open(esp) else { return Ok(()) };
        let Some((source, target)) = ends(&packet) else { return Ok(()) };
        if has(&pair.pods, source) && has(&self.pods, target) {
            self.device.write_all(&packet).context("write the device")?;
        }
        Ok(())
    }
}

fn has(pods: &Each<IpNetwork>, address: IpAddr) -> bool {
    pods.iter().any(|net| net.contains(address))
}

/// Source and destination of an IP packet.
fn ends(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    fn address<const N: usize>(packet: &[u8], at: usize) -> Option<IpAddr>
    where
        IpAddr: From<[u8; N]>,
    {
        Some(<[u8; N]>::try_from(packet.get(at..at + N)?).ok()?.into())
    }
    match packet.first()? >> 4 {
        4 => Some((address::<4>(packet, 12)?, address::<4>(packet, 16)?)),
        6 => Some((address::<16>(packet, 8)?, address::<16>(packet, 24)?)),
        _ => None,
    }
}

/// None when there is nothing more at the moment.
fn waiting<T>(outcome: std::io::Result<T>) -> Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        // An ICMP error to an earlier datagram is told to the next call.
        Err(err) if matches!(err.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionRefused) => Ok(None),
        Err(err) if err.kind() == ErrorKind::Interrupted => Ok(None),
        Err(err) => Err(err.into()),
    }
}
