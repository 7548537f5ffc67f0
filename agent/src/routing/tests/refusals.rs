//! Nodes that say what cannot be: refused by name, the others served.

use super::*;

fn served(plan: &Plan) -> Vec<&str> {
    plan.peers.iter().filter(|it| it.how.is_served()).map(|it| it.node.as_str()).collect()
}

/// The refused peers with the reasons.
fn refused(plan: &Plan) -> Vec<String> {
    let refused = |it: &&Peer| matches!(it.how, How::Refused(_));
    plan.peers.iter().filter(refused).map(|it| format!("{} {}", it.node, it.how)).collect()
}

/// The plan of a node with 10.244.0.0/24 at 172.18.0.10 among these, which are all on its link.
fn plan_of(peers: &[Node]) -> Plan {
    let own = node("n0", &["10.244.0.0/24"], &["172.18.0.10"]);
    let mut facts = facts(&[]);
    for address in peers.iter().flat_map(|it| &it.addresses) {
        facts.ways.insert(*address, direct());
    }
    plan(&own, peers, &facts)
}

#[test]
fn two_nodes_with_one_pod_cidr_are_refused_and_the_others_served() {
    let plan = plan_of(&[
        node("n1", &["10.244.1.0/24"], &["172.18.0.11"]),
        node("n2", &["10.244.2.0/24"], &["172.18.0.12"]),
        node("twin", &["10.244.1.0/24"], &["172.18.0.13"]),
    ]);
    assert_eq!(served(&plan), ["n2"]);
    assert_eq!(
        refused(&plan),
        [
            "n1 refused: its PodCIDR 10.244.1.0/24 overlaps 10.244.1.0/24 of node twin",
            "twin refused: its PodCIDR 10.244.1.0/24 overlaps 10.244.1.0/24 of node n1",
        ]
    );
    assert_eq!(plan.routes.len(), 1, "nothing of the refused is in the kernel");
}

#[test]
fn a_range_within_or_around_another_is_refused_too() {
    let plan = plan_of(&[
        node("around", &["10.244.8.0/21"], &["172.18.0.11"]),
        node("after", &["10.244.16.0/24"], &["172.18.0.12"]),
        node("within", &["10.244.9.0/24"], &["172.18.0.13"]),
        node("also", &["10.244.10.0/24"], &["172.18.0.14"]),
    ]);
    assert_eq!(served(&plan), ["after"]);
    assert_eq!(refused(&plan).len(), 3);
}

#[test]
fn a_range_that_overlaps_this_nodes_own_is_refused() {
    for cidr in ["10.244.0.0/24", "10.244.0.128/25", "10.244.0.0/16"] {
        let plan = plan_of(&[
            node("thief", &[cidr], &["172.18.0.11"]),
            node("n2", &["10.9.2.0/24"], &["172.18.0.12"]),
        ]);
        assert_eq!(served(&plan), ["n2"]);
        let reason = format!("thief refused: its PodCIDR {cidr} overlaps this node's 10.244.0.0/24");
        assert_eq!(refused(&plan), [reason]);
    }
}

#[test]
fn a_range_that_contains_a_nodes_address_is_refused() {
    let plan = plan_of(&[
        node("wide", &["172.18.0.0/24"], &["172.18.0.11"]),
        node("far", &["192.0.2.0/24"], &["172.18.0.12"]),
        node("n3", &["10.244.3.0/24"], &["192.0.2.9"]),
    ]);
    assert_eq!(served(&plan), ["n3"]);
    assert_eq!(
        refused(&plan),
        [
            "far refused: its PodCIDR 192.0.2.0/24 contains 192.0.2.9, an address of node n3",
            "wide refused: its PodCIDR 172.18.0.0/24 contains 172.18.0.10, an address of this node's eth0",
        ]
    );
}

#[test]
fn one_address_of_two_nodes_is_refused() {
    let plan = plan_of(&[
        node("n1", &["10.244.1.0/24"], &["172.18.0.11"]),
        node("n2", &["10.244.2.0/24"], &["172.18.0.11"]),
        node("n3", &["10.244.3.0/24"], &["172.18.0.10"]),
        node("n4", &["10.244.4.0/24"], &["172.18.0.14"]),
    ]);
    assert_eq!(served(&plan), ["n4"]);
    assert_eq!(
        refused(&plan),
        [
            "n1 refused: its InternalIP 172.18.0.11 is that of node n2 too",
            "n2 refused: its InternalIP 172.18.0.11 is that of node n1 too",
            "n3 refused: its InternalIP 172.18.0.10 is that of node n0 too",
        ]
    );
}

#[test]
fn an_address_of_this_machine_is_no_peers() {
    let nodes = [own(), node("n1", &["10.244.1.0/24"], &["192.0.2.1"])];
    let found = plan(&nodes[0], &nodes, &facts(&[("192.0.2.1", Way::Own)]));
    assert_eq!(refused(&found), ["n1 refused: its InternalIP 192.0.2.1 is one of this machine's"]);
    assert!(found.routes.is_empty());
}
