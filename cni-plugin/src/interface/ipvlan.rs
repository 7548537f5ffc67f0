//! `ipvlan`: a link in the pod with the MAC of a link of the node (or of the pod), told apart by its IP addresses.
//!
//! In a chain it can stand on the link of the plugin before it and take that one's addresses over.

use cni::plugin::Plugin;
use cni::{Call, CniResult, Error, Undo};
use kernel::link::{IpvlanMode, LinkKind};
use serde::Deserialize;

use super::attach;
use super::dns::WrittenDns;
use super::one_link::{self, OneLink, Parent};

/// The plugin.
pub(crate) struct Ipvlan;

/// The keys as they stand in the configuration.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Written {
    master: String,
    mode: String,
    mtu: i64,
    link_in_container: bool,
    dns: WrittenDns,
}

/// The configuration of `call`; what a plugin before it left is for ADD alone.
fn resolve(call: &Call) -> Result<OneLink, Error> {
    let written: Written = call.conf_as()?;
    let mode = match written.mode.as_str() {
        "" => IpvlanMode::default(),
        text => IpvlanMode::ALL
            .into_iter()
            .find(|mode| mode.name() == text)
            .ok_or_else(|| Error::invalid(format!("unknown ipvlan mode: {text:?}")))?,
    };
    Ok(OneLink {
        kind: LinkKind::Ipvlan { mode },
        parent: Some(Parent::of(written.master, written.link_in_container)),
        mac: None,
        mtu: attach::mtu(written.mtu)?,
        mtu_within_parent: false,
        given: None,
        dns: written.dns.chosen(),
    })
}

/// What the plugin before this one in the chain gives: the link below, where the configuration names none, and the
/// addresses and routes, where it names no IPAM plugin.
fn chain(config: &mut OneLink, previous: &CniResult) -> Result<(), Error> {
    if let Some(parent) = config.parent.as_mut().filter(|parent| parent.name.is_none()) {
        match previous.interfaces.as_slice() {
            [only] if !only.name.is_empty() => parent.name = Some(only.name.clone()),
            _ => {
                return Err(Error::invalid(
                    "chained master failure. PrevResult lacks a single named interface (name it in \"master\")",
                ));
            }
        }
    }
    config.given = Some(CniResult { interfaces: Vec::new(), ..previous.clone() });
    Ok(())
}

impl Plugin for Ipvlan {
    fn name(&self) -> &'static str {
        "ipvlan"
    }

    fn add(&self, call: &Call, undo: &mut Undo) -> Result<CniResult, Error> {
        let mut config = resolve(call)?;
        if let Some(previous) = &call.conf.prev_result {
            chain(&mut config, previous)?;
        }
        one_link::add(call, config, undo)
    }

    fn del(&self, call: &Call) -> Result<(), Error> {
        one_link::del(call)
    }

    fn check(&self, call: &Call) -> Result<(), Error> {
        one_link::check(call, &resolve(call)?)
    }

    fn gc(&self, call: &Call) -> Result<(), Error> {
        one_link::gc(call)
    }

    fn status(&self, call: &Call) -> Result<(), Error> {
        let mut config = resolve(call)?;
        // Without a name it may be that of a plugin before this one, which STATUS does not show.
        config.parent = config.parent.filter(|parent| parent.name.is_some());
        one_link::status(call, &config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(keys: &str) -> Result<OneLink, Error> {
        let text = format!(r#"{{"cniVersion":"1.1.0","name":"n","type":"ipvlan"{keys}}}"#);
        let env = cni::Env { command: "ADD".into(), ..cni::Env::default() };
        resolve(&Call::new(env, text.into_bytes())?)
    }

    fn previous(names: &[&str]) -> CniResult {
        let interface =
            |name: &&str| cni::Interface { name: (*name).to_owned(), ..cni::Interface::default() };
        let ip = cni::IpConfig { interface: Some(3), address: "10.0.0.2/24".parse().unwrap(), gateway: None };
        CniResult {
            interfaces: names.iter().map(interface).collect(),
            ips: vec![ip],
            routes: vec![cni::Route::new("10.9.0.0/16".parse().unwrap(), None)],
            ..CniResult::default()
        }
    }

    #[test]
    fn modes_are_the_references_and_l2_without_one() {
        for (text, mode) in
            [("", IpvlanMode::L2), ("l2", IpvlanMode::L2), ("l3", IpvlanMode::L3), ("l3s", IpvlanMode::L3s)]
        {
            let found = config(&format!(r#","mode":{text:?}"#)).unwrap();
            assert_eq!(found.kind, LinkKind::Ipvlan { mode });
        }
        for text in ["L2", "l4", "bridge"] {
            let error = config(&format!(r#","mode":{text:?}"#)).unwrap_err();
            assert_eq!((error.code, error.msg), (7, format!("unknown ipvlan mode: {text:?}")));
        }
        assert_eq!(config(r#","mtu":-5"#).unwrap_err().code, 7);
    }

    #[test]
    fn the_link_below_is_the_only_one_of_the_plugin_before() {
        let mut chained = config("").unwrap();
        chain(&mut chained, &previous(&["bond0"])).unwrap();
        assert_eq!(chained.parent, Some(Parent { name: Some("bond0".into()), in_pod: false }));
        for names in [&[][..], &["a", "b"], &[""]] {
            let error = chain(&mut config("").unwrap(), &previous(names)).unwrap_err();
            assert!(error.msg.contains("PrevResult lacks a single named interface"), "{}", error.msg);
        }
        let mut named = config(r#","master":"eth9""#).unwrap();
        chain(&mut named, &previous(&["a", "b"])).unwrap();
        assert_eq!(named.parent.unwrap().name.as_deref(), Some("eth9"));
    }

    #[test]
    fn addresses_and_routes_of_the_plugin_before_are_taken_over_without_its_interfaces() {
        let mut chained = config("").unwrap();
        chain(&mut chained, &previous(&["bond0"])).unwrap();
        let given = chained.given.unwrap();
        assert_eq!((given.interfaces.len(), given.ips.len(), given.routes.len()), (0, 1, 1));
    }
}
