//! The interface plugins, a file or folder each. `attach` is what they share inside the pod, `veth` what
//! those with a veth pair share on the node, `one_link` all that
//! those with a single link in the pod do.

pub(crate) mod attach;
pub(crate) mod bridge;
pub(crate) mod delete;
pub(crate) mod dns;
pub(crate) mod dummy;
pub(crate) mod forwarding;
pub(crate) mod host_device;
pub(crate) mod ipvlan;
pub(crate) mod loopback;
pub(crate) mod mac;
pub(crate) mod macvlan;
pub(crate) mod one_link;
pub(crate) mod ptp;
pub(crate) mod saved;
pub(crate) mod tap;
pub(crate) mod veth;
pub(crate) mod vlan;
