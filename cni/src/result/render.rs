//! Printing a result in the form of any version, byte for byte as the reference does.
//!
//! Up to 0.4.0 keys stand in the reference's struct order and `dns` is always there; from 1.0.0 on they are
//! alphabetical at every level and an empty `dns` is left out. Nothing here writes to a stream.

use std::net::IpAddr;

use super::read::Family;
use super::{CniResult, Dns, Interface, IpConfig, Route};
use crate::error::Error;
use crate::json::Json;
use crate::version::Version;

impl CniResult {
    /// The result as ADD prints it in `version`: 4-space indent, no newline at the end.
    ///
    /// # Errors
    /// Code 999: up to 0.2.0 a result must have an address.
    pub fn render(&self, version: Version) -> Result<String, Error> {
        Ok(self.to_json(version)?.to_pretty())
    }

    /// The result in the form of `version`, as [`CniResult::render`] prints it.
    ///
    /// # Errors
    /// As [`CniResult::render`].
    pub fn to_json(&self, version: Version) -> Result<Json, Error> {
        let mut object = Object::new();
        object.text("cniVersion", version.as_str());
        match Family::of(version) {
            Family::Single => {
                let first = |v6: bool| self.ips.iter().find(|ip| ip.address.is_ipv6() == v6);
                let (v4, v6) = (first(false), first(true));
                if v4.is_none() && v6.is_none() {
                    return Err(Error::internal("cannot convert: no valid IP addresses"));
                }
                object.some("ip4", v4.map(|ip| self.single(ip)));
                object.some("ip6", v6.map(|ip| self.single(ip)));
                object.put("dns", dns(&self.dns));
            }
            Family::Listed => {
                object.list("interfaces", self.interfaces.iter().map(listed_interface));
                object.list("ips", self.ips.iter().map(listed_ip));
                object.list("routes", self.routes.iter().map(listed_route));
                object.put("dns", dns(&self.dns));
            }
            Family::Stable => {
                object.some("dns", (!self.dns.is_empty()).then(|| dns(&self.dns)));
                object.list("interfaces", self.interfaces.iter().map(stable_interface));
                object.list("ips", self.ips.iter().map(stable_ip));
                object.list("routes", self.routes.iter().map(listed_route));
                return Ok(object.sorted());
            }
        }
        Ok(object.done())
    }

    /// An address up to 0.2.0, with the routes of its family.
    fn single(&self, ip: &IpConfig) -> Json {
        let routes = self.routes.iter().filter(|route| route.dst.is_ipv6() == ip.address.is_ipv6());
        let mut object = Object::new();
        object.text("ip", &ip.address.to_string());
        object.address("gateway", ip.gateway);
        object.list(
            "routes",
            routes.map(|route| {
                let mut object = Object::new();
                object.text("dst", &route.dst.to_string());
                object.address("gw", route.gw);
                object.done()
            }),
        );
        object.done()
    }
}

fn listed_interface(interface: &Interface) -> Json {
    let mut object = Object::new();
    object.text("name", &interface.name);
    object.filled("mac", &interface.mac);
    object.filled("sandbox", &interface.sandbox);
    object.done()
}

fn stable_interface(interface: &Interface) -> Json {
    let mut object = Object::new();
    object.text("name", &interface.name);
    object.filled("mac", &interface.mac);
    object.number("mtu", Some(interface.mtu).filter(|&mtu| mtu != 0));
    object.filled("sandbox", &interface.sandbox);
    object.filled("socketPath", &interface.socket_path);
    object.filled("pciID", &interface.pci_id);
    object.done()
}

fn listed_ip(ip: &IpConfig) -> Json {
    let mut object = Object::new();
    object.text("version", if ip.address.is_ipv6() { "6" } else { "4" });
    object.number("interface", ip.interface);
    object.text("address", &ip.address.to_string());
    object.address("gateway", ip.gateway);
    object.done()
}

fn stable_ip(ip: &IpConfig) -> Json {
    let mut object = Object::new();
    object.number("interface", ip.interface);
    object.text("address", &ip.address.to_string());
    object.address("gateway", ip.gateway);
    object.done()
}

fn listed_route(route: &Route) -> Json {
    let filled = |number: Option<u32>| number.filter(|&number| number != 0);
    let mut object = Object::new();
    object.text("dst", &route.dst.to_string());
    object.address("gw", route.gw);
    object.number("mtu", filled(route.mtu));
    object.number("advmss", filled(route.advmss));
    object.number("priority", filled(route.priority));
    object.number("table", route.table);
    object.number("scope", route.scope);
    object.done()
}

fn dns(dns: &Dns) -> Json {
    let texts = |list: &[String]| list.iter().map(|text| Json::from(text.as_str())).collect::<Vec<_>>();
    let mut object = Object::new();
    object.list("nameservers", texts(&dns.nameservers));
    object.filled("domain", &dns.domain);
    object.list("search", texts(&dns.search));
    object.list("options", texts(&dns.options));
    object.done()
}

/// An object in the making; what Go marks `omitempty` is left out when empty.
struct Object(Vec<(String, Json)>);

impl Object {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn put(&mut self, key: &str, value: Json) {
        self.0.push((key.to_owned(), value));
    }

    fn text(&mut self, key: &str, value: &str) {
        self.put(key, Json::from(value));
    }

    fn filled(&mut self, key: &str, value: &str) {
        self.some(key, (!value.is_empty()).then(|| Json::from(value)));
    }

    fn some(&mut self, key: &str, value: Option<Json>) {
        if let Some(value) = value {
            self.put(key, value);
        }
    }

    fn number(&mut self, key: &str, value: Option<impl ToString>) {
        self.some(key, value.map(|value| Json::Number(value.to_string())));
    }

    fn address(&mut self, key: &str, value: Option<IpAddr>) {
        self.some(key, value.map(|value| Json::from(value.to_canonical().to_string().as_str())));
    }

    fn list(&mut self, key: &str, items: impl IntoIterator<Item = Json>) {
        let items: Vec<Json> = items.into_iter().collect();
        self.some(key, (!items.is_empty()).then_some(Json::Array(items)));
    }

    fn done(self) -> Json {
        Json::Object(self.0)
    }

    fn sorted(self) -> Json {
        sort(self.done())
    }
}

/// Every object's keys in byte order.
fn sort(json: Json) -> Json {
    match json {
        Json::Array(items) => Json::Array(items.into_iter().map(sort).collect()),
        Json::Object(entries) => {
            let mut entries: Vec<_> = entries.into_iter().map(|(key, value)| (key, sort(value))).collect();
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            Json::Object(entries)
        }
        other => other,
    }
}
