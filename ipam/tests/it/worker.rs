//! A process of its own that does what the environment tells it: the test binary, started again for one test.

use std::path::Path;
use std::process::Command;

use ipam::{Owner, RangeSet, Store};

use crate::support::{NETWORK, Place, Random, assert_index_agrees, owner, set};

/// The variable with the work: data directory and script, parted by a line break.
const WORK: &str = "PODNET_IPAM_WORK";

/// What the worker's result line begins with.
pub(crate) const RESULT: &str = "worker: ";

/// This binary, to be run as worker on a data directory.
///
/// `script` is one of
/// * `allocate <container id> <set>[;<set>…]`, with sets as [`crate::support::set`] reads them;
/// * `release <container id>`, `find <container id>`, `gc [<container id>…]`;
/// * `many <prefix> <count> <set>`: one address each for the containers `<prefix>-0` and on;
/// * `churn <seed>`: allocates, releases, finds and collects until it is killed.
pub(crate) fn command(data_dir: &Path, script: &str) -> Command {
    wrapped(&[], data_dir, script)
}

/// As [`command`], with a program and its arguments in front.
pub(crate) fn wrapped(program: &[&str], data_dir: &Path, script: &str) -> Command {
    let own = std::env::current_exe().expect("the path of this binary");
    let mut command = match program {
        [] => Command::new(&own),
        [program, args @ ..] => {
            let mut command = Command::new(program);
            command.args(args).arg(&own);
            command
        }
    };
    command
        .args(["--exact", "worker::does_what_it_is_told", "--nocapture", "--test-threads=1"])
        .env(WORK, format!("{}\n{script}", data_dir.display()));
    command
}

/// The result line of a worker that ended by itself.
pub(crate) fn result(stdout: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(stdout);
    text.lines().find_map(|line| Some(line[line.find(RESULT)? + RESULT.len()..].to_owned()))
}

/// The ranges that churning works on: few addresses, so that they are exhausted now and then.
pub(crate) fn churn_sets() -> Vec<RangeSet> {
    vec![set("10.1.0.0/28"), set("fd00:1::/120 - fd00:1::a")]
}

#[test]
fn does_what_it_is_told() {
    match std::env::var(WORK) {
        Ok(work) => {
            let (data_dir, script) = work.split_once('\n').expect("data directory and script");
            let store = Store::open(Path::new(data_dir), NETWORK).expect("a store");
            println!("\n{RESULT}{}", perform(&store, script));
        }
        // Not started by another test: the scripts themselves, once.
        Err(_) => {
            let place = Place::new();
            assert_eq!(perform(&place.store(), "allocate a 10.0.0.0/24;fd00::/64"), "10.0.0.2 fd00::2");
            assert_eq!(perform(&place.store(), "find a"), "10.0.0.2 fd00::2");
            assert_eq!(perform(&place.store(), "many b 2 10.0.0.0/24"), "10.0.0.3 10.0.0.4");
            assert_eq!(perform(&place.store(), "gc a b-1"), "10.0.0.3");
            assert_eq!(perform(&place.store(), "release a"), "10.0.0.2 fd00::2");
            let mut random = Random(7);
            for _ in 0..300 {
                churn_once(&place.store(), &mut random);
                assert_index_agrees(place.data_dir());
            }
        }
    }
}

fn perform(store: &Store, script: &str) -> String {
    let (verb, rest) = script.split_once(' ').unwrap_or((script, ""));
    let list = |ips: Vec<std::net::IpAddr>| {
        let mut texts: Vec<String> = ips.iter().map(ToString::to_string).collect();
        texts.sort();
        texts.join(" ")
    };
    let result = match verb {
        "allocate" => {
            let (id, sets) = rest.split_once(' ').expect("an owner and sets");
            let sets: Vec<RangeSet> = sets.split(';').map(set).collect();
            store
                .allocate_all(&sets, &owner(id), &[])
                .map(|all| list(all.iter().map(|one| one.address.ip()).collect()))
        }
        "release" => store.release(&owner(rest)).map(list),
        "find" => store.find(&owner(rest)).map(list),
        "gc" => {
            let keep: Vec<Owner<'_>> = rest.split_whitespace().map(owner).collect();
            store.gc(&keep).map(list)
        }
        "many" => {
            let mut words = rest.splitn(3, ' ');
            let mut word = || words.next().expect("prefix, count and set");
            let (prefix, count, set) = (word(), word().parse::<u32>().expect("a count"), set(word()));
            (0..count)
                .map(|i| {
                    Ok(store
                        .allocate(0, &set, &owner(&format!("{prefix}-{i}")), None)?
                        .address
                        .ip()
                        .to_string())
                })
                .collect::<ipam::Result<Vec<_>>>()
                .map(|ips| ips.join(" "))
        }
        "churn" => {
            let mut random = Random(rest.parse().expect("a seed"));
            println!("\n{RESULT}begun");
            loop {
                churn_once(store, &mut random);
            }
        }
        _ => panic!("unknown script {script:?}"),
    };
    result.unwrap_or_else(|err| format!("error: {err}"))
}

fn churn_once(store: &Store, random: &mut Random) {
    let id = format!("c{}", random.below(12));
    match random.below(10) {
        0..=4 => match store.allocate_all(&churn_sets(), &owner(&id), &[]) {
            Ok(_) => {}
            Err(err) => assert!(err.is_exhausted() || err.is_duplicate(), "{err}"),
        },
        5..=7 => drop(store.release(&owner(&id)).expect("release")),
        8 => drop(store.find(&owner(&id)).expect("find")),
        _ => {
            let keep: Vec<String> = (0..8).map(|_| format!("c{}", random.below(12))).collect();
            let keep: Vec<Owner<'_>> = keep.iter().map(|id| owner(id)).collect();
            store.gc(&keep).expect("gc");
        }
    }
}
