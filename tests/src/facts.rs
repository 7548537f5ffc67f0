//! A picture of a world as a flat table, `path → value`, so that two pictures can be compared line by line and a
//! difference can be named in a list. It does not read anything itself.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

/// `path → value`; paths are `/`-separated, a `/` inside a name is written `_`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts(BTreeMap<String, String>);

/// One line that two pictures do not share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The path.
    pub path: String,
    /// The first picture's value, `absent` if it has none.
    pub left: String,
    /// The second picture's value, `absent` if it has none.
    pub right: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} → {}", self.path, self.left, self.right)
    }
}

/// What stands for a path that a picture does not have.
pub const ABSENT: &str = "absent";

impl Facts {
    /// An empty picture.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one line.
    pub fn put(&mut self, path: impl Into<String>, value: impl Into<String>) {
        self.0.insert(path.into(), value.into());
    }

    /// The value of one path.
    pub fn get(&self, path: &str) -> Option<&str> {
        self.0.get(path).map(String::as_str)
    }

    /// All lines, by path.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// Adds every line of `other` under `prefix`.
    pub fn absorb(&mut self, prefix: &str, other: Facts) {
        for (path, value) in other.0 {
            self.0.insert(format!("{prefix}/{path}"), value);
        }
    }

    /// The lines whose path `keep` wants.
    #[must_use]
    pub fn filtered(&self, keep: impl Fn(&str) -> bool) -> Facts {
        Facts(self.0.iter().filter(|(k, _)| keep(k)).map(|(k, v)| (k.clone(), v.clone())).collect())
    }

    /// Adds a JSON value, one line per leaf; empty arrays and objects are leaves (`[]`, `{}`).
    pub fn put_json(&mut self, path: &str, value: &Value) {
        match value {
            Value::Object(map) if !map.is_empty() => {
                for (key, inner) in map {
                    self.put_json(&format!("{path}/{}", segment(key)), inner);
                }
            }
            Value::Array(list) if !list.is_empty() => {
                for (i, inner) in list.iter().enumerate() {
                    self.put_json(&format!("{path}/{i}"), inner);
                }
            }
            Value::String(text) => self.put(path, text.clone()),
            other => self.put(path, other.to_string()),
        }
    }

    /// The lines in which `self` (left) and `other` (right) differ.
    pub fn changes(&self, other: &Facts) -> Vec<Change> {
        let mut changes = Vec::new();
        for (path, left) in &self.0 {
            let right = other.0.get(path).map_or(ABSENT, String::as_str);
            if left != right {
                changes.push(Change { path: path.clone(), left: left.clone(), right: right.into() });
            }
        }
        for (path, right) in &other.0 {
            if !self.0.contains_key(path) {
                changes.push(Change { path: path.clone(), left: ABSENT.into(), right: right.clone() });
            }
        }
        changes.sort_by(|a, b| a.path.cmp(&b.path));
        changes
    }
}

/// A name as one segment of a path.
pub fn segment(name: &str) -> String {
    name.replace('/', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_becomes_one_line_per_leaf() {
        let mut facts = Facts::new();
        facts.put_json("r", &serde_json::json!({"a": [1, {"b/c": null}], "d": {}, "e": "x"}));
        let lines: Vec<_> = facts.iter().collect();
        assert_eq!(lines, [("r/a/0", "1"), ("r/a/1/b_c", "null"), ("r/d", "{}"), ("r/e", "x")]);
    }

    #[test]
    fn changes_name_what_is_missing_on_either_side() {
        let (mut left, mut right) = (Facts::new(), Facts::new());
        left.put("a", "1");
        left.put("b", "1");
        right.put("b", "2");
        right.put("c", "3");
        let seen: Vec<_> = left.changes(&right).iter().map(ToString::to_string).collect();
        assert_eq!(seen, ["a: 1 → absent", "b: 1 → 2", "c: absent → 3"]);
    }
}
