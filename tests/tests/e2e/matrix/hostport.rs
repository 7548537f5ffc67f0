//! Configurations of `portmap` and `firewall`: what they pass on and what they do to links and sysctls. Rules are
//! compared in `crate::hostport`, which knows that ours are another kind.

use super::Case;

/// A pod's result as the plugin before would hand it on, in the form that all versions from 0.3.0 on read.
const TEXT_OPEN: &str = r#"{"backend":"iptables","prevResult":{
    "interfaces":[{"name":"cni0","mac":"02:00:00:00:00:b0"},{"name":"eth0","sandbox":"@POD@"}],
    "ips":[{"version":"4","interface":1,"address":"10.1.2.3/24","gateway":"10.1.2.1"}],
    "routes":[{"dst":"0.0.0.0/0","gw":"10.1.2.1"}],"dns":{"nameservers":["10.1.2.1"]}}}"#;

const fn chained(name: &'static str, plugin: &'static str, text: &'static str) -> Case {
    Case { since: "0.3.0", ..Case::new(name, plugin, text) }
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case { since: "0.4.0", ..chained("firewall: open", "firewall", TEXT_OPEN) },
        chained("portmap: no mappings", "portmap", TEXT_OPEN),
        Case {
            // The reference's CHECK fails for pods of a single family.
            check: false,
            host: &[
                "link add cni0 address 02:00:00:00:00:b0 type bridge",
                "addr add 10.1.2.1/24 dev cni0",
                "link set cni0 up",
            ],
            ..chained(
                "portmap: a mapping of 127.0.0.1 too",
                "portmap",
                r#"{"runtimeConfig":{"portMappings":[{"HostPort":8080,"ContainerPort":80,"Protocol":"tcp","HostIP":""}]},
                    "prevResult":{"ips":[{"version":"4","address":"10.1.2.3/24"}]}}"#,
            )
        },
        Case {
            check: false,
            host: &[
                "link add cni0 address 02:00:00:00:00:b0 type bridge",
                "addr add 10.1.2.1/24 dev cni0",
                "link set cni0 up",
            ],
            ..chained(
                "portmap: without snat",
                "portmap",
                r#"{"snat":false,"runtimeConfig":{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"udp"}]},
                    "prevResult":{"ips":[{"version":"4","address":"10.1.2.3/24"}]}}"#,
            )
        },
    ]
}
