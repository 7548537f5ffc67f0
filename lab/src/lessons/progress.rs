//! What a student has done so far: a file of the student's own, as it outlives labs. Nothing of the machine's network is in it
//! or touched by it.
//!
//! Whoever writes holds a lock on the file beside it, and replaces the file by a rename: a crash leaves the old or the new one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::exam::Sitting;
use crate::exit::{self, Failure};

/// The name of the file's form.
const SCHEMA: &str = "podlab.progress/1";

/// What is remembered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Remembered {
    /// [`SCHEMA`].
    pub(super) schema: String,
    /// The lesson that was started last.
    pub(super) current: Option<String>,
    /// By id.
    pub(super) lessons: BTreeMap<String, Record>,
    /// The exam that was started last.
    #[serde(default)]
    pub(super) exam: Option<Sitting>,
}

/// What is remembered of a lesson.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    /// Its lab.
    pub(super) lab: String,
    /// How far it has come.
    pub(super) state: State,
    /// How many hints were given since the start.
    pub(super) hints: usize,
    /// How often it was checked since the start.
    pub(super) attempts: usize,
    /// It was passed once.
    pub(super) passed: bool,
}

/// How far a lesson has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It was never started.
    #[default]
    New,
    /// Its lab is whole, to look at.
    Look,
    /// Its lab is broken, to be repaired.
    Broken,
    /// Its check has passed.
    Passed,
}

/// Where progress is kept.
#[derive(Debug)]
pub(super) struct Progress(PathBuf);

impl Progress {
    /// In that file, or in `$XDG_STATE_HOME/podlab/lessons.json` (`~/.local/state` without that variable).
    pub(super) fn at(file: Option<&Path>) -> Result<Self, Failure> {
        if let Some(file) = file {
            return Ok(Self(file.to_owned()));
        }
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let dir = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")));
        let none =
            || Failure::usage("no place for the progress of lessons: HOME is not set · try: --state FILE");
        Ok(Self(dir.ok_or_else(none)?.join("podlab/lessons.json")))
    }

    pub(super) fn read(&self) -> Result<Remembered, Failure> {
        let text = match fs::read_to_string(&self.0) {
            Ok(text) => text,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(Remembered::default()),
            Err(err) => return Err(self.failed(&err.to_string())),
        };
        let remembered: Remembered = serde_json::from_str(&text)
            .map_err(|err| self.failed(&format!("{err} · try: remove it, and progress begins anew")))?;
        match remembered.schema.as_str() {
            SCHEMA => Ok(remembered),
            other => Err(self.failed(&format!("its schema is {other:?}, not {SCHEMA:?}"))),
        }
    }

    /// Changes what is remembered, with nobody else doing so meanwhile.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Remembered) -> T) -> Result<T, Failure> {
        let cannot = |err: std::io::Error| self.failed(&err.to_string());
        fs::create_dir_all(self.0.parent().unwrap_or(Path::new("."))).map_err(cannot)?;
        let lock = File::create(self.0.with_extension("lock")).map_err(cannot)?;
        let _lock =
            Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| self.failed(errno.desc()))?;
        let mut remembered = self.read()?;
        SCHEMA.clone_into(&mut remembered.schema);
        let value = change(&mut remembered);
        let mut text =
            serde_json::to_string_pretty(&remembered).map_err(|err| self.failed(&err.to_string()))?;
        text.push('\n');
        let fresh = self.0.with_extension("new");
        fs::write(&fresh, text).and_then(|()| fs::rename(&fresh, &self.0)).map_err(cannot)?;
        Ok(value)
    }

    fn failed(&self, words: &str) -> Failure {
        Failure::new(exit::FAILED, format!("progress of lessons {}: {words}", self.0.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_remembered_and_what_is_none_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let progress = Progress::at(Some(&dir.path().join("a/lessons.json"))).unwrap();
        assert_eq!(progress.read().unwrap(), Remembered::default());
        progress.change(|all| all.current = Some("no-nat".to_owned())).unwrap();
        progress.change(|all| all.lessons.entry("no-nat".to_owned()).or_default().hints += 2).unwrap();
        let all = progress.read().unwrap();
        assert_eq!((all.current.as_deref(), all.lessons["no-nat"].hints), (Some("no-nat"), 2));
        for text in ["", "{}", "{\"schema\":\"podlab.progress/2\",\"current\":null,\"lessons\":{}}"] {
            std::fs::write(dir.path().join("a/lessons.json"), text).unwrap();
            assert!(progress.read().unwrap_err().text.contains("lessons.json: "), "{text:?}");
            assert!(progress.change(|_| ()).is_err(), "{text:?} is overwritten");
        }
    }
}
