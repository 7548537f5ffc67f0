//! From policies to the program of one node: pure, and quick to do again.
//!
//! [`compile`] does it from nothing. A [`Compiler`] keeps what the last time found: the chains of policies, and of each
//! set of pods its addresses, of which only those of pods that are other than before are looked at anew. Both give the
//! same program.
//!
//! Each policy that isolates one of this node's pods has a chain for each direction, and each set of policies that
//! isolate some pod has a chain that asks them in turn and drops what none lets through. The same peers are the same
//! set, whichever rule names them.

mod peers;
mod rules;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::names::name;
use super::program::{Chain, Line, Program, SOURCES, Set, Target, Verdicts};
use super::slots::Slot;
use super::{Direction, isolating};
use crate::model::{Cluster, Key, Pod, Policy, Protocol};
use peers::Peers;
use rules::Compiled;

/// The program of `node`, whose pods the plugin has given `slots`.
pub fn compile<'a>(cluster: &Cluster, node: &str, slots: impl IntoIterator<Item = &'a Slot>) -> Program {
    Compiler::new(node).compile(cluster, slots, &HashSet::new())
}

/// Whose an address of this node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Local<'a> {
    /// A pod's.
    Pod(&'a Pod),
    /// Of a container that is no Kubernetes pod: policies say nothing about it.
    Other,
}

/// The addresses on `node` of which it is known whose they are. A pod has those that the plugin gave it; one that was
/// there before this network has those that the API tells, unless its uid is among the `released`.
///
/// A record's pod is the one of its name if the uid is the same, or, as for the mirrors of static pods, whose uid is
/// another one in the API, if the API tells one of the same addresses.
pub fn locals<'a, 's>(
    cluster: &'a Cluster,
    node: &str,
    slots: impl IntoIterator<Item = &'s Slot>,
    released: &HashSet<String>,
) -> BTreeMap<IpAddr, Local<'a>> {
    let mut all = BTreeMap::new();
    let mut claimed: HashSet<IpAddr> = HashSet::new();
    for slot in slots {
        claimed.extend(&slot.addresses);
        let local = match &slot.key {
            None => Some(Local::Other),
            Some(key) => cluster.pods.get(key).filter(|pod| slot.is_of(pod)).map(Local::Pod),
        };
        all.extend(local.into_iter().flat_map(|local| slot.addresses.iter().map(move |it| (*it, local))));
    }
    let own = cluster.pods.values().filter(|pod| pod.node == node && !pod.host_network && !pod.finished);
    for pod in own.filter(|pod| !released.contains(&pod.uid)) {
        for address in pod.ips.iter().filter(|it| !claimed.contains(it)) {
            all.insert(*address, Local::Pod(pod));
        }
    }
    all
}

/// Compiles the programs of one node, one after the other.
#[derive(Debug)]
pub struct Compiler {
    node: String,
    peers: Peers,
    policies: HashMap<Key, Known>,
}

/// A policy as it was, for which families, and its chain of each direction.
#[derive(Debug)]
struct Known {
    policy: Policy,
    families: Vec<bool>,
    chains: [Option<Arc<Compiled>>; 2],
}

impl Compiler {
    /// For this node.
    pub fn new(node: &str) -> Compiler {
        Compiler { node: node.to_owned(), peers: Peers::default(), policies: HashMap::new() }
    }

    /// The program for the cluster as it is now.
    pub fn compile<'s>(
        &mut self,
        cluster: &Cluster,
        slots: impl IntoIterator<Item = &'s Slot>,
        released: &HashSet<String>,
    ) -> Program {
        let locals = locals(cluster, &self.node, slots, released);
        self.peers.follow(cluster);
        let cidrs = cluster.nodes.get(&self.node).map(|node| node.pod_cidrs.as_slice()).unwrap_or_default();
        let of_family = |ipv6: bool| {
            locals.keys().any(|it| it.is_ipv6() == ipv6) || cidrs.iter().any(|it| it.is_ipv6() == ipv6)
        };
        let families: Vec<bool> = [false, true].into_iter().filter(|ipv6| of_family(*ipv6)).collect();

        let mut program = Program::default();
        let about = "what pods send under addresses that are not theirs".to_owned();
        program.chains.insert(SOURCES.into(), Arc::new(Chain { about, lines: vec![Line::Forged] }));
        for direction in Direction::ALL {
            let mut lines = Vec::new();
            if direction == Direction::Egress {
                lines.extend(cidrs.iter().map(|&net| Line::Unmarked(net)));
                lines.push(Line::Cut);
            }
            lines.push(Line::Established);
            lines.extend(families.iter().map(|&ipv6| Line::Itself { ipv6 }));
            lines.extend(families.iter().map(|&ipv6| Line::Pods { direction, ipv6 }));
            lines.extend(cidrs.iter().map(|&net| Line::Closed { direction, net }));
            let about = format!("{} of this node's pods", direction.name());
            program.chains.insert(direction.name().into(), Arc::new(Chain { about, lines }));
        }

        let mut used: BTreeMap<Key, [Option<Arc<Compiled>>; 2]> = BTreeMap::new();
        let mut profiles: HashMap<(Direction, Vec<&Key>), Arc<str>> = HashMap::new();
        for (&address, local) in &locals {
            let mut target = |direction: Direction| {
                let Local::Pod(pod) = local else { return Target::Open };
                let policies: Vec<&Policy> =
                    isolating(cluster, &pod.key.namespace, &pod.labels, direction).collect();
                if policies.is_empty() {
                    return Target::Open;
                }
                let keys: Vec<&Key> = policies.iter().map(|policy| &policy.key).collect();
                let chain = profiles.entry((direction, keys)).or_insert_with_key(|(_, keys)| {
                    let of =
                        policies.iter().map(|policy| (*policy, self.policy(policy, direction, &families)));
                    let of: Vec<_> = of.collect();
                    let mut lines: Vec<Line> = Vec::new();
                    for (policy, compiled) in of {
                        if !compiled.lines.is_empty() {
                            lines.push(Line::Ask(compiled.chain.clone()));
                        }
                        used.entry(policy.key.clone()).or_default()[direction as usize] = Some(compiled);
                    }
                    lines.push(Line::Drop);
                    let texts: Vec<String> = keys.iter().map(ToString::to_string).collect();
                    let kind = if direction == Direction::Egress { "from" } else { "to" };
                    let chain: Arc<str> = name(kind, &texts).into();
                    let about = format!("{} by {}", direction.name(), texts.join(", "));
                    program.chains.insert(chain.clone(), Arc::new(Chain { about, lines }));
                    chain
                });
                Target::Chain(chain.clone())
            };
            let verdicts =
                Verdicts { egress: target(Direction::Egress), ingress: target(Direction::Ingress) };
            program.pods.insert(address, verdicts);
        }

        let compiled: Vec<&Arc<Compiled>> = used.values().flatten().flatten().collect();
        let mut local_ports: BTreeMap<(&str, Protocol), BTreeSet<(IpAddr, u16)>> = BTreeMap::new();
        for (address, local) in &locals {
            let Local::Pod(pod) = local else { continue };
            for port in &pod.ports {
                local_ports.entry((&port.name, port.protocol)).or_default().insert((*address, port.port));
            }
        }
        for one in &compiled {
            if one.lines.is_empty() {
                continue;
            }
            let chain = Arc::new(Chain { about: one.about.clone(), lines: one.lines.clone() });
            program.chains.insert(one.chain.clone(), chain);
            program.sets.extend(one.fixed.iter().map(|(name, set)| (name.clone(), set.clone())));
            for (name, protocol, port_name, ipv6) in &one.own_ports {
                let here = local_ports.get(&(port_name.as_str(), *protocol));
                let here = here.into_iter().flatten().filter(|(ip, _)| ip.is_ipv6() == *ipv6);
                let ports = Arc::new(here.map(|(ip, port)| (*ip, *protocol, *port)).collect());
                program.sets.insert(name.clone(), Set::Named { ipv6: *ipv6, ports });
            }
        }
        let specs = compiled.iter().flat_map(|it| it.peers.iter().cloned()).collect();
        let ports = compiled.iter().flat_map(|it| it.named.iter().cloned()).collect();
        self.peers.keep(cluster, specs, ports);
        self.peers.put_sets(&families, &mut program.sets);
        self.policies.retain(|key, _| used.contains_key(key));
        program
    }

    /// The chain of a policy: as it was, where the policy is.
    fn policy(&mut self, policy: &Policy, direction: Direction, families: &[bool]) -> Arc<Compiled> {
        let make = || Arc::new(rules::compiled(policy, direction, families));
        let known = self.policies.get_mut(&policy.key);
        if let Some(known) = known.filter(|known| known.policy == *policy && known.families == families) {
            return known.chains[direction as usize].get_or_insert_with(make).clone();
        }
        let made = make();
        let mut chains = [None, None];
        chains[direction as usize] = Some(made.clone());
        let known = Known { policy: policy.clone(), families: families.to_vec(), chains };
        self.policies.insert(policy.key.clone(), known);
        made
    }
}
