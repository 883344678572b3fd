//! SQLite: a file, one writer at a time, and commits that writers share.

pub(crate) mod write_queue;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sqlx::Connection as _;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};

use crate::store::limits::{BUSY_TIMEOUT, READERS, TURN_TIMEOUT};
use crate::store::{Durability, StoreError};
use write_queue::{BatchWriter, WriteQueue};

pub(crate) static MIGRATIONS: Migrator = sqlx::migrate!("src/store/migrations/sqlite");

/// The view that a file gets when its state is moved to a server: see [`super::transfer`].
const IS_MOVED: &str =
    "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'view' AND name = 'state_is_in')";
const MOVED_TO: &str = "SELECT database FROM state_is_in";

/// The connections to a database file. Cloning it is cheap and shares them.
#[derive(Clone)]
pub(crate) struct SqliteFile {
    file: Arc<PathBuf>,
    pub(crate) readers: SqlitePool,
    /// Commits that survive a power cut: users, tokens, devices.
    pub(crate) durable: SqlitePool,
    /// Commits that survive a crash of the process, but may be lost with the power: presence, which is
    /// worth nothing after a restart, and comes with every tunnel. It costs no fsync.
    pub(crate) presence: SqlitePool,
    /// One connection that writes nothing, so that every commit is another's to it.
    watch: SqlitePool,
    pub(crate) turns: WriteQueue,
}

impl SqliteFile {
    /// Returns the connections to a file, none of which is open yet.
    pub(crate) fn at(path: &Path) -> Self {
        // The state folder makes the file, for its mode; one that is missing here is an error.
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(false)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            // What is erased is gone: the keys of recordings' digests.
            .pragma("secure_delete", "ON")
            .busy_timeout(BUSY_TIMEOUT);
        let pool = |size| {
            SqlitePoolOptions::new()
                .max_connections(size)
                .acquire_timeout(TURN_TIMEOUT)
                .idle_timeout(None)
                .max_lifetime(None)
                // A connection to a file does not go away: a ping before each query buys nothing.
                .test_before_acquire(false)
                .before_acquire(|connection, _| Box::pin(is_usable(connection)))
        };
        let relaxed = options.clone().synchronous(SqliteSynchronous::Normal);
        Self {
            file: Arc::new(path.to_owned()),
            readers: pool(READERS).connect_lazy_with(options.clone()),
            durable: pool(1).connect_lazy_with(options.clone()),
            presence: pool(1).connect_lazy_with(relaxed),
            watch: pool(1).connect_lazy_with(options),
            turns: WriteQueue::default(),
        }
    }

    /// Returns the path of the file.
    pub(crate) fn path(&self) -> &Path {
        &self.file
    }

    /// Waits for a turn to write.
    pub(crate) async fn begin(&self, durability: Durability) -> Result<BatchWriter, StoreError> {
        let pool = match durability {
            Durability::Disk => &self.durable,
            Durability::Process => &self.presence,
        };
        self.turns.take(durability, pool).await
    }

    pub(super) async fn data_version(&self) -> Result<i64, StoreError> {
        let version = sqlx::query_scalar("PRAGMA data_version");
        Ok(version.fetch_one(&self.watch).await?)
    }

    /// Returns the database on a server that the state in the file was moved to, without a password.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn moved_to(&self) -> Result<Option<String>, StoreError> {
        let is_moved = sqlx::query_scalar(IS_MOVED).fetch_one(&self.readers);
        // This is the first look into the file, so it is here that a damaged one shows.
        let is_moved: bool = is_moved.await.map_err(|cause| StoreError::Unreadable {
            file: self.path().display().to_string(),
            cause,
        })?;
        if !is_moved {
            return Ok(None);
        }
        let to = sqlx::query_scalar(MOVED_TO).fetch_one(&self.readers);
        Ok(Some(to.await?))
    }

    pub(super) async fn migrate(&self) -> Result<(), StoreError> {
        let run = MIGRATIONS.run(&self.durable).await;
        run.map_err(|error| StoreError::migration(self.path().display(), error))
    }

    /// Closes the connections. With the last of them SQLite empties its journal into the file, which then is the whole
    /// database: good to be copied alone.
    pub(super) async fn close(&self) {
        self.watch.close().await;
        self.readers.close().await;
        self.presence.close().await;
        self.durable.close().await;
    }
}

/// Returns whether a connection may be used again; another one is opened in its place if not. Where the disk is full,
/// SQLite takes a transaction back by itself. sqlx does not see that, cannot roll it back, and would refuse every later
/// transaction on the connection.
async fn is_usable(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    if connection.is_in_transaction() {
        // The rollback of a dropped transaction may still be under way.
        connection.ping().await?;
    }
    Ok(!connection.is_in_transaction())
}

impl fmt::Debug for SqliteFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SqliteFile").field(&self.file).finish()
    }
}
