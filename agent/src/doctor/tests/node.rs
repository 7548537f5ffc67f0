//! What is put on a node and what collects there.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use ipam::range::RangeConf;
use ipam::{Owner, RangeSet, Store};
use kernel::link::Bridge;

use super::*;
use crate::places::{CONFLIST, NETWORK};

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
    patient.wire("veth1", 1500);
    let mut routes = Vec::new();
    for pod in 0..5 {
        patient.is_green("reservations");
        let id = format!("pod{pod}");
        store.allocate(0, &set, &Owner { container_id: &id, ifname: "eth0" }, None).unwrap();
        routes.push(patient.route(&format!("10.244.1.{}/32", pod + 2), "veth1", |_| {}));
    }
    patient.is_red("reservations", State::Failed, &["10.244.1.0/29", "5 reservations", "5 of them"]);
    store.release(&Owner { container_id: "pod0", ifname: "eth0" }).unwrap();
    patient.is_green("reservations");
    // One whose pod is gone is no leak while it could be an ADD under way.
    route::delete(&mut patient.host.rtnl, &routes[1]).unwrap();
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
        (route.protocol, route.priority) = (PROTOCOL, Some(10));
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
    assert!(found.cause.contains("lacks something for this test"), "{found:#?}");
    assert!(found.evidence.contains("no such file or directory"), "{found:#?}");
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
