//! The topology: what a lab is to be, as written in a file or on the command line, made complete and
//! checked before anything is made. Names, addresses and MACs follow from it alone, so the same topology
//! gives the same lab every time.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use ipnetwork::Ipv4Network;
use kernel::Mac;
use serde::{Deserialize, Serialize};

use crate::exit::Failure;
use crate::modes::Selected;

/// The name that a topology file's `schema` must have.
pub const SCHEMA: &str = "podlab.topology/1";
/// Addresses of the wire between the nodes of a lab with one rack: .1 is the router, node n is .(10 + n).
pub const FABRIC: Ipv4Network = prefix(Ipv4Addr::new(192, 0, 2, 0), 24);
/// The world outside (RFC 5737, TEST-NET-3): .1 is the router, .9 the host.
pub const OUTSIDE: Ipv4Network = prefix(Ipv4Addr::new(203, 0, 113, 0), 24);
/// Most racks: their wires to the fabric share a /24 of /30s.
const MOST_RACKS: u32 = 60;

/// Ports of a Linux bridge (BR_MAX_PORTS, net/bridge/br_private.h, less port 0).
const PORTS: u32 = 1023;
/// Pods on a node that has a /24 for them.
const SMALL: u32 = 250;

/// A prefix that is known to be one.
pub(crate) const fn prefix(ip: Ipv4Addr, length: u8) -> Ipv4Network {
    match Ipv4Network::new_checked(ip, length) {
        Some(net) => net,
        None => panic!("a prefix"),
    }
}

/// A topology as written. Keys that are not known are an error.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Written {
    /// [`SCHEMA`], if given.
    pub schema: Option<String>,
    /// The lab's name.
    pub name: Option<String>,
    /// How many nodes.
    pub nodes: Option<u32>,
    /// How many pods on each node.
    pub pods: Option<u32>,
    /// How many racks the nodes stand in, each a link with a router of its own.
    pub racks: Option<u32>,
    /// How packets get from node to node: `NAME` or `NAME:OPTION`.
    pub mode: Option<Selected>,
    /// Where the CNI plugins are.
    pub cni_bin: Option<Vec<PathBuf>>,
    /// The network configuration of each node, a file.
    pub cni_conf: Option<PathBuf>,
    /// `ipMasq` of the bridge: rewrites the source of what leaves a node.
    pub ip_masq: Option<bool>,
    /// What the names of pods made by controllers follow from.
    pub seed: Option<u64>,
}

/// A complete, valid topology.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Topology {
    /// The lab's name.
    pub name: String,
    /// How many nodes, 1 to 200.
    pub nodes: u32,
    /// How many pods on each node, 0 to 1023.
    pub pods: u32,
    /// How many racks the nodes stand in, 1 to as many as nodes, at most 60.
    pub racks: u32,
    /// How packets get from node to node.
    pub mode: Selected,
    /// Where the CNI plugins are; empty: the podnet beside podlab.
    pub cni_bin: Vec<PathBuf>,
    /// The network configuration, with `${NODE}`, `${POD_CIDR}`, `${FIRST_POD}` and `${LAST_POD}` still in it.
    pub cni_conf: String,
    /// What the names of pods made by controllers follow from; none: they are those of the seed document.
    pub seed: Option<u64>,
}

impl Written {
    /// Reads a topology file.
    ///
    /// # Errors
    /// What is not a topology, with line and column.
    pub fn parse(text: &str, from: &str) -> Result<Self, Failure> {
        let written: Self =
            serde_json::from_str(text).map_err(|err| Failure::usage(format!("topology {from}: {err}")))?;
        match &written.schema {
            Some(schema) if schema != SCHEMA => Err(Failure::usage(format!(
                "topology {from}: schema is {schema:?}, this podlab reads {SCHEMA:?}"
            ))),
            _ => Ok(written),
        }
    }

    /// The same with what `other` says instead, where it says something.
    #[must_use]
    pub fn overridden_by(self, other: Self) -> Self {
        Self {
            schema: self.schema,
            name: other.name.or(self.name),
            nodes: other.nodes.or(self.nodes),
            pods: other.pods.or(self.pods),
            racks: other.racks.or(self.racks),
            mode: other.mode.or(self.mode),
            cni_bin: other.cni_bin.or(self.cni_bin),
            cni_conf: other.cni_conf.or(self.cni_conf),
            ip_masq: other.ip_masq.or(self.ip_masq),
            seed: other.seed.or(self.seed),
        }
    }

    /// Makes it complete and checks it; reads the network configuration's file.
    ///
    /// # Errors
    /// What cannot be, before anything was made.
    pub fn resolve(self) -> Result<Topology, Failure> {
        let name = self.name.unwrap_or_else(|| "demo".to_owned());
        let fine = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.';
        if name.is_empty() || name.len() > 60 || !name.chars().all(fine) {
            return Err(Failure::usage(format!(
                "lab name {name:?} must be 1 to 60 letters, digits, '-', '_' or '.'"
            )));
        }
        let within = |what: &str, value: u32, least: u32, most: u32| match value {
            _ if (least..=most).contains(&value) => Ok(value),
            _ => Err(Failure::usage(format!("{what}: {value} is not from {least} to {most}"))),
        };
        let pods =
            within("pods on a node (a Linux bridge has 1023 ports)", self.pods.unwrap_or(10), 0, PORTS)?;
        let nodes = self.nodes.unwrap_or(3);
        let nodes = match pods {
            _ if pods <= SMALL => within("nodes", nodes, 1, 200)?,
            _ => within("nodes (with more than 250 pods on each, a PodCIDR is a /21)", nodes, 1, 31)?,
        };
        let racks = within("racks", self.racks.unwrap_or(1), 1, nodes.min(MOST_RACKS))?;
        let mode = self.mode.unwrap_or_default();
        let cni_conf = match (&self.cni_conf, self.ip_masq.unwrap_or(false)) {
            (Some(_), true) => {
                return Err(Failure::usage(
                    "ipMasq goes with the built-in network configuration, not with a file",
                ));
            }
            (Some(path), false) => std::fs::read_to_string(path)
                .map_err(|err| Failure::usage(format!("network configuration {}: {err}", path.display())))?,
            (None, masq) => mode.network(masq)?,
        };
        for dir in self.cni_bin.iter().flatten() {
            if !dir.is_dir() {
                return Err(Failure::usage(format!(
                    "plugin directory {} is not there · try: podnet install {}",
                    dir.display(),
                    dir.display()
                )));
            }
        }
        let topology = Topology {
            name,
            nodes,
            pods,
            racks,
            mode,
            cni_bin: self.cni_bin.unwrap_or_default(),
            cni_conf,
            seed: self.seed,
        };
        mode.check(&topology)?;
        cni::runtime::Network::parse(topology.network(0).as_bytes())
            .map_err(|err| Failure::usage(format!("network configuration: {err}")))?;
        Ok(topology)
    }
}

impl Topology {
    /// The name of node `index` (from 0).
    pub fn node_name(index: usize) -> String {
        format!("node{}", index + 1)
    }

    /// The name of rack `rack` (from 0).
    pub fn rack_name(rack: usize) -> String {
        format!("rack{}", rack + 1)
    }

    /// The rack that node `index` stands in: neighbours share one, and no rack has two nodes more than another.
    pub fn rack(&self, index: usize) -> usize {
        index * self.racks as usize / self.nodes as usize
    }

    /// The addresses of a rack's link: .1 is the router, node n is .(10 + n).
    pub fn rack_net(&self, rack: usize) -> Ipv4Network {
        // RFC 2544's addresses, which are nobody's, for what is between routers and more than one link.
        if self.racks == 1 { FABRIC } else { prefix(Ipv4Addr::new(198, 18, rack as u8 + 1, 0), 24) }
    }

    /// The two addresses of the wire between the fabric and a rack: the fabric's, the rack's.
    pub fn rack_uplink(rack: usize) -> (Ipv4Network, Ipv4Network) {
        let end = |last: usize| prefix(Ipv4Addr::new(198, 18, 0, (4 * rack + last) as u8), 30);
        (end(1), end(2))
    }

    /// The address of node `index` on its rack's link.
    pub fn node_address(&self, index: usize) -> Ipv4Addr {
        host(self.rack_net(self.rack(index)), 11 + index as u8)
    }

    /// The PodCIDR of node `index`: a /24, or a /21 where a node has more pods than that has room for.
    pub fn pod_cidr(&self, index: usize) -> Ipv4Network {
        let number = 1 + index as u8;
        match self.pods <= SMALL {
            true => prefix(Ipv4Addr::new(10, 244, number, 0), 24),
            false => prefix(Ipv4Addr::new(10, 244, number * 8, 0), 21),
        }
    }

    /// How many pods a node's PodCIDR and bridge have room for.
    pub fn most_pods(&self) -> usize {
        if self.pods <= SMALL { SMALL as usize } else { PORTS as usize }
    }

    /// The name of pod `number` (from 0) of node `index`.
    pub fn pod_name(&self, index: usize, number: usize) -> String {
        format!("kubia-{}", index * self.pods as usize + number + 1)
    }

    /// The network configuration of node `index`.
    pub fn network(&self, index: usize) -> String {
        let first = u32::from(self.pod_cidr(index).network());
        let pods = |number: u32| Ipv4Addr::from(first + number);
        self.cni_conf
            .replace("${NODE}", &Self::node_name(index))
            .replace("${POD_CIDR}", &self.pod_cidr(index).to_string())
            .replace("${FIRST_POD}", &pods(2).to_string())
            .replace("${LAST_POD}", &pods(self.pod_cidr(index).size() - 2).to_string())
    }
}

/// The address of a /24 with that last number.
pub fn host(net: Ipv4Network, last: u8) -> Ipv4Addr {
    let [a, b, c, _] = net.ip().octets();
    Ipv4Addr::new(a, b, c, last)
}

/// The MAC of a wire's end: `02:`, what it belongs to, which one.
pub fn mac(kind: u8, index: usize) -> Mac {
    let [high, low] = (index as u16).to_be_bytes();
    Mac([0x02, 0x00, 0x00, kind, high, low])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_topology_is_the_demo() {
        let topology = Written::parse("{}", "-").unwrap().resolve().unwrap();
        assert_eq!((topology.name.as_str(), topology.nodes, topology.pods), ("demo", 3, 10));
        assert_eq!(topology.pod_name(1, 0), "kubia-11");
        assert_eq!(topology.node_address(2).to_string(), "192.0.2.13");
        assert_eq!(topology.pod_cidr(2).to_string(), "10.244.3.0/24");
        assert!(topology.network(1).contains("\"subnet\": \"10.244.2.0/24\""));
        assert!(topology.network(1).contains("/run/podlab/ipam/node2"));
        assert!(!topology.network(1).contains("ipMasq"));
    }

    #[test]
    fn racks_share_the_nodes_evenly_and_have_a_link_each() {
        let topology =
            Written::parse(r#"{"nodes":5,"racks":2,"mode":"vxlan:direct"}"#, "-").unwrap().resolve().unwrap();
        assert_eq!(
            (topology.mode.to_string().as_str(), topology.pod_cidr(4).to_string().as_str()),
            ("vxlan:direct", "10.244.5.0/24")
        );
        let racks: Vec<usize> = (0..5).map(|node| topology.rack(node)).collect();
        assert_eq!(racks, [0, 0, 0, 1, 1]);
        assert_eq!(topology.node_address(0).to_string(), "198.18.1.11");
        assert_eq!(topology.node_address(4).to_string(), "198.18.2.15");
        let (above, own) = Topology::rack_uplink(1);
        assert_eq!(
            (above.to_string().as_str(), own.to_string().as_str()),
            ("198.18.0.5/30", "198.18.0.6/30")
        );
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_key_and_the_limit() {
        for (text, words) in [
            (r#"{"nodes":0}"#, "nodes: 0 is not from 1 to 200"),
            (r#"{"nodes":201}"#, "nodes: 201 is not from 1 to 200"),
            (
                r#"{"pods":1024}"#,
                "pods on a node (a Linux bridge has 1023 ports): 1024 is not from 0 to 1023",
            ),
            (r#"{"pods":251,"nodes":32}"#, "32 is not from 1 to 31"),
            (r#"{"racks":0}"#, "racks: 0 is not from 1 to 3"),
            (r#"{"racks":4}"#, "racks: 4 is not from 1 to 3"),
            (r#"{"name":"a/b"}"#, "lab name \"a/b\""),
            (r#"{"name":""}"#, "lab name \"\""),
            (r#"{"cniBin":["/nowhere"]}"#, "plugin directory /nowhere is not there"),
            (r#"{"cniConf":"/nowhere"}"#, "network configuration /nowhere"),
            (r#"{"cniConf":"/dev/null"}"#, "network configuration"),
            (r#"{"cniConf":"/dev/null","ipMasq":true}"#, "ipMasq goes with the built-in"),
        ] {
            let failure = Written::parse(text, "-").unwrap().resolve().unwrap_err();
            assert!(failure.text.contains(words), "{text}: {}", failure.text);
            assert_eq!(failure.code, 2);
        }
    }

    #[test]
    fn unknown_keys_schemas_and_modes_are_refused_with_their_place() {
        for (text, words) in [
            ("{\n  \"node\": 3\n}", "unknown field `node`"),
            ("{\n  \"node\": 3\n}", "line 2"),
            (r#"{"schema":"podlab.topology/9"}"#, "this podlab reads"),
            (r#"{"mode":"teleport"}"#, "no mode \"teleport\""),
            ("nodes: 3", "topology x"),
        ] {
            assert!(Written::parse(text, "x").unwrap_err().text.contains(words), "{text}");
        }
    }

    #[test]
    fn a_node_full_of_pods_has_a_larger_prefix() {
        let full = Written::parse(r#"{"nodes":31,"pods":1023}"#, "-").unwrap().resolve().unwrap();
        assert_eq!(full.pod_cidr(0).to_string(), "10.244.8.0/21");
        assert_eq!(full.pod_cidr(30).to_string(), "10.244.248.0/21");
        // The bridge has an address of it too.
        assert!(full.pod_cidr(0).size() - 2 > PORTS);
        assert!(full.network(1).contains("\"subnet\": \"10.244.16.0/21\""));
    }

    #[test]
    fn the_command_line_wins_over_the_file() {
        let file = Written { nodes: Some(2), pods: Some(1), ..Written::default() };
        let line = Written { pods: Some(5), ..Written::default() };
        let both = file.overridden_by(line);
        assert_eq!((both.nodes, both.pods), (Some(2), Some(5)));
    }
}
