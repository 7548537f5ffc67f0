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

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(text: &str, command: &str) -> Result<Conf, Error> {
        Conf::parse(text.as_bytes(), command)
    }

    #[test]
    fn common_keys_are_read_in_any_case() {
        let text = r#"{"CNIVersion":"0.4.0","NAME":"net","Type":"bridge","Capabilities":{"portMappings":true},
            "IPAM":{"TYPE":"host-local"},"DNS":{"NameServers":["10.0.0.1"]},"isGateway":true}"#;
        let conf = conf(text, "ADD").unwrap();
        assert_eq!((conf.cni_version, conf.cni_version_raw.as_str()), (Version::V0_4_0, "0.4.0"));
        assert_eq!((conf.name.as_str(), conf.kind.as_str()), ("net", "bridge"));
        assert_eq!(conf.ipam_type(), Some("host-local"));
        assert_eq!(conf.dns.nameservers, ["10.0.0.1"]);
        assert!(conf.capabilities["portMappings"]);
        assert_eq!((conf.prev_result, conf.valid_attachments), (None, None));
    }

    #[test]
    fn version_is_the_oldest_when_there_is_none() {
        let conf = conf(r#"{"name":"net","ipam":{}}"#, "ADD").unwrap();
        assert_eq!((conf.cni_version, conf.cni_version_raw.as_str()), (Version::V0_1_0, ""));
        assert_eq!(conf.ipam_type(), None);
        let error = Conf::parse(br#"{"cniVersion":"2.0.0"}"#, "ADD").unwrap_err();
        assert_eq!(error.to_string(), "incompatible CNI versions; config is \"2.0.0\"");
    }

    #[test]
    fn absent_and_empty_attachments_differ() {
        let table = [
            ("{}", None),
            (r#"{"cni.dev/valid-attachments":null}"#, None),
            (r#"{"cni.dev/valid-attachments":[]}"#, Some(vec![])),
            (r#"{"cni.dev/attachments":[]}"#, Some(vec![])),
            (
                r#"{"cni.dev/attachments":[{"containerID":"old"}],
                    "cni.dev/valid-attachments":[{"containerID":"c","ifname":"eth0"}]}"#,
                Some(vec![("c", "eth0")]),
            ),
            (r#"{"CNI.dev/attachments":[{"CONTAINERid":"c","IfName":"eth1"}]}"#, Some(vec![("c", "eth1")])),
        ];
        for (text, expected) in table {
            let found = conf(text, "GC").unwrap().valid_attachments;
            let found = found
                .map(|list| list.into_iter().map(|one| (one.container_id, one.ifname)).collect::<Vec<_>>());
            let expected = expected.map(|list| {
                list.into_iter().map(|(id, name)| (id.to_owned(), name.to_owned())).collect::<Vec<_>>()
            });
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn broken_prev_result_stops_add_and_check_only() {
        let texts = [
            r#"{"cniVersion":"1.0.0","prevResult":"x"}"#,
            r#"{"cniVersion":"1.0.0","prevResult":{"cniVersion":"0.4.0"}}"#,
            r#"{"cniVersion":"1.0.0","PrevResult":{"ips":[{"address":"x"}]}}"#,
        ];
        for text in texts {
            for command in ["ADD", "CHECK"] {
                let error = conf(text, command).unwrap_err();
                assert_eq!(error.code, code::DECODING);
                assert!(error.msg.contains("prevResult"), "{error}");
            }
            for command in ["DEL", "GC", "STATUS"] {
                let conf = conf(text, command).unwrap();
                assert!(conf.prev_result.is_none() && conf.prev_result_error.is_some());
            }
        }
        let conf = conf(r#"{"prevResult":{"ips":[]},"prevresult":null}"#, "ADD").unwrap();
        assert_eq!(conf.prev_result, None);
    }

    #[test]
    fn keys_of_one_plugin_are_read_by_that_plugin() {
        #[derive(Debug, Default, PartialEq, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        struct Own {
            is_gateway: bool,
            mtu: u32,
        }
        let read = |text: &str| conf(text, "ADD").unwrap().read_as::<Own>();
        assert_eq!(read(r#"{"ISGATEWAY":true,"MTU":1400}"#), Ok(Own { is_gateway: true, mtu: 1400 }));
        let error = read(r#"{"mtu":"big"}"#).unwrap_err();
        let expected = "decode network config: key \"mtu\": expected an integer from 0 to 4294967295, found string \"big\"";
        assert_eq!((error.code, error.msg.as_str()), (code::DECODING, expected));
    }

    #[test]
    fn wrong_types_of_common_keys_are_errors_for_every_verb() {
        for text in
            [r#"{"ipam":"host-local"}"#, r#"{"dns":[]}"#, r#"{"type":5}"#, r#"{"capabilities":{"a":1}}"#]
        {
            for command in ["ADD", "DEL", "GC"] {
                assert_eq!(conf(text, command).unwrap_err().code, code::DECODING, "{text}");
            }
        }
    }
}
