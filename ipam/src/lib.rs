//! Address allocation as the CNI reference plugin `host-local` does it, on its own files, but safe against a crash
//! at any point and with a lookup by owner that does not read every reservation.
//!
//! Three layers, each usable alone:
//! * [`range`]: what a configuration says about addresses, made complete and checked (pure arithmetic);
//! * [`decide`]: which address comes next (pure decision, told by the caller what is taken);
//! * [`store`]: the reservations in a directory, one file each.
//!
//! It knows nothing of CNI's configuration or results, of JSON, of routes or DNS, and it talks to no other node.

pub mod decide;
mod directory;
mod error;
mod index;
pub mod range;
mod session;
pub mod store;

pub use error::{Error, Result};
pub use range::{Range, RangeConf, RangeSet};
pub use session::INDEXES;
pub use store::{Allocation, Owner, Reserved, Store};
