//! Revoked keys and certificates.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use thiserror::Error;

use crate::clock::Timestamp;
use crate::limits::MAX_REVOCATIONS;
use crate::store::{Durability, Store, StoreError, Write, meta};

/// One thing that is revoked. An authority is named by `SHA256:…`; `None`: whichever it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum RevokedThing {
    /// A key, by `SHA256:…` or `SHA1:…`: a user's, a certified one, or an authority's.
    Key(String),
    /// Certificates by their serial numbers.
    Serials {
        /// The authority that issued it.
        authority: Option<String>,
        /// The first and the last serial number.
        serials: RangeInclusive<u64>,
    },
    /// Certificates by their key id: from outside, so escape it.
    KeyId {
        /// The authority that issued it.
        authority: Option<String>,
        /// The id.
        id: String,
    },
}

/// A revocation, as a listing shows one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Revocation {
    /// The id by which it can be taken back.
    pub id: i64,
    /// The thing that is revoked.
    pub thing: RevokedThing,
    /// The time of the revocation.
    pub added: Timestamp,
}

/// The fingerprints of a key, as OpenSSH prints them. SHA-1 is for revocation lists that name keys so, and
/// proves nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prints {
    /// `SHA256:…`.
    pub sha256: String,
    /// `SHA1:…`.
    pub sha1: String,
}

/// The result of a change to the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RevocationChange {
    /// The number of things are newly revoked.
    pub added: usize,
    /// The number of things that are no longer revoked.
    pub removed: usize,
    /// The number of things that are revoked now.
    pub total: usize,
}

/// The reason why the list was not changed.
#[derive(Debug, Error)]
pub(crate) enum RevocationError {
    /// Too many.
    #[error(
        "more than {MAX_REVOCATIONS} revocations are not kept: revoke ranges of serial numbers, or an authority"
    )]
    TooMany,
    /// There is nothing of that id or fingerprint.
    #[error("nothing revoked is called \"{}\": see `relay ca revoked`", holdfast_protocol::escape::Escaped(.0))]
    Unknown(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for RevocationError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

const KEY: &str = "key";
const SERIALS: &str = "serial";
const KEY_ID: &str = "key-id";

const ALL: &str =
    "SELECT id, kind, authority, value, first, last, added FROM revocations ORDER BY id";
const COUNT: &str = "SELECT COUNT(*) FROM revocations";
const NEXT: &str = "SELECT COALESCE(MAX(id), 0) + 1 FROM revocations";
const ADD: &str = "INSERT INTO revocations (id, kind, authority, value, first, last, added)
    VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING";
const REMOVE: &str = "DELETE FROM revocations WHERE id = $1";
const REMOVE_KEY: &str = "DELETE FROM revocations WHERE kind = 'key' AND value = $1";
const FIND_KEY: &str = "SELECT 1 FROM revocations
    WHERE kind = 'key' AND value IN ($1, $2) LIMIT 1";
const FIND_SERIAL: &str = "SELECT 1 FROM revocations
    WHERE kind = 'serial' AND authority IN ($1, '') AND first <= $2 AND last >= $2 LIMIT 1";
const FIND_KEY_ID: &str = "SELECT 1 FROM revocations
    WHERE kind = 'key-id' AND value = $2 AND authority IN ($1, '') LIMIT 1";

type Row = (i64, String, String, String, Vec<u8>, Vec<u8>, i64);

impl Store {
    /// Returns what is revoked, in the order in which it came.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn revocations(&self) -> Result<Vec<Revocation>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(ALL).fetch_all(&self.readers).await?;
        rows.into_iter().map(Revocation::of).collect()
    }

    /// Checks whether a key is revoked.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn is_key_revoked(&self, key: &Prints) -> Result<bool, StoreError> {
        let found = sqlx::query(FIND_KEY).bind(&key.sha256).bind(&key.sha1);
        Ok(found.fetch_optional(&self.readers).await?.is_some())
    }

    /// Checks whether a certificate is revoked, apart from the keys in it. Serial number zero is none: an authority
    /// that does not number its certificates gives it to all of them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn is_certificate_revoked(
        &self,
        authority: &str,
        serial: u64,
        key_id: &str,
    ) -> Result<bool, StoreError> {
        let by_id = sqlx::query(FIND_KEY_ID).bind(authority).bind(key_id);
        if by_id.fetch_optional(&self.readers).await?.is_some() {
            return Ok(true);
        }
        if serial == 0 {
            return Ok(false);
        }
        let serial = serial.to_be_bytes();
        let by_serial = sqlx::query(FIND_SERIAL)
            .bind(authority)
            .bind(serial.as_slice());
        Ok(by_serial.fetch_optional(&self.readers).await?.is_some())
    }

    /// Revokes things. With `whole` they are all that is revoked from now on.
    ///
    /// # Errors
    /// [`RevocationError`]; nothing was changed then.
    pub(crate) async fn revoke(
        &self,
        things: &[RevokedThing],
        whole: bool,
        now: Timestamp,
    ) -> Result<RevocationChange, RevocationError> {
        let mut write = self.write(Durability::Disk).await?;
        let removed = if whole {
            retain(&mut write, things).await?
        } else {
            0
        };
        let mut id: i64 = sqlx::query_scalar(NEXT).fetch_one(&mut *write).await?;
        let mut added = 0;
        for thing in things {
            if insert(&mut write, id, thing, now).await? {
                id += 1;
                added += 1;
            }
        }
        let total: i64 = sqlx::query_scalar(COUNT).fetch_one(&mut *write).await?;
        let total = usize::try_from(total).unwrap_or(usize::MAX);
        if total > MAX_REVOCATIONS {
            return Err(RevocationError::TooMany);
        }
        meta::access_changed(&mut write).await?;
        write.commit().await?;
        Ok(RevocationChange {
            added,
            removed,
            total,
        })
    }

    /// Takes revocations back, each by its id or by the fingerprint of a key.
    ///
    /// # Errors
    /// [`RevocationError::Unknown`]; nothing was changed then.
    pub(crate) async fn unrevoke(
        &self,
        which: &[String],
    ) -> Result<RevocationChange, RevocationError> {
        let mut write = self.write(Durability::Disk).await?;
        let mut removed = 0;
        for name in which {
            let query = match name.parse::<i64>() {
                Ok(id) => sqlx::query(REMOVE).bind(id),
                Err(_) => sqlx::query(REMOVE_KEY).bind(name),
            };
            let rows = query.execute(&mut *write).await?.rows_affected();
            if rows == 0 {
                return Err(RevocationError::Unknown(name.clone()));
            }
            removed += usize::try_from(rows).unwrap_or(usize::MAX);
        }
        let total: i64 = sqlx::query_scalar(COUNT).fetch_one(&mut *write).await?;
        meta::access_changed(&mut write).await?;
        write.commit().await?;
        Ok(RevocationChange {
            added: 0,
            removed,
            total: usize::try_from(total).unwrap_or(usize::MAX),
        })
    }
}

/// Takes back all but these; says how many.
async fn retain(write: &mut Write, things: &[RevokedThing]) -> Result<usize, StoreError> {
    let kept: HashSet<&RevokedThing> = things.iter().collect();
    let rows: Vec<Row> = sqlx::query_as(ALL).fetch_all(&mut **write).await?;
    let mut removed = 0;
    for row in rows {
        let revocation = Revocation::of(row)?;
        if !kept.contains(&revocation.thing) {
            sqlx::query(REMOVE)
                .bind(revocation.id)
                .execute(&mut **write)
                .await?;
            removed += 1;
        }
    }
    Ok(removed)
}

async fn insert(
    write: &mut Write,
    id: i64,
    thing: &RevokedThing,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let none = || (Vec::new(), Vec::new());
    let (kind, authority, value, (first, last)) = match thing {
        RevokedThing::Key(fingerprint) => (KEY, None, fingerprint.as_str(), none()),
        RevokedThing::Serials { authority, serials } => {
            let bytes = |serial: &u64| serial.to_be_bytes().to_vec();
            let range = (bytes(serials.start()), bytes(serials.end()));
            (SERIALS, authority.as_deref(), "", range)
        }
        RevokedThing::KeyId { authority, id } => {
            (KEY_ID, authority.as_deref(), id.as_str(), none())
        }
    };
    let add = sqlx::query(ADD)
        .bind(id)
        .bind(kind)
        .bind(authority.unwrap_or_default())
        .bind(value)
        .bind(first)
        .bind(last)
        .bind(now.0);
    Ok(add.execute(&mut **write).await?.rows_affected() > 0)
}

impl Revocation {
    fn of((id, kind, authority, value, first, last, added): Row) -> Result<Self, StoreError> {
        let corrupt = || StoreError::Corrupt("a revocation");
        let authority = (!authority.is_empty()).then_some(authority);
        let serial = |bytes: Vec<u8>| {
            bytes
                .try_into()
                .map(u64::from_be_bytes)
                .map_err(|_| corrupt())
        };
        let thing = match kind.as_str() {
            KEY => RevokedThing::Key(value),
            SERIALS => RevokedThing::Serials {
                authority,
                serials: serial(first)?..=serial(last)?,
            },
            KEY_ID => RevokedThing::KeyId {
                authority,
                id: value,
            },
            _ => return Err(corrupt()),
        };
        Ok(Self {
            id,
            thing,
            added: Timestamp(added),
        })
    }
}
