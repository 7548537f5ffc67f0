//! A healthy cluster passes, with every number that a report promises.

use podlab::exit::Failure;
use podlab::verdict::Ruling;
use podlab::verify::{CHECKS, Sample, VerifyOptions, run};

use crate::bed::{cluster, shown, verified};

#[test]
fn healthy_cluster_passes_every_check() {
    let cluster = cluster(2, 2);
    let report = verified(&cluster, &[]);
    assert_eq!((report.failed, report.drops, report.exit_code()), (0, 0, 0), "{}", shown(&report));
    let counts: Vec<_> = report.checks.iter().map(|c| (c.name.as_str(), c.verdicts.len())).collect();
    let expected = [
        ("unique-address", 4),
        ("container-localhost", 4),
        ("same-node", 4),
        ("cross-node", 8),
        ("ingress", 4),
        ("egress", 4),
    ];
    assert_eq!(counts, expected);
    assert_eq!((report.pairs, report.passed), (12, 28));
    let evidence: Vec<_> = report.checks.iter().map(|c| c.evidence()).collect();
    assert_eq!(
        evidence,
        [
            "10.244.1.2 on eth0, nobody else's",
            "request and reply on lo only, 0 frames on eth0, one network namespace",
            "tuple, payload and both MACs kept at 4 of 4 points (8 sightings), TTL 64→64",
            "tuple and payload kept at 4 of 4 points (20 sightings), TTL 64→63→62",
            "tuple and payload kept at 4 of 4 points (16 sightings), TTL 64→63→62",
            "tuple and payload kept at 4 of 4 points (16 sightings), TTL 64→63→62",
        ]
    );
    let walk = &report.checks[3].verdicts[0];
    assert_eq!(walk.subject, "kubia-1 > kubia-3");
    assert_eq!(walk.logged, Some([10, 244, 1, 2].into()));
    let places: Vec<_> = walk.request.iter().map(|p| format!("{} {} {}", p.at, p.direction, p.ttl)).collect();
    assert_eq!(
        places,
        [
            "kubia-1/eth0 out 64",
            "node1/veth1 in 64",
            "node1/cni0 in 64",
            "node1/eth0 out 63",
            "fabric/node1 in 63",
            "fabric/node2 out 63",
            "node2/eth0 in 63",
            "node2/cni0 out 62",
            "node2/veth1 out 62",
            "kubia-3/eth0 in 62",
        ]
    );
}

#[test]
fn second_verification_is_not_confused_by_the_first() {
    let cluster = cluster(2, 1);
    for _ in 0..2 {
        let report = verified(&cluster, &["cross-node", "same-node"]);
        assert_eq!((report.passed, report.failed), (2, 0), "{}", shown(&report));
        assert_eq!(report.checks[0].name, "same-node");
        assert_eq!(report.checks[0].ruling(), Ruling::Error, "a check without any pair proves nothing");
    }
}

#[test]
fn sample_is_probed_and_the_rest_is_counted() {
    let cluster = cluster(2, 3);
    let sample = Some(Sample { pairs: 6, seed: 4 });
    let report =
        run(&cluster, &VerifyOptions { sample, ..VerifyOptions::default() }, &mut |_, _| {}).unwrap();
    let counts: Vec<_> = report.checks.iter().map(|c| (c.name.as_str(), c.verdicts.len())).collect();
    let expected = [
        ("unique-address", 6),
        ("container-localhost", 6),
        ("same-node", 3),
        ("cross-node", 3),
        ("ingress", 6),
        ("egress", 6),
    ];
    assert_eq!(counts, expected);
    assert_eq!((report.pairs, report.possible_pairs, report.seed, report.failed), (6, 30, Some(4), 0));
    assert!(shown(&report).contains("6 of 30 ordered pod pairs (sample, seed 4) in "), "{}", shown(&report));
    let one = VerifyOptions { sample: Some(Sample { pairs: 1, seed: 4 }), ..VerifyOptions::default() };
    let report = run(&cluster, &one, &mut |_, _| {}).unwrap();
    let counts: Vec<_> = report.checks.iter().map(|c| c.verdicts.len()).collect();
    assert_eq!(counts, [6, 6, 0, 1, 2, 2], "the two pods of the pair, all others only by themselves");
}

#[test]
fn checks_and_nodes_can_be_chosen() {
    let cluster = cluster(2, 2);
    let options = VerifyOptions {
        checks: vec!["cross-node".into()],
        nodes: vec!["node2".into()],
        ..VerifyOptions::default()
    };
    let mut steps = Vec::new();
    let report = run(&cluster, &options, &mut |text, _| steps.push(text.to_owned())).unwrap();
    let subjects: Vec<_> = report.checks[0].verdicts.iter().map(|v| v.subject.as_str()).collect();
    assert_eq!(
        subjects,
        ["kubia-3 > kubia-1", "kubia-3 > kubia-2", "kubia-4 > kubia-1", "kubia-4 > kubia-2"]
    );
    assert_eq!(steps.len(), 3, "{steps:?}");
}

#[test]
fn unknown_names_are_wrong_usage() {
    let cluster = cluster(1, 1);
    let refused = |options: VerifyOptions| {
        let error = run(&cluster, &options, &mut |_, _| {}).unwrap_err();
        let failure = error.downcast::<Failure>().unwrap();
        assert_eq!(failure.code, podlab::exit::USAGE);
        failure.text
    };
    let text = refused(VerifyOptions { checks: vec!["pings".into()], ..VerifyOptions::default() });
    let names: Vec<_> = CHECKS.iter().map(|c| c.name).collect();
    assert_eq!(text, format!("no check \"pings\" · there are: {}", names.join(", ")));
    let text = refused(VerifyOptions { nodes: vec!["node9".into()], ..VerifyOptions::default() });
    assert!(text.starts_with("no node \"node9\""), "{text}");
}

#[test]
fn thirty_pods_are_verified_without_a_lost_frame() {
    let cluster = cluster(3, 10);
    let mut report = verified(&cluster, &[]);
    if report.failed > 0 {
        // A machine that stands still for a second lets probes time out; a cluster that is wrong is so twice.
        println!("first try: {}", shown(&report));
        report = verified(&cluster, &[]);
    }
    assert_eq!((report.pairs, report.passed, report.failed), (870, 990, 0), "{}", shown(&report));
    assert_eq!(report.drops, 0);
    println!("{}", shown(&report));
}
