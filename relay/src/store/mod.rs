//! The relay's memory, in SQLite or PostgreSQL: one file per table, one set of queries.
//!
//! Every change is made through a [`Tx`]: `let mut tx = store.begin(durability).await?`, the changes, the audit rows
//! that describe them, `tx.commit().await?`. All writers of a process queue for one turn, in order; only processes contend
//! for the database (an admin command beside a serving relay). Readers never wait. What differs between the two databases
//! is in [`backend`].

pub(crate) mod access;
pub(crate) mod audit;
pub(crate) mod backend;
pub(crate) mod cluster;
pub(crate) mod devices;
mod entry;
mod error;
pub(crate) mod limits;
pub(crate) mod meta;
pub(crate) mod recordings;
pub(crate) mod sessions;
mod tx;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

pub(crate) use crate::model::device::{ClonePair, Device, PresenceState};
pub(crate) use crate::model::labels::Labels;
pub(crate) use crate::model::user::{Prints, User, UserId};
pub(crate) use crate::state::{Database, MemberId};
pub(crate) use access::authorities::{Authority, AuthorityError};
pub(crate) use access::locks::{Kill, LockError, NewLock};
pub(crate) use access::policy::{Apply, ApplyError, Change, Policy, UserPolicy};
pub(crate) use access::revocations::{Revocation, RevocationChange, RevocationError, RevokedThing};
pub(crate) use access::roles::RoleError;
pub(crate) use access::user_changes::{KeyError, NewUser};
pub(crate) use access::users::{UserKey, UserRow};
pub(crate) use audit::{AuditFilter, AuditRemoved};
pub(crate) use backend::transfer::{TransferProgress, TransferReport, transfer, transfer_target};
pub(crate) use cluster::members::ServingMember;
pub(crate) use cluster::relays::{RELAY_HEARTBEAT_STALE, RelayId};
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
pub(crate) use sessions::console_streams::ConsoleRow;
pub(crate) use sessions::facts::SessionFacts;
pub(crate) use sessions::leases::LeaseRow;
pub(crate) use sessions::{BoardChange, SessionRow, Traffic};
pub(crate) use tx::Tx;

use crate::clock::Timestamp;
use access::snapshot::PolicyCache;
use backend::connection::Db;
use backend::postgres::Postgres;
use backend::sql;
use backend::sqlite::SqliteFile;
use limits::TX_TIMEOUT;
use tx::TxExpiry;

/// The store. Cloning it is cheap and shares the connections.
#[derive(Clone)]
pub(crate) struct Store {
    db: Db,
    /// The member of the cluster that uses it, where that makes a difference.
    member: MemberId,
    /// The number of SELECTs that ran for this store and its clones, background work aside.
    selects: Arc<AtomicU64>,
    policy: PolicyCache,
    /// True if the last poll of the database failed.
    unanswered: Arc<AtomicBool>,
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
    /// Opens the database of the relay that holds the state's lock, makes its tables if there are none, and
    /// brings them up to date.
    ///
    /// # Errors
    /// [`StoreError`] if it is no database of the relay's, is newer than this program, or cannot be written.
    pub(crate) async fn open(database: impl Into<Database>) -> Result<Self, StoreError> {
        let store = Self::connect(&database.into())?;
        store.check_here().await?;
        store.check_ours().await?;
        store.db.migrate().await?;
        store.follow_clock().await?;
        Ok(store)
    }

    /// Opens the file of a relay, also where its state was moved to a server before: see [`Self::moved_to`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn open_source(database: impl Into<Database>) -> Result<Self, StoreError> {
        let store = Self::connect(&database.into())?;
        store.db.migrate().await?;
        Ok(store)
    }

    /// Opens the database beside a relay that may be serving from it: it must have the tables of this
    /// program, and is not changed.
    ///
    /// # Errors
    /// [`StoreError::Version`] if a relay of another version made the tables.
    pub(crate) async fn open_existing(database: impl Into<Database>) -> Result<Self, StoreError> {
        let database = database.into();
        let store = Self::connect(&database)?;
        store.check_here().await?;
        if let Db::Postgres(server) = &store.db {
            server.check_server().await?;
        }
        let wanted = store.db.wanted_version();
        let found = store.schema_version().await?;
        if found == wanted {
            store.follow_clock().await?;
            return Ok(store);
        }
        Err(StoreError::Version {
            file: database.to_string(),
            found,
            wanted,
        })
    }

    /// Returns a number that differs from the last one read if any connection wrote in between, of this
    /// process or another. One cheap look, for a poll; what a relay wrote itself counts too, so ask
    /// [`Self::access_version`] next.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn data_version(&self) -> Result<i64, StoreError> {
        let version = self.db.data_version().await;
        self.unanswered.store(version.is_err(), Ordering::Relaxed);
        version
    }

    /// Returns whether the database answered the last poll of the relay that serves, [`Self::data_version`].
    #[must_use]
    pub(crate) fn answers(&self) -> bool {
        !self.unanswered.load(Ordering::Relaxed)
    }

    /// Makes the time of this process that of the database, if it is on a server: see [`Timestamp::follow`]. Returns by
    /// how many microseconds the machine's clock is ahead of it, unless the server took too long to say.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn follow_clock(&self) -> Result<Option<i64>, StoreError> {
        let Some(theirs) = self.db.clock().await? else {
            return Ok(None);
        };
        theirs.follow();
        Ok(Some(Timestamp::of_machine().0.saturating_sub(theirs.0)))
    }

    /// Returns whether other relays may serve from this database.
    #[must_use]
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self.db, Db::Postgres(_))
    }

    /// Waits for what is under way and closes the connections.
    pub(crate) async fn close(&self) {
        self.db.close().await;
    }

    fn connect(database: &Database) -> Result<Self, StoreError> {
        if let Some(on_server) = database.named_in_its_place() {
            return Err(StoreError::Elsewhere {
                file: database.to_string(),
                database: on_server,
            });
        }
        let db = match database {
            Database::File(path) => Db::Sqlite(SqliteFile::at(path)),
            Database::Server(url) => Db::Postgres(Postgres::at(url)?),
        };
        Ok(Self {
            db,
            member: MemberId::FIRST,
            selects: Arc::default(),
            policy: PolicyCache::default(),
            unanswered: Arc::default(),
            expiry: TxExpiry::default(),
            tx_timeout: TX_TIMEOUT,
        })
    }

    /// Returns where reads run, and counts one SELECT.
    fn reads(&self) -> &Db {
        self.count_selects(1);
        &self.db
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

    /// Returns the same store for what each member of the cluster keeps of its own.
    #[must_use]
    pub(crate) fn of_member(&self, member: MemberId) -> Self {
        Self {
            member,
            ..self.clone()
        }
    }

    async fn schema_version(&self) -> Result<i64, StoreError> {
        let tables = match &self.db {
            Db::Sqlite(_) => "SELECT COUNT(*) FROM sqlite_master WHERE name = '_sqlx_migrations'",
            Db::Postgres(_) => "SELECT COUNT(to_regclass('_sqlx_migrations'))",
        };
        let migrated: i64 = sql::query_scalar(tables).fetch_one(self.reads()).await?;
        if migrated == 0 {
            return Ok(0);
        }
        let newest = "SELECT COALESCE(MAX(version), 0) FROM _sqlx_migrations WHERE success";
        sql::query_scalar(newest).fetch_one(self.reads()).await
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.db).finish()
    }
}

#[cfg(test)]
pub(crate) mod tests;
