//! Two runs side by side: absolute times drift from run to run, the goals' figures must not.

use super::goals::{figure, goals};
use super::run::Run;
use super::statistics::{TOLERANCE, agree};
use super::table::Table;

/// The table of both runs' figures, and whether each that both measured agrees. Runs that share no figure do not agree.
pub fn compare(one: &Run, other: &Run) -> (Table, bool) {
    let mut table = Table::new(&["goal", "asked", "this run", "other run", "apart", "agree"]);
    let (mut seen, mut all) = (false, true);
    for (a, b) in goals(one).into_iter().zip(goals(other)) {
        let (Some(x), Some(y)) = (a.measured, b.measured) else { continue };
        let agrees = agree(x, y);
        (seen, all) = (true, all && agrees);
        let apart = if x == y { 0.0 } else { (x.max(y) / x.min(y) - 1.0) * 100.0 };
        table.row([
            a.what.clone(),
            a.asked(),
            figure(x),
            figure(y),
            format!("{apart:.0} %"),
            if agrees { "yes".into() } else { format!("NO: over {:.0} %", TOLERANCE * 100.0) },
        ]);
    }
    (table, seen && all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::run::{Row, SCHEMA, Unit};

    fn run(ours: f64) -> Run {
        let row = |peer: &str, value: f64| Row {
            case: "ptp".into(),
            operation: "ADD".into(),
            point: None,
            peer: peer.into(),
            unit: Unit::Microseconds,
            samples: vec![value],
        };
        Run {
            schema: SCHEMA,
            machine: Vec::new(),
            reference: "debian".into(),
            rows: vec![row("debian", 8000.0), row("podnet", ours)],
            failures: Vec::new(),
        }
    }

    #[test]
    fn runs_whose_ratios_are_apart_do_not_agree() {
        assert!(compare(&run(1000.0), &run(1100.0)).1);
        let (table, agrees) = compare(&run(1000.0), &run(1200.0));
        assert!(!agrees);
        assert!(table.text().contains("NO: over 15 %"), "{}", table.text());
    }

    #[test]
    fn runs_without_a_common_figure_do_not_agree() {
        let mut empty = run(1000.0);
        empty.rows.clear();
        assert!(!compare(&run(1000.0), &empty).1);
    }
}
