//! The relay's memory, in SQLite: one file per table, one set of queries.
//!
//! Every change is made through a [`Tx`]: `let mut tx = store.begin(durability).await?`, the changes, the audit rows
//! that describe them, `tx.commit().await?`. All writers of a process queue for one turn, in order, and share commits
//! ([`backend::write_queue`]); only processes contend for the file (an admin command beside a serving relay), which
//! SQLite's busy timeout settles. Readers never wait.

pub(crate) mod access;
pub(crate) mod audit;
pub(crate) mod backend;
pub(crate) mod devices;
mod entry;
mod error;
pub(crate) mod limits;
pub(crate) mod meta;
pub(crate) mod recordings;
mod relays;
pub(crate) mod sessions;
mod tx;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

pub(crate) use crate::model::device::{ClonePair, Device, PresenceState};
pub(crate) use crate::model::labels::Labels;
pub(crate) use crate::model::user::{Prints, User, UserId};
pub(crate) use access::authorities::{Authority, AuthorityError};
pub(crate) use access::locks::{Kill, LockError, NewLock};
pub(crate) use access::policy::{Apply, ApplyError, Change, Policy, UserPolicy};
pub(crate) use access::revocations::{Revocation, RevocationChange, RevocationError, RevokedThing};
pub(crate) use access::roles::RoleError;
pub(crate) use access::user_changes::{KeyError, NewUser};
pub(crate) use access::users::{UserKey, UserRow};
pub(crate) use audit::{AuditFilter, AuditRemoved};
pub(crate) use devices::changes::{LabelError, RenameError, RevokeError};
pub(crate) use devices::enrol::{EnrolError, Enrolment};
pub(crate) use devices::named_device;
pub(crate) use devices::tokens::{NewToken, TokenLeft, TokenRow};
pub(crate) use devices::tunnels::{LeftTunnel, TunnelFacts, TunnelId};
pub(crate) use entry::{AuditEntry, AuditKey};
pub(crate) use error::StoreError;
pub(crate) use recordings::{
    Hold, NewRecording, Over, RecordingFacts, RecordingFilter, RecordingRow, RecordingState,
    SeenSession, SignedVerdict, recorded_kind,
};
pub(crate) use relays::{RELAY_HEARTBEAT_STALE, RelayId};
pub(crate) use sessions::console_streams::ConsoleRow;
pub(crate) use sessions::facts::SessionFacts;
pub(crate) use sessions::leases::LeaseRow;
pub(crate) use sessions::{BoardChange, SessionRow, Traffic};
pub(crate) use tx::Tx;

use access::snapshot::PolicyCache;
use backend::write_queue::WriteQueue;
use limits::{BUSY_TIMEOUT, READERS, TURN_TIMEOUT, TX_TIMEOUT};
use tx::TxExpiry;

static MIGRATIONS: Migrator = sqlx::migrate!("src/store/migrations");

/// The store. Cloning it is cheap and shares the connections.
#[derive(Clone)]
pub(crate) struct Store {
    readers: SqlitePool,
    /// The number of SELECTs that ran on `readers` for this store and its clones, background work aside.
    selects: Arc<AtomicU64>,
    policy: PolicyCache,
    /// Commits that survive a power cut: users, tokens, devices.
    durable: SqlitePool,
    /// Commits that survive a crash of the process, but may be lost with the power: presence, which is
    /// worth nothing after a restart, and comes with every tunnel. It costs no fsync.
    presence: SqlitePool,
    /// One connection that writes nothing, so that every commit is another's to it.
    watch: SqlitePool,
    turns: WriteQueue,
    expiry: TxExpiry,
    /// [`TX_TIMEOUT`], unless a test wants less.
    tx_timeout: Duration,
}

/// The event that a commit must survive: what survives a power cut survives a crash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Durability {
    Process,
    Disk,
}

impl Store {
    /// Opens the database of the relay that holds the state's lock, makes it if the file is empty, and
    /// brings its tables up to date.
    ///
    /// # Errors
    /// [`StoreError`] if the file is no database, is newer than this program, or cannot be written.
    pub(crate) async fn open(path: &Path) -> Result<Self, StoreError> {
        let store = Self::connect(path)?;
        let run = MIGRATIONS.run(&store.durable).await;
        run.map_err(|error| StoreError::migration(path, error))?;
        Ok(store)
    }

    /// Opens the database beside a relay that may be serving from it: it must have the tables of this
    /// program, and is not changed.
    ///
    /// # Errors
    /// [`StoreError::Version`] if a relay of another version made the tables.
    pub(crate) async fn open_existing(path: &Path) -> Result<Self, StoreError> {
        let store = Self::connect(path)?;
        let wanted = MIGRATIONS.iter().map(|m| m.version).max().unwrap_or(0);
        let found = store.schema_version().await?;
        if found == wanted {
            return Ok(store);
        }
        Err(StoreError::Version {
            file: path.to_owned(),
            found,
            wanted,
        })
    }

    /// Returns a number that differs from the last one read exactly if any connection wrote in between, of this
    /// process or another (SQLite's `data_version`). One cheap look, for a poll; what a relay wrote
    /// itself counts too, so ask [`Self::access_version`] next.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn data_version(&self) -> Result<i64, StoreError> {
        let version = sqlx::query_scalar("PRAGMA data_version");
        Ok(version.fetch_one(&self.watch).await?)
    }

    /// Waits for what is under way and closes the connections. With the last of them SQLite empties its
    /// journal into the file, which then is the whole database: good to be copied alone.
    pub(crate) async fn close(&self) {
        self.watch.close().await;
        self.readers.close().await;
        self.presence.close().await;
        self.durable.close().await;
    }

    fn connect(path: &Path) -> Result<Self, StoreError> {
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
        };
        let relaxed = options.clone().synchronous(SqliteSynchronous::Normal);
        Ok(Self {
            readers: pool(READERS).connect_lazy_with(options.clone()),
            selects: Arc::default(),
            policy: PolicyCache::default(),
            durable: pool(1).connect_lazy_with(options.clone()),
            presence: pool(1).connect_lazy_with(relaxed),
            watch: pool(1).connect_lazy_with(options),
            turns: WriteQueue::default(),
            expiry: TxExpiry::default(),
            tx_timeout: TX_TIMEOUT,
        })
    }

    /// Returns the connections for reads, and counts one SELECT.
    fn reads(&self) -> &SqlitePool {
        self.count_selects(1);
        &self.readers
    }

    /// Counts SELECTs beyond the first of a transaction.
    fn count_selects(&self, count: u64) {
        self.selects.fetch_add(count, Ordering::Relaxed);
    }

    /// Returns how many SELECTs have run so far: all but those inside write transactions, of which no login and no
    /// session has any, and those of background work.
    #[must_use]
    pub(crate) fn selects(&self) -> u64 {
        self.selects.load(Ordering::Relaxed)
    }

    /// Returns the same store for work that no login and no session waits for, whose SELECTs are counted apart.
    #[must_use]
    pub(crate) fn in_background(&self) -> Self {
        Self {
            selects: Arc::default(),
            ..self.clone()
        }
    }

    async fn schema_version(&self) -> Result<i64, StoreError> {
        let tables = "SELECT COUNT(*) FROM sqlite_master WHERE name = '_sqlx_migrations'";
        let migrated: i64 = sqlx::query_scalar(tables).fetch_one(self.reads()).await?;
        if migrated == 0 {
            return Ok(0);
        }
        let newest = "SELECT COALESCE(MAX(version), 0) FROM _sqlx_migrations WHERE success";
        Ok(sqlx::query_scalar(newest).fetch_one(self.reads()).await?)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = self.watch.connect_options();
        f.debug_struct("Store")
            .field("file", &options.get_filename())
            .finish()
    }
}

#[cfg(test)]
mod tests;
