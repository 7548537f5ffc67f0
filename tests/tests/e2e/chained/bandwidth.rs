//! `bandwidth`: what stands in the kernel, and how fast packets then are.

use std::net::IpAddr;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use kernel::Netns;
use podnet_tests::process::Stdout;
use podnet_tests::{Side, World};
use serde_json::Value;

use super::rate::{Way, measure};
use super::{call, world};

/// Both ways, 1 MB/s and 0.5 MB/s, with a queue that holds a whole measurement.
const RATES: &str = r#"{"ingressRate":8000000,"ingressBurst":160000,"egressRate":4000000,"egressBurst":160000,"latency":2000}"#;
const TO_POD: f64 = 1e6;
const FROM_POD: f64 = 5e5;
/// Bytes of the bursts.
const BURST: usize = 20_000;

/// What `tc -j` prints on the node.
fn tc(netns: &Netns, words: &str) -> Result<Value> {
    let output = netns.run(|| Command::new("tc").arg("-j").args(words.split(' ')).output())??;
    ensure!(output.status.success(), "tc {words}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout).unwrap_or_default())
}

fn tc_set(world: &World, words: &str) -> Result<()> {
    let output = world.host.run(|| Command::new("tc").args(words.split(' ')).output())??;
    ensure!(output.status.success(), "tc {words}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The kinds of the qdiscs on one of the node's links.
fn qdiscs(world: &World, dev: &str) -> Result<Vec<String>> {
    let all = tc(&world.host, &format!("qdisc show dev {dev}"))?;
    let kinds = all.as_array().into_iter().flatten().filter_map(|qdisc| qdisc["kind"].as_str());
    Ok(kinds.filter(|kind| *kind != "noqueue").map(str::to_owned).collect())
}

/// The node's ifbs.
fn ifbs(world: &World) -> Result<Vec<String>> {
    let links = world.snapshot()?.host.macs;
    Ok(links.into_keys().filter(|link| link.starts_with("bwp")).collect())
}

fn to_pod<'w>(world: &'w World, from: &str, to: &str) -> Result<Way<'w>> {
    let (from, to): (IpAddr, IpAddr) = (from.parse()?, to.parse()?);
    Ok(Way { from: (&world.host, from), to: (&world.pods[0], to), by: ("eth0".into(), false), burst: BURST })
}

fn from_pod<'w>(world: &'w World, from: &str, to: &str) -> Result<Way<'w>> {
    let (from, to): (IpAddr, IpAddr) = (from.parse()?, to.parse()?);
    // Through the ifb once there is one.
    let by = ifbs(world)?.pop().map_or(("uplink0".into(), false), |ifb| (ifb, true));
    Ok(Way { from: (&world.pods[0], from), to: (&world.host, to), by, burst: BURST })
}

fn near(rate: f64, wanted: f64) -> Result<()> {
    println!("measured {rate:.0} B/s, {:+.2} % of {wanted:.0}", (rate / wanted - 1.0) * 100.0);
    ensure!((rate / wanted - 1.0).abs() < 0.05, "measured {rate:.0} B/s, configured {wanted:.0}");
    Ok(())
}

fn faster(rate: f64, than: f64) -> Result<()> {
    println!("measured {rate:.0} B/s, not limited to {than:.0}");
    ensure!(rate > 3.0 * than, "measured {rate:.0} B/s, as if limited to {than:.0}");
    Ok(())
}

#[test]
fn the_measured_rate_is_that_of_the_configuration_both_ways() -> Result<()> {
    let world = world(Side::Podnet)?;
    let there = || to_pod(&world, "10.1.2.1", "10.1.2.2");
    let back = || from_pod(&world, "10.1.2.2", "10.1.2.1");
    // The negative control.
    faster(measure(&there()?)?, TO_POD)?;
    faster(measure(&back()?)?, FROM_POD)?;
    call(&world, "bandwidth", "ADD", RATES).run()?.result()?;
    near(measure(&there()?)?, TO_POD)?;
    near(measure(&back()?)?, FROM_POD)
}

#[test]
fn the_rate_holds_for_ipv6_too() -> Result<()> {
    let world = world(Side::Podnet)?;
    call(&world, "bandwidth", "ADD", RATES).run()?.result()?;
    near(measure(&to_pod(&world, "2001:db8:1::1", "2001:db8:1::2")?)?, TO_POD)?;
    near(measure(&from_pod(&world, "2001:db8:1::2", "2001:db8:1::1")?)?, FROM_POD)
}

/// The other end is a neighbour (10.1.2.1, 2001:db8:1::1) or behind the node (198.51.100.1, 2001:db8:ffff::1).
fn with_far_addresses() -> Result<World> {
    let world = world(Side::Podnet)?;
    world.host_ip(&[
        "link set lo up",
        "addr add 198.51.100.1/32 dev lo",
        "addr add 2001:db8:ffff::1/128 dev lo nodad",
    ])?;
    world.pod_ip(0, &["route add default via 10.1.2.1", "-6 route add default via 2001:db8:1::1"])?;
    Ok(world)
}

#[test]
fn only_shaped_subnets_are_limited() -> Result<()> {
    let world = with_far_addresses()?;
    let text =
        RATES.replace('{', r#"{"shapedSubnets":["192.0.2.0/24","198.51.100.0/24","2001:db8:ffff::/48"],"#);
    let result = call(&world, "bandwidth", "ADD", &text).run()?.result()?;
    world.call("bandwidth", "CHECK").config("1.1.0", &text).prev(&result).run()?.silent()?;
    near(measure(&to_pod(&world, "198.51.100.1", "10.1.2.2")?)?, TO_POD)?;
    near(measure(&from_pod(&world, "10.1.2.2", "198.51.100.1")?)?, FROM_POD)?;
    near(measure(&from_pod(&world, "2001:db8:1::2", "2001:db8:ffff::1")?)?, FROM_POD)?;
    faster(measure(&to_pod(&world, "10.1.2.1", "10.1.2.2")?)?, TO_POD)?;
    faster(measure(&from_pod(&world, "10.1.2.2", "10.1.2.1")?)?, FROM_POD)?;
    faster(measure(&from_pod(&world, "2001:db8:1::2", "2001:db8:1::1")?)?, FROM_POD)
}

#[test]
fn unshaped_subnets_are_not_limited() -> Result<()> {
    let world = with_far_addresses()?;
    let text = RATES.replace('{', r#"{"unshapedSubnets":["10.0.0.0/8","2001:db8:1::/64"],"#);
    let result = call(&world, "bandwidth", "ADD", &text).run()?.result()?;
    world.call("bandwidth", "CHECK").config("1.1.0", &text).prev(&result).run()?.silent()?;
    near(measure(&to_pod(&world, "198.51.100.1", "10.1.2.2")?)?, TO_POD)?;
    near(measure(&from_pod(&world, "10.1.2.2", "198.51.100.1")?)?, FROM_POD)?;
    faster(measure(&to_pod(&world, "10.1.2.1", "10.1.2.2")?)?, TO_POD)?;
    faster(measure(&from_pod(&world, "2001:db8:1::2", "2001:db8:1::1")?)?, FROM_POD)
}

/// Rates as containerd's CRI plugin passes a pod's annotations on.
#[test]
fn capital_keys_and_bursts_of_containerd_are_taken() -> Result<()> {
    let world = world(Side::Podnet)?;
    let text = r#"{"capabilities":{"bandwidth":true},"runtimeConfig":{"bandwidth":
        {"IngressRate":1000000,"IngressBurst":4294967295,"EgressRate":100000000,"EgressBurst":4294967295}}}"#;
    let result = call(&world, "bandwidth", "ADD", text).run()?.result()?;
    assert_eq!(qdiscs(&world, "uplink0")?, ["tbf", "ingress"]);
    world.call("bandwidth", "CHECK").config("1.1.0", text).prev(&result).run()?.silent()
}

#[test]
fn the_result_gets_the_ifb_and_check_passes_right_after() -> Result<()> {
    let world = world(Side::Podnet)?;
    for version in ["0.3.0", "0.4.0", "1.0.0", "1.1.0"] {
        let previous = super::result(&world, version, "eth0", 0);
        let call = |verb| world.call("bandwidth", verb).config(version, RATES);
        let result = call("ADD").prev(&previous).run()?.result()?;
        let ifb = ifbs(&world)?.pop().context("no ifb")?;
        assert_eq!(result["interfaces"][2]["name"], ifb.as_str());
        assert_eq!(result["interfaces"][2]["mac"], world.snapshot()?.host.macs[&ifb].as_str());
        if version != "0.3.0" {
            call("CHECK").prev(&result).run()?.silent()?;
        }
        for _ in 0..2 {
            call("DEL").prev(&result).run()?.silent()?;
            ensure!(ifbs(&world)?.is_empty());
        }
        // The qdiscs go with the veth, as they do with the reference.
        for parent in ["root", "ingress"] {
            tc_set(&world, &format!("qdisc del dev uplink0 {parent}"))?;
        }
    }
    Ok(())
}

/// The reference panics.
#[test]
fn without_prevresult_add_and_check_are_refused_with_and_without_rates() -> Result<()> {
    let world = world(Side::Podnet)?;
    for text in [RATES, "{}", r#"{"ingressRate":0,"ingressBurst":0}"#] {
        for verb in ["ADD", "CHECK"] {
            let outcome = world.call("bandwidth", verb).config("1.1.0", text).run()?;
            ensure!(outcome.error()?.msg.contains("must be called as chained plugin"), "{outcome:?}");
        }
    }
    Ok(())
}

#[test]
fn without_rates_the_result_is_passed_on() -> Result<()> {
    let world = world(Side::Podnet)?;
    let result = call(&world, "bandwidth", "ADD", "{}").run()?.result()?;
    assert_eq!(result["interfaces"], super::result(&world, "1.1.0", "eth0", 0)["interfaces"]);
    assert_eq!(qdiscs(&world, "uplink0")?, [""; 0]);
    call(&world, "bandwidth", "CHECK", "{}").run()?.silent()
}

#[test]
fn rates_that_conflict_are_refused() -> Result<()> {
    let world = world(Side::Podnet)?;
    for (text, words) in [
        (r#"{"ingressRate":8000}"#, "if rate is set, burst must also be set"),
        (r#"{"egressBurst":8000}"#, "if burst is set, rate must also be set"),
        (r#"{"egressRate":8000,"egressBurst":34359738360}"#, "burst cannot be more than 4GB"),
        (
            r#"{"egressRate":8000,"egressBurst":8000,"shapedSubnets":["10.0.0.0/8"],"unshapedSubnets":["10.0.0.0/8"]}"#,
            "cannot be both specified",
        ),
    ] {
        for verb in ["ADD", "CHECK"] {
            let error = call(&world, "bandwidth", verb, text).run()?.error()?;
            ensure!(error.code == 7 && error.msg.contains(words), "{error:?}");
        }
        let error = call(&world, "bandwidth", "STATUS", text).run()?.error()?;
        ensure!(error.code == 50 && error.msg.contains(words), "{error:?}");
        // There is nothing to be deleted that depends on the rates.
        call(&world, "bandwidth", "DEL", text).run()?.silent()?;
    }
    assert_eq!(qdiscs(&world, "uplink0")?, [""; 0]);
    ensure!(ifbs(&world)?.is_empty());
    Ok(())
}

#[test]
fn a_second_add_is_refused_and_the_first_goes_on() -> Result<()> {
    let world = world(Side::Podnet)?;
    let result = call(&world, "bandwidth", "ADD", RATES).run()?.result()?;
    let egress_only = r#"{"egressRate":4000000,"egressBurst":160000}"#;
    for text in [RATES, &RATES.replace("8000000", "9000000"), egress_only] {
        let error = call(&world, "bandwidth", "ADD", text).run()?.error()?;
        ensure!(error.msg.contains("has a qdisc already"), "{error:?}");
        world.call("bandwidth", "CHECK").config("1.1.0", RATES).prev(&result).run()?.silent()?;
    }
    Ok(())
}

#[test]
fn a_failed_add_leaves_no_ifb_and_no_qdisc() -> Result<()> {
    let subnets = RATES.replace('{', r#"{"unshapedSubnets":["10.0.0.0/8"],"#);
    for text in [RATES, &subnets] {
        let world = world(Side::Podnet)?;
        let before = world.snapshot()?.facts;
        let outcome = call(&world, "bandwidth", "ADD", text).stdout(Stdout::Full).run()?;
        ensure!(outcome.exit == Some(1), "{outcome:?}");
        let changes = before.changes(&world.snapshot()?.facts);
        ensure!(changes.is_empty(), "{changes:#?}");
        assert_eq!(qdiscs(&world, "uplink0")?, [""; 0]);
    }
    Ok(())
}

#[test]
fn an_ifb_that_cannot_be_had_takes_the_qdiscs_back() -> Result<()> {
    let world = world(Side::Podnet)?;
    // Find the two names that the attachment's ifb may have, and take them away.
    let mut names = Vec::new();
    for _ in 0..2 {
        let result = call(&world, "bandwidth", "ADD", RATES).run()?.result()?;
        let name = result["interfaces"][2]["name"].as_str().context("no ifb in the result")?.to_owned();
        world.host_ip(&[&format!("link del {name}"), &format!("link add {name} type bridge")])?;
        for parent in ["root", "ingress"] {
            tc_set(&world, &format!("qdisc del dev uplink0 {parent}"))?;
        }
        names.push(name);
    }
    ensure!(names[0] != names[1], "{names:?}");
    let error = call(&world, "bandwidth", "ADD", RATES).run()?.error()?;
    ensure!(error.msg.contains("are taken by other attachments"), "{error:?}");
    assert_eq!(qdiscs(&world, "uplink0")?, [""; 0]);
    // What is no ifb is not deleted.
    call(&world, "bandwidth", "DEL", RATES).run()?.silent()?;
    assert_eq!(ifbs(&world)?.len(), 2);
    Ok(())
}

#[test]
fn del_does_not_mind_broken_rates_or_a_broken_prevresult() -> Result<()> {
    for (key, value) in [
        ("prevResult", r#""nonsense""#),
        ("prevResult", r#"{"cniVersion":"0.1.0"}"#),
        ("egressRate", "1"),
        ("shapedSubnets", r#"["x"]"#),
    ] {
        let world = world(Side::Podnet)?;
        call(&world, "bandwidth", "ADD", RATES).run()?.result()?;
        assert_eq!(ifbs(&world)?.len(), 1);
        let del = world.call("bandwidth", "DEL").config("1.1.0", RATES).with(key, value);
        for netns in [String::new(), "/nonexistent".into(), world.netns(0)] {
            del.clone().env("CNI_NETNS", netns).run()?.silent()?;
            ensure!(ifbs(&world)?.is_empty(), "{key} {value}");
        }
    }
    Ok(())
}

#[test]
fn either_side_deletes_the_ifb_of_the_other() -> Result<()> {
    for (first, second) in [(Side::Podnet, Side::Debian), (Side::Debian, Side::Podnet)] {
        for with_result in [true, false] {
            let mut world = world(first)?;
            let previous = super::result(&world, "1.0.0", "eth0", 0);
            let text = r#"{"egressRate":4000000,"egressBurst":160000}"#;
            let add = world.call("bandwidth", "ADD").config("1.0.0", text).prev(&previous);
            let result = add.run()?.result()?;
            assert_eq!(ifbs(&world)?.len(), 1);
            world.switch(second)?;
            let check = world.call("bandwidth", "CHECK").config("1.0.0", text).prev(&result);
            check.run()?.silent()?;
            let del = world.call("bandwidth", "DEL").config("1.0.0", text);
            let del = if with_result { del.prev(&result) } else { del };
            del.run()?.silent()?;
            ensure!(ifbs(&world)?.is_empty(), "{first:?} then {second:?}");
        }
    }
    Ok(())
}

/// The reference's name has no interface in it: its ifb of eth0 must outlive the DEL of an attachment without one.
#[test]
fn the_ifb_of_the_references_other_attachment_stays() -> Result<()> {
    let mut world = world(Side::Debian)?;
    let previous = super::result(&world, "1.0.0", "eth0", 0);
    let text = r#"{"egressRate":4000000,"egressBurst":160000}"#;
    world.call("bandwidth", "ADD").config("1.0.0", text).prev(&previous).run()?.result()?;
    world.switch(Side::Podnet)?;
    super::attach(&world, "net1", 1)?;
    let other = super::result(&world, "1.0.0", "net1", 1);
    let del = world.call("bandwidth", "DEL").config("1.0.0", "{}").prev(&other).env("CNI_IFNAME", "net1");
    del.run()?.silent()?;
    assert_eq!(ifbs(&world)?.len(), 1);
    Ok(())
}

#[test]
fn gc_deletes_the_stale_ifbs_of_its_network_only() -> Result<()> {
    let world = world(Side::Podnet)?;
    let text = r#"{"egressRate":4000000,"egressBurst":160000}"#;
    for (n, (container, ifname)) in [("c0", "eth0"), ("c0", "net1"), ("c1", "net2")].iter().enumerate() {
        if n > 0 {
            super::attach(&world, ifname, n)?;
        }
        let previous = super::result(&world, "1.1.0", ifname, n);
        let add = world.call("bandwidth", "ADD").config("1.1.0", text).prev(&previous);
        add.container(container).env("CNI_IFNAME", *ifname).run()?.result()?;
    }
    // Of another network, and of nobody.
    world.host_ip(&[
        "link add bwp000000000000 type ifb",
        "link set bwp000000000000 alias \"podnet_othernet_c0_eth0\"",
        "link add bwp111111111111 type ifb",
    ])?;
    assert_eq!(ifbs(&world)?.len(), 5);
    let gc = |valid: &str| {
        let call = world.call("bandwidth", "GC").config("1.1.0", text);
        let call = if valid.is_empty() { call } else { call.with("cni.dev/valid-attachments", valid) };
        call.env("CNI_CONTAINERID", "").env("CNI_NETNS", "").env("CNI_IFNAME", "").run()?.silent()
    };
    gc("")?;
    assert_eq!(ifbs(&world)?.len(), 5, "no list, nothing deleted");
    gc(r#"[{"containerID":"c0","ifname":"net1"}]"#)?;
    assert_eq!(ifbs(&world)?.len(), 3);
    let previous = super::result(&world, "1.1.0", "net1", 1);
    let check = world.call("bandwidth", "CHECK").config("1.1.0", text).prev(&previous);
    check.env("CNI_IFNAME", "net1").run()?.silent()?;
    gc("[]")?;
    assert_eq!(ifbs(&world)?, ["bwp000000000000", "bwp111111111111"]);
    Ok(())
}

#[test]
fn check_finds_each_change() -> Result<()> {
    let subnets = RATES.replace('{', r#"{"unshapedSubnets":["10.0.0.0/8"],"#);
    for (text, spoil, words) in [
        (
            RATES,
            "qdisc replace dev uplink0 root handle 1: tbf rate 7999992bit burst 20000b limit 2020000",
            "Rate",
        ),
        (
            RATES,
            "qdisc replace dev uplink0 root handle 1: tbf rate 8000000bit burst 20000b limit 9999",
            "Limit",
        ),
        (
            RATES,
            "qdisc replace dev uplink0 root handle 1: tbf rate 8000000bit burst 30000b limit 2020000",
            "Buffer",
        ),
        (RATES, "qdisc replace dev uplink0 root handle 2: bfifo", "qdisc is bfifo"),
        (RATES, "qdisc del dev uplink0 root", "qdisc is noqueue"),
        (RATES, "qdisc del dev uplink0 ingress", "not redirected"),
        (RATES, "filter del dev uplink0 parent ffff:", "not redirected"),
        (RATES, "qdisc replace dev @IFB@ root handle 1: tbf rate 8000bit burst 20000b limit 9999", "Rate"),
        (&subnets, "filter del dev uplink0 parent 1:", "filters"),
        (
            &subnets,
            "class change dev @IFB@ parent 1: classid 1:30 htb rate 1mbit burst 20000b",
            "class 10030",
        ),
        (&subnets, "qdisc del dev @IFB@ parent 1:30", "bfifo"),
    ] {
        let world = world(Side::Podnet)?;
        let result = call(&world, "bandwidth", "ADD", text).run()?.result()?;
        let check = world.call("bandwidth", "CHECK").config("1.1.0", text).prev(&result);
        check.run()?.silent()?;
        tc_set(&world, &spoil.replace("@IFB@", &ifbs(&world)?[0]))?;
        let error = check.run()?.error()?;
        ensure!(error.msg.contains(words), "{spoil}: {error:?}");
    }
    let world = world(Side::Podnet)?;
    let result = call(&world, "bandwidth", "ADD", RATES).run()?.result()?;
    let check = world.call("bandwidth", "CHECK").config("1.1.0", RATES).prev(&result);
    for (command, words) in [("set @IFB@ down", "is down"), ("del @IFB@", "get ifb device")] {
        world.host_ip(&[&format!("link {}", command.replace("@IFB@", &ifbs(&world)?[0]))])?;
        let error = check.run()?.error()?;
        ensure!(error.msg.contains(words), "{command}: {error:?}");
    }
    Ok(())
}

#[test]
fn status_tries_the_kernel_and_leaves_nothing() -> Result<()> {
    let world = world(Side::Podnet)?;
    let before = world.snapshot()?.facts;
    let subnets = RATES.replace('{', r#"{"unshapedSubnets":["10.0.0.0/8"],"#);
    for text in ["{}", RATES, &subnets] {
        call(&world, "bandwidth", "STATUS", text).run()?.silent()?;
    }
    let changes = before.changes(&world.snapshot()?.facts);
    ensure!(changes.is_empty(), "{changes:#?}");
    Ok(())
}

#[test]
fn an_interface_that_is_no_veth_is_refused() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    world.host_ip(&[
        "link add uplink0 type bridge",
        "link add eth0 link uplink0 type macvlan",
        &format!("link set eth0 netns {}", world.netns(0)),
    ])?;
    let error = call(&world, "bandwidth", "ADD", RATES).run()?.error()?;
    ensure!(error.msg.contains("container interface eth0 has no veth peer"), "{error:?}");
    Ok(())
}

#[test]
fn versions_start_at_0_3_0() -> Result<()> {
    let world = world(Side::Podnet)?;
    for version in ["0.1.0", "0.2.0"] {
        let outcome = world.call("bandwidth", "ADD").config(version, RATES).run()?;
        ensure!(outcome.error()?.code == 1, "{outcome:?}");
    }
    Ok(())
}
