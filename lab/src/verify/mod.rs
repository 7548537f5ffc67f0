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
    /// Names of checks; empty means all.
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
    let probers = match checks.iter().any(Check::is_of_services) {
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
        title: check.title.into(),
        from: match check.plan {
            How::State(claims) => Source::State(claims(&scene)),
            How::Probes(plan) => Source::Each(append(&mut tasks, plan(&scene))),
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

/// Refuses a name that no check has.
///
/// # Errors
/// The name, and those that there are.
pub fn known(names: &[String]) -> Result<(), Failure> {
    let is_known = |name: &&String| CHECKS.iter().any(|c| c.name == name.as_str());
    if let Some(unknown) = names.iter().find(|name| !is_known(name)) {
        let known: Vec<_> = CHECKS.iter().map(|c| c.name).collect();
        return Err(Failure::usage(format!("no check {unknown:?} · there are: {}", known.join(", "))));
    }
    Ok(())
}

/// The checks that are named; of all those that have something to look at.
fn chosen(cluster: &Cluster, names: &[String]) -> Result<Vec<Check>> {
    known(names)?;
    let has_services = !cluster.objects.services.is_empty();
    let is_chosen = |c: &Check| match names.is_empty() {
        true => has_services || !c.is_of_services(),
        false => names.iter().any(|name| name == c.name),
    };
    Ok(CHECKS.into_iter().filter(is_chosen).collect())
}

/// The indices of the named nodes; of all when none is named.
fn nodes_named(cluster: &Cluster, names: &[String]) -> Result<Vec<usize>> {
    if names.is_empty() {
        return Ok((0..cluster.nodes.len()).collect());
    }
    let find = |name: &String| {
        let found = cluster.nodes.iter().position(|n| n.space.name == *name);
        let text = || format!("no node {name:?} · there are: node1 to node{}", cluster.nodes.len());
        found.ok_or_else(|| Failure::usage(text()).into())
    };
    names.iter().map(find).collect()
}
