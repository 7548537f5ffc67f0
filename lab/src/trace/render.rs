//! A trace as text: the first packet's walk hop by hop, the others in a line each, the verdict.

use std::fmt::Write;

use crate::verdict::{Style, Way};

use super::walk::{Hop, Walk, show};
use super::{ArpPoint, Trace};

const HEAD: [&str; 9] = ["#", "WHERE", "DIR", "SRC", "DST", "TTL", "SMAC→DMAC", "CHANGED", "WHY"];

/// The trace for people. Everything else that is known is in the JSON document.
pub fn render_trace(trace: &Trace, style: Style) -> String {
    let mut out = String::new();
    let (shown, rest) = match trace.walks.split_first() {
        Some((first, rest)) => (Some(first), rest),
        None => (None, &[][..]),
    };
    // Writing to a string cannot fail.
    if let Some(walk) = shown {
        let _ = writeln!(out, "{}", title(walk));
        out.push_str(&table(walk));
    }
    for walk in rest {
        let _ = writeln!(out, "{}", line(walk));
    }
    if !trace.arp.is_empty() {
        let _ = writeln!(out, "ARP: {}", asked(&trace.arp));
    }
    if let Some(lost) = &trace.lost {
        let at = lost.at.as_ref().map(|at| format!(" after {at}")).unwrap_or_default();
        let _ = writeln!(out, "lost: {}{at}: {}", lost.packet, lost.reason);
        if let Some(word) = &lost.kernel {
            let _ = writeln!(out, "the kernel dropped a packet there then: {word}");
        }
    }
    if !trace.gaps.is_empty() {
        let _ =
            writeln!(out, "hooks: the kernel lost some of what it had to tell of {}", trace.gaps.join(", "));
    }
    for error in &trace.errors {
        let _ = writeln!(out, "{error}");
    }
    for seen in &trace.encrypted {
        let _ = writeln!(out, "between nodes: {} ({} packets)", seen.looks, seen.packets);
    }
    let _ = writeln!(out, "verdict: {}", trace.verdict);
    style.text(&out)
}

/// `pkt 7f3a  SYN 10.244.1.2:40000 → 10.244.2.2:8080`
fn title(walk: &Walk) -> String {
    let Some(hop) = walk.hops.first() else { return walk.packet.clone() };
    let id = hop.id.map(|id| format!("pkt {id:04x}  ")).unwrap_or_default();
    format!("{id}{} {} → {}", walk.packet, show(hop.source), show(hop.target))
}

fn table(walk: &Walk) -> String {
    let mut rows = vec![HEAD.map(str::to_owned)];
    let mut before: Option<&Hop> = None;
    for hop in &walk.hops {
        rows.push(row(hop, before));
        before = Some(hop);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let mut out = String::new();
    for (n, row) in rows.iter().enumerate() {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| match HEAD[column] {
            "#" | "TTL" => format!("{cell:>width$}"),
            _ => format!("{cell:<width$}"),
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        let hop = n.checked_sub(1).and_then(|n| walk.hops.get(n));
        let (before, after) = hop.map(beside).unwrap_or_default();
        let _ = write!(out, "{before}{}\n{after}", line.trim_end());
    }
    out
}

/// What stands above and below a hop's line: chains that it passed before it left, or after it came, and the entries of
/// the kernel that its reason does not name already.
fn beside(hop: &Hop) -> (String, String) {
    let (mut before, mut after) = (String::new(), String::new());
    for cause in hop.causes.iter().filter(|cause| !cause.starts_with(hop.why.as_str())) {
        let _ = writeln!(after, "     {cause}");
    }
    for step in &hop.hooks {
        let place = if step.is_outward() { &mut before } else { &mut after };
        let _ = writeln!(place, "     {}", step.words());
    }
    (before, after)
}

fn row(hop: &Hop, before: Option<&Hop>) -> [String; 9] {
    let pod = if hop.role == "pod" { "pod " } else { "" };
    let macs = |h: &Hop| (h.source_mac.clone(), h.target_mac.clone());
    let changed: Vec<&str> = hop.changed.iter().map(|c| c.field.as_str()).collect();
    [
        hop.number.to_string(),
        format!("{pod}{}/{}", hop.space, hop.interface),
        hop.direction.to_string(),
        show(hop.source),
        show(hop.target),
        hop.ttl.to_string(),
        match before.is_some_and(|b| macs(b) == macs(hop)) {
            true => "same".into(),
            false => format!("{}→{}", tail(&hop.source_mac), tail(&hop.target_mac)),
        },
        if changed.is_empty() { "—".into() } else { changed.join(" ") },
        hop.why.clone(),
    ]
}

/// The last three octets, which tell the interfaces of a lab apart.
fn tail(mac: &str) -> &str {
    mac.get(9..).unwrap_or(mac)
}

/// A walk that is not drawn hop by hop.
fn line(walk: &Walk) -> String {
    let way = match walk.way {
        Way::Request => "there",
        Way::Reply => "back",
    };
    let mut ttls: Vec<String> = walk.hops.iter().map(|hop| hop.ttl.to_string()).collect();
    ttls.dedup();
    let ends = walk.hops.first().zip(walk.hops.last());
    let ends = ends.map(|(a, b)| format!("{} → {}", a.place(), b.place())).unwrap_or_default();
    format!("{way:<5} {}: {ends}, {} sightings, TTL {}", title(walk), walk.hops.len(), ttls.join("→"))
}

/// The questions that went by, each once.
fn asked(arp: &[ArpPoint]) -> String {
    let mut texts: Vec<&str> = Vec::new();
    for point in arp {
        if !texts.contains(&point.text.as_str()) {
            texts.push(&point.text);
        }
    }
    texts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::super::walk::tests::{outcome, routed};
    use super::super::{SCHEMA, walk};
    use super::*;
    use crate::probe::{Protocol, Word};

    fn trace() -> Trace {
        let walks = routed().to_vec();
        let (ruling, verdict) = walk::judge(&outcome(Word::Ok), &walks, 0);
        Trace {
            schema: SCHEMA.into(),
            lab: "demo".into(),
            source: "kubia-1".into(),
            target: "kubia-3".into(),
            address: "10.244.2.2:8080".parse().unwrap(),
            protocol: Protocol::Tcp,
            outcome: outcome(Word::Ok),
            ruling,
            verdict,
            walks,
            arp: Vec::new(),
            errors: Vec::new(),
            encrypted: Vec::new(),
            lost: None,
            gaps: Vec::new(),
            drops: 0,
        }
    }

    #[test]
    fn walk_is_drawn_hop_by_hop() {
        let text = render_trace(&trace(), Style::default());
        let expected = "\
pkt 7f3a  SYN 10.244.1.2:40000 → 10.244.2.2:8080
#  WHERE             DIR  SRC               DST              TTL  SMAC→DMAC          CHANGED  WHY
1  pod kubia-1/eth0  out  10.244.1.2:40000  10.244.2.2:8080   64  00:00:01→00:00:02  —
2  node1/eth0        out  10.244.1.2:40000  10.244.2.2:8080   63  same               TTL
3  pod kubia-3/eth0  in   10.244.1.2:40000  10.244.2.2:8080   62  same               TTL
back  pkt 7f3a  SYN-ACK 10.244.2.2:8080 → 10.244.1.2:40000: kubia-3/eth0 out → kubia-1/eth0 in, 2 sightings, TTL 64→62
verdict: no NAT (5-tuple identical at 5 sightings)
";
        assert_eq!(text, expected);
    }

    #[test]
    fn plain_locale_gets_plain_characters() {
        assert!(render_trace(&trace(), Style { is_ascii: true, is_coloured: false }).is_ascii());
    }

    #[test]
    fn trace_survives_json_with_both_ways_in_it() {
        let json = serde_json::to_string(&trace()).unwrap();
        assert!(json.contains(r#""schema":"podlab.trace/1""#) && json.contains(r#""way":"reply""#), "{json}");
        assert_eq!(serde_json::from_str::<Trace>(&json).unwrap(), trace());
    }

    #[test]
    fn exit_code_is_about_the_answer() {
        let code = |edit: &dyn Fn(&mut Trace)| {
            let mut t = trace();
            edit(&mut t);
            t.exit_code()
        };
        use crate::verdict::Ruling;
        assert_eq!(code(&|_| {}), 0);
        assert_eq!(code(&|t| t.ruling = Ruling::Fail), 0, "a rewritten packet arrived");
        assert_eq!(code(&|t| t.outcome.word = Word::Timeout), 1);
        assert_eq!(code(&|t| t.ruling = Ruling::Error), 1);
    }
}
