//! Enrolment tokens. Only the SHA-256 of a secret is kept: 160 random bits need no salt.

use std::time::Duration;

use holdfast_protocol::identity::token::TokenSecret;
use holdfast_protocol::ids::DeviceId;

use super::labels;
use crate::clock::Timestamp;
use crate::hex::hex;
use crate::state::{random_bytes, sha256};
use crate::store::backend::sql;
use crate::store::{Labels, Store, StoreError, Tx};

/// A token that is over is kept for so long, so that a late device gets "expired", not "unknown".
const KEEP_EXPIRED: Duration = Duration::from_secs(30 * 86_400);

/// The attributes of a new token.
#[derive(Clone, Debug)]
pub(crate) struct NewToken {
    /// The number of devices may join with it.
    pub uses: u32,
    /// The time for which it is valid.
    pub ttl: Duration,
    /// The labels that each of these devices gets.
    pub labels: Labels,
    /// True if a relay joins the cluster with it, and no device.
    pub for_relay: bool,
}

/// A token as a listing shows it: without its secret, which is not stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenRow {
    /// A short name for it, for `token rm`.
    pub id: String,
    /// The number of devices could join in all.
    pub uses: i64,
    /// The number of uses that are left.
    pub uses_left: i64,
    /// The time at which it was made.
    pub created: Timestamp,
    /// The time at which it ends.
    pub expires: Timestamp,
    /// The labels that devices get.
    pub labels: Labels,
    /// True if a relay joins the cluster with it.
    pub for_relay: bool,
}

/// The rest of a token that a device enrolled with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenLeft {
    /// Its short name.
    pub id: String,
    /// The number of devices can still join with it.
    pub uses_left: i64,
    /// The expiry time.
    pub expires: Timestamp,
}

const INSERT: &str = "INSERT INTO tokens
        (id, secret_hash, uses, uses_left, created, expires, labels, for_relay)
    VALUES ($1, $2, $3, $3, $4, $5, $6, $7)";
const ALL: &str = "SELECT id, uses, uses_left, created, expires, labels, for_relay FROM tokens ORDER BY created, id";
const LEFT_OF: &str =
    "SELECT t.id, t.uses_left, t.expires FROM tokens t JOIN devices d ON d.token = t.id
    WHERE d.id = $1 AND t.uses_left > 0 AND t.expires > $2";
const REMOVE: &str = "DELETE FROM tokens WHERE id = $1";
const PRUNE: &str = "DELETE FROM tokens WHERE expires < $1";

type LeftColumns = (String, i64, i64);
type Columns = (String, i64, i64, i64, i64, String, bool);

impl Store {
    /// Returns all tokens, the oldest first, also those that are over.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn tokens(&self) -> Result<Vec<TokenRow>, StoreError> {
        let rows: Vec<Columns> = sql::query_as(ALL).fetch_all(self.reads()).await?;
        let row = |(id, uses, uses_left, created, expires, column, for_relay): Columns| {
            Ok(TokenRow {
                id,
                uses,
                uses_left,
                created: Timestamp(created),
                expires: Timestamp(expires),
                labels: labels::from_column(&column)?,
                for_relay,
            })
        };
        rows.into_iter().map(row).collect()
    }

    /// Returns what is left of the token that a device enrolled with: `None` if no device can join with it any more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn token_left_of(
        &self,
        device: DeviceId,
        now: Timestamp,
    ) -> Result<Option<TokenLeft>, StoreError> {
        let row = sql::query_as(LEFT_OF).bind(device.0.to_vec()).bind(now.0);
        let row: Option<LeftColumns> = row.fetch_optional(self.reads()).await?;
        Ok(row.map(left))
    }
}

impl Tx {
    /// Makes a token. Its secret is given once, here.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn create_token(
        &mut self,
        token: NewToken,
        now: Timestamp,
    ) -> Result<(String, TokenSecret), StoreError> {
        let secret = TokenSecret(random_bytes().map_err(|_| StoreError::Random)?);
        let id: [u8; 4] = random_bytes().map_err(|_| StoreError::Random)?;
        let id = hex(&id);
        let prune = sql::query(PRUNE).bind(now.before(KEEP_EXPIRED).0);
        prune.execute(&mut *self.connection().await?).await?;
        sql::query(INSERT)
            .bind(&id)
            .bind(sha256(&secret.0).as_slice())
            .bind(i64::from(token.uses))
            .bind(now.0)
            .bind(now.after(token.ttl).0)
            .bind(labels::to_column(&token.labels))
            .bind(token.for_relay)
            .execute(&mut *self.connection().await?)
            .await?;
        self.fact("token", id.as_str());
        Ok((id, secret))
    }

    /// Removes a token; says whether there was one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn remove_token(&mut self, id: &str) -> Result<bool, StoreError> {
        let removed = remove(self, id).await?;
        if removed {
            self.fact("token", id);
        } else {
            self.unchanged();
        }
        Ok(removed)
    }
}

/// Returns what is left of the token that a device enrolled with, inside a transaction.
pub(crate) async fn left_of(
    tx: &mut Tx,
    device: DeviceId,
    now: Timestamp,
) -> Result<Option<TokenLeft>, StoreError> {
    let row = sql::query_as(LEFT_OF).bind(device.0.to_vec()).bind(now.0);
    let row: Option<LeftColumns> = row.fetch_optional(&mut *tx.connection().await?).await?;
    Ok(row.map(left))
}

/// Removes a token inside a transaction; says whether there was one.
pub(crate) async fn remove(tx: &mut Tx, id: &str) -> Result<bool, StoreError> {
    let removed = sql::query(REMOVE)
        .bind(id)
        .execute(&mut *tx.connection().await?)
        .await?;
    Ok(removed.rows_affected() > 0)
}

fn left((id, uses_left, expires): LeftColumns) -> TokenLeft {
    TokenLeft {
        id,
        uses_left,
        expires: Timestamp(expires),
    }
}
