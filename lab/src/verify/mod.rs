//! `verify`: the four needs of pod networking, and services where there are some, checked with real packets.
//!
//! A check plans probes with the journey that each has to take; all probes of all checks then run under one capture;
//! and the judges of [`crate::verdict`] say what was seen. Nothing is repeated until it works, and the lab is not
//! changed.

mod container_localhost;
mod cross_node;
mod egress;
mod ingress;
mod paths;
mod prober;
mod probing;
mod same_node;
mod sample;
mod scene;
mod services;
mod unique_address;
mod wire;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::cluster::{Cluster, Containers};
use crate::exit::Failure;
use crate::probe::Sidecar;
use crate::sighting::{Flow, Flows, Sighting};
use crate::verdict::{
    CheckReport, Evidence, Finding, Journey, Judgement, Localhost, Point, Promise, Report, Ruling, SCHEMA,
    Seals, Serving, Sharing, Verdict, backend_of, judge, judge_localhost, judge_service, judge_share,
};
use prober::Prober;
pub(crate) use probing::NonceMaker;
use probing::Probed;
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
    plan: Plan,
}

#[derive(Debug, Clone, Copy)]
enum Plan {
    /// Judged from what the kernel says about the pods.
    State(fn(&Scene<'_>) -> Vec<Verdict>),
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

/// The tasks of a check: their numbers, and how they belong together.
enum Span {
    Each(Range<usize>),
    Groups(Vec<(String, Sharing, Range<usize>)>),
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

enum Aim {
    Journey(Box<Journey>),
    Localhost(Localhost, SocketAddr),
    Service(Box<Serving>),
    /// There is nothing to send, because of this.
    Impossible(String),
}

impl Aim {
    fn target(&self) -> Option<SocketAddr> {
        match self {
            Aim::Journey(journey) => Some(journey.server),
            Aim::Localhost(_, target) => Some(*target),
            Aim::Service(serving) => Some(serving.front),
            Aim::Impossible(_) => None,
        }
    }
}

/// Runs the checks. An error means that nothing could be checked at all: an unknown name (a [`Failure`] of wrong
/// usage), a namespace that cannot be entered.
pub fn run(
    cluster: &Cluster,
    options: &VerifyOptions,
    progress: &mut dyn FnMut(&str, Duration),
) -> Result<Report> {
    let checks = chosen(cluster, &options.checks)?;
    let nodes = nodes_named(cluster, &options.nodes)?;
    let began = Instant::now();
    let probers = match checks.iter().any(Check::is_of_services) {
        true => cluster.nodes.iter().map(Prober::start).collect::<Result<_>>()?,
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
    let mut spans = Vec::new();
    for check in &checks {
        spans.push(match check.plan {
            Plan::State(_) => Span::Each(0..0),
            Plan::Probes(plan) => Span::Each(append(&mut tasks, plan(&scene))),
            Plan::Groups(plan) => {
                let groups = plan(&scene).into_iter();
                let numbered = groups.map(|it| (it.subject, it.sharing, append(&mut tasks, it.tasks)));
                Span::Groups(numbered.collect())
            }
        });
    }
    progress(&format!("{} probes planned", tasks.len()), began.elapsed());
    let start = Instant::now();
    let probed = probing::run(cluster, &tasks)?;
    progress(
        &format!("{} probes, {} frames captured", tasks.len(), probed.recording.frames),
        start.elapsed(),
    );

    let start = Instant::now();
    let flows = Flows::of(&probed.recording.sightings);
    let seals = Seals::of(&probed.recording.sightings);
    let mut reports = Vec::new();
    for (check, span) in checks.iter().zip(spans) {
        let one = |i: usize| verdict(&tasks[i], i, &probed, (&flows, &seals));
        let verdicts = match (check.plan, span) {
            (Plan::State(state), _) => state(&scene),
            (_, Span::Each(span)) => span.map(one).collect(),
            (_, Span::Groups(groups)) => groups
                .into_iter()
                .map(|(subject, sharing, span)| {
                    together(subject, &sharing, span.clone().map(one).collect(), || {
                        span.filter_map(|i| served(&tasks[i], i, &probed, &flows)).collect()
                    })
                })
                .collect(),
        };
        reports.push(CheckReport { name: check.name.into(), title: check.title.into(), verdicts });
    }
    let report = Report {
        possible_pairs: scene.possible,
        seed: options.sample.map(|sample| sample.seed),
        ..report(cluster, reports, (&probed, &seals), began.elapsed())
    };
    progress(&format!("{} verdicts", report.passed + report.failed), start.elapsed());
    Ok(report)
}

/// Adds tasks; their numbers.
fn append<'c>(tasks: &mut Vec<Task<'c>>, more: Vec<Task<'c>>) -> Range<usize> {
    let start = tasks.len();
    tasks.extend(more);
    start..tasks.len()
}

fn report(
    cluster: &Cluster,
    checks: Vec<CheckReport>,
    (probed, seals): (&Probed, &Seals),
    took: Duration,
) -> Report {
    let sum = |count: fn(&CheckReport) -> usize| checks.iter().map(count).sum::<usize>();
    let passed = sum(|c| c.count(Ruling::Pass));
    let between_pods =
        |c: &&CheckReport| [same_node::CHECK.name, cross_node::CHECK.name].contains(&c.name.as_str());
    Report {
        schema: SCHEMA.into(),
        lab: cluster.name.clone(),
        mode: cluster.mode.to_string(),
        wire: wire::seen(cluster, &checks, seals),
        notes: cluster.mode.notes().iter().map(ToString::to_string).collect(),
        seconds: took.as_secs_f64(),
        pairs: checks.iter().filter(between_pods).map(|c| c.verdicts.len()).sum(),
        possible_pairs: 0,
        seed: None,
        frames: probed.recording.frames,
        drops: probed.recording.drops.values().sum(),
        passed,
        failed: sum(|c| c.verdicts.len()) - passed,
        checks,
    }
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

/// Judges the task with number `i`.
fn verdict(task: &Task<'_>, i: usize, probed: &Probed, (flows, seals): (&Flows<'_>, &Seals)) -> Verdict {
    let outcome = match (&task.aim, &probed.outcomes[i]) {
        (Aim::Impossible(reason), _) | (_, Err(reason)) => {
            let finding = Finding::NotProbed { reason: reason.clone() };
            return without_packets(task.subject.clone(), Judgement::only(finding));
        }
        (_, Ok(outcome)) => outcome,
    };
    let port = outcome.local.map(|a| a.port());
    let of = |target: SocketAddr| flows.get(outcome.nonce, task.client.name, port, target);
    let target = task.aim.target().unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
    let flow = match &task.aim {
        // What a node asks for has its new destination on its first wire already.
        Aim::Service(serving) => serving.targets().map(of).find(|flow| !flow.knock.is_empty()),
        _ => None,
    };
    let flow = flow.unwrap_or_else(|| of(target));
    let visit = probed.visits.get(&outcome.nonce).copied();
    let (request, reply) = points(&flow);
    let judgement = match &task.aim {
        Aim::Journey(journey) => {
            let drops = drops_on(journey, &probed.recording.drops);
            judge(journey, &Evidence { outcome, flow, visit, drops, seals })
        }
        Aim::Localhost(expected, _) => {
            let drops = probed.recording.drops.get(task.client.name).copied().unwrap_or(0);
            judge_localhost(expected, &Evidence { outcome, flow, visit, drops, seals })
        }
        Aim::Service(serving) => {
            let drops = probed.recording.drops.values().sum();
            judge_service(serving, &Evidence { outcome, flow, visit, drops, seals })
        }
        Aim::Impossible(reason) => Judgement::only(Finding::NotProbed { reason: reason.clone() }),
    };
    Verdict {
        outcome: Some(outcome.clone()),
        logged: visit.map(|v| v.remote),
        request,
        reply,
        ..without_packets(task.subject.clone(), judgement)
    }
}

/// The pod behind the service that the probe with number `i` arrived in.
fn served<'t>(task: &'t Task<'_>, i: usize, probed: &Probed, flows: &Flows<'_>) -> Option<&'t str> {
    let Aim::Service(serving) = &task.aim else { return None };
    let Promise::Served(backends) = &serving.promise else { return None };
    let outcome = probed.outcomes[i].as_ref().ok()?;
    let port = outcome.local.map(|a| a.port());
    let flow = flows.get(outcome.nonce, task.client.name, port, serving.front);
    backend_of(backends, &flow).map(|backend| backend.pod.as_str())
}

/// The verdict on a group: the worst of its probes, or when all of them are good the one on their shares.
fn together<'t>(
    subject: String,
    sharing: &Sharing,
    verdicts: Vec<Verdict>,
    served: impl FnOnce() -> Vec<&'t str>,
) -> Verdict {
    let (all, bad) = (verdicts.len(), verdicts.iter().filter(|v| v.ruling != Ruling::Pass).count());
    let worst = verdicts.into_iter().max_by_key(|v| v.ruling).filter(|v| v.ruling != Ruling::Pass);
    match worst {
        Some(worst) => {
            Verdict { subject, evidence: format!("{bad} of {all} connections: {}", worst.evidence), ..worst }
        }
        None => without_packets(subject, judge_share(sharing, &served())),
    }
}

fn without_packets(subject: String, judgement: Judgement) -> Verdict {
    Verdict {
        subject,
        ruling: judgement.ruling(),
        evidence: judgement.evidence,
        findings: judgement.findings,
        outcome: None,
        logged: None,
        request: Vec::new(),
        reply: Vec::new(),
    }
}

/// The sightings for the report: of the packets with the nonce, or of the handshake when there are none.
fn points(flow: &Flow<'_>) -> (Vec<Point>, Vec<Point>) {
    let either = |first: &[&Sighting], second: &[&Sighting]| {
        let chosen = if first.is_empty() { second } else { first };
        chosen.iter().filter_map(|s| Point::of(s)).collect()
    };
    (either(&flow.request, &flow.knock), either(&flow.reply, &flow.welcome))
}

fn drops_on(journey: &Journey, drops: &HashMap<String, u64>) -> u64 {
    let is_on = |path: &crate::verdict::Path, space: &str| path.0.iter().any(|stage| stage.space == space);
    let of_path =
        drops.iter().filter(|(space, _)| is_on(&journey.there, space) || is_on(&journey.back, space));
    of_path.map(|(_, frames)| frames).sum()
}
