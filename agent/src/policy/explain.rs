//! Who may reach whom, and which rule says so: over a live cluster or over manifests that nobody has applied yet.

use std::fmt::{self, Write};
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::networking::v1 as networking;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Direction;
use super::evaluate::{Addresses, Connection, End, Judgement, Reason, evaluate};
use crate::model::{Change, Cluster, Key, Namespace, Pod, Protocol};
use crate::wire;

/// One end as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// `NAMESPACE/POD`.
    Pod(Key),
    /// An address: whoever has it, or someone outside of the cluster.
    Address(IpAddr),
    /// `node/NAME`.
    Node(String),
}

impl std::str::FromStr for Who {
    type Err = String;

    fn from_str(text: &str) -> Result<Who, String> {
        if let Ok(address) = text.parse() {
            return Ok(Who::Address(address));
        }
        match text.split_once('/') {
            Some((first, second)) if first.is_empty() || second.is_empty() || second.contains('/') => {
                Err(format!("{text:?} is neither NAMESPACE/POD nor an address nor node/NAME"))
            }
            Some(("node", name)) => Ok(Who::Node(name.to_owned())),
            Some((namespace, name)) => Ok(Who::Pod(Key::new(namespace, name))),
            None => Err(format!("{text:?} is neither NAMESPACE/POD nor an address nor node/NAME")),
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::Pod(key) => key.fmt(f),
            Who::Address(address) => address.fmt(f),
            Who::Node(name) => write!(f, "node/{name}"),
        }
    }
}

/// A port as it is asked for: `80`, `80/UDP`, or a name that the destination pod's containers have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The number or name.
    pub port: std::result::Result<u16, String>,
    /// The protocol; `None`: TCP, or that of the named port.
    pub protocol: Option<Protocol>,
}

impl std::str::FromStr for Asked {
    type Err = String;

    fn from_str(text: &str) -> Result<Asked, String> {
        let (port, protocol) = match text.split_once('/') {
            None => (text, None),
            Some((port, protocol)) => {
                let found = Protocol::named(&protocol.to_uppercase());
                (port, Some(found.ok_or_else(|| format!("protocol {protocol:?}: one of TCP, UDP, SCTP"))?))
            }
        };
        let port = match port.parse::<u16>() {
            Ok(0) | Err(_) if port.bytes().all(|it| it.is_ascii_digit()) => {
                return Err(format!("port {port:?}: a number from 1 to 65535, or a name"));
            }
            Ok(number) => Ok(number),
            Err(_) => Err(port.to_owned()),
        };
        Ok(Asked { port, protocol })
    }
}

/// One direction's verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Side {
    /// It lets the connection through.
    pub allowed: bool,
    /// Why, as one word: `own-pod`, `own-node`, `no-pod`, `not-isolated`, `rule`, `no-rule`.
    pub reason: &'static str,
    /// The policy whose rule lets it through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// That rule's place in the policy's list, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<usize>,
    /// The policies that isolate the pod, where none has a rule that lets it through.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub isolated_by: Vec<String>,
}

/// One end, as it was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// As it was asked for.
    pub asked: String,
    /// The pod, unless it is none or a hostNetwork pod, which counts as its node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The node it runs on or is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Its address; absent where a manifest gives none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Who opens the connection.
    pub source: Found,
    /// To whom.
    pub destination: Found,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: &'static str,
    /// The destination's port.
    pub port: u16,
    /// Both directions let it through.
    pub allowed: bool,
    /// What the source's policies say.
    pub egress: Side,
    /// What the destination's policies say.
    pub ingress: Side,
    /// What to know about the answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Explains whether `source` may reach a port of `destination`: once for each IP version that both have, if the answers
/// are not the same.
///
/// # Errors
/// What was asked for is not in the cluster, with what there is of its kind.
pub fn explain(cluster: &Cluster, source: &Who, destination: &Who, port: &Asked) -> Result<Vec<Explanation>> {
    let addresses = Addresses::of(cluster);
    let (from, to) = (ends(cluster, &addresses, source)?, ends(cluster, &addresses, destination)?);
    let mut all: Vec<Explanation> = Vec::new();
    for from in &from {
        for to in &to {
            // An end without an address has no IP version either.
            let versions =
                [from.address, to.address].map(|it| (!it.is_unspecified()).then_some(it.is_ipv6()));
            if let [Some(one), Some(other)] = versions
                && one != other
            {
                continue;
            }
            let one = one(cluster, (source, *from), (destination, *to), port)?;
            let same = |it: &Explanation| (&it.egress, &it.ingress) == (&one.egress, &one.ingress);
            if !all.iter().any(same) {
                all.push(one);
            }
        }
    }
    ensure!(!all.is_empty(), "{source} and {destination} have no IP version in common");
    Ok(all)
}

fn one(
    cluster: &Cluster,
    (source, from): (&Who, End<'_>),
    (destination, to): (&Who, End<'_>),
    asked: &Asked,
) -> Result<Explanation> {
    let (protocol, port) = port_of(asked, destination, to.pod)?;
    let connection = Connection { source: from, destination: to, protocol: protocol.number(), port };
    let judged = evaluate(cluster, &connection);
    let found = |who: &Who, end: &End<'_>| Found {
        asked: who.to_string(),
        pod: end.pod.map(|pod| pod.key.to_string()),
        node: end.node.filter(|it| !it.is_empty()).map(str::to_owned),
        address: Some(end.address).filter(|it| !it.is_unspecified()),
    };
    let mut notes = Vec::new();
    for (who, end) in [(source, &from), (destination, &to)] {
        if end.address.is_unspecified() {
            notes.push(format!(
                "{who} has no address yet: of ipBlock rules only those for all addresses count"
            ));
        }
        if matches!(who, Who::Pod(_)) && end.pod.is_none() {
            notes.push(format!("{who} uses its node's network: policies see the node"));
        }
    }
    Ok(Explanation {
        source: found(source, &from),
        destination: found(destination, &to),
        protocol: protocol.name(),
        port,
        allowed: judged.allowed(),
        egress: side(&judged, Direction::Egress),
        ingress: side(&judged, Direction::Ingress),
        notes,
    })
}

fn port_of(asked: &Asked, destination: &Who, pod: Option<&Pod>) -> Result<(Protocol, u16)> {
    match &asked.port {
        Ok(port) => Ok((asked.protocol.unwrap_or(Protocol::Tcp), *port)),
        Err(name) => {
            let pod =
                pod.ok_or_else(|| anyhow!("port {name:?}: {destination} is no pod with named ports"))?;
            let of = |it: &&crate::model::NamedPort| {
                it.name == *name && asked.protocol.is_none_or(|protocol| it.protocol == protocol)
            };
            let Some(found) = pod.ports.iter().find(of) else {
                let names: Vec<&str> = pod.ports.iter().map(|it| it.name.as_str()).collect();
                bail!("port {name:?}: {destination} has no port of that name; it has [{}]", names.join(", "));
            };
            Ok((found.protocol, found.port))
        }
    }
}

fn side(judged: &Judgement, direction: Direction) -> Side {
    let reason = judged.of(direction);
    let mut side =
        Side { allowed: reason.allows(), reason: "", policy: None, rule: None, isolated_by: Vec::new() };
    side.reason = match reason {
        Reason::OwnPod => "own-pod",
        Reason::OwnNode => "own-node",
        Reason::NoPod => "no-pod",
        Reason::NotIsolated => "not-isolated",
        Reason::Allowed { policy, rule } => {
            (side.policy, side.rule) = (Some(policy.to_string()), Some(*rule));
            "rule"
        }
        Reason::Denied { policies } => {
            side.isolated_by = policies.iter().map(ToString::to_string).collect();
            "no-rule"
        }
    };
    side
}

/// Whom is meant, with each address that it has.
fn ends<'a>(cluster: &'a Cluster, addresses: &Addresses<'a>, who: &'a Who) -> Result<Vec<End<'a>>> {
    let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let or_nowhere = |all: &[IpAddr]| if all.is_empty() { vec![nowhere] } else { all.to_vec() };
    let of_node = |name: &'a str| {
        let known = cluster.nodes.get(name).map(|node| node.addresses.as_slice()).unwrap_or_default();
        let end = |address| End { address, pod: None, node: Some(name) };
        or_nowhere(known).into_iter().map(end).collect::<Vec<_>>()
    };
    match who {
        Who::Address(address) => Ok(vec![addresses.end(*address)]),
        Who::Node(name) => {
            let names: Vec<&str> = cluster.nodes.keys().map(String::as_str).collect();
            ensure!(cluster.nodes.contains_key(name), "no node {name:?}: there is [{}]", names.join(", "));
            Ok(of_node(name))
        }
        Who::Pod(key) => {
            let Some(pod) = cluster.pods.get(key) else {
                let own = cluster.pods.keys().filter(|it| it.namespace == key.namespace);
                let mut names: Vec<&str> = own.map(|it| it.name.as_str()).collect();
                names.sort_unstable();
                bail!("no pod {key}: namespace {} has [{}]", key.namespace, names.join(", "));
            };
            if pod.host_network {
                return Ok(of_node(&pod.node));
            }
            let end = |address| End { address, pod: Some(pod), node: Some(&pod.node) };
            Ok(or_nowhere(&pod.ips).into_iter().map(end).collect())
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Explanation { source, destination, protocol, port, .. } = self;
        let word = |allowed| if allowed { "allowed" } else { "denied" };
        writeln!(f, "{source} to {destination}, {protocol} port {port}: {}", word(self.allowed))?;
        for (direction, side, end) in
            [(Direction::Egress, &self.egress, source), (Direction::Ingress, &self.ingress, destination)]
        {
            let who = end.pod.as_deref().unwrap_or(&end.asked);
            let why = match side.reason {
                "own-pod" => "a pod always reaches itself".to_owned(),
                "own-node" => "a pod and its own node always reach each other".to_owned(),
                "no-pod" => format!("{who} is no pod with an address of its own, so no policy applies to it"),
                "not-isolated" => format!("no policy isolates {who} for {}", direction.name()),
                "rule" => {
                    let policy = side.policy.as_deref().unwrap_or_default();
                    format!(
                        "{policy} lets it through by {}[{}]",
                        direction.name(),
                        side.rule.unwrap_or_default()
                    )
                }
                _ => format!(
                    "{who} is isolated by {}, and no rule lets it through",
                    side.isolated_by.join(", ")
                ),
            };
            writeln!(f, "  {:<8} {}: {why}", direction.name(), word(side.allowed))?;
        }
        for note in &self.notes {
            writeln!(f, "  note: {note}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.asked)?;
        let of = match (&self.pod, &self.node) {
            (Some(pod), _) if *pod != self.asked => Some(pod.clone()),
            (None, Some(node)) => Some(format!("node/{node}")).filter(|it| *it != self.asked),
            _ => None,
        };
        let address = self.address.map(|it| it.to_string()).filter(|it| *it != self.asked);
        match (of, address) {
            (None, None) => Ok(()),
            (of, address) => {
                let all: Vec<String> = of.into_iter().chain(address).collect();
                write!(f, " ({})", all.join(", "))
            }
        }
    }
}

/// A cluster out of manifests: files of YAML or JSON with any number of documents, or directories of such files. Pods,
/// Namespaces, Nodes, NetworkPolicies and Lists of them count, all else is passed over. A namespace that objects name
/// and no manifest makes is there, with no label but its name.
///
/// # Errors
/// A file that cannot be read or does not hold what it says, with its name and the document's number.
pub fn from_manifests(paths: &[PathBuf]) -> Result<Cluster> {
    let mut cluster = Cluster::default();
    for path in paths {
        for file in files(path)? {
            let at = || file.display().to_string();
            let text = fs::read_to_string(&file).with_context(at)?;
            let documents: Vec<Value> = serde_saphyr::from_multiple(&text).with_context(at)?;
            for (number, document) in documents.into_iter().enumerate() {
                let read = take(&mut cluster, document);
                read.with_context(|| format!("{}: document {}", file.display(), number + 1))?;
            }
        }
    }
    let named = cluster.pods.keys().chain(cluster.policies.keys()).map(|key| key.namespace.clone());
    let missing: Vec<String> = named.filter(|name| !cluster.namespaces.contains_key(name)).collect();
    for name in missing {
        let labels = [("kubernetes.io/metadata.name".to_owned(), name.clone())].into();
        cluster.take(Change::Namespace(Namespace { name, labels }));
    }
    Ok(cluster)
}

fn files(path: &Path) -> Result<Vec<PathBuf>> {
    let at = || path.display().to_string();
    if !fs::metadata(path).with_context(at)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut all = Vec::new();
    for entry in fs::read_dir(path).with_context(at)? {
        let file = entry.with_context(at)?.path();
        let ending = file.extension().and_then(|it| it.to_str()).unwrap_or_default();
        if matches!(ending, "yaml" | "yml" | "json") && file.is_file() {
            all.push(file);
        }
    }
    all.sort();
    ensure!(!all.is_empty(), "{}: no file that ends in .yaml, .yml or .json", path.display());
    Ok(all)
}

fn take(cluster: &mut Cluster, document: Value) -> Result<()> {
    let kind = document["kind"].as_str().unwrap_or_default().to_owned();
    fn read<T: DeserializeOwned>(document: Value, kind: &str) -> Result<T> {
        let name = document["metadata"]["name"].as_str().unwrap_or("without a name").to_owned();
        serde_json::from_value(document).map_err(|error| anyhow!("{kind} {name}: {error}"))
    }
    let change = match kind.as_str() {
        "Pod" => Change::Pod(wire::pod(read::<core::Pod>(document, &kind)?)),
        "Namespace" => Change::Namespace(wire::namespace(read::<core::Namespace>(document, &kind)?)),
        "Node" => Change::Node(wire::node(read::<core::Node>(document, &kind)?)),
        "NetworkPolicy" => Change::Policy(wire::policy(read::<networking::NetworkPolicy>(document, &kind)?)),
        _ if kind.ends_with("List") => {
            let Value::Object(mut list) = document else { return Ok(()) };
            let Some(Value::Array(items)) = list.remove("items") else { return Ok(()) };
            // Items of a list of one kind may leave their kind out.
            let of = kind.strip_suffix("List").unwrap_or_default();
            for mut item in items {
                if item["kind"].is_null() && item.is_object() && !of.is_empty() {
                    item["kind"] = of.into();
                }
                take(cluster, item)?;
            }
            return Ok(());
        }
        _ => return Ok(()),
    };
    cluster.take(change);
    Ok(())
}

/// All answers as text, an empty line between.
pub fn text(all: &[Explanation]) -> String {
    let mut text = String::new();
    for (number, one) in all.iter().enumerate() {
        let _ = write!(text, "{}{one}", if number == 0 { "" } else { "\n" });
    }
    text
}
