//! A run as tables: one per unit of measurement, one of growth, one of goals; as text or as Markdown.

use super::goals::{self, FLOOR, figure};
use super::run::{Row, Run, Unit};
use super::statistics::{percentile, ratio};
use super::table::Table;

/// A heading and its table.
pub type Section = (&'static str, Table);

/// All tables of a run.
pub fn sections(run: &Run) -> Vec<Section> {
    let sections = [
        ("Times", times(run)),
        ("Pods a second, by ADDs in flight", rates(run)),
        ("Memory and size", sizes(run)),
        ("Growth", growth(run)),
        ("Goals", goals::table(run)),
    ];
    sections.into_iter().filter(|(_, table)| !table.is_empty()).collect()
}

/// A run as text for a terminal.
pub fn text(run: &Run) -> String {
    let mut text: String = run.machine.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    for (heading, table) in sections(run) {
        text.push_str(&format!("\n{heading}\n{}", table.text()));
    }
    text
}

/// A run as Markdown, with headings of the third level.
pub fn markdown(run: &Run) -> String {
    let machine: Vec<String> = run.machine.iter().map(|(name, value)| format!("* {name}: {value}")).collect();
    let mut text = machine.join("\n") + "\n";
    for (heading, table) in sections(run) {
        text.push_str(&format!("\n### {heading}\n\n{}", table.markdown()));
    }
    text
}

/// The case with its point: `reservations 60000`.
fn name(row: &Row) -> String {
    row.point.map_or_else(|| row.case.clone(), |point| format!("{} {point}", row.case))
}

fn optional(value: Option<f64>) -> String {
    value.map_or("–".into(), figure)
}

fn times(run: &Run) -> Table {
    let faster = format!("× faster than {}", run.reference);
    let mut table =
        Table::new(&["case", "operation", "peer", "n", "median ms", "p99 ms", faster.as_str(), "× floor"]);
    for row in run.rows.iter().filter(|row| row.unit == Unit::Microseconds) {
        let median = row.median();
        let of = |peer: &str| run.median(&row.case, &row.operation, row.point, peer);
        let milliseconds = |value: Option<f64>| optional(value.map(|micros| micros / 1000.0));
        table.row([
            name(row),
            row.operation.clone(),
            row.peer.clone(),
            row.samples.len().to_string(),
            milliseconds(median),
            milliseconds(percentile(&row.samples, 0.99)),
            optional(ratio(of(&run.reference), median)),
            optional(ratio(median, of(FLOOR))),
        ]);
    }
    table
}

fn rates(run: &Run) -> Table {
    let times = format!("× {}", run.reference);
    let mut table =
        Table::new(&["case", "peer", "rounds", "pods a second", times.as_str(), "errors", "duplicates"]);
    for row in run.rows.iter().filter(|row| row.unit == Unit::PodsPerSecond) {
        let of = |peer: &str| run.median(&row.case, &row.operation, row.point, peer);
        let sum = |operation: &str| {
            let row = run.row(&row.case, operation, row.point, &row.peer);
            row.map_or("–".into(), |row| figure(row.samples.iter().sum()))
        };
        table.row([
            name(row),
            row.peer.clone(),
            row.samples.len().to_string(),
            optional(row.median()),
            optional(ratio(row.median(), of(&run.reference))),
            sum("errors"),
            sum("duplicates"),
        ]);
    }
    table
}

fn sizes(run: &Run) -> Table {
    let mut table = Table::new(&["case", "operation", "peer", "MiB"]);
    for row in &run.rows {
        let mebibyte = match row.unit {
            Unit::Kibibytes => 1024.0,
            Unit::Bytes => 1_048_576.0,
            _ => continue,
        };
        let value = row.median().map(|value| value / mebibyte);
        table.row([row.case.clone(), row.operation.clone(), row.peer.clone(), optional(value)]);
    }
    table
}

/// How each peer's time grows from the first point of a case to the last. What the floor grows by is the kernel's own.
fn growth(run: &Run) -> Table {
    let header = [
        "case",
        "operation",
        "peer",
        "first",
        "last",
        "ms first",
        "ms last",
        "× own",
        "kernel's share of the growth",
    ];
    let mut table = Table::new(&header);
    for case in run.cases() {
        let rows: Vec<&Row> =
            run.rows.iter().filter(|row| row.case == case && row.unit == Unit::Microseconds).collect();
        for row in rows.iter().filter(|row| row.point.is_some()) {
            let series = || {
                rows.iter()
                    .filter(|r| r.peer == row.peer && r.operation == row.operation && r.point.is_some())
            };
            let first = series().min_by_key(|r| r.point);
            let last = series().max_by_key(|r| r.point);
            let (Some(first), Some(last)) = (first, last) else { continue };
            if first.point != row.point || first.point == last.point {
                continue;
            }
            let grown = |peer: &str| {
                let at = |point| run.median(case, &row.operation, point, peer);
                Some(at(last.point)? - at(first.point)?)
            };
            let share = ratio(grown(FLOOR), grown(&row.peer)).filter(|_| grown(&row.peer) > Some(0.0));
            let share = share.map_or("–".into(), |share| format!("{:.0} %", (share * 100.0).max(0.0)));
            table.row([
                case.to_owned(),
                row.operation.clone(),
                row.peer.clone(),
                first.point.unwrap_or(0).to_string(),
                last.point.unwrap_or(0).to_string(),
                optional(first.median().map(|micros| micros / 1000.0)),
                optional(last.median().map(|micros| micros / 1000.0)),
                optional(ratio(last.median(), first.median())),
                share,
            ]);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::run::SCHEMA;

    fn row(point: u64, peer: &str, value: f64) -> Row {
        Row {
            case: "pods".into(),
            operation: "ADD".into(),
            point: Some(point),
            peer: peer.into(),
            unit: Unit::Microseconds,
            samples: vec![value],
        }
    }

    #[test]
    fn growth_shows_the_kernels_share() {
        let rows = [row(1, "podnet", 1000.0), row(1000, "podnet", 3000.0), row(1, "floor", 600.0)];
        let run = Run {
            schema: SCHEMA,
            machine: vec![("kernel".into(), "6".into())],
            reference: "debian".into(),
            rows: rows.into_iter().chain([row(1000, "floor", 2100.0)]).collect(),
            failures: Vec::new(),
        };
        let text = growth(&run).text();
        assert!(
            text.lines()
                .any(|line| line.contains("podnet") && line.ends_with("3.00                          75 %")),
            "{text}"
        );
        assert!(markdown(&run).contains("### Growth\n\n| case |"));
    }
}
