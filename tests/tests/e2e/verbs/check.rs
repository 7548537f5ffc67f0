//! CHECK succeeds after ADD, and finds each single thing that goes missing.

use anyhow::{Context, Result, ensure};
use podnet_tests::world::NETWORK;
use podnet_tests::{Side, World};

use super::{DUAL, bridge};

/// Does something to a checked pod; CHECK must fail then, with these words.
fn finds(spoil: impl Fn(&World) -> Result<()>, words: &str) -> Result<()> {
    for version in ["0.4.0", "1.0.0", "1.1.0"] {
        let world = World::new(Side::Podnet, 1)?;
        let result = world.call("bridge", "ADD").config(version, DUAL).run()?.result()?;
        let check = world.call("bridge", "CHECK").config(version, DUAL).prev(&result);
        check.run()?.silent()?;
        spoil(&world)?;
        let error = check.run()?.error()?;
        ensure!(error.msg.contains(words), "expected {words:?}, seen {error:?}");
    }
    Ok(())
}

#[test]
fn check_finds_a_missing_link() -> Result<()> {
    finds(|world| world.pod_ip(0, &["link del eth0"]), "eth0")
}

#[test]
fn check_finds_a_link_that_is_down() -> Result<()> {
    finds(|world| world.pod_ip(0, &["link set eth0 down"]), "eth0")
}

#[test]
fn check_finds_a_link_of_another_kind() -> Result<()> {
    finds(
        |world| {
            world.pod_ip(
                0,
                &[
                    "link set eth0 down",
                    "link set eth0 name old",
                    "link add eth0 type bridge",
                    "link set eth0 up",
                ],
            )
        },
        "eth0",
    )
}

#[test]
fn check_finds_another_mac() -> Result<()> {
    finds(|world| world.pod_ip(0, &["link set eth0 address 02:00:00:00:00:99"]), "02:00:00:00:00:99")
}

#[test]
fn check_finds_a_missing_address_of_either_family() -> Result<()> {
    finds(|world| world.pod_ip(0, &["addr del 10.1.2.2/24 dev eth0"]), "10.1.2.2/24")?;
    finds(|world| world.pod_ip(0, &["addr del 2001:db8:1::2/64 dev eth0"]), "2001:db8:1::2/64")
}

#[test]
fn check_finds_another_prefix_length() -> Result<()> {
    finds(
        |world| world.pod_ip(0, &["addr add 10.1.2.2/25 dev eth0", "addr del 10.1.2.2/24 dev eth0"]),
        "10.1.2.2/24",
    )
}

#[test]
fn check_finds_a_missing_route() -> Result<()> {
    finds(|world| world.pod_ip(0, &["route del 192.168.0.0/16"]), "192.168.0.0/16")?;
    finds(|world| world.pod_ip(0, &["route del default"]), "0.0.0.0/0")?;
    finds(|world| world.pod_ip(0, &["-6 route del default"]), "::/0")
}

#[test]
fn check_finds_a_missing_bridge() -> Result<()> {
    finds(|world| world.host_ip(&["link del cni0"]), "cni0")
}

#[test]
fn check_finds_a_bridge_that_is_another_kind_of_link() -> Result<()> {
    finds(|world| world.host_ip(&["link del cni0", "link add cni0 type veth peer name far"]), "cni0")
}

#[test]
fn check_finds_a_detached_port() -> Result<()> {
    finds(|world| world.host_ip(&[&format!("link set {} nomaster", port(world)?)]), "cni0")
}

#[test]
fn check_finds_a_wrong_master() -> Result<()> {
    finds(
        |world| {
            world.host_ip(&["link add other type bridge", &format!("link set {} master other", port(world)?)])
        },
        "other",
    )
}

#[test]
fn check_finds_a_port_that_is_down() -> Result<()> {
    finds(|world| world.host_ip(&[&format!("link set {} down", port(world)?)]), "down")
}

#[test]
fn check_finds_a_missing_gateway_address() -> Result<()> {
    finds(|world| world.host_ip(&["addr del 10.1.2.1/24 dev cni0"]), "10.1.2.1")
}

#[test]
fn check_finds_a_missing_reservation() -> Result<()> {
    finds(
        |world| {
            for ip in world.reservations(NETWORK)? {
                std::fs::remove_file(world.data().join(NETWORK).join(ip))?;
            }
            Ok(())
        },
        "Failed to find address added by container c0",
    )
}

#[test]
fn check_finds_another_hairpin_mode() -> Result<()> {
    finds(
        |world| world.host_ip(&[&format!("link set {} type bridge_slave hairpin on", port(world)?)]),
        "hairpin",
    )
}

/// The name, as it is, of the only port on the node's bridge.
fn port(world: &World) -> Result<String> {
    let output = world
        .host
        .run(|| std::process::Command::new("ip").args(["-j", "link", "show", "type", "veth"]).output())??;
    let links: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    Ok(links[0]["ifname"].as_str().context("no veth")?.to_owned())
}

#[test]
fn check_does_not_mind_what_others_add() -> Result<()> {
    let world = World::new(Side::Podnet, 3)?;
    let result = bridge(&world, "ADD", DUAL).run()?.result()?;
    let check = bridge(&world, "CHECK", DUAL).prev(&result);
    // Other pods come and go: the bridge must not change its MAC with them.
    for pod in 1..3 {
        bridge(&world, "ADD", DUAL).pod(pod).run()?.result()?;
        check.run()?.silent()?;
    }
    bridge(&world, "DEL", DUAL).pod(1).run()?.silent()?;
    check.run()?.silent()?;
    // A chained plugin adds an address and a route, and makes the bridge promiscuous.
    world.pod_ip(0, &["addr add 10.9.9.9/32 dev eth0", "route add 10.8.0.0/16 dev eth0"])?;
    world.host_ip(&["link set cni0 promisc on"])?;
    check.run()?.silent()
}

#[test]
fn check_of_layer_2_succeeds() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    let result = bridge(&world, "ADD", "{}").run()?.result()?;
    bridge(&world, "CHECK", "{}").prev(&result).run()?.silent()
}

#[test]
fn check_looks_for_a_route_in_its_own_table() -> Result<()> {
    let text = r#"{"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24",
        "routes":[{"dst":"192.168.0.0/16","table":100,"priority":7}]}}"#;
    let world = World::new(Side::Podnet, 1)?;
    let result = bridge(&world, "ADD", text).run()?.result()?;
    let check = bridge(&world, "CHECK", text).prev(&result);
    check.run()?.silent()?;
    world.pod_ip(0, &["route del 192.168.0.0/16 table 100"])?;
    ensure!(check.run()?.error()?.msg.contains("192.168.0.0/16"));
    Ok(())
}

#[test]
fn check_of_loopback_finds_lo_down() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    let result = world.call("loopback", "ADD").config("1.1.0", "{}").run()?.result()?;
    let check = world.call("loopback", "CHECK").config("1.1.0", "{}").prev(&result);
    check.run()?.silent()?;
    world.pod_ip(0, &["link set lo down"])?;
    ensure!(check.run()?.error()?.msg.contains("loopback interface is down"));
    Ok(())
}
