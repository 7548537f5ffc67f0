//! Links: creation with everything asked for, changes read back, absence and presence recognised.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use kernel::addr::{self, AddrOptions};
use kernel::link::{self, Bridge, Change, Veth};
use kernel::{Batch, Family, Mac, Netns, Rtnl, route};

use crate::{in_netns, net, pair, up};

const NEAR: Mac = Mac([0x02, 0, 0, 0, 0, 1]);
const FAR: Mac = Mac([0x02, 0, 0, 0, 0, 2]);

#[test]
fn veth_is_created_straight_in_the_pods_netns_with_all_asked_for() {
    in_netns(|rtnl, _| {
        let pod = Netns::create().unwrap();
        link::add_bridge(rtnl, &Bridge { name: "br0", ..Bridge::default() }).unwrap();
        let bridge = link::by_name(rtnl, "br0").unwrap();
        let veth = Veth {
            name: "vethnear",
            peer: "eth0",
            mac: Some(NEAR),
            peer_mac: Some(FAR),
            mtu: 1400,
            master: Some(bridge.index),
            up: true,
            peer_netns: Some(pod.as_fd()),
        };
        link::add_veth(rtnl, &veth).unwrap();

        let near = link::by_name(rtnl, "vethnear").unwrap();
        let mut there = Rtnl::open_in(&pod).unwrap();
        let far = link::by_name(&mut there, "eth0").unwrap();
        assert_eq!((near.mac, near.mtu, near.up, near.master), (Some(NEAR), 1400, true, Some(bridge.index)));
        assert_eq!((far.mac, far.mtu, far.up, far.master), (Some(FAR), 1400, false, None));
        assert_eq!((near.kind.as_deref(), far.kind.as_deref()), (Some("veth"), Some("veth")));
        assert_eq!((near.link, far.link), (Some(far.index), Some(near.index)));
        assert!(near.link_netnsid.is_some() && far.link_netnsid.is_some());
        assert!(near.port.is_some() && far.port.is_none());
        assert!(link::by_name(rtnl, "eth0").unwrap_err().is_not_found(), "only in the pod");
    });
}

#[test]
fn veth_ends_have_one_queue_each() {
    in_netns(|rtnl, _| {
        pair(rtnl, "a", "b");
        // This crate does not read the numbers of queues, so iproute2 does.
        for name in ["a", "b"] {
            let shown = std::process::Command::new("ip").args(["-d", "link", "show", name]).output().unwrap();
            let text = String::from_utf8(shown.stdout).unwrap();
            assert!(text.contains("numtxqueues 1 ") && text.contains("numrxqueues 1 "), "{text}");
        }
    });
}

#[test]
fn names_that_are_taken_are_recognised_on_both_ends() {
    in_netns(|rtnl, _| {
        let pod = Netns::create().unwrap();
        let mut there = Rtnl::open_in(&pod).unwrap();
        pair(&mut there, "eth0", "other");
        let veth = Veth { name: "veth0", peer: "eth0", peer_netns: Some(pod.as_fd()), ..Veth::default() };
        let e = link::add_veth(rtnl, &veth).unwrap_err();
        assert!(e.is_exists(), "the far name: {e}");
        assert!(link::by_name(rtnl, "veth0").unwrap_err().is_not_found(), "nothing is left behind");

        pair(rtnl, "veth0", "veth1");
        let e = link::add_veth(rtnl, &Veth { name: "veth0", peer: "free", ..Veth::default() }).unwrap_err();
        assert!(e.is_exists(), "the near name: {e}");
        assert_eq!(e.to_string(), "create link \"veth0\": file exists (os error 17)");
        let e = link::add_bridge(rtnl, &Bridge { name: "veth0", ..Bridge::default() }).unwrap_err();
        assert!(e.is_exists(), "another kind: {e}");
    });
}

#[test]
fn absent_links_are_recognised_by_every_verb() {
    in_netns(|rtnl, _| {
        assert!(link::by_name(rtnl, "nope").unwrap_err().is_not_found());
        assert!(link::by_index(rtnl, 77).unwrap_err().is_not_found());
        assert!(
            link::set(rtnl, 77, &Change { up: Some(true), ..Change::default() }).unwrap_err().is_not_found()
        );
        assert!(link::set_port(rtnl, 77, &link::Port::default()).unwrap_err().is_not_found());
        let e = link::delete(rtnl, 77).unwrap_err();
        assert!(e.is_not_found());
        assert_eq!(e.to_string(), "delete link 77: no such device (os error 19)");
    });
}

#[test]
fn refusal_carries_the_kernels_sentence() {
    in_netns(|rtnl, _| {
        let e = link::by_name(rtnl, "a-name-longer-than-fifteen").unwrap_err();
        assert!(!e.is_not_found() && e.kernel_message().is_some(), "{e}");
        assert!(e.to_string().contains("; kernel: "), "{e}");
    });
}

#[test]
fn deleting_one_end_deletes_both() {
    in_netns(|rtnl, _| {
        let (a, b) = pair(rtnl, "a", "b");
        link::delete(rtnl, b.index).unwrap();
        assert!(link::by_index(rtnl, a.index).unwrap_err().is_not_found());
        assert!(link::delete(rtnl, a.index).unwrap_err().is_not_found(), "twice");
    });
}

/// A veth to a pod, both ends up and addressed, as an ADD leaves it: the socket in the pod, and the pod's link.
fn attached(rtnl: &mut Rtnl, pod: &Netns, name: &str) -> (Rtnl, u32) {
    let veth = Veth { name, peer: "eth0", up: true, peer_netns: Some(pod.as_fd()), ..Veth::default() };
    link::add_veth(rtnl, &veth).unwrap();
    let mut there = Rtnl::open_in(pod).unwrap();
    let far = link::by_name(&mut there, "eth0").unwrap().index;
    up(&mut there, far);
    addr::add(&mut there, far, net("10.9.0.2/24"), &AddrOptions::default()).unwrap();
    (there, far)
}

#[test]
fn an_announced_link_is_gone_on_both_sides_with_its_addresses_and_its_name_is_free() {
    in_netns(|rtnl, _| {
        let pod = Netns::create().unwrap();
        for _ in 0..20 {
            let (mut there, far) = attached(rtnl, &pod, "near");
            link::delete_announced(&mut there, far, &[]).unwrap();
            assert!(link::by_index(&mut there, far).unwrap_err().is_not_found());
            assert!(link::by_name(rtnl, "near").unwrap_err().is_not_found());
            assert_eq!(route::list(&mut there, Family::V4).unwrap(), []);
            assert!(link::delete_announced(&mut there, far, &[]).unwrap_err().is_not_found());
        }
    });
}

#[test]
fn a_link_that_cannot_be_deleted_is_no_announcement() {
    in_netns(|rtnl, _| {
        let lo = link::by_name(rtnl, "lo").unwrap().index;
        let refused = link::delete_announced(rtnl, lo, &[]).unwrap_err();
        assert_eq!(refused.errno(), Some(libc::EOPNOTSUPP), "{refused}");
        // The socket is as good as before.
        assert_eq!(link::by_name(rtnl, "lo").unwrap().index, lo);
    });
}

#[test]
fn a_group_is_deleted_whole_and_no_other_link_with_it() {
    in_netns(|rtnl, _| {
        pair(rtnl, "stays", "too");
        for n in 0..8 {
            let (near, _) = pair(rtnl, &format!("a{n}"), &format!("b{n}"));
            link::set(rtnl, near.index, &Change { group: Some(77), ..Change::default() }).unwrap();
        }
        link::delete_group(rtnl, 77).unwrap();
        let mut names: Vec<_> = link::list(rtnl).unwrap().into_iter().map(|link| link.name).collect();
        names.sort();
        assert_eq!(names, ["lo", "stays", "too"]);
        assert!(link::delete_group(rtnl, 77).unwrap_err().is_not_found());
    });
}

#[test]
fn a_created_veth_is_shown_with_its_other_ends_index() {
    in_netns(|rtnl, _| {
        let pod = Netns::create().unwrap();
        let veth = Veth { name: "near", peer: "eth0", peer_netns: Some(pod.as_fd()), ..Veth::default() };
        // Linux 6.2 and later.
        let Some(near) = link::add_veth(rtnl, &veth).unwrap() else { return };
        let far = link::by_name(&mut Rtnl::open_in(&pod).unwrap(), "eth0").unwrap();
        assert_eq!((near.name.as_str(), near.link), ("near", Some(far.index)));
        assert_eq!(near.index, link::by_name(rtnl, "near").unwrap().index);
    });
}

#[test]
fn changes_are_read_back() {
    in_netns(|rtnl, _| {
        let (a, _) = pair(rtnl, "a", "b");
        let change = Change {
            up: Some(true),
            mtu: Some(1300),
            mac: Some(NEAR),
            name: Some("renamed"),
            promisc: Some(true),
            txqlen: Some(77),
            group: Some(9),
            ..Change::default()
        };
        link::set(rtnl, a.index, &change).unwrap();
        let now = link::by_index(rtnl, a.index).unwrap();
        assert_eq!((now.up, now.mtu, now.mac, now.promisc), (true, 1300, Some(NEAR), true));
        assert_eq!((now.name.as_str(), now.txqlen, now.group), ("renamed", 77, 9));
        assert_eq!(now.oper_state, "lowerlayerdown", "the peer is still down");

        let back = Change { up: Some(false), promisc: Some(false), ..Change::default() };
        link::set(rtnl, a.index, &back).unwrap();
        let now = link::by_index(rtnl, a.index).unwrap();
        assert_eq!((now.up, now.promisc, now.mtu), (false, false, 1300));
    });
}

#[test]
fn link_moves_to_a_netns_under_a_new_name() {
    in_netns(|rtnl, _| {
        let pod = Netns::create().unwrap();
        let (_, b) = pair(rtnl, "a", "b");
        let change = Change { netns: Some(pod.as_fd()), name: Some("eth0"), ..Change::default() };
        link::set(rtnl, b.index, &change).unwrap();
        assert!(link::by_name(rtnl, "b").unwrap_err().is_not_found());
        let mut there = Rtnl::open_in(&pod).unwrap();
        assert_eq!(link::by_name(&mut there, "eth0").unwrap().kind.as_deref(), Some("veth"));
    });
}

#[test]
fn arp_notify_is_switched_on_and_off_through_netlink() {
    in_netns(|rtnl, _| {
        let (a, b) = pair(rtnl, "a", "b");
        let shown = |name: &str| kernel::sysctl::read(&format!("net/ipv4/conf/{name}/arp_notify")).unwrap();
        for (on, text) in [(true, "1"), (false, "0")] {
            link::set(rtnl, a.index, &Change { arp_notify: Some(on), ..Change::default() }).unwrap();
            assert_eq!(shown("a"), text);
        }
        assert_eq!(shown("b"), "0");
        up(rtnl, b.index);
    });
}

#[test]
fn alias_is_kept_to_its_full_length_and_removed_by_an_empty_one() {
    in_netns(|rtnl, _| {
        let (a, _) = pair(rtnl, "a", "b");
        let mut set = |text: &str| {
            link::set(rtnl, a.index, &Change { alias: Some(text), ..Change::default() })?;
            Ok::<_, kernel::Error>(link::by_index(rtnl, a.index)?.alias)
        };
        assert_eq!(a.alias, None);
        let longest = "x".repeat(255);
        for text in ["pod/eth0", &longest] {
            assert_eq!(set(text).unwrap().as_deref(), Some(text));
        }
        assert!(set(&"x".repeat(256)).is_err());
        assert_eq!(set("").unwrap(), None);
    });
}

#[test]
fn loopback_has_no_kind() {
    in_netns(|rtnl, _| {
        let lo = link::by_name(rtnl, "lo").unwrap();
        assert_eq!((lo.index, lo.kind, lo.mtu, lo.up), (1, None, 65536, false));
        assert_eq!(lo.mac, Some(Mac([0; 6])));
        up(rtnl, 1);
        let lo = link::by_index(rtnl, 1).unwrap();
        assert_eq!((lo.up, lo.oper_state.as_str(), lo.oper_up), (true, "unknown", false));
    });
}

#[test]
fn dump_of_300_links_is_complete() {
    in_netns(|rtnl, _| {
        many(rtnl, 150);
        let links = link::list(rtnl).unwrap();
        let mut names: Vec<_> = links.iter().map(|l| l.name.clone()).filter(|n| n != "lo").collect();
        names.sort();
        let mut expected: Vec<_> = (0..150).flat_map(|i| [format!("p{i}"), format!("v{i}")]).collect();
        expected.sort();
        assert_eq!(names, expected);
        assert!(links.iter().all(|l| l.name == "lo" || l.kind.as_deref() == Some("veth")));
    });
}

#[test]
fn dump_amid_changes_is_complete_or_says_that_it_was_interrupted() {
    in_netns(|rtnl, ns| {
        many(rtnl, 60);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut other = Rtnl::open_in(ns).unwrap();
                while !over.load(Ordering::Relaxed) {
                    pair(&mut other, "churn", "nruhc");
                    let churn = link::by_name(&mut other, "churn").unwrap();
                    link::delete(&mut other, churn.index).unwrap();
                }
            });
            let dumps: Vec<_> = (0..200).map(|_| link::list(rtnl)).collect();
            over.store(true, Ordering::Relaxed);
            let mut complete = 0;
            for dump in dumps {
                match dump {
                    Ok(links) => {
                        let stable = links.iter().filter(|l| l.name.starts_with(['p', 'v'])).count();
                        assert_eq!(stable, 120);
                        complete += 1;
                    }
                    Err(e) => assert!(e.is_interrupted(), "{e}"),
                }
            }
            assert!(complete > 0);
        });
    });
}

fn many(rtnl: &mut Rtnl, pairs: usize) {
    let mut batch = Batch::new();
    for i in 0..pairs {
        let (name, peer) = (format!("v{i}"), format!("p{i}"));
        batch.link_add_veth(&Veth { name: &name, peer: &peer, ..Veth::default() });
    }
    for (i, made) in rtnl.send(batch).unwrap().into_iter().enumerate() {
        made.unwrap_or_else(|e| panic!("pair {i}: {e}"));
    }
}
