//! Single facts: what the relay is called outside, the roster's epoch, whose database this is.

use holdfast_protocol::ids::PublicKey;
use sqlx::SqliteConnection;

use super::{Durability, Store, StoreError};

/// The `host:port` that devices dial; written by a relay when it starts to serve.
pub(crate) const PUBLIC_TUNNEL: &str = "public_tunnel";
/// The roster's epoch, the address in it and the name of the recordings' key, apart by spaces; written by a relay when
/// it starts.
pub(crate) const ROSTER: &str = "roster";
/// The `host:port` that operators dial.
pub(crate) const PUBLIC_SSH: &str = "public_ssh";
/// The `ip:port` that the relay listens on for operators, for who is on its machine; written by a relay when it starts
/// to serve.
pub(crate) const BOUND_SSH: &str = "bound_ssh";
/// The key of the recordings' storage, as JSON without anything secret; written by a relay when it starts.
pub(crate) const RECORDINGS: &str = "recordings";
/// The key of the recordings' bounds, as JSON; written by a relay when it starts.
pub(crate) const RECORDING_BOUNDS: &str = "recording_bounds";
/// The cluster's public key, in hexadecimal.
const CLUSTER: &str = "cluster";

pub(super) const GET: &str = "SELECT value FROM meta WHERE key = $1";
pub(super) const SET: &str = "INSERT INTO meta (key, value) VALUES ($1, $2)
    ON CONFLICT (key) DO UPDATE SET value = excluded.value";
const BUMP: &str = "UPDATE meta SET value = CAST(CAST(value AS BIGINT) + 1 AS TEXT)
    WHERE key = 'access_version'";
const ACCESS_VERSION: &str = "SELECT CAST(value AS BIGINT) FROM meta WHERE key = 'access_version'";

impl Store {
    /// Returns the fact under `key`, if there is one.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn meta_get(&self, key: &str) -> Result<Option<String>, StoreError> {
        let value = sqlx::query_scalar(GET).bind(key);
        Ok(value.fetch_optional(&self.readers).await?)
    }

    /// Notes a fact; it survives a power cut.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn meta_set(&self, key: &str, value: &str) -> Result<(), StoreError> {
        let mut write = self.write(Durability::Disk).await?;
        let set = sqlx::query(SET).bind(key).bind(value);
        set.execute(&mut *write).await?;
        write.commit().await
    }

    /// Grows with each change that an admin command makes to users, keys, roles and devices, and with
    /// nothing else: what a relay looks at before it checks its live connections again.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn access_version(&self) -> Result<i64, StoreError> {
        let version = sqlx::query_scalar(ACCESS_VERSION);
        Ok(version.fetch_one(&self.readers).await?)
    }
}

impl Store {
    /// Ties the database to the cluster's key at the first start, and refuses any other key later: a
    /// folder whose files were mixed up must not hand one fleet's devices to another.
    ///
    /// # Errors
    /// [`StoreError::OtherCluster`].
    pub(crate) async fn bind_cluster(&self, cluster: &PublicKey) -> Result<(), StoreError> {
        let key = cluster.to_string();
        match self.meta_get(CLUSTER).await? {
            None => self.meta_set(CLUSTER, &key).await,
            Some(bound) if bound == key => Ok(()),
            Some(_) => Err(StoreError::OtherCluster),
        }
    }
}

/// Belongs into each transaction that changes who may do what.
pub(super) async fn access_changed(write: &mut SqliteConnection) -> Result<(), StoreError> {
    sqlx::query(BUMP).execute(write).await?;
    Ok(())
}
