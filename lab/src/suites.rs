//! Outcomes of tests as other programs read them: TAP and the XML that JUnit has made common.
//!
//! What is written here is read again in the tests by Perl's TAP::Harness and Python's xml.etree.

use std::fmt::Write;

/// Tests that belong together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Suite {
    /// Their name.
    pub name: String,
    /// The tests.
    pub cases: Vec<Case>,
    /// What was printed meanwhile.
    pub output: String,
}

/// A test.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// Its name.
    pub name: String,
    /// What came of it.
    pub outcome: Outcome,
    /// More of that, in lines.
    pub detail: Vec<String>,
    /// How long it took, where that is known.
    pub seconds: Option<f64>,
}

/// What came of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All is well.
    Passed,
    /// It is not, because of this.
    Failed(String),
    /// Nothing can be said, because of this.
    Error(String),
    /// It was not run, because of this.
    Skipped(String),
    /// It failed, and is known to, because of this.
    Todo(String),
}

/// All suites as one TAP document; the suite's name is part of a test's, where there are several.
pub fn tap(suites: &[Suite]) -> String {
    let cases: usize = suites.iter().map(|suite| suite.cases.len()).sum();
    // Readers of version 14 take 13 too, the other way round not all do.
    let mut text = "TAP version 13\n".to_owned();
    text += &if cases == 0 { "1..0 # SKIP nothing was tested\n".to_owned() } else { format!("1..{cases}\n") };
    let mut number = 0;
    for suite in suites {
        for case in &suite.cases {
            number += 1;
            let name =
                if suites.len() > 1 { format!("{}: {}", suite.name, case.name) } else { case.name.clone() };
            let name = if name.is_empty() { String::new() } else { format!(" - {}", escaped(&name)) };
            let (word, directive, why) = match &case.outcome {
                Outcome::Passed => ("ok", String::new(), None),
                Outcome::Failed(why) => ("not ok", String::new(), Some(("fail", why))),
                Outcome::Error(why) => ("not ok", String::new(), Some(("error", why))),
                Outcome::Skipped(why) => ("ok", format!(" # SKIP {}", escaped(why)), None),
                Outcome::Todo(why) => ("not ok", format!(" # TODO {}", escaped(why)), None),
            };
            text += &format!("{word} {number}{name}{}\n", directive.trim_end());
            if let Some((severity, why)) = why {
                // A text in JSON is one in YAML. More than a text and not all readers follow.
                let message = serde_json::Value::from(plain(why));
                text += &format!("  ---\n  severity: {severity}\n  message: {message}\n  ...\n");
                case.detail.iter().for_each(|line| text += &format!("# {}\n", plain(line)));
            }
        }
    }
    text
}

/// On one line, with what TAP takes for the beginning of a directive escaped.
fn escaped(text: &str) -> String {
    plain(text).replace('\\', "\\\\").replace('#', "\\#")
}

/// On one line, without what a terminal would obey.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// All suites as JUnit's XML. There is no schema of it that all readers share; this is what they have in common.
pub fn junit(suites: &[Suite]) -> String {
    let count =
        |suite: &Suite, is: fn(&Outcome) -> bool| suite.cases.iter().filter(|case| is(&case.outcome)).count();
    let counts = |suites: &[Suite]| {
        let sum = |is: fn(&Outcome) -> bool| suites.iter().map(|suite| count(suite, is)).sum::<usize>();
        format!(
            "tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\"",
            sum(|_| true),
            sum(|it| matches!(it, Outcome::Failed(_))),
            sum(|it| matches!(it, Outcome::Error(_))),
            sum(|it| matches!(it, Outcome::Skipped(_) | Outcome::Todo(_))),
        )
    };
    let mut text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned();
    text += &format!("<testsuites name=\"podlab\" {}>\n", counts(suites));
    for suite in suites {
        let seconds: f64 = suite.cases.iter().filter_map(|case| case.seconds).fold(0.0, |sum, it| sum + it);
        let (name, counts) = (xml(&suite.name), counts(std::slice::from_ref(suite)));
        text += &format!("  <testsuite name=\"{name}\" {counts} time=\"{seconds:.6}\">\n");
        for case in &suite.cases {
            let time = case.seconds.map(|seconds| format!(" time=\"{seconds:.6}\"")).unwrap_or_default();
            text += &format!("    <testcase classname=\"{name}\" name=\"{}\"{time}", xml(&case.name));
            let (tag, why) = match &case.outcome {
                Outcome::Passed => {
                    text += "/>\n";
                    continue;
                }
                Outcome::Failed(why) => ("failure", why.clone()),
                Outcome::Error(why) => ("error", why.clone()),
                Outcome::Skipped(why) => ("skipped", why.clone()),
                Outcome::Todo(why) => ("skipped", format!("TODO {why}")),
            };
            let detail = xml(&case.detail.join("\n"));
            text += &format!(">\n      <{tag} message=\"{}\">{detail}</{tag}>\n    </testcase>\n", xml(&why));
        }
        if !suite.output.is_empty() {
            text += &format!("    <system-out>{}</system-out>\n", xml(&suite.output));
        }
        text += "  </testsuite>\n";
    }
    text + "</testsuites>\n"
}

/// Text for an element or an attribute (XML 1.0, sections 2.2 and 2.4). What XML cannot say becomes U+FFFD.
pub(crate) fn xml(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            '\n' | '\t' | '\r' => {
                // An attribute's line ends become blanks unless they are written so; writing to a String cannot fail.
                let _ = write!(safe, "&#{};", u32::from(c));
            }
            c if c.is_control() && u32::from(c) < 0x20 || matches!(c, '\u{fffe}' | '\u{ffff}') => {
                safe.push('\u{fffd}')
            }
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(name: &str, outcome: Outcome) -> Case {
        Case { name: name.into(), outcome, detail: Vec::new(), seconds: None }
    }

    fn suites() -> Vec<Suite> {
        let failed = Case {
            detail: vec!["- a".into(), "b: \"c\"".into()],
            seconds: Some(0.25),
            ..case("a > b", Outcome::Failed("SNAT & more".into()))
        };
        let first = vec![case("one # of two", Outcome::Passed), failed];
        let second =
            vec![case("", Outcome::Skipped("no netem".into())), case("x", Outcome::Todo("later".into()))];
        vec![
            Suite { name: "first".into(), cases: first, output: String::new() },
            Suite { name: "second".into(), cases: second, output: "a\u{1}<b>\n".into() },
        ]
    }

    #[test]
    fn outcomes_as_tap() {
        assert_eq!(
            tap(&suites()),
            "TAP version 13\n1..4\nok 1 - first: one \\# of two\nnot ok 2 - first: a > b\n  ---\n  severity: fail\n  \
             message: \"SNAT & more\"\n  ...\n# - a\n# b: \"c\"\nok 3 - second:  # SKIP no netem\n\
             not ok 4 - second: x # TODO later\n"
        );
        assert_eq!(tap(&[]), "TAP version 13\n1..0 # SKIP nothing was tested\n");
    }

    #[test]
    fn outcomes_as_junit() {
        assert_eq!(
            junit(&suites()),
            r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="podlab" tests="4" failures="1" errors="0" skipped="2">
  <testsuite name="first" tests="2" failures="1" errors="0" skipped="0" time="0.250000">
    <testcase classname="first" name="one # of two"/>
    <testcase classname="first" name="a &gt; b" time="0.250000">
      <failure message="SNAT &amp; more">- a&#10;b: &quot;c&quot;</failure>
    </testcase>
  </testsuite>
  <testsuite name="second" tests="2" failures="0" errors="0" skipped="2" time="0.000000">
    <testcase classname="second" name="">
      <skipped message="no netem"></skipped>
    </testcase>
    <testcase classname="second" name="x">
      <skipped message="TODO later"></skipped>
    </testcase>
    <system-out>a�&lt;b&gt;&#10;</system-out>
  </testsuite>
</testsuites>
"#
        );
    }
}
