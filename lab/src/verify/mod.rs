//! `verify`: the four needs of pod networking, and services where there are some, checked with real packets.
//!
//! A check plans probes with the journey that each has to take; all probes of all checks then run under one capture;
//! and the judges of [`crate::verdict`] say what was seen. Nothing is repeated until it works, and the lab is not
//! changed.

mod again;
mod container_localhost;
mod cross_node;
mod egress;
mod ingress;
mod judging;
mod paths;
mod plan;
mod prober;
mod probing;
mod same_node;
mod sample;
mod scene;
mod services;
mod unique_address;
mod wire;

use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::capture::{self, Recording};
use crate::cluster::{Cluster, Containers};
use crate::exit::Failure;
use crate::probe::Sidecar;
use crate::verdict::{Report, Sharing};
pub use again::{Difference, again};
use judging::{Holdings, Seen};
pub use plan::{Aim, Claim, PLAN_SCHEMA, Plan, PlannedCheck, Probe, Source};
pub(crate) use prober::Prober;
pub(crate) use probing::NonceMaker;
pub use sample::Sample;
use scene::{Scene, Wanted};

pub use crate::fabric::UPLINK;

/// What to verify.
#[derive(Debug, Clone, Default)]
pub struct VerifyOptions {
    /// Names of checks, or `CHECK:SERVICE`; empty means all.
    pub checks: Vec<String>,
    /// Only what starts at a pod on these nodes (for ingress: what ends there); empty means all.
    pub nodes: Vec<String>,
    /// Frames are kept, to be written to a file.
    pub keep_frames: bool,
    /// A sample of the ordered pairs of pods; None means all. Ingress and egress are then those of the pods that occur
    /// in it; what is checked without a pair is checked of all pods.
    pub sample: Option<Sample>,
}

/// A check that can be asked for.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it shows, for people.
    pub title: &'static str,
    plan: How,
}

#[derive(Debug, Clone, Copy)]
enum How {
    /// Judged from what the kernel says about interfaces.
    State(fn(&Scene<'_>) -> Vec<Claim>),
    /// Judged from packets.
    Probes(for<'c> fn(&Scene<'c>) -> Vec<Task<'c>>),
    /// Judged from the packets of many probes together.
    Groups(for<'c> fn(&Scene<'c>) -> Vec<Group<'c>>),
}

/// All checks, in the order of the report.
pub const CHECKS: [Check; 9] = [
    unique_address::CHECK,
    container_localhost::CHECK,
    same_node::CHECK,
    cross_node::CHECK,
    ingress::CHECK,
    egress::CHECK,
    services::STATE,
    services::REACH,
    services::SHARE,
];

/// Shorter names of checks.
pub const SHORT: [(&str, &str); 4] = [
    ("c2c", container_localhost::CHECK.name),
    ("samenode", same_node::CHECK.name),
    ("xnode", cross_node::CHECK.name),
    ("xnode-nonat", cross_node::CHECK.name),
];

/// The checks whose servers are pods, which can be asked for of a service's pods only.
const OF_PODS: [&str; 4] =
    [container_localhost::CHECK.name, same_node::CHECK.name, cross_node::CHECK.name, ingress::CHECK.name];

/// One probe to send and what it has to show.
struct Task<'c> {
    subject: String,
    client: End<'c>,
    /// Whoever may answer.
    servers: Vec<End<'c>>,
    aim: Aim,
}

/// Probes that are judged together, and one by one as well.
struct Group<'c> {
    subject: String,
    tasks: Vec<Task<'c>>,
    sharing: Sharing,
}

/// One end of a probe: where it is and what runs there.
#[derive(Clone, Copy)]
struct End<'c> {
    name: &'c str,
    sidecar: &'c Mutex<Sidecar>,
    log: Option<&'c Path>,
}

impl<'c> End<'c> {
    fn of(name: &'c str, containers: &'c Containers) -> End<'c> {
        End { name, sidecar: &containers.sidecar, log: Some(&containers.kubia_log) }
    }
}

/// What a verification came to, with all that its verdicts rest on.
pub struct Proof {
    /// The verdicts.
    pub report: Report,
    /// What was to be shown.
    pub plan: Plan,
    /// What was seen; frames only when they were asked for.
    pub recording: Recording,
}

/// Runs the checks. An error means that nothing could be checked at all: an unknown name (a [`Failure`] of wrong
/// usage), a namespace that cannot be entered.
pub fn run(
    cluster: &Cluster,
    options: &VerifyOptions,
    progress: &mut dyn FnMut(&str, Duration),
) -> Result<Report> {
    prove(cluster, options, progress).map(|proof| proof.report)
}

/// As [`run`], and gives what the verdicts rest on too.
pub fn prove(
    cluster: &Cluster,
    options: &VerifyOptions,
    progress: &mut dyn FnMut(&str, Duration),
) -> Result<Proof> {
    let checks = chosen(cluster, &options.checks)?;
    let nodes = nodes_named(cluster, &options.nodes)?;
    let began = Instant::now();
    let probers = match checks.iter().any(|check| check.is_of_services()) {
        true => cluster.nodes.iter().map(|node| Prober::start(&node.space)).collect::<Result<_>>()?,
        false => Vec::new(),
    };
    let is_chosen = |check: &Check| checks.iter().any(|chosen| chosen.name == check.name);
    let wanted = Wanted {
        same_node: is_chosen(&same_node::CHECK),
        cross_node: is_chosen(&cross_node::CHECK),
        sample: options.sample,
    };
    let scene = Scene::read(cluster, nodes, wanted, &probers)?;
    let mut tasks = Vec::new();
    let planned = checks.iter().map(|check| PlannedCheck {
        name: check.name.into(),
        title: match check.services.as_slice() {
            [] => check.title.into(),
            services => format!("{}, of svc/{}", check.title, services.join(", svc/")),
        },
        from: match check.plan {
            How::State(claims) => Source::State(claims(&scene)),
            How::Probes(plan) => Source::Each(append(&mut tasks, check.of_services(cluster, plan(&scene)))),
            How::Groups(plan) => {
                let groups = plan(&scene).into_iter();
                let numbered = groups.map(|it| (it.subject, it.sharing, append(&mut tasks, it.tasks)));
                Source::Groups(numbered.collect())
            }
        },
    });
    let planned: Vec<PlannedCheck> = planned.collect();
    progress(&format!("{} probes planned", tasks.len()), began.elapsed());
    let start = Instant::now();
    let mut probed = probing::run(cluster, &tasks, options.keep_frames)?;
    progress(
        &format!("{} probes, {} frames captured", tasks.len(), probed.recording.frames),
        start.elapsed(),
    );

    let start = Instant::now();
    if options.keep_frames {
        unheard(cluster, &mut probed.recording)?;
    }
    let holdings = Holdings {
        of_pods: scene.addresses_of_pods(),
        everywhere: if is_chosen(&services::STATE) { services::addresses(&scene) } else { Vec::new() },
    };
    let probes = tasks.into_iter().enumerate().map(|(i, task)| Probe {
        subject: task.subject,
        client: task.client.name.into(),
        nonce: probed.nonces.nonce(i),
        local: probed.outcomes[i].as_ref().ok().and_then(|outcome| outcome.local),
        silent: probed.outcomes[i].as_ref().err().cloned(),
        aim: task.aim,
    });
    let plan = Plan {
        schema: PLAN_SCHEMA.into(),
        lab: cluster.name.clone(),
        mode: cluster.mode.to_string(),
        notes: cluster.mode.notes().iter().map(ToString::to_string).collect(),
        nodes: cluster.nodes.iter().map(|node| node.space.name.clone()).collect(),
        hosts: unique_address::hosts(cluster),
        pods: cluster.pods.iter().map(|pod| (pod.space.name.clone(), pod.ifname.clone())).collect(),
        possible_pairs: scene.possible,
        seed: options.sample.map(|sample| sample.seed),
        checks: planned,
        probes: probes.collect(),
    };
    let seen =
        Seen { outcomes: probed.outcomes, visits: probed.visits, recording: &probed.recording, holdings };
    let report = judging::report(&plan, &seen, began.elapsed());
    progress(&format!("{} verdicts", report.passed + report.failed), start.elapsed());
    Ok(Proof { report, plan, recording: probed.recording })
}

/// Adds the interfaces of namespaces that were not listened in: their addresses are evidence too.
fn unheard(cluster: &Cluster, recording: &mut Recording) -> Result<()> {
    let heard: HashSet<String> = recording.interfaces.iter().map(|facts| facts.spot.space.clone()).collect();
    for space in cluster.spaces().filter(|space| !heard.contains(&space.name)) {
        recording.interfaces.extend(capture::facts(space)?);
    }
    Ok(())
}

/// Adds tasks; their numbers.
fn append<'c>(tasks: &mut Vec<Task<'c>>, more: Vec<Task<'c>>) -> Range<usize> {
    let start = tasks.len();
    tasks.extend(more);
    start..tasks.len()
}

impl Check {
    /// There is nothing to check without services.
    fn is_of_services(&self) -> bool {
        [services::STATE.name, services::REACH.name, services::SHARE.name].contains(&self.name)
    }
}

/// The name of a check by one that is shorter: [`SHORT`]; any other is its own. The service after a colon stays.
pub fn full_name(name: &str) -> String {
    let (check, rest) = name.split_at(name.find(':').unwrap_or(name.len()));
    let full = SHORT.iter().find(|(short, _)| *short == check).map_or(check, |(_, full)| full);
    format!("{full}{rest}")
}

/// Refuses a name that no check has, and a service after one that is not of pods as servers.
///
/// # Errors
/// The name, and those that there are.
pub fn known(names: &[String]) -> Result<(), Failure> {
    for name in names {
        let full = full_name(name);
        let (check, service) = full.split_once(':').map_or((full.as_str(), None), |(a, b)| (a, Some(b)));
        if !CHECKS.iter().any(|known| known.name == check) {
            let known: Vec<_> = CHECKS.iter().map(|c| c.name).collect();
            return Err(Failure::usage(format!("no check {check:?} · there are: {}", known.join(", "))));
        }
        if service.is_some() && !OF_PODS.contains(&check) {
            let text =
                format!("check {name:?}: no service goes with it · those of one: {}", OF_PODS.join(", "));
            return Err(Failure::usage(text));
        }
    }
    Ok(())
}

/// The checks that are named; of all those that have something to look at.
fn chosen(cluster: &Cluster, names: &[String]) -> Result<Vec<Chosen>> {
    known(names)?;
    let names: Vec<String> = names.iter().map(|name| full_name(name)).collect();
    let has_services = !cluster.objects.services.is_empty();
    let of_all = |check: &Check| names.is_empty() && (has_services || !check.is_of_services());
    let mut all = Vec::new();
    for check in CHECKS {
        let is_named = names.iter().any(|name| name == check.name);
        let service = |name: &String| Some(name.strip_prefix(check.name)?.strip_prefix(':')?.to_owned());
        let services: Vec<String> = names.iter().filter_map(service).collect();
        if let Some(none) = services.iter().find(|name| cluster.objects.service(name).is_none()) {
            return Err(Failure::usage(format!("no service {none:?} · podlab kubectl get svc")).into());
        }
        if is_named || of_all(&check) {
            all.push(Chosen { check, services: Vec::new() });
        } else if !services.is_empty() {
            all.push(Chosen { check, services });
        }
    }
    Ok(all)
}

/// A check that was asked for.
struct Chosen {
    check: Check,
    /// Only what has the pods behind one of these as servers; empty means everything.
    services: Vec<String>,
}

impl std::ops::Deref for Chosen {
    type Target = Check;

    fn deref(&self) -> &Check {
        &self.check
    }
}

impl Chosen {
    /// The tasks whose server is behind one of the services.
    fn of_services<'c>(&self, cluster: &Cluster, mut tasks: Vec<Task<'c>>) -> Vec<Task<'c>> {
        if !self.services.is_empty() {
            let all = crate::services::backed(cluster);
            let named = all.iter().filter(|backed| self.services.contains(&backed.service.name));
            let pods: HashSet<&str> =
                named.flat_map(|backed| &backed.endpoints).map(|endpoint| endpoint.pod.as_str()).collect();
            tasks.retain(|task| task.servers.iter().all(|server| pods.contains(server.name)));
        }
        tasks
    }
}

/// The indices of the named nodes; of all when none is named.
fn nodes_named(cluster: &Cluster, names: &[String]) -> Result<Vec<usize>> {
    if names.is_empty() {
        return Ok((0..cluster.nodes.len()).collect());
    }
    let find = |name: &String| {
        let found = cluster.nodes.iter().position(|n| n.space.name == *name);
        let text = || format!("no node {name:?} · there are: {}", cluster.node_names());
        found.ok_or_else(|| Failure::usage(text()).into())
    };
    names.iter().map(find).collect()
}
