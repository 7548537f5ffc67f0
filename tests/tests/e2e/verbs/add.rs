//! ADD where ours goes beyond the reference: newer keys, 1.1.0 results, and defects that are mended.

use anyhow::{Result, ensure};
use podnet_tests::world::NETWORK;
use podnet_tests::{Side, World};

use super::{DUAL, V4, bridge};

fn add(text: &str) -> Result<(World, serde_json::Value)> {
    let world = World::new(Side::Podnet, 1)?;
    let result = bridge(&world, "ADD", text).run()?.result()?;
    bridge(&world, "CHECK", text).prev(&result).run()?.silent()?;
    Ok((world, result))
}

fn expect(world: &World, lines: &[(&str, &str)]) -> Result<()> {
    let facts = world.snapshot()?.facts;
    for (path, value) in lines {
        let seen = facts.get(path).unwrap_or("absent");
        ensure!(seen == *value, "{path}: expected {value}, seen {seen}");
    }
    Ok(())
}

#[test]
fn a_default_route_without_gateway_is_enough_for_isdefaultgateway() -> Result<()> {
    let (world, result) = add(
        r#"{"isDefaultGateway":true,"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24",
            "routes":[{"dst":"0.0.0.0/0"}]}}"#,
    )?;
    assert_eq!(result["routes"].as_array().map(Vec::len), Some(1));
    expect(
        &world,
        &[
            ("pod0/route/main/4/default/0/gateway", "10.1.2.1"),
            ("pod0/route/main/4/default/1/gateway", "absent"),
        ],
    )
}

#[test]
fn layer_3_works_on_a_bridge_that_a_layer_2_pod_emptied() -> Result<()> {
    for side in [Side::Podnet, Side::Debian] {
        let mut world = World::new(side, 2)?;
        world.call("bridge", "ADD").config("1.0.0", "{}").pod(0).run()?.result()?;
        world.call("bridge", "DEL").config("1.0.0", "{}").pod(0).run()?.silent()?;
        world.switch(Side::Podnet)?;
        bridge(&world, "ADD", DUAL).pod(1).run()?.result()?;
    }
    Ok(())
}

#[test]
fn the_attributes_of_a_route_reach_the_kernel() -> Result<()> {
    let (world, result) = add(r#"{"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24",
            "routes":[{"dst":"192.168.0.0/16","gw":"10.1.2.9","mtu":1300,"advmss":1200,"priority":7,"table":100},
                      {"dst":"10.20.0.0/16","scope":253}]}}"#)?;
    assert_eq!(
        result["routes"],
        serde_json::json!([
            {"dst":"192.168.0.0/16","gw":"10.1.2.9","mtu":1300,"advmss":1200,"priority":7,"table":100},
            {"dst":"10.20.0.0/16","scope":253}
        ])
    );
    let facts = world.snapshot()?.facts;
    let route = "pod0/route/100/4/192.168.0.0_16/0";
    for (key, value) in [("gateway", "10.1.2.9"), ("metric", "7"), ("dev", "eth0")] {
        assert_eq!(facts.get(&format!("{route}/{key}")), Some(value), "{key}");
    }
    let metrics = facts.get(&format!("{route}/metrics")).unwrap_or_default();
    ensure!(metrics.contains("1300") && metrics.contains("1200"), "metrics {metrics}");
    expect(&world, &[("pod0/route/main/4/10.20.0.0_16/0/scope", "link")])
}

#[test]
fn port_isolation_is_a_bridge_port_option() -> Result<()> {
    let (world, _) = add(
        r#"{"portIsolation":true,"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#,
    )?;
    expect(&world, &[("host/link/veth0/port/isolated", "true")])
}

#[test]
fn disablecontainerinterface_leaves_the_link_down() -> Result<()> {
    let (world, result) = add(r#"{"disableContainerInterface":true}"#)?;
    expect(
        &world,
        &[
            ("pod0/link/eth0/kind", "veth"),
            ("pod0/link/eth0/flag/UP", "absent"),
            ("host/link/veth0/master", "cni0"),
        ],
    )?;
    assert_eq!(result["interfaces"][2]["name"], "eth0");
    Ok(())
}

#[test]
fn the_result_of_1_1_0_is_that_of_1_0_0() -> Result<()> {
    let (_, result) = add(DUAL)?;
    assert_eq!(result["cniVersion"], "1.1.0");
    assert_eq!(result["ips"][0]["address"], "10.1.2.2/24");
    assert_eq!(result["ips"][1]["gateway"], "2001:db8:1::1");
    assert_eq!(result["ips"][1]["interface"], 2);
    assert!(result.get("dns").is_none(), "an empty dns is left out");
    Ok(())
}

#[test]
fn the_bridge_keeps_its_mac_when_pods_come_and_go() -> Result<()> {
    let world = World::new(Side::Podnet, 4)?;
    let text = r#"{"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#;
    let mut macs = std::collections::BTreeSet::new();
    for pod in 0..4 {
        let result = bridge(&world, "ADD", text).pod(pod).run()?.result()?;
        macs.insert(result["interfaces"][0]["mac"].to_string());
    }
    for pod in 0..3 {
        bridge(&world, "DEL", text).pod(pod).run()?.silent()?;
        macs.insert(format!("{:?}", world.snapshot()?.host.macs["cni0"]));
    }
    assert_eq!(macs.len(), 1, "{macs:?}");
    Ok(())
}

#[test]
fn a_chained_loopback_passes_the_result_on() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let previous = world.call("bridge", "ADD").config(version, DUAL).run()?.result()?;
        let passed = world.call("loopback", "ADD").config(version, "{}").prev(&previous).run()?.result()?;
        assert_eq!(passed, previous, "{version}");
        world.call("bridge", "DEL").config(version, DUAL).run()?.silent()?;
    }
    Ok(())
}

#[test]
fn capability_keys_of_containerd_are_no_hindrance() -> Result<()> {
    add(&V4.replace(
        "{\"isGateway\":true",
        r#"{"isGateway":true,"capabilities":{"portMappings":true,"bandwidth":true},
            "runtimeConfig":{"portMappings":[{"HostPort":8080,"ContainerPort":80,"Protocol":"tcp","HostIP":""}],
            "bandwidth":{"IngressRate":1000,"IngressBurst":4294967295},"ipRanges":null}"#,
    ))
    .map(drop)
}

#[test]
fn a_configuration_of_two_mebibytes_is_read() -> Result<()> {
    let big =
        V4.replace("{\"isGateway\"", &format!("{{\"future\":\"{}\",\"isGateway\"", "x".repeat(2 << 20)));
    add(&big).map(drop)
}

#[test]
fn the_same_namespace_is_allowed_when_the_runtime_says_so() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    for word in ["1", "true", "TRUE"] {
        let host = world.path_of(&world.host);
        let call = bridge(&world, "ADD", V4).env("CNI_NETNS", host.clone()).env("CNI_NETNS_OVERRIDE", word);
        call.run()?.result()?;
        bridge(&world, "DEL", V4).env("CNI_NETNS", host).env("CNI_NETNS_OVERRIDE", word).run()?.silent()?;
    }
    assert_eq!(world.reservations(NETWORK)?, Vec::<String>::new());
    Ok(())
}

#[test]
fn a_delegate_of_debian_serves_our_bridge_and_ours_serves_debians() -> Result<()> {
    let world = World::new(Side::Podnet, 2)?;
    let debian = Side::Debian.dir()?;
    let first = world.call("bridge", "ADD").config("1.0.0", V4).env("CNI_PATH", &debian).run()?.result()?;
    assert_eq!(first["ips"][0]["address"], "10.1.2.2/24");
    let mut world = world;
    let ours = world.plugins().to_path_buf();
    world.switch(Side::Debian)?;
    let second =
        world.call("bridge", "ADD").config("1.0.0", V4).pod(1).env("CNI_PATH", &ours).run()?.result()?;
    assert_eq!(second["ips"][0]["address"], "10.1.2.3/24");
    world.call("bridge", "DEL").config("1.0.0", V4).pod(1).env("CNI_PATH", &ours).run()?.silent()?;
    world.switch(Side::Podnet)?;
    world.call("bridge", "DEL").config("1.0.0", V4).env("CNI_PATH", &debian).run()?.silent()?;
    assert_eq!(world.reservations(NETWORK)?, Vec::<String>::new());
    Ok(())
}
