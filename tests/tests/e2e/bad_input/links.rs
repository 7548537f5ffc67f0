//! Keys and values of `macvlan`, `ipvlan` and `vlan`, and a node or pod that is in their way. What needs a device that a
//! kernel may lack is in `devices`.

use anyhow::Result;
use podnet_tests::World;

use super::{Bad, conf};

pub(super) fn cases() -> Vec<Bad> {
    let mut cases = types();
    cases.extend(values());
    cases.extend(surroundings());
    cases
}

/// A link to stand on, which is the default route's.
fn uplink(world: &World) -> Result<()> {
    world.host_ip(&[
        "link add up0 address 02:00:00:00:0a:01 type veth peer name far0",
        "link set up0 up",
        "addr add 10.1.2.254/24 dev up0 noprefixroute",
        "route add default dev up0",
    ])
}

/// The uplink carries a macvlan already.
fn busy_uplink(world: &World) -> Result<()> {
    uplink(world)?;
    world.host_ip(&["link add m0 link up0 address 02:00:00:00:0a:02 type macvlan mode bridge"])
}

/// `conf` with the link to stand on.
fn on_uplink(plugin: &'static str, name: impl Into<String>, text: impl Into<String>) -> Bad {
    conf(plugin, name, text).prepare(uplink)
}

/// Each key with JSON of another type.
fn types() -> Vec<Bad> {
    let mut cases = Vec::new();
    for (plugin, key, values) in [
        ("macvlan", "master", &["1", "[]"][..]),
        ("macvlan", "mode", &["1", "{}"]),
        ("macvlan", "mtu", &["\"1500\"", "1500.5"]),
        ("macvlan", "mac", &["5"]),
        ("macvlan", "dns", &["\"10.0.0.1\""]),
        ("ipvlan", "master", &["1"]),
        ("ipvlan", "mode", &["true"]),
        ("ipvlan", "mtu", &["\"1500\""]),
        ("vlan", "master", &["1"]),
        ("vlan", "vlanId", &["\"5\"", "5.5", "[5]"]),
        ("vlan", "mtu", &["\"1500\""]),
    ] {
        for value in values {
            cases.push(
                conf(plugin, format!("{value} for {key}"), format!("{{{key:?}:{value}}}"))
                    .says(6, key)
                    .other_words(),
            );
        }
    }
    // Keys that came after 1.1.1.
    for (plugin, key, value) in [
        ("macvlan", "linkInContainer", "\"x\""),
        ("macvlan", "bcqueuelen", "-1"),
        ("macvlan", "bcqueuelen", "\"5\""),
        ("macvlan", "macFrom", "5"),
        ("ipvlan", "linkInContainer", "1"),
        ("vlan", "linkInContainer", "1"),
    ] {
        let text = format!(r#"{{"master":"up0","vlanId":5,{key:?}:{value}}}"#);
        cases.push(conf(plugin, format!("{value} for {key}"), text).says(6, key).other_words());
    }
    cases
}

fn values() -> Vec<Bad> {
    let mut cases = vec![
        on_uplink("macvlan", "mode source", r#"{"mode":"source"}"#)
            .says(7, "unknown macvlan mode: \"source\"")
            .same_words(),
        on_uplink("macvlan", "mtu -1", r#"{"mtu":-1}"#).says(7, "mtu -1").other_words(),
        on_uplink("macvlan", "mtu above the master's", r#"{"mtu":1501}"#)
            .says(7, "invalid MTU 1501, must be [0, master MTU(1500)]")
            .same_words(),
        on_uplink("macvlan", "mac is cut", r#"{"mac":"02:00"}"#).says(7, "02:00").other_words(),
        on_uplink("macvlan", "mac is a group's", r#"{"mac":"03:00:00:00:00:01"}"#)
            .says(999, "annot assign requested address")
            .other_words(),
        on_uplink("macvlan", "MAC of CNI_ARGS is cut", "{}")
            .env("CNI_ARGS", "MAC=02:00")
            .says(7, "02:00")
            .other_words(),
        on_uplink("macvlan", "unknown CNI_ARGS", "{}")
            .env("CNI_ARGS", "MAC=02:00:00:00:00:01;K8S_POD_NAME=x")
            .says(4, "unknown args [\"K8S_POD_NAME=x\"]")
            .same_words(),
        on_uplink("macvlan", "runtimeConfig.mac is cut", r#"{"runtimeConfig":{"mac":"02:00"}}"#)
            .says(7, "02:00")
            .other_words(),
        on_uplink("macvlan", "macFrom of another thing", r#"{"macFrom":"node"}"#)
            .says(7, "macFrom")
            .ours_alone(),
        on_uplink("macvlan", "macFrom beside mac", r#"{"macFrom":"attachment","mac":"02:00:00:00:00:01"}"#)
            .says(7, "mac and macFrom exclude each other")
            .ours_alone(),
        on_uplink("ipvlan", "mode bridge", r#"{"master":"up0","mode":"bridge"}"#)
            .says(7, "unknown ipvlan mode: \"bridge\"")
            .same_words(),
        on_uplink("ipvlan", "mtu -1", r#"{"master":"up0","mtu":-1}"#).says(7, "mtu -1").other_words(),
        on_uplink(
            "ipvlan",
            "no master, and a plugin before it with two interfaces",
            r#"{"prevResult":{"cniVersion":"1.0.0","interfaces":[{"name":"a"},{"name":"b"}]}}"#,
        )
        .says(7, "chained master failure. PrevResult lacks a single named interface")
        .same_words(),
        conf("vlan", "no master", r#"{"vlanId":5}"#).says(7, "\"master\"").same_words(),
        on_uplink("vlan", "mtu above the master's", r#"{"master":"up0","vlanId":5,"mtu":1501}"#)
            .says(7, "invalid MTU 1501, must be [0, master MTU(1500)]")
            .same_words(),
    ];
    for id in ["-1", "4096"] {
        cases.push(
            on_uplink("vlan", format!("vlanId {id}"), format!(r#"{{"master":"up0","vlanId":{id}}}"#))
                .says(7, format!("invalid VLAN ID {id} (must be between 0 and 409"))
                .same_words(),
        );
    }
    cases
}

/// What stands in the way on the node or in the pod.
fn surroundings() -> Vec<Bad> {
    let mut cases = vec![
        conf("macvlan", "no default route", "{}").says(999, "no default route interface found"),
        conf("ipvlan", "no default route", "{}").says(999, "no default route interface found"),
        on_uplink("macvlan", "no default route in the pod", r#"{"linkInContainer":true}"#)
            .says(999, "no default route interface found in the pod")
            // The reference of 1.1.1 looks on the node.
            .ours_alone(),
        on_uplink("macvlan", "the interface name is taken in the pod", "{}")
            .prepare(|world| {
                uplink(world)?;
                world.pod_ip(0, &["link add eth0 type veth peer name far"])
            })
            .says(999, "interface name \"eth0\" already exists in the pod")
            .other_words(),
        on_uplink("macvlan", "the interface name is lo", "{}")
            .env("CNI_IFNAME", "lo")
            .says(999, "interface name \"lo\" already exists in the pod")
            .other_words(),
        conf("macvlan", "passthru on a busy link", r#"{"mode":"passthru"}"#)
            .prepare(busy_uplink)
            .says(999, "create macvlan \"eth0\" in the pod")
            .other_words(),
        on_uplink("macvlan", "master is lo", r#"{"master":"lo"}"#)
            .says(999, "create macvlan \"eth0\" in the pod")
            .other_words(),
        on_uplink("macvlan", "no address at all", r#"{"ipam":{"type":"static"}}"#)
            .says(999, "IPAM plugin returned missing IP config"),
        on_uplink("macvlan", "an IPAM plugin that is not there", r#"{"ipam":{"type":"nope"}}"#)
            .says(999, "failed to find plugin \"nope\" in path"),
        on_uplink(
            "macvlan",
            "a route through a gateway that is not reachable",
            r#"{"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24",
                "routes":[{"dst":"192.168.0.0/16","gw":"172.16.0.1"}]}}"#,
        )
        .says(999, "192.168.0.0/16")
        .other_words(),
        on_uplink("macvlan", "layer 2 with version 0.2.0", "{}")
            .version("0.2.0")
            .says(999, "cannot convert: no valid IP addresses"),
        on_uplink("macvlan", "no prevResult", "{}")
            .verb("CHECK")
            .says(7, "Required prevResult missing")
            .same_words(),
        conf("macvlan", "no default route on STATUS", "{}")
            .verb("STATUS")
            .version("1.1.0")
            .says(50, "no default route interface found")
            .ours_alone(),
    ];
    for plugin in ["macvlan", "ipvlan", "vlan"] {
        cases.push(
            on_uplink(plugin, "master is not there", r#"{"master":"nope","vlanId":5}"#)
                .says(999, "master \"nope\" not found on the node")
                .other_words(),
        );
    }
    cases
}
