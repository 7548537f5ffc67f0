//! Labels and the selectors that choose objects by them, as Kubernetes has them: equality and sets.
//!
//! Names are checked only as far as a selector's own syntax needs it.

use std::collections::BTreeMap;
use std::fmt;

/// Key and value pairs of an object.
pub type Labels = BTreeMap<String, String>;

/// Whether `labels` has all pairs of `wanted`; an empty `wanted` chooses nothing, as in a Service.
pub fn chooses(wanted: &Labels, labels: &Labels) -> bool {
    !wanted.is_empty() && wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// `a=b,c=d`; `<none>` when empty.
pub fn joined(labels: &Labels) -> String {
    let pairs: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") }
}

/// Reads `a=b,c=d`.
///
/// # Errors
/// What is no pair.
pub fn parse(text: &str) -> Result<Labels, String> {
    let pair = |part: &str| {
        let (key, value) = part.split_once('=').ok_or_else(|| format!("{part:?} is not KEY=VALUE"))?;
        Ok((word(key)?, value.trim().to_owned()))
    };
    text.split(',').filter(|part| !part.trim().is_empty()).map(pair).collect()
}

/// One condition of a selector.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    /// `key in (a, b)`, `key = a`.
    In(String, Vec<String>),
    /// `key notin (a, b)`, `key != a`; an object without the key fits.
    NotIn(String, Vec<String>),
    /// `key`.
    Exists(String),
    /// `!key`.
    Absent(String),
}

/// Conditions that must all hold; without any, everything fits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector(Vec<Requirement>);

impl Selector {
    /// Whether an object with these labels fits.
    pub fn fits(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Requirement::NotIn(key, values) => !labels.get(key).is_some_and(|value| values.contains(value)),
            Requirement::Exists(key) => labels.contains_key(key),
            Requirement::Absent(key) => !labels.contains_key(key),
        })
    }
}

impl std::str::FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parts(text).into_iter().map(requirement).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.0.iter().map(|requirement| match requirement {
            Requirement::In(key, values) => format!("{key} in ({})", values.join(",")),
            Requirement::NotIn(key, values) => format!("{key} notin ({})", values.join(",")),
            Requirement::Exists(key) => key.clone(),
            Requirement::Absent(key) => format!("!{key}"),
        });
        f.write_str(&all.collect::<Vec<_>>().join(","))
    }
}

/// The parts between the commas that are not in parentheses.
fn parts(text: &str) -> Vec<&str> {
    let (mut all, mut start, mut depth) = (Vec::new(), 0, 0_i32);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                all.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    all.push(&text[start..]);
    all.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect()
}

fn requirement(part: &str) -> Result<Requirement, String> {
    if let Some((key, list)) = part.split_once('(') {
        let list = list.strip_suffix(')').ok_or_else(|| format!("{part:?} has no closing parenthesis"))?;
        let values = list.split(',').map(|value| value.trim().to_owned()).collect();
        let words: Vec<&str> = key.split_whitespace().collect();
        return match words.as_slice() {
            [key, "in"] => Ok(Requirement::In(word(key)?, values)),
            [key, "notin"] => Ok(Requirement::NotIn(word(key)?, values)),
            _ => Err(format!("{part:?} is neither KEY in (…) nor KEY notin (…)")),
        };
    }
    if let Some((key, value)) = part.split_once("!=") {
        return Ok(Requirement::NotIn(word(key)?, vec![value.trim().to_owned()]));
    }
    if let Some((key, value)) = part.split_once('=') {
        let value = value.strip_prefix('=').unwrap_or(value).trim();
        return Ok(Requirement::In(word(key)?, vec![value.to_owned()]));
    }
    match part.strip_prefix('!') {
        Some(key) => Ok(Requirement::Absent(word(key)?)),
        None => Ok(Requirement::Exists(word(part)?)),
    }
}

fn word(key: &str) -> Result<String, String> {
    let key = key.trim();
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    match !key.is_empty() && key.chars().all(fine) {
        true => Ok(key.to_owned()),
        false => Err(format!("{key:?} is not a label's key")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(selector: &str, labels: &str) -> bool {
        selector.parse::<Selector>().unwrap().fits(&parse(labels).unwrap())
    }

    #[test]
    fn selectors_by_equality_and_by_set() {
        for (selector, labels, expected) in [
            ("", "", true),
            ("run=kubia", "run=kubia,tier=web", true),
            ("run==kubia", "run=kubia", true),
            ("run=kubia,tier=db", "run=kubia,tier=web", false),
            ("run!=kubia", "run=kubia", false),
            ("run!=kubia", "", true),
            ("run in (kubia, other)", "run=other", true),
            ("run in (kubia,other),tier", "run=other", false),
            ("tier notin (db)", "tier=db", false),
            ("tier notin (db)", "run=kubia", true),
            ("!tier", "run=kubia", true),
            ("!run", "run=kubia", false),
        ] {
            assert_eq!(fits(selector, labels), expected, "{selector:?} on {labels:?}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for text in ["run in (a", "run within (a)", "=a", "a b"] {
            assert!(text.parse::<Selector>().is_err(), "{text}");
        }
        assert!(parse("run").is_err());
    }

    #[test]
    fn an_empty_selector_of_an_object_chooses_nothing() {
        let labels = parse("run=kubia").unwrap();
        assert!(!chooses(&Labels::new(), &labels));
        assert!(chooses(&labels, &parse("run=kubia,a=b").unwrap()));
        assert!(!chooses(&labels, &parse("run=other").unwrap()));
        assert_eq!((joined(&labels), joined(&Labels::new())), ("run=kubia".into(), "<none>".into()));
    }
}
