//! What was found, as text: the symptom, the suspects with their proof, what else was seen.

use std::fmt::Write;

use super::Why;
use crate::verdict::Style;

/// For people. The JSON document has the same.
pub fn render_why(why: &Why, style: Style) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{}", why.symptom);
    for (i, suspect) in why.suspects.iter().enumerate() {
        let _ = writeln!(out, "{}. {}: {}: {}", i + 1, suspect.place, suspect.part, suspect.what);
        let _ = writeln!(out, "   proof: {}", suspect.proof);
        let _ = writeln!(out, "   look:  {}", suspect.look);
    }
    if why.is_broken && why.suspects.is_empty() {
        let _ = writeln!(
            out,
            "nothing on the way does not fit · try: podlab trace {} {}",
            why.source, why.target
        );
    }
    if !why.is_broken && !why.symptom.starts_with("nothing") {
        let _ = writeln!(out, "nothing is told to, so nothing is broken: the machine may be busy");
    }
    for note in &why.notes {
        let _ = writeln!(out, "{note}");
    }
    style.text(&out)
}

#[cfg(test)]
mod tests {
    use super::super::{SCHEMA, Suspect};
    use super::*;

    #[test]
    fn a_suspect_comes_with_its_proof_and_where_to_look() {
        let mut why = Why {
            schema: SCHEMA.into(),
            lab: "demo".into(),
            source: "kubia-1".into(),
            target: "kubia-3".into(),
            is_broken: true,
            symptom: "kubia-1 > kubia-3 10.244.2.2:8080: TIMEOUT".into(),
            suspects: vec![Suspect {
                place: "node1".into(),
                part: "ip_forward".into(),
                what: "it is 0".into(),
                proof: "the SYN was seen 3 times, last at node1/cni0 in".into(),
                look: "podlab inspect node1 sysctls".into(),
            }],
            notes: Vec::new(),
        };
        assert_eq!(
            render_why(&why, Style::default()),
            "kubia-1 > kubia-3 10.244.2.2:8080: TIMEOUT\n\
             1. node1: ip_forward: it is 0\n   proof: the SYN was seen 3 times, last at node1/cni0 in\n   \
             look:  podlab inspect node1 sysctls\n"
        );
        why.suspects.clear();
        assert!(render_why(&why, Style::default()).contains("try: podlab trace kubia-1 kubia-3"));
    }
}
