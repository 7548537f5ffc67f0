//! Rules from services, as text.

use std::time::SystemTime;

use super::model::{
    Backed, Endpoint, Service, ServicePort, ServiceType, TrafficPolicy, Transport, free_node_port,
    free_service_address,
};
use super::ruleset::{NodeView, ruleset};
use crate::topology::Ranges;

fn node(sees_bridged: bool) -> NodeView {
    NodeView {
        index: 0,
        address: [192, 0, 2, 11].into(),
        pods: "10.244.1.0/24".parse().unwrap(),
        all: "10.244.0.0/16".parse().unwrap(),
        ranges: Ranges::default(),
        sees_bridged,
    }
}

fn kubia(kind: ServiceType, policy: TrafficPolicy, has_affinity: bool, pods: &[(usize, &str)]) -> Backed {
    let endpoint = |(node, address): &(usize, &str)| Endpoint {
        pod: format!("kubia-{address}"),
        node: *node,
        address: address.parse().unwrap(),
    };
    let service = Service {
        name: "kubia-http".into(),
        labels: Default::default(),
        selector: [("run".to_owned(), "kubia".to_owned())].into(),
        kind,
        cluster_ip: Some([10, 96, 0, 11].into()),
        balancer: (kind == ServiceType::LoadBalancer).then_some([198, 51, 100, 1].into()),
        external_name: None,
        port: Some(ServicePort {
            protocol: Transport::Tcp,
            port: 80,
            target_port: 8080,
            node_port: kind.has_node_port().then_some(30080),
        }),
        has_affinity,
        policy,
        created: SystemTime::UNIX_EPOCH,
    };
    Backed { service, endpoints: pods.iter().map(endpoint).collect() }
}

const PODS: [(usize, &str); 3] = [(0, "10.244.1.2"), (1, "10.244.2.2"), (1, "10.244.2.3")];

#[test]
fn a_service_inside_the_cluster() {
    let service = kubia(ServiceType::ClusterIp, TrafficPolicy::Cluster, false, &PODS);
    insta::assert_snapshot!(ruleset(&node(true), &[service]));
}

#[test]
fn a_load_balancer_with_affinity_and_the_local_policy() {
    let service = kubia(ServiceType::LoadBalancer, TrafficPolicy::Local, true, &PODS[..2]);
    insta::assert_snapshot!(ruleset(&node(true), &[service]));
}

#[test]
fn a_node_port_where_bridged_frames_are_not_seen() {
    let service = kubia(ServiceType::NodePort, TrafficPolicy::Cluster, false, &PODS[..1]);
    insta::assert_snapshot!(ruleset(&node(false), &[service]));
}

#[test]
fn a_service_without_endpoints_is_in_no_map() {
    let rules = ruleset(&node(true), &[kubia(ServiceType::ClusterIp, TrafficPolicy::Cluster, false, &[])]);
    let elements: Vec<String> = rules
        .maps
        .iter()
        .flat_map(|map| map.elements.iter().map(|(key, chain)| format!("{key} {chain}")))
        .collect();
    assert_eq!(elements, ["10.96.0.10 . udp . 53 dns"], "{rules}");
    assert!(rules.to_string().contains("ip daddr 10.96.0.0/16 reject"), "{rules}");
}

#[test]
fn without_services_there_are_no_rules_and_for_a_name_only_those_of_dns() {
    assert!(ruleset(&node(true), &[]).chains.is_empty());
    let mut name = kubia(ServiceType::ExternalName, TrafficPolicy::Cluster, false, &[]);
    (name.service.cluster_ip, name.service.port) = (None, None);
    let rules = ruleset(&node(true), &[name]).to_string();
    assert!(rules.contains("dnat to 192.0.2.11:53") && !rules.contains("numgen"), "{rules}");
}

#[test]
fn addresses_and_ports_are_the_first_that_are_free() {
    let mut services = vec![kubia(ServiceType::NodePort, TrafficPolicy::Cluster, false, &[]).service];
    assert_eq!(free_service_address(Ranges::default().services, &services), Some([10, 96, 0, 12].into()));
    assert_eq!((free_node_port(&services), free_node_port(&[])), (Some(30081), Some(30080)));
    services.clear();
    assert_eq!(free_service_address(Ranges::default().services, &services), Some([10, 96, 0, 11].into()));
}
