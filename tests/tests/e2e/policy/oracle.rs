//! What NetworkPolicies say, by the words of the API's documentation and from the objects as they are written: a second
//! opinion that shares nothing with the agent.

use std::net::IpAddr;

use serde_json::{Map, Value};

/// One end: whose address it is.
#[derive(Debug, Clone)]
pub(super) struct Party {
    pub(super) address: IpAddr,
    /// The pod's object, if a pod of the pod network has it.
    pub(super) pod: Option<Value>,
    /// Where the pod runs, or which node it is.
    pub(super) node: Option<String>,
}

/// All objects as the API has them.
#[derive(Debug, Clone, Default)]
pub(super) struct Objects {
    pub(super) namespaces: Vec<Value>,
    pub(super) policies: Vec<Value>,
}

fn text<'v>(value: &'v Value, path: &str) -> &'v str {
    value.pointer(path).and_then(Value::as_str).unwrap_or("")
}

fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// "The result of matchLabels and matchExpressions are ANDed. An empty label selector matches all objects."
fn label_selector(selector: &Value, labels: Option<&Map<String, Value>>) -> bool {
    let label_of = |key: &str| labels.and_then(|labels| labels.get(key));
    for (key, value) in selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
        if label_of(key) != Some(value) {
            return false;
        }
    }
    for expression in list(selector, "matchExpressions") {
        let label = label_of(text(expression, "/key"));
        let listed = label.is_some_and(|label| list(expression, "values").contains(label));
        let met = match text(expression, "/operator") {
            "In" => listed,
            "NotIn" => !listed,
            "Exists" => label.is_some(),
            "DoesNotExist" => label.is_none(),
            other => panic!("operator {other:?}"),
        };
        if !met {
            return false;
        }
    }
    true
}

fn labels(object: &Value) -> Option<&Map<String, Value>> {
    object["metadata"]["labels"].as_object()
}

/// The first bits of both are the same.
fn in_cidr(address: IpAddr, cidr: &str) -> bool {
    let (network, length) = cidr.split_once('/').expect("a prefix");
    let network: IpAddr = network.parse().expect("an address");
    let length: u32 = length.parse().expect("a length");
    let bits = |ip: IpAddr| -> Vec<bool> {
        let bytes = match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1)).collect()
    };
    let (one, other) = (bits(address), bits(network));
    one.len() == other.len() && one[..length as usize] == other[..length as usize]
}

impl Objects {
    fn namespace_labels(&self, name: &str) -> Option<&Map<String, Value>> {
        let found = self.namespaces.iter().find(|it| text(it, "/metadata/name") == name);
        labels(found.expect("a namespace"))
    }

    /// Whether a connection may be opened.
    pub(super) fn allow(&self, from: &Party, to: &Party, protocol: &str, port: u16) -> bool {
        if let (Some(a), Some(b)) = (&from.pod, &to.pod)
            && a["metadata"]["uid"] == b["metadata"]["uid"]
        {
            return true;
        }
        // "Traffic to and from the node where a Pod is running is always allowed."
        let same_node = from.node.is_some() && from.node == to.node;
        if same_node && (from.pod.is_none() || to.pod.is_none()) {
            return true;
        }
        self.side("Egress", from, to, to, protocol, port)
            && self.side("Ingress", to, from, to, protocol, port)
    }

    fn side(
        &self,
        direction: &str,
        pod: &Party,
        peer: &Party,
        to: &Party,
        protocol: &str,
        port: u16,
    ) -> bool {
        let Some(object) = &pod.pod else { return true };
        let mut isolated = false;
        for policy in &self.policies {
            let spec = &policy["spec"];
            let same_namespace = text(policy, "/metadata/namespace") == text(object, "/metadata/namespace");
            if !same_namespace || !label_selector(&spec["podSelector"], labels(object)) {
                continue;
            }
            // "If this field is not specified, it will default based on the existence of ingress or egress rules;
            // policies that contain an egress section are assumed to affect egress, and all policies (whether or not
            // they contain an ingress section) are assumed to affect ingress."
            let affects = match list(spec, "policyTypes") {
                [] if direction == "Ingress" => true,
                [] => !list(spec, "egress").is_empty(),
                types => types.iter().any(|it| it == direction),
            };
            if !affects {
                continue;
            }
            isolated = true;
            let (section, peers) =
                if direction == "Ingress" { ("ingress", "from") } else { ("egress", "to") };
            for rule in list(spec, section) {
                // "If this field is empty or missing, this rule matches all sources / all ports."
                let of_peer = list(rule, peers).is_empty()
                    || list(rule, peers)
                        .iter()
                        .any(|it| self.peer(it, text(policy, "/metadata/namespace"), peer));
                let of_port = list(rule, "ports").is_empty()
                    || list(rule, "ports").iter().any(|it| to_port(it, to, protocol, port));
                if of_peer && of_port {
                    return true;
                }
            }
        }
        !isolated
    }

    fn peer(&self, peer: &Value, namespace: &str, other: &Party) -> bool {
        if let Some(block) = peer.get("ipBlock") {
            return in_cidr(other.address, text(block, "/cidr"))
                && !list(block, "except").iter().any(|it| in_cidr(other.address, it.as_str().unwrap_or("")));
        }
        let Some(pod) = &other.pod else { return false };
        let its_namespace = text(pod, "/metadata/namespace");
        let namespace_fits = match peer.get("namespaceSelector") {
            Some(selector) => label_selector(selector, self.namespace_labels(its_namespace)),
            None => its_namespace == namespace,
        };
        namespace_fits && peer.get("podSelector").is_none_or(|it| label_selector(it, labels(pod)))
    }
}

fn to_port(wanted: &Value, to: &Party, protocol: &str, port: u16) -> bool {
    let of = wanted.get("protocol").and_then(Value::as_str).unwrap_or("TCP");
    if of != protocol {
        return false;
    }
    match &wanted["port"] {
        Value::Null => true,
        Value::String(name) => {
            to.pod.iter().flat_map(|pod| list(&pod["spec"], "containers")).any(|container| {
                list(container, "ports").iter().any(|it| {
                    it["name"] == *name
                        && it["containerPort"] == port
                        && it.get("protocol").and_then(Value::as_str).unwrap_or("TCP") == of
                })
            })
        }
        number => {
            let first = number.as_u64().expect("a number");
            let last = wanted.get("endPort").and_then(Value::as_u64).unwrap_or(first);
            (first..=last).contains(&u64::from(port))
        }
    }
}
