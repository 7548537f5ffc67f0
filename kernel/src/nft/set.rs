//! Named sets and maps, and their elements.
//!
//! Types and user data are written as `nft` writes them, so that it can list them. Anonymous sets, time-outs of single
//! elements and stateful elements are not here.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::attr::Attrs;
use super::expr::Verdict;
use super::rule::ip_bytes;
use super::userdata::Userdata;

/// linux/netfilter/nf_tables.h, `NFT_SET_*`
const INTERVAL: u32 = 0x4;
const MAP: u32 = 0x8;
const TIMEOUT: u32 = 0x10;
const EVAL: u32 = 0x20;
const CONCAT: u32 = 0x80;
/// `NFT_DATA_VERDICT`
const DATA_VERDICT: u32 = 0xffff_ff00;
/// `NFT_SET_ELEM_INTERVAL_END`
pub(crate) const INTERVAL_END: u32 = 1;
/// Bits of one type in the number of a concatenation (nftables, `TYPE_BITS`).
const TYPE_BITS: u32 = 6;

/// Records of a set's user data (libnftnl/udata.h).
mod record {
    pub(super) const KEY_ORDER: u8 = 0;
    pub(super) const DATA_ORDER: u8 = 1;
    pub(super) const COMMENT: u8 = 7;
}

/// A type of keys or values, with `nft`'s name for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// `ipv4_addr`
    Ipv4Addr,
    /// `ipv6_addr`
    Ipv6Addr,
    /// `ether_addr`
    EtherAddr,
    /// `inet_proto`
    InetProto,
    /// `inet_service`, a port
    InetService,
    /// `mark`
    Mark,
    /// `ifname`
    IfName,
}

impl Type {
    /// The number by which `nft` knows it, and the length of a value.
    const fn numbers(self) -> (u32, u32) {
        match self {
            Type::Ipv4Addr => (7, 4),
            Type::Ipv6Addr => (8, 16),
            Type::EtherAddr => (9, 6),
            Type::InetProto => (12, 1),
            Type::InetService => (13, 2),
            Type::Mark => (19, 4),
            Type::IfName => (41, 16),
        }
    }

    /// `nft`'s byte orders: 1 the host's, 2 big-endian.
    const fn order(self) -> u32 {
        match self {
            Type::Mark | Type::IfName => 1,
            _ => 2,
        }
    }
}

/// Type number and length of a concatenation; each field but a lone one takes whole words.
fn concatenation(types: &[Type]) -> (u32, u32) {
    match types {
        [one] => one.numbers(),
        _ => types.iter().fold((0, 0), |(number, len), t| {
            let (n, l) = t.numbers();
            (number << TYPE_BITS | n, len + l.next_multiple_of(4))
        }),
    }
}

fn order(types: &[Type]) -> u32 {
    // A concatenation has none (BYTEORDER_INVALID).
    match types {
        [one] => one.order(),
        _ => 0,
    }
}

/// What a map holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// A verdict (`verdict map`).
    Verdict,
    /// A value, or a concatenation of values.
    Data(&'a [Type]),
}

/// A set or map to add.
#[derive(Debug, Clone, Copy, Default)]
pub struct Set<'a> {
    /// Its name.
    pub name: &'a str,
    /// The type of its keys; several make a concatenation.
    pub key: &'a [Type],
    /// What it maps to; None for a set.
    pub value: Option<Value<'a>>,
    /// Its keys are ranges or prefixes.
    pub interval: bool,
    /// Rules put its elements in ([`super::Expr::Dynset`]), and each goes this many milliseconds after it was put in.
    pub timeout_ms: Option<u64>,
    /// The comment that `nft` shows.
    pub comment: Option<&'a str>,
}

impl Set<'_> {
    pub(crate) fn put(&self, a: &mut Attrs, table: &str, id: u32) {
        let (key_type, key_len) = concatenation(self.key);
        let ranges_of_fields = self.interval && self.key.len() > 1;
        let flags = (if self.interval { INTERVAL } else { 0 })
            | (if self.value.is_some() { MAP } else { 0 })
            | (if self.timeout_ms.is_some() { TIMEOUT | EVAL } else { 0 })
            | (if ranges_of_fields { CONCAT } else { 0 });
        a.text(1, table).text(2, self.name).u32(3, flags).u32(4, key_type).u32(5, key_len);
        let mut data = Userdata::new().with(record::KEY_ORDER, &order(self.key).to_ne_bytes());
        match self.value {
            None => {}
            Some(Value::Verdict) => {
                a.u32(6, DATA_VERDICT).u32(7, 0);
                data = data.with(record::DATA_ORDER, &0u32.to_ne_bytes());
            }
            Some(Value::Data(types)) => {
                let (number, len) = concatenation(types);
                a.u32(6, number).u32(7, len);
                data = data.with(record::DATA_ORDER, &order(types).to_ne_bytes());
            }
        }
        a.u32(10, id);
        if let Some(timeout) = self.timeout_ms {
            a.u64(11, timeout);
        }
        if ranges_of_fields {
            // NFTA_SET_DESC, NFTA_SET_DESC_CONCAT: the length of each field.
            a.nest(9, |desc| {
                desc.nest(2, |fields| {
                    for t in self.key {
                        fields.nest(1, |field| _ = field.u32(1, t.numbers().1));
                    }
                });
            });
        }
        if let Some(comment) = self.comment {
            data = data.with_comment(record::COMMENT, comment);
        }
        a.raw(13, data.bytes());
    }
}

/// An element of a set or map: to add, to delete, or as dumped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Element {
    /// The key: fields in order, see [`Element::key_of`].
    pub key: Vec<u8>,
    /// The end of a range in a concatenation of ranges, the key being its beginning.
    pub key_end: Option<Vec<u8>>,
    /// In a set of ranges: not a beginning but the first key behind a range.
    pub is_end: bool,
    /// What the key maps to.
    pub data: Option<Data>,
    /// Comment and own records.
    pub userdata: Userdata,
}

/// What an element maps to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// A verdict.
    Verdict(Verdict),
    /// A value, its fields one behind the other as in a key.
    Value(Vec<u8>),
}

impl Element {
    /// An element with the key of these fields, each in the byte order of its type (see [`ip_bytes`],
    /// [`super::name_bytes`]).
    pub fn key_of(fields: &[&[u8]]) -> Element {
        Element { key: fields_of(fields), ..Element::default() }
    }

    /// The same, mapping to a verdict.
    #[must_use]
    pub fn to_verdict(self, verdict: Verdict) -> Element {
        Element { data: Some(Data::Verdict(verdict)), ..self }
    }

    /// The same, mapping to these fields.
    #[must_use]
    pub fn to_value(self, fields: &[&[u8]]) -> Element {
        Element { data: Some(Data::Value(fields_of(fields))), ..self }
    }

    /// The same with a comment that `nft` shows.
    #[must_use]
    pub fn comment(self, text: &str) -> Element {
        Element { userdata: Userdata::comment(text), ..self }
    }

    /// The two elements of a prefix in a set of ranges of addresses: where it begins and, unless it reaches to the last
    /// address, what comes behind.
    pub fn prefix(net: IpNetwork) -> Vec<Element> {
        Element::range(net.network(), net.broadcast())
    }

    /// As [`Element::prefix`] for the addresses from `first` to `last`, both included and of one family.
    pub fn range(first: IpAddr, last: IpAddr) -> Vec<Element> {
        let begin = Element::key_of(&[&ip_bytes(first)]);
        let mut behind = ip_bytes(last);
        let mut carry = true;
        for byte in behind.iter_mut().rev() {
            (*byte, carry) = byte.overflowing_add(u8::from(carry));
        }
        let end = Element { is_end: true, ..Element::key_of(&[&behind]) };
        if carry { vec![begin] } else { vec![begin, end] }
    }

    /// As one NFTA_LIST_ELEM of a message's elements.
    pub(crate) fn put(&self, list: &mut Attrs) {
        list.nest(1, |e| {
            if self.is_end {
                e.u32(3, INTERVAL_END);
            }
            e.nest(1, |key| _ = key.raw(1, &self.key));
            if let Some(end) = &self.key_end {
                e.nest(10, |key| _ = key.raw(1, end));
            }
            match &self.data {
                None => {}
                Some(Data::Verdict(verdict)) => _ = e.nest(2, |data| verdict.put(data)),
                Some(Data::Value(value)) => _ = e.nest(2, |data| _ = data.raw(1, value)),
            }
            if !self.userdata.is_empty() {
                e.raw(6, self.userdata.bytes());
            }
        });
    }
}

/// Fields one behind the other: a lone one as it is, several each in whole words.
fn fields_of(fields: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(32);
    for field in fields {
        bytes.extend(*field);
        if fields.len() > 1 {
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concatenations_take_whole_words() {
        let types = [Type::InetProto, Type::InetService];
        assert_eq!(concatenation(&types), (12 << 6 | 13, 8));
        assert_eq!(Element::key_of(&[&[6], &[0, 80]]).key, [6, 0, 0, 0, 0, 80, 0, 0]);
        assert_eq!(concatenation(&[Type::InetService]), (13, 2));
        assert_eq!(Element::key_of(&[&[0, 80]]).key, [0, 80]);
    }

    #[test]
    fn prefix_ends_behind_its_last_address() {
        let keys = |text: &str| {
            let all = Element::prefix(text.parse().unwrap());
            all.into_iter().map(|e| (e.key, e.is_end)).collect::<Vec<_>>()
        };
        assert_eq!(keys("10.0.255.0/24"), [(vec![10, 0, 255, 0], false), (vec![10, 1, 0, 0], true)]);
        assert_eq!(keys("255.255.255.0/24"), [(vec![255, 255, 255, 0], false)]);
        assert_eq!(keys("0.0.0.0/0").len(), 1);
    }
}
