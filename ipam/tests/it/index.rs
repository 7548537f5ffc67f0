//! The index: believed only while nobody else touched the directory, and then enough to read nothing else.

use std::fs;
use std::path::Path;

use crate::support::{NETWORK, Place, assert_index_agrees, index_claims_to_be_complete, ip, owner, set};
use crate::worker;

/// A name and what is done to the store's directory.
type Damage = (&'static str, fn(&Path));

#[test]
fn each_operation_of_ours_leaves_a_complete_index() {
    let place = Place::new();
    let store = place.store();
    let check = |what: &str| {
        assert!(index_claims_to_be_complete(place.data_dir()), "after {what}");
        assert_index_agrees(place.data_dir());
    };
    let set = set("10.0.0.0/29");
    store.allocate(0, &set, &owner("a"), None).expect("allocate");
    check("allocate");
    store.allocate(0, &set, &owner("a"), None).expect_err("duplicate");
    check("a duplicate");
    store.allocate(0, &set, &owner("b"), Some(ip("10.0.0.2"))).expect_err("taken");
    check("a refused request");
    store.allocate(0, &set, &owner("b"), None).expect("allocate");
    store.find(&owner("b")).expect("find");
    check("find");
    store.release(&owner("a")).expect("release");
    check("release");
    store.release(&owner("a")).expect("release");
    check("release of nothing");
    store.gc(&[]).expect("gc");
    check("gc");
    store.available(&set).expect("available");
    check("available");
}

#[test]
fn what_others_did_between_two_operations_is_seen() {
    let place = Place::new();
    let store = place.store();
    let set = set("10.0.0.0/24");
    store.allocate(0, &set, &owner("a"), None).expect("allocate");
    store.allocate(0, &set, &owner("b"), None).expect("allocate");

    place.write("10.0.0.77", "foreign\r\neth0");
    assert!(!index_claims_to_be_complete(place.data_dir()));
    assert_eq!(store.find(&owner("foreign")).expect("find"), [ip("10.0.0.77")]);
    assert!(index_claims_to_be_complete(place.data_dir()), "made good again");

    fs::remove_file(place.network().join("10.0.0.2")).expect("remove");
    assert!(store.find(&owner("a")).expect("find").is_empty());
    store.allocate(0, &set, &owner("a"), None).expect("it has none any more");

    fs::rename(place.network().join("10.0.0.77"), place.network().join("10.0.0.78")).expect("rename");
    assert_eq!(store.release(&owner("foreign")).expect("release"), [ip("10.0.0.78")]);

    fs::remove_file(place.network().join("10.0.0.3")).expect("remove");
    place.write("10.0.0.3", "c\r\neth0");
    assert!(store.find(&owner("b")).expect("find").is_empty());
    assert_eq!(store.find(&owner("c")).expect("find"), [ip("10.0.0.3")]);
    assert_index_agrees(place.data_dir());
}

#[test]
fn a_reservation_given_away_in_place_is_not_believed_to_be_the_old_owners() {
    let place = Place::new();
    let store = place.store();
    store.allocate(0, &set("10.0.0.0/24"), &owner("a"), None).expect("allocate");
    fs::write(place.network().join("10.0.0.2"), "b\r\neth0").expect("write");
    assert!(index_claims_to_be_complete(place.data_dir()), "writing into a file is not seen");
    assert!(store.release(&owner("a")).expect("release").is_empty());
    assert_eq!(store.find(&owner("b")).expect("find"), [ip("10.0.0.2")], "the contradiction rebuilt it");
}

#[test]
fn empty_files_are_reclaimed() {
    let place = Place::new();
    let store = place.store();
    place.write("10.0.0.2", "");
    place.write("10.0.0.3", "");
    let given = store.allocate(0, &set("10.0.0.0/24"), &owner("a"), None).expect("allocate");
    assert_eq!(given.address.ip(), ip("10.0.0.2"));
    assert!(!place.network().join("10.0.0.3").exists());
    place.write("10.0.0.9", "");
    store.find(&owner("a")).expect("find");
    assert!(!place.network().join("10.0.0.9").exists());
}

#[test]
fn a_damaged_index_is_mended() {
    let damages: [Damage; 7] = [
        ("removed", |index| fs::remove_dir_all(index).expect("remove")),
        ("removed with its parent", |index| {
            fs::remove_dir_all(index.parent().expect("a parent")).expect("remove")
        }),
        ("emptied", |index| {
            for entry in fs::read_dir(index).expect("list") {
                fs::remove_file(entry.expect("an entry").path()).expect("remove");
            }
        }),
        ("with a link too many", |index| {
            std::os::unix::fs::symlink("10.0.0.99", index.join("0000000000000001.0")).expect("symlink");
        }),
        ("with an orphan of a crash", |index| fs::write(index.join("reservation"), "half").expect("write")),
        ("with a file for a link", |index| {
            let link = fs::read_dir(index).expect("list").next().expect("a link").expect("an entry").path();
            fs::remove_file(&link).expect("remove");
            fs::write(link, "10.0.0.2").expect("write");
        }),
        ("with wrong links", |index| {
            for entry in fs::read_dir(index).expect("list") {
                let link = entry.expect("an entry").path();
                fs::remove_file(&link).expect("remove");
                std::os::unix::fs::symlink("../../etc/passwd", link).expect("symlink");
            }
        }),
    ];
    for (what, damage) in damages {
        let place = Place::new();
        let store = place.store();
        for id in ["a", "b", "c"] {
            store.allocate(0, &set("10.0.0.0/24"), &owner(id), None).expect("allocate");
        }
        damage(&place.index());
        assert_eq!(store.find(&owner("b")).expect("find"), [ip("10.0.0.3")], "{what}");
        assert_index_agrees(place.data_dir());
    }
}

#[test]
fn an_index_of_another_boot_is_not_believed() {
    let place = Place::new();
    let store = place.store();
    store.allocate(0, &set("10.0.0.0/24"), &owner("a"), None).expect("allocate");
    // As after a power loss: the content is gone, the times are both there, but of another boot.
    fs::write(place.network().join("10.0.0.2"), "").expect("write");
    let other = nix::sys::time::TimeSpec::new(1 << 29, 7);
    for directory in [place.network(), place.index()] {
        let open = fs::File::open(directory).expect("open");
        nix::sys::stat::futimens(&open, &other, &other).expect("futimens");
    }
    let given = store.allocate(0, &set("10.0.0.0/24"), &owner("b"), Some(ip("10.0.0.2"))).expect("allocate");
    assert_eq!(given.address.ip(), ip("10.0.0.2"));
}

#[test]
fn owners_of_one_hash_are_kept_apart() {
    let place = Place::new();
    let store = place.store();
    // A known collision of 64-bit FNV-1a.
    let (one, two) = ("7mohtcOFVz", "c1E51sSEyx");
    let (a, b) = (set("10.0.0.0/24"), set("10.0.1.0/24"));
    for (index, set) in [&a, &b].into_iter().enumerate() {
        for id in [one, two] {
            store.allocate(index, set, &owner(id), None).expect("allocate");
        }
    }
    assert_eq!(store.find(&owner(one)).expect("find"), [ip("10.0.0.2"), ip("10.0.1.2")]);
    assert_eq!(store.release(&owner(one)).expect("release").len(), 2);
    assert_eq!(store.find(&owner(two)).expect("find"), [ip("10.0.0.3"), ip("10.0.1.3")]);
    assert_index_agrees(place.data_dir());
}

/// The system calls of a script on a data directory, one a line, without those of the process's start.
fn trace(place: &Place, script: &str) -> Vec<String> {
    let log = place.data_dir().join("trace");
    let log_text = log.to_str().expect("UTF-8");
    let (network, index) = (place.network(), place.index());
    let mut program = vec!["strace", "-f", "-qq", "-y", "-o", log_text];
    for path in [&network, &index] {
        program.extend(["-P", path.to_str().expect("UTF-8")]);
    }
    let output = worker::wrapped(&program, place.data_dir(), script).output().expect("strace runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = fs::read_to_string(&log).expect("the trace");
    text.lines().map(ToOwned::to_owned).collect()
}

#[test]
fn the_work_does_not_grow_with_the_number_of_reservations() {
    let place = Place::new();
    let set = "10.0.0.0/16";
    let store = place.store();
    let mut made = 0;
    let mut counts = Vec::new();
    for reservations in [10, 5000] {
        for i in made..reservations {
            store
                .allocate(0, &crate::support::set(set), &owner(&format!("other-{i}")), None)
                .expect("allocate");
        }
        made = reservations;
        let scripts =
            [format!("allocate new {set}"), "find new".into(), "release new".into(), "find nobody".into()];
        for script in &scripts {
            let calls = trace(&place, script);
            let reservations_opened =
                calls.iter().filter(|line| line.contains("openat(") && line.contains(", \"10.")).count();
            let listed = calls.iter().filter(|line| line.contains("getdents")).count();
            counts.push((script.clone(), calls.len(), reservations_opened, listed));
        }
    }
    let (few, many) = counts.split_at(4);
    assert_eq!(few, many, "with 10 and with 5000 reservations");
    for (script, calls, opened, listed) in few {
        assert!(*calls > 3, "{script}: a trace that saw nothing proves nothing");
        let own = usize::from(script == "find new" || script == "release new");
        assert_eq!((*opened, *listed), (own, 0), "{script}");
    }
}

#[test]
fn a_directory_that_cannot_be_written_is_still_read() {
    let place = Place::new();
    let store = place.store();
    store.allocate(0, &set("10.0.0.0/29"), &owner("a"), None).expect("allocate");
    let text = place.data_dir().to_str().expect("UTF-8").to_owned();
    for foreign in [false, true] {
        if foreign {
            place.write("10.0.0.3", "b\r\neth0");
            place.write("10.0.0.4", "");
            fs::remove_file(place.network().join("lock")).expect("remove the lock");
            fs::remove_dir_all(place.index()).expect("remove the index");
        }
        sealed(|| {
            bind_read_only(&text);
            assert_eq!(store.find(&owner("a")).expect("find"), [ip("10.0.0.2")]);
            let expected = if foreign { vec![ip("10.0.0.3")] } else { vec![] };
            assert_eq!(store.find(&owner("b")).expect("find"), expected);
            let free = store.available(&set("10.0.0.0/29")).expect("available");
            assert_eq!(free, if foreign { 2 } else { 4 });
            let err = store.allocate(0, &set("10.0.0.0/29"), &owner("c"), None).expect_err("read-only");
            assert_eq!(err.errno(), Some(nix::errno::Errno::EROFS as i32), "{err}");
            let err = store.release(&owner("a")).expect_err("read-only");
            assert_eq!(err.errno(), Some(nix::errno::Errno::EROFS as i32), "{err}");
        });
        assert_eq!(place.reservations().len(), if foreign { 3 } else { 1 });
    }
}

#[test]
fn another_file_system_for_the_network_costs_only_the_link() {
    let place = Place::new();
    fs::create_dir_all(place.network()).expect("create");
    sealed(|| {
        crate::full_disk::mount_tmpfs(&place.network(), "size=1m");
        let store = place.store();
        let all = set("10.0.0.0/29");
        for (id, expected) in [("a", "10.0.0.2"), ("b", "10.0.0.3"), ("c", "10.0.0.4")] {
            let given = store.allocate(0, &all, &owner(id), None).expect("allocate");
            assert_eq!(given.address.ip(), ip(expected));
            assert!(index_claims_to_be_complete(place.data_dir()));
            assert_index_agrees(place.data_dir());
        }
        assert_eq!(store.release(&owner("b")).expect("release"), [ip("10.0.0.3")]);
        assert_eq!(
            fs::read_to_string(place.network().join("last_reserved_ip.0")).expect("a file"),
            "10.0.0.4"
        );
    });
    assert!(place.data_dir().join(NETWORK).read_dir().expect("list").next().is_none(), "nothing got out");
}

/// Runs a closure on a thread with a mount namespace of its own.
pub(crate) fn sealed(work: impl FnOnce() + Send) {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).expect("a mount namespace (needs root)");
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
                .expect("make mounts private");
            work();
        });
        thread.join().expect("the thread's checks hold");
    });
}

fn bind_read_only(path: &str) {
    use nix::mount::{MsFlags, mount};
    mount(Some(path), path, None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("bind");
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(None::<&str>, path, None::<&str>, flags, None::<&str>).expect("remount read-only");
}
