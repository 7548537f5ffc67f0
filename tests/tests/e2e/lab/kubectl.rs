//! `podlab kubectl`: pods that come and go while a lab runs, and the controller loop that keeps them.

use std::os::unix::fs::PermissionsExt;
use std::process::Output;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use podnet_tests::plugins;
use serde_json::Value;

use super::{Lab, podlab, text};

impl Lab {
    /// Runs a line of kubectl's.
    pub(super) fn kubectl(&self, line: &str) -> Result<Output> {
        let mut args = vec!["kubectl", "--context", &self.name];
        args.extend(line.split_whitespace());
        podlab(&args)
    }

    /// The same; an exit code other than 0 is an error.
    pub(super) fn k(&self, line: &str) -> Result<String> {
        let output = self.kubectl(line)?;
        ensure!(output.status.success(), "kubectl {line}: {}", text(&output));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Name, node and address of the pods that a selector chooses.
    pub(super) fn pods(&self, selector: &str) -> Result<Vec<(String, String, String)>> {
        let list: Value = serde_json::from_str(&self.k(&format!("get pods -o json -l {selector}"))?)?;
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let pod = |item: &Value| {
            (word(&item["metadata"]["name"]), word(&item["spec"]["nodeName"]), word(&item["status"]["podIP"]))
        };
        Ok(list["items"].as_array().context("no items")?.iter().map(pod).collect())
    }
}

const RUN: &str = "run kubia --image=luksa/kubia --port=8080 --generator=run/v1";

#[test]
fn a_deleted_pod_is_replaced_by_one_with_another_name_and_address() -> Result<()> {
    let lab = Lab::up("replace", &["--pods", "0"])?;
    ensure!(lab.k("get pods")?.is_empty(), "an empty lab has pods");
    assert_eq!(lab.k(RUN)?, "replicationcontroller/kubia created\n");
    let before = lab.pods("run=kubia")?;
    let [(name, node, address)] = before.as_slice() else { panic!("{before:?}") };
    assert_eq!(lab.k(&format!("delete pod {name}"))?, format!("pod {name:?} deleted\n"));
    let after = lab.pods("run=kubia")?;
    let [(other, _, new)] = after.as_slice() else { panic!("{after:?}") };
    ensure!(name != other && address != new, "{before:?} then {after:?}");
    // What the first one had is gone: its namespace, its link, its reservation.
    let left = format!("ls /run/netns /run/podlab/ipam/{node}/podlab; ip -br link | grep -c veth");
    let seen = lab.exec(node, &["sh", "-c", &left])?;
    ensure!(!seen.contains(name.as_str()) && !seen.contains(address.as_str()), "{seen}");
    ensure!(seen.contains(other.as_str()) && seen.ends_with("\n1\n"), "{seen}");
    let gone = lab.kubectl(&format!("exec {name} -- true"))?;
    ensure!(gone.status.code() == Some(1), "{}", text(&gone));
    assert_eq!(
        String::from_utf8_lossy(&gone.stderr),
        format!("Error from server (NotFound): pods {name:?} not found\n")
    );
    Ok(())
}

#[test]
fn scaled_pods_are_spread_over_the_nodes_and_pass_every_check() -> Result<()> {
    let lab = Lab::up("scaled", &["--pods", "0"])?;
    lab.k(RUN)?;
    assert_eq!(lab.k("scale --replicas=6 rc/kubia")?, "replicationcontroller/kubia scaled\n");
    let pods = lab.pods("run=kubia")?;
    for node in ["node1", "node2", "node3"] {
        assert_eq!(pods.iter().filter(|pod| pod.1 == node).count(), 2, "{pods:?}");
    }
    let (code, report) = lab.verify(&[])?;
    ensure!(code == 0 && report["pairs"] == 30, "{report:#}");
    // The youngest go first.
    lab.k("scale --current-replicas=6 --replicas=2 rc kubia")?;
    assert_eq!(lab.pods("run=kubia")?, pods[..2]);
    let refused = lab.kubectl("scale --current-replicas=6 --replicas=9 rc kubia")?;
    ensure!(refused.status.code() == Some(1) && text(&refused).contains("was 2"), "{}", text(&refused));
    lab.k("delete rc kubia")?;
    ensure!(lab.k("get pods")?.is_empty(), "pods outlive their controller");
    Ok(())
}

#[test]
fn a_label_that_is_taken_away_makes_an_orphan_and_a_new_pod() -> Result<()> {
    let lab = Lab::up("orphan", &["--pods", "0", "--nodes", "1"])?;
    lab.k(RUN)?;
    let first = lab.pods("run=kubia")?;
    lab.k(&format!("label pod {} run-", first[0].0))?;
    let second = lab.pods("run=kubia")?;
    ensure!(second.len() == 1 && second != first, "{first:?} then {second:?}");
    assert_eq!(lab.pods("!run")?, first);
    // Given back, it is one too many, and the younger one goes.
    lab.k(&format!("label pod {} run=kubia", first[0].0))?;
    assert_eq!(lab.pods("run=kubia")?, first);
    Ok(())
}

#[test]
fn pods_made_meanwhile_are_deleted_by_cni_at_a_graceful_end() -> Result<()> {
    let lab = Lab::up("kdown", &["--pods", "1", "--nodes", "2"])?;
    lab.k(&format!("{RUN} --replicas=3"))?;
    lab.k("delete pod kubia-1")?;
    let output = lab.podlab("down", &["--graceful", "-o", "json"])?;
    ensure!(output.status.success(), "{}", text(&output));
    let document: Value = serde_json::from_slice(&output.stdout)?;
    let down = &document["down"][0];
    assert_eq!((&down["deleted"], &down["left"]), (&4.into(), &serde_json::json!([])), "{document:#}");
    Ok(())
}

#[test]
fn the_same_seed_gives_the_same_pods() -> Result<()> {
    let pods = |name: &str, options: &[&str]| -> Result<Vec<(String, String, String)>> {
        let lab = Lab::up(name, &[&["--pods", "0"], options].concat())?;
        lab.k(RUN)?;
        lab.k("scale --replicas=4 rc/kubia")?;
        lab.pods("run=kubia")
    };
    let without = pods("seed-a", &[])?;
    assert_eq!(without, pods("seed-b", &[])?);
    assert_eq!(without[0].0, "kubia-dbfj2", "the name of the document's own pod");
    assert_ne!(without, pods("seed-c", &["--seed", "7"])?);
    Ok(())
}

#[test]
fn kubectl_exec_is_the_command_in_the_pod_with_its_own_exit_code() -> Result<()> {
    let lab = Lab::up("kexec", &["--pods", "1", "--nodes", "1"])?;
    for (command, code) in
        [("true", 0), ("awk BEGIN{exit(7)}", 7), ("no-such-program", 127), ("/etc/passwd", 126)]
    {
        let output = lab.kubectl(&format!("exec kubia-1 -- {command}"))?;
        ensure!(output.status.code() == Some(code), "{command}: {}", text(&output));
    }
    assert_eq!(lab.k("exec -it kubia-1 hostname")?, "kubia-1\n");
    assert_eq!(lab.k("exec kubia-1 -c sidecar -- curl -s localhost:8080")?, "You've hit kubia-1\n");
    ensure!(lab.k("logs kubia-1")?.contains("Received request from 127.0.0.1"), "{}", lab.k("logs kubia-1")?);
    let nobody = lab.kubectl("exec kubia-1 -c nobody -- true")?;
    ensure!(nobody.status.code() == Some(1) && text(&nobody).contains("kubia, sidecar"), "{}", text(&nobody));
    // A node is no pod.
    ensure!(lab.kubectl("exec node1 -- true")?.status.code() == Some(1), "a node passes for a pod");
    Ok(())
}

#[test]
fn a_pod_that_could_not_be_made_is_tried_again() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let broken = dir.path().join("broken");
    let own = plugins::podnet_dir()?;
    for name in ["bridge", "host-local", "loopback"] {
        let path = dir.path().join(name);
        let script = format!(
            "#!/bin/bash\n[ -e {} ] && echo broken >&2 && exit 3\nexec -a {name} {}/{name}\n",
            broken.display(),
            own.display()
        );
        std::fs::write(&path, script)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    }
    let lab =
        Lab::up("tried-again", &["--pods", "0", "--nodes", "1", "--cni-bin", &dir.path().to_string_lossy()])?;
    std::fs::write(&broken, "")?;
    let output = lab.kubectl(RUN)?;
    ensure!(
        output.status.success() && text(&output).contains("Warning: node1: CNI ADD"),
        "{}",
        text(&output)
    );
    ensure!(lab.pods("run=kubia")?.is_empty(), "a pod was made");
    std::fs::remove_file(&broken)?;
    let deadline = Instant::now() + Duration::from_secs(20);
    while lab.pods("run=kubia")?.is_empty() {
        ensure!(Instant::now() < deadline, "it is not tried again");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

#[test]
fn what_kubectl_is_not_told_right_is_refused() -> Result<()> {
    let lab = Lab::up("kwrong", &["--pods", "1", "--nodes", "1"])?;
    for (line, code, words) in [
        ("get gizmos", 2, "doesn't have a resource type \"gizmos\""),
        ("get pods nobody", 1, "Error from server (NotFound): pods \"nobody\" not found"),
        ("get pods -l a(b", 2, "no closing parenthesis"),
        ("get pods -n kube-system", 1, "namespaces \"kube-system\" not found"),
        ("run kubia-1 --image=x", 1, "Error from server (AlreadyExists): pods \"kubia-1\" already exists"),
        ("run Kubia --image=x", 1, "(Invalid)"),
        ("run x --image=x --generator=deployment/v1", 2, "generator \"deployment/v1\" not supported"),
        ("scale --replicas=3 rc/nobody", 1, "replicationcontrollers \"nobody\" not found"),
        ("delete pod nobody", 1, "pods \"nobody\" not found"),
        ("delete node node1", 1, "(Forbidden)"),
        ("delete pod", 2, "no name was specified"),
        ("label pod kubia-1 app=other", 1, "--overwrite is false"),
        ("frobnicate", 2, "unrecognized subcommand"),
    ] {
        let output = lab.kubectl(line)?;
        ensure!(output.status.code() == Some(code), "{line}: {}", text(&output));
        ensure!(text(&output).contains(words), "{line}: {}", text(&output));
    }
    Ok(())
}
