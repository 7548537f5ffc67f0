//! JSON as Go's encoding/json reads and writes it, because every CNI runtime and plugin of note is in Go:
//! keys of structs match without regard to case, later duplicates win, `null` leaves the default, numbers
//! for integers must be written as integers, and `<`, `>`, `&` are escaped in output.
//!
//! [`Json`] keeps order, duplicates and the spelling of keys and numbers; [`from_slice`] and [`from_json`]
//! map it to types that derive serde's `Deserialize`. `#[serde(flatten)]` is not supported: it asks for a
//! map, and the keys of maps stay as written.

mod de;
mod parse;
#[cfg(test)]
mod tests;
mod write;

use std::fmt;

use serde::de::DeserializeOwned;

/// Arrays and objects may stand in each other this deep. Go allows 10 000; no configuration needs 500, and
/// this fits every thread's stack.
pub const MAX_DEPTH: usize = 500;

/// A JSON document as written.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, as written.
    Number(String),
    /// A string, its escapes resolved.
    String(String),
    /// An array.
    Array(Vec<Json>),
    /// An object: keys in the order written, duplicates kept.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Reads one document; white space may stand around it, nothing else.
    ///
    /// # Errors
    /// What is not JSON (RFC 8259), not UTF-8, or deeper than [`MAX_DEPTH`].
    pub fn parse(bytes: &[u8]) -> Result<Json, Error> {
        parse::document(bytes)
    }

    /// The last value under exactly this key, if this is an object that has it.
    pub fn get(&self, key: &str) -> Option<&Json> {
        match self {
            Json::Object(entries) => {
                entries.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value)
            }
            _ => None,
        }
    }

    /// The text, if this is a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Json::String(text) => Some(text),
            _ => None,
        }
    }

    /// The document with 4-space indent and no newline at the end.
    pub fn to_pretty(&self) -> String {
        write::pretty(self)
    }

    /// The document on one line without white space.
    pub fn to_compact(&self) -> String {
        write::compact(self)
    }

    /// What stands here, for error texts: `number 5`, `an object`.
    pub(crate) fn describe(&self) -> String {
        match self {
            Json::Null => "null".to_owned(),
            Json::Bool(value) => format!("{value}"),
            Json::Number(text) => format!("number {}", shorten(text)),
            Json::String(text) => format!("string {:?}", shorten(text)),
            Json::Array(_) => "an array".to_owned(),
            Json::Object(_) => "an object".to_owned(),
        }
    }
}

/// The first 40 characters, for error texts.
fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(40).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Json::String(text.to_owned())
    }
}

/// Why a document does not parse or does not fit a type. The text names the place: line and column, or the
/// key (`ipam.ranges[0][1].subnet`), what was expected there and what stood there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{msg}", key.as_ref().map(|key| format!("key {key:?}: ")).unwrap_or_default())]
pub struct Error {
    key: Option<String>,
    msg: String,
}

impl Error {
    fn new(msg: impl fmt::Display) -> Self {
        Self { key: None, msg: msg.to_string() }
    }

    /// The key at which the type did not fit, in the spelling of the type.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// The same error, seen from the object or array around it.
    fn under(mut self, outer: &str) -> Self {
        self.key = Some(match self.key {
            None => outer.to_owned(),
            Some(inner) if inner.starts_with('[') => format!("{outer}{inner}"),
            Some(inner) => format!("{outer}.{inner}"),
        });
        self
    }
}

/// Reads a document into `T`, as Go's `json.Unmarshal` does into a struct. Give `T` `#[serde(default)]` and
/// its fields their camelCase names.
///
/// # Errors
/// What [`Json::parse`] refuses, and what does not fit `T`.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    from_json(&Json::parse(bytes)?)
}

/// As [`from_slice`], from a document that is already parsed.
///
/// # Errors
/// What does not fit `T`.
pub fn from_json<T: DeserializeOwned>(json: &Json) -> Result<T, Error> {
    T::deserialize(de::Values::one(json))
}

/// The value of an object's field as Go finds it: any spelling, the last one counts, `null` is none.
pub(crate) fn field<'j>(json: &'j Json, name: &'static str) -> Option<&'j Json> {
    de::last_field(json, name)
}
