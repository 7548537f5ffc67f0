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

#[test]
fn tun_is_there_as_long_as_its_file_and_takes_packets_both_ways() {
    use std::io::{Read, Write};
    in_netns(|rtnl, _| {
        let mut file = tap::open_tun("tun0").unwrap();
        let made = link::by_name(rtnl, "tun0").unwrap();
        assert_eq!((made.tun.map(|tun| (tun.tap, tun.persist)), made.mac), (Some((false, false)), None));
        assert!(tap::open_tun("tun0").unwrap_err().is_exists());
        kernel::addr::add(rtnl, made.index, crate::net("10.7.0.1/24"), &kernel::addr::AddrOptions::default())
            .unwrap();
        crate::up(rtnl, made.index);
        let socket = std::net::UdpSocket::bind("10.7.0.1:9").unwrap();
        socket.send_to(b"out", "10.7.0.2:9").unwrap();
        let mut buffer = [0; 2048];
        // The kernel may have something of its own to say first (IPv6).
        let packet = loop {
            let n = file.read(&mut buffer).unwrap();
            if buffer[0] >> 4 == 4 {
                break buffer[..n].to_vec();
            }
        };
        assert_eq!((packet.len(), &packet[28..]), (31, &b"out"[..]));
        let mut back = packet;
        (back[12..16]).copy_from_slice(&[10, 7, 0, 2]);
        (back[16..20]).copy_from_slice(&[10, 7, 0, 1]);
        // Without a checksum of UDP; that of IPv4 is the same for swapped addresses.
        back[26..28].copy_from_slice(&[0, 0]);
        file.write_all(&back).unwrap();
        let (n, from) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..n], from.to_string().as_str()), (&b"out"[..], "10.7.0.2:9"));
        drop(file);
        assert!(link::by_name(rtnl, "tun0").unwrap_err().is_not_found());
    });
}
