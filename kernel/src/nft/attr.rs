//! One writer of netfilter attributes: big-endian numbers, text with its NUL, nests.
//!
//! It writes into one buffer from front to back; a nest's length is filled in when it is closed.

/// linux/netlink.h, `NLA_F_NESTED`
const NESTED: u16 = 1 << 15;

/// Attributes in the making.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Attrs {
    pub(crate) bytes: Vec<u8>,
}

impl Attrs {
    /// `struct nfgenmsg` (linux/netfilter/nfnetlink.h), which stands before the attributes of every message.
    pub(crate) fn message(family: u8, resource: u16) -> Attrs {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend([family, 0]);
        bytes.extend(resource.to_be_bytes());
        Attrs { bytes }
    }

    /// An attribute with this value, padded to four bytes.
    pub(crate) fn raw(&mut self, kind: u16, value: &[u8]) -> &mut Attrs {
        self.head(kind, value.len());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    pub(crate) fn u8(&mut self, kind: u16, value: u8) -> &mut Attrs {
        self.raw(kind, &[value])
    }

    pub(crate) fn u16(&mut self, kind: u16, value: u16) -> &mut Attrs {
        self.raw(kind, &value.to_be_bytes())
    }

    pub(crate) fn u32(&mut self, kind: u16, value: u32) -> &mut Attrs {
        self.raw(kind, &value.to_be_bytes())
    }

    pub(crate) fn u64(&mut self, kind: u16, value: u64) -> &mut Attrs {
        self.raw(kind, &value.to_be_bytes())
    }

    pub(crate) fn text(&mut self, kind: u16, value: &str) -> &mut Attrs {
        self.head(kind, value.len() + 1);
        self.bytes.extend(value.as_bytes());
        self.bytes.push(0);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    /// An attribute that holds what `inner` writes.
    pub(crate) fn nest(&mut self, kind: u16, inner: impl FnOnce(&mut Attrs)) -> &mut Attrs {
        let start = self.bytes.len();
        self.head(kind | NESTED, 0);
        inner(self);
        let len = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        self
    }

    fn head(&mut self, kind: u16, len: usize) {
        // No value of this crate comes near 64 KiB; lists of elements are split before.
        self.bytes.extend((4 + len as u16).to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
    }
}

/// Bytes that are a message's body as they are.
pub(crate) struct Body<'a>(pub(crate) &'a [u8]);

impl netlink_packet_core::Emitable for Body<'_> {
    fn buffer_len(&self) -> usize {
        self.0.len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        buffer[..self.0.len()].copy_from_slice(self.0);
    }
}

pub(crate) fn to_u16(value: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(value.get(..2)?.try_into().ok()?))
}

pub(crate) fn to_u32(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.get(..4)?.try_into().ok()?))
}

pub(crate) fn to_u64(value: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(value.get(..8)?.try_into().ok()?))
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_big_endian_and_nested() {
        let mut a = Attrs::message(7, 10);
        a.text(1, "nat").u32(2, 5);
        a.nest(4, |n| {
            n.u16(1, 0x1234);
        });
        let expected = [
            7, 0, 0, 10, // nfgenmsg
            8, 0, 1, 0, b'n', b'a', b't', 0, // text with its NUL
            8, 0, 2, 0, 0, 0, 0, 5, // number, big-endian
            12, 0, 4, 0x80, 6, 0, 1, 0, 0x12, 0x34, 0, 0, // nest, value padded
        ];
        assert_eq!(a.bytes, expected);
    }
}
