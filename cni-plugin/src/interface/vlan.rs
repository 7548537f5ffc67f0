//! `vlan`: a link in the pod for the frames of one VLAN (802.1Q) of a link of the node (or of the pod).

use cni::plugin::Plugin;
use cni::{Call, CniResult, Error, Undo};
use kernel::link::{LinkKind, VlanProtocol};
use serde::Deserialize;

use super::attach;
use super::dns::WrittenDns;
use super::one_link::{self, OneLink, Parent};

/// The plugin.
pub(crate) struct Vlan;

/// The keys as they stand in the configuration.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Written {
    master: String,
    vlan_id: i64,
    mtu: i64,
    link_in_container: bool,
    dns: WrittenDns,
}

fn resolve(call: &Call) -> Result<OneLink, Error> {
    let written: Written = call.conf_as()?;
    if written.master.is_empty() {
        return Err(Error::invalid("\"master\" is missing: the name of the link that carries the VLAN"));
    }
    let id = u16::try_from(written.vlan_id).ok().filter(|id| *id <= 4094).ok_or_else(|| {
        Error::invalid(format!("invalid VLAN ID {} (must be between 0 and 4094)", written.vlan_id))
    })?;
    Ok(OneLink {
        kind: LinkKind::Vlan { id, protocol: VlanProtocol::Dot1q },
        parent: Some(Parent::of(written.master, written.link_in_container)),
        mac: None,
        mtu: attach::mtu(written.mtu)?,
        mtu_within_parent: true,
        given: None,
        dns: written.dns.chosen(),
    })
}

impl Plugin for Vlan {
    fn name(&self) -> &'static str {
        "vlan"
    }

    fn add(&self, call: &Call, undo: &mut Undo) -> Result<CniResult, Error> {
        one_link::add(call, resolve(call)?, undo)
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
        one_link::status(call, &resolve(call)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(keys: &str) -> Result<OneLink, Error> {
        let text = format!(r#"{{"cniVersion":"1.1.0","name":"n","type":"vlan"{keys}}}"#);
        let env = cni::Env { command: "ADD".into(), ..cni::Env::default() };
        resolve(&Call::new(env, text.into_bytes())?)
    }

    #[test]
    fn every_vlan_from_0_to_4094_is_taken() {
        for id in [0, 1, 5, 4094] {
            let found = config(&format!(r#","master":"eth9","VLANID":{id}"#)).unwrap();
            assert_eq!(found.kind, LinkKind::Vlan { id, protocol: VlanProtocol::Dot1q });
        }
        for id in ["-1", "4095", "65541"] {
            let error = config(&format!(r#","master":"eth9","vlanId":{id}"#)).unwrap_err();
            assert_eq!(
                (error.code, error.msg),
                (7, format!("invalid VLAN ID {id} (must be between 0 and 4094)"))
            );
        }
        assert_eq!(config(r#","master":"eth9","vlanId":"5""#).unwrap_err().code, 6);
    }

    #[test]
    fn master_is_required_by_name() {
        for keys in ["", r#","master":"""#] {
            let error = config(keys).unwrap_err();
            assert!(error.code == 7 && error.msg.contains("\"master\""), "{error:?}");
        }
        let inside = config(r#","master":"eth0","linkInContainer":true"#).unwrap();
        assert_eq!(inside.parent, Some(Parent { name: Some("eth0".into()), in_pod: true }));
    }
}
