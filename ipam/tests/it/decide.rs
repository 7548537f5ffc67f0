//! The decision as a table: last address and reservations in, next address out.

use std::collections::HashSet;
use std::convert::Infallible;
use std::net::IpAddr;

use ipam::decide::{TRIES, candidates, choose, requested};

use crate::support::{ip, set};

#[test]
fn the_next_address_is_the_first_free_one_after_the_last() {
    let wide = "10.0.0.0/24 10.0.0.10 10.0.0.12";
    let two = "10.0.0.0/24 10.0.0.10 10.0.0.11,10.0.1.0/24 10.0.1.20 10.0.1.21";
    let v6 = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffc/126";
    let high = "255.255.255.0/24 255.255.255.254 255.255.255.255";
    // set | last | taken | next
    let table = [
        (wide, "-", "", "10.0.0.10"),
        (wide, "10.0.0.10", "", "10.0.0.11"),
        (wide, "10.0.0.12", "", "10.0.0.10"),
        (wide, "10.0.0.11", "10.0.0.12", "10.0.0.10"),
        (wide, "10.0.0.11", "10.0.0.12 10.0.0.10", "10.0.0.11"),
        (wide, "10.0.0.11", "10.0.0.12 10.0.0.10 10.0.0.11", "-"),
        // A last address from elsewhere: from the start.
        (wide, "10.0.0.9", "", "10.0.0.10"),
        (wide, "10.0.0.13", "10.0.0.10", "10.0.0.11"),
        (wide, "fd00::a", "", "10.0.0.10"),
        (wide, "::ffff:10.0.0.10", "", "10.0.0.11"),
        // Through the ranges and round.
        (two, "10.0.0.11", "", "10.0.1.20"),
        (two, "10.0.1.20", "", "10.0.1.21"),
        (two, "10.0.1.21", "", "10.0.0.10"),
        (two, "10.0.1.20", "10.0.1.21 10.0.0.10", "10.0.0.11"),
        (two, "10.0.1.20", "10.0.1.21 10.0.0.10 10.0.0.11", "10.0.1.20"),
        // The gateway is left out wherever it is.
        ("10.0.0.0/29", "-", "", "10.0.0.2"),
        ("10.0.0.0/29", "10.0.0.6", "", "10.0.0.2"),
        ("10.0.0.0/29 - - 10.0.0.4", "10.0.0.3", "", "10.0.0.5"),
        ("10.0.0.0/29 - - 10.0.0.6", "10.0.0.5", "", "10.0.0.1"),
        ("10.0.0.0/29 - - 10.0.0.6", "10.0.0.6", "", "10.0.0.1"),
        ("10.0.0.0/24 10.0.0.1 10.0.0.1", "-", "", "-"),
        // Also another range's.
        ("10.0.0.0/24 10.0.0.2 10.0.0.3 10.0.1.2,10.0.1.0/24 10.0.1.2 10.0.1.3", "10.0.0.3", "", "10.0.1.3"),
        // One address only.
        ("10.0.0.0/30", "-", "", "10.0.0.2"),
        ("10.0.0.0/30", "10.0.0.2", "", "10.0.0.2"),
        ("10.0.0.0/30", "10.0.0.2", "10.0.0.2", "-"),
        // The ends of the address space.
        (high, "255.255.255.254", "", "255.255.255.255"),
        (high, "255.255.255.255", "", "255.255.255.254"),
        (v6, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", "", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        (v6, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe"),
        ("::/0 :: - fd00::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "", "::"),
        ("fd00::/64", "fd00::ffff", "", "fd00::1:0"),
    ];
    for (written, last, taken, next) in table {
        let set = set(written);
        let taken: HashSet<IpAddr> = taken.split_whitespace().map(ip).collect();
        let last_ip = (last != "-").then(|| ip(last));
        let found = candidates(&set, last_ip).find(|candidate| !taken.contains(&candidate.address));
        assert_eq!(found.map(|one| one.address), (next != "-").then(|| ip(next)), "{written} after {last}");
        let take = |address: IpAddr| Ok::<_, Infallible>(!taken.contains(&address));
        let Ok(chosen) = choose(&set, last_ip, take, || Ok(taken.clone()));
        assert_eq!(chosen, found, "{written} after {last}");
        assert!(found.is_none_or(|one| one.range.contains(one.address)));
    }
}

#[test]
fn every_address_comes_exactly_once_wherever_one_begins() {
    let set = set("10.0.0.0/29,10.0.1.0/30,10.0.2.0/29 - - 10.0.2.3");
    let mut all: Vec<IpAddr> = candidates(&set, None).map(|one| one.address).collect();
    all.sort();
    let expected =
        "10.0.0.2 10.0.0.3 10.0.0.4 10.0.0.5 10.0.0.6 10.0.1.2 10.0.2.1 10.0.2.2 10.0.2.4 10.0.2.5 10.0.2.6";
    assert_eq!(all, expected.split(' ').map(ip).collect::<Vec<_>>());
    assert_eq!(set.capacity(), all.len() as u128);
    for last in &all {
        let mut from_there: Vec<IpAddr> = candidates(&set, Some(*last)).map(|one| one.address).collect();
        assert_eq!(from_there.last(), Some(last), "the last one itself comes last");
        from_there.sort();
        assert_eq!(from_there, all);
    }
}

#[test]
fn reservations_are_listed_once_and_only_after_many_misses() {
    let set = set("10.0.0.0/16");
    // taken from .2 on | tries | listings
    for (taken, tries, listings) in [(0, 1, 0), (1, 2, 0), (63, 64, 0), (64, 65, 1), (5000, 65, 1)] {
        let first = u32::from_be_bytes([10, 0, 0, 2]);
        let held: HashSet<IpAddr> = (first..first + taken).map(|n| IpAddr::V4(n.into())).collect();
        let (mut tried, mut listed) = (0, 0);
        let Ok(chosen) = choose(
            &set,
            None,
            |address| {
                tried += 1;
                Ok::<_, Infallible>(!held.contains(&address))
            },
            || {
                listed += 1;
                Ok(held.clone())
            },
        );
        assert_eq!(chosen.map(|one| one.address), Some(IpAddr::V4((first + taken).into())));
        assert_eq!((tried, listed), (tries, listings), "{taken} taken");
        assert!(tried <= TRIES + 1);
    }
}

#[test]
fn an_address_that_the_listing_missed_is_passed_over() {
    let set = set("10.0.0.0/24");
    let first_free = ip("10.0.0.200");
    let take = |address| Ok::<_, Infallible>(address >= first_free);
    let Ok(chosen) = choose(&set, None, take, || Ok(HashSet::new()));
    assert_eq!(chosen.map(|one| one.address), Some(first_free));
}

#[test]
fn errors_of_the_caller_end_the_choice() {
    let set = set("10.0.0.0/24");
    assert_eq!(choose(&set, None, |_| Err("take"), || Ok(HashSet::new())), Err("take"));
    assert_eq!(choose(&set, None, |_| Ok(false), || Err("list")), Err("list"));
}

#[test]
fn a_requested_address_is_of_the_set_and_no_gateway() {
    let set = set("10.0.0.0/24 10.0.0.10 10.0.0.20 10.0.0.15,10.0.1.0/24");
    assert_eq!(
        requested(&set, ip("10.0.1.7")).map(|one| one.range.subnet().to_string()),
        Ok("10.0.1.0/24".into())
    );
    assert_eq!(requested(&set, ip("::ffff:10.0.0.10")).map(|one| one.address), Ok(ip("10.0.0.10")));
    let table = [
        ("10.0.0.9", "10.0.0.9 not in range set 10.0.0.10-10.0.0.20,10.0.1.1-10.0.1.254"),
        ("fd00::1", "fd00::1 not in range set 10.0.0.10-10.0.0.20,10.0.1.1-10.0.1.254"),
        ("10.0.0.15", "requested ip 10.0.0.15 is subnet's gateway"),
        ("10.0.1.1", "requested ip 10.0.1.1 is subnet's gateway"),
    ];
    for (address, expected) in table {
        assert_eq!(requested(&set, ip(address)).expect_err(address).to_string(), expected);
    }
}
