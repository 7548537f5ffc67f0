//! `vlan` on a kernel that has it.
//!
//! ```text
//!   host ── up0 ═ far0 (sees the tags)
//!            └─ eth0 in pod0: VLAN 100 of up0
//! ```

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kernel::packet::PacketSocket;
use podnet_tests::process::Stdout;
use podnet_tests::world::NETWORK;
use podnet_tests::{World, devices};

use super::node::{INTENDED, call, eth0, finds, live_and_die, world};
use crate::matrix::{Case, compare_device};
use crate::rollback::add_fails_without_a_trace;

const V4: &str =
    r#"{"master":"up0","vlanId":100,"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#;

#[test]
fn device_vlan_lives_and_dies_with_and_without_addresses() -> Result<()> {
    if !devices::require("vlan")? {
        return Ok(());
    }
    for text in [
        r#"{"master":"up0","vlanId":100}"#,
        r#"{"master":"up0","vlanId":100,"mtu":1400,"ipam":{"type":"host-local","dataDir":"@DATA@",
            "ranges":[[{"subnet":"10.1.2.0/24"}],[{"subnet":"2001:db8:1::/64"}]],"routes":[{"dst":"0.0.0.0/0"}]}}"#,
    ] {
        let world = world(1)?;
        live_and_die(&world, "vlan", text, |_| {
            let link = eth0(&world, 0)?;
            ensure!(link["linkinfo"]["info_kind"] == "vlan", "{link}");
            ensure!(link["linkinfo"]["info_data"]["id"] == 100, "{link}");
            ensure!(link["linkinfo"]["info_data"]["protocol"] == "802.1Q", "{link}");
            ensure!(link["mtu"] == if text.contains("1400") { 1400 } else { 1500 }, "{link}");
            Ok(())
        })
        .with_context(|| text.to_owned())?;
    }
    Ok(())
}

#[test]
fn device_vlan_tags_what_the_pod_sends() -> Result<()> {
    if !devices::require("vlan")? {
        return Ok(());
    }
    let world = world(1)?;
    call(&world, "vlan", "ADD", V4).run()?.result()?;
    world.pod_ip(0, &["neigh add 10.1.2.77 lladdr 02:00:00:00:00:77 dev eth0 nud permanent"])?;
    let far = PacketSocket::open_in(&world.host)?;
    let far0 = world.host.run(|| nix::net::if_::if_nametoindex("far0"))??;
    let sender = world.pods[0].run(|| UdpSocket::bind("0.0.0.0:0"))??;
    sender.send_to(b"a probe with a tag", "10.1.2.77:7000")?;
    let (mut buffer, deadline) = ([0; 2048], Instant::now() + Duration::from_secs(10));
    while Instant::now() < deadline {
        let Some(frame) = far.recv(&mut buffer)? else { continue };
        if frame.ifindex == far0 && buffer[..frame.len].ends_with(b"a probe with a tag") {
            ensure!(frame.vlan_tci.map(|tci| tci & 0xfff) == Some(100), "{frame:?}");
            return Ok(());
        }
    }
    anyhow::bail!("the probe did not come by")
}

/// The reference's DEL fails without the master and releases no address.
#[test]
fn device_vlan_is_deleted_without_its_master() -> Result<()> {
    if !devices::require("vlan")? {
        return Ok(());
    }
    let world = world(1)?;
    call(&world, "vlan", "ADD", V4).run()?.result()?;
    world.host_ip(&["link del up0"])?;
    for _ in 0..2 {
        call(&world, "vlan", "DEL", V4).run()?.silent()?;
    }
    ensure!(world.reservations(NETWORK)?.is_empty());
    Ok(())
}

#[test]
fn device_vlan_that_is_taken_is_told_from_an_interface_name_that_is() -> Result<()> {
    if !devices::require("vlan")? {
        return Ok(());
    }
    let world = world(2)?;
    let first = call(&world, "vlan", "ADD", V4).pod(1).run()?.result()?;
    let error = add_fails_without_a_trace(&world, "vlan", V4, "1.0.0", Stdout::Read)?.error()?;
    ensure!(error.msg.contains("create vlan \"eth0\" in the pod: create link"), "{error:?}");
    call(&world, "vlan", "CHECK", V4).pod(1).prev(&first).run()?.silent()?;
    let other = V4.replace("100", "101");
    let error = call(&world, "vlan", "ADD", &other).pod(1).container("c9").run()?.error()?;
    ensure!(error.msg.contains("interface name \"eth0\" already exists in the pod"), "{error:?}");
    Ok(())
}

#[test]
fn device_vlan_check_finds_another_vlan_or_mtu() -> Result<()> {
    if !devices::require("vlan")? {
        return Ok(());
    }
    let text = r#"{"master":"up0","vlanId":100,"mtu":1400}"#;
    finds(
        "vlan",
        text,
        |world: &World, _| world.pod_ip(0, &["link set eth0 mtu 1300"]),
        "MTU 1300, not 1400",
    )?;
    let inside = r#"{"master":"net0","vlanId":100,"linkInContainer":true}"#;
    let world = world(1)?;
    world.pod_ip(0, &["link add net0 type veth peer name far0", "link set net0 up", "link set far0 up"])?;
    let result = call(&world, "vlan", "ADD", inside).run()?.result()?;
    let mac = result["interfaces"][0]["mac"].as_str().context("a MAC")?;
    world.pod_ip(
        0,
        &[
            "link del eth0",
            &format!("link add link net0 name eth0 address {mac} type vlan id 7"),
            "link set eth0 up",
        ],
    )?;
    let error = call(&world, "vlan", "CHECK", inside).prev(&result).run()?.error()?;
    ensure!(error.msg.contains("vlanId is 7, not 100"), "{error:?}");
    Ok(())
}

#[test]
fn device_vlan_does_what_the_reference_does() -> Result<()> {
    if !devices::require("vlan")? {
        return Ok(());
    }
    const HOST: &[&str] = &[
        "link add up0 address 02:00:00:00:0a:01 type veth peer name far0",
        "link set far0 up",
        "link set up0 up",
    ];
    let vlan = |name, text| Case { host: HOST, ..Case::new(name, "vlan", text) };
    let cases = [
        vlan("vlan", V4),
        vlan(
            "vlan dual stack",
            r#"{"master":"up0","vlanId":4094,"mtu":1400,"ipam":{"type":"host-local","dataDir":"@DATA@",
                "ranges":[[{"subnet":"10.1.2.0/24"}],[{"subnet":"2001:db8:1::/64"}]],"routes":[{"dst":"0.0.0.0/0"}]}}"#,
        ),
    ];
    // Its addresses are announced.
    let announced = ("*/arp_notify", "0", "1");
    compare_device(&cases, &[INTENDED, &[announced]].concat())
}
