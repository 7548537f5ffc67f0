//! The sets of pods that rules name, kept up to date pod by pod.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use super::rules::named_set;
use crate::model::{Cluster, Key, Labels, Namespace, Peer, Pod, Protocol, Selector};
use crate::policy::Direction;
use crate::policy::names::name;
use crate::policy::program::{Addresses, NamedPorts, Set};

/// In which namespaces a peer's pods are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Scope {
    /// In this one.
    Own(String),
    /// In those selected.
    Selected(Selector),
}

/// Which pods a rule names: those of any of these scopes and selectors.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Spec(Vec<(Scope, Selector)>);

impl Spec {
    /// The pods among these peers, of a policy in `namespace`; `None` where no peer is of pods.
    pub(super) fn of(peers: &[Peer], namespace: &str) -> Option<Spec> {
        let mut all: Vec<(Scope, Selector)> = peers
            .iter()
            .filter_map(|peer| match peer {
                Peer::Pods { namespaces: None, pods } => {
                    Some((Scope::Own(namespace.to_owned()), pods.clone()))
                }
                Peer::Pods { namespaces: Some(selector), pods } => {
                    Some((Scope::Selected(selector.clone()), pods.clone()))
                }
                Peer::Block { .. } => None,
            })
            .collect();
        all.sort_unstable();
        all.dedup();
        (!all.is_empty()).then_some(Spec(all))
    }

    /// The name of its set.
    pub(super) fn set(&self, ipv6: bool) -> String {
        name(if ipv6 { "pods6" } else { "pods4" }, self.0.iter().map(|part| format!("{part:?}")))
    }

    /// The selectors for pods of a namespace.
    fn selectors<'a>(&'a self, namespace: &str, labels: Option<&Labels>) -> Vec<&'a Selector> {
        let within = |scope: &Scope| match scope {
            Scope::Own(own) => own == namespace,
            Scope::Selected(selector) => labels.is_some_and(|labels| selector.selects(labels)),
        };
        self.0.iter().filter(|(scope, _)| within(scope)).map(|(_, pods)| pods).collect()
    }
}

/// The pods of a spec.
#[derive(Debug)]
struct Group {
    id: u64,
    /// The names of its sets, by family.
    names: [String; 2],
    /// By family.
    addresses: [Arc<Addresses>; 2],
}

/// The pods that call a port so.
#[derive(Debug, Default)]
struct Named {
    /// With the number of pods that say so, which is more than one while an address changes hands.
    counts: BTreeMap<(IpAddr, Protocol, u16), u32>,
    /// By family, made anew when it has changed.
    ports: Option<[Arc<NamedPorts>; 2]>,
}

/// What is remembered of a pod.
#[derive(Debug)]
struct Seen {
    /// Of all that matters about it.
    print: u64,
    ips: Vec<IpAddr>,
    ports: Vec<(Protocol, String, u16)>,
    groups: Vec<u64>,
}

/// The sets, and what they were made of.
#[derive(Debug, Default)]
pub(super) struct Peers {
    pods: HashMap<Key, Seen>,
    namespaces: BTreeMap<String, Namespace>,
    groups: HashMap<Arc<Spec>, Group>,
    named: HashMap<(Protocol, String), Named>,
    last: u64,
}

impl Peers {
    /// Takes over what is other than the last time.
    pub(super) fn follow(&mut self, cluster: &Cluster) {
        let moved: HashSet<String> = {
            let names = cluster.namespaces.keys().chain(self.namespaces.keys());
            let other = names.filter(|name| cluster.namespaces.get(*name) != self.namespaces.get(*name));
            other.cloned().collect()
        };
        if !moved.is_empty() {
            self.namespaces = cluster.namespaces.clone();
        }
        let counts = |pod: &Pod| !pod.host_network && !pod.finished && !pod.ips.is_empty();
        let gone = |key: &Key| !cluster.pods.get(key).is_some_and(counts);
        let gone: Vec<Key> = self.pods.keys().filter(|key| gone(key)).cloned().collect();
        for key in gone {
            if let Some(seen) = self.pods.remove(&key) {
                self.forget(&seen, &[]);
            }
        }
        for pod in cluster.pods.values().filter(|pod| counts(pod)) {
            let print = print(pod);
            let before = self.pods.get(&pod.key);
            if before.is_none_or(|seen| seen.print != print || moved.contains(&pod.key.namespace)) {
                self.take(pod, print);
            }
        }
    }

    fn take(&mut self, pod: &Pod, print: u64) {
        let labels = self.namespaces.get(&pod.key.namespace).map(|it| &it.labels);
        let is_in = |spec: &Spec| {
            spec.selectors(&pod.key.namespace, labels).iter().any(|selector| selector.selects(&pod.labels))
        };
        let groups = self.groups.iter().filter(|(spec, _)| is_in(spec)).map(|(_, group)| group.id).collect();
        let ports = pod.ports.iter().map(|it| (it.protocol, it.name.clone(), it.port)).collect();
        let seen = Seen { print, ips: pod.ips.clone(), ports, groups };
        let before = self.pods.remove(&pod.key);
        let same_ips = before.as_ref().is_some_and(|before| before.ips == seen.ips);
        // What stays as it is is not copied.
        let kept: &[u64] = if same_ips { &seen.groups } else { &[] };
        let were: Vec<u64> = before.as_ref().map(|before| before.groups.clone()).unwrap_or_default();
        if let Some(before) = &before {
            self.forget(before, kept);
        }
        for group in self.groups.values_mut() {
            if seen.groups.contains(&group.id) && !(same_ips && were.contains(&group.id)) {
                group.count(&seen.ips, true);
            }
        }
        self.count_ports(&seen, true);
        self.pods.insert(pod.key.clone(), seen);
    }

    /// Takes a pod out of its sets but for those in `kept`.
    fn forget(&mut self, seen: &Seen, kept: &[u64]) {
        for group in self.groups.values_mut() {
            if seen.groups.contains(&group.id) && !kept.contains(&group.id) {
                group.count(&seen.ips, false);
            }
        }
        self.count_ports(seen, false);
    }

    fn count_ports(&mut self, seen: &Seen, there: bool) {
        for (protocol, name, port) in &seen.ports {
            if let Some(named) = self.named.get_mut(&(*protocol, name.clone())) {
                named.count(&seen.ips, *protocol, *port, there);
            }
        }
    }

    /// Keeps the sets of these specs and names of ports, makes those that are new, and drops the others.
    pub(super) fn keep(
        &mut self,
        cluster: &Cluster,
        specs: HashSet<Arc<Spec>>,
        ports: HashSet<(Protocol, String)>,
    ) {
        self.groups.retain(|spec, _| specs.contains(spec));
        self.named.retain(|port, _| ports.contains(port));
        let fresh: Vec<Arc<Spec>> = specs.into_iter().filter(|it| !self.groups.contains_key(it)).collect();
        if !fresh.is_empty() {
            let mut by_namespace: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
            for (key, pod) in cluster.pods.iter().filter(|(key, _)| self.pods.contains_key(*key)) {
                by_namespace.entry(&key.namespace).or_default().push(pod);
            }
            for spec in fresh {
                self.last += 1;
                let names = [spec.set(false), spec.set(true)];
                let addresses = [Arc::default(), Arc::default()];
                let mut group = Group { id: self.last, names, addresses };
                for (namespace, pods) in &by_namespace {
                    let labels = self.namespaces.get(*namespace).map(|it| &it.labels);
                    let selectors = spec.selectors(namespace, labels);
                    if selectors.is_empty() {
                        continue;
                    }
                    for pod in pods.iter().filter(|pod| selectors.iter().any(|it| it.selects(&pod.labels))) {
                        group.count(&pod.ips, true);
                        if let Some(seen) = self.pods.get_mut(&pod.key) {
                            seen.groups.push(group.id);
                        }
                    }
                }
                self.groups.insert(spec, group);
            }
        }
        for wanted in ports {
            if self.named.contains_key(&wanted) {
                continue;
            }
            let mut named = Named::default();
            for seen in self.pods.values() {
                for (protocol, name, port) in &seen.ports {
                    if (*protocol, name) == (wanted.0, &wanted.1) {
                        named.count(&seen.ips, *protocol, *port, true);
                    }
                }
            }
            self.named.insert(wanted, named);
        }
        let ids: HashSet<u64> = self.groups.values().map(|group| group.id).collect();
        for seen in self.pods.values_mut().filter(|seen| !seen.groups.iter().all(|id| ids.contains(id))) {
            seen.groups.retain(|id| ids.contains(id));
        }
    }

    /// Puts the sets where a program keeps them.
    pub(super) fn put_sets(&mut self, families: &[bool], sets: &mut BTreeMap<String, Set>) {
        for &ipv6 in families {
            for group in self.groups.values() {
                let addresses = group.addresses[usize::from(ipv6)].clone();
                sets.insert(group.names[usize::from(ipv6)].clone(), Set::Pods { ipv6, addresses });
            }
            for ((protocol, port), named) in &mut self.named {
                let set = named_set(*protocol, port, ipv6, Direction::Egress);
                let ports = named.ports()[usize::from(ipv6)].clone();
                sets.insert(set, Set::Named { ipv6, ports });
            }
        }
    }
}

impl Group {
    fn count(&mut self, ips: &[IpAddr], there: bool) {
        for ip in ips {
            let addresses = Arc::make_mut(&mut self.addresses[usize::from(ip.is_ipv6())]);
            count(addresses, *ip, there);
        }
    }
}

impl Named {
    fn count(&mut self, ips: &[IpAddr], protocol: Protocol, port: u16, there: bool) {
        self.ports = None;
        for ip in ips {
            count(&mut self.counts, (*ip, protocol, port), there);
        }
    }

    fn ports(&mut self) -> &[Arc<NamedPorts>; 2] {
        let counts = &self.counts;
        let of =
            |ipv6: bool| Arc::new(counts.keys().filter(|(ip, ..)| ip.is_ipv6() == ipv6).copied().collect());
        self.ports.get_or_insert_with(|| [of(false), of(true)])
    }
}

/// One more, or one less; none is no entry.
fn count<K: Ord>(counts: &mut BTreeMap<K, u32>, key: K, there: bool) {
    if there {
        *counts.entry(key).or_default() += 1;
    } else if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

/// A number that is another one when anything that sets depend on is.
fn print(pod: &Pod) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&pod.labels, &pod.ips).hash(&mut hasher);
    for port in &pod.ports {
        (&port.name, port.protocol, port.port).hash(&mut hasher);
    }
    hasher.finish()
}
