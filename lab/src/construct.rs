//! From a topology to a running cluster: fabric, nodes, outside, and every pod by CNI.
//!
//! Namespaces are named by bind mounts on the capsule's own /run/netns; the nodes' agents make the pods, all nodes at
//! the same time. What fails ends the supervisor, and with it everything that was made.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use ipnetwork::{IpNetwork, Ipv4Network};
use kernel::addr::{self, AddrOptions};
use kernel::link::{self, Bridge, Change, Veth};
use kernel::route::{self, Family, Route};
use kernel::rule::{self, Rule};
use kernel::{Netns, Rtnl, packet, sysctl};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::sethostname;

use crate::agent::Agent;
use crate::cluster::{Cluster, Node, Outside, Pod, Role, Space};
use crate::objects::Objects;
use crate::plugins;
use crate::topology::{FABRIC, OUTSIDE, Topology, mac};

/// The interface of every pod.
pub const IFNAME: &str = "eth0";
/// The bridge of the fabric.
const SWITCH: &str = "lan0";
/// The fabric's link to the host outside.
const WAN: &str = "wan0";
/// The fabric's routes to pods, for packets from outside.
pub(crate) const INGRESS_TABLE: u32 = 100;
/// `FR_ACT_TO_TBL` of linux/fib_rules.h.
const TO_TABLE: u8 = 1;
/// How long a wire may take to carry frames.
const WIRE_LIMIT: Duration = Duration::from_secs(5);

/// Tells a step and how long it took.
pub type Progress<'a> = &'a mut dyn FnMut(&str, Duration);

/// Builds the cluster; also gives the nodes' agents, in the order of the nodes.
///
/// # Errors
/// What failed, where; a plugin's failure comes with all that went into it and came out.
pub fn construct(topology: &Topology, progress: Progress<'_>) -> Result<(Cluster, Vec<Agent>)> {
    let start = Instant::now();
    let fabric = space("fabric", Role::Fabric)?;
    let outside = space("outside", Role::Outside)?;
    let nodes: Vec<Node> = (0..topology.nodes as usize)
        .map(|index| {
            Ok(Node {
                space: space(&Topology::node_name(index), Role::Node)?,
                address: Topology::node_address(index),
                pod_cidr: topology.pod_cidr(index),
            })
        })
        .collect::<Result<_>>()?;
    wire(&fabric, &outside, &nodes)?;
    progress(&format!("{}, 1 outside host", count(nodes.len(), "node")), start.elapsed());

    let start = Instant::now();
    let path = plugins::path(topology)?;
    let mut agents = nodes.iter().map(|node| Agent::start(&node.space)).collect::<Result<Vec<_>>>()?;
    let filled: Vec<Result<Vec<Pod>>> = std::thread::scope(|scope| {
        let path = &path;
        let fill = |(index, agent): (usize, &'_ mut Agent)| agent.fill(topology, index, path);
        let workers = agents.iter_mut().enumerate();
        let workers: Vec<_> = workers.map(|numbered| scope.spawn(move || fill(numbered))).collect();
        let join = |worker: std::thread::ScopedJoinHandle<'_, _>| worker.join();
        workers
            .into_iter()
            .map(|worker| join(worker).unwrap_or_else(|_| Err(anyhow!("a worker panicked"))))
            .collect()
    });
    let mut pods = Vec::new();
    for filled in filled {
        pods.extend(filled?);
    }
    let mut host_agent = Agent::start(&outside)?;
    let (containers, uts) = host_agent.host(&outside).context("containers of outside")?;
    host_agent.end();
    let from = match topology.cni_bin.as_slice() {
        [] => "podnet".to_owned(),
        dirs => dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(":"),
    };
    progress(&format!("{} by CNI ADD ({from})", count(pods.len(), "pod")), start.elapsed());

    let outside =
        Outside { address: host(OUTSIDE, 9), containers, space: Space { uts: Some(uts), ..outside } };
    let objects = Objects::of(topology.seed);
    Ok((Cluster { name: topology.name.clone(), fabric, outside, nodes, pods, objects }, agents))
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// The address with that last number.
fn host(net: Ipv4Network, last: u8) -> Ipv4Addr {
    let [a, b, c, _] = net.ip().octets();
    Ipv4Addr::new(a, b, c, last)
}

fn with_prefix(address: Ipv4Addr, net: Ipv4Network) -> Result<IpNetwork> {
    Ok(IpNetwork::new(IpAddr::V4(address), net.prefix())?)
}

/// A new network and UTS namespace, named on /run/netns, with lo up.
fn space(name: &str, role: Role) -> Result<Space> {
    let netns = Netns::create().with_context(|| format!("namespace of {name}"))?;
    publish(name, &netns)?;
    netns.run(silence)?.with_context(|| format!("sysctls of {name}"))?;
    let mut rtnl = Rtnl::open_in(&netns)?;
    let lo = link::by_name(&mut rtnl, "lo")?;
    link::set(&mut rtnl, lo.index, &Change { up: Some(true), ..Change::default() })?;
    let uts = in_thread(|| {
        unshare(CloneFlags::CLONE_NEWUTS).context("new UTS namespace")?;
        sethostname(name).context("set the host name")?;
        Ok(File::open("/proc/thread-self/ns/uts")?)
    })
    .with_context(|| format!("UTS namespace of {name}"))?;
    Ok(Space { name: name.to_owned(), netns, uts: Some(uts), role })
}

/// Without IPv6 of its own accord, so that idle wires are quiet: one write, as `all` sets `default` too
/// (addrconf_disable_ipv6, net/ipv6/addrconf.c), and a path below /proc/sys costs more the more namespaces there are.
pub(crate) fn silence() -> kernel::Result<()> {
    match sysctl::write("net/ipv6/conf/all/disable_ipv6", "1") {
        Err(err) if err.is_not_found() => Ok(()),
        other => other,
    }
}

/// Runs `work` on a thread of its own, which may change its namespaces for good.
pub(crate) fn in_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(|_| Err(anyhow!("a worker panicked")))
}

/// The path under which a namespace is known to `ip netns` and to plugins.
pub fn netns_path(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

/// Names the namespace as ip-netns(8) does.
pub(crate) fn publish(name: &str, netns: &impl AsFd) -> Result<()> {
    let path = netns_path(name);
    File::create(&path).with_context(|| format!("create {}", path.display()))?;
    let source = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&netns.as_fd()));
    let none: Option<&str> = None;
    mount(Some(source.as_str()), &path, none, MsFlags::MS_BIND, none)
        .with_context(|| format!("bind netns to {}", path.display()))
}

/// Moves the calling thread into a space for good.
pub(crate) fn enter(space: &Space) -> Result<()> {
    setns(space.netns.as_fd(), CloneFlags::CLONE_NEWNET)
        .with_context(|| format!("enter netns {}", space.name))?;
    if let Some(uts) = &space.uts {
        setns(uts, CloneFlags::CLONE_NEWUTS)
            .with_context(|| format!("enter UTS namespace {}", space.name))?;
    }
    Ok(())
}

/// Fabric, nodes and outside: wires, addresses, routes, forwarding.
fn wire(fabric: &Space, outside: &Space, nodes: &[Node]) -> Result<()> {
    let mut rtnl = Rtnl::open_in(&fabric.netns)?;
    let switch = Bridge { name: SWITCH, mac: Some(mac(0xfa, 1)), up: true, ..Bridge::default() };
    link::add_bridge(&mut rtnl, &switch).context("fabric")?;
    let lan = link::by_name(&mut rtnl, SWITCH)?.index;
    let router = host(FABRIC, 1);
    addr::add(&mut rtnl, lan, with_prefix(router, FABRIC)?, &AddrOptions::default()).context("fabric")?;

    let wan = plug(&mut rtnl, WAN, None, (mac(0xfa, 2), mac(0x0f, 9)), outside)?;
    addr::add(&mut rtnl, wan, with_prefix(host(OUTSIDE, 1), OUTSIDE)?, &AddrOptions::default())
        .context("fabric")?;
    attach(outside, host(OUTSIDE, 9), OUTSIDE, host(OUTSIDE, 1))?;

    // The router knows the way to pods for those outside only. Between nodes it does not help: a node without
    // its route to another's pods does not reach them, as on any LAN whose router knows nothing of pods.
    let from_outside = Rule {
        family: Family::V4,
        priority: 100,
        src: None,
        dst: None,
        iif: Some(WAN.to_owned()),
        oif: None,
        mark: None,
        action: TO_TABLE,
        table: INGRESS_TABLE,
    };
    rule::add(&mut rtnl, &from_outside).context("fabric")?;
    let mut ports = vec![wan];
    for (index, node) in nodes.iter().enumerate() {
        let macs = (mac(0xfb, index + 1), mac(0x0e, index + 1));
        ports.push(plug(&mut rtnl, &node.space.name, Some(lan), macs, &node.space)?);
        let mut own = attach(&node.space, node.address, FABRIC, router)?;
        for other in nodes.iter().filter(|other| other.address != node.address) {
            add_route(&mut own, other.pod_cidr, other.address).with_context(|| node.space.name.clone())?;
        }
        let way_in = Route {
            dst: Some(IpNetwork::V4(node.pod_cidr)),
            gateway: Some(node.address.into()),
            table: Some(INGRESS_TABLE),
            ..Route::default()
        };
        route::add(&mut rtnl, &way_in).context("fabric")?;
    }
    for space in [fabric].into_iter().chain(nodes.iter().map(|node| &node.space)) {
        space
            .netns
            .run(|| sysctl::ensure("net/ipv4/ip_forward", "1"))?
            .with_context(|| format!("forwarding of {}", space.name))?;
    }
    for port in ports {
        if !link::wait_oper_up(&mut rtnl, port, WIRE_LIMIT)? {
            bail!("wire {port} of the fabric carries no frames after {} s", WIRE_LIMIT.as_secs());
        }
    }
    Ok(())
}

/// A wire from the fabric, where its end is `name`, to `space`, where it is eth0. Segmentation stays off on
/// both ends, so that a capture shows the packets that a real wire would carry.
fn plug(
    rtnl: &mut Rtnl,
    name: &str,
    master: Option<u32>,
    (near, far): (kernel::Mac, kernel::Mac),
    space: &Space,
) -> Result<u32> {
    let what = || format!("wire from the fabric to {}", space.name);
    let veth = Veth {
        name,
        peer: IFNAME,
        mac: Some(near),
        peer_mac: Some(far),
        mtu: 0,
        master,
        up: true,
        peer_netns: Some(space.netns.as_fd()),
    };
    link::add_veth(rtnl, &veth).with_context(what)?;
    Ok(link::by_name(rtnl, name).with_context(what)?.index)
}

/// eth0 of `space` gets its address and its default route.
fn attach(space: &Space, address: Ipv4Addr, net: Ipv4Network, gateway: Ipv4Addr) -> Result<Rtnl> {
    let configure = || -> Result<Rtnl> {
        let mut rtnl = Rtnl::open_in(&space.netns)?;
        let eth0 = link::by_name(&mut rtnl, IFNAME)?.index;
        addr::add(&mut rtnl, eth0, with_prefix(address, net)?, &AddrOptions::default())?;
        link::set(&mut rtnl, eth0, &Change { up: Some(true), ..Change::default() })?;
        route::add(&mut rtnl, &Route { gateway: Some(gateway.into()), ..Route::default() })?;
        space.netns.run(|| packet::ethtool_offloads(IFNAME, false))??;
        Ok(rtnl)
    };
    configure().with_context(|| format!("eth0 of {}", space.name))
}

fn add_route(rtnl: &mut Rtnl, to: Ipv4Network, via: Ipv4Addr) -> Result<()> {
    let route = Route { dst: Some(IpNetwork::V4(to)), gateway: Some(via.into()), ..Route::default() };
    Ok(route::add(rtnl, &route)?)
}
