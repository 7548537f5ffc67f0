//! `sbr`: rules and tables in the pod, and the way that packets then take.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kernel::link;
use kernel::packet::PacketSocket;
use podnet_tests::facts::Facts;
use podnet_tests::process::Stdout;
use podnet_tests::{Side, World};

use super::{call, world};

/// As the bridge plugin with a default gateway leaves the pod.
fn routed(side: Side) -> Result<World> {
    let world = world(side)?;
    world.pod_ip(
        0,
        &["route add default via 10.1.2.1 dev eth0", "-6 route add default via 2001:db8:1::1 dev eth0"],
    )?;
    Ok(world)
}

/// Rules and routes of the pod.
fn routing(world: &World) -> Result<Facts> {
    let facts = world.snapshot()?.facts;
    Ok(facts.filtered(|path| path.starts_with("pod0/route/") || path.starts_with("pod0/rule/")))
}

fn has(facts: &Facts, start: &str) -> bool {
    facts.iter().any(|(path, _)| path.starts_with(start))
}

fn ruled(facts: &Facts, source: &str, table: &str) -> bool {
    let source = format!("\"src\":\"{source}\"");
    let table = format!("\"table\":\"{table}\"");
    facts
        .iter()
        .any(|(path, rule)| path.contains("/rule/") && rule.contains(&source) && rule.contains(&table))
}

#[test]
fn routes_move_to_a_table_for_each_address() -> Result<()> {
    let world = routed(Side::Podnet)?;
    let result = call(&world, "sbr", "ADD", "{}").run()?.result()?;
    assert_eq!(result["ips"], super::result(&world, "1.1.0", "eth0", 0)["ips"], "the result is passed on");
    let facts = routing(&world)?;
    ensure!(ruled(&facts, "10.1.2.2", "100") && ruled(&facts, "2001:db8:1::2", "101"), "{facts:#?}");
    assert_eq!(facts.get("pod0/route/100/4/default/0/gateway"), Some("10.1.2.1"));
    assert_eq!(facts.get("pod0/route/100/4/10.1.2.0_24/0/dev"), Some("eth0"));
    assert_eq!(facts.get("pod0/route/101/6/default/0/gateway"), Some("2001:db8:1::1"));
    ensure!(!has(&facts, "pod0/route/main/") && !has(&facts, "pod0/route/100/6"), "{facts:#?}");
    call(&world, "sbr", "CHECK", "{}").run()?.silent()?;
    for _ in 0..2 {
        call(&world, "sbr", "DEL", "{}").run()?.silent()?;
        let facts = routing(&world)?;
        ensure!(!ruled(&facts, "10.1.2.2", "100") && !ruled(&facts, "2001:db8:1::2", "101"), "{facts:#?}");
        ensure!(!has(&facts, "pod0/route/100/") && !has(&facts, "pod0/route/101/"), "{facts:#?}");
    }
    Ok(())
}

/// Sends a datagram to `to` in the pod from an address behind the node, and tells by which of the node's links the
/// pod's answer arrives.
fn answers_by(world: &World, to: SocketAddr) -> Result<String> {
    let pod = world.pods[0].run(|| UdpSocket::bind(to))??;
    pod.set_read_timeout(Some(Duration::from_secs(10)))?;
    let sender = world.host.run(|| UdpSocket::bind("198.51.100.1:0"))??;
    let capture = PacketSocket::open_in(&world.host)?;
    sender.send_to(b"which way?", to)?;
    let mut buffer = [0; 256];
    let (length, from) = kernel::uninterrupted(|| pod.recv_from(&mut buffer)).context("the question")?;
    let answer = b"this way!!";
    ensure!(&buffer[..length] == b"which way?");
    pod.send_to(answer, from)?;
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut rtnl = kernel::Rtnl::open_in(&world.host)?;
    while Instant::now() < deadline {
        let Some(frame) = capture.recv(&mut buffer)? else {
            std::thread::yield_now();
            continue;
        };
        let payload = &buffer[..frame.len];
        if !frame.outgoing && payload.windows(answer.len()).any(|bytes| bytes == answer) {
            return Ok(link::by_index(&mut rtnl, frame.ifindex)?.name);
        }
    }
    anyhow::bail!("no answer from {to} was seen on the node")
}

#[test]
fn answers_leave_by_the_interface_that_was_asked() -> Result<()> {
    let world = routed(Side::Podnet)?;
    super::attach(&world, "net1", 1)?;
    world.host_ip(&["link set lo up", "addr add 198.51.100.1/32 dev lo"])?;
    let (eth0, net1) = ("10.1.2.2:4000".parse()?, "10.2.2.2:4000".parse()?);
    // The negative control: the main table has one default route only.
    assert_eq!(answers_by(&world, net1)?, "uplink0");
    for (ifname, n) in [("eth0", 0), ("net1", 1)] {
        let previous = super::result(&world, "1.1.0", ifname, n);
        let call =
            |verb| world.call("sbr", verb).config("1.1.0", "{}").prev(&previous).env("CNI_IFNAME", ifname);
        call("ADD").run()?.result()?;
        call("CHECK").run()?.silent()?;
    }
    assert_eq!(answers_by(&world, eth0)?, "uplink0");
    assert_eq!(answers_by(&world, net1)?, "uplink1");
    Ok(())
}

#[test]
fn a_table_is_chosen_that_no_route_uses_either() -> Result<()> {
    let world = routed(Side::Podnet)?;
    // No rule leads to these two; the second is of the other family.
    world.pod_ip(
        0,
        &["route add blackhole 10.0.0.0/8 table 100", "-6 route add blackhole fd00::/8 table 102"],
    )?;
    call(&world, "sbr", "ADD", "{}").run()?.result()?;
    let facts = routing(&world)?;
    ensure!(ruled(&facts, "10.1.2.2", "101") && ruled(&facts, "2001:db8:1::2", "103"), "{facts:#?}");
    call(&world, "sbr", "DEL", "{}").run()?.silent()?;
    ensure!(has(&routing(&world)?, "pod0/route/100/4/10.0.0.0_8"), "somebody else's table");
    Ok(())
}

#[test]
fn a_given_table_gets_rules_only() -> Result<()> {
    let world = routed(Side::Podnet)?;
    world.pod_ip(0, &["route add default via 10.1.2.1 table 5000", "rule add from 10.1.2.2 table 6000"])?;
    let before = routing(&world)?;
    let text = r#"{"table":5000}"#;
    call(&world, "sbr", "ADD", text).run()?.result()?;
    let facts = routing(&world)?;
    ensure!(ruled(&facts, "10.1.2.2", "5000") && ruled(&facts, "2001:db8:1::2", "5000"), "{facts:#?}");
    assert_eq!(facts.get("pod0/route/main/4/default/0/gateway"), Some("10.1.2.1"));
    call(&world, "sbr", "CHECK", text).run()?.silent()?;
    call(&world, "sbr", "DEL", text).run()?.silent()?;
    let changes = before.changes(&routing(&world)?);
    ensure!(changes.is_empty(), "{changes:#?}");
    Ok(())
}

#[test]
fn the_gateways_of_the_configuration_are_used() -> Result<()> {
    let world = routed(Side::Podnet)?;
    let text = r#"{"gateways":["10.1.2.77","2001:db8:1::77"]}"#;
    call(&world, "sbr", "ADD", text).run()?.result()?;
    let facts = routing(&world)?;
    assert_eq!(facts.get("pod0/route/100/4/default/0/gateway"), Some("10.1.2.77"));
    assert_eq!(facts.get("pod0/route/101/6/default/0/gateway"), Some("2001:db8:1::77"));
    ensure!(!has(&facts, "pod0/route/100/4/default/1"), "{facts:#?}");
    call(&world, "sbr", "CHECK", text).run()?.silent()
}

#[test]
fn source_hints_keep_the_subnets_in_the_main_table() -> Result<()> {
    let world = routed(Side::Podnet)?;
    let text = r#"{"addSourceHints":true}"#;
    call(&world, "sbr", "ADD", text).run()?.result()?;
    let facts = routing(&world)?;
    assert_eq!(facts.get("pod0/route/main/4/10.1.2.0_24/0/prefsrc"), Some("10.1.2.2"));
    assert_eq!(facts.get("pod0/route/main/6/2001:db8:1::_64/0/prefsrc"), Some("2001:db8:1::2"));
    ensure!(
        !has(&facts, "pod0/route/main/4/default") && !has(&facts, "pod0/route/main/6/default"),
        "{facts:#?}"
    );
    call(&world, "sbr", "CHECK", text).run()?.silent()?;
    world.pod_ip(0, &["-6 route del 2001:db8:1::/64 src 2001:db8:1::2"])?;
    let error = call(&world, "sbr", "CHECK", text).run()?.error()?;
    ensure!(error.msg.contains("2001:db8:1::/64"), "{error:?}");
    Ok(())
}

#[test]
fn a_failed_add_puts_all_routes_back() -> Result<()> {
    let world = routed(Side::Podnet)?;
    let before = routing(&world)?;
    let outcome = call(&world, "sbr", "ADD", r#"{"gateways":["172.16.0.1"]}"#).run()?;
    ensure!(outcome.error()?.msg.contains("172.16.0.1"), "{outcome:?}");
    ensure!(before.changes(&routing(&world)?).is_empty());
    for text in ["{}", r#"{"addSourceHints":true}"#, r#"{"table":5000}"#] {
        let outcome = call(&world, "sbr", "ADD", text).stdout(Stdout::Full).run()?;
        ensure!(outcome.exit == Some(1), "{outcome:?}");
        let changes = before.changes(&routing(&world)?);
        ensure!(changes.is_empty(), "{text}: {changes:#?}");
    }
    Ok(())
}

/// The reference creates an empty file where the namespace was, on which every other plugin's DEL then fails.
#[test]
fn del_without_the_namespace_succeeds_and_makes_no_file() -> Result<()> {
    let world = routed(Side::Podnet)?;
    call(&world, "sbr", "ADD", "{}").run()?.result()?;
    let gone = world.dir().join("gone");
    std::fs::write(world.dir().join("file"), "")?;
    for netns in ["".into(), gone.clone(), world.dir().join("file")] {
        for _ in 0..2 {
            call(&world, "sbr", "DEL", "{}").env("CNI_NETNS", netns.clone()).run()?.silent()?;
            ensure!(!gone.exists(), "a file was made at CNI_NETNS");
        }
    }
    Ok(())
}

#[test]
fn del_without_the_interface_removes_the_rules() -> Result<()> {
    let world = routed(Side::Podnet)?;
    call(&world, "sbr", "ADD", "{}").run()?.result()?;
    world.pod_ip(0, &["link del eth0", "rule add from 10.1.2.2 to 10.9.0.0/16 table 100"])?;
    call(&world, "sbr", "DEL", "{}").run()?.silent()?;
    let facts = routing(&world)?;
    ensure!(!ruled(&facts, "2001:db8:1::2", "101"), "{facts:#?}");
    let left: Vec<_> = facts.iter().filter(|(_, rule)| rule.contains("\"src\":\"10.1.2.2\"")).collect();
    ensure!(left.len() == 1 && left[0].1.contains("10.9.0.0"), "only a rule like ours is ours: {left:?}");
    // Nothing is known then, and nothing to be done.
    world.call("sbr", "DEL").config("1.1.0", "{}").run()?.silent()
}

#[test]
fn check_finds_a_missing_rule_or_route() -> Result<()> {
    for (text, spoil, words) in [
        ("{}", "rule del from 10.1.2.2", "rule from 10.1.2.2/32"),
        ("{}", "-6 rule del from 2001:db8:1::2", "rule from 2001:db8:1::2/128"),
        ("{}", "route del default table 100", "default route via 10.1.2.1 in table 100"),
        (r#"{"table":5000}"#, "rule del from 10.1.2.2", "rule from 10.1.2.2/32 to table 5000"),
    ] {
        let world = routed(Side::Podnet)?;
        call(&world, "sbr", "ADD", text).run()?.result()?;
        call(&world, "sbr", "CHECK", text).run()?.silent()?;
        world.pod_ip(0, &[spoil])?;
        let error = call(&world, "sbr", "CHECK", text).run()?.error()?;
        ensure!(error.msg.contains(words), "{spoil}: {error:?}");
    }
    Ok(())
}

#[test]
fn either_side_removes_the_rules_of_the_other() -> Result<()> {
    for (first, second) in [(Side::Podnet, Side::Debian), (Side::Debian, Side::Podnet)] {
        let mut world = routed(first)?;
        let previous = super::result(&world, "1.0.0", "eth0", 0);
        let run = |world: &World, verb| world.call("sbr", verb).config("1.0.0", "{}").prev(&previous).run();
        run(&world, "ADD")?.result()?;
        ensure!(routing(&world)?.iter().any(|(_, rule)| rule.contains("\"src\":\"10.1.2.2\"")));
        world.switch(second)?;
        run(&world, "DEL")?.silent()?;
        let facts = routing(&world)?;
        ensure!(!facts.iter().any(|(_, rule)| rule.contains("\"src\":\"10.1.2.2\"")), "{facts:#?}");
    }
    Ok(())
}

#[test]
fn without_addresses_or_prevresult_add_is_refused() -> Result<()> {
    let world = routed(Side::Podnet)?;
    let before = routing(&world)?;
    let error = world.call("sbr", "ADD").config("1.1.0", "{}").run()?.error()?;
    ensure!(error.msg.contains("must be called as chained plugin"), "{error:?}");
    let mut previous = super::result(&world, "1.1.0", "eth0", 0);
    previous["ips"] = serde_json::json!([]);
    let error = world.call("sbr", "ADD").config("1.1.0", "{}").prev(&previous).run()?.error()?;
    ensure!(error.msg.contains("No IP addresses supplied on interface: eth0"), "{error:?}");
    ensure!(before.changes(&routing(&world)?).is_empty());
    Ok(())
}
