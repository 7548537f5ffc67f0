//! The kernel itself, by `ip` and `bridge` alone: what the plugins need can be made and is read back as asked for. A failure here
//! is the machine's, not a plugin's.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use kernel::netns::Netns;
use podnet_tests::devices;
use serde_json::Value;

/// Runs a program in a namespace; its stdout.
fn run(netns: &Netns, command: &str) -> Result<String> {
    let words: Vec<&str> = command.split_whitespace().collect();
    let output = netns.run(|| Command::new(words[0]).args(&words[1..]).output())?.context("start")?;
    ensure!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `linkinfo` of a link, as `ip` shows it.
fn linkinfo(netns: &Netns, name: &str) -> Result<Value> {
    let links: Value = serde_json::from_str(&run(netns, &format!("ip -d -j link show dev {name}"))?)?;
    Ok(links[0]["linkinfo"].clone())
}

/// A namespace with a veth pair `parent`, `far` that is up.
fn with_parent() -> Result<Netns> {
    let netns = Netns::create()?;
    run(&netns, "ip link add parent type veth peer name far")?;
    run(&netns, "ip link set parent up")?;
    run(&netns, "ip link set far up")?;
    Ok(netns)
}

#[test]
fn device_vlan_has_its_tag() -> Result<()> {
    if !devices::require("vlan")? {
        return Ok(());
    }
    let netns = with_parent()?;
    run(&netns, "ip link add v link parent type vlan id 4094")?;
    let info = linkinfo(&netns, "v")?;
    assert_eq!(info["info_kind"], "vlan");
    assert_eq!(info["info_data"]["id"], 4094);
    assert_eq!(info["info_data"]["protocol"], "802.1Q");
    Ok(())
}

#[test]
fn device_ipvlan_has_its_mode() -> Result<()> {
    if !devices::require("ipvlan")? {
        return Ok(());
    }
    // One parent has one mode for all its links.
    for mode in ["l2", "l3", "l3s"] {
        let netns = with_parent()?;
        run(&netns, &format!("ip link add i link parent type ipvlan mode {mode}"))?;
        let info = linkinfo(&netns, "i")?;
        assert_eq!(info["info_kind"], "ipvlan");
        assert_eq!(info["info_data"]["mode"], mode);
    }
    Ok(())
}

#[test]
fn device_dummy_carries_an_address() -> Result<()> {
    if !devices::require("dummy")? {
        return Ok(());
    }
    let netns = Netns::create()?;
    run(&netns, "ip link add d up type dummy")?;
    run(&netns, "ip addr add 10.9.8.7/24 dev d")?;
    assert_eq!(linkinfo(&netns, "d")?["info_kind"], "dummy");
    assert!(run(&netns, "ip route show dev d")?.contains("10.9.8.0/24"));
    Ok(())
}

#[test]
fn device_vrf_owns_its_table() -> Result<()> {
    if !devices::require("vrf")? {
        return Ok(());
    }
    let netns = with_parent()?;
    run(&netns, "ip link add red up type vrf table 4711")?;
    run(&netns, "ip addr add 10.9.8.7/24 dev parent")?;
    run(&netns, "ip link set parent master red")?;
    assert_eq!(linkinfo(&netns, "red")?["info_data"]["table"], 4711);
    assert!(run(&netns, "ip route show table 4711")?.contains("10.9.8.0/24 dev parent"));
    Ok(())
}

#[test]
fn device_bridge_vlan_is_filtered_per_port() -> Result<()> {
    if !devices::require("bridge-vlan")? {
        return Ok(());
    }
    let netns = with_parent()?;
    run(&netns, "ip link add br up type bridge vlan_filtering 1 vlan_default_pvid 0")?;
    run(&netns, "ip link set parent master br")?;
    run(&netns, "bridge vlan add dev parent vid 100 pvid untagged")?;
    run(&netns, "bridge vlan add dev parent vid 200-202")?;
    assert_eq!(linkinfo(&netns, "br")?["info_data"]["vlan_filtering"], 1);
    let vlans: Value = serde_json::from_str(&run(&netns, "bridge -j vlan show dev parent")?)?;
    let ids: Vec<_> =
        vlans[0]["vlans"].as_array().into_iter().flatten().map(|v| v["vlan"].as_u64()).collect();
    assert_eq!(ids, [Some(100), Some(200), Some(201), Some(202)]);
    assert_eq!(vlans[0]["vlans"][0]["flags"], serde_json::json!(["PVID", "Egress Untagged"]));
    Ok(())
}
