//! `podlab doctor`: what this machine has and lacks for a lab, tried out in a capsule, not guessed.

use serde_json::json;

use super::Style;
use crate::doctor;
use crate::exit::{self, Failure};
use crate::output::{self, Format};

pub(super) fn doctor(style: Style) -> Result<u8, Failure> {
    let findings = doctor::examine();
    match style.format {
        Format::Json => {
            output::print_json(&json!({ "schema": "podlab.doctor/1", "findings": findings }))?;
        }
        Format::Table => {
            let rows: Vec<Vec<String>> = findings
                .iter()
                .map(|finding| {
                    let state = match (&finding.problem, finding.needed) {
                        (None, _) => "yes",
                        (Some(_), true) => "MISSING",
                        (Some(_), false) => "no",
                    };
                    let note = finding.problem.as_deref().unwrap_or(finding.purpose);
                    vec![finding.feature.clone(), state.to_owned(), note.to_owned()]
                })
                .collect();
            output::print(&output::table(&["FEATURE", "HERE", "WHAT FOR, OR WHAT IS LOST"], &rows))?;
        }
    }
    let lacking = findings.iter().any(|finding| finding.needed && finding.problem.is_some());
    Ok(if lacking { exit::LACKING } else { exit::OK })
}
