//! Findings as text, and as an exit code.

use super::{Finding, State};

/// The worst finding as an exit code: 0 nothing found, 1 a cause was found, 3 warnings only, 4 something could not be
/// looked at.
pub fn exit_code(findings: &[Finding]) -> u8 {
    let has = |state| findings.iter().any(|it| it.state == state);
    match () {
        () if has(State::Failed) => 1,
        () if has(State::Unknown) => 4,
        () if has(State::Warning) => 3,
        () => 0,
    }
}

/// A line for each check, with evidence and advice below those that found something.
pub fn text(findings: &[Finding]) -> String {
    let width = findings.iter().map(|it| it.check.len()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in findings {
        let word = match finding.state {
            State::Ok => "ok",
            State::Warning => "WARNING",
            State::Failed => "FAILED",
            State::Unknown => "UNKNOWN",
        };
        text.push_str(&format!("{word:<8} {:<width$}  {}\n", finding.check, finding.cause));
        for (title, line) in [("seen", &finding.evidence), ("try", &finding.advice)] {
            if !line.is_empty() {
                text.push_str(&format!("{:indent$}{title}: {line}\n", "", indent = 9 + width + 2));
            }
        }
    }
    let count = |state| findings.iter().filter(|it| it.state == state).count();
    text.push_str(&format!(
        "{} ok, {} warnings, {} failed, {} unknown\n",
        count(State::Ok),
        count(State::Warning),
        count(State::Failed),
        count(State::Unknown)
    ));
    text
}
