//! The addresses that a runtime asks for, which `host-local` and `static` read from the same places.

use cni::Error;
use serde::Deserialize;

/// The part of the configuration that carries requests besides CNI_ARGS.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Requests {
    args: Args,
    runtime_config: RuntimeConfig,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Args {
    cni: Ips,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Ips {
    ips: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RuntimeConfig {
    ips: Vec<String>,
}

impl Requests {
    /// `args.cni.ips`, by convention of the runtimes that fill `args`.
    pub(crate) fn args(&self) -> &[String] {
        &self.args.cni.ips
    }

    /// `runtimeConfig.ips`, the capability `ips`.
    pub(crate) fn runtime(&self) -> &[String] {
        &self.runtime_config.ips
    }
}

/// A decoded value, or the error that says which text was not one.
pub(crate) fn parse<T: std::str::FromStr>(text: &str, what: &str) -> Result<T, Error> {
    text.trim().parse().map_err(|_| Error::invalid(format!("invalid {what}: {text:?}")))
}

/// Before 0.3.0 a result holds one address of each family.
///
/// # Errors
/// The reference's sentence, when `v4` or `v6` is more than one and `version` is older.
pub(crate) fn one_per_family(version: cni::Version, v4: usize, v6: usize) -> Result<(), Error> {
    if version < cni::Version::V0_3_0 && (v4 > 1 || v6 > 1) {
        return Err(Error::invalid(format!(
            "CNI version {} does not support more than 1 address per family",
            version.as_str()
        )));
    }
    Ok(())
}
