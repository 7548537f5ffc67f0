//! A running lab as its supervisor holds it: every namespace by file descriptor, every pod with what the
//! CNI plugins answered and the two processes that run in it.
//!
//! Types only; `construct` makes them, `verify` and `trace` use them.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::SystemTime;

use ipnetwork::{IpNetwork, Ipv4Network};
use kernel::{Family, Netns};

use crate::kubectl::objects::CONTAINERS;
use crate::labels::Labels;
use crate::modes::{Selected, Told};
use crate::objects::Objects;
use crate::probe::Sidecar;
use crate::stack::Each;
use crate::topology::Ranges;

/// What a namespace stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// A router between the nodes and the world outside, with or without a switch.
    Fabric,
    /// A machine of the cluster.
    Node,
    /// A host outside the cluster.
    Outside,
    /// A pod.
    Pod,
}

impl Role {
    /// `fabric`, `node`, `outside` or `pod`.
    pub fn word(self) -> &'static str {
        match self {
            Role::Fabric => "fabric",
            Role::Node => "node",
            Role::Outside => "outside",
            Role::Pod => "pod",
        }
    }

    /// The role of that word.
    pub fn of_word(word: &str) -> Option<Role> {
        [Role::Fabric, Role::Node, Role::Outside, Role::Pod].into_iter().find(|role| role.word() == word)
    }
}

/// A network namespace with a name.
#[derive(Debug)]
pub struct Space {
    /// The name, as on the capsule's /run/netns.
    pub name: String,
    /// The namespace.
    pub netns: Netns,
    /// The UTS namespace that goes with it, where there is one.
    pub uts: Option<File>,
    /// What it stands for.
    pub role: Role,
}

/// A node.
#[derive(Debug)]
pub struct Node {
    /// Its namespace.
    pub space: Space,
    /// Its rack, an index into [`Cluster::racks`]; 0 where there is one rack only.
    pub rack: usize,
    /// Its addresses on its rack's link, one for each IP version of the lab.
    pub address: Each<IpAddr>,
    /// The prefixes that its pods get addresses from.
    pub pod_cidr: Each<IpNetwork>,
}

impl Node {
    /// Its IPv4 address and PodCIDR, where the lab has IPv4.
    pub fn v4(&self) -> Option<(Ipv4Addr, Ipv4Network)> {
        self.address.iter().zip(self.pod_cidr.iter()).find_map(|both| match both {
            (IpAddr::V4(address), IpNetwork::V4(pods)) => Some((address, pods)),
            _ => None,
        })
    }
}

/// The two processes of a pod, which share its network namespace.
#[derive(Debug)]
pub struct Containers {
    /// Process id of the HTTP server, as the supervisor sees it.
    pub kubia_pid: i32,
    /// Process id of the prober.
    pub sidecar_pid: i32,
    /// The prober.
    pub sidecar: Mutex<Sidecar>,
    /// What the server logged: one line per request.
    pub kubia_log: PathBuf,
}

/// A pod.
#[derive(Debug)]
pub struct Pod {
    /// Its namespace; the name is the pod's.
    pub space: Space,
    /// Index of its node in [`Cluster::nodes`].
    pub node: usize,
    /// The container id that the plugins were given.
    pub container_id: String,
    /// The interface that the plugins made.
    pub ifname: String,
    /// The addresses of the CNI result.
    pub addresses: Vec<IpAddr>,
    /// The CNI result as the last plugin printed it.
    pub result: serde_json::Value,
    /// Its processes.
    pub containers: Containers,
    /// What Kubernetes would know of it besides.
    pub meta: PodMeta,
}

/// What a pod was asked for as, and by whom.
#[derive(Debug, Clone)]
pub struct PodMeta {
    /// Its labels.
    pub labels: Labels,
    /// The controller that it belongs to.
    pub owner: Option<String>,
    /// The image that was named; every pod runs kubia.
    pub image: String,
    /// The port that was declared.
    pub port: Option<u16>,
    /// The names of its containers: the app's, the sidecar's.
    pub containers: [String; 2],
    /// When it was made.
    pub created: SystemTime,
}

impl Default for PodMeta {
    /// A pod of the topology: `app=kubia`.
    fn default() -> Self {
        Self {
            labels: [("app".to_owned(), "kubia".to_owned())].into(),
            owner: None,
            image: "kubia".to_owned(),
            port: Some(crate::kubia::PORT),
            containers: CONTAINERS.map(str::to_owned),
            created: SystemTime::now(),
        }
    }
}

/// A host outside.
#[derive(Debug)]
pub struct Outside {
    /// Its namespace.
    pub space: Space,
    /// The fabric's link to it.
    pub wan: String,
    /// Its addresses.
    pub address: Each<IpAddr>,
    /// Its processes: the same two as a pod's.
    pub containers: Containers,
}

/// A lab.
#[derive(Debug)]
pub struct Cluster {
    /// The lab's name.
    pub name: String,
    /// How packets get from node to node.
    pub mode: Selected,
    /// The addresses of pods and services.
    pub ranges: Ranges,
    /// The router to the world outside; where there is one rack only, also the switch between the nodes.
    pub fabric: Space,
    /// The racks, each a switch and a router; empty where there is one only.
    pub racks: Vec<Space>,
    /// The hosts outside, one at least; the first one is meant where one has to do.
    pub outside: Vec<Outside>,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The pods: those of the topology by node and number, then those made since, in their order.
    pub pods: Vec<Pod>,
    /// What was asked for since: controllers, services.
    pub objects: Objects,
}

impl Cluster {
    /// Every namespace: fabric, outside, racks, nodes, pods.
    pub fn spaces(&self) -> impl Iterator<Item = &Space> {
        [&self.fabric]
            .into_iter()
            .chain(self.outside.iter().map(|host| &host.space))
            .chain(&self.racks)
            .chain(self.nodes.iter().map(|node| &node.space))
            .chain(self.pods.iter().map(|pod| &pod.space))
    }

    /// The namespace of that name.
    pub fn space(&self, name: &str) -> Option<&Space> {
        self.spaces().find(|space| space.name == name)
    }

    /// The node of that name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.space.name == name)
    }

    /// The host outside of that name.
    pub fn host(&self, name: &str) -> Option<&Outside> {
        self.outside.iter().find(|host| host.space.name == name)
    }

    /// The host outside with that address.
    pub fn host_at(&self, address: IpAddr) -> Option<&Outside> {
        self.outside.iter().find(|host| host.address.has(&address))
    }

    /// The names of the nodes, for people: `node1 to node3`, `alpha, beta`.
    pub fn node_names(&self) -> String {
        let names: Vec<&str> = self.nodes.iter().map(|node| node.space.name.as_str()).collect();
        let is_counted = names.iter().enumerate().all(|(n, name)| *name == format!("node{}", n + 1));
        match names.as_slice() {
            [first, .., last] if is_counted => format!("{first} to {last}"),
            all => all.join(", "),
        }
    }

    /// The IP versions of the lab, the one that counts where one has to do first.
    pub fn families(&self) -> impl Iterator<Item = Family> + use<> {
        self.ranges.pods.families()
    }

    /// What is told of every pod.
    pub fn told(&self) -> impl Iterator<Item = Told> {
        self.pods.iter().map(|pod| Told::of(&self.nodes[pod.node], pod))
    }

    /// The pod of that name.
    pub fn pod(&self, name: &str) -> Option<&Pod> {
        self.pods.iter().find(|pod| pod.space.name == name)
    }
}
