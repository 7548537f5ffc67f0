//! Traces of nf_tables: what a marked packet met, and nothing of a packet that was not marked.

use std::net::UdpSocket;
use std::time::Instant;

use kernel::nft::{
    self, Batch, ChainKind, Family, Hook, Op, Point, Rule, Table, TraceKind, Tracer, Verdict, priority,
};
use kernel::route::{self, Packet};
use kernel::{Netns, Rtnl};

use crate::rules::with_nfnl;
use crate::up;

const UDP: u8 = 17;

#[test]
fn marked_packet_tells_the_rule_that_dropped_it() {
    with_nfnl(|nfnl, _| {
        up(&mut Rtnl::open().unwrap(), 1);
        let (table, marks) = (Table::new(Family::Ip, "t"), Table::new(Family::Inet, "marks"));
        let before = Hook::new(ChainKind::Filter, Point::Output, priority::RAW - 50);
        let mut batch = Batch::new();
        batch
            .add_table(table, None)
            .add_chain(table, "out", Some(&Hook::new(ChainKind::Filter, Point::Output, priority::FILTER)))
            .append(table, "out", &Rule::new().l4proto(UDP).dport(Op::Eq, 9).drop())
            .add_table(marks, None)
            .add_chain(marks, "out", Some(&before))
            .append(marks, "out", &Rule::new().l4proto(UDP).dport(Op::Eq, 9).set_trace());
        nfnl.commit(batch).unwrap();
        let mut tracer = Tracer::open_in(&Netns::current().unwrap()).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        // Refused by the rule.
        let _ = socket.send_to(b"x", "127.0.0.1:9");
        socket.send_to(b"x", "127.0.0.1:10").unwrap();
        let events = tracer.events(Instant::now()).unwrap();
        let handle = nft::rules(nfnl, table, "out").unwrap()[0].handle;
        let dropped: Vec<_> = events.iter().filter(|e| e.table == "t").collect();
        assert_eq!(dropped.len(), 1, "{events:?}");
        let event = dropped[0];
        assert_eq!(
            (event.kind, event.handle, &event.verdict),
            (TraceKind::Rule, Some(handle), &Some(Verdict::Drop))
        );
        assert_eq!((event.chain.as_str(), event.family), ("out", Family::Ip));
        assert_eq!(event.network_header[12..20], [127, 0, 0, 1, 127, 0, 0, 1]);
        assert_eq!(event.transport_header[2..4], 9_u16.to_be_bytes());
        assert!(events.iter().all(|e| e.id == event.id), "{events:?}");
        assert!(events.iter().any(|e| e.kind == TraceKind::Policy && e.verdict == Some(Verdict::Accept)));
        assert_eq!(tracer.events(Instant::now()).unwrap(), []);
    });
}

#[test]
fn dropped_packets_are_told_with_the_kernels_reason() {
    with_nfnl(|nfnl, _| {
        let mut drops = match kernel::drops::Drops::open() {
            Ok(drops) => drops,
            // A machine may bar even root from listening (kernel.perf_event_paranoid, seccomp).
            Err(err) => return assert!(err.to_string().starts_with("listen to dropped packets"), "{err}"),
        };
        up(&mut Rtnl::open().unwrap(), 1);
        let table = Table::new(Family::Ip, "t");
        let mut batch = Batch::new();
        batch
            .add_table(table, None)
            .add_chain(table, "in", Some(&Hook::new(ChainKind::Filter, Point::Input, priority::FILTER)))
            .append(table, "in", &Rule::new().l4proto(UDP).dport(Op::Eq, 9).drop());
        nfnl.commit(batch).unwrap();
        let stamp = || std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        drops.read().unwrap();
        let before = stamp();
        socket.send_to(b"x", "127.0.0.1:9").unwrap();
        // The clocks of samples and of this test may differ by what the conversion takes.
        let slack = 1_000_000;
        let is_it = |d: &&kernel::drops::Dropped| d.stamp_ns + slack > before && d.reason == "NETFILTER_DROP";
        let mut told = Vec::new();
        // On a busy machine the kernel takes the packet from the loopback device a moment later.
        while !told.iter().any(|d| is_it(&d)) && stamp() < before + 10_000_000_000 {
            told.extend(drops.read().unwrap());
        }
        let own = told.iter().find(is_it);
        assert_eq!(own.map(|own| own.ether_type), Some(0x0800), "{told:?}");
    });
}

#[test]
fn the_kernel_decides_on_a_packet_as_it_would_route_it() {
    crate::in_netns(|rtnl, _| {
        let (near, far) = crate::pair(rtnl, "near", "far");
        for (link, address) in [(&near, "10.9.0.1/24"), (&far, "10.8.0.1/24")] {
            up(rtnl, link.index);
            kernel::addr::add(rtnl, link.index, crate::net(address), &kernel::addr::AddrOptions::default())
                .unwrap();
        }
        let packet = |to: &str, iif| Packet {
            destination: to.parse().unwrap(),
            source: Some(if iif { "10.9.0.7" } else { "10.9.0.1" }.parse().unwrap()),
            iif: iif.then_some(near.index),
        };
        let own = route::decide(rtnl, &packet("10.8.0.9", false)).unwrap();
        assert_eq!((own.destination(), own.oif), (crate::net("10.8.0.0/24"), Some(far.index)));
        assert_eq!(route::decide(rtnl, &packet("10.7.0.9", false)).unwrap_err().errno(), Some(101));
        // From a wire: not without forwarding.
        kernel::sysctl::write("net/ipv4/ip_forward", "0").unwrap();
        assert_eq!(route::decide(rtnl, &packet("10.8.0.9", true)).unwrap_err().errno(), Some(113));
        kernel::sysctl::write("net/ipv4/ip_forward", "1").unwrap();
        let forwarded = route::decide(rtnl, &packet("10.8.0.9", true)).unwrap();
        assert_eq!(forwarded.destination(), crate::net("10.8.0.0/24"));
        // Nor from a source that is expected elsewhere.
        kernel::sysctl::write("net/ipv4/conf/near/rp_filter", "1").unwrap();
        let strange = Packet { source: Some("10.8.0.7".parse().unwrap()), ..packet("10.8.0.9", true) };
        let refused = route::decide(rtnl, &strange).unwrap_err().errno();
        assert!(matches!(refused, Some(18 | 22)), "{refused:?}");
    });
}

#[test]
fn the_kernel_decides_on_a_packet_of_ipv6_too() {
    crate::in_netns(|rtnl, _| {
        let (near, far) = crate::pair(rtnl, "near", "far");
        let options = kernel::addr::AddrOptions { nodad: true, ..kernel::addr::AddrOptions::default() };
        for (link, address) in [(&near, "fd00:9::1/64"), (&far, "fd00:8::1/64")] {
            up(rtnl, link.index);
            kernel::addr::add(rtnl, link.index, crate::net(address), &options).unwrap();
        }
        for iif in [None, Some(near.index)] {
            let source = iif.map(|_| "fd00:9::7".parse().unwrap());
            let packet = |to: &str| Packet { destination: to.parse().unwrap(), source, iif };
            let route = route::decide(rtnl, &packet("fd00:8::9")).unwrap();
            assert_eq!((route.destination(), route.oif), (crate::net("fd00:8::/64"), Some(far.index)));
            assert_eq!(route::decide(rtnl, &packet("fd00:7::9")).unwrap_err().errno(), Some(101));
        }
    });
}
