//! The crate's error: the reference's sentence where it has one, else what was tried on which path and why not.
//!
//! Callers ask by method (`is_exhausted`, `errno`), never by text. It holds no CNI error code: which code a sentence
//! gets is the plugin's business.

use std::net::IpAddr;
use std::path::PathBuf;

use nix::errno::Errno;

/// The result of every fallible function of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a configuration is refused, an address cannot be had or a file cannot be changed.
///
/// The sentences of the first two groups are the reference plugin's own, so that people and programs that know them
/// find them again; the third group names the path and gives the kernel's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Fewer than two host bits.
    #[error("Network {subnet} too small to allocate from")]
    TooSmall {
        /// The subnet as it was written.
        subnet: String,
    },
    /// The address of a subnet has bits set beyond its prefix.
    #[error(
        "Network has host bits set. For a subnet mask of length {prefix} the network address is {network}"
    )]
    HostBits {
        /// The prefix length.
        prefix: u8,
        /// The address that would be right.
        network: IpAddr,
    },
    /// An IPv4 subnet written as an IPv4-mapped IPv6 one.
    #[error("IPNet IP and Mask version mismatch")]
    Mapped,
    /// `rangeStart` lies outside the subnet or behind `rangeEnd`.
    #[error("RangeStart {address} not in network {subnet}")]
    StartOutside {
        /// The address.
        address: IpAddr,
        /// The subnet.
        subnet: String,
    },
    /// `rangeEnd` lies outside the subnet or before the default start.
    #[error("RangeEnd {address} not in network {subnet}")]
    EndOutside {
        /// The address.
        address: IpAddr,
        /// The subnet.
        subnet: String,
    },
    /// A range set without a range.
    #[error("empty range set")]
    EmptySet,
    /// IPv4 and IPv6 in one range set.
    #[error("mixed address families")]
    MixedFamilies,
    /// Two ranges of one set share addresses.
    #[error("subnets {first} and {second} overlap")]
    RangesOverlap {
        /// The earlier range, `a-b`.
        first: String,
        /// The later range, `c-d`.
        second: String,
    },
    /// Two range sets share addresses.
    #[error("range set {first} overlaps with {second}")]
    SetsOverlap {
        /// The index of the earlier set.
        first: usize,
        /// The index of the later set.
        second: usize,
    },
    /// A configuration without any range set.
    #[error("no IP ranges specified")]
    NoRanges,
    /// One of several range sets is wrong.
    #[error("invalid range set {index}: {source}")]
    InvalidSet {
        /// The index of the set.
        index: usize,
        /// What is wrong with it.
        source: Box<Error>,
    },

    /// Every address of the set is reserved.
    #[error("no IP addresses available in range set: {set}")]
    Exhausted {
        /// The set, `a-b,c-d`.
        set: String,
    },
    /// The owner has an address in this set already.
    #[error("{address} has been allocated to {container_id}, duplicate allocation is not allowed")]
    Duplicate {
        /// The address.
        address: IpAddr,
        /// The owner's container id.
        container_id: String,
    },
    /// The requested address is not in the set.
    #[error("{address} not in range set {set}")]
    RequestedOutside {
        /// The address.
        address: IpAddr,
        /// The set, `a-b,c-d`.
        set: String,
    },
    /// The requested address is a gateway of the set.
    #[error("requested ip {address} is subnet's gateway")]
    RequestedGateway {
        /// The address.
        address: IpAddr,
    },
    /// The requested address is reserved.
    #[error("requested IP address {address} is not available in range set {set}")]
    RequestedTaken {
        /// The address.
        address: IpAddr,
        /// The set, `a-b,c-d`.
        set: String,
    },
    /// Requested addresses that no set could give.
    #[error("failed to allocate all requested IPs: {}", join(addresses, " "))]
    RequestsLeft {
        /// The addresses, in the order of the request.
        addresses: Vec<IpAddr>,
    },
    /// One of several sets could not give an address; what the others had given is released.
    #[error("failed to allocate for range {index}: {source}")]
    SetFailed {
        /// The index of the set.
        index: usize,
        /// Why.
        source: Box<Error>,
    },

    /// A network name that cannot be a directory's name, or that begins with a dot.
    #[error("network name {name:?} cannot name a directory")]
    NetworkName {
        /// The name.
        name: String,
    },
    /// The kernel refused an operation on a file.
    #[error("{action} {path:?}: {} (os error {})", words(*.errno), *.errno as i32)]
    Io {
        /// What was tried: `create reservation`.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// Some reservations could not be removed; the others are.
    #[error("{}", join(errors, "; "))]
    Incomplete {
        /// The addresses that are free now.
        removed: Vec<IpAddr>,
        /// What stood in the way of each other one; never empty.
        errors: Vec<Error>,
    },
}

impl Error {
    /// A set has no free address left.
    pub fn is_exhausted(&self) -> bool {
        match self {
            Error::Exhausted { .. } => true,
            Error::SetFailed { source, .. } => source.is_exhausted(),
            _ => false,
        }
    }

    /// The owner has an address already: an earlier ADD was never followed by DEL.
    pub fn is_duplicate(&self) -> bool {
        match self {
            Error::Duplicate { .. } => true,
            Error::SetFailed { source, .. } => source.is_duplicate(),
            _ => false,
        }
    }

    /// The configuration is wrong, whatever the state of the store.
    pub fn is_invalid(&self) -> bool {
        use Error::*;
        matches!(
            self,
            TooSmall { .. }
                | HostBits { .. }
                | Mapped
                | StartOutside { .. }
                | EndOutside { .. }
                | EmptySet
                | MixedFamilies
                | RangesOverlap { .. }
                | SetsOverlap { .. }
                | NoRanges
                | InvalidSet { .. }
                | NetworkName { .. }
        )
    }

    /// The kernel's error number, when the kernel refused something (of several refusals the first).
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::Io { errno, .. } => Some(*errno as i32),
            Error::SetFailed { source, .. } | Error::InvalidSet { source, .. } => source.errno(),
            Error::Incomplete { errors, .. } => errors.iter().find_map(Error::errno),
            _ => None,
        }
    }
}

/// The kernel's words, beginning in lower case unless they begin with an abbreviation (`I/O error`).
fn words(errno: Errno) -> String {
    let words = errno.desc();
    match words.as_bytes() {
        [first, second, ..] if second.is_ascii_lowercase() => {
            format!("{}{}", first.to_ascii_lowercase() as char, &words[1..])
        }
        _ => words.to_owned(),
    }
}

fn join<T: ToString>(items: &[T], separator: &str) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(separator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_names_the_path_and_gives_the_kernels_words() {
        let io = |errno| Error::Io { action: "create reservation", path: "/d/n/10.0.0.2".into(), errno };
        assert_eq!(
            io(Errno::ENOSPC).to_string(),
            "create reservation \"/d/n/10.0.0.2\": no space left on device (os error 28)"
        );
        assert_eq!(
            io(Errno::EIO).to_string(),
            "create reservation \"/d/n/10.0.0.2\": I/O error (os error 5)"
        );
    }

    #[test]
    fn questions_look_through_the_set_that_failed() {
        let set = "10.0.0.1-10.0.0.2".to_owned();
        let full = Error::Exhausted { set };
        let inner = Error::SetFailed { index: 1, source: Box::new(full.clone()) };
        assert!(full.is_exhausted() && inner.is_exhausted());
        assert!(!inner.is_duplicate() && !inner.is_invalid() && inner.errno().is_none());
        assert_eq!(
            inner.to_string(),
            "failed to allocate for range 1: no IP addresses available in range set: 10.0.0.1-10.0.0.2"
        );
        let io = Error::Io { action: "remove reservation", path: "/d".into(), errno: Errno::EROFS };
        let many = Error::Incomplete { removed: vec![], errors: vec![Error::EmptySet, io] };
        assert_eq!(many.errno(), Some(Errno::EROFS as i32));
        assert_eq!(
            many.to_string(),
            "empty range set; remove reservation \"/d\": read-only file system (os error 30)"
        );
    }
}
