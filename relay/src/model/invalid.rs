//! Sentences about what is not as it should be: a text from outside that cannot be read, and a fault with its remedy,
//! which are apart for who shows the two in their own places.

use std::fmt;

use thiserror::Error;

/// Says why a text is not what was expected: what was expected, and where it helps what came and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub(crate) struct Invalid(String);

impl From<String> for Invalid {
    fn from(sentence: String) -> Self {
        Self(sentence)
    }
}

impl From<&str> for Invalid {
    fn from(sentence: &str) -> Self {
        Self(sentence.to_owned())
    }
}

/// A fault. As text it is one sentence of both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The thing that was found.
    pub(crate) found: String,
    /// The remedy, where there is one that holds whenever this is found.
    pub(crate) remedy: Option<String>,
}

impl Fault {
    /// Returns a fault without a remedy of its own.
    pub(crate) fn new(found: impl Into<String>) -> Self {
        Self {
            found: found.into(),
            remedy: None,
        }
    }

    /// Returns a fault with its remedy.
    pub(crate) fn with_remedy(found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            found: found.into(),
            remedy: Some(remedy.into()),
        }
    }

    /// Returns the same fault, with this remedy if it has none.
    #[must_use]
    pub(crate) fn or_remedy(mut self, remedy: &str) -> Self {
        self.remedy.get_or_insert_with(|| remedy.to_owned());
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.remedy {
            Some(remedy) => write!(f, "{}: {remedy}", self.found),
            None => f.write_str(&self.found),
        }
    }
}

impl std::error::Error for Fault {}
