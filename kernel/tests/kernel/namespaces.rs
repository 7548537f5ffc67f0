//! Namespaces: opening, making, entering and coming back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use kernel::{Netns, Rtnl, link};

fn id_here() -> (u64, u64) {
    Netns::current().unwrap().id().unwrap()
}

#[test]
fn missing_and_empty_paths_are_not_found() {
    for path in ["/run/no/such/netns", ""] {
        let e = Netns::open(Path::new(path)).unwrap_err();
        assert!(e.is_not_found() && !e.is_not_netns(), "{e}");
        assert_eq!(e.to_string(), format!("open netns {path:?}: no such file or directory (os error 2)"));
    }
}

#[test]
fn plain_file_is_no_netns() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let e = Netns::open(Path::new(path)).unwrap_err();
    assert!(e.is_not_netns() && !e.is_not_found(), "{e}");
    let text = e.to_string();
    let magic = text.strip_prefix(&format!("unknown FS magic on {path:?}: ")).expect("the reference's words");
    assert!(u64::from_str_radix(magic, 16).is_ok(), "{magic}");
}

#[test]
fn file_on_procfs_opens_but_cannot_be_entered() {
    let ns = Netns::open(Path::new("/proc/self/status")).unwrap();
    let e = ns.run(|| unreachable!("this is no namespace")).unwrap_err();
    assert_eq!(e.errno(), Some(libc::EINVAL), "{e}");
}

#[test]
fn own_namespace_opens_by_path() {
    let ns = Netns::open(Path::new("/proc/thread-self/ns/net")).unwrap();
    assert_eq!(ns.id().unwrap(), id_here());
}

#[test]
fn create_makes_a_new_one_and_leaves_the_caller() {
    let before = id_here();
    let (a, b) = (Netns::create().unwrap(), Netns::create().unwrap());
    assert_eq!(id_here(), before);
    let ids = [before, a.id().unwrap(), b.id().unwrap()];
    assert!(ids[0] != ids[1] && ids[0] != ids[2] && ids[1] != ids[2], "{ids:?}");
}

#[test]
fn run_enters_and_returns_with_the_value() {
    let (outer, inner) = (Netns::create().unwrap(), Netns::create().unwrap());
    let before = id_here();
    let seen = outer
        .run(|| {
            let deep = inner.run(id_here).unwrap();
            (id_here(), deep)
        })
        .unwrap();
    assert_eq!(seen, (outer.id().unwrap(), inner.id().unwrap()));
    assert_eq!(id_here(), before);
}

#[test]
fn run_returns_the_thread_when_the_closure_panics() {
    let ns = Netns::create().unwrap();
    let before = id_here();
    let outcome = catch_unwind(AssertUnwindSafe(|| ns.run(|| panic!("on purpose"))));
    assert!(outcome.is_err());
    assert_eq!(id_here(), before);
}

#[test]
fn socket_acts_where_it_was_opened() {
    let ns = Netns::create().unwrap();
    let mut rtnl = Rtnl::open_in(&ns).unwrap();
    let names: Vec<_> = link::list(&mut rtnl).unwrap().into_iter().map(|l| l.name).collect();
    assert_eq!(names, ["lo"]);
}
