//! `bridge`: a veth pair from the pod to a bridge on the node, with the gateway on the bridge if asked.
//!
//! Order of ADD: configuration, namespace, addresses (IPAM; after the MAC spoof check when the plugin may need the
//! link), bridge, veth straight into the pod, VLANs, MAC spoof check, the pod's addresses and routes, port state,
//! gateway addresses and forwarding, masquerade. Each step that makes something first notes how to take it back.

mod check;
mod config;
mod node;
mod spoof;
mod vlan;

use std::net::IpAddr;

use cni::plugin::Plugin;
use cni::{Call, CniResult, Error, Interface, Undo};
use ipnetwork::IpNetwork;
use kernel::link::{self, Change};
use kernel::{Family, Mac, Rtnl};

use super::attach::{self, Announce, Options, failed};
use super::delete;
use super::forwarding::NodeLock;
use super::veth::{self, Ends, PodMac};
use crate::ipam::Ipam;
use crate::masq;
use crate::rules::Rules;
use config::BridgeConfig;

/// The plugin.
pub(crate) struct Bridge;

/// Position of the pod's interface in the result: after the bridge and the node's end of the veth.
const POD_INTERFACE: usize = 2;
/// With so many ports, flooding the pod's announcement to all takes longer than to have a child do it.
const CROWD: u16 = 64;

impl Plugin for Bridge {
    fn name(&self) -> &'static str {
        "bridge"
    }

    fn add(&self, call: &Call, undo: &mut Undo) -> Result<CniResult, Error> {
        let config = BridgeConfig::resolve(call)?;
        let (netns, mut pod) = attach::open_pod(call)?;
        let mut rtnl = Rtnl::open().map_err(failed("netlink on the node"))?;

        let ipam = config.ipam.is_some().then(|| Ipam::find(call)).transpose()?;
        let mut result = CniResult::default();
        if let Some(ipam) = ipam.as_ref().filter(|ipam| !ipam.needs_link()) {
            result = allocate(ipam, call, &config, undo)?;
        }

        let mut plugging = NodeLock::shared()?;
        let mut bridge = node::ensure_bridge(&mut rtnl, call, &config, undo)?;
        let ends = Ends {
            mac: config.mac.map_or(PodMac::Random, PodMac::Asked),
            mtu: config.mtu,
            master: Some(bridge.index),
        };
        let veth = veth::add(&mut rtnl, call, &netns, &ends, undo)?;
        let (index, mac) = veth.pod;

        let ifname = call.env.ifname.as_str();
        if let Some(vlans) = &config.vlans {
            vlan::set(&mut rtnl, veth.index, vlans)?;
        }
        if config.macspoofchk {
            // The pod's end is still down: no frame has passed yet.
            spoof::add(call, &veth.name, mac, undo)?;
        }
        if let Some(ipam) = ipam.as_ref().filter(|ipam| ipam.needs_link()) {
            // It may wait for a server, and others must not wait for that.
            drop(plugging);
            result = allocate(ipam, call, &config, undo)?;
            plugging = NodeLock::shared()?;
        }
        if config.ipam.is_some() {
            let options = Options {
                announce: Announce::ByCaller,
                detect_duplicates: config.enable_dad,
                ..Options::default()
            };
            attach::configure(&netns, &mut pod, (ifname, index), &result, options)?;
        } else if !config.leave_down {
            link::set(&mut pod, index, &Change { up: Some(true), ..Change::default() })
                .map_err(failed(format!("set {ifname:?} up")))?;
        }
        let port = node::complete_port(&mut rtnl, &config, call, &veth)?;
        let mut gateway = None;
        if config.is_gateway {
            if let Some(id) = config.vlans.as_ref().and_then(|vlans| vlans.native) {
                gateway = Some(vlan::ensure_gateway(&mut rtnl, &bridge, (id, veth.index), undo)?);
            }
            let on = (bridge.index, gateway.as_mut().unwrap_or(&mut bridge));
            node::add_gateways(&mut rtnl, &config, on, &veth, &result, undo)?;
        }
        if config.ip_masq && config.ipam.is_some() {
            let ips: Vec<IpNetwork> = result.ips.iter().map(|ip| ip.address).collect();
            masq::add(call, &ips, undo)?;
        }
        drop(plugging);

        if result.ips.iter().any(|ip| ip.address.is_ipv4()) {
            // The kernel's own announcement, when the link comes up, finds the port not forwarding yet.
            let crowded = port.port_number.is_some_and(|number| number >= CROWD);
            attach::announce(pod, index, mac, crowded);
        }
        result.interfaces = vec![
            interface(&config.bridge, node::current_mac(&mut rtnl, &bridge)?, ""),
            interface(&veth.name, Some(veth.mac), ""),
            interface(ifname, Some(mac), &call.env.netns),
        ];
        result.interfaces.extend(gateway.map(|link| interface(&link.name, link.mac, "")));
        if let Some(dns) = config.dns {
            result.dns = dns;
        }
        Ok(result)
    }

    fn del(&self, call: &Call) -> Result<(), Error> {
        // All are tried whatever the others do: an address must not stay reserved because a link would not go,
        // nor the other way round. Rules are looked for whatever the configuration says by now.
        let ipam = call.conf.ipam_type().map(|_| Ipam::find(call));
        let release = || match &ipam {
            Some(Ok(ipam)) => ipam.del(call),
            Some(Err(err)) => Err(err.clone()),
            None => Ok(()),
        };
        // A lease is given back on the link, so before the link goes.
        let lease = matches!(&ipam, Some(Ok(ipam)) if ipam.releases_on_link()).then(&release);
        let mut rules = Rules::open_for_del("rules of the node");
        let link = delete::pod_link(call, &Rules::sockets(&rules)).map(drop);
        let link = Error::join([link, vlan::release(call)]);
        let rules = Rules::remove(
            &mut rules,
            &[&|rules| masq::remove(rules, call), &|rules| spoof::remove(rules, call)],
        );
        Error::join([link, rules, lease.unwrap_or_else(release)])
    }

    fn check(&self, call: &Call) -> Result<(), Error> {
        let config = BridgeConfig::resolve(call)?;
        let pod = attach::open_pod(call)?.1;
        if config.ipam.is_some() {
            Ipam::find(call)?.check(call)?;
        }
        check::check(call, &config, pod)
    }

    fn gc(&self, call: &Call) -> Result<(), Error> {
        let links = Error::join([veth::collect(call), vlan::collect(call)]);
        let rules = Error::join([masq::collect(call), spoof::collect(call)]);
        let address = match call.conf.ipam_type() {
            Some(_) => Ipam::find(call).and_then(|ipam| ipam.gc(call)),
            None => Ok(()),
        };
        Error::join([links, rules, address])
    }

    fn status(&self, call: &Call) -> Result<(), Error> {
        let config = BridgeConfig::resolve(call)?;
        node::status(&config)?;
        if config.ip_masq {
            masq::status()?;
        }
        if config.macspoofchk {
            spoof::status()?;
        }
        match config.ipam {
            Some(_) => Ipam::find_for_status(call)?.status(call),
            None => Ok(()),
        }
    }
}

/// Reserves the addresses and ties them to the pod's interface.
fn allocate(ipam: &Ipam, call: &Call, config: &BridgeConfig, undo: &mut Undo) -> Result<CniResult, Error> {
    let mut result = ipam.add(call, undo)?;
    if result.ips.is_empty() {
        return Err(Error::internal("IPAM plugin returned missing IP config"));
    }
    complete(&mut result, config);
    Ok(result)
}

fn interface(name: &str, mac: Option<Mac>, sandbox: &str) -> Interface {
    Interface {
        name: name.to_owned(),
        mac: mac.map(|mac| mac.to_string()).unwrap_or_default(),
        sandbox: sandbox.to_owned(),
        ..Interface::default()
    }
}

/// Ties the IPAM's addresses to the pod's interface, fills in gateways (the first address of the subnet)
/// and the default routes that `isDefaultGateway` asks for. A default route that the IPAM gave, with or
/// without a gateway of its own, is enough; the reference adds a second one to the latter and fails.
fn complete(result: &mut CniResult, config: &BridgeConfig) {
    for ip in &mut result.ips {
        ip.interface = Some(POD_INTERFACE);
        if ip.gateway.is_none() && config.is_gateway {
            ip.gateway = first_address(ip.address);
        }
    }
    if !config.is_default_gateway {
        return;
    }
    for v6 in [false, true] {
        let Some(gateway) = result.ips.iter().find(|ip| ip.address.is_ipv6() == v6).and_then(|ip| ip.gateway)
        else {
            continue;
        };
        if !result.routes.iter().any(|route| route.dst.prefix() == 0 && route.dst.is_ipv6() == v6) {
            result.routes.push(cni::Route::new(Family::v6_if(v6).any(), Some(gateway)));
        }
    }
}

/// The first address of the subnet that `address` lies in: network + 1.
fn first_address(address: IpNetwork) -> Option<IpAddr> {
    match attach::network(address) {
        IpNetwork::V4(v4) => u32::from(v4.ip()).checked_add(1).map(|bits| IpAddr::V4(bits.into())),
        IpNetwork::V6(v6) => u128::from(v6.ip()).checked_add(1).map(|bits| IpAddr::V6(bits.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(keys: &str, routes: &[&str]) -> CniResult {
        let text =
            format!(r#"{{"cniVersion":"1.0.0","name":"n","type":"bridge","ipam":{{"type":"x"}}{keys}}}"#);
        let env = cni::Env { command: "ADD".into(), ..cni::Env::default() };
        let config = BridgeConfig::resolve(&Call::new(env, text.into_bytes()).unwrap()).unwrap();
        let ip = |address: &str| cni::IpConfig {
            interface: None,
            address: address.parse().unwrap(),
            gateway: None,
        };
        let mut result = CniResult {
            ips: vec![ip("10.1.2.3/24"), ip("fd00::3/64")],
            routes: routes.iter().map(|dst| cni::Route::new(dst.parse().unwrap(), None)).collect(),
            ..CniResult::default()
        };
        complete(&mut result, &config);
        result
    }

    #[test]
    fn the_gateway_is_the_first_address_of_the_subnet() {
        let gateways: Vec<_> = completed(r#","isGateway":true"#, &[])
            .ips
            .iter()
            .map(|ip| ip.gateway.unwrap().to_string())
            .collect();
        assert_eq!(gateways, ["10.1.2.1", "fd00::1"]);
        assert!(completed("", &[]).ips.iter().all(|ip| ip.gateway.is_none() && ip.interface == Some(2)));
    }

    #[test]
    fn a_default_route_without_a_gateway_is_enough() {
        let keys = r#","isDefaultGateway":true"#;
        assert_eq!(completed(keys, &[]).routes.len(), 2);
        assert_eq!(completed(keys, &["0.0.0.0/0"]).routes.len(), 2);
        assert_eq!(completed(keys, &["0.0.0.0/0", "::/0"]).routes.len(), 2);
        assert_eq!(completed(keys, &["10.0.0.0/8"]).routes.len(), 3);
    }
}
