//! Suspects: what does not fit on the way there and back, ranked by where the packet was last seen.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use kernel::Family;

use super::leg::{ENDS, Find, Leg, find as add, listens};
use super::state::{Outline, State};
use super::symptom::{Sign, Symptom};
use super::{Aim, MOST, Suspect, WhyOptions};
use crate::cluster::{Cluster, Node, Pod, Space};
use crate::labels;
use crate::services;
use crate::services::model::{Backed, TrafficPolicy};
use crate::verdict::Way;

/// What may show when two have one address.
const TWO: &[Sign] = &[Sign::Fails, Sign::WrongHost, Sign::Twice, Sign::Lossy, Sign::LargeHangs];

/// Finds what is likely to be broken, the likeliest first.
pub(super) fn find(
    cluster: &Cluster,
    options: &WhyOptions,
    aim: &Aim,
    symptom: &Symptom,
) -> Result<Vec<Suspect>> {
    let all: Vec<Outline> = cluster.spaces().map(Outline::read).collect::<Result<_>>()?;
    let target = target(cluster, aim, symptom);
    let way = way(cluster, options, aim, symptom, target);
    let states: Vec<State> =
        way.iter().map(|space| State::read(space, app_of(cluster, &space.name))).collect::<Result<_>>()?;
    let mut finds = Vec::new();
    if let Some(backed) = &aim.service {
        of_service(cluster, options, backed, symptom, &mut finds)?;
    }
    if options.source == options.target {
        on_localhost(&states[0], symptom.front, &mut finds);
    } else {
        duplicates(cluster, options, target, &all, &mut finds);
        legs(cluster, &states, &all, symptom, target, &mut finds);
    }
    let near = focus(&way, symptom);
    finds.retain(|found| found.explains.contains(&symptom.sign));
    // What is as near stays in the order in which packets come by.
    finds.sort_by_key(|found| {
        !(near.is_empty() || near.contains(&found.place) || found.place.starts_with("svc/"))
    });
    finds.truncate(MOST);
    Ok(finds.into_iter().map(|found| suspect(found, symptom)).collect())
}

fn suspect(found: Find, symptom: &Symptom) -> Suspect {
    let look = match found.place.strip_prefix("svc/") {
        Some(service) => format!("podlab kubectl describe svc {service}"),
        None if found.part.starts_with("port ") => format!("podlab exec {} -- ss -ltn", found.place),
        None => format!("podlab inspect {} {}", found.place, found.look).trim_end().to_owned(),
    };
    Suspect { place: found.place, part: found.part, what: found.what, proof: symptom.proof.clone(), look }
}

fn app_of(cluster: &Cluster, name: &str) -> Option<i32> {
    match cluster.pod(name) {
        Some(pod) => Some(pod.containers.kubia_pid),
        None => cluster.host(name).map(|host| host.containers.kubia_pid),
    }
}

/// Where the packet really goes: the front, or for a service what the front became.
fn target(cluster: &Cluster, aim: &Aim, symptom: &Symptom) -> SocketAddr {
    let of_pods = |to: &&SocketAddr| pod_at(cluster, to.ip()).is_some();
    let seen = symptom.targets.iter().map(|(_, to)| to).rfind(of_pods).copied();
    match &aim.service {
        Some(_) => seen.unwrap_or(symptom.front),
        None => symptom.front,
    }
}

fn pod_at(cluster: &Cluster, address: IpAddr) -> Option<&Pod> {
    cluster.pods.iter().find(|pod| pod.addresses.contains(&address))
}

fn node_at(cluster: &Cluster, address: IpAddr) -> Option<&Node> {
    cluster.nodes.iter().find(|node| node.address.has(&address))
}

/// The namespaces from source to target.
fn way<'c>(
    cluster: &'c Cluster,
    options: &WhyOptions,
    aim: &Aim,
    symptom: &Symptom,
    target: SocketAddr,
) -> Vec<&'c Space> {
    let mut way = Vec::new();
    let mut at = match cluster.pod(&options.source) {
        Some(pod) => {
            way.push(&pod.space);
            Some(&cluster.nodes[pod.node])
        }
        None => {
            way.extend(cluster.host(&options.source).map(|host| &host.space));
            None
        }
    };
    way.extend(at.map(|node| &node.space));
    let end = pod_at(cluster, target.ip());
    let entry = aim.service.as_ref().and_then(|_| node_at(cluster, symptom.front.ip()));
    let stops =
        entry.into_iter().chain(end.map(|pod| &cluster.nodes[pod.node])).chain(node_at(cluster, target.ip()));
    for stop in stops {
        if at.is_none_or(|at| at.address != stop.address) {
            way.extend(between(cluster, at, Some(stop)));
            way.push(&stop.space);
            at = Some(stop);
        }
    }
    if let Some(pod) = end {
        way.push(&pod.space);
    } else if let Some(host) = cluster.host_at(target.ip()) {
        way.extend(between(cluster, at, None));
        way.push(&host.space);
    }
    way
}

/// Switches and routers between two nodes; None stands for outside.
fn between<'c>(cluster: &'c Cluster, near: Option<&Node>, far: Option<&Node>) -> Vec<&'c Space> {
    let rack = |node: Option<&Node>| node.and_then(|node| cluster.racks.get(node.rack));
    let (near, far) = (rack(near), rack(far));
    match (near, far) {
        (Some(one), Some(other)) if one.name == other.name => vec![one],
        _ => near.into_iter().chain([&cluster.fabric]).chain(far).collect(),
    }
}

fn legs(
    cluster: &Cluster,
    states: &[State],
    all: &[Outline],
    symptom: &Symptom,
    target: SocketAddr,
    finds: &mut Vec<Find>,
) {
    let Some(first) = states.first() else { return };
    let own = first_address(cluster, &first.name, Family::of(target.ip()));
    let source = SocketAddr::new(own.unwrap_or(target.ip()), symptom.port);
    let there: Vec<&State> = states.iter().collect();
    let back: Vec<&State> = states.iter().rev().collect();
    for (states, source, target, is_request) in [(there, source, target, true), (back, target, source, false)]
    {
        let leg = Leg { cluster, states, all, source, target, is_request };
        for found in leg.walk() {
            add(finds, found.place, &found.part, found.what, found.explains, found.look);
        }
    }
}

fn first_address(cluster: &Cluster, name: &str, family: Family) -> Option<IpAddr> {
    match cluster.pod(name) {
        Some(pod) => pod.addresses.iter().find(|address| Family::of(**address) == family).copied(),
        None => cluster.host(name).and_then(|host| host.address.of(family)),
    }
}

/// Addresses and MACs that somebody else has too.
fn duplicates(
    cluster: &Cluster,
    options: &WhyOptions,
    target: SocketAddr,
    all: &[Outline],
    finds: &mut Vec<Find>,
) {
    let ends = [cluster.pod(&options.source), pod_at(cluster, target.ip())];
    for pod in ends.into_iter().flatten() {
        let others = || all.iter().filter(|space| space.name != pod.space.name);
        for address in &pod.addresses {
            for other in others().filter(|space| space.owner(*address).is_some()) {
                let what = format!("it has {address} too, which is {}'s", pod.space.name);
                add(finds, other.name.clone(), &format!("address {address}"), what, TWO, "interfaces");
            }
        }
        let own =
            all.iter().find(|space| space.name == pod.space.name).and_then(|space| space.mac(&pod.ifname));
        let siblings = cluster.pods.iter().filter(|other| other.node == pod.node);
        for sibling in siblings.filter(|other| other.space.name != pod.space.name) {
            let outline = all.iter().find(|space| space.name == sibling.space.name);
            if let Some(mac) = own.filter(|mac| outline.and_then(|it| it.mac(&sibling.ifname)) == Some(*mac))
            {
                let what = format!("it has the MAC {mac}, as {} has", pod.space.name);
                add(finds, sibling.space.name.clone(), "MAC", what, TWO, "interfaces");
            }
        }
    }
}

/// A pod that does not reach itself.
fn on_localhost(state: &State, target: SocketAddr, finds: &mut Vec<Find>) {
    if state.link_named("lo").is_none_or(|lo| !lo.up) {
        add(finds, state.name.clone(), "lo", "it is down".into(), ENDS, "interfaces");
    }
    listens(state, target, finds);
}

/// What a service can have wrong by itself.
fn of_service(
    cluster: &Cluster,
    options: &WhyOptions,
    backed: &Backed,
    symptom: &Symptom,
    finds: &mut Vec<Find>,
) -> Result<()> {
    let service = &backed.service;
    let place = format!("svc/{}", service.name);
    if backed.endpoints.is_empty() {
        let what = format!("no pod has {}, so nobody is behind it", labels::joined(&service.selector));
        add(finds, place, "selector", what, ENDS, "");
        return Ok(());
    }
    let port = service.port.map_or(0, |port| port.target_port);
    let pods = || backed.endpoints.iter().filter_map(|endpoint| cluster.pod(&endpoint.pod));
    let hears = |pod: &Pod| {
        let sockets = crate::sockets::listening(pod.containers.kubia_pid).unwrap_or_default();
        sockets.iter().any(|socket| socket.port() == port)
    };
    if !pods().any(hears) {
        let what = format!("it leads to port {port}, on which none of its pods listens");
        add(finds, place.clone(), "target port", what, ENDS, "");
    }
    let known = |to: IpAddr| {
        to == symptom.front.ip() || backed.endpoints.iter().any(|it| IpAddr::V4(it.address) == to)
    };
    if let Some((at, to)) = symptom.targets.iter().find(|(_, to)| !known(to.ip())) {
        let what = format!("rules of {place} lead to {to}, which is none of its pods");
        add(
            finds,
            translator(cluster, options).unwrap_or(at).to_owned(),
            "table ip podlab",
            what,
            ENDS,
            "chains",
        );
    }
    let own = cluster.host(&options.source).filter(|_| service.policy == TrafficPolicy::Cluster);
    let own = own.map(|host| host.address.first);
    let is_kept = |(at, from): &&(String, SocketAddr)| cluster.pod(at).is_some() && Some(from.ip()) == own;
    if let Some(((at, _), own)) = symptom.sources.iter().find(is_kept).zip(own) {
        let entry =
            node_at(cluster, symptom.front.ip()).map_or(place.as_str(), |node| node.space.name.as_str());
        let what =
            format!("rules of {place} keep the source {own}, so {at} answers by another way than {entry}");
        add(finds, entry.to_owned(), "table ip podlab", what, ENDS, "chains");
    }
    let Some(pod) = pods().find(|pod| pod.space.name == options.source) else { return Ok(()) };
    hairpin(cluster, pod, &place, finds)
}

/// The node whose rules a client's packets meet first.
fn translator<'c>(cluster: &'c Cluster, options: &WhyOptions) -> Option<&'c str> {
    cluster.pod(&options.source).map(|pod| cluster.nodes[pod.node].space.name.as_str())
}

/// A pod behind the service reaches itself only if the bridge sends frames back where they came from.
fn hairpin(cluster: &Cluster, pod: &Pod, place: &str, finds: &mut Vec<Find>) -> Result<()> {
    let node = &cluster.nodes[pod.node];
    if !services::view(cluster, pod.node)?.sees_bridged {
        return Ok(());
    }
    let Ok(veth) = crate::look::veth_of(cluster, pod) else { return Ok(()) };
    if veth.port.is_some_and(|port| !port.hairpin) {
        let what = format!("hairpin is off, so {} does not reach itself through {place}", pod.space.name);
        add(finds, node.space.name.clone(), &veth.name, what, ENDS, "interfaces");
    }
    Ok(())
}

/// The place of the last sighting and the one that should have come next.
fn focus(way: &[&Space], symptom: &Symptom) -> Vec<String> {
    let Some((last, direction)) = &symptom.last else { return Vec::new() };
    let Some(at) = way.iter().position(|space| space.name == *last) else { return vec![last.clone()] };
    let next = match direction {
        Way::Request => way.get(at + 1),
        Way::Reply => at.checked_sub(1).and_then(|before| way.get(before)),
    };
    [Some(&way[at]), next].into_iter().flatten().map(|space| space.name.clone()).collect()
}
