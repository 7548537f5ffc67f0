//! `macvlan`, the plugin with one link in the pod that every kernel here can make, and with it what `ipvlan`, `vlan` and
//! `dummy` share. Those three themselves, and VLANs of bridges, are in `devices`.
//!
//! ```text
//!   host ── up0 ═ far0      up0 carries the default route; far0 is the rest of the LAN
//!            ├─ eth0 in pod0
//!            └─ eth0 in pod1
//! ```

mod check;
mod mac;
mod packets;
mod verbs;

use anyhow::Result;
use podnet_tests::world::Call;
use podnet_tests::{Side, World};

/// One IPv4 network.
const V4: &str = r#"{"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#;

/// Both families, with routes.
const DUAL: &str = r#"{"mtu":1400,"ipam":{"type":"host-local","dataDir":"@DATA@",
    "ranges":[[{"subnet":"10.1.2.0/24"}],[{"subnet":"2001:db8:1::/64"}]],
    "routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"},{"dst":"192.168.0.0/16"}]}}"#;

/// A link to stand on, which is the default route's.
pub(crate) fn uplink(world: &World) -> Result<()> {
    world.host_ip(&[
        "link add up0 address 02:00:00:00:0a:01 type veth peer name far0",
        "link set far0 up",
        "link set up0 up",
        "addr add 10.1.2.254/24 dev up0",
        "route add default via 10.1.2.253",
    ])
}

/// A world with the link to stand on.
fn world(pods: usize) -> Result<World> {
    let world = World::new(Side::Podnet, pods)?;
    uplink(&world)?;
    Ok(world)
}

/// A call of `macvlan` in the newest version.
fn macvlan<'w>(world: &'w World, verb: &str, text: &str) -> Call<'w> {
    world.call("macvlan", verb).config("1.1.0", text)
}
