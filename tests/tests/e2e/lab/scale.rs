//! A lab with many pods: nothing is lost, nothing is left. Times are `scripts/bench-lab`'s affair.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Lab, text};

/// Processes of a lab's pods that ps(1) shows under `name`, seen from its node.
fn processes(lab: &Lab, name: &str) -> Result<usize> {
    let list = lab.exec("node1", &["ps", "-e", "-o", "comm="])?;
    Ok(list.lines().filter(|line| *line == name).count())
}

fn down(lab: &Lab, options: &[&str]) -> Result<(i32, Value, String)> {
    let output = lab.podlab("down", &[options, &["-o", "json"]].concat())?;
    let document: Value = serde_json::from_slice(&output.stdout).with_context(|| text(&output))?;
    Ok((output.status.code().unwrap_or(-1), document["down"][0].clone(), text(&output)))
}

#[test]
fn eighty_pods_are_verified_by_sample_and_deleted_by_cni() -> Result<()> {
    let lab = Lab::up("scale", &["--nodes", "2", "--pods", "40"])?;
    // The host outside has the two of its own.
    ensure!(processes(&lab, "kubia")? == 81 && processes(&lab, "sidecar")? == 81);
    ensure!(lab.exec("kubia-80", &["hostname"])? == "kubia-80\n");
    let sample = |seed: &str| lab.verify(&["--sample", "60", "--seed", seed]);
    let (code, report) = sample("5")?;
    ensure!(code == 0, "{report:#}");
    let counts: Vec<_> = report["checks"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|check| (check["name"].clone(), check["verdicts"].as_array().map_or(0, Vec::len)))
        .collect();
    let expected = [
        ("unique-address", 80),
        ("container-localhost", 80),
        ("same-node", 30),
        ("cross-node", 30),
        ("ingress", 80),
        ("egress", 80),
    ];
    assert_eq!(counts, expected.map(|(name, count)| (json!(name), count)));
    assert_eq!((&report["pairs"], &report["possible_pairs"]), (&json!(60), &json!(80 * 79)));
    let pairs = |report: &Value| -> Vec<Value> {
        let checks = [&report["checks"][2], &report["checks"][3]];
        let verdicts = checks.into_iter().filter_map(|check| check["verdicts"].as_array()).flatten();
        verdicts.map(|verdict| verdict["subject"].clone()).collect()
    };
    assert_eq!(pairs(&report), pairs(&sample("5")?.1), "the same seed, the same pairs");
    assert_ne!(pairs(&report), pairs(&sample("6")?.1), "another seed, other pairs");

    let (code, outcome, said) = down(&lab, &["--graceful"])?;
    ensure!(code == 0, "{said}");
    ensure!(said.contains("80 of 80 pods deleted by CNI DEL"), "{said}");
    assert_eq!((&outcome["deleted"], &outcome["pods"]), (&json!(80), &json!(80)));
    assert_eq!((&outcome["failed"], &outcome["left"]), (&json!([]), &json!([])));
    Ok(())
}

/// How many permanent neighbours a place has.
fn permanent(lab: &Lab, place: &str) -> Result<usize> {
    Ok(lab.exec(place, &["ip", "neigh", "show", "nud", "permanent"])?.lines().count())
}

/// All namespaces of a machine share one table of 1024 neighbours that come and go.
#[test]
fn pods_and_nodes_know_each_other_for_good_where_there_are_many() -> Result<()> {
    for (pods, expected) in [("127", [0, 0]), ("128", [128, 1])] {
        let lab = Lab::up("neighbours", &["--nodes", "2", "--pods", pods])?;
        assert_eq!(
            [permanent(&lab, "node2")?, permanent(&lab, "kubia-200")?],
            expected,
            "{pods} pods a node"
        );
        if expected[0] > 0 {
            let (code, report) = lab.verify(&["--sample", "40"])?;
            ensure!(code == 0, "{report:#}");
        }
    }
    Ok(())
}

/// A directory with a bridge that does what podnet's does, but DEL, for which it does `del`.
fn plugins(dir: &Path, del: &str) -> Result<()> {
    let podnet = podnet_tests::plugins::podlab()?.with_file_name("podnet");
    std::os::unix::fs::symlink(&podnet, dir.join("host-local"))?;
    let real = dir.join("real");
    std::fs::create_dir(&real)?;
    std::os::unix::fs::symlink(&podnet, real.join("bridge"))?;
    let path = dir.join("bridge");
    let script =
        format!("#!/bin/sh\n[ $CNI_COMMAND = DEL ] && {{ {del}; }}\nexec {}/bridge\n", real.display());
    std::fs::write(&path, script)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}

#[test]
fn a_del_that_fails_or_does_nothing_is_reported() -> Result<()> {
    for (name, del, said) in [
        ("del-fails", "echo '{\"code\":11,\"msg\":\"not today\"}'; exit 1", "CNI DEL of pod kubia-2: "),
        ("del-idle", "exit 0", "left after CNI DEL: node1: eth0 of pod kubia-2"),
    ] {
        let dir = tempfile::tempdir()?;
        plugins(dir.path(), del)?;
        let bin = dir.path().to_string_lossy().into_owned();
        let lab = Lab::up(name, &["--nodes", "1", "--pods", "2", "--cni-bin", &bin])?;
        let (code, outcome, text) = down(&lab, &["--graceful"])?;
        ensure!(code == 1 && text.contains(said), "{text}");
        if name == "del-idle" {
            assert_eq!((&outcome["deleted"], &outcome["failed"]), (&json!(2), &json!([])));
            ensure!(text.contains("left after CNI DEL: node1: reservation of 10.244.1.2"), "{text}");
        } else {
            assert_eq!((&outcome["deleted"], &outcome["left"]), (&json!(0), &json!([])));
            ensure!(text.contains("not today"), "{text}");
        }
    }
    Ok(())
}

#[test]
fn a_node_has_more_pods_than_a_24_has_room_for() -> Result<()> {
    let lab = Lab::up("full", &["--nodes", "1", "--pods", "260"])?;
    let ports = lab.exec("node1", &["ip", "-o", "link", "show", "master", "cni0"])?;
    assert_eq!(ports.lines().count(), 260);
    let address = lab.exec("kubia-260", &["ip", "-o", "-4", "addr", "show", "eth0"])?;
    ensure!(address.contains("10.244.9.") && address.contains("/21"), "{address}");
    let (code, report) = lab.verify(&["same-node", "egress", "--sample", "400"])?;
    ensure!(code == 0, "{report:#}");
    // All namespaces of a machine share 1024 neighbours that come and go: none stays of the hundreds of this sample.
    let list = "for pod in $(ls /run/netns | grep kubia); do ip -n $pod neigh; done";
    let known = lab.exec("node1", &["sh", "-c", list])?;
    let learned: Vec<&str> = known.lines().filter(|line| !line.contains("PERMANENT")).collect();
    ensure!(learned.is_empty() && known.lines().count() == 260, "{learned:?}");
    // A question for a pod's MAC is answered by the bridge, and not copied to 259 ports.
    let output = lab.podlab("trace", &["kubia-1", "kubia-200", "-o", "json"])?;
    let trace: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let arp: Vec<&str> =
        trace["arp"].as_array().into_iter().flatten().filter_map(|point| point["text"].as_str()).collect();
    let asked = arp.iter().filter(|text| text.starts_with("who has ")).count();
    ensure!((2..20).contains(&asked) && arp.iter().any(|text| text.contains(" is at ")), "{arp:?}");
    Ok(())
}

/// Pods of one node learn of each other: more neighbours than the 1024 that all namespaces of a machine share.
#[test]
fn all_pairs_are_verified_though_the_machine_has_no_room_for_their_neighbours() -> Result<()> {
    let lab = Lab::up("pairs", &["--nodes", "2", "--pods", "24"])?;
    let (mut code, mut report) = lab.verify(&[])?;
    if code != 0 {
        // A machine that stands still for a second lets probes time out; a lab that is wrong is so twice.
        (code, report) = lab.verify(&[])?;
    }
    ensure!(code == 0 && report["pairs"] == 48 * 47 && report["drops"] == 0, "{:#}", report["checks"]);
    Ok(())
}
