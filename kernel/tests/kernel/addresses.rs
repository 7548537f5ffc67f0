//! Addresses: what is added is what is listed.

use kernel::addr::{self, AddrOptions, Address};
use kernel::route::{self, Route};
use kernel::{Family, IpNetwork, Rtnl, link};

use crate::{in_netns, net, pair, up};

const PLAIN: AddrOptions = AddrOptions { nodad: false, optimistic: false, noprefixroute: false, scope: None };
const NODAD: AddrOptions = AddrOptions { nodad: true, ..PLAIN };

fn find(rtnl: &mut Rtnl, index: u32, wanted: IpNetwork) -> Option<Address> {
    addr::list(rtnl, Some(index)).unwrap().into_iter().find(|a| a.net == wanted)
}

#[test]
fn ipv4_address_keeps_its_host_bits_and_gets_a_broadcast_address() {
    in_netns(|rtnl, _| {
        let (a, _) = pair(rtnl, "a", "b");
        for (text, broadcast) in [
            ("10.1.2.3/16", Some("10.1.255.255")),
            ("10.2.0.5/30", Some("10.2.0.7")),
            ("10.3.0.4/31", None),
            ("10.4.0.4/32", None),
        ] {
            addr::add(rtnl, a.index, net(text), &PLAIN).unwrap();
            let got = find(rtnl, a.index, net(text)).expect(text);
            assert_eq!(got.broadcast, broadcast.map(|b| b.parse().unwrap()), "{text}");
            assert_eq!((got.index, got.scope, got.label.as_deref()), (a.index, 0, Some("a")));
        }
    });
}

#[test]
fn scope_is_set() {
    in_netns(|rtnl, _| {
        let (a, _) = pair(rtnl, "a", "b");
        addr::add(rtnl, a.index, net("10.1.0.1/24"), &AddrOptions { scope: Some(253), ..PLAIN }).unwrap();
        assert_eq!(find(rtnl, a.index, net("10.1.0.1/24")).unwrap().scope, 253);
    });
}

#[test]
fn ipv6_address_without_dad_is_usable_at_once() {
    in_netns(|rtnl, _| {
        let (a, b) = pair(rtnl, "a", "b");
        up(rtnl, a.index);
        up(rtnl, b.index);
        addr::add(rtnl, a.index, net("fd00::1/64"), &NODAD).unwrap();
        addr::add(rtnl, a.index, net("fd00::2/64"), &PLAIN).unwrap();
        let quick = find(rtnl, a.index, net("fd00::1/64")).unwrap();
        assert!(!quick.is_tentative() && !quick.is_dad_failed(), "{quick:?}");
        assert!(quick.flags & addr::F_NODAD != 0 && quick.broadcast.is_none() && quick.label.is_none());
        assert!(find(rtnl, a.index, net("fd00::2/64")).unwrap().is_tentative());
        std::net::UdpSocket::bind("[fd00::1]:0").expect("bind to it");
    });
}

#[test]
fn present_and_absent_addresses_are_recognised() {
    in_netns(|rtnl, _| {
        let (a, _) = pair(rtnl, "a", "b");
        for text in ["10.1.0.1/24", "fd00::1/64"] {
            addr::add(rtnl, a.index, net(text), &NODAD).unwrap();
            let e = addr::add(rtnl, a.index, net(text), &NODAD).unwrap_err();
            assert!(e.is_exists(), "{e}");
            addr::delete(rtnl, a.index, net(text)).unwrap();
            let e = addr::delete(rtnl, a.index, net(text)).unwrap_err();
            assert!(e.is_not_found(), "{e}");
            assert!(find(rtnl, a.index, net(text)).is_none());
            assert!(addr::add(rtnl, 77, net(text), &NODAD).unwrap_err().is_not_found());
            assert!(addr::delete(rtnl, 77, net(text)).unwrap_err().is_not_found());
        }
        assert!(addr::list(rtnl, Some(77)).unwrap_err().is_not_found());
    });
}

#[test]
fn list_is_of_one_link_or_of_all() {
    in_netns(|rtnl, _| {
        let (a, b) = pair(rtnl, "a", "b");
        addr::add(rtnl, a.index, net("10.1.0.1/24"), &PLAIN).unwrap();
        addr::add(rtnl, b.index, net("10.2.0.1/24"), &PLAIN).unwrap();
        addr::add(rtnl, b.index, net("fd00::1/64"), &NODAD).unwrap();
        let nets = |list: Vec<Address>| list.into_iter().map(|a| a.net.to_string()).collect::<Vec<_>>();
        assert_eq!(nets(addr::list(rtnl, Some(a.index)).unwrap()), ["10.1.0.1/24"]);
        assert_eq!(nets(addr::list(rtnl, Some(b.index)).unwrap()), ["10.2.0.1/24", "fd00::1/64"]);
        assert_eq!(addr::list(rtnl, None).unwrap().len(), 3);
    });
}

#[test]
fn list_of_a_thousand_addresses_is_complete() {
    in_netns(|rtnl, _| {
        let (a, _) = pair(rtnl, "a", "b");
        let mut batch = kernel::Batch::new();
        for i in 0..1000 {
            batch.addr_add(a.index, net(&format!("10.{}.{}.1/24", i / 250, i % 250)), &PLAIN);
        }
        assert!(rtnl.send(batch).unwrap().iter().all(Result::is_ok));
        assert_eq!(addr::list(rtnl, Some(a.index)).unwrap().len(), 1000);
    });
}

#[test]
fn optimistic_address_is_in_use_while_duplicates_are_looked_for() {
    in_netns(|rtnl, _| {
        let (a, b) = pair(rtnl, "a", "b");
        // Ten probes, a second each: it runs longer than the test.
        kernel::sysctl::write("net/ipv6/conf/a/dad_transmits", "10").unwrap();
        up(rtnl, b.index);
        up(rtnl, a.index);
        let optimistic = AddrOptions { optimistic: true, ..PLAIN };
        // Without the sysctl the kernel runs plain duplicate address detection.
        addr::add(rtnl, a.index, net("fd00::1/64"), &optimistic).unwrap();
        kernel::sysctl::write("net/ipv6/conf/a/optimistic_dad", "1").unwrap();
        addr::add(rtnl, a.index, net("fd00::2/64"), &optimistic).unwrap();
        let flags = |net: &str, all: &[addr::Address]| {
            all.iter().find(|a| a.net == net.parse().unwrap()).expect("an address").flags & addr::F_OPTIMISTIC
        };
        let all = addr::list(rtnl, Some(a.index)).unwrap();
        assert_eq!((flags("fd00::1/64", &all), flags("fd00::2/64", &all)), (0, addr::F_OPTIMISTIC));
        std::net::UdpSocket::bind("[fd00::2]:0").expect("usable at once");
        assert!(std::net::UdpSocket::bind("[fd00::1]:0").is_err(), "tentative");
    });
}

#[test]
fn an_address_may_come_without_the_route_to_its_prefix() {
    in_netns(|rtnl, _| {
        let (a, b) = pair(rtnl, "a", "b");
        up(rtnl, a.index);
        up(rtnl, b.index);
        for text in ["10.1.0.1/24", "fd01::1/64"] {
            let options = AddrOptions { noprefixroute: true, ..NODAD };
            addr::add(rtnl, a.index, net(text), &options).unwrap();
            let family = if net(text).is_ipv4() { Family::V4 } else { Family::V6 };
            let routes = route::list(rtnl, family).unwrap();
            let prefix =
                |r: &Route| r.oif == Some(a.index) && r.dst.is_some_and(|d| d.contains(net(text).ip()));
            let of_prefix = routes.iter().filter(|r| r.table == Some(route::TABLE_MAIN) && prefix(r));
            assert_eq!(of_prefix.count(), 0, "{routes:?}");
            let made = addr::list(rtnl, Some(a.index)).unwrap();
            let made = made.iter().find(|address| address.net == net(text)).unwrap().clone();
            assert!(made.flags & addr::F_NOPREFIXROUTE != 0);
            addr::delete(rtnl, a.index, net(text)).unwrap();
            addr::restore(rtnl, &made).unwrap();
            let again = addr::list(rtnl, Some(a.index)).unwrap();
            assert!(again.iter().any(|address| address.net == made.net && address.flags == made.flags));
        }
    });
}

#[test]
fn a_mark_tells_who_added_an_address() {
    in_netns(|rtnl, _| {
        let lo = link::by_name(rtnl, "lo").unwrap().index;
        addr::add_marked(rtnl, lo, net("10.1.0.1/32"), &NODAD, 80).unwrap();
        addr::add_marked(rtnl, lo, net("fd00::1/128"), &NODAD, 80).unwrap();
        addr::add(rtnl, lo, net("10.1.0.2/32"), &NODAD).unwrap();
        let marks: Vec<_> =
            addr::list(rtnl, Some(lo)).unwrap().into_iter().map(|it| (it.net, it.protocol)).collect();
        for (address, mark) in [("10.1.0.1/32", 80), ("fd00::1/128", 80), ("10.1.0.2/32", 0)] {
            assert!(marks.contains(&(net(address), mark)), "{address}: {marks:?}");
        }
    });
}
