//! Keys, ranges and reservations of `host-local`: `facts/upstream.md` 2.10.

use std::fs;

use anyhow::Result;
use podnet_tests::World;
use podnet_tests::world::NETWORK;

use super::{Bad, Reference, conf};

/// `{"ipam":{"type":"host-local","dataDir":…, …}}`
fn ipam(rest: &str) -> String {
    format!(
        r#"{{"ipam":{{"type":"host-local","dataDir":"@DATA@"{}{rest}}}}}"#,
        if rest.is_empty() { "" } else { "," }
    )
}

fn local(name: &str, rest: &str) -> Bad {
    conf("host-local", name, ipam(rest))
}

pub(super) fn cases() -> Vec<Bad> {
    let mut cases = ranges();
    cases.extend(types());
    cases.extend(reservations());
    cases
}

fn ranges() -> Vec<Bad> {
    let mut cases = vec![
        conf("host-local", "no ipam", "{}").says(7, "IPAM config missing 'ipam' key"),
        conf("host-local", "null for ipam", r#"{"ipam":null}"#).says(7, "IPAM config missing 'ipam' key"),
        local("no range", "").says(7, "no IP ranges specified"),
        local("an empty list of sets", r#""ranges":[]"#).says(7, "no IP ranges specified"),
        local("an empty set", r#""ranges":[[]]"#).says(7, "invalid range set 0: empty range set"),
        local("a second set that is empty", r#""subnet":"10.1.2.0/24","ranges":[[]]"#)
            .says(7, "invalid range set 1: empty range set"),
        local("start before the subnet", r#""subnet":"10.1.2.0/24","rangeStart":"10.1.1.255""#)
            .says(7, "RangeStart 10.1.1.255 not in network 10.1.2.0/24"),
        local("start after the subnet", r#""subnet":"10.1.2.0/24","rangeStart":"10.1.3.0""#)
            .says(7, "RangeStart 10.1.3.0 not in network 10.1.2.0/24"),
        local("end after the subnet", r#""subnet":"10.1.2.0/24","rangeEnd":"10.1.3.1""#)
            .says(7, "RangeEnd 10.1.3.1 not in network 10.1.2.0/24"),
        local("end before start", r#""subnet":"10.1.2.0/24","rangeStart":"10.1.2.20","rangeEnd":"10.1.2.10""#)
            .says(7, "RangeStart 10.1.2.20 not in network 10.1.2.0/24"),
        local("start of the other family", r#""subnet":"10.1.2.0/24","rangeStart":"2001:db8::1""#)
            .says(7, "RangeStart 2001:db8::1 not in network 10.1.2.0/24"),
        local("families mixed in a set", r#""ranges":[[{"subnet":"10.1.2.0/24"},{"subnet":"2001:db8::/64"}]]"#)
            .says(7, "mixed address families"),
        local("overlap in a set", r#""ranges":[[{"subnet":"10.1.0.0/16"},{"subnet":"10.1.2.0/24"}]]"#)
            .says(7, "overlap"),
        local("overlap between sets", r#""ranges":[[{"subnet":"10.1.0.0/16"}],[{"subnet":"10.1.2.0/24"}]]"#)
            .says(7, "range set 0 overlaps with 1"),
        local("overlap of range and flat range", r#""subnet":"10.1.2.0/24","ranges":[[{"subnet":"10.1.2.0/25"}]]"#)
            .says(7, "range set 0 overlaps with 1"),
        local("two addresses of a family with version 0.2.0", r#""subnet":"10.1.2.0/24","ranges":[[{"subnet":"10.1.3.0/24"}]]"#)
            .version("0.2.0")
            .says(7, "CNI version 0.2.0 does not support more than 1 address per family"),
        conf(
            "host-local",
            "a bad range of runtimeConfig",
            r#"{"runtimeConfig":{"ipRanges":[[{"subnet":"10.1.2.0/32"}]]},"ipam":{"type":"host-local","dataDir":"@DATA@"}}"#,
        )
        .says(7, "too small to allocate from"),
        conf("bridge", "a bad range through bridge", ipam(r#""subnet":"10.1.2.0/31""#)).says(7, "too small to allocate from"),
    ];
    for subnet in ["10.1.2.0/31", "10.1.2.1/32", "2001:db8::/127", "2001:db8::1/128"] {
        cases.push(
            local(&format!("subnet {subnet}"), &format!(r#""subnet":"{subnet}""#))
                .says(7, format!("Network {subnet} too small to allocate from")),
        );
    }
    for (subnet, says) in [
        (
            "10.1.2.5/24",
            "Network has host bits set. For a subnet mask of length 24 the network address is 10.1.2.0",
        ),
        (
            "2001:db8::1/64",
            "Network has host bits set. For a subnet mask of length 64 the network address is 2001:db8::",
        ),
    ] {
        cases.push(local(&format!("subnet {subnet}"), &format!(r#""subnet":"{subnet}""#)).says(7, says));
    }
    let words = |bad: Bad| if bad.reference == Reference::Same { bad.same_words() } else { bad };
    cases.into_iter().map(words).collect()
}

fn types() -> Vec<Bad> {
    let mut cases = Vec::new();
    for (key, value, says) in [
        ("subnet", "5", "subnet"),
        ("subnet", "\"nonsense\"", "nonsense"),
        ("subnet", "\"10.1.2.0\"", "10.1.2.0"),
        ("subnet", "\"10.1.2.0/33\"", "10.1.2.0/33"),
        ("subnet", "\"10.1.2.0/-1\"", "10.1.2.0/-1"),
        ("subnet", "\"10.1.2.0.0/24\"", "10.1.2.0.0/24"),
        ("subnet", "\"2001:db8::/129\"", "2001:db8::/129"),
        ("subnet", "[\"10.1.2.0/24\"]", "subnet"),
        ("rangeStart", "\"nonsense\"", "nonsense"),
        ("rangeStart", "5", "rangeStart"),
        ("rangeEnd", "\"10.1.2.256\"", "10.1.2.256"),
        ("rangeEnd", "{}", "rangeEnd"),
        ("gateway", "\"10.1.2\"", "10.1.2"),
        ("gateway", "true", "gateway"),
        ("ranges", "5", "ranges"),
        ("ranges", "[5]", "ranges"),
        ("ranges", "[{\"subnet\":\"10.1.3.0/24\"}]", "ranges"),
        ("ranges", "[[5]]", "ranges"),
        ("ranges", "[[{\"subnet\":5}]]", "subnet"),
        ("routes", "\"0.0.0.0/0\"", "routes"),
        ("routes", "[\"0.0.0.0/0\"]", "routes"),
        ("routes", "[{\"dst\":5}]", "dst"),
        ("routes", "[{\"dst\":\"nonsense\"}]", "nonsense"),
        ("routes", "[{\"dst\":\"10.0.0.0/8\",\"gw\":\"10.1.2.300\"}]", "10.1.2.300"),
        ("resolvConf", "5", "resolvConf"),
    ] {
        let rest = if key == "subnet" {
            format!("{key:?}:{value}")
        } else {
            format!(r#""subnet":"10.1.2.0/24",{key:?}:{value}"#)
        };
        // A text that is no address is a wrong value, anything but a text is a wrong type; a route decodes as a whole.
        let code = if value.starts_with('"') && key != "routes" { 7 } else { 6 };
        cases.push(local(&format!("{value} for {key}"), &rest).says(code, says).other_words());
    }
    for (name, text) in [
        ("dataDir is a number", r#"{"ipam":{"type":"host-local","subnet":"10.1.2.0/24","dataDir":5}}"#),
        (
            "dataDir is an array",
            r#"{"ipam":{"type":"host-local","subnet":"10.1.2.0/24","dataDir":["@DATA@"]}}"#,
        ),
    ] {
        cases.push(conf("host-local", name, text).says(6, "dataDir").other_words());
    }
    for (key, value) in [("ipRanges", "5"), ("ipRanges", "[{}]"), ("ips", "\"10.1.2.3\""), ("ips", "[5]")] {
        let text = format!(
            r#"{{"runtimeConfig":{{{key:?}:{value}}},"ipam":{{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}}}"#
        );
        cases.push(
            conf("host-local", format!("{value} for {key} of runtimeConfig"), text)
                .says(6, key)
                .other_words(),
        );
    }
    cases.push(
        local("a route without a destination", r#""subnet":"10.1.2.0/24","routes":[{"gw":"10.1.2.1"}]"#)
            .says(6, "dst")
            .ours_alone(),
    );
    cases.push(
        local("resolvConf is missing", r#""subnet":"10.1.2.0/24","resolvConf":"@DIR@/none""#)
            .says(5, "@DIR@/none")
            .other_words(),
    );
    cases.push(
        local("resolvConf is a directory", r#""subnet":"10.1.2.0/24","resolvConf":"@DIR@""#)
            .says(5, "s a directory")
            .same_words(),
    );
    cases
}

fn hold(world: &World, ips: &[&str], content: &str) -> Result<()> {
    let dir = world.data().join(NETWORK);
    fs::create_dir_all(&dir)?;
    for ip in ips {
        fs::write(dir.join(ip), content)?;
    }
    Ok(())
}

fn reservations() -> Vec<Bad> {
    let small = r#""subnet":"10.1.2.0/30""#;
    vec![
        local("the range is exhausted", small)
            .prepare(|world| hold(world, &["10.1.2.2"], "other\r\neth0"))
            .says(
                999,
                "failed to allocate for range 0: no IP addresses available in range set: 10.1.2.1-10.1.2.2",
            ),
        local(
            "the second range is exhausted",
            r#""subnet":"10.1.3.0/24","ranges":[[{"subnet":"10.1.2.0/30"}]]"#,
        )
        .prepare(|world| hold(world, &["10.1.2.2"], "other\r\neth0"))
        .says(
            999,
            "failed to allocate for range 1: no IP addresses available in range set: 10.1.2.1-10.1.2.2",
        ),
        local(
            "a pool of two ranges is exhausted",
            r#""ranges":[[{"subnet":"10.1.2.0/30"},{"subnet":"10.1.3.0/30"}]]"#,
        )
        .prepare(|world| hold(world, &["10.1.2.2", "10.1.3.2"], "other\r\neth0"))
        .says(999, "no IP addresses available in range set: 10.1.2.1-10.1.2.2,10.1.3.1-10.1.3.2"),
        local(
            "an IPv6 range is exhausted",
            r#""subnet":"2001:db8::/126","rangeStart":"2001:db8::2","rangeEnd":"2001:db8::2""#,
        )
        .prepare(|world| hold(world, &["2001:db8::2"], "other\r\neth0"))
        .says(999, "no IP addresses available in range set: 2001:db8::2-2001:db8::2"),
        local(
            "the only address is the gateway",
            r#""subnet":"10.1.2.0/24","rangeStart":"10.1.2.1","rangeEnd":"10.1.2.1""#,
        )
        .says(999, "no IP addresses available in range set: 10.1.2.1-10.1.2.1"),
        local("the container has an address already", r#""subnet":"10.1.2.0/24""#)
            .prepare(|world| hold(world, &["10.1.2.7"], "c0\r\neth0"))
            .says(999, "10.1.2.7 has been allocated to c0, duplicate allocation is not allowed"),
        local("the container has an address of the old form", r#""subnet":"10.1.2.0/24""#)
            .prepare(|world| hold(world, &["10.1.2.7"], "c0"))
            .says(999, "10.1.2.7 has been allocated to c0, duplicate allocation is not allowed"),
        conf("bridge", "the range is exhausted", ipam(small))
            .prepare(|world| hold(world, &["10.1.2.2"], "other\r\neth0"))
            .says(999, "no IP addresses available in range set: 10.1.2.1-10.1.2.2"),
        local("CHECK without a reservation", r#""subnet":"10.1.2.0/24""#)
            .verb("CHECK")
            .says(999, "host-local: Failed to find address added by container c0"),
        local("CHECK of another's reservation", r#""subnet":"10.1.2.0/24""#)
            .verb("CHECK")
            .prepare(|world| hold(world, &["10.1.2.7"], "other\r\neth0"))
            .says(999, "host-local: Failed to find address added by container c0"),
        local("STATUS of an exhausted range", small)
            .verb("STATUS")
            .version("1.1.0")
            .prepare(|world| hold(world, &["10.1.2.2"], "other\r\neth0"))
            .says(50, "no IP addresses available in range set: 10.1.2.1-10.1.2.2")
            .other_words(),
        conf("bridge", "STATUS of an exhausted range", ipam(small))
            .verb("STATUS")
            .version("1.1.0")
            .prepare(|world| hold(world, &["10.1.2.2"], "other\r\neth0"))
            .says(50, "no IP addresses available in range set: 10.1.2.1-10.1.2.2")
            .other_words(),
    ]
}
