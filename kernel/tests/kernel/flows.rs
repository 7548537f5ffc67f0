//! Connections: found and forgotten by where they were opened to, the others left.

use std::net::UdpSocket;

use kernel::conntrack::{self, Filter};
use kernel::nft::{Batch, ChainKind, Family, Hook, Op, Point, Rule, Table, ct_state, priority};
use kernel::{Nfnl, Rtnl};

use crate::rules::with_nfnl;
use crate::up;

const UDP: u8 = 17;

fn of_port(port: Option<u16>) -> Filter {
    Filter { family: kernel::Family::V4, protocol: UDP, port, destination: None, server: None }
}

/// Has the kernel follow connections of both IP versions.
fn follow_both(nfnl: &mut Nfnl) {
    let table = Table::new(Family::Inet, "both");
    let mut batch = Batch::new();
    batch
        .add_table(table, None)
        .add_chain(table, "in", Some(&Hook::new(ChainKind::Filter, Point::Input, priority::FILTER)))
        .append(table, "in", &Rule::new().ct_state(ct_state::INVALID).drop());
    nfnl.commit(batch).unwrap();
}

/// Has the kernel follow connections, and rewrite those to port 7000 to 127.0.0.9 port 7777.
fn follow(nfnl: &mut Nfnl) {
    let table = Table::new(Family::Ip, "t");
    let mut batch = Batch::new();
    batch
        .add_table(table, None)
        .add_chain(table, "in", Some(&Hook::new(ChainKind::Filter, Point::Input, priority::FILTER)))
        .append(table, "in", &Rule::new().ct_state(ct_state::INVALID).drop())
        .add_chain(table, "out", Some(&Hook::new(ChainKind::Nat, Point::Output, priority::DSTNAT)))
        .append(
            table,
            "out",
            &Rule::new().l4proto(UDP).dport(Op::Eq, 7000).dnat("127.0.0.9".parse().unwrap(), Some(7777)),
        );
    nfnl.commit(batch).unwrap();
    up(&mut Rtnl::open().unwrap(), 1);
}

#[test]
fn flows_are_forgotten_by_port_address_and_server() {
    with_nfnl(|nfnl, _| {
        follow(nfnl);
        let server = UdpSocket::bind("127.0.0.9:7777").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        for to in ["127.0.0.1:7000", "127.0.0.2:7000", "127.0.0.2:7001", "127.0.0.3:7002"] {
            client.send_to(b"x", to).unwrap();
        }
        let mut buffer = [0; 8];
        assert_eq!(server.recv(&mut buffer).unwrap(), 1, "the rewriting works");
        let count = |nfnl: &mut Nfnl, filter: &Filter| conntrack::list(nfnl, filter).unwrap().len();
        assert_eq!(count(nfnl, &of_port(None)), 4);
        assert_eq!(count(nfnl, &Filter { protocol: 6, ..of_port(None) }), 0);
        assert_eq!(count(nfnl, &of_port(Some(7000))), 2);
        let one = Filter { destination: Some("127.0.0.2".parse().unwrap()), ..of_port(Some(7000)) };
        let flows = conntrack::list(nfnl, &one).unwrap();
        assert_eq!(flows.len(), 1);
        assert_eq!(flows[0].reply.source.to_string(), "127.0.0.9");
        assert_eq!((flows[0].reply.source_port, flows[0].original.destination_port), (7777, 7000));

        assert_eq!(conntrack::delete(nfnl, &one).unwrap(), 1);
        assert_eq!(count(nfnl, &of_port(None)), 3);
        assert_eq!(conntrack::delete(nfnl, &one).unwrap(), 0);
        let served = Filter { server: Some("127.0.0.9".parse().unwrap()), ..of_port(None) };
        assert_eq!(conntrack::delete(nfnl, &served).unwrap(), 1);
        assert_eq!(conntrack::delete(nfnl, &of_port(Some(7001))).unwrap(), 1);
        assert_eq!(count(nfnl, &of_port(None)), 1);
        assert_eq!(count(nfnl, &of_port(Some(7002))), 1, "what does not fit is left");
    });
}

#[test]
fn ipv6_flows_are_told_from_ipv4_ones() {
    with_nfnl(|nfnl, _| {
        follow_both(nfnl);
        up(&mut Rtnl::open().unwrap(), 1);
        let server = UdpSocket::bind("[::]:7000").unwrap();
        UdpSocket::bind("[::1]:0").unwrap().send_to(b"x", "[::1]:7000").unwrap();
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"x", "127.0.0.1:7000").unwrap();
        let mut buffer = [0; 8];
        assert!(server.recv(&mut buffer).is_ok() && server.recv(&mut buffer).is_ok());
        let v6 = Filter {
            family: kernel::Family::V6,
            destination: Some("::1".parse().unwrap()),
            ..of_port(Some(7000))
        };
        assert_eq!(conntrack::delete(nfnl, &v6).unwrap(), 1);
        assert_eq!(conntrack::list(nfnl, &v6).unwrap().len(), 0);
        assert_eq!(conntrack::delete(nfnl, &of_port(Some(7000))).unwrap(), 1);
    });
}

#[test]
fn bits_of_a_mark_are_set_and_cleared_and_the_others_left() {
    with_nfnl(|nfnl, _| {
        follow(nfnl);
        let server = UdpSocket::bind("127.0.0.9:7777").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        for to in ["127.0.0.1:7000", "127.0.0.2:7001"] {
            client.send_to(b"x", to).unwrap();
        }
        assert_eq!(server.recv(&mut [0; 8]).unwrap(), 1);
        let flow = |nfnl: &mut Nfnl| {
            let mut all = conntrack::all(nfnl).unwrap();
            all.retain(|flow| flow.is_of("127.0.0.9".parse().unwrap()));
            assert_eq!(all.len(), 1, "found by the one who really answers: {all:?}");
            all.remove(0)
        };
        for (mark, mask, seen) in [(0xf0, 0xff, 0xf0), (0x0f, 0x0f, 0xff), (0, 0x10, 0xef), (0xff00, 0xff, 0)]
        {
            let one = flow(nfnl);
            assert!(conntrack::set_mark(nfnl, &one, mark, mask).unwrap());
            assert_eq!(flow(nfnl).mark, seen, "bits {mask:#x} of {mark:#x}");
        }
        let other = conntrack::list(nfnl, &of_port(Some(7001))).unwrap();
        assert_eq!((other.len(), other[0].mark), (1, 0), "another connection is left");

        let one = flow(nfnl);
        assert_eq!(conntrack::delete_of(nfnl, &["127.0.0.9".parse().unwrap()]).unwrap(), 1);
        assert!(!conntrack::set_mark(nfnl, &one, 1, 1).unwrap(), "a connection that has ended");
        assert_eq!(conntrack::all(nfnl).unwrap().len(), 1, "none was made for its mark, the other is left");
        assert_eq!(conntrack::delete_of(nfnl, &["127.0.0.1".parse().unwrap()]).unwrap(), 1);
        assert_eq!(conntrack::all(nfnl).unwrap(), []);
    });
}

#[test]
fn flows_of_an_address_are_those_that_it_opened_or_serves_each_once() {
    with_nfnl(|nfnl, _| {
        follow(nfnl);
        follow_both(nfnl);
        let server = UdpSocket::bind("127.0.0.9:7777").unwrap();
        let talk = |from: &str, to: &str| {
            UdpSocket::bind((from, 0)).unwrap().send_to(b"x", to).unwrap();
        };
        for from in 1..=6 {
            talk(&format!("127.0.1.{from}"), "127.0.0.5:7001");
        }
        // To an address that another one answers for; to itself.
        talk("127.0.1.1", "127.0.0.8:7000");
        talk("127.0.1.1", "127.0.1.1:7001");
        talk("::1", "[::1]:7001");
        assert_eq!(server.recv(&mut [0; 8]).unwrap(), 1, "the rewriting works");
        // As they are told when they are few, and when they are many.
        for many in [false, true] {
            if many {
                let client = UdpSocket::bind("127.0.2.1:0").unwrap();
                for n in 0..8_100_u16 {
                    let [high, low] = n.to_be_bytes();
                    client.send_to(b"x", (std::net::Ipv4Addr::new(127, 1, high, low), 9000)).unwrap();
                }
            }
            assert_eq!(conntrack::count(nfnl).unwrap() > 8_000, many);
            let mut of = |all: &[&str]| {
                let all: Vec<std::net::IpAddr> = all.iter().map(|it| it.parse().unwrap()).collect();
                let mut found = conntrack::of(nfnl, &all).unwrap();
                let count = found.len();
                found.sort_by_key(ToString::to_string);
                found.dedup();
                assert_eq!(found.len(), count, "{all:?}: one is told twice");
                assert!(found.iter().all(|flow| all.iter().any(|it| flow.is_of(*it))), "{all:?}: {found:?}");
                count
            };
            assert_eq!(of(&[]), 0);
            assert_eq!(of(&["127.0.1.1"]), 3);
            assert_eq!(of(&["127.0.0.9"]), 1, "who really answers");
            assert_eq!(of(&["127.0.0.8"]), 0, "an address that nobody has");
            assert_eq!(of(&["127.0.0.5"]), 6);
            assert_eq!(of(&["127.0.1.2", "127.0.1.1", "127.0.1.2", "127.0.0.9"]), 4);
            assert_eq!(
                of(&["127.0.1.1", "127.0.1.2", "127.0.1.3", "127.0.1.4", "127.0.1.5", "127.0.1.6"]),
                8
            );
            assert_eq!(of(&["::1"]), 1);
            assert_eq!(of(&["::1", "127.0.1.1"]), 4);
            assert_eq!(of(&["::2", "127.0.0.9"]), 1, "one of the other family, which has none");
        }
    });
}
