//! Lessons, headless: every one is played from beginning to end, in a lab of its own, without anybody's progress.
//!
//! ```text
//!  start --look   the lesson's commands, each with its exit code and its words
//!  start          broken: red │ solve: green │ reset: red as before
//! ```

use std::ffi::OsString;
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use podnet_tests::workers::workers;
use serde_json::Value;

use super::{command, contract, podlab, text};

/// A student with a file for progress and a lab, which ends with this value.
struct Student {
    dir: tempfile::TempDir,
    lab: String,
    lessons: Option<OsString>,
}

impl Student {
    fn new(name: &str) -> Result<Student> {
        let lab = format!("e2e-lesson-{name}-{}", std::process::id());
        Ok(Student { dir: tempfile::tempdir()?, lab, lessons: None })
    }

    /// `podlab lesson …`; a document that it prints is as its schema says.
    fn lesson(&self, args: &[&str]) -> Result<Output> {
        self.run(&[&["lesson"], args].concat())
    }

    fn run(&self, args: &[&str]) -> Result<Output> {
        let mut command = command(args)?;
        command
            .env("PODLAB_LESSON_STATE", self.dir.path().join("lessons.json"))
            .env("PODLAB_LESSON_LAB", &self.lab)
            .env("PODLAB_LESSON_LANG", "en")
            .env("PODLAB_NAME", &self.lab)
            .env_remove("LC_ALL")
            .stdin(Stdio::null());
        if let Some(dir) = &self.lessons {
            command.env("PODLAB_LESSONS", dir);
        }
        let output = command.output().context("start podlab")?;
        let words: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        contract::check(&words, &output)?;
        Ok(output)
    }

    /// The document that a verb prints, and its exit code.
    fn document(&self, args: &[&str]) -> Result<(i32, Value)> {
        let output = self.lesson(&[args, &["-o", "json"]].concat())?;
        let document = serde_json::from_slice(&output.stdout).with_context(|| text(&output))?;
        Ok((output.status.code().unwrap_or(-1), document))
    }

    /// A verb that has to work.
    fn ok(&self, args: &[&str]) -> Result<Value> {
        let (code, document) = self.document(args)?;
        ensure!(code == 0, "{args:?}: {document:#}");
        Ok(document)
    }

    /// A verb that has to fail with that code and those words.
    fn refused(&self, args: &[&str], code: i32, words: &str) -> Result<()> {
        let output = self.run(args)?;
        ensure!(output.status.code() == Some(code), "{args:?}: {}", text(&output));
        ensure!(text(&output).contains(words), "{args:?}: {}", text(&output));
        Ok(())
    }
}

impl Drop for Student {
    fn drop(&mut self) {
        // It may be down already.
        let _ = podlab(&["down", "-q", "--name", &self.lab]);
    }
}

/// The checks of an attempt that are red, each with what was observed.
fn reds(attempt: &Value) -> Vec<&Value> {
    let checks = attempt["checks"].as_array().into_iter().flatten();
    checks.filter(|check| check["passed"] == false).collect()
}

#[test]
fn every_lesson_is_played_from_beginning_to_end() -> Result<()> {
    let all = Student::new("list")?.ok(&["list"])?;
    let numbers: Vec<u64> = all["lessons"]
        .as_array()
        .context("no lessons")?
        .iter()
        .filter_map(|lesson| lesson["number"].as_u64())
        .collect();
    assert_eq!(numbers, (1..=12).collect::<Vec<u64>>());
    let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    workers(2, || {
        while let Some(number) = numbers.get(next.fetch_add(1, Ordering::Relaxed)) {
            let number = number.to_string();
            let student = Student::new(&number)?;
            let (code, rehearsal) = student.document(&["rehearse", &number])?;
            let steps = rehearsal["steps"].as_array().context("no steps")?;
            if code != 0 || steps.len() < 6 {
                failed.fetch_add(1, Ordering::Relaxed);
                eprintln!("lesson {number}: {rehearsal:#}");
            }
        }
        Ok(())
    })?;
    assert_eq!(failed.into_inner(), 0, "lessons that do not do as they say");
    Ok(())
}

#[test]
fn a_student_goes_through_a_lesson_verb_by_verb() -> Result<()> {
    let student = Student::new("verbs")?;
    student.refused(&["lesson", "check"], 2, "no lesson has been started")?;
    student.refused(&["lesson", "check", "7"], 2, "lesson 7 is not started")?;
    student.refused(&["lesson", "start", "13"], 2, "no lesson \"13\" · there are: 1 ")?;
    student.refused(&["lesson", "hint", "7"], 2, "lesson 7 is not started")?;

    let step = student.ok(&["start", "7", "--look"])?;
    assert_eq!((&step["state"], &step["lab"]), (&"look".into(), &student.lab.as_str().into()));
    // A whole lab has nothing to be checked: no green without red.
    student.refused(&["lesson", "check"], 4, "nothing is broken in lab")?;

    assert_eq!(student.ok(&["start", "no-nat"])?["state"], "broken");
    student.refused(&["lesson", "start", "7"], 2, "is up already · try: podlab lesson check 7")?;
    let (code, attempt) = student.document(&["check"])?;
    ensure!(code == 1 && reds(&attempt).len() == 3, "{attempt:#}");
    for check in reds(&attempt) {
        ensure!(check["expected"] != "" && check["observed"] != "", "{check:#}");
    }
    let first = student.ok(&["hint"])?["hint"].clone();
    let second = student.ok(&["hint"])?["hint"].clone();
    assert_eq!((&first["number"], &second["number"]), (&1.into(), &2.into()));
    ensure!(first["text"] != second["text"], "{first:#}");

    // Half of the repair is not enough: everything answers, and a node masquerades.
    let route = ["exec", "node1", "--", "ip", "route", "add", "10.244.2.0/24", "via", "192.0.2.12"];
    ensure!(student.run(&route)?.status.success());
    let (code, attempt) = student.document(&["check"])?;
    ensure!(code == 1 && text_of(&attempt).contains("NAT: source"), "{attempt:#}");

    assert_eq!(student.ok(&["reset"])?["state"], "broken");
    let (code, attempt) = student.document(&["check"])?;
    ensure!(code == 1 && reds(&attempt).len() == 3, "{attempt:#}");
    assert_eq!(attempt["attempts"], 1, "reset begins again");
    assert_eq!(student.ok(&["hint"])?["hint"], first);

    ensure!(!student.ok(&["solve"])?["ran"].as_array().context("nothing was run")?.is_empty());
    let (code, attempt) = student.document(&["check"])?;
    ensure!(code == 0 && attempt["passed"] == true, "{attempt:#}");
    let all = student.ok(&["list"])?;
    let own = all["lessons"].as_array().and_then(|all| all.iter().find(|it| it["id"] == "no-nat"));
    assert_eq!(own.context("no lesson")?["passed"], true);

    let next = student.ok(&["next", "--look"])?;
    assert_eq!((&next["number"], &next["state"]), (&8.into(), &"look".into()));
    assert_eq!(student.ok(&["list"])?["current"], next["id"]);
    Ok(())
}

fn text_of(document: &Value) -> String {
    document.to_string()
}

#[test]
fn a_lesson_is_shown_in_both_languages_without_its_solution() -> Result<()> {
    let student = Student::new("show")?;
    let english = student.ok(&["show", "7"])?;
    let korean = student.ok(&["show", "7", "--lang", "ko"])?;
    let kinds = |shown: &Value| -> Vec<Value> {
        shown["blocks"].as_array().into_iter().flatten().map(|block| block["kind"].clone()).collect()
    };
    assert_eq!(kinds(&english), kinds(&korean));
    ensure!(!kinds(&english).contains(&"solution".into()) && !kinds(&english).contains(&"hints".into()));
    ensure!(kinds(&student.ok(&["show", "7", "--all"])?).contains(&"solution".into()));
    for (shown, words) in
        [(&english, "no NAT may stand between the hosts"), (&korean, "어떤 NAT도 통하지 말아야")]
    {
        let text = text_of(shown);
        ensure!(
            text.contains(words) && text.contains("```sh\\npodlab trace kubia-1 kubia-3\\n```"),
            "{shown:#}"
        );
        ensure!(
            !text.contains("```check") && !text.contains("```break") && !text.contains("masq-all"),
            "{shown:#}"
        );
    }
    Ok(())
}
