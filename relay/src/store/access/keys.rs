//! The fingerprints of the relay's keys, as the store remembers them: one fact for each.

use crate::store::backend::connection::StoreConnection;
use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

use crate::model::invalid::Fault;
use crate::state::KeyFingerprint;
use crate::store::meta::{self, ROSTER};
use crate::store::{Store, StoreError, Tx};

/// The prefix of a key's name in the table of facts.
const PREFIX: &str = "key:";
/// The file of the cluster's key, which cannot be replaced.
const CLUSTER: &str = "cluster.key";
/// The file of the recordings' key.
const RECORDING: &str = "recording.key";

/// The reason why the keys of a state folder cannot be used with its database.
#[derive(Debug, Error)]
pub(crate) enum BoundKeyError {
    /// A key is not the one that the relay has used so far.
    Replaced {
        /// The file.
        file: PathBuf,
        /// The fingerprint that the store has.
        expected: String,
        /// The fingerprint of the file's key.
        found: String,
        /// The effect of another key.
        breaks: &'static str,
        /// The name for `--accept-key`.
        name: &'static str,
    },
    /// There is no such key.
    Unknown(String, String),
    /// The store.
    Store(#[from] StoreError),
}

impl BoundKeyError {
    /// Returns what was found, and the remedy.
    pub(crate) fn fault(&self) -> Fault {
        match self {
            Self::Replaced {
                file,
                expected,
                found,
                breaks,
                name,
            } => Fault::with_remedy(
                format!(
                    "{} holds another key than this relay has used so far (expected fingerprint {expected}, found {found})",
                    file.display()
                ),
                format!(
                    "restore the file from a backup, since {breaks}; {}",
                    match *name {
                        CLUSTER => "a relay is added to the cluster of this database with `relay cluster join`, in an empty state folder".to_owned(),
                        name => format!("if the key was replaced on purpose, start `relay serve --accept-key {name}` once"),
                    }
                ),
            ),
            Self::Unknown(name, known) => Fault::with_remedy(
                format!("no key \"{name}\""),
                format!("expected one of {known}"),
            ),
            Self::Store(error) => error.fault(),
        }
    }
}

impl fmt::Display for BoundKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fault().fmt(f)
    }
}

impl Store {
    /// Checks whether these are the keys that the relay has used so far, as far as it has noted them.
    ///
    /// # Errors
    /// [`BoundKeyError::Replaced`].
    pub(crate) async fn check_keys(&self, keys: &[KeyFingerprint]) -> Result<(), BoundKeyError> {
        let mut read = self.reads().snapshot().await?;
        for key in keys {
            is_bound(&mut read, key).await?;
        }
        Ok(())
    }
}

impl Tx {
    /// Ties the database to the keys at the first start, and refuses any other key later.
    ///
    /// # Errors
    /// [`BoundKeyError::Replaced`], of the first that differs.
    pub(crate) async fn bind_keys(&mut self, keys: &[KeyFingerprint]) -> Result<(), BoundKeyError> {
        for key in keys {
            if !is_bound(&mut *self.connection().await?, key).await? {
                self.set_key_fingerprint(&key.noted_as(), &key.fingerprint)
                    .await?;
            }
        }
        Ok(())
    }

    /// Takes keys that were replaced on purpose, by the names of their files. Returns each that is another one than
    /// before, with its old fingerprint.
    ///
    /// # Errors
    /// [`BoundKeyError::Unknown`].
    pub(crate) async fn accept_keys<'k>(
        &mut self,
        keys: &'k [KeyFingerprint],
        names: &[String],
    ) -> Result<Vec<(&'k KeyFingerprint, Option<String>)>, BoundKeyError> {
        let mut accepted = Vec::new();
        for name in names {
            let Some(key) = keys.iter().find(|key| key.name == name) else {
                let known: Vec<_> = keys.iter().map(|key| key.name).collect();
                return Err(BoundKeyError::Unknown(name.clone(), known.join(", ")));
            };
            let noted = noted(&mut *self.connection().await?, key).await?;
            if noted.as_ref() != Some(&key.fingerprint) {
                self.set_key_fingerprint(&key.noted_as(), &key.fingerprint)
                    .await?;
                accepted.push((key, noted));
            }
        }
        Ok(accepted)
    }

    /// Notes the fingerprint of a key by the name that the store knows it by. Call it after a key was replaced on purpose, with the
    /// new one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn set_key_fingerprint(
        &mut self,
        name: &str,
        fingerprint: &str,
    ) -> Result<(), StoreError> {
        self.meta_set(&format!("{PREFIX}{name}"), fingerprint).await
    }
}

/// Returns the fingerprint that the store has of the key of this name.
async fn noted(
    read: &mut StoreConnection,
    key: &KeyFingerprint,
) -> Result<Option<String>, StoreError> {
    meta::fact(read, &format!("{PREFIX}{}", key.noted_as())).await
}

/// Checks whether the store knows this key; `false`: it knows none by its name.
async fn is_bound(read: &mut StoreConnection, key: &KeyFingerprint) -> Result<bool, BoundKeyError> {
    let noted = noted(read, key).await?;
    let is_noted = noted.is_some();
    let noted = match noted {
        None if key.name == RECORDING => rostered(read).await?,
        noted => noted,
    };
    match noted {
        Some(expected) if expected != key.fingerprint => Err(BoundKeyError::Replaced {
            file: key.file.clone(),
            expected,
            found: key.fingerprint.clone(),
            breaks: key.breaks,
            name: key.name,
        }),
        _ => Ok(is_noted),
    }
}

/// Returns the recordings' key that devices were given last: what a database of an earlier version knows.
async fn rostered(read: &mut StoreConnection) -> Result<Option<String>, StoreError> {
    let roster = meta::fact(read, ROSTER).await?;
    Ok(roster.and_then(|roster| roster.split(' ').nth(2).map(str::to_owned)))
}
