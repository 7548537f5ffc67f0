//! Many pods, many networks, other programs' rules beside: nobody's rules collide, and after DEL of all they are what
//! they were.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use podnet_tests::Side;
use podnet_tests::world::Call;
use serde_json::{Value, json};

use super::bystanders;
use super::network::{ask, refused, tcp};
use super::{Scene, V4, mapping, renamed, same};

const PODS: usize = 100;

/// A result as `bridge` would print it for pod `n` of the crowd; no namespace is needed for rules.
fn result_of(scene: &Scene, n: usize) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "cni0"}, {"name": format!("veth{n:08x}")},
            {"name": "eth0", "sandbox": scene.world.netns(0)}],
        "ips": [{"interface": 2, "address": format!("10.1.2.{}/24", n + 2)},
            {"interface": 2, "address": format!("2001:db8:1::{:x}/64", n + 2)}]
    })
}

/// The calls of one verb for pod `n`: mappings, and for every third a firewall with a policy.
fn calls<'s>(scene: &'s Scene, verb: &str, n: usize) -> Vec<Call<'s>> {
    let result = result_of(scene, n);
    let port = 10_000 + n as u16;
    let mappings = json!([mapping(port, 80, "tcp", ""), mapping(port, 53, "udp", "192.0.2.1")]);
    let policy = if n.is_multiple_of(2) { "isolated" } else { "same-bridge" };
    let firewall =
        scene.firewall(verb, 0, &result, &format!(r#""backend":"iptables","ingressPolicy":"{policy}""#));
    let name = format!("c{n}");
    let mut calls = vec![scene.portmap(verb, 0, &result, &mappings, "").container(&name)];
    if n.is_multiple_of(3) {
        calls.push(firewall.container(&name));
    }
    calls
}

/// Calls a verb for all pods, eight at a time.
fn all(scene: &Scene, verb: &str) -> Result<()> {
    some(scene, verb, PODS)
}

/// Calls a verb for the first pods, eight at a time.
fn some(scene: &Scene, verb: &str, pods: usize) -> Result<()> {
    let next = AtomicUsize::new(0);
    let worker = || -> Result<()> {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= pods {
                return Ok(());
            }
            for call in calls(scene, verb, n) {
                let outcome = call.run()?;
                ensure!(outcome.exit == Some(0), "{verb} of pod {n}: {outcome:?}");
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..8).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|w| w.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a panic"))))
    })
}

#[test]
fn a_hundred_pods_come_and_go_beside_docker_and_kube_proxy() -> Result<()> {
    let scene = Scene::new(Side::Podnet, 1)?;
    scene.attach(0, V4)?;
    bystanders::load(&scene, "ACCEPT")?;
    let before = bystanders::picture(&scene)?;
    all(&scene, "ADD")?;
    let rules = scene.rules()?;
    for chain in ["jump hostports_all", "jump hostports\n", "jump CNI-FORWARD"] {
        // Once in each of two families; the entry is in two chains of each.
        let expected = if chain.contains("all") { 4 } else { 2 };
        ensure!(
            rules.matches(chain).count() == expected,
            "{chain:?} is not there {expected} times:\n{rules}"
        );
    }
    ensure!(
        rules.matches("oifname != \"cni0\" jump").count() == 1,
        "the policy's rules are repeated:\n{rules}"
    );
    some(&scene, "CHECK", 10)?;
    // Every mapping leads to its own pod: the pod answers at all the addresses.
    let commands: Vec<String> = (3..PODS + 2).map(|n| format!("addr add 10.1.2.{n}/24 dev eth0")).collect();
    scene.world.pod_ip(0, &commands.iter().map(String::as_str).collect::<Vec<_>>())?;
    let _server = tcp(scene.pod(0), 80)?;
    for n in [0, 1, 50, PODS - 1] {
        ask(&scene.outside, &format!("192.0.2.1:{}", 10_000 + n)).with_context(|| format!("pod {n}"))?;
    }
    all(&scene, "DEL")?;
    same(&before, &bystanders::picture(&scene)?)?;
    some(&scene, "DEL", 10)
}

#[test]
fn three_networks_in_one_pod_have_their_own_mappings() -> Result<()> {
    let scene = Scene::new(Side::Podnet, 1)?;
    let before = scene.rules()?;
    let mut networks = Vec::new();
    for n in 0..3u16 {
        let text = format!(
            r#"{{"bridge":"br{n}","isGateway":true,"ipam":{{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.{}.0/24"}}}}"#,
            2 + n
        );
        let ifname = format!("net{n}");
        let name = format!("network{n}");
        let bridge = scene.world.call("bridge", "ADD").config("1.0.0", &text).env("CNI_IFNAME", &ifname);
        let result = renamed(bridge, &name).run()?.result()?;
        networks.push((name, ifname, 8080 + n, result));
    }
    // The pod answers packets of the node's other side by its first network.
    scene.world.pod_ip(0, &["route add default via 10.1.2.1"])?;
    let call = |verb: &str, (name, ifname, port, result): &(String, String, u16, Value)| {
        let mappings = json!([mapping(*port, 80, "tcp", "")]);
        renamed(scene.portmap(verb, 0, result, &mappings, r#""masqAll":true"#), name)
            .env("CNI_IFNAME", ifname)
    };
    for network in &networks {
        call("ADD", network).run()?.result()?;
    }
    let _server = tcp(scene.pod(0), 80)?;
    let reached = |n: usize| ask(&scene.outside, &format!("192.0.2.1:{}", networks[n].2));
    for (n, gateway) in ["10.1.2.1", "10.1.3.1", "10.1.4.1"].into_iter().enumerate() {
        ensure!(reached(n)? == gateway, "network{n}");
    }
    call("DEL", &networks[1]).run()?.silent()?;
    refused(&scene.outside, "192.0.2.1:8081")?;
    for n in [0, 2] {
        reached(n)?;
        call("CHECK", &networks[n]).run()?.silent()?;
        call("DEL", &networks[n]).run()?.silent()?;
    }
    same(&before, &scene.rules()?)
}
