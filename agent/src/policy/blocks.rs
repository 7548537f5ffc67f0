//! Ranges of addresses and of ports as arithmetic: unions and differences of intervals.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

/// First and last number of an interval.
pub type Interval = (u128, u128);

/// The intervals sorted, with those that meet or overlap made one. What ends before it begins holds nothing.
pub fn union(mut intervals: Vec<Interval>) -> Vec<Interval> {
    intervals.retain(|(first, last)| first <= last);
    intervals.sort_unstable();
    let mut all: Vec<Interval> = Vec::with_capacity(intervals.len());
    for (first, last) in intervals {
        match all.last_mut() {
            Some(before) if before.1.checked_add(1).is_none_or(|next| first <= next) => {
                before.1 = before.1.max(last);
            }
            _ => all.push((first, last)),
        }
    }
    all
}

/// What of `from` is in none of `holes`.
pub fn difference(from: Interval, holes: Vec<Interval>) -> Vec<Interval> {
    let (mut first, last) = from;
    let mut left = Vec::new();
    for (start, end) in union(holes) {
        if end < first || start > last {
            continue;
        }
        if start > first {
            left.push((first, start - 1));
        }
        match end.checked_add(1) {
            Some(next) if next <= last => first = next,
            _ => return left,
        }
    }
    left.push((first, last));
    left
}

/// The addresses of one family in any of the blocks, each with its exceptions, as a union of intervals.
pub fn of_blocks<'a>(
    blocks: impl IntoIterator<Item = (&'a IpNetwork, &'a [IpNetwork])>,
    ipv6: bool,
) -> Vec<Interval> {
    let of_family = |net: &&IpNetwork| net.is_ipv6() == ipv6;
    let all = blocks.into_iter().filter(|(cidr, _)| of_family(cidr)).flat_map(|(cidr, except)| {
        difference(of_network(cidr), except.iter().filter(of_family).map(of_network).collect())
    });
    union(all.collect())
}

fn of_network(net: &IpNetwork) -> Interval {
    (number(net.network()), number(net.broadcast()))
}

/// An address as a number.
pub fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(it) => u32::from(it).into(),
        IpAddr::V6(it) => it.into(),
    }
}

/// The address with this number. A number that no IPv4 address has is taken for the last of them.
pub fn address(number: u128, ipv6: bool) -> IpAddr {
    if ipv6 {
        Ipv6Addr::from(number).into()
    } else {
        Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).into()
    }
}
