//! PostgreSQL 14 to 18: the tables of one relay on a server.
//!
//! A transaction holds one advisory lock from its beginning to its end, as SQLite has one writer: what is checked in a
//! transaction still holds when it writes, without a thought for each statement. That is enough for one relay. Where
//! several relays write, slots of quotas and presence get locks of their own.
//!
//! A change is noticed by the server's snapshot, one round trip without a table: it differs whenever a transaction that
//! wrote came to an end, and is asked as often as SQLite's `data_version`. A notification would have to be backed by the
//! same poll, because what is sent while a connection is away is lost; it takes a lock of the whole database at each
//! commit, and it does not pass a connection pooler.

pub(crate) mod pool;
pub(crate) mod transaction;

use std::str::FromStr as _;

use sqlx::migrate::Migrator;
use sqlx::postgres::PgConnectOptions;
use tokio::time::timeout;

use crate::clock::{self, Timestamp};
use crate::state::DatabaseUrl;
use crate::store::limits::{
    ANSWER_TIMEOUT, BEGIN_TIMEOUT, CLOCK_ROUND_TRIP, MIGRATION_TIMEOUT, WRITE_TURN_TIMEOUT,
};
use crate::store::{Durability, StoreError};
use pool::{ServerPool, describe};
use transaction::{PostgresTransaction, WriteTurn};

pub(crate) static MIGRATIONS: Migrator = sqlx::migrate!("src/store/migrations/postgres");

/// The versions of PostgreSQL that the relay is tested with.
const VERSIONS: std::ops::RangeInclusive<i64> = 14..=18;
const SERVER: &str = "SELECT CAST(current_setting('server_version_num') AS BIGINT),
    current_setting('server_version'), current_setting('server_encoding')";
// Not what an extension brought, and not the table that sqlx makes before the first of ours.
const FOREIGN: &str = "SELECT CAST(MIN(c.relname) AS TEXT) FROM pg_class c
    WHERE c.relnamespace = CAST(quote_ident(current_schema()) AS regnamespace)
        AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relname <> '_sqlx_migrations'
        AND NOT EXISTS (SELECT 1 FROM pg_depend d
            WHERE d.classid = CAST('pg_class' AS regclass) AND d.objid = c.oid AND d.deptype = 'e')";
// Tables of a relay have this one from the first on.
const HAS_FACTS: &str = "SELECT to_regclass('meta') IS NOT NULL";
// Where the server was started, and when, to the microsecond: no two are the same.
const IDENTITY: &str = "SELECT CONCAT(EXTRACT(EPOCH FROM pg_postmaster_start_time()), ' ', oid)
    FROM pg_database WHERE datname = current_database()";
const PATIENT: &str = "SET statement_timeout = 0; SET lock_timeout = 0";
const CLOCK: &str = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)";
const DATA_VERSION: &str = "SELECT hashtextextended(CAST(pg_current_snapshot() AS TEXT), 0)";

/// The connections to a database on a server. Cloning it is cheap and shares them.
#[derive(Clone, Debug)]
pub(crate) struct Postgres {
    pub(crate) pool: ServerPool,
    turn: WriteTurn,
}

impl Postgres {
    /// Returns the connections to a database, none of which is open yet.
    ///
    /// # Errors
    /// [`StoreError::Url`].
    pub(crate) fn at(url: &DatabaseUrl) -> Result<Self, StoreError> {
        let options = PgConnectOptions::from_str(url.secret());
        let options = options.map_err(|error| StoreError::Url(describe(&error)))?;
        Ok(Self {
            pool: ServerPool::new(options.application_name("holdfast-relay"), url.to_string()),
            turn: WriteTurn::default(),
        })
    }

    /// Checks that the server is one that the relay can use, and returns its version.
    ///
    /// # Errors
    /// [`StoreError::Unsuitable`]; [`StoreError::Unreachable`].
    pub(crate) async fn check_server(&self) -> Result<String, StoreError> {
        let (number, version, encoding): (i64, String, String) = self.pool.ask(SERVER).await?;
        if !VERSIONS.contains(&(number / 10_000)) {
            return Err(StoreError::Unsuitable(format!(
                "{} is PostgreSQL {version}: expected version {} to {}",
                self.pool.name(),
                VERSIONS.start(),
                VERSIONS.end()
            )));
        }
        if encoding != "UTF8" {
            return Err(StoreError::Unsuitable(format!(
                "{} has the encoding {encoding}: expected UTF8; create the database with \
                 `createdb --encoding=UTF8 --template=template0`",
                self.pool.name()
            )));
        }
        Ok(version)
    }

    /// Waits for the writers before, in this process and in others, and begins a transaction.
    ///
    /// # Errors
    /// [`StoreError::Slow`] if other writers hold the store for too long.
    pub(super) async fn begin(
        &self,
        durability: Durability,
    ) -> Result<PostgresTransaction, StoreError> {
        let turn = timeout(WRITE_TURN_TIMEOUT, self.turn.take()).await;
        let turn = turn.map_err(|_| StoreError::Slow(WRITE_TURN_TIMEOUT))?;
        let begin = PostgresTransaction::write(&self.pool, turn, durability);
        let begun = timeout(BEGIN_TIMEOUT, begin).await;
        begun.unwrap_or_else(|_| Err(self.pool.silent(BEGIN_TIMEOUT)))
    }

    pub(super) async fn snapshot(&self) -> Result<PostgresTransaction, StoreError> {
        PostgresTransaction::read(&self.pool).await
    }

    pub(super) async fn data_version(&self) -> Result<i64, StoreError> {
        let (version,): (i64,) = self.pool.ask(DATA_VERSION).await?;
        Ok(version)
    }

    /// Returns the server's time now, or `None` if the answer took so long that it says too little.
    pub(super) async fn clock(&self) -> Result<Option<Timestamp>, StoreError> {
        let asked = clock::instant();
        let (time,): (i64,) = self.pool.ask(CLOCK).await?;
        let took = asked.elapsed();
        Ok((took <= CLOCK_ROUND_TRIP).then(|| Timestamp(time).after(took / 2)))
    }

    pub(super) async fn migrate(&self) -> Result<(), StoreError> {
        self.check_server().await?;
        // Closed afterwards: no other may wait for a lock or a statement for so long.
        let mut lent = self.pool.take().await?;
        let patient = sqlx::raw_sql(PATIENT).execute(lent.connection()?);
        patient
            .await
            .map_err(|error| self.pool.unreachable(&error))?;
        let run = timeout(MIGRATION_TIMEOUT, MIGRATIONS.run(lent.connection()?)).await;
        let Ok(run) = run else {
            return Err(self.pool.silent(MIGRATION_TIMEOUT));
        };
        run.map_err(|error| StoreError::migration(self.pool.name(), error))
    }

    /// Returns what distinguishes this database of a running server from all others, by whatever address it is reached.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn identity(&self) -> Result<String, StoreError> {
        let (identity,): (String,) = self.pool.ask(IDENTITY).await?;
        Ok(identity)
    }

    /// Refuses a database with tables that are no relay's, where no table of a relay is. `migrated` is the version of
    /// the tables, if there are any.
    ///
    /// # Errors
    /// [`StoreError::Foreign`].
    pub(crate) async fn check_ours(&self, migrated: i64) -> Result<(), StoreError> {
        let found = match migrated {
            0 => self.pool.ask::<(Option<String>,)>(FOREIGN).await?.0,
            _ => {
                let (has_facts,): (bool,) = self.pool.ask(HAS_FACTS).await?;
                (!has_facts).then(|| "_sqlx_migrations".to_owned())
            }
        };
        let database = self.pool.name().to_owned();
        match found {
            Some(found) => Err(StoreError::Foreign { database, found }),
            None => Ok(()),
        }
    }

    pub(super) async fn close(&self) {
        // Behind the writer that is under way.
        let turn = timeout(ANSWER_TIMEOUT, self.turn.take()).await;
        self.pool.close().await;
        drop(turn);
    }
}
