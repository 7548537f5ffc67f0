//! The network configuration that a plugin gets on stdin: the keys that all plugins share.
//!
//! Keys of one plugin are read by that plugin with [`Conf::read_as`]. The document is parsed once.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, code};
use crate::json::{self, Json};
use crate::result::{CniResult, Dns};
use crate::version::Version;

/// A network configuration.
#[derive(Clone, Debug)]
pub struct Conf {
    /// `cniVersion`; 0.1.0 when there is none.
    pub cni_version: Version,
    /// `cniVersion` as written, empty when there is none.
    pub cni_version_raw: String,
    /// `name` of the network.
    pub name: String,
    /// `type`: the plugin's name.
    pub kind: String,
    /// `capabilities`, which runtimes leave in.
    pub capabilities: BTreeMap<String, bool>,
    /// `dns`.
    pub dns: Dns,
    /// `prevResult`.
    pub prev_result: Option<CniResult>,
    /// Why `prevResult` could not be read, when that is no error: DEL must work without it.
    pub prev_result_error: Option<String>,
    /// `cni.dev/valid-attachments` of GC, or else `cni.dev/attachments`. `None`: the runtime gave no list,
    /// so nothing may be removed; an empty list: everything of this network is stale.
    pub valid_attachments: Option<Vec<ValidAttachment>>,
    ipam_type: String,
    document: Json,
}

/// An attachment that GC must leave alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(default)]
pub struct ValidAttachment {
    /// The container's id.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// The interface's name in the container.
    pub ifname: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Written {
    #[serde(rename = "cniVersion")]
    cni_version: String,
    name: String,
    r#type: String,
    capabilities: BTreeMap<String, bool>,
    ipam: Ipam,
    dns: Dns,
    #[serde(rename = "cni.dev/valid-attachments")]
    valid_attachments: Option<Vec<ValidAttachment>>,
    #[serde(rename = "cni.dev/attachments")]
    attachments: Option<Vec<ValidAttachment>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Ipam {
    r#type: String,
}

impl Conf {
    /// Reads a configuration. A `prevResult` that cannot be read is an error for ADD and CHECK; the other
    /// verbs are to clean up what they can, so they go on without.
    ///
    /// # Errors
    /// Code 6 for what does not decode, code 1 for a version that is none.
    pub fn parse(bytes: &[u8], command: &str) -> Result<Conf, Error> {
        Self::from_document(Json::parse(bytes).map_err(decoding)?, command)
    }

    pub(crate) fn from_document(document: Json, command: &str) -> Result<Conf, Error> {
        let written: Written = json::from_json(&document).map_err(decoding)?;
        let cni_version = Version::of_config(&written.cni_version).ok_or_else(|| {
            Error::new(code::INCOMPATIBLE_VERSION, "incompatible CNI versions")
                .with_details(format!("config is {:?}", written.cni_version))
        })?;
        let (prev_result, prev_result_error) = match prev_result(&document, cni_version) {
            Ok(result) => (result, None),
            Err(error) if matches!(command, "ADD" | "CHECK") => return Err(error),
            Err(error) => (None, Some(error.to_string())),
        };
        Ok(Conf {
            cni_version,
            cni_version_raw: written.cni_version,
            name: written.name,
            kind: written.r#type,
            capabilities: written.capabilities,
            dns: written.dns,
            prev_result,
            prev_result_error,
            valid_attachments: written.valid_attachments.or(written.attachments),
            ipam_type: written.ipam.r#type,
            document,
        })
    }

    /// `ipam.type`; `None` when it is absent or empty.
    pub fn ipam_type(&self) -> Option<&str> {
        Some(self.ipam_type.as_str()).filter(|name| !name.is_empty())
    }

    /// The configuration as `T`, which names the keys of one plugin; see [`json::from_slice`].
    ///
    /// # Errors
    /// Code 6; the text names the key, what was expected and what stood there.
    pub fn read_as<T: DeserializeOwned>(&self) -> Result<T, Error> {
        json::from_json(&self.document).map_err(decoding)
    }

    /// The whole document, as written.
    pub fn document(&self) -> &Json {
        &self.document
    }
}

fn decoding(error: json::Error) -> Error {
    Error::new(code::DECODING, format!("decode network config: {error}"))
}

/// `prevResult` of the document; `None` when absent or null.
fn prev_result(document: &Json, version: Version) -> Result<Option<CniResult>, Error> {
    let Some(json) = json::field(document, "prevResult") else { return Ok(None) };
    match json {
        Json::Object(_) => CniResult::from_prev(json, version).map(Some),
        _ => Err(Error::new(
            code::DECODING,
            format!(
                "decode network config: key \"prevResult\": expected an object, found {}",
                json.describe()
            ),
        )),
    }
}
