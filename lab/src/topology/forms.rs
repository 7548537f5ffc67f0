//! Values that people may write in more than one form: a number or a list, a name or a map.
//!
//! serde's own way to that, an untagged enum, forgets where in the file something was wrong.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// A value and the forms that it is written in; a form that is not its own is refused.
pub(super) trait Forms: Sized {
    /// The forms, in words.
    const FORMS: &'static str;

    fn of_number<E: Error>(_: u64) -> Result<Self, E> {
        Err(expected::<Self, E>())
    }

    fn of_text<E: Error>(_: &str) -> Result<Self, E> {
        Err(expected::<Self, E>())
    }

    fn of_list<'de, A: SeqAccess<'de>>(_: A) -> Result<Self, A::Error> {
        Err(expected::<Self, A::Error>())
    }

    fn of_map<'de, A: MapAccess<'de>>(_: A) -> Result<Self, A::Error> {
        Err(expected::<Self, A::Error>())
    }
}

/// An error that gets the place of what was read, which serde's own kinds of errors do not.
fn expected<T: Forms, E: Error>() -> E {
    E::custom(format!("expected {}", T::FORMS))
}

/// Reads a value in whichever of its forms it has.
pub(super) fn read<'de, T: Forms, D: Deserializer<'de>>(d: D) -> Result<T, D::Error> {
    d.deserialize_any(Reader(PhantomData))
}

struct Reader<T>(PhantomData<T>);

impl<'de, T: Forms> Visitor<'de> for Reader<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::FORMS)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        T::of_number(number)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        T::of_text(text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<T, A::Error> {
        T::of_list(list)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::of_map(map)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<T, E> {
        Err(expected::<T, E>())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<T, E> {
        Err(expected::<T, E>())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<T, E> {
        Err(expected::<T, E>())
    }

    fn visit_unit<E: Error>(self) -> Result<T, E> {
        Err(expected::<T, E>())
    }
}
