//! The configurations of `bridge`, each with one thing to look at. What both sides refuse is in `bad_input`.

use super::Case;

/// `Case::new` for the plugin `bridge`.
const fn bridge(name: &'static str, text: &'static str) -> Case {
    Case::new(name, "bridge", text)
}

/// A bridge that stands before the first ADD, with an address of another network.
const OLD_BRIDGE: &[&str] =
    &["link add cni0 type bridge", "addr add 10.9.9.1/24 dev cni0", "link set cni0 up"];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = gateways();
    cases.extend(ports());
    cases.extend(requests());
    cases.extend(spelling());
    cases.extend(rules());
    cases
}

/// What rules come with. The rules themselves are compared in `rules`: the reference's backend here is iptables.
fn rules() -> Vec<Case> {
    vec![
        bridge(
            "masquerade",
            r#"{"isDefaultGateway":true,"ipMasq":true,"ipam":{"type":"host-local","dataDir":"@DATA@",
                "ranges":[[{"subnet":"10.1.2.0/24"}],[{"subnet":"2001:db8:1::/64"}]]}}"#,
        ),
        Case {
            pods: 2,
            ..bridge(
                "MAC spoof check",
                r#"{"isGateway":true,"macspoofchk":true,
                    "ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#,
            )
        },
        // An older result holds no attachment without addresses.
        Case { since: "0.3.0", ..bridge("rules without addresses", r#"{"ipMasq":true,"macspoofchk":true}"#) },
    ]
}

/// Gateways, addresses, routes.
fn gateways() -> Vec<Case> {
    vec![
        bridge("defaults", r#"{"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#),
        bridge(
            "gateway",
            r#"{"isGateway":true,"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#,
        ),
        bridge(
            "default gateway",
            r#"{"isDefaultGateway":true,"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#,
        ),
        bridge(
            "default gateway beside a default route with a gateway",
            r#"{"isDefaultGateway":true,"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24",
                "routes":[{"dst":"0.0.0.0/0","gw":"10.1.2.7"}]}}"#,
        ),
        bridge(
            "gateway address of the range",
            r#"{"isGateway":true,"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24",
                "gateway":"10.1.2.254","rangeStart":"10.1.2.100","rangeEnd":"10.1.2.110"}}"#,
        ),
        Case {
            host: OLD_BRIDGE,
            ..bridge(
                "forceAddress takes an old address away",
                r#"{"isGateway":true,"forceAddress":true,
                    "ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#,
            )
        },
        Case {
            host: &[
                "link add cni0 type bridge",
                "addr add 2001:db8:1::9/64 dev cni0 nodad",
                "link set cni0 up",
            ],
            ..bridge(
                "forceAddress takes an overlapping IPv6 address away",
                r#"{"isGateway":true,"forceAddress":true,
                    "ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"2001:db8:1::/64"}}"#,
            )
        },
        Case {
            host: &[
                "link add cni0 type bridge",
                "addr add 2001:db8:7::1/64 dev cni0 nodad",
                "link set cni0 up",
            ],
            ..bridge(
                "another IPv6 network on the bridge stays",
                r#"{"isGateway":true,"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"2001:db8:1::/64"}}"#,
            )
        },
        bridge(
            "dual stack",
            r#"{"isDefaultGateway":true,"ipam":{"type":"host-local","dataDir":"@DATA@",
                "ranges":[[{"subnet":"10.1.2.0/24"}],[{"subnet":"2001:db8:1::/64"}]]}}"#,
        ),
        bridge(
            "dual stack without gateway",
            r#"{"ipam":{"type":"host-local","dataDir":"@DATA@",
                "ranges":[[{"subnet":"10.1.2.0/24"}],[{"subnet":"2001:db8:1::/64"}]]}}"#,
        ),
        bridge(
            "IPv6 only with default gateway",
            r#"{"isDefaultGateway":true,"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"2001:db8:1::/64"}}"#,
        ),
        bridge(
            "IPv6 only",
            r#"{"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"2001:db8:1::/112"}}"#,
        ),
        bridge(
            "routes with and without gateway",
            r#"{"isGateway":true,"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24",
                "routes":[{"dst":"0.0.0.0/0"},{"dst":"192.168.0.0/16","gw":"10.1.2.9"},{"dst":"172.16.0.0/12"}]}}"#,
        ),
        bridge(
            "routes of both families",
            r#"{"isGateway":true,"ipam":{"type":"host-local","dataDir":"@DATA@",
                "ranges":[[{"subnet":"10.1.2.0/24"}],[{"subnet":"2001:db8:1::/64"}]],
                "routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"},{"dst":"2001:db8:f::/48","gw":"2001:db8:1::9"}]}}"#,
        ),
        bridge(
            "two routes to one prefix",
            r#"{"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24",
                "routes":[{"dst":"192.168.0.0/16","gw":"10.1.2.8"},{"dst":"192.168.0.0/16","gw":"10.1.2.9"}]}}"#,
        ),
        Case {
            host_sysctls: &[("net/ipv4/ip_forward", "1"), ("net/ipv6/conf/all/forwarding", "1")],
            ..bridge(
                "forwarding is on already",
                r#"{"isGateway":true,"ipam":{"type":"host-local","dataDir":"@DATA@",
                    "ranges":[[{"subnet":"10.1.2.0/24"}],[{"subnet":"2001:db8:1::/64"}]]}}"#,
            )
        },
        bridge(
            "smallest range",
            r#"{"isGateway":true,"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.4/30"}}"#,
        ),
        bridge(
            "static addresses",
            r#"{"isGateway":true,"ipam":{"type":"static","addresses":[{"address":"10.1.2.30/24","gateway":"10.1.2.1"}],
                "routes":[{"dst":"0.0.0.0/0"}],"dns":{"nameservers":["10.1.2.1"]}}}"#,
        ),
        bridge(
            "static addresses of both families",
            r#"{"isDefaultGateway":true,"ipam":{"type":"static","addresses":[
                {"address":"10.1.2.30/24","gateway":"10.1.2.1"},{"address":"2001:db8:1::30/64","gateway":"2001:db8:1::1"}]}}"#,
        ),
        Case {
            args: "IP=10.1.2.40/24,2001:db8:1::40/64;GATEWAY=10.1.2.1,2001:db8:1::1;IgnoreUnknown=1",
            ..bridge("static addresses from CNI_ARGS", r#"{"isGateway":true,"ipam":{"type":"static"}}"#)
        },
    ]
}

/// Links, ports, flags.
fn ports() -> Vec<Case> {
    vec![
        Case { since: "0.3.0", ..bridge("L2 only", "{}") },
        Case { since: "0.3.0", ..bridge("L2 only with an empty ipam", r#"{"ipam":{},"mtu":1300}"#) },
        bridge(
            "mtu",
            r#"{"mtu":1400,"isGateway":true,"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#,
        ),
        bridge(
            "jumbo mtu",
            r#"{"mtu":9000,"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#,
        ),
        bridge(
            "hairpin",
            r#"{"hairpinMode":true,"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#,
        ),
        bridge(
            "promisc",
            r#"{"promiscMode":true,"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#,
        ),
        bridge(
            "another bridge name",
            r#"{"bridge":"mybridge0","isGateway":true,
                "ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#,
        ),
        bridge(
            "enabledad",
            r#"{"enabledad":true,"isGateway":true,
                "ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"2001:db8:1::/64"}}"#,
        ),
        Case {
            pod_sysctls: &[
                ("net/ipv6/conf/default/disable_ipv6", "1"),
                ("net/ipv6/conf/lo/disable_ipv6", "1"),
            ],
            ..bridge(
                "IPv6 was disabled in the pod",
                r#"{"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"2001:db8:1::/64"}}"#,
            )
        },
        Case {
            host: &["link add cni0 type bridge", "addr add 10.1.2.1/24 dev cni0", "link set cni0 up"],
            ..bridge(
                "bridge with the right address exists",
                r#"{"isGateway":true,"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#,
            )
        },
        Case {
            host: &["link add cni0 type bridge", "link set cni0 mtu 1450"],
            ..bridge(
                "bridge exists and is down",
                r#"{"isGateway":true,"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#,
            )
        },
        Case {
            host: &[
                "link add cni0 type bridge",
                "link add other type veth peer name far",
                "link set other master cni0",
                "link set other up",
            ],
            ..bridge(
                "bridge exists with a port",
                r#"{"isGateway":true,"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#,
            )
        },
        Case {
            pods: 2,
            ..bridge(
                "two pods",
                r#"{"isDefaultGateway":true,"ipam":{"type":"host-local","dataDir":"@DATA@",
                    "ranges":[[{"subnet":"10.1.2.0/24"}],[{"subnet":"2001:db8:1::/64"}]]}}"#,
            )
        },
        Case {
            pods: 2,
            // Without a gateway the reference's bridge takes the lowest MAC of its ports, and then its CHECK of the
            // first pod fails if that is the second pod's.
            check: false,
            ..bridge(
                "two pods without gateway",
                r#"{"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#,
            )
        },
        Case {
            ifname: "net1.with-15chr",
            ..bridge(
                "longest interface name",
                r#"{"isGateway":true,"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#,
            )
        },
        Case {
            pod: &[
                "link set lo up",
                "link add eth0 type veth peer name far",
                "addr add 10.77.0.2/24 dev eth0",
                "link set eth0 up",
            ],
            ifname: "net1",
            ..bridge(
                "pod with another interface",
                r#"{"isGateway":true,"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24",
                    "routes":[{"dst":"192.168.0.0/16"}]}}"#,
            )
        },
    ]
}

/// What a runtime asks for: MACs, addresses, ranges, dns.
fn requests() -> Vec<Case> {
    vec![
        Case {
            args: "MAC=02:00:00:00:00:01;IgnoreUnknown=1",
            ..bridge(
                "MAC of CNI_ARGS",
                r#"{"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#,
            )
        },
        bridge(
            "MAC of args",
            r#"{"args":{"cni":{"mac":"02:00:00:00:00:02"}},
                "ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#,
        ),
        bridge(
            "MAC of runtimeConfig",
            r#"{"capabilities":{"mac":true},"runtimeConfig":{"mac":"02:00:00:00:00:03"},
                "ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#,
        ),
        Case {
            since: "0.3.0",
            args: "MAC=02:00:00:00:00:01;IgnoreUnknown=1",
            ..bridge(
                "MAC of all three",
                r#"{"runtimeConfig":{"mac":"02:00:00:00:00:03"},"args":{"cni":{"mac":"02:00:00:00:00:02"}}}"#,
            )
        },
        Case {
            args: "MAC=02-00-00-00-00-0A;IP=10.1.2.77;IgnoreUnknown=1;K8S_POD_NAME=web-0",
            ..bridge(
                "podman's CNI_ARGS",
                r#"{"isGateway":true,"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#,
            )
        },
        Case {
            args: "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=c0;K8S_POD_UID=1-2",
            ..bridge(
                "CRI's CNI_ARGS",
                r#"{"isGateway":true,"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#,
            )
        },
        bridge(
            "address of args",
            r#"{"args":{"cni":{"ips":["10.1.2.78/24"]}},
                "ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#,
        ),
        bridge(
            "address of runtimeConfig",
            r#"{"capabilities":{"ips":true},"runtimeConfig":{"ips":["10.1.2.79","2001:db8:1::79"]},
                "ipam":{"type":"host-local","dataDir":"@DATA@",
                "ranges":[[{"subnet":"10.1.2.0/24"}],[{"subnet":"2001:db8:1::/64"}]]}}"#,
        ),
        bridge(
            "ranges of runtimeConfig",
            r#"{"isGateway":true,"capabilities":{"ipRanges":true},
                "runtimeConfig":{"ipRanges":[[{"subnet":"10.5.0.0/24","rangeStart":"10.5.0.50"}]]},
                "ipam":{"type":"host-local","dataDir":"@DATA@"}}"#,
        ),
        bridge(
            "dns of the configuration",
            r#"{"dns":{"nameservers":["10.1.2.3"],"domain":"example.org","search":["a","b"],"options":["ndots:5"]},
                "ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#,
        ),
        Case {
            file: Some((
                "resolv.conf",
                "# a remark\nnameserver 10.1.2.3\nnameserver 2001:db8::53 \ndomain example.org\nsearch a b\noptions ndots:5 rotate\n",
            )),
            ..bridge(
                "dns of resolvConf",
                r#"{"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24","resolvConf":"@DIR@/resolv.conf"}}"#,
            )
        },
        Case {
            file: Some(("resolv.conf", "nameserver 10.1.2.3\nsearch a\n")),
            ..bridge(
                "an empty dns list of the configuration wins",
                r#"{"dns":{"nameservers":[]},
                    "ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24","resolvConf":"@DIR@/resolv.conf"}}"#,
            )
        },
    ]
}

/// What JSON allows and people write.
fn spelling() -> Vec<Case> {
    vec![
        bridge(
            "odd case of keys",
            r#"{"ISGATEWAY":true,"Bridge":"oddbr","MTU":1450,"HairpinMODE":true,
                "IPAM":{"TYPE":"host-local","DATADIR":"@DATA@","SubNet":"10.1.2.0/24","Routes":[{"DST":"0.0.0.0/0"}]}}"#,
        ),
        bridge(
            "duplicate keys, the later wins",
            r#"{"isGateway":false,"ISGATEWAY":true,"mtu":1300,"mtu":1350,
                "ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.9.9.0/24","subnet":"10.1.2.0/24"}}"#,
        ),
        bridge(
            "unknown keys",
            r#"{"isGateway":true,"futureKey":{"a":[1,2]},"args":{"podman_options":{"x":1}},"backend":"",
                "ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24","other":null}}"#,
        ),
        bridge(
            "null values",
            r#"{"bridge":null,"isGateway":null,"mtu":null,"vlan":null,"dns":null,"args":null,"runtimeConfig":null,
                "capabilities":null,"prevResult":null,
                "ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24","routes":null,"ranges":null,"rangeEnd":null}}"#,
        ),
        bridge(
            "podman's configuration",
            r#"{"bridge":"cni-podman1","isGateway":true,"ipMasq":false,"hairpinMode":true,"capabilities":{"ips":true},
                "runtimeConfig":{"ips":["10.1.2.200"]},
                "ipam":{"type":"host-local","dataDir":"@DATA@","routes":[{"dst":"0.0.0.0/0"}],
                "ranges":[[{"subnet":"10.1.2.0/24","rangeStart":"10.1.2.128","rangeEnd":"10.1.2.255","gateway":"10.1.2.1"}]]}}"#,
        ),
        bridge(
            "an unknown key of deep arrays",
            concat!(
                r#"{"future":"#,
                "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
                "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
                "]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
                "]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
                r#","ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#
            ),
        ),
        bridge(
            "escapes and white space",
            "{\n\t\"bridge\" : \"br\\u002d7\" ,\r\n \"isGateway\" : true , \"ipam\" : { \"type\" : \"host\\u002dlocal\" ,\
             \"dataDir\" : \"@DATA@\" , \"subnet\" : \"10.1.2.0\\/24\" } } ",
        ),
    ]
}
