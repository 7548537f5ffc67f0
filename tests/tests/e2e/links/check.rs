//! CHECK succeeds after ADD, and finds each single thing that goes missing.

use anyhow::{Context, Result, ensure};
use podnet_tests::World;
use podnet_tests::world::NETWORK;

use super::{DUAL, macvlan, world};

/// Does something to a checked pod; CHECK must fail then, with these words.
fn finds(text: &str, spoil: impl Fn(&World) -> Result<()>, words: &str) -> Result<()> {
    let world = world(1)?;
    let result = macvlan(&world, "ADD", text).run()?.result()?;
    let check = macvlan(&world, "CHECK", text).prev(&result);
    check.run()?.silent()?;
    spoil(&world)?;
    let error = check.run()?.error()?;
    ensure!(error.msg.contains(words), "expected {words:?}, seen {error:?}");
    Ok(())
}

#[test]
fn check_finds_what_became_of_the_link() -> Result<()> {
    let named = r#"{"master":"up0","mode":"bridge","bcqueuelen":500}"#;
    for (commands, words) in [
        (&["link del eth0"][..], "find \"eth0\" in the pod"),
        (&["link set eth0 down"], "\"eth0\" in the pod is down"),
        (&["link set eth0 address 02:00:00:00:00:99"], "has MAC 02:00:00:00:00:99"),
        (&["link set eth0 type macvlan mode private"], "mode is private, not bridge"),
        (&["link set eth0 type macvlan bcqueuelen 7"], "bcqueuelen is 7, not 500"),
        (
            &[
                "link set eth0 down",
                "link set eth0 name old",
                "link add eth0 type veth peer name far",
                "link set eth0 up",
            ],
            "\"eth0\" in the pod is not a macvlan",
        ),
    ] {
        finds(named, |world| world.pod_ip(0, commands), words).with_context(|| format!("{commands:?}"))?;
    }
    Ok(())
}

#[test]
fn check_finds_a_link_that_stands_on_another() -> Result<()> {
    let move_name = |world: &World| {
        world.host_ip(&[
            "link set up0 down",
            "link set up0 name old0",
            "link add up0 type veth peer name far1",
        ])
    };
    finds(r#"{"master":"up0"}"#, move_name, "does not stand on \"up0\"")?;
    let rename = |world: &World| world.host_ip(&["link set up0 down", "link set up0 name old0"]);
    finds(r#"{"master":"up0"}"#, rename, "master \"up0\" not found on the node")
}

#[test]
fn check_finds_missing_addresses_routes_mtu_and_reservations() -> Result<()> {
    let ip = |command: &'static str| move |world: &World| world.pod_ip(0, &[command]);
    finds(DUAL, ip("addr del 10.1.2.1/24 dev eth0"), "10.1.2.1/24").or_else(|_| {
        // The first address of the range is the gateway's.
        finds(DUAL, ip("addr del 10.1.2.2/24 dev eth0"), "10.1.2.2/24")
    })?;
    finds(DUAL, ip("addr del 2001:db8:1::2/64 dev eth0"), "2001:db8:1::2/64")?;
    finds(DUAL, ip("route del 192.168.0.0/16"), "192.168.0.0/16")?;
    finds(DUAL, ip("-6 route del default"), "::/0")?;
    finds(DUAL, ip("link set eth0 mtu 1300"), "MTU 1300, not 1400")?;
    let release = |world: &World| {
        for ip in world.reservations(NETWORK)? {
            std::fs::remove_file(world.data().join(NETWORK).join(ip))?;
        }
        Ok(())
    };
    finds(DUAL, release, "")
}
