//! IPv6 and dual-stack labs: the same checks in every mode and each IP version, and faults that turn exactly the version
//! red that they break.
//!
//! ```text
//!  fabric ── outside 2001:db8:203:113::9
//!  ├ node1 fd00:192:0:2::11, 192.0.2.11: kubia-1 fd00:10:244:1::2, 10.244.1.2; kubia-2
//!  └ node2 fd00:192:0:2::12, 192.0.2.12: kubia-3 fd00:10:244:2::2, 10.244.2.2; kubia-4
//! ```

use anyhow::{Context, Result, ensure};
use podnet_tests::plugins::DEBIAN;
use serde_json::Value;

use super::cleanliness::leave_the_machine_as_it_is;
use super::evidence::{Evidence, differences};
use super::faults::{rank, reds, unchanged};
use super::modes::stay_quiet;
use super::verdicts::{SMALL, all_pass, kinds, rulings, verdicts};
use super::{Lab, podlab, text};

/// The modes that carry IPv6, each with what is on the wire and how far it is across two racks.
const MODES: [(&str, &str); 6] = [
    ("routed", "the pods' own packets, nothing around them"),
    ("ptp", "the pods' own packets, nothing around them"),
    ("bgp", "the pods' own packets, nothing around them"),
    ("macvlan", "the pods' own packets, nothing around them"),
    ("vxlan", "VXLAN, VNI 1"),
    ("mesh:process", "ESP in UDP to port 4500"),
];

fn up(name: &str, family: &str, options: &[&str]) -> Result<Lab> {
    Lab::up(&name.replace(':', "-"), &[&["--ip-family", family][..], options].concat())
}

/// So many times what a lab of one IP version comes to.
pub(super) fn pass_times(times: usize) -> Vec<(String, String, usize)> {
    all_pass().into_iter().map(|(check, ruling, count)| (check, ruling, count * times)).collect()
}

/// What is not green, each with its IP version.
fn red_families(report: &Value) -> Vec<String> {
    let all = reds(report).into_iter().filter_map(|(subject, _)| subject.as_str()?.rsplit(' ').next());
    let mut all: Vec<String> = all.map(str::to_owned).collect();
    all.sort_unstable();
    all.dedup();
    all
}

#[test]
fn every_mode_passes_the_same_checks_in_each_ip_version() -> Result<()> {
    for (mode, looks) in MODES {
        for (family, times) in [("ipv6", 1), ("dual", 2)] {
            let lab = up(&format!("6-{mode}-{family}"), family, &[&["--mode", mode][..], &SMALL].concat())?;
            let (code, report) = lab.verify(&[])?;
            assert_eq!(rulings(&report), pass_times(times), "{mode} {family}");
            assert_eq!((code, &report["drops"]), (0, &Value::from(0)), "{mode} {family}");
            assert_eq!(report["pairs"], report["possible_pairs"], "{mode} {family}");
            let wire = report["wire"].as_array().context("no wire")?;
            ensure!(
                wire.iter().all(|it| it["looks"].as_str().is_some_and(|it| it.starts_with(looks))),
                "{wire:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn a_pass_in_ipv6_rests_on_the_same_packet_at_every_point() -> Result<()> {
    let lab = up("6-points", "ipv6", &[&["--mode", "vxlan"][..], &SMALL].concat())?;
    let (_, report) = lab.verify(&["cross-node"])?;
    for verdict in verdicts(&report, "cross-node")? {
        for way in ["request", "reply"] {
            let points = verdict[way].as_array().context("no points")?;
            ensure!(points.len() == 12, "{points:?}");
            for key in ["source", "target", "payload_digest", "flow_label"] {
                ensure!(points.iter().all(|point| point[key] == points[0][key]), "{key} differs: {points:?}");
            }
            ensure!(points[0]["flow_label"].as_u64().is_some_and(|label| label > 0), "{points:?}");
            let hops: Vec<u64> = points.iter().filter_map(|point| point["ttl"].as_u64()).collect();
            assert_eq!((hops.first(), hops.last()), (Some(&64), Some(&62)), "{hops:?}");
            // IPv6 around it: 20 bytes more than IPv4.
            let packed = points.iter().filter(|point| point["outer"]["overhead"] == 70);
            assert_eq!(packed.count(), 4, "{points:?}");
        }
        ensure!(verdict["logged"].as_str().is_some_and(|who| who.starts_with("fd00:10:244:")), "{verdict}");
    }
    Ok(())
}

#[test]
fn across_racks_each_router_takes_one_of_the_hop_limit() -> Result<()> {
    let racks = ["--nodes", "3", "--racks", "2", "--pods", "1"];
    for mode in ["routed", "ptp", "vxlan", "bgp", "mesh:process"] {
        let lab = up(&format!("6-racks-{mode}"), "dual", &[&["--mode", mode][..], &racks].concat())?;
        let (code, report) = lab.verify(&["cross-node", "ingress", "egress"])?;
        assert_eq!(code, 0, "{mode}: {:?}", rulings(&report));
        for subject in ["kubia-1 > kubia-3 IPv4", "kubia-1 > kubia-3 IPv6"] {
            let all = verdicts(&report, "cross-node")?;
            let far = all.iter().find(|it| it["subject"] == subject).context("no verdict")?;
            let last = far["request"].as_array().and_then(|points| points.last()).context("no points")?;
            let is_carried = ["vxlan", "mesh:process"].contains(&mode);
            assert_eq!(last["ttl"], if is_carried { 62 } else { 59 }, "{mode}: {far}");
        }
    }
    Ok(())
}

#[test]
fn debians_plugins_pass_in_ipv6_too() -> Result<()> {
    for mode in ["routed", "ptp", "macvlan"] {
        let options = [&["--mode", mode, "--cni-bin", DEBIAN][..], &SMALL].concat();
        let lab = up(&format!("6-deb-{mode}"), "dual", &options)?;
        assert_eq!(rulings(&lab.verify(&[])?.1), pass_times(2), "{mode}");
    }
    Ok(())
}

#[test]
fn a_mesh_seals_ipv6_too_and_what_goes_around_it_is_red() -> Result<()> {
    for family in ["ipv6", "dual"] {
        let options = [&["--mode", "mesh:process"][..], &SMALL].concat();
        let lab = up(&format!("6-mesh-{family}"), family, &options)?;
        let (_, report) = lab.verify(&["cross-node"])?;
        for verdict in verdicts(&report, "cross-node")? {
            let points =
                verdict["request"].as_array().into_iter().chain(verdict["reply"].as_array()).flatten();
            let at: Vec<&str> = points.filter_map(|point| point["at"].as_str()).collect();
            let on_wire = |at: &&str| at.starts_with("fabric/") || at.ends_with("node1/eth0");
            ensure!(!at.is_empty() && !at.iter().any(on_wire), "{at:?}");
        }
        if family == "ipv6" {
            continue;
        }
        lab.exec(
            "node1",
            &["ip", "-6", "route", "replace", "fd00:10:244:2::/64", "via", "fd00:192:0:2::12"],
        )?;
        let (code, report) = lab.verify(&["cross-node"])?;
        assert_eq!((code, red_families(&report)), (1, vec!["IPv6".to_owned()]), "{family}");
        let across = verdicts(&report, "cross-node")?;
        let clear = across.iter().filter(|it| it["ruling"] != "PASS");
        ensure!(clear.clone().all(|it| kinds(it).contains(&"wire-differs")), "{family}: {report:#}");
        ensure!(clear.clone().count() >= 4, "{family}: {report:#}");
    }
    Ok(())
}

#[test]
fn masquerade_of_ipv6_fails_the_no_nat_verdict_though_everything_answers() -> Result<()> {
    let lab = up("6-masq", "ipv6", &[&["--ip-masq"][..], &SMALL].concat())?;
    let (code, report) = lab.verify(&[])?;
    assert_eq!(code, 1);
    let across = verdicts(&report, "cross-node")?;
    for verdict in across {
        assert_eq!((&verdict["outcome"]["word"], &verdict["ruling"]), (&"OK".into(), &"FAIL".into()));
        ensure!(kinds(verdict).contains(&"source-rewritten"), "{verdict}");
        ensure!(
            verdict["logged"].as_str().is_some_and(|who| who.starts_with("fd00:192:0:2::1")),
            "{verdict}"
        );
    }
    ensure!(across.len() == 8 && reds(&report).len() == 8, "{:?}", rulings(&report));
    Ok(())
}

#[test]
fn a_removed_ipv6_route_fails_reachability_and_names_the_last_place() -> Result<()> {
    let lab = up("6-route", "dual", &SMALL)?;
    lab.exec("node1", &["ip", "-6", "route", "del", "fd00:10:244:2::/64"])?;
    let (code, report) = lab.verify(&[])?;
    assert_eq!((code, red_families(&report)), (1, vec!["IPv6".to_owned()]));
    let lost = verdicts(&report, "cross-node")?
        .iter()
        .find(|it| it["subject"] == "kubia-1 > kubia-3 IPv6")
        .context("no verdict")?;
    ensure!(
        lost["evidence"].as_str().is_some_and(|words| words.contains("SYN last seen at fabric/lan0 in")),
        "{lost}"
    );
    let state: Value = serde_json::from_slice(&podlab(&["ls", "-o", "json"])?.stdout)?;
    let own = state["labs"].as_array().into_iter().flatten().find(|it| it["name"] == lab.name.as_str());
    let troubles = own.context("no lab")?["troubles"].to_string();
    ensure!(troubles.contains("node1 has lost route fd00:10:244:2::/64"), "{troubles}");
    let traced = text(&lab.podlab("trace", &["kubia-1", "kubia-3", "--ip-family", "ipv6"])?);
    ensure!(traced.contains("lost: SYN after fabric/lan0 in: no route to fd00:10:244:2::2"), "{traced}");
    let walk = text(&lab.podlab("trace", &["kubia-1", "kubia-3"])?);
    ensure!(walk.contains("verdict: no NAT"), "IPv4 is as it was: {walk}");
    Ok(())
}

/// Fault, whom `why` is asked about, and the element that it names first.
const FAULTS: [(&str, [&str; 2], (&str, &str)); 12] = [
    ("route-missing", ["kubia-1", "kubia-3"], ("node1", "route fd00:10:244:2::/64")),
    ("route-blackhole", ["kubia-1", "kubia-3"], ("node1", "route fd00:10:244:2::/64")),
    ("route-loop", ["kubia-1", "kubia-3"], ("node2", "route fd00:10:244:2::/65")),
    ("masq-all", ["kubia-1", "kubia-3"], ("node1", "chain ip6 nat postrouting")),
    ("fw-drop", ["kubia-3", "kubia-1"], ("node1", "chain ip6 guard forward")),
    ("fw-reject", ["kubia-3", "kubia-1"], ("node1", "chain ip6 guard forward")),
    ("forward-off", ["kubia-1", "kubia-3"], ("node1", "forwarding")),
    ("no-default-route", ["kubia-1", "kubia-3"], ("kubia-1", "route default route")),
    ("dup-ip", ["kubia-1", "kubia-2"], ("kubia-2", "address fd00:10:244:1::2")),
    ("wrong-prefix", ["kubia-1", "kubia-3"], ("kubia-1", "address")),
    ("bad-neigh", ["kubia-1", "kubia-3"], ("node1", "neighbour fd00:192:0:2::12")),
    ("loss:80", ["kubia-1", "kubia-3"], ("node1", "chain netdev wire ingress")),
];

fn each_fault_is_of_one_version(lab: &Lab, faults: &[(&str, [&str; 2], (&str, &str))]) -> Result<()> {
    let (code, report) = lab.verify(&[])?;
    assert_eq!((code, rulings(&report)), (0, pass_times(2)));
    let before = lab.everything()?;
    for (fault, [source, target], element) in faults {
        let broken = lab.podlab("break", &[fault, "--ip-family", "ipv6"])?;
        ensure!(broken.status.success() && text(&broken).contains("IPv6"), "{}", text(&broken));
        let (code, report) = lab.verify(&[])?;
        assert_eq!((code, red_families(&report)), (1, vec!["IPv6".to_owned()]), "{fault}");
        let found = lab.podlab("why", &[source, target, "--ip-family", "ipv6", "-o", "json"])?;
        let found: Value = serde_json::from_slice(&found.stdout).with_context(|| text(&found))?;
        ensure!(rank(&found, *element) == Some(0), "{fault}: {found}");
        let healed = lab.podlab("heal", &["--all"])?;
        ensure!(healed.status.success(), "{fault}: {}", text(&healed));
        unchanged(&before, lab).with_context(|| fault.to_string())?;
    }
    let (code, report) = lab.verify(&[])?;
    assert_eq!((code, rulings(&report)), (0, pass_times(2)));
    Ok(())
}

#[test]
fn a_fault_of_ipv6_turns_ipv6_red_is_found_and_heals_without_a_trace() -> Result<()> {
    let lab = up("6-faults", "dual", &SMALL)?;
    each_fault_is_of_one_version(&lab, &FAULTS)?;
    // And the other way round.
    lab.podlab("break", &["route-missing"])?;
    assert_eq!(red_families(&lab.verify(&[])?.1), ["IPv4"]);
    Ok(())
}

#[test]
fn a_fault_of_an_ipv6_tunnel_turns_ipv6_red_is_found_and_heals_without_a_trace() -> Result<()> {
    let lab = up("6-tunnel", "dual", &[&["--mode", "vxlan"][..], &SMALL].concat())?;
    let pair = ["kubia-1", "kubia-3"];
    let faults = [
        ("vxlan-vni", pair, ("node1", "forwarding entry 02:00:00:1c:00:02")),
        ("vxlan-fdb", pair, ("node1", "forwarding entry 02:00:00:1c:00:02")),
        ("vxlan-port-blocked", pair, ("node1", "chain ip6 guard input")),
    ];
    each_fault_is_of_one_version(&lab, &faults)
}

#[test]
fn faults_of_both_versions_are_seen_in_an_ipv6_lab_and_heal() -> Result<()> {
    let lab = up("6-both", "ipv6", &SMALL)?;
    let before = lab.settled()?;
    for (fault, check, [source, target], element) in [
        ("link-down", "cross-node", ["kubia-1", "kubia-3"], ("fabric", "node1")),
        ("lo-down", "container-localhost", ["kubia-1", "kubia-1"], ("kubia-1", "lo")),
        ("bind-localhost", "same-node", ["kubia-3", "kubia-1"], ("kubia-1", "port 8080")),
    ] {
        let broken = lab.podlab("break", &[fault, "-q"])?;
        ensure!(broken.status.success(), "{}", text(&broken));
        let (code, report) = lab.verify(&[])?;
        ensure!(code == 1 && verdicts(&report, check)?.iter().any(|it| it["ruling"] != "PASS"), "{fault}");
        let found = lab.podlab("why", &[source, target, "--ip-family", "ipv6", "-o", "json"])?;
        let found: Value = serde_json::from_slice(&found.stdout).with_context(|| text(&found))?;
        ensure!(rank(&found, element) == Some(0), "{fault}: {found}");
        ensure!(lab.podlab("heal", &[fault])?.status.success(), "{fault}");
        lab.settled()?;
        unchanged(&before, &lab).with_context(|| fault.to_owned())?;
    }
    assert_eq!(rulings(&lab.verify(&[])?.1), all_pass());
    Ok(())
}

#[test]
fn idle_wires_are_quiet_in_ipv6_too() -> Result<()> {
    let modes = ["routed", "ptp", "vxlan", "macvlan", "mesh:process"];
    let make = |mode: &str| up(&format!("6-idle-{mode}"), "dual", &[&["--mode", mode][..], &SMALL].concat());
    let labs: Vec<Lab> = modes.into_iter().map(make).collect::<Result<_>>()?;
    stay_quiet(&labs)
}

#[test]
fn a_bundle_of_a_dual_lab_is_judged_again_from_its_packets() -> Result<()> {
    let lab = up("6-bundle", "dual", &SMALL)?;
    lab.podlab("break", &["route-missing", "--ip-family", "ipv6"])?;
    let (evidence, output) = Evidence::of(&lab, &["-o", "json"])?;
    let claimed: Value = serde_json::from_slice(&output.stdout).with_context(|| text(&output))?;
    drop(lab);
    let (code, said) = evidence.again()?;
    ensure!(differences(&said).is_empty(), "{}", said["differences"]);
    assert_eq!((code, output.status.code()), (1, Some(1)));
    assert_eq!(red_families(&said["report"]), ["IPv6"]);
    assert_eq!(said["report"]["failed"], claimed["failed"]);
    Ok(())
}

#[test]
fn a_trace_in_ipv6_tells_the_neighbours_and_why() -> Result<()> {
    let lab = up("6-trace", "ipv6", &SMALL)?;
    let output = lab.podlab("trace", &["kubia-1", "kubia-3", "--hooks", "-o", "json"])?;
    let trace: Value = serde_json::from_slice(&output.stdout).with_context(|| text(&output))?;
    assert_eq!((&trace["ruling"], &trace["address"]), (&"PASS".into(), &"[fd00:10:244:2::2]:8080".into()));
    let asked = trace["arp"].to_string();
    ensure!(asked.contains("who has fd00:10:244:1::1, asks fd00:10:244:1::2"), "{asked}");
    ensure!(asked.contains("fd00:192:0:2::12 is at 02:00:00:0e:00:02"), "{asked}");
    let hops = trace["walks"][0]["hops"].as_array().context("no hops")?;
    let out =
        hops.iter().find(|hop| hop["space"] == "node1" && hop["interface"] == "eth0").context("no uplink")?;
    assert_eq!(out["why"], "route fd00:10:244:2::/64 via fd00:192:0:2::12");
    ensure!(
        out["causes"].to_string().contains("neighbour fd00:192:0:2::12 is at 02:00:00:0e:00:02"),
        "{out}"
    );
    for (proto, target) in [("udp", "kubia-2"), ("icmp", "outside"), ("tcp", "node2:53")] {
        let output = lab.podlab("trace", &["kubia-1", target, "--proto", proto])?;
        let wanted = if target == "node2:53" { "REFUSED" } else { "verdict: no NAT" };
        ensure!(text(&output).contains(wanted), "{proto} {target}: {}", text(&output));
    }
    for (fault, words) in [
        ("forward-off", "it does not forward (net.ipv6.conf.all.forwarding is 0)"),
        ("route-blackhole", "the route to fd00:10:244:2::2 is a blackhole"),
    ] {
        ensure!(lab.podlab("break", &[fault])?.status.success(), "{fault}");
        let lost = text(&lab.podlab("trace", &["kubia-1", "kubia-3"])?);
        ensure!(lost.contains(&format!("lost: SYN after node1/cni0 in: {words}")), "{fault}: {lost}");
        ensure!(lab.podlab("heal", &["--all"])?.status.success(), "{fault}");
    }
    Ok(())
}

#[test]
fn what_ipv6_has_not_is_refused_before_anything_is_made() -> Result<()> {
    for (options, words) in [
        (&["--ip-family", "ipv6", "--service-cidr", "10.96.0.0/16"][..], "serviceCIDR: services are IPv4's"),
        (
            &["--ip-family", "ipv6", "--pod-cidr", "10.1.0.0/16"],
            "podCIDR: 10.1.0.0/16 is not of the lab's ipFamily",
        ),
        (&["--pod-cidr", "fd00:1::/63"], "podCIDR: prefix length: 63 is not from 16 to 62"),
        (&["--pod-cidr", "10.1.0.0/16,10.2.0.0/16"], "are both IPv4"),
        (&["--pod-cidr", "fd00:192::/32"], "overlaps fd00:192:0:2::/64, the nodes' link"),
        (&["--ip-family", "both"], "invalid value 'both'"),
    ] {
        let output = podlab(&[&["up", "--name", "e2e-6-refused", "-d"][..], options].concat())?;
        ensure!(
            output.status.code() == Some(2) && text(&output).contains(words),
            "{options:?}: {}",
            text(&output)
        );
    }
    let lab = up("6-refuse", "ipv6", &["--nodes", "1", "--pods", "1"])?;
    for (verb, rest, words) in [
        ("break", &["rp-filter"][..], "takes 2 nodes"),
        ("break", &["ipam-full"], "IPv6 has no range of which the addresses could run out"),
        ("break", &["route-missing", "--ip-family", "ipv4"], "the lab has no IPv4"),
        ("break", &["bind-localhost", "--ip-family", "ipv6"], "it breaks both IP versions, or none"),
        ("trace", &["kubia-1", "outside", "--ip-family", "ipv4"], "outside has no IPv4 address"),
    ] {
        let output = lab.podlab(verb, rest)?;
        ensure!(!output.status.success() && text(&output).contains(words), "{rest:?}: {}", text(&output));
    }
    let exposed = lab.k("expose pod kubia-1 --port=80");
    ensure!(exposed.is_err_and(|err| format!("{err:#}").contains("the lab has IPv6 only")));
    assert_eq!(rulings(&lab.verify(&["egress"])?.1), [("egress".to_owned(), "PASS".to_owned(), 1)]);
    Ok(())
}

#[test]
fn services_of_a_dual_lab_are_ipv4s_and_work() -> Result<()> {
    let lab = up("6-services", "dual", &SMALL)?;
    lab.k("run web --image=kubia --port=8080 --generator=run/v1 --replicas=2")?;
    lab.k("expose rc web --type=NodePort")?;
    let (code, report) = lab.verify(&["service-state", "service-reach", "service-share"])?;
    assert_eq!(code, 0, "{:?}", reds(&report));
    Ok(())
}

#[test]
fn the_machine_is_the_same_while_ipv6_labs_are_up() -> Result<()> {
    let small = ["--nodes", "2", "--pods", "1"];
    leave_the_machine_as_it_is(
        MODES.into_iter().map(|(mode, _)| {
            up(&format!("6-same-{mode}"), "dual", &[&["--mode", mode][..], &small].concat())
        }),
    )
}
