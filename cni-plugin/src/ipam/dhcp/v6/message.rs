//! DHCPv6 messages (RFC 8415): what a client sends for one address, and the part of an answer that it reads.
//!
//! Prefix delegation, temporary addresses and relays are not here. Reading takes any bytes and never panics.

use std::net::Ipv6Addr;

use crate::ipam::dhcp::hash::pieces;
use crate::ipam::dhcp::names;

/// Message types.
pub(super) mod kind {
    #![allow(missing_docs, reason = "the names are the RFC's")]
    pub(crate) const SOLICIT: u8 = 1;
    pub(crate) const ADVERTISE: u8 = 2;
    pub(crate) const REQUEST: u8 = 3;
    pub(crate) const RENEW: u8 = 5;
    pub(crate) const REBIND: u8 = 6;
    pub(crate) const REPLY: u8 = 7;
    pub(crate) const RELEASE: u8 = 8;
}

/// Option codes.
mod code {
    pub(super) const CLIENT_ID: u16 = 1;
    pub(super) const SERVER_ID: u16 = 2;
    pub(super) const IA_NA: u16 = 3;
    pub(super) const IA_ADDRESS: u16 = 5;
    pub(super) const OPTION_REQUEST: u16 = 6;
    pub(super) const ELAPSED: u16 = 8;
    pub(super) const STATUS: u16 = 13;
    pub(super) const RAPID_COMMIT: u16 = 14;
    pub(super) const DNS: u16 = 23;
    pub(super) const SEARCH: u16 = 24;
}

/// What a client sends.
#[derive(Clone, Debug)]
pub(super) struct Request<'a> {
    /// One of [`kind`].
    pub(super) kind: u8,
    /// 24 bits that tie an answer to it.
    pub(super) xid: u32,
    /// The client's DUID.
    pub(super) duid: &'a [u8],
    /// The server's DUID, where one server is meant.
    pub(super) server: Option<&'a [u8]>,
    /// Number of the client's one identity association.
    pub(super) iaid: u32,
    /// The address that is asked for.
    pub(super) address: Option<Ipv6Addr>,
    /// Hundredths of a second since the exchange began.
    pub(super) elapsed: u16,
}

impl Request<'_> {
    /// The bytes of the UDP payload.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let [_, xid @ ..] = self.xid.to_be_bytes();
        let mut bytes = vec![self.kind];
        bytes.extend(xid);
        push(&mut bytes, code::CLIENT_ID, self.duid);
        if let Some(server) = self.server {
            push(&mut bytes, code::SERVER_ID, server);
        }
        push(&mut bytes, code::ELAPSED, &self.elapsed.to_be_bytes());
        // T1 and T2 are left to the server, and so are the lifetimes.
        let mut association = self.iaid.to_be_bytes().to_vec();
        association.extend([0; 8]);
        if let Some(address) = self.address {
            push(&mut association, code::IA_ADDRESS, &[&address.octets()[..], &[0; 8]].concat());
        }
        push(&mut bytes, code::IA_NA, &association);
        if self.kind != kind::RELEASE {
            let wanted = [code::DNS.to_be_bytes(), code::SEARCH.to_be_bytes()].concat();
            push(&mut bytes, code::OPTION_REQUEST, &wanted);
        }
        if self.kind == kind::SOLICIT {
            push(&mut bytes, code::RAPID_COMMIT, &[]);
        }
        bytes
    }
}

fn push(bytes: &mut Vec<u8>, code: u16, value: &[u8]) {
    bytes.extend(code.to_be_bytes());
    bytes.extend((value.len() as u16).to_be_bytes());
    bytes.extend(value);
}

/// An address that a server gives, with its times in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) address: Ipv6Addr,
    pub(super) preferred: u32,
    pub(super) valid: u32,
    pub(super) renew: u32,
    pub(super) rebind: u32,
}

/// A server's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) kind: u8,
    pub(super) xid: u32,
    /// The DUID of the client it is for.
    pub(super) client: Vec<u8>,
    pub(super) server: Vec<u8>,
    pub(super) rapid: bool,
    /// The first address of the association `iaid` that may be used.
    pub(super) given: Option<Given>,
    /// A status that is no success: its number and the server's words.
    pub(super) refused: Option<(u16, String)>,
    pub(super) dns: Vec<Ipv6Addr>,
    pub(super) search: Vec<String>,
}

impl Reply {
    /// Reads the bytes of a UDP payload for the association `iaid`; `None` when they are no answer.
    pub(super) fn parse(bytes: &[u8], iaid: u32) -> Option<Reply> {
        let (&[kind, a, b, c], rest) = bytes.split_first_chunk::<4>()?;
        if !matches!(kind, kind::ADVERTISE | kind::REPLY) {
            return None;
        }
        let mut reply = Reply { kind, xid: u32::from_be_bytes([0, a, b, c]), ..Reply::default() };
        each(rest, |code, value| match code {
            code::CLIENT_ID => reply.client = value.to_vec(),
            code::SERVER_ID => reply.server = value.to_vec(),
            code::RAPID_COMMIT => reply.rapid = true,
            code::STATUS => reply.refuse(value),
            code::IA_NA => reply.association(value, iaid),
            code::DNS => {
                reply.dns.extend(pieces(value).map(|octets: [u8; 16]| Ipv6Addr::from(octets)));
            }
            code::SEARCH => reply.search = names::decode(value),
            _ => {}
        })?;
        (!reply.client.is_empty() && !reply.server.is_empty()).then_some(reply)
    }

    fn association(&mut self, value: &[u8], iaid: u32) {
        let Some((&head, rest)) = value.split_first_chunk::<12>() else { return };
        let number = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        if number(0) != iaid {
            return;
        }
        let (renew, rebind) = (number(4), number(8));
        // What cannot be read to its end is left out from there on.
        let _ = each(rest, |code, value| match code {
            code::STATUS => self.refuse(value),
            code::IA_ADDRESS if self.given.is_none() => {
                self.given = address(value).map(|(address, preferred, valid)| Given {
                    address,
                    preferred,
                    valid,
                    renew,
                    rebind,
                });
            }
            _ => {}
        });
    }

    fn refuse(&mut self, value: &[u8]) {
        if let Some((&status, words)) = value.split_first_chunk::<2>() {
            let status = u16::from_be_bytes(status);
            if status != 0 {
                self.refused = Some((status, String::from_utf8_lossy(words).escape_debug().to_string()));
            }
        }
    }
}

/// An IAADDR option: address, preferred and valid lifetime. `None` for an address that is no longer valid or that no
/// host can have.
fn address(value: &[u8]) -> Option<(Ipv6Addr, u32, u32)> {
    let (&octets, rest) = value.split_first_chunk::<16>()?;
    let (&preferred, rest) = rest.split_first_chunk::<4>()?;
    let (&valid, _) = rest.split_first_chunk::<4>()?;
    let (address, preferred, valid) =
        (Ipv6Addr::from(octets), u32::from_be_bytes(preferred), u32::from_be_bytes(valid));
    let usable = !address.is_unspecified() && !address.is_multicast() && !address.is_loopback();
    (usable && valid > 0 && preferred <= valid).then_some((address, preferred, valid))
}

/// Calls `f` with each option; `None` when one is longer than what is there.
fn each(mut bytes: &[u8], mut f: impl FnMut(u16, &[u8])) -> Option<()> {
    while !bytes.is_empty() {
        let (&[a, b, c, d], rest) = bytes.split_first_chunk::<4>()?;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([c, d])))?;
        f(u16::from_be_bytes([a, b]), value);
        bytes = rest;
    }
    Some(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ipam::dhcp::timing::Random;

    /// A server's answer as bytes, for IAID 7 and the client "me"; times in seconds.
    pub(crate) fn reply(kind: u8, xid: u32, address: Option<(&str, [u32; 4])>, more: &[u8]) -> Vec<u8> {
        let [_, xid @ ..] = xid.to_be_bytes();
        let mut bytes = vec![kind];
        bytes.extend(xid);
        push(&mut bytes, code::CLIENT_ID, b"me");
        push(&mut bytes, code::SERVER_ID, b"server");
        let mut association = 7u32.to_be_bytes().to_vec();
        let [renew, rebind, preferred, valid] = address.map_or([0; 4], |(_, times)| times);
        association.extend([renew.to_be_bytes(), rebind.to_be_bytes()].concat());
        if let Some((address, _)) = address {
            let mut inner = address.parse::<Ipv6Addr>().unwrap().octets().to_vec();
            inner.extend([preferred.to_be_bytes(), valid.to_be_bytes()].concat());
            push(&mut association, code::IA_ADDRESS, &inner);
        }
        push(&mut bytes, code::IA_NA, &association);
        bytes.extend(more);
        bytes
    }

    #[test]
    fn solicit_has_the_bytes_of_the_rfc() {
        let request = Request {
            kind: kind::SOLICIT,
            xid: 0xff010203,
            duid: &[0, 4, 9],
            server: None,
            iaid: 7,
            address: None,
            elapsed: 5,
        };
        let expected = [
            1, 1, 2, 3, // SOLICIT, transaction id
            0, 1, 0, 3, 0, 4, 9, // client
            0, 8, 0, 2, 0, 5, // elapsed time
            0, 3, 0, 12, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, // IA_NA
            0, 6, 0, 4, 0, 23, 0, 24, // wanted options
            0, 14, 0, 0, // rapid commit
        ];
        assert_eq!(request.to_bytes(), expected);
    }

    #[test]
    fn reply_gives_address_times_and_names() {
        let more = [
            &[0, 23, 0, 16, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x53][..],
            &[0, 24, 0, 5, 3, b'l', b'a', b'n', 0],
        ]
        .concat();
        let bytes = reply(kind::REPLY, 9, Some(("2001:db8::7", [10, 20, 30, 40])), &more);
        let reply = Reply::parse(&bytes, 7).unwrap();
        let given = Given {
            address: "2001:db8::7".parse().unwrap(),
            preferred: 30,
            valid: 40,
            renew: 10,
            rebind: 20,
        };
        assert_eq!((reply.xid, reply.given, reply.refused), (9, Some(given), None));
        assert_eq!(reply.dns, ["2001:db8::53".parse::<Ipv6Addr>().unwrap()]);
        assert_eq!(reply.search, ["lan"]);
        assert_eq!(Reply::parse(&bytes, 8).unwrap().given, None, "another association");
    }

    #[test]
    fn addresses_that_are_over_and_refusals_are_told() {
        let bytes = reply(
            kind::REPLY,
            9,
            Some(("2001:db8::7", [0, 0, 0, 0])),
            &[0, 13, 0, 5, 0, 2, b'f', b'u', b'l'],
        );
        let reply = Reply::parse(&bytes, 7).unwrap();
        assert_eq!((reply.given, reply.refused), (None, Some((2, "ful".into()))));
    }

    #[test]
    fn hostile_bytes_are_read_without_a_panic() {
        let mut random = Random::new(0x5eed);
        let template =
            reply(kind::REPLY, 9, Some(("2001:db8::7", [10, 20, 30, 40])), &[0, 13, 0, 2, 0, 0, 0, 14, 0, 0]);
        let mut read = 0;
        for round in 0..20_000 {
            let mut bytes = template.clone();
            for _ in 0..random.below(4) {
                let at = random.below(bytes.len() as u64) as usize;
                bytes[at] = random.next() as u8;
            }
            if round % 3 == 0 {
                bytes.truncate(random.below(bytes.len() as u64 + 1) as usize);
            }
            if round % 5 == 0 {
                bytes.truncate(4);
                bytes.extend((0..random.below(300)).map(|_| random.below(30) as u8));
            }
            read += usize::from(Reply::parse(&bytes, 7).is_some());
        }
        assert!(read > 1000, "only {read} were understood at all");
    }
}
