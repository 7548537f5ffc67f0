//! Packet sockets: both ends of a veth, with direction, time and counts.
//!
//! ```text
//!   this netns          pod
//!   near 10.9.0.1 ────── far 10.9.0.2
//! ```

use std::time::{Duration, Instant, SystemTime};

use kernel::Netns;
use kernel::packet::{Frame, Instruction, PacketSocket};

use crate::{in_netns, send_to_far, wire_to};

/// Reads until a frame fulfils `wanted`.
fn await_frame(socket: &PacketSocket, wanted: impl Fn(&Frame, &[u8]) -> bool) -> (Frame, Vec<u8>) {
    let began = Instant::now();
    let mut buffer = [0; 2048];
    while began.elapsed() < Duration::from_secs(5) {
        match socket.recv(&mut buffer).unwrap() {
            Some(frame) if wanted(&frame, &buffer[..frame.len]) => {
                return (frame, buffer[..frame.len].into());
            }
            Some(_) => {}
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    panic!("no such frame");
}

fn is_udp_probe(bytes: &[u8]) -> bool {
    bytes.get(12..14) == Some(&[0x08, 0x00]) && bytes.ends_with(b"probe")
}

fn is_arp_request(bytes: &[u8]) -> bool {
    bytes.get(12..14) == Some(&[0x08, 0x06]) && bytes.get(20..22) == Some(&[0, 1])
}

#[test]
fn frame_is_seen_with_its_direction_on_both_ends_of_a_veth() {
    in_netns(|rtnl, here| {
        let pod = Netns::create().unwrap();
        let (near, far, _) = wire_to(rtnl, &pod);
        let (near_socket, far_socket) =
            (PacketSocket::open_in(here).unwrap(), PacketSocket::open_in(&pod).unwrap());
        send_to_far(1);

        let (arp_out, bytes) = await_frame(&near_socket, |_, b| is_arp_request(b));
        assert!(arp_out.outgoing && arp_out.packet_type == 4 && arp_out.ifindex == near.index, "{arp_out:?}");
        assert_eq!(bytes.get(6..12), near.mac.as_ref().map(|m| &m.0[..]));
        let (arp_in, same) = await_frame(&far_socket, |_, b| is_arp_request(b));
        assert!(!arp_in.outgoing && arp_in.packet_type == 1 && arp_in.ifindex == far.index, "{arp_in:?}");
        assert_eq!(bytes, same);
        assert!(!arp_in.csum_not_ready && arp_in.vlan_tci.is_none());

        let (udp_out, _) = await_frame(&near_socket, |_, b| is_udp_probe(b));
        let (udp_in, _) = await_frame(&far_socket, |_, b| is_udp_probe(b));
        assert!(udp_out.outgoing && udp_out.csum_not_ready, "{udp_out:?}");
        assert!(!udp_in.outgoing && udp_in.packet_type == 0 && udp_in.csum_not_ready, "{udp_in:?}");
        assert_eq!((udp_out.len, udp_out.original_len), (14 + 20 + 8 + 5, 14 + 20 + 8 + 5));

        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
        for frame in [arp_out, arp_in, udp_out, udp_in] {
            assert!(now.abs_diff(frame.stamp_ns) < 10_000_000_000, "{frame:?}");
        }
        assert!(arp_out.stamp_ns <= arp_in.stamp_ns && arp_in.stamp_ns <= udp_in.stamp_ns);
    });
}

#[test]
fn frame_longer_than_the_buffer_tells_its_length() {
    in_netns(|rtnl, here| {
        let pod = Netns::create().unwrap();
        wire_to(rtnl, &pod);
        let socket = PacketSocket::open_in(here).unwrap();
        send_to_far(1);
        let began = Instant::now();
        let mut buffer = [0; 20];
        loop {
            assert!(began.elapsed() < Duration::from_secs(5));
            if let Some(frame) = socket.recv(&mut buffer).unwrap().filter(|f| f.original_len == 47) {
                assert_eq!(frame.len, 20);
                return;
            }
        }
    });
}

#[test]
fn quiet_socket_has_nothing_to_read() {
    let ns = Netns::create().unwrap();
    let socket = PacketSocket::open_in(&ns).unwrap();
    assert_eq!(socket.recv(&mut [0; 64]).unwrap(), None);
    assert_eq!(socket.stats().unwrap(), kernel::packet::Stats::default());
}

#[test]
fn drops_are_counted_and_the_counts_add_up() {
    in_netns(|rtnl, here| {
        let pod = Netns::create().unwrap();
        wire_to(rtnl, &pod);
        send_to_far(1);
        std::thread::sleep(Duration::from_millis(50));
        let socket = PacketSocket::open_with(here, 4096).unwrap();
        send_to_far(500);
        let first = socket.stats().unwrap();
        assert!(first.packets >= 500 && first.drops > 0 && first.drops < first.packets, "{first:?}");
        send_to_far(500);
        let second = socket.stats().unwrap();
        assert!(second.packets >= first.packets + 500 && second.drops > first.drops, "{second:?}");
        let mut held = 0;
        while socket.recv(&mut [0; 2048]).unwrap().is_some() {
            held += 1;
        }
        let last = socket.stats().unwrap();
        assert_eq!(held, second.packets - second.drops);
        assert!(last.drops >= second.drops && last.packets >= second.packets);
    });
}

#[test]
fn a_thread_that_reads_runs_before_others_and_no_other_thread_does() {
    // proc_pid_stat(5): the nice value is the 19th field, the 17th after the name.
    let nice = || -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        stat.rsplit_once(") ").unwrap().1.split(' ').nth(16).unwrap().parse().unwrap()
    };
    let before = nice();
    let (may, own) =
        std::thread::spawn(move || (kernel::packet::read_before_others(), nice())).join().unwrap();
    assert_eq!((may, own, nice()), (true, -15, before));
}

#[test]
fn socket_of_one_link_sends_there_and_sees_what_its_filter_keeps() {
    in_netns(|rtnl, here| {
        let pod = Netns::create().unwrap();
        let (near, far, _) = wire_to(rtnl, &pod);
        // ldh [12]; jeq #0x88b5, keep, drop (an experimental EtherType, IEEE 802)
        let filter = [
            Instruction { code: 0x28, yes: 0, no: 0, value: 12 },
            Instruction { code: 0x15, yes: 0, no: 1, value: 0x88b5 },
            Instruction { code: 0x06, yes: 0, no: 0, value: 65535 },
            Instruction { code: 0x06, yes: 0, no: 0, value: 0 },
        ];
        let near_socket = PacketSocket::open_on(here, near.index, &filter).unwrap();
        let far_socket = PacketSocket::open_on(&pod, far.index, &filter).unwrap();
        for kind in [0xb4, 0xb5] {
            let mut frame = [0xff; 60];
            frame[12..14].copy_from_slice(&[0x88, kind]);
            near_socket.send(&frame).unwrap();
        }
        let (frame, bytes) = await_frame(&far_socket, |_, _| true);
        assert_eq!((frame.outgoing, frame.ifindex, &bytes[12..14]), (false, far.index, &[0x88, 0xb5][..]));
        assert!(far_socket.recv(&mut [0; 64]).unwrap().is_none(), "the first frame was to be dropped");
        assert!(PacketSocket::open_on(here, 999, &filter).is_err_and(|e| e.is_not_found()));
    });
}
