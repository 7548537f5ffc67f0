//! From a topology to a running cluster: fabric, nodes, outside, and every pod by CNI.
//!
//! Namespaces are named by bind mounts on the capsule's own /run/netns; the nodes' agents make the pods, all nodes at
//! the same time. What fails ends the supervisor, and with it everything that was made.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use kernel::link::{self, Change};
use kernel::{Family, Netns, Rtnl, sysctl};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::sethostname;

use crate::agent::Agent;
use crate::cluster::{Cluster, Node, Outside, Pod, Role, Space};
use crate::modes::Ground;
use crate::objects::Objects;
use crate::topology::Topology;
use crate::{capture, fabric, plugins};

/// The interface of every pod.
pub const IFNAME: &str = "eth0";
/// Waiting for this long is told.
const NOTABLE: Duration = Duration::from_millis(1);

/// Tells a step and how long it took.
pub type Progress<'a> = &'a mut dyn FnMut(&str, Duration);

/// Builds the cluster; also gives the nodes' agents, in the order of the nodes.
///
/// # Errors
/// What failed, where; a plugin's failure comes with all that went into it and came out.
pub fn construct(topology: &Topology, progress: Progress<'_>) -> Result<(Cluster, Vec<Agent>)> {
    topology.mode.require()?;
    capture::keep_stamping()?;
    let start = Instant::now();
    let has_v6 = topology.ranges.pods.of(Family::V6).is_some();
    let fabric = space("fabric", Role::Fabric, has_v6)?;
    let outside = topology.outside.iter().map(|host| space(&host.name, Role::Outside, has_v6));
    let outside = outside.collect::<Result<Vec<_>>>()?;
    let nodes: Vec<Node> = (0..topology.nodes.len())
        .map(|index| {
            Ok(Node {
                space: space(topology.node_name(index), Role::Node, has_v6)?,
                rack: topology.rack(index),
                address: topology.node_address(index),
                pod_cidr: topology.pod_cidr(index),
            })
        })
        .collect::<Result<_>>()?;
    let racks: Vec<Space> = (0..if topology.racks > 1 { topology.racks as usize } else { 0 })
        .map(|rack| space(&Topology::rack_name(rack), Role::Fabric, has_v6))
        .collect::<Result<_>>()?;
    let ground = Ground { topology, fabric: &fabric, racks: &racks, nodes: &nodes };
    fabric::wire(&ground, &outside)?;
    let on = if racks.is_empty() { String::new() } else { format!(" in {}", count(racks.len(), "rack")) };
    let hosts = count(outside.len(), "outside host");
    progress(&format!("{}{on}, {hosts}", count(nodes.len(), "node")), start.elapsed());
    let start = Instant::now();
    topology.mode.prepare(&ground)?;
    progress(&format!("mode {} on every node", topology.mode), start.elapsed());

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
    let inhabited = outside.into_iter().enumerate().map(|(index, space)| {
        let mut agent = Agent::start(&space)?;
        let about = || format!("containers of {}", space.name);
        let (containers, uts) = agent.host(&space).with_context(about)?;
        agent.end();
        let (wan, address) = (fabric::wan(index), topology.outside[index].address);
        Ok(Outside { wan, address, containers, space: Space { uts: Some(uts), ..space } })
    });
    let outside = inhabited.collect::<Result<Vec<_>>>()?;
    let from = match topology.cni_bin.as_slice() {
        [] => "podnet".to_owned(),
        dirs => dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(":"),
    };
    progress(&format!("{} by CNI ADD ({from})", count(pods.len(), "pod")), start.elapsed());

    let start = Instant::now();
    topology.mode.settle(&ground)?;
    if start.elapsed() > NOTABLE {
        progress(&format!("mode {} has settled", topology.mode), start.elapsed());
    }

    let (name, mode, objects) = (topology.name.clone(), topology.mode, Objects::of(topology.seed));
    let ranges = topology.ranges;
    let cluster = Cluster { name, mode, ranges, fabric, racks, outside, nodes, pods, objects };
    mode.tell(&mut cluster.told())?;
    Ok((cluster, agents))
}

/// A number of things, in words.
pub(crate) fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// A new network and UTS namespace, named on /run/netns, with lo up.
fn space(name: &str, role: Role, has_v6: bool) -> Result<Space> {
    let netns = Netns::create().with_context(|| format!("namespace of {name}"))?;
    publish(name, &netns)?;
    netns.run(|| silence(Path::new("/proc"), has_v6))?.with_context(|| format!("sysctls of {name}"))?;
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

/// Nothing of its own accord, so that idle wires are quiet. Without IPv6 that is one write, as `all` sets `default` too
/// (addrconf_disable_ipv6, net/ipv6/addrconf.c), and a path below /proc/sys costs more the more namespaces there are. With it,
/// no router is asked for, no address is looked for before it is used, and listeners are reported at once and not over
/// seconds. `proc` is where proc(5) is mounted.
pub(crate) fn silence(proc: &Path, has_v6: bool) -> kernel::Result<()> {
    let write = |name: &str, value: &str| sysctl::write_by(proc, &format!("net/ipv6/conf/{name}"), value);
    if has_v6 {
        for (name, value) in QUIET {
            write(name, value)?;
        }
        return Ok(());
    }
    match write("all/disable_ipv6", "1") {
        Err(err) if err.is_not_found() => Ok(()),
        other => other,
    }
}

/// What links that come get (Documentation/networking/ip-sysctl.rst).
const QUIET: [(&str, &str); 5] = [
    ("default/accept_ra", "0"),
    ("default/accept_dad", "0"),
    // A plugin may turn it on again; then it asks nobody.
    ("default/dad_transmits", "0"),
    // As IPv4's are, addresses are there again when a link is.
    ("default/keep_addr_on_down", "1"),
    ("default/mldv2_unsolicited_report_interval", "1"),
];

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
