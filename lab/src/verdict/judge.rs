//! The judges: what the sightings of one probe say about the network.
//!
//! They hold the sightings against a [`Journey`] and know no namespaces, no sockets and no clock.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::kubia::Visit;
use crate::packet::Ip;
use crate::probe::{ProbeOutcome, Word};
use crate::sighting::{Direction, Flow, Sighting, one_transmission};

use super::finding::{Finding, Way};
use super::journey::{Journey, Look, Path, Stage};
use super::report::Ruling;
use super::seals::{self, Seals};

/// What is known of one probe.
#[derive(Debug, Clone)]
pub struct Evidence<'a> {
    /// How it ended for its client.
    pub outcome: &'a ProbeOutcome,
    /// Its packets.
    pub flow: Flow<'a>,
    /// What the server logged.
    pub visit: Option<Visit>,
    /// Frames that the capture lost in the namespaces of the path.
    pub drops: u64,
    /// The encrypted packets between nodes.
    pub seals: &'a Seals,
}

/// A verdict without its subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// What was found wrong.
    pub findings: Vec<Finding>,
    /// In one line, what was seen.
    pub evidence: String,
}

impl Judgement {
    /// FAIL as soon as the network is at fault, ERROR when only evidence is lacking, else PASS.
    pub fn ruling(&self) -> Ruling {
        match () {
            () if self.findings.iter().any(Finding::is_failure) => Ruling::Fail,
            () if !self.findings.is_empty() => Ruling::Error,
            () => Ruling::Pass,
        }
    }

    /// One finding and nothing more to say.
    pub fn only(finding: Finding) -> Judgement {
        Judgement { evidence: finding.to_string(), findings: vec![finding] }
    }

    pub(super) fn of(findings: Vec<Finding>, when_good: impl FnOnce() -> String) -> Judgement {
        let evidence = match findings.as_slice() {
            [] => when_good(),
            some => some.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        };
        Judgement { findings, evidence }
    }
}

/// The no-NAT verdict (and, where the journey allows a rewritten source or asks for MAC addresses, its relatives):
/// the answer came, from the right host; request and reply were seen at all required points; everywhere with the same
/// addresses, ports, payload and IP id, the reply's the other way round; with a TTL one less per router; and the
/// server logged the client's own address.
pub fn judge(journey: &Journey, evidence: &Evidence<'_>) -> Judgement {
    let outcome = evidence.outcome;
    if evidence.flow.is_empty() {
        return Judgement::only(Finding::NoPacket { probe: outcome.words() });
    }
    let mut findings = Vec::new();
    if evidence.drops > 0 {
        findings.push(Finding::CaptureDropped { frames: evidence.drops });
    }
    if outcome.word != Word::Ok {
        findings.push(Finding::Unreachable { probe: outcome.words(), last: last_seen(&evidence.flow) });
        return Judgement::of(findings, String::new);
    }
    if evidence.flow.request.is_empty() {
        findings.push(Finding::NoPacket { probe: outcome.words() });
        return Judgement::of(findings, String::new);
    }
    host_answers(outcome, &journey.server_name, &mut findings);

    let request = one_transmission(&evidence.flow.request);
    let reply = one_transmission(&evidence.flow.reply);
    let port = outcome.local.map(|a| a.port()).or_else(|| request.first()?.ip().map(|ip| ip.from().port()));
    let client = SocketAddr::new(journey.client, port.unwrap_or(0));
    let translated = translated_source(journey, client, &request);
    let tuples = Tuples { client, outside: translated.unwrap_or(client), server: journey.server };
    request_tuple(journey, &tuples, &request, &mut findings);
    reply_tuple(journey, &tuples, &reply, &mut findings);
    for (way, path, sightings) in
        [(Way::Request, &journey.there, &request), (Way::Reply, &journey.back, &reply)]
    {
        points(way, path, sightings, &mut findings);
        unchanged(way, path, sightings, &mut findings);
        macs(way, journey, path, sightings, &mut findings);
        looks(way, path, sightings, &mut findings);
    }
    // The handshake is a packet of the pods like any other.
    looks(Way::Request, &journey.there, &evidence.flow.knock, &mut findings);
    looks(Way::Reply, &journey.back, &evidence.flow.welcome, &mut findings);
    if let Some([near, far]) = &journey.sealed {
        findings.extend(seals::judge(Way::Request, (near, far), &request, evidence.seals));
        findings.extend(seals::judge(Way::Reply, (far, near), &reply, evidence.seals));
    }
    logged(evidence.visit, &journey.server_name, tuples.outside.ip(), &mut findings);
    Judgement::of(findings, || praise(journey, translated, &request, &reply))
}

struct Tuples {
    client: SocketAddr,
    /// How the client appears on outer stages.
    outside: SocketAddr,
    server: SocketAddr,
}

fn on_path<'a, 'p>(
    path: &'p Path,
    sightings: &[&'a Sighting],
) -> impl Iterator<Item = (&'p Stage, &'a Sighting, &'a Ip)> {
    sightings.iter().filter_map(move |&s| Some((path.stage(s)?, s, s.ip()?)))
}

pub(super) fn host_answers(outcome: &ProbeOutcome, expected: &str, findings: &mut Vec<Finding>) {
    if let Some(found) = outcome.host.as_ref().filter(|host| *host != expected) {
        findings.push(Finding::WrongHost { expected: expected.into(), found: found.clone() });
    }
}

/// Where the journey allows it, the source that outer stages show instead of the client's.
fn translated_source(journey: &Journey, client: SocketAddr, request: &[&Sighting]) -> Option<SocketAddr> {
    let allowed = journey.may_become?;
    let (.., ip) = on_path(&journey.there, request).find(|(stage, ..)| stage.is_outer)?;
    let source = ip.from();
    (source != client && source.ip() == allowed).then_some(source)
}

fn request_tuple(journey: &Journey, tuples: &Tuples, request: &[&Sighting], findings: &mut Vec<Finding>) {
    let (mut source_told, mut target_told) = (false, false);
    for (stage, s, ip) in on_path(&journey.there, request) {
        let expected = if stage.is_outer { tuples.outside } else { tuples.client };
        let (source, target) = (ip.from(), ip.to());
        if source != expected && !source_told {
            source_told = true;
            let at = s.to_string();
            findings.push(if source.ip() == expected.ip() {
                Finding::SourcePortRewritten { at, from: expected.port(), to: source.port() }
            } else {
                Finding::SourceRewritten { at, from: expected.to_string(), to: source.to_string() }
            });
        }
        if target != tuples.server && !target_told {
            target_told = true;
            let at = s.to_string();
            findings.push(if target.ip() == tuples.server.ip() {
                Finding::DestinationPortRewritten { at, from: tuples.server.port(), to: target.port() }
            } else {
                Finding::DestinationRewritten { at, from: tuples.server.to_string(), to: target.to_string() }
            });
        }
    }
}

fn reply_tuple(journey: &Journey, tuples: &Tuples, reply: &[&Sighting], findings: &mut Vec<Finding>) {
    for (stage, s, ip) in on_path(&journey.back, reply) {
        let client = if stage.is_outer { tuples.outside } else { tuples.client };
        if (ip.from(), ip.to()) != (tuples.server, client) {
            findings.push(Finding::ReplyAsymmetric {
                at: s.to_string(),
                expected: format!("{} > {client}", tuples.server),
                found: format!("{} > {}", ip.from(), ip.to()),
            });
            return;
        }
    }
}

/// Every required stage of the path must have shown the packet.
fn points(way: Way, path: &Path, sightings: &[&Sighting], findings: &mut Vec<Finding>) {
    let is_seen = |stage: &Stage| sightings.iter().any(|s| path.stage(s) == Some(stage));
    let missing: Vec<String> =
        path.required().filter(|&stage| !is_seen(stage)).map(ToString::to_string).collect();
    if !missing.is_empty() {
        let needed = path.required().count();
        findings.push(Finding::TooFewPoints { way, seen: needed - missing.len(), needed, missing });
    }
}

/// Payload, IP id and flow label stay what they were at the first sighting, nothing is cut into fragments, and the TTL falls
/// by one with every router.
fn unchanged(way: Way, path: &Path, sightings: &[&Sighting], findings: &mut Vec<Finding>) {
    let mut walk = on_path(path, sightings);
    let cut = on_path(path, sightings).find(|(.., ip)| ip.is_fragment);
    findings.extend(cut.map(|(_, s, _)| Finding::Fragmented { way, at: s.to_string() }));
    let Some((start, _, first)) = walk.next() else { return };
    let (mut payload_told, mut id_told, mut ttl_told) = (false, false, false);
    let mut label_told = false;
    for (stage, s, ip) in walk {
        if ip.payload != first.payload && !payload_told {
            payload_told = true;
            findings.push(Finding::PayloadDiffers { way, at: s.to_string() });
        }
        if ip.id != first.id && !id_told {
            id_told = true;
            let (from, to) = (first.id.unwrap_or(0), ip.id.unwrap_or(0));
            findings.push(Finding::IdDiffers { way, at: s.to_string(), from, to });
        }
        if ip.label != first.label && !label_told {
            label_told = true;
            let (from, to) = (first.label.unwrap_or(0), ip.label.unwrap_or(0));
            findings.push(Finding::FlowLabelDiffers { way, at: s.to_string(), from, to });
        }
        let expected = first.ttl.saturating_add(start.hops).saturating_sub(stage.hops);
        if ip.ttl != expected && !ttl_told {
            ttl_told = true;
            findings.push(Finding::TtlWrong { way, at: s.to_string(), expected, found: ip.ttl });
        }
    }
}

fn macs(way: Way, journey: &Journey, path: &Path, sightings: &[&Sighting], findings: &mut Vec<Finding>) {
    let Some((client, server)) = journey.macs else { return };
    let expected = if way == Way::Request { (client, server) } else { (server, client) };
    let wrong = on_path(path, sightings)
        .map(|(_, s, _)| (s, (s.packet.source_mac, s.packet.target_mac)))
        .find(|(_, found)| *found != expected);
    if let Some((s, found)) = wrong {
        let pair = |(from, to): (kernel::Mac, kernel::Mac)| format!("{from} > {to}");
        let (expected, found) = (pair(expected), pair(found));
        findings.push(Finding::MacRewritten { way, at: s.to_string(), expected, found });
    }
}

/// What is around the packet at each stage is what must be.
fn looks(way: Way, path: &Path, sightings: &[&Sighting], findings: &mut Vec<Finding>) {
    if findings.iter().any(|f| matches!(f, Finding::WireDiffers { way: told, .. } if *told == way)) {
        return;
    }
    let wrong = on_path(path, sightings).find(|(stage, s, _)| !stage.look.fits(s));
    if let Some((stage, s, _)) = wrong {
        let found = s.packet.outer.map_or_else(|| Look::Plain.to_string(), |outer| format!("in {outer}"));
        findings.push(Finding::WireDiffers {
            way,
            at: s.to_string(),
            expected: stage.look.to_string(),
            found,
        });
    }
}

pub(super) fn logged(visit: Option<Visit>, server: &str, expected: IpAddr, findings: &mut Vec<Finding>) {
    match visit {
        None => findings.push(Finding::NotLogged { server: server.into() }),
        Some(Visit { remote, .. }) if remote != expected => {
            findings.push(Finding::LoggedAddress { server: server.into(), expected, found: remote });
        }
        Some(_) => {}
    }
}

/// The furthest that a probe without an answer got: `SYN last seen at node1/eth0 out`.
pub(super) fn last_seen(flow: &Flow<'_>) -> String {
    let walks = [
        ("reply", &flow.reply),
        ("request", &flow.request),
        ("SYN-ACK", &flow.welcome),
        ("SYN", &flow.knock),
    ];
    let last = walks.iter().find_map(|(name, walk)| Some((name, one_transmission(walk).last().copied()?)));
    last.map_or_else(|| "seen nowhere".into(), |(name, s)| format!("{name} last seen at {s}"))
}

/// What a PASS rests on, in one line.
fn praise(
    journey: &Journey,
    translated: Option<SocketAddr>,
    request: &[&Sighting],
    reply: &[&Sighting],
) -> String {
    let points = journey.there.required().count();
    let mut ttls: Vec<u8> = on_path(&journey.there, request).map(|(.., ip)| ip.ttl).collect();
    ttls.dedup();
    let ttls = match ttls.as_slice() {
        [same] => format!("{same}→{same}"),
        steps => steps.iter().map(ToString::to_string).collect::<Vec<_>>().join("→"),
    };
    let sightings = request.len() + reply.len();
    match (translated, journey.macs) {
        (Some(source), _) => {
            let at = on_path(&journey.there, request).find(|(stage, ..)| stage.is_outer);
            let at = at.map(|(_, s, _)| s.at.to_string()).unwrap_or_default();
            format!(
                "SNAT to {} at {at} only (expected), seen at {points} of {points} points, TTL {ttls}",
                source.ip()
            )
        }
        (None, Some(_)) => {
            format!(
                "tuple, payload and both MACs kept at {points} of {points} points ({sightings} sightings), TTL {ttls}"
            )
        }
        (None, None) => {
            let packed = request.iter().find_map(|s| s.packet.outer);
            let packed = match (packed, &journey.sealed) {
                (Some(outer), _) => format!(", in {outer} on the wire"),
                (None, Some(_)) => ", encrypted on the wire".to_owned(),
                (None, None) => String::new(),
            };
            format!(
                "tuple and payload kept at {points} of {points} points ({sightings} sightings), TTL {ttls}{packed}"
            )
        }
    }
}

/// What container-to-container traffic over localhost is to show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Localhost {
    /// The pod's name, which the app has to answer with.
    pub pod: String,
    /// Containers that are not in the pod's network namespace.
    pub strangers: Vec<String>,
}

/// The verdict on localhost: answered by the pod's own app, in one network namespace, on `lo` and nowhere else.
pub fn judge_localhost(expected: &Localhost, evidence: &Evidence<'_>) -> Judgement {
    let (outcome, flow) = (evidence.outcome, &evidence.flow);
    let strangers = expected.strangers.iter().map(|c| Finding::NamespacesDiffer { container: c.clone() });
    let mut findings: Vec<Finding> = strangers.collect();
    if evidence.drops > 0 {
        findings.push(Finding::CaptureDropped { frames: evidence.drops });
    }
    let all = || [&flow.knock, &flow.welcome, &flow.request, &flow.reply].into_iter().flatten();
    let elsewhere = all().find(|s| s.at.interface != "lo" || s.at.space != expected.pod);
    findings.extend(elsewhere.map(|s| Finding::LeftLoopback { at: s.to_string() }));
    if outcome.word != Word::Ok {
        let probe = outcome.words();
        findings.push(match flow.is_empty() {
            true => Finding::NoPacket { probe },
            false => Finding::Unreachable { probe, last: last_seen(flow) },
        });
        return Judgement::of(findings, String::new);
    }
    let on_lo = |walk: &[&Sighting]| {
        let is_in = |s: &&&Sighting| s.at.interface == "lo" && s.direction == Direction::In;
        walk.iter().filter(is_in).count()
    };
    if on_lo(&flow.request) == 0 || on_lo(&flow.reply) == 0 {
        findings.push(Finding::NoPacket { probe: outcome.words() });
    }
    host_answers(outcome, &expected.pod, &mut findings);
    if let Some(local) = outcome.local {
        logged(evidence.visit, &expected.pod, local.ip(), &mut findings);
    }
    Judgement::of(findings, || "request and reply on lo only, 0 frames on eth0, one network namespace".into())
}
