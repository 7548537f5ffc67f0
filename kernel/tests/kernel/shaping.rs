//! Qdiscs, classes, filters and ifb links: what was sent comes back.

use kernel::link::{self, Change};
use kernel::tc::{self, Address, Class, Filter, INGRESS, Kind, Qdisc, ROOT, Tbf, Word, handle};

use crate::{in_netns, net, pair};

#[test]
fn a_token_bucket_is_read_as_it_was_made() {
    in_netns(|rtnl, _| {
        let index = pair(rtnl, "a", "b").0.index;
        for rate in [1, 125_000, 1 << 33] {
            let tbf = Tbf { rate, limit: 7777, buffer: tc::ticks(1_000_000) };
            let qdisc = Qdisc { index, handle: handle(1, 0), parent: ROOT, kind: Kind::Tbf(tbf) };
            tc::add_qdisc(rtnl, &qdisc).unwrap();
            assert_eq!(tc::qdiscs(rtnl, index).unwrap(), std::slice::from_ref(&qdisc));
            assert!(tc::add_qdisc(rtnl, &qdisc).unwrap_err().is_exists());
            tc::delete_qdisc(rtnl, index, ROOT).unwrap();
        }
        assert!(tc::delete_qdisc(rtnl, index, ROOT).is_err());
        // A bucket in which no byte fits is none.
        let empty = Kind::Tbf(Tbf { rate: 100, limit: 100, buffer: 0 });
        let refused = tc::add_qdisc(rtnl, &Qdisc { index, handle: handle(1, 0), parent: ROOT, kind: empty });
        assert_eq!(refused.unwrap_err().errno(), Some(libc::EINVAL));
    });
}

#[test]
fn an_unknown_link_or_kind_is_told() {
    in_netns(|rtnl, _| {
        let at = |index, kind| Qdisc { index, handle: handle(1, 0), parent: ROOT, kind };
        let gone = tc::add_qdisc(rtnl, &at(99, Kind::Pfifo { limit: 1 })).unwrap_err();
        assert!(gone.is_not_found(), "{gone}");
        let index = pair(rtnl, "a", "b").0.index;
        let unknown = tc::add_qdisc(rtnl, &at(index, Kind::Other("nonesuch".into()))).unwrap_err();
        assert_eq!(unknown.lacks(), Some("queueing disciplines (CONFIG_NET_SCHED)"), "{unknown}");
        assert!(tc::qdiscs(rtnl, 99).unwrap().is_empty());
        assert!(tc::classes(rtnl, index).unwrap().is_empty());
    });
}

#[test]
fn classes_their_queues_and_filters_by_prefix_are_read_as_they_were_made() {
    in_netns(|rtnl, _| {
        let index = pair(rtnl, "a", "b").0.index;
        let root = Qdisc { index, handle: handle(1, 0), parent: ROOT, kind: Kind::Htb { default: 0x30 } };
        tc::add_qdisc(rtnl, &root).unwrap();
        let slow =
            Class { index, handle: handle(1, 0x30), parent: ROOT, rate: 125_000, buffer: tc::ticks(10_000) };
        let fast = Class { handle: handle(1, 1), rate: 100_000_000_000, buffer: tc::ticks(1000), ..slow };
        for class in [slow, fast] {
            tc::add_class(rtnl, &Class { parent: handle(1, 0), ..class }).unwrap();
        }
        let mut classes = tc::classes(rtnl, index).unwrap();
        classes.sort_by_key(|class| class.handle);
        assert_eq!(classes, [fast, slow]);
        let leaf =
            Qdisc { index, handle: handle(0x30, 0), parent: slow.handle, kind: Kind::Bfifo { limit: 9000 } };
        tc::add_qdisc(rtnl, &leaf).unwrap();
        assert_eq!(tc::qdiscs(rtnl, index).unwrap(), [root, leaf]);

        let by = |priority, protocol, prefix| Filter {
            index,
            parent: handle(1, 0),
            priority,
            protocol,
            words: Word::of_net(net(prefix), Address::Source),
            class: fast.handle,
            redirect: None,
        };
        let filters = [by(15, tc::PROTOCOL_IPV6, "2001:db8::/36"), by(16, tc::PROTOCOL_IPV4, "10.1.0.0/16")];
        for filter in &filters {
            tc::add_filter(rtnl, filter).unwrap();
        }
        assert_eq!(tc::filters(rtnl, index, handle(1, 0)).unwrap(), filters);
    });
}

#[test]
fn what_comes_in_is_redirected_to_an_ifb() {
    in_netns(|rtnl, _| {
        let index = pair(rtnl, "a", "b").0.index;
        link::add_ifb(rtnl, "ifbx", 1400).unwrap();
        let ifb = link::by_name(rtnl, "ifbx").unwrap();
        assert_eq!((ifb.kind.as_deref(), ifb.mtu, ifb.txqlen, ifb.up), (Some("ifb"), 1400, 0, true));
        assert!(link::add_ifb(rtnl, "ifbx", 0).unwrap_err().is_exists());
        let ingress = Qdisc { index, handle: handle(0xffff, 0), parent: INGRESS, kind: Kind::Ingress };
        tc::add_qdisc(rtnl, &ingress).unwrap();
        assert!(tc::add_qdisc(rtnl, &ingress).unwrap_err().is_exists());
        let all = Filter {
            index,
            parent: handle(0xffff, 0),
            priority: 1,
            protocol: tc::PROTOCOL_ALL,
            words: vec![],
            class: handle(1, 1),
            redirect: Some(ifb.index),
        };
        tc::add_filter(rtnl, &all).unwrap();
        assert_eq!(tc::filters(rtnl, index, handle(0xffff, 0)).unwrap(), [all]);
        tc::delete_qdisc(rtnl, index, INGRESS).unwrap();
        assert!(tc::filters(rtnl, index, handle(0xffff, 0)).unwrap_or_default().is_empty());
        tc::add_qdisc(rtnl, &Qdisc { kind: Kind::Clsact, ..ingress }).unwrap();
        assert_eq!(tc::qdiscs(rtnl, index).unwrap()[0].kind, Kind::Clsact);
    });
}

#[test]
fn all_multicast_is_switched() {
    in_netns(|rtnl, _| {
        let index = pair(rtnl, "a", "b").0.index;
        for on in [true, false] {
            link::set(rtnl, index, &Change { allmulti: Some(on), ..Change::default() }).unwrap();
            assert_eq!(link::by_index(rtnl, index).unwrap().allmulti, on);
        }
    });
}
