//! DEL, CHECK, GC, STATUS and failed ADDs of `host-device`.

use std::fs;

use anyhow::{Context, Result, ensure};
use podnet_tests::process::Stdout;
use podnet_tests::world::NETWORK;
use podnet_tests::{Side, World};

use super::{BARE, MAC, V4, furnish, host_device, is_back, is_in_pod, mac, world};
use crate::rollback::{add_fails_without_a_trace, inject_into, unchanged};
use crate::verbs::crash::Scene;

/// The second one fails with the reference.
#[test]
fn del_twice_succeeds() -> Result<()> {
    for text in [BARE, V4] {
        let world = world()?;
        host_device(&world, "ADD", text).run()?.result()?;
        for _ in 0..2 {
            host_device(&world, "DEL", text).run()?.silent()?;
            is_back(&world)?;
        }
    }
    Ok(())
}

/// With the reference the address stays reserved, or DEL fails.
#[test]
fn del_without_the_namespace_releases_the_address() -> Result<()> {
    for how in ["empty", "unset", "missing", "plain file"] {
        let world = world()?;
        host_device(&world, "ADD", V4).run()?.result()?;
        let file = world.dir().join("file");
        fs::write(&file, "")?;
        let del = host_device(&world, "DEL", V4);
        let del = match how {
            "empty" => del.env("CNI_NETNS", ""),
            "unset" => del.unset("CNI_NETNS"),
            "missing" => del.env("CNI_NETNS", "/nonexistent"),
            _ => del.env("CNI_NETNS", &file),
        };
        for _ in 0..2 {
            del.run()?.silent().context(how)?;
            ensure!(world.reservations(NETWORK)?.is_empty(), "{how}");
        }
    }
    Ok(())
}

/// The device's configuration may name something else by now, or nothing: the alias says what to do.
#[test]
fn del_does_not_mind_what_add_would_refuse() -> Result<()> {
    for text in [
        "{}",
        r#"{"device":"nosuch0"}"#,
        r#"{"hwaddr":"nonsense"}"#,
        r#"{"runtimeConfig":{"deviceID":"ffff:00:00.0"}}"#,
    ] {
        let world = world()?;
        host_device(&world, "ADD", BARE).run()?.result()?;
        host_device(&world, "DEL", text).run()?.silent().context(text)?;
        is_back(&world)?;
    }
    Ok(())
}

#[test]
fn del_leaves_a_link_that_was_not_moved_where_it_is() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    for command in ["link add eth0 type veth peer name far2", "link set eth0 alias a-text-that-is-no-name"] {
        world.pod_ip(0, &[command])?;
        let before = world.snapshot()?.facts;
        host_device(&world, "DEL", BARE).run()?.silent()?;
        unchanged(&world, &before)?;
    }
    Ok(())
}

/// The device must not end on the node under the name that it had in the pod.
#[test]
fn del_while_the_old_name_is_taken_releases_the_address_and_leaves_the_device() -> Result<()> {
    let world = world()?;
    let result = host_device(&world, "ADD", V4).run()?.result()?;
    world.host_ip(&["link add dev0 type veth peer name far1"])?;
    let error = host_device(&world, "DEL", V4).run()?.error()?;
    ensure!(error.msg.contains("the node has a link of that name"), "{error:?}");
    ensure!(world.reservations(NETWORK)?.is_empty());
    world.host_ip(&["link del dev0"])?;
    is_in_pod(&world, &result)?;
    host_device(&world, "DEL", V4).run()?.silent()?;
    is_back(&world)
}

/// Does something to a checked pod; CHECK must fail then, with these words.
fn finds(spoil: &str, words: &str) -> Result<()> {
    let world = world()?;
    let result = host_device(&world, "ADD", V4).run()?.result()?;
    let check = host_device(&world, "CHECK", V4).prev(&result);
    check.run()?.silent()?;
    match spoil.strip_prefix("file: ") {
        Some(file) => fs::remove_file(world.data().join(NETWORK).join(file))?,
        None => world.pod_ip(0, &[spoil])?,
    }
    let error = check.run()?.error().with_context(|| spoil.to_owned())?;
    ensure!(error.msg.contains(words), "{spoil}: expected {words:?}, seen {error:?}");
    Ok(())
}

#[test]
fn check_finds_each_thing_that_goes_missing() -> Result<()> {
    for (spoil, words) in [
        ("link del eth0", "eth0"),
        ("link set eth0 down", "is down"),
        ("link set eth0 address 02:00:00:00:00:99", "02:00:00:00:00:99"),
        ("addr del 10.1.2.2/24 dev eth0", "10.1.2.2/24"),
        ("route del 192.168.0.0/16", "192.168.0.0/16"),
        // DEL could not give it its name back.
        ("link set eth0 alias a-text-that-is-no-name", "has no alias"),
        ("file: 10.1.2.2", "Failed to find address"),
    ] {
        finds(spoil, words)?;
    }
    Ok(())
}

#[test]
fn gc_releases_what_is_not_valid_and_touches_no_device() -> Result<()> {
    let world = world()?;
    let result = host_device(&world, "ADD", V4).run()?.result()?;
    let before = world.snapshot()?.facts;
    let gc = host_device(&world, "GC", V4).unset("CNI_NETNS").unset("CNI_CONTAINERID").unset("CNI_IFNAME");
    gc.run()?.silent()?;
    gc.clone()
        .with("cni.dev/valid-attachments", r#"[{"containerID":"c0","ifname":"eth0"}]"#)
        .run()?
        .silent()?;
    unchanged(&world, &before)?;
    gc.with("cni.dev/valid-attachments", "[]").run()?.silent()?;
    ensure!(world.reservations(NETWORK)?.is_empty());
    is_in_pod(&world, &result)
}

#[test]
fn status_tells_whether_the_device_is_there() -> Result<()> {
    let world = world()?;
    let status = |text: &str| host_device(&world, "STATUS", text).unset("CNI_NETNS").run();
    status(BARE)?.silent()?;
    status(V4)?.silent()?;
    host_device(&world, "ADD", BARE).run()?.result()?;
    let error = status(BARE)?.error()?;
    ensure!(error.code == 50 && error.msg.contains("dev0"), "{error:?}");
    // The runtime will name it.
    status(r#"{"capabilities":{"deviceID":true}}"#)?.silent()?;
    ensure!(status("{}")?.error()?.code == 7);
    Ok(())
}

#[test]
fn two_devices_of_one_container_do_not_meet() -> Result<()> {
    let world = world()?;
    world.host_ip(&["link add dev1 address 02:00:00:00:00:d1 type veth peer name far1"])?;
    let first = host_device(&world, "ADD", V4).run()?.result()?;
    let text = V4.replace("dev0", "dev1").replace("192.168.", "172.16.");
    let net1 = |verb: &str| host_device(&world, verb, &text).env("CNI_IFNAME", "net1");
    let second = net1("ADD").run()?.result()?;
    host_device(&world, "DEL", V4).run()?.silent()?;
    net1("CHECK").prev(&second).run()?.silent()?;
    ensure!(world.reservations(NETWORK)? == ["10.1.2.3"], "{first} {second}");
    net1("DEL").run()?.silent()?;
    is_back(&world)?;
    ensure!(mac(&world, None, "dev1")? == "02:00:00:00:00:d1");
    Ok(())
}

/// The reference leaves the device in the pod when its IPAM plugin fails.
#[test]
fn a_failed_add_gives_the_device_back_with_addresses_and_routes() -> Result<()> {
    let world = world()?;
    let full = V4.replace(
        r#""subnet":"10.1.2.0/24""#,
        r#""subnet":"10.1.2.0/24","rangeStart":"10.1.2.1","rangeEnd":"10.1.2.1""#,
    );
    let error = add_fails_without_a_trace(&world, "host-device", &full, "1.0.0", Stdout::Read)?.error()?;
    ensure!(error.msg.contains("no IP addresses available"), "{error:?}");
    let unreachable = V4.replace(r#""gw":"10.1.2.1""#, r#""gw":"172.16.0.1""#);
    add_fails_without_a_trace(&world, "host-device", &unreachable, "1.0.0", Stdout::Read)?;
    for stdout in [Stdout::Closed, Stdout::Full] {
        add_fails_without_a_trace(&world, "host-device", V4, "1.0.0", stdout)?;
        add_fails_without_a_trace(&world, "host-device", BARE, "1.0.0", stdout)?;
    }
    // A result of 0.2.0 needs an address.
    add_fails_without_a_trace(&world, "host-device", BARE, "0.2.0", Stdout::Read)?;
    world.host_ip(&["link set dev0 alias mine", "link set dev0 down"])?;
    add_fails_without_a_trace(&world, "host-device", V4, "1.0.0", Stdout::Closed)?;
    Ok(())
}

#[test]
fn each_request_that_fails_is_undone() -> Result<()> {
    let failed = inject_into("host-device", "sendto,sendmsg,sendmmsg", "ENOBUFS", V4, furnish)?;
    ensure!(failed >= 5, "only {failed} requests of ADD could be made to fail");
    let failed = inject_into("host-device", "socket", "EMFILE", V4, furnish)?;
    ensure!(failed >= 2, "only {failed} sockets of ADD could be made to fail");
    Ok(())
}

fn scene() -> Scene<'static> {
    Scene { plugin: "host-device", text: V4, links: &["dev0", "far0", "lo"], prepare: &furnish }
}

#[test]
fn an_add_killed_at_any_system_call_is_cleaned_up_by_del() -> Result<()> {
    scene().killed_at_any_system_call("ADD")
}

#[test]
fn a_del_killed_at_any_system_call_is_finished_by_the_next() -> Result<()> {
    scene().killed_at_any_system_call("DEL")
}

#[test]
fn devices_of_the_reference_come_back_by_ours_and_the_other_way_round() -> Result<()> {
    for (from, to) in [(Side::Debian, Side::Podnet), (Side::Podnet, Side::Debian)] {
        let mut world = World::new(from, 1)?;
        furnish(&world)?;
        let result = world.call("host-device", "ADD").config("1.0.0", V4).run()?.result()?;
        world.switch(to)?;
        for verb in ["CHECK", "DEL"] {
            world.call("host-device", verb).config("1.0.0", V4).prev(&result).run()?.silent()?;
        }
        // 1.1.1 leaves the alias.
        ensure!(mac(&world, None, "dev0")? == MAC && world.reservations(NETWORK)?.is_empty());
    }
    Ok(())
}
