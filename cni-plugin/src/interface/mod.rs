//! The interface plugins: each file is one, `attach` is what they share inside the pod.

pub(crate) mod attach;
pub(crate) mod bridge;
pub(crate) mod loopback;
