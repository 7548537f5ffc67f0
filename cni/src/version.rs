//! The released versions of the CNI specification, and the comparison of version texts.
//!
//! A version is supported by exact text only: `0.3` and `0.3.0` compare as equal, but only the latter is
//! in any plugin's list. Pre-release suffixes are not known here, as they are not in the specification.

use std::cmp::Ordering;
use std::fmt;

/// A version of the CNI specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// 0.1.0; also what a configuration without `cniVersion` means.
    V0_1_0,
    /// 0.2.0: added VERSION.
    V0_2_0,
    /// 0.3.0: lists of plugins, results with several addresses.
    V0_3_0,
    /// 0.3.1.
    V0_3_1,
    /// 0.4.0: added CHECK, and `prevResult` for DEL.
    V0_4_0,
    /// 1.0.0: addresses without `version`.
    V1_0_0,
    /// 1.1.0: added GC and STATUS, more fields of routes and interfaces.
    V1_1_0,
}

impl Version {
    /// Every version, oldest first.
    pub const ALL: &'static [Version] = &[
        Version::V0_1_0,
        Version::V0_2_0,
        Version::V0_3_0,
        Version::V0_3_1,
        Version::V0_4_0,
        Version::V1_0_0,
        Version::V1_1_0,
    ];

    /// The newest version this library speaks.
    pub const CURRENT: Version = Version::V1_1_0;

    /// The text as it stands in `cniVersion`.
    pub fn as_str(self) -> &'static str {
        match self {
            Version::V0_1_0 => "0.1.0",
            Version::V0_2_0 => "0.2.0",
            Version::V0_3_0 => "0.3.0",
            Version::V0_3_1 => "0.3.1",
            Version::V0_4_0 => "0.4.0",
            Version::V1_0_0 => "1.0.0",
            Version::V1_1_0 => "1.1.0",
        }
    }

    /// The version with exactly this text. The empty text is no version; [`Version::of_config`] takes it.
    pub fn parse(text: &str) -> Option<Version> {
        Version::ALL.iter().copied().find(|version| version.as_str() == text)
    }

    /// The version that `cniVersion` of a configuration or result means: as [`Version::parse`], and the
    /// empty text is 0.1.0.
    pub fn of_config(text: &str) -> Option<Version> {
        if text.is_empty() { Some(Version::V0_1_0) } else { Version::parse(text) }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Splits a version text into its three numbers; missing ones are 0, the empty text is 0.1.0.
///
/// # Errors
/// More than three parts, or a part that is no number; the text names the version.
pub(crate) fn numbers(text: &str) -> Result<[u64; 3], String> {
    if text.is_empty() {
        return Ok([0, 1, 0]);
    }
    let mut out = [0; 3];
    for (position, part) in text.split('.').enumerate() {
        let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        match (out.get_mut(position), part.parse()) {
            (Some(slot), Ok(number)) if digits => *slot = number,
            (None, _) => return Err(format!("version {text:?} has more than three parts")),
            _ => return Err(format!("version {text:?}: part {part:?} is no number")),
        }
    }
    Ok(out)
}

/// Compares two version texts by their numbers.
///
/// # Errors
/// One of them is no version, see [`numbers`].
pub(crate) fn compare(a: &str, b: &str) -> Result<Ordering, String> {
    Ok(numbers(a)?.cmp(&numbers(b)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_parses_from_its_own_text_only() {
        for &version in Version::ALL {
            assert_eq!(Version::parse(version.as_str()), Some(version));
        }
        for text in ["", "0.3", "v1.0.0", "1.0.0 ", "1.2.0"] {
            assert_eq!(Version::parse(text), None, "{text:?}");
        }
        assert_eq!(Version::of_config(""), Some(Version::V0_1_0));
        assert_eq!(Version::of_config("1.1.0"), Some(Version::V1_1_0));
        assert!(Version::ALL.is_sorted());
    }

    #[test]
    fn versions_compare_by_number() {
        assert_eq!(compare("0.10.0", "0.9.0"), Ok(Ordering::Greater));
        assert_eq!(compare("1", "1.0.0"), Ok(Ordering::Equal));
        assert_eq!(compare("", "0.1"), Ok(Ordering::Equal));
        for bad in ["1.2.3.4", "1.x", "1..2", "+1", "-1.0.0", "99999999999999999999999", "1.0.0-rc1"] {
            assert!(compare(bad, "1.0.0").is_err(), "{bad:?}");
        }
    }
}
