//! A node's agent: the process that stands for the node's kubelet. It makes the node's pods, calls the plugins for them,
//! starts their containers, and deletes the pods again when it is told to.
//!
//! A process of its own and not a thread of the supervisor, which holds several descriptors of every pod: each start of
//! a program copies and closes all descriptors of the process that does it. The agent has few, and as it has one thread
//! its pods' containers are forks of it. Here is the supervisor's end; `node` is the agent's.

mod neighbours;
mod node;
mod proc;

use std::fs::File;
use std::io::BufReader;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::capsule;
use crate::cluster::{Containers, Pod, PodMeta, Role, Space};
use crate::construct::{IFNAME, enter, in_thread, netns_path};
use crate::control;
use crate::probe::Sidecar;
use crate::topology::Topology;
pub use node::run;

/// The argument under which the binary is an agent.
pub const AGENT: &str = "__agent";

/// After so many pods an agent waits until their pipes have been taken: each process that it starts copies and closes
/// what it still holds.
const CHUNK: usize = 16;

/// What an agent is told to do.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Order {
    /// Make all pods of a node.
    Fill { topology: Box<Topology>, index: usize, path: Vec<PathBuf> },
    /// Make one more pod.
    Add { name: String },
    /// End a pod.
    Remove { name: String },
    /// Start containers in the namespace of that name, which is there.
    Host { name: String },
    /// The pipes of the containers have been taken.
    Release,
    /// CNI DEL of every pod.
    Delete,
}

/// What an agent tells.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum News {
    /// A pod is made.
    Pod(Made),
    /// Containers are started.
    Containers(Processes),
    /// All of them listen.
    Ready,
    /// Every pod was deleted.
    Deleted(Deleted),
    /// A pod was ended; what did not go as it should.
    Removed(Vec<String>),
    /// One more pod could not be made; nothing is left of it.
    NotMade(String),
    /// It did not work; the agent ends.
    Failed(String),
}

#[derive(Debug, Serialize, Deserialize)]
struct Made {
    name: String,
    container_id: String,
    addresses: Vec<IpAddr>,
    result: Value,
    processes: Processes,
}

/// Containers, and the agent's numbers of the pipes to the sidecar.
#[derive(Debug, Serialize, Deserialize)]
struct Processes {
    kubia: i32,
    sidecar: i32,
    kubia_log: PathBuf,
    requests: i32,
    answers: i32,
}

/// What came of deleting the pods of a node by CNI DEL.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Deleted {
    /// Calls that succeeded.
    pub deleted: usize,
    /// Calls that failed, in the plugins' words.
    pub failed: Vec<String>,
    /// Interfaces and reservations that are still there after a call that succeeded.
    pub left: Vec<String>,
    /// How long all calls took, in milliseconds.
    pub ms: u64,
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    orders: UnixStream,
    news: BufReader<UnixStream>,
}

impl Agent {
    /// Starts an agent in a space.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn start(space: &Space) -> Result<Agent> {
        let start = || -> Result<Agent> {
            let (ours, theirs) = UnixStream::pair()?;
            let theirs = OwnedFd::from(theirs);
            let spawn = || {
                enter(space)?;
                let mut command = Command::new("/proc/self/exe");
                // The plugins get this environment, but for what is the supervisor's own.
                command.env_remove(capsule::TOPOLOGY);
                Ok(command.arg(AGENT).stdin(theirs).stdout(Stdio::null()).spawn()?)
            };
            let child = in_thread(spawn)?;
            let news = BufReader::new(ours.try_clone()?);
            Ok(Agent { child, orders: ours, news })
        };
        start().with_context(|| format!("start the agent of {}", space.name))
    }

    fn order(&mut self, order: &Order) -> Result<()> {
        control::send(&mut self.orders, order).context("tell an agent")
    }

    fn news(&mut self) -> Result<News> {
        match control::receive(&mut self.news).context("hear from an agent")? {
            Some(News::Failed(text)) => Err(anyhow!(text)),
            Some(news) => Ok(news),
            None => bail!("an agent is gone (killed?)"),
        }
    }

    /// Makes all pods of node `index`.
    ///
    /// # Errors
    /// What failed on the node; a plugin's failure comes with all that went into it and came out.
    pub fn fill(&mut self, topology: &Topology, index: usize, path: &[PathBuf]) -> Result<Vec<Pod>> {
        self.order(&Order::Fill { topology: Box::new(topology.clone()), index, path: path.to_vec() })?;
        let mut pods = Vec::new();
        loop {
            match self.news()? {
                News::Pod(made) => {
                    pods.push(self.pod(index, made)?);
                    if pods.len() % CHUNK == 0 {
                        self.order(&Order::Release)?;
                    }
                }
                News::Ready => break,
                other => bail!("an agent says {other:?} while it makes pods"),
            }
        }
        self.order(&Order::Release)?;
        Ok(pods)
    }

    fn pod(&self, node: usize, made: Made) -> Result<Pod> {
        let (containers, uts) = self.containers(&made.processes).with_context(|| made.name.clone())?;
        let netns = kernel::Netns::open(&netns_path(&made.name))?;
        Ok(Pod {
            node,
            container_id: made.container_id,
            ifname: IFNAME.to_owned(),
            addresses: made.addresses,
            result: made.result,
            containers,
            meta: PodMeta::default(),
            space: Space { name: made.name, netns, uts: Some(uts), role: Role::Pod },
        })
    }

    /// Starts containers in a space that is no pod; also gives their UTS namespace.
    ///
    /// # Errors
    /// They do not start.
    pub fn host(&mut self, space: &Space) -> Result<(Containers, File)> {
        self.order(&Order::Host { name: space.name.clone() })?;
        let News::Containers(processes) = self.news()? else { bail!("an agent started no containers") };
        let taken = self.containers(&processes)?;
        let News::Ready = self.news()? else { bail!("an agent's containers are not ready") };
        self.order(&Order::Release)?;
        Ok(taken)
    }

    /// Makes one more pod, on node `index`, and waits until its kubia listens.
    ///
    /// # Errors
    /// As [`Agent::fill`]; the agent lives on.
    pub fn add(&mut self, index: usize, name: &str) -> Result<Pod> {
        self.order(&Order::Add { name: name.to_owned() })?;
        let pod = match self.news()? {
            News::Pod(made) => self.pod(index, made)?,
            News::NotMade(text) => bail!(text),
            other => bail!("an agent says {other:?} while it makes a pod"),
        };
        let ready = self.news()?;
        self.order(&Order::Release)?;
        match ready {
            News::Ready => Ok(pod),
            News::NotMade(text) => bail!(text),
            other => bail!("an agent says {other:?} while a pod starts"),
        }
    }

    /// Ends a pod: its processes, CNI DEL, its namespace's name. What did not go as it should is returned.
    ///
    /// # Errors
    /// The agent is gone.
    pub fn remove(&mut self, name: &str) -> Result<Vec<String>> {
        self.order(&Order::Remove { name: name.to_owned() })?;
        match self.news()? {
            News::Removed(troubles) => Ok(troubles),
            other => bail!("an agent says {other:?} instead of what it ended"),
        }
    }

    /// Takes the pipes of containers over, by the agent's numbers for them.
    fn containers(&self, made: &Processes) -> Result<(Containers, File)> {
        let pipe = |number: i32| PathBuf::from(format!("/proc/{}/fd/{number}", self.child.id()));
        let requests = File::options().write(true).open(pipe(made.requests)).context("pipe to a sidecar")?;
        let answers = File::open(pipe(made.answers)).context("pipe from a sidecar")?;
        let uts = File::open(format!("/proc/{}/ns/uts", made.kubia)).context("UTS namespace of a pod")?;
        let containers = Containers {
            kubia_pid: made.kubia,
            sidecar_pid: made.sidecar,
            sidecar: Mutex::new(Sidecar::new(requests, answers)),
            kubia_log: made.kubia_log.clone(),
        };
        Ok((containers, uts))
    }

    /// Deletes every pod of the node by CNI DEL.
    ///
    /// # Errors
    /// The agent is gone.
    pub fn delete(&mut self) -> Result<Deleted> {
        self.order(&Order::Delete)?;
        match self.news()? {
            News::Deleted(deleted) => Ok(deleted),
            other => bail!("an agent says {other:?} instead of what it deleted"),
        }
    }

    /// Ends the agent; its containers live on.
    pub fn end(mut self) {
        // It ends when nobody can tell it anything any more; what it ends with matters to nobody.
        drop((self.orders, self.news));
        let _ = self.child.wait();
    }
}
