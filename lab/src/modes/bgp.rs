//! BGP, as Calico's native routing: each node announces its PodCIDR to the router of its link, and learns the others'.
//! The speaker is BIRD 2 (Debian's package bird2), one process for each node and router; everyone is an autonomous system
//! of its own, so the rules of eBGP are all there is. Nobody else tells anybody a way to a pod.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ipnetwork::IpNetwork;
use kernel::{Family, Rtnl, route};

use super::{Ground, Mode, Routers, Siblings, Wire, bridge};
use crate::cluster::{Node, Space};
use crate::construct::{enter, in_thread};
use crate::stack::Each;
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

    fn network(&self, _option: Option<&str>, ip_masq: bool, families: &[Family]) -> Option<String> {
        Some(bridge(ip_masq, None, families))
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

    fn wire(&self, _option: Option<&str>, _near: &Node, _far: &Node, _: Family) -> Wire {
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
    announces: Option<Each<IpNetwork>>,
    /// Name, addresses and number of each peer; there is a session for each IP version.
    peers: Vec<(String, Each<IpAddr>, u32)>,
}

/// The speakers: nodes, then the routers of their links, then the fabric above several racks.
fn speakers<'c>(ground: &Ground<'c>) -> Vec<Speaker<'c>> {
    let topology = ground.topology;
    let has_racks = !ground.racks.is_empty();
    let rack_as = |rack: usize| FABRIC_AS + if has_racks { 1 + rack as u32 } else { 0 };
    let router = |rack: usize| ground.racks.get(rack).unwrap_or(ground.fabric);
    let mut all: Vec<Speaker<'_>> = Vec::new();
    for (index, node) in ground.nodes.iter().enumerate() {
        let gateway = topology.rack_net(node.rack).map(|net| host(net, 1));
        all.push(Speaker {
            space: &node.space,
            number: NODES_AS + index as u32,
            id: id(2, index),
            announces: Some(node.pod_cidr),
            peers: vec![(router(node.rack).name.clone(), gateway, rack_as(node.rack))],
        });
    }
    for rack in 0..topology.racks as usize {
        let nodes = ground.nodes.iter().enumerate().filter(|(_, node)| node.rack == rack);
        let mut peers: Vec<_> = nodes
            .map(|(index, node)| (node.space.name.clone(), node.address, NODES_AS + index as u32))
            .collect();
        if has_racks {
            peers.push((ground.fabric.name.clone(), ends(topology.rack_uplink(rack).0), FABRIC_AS));
        }
        all.push(Speaker {
            space: router(rack),
            number: rack_as(rack),
            id: id(1, rack),
            announces: None,
            peers,
        });
    }
    if has_racks {
        let peers = ground.racks.iter().enumerate();
        let peers = peers
            .map(|(rack, space)| (space.name.clone(), ends(topology.rack_uplink(rack).1), rack_as(rack)));
        all.push(Speaker {
            space: ground.fabric,
            number: FABRIC_AS,
            id: id(0, 0),
            announces: None,
            peers: peers.collect(),
        });
    }
    all
}

/// A router's id is 32 bits and no address (RFC 6286): what kind it is, and which.
fn id(kind: u8, index: usize) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, kind, index as u8 + 1)
}

fn ends(nets: Each<IpNetwork>) -> Each<IpAddr> {
    nets.map(|net| net.ip())
}

/// BIRD's word for a version, and what the names of its second protocols end with.
fn channel(family: Family) -> (&'static str, &'static str) {
    match family {
        Family::V4 => ("ipv4", ""),
        Family::V6 => ("ipv6", "_v6"),
    }
}

impl Speaker<'_> {
    /// The configuration. Only what was learned by BGP goes to the kernel; the own PodCIDR is announced from a static
    /// route that the kernel does not get, as the pods' bridge has the real one.
    fn configuration(&self) -> String {
        let mut text = format!("router id {};\nprotocol device {{ scan time 60; }}\n", self.id);
        for family in [Family::V4, Family::V6] {
            let (channel, end) = channel(family);
            text += &format!(
                "protocol kernel kernel_{channel} {{ scan time 60; {channel} {{ import none; export where source = RTS_BGP; \
                 }}; }}\n"
            );
            if let Some(pods) = self.announces.and_then(|all| all.of(family)) {
                text += &format!("protocol static pods{end} {{ {channel}; route {pods} unreachable; }}\n");
            }
            for (name, addresses, number) in &self.peers {
                let Some(address) = addresses.of(family) else { continue };
                // Sessions are opened at once and again soon: a lab has no Internet to be kind to.
                text += &format!(
                    "protocol bgp {name}{end} {{\n  local as {};\n  neighbor {address} as {number};\n  connect delay \
                     time 1;\n  connect retry time 1;\n  error wait time 1, 4;\n  {channel} {{ import all; export where \
                     source ~ [ RTS_STATIC, RTS_BGP ]; }};\n}}\n",
                    self.number
                );
            }
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
            let mut routes = route::list(&mut rtnl, Family::V4)?;
            routes.extend(route::list(&mut rtnl, Family::V6)?);
            let is_own = |pods: &IpNetwork| self.announces.is_some_and(|own| own.has(pods));
            let missing = ground
                .nodes
                .iter()
                .flat_map(|node| node.pod_cidr.iter())
                .find(|pods| !is_own(pods) && !routes.iter().any(|route| route.destination() == *pods));
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
            announces: Some("10.244.1.0/24,fd00:10:244:1::/64".parse().unwrap()),
            peers: vec![(
                "fabric".into(),
                Each { first: [192, 0, 2, 1].into(), second: "fd00::1".parse().ok() },
                64_512,
            )],
        };
        let text = speaker.configuration();
        for words in [
            "router id 192.0.2.11;",
            "route 10.244.1.0/24 unreachable;",
            "protocol bgp fabric {",
            "local as 64601;",
            "neighbor 192.0.2.1 as 64512;",
            "route fd00:10:244:1::/64 unreachable;",
            "protocol bgp fabric_v6 {",
            "neighbor fd00::1 as 64512;",
            "export where source = RTS_BGP;",
        ] {
            assert!(text.contains(words), "{text}");
        }
    }
}
