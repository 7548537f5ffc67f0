//! A topology as people write it: a file in YAML, of which JSON is a part, and options of `podlab up` over it.
//!
//! Keys that are not known are an error with line and column. What cannot be is refused before anything is made.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ipnetwork::{IpNetwork, Ipv4Network};
use kernel::Family;
use serde::de::value::MapAccessDeserializer;
use serde::{Deserialize, Deserializer, Serialize, de};

use super::forms::{self, Forms};
use super::{
    HostEntry, MOST_RACKS, Nodes, PORTS, SCHEMA, SMALL, Topology, hosts, outside_net, rack, rack_net, ranges,
};
use crate::exit::Failure;
use crate::kubectl::objects::CONTAINERS;
use crate::kubectl::{Kind, Wanted, serve, server};
use crate::labels::Labels;
use crate::modes::Selected;
use crate::services::model::{ServiceType, TrafficPolicy, Transport};
use crate::stack::{Each, IpFamily};
use crate::verify;

/// Most hosts outside: their addresses count up from .9.
const MOST_OUTSIDE: u32 = 50;
/// What the app's container may be called besides its own name.
const APP: &str = "app";

/// A topology as written. Keys that are not known are an error.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Written {
    /// [`SCHEMA`], if given.
    pub schema: Option<String>,
    /// The lab's name.
    pub name: Option<String>,
    /// How many nodes, or which.
    #[serde(deserialize_with = "some")]
    pub nodes: Option<Nodes>,
    /// The hosts outside.
    pub outside: Option<Vec<HostEntry>>,
    /// How many pods on each node.
    pub pods: Option<u32>,
    /// How many racks the nodes stand in, each a link with a router of its own.
    pub racks: Option<u32>,
    /// How packets get from node to node: `NAME` or `NAME:OPTION`.
    pub mode: Option<Selected>,
    /// Which IP versions the lab has.
    pub ip_family: Option<IpFamily>,
    /// All PodCIDRs, a network for each IP version.
    #[serde(rename = "podCIDR", deserialize_with = "networks")]
    pub pod_cidr: Option<Each<IpNetwork>>,
    /// The addresses of services.
    #[serde(rename = "serviceCIDR")]
    pub service_cidr: Option<Ipv4Network>,
    /// Plugins and network configuration.
    #[serde(deserialize_with = "cni")]
    pub cni: Cni,
    /// What the names of pods made by controllers follow from.
    pub seed: Option<u64>,
    /// Pods that controllers keep from the beginning. With any, `pods` is 0 unless given.
    pub workloads: Vec<Workload>,
    /// Services from the beginning.
    pub services: Vec<ServiceEntry>,
    /// The checks of a `podlab verify` that names none.
    pub verify: Vec<CheckEntry>,
}

/// A check as written: its name, or `{NAME: SERVICE}`, of which it is `NAME:SERVICE` on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckEntry(pub String);

impl Forms for CheckEntry {
    const FORMS: &'static str = "the name of a check, or {CHECK: SERVICE}";

    fn of_text<E: de::Error>(name: &str) -> Result<CheckEntry, E> {
        Ok(CheckEntry(name.to_owned()))
    }

    fn of_map<'de, A: de::MapAccess<'de>>(mut map: A) -> Result<CheckEntry, A::Error> {
        let none = || de::Error::custom(format!("expected {}", Self::FORMS));
        let (name, service) = map.next_entry::<String, String>()?.ok_or_else(none)?;
        match map.next_key::<String>()? {
            None => Ok(CheckEntry(format!("{name}:{service}"))),
            Some(other) => Err(de::Error::custom(format!("one check an entry, and not {other:?} too"))),
        }
    }
}

impl<'de> Deserialize<'de> for CheckEntry {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<CheckEntry, D::Error> {
        forms::read(d)
    }
}

/// `builtin`, which is what there is where nothing is said, or plugins and network configuration.
struct CniEntry(Cni);

impl Forms for CniEntry {
    const FORMS: &'static str = "builtin, or dir, conf and ipMasq";

    fn of_text<E: de::Error>(word: &str) -> Result<CniEntry, E> {
        match word {
            "builtin" => Ok(CniEntry(Cni::default())),
            other => Err(E::custom(format!("{other:?}: expected {}", Self::FORMS))),
        }
    }

    fn of_map<'de, A: de::MapAccess<'de>>(map: A) -> Result<CniEntry, A::Error> {
        Cni::deserialize(MapAccessDeserializer::new(map)).map(CniEntry)
    }
}

fn cni<'de, D: Deserializer<'de>>(d: D) -> Result<Cni, D::Error> {
    forms::read(d).map(|CniEntry(cni)| cni)
}

/// What is there, without the detour by which an error would lose its column.
fn some<'de, T: Deserialize<'de>, D: Deserializer<'de>>(d: D) -> Result<Option<T>, D::Error> {
    T::deserialize(d).map(Some)
}

/// One network, two with a comma between, or a list of them.
pub(super) fn networks<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Each<IpNetwork>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Text(String),
        List(Vec<String>),
    }
    let text = match Form::deserialize(d)? {
        Form::Text(text) => text,
        Form::List(list) => list.join(","),
    };
    text.parse().map(Some).map_err(de::Error::custom)
}

/// Plugins and network configuration.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Cni {
    /// Where the CNI plugins are; a relative path is relative to the file.
    pub dir: Option<OneOrMany>,
    /// The network configuration of each node, a file; a relative path is relative to this one.
    pub conf: Option<PathBuf>,
    /// `ipMasq` of the bridge: rewrites the source of what leaves a node.
    pub ip_masq: Option<bool>,
}

/// A path or a list of paths.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    /// One.
    One(PathBuf),
    /// Several, in the order in which they are searched.
    Many(Vec<PathBuf>),
}

impl OneOrMany {
    fn into_vec(self) -> Vec<PathBuf> {
        match self {
            Self::One(path) => vec![path],
            Self::Many(paths) => paths,
        }
    }
}

/// Pods that a controller keeps, as by `podlab kubectl run --replicas`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Workload {
    /// The controller's name, with which its pods' names begin.
    pub name: String,
    /// How many pods.
    #[serde(default = "one")]
    pub replicas: u32,
    /// What runs in them.
    #[serde(default)]
    pub app: App,
    /// The port that the app is declared to have.
    #[serde(default)]
    pub port: Port,
    /// The pods' labels; empty means `run=NAME`.
    #[serde(default)]
    pub labels: Labels,
    /// The names of the two containers of each pod, the app's first; none are [`CONTAINERS`].
    #[serde(default)]
    pub containers: Option<[String; 2]>,
}

fn one() -> u32 {
    1
}

/// What runs in a pod. There are no images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum App {
    /// The HTTP server on port 8080 that tells its host name.
    #[default]
    Kubia,
}

/// A port, 8080 where none is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port(pub u16);

impl Default for Port {
    fn default() -> Self {
        Self(crate::kubia::PORT)
    }
}

/// A service, as by `podlab kubectl expose`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ServiceEntry {
    /// Its name.
    pub name: String,
    /// How it is reached.
    #[serde(default, rename = "type")]
    pub kind: ServiceType,
    /// Which pods; every type but ExternalName needs it.
    #[serde(default)]
    pub selector: Labels,
    /// The port that clients ask for.
    #[serde(default)]
    pub port: Port,
    /// The port of the pods; none means the same.
    pub target_port: Option<u16>,
    /// The port of the nodes; none means a free one.
    pub node_port: Option<u16>,
    /// Its protocol.
    #[serde(default)]
    pub protocol: Transport,
    /// Its address inside the cluster; none means a free one.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Option<Ipv4Addr>,
    /// Its address outside; none means a free one.
    #[serde(rename = "loadBalancerIP")]
    pub balancer: Option<Ipv4Addr>,
    /// What it is a name for.
    pub external_name: Option<String>,
    /// Whether one client stays with one pod.
    #[serde(default)]
    pub session_affinity: Affinity,
    /// Who serves what comes from outside.
    #[serde(default)]
    pub external_traffic_policy: TrafficPolicy,
}

/// Whether one client stays with one pod.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Affinity {
    /// Each connection goes to the next pod.
    #[default]
    None,
    /// It does.
    ClientIP,
}

impl ServiceEntry {
    /// The same as an order of `podlab kubectl`.
    pub fn wanted(&self) -> Wanted {
        Wanted {
            from: None,
            kind: self.kind,
            port: Some(self.port.0),
            target_port: self.target_port,
            node_port: self.node_port,
            protocol: self.protocol,
            selector: Some(self.selector.clone()),
            cluster_ip: self.cluster_ip,
            balancer: self.balancer,
            external_name: self.external_name.clone(),
            has_affinity: self.session_affinity == Affinity::ClientIP,
        }
    }
}

impl Written {
    /// Reads a topology file.
    ///
    /// # Errors
    /// What is not a topology, with line and column.
    pub fn parse(text: &str, from: &str) -> Result<Self, Failure> {
        let refused = |words: &str| Failure::usage(format!("topology {from}: {words}"));
        if text.trim().is_empty() {
            return Err(refused("there is nothing in it · try: podlab schema topology"));
        }
        // The parser's own hint is for programmers who call it.
        let words = |err: serde_saphyr::Error| {
            let words = err.without_snippet().to_string();
            words.replace(", set DuplicateKeyPolicy in Options if acceptable", "")
        };
        let written: Self = serde_saphyr::from_str(text).map_err(|err| refused(&words(err)))?;
        match &written.schema {
            Some(schema) if schema != SCHEMA => {
                Err(refused(&format!("schema is {schema:?}, this podlab reads {SCHEMA:?}")))
            }
            _ => Ok(written),
        }
    }

    /// Takes relative paths as relative to `dir`, where the file is.
    #[must_use]
    pub fn relative_to(mut self, dir: &Path) -> Self {
        self.cni.conf = self.cni.conf.map(|path| dir.join(path));
        let joined = |dirs: OneOrMany| dirs.into_vec().iter().map(|path| dir.join(path)).collect();
        self.cni.dir = self.cni.dir.map(|dirs| OneOrMany::Many(joined(dirs)));
        self
    }

    /// The same with what `other` says instead, where it says something.
    #[must_use]
    pub fn overridden_by(self, other: Self) -> Self {
        fn either<T>(own: Vec<T>, other: Vec<T>) -> Vec<T> {
            if other.is_empty() { own } else { other }
        }
        Self {
            schema: self.schema,
            name: other.name.or(self.name),
            nodes: other.nodes.or(self.nodes),
            outside: other.outside.or(self.outside),
            pods: other.pods.or(self.pods),
            racks: other.racks.or(self.racks),
            mode: other.mode.or(self.mode),
            ip_family: other.ip_family.or(self.ip_family),
            pod_cidr: other.pod_cidr.or(self.pod_cidr),
            service_cidr: other.service_cidr.or(self.service_cidr),
            cni: Cni {
                dir: other.cni.dir.or(self.cni.dir),
                conf: other.cni.conf.or(self.cni.conf),
                ip_masq: other.cni.ip_masq.or(self.cni.ip_masq),
            },
            seed: other.seed.or(self.seed),
            workloads: either(self.workloads, other.workloads),
            services: either(self.services, other.services),
            verify: either(self.verify, other.verify),
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
        let pods = self.pods.unwrap_or(if self.workloads.is_empty() { 10 } else { 0 });
        let pods = within("pods on a node (a Linux bridge has 1023 ports)", pods, 0, PORTS)?;
        let listed = match self.nodes.unwrap_or(Nodes::Count(3)) {
            Nodes::Count(count) => Err(count),
            Nodes::Listed(nodes) => Ok(nodes),
        };
        let nodes = listed.as_ref().map_or_else(|count| *count, |nodes| nodes.len() as u32);
        let nodes = match pods {
            _ if pods <= SMALL => within("nodes", nodes, 1, 200)?,
            _ => within("nodes (with more than 250 pods on each, a PodCIDR is a /21)", nodes, 1, 31)?,
        };
        let listed = listed.unwrap_or_else(hosts::counted);
        let outside = self.outside.unwrap_or_else(hosts::only);
        within("hosts outside", outside.len() as u32, 1, MOST_OUTSIDE)?;
        let racks = within("racks", self.racks.unwrap_or(1), 1, nodes.min(MOST_RACKS))?;
        let ranges = ranges::resolve((self.ip_family, self.pod_cidr), self.service_cidr, (nodes, pods))?;
        let link = |index| rack_net(&ranges, racks, rack(index, nodes as usize, racks));
        let own = hosts::resolve("nodes", listed, link, 11)?;
        let outside = hosts::resolve("outside", outside, |_| outside_net(&ranges), 9)?;
        hosts::check(&own, &outside)?;
        let mode = self.mode.unwrap_or_default();
        let families: Vec<Family> = ranges.pods.families().collect();
        let cni_conf =
            network(&mode, self.cni.conf.as_deref(), self.cni.ip_masq.unwrap_or(false), &families)?;
        let cni_bin = self.cni.dir.map(OneOrMany::into_vec).unwrap_or_default();
        if let Some(dir) = cni_bin.iter().find(|dir| !dir.is_dir()) {
            return Err(Failure::usage(format!(
                "plugin directory {} is not there · try: podnet install {}",
                dir.display(),
                dir.display()
            )));
        }
        check_workloads(&self.workloads)?;
        if !self.services.is_empty() {
            serve::possible(&ranges, &mode)?;
        }
        check_services(&self.services, ranges.services)?;
        let verify = checks(self.verify, &self.services)?;
        let topology = Topology {
            name,
            nodes: own,
            outside,
            pods,
            racks,
            mode,
            cni_bin,
            cni_conf,
            ranges,
            seed: self.seed,
            workloads: self.workloads,
            services: self.services,
            verify,
        };
        let replicas: u64 = topology.workloads.iter().map(|workload| u64::from(workload.replicas)).sum();
        let room = u64::from(nodes) * (topology.most_pods() as u64 - u64::from(pods));
        if replicas > room {
            return Err(Failure::usage(format!(
                "workloads: {replicas} replicas, and room for {room} · try: more nodes"
            )));
        }
        mode.check(&topology)?;
        if mode.root(topology.node_name(0)).is_none() {
            cni::runtime::Network::parse(topology.network(0).as_bytes())
                .map_err(|err| Failure::usage(format!("network configuration: {err}")))?;
        }
        Ok(topology)
    }
}

pub(super) fn within(what: &str, value: u32, least: u32, most: u32) -> Result<u32, Failure> {
    match value {
        _ if (least..=most).contains(&value) => Ok(value),
        _ => Err(Failure::usage(format!("{what}: {value} is not from {least} to {most}"))),
    }
}

/// The network configuration: a file's, or the mode's own.
fn network(
    mode: &Selected,
    file: Option<&Path>,
    ip_masq: bool,
    families: &[Family],
) -> Result<String, Failure> {
    let Some(path) = file else { return mode.network(ip_masq, families) };
    if ip_masq {
        let words = "ipMasq goes with the built-in network configuration, not with a file";
        return Err(Failure::usage(words));
    }
    let wrong = |words: String| Failure::usage(format!("network configuration {}: {words}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|err| wrong(err.to_string()))?;
    if text.contains("_V6}") && !families.contains(&Family::V6) {
        return Err(wrong("it asks for IPv6, which the lab does not have · try: --ip-family dual".into()));
    }
    Ok(text)
}

fn check_workloads(workloads: &[Workload]) -> Result<(), Failure> {
    let mut seen = BTreeMap::new();
    for (index, workload) in workloads.iter().enumerate() {
        let wrong = |text: &str| Failure::usage(format!("workloads[{index}] {:?}: {text}", workload.name));
        server::check_name(Kind::ReplicationController, &workload.name).map_err(|err| wrong(&err.text))?;
        if seen.insert(&workload.name, index).is_some() {
            return Err(wrong("there is one of this name before it"));
        }
        if workload.port.0 == 0 {
            return Err(wrong("a port is 1 to 65535"));
        }
        if let Some([app, sidecar]) = &workload.containers {
            let is_app = [APP, CONTAINERS[0]].contains(&app.as_str());
            if !is_app || sidecar != CONTAINERS[1] {
                return Err(wrong(
                    "containers: a pod has an app, called app or kubia, and then a sidecar, called sidecar",
                ));
            }
        }
    }
    Ok(())
}

/// The checks by their own names; a service that one is of must be among the services.
fn checks(written: Vec<CheckEntry>, services: &[ServiceEntry]) -> Result<Vec<String>, Failure> {
    let names: Vec<String> = written.into_iter().map(|check| verify::full_name(&check.0)).collect();
    verify::known(&names)?;
    for name in &names {
        let of = name.split_once(':').map(|(_, service)| service);
        if let Some(of) = of.filter(|of| !services.iter().any(|service| service.name == *of)) {
            return Err(Failure::usage(format!("verify: {name}: there is no service {of:?} in the file")));
        }
    }
    Ok(names)
}

fn check_services(services: &[ServiceEntry], range: Ipv4Network) -> Result<(), Failure> {
    let mut others = Vec::new();
    for (index, service) in services.iter().enumerate() {
        let wrong = |text: &str| Failure::usage(format!("services[{index}] {:?}: {text}", service.name));
        if service.selector.is_empty() && service.kind != ServiceType::ExternalName {
            return Err(wrong("it needs a selector"));
        }
        serve::check(&service.name, &service.wanted(), &mut others, range).map_err(|err| wrong(&err.text))?;
    }
    Ok(())
}
