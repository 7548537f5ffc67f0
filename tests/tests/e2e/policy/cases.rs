//! Policies by name: those of Kubernetes' own tests and what they leave out.

use serde_json::{Value, json};

/// A named list of policies, as the API has them.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) policies: Vec<Value>,
}

/// A policy's object.
pub(super) fn policy(namespace: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": namespace, "name": name}, "spec": spec})
}

/// Pods with this label `pod`.
fn pod(name: &str) -> Value {
    json!({"matchLabels": {"pod": name}})
}

/// Namespaces with this label `ns`.
fn ns(name: &str) -> Value {
    json!({"matchLabels": {"ns": name}})
}

/// One policy for x/a that lets in by these rules.
fn into_a(rules: Value) -> Vec<Value> {
    vec![policy(
        "x",
        "into-a",
        json!({"podSelector": pod("a"), "policyTypes": ["Ingress"], "ingress": rules}),
    )]
}

/// One policy for x/a that lets out by these rules.
fn out_of_a(rules: Value) -> Vec<Value> {
    vec![policy(
        "x",
        "out-of-a",
        json!({"podSelector": pod("a"), "policyTypes": ["Egress"], "egress": rules}),
    )]
}

fn from(peers: Value) -> Vec<Value> {
    into_a(json!([{"from": peers}]))
}

fn to(peers: Value) -> Vec<Value> {
    out_of_a(json!([{"to": peers}]))
}

fn ports(ports: Value) -> Vec<Value> {
    into_a(json!([{"ports": ports}]))
}

fn deny(namespace: &str, types: &[&str]) -> Value {
    policy(namespace, "deny-all", json!({"podSelector": {}, "policyTypes": types}))
}

/// All of them. The addresses are those of the bed: pods 10.244.N.2 and so on, nodes 172.18.0.10 and .11.
#[rustfmt::skip]
pub(super) fn all() -> Vec<Case> {
    let case = |name, policies| Case { name, policies };
    let expressions = |key: &str, operator: &str, values: Value| {
        let mut one = json!({"key": key, "operator": operator});
        if !values.is_null() {
            one["values"] = values;
        }
        json!({"matchExpressions": [one]})
    };
    vec![
        case("no policy", vec![]),
        case("deny all ingress", vec![deny("x", &["Ingress"])]),
        case("deny all egress", vec![deny("x", &["Egress"])]),
        case("deny all", vec![deny("x", &["Ingress", "Egress"])]),
        case("deny all in every namespace", ["x", "y", "z"].map(|n| deny(n, &["Ingress", "Egress"])).into()),
        case("policyTypes absent and no rules: ingress", vec![policy("x", "p", json!({"podSelector": {}}))]),
        case("policyTypes absent and egress rules: both", vec![policy("x", "p", json!({"podSelector": {}, "egress": [{}]}))]),
        case("policyTypes Ingress with egress rules: ingress", vec![policy("x", "p", json!({"podSelector": {}, "policyTypes": ["Ingress"], "egress": [{"to": [{"podSelector": pod("b")}]}]}))]),
        case("allow all ingress", into_a(json!([{}]))),
        case("allow all egress", out_of_a(json!([{}]))),
        case("from pods of the own namespace", from(json!([{"podSelector": pod("b")}]))),
        case("from all pods of the own namespace", from(json!([{"podSelector": {}}]))),
        case("from a namespace", from(json!([{"namespaceSelector": ns("y")}]))),
        case("from a namespace by its name", from(json!([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "z"}}}]))),
        case("from all namespaces", from(json!([{"namespaceSelector": {}}]))),
        case("from pods of a namespace (and)", from(json!([{"namespaceSelector": ns("y"), "podSelector": pod("b")}]))),
        case("from a namespace or pods (or)", from(json!([{"namespaceSelector": ns("y")}, {"podSelector": pod("b")}]))),
        case("from pods in all namespaces", from(json!([{"namespaceSelector": {}, "podSelector": pod("c")}]))),
        case("namespaces In", from(json!([{"namespaceSelector": expressions("ns", "In", json!(["y", "z"]))}]))),
        case("namespaces NotIn", from(json!([{"namespaceSelector": expressions("ns", "NotIn", json!(["y"]))}]))),
        case("pods In", from(json!([{"namespaceSelector": {}, "podSelector": expressions("pod", "In", json!(["a", "c"]))}]))),
        case("pods NotIn", from(json!([{"namespaceSelector": {}, "podSelector": expressions("pod", "NotIn", json!(["a"]))}]))),
        case("pods Exists", from(json!([{"podSelector": expressions("pod", "Exists", Value::Null)}]))),
        case("pods DoesNotExist", from(json!([{"podSelector": expressions("pod", "DoesNotExist", Value::Null)}]))),
        case("pods NotIn of a label that none has", from(json!([{"podSelector": expressions("tier", "NotIn", json!(["db"]))}]))),
        case("selector with labels and expressions", from(json!([{"namespaceSelector": {"matchLabels": {"ns": "y"}, "matchExpressions": [{"key": "ns", "operator": "Exists"}]}, "podSelector": {"matchLabels": {"pod": "a"}, "matchExpressions": [{"key": "pod", "operator": "NotIn", "values": ["b"]}]}}]))),
        case("target by expression", vec![policy("y", "p", json!({"podSelector": expressions("pod", "In", json!(["b", "c"])), "ingress": [{"from": [{"podSelector": pod("a")}]}]}))]),
        case("target selects nothing", vec![policy("y", "p", json!({"podSelector": pod("none"), "policyTypes": ["Ingress", "Egress"]}))]),
        case("a peer that selects nothing", from(json!([{"podSelector": pod("none")}]))),
        case("empty from matches all", into_a(json!([{"from": [], "ports": [{"port": 80}]}]))),
        case("empty ports match all", into_a(json!([{"from": [{"podSelector": pod("b")}], "ports": []}]))),
        case("port, TCP by default", ports(json!([{"port": 80}]))),
        case("port of UDP", ports(json!([{"port": 81, "protocol": "UDP"}]))),
        case("port of SCTP is not TCP's", ports(json!([{"port": 80, "protocol": "SCTP"}]))),
        case("all ports of a protocol", ports(json!([{"protocol": "UDP"}]))),
        case("several ports", ports(json!([{"port": 80}, {"port": 81}, {"port": 81, "protocol": "SCTP"}, {"port": 443}]))),
        case("endPort", ports(json!([{"port": 79, "endPort": 80}]))),
        case("endPort from the second port on", ports(json!([{"port": 81, "endPort": 65535, "protocol": "UDP"}, {"port": 1, "endPort": 80, "protocol": "TCP"}]))),
        case("endPort equal to port", ports(json!([{"port": 81, "endPort": 81}]))),
        case("ranges with a hole", ports(json!([{"port": 1, "endPort": 79}, {"port": 81, "endPort": 90}]))),
        case("named port", ports(json!([{"port": "serve-80-tcp"}]))),
        case("named port of UDP", ports(json!([{"port": "serve-80-udp", "protocol": "UDP"}]))),
        case("named port with another protocol", ports(json!([{"port": "serve-80-udp", "protocol": "TCP"}]))),
        case("named port that only some pods have", vec![policy("x", "p", json!({"podSelector": {}, "ingress": [{"ports": [{"port": "serve-81-tcp"}, {"port": "serve-81-sctp", "protocol": "SCTP"}]}]}))]),
        case("named port from one namespace", into_a(json!([{"from": [{"namespaceSelector": ns("y")}], "ports": [{"port": "serve-80-tcp"}]}]))),
        case("named port beside a number", ports(json!([{"port": "serve-80-tcp"}, {"port": 81, "protocol": "UDP"}]))),
        case("egress to pods of the own namespace", to(json!([{"podSelector": pod("c")}]))),
        case("egress to a namespace", to(json!([{"namespaceSelector": ns("z")}]))),
        case("egress to pods of a namespace on a port", out_of_a(json!([{"to": [{"namespaceSelector": ns("y"), "podSelector": pod("b")}], "ports": [{"port": 81}]}]))),
        case("egress to a named port", out_of_a(json!([{"ports": [{"port": "serve-81-tcp"}]}]))),
        case("egress to a named port of a namespace", out_of_a(json!([{"to": [{"namespaceSelector": ns("y")}], "ports": [{"port": "serve-81-udp", "protocol": "UDP"}, {"port": "serve-80-tcp"}]}]))),
        case("egress to a named port within a block", out_of_a(json!([{"to": [{"ipBlock": {"cidr": "10.244.1.0/24"}}], "ports": [{"port": "serve-81-tcp"}]}]))),
        case("egress to a block", to(json!([{"ipBlock": {"cidr": "10.244.1.0/24"}}]))),
        case("egress to a block with exceptions", to(json!([{"ipBlock": {"cidr": "10.244.0.0/16", "except": ["10.244.1.2/31", "10.244.0.0/24"]}}]))),
        case("egress to a block of nodes", to(json!([{"ipBlock": {"cidr": "172.18.0.0/24"}}]))),
        case("egress to everything but one node", to(json!([{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["172.18.0.11/32"]}}]))),
        case("ingress from a block", from(json!([{"ipBlock": {"cidr": "10.244.1.0/24"}}]))),
        case("ingress from a block of one address", from(json!([{"ipBlock": {"cidr": "10.244.1.3/32"}}]))),
        case("ingress from outside only", from(json!([{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.244.0.0/16"]}}]))),
        case("ingress from a node", from(json!([{"ipBlock": {"cidr": "172.18.0.11/32"}}]))),
        case("block and exception overlap with another block", from(json!([{"ipBlock": {"cidr": "10.244.0.0/16", "except": ["10.244.1.0/24"]}}, {"ipBlock": {"cidr": "10.244.1.2/31"}}]))),
        case("exception that is the whole block", from(json!([{"ipBlock": {"cidr": "10.244.1.0/24", "except": ["10.244.1.0/24"]}}]))),
        case("IPv6 block", from(json!([{"ipBlock": {"cidr": "fd00:10:244:1::/64"}}]))),
        case("IPv6 block with exception", to(json!([{"ipBlock": {"cidr": "fd00:10:244::/48", "except": ["fd00:10:244:1::2/127"]}}]))),
        case("blocks of both families", from(json!([{"ipBlock": {"cidr": "::/0", "except": ["fd00:10:244::/64"]}}, {"ipBlock": {"cidr": "10.244.0.2/32"}}]))),
        case("blocks and pods", from(json!([{"ipBlock": {"cidr": "172.18.0.0/24"}}, {"podSelector": pod("b")}, {"namespaceSelector": ns("z"), "podSelector": pod("a")}]))),
        case("both directions of one pod", vec![policy("x", "p", json!({"podSelector": pod("a"), "policyTypes": ["Ingress", "Egress"], "ingress": [{"from": [{"podSelector": pod("b")}]}], "egress": [{"to": [{"podSelector": pod("c")}]}]}))]),
        case("egress of one end and ingress of the other", vec![
            policy("x", "out", json!({"podSelector": pod("a"), "policyTypes": ["Egress"], "egress": [{"to": [{"namespaceSelector": ns("y")}]}]})),
            policy("y", "in", json!({"podSelector": pod("b"), "ingress": [{"from": [{"namespaceSelector": ns("x")}], "ports": [{"port": 80}]}]})),
        ]),
        case("stacked policies add up", vec![
            deny("x", &["Ingress"]),
            policy("x", "b-on-80", json!({"podSelector": pod("a"), "ingress": [{"from": [{"podSelector": pod("b")}], "ports": [{"port": 80}]}]})),
            policy("x", "y-on-81", json!({"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": ns("y")}], "ports": [{"port": 81}]}]})),
        ]),
        case("allow all beside deny all", vec![deny("x", &["Ingress"]), policy("x", "allow", json!({"podSelector": {}, "ingress": [{}]}))]),
        case("peers and ports of two rules do not mix", into_a(json!([{"from": [{"podSelector": pod("b")}], "ports": [{"port": 80}]}, {"from": [{"namespaceSelector": ns("y")}], "ports": [{"port": 81}]}]))),
        case("the same policy in every namespace", ["x", "y", "z"].map(|n| policy(n, "same", json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]}))).into()),
        case("many policies for one pod", (0..12).map(|n| policy("x", &format!("p{n}"), json!({"podSelector": pod("a"), "ingress": [{"from": [{"namespaceSelector": ns(["x", "y", "z"][n % 3]), "podSelector": pod(["a", "b", "c"][n / 4])}], "ports": [{"port": 80 + n % 2}]}]}))).collect()),
    ]
}
