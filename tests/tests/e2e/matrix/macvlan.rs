//! The configurations of `macvlan`, each with one thing to look at.
//!
//! ```text
//!   host ── up0 ═ far0 (a veth pair, both ends up, default route through up0)
//!            └─ eth0 in each pod
//! ```

use super::Case;

/// A link to stand on, which is the default route's.
const UPLINK: &[&str] = &[
    "link add up0 address 02:00:00:00:0a:01 type veth peer name far0",
    "link set far0 up",
    "link set up0 up",
    "addr add 10.1.2.254/24 dev up0",
    "route add default via 10.1.2.253",
];

/// The node has an eth0 of its own, which stands in the way of a request that names the pod's.
const UPLINK_ETH0: &[&str] = &[
    "link add eth0 address 02:00:00:00:0a:01 type veth peer name far0",
    "link set far0 up",
    "link set eth0 up",
    "addr add 10.1.2.254/24 dev eth0",
    "route add default via 10.1.2.253",
];

/// `Case::new` for the plugin `macvlan` with the link to stand on, in the versions that CHECK knows; how results of the
/// older ones look is seen with the first case.
const fn macvlan(name: &'static str, text: &'static str) -> Case {
    Case { host: UPLINK, since: "0.4.0", ..Case::new(name, "macvlan", text) }
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case {
            since: "0.1.0",
            ..macvlan(
                "macvlan: defaults",
                r#"{"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#,
            )
        },
        macvlan(
            "macvlan: master by name",
            r#"{"master":"far0","ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#,
        ),
        Case {
            host: UPLINK_ETH0,
            ..macvlan(
                "macvlan: the node has an eth0 too",
                r#"{"master":"eth0","ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#,
            )
        },
        macvlan(
            "macvlan: private",
            r#"{"mode":"private","ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#,
        ),
        macvlan(
            "macvlan: vepa",
            r#"{"mode":"vepa","ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#,
        ),
        macvlan(
            "macvlan: passthru",
            r#"{"mode":"passthru","ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#,
        ),
        macvlan(
            "macvlan: mtu",
            r#"{"mtu":1400,"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#,
        ),
        macvlan("macvlan: L2 only", r#"{"mode":"bridge"}"#),
        macvlan(
            "macvlan: MAC of the configuration",
            r#"{"mac":"02:00:00:00:00:01","ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#,
        ),
        Case {
            args: "MAC=02:00:00:00:00:02;IgnoreUnknown=1;K8S_POD_NAME=web-0",
            ..macvlan(
                "macvlan: MAC of CNI_ARGS over that of the configuration",
                r#"{"mac":"02:00:00:00:00:01",
                    "ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#,
            )
        },
        Case {
            args: "MAC=02:00:00:00:00:02",
            ..macvlan(
                "macvlan: MAC of runtimeConfig over all",
                r#"{"mac":"02:00:00:00:00:01","runtimeConfig":{"mac":"02:00:00:00:00:03"}}"#,
            )
        },
        macvlan(
            "macvlan: dual stack with routes",
            r#"{"ipam":{"type":"host-local","dataDir":"@DATA@",
                "ranges":[[{"subnet":"10.1.2.0/24"}],[{"subnet":"2001:db8:1::/64"}]],
                "routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"},{"dst":"192.168.0.0/16","gw":"10.1.2.9"}]}}"#,
        ),
        macvlan(
            "macvlan: static addresses",
            r#"{"ipam":{"type":"static","addresses":[{"address":"10.1.2.30/24","gateway":"10.1.2.1"}],
                "routes":[{"dst":"0.0.0.0/0"}]}}"#,
        ),
        macvlan(
            "macvlan: dns of the configuration",
            r#"{"dns":{"nameservers":["10.1.2.3"],"search":["a"]},
                "ipam":{"type":"static","addresses":[{"address":"10.1.2.30/24"}],"dns":{"nameservers":["10.1.2.1"]}}}"#,
        ),
        macvlan(
            "macvlan: dns of the IPAM plugin",
            r#"{"ipam":{"type":"static","addresses":[{"address":"10.1.2.30/24"}],"dns":{"nameservers":["10.1.2.1"]}}}"#,
        ),
        Case {
            pods: 2,
            ..macvlan(
                "macvlan: two pods",
                r#"{"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#,
            )
        },
        Case {
            ifname: "net1.with-15chr",
            ..macvlan(
                "macvlan: odd case of keys, longest interface name",
                r#"{"MASTER":"up0","Mode":"private","MTU":1300,
                    "IPAM":{"TYPE":"host-local","DATADIR":"@DATA@","SubNet":"10.1.2.0/24"}}"#,
            )
        },
    ]
}
