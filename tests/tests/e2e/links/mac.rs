//! Where the MAC comes from. The ways that the reference has are in `matrix`.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use podnet_tests::World;
use podnet_tests::sealed::{sealed, tmpfs};

use super::{macvlan, world};

const FROM_ATTACHMENT: &str =
    r#"{"macFrom":"attachment","ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#;

/// The machine's id is this one, for this thread and what it starts.
fn machine_id(text: &str) -> Result<()> {
    tmpfs(Path::new("/etc"), "size=64k")?;
    std::fs::write("/etc/machine-id", text).context("write the machine's id")
}

/// The MAC of ADD's result, which is the link's too.
fn mac_of(world: &World, text: &str, container: &str, ifname: &str) -> Result<String> {
    let call = |verb| macvlan(world, verb, text).container(container).env("CNI_IFNAME", ifname);
    let result = call("ADD").run()?.result()?;
    let mac = result["interfaces"][0]["mac"].as_str().context("a MAC")?.to_owned();
    ensure!(world.snapshot()?.pods[0].macs.get(ifname) == Some(&mac));
    call("CHECK").prev(&result).run()?.silent()?;
    call("DEL").prev(&result).run()?.silent()?;
    Ok(mac)
}

#[test]
fn derived_mac_is_the_same_at_every_add_and_another_for_every_interface_container_and_machine() -> Result<()>
{
    sealed(|| {
        let world = world(1)?;
        machine_id("0123456789abcdef0123456789abcdef\n")?;
        let mac = mac_of(&world, FROM_ATTACHMENT, "c0", "eth0")?;
        ensure!(mac == mac_of(&world, FROM_ATTACHMENT, "c0", "eth0")?, "the same attachment");
        let first = u8::from_str_radix(&mac[..2], 16)?;
        ensure!(first & 3 == 2, "{mac} is not unicast and locally administered");
        ensure!(mac != mac_of(&world, FROM_ATTACHMENT, "c0", "net1")?, "another interface");
        ensure!(mac != mac_of(&world, FROM_ATTACHMENT, "c1", "eth0")?, "another container");
        std::fs::write("/etc/machine-id", "1123456789abcdef0123456789abcdef\n")?;
        ensure!(mac != mac_of(&world, FROM_ATTACHMENT, "c0", "eth0")?, "another machine");
        Ok(())
    })
}

#[test]
fn derived_mac_needs_a_machine_with_an_id() -> Result<()> {
    sealed(|| {
        let world = world(1)?;
        machine_id("")?;
        let before = world.snapshot()?.facts;
        let error = macvlan(&world, "ADD", FROM_ATTACHMENT).run()?.error()?;
        ensure!(error.code == 999 && error.msg.contains("/etc/machine-id"), "{error:?}");
        let error = macvlan(&world, "STATUS", FROM_ATTACHMENT).run()?.error()?;
        ensure!(error.code == 50 && error.msg.contains("/etc/machine-id"), "{error:?}");
        ensure!(before.changes(&world.snapshot()?.facts).is_empty());
        Ok(())
    })
}

/// At its creation the kernel gives a passthru macvlan its parent's MAC; the reference leaves it at that.
#[test]
fn a_mac_that_is_asked_for_is_given_in_passthru_mode_too() -> Result<()> {
    let world = world(1)?;
    let text = r#"{"mode":"passthru","mac":"02:00:00:00:00:77"}"#;
    let mac = mac_of(&world, text, "c0", "eth0")?;
    ensure!(mac == "02:00:00:00:00:77", "{mac}");
    let back = &world.snapshot()?.host.macs["up0"];
    ensure!(back == "02:00:00:00:0a:01", "the parent's MAC after DEL: {back}");
    Ok(())
}
