//! Bridges and their ports, and waiting for carrier.

use std::time::{Duration, Instant};

use kernel::link::{self, Bridge, Change, Port, PortVlan, Veth};
use kernel::{Mac, Rtnl, neigh};

use crate::{in_netns, pair, up};

const MAC: Mac = Mac([0x02, 0, 0, 0, 0xb0, 1]);
const LONG: Duration = Duration::from_secs(10);

#[test]
fn bridge_has_all_asked_for() {
    in_netns(|rtnl, _| {
        let asked = Bridge { name: "br0", mac: Some(MAC), mtu: 1450, vlan_filtering: false, up: true };
        link::add_bridge(rtnl, &asked).unwrap();
        let br = link::by_name(rtnl, "br0").unwrap();
        assert_eq!((br.kind.as_deref(), br.mac, br.mtu, br.up), (Some("bridge"), Some(MAC), 1450, true));

        link::add_bridge(rtnl, &Bridge { name: "br1", ..Bridge::default() }).unwrap();
        let br = link::by_name(rtnl, "br1").unwrap();
        assert_eq!((br.up, br.mtu, br.port), (false, 1500, None));
    });
}

/// A kernel without CONFIG_BRIDGE_VLAN_FILTERING is to refuse rather than to make another bridge than asked for.
#[test]
fn vlan_filtering_is_read_back_or_refused() {
    in_netns(|rtnl, _| {
        link::add_bridge(rtnl, &Bridge { name: "plain", ..Bridge::default() }).unwrap();
        assert_eq!(link::by_name(rtnl, "plain").unwrap().vlan_filtering, Some(false));
        match link::add_bridge(rtnl, &Bridge { name: "br0", vlan_filtering: true, ..Bridge::default() }) {
            Ok(()) => assert_eq!(link::by_name(rtnl, "br0").unwrap().vlan_filtering, Some(true)),
            Err(e) => {
                assert!(e.lacks().is_some() && e.errno() == Some(libc::EOPNOTSUPP), "{e}");
                assert!(e.to_string().ends_with("(CONFIG_BRIDGE_VLAN_FILTERING)"), "{e}");
                assert!(link::by_name(rtnl, "br0").unwrap_err().is_not_found());
            }
        }
    });
}

/// Membership is set, read back and cleared, or every verb says what the kernel lacks.
#[test]
fn vlans_of_a_port_are_read_back_or_refused() {
    in_netns(|rtnl, _| {
        let (bridge, port) = bridged(rtnl);
        let native = PortVlan { id: 100, pvid: true, untagged: true };
        let tagged = |id| PortVlan { id, pvid: false, untagged: false };
        let wanted = [native, tagged(200), tagged(201), tagged(202), tagged(4094)];
        if let Err(lacking) = link::require_vlan_filtering(rtnl) {
            let refused = [
                lacking,
                link::add_port_vlans(rtnl, port, &wanted).unwrap_err(),
                link::set_vlan_filtering(rtnl, bridge, true).unwrap_err(),
            ];
            for e in refused {
                assert!(e.lacks().is_some(), "{e}");
            }
            link::clear_port_vlans(rtnl, port).expect("there are none to remove");
            assert_eq!(link::port_vlans(rtnl).unwrap(), []);
        } else {
            let of = |rtnl: &mut Rtnl, index| -> Vec<PortVlan> {
                let all = link::port_vlans(rtnl).unwrap();
                all.into_iter().filter(|(at, _)| *at == index).map(|(_, vlan)| vlan).collect()
            };
            link::set_vlan_filtering(rtnl, bridge, true).unwrap();
            assert_eq!(link::by_index(rtnl, bridge).unwrap().vlan_filtering, Some(true));
            assert_eq!(of(rtnl, port), [PortVlan { id: 1, ..native }], "the bridge's default");
            link::clear_port_vlans(rtnl, port).unwrap();
            assert_eq!(of(rtnl, port), []);
            link::clear_port_vlans(rtnl, port).unwrap();
            link::add_port_vlans(rtnl, port, &wanted).unwrap();
            assert_eq!(of(rtnl, port), wanted);
            link::set_vlan_filtering(rtnl, bridge, false).unwrap();
            assert_eq!(link::by_index(rtnl, bridge).unwrap().vlan_filtering, Some(false));
        }
        assert_eq!(link::list(rtnl).unwrap().len(), 4, "nothing was made: lo, br0, near, far");
    });
}

#[test]
fn port_options_are_read_back_without_vlan_filtering() {
    in_netns(|rtnl, _| {
        let (_, port) = bridged(rtnl);
        assert_eq!(link::by_index(rtnl, port).unwrap().port, Some(Port::default()));
        for (hairpin, isolated, learning) in [(true, false, true), (false, true, false), (true, true, true)] {
            let options = Port { hairpin, isolated, learning };
            link::set_port(rtnl, port, &options).unwrap();
            assert_eq!(link::by_index(rtnl, port).unwrap().port, Some(options));
        }
    });
}

#[test]
fn port_options_of_a_link_in_no_bridge_are_refused() {
    in_netns(|rtnl, _| {
        let (a, _) = pair(rtnl, "a", "b");
        assert!(link::set_port(rtnl, a.index, &Port::default()).is_err());
        assert!(link::answer_for_port(rtnl, a.index).is_err());
        assert!(neigh::replace_fdb_of_port(rtnl, a.index, MAC).is_err());
    });
}

#[test]
fn what_is_behind_a_port_is_known_for_good() {
    in_netns(|rtnl, _| {
        let (bridge, port) = bridged(rtnl);
        // Twice: the second is in the place of the first.
        for _ in 0..2 {
            neigh::replace_fdb_of_port(rtnl, port, MAC).unwrap();
        }
        link::answer_for_port(rtnl, port).unwrap();
        let known = neigh::fdb(rtnl).unwrap().into_iter().filter(|entry| entry.mac == MAC);
        let known: Vec<_> = known.map(|entry| (entry.index, entry.master, entry.state)).collect();
        assert!(known.contains(&(port, Some(bridge), libc::NUD_NOARP)), "{known:?}");
    });
}

#[test]
fn port_leaves_its_bridge() {
    in_netns(|rtnl, _| {
        let (bridge, port) = bridged(rtnl);
        assert_eq!(link::by_index(rtnl, port).unwrap().master, Some(bridge));
        link::set(rtnl, port, &Change { master: Some(0), ..Change::default() }).unwrap();
        let now = link::by_index(rtnl, port).unwrap();
        assert_eq!((now.master, now.port), (None, None));
        link::set(rtnl, port, &Change { master: Some(bridge), ..Change::default() }).unwrap();
        assert_eq!(link::by_index(rtnl, port).unwrap().master, Some(bridge));
    });
}

#[test]
fn forwarding_database_shows_the_bridges_own_entries() {
    in_netns(|rtnl, _| {
        let (bridge, port) = bridged(rtnl);
        let mac = link::by_index(rtnl, port).unwrap().mac.unwrap();
        let entries = neigh::fdb(rtnl).unwrap();
        let own = entries.iter().find(|e| e.index == port && e.mac == mac).expect("the port's own address");
        assert_eq!((own.master, own.state), (Some(bridge), libc::NUD_PERMANENT));
    });
}

#[test]
fn wait_ends_when_the_bridge_gets_carrier() {
    in_netns(|rtnl, ns| {
        let (bridge, port) = bridged(rtnl);
        assert!(!link::by_index(rtnl, bridge).unwrap().oper_up);
        let began = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut other = Rtnl::open_in(ns).unwrap();
                std::thread::sleep(Duration::from_millis(80));
                let far = link::by_name(&mut other, "far").unwrap();
                up(&mut other, far.index);
            });
            assert!(link::wait_oper_up(rtnl, bridge, LONG).unwrap());
        });
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(80) && took < LONG, "{took:?}");
        // The port may follow by one event; afterwards both need no wait, and the socket takes other requests.
        assert!(link::wait_oper_up(rtnl, port, LONG).unwrap());
        assert!(link::wait_oper_up(rtnl, bridge, Duration::ZERO).unwrap());
        assert!(link::by_index(rtnl, port).unwrap().oper_up);
    });
}

#[test]
fn wait_without_carrier_ends_at_the_deadline() {
    in_netns(|rtnl, _| {
        let (_, port) = bridged(rtnl);
        let began = Instant::now();
        assert!(!link::wait_oper_up(rtnl, port, Duration::from_millis(60)).unwrap());
        assert!(began.elapsed() >= Duration::from_millis(60));
        assert!(!link::wait_oper_up(rtnl, port, Duration::ZERO).unwrap());
    });
}

#[test]
fn wait_for_an_absent_or_vanishing_link_is_not_found() {
    in_netns(|rtnl, ns| {
        assert!(link::wait_oper_up(rtnl, 77, LONG).unwrap_err().is_not_found());
        let (_, port) = bridged(rtnl);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(50));
                link::delete(&mut Rtnl::open_in(ns).unwrap(), port).unwrap();
            });
            assert!(link::wait_oper_up(rtnl, port, LONG).unwrap_err().is_not_found());
        });
    });
}

/// A bridge that is up with one port, `near`, that is up but whose other end, `far`, is down: their indices.
fn bridged(rtnl: &mut Rtnl) -> (u32, u32) {
    link::add_bridge(rtnl, &Bridge { name: "br0", up: true, ..Bridge::default() }).unwrap();
    let bridge = link::by_name(rtnl, "br0").unwrap().index;
    let veth = Veth { name: "near", peer: "far", master: Some(bridge), up: true, ..Veth::default() };
    link::add_veth(rtnl, &veth).unwrap();
    (bridge, link::by_name(rtnl, "near").unwrap().index)
}
