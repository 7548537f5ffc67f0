//! The store's verbs on a directory of their own: what is written, what is found, what is removed.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;

use ipam::{Error, Owner, Store};

use crate::support::{NETWORK, Place, assert_index_agrees, assert_never_half_done, ip, owner, set};

/// The addresses as text.
fn texts(ips: &[IpAddr]) -> Vec<String> {
    ips.iter().map(ToString::to_string).collect()
}

#[test]
fn files_are_the_references_byte_for_byte() {
    let place = Place::new();
    let store = place.store();
    let four = store.allocate(0, &set("10.1.2.0/24"), &owner(" abc "), None).expect("allocate");
    assert_eq!((four.address.to_string(), four.gateway), ("10.1.2.2/24".into(), Some(ip("10.1.2.1"))));
    let six = store.allocate(1, &set("2001:db8::/64"), &owner("abc"), None).expect("allocate");
    assert_eq!((six.address.to_string(), six.gateway), ("2001:db8::2/64".into(), Some(ip("2001:db8::1"))));
    let mut files: Vec<(String, String, u32)> = fs::read_dir(place.network())
        .expect("the directory")
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let mode = fs::metadata(&path).expect("metadata").permissions().mode();
            let name = path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
            (name, fs::read_to_string(&path).expect("content"), mode & 0o7777)
        })
        .collect();
    files.sort();
    let file = |name: &str, content: &str, mode| (name.to_owned(), content.to_owned(), mode);
    let expected = [
        file("10.1.2.2", "abc\r\neth0", 0o600),
        file("2001:db8::2", "abc\r\neth0", 0o600),
        file("last_reserved_ip.0", "10.1.2.2", 0o600),
        file("last_reserved_ip.1", "2001:db8::2", 0o600),
        file("lock", "", 0o750),
    ];
    assert_eq!(files, expected);
    let mode = |path| fs::metadata(path).expect("metadata").permissions().mode() & 0o7777;
    assert_eq!((mode(place.network()), mode(place.index())), (0o755, 0o700));
    assert_index_agrees(place.data_dir());
}

#[test]
fn addresses_go_round() {
    let place = Place::new();
    let store = place.store();
    let set = set("10.0.0.0/29");
    for (id, expected) in [("a", "10.0.0.2/29"), ("b", "10.0.0.3/29"), ("c", "10.0.0.4/29")] {
        let given = store.allocate(0, &set, &owner(id), None).expect("allocate");
        assert_eq!(given.address.to_string(), expected);
    }
    assert_eq!(texts(&store.release(&owner("b")).expect("release")), ["10.0.0.3"]);
    for (id, expected) in [("d", "10.0.0.5/29"), ("e", "10.0.0.6/29"), ("f", "10.0.0.3/29")] {
        let given = store.allocate(0, &set, &owner(id), None).expect("allocate");
        assert_eq!(given.address.to_string(), expected);
    }
    let err = store.allocate(0, &set, &owner("g"), None).expect_err("exhausted");
    assert!(err.is_exhausted());
    assert_eq!(err.to_string(), "no IP addresses available in range set: 10.0.0.1-10.0.0.6");
    assert!(store.find(&owner("g")).expect("find").is_empty());
    assert_never_half_done(place.data_dir());
}

#[test]
fn a_requested_address_is_given_or_refused_in_the_references_words() {
    let place = Place::new();
    let store = place.store();
    let set = set("10.0.0.0/24,10.0.1.0/24");
    let ask = |id: &'static str, address| store.allocate(0, &set, &owner(id), Some(ip(address)));
    assert_eq!(ask("a", "10.0.1.7").expect("allocate").address.to_string(), "10.0.1.7/24");
    assert_eq!(ask("a", "::ffff:10.0.1.9").expect("allocate").address.to_string(), "10.0.1.9/24");
    let refused = |id, address| ask(id, address).expect_err("refused").to_string();
    let ranges = "10.0.0.1-10.0.0.254,10.0.1.1-10.0.1.254";
    let taken = format!("requested IP address 10.0.1.7 is not available in range set {ranges}");
    assert_eq!(refused("b", "10.0.1.7"), taken);
    assert_eq!(refused("a", "10.0.1.7"), taken, "also to its owner");
    assert_eq!(refused("b", "10.0.1.1"), "requested ip 10.0.1.1 is subnet's gateway");
    assert_eq!(refused("b", "10.0.2.1"), format!("10.0.2.1 not in range set {ranges}"));
    assert!(store.find(&owner("b")).expect("find").is_empty());
    // Round robin goes on from it.
    assert_eq!(store.allocate(0, &set, &owner("c"), None).expect("allocate").address.ip(), ip("10.0.1.10"));
    assert_index_agrees(place.data_dir());
}

#[test]
fn an_owner_gets_one_address_of_a_set_and_one_of_each_set() {
    let place = Place::new();
    let store = place.store();
    let (one, two) = (set("10.0.0.0/24"), set("10.0.1.0/24"));
    store.allocate(0, &one, &owner("a"), None).expect("allocate");
    let err = store.allocate(0, &one, &owner("a"), None).expect_err("a second one");
    assert!(err.is_duplicate());
    assert_eq!(err.to_string(), "10.0.0.2 has been allocated to a, duplicate allocation is not allowed");
    store.allocate(1, &two, &owner("a"), None).expect("of another set");
    store
        .allocate(0, &one, &Owner { container_id: "a", ifname: "eth1" }, None)
        .expect("for another interface");
    assert_eq!(texts(&store.find(&owner("a")).expect("find")), ["10.0.0.2", "10.0.1.2"]);
    assert_eq!(texts(&store.release(&owner("a")).expect("release")), ["10.0.0.2", "10.0.1.2"]);
    assert!(store.release(&owner("a")).expect("again").is_empty());
    assert_eq!(place.reservations().len(), 1);
}

#[test]
fn reservations_by_container_id_alone_are_honoured() {
    let place = Place::new();
    let store = place.store();
    place.write("10.0.0.9", "old\n");
    place.write("10.0.0.10", "both");
    let set = set("10.0.0.0/24");
    let err = store.allocate(0, &set, &owner("old"), None).expect_err("it has one");
    assert_eq!(err.to_string(), "10.0.0.9 has been allocated to old, duplicate allocation is not allowed");
    assert_eq!(texts(&store.find(&owner("old")).expect("find")), ["10.0.0.9"]);
    let requested = Some(ip("10.0.0.20"));
    store.allocate(0, &set, &owner("both"), requested).expect("a request does not ask for duplicates");
    assert_eq!(texts(&store.find(&owner("both")).expect("find")), ["10.0.0.20", "10.0.0.10"]);
    // The new form goes first; the old one only when there is no new one.
    assert_eq!(texts(&store.release(&owner("both")).expect("release")), ["10.0.0.20"]);
    assert_eq!(texts(&store.release(&owner("both")).expect("release")), ["10.0.0.10"]);
    assert_eq!(texts(&store.release(&owner("old")).expect("release")), ["10.0.0.9"]);
    assert!(place.reservations().is_empty());
    assert_index_agrees(place.data_dir());
}

#[test]
fn several_sets_give_all_or_nothing() {
    let place = Place::new();
    let store = place.store();
    let sets = [set("10.0.0.0/24"), set("fd00::/64"), set("10.0.1.0/30")];
    let all = store.allocate_all(&sets, &owner("a"), &[]).expect("allocate");
    let given: Vec<String> = all.iter().map(|one| one.address.to_string()).collect();
    assert_eq!(given, ["10.0.0.2/24", "fd00::2/64", "10.0.1.2/30"]);
    // The third set is exhausted now; an older address of the same owner stays.
    store.allocate(7, &set("10.9.0.0/24"), &owner("b"), None).expect("allocate");
    let err = store.allocate_all(&sets, &owner("b"), &[]).expect_err("exhausted");
    assert!(err.is_exhausted());
    assert_eq!(
        err.to_string(),
        "failed to allocate for range 2: no IP addresses available in range set: 10.0.1.1-10.0.1.2"
    );
    assert_eq!(texts(&store.find(&owner("b")).expect("find")), ["10.9.0.2"]);
    assert_eq!(place.reservations().len(), 4);
    assert_index_agrees(place.data_dir());
}

#[test]
fn each_set_takes_the_first_request_that_is_its_own() {
    let place = Place::new();
    let store = place.store();
    let sets = [set("10.0.0.0/24"), set("fd00::/64")];
    let ask = |id: &'static str, requested: &[&str]| {
        let requested: Vec<IpAddr> = requested.iter().map(|text| ip(text)).collect();
        store.allocate_all(&sets, &owner(id), &requested).map(|all| {
            let given: Vec<String> = all.iter().map(|one| one.address.ip().to_string()).collect();
            given.join(" ")
        })
    };
    assert_eq!(ask("a", &["fd00::5", "10.0.0.5"]).expect("allocate"), "10.0.0.5 fd00::5");
    assert_eq!(ask("b", &["10.0.0.9", "::ffff:10.0.0.9"]).expect("allocate"), "10.0.0.9 fd00::6");
    let err = ask("c", &["10.0.0.20", "10.0.0.21", "192.0.2.1"]).expect_err("two are left over");
    assert_eq!(err.to_string(), "failed to allocate all requested IPs: 10.0.0.21 192.0.2.1");
    let err = ask("c", &["fd00::6"]).expect_err("taken");
    assert_eq!(
        err.to_string(),
        "failed to allocate for range 1: requested IP address fd00::6 is not available in range set \
         fd00::1-fd00::ffff:ffff:ffff:ffff"
    );
    assert!(store.find(&owner("c")).expect("find").is_empty());
    assert_eq!(place.reservations().len(), 4);
}

#[test]
fn an_add_that_failed_later_takes_back_only_its_own() {
    let place = Place::new();
    let store = place.store();
    store.allocate(0, &set("10.0.0.0/24"), &owner("a"), None).expect("allocate");
    store.allocate(1, &set("10.0.1.0/24"), &owner("a"), None).expect("allocate");
    store.allocate(1, &set("10.0.1.0/24"), &owner("b"), None).expect("allocate");
    store.release_only(&owner("a"), &[ip("10.0.1.2"), ip("10.0.1.3"), ip("10.9.9.9")]).expect("release");
    assert_eq!(texts(&store.find(&owner("a")).expect("find")), ["10.0.0.2"]);
    assert_eq!(texts(&store.find(&owner("b")).expect("find")), ["10.0.1.3"]);
}

#[test]
fn what_is_not_there_is_success_and_stays_so() {
    let place = Place::new();
    let gone = place.data_dir().join("no").join("such");
    let store = Store::open(&gone, NETWORK).expect("a store");
    assert!(store.release(&owner("a")).expect("release").is_empty());
    store.release_only(&owner("a"), &[ip("10.0.0.2")]).expect("release");
    assert!(store.find(&owner("a")).expect("find").is_empty());
    assert!(store.gc(&[]).expect("gc").is_empty());
    assert_eq!(store.available(&set("10.0.0.0/24")).expect("available"), 253);
    assert!(!place.data_dir().join("no").exists());
    store.allocate(0, &set("10.0.0.0/24"), &owner("a"), None).expect("makes the directories");
    assert!(gone.join(NETWORK).join("10.0.0.2").exists());
}

#[test]
fn a_network_that_cannot_name_a_directory_is_refused() {
    for name in ["", ".", "..", ".podnet", "a/b"] {
        let err = Store::open("/nowhere".as_ref(), name).expect_err("refused");
        assert!(err.is_invalid());
        assert_eq!(err.to_string(), format!("network name {name:?} cannot name a directory"));
    }
}

#[test]
fn list_tells_address_owner_and_age_of_every_reservation() {
    let place = Place::new();
    let store = place.store();
    assert_eq!(store.list().expect("list"), []);
    store
        .allocate(0, &set("10.0.0.0/24"), &Owner { container_id: "a", ifname: "eth1" }, None)
        .expect("allocate");
    place.write("10.0.0.101", "old");
    place.write("10.0.0.102", "");
    place.write("notes", "mine");
    let listed = store.list().expect("list");
    let told: Vec<_> =
        listed.iter().map(|it| (it.address.to_string(), &*it.container_id, &*it.ifname)).collect();
    assert_eq!(told, [("10.0.0.2".to_owned(), "a", "eth1"), ("10.0.0.101".to_owned(), "old", "")]);
    let written =
        std::fs::metadata(place.network().join("10.0.0.2")).expect("stat").modified().expect("time");
    let since = listed[0].since.expect("age");
    assert_eq!(written.duration_since(since).expect("not later").as_secs(), 0);
}

#[test]
fn gc_removes_whatever_has_no_kept_owner() {
    let place = Place::new();
    let store = place.store();
    let set = set("10.0.0.0/24");
    for id in ["a", "b", "c"] {
        store.allocate(0, &set, &owner(id), None).expect("allocate");
    }
    store.allocate(0, &set, &Owner { container_id: "a", ifname: "eth1" }, None).expect("allocate");
    place.write("10.0.0.100", "a");
    place.write("10.0.0.101", "gone");
    place.write("10.0.0.102", "");
    place.write("notes", "mine");
    let sorted = |mut ips: Vec<IpAddr>| {
        ips.sort();
        texts(&ips)
    };
    let removed = store.gc(&[owner("a"), owner("c")]).expect("gc");
    assert_eq!(sorted(removed), ["10.0.0.3", "10.0.0.5", "10.0.0.101", "10.0.0.102"]);
    assert_eq!(place.reservations().into_keys().collect::<Vec<_>>(), ["10.0.0.100", "10.0.0.2", "10.0.0.4"]);
    assert_index_agrees(place.data_dir());
    let removed = store.gc(&[]).expect("gc");
    assert_eq!(sorted(removed), ["10.0.0.2", "10.0.0.4", "10.0.0.100"]);
    assert_index_agrees(place.data_dir());
    for left in ["lock", "last_reserved_ip.0", "notes"] {
        assert!(place.network().join(left).exists(), "{left}");
    }
}

#[test]
fn gc_goes_on_past_what_it_cannot_remove_and_says_all_of_it() {
    let place = Place::new();
    let store = place.store();
    let set = set("10.0.0.0/24");
    for id in ["a", "b"] {
        store.allocate(0, &set, &owner(id), None).expect("allocate");
    }
    // A link that goes in a circle cannot be read.
    for name in ["10.0.0.50", "10.0.0.51"] {
        std::os::unix::fs::symlink(name, place.network().join(name)).expect("symlink");
    }
    let Err(Error::Incomplete { removed, errors }) = store.gc(&[owner("b")]) else {
        panic!("the two links are to be reported")
    };
    assert_eq!(texts(&removed), ["10.0.0.2"]);
    let mut lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    lines.sort();
    let line = |name| {
        let path = place.network().join(name);
        format!("read {path:?}: too many symbolic links encountered (os error 40)")
    };
    assert_eq!(lines, [line("10.0.0.50"), line("10.0.0.51")]);
    // Neither is in the way of anyone else, nor handed out.
    assert_eq!(texts(&store.find(&owner("b")).expect("find")), ["10.0.0.3"]);
    store.find(&owner("nobody")).expect_err("it may be the owner of what cannot be read");
    let refused = store.allocate(0, &set, &owner("c"), Some(ip("10.0.0.50"))).expect_err("taken");
    assert!(matches!(refused, Error::RequestedTaken { .. }), "{refused}");
    assert_eq!(texts(&store.release(&owner("b")).expect("release")), ["10.0.0.3"]);
}

#[test]
fn what_is_no_file_is_neither_read_nor_handed_out() {
    let place = Place::new();
    fs::create_dir_all(place.network().join("10.0.0.2")).expect("a directory");
    nix::unistd::mkfifo(&place.network().join("10.0.0.3"), nix::sys::stat::Mode::S_IRUSR).expect("a FIFO");
    let store = place.store();
    let given = store.allocate(0, &set("10.0.0.0/24"), &owner("a"), None).expect("allocate");
    assert_eq!(given.address.ip(), ip("10.0.0.4"));
    assert_eq!(texts(&store.gc(&[]).expect("gc")), ["10.0.0.4"]);
    assert_eq!(store.available(&set("10.0.0.0/29")).expect("available"), 3);
}

#[test]
fn available_counts_free_addresses_by_name() {
    let place = Place::new();
    let store = place.store();
    let four = set("10.0.0.0/29,10.0.1.0/30");
    assert_eq!(store.available(&four).expect("available"), 6);
    for id in ["a", "b", "c", "d", "e"] {
        store.allocate(0, &four, &owner(id), None).expect("allocate");
    }
    place.write("10.0.0.1", "the gateway does not count");
    place.write("10.0.9.1", "nor does another subnet");
    assert_eq!(store.available(&four).expect("available"), 1);
    store.allocate(0, &four, &owner("f"), None).expect("allocate");
    assert_eq!(store.available(&four).expect("available"), 0);
    assert!(store.allocate(0, &four, &owner("g"), None).expect_err("exhausted").is_exhausted());
    // An empty file is no reservation.
    place.write("10.0.0.4", "");
    assert_eq!(store.available(&four).expect("available"), 1);
    let given = store.allocate(0, &four, &owner("g"), None).expect("allocate");
    assert_eq!(given.address.ip(), ip("10.0.0.4"));
    assert_eq!(store.available(&set("fd00::/64")).expect("available"), (1 << 64) - 2);
}

#[test]
fn a_lock_that_was_removed_meanwhile_is_taken_anew() {
    let place = Place::new();
    let store = place.store();
    store.allocate(0, &set("10.0.0.0/24"), &owner("a"), None).expect("allocate");
    let lock = fs::File::open(place.network().join("lock")).expect("the lock");
    let held = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusive).expect("lock");
    let waiting = std::thread::spawn({
        let store = store.clone();
        move || store.allocate(0, &set("10.0.0.0/24"), &owner("b"), None)
    });
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert!(!waiting.is_finished(), "waits for the lock");
    fs::remove_dir_all(place.network()).expect("remove the directory");
    drop(held);
    let given = waiting.join().expect("no panic").expect("in a new directory");
    assert_eq!(given.address.ip(), ip("10.0.0.2"));
    assert_eq!(place.reservations().into_keys().collect::<Vec<_>>(), ["10.0.0.2"]);
    assert_index_agrees(place.data_dir());
}

#[test]
fn last_reserved_address_that_says_nothing_starts_from_the_front() {
    for text in ["", "nonsense", "fd00::1", "10.9.9.9", " 10.0.0.9\n"] {
        let place = Place::new();
        place.write("last_reserved_ip.0", text);
        let given = place.store().allocate(0, &set("10.0.0.0/24"), &owner("a"), None).expect("allocate");
        let expected = if text.contains("10.0.0.9") { "10.0.0.10" } else { "10.0.0.2" };
        assert_eq!(given.address.ip(), ip(expected), "{text:?}");
    }
}
