//! What the agent puts on the node and takes off again: the plugins, the network's configuration, reservations that
//! nobody needs any more.
//!
//! The order is the promise. [`binaries::install`] puts the plugins in place and runs each once; only then is the
//! configuration written ([`conflist::write`]), whose being there tells the kubelet that the network is ready. Taking off
//! ([`uninstall`]) is the other way round.

pub mod binaries;
pub mod conflist;
mod files;
pub mod reservations;
pub mod uninstall;

#[cfg(test)]
mod tests;
