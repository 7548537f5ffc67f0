//! The pairs of a verification as a matrix: who reaches whom, grouped by node.
//!
//! Rows are clients, columns servers. What came of a pair is told by shape and by colour: a square passed, a cross failed, a
//! triangle is an error, an empty cell was not tried. Of more than a hundred pods a cell stands for several neighbours of
//! one node, and has the worst that came of them.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::layout::{self, TEXT};
use crate::suites::xml as escape;
use crate::verdict::Ruling;

/// The most rows and columns.
const MOST_CELLS: usize = 100;
const MARGIN: i32 = 14;
const HEAD: i32 = 40;
const GAP: i32 = 6;
/// So many pairs that failed are named in the description.
const NAMED: usize = 20;

/// The text of the style element.
const STYLE: &str = include_str!("heatmap.css");

/// What came of an ordered pair of pods.
struct Pair<'r> {
    client: &'r str,
    server: &'r str,
    ruling: Ruling,
}

/// A row and a column: neighbours of one node.
struct Group<'r> {
    node: String,
    pods: Vec<&'r str>,
}

impl Group<'_> {
    fn label(&self) -> String {
        match self.pods.as_slice() {
            [] => String::new(),
            [only] => (*only).to_owned(),
            [first, .., last] => format!("{first} … {last}"),
        }
    }
}

/// Draws the document of `podlab verify -o json` as SVG.
///
/// # Errors
/// What is no such document, or one without pairs.
pub fn render(report: &Value) -> Result<String, String> {
    if report["schema"] != crate::verdict::SCHEMA {
        return Err(format!("no document of podlab verify -o json: schema is {}", report["schema"]));
    }
    let (pairs, nodes) = pairs(report);
    if pairs.is_empty() {
        return Err("no pair of pods was verified · try: podlab verify same-node cross-node".to_owned());
    }
    let groups = groups(&nodes);
    let mut cells: BTreeMap<(usize, usize), Ruling> = BTreeMap::new();
    let place: HashMap<&str, usize> = groups
        .iter()
        .zip(0..)
        .flat_map(|(group, number)| group.pods.iter().map(move |pod| (*pod, number)))
        .collect();
    for pair in &pairs {
        let cell = cells.entry((place[pair.client], place[pair.server])).or_insert(pair.ruling);
        *cell = (*cell).max(pair.ruling);
    }
    Ok(draw(report, &pairs, &groups, &cells))
}

/// The pairs of the report, and the node of each pod. A packet's first place beside its client is the client's node, its
/// last one beside its server the server's.
fn pairs(report: &Value) -> (Vec<Pair<'_>>, BTreeMap<&str, String>) {
    let mut pairs = Vec::new();
    let mut nodes: BTreeMap<&str, String> = BTreeMap::new();
    let verdicts =
        report["checks"].as_array().into_iter().flatten().filter_map(|check| check["verdicts"].as_array());
    for verdict in verdicts.flatten() {
        let subject = verdict["subject"].as_str().and_then(|text| text.split_once(" > "));
        let ruling = match verdict["ruling"].as_str() {
            Some("PASS") => Ruling::Pass,
            Some("FAIL") => Ruling::Fail,
            _ => Ruling::Error,
        };
        let Some((client, server)) = subject.filter(|(client, server)| {
            // Services and the host outside are no pods.
            let is_pod = |name: &str| !name.contains(['/', ':', ' ']) && name != "outside";
            is_pod(client) && is_pod(server)
        }) else {
            continue;
        };
        let points = verdict["request"].as_array().into_iter().flatten();
        let places = points.filter_map(|point| point["at"].as_str()?.split_once('/').map(|(place, _)| place));
        let between: Vec<&str> = places.filter(|place| *place != client && *place != server).collect();
        // A packet that was lost may not have come to the server's node.
        let arrived = between.last().filter(|_| ruling == Ruling::Pass);
        for (pod, node) in [(client, between.first()), (server, arrived)] {
            let known = nodes.entry(pod).or_default();
            if let Some(node) = node.filter(|_| known.is_empty()) {
                *known = (*node).to_owned();
            }
        }
        pairs.push(Pair { client, server, ruling });
    }
    (pairs, nodes)
}

/// The pods in groups, few enough to be drawn, none of two nodes.
fn groups<'r>(nodes: &BTreeMap<&'r str, String>) -> Vec<Group<'r>> {
    let mut pods: Vec<(&str, &'r str)> = nodes.iter().map(|(pod, node)| (node.as_str(), *pod)).collect();
    pods.sort_by(|a, b| natural(a.0, b.0).then(natural(a.1, b.1)));
    let size = pods.len().div_ceil(MOST_CELLS);
    let mut all: Vec<Group<'r>> = Vec::new();
    for (node, pod) in pods {
        match all.last_mut().filter(|group| group.node == node && group.pods.len() < size) {
            Some(group) => group.pods.push(pod),
            None => all.push(Group { node: node.to_owned(), pods: vec![pod] }),
        }
    }
    all
}

/// `kubia-2` is before `kubia-10`.
fn natural(a: &str, b: &str) -> Ordering {
    let split = |text: &str| {
        let head = text.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned();
        let number: u64 = text[head.len()..].parse().unwrap_or(0);
        (head, number)
    };
    split(a).cmp(&split(b)).then(a.cmp(b))
}

fn draw(
    report: &Value,
    pairs: &[Pair<'_>],
    groups: &[Group<'_>],
    cells: &BTreeMap<(usize, usize), Ruling>,
) -> String {
    let count = groups.len() as i32;
    let cell = (900 / count).clamp(8, 22);
    // A gap between nodes.
    let mut starts = Vec::new();
    let mut at = 0;
    for (index, group) in groups.iter().enumerate() {
        if index > 0 && groups[index - 1].node != group.node {
            at += GAP;
        }
        starts.push(at);
        at += cell;
    }
    let labels: Vec<String> = groups.iter().map(|group| layout::short(&group.label())).collect();
    let has_labels = cell >= 12;
    let longest = labels.iter().map(|label| layout::width(label, TEXT)).max().unwrap_or(0);
    let left = MARGIN + if has_labels { longest + 8 } else { 60 };
    let top = MARGIN + HEAD;
    let (width, height) = ((left + at + MARGIN).max(440), top + at + 34);
    let counted = |ruling: Ruling| pairs.iter().filter(|pair| pair.ruling == ruling).count();
    let (passed, failed, errors) = (counted(Ruling::Pass), counted(Ruling::Fail), counted(Ruling::Error));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let title = format!("Pairs of lab {}, mode {}", text(&report["lab"]), text(&report["mode"]));
    let sum = format!("{passed} passed, {failed} failed, {errors} without evidence");
    let of = match report["possible_pairs"].as_u64() {
        Some(possible) if possible > pairs.len() as u64 => format!(", of {possible} possible pairs"),
        _ => String::new(),
    };
    let bad: Vec<String> = pairs
        .iter()
        .filter(|pair| pair.ruling != Ruling::Pass)
        .take(NAMED)
        .map(|pair| format!("{} > {} {}", pair.client, pair.server, pair.ruling))
        .collect();
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" class=\"heatmap\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" data-schema=\"podlab.heatmap/1\" aria-label=\"{0}\">\n<title>{0}</title>\
         <desc>{1}</desc>\n<style>{STYLE}</style>\n<rect class=\"paper\" width=\"{width}\" height=\"{height}\"/>\n\
         <text class=\"name\" x=\"{MARGIN}\" y=\"{2}\">{0}</text>\n<text class=\"note\" x=\"{MARGIN}\" y=\"{3}\">{1}</text>\n",
        escape(&title),
        escape(&format!("{sum}{of}{}{}", if bad.is_empty() { "" } else { "; " }, bad.join(", "))),
        MARGIN + 8,
        MARGIN + 23,
    );
    if !bad.is_empty() {
        // The line below the title has room for the numbers only.
        let line = format!("y=\"{}\">", MARGIN + 23);
        let whole = out.rfind(&line).map(|start| start + line.len());
        if let Some(start) = whole {
            out.replace_range(start.., &format!("{}</text>\n", escape(&format!("{sum}{of}"))));
        }
    }
    // Nodes: a frame around the columns and rows of each pair of nodes, and their names.
    let mut first = 0;
    let mut spans: Vec<(&str, i32, i32)> = Vec::new();
    for index in 0..groups.len() {
        let ends = groups.get(index + 1).is_none_or(|next| next.node != groups[index].node);
        if ends {
            spans.push((&groups[index].node, starts[first], starts[index] + cell - starts[first]));
            first = index + 1;
        }
    }
    for (_, y, h) in &spans {
        for (_, x, w) in &spans {
            out.push_str(&format!(
                "<rect class=\"frame\" x=\"{}\" y=\"{}\" width=\"{w}\" height=\"{h}\"/>",
                left + x,
                top + y
            ));
        }
    }
    for (node, start, length) in &spans {
        let name = if node.is_empty() { "?" } else { node };
        if layout::width(name, TEXT) <= *length {
            let (x, y) = (left + start + length / 2, top - 4);
            out.push_str(&format!("<text class=\"middle\" x=\"{x}\" y=\"{y}\">{}</text>", escape(name)));
        }
        if !has_labels && *length >= 12 {
            let y = top + start + length / 2 + 4;
            out.push_str(&format!("<text x=\"{MARGIN}\" y=\"{y}\">{}</text>", escape(&layout::short(name))));
        }
    }
    if has_labels {
        for (label, start) in labels.iter().zip(&starts) {
            let (x, y) = (left - 6, top + start + cell / 2 + 4);
            out.push_str(&format!("<text class=\"end\" x=\"{x}\" y=\"{y}\">{}</text>", escape(label)));
        }
    }
    out.push('\n');
    for ruling in [Ruling::Pass, Ruling::Fail, Ruling::Error] {
        let shapes: String = cells
            .iter()
            .filter(|(_, own)| **own == ruling)
            .map(|((row, column), _)| shape(ruling, left + starts[*column], top + starts[*row], cell))
            .collect();
        if !shapes.is_empty() {
            out.push_str(&format!("<path class=\"{}\" d=\"{shapes}\"/>\n", class(ruling)));
        }
    }
    let mut x = MARGIN;
    let y = height - 24;
    for (ruling, words) in [
        (Some(Ruling::Pass), "PASS"),
        (Some(Ruling::Fail), "FAIL"),
        (Some(Ruling::Error), "ERROR"),
        (None, "not tried"),
    ] {
        match ruling {
            Some(ruling) => {
                out.push_str(&format!(
                    "<path class=\"{}\" d=\"{}\"/>",
                    class(ruling),
                    shape(ruling, x, y, 12)
                ));
            }
            None => out
                .push_str(&format!("<rect class=\"frame\" x=\"{x}\" y=\"{y}\" width=\"12\" height=\"12\"/>")),
        }
        out.push_str(&format!("<text x=\"{}\" y=\"{}\">{words}</text>", x + 18, y + 10));
        x += 34 + layout::width(words, TEXT);
    }
    out.push_str("\n</svg>\n");
    out
}

fn class(ruling: Ruling) -> &'static str {
    match ruling {
        Ruling::Pass => "pass",
        Ruling::Fail => "fail",
        Ruling::Error => "error",
    }
}

/// A square, a cross, a triangle, in a cell whose upper left corner is at `x`, `y`.
fn shape(ruling: Ruling, x: i32, y: i32, cell: i32) -> String {
    let (x, y, w) = (x + 1, y + 1, cell - 2);
    match ruling {
        Ruling::Pass => format!("M{x} {y}h{w}v{w}h-{w}z"),
        Ruling::Fail => format!("M{x} {y}l{w} {w}M{} {y}l-{w} {w}", x + w),
        Ruling::Error => format!("M{} {y}L{} {}H{x}z", x + w / 2, x + w, y + w),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn verdict(client: &str, server: &str, nodes: [&str; 2], ruling: &str) -> Value {
        let points: Vec<Value> =
            [client, nodes[0], nodes[1], server].map(|at| json!({ "at": format!("{at}/eth0") })).into();
        json!({ "subject": format!("{client} > {server}"), "ruling": ruling, "request": points })
    }

    fn report(verdicts: Vec<Value>) -> Value {
        json!({
            "schema": "podlab.verdict/1", "lab": "demo", "mode": "routed", "possible_pairs": 12,
            "checks": [{ "name": "cross-node", "verdicts": verdicts }],
        })
    }

    #[test]
    fn every_outcome_has_a_shape_of_its_own() {
        let svg = render(&report(vec![
            verdict("kubia-1", "kubia-10", ["node1", "node2"], "PASS"),
            verdict("kubia-2", "kubia-10", ["node1", "node2"], "FAIL"),
            verdict("kubia-10", "kubia-1", ["node2", "node1"], "ERROR"),
            json!({ "subject": "kubia-1 > outside", "ruling": "FAIL" }),
            json!({ "subject": "kubia-1", "ruling": "FAIL" }),
        ]));
        insta::assert_snapshot!(svg.unwrap());
    }

    #[test]
    fn a_thousand_pods_become_a_hundred_rows_and_none_is_of_two_nodes() {
        let pod = |number: usize| (format!("kubia-{}", number + 1), format!("node{}", number / 250 + 1));
        let verdicts = (0..4000).map(|index| {
            let ((client, near), (server, far)) = (pod(index % 1000), pod(index * 7 % 1000));
            verdict(&client, &server, [&near, &far], if index == 17 { "FAIL" } else { "PASS" })
        });
        let report = report(verdicts.collect());
        let (pairs, nodes) = pairs(&report);
        assert_eq!((pairs.len(), nodes.len()), (4000, 1000));
        let groups = groups(&nodes);
        assert_eq!(groups.len(), 100);
        assert!(groups.iter().all(|group| group.pods.iter().all(|pod| nodes[pod] == group.node)));
        assert_eq!(groups[0].label(), "kubia-1 … kubia-10");
        let svg = render(&report).unwrap();
        assert!(svg.contains("3999 passed, 1 failed, 0 without evidence</text>"), "{}", &svg[..2000]);
        assert!(svg.contains("; kubia-18 &gt; kubia-120 FAIL</desc>"), "{}", &svg[..2000]);
        assert_eq!(svg.matches("<path class=\"fail\"").count(), 2, "the cell and the legend");
    }

    #[test]
    fn what_is_no_report_is_refused() {
        assert!(render(&json!({})).unwrap_err().contains("no document of podlab verify"));
        assert!(render(&report(Vec::new())).unwrap_err().contains("no pair of pods"));
    }
}
