//! Every check by its cause: made in a namespace of its own, it turns the check red and says where it is; taken away, the
//! check is green again. Causes that are the whole machine's (a full table of connections, rules of iptables-legacy) are
//! told by a directory in the place of /proc.

use std::fs;
use std::net::{IpAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ipam::range::RangeConf;
use ipam::{Owner, RangeSet, Store};
use kernel::link::{self, Bridge, Change, LinkKind, NewLink, Veth};
use kernel::nft::{
    Batch, ChainKind, Expr, Family as NftFamily, Hook, Meta, Op, Point, Reg, Rule, Table, name_bytes,
};
use kernel::route::{self, Route};
use kernel::{Netns, addr, sysctl};
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::install::conflist;
use crate::model::Node;
use crate::places::{CONFLIST, NETWORK, ROUTE_PROTOCOL, VXLAN};

const FIREWALL: Table<'static> = Table::new(NftFamily::Ip, "filter");

/// A node in a namespace of its own: eth0 with a default route, our configuration, an agent that has nothing to say.
struct Patient {
    netns: Netns,
    dir: TempDir,
    host: Host,
}

impl Patient {
    fn new() -> Patient {
        let netns = Netns::create().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let places = Places::below(dir.path());
        let node = Node {
            name: "node1".to_owned(),
            pod_cidrs: vec!["10.244.1.0/24".parse().unwrap(), "fd00:10:244:1::/64".parse().unwrap()],
            addresses: Vec::new(),
            ready: true,
        };
        conflist::write(&conflist::render(&node, 1500, &places).unwrap(), &places).unwrap();
        let agent = Ok(json!({ "schema": "podnetd.status/1", "conditions": [], "peers": {} }));
        let host = netns.run(|| Host::new(places, agent).unwrap()).unwrap();
        let mut patient = Patient { netns, dir, host };
        patient.wire("eth0", 1500);
        patient.address("eth0", "192.0.2.11/24");
        patient.route("0.0.0.0/0", "eth0", |route| route.gateway = Some("192.0.2.1".parse().unwrap()));
        for (path, value) in [("net/ipv4/ip_forward", "1"), ("net/ipv6/conf/all/forwarding", "1")] {
            patient.set(path, value);
        }
        patient
    }

    /// One end of a veth pair that is up, and the other one.
    fn wire(&mut self, name: &str, mtu: u32) -> u32 {
        let peer = format!("{name}-far");
        let rtnl = &mut self.host.rtnl;
        link::add_veth(rtnl, &Veth { name, peer: &peer, mtu, up: true, ..Veth::default() }).unwrap();
        let far = link::by_name(rtnl, &peer).unwrap().index;
        link::set(rtnl, far, &Change { up: Some(true), ..Change::default() }).unwrap();
        link::by_name(rtnl, name).unwrap().index
    }

    fn tunnel(&mut self, mtu: u32) {
        let kind = LinkKind::Vxlan { vni: 1, local: IpAddr::from([192, 0, 2, 11]), port: 4789 };
        let tunnel = NewLink { mtu, up: true, ..NewLink::new(VXLAN[0], kind) };
        link::add(&mut self.host.rtnl, &tunnel).unwrap();
    }

    fn index(&mut self, name: &str) -> u32 {
        link::by_name(&mut self.host.rtnl, name).unwrap().index
    }

    fn change(&mut self, name: &str, change: &Change<'_>) {
        let index = self.index(name);
        link::set(&mut self.host.rtnl, index, change).unwrap();
    }

    fn address(&mut self, name: &str, net: &str) {
        let index = self.index(name);
        addr::add(&mut self.host.rtnl, index, net.parse().unwrap(), &addr::AddrOptions::default()).unwrap();
    }

    fn route(&mut self, to: &str, by: &str, change: impl Fn(&mut Route)) -> Route {
        let mut route =
            Route { dst: Some(to.parse().unwrap()), oif: Some(self.index(by)), ..Route::default() };
        change(&mut route);
        route::add(&mut self.host.rtnl, &route).unwrap();
        route
    }

    fn set(&self, path: &str, value: &str) {
        self.netns.run(|| sysctl::write(path, value)).unwrap().unwrap();
    }

    /// A base chain of another program at a hook.
    fn firewall(&mut self, point: Point, accept: bool, rules: &[Rule]) {
        let mut batch = Batch::new();
        let hook = Hook { accept, ..Hook::new(ChainKind::Filter, point, 0) };
        batch.add_table(FIREWALL, None).add_chain(FIREWALL, "FORWARD", Some(&hook));
        for rule in rules {
            batch.append(FIREWALL, "FORWARD", rule);
        }
        self.host.nfnl.commit(batch).unwrap();
    }

    fn no_firewall(&mut self) {
        let mut batch = Batch::new();
        batch.delete_table(FIREWALL);
        self.host.nfnl.commit(batch).unwrap();
    }

    /// A directory in the place of /proc with these files.
    fn proc(&mut self, files: &[(&str, &str)]) {
        self.host.proc = self.dir.path().join("proc");
        for (path, content) in files {
            let path = self.host.proc.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    }

    fn look(&mut self, name: &str) -> Vec<Finding> {
        let check = CHECKS.iter().find(|it| it.name == name).unwrap();
        let host = &mut self.host;
        self.netns.run(|| findings(host, check)).unwrap()
    }

    /// The check finds just this, and says so.
    fn is_red(&mut self, name: &str, state: State, words: &[&str]) {
        let found = self.look(name);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert_eq!(found[0].state, state, "{found:#?}");
        let told = format!("{}\n{}\n{}", found[0].cause, found[0].evidence, found[0].advice);
        for word in words {
            assert!(told.contains(word), "{word:?} is not in: {told}");
        }
        assert!(!found[0].evidence.is_empty() && !found[0].advice.is_empty(), "{found:#?}");
    }

    fn is_green(&mut self, name: &str) {
        let found = self.look(name);
        assert!(found.len() == 1 && found[0].state == State::Ok, "{found:#?}");
    }
}

#[test]
fn forwarding_that_is_off_is_told_for_each_family() {
    let mut patient = Patient::new();
    patient.is_green("forwarding");
    patient.set("net/ipv4/ip_forward", "0");
    patient.is_red("forwarding", State::Failed, &["net.ipv4.ip_forward is 0"]);
    patient.set("net/ipv4/ip_forward", "1");
    patient.set("net/ipv6/conf/all/forwarding", "0");
    patient.is_red("forwarding", State::Failed, &["net.ipv6.conf.all.forwarding is 0"]);
}

#[test]
fn ipv6_that_is_disabled_is_told_where_pods_are_to_have_it() {
    let mut patient = Patient::new();
    patient.is_green("ipv6");
    patient.set("net/ipv6/conf/eth0/disable_ipv6", "1");
    patient.is_red("ipv6", State::Failed, &["net.ipv6.conf.eth0.disable_ipv6 is 1"]);
    // A kernel without IPv6 has no such sysctl.
    patient.proc(&[
        ("sys/net/ipv6/conf/eth0/disable_ipv6", "0\n"),
        ("sys/net/ipv6/conf/all/disable_ipv6", "0\n"),
    ]);
    patient.is_red("ipv6", State::Failed, &["no sysctl net.ipv6.conf.default.disable_ipv6"]);
    patient.host.conflist.as_mut().unwrap().subnets.retain(IpNetwork::is_ipv4);
    patient.is_green("ipv6");
}

#[test]
fn pods_with_a_larger_mtu_than_the_way_out_are_told() {
    let mut patient = Patient::new();
    patient.is_green("mtu");
    patient.change("eth0", &Change { mtu: Some(1400), ..Change::default() });
    patient.is_red("mtu", State::Failed, &["pods have an MTU of 1500, eth0 has 1400"]);
    patient.change("eth0", &Change { mtu: Some(1550), ..Change::default() });
    patient.is_green("mtu");
    patient.tunnel(1450);
    patient.is_red("mtu", State::Failed, &["pods have an MTU of 1500, podnet-vxlan has 1450"]);
    patient.change(VXLAN[0], &Change { mtu: Some(1501), ..Change::default() });
    patient.is_red(
        "mtu",
        State::Failed,
        &["podnet-vxlan has an MTU of 1501, with 50 bytes around that are more than the 1550 of eth0"],
    );
    patient.change(VXLAN[0], &Change { mtu: Some(1500), ..Change::default() });
    patient.is_green("mtu");
}

#[test]
fn a_strict_reverse_path_filter_is_told_where_there_is_more_than_one_way() {
    let mut patient = Patient::new();
    for (place, value) in [("all", "0"), ("default", "0"), ("eth0", "1")] {
        patient.set(&format!("net/ipv4/conf/{place}/rp_filter"), value);
    }
    // With one link there is no other way.
    patient.is_green("rp-filter");
    patient.tunnel(1450);
    patient.is_red("rp-filter", State::Warning, &["net.ipv4.conf.eth0.rp_filter is 1"]);
    patient.set("net/ipv4/conf/eth0/rp_filter", "2");
    patient.is_green("rp-filter");
    // As kind's nodes have it.
    patient.set("net/ipv4/conf/all/rp_filter", "1");
    patient.is_red("rp-filter", State::Warning, &["podnet-vxlan", "net.ipv4.conf.all.rp_filter is 1"]);
    patient.set("net/ipv4/conf/podnet-vxlan/rp_filter", "2");
    patient.is_green("rp-filter");
}

#[test]
fn a_firewall_that_drops_what_is_forwarded_is_named_by_table_and_chain() {
    let mut patient = Patient::new();
    let pods = "10.244.0.0/16".parse().unwrap();
    patient.is_green("forward-chain");
    patient.firewall(Point::Forward, false, &[]);
    patient.is_red(
        "forward-chain",
        State::Failed,
        &["IPv4", "table ip filter, chain FORWARD: policy drop", "10.244.1.0/24"],
    );
    patient.no_firewall();
    // What lets pods through makes the policy harmless; what lets something else through does not.
    patient.firewall(Point::Forward, false, &[Rule::new().saddr(Op::Eq, pods).counter().accept()]);
    patient.is_green("forward-chain");
    patient.no_firewall();
    let other = "10.99.0.0/16".parse().unwrap();
    patient.firewall(Point::Forward, false, &[Rule::new().saddr(Op::Eq, other).accept()]);
    patient.is_red("forward-chain", State::Failed, &["policy drop"]);
    patient.no_firewall();
    // As firewalld ends its chain: answers pass, the rest is refused.
    let answers = Rule::new().ct_state(kernel::nft::ct_state::ESTABLISHED).accept();
    patient.firewall(Point::Forward, true, &[answers, Rule::new().counter().reject()]);
    patient.is_red("forward-chain", State::Failed, &["table ip filter, chain FORWARD: rule", "drops them"]);
    patient.no_firewall();
    // A rule about something else drops nothing of pods.
    patient.firewall(Point::Forward, true, &[Rule::new().iifname(Op::Eq, "eth7").drop()]);
    patient.is_green("forward-chain");
    patient.no_firewall();
    // Only at another hook.
    patient.firewall(Point::Output, false, &[]);
    patient.is_green("forward-chain");
}

#[test]
fn a_firewall_is_followed_into_the_chains_that_it_jumps_to() {
    let mut patient = Patient::new();
    patient.firewall(Point::Forward, true, &[]);
    let mut batch = Batch::new();
    batch.add_chain(FIREWALL, "ZONES", None).append(FIREWALL, "ZONES", &Rule::new().drop());
    batch.append(FIREWALL, "FORWARD", &Rule::new().jump("ZONES"));
    patient.host.nfnl.commit(batch).unwrap();
    patient.is_red("forward-chain", State::Failed, &["table ip filter, chain ZONES: rule"]);
    let mut batch = Batch::new();
    batch.insert(FIREWALL, "ZONES", &Rule::new().return_());
    patient.host.nfnl.commit(batch).unwrap();
    patient.is_green("forward-chain");
}

#[test]
fn rules_that_only_iptables_legacy_can_read_are_told() {
    let mut patient = Patient::new();
    patient.proc(&[("thread-self/net/ip_tables_names", "nat\n")]);
    patient.is_green("forward-chain");
    patient.proc(&[("thread-self/net/ip_tables_names", "nat\nfilter\n")]);
    patient.is_red("forward-chain", State::Warning, &["iptables-legacy -S FORWARD"]);
}

#[test]
fn a_firewall_that_drops_tunnels_is_told_where_there_is_a_tunnel() {
    let mut patient = Patient::new();
    patient.firewall(Point::Input, false, &[]);
    patient.is_green("vxlan-port");
    patient.tunnel(1450);
    patient.is_red(
        "vxlan-port",
        State::Failed,
        &["table ip filter, chain FORWARD: policy drop", "UDP to port 4789"],
    );
    patient.no_firewall();
    patient.firewall(Point::Input, false, &[Rule::new().l4proto(17).dport(Op::Eq, 8472).accept()]);
    patient.is_red("vxlan-port", State::Failed, &["policy drop"]);
    patient.no_firewall();
    patient.firewall(Point::Input, false, &[Rule::new().l4proto(17).dport(Op::Eq, 4789).accept()]);
    patient.is_green("vxlan-port");
}

#[test]
fn bridges_that_call_a_firewall_which_drops_are_told() {
    let mut patient = Patient::new();
    patient.firewall(Point::Forward, false, &[]);
    patient.proc(&[("sys/net/bridge/bridge-nf-call-iptables", "0\n")]);
    patient.is_green("bridge-nf");
    patient.proc(&[("sys/net/bridge/bridge-nf-call-iptables", "1\n")]);
    patient.is_red("bridge-nf", State::Failed, &["net.bridge.bridge-nf-call-iptables is 1", "policy drop"]);
    patient.no_firewall();
    patient.is_green("bridge-nf");
}

#[test]
fn containers_that_may_not_talk_to_each_other_are_told_with_their_bridge() {
    let mut patient = Patient::new();
    let (bridge, other) = ("br-kind", "br-other");
    let drop = |from: &str, to: &str| Rule::new().iifname(Op::Eq, from).oifname(Op::Eq, to).counter().drop();
    patient.firewall(Point::Forward, true, &[drop(bridge, other)]);
    patient.is_green("icc");
    patient.no_firewall();
    let of_mark = Rule::new()
        .iifname(Op::Eq, bridge)
        .oifname(Op::Eq, bridge)
        .expr(Expr::Meta { key: Meta::Mark, dreg: Reg::R1 })
        .expr(Expr::Cmp { sreg: Reg::R1, op: Op::Eq, data: vec![1, 0, 0, 0] })
        .drop();
    patient.firewall(Point::Forward, true, &[of_mark]);
    patient.is_green("icc");
    patient.no_firewall();
    patient.firewall(Point::Forward, true, &[drop(bridge, bridge)]);
    patient.is_red("icc", State::Failed, &["br-kind", "enable_icc"]);
    assert_eq!(name_bytes(bridge).len(), 16, "names are compared whole");
}

#[test]
fn a_bridge_with_a_larger_mtu_than_the_way_out_is_told() {
    let mut patient = Patient::new();
    link::add_bridge(&mut patient.host.rtnl, &Bridge { name: "br-kind", up: true, ..Bridge::default() })
        .unwrap();
    patient.is_green("bridge-mtu");
    patient.change("eth0", &Change { mtu: Some(1400), ..Change::default() });
    patient.is_red(
        "bridge-mtu",
        State::Warning,
        &["br-kind has an MTU of 1500, eth0 of 1400", "driver.mtu=1400"],
    );
}

#[test]
fn a_table_of_connections_that_fills_is_told_before_and_when_it_is_full() {
    let mut patient = Patient::new();
    patient.is_green("conntrack");
    let mut filled = |count: &str| {
        patient.proc(&[
            ("sys/net/netfilter/nf_conntrack_count", count),
            ("sys/net/netfilter/nf_conntrack_max", "1000\n"),
        ]);
        patient.look("conntrack")[0].state
    };
    assert_eq!(
        [filled("799\n"), filled("800\n"), filled("970\n")],
        [State::Ok, State::Warning, State::Failed]
    );
}

#[test]
fn a_plugin_that_is_missing_or_may_not_be_executed_is_told_by_name() {
    let mut patient = Patient::new();
    let bin = patient.host.places.plugins();
    fs::create_dir_all(&bin).unwrap();
    for name in conflist::PLUGINS {
        let answer = r#"{"cniVersion":"1.0.0","supportedVersions":["1.0.0"]}"#;
        fs::write(bin.join(name), format!("#!/bin/sh\necho '{answer}'\n")).unwrap();
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    // Another test's child may still hold what was just written.
    while patient.look("plugins").iter().any(|it| it.evidence.contains("Text file busy")) {}
    patient.is_green("plugins");
    fs::set_permissions(bin.join("portmap"), fs::Permissions::from_mode(0o644)).unwrap();
    patient.is_red("plugins", State::Failed, &["portmap"]);
    fs::remove_file(bin.join("portmap")).unwrap();
    patient.is_red("plugins", State::Failed, &["portmap"]);
}

#[test]
fn a_configuration_that_is_missing_broken_or_behind_another_is_told() {
    let mut patient = Patient::new();
    let dir = patient.host.places.configurations();
    patient.is_green("conflist");
    let kindnet = r#"{"cniVersion":"0.3.1","name":"kindnet","plugins":[{"type":"ptp"}]}"#;
    fs::write(dir.join("10-kindnet.conflist"), kindnet).unwrap();
    patient.is_green("conflist");
    fs::rename(dir.join("10-kindnet.conflist"), dir.join("00-kindnet.conflist")).unwrap();
    patient.is_red("conflist", State::Failed, &["another network (kindnet)", "00-kindnet.conflist"]);
    fs::remove_file(dir.join("00-kindnet.conflist")).unwrap();
    fs::write(dir.join(CONFLIST), "{").unwrap();
    patient.is_red("conflist", State::Failed, &["cannot be read", CONFLIST]);
    fs::remove_file(dir.join(CONFLIST)).unwrap();
    patient.is_red("conflist", State::Failed, &["not there", CONFLIST]);
}

#[test]
fn addresses_that_have_run_out_or_leaked_are_told() {
    let mut patient = Patient::new();
    let subnet: IpNetwork = "10.244.1.0/29".parse().unwrap();
    patient.host.conflist.as_mut().unwrap().subnets = vec![subnet];
    let conf = RangeConf { subnet, range_start: None, range_end: None, gateway: None };
    let set = RangeSet::resolve(&[conf]).unwrap();
    let store = Store::open(&patient.host.places.reservations(), NETWORK).unwrap();
    let slots = patient.host.places.slots();
    fs::create_dir_all(&slots).unwrap();
    for pod in 0..5 {
        patient.is_green("reservations");
        let id = format!("pod{pod}");
        store.allocate(0, &set, &Owner { container_id: &id, ifname: "eth0" }, None).unwrap();
        fs::write(slots.join(format!("{id}-eth0.json")), "{}").unwrap();
    }
    patient.is_red("reservations", State::Failed, &["10.244.1.0/29", "5 reservations", "5 of them"]);
    store.release(&Owner { container_id: "pod0", ifname: "eth0" }).unwrap();
    patient.is_green("reservations");
    // One whose pod is gone is no leak while it could be an ADD under way.
    fs::remove_file(slots.join("pod1-eth0.json")).unwrap();
    patient.is_green("reservations");
    let file = patient.host.places.reservations().join(NETWORK).join("10.244.1.3");
    let old = std::time::SystemTime::now() - crate::install::reservations::GRACE * 2;
    fs::File::options().write(true).open(file).unwrap().set_modified(old).unwrap();
    patient.is_red("reservations", State::Warning, &["1 addresses", "10.244.1.3"]);
}

#[test]
fn routes_that_another_network_left_are_told() {
    let mut patient = Patient::new();
    patient.is_green("routes");
    // A pod of ours.
    patient.wire("veth1", 1500);
    patient.change("veth1", &Change { alias: Some("podnet podnet c0 eth0"), ..Change::default() });
    patient.route("10.244.1.5/32", "veth1", |_| {});
    patient.is_green("routes");
    // An address of the node's own, as the gateway's is.
    patient.change("lo", &Change { up: Some(true), ..Change::default() });
    patient.address("lo", "fd00:10:244:1::1/128");
    patient.is_green("routes");
    // A bridge of another network, with our PodCIDR on it.
    link::add_bridge(&mut patient.host.rtnl, &Bridge { name: "cni0", up: true, ..Bridge::default() })
        .unwrap();
    let stale = patient.route("10.244.1.0/24", "cni0", |_| {});
    patient.is_red("routes", State::Failed, &["10.244.1.0/24", "cni0", "ip link del cni0"]);
    route::delete(&mut patient.host.rtnl, &stale).unwrap();
    // A route to a peer that is taken instead of ours.
    patient.host.agent = Ok(json!({ "peers": { "node2": { "paths": [{ "podCidr": "10.244.2.0/24" }] } } }));
    patient.route("10.244.2.0/24", "eth0", |route| {
        (route.protocol, route.priority) = (ROUTE_PROTOCOL, Some(10));
        route.gateway = Some("192.0.2.12".parse().unwrap());
    });
    patient.is_green("routes");
    let rival = patient.route("10.244.2.0/24", "veth1", |route| route.priority = Some(5));
    patient.is_red("routes", State::Failed, &["taken instead", "10.244.2.0/24", "veth1"]);
    route::delete(&mut patient.host.rtnl, &rival).unwrap();
    patient.is_green("routes");
    // A route of ours to a node that is gone.
    patient.host.agent = Ok(json!({ "peers": {} }));
    patient.is_red("routes", State::Warning, &["10.244.2.0/24", "which no Node has"]);
}

#[test]
fn a_feature_that_the_kernel_lacks_is_named_with_its_words() {
    let mut patient = Patient::new();
    patient.is_green("kernel");
    let found = setup::lacking_made_up(&mut patient.host.nfnl);
    assert_eq!(found.len(), 1, "what the kernel has is not told: {found:#?}");
    assert!(found[0].cause.contains("lacks something made up, for this test"), "{found:#?}");
    assert!(found[0].evidence.contains("no such file or directory"), "{found:#?}");
    // Nothing was made.
    assert_eq!(kernel::nft::tables(&mut patient.host.nfnl, None).unwrap(), []);
}

#[test]
fn an_agent_that_is_not_there_or_not_ready_is_told() {
    let mut patient = Patient::new();
    patient.is_green("agent");
    patient.host.agent = Ok(json!({ "conditions": [
        { "condition": "api", "met": true, "reason": "" },
        { "condition": "routes", "met": false, "reason": "no route to 10.244.2.0/24" },
    ] }));
    patient.is_red("agent", State::Failed, &["not ready: routes", "no route to 10.244.2.0/24"]);
    patient.host.agent = Err("connection refused".to_owned());
    patient.is_red("agent", State::Failed, &["no podnetd answers", "connection refused"]);
}

#[tokio::test]
async fn an_agent_is_known_by_its_document() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let err = format!("{:#}", cli::ask(nobody).unwrap_err());
    assert!(err.contains(&nobody.to_string()), "{err}");
    let listener = crate::serve::listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let board = crate::status::Board::new("node1");
    tokio::spawn(crate::serve::serve(listener, board, crate::metrics::Counters::default()));
    let status = tokio::task::spawn_blocking(move || cli::ask(address)).await.unwrap().unwrap();
    assert_eq!(status["node"], "node1");
}

#[test]
fn every_check_stands_once_and_says_what_is_fine() {
    let mut names: Vec<&str> = CHECKS.iter().map(|it| it.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), CHECKS.len());
    let tests: String = include_str!("tests.rs").split_whitespace().collect();
    for check in CHECKS {
        assert!(!check.fine.is_empty() && !check.scopes.is_empty());
        let red = [format!("is_red(\"{}\"", check.name), format!("look(\"{}\")[0]", check.name)];
        let made_up = check.name == "kernel" && tests.contains("lacking_made_up(");
        assert!(made_up || red.iter().any(|it| tests.contains(it)), "nothing turns {} red", check.name);
    }
}

#[test]
fn findings_are_told_as_text_and_by_a_code() {
    let finding = |check, state| Finding {
        check,
        state,
        cause: "what is so".to_owned(),
        evidence: if state == State::Ok { String::new() } else { "where".to_owned() },
        advice: if state == State::Ok { String::new() } else { "what to do".to_owned() },
    };
    let all = [
        finding("mtu", State::Ok),
        finding("rp-filter", State::Warning),
        finding("plugins", State::Unknown),
        finding("forwarding", State::Failed),
    ];
    assert_eq!([1, 2, 3, 4].map(|count| exit_code(&all[..count])), [0, 3, 4, 1]);
    insta::assert_snapshot!(text(&all), @r"
    ok       mtu         what is so
    WARNING  rp-filter   what is so
                         seen: where
                         try: what to do
    UNKNOWN  plugins     what is so
                         seen: where
                         try: what to do
    FAILED   forwarding  what is so
                         seen: where
                         try: what to do
    1 ok, 1 warnings, 1 failed, 1 unknown
    ");
}

#[test]
fn a_healthy_machine_has_nothing_to_tell() {
    let mut patient = Patient::new();
    let host = &mut patient.host;
    let found = patient.netns.run(|| examine(host, Scope::Machine)).unwrap();
    assert!(found.iter().all(|it| it.state == State::Ok), "{found:#?}");
    let all: Vec<&str> = found.iter().map(|it| it.check).collect();
    assert_eq!(all, ["kernel", "conntrack", "bridge-nf", "icc", "bridge-mtu"]);
    assert!(Path::new("/proc/thread-self/net").exists());
}
