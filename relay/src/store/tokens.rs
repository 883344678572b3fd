//! Enrolment tokens. Only the SHA-256 of a secret is kept: 160 random bits need no salt.

use std::time::Duration;

use holdfast_protocol::token::Secret;

use super::{Labels, Store, StoreError, Survive, labels};
use crate::clock::Timestamp;
use crate::hex::hex;
use crate::state::{random_bytes, sha256};

/// A token that is over is kept for so long, so that a late device is told "expired", not "unknown".
const KEEP_EXPIRED: Duration = Duration::from_secs(30 * 86_400);

/// What a new token allows.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// How many devices may join with it.
    pub uses: u32,
    /// For how long.
    pub ttl: Duration,
    /// What each of these devices is labelled with.
    pub labels: Labels,
}

/// A token as a listing shows it: without its secret, which nobody knows any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRow {
    /// A short name for it, for `token rm`.
    pub id: String,
    /// How many devices could join in all.
    pub uses: i64,
    /// How many still can.
    pub uses_left: i64,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
    /// What devices get.
    pub labels: Labels,
}

const INSERT: &str = "INSERT INTO tokens
        (id, secret_hash, uses, uses_left, created, expires, labels)
    VALUES ($1, $2, $3, $3, $4, $5, $6)";
const ALL: &str =
    "SELECT id, uses, uses_left, created, expires, labels FROM tokens ORDER BY created, id";
const REMOVE: &str = "DELETE FROM tokens WHERE id = $1";
const PRUNE: &str = "DELETE FROM tokens WHERE expires < $1";

type Columns = (String, i64, i64, i64, i64, String);

impl Store {
    /// Makes a token. Its secret is given once, here.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn create_token(
        &self,
        token: NewToken,
        now: Timestamp,
    ) -> Result<(String, Secret), StoreError> {
        let secret = Secret(random_bytes().map_err(|_| StoreError::Random)?);
        let id: [u8; 4] = random_bytes().map_err(|_| StoreError::Random)?;
        let id = hex(&id);
        let mut write = self.write(Survive::PowerCut).await?;
        let prune = sqlx::query(PRUNE).bind(now.before(KEEP_EXPIRED).0);
        prune.execute(&mut *write).await?;
        sqlx::query(INSERT)
            .bind(&id)
            .bind(sha256(&secret.0).as_slice())
            .bind(i64::from(token.uses))
            .bind(now.0)
            .bind(now.after(token.ttl).0)
            .bind(labels::to_column(&token.labels))
            .execute(&mut *write)
            .await?;
        write.fact("token", id.as_str());
        write.commit().await?;
        Ok((id, secret))
    }

    /// All tokens, the oldest first, also those that are over.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn tokens(&self) -> Result<Vec<TokenRow>, StoreError> {
        let rows: Vec<Columns> = sqlx::query_as(ALL).fetch_all(&self.readers).await?;
        let row = |(id, uses, uses_left, created, expires, column): Columns| {
            Ok(TokenRow {
                id,
                uses,
                uses_left,
                created: Timestamp(created),
                expires: Timestamp(expires),
                labels: labels::from_column(&column)?,
            })
        };
        rows.into_iter().map(row).collect()
    }

    /// Removes a token; says whether there was one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn remove_token(&self, id: &str) -> Result<bool, StoreError> {
        let mut write = self.write(Survive::PowerCut).await?;
        let removed = sqlx::query(REMOVE).bind(id).execute(&mut *write).await?;
        let removed = removed.rows_affected() > 0;
        if !removed {
            write.unchanged();
        }
        write.commit().await?;
        Ok(removed)
    }
}
