//! What the plugins ask the kernel for, read from the bytes by a decoder that is not ours. The kernel may refuse: these tests need
//! no device, and skip nowhere.

use anyhow::{Context, Result};
use podnet_tests::{Side, World, sent};
use serde_json::{Value, json};

const NEWLINK: u64 = 16;

/// The messages that make a link, without its name's random part.
fn made(messages: &[Value]) -> impl Iterator<Item = &Value> {
    messages.iter().filter(|message| message["type"] == NEWLINK)
}

#[test]
fn bridge_and_veth_are_asked_for_as_meant() -> Result<()> {
    let world = World::new(Side::Podnet, 1)?;
    let (outcome, messages) =
        sent::by(&world, world.call("bridge", "ADD").config("1.0.0", r#"{"mtu":1400}"#))?;
    outcome.result()?;
    let made: Vec<_> = made(&messages).collect();
    let [bridge, veth] = made[..] else { anyhow::bail!("not two links: {messages:#?}") };
    for message in [bridge, veth] {
        assert_eq!(message["nlm"], "request ack excl create");
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

/// The value of an attribute, by the names of the nests around it; there must be exactly one.
fn value<'m>(message: &'m Value, path: &[&str]) -> Result<&'m Value> {
    path.iter().try_fold(message, |nest, name| {
        let attributes = nest.get("attrs").unwrap_or(nest).as_array();
        let mut found = attributes.into_iter().flatten().filter(|pair| pair[0] == *name);
        let first = found.next().with_context(|| format!("no {name} in {message}"))?;
        anyhow::ensure!(found.next().is_none(), "{name} comes twice in {message}");
        Ok(&first[1])
    })
}
