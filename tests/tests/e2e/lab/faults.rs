//! Faults: each turns a check red, or shows in an observation; `why` finds it; healing it leaves nothing.
//!
//! ```text
//!  fabric ─┬ node1 ─ kubia-1 (web), kubia-2      ROUTED, SERVICES, TUNNEL: which fault shows in which check,
//!          ├ node2 ─ kubia-3 (web), kubia-4      between which two it is looked for, and what is to be found
//!          └ outside
//! ```
//! Together the tables name every fault of the catalogue and every check of `verify`.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use podnet_tests::devices;
use podnet_tests::workers::workers;
use serde_json::Value;

use super::verdicts::{SMALL, kinds, rulings, verdicts};
use super::{Lab, command, podlab, text};

/// Where a fault shows.
#[derive(Debug, Clone, Copy)]
enum Shows {
    /// In a check of `verify`, by a finding of one of these kinds.
    In(&'static str, &'static [&'static str]),
    /// In what `why` observes: the check is green, and this is in the symptom.
    As(&'static str, &'static str),
}

use Shows::{As, In};

/// Fault, where it shows, between whom it is looked for, and what `why` is to name: the place and the part.
type Row = (&'static str, Shows, (&'static str, &'static str), (&'static str, &'static str));

const PAIR: (&str, &str) = ("kubia-1", "kubia-3");
const BACK: (&str, &str) = ("kubia-3", "kubia-1");

const ROUTED: [Row; 22] = [
    ("link-down", In("egress", &["unreachable"]), PAIR, ("fabric", "node1")),
    ("veth-down", In("same-node", &["no-packet"]), PAIR, ("node1", "veth")),
    ("port-detached", In("same-node", &["unreachable"]), PAIR, ("node1", "veth")),
    ("lo-down", In("container-localhost", &["no-packet"]), ("kubia-1", "kubia-1"), ("kubia-1", "lo")),
    ("route-missing", In("cross-node", &["unreachable"]), PAIR, ("node1", "route 10.244.2.0/24")),
    ("route-blackhole", In("cross-node", &["unreachable"]), PAIR, ("node1", "route 10.244.2.0/24")),
    ("route-loop", In("cross-node", &["unreachable"]), PAIR, ("node2", "route 10.244.2.0/25")),
    ("no-default-route", In("ingress", &["unreachable"]), PAIR, ("kubia-1", "route default route")),
    ("dup-ip", In("unique-address", &["address-shared"]), BACK, ("kubia-2", "address 10.244.1.2")),
    ("wrong-prefix", In("cross-node", &["unreachable"]), PAIR, ("kubia-1", "address")),
    ("dup-mac", In("same-node", &["unreachable"]), ("kubia-1", "kubia-2"), ("kubia-2", "MAC")),
    ("bad-neigh", In("cross-node", &["unreachable"]), PAIR, ("node1", "neighbour 192.0.2.12")),
    ("forward-off", In("ingress", &["unreachable"]), PAIR, ("node1", "ip_forward")),
    ("rp-filter", In("cross-node", &["unreachable"]), BACK, ("node1", "rp_filter of eth0")),
    ("masq-all", In("cross-node", &["source-rewritten"]), PAIR, ("node1", "chain ip nat postrouting")),
    ("fw-drop", In("ingress", &["unreachable"]), BACK, ("node1", "chain ip guard forward")),
    ("fw-reject", In("ingress", &["unreachable"]), BACK, ("node1", "chain ip guard forward")),
    ("loss:60", In("cross-node", &["unreachable"]), PAIR, ("node1", "chain netdev wire ingress")),
    (
        "drop-every:5",
        As("unique-address", "4 of 20 pings got no answer"),
        PAIR,
        ("node1", "chain netdev wire ingress"),
    ),
    ("rate:64", As("same-node", "node1 held a large packet for"), PAIR, ("node1", "qdisc of eth0")),
    (
        "mtu-hole:1400",
        As("cross-node", "small packets pass, a large request is TIMEOUT"),
        PAIR,
        ("fabric", "node1"),
    ),
    ("bind-localhost", In("same-node", &["unreachable"]), BACK, ("kubia-1", "port 8080")),
];

const WEB: (&str, &str) = ("kubia-1", "svc/web");
const RULES: (&str, &str) = ("node1", "table ip podlab");

const SERVICES: [Row; 5] = [
    ("svc-selector", In("service-state", &["no-endpoints"]), WEB, ("svc/web", "selector")),
    ("svc-targetport", In("service-reach", &["unreachable"]), WEB, ("svc/web", "target port")),
    ("svc-stale-endpoint", In("service-share", &["unreachable"]), WEB, RULES),
    ("no-return-snat", In("service-reach", &["unreachable", "source-kept"]), ("outside", "svc/web"), RULES),
    ("hairpin-off", In("service-share", &["unreachable"]), WEB, ("node1", "veth")),
];

const TUNNEL: [Row; 4] = [
    ("vxlan-vni", In("cross-node", &["unreachable"]), PAIR, ("node1", "forwarding entry 02:00:00:1c:00:02")),
    ("vxlan-fdb", In("cross-node", &["unreachable"]), PAIR, ("node1", "forwarding entry 02:00:00:1c:00:02")),
    ("vxlan-port-blocked", In("cross-node", &["unreachable"]), PAIR, ("node1", "chain ip guard input")),
    ("bad-neigh", In("cross-node", &["unreachable"]), PAIR, ("node1", "neighbour 192.0.2.12")),
];

/// What bites when the next pod is made, and what is said then.
const NEXT_POD: [(&str, &str); 4] = [
    ("cni-missing", "failed to find plugin \"bridge\""),
    ("cni-crash", "CNI ADD of pod next"),
    ("cni-garbage", "CNI ADD of pod next"),
    ("ipam-full", "no IP addresses available"),
];
/// The one that is not over before it is healed.
const HANG: &str = "cni-hang";

fn id(fault: &str) -> &str {
    fault.split(':').next().unwrap_or(fault)
}

impl Lab {
    /// What `inspect` tells of every place of the lab, but for what moves by itself: what has happened, and what
    /// neighbours have told.
    pub(super) fn everything(&self) -> Result<Vec<(String, Value)>> {
        let inspect = |place: Option<&str>| -> Result<Value> {
            let rest: Vec<&str> = place.into_iter().chain(["-o", "json"]).collect();
            let output = self.podlab("inspect", &rest)?;
            let mut document: Value =
                serde_json::from_slice(&output.stdout).with_context(|| text(&output))?;
            if let Some(all) = document.as_object_mut() {
                all.remove("events");
            }
            if let Some(neighbours) = document["neigh"].as_array_mut() {
                neighbours.retain(|entry| entry["state"] == "permanent");
            }
            // Equal prefixes of several links are in the order in which the links came up.
            if let Some(routes) = document["routes"].as_array_mut() {
                routes.sort_by_key(ToString::to_string);
            }
            Ok(document)
        };
        let lab = inspect(None)?;
        let names = |key: &str| -> Vec<String> {
            let all = lab[key].as_array().into_iter().flatten();
            all.filter_map(|entry| entry["name"].as_str().map(str::to_owned)).collect()
        };
        let places =
            [vec!["fabric".to_owned(), "outside".to_owned()], names("nodes"), names("pods")].concat();
        let mut everything = vec![("the lab".to_owned(), lab)];
        for place in places {
            let document = inspect(Some(&place))?;
            everything.push((place, document));
        }
        Ok(everything)
    }

    /// The same, once every link is told to carry frames, which the kernel does some time after it does.
    pub(super) fn settled(&self) -> Result<Vec<(String, Value)>> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let everything = self.everything()?;
            let links = everything.iter().filter_map(|(_, state)| state["interfaces"].as_array()).flatten();
            if links.filter(|link| link["name"] != "lo").all(|link| link["state"] != "down") {
                return Ok(everything);
            }
            ensure!(Instant::now() < deadline, "a link stays down");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn succeed(&self, verb: &str, rest: &[&str]) -> Result<()> {
        let output = self.podlab(verb, rest)?;
        ensure!(output.status.success(), "{verb} {rest:?}: {}", text(&output));
        Ok(())
    }

    /// What `why` finds between two, and its exit code.
    fn why(&self, (source, target): (&str, &str)) -> Result<(i32, Value)> {
        let output = self.podlab("why", &[source, target, "-o", "json"])?;
        let found = serde_json::from_slice(&output.stdout).with_context(|| text(&output))?;
        Ok((output.status.code().unwrap_or(-1), found))
    }
}

/// What is not green: subject and evidence.
pub(super) fn reds(report: &Value) -> Vec<(&Value, &Value)> {
    let checks = report["checks"].as_array().into_iter().flatten();
    let all = checks.filter_map(|check| check["verdicts"].as_array()).flatten();
    all.filter(|it| it["ruling"] != "PASS").map(|it| (&it["subject"], &it["evidence"])).collect()
}

/// Nothing is other than it was; else what, where.
pub(super) fn unchanged(before: &[(String, Value)], lab: &Lab) -> Result<()> {
    for ((place, was), (_, is)) in before.iter().zip(lab.everything()?) {
        for (key, was) in was.as_object().into_iter().flatten() {
            ensure!(*was == is[key], "{place}: {key} was {was} and is {}", is[key]);
        }
    }
    Ok(())
}

/// The place at which a fault stands among the suspects.
pub(super) fn rank(why: &Value, (place, part): (&str, &str)) -> Option<usize> {
    let is_it = |suspect: &Value| {
        suspect["place"] == place && suspect["part"].as_str().is_some_and(|own| own.starts_with(part))
    };
    why["suspects"].as_array()?.iter().position(is_it)
}

/// One fault: red, found, healed, green, gone. The rank that `why` gives it.
fn one(lab: &Lab, before: &[(String, Value)], (fault, shows, pair, element): Row) -> Result<usize> {
    lab.succeed("break", &[fault, "-q"])?;
    let check = match shows {
        In(check, wanted) => {
            let (code, report) = lab.verify(&[check])?;
            ensure!(code == 1, "{check} is not red: {:?}", rulings(&report));
            let all = verdicts(&report, check)?;
            ensure!(
                all.iter().any(|verdict| kinds(verdict).iter().any(|kind| wanted.contains(kind))),
                "{check} has none of {wanted:?}: {:?}",
                all.iter().map(|it| &it["evidence"]).collect::<Vec<_>>()
            );
            check
        }
        As(check, _) => check,
    };
    let (code, why) = lab.why(pair)?;
    ensure!(code == 1 && why["is_broken"] == true, "why finds nothing: {why:#}");
    if let As(_, words) = shows {
        ensure!(why["symptom"].as_str().is_some_and(|own| own.contains(words)), "no {words:?} in {why:#}");
    }
    let rank = rank(&why, element).with_context(|| format!("{element:?} is not suspected: {why:#}"))?;
    ensure!(!why["suspects"][rank]["proof"].as_str().unwrap_or_default().is_empty(), "no proof: {why:#}");

    lab.succeed("heal", &[id(fault), "-q"])?;
    let (code, report) = lab.verify(&[check])?;
    ensure!(code == 0, "{check} stays red: {:?}", reds(&report));
    unchanged(before, lab)?;
    Ok(rank)
}

/// All faults of a table, by so many labs side by side; `why` has to be right at the first guess for nine in ten.
fn all(
    name: &str,
    table: &[Row],
    labs: usize,
    prepare: impl Fn(&Lab) -> Result<()> + Sync,
    mode: &str,
) -> Result<()> {
    let (next, number) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let ranks = Mutex::new(Vec::new());
    workers(labs, || {
        let own = format!("{name}{}", number.fetch_add(1, Ordering::Relaxed));
        let lab = Lab::up(&own, &[&SMALL[..], &["--mode", mode]].concat())?;
        prepare(&lab)?;
        // Every MAC has been learned by then.
        let checks: &[&str] = if name == "services" { &["service-reach"] } else { &[] };
        let (code, report) = lab.verify(checks)?;
        ensure!(code == 0, "{:?}", reds(&report));
        let before = lab.settled()?;
        while let Some(row) = table.get(next.fetch_add(1, Ordering::Relaxed)) {
            let rank = one(&lab, &before, *row).with_context(|| format!("fault {}", row.0))?;
            ranks.lock().unwrap().push((row.0, rank));
        }
        Ok(())
    })?;
    let ranks = ranks.into_inner().unwrap();
    assert_eq!(ranks.len(), table.len());
    let late: Vec<_> = ranks.iter().filter(|(_, rank)| *rank > 0).collect();
    ensure!(late.len() * 10 <= table.len(), "not the first suspect: {late:?}");
    Ok(())
}

#[test]
fn each_fault_of_the_network_turns_red_is_found_and_heals_without_a_trace() -> Result<()> {
    all("faults", &ROUTED, 3, |_| Ok(()), "routed")
}

#[test]
fn each_fault_of_services_turns_red_is_found_and_heals_without_a_trace() -> Result<()> {
    let bridges_call = lab_feature("bridges call netfilter")?;
    if !bridges_call {
        devices::report("fault hairpin-off needs bridges that call netfilter")?;
    }
    let fitting: Vec<Row> =
        SERVICES.into_iter().filter(|row| bridges_call || row.0 != "hairpin-off").collect();
    let prepare = |lab: &Lab| -> Result<()> {
        for pod in ["kubia-1", "kubia-3"] {
            lab.k(&format!("label pod {pod} app=web --overwrite"))?;
        }
        lab.k("create service nodeport web --tcp=8080:8080").map(drop)
    };
    all("services", &fitting, 1, prepare, "routed")
}

/// Whether the machine has a feature, as `doctor` says.
fn lab_feature(name: &str) -> Result<bool> {
    let output = podlab(&["doctor", "-o", "json"])?;
    let document: Value = serde_json::from_slice(&output.stdout).with_context(|| text(&output))?;
    let list = document["findings"].as_array().context("no findings")?;
    let found = list.iter().find(|entry| entry["feature"] == name).with_context(|| format!("no {name}"))?;
    Ok(found["problem"].is_null())
}

#[test]
fn each_fault_of_a_tunnel_turns_red_is_found_and_heals_without_a_trace() -> Result<()> {
    all("tunnel", &TUNNEL, 1, |_| Ok(()), "vxlan")
}

#[test]
fn faults_of_cni_bite_at_the_next_pod() -> Result<()> {
    let lab = Lab::up("next-pod", &["--nodes", "2", "--pods", "1"])?;
    let (code, report) = lab.verify(&[])?;
    ensure!(code == 0, "{:?}", reds(&report));
    let before = lab.settled()?;
    for (fault, words) in NEXT_POD {
        lab.succeed("break", &[fault, "-q"])?;
        let (code, report) = lab.verify(&[])?;
        ensure!(code == 0, "{fault}: the pods that are there go on: {:?}", reds(&report));
        let output = lab.kubectl("run next --image=kubia")?;
        ensure!(text(&output).contains(words), "{fault}: no {words:?} in {}", text(&output));
        ensure!(!lab.k("get pods")?.contains("next"), "{fault}: the pod was made");
        lab.succeed("heal", &[fault, "-q"])?;
        unchanged(&before, &lab).with_context(|| fault.to_owned())?;
        lab.k("run next --image=kubia")?;
        lab.k("delete pod next")?;
    }
    lab.succeed("break", &[HANG, "-q"])?;
    let mut hanging = command(&["kubectl", "run", "next", "--image=kubia"])?
        .env("PODLAB_NAME", &lab.name)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let deadline = Instant::now() + Duration::from_secs(60);
    while !lab.podlab("exec", &["node1", "--", "test", "-s", "/run/podlab/hanging"])?.status.success() {
        ensure!(Instant::now() < deadline, "the plugin does not hang");
        std::thread::sleep(Duration::from_millis(20));
    }
    ensure!(hanging.try_wait()?.is_none(), "nobody waits for the plugin");
    lab.succeed("heal", &[HANG, "-q"])?;
    hanging.wait()?;
    ensure!(!lab.k("get pods")?.contains("next"), "a pod whose plugin was ended was made");
    lab.k("run next --image=kubia").map(drop)
}

#[test]
fn every_fault_and_every_check_is_in_the_tables() -> Result<()> {
    let output = podlab(&["faults", "-o", "json"])?;
    let catalogue: Value = serde_json::from_slice(&output.stdout)?;
    let is_possible =
        |fault: &&Value| !fault["does"].as_str().unwrap_or_default().starts_with("not on this kernel");
    let all = catalogue["faults"].as_array().context("no faults")?;
    let listed: BTreeSet<&str> =
        all.iter().filter(is_possible).filter_map(|it| it["name"].as_str()).collect();
    let rows = || ROUTED.iter().chain(&SERVICES).chain(&TUNNEL);
    let tested: BTreeSet<&str> =
        rows().map(|row| id(row.0)).chain(NEXT_POD.iter().map(|row| row.0)).chain([HANG]).collect();
    assert_eq!(listed, tested);
    let output = podlab(&["verify", "--list", "-o", "json"])?;
    let checks: Value = serde_json::from_slice(&output.stdout)?;
    let checks = checks["checks"].as_array().context("no checks")?.iter();
    let checks: BTreeSet<&str> = checks.filter_map(|check| check["name"].as_str()).collect();
    let flipped: BTreeSet<&str> = rows()
        .filter_map(|row| match row.1 {
            In(check, _) => Some(check),
            As(..) => None,
        })
        .collect();
    assert_eq!(checks, flipped, "each check has a fault that turns it red");
    Ok(())
}

#[test]
fn a_healthy_lab_has_nothing_broken_and_wrong_use_is_told() -> Result<()> {
    let lab = Lab::up("healthy", &SMALL)?;
    for pair in
        [PAIR, ("kubia-1", "kubia-2"), ("kubia-1", "outside"), ("outside", "kubia-1"), ("kubia-1", "kubia-1")]
    {
        let (code, why) = lab.why(pair)?;
        ensure!(code == 0 && why["is_broken"] == false, "{pair:?}: {why:#}");
        assert_eq!(why["suspects"], Value::Array(Vec::new()), "{pair:?}");
    }
    let refused = |verb: &str, rest: &[&str], code: i32, words: &str| -> Result<()> {
        let output = lab.podlab(verb, rest)?;
        ensure!(output.status.code() == Some(code), "{verb} {rest:?}: {}", text(&output));
        ensure!(text(&output).contains(words), "{verb} {rest:?}: {}", text(&output));
        Ok(())
    };
    for fault in ["delay", "jitter", "reorder", "duplicate", "corrupt"] {
        refused("break", &[fault], 5, &format!("fault {fault}: it needs netem"))?;
    }
    refused("break", &["conntrack-full"], 5, "fault conntrack-full: ")?;
    refused("break", &["vxlan-vni"], 2, "mode routed has no tunnel")?;
    refused("break", &["teleport"], 2, "no fault \"teleport\"")?;
    refused("break", &["link-down", "node3"], 2, "node3")?;
    refused("break", &["link-down", "node1", "node2"], 2, "\"node2\" is too much")?;
    refused("break", &["svc-selector"], 2, "the lab has no service")?;
    refused("break", &["route-missing", "node1", "node1"], 2, "not the same twice")?;
    refused("heal", &["link-down"], 2, "fault link-down is not active")?;
    refused("why", &["kubia-1", "kubia-99"], 2, "kubia-99")?;
    refused("why", &["node1", "kubia-1"], 2, "sends no probes")?;

    // A broken lab tells how many faults there are, and not which.
    lab.succeed("break", &["fw-drop", "node2", "-q"])?;
    refused("break", &["fw-reject", "node2"], 1, "another fault has changed it")?;
    lab.succeed("break", &["forward-off", "node1", "-q"])?;
    let shown = text(&lab.podlab("verify", &["unique-address"])?);
    ensure!(shown.contains("2 faults are active") && !shown.contains("fw-drop"), "{shown}");
    let listed = text(&podlab(&["ls"])?);
    ensure!(listed.lines().any(|line| line.contains(&lab.name) && line.ends_with(", 2 faults")), "{listed}");
    refused("faults", &["--active"], 0, "forward-off")?;
    // Healed in any order, by name, by number or all at once.
    lab.succeed("heal", &["1", "-q"])?;
    refused("heal", &["fw-drop"], 2, "is not active")?;
    lab.succeed("heal", &["--all", "-q"])?;
    let (code, report) = lab.verify(&[])?;
    ensure!(code == 0, "{:?}", reds(&report));
    Ok(())
}

#[test]
fn many_faults_at_once_are_healed_together() -> Result<()> {
    let lab = Lab::up("many", &SMALL)?;
    let (code, report) = lab.verify(&[])?;
    ensure!(code == 0, "{:?}", reds(&report));
    let before = lab.settled()?;
    let together = [
        "route-missing",
        "link-down",
        "veth-down",
        "no-default-route",
        "dup-ip",
        "forward-off",
        "masq-all",
        "fw-drop",
        "loss",
        "rate",
        "mtu-hole",
        "bind-localhost",
        "lo-down",
        "cni-missing",
        "ipam-full",
        "rp-filter",
    ];
    for fault in together {
        let node = if fault == "rp-filter" { vec![fault, "node2", "node1", "-q"] } else { vec![fault, "-q"] };
        lab.succeed("break", &node)?;
    }
    lab.succeed("heal", &["--all", "-q"])?;
    let (code, report) = lab.verify(&[])?;
    ensure!(code == 0, "{:?}", reds(&report));
    unchanged(&before, &lab)?;
    Ok(())
}
