//! What the verbs of lessons answer: documents, each with a schema, that the command line prints and a page shows.

use serde::{Deserialize, Serialize};

use super::markdown::Problem;
use super::model::{Kind, Lang, Lesson, Part};
use super::progress::State;

/// All lessons in a language.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lessons {
    /// `podlab.lessons/1`
    pub schema: String,
    /// The language.
    pub lang: Lang,
    /// The lesson that was started last.
    pub current: Option<String>,
    /// By number.
    pub lessons: Vec<Listed>,
}

/// A lesson among others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Its id.
    pub id: String,
    /// Its number.
    pub number: u32,
    /// Its title.
    pub title: String,
    /// How long it takes.
    pub minutes: u32,
    /// How far it has come.
    pub state: State,
    /// It was passed once.
    pub passed: bool,
}

/// A lesson to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// `podlab.lesson/1`
    pub schema: String,
    /// Its id.
    pub id: String,
    /// Its number.
    pub number: u32,
    /// Its language.
    pub lang: Lang,
    /// Its title.
    pub title: String,
    /// How long it takes.
    pub minutes: u32,
    /// The name of its lab.
    pub lab: String,
    /// How far it has come.
    pub state: State,
    /// How many hints there are.
    pub hints: usize,
    /// What is checked, in words.
    pub checks: Vec<String>,
    /// Its blocks. Hints and solution are there only where they are asked for.
    pub blocks: Vec<ShownBlock>,
}

/// A block to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownBlock {
    /// Which.
    pub kind: Kind,
    /// Its heading.
    pub title: String,
    /// Markdown without HTML: paragraphs, lists, emphasis, fenced code. Code behind ```` ```sh ```` is to be run.
    pub text: String,
}

/// What was done with a lesson.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// `podlab.step/1`
    pub schema: String,
    /// `start`, `hint`, `reset`, `solve` or `next`.
    pub verb: String,
    /// The lesson's id.
    pub id: String,
    /// Its number.
    pub number: u32,
    /// Its title.
    pub title: String,
    /// The name of its lab.
    pub lab: String,
    /// How far it has come.
    pub state: State,
    /// The hint that was asked for.
    pub hint: Option<Hint>,
    /// The commands that were run for the student.
    pub ran: Vec<String>,
    /// What to do now, in a sentence.
    pub then: String,
}

/// A hint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hint {
    /// Which, from 1 on.
    pub number: usize,
    /// Of how many.
    pub of: usize,
    /// In words, as Markdown.
    pub text: String,
}

/// A lesson that was played from beginning to end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rehearsal {
    /// `podlab.rehearsal/1`
    pub schema: String,
    /// The lesson's id.
    pub id: String,
    /// Its number.
    pub number: u32,
    /// Its title.
    pub title: String,
    /// Everything is as the lesson says.
    pub passed: bool,
    /// What was done, in that order.
    pub steps: Vec<Rehearsed>,
}

/// A step of a rehearsal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rehearsed {
    /// What was done.
    pub step: String,
    /// It is as the lesson says.
    pub passed: bool,
    /// What is other than the lesson says, or worth knowing.
    pub observed: String,
}

/// A check of a lesson.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// `podlab.attempt/1`
    pub schema: String,
    /// The lesson's id.
    pub id: String,
    /// Its number.
    pub number: u32,
    /// Its title.
    pub title: String,
    /// The name of its lab.
    pub lab: String,
    /// Nothing is red.
    pub passed: bool,
    /// How often it was checked since the start.
    pub attempts: usize,
    /// One by one.
    pub checks: Vec<Checked>,
}

/// What came of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// In words.
    pub title: String,
    /// It is as it has to be.
    pub passed: bool,
    /// How it has to be.
    pub expected: String,
    /// How it is.
    pub observed: String,
}

/// What lint has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Linted {
    /// `podlab.lint/1`
    pub schema: String,
    /// How many files were read.
    pub files: usize,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

impl ShownBlock {
    /// The block of a lesson as Markdown; what is broken and checked is left out, but for the checks' titles.
    pub(super) fn of(lesson: &Lesson, kind: Kind) -> Option<ShownBlock> {
        let block = lesson.block(kind)?;
        let text = block.parts.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text.clone()),
            Part::Commands(commands) => {
                let mut text = format!("```sh\n{}\n```", commands.run);
                if !commands.words.is_empty() {
                    text += &format!("\n\n```text\n{}\n```", commands.words.join("\n"));
                }
                Some(text)
            }
            Part::Code(language, code) => Some(format!("```{language}\n{code}```")),
            Part::Breaks(_) => None,
            Part::Checks(checks) => {
                Some(checks.iter().map(|check| format!("- {}", check.title)).collect::<Vec<_>>().join("\n"))
            }
        });
        let text = text.collect::<Vec<_>>().join("\n\n");
        Some(ShownBlock { kind, title: kind.heading(lesson.lang).to_owned(), text })
    }
}

impl Shown {
    /// The lesson as Markdown, for a terminal.
    pub fn text(&self) -> String {
        let mut text = format!("# {}. {}\n", self.number, self.title);
        for block in &self.blocks {
            text += &format!("\n## {}\n\n{}\n", block.title, block.text);
        }
        text
    }
}
