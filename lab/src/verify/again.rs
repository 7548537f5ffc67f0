//! Verdicts made again from packets alone: how each probe ended, who answered and who was logged are read from the file of
//! packets, with no lab, no kernel and no word of those who took part.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::judging::{self, Holdings, Seen, flow_of};
use super::plan::{Aim, Plan, Probe};
use super::probing::TIMEOUT_MS;
use crate::capture::Recording;
use crate::kubia::Visit;
use crate::packet::{Nonce, Tcp, Transport};
use crate::probe::{ProbeOutcome, Word, http_answer};
use crate::sighting::{Direction, Flow, Flows, Sighting};
use crate::verdict::{Report, Verdict};

/// Where a report says another thing than the packets do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Which check, and what of it: `cross-node kubia-1 > kubia-3`.
    pub subject: String,
    /// What differs: `ruling`, `evidence`, `findings`, `request`, `reply`, `logged`, `host`.
    pub field: String,
    /// What the report says.
    pub claimed: Value,
    /// What the packets say.
    pub found: Value,
}

/// Judges a plan again from a recording that was read from a file, and holds a report against it.
///
/// # Errors
/// The plan is none.
pub fn again(
    plan: &Plan,
    recording: &Recording,
    claimed: &Report,
) -> Result<(Report, Vec<Difference>), String> {
    if let Some(defect) = plan.defect() {
        return Err(defect);
    }
    let began = Instant::now();
    let flows = Flows::of(&recording.sightings);
    let refusals = Refusals::of(&recording.sightings);
    let mut visits = HashMap::new();
    let outcomes = plan.probes.iter().map(|probe| match (&probe.aim, &probe.silent) {
        (Aim::Impossible(reason), _) | (_, Some(reason)) => Err(reason.clone()),
        _ => {
            let flow = flow_of(probe, probe.local, &flows);
            visits.extend(visit(&flow).map(|visit| (probe.nonce, visit)));
            Ok(outcome(probe, &flow, &refusals))
        }
    });
    let outcomes = outcomes.collect();
    let seen = Seen { outcomes, visits, recording, holdings: holdings(plan, recording) };
    let report = judging::report(plan, &seen, began.elapsed());
    let differences = compare(claimed, &report);
    Ok((report, differences))
}

/// The addresses of the interfaces that the file describes.
fn holdings(plan: &Plan, recording: &Recording) -> Holdings {
    let mut holdings = Holdings::default();
    let is_usable = |ip: &IpAddr| match ip {
        IpAddr::V4(v4) => !v4.is_loopback(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    };
    let interface_of: HashMap<&str, &str> =
        plan.pods.iter().map(|(pod, interface)| (pod.as_str(), interface.as_str())).collect();
    for facts in &recording.interfaces {
        let spot = &facts.spot;
        let all = || facts.addresses.iter().map(|net| net.ip());
        holdings.everywhere.extend(all().map(|ip| (spot.to_string(), ip)));
        if interface_of.get(spot.space.as_str()) == Some(&spot.interface.as_str()) {
            holdings.of_pods.extend(all().filter(is_usable).map(|ip| (spot.space.clone(), ip)));
        }
    }
    holdings
}

/// What refused connections and datagrams.
struct Refusals {
    /// By namespace that was refused and the number after TCP's first.
    resets: HashMap<(String, u32), ()>,
    /// By namespace and the TCP number that the error quotes: the port was unreachable, or something else.
    errors: HashMap<(String, u32), bool>,
}

impl Refusals {
    fn of(sightings: &[Sighting]) -> Refusals {
        let mut refusals = Refusals { resets: HashMap::new(), errors: HashMap::new() };
        for s in sightings.iter().filter(|s| s.direction == Direction::In && !s.is_overheard) {
            let Some(ip) = s.ip() else { continue };
            match ip.transport {
                Transport::Tcp(Tcp { is_reset: true, ack, .. }) => {
                    refusals.resets.insert((s.at.space.clone(), ack), ());
                }
                Transport::Icmp { kind, code, .. } => {
                    let is_v4 = ip.source.is_ipv4();
                    let header = match (is_v4, ip.payload.first()) {
                        (true, Some(first)) => usize::from(first & 15) * 4,
                        _ => 40,
                    };
                    let Some(seq) = ip.payload.get(header + 4..header + 8) else { continue };
                    let seq = u32::from_be_bytes([seq[0], seq[1], seq[2], seq[3]]);
                    let is_port = matches!((is_v4, kind, code), (true, 3, 3) | (false, 1, 4));
                    refusals.errors.insert((s.at.space.clone(), seq), is_port);
                }
                _ => {}
            }
        }
        refusals
    }
}

/// How a probe ended for its client, from its packets.
fn outcome(probe: &Probe, flow: &Flow<'_>, refusals: &Refusals) -> ProbeOutcome {
    let mut found = ProbeOutcome {
        nonce: probe.nonce,
        word: Word::Timeout,
        detail: None,
        local: probe.local,
        host: None,
        remote: None,
        micros: 0,
    };
    let began = [&flow.knock, &flow.request].into_iter().flatten().map(|s| s.stamp_ns).min().unwrap_or(0);
    let at_client =
        |s: &&&Sighting| s.at.space == probe.client && s.direction == Direction::In && !s.is_overheard;
    if let Some(reply) = flow.reply.iter().rev().find(at_client) {
        found.micros = reply.stamp_ns.saturating_sub(began) / 1000;
        if found.micros > TIMEOUT_MS * 1000 {
            return found;
        }
        match reply.ip().map(|ip| http_answer(&ip.payload, probe.nonce)) {
            Some(Ok(answer)) => {
                (found.word, found.host, found.remote) = (Word::Ok, Some(answer.host), answer.remote);
            }
            _ => found.word = Word::Other,
        }
        return found;
    }
    let sent = flow.knock.iter().find_map(|s| s.packet.tcp()).map(|tcp| tcp.seq);
    let Some(seq) = sent else { return found };
    let client = || probe.client.clone();
    found.word = match refusals.errors.get(&(client(), seq)) {
        _ if refusals.resets.contains_key(&(client(), seq.wrapping_add(1))) => Word::Refused,
        Some(true) => Word::Refused,
        Some(false) => Word::Other,
        None => Word::Timeout,
    };
    found
}

/// Whom the server saw, from what it said when its answer was first on a wire.
fn visit(flow: &Flow<'_>) -> Option<Visit> {
    let ip = flow.reply.first()?.ip()?;
    let answer = http_answer(&ip.payload, Nonce::find(&ip.payload)?).ok()?;
    Some(Visit { remote: answer.remote?, port: ip.to().port() })
}

fn compare(claimed: &Report, again: &Report) -> Vec<Difference> {
    let mut all = Vec::new();
    let mut note = |subject: &str, field: &str, claimed: Value, found: Value| {
        if claimed != found {
            all.push(Difference { subject: subject.into(), field: field.into(), claimed, found });
        }
    };
    let sums = |report: &Report| json!([report.passed, report.failed, report.pairs, report.drops]);
    note("the report", "passed, failed, pairs, lost frames", sums(claimed), sums(again));
    note("the report", "wire", json!(claimed.wire), json!(again.wire));
    let names = |report: &Report| -> Value {
        let subjects = |check: &crate::verdict::CheckReport| -> Vec<String> {
            check.verdicts.iter().map(|verdict| format!("{} {}", check.name, verdict.subject)).collect()
        };
        json!(report.checks.iter().flat_map(subjects).collect::<Vec<_>>())
    };
    note("the report", "verdicts", names(claimed), names(again));
    for (a, b) in claimed.checks.iter().zip(&again.checks) {
        for (before, now) in a.verdicts.iter().zip(&b.verdicts) {
            let subject = format!("{} {}", b.name, now.subject);
            note(&subject, "ruling", json!(before.ruling), json!(now.ruling));
            let host = |verdict: &Verdict| json!(verdict.outcome.as_ref().map(|it| (ended(it), &it.host)));
            note(&subject, "host", host(before), host(now));
            note(&subject, "findings", findings(before), findings(now));
            note(&subject, "evidence", evidence(before), evidence(now));
            note(&subject, "logged", json!(before.logged), json!(now.logged));
            note(&subject, "request", json!(before.request), json!(now.request));
            note(&subject, "reply", json!(before.reply), json!(now.reply));
        }
    }
    all
}

/// How a probe ended, as far as packets tell: whether a client gave up or was told is its own affair.
fn ended(outcome: &ProbeOutcome) -> &'static str {
    match outcome.word {
        Word::Ok => "answered",
        Word::Refused => "refused",
        Word::Timeout | Word::Other => "not answered",
    }
}

/// The findings, without a client's own words.
fn findings(verdict: &Verdict) -> Value {
    let mut all = json!(verdict.findings);
    for finding in all.as_array_mut().into_iter().flatten() {
        if let Some(finding) = finding.as_object_mut() {
            finding.remove("probe");
        }
    }
    all
}

/// The evidence, with what packets tell in the place of a client's own words.
fn evidence(verdict: &Verdict) -> Value {
    match &verdict.outcome {
        Some(outcome) if outcome.word != Word::Ok => {
            json!(verdict.evidence.replace(&outcome.words(), ended(outcome)))
        }
        _ => json!(verdict.evidence),
    }
}
