//! One peer's node in one case: its namespace with what the case needs, its directory, and its numbering of pods.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use kernel::addr::{self, AddrOptions};
use kernel::link::{self, Bridge, Change, Veth};
use kernel::netns::Netns;
use kernel::{IpNetwork, Rtnl, sysctl};

use crate::peer::{Kind, Peer};
use crate::shape::{BRIDGE, GATEWAY, GATEWAY6, Link, PARENT, Shape};

/// The node's address towards the world outside, and that world's.
pub(crate) const NEAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(crate) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// The floor's rules, which its ADD only puts elements into.
const FLOOR_RULES: &str = "\
table ip floor {
  set pods { type ipv4_addr; }
  map ports { type inet_proto . inet_service : ipv4_addr . inet_service; }
  chain post { type nat hook postrouting priority 100; ip saddr @pods ip daddr != 10.88.0.0/16 masquerade; }
  chain pre { type nat hook prerouting priority -100; fib daddr type local dnat ip to meta l4proto . th dport map @ports; }
  chain out { type nat hook output priority -100; fib daddr type local dnat ip to meta l4proto . th dport map @ports; }
}
";

/// A node of one peer.
pub(crate) struct Node {
    pub(crate) peer: Peer,
    pub(crate) netns: Netns,
    /// The world outside, for cases whose packets go there.
    pub(crate) outside: Option<Netns>,
    /// A directory of this node alone.
    pub(crate) directory: PathBuf,
    /// The `floor` program, when the memory of all calls is to be noted.
    pub(crate) memory: Option<PathBuf>,
    next: u32,
}

impl Node {
    /// A node ready for attachments of a shape.
    pub(crate) fn new(peer: &Peer, shape: &Shape, directory: PathBuf) -> Result<Self> {
        fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        let mut node = Node {
            peer: peer.clone(),
            netns: Netns::create()?,
            outside: None,
            directory,
            memory: None,
            next: 1,
        };
        let mut rtnl = Rtnl::open_in(&node.netns)?;
        link::set(&mut rtnl, 1, &Change { up: Some(true), ..Change::default() })?;
        if shape.link == Link::Macvlan {
            link::add_veth(&mut rtnl, &Veth { name: PARENT, peer: "mv1", up: true, ..Veth::default() })?;
            let far = link::by_name(&mut rtnl, "mv1")?.index;
            link::set(&mut rtnl, far, &Change { up: Some(true), ..Change::default() })?;
        }
        if shape.masquerade {
            node.outside = Some(outside(&mut rtnl)?);
        }
        if node.peer.kind == Kind::Floor {
            node.prepare_floor(shape, &mut rtnl)?;
        }
        Ok(node)
    }

    /// What a plugin makes once per node and the floor finds.
    fn prepare_floor(&self, shape: &Shape, rtnl: &mut Rtnl) -> Result<()> {
        self.netns.run(|| sysctl::write("net/ipv4/ip_forward", "1"))??;
        if shape.link == Link::Bridge {
            link::add_bridge(rtnl, &Bridge { name: BRIDGE, up: true, ..Bridge::default() })?;
            let bridge = link::by_name(rtnl, BRIDGE)?.index;
            let options = AddrOptions { nodad: true, ..AddrOptions::default() };
            addr::add(rtnl, bridge, IpNetwork::new(GATEWAY.into(), 16)?, &options)?;
            if shape.v6 {
                addr::add(rtnl, bridge, IpNetwork::new(GATEWAY6.into(), 64)?, &options)?;
            }
        }
        if shape.masquerade || shape.ports > 0 {
            self.feed("nft", &["-f", "-"], FLOOR_RULES)?;
        }
        Ok(())
    }

    /// Runs a program of the machine in the node, with a text as its stdin.
    pub(crate) fn feed(&self, program: &str, arguments: &[&str], text: &str) -> Result<()> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = self.netns.run(|| command.spawn())?.with_context(|| format!("start {program}"))?;
        let mut stdin = child.stdin.take().context("stdin")?;
        stdin.write_all(text.as_bytes()).with_context(|| format!("write to {program}"))?;
        drop(stdin);
        let output = child.wait_with_output().with_context(|| format!("wait for {program}"))?;
        ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// host-local's `dataDir`.
    pub(crate) fn data(&self) -> PathBuf {
        self.directory.join("ipam")
    }

    /// The number of the next pod, from 2 on.
    pub(crate) fn number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }
}

/// The addresses of a pod by its number, where the peer has none to give.
pub(crate) fn addresses(number: u32, shape: &Shape) -> Vec<IpNetwork> {
    let v4 = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 88, 0, 0)) + number);
    let mut nets = Vec::new();
    nets.extend(IpNetwork::new(IpAddr::V4(v4), 16));
    if shape.v6 {
        let mut v6 = GATEWAY6.octets();
        v6[12..].copy_from_slice(&number.to_be_bytes());
        nets.extend(IpNetwork::new(IpAddr::from(v6), 64));
    }
    nets
}

/// The path by which any process opens a namespace that this one holds.
pub(crate) fn path(netns: &Netns) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), netns.as_fd().as_raw_fd())
}

/// A directory of a node under that of the session.
pub(crate) fn directory(session: &Path, case: &str, peer: &Peer, number: usize) -> PathBuf {
    session.join(format!("{case}-{}-{number}", peer.name))
}

/// The world outside, on a wire of its own; it has no route to the pods.
fn outside(node: &mut Rtnl) -> Result<Netns> {
    let netns = Netns::create()?;
    let veth =
        Veth { name: "ext0", peer: "ext1", up: true, peer_netns: Some(netns.as_fd()), ..Veth::default() };
    link::add_veth(node, &veth)?;
    let mut far = Rtnl::open_in(&netns)?;
    for (rtnl, name, ip) in [(node, "ext0", NEAR), (&mut far, "ext1", OUTSIDE)] {
        let index = link::by_name(rtnl, name)?.index;
        link::set(rtnl, index, &Change { up: Some(true), ..Change::default() })?;
        addr::add(rtnl, index, IpNetwork::new(ip.into(), 24)?, &AddrOptions::default())?;
    }
    Ok(netns)
}
