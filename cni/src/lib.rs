//! The CNI specification (up to 1.1.0) as types, with both of its sides: [`plugin`] turns an environment
//! and stdin into a verb of a [`plugin::Plugin`] and its output; [`runtime`] reads network configurations
//! and calls plugins for them. [`delegate`] is the part that both share, a plugin that calls a plugin.
//!
//! It deliberately knows nothing of links, addresses or reservations, sets no network namespace, and
//! installs no signal handler or global state (but for [`plugin::report_panics`], when asked to).

pub mod args;
mod conf;
pub mod delegate;
mod env;
mod error;
pub mod json;
mod net;
pub mod plugin;
mod process;
mod result;
pub mod runtime;
mod undo;
mod version;

pub use conf::{Conf, ValidAttachment};
pub use env::Env;
pub use error::{Error, code};
pub use json::Json;
pub use net::{Cidr, Ip, parse_cidr};
pub use plugin::{Call, Plugin};
pub use result::{CniResult, Dns, Interface, IpConfig, Route};
pub use undo::Undo;
pub use version::Version;
