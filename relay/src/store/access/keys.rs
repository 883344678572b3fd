//! The fingerprints of the relay's keys, as the store remembers them: one fact for each.

use std::path::PathBuf;

use sqlx::sqlite::SqliteConnection;
use thiserror::Error;

use crate::state::KeyFingerprint;
use crate::store::meta::{GET, ROSTER, SET};
use crate::store::{AuditEntry, Durability, Store, StoreError, audit};

/// The prefix of a key's name in the table of facts.
const PREFIX: &str = "key:";
/// The file of the recordings' key.
const RECORDING: &str = "recording.key";

/// The reason why the keys of a state folder cannot be used with its database.
#[derive(Debug, Error)]
pub(crate) enum BoundKeyError {
    /// A key is not the one that the relay has used so far.
    #[error(
        "{file} holds another key than this relay has used so far (expected fingerprint {expected}, found {found}): restore the file from a backup, since {breaks}; if the key was replaced on purpose, start `relay serve --accept-key {name}` once"
    )]
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
    #[error("no key \"{0}\": expected one of {1}")]
    Unknown(String, String),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// Ties the database to the keys at the first start, and refuses any other key later.
    ///
    /// # Errors
    /// [`BoundKeyError::Replaced`], of the first that differs; then nothing is noted.
    pub(crate) async fn bind_keys(&self, keys: &[KeyFingerprint]) -> Result<(), BoundKeyError> {
        let mut new = Vec::new();
        for key in keys {
            if !self.is_bound(key).await? {
                new.push(key);
            }
        }
        for key in new {
            self.set_key_fingerprint(key.name, &key.fingerprint).await?;
        }
        Ok(())
    }

    /// Checks whether these are the keys that the relay has used so far, as far as it has noted them.
    ///
    /// # Errors
    /// [`BoundKeyError::Replaced`].
    pub(crate) async fn check_keys(&self, keys: &[KeyFingerprint]) -> Result<(), BoundKeyError> {
        for key in keys {
            self.is_bound(key).await?;
        }
        Ok(())
    }

    /// Takes keys that were replaced on purpose, by the names of their files. For each that is another one than before,
    /// the audit log gets, in the same transaction, what `event` makes of the key and its old fingerprint.
    ///
    /// # Errors
    /// [`BoundKeyError::Unknown`].
    pub(crate) async fn accept_keys(
        &self,
        keys: &[KeyFingerprint],
        names: &[String],
        event: impl Fn(&KeyFingerprint, Option<&str>) -> AuditEntry,
    ) -> Result<(), BoundKeyError> {
        for name in names {
            let Some(key) = keys.iter().find(|key| key.name == name) else {
                let known: Vec<_> = keys.iter().map(|key| key.name).collect();
                return Err(BoundKeyError::Unknown(name.clone(), known.join(", ")));
            };
            let noted = self.noted(key).await?;
            if noted.as_ref() == Some(&key.fingerprint) {
                continue;
            }
            let mut write = self.write(Durability::Disk).await?;
            set(&mut write, key.name, &key.fingerprint).await?;
            audit::append(&mut write, &[event(key, noted.as_deref())]).await?;
            write.commit().await?;
        }
        Ok(())
    }

    /// Notes the fingerprint of a key by the name of its file. Call it after a key was replaced on purpose, with the
    /// new one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn set_key_fingerprint(
        &self,
        name: &str,
        fingerprint: &str,
    ) -> Result<(), StoreError> {
        let mut write = self.write(Durability::Disk).await?;
        set(&mut write, name, fingerprint).await?;
        write.commit().await
    }

    /// Returns the fingerprint that the store has of the key of this name.
    async fn noted(&self, key: &KeyFingerprint) -> Result<Option<String>, StoreError> {
        let noted = sqlx::query_scalar(GET).bind(format!("{PREFIX}{}", key.name));
        Ok(noted.fetch_optional(self.reads()).await?)
    }

    /// Checks whether the store knows this key; `false`: it knows none by its name.
    async fn is_bound(&self, key: &KeyFingerprint) -> Result<bool, BoundKeyError> {
        let noted = self.noted(key).await?;
        let is_noted = noted.is_some();
        let noted = match noted {
            None if key.name == RECORDING => self.rostered().await?,
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
    async fn rostered(&self) -> Result<Option<String>, StoreError> {
        let roster = self.meta_get(ROSTER).await?;
        Ok(roster.and_then(|roster| roster.split(' ').nth(2).map(str::to_owned)))
    }
}

async fn set(
    write: &mut SqliteConnection,
    name: &str,
    fingerprint: &str,
) -> Result<(), StoreError> {
    let set = sqlx::query(SET).bind(format!("{PREFIX}{name}"));
    set.bind(fingerprint).execute(write).await?;
    Ok(())
}
