//! The Test Anything Protocol, version 14 and those before it, as a script prints it: read line by line, judged at the end.
//!
//! <https://testanything.org/tap-version-14-specification.html>. What is indented belongs to a subtest or to a diagnostic,
//! and both are told in the test point that they belong to; a bail-out counts wherever it stands.

use serde::Serialize;

/// A test that a script has told of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Point {
    /// Its number, from 1 on.
    pub number: u64,
    /// Whether it begins with `ok`.
    pub ok: bool,
    /// What it says of itself.
    pub description: String,
    /// SKIP or TODO.
    pub directive: Option<Directive>,
    /// The diagnostics after it, lines without their end.
    pub diagnostics: Vec<String>,
}

/// Why a test counts otherwise than by its first word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", content = "reason", rename_all = "lowercase")]
pub enum Directive {
    /// It was not run, because of this.
    Skip(String),
    /// It is known to fail, because of this.
    Todo(String),
}

impl Point {
    /// A test that is known to fail has not failed.
    pub fn has_failed(&self) -> bool {
        !self.ok && !matches!(self.directive, Some(Directive::Todo(_)))
    }
}

/// What a script has told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Told {
    /// The tests, in their order.
    pub points: Vec<Point>,
    /// Why nothing was run, where the plan says so.
    pub skipped: Option<String>,
    /// Why the script gave up.
    pub bail_out: Option<String>,
    /// What is wrong with the document: no plan, another number of tests than planned, tests out of order.
    pub problems: Vec<String>,
}

impl Told {
    /// Whether all is well.
    pub fn is_well(&self) -> bool {
        self.bail_out.is_none() && self.problems.is_empty() && !self.points.iter().any(Point::has_failed)
    }
}

/// A document that is being read.
#[derive(Debug, Default)]
pub struct Reader {
    told: Told,
    has_version: bool,
    plan: Option<u64>,
    /// The plan stood before this many tests.
    plan_at: usize,
}

impl Reader {
    /// Reads a line, without its end.
    pub fn line(&mut self, line: &str) {
        let line = line.trim_end();
        let bare = line.trim_start();
        if bare.get(..9).is_some_and(|word| word.eq_ignore_ascii_case("Bail out!")) {
            self.told.bail_out.get_or_insert_with(|| bare[9..].trim().to_owned());
        } else if bare.len() < line.len() {
            if let Some(point) = self.told.points.last_mut() {
                point.diagnostics.push(line.to_owned());
            }
        } else if line.starts_with("TAP version ") {
            self.has_version = true;
        } else if let Some((plan, reason)) = plan(line) {
            if self.plan.replace(plan).is_some() {
                self.told.problems.push("there are two plans".to_owned());
            }
            self.plan_at = self.told.points.len();
            self.told.skipped = reason.filter(|_| plan == 0);
        } else if let Some(point) = point(line, self.told.points.len() as u64 + 1) {
            let expected = self.told.points.len() as u64 + 1;
            if point.number != expected {
                let problem = format!("test {} where test {expected} belongs", point.number);
                self.told.problems.push(problem);
            }
            self.told.points.push(point);
        } else if let Some(comment) = line.strip_prefix('#')
            && let Some(point) = self.told.points.last_mut()
        {
            point.diagnostics.push(format!("#{comment}"));
        }
    }

    /// What was told; none when it was no TAP: neither a version nor a plan.
    pub fn finish(self) -> Option<Told> {
        let mut told = self.told;
        if !self.has_version && self.plan.is_none() {
            return None;
        }
        let ran = told.points.len() as u64;
        match self.plan {
            _ if told.bail_out.is_some() => {}
            None => told.problems.push("there is no plan: the script ended early?".to_owned()),
            Some(planned) if planned != ran => {
                told.problems.push(format!("{planned} tests planned, {ran} run"))
            }
            Some(_) if self.plan_at != 0 && self.plan_at != told.points.len() => {
                told.problems.push("the plan stands between tests".to_owned());
            }
            Some(_) => {}
        }
        Some(told)
    }
}

/// `1..N`, and what stands behind `#` (without SKIP).
fn plan(line: &str) -> Option<(u64, Option<String>)> {
    let (plan, comment) = line.split_once('#').map_or((line, None), |(plan, comment)| (plan, Some(comment)));
    let planned = plan.trim_end().strip_prefix("1..")?.parse().ok()?;
    let reason = comment.map(|comment| match directive(comment) {
        Some(Directive::Skip(reason)) => reason,
        _ => comment.trim().to_owned(),
    });
    Some((planned, reason.or_else(|| (planned == 0).then(String::new))))
}

fn point(line: &str, next: u64) -> Option<Point> {
    let (ok, rest) = match line.strip_prefix("not ok") {
        Some(rest) => (false, rest),
        None => (true, line.strip_prefix("ok")?),
    };
    if rest.starts_with(|c: char| c.is_alphanumeric() || c == '_') {
        return None;
    }
    let rest = rest.trim_start();
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let number = rest[..digits].parse().ok();
    let rest = if number.is_some() { rest[digits..].trim_start() } else { rest };
    let (description, comment) = split_comment(rest.strip_prefix("- ").unwrap_or(rest));
    let directive = comment.and_then(directive);
    let description = match (&directive, comment) {
        (None, Some(comment)) => format!("{description}#{comment}"),
        _ => description.to_owned(),
    };
    let description = unescaped(description.trim().trim_start_matches("- "));
    Some(Point { number: number.unwrap_or(next), ok, description, directive, diagnostics: Vec::new() })
}

/// Splits at the first `#` that no backslash stands before.
fn split_comment(text: &str) -> (&str, Option<&str>) {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            '#' if !escaped => return (&text[..at], Some(&text[at + 1..])),
            _ => escaped = c == '\\' && !escaped,
        }
    }
    (text, None)
}

/// `SKIP` or `TODO`, in whatever case, and the reason.
fn directive(comment: &str) -> Option<Directive> {
    let comment = comment.trim();
    let word = comment.get(..4)?.to_ascii_uppercase();
    // Perl's own harness takes SKIP and SKIPPED alike.
    let rest = comment[4..].trim_start_matches(|c: char| c.is_ascii_alphabetic()).trim_start_matches(':');
    match word.as_str() {
        "SKIP" => Some(Directive::Skip(unescaped(rest.trim()))),
        "TODO" => Some(Directive::Todo(unescaped(rest.trim()))),
        _ => None,
    }
}

fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match rest.peek() {
            Some(next @ ('#' | '\\')) if c == '\\' => {
                plain.push(*next);
                rest.next();
            }
            _ => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Told> {
        let mut reader = Reader::default();
        text.lines().for_each(|line| reader.line(line));
        reader.finish()
    }

    /// One word for each test: `ok`, `FAIL`, `skip`, `todo`.
    fn words(told: &Told) -> Vec<&str> {
        let word = |point: &Point| match (point.has_failed(), &point.directive) {
            (true, _) => "FAIL",
            (false, Some(Directive::Skip(_))) => "skip",
            (false, Some(Directive::Todo(_))) => "todo",
            (false, None) => "ok",
        };
        told.points.iter().map(word).collect()
    }

    #[test]
    fn every_kind_of_test_is_told_apart() {
        let told = read(
            "TAP version 14\n1..7\nok 1 - route is there\nnot ok 2 - ping\n  ---\n  got: 1\n  ...\n# seen nothing\n\
             ok 3 # SKIP no netem\nnot ok 4 - later # TODO not written\nok\nnot ok 6 fails # skipped: why\n\
             ok 7 - a \\# b \\\\ c # comment\nnoise\nokay then\n",
        )
        .unwrap();
        assert_eq!(words(&told), ["ok", "FAIL", "skip", "todo", "ok", "FAIL", "ok"]);
        assert_eq!(told.points[0].description, "route is there");
        assert_eq!(told.points[1].diagnostics, ["  ---", "  got: 1", "  ...", "# seen nothing"]);
        assert_eq!(told.points[2].directive, Some(Directive::Skip("no netem".into())));
        assert_eq!(told.points[3].directive, Some(Directive::Todo("not written".into())));
        assert_eq!(told.points[5].directive, Some(Directive::Skip("why".into())));
        assert_eq!(told.points[6].description, "a # b \\ c # comment");
        assert!(told.problems.is_empty() && !told.is_well(), "{told:?}");
    }

    #[test]
    fn a_document_that_is_not_whole_is_not_well() {
        for (text, problem) in [
            ("1..3\nok 1\nok 2\n", "3 tests planned, 2 run"),
            ("1..1\nok 1\nok 2\n", "1 tests planned, 2 run"),
            ("TAP version 13\nok 1\n", "there is no plan: the script ended early?"),
            ("1..2\nok 1\nok 3\n", "test 3 where test 2 belongs"),
            ("1..2\nok 1\nok 1\n", "test 1 where test 2 belongs"),
            ("1..1\nok 1\n1..1\n", "there are two plans"),
            ("ok 1\n1..2\nok 2\n", "the plan stands between tests"),
        ] {
            let told = read(text).unwrap();
            assert_eq!(told.problems, [problem], "{text}");
            assert!(!told.is_well(), "{text}");
        }
        for text in [
            "1..2\nok 1\nok 2\n",
            "ok 1\nok 2\n1..2\n",
            "1..1\n    not ok 1 - inner\n    1..1\nok 1 - outer\n",
        ] {
            assert!(read(text).unwrap().is_well(), "{text}");
        }
    }

    #[test]
    fn giving_up_counts_and_skipping_all_does_not() {
        let told = read("1..5\nok 1\nBail out! no such device\n").unwrap();
        assert_eq!((told.bail_out.as_deref(), told.is_well()), (Some("no such device"), false));
        assert!(told.problems.is_empty(), "{:?}", told.problems);
        assert_eq!(read("1..1\n    Bail out!\n").unwrap().bail_out.as_deref(), Some(""));
        let told = read("1..0 # SKIP no root\n").unwrap();
        assert_eq!((told.skipped.as_deref(), told.is_well()), (Some("no root"), true));
    }

    #[test]
    fn other_output_is_no_tap() {
        for text in ["", "hello\n", "ok 1\n", "not ok\n", "# 1..3\n"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
