//! The verdicts on services, on hand-made sightings.
//!
//! ```text
//!  kubia-1/eth0 ─ veth1 [cni0] node1/eth0 ─ … ─ node2/eth0 ─ kubia-3/eth0
//!  asks 10.96.0.11:80      DNAT here                         10.244.2.2:8080
//! ```

use super::*;
use crate::kubia::Visit;
use crate::packet::Nonce;
use crate::probe::{ProbeOutcome, Word};
use crate::sighting::tests::{ip_mut, seen};
use crate::sighting::{Flow, Sighting};

const CLIENT: &str = "10.244.1.2:40000";
const FRONT: &str = "10.96.0.11:80";
const POD: &str = "10.244.2.2:8080";

/// All that is known of one probe, to be spoilt by a test.
struct Case {
    serving: Serving,
    outcome: ProbeOutcome,
    knock: Vec<Sighting>,
    request: Vec<Sighting>,
    reply: Vec<Sighting>,
    logged: &'static str,
}

fn good() -> Case {
    let walk = |places: [(&str, &str, &str); 4], first: u64, payload: &str| {
        let one =
            |((at, from, to), stamp): (&(&str, &str, &str), u64)| seen(at, stamp, from, to, 64, payload);
        places.iter().zip(first..).map(one).collect::<Vec<_>>()
    };
    let there = [
        ("kubia-1/eth0 out", CLIENT, FRONT),
        ("node1/veth1 in", CLIENT, FRONT),
        ("node1/eth0 out", CLIENT, POD),
        ("kubia-3/eth0 in", CLIENT, POD),
    ];
    let back = [
        ("kubia-3/eth0 out", POD, CLIENT),
        ("node1/eth0 in", POD, CLIENT),
        ("node1/veth1 out", FRONT, CLIENT),
        ("kubia-1/eth0 in", FRONT, CLIENT),
    ];
    let backend = Backend { pod: "kubia-3".into(), address: POD.parse().unwrap(), stands_in: None };
    Case {
        serving: Serving {
            client: "kubia-1".into(),
            front: FRONT.parse().unwrap(),
            promise: Promise::Served(vec![backend]),
            translator: "node1".into(),
        },
        outcome: ProbeOutcome {
            nonce: Nonce(1),
            word: Word::Ok,
            detail: None,
            local: Some(CLIENT.parse().unwrap()),
            host: Some("kubia-3".into()),
            remote: None,
            micros: 1,
        },
        knock: Vec::new(),
        request: walk(there, 1, "GET"),
        reply: walk(back, 10, "HTTP/1.1 200"),
        logged: "10.244.1.2",
    }
}

impl Case {
    fn judged(&self) -> (Ruling, String) {
        let flow = Flow {
            knock: self.knock.iter().collect(),
            request: self.request.iter().collect(),
            reply: self.reply.iter().collect(),
            ..Flow::default()
        };
        let visit = Some(Visit { remote: self.logged.parse().unwrap(), port: 1 });
        let judgement = judge_service(
            &self.serving,
            &Evidence { outcome: &self.outcome, flow, visit, drops: 0, seals: &Seals::default() },
        );
        (judgement.ruling(), judgement.evidence)
    }

    fn stands_in(&mut self, address: &str) {
        let Promise::Served(backends) = &mut self.serving.promise else { panic!("served") };
        backends[0].stands_in = Some(vec![address.parse().unwrap()]);
    }

    /// Nobody is to answer, and nobody does.
    fn unanswered(promise: Promise, word: Word) -> Case {
        let mut case = good();
        case.serving.promise = promise;
        (case.outcome.word, case.outcome.host) = (word, None);
        case.knock = case.request[..2].to_vec();
        (case.request, case.reply) = (Vec::new(), Vec::new());
        case
    }
}

fn readdress(s: &mut Sighting, from: &str, to: &str) {
    let stamp = s.stamp_ns;
    let at = s.to_string();
    let payload = String::from_utf8(s.ip().unwrap().payload.to_vec()).unwrap();
    *s = seen(&at, stamp, from, to, 64, &payload);
}

fn fails(case: &Case, words: &str) {
    let (ruling, text) = case.judged();
    assert_eq!(ruling, Ruling::Fail, "{text}");
    assert!(text.contains(words), "{text}");
}

#[test]
fn a_service_that_does_as_it_should_passes() {
    let words =
        "DNAT 10.96.0.11:80 to 10.244.2.2:8080 at node1/eth0 out, put back for the client, source kept";
    assert_eq!(good().judged(), (Ruling::Pass, words.to_owned()));
}

#[test]
fn a_port_that_the_kernel_had_to_change_is_no_nat_of_the_source() {
    let mut case = good();
    for s in &mut case.request[2..] {
        readdress(s, "10.244.1.2:5000", POD);
    }
    for s in &mut case.reply[..2] {
        readdress(s, POD, "10.244.1.2:5000");
    }
    assert_eq!(case.judged().0, Ruling::Pass, "{}", case.judged().1);
}

#[test]
fn a_pod_that_is_not_behind_the_service_fails() {
    let mut case = good();
    readdress(&mut case.request[3], CLIENT, "10.244.2.9:8080");
    fails(&case, "10.244.2.9:8080 got the request at kubia-3/eth0 in, which is not behind the service");
}

#[test]
fn a_destination_rewritten_elsewhere_fails() {
    let mut case = good();
    readdress(&mut case.request[0], CLIENT, POD);
    fails(&case, "NAT: destination 10.96.0.11:80 became 10.244.2.2:8080 at kubia-1/eth0 out");
    let mut case = good();
    readdress(&mut case.request[2], CLIENT, FRONT);
    case.request.insert(3, seen("node2/eth0 in", 3, CLIENT, FRONT, 64, "GET"));
    fails(&case, "the service's address is still the destination at node2/eth0 in");
    case.request.remove(3);
    fails(&case, "NAT: destination 10.96.0.11:80 became 10.244.2.2:8080 at kubia-3/eth0 in");
}

#[test]
fn an_answer_that_is_not_put_back_fails() {
    let mut case = good();
    for s in &mut case.reply[2..] {
        readdress(s, POD, CLIENT);
    }
    fails(&case, "the reply is 10.244.2.2:8080 > 10.244.1.2:40000 at kubia-1/eth0 in");
}

#[test]
fn the_source_is_what_the_type_says() {
    let mut case = good();
    for s in &mut case.request[2..] {
        readdress(s, "192.0.2.11:1024", POD);
    }
    for s in &mut case.reply[..2] {
        readdress(s, POD, "192.0.2.11:1024");
    }
    case.logged = "192.0.2.11";
    fails(&case, "NAT: source 10.244.1.2:40000 became 192.0.2.11:1024 at node1/eth0 out");
    case.stands_in("192.0.2.11");
    assert_eq!(case.judged().0, Ruling::Pass, "{}", case.judged().1);
    let mut kept = good();
    kept.stands_in("192.0.2.11");
    fails(&kept, "the source 10.244.1.2:40000 was not rewritten to a node's address by kubia-3/eth0 in");
}

#[test]
fn another_host_another_payload_and_another_log_fail() {
    let mut case = good();
    case.outcome.host = Some("kubia-9".into());
    fails(&case, "\"kubia-9\" answered instead of \"kubia-3\"");
    let mut case = good();
    ip_mut(&mut case.request[3]).payload = (*b"GOT").into();
    fails(&case, "the payload of the request differs at kubia-3/eth0 in");
    let mut case = good();
    case.logged = "10.244.1.1";
    fails(&case, "kubia-3 logged 10.244.1.1");
}

#[test]
fn no_answer_fails_and_no_packet_is_an_error() {
    let mut case = good();
    (case.outcome.word, case.reply) = (Word::Timeout, Vec::new());
    fails(&case, "reachability: TIMEOUT, request last seen at kubia-3/eth0 in");
    (case.request, case.knock) = (Vec::new(), Vec::new());
    assert_eq!(case.judged().0, Ruling::Error);
    let mut case = good();
    case.request.truncate(3);
    assert_eq!(case.judged().0, Ruling::Error, "it answered, but was not seen to arrive");
}

#[test]
fn a_service_without_endpoints_has_to_refuse() {
    assert_eq!(Case::unanswered(Promise::Refused, Word::Refused).judged().0, Ruling::Pass);
    fails(
        &Case::unanswered(Promise::Refused, Word::Timeout),
        "nobody is behind it, but the probe says TIMEOUT",
    );
    let mut case = Case::unanswered(Promise::Refused, Word::Refused);
    case.knock.push(good().request[3].clone());
    fails(&case, "reached from where it should not be: kubia-3/eth0 in");
}

#[test]
fn what_is_hidden_is_reached_from_nowhere() {
    for word in [Word::Timeout, Word::Refused, Word::Other] {
        assert_eq!(Case::unanswered(Promise::Hidden, word).judged().0, Ruling::Pass);
    }
    let mut case = good();
    case.serving.promise = Promise::Hidden;
    fails(&case, "reached from where it should not be: kubia-3");
}

#[test]
fn shares_are_even_or_all_go_to_one() {
    let share = |has_affinity: bool, counts: [usize; 3]| {
        let pods = ["a", "b", "c"];
        let served: Vec<&str> =
            pods.iter().zip(counts).flat_map(|(pod, count)| std::iter::repeat_n(*pod, count)).collect();
        let sharing = Sharing { pods: pods.map(str::to_owned).to_vec(), has_affinity };
        let judgement = judge_share(&sharing, &served);
        (judgement.ruling(), judgement.evidence)
    };
    assert_eq!(share(false, [100, 99, 101]).1, "300 connections: a 100, b 99, c 101");
    assert_eq!(share(false, [75, 125, 100]).0, Ruling::Pass);
    assert_eq!(share(false, [74, 126, 100]).0, Ruling::Fail);
    assert_eq!(share(false, [300, 0, 0]).0, Ruling::Fail);
    assert_eq!(share(true, [0, 300, 0]), (Ruling::Pass, "300 connections, all to b".into()));
    assert_eq!(share(true, [1, 299, 0]), (Ruling::Fail, "one client was served by 2 pods: a, b".into()));
    assert_eq!(share(false, [0, 0, 0]).0, Ruling::Error, "nothing was seen");
}
