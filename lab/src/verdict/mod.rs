//! Verdicts: from sightings to PASS, FAIL or ERROR, and the report that people and programs read.
//!
//! Everything here is a pure function of what was seen; no namespace is entered and nothing is sent. FAIL says that
//! the network does something wrong, ERROR that the evidence does not carry a verdict: nothing that was not seen on
//! packets is ever a PASS.

mod finding;
mod journey;
mod judge;
mod report;
mod seals;
mod service;
mod table;

pub use finding::{Finding, Way};
pub use journey::{Interface, Journey, Look, Path, Stage};
pub use judge::{Evidence, Judgement, Localhost, judge, judge_localhost};
pub use report::{CheckReport, OnWire, Point, Report, Ruling, SCHEMA, Verdict};
pub use seals::Seals;
pub use service::{Backend, Promise, Serving, Sharing, backend_of, judge_service, judge_share};
pub use table::{Style, render_table};

#[cfg(test)]
mod look_tests;
#[cfg(test)]
mod report_tests;
#[cfg(test)]
mod service_tests;
#[cfg(test)]
mod tests;
