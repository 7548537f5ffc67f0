//! The configuration of `ptp`: as written (`Written`), and resolved (`PtpConfig`).

use cni::{Call, Dns, Error};
use serde::Deserialize;

use crate::interface::attach;
use crate::interface::dns::WrittenDns;
use crate::masq;

/// The keys as they stand in the configuration.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Written {
    ip_masq: bool,
    ip_masq_backend: Option<String>,
    mtu: i64,
    dns: WrittenDns,
}

/// A complete, valid configuration of one attachment.
#[derive(Debug)]
pub(super) struct PtpConfig {
    /// What the pod sends beyond its subnet has the node's address.
    pub(super) ip_masq: bool,
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
        Ok(Self {
            ip_masq: masq::wanted(written.ip_masq, written.ip_masq_backend.as_deref())?,
            mtu: attach::mtu(written.mtu)?,
            dns: written.dns.chosen(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(keys: &str) -> Result<PtpConfig, Error> {
        let text = format!(r#"{{"cniVersion":"1.1.0","name":"n","type":"ptp"{keys}}}"#);
        let env = cni::Env { command: "ADD".into(), ..cni::Env::default() };
        PtpConfig::resolve(&Call::new(env, text.into_bytes())?)
    }

    #[test]
    fn defaults_are_the_references() {
        let config = resolve("").unwrap();
        assert!(!config.ip_masq && config.mtu == 0 && config.dns.is_none());
    }

    #[test]
    fn keys_are_read_in_any_case_of_letters() {
        let config = resolve(r#","IPMASQ":true,"MTU":1400,"DNS":{"nameservers":[]}"#).unwrap();
        assert!(config.ip_masq && config.mtu == 1400 && config.dns.is_some());
    }

    #[test]
    fn what_is_no_mtu_or_backend_is_refused() {
        for (keys, code) in
            [(r#","mtu":-1"#, 7), (r#","mtu":"1400""#, 6), (r#","ipMasq":true,"ipMasqBackend":"pf""#, 7)]
        {
            assert_eq!(resolve(keys).unwrap_err().code, code, "{keys}");
        }
    }
}
