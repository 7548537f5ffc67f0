//! Keys and values of `bridge`, and a node or pod that is in its way.

use super::{Bad, conf};

const IPAM: &str = r#"{"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#;
const GATEWAY: &str =
    r#"{"isGateway":true,"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#;

pub(super) fn cases() -> Vec<Bad> {
    let mut cases = types();
    cases.extend(values());
    cases.extend(node());
    cases.extend(previous());
    cases
}

/// Each key with JSON of another type.
fn types() -> Vec<Bad> {
    let mut cases = Vec::new();
    for (key, values) in [
        ("bridge", &["1", "true", "[]", "{}"][..]),
        ("isGateway", &["\"true\"", "1", "[]"]),
        ("isDefaultGateway", &["\"true\"", "0"]),
        ("forceAddress", &["\"true\"", "{}"]),
        ("ipMasq", &["\"true\"", "1"]),
        ("mtu", &["\"1500\"", "true", "1500.5", "1e30", "[1500]"]),
        ("hairpinMode", &["\"on\"", "1"]),
        ("promiscMode", &["\"on\"", "[]"]),
        ("vlan", &["\"5\"", "5.5", "{}"]),
        ("macspoofchk", &["\"x\"", "1"]),
        ("enabledad", &["\"x\"", "1"]),
        (
            "dns",
            &["\"10.0.0.1\"", "[]", "{\"nameservers\":\"10.0.0.1\"}", "{\"search\":[1]}", "{\"domain\":5}"],
        ),
        ("args", &["\"x\"", "{\"cni\":5}", "{\"cni\":{\"mac\":5}}"]),
        ("runtimeConfig", &["\"x\"", "[]", "{\"mac\":5}", "{\"mac\":[]}"]),
        ("ipam", &["\"host-local\"", "[]", "1", "{\"type\":5}"]),
        ("capabilities", &["[]", "{\"mac\":\"yes\"}"]),
        ("type", &["5"]),
    ] {
        for value in values {
            cases.push(
                conf("bridge", format!("{value} for {key}"), format!("{{{key:?}:{value}}}"))
                    .says(6, innermost(key, value))
                    .other_words(),
            );
        }
    }
    // Keys that came after 1.1.1.
    for (key, value) in [
        ("vlanTrunk", "5"),
        ("vlanTrunk", "[{\"minID\":\"a\"}]"),
        ("preserveDefaultVlan", "\"x\""),
        ("disableContainerInterface", "1"),
        ("portIsolation", "\"x\""),
        ("ipMasqBackend", "5"),
    ] {
        cases.push(
            conf("bridge", format!("{value} for {key}"), format!("{{{key:?}:{value}}}"))
                .says(6, innermost(key, value))
                .ours_alone(),
        );
    }
    cases.push(
        conf("bridge", "odd case, wrong type", r#"{"ISGateway":"yes"}"#).says(6, "ateway").other_words(),
    );
    cases
}

/// The key that the sentence must name: the last one written.
fn innermost(key: &str, value: &str) -> String {
    let inner = value.rsplit('"').nth(1).filter(|_| value.contains("\":"));
    match inner {
        Some(_) => {
            let before = &value[..value.rfind("\":").unwrap_or_default()];
            before.rsplit('"').next().unwrap_or(key).to_owned()
        }
        None => key.to_owned(),
    }
}

fn values() -> Vec<Bad> {
    let with = |key: &str, value: &str| format!("{{{key:?}:{value},{}", &IPAM[1..]);
    let mut cases = vec![
        conf("bridge", "hairpin and promisc", r#"{"hairpinMode":true,"promiscMode":true}"#)
            .says(7, "cannot set hairpin mode and promiscuous mode at the same time")
            .same_words(),
        conf("bridge", "ipMasqBackend", r#"{"ipMasq":true,"ipMasqBackend":"pf"}"#)
            .says(7, "unknown ipmasq backend \"pf\"")
            .ours_alone(),
        conf("bridge", "ipMasqBackend on STATUS", r#"{"ipMasq":true,"ipMasqBackend":"pf"}"#)
            .verb("STATUS")
            .version("1.1.0")
            .says(7, "unknown ipmasq backend \"pf\"")
            .ours_alone(),
        conf(
            "bridge",
            "a VLAN's gateway with a long name",
            r#"{"bridge":"elevenchars","isGateway":true,"vlan":4094}"#,
        )
        .says(7, "elevenchars.4094")
        .other_words(),
        conf("bridge", "disableContainerInterface and ipam", with("disableContainerInterface", "true"))
            .says(7, "cannot use IPAM when DisableContainerInterface flag is set")
            .ours_alone(),
        conf("bridge", "mtu -1", with("mtu", "-1")).says(7, "mtu -1").ours_alone(),
        conf("bridge", "mtu 5000000000", with("mtu", "5000000000")).says(7, "mtu 5000000000").other_words(),
        conf("bridge", "mtu 10", with("mtu", "10")).says(999, "nvalid argument").other_words(),
        conf("bridge", "mtu 70000", with("mtu", "70000")).says(999, "nvalid argument").other_words(),
    ];
    for vlan in ["-1", "4095", "100000"] {
        cases.push(
            conf("bridge", format!("vlan {vlan}"), with("vlan", vlan))
                .says(7, format!("invalid VLAN ID {vlan} (must be between 0 and 4094)"))
                .same_words(),
        );
    }
    for (trunk, says) in [
        (r#"[{"minID":0,"maxID":5}]"#, "incorrect trunk minID parameter"),
        (r#"[{"minID":5,"maxID":4095}]"#, "incorrect trunk maxID parameter"),
        (r#"[{"minID":9,"maxID":5}]"#, "minID is greater than maxID in trunk parameter"),
        (r#"[{"maxID":5}]"#, "minID is missing"),
        (r#"[{"minID":5}]"#, "maxID is missing"),
        (r#"[{"id":0}]"#, "incorrect trunk id parameter"),
        (r#"[{"id":4095}]"#, "incorrect trunk id parameter"),
        (r#"[{"id":7},{"id":-1}]"#, "incorrect trunk id parameter"),
    ] {
        cases.push(
            conf("bridge", format!("vlanTrunk {trunk}"), with("vlanTrunk", trunk)).says(7, says).ours_alone(),
        );
    }
    for bridge in ["sixteen-letters-", "a/b", "a b", ".", "..", "a:b"] {
        cases.push(
            conf("bridge", format!("bridge name {bridge:?}"), with("bridge", &format!("{bridge:?}")))
                .says(7, format!("bridge {bridge:?} is not an interface name"))
                .other_words(),
        );
    }
    cases.push(
        conf("bridge", "an empty bridge name", with("bridge", "\"\""))
            .says(7, "bridge \"\" is not an interface name")
            .other_words(),
    );
    for (dst, says) in
        [("192.168.0.0/33", "192.168.0.0/33"), ("nonsense", "nonsense"), ("192.168.0.0", "192.168.0.0")]
    {
        cases.push(
            conf(
                "bridge",
                format!("route to {dst}"),
                format!(
                    r#"{{"ipam":{{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24","routes":[{{"dst":{dst:?}}}]}}}}"#
                ),
            )
            .says(6, says)
            .other_words(),
        );
    }
    cases
}

/// What stands in the way on the node or in the pod.
fn node() -> Vec<Bad> {
    vec![
        conf("bridge", "the interface name is taken in the pod", GATEWAY)
            .prepare(|world| world.pod_ip(0, &["link add eth0 type veth peer name far"]))
            .says(999, "container veth name (\"eth0\")")
            .other_words(),
        conf("bridge", "the interface name is lo", GATEWAY)
            .env("CNI_IFNAME", "lo")
            .says(999, "container veth name (\"lo\")")
            .other_words(),
        conf("bridge", "the bridge's name is a veth's", GATEWAY)
            .prepare(|world| world.host_ip(&["link add cni0 type veth peer name far"]))
            .says(999, "\"cni0\" already exists but is not a bridge"),
        conf("bridge", "the bridge's name is lo", r#"{"bridge":"lo"}"#)
            .says(999, "\"lo\" already exists but is not a bridge"),
        conf("bridge", "the bridge has another IPv4 address", GATEWAY)
            .prepare(|world| {
                world.host_ip(&["link add cni0 address 02:00:00:00:00:b0 type bridge", "addr add 10.9.9.1/24 dev cni0", "link set cni0 up"])
            })
            .says(999, "\"cni0\" already has an IP address different from 10.1.2.1/24"),
        conf(
            "bridge",
            "the bridge has an overlapping IPv6 address",
            r#"{"isGateway":true,"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"2001:db8:1::/64"}}"#,
        )
        .prepare(|world| {
            world.host_ip(&["link add cni0 address 02:00:00:00:00:b0 type bridge", "addr add 2001:db8:1::9/64 dev cni0 nodad", "link set cni0 up"])
        })
        .says(999, "\"cni0\" already has an IP address different from 2001:db8:1::1/64"),
        conf(
            "bridge",
            "two IPv4 sets want two gateways",
            r#"{"isGateway":true,"ipam":{"type":"host-local","dataDir":"@DATA@",
                "ranges":[[{"subnet":"10.1.2.0/24"}],[{"subnet":"10.1.3.0/24"}]]}}"#,
        )
        .says(999, "\"cni0\" already has an IP address different from 10.1.3.1/24"),
        conf(
            "bridge",
            "a route through a gateway that is not reachable",
            r#"{"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24",
                "routes":[{"dst":"192.168.0.0/16","gw":"172.16.0.1"}]}}"#,
        )
        .says(999, "192.168.0.0/16")
        .other_words(),
        conf(
            "bridge",
            "the same route twice",
            r#"{"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24",
                "routes":[{"dst":"192.168.0.0/16","gw":"10.1.2.9"},{"dst":"192.168.0.0/16","gw":"10.1.2.9"}]}}"#,
        )
        .says(999, "ile exists")
        .other_words(),
        conf(
            "bridge",
            "the same address twice",
            r#"{"ipam":{"type":"static","addresses":[{"address":"10.1.2.3/24"},{"address":"10.1.2.3/24"}]}}"#,
        )
        .says(999, "10.1.2.3/24")
        .other_words(),
        conf("bridge", "no address at all", r#"{"ipam":{"type":"static"}}"#)
            .says(999, "IPAM plugin returned missing IP config"),
        conf("bridge", "layer 2 with version 0.2.0", "{}")
            .version("0.2.0")
            .says(999, "cannot convert: no valid IP addresses"),
        conf("bridge", "layer 2 without a version", "{}").version("").says(999, "cannot convert: no valid IP addresses"),
        conf("bridge", "read-only sysctls and forwarding is off", GATEWAY)
            .sealed(|_| podnet_tests::sealed::read_only(std::path::Path::new("/proc/sys")))
            .says(999, "ead-only file system")
            .other_words(),
    ]
}

/// prevResult that cannot be used.
fn previous() -> Vec<Bad> {
    let mut cases = vec![
        conf("bridge", "no prevResult", r#"{"ipam":{"type":"static"}}"#)
            .verb("CHECK")
            .says(7, "prevResult")
            .other_words(),
        conf("loopback", "lo is down", "{}").verb("CHECK").says(999, "loopback interface is down"),
        conf("loopback", "lo has a foreign address", "{}")
            .prepare(|world| world.pod_ip(0, &["addr add 10.0.0.1/8 dev lo"]))
            .says(999, "loopback interface found with non-loopback address \"10.0.0.1\""),
    ];
    for (name, previous) in [
        ("a text", r#""x""#),
        ("an array", "[]"),
        ("a number", "5"),
        ("of another family", r#"{"cniVersion":"0.4.0","ips":[]}"#),
        ("of no known version", r#"{"cniVersion":"9.9.9"}"#),
        ("with a broken address", r#"{"cniVersion":"1.0.0","ips":[{"address":"10.1.2.3"}]}"#),
        ("with ips of a wrong type", r#"{"cniVersion":"1.0.0","ips":{}}"#),
        ("with a broken route", r#"{"cniVersion":"1.0.0","routes":[{"dst":"x"}]}"#),
        ("with an interface of a wrong type", r#"{"cniVersion":"1.0.0","interfaces":["eth0"]}"#),
    ] {
        cases.push(
            conf("loopback", format!("prevResult is {name}"), format!(r#"{{"prevResult":{previous}}}"#))
                .says(6, "prevResult")
                .other_words(),
        );
        cases.push(
            conf(
                "bridge",
                format!("prevResult is {name}"),
                format!(r#"{{"prevResult":{previous},"ipam":{{"type":"static"}}}}"#),
            )
            .verb("CHECK")
            .says(6, "prevResult")
            .other_words(),
        );
    }
    cases.push(
        conf("bridge", "prevResult is empty", r#"{"prevResult":{"cniVersion":"1.0.0"}}"#)
            .verb("CHECK")
            .says(999, "eth0")
            .other_words(),
    );
    cases.push(
        conf(
            "bridge",
            "prevResult is of another sandbox",
            r#"{"prevResult":{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"/other"}]},
                "ipam":{"type":"static"}}"#,
        )
        .verb("CHECK")
        .says(999, "Sandbox in prevResult")
        .other_words(),
    );
    cases
}
