//! The lab of an ordinary user, who is root of a user namespace and of nothing else.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use podnet_tests::plugins;
use serde_json::Value;

use super::{contract, text, without_settings};

/// An ordinary user with podlab, podnet beside it, and a lab; the lab is down when the value goes.
struct User {
    dir: tempfile::TempDir,
    lab: String,
}

impl User {
    fn new(name: &str) -> Result<User> {
        let dir = tempfile::tempdir()?;
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777))?;
        let podlab = plugins::podlab()?;
        for program in [&podlab, &podlab.with_file_name("podnet")] {
            let copy = dir.path().join(program.file_name().context("no name")?);
            std::fs::copy(program, &copy)?;
            std::fs::set_permissions(copy, PermissionsExt::from_mode(0o755))?;
        }
        Ok(User { dir, lab: format!("e2e-{name}-{}", std::process::id()) })
    }

    fn program(&self) -> PathBuf {
        self.dir.path().join("podlab")
    }

    /// `podlab VERB`, on the lab where it is about one.
    fn command(&self, verb: &str, rest: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "1000", "--regid", "1000", "--clear-groups"]).arg(self.program());
        without_settings(&mut command).arg(verb);
        match verb {
            "kubectl" => command.args(["--context", &self.lab]),
            "doctor" | "ls" => &mut command,
            _ => command.args(["--name", &self.lab]),
        };
        command.args(rest).current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    fn podlab(&self, verb: &str, rest: &[&str]) -> Result<Output> {
        let output = self.command(verb, rest).output().context("start setpriv")?;
        let words: Vec<String> = [verb].iter().chain(rest).map(|word| (*word).to_owned()).collect();
        contract::check(&words, &output)?;
        Ok(output)
    }

    /// What a verb prints; another exit code than 0 is an error.
    fn ok(&self, verb: &str, rest: &[&str]) -> Result<String> {
        let output = self.podlab(verb, rest)?;
        ensure!(output.status.success(), "podlab {verb} {rest:?} as a user: {}", text(&output));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn file(&self, name: &str, body: &str) -> Result<PathBuf> {
        let path = self.dir.path().join(name);
        std::fs::write(&path, body)?;
        Ok(path)
    }
}

impl Drop for User {
    fn drop(&mut self) {
        // It may be down already.
        let _ = self.command("down", &["-q"]).stderr(Stdio::null()).status();
    }
}

#[test]
fn an_ordinary_user_has_a_lab_of_30_pods_that_passes_every_check() -> Result<()> {
    let user = User::new("user")?;
    user.ok("up", &["--detach", "-q"])?;
    let (listed, roots) = (user.ok("ls", &["-q"])?, super::podlab(&["ls", "-q"])?);
    ensure!(listed.contains(&user.lab) && !text(&roots).contains(&user.lab), "{listed}{}", text(&roots));
    let report: Value = serde_json::from_str(&user.ok("verify", &["-q", "-o", "json"])?)?;
    assert_eq!((&report["passed"], &report["failed"]), (&990.into(), &0.into()));
    assert_eq!(user.ok("exec", &["kubia-1", "--", "sh", "-c", "hostname; id -u"])?, "kubia-1\n0\n");
    let trace: Value = serde_json::from_str(&user.ok("trace", &["kubia-1", "kubia-11", "-o", "json"])?)?;
    assert_eq!(trace["ruling"], "PASS", "{trace}");
    let pod: Value = serde_json::from_str(&user.ok("inspect", &["kubia-1", "-o", "json"])?)?;
    assert_eq!(pod["interfaces"][1]["mac"], "02:01:00:01:00:01");
    // A check that can fail does.
    user.ok(
        "exec",
        &[
            "node1",
            "--",
            "nft",
            "add table ip t; add chain ip t c { type nat hook postrouting priority 100; }; \
        add rule ip t c oifname eth0 masquerade",
        ],
    )?;
    let failed = user.podlab("verify", &["-q", "cross-node"])?;
    ensure!(failed.status.code() == Some(1) && text(&failed).contains("NAT: source"), "{}", text(&failed));
    let down = user.podlab("down", &["--graceful"])?;
    ensure!(text(&down).contains("30 of 30 pods deleted by CNI DEL"), "{}", text(&down));
    ensure!(!user.ok("ls", &["-q"])?.contains(&user.lab));
    Ok(())
}

#[test]
fn pods_services_and_forwarded_ports_work_for_an_ordinary_user() -> Result<()> {
    let user = User::new("user-svc")?;
    let file = user.file(
        "lab.yaml",
        "{nodes: 2, workloads: [{name: kubia, replicas: 2}],\n\
        services: [{name: web, selector: {run: kubia}, port: 80, targetPort: 8080, type: NodePort}]}",
    )?;
    user.ok("up", &["--detach", "-q", "-f", &file.to_string_lossy()])?;
    user.ok("verify", &["-q"])?;
    user.ok("kubectl", &["scale", "--replicas=3", "rc/kubia"])?;
    let pods = user.ok("kubectl", &["get", "pods", "-o", "name"])?;
    let pod = pods.lines().next().and_then(|line| line.strip_prefix("pod/")).context("no pod")?.to_owned();
    assert_eq!(pods.lines().count(), 3, "{pods}");
    let hit = user.ok("kubectl", &["exec", &pod, "--", "curl", "-s", "web"])?;
    ensure!(hit.starts_with("You've hit kubia-"), "{hit}");
    let mut forwarding =
        user.command("kubectl", &["port-forward", &pod, ":8080"]).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(forwarding.stdout.take().context("no stdout")?).lines();
    let told = lines.next().context("it says nothing")??;
    let port = told.trim_start_matches("Forwarding from 127.0.0.1:").trim_end_matches(" -> 8080").to_owned();
    let curl =
        || Command::new("curl").args(["-s", "-m", "20", &format!("http://127.0.0.1:{port}/")]).output();
    let hits = (curl()?, curl()?);
    forwarding.kill()?;
    forwarding.wait()?;
    for hit in [hits.0, hits.1] {
        assert_eq!(String::from_utf8_lossy(&hit.stdout), format!("You've hit {pod}\n"), "{told}");
    }
    Ok(())
}

#[test]
fn every_mode_works_for_an_ordinary_user_or_says_what_it_lacks() -> Result<()> {
    for mode in ["vxlan", "bgp", "mesh", "macvlan", "ptp"] {
        let user = User::new(&format!("user-{mode}"))?;
        let up = user.podlab("up", &["--detach", "-q", "--nodes", "2", "--pods", "2", "--mode", mode])?;
        // Encryption is done by a process with a TAP device, which is root's alone on some machines; doctor says so.
        if mode == "mesh" && up.status.code() == Some(5) {
            let doctor = user.ok("doctor", &[])?;
            let line = doctor.lines().find(|line| line.starts_with("mode mesh")).unwrap_or_default();
            ensure!(
                text(&up).contains("TAP devices") && line.contains("TAP devices"),
                "{}{doctor}",
                text(&up)
            );
            continue;
        }
        ensure!(up.status.success(), "{mode}: {}", text(&up));
        user.ok("verify", &["-q"]).with_context(|| mode.to_owned())?;
    }
    Ok(())
}

#[test]
fn scripts_run_as_root_of_a_capsule_for_an_ordinary_user() -> Result<()> {
    let user = User::new("user-run")?;
    let script = user.file(
        "t.sh",
        "ip netns add a && ip -n a link set lo up && nft add table ip t && echo 1..1 && echo ok 1 && id -u",
    )?;
    let run = |script: &Path| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "1000", "--regid", "1000", "--clear-groups"]).arg(user.program());
        command.args([OsStr::new("run"), script.as_os_str()]).current_dir(user.dir.path()).output()
    };
    let output = run(&script)?;
    ensure!(output.status.success(), "{}", text(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1..1\nok 1\n0\n");
    user.ok("up", &["--detach", "-q", "--nodes", "1", "--pods", "1"])?;
    let listed =
        user.file("l.sh", "ip netns list | sort | head -n 2; ip -n node1 link show cni0 >/dev/null")?;
    assert_eq!(user.ok("run", &[&listed.to_string_lossy()])?, "fabric\nkubia-1\n");
    // Nothing of it is the machine's.
    ensure!(!Path::new("/run/netns/a").exists());
    Ok(())
}

#[test]
fn doctor_tells_an_ordinary_user_what_there_is_not() -> Result<()> {
    let user = User::new("user-doctor")?;
    let output = user.podlab("doctor", &["-o", "json"])?;
    ensure!(output.status.success(), "{}", text(&output));
    let document: Value = serde_json::from_slice(&output.stdout)?;
    let problem = |feature: &str| -> Result<Value> {
        let findings = document["findings"].as_array().context("no findings")?;
        let found =
            findings.iter().find(|it| it["feature"] == feature).with_context(|| feature.to_owned())?;
        Ok(found["problem"].clone())
    };
    for feature in [
        "root or a user namespace",
        "veth and bridge",
        "packet socket",
        "nf_tables for services",
        "mode vxlan",
    ] {
        ensure!(problem(feature)?.is_null(), "{feature}: {}", problem(feature)?);
    }
    // tracefs is nobody's but root's (FS_USERNS_MOUNT is not among its flags, fs/tracefs/inode.c).
    ensure!(problem("kernel's drop reasons")?.is_string(), "{document:#}");
    Ok(())
}
