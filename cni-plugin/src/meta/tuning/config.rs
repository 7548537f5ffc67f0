//! The configuration of `tuning`: as written (`Written`), and resolved (`TuningConfig`).
//!
//! A MAC is taken from the configuration, CNI_ARGS, `runtimeConfig` and `args.cni`, the later wins; all else
//! from the configuration and `args.cni`.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use cni::{Call, Error, Json, args};
use kernel::Mac;
use kernel::link::Change;
use serde::Deserialize;

use super::sysctls::Sysctl;

/// Where the reference keeps what DEL restores.
const DATA_DIR: &str = "/run/cni/tuning";

type Map = BTreeMap<String, String>;

/// The keys as they stand in the configuration.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Written {
    sysctl: Map,
    mac: String,
    promisc: bool,
    mtu: i64,
    #[serde(rename = "txQLen")]
    tx_q_len: Option<i64>,
    allmulti: Option<bool>,
    #[serde(rename = "runtimeConfig")]
    runtime_config: RuntimeConfig,
    args: Args,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RuntimeConfig {
    mac: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Args {
    cni: CniArgs,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CniArgs {
    sysctl: Map,
    mac: Option<String>,
    promisc: Option<bool>,
    mtu: Option<i64>,
    #[serde(rename = "txQLen")]
    tx_q_len: Option<i64>,
    allmulti: Option<bool>,
}

/// A complete, valid configuration of one attachment.
#[derive(Debug)]
pub(super) struct TuningConfig {
    /// What to write below /proc/sys; no two of one path.
    pub(super) sysctls: Vec<Sysctl>,
    /// The directory of the files that DEL restores from.
    pub(super) data_dir: PathBuf,
    mac: Option<Mac>,
    promisc: bool,
    mtu: Option<u32>,
    tx_q_len: Option<u32>,
    allmulti: Option<bool>,
}

impl TuningConfig {
    /// Reads and checks the configuration of `call`.
    ///
    /// # Errors
    /// Code 6 for what does not decode, 4 for CNI_ARGS, 7 for values that cannot be meant.
    pub(super) fn resolve(call: &Call) -> Result<Self, Error> {
        refuse_duplicates(call.conf.document())?;
        let written: Written = call.conf_as()?;
        let cni = written.args.cni;
        let from_args = args::parse(&call.env.args, &["MAC"])?.remove("MAC");
        let mac = cni
            .mac
            .or_else(|| Some(written.runtime_config.mac).filter(|mac| !mac.is_empty()))
            .or_else(|| from_args.filter(|mac| !mac.is_empty()))
            .unwrap_or(written.mac);
        let mac = match mac.as_str() {
            "" => None,
            text => Some(
                text.parse()
                    .map_err(|err| Error::invalid(format!("invalid args {text} for MAC addr: {err}")))?,
            ),
        };
        Ok(Self {
            sysctls: sysctls(written.sysctl, cni.sysctl, &call.env.ifname)?,
            data_dir: data_dir(call),
            mac,
            promisc: cni.promisc.unwrap_or(written.promisc),
            mtu: number("mtu", cni.mtu.or(Some(written.mtu)))?.filter(|&mtu| mtu != 0),
            tx_q_len: number("txQLen", cni.tx_q_len.or(written.tx_q_len))?,
            allmulti: cni.allmulti.or(written.allmulti),
        })
    }

    /// What is to become of the interface.
    pub(super) fn change(&self) -> Change<'static> {
        Change {
            mac: self.mac,
            promisc: self.promisc.then_some(true),
            mtu: self.mtu,
            allmulti: self.allmulti,
            txqlen: self.tx_q_len,
            ..Change::default()
        }
    }
}

/// `dataDir`, also of a configuration that is otherwise broken: DEL and GC need no more.
pub(super) fn data_dir(call: &Call) -> PathBuf {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Only {
        #[serde(rename = "dataDir")]
        data_dir: String,
    }
    let dir = call.conf_as::<Only>().unwrap_or_default().data_dir;
    PathBuf::from(if dir.is_empty() { DATA_DIR } else { &dir })
}

fn number(key: &str, written: Option<i64>) -> Result<Option<u32>, Error> {
    let parse = |value| {
        u32::try_from(value)
            .map_err(|_| Error::invalid(format!("{key} {value} is not a number from 0 to {}", u32::MAX)))
    };
    written.map(parse).transpose()
}

/// Go takes the last of equal keys, so the reference looks for them on its own, in any spelling of `sysctl`.
fn refuse_duplicates(document: &Json) -> Result<(), Error> {
    let Json::Object(entries) = document else { return Ok(()) };
    let mut seen = HashSet::new();
    for (_, map) in entries.iter().filter(|(key, _)| key.eq_ignore_ascii_case("sysctl")) {
        let Json::Object(sysctls) = map else { continue };
        if !sysctls.iter().all(|(key, _)| seen.insert(key)) {
            return Err(duplicated());
        }
    }
    Ok(())
}

fn duplicated() -> Error {
    Error::invalid("duplicated sysctl keys are not allowed")
}

/// The sysctls of the configuration, each replaced by one of `args.cni` for the same path.
fn sysctls(config: Map, args: Map, ifname: &str) -> Result<Vec<Sysctl>, Error> {
    let read = |map: Map| {
        let mut all: Vec<Sysctl> = Vec::new();
        for (key, value) in map {
            let sysctl = Sysctl::resolve(key, value, ifname)?;
            if all.iter().any(|other| other.is_same(&sysctl)) {
                return Err(duplicated());
            }
            all.push(sysctl);
        }
        Ok(all)
    };
    let (mut all, args) = (read(config)?, read(args)?);
    all.retain(|sysctl| !args.iter().any(|other| other.is_same(sysctl)));
    all.extend(args);
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(keys: &str, args: &str) -> Result<TuningConfig, Error> {
        let text = format!(r#"{{"cniVersion":"1.0.0","name":"n","type":"tuning"{keys}}}"#);
        let env = cni::Env {
            command: "ADD".into(),
            ifname: "eth0".into(),
            args: args.into(),
            ..cni::Env::default()
        };
        TuningConfig::resolve(&Call::new(env, text.into_bytes()).unwrap())
    }

    fn refused(keys: &str) -> String {
        resolve(keys, "").unwrap_err().to_string()
    }

    #[test]
    fn the_mac_of_args_wins_over_runtime_cni_args_and_configuration() {
        let own = r#","mac":"02:00:00:00:00:01""#;
        let runtime = r#","runtimeConfig":{"mac":"02:00:00:00:00:03"}"#;
        let cni = r#","args":{"cni":{"mac":"02:00:00:00:00:04"}}"#;
        let env = "MAC=02:00:00:00:00:02;IgnoreUnknown=1";
        let last = |keys: &str, env: &str| resolve(keys, env).unwrap().mac.map(|Mac(bytes)| bytes[5]);
        assert_eq!(last(own, ""), Some(1));
        assert_eq!(last(own, env), Some(2));
        assert_eq!(last(&format!("{own}{runtime}"), env), Some(3));
        assert_eq!(last(&format!("{own}{runtime}{cni}"), env), Some(4));
        assert_eq!(last(&format!(r#"{own},"args":{{"cni":{{"mac":""}}}}"#), env), None);
    }

    #[test]
    fn args_win_over_the_configuration() {
        let config = resolve(
            r#","promisc":true,"mtu":1300,"allmulti":true,"txQLen":7,
            "args":{"cni":{"promisc":false,"mtu":1400,"allmulti":false,"txQLen":0}}"#,
            "",
        )
        .unwrap();
        let change = config.change();
        assert_eq!(
            (change.promisc, change.mtu, change.allmulti, change.txqlen),
            (None, Some(1400), Some(false), Some(0))
        );
        assert_eq!(config.data_dir, PathBuf::from("/run/cni/tuning"));
    }

    #[test]
    fn sysctls_of_args_need_none_in_the_configuration_and_replace_the_same_in_other_spelling() {
        let texts = |keys: &str| {
            let config = resolve(keys, "").unwrap();
            config.sysctls.iter().map(|one| format!("{}={}", one.key, one.value)).collect::<Vec<_>>()
        };
        assert_eq!(
            texts(r#","args":{"cni":{"sysctl":{"net.core.somaxconn":"5"}}}"#),
            ["net.core.somaxconn=5"]
        );
        assert_eq!(
            texts(
                r#","sysctl":{"net.core.somaxconn":"1","net.ipv4.conf.IFNAME.rp_filter":"2"},
                "args":{"cni":{"sysctl":{"net/core/somaxconn":"5"}}}"#
            ),
            ["net.ipv4.conf.IFNAME.rp_filter=2", "net/core/somaxconn=5"]
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for keys in [
            r#","sysctl":{"net.a":"1","net.a":"1"}"#,
            r#","sysctl":{"net.a":"1"},"Sysctl":{"net.a":"2"}"#,
            r#","sysctl":{"net.a":"1","net/a":"2"}"#,
            r#","sysctl":{"net.ipv4.conf.IFNAME.x":"1","net.ipv4.conf.eth0.x":"2"}"#,
        ] {
            assert_eq!(refused(keys), "duplicated sysctl keys are not allowed", "{keys}");
        }
        assert_eq!(refused(r#","mtu":-1"#), "mtu -1 is not a number from 0 to 4294967295");
        assert_eq!(refused(r#","txQLen":-1"#), "txQLen -1 is not a number from 0 to 4294967295");
        assert_eq!(refused(r#","mac":"x""#), "invalid args x for MAC addr: address x: invalid MAC address");
        assert_eq!(refused(r#","sysctl":{"kernel.x":"1"}"#), "invalid net sysctl key: \"kernel/x\"");
    }
}
