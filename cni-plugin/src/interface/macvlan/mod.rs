//! `macvlan`: a link in the pod with a MAC of its own on a link of the node (or of the pod).
//!
//! The node itself cannot reach the macvlans of its links; that is the kernel's nature and not mended here.

mod mac;

use cni::plugin::Plugin;
use cni::{Call, CniResult, Error, Undo, code};
use kernel::link::{LinkKind, MacvlanMode};
use serde::Deserialize;

use super::attach;
use super::dns::WrittenDns;
use super::one_link::{self, OneLink, Parent};
use mac::{MacSource, WrittenMac};

/// The plugin.
pub(crate) struct Macvlan;

/// The keys as they stand in the configuration.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Written {
    master: String,
    mode: String,
    mtu: i64,
    mac: String,
    mac_from: String,
    link_in_container: bool,
    bcqueuelen: u32,
    dns: WrittenDns,
    runtime_config: RuntimeConfig,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RuntimeConfig {
    mac: String,
}

/// The configuration of `call`, and where the MAC comes from.
fn resolve(call: &Call) -> Result<(OneLink, MacSource), Error> {
    let written: Written = call.conf_as()?;
    let mode = match written.mode.as_str() {
        "" => MacvlanMode::default(),
        text => MacvlanMode::ALL
            .into_iter()
            .find(|mode| mode.name() == text)
            .ok_or_else(|| Error::invalid(format!("unknown macvlan mode: {text:?}")))?,
    };
    let source =
        WrittenMac { config: &written.mac, runtime: &written.runtime_config.mac, from: &written.mac_from }
            .resolve(call)?;
    let config = OneLink {
        kind: LinkKind::Macvlan {
            mode,
            bc_queue_len: (written.bcqueuelen != 0).then_some(written.bcqueuelen),
        },
        parent: Some(Parent::of(written.master, written.link_in_container)),
        mac: None,
        mtu: attach::mtu(written.mtu)?,
        mtu_within_parent: true,
        given: None,
        dns: written.dns.chosen(),
    };
    Ok((config, source))
}

impl Plugin for Macvlan {
    fn name(&self) -> &'static str {
        "macvlan"
    }

    fn add(&self, call: &Call, undo: &mut Undo) -> Result<CniResult, Error> {
        let (mut config, source) = resolve(call)?;
        config.mac = source.mac(call)?;
        one_link::add(call, config, undo)
    }

    fn del(&self, call: &Call) -> Result<(), Error> {
        one_link::del(call)
    }

    fn check(&self, call: &Call) -> Result<(), Error> {
        one_link::check(call, &resolve(call)?.0)
    }

    fn gc(&self, call: &Call) -> Result<(), Error> {
        one_link::gc(call)
    }

    fn status(&self, call: &Call) -> Result<(), Error> {
        let (config, source) = resolve(call)?;
        source.status().map_err(|err| Error { code: code::UNAVAILABLE, ..err })?;
        one_link::status(call, &config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(keys: &str) -> Result<OneLink, Error> {
        let text = format!(r#"{{"cniVersion":"1.1.0","name":"n","type":"macvlan"{keys}}}"#);
        let env = cni::Env { command: "ADD".into(), ..cni::Env::default() };
        resolve(&Call::new(env, text.into_bytes())?).map(|(config, _)| config)
    }

    #[test]
    fn defaults_are_the_references() {
        let config = resolved("").unwrap();
        assert_eq!(config.kind, LinkKind::Macvlan { mode: MacvlanMode::Bridge, bc_queue_len: None });
        assert_eq!(config.parent, Some(Parent { name: None, in_pod: false }));
        assert!(config.mtu == 0 && config.dns.is_none());
    }

    #[test]
    fn keys_are_read_in_any_case_of_letters() {
        let keys = r#","MASTER":"eth9","Mode":"vepa","MTU":1400,"LinkInContainer":true,"bcQueueLen":7"#;
        let config = resolved(keys).unwrap();
        assert_eq!(config.kind, LinkKind::Macvlan { mode: MacvlanMode::Vepa, bc_queue_len: Some(7) });
        assert_eq!(config.parent, Some(Parent { name: Some("eth9".into()), in_pod: true }));
        assert_eq!(config.mtu, 1400);
    }

    #[test]
    fn what_is_no_mode_mtu_or_queue_is_refused() {
        for (keys, code, words) in [
            (r#","mode":"source""#, 7, "unknown macvlan mode: \"source\""),
            (r#","mode":"Bridge""#, 7, "unknown macvlan mode: \"Bridge\""),
            (r#","mtu":-1"#, 7, "mtu -1"),
            (r#","bcqueuelen":-1"#, 6, "bcqueuelen"),
            (r#","bcqueuelen":4294967296"#, 6, "bcqueuelen"),
            (r#","macFrom":"node""#, 7, "macFrom"),
        ] {
            let error = resolved(keys).unwrap_err();
            assert!(error.code == code && error.msg.contains(words), "{keys}: {error:?}");
        }
    }
}
