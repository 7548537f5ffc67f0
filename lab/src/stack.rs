//! IP versions: which of them a lab has, and what it has of something for each.
//!
//! A lab has IPv4, IPv6 or both. What there is once for each version (a node's address, its PodCIDR, all PodCIDRs) is an
//! [`Each`]: never nothing, and where one of the two has to do, the first.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnetwork::IpNetwork;
use kernel::Family;
use serde::{Deserialize, Serialize};

/// The IP versions of a lab, in the words of kind's `ipFamily`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum IpFamily {
    /// IPv4 only.
    #[default]
    Ipv4,
    /// IPv6 only.
    Ipv6,
    /// Both; IPv4 is the first.
    Dual,
}

/// One of the two versions, as `ipv4` or `ipv6`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OneFamily {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl From<OneFamily> for Family {
    fn from(one: OneFamily) -> Family {
        Family::v6_if(one == OneFamily::Ipv6)
    }
}

impl From<Family> for OneFamily {
    fn from(family: Family) -> OneFamily {
        match family {
            Family::V4 => OneFamily::Ipv4,
            Family::V6 => OneFamily::Ipv6,
        }
    }
}

/// `IPv4` or `IPv6`.
pub fn word(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

/// 127.0.0.1 or ::1.
pub fn localhost(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::LOCALHOST.into(),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    }
}

/// Something of an IP version.
pub trait Versioned {
    /// Which one.
    fn family(&self) -> Family;
}

impl Versioned for IpAddr {
    fn family(&self) -> Family {
        Family::of(*self)
    }
}

impl Versioned for IpNetwork {
    fn family(&self) -> Family {
        Family::of(self.ip())
    }
}

/// One thing for each IP version of a lab. Written with a comma, as Kubernetes' `--cluster-cidr` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Each<T> {
    /// The one that counts where one has to do.
    pub first: T,
    /// That of the other version, where the lab has both.
    pub second: Option<T>,
}

impl<T: Copy + Versioned> Each<T> {
    /// A thing for one version only.
    pub const fn one(first: T) -> Each<T> {
        Each { first, second: None }
    }

    /// The first, then the second.
    pub fn iter(&self) -> impl Iterator<Item = T> + use<T> {
        [Some(self.first), self.second].into_iter().flatten()
    }

    /// That of an IP version.
    pub fn of(&self, family: Family) -> Option<T> {
        self.iter().find(|one| one.family() == family)
    }

    /// The versions that there are.
    pub fn families(&self) -> impl Iterator<Item = Family> + use<T> {
        self.iter().map(|one| one.family())
    }

    /// What comes of each.
    pub fn map<U>(&self, change: impl Fn(T) -> U) -> Each<U> {
        Each { first: change(self.first), second: self.second.map(change) }
    }

    /// It is one of them.
    pub fn has(&self, wanted: &T) -> bool
    where
        T: PartialEq,
    {
        self.iter().any(|one| one == *wanted)
    }
}

impl<T: fmt::Display> fmt::Display for Each<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        self.second.as_ref().map_or(Ok(()), |second| write!(f, ",{second}"))
    }
}

impl FromStr for Each<IpNetwork> {
    type Err = String;

    /// `10.244.0.0/16`, or one for each version with a comma between; IPv4 becomes the first.
    fn from_str(text: &str) -> Result<Each<IpNetwork>, String> {
        let net = |part: &str| part.trim().parse::<IpNetwork>().map_err(|err| format!("{part:?}: {err}"));
        let Some((one, other)) = text.split_once(',') else { return Ok(Each::one(net(text)?)) };
        let (one, other) = (net(one)?, net(other)?);
        match (one.family(), other.family()) {
            (Family::V4, Family::V6) => Ok(Each { first: one, second: Some(other) }),
            (Family::V6, Family::V4) => Ok(Each { first: other, second: Some(one) }),
            (family, _) => Err(format!("{one} and {other} are both {}", word(family))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_of_both_versions_are_read_in_either_order() {
        let read = |text: &str| text.parse::<Each<IpNetwork>>();
        let both = read("fd00:10:244::/56,10.244.0.0/16").unwrap();
        assert_eq!(both.to_string(), "10.244.0.0/16,fd00:10:244::/56");
        assert_eq!(both, read("10.244.0.0/16, fd00:10:244::/56").unwrap());
        assert_eq!(both.families().collect::<Vec<_>>(), [Family::V4, Family::V6]);
        assert_eq!(both.of(Family::V6).map(|net| net.to_string()).as_deref(), Some("fd00:10:244::/56"));
        let one = read("fd00:1::/56").unwrap();
        assert_eq!((one.to_string().as_str(), one.of(Family::V4)), ("fd00:1::/56", None));
        for (text, words) in [
            ("10.1.0.0/16,10.2.0.0/16", "10.1.0.0/16 and 10.2.0.0/16 are both IPv4"),
            ("10.1.0.0/16,", "\"\""),
            ("10.1.0.0/16,fd00::/56,fd01::/56", "fd00::/56,fd01::/56"),
            ("all", "\"all\""),
        ] {
            assert!(read(text).unwrap_err().contains(words), "{text}");
        }
    }
}
