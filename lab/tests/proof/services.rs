//! The rules of services in a real kernel, read back by `nft`, which did not write them.

use std::collections::BTreeSet;
use std::time::SystemTime;

use kernel::{Netns, Nfnl};
use podlab::cluster::{Role, Space};
use podlab::services::apply::apply;
use podlab::services::model::{
    Backed, Endpoint, Service, ServicePort, ServiceType, TrafficPolicy, Transport,
};
use podlab::services::ruleset::{NodeView, Ruleset, ruleset};

use crate::bed::output_of;

fn space() -> Space {
    Space { name: "node1".into(), netns: Netns::create().unwrap(), uts: None, role: Role::Node }
}

fn service(name: &str, number: u8, policy: TrafficPolicy, has_affinity: bool, pods: &[&str]) -> Backed {
    let port = ServicePort {
        protocol: if number.is_multiple_of(2) { Transport::Tcp } else { Transport::Udp },
        port: 80,
        target_port: 8080,
        node_port: Some(30000 + u16::from(number)),
    };
    let endpoint = |address: &&str| Endpoint {
        pod: format!("kubia-{address}"),
        node: usize::from(!address.starts_with("10.244.1.")),
        address: address.parse().unwrap(),
    };
    Backed {
        service: Service {
            name: name.into(),
            labels: Default::default(),
            selector: Default::default(),
            kind: ServiceType::LoadBalancer,
            cluster_ip: Some([10, 96, 0, number].into()),
            balancer: Some([198, 51, 100, number].into()),
            external_name: None,
            port: Some(port),
            has_affinity,
            policy,
            created: SystemTime::UNIX_EPOCH,
        },
        endpoints: pods.iter().map(endpoint).collect(),
    }
}

fn rules(services: &[Backed]) -> Ruleset {
    let node = NodeView {
        index: 0,
        address: [192, 0, 2, 11].into(),
        pods: "10.244.1.0/24".parse().unwrap(),
        all: "10.244.0.0/16".parse().unwrap(),
        ranges: podlab::topology::Ranges::default(),
        sees_bridged: true,
    };
    ruleset(&node, services)
}

fn put(space: &Space, rules: &Ruleset) {
    apply(&mut Nfnl::open_in(&space.netns).unwrap(), rules).unwrap();
}

/// `chain: rule`, and `map: element`, for all there are in the node's table.
fn listed(space: &Space) -> BTreeSet<String> {
    let text = output_of(space, "nft", &["-s", "list", "table", "ip", "podlab"]);
    let mut holder = String::new();
    let mut found = BTreeSet::new();
    for line in text.lines().map(str::trim) {
        match line.split_once(' ') {
            Some(("chain" | "map" | "set", rest)) => holder = rest.trim_end_matches(" {").to_owned(),
            Some(("type" | "flags" | "timeout" | "size" | "table" | "comment", _)) => {}
            None if line != "drop" => {}
            _ => {
                let list =
                    line.trim_start_matches("elements = { ").trim_end_matches(" }").trim_end_matches(',');
                let is_elements = line.starts_with("elements") || line.contains(" : goto ");
                let parts = if is_elements { list.split(", ").collect() } else { vec![line] };
                found.extend(parts.into_iter().map(|part| format!("{holder}: {part}")));
            }
        }
    }
    found
}

/// The same of what was meant.
fn meant(rules: &Ruleset) -> BTreeSet<String> {
    let maps = rules.maps.iter();
    let elements = maps.flat_map(|map| {
        map.elements.iter().map(|(key, chain)| format!("{}: {key} : goto {chain}", map.name))
    });
    let chains = rules.chains.iter();
    let steps = chains.flat_map(|chain| chain.steps.iter().map(|step| format!("{}: {step}", chain.name)));
    elements.chain(steps).collect()
}

#[test]
fn nft_reads_the_rules_that_were_meant() {
    let space = space();
    let (cluster, local) = (TrafficPolicy::Cluster, TrafficPolicy::Local);
    let pods = ["10.244.1.2", "10.244.2.2", "10.244.2.3"];
    let first = [
        service("web", 12, cluster, false, &pods),
        service("sticky", 14, local, true, &pods),
        service("name", 15, cluster, false, &pods[..1]),
        service("far", 16, local, false, &pods[1..]),
        service("empty", 18, cluster, false, &[]),
    ];
    // From nothing, from one ruleset to the next, and to nothing again.
    for services in [&first[..], &first[..2], &first[1..], &first[..1]] {
        let rules = rules(services);
        put(&space, &rules);
        assert_eq!(listed(&space), meant(&rules));
    }
    put(&space, &Ruleset::default());
    assert_eq!(output_of(&space, "nft", &["list", "ruleset"]), "");
}

#[test]
fn a_difference_between_the_rules_is_seen() {
    let space = space();
    let rules = rules(&[service("web", 12, TrafficPolicy::Cluster, false, &["10.244.1.2"])]);
    put(&space, &rules);
    output_of(&space, "nft", &["add", "rule", "ip", "podlab", "services", "drop"]);
    assert_ne!(listed(&space), meant(&rules));
}

#[test]
fn clients_stay_with_their_pod_when_another_comes() {
    let space = space();
    let sticky = |pods: &[&str]| rules(&[service("sticky", 14, TrafficPolicy::Cluster, true, pods)]);
    put(&space, &sticky(&["10.244.1.2", "10.244.2.2"]));
    let set = "affinity/sticky/tcp/80/10.244.2.2";
    output_of(&space, "nft", &["add", "element", "ip", "podlab", set, "{ 10.244.1.9 }"]);
    let is_kept = || output_of(&space, "nft", &["list", "table", "ip", "podlab"]).contains("10.244.1.9");
    put(&space, &sticky(&["10.244.1.2", "10.244.2.2", "10.244.2.3"]));
    assert!(is_kept(), "the client is forgotten");
    put(&space, &sticky(&["10.244.1.2", "10.244.2.3"]));
    assert!(!is_kept(), "the client of a pod that is gone is remembered");
}
