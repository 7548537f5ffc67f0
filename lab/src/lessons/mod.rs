//! Lessons: each a Markdown file per language, with commands that really run, a fault, and a check that says when it is
//! repaired.
//!
//! `build.rs` finds the files of `lab/lessons`; a teacher's own come from a directory. Reading (`markdown`, `read`, `lint`)
//! knows nothing of running labs; `play` and `checking` act on one through its socket, as every verb does. What the verbs
//! answer are values that serialize, so that a page can ask for them too. Nobody is taught by the machine alone: a lesson says
//! what to look at, the packets say what is so.

mod checking;
pub mod exam;
pub mod glossary;
mod lint;
mod markdown;
mod model;
mod play;
mod progress;
mod questions;
mod read;
mod rehearse;
mod seal;
mod shell;
mod told;

use std::path::{Path, PathBuf};

use crate::exit::{self, Failure};
pub use lint::{Source, lint};
pub use markdown::Problem;
pub use model::{Block, Break, Check, Commands, Kind, Lang, Lesson, Part, Trail};
pub use play::{UP, bring_up};
pub use progress::State;
pub use told::{
    Attempt, Checked, Hint, Lessons, Linted, Listed, Rehearsal, Rehearsed, Shown, ShownBlock, Step,
};

include!(concat!(env!("OUT_DIR"), "/lessons.rs"));

/// Where lessons are and what is remembered of them: what all verbs of lessons need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classroom {
    /// A teacher's own lessons, beside those of podlab.
    pub dir: Option<PathBuf>,
    /// The language of answers.
    pub lang: Lang,
    /// The file in which progress is kept; None for the usual one.
    pub state: Option<PathBuf>,
    /// The name of the labs that are started; None for `lesson-NUMBER`.
    pub lab: Option<String>,
}

/// The lessons that podlab has with it, as files.
pub fn embedded() -> Vec<Source> {
    let source = |(file, text): &(&str, &str)| Source { file: (*file).to_owned(), text: (*text).to_owned() };
    EMBEDDED.iter().map(source).collect()
}

/// The lessons of a directory, as files: all `*.md` of it.
///
/// # Errors
/// It cannot be read.
pub fn of_dir(dir: &Path) -> Result<Vec<Source>, Failure> {
    let refused = |err: std::io::Error| Failure::usage(format!("lessons {}: {err}", dir.display()));
    let entries = std::fs::read_dir(dir).map_err(refused)?;
    let paths: std::io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut paths = paths.map_err(refused)?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    paths.sort();
    paths.iter().map(|path| of_file(path)).collect()
}

/// A file of a lesson.
///
/// # Errors
/// It cannot be read.
pub fn of_file(path: &Path) -> Result<Source, Failure> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|err| Failure::usage(format!("{file}: {err}")))?;
    Ok(Source { file, text })
}

impl Classroom {
    /// All lessons in all languages.
    ///
    /// # Errors
    /// A directory that cannot be read, or the first thing that is wrong with a lesson.
    pub fn shelf(&self) -> Result<Vec<Lesson>, Failure> {
        let mut sources = embedded();
        if let Some(dir) = &self.dir {
            sources.extend(of_dir(dir)?);
        }
        let (lessons, problems) = lint(&sources);
        match problems.as_slice() {
            [] => Ok(lessons),
            [first, rest @ ..] => {
                let more = if rest.is_empty() { String::new() } else { format!(", and {} more", rest.len()) };
                Err(Failure::usage(format!(
                    "{}:{}: {}{more} · podlab lesson lint FILE",
                    first.file, first.line, first.what
                )))
            }
        }
    }

    /// The lesson of that number or id, in the classroom's language; without one the current one.
    ///
    /// # Errors
    /// There is none.
    pub fn find(&self, wanted: Option<&str>) -> Result<Lesson, Failure> {
        let state = self.progress()?.read()?;
        let wanted = wanted.or(state.current.as_deref()).ok_or_else(|| {
            Failure::new(
                exit::USAGE,
                "no lesson has been started · try: podlab lesson list, podlab lesson start 1",
            )
        })?;
        let mut own = self.shelf()?.into_iter().filter(|lesson| lesson.lang == self.lang).collect::<Vec<_>>();
        let is_it = |lesson: &Lesson| {
            lesson.id == wanted || wanted.parse().is_ok_and(|number: u32| number == lesson.number)
        };
        match own.iter().position(is_it) {
            Some(index) => Ok(own.swap_remove(index)),
            None => {
                let all: Vec<String> = own.iter().map(|it| format!("{} {}", it.number, it.id)).collect();
                Err(Failure::usage(format!("no lesson {wanted:?} · there are: {}", all.join(", "))))
            }
        }
    }

    fn progress(&self) -> Result<progress::Progress, Failure> {
        progress::Progress::at(self.state.as_deref())
    }
}

#[cfg(test)]
mod tests;
