//! The configurations of `host-device`.

use super::Case;

/// The node's device and where it leads.
const DEVICE: &[&str] = &[
    "link add dev0 address 02:00:00:00:00:d0 type veth peer name far0 address 02:00:00:00:00:f0",
    "addr add 10.50.0.1/24 dev dev0",
    "link set far0 up",
    "link set dev0 up",
];

const fn device(name: &'static str, text: &'static str) -> Case {
    Case { host: DEVICE, ..Case::new(name, "host-device", text) }
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case { since: "0.3.0", ..device("host-device: by name, without addresses", r#"{"device":"dev0"}"#) },
        device(
            "host-device: by MAC, IPv4",
            r#"{"hwaddr":"02:00:00:00:00:D0","ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24",
                "routes":[{"dst":"192.168.0.0/16","gw":"10.1.2.1"},{"dst":"10.0.0.0/8"}]}}"#,
        ),
        Case {
            ifname: "net1",
            ..device(
                "host-device: static address and dns",
                r#"{"Device":"dev0","dns":{"nameservers":["10.1.2.3"]},
                    "ipam":{"type":"static","addresses":[{"address":"10.1.2.30/24","gateway":"10.1.2.1"}]}}"#,
            )
        },
        Case {
            since: "1.0.0",
            ..device(
                "host-device: dual stack",
                r#"{"device":"dev0","ipam":{"type":"host-local","dataDir":"@DATA@",
                    "ranges":[[{"subnet":"10.1.2.0/24"}],[{"subnet":"2001:db8:1::/64"}]],"routes":[{"dst":"::/0"}]}}"#,
            )
        },
    ]
}
