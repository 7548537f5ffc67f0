//! The judges on hand-made sightings: one test for each way to PASS, FAIL and ERROR.
//!
//! ```text
//!  kubia-1/eth0 ─ veth1 [cni0] node1/eth0 ─ port1 [lan0] port2 ─ node2/eth0 [cni0] veth3 ─ kubia-3/eth0
//!  10.244.1.2            TTL 64→63                       63→62                        10.244.2.2
//! ```

use kernel::Mac;

use super::*;
use crate::kubia::Visit;
use crate::packet::{MARK, Nonce};
use crate::probe::{ProbeOutcome, Word};
use crate::sighting::tests::{ip_mut, seen, spot};
use crate::sighting::{Direction, Flow, Sighting};

const CLIENT: &str = "10.244.1.2:40000";
const SERVER: &str = "10.244.2.2:8080";
const NODE: &str = "192.0.2.11:1024";
pub(super) const WALK: [(&str, u8); 10] = [
    ("kubia-1/eth0 out", 64),
    ("node1/veth1 in", 64),
    ("node1/cni0 in", 64),
    ("node1/eth0 out", 63),
    ("fabric/port1 in", 63),
    ("fabric/port2 out", 63),
    ("node2/eth0 in", 63),
    ("node2/cni0 out", 62),
    ("node2/veth3 out", 62),
    ("kubia-3/eth0 in", 62),
];

fn is(name: &str) -> Interface {
    Interface::Is(name.into())
}

fn path(from: (&str, &str), to: (&str, &str)) -> Path {
    use Direction::{In, Out};
    Path(vec![
        Stage::at(from.0, is("eth0"), 0).required(Out),
        Stage::at(from.1, is("eth0"), 1).required(Out),
        Stage::at(from.1, Interface::IsNot("eth0".into()), 0),
        Stage::at("fabric", Interface::Any, 1),
        Stage::at(to.1, is("eth0"), 1).required(In),
        Stage::at(to.1, Interface::IsNot("eth0".into()), 2),
        Stage::at(to.0, is("eth0"), 2).required(In),
    ])
}

fn journey() -> Journey {
    Journey {
        client_name: "kubia-1".into(),
        client: [10, 244, 1, 2].into(),
        server: SERVER.parse().unwrap(),
        server_name: "kubia-3".into(),
        there: path(("kubia-1", "node1"), ("kubia-3", "node2")),
        back: path(("kubia-3", "node2"), ("kubia-1", "node1")),
        macs: None,
        may_become: None,
        sealed: None,
    }
}

/// All that is known of one probe, to be spoilt by a test.
pub(super) struct Case {
    pub(super) journey: Journey,
    outcome: ProbeOutcome,
    pub(super) knock: Vec<Sighting>,
    welcome: Vec<Sighting>,
    pub(super) request: Vec<Sighting>,
    pub(super) reply: Vec<Sighting>,
    visit: Option<Visit>,
    drops: u64,
    pub(super) seals: Seals,
}

pub(super) fn good() -> Case {
    let request =
        WALK.iter().zip(1..).map(|(&(at, ttl), t)| seen(at, t, CLIENT, SERVER, ttl, "GET")).collect();
    let turned = |at: &str| match at.strip_suffix(" in") {
        Some(name) => format!("{name} out"),
        None => at.replace(" out", " in"),
    };
    // The reply takes the same way, so the TTLs count down from the other end.
    let back = WALK.iter().rev().map(|&(at, _)| at).zip(WALK.iter().map(|&(_, ttl)| ttl));
    let reply =
        back.zip(20..).map(|((at, ttl), t)| seen(&turned(at), t, SERVER, CLIENT, ttl, "HTTP/1.1 200"));
    Case {
        journey: journey(),
        outcome: ProbeOutcome {
            nonce: Nonce(1),
            word: Word::Ok,
            detail: None,
            local: Some(CLIENT.parse().unwrap()),
            host: Some("kubia-3".into()),
            remote: None,
            micros: 300,
        },
        knock: Vec::new(),
        welcome: Vec::new(),
        request,
        reply: reply.collect(),
        visit: Some(Visit { remote: [10, 244, 1, 2].into(), port: 40000 }),
        drops: 0,
        seals: Seals::default(),
    }
}

impl Case {
    pub(super) fn judged(&self) -> (Ruling, Vec<Finding>, String) {
        let flow = Flow {
            knock: self.knock.iter().collect(),
            welcome: self.welcome.iter().collect(),
            request: self.request.iter().collect(),
            reply: self.reply.iter().collect(),
        };
        let evidence = Evidence {
            outcome: &self.outcome,
            flow,
            visit: self.visit,
            drops: self.drops,
            seals: &self.seals,
        };
        let judgement = judge(&self.journey, &evidence);
        (judgement.ruling(), judgement.findings, judgement.evidence)
    }

    /// The only finding, which makes the verdict `ruling`.
    pub(super) fn finding(&self, ruling: Ruling) -> String {
        let (found, findings, evidence) = self.judged();
        assert_eq!((found, findings.len()), (ruling, 1), "{evidence}");
        evidence
    }

    /// Rewrites the source of what is seen from place `from` to before place `to` of the walk.
    fn masquerade(&mut self, places: std::ops::Range<usize>) {
        for s in &mut self.request[places] {
            readdress(s, NODE, SERVER);
        }
    }
}

fn readdress(s: &mut Sighting, from: &str, to: &str) {
    let fresh = seen("x/x in", 0, from, to, 0, "");
    let (old, new) = (ip_mut(s), fresh.packet.ip().unwrap());
    (old.source, old.target, old.transport) = (new.source, new.target, new.transport);
}

#[test]
fn untouched_walk_passes() {
    let (ruling, findings, evidence) = good().judged();
    assert_eq!((ruling, findings), (Ruling::Pass, vec![]));
    assert_eq!(evidence, "tuple and payload kept at 4 of 4 points (20 sightings), TTL 64→63→62");
}

#[test]
fn rewritten_source_fails_though_everything_answers() {
    let mut case = good();
    case.masquerade(3..10);
    case.visit = Some(Visit { remote: [192, 0, 2, 11].into(), port: 1024 });
    let (ruling, findings, evidence) = case.judged();
    assert_eq!(ruling, Ruling::Fail);
    assert!(matches!(&findings[0], Finding::SourceRewritten { at, .. } if at == "node1/eth0 out"));
    assert_eq!(
        evidence,
        "NAT: source 10.244.1.2:40000 became 192.0.2.11:1024 at node1/eth0 out; \
         kubia-3 logged 192.0.2.11, not the client's own 10.244.1.2"
    );
}

#[test]
fn source_rewritten_and_put_back_fails() {
    let mut case = good();
    case.masquerade(3..7);
    assert!(case.finding(Ruling::Fail).starts_with("NAT: source 10.244.1.2:40000 became 192.0.2.11:1024"));
}

#[test]
fn rewritten_destination_fails() {
    let mut case = good();
    for s in &mut case.request[..3] {
        readdress(s, CLIENT, "10.96.0.10:8080");
    }
    assert_eq!(
        case.finding(Ruling::Fail),
        "NAT: destination 10.244.2.2:8080 became 10.96.0.10:8080 at kubia-1/eth0 out"
    );
}

#[test]
fn rewritten_ports_fail() {
    let mut case = good();
    for s in &mut case.request[3..] {
        readdress(s, "10.244.1.2:61001", SERVER);
    }
    assert_eq!(case.finding(Ruling::Fail), "NAT: source port 40000 became 61001 at node1/eth0 out");
    let mut case = good();
    for s in &mut case.request[6..] {
        readdress(s, CLIENT, "10.244.2.2:80");
    }
    assert_eq!(case.finding(Ruling::Fail), "NAT: destination port 8080 became 80 at node2/eth0 in");
}

#[test]
fn ttl_off_by_one_fails_either_way() {
    for (place, ttl) in [(3, 64), (3, 62), (9, 63), (9, 61)] {
        let mut case = good();
        ip_mut(&mut case.request[place]).ttl = ttl;
        let text = case.finding(Ruling::Fail);
        assert_eq!(
            text,
            format!("the TTL of the request is {ttl} at {}, not {}", WALK[place].0, WALK[place].1)
        );
    }
    let mut case = good();
    ip_mut(&mut case.reply[9]).ttl = 61;
    assert_eq!(case.finding(Ruling::Fail), "the TTL of the reply is 61 at kubia-1/eth0 in, not 62");
}

#[test]
fn differing_payload_fails() {
    let mut case = good();
    let ip = ip_mut(&mut case.request[9]);
    ip.payload = [&ip.payload[..], b"!"].concat().into();
    assert_eq!(case.finding(Ruling::Fail), "the payload of the request differs at kubia-3/eth0 in");
}

#[test]
fn another_ip_id_fails() {
    let mut case = good();
    ip_mut(&mut case.request[6]).id = Some(1);
    assert_eq!(case.finding(Ruling::Fail), "the IP id of the request 0x7f3a became 0x0001 at node2/eth0 in");
}

#[test]
fn another_flow_label_or_a_fragment_fails() {
    let mut case = good();
    ip_mut(&mut case.request[6]).label = Some(1);
    let words = "the flow label of the request 0x00000 became 0x00001 at node2/eth0 in";
    assert_eq!(case.finding(Ruling::Fail), words);
    let mut case = good();
    ip_mut(&mut case.request[6]).is_fragment = true;
    assert_eq!(case.finding(Ruling::Fail), "the request is in fragments at node2/eth0 in");
}

#[test]
fn nat_hidden_on_the_return_path_fails() {
    let mut case = good();
    // node2 answers in its own name and node1 makes it the pod's again.
    for s in &mut case.reply[3..7] {
        readdress(s, "192.0.2.12:8080", CLIENT);
    }
    assert_eq!(
        case.finding(Ruling::Fail),
        "NAT: the reply is 192.0.2.12:8080 > 10.244.1.2:40000 at node2/eth0 out, \
         not 10.244.2.2:8080 > 10.244.1.2:40000"
    );
}

#[test]
fn log_that_names_another_address_fails() {
    let mut case = good();
    case.visit = Some(Visit { remote: [10, 244, 2, 1].into(), port: 40000 });
    assert_eq!(case.finding(Ruling::Fail), "kubia-3 logged 10.244.2.1, not the client's own 10.244.1.2");
}

#[test]
fn request_that_was_not_logged_is_an_error() {
    let mut case = good();
    case.visit = None;
    assert_eq!(case.finding(Ruling::Error), "kubia-3 did not log the request");
}

#[test]
fn answer_of_another_host_fails() {
    let mut case = good();
    case.outcome.host = Some("kubia-4".into());
    assert_eq!(case.finding(Ruling::Fail), "\"kubia-4\" answered instead of \"kubia-3\"");
}

#[test]
fn walk_with_a_gap_is_an_error() {
    let mut case = good();
    case.request.retain(|s| s.at.space != "node2");
    assert_eq!(case.finding(Ruling::Error), "request seen at 3 of 4 points, not at node2/eth0 in");
    let mut case = good();
    case.reply.clear();
    assert!(case.finding(Ruling::Error).starts_with("reply seen at 0 of 4 points, not at kubia-3/eth0 out"));
}

#[test]
fn probe_without_any_packet_is_an_error_whatever_it_says() {
    for (word, detail) in
        [(Word::Ok, None), (Word::Timeout, None), (Word::Other, Some("network is unreachable"))]
    {
        let mut case = good();
        case.request.clear();
        case.reply.clear();
        (case.outcome.word, case.outcome.detail) = (word, detail.map(Into::into));
        let said = case.outcome.words();
        assert_eq!(
            case.finding(Ruling::Error),
            format!("no packet of the probe was seen; the probe says {said}")
        );
    }
    let mut case = good();
    case.knock = std::mem::take(&mut case.request);
    assert!(case.finding(Ruling::Error).starts_with("no packet of the probe was seen"));
}

#[test]
fn lost_frames_are_an_error() {
    let mut case = good();
    case.drops = 3;
    assert_eq!(case.finding(Ruling::Error), "the capture lost 3 frames");
    case.masquerade(3..10);
    assert_eq!(case.judged().0, Ruling::Fail, "what was seen is wrong all the same");
}

#[test]
fn probe_without_answer_fails_and_names_the_last_sighting() {
    let mut case = good();
    (case.outcome.word, case.outcome.host) = (Word::Timeout, None);
    case.knock = case.request.drain(..4).collect();
    (case.request, case.reply) = (Vec::new(), Vec::new());
    assert_eq!(case.finding(Ruling::Fail), "reachability: TIMEOUT, SYN last seen at node1/eth0 out");
    case.welcome = good().reply.drain(..3).collect();
    assert_eq!(case.finding(Ruling::Fail), "reachability: TIMEOUT, SYN-ACK last seen at node2/cni0 in");
    case.request = good().request;
    assert_eq!(case.finding(Ruling::Fail), "reachability: TIMEOUT, request last seen at kubia-3/eth0 in");
    case.outcome.word = Word::Refused;
    assert!(case.finding(Ruling::Fail).starts_with("reachability: REFUSED, "));
}

#[test]
fn copies_that_a_switch_flooded_elsewhere_do_not_matter() {
    let mut case = good();
    case.request.push(seen("node3/eth0 in", 6, CLIENT, SERVER, 63, "GET"));
    assert_eq!(case.judged().0, Ruling::Pass);
}

#[test]
fn retransmitted_request_passes_by_the_one_that_arrived() {
    let mut case = good();
    let mut lost = seen("kubia-1/eth0 out", 0, CLIENT, SERVER, 64, "GET");
    ip_mut(&mut lost).id = Some(1);
    case.request.insert(0, lost);
    assert_eq!(case.judged().0, Ruling::Pass);
}

fn egress() -> Case {
    let mut case = good();
    case.journey.may_become = Some([192, 0, 2, 11].into());
    for (path, at) in [(&mut case.journey.there, 1), (&mut case.journey.back, 4)] {
        for (i, stage) in path.0.iter_mut().enumerate() {
            // From node1's uplink on, whichever way the path goes.
            stage.is_outer = match at {
                1 => i == 1 || i >= 3,
                _ => i <= at,
            };
        }
    }
    case
}

#[test]
fn egress_may_keep_its_source() {
    assert_eq!(egress().judged().0, Ruling::Pass);
}

#[test]
fn egress_may_carry_the_nodes_address_beyond_the_uplink_only() {
    let masqueraded = || {
        let mut case = egress();
        case.masquerade(3..10);
        for s in &mut case.reply[..7] {
            readdress(s, SERVER, NODE);
        }
        case.visit = Some(Visit { remote: [192, 0, 2, 11].into(), port: 1024 });
        case
    };
    let (ruling, _, evidence) = masqueraded().judged();
    assert_eq!(ruling, Ruling::Pass, "{evidence}");
    assert_eq!(
        evidence,
        "SNAT to 192.0.2.11 at node1/eth0 only (expected), seen at 4 of 4 points, TTL 64→63→62"
    );
    let mut early = masqueraded();
    early.masquerade(2..10);
    assert!(early.finding(Ruling::Fail).ends_with("at node1/cni0 in"));
    let mut undone_late = masqueraded();
    readdress(&mut undone_late.reply[7], SERVER, NODE);
    assert!(undone_late.finding(Ruling::Fail).starts_with("NAT: the reply is"));
    let mut stranger = egress();
    for s in &mut stranger.request[3..] {
        readdress(s, "192.0.2.99:1024", SERVER);
    }
    assert!(stranger.finding(Ruling::Fail).starts_with("NAT: source"));
}

#[test]
fn switched_path_must_keep_ttl_and_both_macs() {
    let (client, server) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
    let walk = |from: &str, to: &str| {
        use Direction::{In, Out};
        let node = || Stage::at("node1", Interface::Any, 0);
        Path(vec![
            Stage::at(from, is("eth0"), 0).required(Out),
            node().required(In),
            node().required(Out),
            Stage::at(to, is("eth0"), 0).required(In),
        ])
    };
    let there = ["kubia-1/eth0 out", "node1/veth1 in", "node1/veth2 out", "kubia-2/eth0 in"];
    let back = ["kubia-2/eth0 out", "node1/veth2 in", "node1/veth1 out", "kubia-1/eth0 in"];
    let mut case = good();
    case.outcome.host = Some("kubia-2".into());
    case.journey = Journey {
        server_name: "kubia-2".into(),
        there: walk("kubia-1", "kubia-2"),
        back: walk("kubia-2", "kubia-1"),
        macs: Some((client, server)),
        ..journey()
    };
    case.request = there.iter().zip(1..).map(|(at, t)| seen(at, t, CLIENT, SERVER, 64, "GET")).collect();
    case.reply = back.iter().zip(9..).map(|(at, t)| seen(at, t, SERVER, CLIENT, 64, "HTTP/1.1")).collect();
    for s in &mut case.reply {
        (s.packet.source_mac, s.packet.target_mac) = (server, client);
    }
    let (ruling, _, evidence) = case.judged();
    assert_eq!(ruling, Ruling::Pass, "{evidence}");
    assert_eq!(evidence, "tuple, payload and both MACs kept at 4 of 4 points (8 sightings), TTL 64→64");
    ip_mut(&mut case.request[3]).ttl = 63;
    assert_eq!(case.finding(Ruling::Fail), "the TTL of the request is 63 at kubia-2/eth0 in, not 64");
    ip_mut(&mut case.request[3]).ttl = 64;
    case.reply[2].packet.source_mac = Mac([2, 0, 0, 0, 0, 9]);
    assert_eq!(
        case.finding(Ruling::Fail),
        "the reply has MAC addresses 02:00:00:00:00:09 > 02:00:00:00:00:01 at node1/veth1 out, \
         not 02:00:00:00:00:02 > 02:00:00:00:00:01"
    );
}

fn on_localhost(edit: impl FnOnce(&mut Case, &mut Localhost)) -> (Ruling, String) {
    let (from, to) = ("127.0.0.1:40000", "127.0.0.1:8080");
    let mut case = good();
    case.outcome.local = Some(from.parse().unwrap());
    case.visit = Some(Visit { remote: [127, 0, 0, 1].into(), port: 40000 });
    case.request = ["out", "in"].map(|d| seen(&format!("kubia-3/lo {d}"), 1, from, to, 64, MARK)).to_vec();
    case.reply =
        ["out", "in"].map(|d| seen(&format!("kubia-3/lo {d}"), 2, to, from, 64, "HTTP/1.1")).to_vec();
    let mut expected = Localhost { pod: "kubia-3".into(), strangers: Vec::new() };
    edit(&mut case, &mut expected);
    let flow = Flow {
        knock: case.knock.iter().collect(),
        request: case.request.iter().collect(),
        reply: case.reply.iter().collect(),
        ..Flow::default()
    };
    let evidence =
        Evidence { outcome: &case.outcome, flow, visit: case.visit, drops: case.drops, seals: &case.seals };
    let judgement = judge_localhost(&expected, &evidence);
    (judgement.ruling(), judgement.evidence)
}

#[test]
fn localhost_passes_on_lo_alone() {
    let (ruling, evidence) = on_localhost(|_, _| {});
    assert_eq!(ruling, Ruling::Pass, "{evidence}");
    assert_eq!(evidence, "request and reply on lo only, 0 frames on eth0, one network namespace");
}

#[test]
fn localhost_fails_when_a_frame_leaves_or_a_container_is_elsewhere() {
    let (ruling, evidence) = on_localhost(|case, _| case.request[0].at = spot("kubia-3/eth0"));
    assert_eq!((ruling, &*evidence), (Ruling::Fail, "a packet for localhost was seen at kubia-3/eth0 out"));
    let (ruling, evidence) = on_localhost(|_, expected| expected.strangers.push("sidecar".into()));
    let text = "container \"sidecar\" is not in the pod's network namespace";
    assert_eq!((ruling, &*evidence), (Ruling::Fail, text));
    let (ruling, evidence) = on_localhost(|case, _| {
        case.outcome.word = Word::Refused;
        case.knock = std::mem::take(&mut case.request);
        case.reply.clear();
    });
    assert_eq!((ruling, &*evidence), (Ruling::Fail, "reachability: REFUSED, SYN last seen at kubia-3/lo in"));
}

#[test]
fn localhost_without_packets_is_an_error() {
    for word in [Word::Ok, Word::Timeout] {
        let (ruling, evidence) = on_localhost(|case, _| {
            case.outcome.word = word;
            case.request.clear();
            case.reply.clear();
        });
        assert_eq!(ruling, Ruling::Error, "{evidence}");
    }
}
