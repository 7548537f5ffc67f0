//! A small cluster made by hand: namespaces held by descriptor, containers as threads, logs in memory.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, mpsc};
use std::thread;

use ipnetwork::{IpNetwork, Ipv4Network};
use kernel::addr::{self, AddrOptions};
use kernel::link::{self, Bridge, Change, Veth};
use kernel::route::{self, Route};
use kernel::{Netns, Rtnl, sysctl};
use nix::fcntl::OFlag;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{getpid, gettid, pipe2};
use podlab::cluster::{Cluster, Containers, Node, Outside, Pod, PodMeta, Role, Space};
use podlab::modes::Selected;
use podlab::objects::Objects;
use podlab::probe::{Sidecar, serve_sidecar};
use podlab::stack::Each;
use podlab::{kubia, verdict, verify};

/// A cluster with this many nodes and pods on each.
pub(crate) fn cluster(nodes: usize, pods_per_node: usize) -> Cluster {
    let fabric = space("fabric", Role::Fabric);
    let outside = space("outside", Role::Outside);
    let mut inside_fabric = Rtnl::open_in(&fabric.netns).unwrap();
    let lan = bridge(&mut inside_fabric, "lan0", net("192.0.2.1/24"));
    forward(&fabric);

    wire(&mut inside_fabric, "wan0", None, &outside, "eth0");
    let wan = link::by_name(&mut inside_fabric, "wan0").unwrap().index;
    addr::add(&mut inside_fabric, wan, net("203.0.113.1/24"), &AddrOptions::default()).unwrap();
    configure(&outside, net("203.0.113.9/24"), "0.0.0.0/0", "203.0.113.1");

    let mut all_nodes = Vec::new();
    let mut all_pods = Vec::new();
    for n in 1..=nodes {
        let node = space(&format!("node{n}"), Role::Node);
        let address = Ipv4Addr::new(192, 0, 2, 10 + n as u8);
        wire(&mut inside_fabric, &node.name, Some(lan), &node, "eth0");
        configure(&node, IpNetwork::new(address.into(), 24).unwrap(), "203.0.113.0/24", "192.0.2.1");
        let mut rtnl = Rtnl::open_in(&node.netns).unwrap();
        for other in (1..=nodes).filter(|other| *other != n) {
            add_route(&mut rtnl, &format!("10.244.{other}.0/24"), &format!("192.0.2.{}", 10 + other));
        }
        add_route(&mut inside_fabric, &format!("10.244.{n}.0/24"), &address.to_string());
        forward(&node);
        let cni0 = bridge(&mut rtnl, "cni0", net(&format!("10.244.{n}.1/24")));
        for p in 1..=pods_per_node {
            let name = format!("kubia-{}", (n - 1) * pods_per_node + p);
            let pod = space(&name, Role::Pod);
            wire(&mut rtnl, &format!("veth{p}"), Some(cni0), &pod, "eth0");
            let own = Ipv4Addr::new(10, 244, n as u8, 1 + p as u8);
            let gateway = format!("10.244.{n}.1");
            configure(&pod, IpNetwork::new(own.into(), 24).unwrap(), "0.0.0.0/0", &gateway);
            all_pods.push(Pod {
                containers: containers(&pod),
                space: pod,
                node: n - 1,
                container_id: name,
                ifname: "eth0".into(),
                addresses: vec![own.into()],
                result: serde_json::Value::Null,
                meta: PodMeta::default(),
            });
        }
        let pod_cidr = Ipv4Network::new(Ipv4Addr::new(10, 244, n as u8, 0), 24).unwrap();
        all_nodes.push(Node {
            space: node,
            rack: 0,
            address: Each::one(address.into()),
            pod_cidr: Each::one(pod_cidr.into()),
        });
    }
    Cluster {
        name: "bed".into(),
        mode: Selected::default(),
        ranges: podlab::topology::Ranges::default(),
        fabric,
        racks: Vec::new(),
        outside: vec![Outside {
            wan: "wan0".into(),
            address: Each::one(Ipv4Addr::new(203, 0, 113, 9).into()),
            containers: containers(&outside),
            space: outside,
        }],
        nodes: all_nodes,
        pods: all_pods,
        objects: Objects::of(None),
    }
}

pub(crate) fn net(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

fn space(name: &str, role: Role) -> Space {
    let netns = Netns::create().unwrap();
    netns.run(|| sysctl::write("net/ipv6/conf/default/disable_ipv6", "1").unwrap()).unwrap();
    let mut rtnl = Rtnl::open_in(&netns).unwrap();
    up(&mut rtnl, "lo");
    Space { name: name.into(), netns, uts: None, role }
}

fn up(rtnl: &mut Rtnl, name: &str) -> u32 {
    let index = link::by_name(rtnl, name).unwrap().index;
    link::set(rtnl, index, &Change { up: Some(true), ..Change::default() }).unwrap();
    index
}

fn forward(space: &Space) {
    space.netns.run(|| sysctl::write("net/ipv4/ip_forward", "1").unwrap()).unwrap();
}

fn bridge(rtnl: &mut Rtnl, name: &str, address: IpNetwork) -> u32 {
    link::add_bridge(rtnl, &Bridge { name, up: true, ..Bridge::default() }).unwrap();
    let index = link::by_name(rtnl, name).unwrap().index;
    addr::add(rtnl, index, address, &AddrOptions::default()).unwrap();
    index
}

fn wire(rtnl: &mut Rtnl, name: &str, master: Option<u32>, to: &Space, peer: &str) {
    let veth = Veth { name, peer, master, up: true, peer_netns: Some(to.netns.as_fd()), ..Veth::default() };
    link::add_veth(rtnl, &veth).unwrap();
}

fn configure(space: &Space, address: IpNetwork, to: &str, gateway: &str) {
    let mut rtnl = Rtnl::open_in(&space.netns).unwrap();
    let index = up(&mut rtnl, "eth0");
    addr::add(&mut rtnl, index, address, &AddrOptions::default()).unwrap();
    add_route(&mut rtnl, to, gateway);
}

pub(crate) fn route_to(to: &str, gateway: &str) -> Route {
    Route { dst: Some(net(to)), gateway: Some(gateway.parse::<IpAddr>().unwrap()), ..Route::default() }
}

pub(crate) fn add_route(rtnl: &mut Rtnl, to: &str, gateway: &str) {
    route::add(rtnl, &route_to(to, gateway)).unwrap();
}

/// Removes a route of a namespace.
pub(crate) fn remove_route(space: &Space, to: &str, gateway: &str) {
    let mut rtnl = Rtnl::open_in(&space.netns).unwrap();
    route::delete(&mut rtnl, &route_to(to, gateway)).unwrap();
}

fn containers(space: &Space) -> Containers {
    let log = File::from(memfd_create(c"kubia", MFdFlags::MFD_CLOEXEC).unwrap());
    let kubia_log = PathBuf::from(format!("/proc/{}/fd/{}", getpid(), log.as_raw_fd()));
    let (stdin, requests) = pipe2(OFlag::O_CLOEXEC).unwrap();
    let (answers, stdout) = pipe2(OFlag::O_CLOEXEC).unwrap();
    let (tell, told) = mpsc::channel();
    let enter = || Netns::from(space.netns.as_fd().try_clone_to_owned().unwrap());

    let (netns, name, ready) = (enter(), space.name.clone(), tell.clone());
    thread::spawn(move || {
        let serve = || kubia::serve(&name, log, || ready.send(gettid().as_raw()).unwrap());
        netns.run(serve).unwrap().unwrap();
    });
    let kubia_pid = told.recv().unwrap();
    let netns = enter();
    thread::spawn(move || {
        let serve = || {
            tell.send(gettid().as_raw()).unwrap();
            serve_sidecar(File::from(stdin), File::from(stdout))
        };
        netns.run(serve).unwrap().unwrap();
    });
    let sidecar = Mutex::new(Sidecar::new(requests, answers));
    Containers { kubia_pid, sidecar_pid: told.recv().unwrap(), sidecar, kubia_log }
}

/// Runs a command inside a namespace; it has to succeed.
pub(crate) fn run_in(space: &Space, program: &str, args: &[&str]) {
    output_of(space, program, args);
}

/// The same, and what it prints.
pub(crate) fn output_of(space: &Space, program: &str, args: &[&str]) -> String {
    let output = space.netns.run(|| Command::new(program).args(args).output()).unwrap().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Verifies with these checks, or with all.
pub(crate) fn verified(cluster: &Cluster, checks: &[&str]) -> verdict::Report {
    let options = verify::VerifyOptions {
        checks: checks.iter().map(ToString::to_string).collect(),
        ..verify::VerifyOptions::default()
    };
    verify::run(cluster, &options, &mut |_, _| {}).unwrap()
}

/// The report as people see it, for the message of a failing test.
pub(crate) fn shown(report: &verdict::Report) -> String {
    verdict::render_table(report, verdict::Style::default())
}
