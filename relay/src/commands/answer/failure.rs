//! The reason why a command failed.

use std::io;

use thiserror::Error;

use crate::store::{self, StoreError};

/// The reason why a command did not do it: one sentence, for stderr. An empty one: its reader has seen enough.
#[derive(Debug, Error)]
#[error("{0}")]
pub(crate) struct Failure(pub(crate) String);

impl Failure {
    pub(crate) fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }

    /// Returns the failure to write an answer: a quiet one for a reader that has seen enough (`| head`).
    pub(crate) fn unwritten(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self(String::new()),
            _ => Self(format!("cannot write the answer: {error}")),
        }
    }

    /// Returns whether its reader ended it.
    pub(crate) const fn is_quiet(&self) -> bool {
        self.0.is_empty()
    }
}

/// Converts the errors of the store and of the key parser, which are such sentences.
macro_rules! failure_from {
    ($($error:ty),+) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self(error.to_string())
            }
        })+
    };
}
failure_from!(
    StoreError,
    store::KeyError,
    store::AuthorityError,
    store::RevocationError,
    crate::state::StateError,
    store::RenameError,
    store::LabelError,
    store::RevokeError,
    store::LockError,
    store::ApplyError,
    store::RoleError
);
