//! Values in, values out: no kernel is asked. Packets are the affair of the end-to-end tests.

use std::collections::HashSet;

use super::blocks::{self, Interval};
use super::compile::{Compiler, Local, compile, locals};
use super::explain::{self, Asked, Who};
use super::program::{Set, Target};
use super::slots::{Slot, Slots};
use crate::model::{Change, Cluster, Key};

/// Two nodes; x/a and x/b on n0, w/a on n1, a hostNetwork pod on n1; policies of both directions.
const MANIFEST: &str = r#"
kind: Node
metadata: {name: n0}
spec: {podCIDRs: [10.244.0.0/24, "fd00:0::/64"]}
status: {addresses: [{type: InternalIP, address: 172.18.0.10}]}
---
kind: List
items:
- kind: Node
  metadata: {name: n1}
  spec: {podCIDR: 10.244.1.0/24}
  status: {addresses: [{type: InternalIP, address: 172.18.0.11}]}
- kind: Namespace
  metadata: {name: w, labels: {team: blue}}
- kind: Pod
  metadata: {namespace: x, name: a, uid: ua, labels: {app: web}}
  spec:
    nodeName: n0
    containers: [{name: c, ports: [{name: http, containerPort: 8080}, {name: dns, containerPort: 53, protocol: UDP}]}]
  status: {podIPs: [{ip: 10.244.0.2}, {ip: "fd00::2"}]}
- kind: Pod
  metadata: {namespace: x, name: b, uid: ub, labels: {app: db}}
  spec: {nodeName: n0, containers: [{name: c, ports: [{name: http, containerPort: 80}]}]}
  status: {podIPs: [{ip: 10.244.0.3}]}
- kind: Pod
  metadata: {namespace: w, name: a, uid: uw, labels: {app: web}}
  spec: {nodeName: n1, containers: [{name: c, ports: [{name: http, containerPort: 8081}]}]}
  status: {podIPs: [{ip: 10.244.1.2}]}
- kind: Pod
  metadata: {namespace: w, name: host, uid: uh, labels: {app: web}}
  spec: {nodeName: n1, hostNetwork: true, containers: [{name: c}]}
  status: {podIPs: [{ip: 172.18.0.11}]}
- kind: Service
  metadata: {name: passed-over}
---
kind: NetworkPolicyList
items:
- metadata: {namespace: x, name: web}
  spec:
    podSelector: {matchLabels: {app: web}}
    policyTypes: [Ingress, Egress]
    ingress:
    - from: [{namespaceSelector: {matchLabels: {team: blue}}}, {ipBlock: {cidr: 172.18.0.0/24, except: [172.18.0.10/31]}}]
      ports: [{port: http}, {port: 1000, endPort: 2000}, {port: 1500, endPort: 3000}, {port: 9}]
    egress:
    - ports: [{port: 53, protocol: UDP}]
    - to: [{podSelector: {}}, {namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}]
      ports: [{port: http}]
- metadata: {namespace: x, name: deny}
  spec: {podSelector: {matchExpressions: [{key: app, operator: Exists}]}, policyTypes: [Ingress]}
"#;

fn cluster() -> Cluster {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("all.yaml"), MANIFEST).unwrap();
    std::fs::write(dir.path().join("README"), "no manifest: [").unwrap();
    explain::from_manifests(&[dir.path().to_owned()]).unwrap()
}

#[test]
fn intervals_are_joined_and_subtracted() {
    let none: Vec<Interval> = Vec::new();
    assert_eq!(blocks::union(vec![(5, 9), (1, 2), (3, 3), (9, 12), (20, 19)]), [(1, 3), (5, 12)]);
    assert_eq!(blocks::union(vec![(0, u128::MAX), (4, 5)]), [(0, u128::MAX)]);
    assert_eq!(blocks::difference((10, 20), vec![]), [(10, 20)]);
    assert_eq!(blocks::difference((10, 20), vec![(12, 13), (20, 30), (0, 10)]), [(11, 11), (14, 19)]);
    assert_eq!(blocks::difference((10, 20), vec![(0, 30)]), none);
    assert_eq!(blocks::difference((0, u128::MAX), vec![(1, u128::MAX)]), [(0, 0)]);
    // Every number below 40, against what the words say.
    for (a, b, c, d) in [(3, 9, 7, 30), (7, 30, 3, 9), (5, 5, 5, 5), (0, 39, 0, 0), (10, 12, 20, 22)] {
        let left = blocks::difference((2, 37), vec![(a, b), (c, d)]);
        for n in 0..40 {
            let wanted = (2..=37).contains(&n) && !(a..=b).contains(&n) && !(c..=d).contains(&n);
            assert_eq!(
                left.iter().any(|(first, last)| (*first..=*last).contains(&n)),
                wanted,
                "{n} of {left:?}"
            );
        }
    }
    let nets =
        |text: &[&str]| text.iter().map(|it| it.parse().unwrap()).collect::<Vec<ipnetwork::IpNetwork>>();
    let (all, except) = (nets(&["10.0.0.0/8"])[0], nets(&["10.0.0.0/9", "fd00::/8"]));
    let found = blocks::of_blocks([(&all, except.as_slice())], false);
    let texts: Vec<String> = found
        .iter()
        .map(|(first, last)| format!("{}-{}", blocks::address(*first, false), blocks::address(*last, false)))
        .collect();
    assert_eq!(texts, ["10.128.0.0-10.255.255.255"]);
    assert_eq!(blocks::of_blocks([(&all, &[][..])], true), none);
}

#[test]
fn a_program_of_a_node() {
    insta::assert_snapshot!(compile(&cluster(), "n0", &[]));
}

#[test]
fn a_program_has_the_same_names_everywhere_and_only_what_its_node_needs() {
    let cluster = cluster();
    let (one, other) = (compile(&cluster, "n0", &[]), compile(&cluster, "n1", &[]));
    assert_eq!(one, compile(&cluster.clone(), "n0", &[]));
    assert!(other.sets.is_empty() && other.chains.len() == 3, "{other}");
    assert_eq!(other.pods.len(), 1, "a hostNetwork pod has no address of its own: {other}");
    let mut same = cluster.clone();
    let mut twin = same.policies[&Key::new("x", "web")].clone();
    twin.key = Key::new("x", "web2");
    same.take(Change::Policy(twin));
    let twins = compile(&same, "n0", &[]);
    assert_eq!(twins.sets, one.sets, "the same peers and ports are the same sets");
    assert_eq!(twins.chains.len(), one.chains.len() + 2);
}

/// What is kept from one time to the next has to come to the same as a compilation from nothing.
#[test]
fn changes_step_by_step_come_to_the_same_as_from_nothing() {
    let mut cluster = cluster();
    let mut compiler = Compiler::new("n0");
    let none = HashSet::new();
    let mut same = |cluster: &Cluster, what: &str| {
        let (step, anew) = (compiler.compile(cluster, &[], &none), compile(cluster, "n0", &[]));
        assert_eq!(step, anew, "{what}:\n{step}\nfrom nothing:\n{anew}");
        anew
    };
    let key = |namespace: &str, name: &str| Key::new(namespace, name);
    let mut last = same(&cluster, "at first");
    let mut next = |cluster: &Cluster, what: &str| {
        let program = same(cluster, what);
        assert_ne!(last, program, "{what} changes nothing");
        last = program;
    };
    let mut pod = cluster.pods[&key("w", "a")].clone();
    pod.labels.insert("app".into(), "other".into());
    cluster.take(Change::Pod(pod.clone()));
    next(&cluster, "labels of a peer");
    pod.labels.insert("app".into(), "web".into());
    pod.ips = vec!["10.244.1.9".parse().unwrap()];
    cluster.take(Change::Pod(pod.clone()));
    next(&cluster, "address and labels of a peer");
    pod.ports[0].port = 9000;
    cluster.take(Change::Pod(pod.clone()));
    next(&cluster, "named port of a peer");
    let mut twin = pod.clone();
    twin.key = key("w", "twin");
    cluster.take(Change::Pod(twin));
    next(&cluster, "two pods claim one address");
    cluster.take(Change::PodGone(key("w", "twin")));
    next(&cluster, "and one of them is gone");
    let mut namespace = cluster.namespaces["w"].clone();
    namespace.labels.remove("team");
    cluster.take(Change::Namespace(namespace.clone()));
    next(&cluster, "labels of a namespace");
    cluster.take(Change::NamespaceGone("w".into()));
    next(&cluster, "a namespace is gone");
    cluster.take(Change::Namespace(namespace));
    next(&cluster, "and back");
    let web = cluster.policies[&key("x", "web")].clone();
    cluster.take(Change::PolicyGone(key("x", "web")));
    next(&cluster, "a policy is gone");
    cluster.take(Change::Policy(web.clone()));
    next(&cluster, "and back");
    let mut closed = web;
    closed.egress = Some(Vec::new());
    cluster.take(Change::Policy(closed));
    next(&cluster, "a policy's rules");
    let mut local = cluster.pods[&key("x", "a")].clone();
    local.ips.pop();
    cluster.take(Change::Pod(local.clone()));
    next(&cluster, "a local pod's addresses");
    local.ports.clear();
    cluster.take(Change::Pod(local));
    next(&cluster, "a local pod's named ports");
    cluster.take(Change::PodGone(key("x", "b")));
    next(&cluster, "a local pod is gone");
}

fn slot(container: &str, address: &str, pod: Option<(&str, &str)>) -> Slot {
    Slot {
        container: container.into(),
        ifname: "eth0".into(),
        addresses: vec![address.parse().unwrap()],
        key: pod.map(|(name, _)| Key::new("x", name)),
        uid: pod.map(|(_, uid)| uid.to_owned()).unwrap_or_default(),
    }
}

#[test]
fn an_address_is_whose_record_says_so() {
    let cluster = cluster();
    let of = |slots: &[Slot], released: &[&str]| {
        let released = released.iter().map(|it| (*it).to_owned()).collect();
        let all = locals(&cluster, "n0", slots, &released);
        all.iter()
            .map(|(ip, local)| match local {
                Local::Pod(pod) => format!("{ip} {}", pod.key),
                Local::Other => format!("{ip} other"),
            })
            .collect::<Vec<_>>()
    };
    // Pods that were there before this network have what the API tells.
    assert_eq!(of(&[], &[]), ["10.244.0.2 x/a", "10.244.0.3 x/b", "fd00::2 x/a"]);
    assert_eq!(of(&[], &["ua"]), ["10.244.0.3 x/b"]);
    assert_eq!(of(&[slot("c", "10.244.0.9", None)], &["ua", "ub"]), ["10.244.0.9 other"]);
    // A record takes the address from a pod that had it, and closes it until its own pod is known.
    let unknown = slot("c", "10.244.0.2", Some(("new", "u")));
    assert_eq!(of(&[unknown], &["ub"]), ["fd00::2 x/a"]);
    // A pod of the same name that is another one says nothing; one with the same address is its mirror.
    assert_eq!(of(&[slot("c", "10.244.0.9", Some(("a", "other")))], &["ua", "ub"]), [""; 0]);
    assert_eq!(of(&[slot("c", "10.244.0.9", Some(("a", "ua")))], &["ua", "ub"]), ["10.244.0.9 x/a"]);
    assert_eq!(of(&[slot("c", "10.244.0.2", Some(("a", "static")))], &["ua", "ub"]), ["10.244.0.2 x/a"]);
    let open = compile(&cluster, "n0", &[slot("c", "10.244.0.9", None)]);
    assert_eq!(open.pods[&"10.244.0.9".parse().unwrap()].ingress, Target::Open);
}

#[test]
fn records_are_read_and_those_that_are_none_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let (none, refused) = Slots::read(&dir.path().join("absent")).unwrap();
    assert!(none.all().next().is_none() && refused.is_empty());
    write(
        "c1-eth0.json",
        r#"{"container":"c1","ifname":"eth0","network":"n","addresses":["10.244.0.2","fd00::2"],"namespace":"x","name":"a","uid":"ua"}"#,
    );
    write("c2-eth0.json", r#"{"container":"c2","ifname":"eth0","addresses":["10.244.0.3"]}"#);
    write("c3-eth0.json", r#"{"container":"c3","#);
    write("c4-eth0.77", "being written");
    let (mut slots, refused) = Slots::read(dir.path()).unwrap();
    assert!(refused.len() == 1 && refused[0].contains("c3-eth0.json"), "{refused:?}");
    let all: Vec<Slot> = slots.all().cloned().collect();
    assert_eq!((all.len(), &all[0].key, &all[1].key), (2, &Some(Key::new("x", "a")), &None));
    // An address that is given anew is its last one's.
    slots.put(slot("c5", "10.244.0.2", Some(("b", "ub"))));
    assert_eq!(slots.all().map(|it| it.container.as_str()).collect::<Vec<_>>(), ["c2", "c5"]);
    assert!(slots.remove(&slot("c1", "10.244.0.2", None)).is_none() && slots.released().is_empty());
    assert!(slots.remove(&slot("c5", "10.244.0.2", None)).is_some());
    assert!(slots.released().contains("ub"));
    slots.tidy(&cluster());
    assert!(slots.released().contains("ub"), "the API still tells its addresses");
    slots.tidy(&Cluster::default());
    assert!(slots.released().is_empty());
    slots.follow(Slots::read(dir.path()).unwrap().0);
    assert_eq!(slots.all().count(), 2);
}

fn explained(source: &str, destination: &str, port: &str) -> String {
    let parse = |text: &str| text.parse::<Who>().unwrap();
    let asked: Asked = port.parse().unwrap();
    match explain::explain(&cluster(), &parse(source), &parse(destination), &asked) {
        Ok(all) => explain::text(&all),
        Err(error) => format!("{error:#}\n"),
    }
}

#[test]
fn explanations_name_the_policy_and_its_rule() {
    let mut text = String::new();
    for (source, destination, port) in [
        ("w/a", "x/a", "http"),
        ("w/a", "x/a", "1999/TCP"),
        ("w/a", "x/a", "53/udp"),
        ("x/a", "x/b", "80"),
        ("x/a", "w/a", "8081"),
        ("x/a", "w/a", "8080"),
        ("x/a", "x/a", "1"),
        ("node/n0", "x/a", "1"),
        ("10.244.0.1", "x/a", "1"),
        ("node/n1", "x/a", "9"),
        ("w/host", "x/a", "9"),
        ("172.18.0.77", "10.244.0.2", "9"),
        ("fd99::1", "x/a", "9"),
        ("8.8.8.8", "9.9.9.9", "9"),
        ("x/b", "w/a", "dns"),
        ("x/nobody", "w/a", "80"),
        ("node/n7", "w/a", "80"),
        ("fd99::1", "w/a", "80"),
    ] {
        text += &format!("> {source} {destination} {port}\n{}", explained(source, destination, port));
    }
    insta::assert_snapshot!(text);
}

#[test]
fn explanations_are_json_and_what_cannot_be_asked_is_refused() {
    let (who, port) = (|text: &str| text.parse::<Who>(), |text: &str| text.parse::<Asked>());
    let all =
        explain::explain(&cluster(), &who("w/a").unwrap(), &who("x/a").unwrap(), &port("http").unwrap())
            .unwrap();
    insta::assert_snapshot!(serde_json::to_string_pretty(&all).unwrap());
    for wrong in ["", "a", "/a", "a/", "a/b/c"] {
        assert!(who(wrong).is_err(), "{wrong:?} is taken");
    }
    for wrong in ["", "0", "65536", "80/ICMP", "80/"] {
        assert!(port(wrong).is_err(), "{wrong:?} is taken");
    }
}

#[test]
fn manifests_that_are_wrong_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.yaml");
    for (text, words) in [
        (
            "kind: Pod\nmetadata: {name: a}\n---\nkind: NetworkPolicy\nmetadata: {name: p}\nspec: {podSelector: 7}\n",
            "document 2: NetworkPolicy p",
        ),
        ("kind: [", "p.yaml"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = format!("{:#}", explain::from_manifests(std::slice::from_ref(&path)).unwrap_err());
        assert!(error.contains(words), "{error}");
    }
    let empty = tempfile::tempdir().unwrap();
    assert!(explain::from_manifests(&[empty.path().to_owned()]).is_err());
    // Pods that nobody has scheduled yet have no address.
    std::fs::write(&path, "kind: Pod\nmetadata: {namespace: q, name: a}\n---\nkind: NetworkPolicy\nmetadata: {namespace: q, name: p}\nspec: {podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}\n---\nkind: Pod\nmetadata: {namespace: q, name: b}\n").unwrap();
    let cluster = explain::from_manifests(&[path]).unwrap();
    let (a, b) = ("q/a".parse().unwrap(), "q/b".parse().unwrap());
    let all = explain::explain(&cluster, &a, &b, &"80".parse().unwrap()).unwrap();
    assert!(all[0].allowed && all[0].notes.len() == 2, "{all:?}");
}

#[test]
fn sets_of_one_family_hold_no_address_of_the_other() {
    for (name, set) in compile(&cluster(), "n0", &[]).sets {
        if let Set::Pods { ipv6, addresses } = &set {
            assert!(addresses.keys().all(|it| it.is_ipv6() == *ipv6), "{name} {set}");
        }
    }
}
