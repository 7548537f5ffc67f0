//! The guide tells every check and every condition, and none that is not there.

use std::collections::BTreeSet;

use super::text;
use crate::doctor::CHECKS;
use crate::status::Condition;

/// The names in the first column of the table under a heading.
fn table(heading: &str) -> BTreeSet<String> {
    let guide = text("docs/cluster.md");
    let section = guide.split("\n## ").find(|it| it.starts_with(heading)).unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once(" |"));
    let names = rows.flat_map(|(names, _)| names.split(", ").map(|it| it.trim_matches('`').to_owned()));
    names.collect()
}

#[test]
fn the_guide_tells_every_check_and_every_condition() {
    let checks = CHECKS.iter().map(|it| it.name.to_owned()).collect();
    assert_eq!(table("What is wrong"), checks);
    let conditions = Condition::ALL.map(|it| it.name().to_owned()).into();
    assert_eq!(table("When a node is ready"), conditions);
}
