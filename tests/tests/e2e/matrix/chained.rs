//! The configurations of the chained plugins that run on this kernel, on an interface that the test made (see
//! `crate::chained`), so that what `bridge` does otherwise is not in the way.

use super::Case;

/// A case of a plugin behind others.
const fn chained(name: &'static str, plugin: &'static str, text: &'static str) -> Case {
    Case { attached: true, since: "0.3.0", ..Case::new(name, plugin, text) }
}

/// As the bridge plugin with a default gateway leaves the pod.
const ROUTED: &[&str] =
    &["route add default via 10.1.2.1 dev eth0", "-6 route add default via 2001:db8:1::1 dev eth0"];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = tuning();
    cases.extend(sbr());
    cases.extend(bandwidth());
    cases
}

fn tuning() -> Vec<Case> {
    vec![
        chained("tuning nothing", "tuning", "{}"),
        chained(
            "tuning the link",
            "tuning",
            r#"{"dataDir":"@DATA@","mac":"02:00:00:00:00:0a","mtu":1400,"promisc":true,"allmulti":true}"#,
        ),
        chained("tuning a MAC in capitals", "tuning", r#"{"dataDir":"@DATA@","mac":"02:00:00:00:00:0A"}"#),
        chained(
            "tuning allmulti off",
            "tuning",
            r#"{"dataDir":"@DATA@","allmulti":false,"promisc":false,"mtu":0}"#,
        ),
        chained(
            "tuning sysctls",
            "tuning",
            r#"{"sysctl":{"net.ipv4.conf.IFNAME.arp_filter":"1","net/ipv4/ip_nonlocal_bind":"1"}}"#,
        ),
        chained(
            "tuning a sysctl of two words",
            "tuning",
            r#"{"sysctl":{"net.ipv4.ip_local_port_range":"20000 30000"}}"#,
        ),
        Case {
            args: "MAC=02:00:00:00:00:0b;IgnoreUnknown=1;K8S_POD_NAME=web-0",
            ..chained("tuning by CNI_ARGS", "tuning", r#"{"dataDir":"@DATA@","mac":"02:00:00:00:00:0a"}"#)
        },
        Case {
            args: "MAC=02:00:00:00:00:0b;IgnoreUnknown=1",
            ..chained(
                "tuning by all that can tell",
                "tuning",
                r#"{"dataDir":"@DATA@","mac":"02:00:00:00:00:0a","mtu":1400,"promisc":true,
                    "sysctl":{"net.ipv4.conf.IFNAME.arp_filter":"1"},"runtimeConfig":{"mac":"02:00:00:00:00:0c"},
                    "args":{"cni":{"mac":"02:00:00:00:00:0d","mtu":1300,"promisc":false,"allmulti":true,
                    "sysctl":{"net.ipv4.conf.IFNAME.arp_filter":"0"}}}}"#,
            )
        },
        chained(
            "tuning in odd case",
            "tuning",
            r#"{"DATADIR":"@DATA@","Mtu":1450,"SysCtl":{"net.ipv4.ip_nonlocal_bind":"1"},"RuntimeConfig":{"MAC":"02:00:00:00:00:0e"}}"#,
        ),
    ]
}

fn sbr() -> Vec<Case> {
    vec![
        chained("sbr without default routes", "sbr", "{}"),
        Case { pod: ROUTED, ..chained("sbr with default routes", "sbr", "{}") },
        Case {
            pod: &[
                "route add default via 10.1.2.1 dev eth0",
                "route add 192.168.0.0/16 via 10.1.2.9 dev eth0",
                "route add 172.16.0.0/12 dev eth0",
                "rule add from 10.9.9.9 table 100",
            ],
            ..chained("sbr with other routes and a rule", "sbr", "{}")
        },
    ]
}

fn bandwidth() -> Vec<Case> {
    vec![
        chained("bandwidth nothing", "bandwidth", "{}"),
        chained(
            "bandwidth both ways",
            "bandwidth",
            r#"{"ingressRate":8000000,"ingressBurst":160000,"egressRate":1234567,"egressBurst":765432}"#,
        ),
        chained("bandwidth to the pod", "bandwidth", r#"{"ingressRate":1000000000,"ingressBurst":80000000}"#),
        chained("bandwidth from the pod", "bandwidth", r#"{"egressRate":8,"egressBurst":8}"#),
        chained(
            "bandwidth of the runtime",
            "bandwidth",
            r#"{"capabilities":{"bandwidth":true},"runtimeConfig":{"bandwidth":
                {"IngressRate":1000000,"IngressBurst":8000000,"egressRate":2000000,"EgressBurst":8000000}}}"#,
        ),
        chained(
            "bandwidth at the top level and of the runtime",
            "bandwidth",
            r#"{"egressRate":3000000,"egressBurst":30000,"runtimeConfig":{"bandwidth":
                {"ingressRate":1000000,"ingressBurst":8000000,"egressRate":2000000,"egressBurst":8000000}}}"#,
        ),
        chained(
            "bandwidth above 32 bits",
            "bandwidth",
            r#"{"ingressRate":80000000000,"ingressBurst":8000000000}"#,
        ),
    ]
}
