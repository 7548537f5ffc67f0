//! `podlab lesson`: what can be said of lessons, and their verbs, printed.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::Style;
use crate::exit::{self, Failure};
use crate::lessons::{self, Attempt, Classroom, Lang, Linted, Rehearsal, State, Step};
use crate::output::{self, Format, Steps};

#[derive(Debug, Args)]
pub(super) struct LessonArgs {
    #[command(subcommand)]
    pub(super) verb: LessonVerb,
    /// A directory of lessons of one's own, beside those of podlab.
    #[arg(long, global = true, value_name = "DIR", env = "PODLAB_LESSONS")]
    pub(super) dir: Option<PathBuf>,
    /// The language [default: that of the locale].
    #[arg(long, global = true, value_enum, env = "PODLAB_LESSON_LANG")]
    pub(super) lang: Option<Lang>,
    /// The file that progress is kept in [default: podlab/lessons.json below $XDG_STATE_HOME or ~/.local/state].
    #[arg(long, global = true, value_name = "FILE", env = "PODLAB_LESSON_STATE")]
    pub(super) state: Option<PathBuf>,
    /// The name of the lab [default: lesson-NUMBER, and exam].
    #[arg(long, global = true, value_name = "NAME", env = "PODLAB_LESSON_LAB")]
    pub(super) lab: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum LessonVerb {
    /// List the lessons, with how far they have come.
    List,
    /// Print a lesson: goal, commands, what is observed, evidence, what is broken, what is checked.
    Show {
        /// Its number or id [default: the current one].
        lesson: Option<String>,
        /// Hints and solution too.
        #[arg(long)]
        all: bool,
    },
    /// Bring the lesson's lab up and break it as the lesson says.
    Start {
        /// Its number or id [default: the current one].
        lesson: Option<String>,
        /// Leave it whole, to try the lesson's commands first.
        #[arg(long)]
        look: bool,
    },
    /// Check whether it is repaired; what is not is told with what was expected and what was observed.
    Check {
        /// Its number or id [default: the current one].
        lesson: Option<String>,
    },
    /// Print the next hint.
    Hint {
        /// Its number or id [default: the current one].
        lesson: Option<String>,
    },
    /// Begin again: a new lab, broken in the same way.
    Reset {
        /// Its number or id [default: the current one].
        lesson: Option<String>,
    },
    /// Have the lesson's solution carried out.
    Solve {
        /// Its number or id [default: the current one].
        lesson: Option<String>,
    },
    /// End the lesson's lab and start the lesson after it.
    Next {
        /// Leave it whole, to try the lesson's commands first.
        #[arg(long)]
        look: bool,
    },
    /// Faults that follow from a seed, told by their symptoms only; why and heal are off until it ends.
    Exam(ExamArgs),
    /// Play a lesson from beginning to end, for who writes or gives it: commands, red, solution, green, red again.
    Rehearse {
        /// Its number or id [default: the current one].
        lesson: Option<String>,
    },
    /// Look for what is wrong with lessons, by file and line.
    Lint {
        /// Their files, in both languages [default: all lessons].
        files: Vec<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(super) struct ExamArgs {
    /// Which exam: the same seed, the same faults.
    #[arg(long, default_value_t = 1, env = "PODLAB_LESSON_EXAM_SEED")]
    pub(super) seed: u64,
    /// How many faults, each of another kind as long as there is one.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=6), env = "PODLAB_LESSON_EXAM_FAULTS")]
    pub(super) faults: u32,
    /// Who takes it; stands in the result.
    #[arg(long, default_value = "", value_name = "NAME", env = "PODLAB_LESSON_EXAM_STUDENT")]
    pub(super) student: String,
    /// End the exam that is going on: a full verification, and whether it was repaired by forbidden means.
    #[arg(long, conflicts_with_all = ["seed", "faults", "student"])]
    pub(super) check: bool,
    /// With --check: also write the signed result into this file.
    #[arg(short, long, value_name = "FILE", requires = "check")]
    pub(super) write: Option<PathBuf>,
    /// Look whether results are as podlab has written them, and print them as a table.
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["check", "seed", "faults", "student"])]
    pub(super) read: Vec<PathBuf>,
}

pub(super) fn lesson(args: LessonArgs, style: Style) -> Result<u8, Failure> {
    let lang = args.lang.unwrap_or_else(Lang::of_locale);
    let room = Classroom { dir: args.dir.clone(), lang, state: args.state, lab: args.lab };
    match args.verb {
        LessonVerb::List => list(&room, style),
        LessonVerb::Show { lesson, all } => {
            let shown = room.show(&room.find(lesson.as_deref())?, all)?;
            told(&shown, style, |shown| shown.text())
        }
        LessonVerb::Start { lesson, look } => step(&room.start(&room.find(lesson.as_deref())?, look)?, style),
        LessonVerb::Check { lesson } => check(&room.check(&room.find(lesson.as_deref())?)?, lang, style),
        LessonVerb::Hint { lesson } => step(&room.hint(&room.find(lesson.as_deref())?)?, style),
        LessonVerb::Reset { lesson } => step(&room.reset(&room.find(lesson.as_deref())?)?, style),
        LessonVerb::Solve { lesson } => step(&room.solve(&room.find(lesson.as_deref())?)?, style),
        LessonVerb::Next { look } => step(&room.next(look)?, style),
        LessonVerb::Rehearse { lesson } => rehearse(&room.rehearse(&room.find(lesson.as_deref())?)?, style),
        LessonVerb::Lint { files } => lint(args.dir, files, style),
        LessonVerb::Exam(exam) => super::exam::exam(&room, exam, style),
    }
}

/// Prints a document, or its text.
pub(super) fn told<T: Serialize>(
    document: &T,
    style: Style,
    text: impl Fn(&T) -> String,
) -> Result<u8, Failure> {
    match style.format {
        Format::Json => {
            output::print_json(&output::document(document)?)?;
        }
        Format::Table => output::print(&text(document))?,
    }
    Ok(exit::OK)
}

fn list(room: &Classroom, style: Style) -> Result<u8, Failure> {
    told(&room.list()?, style, |all| {
        let state = |state: State, passed: bool| match (state, passed, room.lang) {
            (State::Look, _, lang) => lang.say("to look at", "둘러보기"),
            (State::Broken, _, lang) => lang.say("under way", "진행 중"),
            (_, true, lang) | (State::Passed, _, lang) => lang.say("passed", "통과"),
            (State::New, false, _) => "-",
        };
        let rows: Vec<Vec<String>> = all
            .lessons
            .iter()
            .map(|it| {
                let number = it.number.to_string();
                let state = state(it.state, it.passed).to_owned();
                vec![number, it.id.clone(), it.minutes.to_string(), state, it.title.clone()]
            })
            .collect();
        output::table(&["#", "ID", "MINUTES", "STATE", "TITLE"], &rows)
    })
}

fn step(step: &Step, style: Style) -> Result<u8, Failure> {
    told(step, style, |step| {
        let mut text = String::new();
        match &step.hint {
            Some(hint) => text += &format!("{}/{}: {}\n", hint.number, hint.of, hint.text),
            None => text += &format!("{}. {} · lab {}\n", step.number, step.title, step.lab),
        }
        step.ran.iter().for_each(|lines| text += &format!("{lines}\n"));
        text + &step.then + "\n"
    })
}

fn check(attempt: &Attempt, lang: Lang, style: Style) -> Result<u8, Failure> {
    told(attempt, style, |attempt| {
        let mut text = String::new();
        for check in &attempt.checks {
            text += &format!("{}  {}\n", if check.passed { "PASS" } else { "FAIL" }, check.title);
            if !check.passed {
                text += &format!("      {}: {}\n", lang.say("expected", "기대값"), check.expected);
                text += &format!("      {}: {}\n", lang.say("observed", "관측값"), check.observed);
            }
        }
        let good = attempt.checks.iter().filter(|check| check.passed).count();
        text + &format!("{good} passed, {} failed\n", attempt.checks.len() - good)
    })?;
    Ok(if attempt.passed { exit::OK } else { exit::FAILED })
}

fn rehearse(rehearsal: &Rehearsal, style: Style) -> Result<u8, Failure> {
    told(rehearsal, style, |rehearsal| {
        let line = |it: &lessons::Rehearsed| {
            let observed =
                if it.observed.is_empty() { String::new() } else { format!("\n      {}", it.observed) };
            format!("{}  {}{observed}\n", if it.passed { "PASS" } else { "FAIL" }, it.step)
        };
        rehearsal.steps.iter().map(line).collect()
    })?;
    Ok(if rehearsal.passed { exit::OK } else { exit::FAILED })
}

fn lint(dir: Option<PathBuf>, files: Vec<PathBuf>, style: Style) -> Result<u8, Failure> {
    let mut sources = Vec::new();
    for file in &files {
        sources.push(lessons::of_file(file)?);
    }
    if files.is_empty() {
        sources = lessons::embedded();
        if let Some(dir) = dir {
            sources.extend(lessons::of_dir(&dir)?);
        }
    }
    let linted = Linted::of(&sources);
    told(&linted, style, |linted| {
        linted.problems.iter().map(|it| format!("{}:{}: {}\n", it.file, it.line, it.what)).collect()
    })?;
    let found = linted.problems.len();
    Steps::new(style.quiet).done(&format!("{} files read, {found} problems", linted.files), 0);
    Ok(if found == 0 { exit::OK } else { exit::FAILED })
}
