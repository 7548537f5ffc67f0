//! All of the crate's tests that need more than one module, in one binary, a module per topic.
//!
//! They need strace, the reference's `host-local` in /usr/lib/cni (Debian: containernetworking-plugins) and the right
//! to mount in a namespace of their own; what is missing fails them.

extern crate podnet_ipam as ipam;

mod concurrent;
mod crash;
mod decide;
mod full_disk;
mod index;
mod range;
mod reference;
mod store;
mod support;
mod worker;
