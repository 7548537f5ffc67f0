//! `podlab lesson exam`.

use super::Style;
use super::lesson::{ExamArgs, told};
use crate::exit::{self, Failure};
use crate::lessons::Classroom;
use crate::lessons::exam::{self, ExamResult, Mark};
use crate::output;

pub(super) fn exam(room: &Classroom, args: ExamArgs, style: Style) -> Result<u8, Failure> {
    if !args.read.is_empty() {
        let marks = exam::read(&args.read)?;
        told(&marks, style, |marks| {
            let rows: Vec<Vec<String>> = marks.results.iter().map(row).collect();
            output::table(
                &["FILE", "SIGNATURE", "STUDENT", "SEED", "FAULTS", "RESULT", "SECONDS", "CHECKS"],
                &rows,
            )
        })?;
        let is_good = marks.results.iter().all(|mark| mark.genuine);
        return Ok(if is_good { exit::OK } else { exit::FAILED });
    }
    if args.check {
        let result = room.mark()?;
        if let Some(path) = &args.write {
            let text = serde_json::to_string_pretty(&result)
                .map_err(|err| Failure::new(exit::BUG, format!("result as JSON: {err}")))?;
            std::fs::write(path, text + "\n")
                .map_err(|err| Failure::new(exit::FAILED, format!("{}: {err}", path.display())))?;
        }
        told(&result, style, text)?;
        return Ok(if result.passed { exit::OK } else { exit::FAILED });
    }
    let paper = room.sit(args.seed, args.faults as usize, &args.student)?;
    told(&paper, style, |paper| {
        let symptoms: String = paper.symptoms.iter().map(|it| format!("- {it}\n")).collect();
        format!(
            "exam {} · lab {} · faults: {}\n{symptoms}{}\n",
            paper.seed, paper.lab, paper.faults, paper.then
        )
    })
}

fn text(result: &ExamResult) -> String {
    let mut text = format!("{}  {}\n", word(result), result.verification);
    result.forbidden.iter().for_each(|it| text += &format!("forbidden: {it}\n"));
    if result.passed {
        text += &format!("it was: {}\n", result.were.join(", "));
    }
    text
}

fn word(result: &ExamResult) -> &'static str {
    if result.passed { "PASS" } else { "FAIL" }
}

fn row(mark: &Mark) -> Vec<String> {
    let signature = if mark.genuine { "good" } else { "BAD" };
    let mut cells = vec![mark.file.clone(), signature.to_owned()];
    match &mark.result {
        None => cells.extend(["-"; 6].map(str::to_owned)),
        Some(result) => cells.extend([
            if result.student.is_empty() { "-".to_owned() } else { result.student.clone() },
            result.seed.to_string(),
            result.faults.to_string(),
            word(result).to_owned(),
            result.seconds.to_string(),
            result.attempts.to_string(),
        ]),
    }
    cells
}
