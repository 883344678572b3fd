//! The SQLite file of a transfer, locked for writing.

use std::collections::BTreeSet;

use futures_util::TryStreamExt as _;
use futures_util::stream::BoxStream;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row as _};

use super::{AUDIT, AuditIds, Table};
use crate::store::backend::sqlite::SqliteFile;
use crate::store::backend::sqlite::write_queue::BatchWriter;
use crate::store::{Durability, StoreError};

const TABLES: &str = "SELECT name FROM sqlite_master WHERE type = 'table'
    AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE '\\_sqlx%' ESCAPE '\\'";
/// The highest id that each table with ids of its own ever had.
const SEQUENCES: &str = "SELECT name, seq FROM sqlite_sequence";
const AUDIT_IDS: &str =
    "SELECT COUNT(*), COALESCE(MIN(id), 0), COALESCE(MAX(id), 0) FROM audit WHERE id <= $1";
/// Each change by a command adds a row to the audit log, and fails here.
const SEAL: &str = "CREATE TRIGGER IF NOT EXISTS state_is_elsewhere BEFORE INSERT ON audit
    BEGIN SELECT RAISE(ABORT, 'the state of this relay is in PostgreSQL by now: try again'); END";

/// The file.
pub(super) struct SourceFile(BatchWriter);

/// The rows of a table, one after the other.
pub(super) struct Rows<'a>(BoxStream<'a, Result<SqliteRow, sqlx::Error>>);

impl SourceFile {
    /// Waits for the writers before, and keeps others out.
    ///
    /// # Errors
    /// [`StoreError::Slow`] if another process holds it for too long.
    pub(super) async fn lock(file: &SqliteFile) -> Result<Self, StoreError> {
        file.begin(Durability::Disk).await.map(Self)
    }

    /// Returns the names of the tables.
    pub(super) async fn tables(&mut self) -> Result<BTreeSet<String>, StoreError> {
        let names = sqlx::query_scalar(TABLES).fetch_all(&mut *self.0).await?;
        Ok(names.into_iter().collect())
    }

    /// Returns the number of a table's rows.
    pub(super) async fn count(&mut self, table: &str) -> Result<u64, StoreError> {
        let count = format!("SELECT COUNT(*) FROM \"{table}\"");
        let count: i64 = sqlx::query_scalar(AssertSqlSafe(count))
            .fetch_one(&mut *self.0)
            .await?;
        Ok(count.unsigned_abs())
    }

    /// Returns the tables with ids of their own, and the highest that was ever given.
    pub(super) async fn sequences(&mut self) -> Result<Vec<(String, i64)>, StoreError> {
        let rows = sqlx::query(SEQUENCES).fetch_all(&mut *self.0).await?;
        let pair = |row: &SqliteRow| Ok((row.try_get(0)?, row.try_get(1)?));
        let pairs: Result<_, sqlx::Error> = rows.iter().map(pair).collect();
        Ok(pairs?)
    }

    /// Returns the ids of the audit log up to one of them.
    pub(super) async fn audit_ids(&mut self, up_to: i64) -> Result<AuditIds, StoreError> {
        let ids = sqlx::query_as(AUDIT_IDS).bind(up_to);
        let (count, first, last) = ids.fetch_one(&mut *self.0).await?;
        Ok(AuditIds { count, first, last })
    }

    /// Returns the rows of a table; those of the audit log in the order of their ids.
    pub(super) fn rows(&mut self, table: &Table) -> Rows<'_> {
        let order = if table.name == AUDIT {
            " ORDER BY id"
        } else {
            ""
        };
        let rows = format!("SELECT {} FROM \"{}\"{order}", table.list(), table.name);
        Rows(sqlx::query(AssertSqlSafe(rows)).fetch(&mut *self.0))
    }

    /// Has the file take no further changes and name the database in its place, and lets go of it.
    pub(super) async fn seal(mut self, to: &str) -> Result<(), StoreError> {
        sqlx::query(SEAL).execute(&mut *self.0).await?;
        sqlx::query("DROP VIEW IF EXISTS state_is_in")
            .execute(&mut *self.0)
            .await?;
        let to = to.replace('\'', "''");
        let view = format!("CREATE VIEW state_is_in AS SELECT '{to}' AS database");
        sqlx::query(AssertSqlSafe(view))
            .execute(&mut *self.0)
            .await?;
        self.0.commit().await
    }
}

impl Rows<'_> {
    /// Returns the next row.
    pub(super) async fn next(&mut self) -> Result<Option<SqliteRow>, StoreError> {
        Ok(self.0.try_next().await?)
    }
}

impl Table {
    /// Returns the names of the columns, for a statement.
    pub(super) fn list(&self) -> String {
        let names: Vec<String> = self
            .columns
            .iter()
            .map(|column| format!("\"{}\"", column.name))
            .collect();
        names.join(", ")
    }
}
