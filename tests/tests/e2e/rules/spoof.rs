//! `macspoofchk`: a frame with another MAC than the pod's own does not pass the bridge.

use std::net::UdpSocket;

use anyhow::{Context, Result, ensure};
use podnet_tests::{Side, World};
use serde_json::Value;

use super::{bridge, print_of, ruleset, socket, table};

fn text(check: bool) -> String {
    format!(
        r#"{{"isGateway":true,"macspoofchk":{check},
            "ipam":{{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}}}"#
    )
}

/// Broadcasts from pod 0 with its own MAC, a spoofed one, and its own again; gives what pod 1 hears.
fn heard(check: bool) -> Result<Vec<String>> {
    let world = World::new(Side::Podnet, 2)?;
    let mut macs = Vec::new();
    for pod in 0..2 {
        let result = bridge(&world, "ADD", &text(check)).pod(pod).run()?.result()?;
        macs.push(mac(&result)?);
    }
    world.pod_ip(0, &["route add default dev eth0"])?;
    let from = socket(&world.pods[0], "0.0.0.0:0")?;
    from.set_broadcast(true)?;
    let to = socket(&world.pods[1], "0.0.0.0:7000")?;
    for (mac, word) in
        [(macs[0].as_str(), "own"), ("02:00:00:00:00:66", "spoofed"), (macs[0].as_str(), "again")]
    {
        world.pod_ip(0, &[&format!("link set eth0 address {mac}")])?;
        from.send_to(word.as_bytes(), "255.255.255.255:7000")?;
    }
    hear(&to, "again")
}

/// The words that come in, up to the last.
fn hear(socket: &UdpSocket, last: &str) -> Result<Vec<String>> {
    let mut words = Vec::new();
    let mut buffer = [0; 64];
    loop {
        let (len, _) = kernel::uninterrupted(|| socket.recv_from(&mut buffer))
            .with_context(|| format!("after {words:?}"))?;
        words.push(String::from_utf8_lossy(&buffer[..len]).into_owned());
        if words.last().is_some_and(|word| word == last) {
            return Ok(words);
        }
    }
}

fn mac(result: &Value) -> Result<String> {
    Ok(result["interfaces"][2]["mac"].as_str().context("no MAC")?.to_owned())
}

#[test]
fn spoofed_mac_is_dropped() -> Result<()> {
    assert_eq!(heard(true)?, ["own", "again"]);
    Ok(())
}

/// The negative control.
#[test]
fn spoofed_mac_passes_without_the_key() -> Result<()> {
    assert_eq!(heard(false)?, ["own", "spoofed", "again"]);
    Ok(())
}

/// Debian's plugin writes these rules by `nft`: the same text comes out.
#[test]
fn rules_are_the_references() -> Result<()> {
    let mut shown = Vec::new();
    for side in [Side::Debian, Side::Podnet] {
        let world = World::new(side, 1)?;
        let result = world.call("bridge", "ADD").config("1.0.0", &text(true)).run()?.result()?;
        let port = result["interfaces"][1]["name"].as_str().context("no port")?;
        let rules = table(&world, &["bridge", "nat"])?.replace(port, "PORT").replace(&mac(&result)?, "MAC");
        shown.push(rules);
    }
    assert_eq!(shown[0], shown[1]);
    ensure!(shown[1].contains("iifname \"PORT\" jump cni-br-iface-c0-eth0 comment \"macspoofchk-c0-eth0\""));
    Ok(())
}

#[test]
fn rules_of_the_reference_are_removed_by_ours_and_ours_by_the_reference() -> Result<()> {
    for (from, to) in [(Side::Debian, Side::Podnet), (Side::Podnet, Side::Debian)] {
        let mut world = World::new(from, 1)?;
        let text = text(true);
        let result = world.call("bridge", "ADD").config("1.0.0", &text).run()?.result()?;
        world.switch(to)?;
        if to == Side::Podnet {
            world.call("bridge", "CHECK").config("1.0.0", &text).prev(&result).run()?.silent()?;
        }
        world.call("bridge", "DEL").config("1.0.0", &text).prev(&result).run()?.silent()?;
        // The reference never removes the table and the base chain.
        let rules = ruleset(&world)?;
        ensure!(!rules.contains("c0-eth0") && !rules.contains("iifname"), "{from:?}: {rules}");
    }
    Ok(())
}

/// ebtables-nft and libvirt keep rules in the same table and chain.
#[test]
fn table_of_another_program_stays() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    let script = "table bridge nat {
        chain PREROUTING { type filter hook prerouting priority dstnat; policy accept; }
        chain libvirt-O-vnet0 { drop; }
    }";
    print_of(&world.host, "nft", &[script], "")?;
    let before = ruleset(&world)?;
    for foreign in ["", "insert rule bridge nat PREROUTING iifname vnet0 jump libvirt-O-vnet0"] {
        if !foreign.is_empty() {
            print_of(&world.host, "nft", &[foreign], "")?;
        }
        let before = ruleset(&world)?;
        bridge(&world, "ADD", &text(true)).run()?.result()?;
        bridge(&world, "DEL", &text(true)).env("CNI_NETNS", "").run()?.silent()?;
        assert_eq!(ruleset(&world)?, before);
        world.pod_ip(0, &["link del eth0"])?;
    }
    ensure!(ruleset(&world)? != before);
    Ok(())
}
