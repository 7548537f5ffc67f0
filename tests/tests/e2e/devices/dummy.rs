//! `dummy` on a kernel that has it. The reference of 1.1.1 has no such plugin; what is expected is read from a newer one.

use std::net::UdpSocket;

use anyhow::{Context, Result, ensure};
use podnet_tests::{World, devices};

use super::node::{eth0, finds, live_and_die, world};

const DUAL: &str = r#"{"ipam":{"type":"host-local","dataDir":"@DATA@",
    "ranges":[[{"subnet":"10.1.2.0/24"}],[{"subnet":"2001:db8:1::/64"}]],"routes":[{"dst":"192.168.0.0/16"}]}}"#;

#[test]
fn device_dummy_lives_and_dies_with_and_without_addresses() -> Result<()> {
    if !devices::require("dummy")? {
        return Ok(());
    }
    for text in ["{}", DUAL] {
        let world = world(1)?;
        live_and_die(&world, "dummy", text, |result| {
            let link = eth0(&world, 0)?;
            ensure!(link["linkinfo"]["info_kind"] == "dummy", "{link}");
            ensure!(
                result["interfaces"][0]["name"] == "eth0" && result["interfaces"][1].is_null(),
                "{result}"
            );
            if text == DUAL {
                ensure!(
                    result["ips"][1]["address"] == "2001:db8:1::2/64" && result["ips"][1]["interface"] == 0
                );
                // Nobody else is on its link: there is nothing to wait for.
                world.pods[0].run(|| UdpSocket::bind("[2001:db8:1::2]:0"))?.context("bind")?;
            }
            Ok(())
        })
        .with_context(|| text.to_owned())?;
    }
    Ok(())
}

#[test]
fn device_dummy_check_finds_what_is_missing() -> Result<()> {
    if !devices::require("dummy")? {
        return Ok(());
    }
    let ip = |command: &'static str| move |world: &World, _: &_| world.pod_ip(0, &[command]);
    finds("dummy", DUAL, ip("link set eth0 down"), "is down")?;
    finds("dummy", DUAL, ip("addr del 10.1.2.2/24 dev eth0"), "10.1.2.2/24")?;
    finds("dummy", DUAL, ip("link del eth0"), "eth0")
}
