//! A whole node: kubelet and containerd make pods with podnet's plugins, as controllers and the scheduler want them.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use podnet_tests::kube::{self, ControlPlane, Machine, condition};
use podnet_tests::nodes::{Node, Nodes, wait_within};
use podnet_tests::{devices, plugins};
use serde_json::{Value, json};

/// Many programs have to come to an agreement: some ten seconds on a quiet machine of two cores.
const PATIENCE: Duration = Duration::from_secs(300);
const PROGRAMS: [&str; 4] = ["kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet"];

#[test]
fn a_node_becomes_ready_with_its_network_and_runs_a_deployment() -> Result<()> {
    let assets = kube::assets(&[])?;
    if let Some(missing) = PROGRAMS.iter().find(|name| !assets.join(name).is_file()) {
        return devices::report(&format!("PODNET_KUBE_ASSETS has no {missing}"));
    }
    let kernel = settings()?;
    let nodes = Nodes::new(&[0])?;
    let node = &nodes.nodes[0];
    let mut control = ControlPlane::start(&nodes.outside, "172.18.0.1:6443".parse()?, &assets)?;
    control.start_controller_manager()?;
    control.start_scheduler()?;
    let mut machine = Machine::start(node)?;
    machine.start_kubelet(&control, node)?;
    let client = control.client()?;

    // Without a network it is there, has got its ranges, and is not ready.
    let path = format!("/api/v1/nodes/{}", node.name);
    let waiting = wait_within("the node waits for its network", PATIENCE, || {
        let node = client.get(&path)?;
        let ready = condition(&node, "Ready");
        ensure!(
            ready["status"] == "False" && node["spec"]["podCIDRs"].as_array().is_some_and(|it| it.len() == 2),
            "{node}"
        );
        Ok(node)
    })
    .with_context(|| machine.last_words())?;
    let why = condition(&waiting, "Ready")["message"].to_string();
    ensure!(why.contains("cni") || why.contains("network"), "not ready for another reason: {why}");
    ensure!(waiting["status"]["addresses"][0]["address"] == "172.18.0.10", "{waiting}");

    give_network(node, &waiting["spec"]["podCIDRs"])?;
    wait_within("the node is ready", PATIENCE, || {
        let node = client.get(&path)?;
        ensure!(condition(&node, "Ready")["status"] == "True", "{}", condition(&node, "Ready"));
        Ok(())
    })
    .with_context(|| machine.last_words())?;

    // kubelet asks each pod over the network whether it is ready, and inside whether it is alive.
    client.create(&kube::web(json!({"exec": {"command": ["true"]}})))?;
    let web = "/apis/apps/v1/namespaces/default/deployments/web";
    wait_within("two pods are ready", PATIENCE, || {
        let web = client.get(web)?;
        ensure!(web["status"]["readyReplicas"] == 2, "{}", web["status"]);
        Ok(())
    })
    .with_context(|| machine.last_words())?;
    let pods = client.get("/api/v1/namespaces/default/pods?labelSelector=app%3Dweb")?;
    for pod in pods["items"].as_array().context("pods")? {
        let ips = pod["status"]["podIPs"].as_array().context("addresses")?;
        let ips: Vec<&str> = ips.iter().filter_map(|it| it["ip"].as_str()).collect();
        ensure!(
            ips.len() == 2 && ips[0].starts_with("10.244.") && ips[1].starts_with("fd00:10:244:"),
            "{pod}"
        );
    }

    // A service's address leads to them by kube-proxy's rules alone.
    let service = client.create(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 8000, "targetPort": 80}]},
    }))?;
    let address = service["spec"]["clusterIP"].as_str().context("the service's address")?.parse()?;
    let connect = || TcpStream::connect_timeout(&SocketAddr::new(address, 8000), Duration::from_secs(1));
    ensure!(node.run(connect)?.is_err(), "{address} is there without kube-proxy");
    machine.start_kube_proxy(&control)?;
    wait_within("the service answers", PATIENCE, || Ok(node.run(connect)??))
        .with_context(|| machine.last_words())?;

    client.patch(web, &json!({"spec": {"replicas": 0}}))?;
    wait_within("the pods are gone, and their addresses free", PATIENCE, || {
        let left = reservations(node)?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .with_context(|| machine.last_words())?;

    let (group, dir) = (machine.group().to_owned(), machine.dir().to_owned());
    ensure!(groups(&group)? > 0 && dir.exists(), "no control group {group}, or not {}", dir.display());
    drop(machine);
    ensure!(groups(&group)? == 0 && !dir.exists(), "control groups {group} or {} are left", dir.display());
    ensure!(settings()? == kernel, "the kernel's settings were {kernel:?}, and are {:?}", settings()?);
    Ok(())
}

/// What kubelet sets for the whole kernel, where it can.
fn settings() -> Result<Vec<String>> {
    let all = ["vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops"];
    all.iter().map(|name| Ok(fs::read_to_string(format!("/proc/sys/{name}"))?)).collect()
}

/// How many hierarchies of control groups have this one.
fn groups(name: &str) -> Result<usize> {
    let mut found = 0;
    for hierarchy in fs::read_dir("/sys/fs/cgroup")? {
        found += usize::from(hierarchy?.path().join(name).exists());
    }
    Ok(found)
}

/// podnet's plugins, and a network of the node's own ranges.
fn give_network(node: &Node, ranges: &Value) -> Result<()> {
    let podnet = plugins::podnet()?;
    for name in ["ptp", "host-local", "loopback"] {
        std::os::unix::fs::symlink(&podnet, node.root.join("opt/cni/bin").join(name))?;
    }
    let ranges: Vec<Value> =
        ranges.as_array().context("ranges")?.iter().map(|it| json!([{"subnet": it}])).collect();
    let net_d = node.root.join("etc/cni/net.d");
    let list = json!({
        "cniVersion": "1.0.0", "name": "pods",
        "plugins": [{"type": "ptp", "ipam": {
            "type": "host-local", "dataDir": node.root.join("reservations"), "ranges": ranges,
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
        }}],
    });
    // containerd hears of a file that is renamed within the directory, and not of one that comes from elsewhere.
    let (part, whole) = (net_d.join("10-pods.part"), net_d.join("10-pods.conflist"));
    fs::write(&part, list.to_string())?;
    fs::rename(part, whole).context("put the network in place")
}

fn reservations(node: &Node) -> Result<Vec<String>> {
    podnet_tests::world::reservations(&node.root.join("reservations/pods"))
}
