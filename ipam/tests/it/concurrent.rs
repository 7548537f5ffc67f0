//! Many at once: no address twice, none lost, nothing left.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;

use crate::support::{Place, assert_index_agrees, assert_never_half_done, owner, set};
use crate::worker;

#[test]
fn a_thousand_allocations_by_32_processes_are_a_thousand_addresses() {
    let place = Place::new();
    let range = "10.0.0.0/22";
    let workers: Vec<_> = (0..32)
        .map(|number| {
            // 8 of them make 32 addresses, 24 make 31: 1000.
            let count = if number < 8 { 32 } else { 31 };
            worker::command(place.data_dir(), &format!("many p{number} {count} {range}"))
                .stdout(Stdio::piped())
                .spawn()
                .expect("a worker")
        })
        .collect();
    let mut given: BTreeMap<String, String> = BTreeMap::new();
    for (number, worker) in workers.into_iter().enumerate() {
        let output = worker.wait_with_output().expect("the worker's end");
        let line = worker::result(&output.stdout).expect("a result");
        assert!(!line.starts_with("error"), "{line}");
        for (i, ip) in line.split(' ').enumerate() {
            let before = given.insert(ip.to_owned(), format!("p{number}-{i}\r\neth0"));
            assert_eq!(before, None, "{ip} was given twice");
        }
    }
    assert_eq!(given.len(), 1000);
    assert_eq!(place.reservations(), given);
    assert_index_agrees(place.data_dir());

    let store = place.store();
    assert_eq!(store.available(&set(range)).expect("available"), 1021 - 1000);
    std::thread::scope(|scope| {
        for number in 0..32 {
            let store = &store;
            scope.spawn(move || {
                for i in 0..32 {
                    let id = format!("p{number}-{i}");
                    let released = store.release(&owner(&id)).expect("release");
                    assert_eq!(released.len(), usize::from(number < 8 || i < 31), "{id}");
                }
            });
        }
    });
    assert!(place.reservations().is_empty());
    assert_index_agrees(place.data_dir());
    assert_eq!(place.index().read_dir().expect("list").count(), 0);
}

#[test]
fn threads_that_fight_for_too_few_addresses_get_each_once() {
    let place = Place::new();
    let store = place.store();
    let few = set("10.0.0.0/27");
    let given: Vec<Option<String>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..48)
            .map(|number| {
                let (store, few) = (&store, &few);
                scope.spawn(move || match store.allocate(0, few, &owner(&format!("c{number}")), None) {
                    Ok(one) => Some(one.address.ip().to_string()),
                    Err(err) => {
                        assert!(err.is_exhausted(), "{err}");
                        None
                    }
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let distinct: BTreeSet<&String> = given.iter().flatten().collect();
    assert_eq!(distinct.len(), 29);
    assert_eq!(given.iter().flatten().count(), 29);
    assert_never_half_done(place.data_dir());
    assert_index_agrees(place.data_dir());
}
