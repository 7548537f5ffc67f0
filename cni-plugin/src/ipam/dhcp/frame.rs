//! Frames of the three protocols a lease is had by: UDP over IPv4 (DHCPv4), UDP over IPv6 (DHCPv6) and ICMPv6
//! (router solicitation and advertisement), built and taken apart, checksums included.
//!
//! Whole frames, because the pod's link has no address yet. Anything else than an answer to a client is not
//! understood, and neither are fragments and IPv6 extension headers.

use std::net::{Ipv4Addr, Ipv6Addr};

use kernel::Mac;
use kernel::packet::Instruction;

/// UDP port of a DHCPv4 client.
pub(super) const CLIENT4: u16 = 68;
/// UDP port of a DHCPv4 server.
pub(super) const SERVER4: u16 = 67;
/// UDP port of a DHCPv6 client.
pub(super) const CLIENT6: u16 = 546;
/// UDP port of a DHCPv6 server.
pub(super) const SERVER6: u16 = 547;
/// ICMPv6 type of a router advertisement.
pub(super) const ROUTER_ADVERTISEMENT: u8 = 134;

const BROADCAST: Mac = Mac([0xff; 6]);
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const ETHERNET: usize = 14;
const IPV6: usize = 40;

/// What a frame was about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Packet<'f> {
    /// To a DHCPv4 client, from the host with this hardware address.
    Dhcp4 { from: Mac, payload: &'f [u8] },
    /// To a DHCPv6 client.
    Dhcp6 { payload: &'f [u8] },
    /// A router advertisement, from this link-local address.
    Router { from: Ipv6Addr, payload: &'f [u8] },
}

/// Keeps what [`parse`] understands, so that the daemon is not woken by the pod's other traffic.
pub(super) const FILTER: [Instruction; 19] = {
    const fn op(code: u16, yes: u8, no: u8, value: u32) -> Instruction {
        Instruction { code, yes, no, value }
    }
    const BYTE: u16 = 0x30;
    const HALF: u16 = 0x28;
    const IS: u16 = 0x15;
    const HAS: u16 = 0x45;
    const RETURN: u16 = 0x06;
    [
        op(HALF, 0, 0, 12),
        op(IS, 0, 7, ETHERTYPE_IPV4 as u32), // else to 9
        op(BYTE, 0, 0, 23),
        op(IS, 0, 14, UDP as u32),
        op(HALF, 0, 0, 20),
        op(HAS, 12, 0, 0x3fff), // a fragment
        op(0xb1, 0, 0, 14),     // x = length of the IPv4 header
        op(0x48, 0, 0, 16),     // destination port
        op(IS, 8, 9, CLIENT4 as u32),
        op(IS, 0, 8, ETHERTYPE_IPV6 as u32),
        op(BYTE, 0, 0, 20),
        op(IS, 0, 2, UDP as u32), // else to 14
        op(HALF, 0, 0, 56),
        op(IS, 3, 4, CLIENT6 as u32),
        op(IS, 0, 3, ICMPV6 as u32),
        op(BYTE, 0, 0, 54),
        op(IS, 0, 1, ROUTER_ADVERTISEMENT as u32),
        op(RETURN, 0, 0, 65535),
        op(RETURN, 0, 0, 0),
    ]
};

/// Takes a frame apart. `unfinished` says that the sender left the transport checksum to its device, as the other
/// end of a veth does.
pub(super) fn parse(frame: &[u8], unfinished: bool) -> Option<Packet<'_>> {
    let (header, body) = frame.split_at_checked(ETHERNET)?;
    let from = Mac(header[6..12].try_into().ok()?);
    match u16::from_be_bytes([header[12], header[13]]) {
        ETHERTYPE_IPV4 => parse4(body, unfinished).map(|payload| Packet::Dhcp4 { from, payload }),
        ETHERTYPE_IPV6 => parse6(body, unfinished),
        _ => None,
    }
}

fn parse4(packet: &[u8], unfinished: bool) -> Option<&[u8]> {
    let length = usize::from(*packet.first()? & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
    // What follows the total length is the frame's padding.
    let (header, body) = packet.get(..total)?.split_at_checked(length)?;
    if header.len() < 20 || header[0] >> 4 != 4 || header[9] != UDP || sum(&[header]) != 0xffff {
        return None;
    }
    if u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0 {
        return None;
    }
    let pseudo = [&header[12..20], &[0, UDP]].concat();
    udp(body, &pseudo, unfinished, CLIENT4)
}

fn parse6(packet: &[u8], unfinished: bool) -> Option<Packet<'_>> {
    let (header, body) = packet.split_at_checked(IPV6)?;
    let body = body.get(..usize::from(u16::from_be_bytes([header[4], header[5]])))?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let (next, hops) = (header[6], header[7]);
    let from = Ipv6Addr::from(<[u8; 16]>::try_from(&header[8..24]).ok()?);
    let pseudo = [&header[8..40], &[0, 0, 0, next]].concat();
    match next {
        UDP => udp(body, &pseudo, unfinished, CLIENT6).map(|payload| Packet::Dhcp6 { payload }),
        // A hop limit of 255 proves that no router forwarded it (RFC 4861, section 6.1.2).
        ICMPV6 if hops == 255 && from.is_unicast_link_local() && *body.first()? == ROUTER_ADVERTISEMENT => {
            let length = u16::try_from(body.len()).ok()?.to_be_bytes();
            (unfinished || sum(&[&pseudo, &length, body]) == 0xffff)
                .then_some(Packet::Router { from, payload: body })
        }
        _ => None,
    }
}

/// The payload of a UDP datagram to `port`.
fn udp<'f>(datagram: &'f [u8], pseudo: &[u8], unfinished: bool, port: u16) -> Option<&'f [u8]> {
    let length = u16::from_be_bytes([*datagram.get(4)?, *datagram.get(5)?]);
    let datagram = datagram.get(..usize::from(length))?;
    let (header, payload) = datagram.split_at_checked(8)?;
    if u16::from_be_bytes([header[2], header[3]]) != port {
        return None;
    }
    let none = header[6..8] == [0, 0];
    (unfinished || none || sum(&[pseudo, &length.to_be_bytes(), datagram]) == 0xffff).then_some(payload)
}

/// One side of an IPv4 exchange.
pub(super) type Host4 = (Mac, Ipv4Addr);

/// Everybody on the link.
pub(super) const EVERYBODY: Host4 = (BROADCAST, Ipv4Addr::BROADCAST);

/// A frame with a DHCPv4 message from the client `from` to the server `to`.
pub(super) fn dhcp4(from: Host4, to: Host4, payload: &[u8]) -> Vec<u8> {
    let udp_length = (8 + payload.len()) as u16;
    let addresses = [from.1.octets(), to.1.octets()].concat();
    let mut frame = ethernet(from.0, to.0, ETHERTYPE_IPV4);
    // Version and header length, low delay and high throughput (as other clients), total length, no fragment,
    // TTL, UDP.
    frame.extend([0x45, 0x10]);
    frame.extend((20 + udp_length).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, UDP, 0, 0]);
    frame.extend(&addresses);
    let checksum = !sum(&[&frame[ETHERNET..]]);
    frame[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&checksum.to_be_bytes());
    let pseudo = [&addresses[..], &[0, UDP]].concat();
    push_udp(&mut frame, (CLIENT4, SERVER4), &pseudo, payload);
    frame
}

/// A frame with a DHCPv6 message from the client's link-local address to all servers and relays of the link.
pub(super) fn dhcp6(mac: Mac, from: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
    let to = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
    let (mut frame, pseudo) = ipv6(mac, from, to, UDP, 1, 8 + payload.len());
    push_udp(&mut frame, (CLIENT6, SERVER6), &pseudo, payload);
    frame
}

/// A frame that asks the routers of the link to advertise themselves. It comes from no address, since the
/// client may not have one yet.
pub(super) fn router_solicitation(mac: Mac) -> Vec<u8> {
    let to = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
    let mut message = [133u8, 0, 0, 0, 0, 0, 0, 0];
    let (mut frame, pseudo) = ipv6(mac, Ipv6Addr::UNSPECIFIED, to, ICMPV6, 255, message.len());
    let checksum = !sum(&[&pseudo, &(message.len() as u16).to_be_bytes(), &message]);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    frame.extend(message);
    frame
}

fn ethernet(from: Mac, to: Mac, kind: u16) -> Vec<u8> {
    [&to.0[..], &from.0, &kind.to_be_bytes()].concat()
}

/// Ethernet and IPv6 header to a multicast address, and the pseudo header without its length.
fn ipv6(mac: Mac, from: Ipv6Addr, to: Ipv6Addr, next: u8, hops: u8, length: usize) -> (Vec<u8>, Vec<u8>) {
    let [.., a, b, c, d] = to.octets();
    let mut frame = ethernet(mac, Mac([0x33, 0x33, a, b, c, d]), ETHERTYPE_IPV6);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend((length as u16).to_be_bytes());
    frame.extend([next, hops]);
    frame.extend(from.octets());
    frame.extend(to.octets());
    let pseudo = [&from.octets()[..], &to.octets(), &[0, 0, 0, next]].concat();
    (frame, pseudo)
}

fn push_udp(frame: &mut Vec<u8>, (from, to): (u16, u16), pseudo: &[u8], payload: &[u8]) {
    let length = ((8 + payload.len()) as u16).to_be_bytes();
    let ports = [from.to_be_bytes(), to.to_be_bytes()].concat();
    let checksum = match !sum(&[pseudo, &length, &ports, &length, &[0, 0], payload]) {
        // 0 would say that there is none.
        0 => 0xffff,
        checksum => checksum,
    };
    frame.extend(ports);
    frame.extend(length);
    frame.extend(checksum.to_be_bytes());
    frame.extend(payload);
}

/// The ones' complement sum of RFC 1071 over all parts; each but the last has an even length.
fn sum(parts: &[&[u8]]) -> u16 {
    let mut total: u32 = 0;
    for part in parts {
        for pair in part.chunks(2) {
            total += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipam::dhcp::timing::Random;

    const CLIENT: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const SERVER: Mac = Mac([2, 0, 0, 0, 0, 2]);

    /// A frame the other way round, as a server would send it.
    fn answered(mut frame: Vec<u8>, ports: (usize, u16)) -> Vec<u8> {
        // Swapping two 16-bit words does not change a ones' complement sum.
        let (at, port) = ports;
        let from = [frame[at], frame[at + 1]];
        assert_eq!(u16::from_be_bytes(from), port);
        frame.swap(at, at + 2);
        frame.swap(at + 1, at + 3);
        frame
    }

    #[test]
    fn ipv4_frame_is_the_one_that_others_compute() {
        let frame = dhcp4((CLIENT, Ipv4Addr::UNSPECIFIED), EVERYBODY, b"hello");
        let mut expected = vec![0xff; 6];
        expected.extend([2, 0, 0, 0, 0, 1, 8, 0]);
        // The checksums were computed with an independent implementation of RFC 1071.
        expected
            .extend([0x45, 0x10, 0, 33, 0, 0, 0x40, 0, 64, 17, 0x3a, 0xbd, 0, 0, 0, 0, 255, 255, 255, 255]);
        expected.extend([0, 68, 0, 67, 0, 13, 0xbb, 0x7b]);
        expected.extend(b"hello");
        assert_eq!(frame, expected);
    }

    #[test]
    fn answers_are_understood_with_and_without_padding() {
        let sent = dhcp4((SERVER, Ipv4Addr::new(10, 0, 0, 1)), (CLIENT, Ipv4Addr::new(10, 0, 0, 9)), b"odd");
        let mut frame = answered(sent, (34, 68));
        let expected = Some(Packet::Dhcp4 { from: SERVER, payload: b"odd" });
        assert_eq!(parse(&frame, false), expected);
        frame.extend([0xee; 15]);
        assert_eq!(parse(&frame, false), expected);

        let link_local = "fe80::1".parse().unwrap();
        let frame = answered(dhcp6(SERVER, link_local, b"six"), (54, 546));
        assert_eq!(parse(&frame, false), Some(Packet::Dhcp6 { payload: b"six" }));
    }

    #[test]
    fn a_wrong_checksum_is_seen_unless_it_is_unfinished() {
        let sent = dhcp4((SERVER, Ipv4Addr::new(10, 0, 0, 1)), (CLIENT, Ipv4Addr::new(10, 0, 0, 9)), b"even");
        let good = answered(sent, (34, 68));
        for at in [14 + 8, 14 + 12] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(parse(&bad, true), None, "IPv4 header byte {at}");
        }
        let mut bad = good.clone();
        *bad.last_mut().unwrap() ^= 1;
        assert_eq!(parse(&bad, false), None);
        assert!(parse(&bad, true).is_some());
        let mut none = bad;
        none[40..42].copy_from_slice(&[0, 0]);
        assert!(parse(&none, false).is_some(), "no checksum at all");
    }

    #[test]
    fn router_advertisement_must_come_from_the_link() {
        let body = [ROUTER_ADVERTISEMENT, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        let build = |from: &str, hops: u8| {
            let from = from.parse().unwrap();
            let (mut frame, pseudo) =
                ipv6(SERVER, from, "ff02::1".parse().unwrap(), ICMPV6, hops, body.len());
            let checksum = !sum(&[&pseudo, &(body.len() as u16).to_be_bytes(), &body]);
            let at = frame.len();
            frame.extend(body);
            frame[at + 2..at + 4].copy_from_slice(&checksum.to_be_bytes());
            frame
        };
        let good = build("fe80::1", 255);
        assert!(
            matches!(parse(&good, false), Some(Packet::Router { from, .. }) if from == "fe80::1".parse::<Ipv6Addr>().unwrap())
        );
        assert_eq!(parse(&build("fe80::1", 64), false), None);
        assert_eq!(parse(&build("2001:db8::1", 255), false), None);
        let mut bad = good;
        bad[14 + 40 + 5] ^= 1;
        assert_eq!(parse(&bad, false), None);
    }

    #[test]
    fn hostile_frames_are_read_without_a_panic() {
        let mut random = Random::new(0x5eed);
        let v4 = dhcp4((SERVER, Ipv4Addr::new(10, 0, 0, 1)), (CLIENT, Ipv4Addr::new(10, 0, 0, 9)), b"hello");
        let v6 = dhcp6(SERVER, "fe80::1".parse().unwrap(), b"hello");
        let templates = [answered(v4, (34, 68)), answered(v6, (54, 546)), router_solicitation(SERVER)];
        let mut read = 0;
        for round in 0..30_000 {
            let mut frame = templates[round % 3].clone();
            for _ in 0..random.below(4) {
                let at = random.below(frame.len() as u64) as usize;
                frame[at] = random.next() as u8;
            }
            if round % 4 == 0 {
                frame.truncate(random.below(frame.len() as u64 + 1) as usize);
            }
            read += usize::from(parse(&frame, round % 2 == 0).is_some());
        }
        assert!(read > 1000, "only {read} were understood at all");
    }

    #[test]
    fn solicitation_checks_out() {
        let frame = router_solicitation(CLIENT);
        assert_eq!(frame.len(), 14 + 40 + 8);
        assert_eq!(&frame[..6], [0x33, 0x33, 0, 0, 0, 2]);
        let pseudo = [&frame[22..54], &[0, 0, 0, ICMPV6][..]].concat();
        assert_eq!(sum(&[&pseudo, &[0, 8], &frame[54..]]), 0xffff);
    }
}
