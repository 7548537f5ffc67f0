//! ADD, DEL, GC and STATUS, and ADD's undoing.

use anyhow::{Context, Result, ensure};
use podnet_tests::process::Stdout;
use podnet_tests::world::NETWORK;
use podnet_tests::{Side, World};

use super::{DUAL, V4, macvlan, uplink, world};
use crate::rollback::{add_fails_without_a_trace, inject_into};

fn links(world: &World, pod: usize) -> Result<Vec<String>> {
    Ok(world.snapshot()?.pods[pod].macs.keys().cloned().collect())
}

#[test]
fn link_in_the_container_stands_on_a_link_of_the_pod() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    world.pod_ip(
        0,
        &[
            "link add net0 type veth peer name far0",
            "link set net0 up",
            "addr add 10.9.0.2/24 dev net0",
            "route add default via 10.9.0.1",
        ],
    )?;
    for text in [r#"{"linkInContainer":true}"#, r#"{"linkInContainer":true,"master":"far0"}"#] {
        let result = macvlan(&world, "ADD", text).run()?.result()?;
        macvlan(&world, "CHECK", text).prev(&result).run()?.silent()?;
        let below = world.snapshot()?.facts.get("pod0/link/eth0/link").map(str::to_owned);
        let named = if text.contains("far0") { "far0" } else { "net0" };
        ensure!(below.as_deref() == Some(named), "{text}: stands on {below:?}");
        // The pod may be gone: STATUS cannot ask it.
        macvlan(&world, "STATUS", text).run()?.silent()?;
        macvlan(&world, "DEL", text).run()?.silent()?;
    }
    Ok(())
}

#[test]
fn queue_length_and_mode_reach_the_kernel() -> Result<()> {
    let world = world(1)?;
    macvlan(&world, "ADD", r#"{"mode":"vepa","bcqueuelen":1234}"#).run()?.result()?;
    let show = || std::process::Command::new("ip").args(["-d", "link", "show", "eth0"]).output();
    let shown = String::from_utf8(world.pods[0].run(show)??.stdout)?;
    ensure!(shown.contains("macvlan mode vepa bcqueuelen 1234"), "{shown}");
    Ok(())
}

#[test]
fn two_attachments_of_one_container_to_one_network_do_not_meet() -> Result<()> {
    let world = world(1)?;
    let net1 = |verb| macvlan(&world, verb, V4).env("CNI_IFNAME", "net1");
    let first = macvlan(&world, "ADD", V4).run()?.result()?;
    let second = net1("ADD").run()?.result()?;
    net1("CHECK").prev(&second).run()?.silent()?;
    net1("DEL").prev(&second).run()?.silent()?;
    ensure!(links(&world, 0)? == ["eth0", "lo"] && world.reservations(NETWORK)? == ["10.1.2.2"]);
    macvlan(&world, "CHECK", V4).prev(&first).run()?.silent()
}

/// Only the link's name is needed; and with the namespace gone, only the reservation is left to release.
#[test]
fn del_needs_neither_master_nor_namespace_nor_a_valid_configuration() -> Result<()> {
    for (what, spoil, text, netns) in [
        ("again", None, V4, None),
        ("the master is gone", Some("link del up0"), V4, None),
        ("no CNI_NETNS", None, V4, Some("")),
        ("no such CNI_NETNS", None, V4, Some("/run/netns/gone")),
        ("CNI_NETNS is a file", None, V4, Some("/etc/hostname")),
        (
            "an unknown mode",
            None,
            r#"{"mode":"x","mtu":-5,"macFrom":"y","ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#,
            None,
        ),
    ] {
        let world = world(1)?;
        macvlan(&world, "ADD", V4).run()?.result()?;
        if let Some(command) = spoil {
            world.host_ip(&[command])?;
        }
        for _ in 0..2 {
            let mut del = macvlan(&world, "DEL", text);
            if let Some(netns) = netns {
                del = del.env("CNI_NETNS", netns);
            }
            del.run()?.silent().with_context(|| what.to_string())?;
        }
        ensure!(world.reservations(NETWORK)?.is_empty(), "{what}: reservations left");
        ensure!(netns.is_some() || links(&world, 0)? == ["lo"], "{what}: links left");
    }
    Ok(())
}

#[test]
fn gc_reaches_the_ipam_plugin() -> Result<()> {
    let world = world(2)?;
    for pod in 0..2 {
        macvlan(&world, "ADD", V4).pod(pod).run()?.result()?;
    }
    let gc = |valid: Option<&str>| -> Result<Vec<String>> {
        let call = macvlan(&world, "GC", V4).env("CNI_NETNS", "").env("CNI_IFNAME", "");
        let call = match valid {
            Some(valid) => call.with("cni.dev/valid-attachments", valid),
            None => call,
        };
        call.run()?.silent()?;
        world.reservations(NETWORK)
    };
    ensure!(gc(None)? == ["10.1.2.2", "10.1.2.3"]);
    ensure!(gc(Some(r#"[{"containerID":"c1","ifname":"eth0"}]"#))? == ["10.1.2.3"]);
    ensure!(gc(Some("[]"))?.is_empty());
    macvlan(&world, "GC", "{}").with("cni.dev/valid-attachments", "[]").run()?.silent()
}

#[test]
fn status_tells_whether_add_could_be_served() -> Result<()> {
    let world = world(1)?;
    for text in ["{}", V4, r#"{"master":"far0"}"#] {
        macvlan(&world, "STATUS", text).run()?.silent()?;
    }
    let small = r#"{"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/30"}}"#;
    macvlan(&world, "ADD", small).run()?.result()?;
    for (text, words) in [
        (r#"{"master":"nope"}"#, "master \"nope\" not found"),
        (small, ""),
        (r#"{"ipam":{"type":"nope"}}"#, "nope"),
    ] {
        let error = macvlan(&world, "STATUS", text).run()?.error()?;
        ensure!(error.code == 50 && error.msg.contains(words), "{text}: {error:?}");
    }
    Ok(())
}

#[test]
fn a_result_that_nobody_reads_is_undone() -> Result<()> {
    for text in [DUAL, "{}"] {
        add_fails_without_a_trace(&world(1)?, "macvlan", text, "1.0.0", Stdout::Closed)?;
    }
    Ok(())
}

/// The reference leaves the link (plugins 2.3), and ipvlan the reservation too: both are one piece of code here.
#[test]
fn each_request_or_file_that_fails_is_undone() -> Result<()> {
    let failed = inject_into("macvlan", "sendto,sendmsg,sendmmsg", "ENOBUFS", DUAL, uplink)?;
    ensure!(failed >= 5, "only {failed} requests of ADD could be made to fail");
    let failed = inject_into("macvlan", "socket,bind", "EMFILE", DUAL, uplink)?;
    ensure!(failed >= 2, "only {failed} calls of ADD could be made to fail");
    Ok(())
}

#[test]
fn no_other_program_is_started() -> Result<()> {
    let world = world(1)?;
    let log = world.dir().join("strace").to_string_lossy().into_owned();
    let traced = |verb: &str, prev: Option<&serde_json::Value>| {
        let call =
            macvlan(&world, verb, DUAL).through(&["strace", "-f", "-A", "-o", &log, "-e", "trace=execve"]);
        match prev {
            Some(prev) => call.prev(prev),
            None => call,
        }
        .run()
    };
    let result = traced("ADD", None)?.result()?;
    traced("CHECK", Some(&result))?.silent()?;
    traced("DEL", Some(&result))?.silent()?;
    let seen = std::fs::read_to_string(&log)?;
    ensure!(seen.matches("execve(").count() == 3, "{seen}");
    Ok(())
}
