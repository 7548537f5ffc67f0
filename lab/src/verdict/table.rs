//! The report as a table for people.
//!
//! Fixed columns, no box art; colour only repeats what a word says already.

use std::fmt::Write;

use super::report::{CheckReport, Report, Ruling};

/// Failures shown of each check; the others are counted.
const SHOWN: usize = 10;

/// How a table may look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Style {
    /// The terminal shows colours.
    pub is_coloured: bool,
    /// The locale is not UTF-8.
    pub is_ascii: bool,
}

impl Style {
    /// The text with what ASCII does not have spelt in another way.
    pub fn text(self, text: &str) -> String {
        if self.is_ascii { text.replace('→', "->").replace('—', "-") } else { text.to_owned() }
    }

    fn ruling(self, ruling: Ruling, width: usize) -> String {
        let colour = match ruling {
            Ruling::Pass => 32,
            Ruling::Error => 33,
            Ruling::Fail => 31,
        };
        match self.is_coloured {
            true => format!("\x1b[{colour}m{ruling:<width$}\x1b[0m"),
            false => format!("{ruling:<width$}"),
        }
    }
}

/// The table: one line a check, then what failed, then how long it took, and at the end the sum.
pub fn render_table(report: &Report, style: Style) -> String {
    let width = report.checks.iter().map(|c| c.title.len()).max().unwrap_or(0).max("CHECK".len());
    let mut out = format!("{:<width$}  {:>5}  {:<6}  EVIDENCE\n", "CHECK", "COUNT", "RESULT");
    for check in &report.checks {
        let result = style.ruling(check.ruling(), 6);
        let evidence = style.text(&overview(check));
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{:<width$}  {:>5}  {result}  {evidence}", check.title, check.verdicts.len());
    }
    for check in report.checks.iter().filter(|c| c.ruling() != Ruling::Pass) {
        failures(check, style, &mut out);
    }
    for seen in &report.wire {
        let _ = writeln!(
            out,
            "on the wire between nodes: {} ({} packets)",
            style.text(&seen.looks),
            seen.packets
        );
    }
    for note in &report.notes {
        let _ = writeln!(out, "mode {}: {}", report.mode, style.text(note));
    }
    let pairs = match report.seed {
        Some(seed) => {
            format!("{} of {} ordered pod pairs (sample, seed {seed})", report.pairs, report.possible_pairs)
        }
        None => format!("{} ordered pod pairs", report.pairs),
    };
    let _ = writeln!(
        out,
        "{pairs} in {:.2} s, {} frames captured, {} lost",
        report.seconds, report.frames, report.drops
    );
    let _ = writeln!(out, "{}", report.summary());
    out
}

fn overview(check: &CheckReport) -> String {
    let bad = check.verdicts.len() - check.count(Ruling::Pass);
    match bad {
        0 => check.evidence().to_owned(),
        _ => format!("{bad} of {}: {}", check.verdicts.len(), check.evidence()),
    }
}

fn failures(check: &CheckReport, style: Style, out: &mut String) {
    let bad: Vec<_> = check.verdicts.iter().filter(|v| v.ruling != Ruling::Pass).collect();
    for v in bad.iter().take(SHOWN) {
        let _ = writeln!(
            out,
            "  {} {} {}: {}",
            style.ruling(v.ruling, 5),
            check.name,
            v.subject,
            style.text(&v.evidence)
        );
    }
    if bad.len() > SHOWN {
        let _ = writeln!(out, "  and {} more of {}", bad.len() - SHOWN, check.name);
    }
}
