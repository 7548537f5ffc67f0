//! A pod that sends under addresses that are not its own, by frames that it makes itself; and all that pods send by right.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::fs::symlink;
use std::time::Duration;

use agent::policy::Enforcer;
use agent::policy::program::LINKS;
use anyhow::{Context, Result, ensure};
use kernel::packet::PacketSocket;
use kernel::{Mac, Netns, Rtnl, link, uninterrupted};
use podnet_tests::nodes::{ECHO, Echo, Node, Nodes, Pod, seen_as, seen_as_at, wait_until};
use podnet_tests::plugins;
use serde_json::json;

use super::bed::{self, add_pod, stay_on_one_processor};
use super::frames::{self, Tuple};
use super::node::One;

const PATIENCE: Duration = Duration::from_secs(20);
/// The port to which everything is sent.
const PORT: u16 = 4242;

/// Two nodes with their policies' tables and no policy: pods a and b on n0, c on n1.
struct Forgery {
    nodes: Nodes,
    enforcers: Vec<Enforcer>,
    cluster: agent::model::Cluster,
    pods: Vec<Pod>,
    sends: PacketSocket,
    /// Of pod a, and of its node's end.
    macs: (Mac, Mac),
    /// The node's end of pod a's link.
    end: String,
    /// Frames of both nodes, of pod b and of the outside.
    hears: Vec<(u32, PacketSocket)>,
    /// What the node itself takes.
    server: UdpSocket,
    port: u16,
}

/// A cluster of these nodes, of both IP versions.
fn known(nodes: &Nodes) -> Result<agent::model::Cluster> {
    let mut cluster = agent::model::Cluster::default();
    for node in &nodes.nodes {
        let object = serde_json::from_value(node.object(true, true))?;
        cluster.take(agent::model::Change::Node(agent::wire::node(object)));
    }
    Ok(cluster)
}

impl Forgery {
    fn new() -> Result<Forgery> {
        let nodes = Nodes::new(&[0, 0])?;
        bed::furnish(&nodes, true)?;
        let mut cluster = known(&nodes)?;
        let mut enforcers = Vec::new();
        for node in &nodes.nodes {
            let mut enforcer = node.run(|| Enforcer::open(&node.name, &node.root))??;
            enforcer.sync(&cluster)?;
            enforcers.push(enforcer);
        }
        let mut pods = Vec::new();
        for (number, name) in [(0, "a"), (0, "b"), (1, "c")] {
            let pod = add_pod(&nodes.nodes[number], "x", name)?;
            let object = bed::pod_object("x", name, &nodes.nodes[number].name, &pod.ips);
            cluster.take(agent::model::Change::Pod(agent::wire::pod(serde_json::from_value(object)?)));
            pods.push(pod);
        }
        for enforcer in &mut enforcers {
            enforcer.repair(&cluster, true)?;
        }
        let n0 = &nodes.nodes[0];
        let end = pods[0].result["interfaces"][0]["name"].as_str().context("the node's end")?.to_owned();
        let ((index, own), (_, gateway)) =
            (bed::link_of(&pods[0].netns, "eth0")?, bed::link_of(&n0.netns, &end)?);
        let mut hears = Vec::new();
        for (netns, name) in [(&n0.netns, "eth0"), (&pods[1].netns, "eth0")] {
            hears.push((bed::link_of(netns, name)?.0, PacketSocket::open_in(netns)?));
        }
        let server = n0.run(|| UdpSocket::bind(("::", PORT)))??;
        server.set_nonblocking(true)?;
        let sends = PacketSocket::open_on(&pods[0].netns, index, &[])?;
        let macs = (own, gateway);
        Ok(Forgery { nodes, enforcers, cluster, pods, sends, macs, end, hears, server, port: 20_000 })
    }

    fn n0(&self) -> &Node {
        &self.nodes.nodes[0]
    }

    /// Where packets go: another pod of the node, a pod of another node, the outside, the node itself.
    fn destinations(&self, ipv6: bool) -> [IpAddr; 4] {
        let n = usize::from(ipv6);
        let outside = Nodes::outside_address(0, ipv6);
        [self.pods[1].ips[n], self.pods[2].ips[n], outside, self.n0().addresses()[n]]
    }

    /// Sources that are not pod a's, with what each is.
    fn sources(&self, ipv6: bool) -> Vec<(&'static str, IpAddr)> {
        let n = usize::from(ipv6);
        let text = |v4: &str, v6: &str| (if ipv6 { v6 } else { v4 }).parse().expect("an address");
        vec![
            ("another pod of the node", self.pods[1].ips[n]),
            ("a pod of another node", self.pods[2].ips[n]),
            ("nobody's of the node's range", text("10.244.0.99", "fd00:10:244::99")),
            ("the outside", text("198.51.100.7", "2001:db8::7")),
            ("another node", self.nodes.nodes[1].addresses()[n]),
        ]
    }

    fn send(&mut self, source: IpAddr, destination: IpAddr) -> Result<u16> {
        self.port += 1;
        let tuple = Tuple { source, destination, protocol: 17, source_port: self.port, port: PORT };
        self.sends.send(&frames::frame(&tuple, self.macs.0, self.macs.1))?;
        Ok(self.port)
    }

    /// The source ports of what has left the node by its uplink, has come to pod b, or was taken by the node.
    fn seen(&self) -> Result<Vec<u16>> {
        let (mut ports, mut buffer) = (Vec::new(), vec![0; 2048]);
        for (number, (index, socket)) in self.hears.iter().enumerate() {
            while let Some(frame) = socket.recv(&mut buffer)? {
                let Some(tuple) = frames::seen(&buffer[..frame.len.min(buffer.len())]) else { continue };
                if tuple.port == PORT && frame.ifindex == *index && frame.outgoing == (number == 0) {
                    ports.push(tuple.source_port);
                }
            }
        }
        while let Ok((_, from)) = uninterrupted(|| self.server.recv_from(&mut buffer)) {
            ports.push(from.port());
        }
        Ok(ports)
    }

    /// All that is seen until what pod a sends by right to a destination is, too.
    fn seen_with_what_is_genuine(&mut self, to: IpAddr) -> Result<Vec<u16>> {
        let own = self.pods[0].ips[usize::from(to.is_ipv6())];
        let (mut ports, mut genuine) = (Vec::new(), Vec::new());
        wait_until(&format!("what pod a sends to {to}"), || {
            genuine.push(self.send(own, to)?);
            std::thread::sleep(Duration::from_millis(2));
            ports.extend(self.seen()?);
            ensure!(genuine.iter().any(|it| ports.contains(it)), "none of {} passes", genuine.len());
            Ok(())
        })?;
        Ok(ports)
    }

    /// What of `sources` gets to a destination, by the side of what pod a sends by right, which has to.
    fn through(&mut self, sources: &[(&'static str, IpAddr)], to: IpAddr) -> Result<Vec<&'static str>> {
        let mut through = Vec::new();
        // The first time neighbours may not be known yet.
        for _ in 0..2 {
            through.clear();
            let mut sent = BTreeMap::new();
            for (what, source) in sources {
                sent.insert(self.send(*source, to)?, *what);
            }
            let ports = self.seen_with_what_is_genuine(to)?;
            through.extend(ports.iter().filter_map(|it| sent.get(it).copied()));
        }
        through.sort_unstable();
        through.dedup();
        Ok(through)
    }
}

#[test]
fn a_pod_sends_under_its_own_addresses_alone() -> Result<()> {
    stay_on_one_processor()?;
    let mut it = Forgery::new()?;
    for ipv6 in [false, true] {
        let sources = it.sources(ipv6);
        for to in it.destinations(ipv6) {
            let others: Vec<_> = sources.iter().copied().filter(|(_, source)| *source != to).collect();
            let through = it.through(&others, to)?;
            ensure!(through.is_empty(), "to {to}: {through:?}");
        }
    }
    // The negative control: the same frames pass where nobody looks.
    it.n0().output("nft flush chain inet podnet-policy sources")?;
    for ipv6 in [false, true] {
        let sources = it.sources(ipv6);
        for to in it.destinations(ipv6) {
            let through = it.through(&sources[3..4], to)?;
            ensure!(through == ["the outside"], "to {to}: {through:?}");
        }
    }
    let to = it.destinations(true)[2];
    let sources = it.sources(true);
    ensure!(it.through(&sources[..2], to)?.len() == 2, "pods' addresses of {sources:?}");
    Ok(())
}

/// A link that nobody has marked is no pod's: what claims to be of the node's pods does not pass by it.
#[test]
fn what_comes_by_another_link_than_a_pods_is_not_of_a_pod_of_the_node() -> Result<()> {
    stay_on_one_processor()?;
    let mut it = Forgery::new()?;
    let (own, to) = (it.pods[0].ips.clone(), [it.destinations(false)[2], it.destinations(true)[2]]);
    for to in to {
        it.seen_with_what_is_genuine(to)?;
    }
    it.n0().ip(&[&format!("link set {} group 0", it.end)])?;
    for (own, to) in own.into_iter().zip(to) {
        let forged = it.send(own, to)?;
        it.n0().ip(&[&format!("link set {} group {LINKS}", it.end)])?;
        let seen = it.seen_with_what_is_genuine(to)?;
        ensure!(!seen.contains(&forged), "{own} passed by a link without its group");
        it.n0().ip(&[&format!("link set {} group 0", it.end)])?;
    }
    let (drift, _) = it.enforcers[0].repair(&it.cluster, true)?;
    ensure!(drift.is_some_and(|it| it.contains("1 links of pods")), "not noticed");
    for to in to {
        it.seen_with_what_is_genuine(to)?;
    }
    Ok(())
}

/// Pods that were there before this network's plugin.
#[test]
fn links_of_pods_that_were_there_before_are_marked_before_the_rules_are_there() -> Result<()> {
    let mut one = One::new(false)?;
    let pod = add_pod(one.node(), "x", "a")?;
    one.tell_pod("x", "a", &pod.ips)?;
    let end = pod.result["interfaces"][0]["name"].as_str().context("the node's end")?;
    let group = |name: &str| -> Result<u32> {
        Ok(link::by_name(&mut Rtnl::open_in(&one.node().netns)?, name)?.group)
    };
    ensure!(group(end)? == 0);
    // As the agent's routes have it.
    one.node().ip(&["addr add 10.244.0.1/32 dev lo", "addr add fd00:10:244::1/128 dev lo nodad"])?;
    let _enforcer = one.enforcer()?;
    ensure!(group(end)? == LINKS, "the link's group is {}", group(end)?);
    for name in ["eth0", "lo"] {
        ensure!(group(name)? == 0, "{name} is no pod's");
    }
    Ok(())
}

/// Neighbours asked for and found, pods of the node and of others, the node itself, a port of the node from outside and
/// from the pod itself.
#[test]
fn what_pods_send_by_right_passes() -> Result<()> {
    let nodes = Nodes::new(&[0, 0])?;
    bed::furnish(&nodes, true)?;
    let mut cluster = known(&nodes)?;
    let (n0, n1) = (&nodes.nodes[0], &nodes.nodes[1]);
    let mut enforcers = Vec::new();
    for node in [n0, n1] {
        symlink(plugins::podnet()?, node.root.join("opt/cni/bin/portmap")).context("link portmap")?;
        let mut list = bed::conflist(node, true);
        let all = list["plugins"].as_array_mut().context("plugins")?;
        all.push(json!({"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}));
        std::fs::write(node.root.join("etc/cni/net.d/05-podnet.conflist"), list.to_string())?;
        let mut enforcer = node.run(|| Enforcer::open(&node.name, &node.root))??;
        enforcer.sync(&cluster)?;
        enforcers.push(enforcer);
    }
    let mapping = json!({"portMappings": [{"hostPort": 9090, "containerPort": ECHO, "protocol": "tcp"}]});
    let mapping = mapping.as_object().cloned().unwrap_or_default();
    let a = n0.add_pod_with("x", "a", Some("uid-x-a"), mapping)?;
    let (b, c) = (add_pod(n0, "x", "b")?, add_pod(n1, "x", "c")?);
    for (pod, node) in [(&a, "n0"), (&b, "n0"), (&c, "n1")] {
        let object = bed::pod_object("x", &pod.name, node, &pod.ips);
        cluster.take(agent::model::Change::Pod(agent::wire::pod(serde_json::from_value(object)?)));
    }
    for enforcer in &mut enforcers {
        enforcer.repair(&cluster, true)?;
    }
    let pods = [&a, &b, &c];
    let _answers =
        [&a.netns, &b.netns, &c.netns, &n0.netns].map(Echo::start).into_iter().collect::<Result<Vec<_>>>()?;
    let gateways: [IpAddr; 2] = ["10.244.0.1".parse()?, "fd00:10:244::1".parse()?];
    for netns in pods.map(|it| &it.netns).into_iter().chain([&n0.netns, &n1.netns]) {
        // Those that `ptp` has put there for good stay.
        podnet_tests::world::ip_batch(netns, &["neigh flush all", "-6 neigh flush all"])?;
    }
    for (n, gateway) in gateways.into_iter().enumerate() {
        let seen = |from: &Netns, to: IpAddr| seen_as(from, to, PATIENCE).with_context(|| format!("to {to}"));
        for (from, to) in [(&a, &b), (&b, &a), (&a, &c), (&c, &a)] {
            ensure!(seen(&from.netns, to.ips[n])? == from.ips[n], "{} to {}", from.name, to.name);
        }
        // The node and its pods, to all of its addresses.
        for to in [n0.addresses()[n], gateway] {
            ensure!(seen(&b.netns, to)? == b.ips[n]);
        }
        seen(&n0.netns, b.ips[n])?;
        seen(&nodes.outside, b.ips[n]).err().context("the outside knows no way to pods")?;
        let port = SocketAddr::new(n0.addresses()[n], 9090);
        let outside =
            seen_as_at(&nodes.outside, port, PATIENCE).context("a port of the node, from outside")?;
        ensure!(outside == Nodes::outside_address(0, n == 1));
        seen_as_at(&a.netns, port, PATIENCE).context("a port of the node, from the pod that serves it")?;
        seen_as_at(&b.netns, port, PATIENCE).context("a port of the node, from a pod beside")?;
    }
    Ok(())
}
