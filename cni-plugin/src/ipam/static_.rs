//! `static`: the addresses that the configuration or the runtime names; nothing is stored.

use std::net::IpAddr;

use cni::plugin::Plugin;
use cni::{Call, CniResult, Dns, Error, IpConfig, Undo, args};
use ipnetwork::IpNetwork;
use serde::Deserialize;

use super::request::{Requests, one_per_family, parse};

/// The plugin.
pub(crate) struct Static;

/// The keys as they stand in the configuration.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Written {
    ipam: Option<WrittenIpam>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WrittenIpam {
    addresses: Vec<WrittenAddress>,
    routes: Vec<cni::Route>,
    dns: Dns,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WrittenAddress {
    address: String,
    gateway: String,
}

/// A complete, valid configuration.
struct StaticConfig {
    ips: Vec<IpConfig>,
    routes: Vec<cni::Route>,
    dns: Dns,
}

impl StaticConfig {
    fn resolve(call: &Call) -> Result<Self, Error> {
        let written: Written = call.conf_as()?;
        let ipam = written.ipam.ok_or_else(|| Error::invalid("IPAM config missing 'ipam' key"))?;
        let mut ips = Vec::new();
        for entry in &ipam.addresses {
            let sentence = "the 'address' field is expected to be in CIDR notation";
            let gateway =
                (!entry.gateway.is_empty()).then(|| parse(&entry.gateway, "gateway address")).transpose()?;
            ips.push(IpConfig { interface: None, address: cidr(&entry.address, sentence)?, gateway });
        }
        let mut from_args = args::parse(&call.env.args, &["IP", "GATEWAY"])?;
        let mut listed = |key: &str| from_args.remove(key).filter(|text| !text.is_empty());
        for text in listed("IP").iter().flat_map(|list| list.split(',')) {
            let sentence = "the 'ip' field is expected to be in CIDR notation";
            ips.push(IpConfig { interface: None, address: cidr(text, sentence)?, gateway: None });
        }
        for text in listed("GATEWAY").iter().flat_map(|list| list.split(',')) {
            let gateway: IpAddr = parse(text, "gateway address")?;
            for ip in ips.iter_mut().filter(|ip| ip.address.contains(gateway)) {
                ip.gateway = Some(gateway);
            }
        }
        let requests: Requests = call.conf_as()?;
        for list in [requests.args(), requests.runtime()].into_iter().filter(|list| !list.is_empty()) {
            let sentence = "an entry in the 'ips' field is NOT in CIDR notation";
            let entry = |text: &String| {
                Ok(IpConfig { interface: None, address: cidr(text, sentence)?, gateway: None })
            };
            ips = list.iter().map(entry).collect::<Result<_, Error>>()?;
        }
        let v6 = ips.iter().filter(|ip| ip.address.is_ipv6()).count();
        one_per_family(call.version, ips.len() - v6, v6)?;
        Ok(Self { ips, routes: ipam.routes, dns: ipam.dns })
    }
}

fn cidr(text: &str, sentence: &str) -> Result<IpNetwork, Error> {
    cni::parse_cidr(text.trim()).map_err(|_| Error::invalid(format!("{sentence}, got: '{text}'")))
}

impl Plugin for Static {
    fn name(&self) -> &'static str {
        "static"
    }

    fn add(&self, call: &Call, _undo: &mut Undo) -> Result<CniResult, Error> {
        let StaticConfig { ips, routes, dns } = StaticConfig::resolve(call)?;
        Ok(CniResult { ips, routes, dns, ..CniResult::default() })
    }

    fn del(&self, _call: &Call) -> Result<(), Error> {
        Ok(())
    }

    fn check(&self, call: &Call) -> Result<(), Error> {
        let config = StaticConfig::resolve(call)?;
        let previous =
            call.conf.prev_result.as_ref().ok_or_else(|| Error::invalid("Required prevResult missing"))?;
        for wanted in &config.ips {
            match previous.ips.iter().find(|ip| ip.address == wanted.address) {
                Some(recorded) if wanted.gateway.is_some() && recorded.gateway != wanted.gateway => {
                    return Err(Error::internal(format!(
                        "static: Failed to match addr {}: its gateway in prevResult is another",
                        wanted.address
                    )));
                }
                Some(_) => {}
                None => {
                    return Err(Error::internal(format!(
                        "static: Failed to find address {} in prevResult",
                        wanted.address
                    )));
                }
            }
        }
        Ok(())
    }

    fn gc(&self, _call: &Call) -> Result<(), Error> {
        Ok(())
    }

    fn status(&self, call: &Call) -> Result<(), Error> {
        StaticConfig::resolve(call).map(drop)
    }
}
