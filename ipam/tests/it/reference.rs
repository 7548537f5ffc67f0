//! Side by side and taking turns with the reference's own `host-local`, as Debian ships it.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use ipam::RangeSet;

use crate::support::{
    NETWORK, Place, Random, assert_index_agrees, assert_never_half_done, conf, ip, owner, set,
};

const HOST_LOCAL: &str = "/usr/lib/cni/host-local";

/// Runs the reference on a data directory; the addresses of its result, or its message.
fn host_local(data_dir: &Path, command: &str, id: &str, sets: &str) -> Result<Vec<String>, String> {
    let ranges: Vec<String> = sets
        .split(';')
        .map(|set| {
            let ranges: Vec<String> = set
                .split(',')
                .map(|range| {
                    let mut text =
                        format!("{{\"subnet\":\"{}\"", range.split(' ').next().unwrap_or_default());
                    let conf = conf(range);
                    for (key, value) in [
                        ("rangeStart", conf.range_start),
                        ("rangeEnd", conf.range_end),
                        ("gateway", conf.gateway),
                    ] {
                        if let Some(value) = value {
                            text += &format!(",\"{key}\":\"{value}\"");
                        }
                    }
                    text + "}"
                })
                .collect();
            format!("[{}]", ranges.join(","))
        })
        .collect();
    let config = format!(
        "{{\"cniVersion\":\"1.0.0\",\"name\":\"{NETWORK}\",\"ipam\":{{\"type\":\"host-local\",\
         \"dataDir\":{data_dir:?},\"ranges\":[{}]}}}}",
        ranges.join(",")
    );
    let mut child = Command::new(HOST_LOCAL)
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", id)
        .env("CNI_NETNS", "/dev/null")
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", "/usr/lib/cni")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|err| panic!("{HOST_LOCAL} (Debian: containernetworking-plugins): {err}"));
    child.stdin.take().expect("stdin").write_all(config.as_bytes()).expect("write the configuration");
    let output = child.wait_with_output().expect("the end of host-local");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let values = |key: &str| -> Vec<String> {
        let key = format!("\"{key}\": \"");
        let parts = text.split(&key).skip(1);
        parts.map(|rest| rest.split('"').next().unwrap_or_default().to_owned()).collect()
    };
    if output.status.success() {
        Ok(values("address"))
    } else {
        Err(values("msg").first().cloned().unwrap_or(text))
    }
}

fn ours(place: &Place, command: &str, id: &str, sets: &[RangeSet]) -> Result<Vec<String>, String> {
    let store = place.store();
    match command {
        "ADD" => store
            .allocate_all(sets, &owner(id), &[])
            .map(|all| all.iter().map(|one| one.address.to_string()).collect())
            .map_err(|err| err.to_string()),
        "DEL" => store.release(&owner(id)).map(|_| vec![]).map_err(|err| err.to_string()),
        _ => {
            let found = store.find(&owner(id)).map_err(|err| err.to_string())?;
            let absent = format!("host-local: Failed to find address added by container {id}");
            if found.is_empty() { Err(absent) } else { Ok(vec![]) }
        }
    }
}

fn sets_of(text: &str) -> Vec<RangeSet> {
    text.split(';').map(set).collect()
}

#[test]
fn the_same_sequence_gives_the_same_addresses_and_words() {
    let configurations =
        ["10.0.0.0/28", "10.0.0.0/28 10.0.0.5 10.0.0.9,10.0.1.0/29 - 10.0.1.7 10.0.1.4;fd00::/125"];
    for (number, sets) in configurations.into_iter().enumerate() {
        let (left, right) = (Place::new(), Place::new());
        let resolved = sets_of(sets);
        let mut random = Random(4711 + number as u64);
        for step in 0..200 {
            let command = ["ADD", "ADD", "ADD", "DEL", "DEL", "CHECK"][random.below(6) as usize];
            let id = format!("c{}", random.below(18));
            if command == "CHECK" {
                // The reference wants a prevResult there; its own answer is in the files.
                let held = right.reservations().values().any(|content| *content == format!("{id}\r\neth0"));
                assert_eq!(ours(&left, command, &id, &resolved).is_ok(), held, "step {step}");
                continue;
            }
            let theirs = host_local(right.data_dir(), command, &id, sets);
            assert_eq!(ours(&left, command, &id, &resolved), theirs, "step {step}: {command} {id}");
            assert_eq!(left.reservations(), right.reservations(), "step {step}");
        }
        for set in 0..resolved.len() {
            let read = |place: &Place| {
                std::fs::read_to_string(place.network().join(format!("last_reserved_ip.{set}")))
                    .expect("a file")
            };
            assert_eq!(read(&left), read(&right));
        }
        assert_index_agrees(left.data_dir());
    }
}

#[test]
fn both_may_take_turns_in_one_directory() {
    let place = Place::new();
    let sets = "10.0.0.0/28;fd00::/124";
    let resolved = sets_of(sets);
    let mut random = Random(99);
    let mut model: std::collections::BTreeSet<String> = Default::default();
    for step in 0..200 {
        let command = ["ADD", "DEL"][random.below(2) as usize];
        let id = format!("c{}", random.below(20));
        let result = if random.below(2) == 0 {
            ours(&place, command, &id, &resolved)
        } else {
            host_local(place.data_dir(), command, &id, sets)
        };
        match command {
            "ADD" => {
                let expected = !model.contains(&id) && model.len() < 13;
                assert_eq!(result.is_ok(), expected, "step {step}: {result:?}");
                if expected {
                    model.insert(id);
                }
            }
            _ => {
                assert_eq!(result, Ok(vec![]), "step {step}");
                model.remove(&id);
            }
        }
        let mut held: Vec<String> =
            place.reservations().into_values().map(|text| text.replace("\r\neth0", "")).collect();
        held.sort();
        let expected: Vec<String> = model.iter().flat_map(|id| [id.clone(), id.clone()]).collect();
        assert_eq!(held, expected, "step {step}");
        assert_never_half_done(place.data_dir());
    }
}

#[test]
fn both_at_once_give_no_address_twice() {
    let place = Place::new();
    let range = "10.0.0.0/24";
    let resolved = sets_of(range);
    let given: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|number| {
                let (place, resolved) = (&place, &resolved);
                scope.spawn(move || {
                    let add = |i| {
                        let id = format!("t{number}-{i}");
                        if number % 2 == 0 {
                            ours(place, "ADD", &id, resolved)
                        } else {
                            host_local(place.data_dir(), "ADD", &id, range)
                        }
                    };
                    (0..12).flat_map(|i| add(i).expect("an address")).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    let distinct: std::collections::BTreeSet<&String> = given.iter().collect();
    assert_eq!((given.len(), distinct.len()), (96, 96));
    for number in 0..8 {
        for i in 0..12 {
            // Each is released by the other.
            let id = format!("t{number}-{i}");
            if number % 2 == 0 {
                host_local(place.data_dir(), "DEL", &id, range).expect("release");
            } else {
                assert_eq!(place.store().release(&owner(&id)).expect("release").len(), 1, "{id}");
            }
        }
    }
    assert!(place.reservations().is_empty());
}

#[test]
fn ranges_are_refused_in_the_same_words() {
    let table = [
        "10.0.0.0/31",
        "10.0.0.7/31",
        "10.0.0.3/24",
        "::ffff:10.0.0.0/120",
        "::ffff:10.0.0.0/127",
        "fd00::1/64",
        "fd00::/127",
        "10.0.0.0/24 10.0.0.9 10.0.0.5",
        "10.0.0.0/24 10.0.1.0",
        "10.0.0.0/24 - 10.0.0.0",
        "10.0.0.0/24 - fd00::",
        "10.0.0.0/24 fd00::",
        "fd00::/64 - 10.0.0.1",
        "10.0.0.0/24,10.0.0.0/25",
        "10.0.0.0/24,fd00::/64",
        "10.0.0.0/24;10.0.0.0/25",
        "10.0.0.0/24;fd00::/64;10.0.9.0/24,10.0.0.0/24 10.0.0.254",
    ];
    for text in table {
        let place = Place::new();
        let sets: Vec<Vec<_>> = text.split(';').map(|set| set.split(',').map(conf).collect()).collect();
        let ours = RangeSet::resolve_all(&sets).expect_err(text).to_string();
        assert_eq!(Err(ours), host_local(place.data_dir(), "ADD", "a", text), "{text}");
    }
}

#[test]
fn what_the_reference_left_half_done_is_reclaimed() {
    let place = Place::new();
    let range = "10.0.0.0/29";
    host_local(place.data_dir(), "ADD", "a", range).expect("an address");
    // Killed between creating and writing.
    place.write("10.0.0.3", "");
    let free = place.store().available(&set(range)).expect("available");
    let given = ours(&place, "ADD", "b", &sets_of(range)).expect("an address");
    assert_eq!((free, given), (3, vec!["10.0.0.3/29".to_owned()]));
    assert_eq!(place.store().find(&owner("a")).expect("find"), [ip("10.0.0.2")]);
}
