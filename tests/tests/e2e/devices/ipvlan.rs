//! `ipvlan` on a kernel that has it.
//!
//! ```text
//!   host ── up0 ═ far0
//!            ├─ eth0 in pod0      all with the MAC of up0
//!            └─ eth0 in pod1
//! ```

use anyhow::{Context, Result, ensure};
use podnet_tests::devices;
use podnet_tests::process::Stdout;
use podnet_tests::world::NETWORK;
use serde_json::json;

use super::node::{INTENDED, call, eth0, finds, live_and_die, reaches, world};
use crate::matrix::{Case, compare_device};
use crate::rollback::add_fails_without_a_trace;

const V4: &str = r#"{"master":"up0","ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#;

#[test]
fn device_ipvlan_lives_and_dies_in_each_mode() -> Result<()> {
    if !devices::require("ipvlan")? {
        return Ok(());
    }
    for mode in ["l2", "l3", "l3s"] {
        let world = world(1)?;
        let text = format!(
            r#"{{"mode":"{mode}","mtu":1400,"ipam":{{"type":"host-local","dataDir":"@DATA@",
                "ranges":[[{{"subnet":"10.1.2.0/24"}}],[{{"subnet":"2001:db8:1::/64"}}]],
                "routes":[{{"dst":"0.0.0.0/0"}},{{"dst":"::/0"}}]}}}}"#
        );
        let look = |result: &serde_json::Value| {
            let link = eth0(&world, 0)?;
            ensure!(link["linkinfo"]["info_kind"] == "ipvlan" && link["mtu"] == 1400, "{link}");
            ensure!(link["linkinfo"]["info_data"]["mode"] == mode, "{link}");
            ensure!(link["address"] == "02:00:00:00:0a:01", "the MAC is not the master's: {link}");
            let only = result["interfaces"].as_array().context("interfaces")?;
            ensure!(only.len() == 1 && only[0]["mac"] == "02:00:00:00:0a:01", "{result}");
            Ok(())
        };
        live_and_die(&world, "ipvlan", &text, look).with_context(|| mode.to_owned())?;
    }
    Ok(())
}

#[test]
fn device_ipvlan_takes_link_and_addresses_of_the_plugin_before_it() -> Result<()> {
    if !devices::require("ipvlan")? {
        return Ok(());
    }
    let world = world(1)?;
    let previous = json!({"cniVersion": "1.1.0", "interfaces": [{"name": "up0"}],
        "ips": [{"address": "10.1.2.9/24", "interface": 0}], "routes": [{"dst": "192.168.0.0/16", "gw": "10.1.2.1"}],
        "dns": {"nameservers": ["10.1.2.3"]}});
    let result = call(&world, "ipvlan", "ADD", "{}").prev(&previous).run()?.result()?;
    ensure!(result["interfaces"][0]["name"] == "eth0" && result["interfaces"][1].is_null(), "{result}");
    ensure!(
        result["ips"][0]["address"] == "10.1.2.9/24" && result["dns"]["nameservers"][0] == "10.1.2.3",
        "{result}"
    );
    call(&world, "ipvlan", "CHECK", "{}").prev(&result).run()?.silent()?;
    world.pod_ip(0, &["route get 192.168.0.1"])?;
    // The reference's DEL fails on a result with several interfaces and no master.
    let several = json!({"cniVersion": "1.1.0", "interfaces": [{"name": "a"}, {"name": "b"}]});
    call(&world, "ipvlan", "DEL", "{}").prev(&several).run()?.silent()?;
    ensure!(world.snapshot()?.pods[0].macs.keys().eq(["lo"]));
    Ok(())
}

/// The reference releases neither address nor link when the interface cannot be configured (plugins PR#560).
#[test]
fn device_ipvlan_leaves_neither_link_nor_address_after_a_failed_add() -> Result<()> {
    if !devices::require("ipvlan")? {
        return Ok(());
    }
    let text = V4.replace("}}", r#","routes":[{"dst":"192.168.0.0/16","gw":"172.16.0.1"}]}}"#);
    add_fails_without_a_trace(&world(1)?, "ipvlan", &text, "1.0.0", Stdout::Read)?;
    Ok(())
}

#[test]
fn device_ipvlan_is_deleted_without_its_master() -> Result<()> {
    if !devices::require("ipvlan")? {
        return Ok(());
    }
    let world = world(1)?;
    call(&world, "ipvlan", "ADD", V4).run()?.result()?;
    world.host_ip(&["link del up0"])?;
    call(&world, "ipvlan", "DEL", V4).run()?.silent()?;
    ensure!(world.reservations(NETWORK)?.is_empty());
    Ok(())
}

#[test]
fn device_ipvlan_check_finds_another_mode() -> Result<()> {
    if !devices::require("ipvlan")? {
        return Ok(());
    }
    let spoil = |world: &podnet_tests::World, _: &_| world.pod_ip(0, &["link set eth0 type ipvlan mode l3"]);
    finds("ipvlan", V4, spoil, "mode is l3, not l2")
}

#[test]
fn device_ipvlan_pods_reach_one_another() -> Result<()> {
    if !devices::require("ipvlan")? {
        return Ok(());
    }
    let world = world(2)?;
    for pod in 0..2 {
        call(&world, "ipvlan", "ADD", V4).pod(pod).run()?.result()?;
    }
    ensure!(reaches(&world.pods[0], &world.pods[1], "10.1.2.3")?);
    Ok(())
}

#[test]
fn device_ipvlan_does_what_the_reference_does() -> Result<()> {
    if !devices::require("ipvlan")? {
        return Ok(());
    }
    const HOST: &[&str] = &[
        "link add up0 address 02:00:00:00:0a:01 type veth peer name far0",
        "link set far0 up",
        "link set up0 up",
        "addr add 10.1.2.254/24 dev up0",
        "route add default via 10.1.2.253",
    ];
    let ipvlan = |name, text| Case { host: HOST, ..Case::new(name, "ipvlan", text) };
    let cases = [
        ipvlan("ipvlan", V4),
        ipvlan(
            "ipvlan l3 dual stack",
            r#"{"master":"up0","mode":"l3","mtu":1400,"ipam":{"type":"host-local","dataDir":"@DATA@",
                "ranges":[[{"subnet":"10.1.2.0/24"}],[{"subnet":"2001:db8:1::/64"}]],"routes":[{"dst":"0.0.0.0/0"}]}}"#,
        ),
    ];
    compare_device(&cases, INTENDED)
}
