//! The first packet of a connection as bytes, TCP, UDP and SCTP, and what of such a packet is seen at its end.

use std::net::IpAddr;

use kernel::Mac;

/// A connection that is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Tuple {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) protocol: u8,
    pub(super) source_port: u16,
    pub(super) port: u16,
}

/// The Internet checksum (RFC 1071).
fn checksum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

/// SCTP's checksum (RFC 9260 appendix A: CRC32c, its bytes in the order of the wire).
fn crc32c(bytes: &[u8]) -> [u8; 4] {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    (!crc).to_le_bytes()
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn segment(it: &Tuple) -> Vec<u8> {
    let ports = [it.source_port.to_be_bytes(), it.port.to_be_bytes()].concat();
    if it.protocol == 132 {
        // INIT: its header, a tag, a window, one stream each way, the first number.
        let chunk = [1, 0, 0, 20, 0, 0, 0, 9, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 5];
        let mut bytes = [&ports[..], &[0; 8], &chunk].concat();
        let crc = crc32c(&bytes);
        bytes[8..12].copy_from_slice(&crc);
        return bytes;
    }
    let (mut bytes, at) = if it.protocol == 6 {
        // SYN, with a window.
        ([&ports[..], &[0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]].concat(), 16)
    } else {
        ([&ports[..], &[0, 12, 0, 0], b"test"].concat(), 6)
    };
    let length = (bytes.len() as u32).to_be_bytes();
    let pseudo =
        [octets(it.source), octets(it.destination), length.to_vec(), vec![0, 0, 0, it.protocol]].concat();
    let sum = checksum(&[&pseudo, &bytes]);
    bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// The frame of a connection's first packet.
pub(super) fn frame(it: &Tuple, from: Mac, to: Mac) -> Vec<u8> {
    let segment = segment(it);
    let mut bytes = [to.0, from.0].concat();
    if it.source.is_ipv4() {
        bytes.extend([8, 0]);
        let length = (20 + segment.len() as u16).to_be_bytes();
        let mut header = [&[0x45, 0], &length[..], &[0, 0, 0x40, 0, 64, it.protocol, 0, 0]].concat();
        header.extend(octets(it.source));
        header.extend(octets(it.destination));
        let sum = checksum(&[&header]).to_be_bytes();
        header[10..12].copy_from_slice(&sum);
        bytes.extend(header);
    } else {
        bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        bytes.extend((segment.len() as u16).to_be_bytes());
        bytes.extend([it.protocol, 64]);
        bytes.extend(octets(it.source));
        bytes.extend(octets(it.destination));
    }
    bytes.extend(segment);
    bytes
}

/// The connection of which a frame is; `None` for one of another protocol.
pub(super) fn seen(frame: &[u8]) -> Option<Tuple> {
    let ip = frame.get(14..)?;
    let (protocol, source, destination, rest): (u8, IpAddr, IpAddr, &[u8]) = match frame.get(12..14)? {
        [8, 0] => {
            let address = |at: usize| <[u8; 4]>::try_from(ip.get(at..at + 4)?).ok().map(IpAddr::from);
            (*ip.get(9)?, address(12)?, address(16)?, ip.get(20..)?)
        }
        [0x86, 0xdd] => {
            let address = |at: usize| <[u8; 16]>::try_from(ip.get(at..at + 16)?).ok().map(IpAddr::from);
            (*ip.get(6)?, address(8)?, address(24)?, ip.get(40..)?)
        }
        _ => return None,
    };
    if ![6, 17, 132].contains(&protocol) {
        return None;
    }
    let port = |at: usize| Some(u16::from_be_bytes(rest.get(at..at + 2)?.try_into().ok()?));
    Some(Tuple { source, destination, protocol, source_port: port(0)?, port: port(2)? })
}

#[test]
fn a_frame_is_read_as_it_was_made_and_its_checksums_are_right() {
    // RFC 9260 has no example; the check value of CRC-32C over these digits is 0xE3069283.
    assert_eq!(crc32c(b"123456789"), 0xe306_9283_u32.to_le_bytes());
    for (source, destination) in [("10.1.0.2", "10.1.0.3"), ("fd00::2", "fd00::3")] {
        for protocol in [6, 17, 132] {
            let tuple = Tuple {
                source: source.parse().unwrap(),
                destination: destination.parse().unwrap(),
                protocol,
                source_port: 2000,
                port: 80,
            };
            assert_eq!(seen(&frame(&tuple, Mac([1; 6]), Mac([2; 6]))), Some(tuple));
        }
    }
}
