//! Services: that they have endpoints and addresses that are nowhere, that each is reached from pods, nodes and outside
//! as its type says and from nowhere else, and that connections are shared out.
//!
//! ```text
//!  pod ─ node (DNAT here) ─ … ─ node ─ pod         ClusterIP; an answer is put back at the same node
//!  node (DNAT before the wire) ─ … ─ pod           ClusterIP, from a node itself
//!  outside ─ fabric ─ node (DNAT, SNAT) ─ … ─ pod  NodePort, LoadBalancer; no SNAT with the local policy
//! ```

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use kernel::{Rtnl, addr};

use super::plan::{Aim, Claim};
use super::scene::{PodFacts, Scene};
use super::{Check, End, Group, How, Task, paths};
use crate::capture;
use crate::cluster::Outside;
use crate::labels;
use crate::services::model::{Backed, Endpoint, ServiceType, TrafficPolicy, Transport};
use crate::services::{self, ruleset::NodeView};
use crate::verdict::{Backend, Finding, Judgement, Promise, Serving, Sharing};

/// Connections for each endpoint, and the most of one client.
const CONNECTIONS: (usize, usize) = (100, 300);

pub(super) const STATE: Check = Check {
    name: "service-state",
    title: "services have endpoints, addresses are nowhere",
    plan: How::State(claims),
};

pub(super) const REACH: Check =
    Check { name: "service-reach", title: "services from pods, nodes and outside", plan: How::Probes(reach) };

pub(super) const SHARE: Check =
    Check { name: "service-share", title: "connections are shared out", plan: How::Groups(share) };

/// What is read of the nodes before services are probed.
#[derive(Default)]
pub(super) struct Services {
    backed: Vec<Backed>,
    views: Vec<NodeView>,
    /// The addresses of each node's interfaces.
    addresses: Vec<Vec<IpAddr>>,
}

impl Services {
    pub(super) fn read(cluster: &crate::cluster::Cluster) -> Result<Services> {
        let nodes = || cluster.nodes.iter();
        let views = (0..cluster.nodes.len()).map(|index| services::view(cluster, index));
        let own = |node: &crate::cluster::Node| -> Result<Vec<IpAddr>> {
            let mut rtnl = Rtnl::open_in(&node.space.netns)?;
            Ok(addr::list(&mut rtnl, None)?.iter().map(|address| address.net.ip()).collect())
        };
        Ok(Services {
            backed: services::backed(cluster),
            views: views.collect::<Result<_>>()?,
            addresses: nodes().map(own).collect::<Result<_>>()?,
        })
    }
}

/// Those that a packet can be sent to. Probes are HTTP, so UDP services are left to people.
fn probed<'s>(scene: &'s Scene<'_>) -> impl Iterator<Item = (&'s Backed, SocketAddr)> {
    let all = scene.services.backed.iter();
    all.filter_map(|backed| {
        let is_tcp = backed.service.port.is_some_and(|port| port.protocol == Transport::Tcp);
        Some((backed, backed.service.front().filter(|_| is_tcp)?))
    })
}

fn claims(scene: &Scene<'_>) -> Vec<Claim> {
    let real = scene.services.backed.iter().filter(|backed| backed.service.cluster_ip.is_some());
    real.map(|backed| {
        let service = &backed.service;
        Claim::Service {
            name: service.name.clone(),
            selector: labels::joined(&service.selector),
            endpoints: backed.endpoints.len(),
            addresses: [service.cluster_ip, service.balancer].into_iter().flatten().map(IpAddr::V4).collect(),
        }
    })
    .collect()
}

/// Judges a service, by selector, endpoints and addresses, from the addresses of all interfaces.
pub(super) fn judge_state(
    (selector, endpoints, addresses): (&str, usize, &[IpAddr]),
    owners: &[(String, IpAddr)],
) -> Judgement {
    let mut findings = Vec::new();
    if endpoints == 0 {
        findings.push(Finding::NoEndpoints { selector: selector.to_owned() });
    }
    for &address in addresses {
        let owned = owners.iter().filter(|(_, owned)| *owned == address);
        findings.extend(owned.map(|(by, _)| Finding::AddressOwned { address, by: by.clone() }));
    }
    let evidence = match findings.as_slice() {
        [] => format!("{endpoints} endpoints, its address on none of {} interfaces", owners.len()),
        some => some.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
    };
    Judgement { findings, evidence }
}

/// Every address of every interface of the lab: `node1/eth0` and 192.0.2.11. A namespace that cannot be read has none.
pub(super) fn addresses(scene: &Scene<'_>) -> Vec<(String, IpAddr)> {
    let all = scene.cluster.spaces().filter_map(|space| capture::facts(space).ok()).flatten();
    all.flat_map(|facts| {
        let place = facts.spot.to_string();
        facts.addresses.into_iter().map(move |net| (place.clone(), net.ip())).collect::<Vec<_>>()
    })
    .collect()
}

/// The pods behind a service as a client on node `near` sees them, when all endpoints serve it.
fn from_inside(
    scene: &Scene<'_>,
    backed: &Backed,
    near: usize,
    client: Option<&PodFacts<'_>>,
) -> Vec<Backend> {
    let view = &scene.services.views[near];
    let stands_in = |endpoint: &Endpoint| {
        let name = client.map(|pod| pod.name())?;
        let itself = endpoint.pod == name;
        let bridged = endpoint.node == near && !view.sees_bridged;
        (itself || bridged).then(|| scene.services.addresses[near].clone())
    };
    backends(backed, backed.endpoints.iter(), stands_in)
}

fn backends<'e>(
    backed: &Backed,
    endpoints: impl Iterator<Item = &'e Endpoint>,
    stands_in: impl Fn(&Endpoint) -> Option<Vec<IpAddr>>,
) -> Vec<Backend> {
    let port = backed.service.port.map_or(0, |port| port.target_port);
    endpoints
        .map(|endpoint| Backend {
            pod: endpoint.pod.clone(),
            address: SocketAddr::new(endpoint.address.into(), port),
            stands_in: stands_in(endpoint),
        })
        .collect()
}

fn served(backends: Vec<Backend>) -> Promise {
    if backends.is_empty() { Promise::Refused } else { Promise::Served(backends) }
}

fn task<'c>(scene: &Scene<'c>, client: End<'c>, to: &str, serving: Serving) -> Task<'c> {
    let pods: &[Backend] = match &serving.promise {
        Promise::Served(backends) => backends,
        Promise::Refused | Promise::Hidden => &[],
    };
    let ends = pods.iter().filter_map(|backend| scene.pods.iter().find(|pod| pod.name() == backend.pod));
    let servers = ends.map(PodFacts::end).collect();
    Task { subject: paths::subject(client.name, to), client, servers, aim: Aim::Service(Box::new(serving)) }
}

fn from_pod<'c>(scene: &Scene<'c>, pod: &PodFacts<'c>, backed: &Backed, front: SocketAddr) -> Task<'c> {
    let promise = served(from_inside(scene, backed, pod.pod.node, Some(pod)));
    let translator = pod.node.space.name.clone();
    let serving = Serving { client: pod.name().into(), front, promise, translator };
    task(scene, pod.end(), &subject(backed), serving)
}

fn subject(backed: &Backed) -> String {
    format!("svc/{}", backed.service.name)
}

/// Each service from every pod, from every node, and from outside by each way in.
fn reach<'c>(scene: &Scene<'c>) -> Vec<Task<'c>> {
    let mut tasks = Vec::new();
    for (backed, front) in probed(scene) {
        tasks.extend(scene.sampled().map(|pod| from_pod(scene, pod, backed, front)));
        // A refusal on a node itself is on no wire, so there would be nothing to judge.
        for index in scene.chosen_nodes().filter(|_| !backed.endpoints.is_empty()) {
            let name = &scene.cluster.nodes[index].space.name;
            let promise = served(from_inside(scene, backed, index, None));
            let serving = Serving { client: name.clone(), front, promise, translator: name.clone() };
            tasks.extend(scene.node(index).map(|end| task(scene, end, &subject(backed), serving)));
        }
        tasks.extend(scene.outside().flat_map(|host| from_outside(scene, host, backed, front)));
    }
    tasks
}

fn from_outside<'c>(
    scene: &Scene<'c>,
    host: &'c Outside,
    backed: &Backed,
    front: SocketAddr,
) -> Vec<Task<'c>> {
    let (outside, service) = (End::of(&host.space.name, &host.containers), &backed.service);
    let way_in = |index: usize, front: SocketAddr, how: &str| {
        let policy = service.policy;
        let stands_in = |_: &Endpoint| {
            (policy == TrafficPolicy::Cluster).then(|| scene.services.addresses[index].clone())
        };
        let promise = match backends(backed, backed.from_outside(index), stands_in) {
            // With the local policy a node without a pod of the service keeps silent.
            none if none.is_empty() && !backed.endpoints.is_empty() => Promise::Hidden,
            some => served(some),
        };
        let translator = scene.cluster.nodes[index].space.name.clone();
        let serving = Serving { client: outside.name.into(), front, promise, translator };
        task(scene, outside, &format!("{} {how}", subject(backed)), serving)
    };
    // By its address inside the cluster it is not reached from outside.
    let translator = String::new();
    let hidden = Serving { client: outside.name.into(), front, promise: Promise::Hidden, translator };
    let mut tasks = vec![task(scene, outside, &format!("{} by its ClusterIP", subject(backed)), hidden)];
    if let Some(port) = service.port.and_then(|port| port.node_port) {
        tasks.extend(scene.chosen_nodes().filter_map(|index| {
            let node = &scene.cluster.nodes[index];
            let front = SocketAddr::new(node.v4()?.0.into(), port);
            Some(way_in(index, front, &format!("by {}:{port}", node.space.name)))
        }));
    }
    if let Some(balancer) = service.balancer_front().filter(|_| service.kind == ServiceType::LoadBalancer) {
        tasks.push(way_in(backed.entry(), balancer, "by its load balancer"));
    }
    tasks
}

/// Many connections of one client on each node: a pod behind the service where there is one, so that it reaches itself
/// too, else any pod.
fn share<'c>(scene: &Scene<'c>) -> Vec<Group<'c>> {
    let mut groups = Vec::new();
    for (backed, front) in probed(scene).filter(|(backed, _)| !backed.endpoints.is_empty()) {
        let is_behind = |pod: &&PodFacts<'_>| backed.endpoints.iter().any(|it| it.pod == pod.name());
        for index in scene.chosen_nodes() {
            let here = || scene.sampled().filter(|pod| pod.pod.node == index);
            let Some(pod) = here().find(is_behind).or_else(|| here().next()) else { continue };
            let connections = (CONNECTIONS.0 * backed.endpoints.len()).min(CONNECTIONS.1);
            let tasks = (0..connections).map(|_| from_pod(scene, pod, backed, front)).collect();
            let pods = backed.endpoints.iter().map(|endpoint| endpoint.pod.clone()).collect();
            let sharing = Sharing { pods, has_affinity: backed.service.has_affinity };
            groups.push(Group { subject: paths::subject(pod.name(), &subject(backed)), tasks, sharing });
        }
    }
    groups
}
