//! What the plugin is to reach beside a peer in one run, and what it did reach.

use super::run::Run;
use super::statistics::ratio;
use super::table::Table;

/// Our own plugins; their DEL returns when the kernel has freed the link.
pub const OURS: &str = "podnet";
/// Our own plugins with the DEL that returns when the kernel has announced the end of the link.
pub const ANNOUNCED: &str = "podnet-announced";
/// The least that the kernel lets an operation cost.
pub const FLOOR: &str = "floor";

/// A limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// So much or more.
    AtLeast(f64),
    /// So much or less.
    AtMost(f64),
}

/// What is measured.
#[derive(Clone, Copy, Debug)]
enum Measure {
    /// Case, operation, point: the reference's median over that of ours.
    Faster(&'static str, &'static str, Option<u64>),
    /// As `Faster`, for the DEL that waits for the announcement only.
    FasterAnnounced(&'static str, &'static str),
    /// Our median over the floor's.
    OverFloor(&'static str, &'static str),
    /// Our median at a point over that at another point.
    OverOwn(&'static str, &'static str, u64, u64),
    /// Our pods in a second over the reference's.
    Rate(&'static str, u64),
    /// Ours, divided by a unit.
    Own(&'static str, &'static str, f64),
    /// The sum of our mishaps in a case.
    Mishaps(&'static str, &'static str),
}

use Bound::{AtLeast, AtMost};
use Measure::{Faster, FasterAnnounced, Mishaps, OverFloor, OverOwn, Own, Rate};

/// The table of goals: what, how measured, its limit, the sign behind the figure.
const GOALS: [(&str, Measure, Bound, &str); 21] = [
    ("bridge, IPv4: ADD", Faster("bridge", "ADD", None), AtLeast(7.0), "× faster"),
    ("bridge, IPv4: ADD", OverFloor("bridge", "ADD"), AtMost(1.8), "× floor"),
    ("bridge, dual stack: ADD", Faster("bridge-dual", "ADD", None), AtLeast(40.0), "× faster"),
    ("bridge, ipMasq: ADD", Faster("bridge-masquerade", "ADD", None), AtLeast(15.0), "× faster"),
    ("bridge, 10 port mappings: ADD", Faster("bridge-ports-10", "ADD", None), AtLeast(50.0), "× faster"),
    ("macvlan: ADD", Faster("macvlan", "ADD", None), AtLeast(6.0), "× faster"),
    ("ptp: ADD", Faster("ptp", "ADD", None), AtLeast(6.0), "× faster"),
    (
        "host-local, 60 000 reservations: ADD",
        Faster("reservations", "ADD", Some(60_000)),
        AtLeast(150.0),
        "× faster",
    ),
    (
        "host-local, 60 000 reservations: ADD",
        OverOwn("reservations", "ADD", 60_000, 0),
        AtMost(1.5),
        "× own at 0",
    ),
    (
        "host-local, 60 000 reservations: DEL",
        Faster("reservations", "DEL", Some(60_000)),
        AtLeast(150.0),
        "× faster",
    ),
    (
        "host-local, 60 000 reservations: DEL",
        OverOwn("reservations", "DEL", 60_000, 0),
        AtMost(1.5),
        "× own at 0",
    ),
    ("pod 1000 on one bridge: ADD", Faster("pods", "ADD", Some(1000)), AtLeast(8.0), "× faster"),
    ("128 ADDs, 8 in flight", Rate("parallel", 8), AtLeast(8.0), "× pods a second"),
    ("128 ADDs: errors", Mishaps("parallel", "errors"), AtMost(0.0), ""),
    ("128 ADDs: addresses given twice", Mishaps("parallel", "duplicates"), AtMost(0.0), ""),
    ("bridge, IPv4: DEL, all is freed", Faster("bridge", "DEL", None), AtLeast(1.3), "× faster"),
    ("bridge, IPv4: DEL, the end is announced", FasterAnnounced("bridge", "DEL"), AtLeast(12.0), "× faster"),
    ("bridge, IPv4: peak memory of ADD", Own("memory", "ADD", 1024.0), AtMost(1.5), "MiB"),
    ("all plugins, installed", Own("size", "installed", 1_048_576.0), AtMost(2.5), "MiB"),
    ("5 000 rules of others: ADD", OverOwn("rules", "ADD", 5000, 0), AtMost(1.5), "× own at 0"),
    ("1 000 namespaces: ADD", OverOwn("namespaces", "ADD", 1000, 0), AtMost(1.5), "× own at 0"),
];

/// A goal and what was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Goal {
    /// What it is about.
    pub what: String,
    /// The limit.
    pub bound: Bound,
    /// What the figure counts.
    pub unit: String,
    /// The figure; None when the run did not measure it.
    pub measured: Option<f64>,
}

impl Goal {
    /// Whether the limit is kept; None when nothing was measured.
    pub fn met(&self) -> Option<bool> {
        let measured = self.measured?;
        Some(match self.bound {
            AtLeast(limit) => measured >= limit,
            AtMost(limit) => measured <= limit,
        })
    }

    /// The limit as text.
    pub fn asked(&self) -> String {
        match self.bound {
            AtLeast(limit) => format!("≥ {limit} {}", self.unit).trim_end().to_owned(),
            AtMost(limit) => format!("≤ {limit} {}", self.unit).trim_end().to_owned(),
        }
    }
}

/// All goals with what a run measured of them.
pub fn goals(run: &Run) -> Vec<Goal> {
    let goal = |&(what, measure, bound, unit): &(&str, Measure, Bound, &str)| Goal {
        what: what.to_owned(),
        bound,
        unit: unit.to_owned(),
        measured: measured(run, measure),
    };
    GOALS.iter().map(goal).collect()
}

fn measured(run: &Run, measure: Measure) -> Option<f64> {
    let reference = run.reference.as_str();
    match measure {
        Faster(case, operation, point) => {
            ratio(run.median(case, operation, point, reference), run.median(case, operation, point, OURS))
        }
        FasterAnnounced(case, operation) => {
            ratio(run.median(case, operation, None, reference), run.median(case, operation, None, ANNOUNCED))
        }
        OverFloor(case, operation) => {
            ratio(run.median(case, operation, None, OURS), run.median(case, operation, None, FLOOR))
        }
        OverOwn(case, operation, at, base) => {
            ratio(run.median(case, operation, Some(at), OURS), run.median(case, operation, Some(base), OURS))
        }
        Rate(case, point) => {
            ratio(run.median(case, "ADD", Some(point), OURS), run.median(case, "ADD", Some(point), reference))
        }
        Own(case, operation, unit) => run.median(case, operation, None, OURS).map(|value| value / unit),
        Mishaps(case, operation) => {
            let rows = run
                .rows
                .iter()
                .filter(|row| row.case == case && row.operation == operation && row.peer == OURS);
            let samples: Vec<f64> = rows.flat_map(|row| row.samples.iter().copied()).collect();
            if samples.is_empty() { None } else { Some(samples.iter().sum()) }
        }
    }
}

/// The goals as a table.
pub fn table(run: &Run) -> Table {
    let mut table = Table::new(&["goal", "asked", "measured", "met"]);
    for goal in goals(run) {
        let measured = goal.measured.map_or("–".into(), |value| format!("{} {}", figure(value), goal.unit));
        let met = match goal.met() {
            None => "not measured",
            Some(true) => "yes",
            Some(false) => "NO",
        };
        table.row([goal.what.clone(), goal.asked(), measured.trim_end().to_owned(), met.to_owned()]);
    }
    table
}

/// A figure with three digits that count.
pub fn figure(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        v if v < 9.995 => format!("{value:.2}"),
        v if v < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::run::{Row, SCHEMA, Unit};

    fn run(samples: &[(&str, &str, Option<u64>, &str, f64)]) -> Run {
        let rows = samples.iter().map(|&(case, operation, point, peer, value)| Row {
            case: case.into(),
            operation: operation.into(),
            point,
            peer: peer.into(),
            unit: Unit::Microseconds,
            samples: vec![value],
        });
        Run {
            schema: SCHEMA,
            machine: Vec::new(),
            reference: "debian".into(),
            rows: rows.collect(),
            failures: Vec::new(),
        }
    }

    fn goal(run: &Run, what: &str, unit: &str) -> Goal {
        goals(run).into_iter().find(|g| g.what == what && g.unit == unit).expect("such a goal")
    }

    #[test]
    fn a_goal_is_met_missed_or_not_measured() {
        let run = run(&[
            ("bridge", "ADD", None, "debian", 7000.0),
            ("bridge", "ADD", None, "podnet", 1000.0),
            ("bridge", "ADD", None, "floor", 500.0),
        ]);
        let add = goal(&run, "bridge, IPv4: ADD", "× faster");
        assert_eq!((add.measured, add.met(), add.asked().as_str()), (Some(7.0), Some(true), "≥ 7 × faster"));
        let floor = goal(&run, "bridge, IPv4: ADD", "× floor");
        assert_eq!((floor.measured, floor.met()), (Some(2.0), Some(false)));
        assert_eq!(goal(&run, "ptp: ADD", "× faster").met(), None);
        assert!(table(&run).text().contains("7.00 × faster"));
    }

    #[test]
    fn growth_is_measured_against_our_own_cost_and_mishaps_are_summed() {
        let run = run(&[
            ("reservations", "ADD", Some(0), "podnet", 500.0),
            ("reservations", "ADD", Some(60_000), "podnet", 800.0),
            ("reservations", "ADD", Some(60_000), "debian", 160_000.0),
            ("parallel", "errors", Some(1), "podnet", 0.0),
            ("parallel", "errors", Some(8), "podnet", 2.0),
            ("parallel", "errors", Some(8), "debian", 9.0),
        ]);
        let what = "host-local, 60 000 reservations: ADD";
        assert_eq!(goal(&run, what, "× own at 0").met(), Some(false));
        assert_eq!(goal(&run, what, "× faster").measured, Some(200.0));
        assert_eq!(goal(&run, "128 ADDs: errors", "").measured, Some(2.0));
    }

    #[test]
    fn figures_have_three_digits() {
        let figures = [0.0, 0.123, 9.994, 9.996, 99.94, 99.96, 1234.5].map(figure);
        assert_eq!(figures, ["0", "0.12", "9.99", "10.0", "99.9", "100", "1234"]);
    }
}
