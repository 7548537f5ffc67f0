//! CNI_ARGS, `args.cni` and `runtimeConfig`: what a runtime passes along with the configuration.

use super::{Bad, conf};

const IPAM: &str = r#"{"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#;

pub(super) fn cases() -> Vec<Bad> {
    let mut cases = cni_args();
    cases.extend(macs());
    cases.extend(addresses());
    cases
}

fn cni_args() -> Vec<Bad> {
    let mut cases = Vec::new();
    for (plugin, args, says) in [
        ("bridge", "MAC", r#"ARGS: invalid pair "MAC""#),
        ("bridge", "MAC=02:00:00:00:00:01;", r#"ARGS: invalid pair """#),
        ("bridge", ";", r#"ARGS: invalid pair """#),
        ("bridge", "MAC=a=b", r#"ARGS: invalid pair "MAC=a=b""#),
        ("bridge", "FOO=1", r#"ARGS: unknown args ["FOO=1"]"#),
        ("bridge", "mac=02:00:00:00:00:01", r#"ARGS: unknown args ["mac=02:00:00:00:00:01"]"#),
        ("bridge", "K8S_POD_NAME=a;K8S_POD_UID=b", "ARGS: unknown args ["),
        ("bridge", "K8S_POD_NAME=a;IgnoreUnknown=0", r#"ARGS: unknown args ["K8S_POD_NAME=a"]"#),
        ("bridge", "ignoreunknown=1;X=1", "ARGS: unknown args ["),
        ("bridge", "IgnoreUnknown=maybe", "boolean unmarshal error"),
        ("host-local", "IP", r#"ARGS: invalid pair "IP""#),
        ("host-local", "MAC=02:00:00:00:00:01", "ARGS: unknown args ["),
        ("host-local", "IgnoreUnknown=yes;X=1", "boolean unmarshal error"),
        ("static", "MAC=02:00:00:00:00:01", "ARGS: unknown args ["),
        ("static", "IP=10.1.2.3/24;", r#"ARGS: invalid pair """#),
    ] {
        let text = if plugin == "static" { r#"{"ipam":{"type":"static"}}"# } else { IPAM };
        cases.push(
            conf(plugin, format!("CNI_ARGS {args}"), text).env("CNI_ARGS", args).says(4, says).same_words(),
        );
    }
    cases
}

fn macs() -> Vec<Bad> {
    let mut cases = Vec::new();
    for mac in [
        "zz",
        "02:00:00:00:00",
        "02:00:00:00:00:00:00",
        "02:00:00:00:00:0g",
        "02.00.00.00.00.01",
        "020000000001",
    ] {
        cases.push(
            conf("bridge", format!("MAC={mac} in CNI_ARGS"), IPAM)
                .env("CNI_ARGS", format!("MAC={mac}"))
                .says(7, format!("address {mac}: invalid MAC address"))
                .same_words(),
        );
    }
    for (name, text) in [
        ("args", r#"{"args":{"cni":{"mac":"nonsense"}}}"#),
        ("runtimeConfig", r#"{"runtimeConfig":{"mac":"nonsense"}}"#),
    ] {
        cases.push(
            conf("bridge", format!("MAC of {name}"), text)
                .says(7, "address nonsense: invalid MAC address")
                .same_words(),
        );
    }
    cases.push(
        conf("bridge", "a group MAC", r#"{"runtimeConfig":{"mac":"01:00:5e:00:00:01"}}"#)
            .says(999, "annot assign requested address")
            .other_words(),
    );
    cases.push(
        conf("bridge", "the zero MAC", r#"{"runtimeConfig":{"mac":"00:00:00:00:00:00"}}"#)
            .says(999, "annot assign requested address")
            .other_words(),
    );
    cases
}

fn addresses() -> Vec<Bad> {
    let mut cases = Vec::new();
    for ip in ["10.1.2.300", "nonsense", "10.1.2", "10.1.2.5/33", "10.1.2.5/", "::g"] {
        cases.push(
            conf("host-local", format!("IP={ip} in CNI_ARGS"), IPAM)
                .env("CNI_ARGS", format!("IP={ip}"))
                .says(7, ip)
                .other_words(),
        );
        cases.push(
            conf(
                "host-local",
                format!("{ip} in runtimeConfig"),
                format!(
                    r#"{{"runtimeConfig":{{"ips":["{ip}"]}},
                        "ipam":{{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}}}"#
                ),
            )
            .says(7, ip)
            .other_words(),
        );
    }
    cases.push(
        conf("host-local", "the gateway is requested", IPAM)
            .env("CNI_ARGS", "IP=10.1.2.1")
            .says(999, "requested ip 10.1.2.1 is subnet's gateway"),
    );
    cases.push(
        conf("host-local", "an address of no range is requested", IPAM)
            .env("CNI_ARGS", "IP=10.9.9.9")
            .says(999, "failed to allocate all requested IPs: 10.9.9.9"),
    );
    cases.push(
        conf(
            "host-local",
            "two addresses of one set are requested",
            r#"{"args":{"cni":{"ips":["10.1.2.7","10.1.2.8"]}},
                "ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#,
        )
        .says(999, "failed to allocate all requested IPs: 10.1.2."),
    );
    cases.push(
        conf("host-local", "a reserved address is requested", IPAM)
            .prepare(|world| reserve(world, "10.1.2.9"))
            .env("CNI_ARGS", "IP=10.1.2.9")
            .says(999, "requested IP address 10.1.2.9 is not available in range set"),
    );
    for ip in ["10.1.2.3", "nonsense", "10.1.2.3/33", "10.1.2.300/24"] {
        cases.push(
            conf("static", format!("IP={ip} in CNI_ARGS"), r#"{"ipam":{"type":"static"}}"#)
                .env("CNI_ARGS", format!("IP={ip}"))
                .says(7, format!("the 'ip' field is expected to be in CIDR notation, got: '{ip}'"))
                .same_words(),
        );
        cases.push(
            conf(
                "static",
                format!("{ip} in runtimeConfig"),
                format!(r#"{{"runtimeConfig":{{"ips":["{ip}"]}},"ipam":{{"type":"static"}}}}"#),
            )
            .says(7, "an entry in the 'ips' field is NOT in CIDR notation")
            .same_words(),
        );
    }
    cases.push(
        conf("static", "GATEWAY of CNI_ARGS", r#"{"ipam":{"type":"static"}}"#)
            .env("CNI_ARGS", "IP=10.1.2.3/24;GATEWAY=nonsense")
            .says(7, "nonsense")
            .other_words(),
    );
    cases
}

/// As if another container held the address.
fn reserve(world: &podnet_tests::World, ip: &str) -> anyhow::Result<()> {
    let dir = world.data().join(podnet_tests::world::NETWORK);
    std::fs::create_dir_all(&dir)?;
    Ok(std::fs::write(dir.join(ip), "other\r\neth0")?)
}
