//! The supervisor: holds a lab and answers for it until it is told to end.
//!
//! It awaits connections and the nodes' changes on one thread; what takes long runs on threads of its own,
//! one request at a time where packets are captured.

use std::fs::File;
use std::io::{BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};

use crate::agent::{Agent, Deleted};
use crate::cluster::{Cluster, Space};
use crate::control::{self, Event, Keep, Request};
use crate::controller::work;
use crate::events::Events;
use crate::exit::{self, Failure};
use crate::kubectl::{Ask, Kind};
use crate::output::document;
use crate::record::{self, Heading};
use crate::services::dns::{self, SharedZone};
use crate::services::model::TrafficPolicy;
use crate::topology::Topology;
use crate::{bench, breaking, capsule, construct, evidence, inspect, kubectl, step, trace, verify, why};

/// A running lab.
#[derive(Debug)]
pub struct Lab {
    /// What it was made from.
    pub topology: Topology,
    /// What was made, and what has come of it since.
    cluster: RwLock<Cluster>,
    /// What has happened since.
    pub events: Events,
    /// The controller loop's ear.
    pub orders: work::Orders,
    /// What is broken, and how it is healed.
    pub(crate) register: Mutex<breaking::Register>,
    /// Held by the one that probes and captures.
    probing: Mutex<()>,
    /// One a node, in their order.
    agents: Mutex<Vec<Agent>>,
}

impl Lab {
    /// The cluster as it is. It does not change until the guard is dropped.
    pub fn cluster(&self) -> RwLockReadGuard<'_, Cluster> {
        self.cluster.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the agent of node `index` do something.
    pub fn agent<T>(&self, index: usize, work: impl FnOnce(&mut Agent) -> Result<T>) -> Result<T> {
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        work(agents.get_mut(index).context("no such node")?)
    }

    /// The cluster, to change it. Nobody else looks at it until the guard is dropped.
    pub fn cluster_mut(&self) -> RwLockWriteGuard<'_, Cluster> {
        self.cluster.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs as the supervisor; returns the exit code of the lab.
pub fn run() -> u8 {
    match supervise() {
        Ok(()) => exit::OK,
        Err(failure) => {
            capsule::tell(&Event::error(&failure));
            failure.code
        }
    }
}

fn supervise() -> Result<(), Failure> {
    let (topology, listener) = capsule::inherited()?;
    allow_many_descriptors()?;
    let mut progress = |text: &str, took: Duration| {
        capsule::tell(&Event::Progress { text: text.to_owned(), ms: took.as_millis() as u64 });
    };
    let (cluster, agents) = construct::construct(&topology, &mut progress)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .context("start the supervisor's runtime")
        .map_err(Failure::from)?;
    runtime.block_on(async {
        let events = Events::watch(&cluster.nodes)?;
        let zone = SharedZone::default();
        dns::serve(&cluster, &zone)?;
        let (orders, received) = mpsc::channel();
        let lab = Arc::new(Lab {
            topology,
            cluster: RwLock::new(cluster),
            events,
            orders: work::Orders::new(orders),
            register: Mutex::default(),
            probing: Mutex::new(()),
            agents: Mutex::new(agents),
        });
        work::start(&lab, zone, received);
        populate(&lab, &mut progress)?;
        capsule::tell(&Event::Result { value: summary(&lab) });
        serve(lab, listener).await
    })?;
    Ok(())
}

/// Makes the workloads and services of the topology, as `podlab kubectl` would.
fn populate(lab: &Lab, progress: &mut dyn FnMut(&str, Duration)) -> Result<(), Failure> {
    let start = std::time::Instant::now();
    let order = |ask: Ask| -> Result<(), Failure> {
        let answer = kubectl::server::answer(lab, ask)?;
        match answer["warnings"].as_array().into_iter().flatten().next() {
            Some(warning) => Err(Failure::new(exit::FAILED, warning.as_str().unwrap_or_default())),
            None => Ok(()),
        }
    };
    for workload in &lab.topology.workloads {
        let (name, labels) = (workload.name.clone(), workload.labels.clone());
        let (port, replicas) = (Some(workload.port.0), Some(workload.replicas));
        let containers = workload.containers.clone();
        order(Ask::Run { name, image: "kubia".to_owned(), port, labels, replicas, containers })?;
    }
    for service in &lab.topology.services {
        let name = service.name.clone();
        order(Ask::Serve { name: name.clone(), wanted: Box::new(service.wanted()) })?;
        if service.external_traffic_policy != TrafficPolicy::default() {
            let patch = json!({ "spec": { "externalTrafficPolicy": service.external_traffic_policy } });
            order(Ask::Patch { kind: Kind::Service, name, patch })?;
        }
    }
    let (workloads, services) = (lab.topology.workloads.len(), lab.topology.services.len());
    if workloads + services > 0 {
        let (workloads, services) =
            (construct::count(workloads, "workload"), construct::count(services, "service"));
        progress(&format!("{workloads}, {services}"), start.elapsed());
    }
    Ok(())
}

/// A pod needs half a dozen descriptors, more than the usual 1024 allow a lab of some size.
fn allow_many_descriptors() -> Result<(), Failure> {
    let (_, most) =
        getrlimit(Resource::RLIMIT_NOFILE).context("limit of open files").map_err(Failure::from)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("limit of open files").map_err(Failure::from)
}

async fn serve(lab: Arc<Lab>, listener: UnixListener) -> Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let stream = stream.into_std()?;
        stream.set_nonblocking(false)?;
        let lab = Arc::clone(&lab);
        std::thread::spawn(move || answer(&lab, stream));
    }
}

/// Answers the requests of one client. A client that goes away ends its thread, nothing else.
fn answer(lab: &Lab, mut stream: UnixStream) {
    let own = nix::unistd::geteuid().as_raw();
    if !control::peer_uid(&stream).is_ok_and(|uid| uid == 0 || uid == own) {
        return;
    }
    let Ok(reader) = stream.try_clone() else { return };
    let mut reader = BufReader::new(reader);
    let mut kept = None;
    while let Ok(Some(request)) = control::receive::<Request>(&mut reader) {
        if let Request::Down { graceful } = request {
            end(lab, graceful, &mut stream);
        }
        if let Request::Handover { what } = &request {
            let handed = namespaces(lab, what.as_deref())
                .and_then(|descriptors| Ok(control::send_descriptors(&stream, &descriptors)?));
            if handed.is_err() {
                return;
            }
            continue;
        }
        if request == Request::Collect {
            if control::send_descriptors(&stream, kept.take().as_slice()).is_err() {
                return;
            }
            continue;
        }
        let event = match handle(lab, request, &mut stream, &mut kept) {
            Ok(value) => Event::Result { value },
            Err(failure) => Event::error(&failure),
        };
        if control::send(&mut stream, &event).is_err() {
            return;
        }
    }
}

/// Answers one request; `kept` becomes the file that the client may collect.
fn handle(
    lab: &Lab,
    request: Request,
    stream: &mut UnixStream,
    kept: &mut Option<File>,
) -> Result<Value, Failure> {
    match request {
        Request::Summary => Ok(summary(lab)),
        Request::Inspect { what } => inspect::inspect(lab, what.as_deref()),
        Request::Changes { seen } => {
            let (changes, total) = lab.events.changes_after(seen);
            let (troubles, faults) = (lab.events.troubles(), breaking::count(lab));
            Ok(json!({ "changes": changes, "seen": total, "troubles": troubles, "faults": faults }))
        }
        Request::Verify { checks, nodes, sample, seed, keep } => {
            let _probing = lab.probing.lock().unwrap_or_else(PoisonError::into_inner);
            let options = verify::VerifyOptions {
                checks: if checks.is_empty() { lab.topology.verify.clone() } else { checks },
                nodes,
                keep_frames: keep != Keep::Nothing,
                sample: sample.map(|pairs| verify::Sample { pairs, seed }),
            };
            let mut progress = progress_to(stream);
            let before = if keep == Keep::Bundle { Some(evidence::state(lab)?) } else { None };
            let proof = verify::prove(&lab.cluster(), &options, &mut progress)?;
            *kept = match (keep, before) {
                (Keep::Bundle, Some(before)) => Some(evidence::gather(lab, &proof, &before)?),
                (Keep::Packets, _) => {
                    let heading = Heading::of(&lab.cluster());
                    let packets = &proof.recording;
                    Some(evidence::in_memory(|out| record::write(out, &heading, packets, |_| None))?)
                }
                _ => None,
            };
            let mut report = proof.report;
            report.notes.extend(breaking::note(lab));
            document(&report)
        }
        Request::Bench { millis } => {
            let _probing = lab.probing.lock().unwrap_or_else(PoisonError::into_inner);
            let mut progress = progress_to(stream);
            document(&bench::run(&lab.cluster(), Duration::from_millis(millis), &mut progress)?)
        }
        Request::Why { source, target, port, family } => {
            breaking::unless_sealed(lab)?;
            let _probing = lab.probing.lock().unwrap_or_else(PoisonError::into_inner);
            document(&why::run(&lab.cluster(), &why::WhyOptions { source, target, port, family })?)
        }
        Request::Break { fault, targets, family } => {
            breaking::unless_sealed(lab)?;
            let _probing = lab.probing.lock().unwrap_or_else(PoisonError::into_inner);
            breaking::inject(lab, &fault, &targets, family)
        }
        Request::Heal { which } => {
            breaking::unless_sealed(lab)?;
            let _probing = lab.probing.lock().unwrap_or_else(PoisonError::into_inner);
            breaking::heal(lab, which.as_deref())
        }
        Request::Active => breaking::unless_sealed(lab).map(|()| breaking::active(lab)),
        Request::Seal => {
            breaking::seal(lab);
            Ok(Value::Null)
        }
        Request::Sealed => Ok(breaking::unless_sealed(lab).is_err().into()),
        Request::Trace { source, target, port, protocol, family, hooks, step, keep } => {
            let _probing = lab.probing.lock().unwrap_or_else(PoisonError::into_inner);
            let options = trace::TraceOptions::parse(&source, &target, port, &protocol)?;
            let options = trace::TraceOptions { hooks, family, ..options };
            let cluster = lab.cluster();
            let followed = match step {
                true => step::follow(&cluster, &options, keep != Keep::Nothing, stream)?,
                false => trace::follow(&cluster, &options, keep != Keep::Nothing)?,
            };
            if keep != Keep::Nothing {
                *kept = Some(evidence::in_memory(|out| followed.write(out, &cluster))?);
            }
            document(&followed.trace)
        }
        Request::Kubectl { ask } => kubectl::server::answer(lab, ask),
        Request::Enter { what } => find(&lab.cluster(), what.as_deref()).map(|_| Value::Null),
        Request::Handover { .. } | Request::Collect | Request::Down { .. } => Ok(Value::Null),
    }
}

/// Tells a client of steps. It may have gone: the work goes on, and what comes of it is dropped.
fn progress_to(stream: &mut UnixStream) -> impl FnMut(&str, Duration) {
    |text, took| {
        let event = Event::Progress { text: text.to_owned(), ms: took.as_millis() as u64 };
        let _ = control::send(stream, &event);
    }
}

/// The space of that name; `None` for the capsule itself.
fn find<'c>(cluster: &'c Cluster, what: Option<&str>) -> Result<Option<&'c Space>, Failure> {
    let Some(name) = what else { return Ok(None) };
    cluster.space(name).map(Some).ok_or_else(|| unknown(cluster, name))
}

/// The failure for a name that is no namespace of the lab.
pub fn unknown(cluster: &Cluster, name: &str) -> Failure {
    let pods = match cluster.pods.as_slice() {
        [] => String::new(),
        [only] => format!(", {}", only.space.name),
        [first, .., last] => format!(", {} to {}", first.space.name, last.space.name),
    };
    let racks = match cluster.racks.len() {
        0 => String::new(),
        count => format!(", rack1 to rack{count}"),
    };
    let outside: Vec<&str> = cluster.outside.iter().map(|host| host.space.name.as_str()).collect();
    Failure::usage(format!(
        "lab {:?} has no node or pod {name:?} · there are: fabric, {}{racks}, {}{pods}",
        cluster.name,
        outside.join(", "),
        cluster.node_names()
    ))
}

/// User, mount, PID, network, UTS and IPC namespaces of a space; those that it has not of its own are the
/// capsule's.
fn namespaces(lab: &Lab, what: Option<&str>) -> Result<Vec<OwnedFd>> {
    let own =
        |kind: &str| -> Result<OwnedFd> { Ok(std::fs::File::open(format!("/proc/self/ns/{kind}"))?.into()) };
    let cluster = lab.cluster();
    let space = find(&cluster, what)?;
    let network = match space {
        Some(space) => space.netns.as_fd().try_clone_to_owned()?,
        None => own("net")?,
    };
    let uts = match space.and_then(|space| space.uts.as_ref()) {
        Some(uts) => uts.as_fd().try_clone_to_owned()?,
        None => own("uts")?,
    };
    Ok(vec![own("user")?, own("mnt")?, own("pid")?, network, uts, own("ipc")?])
}

/// One line of state.
fn summary(lab: &Lab) -> Value {
    let troubles = lab.events.troubles();
    let cluster = lab.cluster();
    json!({
        "name": cluster.name,
        "mode": lab.topology.mode,
        "nodes": cluster.nodes.len(),
        "pods": cluster.pods.len(),
        "podCIDR": cluster.ranges.pods.to_string(),
        "serviceCIDR": cluster.ranges.of_services(),
        "state": if troubles.is_empty() { "up" } else { "degraded" },
        "troubles": troubles,
        "faults": breaking::count(lab),
    })
}

/// Ends the lab: the process, and with it everything.
fn end(lab: &Lab, graceful: bool, stream: &mut UnixStream) -> ! {
    let pods = lab.cluster().pods.len();
    let start = std::time::Instant::now();
    let outcome = if graceful { delete_pods(lab, stream) } else { Deleted::default() };
    let value = json!({
        "name": lab.cluster().name,
        "pods": pods,
        "graceful": graceful,
        "deleted": outcome.deleted,
        "failed": outcome.failed,
        "left": outcome.left,
        "ms": start.elapsed().as_millis() as u64,
    });
    // Nobody may be listening any more; the lab ends all the same.
    let _ = control::send(stream, &Event::Result { value }).and_then(|()| stream.flush());
    std::process::exit(i32::from(exit::OK));
}

/// Deletes every pod by CNI DEL, as a runtime does when pods end, on all nodes at the same time.
fn delete_pods(lab: &Lab, stream: &mut UnixStream) -> Deleted {
    let mut agents = lab.agents.lock().unwrap_or_else(PoisonError::into_inner);
    let outcomes: Vec<Deleted> = std::thread::scope(|scope| {
        let workers: Vec<_> = agents.iter_mut().map(|agent| scope.spawn(|| agent.delete())).collect();
        let outcome = |worker: std::thread::ScopedJoinHandle<'_, Result<Deleted>>| {
            let joined = worker.join().unwrap_or_else(|_| Err(anyhow!("a worker panicked")));
            joined.unwrap_or_else(|err| Deleted { failed: vec![format!("{err:#}")], ..Deleted::default() })
        };
        workers.into_iter().map(outcome).collect()
    });
    let mut sum = Deleted::default();
    for (node, outcome) in lab.cluster().nodes.iter().zip(outcomes) {
        let name = &node.space.name;
        let text = format!("{name}: {} pods deleted by CNI DEL", outcome.deleted);
        // The client may have gone.
        let _ = control::send(stream, &Event::Progress { text, ms: outcome.ms });
        sum.deleted += outcome.deleted;
        sum.failed.extend(outcome.failed.iter().map(|failed| format!("{name}: {failed}")));
        sum.left.extend(outcome.left.iter().map(|left| format!("{name}: {left}")));
    }
    sum
}
