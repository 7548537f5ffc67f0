//! The benchmark's floor does what it is the least of: without that, every distance to it is wrong. Seen by `ip`.

use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use kernel::netns::Netns;
use podnet_tests::{Side, World};
use serde_json::Value;

/// Runs the floor on the node.
fn floor(world: &World, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_floor"));
    world.host.run(|| command.args(arguments).output())?.context("start floor")
}

fn done(world: &World, arguments: &[&str]) -> Result<()> {
    let output = floor(world, arguments)?;
    ensure!(output.status.success(), "floor {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// What `ip -json` says in a namespace.
fn ip(netns: &Netns, arguments: &str) -> Result<Value> {
    let mut command = Command::new("ip");
    let output =
        netns.run(|| command.arg("-json").args(arguments.split(' ')).output())?.context("start ip")?;
    ensure!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    if output.stdout.is_empty() {
        return Ok(Value::Array(Vec::new()));
    }
    serde_json::from_slice(&output.stdout).context("decode what ip says")
}

fn names(links: &Value) -> Vec<&str> {
    let links = links.as_array().map(Vec::as_slice).unwrap_or_default();
    links.iter().filter_map(|link| link["ifname"].as_str()).collect()
}

/// A node with a bridge, and one pod.
fn world() -> Result<World> {
    let world = World::new(Side::Podnet, 1)?;
    world.host_ip(&["link set lo up", "link add cb0 up type bridge", "addr add 10.88.0.1/16 dev cb0"])?;
    Ok(world)
}

const GATEWAYS: &str = "10.88.0.1,fd00:88::1";
const ADDRESSES: &str = "10.88.0.2/16,fd00:88::2/64";

#[test]
fn the_floor_makes_a_port_of_the_bridge_with_addresses_and_routes() -> Result<()> {
    let world = world()?;
    let pod = &world.pods[0];
    done(&world, &["bridge", &world.netns(0), "eth0", "vf1", "cb0", GATEWAYS, ADDRESSES])?;
    assert_eq!(names(&ip(&world.host, "link show master cb0 up")?), ["vf1"]);
    let link = ip(pod, "addr show dev eth0 up")?;
    let addresses = link[0]["addr_info"].as_array().context("no addresses")?;
    for (address, length) in [("10.88.0.2", 16), ("fd00:88::2", 64)] {
        let found = addresses.iter().find(|a| a["local"] == address).context(address)?;
        assert_eq!((&found["prefixlen"], &found["tentative"]), (&Value::from(length), &Value::Null));
    }
    assert_eq!(ip(pod, "-4 route show default")?[0]["gateway"], "10.88.0.1");
    assert_eq!(ip(pod, "-6 route show default")?[0]["gateway"], "fd00:88::1");
    Ok(())
}

#[test]
fn both_ways_to_delete_return_when_the_link_is_gone() -> Result<()> {
    let world = world()?;
    for verb in ["delete", "announce"] {
        done(&world, &["bridge", &world.netns(0), "eth0", "vf1", "cb0", GATEWAYS, ADDRESSES])?;
        done(&world, &[verb, "vf1"])?;
        assert_eq!(names(&ip(&world.host, "link show")?), ["lo", "cb0"], "{verb}");
        assert_eq!(names(&ip(&world.pods[0], "link show")?), ["lo"], "{verb}");
    }
    Ok(())
}

#[test]
fn what_the_kernel_refuses_is_an_error() -> Result<()> {
    let world = world()?;
    let pod = world.netns(0);
    for (arguments, words) in [
        (&["bridge", &pod, "eth0", "vf1", "nowhere", GATEWAYS, ADDRESSES][..], "link nowhere"),
        (&["bridge", &pod, "eth0", "cb0", "cb0", GATEWAYS, ADDRESSES], "create the pair: EEXIST"),
        (
            &["bridge", &pod, "eth0", "vf1", "cb0", "192.0.2.1", ADDRESSES],
            "configure the pod's end: ENETUNREACH",
        ),
        (&["announce", "nowhere"], "link nowhere"),
    ] {
        let output = floor(&world, arguments)?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(1) && stderr.contains(words), "{arguments:?}: {output:?}");
    }
    Ok(())
}

#[test]
fn ptp_macvlan_and_loopback_are_made_too() -> Result<()> {
    let world = world()?;
    let pod = &world.pods[0];
    let netns = world.netns(0);
    done(&world, &["ptp", &netns, "eth0", "vf1", "10.88.0.1", "10.88.0.2/16"])?;
    assert_eq!(ip(&world.host, "route show 10.88.0.2")?[0]["dev"], "vf1");
    assert_eq!(ip(pod, "route show default")?[0]["dev"], "eth0");
    done(&world, &["delete-in", &netns, "eth0"])?;
    world.host_ip(&["link add mv0 up type veth peer name mv1", "link set mv1 up"])?;
    done(&world, &["macvlan", &netns, "eth0", "mv0", "10.88.0.1", "10.88.0.3/16"])?;
    assert_eq!(ip(pod, "-details link show dev eth0 up")?[0]["linkinfo"]["info_kind"], "macvlan");
    for (state, seen) in [("up", true), ("down", false)] {
        done(&world, &["loopback", &netns, state])?;
        let flags = ip(pod, "link show dev lo")?[0]["flags"].clone();
        assert_eq!(flags.as_array().is_some_and(|flags| flags.contains(&"UP".into())), seen, "{state}");
    }
    Ok(())
}

#[test]
fn a_rate_is_limited_both_ways() -> Result<()> {
    let world = world()?;
    done(&world, &["bridge", &world.netns(0), "eth0", "vf1", "cb0", GATEWAYS, ADDRESSES, "bandwidth"])?;
    let tc = |arguments: &[&str]| -> Result<Value> {
        let output = world.host.run(|| Command::new("tc").arg("-j").args(arguments).output())??;
        serde_json::from_slice(&output.stdout).with_context(|| format!("{arguments:?}: {output:?}"))
    };
    for link in ["vf1", "if1"] {
        let bucket = tc(&["qdisc", "show", "dev", link, "root"])?[0].clone();
        assert_eq!(
            (&bucket["kind"], &bucket["options"]["rate"]),
            (&"tbf".into(), &12_500_000.into()),
            "{bucket}"
        );
    }
    let filters = tc(&["filter", "show", "dev", "vf1", "ingress"])?.to_string();
    ensure!(
        filters.contains(r#""mirred_action":"redirect""#) && filters.contains(r#""to_dev":"if1""#),
        "{filters}"
    );
    done(&world, &["delete", "vf1", "bandwidth"])?;
    assert_eq!(names(&ip(&world.host, "link show")?), ["lo", "cb0"]);
    Ok(())
}

#[test]
fn a_reservation_is_exclusive_and_its_owners() -> Result<()> {
    let world = world()?;
    let directory = world.dir().to_string_lossy().into_owned();
    done(&world, &["reserve", &directory, "10.88.0.2", "a"])?;
    ensure!(!floor(&world, &["reserve", &directory, "10.88.0.2", "b"])?.status.success(), "reserved twice");
    ensure!(
        !floor(&world, &["release", &directory, "10.88.0.2", "b"])?.status.success(),
        "another's released"
    );
    done(&world, &["release", &directory, "10.88.0.2", "a"])?;
    assert_eq!(podnet_tests::world::reservations(world.dir())?, Vec::<String>::new());
    Ok(())
}
