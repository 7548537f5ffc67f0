//! What runs in the cluster: servers that tell as whom they see a client, made by controllers, scheduler and kubelets.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use kernel::Netns;
use podnet_tests::kube::{self, IMAGE};
use serde_json::{Value, json};

use super::super::SOON;
use super::super::kind::{Kind, both};
use super::super::truth::{self, End, Wrong};

/// The ports of servers in pods, and of those in the nodes' own network.
pub(super) const PORT: u16 = 80;
pub(super) const HOST_PORT: u16 = 8090;
/// The port of the node at which the pod `door` is.
pub(super) const DOOR: u16 = 8088;
/// How many servers the Deployment has, two for each machine.
pub(super) const SERVERS: usize = 6;

const WEB: &str = "/apis/apps/v1/namespaces/default/deployments/web";
const HOSTS: &str = "/apis/apps/v1/namespaces/default/daemonsets/host";

/// A running pod.
pub(super) struct Server {
    pub(super) name: String,
    pub(super) node: usize,
    /// IPv4 first.
    pub(super) ips: [IpAddr; 2],
    pub(super) netns: Netns,
}

impl Server {
    pub(super) fn at(&self, family: usize) -> SocketAddr {
        SocketAddr::new(self.ips[family], PORT)
    }

    fn of(kind: &Kind, pod: &Value) -> Result<Server> {
        let name = pod["metadata"]["name"].as_str().context("a pod's name")?.to_owned();
        let node = pod["spec"]["nodeName"].as_str().and_then(|it| it.strip_prefix('n'));
        let node: usize = node.and_then(|it| it.parse().ok()).with_context(|| format!("{name}: no node"))?;
        let container = pod["status"]["containerStatuses"][0]["containerID"].as_str();
        let netns = kind.machines[node].netns_of(container.context("a container's ID")?)?;
        Ok(Server { node, ips: both(&pod["status"]["podIPs"], "ip")?, netns, name })
    }
}

/// A Deployment whose pods spread over all machines, a server in every node's own network, a pod with a port of its node and
/// two containers on the machine behind the router, and one whose traffic is limited.
pub(super) fn populate(kind: &Kind) -> Result<()> {
    let mut web = kube::web(json!({"httpGet": {"path": kube::WHO, "port": PORT}}));
    web["spec"]["replicas"] = json!(SERVERS);
    web["spec"]["template"]["spec"]["topologySpreadConstraints"] = json!([{
        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}},
    }]);
    kind.client.create(&web)?;
    kind.client.create(&json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "host", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "host"}}, "template": {
            "metadata": {"labels": {"app": "host"}},
            "spec": {"hostNetwork": true, "terminationGracePeriodSeconds": 0, "containers": [kube::server(HOST_PORT)]},
        }},
    }))?;
    let mut server = kube::server(PORT);
    server["ports"] = json!([{"containerPort": PORT, "hostPort": DOOR}]);
    // Containers of one pod reach each other over localhost, and are seen so.
    let asked = |ip: &str| format!("wget -qO- 'http://{ip}{}' | grep -qF {ip}", kube::WHO);
    let asks = format!("{} && {}", asked("127.0.0.1"), asked("[::1]"));
    let probe = kube::patient(json!({"exec": {"command": ["sh", "-c", asks]}}));
    let beside = json!({"name": "beside", "image": IMAGE, "readinessProbe": probe});
    add(kind, "door", 2, &json!({}), &[server, beside])?;
    let limits = json!({"kubernetes.io/ingress-bandwidth": "8M", "kubernetes.io/egress-bandwidth": "4M"});
    add(kind, "slow", 1, &limits, &[kube::server(PORT)])?;
    hosts(kind)
}

/// Creates a pod of these containers for a machine, named like its label `app`.
pub(super) fn add(
    kind: &Kind,
    name: &str,
    number: usize,
    annotations: &Value,
    containers: &[Value],
) -> Result<()> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "default", "labels": {"app": name}, "annotations": annotations,
        },
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": kind.nodes.nodes[number].name},
            "terminationGracePeriodSeconds": 0, "containers": containers,
        },
    });
    kind.client.create(&pod).map(drop)
}

/// Waits until a server is ready in every node's own network.
pub(super) fn hosts(kind: &Kind) -> Result<()> {
    kind.wait("a server in every node's network", || {
        let status = kind.client.get(HOSTS)?["status"].clone();
        ensure!(status["numberReady"].as_u64() == Some(kind.machines.len() as u64), "{status}");
        Ok(())
    })
}

/// Ends all that [`populate`] has made, and these pods.
pub(super) fn empty(kind: &Kind, pods: &[&str]) -> Result<()> {
    kind.client.delete(HOSTS)?;
    kind.client.patch(WEB, &json!({"spec": {"replicas": 0}}))?;
    for name in pods {
        kind.client.delete(&format!("/api/v1/namespaces/default/pods/{name}"))?;
    }
    Ok(())
}

/// Waits until the Deployment has all its pods ready, and gives them by node and name.
pub(super) fn servers(kind: &Kind) -> Result<Vec<Server>> {
    let mut found = kind.wait("all servers are ready", || {
        let pods = kind.client.get("/api/v1/namespaces/default/pods?labelSelector=app%3Dweb")?;
        let all = pods["items"].as_array().into_iter().flatten();
        let ready: Vec<&Value> = all.filter(|it| kube::condition(it, "Ready")["status"] == "True").collect();
        ensure!(ready.len() == SERVERS, "{} are: {ready:?}", ready.len());
        ready.into_iter().map(|it| Server::of(kind, it)).collect::<Result<Vec<Server>>>()
    })?;
    found.sort_by(|one, other| (one.node, &one.name).cmp(&(other.node, &other.name)));
    Ok(found)
}

/// The pod of this name.
pub(super) fn server(kind: &Kind, name: &str) -> Result<Server> {
    Server::of(kind, &kind.pod(name)?)
}

/// Every pod has an address of its node's PodCIDR in both versions, and no two have one.
pub(super) fn addresses_are_the_nodes(kind: &Kind, pods: &[&Server]) -> Result<()> {
    let mut all = BTreeSet::new();
    for pod in pods {
        let (_, node) = kind.is_ready(pod.node)?;
        let ranges = node["spec"]["podCIDRs"].as_array().context("PodCIDRs")?;
        for ip in pod.ips {
            // 10.244.1.0/24 and fd00:10:244:1::/64, as the controllers are told to cut them.
            let mut starts = ranges.iter().filter_map(|it| {
                let range = it.as_str()?;
                range.strip_suffix("0/24").or_else(|| range.strip_suffix("/64"))
            });
            let text = ip.to_string();
            ensure!(starts.any(|it| text.starts_with(it)), "{} has {ip}, its node {ranges:?}", pod.name);
            ensure!(all.insert(ip), "two pods have {ip}");
        }
    }
    Ok(())
}

/// The truth table of pods and nodes in one version of IP (0: IPv4), by HTTP.
pub(super) fn table(kind: &Kind, pods: &[&Server], family: usize) -> (usize, Vec<Wrong>) {
    let of_pods = pods.iter().map(|it| End {
        name: format!("{}@n{}", it.name, it.node),
        node: it.node,
        is_pod: true,
        netns: &it.netns,
        address: it.ips[family],
    });
    let of_nodes = kind.nodes.nodes.iter().map(|it| End {
        name: it.name.clone(),
        node: it.number,
        is_pod: false,
        netns: &it.netns,
        address: it.addresses()[family],
    });
    let ends: Vec<End<'_>> = of_pods.chain(of_nodes).collect();
    truth::judge(&ends, |from, to| {
        let port = if to.is_pod { PORT } else { HOST_PORT };
        let (seen, name) = kube::who(from.netns, SocketAddr::new(to.address, port), SOON)?;
        let pod = to.name.split('@').next().unwrap_or_default();
        ensure!(!to.is_pod || name == pod, "{name} answers");
        Ok(seen)
    })
}

/// The truth table of both versions holds.
pub(super) fn all_are_seen_as_who_they_are(kind: &Kind, pods: &[&Server]) -> Result<()> {
    let ends = pods.len() + kind.nodes.nodes.len();
    for family in [0, 1] {
        let (asked, wrong) = table(kind, pods, family);
        ensure!(asked == ends * (ends - 1), "{asked} asked");
        ensure!(wrong.is_empty(), "{} of {asked}:\n{}", wrong.len(), truth::lines(&wrong));
    }
    Ok(())
}
