//! What the benchmark (`benches/cni`, run by `scripts/bench`) makes of its samples: medians and ratios, the table of goals,
//! the comparison of two runs, text, Markdown and plots. Pure functions over a [`run::Run`]; nothing here measures.

pub mod compare;
pub mod goals;
pub mod plot;
pub mod report;
pub mod run;
pub mod statistics;
pub mod table;
