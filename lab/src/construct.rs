//! From a topology to a running cluster: fabric, nodes, outside, and every pod by CNI.
//!
//! Namespaces are made by the kernel crate and named by bind mounts on the capsule's own /run/netns; pods
//! are made by the plugins, called inside their node's namespace as a runtime does. Nodes are filled in
//! parallel. What fails ends the supervisor, and with it everything that was made.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use cni::runtime::{Added, Attachment, Network, Runtime, Transcript};
use ipnetwork::{IpNetwork, Ipv4Network};
use kernel::addr::{self, AddrOptions};
use kernel::link::{self, Bridge, Change, Veth};
use kernel::route::{self, Family, Route};
use kernel::rule::{self, Rule};
use kernel::{Netns, Rtnl, packet, sysctl};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::sethostname;

use crate::cluster::{Cluster, Node, Outside, Pod, Role, Space};
use crate::containers;
use crate::topology::{FABRIC, OUTSIDE, Topology, mac};

/// The interface of every pod.
pub const IFNAME: &str = "eth0";
/// The bridge of the fabric.
const SWITCH: &str = "lan0";
/// The fabric's link to the host outside.
const WAN: &str = "wan0";
/// The fabric's routes to pods, for packets from outside.
const INGRESS_TABLE: u32 = 100;
/// `FR_ACT_TO_TBL` of linux/fib_rules.h.
const TO_TABLE: u8 = 1;
/// How long a plugin may take before it is killed.
const PLUGIN_LIMIT: Duration = Duration::from_secs(60);
/// How long a wire may take to carry frames.
const WIRE_LIMIT: Duration = Duration::from_secs(5);

/// Tells a step and how long it took.
pub type Progress<'a> = &'a mut dyn FnMut(&str, Duration);

/// Builds the cluster.
///
/// # Errors
/// What failed, where; a plugin's failure comes with all that went into it and came out.
pub fn construct(topology: &Topology, progress: Progress<'_>) -> Result<Cluster> {
    let start = Instant::now();
    let fabric = space("fabric", Role::Fabric)?;
    let outside = space("outside", Role::Outside)?;
    let nodes: Vec<Node> = (0..topology.nodes as usize)
        .map(|index| {
            Ok(Node {
                space: space(&Topology::node_name(index), Role::Node)?,
                address: Topology::node_address(index),
                pod_cidr: Topology::pod_cidr(index),
            })
        })
        .collect::<Result<_>>()?;
    wire(&fabric, &outside, &nodes)?;
    progress(&format!("{}, 1 outside host", count(nodes.len(), "node")), start.elapsed());

    let start = Instant::now();
    let path = plugin_path(topology)?;
    let runtime = Runtime { path: path.clone(), cache: None, timeout: Some(PLUGIN_LIMIT) };
    let mut outside_containers = containers::start(&outside)?;
    let filled: Vec<Result<Vec<Pod>>> = std::thread::scope(|scope| {
        let workers: Vec<_> = nodes
            .iter()
            .enumerate()
            .map(|(index, node)| {
                let runtime = &runtime;
                scope.spawn(move || fill(topology, (index, node), runtime))
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|_| Err(anyhow!("a worker panicked"))))
            .collect()
    });
    let mut pods = Vec::new();
    for filled in filled {
        pods.extend(filled?);
    }
    let from = match topology.cni_bin.as_slice() {
        [] => "podnet".to_owned(),
        dirs => dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(":"),
    };
    progress(&format!("{} by CNI ADD ({from})", count(pods.len(), "pod")), start.elapsed());

    outside_containers.wait_until_ready().context("kubia of outside")?;
    let outside =
        Outside { address: host(OUTSIDE, 9), containers: outside_containers.running, space: outside };
    Ok(Cluster { name: topology.name.clone(), fabric, outside, nodes, pods })
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

/// A new network and UTS namespace, named on /run/netns, without IPv6 of its own accord (so that idle wires
/// are quiet), with lo up where no plugin will do that.
fn space(name: &str, role: Role) -> Result<Space> {
    let netns = Netns::create().with_context(|| format!("namespace of {name}"))?;
    publish(name, &netns)?;
    let quiet = || -> kernel::Result<()> {
        for which in ["all", "default"] {
            let key = format!("net/ipv6/conf/{which}/disable_ipv6");
            if sysctl::read(&key).is_ok() {
                sysctl::write(&key, "1")?;
            }
        }
        Ok(())
    };
    netns.run(quiet)?.with_context(|| format!("sysctls of {name}"))?;
    if role != Role::Pod {
        let mut rtnl = Rtnl::open_in(&netns)?;
        let lo = link::by_name(&mut rtnl, "lo")?;
        link::set(&mut rtnl, lo.index, &Change { up: Some(true), ..Change::default() })?;
    }
    let uts = in_thread(|| {
        unshare(CloneFlags::CLONE_NEWUTS).context("new UTS namespace")?;
        sethostname(name).context("set the host name")?;
        Ok(File::open("/proc/thread-self/ns/uts")?)
    })
    .with_context(|| format!("UTS namespace of {name}"))?;
    Ok(Space { name: name.to_owned(), netns, uts: Some(uts), role })
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
fn publish(name: &str, netns: &Netns) -> Result<()> {
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

/// The directories that plugins are found in: those of the topology, or one in the capsule with every name
/// of the podnet that stands beside podlab.
fn plugin_path(topology: &Topology) -> Result<Vec<PathBuf>> {
    if !topology.cni_bin.is_empty() {
        return Ok(topology.cni_bin.clone());
    }
    let beside = std::env::current_exe().context("find podlab itself")?.with_file_name("podnet");
    if !beside.is_file() {
        bail!(
            "no podnet beside podlab ({}) · try: cargo build --release, or --cni-bin DIR",
            beside.display()
        );
    }
    let dir = PathBuf::from("/run/podlab/bin");
    if dir.join("bridge").exists() {
        return Ok(vec![dir]);
    }
    let list = Command::new(&beside).arg("list").output().context("podnet list")?;
    let names = String::from_utf8_lossy(&list.stdout).into_owned();
    for name in names.lines().filter_map(|line| line.split_whitespace().next()) {
        symlink(&beside, dir.join(name)).with_context(|| format!("plugin {name}"))?;
    }
    Ok(vec![dir])
}

/// All pods of a node, on a thread that stays in the node's namespace.
fn fill(topology: &Topology, (index, node): (usize, &Node), runtime: &Runtime) -> Result<Vec<Pod>> {
    enter(&node.space)?;
    let loopback = Network::parse(
        br#"{"cniVersion":"1.0.0","name":"podlab-loopback","plugins":[{"type":"loopback"}]}"#,
    )?;
    let network = Network::parse(topology.network(index).as_bytes())?;
    let (mut pods, mut waiting) = (Vec::new(), Vec::new());
    for number in 0..topology.pods as usize {
        let space = space(&topology.pod_name(index, number), Role::Pod)?;
        let container_id = topology.container_id(&space.name);
        add(runtime, &loopback, &attachment(&space.name, &container_id, "lo"), node)?;
        let added = add(runtime, &network, &attachment(&space.name, &container_id, IFNAME), node)?;
        // Best effort: not every plugin makes a device that can.
        let _ = space.netns.run(|| packet::ethtool_offloads(IFNAME, false))?;
        let addresses = added.result.ips.iter().map(|ip| ip.address.ip()).collect();
        let mut containers = containers::start(&space)?;
        waiting.push((space.name.clone(), containers.ready.take()));
        pods.push(Pod {
            node: index,
            container_id,
            ifname: IFNAME.to_owned(),
            addresses,
            result: added.json,
            containers: containers.running,
            space,
        });
    }
    // All of them start while the next pods are made.
    for (name, ready) in waiting {
        containers::wait_until_ready(ready).with_context(|| format!("kubia of {name}"))?;
    }
    Ok(pods)
}

/// What a pod is called towards the plugins, with the arguments that a kubelet passes.
fn attachment(pod: &str, container_id: &str, ifname: &str) -> Attachment {
    let args = [("IgnoreUnknown", "1"), ("K8S_POD_NAMESPACE", "default"), ("K8S_POD_NAME", pod)];
    Attachment {
        container_id: container_id.to_owned(),
        ifname: ifname.to_owned(),
        netns: netns_path(pod),
        args: args.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        ..Attachment::default()
    }
}

fn add(runtime: &Runtime, network: &Network, attachment: &Attachment, node: &Node) -> Result<Added> {
    let report = runtime.add_list(network, attachment);
    report.outcome.map_err(|err| {
        let pod = attachment.args.last().map(|(_, name)| name.as_str()).unwrap_or_default();
        let call = report.calls.iter().find(|call| call.exit != Some(0)).map(transcript).unwrap_or_default();
        anyhow!("{}: CNI ADD of pod {pod} to network {:?}: {err}{call}", node.space.name, network.name)
    })
}

/// A plugin's call as text: what went in and came out.
fn transcript(call: &Transcript) -> String {
    let env: Vec<String> = call.env.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let exit = call.exit.map_or_else(|| "no exit code".to_owned(), |code| format!("exit {code}"));
    format!(
        "\n  plugin: {}\n  env:    {}\n  stdin:  {}\n  stdout: {}\n  stderr: {}\n  {exit} after {:.1} ms",
        call.plugin.display(),
        env.join(" "),
        call.stdin.trim(),
        call.stdout.trim(),
        call.stderr.trim(),
        call.ms
    )
}

/// Deletes every pod by CNI DEL, as a runtime does when pods end; returns what did not go.
///
/// # Errors
/// The network configuration or the plugins are not to be found any more.
pub fn delete_pods(topology: &Topology, cluster: &Cluster) -> Result<Vec<String>> {
    let runtime = Runtime { path: plugin_path(topology)?, cache: None, timeout: Some(PLUGIN_LIMIT) };
    let mut errors = Vec::new();
    for (index, node) in cluster.nodes.iter().enumerate() {
        let network = Network::parse(topology.network(index).as_bytes())?;
        let pods = cluster.pods.iter().filter(|pod| pod.node == index);
        let attachments: Vec<_> =
            pods.map(|pod| (attachment(&pod.space.name, &pod.container_id, IFNAME), &pod.result)).collect();
        let outcomes = node.space.netns.run(|| {
            let del = |(attachment, result)| runtime.del_list(&network, attachment, Some(result)).outcome;
            attachments.iter().map(|(attachment, result)| del((attachment, *result))).collect::<Vec<_>>()
        })?;
        let failed = outcomes.into_iter().zip(&attachments).filter_map(|(outcome, (attachment, _))| {
            outcome.err().map(|err| format!("{}: {err}", attachment.container_id))
        });
        errors.extend(failed);
    }
    Ok(errors)
}
