//! Which device it is: by name, by MAC, by a path of the kernel, by an address on a bus.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use podnet_tests::datagram::source_seen;
use podnet_tests::process::Stdout;
use podnet_tests::sealed;
use podnet_tests::world::NETWORK;
use podnet_tests::{Side, World};

use super::{BARE, MAC, V4, host_device, is_back, is_in_pod, world};
use crate::rollback::{add_fails_without_a_trace, unchanged};

#[test]
fn a_device_goes_into_the_pod_and_comes_back() -> Result<()> {
    for text in [BARE, &format!(r#"{{"hwaddr":"{MAC}"}}"#), r#"{"hwaddr":"02-00-00-00-00-D0"}"#, V4] {
        let world = world()?;
        let result = host_device(&world, "ADD", text).run()?.result().context(text.to_owned())?;
        is_in_pod(&world, &result)?;
        host_device(&world, "CHECK", text).prev(&result).run()?.silent()?;
        host_device(&world, "DEL", text).prev(&result).run()?.silent()?;
        is_back(&world)?;
        // Nobody knows what it was before, so it is left down.
        ensure!(world.snapshot()?.facts.get("host/link/dev0/flag/UP").is_none());
    }
    Ok(())
}

#[test]
fn packets_pass_through_a_device_in_the_pod() -> Result<()> {
    let world = world()?;
    world.host_ip(&["addr add 10.1.2.1/24 dev far0", "addr add 2001:db8:1::1/64 dev far0 nodad"])?;
    let text = r#"{"device":"dev0","ipam":{"type":"host-local","dataDir":"@DATA@",
        "ranges":[[{"subnet":"10.1.2.0/24"}],[{"subnet":"2001:db8:1::/64"}]]}}"#;
    let result = host_device(&world, "ADD", text).run()?.result()?;
    for (gateway, address) in [("10.1.2.1", "10.1.2.2"), ("2001:db8:1::1", "2001:db8:1::2")] {
        let (gateway, address): (IpAddr, IpAddr) = (gateway.parse()?, address.parse()?);
        ensure!(source_seen(&world.pods[0], &world.host, gateway)? == address, "{result}");
        ensure!(source_seen(&world.host, &world.pods[0], address)? == gateway, "{result}");
    }
    Ok(())
}

/// The name on its way is never one that is taken: neither the pod's for the old name, nor the node's for the new.
#[test]
fn names_of_other_links_are_no_hindrance() -> Result<()> {
    let world = world()?;
    world.host_ip(&["link add eth0 type veth peer name far1"])?;
    world.pod_ip(0, &["link add dev0 type veth peer name far2"])?;
    let before = world.snapshot()?.facts;
    let result = host_device(&world, "ADD", BARE).run()?.result()?;
    host_device(&world, "CHECK", BARE).prev(&result).run()?.silent()?;
    host_device(&world, "DEL", BARE).run()?.silent()?;
    world.host_ip(&["link set dev0 up"])?;
    let relevant = |path: &str| path.contains("/link/");
    let changes = before.filtered(relevant).changes(&world.snapshot()?.facts.filtered(relevant));
    ensure!(changes.is_empty(), "{changes:#?}");
    Ok(())
}

#[test]
fn a_device_that_cannot_be_had_is_named() -> Result<()> {
    let world = world()?;
    world.pod_ip(0, &["link add net1 type veth peer name far2"])?;
    for (text, words) in [
        (r#"{"device":"nosuch0"}"#, "failed to find host device \"nosuch0\""),
        (r#"{"hwaddr":"02:00:00:00:00:99"}"#, "no link of the node has MAC 02:00:00:00:00:99"),
        (
            r#"{"kernelpath":"/sys/devices/no/such"}"#,
            "failed to find network device in path /sys/devices/no/such",
        ),
        (r#"{"pciBusID":"ffff:00:00.0"}"#, "no net directory under pci device ffff:00:00.0"),
        (
            r#"{"runtimeConfig":{"deviceID":"ffff:00:00.0"}}"#,
            "runtime config DeviceID ffff:00:00.0 not found",
        ),
        ("{}", "specify either"),
        (r#"{"device":"lo"}"#, "move \"lo\" into the pod"),
    ] {
        let error = add_fails_without_a_trace(&world, "host-device", text, "1.0.0", Stdout::Read)?.error()?;
        ensure!(error.msg.contains(words), "{text}: {error:?}");
    }
    let before = world.snapshot()?.facts;
    let taken = host_device(&world, "ADD", BARE).env("CNI_IFNAME", "net1").run()?.error()?;
    ensure!(taken.msg.contains("interface name \"net1\" already exists in the pod"), "{taken:?}");
    unchanged(&world, &before)
}

/// A sysfs in which dev0 is what a card with functions and subfunctions would have, and 0000:03:00.1 is in user space.
fn make_sysfs() -> Result<()> {
    sealed::tmpfs(Path::new("/sys"), "size=1m")?;
    let card = "/sys/devices/pci0000:00/0000:03:00.0";
    for dir in ["/sys/bus/pci/devices", "/sys/bus/auxiliary/devices", "/sys/bus/pci/drivers/vfio-pci"] {
        fs::create_dir_all(dir)?;
    }
    fs::create_dir_all(format!("{card}/net/dev0"))?;
    fs::create_dir_all(format!("{card}/card.sf.2/net/dev0"))?;
    fs::create_dir_all("/sys/devices/pci0000:00/0000:03:00.1")?;
    symlink("/sys/bus/pci/drivers/vfio-pci", "/sys/devices/pci0000:00/0000:03:00.1/driver")?;
    for function in ["0000:03:00.0", "0000:03:00.1"] {
        symlink(format!("/sys/devices/pci0000:00/{function}"), format!("/sys/bus/pci/devices/{function}"))?;
    }
    symlink(format!("{card}/card.sf.2"), "/sys/bus/auxiliary/devices/card.sf.2")?;
    Ok(())
}

#[test]
fn a_device_is_found_by_what_sysfs_says() -> Result<()> {
    for (text, pci) in [
        (r#"{"kernelpath":"/sys/devices/pci0000:00/0000:03:00.0"}"#, None),
        (r#"{"pciBusID":"0000:03:00.0"}"#, Some("0000:03:00.0")),
        (r#"{"runtimeConfig":{"deviceID":"0000:03:00.0"}}"#, Some("0000:03:00.0")),
        (r#"{"RuntimeConfig":{"DeviceID":"card.sf.2"},"pciBusID":"0000:03:00.1"}"#, None),
    ] {
        sealed::sealed(|| {
            make_sysfs()?;
            let world = world()?;
            host_device(&world, "STATUS", text).run()?.silent()?;
            let result = host_device(&world, "ADD", text).run()?.result()?;
            is_in_pod(&world, &result)?;
            ensure!(result["interfaces"][0].get("pciID").and_then(|id| id.as_str()) == pci, "{result}");
            host_device(&world, "DEL", text).run()?.silent()?;
            is_back(&world)
        })
        .context(text)?;
    }
    Ok(())
}

/// A program in user space has the device: addresses are reserved, no link is touched.
#[test]
fn a_device_in_user_space_has_addresses_and_no_link() -> Result<()> {
    sealed::sealed(|| {
        make_sysfs()?;
        let world = World::new(Side::Podnet, 1)?;
        // A link of another program under the same name, which even has an alias.
        world.pod_ip(0, &["link add eth0 alias dev7 type veth peer name far2"])?;
        let text = r#"{"pciBusID":"0000:03:00.1","ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#;
        let before = world.snapshot()?.facts;
        let result = host_device(&world, "ADD", text).run()?.result()?;
        let interface = &result["interfaces"][0];
        ensure!(interface["pciID"] == "0000:03:00.1" && interface.get("mac").is_none(), "{result}");
        ensure!(result["ips"][0]["address"] == "10.1.2.2/24" && result["ips"][0]["interface"] == 0);
        ensure!(world.reservations(NETWORK)? == ["10.1.2.2"]);
        host_device(&world, "CHECK", text).prev(&result).run()?.silent()?;
        host_device(&world, "DEL", text).run()?.silent()?;
        unchanged(&world, &before)?;
        let bare = r#"{"pciBusID":"0000:03:00.1"}"#;
        let result = host_device(&world, "ADD", bare).run()?.result()?;
        ensure!(result["interfaces"][0]["name"] == "eth0" && result.get("ips").is_none(), "{result}");
        Ok(())
    })
}
