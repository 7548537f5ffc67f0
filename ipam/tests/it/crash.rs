//! Killed or refused at any point: never a half-written reservation, never an index that is believed and wrong.
//!
//! Two ways: a process that is killed at random moments, and strace, which kills it or makes the kernel refuse at each
//! single system call in turn.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use crate::support::{
    Place, Random, assert_index_agrees, assert_never_half_done, owner, read_reservations, set,
};
use crate::worker;

/// A new process finds for each owner what the files say, and can release all of it.
fn assert_recovers(place: &Place) {
    assert_never_half_done(place.data_dir());
    let store = place.store();
    let mut owners: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (ip, content) in place.reservations() {
        let id = content.trim_end_matches("\r\neth0").to_owned();
        owners.entry(id).or_default().push(ip);
    }
    for id in (0..12).map(|i| format!("c{i}")).chain(["late".to_owned()]) {
        let mut found: Vec<String> =
            store.find(&owner(&id)).expect("find").iter().map(ToString::to_string).collect();
        found.sort();
        assert_eq!(found, owners.get(&id).cloned().unwrap_or_default(), "{id}");
    }
    if place.network().exists() {
        assert_index_agrees(place.data_dir());
    }
}

#[test]
fn kill_at_random_moments() {
    let place = Place::new();
    let mut random = Random(0x5eed);
    for round in 0..150 {
        let mut child = worker::command(place.data_dir(), &format!("churn {}", round + 1))
            .stdout(Stdio::piped())
            .spawn()
            .expect("a worker");
        let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
        let begun = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("begun")));
        begun.expect("the worker's first sign").expect("UTF-8");
        std::thread::sleep(Duration::from_micros(random.below(8000)));
        child.kill().expect("kill");
        let status = child.wait().expect("wait");
        assert_eq!(status.signal(), Some(9), "round {round}: it ended by itself");
        assert_never_half_done(place.data_dir());
        // Now and then the next worker finds what the kill left, without our mending it.
        if random.below(3) > 0 {
            assert_recovers(&place);
        }
    }
    place.store().gc(&[]).expect("gc");
    assert!(place.reservations().is_empty());
    assert_recovers(&place);
}

/// A state of the directory and what a worker then does in it.
struct Scene {
    name: &'static str,
    prepare: fn(&Place),
    script: &'static str,
}

const SETS: &str = "10.0.0.0/29;fd00::/125";

const SCENES: [Scene; 8] = [
    Scene {
        name: "allocate in a new directory",
        prepare: |_| {},
        script: "allocate late 10.0.0.0/29;fd00::/125",
    },
    Scene { name: "allocate", prepare: two_owners, script: "allocate late 10.0.0.0/29;fd00::/125" },
    Scene {
        name: "allocate, the second set exhausted",
        prepare: two_owners,
        script: "allocate late 10.0.0.0/29;10.9.0.0/30",
    },
    Scene { name: "allocate after others", prepare: others, script: "allocate late 10.0.0.0/29;fd00::/125" },
    Scene { name: "release", prepare: two_owners, script: "release c0" },
    Scene { name: "release after others", prepare: others, script: "release c0" },
    Scene { name: "find after others", prepare: others, script: "find c0" },
    Scene { name: "gc", prepare: others, script: "gc c1" },
];

fn two_owners(place: &Place) {
    let sets: Vec<_> = SETS.split(';').map(set).collect();
    let store = place.store();
    for id in ["c0", "c1"] {
        store.allocate_all(&sets, &owner(id), &[]).expect("allocate");
    }
    store.allocate(2, &set("10.9.0.0/30"), &owner("c1"), None).expect("allocate");
}

fn others(place: &Place) {
    two_owners(place);
    place.write("10.0.0.5", "c2\r\neth0");
    fs::remove_file(place.network().join("10.0.0.3")).expect("remove");
    fs::write(place.index().join("reservation"), "half").expect("write");
}

/// How one run under strace ended.
enum End {
    /// The worker got to its end and said this.
    Result(String),
    /// It was killed.
    Killed,
}

/// Runs a scene, with `fault` injected into the `when`-th `call` that concerns our directories. `None` if there is no
/// such call any more.
fn run(place: &Place, scene: &Scene, call: &str, fault: &str, when: u32) -> Option<End> {
    let log = tempfile::NamedTempFile::new().expect("temporary file");
    let inject = format!("inject={call}:{fault}:when={when}");
    let mut program = vec!["strace", "-f", "-qq", "-o", log.path().to_str().expect("UTF-8"), "-e", &inject];
    let index = place.index();
    let paths: [PathBuf; 10] = [
        place.data_dir().into(),
        place.network(),
        place.data_dir().join(".podnet"),
        index.clone(),
        index.join("reservation"),
        index.join("last"),
        place.network().join("lock"),
        place.network().join("10.0.0.2"),
        place.network().join("10.0.0.5"),
        place.network().join("last_reserved_ip.0"),
    ];
    for path in &paths {
        program.extend(["-P", path.to_str().expect("UTF-8")]);
    }
    let output = worker::wrapped(&program, place.data_dir(), scene.script).output().expect("strace runs");
    let trace = fs::read_to_string(log.path()).expect("the trace");
    let killed = fault.starts_with("signal");
    if !(trace.contains("(INJECTED)") || killed && trace.contains("killed by SIGKILL")) {
        assert!(worker::result(&output.stdout).is_some(), "{}: {call} {fault} {when}", scene.name);
        return None;
    }
    match worker::result(&output.stdout) {
        Some(result) => Some(End::Result(result)),
        None if killed => Some(End::Killed),
        None => panic!("{}: {call} {fault} {when}: {}", scene.name, String::from_utf8_lossy(&output.stdout)),
    }
}

/// Every scene, every one of these calls, every occurrence of it.
fn each(calls: &[&str], fault: &str, check: impl Fn(&Place, &BTreeMap<String, String>, &Scene, &str, End)) {
    for scene in &SCENES {
        let mut runs = 0;
        for call in calls {
            for when in 1.. {
                let place = Place::new();
                (scene.prepare)(&place);
                let before = place.reservations();
                let Some(end) = run(&place, scene, call, fault, when) else { break };
                runs += 1;
                check(&place, &before, scene, call, end);
            }
        }
        assert!(runs > 0, "{}: nothing was injected", scene.name);
    }
}

#[test]
fn kill_at_each_system_call() {
    let calls = [
        "?mkdir,mkdirat",
        "openat",
        "write",
        "close",
        "linkat",
        "unlinkat",
        "symlinkat",
        "renameat",
        "utimensat",
    ];
    each(&calls, "signal=KILL", |place, before, scene, _call, end| {
        assert!(matches!(end, End::Killed), "{}", scene.name);
        // Nothing but what the script is about has changed.
        for (ip, content) in read_reservations(place.data_dir()) {
            assert!(before.contains_key(&ip) || content == "late\r\neth0", "{}: {ip}", scene.name);
        }
        assert_recovers(place);
        place.store().gc(&[]).expect("gc");
        assert!(place.reservations().is_empty());
    });
}

fn refuse_each(errno: &str) {
    let calls = [
        "?mkdir,mkdirat",
        "openat",
        "read",
        "write",
        "linkat",
        "unlinkat",
        "symlinkat",
        "renameat",
        "utimensat",
        "getdents64",
        "readlinkat",
        "newfstatat",
        "flock",
    ];
    each(&calls, &format!("error={errno}"), |place, before, scene, call, end| {
        let End::Result(result) = end else { panic!("{}: killed", scene.name) };
        let after = place.reservations();
        let late = after.values().filter(|content| *content == "late\r\neth0").count();
        let expected = usize::from(scene.script.starts_with("allocate") && !result.starts_with("error")) * 2;
        if call == "unlinkat" && expected == 0 {
            // What cannot be taken back waits for the DEL that follows a failed ADD.
            assert!(late <= 1, "{}: {result}", scene.name);
            place.store().release(&owner("late")).expect("release");
        }
        let after = place.reservations();
        let late = after.values().filter(|content| *content == "late\r\neth0").count();
        assert_eq!(late, expected, "{}: {call}: {result}", scene.name);
        if scene.script.starts_with("allocate") || scene.script.starts_with("find") {
            for ip in before.keys() {
                assert!(after.contains_key(ip), "{}: {ip} is lost: {result}", scene.name);
            }
        }
        if let Some(text) = result.strip_prefix("error: ") {
            let known = text.contains("(os error ") || text.contains("no IP addresses available");
            assert!(known, "{}: {text}", scene.name);
        }
        assert_recovers(place);
        place.store().gc(&[]).expect("gc");
        assert!(place.reservations().is_empty());
    });
}

#[test]
fn no_space_at_each_system_call() {
    refuse_each("ENOSPC");
}

#[test]
fn no_quota_at_each_system_call() {
    refuse_each("EDQUOT");
}

#[test]
fn input_output_error_at_each_system_call() {
    refuse_each("EIO");
}
