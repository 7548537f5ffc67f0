//! What is to be shown, written down before the first packet is sent: all that a judge needs besides the packets. A
//! bundle carries it, so that the verdicts can be made again anywhere.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::packet::Nonce;
use crate::stack::OneFamily;
use crate::verdict::{Journey, Localhost, Serving, Sharing};

/// The name of the JSON document's form.
pub const PLAN_SCHEMA: &str = "podlab.probes/1";

/// The checks of a verification and the probes that they rest on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// [`PLAN_SCHEMA`].
    pub schema: String,
    /// The lab's name.
    pub lab: String,
    /// How packets get from node to node.
    pub mode: String,
    /// What is to be known about the mode.
    pub notes: Vec<String>,
    /// The nodes.
    pub nodes: Vec<String>,
    /// Addresses that nodes and outside were given.
    pub hosts: Vec<(IpAddr, String)>,
    /// Every pod and its interface.
    pub pods: Vec<(String, String)>,
    /// How many ordered pairs of the wanted kinds there are.
    pub possible_pairs: usize,
    /// Which sample of them, where it is one.
    pub seed: Option<u64>,
    /// The checks, in the order of the report.
    pub checks: Vec<PlannedCheck>,
    /// The probes of all checks, in the order of their numbers.
    pub probes: Vec<Probe>,
}

/// A check and what it is judged from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedCheck {
    /// Its name.
    pub name: String,
    /// What it shows, for people.
    pub title: String,
    /// What it is judged from.
    pub from: Source,
}

/// What a check is judged from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The addresses of interfaces.
    State(Vec<Claim>),
    /// Probes, one by one.
    Each(Range<usize>),
    /// Probes that are judged together: what is said of them, and their numbers.
    Groups(Vec<(String, Sharing, Range<usize>)>),
}

/// What has to hold of the addresses of interfaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Claim {
    /// A pod has the addresses that it was told, and nobody else has them.
    OwnAddress {
        /// The pod.
        pod: String,
        /// Its interface.
        interface: String,
        /// The addresses of its CNI result.
        told: Vec<IpAddr>,
        /// Only those of one IP version, where the lab has both.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        family: Option<OneFamily>,
    },
    /// A service has endpoints, and its addresses are on no interface.
    Service {
        /// The service.
        name: String,
        /// What chooses its endpoints.
        selector: String,
        /// How many there are.
        endpoints: usize,
        /// Its addresses.
        addresses: Vec<IpAddr>,
    },
}

/// One probe and what it has to show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// How a verdict names it.
    pub subject: String,
    /// The namespace that sends it.
    pub client: String,
    /// What its payload carries.
    pub nonce: Nonce,
    /// The address and port that its client's socket had, as the client says.
    pub local: Option<SocketAddr>,
    /// Why there is no word of how it ended, where whoever sent it gave none: such a probe proves nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent: Option<String>,
    /// What it has to show.
    pub aim: Aim,
}

/// What a probe has to show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aim {
    /// A way through the lab.
    Journey(Box<Journey>),
    /// Traffic within a pod, to this address.
    Localhost(Localhost, SocketAddr),
    /// A service.
    Service(Box<Serving>),
    /// There is nothing to send, because of this.
    Impossible(String),
}

impl Aim {
    /// Where the probe goes.
    pub fn target(&self) -> Option<SocketAddr> {
        match self {
            Aim::Journey(journey) => Some(journey.server),
            Aim::Localhost(_, target) => Some(*target),
            Aim::Service(serving) => Some(serving.front),
            Aim::Impossible(_) => None,
        }
    }
}

impl Plan {
    /// What cannot be: a check of probes that are not there.
    pub(super) fn defect(&self) -> Option<String> {
        let is_wrong = |span: &Range<usize>| span.start > span.end || span.end > self.probes.len();
        let wrong = |check: &&PlannedCheck| match &check.from {
            Source::State(_) => false,
            Source::Each(span) => is_wrong(span),
            Source::Groups(groups) => groups.iter().any(|(_, _, span)| is_wrong(span)),
        };
        if self.schema != PLAN_SCHEMA {
            return Some(format!("schema {:?}, not {PLAN_SCHEMA:?}", self.schema));
        }
        let check = self.checks.iter().find(wrong)?;
        Some(format!("check {} is of probes that are not among the {}", check.name, self.probes.len()))
    }
}
