//! A lesson played from beginning to end, as a class will: its commands in a whole lab, then broken, red, repaired, green, and
//! broken again. So that who writes a lesson knows that it works before anybody sits in front of it.

use super::model::{Kind, Lesson};
use super::told::{Attempt, Rehearsal, Rehearsed};
use super::{Classroom, play};
use crate::exit::Failure;

/// The blocks whose commands are for a whole lab.
const WHOLE: [Kind; 4] = [Kind::Commands, Kind::Observed, Kind::Evidence, Kind::Note];

impl Classroom {
    /// Plays a lesson; its lab is gone afterwards, and progress is as if it had been reset.
    ///
    /// # Errors
    /// Its lab cannot be brought up or broken.
    pub fn rehearse(&self, lesson: &Lesson) -> Result<Rehearsal, Failure> {
        let mut steps = Vec::new();
        let played = self.play(lesson, &mut steps);
        play::down(&self.lab_of(lesson)?)?;
        played?;
        Ok(Rehearsal {
            schema: "podlab.rehearsal/1".to_owned(),
            passed: steps.iter().all(|step| step.passed),
            id: lesson.id.clone(),
            number: lesson.number,
            title: lesson.title.clone(),
            steps,
        })
    }

    fn play(&self, lesson: &Lesson, steps: &mut Vec<Rehearsed>) -> Result<(), Failure> {
        play::down(&self.lab_of(lesson)?)?;
        self.start(lesson, true)?;
        for kind in WHOLE {
            self.commands(lesson, kind, steps)?;
        }
        self.start(lesson, false)?;
        self.commands(lesson, Kind::Break, steps)?;
        let first = self.check(lesson)?;
        steps.push(red("red after start", &first));
        // Twice: it must not mind what a student has repaired before asking for it.
        for step in ["the solution runs", "the solution runs where it has run before"] {
            let failed = self.solve(lesson).err().map(|failure| failure.text);
            let (step, passed) = (step.to_owned(), failed.is_none());
            steps.push(Rehearsed { step, passed, observed: failed.unwrap_or_default() });
        }
        let attempt = self.check(lesson)?;
        let left: Vec<String> = attempt
            .checks
            .iter()
            .filter(|check| !check.passed)
            .map(|check| format!("{}: {}", check.title, check.observed))
            .collect();
        let step = "green after the solution".to_owned();
        steps.push(Rehearsed { step, passed: attempt.passed, observed: left.join(" · ") });
        self.reset(lesson)?;
        let again = self.check(lesson)?;
        let same = |a: &Attempt, b: &Attempt| {
            a.checks.iter().map(|check| check.passed).eq(b.checks.iter().map(|check| check.passed))
        };
        let mut step = red("red after reset, as after start", &again);
        step.passed &= same(&first, &again);
        steps.push(step);
        Ok(())
    }

    fn commands(&self, lesson: &Lesson, kind: Kind, steps: &mut Vec<Rehearsed>) -> Result<(), Failure> {
        let lab = self.lab_of(lesson)?;
        for commands in lesson.commands(kind) {
            let (_, differs) = commands.run_in(&lab)?;
            steps.push(Rehearsed {
                step: format!("{}:{}: {}", lesson.file, commands.line, commands.run.replace('\n', "; ")),
                passed: differs.is_none(),
                observed: differs.unwrap_or_default(),
            });
        }
        Ok(())
    }
}

fn red(step: &str, attempt: &Attempt) -> Rehearsed {
    let good = attempt.checks.iter().filter(|check| check.passed);
    let titles: Vec<&str> = good.map(|check| check.title.as_str()).collect();
    let observed = if titles.is_empty() { String::new() } else { format!("green: {}", titles.join(" · ")) };
    Rehearsed { step: step.to_owned(), passed: !attempt.passed, observed }
}
