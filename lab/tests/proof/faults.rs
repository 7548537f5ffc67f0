//! The negative controls: each fault flips its check, and only packets could tell.

use kernel::link::{self, Change};
use kernel::{Rtnl, addr};
use podlab::cluster::Space;
use podlab::probe::Word;
use podlab::verdict::{Finding, Report, Ruling};

use crate::bed::{add_route, cluster, net, remove_route, run_in, shown, verified};

fn masquerade(node: &Space, rule: &[&str]) {
    run_in(node, "nft", &["add", "table", "ip", "lesson"]);
    let chain = "{ type nat hook postrouting priority srcnat; }";
    run_in(node, "nft", &["add", "chain", "ip", "lesson", "out", chain]);
    run_in(node, "nft", &[&["add", "rule", "ip", "lesson", "out"], rule].concat());
}

/// The evidence for one subject of the only check.
fn evidence<'r>(report: &'r Report, subject: &str) -> (Ruling, &'r str) {
    let verdict = report.checks[0].verdicts.iter().find(|v| v.subject == subject).unwrap();
    (verdict.ruling, &verdict.evidence)
}

#[test]
fn masquerading_node_fails_though_every_answer_is_ok() {
    let cluster = cluster(2, 1);
    masquerade(
        &cluster.nodes[0].space,
        &["ip", "saddr", "10.244.1.0/24", "ip", "daddr", "!=", "10.244.1.0/24", "masquerade"],
    );
    let report = verified(&cluster, &["cross-node"]);
    for v in &report.checks[0].verdicts {
        let outcome = v.outcome.as_ref().unwrap();
        assert_eq!((outcome.word, outcome.host.as_deref()), (Word::Ok, v.subject.split(" > ").nth(1)));
    }
    let (ruling, text) = evidence(&report, "kubia-1 > kubia-2");
    assert_eq!(ruling, Ruling::Fail, "{}", shown(&report));
    assert!(text.starts_with("NAT: source 10.244.1.2:") && text.contains("at node1/eth0 out"), "{text}");
    assert!(text.ends_with("kubia-2 logged 192.0.2.11, not the client's own 10.244.1.2"), "{text}");
    assert_eq!(evidence(&report, "kubia-2 > kubia-1").0, Ruling::Pass);
    assert_eq!(report.exit_code(), 1);

    let egress = verified(&cluster, &["egress"]);
    let (ruling, text) = evidence(&egress, "kubia-1 > outside");
    assert_eq!(ruling, Ruling::Pass, "{text}");
    assert!(text.starts_with("SNAT to 192.0.2.11 at node1/eth0 only (expected)"), "{text}");
}

#[test]
fn nat_undone_before_the_pod_fails_as_well() {
    let cluster = cluster(2, 1);
    // node1 hides the pod behind a foreign address, node2 puts the right one back: both pods see nothing.
    masquerade(&cluster.nodes[0].space, &["ip", "saddr", "10.244.1.2", "snat", "to", "192.0.2.111"]);
    masquerade(&cluster.nodes[1].space, &["ip", "saddr", "192.0.2.111", "snat", "to", "10.244.1.2"]);
    for node in &cluster.nodes[1..] {
        add_route(&mut Rtnl::open_in(&node.space.netns).unwrap(), "192.0.2.111/32", "192.0.2.11");
    }
    let report = verified(&cluster, &["cross-node"]);
    let v = &report.checks[0].verdicts[0];
    assert_eq!((v.ruling, v.logged), (Ruling::Fail, Some([10, 244, 1, 2].into())), "{}", shown(&report));
    assert!(v.evidence.starts_with("NAT: source 10.244.1.2:"), "{}", v.evidence);
}

#[test]
fn nat_hidden_on_the_return_path_fails() {
    let cluster = cluster(2, 1);
    // node2 sends the answers in its own name, node1 puts the pod's back: requests stay as they are, and both pods
    // see what they should.
    let edit = |node: &Space, hook: &str, rule: &[&str]| {
        run_in(node, "nft", &["add", "table", "ip", "lesson"]);
        let chain = format!("{{ type filter hook {hook} priority raw; }}");
        run_in(node, "nft", &["add", "chain", "ip", "lesson", "edit", &chain]);
        run_in(node, "nft", &[&["add", "rule", "ip", "lesson", "edit"], rule].concat());
    };
    let leave = ["ip", "saddr", "10.244.2.2", "tcp", "sport", "8080", "ip", "saddr", "set", "192.0.2.12"];
    edit(&cluster.nodes[1].space, "postrouting", &leave);
    let arrive = ["ip", "saddr", "192.0.2.12", "tcp", "sport", "8080", "ip", "saddr", "set", "10.244.2.2"];
    edit(&cluster.nodes[0].space, "prerouting", &arrive);
    let report = verified(&cluster, &["cross-node"]);
    let v = &report.checks[0].verdicts[0];
    assert_eq!(v.outcome.as_ref().map(|o| o.word), Some(Word::Ok), "{}", shown(&report));
    assert_eq!((v.ruling, v.findings.len()), (Ruling::Fail, 1), "{}", shown(&report));
    assert!(v.evidence.starts_with("NAT: the reply is 192.0.2.12:8080 > 10.244.1.2:"), "{}", v.evidence);
    assert_eq!(report.checks[0].verdicts[1].ruling, Ruling::Pass, "the other way round nothing is rewritten");
}

#[test]
fn tampered_ttl_fails() {
    let cluster = cluster(2, 1);
    let node2 = &cluster.nodes[1].space;
    run_in(node2, "nft", &["add", "table", "ip", "lesson"]);
    let chain = "{ type filter hook forward priority 0; }";
    run_in(node2, "nft", &["add", "chain", "ip", "lesson", "through", chain]);
    let rule = ["add", "rule", "ip", "lesson", "through", "tcp", "sport", "8080", "ip", "ttl", "set", "40"];
    run_in(node2, "nft", &rule);
    let report = verified(&cluster, &["cross-node"]);
    let (ruling, text) = evidence(&report, "kubia-1 > kubia-2");
    assert_eq!(ruling, Ruling::Fail, "{}", shown(&report));
    assert!(text.starts_with("the TTL of the reply is 40 at node2/eth0 out, not 63"), "{text}");
}

#[test]
fn removed_route_fails_reachability_and_names_the_last_sighting() {
    let cluster = cluster(2, 1);
    remove_route(&cluster.nodes[0].space, "10.244.2.0/24", "192.0.2.12");
    let report = verified(&cluster, &["cross-node"]);
    let (ruling, text) = evidence(&report, "kubia-1 > kubia-2");
    assert_eq!(ruling, Ruling::Fail, "{}", shown(&report));
    assert_eq!(text, "reachability: OTHER (network is unreachable), SYN last seen at node1/cni0 in");
    let (ruling, text) = evidence(&report, "kubia-2 > kubia-1");
    assert_eq!(ruling, Ruling::Fail);
    assert_eq!(text, "reachability: TIMEOUT, SYN-ACK last seen at node1/cni0 in");
}

#[test]
fn downed_uplink_is_a_timeout_at_the_nodes_bridge() {
    let cluster = cluster(2, 1);
    let mut rtnl = Rtnl::open_in(&cluster.fabric.netns).unwrap();
    let port = link::by_name(&mut rtnl, "node2").unwrap().index;
    link::set(&mut rtnl, port, &Change { master: Some(0), ..Change::default() }).unwrap();
    let report = verified(&cluster, &["cross-node"]);
    for v in &report.checks[0].verdicts {
        assert!(matches!(&v.findings[..], [Finding::Unreachable { .. }]), "{}", v.evidence);
        assert!(v.evidence.contains("SYN last seen at node"), "{}", v.evidence);
    }
}

#[test]
fn shared_address_is_found_in_the_kernels_of_the_pods() {
    let cluster = cluster(1, 2);
    let mut rtnl = Rtnl::open_in(&cluster.pods[1].space.netns).unwrap();
    let eth0 = link::by_name(&mut rtnl, "eth0").unwrap().index;
    addr::add(&mut rtnl, eth0, net("10.244.1.2/24"), &addr::AddrOptions::default()).unwrap();
    let report = verified(&cluster, &["unique-address"]);
    assert_eq!(evidence(&report, "kubia-1"), (Ruling::Fail, "10.244.1.2 is kubia-2's as well"));
    let told = "the plugin told 10.244.1.3, the interface has 10.244.1.3, 10.244.1.2; 10.244.1.2 is kubia-1's as well";
    assert_eq!(evidence(&report, "kubia-2"), (Ruling::Fail, told));
}

#[test]
fn localhost_that_is_down_is_no_pass() {
    let cluster = cluster(1, 1);
    let mut rtnl = Rtnl::open_in(&cluster.pods[0].space.netns).unwrap();
    link::set(&mut rtnl, 1, &Change { up: Some(false), ..Change::default() }).unwrap();
    let report = verified(&cluster, &["container-localhost"]);
    let (ruling, text) = evidence(&report, "kubia-1 sidecar > kubia");
    assert_ne!(ruling, Ruling::Pass, "{text}");
}

#[test]
fn pod_without_an_address_is_a_failure_and_its_probes_are_errors() {
    let cluster = cluster(1, 2);
    let mut rtnl = Rtnl::open_in(&cluster.pods[1].space.netns).unwrap();
    let eth0 = link::by_name(&mut rtnl, "eth0").unwrap().index;
    addr::delete(&mut rtnl, eth0, net("10.244.1.3/24")).unwrap();
    let report = verified(&cluster, &["unique-address", "same-node"]);
    assert_eq!(evidence(&report, "kubia-2"), (Ruling::Fail, "the pod has no address"));
    for v in &report.checks[1].verdicts {
        assert_eq!(
            (v.ruling, v.evidence.as_str()),
            (Ruling::Error, "not probed: kubia-2 has no IPv4 address")
        );
    }
}

#[test]
fn sidecar_that_is_gone_makes_errors_of_its_probes_alone() {
    let mut cluster = cluster(1, 2);
    let (nobody, requests) = std::io::pipe().unwrap();
    let (answers, silence) = std::io::pipe().unwrap();
    drop((nobody, silence));
    cluster.pods[0].containers.sidecar =
        std::sync::Mutex::new(podlab::probe::Sidecar::new(requests, answers));
    let report = verified(&cluster, &["same-node"]);
    let (ruling, text) = evidence(&report, "kubia-1 > kubia-2");
    assert!(ruling == Ruling::Error && text.starts_with("not probed: kubia-1: "), "{text}");
    assert_eq!(evidence(&report, "kubia-2 > kubia-1").0, Ruling::Pass);
}
