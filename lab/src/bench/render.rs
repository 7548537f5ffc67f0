//! The table of a bench.

use super::{Bench, Kind, Measured, Path};
use crate::output;

/// The table, and a line for each mode that was not measured.
pub fn render_table(bench: &Bench) -> String {
    let rows: Vec<Vec<String>> =
        bench.labs.iter().flat_map(|lab| lab.results.iter().map(|result| row(&lab.mode, result))).collect();
    let mut text = String::new();
    if !rows.is_empty() {
        text += &output::table(&["MODE", "LOAD", "PATH", "RATE", "OF LOOPBACK", "LEAST-MOST", "LOST"], &rows);
    }
    for skipped in &bench.skipped {
        text += &format!("mode {} is not measured: {}\n", skipped.mode, skipped.why);
    }
    text
}

fn row(mode: &str, result: &Measured) -> Vec<String> {
    let (ratio, spread) = match result.path {
        Path::Loopback => ("1".to_owned(), String::new()),
        Path::SameNode | Path::CrossNode => (
            format!("{:.3}", result.ratio.median),
            format!("{:.3}-{:.3}", result.ratio.least, result.ratio.most),
        ),
    };
    let lost = match result.kind {
        Kind::Datagrams => format!("{:.1} %", lost(result) * 100.0),
        Kind::Stream | Kind::Requests | Kind::Connections => String::new(),
    };
    let rate = format!("{} {}", prefixed(result.rate), result.unit);
    vec![
        mode.to_owned(),
        result.kind.word().to_owned(),
        result.path.word().to_owned(),
        rate,
        ratio,
        spread,
        lost,
    ]
}

/// The share of datagrams that did not arrive.
fn lost(result: &Measured) -> f64 {
    1.0 - result.received.items as f64 / result.sent.items.max(1) as f64
}

/// Three digits and more, with k, M or G.
pub(super) fn prefixed(value: f64) -> String {
    let (divisor, prefix) = match value {
        _ if value >= 1e9 => (1e9, "G"),
        _ if value >= 1e6 => (1e6, "M"),
        _ if value >= 1e4 => (1e3, "k"),
        _ => (1.0, ""),
    };
    let number = value / divisor;
    let digits = if divisor > 1.0 && number < 100.0 { 2 } else { 0 };
    format!("{number:.digits$}{}{prefix}", if prefix.is_empty() { "" } else { " " })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let all = [12.0, 9_999.0, 12_340.0, 456_700.0, 1_234_567.0, 25_300_000_000.0].map(prefixed);
        assert_eq!(all, ["12", "9999", "12.34 k", "457 k", "1.23 M", "25.30 G"]);
    }
}
