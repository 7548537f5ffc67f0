//! One captured frame, decoded into the fields that verdicts and traces look at.
//!
//! Only what the lab's own probes are made of is understood: Ethernet, ARP, IPv4 and IPv6, and in those TCP, UDP and
//! ICMP; and the frame inside a tunnel's datagram, see [`crate::encap`]. Checksums are not verified (offload leaves them
//! unfinished), and fragments are not put together.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use etherparse::{
    ArpOperation, ArpPacketSlice, EtherType, LaxIpPayloadSlice, LaxNetSlice, LaxSlicedPacket, LinkSlice,
    TcpOptionElement, TcpSlice, TransportSlice, ether_type,
};
use kernel::Mac;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::encap::{self, Outer};

/// What stands before a nonce in every probe's payload, so that it can be found there.
pub const MARK: &str = "podlab/";

/// Sixteen bytes that no other probe carries; written as 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Nonce(pub u128);

impl Nonce {
    /// The first nonce that follows a [`MARK`] in `bytes`.
    pub fn find(bytes: &[u8]) -> Option<Nonce> {
        let mark = MARK.as_bytes();
        let at = bytes.windows(mark.len()).position(|w| w == mark)? + mark.len();
        let digits = bytes.get(at..at + 32)?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    }

    /// The mark and the digits, as they are put into a payload.
    pub fn marked(self) -> String {
        format!("{MARK}{self}")
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The text is no 32 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseNonceError;

impl fmt::Display for ParseNonceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a nonce is 32 hexadecimal digits")
    }
}

impl std::error::Error for ParseNonceError {}

impl FromStr for Nonce {
    type Err = ParseNonceError;

    fn from_str(text: &str) -> Result<Nonce, ParseNonceError> {
        if text.len() != 32 || text.starts_with('+') {
            return Err(ParseNonceError);
        }
        u128::from_str_radix(text, 16).map(Nonce).map_err(|_| ParseNonceError)
    }
}

impl Serialize for Nonce {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Nonce {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Nonce, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

/// A decoded frame; of a frame that was packed into another, the one inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// The Ethernet source address; all zeros on loopback.
    pub source_mac: Mac,
    /// The Ethernet destination address.
    pub target_mac: Mac,
    /// What the frame carries.
    pub content: Content,
    /// What was around the frame.
    pub outer: Option<Outer>,
}

/// What a frame carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// An ARP message (RFC 826).
    Arp(Arp),
    /// An IP packet.
    Ip(Ip),
    /// Something else, by its EtherType; also a packet whose header is damaged.
    Other(u16),
}

/// An ARP message for IPv4 over Ethernet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arp {
    /// It is an answer; else a question.
    pub is_reply: bool,
    /// Who sends it, by hardware address.
    pub sender_mac: Mac,
    /// Who sends it.
    pub sender: Ipv4Addr,
    /// Who is asked for, or who had asked.
    pub target: Ipv4Addr,
}

/// A message by which neighbours are found: ARP's, or IPv6's solicitations and advertisements (RFC 4861).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asking {
    /// Who has an address? With who asks, where that is told.
    Question(IpAddr, Option<IpAddr>),
    /// An address is at this MAC.
    Answer(IpAddr, Mac),
}

/// An IP packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ip {
    /// The source address.
    pub source: IpAddr,
    /// The destination address.
    pub target: IpAddr,
    /// Time to live, or IPv6's hop limit.
    pub ttl: u8,
    /// The identification field; IPv6 has none.
    pub id: Option<u16>,
    /// IPv6's flow label (RFC 6437), which nobody on the way changes.
    pub label: Option<u32>,
    /// It is a part of a packet only.
    pub is_fragment: bool,
    /// What the packet carries.
    pub transport: Transport,
    /// The transport's payload: what comes after the TCP, UDP or ICMP header. Shared, as sightings of many are kept.
    pub payload: Arc<[u8]>,
}

/// The transport header of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP (RFC 9293).
    Tcp(Tcp),
    /// UDP.
    Udp {
        /// The source port.
        source: u16,
        /// The destination port.
        target: u16,
    },
    /// ICMP or ICMPv6.
    Icmp {
        /// The type.
        kind: u8,
        /// The code.
        code: u8,
        /// An echo's identifier; of other types the first half of the rest of the header.
        id: u16,
        /// An echo's sequence number; of other types the second half.
        seq: u16,
    },
    /// Another protocol by its number, or a header that is damaged.
    Other(u8),
}

/// A TCP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tcp {
    /// The source port.
    pub source: u16,
    /// The destination port.
    pub target: u16,
    /// The sequence number.
    pub seq: u32,
    /// The acknowledgment number.
    pub ack: u32,
    /// The flag SYN.
    pub is_syn: bool,
    /// The flag ACK.
    pub is_ack: bool,
    /// The flag RST.
    pub is_reset: bool,
    /// TSval of the timestamps option (RFC 7323).
    pub stamp: Option<u32>,
}

impl Transport {
    /// Source and destination port; an ICMP echo's identifier stands for both.
    pub fn ports(&self) -> Option<(u16, u16)> {
        match *self {
            Transport::Tcp(t) => Some((t.source, t.target)),
            Transport::Udp { source, target } => Some((source, target)),
            Transport::Icmp { id, .. } if self.is_echo() => Some((id, id)),
            _ => None,
        }
    }

    /// An ICMP echo, request or reply, of either IP version.
    pub fn is_echo(&self) -> bool {
        matches!(self, Transport::Icmp { kind: 0 | 8 | 128 | 129, .. })
    }
}

impl Ip {
    /// It answers a probe: an HTTP response, an echo reply, a datagram that does not start with the mark.
    pub fn is_answer(&self) -> bool {
        match self.transport {
            Transport::Tcp(_) => self.payload.starts_with(b"HTTP/"),
            Transport::Udp { .. } => !self.payload.starts_with(MARK.as_bytes()),
            Transport::Icmp { kind, .. } => matches!(kind, 0 | 129),
            Transport::Other(_) => false,
        }
    }

    /// Source address and port; port 0 where the protocol has none, an echo's identifier is no port.
    pub fn from(&self) -> SocketAddr {
        SocketAddr::new(self.source, self.real_ports().0)
    }

    /// Destination address and port, as [`Ip::from`].
    pub fn to(&self) -> SocketAddr {
        SocketAddr::new(self.target, self.real_ports().1)
    }

    fn real_ports(&self) -> (u16, u16) {
        match self.transport {
            Transport::Icmp { .. } => (0, 0),
            ref t => t.ports().unwrap_or((0, 0)),
        }
    }
}

impl Packet {
    /// Decodes a frame as a packet socket gives it. None for what is too short to be Ethernet.
    pub fn decode(frame: &[u8]) -> Option<Packet> {
        let sliced = LaxSlicedPacket::from_ethernet(frame).ok()?;
        let Some(LinkSlice::Ethernet2(link)) = &sliced.link else { return None };
        let content = content(&sliced, link.ether_type().0);
        let whole = Packet {
            source_mac: Mac(link.source()),
            target_mac: Mac(link.destination()),
            content,
            outer: None,
        };
        let inside = whole.ip().and_then(|ip| encap::unpack(ip, frame.len()));
        let inside =
            inside.and_then(|(outer, inner)| Some(Packet { outer: Some(outer), ..Packet::decode(inner)? }));
        Some(inside.unwrap_or(whole))
    }

    /// Decodes a packet of a link without Ethernet (TUN, WireGuard); its MACs are zeros. None for what is no IP packet.
    pub fn decode_bare(packet: &[u8]) -> Option<Packet> {
        let sliced = LaxSlicedPacket::from_ip(packet).ok()?;
        let content = content(&sliced, 0);
        Some(Packet { source_mac: Mac([0; 6]), target_mac: Mac([0; 6]), content, outer: None })
    }

    /// The IP packet inside, if it is one.
    pub fn ip(&self) -> Option<&Ip> {
        match &self.content {
            Content::Ip(ip) => Some(ip),
            _ => None,
        }
    }

    /// What is asked or said of a neighbour, if it is such a message.
    pub fn asking(&self) -> Option<Asking> {
        /// ICMPv6: neighbour solicitation, neighbour advertisement.
        const TYPES: (u8, u8) = (135, 136);
        match &self.content {
            Content::Arp(arp) if arp.is_reply => Some(Asking::Answer(arp.sender.into(), arp.sender_mac)),
            Content::Arp(arp) => Some(Asking::Question(arp.target.into(), Some(arp.sender.into()))),
            Content::Ip(ip) => {
                let Transport::Icmp { kind, code: 0, .. } = ip.transport else { return None };
                let target: [u8; 16] = ip.payload.get(..16)?.try_into().ok()?;
                let (target, is_v6) = (IpAddr::from(target), ip.source.is_ipv6());
                match kind {
                    kind if kind == TYPES.0 && is_v6 => {
                        Some(Asking::Question(target, Some(ip.source).filter(|ip| !ip.is_unspecified())))
                    }
                    // Who answers need not say its MAC again: the frame does.
                    kind if kind == TYPES.1 && is_v6 => Some(Asking::Answer(target, self.source_mac)),
                    _ => None,
                }
            }
            Content::Other(_) => None,
        }
    }

    /// The TCP header inside, if there is one.
    pub fn tcp(&self) -> Option<&Tcp> {
        match self.ip().map(|ip| &ip.transport) {
            Some(Transport::Tcp(tcp)) => Some(tcp),
            _ => None,
        }
    }

    /// The nonce in the payload, if there is one.
    pub fn nonce(&self) -> Option<Nonce> {
        Nonce::find(&self.ip()?.payload)
    }
}

/// What is above the link layer, of this EtherType.
fn content(sliced: &LaxSlicedPacket<'_>, ether_type: u16) -> Content {
    let ip = |(source, target): (IpAddr, IpAddr), ttl, (id, label), carried: &LaxIpPayloadSlice<'_>| {
        let (transport, payload) = transport(sliced, carried);
        let (is_fragment, payload) = (carried.fragmented, Arc::from(payload));
        Content::Ip(Ip { source, target, ttl, id, label, is_fragment, transport, payload })
    };
    match &sliced.net {
        Some(LaxNetSlice::Arp(arp)) => arp_content(arp),
        Some(LaxNetSlice::Ipv4(v4)) => {
            let h = v4.header();
            let (source, target) = (h.source_addr().into(), h.destination_addr().into());
            ip((source, target), h.ttl(), (Some(h.identification()), None), v4.payload())
        }
        Some(LaxNetSlice::Ipv6(v6)) => {
            let h = v6.header();
            let (source, target) = (h.source_addr().into(), h.destination_addr().into());
            ip((source, target), h.hop_limit(), (None, Some(h.flow_label().value())), v6.payload())
        }
        None => Content::Other(ether_type),
    }
}

fn transport<'a>(sliced: &LaxSlicedPacket<'a>, carried: &LaxIpPayloadSlice<'a>) -> (Transport, &'a [u8]) {
    let rest = carried.payload;
    match &sliced.transport {
        Some(TransportSlice::Tcp(t)) => (Transport::Tcp(tcp(t)), t.payload()),
        Some(TransportSlice::Udp(u)) => {
            (Transport::Udp { source: u.source_port(), target: u.destination_port() }, u.payload())
        }
        Some(TransportSlice::Icmpv4(i)) => (icmp(i.type_u8(), i.code_u8(), i.bytes5to8()), after_icmp(rest)),
        Some(TransportSlice::Icmpv6(i)) => (icmp(i.type_u8(), i.code_u8(), i.bytes5to8()), after_icmp(rest)),
        _ => (Transport::Other(carried.ip_number.0), rest),
    }
}

/// Both ICMP versions have eight bytes before what an echo carries.
fn after_icmp(bytes: &[u8]) -> &[u8] {
    bytes.get(8..).unwrap_or_default()
}

fn icmp(kind: u8, code: u8, [a, b, c, d]: [u8; 4]) -> Transport {
    Transport::Icmp { kind, code, id: u16::from_be_bytes([a, b]), seq: u16::from_be_bytes([c, d]) }
}

fn tcp(t: &TcpSlice<'_>) -> Tcp {
    let stamp = t.options_iterator().find_map(|option| match option {
        Ok(TcpOptionElement::Timestamp(value, _)) => Some(value),
        _ => None,
    });
    Tcp {
        source: t.source_port(),
        target: t.destination_port(),
        seq: t.sequence_number(),
        ack: t.acknowledgment_number(),
        is_syn: t.syn(),
        is_ack: t.ack(),
        is_reset: t.rst(),
        stamp,
    }
}

fn arp_content(arp: &ArpPacketSlice<'_>) -> Content {
    let mac = |bytes: &[u8]| <[u8; 6]>::try_from(bytes).map(Mac);
    let ip = |bytes: &[u8]| <[u8; 4]>::try_from(bytes).map(Ipv4Addr::from);
    let for_ipv4 = arp.proto_addr_type() == EtherType::IPV4;
    match (mac(arp.sender_hw_addr()), ip(arp.sender_protocol_addr()), ip(arp.target_protocol_addr())) {
        (Ok(sender_mac), Ok(sender), Ok(target)) if for_ipv4 => {
            Content::Arp(Arp { is_reply: arp.operation() == ArpOperation::REPLY, sender_mac, sender, target })
        }
        _ => Content::Other(ether_type::ARP.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: [u8; 6] = [0x02, 0, 0, 1, 1, 2];
    const GATEWAY: [u8; 6] = [0x02, 0, 0, 1, 1, 1];

    fn ethernet(kind: u16, body: &[&[u8]]) -> Vec<u8> {
        let mut frame = [&GATEWAY[..], &CLIENT[..], &kind.to_be_bytes()].concat();
        body.iter().for_each(|part| frame.extend_from_slice(part));
        frame
    }

    fn ipv4(protocol: u8, ttl: u8, body_len: u8) -> Vec<u8> {
        let mut h = vec![0x45, 0, 0, 20 + body_len, 0x7f, 0x3a, 0x40, 0, ttl, protocol, 0, 0];
        h.extend([10, 244, 1, 2, 10, 244, 2, 2]);
        h
    }

    fn ip_of(frame: &[u8]) -> Ip {
        Packet::decode(frame).unwrap().ip().unwrap().clone()
    }

    #[test]
    fn syn_with_timestamps_decodes_to_ports_numbers_and_stamp() {
        // source port 40000, destination port 8080, seq 0x01020304, header of 10 words, SYN;
        // options: MSS 1460, SACK permitted, timestamps 0xdeadbeef/0, nop, window scale 7
        let tcp = [
            0x9c, 0x40, 0x1f, 0x90, 1, 2, 3, 4, 0, 0, 0, 0, 0xa0, 0x02, 0xfa, 0xf0, 0, 0, 0, 0, //
            2, 4, 5, 0xb4, 4, 2, 8, 10, 0xde, 0xad, 0xbe, 0xef, 0, 0, 0, 0, 1, 3, 3, 7,
        ];
        let packet = Packet::decode(&ethernet(0x0800, &[&ipv4(6, 64, 40), &tcp])).unwrap();
        assert_eq!((packet.source_mac, packet.target_mac), (Mac(CLIENT), Mac(GATEWAY)));
        let ip = packet.ip().unwrap();
        assert_eq!(ip.from().to_string(), "10.244.1.2:40000");
        assert_eq!(ip.to().to_string(), "10.244.2.2:8080");
        assert_eq!((ip.ttl, ip.id, ip.payload.len()), (64, Some(0x7f3a), 0));
        let expected = Tcp {
            source: 40000,
            target: 8080,
            seq: 0x0102_0304,
            ack: 0,
            is_syn: true,
            is_ack: false,
            is_reset: false,
            stamp: Some(0xdead_beef),
        };
        assert_eq!(packet.tcp(), Some(&expected));
        assert_eq!(packet.nonce(), None);
    }

    #[test]
    fn padding_of_a_short_frame_is_no_payload() {
        let mut frame = ethernet(0x0800, &[&ipv4(17, 63, 10), &[0x9c, 0x40, 0x1f, 0x90, 0, 10, 0, 0], b"hi"]);
        frame.resize(60, 0);
        let ip = ip_of(&frame);
        assert_eq!(ip.transport, Transport::Udp { source: 40000, target: 8080 });
        assert_eq!((ip.ttl, &ip.payload[..]), (63, &b"hi"[..]));
    }

    #[test]
    fn echo_decodes_to_identifier_sequence_and_nonce() {
        let nonce = Nonce(0x0123_4567_89ab_cdef_0000_0000_0000_002a);
        let data = nonce.marked();
        let frame = ethernet(
            0x0800,
            &[&ipv4(1, 62, 8 + data.len() as u8), &[8, 0, 0xab, 0xcd, 0x12, 0x34, 0, 7], data.as_bytes()],
        );
        let packet = Packet::decode(&frame).unwrap();
        let ip = packet.ip().unwrap();
        assert_eq!(ip.transport, Transport::Icmp { kind: 8, code: 0, id: 0x1234, seq: 7 });
        assert_eq!(ip.transport.ports(), Some((0x1234, 0x1234)));
        assert_eq!((ip.from().port(), ip.is_answer()), (0, false));
        assert_eq!(packet.nonce(), Some(nonce));
        assert_eq!(data, "podlab/0123456789abcdef000000000000002a");
    }

    #[test]
    fn ipv6_hop_limit_is_the_ttl_and_there_is_no_id() {
        let mut h = vec![0x60, 0x01, 0x23, 0x45, 0, 10, 17, 61];
        h.extend("fd00:1::2".parse::<std::net::Ipv6Addr>().unwrap().octets());
        h.extend("fd00:2::2".parse::<std::net::Ipv6Addr>().unwrap().octets());
        let ip = ip_of(&ethernet(0x86dd, &[&h, &[0, 53, 0x1f, 0x90, 0, 10, 0, 0], b"ok"]));
        assert_eq!((ip.ttl, ip.id, &ip.payload[..]), (61, None, &b"ok"[..]));
        assert_eq!((ip.label, ip.is_fragment), (Some(0x1_2345), false));
        assert_eq!(ip.from().to_string(), "[fd00:1::2]:53");
    }

    #[test]
    fn arp_question_and_answer_are_told_apart() {
        let arp = |operation: u8| {
            let mut a = vec![0, 1, 8, 0, 6, 4, 0, operation];
            a.extend(CLIENT);
            a.extend([10, 244, 1, 2, 0, 0, 0, 0, 0, 0, 10, 244, 1, 1]);
            Packet::decode(&ethernet(0x0806, &[&a])).unwrap().content
        };
        let Content::Arp(question) = arp(1) else { panic!("no ARP") };
        assert!(!question.is_reply && question.sender_mac == Mac(CLIENT));
        assert_eq!((question.sender, question.target), ([10, 244, 1, 2].into(), [10, 244, 1, 1].into()));
        assert!(matches!(arp(2), Content::Arp(Arp { is_reply: true, .. })));
    }

    #[test]
    fn neighbours_are_asked_for_and_answer_in_both_versions() {
        let ip = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap();
        let message = |kind: u8| {
            let mut h = vec![0x60, 0, 0, 0, 0, 24, 58, 255];
            h.extend(ip("fd00::2").octets());
            h.extend(ip("ff02::1:ff00:1").octets());
            let frame = ethernet(0x86dd, &[&h, &[kind, 0, 0, 0, 0, 0, 0, 0], &ip("fd00::1").octets()]);
            Packet::decode(&frame).unwrap().asking()
        };
        let question = Asking::Question(ip("fd00::1").into(), Some(ip("fd00::2").into()));
        assert_eq!(message(135), Some(question));
        assert_eq!(message(136), Some(Asking::Answer(ip("fd00::1").into(), Mac(CLIENT))));
        assert_eq!(message(128), None, "an echo");
    }

    #[test]
    fn fragments_have_no_ports() {
        let mut h = ipv4(17, 64, 8);
        h[6] = 0x20; // more fragments
        let ip = ip_of(&ethernet(0x0800, &[&h, &[1, 2, 3, 4, 5, 6, 7, 8]]));
        assert_eq!((ip.transport, ip.payload.len(), ip.is_fragment), (Transport::Other(17), 8, true));
        // RFC 8200, 4.5: the first of several; next header UDP.
        let mut h = vec![0x60, 0, 0, 0, 0, 16, 44, 64];
        h.extend("fd00:1::2".parse::<std::net::Ipv6Addr>().unwrap().octets());
        h.extend("fd00:2::2".parse::<std::net::Ipv6Addr>().unwrap().octets());
        let ip = ip_of(&ethernet(0x86dd, &[&h, &[17, 0, 0, 1, 0, 0, 0, 7], &[1, 2, 3, 4, 5, 6, 7, 8]]));
        assert_eq!((ip.payload.len(), ip.is_fragment), (8, true));
    }

    #[test]
    fn foreign_and_damaged_frames_are_other_or_nothing() {
        assert_eq!(Packet::decode(&[0; 13]), None);
        let lldp = Packet::decode(&ethernet(0x88cc, &[&[1, 2, 3]])).unwrap();
        assert_eq!(lldp.content, Content::Other(0x88cc));
        let damaged = Packet::decode(&ethernet(0x0800, &[&[0x45, 0, 0]])).unwrap();
        assert_eq!((damaged.content, damaged.source_mac), (Content::Other(0x0800), Mac(CLIENT)));
        let short_tcp = ip_of(&ethernet(0x0800, &[&ipv4(6, 64, 4), &[0x9c, 0x40, 0x1f, 0x90]]));
        assert_eq!(short_tcp.transport, Transport::Other(6));
    }

    #[test]
    fn answers_are_told_from_requests_by_content_alone() {
        let ip = |transport, payload: &[u8]| Ip {
            source: [10, 0, 0, 1].into(),
            target: [10, 0, 0, 2].into(),
            ttl: 64,
            id: None,
            label: None,
            is_fragment: false,
            transport,
            payload: payload.into(),
        };
        let udp = Transport::Udp { source: 8080, target: 8080 };
        assert!(!ip(udp, b"podlab/00").is_answer() && ip(udp, b"You've hit a podlab/00").is_answer());
        let echo = |kind| Transport::Icmp { kind, code: 0, id: 1, seq: 1 };
        assert!(ip(echo(0), b"").is_answer() && ip(echo(129), b"").is_answer());
        assert!(!ip(echo(8), b"").is_answer() && !ip(echo(128), b"").is_answer());
    }

    #[test]
    fn nonce_is_found_after_its_mark_only() {
        let n = Nonce(0xfeed);
        assert_eq!(Nonce::find(format!("GET /{} HTTP/1.1\r\n", n.marked()).as_bytes()), Some(n));
        assert_eq!(Nonce::find(n.to_string().as_bytes()), None);
        assert_eq!(Nonce::find(&n.marked().as_bytes()[..38]), None);
        assert_eq!("+0000000000000000000000000000000".parse::<Nonce>(), Err(ParseNonceError));
        assert_eq!(serde_json::from_str::<Nonce>(&serde_json::to_string(&n).unwrap()).unwrap(), n);
    }
}
