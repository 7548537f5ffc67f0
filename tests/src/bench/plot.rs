//! One SVG picture per case: bars of medians with a line up to the 99th percentile, or, where the case grows, a line per
//! peer. Both scales of times are logarithmic, as peers are far apart.

use std::fmt::Write;

use super::run::{Row, Run, Unit};
use super::statistics::percentile;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 210.0;
const TOP: f64 = 44.0;
const PLOT: f64 = WIDTH - LEFT - 110.0;
/// Colours that stay apart for colour-blind eyes (Okabe and Ito).
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];

/// The picture of a case; None when it has nothing to draw.
pub fn svg(run: &Run, case: &str) -> Option<String> {
    let rows: Vec<&Row> = run
        .rows
        .iter()
        .filter(|row| row.case == case && row.unit != Unit::Mishaps && row.median().is_some_and(|m| m > 0.0))
        .collect();
    let unit = rows.first()?.unit;
    // A peer has one colour in all pictures of a run.
    let peers = peers(&run.rows);
    Some(if rows.iter().any(|row| row.point.is_some()) {
        lines(case, unit, &rows, &peers)
    } else {
        bars(case, unit, &rows, &peers)
    })
}

/// What a unit is shown in, and the divisor.
fn shown(unit: Unit) -> (&'static str, f64) {
    match unit {
        Unit::Microseconds => ("ms", 1000.0),
        Unit::PodsPerSecond => ("pods a second", 1.0),
        Unit::Kibibytes => ("MiB", 1024.0),
        Unit::Bytes => ("MiB", 1_048_576.0),
        Unit::Mishaps => ("mishaps", 1.0),
    }
}

/// Whole powers of ten around all values.
fn decades(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let low = values.clone().fold(f64::INFINITY, f64::min).log10().floor();
    let high = values.fold(0.0, f64::max).log10().ceil();
    (low, high.max(low + 1.0))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

fn head(height: f64, title: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"10\" y=\"22\" font-size=\"15\">{}</text>\n",
        escape(title)
    )
}

fn label(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", escape(text));
}

fn stroke(svg: &mut String, from: (f64, f64), to: (f64, f64), colour: &str) {
    let _ = writeln!(
        svg,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\"/>",
        from.0, from.1, to.0, to.1
    );
}

fn colour(peers: &[&str], peer: &str) -> &'static str {
    COLOURS[peers.iter().position(|p| *p == peer).unwrap_or(0) % COLOURS.len()]
}

fn peers(rows: &[Row]) -> Vec<&str> {
    let mut peers: Vec<&str> = Vec::new();
    for row in rows {
        if !peers.contains(&row.peer.as_str()) {
            peers.push(&row.peer);
        }
    }
    peers
}

fn bars(case: &str, unit: Unit, rows: &[&Row], peers: &[&str]) -> String {
    let (unit, divisor) = shown(unit);
    let tails = rows.iter().filter_map(|row| percentile(&row.samples, 0.99));
    let values = rows.iter().filter_map(|row| row.median()).chain(tails).map(|value| value / divisor);
    let (low, high) = decades(values);
    let x = |value: f64| LEFT + ((value / divisor).log10() - low) / (high - low) * PLOT;
    let height = TOP + rows.len() as f64 * 22.0 + 34.0;
    let mut svg = head(height, &format!("{case}: median and p99, {unit}"));
    for decade in low as i32..=high as i32 {
        let at = LEFT + (f64::from(decade) - low) / (high - low) * PLOT;
        stroke(&mut svg, (at, TOP - 6.0), (at, height - 28.0), "#ddd");
        label(&mut svg, at, height - 12.0, "middle", &format!("{}", 10f64.powi(decade)));
    }
    for (i, row) in rows.iter().enumerate() {
        let y = TOP + i as f64 * 22.0;
        let Some(median) = row.median() else { continue };
        let colour = colour(peers, &row.peer);
        let _ = writeln!(
            svg,
            "<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"14\" fill=\"{colour}\"/>",
            (x(median) - LEFT).max(1.0)
        );
        let tail = percentile(&row.samples, 0.99).unwrap_or(median);
        stroke(&mut svg, (x(median), y + 7.0), (x(tail), y + 7.0), colour);
        label(&mut svg, LEFT - 8.0, y + 11.0, "end", &format!("{} {}", row.peer, row.operation));
        label(&mut svg, x(tail) + 6.0, y + 11.0, "start", &super::goals::figure(median / divisor));
    }
    svg + "</svg>\n"
}

fn lines(case: &str, unit: Unit, rows: &[&Row], peers: &[&str]) -> String {
    let (unit, divisor) = shown(unit);
    let (low, high) = decades(rows.iter().filter_map(|row| row.median()).map(|value| value / divisor));
    let mut points: Vec<u64> = rows.iter().filter_map(|row| row.point).collect();
    points.sort_unstable();
    points.dedup();
    let height = 400.0;
    let bottom = height - 40.0;
    // Points stand at equal distances: 0 has no logarithm.
    let step = PLOT / (points.len().max(2) - 1) as f64;
    let x = |point: u64| LEFT + points.iter().position(|p| *p == point).unwrap_or(0) as f64 * step;
    let y = |value: f64| bottom - ((value / divisor).log10() - low) / (high - low) * (bottom - TOP);
    let mut svg = head(height, &format!("{case}: median, {unit}"));
    for decade in low as i32..=high as i32 {
        let at = bottom - (f64::from(decade) - low) / (high - low) * (bottom - TOP);
        stroke(&mut svg, (LEFT, at), (LEFT + PLOT, at), "#ddd");
        label(&mut svg, LEFT - 8.0, at + 4.0, "end", &format!("{}", 10f64.powi(decade)));
    }
    for point in &points {
        label(&mut svg, x(*point), bottom + 20.0, "middle", &point.to_string());
    }
    let mut series: Vec<(&str, &str)> =
        rows.iter().map(|r| (r.peer.as_str(), r.operation.as_str())).collect();
    series.dedup();
    series.sort_unstable();
    series.dedup();
    for (peer, operation) in series {
        let mut line: Vec<(u64, f64)> = rows
            .iter()
            .filter(|row| row.peer == peer && row.operation == operation)
            .filter_map(|row| Some((row.point?, row.median()?)))
            .collect();
        line.sort_by_key(|(point, _)| *point);
        let path: Vec<String> =
            line.iter().map(|(point, value)| format!("{:.1},{:.1}", x(*point), y(*value))).collect();
        let dash = if operation == "DEL" { " stroke-dasharray=\"5 4\"" } else { "" };
        let colour = colour(peers, peer);
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>",
            path.join(" ")
        );
        if let Some((point, value)) = line.last() {
            label(&mut svg, x(*point) + 6.0, y(*value) + 4.0, "start", &format!("{peer} {operation}"));
        }
    }
    svg + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::run::SCHEMA;

    fn run(point: Option<u64>) -> Run {
        let row = |peer: &str, point: Option<u64>, value: f64| Row {
            case: "a<b".into(),
            operation: "ADD".into(),
            point,
            peer: peer.into(),
            unit: Unit::Microseconds,
            samples: vec![value, value * 2.0],
        };
        let later = point.map(|point| point + 1);
        Run {
            schema: SCHEMA,
            machine: Vec::new(),
            reference: "debian".into(),
            rows: vec![
                row("debian", point, 9000.0),
                row("podnet", point, 800.0),
                row("podnet", later, 900.0),
            ],
            failures: Vec::new(),
        }
    }

    #[test]
    fn a_bar_per_row_and_a_line_per_peer() {
        let bars = svg(&run(None), "a<b").expect("a picture");
        assert_eq!((bars.matches("<rect").count(), bars.matches("a&lt;b").count()), (4, 1), "{bars}");
        let lines = svg(&run(Some(0)), "a<b").expect("a picture");
        assert_eq!(lines.matches("<polyline").count(), 2, "{lines}");
        assert!(!lines.contains("NaN") && !lines.contains("inf"), "{lines}");
        assert_eq!(svg(&run(None), "other"), None);
    }
}
