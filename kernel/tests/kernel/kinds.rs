//! Links of one piece. Of those kinds that the running kernel lacks, only that it is told so.

use std::os::fd::AsFd;

use kernel::link::{self, IpvlanMode, LinkKind, MacvlanMode, NewLink, VlanProtocol};
use kernel::{Error, Mac, Netns, Rtnl, neigh};

use crate::{in_netns, pair};

const MACVLAN: LinkKind = LinkKind::Macvlan { mode: MacvlanMode::Bridge, bc_queue_len: None };
const MAC: Mac = Mac([0x02, 0, 0, 0, 0, 0x0b]);

#[test]
fn macvlan_appears_in_the_pod_on_its_parent_here() {
    in_netns(|rtnl, _| {
        let pod = Netns::create().unwrap();
        let (parent, _) = pair(rtnl, "a", "b");
        for (i, mode) in
            [MacvlanMode::Private, MacvlanMode::Vepa, MacvlanMode::Bridge].into_iter().enumerate()
        {
            let name = format!("eth{i}");
            let kind = LinkKind::Macvlan { mode, bc_queue_len: Some(2000) };
            let wanted = NewLink {
                parent: Some(parent.index),
                mac: Some(Mac([2, 0, 0, 0, 0, i as u8])),
                mtu: 1400,
                netns: Some(pod.as_fd()),
                ..NewLink::new(&name, kind)
            };
            link::add(rtnl, &wanted).unwrap();
            assert!(link::by_name(rtnl, &name).unwrap_err().is_not_found(), "only in the pod");
            let made = link::by_name(&mut Rtnl::open_in(&pod).unwrap(), &name).unwrap();
            assert_eq!((made.kind.as_deref(), made.data), (Some("macvlan"), Some(kind)));
            assert_eq!((made.mac, made.mtu, made.up), (wanted.mac, 1400, false));
            assert_eq!(made.link, Some(parent.index));
            assert!(made.link_netnsid.is_some());
        }
    });
}

#[test]
fn macvlan_takes_what_the_kernel_gives_where_nothing_is_asked() {
    in_netns(|rtnl, _| {
        let (parent, _) = pair(rtnl, "a", "b");
        let wanted = NewLink { parent: Some(parent.index), up: true, ..NewLink::new("m", MACVLAN) };
        link::add(rtnl, &wanted).unwrap();
        let made = link::by_name(rtnl, "m").unwrap();
        assert_eq!((made.mtu, made.up, made.link_netnsid), (parent.mtu, true, None));
        assert!(made.mac.is_some_and(|mac| mac.0[0] & 3 == 2), "{:?}", made.mac);
    });
}

#[test]
fn passthru_macvlan_has_its_parents_mac_and_is_alone() {
    in_netns(|rtnl, _| {
        let (parent, _) = pair(rtnl, "a", "b");
        let kind = LinkKind::Macvlan { mode: MacvlanMode::Passthru, bc_queue_len: None };
        link::add(rtnl, &NewLink { parent: Some(parent.index), ..NewLink::new("m", kind) }).unwrap();
        assert_eq!(link::by_name(rtnl, "m").unwrap().mac, parent.mac);
        let second = NewLink { parent: Some(parent.index), mac: Some(MAC), ..NewLink::new("n", MACVLAN) };
        assert!(link::add(rtnl, &second).is_err());
    });
}

#[test]
fn taken_name_and_missing_parent_are_recognised() {
    in_netns(|rtnl, _| {
        let (parent, _) = pair(rtnl, "a", "b");
        let e = link::add(rtnl, &NewLink { parent: Some(parent.index), ..NewLink::new("b", MACVLAN) });
        let e = e.unwrap_err();
        assert!(e.is_exists(), "{e}");
        let e = link::add(rtnl, &NewLink { parent: Some(77), ..NewLink::new("m", MACVLAN) }).unwrap_err();
        assert!(e.is_not_found() && e.lacks().is_none(), "{e}");
    });
}

#[test]
fn vxlan_forwards_as_it_is_told_and_neighbours_stay() {
    in_netns(|rtnl, _| {
        let kind = LinkKind::Vxlan { vni: 7, local: [192, 0, 2, 11].into(), port: 8472 };
        link::add(rtnl, &NewLink { mac: Some(MAC), mtu: 1450, up: true, ..NewLink::new("vx", kind) })
            .unwrap();
        let made = link::by_name(rtnl, "vx").unwrap();
        assert_eq!((made.data, made.mac, made.mtu), (Some(kind), Some(MAC), 1450));
        assert_eq!(made.learns, Some(false));
        // The same network may be over the other IP version too.
        let kind = LinkKind::Vxlan { vni: 7, local: "fd00::11".parse().unwrap(), port: 8472 };
        link::add(rtnl, &NewLink { mac: Some(MAC), ..NewLink::new("vx6", kind) }).unwrap();
        assert_eq!(link::by_name(rtnl, "vx6").unwrap().data, Some(kind));
        let (peer, base, node) = (Mac([2, 0, 0, 0, 0, 0x0c]), [10, 244, 2, 0].into(), [192, 0, 2, 12].into());
        neigh::add_permanent(rtnl, made.index, base, peer).unwrap();
        neigh::add_fdb(rtnl, made.index, peer, node).unwrap();
        let neighbours = neigh::list(rtnl).unwrap();
        let found = neighbours.iter().find(|n| n.addr == base).unwrap();
        assert_eq!((found.index, found.mac, found.state_word()), (made.index, Some(peer), "permanent"));
        let entries = neigh::fdb(rtnl).unwrap();
        let found = entries.iter().find(|entry| entry.mac == peer).unwrap();
        assert_eq!((found.index, found.dst, found.state), (made.index, Some(node), libc::NUD_PERMANENT));
        assert!(neigh::add_permanent(rtnl, made.index, base, peer).unwrap_err().is_exists());
        assert!(neigh::add_fdb(rtnl, made.index, peer, node).unwrap_err().is_exists());

        // Another network is another entry, and is deleted by its number.
        neigh::delete_fdb(rtnl, made.index, peer, node, None).unwrap();
        neigh::add_fdb_in(rtnl, made.index, peer, node, 8).unwrap();
        let vni = |rtnl: &mut kernel::Rtnl| {
            let entries = neigh::fdb(rtnl).unwrap();
            entries.iter().find(|entry| entry.mac == peer).map(|entry| entry.vni)
        };
        assert_eq!(vni(rtnl), Some(Some(8)));
        // Some kernels say that they have done it, and have not.
        let _ = neigh::delete_fdb(rtnl, made.index, peer, node, None);
        assert_eq!(vni(rtnl), Some(Some(8)));
        neigh::delete_fdb(rtnl, made.index, peer, node, Some(8)).unwrap();
        assert_eq!(vni(rtnl), None);

        let other = Mac([2, 0, 0, 0, 0, 0x0d]);
        neigh::replace_permanent(rtnl, made.index, base, other).unwrap();
        let mac = |rtnl: &mut kernel::Rtnl| {
            neigh::list(rtnl).unwrap().iter().find(|entry| entry.addr == base).and_then(|entry| entry.mac)
        };
        assert_eq!(mac(rtnl), Some(other));
        neigh::delete(rtnl, made.index, base).unwrap();
        assert_eq!(mac(rtnl), None);
        assert!(neigh::delete(rtnl, made.index, base).unwrap_err().is_not_found());
    });
}

/// Each kind either is there, and the question makes nothing, or is named as lacking by question and creation alike.
#[test]
fn kinds_that_the_kernel_lacks_are_named() {
    in_netns(|rtnl, _| {
        let (parent, _) = pair(rtnl, "a", "b");
        link::require(rtnl, &MACVLAN).unwrap();
        let kinds = [
            (LinkKind::Ipvlan { mode: IpvlanMode::L3s }, "ipvlan (CONFIG_IPVLAN)"),
            (LinkKind::Vlan { id: 5, protocol: VlanProtocol::Dot1q }, "vlan (CONFIG_VLAN_8021Q)"),
            (LinkKind::Dummy, "dummy (CONFIG_DUMMY)"),
            (LinkKind::Vrf { table: 7 }, "vrf (CONFIG_NET_VRF)"),
            (LinkKind::Wireguard, "wireguard (CONFIG_WIREGUARD)"),
        ];
        for (kind, option) in kinds {
            let before = link::list(rtnl).unwrap().len();
            let there = link::require(rtnl, &kind);
            assert_eq!(link::list(rtnl).unwrap().len(), before, "{kind:?}");
            let lower = matches!(kind, LinkKind::Ipvlan { .. } | LinkKind::Vlan { .. });
            let wanted = NewLink { parent: lower.then_some(parent.index), ..NewLink::new("x0", kind) };
            let made = link::add(rtnl, &wanted);
            let lacks = |e: &Error| e.lacks() == Some(option);
            match (there, made) {
                (Ok(()), Ok(())) => {
                    let made = link::by_name(rtnl, "x0").unwrap();
                    assert_eq!((made.data, made.kind.as_deref()), (Some(kind), Some(kind.name())));
                    link::delete(rtnl, made.index).unwrap();
                }
                (Err(asked), Err(refused)) => assert!(lacks(&asked) && lacks(&refused), "{asked}, {refused}"),
                other => panic!("{kind:?}: {other:?}"),
            }
        }
    });
}
