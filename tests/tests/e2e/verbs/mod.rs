//! What each verb promises, beyond what the reference does: one file per verb.

mod add;
mod check;
pub(crate) mod crash;
mod del;
mod gc;
mod version;

use podnet_tests::World;
use podnet_tests::world::Call;

/// A gateway network of both families.
const DUAL: &str = r#"{"isDefaultGateway":true,"ipam":{"type":"host-local","dataDir":"@DATA@",
    "ranges":[[{"subnet":"10.1.2.0/24"}],[{"subnet":"2001:db8:1::/64"}]],"routes":[{"dst":"192.168.0.0/16"}]}}"#;

/// One IPv4 network with a gateway.
const V4: &str =
    r#"{"isGateway":true,"ipam":{"type":"host-local","dataDir":"@DATA@","subnet":"10.1.2.0/24"}}"#;

/// A call of `bridge` in the newest version.
fn bridge<'w>(world: &'w World, verb: &str, text: &str) -> Call<'w> {
    world.call("bridge", verb).config("1.1.0", text)
}
