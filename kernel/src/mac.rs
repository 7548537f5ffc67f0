//! 48-bit link-layer addresses: parse, print, make up.
//!
//! Longer hardware addresses (EUI-64, InfiniBand) are no pod's address and are not parsed.

use std::fmt;
use std::str::FromStr;

use crate::error::Result;
use crate::sys;

/// An Ethernet address, in transmission order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

/// The text is no 6-byte hardware address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("address {0}: invalid MAC address")]
pub struct ParseMacError(pub String);

impl Mac {
    /// A random address with the local bit set and the group bit clear (IEEE 802, section 8.4). Errors when the
    /// kernel gives no random bytes.
    pub fn random() -> Result<Mac> {
        let mut b = [0u8; 6];
        sys::random(&mut b).map_err(|e| crate::error::Cause::from(e).about("make a random MAC address"))?;
        b[0] = (b[0] & 0xfc) | 0x02;
        Ok(Mac(b))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = ParseMacError;

    /// Takes the three 6-byte spellings that Go's `net.ParseMAC` takes: `02:00:5e:10:00:01`, `02-00-5e-10-00-01`,
    /// `0200.5e10.0001`, digits in either case, every group at its full width.
    fn from_str(s: &str) -> std::result::Result<Mac, ParseMacError> {
        let bytes = s.as_bytes();
        let (width, separator) = match (bytes.len(), bytes.get(2), bytes.get(4)) {
            (17, Some(&c @ (b':' | b'-')), _) => (2, c),
            (14, _, Some(b'.')) => (4, b'.'),
            _ => return Err(ParseMacError(s.into())),
        };
        let mut out = [0u8; 6];
        let mut nibbles = 0;
        for (i, &c) in bytes.iter().enumerate() {
            if i % (width + 1) == width {
                if c != separator {
                    return Err(ParseMacError(s.into()));
                }
                continue;
            }
            let digit = (c as char).to_digit(16).ok_or_else(|| ParseMacError(s.into()))?;
            out[nibbles / 2] = (out[nibbles / 2] << 4) | digit as u8;
            nibbles += 1;
        }
        Ok(Mac(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const M: Mac = Mac([0x02, 0x00, 0x5e, 0x10, 0x00, 0xaf]);

    #[test]
    fn three_spellings_parse_to_the_same_address() {
        for s in ["02:00:5e:10:00:af", "02-00-5E-10-00-AF", "0200.5e10.00aF"] {
            assert_eq!(s.parse(), Ok(M), "{s}");
        }
        assert_eq!(M.to_string(), "02:00:5e:10:00:af");
        assert_eq!(format!("{M:?}"), "02:00:5e:10:00:af");
    }

    #[test]
    fn anything_else_is_refused() {
        for s in [
            "",
            "02:00:5e:10:00",
            "02:00:5e:10:00:af:01",
            "02:00-5e:10:00:af",
            "2:0:5e:10:0:af",
            "0200.5e10:00af",
            "02005e1000af",
            "0g:00:5e:10:00:af",
            "02:00:5e:10:00:a:",
            "02:00:5e:10:00:00:00:01",
            "+2:00:5e:10:00:af",
            "é2:00:5e:10:00:a",
        ] {
            assert_eq!(s.parse::<Mac>(), Err(ParseMacError(s.into())), "{s}");
        }
        assert_eq!(
            "nope".parse::<Mac>().map_err(|e| e.to_string()),
            Err("address nope: invalid MAC address".into())
        );
    }

    #[test]
    fn random_addresses_are_local_unicast_and_differ() {
        let a = Mac::random().unwrap();
        let b = Mac::random().unwrap();
        assert_ne!(a, b);
        for m in [a, b] {
            assert_eq!(m.0[0] & 0x03, 0x02, "{m}");
        }
    }
}
