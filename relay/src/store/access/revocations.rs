//! Revoked keys and certificates.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use thiserror::Error;

use crate::clock::Timestamp;
use crate::store::backend::connection::StoreConnection;
use crate::store::backend::sql;
use crate::store::limits::MAX_REVOCATIONS;
use crate::store::meta::AccessPart;
use crate::store::{Store, StoreError, Tx};

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
    /// The id that removes it.
    pub id: i64,
    /// The thing that is revoked.
    pub thing: RevokedThing,
    /// The time of the revocation.
    pub added: Timestamp,
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
        "the maximum is {MAX_REVOCATIONS} revocations: revoke ranges of serial numbers, or an authority"
    )]
    TooMany,
    /// There is nothing of that id or fingerprint.
    #[error("nothing revoked is called \"{}\": see `relay ca revoked`", holdfast_protocol::escape::Escaped(.0))]
    Unknown(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
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

type Row = (i64, String, String, String, Vec<u8>, Vec<u8>, i64);

impl Store {
    /// Returns what is revoked, in the order in which it came.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn revocations(&self) -> Result<Vec<Revocation>, StoreError> {
        let mut read = self.reads().snapshot().await?;
        all(&mut read).await
    }
}

impl Tx {
    /// Revokes things. With `whole` they are all that is revoked from now on.
    ///
    /// # Errors
    /// [`RevocationError`]; nothing was changed then.
    pub(crate) async fn revoke(
        &mut self,
        things: &[RevokedThing],
        whole: bool,
        now: Timestamp,
    ) -> Result<RevocationChange, RevocationError> {
        let removed = if whole {
            retain(self, things).await?
        } else {
            0
        };
        let mut id: i64 = sql::query_scalar(NEXT)
            .fetch_one(&mut *self.connection().await?)
            .await?;
        let mut added = 0;
        for thing in things {
            if insert(self, id, thing, now).await? {
                id += 1;
                added += 1;
            }
        }
        let total: i64 = sql::query_scalar(COUNT)
            .fetch_one(&mut *self.connection().await?)
            .await?;
        let total = usize::try_from(total).unwrap_or(usize::MAX);
        if total > MAX_REVOCATIONS {
            return Err(RevocationError::TooMany);
        }
        self.access_changed(AccessPart::Revocations).await?;
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
        &mut self,
        which: &[String],
    ) -> Result<RevocationChange, RevocationError> {
        let mut removed = 0;
        for name in which {
            let query = match name.parse::<i64>() {
                Ok(id) => sql::query(REMOVE).bind(id),
                Err(_) => sql::query(REMOVE_KEY).bind(name),
            };
            let rows = query
                .execute(&mut *self.connection().await?)
                .await?
                .rows_affected();
            if rows == 0 {
                return Err(RevocationError::Unknown(name.clone()));
            }
            removed += usize::try_from(rows).unwrap_or(usize::MAX);
        }
        let total: i64 = sql::query_scalar(COUNT)
            .fetch_one(&mut *self.connection().await?)
            .await?;
        self.access_changed(AccessPart::Revocations).await?;
        Ok(RevocationChange {
            added: 0,
            removed,
            total: usize::try_from(total).unwrap_or(usize::MAX),
        })
    }
}

/// Reads what is revoked, in the order in which it came.
pub(super) async fn all(read: &mut StoreConnection) -> Result<Vec<Revocation>, StoreError> {
    let rows: Vec<Row> = sql::query_as(ALL).fetch_all(read).await?;
    rows.into_iter().map(Revocation::of).collect()
}

/// Takes back all but these; says how many.
async fn retain(tx: &mut Tx, things: &[RevokedThing]) -> Result<usize, StoreError> {
    let kept: HashSet<&RevokedThing> = things.iter().collect();
    let rows: Vec<Row> = sql::query_as(ALL)
        .fetch_all(&mut *tx.connection().await?)
        .await?;
    let mut removed = 0;
    for row in rows {
        let revocation = Revocation::of(row)?;
        if !kept.contains(&revocation.thing) {
            sql::query(REMOVE)
                .bind(revocation.id)
                .execute(&mut *tx.connection().await?)
                .await?;
            removed += 1;
        }
    }
    Ok(removed)
}

async fn insert(
    tx: &mut Tx,
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
    let add = sql::query(ADD)
        .bind(id)
        .bind(kind)
        .bind(authority.unwrap_or_default())
        .bind(value)
        .bind(first)
        .bind(last)
        .bind(now.0);
    Ok(add
        .execute(&mut *tx.connection().await?)
        .await?
        .rows_affected()
        > 0)
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
