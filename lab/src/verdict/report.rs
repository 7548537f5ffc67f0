//! The report of a verification: every check, every verdict, and the sightings that each rests on.
//!
//! What programs get as JSON (`"schema": "podlab.verdict/1"`) and what the table is drawn from. Payloads are not in it,
//! only their length and a digest to compare them by.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::encap::Outer;
use crate::probe::ProbeOutcome;
use crate::sighting::{Direction, Sighting};
use crate::suites::{Case, Outcome, Suite};

use super::finding::Finding;

/// The name of the JSON document's form.
pub const SCHEMA: &str = "podlab.verdict/1";

/// The outcome of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Ruling {
    /// What was seen is what should be.
    Pass,
    /// The evidence does not carry a verdict. Counts as failed.
    Error,
    /// The network does something wrong.
    Fail,
}

impl fmt::Display for Ruling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Ruling::Pass => "PASS",
            Ruling::Error => "ERROR",
            Ruling::Fail => "FAIL",
        })
    }
}

/// One sighting, as the report keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// Namespace and interface: `node1/eth0`.
    pub at: String,
    /// Which way.
    pub direction: Direction,
    /// Nanoseconds since 1970.
    pub stamp_ns: u64,
    /// Source address and port.
    pub source: SocketAddr,
    /// Destination address and port.
    pub target: SocketAddr,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// IP identification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u16>,
    /// IPv6's flow label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow_label: Option<u32>,
    /// Source MAC.
    pub source_mac: String,
    /// Destination MAC.
    pub target_mac: String,
    /// Length of the payload in bytes.
    pub payload_len: usize,
    /// FNV-1a of the payload, 64 bits in hexadecimal.
    pub payload_digest: String,
    /// What was around the packet; all else here is of the packet inside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outer: Option<Outer>,
}

impl Point {
    /// None for what is no IP packet.
    pub fn of(s: &Sighting) -> Option<Point> {
        let ip = s.ip()?;
        Some(Point {
            at: s.at.to_string(),
            direction: s.direction,
            stamp_ns: s.stamp_ns,
            source: ip.from(),
            target: ip.to(),
            ttl: ip.ttl,
            id: ip.id,
            flow_label: ip.label,
            source_mac: s.packet.source_mac.to_string(),
            target_mac: s.packet.target_mac.to_string(),
            payload_len: ip.payload.len(),
            payload_digest: format!("{:016x}", digest(&ip.payload)),
            outer: s.packet.outer,
        })
    }
}

/// FNV-1a, 64 bits: equal payloads have equal digests, on every machine.
fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

/// What came of one subject of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// What was checked: `kubia-1`, `kubia-1 > kubia-11`.
    pub subject: String,
    /// PASS, FAIL or ERROR.
    pub ruling: Ruling,
    /// In one line, what it rests on or what is wrong.
    pub evidence: String,
    /// What is wrong, for programs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// How the probe ended for its client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<ProbeOutcome>,
    /// The remote address that the server logged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logged: Option<IpAddr>,
    /// Where the request was seen; where there is none, the SYN.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub request: Vec<Point>,
    /// Where the reply was seen; where there is none, the SYN-ACK.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reply: Vec<Point>,
}

/// One check over all its subjects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// The check's name.
    pub name: String,
    /// What it shows, for people.
    pub title: String,
    /// Every verdict.
    pub verdicts: Vec<Verdict>,
}

impl CheckReport {
    /// How many verdicts are like this.
    pub fn count(&self, ruling: Ruling) -> usize {
        self.verdicts.iter().filter(|v| v.ruling == ruling).count()
    }

    /// The worst of its verdicts; ERROR for a check without any.
    pub fn ruling(&self) -> Ruling {
        self.verdicts.iter().map(|v| v.ruling).max().unwrap_or(Ruling::Error)
    }

    /// The evidence of the first of the worst verdicts.
    pub fn evidence(&self) -> &str {
        let worst = self.ruling();
        self.verdicts.iter().find(|v| v.ruling == worst).map_or("nothing was checked", |v| &v.evidence)
    }
}

/// What packets of pods look like between nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnWire {
    /// In words.
    pub looks: String,
    /// How many packets were seen to look so where they left a node.
    pub packets: usize,
}

/// A verification of a lab.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// The lab's name.
    pub lab: String,
    /// The lab's mode, with its option.
    pub mode: String,
    /// What was on the wire between nodes, from the packets of the pods; empty when none were looked at.
    pub wire: Vec<OnWire>,
    /// What a person must know of the mode and no check says.
    pub notes: Vec<String>,
    /// From the first probe to the last verdict.
    pub seconds: f64,
    /// Ordered pairs of pods that were probed.
    pub pairs: usize,
    /// Ordered pairs that the checks are about; more than `pairs` when a sample was asked for.
    pub possible_pairs: usize,
    /// The seed of the sample; None when all pairs were probed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Frames that went by the capture.
    pub frames: u64,
    /// Frames that the capture lost.
    pub drops: u64,
    /// Verdicts that are PASS.
    pub passed: usize,
    /// Verdicts that are not.
    pub failed: usize,
    /// The checks.
    pub checks: Vec<CheckReport>,
}

impl Report {
    /// 0 when all is well, 1 when a verdict is FAIL or ERROR, 4 when nothing was checked.
    pub fn exit_code(&self) -> u8 {
        match (self.passed, self.failed) {
            (0, 0) => 4,
            (_, 0) => 0,
            _ => 1,
        }
    }

    /// The verdicts as tests, a suite for each check.
    pub fn suites(&self) -> Vec<Suite> {
        let case = |verdict: &Verdict| Case {
            name: verdict.subject.clone(),
            outcome: match verdict.ruling {
                Ruling::Pass => Outcome::Passed,
                Ruling::Fail => Outcome::Failed(verdict.evidence.clone()),
                Ruling::Error => Outcome::Error(verdict.evidence.clone()),
            },
            detail: verdict.findings.iter().map(ToString::to_string).collect(),
            seconds: verdict.outcome.as_ref().map(|outcome| outcome.micros as f64 / 1e6),
        };
        let suite = |check: &CheckReport| Suite {
            name: check.name.clone(),
            cases: check.verdicts.iter().map(case).collect(),
            output: String::new(),
        };
        self.checks.iter().map(suite).collect()
    }

    /// The last line of the table: `870 passed, 0 failed`.
    pub fn summary(&self) -> String {
        format!("{} passed, {} failed", self.passed, self.failed)
    }
}
