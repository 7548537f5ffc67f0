//! What the agent keeps of the cluster: of each object only what the network needs, in types in which nothing is
//! half-said. The API's own types are turned into these in [`crate::wire`] and not kept.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

/// Namespace and name of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its namespace.
    pub namespace: String,
    /// Its name within that.
    pub name: String,
}

impl Key {
    /// A key from its two parts.
    pub fn new(namespace: &str, name: &str) -> Key {
        Key { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// A Node: where it is reached and which addresses its pods have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// `metadata.name`.
    pub name: String,
    /// `spec.podCIDRs`, at most one of each family; `spec.podCIDR` where that is all there is.
    pub pod_cidrs: Vec<IpNetwork>,
    /// `status.addresses` of type InternalIP, in the order given.
    pub addresses: Vec<IpAddr>,
    /// Its condition Ready is True.
    pub ready: bool,
}

impl Node {
    /// Its address of the family of `like`: the first InternalIP of that family.
    pub fn address(&self, ipv6: bool) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|it| it.is_ipv6() == ipv6)
    }
}

/// A protocol that a NetworkPolicy can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP, protocol number 6.
    Tcp,
    /// UDP, 17.
    Udp,
    /// SCTP, 132.
    Sctp,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

    /// Its number in the IP header.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }

    /// Its name as Kubernetes writes it.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        }
    }

    /// The protocol of that name.
    pub fn named(name: &str) -> Option<Protocol> {
        Protocol::ALL.into_iter().find(|it| it.name() == name)
    }
}

/// A port of a container that has a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedPort {
    /// The name.
    pub name: String,
    /// The protocol.
    pub protocol: Protocol,
    /// The number.
    pub port: u16,
}

/// A Pod: where it runs, what its addresses are and what selects it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Namespace and name.
    pub key: Key,
    /// `metadata.uid`: a pod of the same name made later has another.
    pub uid: String,
    /// `spec.nodeName`; empty until it is scheduled.
    pub node: String,
    /// `status.podIPs`; empty until the kubelet has told them.
    pub ips: Vec<IpAddr>,
    /// `spec.hostNetwork`: it has its node's addresses.
    pub host_network: bool,
    /// Phase Succeeded or Failed: its addresses are no longer its own.
    pub finished: bool,
    /// `metadata.labels`.
    pub labels: Labels,
    /// The named ports of its containers.
    pub ports: Vec<NamedPort>,
}

/// A Namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.labels`.
    pub labels: Labels,
}

/// What a requirement asks of the value of a label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    /// It is there and one of these.
    In(Vec<String>),
    /// It is absent or none of these.
    NotIn(Vec<String>),
    /// It is there.
    Exists,
    /// It is absent.
    DoesNotExist,
}

/// One requirement of a label selector.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// What is asked of it.
    pub operator: Operator,
}

/// A label selector: all requirements have to be met, so the empty one selects everything. `matchLabels` are
/// requirements `In` of one value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Selector(pub Vec<Requirement>);

impl Selector {
    /// Whether it selects an object with these labels.
    pub fn selects(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| {
            let value = labels.get(&requirement.key);
            match &requirement.operator {
                Operator::In(values) => value.is_some_and(|value| values.contains(value)),
                Operator::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
                Operator::Exists => value.is_some(),
                Operator::DoesNotExist => value.is_none(),
            }
        })
    }
}

/// Whom a rule of a policy lets through.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// Pods that a selector selects.
    Pods {
        /// In the namespaces that this selects; `None`: in the policy's own.
        namespaces: Option<Selector>,
        /// With these labels; absent selects all.
        pods: Selector,
    },
    /// Addresses: `ipBlock`.
    Block {
        /// In this range
        cidr: IpNetwork,
        /// and in none of these.
        except: Vec<IpNetwork>,
    },
}

/// Which ports a rule lets through.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Port {
    /// All of the protocol.
    Any,
    /// From the first to the last, both included: `port` and `endPort`.
    Range(u16, u16),
    /// What the destination pod's containers call so.
    Named(String),
}

/// One rule of a policy: any of the peers on any of the ports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Rule {
    /// The other side; `None`: everyone. (An empty list in the API means everyone, too.)
    pub peers: Option<Vec<Peer>>,
    /// Protocol and port at the destination; `None`: all of every protocol. (An empty list likewise.)
    pub ports: Option<Vec<(Protocol, Port)>>,
}

/// A NetworkPolicy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Namespace and name.
    pub key: Key,
    /// Which pods of its namespace it isolates.
    pub pods: Selector,
    /// What it lets in; `None`: it says nothing about ingress (`policyTypes`), empty: nothing.
    pub ingress: Option<Vec<Rule>>,
    /// What it lets out, likewise.
    pub egress: Option<Vec<Rule>>,
}

/// All that is known of the cluster.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    /// Nodes by name.
    pub nodes: BTreeMap<String, Node>,
    /// Pods that are not finished.
    pub pods: HashMap<Key, Pod>,
    /// Namespaces by name.
    pub namespaces: BTreeMap<String, Namespace>,
    /// Policies.
    pub policies: BTreeMap<Key, Policy>,
}

/// A change of the cluster that the API has told.
#[derive(Debug, Clone)]
pub enum Change {
    /// A node is there, or is other than it was.
    Node(Node),
    /// A node is gone.
    NodeGone(String),
    /// All nodes that there are.
    Nodes(Vec<Node>),
    /// A pod is there, or is other than it was.
    Pod(Pod),
    /// A pod is gone.
    PodGone(Key),
    /// All pods that there are.
    Pods(Vec<Pod>),
    /// A namespace is there, or is other than it was.
    Namespace(Namespace),
    /// A namespace is gone.
    NamespaceGone(String),
    /// All namespaces that there are.
    Namespaces(Vec<Namespace>),
    /// A policy is there, or is other than it was. The refused are told with the reason and isolate without letting
    /// anything through ([`crate::wire::policy`]).
    Policy(Policy),
    /// A policy is gone.
    PolicyGone(Key),
    /// All policies that there are.
    Policies(Vec<Policy>),
}

impl Change {
    /// Whether it tells all objects of a kind.
    pub fn is_all(&self) -> bool {
        matches!(self, Change::Nodes(_) | Change::Pods(_) | Change::Namespaces(_) | Change::Policies(_))
    }
}

/// What of the cluster a change has touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Nodes: routes, masquerade, probes, and what node addresses the policy lets through.
    Nodes,
    /// Pods, namespaces or policies.
    Policies,
}

impl Cluster {
    /// Takes over a change. `None`: nothing is other than before.
    pub fn take(&mut self, change: Change) -> Option<Part> {
        match change {
            Change::Node(node) => put(&mut self.nodes, node.name.clone(), node).then_some(Part::Nodes),
            Change::NodeGone(name) => self.nodes.remove(&name).map(|_| Part::Nodes),
            Change::Nodes(all) => {
                let all = all.into_iter().map(|it| (it.name.clone(), it)).collect();
                replace(&mut self.nodes, all).then_some(Part::Nodes)
            }
            Change::Pod(pod) if pod.finished => self.pods.remove(&pod.key).map(|_| Part::Policies),
            Change::Pod(pod) => {
                let before = self.pods.get(&pod.key);
                let other = before != Some(&pod);
                if other {
                    self.pods.insert(pod.key.clone(), pod);
                }
                other.then_some(Part::Policies)
            }
            Change::PodGone(key) => self.pods.remove(&key).map(|_| Part::Policies),
            Change::Pods(all) => {
                let all = all.into_iter().filter(|it| !it.finished).map(|it| (it.key.clone(), it)).collect();
                replace(&mut self.pods, all).then_some(Part::Policies)
            }
            Change::Namespace(it) => put(&mut self.namespaces, it.name.clone(), it).then_some(Part::Policies),
            Change::NamespaceGone(name) => self.namespaces.remove(&name).map(|_| Part::Policies),
            Change::Namespaces(all) => {
                let all = all.into_iter().map(|it| (it.name.clone(), it)).collect();
                replace(&mut self.namespaces, all).then_some(Part::Policies)
            }
            Change::Policy(policy) => {
                put(&mut self.policies, policy.key.clone(), policy).then_some(Part::Policies)
            }
            Change::PolicyGone(key) => self.policies.remove(&key).map(|_| Part::Policies),
            Change::Policies(all) => {
                let all = all.into_iter().map(|it| (it.key.clone(), it)).collect();
                replace(&mut self.policies, all).then_some(Part::Policies)
            }
        }
    }
}

fn put<K: Ord, V: PartialEq>(map: &mut BTreeMap<K, V>, key: K, value: V) -> bool {
    let other = map.get(&key) != Some(&value);
    if other {
        map.insert(key, value);
    }
    other
}

fn replace<M: PartialEq>(map: &mut M, all: M) -> bool {
    let other = *map != all;
    if other {
        *map = all;
    }
    other
}
