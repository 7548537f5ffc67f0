//! Why packets are where they are, and what lost those that did not arrive: one fault after another, each found by what
//! the kernel itself says.

use kernel::Netns;
use podlab::cluster::{Cluster, Space};
use podlab::trace::{LostKind, Trace, TraceOptions, render_trace, run};
use podlab::verdict::Style;

use crate::bed::{cluster, output_of, run_in};

fn traced(cluster: &Cluster, source: &str, target: &str, hooks: bool) -> Trace {
    let options = TraceOptions::parse(source, target, 8080, "tcp").unwrap();
    run(cluster, &TraceOptions { hooks, ..options }).unwrap()
}

fn text(trace: &Trace) -> String {
    render_trace(trace, Style::default())
}

/// Runs a line of `ip`, `nft` or `sysctl` in a namespace of the lab.
fn sh(cluster: &Cluster, place: &str, line: &str) {
    run_in(cluster.space(place).unwrap(), "sh", &["-ec", line]);
}

fn rulesets(cluster: &Cluster) -> Vec<String> {
    cluster.spaces().map(|space| output_of(space, "nft", &["list", "ruleset"])).collect()
}

#[test]
fn every_fault_is_named_with_its_place() {
    use LostKind::{Firewall, Neighbour, NoForwarding, NoRoute, NobodyListens, OtherMac, ReversePath, Ttl};
    let firewall = |policy: &str, rule: &str| {
        format!(
            "nft 'add table inet fw; add chain inet fw guard {{ type filter hook forward priority 0; policy \
             {policy}; }}; add rule inet fw guard {rule}'"
        )
    };
    let guests = firewall("accept", "tcp dport 8080 drop comment \"no guests\"");
    let closed = firewall("drop", "udp dport 53 accept");
    let refusing = firewall("accept", "tcp dport 8080 reject");
    for (place, line, hooks, kind, at, words) in [
        ("node1", "ip route del 10.244.2.0/24", false, NoRoute, "node1/cni0 in", "no route to 10.244.2.2"),
        (
            "node1",
            "ip route replace blackhole 10.244.2.0/24",
            false,
            NoRoute,
            "node1/cni0 in",
            "is a blackhole",
        ),
        ("node1", "ip link set eth0 down", false, NoRoute, "node1/cni0 in", "no route to 10.244.2.2"),
        ("kubia-1", "ip route del default", false, NoRoute, "", "kubia-1: no route to 10.244.2.2"),
        (
            "node2",
            "sysctl -qw net.ipv4.ip_forward=0",
            false,
            NoForwarding,
            "node2/eth0 in",
            "net.ipv4.ip_forward is 0",
        ),
        (
            "node2",
            "ip route replace 10.244.1.0/24 dev cni0; sysctl -qw net.ipv4.conf.eth0.rp_filter=1",
            false,
            ReversePath,
            "node2/eth0 in",
            "10.244.1.2 is not expected on this link (rp_filter)",
        ),
        (
            "kubia-2",
            "ip addr flush dev eth0",
            false,
            Neighbour,
            "node2/eth0 in",
            "neighbour 10.244.2.2 does not answer (route 10.244.2.0/24 on cni0)",
        ),
        (
            "fabric",
            "ip link set node2 down",
            false,
            Neighbour,
            "node1/cni0 in",
            "neighbour 192.0.2.12 does not",
        ),
        (
            "node1",
            "ip neigh replace 192.0.2.12 lladdr 02:00:00:00:be:ef dev eth0 nud permanent",
            false,
            OtherMac,
            "node2/eth0 in",
            "the frame is for 02:00:00:00:be:ef, and eth0 has ",
        ),
        (
            "node2",
            "ip route replace 10.244.2.0/24 via 192.0.2.11",
            false,
            Ttl,
            "/eth0 in",
            "TTL has come to an end",
        ),
        ("node2", &guests, true, Firewall, "node2/eth0 in", "dropped at forward inet fw guard, rule "),
        ("node2", &guests, true, Firewall, "node2/eth0 in", " (no guests): drop"),
        ("node2", &closed, true, Firewall, "node2/eth0 in", "dropped at forward inet fw guard: policy drop"),
        ("node2", &refusing, true, Firewall, "node2/eth0 in", " (reject): "),
        (
            "kubia-1",
            "nft 'add table ip fw; add chain ip fw out { type filter hook output priority 0; }; \
             add rule ip fw out tcp dport 8080 drop'",
            true,
            Firewall,
            "",
            "kubia-1: dropped at output ip fw out, rule ",
        ),
        (
            "kubia-2",
            "nft 'add table ip fw; add chain ip fw in { type filter hook input priority 0; policy drop; }'",
            true,
            Firewall,
            "kubia-2/eth0 in",
            "dropped at input ip fw in: policy drop",
        ),
        (
            "kubia-2",
            "nft 'add table ip fw; add chain ip fw in { type filter hook input priority 0; policy drop; }'",
            false,
            NobodyListens,
            "kubia-2/eth0 in",
            "10.244.2.2 is its own address: it arrived, and nobody took it",
        ),
    ] {
        let cluster = cluster(2, 1);
        sh(&cluster, place, line);
        let trace = traced(&cluster, "kubia-1", "kubia-2", hooks);
        let lost = trace.lost.clone().unwrap_or_else(|| panic!("{line}: nothing is lost: {}", text(&trace)));
        assert_eq!(lost.kind, kind, "{line} at {place}: {}", text(&trace));
        let is_at = lost.at.clone().unwrap_or_default();
        assert!(is_at.ends_with(at) && is_at.is_empty() == at.is_empty(), "{line} at {place}: {lost:?}");
        assert!(lost.reason.contains(words), "{line} at {place}: {lost:?}");
        assert!(text(&trace).contains(&format!(": {}\n", lost.reason)), "{}", text(&trace));
    }
}

#[test]
fn packet_that_is_answered_is_not_lost_and_one_to_a_closed_port_is_refused_there() {
    let cluster = cluster(2, 1);
    assert_eq!(traced(&cluster, "kubia-1", "kubia-2", true).lost, None);
    let options = TraceOptions::parse("kubia-1", "kubia-2", 81, "tcp").unwrap();
    let lost = run(&cluster, &options).unwrap().lost.unwrap();
    assert_eq!((lost.kind, lost.at.as_deref()), (LostKind::NobodyListens, Some("kubia-2/eth0 in")));
}

#[test]
fn each_hop_names_route_neighbour_and_forwarding_entry() {
    let cluster = cluster(2, 1);
    let trace = traced(&cluster, "kubia-1", "kubia-2", false);
    let causes: Vec<Vec<String>> = trace.walks[0].hops.iter().map(|hop| hop.causes.clone()).collect();
    let starts = |n: usize, words: &[&str]| {
        assert_eq!(causes[n].len(), words.len(), "{causes:?}");
        causes[n]
            .iter()
            .zip(words)
            .for_each(|(cause, words)| assert!(cause.starts_with(words), "{causes:?}"));
    };
    starts(0, &["default via 10.244.1.1 on eth0", "neighbour 10.244.1.1 is at "]);
    starts(1, &["FDB "]);
    starts(2, &[]);
    starts(3, &["route 10.244.2.0/24 via 192.0.2.12 on eth0", "neighbour 192.0.2.12 is at "]);
    starts(4, &["FDB "]);
    assert!(causes[4][0].ends_with(" at node2"), "{causes:?}");
    starts(7, &["route 10.244.2.0/24 on cni0", "neighbour 10.244.2.2 is at "]);
    assert!(text(&trace).contains("\n     neighbour 192.0.2.12 is at "), "{}", text(&trace));
}

#[test]
fn route_of_another_table_is_the_one_that_is_named() {
    let cluster = cluster(2, 1);
    sh(
        &cluster,
        "node1",
        "ip route add 10.244.2.0/24 via 192.0.2.1 table 100; ip rule add from 10.244.1.0/24 table 100",
    );
    let trace = traced(&cluster, "kubia-1", "kubia-2", false);
    let hop = trace.walks[0].hops.iter().find(|hop| hop.place() == "node1/eth0 out").unwrap();
    let words = "route 10.244.2.0/24 via 192.0.2.1 on eth0 of table 100";
    assert_eq!((hop.causes[0].as_str(), hop.why.as_str()), (words, words), "{}", text(&trace));
}

#[test]
fn translations_are_told_by_rule_and_by_connection() {
    let cluster = cluster(2, 2);
    sh(
        &cluster,
        "node1",
        "nft 'add table ip svc; \
         add chain ip svc pre { type nat hook prerouting priority dstnat; }; \
         add rule ip svc pre ip daddr 10.96.0.10 tcp dport 8080 dnat to 10.244.2.2 comment \"one service\"; \
         add chain ip svc post { type nat hook postrouting priority srcnat; }; \
         add rule ip svc post oifname eth0 masquerade'",
    );
    let trace = traced(&cluster, "kubia-1", "10.96.0.10", true);
    let out = trace.walks[0].hops.iter().find(|hop| hop.place() == "node1/eth0 out").unwrap();
    let is_told = |words: &str| out.causes.iter().any(|cause| cause.contains(words));
    let has = is_told("conntrack 10.244.1.2:")
        && is_told(" > 10.96.0.10:8080, answers 10.244.2.2:8080 > 192.0.2.11:");
    assert!(has, "{}", text(&trace));
    let steps: Vec<String> =
        trace.walks[0].hops.iter().flat_map(|hop| &hop.hooks).map(podlab::trace::HookStep::words).collect();
    let at = |words: &str| {
        let found = steps.iter().position(|step| step.contains(words));
        found.unwrap_or_else(|| panic!("{words}: {steps:?}"))
    };
    let order = [
        at("prerouting ip svc pre, rule "),
        at("(one service): accept"),
        at("postrouting ip svc post, rule "),
    ];
    assert!(order.is_sorted() && steps[order[2]].ends_with(" (masq): accept"), "{steps:?}");
    // Above the line of the interface that it leaves by, and below the one that it came in by.
    let shown = text(&trace);
    let line = |words: &str| shown.lines().position(|line| line.contains(words)).unwrap();
    let lines = [line("node1/cni0 "), line("(one service)"), line("(masq)"), line(" node1/eth0 ")];
    assert!(lines.is_sorted(), "{shown}");
}

#[test]
fn watching_leaves_every_ruleset_as_it_was_also_after_one_that_was_cut_off() {
    let cluster = cluster(2, 1);
    sh(
        &cluster,
        "node2",
        "nft 'add table inet fw; add chain inet fw guard { type filter hook forward priority -500; }; \
         add rule inet fw guard counter'",
    );
    let strip =
        |text: &String| text.lines().filter(|line| !line.contains("counter")).collect::<Vec<_>>().join("\n");
    let before: Vec<String> = rulesets(&cluster).iter().map(strip).collect();
    // What a trace that was cut off has left.
    sh(&cluster, "node1", "nft 'add table inet podlab-trace; add chain inet podlab-trace old'");
    let trace = traced(&cluster, "kubia-1", "kubia-2", true);
    assert!(trace.gaps.is_empty() && trace.lost.is_none(), "{}", text(&trace));
    let after: Vec<String> = rulesets(&cluster).iter().map(strip).collect();
    assert_eq!(before, after);
    let steps = trace.walks[0].hops.iter().flat_map(|hop| &hop.hooks);
    assert!(steps.clone().all(|step| !step.table.contains("podlab-trace")), "{trace:?}");
    assert!(steps.count() > 0, "{}", text(&trace));
}

#[test]
fn the_kernels_own_word_tells_a_drop_that_no_table_of_rules_shows() {
    let cluster = cluster(2, 1);
    // Before nftrace, conntrack and routing; right behind the capture.
    let rule = "nft 'add table netdev early; add chain netdev early in { type filter hook ingress device eth0 priority 0; }; \
                add rule netdev early in tcp dport 8080 drop'";
    sh(&cluster, "node2", rule);
    if let Err(err) = kernel::drops::Drops::open() {
        // A machine may bar even root from listening; the trace then has no such word.
        assert!(err.to_string().starts_with("listen to dropped packets"), "{err}");
        let lost = traced(&cluster, "kubia-1", "kubia-2", true).lost.unwrap();
        return assert_eq!((lost.at.as_deref(), lost.kernel), (Some("node2/eth0 in"), None));
    }
    // Drops are heard machine-wide, so that of another test may come in between.
    let told = (0..10).map(|_| traced(&cluster, "kubia-1", "kubia-2", true)).find(|trace| {
        let lost = trace.lost.as_ref().unwrap();
        assert_eq!(lost.at.as_deref(), Some("node2/eth0 in"), "{}", text(trace));
        lost.kernel.as_deref() == Some("NETFILTER_DROP") && lost.kind == LostKind::Firewall
    });
    let told = told.unwrap_or_else(|| panic!("{}", text(&traced(&cluster, "kubia-1", "kubia-2", true))));
    assert!(told.lost.unwrap().reason.contains("try: podlab trace --hooks"));
}

/// Packets of others between the same two are not taken for the probe's.
#[test]
fn packets_of_others_are_not_the_probes() {
    let cluster = cluster(2, 1);
    let rule = "nft 'add table ip fw; add chain ip fw in { type filter hook input priority 0; }; \
                add rule ip fw in tcp dport 9 drop'";
    sh(&cluster, "kubia-2", rule);
    let source: &Space = cluster.space("kubia-1").unwrap();
    let netns = Netns::from(std::os::fd::AsFd::as_fd(&source.netns).try_clone_to_owned().unwrap());
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let noise = std::thread::spawn(move || {
        netns
            .run(|| {
                while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                    let address = "10.244.2.2:9".parse().unwrap();
                    let short = std::time::Duration::from_millis(5);
                    // Never answered, as it is dropped.
                    let _ = std::net::TcpStream::connect_timeout(&address, short);
                }
            })
            .unwrap();
    });
    let trace = traced(&cluster, "kubia-1", "kubia-2", true);
    stop.send(()).unwrap();
    noise.join().unwrap();
    let steps: Vec<_> = trace.walks.iter().flat_map(|walk| &walk.hops).flat_map(|hop| &hop.hooks).collect();
    assert!(!steps.is_empty() && steps.iter().all(|step| step.handle.is_none()), "{}", text(&trace));
}
