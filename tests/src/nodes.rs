//! Nodes of a Kubernetes cluster as network namespaces: a router with two switches, nodes on either, and pods that
//! are made by calling the plugins of a network configuration as a container runtime does.
//!
//! ```text
//!              outside: the router, 172.18.0.1 and 172.19.0.1
//!                 |                            |
//!        switch of rack 0              switch of rack 1
//!         |            |                       |
//!     n0 .18.0.10  n1 .18.0.11           n2 .19.0.12
//!      pods 10.244.0.0/24  10.244.1.0/24  10.244.2.0/24
//! ```
//! Each address has an IPv6 one beside it. Nodes of one rack reach each other directly; between racks the router
//! knows nothing of pods.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

pub use apiserver::Running;

use anyhow::{Context, Result, ensure};
use cni::runtime::{Attachment, Network, Runtime};
use kernel::netns::Netns;
use serde_json::Value;
use tempfile::TempDir;

use crate::world::ip_batch;

/// How long a connection may take; generous, as machines are slow at times.
const PATIENCE: Duration = Duration::from_secs(20);
/// The runtime's directories of plugins and of configurations, below a node's root.
const BIN: &str = "opt/cni/bin";
const NET_D: &str = "etc/cni/net.d";
/// Where an agent tells of itself.
const AGENT: u16 = 10180;
/// The port of [`Echo`].
pub const ECHO: u16 = 8080;

/// All nodes, and what joins them.
#[derive(Debug)]
pub struct Nodes {
    /// The router, which is also the world outside the cluster.
    pub outside: Netns,
    /// The nodes, in order.
    pub nodes: Vec<Node>,
    dir: TempDir,
}

/// One node.
#[derive(Debug)]
pub struct Node {
    /// `n0`, `n1`, …
    pub name: String,
    /// Its network namespace.
    pub netns: Netns,
    /// Which rack it is in.
    pub rack: usize,
    /// Its number among the nodes: part of its addresses and its pods'.
    pub number: usize,
    /// Its root, as `podnetd --root` has it: `opt/cni/bin`, `etc/cni/net.d`, `var` and `run` are below it.
    pub root: PathBuf,
}

/// A pod that a runtime has made on a node.
#[derive(Debug)]
pub struct Pod {
    /// Namespace and name in Kubernetes.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its network namespace.
    pub netns: Netns,
    /// Its addresses, as the plugins told them.
    pub ips: Vec<IpAddr>,
    /// What the plugins answered.
    pub result: Value,
    attachment: Attachment,
}

impl Nodes {
    /// Nodes in these racks (each 0 or 1), without any pod network.
    ///
    /// # Errors
    /// Namespaces, links or addresses cannot be made.
    pub fn new(racks: &[usize]) -> Result<Nodes> {
        let outside = Netns::create().context("make the router's namespace")?;
        let dir = TempDir::with_prefix("podnet-nodes-").context("make the nodes' directory")?;
        let mut commands = vec!["link set lo up".to_owned()];
        for rack in 0..2 {
            commands.push(format!("link add rack{rack} type bridge"));
            commands.push(format!("addr add 172.{}.0.1/24 dev rack{rack}", 18 + rack));
            commands.push(format!("addr add fc00:{}::1/64 dev rack{rack} nodad", 18 + rack));
            commands.push(format!("link set rack{rack} up"));
        }
        ip(&outside, &commands)?;
        forward(&outside)?;
        let mut nodes = Nodes { outside, nodes: Vec::new(), dir };
        for rack in racks {
            nodes.join(*rack)?;
        }
        Ok(nodes)
    }

    /// One node more.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn join(&mut self, rack: usize) -> Result<&Node> {
        let number = self.nodes.len();
        let netns = Netns::create().context("make a node's namespace")?;
        let name = format!("n{number}");
        let root = self.dir.path().join(&name);
        for part in [BIN, NET_D] {
            fs::create_dir_all(root.join(part)).context("make a node's directories")?;
        }
        let node = Node { name, netns, rack, number, root };
        self.wire(&node.netns, &node.name, rack, node.addresses())?;
        forward(&node.netns)?;
        self.nodes.push(node);
        Ok(&self.nodes[number])
    }

    /// Begins a node anew, as when its machine has been restarted: its namespace is another one, as it was made at first; name,
    /// addresses and root are as before.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn reboot(&mut self, number: usize) -> Result<()> {
        let node = &self.nodes[number];
        ip(&self.outside, &[format!("link del to-{}", node.name)])?;
        let netns = Netns::create().context("make a node's namespace")?;
        self.wire(&netns, &node.name, node.rack, node.addresses())?;
        forward(&netns)?;
        self.nodes[number].netns = netns;
        Ok(())
    }

    /// A machine of rack 0 that is no node of the cluster, at 172.18.0.`host`.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn machine(&self, host: u8) -> Result<Netns> {
        let netns = Netns::create().context("make a machine's namespace")?;
        let addresses = [IpAddr::from([172, 18, 0, host]), format!("fc00:18::{host}").parse()?];
        self.wire(&netns, &format!("m{host}"), 0, addresses)?;
        Ok(netns)
    }

    /// Joins a namespace to a rack's switch, with the router as its way to everywhere else.
    fn wire(&self, netns: &Netns, name: &str, rack: usize, [v4, v6]: [IpAddr; 2]) -> Result<()> {
        ip(
            &self.outside,
            &[
                format!("link add to-{name} type veth peer name eth0 netns {}", path(netns)),
                format!("link set to-{name} master rack{rack} up"),
            ],
        )?;
        ip(
            netns,
            &[
                "link set lo up".to_owned(),
                format!("addr add {v4}/24 dev eth0"),
                format!("addr add {v6}/64 dev eth0 nodad"),
                "link set eth0 up".to_owned(),
                format!("route add default via {}", Nodes::outside_address(rack, false)),
                format!("-6 route add default via {}", Nodes::outside_address(rack, true)),
            ],
        )
    }

    /// The outside's address in a rack.
    pub fn outside_address(rack: usize, ipv6: bool) -> IpAddr {
        let text = if ipv6 { format!("fc00:{}::1", 18 + rack) } else { format!("172.{}.0.1", 18 + rack) };
        text.parse().expect("an address")
    }
}

impl Node {
    /// Its IPv4 and its IPv6 address.
    pub fn addresses(&self) -> [IpAddr; 2] {
        let (rack, host) = (18 + self.rack, 10 + self.number);
        [format!("172.{rack}.0.{host}"), format!("fc00:{rack}::{host}")]
            .map(|it| it.parse().expect("an address"))
    }

    /// Its PodCIDRs.
    pub fn pod_cidrs(&self) -> [String; 2] {
        [format!("10.244.{}.0/24", self.number), format!("fd00:10:244:{:x}::/64", self.number)]
    }

    /// A Node object of the API, with these families (IPv4 first).
    pub fn object(&self, ipv4: bool, ipv6: bool) -> Value {
        let wanted = [ipv4, ipv6];
        let of = |all: [String; 2]| -> Vec<String> {
            all.into_iter().zip(wanted).filter(|it| it.1).map(|it| it.0).collect()
        };
        let addresses = of(self.addresses().map(|it| it.to_string()));
        apiserver::node(&self.name, &of(self.pod_cidrs()), &addresses)
    }

    /// Runs `ip` with these commands in the node.
    ///
    /// # Errors
    /// One fails.
    pub fn ip(&self, commands: &[&str]) -> Result<()> {
        ip_batch(&self.netns, commands)
    }

    /// GET of a page of the node's agent: code and body.
    ///
    /// # Errors
    /// No agent listens.
    pub fn ask_agent(&self, page: &str) -> Result<(u16, String)> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, AGENT));
        let mut stream = self.run(|| TcpStream::connect_timeout(&address, PATIENCE))??;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {page} HTTP/1.1\r\nHost: podnetd\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let (head, body) = text.split_once("\r\n\r\n").context("no HTTP answer")?;
        let code = head.split(' ').nth(1).and_then(|it| it.parse().ok()).context("no status code")?;
        Ok((code, body.to_owned()))
    }

    /// What a command prints in the node; its words are separated by spaces.
    ///
    /// # Errors
    /// It fails.
    pub fn output(&self, command: &str) -> Result<String> {
        let mut words = command.split(' ');
        let mut run = Command::new(words.next().unwrap_or_default());
        let output = self.run(|| run.args(words).output())?.with_context(|| format!("start {command}"))?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{command}: {errors}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Makes a pod by the configuration list in the node's directory, as a runtime does.
    ///
    /// # Errors
    /// There is no such list, or a plugin refuses.
    pub fn add_pod(&self, namespace: &str, name: &str) -> Result<Pod> {
        self.add_pod_with(namespace, name, None, serde_json::Map::new())
    }

    /// As [`Node::add_pod`], of the pod with this uid in the API, and with what the runtime gives for capabilities, such
    /// as port mappings.
    ///
    /// # Errors
    /// Likewise.
    pub fn add_pod_with(
        &self,
        namespace: &str,
        name: &str,
        uid: Option<&str>,
        capability_args: serde_json::Map<String, Value>,
    ) -> Result<Pod> {
        let netns = Netns::create().context("make a pod's namespace")?;
        let attachment = Attachment {
            container_id: format!("{namespace}-{name}"),
            ifname: "eth0".to_owned(),
            netns: path(&netns).into(),
            args: [
                ("IgnoreUnknown", Some("1")),
                ("K8S_POD_NAMESPACE", Some(namespace)),
                ("K8S_POD_NAME", Some(name)),
                ("K8S_POD_UID", uid),
            ]
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned())))
            .collect(),
            capability_args,
        };
        let network = self.network()?;
        let report = self.run(|| self.runtime().add_list(&network, &attachment))?;
        let added =
            report.outcome.map_err(|error| anyhow::anyhow!("ADD of {namespace}/{name}: {error:?}"))?;
        let ips = added.result.ips.iter().map(|it| it.address.ip()).collect();
        ip_batch(&netns, &["link set lo up"])?;
        Ok(Pod {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            netns,
            ips,
            result: added.json,
            attachment,
        })
    }

    /// Ends a pod's attachment as a runtime does.
    ///
    /// # Errors
    /// A plugin refuses.
    pub fn del_pod(&self, pod: &Pod) -> Result<()> {
        let network = self.network()?;
        let report = self.run(|| self.runtime().del_list(&network, &pod.attachment, Some(&pod.result)))?;
        report.outcome.map_err(|error| anyhow::anyhow!("DEL of {}/{}: {error:?}", pod.namespace, pod.name))
    }

    /// CHECK of a pod's attachment.
    ///
    /// # Errors
    /// A plugin finds something wrong.
    pub fn check_pod(&self, pod: &Pod) -> Result<()> {
        let network = self.network()?;
        let report = self.run(|| self.runtime().check_list(&network, &pod.attachment, Some(&pod.result)))?;
        report.outcome.map_err(|error| anyhow::anyhow!("CHECK of {}/{}: {error:?}", pod.namespace, pod.name))
    }

    /// The configuration list that a runtime would take: the first of its directory.
    ///
    /// # Errors
    /// There is none.
    pub fn network(&self) -> Result<Network> {
        Network::load_first(&self.root.join(NET_D))
            .map_err(|error| anyhow::anyhow!("node {}: {error:?}", self.name))
    }

    /// Runs something in the node's network namespace.
    ///
    /// # Errors
    /// It cannot be entered.
    pub fn run<T>(&self, f: impl FnOnce() -> T) -> Result<T> {
        self.netns.run(f).with_context(|| format!("enter node {}", self.name))
    }

    fn runtime(&self) -> Runtime {
        Runtime { path: vec![self.root.join(BIN)], cache: None, timeout: Some(PATIENCE) }
    }
}

/// A server in a namespace that tells every client, by TCP and by UDP, from where it was seen.
#[derive(Debug)]
pub struct Echo {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Echo {
    /// Serves on port [`ECHO`] of all addresses.
    ///
    /// # Errors
    /// The port cannot be had.
    pub fn start(netns: &Netns) -> Result<Echo> {
        let (tcp, udp) = netns.run(|| -> Result<_> {
            Ok((TcpListener::bind(("::", ECHO))?, UdpSocket::bind(("::", ECHO))?))
        })??;
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        tcp.set_nonblocking(true)?;
        udp.set_read_timeout(Some(Duration::from_millis(50)))?;
        let ended = |stop: &std::sync::Arc<std::sync::atomic::AtomicBool>| {
            let stop = stop.clone();
            move || stop.load(std::sync::atomic::Ordering::Relaxed)
        };
        let (tcp_ended, udp_ended) = (ended(&stop), ended(&stop));
        let threads = vec![
            std::thread::spawn(move || {
                while !tcp_ended() {
                    match tcp.accept() {
                        Ok((mut stream, from)) => drop(writeln!(stream, "{}", plain(from))),
                        Err(_) => std::thread::sleep(Duration::from_millis(5)),
                    }
                }
            }),
            std::thread::spawn(move || {
                let mut buffer = [0; 64];
                while !udp_ended() {
                    if let Ok((_, from)) = udp.recv_from(&mut buffer) {
                        let _ = udp.send_to(format!("{}\n", plain(from)).as_bytes(), from);
                    }
                }
            }),
        ];
        Ok(Echo { stop, threads })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// An IPv4 address that came over an IPv6 socket, as what it is.
fn plain(address: SocketAddr) -> IpAddr {
    address.ip().to_canonical()
}

/// From where an [`Echo`] at `to` sees a TCP client of this namespace.
///
/// # Errors
/// It cannot be reached within `limit`.
pub fn seen_as(netns: &Netns, to: IpAddr, limit: Duration) -> Result<IpAddr> {
    seen_as_at(netns, SocketAddr::new(to, ECHO), limit)
}

/// As [`seen_as`], at another port.
///
/// # Errors
/// Likewise.
pub fn seen_as_at(netns: &Netns, to: SocketAddr, limit: Duration) -> Result<IpAddr> {
    let connect = || TcpStream::connect_timeout(&to, limit);
    let mut stream = netns.run(connect)?.with_context(|| format!("connect to {to}"))?;
    stream.set_read_timeout(Some(limit))?;
    let mut text = String::new();
    stream.read_to_string(&mut text).with_context(|| format!("read from {to}"))?;
    text.trim().parse().with_context(|| format!("{to} answered {text:?}"))
}

/// Waits until `done` says so.
///
/// # Errors
/// It does not within a minute; the last it said is told.
pub fn wait_until<T>(what: &str, done: impl FnMut() -> Result<T>) -> Result<T> {
    wait_within(what, Duration::from_secs(60), done)
}

/// As [`wait_until`], with another limit.
///
/// # Errors
/// Likewise.
pub fn wait_within<T>(what: &str, limit: Duration, mut done: impl FnMut() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    loop {
        match done() {
            Ok(value) => return Ok(value),
            Err(error) if started.elapsed() > limit => {
                return Err(error.context(format!("{what}: not within {} s", limit.as_secs())));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// The path by which any process can open a namespace that this process holds.
pub fn path(netns: &Netns) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), netns.as_fd().as_raw_fd())
}

fn ip(netns: &Netns, commands: &[String]) -> Result<()> {
    ip_batch(netns, &commands.iter().map(String::as_str).collect::<Vec<_>>())
}

fn forward(netns: &Netns) -> Result<()> {
    netns.run(|| -> Result<()> {
        fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
        fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")?;
        Ok(())
    })??;
    ensure!(fs::metadata("/proc/sys/net").is_ok(), "no /proc/sys/net");
    Ok(())
}
