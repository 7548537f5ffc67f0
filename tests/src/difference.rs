//! The committed list of intended differences between the reference plugins and ours, and its use: each difference seen
//! must be on the list, and each line of the list must have been seen. It does not judge whether a reason is good.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::facts::Change;

/// One line of the list. Every field but `reason` is a pattern in which `*` stands for any text.
#[derive(Debug)]
pub struct Intended {
    config: String,
    version: String,
    step: String,
    path: String,
    debian: String,
    podnet: String,
    reason: String,
    seen: AtomicUsize,
}

/// The list.
#[derive(Debug)]
pub struct Differences(Vec<Intended>);

/// Where in the matrix a difference was seen.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The configuration's name.
    pub config: &'a str,
    /// The `cniVersion` asked for.
    pub version: &'a str,
    /// Verb and pod, such as `ADD pod0`.
    pub step: &'a str,
}

impl Differences {
    /// Reads the list: a JSON array of objects with the fields of [`Intended`]; a pattern that is missing is `*`.
    ///
    /// # Errors
    /// The file cannot be read, a key is unknown, or a reason is missing.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self> {
        let lines: Vec<serde_json::Map<String, Value>> =
            serde_json::from_str(text).context("decode the list of differences")?;
        let mut list = Vec::new();
        for line in lines {
            let known = ["config", "version", "step", "path", "debian", "podnet", "reason"];
            for key in line.keys() {
                ensure!(known.contains(&key.as_str()), "unknown key {key:?} in the list of differences");
            }
            let field = |key: &str| match line.get(key) {
                None => Ok("*".to_owned()),
                Some(Value::String(text)) => Ok(text.clone()),
                Some(other) => Err(anyhow::anyhow!("{key} is not a text but {other}")),
            };
            let reason =
                line.get("reason").and_then(Value::as_str).context("a difference without a reason")?;
            list.push(Intended {
                config: field("config")?,
                version: field("version")?,
                step: field("step")?,
                path: field("path")?,
                debian: field("debian")?,
                podnet: field("podnet")?,
                reason: reason.to_owned(),
                seen: AtomicUsize::new(0),
            });
        }
        Ok(Differences(list))
    }

    /// Whether the list has this difference; marks the lines that do.
    pub fn covers(&self, place: Place<'_>, change: &Change) -> bool {
        let mut covered = false;
        for line in &self.0 {
            if matches(&line.config, place.config)
                && matches(&line.version, place.version)
                && matches(&line.step, place.step)
                && matches(&line.path, &change.path)
                && matches(&line.debian, &change.left)
                && matches(&line.podnet, &change.right)
            {
                line.seen.fetch_add(1, Ordering::Relaxed);
                covered = true;
            }
        }
        covered
    }

    /// The lines that matched nothing.
    pub fn unseen(&self) -> Vec<String> {
        let unseen = self.0.iter().filter(|line| line.seen.load(Ordering::Relaxed) == 0);
        unseen.map(|l| format!("{} {} {} {} ({})", l.config, l.version, l.step, l.path, l.reason)).collect()
    }

    /// Each reason with the number of differences it stands for.
    pub fn summary(&self) -> Vec<(usize, &str)> {
        self.0.iter().map(|line| (line.seen.load(Ordering::Relaxed), line.reason.as_str())).collect()
    }
}

/// Whether a text matches a pattern in which each `*` stands for any text, also none.
pub fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(text) = text.strip_prefix(head) else { return false };
    let ends = (0..=text.len()).filter(|&i| text.is_char_boundary(i));
    ends.into_iter().any(|i| matches(rest, &text[i..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "abcd", false),
            ("*/x/*", "a/x/b", true),
            ("ab", "abc", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_listed_difference_is_covered_and_counted() -> Result<()> {
        let list = Differences::parse(
            r#"[{"version":"1.*","path":"result/dns","reason":"r"},{"path":"z","reason":"s"}]"#,
        )?;
        let change = Change { path: "result/dns".into(), left: "{}".into(), right: "absent".into() };
        let place = Place { config: "c", version: "1.0.0", step: "ADD pod0" };
        assert!(list.covers(place, &change));
        assert!(!list.covers(Place { version: "0.4.0", ..place }, &change));
        assert_eq!(list.unseen(), ["* * * z (s)"]);
        assert_eq!(list.summary(), [(1, "r"), (0, "s")]);
        Ok(())
    }

    #[test]
    fn a_list_with_an_unknown_key_or_no_reason_is_refused() {
        assert!(Differences::parse(r#"[{"pth":"x","reason":"r"}]"#).is_err());
        assert!(Differences::parse(r#"[{"path":"x"}]"#).is_err());
    }
}
