//! From the API's objects to what the agent keeps of them ([`crate::model`]).
//!
//! What cannot be understood, such as a range that is none, lets nothing through: a policy that is only half
//! understood still isolates.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::model::{
    Key, NamedPort, Namespace, Node, Operator, Peer, Pod, Policy, Port, Protocol, Requirement, Rule, Selector,
};

/// Namespace and name of an object; `default` where the file it is from names no namespace.
pub fn key(meta: &ObjectMeta) -> Key {
    let namespace = meta.namespace.as_deref().unwrap_or("default");
    Key::new(namespace, meta.name.as_deref().unwrap_or_default())
}

/// What is kept of a Node.
pub fn node(node: core::Node) -> Node {
    let spec = node.spec.unwrap_or_default();
    let cidrs = match spec.pod_cidrs.unwrap_or_default() {
        all if all.is_empty() => spec.pod_cidr.into_iter().collect(),
        all => all,
    };
    let status = node.status.unwrap_or_default();
    let addresses = status.addresses.unwrap_or_default();
    let ready = status.conditions.iter().flatten().any(|it| it.type_ == "Ready" && it.status == "True");
    Node {
        name: node.metadata.name.unwrap_or_default(),
        pod_cidrs: cidrs.iter().filter_map(|it| range(it)).collect(),
        addresses: addresses
            .iter()
            .filter(|it| it.type_ == "InternalIP")
            .filter_map(|it| it.address.parse().ok())
            .collect(),
        ready,
    }
}

/// What is kept of a Pod.
pub fn pod(pod: core::Pod) -> Pod {
    let key = key(&pod.metadata);
    let spec = pod.spec.unwrap_or_default();
    let status = pod.status.unwrap_or_default();
    let ips = match status.pod_ips.unwrap_or_default() {
        all if all.is_empty() => status.pod_ip.into_iter().collect(),
        all => all.into_iter().map(|it| it.ip).collect::<Vec<String>>(),
    };
    // Containers that run beside the others from the start are init containers with restartPolicy Always.
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let ports = containers.flat_map(|it| it.ports.iter().flatten()).filter_map(|it| {
        Some(NamedPort {
            name: it.name.clone()?,
            protocol: protocol(it.protocol.as_deref())?,
            port: u16::try_from(it.container_port).ok()?,
        })
    });
    Pod {
        key,
        uid: pod.metadata.uid.unwrap_or_default(),
        ports: ports.collect(),
        node: spec.node_name.unwrap_or_default(),
        ips: ips.iter().filter_map(|it| it.parse::<IpAddr>().ok()).collect(),
        host_network: spec.host_network.unwrap_or_default(),
        finished: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
        labels: pod.metadata.labels.unwrap_or_default(),
    }
}

/// What is kept of a Namespace. It has the label `kubernetes.io/metadata.name` even where the API server is older
/// than 1.21 and does not set it.
pub fn namespace(namespace: core::Namespace) -> Namespace {
    let name = namespace.metadata.name.unwrap_or_default();
    let mut labels = namespace.metadata.labels.unwrap_or_default();
    labels.entry("kubernetes.io/metadata.name".to_owned()).or_insert_with(|| name.clone());
    Namespace { name, labels }
}

/// A NetworkPolicy. `policyTypes` absent: ingress always, egress where there are rules of it.
pub fn policy(policy: networking::NetworkPolicy) -> Policy {
    let key = key(&policy.metadata);
    let spec = policy.spec.unwrap_or_default();
    let says = |direction: &str, absent: bool| match &spec.policy_types {
        Some(types) if !types.is_empty() => types.iter().any(|it| it == direction),
        _ => absent,
    };
    let ingress = says("Ingress", true).then(|| {
        let rules = spec.ingress.iter().flatten();
        rules.map(|it| rule(it.from.as_deref(), it.ports.as_deref())).collect()
    });
    let egress = says("Egress", spec.egress.as_ref().is_some_and(|it| !it.is_empty())).then(|| {
        let rules = spec.egress.iter().flatten();
        rules.map(|it| rule(it.to.as_deref(), it.ports.as_deref())).collect()
    });
    Policy { key, pods: spec.pod_selector.as_ref().map(selector).unwrap_or_default(), ingress, egress }
}

/// A label selector.
pub fn selector(selector: &LabelSelector) -> Selector {
    let labels = selector.match_labels.iter().flatten();
    let exact = labels
        .map(|(key, value)| Requirement { key: key.clone(), operator: Operator::In(vec![value.clone()]) });
    let expressions = selector.match_expressions.iter().flatten().map(|it| {
        let values = it.values.clone().unwrap_or_default();
        let operator = match it.operator.as_str() {
            "NotIn" => Operator::NotIn(values),
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            "In" => Operator::In(values),
            // What is not known selects nothing.
            _ => Operator::In(Vec::new()),
        };
        Requirement { key: it.key.clone(), operator }
    });
    Selector(exact.chain(expressions).collect())
}

fn rule(
    peers: Option<&[networking::NetworkPolicyPeer]>,
    ports: Option<&[networking::NetworkPolicyPort]>,
) -> Rule {
    Rule {
        peers: peers.filter(|it| !it.is_empty()).map(|all| all.iter().filter_map(peer).collect()),
        ports: ports.filter(|it| !it.is_empty()).map(|all| all.iter().filter_map(port).collect()),
    }
}

fn peer(peer: &networking::NetworkPolicyPeer) -> Option<Peer> {
    if let Some(block) = &peer.ip_block {
        // An exception that is none leaves the block unknown: nothing of it is let through.
        let except = block.except.iter().flatten().map(|it| range(it)).collect::<Option<Vec<IpNetwork>>>()?;
        return Some(Peer::Block { cidr: range(&block.cidr)?, except });
    }
    if peer.namespace_selector.is_none() && peer.pod_selector.is_none() {
        return None;
    }
    Some(Peer::Pods {
        namespaces: peer.namespace_selector.as_ref().map(selector),
        pods: peer.pod_selector.as_ref().map(selector).unwrap_or_default(),
    })
}

fn port(port: &networking::NetworkPolicyPort) -> Option<(Protocol, Port)> {
    let protocol = protocol(port.protocol.as_deref())?;
    let number = |it: i32| u16::try_from(it).ok();
    let matched = match (&port.port, port.end_port) {
        (None, _) => Port::Any,
        (Some(IntOrString::Int(first)), None) => Port::Range(number(*first)?, number(*first)?),
        (Some(IntOrString::Int(first)), Some(last)) => Port::Range(number(*first)?, number(last)?),
        (Some(IntOrString::String(name)), _) => Port::Named(name.clone()),
    };
    Some((protocol, matched))
}

/// A protocol by name; TCP where none is named.
fn protocol(name: Option<&str>) -> Option<Protocol> {
    Protocol::named(name.unwrap_or("TCP"))
}

/// A range, as its network: bits behind the prefix are of no account.
fn range(text: &str) -> Option<IpNetwork> {
    let net: IpNetwork = text.parse().ok()?;
    IpNetwork::new(net.network(), net.prefix()).ok()
}
