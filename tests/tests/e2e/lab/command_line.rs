//! Verbs, exit codes and errors of `podlab` (lab.md of the design; the README lists the codes).

use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Lab, podlab, text};

#[test]
fn wrong_use_is_refused_before_anything_is_made() -> Result<()> {
    for (args, words) in [
        (&["up", "--nodes", "0"][..], "nodes: 0 is not from 1 to 200"),
        (&["up", "--pods", "1024"], "a Linux bridge has 1023 ports"),
        (&["up", "--cni-bin", "/nowhere"], "plugin directory /nowhere is not there"),
        (&["up", "--mode", "teleport"], "no mode \"teleport\""),
        (&["up", "--topology", "/dev/null"], "topology /dev/null"),
        (&["up", "--no-such-option"], "unexpected argument"),
        (&["verify", "--name", "nobody"], "no lab \"nobody\" is up"),
        (&["down", "--name", "nobody"], "no lab \"nobody\" is up"),
        (&["frobnicate"], "unrecognized subcommand"),
    ] {
        let output = podlab(args)?;
        ensure!(output.status.code() == Some(2), "{args:?}: {}", text(&output));
        ensure!(text(&output).contains(words), "{args:?}: {}", text(&output));
        ensure!(output.stdout.is_empty(), "{args:?} wrote a result: {}", text(&output));
    }
    Ok(())
}

#[test]
fn a_dry_run_prints_the_plan_and_makes_nothing() -> Result<()> {
    let output = podlab(&["up", "--dry-run", "-o", "json", "--name", "e2e-dry", "--nodes", "2"])?;
    let plan: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(plan["schema"], "podlab.plan/1");
    assert_eq!(plan["nodes"][1]["podCIDR"], "10.244.2.0/24");
    let listed = podlab(&["ls", "-q"])?;
    ensure!(!text(&listed).contains("e2e-dry"), "{}", text(&listed));
    Ok(())
}

/// `down` returns when the name is free, whatever init still has to end.
#[test]
fn a_lab_that_is_down_can_be_brought_up_again_at_once() -> Result<()> {
    for _ in 0..8 {
        let lab = Lab::up("again-at-once", &["--nodes", "2", "--pods", "10"])?;
        let down = lab.podlab("down", &[])?;
        ensure!(down.status.success(), "{}", text(&down));
    }
    Ok(())
}

#[test]
fn exec_returns_the_commands_own_exit_code() -> Result<()> {
    let lab = Lab::up("exec", &["--nodes", "1", "--pods", "1"])?;
    for (command, code) in [
        (&["true"][..], 0),
        (&["sh", "-c", "exit 7"], 7),
        (&["sh", "-c", "kill -9 $$"], 137),
        (&["no-such-program"], 127),
        (&["/etc/passwd"], 126),
    ] {
        let mut rest = vec!["kubia-1", "--"];
        rest.extend(command);
        let output = lab.podlab("exec", &rest)?;
        ensure!(output.status.code() == Some(code), "{command:?}: {}", text(&output));
    }
    assert_eq!(lab.exec("kubia-1", &["hostname"])?, "kubia-1\n");
    let unknown = lab.podlab("exec", &["kubia-9", "--", "true"])?;
    ensure!(unknown.status.code() == Some(2) && text(&unknown).contains("node1"), "{}", text(&unknown));
    Ok(())
}

#[test]
fn a_script_sees_the_labs_namespaces_or_an_empty_capsule() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let script = dir.path().join("script.sh");
    std::fs::write(
        &script,
        "#!/bin/sh\nip netns list | sort | head -n 3 | tr '\\n' ' '\nmkdir -p /var/lib/cni/left /run/left\necho \"$@\"\nexit 9\n",
    )?;
    let path = script.to_string_lossy().into_owned();
    // Without the executable bit it is given to sh, with it it is run.
    let evidence = dir.path().to_string_lossy().into_owned();
    let plain = podlab(&["run", "--evidence", &evidence, &path, "a", "-b"])?;
    ensure!(plain.status.code() == Some(9), "{}", text(&plain));
    assert_eq!(String::from_utf8_lossy(&plain.stdout), "a -b\n");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
    let lab = Lab::up("run", &["--nodes", "1", "--pods", "1"])?;
    let inside = podlab(&["run", "--evidence", &evidence, "--name", &lab.name, &path, "x"])?;
    ensure!(inside.status.code() == Some(9), "{}", text(&inside));
    assert_eq!(String::from_utf8_lossy(&inside.stdout), "fabric kubia-1 node1 x\n");
    ensure!(
        !std::path::Path::new("/var/lib/cni/left").exists() && !std::path::Path::new("/run/left").exists()
    );
    Ok(())
}

#[test]
fn a_cut_wire_and_a_lost_route_are_shown_by_ls() -> Result<()> {
    let lab = Lab::up("events", &["--nodes", "2", "--pods", "1"])?;
    let state = || -> Result<String> {
        let listed = podlab(&["ls"])?;
        let text = String::from_utf8_lossy(&listed.stdout).into_owned();
        Ok(text.lines().find(|line| line.starts_with(&lab.name)).unwrap_or_default().to_owned())
    };
    ensure!(state()?.ends_with("up"), "{}", state()?);
    lab.exec("node1", &["ip", "route", "del", "10.244.2.0/24"])?;
    lab.exec("node2", &["ip", "link", "set", "eth0", "down"])?;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    let wanted = ["node1 has lost route 10.244.2.0/24 via 192.0.2.12", "node2/eth0 is down"];
    while !wanted.iter().all(|words| state().is_ok_and(|line| line.contains(words))) {
        ensure!(std::time::Instant::now() < deadline, "{}", state()?);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let events = lab.podlab("inspect", &["node2", "events"])?;
    ensure!(text(&events).contains("link eth0 is down"), "{}", text(&events));
    Ok(())
}

#[test]
fn a_plugin_that_fails_is_shown_with_all_it_got_and_said() -> Result<()> {
    let dir = tempfile::tempdir()?;
    for (name, body) in [("loopback", "exec true"), ("bridge", "echo broken >&2; exit 3")] {
        let path = dir.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n[ $CNI_IFNAME = lo ] && echo '{{}}' && exit 0\n{body}\n"))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    }
    let name = format!("e2e-broken-{}", std::process::id());
    let bin = dir.path().to_string_lossy().into_owned();
    let output = podlab(&["up", "-d", "--name", &name, "--nodes", "1", "--pods", "1", "--cni-bin", &bin])?;
    ensure!(output.status.code() == Some(1), "{}", text(&output));
    for words in ["CNI ADD of pod kubia-1", "broken", "exit 3", "CNI_IFNAME=eth0", "\"type\":\"bridge\""] {
        ensure!(text(&output).contains(words), "no {words:?} in {}", text(&output));
    }
    let listed = podlab(&["ls", "-q"])?;
    ensure!(!text(&listed).contains(&name), "a lab that did not come up is listed");
    Ok(())
}

#[test]
fn doctor_finds_what_a_lab_needs() -> Result<()> {
    let output = podlab(&["doctor", "-o", "json"])?;
    ensure!(output.status.success(), "{}", text(&output));
    let document: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(document["schema"], "podlab.doctor/1");
    let findings = document["findings"].as_array().context("no findings")?;
    ensure!(findings.len() >= 10, "{document}");
    let services =
        findings.iter().find(|it| it["feature"] == "nf_tables for services").context("no rules")?;
    ensure!(services["problem"].is_null(), "{services}");
    Ok(())
}
