//! What a fault is aimed at: from names, or by default, to what the lab has.
//!
//! Defaults follow from the topology alone: the first node and the one after it, the first pod and the next one of its
//! node, the first service.

use std::fmt;

use anyhow::{Context, Result};

use super::Work;
use crate::cluster::{Cluster, Pod};
use crate::exit::Failure;
use crate::faults::{Act, Fault};
use crate::supervisor;

/// What a fault is aimed at, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Lab,
    Node(String),
    Nodes(String, String),
    Pod(String),
    Pods(String, String),
    Service(String),
}

/// How words become a target.
type Find = fn(&Cluster, &[String]) -> Result<Target, Failure>;

/// Finds the target; wrong usage when there is no such thing, or too much is said.
pub(super) fn resolve(fault: &Fault, cluster: &Cluster, words: &[String]) -> Result<Target, Failure> {
    let (most, target): (usize, Find) = match fault.act {
        Act::Lab(_) => (0, |_, _| Ok(Target::Lab)),
        Act::Node(_) => (1, |cluster, words| Ok(Target::Node(node(cluster, words.first(), 0)?.to_owned()))),
        Act::Nodes(_) => (2, nodes),
        Act::Pod(_) => (1, |cluster, words| Ok(Target::Pod(name(pod(cluster, words.first())?)))),
        Act::Pods(_) => (2, pods),
        Act::Service(_) => (1, service),
    };
    if let Some(more) = words.get(most) {
        let usage = format!("{} {}", fault.id, fault.act.usage());
        return Err(Failure::usage(format!("{more:?} is too much · try: podlab break {}", usage.trim_end())));
    }
    target(cluster, words)
}

fn name(pod: &Pod) -> String {
    pod.space.name.clone()
}

fn node<'c>(cluster: &'c Cluster, name: Option<&String>, default: usize) -> Result<&'c str, Failure> {
    let few = || Failure::usage(format!("it takes {} nodes, and the lab has fewer", default + 1));
    let found = match name {
        None => cluster.nodes.get(default).ok_or_else(few),
        Some(name) => cluster.node(name).ok_or_else(|| supervisor::unknown(cluster, name)),
    };
    found.map(|node| node.space.name.as_str())
}

fn nodes(cluster: &Cluster, words: &[String]) -> Result<Target, Failure> {
    let near = node(cluster, words.first(), 0)?;
    let is_first = cluster.nodes.first().is_some_and(|first| first.space.name == near);
    let far = node(cluster, words.get(1), usize::from(is_first))?;
    match near == far {
        true => Err(Failure::usage("a node and another one, not the same twice")),
        false => Ok(Target::Nodes(near.to_owned(), far.to_owned())),
    }
}

fn pod<'c>(cluster: &'c Cluster, name: Option<&String>) -> Result<&'c Pod, Failure> {
    match name {
        Some(name) => cluster.pod(name).ok_or_else(|| supervisor::unknown(cluster, name)),
        None => cluster.pods.first().ok_or_else(|| Failure::usage("the lab has no pod")),
    }
}

fn pods(cluster: &Cluster, words: &[String]) -> Result<Target, Failure> {
    let first = pod(cluster, words.first())?;
    let is_sibling = |other: &&Pod| other.node == first.node && other.space.name != first.space.name;
    let other = match words.get(1) {
        Some(_) => Some(pod(cluster, words.get(1))?).filter(is_sibling),
        None => cluster.pods.iter().find(is_sibling),
    };
    let none = || Failure::usage(format!("it takes another pod on the node of {}", first.space.name));
    Ok(Target::Pods(name(first), name(other.ok_or_else(none)?)))
}

fn service(cluster: &Cluster, words: &[String]) -> Result<Target, Failure> {
    let real = || cluster.objects.services.iter().filter(|service| service.cluster_ip.is_some());
    let found = match words.first() {
        Some(name) => real().find(|service| service.name == *name),
        None => real().next(),
    };
    let none = || match words.first() {
        Some(name) => Failure::usage(format!("no service {name:?} · podlab kubectl get svc")),
        None => Failure::usage("the lab has no service · try: podlab kubectl expose"),
    };
    Ok(Target::Service(found.ok_or_else(none)?.name.clone()))
}

impl Target {
    /// Breaks it. The target is of the kind that the fault needs.
    pub(super) fn act(&self, fault: &Fault, work: &mut Work<'_>) -> Result<()> {
        let lab = work.lab;
        if let (Act::Service(act), Target::Service(name)) = (fault.act, self) {
            return act(work, name);
        }
        let cluster = lab.cluster();
        let node = |name: &str| cluster.node(name).with_context(|| format!("there is no node {name}"));
        let pod = |name: &str| cluster.pod(name).with_context(|| format!("pod {name} has gone"));
        match (fault.act, self) {
            (Act::Lab(act), Target::Lab) => act(work, &cluster),
            (Act::Node(act), Target::Node(name)) => act(work, &cluster, node(name)?),
            (Act::Nodes(act), Target::Nodes(near, far)) => act(work, &cluster, node(near)?, node(far)?),
            (Act::Pod(act), Target::Pod(name)) => act(work, &cluster, pod(name)?),
            (Act::Pods(act), Target::Pods(name, other)) => act(work, &cluster, pod(name)?, pod(other)?),
            (act, target) => anyhow::bail!("{target} is no target for {act:?}"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Lab => f.write_str("the lab"),
            Target::Node(name) | Target::Pod(name) | Target::Service(name) => f.write_str(name),
            Target::Nodes(name, other) | Target::Pods(name, other) => write!(f, "{name} {other}"),
        }
    }
}
