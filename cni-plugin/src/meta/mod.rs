//! The chained plugins, a file or folder each: they change what the plugins before them made.

pub(crate) mod bandwidth;
pub(crate) mod firewall;
pub(crate) mod owner;
pub(crate) mod policy;
pub(crate) mod portmap;
pub(crate) mod sbr;
pub(crate) mod tuning;
pub(crate) mod vrf;
