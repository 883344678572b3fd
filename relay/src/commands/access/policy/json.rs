//! A document in JSON, as `get -o json` prints it: with the checks that TOML makes by itself.

use std::collections::BTreeSet;
use std::fmt;

use holdfast_protocol::escape::Escaped;
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::Document;

/// Returns whether a text is in JSON: no TOML begins with a brace.
pub(super) fn is_json(text: &str) -> bool {
    text.trim_ascii_start().starts_with('{')
}

/// Reads a document.
///
/// # Errors
/// A sentence with the place.
pub(super) fn read(text: &str) -> Result<Document, String> {
    let strict: Result<Strict, _> = serde_json::from_str(text);
    strict.map_err(|error| sentence(&error))?;
    serde_json::from_str(text).map_err(|error| sentence(&error))
}

/// Returns an error with its place in front, as with TOML; the text may be one line, so the column is with it.
fn sentence(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    let said = error.to_string();
    let place = format!(" at line {line} column {column}");
    let problem = said.strip_suffix(&place).unwrap_or(&said);
    format!("line {line}, column {column}: {problem}")
}

/// Any value, in which no field is given twice, where the last one would count, and none is null, which could be taken
/// for any, or for none.
struct Strict;

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E: Error>(self) -> Result<Self, E> {
        Err(E::custom("null is no value here: leave the field out"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self, A::Error> {
        while seq.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut before = BTreeSet::new();
        while let Some(field) = map.next_key::<String>()? {
            if before.contains(&field) {
                let field = Escaped(&field);
                return Err(A::Error::custom(format!("\"{field}\" is given twice")));
            }
            before.insert(field);
            let _: Self = map.next_value()?;
        }
        Ok(self)
    }
}
