//! A node is switched from the reference plugins to ours, or back, with pods running.
//!
//! ```text
//!   Debian's ADD ── our CHECK ── our DEL ── nothing left
//!   our ADD ── Debian's CHECK ── Debian's DEL ── nothing left
//! ```

use anyhow::{Result, ensure};
use podnet_tests::world::NETWORK;
use podnet_tests::{Side, World};

/// Configurations that a cluster would run with; the first two words are the name of the test's output.
const CONFIGS: [(&str, &str); 5] = [
    (
        "IPv4 gateway",
        r#"{"isDefaultGateway":true,"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#,
    ),
    (
        "dual stack",
        r#"{"isDefaultGateway":true,"hairpinMode":true,"ipam":{"type":"host-local","dataDir":"@DATA@",
            "ranges":[[{"subnet":"10.1.2.0/24"}],[{"subnet":"2001:db8:1::/64"}]]}}"#,
    ),
    (
        "IPv6 with routes",
        r#"{"isGateway":true,"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"2001:db8:1::/64",
            "routes":[{"dst":"::/0"},{"dst":"2001:db8:f::/48","gw":"2001:db8:1::9"}]}}"#,
    ),
    (
        "two sets of one family",
        r#"{"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24","ranges":[[{"subnet":"10.1.3.0/24"}]]}}"#,
    ),
    (
        "promisc and mtu",
        r#"{"isGateway":true,"promiscMode":true,"mtu":1400,
            "ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#,
    ),
];

/// Two pods of `from`, checked and deleted by `to`, then a pod of `to` in what is left of the node.
fn hand_over(from: Side, to: Side, text: &str, version: &str) -> Result<()> {
    let mut world = World::new(from, 3)?;
    let pods_before =
        world.snapshot()?.facts.filtered(|path| path.starts_with("pod") && !path.contains("/conf/eth0/"));
    let mut results = Vec::new();
    for pod in 0..2 {
        results.push(world.call("bridge", "ADD").config(version, text).pod(pod).run()?.result()?);
    }
    world.switch(to)?;
    for (pod, result) in results.iter().enumerate() {
        if version >= "0.4.0" {
            world.call("bridge", "CHECK").config(version, text).pod(pod).prev(result).run()?.silent()?;
        }
    }
    // A pod of the new side beside those of the old one takes none of their addresses.
    let newcomer = world.call("bridge", "ADD").config(version, text).pod(2).run()?.result()?;
    ensure!(world.reservations(NETWORK)?.len() % 3 == 0, "reservations {:?}", world.reservations(NETWORK)?);
    world.call("bridge", "DEL").config(version, text).pod(2).prev(&newcomer).run()?.silent()?;
    for (pod, result) in results.iter().enumerate() {
        let del = world.call("bridge", "DEL").config(version, text).pod(pod);
        let del = if version >= "0.4.0" { del.prev(result) } else { del };
        del.run()?.silent()?;
        del.run()?.silent()?;
    }
    let after = world.snapshot()?;
    let left: Vec<_> = after.host.macs.keys().filter(|link| link.starts_with("veth")).collect();
    ensure!(left.is_empty(), "veths left on the node: {left:?}");
    let pods = after.facts.filtered(|path| path.starts_with("pod") && !path.contains("/conf/eth0/"));
    let left = pods_before.changes(&pods);
    ensure!(left.is_empty(), "left in the pods: {left:?}");
    ensure!(world.reservations(NETWORK)?.is_empty(), "reservations {:?}", world.reservations(NETWORK)?);
    Ok(())
}

fn hand_over_all(from: Side, to: Side) -> Result<()> {
    for (name, text) in CONFIGS {
        for version in ["0.3.1", "0.4.0", "1.0.0"] {
            hand_over(from, to, text, version)
                .map_err(|error| error.context(format!("{name}, {version}")))?;
        }
    }
    Ok(())
}

#[test]
fn pods_of_the_reference_are_checked_and_deleted_by_ours() -> Result<()> {
    hand_over_all(Side::Debian, Side::Podnet)
}

#[test]
fn pods_of_ours_are_checked_and_deleted_by_the_reference() -> Result<()> {
    hand_over_all(Side::Podnet, Side::Debian)
}

#[test]
fn reservations_of_the_reference_are_seen_by_ours() -> Result<()> {
    let text = r#"{"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/29"}}"#;
    for (from, to) in [(Side::Debian, Side::Podnet), (Side::Podnet, Side::Debian)] {
        let mut world = World::new(from, 1)?;
        let add = |world: &World, id: &str| {
            world.call("host-local", "ADD").config("1.0.0", text).container(id).run()
        };
        for n in 0..3 {
            add(&world, &format!("old{n}"))?.result()?;
        }
        world.switch(to)?;
        let twice = add(&world, "old1")?.error()?;
        ensure!(twice.msg.contains("duplicate allocation is not allowed"), "{twice:?}");
        for n in 0..2 {
            add(&world, &format!("new{n}"))?.result()?;
        }
        let full = add(&world, "new2")?.error()?;
        ensure!(full.msg.contains("no IP addresses available in range set"), "{full:?}");
        for id in ["old0", "new0", "old2", "old1", "new1"] {
            let call = |verb| world.call("host-local", verb).config("1.0.0", text).container(id).run();
            call("CHECK")?.silent()?;
            call("DEL")?.silent()?;
        }
        ensure!(world.reservations(NETWORK)?.is_empty(), "left {:?}", world.reservations(NETWORK)?);
        // The cursor is common too: the next address is not the one that was just released.
        let result = add(&world, "next")?.result()?;
        ensure!(result["ips"][0]["address"] == "10.1.2.2/29", "{result}");
    }
    Ok(())
}

#[test]
fn reservations_of_the_old_form_are_released() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    let dir = world.data().join(NETWORK);
    std::fs::create_dir_all(&dir)?;
    // Before ifname was kept: the container id alone, with or without white space around it.
    std::fs::write(dir.join("10.1.2.5"), "c0")?;
    std::fs::write(dir.join("10.1.2.6"), " c0\n")?;
    std::fs::write(dir.join("10.1.2.7"), "c1")?;
    let text = r#"{"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#;
    world.call("host-local", "CHECK").config("1.0.0", text).run()?.silent()?;
    world.call("host-local", "DEL").config("1.0.0", text).run()?.silent()?;
    assert_eq!(world.reservations(NETWORK)?, ["10.1.2.7"]);
    Ok(())
}

#[test]
fn a_reservation_with_interface_wins_over_one_of_the_old_form() -> Result<()> {
    for side in [Side::Debian, Side::Podnet] {
        let world = World::new(side, 1)?;
        let dir = world.data().join(NETWORK);
        std::fs::create_dir_all(&dir)?;
        std::fs::write(dir.join("10.1.2.5"), "c0\r\neth0")?;
        std::fs::write(dir.join("10.1.2.6"), "c0\r\neth1")?;
        std::fs::write(dir.join("10.1.2.7"), "c0")?;
        let text = r#"{"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#;
        world.call("host-local", "DEL").config("1.0.0", text).run()?.silent()?;
        assert_eq!(world.reservations(NETWORK)?, ["10.1.2.6", "10.1.2.7"], "{side:?}");
    }
    Ok(())
}
