//! The agent itself, on its node: orders come in on standard input, a socket, on which news go out.

use std::fs::File;
use std::io::{BufReader, PipeReader};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kernel::link::{self, Change};
use kernel::{Netns, Rtnl, packet};
use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::sethostname;
use serde_json::Value;

use super::proc::Instance;
use super::{CHUNK, Deleted, Made, News, Order, Processes, neighbours};
use crate::construct::{IFNAME, netns_path, publish, silence};
use crate::containers::{self, Started};
use crate::plugins::Plugins;
use crate::topology::Topology;
use crate::{control, exit};

const NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWNET.union(CloneFlags::CLONE_NEWUTS);

/// How long the link of a pod with IPv6 may take until the kernel uses it.
const SETTLED: Duration = Duration::from_secs(1);

/// Runs as an agent until its supervisor is gone.
pub fn run() -> u8 {
    let serve = || -> Result<()> {
        let mut news = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
        let mut orders = BufReader::new(news.try_clone()?);
        let mut agent = Agent {
            home: View::own()?,
            proc: Instance::default(),
            pipes: Vec::new(),
            node: None,
            has_v6: false,
        };
        while let Some(order) = control::receive(&mut orders)? {
            if let Err(err) = agent.follow(order, &mut news, &mut orders) {
                control::send(&mut news, &News::Failed(format!("{err:#}")))?;
                break;
            }
        }
        Ok(())
    };
    match serve() {
        Ok(()) => exit::OK,
        Err(_) => exit::FAILED,
    }
}

/// Network and UTS namespace of one place.
struct View {
    net: File,
    uts: File,
}

impl View {
    fn own() -> Result<View> {
        let open = |kind: &str| {
            let path = format!("/proc/self/ns/{kind}");
            File::open(&path).with_context(|| format!("open {path}"))
        };
        Ok(View { net: open("net")?, uts: open("uts")? })
    }

    /// The calling thread, the only one, goes there.
    fn enter(&self) -> Result<()> {
        setns(&self.net, CloneFlags::CLONE_NEWNET).context("enter a network namespace")?;
        setns(&self.uts, CloneFlags::CLONE_NEWUTS).context("enter a UTS namespace")
    }
}

struct Agent {
    home: View,
    /// By which the pods' sysctls are set.
    proc: Instance,
    /// Pipes that the supervisor has not taken over yet.
    pipes: Vec<Started>,
    /// The node's plugins and pods, once there are any.
    node: Option<(Plugins, Vec<(String, Value)>)>,
    /// The lab has IPv6.
    has_v6: bool,
}

impl Agent {
    fn follow(
        &mut self,
        order: Order,
        news: &mut UnixStream,
        orders: &mut BufReader<UnixStream>,
    ) -> Result<()> {
        match order {
            Order::Fill { topology, index, path } => self.fill(&topology, index, path, (news, orders)),
            Order::Add { name } => self.add(&name, news),
            Order::Remove { name } => {
                let troubles = self.remove(&name);
                Ok(control::send(news, &News::Removed(troubles))?)
            }
            Order::Host { name } => {
                let host = Netns::open(&netns_path(&name))?;
                setns(&host, CloneFlags::CLONE_NEWNET).context("enter a network namespace")?;
                unshare(CloneFlags::CLONE_NEWUTS).context("new UTS namespace")?;
                sethostname(&name).context("set the host name")?;
                let mut started = containers::start(&name)?;
                self.home.enter()?;
                control::send(news, &News::Containers(processes(&started)))?;
                let ready = started.ready.take();
                self.pipes.push(started);
                containers::wait_until_ready(ready).with_context(|| format!("kubia of {name}"))?;
                Ok(control::send(news, &News::Ready)?)
            }
            Order::Release => {
                self.pipes.clear();
                Ok(())
            }
            Order::Delete => {
                let deleted = self.node.take().map(|(plugins, pods)| delete(&plugins, &pods));
                Ok(control::send(news, &News::Deleted(deleted.unwrap_or_default()))?)
            }
        }
    }

    fn fill(
        &mut self,
        topology: &Topology,
        index: usize,
        path: Vec<PathBuf>,
        (news, orders): (&mut UnixStream, &mut BufReader<UnixStream>),
    ) -> Result<()> {
        let plugins = Plugins::new(topology, index, path)?;
        self.has_v6 = topology.ranges.pods.of(kernel::Family::V6).is_some();
        let mut waiting: Vec<(String, Option<PipeReader>)> = Vec::new();
        // All of them start while the next pods are made.
        let await_all = |waiting: &mut Vec<(String, Option<PipeReader>)>| {
            let mut each = waiting.drain(..);
            each.try_for_each(|(name, ready)| {
                containers::wait_until_ready(ready).with_context(|| format!("kubia of {name}"))
            })
        };
        let mut pods = Vec::new();
        for number in 0..topology.pods as usize {
            let name = topology.pod_name(index, number);
            let (made, ready) = self.make(&plugins, &name)?;
            waiting.push((name.clone(), ready));
            pods.push((name, made.result.clone()));
            control::send(news, &News::Pod(made))?;
            if pods.len() % CHUNK == 0 {
                await_all(&mut waiting)?;
                match control::receive(orders)?.context("the supervisor is gone")? {
                    Order::Release => self.pipes.clear(),
                    other => bail!("an order {other:?} while pods are made"),
                }
            }
        }
        await_all(&mut waiting)?;
        self.proc.end()?;
        neighbours::settle(&pods, topology.nodes.len() * topology.pods as usize)?;
        self.node = Some((plugins, pods));
        Ok(control::send(news, &News::Ready)?)
    }

    /// A pod by CNI ADD, and its containers; the pipe ends when its kubia listens.
    fn make(&mut self, plugins: &Plugins, name: &str) -> Result<(Made, Option<PipeReader>)> {
        let view = self.space(name).with_context(|| format!("namespace of {name}"))?;
        let added = plugins.add(name)?;
        view.enter()?;
        // Best effort: not every plugin makes a device that can.
        let _ = packet::ethtool_offloads(IFNAME, false);
        if self.has_v6 {
            let settle = || -> Result<bool> {
                let mut rtnl = Rtnl::open()?;
                let index = link::by_name(&mut rtnl, IFNAME)?.index;
                Ok(link::wait_oper_up(&mut rtnl, index, SETTLED)?)
            };
            // So is this: one that carries nothing is found by whoever verifies.
            let _ = settle();
        }
        let started = containers::start(name);
        self.home.enter()?;
        let mut started = started?;
        let ready = started.ready.take();
        let made = Made {
            container_id: plugins.container_id(name),
            addresses: added.result.ips.iter().map(|ip| ip.address.ip()).collect(),
            result: added.json,
            processes: processes(&started),
            name: name.to_owned(),
        };
        self.pipes.push(started);
        Ok((made, ready))
    }

    /// One more pod. What a failed one has left is taken back by DEL, as a runtime does.
    fn add(&mut self, name: &str, news: &mut UnixStream) -> Result<()> {
        let (plugins, mut pods) = self.node.take().context("no node to make a pod on")?;
        let made = self.make(&plugins, name);
        let failed = match made {
            Ok((made, ready)) => {
                pods.push((name.to_owned(), made.result.clone()));
                control::send(news, &News::Pod(made))?;
                containers::wait_until_ready(ready).with_context(|| format!("kubia of {name}")).err()
            }
            Err(err) => {
                pods.push((name.to_owned(), Value::Null));
                Some(err)
            }
        };
        self.node = Some((plugins, pods));
        match failed {
            None => Ok(control::send(news, &News::Ready)?),
            Some(err) => {
                // The first error is the one to tell; nothing may have been made.
                self.remove(name);
                Ok(control::send(news, &News::NotMade(format!("{err:#}")))?)
            }
        }
    }

    /// Ends a pod, whatever is there of it; what did not go as it should.
    fn remove(&mut self, name: &str) -> Vec<String> {
        let mut troubles = Vec::new();
        let Some((plugins, pods)) = &mut self.node else { return troubles };
        let known = pods.iter().position(|pod| pod.0 == name).map(|index| pods.remove(index).1);
        let path = netns_path(name);
        let mut note = |done: Result<()>| troubles.extend(done.err().map(|err| format!("{err:#}")));
        if path.exists() {
            note(Netns::open(&path).map_err(Into::into).and_then(|netns| containers::end(&netns)));
        }
        if let Some(result) = known {
            note(plugins.del(name, &result));
        }
        if path.exists() {
            note(withdraw(&path));
        }
        troubles
    }

    /// A pod's namespaces, named on /run/netns, with lo up as a runtime does it before the first plugin.
    fn space(&mut self, name: &str) -> Result<View> {
        let proc = self.proc.path()?;
        unshare(NAMESPACES).context("new network and UTS namespaces")?;
        let make = || -> Result<View> {
            sethostname(name).context("set the host name")?;
            silence(proc, self.has_v6)?;
            let mut rtnl = Rtnl::open()?;
            // The kernel gives lo the first number of every namespace (LOOPBACK_IFINDEX, net/flow.h).
            link::set(&mut rtnl, 1, &Change { up: Some(true), ..Change::default() })?;
            View::own()
        };
        let view = make();
        self.home.enter()?;
        let view = view?;
        publish(name, &view.net)?;
        Ok(view)
    }
}

/// Takes a namespace's name away; the namespace goes with its last process and descriptor.
fn withdraw(path: &Path) -> Result<()> {
    umount2(path, MntFlags::MNT_DETACH).with_context(|| format!("unmount {}", path.display()))?;
    std::fs::remove_file(path).with_context(|| format!("remove {}", path.display()))
}

fn processes(started: &Started) -> Processes {
    use std::os::fd::AsRawFd;
    Processes {
        kubia: started.kubia_pid,
        sidecar: started.sidecar_pid,
        kubia_log: started.kubia_log.clone(),
        requests: started.requests.as_raw_fd(),
        answers: started.answers.as_raw_fd(),
    }
}

/// CNI DEL of every pod, whatever became of the one before it, and a look at what is left afterwards.
fn delete(plugins: &Plugins, pods: &[(String, Value)]) -> Deleted {
    let start = Instant::now();
    let mut outcome = Deleted::default();
    let mut gone = Vec::new();
    for (name, result) in pods {
        match plugins.del(name, result) {
            Ok(()) => gone.push(name),
            Err(err) => outcome.failed.push(format!("{err:#}")),
        }
    }
    outcome.ms = start.elapsed().as_millis() as u64;
    outcome.deleted = gone.len();
    let has_interface = |name: &str| {
        let look = || link::by_name(&mut Rtnl::open_in(&Netns::open(&netns_path(name))?)?, IFNAME);
        look().is_ok()
    };
    let interfaces = gone.into_iter().filter(|name| has_interface(name));
    outcome.left.extend(interfaces.map(|name| format!("{IFNAME} of pod {name}")));
    // A call that failed leaves its reservation, and is told of already.
    if outcome.failed.is_empty() {
        outcome.left.extend(plugins.reservations().iter().map(|ip| format!("reservation of {ip}")));
    }
    outcome
}
