//! From a file to a lesson, or to what is wrong with it. Nothing unknown is passed over.

use serde::de::DeserializeOwned;

use super::markdown::{self, Piece, Problem, Section};
use super::model::{Block, Break, Check, Commands, Front, Kind, Lang, Lesson, Part};

/// The language and the stem of a file's name: `07-no-nat.en.md`.
pub(super) fn name(file: &str) -> Option<(&str, Lang)> {
    let base = file.rsplit('/').next().unwrap_or(file).strip_suffix(".md")?;
    let (stem, code) = base.rsplit_once('.')?;
    Some((stem, Lang::ALL.into_iter().find(|lang| lang.code() == code)?))
}

/// Reads a lesson. What is wrong is added to `problems`; a lesson is returned if one could be made of it.
pub(super) fn lesson(file: &str, text: &str, problems: &mut Vec<Problem>) -> Option<Lesson> {
    let mut wrong = |line: usize, what: String| problems.push(Problem { file: file.to_owned(), line, what });
    let Some((stem, lang)) = name(file) else {
        wrong(1, "a lesson's file is called NUMBER-ID.LANGUAGE.md: 07-no-nat.en.md, 07-no-nat.ko.md".into());
        return None;
    };
    let document = match markdown::read(text) {
        Ok(document) => document,
        Err((line, what)) => {
            wrong(line, what);
            return None;
        }
    };
    let front: Front = match yaml(&document.front, 2) {
        Ok(front) => front,
        Err((line, what)) => {
            wrong(line, what);
            return None;
        }
    };
    let is_id = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if front.id.is_empty() || !front.id.chars().all(is_id) || front.id.parse::<u32>().is_ok() {
        wrong(2, format!("id {:?}: small letters, digits and -, and no number", front.id));
    }
    let own = format!("{:02}-{}", front.number, front.id);
    if stem != own {
        wrong(2, format!("number and id say that the file is called {own}.{lang}.md"));
    }
    if front.title.trim().is_empty() || front.minutes == 0 {
        wrong(2, "a lesson has a title and takes a minute at least".to_owned());
    }
    let mut blocks: Vec<Block> = Vec::new();
    for section in &document.sections {
        let Some(kind) = kind(section.heading, lang) else {
            let all: Vec<&str> = Kind::ALL.iter().map(|it| it.0.heading(lang)).collect();
            wrong(section.line, format!("no block {:?} · there are: {}", section.heading, all.join(", ")));
            continue;
        };
        if blocks.last().is_some_and(|last| last.kind >= kind) {
            wrong(section.line, format!("{:?} is there twice, or too late", section.heading));
        }
        let parts = parts(section, kind, &mut wrong);
        blocks.push(Block { kind, line: section.line, parts });
    }
    let last = text.lines().count();
    for (kind, ..) in Kind::ALL.into_iter().filter(|(kind, ..)| !kind.is_optional()) {
        if !blocks.iter().any(|block| block.kind == kind) {
            wrong(last, format!("the block \"## {}\" is missing", kind.heading(lang)));
        }
    }
    let lesson = Lesson {
        id: front.id,
        number: front.number,
        lang,
        title: front.title,
        minutes: front.minutes,
        file: file.to_owned(),
        lab: front.lab,
        network: front.network,
        blocks,
    };
    if lesson.lab.name.is_some() {
        wrong(2, "lab: its name is lesson-NUMBER or that of --name".to_owned());
    }
    if let Err(failure) = lesson.topology("lesson") {
        wrong(2, format!("lab: {failure}"));
    }
    for (block, is_there, what) in [
        (Kind::Break, lesson.breaks().next().is_some(), "```break: what is broken"),
        (Kind::Check, lesson.checks().next().is_some(), "```check: what is checked"),
        (Kind::Hints, !lesson.hints().is_empty(), "1. the first hint"),
        (Kind::Commands, lesson.commands(Kind::Commands).next().is_some(), "```sh: what to type"),
        (Kind::Solution, lesson.commands(Kind::Solution).next().is_some(), "```sh: the repair"),
    ] {
        if let Some(line) = lesson.block(block).filter(|_| !is_there).map(|block| block.line) {
            wrong(line, format!("{:?} has no {what}", block.heading(lang)));
        }
    }
    Some(lesson)
}

fn kind(heading: &str, lang: Lang) -> Option<Kind> {
    Kind::ALL.iter().map(|it| it.0).find(|kind| kind.heading(lang) == heading)
}

fn parts(section: &Section<'_>, kind: Kind, wrong: &mut dyn FnMut(usize, String)) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for piece in &section.pieces {
        let (line, info, code) = match piece {
            Piece::Text(_, text) => {
                parts.push(Part::Text(text.clone()));
                continue;
            }
            Piece::Code(line, info, code) => (*line, *info, code),
        };
        let (language, more) = info.split_once(' ').unwrap_or((info, ""));
        let belongs = match language {
            "break" => kind == Kind::Break,
            "check" => kind == Kind::Check,
            "sh" | "expect" => !matches!(kind, Kind::Check | Kind::Goal),
            _ => true,
        };
        if !belongs {
            wrong(line - 1, format!("```{language} does not belong below {:?}", section.heading));
            continue;
        }
        match language {
            "sh" => match exit(more) {
                Some(exit) if !code.trim().is_empty() => parts.push(Part::Commands(Commands {
                    line,
                    run: code.trim_end().to_owned(),
                    exit,
                    words: Vec::new(),
                    without: Vec::new(),
                })),
                Some(_) => wrong(line - 1, "there are no commands in it".to_owned()),
                None => {
                    wrong(line - 1, format!("{more:?} behind ```sh · there is: exit=CODE"));
                }
            },
            "expect" => match parts.last_mut() {
                Some(Part::Commands(commands))
                    if commands.words.is_empty() && commands.without.is_empty() =>
                {
                    for words in code.lines().map(str::trim).filter(|words| !words.is_empty()) {
                        match words.strip_prefix("! ") {
                            Some(words) => commands.without.push(words.to_owned()),
                            None => commands.words.push(words.to_owned()),
                        }
                    }
                }
                _ => wrong(line - 1, "```expect stands right behind the ```sh that it is about".to_owned()),
            },
            "break" => match yaml::<Vec<Break>>(code, line) {
                Ok(breaks) => {
                    breaks.iter().for_each(|it| check_break(it, line, wrong));
                    parts.push(Part::Breaks(breaks));
                }
                Err((line, what)) => wrong(line, what),
            },
            "check" => match yaml::<Vec<Check>>(code, line) {
                Ok(checks) => {
                    checks.iter().for_each(|it| check_check(it, line, wrong));
                    parts.push(Part::Checks(checks));
                }
                Err((line, what)) => wrong(line, what),
            },
            "text" | "json" | "yaml" if more.is_empty() => {
                parts.push(Part::Code(language.to_owned(), code.clone()));
            }
            _ => wrong(
                line - 1,
                format!(
                    "no code {info:?} · there are: sh, expect, break, check, and to read: text, json, yaml"
                ),
            ),
        }
    }
    parts
}

fn exit(words: &str) -> Option<u8> {
    if words.is_empty() { Some(0) } else { words.strip_prefix("exit=")?.parse().ok() }
}

fn check_break(it: &Break, line: usize, wrong: &mut dyn FnMut(usize, String)) {
    match (&it.fault, &it.run) {
        (Some(fault), None) => {
            let name = fault.split_whitespace().next().unwrap_or_default();
            if let Err(failure) = crate::faults::find(name) {
                wrong(line, failure.text);
            }
        }
        (None, Some(run)) if !run.trim().is_empty() => {}
        _ => wrong(line, "either a fault of the catalogue or run: lines for a shell".to_owned()),
    }
}

fn check_check(it: &Check, line: usize, wrong: &mut dyn FnMut(usize, String)) {
    let kinds = [!it.verify.is_empty(), it.run.is_some(), it.trace.is_some()];
    if kinds.iter().filter(|kind| **kind).count() != 1 {
        wrong(line, format!("{:?} is one of: verify, run, trace", it.title));
    }
    if it.title.trim().is_empty() {
        wrong(line, "a check has a title, which students read".to_owned());
    }
    if it.run.is_none() && (it.exit != 0 || !it.words.is_empty() || !it.without.is_empty()) {
        wrong(line, format!("{:?}: exit, words and without go with run", it.title));
    }
    if let Err(failure) = crate::verify::known(&it.verify) {
        wrong(line, failure.text);
    }
    let Some(trail) = &it.trace else { return };
    if !["tcp", "udp", "icmp"].contains(&trail.proto.as_str()) {
        wrong(line, format!("no protocol {:?} · there are: tcp, udp, icmp", trail.proto));
    }
    let says_nothing = !trail.unchanged && trail.ttl.is_none() && trail.sightings == 0;
    if says_nothing && trail.passes.is_empty() && trail.avoids.is_empty() {
        wrong(line, format!("{:?}: a trace that nothing is wanted of is passed by every packet", it.title));
    }
}

/// Reads YAML that begins at a line of the file; else the line and the parser's words.
fn yaml<T: DeserializeOwned>(text: &str, first: usize) -> Result<T, (usize, String)> {
    if text.trim().is_empty() {
        return Err((first, "there is nothing in it".to_owned()));
    }
    serde_saphyr::from_str(text).map_err(|err| {
        let line = err.location().map_or(0, |location| location.line().saturating_sub(1));
        // The parser's own line is that of the piece, not of the file.
        let words = err.without_snippet().to_string();
        let words = words.split(" at line ").next().unwrap_or(&words).trim_end_matches(':').to_owned();
        (first + line as usize, words)
    })
}
