//! BGP, as Calico's native routing: each node announces its PodCIDR to the router of its link, and learns the others'.
//! The speaker is BIRD 2 (Debian's package bird2), one process for each node and router; everyone is an autonomous system
//! of its own, so the rules of eBGP are all there is. Nobody else tells anybody a way to a pod.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ipnetwork::IpNetwork;
use kernel::Rtnl;
use kernel::route::{self, Family};

use super::{Ground, Mode, Routers, Siblings, Wire, bridge};
use crate::cluster::{Node, Space};
use crate::construct::{enter, in_thread};
use crate::topology::{Topology, host};

/// Configurations, control sockets and logs.
const STATE: &str = "/run/podlab/bgp";
/// Where Debian has the speaker.
const BIRD: [&str; 2] = ["/usr/sbin/bird", "/usr/local/sbin/bird"];
/// Private autonomous systems (RFC 6996): the fabric, then racks, and from 64 601 on nodes.
const FABRIC_AS: u32 = 64_512;
const NODES_AS: u32 = 64_601;
/// How long all routes may take to be everywhere.
const LIMIT: Duration = Duration::from_secs(30);
/// How often routes are looked at.
const PAUSE: Duration = Duration::from_millis(20);

/// The mode.
pub(super) struct Bgp;
pub(super) const MODE: Bgp = Bgp;

impl Mode for Bgp {
    fn summary(&self) -> &'static str {
        "each node announces its PodCIDR to its router by BGP (bird2), as Calico"
    }

    fn require(&self, _option: Option<&str>) -> Result<()> {
        program().map(drop)
    }

    fn network(&self, _option: Option<&str>, ip_masq: bool) -> Option<String> {
        Some(bridge(ip_masq, None))
    }

    fn routers(&self, _option: Option<&str>, _topology: &Topology) -> Routers {
        Routers::Told
    }

    fn prepare(&self, _option: Option<&str>, ground: &Ground<'_>) -> Result<()> {
        fs::create_dir_all(STATE).with_context(|| format!("create {STATE}"))?;
        let program = program()?;
        for speaker in speakers(ground) {
            speaker.start(&program).with_context(|| format!("bird of {}", speaker.space.name))?;
        }
        Ok(())
    }

    fn settle(&self, ground: &Ground<'_>) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        for speaker in speakers(ground) {
            speaker.wait(ground, deadline).with_context(|| format!("bird of {}", speaker.space.name))?;
        }
        Ok(())
    }

    fn siblings(&self) -> Siblings {
        Siblings::Switched
    }

    fn wire(&self, _option: Option<&str>, _near: &Node, _far: &Node) -> Wire {
        Wire::Plain
    }

    fn notes(&self) -> &'static [&'static str] {
        &["the wires are never quiet: each session sends a keepalive of 19 bytes every 80 s"]
    }
}

fn program() -> Result<PathBuf> {
    let found = BIRD.iter().map(Path::new).find(|path| path.is_file()).map(Path::to_path_buf);
    found.context("no bird, the BGP speaker · try: apt-get install bird2")
}

/// One process.
struct Speaker<'c> {
    space: &'c Space,
    number: u32,
    id: Ipv4Addr,
    announces: Option<IpNetwork>,
    /// Name, address and number of each peer.
    peers: Vec<(String, Ipv4Addr, u32)>,
}

/// The speakers: nodes, then the routers of their links, then the fabric above several racks.
fn speakers<'c>(ground: &Ground<'c>) -> Vec<Speaker<'c>> {
    let topology = ground.topology;
    let has_racks = !ground.racks.is_empty();
    let rack_as = |rack: usize| FABRIC_AS + if has_racks { 1 + rack as u32 } else { 0 };
    let router = |rack: usize| ground.racks.get(rack).unwrap_or(ground.fabric);
    let mut all: Vec<Speaker<'_>> = Vec::new();
    for (index, node) in ground.nodes.iter().enumerate() {
        let gateway = host(topology.rack_net(node.rack), 1);
        all.push(Speaker {
            space: &node.space,
            number: NODES_AS + index as u32,
            id: node.address,
            announces: Some(IpNetwork::V4(node.pod_cidr)),
            peers: vec![(router(node.rack).name.clone(), gateway, rack_as(node.rack))],
        });
    }
    for rack in 0..topology.racks as usize {
        let nodes = ground.nodes.iter().enumerate().filter(|(_, node)| node.rack == rack);
        let mut peers: Vec<_> = nodes
            .map(|(index, node)| (node.space.name.clone(), node.address, NODES_AS + index as u32))
            .collect();
        if has_racks {
            peers.push((ground.fabric.name.clone(), Topology::rack_uplink(rack).0.ip(), FABRIC_AS));
        }
        all.push(Speaker {
            space: router(rack),
            number: rack_as(rack),
            id: host(topology.rack_net(rack), 1),
            announces: None,
            peers,
        });
    }
    if has_racks {
        let peers = ground.racks.iter().enumerate();
        let peers = peers
            .map(|(rack, space)| (space.name.clone(), Topology::rack_uplink(rack).1.ip(), rack_as(rack)));
        all.push(Speaker {
            space: ground.fabric,
            number: FABRIC_AS,
            id: Topology::rack_uplink(0).0.ip(),
            announces: None,
            peers: peers.collect(),
        });
    }
    all
}

impl Speaker<'_> {
    /// The configuration. Only what was learned by BGP goes to the kernel; the own PodCIDR is announced from a static
    /// route that the kernel does not get, as the pods' bridge has the real one.
    fn configuration(&self) -> String {
        let mut text = format!(
            "router id {};\nprotocol device {{ scan time 60; }}\n\
             protocol kernel {{ scan time 60; ipv4 {{ import none; export where source = RTS_BGP; }}; }}\n",
            self.id
        );
        if let Some(pods) = self.announces {
            text += &format!("protocol static pods {{ ipv4; route {pods} unreachable; }}\n");
        }
        for (name, address, number) in &self.peers {
            // Sessions are opened at once and again soon: a lab has no Internet to be kind to.
            text += &format!(
                "protocol bgp {name} {{\n  local as {};\n  neighbor {address} as {number};\n  connect delay time 1;\n  \
                 connect retry time 1;\n  error wait time 1, 4;\n  ipv4 {{ import all; export where source ~ [ RTS_STATIC, \
                 RTS_BGP ]; }};\n}}\n",
                self.number
            );
        }
        text
    }

    fn path(&self, extension: &str) -> PathBuf {
        Path::new(STATE).join(format!("{}.{extension}", self.space.name))
    }

    /// Starts it in its namespace; it ends with the lab.
    fn start(&self, program: &Path) -> Result<()> {
        let conf = self.path("conf");
        fs::write(&conf, self.configuration()).with_context(|| format!("write {}", conf.display()))?;
        let log = fs::File::create(self.path("log"))?;
        in_thread(|| {
            enter(self.space)?;
            let mut bird = Command::new(program);
            bird.arg("-f")
                .arg("-c")
                .arg(&conf)
                .arg("-s")
                .arg(self.path("ctl"))
                .arg("-P")
                .arg(self.path("pid"));
            bird.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
            bird.spawn().with_context(|| format!("start {}", program.display()))?;
            Ok(())
        })
    }

    /// Waits until the kernel has a route to every PodCIDR but the own.
    fn wait(&self, ground: &Ground<'_>, deadline: Instant) -> Result<()> {
        let mut rtnl = Rtnl::open_in(&self.space.netns)?;
        loop {
            let routes = route::list(&mut rtnl, Family::V4)?;
            let missing = ground.nodes.iter().map(|node| IpNetwork::V4(node.pod_cidr)).find(|pods| {
                Some(*pods) != self.announces && !routes.iter().any(|route| route.destination() == *pods)
            });
            let Some(missing) = missing else { return Ok(()) };
            if Instant::now() > deadline {
                let said = fs::read_to_string(self.path("log")).unwrap_or_default();
                let said =
                    if said.is_empty() { String::new() } else { format!("; it said: {}", said.trim()) };
                bail!("no route to {missing} after {} s{said}", LIMIT.as_secs());
            }
            std::thread::sleep(PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Role;

    #[test]
    fn a_node_speaks_with_its_router_and_announces_its_pods() {
        let space = Space {
            name: "node1".into(),
            netns: kernel::Netns::create().unwrap(),
            uts: None,
            role: Role::Node,
        };
        let speaker = Speaker {
            space: &space,
            number: 64_601,
            id: [192, 0, 2, 11].into(),
            announces: Some("10.244.1.0/24".parse().unwrap()),
            peers: vec![("fabric".into(), [192, 0, 2, 1].into(), 64_512)],
        };
        let text = speaker.configuration();
        for words in [
            "router id 192.0.2.11;",
            "route 10.244.1.0/24 unreachable;",
            "protocol bgp fabric {",
            "local as 64601;",
            "neighbor 192.0.2.1 as 64512;",
            "export where source = RTS_BGP;",
        ] {
            assert!(text.contains(words), "{text}");
        }
    }
}
