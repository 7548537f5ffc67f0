//! The scene: what the kernel says about every pod before the first probe.
//!
//! Addresses are read from the namespaces, not taken from CNI results: whether the two agree is itself a check.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result};
use kernel::{Family, Mac, Rtnl, addr, link};

use super::prober::Prober;
use super::sample::{self, Field, Sample};
use super::services::Services;
use super::{End, Task, paths};
use crate::cluster::{Cluster, Node, Outside, Pod};
use crate::kubia::PORT;
use crate::stack;
use crate::verdict::{Journey, Path};

/// `RT_SCOPE_UNIVERSE`: an address that others can use.
const GLOBAL: u8 = 0;

/// A cluster and what was read of it.
pub(super) struct Scene<'c> {
    pub(super) cluster: &'c Cluster,
    pub(super) pods: Vec<PodFacts<'c>>,
    /// Indices of the nodes whose pods are asked for.
    nodes: Vec<usize>,
    /// The pairs to probe, by the numbers of their pods; None for all.
    sample: Option<BTreeSet<(usize, usize)>>,
    /// How many ordered pairs of the wanted kinds there are.
    pub(super) possible: usize,
    /// Of every node, where services are verified.
    probers: &'c [Prober],
    pub(super) services: Services,
}

/// Which pairs of pods the chosen checks are about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) same_node: bool,
    pub(super) cross_node: bool,
    pub(super) sample: Option<Sample>,
}

/// A pod and what the kernel says about it.
pub(super) struct PodFacts<'c> {
    pub(super) pod: &'c Pod,
    pub(super) node: &'c Node,
    /// The global addresses of its interface; empty when there is no such interface.
    pub(super) addresses: Vec<IpAddr>,
    pub(super) mac: Option<Mac>,
    /// Containers whose process is in another network namespace, or gone.
    pub(super) strangers: Vec<String>,
}

impl<'c> Scene<'c> {
    /// Services are looked at where there are probers for them.
    pub(super) fn read(
        cluster: &'c Cluster,
        nodes: Vec<usize>,
        wanted: Wanted,
        probers: &'c [Prober],
    ) -> Result<Scene<'c>> {
        let facts = |pod: &'c Pod| {
            PodFacts::read(pod, &cluster.nodes[pod.node])
                .with_context(|| format!("look into {}", pod.space.name))
        };
        let pods = cluster.pods.iter().map(facts).collect::<Result<_>>()?;
        let services = if probers.is_empty() { Services::default() } else { Services::read(cluster)? };
        let node_of: Vec<usize> = cluster.pods.iter().map(|pod| pod.node).collect();
        let clients: Vec<bool> = node_of.iter().map(|node| nodes.contains(node)).collect();
        let field = |same, cross| Field { nodes: &node_of, clients: &clients, same, cross };
        let of_pods = field(wanted.same_node, wanted.cross_node);
        let possible = (of_pods.possible().0 + of_pods.possible().1) * cluster.families().count();
        // Where no check is about pairs, the sample still says which pods the others look at.
        let is_about_pairs = wanted.same_node || wanted.cross_node;
        let of_sample = if is_about_pairs { of_pods } else { field(true, true) };
        let sample = wanted.sample.map(|sample| sample::choose(&of_sample, sample));
        Ok(Scene { cluster, pods, nodes, sample, possible, probers, services })
    }

    /// What every pod's interface has.
    pub(super) fn addresses_of_pods(&self) -> Vec<(String, IpAddr)> {
        let of = |pod: &PodFacts<'c>| {
            let name = pod.name().to_owned();
            pod.addresses.iter().map(move |address| (name.clone(), *address)).collect::<Vec<_>>()
        };
        self.pods.iter().flat_map(of).collect()
    }

    /// The pods on the nodes that are asked for.
    pub(super) fn chosen(&self) -> impl Iterator<Item = &PodFacts<'c>> {
        self.pods.iter().filter(|p| self.nodes.contains(&p.pod.node))
    }

    /// Those of [`Scene::chosen`] that occur in the sample; all of them without one.
    pub(super) fn sampled(&self) -> impl Iterator<Item = &PodFacts<'c>> {
        let in_sample: Option<BTreeSet<usize>> =
            self.sample.as_ref().map(|pairs| pairs.iter().flat_map(|(a, b)| [*a, *b]).collect());
        let numbered = self.pods.iter().enumerate().filter(|(_, p)| self.nodes.contains(&p.pod.node));
        numbered
            .filter(move |(n, _)| in_sample.as_ref().is_none_or(|pods| pods.contains(n)))
            .map(|(_, pod)| pod)
    }

    /// Ordered pairs of two pods, the first one a chosen one: all, or those of the sample.
    pub(super) fn pairs(&self) -> Box<dyn Iterator<Item = (&PodFacts<'c>, &PodFacts<'c>)> + '_> {
        if let Some(pairs) = &self.sample {
            return Box::new(pairs.iter().map(|(a, b)| (&self.pods[*a], &self.pods[*b])));
        }
        let is_another = |a: &PodFacts<'_>, b: &PodFacts<'_>| a.pod.space.name != b.pod.space.name;
        let others = move |a| self.pods.iter().filter(move |b| is_another(a, b)).map(move |b| (a, b));
        Box::new(self.chosen().flat_map(others))
    }

    /// The lab has both IP versions.
    pub(super) fn has_both(&self) -> bool {
        self.cluster.ranges.pods.second.is_some()
    }

    /// Tasks of each IP version of the lab.
    pub(super) fn in_each(&self, plan: impl Fn(Family) -> Vec<Task<'c>>) -> Vec<Task<'c>> {
        let of_family = |family| {
            let told = Some(family).filter(|_| self.has_both());
            let name = move |task: Task<'c>| Task { subject: paths::of_family(task.subject, told), ..task };
            plan(family).into_iter().map(name).collect::<Vec<_>>()
        };
        self.cluster.families().flat_map(of_family).collect()
    }

    /// Every host outside.
    pub(super) fn outside(&self) -> impl Iterator<Item = &'c Outside> + use<'c> {
        self.cluster.outside.iter()
    }

    /// The nodes that are asked for.
    pub(super) fn chosen_nodes(&self) -> impl Iterator<Item = usize> {
        self.nodes.iter().copied()
    }

    /// A node as a client.
    pub(super) fn node(&self, index: usize) -> Option<End<'c>> {
        let prober = self.probers.get(index)?;
        Some(End { name: &self.cluster.nodes[index].space.name, sidecar: &prober.sidecar, log: None })
    }
}

impl<'c> PodFacts<'c> {
    fn read(pod: &'c Pod, node: &'c Node) -> Result<PodFacts<'c>> {
        let mut rtnl = Rtnl::open_in(&pod.space.netns)?;
        let (mut addresses, mut mac) = (Vec::new(), None);
        match link::by_name(&mut rtnl, &pod.ifname) {
            Ok(link) => {
                mac = link.mac;
                let all = addr::list(&mut rtnl, Some(link.index))?;
                addresses.extend(all.iter().filter(|a| a.scope == GLOBAL).map(|a| a.net.ip()));
            }
            Err(e) if e.is_not_found() => {}
            Err(e) => return Err(e.into()),
        }
        let own = pod.space.netns.id()?;
        let is_here = |pid: i32| {
            let meta = fs::metadata(format!("/proc/{pid}/ns/net"));
            meta.is_ok_and(|m| (m.dev(), m.ino()) == own)
        };
        let pids = [pod.containers.kubia_pid, pod.containers.sidecar_pid];
        let containers = pod.meta.containers.iter().zip(pids);
        let strangers = containers.filter(|(_, pid)| !is_here(*pid)).map(|(name, _)| name.clone());
        Ok(PodFacts { pod, node, addresses, mac, strangers: strangers.collect() })
    }

    pub(super) fn name(&self) -> &'c str {
        &self.pod.space.name
    }

    pub(super) fn end(&self) -> End<'c> {
        End::of(self.name(), &self.pod.containers)
    }

    /// The address that probes of an IP version use: the first of the CNI result that the interface has, else its first one.
    pub(super) fn address(&self, family: Family) -> Result<IpAddr, String> {
        let is_of = |a: &&IpAddr| Family::of(**a) == family;
        let told = self.pod.addresses.iter().filter(is_of).find(|a| self.addresses.contains(a));
        let found = told.or(self.addresses.iter().find(is_of)).copied();
        found.ok_or_else(|| format!("{} has no {} address", self.name(), stack::word(family)))
    }
}

/// A host outside as an end, and its address of an IP version.
pub(super) fn outside(host: &Outside, family: Family) -> (End<'_>, Result<IpAddr, String>) {
    let name = &host.space.name;
    let none = || format!("{name} has no {} address", stack::word(family));
    (End::of(name, &host.containers), host.address.of(family).ok_or_else(none))
}

/// A task between two ends, if both addresses are known and of one family.
pub(super) fn task<'c>(
    client: (End<'c>, Result<IpAddr, String>),
    server: (End<'c>, Result<IpAddr, String>),
    (there, back): (Path, Path),
    more: impl FnOnce(Journey) -> Journey,
) -> Task<'c> {
    let journey = || -> Result<Journey, String> {
        let (from, to) = (client.1?, server.1?);
        if from.is_ipv4() != to.is_ipv4() {
            return Err(format!("{from} and {to} are not of one IP version"));
        }
        Ok(Journey {
            client_name: client.0.name.into(),
            client: from,
            server: SocketAddr::new(to, PORT),
            server_name: server.0.name.into(),
            there,
            back,
            macs: None,
            may_become: None,
            sealed: None,
        })
    };
    let aim = match journey() {
        Ok(journey) => super::Aim::Journey(Box::new(more(journey))),
        Err(reason) => super::Aim::Impossible(reason),
    };
    Task {
        subject: paths::subject(client.0.name, server.0.name),
        client: client.0,
        servers: vec![server.0],
        aim,
    }
}
