//! Addresses and prefixes in the texts of Go's `net` package.
//!
//! Host bits are kept; an IPv4 address written as IPv6 (`::ffff:10.0.0.1`) is IPv4. Neither a bare address
//! nor a dotted mask is a prefix, unlike in the `ipnetwork` crate.

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Deserializer, de};

/// Reads `address/length`.
///
/// # Errors
/// Anything else, with Go's sentence.
pub fn parse_cidr(text: &str) -> Result<IpNetwork, String> {
    let parse = || {
        let (address, length) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let length: u8 = length.bytes().all(|b| b.is_ascii_digit()).then(|| length.parse().ok())??;
        match address {
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() && length <= 128 => {
                IpNetwork::new(address.to_canonical(), length.saturating_sub(96)).ok()
            }
            _ => IpNetwork::new(address, length).ok(),
        }
    };
    parse().ok_or_else(|| format!("invalid CIDR address: {text}"))
}

/// Reads an address; the empty text is none.
pub(crate) fn parse_ip(text: &str) -> Result<Option<IpAddr>, String> {
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(Some(address.to_canonical())),
        Err(_) if text.is_empty() => Ok(None),
        Err(_) => Err(format!("invalid IP address: {text}")),
    }
}

/// A prefix with its host bits kept, for the fields of configurations (`"subnet": "10.1.2.3/24"`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr(pub IpNetwork);

/// An address, for the fields of configurations; the empty text is none, as in Go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ip(pub Option<IpAddr>);

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_cidr(&text).map(Cidr).map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Ip {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_ip(&text).map(Ip).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_keep_host_bits_and_mapped_ones_are_ipv4() {
        let table = [
            ("10.1.2.3/24", "10.1.2.3/24"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:DB8:0:0:0:0:0:1/64", "2001:db8::1/64"),
            ("::/0", "::/0"),
            ("::ffff:10.0.0.1/120", "10.0.0.1/24"),
            ("::1.2.3.4/128", "::102:304/128"),
            ("1:0:0:2:0:0:0:3/128", "1:0:0:2::3/128"),
            ("1:0:2:3:4:5:6:7/128", "1:0:2:3:4:5:6:7/128"),
        ];
        for (text, expected) in table {
            assert_eq!(parse_cidr(text).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn what_go_refuses_is_no_prefix() {
        for text in [
            "",
            "10.0.0.1",
            "10.0.0.1/",
            "10.0.0.1/33",
            "::/129",
            "10.0.0.1/255.0.0.0",
            "10.0.0.1/+8",
            "010.0.0.1/8",
            "10.0.0.1/8/8",
            "fe80::1%eth0/64",
            " 10.0.0.1/8",
            "10.0.1/8",
            "::ffff:1.2.3.4/129",
        ] {
            assert_eq!(parse_cidr(text), Err(format!("invalid CIDR address: {text}")));
        }
    }

    #[test]
    fn empty_address_is_none() {
        assert_eq!(parse_ip(""), Ok(None));
        assert_eq!(parse_ip("::ffff:1.2.3.4"), Ok(Some("1.2.3.4".parse().unwrap())));
        assert_eq!(parse_ip("1.2.3"), Err("invalid IP address: 1.2.3".into()));
    }
}
