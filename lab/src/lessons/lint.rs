//! What is wrong with lessons: each by itself, and the languages of one beside each other. Commands, faults and checks are the
//! same in all languages; words are what is translated.

use std::collections::{BTreeMap, BTreeSet};

use super::glossary;
use super::markdown::Problem;
use super::model::{Kind, Lang, Lesson, Part};
use super::read;

/// A file's name and text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The name, for messages; its last part says number, id and language.
    pub file: String,
    /// What is in it.
    pub text: String,
}

/// Reads lessons and looks at all of them: those that could be read, by number, and what is wrong.
pub fn lint(sources: &[Source]) -> (Vec<Lesson>, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut lessons: Vec<Lesson> = Vec::new();
    for source in sources {
        lessons.extend(read::lesson(&source.file, &source.text, &mut problems));
        if read::name(&source.file).is_some_and(|(_, lang)| lang == Lang::Ko) {
            for (line, number) in source.text.lines().zip(1..) {
                problems.extend(glossary::misnamed(line).map(|(wrong, right)| Problem {
                    file: source.file.clone(),
                    line: number,
                    what: format!("{wrong} is {right} in these lessons"),
                }));
            }
        }
    }
    lessons.sort_by(|a, b| (a.number, &a.id, a.lang).cmp(&(b.number, &b.id, b.lang)));
    let mut by_id: BTreeMap<&str, Vec<&Lesson>> = BTreeMap::new();
    lessons.iter().for_each(|lesson| by_id.entry(&lesson.id).or_default().push(lesson));
    let mut found = Vec::new();
    for versions in by_id.values() {
        twins(versions, &mut found);
    }
    let mut numbers: BTreeMap<(u32, Lang), &Lesson> = BTreeMap::new();
    for lesson in &lessons {
        if let Some(other) = numbers.insert((lesson.number, lesson.lang), lesson) {
            let what = format!("{} has the number {} too", other.file, lesson.number);
            found.push(Problem { file: lesson.file.clone(), line: 2, what });
        }
    }
    problems.extend(found);
    problems.sort();
    (lessons, problems)
}

/// The languages of a lesson beside each other.
fn twins(versions: &[&Lesson], problems: &mut Vec<Problem>) {
    let Some((first, others)) = versions.split_first() else { return };
    let there: BTreeSet<Lang> = versions.iter().map(|lesson| lesson.lang).collect();
    for lang in Lang::ALL.into_iter().filter(|lang| !there.contains(lang)) {
        let own = format!("{:02}-{}.{lang}.md", first.number, first.id);
        problems.push(Problem {
            file: first.file.clone(),
            line: 1,
            what: format!("its twin {own} is missing"),
        });
    }
    for other in others {
        let mut differs = |line: usize, what: String| {
            problems.push(Problem {
                file: other.file.clone(),
                line,
                what: format!("{what} than in {}", first.file),
            });
        };
        if (other.number, other.minutes) != (first.number, first.minutes) {
            differs(2, "another number, or other minutes".to_owned());
        }
        if (&other.lab, &other.network) != (&first.lab, &first.network) {
            differs(2, "another lab".to_owned());
        }
        for (kind, ..) in Kind::ALL {
            let line = other.block(kind).map_or(1, |block| block.line);
            if other.block(kind).is_some() != first.block(kind).is_some() {
                differs(line, format!("{:?}: more or less blocks", kind.heading(other.lang)));
            }
            differ_in(first, other, kind, &mut differs);
        }
        if first.hints().len() != other.hints().len() {
            let line = other.block(Kind::Hints).map_or(1, |block| block.line);
            differs(line, format!("{} hints, another number", other.hints().len()));
        }
    }
}

fn differ_in(first: &Lesson, other: &Lesson, kind: Kind, differs: &mut dyn FnMut(usize, String)) {
    let heading = kind.heading(other.lang);
    let line = other.block(kind).map_or(1, |block| block.line);
    let (theirs, ours): (Vec<_>, Vec<_>) = (first.commands(kind).collect(), other.commands(kind).collect());
    if theirs.len() != ours.len() {
        differs(line, format!("{heading:?}: {} pieces of commands, another number", ours.len()));
    }
    for (theirs, ours) in theirs.iter().zip(&ours) {
        let same = (&theirs.run, theirs.exit, &theirs.words, &theirs.without)
            == (&ours.run, ours.exit, &ours.words, &ours.without);
        if !same {
            differs(ours.line, format!("{heading:?}: other commands or expected words"));
        }
    }
    if kind == Kind::Break && !first.breaks().eq(other.breaks()) {
        differs(line, format!("{heading:?}: something else is broken"));
    }
    // A check is the same but for its title.
    let bare = |lesson: &Lesson| -> Vec<super::model::Check> {
        lesson.checks().map(|check| super::model::Check { title: String::new(), ..check.clone() }).collect()
    };
    if kind == Kind::Check && bare(first) != bare(other) {
        differs(line, format!("{heading:?}: other checks"));
    }
    let codes = |lesson: &Lesson| {
        let parts = lesson.block(kind).into_iter().flat_map(|block| &block.parts);
        parts.filter(|part| matches!(part, Part::Code(..))).count()
    };
    if codes(first) != codes(other) {
        differs(line, format!("{heading:?}: more or less code to read"));
    }
}

#[cfg(test)]
mod tests;
