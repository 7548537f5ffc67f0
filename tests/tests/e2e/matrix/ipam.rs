//! The configurations of `host-local`, `static` and `loopback` called alone, as a chained caller would.

use super::Case;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = host_local();
    cases.extend(static_());
    cases.extend(loopback());
    cases
}

const fn local(name: &'static str, text: &'static str) -> Case {
    Case::new(name, "host-local", text)
}

fn host_local() -> Vec<Case> {
    vec![
        local(
            "host-local: flat range",
            r#"{"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#,
        ),
        Case {
            pods: 2,
            ..local(
                "host-local: pool of two ranges",
                r#"{"ipam":{"type":"host-local","dataDir":"@DATA@","ranges":[[
                    {"subnet":"10.1.2.0/24","rangeStart":"10.1.2.9","rangeEnd":"10.1.2.9"},{"subnet":"10.1.3.0/24"}]]}}"#,
            )
        },
        Case {
            since: "0.3.0",
            ..local(
                "host-local: two sets of one family",
                r#"{"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24","ranges":[[{"subnet":"10.1.3.0/24"}]]}}"#,
            )
        },
        local(
            "host-local: routes and gateway",
            r#"{"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/25","gateway":"10.1.2.100",
                "rangeStart":"10.1.2.99","rangeEnd":"10.1.2.126",
                "routes":[{"dst":"0.0.0.0/0"},{"dst":"10.0.0.1/8","gw":"10.1.2.5"}]}}"#,
        ),
        Case {
            pods: 2,
            ..local(
                "host-local: the gateway is skipped",
                r#"{"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24","gateway":"10.1.2.11",
                    "rangeStart":"10.1.2.10","rangeEnd":"10.1.2.12"}}"#,
            )
        },
        Case {
            args: "IP=10.1.2.33",
            ..local(
                "host-local: requested address",
                r#"{"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#,
            )
        },
        local(
            "host-local: IPv6 text forms",
            r#"{"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"2001:DB8:0:1:0000::/80",
                "rangeStart":"2001:db8:0:1::00A0","gateway":"2001:0db8:0:1::FFFF"}}"#,
        ),
        local(
            "host-local: broadcast as range end",
            r#"{"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/29","rangeEnd":"10.1.2.7"}}"#,
        ),
        local(
            "host-local: route with mtu, table and the rest",
            r#"{"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24",
                "routes":[{"dst":"10.0.0.0/8","mtu":1300,"advmss":1200,"priority":5,"table":100,"scope":253}]}}"#,
        ),
    ]
}

const fn fixed(name: &'static str, text: &'static str) -> Case {
    Case::new(name, "static", text)
}

fn static_() -> Vec<Case> {
    vec![
        fixed(
            "static: addresses, routes, dns",
            r#"{"ipam":{"type":"static","addresses":[{"address":"10.1.2.3/24","gateway":"10.1.2.1"},{"address":"2001:db8::3/64"}],
                "routes":[{"dst":"0.0.0.0/0"},{"dst":"2001:db8:9::/48","gw":"2001:db8::9"}],
                "dns":{"nameservers":["10.1.2.1"],"domain":"d","search":["s"],"options":["o"]}}}"#,
        ),
        Case {
            args: "IP=10.1.2.4/24;GATEWAY=10.1.2.254;IgnoreUnknown=true;X=1",
            ..fixed(
                "static: CNI_ARGS is appended",
                r#"{"ipam":{"type":"static","addresses":[{"address":"2001:db8::3/64"}]}}"#,
            )
        },
        fixed(
            "static: runtimeConfig replaces",
            r#"{"runtimeConfig":{"ips":["10.9.9.9/24"]},"args":{"cni":{"ips":["10.8.8.8/24"]}},
                "ipam":{"type":"static","addresses":[{"address":"10.1.2.3/24","gateway":"10.1.2.1"}]}}"#,
        ),
    ]
}

fn loopback() -> Vec<Case> {
    vec![
        Case::new("loopback", "loopback", "{}"),
        Case { ifname: "lo", ..Case::new("loopback: under its own name", "loopback", "{}") },
        Case { pod: &["link set lo up"], ..Case::new("loopback: is up already", "loopback", "{}") },
    ]
}
