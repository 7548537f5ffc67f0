//! The chained plugins, each on a link that the test made itself, so that nothing but the plugin can be at fault:
//!
//! ```text
//!   host ── uplink0 ══ eth0 ── pod0      10.1.2.1/24, 2001:db8:1::1/64 ══ 10.1.2.2/24, 2001:db8:1::2/64
//! ```
//! and with `bridge` before them, called by the runtime of the `cni` crate.

mod bandwidth;
pub(crate) mod lists;
mod rate;
mod sbr;
mod tuning;

use anyhow::Result;
use podnet_tests::world::Call;
use podnet_tests::{Side, World};
use serde_json::{Value, json};

/// A world with one pod that has an interface.
pub(crate) fn world(side: Side) -> Result<World> {
    let world = World::new(side, 1)?;
    attach(&world, "eth0", 0)?;
    Ok(world)
}

/// Gives pod 0 an interface with addresses, its `n`-th.
pub(crate) fn attach(world: &World, ifname: &str, n: usize) -> Result<()> {
    let uplink = format!("uplink{n}");
    world.host_ip(&[
        &format!("link add {uplink} address 02:00:00:00:0{n}:01 type veth peer name {ifname} address 02:00:00:00:0{n}:02"),
        &format!("link set {ifname} netns {}", world.netns(0)),
        &format!("link set {uplink} up"),
        &format!("addr add 10.{}.2.1/24 dev {uplink}", n + 1),
        &format!("addr add 2001:db8:{}::1/64 dev {uplink} nodad", n + 1),
    ])?;
    world.pod_ip(
        0,
        &[
            "link set lo up",
            &format!("link set {ifname} up"),
            &format!("addr add 10.{}.2.2/24 dev {ifname}", n + 1),
            &format!("addr add 2001:db8:{}::2/64 dev {ifname} nodad", n + 1),
        ],
    )
}

/// What the plugin that made the `n`-th interface would have printed.
pub(crate) fn result(world: &World, version: &str, ifname: &str, n: usize) -> Value {
    let address = |address: String, gateway: String, family: &str| {
        let mut ip = json!({"interface": 1, "address": address, "gateway": gateway});
        if version < "1" {
            ip["version"] = family.into();
        }
        ip
    };
    let a = n + 1;
    json!({
        "cniVersion": version,
        "interfaces": [
            {"name": format!("uplink{n}"), "mac": format!("02:00:00:00:0{n}:01")},
            {"name": ifname, "mac": format!("02:00:00:00:0{n}:02"), "sandbox": world.netns(0)},
        ],
        "ips": [
            address(format!("10.{a}.2.2/24"), format!("10.{a}.2.1"), "4"),
            address(format!("2001:db8:{a}::2/64"), format!("2001:db8:{a}::1"), "6"),
        ],
        "dns": {},
    })
}

/// A call of a chained plugin in the newest version for eth0.
pub(crate) fn call<'w>(world: &'w World, plugin: &str, verb: &str, text: &str) -> Call<'w> {
    world.call(plugin, verb).config("1.1.0", text).prev(&result(world, "1.1.0", "eth0", 0))
}
