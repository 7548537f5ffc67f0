//! One node with pods made by the real plugins, and its agent as far as policies go.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use agent::model::{Change, Cluster};
use agent::policy::{Enforcer, slots};
use agent::wire;
use anyhow::{Context, Result, ensure};
use kernel::{Netns, uninterrupted};
use podnet_tests::nodes::{Node, Nodes, Pod};
use serde_json::Value;

use super::bed;

/// A node, `n0`, and what the API knows.
pub(super) struct One {
    pub(super) nodes: Nodes,
    pub(super) cluster: Cluster,
}

impl One {
    /// Without pods and agent. `chained`: with `podnet-policy` in its list.
    pub(super) fn new(chained: bool) -> Result<One> {
        let nodes = Nodes::new(&[0])?;
        bed::furnish(&nodes, chained)?;
        let mut cluster = Cluster::default();
        let object = nodes.nodes[0].object(true, true);
        cluster.take(Change::Node(wire::node(serde_json::from_value(object)?)));
        for namespace in bed::NAMESPACES {
            let object = bed::namespace_object(namespace);
            cluster.take(Change::Namespace(wire::namespace(serde_json::from_value(object)?)));
        }
        Ok(One { nodes, cluster })
    }

    pub(super) fn node(&self) -> &Node {
        &self.nodes.nodes[0]
    }

    /// An enforcer that has made its table.
    pub(super) fn enforcer(&self) -> Result<Enforcer> {
        let mut enforcer = self.node().run(|| Enforcer::open(&self.node().name, &self.node().root))??;
        enforcer.sync(&self.cluster)?;
        Ok(enforcer)
    }

    /// Tells the API of a pod, with or without its addresses.
    pub(super) fn tell_pod(&mut self, namespace: &str, name: &str, ips: &[IpAddr]) -> Result<()> {
        tell_pod(&mut self.cluster, namespace, name, ips)
    }

    /// Gives the API these policies.
    pub(super) fn set_policies(&mut self, policies: &[Value]) -> Result<()> {
        let policies: Result<Vec<_>> =
            policies.iter().map(|it| Ok(wire::policy(serde_json::from_value(it.clone())?))).collect();
        self.cluster.take(Change::Policies(policies?));
        Ok(())
    }

    /// Runs `nft` in the node.
    pub(super) fn nft(&self, command: &str) -> Result<String> {
        self.node().output(&format!("nft {command}"))
    }
}

/// Tells a cluster of a pod on `n0`.
pub(super) fn tell_pod(cluster: &mut Cluster, namespace: &str, name: &str, ips: &[IpAddr]) -> Result<()> {
    let object = bed::pod_object(namespace, name, "n0", ips);
    cluster.take(Change::Pod(wire::pod(serde_json::from_value(object)?)));
    Ok(())
}

/// The policy part of an agent, in a thread: it answers the plugin.
pub(super) struct Agent {
    changes: Option<Sender<Cluster>>,
    heard: Receiver<slots::Verb>,
    thread: Option<JoinHandle<Result<Enforcer>>>,
}

impl Agent {
    pub(super) fn start(one: &One) -> Result<Agent> {
        let mut enforcer = one.enforcer()?;
        let socket = one.node().root.join(slots::SOCKET);
        let (changes, news) = channel::<Cluster>();
        let (tell, heard) = channel();
        let (ready, is_ready) = channel();
        let mut cluster = one.cluster.clone();
        let run = move || -> Result<Enforcer> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime
                .block_on(async {
                    let mut requests = slots::listen(&socket)?;
                    ready.send(())?;
                    loop {
                        let turn = tokio::time::timeout(Duration::from_millis(2), requests.next()).await;
                        if let Ok(request) = turn {
                            let _ = tell.send(request.verb);
                            enforcer.take(request, &cluster)?;
                        }
                        match news.try_recv() {
                            Ok(changed) => {
                                cluster = changed;
                                enforcer.sync(&cluster)?;
                            }
                            Err(std::sync::mpsc::TryRecvError::Empty) => {}
                            Err(std::sync::mpsc::TryRecvError::Disconnected) => return Ok(()),
                        }
                    }
                })
                .map(|()| enforcer)
        };
        let thread = std::thread::spawn(run);
        is_ready.recv_timeout(Duration::from_secs(20)).context("the agent does not listen")?;
        Ok(Agent { changes: Some(changes), heard, thread: Some(thread) })
    }

    /// Tells it what the API knows by now.
    pub(super) fn tell(&self, cluster: &Cluster) -> Result<()> {
        self.changes.as_ref().context("it runs")?.send(cluster.clone()).context("the agent has ended")
    }

    /// The next that a plugin tells it.
    pub(super) fn hears(&self) -> Result<slots::Verb> {
        self.heard.recv_timeout(Duration::from_secs(20)).context("no plugin told anything for 20 s")
    }

    /// Ends it; its socket goes, its table stays.
    pub(super) fn end(mut self) -> Result<Enforcer> {
        self.changes = None;
        let thread = self.thread.take().context("it runs")?;
        thread.join().map_err(|_| anyhow::anyhow!("the agent panicked"))?
    }
}

/// A client and a server that keep their ports, and so one connection.
pub(super) struct Talk {
    client: UdpSocket,
    server: UdpSocket,
    to: SocketAddr,
}

impl Talk {
    /// From a pod to port 8080 of another, which is reached under `to`.
    pub(super) fn new(client: &Netns, server: &Pod, to: SocketAddr) -> Result<Talk> {
        Talk::at(client, server, 8080, to)
    }

    /// As [`Talk::new`], to another port of the pod, under its own address.
    pub(super) fn to_port(client: &Netns, server: &Pod, port: u16) -> Result<Talk> {
        Talk::at(client, server, port, SocketAddr::new(server.ips[0], port))
    }

    fn at(client: &Netns, server: &Pod, port: u16, to: SocketAddr) -> Result<Talk> {
        let bind = |address: SocketAddr| {
            move || -> Result<UdpSocket> {
                let socket = UdpSocket::bind(address)?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            }
        };
        let server = server.netns.run(bind((server.ips[0], port).into()))??;
        let client = client.run(bind(([0, 0, 0, 0], 0).into()))??;
        Ok(Talk { client, server, to })
    }

    /// Whether a datagram gets there within `limit`, and its answer back.
    pub(super) fn passes(&self, limit: Duration) -> Result<bool> {
        let started = Instant::now();
        let mut buffer = [0; 16];
        while started.elapsed() < limit {
            // What is refused on the way is tried again.
            let _ = self.client.send_to(b"ask", self.to);
            let until = Instant::now() + Duration::from_millis(20);
            while Instant::now() < until {
                if let Ok((_, from)) = uninterrupted(|| self.server.recv_from(&mut buffer)) {
                    self.server.send_to(b"answer", from)?;
                }
                if uninterrupted(|| self.client.recv_from(&mut buffer)).is_ok() {
                    return Ok(true);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(false)
    }

    /// It passes, and if that takes a while.
    pub(super) fn goes_on(&self, what: &str) -> Result<()> {
        ensure!(self.passes(Duration::from_secs(20))?, "{what}: nothing passes");
        Ok(())
    }

    /// Nothing passes, in either direction.
    pub(super) fn is_stopped(&self, what: &str) -> Result<()> {
        // What was on its way before is let through.
        std::thread::sleep(Duration::from_millis(20));
        let mut buffer = [0; 16];
        while self.server.recv_from(&mut buffer).is_ok() || self.client.recv_from(&mut buffer).is_ok() {}
        ensure!(!self.passes(Duration::from_millis(300))?, "{what}: datagrams pass");
        Ok(())
    }
}
