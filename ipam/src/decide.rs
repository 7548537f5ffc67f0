//! The decision which address comes next: round robin from the one reserved last, through all ranges of a set.
//!
//! Pure: what is taken comes from the caller, by trying one address or by listing all. It reserves nothing itself.

use std::collections::HashSet;
use std::net::IpAddr;

use crate::range::{Range, RangeSet, address, canonical, number};
use crate::{Error, Result};

/// How many addresses are tried one by one before all reservations are listed.
pub const TRIES: usize = 64;

/// An address that may be handed out, and the range it is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// The address.
    pub address: IpAddr,
    /// Its range, which gives prefix length and gateway.
    pub range: &'a Range,
}

/// All addresses of a set in the order in which they are to be tried, gateways left out.
///
/// The order is the reference's: from the address after the one reserved last, to the end of its range, through the
/// following ranges and round to that last one; from the start of the first range if `last` is not in the set.
/// The reference leaves out only the gateway of the range that an address is in; here every gateway of the set is.
#[derive(Debug, Clone)]
pub struct Candidates<'a> {
    set: &'a RangeSet,
    range: usize,
    next: u128,
    left: u128,
}

/// Begins after `last`.
pub fn candidates(set: &RangeSet, last: Option<IpAddr>) -> Candidates<'_> {
    let ranges = set.ranges();
    let left = ranges.iter().fold(0, |sum: u128, range| sum.saturating_add(range.len()));
    let at_last = last
        .map(canonical)
        .and_then(|last| ranges.iter().position(|range| range.contains(last)).map(|i| (i, number(last))));
    let mut all = Candidates { set, range: 0, next: number(ranges[0].first()), left };
    if let Some((range, last)) = at_last {
        (all.range, all.next) = (range, last);
        all.step();
    }
    all
}

impl Candidates<'_> {
    fn step(&mut self) {
        let ranges = self.set.ranges();
        if self.next == number(ranges[self.range].last()) {
            self.range = (self.range + 1) % ranges.len();
            self.next = number(ranges[self.range].first());
        } else {
            self.next += 1;
        }
    }
}

impl<'a> Iterator for Candidates<'a> {
    type Item = Candidate<'a>;

    fn next(&mut self) -> Option<Candidate<'a>> {
        while self.left > 0 {
            let address = address(self.next, self.set.is_ipv6());
            let range = &self.set.ranges()[self.range];
            self.left -= 1;
            self.step();
            if !self.set.is_gateway(address) {
                return Some(Candidate { address, range });
            }
        }
        None
    }
}

/// Chooses the next free address.
///
/// `take` reserves an address and says whether it could (false: it is taken). After [`TRIES`] misses `listing` is
/// asked once for all reserved addresses and only those not in it are tried, so a choice costs the same however many
/// reservations there are, unless the addresses after the last one are in use for a long stretch.
///
/// # Errors
/// Those of `take` and `listing`. No free address is `Ok(None)`.
pub fn choose<'a, E>(
    set: &'a RangeSet,
    last: Option<IpAddr>,
    mut take: impl FnMut(IpAddr) -> std::result::Result<bool, E>,
    listing: impl FnOnce() -> std::result::Result<HashSet<IpAddr>, E>,
) -> std::result::Result<Option<Candidate<'a>>, E> {
    let mut all = candidates(set, last);
    for candidate in all.by_ref().take(TRIES) {
        if take(candidate.address)? {
            return Ok(Some(candidate));
        }
    }
    if all.left == 0 {
        return Ok(None);
    }
    let taken = listing()?;
    for candidate in all.filter(|candidate| !taken.contains(&candidate.address)) {
        if take(candidate.address)? {
            return Ok(Some(candidate));
        }
    }
    Ok(None)
}

/// Checks an address that was asked for by name, whether or not it is taken.
///
/// # Errors
/// [`Error::RequestedOutside`], [`Error::RequestedGateway`].
pub fn requested(set: &RangeSet, ip: IpAddr) -> Result<Candidate<'_>> {
    let address = canonical(ip);
    let Some(range) = set.range_of(address) else {
        return Err(Error::RequestedOutside { address, set: set.to_string() });
    };
    if set.is_gateway(address) {
        return Err(Error::RequestedGateway { address });
    }
    Ok(Candidate { address, range })
}
