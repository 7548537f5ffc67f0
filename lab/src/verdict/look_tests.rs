//! What must be around a packet between nodes, and the finding when it is not.

use std::net::{IpAddr, Ipv4Addr};

use super::tests::{Case, good};
use super::*;
use crate::cluster::Role;
use crate::encap::Outer;
use crate::packet::Transport;
use crate::sighting::Sighting;
use crate::sighting::tests::{ip_mut, seen};

const LOOK: Look = Look::Vxlan {
    vni: 1,
    port: 8472,
    from: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 11)),
    to: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 12)),
};

fn outer(vni: u32, target: &str) -> Option<Outer> {
    Some(Outer {
        vni,
        source: "192.0.2.11:50000".parse().unwrap(),
        target: target.parse().unwrap(),
        overhead: 50,
    })
}

/// The request is in VXLAN from uplink to uplink, and has to be.
fn packed() -> Case {
    let mut case = good();
    for stage in &mut case.journey.there.0[1..5] {
        let is_wire = stage.interface != Interface::IsNot("eth0".into());
        stage.look = if is_wire { LOOK } else { Look::Plain };
    }
    for s in &mut case.request[3..7] {
        s.packet.outer = outer(1, "192.0.2.12:8472");
    }
    case
}

#[test]
fn packed_walk_passes_and_says_what_it_was_in() {
    let (ruling, _, evidence) = packed().judged();
    assert_eq!(ruling, Ruling::Pass, "{evidence}");
    assert!(
        evidence.ends_with("TTL 64→63→62, in VXLAN 1 192.0.2.11 > 192.0.2.12:8472 on the wire"),
        "{evidence}"
    );
}

#[test]
fn another_number_port_or_node_around_the_packet_fails() {
    for (vni, target) in [(2, "192.0.2.12:8472"), (1, "192.0.2.12:4789"), (1, "192.0.2.13:8472")] {
        let mut case = packed();
        case.request[4].packet.outer = outer(vni, target);
        let evidence = case.finding(Ruling::Fail);
        let expected = format!(
            "the request is in VXLAN {vni} 192.0.2.11 > {target} at fabric/port1 in, not in VXLAN 1 192.0.2.11 > 192.0.2.12:8472"
        );
        assert_eq!(evidence, expected);
    }
}

#[test]
fn plain_packet_fails_where_a_tunnel_must_be_and_a_tunnel_where_none_must() {
    let mut case = packed();
    case.request[3].packet.outer = None;
    let evidence = case.finding(Ruling::Fail);
    assert!(evidence.starts_with("the request is plain at node1/eth0 out, not in VXLAN 1"), "{evidence}");
    let mut case = good();
    case.reply[4].packet.outer = outer(1, "192.0.2.12:8472");
    let evidence = case.finding(Ruling::Fail);
    assert!(evidence.starts_with("the reply is in VXLAN 1") && evidence.ends_with("not plain"), "{evidence}");
}

/// The request and the reply cross the wire encrypted: no sighting between the uplinks, but ESP there.
fn sealed() -> Case {
    let mut case = good();
    let node = |name: &str, address: [u8; 4]| (name.to_owned(), IpAddr::from(address));
    case.journey.sealed = Some([node("node1", [192, 0, 2, 11]), node("node2", [192, 0, 2, 12])]);
    for path in [&mut case.journey.there, &mut case.journey.back] {
        for stage in &mut path.0[1..5] {
            if stage.interface != Interface::IsNot("eth0".into()) {
                (stage.look, stage.is_required) = (Look::Sealed, false);
            }
        }
    }
    let is_wire =
        |s: &Sighting| s.at.interface == "eth0" && s.at.role == Role::Node || s.at.role == Role::Fabric;
    let mut esp = Vec::new();
    for list in [&mut case.request, &mut case.reply] {
        let (wire, rest): (Vec<_>, Vec<_>) = list.drain(..).partition(is_wire);
        *list = rest;
        esp.extend(wire.into_iter().map(encrypted));
    }
    case.seals = Seals::of(&esp);
    case
}

/// What stands in the place of a packet between the nodes.
fn encrypted(mut s: Sighting) -> Sighting {
    let ip = ip_mut(&mut s);
    let node =
        |pod: IpAddr| if pod == IpAddr::from([10, 244, 1, 2]) { [192, 0, 2, 11] } else { [192, 0, 2, 12] };
    (ip.source, ip.target) = (node(ip.source).into(), node(ip.target).into());
    (ip.transport, ip.payload) = (Transport::Other(50), [0, 0, 0, 7, 0, 0, 0, 1, 9, 9].into());
    s
}

#[test]
fn encrypted_walk_passes_on_what_was_seen_before_and_after() {
    let (ruling, _, evidence) = sealed().judged();
    assert_eq!(ruling, Ruling::Pass, "{evidence}");
    assert!(evidence.ends_with(", encrypted on the wire"), "{evidence}");
}

#[test]
fn clear_text_between_encrypting_nodes_fails_in_request_and_handshake() {
    let clear = || seen("fabric/port1 in", 5, "10.244.1.2:40000", "10.244.2.2:8080", 63, "GET");
    let mut case = sealed();
    case.request.insert(3, clear());
    assert_eq!(case.finding(Ruling::Fail), "the request is plain at fabric/port1 in, not encrypted");
    let mut case = sealed();
    case.knock.push(clear());
    assert_eq!(case.finding(Ruling::Fail), "the request is plain at fabric/port1 in, not encrypted");
}

#[test]
fn arrival_without_an_encrypted_packet_is_an_error() {
    let mut case = sealed();
    case.seals = Seals::default();
    let (ruling, findings, evidence) = case.judged();
    assert_eq!((ruling, findings.len()), (Ruling::Error, 2), "{evidence}");
    let told = "no encrypted packet for the request was seen at node1/eth0 out, node2/eth0 in";
    assert!(evidence.starts_with(told), "{evidence}");
}
