//! A whole node, on which nothing is ours but what the manifest brings: kubelet, containerd, controllers, scheduler and
//! kube-proxy of one build of Kubernetes; the DaemonSet's pod installs the network, and uninstalling takes it off again.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use podnet_tests::kube::{self, Client, ControlPlane, IMAGE, Machine};
use podnet_tests::nodes::{Node, Nodes, wait_within};
use podnet_tests::{devices, plugins};
use serde_json::{Value, json};

use super::bed::left_behind;

/// Many programs have to come to an agreement.
const PATIENCE: Duration = Duration::from_secs(300);
const PROGRAMS: [&str; 4] = ["kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"];
/// The image that the manifest names.
const AGENT: &str = "localhost/podnet:0.1.0";
const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/podnet.yaml");
const NODE: &str = "/api/v1/nodes/n0";
const WEB: &str = "/apis/apps/v1/namespaces/default/deployments/web";

/// The directories that the manifest mounts, as they are on a node: over the machine's own, seen by it alone.
const DIRECTORIES: &str = "set -e
mkdir -p /run/etc /run/work
mount -t tmpfs tmpfs /opt
mount -t overlay -o lowerdir=/etc,upperdir=/run/etc,workdir=/run/work overlay /etc
mkdir -p /opt/cni/bin /etc/cni/net.d
mount --bind \"$1/opt/cni/bin\" /opt/cni/bin
mount --bind \"$1/etc/cni/net.d\" /etc/cni/net.d";

fn is_ready(client: &Client) -> Result<(bool, Value)> {
    let node = client.get(NODE)?;
    Ok((kube::condition(&node, "Ready")["status"] == "True", node))
}

fn answers(from: &kernel::netns::Netns, to: SocketAddr, limit: Duration) -> Result<()> {
    from.run(|| TcpStream::connect_timeout(&to, limit))?.with_context(|| format!("connect to {to}")).map(drop)
}

fn web_is(client: &Client, replicas: u64) -> Result<()> {
    let web = client.get(WEB)?;
    ensure!(web["status"]["readyReplicas"].as_u64().unwrap_or_default() == replicas, "{}", web["status"]);
    Ok(())
}

#[test]
fn manifest_makes_a_node_ready_which_runs_what_kubernetes_wants_and_can_be_taken_off() -> Result<()> {
    let Ok(assets) = kube::assets(&PROGRAMS) else {
        return devices::report("PODNET_KUBE_ASSETS has no kubelet, controllers, scheduler and kube-proxy");
    };
    let nodes = Nodes::new(&[0])?;
    let node = &nodes.nodes[0];
    let picture = |node: &Node| -> Result<Vec<String>> {
        // kube-proxy's and kubelet's rules are their own.
        [
            "ip -o addr",
            "ip route show table all",
            "ip -6 route show table all",
            "ip rule",
            "ip -o link",
            "nft list tables inet",
        ]
        .iter()
        .map(|it| node.output(it))
        .collect()
    };
    let before = picture(node)?;
    let mut control = ControlPlane::start(&nodes.outside, "172.18.0.1:6443".parse()?, &assets)?;
    control.start_controller_manager()?;
    control.start_scheduler()?;
    let client = control.client()?;
    let mut machine = Machine::start(node)?;
    let root = node.root.to_string_lossy().into_owned();
    machine.run(&["bash", "-c", DIRECTORIES, "directories", &root])?;
    let archive = machine.dir().join("podnet.tar");
    kube::write_programs(&archive, AGENT, &[&plugins::podnetd()?, &plugins::podnet()?])?;
    machine.import(&archive)?;
    machine.start_kubelet(&control, node)?;
    wait_within("the node waits for its network", PATIENCE, || {
        let (ready, node) = is_ready(&client)?;
        ensure!(!ready && node["spec"]["podCIDRs"].as_array().is_some_and(|it| it.len() == 2), "{node}");
        Ok(())
    })
    .with_context(|| machine.last_words())?;

    // As kubeadm leaves it, for a kube-proxy that is not there yet: the agent's only way to the API.
    let server = json!([{"name": "default", "cluster": {"server": "https://172.18.0.1:6443"}}]);
    let kubeconfig = json!({"apiVersion": "v1", "kind": "Config", "clusters": server}).to_string();
    client.create(&json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kube-proxy", "namespace": "kube-system"},
        "data": {"config.conf": "", "kubeconfig.conf": kubeconfig},
    }))?;
    // kubectl apply -f deploy/podnet.yaml
    client.apply_file(MANIFEST.as_ref())?;
    let conflist = node.root.join("etc/cni/net.d/05-podnet.conflist");
    wait_within("the node is ready", PATIENCE, || {
        // In this order: what is there when the node is ready was there before.
        let (ready, object) = is_ready(&client)?;
        ensure!(!ready || conflist.exists(), "ready without a configuration");
        ensure!(ready, "{}\n{}", object["status"]["conditions"], daemon(&client)?);
        Ok(())
    })
    .with_context(|| machine.last_words())?;
    wait_within("the DaemonSet is ready", PATIENCE, || {
        let set = client.get("/apis/apps/v1/namespaces/kube-system/daemonsets/podnet")?;
        ensure!(set["status"]["numberReady"] == 1, "{}\n{}", set["status"], daemon(&client)?);
        Ok(())
    })?;

    let proxy = control.start_kube_proxy(&node.netns, &node.name)?;
    client.create(&kube::web(json!({"httpGet": {"path": "/busybox", "port": 80}})))?;
    let service = client.create(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 8000, "targetPort": 80}]},
    }))?;
    client.create(&json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "door", "namespace": "default", "labels": {"app": "door"}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
            "name": "web", "image": IMAGE, "command": ["httpd", "-f", "-p", "80", "-h", "/bin"],
            "ports": [{"containerPort": 80, "hostPort": 8088}],
            "readinessProbe": {"httpGet": {"path": "/busybox", "port": 80}, "periodSeconds": 1},
        }]},
    }))?;
    wait_within("two pods are ready", PATIENCE, || web_is(&client, 2))
        .with_context(|| machine.last_words())?;
    let virtual_address: IpAddr = service["spec"]["clusterIP"].as_str().context("clusterIP")?.parse()?;
    let cluster_ip = SocketAddr::new(virtual_address, 8000);
    let host_port = SocketAddr::new(node.addresses()[0], 8088);
    wait_within("the service answers", PATIENCE, || answers(&node.netns, cluster_ip, Duration::from_secs(1)))
        .with_context(|| proxy.last_words())?;
    wait_within("the host port answers", PATIENCE, || {
        answers(&nodes.outside, host_port, Duration::from_secs(1))
    })
    .with_context(|| machine.last_words())?;

    // A policy closes the door to the outside; the kubelet's probe still gets in.
    client.create(&json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "shut", "namespace": "default"},
        "spec": {"podSelector": {"matchLabels": {"app": "door"}}, "policyTypes": ["Ingress"]},
    }))?;
    wait_within("the policy is in force", PATIENCE, || {
        ensure!(
            answers(&nodes.outside, host_port, Duration::from_millis(500)).is_err(),
            "the outside gets in"
        );
        Ok(())
    })?;
    let door = client.get("/api/v1/namespaces/default/pods/door")?;
    let door_ip: IpAddr = door["status"]["podIP"].as_str().context("podIP")?.parse()?;
    answers(&node.netns, SocketAddr::new(door_ip, 80), Duration::from_secs(20))
        .context("the node itself gets in")?;
    client.delete("/apis/networking.k8s.io/v1/namespaces/default/networkpolicies/shut")?;
    wait_within("the door is open again", PATIENCE, || {
        answers(&nodes.outside, host_port, Duration::from_secs(1))
    })?;

    // Both are killed, and find everything as it was.
    for name in ["kubelet", "containerd"] {
        machine.restart(name)?;
    }
    answers(&node.netns, cluster_ip, Duration::from_secs(20)).context("pods go on without both")?;
    client.patch(WEB, &json!({"spec": {"replicas": 3}}))?;
    wait_within("one pod more", PATIENCE, || web_is(&client, 3)).with_context(|| machine.last_words())?;

    client.patch(WEB, &json!({"spec": {"replicas": 0}}))?;
    client.delete("/api/v1/namespaces/default/pods/door")?;
    let reservations =
        || podnet_tests::world::reservations(&path_in(&machine, "/var/lib/cni/networks/podnet"));
    wait_within("their addresses are free", PATIENCE, || {
        let left = reservations()?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .with_context(|| machine.last_words())?;
    client.delete("/apis/apps/v1/namespaces/kube-system/daemonsets/podnet")?;
    wait_within("the agent's pod is gone", PATIENCE, || {
        let pods = client.get("/api/v1/namespaces/kube-system/pods?labelSelector=app%3Dpodnet")?;
        ensure!(pods["items"].as_array().is_some_and(Vec::is_empty), "{pods}");
        Ok(())
    })?;
    let podnetd = plugins::podnetd()?;
    let told = machine.run(&[&podnetd.to_string_lossy(), "uninstall"])?;
    ensure!(told.contains("05-podnet.conflist"), "{told}");
    ensure!(!conflist.exists(), "the configuration is left");
    ensure!(fs::read_dir(node.root.join("opt/cni/bin"))?.next().is_none(), "plugins are left: {told}");
    let left = left_behind(&before, &picture(node)?);
    ensure!(left.is_empty(), "left behind: {left:#?}");
    wait_within("the node is ready no more", PATIENCE, || {
        let (ready, node) = is_ready(&client)?;
        ensure!(!ready, "{}", node["status"]["conditions"]);
        Ok(())
    })
}

/// How the agent's pods are, for the error of who waits for them.
fn daemon(client: &Client) -> Result<String> {
    let pods = client.get("/api/v1/namespaces/kube-system/pods?labelSelector=app%3Dpodnet")?;
    let of_pods = pods["items"].as_array().into_iter().flatten().map(|it| it["status"].to_string());
    Ok(of_pods.collect::<Vec<_>>().join("\n"))
}

/// A path of the machine's own as this process reaches it.
fn path_in(machine: &Machine, path: &str) -> std::path::PathBuf {
    format!("/proc/{}/root{path}", machine.init()).into()
}
