//! One whole machine, on which nothing is ours but what the manifest brings: kubelet, containerd, controllers, scheduler and
//! kube-proxy of one build of Kubernetes; the DaemonSet's pod installs the network, and uninstalling takes it off again.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kernel::netns::Netns;
use podnet_tests::kube;
use serde_json::json;

use super::kind::Kind;

const WEB: &str = "/apis/apps/v1/namespaces/default/deployments/web";

fn answers(from: &Netns, to: SocketAddr, limit: Duration) -> Result<()> {
    from.run(|| TcpStream::connect_timeout(&to, limit))?.with_context(|| format!("connect to {to}")).map(drop)
}

#[test]
fn manifest_makes_a_node_ready_which_runs_what_kubernetes_wants_and_can_be_taken_off() -> Result<()> {
    let Some(mut kind) = Kind::start(&[0])? else { return Ok(()) };
    kind.install()?;
    kind.start_proxies()?;
    let client = &kind.client;
    let (node, outside) = (&kind.nodes.nodes[0], &kind.nodes.outside);
    client.create(&kube::web(json!({"httpGet": {"path": kube::WHO, "port": 80}})))?;
    let service = client.create(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 8000, "targetPort": 80}]},
    }))?;
    let mut container = kube::server(80);
    container["ports"] = json!([{"containerPort": 80, "hostPort": 8088}]);
    client.create(&json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "door", "namespace": "default", "labels": {"app": "door"}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
    }))?;
    kind.deployed("web", 2)?;
    let virtual_address: IpAddr = service["spec"]["clusterIP"].as_str().context("clusterIP")?.parse()?;
    let cluster_ip = SocketAddr::new(virtual_address, 8000);
    let host_port = SocketAddr::new(node.addresses()[0], 8088);
    kind.wait("the service answers", || answers(&node.netns, cluster_ip, Duration::from_secs(1)))?;
    kind.wait("the host port answers", || answers(outside, host_port, Duration::from_secs(1)))?;

    // A policy closes the door to the outside; the kubelet's probe still gets in.
    client.create(&json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "shut", "namespace": "default"},
        "spec": {"podSelector": {"matchLabels": {"app": "door"}}, "policyTypes": ["Ingress"]},
    }))?;
    kind.wait("the policy is in force", || {
        ensure!(answers(outside, host_port, Duration::from_millis(500)).is_err(), "the outside gets in");
        Ok(())
    })?;
    let door = client.get("/api/v1/namespaces/default/pods/door")?;
    let door_ip: IpAddr = door["status"]["podIP"].as_str().context("podIP")?.parse()?;
    answers(&node.netns, SocketAddr::new(door_ip, 80), Duration::from_secs(20))
        .context("the node itself gets in")?;
    client.delete("/apis/networking.k8s.io/v1/namespaces/default/networkpolicies/shut")?;
    kind.wait("the door is open again", || answers(outside, host_port, Duration::from_secs(1)))?;

    // Both are killed, and find everything as it was.
    for name in ["kubelet", "containerd"] {
        kind.machines[0].kill(name)?;
    }
    for name in ["containerd", "kubelet"] {
        kind.machines[0].start_again(name)?;
    }
    answers(&node.netns, cluster_ip, Duration::from_secs(20)).context("pods go on without both")?;
    client.patch(WEB, &json!({"spec": {"replicas": 3}}))?;
    kind.deployed("web", 3)?;

    client.patch(WEB, &json!({"spec": {"replicas": 0}}))?;
    client.delete("/api/v1/namespaces/default/pods/door")?;
    kind.take_off()
}
