//! Batches: one ack for each request, in order, and no request stopped by another's refusal.

use kernel::addr::AddrOptions;
use kernel::link::{Bridge, Change, LinkKind, NewLink, Port, Veth};
use kernel::route::Route;
use kernel::{Batch, Mac, addr, link, neigh};

use crate::{in_netns, net, pair, up};

const PLAIN: AddrOptions = AddrOptions { nodad: true, optimistic: false, noprefixroute: false, scope: None };

#[test]
fn refused_request_stops_none_of_those_after_it() {
    in_netns(|rtnl, _| {
        let (a, _) = pair(rtnl, "a", "b");
        let mut batch = Batch::new();
        assert!(batch.is_empty());
        batch
            .link_set(a.index, &Change { up: Some(true), arp_notify: Some(true), ..Change::default() })
            .addr_add(a.index, net("10.1.0.1/24"), &PLAIN)
            .addr_add(a.index, net("10.1.0.1/24"), &PLAIN)
            .link_set(77, &Change { up: Some(true), ..Change::default() })
            .addr_add(a.index, net("fd00::1/64"), &PLAIN)
            .route_add(&Route { gateway: Some("10.1.0.254".parse().unwrap()), ..Route::default() })
            .route_delete(&Route { dst: Some(net("10.77.0.0/16")), ..Route::default() });
        assert_eq!(batch.len(), 7);
        let results = rtnl.send(batch).unwrap();
        let texts: Vec<_> =
            results.iter().map(|r| r.as_ref().map_or_else(ToString::to_string, |()| "ok".into())).collect();
        assert_eq!(texts.len(), 7);
        assert!([0, 1, 4, 5].iter().all(|&i| results[i].is_ok()), "{texts:?}");
        assert!(results[2].as_ref().is_err_and(|e| e.is_exists()), "{texts:?}");
        assert!(results[3].as_ref().is_err_and(|e| e.is_not_found()), "{texts:?}");
        assert!(results[6].as_ref().is_err_and(|e| e.is_not_found()), "{texts:?}");
        assert!(texts[3].starts_with("change link 77: no such device"), "{texts:?}");
        assert_eq!(addr::list(rtnl, Some(a.index)).unwrap().len(), 2);
    });
}

#[test]
fn every_kind_of_request_works_in_a_batch() {
    in_netns(|rtnl, _| {
        link::add_bridge(rtnl, &Bridge { name: "br0", up: true, ..Bridge::default() }).unwrap();
        let bridge = link::by_name(rtnl, "br0").unwrap().index;
        let mut batch = Batch::new();
        batch.link_add_veth(&Veth { name: "a", peer: "b", master: Some(bridge), ..Veth::default() });
        assert!(rtnl.send(batch).unwrap()[0].is_ok());
        let port = link::by_name(rtnl, "a").unwrap().index;

        let isolated = Port { isolated: true, ..Port::default() };
        let route = Route { dst: Some(net("10.9.0.0/16")), oif: Some(bridge), ..Route::default() };
        let mut batch = Batch::new();
        batch
            .link_set_port(port, &isolated)
            .addr_add(bridge, net("10.1.0.1/24"), &PLAIN)
            .route_add(&route)
            .route_delete(&route)
            .addr_delete(bridge, net("10.1.0.1/24"));
        assert!(rtnl.send(batch).unwrap().iter().all(Result::is_ok));
        assert_eq!(link::by_index(rtnl, port).unwrap().port, Some(isolated));

        let mut batch = Batch::new();
        batch.link_delete(port).link_delete(port);
        let results = rtnl.send(batch).unwrap();
        assert!(results[0].is_ok() && results[1].as_ref().is_err_and(|e| e.is_not_found()));
    });
}

#[test]
fn empty_batch_has_no_results() {
    in_netns(|rtnl, _| assert!(rtnl.send(Batch::new()).unwrap().is_empty()));
}

#[test]
fn a_thousand_refusals_come_back_one_by_one() {
    in_netns(|rtnl, _| {
        let mut batch = Batch::new();
        for i in 0..1000 {
            batch.link_delete(100_000 + i);
        }
        let results = rtnl.send(batch).unwrap();
        assert_eq!(results.len(), 1000);
        for (i, r) in results.iter().enumerate() {
            let e = r.as_ref().unwrap_err();
            assert!(e.is_not_found() && e.subject() == format!("delete link {}", 100_000 + i), "{e}");
        }
        assert_eq!(link::list(rtnl).unwrap().len(), 1, "the socket is still in step");
    });
}

#[test]
fn entries_of_a_tunnel_are_replaced_and_only_own_routes_deleted() {
    in_netns(|rtnl, _| {
        let kind = LinkKind::Vxlan { vni: 5, local: [127, 0, 0, 1].into(), port: 4789 };
        link::add(rtnl, &NewLink { up: true, ..NewLink::new("vx", kind) }).unwrap();
        let index = link::by_name(rtnl, "vx").unwrap().index;
        // Without a local address the kernel takes every gateway for a broadcast address.
        up(rtnl, 1);
        let macs = [1, 2].map(|last| Mac([2, 0, 0, 0, 0, last]));
        let (inner, outer) = ("10.9.0.0".parse().unwrap(), [1, 2].map(|host| [192, 0, 2, host].into()));
        let to = |protocol| Route {
            dst: Some(net("10.9.0.0/24")),
            oif: Some(index),
            gateway: Some(inner),
            onlink: true,
            protocol,
            ..Route::default()
        };
        let mut batch = Batch::new();
        batch
            .neigh_replace(index, inner, macs[1])
            .neigh_replace(index, inner, macs[0])
            .fdb_replace(index, macs[0], outer[0])
            .fdb_replace(index, macs[0], outer[1])
            .route_add(&to(80))
            .route_delete_own(&to(81))
            .route_replace(&to(80))
            .route_delete_own(&to(80));
        let results = rtnl.send(batch).unwrap();
        for (number, result) in results.iter().enumerate() {
            match number {
                5 => assert!(result.as_ref().is_err_and(|e| e.is_not_found()), "{result:?}"),
                _ => assert!(result.is_ok(), "{number}: {result:?}"),
            }
        }
        let on = |it: u32| it == index;
        let neighs: Vec<_> = neigh::list(rtnl).unwrap().into_iter().filter(|it| on(it.index)).collect();
        assert!(neighs.iter().any(|it| it.addr == inner && it.mac == Some(macs[0])), "{neighs:?}");
        let fdb: Vec<_> = neigh::fdb(rtnl).unwrap().into_iter().filter(|it| on(it.index)).collect();
        assert_eq!(fdb.iter().map(|it| (it.mac, it.dst)).collect::<Vec<_>>(), [(macs[0], Some(outer[1]))]);
        let mut batch = Batch::new();
        batch.neigh_delete(index, inner).fdb_delete(index, macs[0], outer[1], None);
        assert!(rtnl.send(batch).unwrap().iter().all(Result::is_ok));
        assert!(neigh::fdb(rtnl).unwrap().iter().all(|it| !on(it.index)));
    });
}
