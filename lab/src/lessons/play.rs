//! The verbs of lessons: list, show, start, check, hint, reset, solve, next. Values in, values out; nothing is printed here.

use std::io::Write;
use std::process::{Command, Stdio};

use super::model::{Break, Kind, Lang, Lesson};
use super::progress::{Record, State};
use super::told::{Attempt, Checked, Hint, Lessons, Linted, Listed, Shown, ShownBlock, Step};
use super::{Classroom, Source, checking, lint, shell};
use crate::capsule;
use crate::control::{self, Client, Request};
use crate::exit::{self, Failure};
use crate::topology::Topology;

/// The argument under which the binary brings up the lab of a lesson, whose topology is on standard input: making a capsule
/// takes a process of one thread, which afterwards is in it.
pub const UP: &str = "__lesson-up";

/// Runs as the process of [`UP`]; returns the exit code.
pub fn bring_up() -> u8 {
    let up = || -> Result<(), Failure> {
        let text = std::io::read_to_string(std::io::stdin()).unwrap_or_default();
        let topology: Topology = serde_json::from_str(&text)
            .map_err(|err| Failure::new(exit::BUG, format!("topology of a lesson: {err}")))?;
        capsule::launch(&topology, true)?.wait_until_up(&mut |_, _| {}).map(drop)
    };
    match up() {
        Ok(()) => exit::OK,
        Err(failure) => {
            // Whoever asked reads this.
            let _ = write!(std::io::stderr(), "{failure}");
            failure.code
        }
    }
}

/// Brings a lab up, detached.
pub(super) fn up(topology: &Topology) -> Result<(), Failure> {
    let started =
        |err: std::io::Error| Failure::new(exit::FAILED, format!("start lab {}: {err}", topology.name));
    let text = serde_json::to_string(topology).map_err(|err| Failure::new(exit::BUG, err.to_string()))?;
    let mut child = Command::new("/proc/self/exe")
        .arg(UP)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(started)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(text.as_bytes()).map_err(started)?;
    }
    let output = child.wait_with_output().map_err(started)?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let words = String::from_utf8_lossy(&output.stderr).into_owned();
            Err(Failure::new(exit::of_status(output.status), words))
        }
    }
}

/// Ends a lab, if it is up.
pub(super) fn down(lab: &str) -> Result<(), Failure> {
    if !is_up(lab) {
        return Ok(());
    }
    let mut client = Client::connect(lab)?;
    client.ask(&Request::Down { graceful: false }, &mut |_, _| {})?;
    client.wait_for_end(lab);
    Ok(())
}

pub(super) fn is_up(lab: &str) -> bool {
    control::running().iter().any(|up| up == lab)
}

fn break_it(lab: &str, it: &Break) -> Result<(), Failure> {
    if let Some(lines) = &it.run {
        let ran = shell::run(lab, lines)?;
        return match ran.code {
            exit::OK => Ok(()),
            code => Err(Failure::new(exit::FAILED, format!("break: exit {code}: {}", ran.last()))),
        };
    }
    inject(lab, it.fault.as_deref().unwrap_or_default())
}

/// Breaks a lab by a fault and its targets: `route-missing node1 node2`.
pub(super) fn inject(lab: &str, fault: &str) -> Result<(), Failure> {
    let mut words = fault.split_whitespace().map(str::to_owned);
    let request =
        Request::Break { fault: words.next().unwrap_or_default(), targets: words.collect(), family: None };
    Client::connect(lab)?.ask(&request, &mut |_, _| {}).map(drop)
}

impl Classroom {
    /// All lessons, with how far they have come.
    ///
    /// # Errors
    /// As [`Classroom::shelf`].
    pub fn list(&self) -> Result<Lessons, Failure> {
        let state = self.progress()?.read()?;
        let own = self.shelf()?.into_iter().filter(|lesson| lesson.lang == self.lang);
        let listed = own.map(|lesson| {
            let record = state.lessons.get(&lesson.id).cloned().unwrap_or_default();
            Listed {
                state: self.standing(&record),
                passed: record.passed,
                id: lesson.id.clone(),
                number: lesson.number,
                title: lesson.title.clone(),
                minutes: lesson.minutes,
            }
        });
        Ok(Lessons {
            schema: "podlab.lessons/1".to_owned(),
            lang: self.lang,
            lessons: listed.collect(),
            current: state.current,
        })
    }

    /// A lesson to read; hints and solution only with `everything`.
    ///
    /// # Errors
    /// Progress cannot be read.
    pub fn show(&self, lesson: &Lesson, everything: bool) -> Result<Shown, Failure> {
        let record = self.record(lesson)?;
        let is_shown = |kind: &Kind| everything || !matches!(kind, Kind::Hints | Kind::Solution);
        let kinds = Kind::ALL.into_iter().map(|(kind, ..)| kind).filter(is_shown);
        Ok(Shown {
            schema: "podlab.lesson/1".to_owned(),
            lang: lesson.lang,
            lab: record.lab.clone(),
            state: self.standing(&record),
            hints: lesson.hints().len(),
            checks: lesson.checks().map(|check| check.title.clone()).collect(),
            blocks: kinds.filter_map(|kind| ShownBlock::of(lesson, kind)).collect(),
            id: lesson.id.clone(),
            number: lesson.number,
            title: lesson.title.clone(),
            minutes: lesson.minutes,
        })
    }

    /// Brings the lesson's own lab up and breaks it as the lesson says; with `look` it stays whole, for the lesson's
    /// commands. A lab that was only looked at is replaced.
    ///
    /// # Errors
    /// Its lab is up already, or what kept it from coming up: then nothing of it is left.
    pub fn start(&self, lesson: &Lesson, look: bool) -> Result<Step, Failure> {
        let record = self.record(lesson)?;
        if is_up(&record.lab) && !matches!(self.standing(&record), State::Look | State::Passed) {
            return Err(Failure::usage(format!(
                "lab {} of lesson {} is up already · try: podlab lesson check {1}, or podlab lesson reset {1}",
                record.lab, lesson.number
            )));
        }
        self.begin("start", lesson, record, look)
    }

    /// As the lesson was right after `start`: a new lab, broken in the same way.
    ///
    /// # Errors
    /// As [`Classroom::start`].
    pub fn reset(&self, lesson: &Lesson) -> Result<Step, Failure> {
        let record = self.record(lesson)?;
        self.begin("reset", lesson, record, false)
    }

    /// Ends the current lesson's lab and starts the lesson after it; the first one when none was started.
    ///
    /// # Errors
    /// It was the last one; as [`Classroom::start`].
    pub fn next(&self, look: bool) -> Result<Step, Failure> {
        let state = self.progress()?.read()?;
        let own: Vec<Lesson> = self.shelf()?.into_iter().filter(|it| it.lang == self.lang).collect();
        let after = match &state.current {
            None => 0,
            Some(id) => own.iter().position(|lesson| lesson.id == *id).map_or(0, |index| index + 1),
        };
        let lesson = own.get(after).ok_or_else(|| {
            Failure::usage("that was the last lesson · try: podlab lesson list, podlab lesson exam")
        })?;
        if let Some(before) = state.current.and_then(|id| state.lessons.get(&id).cloned()) {
            down(&before.lab)?;
        }
        self.begin("next", lesson, self.record(lesson)?, look)
    }

    fn begin(&self, verb: &str, lesson: &Lesson, record: Record, look: bool) -> Result<Step, Failure> {
        let lab = self.lab.clone().unwrap_or(record.lab);
        let topology = lesson.topology(&lab)?;
        down(&lab)?;
        up(&topology)?;
        let broken = if look { Ok(()) } else { lesson.breaks().try_for_each(|it| break_it(&lab, it)) };
        if let Err(failure) = broken {
            down(&lab)?;
            let text = format!("lesson {}: {failure}", lesson.number);
            return Err(Failure::new(failure.code, text));
        }
        let state = if look { State::Look } else { State::Broken };
        let passed = record.passed;
        let record = Record { lab, state, hints: 0, attempts: 0, passed };
        self.progress()?.change(|all| {
            all.current = Some(lesson.id.clone());
            all.lessons.insert(lesson.id.clone(), record.clone());
        })?;
        let (number, lab) = (lesson.number, &record.lab);
        let then = match (look, self.lang) {
            (true, Lang::En) => format!(
                "export PODLAB_NAME={lab}, and try the commands · podlab lesson start {number} breaks it"
            ),
            (true, Lang::Ko) => format!(
                "export PODLAB_NAME={lab} 후 명령을 따라 해 보세요 · 고장 내기: podlab lesson start {number}"
            ),
            (false, Lang::En) => format!(
                "export PODLAB_NAME={lab}; find and repair it · podlab lesson check {number}, podlab lesson hint {number}"
            ),
            (false, Lang::Ko) => format!(
                "export PODLAB_NAME={lab} 후 원인을 찾아 고치세요 · podlab lesson check {number}, podlab lesson hint {number}"
            ),
        };
        Ok(step(verb, lesson, &record, then))
    }

    /// Checks whether the lesson's lab is as it has to be.
    ///
    /// # Errors
    /// Its lab is not up, or nothing is broken in it: then no check is carried out.
    pub fn check(&self, lesson: &Lesson) -> Result<Attempt, Failure> {
        let record = self.started(lesson)?;
        if record.state == State::Look {
            return Err(Failure::new(
                exit::NOTHING,
                format!(
                    "nothing is broken in lab {} · try: podlab lesson start {}",
                    record.lab, lesson.number
                ),
            ));
        }
        let checks: Vec<Checked> =
            lesson.checks().map(|check| checking::check(&record.lab, check, self.lang)).collect();
        let passed = !checks.is_empty() && checks.iter().all(|check| check.passed);
        let attempts = self.progress()?.change(|all| {
            let record = all.lessons.entry(lesson.id.clone()).or_default();
            record.attempts += 1;
            record.state = if passed { State::Passed } else { State::Broken };
            record.passed |= passed;
            record.attempts
        })?;
        Ok(Attempt {
            schema: "podlab.attempt/1".to_owned(),
            id: lesson.id.clone(),
            number: lesson.number,
            title: lesson.title.clone(),
            lab: record.lab,
            passed,
            attempts,
            checks,
        })
    }

    /// The next hint; after the last one that one again.
    ///
    /// # Errors
    /// The lesson was not started.
    pub fn hint(&self, lesson: &Lesson) -> Result<Step, Failure> {
        let record = self.started(lesson)?;
        let hints = lesson.hints();
        let number = (record.hints + 1).min(hints.len());
        self.progress()?.change(|all| {
            all.lessons.entry(lesson.id.clone()).or_default().hints = number;
        })?;
        let text = hints.get(number.saturating_sub(1)).cloned().unwrap_or_default();
        let then = match (number < hints.len(), self.lang) {
            (true, Lang::En) => "podlab lesson hint has another one".to_owned(),
            (true, Lang::Ko) => "힌트 더 보기: podlab lesson hint".to_owned(),
            (false, Lang::En) => "that was the last one · podlab lesson solve repairs it for you".to_owned(),
            (false, Lang::Ko) => "마지막 힌트입니다 · 대신 고치기: podlab lesson solve".to_owned(),
        };
        let hint = Some(Hint { number, of: hints.len(), text });
        Ok(Step { hint, ..step("hint", lesson, &record, then) })
    }

    /// Runs the lesson's solution.
    ///
    /// # Errors
    /// The lesson was not started, or a command of the solution does not do as the lesson says.
    pub fn solve(&self, lesson: &Lesson) -> Result<Step, Failure> {
        let record = self.started(lesson)?;
        let mut ran = Vec::new();
        for commands in lesson.commands(Kind::Solution) {
            if let (_, Some(differs)) = commands.run_in(&record.lab)? {
                let at = format!("{}:{}", lesson.file, commands.line);
                return Err(Failure::new(exit::FAILED, format!("solution at {at}: {differs}")));
            }
            ran.push(commands.run.clone());
        }
        let number = lesson.number;
        let then = match self.lang {
            Lang::En => format!("podlab lesson check {number} · podlab lesson next goes on"),
            Lang::Ko => format!("podlab lesson check {number} · 다음 과: podlab lesson next"),
        };
        Ok(Step { ran, ..step("solve", lesson, &record, then) })
    }

    fn record(&self, lesson: &Lesson) -> Result<Record, Failure> {
        let mut record = self.progress()?.read()?.lessons.remove(&lesson.id).unwrap_or_default();
        if let Some(lab) = &self.lab {
            record.lab.clone_from(lab);
        } else if record.lab.is_empty() {
            record.lab = format!("lesson-{}", lesson.number);
        }
        Ok(record)
    }

    /// The name of a lesson's lab.
    pub(super) fn lab_of(&self, lesson: &Lesson) -> Result<String, Failure> {
        Ok(self.record(lesson)?.lab)
    }

    /// What is remembered of a lesson whose lab is up.
    fn started(&self, lesson: &Lesson) -> Result<Record, Failure> {
        let record = self.record(lesson)?;
        match self.standing(&record) {
            State::New => Err(Failure::usage(format!(
                "lesson {0} is not started · try: podlab lesson start {0}",
                lesson.number
            ))),
            _ => Ok(record),
        }
    }

    /// Without its lab a lesson is not under way.
    fn standing(&self, record: &Record) -> State {
        if is_up(&record.lab) { record.state } else { State::New }
    }
}

fn step(verb: &str, lesson: &Lesson, record: &Record, then: String) -> Step {
    Step {
        schema: "podlab.step/1".to_owned(),
        verb: verb.to_owned(),
        id: lesson.id.clone(),
        number: lesson.number,
        title: lesson.title.clone(),
        lab: record.lab.clone(),
        state: record.state,
        hint: None,
        ran: Vec::new(),
        then,
    }
}

impl Linted {
    /// Looks at lessons.
    pub fn of(sources: &[Source]) -> Linted {
        let (_, problems) = lint(sources);
        Linted { schema: "podlab.lint/1".to_owned(), files: sources.len(), problems }
    }
}
