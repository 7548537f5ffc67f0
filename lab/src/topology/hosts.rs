//! Nodes and hosts outside as people write them: how many, or a list with names and addresses. What is not said of them
//! is counted: node1 has .11 on its rack's link, node2 .12; outside has .9 on its own.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize, de};

use super::forms::{self, Forms};
use super::{bits, host, written};
use crate::exit::Failure;
use crate::fabric::{self, RACK_UPLINK, SWITCH};
use crate::stack::{self, Each, Versioned};
use crate::step::{TO_NODE, TO_SWITCH};

/// The longest name of a link (IFNAMSIZ, linux/if.h, less the closing zero): a wire has the name of the host at its end.
const LONGEST: usize = 15;
/// Names that a namespace or a link of every lab has.
const TAKEN: [&str; 8] = ["fabric", "lo", "all", "default", TO_NODE, TO_SWITCH, SWITCH, RACK_UPLINK];

/// A node or a host outside, as it is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// Its addresses on its link, one for each IP version of the lab.
    pub address: Each<IpAddr>,
}

/// Nodes as written.
#[derive(Debug, Clone, PartialEq)]
pub enum Nodes {
    /// So many.
    Count(u32),
    /// These.
    Listed(Vec<HostEntry>),
}

/// A node or a host outside as written: a name, or a name and addresses.
#[derive(Debug, Clone, PartialEq)]
pub struct HostEntry {
    /// Its name.
    pub name: String,
    /// Its address, or one for each IP version, with or without the prefix length of its link.
    pub address: Option<Each<IpNetwork>>,
}

impl Forms for Nodes {
    const FORMS: &'static str = "how many nodes, or a list of them";

    fn of_number<E: de::Error>(count: u64) -> Result<Nodes, E> {
        let count = u32::try_from(count);
        count.map(Nodes::Count).map_err(|_| E::custom("there are at most 200 nodes"))
    }

    fn of_list<'de, A: de::SeqAccess<'de>>(list: A) -> Result<Nodes, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(list)).map(Nodes::Listed)
    }
}

impl Forms for HostEntry {
    const FORMS: &'static str = "a name, or a name and an address";

    fn of_text<E: de::Error>(name: &str) -> Result<HostEntry, E> {
        Ok(HostEntry { name: name.to_owned(), address: None })
    }

    fn of_map<'de, A: de::MapAccess<'de>>(map: A) -> Result<HostEntry, A::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Map {
            name: String,
            #[serde(default, deserialize_with = "written::networks")]
            address: Option<Each<IpNetwork>>,
        }
        let Map { name, address } = Map::deserialize(MapAccessDeserializer::new(map))?;
        Ok(HostEntry { name, address })
    }
}

impl<'de> Deserialize<'de> for Nodes {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Nodes, D::Error> {
        forms::read(d)
    }
}

impl<'de> Deserialize<'de> for HostEntry {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<HostEntry, D::Error> {
        forms::read(d)
    }
}

/// So many nodes: node1, node2 and so on.
pub(super) fn counted(count: u32) -> Vec<HostEntry> {
    (1..=count).map(|number| HostEntry { name: format!("node{number}"), address: None }).collect()
}

/// The host outside where none is written.
pub(super) fn only() -> Vec<HostEntry> {
    vec![HostEntry { name: "outside".to_owned(), address: None }]
}

/// The hosts that `key` lists: each with an address of its link for each IP version of it, the first one's last number
/// being `first` where none is written.
pub(super) fn resolve(
    key: &str,
    entries: Vec<HostEntry>,
    link: impl Fn(usize) -> Each<IpNetwork>,
    first: u8,
) -> Result<Vec<Host>, Failure> {
    let resolved = entries.into_iter().enumerate().map(|(index, entry)| {
        let wrong = |text: String| Failure::usage(format!("{key}[{index}] {:?}: {text}", entry.name));
        let nets = link(index);
        let mut address = nets.map(|net| host(net, first + index as u8));
        for given in entry.address.iter().flat_map(Each::iter) {
            let version = stack::word(given.family());
            let Some(net) = nets.of(given.family()) else {
                return Err(wrong(format!("{} is {version}, which the lab does not have", given.ip())));
            };
            if ![net.prefix(), bits(net.family())].contains(&given.prefix()) {
                return Err(wrong(format!("{given}: the prefix length of its link is {}", net.prefix())));
            }
            let ip = given.ip();
            if !net.contains(ip) {
                return Err(wrong(format!("{ip} is not in {net}, its link")));
            }
            if ip == net.network() || ip == host(net, 1) || net.is_ipv4() && ip == net.broadcast() {
                return Err(wrong(format!("{ip} is the network's, its router's or for all of {net}")));
            }
            address = address.map(|own| if own.family() == given.family() { ip } else { own });
        }
        Ok(Host { name: entry.name, address })
    });
    resolved.collect()
}

/// Refuses names and addresses that two have, and names that cannot be.
pub(super) fn check(nodes: &[Host], outside: &[Host]) -> Result<(), Failure> {
    let (mut names, mut addresses) = (BTreeMap::new(), BTreeMap::new());
    for (key, hosts) in [("nodes", nodes), ("outside", outside)] {
        for (index, Host { name, address }) in hosts.iter().enumerate() {
            let own = format!("{key}[{index}] {name:?}");
            let wrong = |text: String| Failure::usage(format!("{own}: {text}"));
            let rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            let is_word = name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(rest);
            if !is_word || name.len() > LONGEST || name.ends_with('-') {
                return Err(wrong(format!(
                    "a name has 1 to {LONGEST} lower-case letters, digits and '-', and begins with a letter"
                )));
            }
            let is_numbered = |stem: &str| {
                let number = name.strip_prefix(stem).unwrap_or_default();
                !number.is_empty() && number.chars().all(|c| c.is_ascii_digit())
            };
            let is_made = fabric::is_wan(name) || is_numbered("rack") || is_numbered("kubia-");
            if TAKEN.contains(&name.as_str()) || is_made {
                return Err(wrong("that is the name of something else in a lab".to_owned()));
            }
            if let Some(other) = names.insert(name, own.clone()) {
                return Err(wrong(format!("{other} has this name")));
            }
            for ip in address.iter() {
                if let Some(other) = addresses.insert(ip, own.clone()) {
                    return Err(wrong(format!("{ip} is that of {other} too")));
                }
            }
        }
    }
    Ok(())
}
