//! serde's Deserializer over [`Json`] with the rules of Go's encoding/json.
//!
//! One field may have several values, because its key stands in the object more than once or in several
//! spellings. As in Go each of them must fit the type; the last one counts, but objects are merged, and a
//! `null` empties what can be empty (options, lists, maps) and leaves the rest as it is.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};

use super::{Error, Json};

impl de::Error for Error {
    fn custom<T: fmt::Display>(msg: T) -> Self {
        Error::new(msg)
    }

    fn missing_field(field: &'static str) -> Self {
        Error::new("missing").under(field)
    }
}

/// All values of one field, in the order written; at least one.
#[derive(Clone)]
pub(super) struct Values<'j>(Vec<&'j Json>);

impl<'j> Values<'j> {
    /// The one value of a document, an array's element or a map's entry.
    pub(super) fn one(json: &'j Json) -> Self {
        Self(vec![json])
    }

    fn last(&self) -> &'j Json {
        self.0.last().copied().unwrap_or(&Json::Null)
    }

    /// The values behind the last `null`.
    fn behind_null(&self) -> &[&'j Json] {
        let start = self.0.iter().rposition(|json| **json == Json::Null).map_or(0, |position| position + 1);
        self.0.get(start..).unwrap_or_default()
    }

    /// The last value that `pick` takes; `null` is passed over, anything else is an error.
    fn scalar<T>(&self, expected: &str, pick: impl Fn(&'j Json) -> Option<T>) -> Result<Option<T>, Error> {
        let mut found = None;
        for json in self.0.iter().filter(|json| ***json != Json::Null) {
            found = Some(pick(json).ok_or_else(|| mismatch(expected, json))?);
        }
        Ok(found)
    }

    fn string(&self) -> Result<&'j str, Error> {
        Ok(self.scalar("a string", Json::as_str)?.unwrap_or_default())
    }

    /// The last integer, 0 for `null`; each must lie from `min` to `max`.
    fn integer<T: TryFrom<i128>>(&self, min: i128, max: i128) -> Result<T, Error> {
        let expected = format!("an integer from {min} to {max}");
        let pick = |json: &Json| match json {
            // Go wants the literal of an integer: neither 1.0 nor 1e3 is one.
            Json::Number(text) => text.parse::<i128>().ok().and_then(|number| T::try_from(number).ok()),
            _ => None,
        };
        match self.scalar(&expected, pick)? {
            Some(number) => Ok(number),
            None => T::try_from(0).map_err(|_| mismatch(&expected, &Json::Null)),
        }
    }

    /// The entries of all objects in `values`, in order.
    fn entries(values: &[&'j Json]) -> Result<Vec<&'j (String, Json)>, Error> {
        let mut entries = Vec::new();
        for json in values {
            match json {
                Json::Null => {}
                Json::Object(object) => entries.extend(object),
                _ => return Err(mismatch("an object", json)),
            }
        }
        Ok(entries)
    }
}

fn mismatch(expected: &str, found: &Json) -> Error {
    Error::new(format_args!("expected {expected}, found {}", found.describe()))
}

/// The field that a key means: the one spelled so, else the first that differs by case only.
fn field_of(key: &str, fields: &'static [&'static str]) -> Option<&'static str> {
    let exact = fields.iter().find(|field| **field == key);
    exact.or_else(|| fields.iter().find(|field| folds_to(key, field))).copied()
}

/// Whether `key` equals `field`, which is ASCII, under Unicode's simple folding.
fn folds_to(key: &str, field: &str) -> bool {
    let fold = |c: char| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        _ => c.to_ascii_lowercase(),
    };
    key.chars().map(fold).eq(field.chars().map(fold))
}

macro_rules! integers {
    ($($method:ident $visit:ident $type:ty),* $(,)?) => { $(
        fn $method<V: Visitor<'j>>(self, visitor: V) -> Result<V::Value, Error> {
            visitor.$visit(self.integer::<$type>(<$type>::MIN as i128, <$type>::MAX as i128)?)
        }
    )* };
}

impl<'j> Deserializer<'j> for Values<'j> {
    type Error = Error;

    integers! {
        deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16, deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64, deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32, deserialize_u64 visit_u64 u64,
    }

    fn deserialize_any<V: Visitor<'j>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.last() {
            Json::Null => visitor.visit_unit(),
            Json::Bool(value) => visitor.visit_bool(*value),
            Json::String(text) => visitor.visit_borrowed_str(text),
            Json::Number(text) => match (text.parse(), text.parse()) {
                (Ok(number), _) => visitor.visit_u64(number),
                (_, Ok(number)) => visitor.visit_i64(number),
                _ => visitor.visit_f64(float(text).ok_or_else(|| mismatch("a number", self.last()))?),
            },
            Json::Array(items) => sequence(items, visitor),
            Json::Object(_) => Values::one(self.last()).deserialize_map(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'j>>(self, visitor: V) -> Result<V::Value, Error> {
        let pick = |json: &Json| match json {
            Json::Bool(value) => Some(*value),
            _ => None,
        };
        visitor.visit_bool(self.scalar("true or false", pick)?.unwrap_or_default())
    }

    fn deserialize_f64<V: Visitor<'j>>(self, visitor: V) -> Result<V::Value, Error> {
        let pick = |json: &Json| match json {
            Json::Number(text) => float(text),
            _ => None,
        };
        visitor.visit_f64(self.scalar("a number", pick)?.unwrap_or_default())
    }

    fn deserialize_f32<V: Visitor<'j>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_str<V: Visitor<'j>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_str(self.string()?)
    }

    fn deserialize_string<V: Visitor<'j>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_char<V: Visitor<'j>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'j>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'j>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'j>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'j>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.behind_null() {
            [] => visitor.visit_none(),
            values => visitor.visit_some(Values(values.to_vec())),
        }
    }

    fn deserialize_unit<V: Visitor<'j>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'j>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'j>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'j>>(self, visitor: V) -> Result<V::Value, Error> {
        let pick = |json: &'j Json| match json {
            Json::Array(items) => Some(items.as_slice()),
            _ => None,
        };
        let last = self.scalar("an array", pick)?.filter(|_| *self.last() != Json::Null);
        sequence(last.unwrap_or_default(), visitor)
    }

    fn deserialize_tuple<V: Visitor<'j>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'j>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'j>>(self, visitor: V) -> Result<V::Value, Error> {
        Values::entries(&self.0)?;
        let mut by_key: BTreeMap<&str, &Json> = BTreeMap::new();
        for (key, value) in Values::entries(self.behind_null())? {
            by_key.insert(key, value);
        }
        let groups = by_key.into_iter().map(|(key, value)| (key, Values::one(value))).collect();
        visitor.visit_map(Groups::new(groups))
    }

    fn deserialize_struct<V: Visitor<'j>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let mut groups: Vec<(&str, Values<'j>)> = Vec::new();
        for (key, value) in Values::entries(&self.0)? {
            let Some(field) = field_of(key, fields) else { continue };
            match groups.iter_mut().find(|(known, _)| *known == field) {
                Some((_, values)) => values.0.push(value),
                None => groups.push((field, Values::one(value))),
            }
        }
        // A field that only `null` was given to keeps its default.
        groups.retain(|(_, values)| values.0.iter().any(|json| **json != Json::Null));
        visitor.visit_map(Groups::new(groups))
    }

    fn deserialize_enum<V: Visitor<'j>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let text: StrDeserializer<'_, Error> = self.string()?.into_deserializer();
        visitor.visit_enum(text)
    }

    fn deserialize_ignored_any<V: Visitor<'j>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }
}

fn float(text: &str) -> Option<f64> {
    text.parse::<f64>().ok().filter(|number| number.is_finite())
}

fn sequence<'j, V: Visitor<'j>>(items: &'j [Json], visitor: V) -> Result<V::Value, Error> {
    visitor.visit_seq(Items { items: items.iter(), position: 0 })
}

struct Items<'j> {
    items: std::slice::Iter<'j, Json>,
    position: usize,
}

impl<'j> SeqAccess<'j> for Items<'j> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'j>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some(item) = self.items.next() else { return Ok(None) };
        let position = self.position;
        self.position += 1;
        seed.deserialize(Values::one(item)).map(Some).map_err(|error| error.under(&format!("[{position}]")))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

/// The entries of a struct or map, values of one key together.
struct Groups<'j> {
    groups: std::vec::IntoIter<(&'j str, Values<'j>)>,
    current: Option<(&'j str, Values<'j>)>,
}

impl<'j> Groups<'j> {
    fn new(groups: Vec<(&'j str, Values<'j>)>) -> Self {
        Self { groups: groups.into_iter(), current: None }
    }
}

impl<'j> MapAccess<'j> for Groups<'j> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'j>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.current = self.groups.next();
        let Some((key, _)) = &self.current else { return Ok(None) };
        let text: StrDeserializer<'_, Error> = (*key).into_deserializer();
        seed.deserialize(text).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'j>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let Some((key, values)) = self.current.take() else {
            return Err(Error::new("value asked for before its key"));
        };
        seed.deserialize(values).map_err(|error| error.under(key))
    }
}

/// The value that Go would find under `name` of an object: the last one that is not `null` under any
/// spelling; `None` when there is none, or a `null` behind it.
pub(super) fn last_field<'j>(json: &'j Json, name: &'static str) -> Option<&'j Json> {
    let Json::Object(entries) = json else { return None };
    let last = entries.iter().rev().find(|(key, _)| key == name || folds_to(key, name));
    last.map(|(_, value)| value).filter(|value| **value != Json::Null)
}
