//! Need 1: every pod has an address of its own, cluster-wide. Judged from what the kernels of the pods say.

use std::collections::HashMap;
use std::net::IpAddr;

use super::scene::{PodFacts, Scene};
use super::{Check, Plan, without_packets};
use crate::cluster::Cluster;
use crate::verdict::{Finding, Judgement, Verdict};

pub(super) const CHECK: Check =
    Check { name: "unique-address", title: "every pod has its own address", plan: Plan::State(state) };

fn state(scene: &Scene<'_>) -> Vec<Verdict> {
    let owners = owners(scene);
    scene.chosen().map(|pod| without_packets(pod.name().into(), judge(pod, &owners))).collect()
}

/// Who has an address: pods by what their interface has, nodes and outside by what they were given.
fn owners<'s>(scene: &Scene<'s>) -> HashMap<IpAddr, Vec<&'s str>> {
    let mut owners: HashMap<IpAddr, Vec<&str>> = HashMap::new();
    let pods = scene.pods.iter().flat_map(|p| p.addresses.iter().map(|a| (*a, p.name())));
    for (address, name) in pods.chain(hosts(scene.cluster)) {
        owners.entry(address).or_default().push(name);
    }
    owners
}

fn hosts(cluster: &Cluster) -> impl Iterator<Item = (IpAddr, &str)> {
    let nodes = cluster.nodes.iter().map(|n| (n.address.into(), n.space.name.as_str()));
    nodes.chain([(cluster.outside.address.into(), cluster.outside.space.name.as_str())])
}

fn judge(pod: &PodFacts<'_>, owners: &HashMap<IpAddr, Vec<&str>>) -> Judgement {
    let mut findings = Vec::new();
    if pod.addresses.is_empty() {
        findings.push(Finding::NoAddress);
    } else if !same_set(&pod.addresses, &pod.pod.addresses) {
        findings
            .push(Finding::AddressDiffers { told: list(&pod.pod.addresses), found: list(&pod.addresses) });
    }
    for address in &pod.addresses {
        let others = owners.get(address).into_iter().flatten().filter(|name| **name != pod.name());
        findings
            .extend(others.map(|with| Finding::AddressShared { address: *address, with: (*with).into() }));
    }
    let evidence = match findings.as_slice() {
        [] => format!("{} on {}, nobody else's", list(&pod.addresses), pod.pod.ifname),
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
