//! The configuration of `bridge`: as written (`Written`), and resolved (`BridgeConfig`).
//!
//! The keys are those of the reference plugin.

use cni::{Call, Dns, Error};
use kernel::Mac;
use serde::Deserialize;

use super::vlan::{self, Trunk, Vlans};
use crate::interface::attach;
use crate::interface::dns::WrittenDns;
use crate::interface::mac;
use crate::masq;

/// The bridge of a configuration that names none.
pub(super) const DEFAULT_BRIDGE: &str = "cni0";

/// The keys as they stand in the configuration.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Written {
    bridge: Option<String>,
    is_gateway: bool,
    is_default_gateway: bool,
    force_address: bool,
    ip_masq: bool,
    ip_masq_backend: Option<String>,
    mtu: i64,
    hairpin_mode: bool,
    promisc_mode: bool,
    vlan: i64,
    vlan_trunk: Option<Vec<Trunk>>,
    preserve_default_vlan: bool,
    macspoofchk: bool,
    enabledad: bool,
    disable_container_interface: bool,
    port_isolation: bool,
    dns: WrittenDns,
    args: Args,
    runtime_config: RuntimeConfig,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Args {
    cni: CniArgs,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CniArgs {
    mac: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RuntimeConfig {
    mac: String,
}

/// A complete, valid configuration of one attachment.
#[derive(Debug)]
pub(super) struct BridgeConfig {
    /// Name of the bridge on the node.
    pub(super) bridge: String,
    /// The bridge carries the gateway addresses and the node forwards.
    pub(super) is_gateway: bool,
    /// The pod gets a default route through the bridge.
    pub(super) is_default_gateway: bool,
    /// A conflicting address of the bridge is replaced.
    pub(super) force_address: bool,
    /// MTU of bridge and veth in bytes, 0 the kernel's default.
    pub(super) mtu: u32,
    /// A frame may leave by the port it came in.
    pub(super) hairpin: bool,
    /// The bridge is set promiscuous.
    pub(super) promisc: bool,
    /// What the pod sends beyond its subnet leaves with the node's address.
    pub(super) ip_masq: bool,
    /// Frames of the pod pass with its own MAC only.
    pub(super) macspoofchk: bool,
    /// The port reaches no other isolated port.
    pub(super) isolated: bool,
    /// IPv6 duplicate address detection runs in the pod.
    pub(super) enable_dad: bool,
    /// The pod's link stays down.
    pub(super) leave_down: bool,
    /// The VLANs of the pod's port; `None` where the bridge need not mind them.
    pub(super) vlans: Option<Vlans>,
    /// The MAC asked for on the pod's link.
    pub(super) mac: Option<Mac>,
    /// DNS of the configuration; replaces the IPAM's when any key of it was written.
    pub(super) dns: Option<Dns>,
    /// The type of the IPAM plugin; `None` for a layer 2 attachment.
    pub(super) ipam: Option<String>,
}

impl BridgeConfig {
    /// Reads and checks the configuration of `call`.
    ///
    /// # Errors
    /// Code 6 for what does not decode, 2 for a key that this plugin cannot honour, 999 with the
    /// reference's sentence for values that exclude each other.
    pub(super) fn resolve(call: &Call) -> Result<Self, Error> {
        let written: Written = call.conf_as()?;
        if written.hairpin_mode && written.promisc_mode {
            return Err(Error::invalid("cannot set hairpin mode and promiscuous mode at the same time"));
        }
        let ipam = call.conf.ipam_type().map(str::to_owned);
        if written.disable_container_interface && ipam.is_some() {
            return Err(Error::invalid("cannot use IPAM when DisableContainerInterface flag is set"));
        }
        let bridge = bridge_name(written.bridge.clone())?;
        let is_gateway = written.is_gateway || written.is_default_gateway;
        let vlans =
            Vlans::resolve(written.vlan, written.vlan_trunk.as_deref(), written.preserve_default_vlan)?;
        if let Some(vlan) = vlans.as_ref().and_then(|vlans| vlans.native).filter(|_| is_gateway) {
            vlan::gateway_name(&bridge, vlan)?;
        }
        Ok(Self {
            vlans,
            mtu: attach::mtu(written.mtu)?,
            is_gateway,
            is_default_gateway: written.is_default_gateway,
            force_address: written.force_address,
            hairpin: written.hairpin_mode,
            promisc: written.promisc_mode,
            ip_masq: masq::wanted(written.ip_masq, written.ip_masq_backend.as_deref())?,
            macspoofchk: written.macspoofchk,
            isolated: written.port_isolation,
            enable_dad: written.enabledad,
            leave_down: written.disable_container_interface,
            mac: written.mac(call)?,
            dns: written.dns.chosen(),
            bridge,
            ipam,
        })
    }
}

/// The bridge's name from the key as written. The reference hands an empty name to the kernel, which
/// then invents one; here that is an error.
fn bridge_name(written: Option<String>) -> Result<String, Error> {
    let name = written.unwrap_or_else(|| DEFAULT_BRIDGE.to_owned());
    let bad = name.is_empty()
        || name.len() > 15
        || name == "."
        || name == ".."
        || name.contains(|c: char| c == '/' || c == ':' || c == '\0' || c.is_whitespace());
    if bad {
        return Err(Error::invalid(format!(
            "bridge {name:?} is not an interface name (1 to 15 bytes, no /, : or white space)"
        )));
    }
    Ok(name)
}

impl Written {
    /// The MAC asked for: CNI_ARGS `MAC`, over it `args.cni.mac`, over it `runtimeConfig.mac`.
    fn mac(&self, call: &Call) -> Result<Option<Mac>, Error> {
        mac::first(&[&self.runtime_config.mac, &self.args.cni.mac, &mac::of_args(call)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(keys: &str, cni_args: &str) -> Result<BridgeConfig, Error> {
        let text = format!(r#"{{"cniVersion":"1.1.0","name":"n","type":"bridge"{keys}}}"#);
        let env = cni::Env { command: "ADD".into(), args: cni_args.into(), ..cni::Env::default() };
        BridgeConfig::resolve(&Call::new(env, text.into_bytes())?)
    }

    #[test]
    fn defaults_are_the_references() {
        let config = resolve("", "").unwrap();
        assert_eq!((config.bridge.as_str(), config.mtu, config.is_gateway), ("cni0", 0, false));
        assert!(
            !config.hairpin
                && !config.promisc
                && !config.isolated
                && !config.enable_dad
                && !config.leave_down
        );
        assert!(config.mac.is_none() && config.dns.is_none() && config.ipam.is_none());
    }

    #[test]
    fn is_default_gateway_implies_is_gateway() {
        assert!(resolve(r#","ISDEFAULTGATEWAY":true"#, "").unwrap().is_gateway);
    }

    #[test]
    fn vlans_are_asked_for_by_key() {
        let config = resolve(r#","vlan":100,"vlanTrunk":[{"minID":7,"maxID":9}]"#, "").unwrap();
        assert_eq!(config.vlans.unwrap().native, Some(100));
        assert!(
            resolve(r#","vlan":0,"preserveDefaultVlan":true,"ipMasqBackend":"pf""#, "")
                .unwrap()
                .vlans
                .is_none()
        );
        let long = r#","bridge":"elevenchars","isGateway":true,"vlan":4094"#;
        assert!(resolve(long, "").unwrap_err().msg.contains("elevenchars.4094"));
    }

    #[test]
    fn rules_are_asked_for_by_key() {
        let config = resolve(r#","ipMasq":true,"ipMasqBackend":"nftables","macspoofchk":true"#, "").unwrap();
        assert!(config.ip_masq && config.macspoofchk);
        let error = resolve(r#","ipMasq":true,"ipMasqBackend":"pf""#, "").unwrap_err();
        assert_eq!((error.code, error.msg.as_str()), (7, "unknown ipmasq backend \"pf\""));
    }

    #[test]
    fn values_out_of_range_have_the_references_sentences() {
        for (keys, sentence) in [
            (r#","vlan":4095"#, "invalid VLAN ID 4095 (must be between 0 and 4094)"),
            (r#","vlan":-1"#, "invalid VLAN ID -1 (must be between 0 and 4094)"),
            (r#","vlanTrunk":[{"minID":0,"maxID":2}]"#, "incorrect trunk minID parameter"),
            (r#","vlanTrunk":[{"minID":1,"maxID":4095}]"#, "incorrect trunk maxID parameter"),
            (r#","vlanTrunk":[{"minID":3,"maxID":2}]"#, "minID is greater than maxID in trunk parameter"),
            (
                r#","vlanTrunk":[{"minID":3}]"#,
                "minID and maxID should be configured simultaneously, maxID is missing",
            ),
            (
                r#","vlanTrunk":[{"maxID":3}]"#,
                "minID and maxID should be configured simultaneously, minID is missing",
            ),
            (r#","vlanTrunk":[{"id":4095}]"#, "incorrect trunk id parameter"),
            (
                r#","hairpinMode":true,"promiscMode":true"#,
                "cannot set hairpin mode and promiscuous mode at the same time",
            ),
            (
                r#","disableContainerInterface":true,"ipam":{"type":"x"}"#,
                "cannot use IPAM when DisableContainerInterface flag is set",
            ),
            (r#","bridge":"a/b""#, "is not an interface name"),
            (r#","bridge":"""#, "is not an interface name"),
            (r#","mtu":-1"#, "mtu -1 is not a number of bytes"),
        ] {
            let error = resolve(keys, "").unwrap_err();
            assert!(error.msg.contains(sentence), "{keys}: {}", error.msg);
            assert_eq!(error.code, cni::code::INVALID_CONFIG, "{keys}");
        }
    }

    #[test]
    fn the_runtimes_mac_wins_over_args_and_these_over_cni_args() {
        let mac =
            |keys: &str, cni_args: &str| resolve(keys, cni_args).map(|config| config.mac.map(|mac| mac.0[5]));
        let args = r#","args":{"cni":{"mac":"02:00:00:00:00:02"}}"#;
        let runtime = r#","runtimeConfig":{"mac":"02:00:00:00:00:03"}"#;
        assert_eq!(mac("", "MAC=02:00:00:00:00:01").unwrap(), Some(1));
        assert_eq!(mac(args, "MAC=02:00:00:00:00:01").unwrap(), Some(2));
        assert_eq!(mac(&format!("{args}{runtime}"), "MAC=02:00:00:00:00:01").unwrap(), Some(3));
        assert!(mac("", "MAC=02:00").is_err());
        assert!(mac("", "MAC=02:00:00:00:00:01;K8S_POD_NAME=x").is_err());
        assert_eq!(mac("", "K8S_POD_NAME=x;IgnoreUnknown=1").unwrap(), None);
    }

    #[test]
    fn any_written_dns_key_replaces_the_ipams_dns() {
        assert!(resolve(r#","dns":{}"#, "").unwrap().dns.is_none());
        assert!(resolve(r#","dns":{"nameservers":[]}"#, "").unwrap().dns.is_some());
        assert_eq!(resolve(r#","dns":{"domain":"d"}"#, "").unwrap().dns.unwrap().domain, "d");
    }
}
