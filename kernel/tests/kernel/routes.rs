//! Routes with all their attributes, rules and neighbours.

use kernel::addr::AddrOptions;
use kernel::route::{self, Route};
use kernel::{Batch, Family, Netns, Rtnl, addr, link, neigh, rule};

use crate::{in_netns, net, pair, send_to_far, up, wire_to};

fn ip(text: &str) -> std::net::IpAddr {
    text.parse().unwrap()
}

/// A link that is up with 10.1.0.1/24 and fd01::1/64: its index.
fn ready(rtnl: &mut Rtnl) -> u32 {
    let (a, b) = pair(rtnl, "a", "b");
    up(rtnl, a.index);
    up(rtnl, b.index);
    let options = AddrOptions { nodad: true, ..AddrOptions::default() };
    addr::add(rtnl, a.index, net("10.1.0.1/24"), &options).unwrap();
    addr::add(rtnl, a.index, net("fd01::1/64"), &options).unwrap();
    a.index
}

fn to(rtnl: &mut Rtnl, family: Family, dst: Option<&str>, table: u32) -> Vec<Route> {
    let mut all = route::list(rtnl, family).unwrap();
    all.retain(|r| r.dst == dst.map(net) && r.table == Some(table) && r.kind == route::KIND_UNICAST);
    all
}

#[test]
fn exclusive_addition_leaves_what_is_there() {
    in_netns(|rtnl, _| {
        let oif = ready(rtnl);
        let other = link::by_name(rtnl, "b").unwrap().index;
        for dst in ["10.5.0.5/32", "fd05::5/128"] {
            let first = Route { dst: Some(net(dst)), oif: Some(oif), ..Route::default() };
            route::add_exclusive(rtnl, &first).unwrap();
            let mut batch = Batch::new();
            batch.route_add_exclusive(&Route { oif: Some(other), ..first.clone() });
            let answers = rtnl.send(batch).unwrap();
            assert!(answers.iter().all(|answer| answer.as_ref().is_err_and(kernel::Error::is_exists)));
            let there = to(rtnl, first.family(), Some(dst), route::TABLE_MAIN);
            assert_eq!(there.iter().map(|route| route.oif).collect::<Vec<_>>(), [Some(oif)]);
        }
    });
}

#[test]
fn all_attributes_are_read_back() {
    in_netns(|rtnl, _| {
        let oif = ready(rtnl);
        let v4 = Route {
            dst: Some(net("10.5.0.0/16")),
            gateway: Some(ip("10.1.0.254")),
            oif: Some(oif),
            src: Some(ip("10.1.0.1")),
            priority: Some(42),
            table: Some(1000),
            mtu: Some(1300),
            advmss: Some(1200),
            ..Route::default()
        };
        let v6 = Route {
            dst: Some(net("fd05::/48")),
            gateway: Some(ip("fd01::fe")),
            src: Some(ip("fd01::1")),
            table: Some(77),
            ..v4.clone()
        };
        for r in [v4, v6] {
            route::add(rtnl, &r).unwrap();
            let expected = Route { family: Some(r.family()), scope: Some(0), ..r.clone() };
            assert_eq!(to(rtnl, r.family(), Some(&r.destination().to_string()), r.table_id()), [expected]);
        }
    });
}

#[test]
fn scope_and_kind_and_protocol_are_set() {
    in_netns(|rtnl, _| {
        let oif = ready(rtnl);
        let link = Route {
            dst: Some(net("10.6.0.0/16")),
            oif: Some(oif),
            scope: Some(route::SCOPE_LINK),
            protocol: 99,
            ..Route::default()
        };
        route::add(rtnl, &link).unwrap();
        let got = to(rtnl, Family::V4, Some("10.6.0.0/16"), route::TABLE_MAIN);
        assert_eq!(got.iter().map(|r| (r.scope, r.protocol)).collect::<Vec<_>>(), [(Some(253), 99)]);
        // Only a route of scope link leads to a gateway.
        let via = Route { dst: Some(net("10.7.0.0/16")), gateway: Some(ip("10.6.0.1")), ..Route::default() };
        route::add(rtnl, &via).unwrap();

        let hole = Route { dst: Some(net("10.8.0.0/16")), kind: route::KIND_BLACKHOLE, ..Route::default() };
        route::add(rtnl, &hole).unwrap();
        let all = route::list(rtnl, Family::V4).unwrap();
        assert!(all.iter().any(|r| r.dst == hole.dst && r.kind == route::KIND_BLACKHOLE));
        assert!(all.iter().any(|r| r.table == Some(route::TABLE_LOCAL) && r.dst == Some(net("10.1.0.1/32"))));
    });
}

#[test]
fn default_routes_have_no_destination_and_follow_their_gateway() {
    in_netns(|rtnl, _| {
        let oif = ready(rtnl);
        for (gateway, family) in [("10.1.0.254", Family::V4), ("fd01::fe", Family::V6)] {
            let r = Route { gateway: Some(ip(gateway)), oif: Some(oif), ..Route::default() };
            assert_eq!(r.family(), family);
            // A prefix of length 0 is the same route.
            route::add(rtnl, &Route { dst: Some(family.any()), ..r.clone() }).unwrap();
            let got = to(rtnl, family, None, route::TABLE_MAIN);
            assert_eq!(got.iter().map(|g| g.gateway).collect::<Vec<_>>(), [r.gateway]);
            assert!(route::add(rtnl, &r).unwrap_err().is_exists());
            route::delete(rtnl, &r).unwrap();
            assert!(route::delete(rtnl, &r).unwrap_err().is_not_found());
            assert!(to(rtnl, family, None, route::TABLE_MAIN).is_empty());
        }
    });
}

#[test]
fn gateway_out_of_reach_is_refused_with_the_kernels_sentence_unless_onlink() {
    in_netns(|rtnl, _| {
        let oif = ready(rtnl);
        let far = Route {
            dst: Some(net("10.9.0.0/16")),
            gateway: Some(ip("192.0.2.1")),
            oif: Some(oif),
            ..Route::default()
        };
        let e = route::add(rtnl, &far).unwrap_err();
        assert_eq!(e.kernel_message(), Some("Nexthop has invalid gateway"), "{e}");
        assert_eq!(
            e.to_string(),
            format!(
                "add route 10.9.0.0/16 via 192.0.2.1 dev {oif}: network is unreachable \
                 (os error 101; kernel: Nexthop has invalid gateway)"
            )
        );
        route::add(rtnl, &Route { onlink: true, ..far }).unwrap();
        assert!(to(rtnl, Family::V4, Some("10.9.0.0/16"), route::TABLE_MAIN)[0].onlink);
    });
}

#[test]
fn ipv4_route_over_an_ipv6_gateway_is_read_back() {
    in_netns(|rtnl, _| {
        let oif = ready(rtnl);
        let r = Route {
            dst: Some(net("10.5.0.0/16")),
            gateway: Some(ip("fd01::fe")),
            oif: Some(oif),
            ..Route::default()
        };
        route::add(rtnl, &r).unwrap();
        assert_eq!(to(rtnl, Family::V4, Some("10.5.0.0/16"), route::TABLE_MAIN)[0].gateway, r.gateway);
        route::delete(rtnl, &r).unwrap();
    });
}

#[test]
fn second_next_hop_is_in_front_for_ipv4_and_beside_for_ipv6() {
    in_netns(|rtnl, _| {
        ready(rtnl);
        for (dst, first, second) in
            [("10.5.0.0/16", "10.1.0.5", "10.1.0.6"), ("fd05::/48", "fd01::5", "fd01::6")]
        {
            for gateway in [first, second] {
                let r = Route { dst: Some(net(dst)), gateway: Some(ip(gateway)), ..Route::default() };
                route::add(rtnl, &r).unwrap();
            }
            let family = Family::of(ip(first));
            let gateways: Vec<_> = to(rtnl, family, Some(dst), route::TABLE_MAIN)
                .into_iter()
                .map(|r| r.gateway.unwrap().to_string())
                .collect();
            match family {
                Family::V4 => assert_eq!(gateways, [second, first]),
                Family::V6 => assert_eq!(gateways, [first, second]),
            }
        }
    });
}

#[test]
fn replace_takes_the_place_of_the_old_route() {
    in_netns(|rtnl, _| {
        ready(rtnl);
        for gateway in ["10.1.0.5", "10.1.0.6"] {
            let r = Route { dst: Some(net("10.5.0.0/16")), gateway: Some(ip(gateway)), ..Route::default() };
            route::replace(rtnl, &r).unwrap();
            let got = to(rtnl, Family::V4, Some("10.5.0.0/16"), route::TABLE_MAIN);
            assert_eq!(got.iter().map(|g| g.gateway).collect::<Vec<_>>(), [r.gateway]);
        }
    });
}

#[test]
fn delete_finds_a_route_as_it_was_listed() {
    in_netns(|rtnl, _| {
        ready(rtnl);
        for (family, dst) in [(Family::V4, "10.1.0.0/24"), (Family::V6, "fd01::/64")] {
            let found = to(rtnl, family, Some(dst), route::TABLE_MAIN);
            assert_eq!(found[0].protocol, route::PROTOCOL_KERNEL);
            route::delete(rtnl, &found[0]).unwrap();
            assert!(to(rtnl, family, Some(dst), route::TABLE_MAIN).is_empty());
        }
    });
}

#[test]
fn rules_of_a_new_netns_are_listed() {
    in_netns(|rtnl, _| {
        let seen = |family, rtnl: &mut Rtnl| {
            let all = rule::list(rtnl, family).unwrap();
            assert!(all.iter().all(|r| r.family == family && r.action == 1 && r.src.is_none()));
            all.iter().map(|r| (r.priority, r.table)).collect::<Vec<_>>()
        };
        assert_eq!(seen(Family::V4, rtnl), [(0, 255), (32766, 254), (32767, 253)]);
        assert_eq!(seen(Family::V6, rtnl), [(0, 255), (32766, 254)]);
    });
}

#[test]
fn neighbour_that_answered_is_listed_with_its_mac() {
    in_netns(|rtnl, _| {
        let pod = Netns::create().unwrap();
        let (near, far, _) = wire_to(rtnl, &pod);
        send_to_far(1);
        let began = std::time::Instant::now();
        loop {
            let all = neigh::list(rtnl).unwrap();
            if let Some(n) = all.iter().find(|n| n.addr == ip("10.9.0.2") && n.mac.is_some()) {
                assert_eq!((n.index, n.mac), (near.index, far.mac));
                assert_eq!(n.state_word(), "reachable");
                return;
            }
            assert!(began.elapsed().as_secs() < 5, "{all:?}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    });
}

#[test]
fn a_rule_is_added_where_the_kernel_likes_and_deleted_by_what_it_says() {
    in_netns(|rtnl, _| {
        for (family, src) in [(Family::V4, "10.1.2.3/32"), (Family::V6, "fd00::3/128")] {
            let rule = rule::Rule {
                family,
                priority: 0,
                src: Some(net(src)),
                dst: None,
                iif: None,
                oif: None,
                mark: None,
                action: rule::ACTION_TABLE,
                table: 1000,
            };
            rule::add(rtnl, &rule).unwrap();
            let there = rule::list(rtnl, family).unwrap().into_iter().find(|r| r.src == rule.src).unwrap();
            assert_eq!(there, rule::Rule { priority: 32765, ..rule.clone() });
            assert!(rule::add(rtnl, &there).unwrap_err().is_exists());
            let other = rule::Rule { table: 1001, ..rule.clone() };
            assert!(rule::delete(rtnl, &other).unwrap_err().is_not_found());
            rule::delete(rtnl, &there).unwrap();
            assert!(rule::delete(rtnl, &there).unwrap_err().is_not_found());
            assert!(rule::list(rtnl, family).unwrap().iter().all(|r| r.src.is_none()));
        }
    });
}

#[test]
fn lookup_finds_the_link_towards_an_address() {
    in_netns(|rtnl, _| {
        let oif = ready(rtnl);
        let found = route::lookup(rtnl, ip("10.1.0.7")).unwrap();
        assert_eq!((found.oif, found.gateway, found.src), (Some(oif), None, Some(ip("10.1.0.1"))));
        let found = route::lookup(rtnl, ip("fd01::7")).unwrap();
        assert_eq!((found.oif, found.gateway), (Some(oif), None));
        assert_eq!(
            route::lookup(rtnl, ip("10.8.0.7")).unwrap_err().errno(),
            Some(nix::errno::Errno::ENETUNREACH as i32)
        );
    });
}
