//! Kubernetes: the lab makes nodes and wires and nothing of a pod network. A real etcd and kube-apiserver run at the fabric,
//! podnet's agent (podnetd, the program that stands beside podlab) runs on every node, and what is there of routes, tunnels,
//! masquerade, policies, plugins and network configuration is its work. Pods are made by the configuration that it has
//! written, as a container runtime does, and the API is told of them, as by scheduler and kubelet.
//!
//! ```text
//!  fabric: etcd, kube-apiserver at the fabric's address of the link to the world outside
//!  node1, node2, …: podnetd --root /run/podlab/kubernetes/NODE
//! ```
//! Nodes of one rack reach each other's pods by routes; between racks the routers know nothing of pods, and the agents pack
//! packets into VXLAN.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use apiserver::{Client, ControlPlane, Program};
use kernel::nft::{self, Table};
use kernel::{Family, Netns, Nfnl};
use serde_json::{Map, Value, json};

use super::{Ground, Mode, Routers, Siblings, Told, Tunnel, Wire};
use crate::cluster::{Node, PodMeta};
use crate::construct::netns_path;
use crate::plugins;
use crate::topology::{Topology, host};

/// What the API, its programs and the agents write; each node's root is a directory of it.
const STATE: &str = "/run/podlab/kubernetes";
/// The administrator's way to the API.
const KUBECONFIG: &str = "admin.kubeconfig";
const API_PORT: u16 = 6443;
/// The agent's rights, from the manifest that `kubectl apply` takes.
const MANIFEST: &str = include_str!("../../../deploy/podnet.yaml");
const RIGHTS: [&str; 3] = ["ServiceAccount", "ClusterRole", "ClusterRoleBinding"];
/// As whom the API knows the agent, and in which group.
const AGENT: (&str, &str) = ("system:serviceaccount:kube-system:podnet", "system:serviceaccounts");
/// The port of the agent's `/readyz`.
const STATUS_PORT: u16 = 10180;
/// The agent's tunnel: its number, its port, and its links, one for each IP version.
const VNI: u32 = 0x70_6f64;
const PORT: u16 = 4789;
const DEVICES: [&str; 2] = ["podnet-vxlan", "podnet-vxlan6"];
/// The agent's table of policies, and its maps from the addresses of a node's pods to what becomes of packets to them.
const POLICY: Table<'static> = Table::new(nft::Family::Inet, "podnet-policy");
const VERDICTS: [&str; 2] = ["ingress4", "ingress6"];
/// How long an agent may take over a pod.
const OPEN: Duration = Duration::from_secs(10);
/// How long all agents may take until they are ready.
const LIMIT: Duration = Duration::from_secs(180);
/// How often they are asked, and how long one may take to answer.
const PAUSE: Duration = Duration::from_millis(50);
const ANSWER: Duration = Duration::from_secs(5);
/// How much of an agent's last words an error repeats, in bytes.
const LAST_WORDS: usize = 2000;
/// What the lab's own pods have in the API, so that those of others are left alone.
const MARK: &str = "podlab.podnet/pod";

/// The mode.
pub(super) struct Kubernetes;
pub(super) const MODE: Kubernetes = Kubernetes;

impl Mode for Kubernetes {
    fn summary(&self) -> &'static str {
        "podnet's agent on every node makes the network, by a real kube-apiserver (of PODNET_KUBE_ASSETS)"
    }

    fn refuse(&self, topology: &Topology) -> Option<String> {
        let given =
            [("--cni-bin", topology.cni_bin.is_empty()), ("--cni-conf", topology.cni_conf.is_empty())];
        let (option, _) = given.into_iter().find(|(_, is_absent)| !is_absent)?;
        Some(format!("plugins and configuration are its agents' · try: without {option}"))
    }

    fn require(&self, _option: Option<&str>) -> Result<()> {
        plugins::beside("podnetd")?;
        apiserver::assets(&[]).map(drop)
    }

    fn network(&self, _option: Option<&str>, ip_masq: bool, _families: &[Family]) -> Option<String> {
        (!ip_masq).then(String::new)
    }

    fn root(&self, node: &str) -> Option<PathBuf> {
        Some(Path::new(STATE).join(node))
    }

    fn routers(&self, _option: Option<&str>, _topology: &Topology) -> Routers {
        Routers::FromOutside
    }

    fn prepare(&self, _option: Option<&str>, ground: &Ground<'_>) -> Result<()> {
        fs::create_dir_all(STATE).with_context(|| format!("create {STATE}"))?;
        let address = SocketAddr::new(host(ground.topology.outside_net().first, 1), API_PORT);
        let netns = &ground.fabric.netns;
        let control = ControlPlane::start_in(Path::new(STATE), netns, address, &apiserver::assets(&[])?)?;
        let client = control.client()?;
        rights(&client)?;
        for node in ground.nodes {
            let cidrs: Vec<String> = node.pod_cidr.iter().map(|it| it.to_string()).collect();
            let addresses: Vec<String> = node.address.iter().map(|it| it.to_string()).collect();
            client.create(&apiserver::node(&node.space.name, &cidrs, &addresses))?;
        }
        let names = |index: usize| (0..ground.topology.pods as usize).map(move |pod| (index, pod));
        let pods = (0..ground.nodes.len()).flat_map(names);
        let told = |(node, pod)| {
            let name = ground.topology.pod_name(node, pod);
            Told::to_come(&ground.nodes[node], name, &PodMeta::default())
        };
        follow(&client, &pods.map(told).collect::<Vec<_>>())?;
        let kubeconfig = control.kubeconfig(AGENT.0, Some(AGENT.1))?;
        for node in ground.nodes {
            start(node, &kubeconfig).with_context(|| format!("podnetd of {}", node.space.name))?;
        }
        // It ends with the capsule, as the agents do.
        std::mem::forget(control);
        let deadline = Instant::now() + LIMIT;
        ground.nodes.iter().try_for_each(|node| wait(node, deadline))
    }

    fn tell(&self, pods: &mut dyn Iterator<Item = Told>) -> Result<()> {
        let fabric = Netns::open(&netns_path("fabric"))?;
        let client = Client::new(&fabric, &Path::new(STATE).join(KUBECONFIG))?;
        let pods: Vec<Told> = pods.collect();
        follow(&client, &pods).with_context(|| format!("tell the API of pods (its log is in {STATE})"))?;
        wait_until_open(&pods)
    }

    fn siblings(&self) -> Siblings {
        Siblings::Routed
    }

    fn wire(&self, _option: Option<&str>, near: &Node, far: &Node, family: Family) -> Wire {
        match near.rack == far.rack {
            true => Wire::Plain,
            false => {
                let device = DEVICES[usize::from(family == Family::V6)];
                Wire::Tunnel(Tunnel { device, vni: VNI, port: PORT })
            }
        }
    }

    fn notes(&self) -> &'static [&'static str] {
        &[
            "the wires are never quiet: the agents watch the API and ask each other",
            "what is changed on a node is put right by its agent, also what a fault has changed",
        ]
    }
}

/// What the agent may ask of the API.
fn rights(client: &Client) -> Result<()> {
    let documents = serde_saphyr::from_multiple::<Value>(MANIFEST).context("read deploy/podnet.yaml")?;
    let is_of_rights = |it: &&Value| RIGHTS.iter().any(|kind| it["kind"] == *kind);
    for document in documents.iter().filter(is_of_rights) {
        client.apply(document)?;
    }
    // Without its service account no pod can be in it.
    client.create_namespace("default", &[])
}

/// Starts the agent of a node, below a root of its own.
fn start(node: &Node, kubeconfig: &Path) -> Result<()> {
    let root = Path::new(STATE).join(&node.space.name);
    fs::create_dir_all(&root).with_context(|| format!("create {}", root.display()))?;
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let plugin = plugins::beside("podnet")?;
    let arguments = [
        "run".to_owned(),
        format!("--node={}", node.space.name),
        format!("--root={}", text(&root)),
        format!("--plugin={}", text(&plugin)),
        format!("--kubeconfig={}", text(kubeconfig)),
    ];
    let agent = Program::start(&node.space.netns, &root, &plugins::beside("podnetd")?, &arguments)?;
    fs::write(root.join("podnetd.pid"), agent.pid().to_string())?;
    std::mem::forget(agent);
    Ok(())
}

/// Waits until the agent of a node says that its pods have their network.
fn wait(node: &Node, deadline: Instant) -> Result<()> {
    loop {
        let asked = node.space.netns.run(is_ready)?;
        let Err(why) = asked else { return Ok(()) };
        if Instant::now() > deadline {
            let log = Path::new(STATE).join(&node.space.name).join("podnetd.log");
            let said = fs::read_to_string(&log).unwrap_or_default();
            let last = said.char_indices().rev().map(|(at, _)| at).find(|at| said.len() - at > LAST_WORDS);
            bail!(
                "podnetd of {}: not ready after {} s: {why:#}; it said: {}",
                node.space.name,
                LIMIT.as_secs(),
                said[last.unwrap_or(0)..].trim()
            );
        }
        std::thread::sleep(PAUSE);
    }
}

fn is_ready() -> Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, STATUS_PORT));
    let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: podnetd\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200 "), "{}", answer.trim());
    Ok(())
}

/// What makes the API's pods those of the lab.
#[derive(Debug, Clone, PartialEq)]
enum Change {
    /// There is a pod of that name now, on its node.
    Create(Value),
    /// What of its object is to be other than it is.
    Patch { name: String, patch: Value },
    /// It has these addresses.
    Status { name: String, status: Value },
    /// It is gone.
    Delete(String),
}

/// From the lab's pods that the API has, and those that there are to be, to what has to change.
fn changes(there: &[Value], wanted: &[Told]) -> Vec<Change> {
    let name_of = |object: &Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let mut all = Vec::new();
    let names: BTreeSet<&str> = wanted.iter().map(|it| it.name.as_str()).collect();
    all.extend(there.iter().map(name_of).filter(|it| !names.contains(it.as_str())).map(Change::Delete));
    for pod in wanted {
        let known = there.iter().find(|it| name_of(it) == pod.name);
        match known {
            None => all.push(Change::Create(object(pod))),
            Some(known) => {
                let no_labels = Map::new();
                let old = known["metadata"]["labels"].as_object().unwrap_or(&no_labels);
                let gone = old.keys().filter(|key| !pod.labels.contains_key(*key));
                let gone = gone.map(|key| (key.clone(), Value::Null));
                let new = pod
                    .labels
                    .iter()
                    .filter(|(key, value)| old.get(*key).and_then(Value::as_str) != Some(value));
                let new = new.map(|(key, value)| (key.clone(), value.as_str().into()));
                let labels: Map<String, Value> = gone.chain(new).collect();
                if !labels.is_empty() {
                    let patch = json!({ "metadata": { "labels": labels } });
                    all.push(Change::Patch { name: pod.name.clone(), patch });
                }
            }
        }
        let ips: Vec<Value> = pod.addresses.iter().map(|ip| json!({ "ip": ip })).collect();
        let told = known.and_then(|it| it["status"]["podIPs"].as_array());
        if !ips.is_empty() && told != Some(&ips) {
            all.push(Change::Status { name: pod.name.clone(), status: running(pod, &ips) });
        }
    }
    all
}

fn object(pod: &Told) -> Value {
    let containers: Vec<Value> =
        pod.containers.iter().map(|name| json!({ "name": name, "image": pod.image })).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": pod.name, "namespace": "default", "labels": pod.labels,
            "annotations": { MARK: "made by the lab" },
        },
        "spec": { "nodeName": pod.node, "containers": containers },
    })
}

fn running(pod: &Told, ips: &[Value]) -> Value {
    let running = |name: &String| {
        json!({
            "name": name, "image": pod.image, "imageID": "", "ready": true, "restartCount": 0,
            "state": { "running": {} },
        })
    };
    let containers: Vec<Value> = pod.containers.iter().map(running).collect();
    let conditions = ["Initialized", "Ready", "ContainersReady", "PodScheduled"]
        .map(|kind| json!({ "type": kind, "status": "True" }));
    json!({
        "phase": "Running", "hostIP": pod.host, "podIP": ips.first().map(|it| it["ip"].clone()), "podIPs": ips,
        "conditions": conditions, "containerStatuses": containers,
    })
}

/// Makes the API's pods those of the lab.
fn follow(client: &Client, pods: &[Told]) -> Result<()> {
    const PODS: &str = "/api/v1/namespaces/default/pods";
    let list = client.get(PODS)?;
    let is_own = |object: &&Value| object["metadata"]["annotations"].get(MARK).is_some();
    let there: Vec<Value> = list["items"].as_array().into_iter().flatten().filter(is_own).cloned().collect();
    for change in changes(&there, pods) {
        match change {
            Change::Create(object) => client.create(&object),
            Change::Patch { name, patch } => client.patch(&format!("{PODS}/{name}"), &patch),
            Change::Status { name, status } => client.set_status(&format!("{PODS}/{name}"), &status),
            Change::Delete(name) => client.delete(&format!("{PODS}/{name}")),
        }?;
    }
    Ok(())
}

/// Waits until the agents have opened every pod: one that was slow lets an ADD succeed without, and the pod is closed until
/// then.
fn wait_until_open(pods: &[Told]) -> Result<()> {
    let deadline = Instant::now() + OPEN;
    while let Some(closed) = closed(pods)? {
        if Instant::now() > deadline {
            let (pod, node, seconds) = (&closed.name, &closed.node, OPEN.as_secs());
            bail!(
                "pod {pod} is closed: podnetd of {node} has not opened it after {seconds} s · look: {STATE}/{node}/podnetd.log"
            );
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// A pod that is there with an address for which its node's policies have no verdict.
fn closed(pods: &[Told]) -> Result<Option<&Told>> {
    let mut nodes: BTreeMap<&str, BTreeSet<Vec<u8>>> = BTreeMap::new();
    for pod in pods {
        let open = match nodes.entry(&pod.node) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(open_addresses(&pod.node)?),
        };
        if !pod.addresses.iter().all(|it| open.contains(&nft::ip_bytes(*it))) {
            return Ok(Some(pod));
        }
    }
    Ok(None)
}

fn open_addresses(node: &str) -> Result<BTreeSet<Vec<u8>>> {
    let mut nfnl = Nfnl::open_in(&Netns::open(&netns_path(node))?)?;
    let mut all = BTreeSet::new();
    for map in VERDICTS {
        let elements =
            nft::elements(&mut nfnl, POLICY, map).with_context(|| format!("policies of {node}"))?;
        all.extend(elements.into_iter().map(|it| it.key));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, addresses: &[&str]) -> Told {
        Told {
            name: name.into(),
            node: "node1".into(),
            host: [192, 0, 2, 11].into(),
            labels: [("app".to_owned(), "kubia".to_owned())].into(),
            addresses: addresses.iter().map(|it| it.parse().unwrap()).collect(),
            image: "kubia".into(),
            containers: ["kubia", "sidecar"].map(str::to_owned),
        }
    }

    #[test]
    fn the_api_is_told_of_pods_before_they_are_made_then_of_addresses_and_at_last_that_they_are_gone() {
        let mut to_come = changes(&[], &[pod("a", &[])]);
        let Some(Change::Create(mut known)) = to_come.pop() else { panic!("{to_come:?}") };
        assert_eq!((to_come.len(), &known["spec"]["nodeName"]), (0, &json!("node1")));
        assert_eq!(changes(std::slice::from_ref(&known), &[pod("a", &[])]), []);
        let told = changes(std::slice::from_ref(&known), &[pod("a", &["10.244.1.2", "fd00::2"])]);
        let [Change::Status { name, status }] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!((name.as_str(), &status["podIP"]), ("a", &json!("10.244.1.2")));
        known["status"] = status.clone();
        assert_eq!(changes(std::slice::from_ref(&known), &[pod("a", &["10.244.1.2", "fd00::2"])]), []);
        assert_eq!(changes(&[known], &[]), [Change::Delete("a".into())]);
    }

    #[test]
    fn labels_that_have_changed_are_told_and_those_that_are_gone_taken_away() {
        let known = object(&pod("a", &[]));
        let mut relabelled = pod("a", &[]);
        relabelled.labels = [("tier".to_owned(), "web".to_owned())].into();
        let patch = json!({ "metadata": { "labels": { "app": null, "tier": "web" } } });
        assert_eq!(changes(&[known], &[relabelled]), [Change::Patch { name: "a".into(), patch }]);
    }
}
