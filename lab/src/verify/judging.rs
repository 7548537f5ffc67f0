//! From a plan and what was seen to the report. Pure: the same for a lab that runs and for a bundle of one that is gone.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use kernel::Family;

use super::plan::{Aim, Claim, Plan, Probe, Source};
use super::{cross_node, paths, same_node, services, unique_address, wire};
use crate::capture::Recording;
use crate::kubia::Visit;
use crate::packet::Nonce;
use crate::probe::ProbeOutcome;
use crate::sighting::{Flow, Flows, Sighting};
use crate::verdict::{
    CheckReport, Evidence, Finding, Journey, Judgement, Point, Promise, Report, Ruling, SCHEMA, Seals,
    Sharing, Verdict, backend_of, judge, judge_localhost, judge_service, judge_share,
};

/// What was seen of a plan's probes, and of the lab's interfaces.
pub(super) struct Seen<'s> {
    /// By the number of the probe; or why there is none.
    pub(super) outcomes: Vec<Result<ProbeOutcome, String>>,
    /// What the servers say who came.
    pub(super) visits: HashMap<Nonce, Visit>,
    /// The packets.
    pub(super) recording: &'s Recording,
    /// The addresses of interfaces.
    pub(super) holdings: Holdings,
}

/// Who has which address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Holdings {
    /// Addresses that others can use, of the pods' interfaces.
    pub(super) of_pods: Vec<(String, IpAddr)>,
    /// All addresses of all interfaces, by place; only read where a check needs them.
    pub(super) everywhere: Vec<(String, IpAddr)>,
}

/// Judges all checks of the plan.
pub(super) fn report(plan: &Plan, seen: &Seen<'_>, took: Duration) -> Report {
    let flows = Flows::of(&seen.recording.sightings);
    let seals = Seals::of(&seen.recording.sightings);
    let one = |i: usize| verdict(&plan.probes[i], i, seen, (&flows, &seals));
    let checks: Vec<CheckReport> = plan
        .checks
        .iter()
        .map(|check| {
            let verdicts = match &check.from {
                Source::State(claims) => claims.iter().map(|claim| held(claim, plan, seen)).collect(),
                Source::Each(span) => span.clone().map(one).collect(),
                Source::Groups(groups) => groups
                    .iter()
                    .map(|(subject, sharing, span)| {
                        together(subject.clone(), sharing, span.clone().map(one).collect(), || {
                            span.clone().filter_map(|i| served(&plan.probes[i], i, seen, &flows)).collect()
                        })
                    })
                    .collect(),
            };
            CheckReport { name: check.name.clone(), title: check.title.clone(), verdicts }
        })
        .collect();
    let sum = |count: fn(&CheckReport) -> usize| checks.iter().map(count).sum::<usize>();
    let passed = sum(|c| c.count(Ruling::Pass));
    let between_pods =
        |c: &&CheckReport| [same_node::CHECK.name, cross_node::CHECK.name].contains(&c.name.as_str());
    Report {
        schema: SCHEMA.into(),
        lab: plan.lab.clone(),
        mode: plan.mode.clone(),
        wire: wire::seen(&plan.nodes, &checks, &seals),
        notes: plan.notes.clone(),
        seconds: took.as_secs_f64(),
        pairs: checks.iter().filter(between_pods).map(|c| c.verdicts.len()).sum(),
        possible_pairs: plan.possible_pairs,
        seed: plan.seed,
        frames: seen.recording.frames,
        drops: seen.recording.drops.values().sum(),
        passed,
        failed: sum(|c| c.verdicts.len()) - passed,
        checks,
    }
}

/// Judges what has to hold of the interfaces.
fn held(claim: &Claim, plan: &Plan, seen: &Seen<'_>) -> Verdict {
    match claim {
        Claim::OwnAddress { pod, interface, told, family } => {
            let family = family.map(Family::from);
            let of_pod = (pod.as_str(), interface.as_str(), told.as_slice());
            let judgement = unique_address::judge(of_pod, family, &seen.holdings, &plan.hosts);
            without_packets(paths::of_family(pod.clone(), family), judgement)
        }
        Claim::Service { name, selector, endpoints, addresses } => {
            let judgement =
                services::judge_state((selector, *endpoints, addresses), &seen.holdings.everywhere);
            without_packets(format!("svc/{name}"), judgement)
        }
    }
}

/// Judges the probe with number `i`.
fn verdict(probe: &Probe, i: usize, seen: &Seen<'_>, (flows, seals): (&Flows<'_>, &Seals)) -> Verdict {
    let outcome = match (&probe.aim, &seen.outcomes[i]) {
        (Aim::Impossible(reason), _) | (_, Err(reason)) => {
            let finding = Finding::NotProbed { reason: reason.clone() };
            return without_packets(probe.subject.clone(), Judgement::only(finding));
        }
        (_, Ok(outcome)) => outcome,
    };
    let flow = flow_of(probe, outcome.local, flows);
    let visit = seen.visits.get(&outcome.nonce).copied();
    let (request, reply) = points(&flow);
    let judgement = match &probe.aim {
        Aim::Journey(journey) => {
            let drops = drops_on(journey, &seen.recording.drops);
            judge(journey, &Evidence { outcome, flow, visit, drops, seals })
        }
        Aim::Localhost(expected, _) => {
            let drops = seen.recording.drops.get(&probe.client).copied().unwrap_or(0);
            judge_localhost(expected, &Evidence { outcome, flow, visit, drops, seals })
        }
        Aim::Service(serving) => {
            let drops = seen.recording.drops.values().sum();
            judge_service(serving, &Evidence { outcome, flow, visit, drops, seals })
        }
        Aim::Impossible(reason) => Judgement::only(Finding::NotProbed { reason: reason.clone() }),
    };
    Verdict {
        outcome: Some(outcome.clone()),
        logged: visit.map(|v| v.remote),
        request,
        reply,
        ..without_packets(probe.subject.clone(), judgement)
    }
}

/// The packets of a probe whose client had this address and port.
pub(super) fn flow_of<'f>(probe: &Probe, local: Option<SocketAddr>, flows: &Flows<'f>) -> Flow<'f> {
    let port = local.map(|a| a.port());
    let of = |target: SocketAddr| flows.get(probe.nonce, &probe.client, port, target);
    let target = probe.aim.target().unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
    let flow = match &probe.aim {
        // What a node asks for has its new destination on its first wire already.
        Aim::Service(serving) => serving.targets().map(of).find(|flow| !flow.knock.is_empty()),
        _ => None,
    };
    flow.unwrap_or_else(|| of(target))
}

/// The pod behind the service that the probe with number `i` arrived in.
fn served<'t>(probe: &'t Probe, i: usize, seen: &Seen<'_>, flows: &Flows<'_>) -> Option<&'t str> {
    let Aim::Service(serving) = &probe.aim else { return None };
    let Promise::Served(backends) = &serving.promise else { return None };
    let outcome = seen.outcomes[i].as_ref().ok()?;
    let port = outcome.local.map(|a| a.port());
    let flow = flows.get(outcome.nonce, &probe.client, port, serving.front);
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
