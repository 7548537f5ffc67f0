//! How long a change takes on a node of a large cluster. Figures for a person: nothing here depends on time.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use agent::model::{Change, Cluster};
use agent::policy::Enforcer;
use agent::wire;
use anyhow::{Result, ensure};
use kernel::Netns;
use serde_json::{Value, json};

/// Namespaces with so many pods and policies each, on so many nodes.
const NAMESPACES: u32 = 100;
const PODS: u32 = 100;
const POLICIES: u32 = 10;
const NODES: u32 = 100;

fn pod(namespace: u32, name: u32, label: u32) -> Value {
    let number = namespace * PODS + name;
    let (node, host) = (number % NODES, 2 + number / NODES);
    let address: IpAddr = Ipv4Addr::from(0x0a00_0000 + node * 256 + host).into();
    json!({
        "metadata": {"namespace": format!("n{namespace}"), "name": format!("p{name}"), "uid": format!("u{number}"),
            "labels": {"app": format!("app{label}"), "tier": format!("t{}", label % 3), "pod-template-hash": "6d4b75cb6d"}},
        "spec": {"nodeName": format!("node{node}"), "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"podIPs": [{"ip": address}]},
    })
}

fn rule(namespace: u32, number: u32, port: u32) -> Value {
    let peers = json!([
        {"podSelector": {"matchLabels": {"tier": format!("t{}", number % 3)}}},
        {"namespaceSelector": {"matchLabels": {"team": format!("team{}", (namespace + number) % 10)}},
            "podSelector": {"matchLabels": {"app": format!("app{}", (number + 1) % 10)}}},
        {"ipBlock": {"cidr": "192.168.0.0/16", "except": [format!("192.168.{number}.0/24")]}},
    ]);
    json!({
        "metadata": {"namespace": format!("n{namespace}"), "name": format!("policy{number}")},
        "spec": {"podSelector": {"matchLabels": {"app": format!("app{number}")}}, "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": peers, "ports": [{"port": port}, {"port": "http"}]}],
            "egress": [{"to": peers, "ports": [{"port": "http"}]}, {"ports": [{"port": 53, "protocol": "UDP"}]}]},
    })
}

/// A thousand policies and ten thousand pods in one process, without an API: a line for each kind of change.
pub(super) fn run() -> Result<()> {
    let mut cluster = Cluster::default();
    for node in 0..NODES {
        let object = json!({"metadata": {"name": format!("node{node}")}, "spec": {"podCIDRs": [format!("10.0.{node}.0/24")]}});
        cluster.take(Change::Node(wire::node(serde_json::from_value(object)?)));
    }
    for namespace in 0..NAMESPACES {
        let object = json!({"metadata": {"name": format!("n{namespace}"), "labels": {"team": format!("team{}", namespace % 10)}}});
        cluster.take(Change::Namespace(wire::namespace(serde_json::from_value(object)?)));
        for name in 0..PODS {
            let object = pod(namespace, name, name % 10);
            cluster.take(Change::Pod(wire::pod(serde_json::from_value(object)?)));
        }
        for number in 0..POLICIES {
            let object = rule(namespace, number, 80);
            cluster.take(Change::Policy(wire::policy(serde_json::from_value(object)?)));
        }
    }
    ensure!((cluster.pods.len(), cluster.policies.len()) == (10_000, 1_000));
    let netns = Netns::create()?;
    let dir = tempfile::tempdir()?;
    let mut enforcer = netns.run(|| Enforcer::open("node0", dir.path()))??;
    let mut tell = |what: &str, cluster: &Cluster| -> Result<()> {
        let started = Instant::now();
        let outcome = enforcer.sync(cluster)?;
        let took: Duration = started.elapsed();
        println!("{what:<40} {took:>12.2?}  {:?}", outcome.applied);
        Ok(())
    };
    tell("everything from nothing", &cluster)?;
    tell("nothing", &cluster)?;
    for port in [81, 82, 83] {
        cluster.take(Change::Policy(wire::policy(serde_json::from_value(rule(0, 0, port))?)));
        tell("a policy's port", &cluster)?;
    }
    for label in [1, 2, 3] {
        cluster.take(Change::Pod(wire::pod(serde_json::from_value(pod(0, 0, label))?)));
        tell("a local pod's labels", &cluster)?;
        cluster.take(Change::Pod(wire::pod(serde_json::from_value(pod(0, 1, label))?)));
        tell("another node's pod's labels", &cluster)?;
    }
    let object = json!({"metadata": {"name": "n0", "labels": {"team": "team1"}}});
    cluster.take(Change::Namespace(wire::namespace(serde_json::from_value(object)?)));
    tell("a namespace's labels", &cluster)?;
    Ok(())
}
