//! The report as a table, as JSON and as an exit code.

use super::tests::WALK;
use super::*;
use crate::sighting::tests::seen;

fn point(at: &str, ttl: u8) -> Option<Point> {
    Point::of(&seen(at, 1, "10.244.1.2:40000", "10.244.2.2:8080", ttl, "GET"))
}

fn report_of(rulings: &[Ruling]) -> Report {
    let verdict = |(i, &ruling): (usize, &Ruling)| Verdict {
        subject: format!("kubia-{i} > kubia-{}", i + 1),
        ruling,
        evidence: if ruling == Ruling::Pass { "TTL 64→63→62".into() } else { "lost".into() },
        findings: Vec::new(),
        outcome: None,
        logged: None,
        request: WALK.iter().filter_map(|&(at, ttl)| point(at, ttl)).collect(),
        reply: Vec::new(),
    };
    let failed = rulings.iter().filter(|r| **r != Ruling::Pass).count();
    Report {
        mode: "vxlan".into(),
        wire: vec![OnWire { looks: "VXLAN".into(), packets: 16 }],
        notes: vec!["a node does not reach its own pods".into()],
        schema: SCHEMA.into(),
        lab: "demo".into(),
        seconds: 1.5,
        pairs: rulings.len(),
        possible_pairs: rulings.len(),
        seed: None,
        frames: 100,
        drops: 0,
        passed: rulings.len() - failed,
        failed,
        checks: vec![CheckReport {
            name: "cross-node".into(),
            title: "pod to pod across nodes".into(),
            verdicts: rulings.iter().enumerate().map(verdict).collect(),
        }],
    }
}

#[test]
fn table_ends_with_one_plain_line() {
    let table = render_table(&report_of(&[Ruling::Pass, Ruling::Pass]), Style::default());
    assert_eq!(
        table,
        "CHECK                    COUNT  RESULT  EVIDENCE\n\
         pod to pod across nodes      2  PASS    TTL 64→63→62\n\
         on the wire between nodes: VXLAN (16 packets)\n\
         mode vxlan: a node does not reach its own pods\n\
         2 ordered pod pairs in 1.50 s, 100 frames captured, 0 lost\n\
         2 passed, 0 failed\n"
    );
}

#[test]
fn table_names_what_failed_and_counts_the_rest() {
    let mut rulings = vec![Ruling::Fail; 12];
    rulings.extend([Ruling::Error, Ruling::Pass]);
    let style = Style { is_ascii: true, is_coloured: false };
    let table = render_table(&report_of(&rulings), style);
    assert!(table.contains("14  FAIL    13 of 14: lost\n"), "{table}");
    assert!(table.contains("\n  FAIL  cross-node kubia-0 > kubia-1: lost\n"), "{table}");
    assert!(table.contains("\n  and 3 more of cross-node\n"), "{table}");
    assert!(table.ends_with("\n1 passed, 13 failed\n") && table.is_ascii(), "{table}");
    let coloured = render_table(&report_of(&rulings), Style { is_coloured: true, ..style });
    assert!(coloured.contains("\x1b[31mFAIL"), "{coloured}");
}

#[test]
fn exit_code_tells_passed_failed_and_nothing_checked() {
    assert_eq!(report_of(&[Ruling::Pass]).exit_code(), 0);
    assert_eq!(report_of(&[Ruling::Pass, Ruling::Error]).exit_code(), 1);
    assert_eq!(report_of(&[Ruling::Fail]).exit_code(), 1);
    assert_eq!(report_of(&[]).exit_code(), 4);
}

#[test]
fn report_survives_json() {
    let mut report = report_of(&[Ruling::Pass, Ruling::Fail]);
    report.checks[0].verdicts[1].findings =
        vec![Finding::TtlWrong { way: Way::Reply, at: "node2/eth0 out".into(), expected: 63, found: 62 }];
    let json = serde_json::to_string(&report).unwrap();
    assert!(json.starts_with(r#"{"schema":"podlab.verdict/1","lab":"demo""#), "{json}");
    assert!(json.contains(r#""ruling":"FAIL""#) && json.contains(r#""kind":"ttl-wrong""#), "{json}");
    assert!(json.contains(r#""payload_len":3,"payload_digest":"ea7e631998067e17""#), "{json}");
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
}
