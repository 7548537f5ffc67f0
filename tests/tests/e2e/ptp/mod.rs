//! `ptp` beyond the matrix: packets, what the reference gets wrong, and what goes missing.
//!
//! ```text
//!   pod0 eth0 ── vethA 10.1.2.1 ┐                         ┌ 10.200.0.2
//!                               node (routes) up0 ── up1 outside
//!   pod1 eth0 ── vethB 10.1.2.1 ┘        10.200.0.1
//! ```

mod verbs;

use std::net::IpAddr;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use kernel::netns::Netns;
use podnet_tests::datagram::source_seen;
use podnet_tests::process::Stdout;
use podnet_tests::world::{Call, NETWORK};
use podnet_tests::{Side, World};
use serde_json::Value;

use crate::rollback::{add_fails_without_a_trace, unchanged};

const DUAL: &str = r#"{"ipMasq":true,"mtu":1400,"ipam":{"type":"host-local","dataDir":"@DATA@",
    "ranges":[[{"subnet":"10.1.2.0/24"}],[{"subnet":"2001:db8:1::/64"}]],
    "routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"},{"dst":"192.168.0.0/16"}]}}"#;

fn ptp<'w>(world: &'w World, verb: &str, text: &str) -> Call<'w> {
    world.call("ptp", verb).config("1.1.0", text)
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// The nth address of a result.
fn address(result: &Value, n: usize) -> IpAddr {
    let text = result["ips"][n]["address"].as_str().unwrap_or_default();
    ip(text.split('/').next().unwrap_or_default())
}

/// A namespace beside the node, with routes to the pods.
fn outside(world: &World) -> Result<Netns> {
    let outside = Netns::create()?;
    world.host_ip(&[
        "link add up0 type veth peer name up1",
        &format!("link set up1 netns {}", world.path_of(&outside)),
        "addr add 10.200.0.1/24 dev up0",
        "addr add 2001:db8:200::1/64 dev up0 nodad",
        "link set up0 up",
    ])?;
    let mut far = World::new(Side::Podnet, 0)?;
    far.host = outside;
    far.host_ip(&[
        "addr add 10.200.0.2/24 dev up1",
        "addr add 2001:db8:200::2/64 dev up1 nodad",
        "link set up1 up",
        "route add default via 10.200.0.1",
        "-6 route add default via 2001:db8:200::1",
    ])?;
    Ok(far.host)
}

/// Two pods and the results of their ADDs.
fn two_pods(text: &str) -> Result<(World, [Value; 2])> {
    let world = World::new(Side::Podnet, 2)?;
    let add = |pod| ptp(&world, "ADD", text).pod(pod).run()?.result();
    let results = [add(0)?, add(1)?];
    Ok((world, results))
}

/// All rules of the node's namespace, as `nft` shows them.
fn ruleset(world: &World) -> Result<String> {
    let list = || Command::new("nft").args(["list", "ruleset"]).output();
    let output = world.host.run(list)?.context("start nft")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn gone(world: &World) -> Result<()> {
    ensure!(world.reservations(NETWORK)?.is_empty(), "reservations left: {:?}", world.reservations(NETWORK)?);
    let snapshot = world.snapshot()?;
    let left: Vec<_> = snapshot.host.macs.keys().filter(|link| link.starts_with("veth")).collect();
    ensure!(left.is_empty(), "links left on the node: {left:?}");
    ensure!(ruleset(world)?.is_empty(), "rules left: {}", ruleset(world)?);
    Ok(())
}

#[test]
fn pods_node_and_outside_reach_each_other_with_their_own_addresses() -> Result<()> {
    let (world, results) = two_pods(&DUAL.replace(r#""ipMasq":true,"#, ""))?;
    let outside = outside(&world)?;
    let [pod0, pod1] = [&world.pods[0], &world.pods[1]];
    for (family, gateway, up, far) in [
        (0, "10.1.2.1", "10.200.0.1", "10.200.0.2"),
        (1, "2001:db8:1::1", "2001:db8:200::1", "2001:db8:200::2"),
    ] {
        let (a, b) = (address(&results[0], family), address(&results[1], family));
        let ways = [
            ("pod to pod", pod0, pod1, b, a),
            ("pod to pod, the other way", pod1, pod0, a, b),
            ("node to pod", &world.host, pod0, a, ip(gateway)),
            ("pod to gateway", pod0, &world.host, ip(gateway), a),
            ("pod to another address of the node", pod0, &world.host, ip(up), a),
            ("pod to outside", pod0, &outside, ip(far), a),
            ("outside to pod", &outside, pod1, b, ip(far)),
        ];
        for (way, from, to, address, source) in ways {
            let seen = source_seen(from, to, address).context(way)?;
            ensure!(seen == source, "{way}: the source of what came to {address} is {seen}, not {source}");
        }
    }
    Ok(())
}

#[test]
fn masquerade_is_seen_outside_and_not_between_pods() -> Result<()> {
    for backend in ["", r#""ipMasqBackend":"iptables","#, r#""ipMasqBackend":"nftables","#] {
        let text = DUAL.replacen('{', &format!("{{{backend}"), 1);
        let (world, results) = two_pods(&text)?;
        let outside = outside(&world)?;
        let [pod0, pod1] = [&world.pods[0], &world.pods[1]];
        for (family, up, far) in [(0, "10.200.0.1", "10.200.0.2"), (1, "2001:db8:200::1", "2001:db8:200::2")]
        {
            let (a, b) = (address(&results[0], family), address(&results[1], family));
            ensure!(source_seen(pod0, pod1, b)? == a, "pods are masqueraded from one another");
            ensure!(source_seen(pod0, &outside, ip(far))? == ip(up), "{a} is seen outside");
        }
        for (pod, result) in results.iter().enumerate() {
            ptp(&world, "CHECK", &text).pod(pod).prev(result).run()?.silent()?;
            ptp(&world, "DEL", &text).pod(pod).prev(result).run()?.silent()?;
        }
        gone(&world)?;
    }
    Ok(())
}

/// The reference lets duplicate address detection run: a second and more until an IPv6 address is of use.
#[test]
fn ipv6_addresses_are_of_use_when_add_returns() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    let result = ptp(&world, "ADD", DUAL).run()?.result()?;
    for (whose, netns) in [("the pod", &world.pods[0]), ("the node", &world.host)] {
        let show =
            || Command::new("ip").args(["-6", "addr", "show", "scope", "global", "tentative"]).output();
        let tentative = String::from_utf8_lossy(&netns.run(show)??.stdout).into_owned();
        ensure!(tentative.is_empty(), "{whose}: {tentative}");
    }
    // The node's link-local address comes with the carrier, a moment later: it asks nobody either.
    let facts = world.snapshot()?.facts;
    for key in ["host/sysctl/net/ipv6/conf/veth0/accept_dad", "pod0/sysctl/net/ipv6/conf/eth0/accept_dad"] {
        ensure!(facts.get(key) == Some("0"), "{key}: {:?}", facts.get(key));
    }
    source_seen(&world.host, &world.pods[0], address(&result, 1))?;
    Ok(())
}

#[test]
fn a_gateway_that_the_ipam_plugin_does_not_give_is_named() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    let text = r#"{"ipam":{"type":"static","addresses":[{"address":"10.1.2.3/24"}]}}"#;
    let error = add_fails_without_a_trace(&world, "ptp", text, "1.0.0", Stdout::Read)?.error()?;
    ensure!(error.code == 7 && error.msg.contains("ptp needs a gateway for 10.1.2.3/24"), "{error:?}");
    Ok(())
}

/// The reference fails: it deletes the connected route twice.
#[test]
fn two_addresses_of_one_subnet_work() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    let text = r#"{"ipam":{"type":"static","addresses":[{"address":"10.1.2.3/24","gateway":"10.1.2.1"},
        {"address":"10.1.2.4/24","gateway":"10.1.2.1"},{"address":"10.1.2.5/24","gateway":"10.1.2.2"},
        {"address":"2001:db8::3/64","gateway":"2001:db8::1"},{"address":"2001:db8::4/64","gateway":"2001:db8::1"}]}}"#;
    let result = ptp(&world, "ADD", text).run()?.result()?;
    for n in 0..5 {
        source_seen(&world.host, &world.pods[0], address(&result, n))?;
    }
    source_seen(&world.pods[0], &world.host, ip("10.1.2.2"))?;
    ptp(&world, "CHECK", text).prev(&result).run()?.silent()?;
    ptp(&world, "DEL", text).prev(&result).run()?.silent()?;
    gone(&world)
}

#[test]
fn a_single_address_with_a_gateway_outside_of_it_works() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    let text = r#"{"ipam":{"type":"static","addresses":[{"address":"10.1.2.3/32","gateway":"169.254.1.1"},
        {"address":"2001:db8::3/128","gateway":"fd00::1"}],"routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]}}"#;
    let result = ptp(&world, "ADD", text).run()?.result()?;
    for n in 0..2 {
        source_seen(&world.host, &world.pods[0], address(&result, n))?;
    }
    let outside = outside(&world)?;
    ensure!(source_seen(&world.pods[0], &outside, ip("10.200.0.2"))? == ip("10.1.2.3"));
    ptp(&world, "CHECK", text).prev(&result).run()?.silent()
}

#[test]
fn without_an_ipam_plugin_it_is_a_wire() -> Result<()> {
    for text in ["{}", r#"{"ipam":{},"mtu":1300,"ipMasq":true}"#] {
        let world = World::new(Side::Podnet, 1)?;
        let before = world.snapshot()?.facts;
        let result = ptp(&world, "ADD", text).run()?.result()?;
        ensure!(result.get("ips").is_none(), "{result}");
        world.pod_ip(0, &["addr add 10.9.0.2/24 dev eth0"])?;
        let end = result["interfaces"][0]["name"].as_str().context("the node's end")?;
        world.host_ip(&[&format!("addr add 10.9.0.1/24 dev {end}")])?;
        source_seen(&world.pods[0], &world.host, ip("10.9.0.1"))?;
        ptp(&world, "CHECK", text).prev(&result).run()?.silent()?;
        ptp(&world, "STATUS", text).run()?.silent()?;
        ptp(&world, "GC", text).with("cni.dev/valid-attachments", "[]").run()?.silent()?;
        ptp(&world, "DEL", text).prev(&result).run()?.silent()?;
        unchanged(&world, &before)?;
    }
    Ok(())
}

#[test]
fn an_address_that_is_routed_to_another_link_is_refused_for_now() -> Result<()> {
    let world = World::new(Side::Podnet, 2)?;
    for family in [
        r#"{"address":"10.1.2.3/24","gateway":"10.1.2.1"}"#,
        r#"{"address":"2001:db8::3/64","gateway":"2001:db8::1"}"#,
    ] {
        let text = format!(r#"{{"ipam":{{"type":"static","addresses":[{family}]}}}}"#);
        let first = ptp(&world, "ADD", &text).pod(0).run()?.result()?;
        let before = world.snapshot()?.facts;
        let error = ptp(&world, "ADD", &text).pod(1).run()?.error()?;
        ensure!(error.code == 11 && error.msg.contains("(podnet testnet c0 eth0) already"), "{error:?}");
        unchanged(&world, &before)?;
        ptp(&world, "CHECK", &text).pod(0).prev(&first).run()?.silent()?;
        ptp(&world, "DEL", &text).pod(0).run()?.silent()?;
        ptp(&world, "ADD", &text).pod(1).run()?.result()?;
        ptp(&world, "DEL", &text).pod(1).run()?.silent()?;
    }
    Ok(())
}
