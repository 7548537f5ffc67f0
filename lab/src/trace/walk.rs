//! From sightings to hops: what changed from each to the next, and the verdict over all walks.
//!
//! Pure; the reasons come from [`Tables`], which is only asked.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::encap::Outer;
use crate::probe::{ProbeOutcome, Word};
use crate::sighting::{Direction, Sighting};
use crate::verdict::{Ruling, Way};

use super::causes::Causes;
use super::hooks::{HookStep, Mark};
use super::why::Tables;

/// A field that is not what it was at the hop before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// `OUTER`, `TTL`, `MAC`, `SRC`, `DST`, `SPORT`, `DPORT`, `ID`, `LABEL` or `PAYLOAD`.
    pub field: String,
    /// Before.
    pub from: String,
    /// After.
    pub to: String,
}

/// A packet at one interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// From 1 on.
    pub number: usize,
    /// The namespace.
    pub space: String,
    /// What it is: `pod`, `node`, `fabric` or `outside`.
    pub role: String,
    /// The interface.
    pub interface: String,
    /// Which way.
    pub direction: Direction,
    /// Nanoseconds since 1970.
    pub stamp_ns: u64,
    /// Nanoseconds since the first hop of this walk.
    pub after_ns: u64,
    /// Source address and port; port 0 for ICMP.
    pub source: SocketAddr,
    /// Destination address and port.
    pub target: SocketAddr,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// IP identification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u16>,
    /// Source MAC.
    pub source_mac: String,
    /// Destination MAC.
    pub target_mac: String,
    /// What was around the packet; all else here is of the packet inside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outer: Option<Outer>,
    /// What changed since the hop before.
    pub changed: Vec<Change>,
    /// Why the packet is here, or where it goes next.
    pub why: String,
    /// The entries of the kernel that sent it: route, neighbour, FDB, connection.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// What nf_tables did with it: after it came in, or before it went out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<HookStep>,
}

impl Hop {
    /// `node1/eth0 out`
    pub fn place(&self) -> String {
        format!("{}/{} {}", self.space, self.interface, self.direction)
    }
}

/// One packet from hop to hop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Walk {
    /// What packet: `SYN`, `echo request`, ….
    pub packet: String,
    /// There or back.
    pub way: Way,
    /// Where it was seen, in order.
    pub hops: Vec<Hop>,
}

impl Walk {
    /// The walk of one transmission, whose sightings are in order of time.
    pub(super) fn of(packet: &str, way: Way, sightings: &[&Sighting], reasons: &Reasons<'_>) -> Walk {
        let began = sightings.first().map_or(0, |s| s.stamp_ns);
        let hops = sightings.iter().enumerate().filter_map(|(i, s)| {
            let ip = s.ip()?;
            let before = i.checked_sub(1).map(|i| sightings[i]);
            let (mut why, causes) = (reasons.tables.why(sightings, i), reasons.causes.of(sightings, i));
            // What the kernel decides counts, where policy rules lead past the main table.
            let is_routed =
                s.direction == Direction::Out && s.at.port_of.is_none() && s.packet.outer.is_none();
            if let Some(decision) = causes.first().filter(|it| is_routed && !it.starts_with(&why)) {
                why.clone_from(decision);
            }
            Some(Hop {
                number: i + 1,
                space: s.at.space.clone(),
                role: s.at.role.word().into(),
                interface: s.at.interface.clone(),
                direction: s.direction,
                stamp_ns: s.stamp_ns,
                after_ns: s.stamp_ns.saturating_sub(began),
                source: ip.from(),
                target: ip.to(),
                ttl: ip.ttl,
                id: ip.id,
                source_mac: s.packet.source_mac.to_string(),
                target_mac: s.packet.target_mac.to_string(),
                outer: s.packet.outer,
                changed: before.map(|before| changes(before, s)).unwrap_or_default(),
                why,
                causes,
                hooks: Vec::new(),
            })
        });
        let mut walk = Walk { packet: packet.into(), way, hops: hops.collect() };
        let marks: Vec<Mark> = sightings.iter().filter_map(|s| s.ip()).map(Mark::of).collect();
        let own = reasons.steps.iter().filter(|(mark, _)| marks.contains(mark));
        own.for_each(|(_, step)| walk.place(step));
        walk
    }

    /// Puts a step to the hop that it belongs to: what happens to a packet that comes in, to where it came in last as
    /// routing sees it; what happens before it leaves, to where it left.
    fn place(&mut self, step: &HookStep) {
        let here = |hop: &Hop| hop.space == step.space;
        let out = self.hops.iter().position(|hop| here(hop) && hop.direction == Direction::Out);
        let end = out.unwrap_or(self.hops.len());
        let came = self.hops[..end].iter().rposition(|hop| here(hop) && hop.direction == Direction::In);
        let at = if step.is_outward() { out.or(came) } else { came.or(out) };
        if let Some(hop) = at.and_then(|at| self.hops.get_mut(at)) {
            hop.hooks.push(step.clone());
        }
    }
}

/// Where the reasons of a walk come from.
#[derive(Default)]
pub(super) struct Reasons<'r> {
    pub(super) tables: Tables,
    pub(super) causes: Causes,
    pub(super) steps: &'r [(Mark, HookStep)],
}

/// What differs between two sightings of one packet.
pub(crate) fn changes(before: &Sighting, after: &Sighting) -> Vec<Change> {
    let mut all = Vec::new();
    each_change(before, after, &mut |field, from, to| {
        all.push(Change { field: field.into(), from: from.to_string(), to: to.to_string() });
    });
    all
}

/// As [`changes`], handed on one by one without a string: captures ask for every frame that goes by.
pub(crate) fn each_change(
    before: &Sighting,
    after: &Sighting,
    found: &mut dyn FnMut(&'static str, fmt::Arguments<'_>, fmt::Arguments<'_>),
) {
    let (Some(a), Some(b)) = (before.ip(), after.ip()) else { return };
    let (p, q) = (&before.packet, &after.packet);
    match (p.outer, q.outer) {
        (from, to) if from == to => {}
        (Some(from), Some(to)) => found("OUTER", format_args!("{from}"), format_args!("{to}")),
        (Some(from), None) => found("OUTER", format_args!("{from}"), format_args!("nothing")),
        (None, Some(to)) => found("OUTER", format_args!("nothing"), format_args!("{to}")),
        (None, None) => {}
    }
    if a.ttl != b.ttl {
        found("TTL", format_args!("{}", a.ttl), format_args!("{}", b.ttl));
    }
    if (p.source_mac, p.target_mac) != (q.source_mac, q.target_mac) {
        let (from, to) = ((p.source_mac, p.target_mac), (q.source_mac, q.target_mac));
        found("MAC", format_args!("{} > {}", from.0, from.1), format_args!("{} > {}", to.0, to.1));
    }
    for (field, from, to) in [("SRC", a.source, b.source), ("DST", a.target, b.target)] {
        if from != to {
            found(field, format_args!("{from}"), format_args!("{to}"));
        }
    }
    for (field, from, to) in
        [("SPORT", a.from().port(), b.from().port()), ("DPORT", a.to().port(), b.to().port())]
    {
        if from != to {
            found(field, format_args!("{from}"), format_args!("{to}"));
        }
    }
    if let (Some(from), Some(to)) = (a.id, b.id)
        && from != to
    {
        found("ID", format_args!("{from:#06x}"), format_args!("{to:#06x}"));
    }
    if let (Some(from), Some(to)) = (a.label, b.label)
        && from != to
    {
        found("LABEL", format_args!("{from:#07x}"), format_args!("{to:#07x}"));
    }
    if a.payload != b.payload {
        found(
            "PAYLOAD",
            format_args!("{} bytes", a.payload.len()),
            format_args!("{} bytes", b.payload.len()),
        );
    }
}

/// What the walks say: whether an answer came, and what was rewritten where.
pub(super) fn judge(outcome: &ProbeOutcome, walks: &[Walk], drops: u64) -> (Ruling, String) {
    let sightings: usize = walks.iter().map(|w| w.hops.len()).sum();
    if sightings == 0 {
        return (Ruling::Error, format!("no packet was seen; the probe says {}", outcome.words()));
    }
    if outcome.word != Word::Ok {
        let last = walks.last().and_then(|w| Some((w, w.hops.last()?)));
        let last = last.map(|(w, hop)| format!("{} last seen at {}", w.packet, hop.place()));
        return (Ruling::Fail, format!("no answer: {}, {}", outcome.words(), last.unwrap_or_default()));
    }
    if drops > 0 {
        return (Ruling::Error, format!("the capture lost {drops} frames, so the walk may have holes"));
    }
    let rewritten: Vec<String> = walks.iter().flat_map(rewritings).collect();
    let first = walks.iter().find(|w| w.way == Way::Request).and_then(|w| w.hops.first());
    let asymmetric = walks.iter().filter(|w| w.way == Way::Reply).find_map(|w| asymmetry(w, first?));
    match (rewritten.is_empty(), asymmetric) {
        (true, None) => (Ruling::Pass, format!("no NAT (5-tuple identical at {sightings} sightings)")),
        (true, Some(text)) => (Ruling::Fail, format!("NAT: {text}")),
        (false, _) => (Ruling::Fail, format!("NAT: {}", rewritten.join("; "))),
    }
}

/// Each rewriting of addresses or ports in a walk.
fn rewritings(walk: &Walk) -> Vec<String> {
    let pairs = walk.hops.iter().zip(walk.hops.iter().skip(1));
    pairs
        .flat_map(|(a, b)| {
            let ends = [("source", a.source, b.source), ("destination", a.target, b.target)];
            ends.into_iter().filter(|(_, from, to)| from != to).map(|(end, from, to)| {
                format!("{end} of the {} {} became {} at {}", walk.packet, show(from), show(to), b.place())
            })
        })
        .collect()
}

/// Where a reply is not the request's tuple the other way round.
fn asymmetry(walk: &Walk, sent: &Hop) -> Option<String> {
    let other = walk.hops.iter().find(|hop| (hop.source, hop.target) != (sent.target, sent.source))?;
    Some(format!(
        "the {} is {} > {} at {}, not {} > {}",
        walk.packet,
        show(other.source),
        show(other.target),
        other.place(),
        show(sent.target),
        show(sent.source)
    ))
}

/// Address and port, or the address alone where there is no port.
pub(super) fn show(end: SocketAddr) -> String {
    if end.port() == 0 { end.ip().to_string() } else { end.to_string() }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::packet::Nonce;
    use crate::sighting::tests::seen;

    const CLIENT: &str = "10.244.1.2:40000";
    const SERVER: &str = "10.244.2.2:8080";
    const NODE: &str = "192.0.2.11:1024";

    pub(in super::super) fn outcome(word: Word) -> ProbeOutcome {
        ProbeOutcome { nonce: Nonce(1), word, detail: None, local: None, host: None, remote: None, micros: 1 }
    }

    pub(in super::super) fn walk(packet: &str, way: Way, seen_at: &[(&str, &str, &str, u8)]) -> Walk {
        let list: Vec<_> = seen_at
            .iter()
            .zip(1..)
            .map(|(&(at, from, to, ttl), t)| seen(at, t * 1000, from, to, ttl, "x"))
            .collect();
        Walk::of(packet, way, &list.iter().collect::<Vec<_>>(), &Reasons::default())
    }

    pub(in super::super) fn routed() -> [Walk; 2] {
        [
            walk(
                "SYN",
                Way::Request,
                &[
                    ("kubia-1/eth0 out", CLIENT, SERVER, 64),
                    ("node1/eth0 out", CLIENT, SERVER, 63),
                    ("kubia-3/eth0 in", CLIENT, SERVER, 62),
                ],
            ),
            walk(
                "SYN-ACK",
                Way::Reply,
                &[("kubia-3/eth0 out", SERVER, CLIENT, 64), ("kubia-1/eth0 in", SERVER, CLIENT, 62)],
            ),
        ]
    }

    #[test]
    fn untouched_walks_are_no_nat() {
        let verdict = judge(&outcome(Word::Ok), &routed(), 0);
        assert_eq!(verdict, (Ruling::Pass, "no NAT (5-tuple identical at 5 sightings)".into()));
        let hop = &routed()[0].hops[1];
        assert_eq!((hop.number, hop.after_ns, hop.role.as_str()), (2, 1000, "node"));
        let ttl = Change { field: "TTL".into(), from: "64".into(), to: "63".into() };
        assert_eq!(hop.changed, [ttl]);
    }

    #[test]
    fn every_rewriting_is_named_with_its_place() {
        let there = walk(
            "SYN",
            Way::Request,
            &[("kubia-1/eth0 out", CLIENT, SERVER, 64), ("node1/eth0 out", NODE, SERVER, 63)],
        );
        let back = walk(
            "SYN-ACK",
            Way::Reply,
            &[("node1/eth0 in", SERVER, NODE, 63), ("node1/cni0 out", SERVER, CLIENT, 62)],
        );
        let fields: Vec<_> = there.hops[1].changed.iter().map(|c| c.field.as_str()).collect();
        assert_eq!(fields, ["TTL", "SRC", "SPORT"]);
        let (ruling, text) = judge(&outcome(Word::Ok), &[there, back], 0);
        assert_eq!(ruling, Ruling::Fail);
        assert_eq!(
            text,
            "NAT: source of the SYN 10.244.1.2:40000 became 192.0.2.11:1024 at node1/eth0 out; \
             destination of the SYN-ACK 192.0.2.11:1024 became 10.244.1.2:40000 at node1/cni0 out"
        );
    }

    #[test]
    fn reply_in_another_name_is_nat_even_if_it_never_changes() {
        let [there, _] = routed();
        let back = walk("SYN-ACK", Way::Reply, &[("kubia-1/eth0 in", "192.0.2.12:8080", CLIENT, 62)]);
        let (ruling, text) = judge(&outcome(Word::Ok), &[there, back], 0);
        assert_eq!(ruling, Ruling::Fail);
        let expected = "NAT: the SYN-ACK is 192.0.2.12:8080 > 10.244.1.2:40000 at kubia-1/eth0 in, \
                        not 10.244.2.2:8080 > 10.244.1.2:40000";
        assert_eq!(text, expected);
    }

    #[test]
    fn lost_unseen_and_torn_walks_are_no_pass() {
        let [there, _] = routed();
        let (ruling, text) = judge(&outcome(Word::Timeout), &[there], 0);
        assert_eq!((ruling, &*text), (Ruling::Fail, "no answer: TIMEOUT, SYN last seen at kubia-3/eth0 in"));
        let (ruling, text) = judge(&outcome(Word::Ok), &[], 0);
        assert_eq!((ruling, &*text), (Ruling::Error, "no packet was seen; the probe says OK"));
        assert_eq!(judge(&outcome(Word::Ok), &routed(), 1).0, Ruling::Error);
    }
}
