//! Encrypted mesh, as Weave: what goes to another node's pods is encrypted to that node. By WireGuard where the kernel has
//! it, else by the kernel's ESP (xfrm); where it has neither, a process on each node takes the packets from a TUN device
//! and sends them as ESP in UDP to its peer. ESP has a key for each direction of each pair. Packets of both IP versions go
//! over the nodes' first one; by the kernel's ESP each over its own.

use std::collections::HashMap;
use std::fs::{self, File, Permissions};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result};
use ipnetwork::IpNetwork;
use kernel::addr;
use kernel::link::{self, Change, LinkKind, NewLink};
use kernel::route::{self, Route};
use kernel::wireguard::{self, Key, WireGuard};
use kernel::xfrm::{self, Association, Direction, Policy, Xfrm};
use kernel::{Family, Netns, Rtnl, tap};
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};

use super::{Ground, Mode, PROCESS, Routers, Siblings, Wire, bridge};
use crate::bytes::random;
use crate::cluster::Node;
use crate::construct::{enter, in_thread};
use crate::esp::SECRET;
use crate::fabric;
use crate::relay::{PORT, Peer, Plan, Relay, Secret};
use crate::stack;
use crate::topology::Topology;

/// WireGuard's device, port and MTU: 1500 less IPv6, UDP and its own 32 bytes, as wg-quick(8) has it.
const WIREGUARD: &str = "wg0";
const WIREGUARD_PORT: u16 = 51820;
const WIREGUARD_MTU: usize = 1420;
/// The device of the process.
const DEVICE: &str = "mesh0";
/// What fits into the wire's 1500 with IPv4, UDP, ESP's header, counter, tag and trailer (20 + 8 + 8 + 8 + 16 + 2).
const MTU: usize = 1438;
/// The same with IPv6, whose header has 20 bytes more.
const MTU_V6: usize = MTU - 20;
/// Bytes that may wait for the process.
const ROOM: usize = 4 << 20;
/// Secrets, logs and process numbers.
const STATE: &str = "/run/podlab/mesh";
/// How a process is told which node it is.
const NODE: &str = "PODLAB_MESH_NODE";

/// The mode.
pub(super) struct Mesh;
pub(super) const MODE: Mesh = Mesh;

impl Mode for Mesh {
    fn summary(&self) -> &'static str {
        "encrypted from node to node, as Weave: by WireGuard, else the kernel's ESP, else a process"
    }

    fn options(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("wireguard", "by WireGuard; MTU 1420"),
            ("esp", "by the kernel's ESP (xfrm); MTU 1438, with IPv6 1418"),
            ("process", "by a process on each node, ESP in UDP; MTU 1438, over IPv6 1418"),
        ]
    }

    fn require(&self, option: Option<&str>) -> Result<()> {
        Carrier::of(option).require()
    }

    fn network(&self, option: Option<&str>, ip_masq: bool, families: &[Family]) -> Option<String> {
        Some(bridge(ip_masq, Some(Carrier::of(option).mtu(families)), families))
    }

    fn routers(&self, _option: Option<&str>, _topology: &Topology) -> Routers {
        Routers::FromOutside
    }

    fn prepare(&self, option: Option<&str>, ground: &Ground<'_>) -> Result<()> {
        match Carrier::of(option) {
            Carrier::WireGuard => by_wireguard(ground),
            Carrier::Esp => by_kernel(ground),
            Carrier::Process => by_process(ground),
        }
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

    fn wire(&self, option: Option<&str>, near: &Node, far: &Node, family: Family) -> Wire {
        let carrier = Carrier::of(option);
        let end = |node: &Node| match carrier {
            Carrier::Esp => node.address.of(family).unwrap_or(node.address.first),
            Carrier::WireGuard | Carrier::Process => node.address.first,
        };
        Wire::Sealed { device: carrier.device(), ends: [end(near), end(far)] }
    }
}

/// Who encrypts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carrier {
    WireGuard,
    Esp,
    Process,
}

impl Carrier {
    /// As asked for; else the first that this kernel has.
    fn of(option: Option<&str>) -> Carrier {
        static FIRST: OnceLock<Carrier> = OnceLock::new();
        let is_there = |carrier: &Carrier| carrier.require().is_ok();
        match option {
            Some("wireguard") => Carrier::WireGuard,
            Some("esp") => Carrier::Esp,
            Some(_) => Carrier::Process,
            None => *FIRST.get_or_init(|| {
                [Carrier::WireGuard, Carrier::Esp].into_iter().find(is_there).unwrap_or(Carrier::Process)
            }),
        }
    }

    fn require(self) -> Result<()> {
        match self {
            Carrier::WireGuard => {
                Ok(link::require(&mut Rtnl::open_in(&Netns::create()?)?, &LinkKind::Wireguard)?)
            }
            Carrier::Esp => Ok([Family::V4, Family::V6].into_iter().try_for_each(xfrm::require)?),
            Carrier::Process => Ok(tap::require()?),
        }
    }

    /// Of pods that have addresses of these versions.
    fn mtu(self, families: &[Family]) -> usize {
        match self {
            Carrier::WireGuard => WIREGUARD_MTU,
            Carrier::Esp if families.contains(&Family::V6) => MTU_V6,
            Carrier::Process if !families.contains(&Family::V4) => MTU_V6,
            Carrier::Esp | Carrier::Process => MTU,
        }
    }

    /// The node's link that the packets pass; xfrm has none.
    fn device(self) -> Option<&'static str> {
        match self {
            Carrier::WireGuard => Some(WIREGUARD),
            Carrier::Esp => None,
            Carrier::Process => Some(DEVICE),
        }
    }
}

/// A device on each node, whose peers are the other nodes with their PodCIDRs.
fn by_wireguard(ground: &Ground<'_>) -> Result<()> {
    let mut keys = Vec::new();
    for node in ground.nodes {
        let make = || -> Result<Key> {
            let mut rtnl = Rtnl::open_in(&node.space.netns)?;
            let wanted =
                NewLink { mtu: WIREGUARD_MTU as u32, ..NewLink::new(WIREGUARD, LinkKind::Wireguard) };
            link::add(&mut rtnl, &wanted)?;
            let private: Key = random()?;
            Ok(WireGuard::open_in(&node.space.netns)?.set_device(WIREGUARD, &private, WIREGUARD_PORT)?)
        };
        keys.push(make().with_context(|| format!("mesh of {}", node.space.name))?);
    }
    for node in ground.nodes {
        let connect = || -> Result<()> {
            let mut wireguard = WireGuard::open_in(&node.space.netns)?;
            for (number, peer) in fabric::peers(ground, node) {
                let endpoint = SocketAddr::new(peer.address.first, WIREGUARD_PORT);
                let allowed: Vec<IpNetwork> = peer.pod_cidr.iter().collect();
                let peer = wireguard::Peer { key: keys[number], endpoint, allowed: &allowed };
                wireguard.add_peer(WIREGUARD, &peer)?;
            }
            let mut rtnl = Rtnl::open_in(&node.space.netns)?;
            let index = link::by_name(&mut rtnl, WIREGUARD)?.index;
            link::set(&mut rtnl, index, &Change { up: Some(true), ..Change::default() })?;
            routes(&mut rtnl, index, ground, node)
        };
        connect().with_context(|| format!("mesh of {}", node.space.name))?;
    }
    Ok(())
}

/// Associations and policies for the PodCIDRs of each pair and version. The route stays the default one: the policy decides
/// later.
fn by_kernel(ground: &Ground<'_>) -> Result<()> {
    for family in ground.topology.ranges.pods.families() {
        let secrets = secrets(ground.nodes.len())?;
        for (index, node) in ground.nodes.iter().enumerate() {
            let mut xfrm = Xfrm::open_in(&node.space.netns)?;
            let mut connect = |number: usize, peer: &Node| -> Result<()> {
                let mut add =
                    |source: &Node, target: &Node, secret: &Secret, directions: &[Direction]| -> Result<()> {
                        let (key, spi) = (&secret.key[..], secret.spi);
                        let ((source_ip, from), (target_ip, to)) = (of(source, family)?, of(target, family)?);
                        let association = Association { source: source_ip, target: target_ip, spi, key };
                        xfrm.add_association(&association)?;
                        for direction in directions {
                            xfrm.add_policy(&Policy {
                                direction: *direction,
                                from,
                                to,
                                source: source_ip,
                                target: target_ip,
                            })?;
                        }
                        Ok(())
                    };
                add(node, peer, &secrets[&(index, number)], &[Direction::Out])?;
                add(peer, node, &secrets[&(number, index)], &[Direction::In, Direction::Forward])
            };
            for (number, peer) in fabric::peers(ground, node) {
                connect(number, peer).with_context(|| format!("mesh of {}", node.space.name))?;
            }
        }
    }
    Ok(())
}

/// A node's address and PodCIDR of a version that the lab has.
fn of(node: &Node, family: Family) -> Result<(IpAddr, IpNetwork)> {
    let both = node.address.of(family).zip(node.pod_cidr.of(family));
    both.with_context(|| format!("{} has no {}", node.space.name, stack::word(family)))
}

/// A process on each node, with the secrets of its pairs.
fn by_process(ground: &Ground<'_>) -> Result<()> {
    fs::create_dir_all(STATE).with_context(|| format!("create {STATE}"))?;
    fs::set_permissions(STATE, Permissions::from_mode(0o700))?;
    let secrets = secrets(ground.nodes.len())?;
    for (index, node) in ground.nodes.iter().enumerate() {
        let peer = |(number, peer): (usize, &Node)| {
            let (send, receive) = (&secrets[&(index, number)], &secrets[&(number, index)]);
            let (address, pods) = (peer.address.first, peer.pod_cidr);
            Peer { address, pods, send: send.clone(), receive: receive.clone() }
        };
        let peers = fabric::peers(ground, node).map(peer).collect();
        let plan = Plan { address: node.address.first, pods: node.pod_cidr, peers };
        start(ground, node, &plan).with_context(|| format!("mesh of {}", node.space.name))?;
    }
    Ok(())
}

/// Routes to the pods of the other nodes by a link. As in a tunnel, what the node itself sends to pods of others, and to
/// services, which are led to such a pod only after the source was chosen, comes from the first address of its own PodCIDR,
/// which no pod gets: the peer takes no other.
fn routes(rtnl: &mut Rtnl, index: u32, ground: &Ground<'_>, node: &Node) -> Result<()> {
    for pods in node.pod_cidr.iter() {
        let own = pods.network();
        addr::add(rtnl, index, IpNetwork::from(own), &fabric::NODAD)?;
        if own.is_ipv4() {
            let dst = Some(IpNetwork::V4(ground.topology.ranges.services));
            route::add(rtnl, &Route { dst, src: Some(own), oif: Some(index), ..Route::default() })?;
        }
    }
    for pods in fabric::peers(ground, node).flat_map(|(_, peer)| peer.pod_cidr.iter()) {
        route::add(rtnl, &Route { dst: Some(pods), oif: Some(index), ..Route::default() })?;
    }
    Ok(())
}

fn path(node: &str, extension: &str) -> PathBuf {
    Path::new(STATE).join(format!("{node}.{extension}"))
}

/// A secret for each ordered pair of nodes.
fn secrets(nodes: usize) -> Result<HashMap<(usize, usize), Secret>> {
    let pairs =
        (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to))).filter(|(from, to)| from != to);
    pairs
        .map(|(from, to)| {
            let key = random::<SECRET>()?.to_vec();
            // Numbers below 256 are reserved (RFC 4303, 2.1).
            Ok(((from, to), Secret { spi: (from as u32 + 1) << 16 | (to as u32 + 1), key }))
        })
        .collect()
}

/// The device of a node with its routes, its socket, and the process behind both. The device goes with the process; what
/// arrives before the process looks waits.
fn start(ground: &Ground<'_>, node: &Node, plan: &Plan) -> Result<()> {
    let name = &node.space.name;
    fs::write(path(name, "json"), serde_json::to_vec(plan)?)?;
    let log = File::create(path(name, "log"))?;
    let device = node.space.netns.run(|| tap::open_tun(DEVICE))??;
    let socket = node.space.netns.run(|| UdpSocket::bind((plan.address, PORT)))?.context("bind UDP")?;
    socket.set_nonblocking(true)?;
    // What all pods of the others send at once waits here; whoever may not have so much has what is usual.
    let _ = setsockopt(&socket, RcvBufForce, &ROOM);
    let mut rtnl = Rtnl::open_in(&node.space.netns)?;
    let index = link::by_name(&mut rtnl, DEVICE)?.index;
    let families: Vec<Family> = node.pod_cidr.families().collect();
    let mtu = Some(Carrier::Process.mtu(&families) as u32);
    link::set(&mut rtnl, index, &Change { up: Some(true), mtu, ..Change::default() })?;
    routes(&mut rtnl, index, ground, node)?;
    let process = in_thread(|| {
        enter(&node.space)?;
        let mut relay = Command::new("/proc/self/exe");
        relay.arg(PROCESS).arg("mesh").env_clear().env(NODE, name);
        let relay = relay.stdin(device).stdout(OwnedFd::from(socket)).stderr(log);
        relay.spawn().context("start the relay")
    })?;
    Ok(fs::write(path(name, "pid"), process.id().to_string())?)
}
