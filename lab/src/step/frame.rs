//! Frames as they wait: which of them do, and what can be changed of one.

use crate::bytes::checksum;
use crate::packet::{Packet, Transport};

/// Where a frame's EtherType ends and its packet begins.
const HEADER: usize = 14;
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
/// BGP (RFC 4271): a session that is held for minutes ends, and with it the routes.
const BGP: u16 = 179;
/// IGMP (RFC 3376), by which bridges tell of groups some time after they are made.
const IGMP: u8 = 2;

/// Whether a frame waits for somebody; all do but those of a routing protocol and of IGMP.
pub(super) fn waits(frame: &[u8]) -> bool {
    let packet = Packet::decode(frame);
    let Some(ip) = packet.as_ref().and_then(Packet::ip) else { return true };
    match ip.transport {
        Transport::Tcp(_) => ![ip.from().port(), ip.to().port()].contains(&BGP),
        Transport::Other(protocol) => protocol != IGMP,
        Transport::Udp { .. } | Transport::Icmp { .. } => true,
    }
}

/// Sets the TTL, or hop limit, of the outermost IP packet, and an IPv4 header's checksum (RFC 791).
///
/// # Errors
/// The frame has no whole IP header.
pub(super) fn set_ttl(frame: &mut [u8], ttl: u8) -> Result<(), String> {
    let none = || "it is no IP packet, and has no TTL".to_owned();
    let (kind, packet) = frame.split_at_mut_checked(HEADER).ok_or_else(none)?;
    match [kind[12], kind[13]] {
        IPV4 => {
            let length = packet.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
            let header = packet.get_mut(..length).filter(|header| header.len() >= 20).ok_or_else(none)?;
            header[8] = ttl;
            header[10..12].fill(0);
            let sum = checksum(header).to_be_bytes();
            header[10..12].copy_from_slice(&sum);
            Ok(())
        }
        IPV6 => packet.get_mut(7).map(|limit| *limit = ttl).ok_or_else(none),
        _ => Err(none()),
    }
}

/// Sets one byte and nothing else: checksums are then wrong, as after a fault of the wire.
///
/// # Errors
/// The frame is shorter.
pub(super) fn set_byte(frame: &mut [u8], offset: usize, value: u8) -> Result<u8, String> {
    let length = frame.len();
    let byte = frame.get_mut(offset).ok_or_else(|| format!("it has {length} bytes, from 0 on"))?;
    Ok(std::mem::replace(byte, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ICMP echo request from 10.244.1.2 to 10.244.2.2, TTL 63, with a right header checksum.
    const PING: [u8; 42] = [
        0x02, 0, 0, 0, 0, 2, 0x02, 0, 0, 0, 0, 1, 0x08, 0x00, // Ethernet
        0x45, 0, 0, 28, 0, 1, 0x40, 0, 63, 1, 0x22, 0xf5, 10, 244, 1, 2, 10, 244, 2, 2, // IPv4
        8, 0, 0xf7, 0xfd, 0, 1, 0, 1, // ICMP
    ];

    #[test]
    fn a_ttl_is_set_with_its_checksum() {
        let header = |frame: &[u8]| checksum(&frame[HEADER..HEADER + 20]);
        assert_eq!(header(&PING), 0, "the header above is right");
        let mut frame = PING;
        set_ttl(&mut frame, 3).unwrap();
        assert_eq!((frame[22], header(&frame)), (3, 0));
        let changed: Vec<usize> = (0..PING.len()).filter(|&at| frame[at] != PING[at]).collect();
        assert_eq!(changed, [22, 24], "TTL and checksum only");
        let mut arp = PING;
        arp[13] = 6;
        assert!(set_ttl(&mut arp, 3).unwrap_err().contains("no IP packet"));
        assert!(set_ttl(&mut PING[..20].to_vec(), 3).is_err());
        let mut v6 = [0_u8; 54];
        v6[12..14].copy_from_slice(&IPV6);
        set_ttl(&mut v6, 9).unwrap();
        assert_eq!(v6[21], 9);
    }

    #[test]
    fn a_byte_is_set_and_nothing_else() {
        let mut frame = PING;
        assert_eq!(set_byte(&mut frame, 41, 7), Ok(1));
        assert_eq!((frame[41], &frame[..41]), (7, &PING[..41]));
        assert_eq!(set_byte(&mut frame, 42, 7).unwrap_err(), "it has 42 bytes, from 0 on");
    }

    #[test]
    fn all_frames_wait_but_those_of_a_routing_protocol() {
        assert!(waits(&PING) && waits(&[]));
        let mut bgp = PING.to_vec();
        bgp[23] = 6;
        bgp.splice(34.., [0, 179, 0x9c, 0x40, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0, 9, 0, 0, 0, 0]);
        bgp[17] = 40;
        assert!(!waits(&bgp));
        bgp[35] = 180;
        assert!(waits(&bgp));
        let mut igmp = PING;
        igmp[23] = 2;
        assert!(!waits(&igmp));
    }
}
