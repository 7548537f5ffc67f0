//! User data of tables, chains, rules, sets and elements: small records, each a type, a length and bytes, that the
//! kernel keeps and does not read.
//!
//! `nft` writes comments there (type 0, text with a NUL; type 7 for sets) and passes over types that it does not know,
//! so records of our own may stand beside a comment.

/// The most that the kernel keeps for a rule, chain, table, set or element (NFT_USERDATA_MAXLEN).
pub(super) const MAX: usize = 256;
/// The longest comment that `nft` takes, in bytes.
pub const COMMENT_MAX: usize = 128;
/// Record type of a comment of a table, chain, rule or element (libnftnl/udata.h).
const COMMENT: u8 = 0;

/// Records as the kernel keeps them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Userdata {
    bytes: Vec<u8>,
}

impl Userdata {
    /// No record.
    pub fn new() -> Userdata {
        Userdata::default()
    }

    /// A comment as `nft` writes and shows it, cut at 128 bytes as `nft` demands, whole characters kept.
    pub fn comment(text: &str) -> Userdata {
        Userdata::new().with_comment(COMMENT, text)
    }

    pub(crate) fn with_comment(self, kind: u8, text: &str) -> Userdata {
        let mut end = text.len().min(COMMENT_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let mut value = text.as_bytes()[..end].to_vec();
        value.push(0);
        self.with(kind, &value)
    }

    /// The same with one more record. A value of more than 255 bytes, or one that does not fit in what the kernel
    /// keeps, is cut: records are for people and for finding rules again, not for storage.
    #[must_use]
    pub fn with(mut self, kind: u8, value: &[u8]) -> Userdata {
        let room = MAX.saturating_sub(self.bytes.len() + 2).min(255);
        let value = &value[..value.len().min(room)];
        self.bytes.extend([kind, value.len() as u8]);
        self.bytes.extend(value);
        self
    }

    /// What the kernel gave back.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Userdata {
        Userdata { bytes: bytes.to_vec() }
    }

    /// The records' bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// No record is in it.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The value of the first record of a type.
    pub fn get(&self, kind: u8) -> Option<&[u8]> {
        self.records().find(|&(k, _)| k == kind).map(|(_, value)| value)
    }

    /// The comment, if there is one and it is UTF-8.
    pub fn text(&self) -> Option<&str> {
        self.text_of(COMMENT)
    }

    pub(crate) fn text_of(&self, kind: u8) -> Option<&str> {
        let value = self.get(kind)?;
        std::str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok()
    }

    /// Every record, in order; ends at the first that does not fit.
    pub fn records(&self) -> impl Iterator<Item = (u8, &[u8])> {
        let mut rest = self.bytes.as_slice();
        std::iter::from_fn(move || {
            let (&[kind, len], tail) = rest.split_first_chunk::<2>()?;
            let value = tail.get(..usize::from(len))?;
            rest = &tail[usize::from(len)..];
            Some((kind, value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comment_is_type_0_with_a_nul() {
        let data = Userdata::comment("hi").with(0x70, &[1, 2]);
        assert_eq!(data.bytes(), [0, 3, b'h', b'i', 0, 0x70, 2, 1, 2]);
        assert_eq!((data.text(), data.get(0x70)), (Some("hi"), Some(&[1, 2][..])));
        assert_eq!(Userdata::from_bytes(data.bytes()), data);
    }

    #[test]
    fn what_is_too_long_is_cut_between_characters() {
        let long = "ä".repeat(100);
        let text = Userdata::comment(&long).text().map(str::len);
        assert_eq!(text, Some(128));
        let full = Userdata::new().with(1, &[7; 300]).with(2, &[8; 10]);
        assert!(full.bytes().len() <= MAX + 2);
    }

    #[test]
    fn torn_records_are_passed_over() {
        for bytes in [&[0u8][..], &[0, 9, 1], &[0, 2, b'a']] {
            let data = Userdata::from_bytes(bytes);
            assert!(data.text().is_none() && data.records().count() == 0, "{bytes:?}");
        }
    }
}
