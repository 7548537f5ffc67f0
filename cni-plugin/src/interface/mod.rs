//! The interface plugins, a file or folder each. `attach` is what they share inside the pod, `veth` what
//! those with a veth pair share on the node.

pub(crate) mod attach;
pub(crate) mod bridge;
pub(crate) mod dns;
pub(crate) mod loopback;
pub(crate) mod saved;
pub(crate) mod veth;
