//! Two nodes with nine pods, made by the real plugins; on each the agent's policy; and every connection that can be
//! tried between them, tried with one packet.
//!
//! ```text
//!   x/a x/c y/b z/a z/c           x/b y/a y/c z/b
//!        │ ptp, podnet-policy          │
//!       n0 ──────── switch ────────── n1
//!                     │
//!                  outside
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use agent::model::{Change, Cluster, Key, Protocol};
use agent::policy::Enforcer;
use agent::policy::compile::compile;
use agent::policy::evaluate::{Addresses, Connection, evaluate};
use agent::policy::slots::Slots;
use agent::wire;
use anyhow::{Context, Result, ensure};
use kernel::packet::PacketSocket;
use kernel::{Mac, Netns, Rtnl, link};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use podnet_tests::nodes::{Node, Nodes, Pod};
use podnet_tests::plugins;
use serde_json::{Value, json};

use super::frames::{self, Tuple};
use super::oracle::{Objects, Party};

/// The namespaces, and the pods of each.
pub(super) const NAMESPACES: [&str; 3] = ["x", "y", "z"];
pub(super) const PODS: [&str; 3] = ["a", "b", "c"];
/// The ports that are tried. The first has a name in every pod, the second in pods `b` only.
pub(super) const PORTS: [u16; 2] = [80, 81];
/// The first source port; each try of all has its own.
const FIRST: u16 = 20_000;
/// Frames that cross no more links than this on their way are through after as many turns of [`Turn`].
const TURNS: usize = 8;

/// Timeouts of connections that are not answered.
const FORGET: [&str; 4] =
    ["udp_timeout", "tcp_timeout_syn_sent", "tcp_timeout_close", "sctp_timeout_cookie_wait"];

/// A pod's object.
pub(super) fn pod_object(namespace: &str, name: &str, node: &str, ips: &[IpAddr]) -> Value {
    let mut ports = Vec::new();
    for protocol in Protocol::ALL {
        let lower = protocol.name().to_lowercase();
        ports.push(
            json!({"name": format!("serve-80-{lower}"), "containerPort": 80, "protocol": protocol.name()}),
        );
        if name == "b" {
            ports.push(json!({"name": format!("serve-81-{lower}"), "containerPort": 81, "protocol": protocol.name()}));
        }
    }
    let ips: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "uid": format!("uid-{namespace}-{name}"),
            "labels": {"pod": name}},
        "spec": {"nodeName": node, "containers": [{"name": "c", "ports": ports}]},
        "status": {"podIPs": ips, "phase": "Running"},
    })
}

/// A namespace's object.
pub(super) fn namespace_object(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "labels": {"ns": name, "kubernetes.io/metadata.name": name}}})
}

/// Has a node make the pod of [`pod_object`].
pub(super) fn add_pod(node: &Node, namespace: &str, name: &str) -> Result<Pod> {
    node.add_pod_with(namespace, name, Some(&format!("uid-{namespace}-{name}")), serde_json::Map::new())
}

/// The configuration list of a node: the chain that podnetd writes.
pub(super) fn conflist(node: &Node, chained: bool) -> Value {
    let [v4, v6] = node.pod_cidrs();
    let mut plugins = vec![json!({
        "type": "ptp", "mtu": 1400,
        "ipam": {"type": "host-local", "dataDir": node.root.join("var/lib/cni/networks"),
            "ranges": [[{"subnet": v4}], [{"subnet": v6}]],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]},
    })];
    if chained {
        plugins.push(json!({"type": "podnet-policy", "dataDir": node.root.join("run/podnet")}));
    }
    json!({"cniVersion": "1.0.0", "name": "podnet", "plugins": plugins})
}

/// Gives every node its plugins and its list.
pub(super) fn furnish(nodes: &Nodes, chained: bool) -> Result<()> {
    for node in &nodes.nodes {
        for name in ["ptp", "podnet-policy", "host-local"] {
            symlink(plugins::podnet()?, node.root.join("opt/cni/bin").join(name)).context("link a plugin")?;
        }
        let list = conflist(node, chained).to_string();
        std::fs::write(node.root.join("etc/cni/net.d/05-podnet.conflist"), list).context("write the list")?;
    }
    for (node, peer) in nodes.nodes.iter().zip(nodes.nodes.iter().rev()) {
        if node.number != peer.number {
            let ([v4, v6], [cidr4, cidr6]) = (peer.addresses(), peer.pod_cidrs());
            node.ip(&[&format!("route add {cidr4} via {v4}"), &format!("-6 route add {cidr6} via {v6}")])?;
        }
    }
    Ok(())
}

/// Where frames leave, and where they are seen.
#[derive(Debug)]
struct Spot {
    party: [Party; 2],
    sends: PacketSocket,
    mac: Mac,
    /// Where its frames go: by the node of the destination; a pod's always to its own node.
    to: Vec<Mac>,
    hears: PacketSocket,
    /// Its node's number, of a pod; of a node itself; `None` outside.
    node: Option<usize>,
}

/// A frame through namespaces beside: behind it everything that was queued before on this processor has gone one link
/// further.
#[derive(Debug)]
struct Turn {
    sends: PacketSocket,
    hears: PacketSocket,
    frame: Vec<u8>,
    _far: Netns,
}

/// Everything.
#[derive(Debug)]
pub(super) struct Bed {
    pub(super) nodes: Nodes,
    _pods: Vec<Pod>,
    pub(super) objects: Objects,
    pub(super) pod_objects: BTreeMap<Key, Value>,
    pub(super) cluster: Cluster,
    pub(super) enforcers: Vec<Enforcer>,
    spots: Vec<Spot>,
    turn: Turn,
    round: u16,
}

/// What was tried and what came of it.
#[derive(Debug, Default)]
pub(super) struct Tried {
    /// Connections that the oracle and the agent's judge agree on.
    pub(super) judged: usize,
    /// Of these, how many were tried with a packet.
    pub(super) packets: usize,
    /// How many are allowed.
    pub(super) allowed: usize,
}

impl Bed {
    pub(super) fn new() -> Result<Bed> {
        let nodes = Nodes::new(&[0, 0])?;
        furnish(&nodes, true)?;
        let mut cluster = Cluster::default();
        for node in &nodes.nodes {
            cluster.take(Change::Node(wire::node(serde_json::from_value(node.object(true, true))?)));
        }
        let namespaces: Vec<Value> = NAMESPACES.iter().map(|it| namespace_object(it)).collect();
        for namespace in &namespaces {
            cluster.take(Change::Namespace(wire::namespace(serde_json::from_value(namespace.clone())?)));
        }
        let mut enforcers = Vec::new();
        for node in &nodes.nodes {
            // Thousands of connections are opened with one packet each; what is of no use any more is to be forgotten.
            node.run(|| -> Result<()> {
                for timeout in FORGET {
                    std::fs::write(format!("/proc/sys/net/netfilter/nf_conntrack_{timeout}"), "1")
                        .with_context(|| timeout.to_owned())?;
                }
                Ok(())
            })??;
            let mut enforcer = node.run(|| Enforcer::open(&node.name, &node.root))??;
            enforcer.sync(&cluster)?;
            enforcers.push(enforcer);
        }
        let (mut pods, mut pod_objects) = (Vec::new(), BTreeMap::new());
        for (number, (namespace, name)) in
            NAMESPACES.iter().flat_map(|n| PODS.iter().map(move |p| (n, p))).enumerate()
        {
            let node = &nodes.nodes[number % 2];
            let pod = add_pod(node, namespace, name)?;
            let object = pod_object(namespace, name, &node.name, &pod.ips);
            cluster.take(Change::Pod(wire::pod(serde_json::from_value(object.clone())?)));
            pod_objects.insert(Key::new(namespace, name), object);
            pods.push(pod);
        }
        let spots = spots(&nodes, &pods, &pod_objects)?;
        let objects = Objects { namespaces, policies: Vec::new() };
        let turn = turn()?;
        let mut bed =
            Bed { nodes, _pods: pods, objects, pod_objects, cluster, enforcers, spots, turn, round: 0 };
        bed.sync()?;
        Ok(bed)
    }

    /// Gives the objects to the agent's model, anew what is other, and has every node follow. The agent's quick way has
    /// to come to the same as a compilation from nothing.
    pub(super) fn sync(&mut self) -> Result<()> {
        let policies = self.objects.policies.iter();
        let policies: Result<Vec<_>> =
            policies.map(|it| Ok(wire::policy(serde_json::from_value(it.clone())?))).collect();
        self.cluster.take(Change::Policies(policies?));
        for namespace in &self.objects.namespaces {
            self.cluster.take(Change::Namespace(wire::namespace(serde_json::from_value(namespace.clone())?)));
        }
        for object in self.pod_objects.values() {
            self.cluster.take(Change::Pod(wire::pod(serde_json::from_value(object.clone())?)));
        }
        for (enforcer, node) in self.enforcers.iter_mut().zip(&self.nodes.nodes) {
            // Now and then the kernel's table is compared with what is programmed, too.
            let outcome = if self.round.is_multiple_of(8) {
                let (drift, outcome) = enforcer.repair(&self.cluster, true)?;
                ensure!(drift.is_none(), "{}: {drift:?}", node.name);
                outcome
            } else {
                enforcer.sync(&self.cluster)?
            };
            ensure!(outcome.warnings.is_empty(), "{}: {:?}", node.name, outcome.warnings);
            let (slots, _) = Slots::read(&node.root.join("run/podnet/slots"))?;
            let anew = compile(&self.cluster, &node.name, slots.all());
            let kept = enforcer.program().context("a program")?;
            ensure!(*kept == anew, "{}: step by step:\n{kept}\nfrom nothing:\n{anew}", node.name);
        }
        Ok(())
    }

    /// The pod's object, to change.
    pub(super) fn pod(&mut self, namespace: &str, name: &str) -> &mut Value {
        let object = self.pod_objects.get_mut(&Key::new(namespace, name)).expect("a pod");
        for spot in &mut self.spots {
            for party in &mut spot.party {
                if party.pod.as_ref().is_some_and(|it| it["metadata"]["uid"] == object["metadata"]["uid"]) {
                    party.pod = None;
                }
            }
        }
        object
    }

    /// Tries everything with one packet each, and compares what arrives with both judges.
    pub(super) fn compare(&mut self) -> Result<Tried> {
        self.compare_with(|_, verdict| verdict)
    }

    /// As [`Bed::compare`], with a mistake put into what the kernel is expected to do.
    pub(super) fn compare_with(&mut self, mistake: impl Fn(&Tuple, bool) -> bool) -> Result<Tried> {
        self.round += 1;
        let source_port = FIRST + self.round;
        for spot in &mut self.spots {
            for party in &mut spot.party {
                if let Some(key) = spot_key(&self.pod_objects, party) {
                    party.pod = Some(self.pod_objects[&key].clone());
                }
            }
        }
        let addresses = Addresses::of(&self.cluster);
        let (mut tried, mut expected, mut sent) = (Tried::default(), BTreeSet::new(), 0);
        for (n, from) in self.spots.iter().enumerate() {
            for (m, to) in self.spots.iter().enumerate() {
                if from.party[0].pod.is_none() && to.party[0].pod.is_none() {
                    continue;
                }
                // A pod's packets to itself and to its own node never come to the forward hook.
                let tries = n != m
                    && (from.node != to.node || (from.party[0].pod.is_some() && to.party[0].pod.is_some()));
                for family in 0..2 {
                    let (source, destination) = (&from.party[family], &to.party[family]);
                    for protocol in Protocol::ALL {
                        for port in PORTS {
                            let tuple = Tuple {
                                source: source.address,
                                destination: destination.address,
                                protocol: protocol.number(),
                                source_port,
                                port,
                            };
                            let verdict = self.objects.allow(source, destination, protocol.name(), port);
                            let judged = evaluate(
                                &self.cluster,
                                &Connection {
                                    source: addresses.end(source.address),
                                    destination: addresses.end(destination.address),
                                    protocol: protocol.number(),
                                    port,
                                },
                            );
                            ensure!(
                                judged.allowed() == verdict,
                                "{tuple:?}: the oracle says {verdict}, the agent's judge {judged:?}"
                            );
                            tried.judged += 1;
                            tried.allowed += usize::from(verdict);
                            if tries {
                                if mistake(&tuple, verdict) {
                                    expected.insert(tuple);
                                }
                                sent += 1;
                                let mac = from.to[to.node.unwrap_or(0).min(from.to.len() - 1)];
                                from.sends.send(&frames::frame(&tuple, from.mac, mac))?;
                            }
                        }
                    }
                }
            }
        }
        tried.packets = sent;
        for _ in 0..TURNS {
            self.turn.wait()?;
        }
        let (mut arrived, mut buffer) = (BTreeSet::new(), vec![0; 2048]);
        for spot in &self.spots {
            while let Some(frame) = spot.hears.recv(&mut buffer)? {
                let Some(tuple) = frames::seen(&buffer[..frame.len.min(buffer.len())]) else { continue };
                let ours = spot.party.iter().any(|it| it.address == tuple.destination);
                if !ours || frame.outgoing || !(FIRST..=FIRST + 5_000).contains(&tuple.source_port) {
                    continue;
                }
                ensure!(tuple.source_port == source_port, "a packet of an earlier try came late: {tuple:?}");
                arrived.insert(tuple);
            }
        }
        let name =
            |ip: IpAddr| addresses.end(ip).pod.map_or(ip.to_string(), |pod| format!("{} {ip}", pod.key));
        let told = |it: &Tuple| {
            format!(
                "{} to {} protocol {} port {}",
                name(it.source),
                name(it.destination),
                it.protocol,
                it.port
            )
        };
        let missing: Vec<String> = expected.difference(&arrived).map(told).collect();
        let forbidden: Vec<String> = arrived.difference(&expected).map(told).collect();
        ensure!(
            missing.is_empty() && forbidden.is_empty(),
            "{} of {sent} packets are missing: {:#?}\n{} are forbidden and arrived: {:#?}",
            missing.len(),
            &missing[..missing.len().min(8)],
            forbidden.len(),
            &forbidden[..forbidden.len().min(8)]
        );
        Ok(tried)
    }
}

fn spot_key(objects: &BTreeMap<Key, Value>, party: &Party) -> Option<Key> {
    let has = |object: &Value| {
        object["status"]["podIPs"]
            .as_array()
            .is_some_and(|ips| ips.iter().any(|ip| ip["ip"] == json!(party.address)))
    };
    objects.iter().find(|(_, object)| has(object)).map(|(key, _)| key.clone())
}

/// Keeps the calling thread on one processor, whose queue of packets is then the only one.
pub(super) fn stay_on_one_processor() -> Result<()> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let first =
        (0..CpuSet::count()).find(|it| allowed.is_set(*it).unwrap_or(false)).context("a processor")?;
    let mut one = CpuSet::new();
    one.set(first)?;
    sched_setaffinity(Pid::from_raw(0), &one)?;
    Ok(())
}

/// Index and MAC of a link.
pub(super) fn link_of(netns: &Netns, name: &str) -> Result<(u32, Mac)> {
    let found = link::by_name(&mut Rtnl::open_in(netns)?, name)?;
    Ok((found.index, found.mac.context("a MAC")?))
}

fn spots(nodes: &Nodes, pods: &[Pod], objects: &BTreeMap<Key, Value>) -> Result<Vec<Spot>> {
    let uplinks: Vec<(u32, Mac)> =
        nodes.nodes.iter().map(|node| link_of(&node.netns, "eth0")).collect::<Result<_>>()?;
    let macs: Vec<Mac> = uplinks.iter().map(|it| it.1).collect();
    let mut spots = Vec::new();
    for pod in pods {
        let object = &objects[&Key::new(&pod.namespace, &pod.name)];
        let node = object["spec"]["nodeName"].as_str().context("a node")?;
        let number = nodes.nodes.iter().position(|it| it.name == node).context("the node")?;
        let (index, mac) = link_of(&pod.netns, "eth0")?;
        let end = pod.result["interfaces"][0]["name"].as_str().context("the node's end")?;
        let to = link_of(&nodes.nodes[number].netns, end)?.1;
        know(&nodes.nodes[number], &pod.ips, mac, end)?;
        let party =
            |n: usize| Party { address: pod.ips[n], pod: Some(object.clone()), node: Some(node.to_owned()) };
        spots.push(Spot {
            party: [party(0), party(1)],
            sends: PacketSocket::open_on(&pod.netns, index, &[])?,
            mac,
            to: vec![to],
            hears: PacketSocket::open_in(&pod.netns)?,
            node: Some(number),
        });
    }
    for (node, (index, mac)) in nodes.nodes.iter().zip(&uplinks) {
        for other in nodes.nodes.iter().filter(|it| it.number != node.number) {
            know(other, &node.addresses(), *mac, "eth0")?;
        }
        let party =
            node.addresses().map(|address| Party { address, pod: None, node: Some(node.name.clone()) });
        spots.push(Spot {
            party,
            sends: PacketSocket::open_on(&node.netns, *index, &[])?,
            mac: *mac,
            to: macs.clone(),
            hears: PacketSocket::open_in(&node.netns)?,
            node: Some(node.number),
        });
    }
    let (index, mac) = link_of(&nodes.outside, "rack0")?;
    for node in &nodes.nodes {
        know(node, &[false, true].map(|ipv6| Nodes::outside_address(0, ipv6)), mac, "eth0")?;
    }
    let party =
        [false, true].map(|ipv6| Party { address: Nodes::outside_address(0, ipv6), pod: None, node: None });
    spots.push(Spot {
        party,
        sends: PacketSocket::open_on(&nodes.outside, index, &[])?,
        mac,
        to: macs,
        hears: PacketSocket::open_in(&nodes.outside)?,
        node: None,
    });
    Ok(spots)
}

/// Has a node know a neighbour for good: no packet waits until it is asked for.
fn know(node: &Node, addresses: &[IpAddr], mac: Mac, dev: &str) -> Result<()> {
    for address in addresses {
        node.ip(&[&format!("neigh replace {address} lladdr {mac} dev {dev} nud permanent")])?;
    }
    Ok(())
}

fn turn() -> Result<Turn> {
    let (near, far) = (Netns::create()?, Netns::create()?);
    podnet_tests::world::ip_batch(
        &near,
        &[
            &format!("link add near type veth peer name far netns {}", podnet_tests::nodes::path(&far)),
            "link set near up",
        ],
    )?;
    podnet_tests::world::ip_batch(&far, &["link set far up"])?;
    let (index, mac) = link_of(&near, "near")?;
    let (far_index, far_mac) = link_of(&far, "far")?;
    // An EtherType for experiments (IEEE 802).
    let frame = [&far_mac.0[..], &mac.0, &[0x88, 0xb5], &[0; 46]].concat();
    Ok(Turn {
        sends: PacketSocket::open_on(&near, index, &[])?,
        hears: PacketSocket::open_on(&far, far_index, &[])?,
        frame,
        _far: far,
    })
}

impl Turn {
    fn wait(&mut self) -> Result<()> {
        self.sends.send(&self.frame)?;
        let (started, mut buffer) = (Instant::now(), [0; 128]);
        loop {
            while let Some(frame) = self.hears.recv(&mut buffer)? {
                if !frame.outgoing && buffer[12..14] == [0x88, 0xb5] {
                    return Ok(());
                }
            }
            ensure!(started.elapsed() < Duration::from_secs(30), "a frame beside was not seen for 30 s");
            std::thread::yield_now();
        }
    }
}
