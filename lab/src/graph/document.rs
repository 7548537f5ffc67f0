//! The document of `podlab inspect`, as far as it is drawn, and the places that it makes.

use std::collections::HashMap;

use serde::Deserialize;

use super::{MOST_PODS, Place, Role};

/// A lab.
#[derive(Deserialize)]
pub(super) struct Document {
    pub(super) name: String,
    pub(super) mode: String,
    /// Documents of labs that could have one only do not say it.
    #[serde(default)]
    hosts: Vec<HostOf>,
    pub(super) nodes: Vec<NodeOf>,
    pub(super) pods: Vec<PodOf>,
    pub(super) links: Vec<LinkOf>,
}

#[derive(Deserialize)]
struct HostOf {
    name: String,
}

impl Document {
    /// The names of the hosts outside.
    pub(super) fn hosts(&self) -> Vec<&str> {
        match self.hosts.as_slice() {
            [] => vec!["outside"],
            hosts => hosts.iter().map(|host| host.name.as_str()).collect(),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct NodeOf {
    pub(super) name: String,
    pub(super) rack: Option<String>,
    #[serde(rename = "podCIDR")]
    pub(super) pod_cidr: String,
}

#[derive(Deserialize)]
pub(super) struct PodOf {
    pub(super) name: String,
    pub(super) node: String,
}

#[derive(Deserialize)]
pub(super) struct LinkOf {
    pub(super) place: String,
    pub(super) name: String,
    pub(super) kind: Option<String>,
    pub(super) mac: Option<String>,
    pub(super) up: bool,
    pub(super) state: String,
    pub(super) master: Option<String>,
    pub(super) peer: Option<String>,
    pub(super) below: Option<String>,
    pub(super) addresses: Vec<String>,
}

/// Outside, fabric, racks, nodes, pods.
pub(super) fn places(document: &Document, shown: &[String]) -> Vec<Place> {
    let place = |name: &str, role: Role, within: Option<usize>, note: &str| Place {
        name: name.to_owned(),
        role,
        within,
        note: note.to_owned(),
        count: 1,
        links: Vec::new(),
    };
    let hosts = document.hosts();
    let mut all: Vec<Place> = hosts.iter().map(|name| place(name, Role::Outside, None, "")).collect();
    all.push(place("fabric", Role::Fabric, None, ""));
    for rack in document.nodes.iter().filter_map(|node| node.rack.as_deref()) {
        if !all.iter().any(|place| place.name == rack) {
            all.push(place(rack, Role::Router, None, ""));
        }
    }
    for node in &document.nodes {
        let rack = node.rack.as_ref().and_then(|rack| all.iter().position(|place| place.name == *rack));
        all.push(place(&node.name, Role::Node, rack, &node.pod_cidr));
    }
    let numbers: HashMap<String, usize> = all.iter().map(|place| place.name.clone()).zip(0..).collect();
    let is_crowded = document.pods.len() > MOST_PODS;
    let mut counts: HashMap<usize, usize> = HashMap::new();
    for pod in &document.pods {
        let node = numbers.get(&pod.node).copied();
        if !is_crowded || shown.contains(&pod.name) {
            all.push(place(&pod.name, Role::Pod, node, ""));
        } else if let Some(node) = node {
            *counts.entry(node).or_default() += 1;
        }
    }
    for node in &document.nodes {
        let Some(&number) = numbers.get(&node.name) else { continue };
        if let Some(&count) = counts.get(&number) {
            let tile = place(&format!("{}/pods", node.name), Role::Pods, Some(number), "");
            all.push(Place { count, ..tile });
        }
    }
    all
}
