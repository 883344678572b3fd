//! Checks whether the database is whole, for `relay doctor`.

use crate::clock::Timestamp;
use crate::store::backend::connection::Db;
use crate::store::backend::sql;
use crate::store::{Store, StoreError};

/// The query for faults, at most ten: where there are more, these are bad enough.
const INTEGRITY: &str = "PRAGMA integrity_check(10)";
const ORPHANS: &str = "SELECT \"table\" FROM pragma_foreign_key_check LIMIT 10";
const NEWEST: &str = "SELECT MAX(t) FROM (
    SELECT MAX(created) AS t FROM users UNION ALL SELECT MAX(enrolled) FROM devices
    UNION ALL SELECT MAX(heartbeat) FROM relays UNION ALL SELECT MAX(last_heard) FROM tunnels) AS times";

impl Store {
    /// Returns what is wrong with the file, in SQLite's words; nothing, if it is whole. A server checks its own disk.
    ///
    /// # Errors
    /// [`StoreError`] if it is so broken that it cannot be looked at.
    pub(crate) async fn faults(&self) -> Result<Vec<String>, StoreError> {
        if let Db::Postgres(_) = &self.db {
            return Ok(Vec::new());
        }
        let mut read = self.reads().snapshot().await?;
        let integrity = sql::query_scalar(INTEGRITY);
        let mut faults: Vec<String> = integrity.fetch_all(&mut read).await?;
        faults.retain(|fault| fault != "ok");
        let orphans: Vec<String> = sql::query_scalar(ORPHANS).fetch_all(&mut read).await?;
        let orphan = |table| format!("a row of {table} belongs to nothing");
        faults.extend(orphans.into_iter().map(orphan));
        Ok(faults)
    }

    /// Returns the version of PostgreSQL on the server, which is one that the relay can use; `None`: SQLite.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn server_version(&self) -> Result<Option<String>, StoreError> {
        match &self.db {
            Db::Sqlite(_) => Ok(None),
            Db::Postgres(server) => server.check_server().await.map(Some),
        }
    }

    /// Returns the newest time that is written anywhere.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn newest_time(&self) -> Result<Option<Timestamp>, StoreError> {
        let newest: Option<i64> = sql::query_scalar(NEWEST).fetch_one(self.reads()).await?;
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
