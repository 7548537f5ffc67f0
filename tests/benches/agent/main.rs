//! The agent at scale, against a real kube-apiserver with simulated Nodes, Pods and policies: how long until a node is
//! what the cluster asks for, what that costs, and how quickly a change of policy is in the kernel.
//!
//! Only one node is real: it has an agent, and two pods between which a policy decides. Everything of the other nodes
//! is in the API alone; their addresses are on the real one's link.
//!
//! `scripts/bench-agent [NODES PODS POLICIES]`; prints one JSON document. With `policy`: what a change of policy costs by
//! itself, without an API, as lines.

mod policy;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use podnet_tests::kube::{self, Client, ControlPlane};
use podnet_tests::nodes::{ECHO, Echo, Nodes, Running};
use podnet_tests::{plugins, workers};
use serde_json::{Value, json};

/// How long something may take at all.
const PATIENCE: Duration = Duration::from_secs(600);
/// Namespaces that pods and policies are in.
const NAMESPACES: usize = 20;

fn main() -> Result<()> {
    if std::env::args().nth(1).as_deref() == Some("policy") {
        return policy::run();
    }
    let counts: Vec<usize> = std::env::args().skip(1).filter_map(|it| it.parse().ok()).collect();
    let [nodes, pods, policies] = counts[..] else {
        // `cargo test` runs every target without arguments.
        println!("usage: agent policy | NODES PODS POLICIES");
        return Ok(());
    };
    let bench = Bench::start()?;
    bench.nodes(1..nodes)?;
    let mut agent = bench.agent()?;
    let begun = Instant::now();
    let routes = nodes - 1;
    until("routes", || Ok(bench.routes()? == routes && bench.is_met("conflist")?))?;
    let converged = begun.elapsed();
    let at_start = usage(agent.pid())?;
    // All of them once more: what it costs when somebody has deleted them.
    bench.node().ip(&["route flush proto 80 table main"])?;
    let flushed = Instant::now();
    until("routes again", || Ok(bench.routes()? == routes))?;
    let routed = flushed.elapsed();

    let (client, server) = (bench.pod("client")?, bench.pod("server")?);
    bench.namespaces()?;
    bench.pods(pods)?;
    bench.policies(policies)?;
    let settled = Instant::now();
    bench.settle()?;
    let caught_up = settled.elapsed();
    let whole = usage(agent.pid())?;
    let changes = bench.changes(&client, &server, 20)?;
    let before_idle = usage(agent.pid())?;
    std::thread::sleep(Duration::from_secs(20));
    let idle = usage(agent.pid())?.cpu - before_idle.cpu;
    agent.kill()?;
    let again = Instant::now();
    let restarted = bench.agent()?;
    until("the restarted agent", || bench.is_met("policy"))?;
    let restart = again.elapsed();
    let document = json!({
        "schema": "podnet.bench.agent/1",
        "nodes": nodes, "pods": pods, "policies": policies,
        "converge": {"ms": ms(converged), "cpuMs": ms(at_start.cpu), "residentKiB": at_start.resident},
        "routes": {"count": routes, "ms": ms(routed)},
        "policy": {
            "settleMs": ms(caught_up), "cpuMs": ms(whole.cpu), "residentKiB": whole.resident, "peakKiB": whole.peak,
            "closeMs": spread(&changes.iter().map(|it| it.0).collect::<Vec<_>>()),
            "openMs": spread(&changes.iter().map(|it| it.1).collect::<Vec<_>>()),
        },
        "idle": {"cpuPerMille": ms(idle) / 20.0},
        "restart": {"ms": ms(restart), "residentKiB": usage(restarted.pid())?.resident},
    });
    println!("{}", serde_json::to_string_pretty(&document)?);
    Ok(())
}

struct Bench {
    client: Client,
    control: ControlPlane,
    nodes: Nodes,
}

struct Pod {
    netns: kernel::netns::Netns,
    ip: IpAddr,
    _echo: Echo,
}

impl Bench {
    fn start() -> Result<Bench> {
        let nodes = Nodes::new(&[0])?;
        // The simulated nodes are neighbours, too.
        nodes.nodes[0].ip(&["route add 172.16.0.0/12 dev eth0"])?;
        let machine = nodes.machine(2)?;
        let address = SocketAddr::new(Ipv4Addr::new(172, 18, 0, 2).into(), 6443);
        let control = ControlPlane::start(&machine, address, &kube::assets(&["kube-apiserver"])?)?;
        let client = control.client()?;
        client.apply_file(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/podnet.yaml").as_ref())?;
        client.create(&nodes.nodes[0].object(true, false))?;
        Ok(Bench { client, control, nodes })
    }

    fn node(&self) -> &podnet_tests::nodes::Node {
        &self.nodes.nodes[0]
    }

    fn agent(&self) -> Result<Running> {
        let node = self.node();
        let mut command = Command::new(plugins::podnetd()?);
        let kubeconfig = self.control.kubeconfig_of_account("kube-system", "podnet")?;
        command.env_clear().env("NODE_NAME", &node.name);
        command.arg("run").arg("--root").arg(&node.root);
        command.arg("--plugin").arg(plugins::podnet()?).arg("--kubeconfig").arg(kubeconfig);
        Running::start(&node.netns, &mut command, &node.root.join("podnetd.log"))
    }

    /// Makes objects, several at a time.
    fn make(
        &self,
        numbers: std::ops::Range<usize>,
        object: impl Fn(usize) -> Vec<(Value, Option<Value>)> + Sync,
    ) -> Result<()> {
        let next = std::sync::atomic::AtomicUsize::new(numbers.start);
        workers(4, || {
            let client = self.control.client()?;
            loop {
                let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if number >= numbers.end {
                    return Ok(());
                }
                for (object, status) in object(number) {
                    client.create(&object)?;
                    if let Some(status) = status {
                        client.set_status(&client.path_of(&object, true)?, &status)?;
                    }
                }
            }
        })
    }

    fn nodes(&self, numbers: std::ops::Range<usize>) -> Result<()> {
        self.make(numbers, |number| {
            let (high, low) = (number / 256, number % 256);
            let cidr = format!("10.{}.{low}.0/24", 128 + high);
            let address = format!("172.20.{high}.{low}");
            let object = json!({
                "apiVersion": "v1", "kind": "Node", "metadata": {"name": format!("node-{number:05}")},
                "spec": {"podCIDR": cidr, "podCIDRs": [cidr]},
                "status": {"addresses": [{"type": "InternalIP", "address": address}]},
            });
            vec![(object, None)]
        })
    }

    fn namespaces(&self) -> Result<()> {
        (0..NAMESPACES).try_for_each(|it| {
            self.client.create_namespace(&format!("space-{it}"), &[("team", &format!("t{}", it % 5))])
        })
    }

    fn pods(&self, count: usize) -> Result<()> {
        self.make(0..count, |number| {
            let node = 1 + number % 250;
            let address = format!("10.128.{node}.{}", 2 + number / 250);
            let object = json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": format!("pod-{number}"), "namespace": format!("space-{}", number % NAMESPACES),
                    "labels": {"app": format!("app-{}", number % 50), "tier": format!("tier-{}", number % 3)}},
                "spec": {"nodeName": format!("node-{node:05}"), "containers": [{"name": "it", "image": "it"}]},
            });
            let status = json!({"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]});
            vec![(object, Some(status))]
        })
    }

    /// Policies of namespaces with simulated pods, and as many again that isolate the real ones' namespace from nobody.
    fn policies(&self, count: usize) -> Result<()> {
        self.make(0..count, |number| {
            let here = number % 2 == 0;
            let namespace = if here { "default".to_owned() } else { format!("space-{}", number % NAMESPACES) };
            let selector = if here { json!({}) } else { json!({"matchLabels": {"app": format!("app-{}", number % 50)}}) };
            let object = json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": {"name": format!("policy-{number}"), "namespace": namespace},
                "spec": {"podSelector": selector, "policyTypes": ["Ingress"], "ingress": [{
                    "from": [
                        {"namespaceSelector": {"matchLabels": {"team": format!("t{}", number % 5)}},
                            "podSelector": {"matchLabels": {"app": format!("app-{}", number % 50)}}},
                        {"ipBlock": {"cidr": format!("10.{}.0.0/16", number % 250), "except": [format!("10.{}.3.0/24", number % 250)]}},
                    ],
                    "ports": [{"protocol": "TCP", "port": 1000 + number}],
                }]},
            });
            vec![(object, None)]
        })
    }

    /// A real pod of the real node.
    fn pod(&self, name: &str) -> Result<Pod> {
        let object = self.client.create(&json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", "labels": {"name": name}},
            "spec": {"nodeName": "n0", "containers": [{"name": "it", "image": "it"}]},
        }));
        let object = match object {
            Ok(object) => object,
            // The namespace has no service account yet.
            Err(_) => {
                self.client.create_namespace("default", &[])?;
                return self.pod(name);
            }
        };
        let pod = self.node().add_pod_with(
            "default",
            name,
            object["metadata"]["uid"].as_str(),
            serde_json::Map::new(),
        )?;
        let ip = pod.ips[0];
        let path = format!("/api/v1/namespaces/default/pods/{name}");
        self.client.set_status(&path, &json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]}))?;
        Ok(Pod { _echo: Echo::start(&pod.netns)?, netns: pod.netns, ip })
    }

    fn routes(&self) -> Result<usize> {
        Ok(self.node().output("ip route show proto 80")?.lines().count())
    }

    fn is_met(&self, condition: &str) -> Result<bool> {
        // It may not listen yet.
        let text = self.node().ask_agent("/readyz").map(|it| it.1).unwrap_or_default();
        Ok(text.contains(&format!("[+] {condition}:")))
    }

    /// Waits until the agent does nothing any more.
    fn settle(&self) -> Result<()> {
        let counter = || -> Result<String> {
            let (_, text) = self.node().ask_agent("/metrics")?;
            Ok(text.lines().filter(|it| it.starts_with("podnet_api_changes_total")).collect())
        };
        let (mut last, mut since) = (counter()?, Instant::now());
        until("quiet", || {
            let now = counter()?;
            if now != last {
                (last, since) = (now, Instant::now());
            }
            Ok(since.elapsed() > Duration::from_secs(2))
        })
    }

    /// How long it takes from the API's answer until a change is in force: a policy that closes the server to the
    /// client, and its end. In ms.
    fn changes(&self, client: &Pod, server: &Pod, count: usize) -> Result<Vec<(f64, f64)>> {
        let socket = client.netns.run(|| UdpSocket::bind(("0.0.0.0", 0)))??;
        socket.set_read_timeout(Some(Duration::from_millis(2)))?;
        socket.connect((server.ip, ECHO))?;
        let path = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies/open";
        let open = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "open", "namespace": "default"},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"ports": [{"protocol": "UDP", "port": ECHO}]}]},
        });
        let answered = || -> bool {
            let mut buffer = [0; 64];
            while socket.recv(&mut buffer).is_ok() {}
            socket.send(b"?").is_ok() && socket.recv(&mut buffer).is_ok()
        };
        let mut all = Vec::new();
        for _ in 0..count {
            self.client.create(&open)?;
            let begun = Instant::now();
            until("open", || Ok(answered()))?;
            let opened = begun.elapsed();
            self.client.delete(path)?;
            let begun = Instant::now();
            until("closed", || Ok(!answered() && !answered()))?;
            all.push((ms(begun.elapsed()), ms(opened)));
        }
        Ok(all)
    }
}

/// What a process has used.
struct Usage {
    cpu: Duration,
    resident: u64,
    peak: u64,
}

fn usage(pid: u32) -> Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(')').context("no stat")?.1.split_whitespace().collect();
    // Ticks of 10 ms, user and system.
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| -> Result<u64> {
        let line = status.lines().find(|it| it.starts_with(name)).context("no such field")?;
        line.split_whitespace().nth(1).and_then(|it| it.parse().ok()).context("no number")
    };
    Ok(Usage { cpu: Duration::from_millis(ticks * 10), resident: field("VmRSS:")?, peak: field("VmHWM:")? })
}

fn until(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !done()? {
        ensure!(begun.elapsed() < PATIENCE, "{what}: not within {} s", PATIENCE.as_secs());
        std::thread::yield_now();
    }
    Ok(())
}

fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e5).round() / 100.0
}

fn spread(all: &[f64]) -> Value {
    let mut all = all.to_vec();
    all.sort_by(f64::total_cmp);
    json!({"least": all.first(), "median": all[all.len() / 2], "most": all.last()})
}
