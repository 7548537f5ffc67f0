//! Packets in packets: what a frame was packed into on its way from node to node. VXLAN (RFC 7348) is unpacked, so that
//! the packet inside can be followed; what is encrypted is recognised, and stays closed.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::packet::{Ip, Transport};

/// The standard's port, and the one that Linux took before there was one and that Flannel uses.
const VXLAN_PORTS: [u16; 2] = [4789, 8472];
/// The header: flags, 24 bits of nothing, the network's number, 8 bits of nothing.
const VXLAN_HEADER: usize = 8;
/// The flag that says that there is a number.
const VXLAN_HAS_VNI: u8 = 0x08;

/// ESP in UDP (RFC 3948).
const NAT_T_PORT: u16 = 4500;
/// IP's number of ESP (RFC 4303).
const ESP: u8 = 50;

/// WireGuard's port, and the first byte of a message that carries a packet (type 4, three bytes of nothing).
const WIREGUARD_PORT: u16 = 51820;
const WIREGUARD_DATA: [u8; 4] = [4, 0, 0, 0];

/// An encrypted packet, by its form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seal {
    /// ESP in IP.
    Esp,
    /// ESP in UDP.
    EspInUdp,
    /// WireGuard's transport data.
    WireGuard,
}

impl Seal {
    /// The form of an encrypted packet; None for one that can be read.
    pub fn of(ip: &Ip) -> Option<Seal> {
        // The first word of ESP is the SPI, which is never 0 (RFC 4303, 2.1); in UDP 0 marks what is no ESP.
        let has_spi = ip.payload.get(..4).is_some_and(|spi| spi != [0; 4]);
        match ip.transport {
            Transport::Other(ESP) if has_spi => Some(Seal::Esp),
            Transport::Udp { source: WIREGUARD_PORT, target: WIREGUARD_PORT }
                if ip.payload.starts_with(&WIREGUARD_DATA) =>
            {
                Some(Seal::WireGuard)
            }
            Transport::Udp { source: NAT_T_PORT, target: NAT_T_PORT } if has_spi => Some(Seal::EspInUdp),
            _ => None,
        }
    }
}

impl fmt::Display for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Seal::Esp => "ESP",
            Seal::EspInUdp => "ESP in UDP to port 4500",
            Seal::WireGuard => "WireGuard in UDP to port 51820",
        })
    }
}

/// What was around a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outer {
    /// VXLAN's network number.
    pub vni: u32,
    /// Address and port of the node that packed it.
    pub source: SocketAddr,
    /// Address and port of the node that is to unpack it.
    pub target: SocketAddr,
    /// How many bytes are around the frame inside.
    pub overhead: usize,
}

impl fmt::Display for Outer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VXLAN {} {} > {}", self.vni, self.source.ip(), self.target)
    }
}

/// The frame inside, if the packet carries one. `len` is the length of the whole outer frame.
pub(crate) fn unpack(ip: &Ip, len: usize) -> Option<(Outer, &[u8])> {
    let Transport::Udp { target, .. } = ip.transport else { return None };
    if !VXLAN_PORTS.contains(&target) {
        return None;
    }
    let (header, inner) = ip.payload.split_at_checked(VXLAN_HEADER)?;
    if header[0] & VXLAN_HAS_VNI == 0 {
        return None;
    }
    let vni = u32::from_be_bytes([0, header[4], header[5], header[6]]);
    Some((Outer { vni, source: ip.from(), target: ip.to(), overhead: len.checked_sub(inner.len())? }, inner))
}

#[cfg(test)]
mod tests {
    use super::Seal;
    use crate::packet::Packet;

    /// A frame with a UDP datagram: source port 40000.
    fn datagram(source: [u8; 4], target: [u8; 4], port: u16, ttl: u8, data: &[u8]) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 1, 1, 1, 2, 0, 0, 1, 1, 2, 8, 0];
        let len = (20 + 8 + data.len()) as u16;
        frame.extend([0x45, 0]);
        frame.extend(len.to_be_bytes());
        frame.extend([0x7f, 0x3a, 0x40, 0, ttl, 17, 0, 0]);
        frame.extend(source.into_iter().chain(target));
        frame.extend([0x9c, 0x40]);
        frame.extend(port.to_be_bytes());
        frame.extend((len - 20).to_be_bytes());
        frame.extend([0, 0]);
        frame.extend(data);
        frame
    }

    /// VXLAN with flag I and VNI 1 around a pod's datagram, from node to node.
    fn packed() -> Vec<u8> {
        let inner = datagram([10, 244, 1, 2], [10, 244, 2, 2], 8080, 63, b"hi");
        let mut data = vec![8, 0, 0, 0, 0, 0, 1, 0];
        data.extend(inner);
        datagram([192, 0, 2, 11], [192, 0, 2, 12], 8472, 64, &data)
    }

    #[test]
    fn frame_inside_vxlan_is_decoded_with_what_was_around_it() {
        let packet = Packet::decode(&packed()).unwrap();
        let ip = packet.ip().unwrap();
        assert_eq!((ip.from().to_string().as_str(), ip.ttl), ("10.244.1.2:40000", 63));
        assert_eq!((ip.to().to_string().as_str(), &ip.payload[..]), ("10.244.2.2:8080", &b"hi"[..]));
        let outer = packet.outer.unwrap();
        assert_eq!((outer.vni, outer.overhead), (1, 50));
        assert_eq!(outer.to_string(), "VXLAN 1 192.0.2.11 > 192.0.2.12:8472");
    }

    #[test]
    fn what_is_encrypted_is_recognised_by_ports_and_first_bytes() {
        let of = |port: u16, spi: u8| {
            let mut frame =
                datagram([192, 0, 2, 11], [192, 0, 2, 12], port, 64, &[0, 0, 0, spi, 0, 0, 0, 1, 9, 9]);
            frame[34..36].copy_from_slice(&4500_u16.to_be_bytes());
            Seal::of(Packet::decode(&frame).unwrap().ip().unwrap())
        };
        assert_eq!((of(4500, 7), of(4500, 0), of(4501, 7)), (Some(Seal::EspInUdp), None, None));
        let mut frame = datagram([192, 0, 2, 11], [192, 0, 2, 12], 51820, 64, &[4, 0, 0, 0, 9, 9]);
        frame[34..36].copy_from_slice(&51820_u16.to_be_bytes());
        assert_eq!(Seal::of(Packet::decode(&frame).unwrap().ip().unwrap()), Some(Seal::WireGuard));
        frame[14 + 20 + 8] = 1; // a handshake
        assert_eq!(Seal::of(Packet::decode(&frame).unwrap().ip().unwrap()), None);
        // ESP itself: protocol 50.
        let mut frame = datagram([192, 0, 2, 11], [192, 0, 2, 12], 9, 64, b"12345678");
        frame[14 + 9] = 50;
        assert_eq!(Seal::of(Packet::decode(&frame).unwrap().ip().unwrap()), Some(Seal::Esp));
    }

    #[test]
    fn what_is_no_vxlan_or_holds_no_frame_stays_what_it_is() {
        // Without the flag, to another port, cut off inside: a datagram like any other.
        let flag = 14 + 20 + 8;
        let (mut no_flag, mut other_port) = (packed(), packed());
        no_flag[flag] = 0;
        other_port[14 + 20 + 3] = 0x19;
        let empty = datagram([192, 0, 2, 11], [192, 0, 2, 12], 8472, 64, &[8, 0, 0, 0, 0, 0, 1, 0, 9, 9]);
        for frame in [no_flag, other_port, empty] {
            let packet = Packet::decode(&frame).unwrap();
            assert_eq!((packet.outer, packet.ip().unwrap().source), (None, [192, 0, 2, 11].into()));
        }
    }
}
