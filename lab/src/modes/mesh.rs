//! Encrypted mesh, as Weave: what goes to another node's pods is encrypted to that node. A process on each node takes the
//! packets from a TUN device and sends them as ESP in UDP to its peer, with a key for each direction of each pair.

use std::collections::HashMap;
use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use ipnetwork::{IpNetwork, Ipv4Network};
use kernel::link::{self, Change};
use kernel::route::{self, Route};
use kernel::{Rtnl, tap};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

use super::{Ground, Mode, PROCESS, Routers, Siblings, Wire, bridge};
use crate::cluster::Node;
use crate::construct::{enter, in_thread};
use crate::esp::{Receiver, SECRET, Sender};
use crate::fabric;
use crate::topology::Topology;

/// The node's end of the mesh.
const DEVICE: &str = "mesh0";
/// ESP in UDP (RFC 3948).
const PORT: u16 = 4500;
/// What fits into the wire's 1500 with IPv4, UDP, ESP's header, counter, tag and trailer (20 + 8 + 8 + 8 + 16 + 2).
const MTU: usize = 1438;
/// Secrets, logs and process numbers.
const STATE: &str = "/run/podlab/mesh";
/// How a process is told which node it is.
const NODE: &str = "PODLAB_MESH_NODE";

/// The mode.
pub(super) struct Mesh;
pub(super) const MODE: Mesh = Mesh;

impl Mode for Mesh {
    fn summary(&self) -> &'static str {
        "encrypted from node to node (ESP in UDP), as Weave; MTU 1438"
    }

    fn require(&self, _option: Option<&str>) -> Result<()> {
        Ok(tap::require()?)
    }

    fn network(&self, ip_masq: bool) -> Option<String> {
        Some(bridge(ip_masq, Some(MTU)))
    }

    fn routers(&self, _option: Option<&str>, _topology: &Topology) -> Routers {
        Routers::FromOutside
    }

    fn prepare(&self, _option: Option<&str>, ground: &Ground<'_>) -> Result<()> {
        fs::create_dir_all(STATE).with_context(|| format!("create {STATE}"))?;
        fs::set_permissions(STATE, Permissions::from_mode(0o700))?;
        let secrets = secrets(ground.nodes.len())?;
        for (index, node) in ground.nodes.iter().enumerate() {
            let peers = fabric::peers(ground, node).map(|(number, peer)| Peer {
                address: peer.address,
                pods: peer.pod_cidr,
                send: secrets[&(index, number)].clone(),
                receive: secrets[&(number, index)].clone(),
            });
            let plan = Plan { address: node.address, pods: node.pod_cidr, peers: peers.collect() };
            start(node, &plan).with_context(|| format!("mesh of {}", node.space.name))?;
        }
        Ok(())
    }

    fn serve(&self) -> Result<()> {
        let node = std::env::var(NODE).context("no node is named")?;
        let plan: Plan = serde_json::from_slice(&fs::read(path(&node, "json"))?)?;
        // Standard input is the device, standard output the socket; a copy of a descriptor is as good.
        let device = File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
        let socket = UdpSocket::from(std::io::stdout().as_fd().try_clone_to_owned()?);
        Relay::new(plan, device, socket)?.run()
    }

    fn siblings(&self) -> Siblings {
        Siblings::Switched
    }

    fn wire(&self, _option: Option<&str>, _near: &Node, _far: &Node) -> Wire {
        Wire::Sealed(DEVICE)
    }
}

fn path(node: &str, extension: &str) -> PathBuf {
    Path::new(STATE).join(format!("{node}.{extension}"))
}

/// One direction of a pair of nodes.
#[derive(Clone, Serialize, Deserialize)]
struct Secret {
    spi: u32,
    key: Vec<u8>,
}

/// What a process knows of another node.
#[derive(Serialize, Deserialize)]
struct Peer {
    address: Ipv4Addr,
    #[serde(with = "text")]
    pods: Ipv4Network,
    send: Secret,
    receive: Secret,
}

/// What a process is to do.
#[derive(Serialize, Deserialize)]
struct Plan {
    address: Ipv4Addr,
    #[serde(with = "text")]
    pods: Ipv4Network,
    peers: Vec<Peer>,
}

/// A prefix as it is written.
mod text {
    use ipnetwork::Ipv4Network;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(net: &Ipv4Network, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(net)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Ipv4Network, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

/// A secret for each ordered pair of nodes.
fn secrets(nodes: usize) -> Result<HashMap<(usize, usize), Secret>> {
    let mut source = File::open("/dev/urandom").context("open the random source")?;
    let pairs =
        (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to))).filter(|(from, to)| from != to);
    pairs
        .map(|(from, to)| {
            let mut key = vec![0; SECRET];
            source.read_exact(&mut key).context("read the random source")?;
            // Numbers below 256 are reserved (RFC 4303, 2.1).
            Ok(((from, to), Secret { spi: (from as u32 + 1) << 16 | (to as u32 + 1), key }))
        })
        .collect()
}

/// The device of a node with its routes, its socket, and the process behind both. The device goes with the process; what
/// arrives before the process looks waits.
fn start(node: &Node, plan: &Plan) -> Result<()> {
    let name = &node.space.name;
    fs::write(path(name, "json"), serde_json::to_vec(plan)?)?;
    let log = File::create(path(name, "log"))?;
    let device = node.space.netns.run(|| tap::open_tun(DEVICE))??;
    let socket = node.space.netns.run(|| UdpSocket::bind((plan.address, PORT)))?.context("bind UDP")?;
    socket.set_nonblocking(true)?;
    let mut rtnl = Rtnl::open_in(&node.space.netns)?;
    let index = link::by_name(&mut rtnl, DEVICE)?.index;
    link::set(&mut rtnl, index, &Change { up: Some(true), mtu: Some(MTU as u32), ..Change::default() })?;
    for peer in &plan.peers {
        let route = Route { dst: Some(IpNetwork::V4(peer.pods)), oif: Some(index), ..Route::default() };
        route::add(&mut rtnl, &route)?;
    }
    let process = in_thread(|| {
        enter(&node.space)?;
        let mut relay = Command::new("/proc/self/exe");
        relay.arg(PROCESS).arg("mesh").env_clear().env(NODE, name);
        let relay = relay.stdin(device).stdout(OwnedFd::from(socket)).stderr(log);
        relay.spawn().context("start the relay")
    })?;
    Ok(fs::write(path(name, "pid"), process.id().to_string())?)
}

/// Both directions to and from another node.
struct Pair {
    address: SocketAddr,
    pods: Ipv4Network,
    sender: Sender,
    receiver: Receiver,
}

/// The process: packets from the device go encrypted to the node whose pods they are for, and back.
struct Relay {
    device: File,
    socket: UdpSocket,
    pods: Ipv4Network,
    pairs: Vec<Pair>,
}

impl Relay {
    fn new(plan: Plan, device: File, socket: UdpSocket) -> Result<Relay> {
        let pair = |peer: Peer| -> Result<Pair> {
            let secret = |secret: &Secret| -> Result<[u8; SECRET]> {
                secret.key[..].try_into().context("a key of another length")
            };
            Ok(Pair {
                address: SocketAddrV4::new(peer.address, PORT).into(),
                pods: peer.pods,
                sender: Sender::new(peer.send.spi, &secret(&peer.send)?),
                receiver: Receiver::new(peer.receive.spi, &secret(&peer.receive)?),
            })
        };
        let pairs = plan.peers.into_iter().map(pair).collect::<Result<_>>()?;
        Ok(Relay { device, socket, pods: plan.pods, pairs })
    }

    fn run(mut self) -> Result<()> {
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
        let Some(pair) = self.pairs.iter_mut().find(|pair| pair.pods.contains(target)) else { return Ok(()) };
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
        if pair.pods.contains(source) && self.pods.contains(target) {
            self.device.write_all(&packet).context("write the device")?;
        }
        Ok(())
    }
}

/// Source and destination of an IPv4 packet.
fn ends(packet: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let address =
        |at: usize| -> Option<Ipv4Addr> { Some(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?.into()) };
    (packet.first()? >> 4 == 4).then_some((address(12)?, address(16)?))
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
