//! Verdicts on services: that the virtual address became a pod's at the right node and was put back for the client, that
//! the source is what the service's type says, and that every pod has its share.
//!
//! As for journeys, only packets count: which pod served is read from the frame that arrived in it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::finding::{Finding, Way};
use super::judge::{Evidence, Judgement, host_answers, last_seen, logged};
use crate::cluster::Role;
use crate::probe::Word;
use crate::sighting::{Direction, Flow, Sighting, one_transmission};

/// Pods whose shares are told one by one.
const LISTED: usize = 6;

/// A pod behind a service, as one client should see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// The pod.
    pub pod: String,
    /// Its address and port.
    pub address: SocketAddr,
    /// The addresses of which one stands in for the client's; none means that the client's stays.
    pub stands_in: Option<Vec<IpAddr>>,
}

/// What a client may expect of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Promise {
    /// One of these pods answers.
    Served(Vec<Backend>),
    /// Nobody is behind it, and the client is told at once.
    Refused,
    /// It is not reached from there.
    Hidden,
}

/// One probe of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Serving {
    /// The namespace of the client.
    pub client: String,
    /// What the client asks for.
    pub front: SocketAddr,
    /// What it may expect.
    pub promise: Promise,
    /// The node where the destination becomes a pod's. It is the client itself for a node, which no wire shows.
    pub translator: String,
}

impl Serving {
    /// What the first packet may be addressed to on its first wire.
    pub fn targets(&self) -> impl Iterator<Item = SocketAddr> {
        let of_node = self.client == self.translator;
        let backends = match &self.promise {
            Promise::Served(backends) if of_node => backends.as_slice(),
            _ => &[],
        };
        std::iter::once(self.front).chain(backends.iter().map(|backend| backend.address))
    }
}

/// The verdict on one probe of a service.
pub fn judge_service(expected: &Serving, evidence: &Evidence<'_>) -> Judgement {
    let (outcome, flow) = (evidence.outcome, &evidence.flow);
    if flow.is_empty() {
        return Judgement::only(Finding::NoPacket { probe: outcome.words() });
    }
    let mut findings = Vec::new();
    if evidence.drops > 0 {
        findings.push(Finding::CaptureDropped { frames: evidence.drops });
    }
    let backends = match &expected.promise {
        Promise::Served(backends) => backends,
        promise => return nobody(expected, promise, evidence, findings),
    };
    if outcome.word != Word::Ok {
        findings.push(Finding::Unreachable { probe: outcome.words(), last: last_seen(flow) });
        return Judgement::of(findings, String::new);
    }
    let (request, reply) = (one_transmission(&flow.request), one_transmission(&flow.reply));
    let sent = request.iter().copied().find(|s| leaves(s, &expected.client));
    let arrival = arrival(flow);
    let backend = arrival.and_then(|s| backends.iter().find(|it| is_at(s, it)));
    let (Some(sent), Some(arrival)) = (sent, arrival) else {
        let missing = [("the client", sent.is_none()), ("a pod", arrival.is_none())];
        return Judgement::only(too_few(Way::Request, missing));
    };
    let Some(backend) = backend else {
        let found = arrival.ip().map(|ip| ip.to().to_string()).unwrap_or_default();
        findings.push(Finding::WrongBackend { at: arrival.to_string(), found });
        return Judgement::of(findings, String::new);
    };
    let translated = request_way(expected, backend, &request, (sent, arrival), &mut findings);
    reply_way(expected, backend, &reply, (sent, arrival), &mut findings);
    host_answers(outcome, &backend.pod, &mut findings);
    let source = arrival.ip().map(|ip| ip.source);
    if let Some(source) = source {
        logged(evidence.visit, &backend.pod, source, &mut findings);
    }
    Judgement::of(findings, || {
        let source = match (&backend.stands_in, source) {
            (Some(_), Some(source)) => format!("source {source} instead of the client's (expected)"),
            _ => "source kept".to_owned(),
        };
        format!(
            "DNAT {} to {} at {translated}, put back for the client, {source}",
            expected.front, backend.address
        )
    })
}

/// What nobody should answer.
fn nobody(
    expected: &Serving,
    promise: &Promise,
    evidence: &Evidence<'_>,
    mut findings: Vec<Finding>,
) -> Judgement {
    let (outcome, flow) = (evidence.outcome, &evidence.flow);
    let everywhere = || [&flow.knock, &flow.request].into_iter().flatten();
    let arrived = everywhere().find(|s| is_arrival(s) && s.at.space != expected.client);
    match (promise, outcome.word) {
        (_, Word::Ok) => {
            let by = outcome.host.clone().unwrap_or_else(|| "somebody".to_owned());
            findings.push(Finding::Exposed { by });
        }
        (Promise::Refused, word) if word != Word::Refused => {
            findings.push(Finding::NotRefused { probe: outcome.words() });
        }
        _ => findings.extend(arrived.map(|s| Finding::Exposed { by: s.to_string() })),
    }
    Judgement::of(findings, || {
        let last = last_seen(flow);
        format!("{} as it should be, {last}, and at no pod", outcome.words())
    })
}

/// Out of a namespace, over a wire.
fn leaves(s: &Sighting, space: &str) -> bool {
    s.at.space == space && s.direction == Direction::Out && s.at.interface != "lo"
}

/// Into a pod, over a wire, and meant for it.
fn is_arrival(s: &Sighting) -> bool {
    s.at.role == Role::Pod && s.direction == Direction::In && s.at.interface != "lo" && !s.is_overheard
}

fn arrival<'a>(flow: &Flow<'a>) -> Option<&'a Sighting> {
    one_transmission(&flow.request).into_iter().rev().find(|s| is_arrival(s))
}

fn is_at(s: &Sighting, backend: &Backend) -> bool {
    s.at.space == backend.pod && s.ip().is_some_and(|ip| ip.to() == backend.address)
}

/// The pod behind the service that a probe's request arrived in.
pub fn backend_of<'b>(backends: &'b [Backend], flow: &Flow<'_>) -> Option<&'b Backend> {
    let arrival = arrival(flow)?;
    backends.iter().find(|it| is_at(arrival, it))
}

fn too_few<const N: usize>(way: Way, places: [(&str, bool); N]) -> Finding {
    let missing: Vec<String> =
        places.iter().filter(|(_, is_missing)| *is_missing).map(|(place, _)| (*place).to_owned()).collect();
    Finding::TooFewPoints { way, seen: N - missing.len(), needed: N, missing }
}

/// Destination, source and payload of the request; where the destination became the pod's.
fn request_way(
    expected: &Serving,
    backend: &Backend,
    request: &[&Sighting],
    (sent, arrival): (&Sighting, &Sighting),
    findings: &mut Vec<Finding>,
) -> String {
    let (Some(first), Some(last)) = (sent.ip(), arrival.ip()) else { return String::new() };
    let of_node = expected.client == expected.translator;
    let asked = if of_node { backend.address } else { expected.front };
    let rewritten = |s: &Sighting, from: SocketAddr, to: SocketAddr| Finding::DestinationRewritten {
        at: s.to_string(),
        from: from.to_string(),
        to: to.to_string(),
    };
    if first.to() != asked {
        findings.push(rewritten(sent, asked, first.to()));
    }
    // Stamps of the first frames of a capture may be off, so that places count and not the order.
    let has = |s: &&&Sighting, to: SocketAddr| s.ip().is_some_and(|ip| ip.to() == to);
    let translated =
        request.iter().filter(|s| s.at.space == expected.translator).find(|s| has(s, backend.address));
    let too_late = request
        .iter()
        .filter(|s| s.at.role == Role::Node && s.at.space != expected.translator)
        .find(|s| has(s, expected.front));
    match (translated, too_late) {
        (Some(_), None) => {}
        (_, Some(s)) => findings.push(Finding::DestinationKept { at: s.to_string() }),
        (None, None) => findings.push(rewritten(arrival, expected.front, backend.address)),
    }
    let source = last.from();
    match &backend.stands_in {
        // The port is the kernel's to change, when another connection has the same addresses and ports behind the service.
        None if source.ip() != first.source => {
            let differs = |s: &&&Sighting| s.ip().is_some_and(|ip| ip.source != first.source);
            let at = request.iter().find(differs).map(ToString::to_string).unwrap_or_default();
            let (from, to) = (first.from().to_string(), source.to_string());
            findings.push(Finding::SourceRewritten { at, from, to });
        }
        Some(addresses) if !addresses.contains(&source.ip()) => {
            findings.push(Finding::SourceKept { at: arrival.to_string(), source: source.to_string() });
        }
        _ => {}
    }
    if first.payload != last.payload {
        findings.push(Finding::PayloadDiffers { way: Way::Request, at: arrival.to_string() });
    }
    translated.map(ToString::to_string).unwrap_or_default()
}

/// The answer leaves the pod for whom the request came from, and reaches the client from whom it asked.
fn reply_way(
    expected: &Serving,
    backend: &Backend,
    reply: &[&Sighting],
    (sent, arrival): (&Sighting, &Sighting),
    findings: &mut Vec<Finding>,
) {
    let (Some(first), Some(last)) = (sent.ip(), arrival.ip()) else { return };
    let left = reply.iter().copied().find(|s| leaves(s, &backend.pod));
    let enters = |s: &&Sighting| {
        s.at.space == expected.client
            && s.direction == Direction::In
            && s.at.interface != "lo"
            && !s.is_overheard
    };
    let back = reply.iter().copied().rev().find(enters);
    let (Some(left), Some(back)) = (left, back) else {
        findings.push(too_few(Way::Reply, [("the pod", left.is_none()), ("the client", back.is_none())]));
        return;
    };
    let mut mirror = |s: &Sighting, from: SocketAddr, to: SocketAddr| {
        let Some(ip) = s.ip().filter(|ip| (ip.from(), ip.to()) != (from, to)) else { return };
        findings.push(Finding::ReplyAsymmetric {
            at: s.to_string(),
            expected: format!("{from} > {to}"),
            found: format!("{} > {}", ip.from(), ip.to()),
        });
    };
    mirror(left, backend.address, last.from());
    // A node puts its own answers back behind its last wire.
    if expected.client != expected.translator {
        mirror(back, expected.front, first.from());
    }
}

/// What many connections of one client are to show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sharing {
    /// The pods behind the service.
    pub pods: Vec<String>,
    /// They all go to one of them.
    pub has_affinity: bool,
}

/// The verdict on shares, from the pods that the connections arrived in: each pod has its part, give or take a quarter
/// (and 3); or all went to one, where the client is to stay.
pub fn judge_share(expected: &Sharing, served: &[&str]) -> Judgement {
    let mut counts: BTreeMap<&str, usize> = expected.pods.iter().map(|pod| (pod.as_str(), 0)).collect();
    served.iter().for_each(|pod| *counts.entry(pod).or_default() += 1);
    let of = served.len();
    if of == 0 {
        return Judgement::only(Finding::NoPacket { probe: "nothing".to_owned() });
    }
    let used: Vec<(&str, usize)> =
        counts.iter().map(|(pod, count)| (*pod, *count)).filter(|it| it.1 > 0).collect();
    if expected.has_affinity {
        let findings = match used.as_slice() {
            [_] => Vec::new(),
            several => {
                vec![Finding::Strayed { pods: several.iter().map(|(pod, _)| (*pod).to_owned()).collect() }]
            }
        };
        return Judgement::of(findings, || format!("{of} connections, all to {}", used[0].0));
    }
    let part = of as f64 / expected.pods.len().max(1) as f64;
    let slack = (part / 4.0).max(3.0);
    let (least, most) = ((part - slack).max(0.0).ceil() as usize, (part + slack).floor() as usize);
    let uneven = counts.iter().filter(|(_, found)| !(least..=most).contains(*found));
    let findings = uneven
        .map(|(pod, found)| Finding::UnevenShare { pod: (*pod).to_owned(), found: *found, least, most, of })
        .collect();
    Judgement::of(findings, || {
        let shares: Vec<String> = counts.iter().map(|(pod, count)| format!("{pod} {count}")).collect();
        match (counts.values().min(), counts.values().max()) {
            (Some(least), Some(most)) if counts.len() > LISTED => {
                format!("{of} connections: {least} to {most} for each of {} pods", counts.len())
            }
            _ => format!("{of} connections: {}", shares.join(", ")),
        }
    })
}
