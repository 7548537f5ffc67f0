//! What the plugins ask the kernel for, read from the bytes by a decoder that is not ours. The kernel may refuse: these tests need
//! no device, and skip nowhere.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use kernel::link::{self, LinkKind, NewLink, PortVlan};
use kernel::netns::Netns;
use kernel::rtnl::Rtnl;
use podnet_tests::{Side, World, sent};
use serde_json::{Value, json};

use super::node::{call, world};

const NEWLINK: u64 = 16;

/// For each ADD (plugin, configuration) the first message that makes a link.
fn first_links(adds: &[(&str, &str)]) -> Result<Vec<Value>> {
    let record = |(plugin, text): &(&str, &str)| -> Result<String> {
        let world = world(1)?;
        Ok(sent::record(&world, call(&world, plugin, "ADD", text))?.1)
    };
    let logs = adds.iter().map(record).collect::<Result<Vec<_>>>()?;
    let firsts = sent::decode(&logs)?.into_iter().zip(adds).map(|(messages, add)| {
        let first = messages.into_iter().find(|message| message["type"] == NEWLINK);
        first.with_context(|| format!("{add:?}: no link is asked for"))
    });
    firsts.collect()
}

#[test]
fn a_link_of_one_piece_is_asked_for_whole() -> Result<()> {
    // 0x8100, 802.1Q
    let vlan = |id: u16| json!([["IFLA_VLAN_ID", id], ["IFLA_VLAN_PROTOCOL", 33024]]);
    let ipvlan = |mode: u16| json!([["IFLA_IPVLAN_MODE", mode]]);
    let macvlan = |mode: &str| json!([["IFLA_MACVLAN_MODE", mode]]);
    let cases = [
        ("vlan", r#"{"master":"up0","vlanId":1}"#, vlan(1)),
        ("vlan", r#"{"master":"up0","vlanId":4094}"#, vlan(4094)),
        ("ipvlan", r#"{"master":"up0"}"#, ipvlan(0)),
        ("ipvlan", r#"{"master":"up0","mode":"l2"}"#, ipvlan(0)),
        ("ipvlan", r#"{"master":"up0","mode":"l3"}"#, ipvlan(1)),
        ("ipvlan", r#"{"master":"up0","mode":"l3s"}"#, ipvlan(2)),
        ("macvlan", r#"{"master":"up0"}"#, macvlan("bridge")),
        ("macvlan", r#"{"master":"up0","mode":"private"}"#, macvlan("private")),
        ("macvlan", r#"{"master":"up0","mode":"vepa"}"#, macvlan("vepa")),
        ("macvlan", r#"{"master":"up0","mode":"passthru"}"#, macvlan("passthru")),
    ];
    let firsts = first_links(&cases.each_ref().map(|(plugin, text, _)| (*plugin, *text)))?;
    for (first, (plugin, text, data)) in firsts.iter().zip(cases) {
        let expected = json!({
            "type": NEWLINK,
            "nlm": "request ack excl create",
            "family": 0,
            "ifi_type": 0,
            "index": 0,
            "flags": 0,
            "change": 0,
            "attrs": [
                ["IFLA_IFNAME", "eth0"],
                ["IFLA_NET_NS_FD", "fd"],
                ["IFLA_LINK", 3],
                ["IFLA_LINKINFO", [["IFLA_INFO_KIND", plugin], ["IFLA_INFO_DATA", data]]],
            ],
        });
        ensure!(*first == expected, "{plugin} {text}: {first:#}, expected {expected:#}");
    }
    Ok(())
}

#[test]
fn mtu_and_mac_are_part_of_the_request() -> Result<()> {
    let cases = [
        ("vlan", r#"{"master":"up0","vlanId":1,"mtu":1400}"#, "IFLA_MTU", json!(1400)),
        ("ipvlan", r#"{"master":"up0","mtu":1400}"#, "IFLA_MTU", json!(1400)),
        ("macvlan", r#"{"master":"up0","mtu":1400}"#, "IFLA_MTU", json!(1400)),
        (
            "macvlan",
            r#"{"master":"up0","capabilities":{"mac":true},"runtimeConfig":{"mac":"02:00:00:00:00:07"}}"#,
            "IFLA_ADDRESS",
            json!("02:00:00:00:00:07"),
        ),
    ];
    let firsts = first_links(&cases.each_ref().map(|(plugin, text, ..)| (*plugin, *text)))?;
    for (first, (plugin, text, name, expected)) in firsts.iter().zip(cases) {
        assert_eq!(*value(first, &[name])?, expected, "{plugin} {text}");
    }
    Ok(())
}

/// A dummy is made in the pod itself: no namespace, no link below.
#[test]
fn a_dummy_is_nothing_but_its_name() -> Result<()> {
    let text = r#"{"ipam":{"type":"static","addresses":[{"address":"10.1.2.3/24"}]}}"#;
    let first = first_links(&[("dummy", text)])?.remove(0);
    let expected = json!([["IFLA_IFNAME", "eth0"], ["IFLA_LINKINFO", [["IFLA_INFO_KIND", "dummy"]]]]);
    assert_eq!(first["attrs"], expected);
    assert_eq!(first["nlm"], "request ack excl create");
    Ok(())
}

#[test]
fn bridge_and_veth_are_asked_for_as_meant() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    let (outcome, log) = sent::record(&world, call(&world, "bridge", "ADD", r#"{"mtu":1400}"#))?;
    outcome.result()?;
    let messages = sent::decode(&[log])?.remove(0);
    let made: Vec<_> = messages.iter().filter(|message| message["type"] == NEWLINK).collect();
    let [bridge, veth] = made[..] else { anyhow::bail!("not two links: {messages:#?}") };
    // The kernel is asked to show the veth that it made.
    for (message, flags) in [(bridge, "request ack excl create"), (veth, "request ack echo excl create")] {
        assert_eq!(message["nlm"], flags);
        assert_eq!(
            (&message["flags"], &message["change"]),
            (&json!(1), &json!(1)),
            "IFF_UP alone: {message}"
        );
        assert_eq!(message["index"], 0);
    }
    assert_eq!(value(bridge, &["IFLA_IFNAME"])?, "cni0");
    assert_eq!(value(bridge, &["IFLA_LINKINFO", "IFLA_INFO_KIND"])?, "bridge");
    assert_eq!(value(veth, &["IFLA_MTU"])?, 1400);
    assert_eq!(value(veth, &["IFLA_LINKINFO", "IFLA_INFO_KIND"])?, "veth");
    let peer = ["IFLA_LINKINFO", "IFLA_INFO_DATA", "VETH_INFO_PEER"];
    assert_eq!(value(veth, &[&peer[..], &["IFLA_IFNAME"]].concat())?, "eth0");
    assert_eq!(value(veth, &[&peer[..], &["IFLA_MTU"]].concat())?, 1400);
    assert_eq!(value(veth, &[&peer[..], &["IFLA_NET_NS_FD"]].concat())?, "fd");
    Ok(())
}

#[test]
fn a_bridge_with_vlans_filters_from_its_first_moment() -> Result<()> {
    let first = first_links(&[("bridge", r#"{"vlan":100}"#)])?.remove(0);
    assert_eq!(first["nlm"], "request ack excl create");
    assert_eq!(*value(&first, &["IFLA_IFNAME"])?, "cni0");
    let info = json!([["IFLA_INFO_KIND", "bridge"], ["IFLA_INFO_DATA", [["IFLA_BR_VLAN_FILTERING", 1]]]]);
    assert_eq!(*value(&first, &["IFLA_LINKINFO"])?, info);
    Ok(())
}

/// What only comes after something that this kernel may refuse is sent by this test itself, run once more under `strace`.
#[test]
fn a_vrf_and_the_vlans_of_a_port_are_asked_for_as_meant() -> Result<()> {
    const SENDER: &str = "PODNET_SENDER";
    if std::env::var_os(SENDER).is_some() {
        return send_vrf_and_port_vlans();
    }
    let dir = tempfile::TempDir::with_prefix("podnet-e2e-")?;
    let log = dir.path().join("sent");
    let strace = sent::strace(&log);
    let own = "devices::decode::a_vrf_and_the_vlans_of_a_port_are_asked_for_as_meant";
    let mut command = Command::new(&strace[0]);
    command.args(&strace[1..]).arg(std::env::current_exe()?).args(["--exact", own]).env(SENDER, "1");
    let output = command.output().context("run this test under strace")?;
    ensure!(output.status.success(), "the sender: {}", String::from_utf8_lossy(&output.stdout));
    let messages = sent::decode(&[std::fs::read_to_string(&log)?])?.remove(0);
    let head = |kind: u64, nlm: &str, family: u64, index: u64, attrs: Value| {
        json!({"type": kind, "nlm": nlm, "family": family, "ifi_type": 0, "index": index, "flags": 0,
               "change": 0, "attrs": attrs})
    };
    let (bridge, delete, set) = (7, 17, 19);
    let vlan = |flags: u16, vid: u16| json!(["IFLA_BRIDGE_VLAN_INFO", {"flags": flags, "vid": vid}]);
    let vlans = |vlans: &[Value]| json!([["IFLA_AF_SPEC", vlans]]);
    let (pvid_untagged, begin, end) = (6, 8, 16);
    let expected = [
        head(
            NEWLINK,
            "request ack excl create",
            0,
            0,
            json!([
                ["IFLA_IFNAME", "red"],
                [
                    "IFLA_LINKINFO",
                    [["IFLA_INFO_KIND", "vrf"], ["IFLA_INFO_DATA", [["IFLA_VRF_TABLE", 4711]]]]
                ],
            ]),
        ),
        head(delete, "request ack", bridge, 1, vlans(&[vlan(begin, 1), vlan(end, 4094)])),
        head(
            set,
            "request ack",
            bridge,
            1,
            vlans(&[vlan(begin, 20), vlan(end, 22), vlan(0, 40), vlan(pvid_untagged, 100)]),
        ),
    ];
    // A kernel without VRF is asked once more, to tell which of the two it was that it lacks.
    let of_ours = |message: &&Value| message["type"] != NEWLINK || value(message, &["IFLA_IFNAME"]).is_ok();
    let messages: Vec<&Value> = messages.iter().filter(of_ours).collect();
    ensure!(messages == expected.iter().collect::<Vec<_>>(), "{messages:#?}\nexpected {expected:#?}");
    Ok(())
}

/// Asks in an empty namespace for a VRF, and for VLANs of loopback, which no kernel gives it.
fn send_vrf_and_port_vlans() -> Result<()> {
    let netns = Netns::create()?;
    let mut rtnl = Rtnl::open_in(&netns)?;
    // Whether the kernel does it is not asked here.
    let _ = link::add(&mut rtnl, &NewLink::new("red", LinkKind::Vrf { table: 4711 }));
    let _ = link::clear_port_vlans(&mut rtnl, 1);
    let tagged = |id| PortVlan { id, pvid: false, untagged: false };
    let native = PortVlan { id: 100, pvid: true, untagged: true };
    let _ = link::add_port_vlans(&mut rtnl, 1, &[tagged(20), tagged(21), tagged(22), tagged(40), native]);
    Ok(())
}

/// The value of an attribute, by the names of the nests around it; there must be exactly one.
fn value<'m>(message: &'m Value, path: &[&str]) -> Result<&'m Value> {
    path.iter().try_fold(message, |nest, name| {
        let attributes = nest.get("attrs").unwrap_or(nest).as_array();
        let mut found = attributes.into_iter().flatten().filter(|pair| pair[0] == *name);
        let first = found.next().with_context(|| format!("no {name} in {message}"))?;
        ensure!(found.next().is_none(), "{name} comes twice in {message}");
        Ok(&first[1])
    })
}
