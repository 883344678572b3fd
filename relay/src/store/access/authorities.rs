//! Certificate authorities: whose user certificates are taken.

use thiserror::Error;

use crate::clock::Timestamp;
use crate::store::backend::sql;
use crate::store::limits::MAX_AUTHORITIES;
use crate::store::meta::AccessPart;
use crate::store::{Store, StoreError, Tx};

/// A certificate authority that is trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Authority {
    /// `SHA256:…` of its key, as OpenSSH prints it.
    pub fingerprint: String,
    /// The name that operators use.
    pub name: String,
    /// The key as in a `.pub` file: type and base64, without the comment.
    pub public_key: String,
    /// The comment: from outside, so escape it.
    pub comment: String,
    /// The time since which it is trusted.
    pub added: Timestamp,
}

/// The reason why the trusted authorities were not changed.
#[derive(Debug, Error)]
pub(crate) enum AuthorityError {
    /// The key is trusted under another name.
    #[error(
        "{fingerprint} is trusted already, as \"{name}\": remove that first (`relay ca rm {name}`)"
    )]
    Known {
        /// The key.
        fingerprint: String,
        /// Its name.
        name: String,
    },
    /// Another authority has the name.
    #[error("there is another authority \"{0}\": give this one another name with --name")]
    NameTaken(String),
    /// There are too many.
    #[error("{MAX_AUTHORITIES} authorities are trusted, which is the maximum: see `relay ca ls`")]
    TooMany,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

const ALL: &str =
    "SELECT fingerprint, name, public_key, comment, added FROM authorities ORDER BY name";
const COUNT: &str = "SELECT COUNT(*) FROM authorities";
const BY_FINGERPRINT: &str = "SELECT name FROM authorities WHERE fingerprint = $1";
const BY_NAME: &str = "SELECT fingerprint FROM authorities WHERE name = $1";
const ADD: &str = "INSERT INTO authorities (fingerprint, name, public_key, comment, added)
    VALUES ($1, $2, $3, $4, $5)";
const REMOVE: &str = "DELETE FROM authorities WHERE fingerprint = $1 OR name = $1
    RETURNING fingerprint, name, public_key, comment, added";

type Row = (String, String, String, String, i64);

impl Store {
    /// Returns the trusted authorities, by name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn authorities(&self) -> Result<Vec<Authority>, StoreError> {
        let rows: Vec<Row> = sql::query_as(ALL).fetch_all(self.reads()).await?;
        Ok(rows.into_iter().map(Authority::of).collect())
    }
}

impl Tx {
    /// Trusts an authority; says whether that is new.
    ///
    /// # Errors
    /// [`AuthorityError`]; nothing was changed then.
    pub(crate) async fn trust(&mut self, authority: &Authority) -> Result<bool, AuthorityError> {
        let known = sql::query_scalar(BY_FINGERPRINT).bind(&authority.fingerprint);
        let known: Option<String> = known.fetch_optional(&mut *self.connection().await?).await?;
        match known {
            Some(name) if name == authority.name => {
                self.unchanged();
                return Ok(false);
            }
            Some(name) => {
                let fingerprint = authority.fingerprint.clone();
                return Err(AuthorityError::Known { fingerprint, name });
            }
            None => {}
        }
        let taken = sql::query_scalar(BY_NAME).bind(&authority.name);
        let taken: Option<String> = taken.fetch_optional(&mut *self.connection().await?).await?;
        if taken.is_some() {
            return Err(AuthorityError::NameTaken(authority.name.clone()));
        }
        let count: i64 = sql::query_scalar(COUNT)
            .fetch_one(&mut *self.connection().await?)
            .await?;
        if usize::try_from(count).unwrap_or(usize::MAX) >= MAX_AUTHORITIES {
            return Err(AuthorityError::TooMany);
        }
        sql::query(ADD)
            .bind(&authority.fingerprint)
            .bind(&authority.name)
            .bind(&authority.public_key)
            .bind(&authority.comment)
            .bind(authority.added.0)
            .execute(&mut *self.connection().await?)
            .await?;
        self.access_changed(AccessPart::People).await?;
        Ok(true)
    }

    /// Ends trust in the authority of that fingerprint or name, and gives what it was.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn distrust(&mut self, which: &str) -> Result<Option<Authority>, StoreError> {
        let removed: Option<Row> = sql::query_as(REMOVE)
            .bind(which)
            .fetch_optional(&mut *self.connection().await?)
            .await?;
        if removed.is_none() {
            self.unchanged();
        }
        self.access_changed(AccessPart::People).await?;
        Ok(removed.map(Authority::of))
    }
}

impl Authority {
    fn of((fingerprint, name, public_key, comment, added): Row) -> Self {
        Self {
            fingerprint,
            name,
            public_key,
            comment,
            added: Timestamp(added),
        }
    }
}
