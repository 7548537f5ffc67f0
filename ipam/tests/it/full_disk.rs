//! A file system that is full: an allocation is whole or not at all, and what is there can still be found and released.

use std::fs;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

use crate::index::sealed;
use crate::support::{Place, assert_index_agrees, assert_never_half_done, owner, set};

/// Mounts a tmpfs in the calling thread's mount namespace.
pub(crate) fn mount_tmpfs(path: &Path, options: &str) {
    mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some(options)).expect("mount a tmpfs");
}

/// Allocates until there is no room, in a tmpfs with these options; then everything else must still work.
fn fill(options: &str) {
    let place = Place::new();
    sealed(|| {
        mount_tmpfs(place.data_dir(), options);
        let store = place.store();
        let sets = [set("10.0.0.0/16"), set("fd00::/64")];
        let mut held = Vec::new();
        let err = loop {
            let id = format!("c{}", held.len());
            match store.allocate_all(&sets, &owner(&id), &[]) {
                Ok(_) => held.push(id),
                Err(err) => break err,
            }
            assert!(held.len() < 10_000, "the file system never fills");
        };
        assert_eq!(err.errno(), Some(Errno::ENOSPC as i32), "{err}");
        assert!(err.to_string().contains("no space left on device (os error 28)"), "{err}");
        assert!(held.len() > 1, "{options}: {err}");
        assert_never_half_done(place.data_dir());
        assert_eq!(place.reservations().len(), 2 * held.len(), "the one that failed left nothing");
        for id in &held {
            assert_eq!(store.find(&owner(id)).expect("find").len(), 2);
        }
        // Again and again: nothing leaks.
        for _ in 0..20 {
            store.allocate_all(&sets, &owner("late"), &[]).expect_err("still full");
        }
        assert_eq!(place.reservations().len(), 2 * held.len());
        assert_never_half_done(place.data_dir());
        // One goes, one comes.
        let first = held.remove(0);
        assert_eq!(store.release(&owner(&first)).expect("release").len(), 2);
        store.allocate_all(&sets, &owner("late"), &[]).expect("there is room for one");
        held.push("late".into());
        let keep: Vec<_> = held[1..].iter().map(|id| owner(id)).collect();
        assert_eq!(store.gc(&keep).expect("gc").len(), 2);
        for id in &held {
            store.release(&owner(id)).expect("release");
        }
        assert!(place.reservations().is_empty());
        assert_index_agrees(place.data_dir());
    });
}

#[test]
fn without_room_for_content() {
    fill("size=160k");
}

#[test]
fn without_room_for_names() {
    fill("size=1m,nr_inodes=40");
}

#[test]
fn whatever_little_is_left_an_allocation_is_whole_or_not_at_all() {
    for nr_inodes in 2..24 {
        for foreign in [false, true] {
            let place = Place::new();
            sealed(|| {
                mount_tmpfs(place.data_dir(), &format!("size=1m,nr_inodes={nr_inodes}"));
                let store = place.store();
                let set = set("10.0.0.0/24");
                let first = store.allocate(0, &set, &owner("a"), None).is_ok();
                if foreign && first {
                    // No room for the index of what another program wrote.
                    let _ = fs::write(place.network().join("10.0.0.50"), "f\r\neth0");
                    let _ = fs::write(place.network().join("10.0.0.51"), "g\r\neth0");
                    for name in ["10.0.0.50", "10.0.0.51"] {
                        if fs::read_to_string(place.network().join(name)).is_ok_and(|text| text.is_empty()) {
                            fs::remove_file(place.network().join(name)).expect("remove");
                        }
                    }
                    let held = place.reservations();
                    let is_there = usize::from(held.contains_key("10.0.0.50"));
                    assert_eq!(store.find(&owner("f")).expect("find").len(), is_there);
                    assert_eq!(store.release(&owner("f")).expect("release").len(), is_there);
                }
                let before = place.reservations();
                match store.allocate(0, &set, &owner("b"), None) {
                    Ok(one) => assert!(place.reservations().contains_key(&one.address.ip().to_string())),
                    Err(err) => {
                        assert_eq!(err.errno(), Some(Errno::ENOSPC as i32), "{err}");
                        assert_eq!(place.reservations(), before);
                    }
                }
                assert_never_half_done(place.data_dir());
                assert_eq!(store.find(&owner("a")).expect("find").len(), usize::from(first));
                store.gc(&[]).expect("gc");
                assert!(place.reservations().is_empty());
            });
        }
    }
}
