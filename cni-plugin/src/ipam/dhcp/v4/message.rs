//! DHCPv4 messages (RFC 2131, RFC 2132): what a client sends, and the part of a server's answer that it reads.
//!
//! Reading takes any bytes and never panics. What a value means is for [`super::lease`].

use std::net::Ipv4Addr;

use kernel::Mac;

use crate::ipam::dhcp::hash::pieces;

/// Option codes (RFC 2132, RFC 3397, RFC 3442).
pub(crate) mod code {
    #![allow(missing_docs, reason = "the names are the RFCs'")]
    pub(crate) const PAD: u8 = 0;
    pub(crate) const SUBNET_MASK: u8 = 1;
    pub(crate) const ROUTERS: u8 = 3;
    pub(crate) const DNS: u8 = 6;
    pub(crate) const HOST_NAME: u8 = 12;
    pub(crate) const DOMAIN: u8 = 15;
    pub(crate) const STATIC_ROUTES: u8 = 33;
    pub(crate) const REQUESTED: u8 = 50;
    pub(crate) const LEASE_TIME: u8 = 51;
    pub(crate) const OVERLOAD: u8 = 52;
    pub(crate) const KIND: u8 = 53;
    pub(crate) const SERVER: u8 = 54;
    pub(crate) const REQUEST_LIST: u8 = 55;
    pub(crate) const MESSAGE: u8 = 56;
    pub(crate) const MAX_SIZE: u8 = 57;
    pub(crate) const RENEWAL: u8 = 58;
    pub(crate) const REBINDING: u8 = 59;
    pub(crate) const VENDOR_CLASS: u8 = 60;
    pub(crate) const CLIENT_ID: u8 = 61;
    pub(crate) const USER_CLASS: u8 = 77;
    pub(crate) const SEARCH: u8 = 119;
    pub(crate) const CLASSLESS_ROUTES: u8 = 121;
    pub(crate) const END: u8 = 255;
}

/// DHCPDISCOVER and its fellows: the values of option 53.
pub(crate) mod kind {
    #![allow(missing_docs, reason = "the names are the RFC's")]
    pub(crate) const DISCOVER: u8 = 1;
    pub(crate) const OFFER: u8 = 2;
    pub(crate) const REQUEST: u8 = 3;
    pub(crate) const ACK: u8 = 5;
    pub(crate) const NAK: u8 = 6;
    pub(crate) const RELEASE: u8 = 7;
}

const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Length of the fixed part, cookie included.
const FIXED: usize = 240;
/// The shortest message that every relay passes on (BOOTP, RFC 1542).
const SHORTEST: usize = 300;
/// The largest message that the client says it takes.
const LARGEST: u16 = 1500;

/// Options by code, in the order in which they came; each code stands there once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options(Vec<(u8, Vec<u8>)>);

impl Options {
    /// Reads one field of options. Values of a code that comes more than once are joined (RFC 3396).
    ///
    /// `None` when an option is longer than the field.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Options> {
        let mut options = Options::default();
        options.read(bytes)?;
        Some(options)
    }

    fn read(&mut self, mut bytes: &[u8]) -> Option<()> {
        loop {
            bytes = match *bytes {
                [] | [code::END, ..] => return Some(()),
                [code::PAD, ref rest @ ..] => rest,
                [code, length, ref rest @ ..] => {
                    let (value, rest) = rest.split_at_checked(usize::from(length))?;
                    match self.0.iter_mut().find(|(known, _)| *known == code) {
                        Some((_, first)) => first.extend(value),
                        None => self.0.push((code, value.to_vec())),
                    }
                    rest
                }
                [_] => return None,
            }
        }
    }

    /// The field's bytes, without an end. A value of more than 255 bytes is cut into several options.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (code, value) in &self.0 {
            let mut pieces = value.chunks(255);
            let first = pieces.next().unwrap_or_default();
            for piece in std::iter::once(first).chain(pieces) {
                bytes.extend([*code, piece.len() as u8]);
                bytes.extend(piece);
            }
        }
        bytes
    }

    /// Sets an option in place of what was there under its code.
    pub(crate) fn set(&mut self, code: u8, value: impl Into<Vec<u8>>) {
        match self.0.iter_mut().find(|(known, _)| *known == code) {
            Some((_, old)) => *old = value.into(),
            None => self.0.push((code, value.into())),
        }
    }

    /// The value of an option.
    pub(crate) fn get(&self, code: u8) -> Option<&[u8]> {
        self.0.iter().find(|(known, _)| *known == code).map(|(_, value)| value.as_slice())
    }

    /// The first address of an option.
    pub(crate) fn address(&self, code: u8) -> Option<Ipv4Addr> {
        self.addresses(code).next()
    }

    /// All addresses of an option; a rest that is none is left out.
    pub(crate) fn addresses(&self, code: u8) -> impl Iterator<Item = Ipv4Addr> + '_ {
        pieces(self.get(code).unwrap_or_default()).map(|octets: [u8; 4]| Ipv4Addr::from(octets))
    }

    /// A time in seconds.
    pub(crate) fn seconds(&self, code: u8) -> Option<u32> {
        self.get(code)?.try_into().ok().map(u32::from_be_bytes)
    }

    /// A text; what is not UTF-8 in it is replaced, and NULs at its end are not part of it.
    pub(crate) fn text(&self, code: u8) -> Option<String> {
        let text = String::from_utf8_lossy(self.get(code)?);
        Some(text.trim_end_matches('\0').to_owned()).filter(|text| !text.is_empty())
    }

    /// Adds the options of `others` whose codes are not there yet.
    pub(crate) fn fill(&mut self, others: &Options) {
        let new = others.0.iter().filter(|(code, _)| self.get(*code).is_none()).cloned();
        let new: Vec<_> = new.collect();
        self.0.extend(new);
    }

    /// Takes over from an earlier answer what this one does not say. Times are never taken over: they are this
    /// answer's own or the default.
    pub(crate) fn inherit(&mut self, earlier: &Options) {
        let mut earlier = earlier.clone();
        earlier.0.retain(|(code, _)| {
            !matches!(
                *code,
                code::LEASE_TIME | code::RENEWAL | code::REBINDING | code::MESSAGE | code::OVERLOAD
            )
        });
        self.fill(&earlier);
    }
}

/// What a client sends.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// Ties an answer to it.
    pub(super) xid: u32,
    /// Seconds since the client began.
    pub(super) secs: u16,
    /// The answer must be a broadcast.
    pub(super) broadcast: bool,
    /// The address that the client has and answers for.
    pub(super) ciaddr: Ipv4Addr,
    /// The client's hardware address.
    pub(super) mac: Mac,
    /// Message type first.
    pub(super) options: Options,
}

impl Request {
    /// The bytes of the UDP payload.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![1, 1, 6, 0];
        bytes.extend(self.xid.to_be_bytes());
        bytes.extend(self.secs.to_be_bytes());
        bytes.extend([if self.broadcast { 0x80 } else { 0 }, 0]);
        bytes.extend(self.ciaddr.octets());
        bytes.extend([0; 12]);
        bytes.extend(self.mac.0);
        bytes.resize(FIXED - COOKIE.len(), 0);
        bytes.extend(COOKIE);
        bytes.extend(self.options.to_bytes());
        bytes.push(code::END);
        bytes.resize(bytes.len().max(SHORTEST), 0);
        bytes
    }
}

/// The options of a message of this kind: its type and the size that the client can take.
pub(super) fn options_for(kind: u8) -> Options {
    let mut options = Options::default();
    options.set(code::KIND, [kind]);
    if kind != kind::RELEASE {
        options.set(code::MAX_SIZE, LARGEST.to_be_bytes());
    }
    options
}

/// A server's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    /// That of the request.
    pub(super) xid: u32,
    /// Option 53.
    pub(super) kind: u8,
    /// The address for the client.
    pub(super) yiaddr: Ipv4Addr,
    /// The hardware address of the client it is for.
    pub(super) mac: Mac,
    /// All of them, those in the fields `file` and `sname` included.
    pub(super) options: Options,
}

impl Reply {
    /// Reads the bytes of a UDP payload; `None` when they are no answer to an Ethernet client.
    pub(super) fn parse(bytes: &[u8]) -> Option<Reply> {
        let (fixed, rest) = bytes.split_at_checked(FIXED)?;
        if !fixed.starts_with(&[2, 1, 6]) || !fixed.ends_with(&COOKIE) {
            return None;
        }
        let mut options = Options::parse(rest)?;
        // Option 52: 1 the field `file` holds options too, 2 `sname`, 3 both.
        if let Some(&[fields]) = options.get(code::OVERLOAD) {
            for (bit, field) in [(1, &fixed[108..236]), (2, &fixed[44..108])] {
                if fields & bit != 0 {
                    options.read(field)?;
                }
            }
        }
        let &[kind] = options.get(code::KIND)? else { return None };
        Some(Reply {
            xid: u32::from_be_bytes(fixed[4..8].try_into().ok()?),
            kind,
            yiaddr: Ipv4Addr::from(<[u8; 4]>::try_from(&fixed[16..20]).ok()?),
            mac: Mac(fixed[28..34].try_into().ok()?),
            options,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ipam::dhcp::timing::Random;

    /// A server's answer as bytes.
    pub(crate) fn reply(xid: u32, yiaddr: [u8; 4], mac: Mac, options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![2, 1, 6, 0];
        bytes.extend(xid.to_be_bytes());
        bytes.extend([0; 8]);
        bytes.extend(yiaddr);
        bytes.extend([0; 8]);
        bytes.extend(mac.0);
        bytes.resize(236, 0);
        bytes.extend([99, 130, 83, 99]);
        bytes.extend(options);
        bytes
    }

    #[test]
    fn request_has_the_bytes_of_the_rfc() {
        let mut options = options_for(kind::DISCOVER);
        options.set(code::REQUEST_LIST, [3, 1]);
        let request = Request {
            xid: 0x01020304,
            secs: 5,
            broadcast: true,
            ciaddr: Ipv4Addr::UNSPECIFIED,
            mac: Mac([2, 0, 0, 0, 0, 1]),
            options,
        };
        let bytes = request.to_bytes();
        assert_eq!(bytes.len(), 300);
        assert_eq!(bytes[..12], [1, 1, 6, 0, 1, 2, 3, 4, 0, 5, 0x80, 0]);
        assert_eq!(bytes[12..36], [[0; 16].as_slice(), &[2, 0, 0, 0, 0, 1, 0, 0]].concat());
        let tail = [99, 130, 83, 99, 53, 1, 1, 57, 2, 5, 220, 55, 2, 3, 1, 255, 0];
        assert_eq!(bytes[236..253], tail);
    }

    #[test]
    fn reply_is_read_with_overloaded_fields_and_split_options() {
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let options = [53, 1, 5, 0, 52, 1, 3, 15, 2, b'a', b'b', 15, 2, b'c', 0, 255, 1, 2];
        let mut bytes = reply(9, [10, 0, 0, 7], mac, &options);
        bytes[108..114].copy_from_slice(&[3, 4, 10, 0, 0, 1]);
        bytes[114] = 255;
        bytes[44..50].copy_from_slice(&[51, 4, 0, 0, 1, 0]);
        let reply = Reply::parse(&bytes).unwrap();
        assert_eq!((reply.xid, reply.kind, reply.mac), (9, kind::ACK, mac));
        assert_eq!(reply.yiaddr, Ipv4Addr::new(10, 0, 0, 7));
        assert_eq!(reply.options.text(code::DOMAIN).as_deref(), Some("abc"));
        assert_eq!(reply.options.address(code::ROUTERS), Some(Ipv4Addr::new(10, 0, 0, 1)));
        assert_eq!(reply.options.seconds(code::LEASE_TIME), Some(256));
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let good = reply(9, [10, 0, 0, 7], mac, &[53, 1, 5, 255]);
        assert!(Reply::parse(&good).is_some());
        for (at, byte) in [(0, 1), (1, 6), (2, 8), (236, 0), (240, 54), (241, 2)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert_eq!(Reply::parse(&bad), None, "byte {at}");
        }
        for options in [&[53, 1, 5, 12, 9, b'x'][..], &[53, 1, 5, 12], &[]] {
            assert_eq!(Reply::parse(&reply(9, [10, 0, 0, 7], mac, options)), None, "{options:?}");
        }
    }

    #[test]
    fn options_survive_a_round_trip_long_values_too() {
        let mut options = Options::default();
        options.set(119, vec![7; 600]);
        options.set(80, []);
        options.set(1, [255, 255, 255, 0]);
        assert_eq!(Options::parse(&options.to_bytes()), Some(options));
    }

    /// Cut, flipped and made-up bytes: whatever comes, nothing panics, and what is read is within bounds.
    #[test]
    fn hostile_bytes_are_read_without_a_panic() {
        let mut random = Random::new(0x5eed);
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let template = reply(
            9,
            [10, 0, 0, 7],
            mac,
            &[53, 1, 5, 52, 1, 3, 1, 4, 255, 255, 255, 0, 121, 5, 32, 1, 2, 3, 4, 255],
        );
        let mut read = 0;
        for round in 0..20_000 {
            let mut bytes = template.clone();
            for _ in 0..random.below(6) {
                let at = random.below(bytes.len() as u64) as usize;
                bytes[at] = random.next() as u8;
            }
            if round % 3 == 0 {
                bytes.truncate(random.below(bytes.len() as u64 + 1) as usize);
            }
            if round % 5 == 0 {
                bytes.truncate(240);
                bytes.extend((0..random.below(300)).map(|_| random.next() as u8));
            }
            if let Some(reply) = Reply::parse(&bytes) {
                read += 1;
                let lease = super::super::lease::Lease::new(&reply, None, mac, 0);
                if let Ok(lease) = lease {
                    let _ = (lease.routes(), lease.dns(), lease.ip_config());
                    assert!(lease.renew <= lease.rebind && lease.rebind <= lease.expire);
                }
            }
        }
        assert!(read > 1000, "only {read} were understood at all");
    }
}
