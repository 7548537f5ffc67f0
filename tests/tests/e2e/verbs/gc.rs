//! GC and STATUS.

use anyhow::{Result, ensure};
use podnet_tests::world::NETWORK;
use podnet_tests::{Side, World};

use super::{DUAL, V4, bridge};

const VALID: &str = "cni.dev/valid-attachments";

/// Three pods; `c0` has two attachments: eth0 and net1.
fn populated() -> Result<World> {
    let world = World::new(Side::Podnet, 3)?;
    for pod in 0..3 {
        bridge(&world, "ADD", V4).pod(pod).run()?.result()?;
    }
    bridge(&world, "ADD", V4).pod(0).env("CNI_IFNAME", "net1").run()?.result()?;
    assert_eq!(world.reservations(NETWORK)?, ["10.1.2.2", "10.1.2.3", "10.1.2.4", "10.1.2.5"]);
    Ok(world)
}

/// As libcni calls it: no container, no namespace, no interface.
fn gc(world: &World, plugin: &str, valid: Option<&str>) -> Result<()> {
    let call = world.call(plugin, "GC").config("1.1.0", V4);
    let call = call.env("CNI_CONTAINERID", "").env("CNI_NETNS", "").env("CNI_IFNAME", "").env("CNI_ARGS", "");
    let call = match valid {
        Some(valid) => call.with(VALID, valid).with("cni.dev/attachments", valid),
        None => call,
    };
    call.run()?.silent()
}

fn links(world: &World, pod: usize) -> Result<Vec<String>> {
    Ok(world.snapshot()?.pods[pod].macs.keys().cloned().collect())
}

#[test]
fn gc_without_the_key_removes_nothing() -> Result<()> {
    let world = populated()?;
    let before = world.snapshot()?.facts;
    for plugin in ["bridge", "host-local", "loopback", "static"] {
        gc(&world, plugin, None)?;
        let changes = before.changes(&world.snapshot()?.facts);
        ensure!(changes.is_empty(), "{plugin}: {changes:?}");
    }
    Ok(())
}

#[test]
fn gc_with_an_empty_list_removes_everything_of_the_network() -> Result<()> {
    for plugin in ["bridge", "host-local"] {
        let world = populated()?;
        gc(&world, plugin, Some("[]"))?;
        assert_eq!(world.reservations(NETWORK)?, Vec::<String>::new(), "{plugin}");
        if plugin == "bridge" {
            for pod in 0..3 {
                assert_eq!(links(&world, pod)?, ["lo"]);
            }
        }
    }
    Ok(())
}

#[test]
fn gc_keeps_what_is_valid() -> Result<()> {
    for plugin in ["bridge", "host-local"] {
        let world = populated()?;
        gc(
            &world,
            plugin,
            Some(r#"[{"containerID":"c0","ifname":"net1"},{"containerID":"c2","ifname":"eth0"}]"#),
        )?;
        assert_eq!(world.reservations(NETWORK)?, ["10.1.2.4", "10.1.2.5"], "{plugin}");
        if plugin == "bridge" {
            assert_eq!(links(&world, 0)?, ["lo", "net1"]);
            assert_eq!(links(&world, 1)?, ["lo"]);
            assert_eq!(links(&world, 2)?, ["eth0", "lo"]);
        }
    }
    Ok(())
}

#[test]
fn gc_leaves_other_networks_alone() -> Result<()> {
    let world = populated()?;
    let other = world.config("bridge", "1.1.0", V4).replace(NETWORK, "othernet").replace("10.1.2", "10.7.7");
    let other = other.replace("\"isGateway\":true", "\"bridge\":\"cni7\"");
    world.call("bridge", "ADD").stdin(other).pod(1).env("CNI_IFNAME", "net7").run()?.result()?;
    gc(&world, "bridge", Some("[]"))?;
    assert_eq!(world.reservations("othernet")?, ["10.7.7.2"]);
    assert_eq!(links(&world, 1)?, ["lo", "net7"]);
    Ok(())
}

#[test]
fn gc_twice_is_as_good_as_once() -> Result<()> {
    let world = populated()?;
    for _ in 0..2 {
        gc(&world, "bridge", Some("[]"))?;
    }
    Ok(())
}

#[test]
fn gc_and_status_are_forwarded_to_a_foreign_delegate() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new(Side::Podnet, 1)?;
    let (delegate, log) = (world.dir().join("delegate"), world.dir().join("log"));
    std::fs::write(&delegate, format!("#!/bin/sh\n(echo $CNI_COMMAND; cat; echo) >>{}\n", log.display()))?;
    std::fs::set_permissions(&delegate, std::fs::Permissions::from_mode(0o755))?;
    let text = r#"{"ipam":{"type":"delegate"}}"#;
    let mut expected = String::new();
    for verb in ["GC", "STATUS"] {
        let call = bridge(&world, verb, text).with(VALID, "[]").env("CNI_PATH", world.dir());
        call.run()?.silent()?;
        // The delegate gets the very bytes that the caller got.
        expected += &format!("{verb}\n{}\n", String::from_utf8_lossy(&call.invocation().stdin));
    }
    assert_eq!(std::fs::read_to_string(&log)?, expected);
    Ok(())
}

#[test]
fn gc_removes_a_reservation_of_which_the_owner_was_never_written() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    let dir = world.data().join(NETWORK);
    std::fs::create_dir_all(&dir)?;
    // What the reference leaves when it is killed between creating and writing.
    std::fs::write(dir.join("10.1.2.9"), "")?;
    gc(&world, "host-local", Some("[]"))?;
    assert_eq!(world.reservations(NETWORK)?, Vec::<String>::new());
    Ok(())
}

#[test]
fn status_is_silent_when_add_can_be_served() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    let before = world.snapshot()?.facts;
    for (plugin, text) in [
        ("bridge", DUAL),
        ("bridge", "{}"),
        ("host-local", V4),
        ("loopback", "{}"),
        ("static", r#"{"ipam":{"type":"static"}}"#),
    ] {
        let call = world
            .call(plugin, "STATUS")
            .config("1.1.0", text)
            .unset("CNI_NETNS")
            .unset("CNI_CONTAINERID")
            .unset("CNI_IFNAME");
        call.run()?.silent()?;
    }
    let changes: Vec<_> = before
        .changes(&world.snapshot()?.facts)
        .into_iter()
        .filter(|change| !change.path.starts_with("data/"))
        .collect();
    ensure!(changes.is_empty(), "{changes:?}");
    Ok(())
}

#[test]
fn status_tells_of_a_delegate_that_does_not_work() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new(Side::Podnet, 1)?;
    let delegate = world.dir().join("delegate");
    for (script, code) in [
        ("exit 1", 50),
        ("kill -9 $$", 50),
        ("echo nonsense; exit 1", 50),
        (r#"echo '{"code":51,"msg":"limited"}'; exit 1"#, 51),
        (r#"echo '{"code":999,"msg":"broken"}'; exit 1"#, 50),
    ] {
        std::fs::write(&delegate, format!("#!/bin/sh\ncat >/dev/null\n{script}\n"))?;
        std::fs::set_permissions(&delegate, std::fs::Permissions::from_mode(0o755))?;
        let call = bridge(&world, "STATUS", r#"{"ipam":{"type":"delegate"}}"#).env("CNI_PATH", world.dir());
        let error = call.run()?.error()?;
        ensure!(error.code == code, "{script}: {error:?}");
    }
    Ok(())
}
