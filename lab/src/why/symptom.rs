//! The symptom: what is wrong between two places as probes show it, and where their packets were last seen. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};

use super::battery::{Kind, PINGS, Seen};
use super::{Aim, WhyOptions};
use crate::cluster::Cluster;
use crate::packet::{Asking, Ip};
use crate::probe::{ProbeOutcome, Word};
use crate::sighting::{Direction, Flow, Flows, Sighting, one_transmission};
use crate::trace;
use crate::verdict::Way;

/// What shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// All is well.
    Fine,
    /// No answer, or a refusal.
    Fails,
    /// Somebody else answered.
    WrongHost,
    /// The source is rewritten on the way.
    Rewritten,
    /// Two MAC addresses answer for one address.
    Twice,
    /// Some packets are lost.
    Lossy,
    /// Small packets pass, large ones do not.
    LargeHangs,
    /// Large packets are held.
    Slow,
}

/// A namespace that held packets, in milliseconds, is slow from here on.
const SLOW_MS: u64 = 20;

/// The symptom and its place.
#[derive(Debug, Clone)]
pub(super) struct Symptom {
    pub(super) sign: Sign,
    pub(super) words: String,
    /// Where the packets were seen, for the proof.
    pub(super) proof: String,
    pub(super) notes: Vec<String>,
    /// The place where the packet was last seen, or where it changed, and which way it went.
    pub(super) last: Option<(String, Way)>,
    /// The connection that is spoken of: its client's port and its front.
    pub(super) port: u16,
    pub(super) front: SocketAddr,
    /// Destinations that the request was seen with.
    pub(super) targets: Vec<(String, SocketAddr)>,
    /// Sources that it was seen with, where it was.
    pub(super) sources: Vec<(String, SocketAddr)>,
}

impl Symptom {
    pub(super) fn is_fine(&self) -> bool {
        self.sign == Sign::Fine
    }

    pub(super) fn is_slow(&self) -> bool {
        self.sign == Sign::Slow
    }
}

/// Reads the symptom from what was seen.
pub(super) fn read(cluster: &Cluster, options: &WhyOptions, aim: &Aim, seen: &Seen) -> Result<Symptom> {
    let flows = Flows::of(&seen.sightings);
    let flow = |front: SocketAddr, outcome: &ProbeOutcome| {
        flows.get(outcome.nonce, &options.source, outcome.local.map(|local| local.port()), front)
    };
    let of_kind = |kind: Kind| seen.probes.iter().filter(move |(own, ..)| *own == kind);
    let bad = |kind: Kind| of_kind(kind).find(|(_, _, outcome)| outcome.word != Word::Ok);
    let first = seen.probes.first().map(|(_, front, outcome)| (*front, outcome));
    let mut notes: Vec<String> = seen.sightings.iter().filter_map(trace::icmp_error).collect();
    notes.sort();
    notes.dedup();
    if seen.drops > 0 {
        notes.push(format!("the capture lost {} frames", seen.drops));
    }
    let build =
        |sign, words: String, (front, outcome): (SocketAddr, &ProbeOutcome), last: Option<(String, Way)>| {
            let flow = flow(front, outcome);
            let ends = |of: fn(&Ip) -> SocketAddr| -> Vec<(String, SocketAddr)> {
                let walk = flow.knock.iter().chain(&flow.request);
                walk.filter_map(|s| Some((s.at.space.clone(), of(s.ip()?)))).collect()
            };
            Symptom {
                sign,
                words,
                proof: proof(&flow, &seen.sightings),
                notes: notes.clone(),
                last,
                port: outcome.local.map_or(0, |local| local.port()),
                front,
                targets: ends(Ip::to),
                sources: ends(Ip::from),
            }
        };
    let subject = format!("{} > {}", options.source, options.target);
    if let Some((_, front, outcome)) = bad(Kind::Small) {
        let flow = flow(*front, outcome);
        let all = of_kind(Kind::Small).count();
        let failed = of_kind(Kind::Small).filter(|(_, _, outcome)| outcome.word != Word::Ok).count();
        let count = if all > 1 { format!(" ({failed} of {all} connections)") } else { String::new() };
        let words = format!("{subject} {front}: {}{count}", outcome.words());
        return Ok(build(
            Sign::Fails,
            words,
            (*front, outcome),
            last(&flow).or_else(|| last_arp(&seen.sightings)),
        ));
    }
    let first = first.context("no probe was sent")?;
    let other_host = |outcome: &ProbeOutcome| outcome.host.clone().filter(|host| *host != options.target);
    let is_pod_to_pod = aim.service.is_none() && options.target.parse::<IpAddr>().is_err();
    if let Some(host) = other_host(first.1).filter(|_| is_pod_to_pod) {
        let words = format!("{subject}: {host} answered instead");
        return Ok(build(Sign::WrongHost, words, first, last(&flow(first.0, first.1))));
    }
    let own = flow(first.0, first.1);
    let is_inside = is_pod_to_pod && cluster.host(&options.target).is_none();
    if let Some((s, from, to)) = rewritten(&own).filter(|_| is_inside) {
        let words = format!("{subject}: answered, but the source {from} became {to} at {s}");
        return Ok(build(Sign::Rewritten, words, first, Some((s.at.space.clone(), Way::Request))));
    }
    if let Some((address, macs)) = answered_twice(&seen.sightings) {
        let words =
            format!("{subject}: {} MAC addresses answer for {address}: {}", macs.len(), macs.join(", "));
        return Ok(build(Sign::Twice, words, first, None));
    }
    let lost: Vec<_> = of_kind(Kind::Ping).filter(|(_, _, outcome)| outcome.word != Word::Ok).collect();
    if let Some((_, front, outcome)) = lost.first() {
        let words = format!("{subject}: {} of {PINGS} pings got no answer", lost.len());
        return Ok(build(Sign::Lossy, words, (*front, outcome), last(&flow(*front, outcome))));
    }
    if let Some((_, front, outcome)) = bad(Kind::Large).or(bad(Kind::Held)) {
        let words = format!("{subject}: small packets pass, a large request is {}", outcome.words());
        return Ok(build(Sign::LargeHangs, words, (*front, outcome), last(&flow(*front, outcome))));
    }
    let held = of_kind(Kind::Held).filter_map(|(_, front, outcome)| {
        held(&flow(*front, outcome)).map(|(place, way, ms)| (ms, place, way, *front, outcome))
    });
    if let Some((ms, place, way, front, outcome)) =
        held.max_by_key(|held| held.0).filter(|held| held.0 >= SLOW_MS)
    {
        let words = format!("{subject}: answered, but {place} held a large packet for {ms} ms");
        return Ok(build(Sign::Slow, words, (front, outcome), Some((place, way))));
    }
    let sightings = own.request.len() + own.reply.len();
    let words = match aim.service {
        Some(_) => format!("all {} connections were answered", seen.probes.len()),
        None => format!(
            "answered, seen {sightings} times on the way, {PINGS} of {PINGS} pings, large packets too"
        ),
    };
    let words = format!("nothing is broken between {} and {}: {words}", options.source, options.target);
    Ok(build(Sign::Fine, words, first, None))
}

/// The furthest that a probe without an answer got.
fn last(flow: &Flow<'_>) -> Option<(String, Way)> {
    let walks = [
        (Way::Reply, &flow.reply),
        (Way::Request, &flow.request),
        (Way::Reply, &flow.welcome),
        (Way::Request, &flow.knock),
    ];
    walks.iter().find_map(|(way, walk)| one_transmission(walk).last().map(|s| (s.at.space.clone(), *way)))
}

/// Who asked last by ARP and got no answer, when no packet was seen at all.
fn last_arp(sightings: &[Sighting]) -> Option<(String, Way)> {
    let unanswered = unanswered(sightings);
    unanswered.last().map(|s| (s.at.space.clone(), Way::Request))
}

/// Questions at the place that asks them, without an answer.
fn unanswered(sightings: &[Sighting]) -> Vec<&Sighting> {
    // Who asks in one place is not answered in another.
    let answer = |s: &Sighting| match s.packet.asking()? {
        Asking::Answer(address, _) => Some(address),
        Asking::Question(..) => None,
    };
    let answered: BTreeSet<(&str, IpAddr)> =
        sightings.iter().filter_map(|s| Some((s.at.space.as_str(), answer(s)?))).collect();
    let is_open = |s: &&Sighting| match s.packet.asking() {
        Some(Asking::Question(address, _)) if s.direction == Direction::Out => {
            !answered.contains(&(s.at.space.as_str(), address))
        }
        _ => false,
    };
    sightings.iter().filter(is_open).collect()
}

/// `SYN seen at kubia-1/eth0 out, node1/veth1 in; last at node1/cni0 in`
fn proof(flow: &Flow<'_>, sightings: &[Sighting]) -> String {
    let walks = [
        ("answer", &flow.reply),
        ("request", &flow.request),
        ("SYN-ACK", &flow.welcome),
        ("SYN", &flow.knock),
    ];
    let found = walks.iter().find_map(|(name, walk)| {
        let walk = one_transmission(walk);
        let last = *walk.last()?;
        let ip = last.ip()?;
        Some(format!(
            "the {name} {} > {} was seen {} times, last at {last} with TTL {}",
            ip.from(),
            ip.to(),
            walk.len(),
            ip.ttl
        ))
    });
    if let Some(found) = found {
        return found;
    }
    match unanswered(sightings).last() {
        Some(s) => {
            let Some(Asking::Question(address, _)) = s.packet.asking() else { return String::new() };
            format!("no packet of the probe was seen; {s} asks who has {address}, and nobody answers")
        }
        None => "no packet of the probe was seen anywhere".into(),
    }
}

/// The first sighting with another source than the first.
fn rewritten<'a>(flow: &Flow<'a>) -> Option<(&'a Sighting, SocketAddr, SocketAddr)> {
    let walk = one_transmission(&flow.request);
    let original = walk.first()?.ip()?.from();
    walk.iter()
        .find_map(|s| s.ip().map(Ip::from).filter(|from| *from != original).map(|from| (*s, original, from)))
}

fn answered_twice(sightings: &[Sighting]) -> Option<(String, Vec<String>)> {
    let mut answers: Vec<(String, BTreeSet<String>)> = Vec::new();
    for s in sightings {
        let Some(Asking::Answer(address, mac)) = s.packet.asking() else { continue };
        let address = address.to_string();
        match answers.iter_mut().find(|(own, _)| *own == address) {
            Some((_, macs)) => drop(macs.insert(mac.to_string())),
            None => answers.push((address, [mac.to_string()].into())),
        }
    }
    let twice = answers.into_iter().find(|(_, macs)| macs.len() > 1);
    twice.map(|(address, macs)| (address, macs.into_iter().collect()))
}

/// The place that held a packet longest between its coming in and its going out, in milliseconds.
fn held(flow: &Flow<'_>) -> Option<(String, Way, u64)> {
    let of_walk = |way: Way, walk: &[&Sighting]| {
        let steps = walk.windows(2).filter(|pair| pair[0].at.space == pair[1].at.space);
        steps
            .map(|pair| (pair[0].at.space.clone(), way, (pair[1].stamp_ns - pair[0].stamp_ns) / 1_000_000))
            .max_by_key(|held| held.2)
    };
    let both = [of_walk(Way::Request, &flow.request), of_walk(Way::Reply, &flow.reply)];
    both.into_iter().flatten().max_by_key(|held| held.2)
}
