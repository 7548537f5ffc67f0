//! Who is seen as whom: the source address that a server sees of each client, in both IP versions. That is what the
//! network model of Kubernetes promises of pods and of pods in the host's network: no address is rewritten within the
//! cluster; outside, a pod is seen as its node.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use kernel::Netns;
use podnet_tests::nodes::{Echo, Nodes, Pod, seen_as};

use super::{configure, nft, nodes, run, settle_all};

const PATIENCE: Duration = Duration::from_secs(20);

/// Someone who asks and is asked: a node, a pod, or the outside.
struct Place<'a> {
    name: String,
    netns: &'a Netns,
    node: Option<usize>,
    ips: [IpAddr; 2],
}

/// A cluster with a pod on each node, and everyone answers.
struct Cluster {
    nodes: Nodes,
    pods: Vec<Pod>,
    _answering: Vec<Echo>,
}

impl Cluster {
    fn new(racks: &[usize]) -> Result<Cluster> {
        let nodes = nodes(racks)?;
        let plans = settle_all(&nodes)?;
        let mut pods = Vec::new();
        let mut answering = vec![Echo::start(&nodes.outside)?];
        for (node, plan) in nodes.nodes.iter().zip(&plans) {
            configure(node, plan)?;
            let pod = node.add_pod("default", &format!("p{}", node.number))?;
            answering.push(Echo::start(&node.netns)?);
            answering.push(Echo::start(&pod.netns)?);
            // The gateway is on `lo` as well, and CHECK does not mind.
            node.check_pod(&pod)?;
            pods.push(pod);
        }
        Ok(Cluster { nodes, pods, _answering: answering })
    }

    fn places(&self) -> Vec<Place<'_>> {
        let mut all = Vec::new();
        for (node, pod) in self.nodes.nodes.iter().zip(&self.pods) {
            let (n, ips) = (Some(node.number), [pod.ips[0], pod.ips[1]]);
            all.push(Place { name: node.name.clone(), netns: &node.netns, node: n, ips: node.addresses() });
            all.push(Place { name: pod.name.clone(), netns: &pod.netns, node: n, ips });
        }
        all
    }

    /// The outside, by its address in a rack.
    fn outside(&self, rack: usize) -> Place<'_> {
        let ips = [false, true].map(|ipv6| Nodes::outside_address(rack, ipv6));
        Place { name: "outside".into(), netns: &self.nodes.outside, node: None, ips }
    }

    /// Who a client is seen as at a server, by name; an address that is nobody's as itself.
    fn seen(&self, from: &Place<'_>, to: &Place<'_>, family: usize) -> String {
        let seen = match seen_as(from.netns, to.ips[family], PATIENCE) {
            Ok(seen) => seen,
            Err(error) => return format!("error: {error:#}"),
        };
        let who = self.places().into_iter().find(|it| it.ips[family] == seen).map(|it| it.name);
        who.unwrap_or_else(|| seen.to_string())
    }

    /// The truth table of one IP version: a line for each client, a column for each server on another node, and the
    /// outside.
    fn table(&self, family: usize) -> String {
        let (mut text, places) = (String::new(), self.places());
        for from in &places {
            _ = write!(text, "{}:", from.name);
            for to in places.iter().filter(|it| it.node != from.node) {
                _ = write!(text, " {}={}", to.name, self.seen(from, to, family));
            }
            let rack = from.node.map_or(0, |it| self.nodes.nodes[it].rack);
            _ = writeln!(text, " outside={}", self.seen(from, &self.outside(rack), family));
        }
        text
    }
}

#[test]
fn everyone_is_seen_as_who_they_are_within_the_cluster_and_as_their_node_outside() -> Result<()> {
    // n0 to n2 on one link, n3 behind a router.
    let cluster = Cluster::new(&[0, 0, 0, 1])?;
    let [v4, v6] = [0, 1].map(|family| cluster.table(family));
    insta::assert_snapshot!(v4);
    ensure!(v4 == v6, "IPv6 is other than IPv4:\n{v6}");
    Ok(())
}

#[test]
fn a_pod_and_its_own_node_reach_each_other() -> Result<()> {
    let cluster = Cluster::new(&[0])?;
    let places = cluster.places();
    let [node, pod] = &places[..] else { anyhow::bail!("a node and a pod") };
    for family in [0, 1] {
        ensure!(cluster.seen(pod, node, family) == "p0");
        let gateway = ["10.244.0.1", "fd00:10:244::1"][family];
        ensure!(cluster.seen(node, pod, family) == gateway, "the address on the pod's link");
    }
    Ok(())
}

/// The masquerade of kind's own network plugin: everything but what goes to this machine and to the pods' range, whoever
/// it is from.
const KINDNET: &str = "table inet kindnet-ipmasq { chain postrouting { type nat hook postrouting priority srcnat - 10;
    fib daddr type local accept; ip daddr 10.244.0.0/16 accept; ip6 daddr fd00:10:244::/48 accept; masquerade; } }";

#[test]
fn kindnets_masquerade_hides_pods_from_nodes_and_ours_does_not() -> Result<()> {
    let cluster = Cluster::new(&[0, 0])?;
    let places = cluster.places();
    let [n0, p0, n1, p1] = &places[..] else { anyhow::bail!("two nodes with a pod each") };
    let outside = cluster.outside(0);
    let rows = [(p0, p1), (n0, p1), (p0, &outside), (p0, n1)];
    let expect = |whose: &str, expected: [&str; 4]| -> Result<()> {
        for family in [0, 1] {
            let found = rows.map(|(from, to)| cluster.seen(from, to, family));
            ensure!(found == expected, "{whose} masquerade: {found:?}");
        }
        Ok(())
    };
    expect("our", ["p0", "n0", "n0", "p0"])?;
    nft(n0.netns, KINDNET)?;
    expect("kindnet's beside our", ["p0", "n0", "n0", "n0"])?;
    run(n0.netns, &["nft", "delete table inet kindnet-ipmasq"])?;
    expect("our", ["p0", "n0", "n0", "p0"])?;
    run(n0.netns, &["nft", "delete table inet podnet-masq"])?;
    nft(n0.netns, KINDNET)?;
    expect("kindnet's", ["p0", "n0", "n0", "n0"])
}
