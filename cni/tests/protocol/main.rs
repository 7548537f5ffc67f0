//! The crate from outside: a plugin driven through byte buffers, delegates and runtimes with shell scripts
//! for plugins, and random documents.
//!
//! ```text
//!   bytes ─→ plugin::run ─→ recorder          runtime / delegate ─→ script in a temporary directory
//! ```
//! No namespace is made and none is entered; the one that is named is the test's own.

extern crate podnet_cni as cni;

mod delegate;
mod network;
mod plugin;
mod random;
mod runtime;

mod scripts;
