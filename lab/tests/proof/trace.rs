//! Traces of real packets: every hop, the reasons, and what became of packets that did not arrive.

use podlab::cluster::Cluster;
use podlab::exit::{Failure, USAGE};
use podlab::trace::{Trace, TraceOptions, render_trace, run};
use podlab::verdict::{Ruling, Style, Way};

use crate::bed::{cluster, remove_route, run_in};

fn traced(cluster: &Cluster, source: &str, target: &str, protocol: &str) -> Trace {
    run(cluster, &TraceOptions::parse(source, target, 8080, protocol).unwrap()).unwrap()
}

fn text(trace: &Trace) -> String {
    render_trace(trace, Style::default())
}

/// `pod kubia-1/eth0 out 64: the reason`, for each hop of the first walk.
fn hops(trace: &Trace) -> Vec<String> {
    trace.walks[0].hops.iter().map(|h| format!("{} {}: {}", h.place(), h.ttl, h.why)).collect()
}

#[test]
fn packet_across_nodes_is_followed_with_its_reasons() {
    let cluster = cluster(2, 2);
    for (protocol, packets) in [
        ("tcp", &["SYN", "SYN-ACK", "HTTP request", "HTTP answer"][..]),
        ("udp", &["datagram", "answer"]),
        ("icmp", &["echo request", "echo reply"]),
    ] {
        let trace = traced(&cluster, "kubia-1", "kubia-3", protocol);
        let names: Vec<_> = trace.walks.iter().map(|w| w.packet.as_str()).collect();
        assert_eq!(names, packets);
        assert_eq!(
            hops(&trace),
            [
                "kubia-1/eth0 out 64: default via 10.244.1.1",
                "node1/veth1 in 64: bridge cni0, to host",
                "node1/cni0 in 64: not its address: forwarded",
                "node1/eth0 out 63: route 10.244.2.0/24 via 192.0.2.12",
                "fabric/node1 in 63: bridge lan0, to node2",
                "fabric/node2 out 63: bridge lan0",
                "node2/eth0 in 63: not its address: forwarded",
                "node2/cni0 out 62: route 10.244.2.0/24 on cni0",
                "node2/veth1 out 62: bridge cni0",
                "kubia-3/eth0 in 62: its own address: delivered",
            ],
            "{}",
            text(&trace)
        );
        let sightings = packets.len() * 10;
        assert_eq!(trace.verdict, format!("no NAT (5-tuple identical at {sightings} sightings)"));
        assert_eq!((trace.ruling, trace.exit_code(), trace.drops), (Ruling::Pass, 0, 0));
        let changed = |n: usize| {
            trace.walks[0].hops[n].changed.iter().map(|c| c.field.as_str()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!([3, 5, 7].map(changed), ["TTL MAC", "", "TTL MAC"]);
        let stamps: Vec<_> = trace.walks[0].hops.iter().map(|h| h.stamp_ns).collect();
        assert!(stamps.is_sorted(), "{stamps:?}");
        println!("{}", text(&trace));
    }
}

#[test]
fn first_packet_is_preceded_by_arp_and_the_second_is_not() {
    let cluster = cluster(1, 2);
    let first = traced(&cluster, "kubia-1", "kubia-2", "icmp");
    assert!(first.arp.iter().any(|a| a.text == "who has 10.244.1.3, asks 10.244.1.2"), "{}", text(&first));
    assert_eq!(first.walks[0].hops.len(), 4);
    assert_eq!(first.walks[0].hops[1].why, "bridge cni0, to veth2");
    assert!(first.walks.iter().any(|w| w.way == Way::Reply));
    assert!(traced(&cluster, "kubia-1", "kubia-2", "icmp").arp.is_empty());
}

#[test]
fn egress_and_ingress_pass_the_fabrics_router() {
    let cluster = cluster(1, 1);
    let out = traced(&cluster, "kubia-1", "outside", "tcp");
    assert_eq!(out.ruling, Ruling::Pass, "{}", text(&out));
    let places: Vec<_> = out.walks[0].hops.iter().map(|h| h.place()).collect();
    assert_eq!(
        places,
        [
            "kubia-1/eth0 out",
            "node1/veth1 in",
            "node1/cni0 in",
            "node1/eth0 out",
            "fabric/node1 in",
            "fabric/lan0 in",
            "fabric/wan0 out",
            "outside/eth0 in",
        ]
    );
    let into = traced(&cluster, "outside", "kubia-1", "icmp");
    assert_eq!(into.walks[0].hops.last().unwrap().place(), "kubia-1/eth0 in");
}

#[test]
fn masquerading_node_is_named_with_both_rewritings() {
    let cluster = cluster(2, 1);
    let node1 = &cluster.nodes[0].space;
    run_in(node1, "nft", &["add", "table", "ip", "lesson"]);
    let chain = "{ type nat hook postrouting priority srcnat; }";
    run_in(node1, "nft", &["add", "chain", "ip", "lesson", "out", chain]);
    run_in(node1, "nft", &["add", "rule", "ip", "lesson", "out", "oifname", "eth0", "masquerade"]);
    let trace = traced(&cluster, "kubia-1", "kubia-2", "icmp");
    assert_eq!((trace.ruling, trace.exit_code()), (Ruling::Fail, 0), "{}", text(&trace));
    assert_eq!(
        trace.verdict,
        "NAT: source of the echo request 10.244.1.2 became 192.0.2.11 at node1/eth0 out; \
         destination of the echo reply 192.0.2.11 became 10.244.1.2 at node1/cni0 out"
    );
}

#[test]
fn packet_without_a_route_ends_where_it_is_lost() {
    let cluster = cluster(2, 1);
    remove_route(&cluster.nodes[0].space, "10.244.2.0/24", "192.0.2.12");
    let trace = traced(&cluster, "kubia-1", "kubia-2", "tcp");
    assert_eq!((trace.ruling, trace.exit_code()), (Ruling::Fail, 1), "{}", text(&trace));
    assert_eq!(trace.verdict, "no answer: OTHER (network is unreachable), SYN last seen at node1/cni0 in");
    assert_eq!(hops(&trace).last().unwrap(), "node1/cni0 in 64: no route to 10.244.2.2: dropped");
    assert_eq!(trace.errors, ["node1/cni0 told 10.244.1.2 by ICMP: network unreachable (10.244.1.1)"]);
}

#[test]
fn names_that_the_lab_does_not_have_are_wrong_usage() {
    let cluster = cluster(1, 1);
    let refused = |source: &str, target: &str| {
        let options = TraceOptions::parse(source, target, 80, "tcp").unwrap();
        let failure = run(&cluster, &options).unwrap_err().downcast::<Failure>().unwrap();
        assert_eq!(failure.code, USAGE);
        failure.text
    };
    assert!(refused("kubia-9", "kubia-1").starts_with("\"kubia-9\" is not in the lab"));
    assert!(refused("node1", "kubia-1").starts_with("\"node1\" sends no probes"));
    assert!(refused("kubia-1", "nowhere").starts_with("\"nowhere\" is not in the lab"));
    assert_eq!(TraceOptions::parse("a", "b", 1, "sctp").unwrap_err().code, USAGE);
}
