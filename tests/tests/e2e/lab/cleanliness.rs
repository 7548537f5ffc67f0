//! The machine is the same before, during and after a lab, and after `kill -9` at any moment.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Lab, command, podlab, text};

/// How many times a lab is killed, unless [`KILLS_VARIABLE`] says so.
const KILLS: u32 = 20;
/// More kills than a run of all tests has the time for, and no other test at the same time: `scripts/bench-lab` asks
/// for 100.
const KILLS_VARIABLE: &str = "PODNET_KILLS";
/// How long the kernel may take to remove a killed lab.
const LIMIT: Duration = Duration::from_secs(5);

/// Everything of this machine's network that a lab could disturb, by the function that the demo uses too.
fn fingerprint() -> Result<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/lib.sh");
    let output = Command::new("bash")
        .args(["-c", ". \"$0\"; fingerprint"])
        .arg(script)
        .output()
        .context("run scripts/lib.sh")?;
    ensure!(output.status.success(), "fingerprint: {}", text(&output));
    ensure!(output.stdout.len() > 10_000, "the fingerprint saw next to nothing: {}", text(&output));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The first line in which two fingerprints differ.
fn difference(before: &str, after: &str) -> Option<String> {
    let (old, new): (BTreeSet<&str>, BTreeSet<&str>) = (before.lines().collect(), after.lines().collect());
    let mut lines = old.symmetric_difference(&new);
    lines.next().map(|line| format!("{}: {line}", if old.contains(line) { "gone" } else { "new" }))
}

#[test]
fn a_difference_of_the_machine_is_seen() {
    assert_eq!(difference("a\nb", "a\nb"), None);
    assert_eq!(difference("a\nb", "a").as_deref(), Some("gone: b"));
    assert_eq!(difference("a", "a\nc").as_deref(), Some("new: c"));
}

#[test]
fn the_machine_is_the_same_before_during_and_after_a_lab() -> Result<()> {
    let before = fingerprint()?;
    let lab = Lab::up("same", &["--nodes", "2", "--pods", "3"])?;
    ensure!(lab.exec("node1", &["ip", "-br", "link"])?.contains("cni0"), "the lab has no bridge");
    let during = fingerprint()?;
    let down = lab.podlab("down", &[])?;
    ensure!(down.status.success(), "{}", text(&down));
    let after = fingerprint()?;
    assert_eq!(difference(&before, &during), None, "while the lab was up");
    assert_eq!(difference(&before, &after), None, "after it was down");
    Ok(())
}

#[test]
fn the_machine_is_the_same_while_labs_of_every_mode_are_up() -> Result<()> {
    let small = ["--nodes", "2", "--pods", "1"];
    leave_the_machine_as_it_is(
        ["vxlan", "bgp", "mesh", "macvlan", "ptp"]
            .into_iter()
            .map(|mode| Lab::up(&format!("same-{mode}"), &[&["--mode", mode][..], &small].concat())),
    )
}

/// The machine is the same before these labs are made, while all of them are up and pass, and after they are down.
pub(super) fn leave_the_machine_as_it_is(labs: impl Iterator<Item = Result<Lab>>) -> Result<()> {
    let before = fingerprint()?;
    let labs: Vec<Lab> = labs.collect::<Result<_>>()?;
    for lab in &labs {
        ensure!(lab.verify(&["cross-node"])?.0 == 0, "{} does not pass", lab.name);
    }
    let during = fingerprint()?;
    drop(labs);
    assert_eq!(difference(&before, &during), None, "while the labs were up");
    assert_eq!(difference(&before, &fingerprint()?), None, "after they were down");
    Ok(())
}

/// A number below `most`, new each time.
fn random(state: &mut u64, most: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % most
}

/// The processes of the lab that the launcher left on their own: init and supervisor carry its topology.
fn processes(name: &str) -> Vec<(i32, String)> {
    let wanted = format!("\"name\":\"{name}\"");
    let own = |pid: &i32| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        String::from_utf8_lossy(&environ).contains(&wanted)
    };
    let role = |pid: i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        (pid, String::from_utf8_lossy(&line).replace('\0', " "))
    };
    pids().filter(own).map(role).filter(|(_, line)| line.contains("__")).collect()
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Processes anywhere that are in one of these namespaces, or hold one open.
fn held(namespaces: &BTreeSet<String>) -> Vec<i32> {
    let holds = |pid: &i32| {
        let links =
            ["ns", "fd"].into_iter().filter_map(|dir| fs::read_dir(format!("/proc/{pid}/{dir}")).ok());
        let mut targets = links.flatten().flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
        targets.any(|target| namespaces.contains(target.to_string_lossy().as_ref()))
    };
    pids().filter(holds).collect()
}

#[test]
fn a_process_that_holds_a_namespace_is_seen() -> Result<()> {
    let namespace = kernel::Netns::create()?;
    let name = format!("net:[{}]", namespace.id()?.1);
    let own = std::process::id() as i32;
    ensure!(held(&BTreeSet::from([name])).contains(&own), "a namespace held by descriptor alone is not seen");
    ensure!(held(&BTreeSet::from(["net:[1]".to_owned()])).is_empty());
    Ok(())
}

fn pid_namespace(pid: i32) -> Option<u64> {
    fs::metadata(format!("/proc/{pid}/ns/pid")).ok().map(|meta| meta.ino())
}

/// The namespaces that a process is in, mount, network and PID among them: `net:[4026531840]`.
fn namespaces_of(pid: i32) -> BTreeSet<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/ns")).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    names.map(|name| name.to_string_lossy().into_owned()).collect()
}

#[test]
fn a_lab_killed_at_any_moment_leaves_nothing() -> Result<()> {
    let before = fingerprint()?;
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos() as u64;
    let mut state = seed;
    let kills = std::env::var(KILLS_VARIABLE).map_or(Ok(KILLS), |text| text.parse())?;
    let is_alone = std::env::var_os(KILLS_VARIABLE).is_some();
    eprintln!("{kills} kills, seed {seed}");
    let mut victims = BTreeSet::new();
    for round in 0..kills {
        let name = format!("e2e-kill-{}-{round}", std::process::id());
        let moment = Duration::from_millis(random(&mut state, 400));
        let (victim, namespaces) = kill_once(&name, moment, random(&mut state, 3))
            .with_context(|| format!("round {round}, seed {seed}"))?;
        nothing_is_left(&name, &namespaces, is_alone, LIMIT)
            .with_context(|| format!("round {round}, {victim} after {moment:?}, seed {seed}"))?;
        victims.insert(victim);
    }
    assert_eq!(difference(&before, &fingerprint()?), None, "seed {seed}");
    ensure!(victims.len() >= 2, "only {victims:?} was killed in {kills} rounds (seed {seed})");
    Ok(())
}

/// Waits until no process of a lab is left, and nothing that holds one of its namespaces and so its mounts.
fn nothing_is_left(name: &str, namespaces: &BTreeSet<String>, is_alone: bool, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    let left =
        |pid: &i32| pid_namespace(*pid).is_some_and(|inode| namespaces.contains(&format!("pid:[{inode}]")));
    // The kernel gives a number to the next namespace once it is free: beside other tests it may be another's.
    let kept = || if is_alone { held(namespaces) } else { Vec::new() };
    // With the last process go its descriptors and mounts, and with those the namespaces that nothing else holds.
    while pids().any(|pid| left(&pid)) || !processes(name).is_empty() || !kept().is_empty() {
        ensure!(
            Instant::now() < deadline,
            "processes or namespaces of the lab are left after {limit:?}: {:?}, {:?}",
            processes(name),
            kept()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

#[test]
fn a_lab_that_outlives_its_death_is_seen() -> Result<()> {
    let lab = Lab::up("outlives", &["--nodes", "1", "--pods", "1"])?;
    let all = processes(&lab.name);
    let supervisor = all.iter().find(|(_, line)| line.contains("__supervisor")).context("no supervisor")?.0;
    let own = namespaces_of(std::process::id() as i32);
    let namespaces: BTreeSet<String> =
        namespaces_of(supervisor).into_iter().filter(|name| !own.contains(name)).collect();
    let soon = Duration::from_millis(200);
    let alive = nothing_is_left(&lab.name, &namespaces, true, soon).unwrap_err();
    ensure!(format!("{alive}").contains("__supervisor"), "{alive}");
    // Its mounts live on with whoever has them open.
    let holder = fs::File::open(format!("/proc/{supervisor}/ns/mnt"))?;
    kill(Pid::from_raw(supervisor), Signal::SIGKILL)?;
    nothing_is_left(&lab.name, &namespaces, false, LIMIT)?;
    let held = nothing_is_left(&lab.name, &namespaces, true, soon).unwrap_err();
    // Beside other tests there may be others, to whom the kernel gave a number anew.
    let own = std::process::id().to_string();
    ensure!(format!("{held}").split(|c: char| !c.is_ascii_digit()).any(|word| word == own), "{held}");
    drop(holder);
    Ok(())
}

/// Starts a lab in the foreground, sets it to work when it is up, and kills one of its three processes: the
/// victim's role and the namespaces that must go.
fn kill_once(name: &str, moment: Duration, which: u64) -> Result<(String, BTreeSet<String>)> {
    let mut launcher = command(&["up", "--name", name, "--nodes", "2", "--pods", "4", "-q"])?
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let begin = Instant::now();
    let mut workers = Vec::new();
    // The lab is up after a fraction of the longest moment; from then on it is busy with one verb after another.
    while begin.elapsed() < moment {
        std::thread::sleep(Duration::from_millis(10).min(moment.saturating_sub(begin.elapsed())));
        if workers.is_empty() && begin.elapsed() > moment / 2 {
            for verb in [&["verify"][..], &["trace", "kubia-1", "kubia-5"], &["break", "masq-all"], &["down"]]
            {
                let mut args = vec![verb[0], "--name", name];
                args.extend(&verb[1..]);
                let worker =
                    command(&args)?.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
                // `down` joins in every other time only, or nothing would be left to kill.
                if verb[0] != "down" || which == 2 {
                    workers.push(worker?);
                }
            }
        }
    }
    let mut candidates = vec![(launcher.id() as i32, "launcher".to_owned())];
    candidates.extend(processes(name).into_iter().map(|(pid, line)| {
        (pid, if line.contains("__supervisor") { "supervisor".to_owned() } else { "init".to_owned() })
    }));
    let own = namespaces_of(std::process::id() as i32);
    let of_lab = candidates.iter().flat_map(|(pid, _)| namespaces_of(*pid));
    // The launcher's PID namespace is this process's own, that of everything on the machine.
    let inside: BTreeSet<u64> = candidates.iter().filter_map(|(pid, _)| pid_namespace(*pid)).collect();
    let outside = pid_namespace(std::process::id() as i32);
    let is_inside = |inode: u64| Some(inode) != outside && inside.contains(&inode);
    let pods = pids().filter(|pid| pid_namespace(*pid).is_some_and(is_inside));
    let namespaces: BTreeSet<String> =
        of_lab.chain(pods.flat_map(namespaces_of)).filter(|name| !own.contains(name)).collect();
    let (pid, role) = candidates.swap_remove(which as usize % candidates.len());
    // It may have come to its end by itself.
    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    if role != "launcher" {
        // The launcher ends when the lab does.
        let deadline = Instant::now() + LIMIT;
        while launcher.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "the launcher outlives its lab ({role} killed)");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    launcher.wait()?;
    for mut worker in workers {
        worker.wait()?;
    }
    Ok((role, namespaces))
}

#[test]
fn two_labs_with_the_same_addresses_do_not_meet() -> Result<()> {
    let first = Lab::up("twin-a", &["--nodes", "2", "--pods", "1"])?;
    let second = Lab::up("twin-b", &["--nodes", "2", "--pods", "1"])?;
    second.exec("node1", &["ip", "link", "del", "cni0"])?;
    ensure!(first.exec("node1", &["ip", "-br", "link"])?.contains("cni0"), "a lab lost the other's bridge");
    let listed = podlab(&["ls", "-q"])?;
    let names = String::from_utf8_lossy(&listed.stdout).into_owned();
    ensure!(names.contains(&first.name) && names.contains(&second.name), "podlab ls: {}", text(&listed));
    Ok(())
}
