//! Three whole machines, two on one switch and one behind a router, on which kubelets make the pods: what Kubernetes
//! promises of a network, end to end, while machines break, go and come.
//!
//! ```text
//!            kube-apiserver, controllers, scheduler: 172.18.0.1 · router · 172.19.0.1
//!                                                       |             |
//!   n0 ──────────────── n1 (one switch) ────────────────┘             └── n2 (VXLAN to it)
//!   kubelet, containerd, kube-proxy and podnetd's pod on each
//! ```

mod policies;
mod scene;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use podnet_tests::kube;
use podnet_tests::nodes::{Echo, Node, Nodes, seen_as};
use serde_json::{Value, json};

use super::SOON;
use super::kind::{Kind, both};
use super::restarts::Flow;
use scene::{DOOR, Server, servers};

/// A masquerade as kindnet's, of all that pods of a node send to other nodes.
const HIDING: [&str; 4] = [
    "nft add table inet hiding",
    "nft add chain inet hiding post { type nat hook postrouting priority 90 ; }",
    "nft add rule inet hiding post oifname { eth0, podnet-vxlan } ip saddr 10.244.0.0/16 snat ip to 172.18.0.10",
    "nft add rule inet hiding post oifname { eth0, podnet-vxlan6 } ip6 saddr fd00:10:244::/48 snat ip6 to fc00:18::10",
];

/// One bring-up for all, as it takes longer than anything that is looked at.
#[test]
fn three_machines_are_one_network_that_outlives_any_of_them() -> Result<()> {
    let Some(mut kind) = Kind::start(&[0, 0, 1])? else { return Ok(()) };
    kind.install()?;
    kind.start_proxies()?;
    scene::populate(&kind)?;
    let web = servers(&kind)?;
    let places: Vec<usize> = web.iter().map(|it| it.node).collect();
    ensure!(places == [0, 0, 1, 1, 2, 2], "the Deployment is on {places:?}");
    let (door, slow) = (scene::server(&kind, "door")?, scene::server(&kind, "slow")?);
    let all: Vec<&Server> = web.iter().chain([&door, &slow]).collect();
    scene::addresses_are_the_nodes(&kind, &all)?;
    ways_are_direct_on_a_link_and_vxlan_behind_a_router(&kind)?;
    everyone_is_seen_as_who_they_are(&kind, &web).context("truth table")?;
    service_leads_to_all(&kind, &web, &slow).context("service")?;
    host_port_leads_to_its_pod(&kind, &web, &door).context("host port")?;
    bandwidth_is_what_the_annotations_say(&kind, &web[2], &slow).context("bandwidth")?;
    policies::hold_across_nodes(&kind, &web).context("policy")?;
    killed_programs_of_a_machine_harm_nobody(&mut kind, &web).context("killed programs")?;
    gone_machine_is_forgotten_and_another_takes_its_place(&mut kind).context("gone machine")?;
    scene::empty(&kind, &["back", "slow"])?;
    kind.take_off().context("uninstall")
}

fn ways_are_direct_on_a_link_and_vxlan_behind_a_router(kind: &Kind) -> Result<()> {
    for (from, to, expected) in
        [(0, "n1", "direct"), (0, "n2", "vxlan"), (1, "n2", "vxlan"), (2, "n0", "vxlan")]
    {
        let (_, text) = kind.nodes.nodes[from].ask_agent("/status")?;
        let status: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        let paths = status["peers"][to]["paths"].as_array().context("no paths")?;
        ensure!(
            paths.len() == 2 && paths.iter().all(|it| it["way"] == expected),
            "n{from} to {to}: {paths:?}"
        );
    }
    Ok(())
}

/// Pods, and nodes as hostNetwork pods, each to each; outside it is the node that is seen. With a masquerade in the way
/// the same table is red, where that is, and nowhere else.
fn everyone_is_seen_as_who_they_are(kind: &Kind, web: &[Server]) -> Result<()> {
    let all: Vec<&Server> = web.iter().collect();
    scene::all_are_seen_as_who_they_are(kind, &all)?;
    let _outside = Echo::start(&kind.nodes.outside)?;
    for pod in web {
        let node = &kind.nodes.nodes[pod.node];
        let seen =
            [false, true].map(|ipv6| seen_as(&pod.netns, Nodes::outside_address(node.rack, ipv6), SOON));
        let [v4, v6] = seen;
        ensure!([v4?, v6?] == node.addresses(), "{} is not seen as {} outside", pod.name, node.name);
    }

    let n0 = &kind.nodes.nodes[0];
    for command in HIDING {
        n0.output(command)?;
    }
    for family in [0, 1] {
        let (_, wrong) = scene::table(kind, &all, family);
        let own: BTreeSet<String> =
            web.iter().filter(|it| it.node == 0).map(|it| format!("{}@n0", it.name)).collect();
        let from: BTreeSet<String> = wrong.iter().map(|it| it.from.clone()).collect();
        let elsewhere = web.iter().filter(|it| it.node != 0).count() + 2;
        ensure!(
            from == own
                && wrong.len() == own.len() * elsewhere
                && wrong.iter().all(|it| !it.to.ends_with("n0")),
            "a masquerade of what {own:?} send to other nodes turned red:\n{}",
            super::truth::lines(&wrong)
        );
    }
    n0.output("nft delete table inet hiding")?;
    scene::all_are_seen_as_who_they_are(kind, &all)
}

/// A service's address leads to endpoints on every machine, from a pod and from nodes on either side of the router.
fn service_leads_to_all(kind: &Kind, web: &[Server], client: &Server) -> Result<()> {
    let service = kind.client.create(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 8000, "targetPort": 80}]},
    }))?;
    let ip: IpAddr = service["spec"]["clusterIP"].as_str().context("clusterIP")?.parse()?;
    let to = SocketAddr::new(ip, 8000);
    let [n0, _, n2] = &kind.nodes.nodes[..] else { anyhow::bail!("three nodes") };
    let clients = [
        (&client.name, client.node, &client.netns, client.ips),
        (&n0.name, 0, &n0.netns, n0.addresses()),
        (&n2.name, 2, &n2.netns, n2.addresses()),
    ];
    for (name, node, netns, own) in clients {
        let mut missing: BTreeSet<&str> = web.iter().map(|it| it.name.as_str()).collect();
        let mut hidden = Vec::new();
        kind.wait(&format!("{name} reaches all endpoints"), || {
            let (seen, server) = kube::who(netns, to, Duration::from_secs(2))?;
            missing.remove(server.as_str());
            let at = web.iter().find(|it| it.name == server).with_context(|| format!("{server} answers"))?;
            // A node has an address of its own towards its pods.
            if !own.contains(&seen) && (at.node != node || *name == client.name) {
                hidden.push(format!("{server} sees {name} as {seen}"));
            }
            ensure!(missing.is_empty(), "not {missing:?}");
            Ok(())
        })?;
        ensure!(hidden.is_empty(), "{hidden:?}");
    }
    Ok(())
}

/// A port of n2, from the other nodes, pods on them, and the outside; all are seen as who they are.
fn host_port_leads_to_its_pod(kind: &Kind, web: &[Server], door: &Server) -> Result<()> {
    for family in [0, 1] {
        let to = SocketAddr::new(kind.nodes.nodes[2].addresses()[family], DOOR);
        let nodes =
            kind.nodes.nodes[..2].iter().map(|it| (it.name.as_str(), &it.netns, it.addresses()[family]));
        let pods = web[..4].iter().map(|it| (it.name.as_str(), &it.netns, it.ips[family]));
        let outside = Nodes::outside_address(1, family == 1);
        for (name, netns, own) in nodes.chain(pods).chain([("outside", &kind.nodes.outside, outside)]) {
            let (seen, server) = kube::who(netns, to, SOON).with_context(|| format!("{name} at {to}"))?;
            ensure!(seen == own && server == door.name, "{server} sees {name} as {seen}, and not as {own}");
        }
    }
    Ok(())
}

/// From the annotations through kubelet, containerd and the capability to the kernel: 8 and 4 Mbit/s are 1 and 0.5 MB/s.
fn bandwidth_is_what_the_annotations_say(kind: &Kind, free: &Server, slow: &Server) -> Result<()> {
    let node = &kind.nodes.nodes[1];
    ensure!(free.node == 1 && slow.node == 1, "both are on n1");
    let port = |pod: &Server| -> Result<String> {
        let route = tool(node, "ip", &format!("route get {}", pod.ips[0]))?;
        Ok(route[0]["dev"].as_str().with_context(|| format!("no way to {}: {route}", pod.name))?.to_owned())
    };
    let ifbs = || -> Result<Vec<String>> {
        let links = tool(node, "ip", "link show type ifb")?;
        let names = links.as_array().into_iter().flatten().filter_map(|it| it["ifname"].as_str());
        Ok(names.map(str::to_owned).collect())
    };
    let rate = |dev: &str| -> Result<Option<u64>> {
        let all = tool(node, "tc", &format!("qdisc show dev {dev}"))?;
        let mut all = all.as_array().into_iter().flatten();
        Ok(all.find(|it| it["kind"] == "tbf").and_then(|it| it["options"]["rate"].as_u64()))
    };
    let (to_slow, to_free) = (port(slow)?, port(free)?);
    ensure!(rate(&to_slow)? == Some(1_000_000), "to the pod: {:?} B/s", rate(&to_slow)?);
    ensure!(rate(&to_free)?.is_none(), "a pod without annotations is limited to {:?} B/s", rate(&to_free)?);
    let ifbs = ifbs()?;
    ensure!(ifbs.len() == 1, "the limit of what a pod sends: {ifbs:?}");
    ensure!(rate(&ifbs[0])? == Some(500_000), "from the pod: {:?} B/s", rate(&ifbs[0])?);
    let way = node.output(&format!("tc filter show dev {to_slow} parent ffff:"))?;
    ensure!(way.contains(&ifbs[0]), "what comes from the pod does not go by {}: {way}", ifbs[0]);
    Ok(())
}

/// kubelet, containerd and agent of n1 are killed: flows between others and with its pods lose nothing, new connections
/// come about, and all three come back.
fn killed_programs_of_a_machine_harm_nobody(kind: &mut Kind, web: &[Server]) -> Result<()> {
    let [here, there, far] = [&web[0], &web[2], &web[4]];
    ensure!([here.node, there.node, far.node] == [0, 1, 2]);
    let all: Vec<&Server> = web.iter().collect();
    let _echoes = [Echo::start(&here.netns)?, Echo::start(&there.netns)?];
    let agent = kind.agent(1)?["status"]["containerStatuses"][0].clone();
    let agent = kind.machines[1].process(agent["containerID"].as_str().context("a container's ID")?)?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let flows = [
            ("to the machine", scope.spawn(|| Flow::run(&here.netns, there.ips[0], &stop))),
            ("between others", scope.spawn(|| Flow::run(&far.netns, here.ips[0], &stop))),
        ];
        let outage = (|| -> Result<()> {
            for program in ["kubelet", "containerd"] {
                kind.machines[1].kill(program)?;
            }
            kind.machines[1].run(&["bash", "-c", &format!("kill -KILL {agent}")])?;
            kind.wait("the agent is dead", || {
                ensure!(kind.nodes.nodes[1].ask_agent("/healthz").is_err(), "it answers");
                Ok(())
            })?;
            scene::all_are_seen_as_who_they_are(kind, &all).context("while they are dead")?;
            for program in ["containerd", "kubelet"] {
                kind.machines[1].start_again(program)?;
            }
            kind.wait("the agent is back", || {
                let (code, text) = kind.nodes.nodes[1].ask_agent("/readyz")?;
                ensure!(code == 200, "{text}");
                Ok(())
            })
        })();
        stop.store(true, Ordering::Relaxed);
        outage?;
        for (name, flow) in flows {
            flow.join().expect("a flow ends")?.is_whole(name)?;
        }
        Ok(())
    })?;
    kind.rolled_out()?;
    scene::all_are_seen_as_who_they_are(kind, &all).context("afterwards")
}

/// n2 is stopped and its Node deleted: nothing on the others leads there any more. Another machine of the name joins.
fn gone_machine_is_forgotten_and_another_takes_its_place(kind: &mut Kind) -> Result<()> {
    let (_, object) = kind.is_ready(2)?;
    let ranges = object["spec"]["podCIDRs"].as_array().context("PodCIDRs")?;
    let mut signs: Vec<String> = ranges
        .iter()
        .filter_map(|it| it.as_str())
        .map(|it| it.replace("0/24", "").replace("/64", ""))
        .collect();
    signs.extend(both(&object["status"]["addresses"], "address")?.map(|it| it.to_string()));
    let found = |number: usize| -> Result<Vec<&String>> {
        let text = ways(&kind.nodes.nodes[number])?;
        Ok(signs.iter().filter(|it| text.contains(it.as_str())).collect())
    };
    for number in [0, 1] {
        ensure!(
            found(number)?.len() == signs.len(),
            "n{number} knows of {signs:?} only {:?}",
            found(number)?
        );
    }
    let machine = kind.machines.pop().context("a third machine")?;
    drop(machine);
    kind.client.delete("/api/v1/nodes/n2")?;
    let pods = kind.client.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn2")?;
    for pod in pods["items"].as_array().into_iter().flatten() {
        let of = |key: &str| pod["metadata"][key].as_str().unwrap_or_default();
        kind.client.delete(&format!("/api/v1/namespaces/{}/pods/{}", of("namespace"), of("name")))?;
    }
    for number in [0, 1] {
        kind.wait(&format!("n2 forgotten by n{number}"), || {
            let left = found(number)?;
            ensure!(left.is_empty(), "{left:?} in\n{}", ways(&kind.nodes.nodes[number])?);
            let (_, text) = kind.nodes.nodes[number].ask_agent("/status")?;
            let status: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
            ensure!(status["peers"].get("n2").is_none(), "{status}");
            Ok(())
        })?;
    }
    let elsewhere = servers(kind).context("the Deployment's pods on the others")?;
    ensure!(elsewhere.iter().all(|it| it.node < 2));

    kind.nodes.reboot(2)?;
    kind.boot()?;
    kind.start_proxies()?;
    kind.wait("n2 is ready again", || {
        let (ready, node) = kind.is_ready(2)?;
        ensure!(ready, "{}", node["status"]["conditions"]);
        Ok(())
    })?;
    kind.rolled_out()?;
    scene::hosts(kind)?;
    scene::add(kind, "back", 2, &json!({}), &[kube::server(scene::PORT)])?;
    let (back, web) = (scene::server(kind, "back")?, servers(kind)?);
    let all: Vec<&Server> = web.iter().chain([&back]).collect();
    ensure!(back.node == 2, "back is on n{}", back.node);
    scene::addresses_are_the_nodes(kind, &all)?;
    scene::all_are_seen_as_who_they_are(kind, &all).context("with a new machine")
}

/// All by which a node can reach others.
fn ways(node: &Node) -> Result<String> {
    let commands = [
        "ip route show table all",
        "ip -6 route show table all",
        "ip neigh show nud permanent",
        "bridge fdb show",
    ];
    commands.iter().map(|it| node.output(it)).collect()
}

/// What `ip` or `tc` tells as JSON.
fn tool(node: &Node, program: &str, words: &str) -> Result<Value> {
    let output = node.run(|| Command::new(program).arg("-j").args(words.split(' ')).output())??;
    ensure!(output.status.success(), "{program} {words}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout).unwrap_or_default())
}
