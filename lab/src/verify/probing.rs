//! Sending the probes of all checks under one capture, and collecting what came of them.
//!
//! Each client's probes go to its sidecar as one request; several sidecars work at once. The capture starts before the
//! first probe and is read to its end after the last outcome.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};

use super::{End, Task};
use crate::bytes::random;
use crate::capture::{Capture, Options, Recording};
use crate::cluster::{Cluster, Pod, Role};
use crate::encap::Seal;
use crate::kubia::{self, Visit};
use crate::look;
use crate::packet::{Nonce, Packet};
use crate::probe::{ProbeOutcome, ProbeRequest, Protocol, port_apart};
use crate::trace::is_icmp_error;

/// How long a probe waits for its answer, in milliseconds.
pub(super) const TIMEOUT_MS: u64 = 1000;
/// Sidecars at work at once, for each processor.
const PER_PROCESSOR: usize = 2;
/// Neighbours that probes may leave behind: all namespaces of a machine share 1024 that come and go
/// (net.ipv4.neigh.default.gc_thresh3), the kernel keeps each for five seconds at least (neigh_forced_gc,
/// net/core/neighbour.c), and who finds no room is told of a full buffer or hears nothing.
const ROOM: usize = 384;
/// Probes of a client after which there must be room again where that is scarce.
const ROUND: usize = 48;

/// What came of the probes.
pub(super) struct Probed {
    pub(super) nonces: NonceMaker,
    /// By the number of the task; or why there is none.
    pub(super) outcomes: Vec<Result<ProbeOutcome, String>>,
    pub(super) recording: Recording,
    pub(super) visits: HashMap<Nonce, Visit>,
}

/// Makes nonces that no other run makes: half random for the run, half a number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NonceMaker {
    run: u64,
}

impl NonceMaker {
    pub(crate) fn new() -> Result<NonceMaker> {
        Ok(NonceMaker { run: u64::from_ne_bytes(random()?) })
    }

    pub(crate) fn nonce(self, number: usize) -> Nonce {
        Nonce(u128::from(self.run) << 64 | number as u128)
    }

    /// The packet belongs to a probe of this run, begins a connection, or cannot be read.
    pub(crate) fn is_ours(self, packet: &Packet) -> bool {
        if packet.ip().is_some_and(|ip| Seal::of(ip).is_some()) {
            return true;
        }
        let begins = packet.tcp().is_some_and(|tcp| tcp.is_syn);
        begins || packet.nonce().is_some_and(|n| (n.0 >> 64) as u64 == self.run)
    }
}

/// A reset, or an ICMP error.
fn is_refusal(packet: &Packet) -> bool {
    packet.tcp().is_some_and(|tcp| tcp.is_reset) || is_icmp_error(packet)
}

/// Sends the probe of every task.
pub(super) fn run(cluster: &Cluster, tasks: &[Task<'_>], keep_frames: bool) -> Result<Probed> {
    let nonces = NonceMaker::new()?;
    let logs = Logs::open(tasks)?;
    let servers = tasks.iter().flat_map(|task| &task.servers).map(|server| server.name);
    let ends: HashSet<&str> = tasks.iter().map(|task| task.client.name).chain(servers).collect();
    let spaces = cluster.spaces().filter(|s| s.role != Role::Pod || ends.contains(s.name.as_str()));
    let options = Options { without_arp: true, keep_frames };
    // Who judges from the file alone has to see the refusals too.
    let wanted = move |packet: &Packet| nonces.is_ours(packet) || keep_frames && is_refusal(packet);
    let capture = Capture::start_with(spaces, options, wanted)?;
    let outcomes = send(cluster, tasks, nonces, &capture);
    let recording = capture.stop()?;
    Ok(Probed { nonces, outcomes, recording, visits: logs.read()? })
}

/// The numbers of the tasks of one client.
struct Round<'c> {
    client: End<'c>,
    tasks: Vec<usize>,
}

/// The tasks by client, at most so many in one round.
fn rounds<'c>(tasks: &[Task<'c>], most: usize) -> Vec<Round<'c>> {
    let mut rounds: Vec<Round<'c>> = Vec::new();
    let mut index = HashMap::new();
    for (i, task) in tasks.iter().enumerate().filter(|(_, t)| t.aim.target().is_some()) {
        let open = index.get(task.client.name).copied().filter(|&at: &usize| rounds[at].tasks.len() < most);
        let at = open.unwrap_or_else(|| {
            rounds.push(Round { client: task.client, tasks: Vec::new() });
            rounds.len() - 1
        });
        index.insert(task.client.name, at);
        rounds[at].tasks.push(i);
    }
    rounds
}

fn send(
    cluster: &Cluster,
    tasks: &[Task<'_>],
    nonces: NonceMaker,
    capture: &Capture,
) -> Vec<Result<ProbeOutcome, String>> {
    let outcomes = Mutex::new(vec![Err("nothing was sent".to_owned()); tasks.len()]);
    let is_crowded = neighbours(cluster, tasks) > ROOM;
    let most = if is_crowded { ROUND } else { usize::MAX };
    let queue = Mutex::new(rounds(tasks, most).into_iter());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        while let Some(round) = next() {
            capture.catch_up();
            let sent = one_round(&round, tasks, nonces);
            if is_crowded {
                make_room(cluster, &round, tasks);
            }
            let mut all = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
            for (n, &task) in round.tasks.iter().enumerate() {
                all[task] = match &sent {
                    Ok(list) => Ok(list[n].clone()),
                    Err(e) => Err(format!("{}: {e:#}", round.client.name)),
                };
            }
        }
    };
    let processors = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..processors * PER_PROCESSOR {
            scope.spawn(work);
        }
    });
    outcomes.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn one_round(round: &Round<'_>, tasks: &[Task<'_>], nonces: NonceMaker) -> Result<Vec<ProbeOutcome>> {
    let request = |&i: &usize| {
        Some(ProbeRequest {
            nonce: nonces.nonce(i),
            protocol: Protocol::Tcp,
            target: tasks[i].aim.target()?,
            timeout_ms: TIMEOUT_MS,
            padding: 0,
            source_port: (!matches!(tasks[i].aim, super::Aim::Service(_))).then(port_apart),
        })
    };
    let requests = round.tasks.iter().filter_map(request).collect();
    // A panic while another batch was under way leaves the sidecar's pipes as usable as before: answers are numbered.
    let mut sidecar = round.client.sidecar.lock().unwrap_or_else(PoisonError::into_inner);
    sidecar.probe(requests)
}

/// How many neighbours pods learn of each other by all probes: one at each end, which the way back needs no more of.
fn neighbours(cluster: &Cluster, tasks: &[Task<'_>]) -> usize {
    let node_of: HashMap<&str, usize> =
        cluster.pods.iter().map(|pod| (pod.space.name.as_str(), pod.node)).collect();
    let mut pairs = HashSet::new();
    for task in tasks {
        let client = task.client.name;
        for server in task.servers.iter().map(|server| server.name) {
            if client != server && node_of.contains_key(client) && node_of.get(client) == node_of.get(server)
            {
                pairs.insert((client.min(server), client.max(server)));
            }
        }
    }
    2 * pairs.len()
}

/// Forgets the neighbours that a round has learned, so that the next ones have room ([`ROOM`]).
fn make_room(cluster: &Cluster, round: &Round<'_>, tasks: &[Task<'_>]) {
    let Some(client) = cluster.pod(round.client.name) else { return };
    let servers = round.tasks.iter().flat_map(|&task| &tasks[task].servers);
    let names: HashSet<&str> = servers.map(|server| server.name).collect();
    let is_sibling = |pod: &&Pod| pod.node == client.node && names.contains(pod.space.name.as_str());
    let siblings: Vec<&Pod> = cluster.pods.iter().filter(is_sibling).collect();
    let addresses: Vec<IpAddr> = siblings.iter().flat_map(|pod| pod.addresses.clone()).collect();
    // What stays is forgotten by the kernel, later.
    let _ = look::forget_known(&client.space, &addresses);
    for pod in siblings {
        let _ = look::forget_known(&pod.space, &client.addresses);
    }
}

/// The logs of the servers, from where they end now.
struct Logs(Vec<File>);

impl Logs {
    fn open(tasks: &[Task<'_>]) -> Result<Logs> {
        let mut paths: Vec<&Path> =
            tasks.iter().flat_map(|t| &t.servers).filter_map(|server| server.log).collect();
        paths.sort_unstable();
        paths.dedup();
        let open = |path: &Path| -> Result<File> {
            let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
            file.seek(SeekFrom::End(0))?;
            Ok(file)
        };
        paths.into_iter().map(open).collect::<Result<_>>().map(Logs)
    }

    fn read(self) -> Result<HashMap<Nonce, Visit>> {
        let mut visits = HashMap::new();
        for mut file in self.0 {
            let mut text = String::new();
            file.read_to_string(&mut text).context("read kubia's log")?;
            visits.extend(kubia::visits(&text));
        }
        Ok(visits)
    }
}
