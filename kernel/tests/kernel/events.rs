//! What the kernel announces: each kind of change is heard, as what it is.

use std::time::{Duration, Instant};

use kernel::events::{Event, Heard, Listener};
use kernel::link::{Change, LinkKind, NewLink};
use kernel::nft::{self, Table};
use kernel::route::Route;
use kernel::{Family, Mac, Nfnl, Rtnl, addr, link, neigh, route, rule, sysctl};

use crate::{in_netns, net, pair, up};

/// Everything that is heard until `done` says that it is enough.
fn heard(listener: &mut Listener, done: impl Fn(&Heard) -> bool) -> Heard {
    let (mut all, deadline) = (Heard::default(), Instant::now() + Duration::from_secs(20));
    while !done(&all) {
        let new = listener.heard().unwrap();
        all.lost |= new.lost;
        all.events.extend(new.events);
        assert!(Instant::now() < deadline, "only {all:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
    all
}

#[test]
fn every_kind_of_change_is_heard_and_reading_does_not_wait() {
    in_netns(|rtnl, _| {
        let (a, _) = pair(rtnl, "a", "b");
        let mut listener = Listener::routing().unwrap();
        assert_eq!(listener.heard().unwrap(), Heard::default());
        up(rtnl, a.index);
        addr::add(rtnl, a.index, net("10.1.0.1/24"), &addr::AddrOptions::default()).unwrap();
        let to =
            Route { dst: Some(net("10.9.0.0/16")), oif: Some(a.index), protocol: 80, ..Route::default() };
        route::add(rtnl, &to).unwrap();
        route::delete(rtnl, &to).unwrap();
        neigh::add_permanent(rtnl, a.index, "10.1.0.9".parse().unwrap(), Mac([2, 0, 0, 0, 0, 1])).unwrap();
        let looks = rule::Rule {
            family: Family::V6,
            priority: 7,
            src: None,
            dst: Some(net("fd00::/64")),
            iif: None,
            oif: None,
            mark: None,
            action: rule::ACTION_TABLE,
            table: 99,
        };
        rule::add(rtnl, &looks).unwrap();
        sysctl::write("net/ipv4/ip_forward", "1").unwrap();
        let config = Event::Config { family: Family::V4, index: None };
        let all = heard(&mut listener, |all| all.events.contains(&config));
        let has = |wanted: &dyn Fn(&Event) -> bool| all.events.iter().filter(|it| wanted(it)).count();
        assert!(
            has(&|it| *it == Event::Link { index: a.index, name: "a".into(), group: Some(0) }) > 0,
            "{all:?}"
        );
        let address = |it: &Event| matches!(it, Event::Address(it) if it.net == net("10.1.0.1/24"));
        assert_eq!(has(&address), 1, "{all:?}");
        let ours = |it: &Event| matches!(it, Event::Route(it) if it.dst == to.dst && it.protocol == 80);
        assert_eq!(has(&ours), 2, "added and deleted: {all:?}");
        assert_eq!(has(&|it| *it == Event::Neigh { index: a.index }), 1, "{all:?}");
        assert_eq!(has(&|it| *it == Event::Rule(Family::V6)), 1, "{all:?}");
        assert!(!all.lost);
    });
}

#[test]
fn changes_of_tables_are_told_with_the_socket_that_made_them() {
    in_netns(|_, _| {
        let mut listener = Listener::tables().unwrap();
        let mut nfnl = Nfnl::open().unwrap();
        let table = Table::new(nft::Family::Inet, "mine");
        let mut batch = nft::Batch::new();
        batch.add_table(table, None).add_chain(table, "one", None);
        nfnl.commit(batch).unwrap();
        let wanted = Event::Table { family: nft::Family::Inet, name: "mine".into(), port: nfnl.port() };
        let all = heard(&mut listener, |all| all.events.len() >= 2);
        assert_eq!(all.events, [wanted.clone(), wanted], "one for each thing and none for the generation");
    });
}

#[test]
fn more_than_fits_is_said_to_be_lost_and_hearing_goes_on() {
    in_netns(|rtnl, _| {
        let (a, _) = pair(rtnl, "a", "b");
        let mut listener = Listener::routing().unwrap();
        // A link's announcement takes some kilobytes of the socket's room, which is 8 MiB as the kernel counts it.
        for mtu in (1000..9000).chain(1000..1001) {
            link::set(rtnl, a.index, &Change { mtu: Some(mtu), ..Change::default() }).unwrap();
        }
        assert!(heard(&mut listener, |all| all.lost).lost);
        up(rtnl, a.index);
        let link = Event::Link { index: a.index, name: "a".into(), group: Some(0) };
        heard(&mut listener, |all| all.events.contains(&link) && !all.lost);
    });
}

#[test]
fn forwarding_entries_are_heard_by_their_link() {
    in_netns(|rtnl: &mut Rtnl, _| {
        let kind = LinkKind::Vxlan { vni: 5, local: [127, 0, 0, 1].into(), port: 4789 };
        link::add(rtnl, &NewLink { up: true, ..NewLink::new("vx", kind) }).unwrap();
        let index = link::by_name(rtnl, "vx").unwrap().index;
        let mut listener = Listener::routing().unwrap();
        neigh::add_fdb(rtnl, index, Mac([2, 0, 0, 0, 0, 1]), [192, 0, 2, 1].into()).unwrap();
        heard(&mut listener, |all| all.events.contains(&Event::Neigh { index }));
    });
}
