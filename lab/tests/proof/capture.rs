//! Captures on real namespaces: nothing that went by before the end is missing, and a blind one says so.

use podlab::capture::{Capture, Options};
use podlab::packet::{Content, Nonce, Packet, Transport};
use podlab::probe::{ProbeRequest, Protocol, Word};
use podlab::sighting::{Direction, Flows};

use crate::bed::cluster;

fn request(protocol: Protocol, target: &str) -> ProbeRequest {
    let nonce = Nonce(0x1000 + protocol as u128);
    ProbeRequest {
        nonce,
        protocol,
        target: target.parse().unwrap(),
        timeout_ms: 1000,
        padding: 0,
        source_port: None,
    }
}

#[test]
fn every_protocol_is_answered_and_seen_on_both_ends_of_the_wire() {
    let cluster = cluster(1, 2);
    let capture = Capture::start(cluster.spaces(), |_| true).unwrap();
    let pod = &cluster.pods[0];
    let all = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp];
    let probes = all.map(|p| request(p, "10.244.1.3:8080")).to_vec();
    let outcomes = pod.containers.sidecar.lock().unwrap().probe(probes).unwrap();
    let recording = capture.stop().unwrap();

    assert!(recording.drops.is_empty() && recording.frames as usize >= recording.sightings.len());
    let flows = Flows::of(&recording.sightings);
    for (outcome, protocol) in outcomes.iter().zip(all) {
        assert_eq!(outcome.word, Word::Ok, "{protocol}: {outcome:?}");
        let target = "10.244.1.3:8080".parse().unwrap();
        let flow = flows.get(outcome.nonce, "kubia-1", outcome.local.map(|a| a.port()), target);
        let walk = |list: &[&podlab::sighting::Sighting]| {
            list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        assert_eq!(walk(&flow.request), "kubia-1/eth0 out, node1/veth1 in, node1/veth2 out, kubia-2/eth0 in");
        assert_eq!(walk(&flow.reply), "kubia-2/eth0 out, node1/veth2 in, node1/veth1 out, kubia-1/eth0 in");
        assert_eq!(flow.knock.is_empty(), protocol != Protocol::Tcp);
        assert_eq!(flow.welcome.len(), flow.knock.len());
        if protocol != Protocol::Icmp {
            assert_eq!(
                (outcome.host.as_deref(), outcome.remote),
                (Some("kubia-2"), Some([10, 244, 1, 2].into()))
            );
        }
    }
    let arp = recording.sightings.iter().filter(|s| matches!(s.packet.content, Content::Arp(_)));
    assert!(arp.clone().count() >= 4, "a question and an answer, out and in");
    assert!(
        arp.clone().any(|s| s.direction == Direction::Out)
            && arp.clone().any(|s| s.direction == Direction::In)
    );
}

#[test]
fn arp_is_passed_over_where_it_would_drown_the_probes() {
    let cluster = cluster(1, 2);
    let options = Options { without_arp: true, ..Options::default() };
    let capture = Capture::start_with(cluster.spaces(), options, |_| true).unwrap();
    let probes = vec![request(Protocol::Tcp, "10.244.1.3:8080")];
    let outcomes = cluster.pods[0].containers.sidecar.lock().unwrap().probe(probes).unwrap();
    let recording = capture.stop().unwrap();
    assert_eq!(outcomes[0].word, Word::Ok);
    assert!(recording.sightings.iter().any(|s| matches!(s.packet.content, Content::Ip(_))));
    let arp = recording.sightings.iter().filter(|s| matches!(s.packet.content, Content::Arp(_)));
    assert_eq!(arp.count(), 0, "the two had never heard of each other, so there was some");
}

#[test]
fn silent_wires_make_an_empty_recording() {
    let cluster = cluster(1, 1);
    // A bridge tells multicast routers of itself (IGMP, RFC 4286) when its own clock says so.
    let igmp =
        |packet: &Packet| matches!(&packet.content, Content::Ip(ip) if ip.transport == Transport::Other(2));
    let recording = Capture::start(cluster.spaces(), move |packet| !igmp(packet)).unwrap().stop().unwrap();
    assert!(recording.sightings.is_empty(), "{:?}", recording.sightings);
}

#[test]
fn refused_and_silent_targets_are_told_apart() {
    let cluster = cluster(1, 2);
    let ask = |protocol, target: &str| {
        let mut sidecar = cluster.pods[0].containers.sidecar.lock().unwrap();
        sidecar.probe(vec![request(protocol, target)]).unwrap().remove(0)
    };
    assert_eq!(ask(Protocol::Tcp, "10.244.1.3:81").word, Word::Refused);
    assert_eq!(ask(Protocol::Udp, "10.244.1.3:81").word, Word::Refused);
    let nobody = ask(Protocol::Icmp, "10.244.1.77:0");
    assert_ne!(nobody.word, Word::Ok, "{nobody:?}");
    assert_eq!(nobody.local.map(|a| a.ip()), Some([10, 244, 1, 2].into()));
}

#[test]
fn silent_targets_do_not_hold_up_one_another() {
    let cluster = cluster(1, 1);
    let probes: Vec<_> =
        (2..22).map(|n| request(Protocol::Tcp, &format!("203.0.113.{}:8080", n + 100))).collect();
    let began = std::time::Instant::now();
    let outcomes = cluster.pods[0].containers.sidecar.lock().unwrap().probe(probes).unwrap();
    assert!(outcomes.iter().all(|o| o.word != Word::Ok), "{outcomes:?}");
    assert!(began.elapsed().as_secs() < 8, "one after the other they would take 20 s");
}
