//! Sysctls and device offloads of the calling thread's namespace.

use kernel::ethtool::{self, Offload};
use kernel::{Family, Netns, Rtnl, netconf, packet, sysctl};

use crate::{in_netns, pair};

const FORWARD: &str = "net/ipv4/ip_forward";

#[test]
fn ensure_writes_only_what_differs() {
    in_netns(|_, _| {
        sysctl::write(FORWARD, "0").unwrap();
        assert_eq!(sysctl::read(FORWARD).unwrap(), "0");
        assert!(sysctl::ensure(FORWARD, "1").unwrap());
        assert!(!sysctl::ensure(FORWARD, "1").unwrap());
        assert_eq!(sysctl::read(FORWARD).unwrap(), "1");
    });
}

#[test]
fn netconf_tells_what_the_sysctls_of_forwarding_say() {
    in_netns(|_, _| {
        let mut rtnl = Rtnl::open().unwrap();
        for (family, path) in [(Family::V4, FORWARD), (Family::V6, "net/ipv6/conf/all/forwarding")] {
            for value in ["0", "1", "0"] {
                sysctl::write(path, value).unwrap();
                assert_eq!(netconf::forwarding(&mut rtnl, family).unwrap(), value == "1", "{path}");
            }
        }
    });
}

#[test]
fn each_namespace_has_its_own_values() {
    in_netns(|_, _| {
        let other = Netns::create().unwrap();
        sysctl::write(FORWARD, "0").unwrap();
        other.run(|| sysctl::write(FORWARD, "1")).unwrap().unwrap();
        assert_eq!(sysctl::read(FORWARD).unwrap(), "0");
        assert_eq!(other.run(|| sysctl::read(FORWARD)).unwrap().unwrap(), "1");
    });
}

#[test]
fn white_space_around_a_value_is_taken_off_and_kept_inside() {
    in_netns(|_, _| {
        let value = sysctl::read("net/ipv4/ip_local_port_range").unwrap();
        assert_eq!(value.split('\t').count(), 2, "{value:?}");
    });
}

#[test]
fn unknown_sysctls_are_not_found_and_paths_outside_are_refused() {
    in_netns(|_, _| {
        let e = sysctl::read("net/ipv4/conf/nope/arp_notify").unwrap_err();
        assert!(e.is_not_found(), "{e}");
        assert!(sysctl::write("net/no_such", "1").unwrap_err().is_not_found());
        assert!(sysctl::ensure("net/no_such", "1").unwrap_err().is_not_found());
        for path in ["", "../version", "net/../../version", "/proc/version", "net//ipv4"] {
            assert_eq!(sysctl::read(path).unwrap_err().errno(), Some(libc::EINVAL), "{path:?}");
        }
        let e = sysctl::write(FORWARD, "many").unwrap_err();
        assert_eq!(
            e.to_string(),
            "write \"many\" to sysctl \"net/ipv4/ip_forward\": invalid argument (os error 22)"
        );
    });
}

#[test]
fn offloads_are_switched_off_and_on() {
    in_netns(|rtnl, _| {
        pair(rtnl, "a", "b");
        for on in [false, true] {
            // Checksums first: without them there is no segmentation.
            for offload in [Offload::RxChecksum, Offload::TxChecksum] {
                ethtool::set("a", offload, on).unwrap();
            }
            packet::ethtool_offloads("a", on).unwrap();
            assert_eq!(ethtool::get("a", Offload::TxChecksum).unwrap(), on);
            for offload in [Offload::Gro, Offload::Gso, Offload::Tso] {
                assert_eq!(ethtool::get("a", offload).unwrap(), on, "{offload:?}");
            }
        }
        assert!(ethtool::get("b", Offload::Tso).unwrap(), "the other end is untouched");
    });
}

#[test]
fn offloads_of_an_absent_link_are_not_found() {
    in_netns(|_, _| {
        for name in ["nope", "", "a-name-longer-than-fifteen", "nul\0"] {
            assert!(packet::ethtool_offloads(name, false).unwrap_err().is_not_found(), "{name:?}");
            assert!(ethtool::get(name, Offload::Gro).unwrap_err().is_not_found(), "{name:?}");
        }
    });
}
