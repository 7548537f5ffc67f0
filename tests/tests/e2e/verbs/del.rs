//! DEL succeeds whatever is missing, always releases the address, and twice is as good as once.

use std::fs;

use anyhow::{Result, ensure};
use podnet_tests::world::NETWORK;
use podnet_tests::{Side, World};

use super::{DUAL, V4, bridge};

/// ADD, something goes missing, DEL twice: both are silent, the address is free, no veth is left on the node.
fn del_after(lose: impl Fn(&World) -> Result<()>) -> Result<()> {
    for with_previous in [true, false] {
        let world = World::new(Side::Podnet, 1)?;
        let result = bridge(&world, "ADD", DUAL).run()?.result()?;
        lose(&world)?;
        let del = bridge(&world, "DEL", DUAL);
        let del = if with_previous { del.prev(&result) } else { del };
        for _ in 0..2 {
            del.run()?.silent()?;
        }
        gone(&world)?;
    }
    Ok(())
}

fn gone(world: &World) -> Result<()> {
    ensure!(world.reservations(NETWORK)?.is_empty(), "reservations left: {:?}", world.reservations(NETWORK)?);
    let snapshot = world.snapshot()?;
    ensure!(snapshot.pods[0].macs.keys().eq(["lo"]), "links left in the pod: {:?}", snapshot.pods[0].macs);
    let left: Vec<_> = snapshot.host.macs.keys().filter(|link| link.starts_with("veth")).collect();
    ensure!(left.is_empty(), "links left on the node: {left:?}");
    Ok(())
}

#[test]
fn del_twice_succeeds() -> Result<()> {
    del_after(|_| Ok(()))
}

#[test]
fn del_without_the_interface_succeeds() -> Result<()> {
    del_after(|world| world.pod_ip(0, &["link del eth0"]))
}

#[test]
fn del_without_the_bridge_succeeds() -> Result<()> {
    del_after(|world| world.host_ip(&["link del cni0"]))
}

#[test]
fn del_without_the_reservation_succeeds() -> Result<()> {
    del_after(|world| {
        for ip in world.reservations(NETWORK)? {
            fs::remove_file(world.data().join(NETWORK).join(ip))?;
        }
        Ok(())
    })
}

#[test]
fn del_without_the_data_directory_succeeds() -> Result<()> {
    del_after(|world| Ok(fs::remove_dir_all(world.data())?))
}

#[test]
fn del_of_a_renamed_interface_releases_the_address() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    bridge(&world, "ADD", V4).run()?.result()?;
    world.pod_ip(0, &["link set eth0 down", "link set eth0 name net7"])?;
    bridge(&world, "DEL", V4).run()?.silent()?;
    ensure!(world.reservations(NETWORK)?.is_empty());
    Ok(())
}

/// CNI_NETNS that is not there any more: the kernel removed the veth with the namespace, the address must be released.
#[test]
fn del_without_the_namespace_releases_the_address() -> Result<()> {
    for how in ["empty", "unset", "missing", "plain file", "directory below a file"] {
        let mut world = World::new(Side::Podnet, 1)?;
        bridge(&world, "ADD", DUAL).run()?.result()?;
        world.pods.clear();
        fs::write(world.dir().join("file"), "")?;
        let dir = world.dir().to_string_lossy().into_owned();
        let del = bridge(&world, "DEL", DUAL);
        let del = match how {
            "empty" => del.env("CNI_NETNS", ""),
            "unset" => del.unset("CNI_NETNS"),
            // Not the path that the pod had: by now another test's namespace may have its descriptor's number.
            "missing" => del.env("CNI_NETNS", format!("{dir}/missing")),
            "plain file" => del.env("CNI_NETNS", format!("{dir}/file")),
            _ => del.env("CNI_NETNS", format!("{dir}/file/ns")),
        };
        for _ in 0..2 {
            del.run()?.silent().map_err(|error| error.context(how))?;
        }
        ensure!(world.reservations(NETWORK)?.is_empty(), "{how}: {:?}", world.reservations(NETWORK)?);
    }
    Ok(())
}

#[test]
fn loopback_del_without_the_namespace_succeeds() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    fs::write(world.dir().join("file"), "")?;
    let file = world.dir().join("file");
    for netns in ["".as_ref(), "/nonexistent".as_ref(), file.as_os_str()] {
        world.call("loopback", "DEL").config("1.0.0", "{}").env("CNI_NETNS", netns).run()?.silent()?;
    }
    Ok(())
}

/// A configuration that ADD would refuse today may have been accepted yesterday, by another plugin.
#[test]
fn del_does_not_mind_what_add_would_refuse() -> Result<()> {
    let rest = r#""ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#;
    for key in [
        r#""ipMasq":true"#,
        r#""hairpinMode":true,"promiscMode":true"#,
        r#""vlan":4095"#,
        r#""macspoofchk":true"#,
        r#""bridge":"a name that is too long""#,
        r#""mtu":-1"#,
        r#""args":{"cni":{"mac":"nonsense"}}"#,
    ] {
        let world = World::new(Side::Podnet, 1)?;
        bridge(&world, "ADD", &format!("{{{rest}")).run()?.result()?;
        bridge(&world, "DEL", &format!("{{{key},{rest}"))
            .run()?
            .silent()
            .map_err(|error| error.context(key))?;
        gone(&world)?;
    }
    Ok(())
}

#[test]
fn del_does_not_mind_prevresult_of_another_version() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    let result = world.call("bridge", "ADD").config("0.4.0", V4).run()?.result()?;
    world.call("bridge", "DEL").config("0.4.0", V4).prev(&result).run()?.silent()?;
    gone(&world)
}

#[test]
fn del_takes_only_its_own_reservation() -> Result<()> {
    let world = World::new(Side::Podnet, 2)?;
    for pod in 0..2 {
        bridge(&world, "ADD", V4).pod(pod).run()?.result()?;
    }
    let second = bridge(&world, "ADD", V4).pod(0).env("CNI_IFNAME", "net1").run()?.result()?;
    bridge(&world, "DEL", V4).run()?.silent()?;
    assert_eq!(world.reservations(NETWORK)?, ["10.1.2.3", "10.1.2.4"]);
    bridge(&world, "CHECK", V4).env("CNI_IFNAME", "net1").prev(&second).run()?.silent()
}
