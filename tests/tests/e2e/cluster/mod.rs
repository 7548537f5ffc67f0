//! podnetd in a cluster with a real kube-apiserver: an agent on each node, pods made by the configuration that the agent
//! has written, and what each end of a connection sees of the other.
//!
//! ```text
//!   172.18.0.2 kube-apiserver      172.18.0.1 · router · 172.19.0.1
//!        |                             |               |
//!   n0 ──┴── n1 (one switch) ──────────┘               └── n2 (VXLAN to it)
//! ```

mod bed;
mod kind;
mod lacks;
mod machines;
mod node;
mod restarts;
mod truth;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use podnet_tests::kube::condition;
use podnet_tests::nodes::{ECHO, Echo, Nodes, seen_as, seen_as_at, wait_until};
use serde_json::json;

use bed::{Cluster, Served, left_behind};
use truth::End;

/// How long a connection may take that has to come about, and one that must not.
const SOON: Duration = Duration::from_secs(20);
const NEVER: Duration = Duration::from_millis(700);

fn ends<'a>(cluster: &'a Cluster, pods: &'a [Served], ipv6: bool) -> Result<Vec<End<'a>>> {
    let of_pods = pods.iter().map(|it| {
        let name = format!("{}@n{}", it.pod.name, it.node);
        Ok(End { name, node: it.node, is_pod: true, netns: &it.pod.netns, address: it.ip(ipv6)? })
    });
    let of_nodes = cluster.nodes.nodes.iter().map(|it| {
        let address = it.addresses()[usize::from(ipv6)];
        Ok(End { name: it.name.clone(), node: it.number, is_pod: false, netns: &it.netns, address })
    });
    of_pods.chain(of_nodes).collect()
}

/// M1 to M8 of the Kubernetes network model as what was seen: every pod, every node as a hostNetwork pod, and the
/// outside, each to each, in both families; direct and through VXLAN.
#[test]
fn every_pod_and_node_is_seen_with_its_own_address_and_the_outside_sees_the_node() -> Result<()> {
    let cluster = Cluster::start(&[0, 0, 1], (true, true))?;
    let mut pods = Vec::new();
    for number in 0..3 {
        for name in ["a", "b"] {
            pods.push(cluster.pod(number, "default", &format!("{name}{number}"), &[])?);
        }
    }
    let _on_nodes: Vec<Echo> =
        cluster.nodes.nodes.iter().map(|it| Echo::start(&it.netns)).collect::<Result<_>>()?;
    let _outside = Echo::start(&cluster.nodes.outside)?;
    let mut wrong = Vec::new();
    let mut probes = 0;
    for ipv6 in [false, true] {
        let ends = ends(&cluster, &pods, ipv6)?;
        // M1: no address twice, and each is what the pod's interface has.
        let mut owners: BTreeMap<IpAddr, &str> = BTreeMap::new();
        for end in &ends {
            if let Some(other) = owners.insert(end.address, &end.name) {
                bail!("{} and {other} are both {}", end.name, end.address);
            }
            // M2: containers of a pod, and of a node, over localhost.
            let local: IpAddr = if ipv6 { "::1".parse()? } else { "127.0.0.1".parse()? };
            ensure!(seen_as(end.netns, local, SOON)? == local, "{}: localhost", end.name);
        }
        let (asked, found) = truth::judge(&ends, |from, to| seen_as(from.netns, to.address, SOON));
        probes += asked;
        wrong.extend(found);
        // M8: outside the cluster it is the node that is seen.
        for pod in &pods {
            let node = &cluster.nodes.nodes[pod.node];
            let seen = seen_as(&pod.pod.netns, Nodes::outside_address(node.rack, ipv6), SOON)?;
            ensure!(seen == node.addresses()[usize::from(ipv6)], "{} outside: {seen}", pod.pod.name);
        }
    }
    ensure!(probes == 2 * 9 * 8, "{probes} probes");
    ensure!(wrong.is_empty(), "{} of {probes}:\n{}", wrong.len(), truth::lines(&wrong));
    // The way to each peer and why is told; the one behind the router is reached through VXLAN.
    let status = cluster.status(0)?;
    for (peer, way) in [("n1", "direct"), ("n2", "vxlan")] {
        let paths = status["peers"][peer]["paths"].as_array().context("no paths")?;
        ensure!(paths.len() == 2 && paths.iter().all(|it| it["way"] == way), "{peer}: {paths:?}");
    }
    let up = condition(&cluster.node(0)?, "NetworkUnavailable");
    ensure!(up["status"] == "False" && up["reason"] == "PodnetIsUp", "{up}");
    let (code, metrics) = cluster.nodes.nodes[0].ask_agent("/metrics")?;
    ensure!(code == 200 && metrics.contains("podnet_ready 1"), "{metrics}");
    for pod in &pods {
        let node = &cluster.nodes.nodes[pod.node];
        node.check_pod(&pod.pod)?;
        node.del_pod(&pod.pod)?;
        node.del_pod(&pod.pod)?;
    }
    Ok(())
}

#[test]
fn nodes_join_leave_and_change_their_addresses() -> Result<()> {
    let mut cluster = Cluster::start(&[0, 0], (true, false))?;
    let first = cluster.pod(0, "default", "first", &[])?;
    cluster.join(0)?;
    cluster.ready()?;
    let third = cluster.pod(2, "default", "third", &[])?;
    ensure!(seen_as(&first.pod.netns, third.ip(false)?, SOON)? == first.ip(false)?);
    ensure!(seen_as(&third.pod.netns, first.ip(false)?, SOON)? == third.ip(false)?);
    // As Docker does it when a kind node is started again: another address, told by the kubelet later.
    let n2 = &cluster.nodes.nodes[2];
    n2.ip(&[
        "-4 addr flush dev eth0",
        "addr add 172.18.0.77/24 dev eth0",
        "route add default via 172.18.0.1",
    ])?;
    cluster.client.set_status(
        "/api/v1/nodes/n2",
        &json!({"addresses": [{"type": "InternalIP", "address": "172.18.0.77"}]}),
    )?;
    wait_until("the route to n2's new address", || {
        let seen = seen_as(&first.pod.netns, third.ip(false)?, NEVER)?;
        ensure!(seen == first.ip(false)?, "seen as {seen}");
        let seen = seen_as(&third.pod.netns, first.ip(false)?, NEVER)?;
        ensure!(seen == third.ip(false)?, "seen as {seen}");
        let routes = cluster.nodes.nodes[0].output("ip route")?;
        ensure!(routes.contains("10.244.2.0/24 via 172.18.0.77"), "{routes}");
        Ok(())
    })?;
    cluster.client.delete("/api/v1/nodes/n2")?;
    wait_until("n2 forgotten", || {
        let routes = cluster.nodes.nodes[0].output("ip route")?;
        ensure!(!routes.contains("10.244.2.0/24"), "{routes}");
        let status = cluster.status(0)?;
        ensure!(status["peers"].get("n2").is_none(), "{status}");
        Ok(())
    })
}

#[test]
fn what_somebody_else_deletes_is_put_right_at_once() -> Result<()> {
    let cluster = Cluster::start(&[0, 0, 1], (true, false))?;
    let node = &cluster.nodes.nodes[0];
    node.ip(&["route del 10.244.1.0/24", "link set podnet-vxlan address 02:00:00:00:00:01"])?;
    let output = |command: &str| node.output(command);
    let rules = output("nft list table inet podnet-policy")?;
    for table in ["podnet-masq", "podnet-policy"] {
        output(&format!("nft delete table inet {table}"))?;
    }
    wait_until("all of it again", || {
        let routes = output("ip route")?;
        ensure!(routes.contains("10.244.1.0/24 via 172.18.0.11"), "{routes}");
        let link = output("ip link show podnet-vxlan")?;
        ensure!(!link.contains("02:00:00:00:00:01"), "{link}");
        output("nft list table inet podnet-masq")?;
        let again = output("nft list table inet podnet-policy")?;
        ensure!(again == rules, "{again}\n{rules}");
        Ok(())
    })
}

#[test]
fn policies_of_the_api_are_enforced_and_told_apart() -> Result<()> {
    let cluster = Cluster::start(&[0, 0], (true, false))?;
    let server = cluster.pod(0, "shop", "server", &[("app", "server")])?;
    let friend = cluster.pod(1, "shop", "friend", &[("app", "friend")])?;
    let stranger = cluster.pod(0, "shop", "stranger", &[("app", "stranger")])?;
    let to = server.ip(false)?;
    let reaches = |from: &Served, limit: Duration| seen_as(&from.pod.netns, to, limit).is_ok();
    ensure!(reaches(&friend, SOON) && reaches(&stranger, SOON), "open without a policy");
    cluster.client.create(&json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "friends", "namespace": "shop"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}],
                "ports": [{"protocol": "TCP", "port": "echo"}]}],
        },
    }))?;
    wait_until("a stranger is kept out", || {
        ensure!(!reaches(&stranger, NEVER), "it gets in");
        Ok(())
    })?;
    ensure!(reaches(&friend, SOON), "a friend gets in");
    // Its node always does.
    ensure!(seen_as(&cluster.nodes.nodes[0].netns, to, SOON).is_ok(), "the node's own probes get in");
    ensure!(seen_as(&cluster.nodes.nodes[1].netns, to, NEVER).is_err(), "another node is no friend");
    cluster.client.patch(
        "/api/v1/namespaces/shop/pods/stranger",
        &json!({"metadata": {"labels": {"app": "friend"}}}),
    )?;
    wait_until("a stranger becomes a friend", || {
        ensure!(reaches(&stranger, NEVER), "it does not get in");
        Ok(())
    })?;
    cluster.client.delete("/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies/friends")?;
    wait_until("open again", || {
        ensure!(seen_as(&cluster.nodes.nodes[1].netns, to, NEVER).is_ok(), "still closed");
        Ok(())
    })
}

#[test]
fn uninstall_leaves_nothing_of_ours() -> Result<()> {
    let mut cluster = Cluster::without_agents(&[0, 0, 1], (true, true))?;
    let picture = |cluster: &Cluster| -> Result<Vec<String>> {
        let node = &cluster.nodes.nodes[0];
        let commands = [
            "ip -o addr",
            "ip route show table all",
            "ip -6 route show table all",
            "ip rule",
            "ip -6 rule",
            "ip neigh show nud permanent",
            "ip -o link",
            "nft list ruleset",
        ];
        let mut all = commands.iter().map(|it| node.output(it)).collect::<Result<Vec<_>>>()?;
        all.push(node.output(&format!(
            "find {} -not -type d -not -name podnetd.log -o -name *podnet -o -name agent.sock",
            node.root.display()
        ))?);
        Ok(all)
    };
    let before = picture(&cluster)?;
    cluster.start_agents()?;
    cluster.ready()?;
    let pod = cluster.pod(0, "default", "one", &[])?;
    ensure!(picture(&cluster)? != before, "nothing is there to be removed");
    cluster.nodes.nodes[0].del_pod(&pod.pod)?;
    cluster.agents[0].kill()?;
    let text = cluster.podnetd(0, &["uninstall"])?;
    ensure!(text.contains("05-podnet.conflist"), "{text}");
    let left = left_behind(&before, &picture(&cluster)?);
    ensure!(left.is_empty(), "left behind: {left:#?}");
    Ok(())
}

/// What a node sends to a port of one behind a router goes there directly, and the pod's answers come back by VXLAN. That
/// a strict reverse-path filter stops either is for `doctor` to tell.
#[test]
fn host_port_behind_a_router_answers_nodes_pods_and_the_outside() -> Result<()> {
    let cluster = Cluster::start(&[0, 1], (true, true))?;
    let ports = json!({"portMappings": [{"hostPort": 8088, "containerPort": ECHO, "protocol": "tcp"}]});
    let door = cluster.pod_with(1, "default", "door", &[], ports.as_object().cloned().unwrap_or_default())?;
    let here = cluster.pod(0, "default", "here", &[])?;
    let [n0, n1] = &cluster.nodes.nodes[..] else { bail!("two nodes") };
    for filter in ["0", "2"] {
        for node in [n0, n1] {
            node.output(&format!("sysctl -qw net.ipv4.conf.all.rp_filter={filter}"))?;
        }
        for family in [0, 1] {
            let to = SocketAddr::new(n1.addresses()[family], 8088);
            let outside = Nodes::outside_address(1, family == 1);
            let clients = [
                ("n0", &n0.netns, n0.addresses()[family]),
                ("here", &here.pod.netns, here.ip(family == 1)?),
                ("outside", &cluster.nodes.outside, outside),
            ];
            for (name, netns, own) in clients {
                let seen = seen_as_at(netns, to, SOON);
                let seen = seen.with_context(|| format!("{name}, rp_filter {filter}"))?;
                ensure!(seen == own, "{} sees {name} as {seen}, rp_filter {filter}", door.pod.name);
            }
        }
    }
    Ok(())
}
