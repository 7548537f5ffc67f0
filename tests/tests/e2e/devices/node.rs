//! What the device tests share: a node with a link to stand on, the life of one attachment, datagrams between pods.

use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kernel::netns::Netns;
use podnet_tests::process::Stdout;
use podnet_tests::world::{Call, NETWORK};
use podnet_tests::{Side, World};
use serde_json::Value;

use crate::links::uplink;
use crate::rollback::add_fails_without_a_trace;

/// What the reference of 1.1.1 prints and does otherwise whatever the plugin, and what we do otherwise on every link that
/// stands on another: patterns of path, its value, ours.
pub(super) const INTENDED: &[(&str, &str, &str)] = &[
    ("world/data/.podnet*", "absent", "*"),
    ("world/data/*/mode", "644", "600"),
    ("result/dns", "{}", "absent"),
    ("*/keep_addr_on_down", "0", "1"),
    ("*/txqlen", "*", "*"),
    ("*/optimistic", "absent", "true"),
    ("*/optimistic_dad", "0", "1"),
    ("*/use_optimistic", "0", "1"),
    ("*/ndisc_notify", "0", "1"),
];

/// A world of ours with a link to stand on.
pub(super) fn world(pods: usize) -> Result<World> {
    let world = World::new(Side::Podnet, pods)?;
    uplink(&world)?;
    Ok(world)
}

/// A call in the newest version.
pub(super) fn call<'w>(world: &'w World, plugin: &str, verb: &str, text: &str) -> Call<'w> {
    world.call(plugin, verb).config("1.1.0", text)
}

/// stdout of a program in a namespace, as JSON.
pub(super) fn json(netns: &Netns, command: &str) -> Result<Value> {
    let words: Vec<&str> = command.split_whitespace().collect();
    let output = netns.run(|| Command::new(words[0]).args(&words[1..]).output())?.context("start")?;
    ensure!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).with_context(|| format!("{command}: not JSON"))
}

/// eth0 of a pod as `ip` shows it.
pub(super) fn eth0(world: &World, pod: usize) -> Result<Value> {
    Ok(json(&world.pods[pod], "ip -d -j addr show dev eth0")?[0].clone())
}

/// STATUS, ADD, CHECK, DEL and DEL again of one attachment; what `look` wants to see lies between, and afterwards all is
/// as before. Then an ADD whose result nobody reads, which must leave nothing either.
pub(super) fn live_and_die(
    world: &World,
    plugin: &str,
    text: &str,
    look: impl Fn(&Value) -> Result<()>,
) -> Result<()> {
    let before = world.snapshot()?.facts;
    let call = |verb| call(world, plugin, verb, text);
    call("STATUS").run()?.silent()?;
    let result = call("ADD").run()?.result()?;
    call("CHECK").prev(&result).run()?.silent()?;
    look(&result)?;
    call("DEL").prev(&result).run()?.silent()?;
    call("DEL").prev(&result).run()?.silent()?;
    let without_data = |path: &str| !path.starts_with("data/");
    let left = before.filtered(without_data).changes(&world.snapshot()?.facts.filtered(without_data));
    ensure!(left.is_empty(), "left behind: {left:#?}");
    ensure!(world.reservations(NETWORK)?.is_empty(), "reservations left");
    add_fails_without_a_trace(world, plugin, text, "1.0.0", Stdout::Closed)?;
    Ok(())
}

/// Does something to a checked pod; CHECK must fail then, with these words.
pub(super) fn finds(
    plugin: &str,
    text: &str,
    spoil: impl Fn(&World, &Value) -> Result<()>,
    words: &str,
) -> Result<()> {
    let world = world(1)?;
    let result = call(&world, plugin, "ADD", text).run()?.result()?;
    let check = call(&world, plugin, "CHECK", text).prev(&result);
    check.run()?.silent()?;
    spoil(&world, &result)?;
    let error = check.run()?.error()?;
    ensure!(error.msg.contains(words), "expected {words:?}, seen {error:?}");
    Ok(())
}

/// Whether a datagram from one namespace reaches an address of another. The neighbour must be known or answer; where none
/// does, the kernel gives up after three seconds, and a frame that was dropped is given as long.
pub(super) fn reaches(from: &Netns, to: &Netns, address: &str) -> Result<bool> {
    let receiver = to.run(|| UdpSocket::bind((address, 7000)))?.with_context(|| format!("bind {address}"))?;
    receiver.set_read_timeout(Some(Duration::from_secs(3)))?;
    let sender = from.run(|| UdpSocket::bind(("0.0.0.0", 0)))??;
    // A pod without a route may not even send.
    if sender.send_to(b"hello", (address, 7000)).is_err() {
        return Ok(false);
    }
    let mut buffer = [0; 16];
    Ok(kernel::uninterrupted(|| receiver.recv(&mut buffer)).is_ok_and(|n| &buffer[..n] == b"hello"))
}
