//! `host-device` beyond the matrix. The near end of a veth is the node's device, its far end stays behind:
//!
//! ```text
//!   node: dev0 ── far0          pod0: eth0 (alias dev0) ── node: far0
//!            before ADD                    after ADD
//! ```
//! Virtual functions of a card cannot be had here: what sysfs says of them comes from a made tree.

mod device;
mod verbs;

use anyhow::{Context, Result, ensure};
use podnet_tests::world::{Call, NETWORK};
use podnet_tests::{Side, World};
use serde_json::Value;

const MAC: &str = "02:00:00:00:00:d0";

const BARE: &str = r#"{"device":"dev0"}"#;

const V4: &str = r#"{"device":"dev0","ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24",
    "routes":[{"dst":"192.168.0.0/16","gw":"10.1.2.1"}]}}"#;

fn host_device<'w>(world: &'w World, verb: &str, text: &str) -> Call<'w> {
    world.call("host-device", verb).config("1.1.0", text)
}

/// dev0, up, with addresses and a route, and its far end.
fn furnish(world: &World) -> Result<()> {
    world.host_ip(&[
        &format!("link add dev0 address {MAC} mtu 1450 type veth peer name far0 address 02:00:00:00:00:f0"),
        "link set far0 up",
        "addr add 10.50.0.1/24 dev dev0",
        "addr add 2001:db8:50::1/64 dev dev0 nodad",
        "link set dev0 up",
        "route add 10.60.0.0/16 via 10.50.0.9 dev dev0",
    ])
}

fn world() -> Result<World> {
    let world = World::new(Side::Podnet, 1)?;
    world.names.choose("02:00:00:00:00:d0 02:00:00:00:00:f0");
    furnish(&world)?;
    Ok(world)
}

/// The MAC of a link that must be there: on the node, or in the pod.
fn mac(world: &World, pod: Option<usize>, name: &str) -> Result<String> {
    let snapshot = world.snapshot()?;
    let macs = pod.map_or(&snapshot.host.macs, |pod| &snapshot.pods[pod].macs);
    macs.get(name).cloned().with_context(|| format!("no {name:?} among {macs:?}"))
}

/// The device is on the node under its old name, without an alias, and nothing is reserved.
fn is_back(world: &World) -> Result<()> {
    ensure!(mac(world, None, "dev0")? == MAC);
    let facts = world.snapshot()?.facts;
    ensure!(facts.get("host/link/dev0/alias").is_none_or(str::is_empty), "the alias is left");
    ensure!(facts.get("pod0/link/eth0/mtu").is_none(), "it is in the pod still");
    ensure!(world.reservations(NETWORK)?.is_empty(), "reservations left: {:?}", world.reservations(NETWORK)?);
    Ok(())
}

/// The device is in the pod, with this result of ADD.
fn is_in_pod(world: &World, result: &Value) -> Result<()> {
    ensure!(mac(world, Some(0), "eth0")? == MAC);
    let interface = &result["interfaces"][0];
    ensure!(interface["name"] == "eth0" && interface["mac"] == MAC, "{result}");
    ensure!(interface["sandbox"] == world.netns(0), "{result}");
    let facts = world.snapshot()?.facts;
    ensure!(facts.get("pod0/link/eth0/alias") == Some("dev0"));
    ensure!(facts.get("pod0/link/eth0/flag/UP").is_some() && facts.get("pod0/link/eth0/mtu") == Some("1450"));
    ensure!(facts.get("host/link/dev0/mtu").is_none());
    Ok(())
}
