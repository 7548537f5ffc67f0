//! `vrf`: the interface enters a routing domain with all that it has, and leaves it again.

use std::net::UdpSocket;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use podnet_tests::devices::{present, require};
use podnet_tests::facts::Facts;
use podnet_tests::process::Stdout;
use podnet_tests::{Side, World};

use crate::chained::{attach, call, lists, result, world};

const BLUE: &str = r#"{"vrfname":"blue","table":77}"#;

/// As the bridge plugin with a default gateway leaves the pod, and a route of a later plugin.
fn routed(side: Side) -> Result<World> {
    let world = world(side)?;
    world.pod_ip(
        0,
        &[
            "route add default via 10.1.2.1 dev eth0",
            "-6 route add default via 2001:db8:1::1 dev eth0",
            "route add 192.168.0.0/16 via 10.1.2.9 table 500",
        ],
    )?;
    Ok(world)
}

/// Links, addresses, rules and routes of the pod.
fn pod(world: &World) -> Result<Facts> {
    let mut facts = Facts::new();
    facts.absorb("pod0", podnet_tests::reader::read(&world.pods[0], &world.names)?.facts);
    Ok(facts.filtered(|path| !path.contains("/sysctl/")))
}

fn has(facts: &Facts, start: &str) -> bool {
    facts.iter().any(|(path, _)| path.starts_with(start))
}

/// A datagram from an address behind the node reaches the pod, and the pod's refusal comes back.
fn reaches(world: &World, from: &str, to: &str) -> Result<()> {
    let socket = world.host.run(|| UdpSocket::bind((from, 0)))??;
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    socket.connect((to, 9))?;
    socket.send(b"anybody there?")?;
    let refused = kernel::uninterrupted(|| socket.recv(&mut [0; 16])).expect_err("nobody listens there");
    ensure!(refused.kind() == std::io::ErrorKind::ConnectionRefused, "{from} to {to}: {refused}");
    Ok(())
}

#[test]
fn device_vrf_takes_addresses_and_routes_along() -> Result<()> {
    if !require("vrf")? {
        return Ok(());
    }
    for keep in ["0", "1"] {
        let world = routed(Side::Podnet)?;
        world.pods[0].run(|| std::fs::write("/proc/sys/net/ipv6/conf/eth0/keep_addr_on_down", keep))??;
        world.host_ip(&[
            "link set lo up",
            "addr add 198.51.100.1/32 dev lo",
            "addr add 2001:db8:ffff::1/128 dev lo nodad",
        ])?;
        let added = call(&world, "vrf", "ADD", BLUE).run()?.result()?;
        assert_eq!(added["ips"], result(&world, "1.1.0", "eth0", 0)["ips"]);
        let facts = pod(&world)?;
        assert_eq!(facts.get("pod0/link/eth0/master"), Some("blue"));
        assert_eq!(facts.get("pod0/route/77/4/default/0/gateway"), Some("10.1.2.1"));
        assert_eq!(facts.get("pod0/route/77/6/default/0/gateway"), Some("2001:db8:1::1"));
        assert_eq!(facts.get("pod0/route/500/4/192.168.0.0_16/0/gateway"), Some("10.1.2.9"));
        ensure!(
            has(&facts, "pod0/addr/eth0/2001:db8:1::2_64/") && has(&facts, "pod0/addr/eth0/10.1.2.2_24/")
        );
        ensure!(!has(&facts, "pod0/route/main/4/") && !has(&facts, "pod0/route/main/6/2001"), "{facts:#?}");
        reaches(&world, "198.51.100.1", "10.1.2.2")?;
        reaches(&world, "2001:db8:ffff::1", "2001:db8:1::2")?;
        call(&world, "vrf", "CHECK", BLUE).run()?.silent()?;
        for _ in 0..2 {
            call(&world, "vrf", "DEL", BLUE).run()?.silent()?;
            let facts = pod(&world)?;
            ensure!(!has(&facts, "pod0/link/blue") && facts.get("pod0/link/eth0/master").is_none());
        }
    }
    Ok(())
}

/// ptp sends everything through the gateway, the subnet too; the reference cannot put such a pod with IPv6 into a VRF.
#[test]
fn device_vrf_after_ptp_with_ipv6() -> Result<()> {
    if !require("vrf")? {
        return Ok(());
    }
    for keep in ["0", "1"] {
        let world = world(Side::Podnet)?;
        world.pods[0].run(|| std::fs::write("/proc/sys/net/ipv6/conf/eth0/keep_addr_on_down", keep))??;
        world.pod_ip(
            0,
            &[
                "route del 10.1.2.0/24 dev eth0",
                "route add 10.1.2.1 dev eth0 scope link src 10.1.2.2",
                "route add 10.1.2.0/24 via 10.1.2.1 src 10.1.2.2",
                "route add default via 10.1.2.1",
                "-6 route del 2001:db8:1::/64 dev eth0",
                "-6 route add 2001:db8:1::1 dev eth0 src 2001:db8:1::2",
                "-6 route add 2001:db8:1::/64 via 2001:db8:1::1 src 2001:db8:1::2",
                "-6 route add default via 2001:db8:1::1",
            ],
        )?;
        call(&world, "vrf", "ADD", BLUE)
            .run()?
            .result()
            .with_context(|| format!("keep_addr_on_down {keep}"))?;
        let facts = pod(&world)?;
        for (family, subnet, gateway) in
            [("4", "10.1.2.0_24", "10.1.2.1"), ("6", "2001:db8:1::_64", "2001:db8:1::1")]
        {
            let at = format!("pod0/route/77/{family}/{subnet}");
            assert_eq!(facts.get(&format!("{at}/0/gateway")), Some(gateway), "{facts:#?}");
            ensure!(!has(&facts, &format!("{at}/1/")), "the subnet is on the link again: {facts:#?}");
        }
        reaches(&world, "10.1.2.1", "10.1.2.2")?;
        reaches(&world, "2001:db8:1::1", "2001:db8:1::2")?;
        call(&world, "vrf", "CHECK", BLUE).run()?.silent()?;
    }
    Ok(())
}

#[test]
fn device_vrf_goes_with_its_last_interface() -> Result<()> {
    if !require("vrf")? {
        return Ok(());
    }
    let world = routed(Side::Podnet)?;
    attach(&world, "net1", 1)?;
    let other = |verb| {
        let previous = result(&world, "1.1.0", "net1", 1);
        world
            .call("vrf", verb)
            .config("1.1.0", r#"{"vrfname":"blue"}"#)
            .prev(&previous)
            .env("CNI_IFNAME", "net1")
    };
    call(&world, "vrf", "ADD", BLUE).run()?.result()?;
    other("ADD").run()?.result()?;
    other("CHECK").run()?.silent()?;
    call(&world, "vrf", "DEL", BLUE).run()?.silent()?;
    assert_eq!(pod(&world)?.get("pod0/link/net1/master"), Some("blue"));
    other("CHECK").run()?.silent()?;
    other("DEL").run()?.silent()?;
    ensure!(!has(&pod(&world)?, "pod0/link/blue"));
    Ok(())
}

#[test]
fn device_vrf_takes_a_table_that_nothing_uses() -> Result<()> {
    if !require("vrf")? {
        return Ok(());
    }
    let world = routed(Side::Podnet)?;
    world.pod_ip(
        0,
        &[
            "link add red type vrf table 1",
            "rule add from 10.9.9.9 table 2",
            "route add blackhole 10.0.0.0/8 table 3",
            "-6 route add blackhole fd00::/8 table 4",
        ],
    )?;
    call(&world, "vrf", "ADD", r#"{"vrfname":"blue"}"#).run()?.result()?;
    assert_eq!(pod(&world)?.get("pod0/route/5/4/default/0/gateway"), Some("10.1.2.1"));
    Ok(())
}

#[test]
fn device_vrf_refuses_what_is_there_otherwise() -> Result<()> {
    if !require("vrf")? {
        return Ok(());
    }
    for (prepare, text, words) in [
        ("link add blue type vrf table 5", BLUE, "already exist with different routing table 5"),
        ("link add blue type bridge", BLUE, "Netlink blue is not a VRF"),
        ("link set eth0 master br0", BLUE, "already a master set: br0"),
        ("link set lo up", "{}", "expected to have a valid vrf name"),
    ] {
        let world = routed(Side::Podnet)?;
        world.pod_ip(0, &["link add br0 type bridge", prepare])?;
        let before = pod(&world)?;
        let error = call(&world, "vrf", "ADD", text).run()?.error()?;
        ensure!(error.msg.contains(words), "{error:?}");
        let changes = before.changes(&pod(&world)?);
        ensure!(changes.is_empty(), "{prepare}: {changes:#?}");
    }
    let world = routed(Side::Podnet)?;
    let error = world.call("vrf", "ADD").config("1.1.0", BLUE).run()?.error()?;
    ensure!(error.msg.contains("missing prevResult from earlier plugin"), "{error:?}");
    Ok(())
}

#[test]
fn device_vrf_a_failed_add_puts_everything_back() -> Result<()> {
    if !require("vrf")? {
        return Ok(());
    }
    for keep in ["0", "1"] {
        let world = routed(Side::Podnet)?;
        world.pods[0].run(|| std::fs::write("/proc/sys/net/ipv6/conf/eth0/keep_addr_on_down", keep))??;
        let before = pod(&world)?;
        let outcome = call(&world, "vrf", "ADD", BLUE).stdout(Stdout::Full).run()?;
        ensure!(outcome.exit == Some(1), "{outcome:?}");
        // The kernel makes the rule that asks VRFs with the first of them, and keeps it.
        let now = pod(&world)?;
        let changes: Vec<_> =
            before.changes(&now).into_iter().filter(|change| !change.path.contains("/rule/")).collect();
        ensure!(changes.is_empty(), "{changes:#?}");
    }
    Ok(())
}

/// The reference fails, and so keeps the plugins before it from their DEL.
#[test]
fn device_vrf_del_succeeds_whatever_is_missing() -> Result<()> {
    if !require("vrf")? {
        return Ok(());
    }
    for (lose, left) in [
        ("link del eth0", false),
        ("link del blue", false),
        ("link set eth0 nomaster", false),
        ("link set eth0 name net7", true),
    ] {
        let world = routed(Side::Podnet)?;
        call(&world, "vrf", "ADD", BLUE).run()?.result()?;
        world.pod_ip(0, &["link set eth0 down", lose])?;
        for _ in 0..2 {
            call(&world, "vrf", "DEL", BLUE).run()?.silent().context(lose)?;
        }
        assert_eq!(has(&pod(&world)?, "pod0/link/blue"), left, "{lose}");
    }
    let world = routed(Side::Podnet)?;
    for netns in ["", "/nonexistent", "/etc/passwd"] {
        call(&world, "vrf", "DEL", BLUE).env("CNI_NETNS", netns).run()?.silent().context(netns)?;
    }
    for text in ["{}", r#"{"vrfname":""}"#, r#"{"vrfname":"lo"}"#] {
        call(&world, "vrf", "DEL", text).run()?.silent().context(text)?;
    }
    Ok(())
}

#[test]
fn device_vrf_check_finds_each_change() -> Result<()> {
    if !require("vrf")? {
        return Ok(());
    }
    for (spoil, words) in [
        ("link set eth0 nomaster", "failed to find eth0 associated to vrf blue"),
        ("link del eth0", "failed to find eth0 associated to vrf blue"),
        ("link del blue", "VRF \"blue\" is missing"),
        ("link set blue down", "VRF \"blue\" is down"),
        ("route del default table 77", "0.0.0.0/0"),
    ] {
        let world = routed(Side::Podnet)?;
        let mut previous = result(&world, "1.1.0", "eth0", 0);
        previous["routes"] = serde_json::json!([{"dst": "0.0.0.0/0"}]);
        let call = |verb| world.call("vrf", verb).config("1.1.0", BLUE).prev(&previous);
        call("ADD").run()?.result()?;
        call("CHECK").run()?.silent()?;
        world.pod_ip(0, &[spoil])?;
        let error = call("CHECK").run()?.error()?;
        ensure!(error.msg.contains(words), "{spoil}: {error:?}");
    }
    Ok(())
}

#[test]
fn device_vrf_either_side_deletes_what_the_other_made() -> Result<()> {
    if !require("vrf")? {
        return Ok(());
    }
    for (first, second) in [(Side::Podnet, Side::Debian), (Side::Debian, Side::Podnet)] {
        let mut world = world(first)?;
        let previous = result(&world, "1.0.0", "eth0", 0);
        let run = |world: &World, verb| world.call("vrf", verb).config("1.0.0", BLUE).prev(&previous).run();
        run(&world, "ADD")?.result()?;
        world.switch(second)?;
        run(&world, "CHECK")?.silent()?;
        run(&world, "DEL")?.silent()?;
        ensure!(!has(&pod(&world)?, "pod0/link/blue"), "{first:?} then {second:?}");
    }
    Ok(())
}

#[test]
fn device_vrf_behind_bridge_passes_check_right_after_add() -> Result<()> {
    if !require("vrf")? {
        return Ok(());
    }
    lists::lives(&["1.0.0"], r#"{"type":"vrf","vrfname":"blue"}"#)
}

/// Also where the kernel has no VRF: then it is named.
#[test]
fn a_missing_vrf_is_named() -> Result<()> {
    let world = routed(Side::Podnet)?;
    let before = pod(&world)?;
    let status = call(&world, "vrf", "STATUS", BLUE).run()?;
    if present("vrf")? {
        return status.silent();
    }
    let error = status.error()?;
    ensure!(error.code == 50 && error.msg.contains("kernel lacks vrf (CONFIG_NET_VRF)"), "{error:?}");
    let error = call(&world, "vrf", "ADD", BLUE).run()?.error()?;
    ensure!(error.msg.contains("kernel lacks vrf (CONFIG_NET_VRF)"), "{error:?}");
    ensure!(before.changes(&pod(&world)?).is_empty());
    Ok(())
}
