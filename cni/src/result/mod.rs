//! The result of ADD: one model for every version of the specification, that of 1.1.0.
//!
//! [`CniResult::render`] prints it in any version's form, [`CniResult::parse`] and [`CniResult::from_prev`]
//! read any version's form. There is no type for each version: what an old form cannot hold is dropped when
//! it is printed.

mod read;
mod render;
#[cfg(test)]
mod tests;

pub(crate) use read::version_text;

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::Deserialize;

/// What ADD brought about, in the model of version 1.1.0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CniResult {
    /// The interfaces made or changed, on the host and in the container.
    pub interfaces: Vec<Interface>,
    /// The addresses assigned.
    pub ips: Vec<IpConfig>,
    /// The routes set in the container.
    pub routes: Vec<Route>,
    /// Name resolution for the container.
    pub dns: Dns,
}

/// An interface of a result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its link-layer address, or empty.
    pub mac: String,
    /// Its MTU in bytes, 0 when not told.
    pub mtu: u32,
    /// Path of the network namespace it is in; empty for the host's.
    pub sandbox: String,
    /// Path of the socket behind it, or empty.
    #[serde(rename = "socketPath")]
    pub socket_path: String,
    /// The PCI address of its device, or empty.
    #[serde(rename = "pciID")]
    pub pci_id: String,
}

/// An address of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpConfig {
    /// Index of its interface in [`CniResult::interfaces`].
    pub interface: Option<usize>,
    /// The address with its prefix length; host bits are kept.
    pub address: IpNetwork,
    /// The default gateway of its subnet.
    pub gateway: Option<IpAddr>,
}

/// A route of a result or of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The destination.
    pub dst: IpNetwork,
    /// The next hop; `None` leaves it to the plugin that sets the route.
    pub gw: Option<IpAddr>,
    /// MTU of the path in bytes; 0 means the same as `None`.
    pub mtu: Option<u32>,
    /// Maximal TCP segment size to announce, in bytes; 0 means the same as `None`.
    pub advmss: Option<u32>,
    /// Metric, lower is preferred; 0 means the same as `None`.
    pub priority: Option<u32>,
    /// Number of the routing table.
    pub table: Option<u32>,
    /// Scope of the destination, as in rtnetlink(7).
    pub scope: Option<u8>,
}

impl Route {
    /// A route to `dst`, through `gw` if there is one, with no other attribute.
    pub fn new(dst: IpNetwork, gw: Option<IpAddr>) -> Self {
        Self { dst, gw, mtu: None, advmss: None, priority: None, table: None, scope: None }
    }
}

/// Name resolution.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// Addresses of name servers, most preferred first.
    pub nameservers: Vec<String>,
    /// The local domain for short names.
    pub domain: String,
    /// Domains to search for short names.
    pub search: Vec<String>,
    /// Options for the resolver.
    pub options: Vec<String>,
}

impl Dns {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Dns::default()
    }
}
