//! Every check by its cause: made in a namespace of its own, it turns the check red and says where it is; taken away, the
//! check is green again. Causes that are the whole machine's (a full table of connections, rules of iptables-legacy) are
//! told by a directory in the place of /proc.

mod network;
mod node;

use std::fs;
use std::net::IpAddr;

use kernel::link::{self, Change, LinkKind, NewLink, Veth};
use kernel::nft::{Batch, ChainKind, Family as NftFamily, Hook, Point, Rule, Table};
use kernel::route::{self, Route};
use kernel::{Netns, addr, sysctl};
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::install::conflist;
use crate::model::Node;
use crate::routing::{PORT, PROTOCOL, VNI, tunnel_name};

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
        let kind = LinkKind::Vxlan { vni: VNI, local: IpAddr::from([192, 0, 2, 11]), port: PORT };
        let tunnel = NewLink { mtu, up: true, ..NewLink::new(tunnel_name(Family::V4), kind) };
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
fn every_check_stands_once_and_says_what_is_fine() {
    let mut names: Vec<&str> = CHECKS.iter().map(|it| it.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), CHECKS.len());
    let tests = concat!(include_str!("network.rs"), include_str!("node.rs"));
    let tests: String = tests.split_whitespace().collect();
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
}
