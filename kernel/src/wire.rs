//! The bytes between this crate and rtnetlink: numbers that the message crates keep to themselves, one writer of
//! requests and one reader of attributes.
//!
//! Requests are built from netlink-packet-route's types. Answers are read attribute by attribute, known ones only:
//! an attribute that a newer kernel adds or lengthens cannot spoil a dump, and parsers of link kinds that no pod
//! has stay out of the executable.

use std::net::IpAddr;

use netlink_packet_core::{DefaultNla, Emitable, NLA_F_NESTED, NetlinkBuffer, NetlinkHeader, NlasIterator};

use crate::error::Cause;
use crate::mac::Mac;

/// linux/if_link.h, `IFLA_*`
pub(crate) mod ifla {
    pub(crate) const ADDRESS: u16 = 1;
    pub(crate) const IFNAME: u16 = 3;
    pub(crate) const MTU: u16 = 4;
    pub(crate) const LINK: u16 = 5;
    pub(crate) const MASTER: u16 = 10;
    pub(crate) const TXQLEN: u16 = 13;
    pub(crate) const OPERSTATE: u16 = 16;
    pub(crate) const LINKINFO: u16 = 18;
    pub(crate) const IFALIAS: u16 = 20;
    pub(crate) const GROUP: u16 = 27;
    pub(crate) const LINK_NETNSID: u16 = 37;
    pub(crate) const INFO_KIND: u16 = 1;
    pub(crate) const INFO_DATA: u16 = 2;
    pub(crate) const INFO_SLAVE_KIND: u16 = 4;
    pub(crate) const INFO_SLAVE_DATA: u16 = 5;
    pub(crate) const MACVLAN_BC_QUEUE_LEN: u16 = 7;
    pub(crate) const VLAN_PROTOCOL: u16 = 5;
    pub(crate) const VXLAN_LOCAL: u16 = 4;
    pub(crate) const VXLAN_LEARNING: u16 = 7;
    pub(crate) const VXLAN_LOCAL6: u16 = 17;
    pub(crate) const VXLAN_PORT: u16 = 15;
    pub(crate) const AF_SPEC: u16 = 26;
    pub(crate) const BRIDGE_VLAN_INFO: u16 = 2;
    pub(crate) const BR_VLAN_PROTOCOL: u16 = 8;
    pub(crate) const BR_VLAN_FILTERING: u16 = 7;
    pub(crate) const TUN_OWNER: u16 = 1;
    pub(crate) const TUN_GROUP: u16 = 2;
    pub(crate) const TUN_TYPE: u16 = 3;
    pub(crate) const TUN_PERSIST: u16 = 6;
    pub(crate) const TUN_MULTI_QUEUE: u16 = 7;
    pub(crate) const BRPORT_MODE: u16 = 4;
    pub(crate) const BRPORT_LEARNING: u16 = 8;
    pub(crate) const BRPORT_NO: u16 = 18;
    pub(crate) const BRPORT_ISOLATED: u16 = 33;
    /// linux/inetdevice.h reads `IFLA_AF_SPEC` / `AF_INET` / this as a nest of u32 by devconf number.
    pub(crate) const INET_CONF: u16 = 1;
    pub(crate) const INET6_CONF: u16 = 2;
}

/// linux/rtnetlink.h `TCA_*`, linux/pkt_sched.h, linux/pkt_cls.h, linux/tc_act/tc_mirred.h
pub(crate) mod tca {
    pub(crate) const KIND: u16 = 1;
    pub(crate) const OPTIONS: u16 = 2;
    pub(crate) const TBF_PARMS: u16 = 1;
    pub(crate) const TBF_RATE64: u16 = 4;
    pub(crate) const HTB_PARMS: u16 = 1;
    pub(crate) const HTB_INIT: u16 = 2;
    pub(crate) const HTB_RATE64: u16 = 6;
    pub(crate) const HTB_CEIL64: u16 = 7;
    pub(crate) const U32_CLASSID: u16 = 1;
    pub(crate) const U32_SEL: u16 = 5;
    pub(crate) const U32_ACT: u16 = 7;
    pub(crate) const ACT_KIND: u16 = 1;
    pub(crate) const ACT_OPTIONS: u16 = 2;
    pub(crate) const MIRRED_PARMS: u16 = 2;
}

/// linux/ip.h, `IPV4_DEVCONF_ARP_NOTIFY`
pub(crate) const DEVCONF_ARP_NOTIFY: u16 = 22;
/// linux/ipv6.h, `DEVCONF_ACCEPT_RA`
pub(crate) const DEVCONF_ACCEPT_RA: usize = 3;
/// linux/if.h, `IF_OPER_UP`
pub(crate) const OPER_UP: u8 = 6;
/// linux/netlink.h, `NLMSGERR_ATTR_MSG`
const ERR_ATTR_MSG: u16 = 1;
/// linux/netlink.h, `NLMSGERR_ATTR_OFFS`
const ERR_ATTR_OFFS: u16 = 2;

/// Appends one request to `out`. The header's port stays 0: the kernel fills in the socket's own.
pub(crate) fn push(out: &mut Vec<u8>, kind: u16, flags: u16, seq: u32, body: &dyn Emitable) {
    let start = out.len();
    let mut header = NetlinkHeader::default();
    let head = header.buffer_len();
    // The messages of this crate are a fixed header and whole attributes, so their length is a multiple of four,
    // as NLMSG_ALIGN asks.
    header.length = (head + body.buffer_len()) as u32;
    header.message_type = kind;
    header.flags = flags;
    header.sequence_number = seq;
    out.resize(start + header.length as usize, 0);
    header.emit(&mut out[start..start + head]);
    body.emit(&mut out[start + head..]);
}

/// An attribute that holds attributes, for places where netlink-packet-route has no type to set one.
pub(crate) fn nest(kind: u16, inner: &[DefaultNla]) -> DefaultNla {
    let mut value = vec![0; inner.buffer_len()];
    inner.emit(&mut value);
    DefaultNla::new(kind | NLA_F_NESTED, value)
}

/// One message out of a datagram.
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) seq: u32,
    pub(crate) port: u32,
    pub(crate) payload: &'a [u8],
}

/// The messages of one datagram, in order; ends at the first that does not fit.
pub(crate) struct Messages<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let head = NetlinkBuffer::new_checked(self.0).ok()?;
        let len = head.length() as usize;
        let message = Message {
            kind: head.message_type(),
            flags: head.flags(),
            seq: head.sequence_number(),
            port: head.port_number(),
            payload: head.payload(),
        };
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some(message)
    }
}

/// Calls `each` with the type (flag bits removed) and value of every attribute in `bytes`.
pub(crate) fn attributes<'a>(bytes: &'a [u8], mut each: impl FnMut(u16, &'a [u8])) -> Result<(), Cause> {
    for nla in NlasIterator::new(bytes) {
        let nla = nla.map_err(malformed)?;
        let (kind, len) = (nla.kind(), nla.length() as usize);
        each(kind, &nla.into_inner()[4..len]);
    }
    Ok(())
}

pub(crate) fn malformed(e: impl ToString) -> Cause {
    Cause::Malformed(e.to_string())
}

/// What follows a message's fixed header of `len` bytes; empty when the message is shorter.
pub(crate) fn after(payload: &[u8], len: usize) -> &[u8] {
    payload.get(len..).unwrap_or(&[])
}

pub(crate) fn to_u8(value: &[u8]) -> Option<u8> {
    value.first().copied()
}

pub(crate) fn to_u16(value: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(value.get(..2)?.try_into().ok()?))
}

pub(crate) fn to_u32(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(value.get(..4)?.try_into().ok()?))
}

pub(crate) fn to_i32(value: &[u8]) -> Option<i32> {
    Some(i32::from_ne_bytes(value.get(..4)?.try_into().ok()?))
}

pub(crate) fn to_u64(value: &[u8]) -> Option<u64> {
    Some(u64::from_ne_bytes(value.get(..8)?.try_into().ok()?))
}

pub(crate) fn to_ip(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(value).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(value).ok()?)),
        _ => None,
    }
}

pub(crate) fn to_mac(value: &[u8]) -> Option<Mac> {
    value.try_into().ok().map(Mac)
}

/// The text up to the first NUL.
pub(crate) fn to_text(value: &[u8]) -> String {
    let end = value.iter().position(|&b| b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// Reads an NLMSG_ERROR: ok for an ack, else errno and the extended ack's sentence (netlink(7), `struct nlmsgerr`).
pub(crate) fn ack(message: &Message<'_>) -> Result<(), Cause> {
    let code = to_i32(message.payload).ok_or_else(|| malformed("NLMSG_ERROR without a code"))?;
    if code == 0 {
        return Ok(());
    }
    Err(Cause::Os { errno: -code, kernel: sentence(message, behind_request(message)) })
}

/// At which byte of the refused request the kernel found what it refuses, if the extended ack says so.
pub(crate) fn bad_offset(message: &Message<'_>) -> Option<u32> {
    extended(message, behind_request(message), ERR_ATTR_OFFS).and_then(to_u32)
}

/// Where the extended ack of an NLMSG_ERROR begins: after the code comes the refused request, its header only where
/// NETLINK_CAP_ACK is on.
fn behind_request(message: &Message<'_>) -> usize {
    if message.flags & libc::NLM_F_CAPPED as u16 != 0 {
        return 4 + 16;
    }
    let request = to_u32(after(message.payload, 4)).unwrap_or(16) as usize;
    4 + request.next_multiple_of(4)
}

/// Reads an NLMSG_DONE: a dump ends with 0 or with the errno that ended it early.
pub(crate) fn done(message: &Message<'_>) -> Result<(), Cause> {
    match to_i32(message.payload) {
        Some(code) if code < 0 => Err(Cause::Os { errno: -code, kernel: sentence(message, 4) }),
        _ => Ok(()),
    }
}

fn sentence(message: &Message<'_>, skip: usize) -> Option<String> {
    extended(message, skip, ERR_ATTR_MSG).map(to_text)
}

/// An attribute of the extended ack, which begins at byte `skip`.
fn extended<'a>(message: &Message<'a>, skip: usize, wanted: u16) -> Option<&'a [u8]> {
    if message.flags & libc::NLM_F_ACK_TLVS as u16 == 0 {
        return None;
    }
    let mut found = None;
    attributes(after(message.payload, skip), |kind, value| {
        if kind == wanted {
            found = Some(value);
        }
    })
    .ok()?;
    found
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    /// One message: length, type, flags, sequence number 7, port 9, payload.
    fn message(kind: u16, flags: i32, payload: &[u8]) -> Vec<u8> {
        let mut m = (16 + payload.len() as u32).to_le_bytes().to_vec();
        m.extend(kind.to_le_bytes());
        m.extend((flags as u16).to_le_bytes());
        m.extend([7, 0, 0, 0, 9, 0, 0, 0]);
        m.extend(payload);
        m
    }

    fn only(bytes: &[u8]) -> Message<'_> {
        let mut all = Messages(bytes);
        let first = all.next().expect("a message");
        assert!(all.next().is_none());
        first
    }

    const REQUEST: [u8; 16] = [32, 0, 0, 0, 16, 0, 5, 6, 7, 0, 0, 0, 0, 0, 0, 0];
    /// NLMSGERR_ATTR_MSG "no way", then NLMSGERR_ATTR_OFFS.
    const TLVS: [u8; 20] = [11, 0, 1, 0, b'n', b'o', b' ', b'w', b'a', b'y', 0, 0, 8, 0, 2, 0, 20, 0, 0, 0];

    #[test]
    fn request_is_header_and_body_with_its_length() {
        let mut out = vec![0xaa];
        let body = nest(26, &[DefaultNla::new(2, vec![5])]);
        push(&mut out, 19, 5, 7, &body);
        let expected = [
            0xaa, 28, 0, 0, 0, 19, 0, 5, 0, 7, 0, 0, 0, 0, 0, 0, 0, // nlmsghdr
            12, 0, 26, 0x80, 5, 0, 2, 0, 5, 0, 0, 0, // a nest, and in it one byte, padded
        ];
        assert_eq!(out, expected);
    }

    #[test]
    fn ack_is_read_with_the_sentence_behind_a_capped_request() {
        let mut payload = (-17i32).to_le_bytes().to_vec();
        payload.extend(REQUEST);
        payload.extend(TLVS);
        let bytes = message(2, libc::NLM_F_CAPPED | libc::NLM_F_ACK_TLVS, &payload);
        let refused = Cause::Os { errno: 17, kernel: Some("no way".into()) };
        assert_eq!(ack(&only(&bytes)), Err(refused.clone()));

        // Uncapped, the request's own 16 bytes of payload come before the sentence.
        let mut payload = (-17i32).to_le_bytes().to_vec();
        payload.extend(REQUEST);
        payload.extend([0xff; 16]);
        payload.extend(TLVS);
        assert_eq!(ack(&only(&message(2, libc::NLM_F_ACK_TLVS, &payload))), Err(refused));
    }

    #[test]
    fn ack_without_sentence_is_read() {
        let mut payload = (-19i32).to_le_bytes().to_vec();
        payload.extend(REQUEST);
        assert_eq!(ack(&only(&message(2, libc::NLM_F_CAPPED, &payload))), Err(Cause::errno(19)));
        // Flag set, attribute cut off: the errno still counts.
        payload.extend([200, 0, 1, 0]);
        let bytes = message(2, libc::NLM_F_CAPPED | libc::NLM_F_ACK_TLVS, &payload);
        assert_eq!(ack(&only(&bytes)), Err(Cause::errno(19)));
        assert_eq!(ack(&only(&message(2, libc::NLM_F_CAPPED, &[0; 20]))), Ok(()));
        assert!(matches!(ack(&only(&message(2, 0, &[1, 2]))), Err(Cause::Malformed(_))));
    }

    #[test]
    fn end_of_a_dump_may_carry_an_error() {
        assert_eq!(done(&only(&message(3, 2, &[0, 0, 0, 0]))), Ok(()));
        assert_eq!(done(&only(&message(3, 2, &[]))), Ok(()));
        let mut payload = (-19i32).to_le_bytes().to_vec();
        payload.extend(TLVS);
        let told = Cause::Os { errno: 19, kernel: Some("no way".into()) };
        assert_eq!(done(&only(&message(3, libc::NLM_F_ACK_TLVS, &payload))), Err(told));
    }

    #[test]
    fn messages_of_a_datagram_are_separated_at_multiples_of_four() {
        let mut bytes = message(20, 2, &[1, 2, 3, 4, 5]);
        bytes.extend([0; 3]);
        bytes.extend(message(3, 2, &[0; 4]));
        let seen: Vec<_> = Messages(&bytes).map(|m| (m.kind, m.seq, m.port, m.payload.len())).collect();
        assert_eq!(seen, [(20, 7, 9, 5), (3, 7, 9, 4)]);
        assert_eq!(Messages(&bytes[..bytes.len() - 1]).count(), 1, "a cut message is none");
        assert_eq!(Messages(&[]).count(), 0);
    }

    #[test]
    fn attributes_are_read_without_their_flag_bits_and_must_fit() {
        let mut seen = Vec::new();
        let bytes = [5, 0, 26, 0x80, 9, 0, 0, 0, 4, 0, 3, 0x40];
        attributes(&bytes, |kind, value| seen.push((kind, value.to_vec()))).unwrap();
        assert_eq!(seen, [(26, vec![9]), (3, vec![])]);
        for cut in [&[9, 0, 3, 0, 1][..], &[3, 0, 1, 0], &[8, 0]] {
            assert!(attributes(cut, |_, _| ()).is_err(), "{cut:?}");
        }
    }

    #[test]
    fn values_of_the_wrong_length_are_none() {
        assert_eq!(to_u32(&[1, 0, 0, 0, 9]), Some(1));
        assert_eq!((to_u32(&[1, 0, 0]), to_i32(&[]), to_u8(&[])), (None, None, None));
        assert_eq!(to_ip(&[10, 0, 0, 1]), Some([10, 0, 0, 1].into()));
        assert_eq!((to_ip(&[1; 5]), to_mac(&[1; 5])), (None, None));
        assert_eq!(to_text(b"eth0\0junk"), "eth0");
        assert_eq!(after(&[1, 2], 5), &[] as &[u8]);
    }
}
