//! The node agent's data plane, with nodes and pods as namespaces: pods are made by the real plugin, the router between the
//! racks knows nothing of pods and takes their packets for forged.

mod changes;
mod drift;
mod export;
mod installation;
mod peers;
mod sources;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use agent::masquerade::{self, Masquerade};
use agent::model::Node as Model;
use agent::routing::{self, Applied, Facts, Plan};
use anyhow::{Context, Result, ensure};
use kernel::{Netns, Nfnl, Rtnl, sysctl};
use podnet_tests::nodes::{Node, Nodes};
use podnet_tests::plugins;

/// Nodes in these racks, whose router lets no packet through that is from or to a pod.
fn nodes(racks: &[usize]) -> Result<Nodes> {
    let nodes = Nodes::new(racks)?;
    nft(
        &nodes.outside,
        // What a switch passes on within a rack may be seen here too, where bridges call netfilter.
        "table inet strict { chain forward { type filter hook forward priority 0;
            iifname rack0 oifname rack0 accept; iifname rack1 oifname rack1 accept;
            ip saddr 10.244.0.0/16 drop; ip daddr 10.244.0.0/16 drop;
            ip6 saddr fd00:10:244::/48 drop; ip6 daddr fd00:10:244::/48 drop; } }",
    )?;
    for node in &nodes.nodes {
        as_in_kind(node)?;
    }
    Ok(nodes)
}

/// kind's image has the strict reverse path filter on.
fn as_in_kind(node: &Node) -> Result<()> {
    node.run(|| -> Result<()> {
        for link in ["all", "default", "eth0"] {
            sysctl::write(&format!("net/ipv4/conf/{link}/rp_filter"), "1")?;
        }
        Ok(())
    })?
}

/// What the API tells of a node.
fn model(node: &Node) -> Model {
    Model {
        name: node.name.clone(),
        pod_cidrs: node.pod_cidrs().iter().map(|it| it.parse().expect("a prefix")).collect(),
        addresses: node.addresses().to_vec(),
        ready: true,
    }
}

fn models(nodes: &Nodes) -> Vec<Model> {
    nodes.nodes.iter().map(model).collect()
}

/// Does what the agent does for routes, once; `all` are the nodes that the API tells of.
fn route(node: &Node, own: &Model, all: &[Model]) -> Result<(Plan, Applied)> {
    node.run(|| -> Result<(Plan, Applied)> {
        let mut rtnl = Rtnl::open()?;
        let facts = Facts::gather(&mut rtnl, own, all)?;
        let plan = routing::plan(own, all, &facts);
        let applied = routing::apply(&mut rtnl, &plan)?;
        Ok((plan, applied))
    })?
    .with_context(|| format!("routes of {}", node.name))
}

/// As [`route`], without trouble, and the masquerade.
fn settle(node: &Node, all: &[Model]) -> Result<Plan> {
    let own = model(node);
    let (plan, applied) = route(node, &own, all)?;
    ensure!(applied.trouble.is_empty() && applied.foreign.is_empty(), "{}: {applied:?}", node.name);
    node.run(|| masquerade::apply(&mut Nfnl::open()?, &Masquerade::of(&own, all)))??;
    Ok(plan)
}

/// Has every node do so.
fn settle_all(nodes: &Nodes) -> Result<Vec<Plan>> {
    let all = models(nodes);
    nodes.nodes.iter().map(|node| settle(node, &all)).collect()
}

/// Writes the network configuration that a runtime finds, and links the plugins.
fn configure(node: &Node, plan: &Plan) -> Result<()> {
    let podnet = plugins::podnet()?;
    for name in ["ptp", "host-local"] {
        symlink(&podnet, node.root.join("opt/cni/bin").join(name)).context("link a plugin")?;
    }
    let ranges: Vec<_> = node.pod_cidrs().iter().map(|it| serde_json::json!([{"subnet": it}])).collect();
    let list = serde_json::json!({
        "cniVersion": "1.0.0", "name": "podnet",
        "plugins": [{"type": "ptp", "mtu": plan.mtu, "ipam": {
            "type": "host-local", "dataDir": node.root.join("var/lib/cni/networks"),
            "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
        }}],
    });
    let file = node.root.join("etc/cni/net.d/05-podnet.conflist");
    fs::write(&file, list.to_string()).with_context(|| format!("write {}", file.display()))
}

/// Loads rules by `nft`.
fn nft(netns: &Netns, rules: &str) -> Result<()> {
    run(netns, &["nft", &rules.replace("} }", "}\n}")]).map(drop)
}

/// Runs a program in a namespace and gives what it prints.
fn run(netns: &Netns, words: &[&str]) -> Result<String> {
    let output =
        netns.run(|| Command::new(words[0]).args(&words[1..]).output())?.context(words[0].to_owned())?;
    ensure!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// All that the agent's data plane may touch on a node, as other programs show it: by what was asked, what was answered.
fn picture(node: &Node) -> Result<BTreeMap<&'static str, String>> {
    let mut all = BTreeMap::new();
    for command in [
        "ip -d -o link",
        "ip -o addr",
        "ip route show table all proto 80",
        "ip -6 route show table all proto 80",
        "ip route",
        "ip -6 route",
        "ip rule",
        "ip -6 rule",
        "ip neigh show nud permanent",
        "ip -6 neigh show nud permanent",
        "bridge fdb",
        "nft list ruleset",
    ] {
        let text = run(&node.netns, &command.split(' ').collect::<Vec<_>>())?;
        // Links that were made anew have other numbers, and addresses may be listed in another order.
        // The kernel gives link-local addresses by itself, and they change as it looks for duplicates.
        let mut lines: Vec<String> =
            text.lines().filter(|line| !line.contains(" fe80:")).map(unnumbered).collect();
        if !command.starts_with("nft") {
            lines.sort();
        }
        all.insert(command, lines.join("\n"));
    }
    Ok(all)
}

/// A line of `ip` without the link's number at its beginning.
fn unnumbered(line: &str) -> String {
    match line.split_once(": ") {
        Some((number, rest)) if number.bytes().all(|it| it.is_ascii_digit()) => rest.to_owned(),
        _ => line.to_owned(),
    }
}

/// Where two pictures differ.
fn differences(before: &BTreeMap<&str, String>, after: &BTreeMap<&str, String>) -> Vec<String> {
    let other = |key: &&&str| before.get(**key) != after.get(**key);
    let told = |key: &&str| format!("{key}:\n{}\n-- now:\n{}", before[key], after[key]);
    before.keys().filter(other).map(told).collect()
}
