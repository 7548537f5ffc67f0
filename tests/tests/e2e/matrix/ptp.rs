//! The configurations of `ptp`. What the reference has not, such as a second address of a subnet, is in the module `ptp`
//! of these tests.

use super::Case;

const fn ptp(name: &'static str, text: &'static str) -> Case {
    Case::new(name, "ptp", text)
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        ptp("ptp: IPv4", r#"{"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#),
        ptp(
            "ptp: default route and others",
            r#"{"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24",
                "routes":[{"dst":"0.0.0.0/0"},{"dst":"192.168.0.0/16","gw":"10.1.2.9"},{"dst":"172.16.0.0/12"}]}}"#,
        ),
        Case {
            pods: 2,
            // The reference waits for duplicate address detection.
            since: "0.4.0",
            ..ptp(
                "ptp: two pods, dual stack",
                r#"{"ipam":{"type":"host-local","dataDir":"@DATA@",
                    "ranges":[[{"subnet":"10.1.2.0/24"}],[{"subnet":"2001:db8:1::/64"}]],
                    "routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"},{"dst":"2001:db8:f::/48","gw":"2001:db8:1::9"}]}}"#,
            )
        },
        Case {
            since: "1.0.0",
            ..ptp(
                "ptp: IPv6",
                r#"{"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"2001:db8:1::/64","gateway":"2001:db8:1::ff"}}"#,
            )
        },
        ptp(
            "ptp: mtu, dns, gateway of the range",
            r#"{"mtu":1400,"dns":{"nameservers":["10.1.2.3"]},
                "ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24","gateway":"10.1.2.254"}}"#,
        ),
        Case {
            since: "0.3.0",
            ..ptp(
                "ptp: two subnets of one family",
                r#"{"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24","ranges":[[{"subnet":"10.1.3.0/24"}]]}}"#,
            )
        },
        Case {
            ifname: "net1",
            host_sysctls: &[("net/ipv4/ip_forward", "1")],
            ..ptp(
                "ptp: static address, another name, forwarding is on",
                r#"{"MTU":1300,"ipam":{"type":"static","addresses":[{"address":"10.1.2.30/25","gateway":"10.1.2.1"}],
                    "routes":[{"dst":"10.0.0.0/8"}],"dns":{"nameservers":["10.1.2.1"]}}}"#,
            )
        },
    ]
}
