//! Reading results: prevResult of a configuration, and what a delegate or plugin printed.
//!
//! A result that names no version has that of the configuration. Text that is not a result of a known
//! version is refused, never guessed at.

use serde::{Deserialize, Deserializer, de};

use super::{CniResult, Dns, Interface, IpConfig, Route};
use crate::error::{Error, code};
use crate::json::{self, Json};
use crate::net::{Cidr, Ip};
use crate::version::Version;

impl CniResult {
    /// Reads what a plugin printed on ADD; `config` is the version of the configuration it was given. A
    /// literal `null` is an empty result.
    ///
    /// # Errors
    /// Code 6: no JSON, or not the form of its version; code 1: an unknown version.
    pub fn parse(bytes: &[u8], config: Version) -> Result<CniResult, Error> {
        let refuse = |what: &dyn std::fmt::Display| decoding(format!("decode result: {what}"));
        let json = Json::parse(bytes).map_err(|error| refuse(&error))?;
        let text = version_text(&json).map_err(|error| refuse(&error))?;
        let version = match text.as_str() {
            "" => config,
            text => Version::parse(text).ok_or_else(|| {
                let msg = format!("decode result: unsupported CNI result version {text:?}");
                Error::new(code::INCOMPATIBLE_VERSION, msg)
            })?,
        };
        read(&json, version).map_err(|error| refuse(&error))
    }

    /// Reads the `prevResult` of a configuration of version `config`. Its own version must be of the same
    /// family: 0.1.0 and 0.2.0, 0.3.0 to 0.4.0, 1.0.0 and 1.1.0.
    ///
    /// # Errors
    /// Code 6 with the reference's sentence.
    pub fn from_prev(json: &Json, config: Version) -> Result<CniResult, Error> {
        let refuse = |what: &dyn std::fmt::Display| decoding(format!("could not parse prevResult: {what}"));
        let text = version_text(json).map_err(|error| refuse(&error))?;
        let version = if text.is_empty() { Some(config) } else { Version::parse(&text) };
        let family = Family::of(config);
        match version.filter(|&version| Family::of(version) == family) {
            Some(version) => read(json, version).map_err(|error| refuse(&error)),
            None => Err(refuse(&format_args!(
                "result type supports [{}] but unmarshalled CNIVersion is {text:?}",
                family.versions()
            ))),
        }
    }
}

/// Versions whose results have one form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// 0.1.0 and 0.2.0: `ip4` and `ip6`.
    Single,
    /// 0.3.0 to 0.4.0: lists; addresses have a `version`.
    Listed,
    /// 1.0.0 and 1.1.0.
    Stable,
}

impl Family {
    pub(super) fn of(version: Version) -> Self {
        match version {
            Version::V0_1_0 | Version::V0_2_0 => Family::Single,
            Version::V0_3_0 | Version::V0_3_1 | Version::V0_4_0 => Family::Listed,
            Version::V1_0_0 | Version::V1_1_0 => Family::Stable,
        }
    }

    /// The list in the reference's sentence; its first family names the empty version too.
    fn versions(self) -> &'static str {
        match self {
            Family::Single => " 0.1.0 0.2.0",
            Family::Listed => "0.3.0 0.3.1 0.4.0",
            Family::Stable => "1.0.0 1.1.0",
        }
    }
}

fn decoding(msg: String) -> Error {
    Error::new(code::DECODING, msg)
}

/// `cniVersion` of any document, empty when there is none.
pub(crate) fn version_text(json: &Json) -> Result<String, json::Error> {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Versioned {
        cni_version: String,
    }
    Ok(json::from_json::<Versioned>(json)?.cni_version)
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Single {
    ip4: Option<SingleIp>,
    ip6: Option<SingleIp>,
    dns: Dns,
}

#[derive(Deserialize)]
struct SingleIp {
    ip: Cidr,
    #[serde(default)]
    gateway: Ip,
    #[serde(default)]
    routes: Vec<Route>,
}

/// The form from 0.3.0 on; `version` of an address is not looked at, the address itself tells.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Listed {
    interfaces: Vec<Interface>,
    ips: Vec<IpConfig>,
    routes: Vec<Route>,
    dns: Dns,
}

fn read(json: &Json, version: Version) -> Result<CniResult, json::Error> {
    if Family::of(version) != Family::Single {
        let Listed { interfaces, ips, routes, dns } = json::from_json(json)?;
        return Ok(CniResult { interfaces, ips, routes, dns });
    }
    let single: Single = json::from_json(json)?;
    let mut result = CniResult { dns: single.dns, ..CniResult::default() };
    for ip in [single.ip4, single.ip6].into_iter().flatten() {
        result.ips.push(IpConfig { interface: None, address: ip.ip.0, gateway: ip.gateway.0 });
        result.routes.extend(ip.routes.into_iter().map(|route| Route::new(route.dst, route.gw)));
    }
    Ok(result)
}

impl<'de> Deserialize<'de> for IpConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Written {
            interface: Option<usize>,
            address: Option<Cidr>,
            gateway: Ip,
        }
        let written = Written::deserialize(deserializer)?;
        let address = written.address.ok_or_else(|| de::Error::missing_field("address"))?;
        Ok(IpConfig { interface: written.interface, address: address.0, gateway: written.gateway.0 })
    }
}

impl<'de> Deserialize<'de> for Route {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Written {
            dst: Option<Cidr>,
            gw: Ip,
            mtu: Option<u32>,
            advmss: Option<u32>,
            priority: Option<u32>,
            table: Option<u32>,
            scope: Option<u8>,
        }
        let Written { dst, gw, mtu, advmss, priority, table, scope } = Written::deserialize(deserializer)?;
        let dst = dst.ok_or_else(|| de::Error::missing_field("dst"))?;
        Ok(Route { dst: dst.0, gw: gw.0, mtu, advmss, priority, table, scope })
    }
}
