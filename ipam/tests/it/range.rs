//! Range arithmetic as literal tables: what a configuration becomes, and each refusal in the reference's words.

use ipam::{Range, RangeSet};

use crate::support::{conf, ip, set};

#[test]
fn a_range_is_completed_with_the_references_defaults() {
    // written | subnet, first, last, gateway, addresses that can be handed out
    let table = [
        ("10.1.2.0/24", "10.1.2.0/24 10.1.2.1 10.1.2.254 10.1.2.1 253"),
        ("10.1.2.0/30", "10.1.2.0/30 10.1.2.1 10.1.2.2 10.1.2.1 1"),
        ("10.0.0.0/8", "10.0.0.0/8 10.0.0.1 10.255.255.254 10.0.0.1 16777213"),
        ("0.0.0.0/0", "0.0.0.0/0 0.0.0.1 255.255.255.254 0.0.0.1 4294967293"),
        ("10.1.2.0/24 10.1.2.10 10.1.2.20", "10.1.2.0/24 10.1.2.10 10.1.2.20 10.1.2.1 11"),
        ("10.1.2.0/24 10.1.2.10", "10.1.2.0/24 10.1.2.10 10.1.2.254 10.1.2.1 245"),
        ("10.1.2.0/24 - 10.1.2.255", "10.1.2.0/24 10.1.2.1 10.1.2.255 10.1.2.1 254"),
        ("10.1.2.0/24 10.1.2.0 10.1.2.0", "10.1.2.0/24 10.1.2.0 10.1.2.0 10.1.2.1 1"),
        ("10.1.2.0/24 - - 10.1.2.254", "10.1.2.0/24 10.1.2.1 10.1.2.254 10.1.2.254 253"),
        ("10.1.2.0/24 - - 192.0.2.1", "10.1.2.0/24 10.1.2.1 10.1.2.254 192.0.2.1 254"),
        ("10.1.2.0/24 - - fd00::1", "10.1.2.0/24 10.1.2.1 10.1.2.254 fd00::1 254"),
        ("10.1.2.0/24 10.1.2.1 10.1.2.1", "10.1.2.0/24 10.1.2.1 10.1.2.1 10.1.2.1 0"),
        ("255.255.255.252/30", "255.255.255.252/30 255.255.255.253 255.255.255.254 255.255.255.253 1"),
        (
            "255.255.255.0/24 255.255.255.254 255.255.255.255",
            "255.255.255.0/24 255.255.255.254 255.255.255.255 255.255.255.1 2",
        ),
        (
            "10.1.2.0/24 ::ffff:10.1.2.3 ::ffff:10.1.2.5 ::ffff:10.1.2.4",
            "10.1.2.0/24 10.1.2.3 10.1.2.5 10.1.2.4 2",
        ),
        ("fd00::/64", "fd00::/64 fd00::1 fd00::ffff:ffff:ffff:ffff fd00::1 18446744073709551614"),
        ("fd00::/126", "fd00::/126 fd00::1 fd00::3 fd00::1 2"),
        ("fd00::/120 fd00::10 fd00::ff", "fd00::/120 fd00::10 fd00::ff fd00::1 240"),
        ("fd00::/64 - - fe80::1", "fd00::/64 fd00::1 fd00::ffff:ffff:ffff:ffff fe80::1 18446744073709551615"),
        (
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffc/126",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffc/126 ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffd \
             ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffd 2",
        ),
        (
            "::/0",
            "::/0 ::1 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ::1 340282366920938463463374607431768211454",
        ),
    ];
    for (written, expected) in table {
        let range = Range::resolve(&conf(written)).expect(written);
        let (subnet, first, last) = (range.subnet(), range.first(), range.last());
        let capacity = set(written).capacity();
        assert_eq!(format!("{subnet} {first} {last} {} {capacity}", range.gateway()), expected, "{written}");
        assert_eq!(range.to_string(), format!("{first}-{last}"));
    }
}

#[test]
fn every_address_of_the_whole_ipv6_space_counts_as_one_less_than_there_are() {
    assert_eq!(set("::/0 :: - 10.0.0.1").capacity(), u128::MAX);
}

#[test]
fn a_wrong_range_is_refused_in_the_references_words() {
    let table = [
        ("10.1.2.0/31", "Network 10.1.2.0/31 too small to allocate from"),
        ("10.1.2.7/31", "Network 10.1.2.7/31 too small to allocate from"),
        ("10.1.2.0/32", "Network 10.1.2.0/32 too small to allocate from"),
        ("fd00::/127", "Network fd00::/127 too small to allocate from"),
        ("fd00::1/128", "Network fd00::1/128 too small to allocate from"),
        ("::ffff:10.0.0.0/127", "Network 10.0.0.0/31 too small to allocate from"),
        ("::ffff:10.0.0.0/120", "IPNet IP and Mask version mismatch"),
        (
            "10.1.2.3/24",
            "Network has host bits set. For a subnet mask of length 24 the network address is 10.1.2.0",
        ),
        (
            "10.1.2.3/0",
            "Network has host bits set. For a subnet mask of length 0 the network address is 0.0.0.0",
        ),
        (
            "fd00::1/64",
            "Network has host bits set. For a subnet mask of length 64 the network address is fd00::",
        ),
        ("10.1.2.0/24 10.1.3.0", "RangeStart 10.1.3.0 not in network 10.1.2.0/24"),
        ("10.1.2.0/24 fd00::1", "RangeStart fd00::1 not in network 10.1.2.0/24"),
        ("10.1.2.0/24 10.1.2.9 10.1.2.5", "RangeStart 10.1.2.9 not in network 10.1.2.0/24"),
        ("10.1.2.0/24 10.1.2.9 10.1.1.5", "RangeStart 10.1.2.9 not in network 10.1.2.0/24"),
        ("10.1.2.0/24 - 10.1.3.0", "RangeEnd 10.1.3.0 not in network 10.1.2.0/24"),
        ("10.1.2.0/24 10.1.2.9 10.1.3.5", "RangeEnd 10.1.3.5 not in network 10.1.2.0/24"),
        ("10.1.2.0/24 - 10.1.2.0", "RangeEnd 10.1.2.0 not in network 10.1.2.0/24"),
        ("10.1.2.0/24 - fd00::1", "RangeEnd fd00::1 not in network 10.1.2.0/24"),
        ("fd00::/64 10.1.2.3", "RangeStart 10.1.2.3 not in network fd00::/64"),
        ("fd00::/64 - fd00:0:0:1::", "RangeEnd fd00:0:0:1:: not in network fd00::/64"),
    ];
    for (written, expected) in table {
        let err = Range::resolve(&conf(written)).expect_err(written);
        assert_eq!(err.to_string(), expected, "{written}");
        assert!(err.is_invalid());
    }
}

#[test]
fn a_set_is_of_one_family_and_without_overlap() {
    let table = [
        ("", "empty range set"),
        ("10.0.0.0/24,fd00::/64", "mixed address families"),
        ("10.0.0.0/24,10.0.0.0/24", "subnets 10.0.0.1-10.0.0.254 and 10.0.0.1-10.0.0.254 overlap"),
        ("10.0.0.0/24,10.0.0.0/25", "subnets 10.0.0.1-10.0.0.254 and 10.0.0.1-10.0.0.126 overlap"),
        ("10.0.0.0/25,10.0.0.0/24", "subnets 10.0.0.1-10.0.0.126 and 10.0.0.1-10.0.0.254 overlap"),
        (
            "10.0.0.0/24 - 10.0.0.9,10.0.1.0/24,10.0.0.0/24 10.0.0.9",
            "subnets 10.0.0.1-10.0.0.9 and 10.0.0.9-10.0.0.254 overlap",
        ),
        ("10.0.0.0/24,10.0.1.0/31", "Network 10.0.1.0/31 too small to allocate from"),
    ];
    for (written, expected) in table {
        let confs: Vec<_> = written.split_terminator(',').map(conf).collect();
        assert_eq!(RangeSet::resolve(&confs).expect_err(written).to_string(), expected, "{written}");
    }
    let set = set("10.0.0.0/24 - 10.0.0.9,10.0.0.0/24 10.0.0.20");
    assert_eq!(set.to_string(), "10.0.0.1-10.0.0.9,10.0.0.20-10.0.0.254");
    assert!(set.contains(ip("10.0.0.9")) && set.contains(ip("::ffff:10.0.0.20")));
    assert!(!set.contains(ip("10.0.0.10")) && !set.contains(ip("fd00::1")));
    assert!(set.is_gateway(ip("10.0.0.1")) && !set.is_ipv6());
    assert_eq!(set.capacity(), 8 + 235);
}

#[test]
fn sets_are_checked_against_each_other() {
    let resolve = |sets: &[&str]| {
        let sets: Vec<Vec<_>> =
            sets.iter().map(|set| set.split_terminator(',').map(conf).collect()).collect();
        RangeSet::resolve_all(&sets)
    };
    let table: [(&[&str], &str); 6] = [
        (&[], "no IP ranges specified"),
        (&["10.0.0.0/24", ""], "invalid range set 1: empty range set"),
        (
            &["10.0.0.0/24", "10.0.1.0/32"],
            "invalid range set 1: Network 10.0.1.0/32 too small to allocate from",
        ),
        (&["10.0.0.0/24", "10.0.0.0/25"], "range set 0 overlaps with 1"),
        (&["fd00::/64", "10.0.0.0/24", "10.0.1.0/24,10.0.0.0/24 10.0.0.200"], "range set 1 overlaps with 2"),
        (&["10.0.0.0/24 - 10.0.0.9", "10.0.0.0/24 10.0.0.9"], "range set 0 overlaps with 1"),
    ];
    for (sets, expected) in table {
        let err = resolve(sets).expect_err("wrong sets");
        assert_eq!(err.to_string(), expected);
        assert!(err.is_invalid());
    }
    let sets =
        resolve(&["10.0.0.0/24 - 10.0.0.9", "fd00::/64", "10.0.0.0/24 10.0.0.10"]).expect("right sets");
    assert_eq!(sets.iter().map(RangeSet::is_ipv6).collect::<Vec<_>>(), [false, true, false]);
}
