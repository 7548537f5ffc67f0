//! Services by nftables: a virtual address that no interface has, rewritten to a pod's on the node of the client.
//!
//! [`model`] is what is asked for, [`mod@ruleset`] turns it into rules (a pure function), [`apply`] hands them to the kernel
//! over netlink. [`Dataplane`] keeps every node's table, and the fabric's routes to load balancers, as they should be.

pub mod apply;
pub mod dns;
pub mod model;
pub mod ruleset;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::PoisonError;

use anyhow::{Context, Result, bail};
use ipnetwork::{IpNetwork, Ipv4Network};
use kernel::conntrack::{self, Filter};
use kernel::route::{self, Family, Route};
use kernel::{Nfnl, Rtnl, sysctl};

use crate::cluster::{Cluster, Node};
use crate::fabric::INGRESS_TABLE;
use crate::labels::Labels;
use crate::topology::Ranges;
use dns::SharedZone;
use model::{Backed, Endpoint, Service, ServicePort, ServiceType, TrafficPolicy, Transport};
use ruleset::{NodeView, Ruleset, ruleset};

/// Whether frames between the ports of a bridge pass netfilter.
const CALL_NETFILTER: &str = "net/bridge/bridge-nf-call-iptables";

/// What a node's rules depend on.
///
/// # Errors
/// Its namespace cannot be entered.
///
/// # Panics
/// There is no such node.
pub fn view(cluster: &Cluster, index: usize) -> Result<NodeView> {
    let node = &cluster.nodes[index];
    let sees_bridged = node.space.netns.run(calls_netfilter)?.is_ok();
    let (address, pods) = node.v4().context("services are IPv4's, which the lab does not have")?;
    let all = match cluster.ranges.pods.first {
        IpNetwork::V4(all) => all,
        IpNetwork::V6(_) => pods,
    };
    Ok(NodeView { index, address, pods, all, ranges: cluster.ranges, sees_bridged })
}

/// Every service with the pods behind it.
pub fn backed(cluster: &Cluster) -> Vec<Backed> {
    let with_pods = |service: &model::Service| Backed {
        service: service.clone(),
        endpoints: service.endpoints(&cluster.pods),
    };
    cluster.objects.services.iter().map(with_pods).collect()
}

/// A connection that the kernel has begun to lead somewhere is led there for as long as it is known, whatever the rules
/// say by now, and so is the next one of the same ports; so the connections to a service are forgotten.
///
/// # Errors
/// The kernel's words, with the node.
pub fn forget_connections(cluster: &Cluster, name: &str) -> Result<()> {
    let Some(service) = cluster.objects.service(name) else { return Ok(()) };
    let Some(port) = service.port else { return Ok(()) };
    for node in &cluster.nodes {
        let fronts = [(service.cluster_ip, Some(port.port)), (node.v4().map(|(own, _)| own), port.node_port)];
        let mut nfnl = Nfnl::open_in(&node.space.netns)?;
        for (address, port_asked) in fronts {
            let (Some(address), Some(number)) = (address, port_asked) else { continue };
            let filter = Filter {
                family: Family::V4,
                protocol: port.protocol.number(),
                port: Some(number),
                destination: Some(address.into()),
                server: None,
            };
            conntrack::delete(&mut nfnl, &filter).with_context(|| node.space.name.clone())?;
        }
    }
    Ok(())
}

/// A way to a load balancer's address, on a router.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Way {
    space: String,
    to: Ipv4Addr,
    via: IpAddr,
    table: Option<u32>,
}

impl Way {
    fn route(&self) -> Route {
        let dst = Some(IpNetwork::from(IpAddr::V4(self.to)));
        Route { dst, gateway: Some(self.via), table: self.table, ..Route::default() }
    }

    fn rtnl(&self, cluster: &Cluster) -> Result<Rtnl> {
        let space = cluster.space(&self.space).with_context(|| format!("no {}", self.space))?;
        Ok(Rtnl::open_in(&space.netns)?)
    }
}

/// The ways to a load balancer that a node stands for: on the fabric, and on the rack where the node is behind one.
fn ways(cluster: &Cluster, to: Ipv4Addr, node: &Node) -> Result<Vec<Way>> {
    let address = node.address.first;
    let found = route::lookup(&mut Rtnl::open_in(&cluster.fabric.netns)?, address)?;
    let (name, table) = (cluster.fabric.name.clone(), Some(INGRESS_TABLE));
    let mut ways = vec![Way { space: name, to, via: found.gateway.unwrap_or(address), table }];
    if let Some(rack) = cluster.racks.get(node.rack) {
        ways.push(Way { space: rack.name.clone(), to, via: address, table: None });
    }
    Ok(ways)
}

/// What has been put into the kernels so far. Nothing is put there again that is there already, so a fault that
/// somebody makes by hand stays until a service or a pod changes.
#[derive(Debug, Default)]
pub struct Dataplane {
    rulesets: Vec<Ruleset>,
    zone: SharedZone,
    routes: Vec<Way>,
    /// The pods behind UDP services.
    datagrams: BTreeSet<Ipv4Addr>,
}

impl Dataplane {
    /// Nothing yet; names go into this zone.
    pub fn of(zone: SharedZone) -> Self {
        Self { zone, ..Self::default() }
    }

    /// Makes nodes and fabric do what the services ask for; what went wrong is returned.
    pub fn sync(&mut self, cluster: &Cluster) -> Vec<String> {
        let hosts: Vec<(&str, Ipv4Addr)> = cluster
            .outside
            .iter()
            .filter_map(|host| match host.address.first {
                IpAddr::V4(address) => Some((host.space.name.as_str(), address)),
                IpAddr::V6(_) => None,
            })
            .collect();
        if hosts.is_empty() {
            return Vec::new();
        }
        let services = backed(cluster);
        self.rulesets.resize(cluster.nodes.len(), Ruleset::default());
        *self.zone.lock().unwrap_or_else(PoisonError::into_inner) =
            dns::zone(&cluster.objects.services, &hosts);
        let mut troubles = Vec::new();
        for (index, node) in cluster.nodes.iter().enumerate() {
            let done = sync_node(cluster, index, &services, &mut self.rulesets[index]);
            if let Err(err) = done.with_context(|| format!("services on {}", node.space.name)) {
                troubles.push(format!("{err:#}"));
            }
        }
        if let Err(err) =
            self.forget_datagrams(cluster, &services).context("connections of pods that are gone")
        {
            troubles.push(format!("{err:#}"));
        }
        if let Err(err) = self.sync_routes(cluster, &services).context("routes to load balancers") {
            troubles.push(format!("{err:#}"));
        }
        troubles
    }

    /// A datagram of a connection that the kernel knows goes where the ones before it went, whatever the rules say by
    /// now; so the connections of pods that are behind no UDP service any more are forgotten.
    fn forget_datagrams(&mut self, cluster: &Cluster, services: &[Backed]) -> Result<()> {
        let is_udp =
            |backed: &&Backed| backed.service.port.is_some_and(|port| port.protocol == Transport::Udp);
        let behind = services.iter().filter(is_udp).flat_map(|backed| &backed.endpoints);
        let wanted: BTreeSet<Ipv4Addr> = behind.map(|endpoint| endpoint.address).collect();
        let gone: Vec<Ipv4Addr> = self.datagrams.difference(&wanted).copied().collect();
        self.datagrams = wanted;
        for node in cluster.nodes.iter().filter(|_| !gone.is_empty()) {
            let mut nfnl = Nfnl::open_in(&node.space.netns)?;
            for address in &gone {
                let filter = Filter {
                    family: Family::V4,
                    protocol: Transport::Udp.number(),
                    port: None,
                    destination: None,
                    server: Some((*address).into()),
                };
                conntrack::delete(&mut nfnl, &filter)?;
            }
        }
        Ok(())
    }

    fn sync_routes(&mut self, cluster: &Cluster, services: &[Backed]) -> Result<()> {
        let mut wanted = Vec::new();
        for backed in services {
            let entry = backed.service.balancer.zip(cluster.nodes.get(backed.entry()));
            if let Some((to, node)) = entry {
                wanted.extend(ways(cluster, to, node)?);
            }
        }
        if wanted == self.routes {
            return Ok(());
        }
        for old in self.routes.iter().filter(|old| !wanted.contains(old)) {
            match route::delete(&mut old.rtnl(cluster)?, &old.route()) {
                Err(err) if !err.is_not_found() => return Err(err.into()),
                _ => {}
            }
        }
        for new in wanted.iter().filter(|new| !self.routes.contains(new)) {
            route::add(&mut new.rtnl(cluster)?, &new.route())?;
        }
        self.routes = wanted;
        Ok(())
    }
}

/// Puts the rules of a service that uses everything into the calling thread's namespace, as a test of the kernel.
///
/// # Errors
/// What the kernel lacks.
pub fn try_out() -> kernel::Result<()> {
    let (node, pod) = (Ipv4Addr::new(192, 0, 2, 11), Ipv4Addr::new(10, 244, 1, 2));
    let protocol = Transport::Tcp;
    let service = Service {
        name: "all".to_owned(),
        labels: Labels::new(),
        selector: Labels::new(),
        kind: ServiceType::LoadBalancer,
        cluster_ip: model::free_service_address(Ranges::default().services, &[]),
        balancer: model::free_balancer(&[]),
        external_name: None,
        port: Some(ServicePort {
            protocol,
            port: 80,
            target_port: 8080,
            node_port: model::free_node_port(&[]),
        }),
        has_affinity: true,
        policy: TrafficPolicy::Cluster,
        created: std::time::SystemTime::UNIX_EPOCH,
    };
    let endpoints = vec![Endpoint { pod: "pod".to_owned(), node: 0, address: pod }];
    let ranges = Ranges::default();
    let (pods, all) = (Ipv4Network::from(pod), Ipv4Network::from(pod));
    let view = NodeView { index: 0, address: node, pods, all, ranges, sees_bridged: true };
    apply::apply(&mut Nfnl::open()?, &ruleset(&view, &[Backed { service, endpoints }]))
}

/// Whether the calling thread's namespace has frames between the ports of its bridges pass netfilter.
///
/// # Errors
/// Why not.
pub fn calls_netfilter() -> Result<()> {
    match sysctl::read(CALL_NETFILTER)?.trim() {
        "1" => Ok(()),
        other => bail!("{CALL_NETFILTER} is {other}"),
    }
}

fn sync_node(cluster: &Cluster, index: usize, services: &[Backed], applied: &mut Ruleset) -> Result<()> {
    let node = &cluster.nodes[index];
    let wanted = ruleset(&view(cluster, index)?, services);
    if wanted != *applied {
        apply::apply(&mut Nfnl::open_in(&node.space.netns)?, &wanted)?;
        *applied = wanted;
    }
    Ok(())
}
