//! Checks whether the database is whole, for `relay doctor`.

use crate::clock::Timestamp;
use crate::store::{Store, StoreError};

/// The query for faults, at most ten: where there are more, these are bad enough.
const INTEGRITY: &str = "PRAGMA integrity_check(10)";
const ORPHANS: &str = "SELECT \"table\" FROM pragma_foreign_key_check LIMIT 10";
const NEWEST: &str = "SELECT MAX(t) FROM (
    SELECT MAX(created) AS t FROM users UNION ALL SELECT MAX(enrolled) FROM devices
    UNION ALL SELECT MAX(heartbeat) FROM relays UNION ALL SELECT MAX(last_heard) FROM tunnels)";

impl Store {
    /// Returns what is wrong with the file, in SQLite's words; nothing, if it is whole.
    ///
    /// # Errors
    /// [`StoreError::Database`] if it is so broken that it cannot be looked at.
    pub(crate) async fn faults(&self) -> Result<Vec<String>, StoreError> {
        let mut read = self.reads().acquire().await?;
        let mut faults: Vec<String> = sqlx::query_scalar(INTEGRITY).fetch_all(&mut *read).await?;
        faults.retain(|fault| fault != "ok");
        let orphans: Vec<String> = sqlx::query_scalar(ORPHANS).fetch_all(&mut *read).await?;
        let orphan = |table| format!("a row of {table} belongs to nothing");
        faults.extend(orphans.into_iter().map(orphan));
        Ok(faults)
    }

    /// Returns the newest time that is written anywhere.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn newest_time(&self) -> Result<Option<Timestamp>, StoreError> {
        let newest: Option<i64> = sqlx::query_scalar(NEWEST).fetch_one(self.reads()).await?;
        Ok(newest.map(Timestamp))
    }

    /// Returns the version of the tables.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn version(&self) -> Result<i64, StoreError> {
        self.schema_version().await
    }
}
