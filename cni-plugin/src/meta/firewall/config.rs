//! The configuration of `firewall`: as written, and resolved.
//!
//! Keys and sentences are the reference's. A backend that is no name of ours means `auto`, as it does there.

use std::net::IpAddr;

use cni::{Call, CniResult, Error, code};
use serde::Deserialize;

/// The longest name of a chain that iptables takes.
const CHAIN_NAME_MAX: usize = 28;

/// The keys as they stand in the configuration.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Written {
    backend: String,
    iptables_admin_chain_name: String,
    firewalld_zone: String,
    ingress_policy: String,
}

/// Who lets the pod's packets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backend {
    /// firewalld when it runs, else our own rules.
    Auto,
    /// Rules in the kernel.
    Rules,
    /// A zone of firewalld.
    Firewalld,
}

/// Whom a pod on a bridge may be reached by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Policy {
    /// Everyone.
    Open,
    /// Everyone but pods on other bridges that have a policy.
    SameBridge,
    /// As `SameBridge`, and no pod on the same bridge either.
    Isolated,
}

/// The configuration, complete.
#[derive(Debug)]
pub(super) struct FirewallConfig {
    pub(super) backend: Backend,
    /// The chain for rules of the administrator, asked before ours.
    pub(super) admin_chain: String,
    /// The zone that the pod's addresses are put in.
    pub(super) zone: String,
    pub(super) policy: Policy,
}

impl FirewallConfig {
    /// Makes a complete value of the configuration of `call`, or tells what is wrong with it.
    ///
    /// # Errors
    /// Code 6 for what does not decode, 7 for the rest.
    pub(super) fn resolve(call: &Call) -> Result<Self, Error> {
        let written: Written = call.conf_as()?;
        let or = |text: String, default: &str| if text.is_empty() { default.to_owned() } else { text };
        let policy = match written.ingress_policy.as_str() {
            "" | "open" => Policy::Open,
            "same-bridge" => Policy::SameBridge,
            "isolated" => Policy::Isolated,
            other => return Err(Error::invalid(format!("unknown ingress policy: {other:?}"))),
        };
        let admin_chain = or(written.iptables_admin_chain_name, "CNI-ADMIN");
        let odd = |c: char| c.is_whitespace() || c.is_control();
        if admin_chain.len() > CHAIN_NAME_MAX || admin_chain.contains(odd) {
            return Err(Error::new(
                code::UNSUPPORTED_FIELD,
                format!(
                    "unsupported field \"iptablesAdminChainName\" with value {admin_chain:?}: \
                     iptables takes no such name (1 to {CHAIN_NAME_MAX} bytes without white space)"
                ),
            ));
        }
        Ok(Self {
            backend: match written.backend.as_str() {
                "iptables" | "nftables" => Backend::Rules,
                "firewalld" => Backend::Firewalld,
                _ => Backend::Auto,
            },
            admin_chain,
            zone: or(written.firewalld_zone, "trusted"),
            policy,
        })
    }
}

/// All addresses of `result`, as the reference takes them.
pub(super) fn addresses(result: &CniResult) -> Vec<IpAddr> {
    let mut all: Vec<IpAddr> = result.ips.iter().map(|ip| ip.address.ip()).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// The bridge that an ingress policy is about, and the pod's port on it: the first two interfaces of `result`, as
/// `bridge` lists them.
///
/// # Errors
/// They are not there, or in a pod.
pub(super) fn bridge_and_port(result: &CniResult, policy: Policy) -> Result<(&str, Option<&str>), Error> {
    let name = match policy {
        Policy::Open | Policy::SameBridge => "same-bridge",
        Policy::Isolated => "isolated",
    };
    let refuse = |why: &str| {
        Error::internal(format!(
            "{why} for ingress policy {name:?}, make sure to chain \"firewall\" plugin with \"bridge\""
        ))
    };
    let first = result.interfaces.first().ok_or_else(|| refuse("interface needs to be set"))?;
    if first.name.is_empty() {
        return Err(refuse("got empty bridge name"));
    }
    if !first.sandbox.is_empty() {
        return Err(refuse("the first interface of prevResult must be the bridge"));
    }
    if policy != Policy::Isolated {
        return Ok((&first.name, None));
    }
    let second = result.interfaces.get(1).filter(|port| port.sandbox.is_empty() && !port.name.is_empty());
    let port = second.ok_or_else(|| refuse("the second interface of prevResult must be the pod's port"))?;
    Ok((&first.name, Some(&port.name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(keys: &str) -> Result<FirewallConfig, Error> {
        let text = format!(r#"{{"cniVersion":"1.0.0","name":"net","type":"firewall",{keys}}}"#);
        let env = cni::Env { command: "DEL".into(), ..cni::Env::default() };
        FirewallConfig::resolve(&Call::new(env, text.into_bytes()).unwrap())
    }

    #[test]
    fn defaults_are_the_references() {
        for keys in [r#""backend":"""#, r#""backend":"auto""#, r#""backend":"nosuch""#] {
            let config = resolve(keys).unwrap();
            assert_eq!((config.backend, config.policy), (Backend::Auto, Policy::Open));
            assert_eq!((config.admin_chain.as_str(), config.zone.as_str()), ("CNI-ADMIN", "trusted"));
        }
        for (name, backend) in
            [("iptables", Backend::Rules), ("nftables", Backend::Rules), ("firewalld", Backend::Firewalld)]
        {
            assert_eq!(resolve(&format!(r#""Backend":"{name}""#)).unwrap().backend, backend);
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let error = resolve(r#""ingressPolicy":"closed""#).unwrap_err();
        assert_eq!((error.code, error.msg.as_str()), (7, "unknown ingress policy: \"closed\""));
        let error = resolve(r#""iptablesAdminChainName":"a b""#).unwrap_err();
        assert!(error.code == 2 && error.msg.contains("iptablesAdminChainName"), "{error}");
    }

    #[test]
    fn bridge_and_port_are_the_first_interfaces() {
        let interface = |name: &str, sandbox: &str| cni::Interface {
            name: name.into(),
            sandbox: sandbox.into(),
            ..cni::Interface::default()
        };
        let mut result = CniResult::default();
        let of = |result: &CniResult, policy| {
            bridge_and_port(result, policy)
                .map(|(bridge, port)| (bridge.to_owned(), port.map(str::to_owned)))
                .map_err(|error| error.msg)
        };
        assert!(of(&result, Policy::Isolated).unwrap_err().contains("\"isolated\""));
        result.interfaces = vec![interface("eth0", "/ns")];
        assert!(of(&result, Policy::SameBridge).unwrap_err().contains("must be the bridge"));
        result.interfaces.insert(0, interface("cni0", ""));
        assert_eq!(of(&result, Policy::SameBridge).unwrap(), ("cni0".into(), None));
        assert!(of(&result, Policy::Isolated).unwrap_err().contains("the pod's port"));
        result.interfaces.insert(1, interface("veth1", ""));
        assert_eq!(of(&result, Policy::Isolated).unwrap(), ("cni0".into(), Some("veth1".into())));
    }
}
