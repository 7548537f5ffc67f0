//! The judge of one connection: a pure function over what is known of the cluster.
//!
//! Both ends have to agree: the source pod's policies let it out, the destination pod's let it in. A pod that no policy
//! of a direction selects is not isolated in it. Answers need no leave of their own. The same judge says what `explain`
//! prints and which live connections are cut, and the tests hold it against the kernel's rules.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::{Direction, isolating};
use crate::model::{Cluster, Key, Peer, Pod, Port, Protocol, Rule};

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End<'a> {
    /// Its address.
    pub address: IpAddr,
    /// The pod whose own address that is. A hostNetwork pod has none of its own: it counts as its node.
    pub pod: Option<&'a Pod>,
    /// The node on which the pod runs, or whose own address it is.
    pub node: Option<&'a str>,
}

impl End<'_> {
    /// It is this node itself, or a hostNetwork pod on it.
    fn is_node(&self, name: &str) -> bool {
        self.pod.is_none() && self.node == Some(name)
    }
}

/// A connection to judge, as the one who really serves it sees it: behind a Service, the pod that was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection<'a> {
    /// Who opens it.
    pub source: End<'a>,
    /// To whom.
    pub destination: End<'a>,
    /// The number in the IP header: 6 TCP, 17 UDP, 132 SCTP.
    pub protocol: u8,
    /// The port at the destination; 0 where the protocol has none.
    pub port: u16,
}

/// Why a direction lets a connection through, or does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Both ends are the same pod: no policy can forbid that.
    OwnPod,
    /// One end is the other's own node: no policy can forbid that.
    OwnNode,
    /// The end that this direction asks is no pod with an address of its own.
    NoPod,
    /// No policy isolates the pod in this direction.
    NotIsolated,
    /// A rule of a policy lets it through.
    Allowed {
        /// The policy: the first by name whose rule does.
        policy: Key,
        /// The rule's place in the policy's list, from 0.
        rule: usize,
    },
    /// Policies isolate the pod and no rule of theirs lets it through.
    Denied {
        /// All that isolate it.
        policies: Vec<Key>,
    },
}

impl Reason {
    /// Whether it lets the connection through.
    pub fn allows(&self) -> bool {
        !matches!(self, Reason::Denied { .. })
    }
}

/// What is judged of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// At the source.
    pub egress: Reason,
    /// At the destination.
    pub ingress: Reason,
}

impl Judgement {
    /// Both directions let it through.
    pub fn allowed(&self) -> bool {
        self.egress.allows() && self.ingress.allows()
    }

    /// What one direction says.
    pub fn of(&self, direction: Direction) -> &Reason {
        match direction {
            Direction::Egress => &self.egress,
            Direction::Ingress => &self.ingress,
        }
    }
}

/// Judges a connection.
pub fn evaluate(cluster: &Cluster, connection: &Connection<'_>) -> Judgement {
    let Connection { source, destination, .. } = connection;
    let both = |reason: Reason| Judgement { egress: reason.clone(), ingress: reason };
    if let (Some(one), Some(other)) = (source.pod, destination.pod)
        && one.key == other.key
    {
        return both(Reason::OwnPod);
    }
    let own_node = |pod: &End<'_>, other: &End<'_>| {
        pod.pod.is_some() && pod.node.is_some_and(|node| !node.is_empty() && other.is_node(node))
    };
    if own_node(source, destination) || own_node(destination, source) {
        return both(Reason::OwnNode);
    }
    Judgement {
        egress: judge(cluster, connection, Direction::Egress),
        ingress: judge(cluster, connection, Direction::Ingress),
    }
}

fn judge(cluster: &Cluster, connection: &Connection<'_>, direction: Direction) -> Reason {
    let (subject, other) = match direction {
        Direction::Egress => (&connection.source, &connection.destination),
        Direction::Ingress => (&connection.destination, &connection.source),
    };
    let Some(pod) = subject.pod else { return Reason::NoPod };
    let mut policies = Vec::new();
    for policy in isolating(cluster, &pod.key.namespace, &pod.labels, direction) {
        let rules = direction.rules(policy).unwrap_or_default();
        let lets = |rule: &Rule| {
            rule.peers
                .as_ref()
                .is_none_or(|all| all.iter().any(|peer| is_peer(cluster, peer, &policy.key.namespace, other)))
                && is_to_port(rule, connection)
        };
        if let Some(rule) = rules.iter().position(lets) {
            return Reason::Allowed { policy: policy.key.clone(), rule };
        }
        policies.push(policy.key.clone());
    }
    if policies.is_empty() { Reason::NotIsolated } else { Reason::Denied { policies } }
}

/// Whether the end is one of whom the peer tells, in a policy of `namespace`.
fn is_peer(cluster: &Cluster, peer: &Peer, namespace: &str, end: &End<'_>) -> bool {
    match peer {
        Peer::Pods { namespaces, pods } => end.pod.is_some_and(|pod| {
            let within = match namespaces {
                None => pod.key.namespace == namespace,
                Some(selector) => {
                    cluster.namespaces.get(&pod.key.namespace).is_some_and(|it| selector.selects(&it.labels))
                }
            };
            within && pods.selects(&pod.labels)
        }),
        Peer::Block { cidr, except } => {
            let holds = |net: &IpNetwork| net.contains(end.address);
            holds(cidr) && !except.iter().any(holds)
        }
    }
}

fn is_to_port(rule: &Rule, connection: &Connection<'_>) -> bool {
    let Some(ports) = &rule.ports else { return true };
    ports.iter().any(|(protocol, port)| {
        protocol.number() == connection.protocol
            && match port {
                Port::Any => true,
                Port::Range(first, last) => (*first..=*last).contains(&connection.port),
                Port::Named(name) => connection
                    .destination
                    .pod
                    .is_some_and(|pod| has_port(pod, name, *protocol, connection.port)),
            }
    })
}

fn has_port(pod: &Pod, name: &str, protocol: Protocol, port: u16) -> bool {
    pod.ports.iter().any(|it| it.name == name && it.protocol == protocol && it.port == port)
}

/// Whose each address is.
#[derive(Debug, Default)]
pub struct Addresses<'a> {
    ends: HashMap<IpAddr, End<'a>>,
}

impl<'a> Addresses<'a> {
    /// Those of the cluster's pods and nodes. A node's are its InternalIPs and the first address of each of its pod
    /// ranges, which it has towards its own pods.
    pub fn of(cluster: &'a Cluster) -> Addresses<'a> {
        let mut all = Addresses { ends: HashMap::with_capacity(cluster.pods.len() * 2) };
        for node in cluster.nodes.values() {
            let gateways = node.pod_cidrs.iter().filter_map(|net| net.iter().nth(1));
            for address in node.addresses.iter().copied().chain(gateways) {
                all.ends.insert(address, End { address, pod: None, node: Some(&node.name) });
            }
        }
        // Where two pods claim one address, which they do while it changes hands, the one that sorts last has it.
        for pod in cluster.pods.values().filter(|pod| !pod.host_network && !pod.finished) {
            for address in &pod.ips {
                let there = all.ends.get(address).and_then(|it| it.pod);
                if there.is_none_or(|other| other.key < pod.key) {
                    all.put(*address, pod);
                }
            }
        }
        all
    }

    /// Says whose an address is, whatever the API tells.
    pub fn put(&mut self, address: IpAddr, pod: &'a Pod) {
        self.ends.insert(address, End { address, pod: Some(pod), node: Some(&pod.node) });
    }

    /// The end with this address; one outside of the cluster has neither pod nor node.
    pub fn end(&self, address: IpAddr) -> End<'a> {
        self.ends.get(&address).copied().unwrap_or(End { address, pod: None, node: None })
    }
}
