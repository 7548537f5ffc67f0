//! Every kind of defect, made in a lesson that has none, is found with its file and line.

use super::super::embedded;
use super::*;

const EN: &str = "07-no-nat.en.md";
const KO: &str = "07-no-nat.ko.md";

/// Lesson 7 with something else in the place of a piece of one of its files.
fn changed(file: &str, from: &str, to: &str) -> Vec<Problem> {
    let mut sources: Vec<Source> =
        embedded().into_iter().filter(|source| source.file.starts_with("07-")).collect();
    let source = sources.iter_mut().find(|source| source.file == file).unwrap();
    assert!(source.text.contains(from), "{file} has no {from:?}");
    source.text = source.text.replacen(from, to, 1);
    lint(&sources).1
}

#[test]
fn lessons_that_podlab_has_with_it_are_in_order() {
    let (lessons, problems) = lint(&embedded());
    assert_eq!(problems, []);
    assert_eq!(lessons.len(), embedded().len());
    for lang in Lang::ALL {
        let own = lessons.iter().filter(|lesson| lesson.lang == lang).map(|lesson| lesson.number);
        assert_eq!(own.collect::<Vec<_>>(), (1..=12).collect::<Vec<_>>());
    }
    for lesson in lessons {
        assert!(lesson.checks().count() >= 2 && lesson.hints().len() >= 3, "{}", lesson.file);
    }
}

#[test]
fn each_kind_of_defect_is_found_with_its_file_and_line() {
    // What is changed, to what; the line that is told, and what is said of it.
    for (file, from, to, line, words) in [
        (EN, "---\nid", "id", 1, "a lesson begins with a line ---"),
        (EN, "minutes: 12", "minutes: 12\nteacher: me", 6, "unknown field"),
        (EN, "minutes: 12", "minutes: 0", 2, "takes a minute at least"),
        (EN, "id: no-nat", "id: nat", 2, "the file is called 07-nat.en.md"),
        (EN, "pods: 2}", "pods: 2000}", 2, "lab: pods on a node"),
        (EN, "pods: 2}", "pots: 2}", 6, "unknown field"),
        (EN, "## Evidence", "## Proof", 58, "no block \"Proof\" · there are: Goal, Commands"),
        (EN, "## Goal", "## Commands", 119, "\"## Goal\" is missing"),
        (EN, "## Hints", "## Hints\n\n## Hints", 103, "is there twice"),
        (EN, "```sh\npodlab verify", "```bash\npodlab verify", 31, "no code \"bash\""),
        (EN, "```sh exit=1\npodlab trace", "```sh exit=one\npodlab trace", 80, "there is: exit=CODE"),
        (EN, "```expect\nverdict", "words\n\n```expect\nverdict", 25, "right behind the ```sh"),
        (EN, "masq-all node2", "masq-none node2", 76, "no fault \"masq-none\""),
        (EN, "- fault: masq-all", "- trouble: masq-all", 77, "unknown field"),
        (EN, "verify: [cross-node]", "verify: [crossnode]", 91, "no check \"crossnode\""),
        (EN, "verify: [egress]", "verify: [egress]\n  run: ls", 91, "is one of: verify, run, trace"),
        (EN, "unchanged: true, ttl: [64, 62], sightings: 6}", "to_: x}", 96, "unknown field"),
        (EN, ", unchanged: true, ttl: [64, 62], sightings: 6}", "}", 91, "is passed by every packet"),
        (EN, "1. Where was", "Where was", 101, "hints, another number"),
        (EN, "```sh\npodlab exec node1 -- ip route replace", "```text\n", 108, "has no ```sh: the repair"),
        (KO, "minutes: 12", "minutes: 13", 2, "other minutes"),
        (KO, "pods: 2}", "pods: 3}", 2, "another lab"),
        (KO, "podlab trace kubia-1 kubia-3\n", "podlab trace kubia-1 kubia-4\n", 20, "other commands"),
        (KO, "64→63→62\n", "64→63\n", 20, "other commands or expected words"),
        (KO, "masq-all node2", "masq-all node1", 71, "something else is broken"),
        (KO, "ttl: [64, 62]", "ttl: [64, 61]", 88, "other checks"),
        (KO, "4. `podlab exec", "`podlab exec", 101, "3 hints, another number"),
        (KO, "브리지는", "브릿지는", 55, "브릿지 is 브리지 in these lessons"),
        (KO, "마스커레이드를", "매스커레이드를", 73, "매스커레이드 is 마스커레이드"),
    ] {
        let found = changed(file, from, to);
        let is_it = |problem: &&Problem| problem.what.contains(words);
        let problem = found.iter().find(is_it).unwrap_or_else(|| panic!("{from:?} → {to:?}: {found:?}"));
        assert!(problem.line > 0 && [EN, KO].contains(&problem.file.as_str()), "{problem:?}");
        assert_eq!(problem.line, line, "{from:?} → {to:?}: {problem:?}");
    }
}

#[test]
fn a_lesson_without_its_twin_with_a_strange_name_or_a_number_twice_is_found() {
    let sources = embedded();
    let own = |file: &str| sources.iter().find(|source| source.file == file).unwrap().clone();
    let (_, problems) = lint(&[own(EN)]);
    assert_eq!(problems[0].what, "its twin 07-no-nat.ko.md is missing");
    for file in ["07-no-nat.md", "no-nat.en.md", "07-no-nat.fr.md"] {
        let (_, problems) = lint(&[Source { file: file.to_owned(), ..own(EN) }, own(KO)]);
        let is_told = |problem: &Problem| problem.file == file && problem.what.contains("called");
        assert!(problems.iter().any(is_told), "{file}: {problems:?}");
    }
    let (_, problems) = lint(&[own(EN), own(KO), own(EN)]);
    assert!(problems.iter().any(|problem| problem.what.contains("has the number 7 too")), "{problems:?}");
}
