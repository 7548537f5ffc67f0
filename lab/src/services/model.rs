//! Services: what a person asks for, the addresses they get, and the pods behind them. Pure.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::SystemTime;

use ipnetwork::Ipv4Network;
use serde::{Deserialize, Serialize};

use crate::cluster::Pod;
use crate::labels::{Labels, chooses};
use crate::topology::prefix;

/// Addresses of load balancers (RFC 5737, TEST-NET-2); the fabric routes them to a node.
pub const BALANCERS: Ipv4Network = prefix(Ipv4Addr::new(198, 51, 100, 0), 24);
/// The last two bytes of the first service's address: those before are the cluster's own by custom.
const FIRST_SERVICE: u32 = 11;
/// The first port of nodes that is given, and the range that may be asked for, as Kubernetes has it.
const FIRST_NODE_PORT: u16 = 30080;
/// The range of ports of nodes (kube-apiserver, `--service-node-port-range`).
pub const NODE_PORTS: std::ops::RangeInclusive<u16> = 30000..=32767;

/// How a service is reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum ServiceType {
    /// From nodes and pods, at an address of its own.
    #[default]
    #[serde(rename = "ClusterIP")]
    #[value(name = "ClusterIP")]
    ClusterIp,
    /// From outside too, at a port of every node.
    NodePort,
    /// From outside too, at an address that is routed to the cluster.
    LoadBalancer,
    /// A name for another name; no packet is touched.
    ExternalName,
}

impl ServiceType {
    /// Kubernetes' word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClusterIp => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
            Self::ExternalName => "ExternalName",
        }
    }

    /// It has a port on every node.
    pub fn has_node_port(self) -> bool {
        matches!(self, Self::NodePort | Self::LoadBalancer)
    }
}

/// Which endpoints serve what comes from outside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TrafficPolicy {
    /// All; the source becomes a node's address, so that answers come back by that node.
    #[default]
    Cluster,
    /// Those of the node that it came to; the source stays.
    Local,
}

/// A transport protocol that services have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "UPPERCASE")]
#[value(rename_all = "UPPER")]
pub enum Transport {
    /// TCP
    #[default]
    Tcp,
    /// UDP
    Udp,
}

impl Transport {
    /// The protocol's number (RFC 9293, RFC 768).
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// `tcp`
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A port of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServicePort {
    /// Its protocol.
    pub protocol: Transport,
    /// The port that clients ask for.
    pub port: u16,
    /// The port of the pods.
    pub target_port: u16,
    /// The port of every node.
    pub node_port: Option<u16>,
}

/// A service. It has one port, or none when it is a name only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its own labels.
    pub labels: Labels,
    /// Which pods are behind it.
    pub selector: Labels,
    /// How it is reached.
    pub kind: ServiceType,
    /// Its address inside the cluster.
    pub cluster_ip: Option<Ipv4Addr>,
    /// Its address outside.
    pub balancer: Option<Ipv4Addr>,
    /// What it is a name for.
    pub external_name: Option<String>,
    /// Its port.
    pub port: Option<ServicePort>,
    /// One client stays with one pod.
    pub has_affinity: bool,
    /// Who serves what comes from outside.
    pub policy: TrafficPolicy,
    /// When it was made.
    pub created: SystemTime,
}

/// A pod behind a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The pod.
    pub pod: String,
    /// Index of its node.
    pub node: usize,
    /// Its address.
    pub address: Ipv4Addr,
}

/// A service with the pods behind it at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backed {
    /// The service.
    pub service: Service,
    /// The pods, in the order of the cluster.
    pub endpoints: Vec<Endpoint>,
}

impl Service {
    /// The pods that its selector chooses and that have an IPv4 address.
    pub fn endpoints(&self, pods: &[Pod]) -> Vec<Endpoint> {
        let fitting = pods.iter().filter(|pod| chooses(&self.selector, &pod.meta.labels));
        let endpoint = |pod: &Pod| {
            let address = pod.addresses.iter().find_map(|address| match address {
                IpAddr::V4(v4) => Some(*v4),
                IpAddr::V6(_) => None,
            })?;
            Some(Endpoint { pod: pod.space.name.clone(), node: pod.node, address })
        };
        fitting.filter_map(endpoint).collect()
    }

    /// Address and port inside the cluster.
    pub fn front(&self) -> Option<SocketAddr> {
        Some(SocketAddrV4::new(self.cluster_ip?, self.port?.port).into())
    }

    /// Address and port of the load balancer.
    pub fn balancer_front(&self) -> Option<SocketAddr> {
        Some(SocketAddrV4::new(self.balancer?, self.port?.port).into())
    }
}

impl Backed {
    /// The endpoints that serve what comes to node `index` from outside.
    pub fn from_outside(&self, index: usize) -> impl Iterator<Item = &Endpoint> {
        let local = self.service.policy == TrafficPolicy::Local;
        self.endpoints.iter().filter(move |endpoint| !local || endpoint.node == index)
    }

    /// The node to which the load balancer's address is routed: the first, and with the local policy the first that
    /// has a pod of the service.
    pub fn entry(&self) -> usize {
        match self.service.policy {
            TrafficPolicy::Cluster => 0,
            TrafficPolicy::Local => self.endpoints.iter().map(|endpoint| endpoint.node).min().unwrap_or(0),
        }
    }
}

/// The first address of a range that no service has.
fn free(range: Ipv4Network, first: u32, taken: impl Fn(Ipv4Addr) -> bool) -> Option<Ipv4Addr> {
    (first..range.size() - 1)
        .map(|number| Ipv4Addr::from(u32::from(range.ip()) + number))
        .find(|&it| !taken(it))
}

/// An address of `range` for a new service.
pub fn free_service_address(range: Ipv4Network, services: &[Service]) -> Option<Ipv4Addr> {
    free(range, FIRST_SERVICE, |it| services.iter().any(|service| service.cluster_ip == Some(it)))
}

/// An address for a new load balancer.
pub fn free_balancer(services: &[Service]) -> Option<Ipv4Addr> {
    free(BALANCERS, 1, |it| services.iter().any(|service| service.balancer == Some(it)))
}

/// A port of the nodes for a new service.
pub fn free_node_port(services: &[Service]) -> Option<u16> {
    let taken =
        |port| services.iter().filter_map(|service| service.port).any(|it| it.node_port == Some(port));
    (FIRST_NODE_PORT..=*NODE_PORTS.end()).find(|&port| !taken(port))
}
