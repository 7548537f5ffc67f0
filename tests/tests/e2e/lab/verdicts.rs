//! `podlab verify` on real clusters: that it passes what is right, with our plugins and with Debian's, and that each
//! fault that a person could make turns the right check red.

use anyhow::{Context, Result, ensure};
use podnet_tests::plugins::DEBIAN;
use serde_json::Value;

use super::{Lab, podlab, text};

/// Two nodes with two pods each: 4 pairs on one node, 8 across.
pub(super) const SMALL: [&str; 4] = ["--nodes", "2", "--pods", "2"];

/// The verdicts of a check.
pub(super) fn verdicts<'r>(report: &'r Value, check: &str) -> Result<&'r Vec<Value>> {
    let checks = report["checks"].as_array().context("no checks")?;
    let found =
        checks.iter().find(|entry| entry["name"] == check).with_context(|| format!("no check {check}"))?;
    found["verdicts"].as_array().context("no verdicts")
}

/// Check, ruling and number of verdicts, in the report's order.
pub(super) fn rulings(report: &Value) -> Vec<(String, String, usize)> {
    let mut all: Vec<(String, String, usize)> = Vec::new();
    for check in report["checks"].as_array().into_iter().flatten() {
        for verdict in check["verdicts"].as_array().into_iter().flatten() {
            let name = check["name"].as_str().unwrap_or_default();
            let ruling = verdict["ruling"].as_str().unwrap_or_default();
            match all.iter_mut().find(|entry| entry.0 == name && entry.1 == ruling) {
                Some(entry) => entry.2 += 1,
                None => all.push((name.to_owned(), ruling.to_owned(), 1)),
            }
        }
    }
    all
}

/// What a 2 × 2 cluster that does as it should comes to.
pub(super) fn all_pass() -> Vec<(String, String, usize)> {
    [
        ("unique-address", 4),
        ("container-localhost", 4),
        ("same-node", 4),
        ("cross-node", 8),
        ("ingress", 4),
        ("egress", 4),
    ]
    .map(|(check, count)| (check.to_owned(), "PASS".to_owned(), count))
    .to_vec()
}

pub(super) fn kinds(verdict: &Value) -> Vec<&str> {
    verdict["findings"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|finding| finding["kind"].as_str())
        .collect()
}

#[test]
fn ours_and_debians_plugins_get_the_same_verdicts() -> Result<()> {
    for (name, bin) in [("ours", None), ("debian", Some(DEBIAN))] {
        let mut options = SMALL.to_vec();
        options.extend(bin.iter().flat_map(|bin| ["--cni-bin", bin]));
        let lab = Lab::up(name, &options)?;
        let (code, report) = lab.verify(&[])?;
        assert_eq!(rulings(&report), all_pass(), "{name}");
        assert_eq!((code, &report["drops"]), (0, &Value::from(0)), "{name}");
        assert_eq!(report["schema"], "podlab.verdict/1");
    }
    Ok(())
}

#[test]
fn a_pass_across_nodes_rests_on_the_same_packet_at_every_point() -> Result<()> {
    let lab = Lab::up("points", &SMALL)?;
    let (_, report) = lab.verify(&["cross-node"])?;
    let verdict = verdicts(&report, "cross-node")?
        .iter()
        .find(|verdict| verdict["subject"] == "kubia-1 > kubia-3")
        .context("no verdict for kubia-1 > kubia-3")?;
    let points = verdict["request"].as_array().context("no points")?;
    ensure!(points.len() >= 4, "{} points", points.len());
    for key in ["source", "target", "payload_digest", "id"] {
        ensure!(points.iter().all(|point| point[key] == points[0][key]), "{key} differs: {points:?}");
    }
    let ttl = |at: &str| points.iter().find(|point| point["at"] == at).map(|point| point["ttl"].clone());
    assert_eq!(ttl("kubia-1/eth0"), Some(64.into()), "{points:?}");
    assert_eq!(ttl("node1/eth0"), Some(63.into()), "{points:?}");
    assert_eq!(ttl("kubia-3/eth0"), Some(62.into()), "{points:?}");
    assert_eq!(verdict["logged"], lab_address(&lab, "kubia-1")?.as_str());
    Ok(())
}

fn lab_address(lab: &Lab, pod: &str) -> Result<String> {
    let text = lab.exec(pod, &["ip", "-j", "-4", "addr", "show", "eth0"])?;
    let links: Value = serde_json::from_str(&text)?;
    Ok(links[0]["addr_info"][0]["local"].as_str().context("no address")?.to_owned())
}

/// With the plugins in `plugins`, or ours.
fn masquerade_fails_the_no_nat_verdict(name: &str, plugins: Option<&str>) -> Result<()> {
    let mut options = SMALL.to_vec();
    options.push("--ip-masq");
    options.extend(plugins.iter().flat_map(|dir| ["--cni-bin", *dir]));
    let lab = Lab::up(name, &options)?;
    let (code, report) = lab.verify(&[])?;
    assert_eq!(code, 1);
    for verdict in verdicts(&report, "cross-node")? {
        assert_eq!(verdict["ruling"], "FAIL", "{verdict}");
        assert_eq!(verdict["outcome"]["word"], "OK", "the probe itself was answered: {verdict}");
        ensure!(kinds(verdict).contains(&"source-rewritten"), "{verdict}");
    }
    for check in ["unique-address", "container-localhost", "same-node"] {
        ensure!(verdicts(&report, check)?.iter().all(|verdict| verdict["ruling"] == "PASS"), "{check}");
    }
    Ok(())
}

#[test]
fn masquerade_at_the_nodes_fails_the_no_nat_verdict_though_everything_answers() -> Result<()> {
    masquerade_fails_the_no_nat_verdict("masq", Some(DEBIAN))
}

#[test]
fn masquerade_of_ours_fails_the_no_nat_verdict_too() -> Result<()> {
    masquerade_fails_the_no_nat_verdict("masq-own", None)
}

/// Brings a small lab up, spoils it, and expects this check alone to fail, with this kind of finding.
fn fault(name: &str, target: &str, command: &[&str], check: &str, kind: &str) -> Result<Value> {
    let lab = Lab::up(name, &SMALL)?;
    lab.exec(target, command)?;
    let (code, report) = lab.verify(&[])?;
    assert_eq!(code, 1, "{name}");
    let failed: Vec<&Value> =
        verdicts(&report, check)?.iter().filter(|verdict| verdict["ruling"] != "PASS").collect();
    ensure!(!failed.is_empty(), "{name}: {check} passes: {:?}", rulings(&report));
    for verdict in failed {
        ensure!(kinds(verdict).contains(&kind), "{name}: {verdict}");
    }
    Ok(report)
}

#[test]
fn a_removed_route_fails_reachability_and_names_the_last_place() -> Result<()> {
    let report =
        fault("route", "node1", &["ip", "route", "del", "10.244.2.0/24"], "cross-node", "unreachable")?;
    let across = verdicts(&report, "cross-node")?;
    ensure!(across.iter().all(|verdict| verdict["ruling"] == "FAIL"), "{:?}", rulings(&report));
    let there =
        across.iter().find(|verdict| verdict["subject"] == "kubia-1 > kubia-3").context("no verdict")?;
    ensure!(there["evidence"].as_str().is_some_and(|words| words.contains("last seen")), "{there}");
    for check in ["unique-address", "container-localhost", "same-node", "ingress", "egress"] {
        ensure!(verdicts(&report, check)?.iter().all(|verdict| verdict["ruling"] == "PASS"), "{check}");
    }
    Ok(())
}

#[test]
fn each_check_has_a_fault_that_turns_it_red() -> Result<()> {
    // A second pod with the first one's address.
    let twice = ["sh", "-c", "ip addr flush dev eth0; ip addr add 10.244.1.2/24 dev eth0"];
    fault("dup-ip", "kubia-2", &twice, "unique-address", "address-shared")?;
    // With lo down no packet leaves at all: an error, as there is no evidence of anything.
    fault("lo-down", "kubia-1", &["ip", "link", "set", "lo", "down"], "container-localhost", "no-packet")?;
    let deaf = "nft add table ip t; nft add chain ip t in '{ type filter hook input priority 0; }'; \
                nft add rule ip t in iifname lo tcp dport 8080 drop";
    fault("lo-deaf", "kubia-1", &["sh", "-c", deaf], "container-localhost", "unreachable")?;
    let detach = ["sh", "-c", "ip link set $(ls /sys/class/net | grep veth | head -n 1) nomaster"];
    let inside = format!("mount -t sysfs sys /sys; {}", detach[2]);
    // Without its port a pod is not even found by ARP, so nothing of the probe is seen.
    fault("detached", "node1", &["sh", "-c", &inside], "same-node", "no-packet")?;
    let deaf = deaf.replace("iifname lo", "iifname eth0");
    fault("deaf", "kubia-2", &["sh", "-c", &deaf], "same-node", "unreachable")?;
    fault(
        "ttl",
        "node1",
        &["sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward"],
        "cross-node",
        "unreachable",
    )?;
    fault("way-in", "fabric", &["ip", "route", "flush", "table", "100"], "ingress", "unreachable")?;
    fault("way-out", "outside", &["ip", "link", "set", "eth0", "down"], "egress", "unreachable")?;
    Ok(())
}

#[test]
fn a_source_rewritten_by_hand_is_found_where_it_happens() -> Result<()> {
    let rules = "nft add table ip t; nft add chain ip t post '{ type nat hook postrouting priority 100; }'; \
                 nft add rule ip t post oifname eth0 ip saddr 10.244.1.0/24 ip daddr 10.244.2.0/24 masquerade";
    let report = fault("nft", "node1", &["sh", "-c", rules], "cross-node", "source-rewritten")?;
    let text = report.to_string();
    ensure!(text.contains("node1/eth0"), "the place is not named");
    Ok(())
}

#[test]
fn checks_can_be_listed_and_chosen() -> Result<()> {
    let listed = podlab(&["verify", "--list"])?;
    let names = String::from_utf8_lossy(&listed.stdout).into_owned();
    for (check, _, _) in all_pass() {
        ensure!(names.contains(&check), "no {check} in {names}");
    }
    let lab = Lab::up("choose", &SMALL)?;
    let (code, report) = lab.verify(&["same-node", "ingress"])?;
    assert_eq!(code, 0);
    let names: Vec<String> = rulings(&report).into_iter().map(|(check, _, _)| check).collect();
    assert_eq!(names, ["same-node", "ingress"]);
    let wrong = lab.podlab("verify", &["no-such-check"])?;
    ensure!(wrong.status.code() == Some(2), "{}", text(&wrong));
    let none = Lab::up("empty", &["--nodes", "1", "--pods", "0"])?;
    let (code, _) = none.verify(&["cross-node"])?;
    assert_eq!(code, 4, "a lab without pods has nothing to check");
    Ok(())
}

#[test]
fn the_table_ends_with_the_count() -> Result<()> {
    let lab = Lab::up("table", &SMALL)?;
    let output = lab.podlab("verify", &["-q"])?;
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(table.starts_with("CHECK"), "{table}");
    assert_eq!(table.lines().last(), Some("28 passed, 0 failed"), "{table}");
    Ok(())
}

#[test]
fn a_trace_shows_every_hop_and_says_no_nat() -> Result<()> {
    let lab = Lab::up("trace", &SMALL)?;
    for proto in ["tcp", "udp", "icmp"] {
        let output = lab.podlab("trace", &["kubia-1", "kubia-3", "--proto", proto])?;
        let walk = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "{proto}: {}", text(&output));
        for words in [
            "kubia-1/eth0",
            "node1/eth0",
            "node2/eth0",
            "kubia-3/eth0",
            "10.244.2.0/24 via 192.0.2.12",
            "no NAT",
        ] {
            ensure!(walk.contains(words), "{proto}: no {words:?} in\n{walk}");
        }
    }
    let json = lab.podlab("trace", &["kubia-1", "kubia-3:8080", "-o", "json"])?;
    let document: Value = serde_json::from_slice(&json.stdout)?;
    assert_eq!(document["schema"], "podlab.trace/1");
    let unknown = lab.podlab("trace", &["kubia-1", "kubia-99"])?;
    ensure!(unknown.status.code() == Some(2), "{}", text(&unknown));
    Ok(())
}

#[test]
fn a_trace_through_masquerade_says_where_the_source_changed() -> Result<()> {
    let mut options = SMALL.to_vec();
    options.extend(["--ip-masq", "--cni-bin", DEBIAN]);
    let lab = Lab::up("trace-masq", &options)?;
    let output = lab.podlab("trace", &["kubia-1", "kubia-3"])?;
    // A trace shows and does not judge: the packet arrived.
    ensure!(output.status.code() == Some(0), "{}", text(&output));
    let walk = String::from_utf8_lossy(&output.stdout).into_owned();
    let verdict = walk.lines().find(|line| line.starts_with("verdict: ")).context("no verdict")?;
    ensure!(verdict.starts_with("verdict: NAT: source of the SYN 10.244.1.2:"), "{walk}");
    ensure!(verdict.contains("became 192.0.2.11:") && verdict.contains("at node1/eth0 out"), "{walk}");
    Ok(())
}
