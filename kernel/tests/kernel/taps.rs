//! TAP devices: creation in another namespace with everything asked for, read back by this crate and by `ip`.

use kernel::tap::{self, Tap};
use kernel::{Netns, Rtnl, link};

use crate::{in_netns, pair};

#[test]
fn tap_is_created_in_the_namespace_with_all_asked_for() {
    in_netns(|rtnl, _| {
        let pod = Netns::create().unwrap();
        let wanted =
            Tap { name: "tap0", multi_queue: true, owner: Some(54321), group: Some(54322), label: None };
        tap::add(&pod, &wanted).unwrap();
        assert!(link::by_name(rtnl, "tap0").unwrap_err().is_not_found(), "only in the pod");
        let made = link::by_name(&mut Rtnl::open_in(&pod).unwrap(), "tap0").unwrap();
        assert_eq!((made.kind.as_deref(), made.up), (Some("tun"), false));
        let tun = made.tun.unwrap();
        assert!(tun.tap && tun.persist && tun.multi_queue);
        assert_eq!((tun.owner, tun.group), (Some(54321), Some(54322)));

        let show = || std::process::Command::new("ip").args(["-d", "link", "show", "tap0"]).output();
        let text = String::from_utf8(pod.run(show).unwrap().unwrap().stdout).unwrap();
        for words in ["tun type tap pi off vnet_hdr on multi_queue", "persist on user 54321 group 54322"] {
            assert!(text.contains(words), "{words:?} is not in {text}");
        }
    });
}

#[test]
fn tap_without_owner_belongs_to_nobody() {
    in_netns(|rtnl, ns| {
        tap::add(ns, &Tap { name: "tap0", ..Tap::default() }).unwrap();
        let tun = link::by_name(rtnl, "tap0").unwrap().tun.unwrap();
        assert_eq!((tun.owner, tun.group, tun.multi_queue, tun.persist), (None, None, false, true));
    });
}

#[test]
fn taken_names_are_recognised_whatever_has_them() {
    in_netns(|rtnl, ns| {
        pair(rtnl, "a", "b");
        tap::add(ns, &Tap { name: "tap0", ..Tap::default() }).unwrap();
        for name in ["a", "tap0"] {
            let e = tap::add(ns, &Tap { name, ..Tap::default() }).unwrap_err();
            assert!(e.is_exists(), "{e}");
            assert_eq!(e.to_string(), format!("create link {name:?}: file exists (os error 17)"));
        }
        assert!(tap::add(ns, &Tap { name: "sixteen-bytes-xx", ..Tap::default() }).is_err());
    });
}

/// A label is honoured or refused, never passed over. Where SELinux runs, a context that is none is refused by it.
#[test]
fn a_label_that_cannot_be_had_makes_no_device() {
    in_netns(|rtnl, ns| {
        let e = tap::add(ns, &Tap { name: "tap0", label: Some("no:such:context"), ..Tap::default() });
        let e = e.unwrap_err();
        let running = std::fs::read_to_string("/proc/filesystems").unwrap().contains("selinuxfs");
        assert_eq!(e.lacks().is_some(), !running, "{e}");
        assert!(link::by_name(rtnl, "tap0").unwrap_err().is_not_found());
    });
}
