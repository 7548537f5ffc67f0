//! Literal texts of results in every version of the specification, both ways.

use super::*;
use crate::error::code;
use crate::json::Json;
use crate::net::parse_cidr;
use crate::version::Version;

fn cidr(text: &str) -> IpNetwork {
    parse_cidr(text).unwrap()
}

fn ip(text: &str) -> Option<IpAddr> {
    Some(text.parse().unwrap())
}

/// Everything a result can hold.
fn full() -> CniResult {
    CniResult {
        interfaces: vec![
            Interface { name: "cni0".into(), mac: "02:00:00:00:00:01".into(), ..Interface::default() },
            Interface {
                name: "eth0".into(),
                mac: "02:00:00:00:00:02".into(),
                mtu: 1500,
                sandbox: "/run/netns/a".into(),
                socket_path: "/run/s".into(),
                pci_id: "0000:00:1f.6".into(),
            },
        ],
        ips: vec![
            IpConfig { interface: Some(1), address: cidr("10.1.2.3/24"), gateway: ip("10.1.2.1") },
            IpConfig { interface: Some(0), address: cidr("2001:db8::5/64"), gateway: ip("2001:db8::1") },
            IpConfig { interface: None, address: cidr("10.1.3.4/24"), gateway: None },
        ],
        routes: vec![
            Route::new(cidr("0.0.0.0/0"), None),
            Route::new(cidr("::/0"), ip("2001:db8::1")),
            Route {
                mtu: Some(1400),
                advmss: Some(1360),
                priority: Some(100),
                table: Some(0),
                scope: Some(0),
                ..Route::new(cidr("192.168.7.9/16"), ip("10.1.2.9"))
            },
            Route {
                mtu: Some(0),
                advmss: Some(0),
                priority: Some(0),
                table: Some(254),
                scope: Some(253),
                ..Route::new(cidr("172.16.0.0/12"), None)
            },
        ],
        dns: Dns {
            nameservers: vec!["10.1.2.1".into()],
            domain: "a<b>&c".into(),
            search: vec!["x".into()],
            options: vec!["ndots:2".into()],
        },
    }
}

/// As the reference's `static` prints it, for the same values.
const SINGLE: &str = r#"{
    "cniVersion": "VERSION",
    "ip4": {
        "ip": "10.1.2.3/24",
        "gateway": "10.1.2.1",
        "routes": [
            {
                "dst": "0.0.0.0/0"
            },
            {
                "dst": "192.168.7.9/16",
                "gw": "10.1.2.9"
            },
            {
                "dst": "172.16.0.0/12"
            }
        ]
    },
    "ip6": {
        "ip": "2001:db8::5/64",
        "gateway": "2001:db8::1",
        "routes": [
            {
                "dst": "::/0",
                "gw": "2001:db8::1"
            }
        ]
    },
    "dns": {
        "nameservers": [
            "10.1.2.1"
        ],
        "domain": "a\u003cb\u003e\u0026c",
        "search": [
            "x"
        ],
        "options": [
            "ndots:2"
        ]
    }
}"#;

const LISTED: &str = r#"{
    "cniVersion": "VERSION",
    "interfaces": [
        {
            "name": "cni0",
            "mac": "02:00:00:00:00:01"
        },
        {
            "name": "eth0",
            "mac": "02:00:00:00:00:02",
            "sandbox": "/run/netns/a"
        }
    ],
    "ips": [
        {
            "version": "4",
            "interface": 1,
            "address": "10.1.2.3/24",
            "gateway": "10.1.2.1"
        },
        {
            "version": "6",
            "interface": 0,
            "address": "2001:db8::5/64",
            "gateway": "2001:db8::1"
        },
        {
            "version": "4",
            "address": "10.1.3.4/24"
        }
    ],
    "routes": [
        {
            "dst": "0.0.0.0/0"
        },
        {
            "dst": "::/0",
            "gw": "2001:db8::1"
        },
        {
            "dst": "192.168.7.9/16",
            "gw": "10.1.2.9",
            "mtu": 1400,
            "advmss": 1360,
            "priority": 100,
            "table": 0,
            "scope": 0
        },
        {
            "dst": "172.16.0.0/12",
            "table": 254,
            "scope": 253
        }
    ],
    "dns": {
        "nameservers": [
            "10.1.2.1"
        ],
        "domain": "a\u003cb\u003e\u0026c",
        "search": [
            "x"
        ],
        "options": [
            "ndots:2"
        ]
    }
}"#;

const STABLE: &str = r#"{
    "cniVersion": "VERSION",
    "dns": {
        "domain": "a\u003cb\u003e\u0026c",
        "nameservers": [
            "10.1.2.1"
        ],
        "options": [
            "ndots:2"
        ],
        "search": [
            "x"
        ]
    },
    "interfaces": [
        {
            "mac": "02:00:00:00:00:01",
            "name": "cni0"
        },
        {
            "mac": "02:00:00:00:00:02",
            "mtu": 1500,
            "name": "eth0",
            "pciID": "0000:00:1f.6",
            "sandbox": "/run/netns/a",
            "socketPath": "/run/s"
        }
    ],
    "ips": [
        {
            "address": "10.1.2.3/24",
            "gateway": "10.1.2.1",
            "interface": 1
        },
        {
            "address": "2001:db8::5/64",
            "gateway": "2001:db8::1",
            "interface": 0
        },
        {
            "address": "10.1.3.4/24"
        }
    ],
    "routes": [
        {
            "dst": "0.0.0.0/0"
        },
        {
            "dst": "::/0",
            "gw": "2001:db8::1"
        },
        {
            "advmss": 1360,
            "dst": "192.168.7.9/16",
            "gw": "10.1.2.9",
            "mtu": 1400,
            "priority": 100,
            "scope": 0,
            "table": 0
        },
        {
            "dst": "172.16.0.0/12",
            "scope": 253,
            "table": 254
        }
    ]
}"#;

fn text_of(version: Version) -> String {
    let text = match version {
        Version::V0_1_0 | Version::V0_2_0 => SINGLE,
        Version::V0_3_0 | Version::V0_3_1 | Version::V0_4_0 => LISTED,
        Version::V1_0_0 | Version::V1_1_0 => STABLE,
    };
    text.replace("VERSION", version.as_str())
}

/// What is left of [`full`] after the form of `version`.
fn kept_by(version: Version) -> CniResult {
    let mut result = full();
    for route in &mut result.routes {
        route.mtu = route.mtu.filter(|&mtu| mtu != 0);
        route.advmss = route.advmss.filter(|&mss| mss != 0);
        route.priority = route.priority.filter(|&metric| metric != 0);
    }
    if version < Version::V1_0_0 {
        result.interfaces[1] = Interface {
            mtu: 0,
            socket_path: String::new(),
            pci_id: String::new(),
            ..result.interfaces[1].clone()
        };
    }
    if version < Version::V0_3_0 {
        result.interfaces.clear();
        result.ips.truncate(2);
        result.ips.iter_mut().for_each(|ip| ip.interface = None);
        result.routes = result.routes.iter().map(|route| Route::new(route.dst, route.gw)).collect();
        // Routes are kept under the address of their family.
        result.routes.sort_by_key(|route| route.dst.is_ipv6());
    }
    result
}

#[test]
fn every_version_prints_its_literal_text() {
    for &version in Version::ALL {
        assert_eq!(full().render(version).unwrap(), text_of(version), "{version}");
    }
}

#[test]
fn every_version_is_read_back() {
    for &version in Version::ALL {
        let text = text_of(version);
        assert_eq!(
            CniResult::parse(text.as_bytes(), Version::V1_1_0).unwrap(),
            kept_by(version),
            "{version}"
        );
        let without = text.replacen(&format!("\"cniVersion\": \"{version}\","), "", 1);
        assert_eq!(CniResult::parse(without.as_bytes(), version).unwrap(), kept_by(version), "{version}");
    }
}

#[test]
fn empty_result_prints_in_the_versions_that_allow_it() {
    let empty = CniResult::default();
    for version in [Version::V0_1_0, Version::V0_2_0] {
        let error = empty.render(version).unwrap_err();
        assert_eq!((error.code, error.msg.as_str()), (999, "cannot convert: no valid IP addresses"));
    }
    for version in [Version::V0_3_0, Version::V0_3_1, Version::V0_4_0] {
        let expected = format!("{{\n    \"cniVersion\": \"{version}\",\n    \"dns\": {{}}\n}}");
        assert_eq!(empty.render(version).unwrap(), expected);
    }
    for version in [Version::V1_0_0, Version::V1_1_0] {
        assert_eq!(empty.render(version).unwrap(), format!("{{\n    \"cniVersion\": \"{version}\"\n}}"));
    }
}

#[test]
fn old_versions_hold_routes_of_families_with_an_address_only() {
    let result = CniResult {
        ips: vec![IpConfig { interface: None, address: cidr("2001:db8::5/64"), gateway: None }],
        routes: vec![Route::new(cidr("0.0.0.0/0"), None), Route::new(cidr("::/0"), None)],
        ..CniResult::default()
    };
    let expected = r#"{
    "cniVersion": "0.2.0",
    "ip6": {
        "ip": "2001:db8::5/64",
        "routes": [
            {
                "dst": "::/0"
            }
        ]
    },
    "dns": {}
}"#;
    assert_eq!(result.render(Version::V0_2_0).unwrap(), expected);
}

#[test]
fn addresses_print_as_go_prints_them() {
    let result = CniResult {
        ips: vec![IpConfig {
            interface: None,
            address: cidr("::ffff:10.0.0.1/120"),
            gateway: ip("::ffff:10.0.0.2"),
        }],
        ..CniResult::default()
    };
    let text = result.render(Version::V1_0_0).unwrap();
    assert!(
        text.contains("\"address\": \"10.0.0.1/24\"") && text.contains("\"gateway\": \"10.0.0.2\""),
        "{text}"
    );
}

#[test]
fn prev_result_must_be_of_the_family_of_the_configuration() {
    let families = [&Version::ALL[..2], &Version::ALL[2..5], &Version::ALL[5..]];
    for config_family in families {
        for &config in config_family {
            for family in families {
                for &version in family {
                    let json = Json::parse(text_of(version).as_bytes()).unwrap();
                    let read = CniResult::from_prev(&json, config);
                    assert_eq!(read.is_ok(), family == config_family, "{config} and {version}");
                }
            }
        }
    }
}

#[test]
fn prev_result_of_another_family_is_refused_in_the_words_of_the_reference() {
    let table = [
        (Version::V1_1_0, "0.4.0", "[1.0.0 1.1.0]"),
        (Version::V0_3_1, "1.0.0", "[0.3.0 0.3.1 0.4.0]"),
        (Version::V0_1_0, "1.0.0", "[ 0.1.0 0.2.0]"),
        (Version::V1_0_0, "9.9.9", "[1.0.0 1.1.0]"),
    ];
    for (config, version, supported) in table {
        let json = Json::parse(format!("{{\"cniVersion\":\"{version}\"}}").as_bytes()).unwrap();
        let error = CniResult::from_prev(&json, config).unwrap_err();
        assert_eq!(error.code, code::DECODING);
        let expected = format!(
            "could not parse prevResult: result type supports {supported} but unmarshalled CNIVersion is {version:?}"
        );
        assert_eq!(error.msg, expected);
    }
}

#[test]
fn prev_result_without_a_version_has_that_of_the_configuration() {
    let json = Json::parse(br#"{"IPS":[{"Address":"10.0.0.1/8","INTERFACE":0}]}"#).unwrap();
    let result = CniResult::from_prev(&json, Version::V1_0_0).unwrap();
    assert_eq!(result.ips, [IpConfig { interface: Some(0), address: cidr("10.0.0.1/8"), gateway: None }]);
    assert_eq!(CniResult::from_prev(&json, Version::V0_2_0).unwrap(), CniResult::default());
}

#[test]
fn delegates_may_answer_null_or_leave_out_the_version() {
    assert_eq!(CniResult::parse(b"null", Version::V1_1_0).unwrap(), CniResult::default());
    assert_eq!(CniResult::parse(b"{}", Version::V0_1_0).unwrap(), CniResult::default());
    let result = CniResult::parse(br#"{"ip4":{"ip":"10.0.0.2/8","gateway":""}}"#, Version::V0_2_0).unwrap();
    assert_eq!(result.ips, [IpConfig { interface: None, address: cidr("10.0.0.2/8"), gateway: None }]);
}

#[test]
fn what_is_no_result_is_refused() {
    let table = [
        ("", code::DECODING, "decode result: unexpected end of JSON input"),
        ("[]", code::DECODING, "decode result: expected an object, found an array"),
        (
            r#"{"cniVersion":"2.0.0"}"#,
            code::INCOMPATIBLE_VERSION,
            "decode result: unsupported CNI result version \"2.0.0\"",
        ),
        (
            r#"{"cniVersion":1}"#,
            code::DECODING,
            "decode result: key \"cniVersion\": expected a string, found number 1",
        ),
        (r#"{"ips":[{}]}"#, code::DECODING, "decode result: key \"ips[0].address\": missing"),
        (
            r#"{"ips":[{"address":"10.0.0.300/8"}]}"#,
            code::DECODING,
            "decode result: key \"ips[0].address\": invalid CIDR address: 10.0.0.300/8",
        ),
        (
            r#"{"ips":[{"address":"10.0.0.1/8","gateway":"x"}]}"#,
            code::DECODING,
            "decode result: key \"ips[0].gateway\": invalid IP address: x",
        ),
        (
            r#"{"routes":[{"gw":"10.0.0.1"}]}"#,
            code::DECODING,
            "decode result: key \"routes[0].dst\": missing",
        ),
        (
            r#"{"routes":[{"dst":"10.0.0.0/8","table":-1}]}"#,
            code::DECODING,
            "decode result: key \"routes[0].table\": expected an integer from 0 to 4294967295, found number -1",
        ),
    ];
    for (text, code, msg) in table {
        let error = CniResult::parse(text.as_bytes(), Version::V1_1_0).unwrap_err();
        assert_eq!((error.code, error.msg.as_str()), (code, msg), "{text}");
    }
    let error = CniResult::parse(br#"{"ip4":{"gateway":"10.0.0.1"}}"#, Version::V0_1_0).unwrap_err();
    assert_eq!(error.msg, "decode result: key \"ip4.ip\": missing");
}
