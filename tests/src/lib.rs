//! The harness of the end-to-end tests: a world of network namespaces, a way to call a plugin in it as a runtime does, and
//! a picture of everything a plugin may touch, read by programs that are not ours (`ip`, `bridge`, the files in /proc/sys).
//!
//! It deliberately does not read the kernel through the `kernel` crate, which only holds its namespaces: a mistake in our
//! decoder must not be able to hide itself. Nothing here touches the machine's own network namespace, /run/netns or
//! sysctls: every namespace is held by a file descriptor and is gone with the process.

pub mod bench;
pub mod counts;
pub mod datagram;
pub mod devices;
pub mod difference;
pub mod facts;
pub mod kube;
pub mod licence;
pub mod nodes;
pub mod plugins;
pub mod process;
pub mod reader;
pub mod result;
pub mod rootless;
pub mod sealed;
pub mod sent;
pub mod workers;
pub mod world;

pub use facts::Facts;
pub use plugins::Side;
pub use process::Outcome;
pub use workers::workers;
pub use world::World;
