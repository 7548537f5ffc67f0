//! `ptp`: a veth pair from the pod to its node, routed, without a bridge. The node's end carries the gateway
//! address, so every packet of the pod, to its own subnet too, goes through the node's routing.
//!
//! ```text
//!   pod    10.1.2.5/24, no route to the prefix      node   10.1.2.1/32 on every pod's veth
//!          10.1.2.1 dev eth0                               10.1.2.5 dev veth…
//!          10.1.2.0/24 via 10.1.2.1
//! ```
//! Order of ADD: configuration, namespace, addresses (IPAM), veth straight into the pod, the pod's addresses
//! and routes, the node's, forwarding, masquerade. Each step that makes something first notes how to take it
//! back. Without an IPAM plugin it is a wire: both ends up, no address on either.

mod check;
mod config;
mod node;

use cni::plugin::Plugin;
use cni::{Call, CniResult, Error, Interface, IpConfig, Undo};
use ipnetwork::IpNetwork;
use kernel::link::{self, Change};
use kernel::{Mac, Rtnl};

use super::attach::{self, Options, failed};
use super::forwarding::{self, NodeLock};
use super::veth::{self, Ends, PodMac};
use crate::ipam::Ipam;
use crate::masq;
use crate::rules::Rules;
use config::PtpConfig;

/// The plugin.
pub(crate) struct Ptp;

/// Position of the pod's interface in the result: after the node's end of the veth.
const POD_INTERFACE: usize = 1;

impl Plugin for Ptp {
    fn name(&self) -> &'static str {
        "ptp"
    }

    fn add(&self, call: &Call, undo: &mut Undo) -> Result<CniResult, Error> {
        let config = PtpConfig::resolve(call)?;
        let (netns, mut pod) = attach::open_pod(call)?;
        let mut rtnl = Rtnl::open().map_err(failed("netlink on the node"))?;

        let mut result = CniResult::default();
        if call.conf.ipam_type().is_some() {
            result = Ipam::find(call)?.add(call, undo)?;
            if result.ips.is_empty() {
                return Err(Error::internal("IPAM plugin returned missing IP config"));
            }
        }
        for ip in &mut result.ips {
            ip.interface = Some(POD_INTERFACE);
            require_gateway(ip)?;
        }

        let _connecting = NodeLock::shared()?;
        let ends = Ends { mac: PodMac::Derived, mtu: config.mtu, master: None };
        let veth = veth::add(&mut rtnl, call, &netns, &ends, undo)?;
        if result.ips.iter().any(|ip| ip.address.is_ipv6()) {
            node::skip_duplicate_detection(&veth);
        }

        let ifname = call.env.ifname.as_str();
        let (index, mac) = veth.pod;
        if result.ips.is_empty() {
            link::set(&mut pod, index, &Change { up: Some(true), ..Change::default() })
                .map_err(failed(format!("set {ifname:?} up")))?;
        } else {
            let options = Options { routed: true, ..Options::default() };
            attach::configure(&netns, &mut pod, (ifname, index), &result, options)?;
        }
        node::connect(&mut rtnl, call, &veth, &result)?;
        for v6 in families(&result) {
            forwarding::enable(&mut rtnl, v6, veth.index, undo)?;
        }
        if config.ip_masq && !result.ips.is_empty() {
            let ips: Vec<IpNetwork> = result.ips.iter().map(|ip| ip.address).collect();
            masq::add(call, &ips, undo)?;
        }

        result.interfaces =
            vec![interface(&veth.name, Some(veth.mac), ""), interface(ifname, Some(mac), &call.env.netns)];
        if let Some(dns) = config.dns {
            result.dns = dns;
        }
        Ok(result)
    }

    fn del(&self, call: &Call) -> Result<(), Error> {
        // All are tried whatever the others did, and rules are looked for whatever the configuration says by now.
        // The link goes first: with it goes the route, and only then may the address be given to another pod.
        let mut rules = Rules::open_for_del("rules of the node");
        let link = veth::delete(call, &Rules::sockets(&rules));
        let rules = Rules::remove(&mut rules, &[&|rules| masq::remove(rules, call)]);
        let address = match call.conf.ipam_type() {
            Some(_) => Ipam::find(call).and_then(|ipam| ipam.del(call)),
            None => Ok(()),
        };
        Error::join([link, rules, address])
    }

    fn check(&self, call: &Call) -> Result<(), Error> {
        let config = PtpConfig::resolve(call)?;
        let pod = attach::open_pod(call)?.1;
        if call.conf.ipam_type().is_some() {
            Ipam::find(call)?.check(call)?;
        }
        check::check(call, &config, pod)
    }

    fn gc(&self, call: &Call) -> Result<(), Error> {
        let links = veth::collect(call);
        let rules = masq::collect(call);
        let address = match call.conf.ipam_type() {
            Some(_) => Ipam::find(call).and_then(|ipam| ipam.gc(call)),
            None => Ok(()),
        };
        Error::join([links, rules, address])
    }

    fn status(&self, call: &Call) -> Result<(), Error> {
        if PtpConfig::resolve(call)?.ip_masq {
            masq::status()?;
        }
        match call.conf.ipam_type() {
            Some(_) => Ipam::find_for_status(call)?.status(call),
            None => Ok(()),
        }
    }
}

fn interface(name: &str, mac: Option<Mac>, sandbox: &str) -> Interface {
    Interface {
        name: name.to_owned(),
        mac: mac.map(|mac| mac.to_string()).unwrap_or_default(),
        sandbox: sandbox.to_owned(),
        ..Interface::default()
    }
}

/// The families of the result's addresses: IPv4, then IPv6.
fn families(result: &CniResult) -> impl Iterator<Item = bool> {
    let has = |v6| result.ips.iter().any(|ip| ip.address.is_ipv6() == v6);
    [false, true].into_iter().zip([has(false), has(true)]).filter_map(|(v6, has)| has.then_some(v6))
}

/// A routed pod reaches nothing but through its gateway, which is the node; without one the reference fails
/// with the kernel's "invalid argument".
fn require_gateway(ip: &IpConfig) -> Result<(), Error> {
    let address = ip.address;
    match ip.gateway {
        None => Err(Error::invalid(format!(
            "ptp needs a gateway for {address}, and the IPAM plugin gave none (set the gateway of its subnet)"
        ))),
        Some(gateway) if gateway.is_ipv6() != address.is_ipv6() => {
            Err(Error::invalid(format!("gateway {gateway} of {address} is of the other IP version")))
        }
        Some(gateway) if gateway == address.ip() => {
            Err(Error::invalid(format!("gateway {gateway} is the pod's own address")))
        }
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(address: &str, gateway: Option<&str>) -> IpConfig {
        IpConfig {
            interface: None,
            address: address.parse().unwrap(),
            gateway: gateway.map(|text| text.parse().unwrap()),
        }
    }

    #[test]
    fn a_gateway_is_needed_and_must_be_another_address_of_the_family() {
        assert!(require_gateway(&ip("10.1.2.3/24", Some("10.1.2.1"))).is_ok());
        assert!(require_gateway(&ip("10.1.2.3/32", Some("169.254.1.1"))).is_ok());
        for (gateway, words) in [
            (None, "ptp needs a gateway for 10.1.2.3/24"),
            (Some("fd00::1"), "is of the other IP version"),
            (Some("10.1.2.3"), "is the pod's own address"),
        ] {
            let refused = require_gateway(&ip("10.1.2.3/24", gateway)).unwrap_err();
            assert!(refused.msg.contains(words) && refused.code == 7, "{refused:?}");
        }
    }

    #[test]
    fn families_are_those_of_the_addresses() {
        let of = |ips: &[&str]| {
            let ips = ips.iter().map(|text| ip(text, None)).collect();
            families(&CniResult { ips, ..CniResult::default() }).collect::<Vec<_>>()
        };
        assert_eq!(of(&["fd00::1/64", "10.0.0.1/8", "fd00::2/64"]), [false, true]);
        assert_eq!((of(&["fd00::1/64"]), of(&[])), (vec![true], vec![]));
    }
}
