//! The difference between a plan and what the kernel holds, as steps in an order in which nothing is asked for that is
//! not there yet: first what leads to peers that are gone goes, routes before what they need; then what is new comes, the
//! other way round.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use kernel::neigh::FdbEntry;
use kernel::route::{self, TABLE_MAIN};
use kernel::{Batch, Family, IpNetwork, Mac, rule};

use super::plan::{Out, Plan, Route};
use super::state::State;
use super::{PRIORITY_V6, PROTOCOL, TABLE, alone};

/// The tunnels that are there: index by family.
pub(super) type Tunnels = BTreeMap<Family, u32>;

/// What is to be done, each with whom it is for.
#[derive(Debug, Default)]
pub(super) struct Steps {
    /// Requests, with what is to be said where one is refused.
    pub(super) batch: Batch,
    /// Of each request: the node that it is for, and whether it takes something away, which may be gone already.
    pub(super) about: Vec<(String, bool)>,
    /// Rules to add, then to delete.
    pub(super) rules: [Vec<rule::Rule>; 2],
    /// Gateway addresses to add, then to delete, each with its link's index.
    pub(super) gateways: [Vec<(u32, IpNetwork)>; 2],
    /// Routes of other programs to the same destinations.
    pub(super) foreign: Vec<String>,
}

impl Steps {
    /// What makes `state` equal to `plan`.
    pub(super) fn between(plan: &Plan, tunnels: &Tunnels, state: &State) -> Steps {
        let mut steps = Steps::default();
        let routes = Routes::between(plan, tunnels, state, &mut steps.foreign);
        for gone in &routes.gone {
            steps.batch.route_delete_own(gone);
            steps.about.push((format!("{}", gone.destination()), true));
        }
        steps.ends(plan, tunnels, state);
        for (node, new, replaces) in &routes.new {
            match replaces {
                true => steps.batch.route_replace(new),
                false => steps.batch.route_add(new),
            };
            steps.about.push((node.clone(), false));
        }
        for old in &routes.old {
            steps.batch.route_delete_own(old);
            steps.about.push((format!("{}", old.destination()), true));
        }
        steps.rules = rules(plan, state);
        let on_loopback = plan.gateways.iter().map(|it| (state.loopback, *it));
        // A loose reverse-path filter is as strict as any on a link without an IPv4 address (fib_validate_source).
        let ipv4 = plan.gateways.iter().filter(|it| it.is_ipv4());
        let in_tunnel = tunnels.get(&Family::V4).into_iter().flat_map(|it| ipv4.clone().map(|ip| (*it, *ip)));
        let wanted: BTreeSet<(u32, IpAddr)> = on_loopback.chain(in_tunnel).collect();
        let missing = wanted.iter().filter(|(link, ip)| !state.has_gateway(*link, *ip));
        let ours = state.gateways.iter().filter(|it| it.2);
        steps.gateways = [
            missing.map(|(link, ip)| (*link, alone(*ip))).collect(),
            ours.filter(|it| !wanted.contains(&(it.0, it.1.ip()))).map(|it| (it.0, it.1)).collect(),
        ];
        steps
    }

    /// Nothing is to be done.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many changes there are.
    pub(super) fn len(&self) -> usize {
        let [add, delete] = &self.rules;
        let [come, go] = &self.gateways;
        self.batch.len() + add.len() + delete.len() + come.len() + go.len()
    }

    /// Neighbours and forwarding entries of the tunnels.
    fn ends(&mut self, plan: &Plan, tunnels: &Tunnels, state: &State) {
        let mut neighs: HashMap<(u32, IpAddr), (Mac, &str)> = HashMap::new();
        let mut fdb: HashMap<(u32, Mac), (IpAddr, &str)> = HashMap::new();
        for tunnel in &plan.tunnels {
            let Some(&index) = tunnels.get(&tunnel.family) else { continue };
            for end in &tunnel.ends {
                neighs.insert((index, end.inner), (end.mac, &end.node));
                fdb.insert((index, end.mac), (end.outer, &end.node));
            }
        }
        let gone = |it: &&FdbEntry| !fdb.contains_key(&(it.index, it.mac));
        for entry in state.fdb.iter().filter(gone) {
            if let Some(dst) = entry.dst {
                self.batch.fdb_delete(entry.index, entry.mac, dst, entry.vni);
                self.about.push((format!("{}", entry.mac), true));
            }
        }
        for neigh in &state.neighs {
            let key = (neigh.index, neigh.addr);
            let right = neighs.get(&key).is_some_and(|(mac, _)| neigh.mac == Some(*mac));
            match neigh.state == PERMANENT {
                true if right => drop(neighs.remove(&key)),
                true if !neighs.contains_key(&key) => {
                    self.batch.neigh_delete(neigh.index, neigh.addr);
                    self.about.push((format!("{}", neigh.addr), true));
                }
                // One that was learned is replaced, or none of ours.
                _ => {}
            }
        }
        let mut there: HashMap<(u32, Mac), Vec<&FdbEntry>> = HashMap::new();
        for entry in &state.fdb {
            there.entry((entry.index, entry.mac)).or_default().push(entry);
        }
        for ((index, addr), (mac, node)) in sorted(neighs) {
            self.batch.neigh_replace(index, addr, mac);
            self.about.push((node.to_owned(), false));
        }
        for ((index, mac), (outer, node)) in sorted(fdb) {
            match there.get(&(index, mac)).map(Vec::as_slice) {
                // In the link's own network.
                Some([only]) if (only.dst, only.vni) == (Some(outer), None) => continue,
                // An entry that sends to several addresses cannot be replaced.
                Some(several @ [_, _, ..]) => {
                    for (entry, dst) in several.iter().filter_map(|it| Some((it, it.dst?))) {
                        self.batch.fdb_delete(index, mac, dst, entry.vni);
                        self.about.push((node.to_owned(), true));
                    }
                }
                _ => {}
            }
            self.batch.fdb_replace(index, mac, outer);
            self.about.push((node.to_owned(), false));
        }
    }
}

/// `NUD_PERMANENT`, linux/neighbour.h
const PERMANENT: u16 = 0x80;

fn sorted<K: Ord, V>(map: HashMap<K, V>) -> Vec<(K, V)> {
    let mut all: Vec<(K, V)> = map.into_iter().collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// Changes of routes.
#[derive(Default)]
struct Routes {
    /// Ours to destinations that the plan does not have.
    gone: Vec<route::Route>,
    /// New ones, with the node, and whether each takes the place of what is there.
    new: Vec<(String, route::Route, bool)>,
    /// Ours that a new one was put in front of.
    old: Vec<route::Route>,
}

impl Routes {
    fn between(plan: &Plan, tunnels: &Tunnels, state: &State, foreign: &mut Vec<String>) -> Routes {
        let mut found = Routes::default();
        let mut there: HashMap<(u32, IpNetwork), Vec<&route::Route>> = HashMap::new();
        for route in &state.routes {
            there.entry((route.table_id(), route.destination())).or_default().push(route);
        }
        let mut wanted = HashSet::new();
        for route in &plan.routes {
            let key = (route.table, route.dst);
            wanted.insert(key);
            let Some(new) = in_kernel(route, tunnels) else { continue };
            let (ours, others): (Vec<&route::Route>, Vec<&route::Route>) =
                there.get(&key).into_iter().flatten().copied().partition(|it| it.protocol == PROTOCOL);
            foreign.extend(others.iter().filter(|it| it.table_id() == TABLE_MAIN).map(|it| told(it)));
            let rivals = others.iter().any(|it| it.priority.unwrap_or(0) == new.priority.unwrap_or(0));
            let mut old: Vec<route::Route> = ours.into_iter().cloned().collect();
            if let Some(right) = old.iter().position(|it| same(it, &new)) {
                old.remove(right);
                found.old.extend(old);
            } else if rivals && new.family() == Family::V6 {
                // It would become one of several ways of the other program's route.
                found.old.extend(old);
            } else {
                // What the kernel replaces is the first of this destination and metric, so only ours must be there.
                if !rivals && !old.is_empty() {
                    old.remove(0);
                }
                found.old.extend(old);
                found.new.push((route.node.clone(), new, !rivals));
            }
        }
        let stale = |it: &&route::Route| {
            it.protocol == PROTOCOL && !wanted.contains(&(it.table_id(), it.destination()))
        };
        found.gone = state.routes.iter().filter(stale).cloned().collect();
        found
    }
}

/// A route of the plan as the kernel shows it; None while its tunnel is not there.
fn in_kernel(route: &Route, tunnels: &Tunnels) -> Option<route::Route> {
    let family = Family::of(route.dst.ip());
    let (oif, onlink) = match route.out {
        Out::Link(index) => (index, false),
        Out::Tunnel(family) => (*tunnels.get(&family)?, true),
    };
    Some(route::Route {
        dst: Some(route.dst),
        family: Some(family),
        gateway: Some(route.via),
        oif: Some(oif),
        src: route.src,
        priority: (family == Family::V6).then_some(PRIORITY_V6),
        table: Some(route.table),
        mtu: route.mtu,
        protocol: PROTOCOL,
        onlink,
        ..route::Route::default()
    })
}

fn same(there: &route::Route, wanted: &route::Route) -> bool {
    let hop = |it: &route::Route| (it.gateway, it.oif, it.onlink, it.src, it.mtu, it.priority.unwrap_or(0));
    hop(there) == hop(wanted)
}

fn told(route: &route::Route) -> String {
    let mut text = format!("{}", route.destination());
    if let Some(gateway) = route.gateway {
        text.push_str(&format!(" via {gateway}"));
    }
    if let Some(oif) = route.oif {
        text.push_str(&format!(" dev {oif}"));
    }
    format!("{text} proto {} is another program's and stays beside the agent's", route.protocol)
}

/// The rules to add and those to delete.
fn rules(plan: &Plan, state: &State) -> [Vec<rule::Rule>; 2] {
    let wanted: Vec<rule::Rule> = plan
        .tunnelled
        .iter()
        .map(|cidr| rule::Rule {
            family: Family::of(cidr.ip()),
            priority: TABLE,
            src: Some(*cidr),
            dst: None,
            iif: None,
            oif: None,
            mark: None,
            action: rule::ACTION_TABLE,
            table: TABLE,
        })
        .collect();
    let missing = wanted.iter().filter(|it| !state.rules.contains(it)).cloned().collect();
    let mut surplus: Vec<rule::Rule> = Vec::new();
    let mut seen: Vec<&rule::Rule> = Vec::new();
    for there in &state.rules {
        if !wanted.contains(there) || seen.contains(&there) {
            surplus.push(there.clone());
        }
        seen.push(there);
    }
    [missing, surplus]
}
