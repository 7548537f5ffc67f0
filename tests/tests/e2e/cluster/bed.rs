//! A cluster for the tests of the agent: nodes, a control plane with the manifest's own roles, an agent on each node
//! with the rights of its service account and no more.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use podnet_tests::kube::{self, Client, ControlPlane};
use podnet_tests::nodes::{ECHO, Echo, Nodes, Pod, Running, wait_until};
use podnet_tests::plugins;
use serde_json::{Map, Value, json};

/// The manifest that `kubectl apply` takes.
const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/podnet.yaml");

pub(super) struct Cluster {
    // Agents go first, then what they talk to.
    pub(super) agents: Vec<Running>,
    pub(super) client: Client,
    pub(super) control: ControlPlane,
    pub(super) nodes: Nodes,
    kubeconfig: PathBuf,
    families: (bool, bool),
}

impl Cluster {
    /// Nodes in these racks, of these IP versions (IPv4, IPv6), each with an agent that is ready.
    pub(super) fn start(racks: &[usize], families: (bool, bool)) -> Result<Cluster> {
        let mut cluster = Cluster::without_agents(racks, families)?;
        cluster.start_agents()?;
        cluster.ready()?;
        Ok(cluster)
    }

    /// The same without agents; the Nodes are in the API.
    pub(super) fn without_agents(racks: &[usize], families: (bool, bool)) -> Result<Cluster> {
        let nodes = Nodes::new(racks)?;
        let machine = nodes.machine(2)?;
        let address = SocketAddr::new(Ipv4Addr::new(172, 18, 0, 2).into(), 6443);
        let control = ControlPlane::start(&machine, address, &kube::assets(&["kube-apiserver"])?)?;
        let client = control.client()?;
        // What needs controllers (the DaemonSet) is of no use here, but the API server takes it.
        client.apply_file(MANIFEST.as_ref())?;
        for node in &nodes.nodes {
            client.create(&node.object(families.0, families.1))?;
        }
        let kubeconfig = control.kubeconfig_of_account("kube-system", "podnet")?;
        Ok(Cluster { agents: Vec::new(), client, control, nodes, kubeconfig, families })
    }

    /// Starts an agent on each node, without waiting for them.
    pub(super) fn start_agents(&mut self) -> Result<()> {
        self.agents = (0..self.nodes.nodes.len()).map(|number| self.agent(number)).collect::<Result<_>>()?;
        Ok(())
    }

    /// Runs another verb of podnetd on a node; gives what it prints.
    pub(super) fn podnetd(&self, number: usize, arguments: &[&str]) -> Result<String> {
        let node = &self.nodes.nodes[number];
        let mut command = Command::new(plugins::podnetd()?);
        command.env_clear().env("NODE_NAME", &node.name).env("PODNETD_ROOT", &node.root).args(arguments);
        let output = node.run(|| command.output())?.context("start podnetd")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "podnetd {}: {}\n{text}{errors}",
            arguments.join(" "),
            output.status
        );
        Ok(text)
    }

    /// One node more, with its agent.
    pub(super) fn join(&mut self, rack: usize) -> Result<()> {
        let number = self.nodes.join(rack)?.number;
        self.client.create(&self.nodes.nodes[number].object(self.families.0, self.families.1))?;
        let agent = self.agent(number)?;
        self.agents.push(agent);
        Ok(())
    }

    /// Starts the agent of a node.
    pub(super) fn agent(&self, number: usize) -> Result<Running> {
        self.agent_through(number, &[])
    }

    /// As [`Cluster::agent`], by a program that runs it in its own place; the program is found on PATH.
    pub(super) fn agent_through(&self, number: usize, by: &[&str]) -> Result<Running> {
        let node = &self.nodes.nodes[number];
        let podnetd = plugins::podnetd()?;
        let mut command = match by {
            [] => Command::new(podnetd),
            [program, arguments @ ..] => {
                let mut command = Command::new(program);
                command.args(arguments).arg(podnetd);
                command
            }
        };
        command.env_clear().env("NODE_NAME", &node.name);
        command.envs(std::env::var_os("PATH").map(|it| ("PATH", it)));
        command.arg("run").arg("--root").arg(&node.root);
        command.arg("--plugin").arg(plugins::podnet()?).arg("--kubeconfig").arg(&self.kubeconfig);
        Running::start(&node.netns, &mut command, &node.root.join("podnetd.log"))
    }

    /// Waits until every agent says that it is ready.
    pub(super) fn ready(&self) -> Result<()> {
        for (node, agent) in self.nodes.nodes.iter().zip(&self.agents) {
            wait_until(&format!("node {} ready", node.name), || {
                let (code, text) = node.ask_agent("/readyz")?;
                ensure!(code == 200, "{text}\n{}", agent.log());
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Makes a pod on a node and tells the API of it, as a kubelet does: the object first, its addresses after ADD.
    pub(super) fn pod(
        &self,
        number: usize,
        namespace: &str,
        name: &str,
        labels: &[(&str, &str)],
    ) -> Result<Served> {
        self.pod_with(number, namespace, name, labels, Map::new())
    }

    /// The same with what a runtime gives for capabilities, such as port mappings.
    pub(super) fn pod_with(
        &self,
        number: usize,
        namespace: &str,
        name: &str,
        labels: &[(&str, &str)],
        capabilities: Map<String, Value>,
    ) -> Result<Served> {
        let node = &self.nodes.nodes[number];
        self.client.create_namespace(namespace, &[])?;
        let labels: std::collections::BTreeMap<_, _> = labels.iter().copied().collect();
        let object = self.client.create(&json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "spec": {"nodeName": node.name, "containers": [
                {"name": "it", "image": "it", "ports": [{"name": "echo", "containerPort": ECHO}]},
            ]},
        }))?;
        let uid = object["metadata"]["uid"].as_str();
        let pod = node.add_pod_with(namespace, name, uid, capabilities)?;
        let ips: Vec<Value> = pod.ips.iter().map(|ip| json!({ "ip": ip })).collect();
        self.client.set_status(
            &format!("/api/v1/namespaces/{namespace}/pods/{name}"),
            &json!({"phase": "Running", "podIP": pod.ips[0], "podIPs": ips}),
        )?;
        let echo = Echo::start(&pod.netns)?;
        Ok(Served { _echo: echo, pod, node: number })
    }

    /// The Node object of the API.
    pub(super) fn node(&self, number: usize) -> Result<Value> {
        self.client.get(&format!("/api/v1/nodes/{}", self.nodes.nodes[number].name))
    }

    /// What the agent of a node says of itself.
    pub(super) fn status(&self, number: usize) -> Result<Value> {
        let (_, text) = self.nodes.nodes[number].ask_agent("/status")?;
        serde_json::from_str(&text).with_context(|| text)
    }
}

/// A pod in which an [`Echo`] answers.
pub(super) struct Served {
    _echo: Echo,
    pub(super) pod: Pod,
    pub(super) node: usize,
}

impl Served {
    pub(super) fn ip(&self, ipv6: bool) -> Result<IpAddr> {
        let found = self.pod.ips.iter().copied().find(|it| it.is_ipv6() == ipv6);
        found.with_context(|| format!("{}/{} has {:?}", self.pod.namespace, self.pod.name, self.pod.ips))
    }
}

/// The lines that the second pictures have and the first do not; without addresses of one link (fe80::/10) and groups,
/// which the kernel gives a link on its own and in its own time.
pub(super) fn left_behind(before: &[String], after: &[String]) -> Vec<String> {
    let lines = |text: &str| -> BTreeSet<String> {
        text.lines()
            .filter(|it| !it.contains("fe80::") && !it.contains("ff00::/8"))
            .map(str::to_owned)
            .collect()
    };
    let pairs = before.iter().zip(after);
    pairs
        .flat_map(|(before, after)| lines(after).difference(&lines(before)).cloned().collect::<Vec<_>>())
        .collect()
}
