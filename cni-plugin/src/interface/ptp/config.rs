//! The configuration of `ptp`: as written (`Written`), and resolved (`PtpConfig`).

use cni::{Call, Dns, Error};
use serde::Deserialize;

use crate::interface::attach;
use crate::interface::dns::WrittenDns;

/// The keys as they stand in the configuration.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Written {
    mtu: i64,
    dns: WrittenDns,
}

/// A complete, valid configuration of one attachment.
#[derive(Debug)]
pub(super) struct PtpConfig {
    /// MTU of both ends in bytes, 0 the kernel's default.
    pub(super) mtu: u32,
    /// DNS of the configuration; replaces the IPAM's when any key of it was written.
    pub(super) dns: Option<Dns>,
}

impl PtpConfig {
    /// Reads and checks the configuration of `call`.
    ///
    /// # Errors
    /// Code 6 for what does not decode, 7 for what is not valid.
    pub(super) fn resolve(call: &Call) -> Result<Self, Error> {
        let written: Written = call.conf_as()?;
        Ok(Self { mtu: attach::mtu(written.mtu)?, dns: written.dns.chosen() })
    }
}
