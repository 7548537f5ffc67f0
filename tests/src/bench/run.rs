//! One run of the benchmark as it is kept in a JSON file: where it ran, every sample, what went wrong.

use serde::{Deserialize, Serialize};

use super::statistics;

/// The layout of the file; raised when a reader of the old one would misread the new one.
pub const SCHEMA: u32 = 1;

/// What a row's samples are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Time from before the process is made until it has been waited for, in microseconds.
    Microseconds,
    /// Pods attached in a second.
    PodsPerSecond,
    /// Peak of the resident memory, in KiB.
    Kibibytes,
    /// Size of files, in bytes.
    Bytes,
    /// A number of mishaps, such as errors and addresses given out twice.
    Mishaps,
}

/// The samples of one operation of one peer at one point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The case's name.
    pub case: String,
    /// `ADD`, `DEL`, or what else was done.
    pub operation: String,
    /// Where the case grows (reservations, pods, rules, namespaces, ADDs in flight): how many there were.
    pub point: Option<u64>,
    /// Who did it.
    pub peer: String,
    /// What the samples are.
    pub unit: Unit,
    /// In the order in which they were taken, warm-up left out.
    pub samples: Vec<f64>,
}

/// A whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// [`SCHEMA`].
    pub schema: u32,
    /// What the run ran on, line by line: name and value.
    pub machine: Vec<(String, String)>,
    /// The peer that the others are compared with.
    pub reference: String,
    /// The samples.
    pub rows: Vec<Row>,
    /// Results that the kernel did not confirm, and calls that failed.
    pub failures: Vec<String>,
}

impl Row {
    /// The median.
    pub fn median(&self) -> Option<f64> {
        statistics::median(&self.samples)
    }
}

impl Run {
    /// The row of a case, if it was measured.
    pub fn row(&self, case: &str, operation: &str, point: Option<u64>, peer: &str) -> Option<&Row> {
        self.rows.iter().find(|row| {
            row.case == case && row.operation == operation && row.point == point && row.peer == peer
        })
    }

    /// The median of a row, if it was measured.
    pub fn median(&self, case: &str, operation: &str, point: Option<u64>, peer: &str) -> Option<f64> {
        self.row(case, operation, point, peer)?.median()
    }

    /// Adds samples to a row, which is made if it is not there.
    pub fn put(&mut self, row: Row) {
        let same = |old: &&mut Row| {
            old.case == row.case
                && old.operation == row.operation
                && old.point == row.point
                && old.peer == row.peer
        };
        match self.rows.iter_mut().find(same) {
            Some(old) => old.samples.extend(row.samples),
            None => self.rows.push(row),
        }
    }

    /// The cases that were measured, in their order.
    pub fn cases(&self) -> Vec<&str> {
        let mut cases: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !cases.contains(&row.case.as_str()) {
                cases.push(&row.case);
            }
        }
        cases
    }
}
