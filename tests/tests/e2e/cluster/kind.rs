//! A cluster as kind makes one that is to have no network of its own: whole machines, on which nothing is ours, and one
//! control plane at the router. Each has a network namespace, containerd, kubelet and kube-proxy, and the directories of
//! a node are its own; what the manifest brings is all the network that it gets.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use podnet_tests::kube::{self, Client, ControlPlane, Machine};
use podnet_tests::nodes::{Node, Nodes, wait_within};
use podnet_tests::{devices, plugins};
use serde_json::{Value, json};

use super::bed::left_behind;

/// Many programs have to come to an agreement.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);
const PROGRAMS: [&str; 4] = ["kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"];
/// The image that the manifest names.
const AGENT: &str = "localhost/podnet:0.1.0";
/// Where the API is.
const API: &str = "172.18.0.1:6443";
const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/podnet.yaml");
const DAEMONS: &str = "/apis/apps/v1/namespaces/kube-system/daemonsets/podnet";
const AGENTS: &str = "/api/v1/namespaces/kube-system/pods?labelSelector=app%3Dpodnet";

/// The directories that the manifest mounts, as they are on a node: over the machine's own, seen by it alone.
const DIRECTORIES: &str = "set -e
mkdir -p /run/etc /run/work
mount -t tmpfs tmpfs /opt
mount -t overlay -o lowerdir=/etc,upperdir=/run/etc,workdir=/run/work overlay /etc
mkdir -p /opt/cni/bin /etc/cni/net.d
mount --bind \"$1/opt/cni/bin\" /opt/cni/bin
mount --bind \"$1/etc/cni/net.d\" /etc/cni/net.d";

/// What a network may leave behind; the rules of kube-proxy and kubelet are their own.
const PICTURE: [&str; 6] = [
    "ip -o addr",
    "ip route show table all",
    "ip -6 route show table all",
    "ip rule",
    "ip -o link",
    "nft list tables inet",
];

pub(super) struct Kind {
    // Machines go first, then what they talk to.
    pub(super) machines: Vec<Machine>,
    pub(super) client: Client,
    pub(super) control: ControlPlane,
    pub(super) nodes: Nodes,
    /// The agent's image as a file.
    archive: PathBuf,
    /// Each node before there was a machine.
    before: Vec<Vec<String>>,
}

impl Kind {
    /// Machines in these racks, that have registered their Nodes and wait for a network. None where programs of Kubernetes
    /// are missing, which is reported.
    pub(super) fn start(racks: &[usize]) -> Result<Option<Kind>> {
        let Ok(assets) = kube::assets(&PROGRAMS) else {
            devices::report("PODNET_KUBE_ASSETS has no kubelet, controllers, scheduler and kube-proxy")?;
            return Ok(None);
        };
        let nodes = Nodes::new(racks)?;
        let mut control = ControlPlane::start(&nodes.outside, API.parse()?, &assets)?;
        control.start_controller_manager()?;
        control.start_scheduler()?;
        let archive = control.dir().join("podnet.tar");
        kube::write_programs(&archive, AGENT, &[&plugins::podnetd()?, &plugins::podnet()?])?;
        let client = control.client()?;
        let mut kind = Kind { machines: Vec::new(), client, control, nodes, archive, before: Vec::new() };
        for _ in racks {
            kind.boot()?;
        }
        for number in 0..racks.len() {
            kind.wait(&format!("n{number} waits for its network"), || {
                let (ready, node) = kind.is_ready(number)?;
                ensure!(
                    !ready && node["spec"]["podCIDRs"].as_array().is_some_and(|it| it.len() == 2),
                    "{node}"
                );
                Ok(())
            })?;
        }
        Ok(Some(kind))
    }

    /// Starts the machine of the first node that has none.
    pub(super) fn boot(&mut self) -> Result<()> {
        let number = self.machines.len();
        let node = &self.nodes.nodes[number];
        let [_, ipv6] = node.addresses();
        // The kernel has an IPv6 address in use a little after the link is up.
        let before = wait_within("a node has its addresses", PATIENCE, || {
            let picture = picture(node)?;
            ensure!(picture.iter().any(|it| it.contains(&format!("local {ipv6} dev eth0"))), "{picture:?}");
            Ok(picture)
        })?;
        self.before.truncate(number);
        self.before.push(before);
        let mut machine = Machine::start(node)?;
        machine.run(&["bash", "-c", DIRECTORIES, "directories", &node.root.to_string_lossy()])?;
        machine.import(&self.archive)?;
        machine.start_kubelet(&self.control, node)?;
        self.machines.push(machine);
        Ok(())
    }

    /// `kubectl apply -f deploy/podnet.yaml`; waits until every node is Ready, none before its configuration is there, and
    /// the DaemonSet's rollout is done.
    pub(super) fn install(&self) -> Result<()> {
        // As kubeadm leaves it, for a kube-proxy that is not there yet: the agent's only way to the API.
        let server = json!([{"name": "default", "cluster": {"server": format!("https://{API}")}}]);
        let kubeconfig = json!({"apiVersion": "v1", "kind": "Config", "clusters": server}).to_string();
        self.client.create(&json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kube-proxy", "namespace": "kube-system"},
            "data": {"config.conf": "", "kubeconfig.conf": kubeconfig},
        }))?;
        self.client.apply_file(MANIFEST.as_ref())?;
        self.wait("every node is ready", || {
            let mut waiting = Vec::new();
            for (number, node) in self.nodes.nodes.iter().enumerate() {
                // In this order: what is there when the node is ready was there before.
                let (ready, object) = self.is_ready(number)?;
                ensure!(!ready || conflist(node).exists(), "{}: ready without a configuration", node.name);
                if !ready {
                    waiting.push(format!("{}: {}", node.name, object["status"]["conditions"]));
                }
            }
            ensure!(waiting.is_empty(), "{}\n{}", waiting.join("\n"), self.agents()?);
            Ok(())
        })?;
        self.rolled_out()
    }

    /// Starts kube-proxy on every machine that has none.
    pub(super) fn start_proxies(&mut self) -> Result<()> {
        for machine in &mut self.machines {
            if !machine.has("kube-proxy") {
                machine.start_kube_proxy(&self.control)?;
            }
        }
        Ok(())
    }

    /// Waits until the DaemonSet has a ready pod on every machine.
    pub(super) fn rolled_out(&self) -> Result<()> {
        self.wait("the DaemonSet is ready", || {
            let set = self.client.get(DAEMONS)?;
            let ready = set["status"]["numberReady"].as_u64();
            ensure!(ready == Some(self.machines.len() as u64), "{}\n{}", set["status"], self.agents()?);
            Ok(())
        })
    }

    /// Takes the network off every node and sees that nothing of it is left there; pods are gone already.
    pub(super) fn take_off(&self) -> Result<()> {
        self.wait("the pods' addresses are free", || {
            for machine in &self.machines {
                let left = podnet_tests::world::reservations(&machine.path("/var/lib/cni/networks/podnet"))?;
                ensure!(left.is_empty(), "{left:?}");
            }
            Ok(())
        })?;
        self.client.delete(DAEMONS)?;
        self.wait("the agents' pods are gone", || {
            let pods = self.client.get(AGENTS)?;
            ensure!(pods["items"].as_array().is_some_and(Vec::is_empty), "{pods}");
            Ok(())
        })?;
        let podnetd = plugins::podnetd()?;
        for (number, node) in self.nodes.nodes.iter().enumerate() {
            let told = self.machines[number].run(&[&podnetd.to_string_lossy(), "uninstall"])?;
            ensure!(told.contains("05-podnet.conflist"), "{}: {told}", node.name);
            ensure!(!conflist(node).exists(), "{}: the configuration is left", node.name);
            let plugins = fs::read_dir(node.root.join("opt/cni/bin"))?.count();
            ensure!(plugins == 0, "{}: plugins are left: {told}", node.name);
            let left = left_behind(&self.before[number], &picture(node)?);
            ensure!(left.is_empty(), "{}: left behind: {left:#?}", node.name);
        }
        for number in 0..self.machines.len() {
            self.wait(&format!("n{number} is ready no more"), || {
                let (ready, node) = self.is_ready(number)?;
                ensure!(!ready, "{}", node["status"]["conditions"]);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Whether a node is Ready, and its object.
    pub(super) fn is_ready(&self, number: usize) -> Result<(bool, Value)> {
        let node = self.client.get(&format!("/api/v1/nodes/{}", self.nodes.nodes[number].name))?;
        Ok((kube::condition(&node, "Ready")["status"] == "True", node))
    }

    /// Waits until a Deployment of namespace `default` has so many ready pods.
    pub(super) fn deployed(&self, name: &str, replicas: u64) -> Result<()> {
        self.wait(&format!("{replicas} pods of {name} are ready"), || {
            let object = self.client.get(&format!("/apis/apps/v1/namespaces/default/deployments/{name}"))?;
            let status = &object["status"];
            ensure!(status["readyReplicas"].as_u64().unwrap_or_default() == replicas, "{status}");
            Ok(())
        })
    }

    /// Waits until a pod of namespace `default` is Ready, and gives its object.
    pub(super) fn pod(&self, name: &str) -> Result<Value> {
        self.wait(&format!("pod {name} is ready"), || {
            let pod = self.client.get(&format!("/api/v1/namespaces/default/pods/{name}"))?;
            ensure!(kube::condition(&pod, "Ready")["status"] == "True", "{}", pod["status"]);
            Ok(pod)
        })
    }

    /// Waits with patience; an error tells what the machines' programs wrote last.
    pub(super) fn wait<T>(&self, what: &str, done: impl FnMut() -> Result<T>) -> Result<T> {
        let waited = wait_within(what, PATIENCE, done);
        waited.with_context(|| self.machines.iter().map(Machine::last_words).collect::<Vec<_>>().join("\n"))
    }

    /// How the agents' pods are, for the error of who waits for them.
    pub(super) fn agents(&self) -> Result<String> {
        let pods = self.client.get(AGENTS)?;
        let of_pods = pods["items"].as_array().into_iter().flatten().map(|it| it["status"].to_string());
        Ok(of_pods.collect::<Vec<_>>().join("\n"))
    }

    /// The pod of the DaemonSet on a node.
    pub(super) fn agent(&self, number: usize) -> Result<Value> {
        let pods = self.client.get(AGENTS)?;
        let mut all = pods["items"].as_array().into_iter().flatten();
        let name = &self.nodes.nodes[number].name;
        all.find(|it| it["spec"]["nodeName"] == **name)
            .cloned()
            .with_context(|| format!("no agent on {name}"))
    }
}

/// The addresses of a pod or of a Node, IPv4 first, from the array of its object.
pub(super) fn both(addresses: &Value, key: &str) -> Result<[IpAddr; 2]> {
    let texts = addresses.as_array().into_iter().flatten().filter_map(|it| it[key].as_str());
    let all: Vec<IpAddr> = texts.filter_map(|it| it.parse().ok()).collect();
    let of = |ipv6| all.iter().copied().find(|it| it.is_ipv6() == ipv6);
    let missing = || format!("not an address of either version: {addresses}");
    Ok([of(false).with_context(missing)?, of(true).with_context(missing)?])
}

fn conflist(node: &Node) -> PathBuf {
    node.root.join("etc/cni/net.d/05-podnet.conflist")
}

fn picture(node: &Node) -> Result<Vec<String>> {
    PICTURE.iter().map(|it| node.output(it)).collect()
}
