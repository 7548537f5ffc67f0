//! Modes: how packets get from a pod on one node to a pod on another.
//!
//! A mode is one file of this folder: what network configuration its pods get, what is set up on the nodes once the
//! fabric is there, and how packets then have to look. `build.rs` finds the files; no other place names one.
//! The checks of `verify` are the same in every mode; what differs is said here as data ([`Siblings`], [`Wire`]).

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Result;
use kernel::Family;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::cluster::{Node, Pod, PodMeta, Space};
use crate::exit::{self, Failure};
use crate::labels::Labels;
use crate::topology::Topology;

include!(concat!(env!("OUT_DIR"), "/modes.rs"));

/// What a mode takes where nothing is said.
const DEFAULT: &str = "routed";
/// The argument under which the binary is a mode's process; the mode's name follows.
pub const PROCESS: &str = "__mode";
/// The MTU of the fabric's wires, in bytes.
pub const WIRE_MTU: usize = 1500;

/// A way to run a pod network. The option is the word behind the colon of `--mode NAME:OPTION`, one of
/// [`Mode::options`].
pub trait Mode: Sync {
    /// What it does, in a few words.
    fn summary(&self) -> &'static str;

    /// The options, each with what it changes.
    fn options(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// Why the mode cannot be on this topology.
    fn refuse(&self, _topology: &Topology) -> Option<String> {
        None
    }

    /// Looks whether kernel and programs have what it needs, and makes nothing.
    ///
    /// # Errors
    /// What is lacking, and what to try.
    fn require(&self, _option: Option<&str>) -> Result<()> {
        Ok(())
    }

    /// The network configuration of a node's pods with addresses of these IP versions, in which the words of
    /// [`Topology::network`] are replaced; nothing where it is found on each node ([`Mode::root`]). None where it has no
    /// use for `ip_masq`.
    fn network(&self, option: Option<&str>, ip_masq: bool, families: &[Family]) -> Option<String>;

    /// Below which a node has plugins and network configurations of its own, in the directories that runtimes know. None:
    /// they are the lab's.
    fn root(&self, _node: &str) -> Option<PathBuf> {
        None
    }

    /// What the fabric's routers know of pods.
    fn routers(&self, option: Option<&str>, topology: &Topology) -> Routers;

    /// Sets the nodes up, after the fabric and before the first pod.
    ///
    /// # Errors
    /// What failed, where.
    fn prepare(&self, option: Option<&str>, ground: &Ground<'_>) -> Result<()>;

    /// Tells whoever has to know which pods there are: all of them, and with no address yet one that is about to be made.
    ///
    /// # Errors
    /// Who was not to be told, and why.
    fn tell(&self, _pods: &mut dyn Iterator<Item = Told>) -> Result<()> {
        Ok(())
    }

    /// Waits until what was set up works, after the last pod.
    ///
    /// # Errors
    /// What did not come about, where.
    fn settle(&self, _ground: &Ground<'_>) -> Result<()> {
        Ok(())
    }

    /// Runs as the mode's own process on a node, where it has one, until the lab ends.
    ///
    /// # Errors
    /// What failed, or that there is no such process.
    fn serve(&self) -> Result<()> {
        anyhow::bail!("this mode has no process")
    }

    /// What is between two pods of one node.
    fn siblings(&self) -> Siblings;

    /// The pods are on the node's own wire: no node routes for them.
    fn on_lan(&self) -> bool {
        false
    }

    /// How packets of pods of an IP version look between two nodes.
    fn wire(&self, option: Option<&str>, near: &Node, far: &Node, family: Family) -> Wire;

    /// What a person must know and no check can say, in sentences.
    fn notes(&self) -> &'static [&'static str] {
        &[]
    }
}

/// What is told of a pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// Its name.
    pub name: String,
    /// Its node's name.
    pub node: String,
    /// Its node's first address.
    pub host: IpAddr,
    /// Its labels.
    pub labels: Labels,
    /// Its addresses; none before it is made.
    pub addresses: Vec<IpAddr>,
    /// The image that was named.
    pub image: String,
    /// The names of its containers.
    pub containers: [String; 2],
}

impl Told {
    /// Of a pod that is about to be made on a node.
    pub fn to_come(node: &Node, name: String, meta: &PodMeta) -> Told {
        let PodMeta { labels, image, containers, .. } = meta.clone();
        let (host, node) = (node.address.first, node.space.name.clone());
        Told { name, node, host, labels, addresses: Vec::new(), image, containers }
    }

    /// Of a pod that is there.
    pub fn of(node: &Node, pod: &Pod) -> Told {
        let to_come = Told::to_come(node, pod.space.name.clone(), &pod.meta);
        Told { addresses: pod.addresses.clone(), ..to_come }
    }
}

/// What the fabric's routers know of pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Routers {
    /// A route to every PodCIDR, for whoever sends.
    Know,
    /// A route to every PodCIDR for packets from outside the cluster only.
    FromOutside,
    /// What the mode tells them.
    Told,
}

/// What is between two pods of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Siblings {
    /// A bridge: both MACs and the TTL stay.
    Switched,
    /// The node, as a router.
    Routed,
    /// The node's uplink, as a switch: it sees the frame coming in, and sends none.
    Direct,
}

/// How packets of pods look between two nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wire {
    /// As the pod made them.
    Plain,
    /// Whole, in a datagram from node to node.
    Tunnel(Tunnel),
    /// Encrypted from node to node.
    Sealed {
        /// The link of the nodes that does it; None where the kernel does it without one.
        device: Option<&'static str>,
        /// The addresses of the near and the far node between which it is seen.
        ends: [IpAddr; 2],
    },
}

/// A packet in a packet, readable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// The node's link that packs and unpacks.
    pub device: &'static str,
    /// The network's number.
    pub vni: u32,
    /// The UDP port.
    pub port: u16,
}

/// The fabric and the nodes, before there are pods.
#[derive(Debug, Clone, Copy)]
pub struct Ground<'c> {
    /// What the lab is to be.
    pub topology: &'c Topology,
    /// The router to the world outside, with one rack also the switch of the nodes.
    pub fabric: &'c Space,
    /// The racks, each a switch and a router; empty when there is one only.
    pub racks: &'c [Space],
    /// The nodes.
    pub nodes: &'c [Node],
}

/// A mode that was chosen, with its option. Written `vxlan` or `vxlan:direct`.
#[derive(Clone, Copy)]
pub struct Selected {
    name: &'static str,
    mode: &'static dyn Mode,
    option: Option<&'static str>,
}

impl Selected {
    /// The mode's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// As [`Mode::refuse`], as wrong usage.
    ///
    /// # Errors
    /// Why it cannot be.
    pub fn check(&self, topology: &Topology) -> Result<(), Failure> {
        match self.mode.refuse(topology) {
            Some(why) => Err(Failure::usage(format!("mode {self}: {why}"))),
            None => Ok(()),
        }
    }

    /// As [`Mode::require`].
    ///
    /// # Errors
    /// What is lacking, with the exit code for that.
    pub fn require(&self) -> Result<(), Failure> {
        let lacking = |err| Failure::new(exit::LACKING, format!("mode {self}: {err:#} · podlab doctor"));
        self.mode.require(self.option).map_err(lacking)
    }

    /// As [`Mode::network`].
    ///
    /// # Errors
    /// The mode has no use for `ip_masq`.
    pub fn network(&self, ip_masq: bool, families: &[Family]) -> Result<String, Failure> {
        let why = match self.on_lan() {
            true => "no node routes for its pods",
            false => "its nodes' agents say what is masqueraded",
        };
        let without = || Failure::usage(format!("mode {self} has no ipMasq: {why}"));
        self.mode.network(self.option, ip_masq, families).ok_or_else(without)
    }

    /// As [`Mode::root`].
    pub fn root(&self, node: &str) -> Option<PathBuf> {
        self.mode.root(node)
    }

    /// As [`Mode::tell`].
    ///
    /// # Errors
    /// Who was not to be told, and why.
    pub fn tell(&self, pods: &mut dyn Iterator<Item = Told>) -> Result<()> {
        self.mode.tell(pods)
    }

    /// As [`Mode::routers`].
    pub fn routers(&self, topology: &Topology) -> Routers {
        self.mode.routers(self.option, topology)
    }

    /// As [`Mode::prepare`].
    ///
    /// # Errors
    /// What failed, where.
    pub fn prepare(&self, ground: &Ground<'_>) -> Result<()> {
        self.mode.prepare(self.option, ground)
    }

    /// As [`Mode::settle`].
    ///
    /// # Errors
    /// What did not come about, where.
    pub fn settle(&self, ground: &Ground<'_>) -> Result<()> {
        self.mode.settle(ground)
    }

    /// As [`Mode::siblings`].
    pub fn siblings(&self) -> Siblings {
        self.mode.siblings()
    }

    /// As [`Mode::on_lan`].
    pub fn on_lan(&self) -> bool {
        self.mode.on_lan()
    }

    /// As [`Mode::wire`].
    pub fn wire(&self, near: &Node, far: &Node, family: Family) -> Wire {
        self.mode.wire(self.option, near, far, family)
    }

    /// As [`Mode::notes`].
    pub fn notes(&self) -> &'static [&'static str] {
        self.mode.notes()
    }
}

impl Default for Selected {
    fn default() -> Selected {
        let (name, mode) = ALL.iter().find(|(name, _)| *name == DEFAULT).unwrap_or(&ALL[0]);
        Selected { name, mode: *mode, option: None }
    }
}

impl fmt::Display for Selected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        self.option.map_or(Ok(()), |option| write!(f, ":{option}"))
    }
}

impl fmt::Debug for Selected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PartialEq for Selected {
    fn eq(&self, other: &Selected) -> bool {
        (self.name, self.option) == (other.name, other.option)
    }
}

impl FromStr for Selected {
    type Err = String;

    fn from_str(text: &str) -> Result<Selected, String> {
        let (wanted, option) =
            text.split_once(':').map_or((text, None), |(name, option)| (name, Some(option)));
        if LEFT_OUT.contains(&wanted) {
            return Err(format!(
                "this podlab was built without mode {wanted} · try: cargo build --release --package podlab"
            ));
        }
        let Some((name, mode)) = ALL.iter().find(|(name, _)| *name == wanted) else {
            return Err(format!(
                "no mode {wanted:?} · there are: {}",
                names().collect::<Vec<_>>().join(", ")
            ));
        };
        let options = || mode.options().iter().map(|(option, _)| *option);
        let known = |wanted| {
            options().find(|option| *option == wanted).ok_or_else(|| match mode.options() {
                [] => format!("mode {name} has no options"),
                _ => format!(
                    "mode {name} has no option {wanted:?} · there are: {}",
                    options().collect::<Vec<_>>().join(", ")
                ),
            })
        };
        Ok(Selected { name, mode: *mode, option: option.map(known).transpose()? })
    }
}

impl Serialize for Selected {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Selected {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Selected, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

/// The names of all modes, sorted.
pub fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|(name, _)| *name)
}

/// What `--mode` can be, a line for each mode and option.
pub fn help() -> String {
    let mut text = format!("How packets get from node to node [default: {DEFAULT}]:");
    for (name, mode) in ALL {
        text += &format!("\n  {name}: {}", mode.summary());
        for (option, meaning) in mode.options() {
            text += &format!("\n  {name}:{option}: {meaning}");
        }
    }
    text
}

/// Runs as the process of the mode of that name until the lab ends; returns the exit code.
pub fn run(name: &str) -> u8 {
    let Some((_, mode)) = ALL.iter().find(|(own, _)| *own == name) else { return exit::BUG };
    match mode.serve() {
        Ok(()) => exit::OK,
        Err(err) => {
            eprintln!("error: mode {name}: {err:#}");
            exit::FAILED
        }
    }
}

/// Each mode with what kernel and programs lack for it.
pub fn examine() -> impl Iterator<Item = (&'static str, &'static str, Option<String>)> {
    ALL.iter()
        .map(|(name, mode)| (*name, mode.summary(), mode.require(None).err().map(|err| format!("{err:#}"))))
}

/// The network configuration of pods behind a bridge or a routed pair of the node: host-local on the node's PodCIDR,
/// with `keys` of the plugin `kind` before it.
fn network(kind: &str, keys: &[String], ipam: &str) -> String {
    let keys: String = keys.iter().map(|key| format!("\n      {key},")).collect();
    format!(
        r#"{{
  "cniVersion": "1.0.0",
  "name": "podlab",
  "plugins": [
    {{
      "type": "{kind}",{keys}
      "ipam": {{
        "type": "host-local",
        "dataDir": "/run/podlab/ipam/${{NODE}}",
        {ipam}
      }}
    }}
  ]
}}
"#
    )
}

/// As [`network`], of a bridge with a default gateway; an MTU where it is not the wire's.
fn bridge(ip_masq: bool, mtu: Option<usize>, families: &[Family]) -> String {
    let mut keys = vec![r#""bridge": "cni0""#.to_owned(), r#""isDefaultGateway": true"#.to_owned()];
    keys.push(MAC.to_owned());
    // A pod may reach itself by a service.
    keys.push(r#""hairpinMode": true"#.to_owned());
    keys.extend(ip_masq.then(|| r#""ipMasq": true"#.to_owned()));
    keys.extend(mtu.map(|mtu| format!(r#""mtu": {mtu}"#)));
    network("bridge", &keys, &pod_ranges(families))
}

/// The key by which a plugin takes the MAC that the lab has for a pod.
const MAC: &str = r#""capabilities": { "mac": true }"#;

/// host-local's key for addresses of the node's PodCIDRs.
fn pod_ranges(families: &[Family]) -> String {
    ranges(families, |suffix| format!(r#"[{{ "subnet": "${{POD_CIDR{suffix}}}" }}]"#))
}

/// host-local's key for ranges: `set` makes that of an IP version, by what its words end with.
fn ranges(families: &[Family], set: impl Fn(&str) -> String) -> String {
    let sets: Vec<String> = families.iter().map(|family| set(suffix(families, *family))).collect();
    format!(r#""ranges": [{}]"#, sets.join(", "))
}

/// The words of the first version have no ending.
fn suffix(families: &[Family], family: Family) -> &'static str {
    if family == Family::V6 && families.len() > 1 { "_V6" } else { "" }
}

/// host-local's key for default routes.
fn default_routes(families: &[Family]) -> String {
    let route = |family: &Family| format!(r#"{{ "dst": "{}" }}"#, family.any());
    format!(r#""routes": [{}]"#, families.iter().map(route).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_file_of_the_folder_is_a_mode_and_every_mode_a_file() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/modes");
        let files: BTreeSet<String> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter_map(|name| name.strip_suffix(".rs").map(str::to_owned))
            .filter(|name| name != "mod")
            .collect();
        assert_eq!(names().map(str::to_owned).collect::<BTreeSet<_>>(), files);
        assert!(files.len() >= 6, "{files:?}");
        for name in names() {
            assert_eq!(name.parse::<Selected>().unwrap().to_string(), name);
            assert!(help().contains(&format!("\n  {name}: ")), "{}", help());
        }
    }

    #[test]
    fn a_mode_is_read_with_its_option_and_refused_by_name() {
        let direct: Selected = "vxlan:direct".parse().unwrap();
        assert_eq!((direct.name(), direct.to_string().as_str()), ("vxlan", "vxlan:direct"));
        for (text, words) in [
            ("teleport", "no mode \"teleport\" · there are: bgp, "),
            ("vxlan:fast", "mode vxlan has no option \"fast\" · there are: direct"),
            ("ptp:x", "mode ptp has no options"),
            ("", "no mode \"\""),
        ] {
            assert!(text.parse::<Selected>().unwrap_err().contains(words), "{text}");
        }
    }

    #[test]
    fn every_network_configuration_is_one() {
        for (name, mode) in ALL {
            let all: [&[Family]; 3] = [&[Family::V4], &[Family::V6], &[Family::V4, Family::V6]];
            for (masq, families) in [false, true].into_iter().flat_map(|masq| all.map(|it| (masq, it))) {
                let Some(text) = mode.network(None, masq, families) else { continue };
                // Then it is found on the nodes.
                assert_eq!(text.is_empty(), mode.root("node1").is_some(), "{name}");
                if text.is_empty() {
                    continue;
                }
                assert_eq!(text.contains("_V6}"), families.len() == 2, "{name}: {text}");
                assert!(cni::runtime::Network::parse(text.as_bytes()).is_ok(), "{name}: {text}");
                assert_eq!(text.contains("ipMasq"), masq, "{name}: {text}");
            }
        }
    }
}
