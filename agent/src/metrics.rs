//! Numbers for Prometheus, in its text format (version 0.0.4).
//!
//! Every metric stands in one table, [`METRICS`], with its help, so none is told without. What the status says already is
//! told from there when somebody asks; what happens in between is counted in [`Counters`].

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use crate::status::Status;

/// What kind of number a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows while the agent runs.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// A metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// The labels that each of its samples has.
    pub labels: &'static [&'static str],
    /// What it counts, in which unit.
    pub help: &'static str,
}

const fn metric(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind, labels, help }
}

/// The agent's version.
pub const INFO: Metric = metric("podnet_info", Kind::Gauge, &["version", "node"], "Always 1.");
/// Whether the node is ready.
pub const READY: Metric =
    metric("podnet_ready", Kind::Gauge, &[], "Whether pods of this node have their network (1) or not (0).");
/// How conditions stand.
pub const CONDITION: Metric = metric(
    "podnet_condition",
    Kind::Gauge,
    &["condition"],
    "Whether a condition of readiness is met (1) or not (0).",
);
/// Whether the API is connected.
pub const API: Metric = metric(
    "podnet_api_connected",
    Kind::Gauge,
    &[],
    "Whether the connection to the Kubernetes API is there.",
);
/// Whether peers answer.
pub const PEER: Metric = metric(
    "podnet_peer_reachable",
    Kind::Gauge,
    &["peer"],
    "Whether every probe of another node was answered with addresses unchanged.",
);
/// How many PodCIDRs are reached, and how.
pub const PATHS: Metric = metric(
    "podnet_paths",
    Kind::Gauge,
    &["way"],
    "PodCIDRs of other nodes, by the way that packets go there.",
);
/// Reservations.
pub const RESERVATIONS: Metric = metric(
    "podnet_reservations",
    Kind::Gauge,
    &["state"],
    "Addresses that are reserved, by whether a pod has them.",
);
/// What the API told.
pub const EVENTS: Metric =
    metric("podnet_api_changes_total", Kind::Counter, &[], "Changes that the Kubernetes API has told.");
/// How often the kernel was brought in line.
pub const RECONCILED: Metric = metric(
    "podnet_reconciliations_total",
    Kind::Counter,
    &["part", "outcome"],
    "How often a part of the kernel was compared with what it has to hold.",
);
/// What the kernel had otherwise.
pub const DRIFT: Metric = metric(
    "podnet_corrections_total",
    Kind::Counter,
    &["part"],
    "What was found missing, wrong or too many in the kernel, and corrected.",
);
/// Pods that were armed.
pub const ARMED: Metric = metric(
    "podnet_pods_armed_total",
    Kind::Counter,
    &[],
    "Pods whose policies were in force before they started.",
);
/// Flows that were cut.
pub const CUT: Metric = metric(
    "podnet_flows_cut_total",
    Kind::Counter,
    &[],
    "Live connections that a change of policies has ended.",
);
/// Addresses that were released.
pub const RELEASED: Metric = metric(
    "podnet_reservations_released_total",
    Kind::Counter,
    &[],
    "Reservations of pods that are no more, released by the agent.",
);
/// Probes.
pub const PROBES: Metric = metric(
    "podnet_probes_total",
    Kind::Counter,
    &["outcome"],
    "Probes of other nodes, by what they came to.",
);

/// Every metric, in the order in which they are told.
pub const METRICS: [Metric; 14] = [
    INFO,
    READY,
    CONDITION,
    API,
    PEER,
    PATHS,
    RESERVATIONS,
    EVENTS,
    RECONCILED,
    DRIFT,
    ARMED,
    CUT,
    RELEASED,
    PROBES,
];

/// The values of a sample's labels.
type Labels = Vec<String>;

/// Numbers that the agent has counted, shared by all its parts.
#[derive(Debug, Clone, Default)]
pub struct Counters(Arc<Mutex<BTreeMap<&'static str, BTreeMap<Labels, u64>>>>);

impl Counters {
    /// Counts so many more of a metric, with the values of its labels in order.
    pub fn add(&self, metric: Metric, labels: &[&str], more: u64) {
        self.change(metric, labels, |value| value.saturating_add(more));
    }

    /// Sets a gauge.
    pub fn set(&self, metric: Metric, labels: &[&str], value: u64) {
        self.change(metric, labels, |_| value);
    }

    fn change(&self, metric: Metric, labels: &[&str], change: impl FnOnce(u64) -> u64) {
        debug_assert_eq!(labels.len(), metric.labels.len(), "labels of {}", metric.name);
        let labels = labels.iter().map(|it| (*it).to_owned()).collect();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let value = all.entry(metric.name).or_default().entry(labels).or_default();
        *value = change(*value);
    }
}

/// All metrics as text.
pub fn render(status: &Status, counters: &Counters) -> String {
    let mut samples = counters.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut put = |metric: Metric, labels: &[&str], value: u64| {
        let labels = labels.iter().map(|it| (*it).to_owned()).collect();
        samples.entry(metric.name).or_default().insert(labels, value);
    };
    put(INFO, &[status.version, &status.node], 1);
    put(READY, &[], status.ready.into());
    put(API, &[], status.api_lost.is_none().into());
    for state in &status.conditions {
        put(CONDITION, &[state.condition.name()], state.met.into());
    }
    let mut ways: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, peer) in &status.peers {
        put(PEER, &[name], peer.problem().is_none().into());
        for path in &peer.paths {
            *ways.entry(path.way.name()).or_default() += 1;
        }
    }
    for (way, count) in ways {
        put(PATHS, &[way], count);
    }
    let mut text = String::new();
    for metric in METRICS {
        let Some(of_metric) = samples.get(metric.name) else { continue };
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let _ = writeln!(text, "# HELP {} {}", metric.name, metric.help);
        let _ = writeln!(text, "# TYPE {} {kind}", metric.name);
        for (labels, value) in of_metric {
            let pairs: Vec<String> = metric
                .labels
                .iter()
                .zip(labels)
                .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
                .collect();
            let labels = if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) };
            let _ = writeln!(text, "{}{labels} {value}", metric.name);
        }
    }
    text
}

/// A label's value as the format wants it.
fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{Board, Condition, Path, Peer, Way};

    #[test]
    fn every_metric_has_its_help_and_its_type() {
        let board = Board::new("kind-\"worker\"\n\\");
        board.report(Condition::Routes, Ok("1 route".to_owned()));
        let path = Path {
            pod_cidr: "10.244.1.0/24".parse().unwrap(),
            node_address: "172.18.0.3".parse().unwrap(),
            way: Way::Direct,
            reason: "same link eth0".to_owned(),
        };
        board.peers(|all| {
            all.insert(
                "kind-worker2".to_owned(),
                Peer { node_ready: true, paths: vec![path], probes: Vec::new() },
            );
        });
        let counters = Counters::default();
        counters.add(EVENTS, &[], 3);
        counters.add(RECONCILED, &["routes", "ok"], 1);
        counters.add(RECONCILED, &["routes", "ok"], 1);
        counters.add(RECONCILED, &["routes", "failed"], 1);
        counters.set(RESERVATIONS, &["in-use"], 7);
        counters.set(RESERVATIONS, &["in-use"], 5);
        insta::assert_snapshot!(
            render(&board.status(), &counters).replace(env!("CARGO_PKG_VERSION"), "VERSION")
        );
    }

    #[test]
    fn names_are_told_once_and_are_as_prometheus_wants_them() {
        let mut names: Vec<&str> = METRICS.iter().map(|it| it.name).collect();
        for metric in METRICS {
            let rest = metric.name.strip_prefix("podnet_").unwrap();
            assert!(rest.bytes().all(|it| it.is_ascii_lowercase() || it == b'_'), "{}", metric.name);
            assert_eq!(metric.kind == Kind::Counter, metric.name.ends_with("_total"), "{}", metric.name);
            assert!(metric.help.ends_with('.'), "{}", metric.name);
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), METRICS.len());
    }
}
