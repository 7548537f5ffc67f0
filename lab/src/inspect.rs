//! `podlab inspect`: what the kernel has in a namespace of the lab, read over netlink at that moment.
//!
//! Nothing is cached and nothing is judged.

use kernel::route::Family;
use kernel::{Rtnl, addr, link, neigh, route, rule};
use serde_json::{Map, Value, json};

use crate::cluster::Space;
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
    let Some(name) = what else { return Ok(whole(lab)) };
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
        document.insert("result".into(), pod.result.clone());
    }
    if let Some(node) = cluster.nodes.iter().find(|node| node.space.name == name) {
        document.insert("address".into(), node.address.to_string().into());
        document.insert("podCIDR".into(), node.pod_cidr.to_string().into());
        document.insert("events".into(), json!(lab.events.changes(Some(name))));
    }
    let state = kernel_state(space).map_err(|err| Failure::from(err.context(format!("inspect {name}"))))?;
    document.extend(state);
    Ok(Value::Object(document))
}

fn whole(lab: &Lab) -> Value {
    let cluster = lab.cluster();
    let nodes: Vec<Value> = cluster
        .nodes
        .iter()
        .map(|node| {
            let rack = cluster.racks.get(node.rack).map(|rack| rack.name.as_str());
            json!({
                "name": node.space.name,
                "rack": rack,
                "address": node.address,
                "podCIDR": node.pod_cidr.to_string(),
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
                "netns": netns_path(&pod.space.name),
            })
        })
        .collect();
    json!({
        "schema": SCHEMA,
        "name": cluster.name,
        "role": "lab",
        "mode": lab.topology.mode,
        "outside": cluster.outside.address,
        "nodes": nodes,
        "pods": pods,
        "events": lab.events.changes(None),
        "troubles": lab.events.troubles(),
    })
}

fn kernel_state(space: &Space) -> anyhow::Result<Map<String, Value>> {
    let mut rtnl = Rtnl::open_in(&space.netns)?;
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
                "state": link.oper_state,
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
    let fdb: Vec<Value> = neigh::fdb(&mut rtnl)?
        .iter()
        .map(|entry| json!({ "mac": entry.mac.to_string(), "dev": name(entry.index), "dst": entry.dst }))
        .collect();
    let mut state = Map::new();
    state.insert("interfaces".into(), interfaces.into());
    state.insert("routes".into(), routes.into());
    state.insert("rules".into(), rules.into());
    state.insert("neigh".into(), neighbours.into());
    state.insert("fdb".into(), fdb.into());
    Ok(state)
}
