//! From services to rules: what the table `podlab` of one node is to hold. A pure function, and its result as text in
//! nftables' own syntax.
//!
//! The layout is that of kube-proxy's nftables mode, smaller: maps from address, protocol and port to a chain for each
//! service, in it a turn for each endpoint, and a chain for each endpoint that rewrites the destination. Turns are taken
//! in order where kube-proxy throws dice, so that a lab does the same every time.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

use ipnetwork::Ipv4Network;
use kernel::nft::{ChainKind, Hook, Point, priority};

use super::dns;
use super::model::{BALANCERS, Backed, Endpoint, ServicePort, TrafficPolicy, Transport};
use crate::topology::Ranges;

/// The mark of packets whose source becomes a node's address: kube-proxy's own bit.
pub const MASQUERADE_MARK: u32 = 0x4000;
/// How long a client stays with a pod, in seconds: Kubernetes' default.
pub const AFFINITY_SECONDS: u64 = 10_800;

/// What a node's rules depend on besides the services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeView {
    /// Its index.
    pub index: usize,
    /// Its address.
    pub address: Ipv4Addr,
    /// The addresses of its own pods.
    pub pods: Ipv4Network,
    /// All PodCIDRs.
    pub all: Ipv4Network,
    /// The addresses of all pods and services.
    pub ranges: Ranges,
    /// Frames between ports of a bridge pass these rules (net/bridge/bridge-nf-call-iptables). Without that an answer
    /// from a pod to another one on the same bridge would not be translated back.
    pub sees_bridged: bool,
}

/// What a map's keys are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// Address, protocol and port.
    Service(Ipv4Addr, Transport, u16),
    /// Protocol and port.
    NodePort(Transport, u16),
    /// A turn.
    Turn(u32),
}

/// A map to chains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Map {
    /// Its name.
    pub name: String,
    /// Its elements; all keys are of one kind.
    pub elements: Vec<(Key, String)>,
}

/// What a rule does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// On in another chain, and back.
    Jump(&'static str),
    /// To the chain for address, protocol and port.
    ServiceMap,
    /// To the chain for protocol and port, of packets to this address.
    NodePortMap(Ipv4Addr),
    /// Marks all for masquerading.
    Mark,
    /// Marks what comes from here.
    MarkFrom(Ipv4Network),
    /// What comes from here goes on in another chain.
    GotoFrom(Ipv4Network, String),
    /// All goes on in another chain.
    Goto(String),
    /// A client that is in this set goes on in another chain.
    Sticky(String, String),
    /// Takes turns among so many, by this map.
    Turns(usize, String),
    /// Remembers the client in this set.
    Remember(String),
    /// Rewrites the destination.
    Dnat(Transport, SocketAddrV4),
    /// Rewrites the source of what is marked.
    Masquerade,
    /// Refuses what goes here.
    Reject(Ipv4Network),
    /// Drops.
    Drop,
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// Where packets come to it, unless from other chains.
    pub hook: Option<(ChainKind, Point, i32)>,
    /// Its rules.
    pub steps: Vec<Step>,
}

/// A node's rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Sets of clients, one for each endpoint of a service with affinity.
    pub affinities: Vec<String>,
    /// The maps.
    pub maps: Vec<Map>,
    /// The chains.
    pub chains: Vec<Chain>,
}

/// The map of services' addresses.
pub const SERVICE_MAP: &str = "service-addresses";
/// The map of nodes' ports.
pub const NODE_PORT_MAP: &str = "node-ports";
/// The chain that finds a service.
const SERVICES_CHAIN: &str = "services";
/// The chain that refuses what found none.
const REFUSALS: &str = "refusals";

/// The chain for the cluster's DNS.
const DNS_CHAIN: &str = "dns";

/// The rules of a node. Without services there are none.
pub fn ruleset(node: &NodeView, services: &[Backed]) -> Ruleset {
    let mut rules = Ruleset::default();
    let fronts = services.iter().filter_map(|backed| Some((backed, backed.service.port?)));
    let fronts: Vec<_> = fronts.filter(|(backed, _)| backed.service.cluster_ip.is_some()).collect();
    if services.is_empty() {
        return rules;
    }
    let nat = |point, priority| Some((ChainKind::Nat, point, priority));
    let filter = |point| Some((ChainKind::Filter, point, priority::FILTER));
    rules.chain("prerouting", nat(Point::Prerouting, priority::DSTNAT), vec![Step::Jump(SERVICES_CHAIN)]);
    rules.chain("output", nat(Point::Output, priority::DSTNAT), vec![Step::Jump(SERVICES_CHAIN)]);
    rules.chain("postrouting", nat(Point::Postrouting, priority::SRCNAT), vec![Step::Masquerade]);
    rules.chain("forward-refused", filter(Point::Forward), vec![Step::Jump(REFUSALS)]);
    rules.chain("output-refused", filter(Point::Output), vec![Step::Jump(REFUSALS)]);
    // What is for a service has another destination by now, if the service has an endpoint.
    rules.chain(REFUSALS, None, vec![Step::Reject(node.ranges.services), Step::Reject(BALANCERS)]);
    rules.chain(SERVICES_CHAIN, None, vec![Step::ServiceMap, Step::NodePortMap(node.address)]);

    // The cluster's DNS is on every node.
    let dns = Key::Service(node.ranges.dns(), Transport::Udp, dns::PORT);
    rules.chain(
        DNS_CHAIN,
        None,
        vec![Step::Dnat(Transport::Udp, SocketAddrV4::new(node.address, dns::PORT))],
    );
    let (mut addresses, mut ports) = (vec![(dns, DNS_CHAIN.to_owned())], Vec::new());
    for (backed, port) in fronts {
        // A service without endpoints is in no map: its packets keep their destination and are refused.
        if !backed.endpoints.is_empty() {
            let (inside, outside) = one_service(&mut rules, node, backed, port);
            let service = &backed.service;
            let key = |address| Key::Service(address, port.protocol, port.port);
            addresses.extend(service.cluster_ip.map(|address| (key(address), inside)));
            addresses.extend(service.balancer.map(|address| (key(address), outside.clone())));
            ports.extend(port.node_port.map(|number| (Key::NodePort(port.protocol, number), outside)));
        }
    }
    rules.maps.insert(0, Map { name: SERVICE_MAP.into(), elements: addresses });
    rules.maps.insert(1, Map { name: NODE_PORT_MAP.into(), elements: ports });
    rules
}

/// The chains of one service; the names of those for clients inside and outside the cluster.
fn one_service(rules: &mut Ruleset, node: &NodeView, backed: &Backed, port: ServicePort) -> (String, String) {
    let service = &backed.service;
    let id = format!("{}/{}/{}", service.name, port.protocol.as_str(), port.port);
    let (inside, outside) = (format!("service/{id}"), format!("external/{id}"));
    let endpoint_chain = |endpoint: &Endpoint| format!("endpoint/{id}/{}", endpoint.address);
    let affinity = |endpoint: &Endpoint| format!("affinity/{id}/{}", endpoint.address);
    let turns = |endpoints: &[&Endpoint]| {
        let element =
            |(turn, endpoint): (usize, &&Endpoint)| (Key::Turn(turn as u32), endpoint_chain(endpoint));
        endpoints.iter().enumerate().map(element).collect::<Vec<_>>()
    };
    // A client that is remembered stays where it is; all others take turns.
    let balance = |rules: &mut Ruleset, chain: &str, mut steps: Vec<Step>, endpoints: &[&Endpoint]| {
        if service.has_affinity {
            steps.extend(endpoints.iter().map(|it| Step::Sticky(affinity(it), endpoint_chain(it))));
        }
        let map = format!("turns/{chain}");
        steps.push(match endpoints {
            [] => Step::Drop,
            some => Step::Turns(some.len(), map.clone()),
        });
        if !endpoints.is_empty() {
            rules.maps.push(Map { name: map, elements: turns(endpoints) });
        }
        rules.chain(chain, None, steps);
    };
    balance(rules, &inside, Vec::new(), &backed.endpoints.iter().collect::<Vec<_>>());
    if port.node_port.is_some() || service.balancer.is_some() {
        match service.policy {
            TrafficPolicy::Cluster => {
                rules.chain(&outside, None, vec![Step::Mark, Step::Goto(inside.clone())]);
            }
            TrafficPolicy::Local => {
                let own = Ipv4Network::from(node.address);
                let near =
                    vec![Step::GotoFrom(node.all, inside.clone()), Step::GotoFrom(own, inside.clone())];
                let local: Vec<&Endpoint> = backed.from_outside(node.index).collect();
                balance(rules, &outside, near, &local);
            }
        }
    }
    for endpoint in &backed.endpoints {
        let mut steps = Vec::new();
        if endpoint.node == node.index {
            // A pod takes no packet from its own address, so one that reaches itself does so in its node's name.
            let own = if node.sees_bridged { Ipv4Network::from(endpoint.address) } else { node.pods };
            steps.push(Step::MarkFrom(own));
        }
        if service.has_affinity {
            rules.affinities.push(affinity(endpoint));
            steps.push(Step::Remember(affinity(endpoint)));
        }
        steps.push(Step::Dnat(port.protocol, SocketAddrV4::new(endpoint.address, port.target_port)));
        rules.chain(&endpoint_chain(endpoint), None, steps);
    }
    (inside, outside)
}

impl Ruleset {
    fn chain(&mut self, name: &str, hook: Option<(ChainKind, Point, i32)>, steps: Vec<Step>) {
        self.chains.push(Chain { name: name.into(), hook, steps });
    }
}

/// The hook as the kernel crate has it.
pub(super) fn hook_of((kind, point, priority): (ChainKind, Point, i32)) -> Hook<'static> {
    Hook::new(kind, point, priority)
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Service(address, protocol, port) => write!(f, "{address} . {} . {port}", protocol.as_str()),
            Key::NodePort(protocol, port) => write!(f, "{} . {port}", protocol.as_str()),
            Key::Turn(turn) => write!(f, "{turn:#010x}"),
        }
    }
}

/// A network, or an address where it is only one.
fn net(network: &Ipv4Network) -> String {
    if network.prefix() == 32 { network.ip().to_string() } else { network.to_string() }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Jump(chain) => write!(f, "jump {chain}"),
            Step::ServiceMap => write!(f, "ip daddr . meta l4proto . th dport vmap @{SERVICE_MAP}"),
            Step::NodePortMap(address) => {
                write!(f, "ip daddr {address} meta l4proto . th dport vmap @{NODE_PORT_MAP}")
            }
            Step::Mark => write!(f, "meta mark set meta mark | {MASQUERADE_MARK:#010x}"),
            Step::MarkFrom(from) => write!(f, "ip saddr {} {}", net(from), Step::Mark),
            Step::GotoFrom(from, chain) => write!(f, "ip saddr {} goto {chain}", net(from)),
            Step::Goto(chain) => write!(f, "goto {chain}"),
            Step::Sticky(set, chain) => write!(f, "ip saddr @{set} goto {chain}"),
            Step::Turns(among, map) => write!(f, "numgen inc mod {among} vmap @{map}"),
            Step::Remember(set) => write!(f, "update @{set} {{ ip saddr }}"),
            Step::Dnat(protocol, to) => write!(f, "meta l4proto {} dnat to {to}", protocol.as_str()),
            Step::Masquerade => {
                write!(f, "meta mark & {MASQUERADE_MARK:#010x} == {MASQUERADE_MARK:#010x} masquerade")
            }
            Step::Reject(to) => write!(f, "ip daddr {} reject", net(to)),
            Step::Drop => f.write_str("drop"),
        }
    }
}

impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for set in &self.affinities {
            writeln!(
                f,
                "set {set} {{ type ipv4_addr; flags dynamic,timeout; timeout {AFFINITY_SECONDS}s }}"
            )?;
        }
        for map in &self.maps {
            writeln!(f, "map {} {{", map.name)?;
            for (key, chain) in &map.elements {
                writeln!(f, "\t{key} : goto {chain}")?;
            }
            f.write_str("}\n")?;
        }
        for chain in &self.chains {
            writeln!(f, "chain {} {{", chain.name)?;
            if let Some((kind, point, priority)) = chain.hook {
                writeln!(f, "\t{kind:?} {point:?} {priority}")?;
            }
            for step in &chain.steps {
                writeln!(f, "\t{step}")?;
            }
            f.write_str("}\n")?;
        }
        Ok(())
    }
}
