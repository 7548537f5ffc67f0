//! `host-local`: addresses from ranges, reserved in files of this node, in the reference's format.
//!
//! The arithmetic, the choice of an address and the files are the `ipam` crate's; here stand the
//! configuration and the verbs.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use cni::plugin::Plugin;
use cni::{Call, CniResult, Dns, Error, IpConfig, Undo, args, code};
use ipam::{Owner, RangeConf, RangeSet, Store};
use serde::Deserialize;

use super::request::{Requests, one_per_family, parse};

/// Where reservations are kept unless `dataDir` says otherwise.
const DATA_DIR: &str = "/var/lib/cni/networks";

/// The plugin.
pub(crate) struct HostLocal;

/// The keys as they stand in the configuration.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Written {
    ipam: Option<WrittenIpam>,
    runtime_config: RuntimeRanges,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WrittenIpam {
    subnet: String,
    range_start: String,
    range_end: String,
    gateway: String,
    ranges: Vec<Vec<WrittenRange>>,
    routes: Vec<cni::Route>,
    data_dir: String,
    resolv_conf: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RuntimeRanges {
    ip_ranges: Vec<Vec<WrittenRange>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WrittenRange {
    subnet: String,
    range_start: String,
    range_end: String,
    gateway: String,
}

/// A complete, valid configuration.
struct HostLocalConfig {
    sets: Vec<RangeSet>,
    requested: Vec<IpAddr>,
    routes: Vec<cni::Route>,
    data_dir: PathBuf,
    resolv_conf: Option<PathBuf>,
}

impl HostLocalConfig {
    fn resolve(call: &Call) -> Result<Self, Error> {
        let written: Written = call.conf_as()?;
        let ipam = written.ipam.ok_or_else(|| Error::invalid("IPAM config missing 'ipam' key"))?;
        let mut requested = Vec::new();
        if let Some(text) = args::parse(&call.env.args, &["IP"])?.remove("IP").filter(|text| !text.is_empty())
        {
            requested.push(address(&text)?);
        }
        let requests: Requests = call.conf_as()?;
        for text in requests.args().iter().chain(requests.runtime()) {
            requested.push(address(text)?);
        }

        let flat = WrittenRange {
            subnet: ipam.subnet,
            range_start: ipam.range_start,
            range_end: ipam.range_end,
            gateway: ipam.gateway,
        };
        let flat = (!flat.subnet.is_empty()).then(|| vec![flat]);
        let lists = written.runtime_config.ip_ranges.into_iter().chain(flat).chain(ipam.ranges);
        let written =
            lists.map(|list| list.iter().map(range).collect()).collect::<Result<Vec<_>, Error>>()?;
        let sets = RangeSet::resolve_all(&written).map_err(in_store)?;
        let v6 = sets.iter().filter(|set| set.is_ipv6()).count();
        one_per_family(call.version, sets.len() - v6, v6)?;
        let or_default =
            |text: String, default: &str| if text.is_empty() { default.to_owned() } else { text };
        Ok(Self {
            sets,
            requested,
            routes: ipam.routes,
            data_dir: or_default(ipam.data_dir, DATA_DIR).into(),
            resolv_conf: (!ipam.resolv_conf.is_empty()).then(|| ipam.resolv_conf.into()),
        })
    }

    fn store(&self, call: &Call) -> Result<Store, Error> {
        Store::open(&self.data_dir, &call.conf.name).map_err(in_store)
    }
}

/// Where this network's reservations are, from the one key that DEL and GC need: they must work although
/// the rest of the configuration has become wrong meanwhile.
fn store_for_removal(call: &Call) -> Result<Store, Error> {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Place {
        ipam: PlaceIpam,
    }
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct PlaceIpam {
        data_dir: String,
    }
    let place: Place = call.conf_as()?;
    let dir = if place.ipam.data_dir.is_empty() { DATA_DIR } else { &place.ipam.data_dir };
    Store::open(Path::new(dir), &call.conf.name).map_err(in_store)
}

fn in_store(err: ipam::Error) -> Error {
    let code = match err.errno() {
        Some(_) => code::IO,
        None if err.is_invalid() => code::INVALID_CONFIG,
        None => code::INTERNAL,
    };
    Error::new(code, err.to_string())
}

fn owner(call: &Call) -> Owner<'_> {
    Owner { container_id: &call.env.container_id, ifname: &call.env.ifname }
}

/// A requested address; a prefix length is allowed and not minded.
fn address(text: &str) -> Result<IpAddr, Error> {
    match text.contains('/') {
        true => cni::parse_cidr(text).map(|net| net.ip()).map_err(Error::invalid),
        false => parse(text, "IP address"),
    }
}

fn range(written: &WrittenRange) -> Result<RangeConf, Error> {
    let optional = |text: &str| (!text.is_empty()).then(|| parse(text, "IP address")).transpose();
    Ok(RangeConf {
        subnet: cni::parse_cidr(&written.subnet).map_err(Error::invalid)?,
        range_start: optional(&written.range_start)?,
        range_end: optional(&written.range_end)?,
        gateway: optional(&written.gateway)?,
    })
}

impl Plugin for HostLocal {
    fn name(&self) -> &'static str {
        "host-local"
    }

    fn add(&self, call: &Call, undo: &mut Undo) -> Result<CniResult, Error> {
        let config = HostLocalConfig::resolve(call)?;
        let dns = config.resolv_conf.as_deref().map(read_resolv_conf).transpose()?;
        let store = config.store(call)?;
        let allocations =
            store.allocate_all(&config.sets, &owner(call), &config.requested).map_err(in_store)?;
        let ips: Vec<IpConfig> = allocations
            .iter()
            .map(|given| IpConfig { interface: None, address: given.address, gateway: given.gateway })
            .collect();
        let reserved: Vec<IpAddr> = ips.iter().map(|ip| ip.address.ip()).collect();
        let (id, ifname) = (call.env.container_id.clone(), call.env.ifname.clone());
        undo.push("release the addresses", move || {
            let owner = Owner { container_id: &id, ifname: &ifname };
            store.release_only(&owner, &reserved).map_err(|err| err.to_string())
        });
        Ok(CniResult { ips, routes: config.routes, dns: dns.unwrap_or_default(), ..CniResult::default() })
    }

    fn del(&self, call: &Call) -> Result<(), Error> {
        store_for_removal(call)?.release(&owner(call)).map(drop).map_err(in_store)
    }

    fn check(&self, call: &Call) -> Result<(), Error> {
        let config = HostLocalConfig::resolve(call)?;
        let reserved = config.store(call)?.find(&owner(call)).map_err(in_store)?;
        if reserved.is_empty() {
            return Err(Error::internal(format!(
                "host-local: Failed to find address added by container {}",
                call.env.container_id
            )));
        }
        // The addresses of prevResult that come from these ranges are this attachment's reservations.
        let recorded = call.conf.prev_result.iter().flat_map(|result| &result.ips).map(|ip| ip.address.ip());
        for ip in recorded.filter(|ip| config.sets.iter().any(|set| set.contains(*ip))) {
            if !reserved.contains(&ip) {
                return Err(Error::internal(format!(
                    "host-local: address {ip} of prevResult is not reserved for container {}",
                    call.env.container_id
                )));
            }
        }
        Ok(())
    }

    fn gc(&self, call: &Call) -> Result<(), Error> {
        let Some(valid) = &call.conf.valid_attachments else { return Ok(()) };
        let keep: Vec<Owner<'_>> = valid
            .iter()
            .map(|kept| Owner { container_id: &kept.container_id, ifname: &kept.ifname })
            .collect();
        store_for_removal(call)?.gc(&keep).map(drop).map_err(in_store)
    }

    fn status(&self, call: &Call) -> Result<(), Error> {
        let config = HostLocalConfig::resolve(call)?;
        let unavailable = |msg: String| Error::new(code::UNAVAILABLE, msg);
        let store = config.store(call)?;
        for set in &config.sets {
            if store.available(set).map_err(|err| unavailable(err.to_string()))? == 0 {
                return Err(unavailable(format!("no IP addresses available in range set: {set}")));
            }
        }
        Ok(())
    }
}

/// DNS from a resolv.conf(5), as the reference reads it.
fn read_resolv_conf(path: &Path) -> Result<Dns, Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|err| Error::new(code::IO, format!("read resolvConf {}: {err}", path.display())))?;
    let mut dns = Dns::default();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        let mut words = line.split_whitespace();
        let Some(key) = words.next() else { continue };
        let values = words.map(str::to_owned);
        match key {
            "nameserver" => dns.nameservers.extend(values.take(1)),
            "domain" => dns.domain = values.take(1).collect(),
            "search" => dns.search.extend(values),
            "options" => dns.options.extend(values),
            _ => {}
        }
    }
    Ok(dns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_read_as_the_reference_does() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            "# a comment\n nameserver 192.0.2.1 ignored\nnameserver 192.0.2.2\ndomain example.org\n\
             search a.example b.example\n; another\noptions ndots:5 rotate\nunknown x\n\n",
        )
        .unwrap();
        let dns = read_resolv_conf(file.path()).unwrap();
        assert_eq!(dns.nameservers, ["192.0.2.1", "192.0.2.2"]);
        assert_eq!(dns.domain, "example.org");
        assert_eq!(dns.search, ["a.example", "b.example"]);
        assert_eq!(dns.options, ["ndots:5", "rotate"]);
    }

    #[test]
    fn a_requested_address_may_carry_a_prefix_length() {
        assert_eq!(address("10.1.2.3/24").unwrap(), address("10.1.2.3").unwrap());
        assert!(address("10.1.2.300").is_err());
        assert!(address("").is_err());
        assert!(address("10.1.2.3/33").is_err());
        assert!(address("10.1.2.3/").is_err());
    }
}
