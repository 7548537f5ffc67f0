//! The chained plugins, a file or folder each: they change what the plugins before them made.

pub(crate) mod bandwidth;
#[allow(dead_code, reason = "portmap and firewall use the rest")]
pub(crate) mod owner;
pub(crate) mod sbr;
pub(crate) mod tuning;
pub(crate) mod vrf;
