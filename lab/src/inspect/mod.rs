//! `podlab inspect`: what the kernel has in a namespace of the lab, read over netlink at that moment.
//!
//! Nothing is cached and nothing is judged.

mod wiring;

use std::hash::{Hash, Hasher};

use anyhow::Context;
use kernel::route::Family;
use kernel::{Netns, Nfnl, Rtnl, addr, link, neigh, nft, route, rule, sysctl, tc};
use serde_json::{Map, Value, json};

use crate::breaking;
use crate::cluster::Outside;
use crate::construct::netns_path;
use crate::exit::Failure;
use crate::supervisor::{Lab, unknown};

/// The schema of the document.
pub const SCHEMA: &str = "podlab.inspect/1";

/// The state of a space, or of the whole lab.
///
/// # Errors
/// There is no such space, or the kernel's words.
pub fn inspect(lab: &Lab, what: Option<&str>) -> Result<Value, Failure> {
    let Some(name) = what else { return Ok(whole(lab)?) };
    let cluster = lab.cluster();
    let space = cluster.space(name).ok_or_else(|| unknown(&cluster, name))?;
    let mut document = Map::new();
    document.insert("schema".into(), SCHEMA.into());
    document.insert("name".into(), name.into());
    document.insert("role".into(), space.role.word().into());
    if let Some(pod) = cluster.pod(name) {
        let node = &cluster.nodes[pod.node].space.name;
        document.insert("node".into(), node.as_str().into());
        document.insert("containerID".into(), pod.container_id.as_str().into());
        document.insert("containers".into(), json!(pod.meta.containers));
        document.insert("result".into(), pod.result.clone());
    }
    if let Some(host) = cluster.host(name) {
        document.insert("address".into(), json!(host.address.first));
        document.insert("addresses".into(), json!(host.address.iter().collect::<Vec<_>>()));
    }
    if let Some(node) = cluster.node(name) {
        document.insert("address".into(), json!(node.address.first));
        document.insert("addresses".into(), json!(node.address.iter().collect::<Vec<_>>()));
        document.insert("podCIDR".into(), node.pod_cidr.first.to_string().into());
        document.insert("podCIDRs".into(), json!(node.pod_cidr.iter().collect::<Vec<_>>()));
        document.insert("events".into(), json!(lab.events.changes(Some(name))));
    }
    let state =
        kernel_state(&space.netns).map_err(|err| Failure::from(err.context(format!("inspect {name}"))))?;
    document.extend(state);
    Ok(Value::Object(document))
}

fn whole(lab: &Lab) -> anyhow::Result<Value> {
    let cluster = lab.cluster();
    let nodes: Vec<Value> = cluster
        .nodes
        .iter()
        .map(|node| {
            let rack = cluster.racks.get(node.rack).map(|rack| rack.name.as_str());
            json!({
                "name": node.space.name,
                "rack": rack,
                "address": node.address.first,
                "addresses": node.address.iter().collect::<Vec<_>>(),
                "podCIDR": node.pod_cidr.first.to_string(),
                "podCIDRs": node.pod_cidr.iter().collect::<Vec<_>>(),
            })
        })
        .collect();
    let pods: Vec<Value> = cluster
        .pods
        .iter()
        .map(|pod| {
            json!({
                "name": pod.space.name,
                "node": cluster.nodes[pod.node].space.name,
                "addresses": pod.addresses,
                "containers": pod.meta.containers,
                "netns": netns_path(&pod.space.name),
            })
        })
        .collect();
    let host = |host: &Outside| {
        json!({
            "name": host.space.name,
            "address": host.address.first,
            "addresses": host.address.iter().collect::<Vec<_>>(),
        })
    };
    let hosts: Vec<Value> = cluster.outside.iter().map(host).collect();
    let first = cluster.outside.first().context("the lab has no host outside")?;
    Ok(json!({
        "schema": SCHEMA,
        "name": cluster.name,
        "role": "lab",
        "mode": lab.topology.mode,
        "outside": first.address.first,
        "outsideAddresses": first.address.iter().collect::<Vec<_>>(),
        "hosts": hosts,
        "nodes": nodes,
        "pods": pods,
        "links": wiring::links(&cluster)?,
        "events": lab.events.changes(None),
        "troubles": lab.events.troubles(),
        "faults": breaking::count(lab),
    }))
}

/// Interfaces, routes, rules, neighbours and forwarding entries of a network namespace.
///
/// # Errors
/// The kernel's words.
pub fn kernel_state(netns: &Netns) -> anyhow::Result<Map<String, Value>> {
    let mut rtnl = Rtnl::open_in(netns)?;
    let links = link::list(&mut rtnl)?;
    let name = |index: u32| links.iter().find(|link| link.index == index).map(|link| link.name.clone());
    let addresses = addr::list(&mut rtnl, None)?;
    let interfaces: Vec<Value> = links
        .iter()
        .map(|link| {
            let own = addresses.iter().filter(|address| address.index == link.index);
            json!({
                "name": link.name,
                "kind": link.kind,
                "mac": link.mac.map(|mac| mac.to_string()),
                "mtu": link.mtu,
                "state": wiring::state(link),
                "master": link.master.and_then(name),
                "alias": link.alias,
                "addresses": own.map(|address| address.net.to_string()).collect::<Vec<_>>(),
            })
        })
        .collect();
    let mut routes = Vec::new();
    let mut rules = Vec::new();
    for family in [Family::V4, Family::V6] {
        let listed = route::list(&mut rtnl, family)?;
        routes.extend(listed.iter().filter(|route| route.table_id() != route::TABLE_LOCAL).map(|route| {
            json!({
                "dst": route.destination().to_string(),
                "gateway": route.gateway,
                "dev": route.oif.and_then(name),
                "src": route.src,
                "metric": route.priority,
                "table": route.table_id(),
            })
        }));
        rules.extend(rule::list(&mut rtnl, family)?.iter().map(|rule| {
            json!({
                "priority": rule.priority,
                "from": rule.src.map(|src| src.to_string()),
                "to": rule.dst.map(|dst| dst.to_string()),
                "table": rule.table,
            })
        }));
    }
    let neighbours: Vec<Value> = neigh::list(&mut rtnl)?
        .iter()
        .map(|neigh| {
            json!({
                "address": neigh.addr,
                "mac": neigh.mac.map(|mac| mac.to_string()),
                "dev": name(neigh.index),
                "state": neigh.state_word(),
            })
        })
        .collect();
    // The kernel's own order is that of a hash table and of what came first.
    let mut entries = neigh::fdb(&mut rtnl)?;
    entries.sort_by_key(|entry| (entry.index, entry.mac.0, entry.dst));
    let fdb: Vec<Value> = entries
        .iter()
        .map(|entry| {
            let (mac, dev) = (entry.mac.to_string(), name(entry.index));
            json!({ "mac": mac, "dev": dev, "dst": entry.dst, "vni": entry.vni })
        })
        .collect();
    let mut qdiscs = Vec::new();
    for link in &links {
        let of_link = tc::qdiscs(&mut rtnl, link.index)?;
        // noqueue is what a link has that has none.
        let put_there = of_link.iter().filter(|qdisc| qdisc.handle != 0);
        qdiscs.extend(put_there.map(|qdisc| match &qdisc.kind {
            tc::Kind::Tbf(tbf) => json!({ "dev": link.name, "kind": "tbf", "rate": tbf.rate }),
            other => json!({ "dev": link.name, "kind": other.name(), "rate": null }),
        }));
    }
    let mut state = Map::new();
    state.insert("interfaces".into(), interfaces.into());
    state.insert("routes".into(), routes.into());
    state.insert("rules".into(), rules.into());
    state.insert("neigh".into(), neighbours.into());
    state.insert("fdb".into(), fdb.into());
    state.insert("qdiscs".into(), qdiscs.into());
    state.insert("chains".into(), chains(netns)?.into());
    state.insert("sysctls".into(), netns.run(|| sysctls(links.iter().map(|link| &link.name)))??.into());
    Ok(state)
}

/// The chains of nf_tables, each with the number of its rules and a digest of what they do.
fn chains(netns: &Netns) -> anyhow::Result<Vec<Value>> {
    let mut nfnl = Nfnl::open_in(netns)?;
    let mut all = Vec::new();
    for table in nft::tables(&mut nfnl, None)? {
        for chain in nft::chains(&mut nfnl, table.table())? {
            let rules = nft::rules(&mut nfnl, table.table(), &chain.name)?;
            let mut digest = std::hash::DefaultHasher::new();
            for expression in rules.iter().flat_map(|rule| &rule.expressions) {
                // What a rule has counted is not what it does.
                if !matches!(expression, nft::Expr::Counter { .. }) {
                    format!("{expression:?}").hash(&mut digest);
                }
            }
            all.push(json!({
                "table": format!("{} {}", table.family.as_str(), table.name),
                "chain": chain.name,
                "rules": rules.len(),
                "digest": format!("{:016x}", digest.finish()),
            }));
        }
    }
    Ok(all)
}

/// The sysctls that decide what becomes of packets.
fn sysctls<'n>(links: impl Iterator<Item = &'n String>) -> kernel::Result<Vec<Value>> {
    let of_links = links.map(|name| format!("net/ipv4/conf/{name}/rp_filter"));
    let all = ["net/ipv4/ip_forward", "net/ipv4/conf/all/rp_filter"].map(str::to_owned).into_iter();
    all.chain(of_links)
        .map(|path| Ok(json!({ "name": path.replace('/', "."), "value": sysctl::read(&path)?.trim() })))
        .collect()
}
