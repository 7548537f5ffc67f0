//! Need 1: every pod has an address of its own, cluster-wide. Judged from what the kernels of the pods say.

use std::net::IpAddr;

use kernel::Family;

use super::judging::Holdings;
use super::plan::Claim;
use super::scene::Scene;
use super::{Check, How};
use crate::cluster::Cluster;
use crate::stack::OneFamily;
use crate::verdict::{Finding, Judgement};

pub(super) const CHECK: Check =
    Check { name: "unique-address", title: "every pod has its own address", plan: How::State(claims) };

fn claims(scene: &Scene<'_>) -> Vec<Claim> {
    let claim = |pod: &super::scene::PodFacts<'_>, family: Family| Claim::OwnAddress {
        pod: pod.name().into(),
        interface: pod.pod.ifname.clone(),
        told: pod.pod.addresses.iter().filter(|ip| Family::of(**ip) == family).copied().collect(),
        family: Some(family).filter(|_| scene.has_both()).map(OneFamily::from),
    };
    let of_pod = |pod| scene.cluster.families().map(move |family| claim(pod, family));
    scene.chosen().flat_map(of_pod).collect()
}

/// The addresses that nodes and hosts outside were given.
pub(super) fn hosts(cluster: &Cluster) -> Vec<(IpAddr, String)> {
    let nodes = cluster.nodes.iter().map(|n| (n.address, &n.space.name));
    let all = nodes.chain(cluster.outside.iter().map(|host| (host.address, &host.space.name)));
    all.flat_map(|(addresses, name)| addresses.iter().map(move |address| (address, name.clone()))).collect()
}

/// Judges a pod, by name, interface and what it was told, from what pods have and nodes and outside were given.
pub(super) fn judge(
    (pod, interface, told): (&str, &str, &[IpAddr]),
    family: Option<Family>,
    holdings: &Holdings,
    hosts: &[(IpAddr, String)],
) -> Judgement {
    let is_meant = |address: &IpAddr| family.is_none_or(|family| Family::of(*address) == family);
    let own = holdings.of_pods.iter().filter(|(name, address)| name == pod && is_meant(address));
    let own: Vec<IpAddr> = own.map(|(_, address)| *address).collect();
    let mut findings = Vec::new();
    if own.is_empty() {
        findings.push(Finding::NoAddress);
    } else if !same_set(&own, told) {
        findings.push(Finding::AddressDiffers { told: list(told), found: list(&own) });
    }
    for address in &own {
        let pods = holdings.of_pods.iter().map(|(name, held)| (held, name));
        let all = pods.chain(hosts.iter().map(|(held, name)| (held, name)));
        let others = all.filter(|(held, name)| *held == address && *name != pod);
        findings
            .extend(others.map(|(_, with)| Finding::AddressShared { address: *address, with: with.clone() }));
    }
    let evidence = match findings.as_slice() {
        [] => format!("{} on {interface}, nobody else's", list(&own)),
        some => some.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
    };
    Judgement { findings, evidence }
}

fn same_set(a: &[IpAddr], b: &[IpAddr]) -> bool {
    a.iter().all(|x| b.contains(x)) && b.iter().all(|x| a.contains(x))
}

fn list(addresses: &[IpAddr]) -> String {
    match addresses {
        [] => "no address".into(),
        some => some.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}
