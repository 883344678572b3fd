//! The connections of both databases, as enums.

use sqlx::sqlite::SqliteConnection;
use sqlx::{Sqlite, SqlitePool, Transaction};

use super::postgres::Postgres;
use super::postgres::pool::ServerPool;
use super::postgres::transaction::PostgresTransaction;
use super::sqlite::SqliteFile;
use super::sqlite::write_queue::BatchWriter;
use crate::clock::Timestamp;
use crate::store::{Durability, StoreError};

/// The database of a store. Cloning it is cheap and shares the connections.
#[derive(Clone, Debug)]
pub(crate) enum Db {
    Sqlite(SqliteFile),
    Postgres(Postgres),
}

/// A transaction that is open: a writer's, or a reader's that sees one moment.
pub(crate) enum StoreConnection {
    SqliteWriter(BatchWriter),
    SqliteSnapshot(Transaction<'static, Sqlite>),
    Postgres(PostgresTransaction),
}

/// The place of one statement: in a transaction, or on any free connection.
pub(crate) enum StatementTarget<'c> {
    SqlitePool(&'c SqlitePool),
    Sqlite(&'c mut SqliteConnection),
    PostgresPool(&'c ServerPool),
    Postgres(&'c mut PostgresTransaction),
}

impl Db {
    /// Waits for the writers before, and begins a transaction that is the only writer of this process.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn begin(
        &self,
        durability: Durability,
    ) -> Result<StoreConnection, StoreError> {
        Ok(match self {
            Self::Sqlite(file) => StoreConnection::SqliteWriter(file.begin(durability).await?),
            Self::Postgres(server) => StoreConnection::Postgres(server.begin(durability).await?),
        })
    }

    /// Begins a transaction that only reads, and sees all tables as they are at one moment.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn snapshot(&self) -> Result<StoreConnection, StoreError> {
        Ok(match self {
            Self::Sqlite(file) => StoreConnection::SqliteSnapshot(file.readers.begin().await?),
            Self::Postgres(server) => StoreConnection::Postgres(server.snapshot().await?),
        })
    }

    /// Returns a number that differs from the last one read if anything was written in between: see
    /// [`Store::data_version`](crate::store::Store::data_version).
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn data_version(&self) -> Result<i64, StoreError> {
        match self {
            Self::Sqlite(file) => file.data_version().await,
            Self::Postgres(server) => server.data_version().await,
        }
    }

    /// Returns the database's own time now, if it has a clock of its own that has just answered quickly.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn clock(&self) -> Result<Option<Timestamp>, StoreError> {
        match self {
            Self::Sqlite(_) => Ok(None),
            Self::Postgres(server) => server.clock().await,
        }
    }

    /// Brings the tables up to date.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn migrate(&self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(file) => file.migrate().await,
            Self::Postgres(server) => server.migrate().await,
        }
    }

    /// Returns the version of the tables that this program makes.
    #[must_use]
    pub(crate) fn wanted_version(&self) -> i64 {
        let migrations = match self {
            Self::Sqlite(_) => &super::sqlite::MIGRATIONS,
            Self::Postgres(_) => &super::postgres::MIGRATIONS,
        };
        migrations.iter().map(|m| m.version).max().unwrap_or(0)
    }

    /// Waits for what is under way and closes the connections.
    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite(file) => file.close().await,
            Self::Postgres(server) => server.close().await,
        }
    }
}

impl StoreConnection {
    /// Makes the changes last. They last when this returns, and not before.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        match self {
            Self::SqliteWriter(writer) => writer.commit().await,
            Self::SqliteSnapshot(snapshot) => Ok(snapshot.commit().await?),
            Self::Postgres(transaction) => transaction.commit().await,
        }
    }
}

impl<'c> From<&'c Db> for StatementTarget<'c> {
    fn from(db: &'c Db) -> Self {
        match db {
            Db::Sqlite(file) => Self::SqlitePool(&file.readers),
            Db::Postgres(server) => Self::PostgresPool(&server.pool),
        }
    }
}

impl<'c> From<&'c mut StoreConnection> for StatementTarget<'c> {
    fn from(connection: &'c mut StoreConnection) -> Self {
        match connection {
            StoreConnection::SqliteWriter(writer) => Self::Sqlite(writer),
            StoreConnection::SqliteSnapshot(snapshot) => Self::Sqlite(snapshot),
            StoreConnection::Postgres(transaction) => Self::Postgres(transaction),
        }
    }
}
