//! What a person sees: tables on standard output, progress on standard error. Programs ask for JSON.
//!
//! Meaning never hangs on colour or on a character that a terminal may lack.

use std::io::{IsTerminal, Write};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::exit::{self, Failure};

/// How the result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Table,
    /// For programs; the document names its schema.
    Json,
}

/// What `-o` can be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs; the document names its schema.
    Json,
    /// Outcomes of tests in the Test Anything Protocol; of verify and run.
    Tap,
    /// Outcomes of tests in JUnit's XML; of verify and run.
    Junit,
}

/// How outcomes of tests are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tests {
    /// In the Test Anything Protocol.
    Tap,
    /// In JUnit's XML.
    Junit,
}

impl Output {
    /// The format of what is no outcome of a test, and that of outcomes if they are asked for.
    pub fn split(self) -> (Format, Option<Tests>) {
        match self {
            Self::Table => (Format::Table, None),
            Self::Json => (Format::Json, None),
            Self::Tap => (Format::Table, Some(Tests::Tap)),
            Self::Junit => (Format::Table, Some(Tests::Junit)),
        }
    }
}

/// When colours are used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Color {
    /// Whether standard output gets colours.
    pub fn wanted(self) -> bool {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => !set("NO_COLOR") && (set("CLICOLOR_FORCE") || std::io::stdout().is_terminal()),
        }
    }
}

/// Progress lines on standard error.
#[derive(Debug, Clone, Copy)]
pub struct Steps {
    quiet: bool,
    mark: &'static str,
}

/// Whether the locale (LC_ALL, LC_CTYPE, LANG) is UTF-8.
pub fn is_utf8() -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
        .unwrap_or_default()
        .to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

impl Steps {
    /// Lines with a tick, or with `ok` where the locale is not UTF-8; none when `quiet`.
    pub fn new(quiet: bool) -> Self {
        Self { quiet, mark: if is_utf8() { "✓" } else { "ok" } }
    }

    /// One step is done.
    pub fn done(self, text: &str, ms: u64) {
        if !self.quiet {
            // Progress that nobody sees is no failure.
            let _ = writeln!(std::io::stderr(), "{} {text:<56} {ms:>6} ms", self.mark);
        }
    }
}

/// One line on standard error, for people; that nobody reads it is no failure.
pub fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A table: columns as wide as their widest cell, two blanks between, no lines drawn.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let mut text = line(&mut head.iter().copied());
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

/// Prints a result on standard output.
///
/// # Errors
/// Nobody takes it.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|err| Failure::new(exit::FAILED, format!("standard output: {err}")))
}

/// An answer as a document.
///
/// # Errors
/// It cannot be one, which is a defect.
pub fn document(answer: &impl Serialize) -> Result<Value, Failure> {
    serde_json::to_value(answer).map_err(|err| Failure::new(exit::BUG, format!("answer as JSON: {err}")))
}

/// Prints a document as indented JSON.
///
/// # Errors
/// Nobody takes it.
pub fn print_json(value: &Value) -> Result<(), Failure> {
    print(&format!("{value:#}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_no_more_blanks_than_it_needs() {
        let rows =
            [vec!["kubia-1".to_owned(), "10.244.1.2".to_owned()], vec!["k".to_owned(), "✓".to_owned()]];
        assert_eq!(table(&["POD", "ADDRESS"], &rows), "POD      ADDRESS\nkubia-1  10.244.1.2\nk        ✓\n");
        assert_eq!(table(&["POD"], &[]), "POD\n");
    }

    #[test]
    fn colour_can_be_forced_either_way() {
        assert!(Color::Always.wanted());
        assert!(!Color::Never.wanted());
    }
}
