//! What is put on a node and taken off again. The plugins here are a script that does what `podnet list`, `podnet install`
//! and VERSION do; with the real ones the end-to-end tests do the same.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use kernel::{Netns, Rtnl};

use super::uninstall::{Hook, uninstall};
use super::{binaries, conflist, files};
use crate::model::Node;
use crate::places::Places;

/// An executable with these plugins; what VERSION answers is told apart by `version`.
fn executable(dir: &Path, names: &[&str], version: &str) -> PathBuf {
    let path = dir.join("podnet");
    let list: String = names.iter().map(|name| format!("echo '{name}  kind  what it does';")).collect();
    let script = format!(
        r#"#!/bin/sh
case "$1" in
list) {list} ;;
install) shift; dir=$1; shift
    for name; do ln "$0" "$dir/.new" && mv "$dir/.new" "$dir/$name" || exit 1; done ;;
*) echo '{version}' ;;
esac
"#
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    path
}

const ALL: [&str; 7] = ["ptp", "host-local", "podnet-policy", "portmap", "bandwidth", "bridge", "loopback"];
const VERSIONS: &str = r#"{"cniVersion":"1.0.0","supportedVersions":["0.4.0","1.0.0"]}"#;

fn foreign(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, "#!/bin/sh\necho another\n").unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

fn is_foreign(path: &Path) -> bool {
    fs::read_to_string(path).unwrap().contains("another")
}

#[test]
fn what_the_network_needs_is_replaced_and_what_it_does_not_need_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let from = executable(dir.path(), &ALL, VERSIONS);
    let bin = dir.path().join("bin");
    for name in ["ptp", "loopback", "macvlan"] {
        foreign(&bin.join(name));
    }
    let done = binaries::install(&from, &bin).unwrap();
    assert!(done.changed);
    assert_eq!(done.names, ["ptp", "host-local", "podnet-policy", "portmap", "bandwidth", "bridge"]);
    assert_eq!((done.replaced, done.left), (vec!["ptp".to_owned()], vec!["loopback".to_owned()]));
    assert!(is_foreign(&bin.join("loopback")) && is_foreign(&bin.join("macvlan")));
    let inode = |name: &str| fs::metadata(bin.join(name)).unwrap().ino();
    assert!(done.names.iter().all(|name| inode(name) == inode("ptp")), "one file with many names");

    let again = binaries::install(&from, &bin).unwrap();
    assert!(!again.changed && again.replaced.is_empty(), "{again:?}");

    let removed = binaries::remove(&bin).unwrap();
    assert_eq!(removed.restored, ["ptp"]);
    assert_eq!(files::names(&bin).unwrap(), ["loopback", "macvlan", "ptp"]);
    assert!(is_foreign(&bin.join("ptp")));
    assert_eq!(binaries::remove(&bin).unwrap(), binaries::Removed::default());
}

#[test]
fn another_version_takes_the_place_of_ours_and_is_not_kept_as_foreign() {
    let dir = tempfile::tempdir().unwrap();
    let bin = dir.path().join("bin");
    foreign(&bin.join("ptp"));
    binaries::install(&executable(dir.path(), &ALL, VERSIONS), &bin).unwrap();
    let newer = executable(dir.path(), &ALL, &VERSIONS.replace("0.4.0", "0.3.1"));
    let done = binaries::install(&newer, &bin).unwrap();
    assert!(done.changed && done.replaced.is_empty(), "{done:?}");
    assert!(fs::read_to_string(bin.join("ptp")).unwrap().contains("0.3.1"));
    let kept = files::names(&bin.join(".podnet")).unwrap();
    assert_eq!(kept.iter().filter(|name| name.starts_with("podnet-")).count(), 1, "{kept:?}");
    binaries::remove(&bin).unwrap();
    assert!(is_foreign(&bin.join("ptp")), "what stood there before both versions is put back");
}

#[test]
fn a_plugin_that_does_not_run_or_is_not_there_is_told_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let bin = dir.path().join("bin");
    let silent = executable(dir.path(), &ALL, "");
    let err = format!("{:#}", binaries::install(&silent, &bin).unwrap_err());
    assert!(err.contains("run plugin") && err.contains("/ptp"), "{err}");
    let old = executable(dir.path(), &ALL, r#"{"supportedVersions":["0.2.0"]}"#);
    let err = format!("{:#}", binaries::install(&old, &bin).unwrap_err());
    assert!(err.contains("knows CNI versions 0.2.0, not 1.0.0"), "{err}");
    let lacking = executable(dir.path(), &["ptp", "host-local"], VERSIONS);
    let err = format!("{:#}", binaries::install(&lacking, &bin).unwrap_err());
    assert!(err.contains("no plugin \"podnet-policy\""), "{err}");
    let absent = dir.path().join("absent");
    let err = format!("{:#}", binaries::install(&absent, &bin).unwrap_err());
    assert!(err.contains("absent"), "{err}");
}

#[test]
fn a_plugin_that_may_not_be_executed_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let bin = dir.path().join("bin");
    binaries::install(&executable(dir.path(), &ALL, VERSIONS), &bin).unwrap();
    binaries::check(&bin, conflist::PLUGINS).unwrap();
    fs::set_permissions(bin.join("ptp"), Permissions::from_mode(0o644)).unwrap();
    let err = binaries::check(&bin, conflist::PLUGINS).unwrap_err().to_string();
    assert!(err.contains("ptp"), "{err}");
    fs::remove_file(bin.join("ptp")).unwrap();
    let err = binaries::check(&bin, conflist::PLUGINS).unwrap_err().to_string();
    assert!(err.contains("ptp"), "{err}");
}

#[test]
fn uninstalling_begins_with_the_configuration_goes_on_after_errors_and_can_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let places = Places::below(dir.path());
    binaries::install(&executable(dir.path(), &ALL, VERSIONS), &places.plugins()).unwrap();
    let node = Node {
        name: "node1".to_owned(),
        pod_cidrs: vec!["10.244.1.0/24".parse().unwrap()],
        addresses: Vec::new(),
        ready: true,
    };
    conflist::write(&conflist::render(&node, 1500, &places).unwrap(), &places).unwrap();
    super::reservations::mark_start(&places).unwrap();
    fs::write(places.configurations().join("10-kindnet.conflist"), "{}").unwrap();
    let mut rtnl = Rtnl::open_in(&Netns::create().unwrap()).unwrap();

    let hooks: Vec<Hook<'_>> = vec![
        (
            "routes",
            Box::new(|| {
                assert!(!places.conflist().exists(), "the configuration goes first");
                assert!(places.plugins().join("ptp").exists(), "the plugins go after what the kernel holds");
                Err(anyhow::anyhow!("the kernel says no"))
            }),
        ),
        ("masquerade", Box::new(|| Ok(Some("removed table inet podnet-masq".to_owned())))),
    ];
    let report = uninstall(&places, &mut rtnl, hooks);
    let failed: Vec<String> = report.failed.iter().map(|err| format!("{err:#}")).collect();
    assert_eq!(failed, ["routes: the kernel says no"]);
    assert!(report.done.iter().any(|line| line.starts_with("masquerade: ")), "{:?}", report.done);
    assert_eq!(files::names(&places.configurations()).unwrap(), ["10-kindnet.conflist"]);
    assert_eq!(files::names(&places.plugins()).unwrap(), Vec::<String>::new());
    assert!(!places.run().exists());

    let again = uninstall(&places, &mut rtnl, Vec::new());
    assert!(again.done.is_empty() && again.failed.is_empty(), "{again:?}");
}
