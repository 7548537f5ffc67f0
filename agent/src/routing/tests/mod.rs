//! Plans over topologies: no kernel is asked.

mod refusals;
mod steps;

use std::net::IpAddr;

use insta::assert_snapshot;

use super::*;
use crate::model::Node;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A node that is ready.
pub(crate) fn node(name: &str, cidrs: &[&str], addresses: &[&str]) -> Node {
    Node {
        name: name.to_owned(),
        pod_cidrs: cidrs.iter().map(|it| it.parse().unwrap()).collect(),
        addresses: addresses.iter().map(|it| it.parse().unwrap()).collect(),
        ready: true,
    }
}

/// The node that plans: on eth0, which has index 2.
fn own() -> Node {
    node("n0", &["10.244.0.0/24", "fd00:10:244::/64"], &["172.18.0.10", "fc00:18::10"])
}

/// A machine with loopback, eth0 and eth1, on which each of these addresses is reached so.
fn facts(ways: &[(&str, Way)]) -> Facts {
    let mut facts = Facts::default();
    let link = |name: &str, mtu| Link { name: name.into(), mtu, loses_advertisements: false };
    facts.links.extend([(1, link("lo", 65_536)), (2, link("eth0", 1500)), (3, link("eth1", 9000))]);
    facts.addresses = vec![(1, ip("127.0.0.1")), (2, ip("172.18.0.10")), (2, ip("fc00:18::10"))];
    facts.ways = ways.iter().map(|(address, way)| (ip(address), way.clone())).collect();
    facts
}

fn direct() -> Way {
    Way::Link(2, None)
}

fn behind(router: &str) -> Way {
    Way::Router(ip(router), 2, None)
}

#[test]
fn peers_on_the_same_link_are_reached_at_their_addresses() {
    let nodes = [
        own(),
        node("n1", &["10.244.1.0/24", "fd00:10:244:1::/64"], &["172.18.0.11", "fc00:18::11"]),
        node("n2", &["10.244.2.0/24", "fd00:10:244:2::/64"], &["172.18.0.12", "fc00:18::12"]),
    ];
    let ways = ["172.18.0.11", "172.18.0.12", "fc00:18::11", "fc00:18::12"].map(|it| (it, direct()));
    assert_snapshot!(plan(&nodes[0], &nodes, &facts(&ways)));
}

#[test]
fn peers_behind_a_router_are_reached_through_a_tunnel_of_the_same_version() {
    let nodes = [
        own(),
        node("n1", &["10.244.1.0/24", "fd00:10:244:1::/64"], &["172.18.0.11", "fc00:18::11"]),
        node("n2", &["10.244.2.0/24", "fd00:10:244:2::/64"], &["172.19.0.12", "fc00:19::12"]),
    ];
    let ways = [
        ("172.18.0.11", direct()),
        ("fc00:18::11", direct()),
        ("172.19.0.12", behind("172.18.0.1")),
        ("fc00:19::12", behind("fc00:18::1")),
    ];
    assert_snapshot!(plan(&nodes[0], &nodes, &facts(&ways)));
}

#[test]
fn each_version_goes_its_own_way() {
    let nodes = [
        own(),
        node("n1", &["10.244.1.0/24", "fd00:10:244:1::/64"], &["172.18.0.11", "fc00:19::11"]),
        node("n2", &["fd00:10:244:2::/64"], &["172.18.0.12", "fc00:18::12"]),
        node("n3", &["10.244.3.0/24"], &["fc00:18::13"]),
        node("n4", &[], &["172.18.0.14"]),
        node("n5", &["10.244.5.0/24"], &["172.18.0.15"]),
        node("n6", &["10.244.6.0/24"], &["172.18.0.16"]),
    ];
    let ways = [
        ("172.18.0.11", direct()),
        ("fc00:19::11", behind("fc00:18::1")),
        ("fc00:18::12", direct()),
        ("172.18.0.15", Way::Unreachable("network is unreachable (os error 101)".into())),
    ];
    assert_snapshot!(plan(&nodes[0], &nodes, &facts(&ways)));
}

#[test]
fn pods_of_one_version_need_nothing_of_the_other() {
    let v4 = [
        node("n0", &["10.244.0.0/24"], &["172.18.0.10", "fc00:18::10"]),
        node("n1", &["10.244.1.0/24"], &["172.18.0.11", "fc00:18::11"]),
    ];
    let found = plan(&v4[0], &v4, &facts(&[("172.18.0.11", direct())]));
    assert_eq!((found.peers.len(), found.routes.len(), found.forwards), (1, 1, vec![Family::V4]));
    let v6 = [
        node("n0", &["fd00:10:244::/64"], &["fc00:18::10"]),
        node("n1", &["fd00:10:244:1::/64"], &["fc00:18::11"]),
    ];
    let found = plan(&v6[0], &v6, &facts(&[("fc00:18::11", direct())]));
    assert_eq!((found.peers.len(), found.routes.len(), found.forwards), (1, 1, vec![Family::V6]));
}

#[test]
fn a_node_without_pods_of_its_own_still_reaches_those_of_others() {
    let nodes = [node("n0", &[], &["172.18.0.10"]), node("n1", &["10.244.1.0/24"], &["172.19.0.11"])];
    let found = plan(&nodes[0], &nodes, &facts(&[("172.19.0.11", behind("172.18.0.1"))]));
    assert_snapshot!(found);
}

#[test]
fn the_narrowest_path_is_the_pods_mtu() {
    let mtu = |ways: &[(&str, Way)]| {
        let nodes = [
            own(),
            node("n1", &["10.244.1.0/24"], &["172.18.0.11"]),
            node("n2", &["10.244.2.0/24"], &["172.18.0.12"]),
            node("n3", &["fd00:10:244:3::/64"], &["fc00:18::13"]),
        ];
        let found = plan(&nodes[0], &nodes, &facts(ways));
        (found.mtu, found.tunnels.iter().map(|it| it.mtu).collect::<Vec<_>>())
    };
    let eth1 = |mtu| Way::Link(3, mtu);
    assert_eq!(mtu(&[]), (1500, vec![]));
    assert_eq!(mtu(&[("172.18.0.11", eth1(None))]), (1500, vec![]), "the InternalIP is on eth0");
    assert_eq!(mtu(&[("172.18.0.11", eth1(Some(1400)))]), (1400, vec![]), "the route's own");
    let router = |mtu| Way::Router(ip("172.18.0.1"), 3, mtu);
    let ways = [("172.18.0.11", router(None)), ("172.18.0.12", router(Some(1480)))];
    assert_eq!(mtu(&ways), (1430, vec![8950]), "the tunnel is as wide as its widest path");
    let ways = [("fc00:18::13", behind("fc00:18::1")), ("172.18.0.11", direct())];
    assert_eq!(mtu(&ways), (1430, vec![1430]));
}

#[test]
fn a_path_too_narrow_for_a_tunnel_is_named() {
    let nodes = [own(), node("n1", &["fd00:10:244:1::/64"], &["fc00:19::11"])];
    let way = |mtu| Way::Router(ip("fc00:18::1"), 2, Some(mtu));
    let how = |mtu| plan(&nodes[0], &nodes, &facts(&[("fc00:19::11", way(mtu))])).peers[1].how.to_string();
    assert_eq!(how(1349), "skipped: a tunnel over an MTU of 1349 has 1279, and IPv6 needs 1280");
    assert_eq!(how(1350), "behind router fc00:18::1 on eth0, by VXLAN");
}

#[test]
fn routers_are_still_listened_to_when_the_node_becomes_one() {
    let nodes = [own()];
    let mut facts = facts(&[]);
    facts.links.get_mut(&2).unwrap().loses_advertisements = true;
    facts.links.get_mut(&3).unwrap().loses_advertisements = true;
    assert_eq!(plan(&nodes[0], &nodes, &facts).advertised, ["eth0"]);
    let v4 = node("n0", &["10.244.0.0/24"], &["172.18.0.10"]);
    assert!(plan(&v4, [], &facts).advertised.is_empty(), "without IPv6 pods it forwards none");
}

#[test]
fn what_is_wrong_with_the_node_itself_is_told() {
    let nodes = [node("n0", &["10.244.0.0/31"], &["172.18.0.99"]), node("n1", &[], &[])];
    let found = plan(&nodes[0], &nodes, &facts(&[]));
    assert_eq!(
        found.trouble,
        [
            "the PodCIDR 10.244.0.0/31 has no room for pods",
            "no link of this machine has its InternalIP 172.18.0.99"
        ]
    );
    let found = plan(&nodes[1], &nodes, &facts(&[]));
    assert_eq!(found.trouble, ["node n1 has no PodCIDR (does the controller manager allocate node CIDRs?)"]);
}

#[test]
fn the_plan_does_not_depend_on_the_order_of_nodes_nor_on_host_bits() {
    let nodes = [
        own(),
        node("n1", &["10.244.1.7/24"], &["172.18.0.11"]),
        node("n2", &["10.244.2.0/24"], &["172.19.0.12"]),
    ];
    let facts = facts(&[("172.18.0.11", direct()), ("172.19.0.12", behind("172.18.0.1"))]);
    let found = plan(&nodes[0], &nodes, &facts);
    assert_eq!(found, plan(&nodes[0], nodes.iter().rev(), &facts));
    assert!(found.routes.iter().any(|it| it.dst == "10.244.1.0/24".parse().unwrap()));
}

#[test]
fn ends_of_tunnels_have_local_unicast_addresses_of_their_own() {
    let names = ["n0", "n1", "kind-worker", "kind-worker2"];
    let macs: std::collections::HashSet<Mac> = names.iter().map(|it| tunnel_mac(it)).collect();
    assert_eq!(macs.len(), names.len());
    assert!(macs.iter().all(|it| it.0[0] & 3 == 2), "{macs:?}");
    assert_eq!(tunnel_mac("n0"), tunnel_mac("n0"));
}

#[test]
fn gateways_are_first_addresses() {
    let of = |text: &str| gateway(text.parse().unwrap()).map(|it| it.to_string());
    assert_eq!(of("10.244.3.0/24").as_deref(), Some("10.244.3.1"));
    assert_eq!(of("10.244.3.9/24").as_deref(), Some("10.244.3.1"));
    assert_eq!(of("fd00:10:244:3::/64").as_deref(), Some("fd00:10:244:3::1"));
    assert_eq!((of("10.0.0.0/31"), of("fd00::/127")), (None, None));
}
