//! Texts as they are written in a document.

use std::fmt;

use serde::Deserializer;
use serde::de::{Error, Visitor};

/// Reads a text. What is none is refused with `expected`, which says what the text would have to be.
///
/// # Errors
/// The document is broken, or holds something else than a text.
pub(crate) fn text<'de, D: Deserializer<'de>>(
    from: D,
    expected: &'static str,
) -> Result<String, D::Error> {
    from.deserialize_string(Expected(expected))
}

struct Expected(&'static str);

impl Visitor<'_> for Expected {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }
}
