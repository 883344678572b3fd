//! The connections to a server.
//!
//! Not the pool of sqlx: that one asks the server whether a connection is alive each time it takes it back, and waits for
//! the answer without a limit. Behind a server that hangs, or a network that swallows packets, all connections would be
//! gone one after the other. Here a connection that did not answer in time, or whose statement was given up, is closed.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{ConnectOptions as _, Connection as _, FromRow};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::clock;
use crate::log::outage;
use crate::store::StoreError;
use crate::store::limits::{
    ANSWER_TIMEOUT, CONNECT_TIMEOUT, IDLE_CONNECTION, SERVER_CONNECTIONS, TAKE_TIMEOUT,
};
use crate::sync::Mutex;

/// The settings of each connection. The server itself ends what a relay has left behind, so that the lock of writers is
/// free again: transactions without a next statement, and statements that nothing waits for any more.
const SETTINGS: &str = "SET idle_in_transaction_session_timeout = '10s';
    SET statement_timeout = '5s'; SET lock_timeout = '3500ms'; SET client_min_messages = 'warning';
    SET default_transaction_isolation = 'read committed'; SET synchronous_commit = 'on'";

/// A server's words for "I am going away": the connection is of no use any more.
const GOING_AWAY: [&str; 4] = ["57P01", "57P02", "57P03", "25P03"];
/// The server's codes for a wrong password, or none, and for a user that may not log in from there.
const NO_LOGIN: [&str; 2] = ["28P01", "28000"];
/// The server's code for a database that is not there.
const NO_DATABASE: &str = "3D000";
/// The server's code for a lock that did not become free in time.
const LOCK_NOT_AVAILABLE: &str = "55P03";
/// The server's code for a statement that took too long.
const QUERY_CANCELED: &str = "57014";

/// The connections to a server. Cloning it is cheap and shares them.
#[derive(Clone)]
pub(crate) struct ServerPool(Arc<PoolInner>);

struct PoolInner {
    options: PgConnectOptions,
    /// The server and the database, without a password.
    name: String,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<IdleConnection>>,
    closed: AtomicBool,
}

struct IdleConnection {
    connection: PgConnection,
    since: Instant,
}

/// A connection that is in use. Dropped, it is closed: see [`Self::give_back`].
pub(crate) struct Lent {
    connection: Option<PgConnection>,
    pool: ServerPool,
    is_reused: bool,
    _permit: OwnedSemaphorePermit,
}

impl ServerPool {
    pub(super) fn new(options: PgConnectOptions, name: String) -> Self {
        Self(Arc::new(PoolInner {
            options: options.disable_statement_logging(),
            name,
            permits: Arc::new(Semaphore::new(SERVER_CONNECTIONS)),
            idle: Mutex::default(),
            closed: AtomicBool::new(false),
        }))
    }

    /// Returns the server and the database, without a password.
    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }

    /// Returns a connection that is free, or a new one.
    ///
    /// # Errors
    /// [`StoreError::Exhausted`]; [`StoreError::Unreachable`].
    pub(crate) async fn take(&self) -> Result<Lent, StoreError> {
        let permit = timeout(TAKE_TIMEOUT, self.0.permits.clone().acquire_owned()).await;
        let permit =
            permit.map_err(|_| StoreError::Exhausted(self.0.name.clone(), TAKE_TIMEOUT))?;
        let permit = permit.map_err(|_| StoreError::Interrupted)?;
        if self.0.closed.load(Ordering::Relaxed) {
            return Err(StoreError::Interrupted);
        }
        let idle = self.0.idle.lock().pop();
        let is_reused = idle.is_some();
        let connection = match idle {
            Some(idle) => idle.connection,
            None => self.connect().await?,
        };
        Ok(Lent {
            connection: Some(connection),
            pool: self.clone(),
            is_reused,
            _permit: permit,
        })
    }

    /// Returns the one row of a query without values.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) async fn ask<T>(&self, sql: &'static str) -> Result<T, StoreError>
    where
        T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        loop {
            let mut lent = self.take().await?;
            let ask = sqlx::query_as(sql).fetch_one(lent.connection()?);
            let done = timeout(ANSWER_TIMEOUT, ask).await;
            if let Some(done) = lent.settle(done) {
                return done;
            }
        }
    }

    async fn connect(&self) -> Result<PgConnection, StoreError> {
        let connect = async {
            let mut connection = PgConnection::connect_with(&self.0.options).await?;
            sqlx::raw_sql(SETTINGS).execute(&mut connection).await?;
            Ok::<_, sqlx::Error>(connection)
        };
        let failed = match timeout(CONNECT_TIMEOUT, connect).await {
            Ok(Ok(connection)) => {
                outage::answered(&self.0.name);
                return Ok(connection);
            }
            Ok(Err(error)) => self.unreachable(&error),
            Err(_) => self.silent(CONNECT_TIMEOUT),
        };
        outage::failed(&self.0.name, &failed);
        Err(failed)
    }

    /// Closes what is idle, and what is given back later.
    pub(super) async fn close(&self) {
        self.0.closed.store(true, Ordering::Relaxed);
        let idle = std::mem::take(&mut *self.0.idle.lock());
        for idle in idle {
            // A farewell that the server does not take is none.
            let _ = timeout(Duration::from_secs(1), idle.connection.close()).await;
        }
    }

    /// Returns the error that the server did not answer.
    pub(crate) fn silent(&self, limit: Duration) -> StoreError {
        StoreError::Silent(self.0.name.clone(), limit)
    }

    /// Returns the error that the server cannot be reached.
    pub(super) fn unreachable(&self, error: &sqlx::Error) -> StoreError {
        let (name, why) = (self.0.name.clone(), describe(error));
        let code = error.as_database_error().and_then(|error| error.code());
        match code.as_deref() {
            Some(code) if NO_LOGIN.contains(&code) => StoreError::NotAdmitted(
                name,
                why,
                "check the user and the password, which is in the address, or in PGPASSWORD or ~/.pgpass of the account \
                 that runs this; and pg_hba.conf on the server",
            ),
            Some(NO_DATABASE) => StoreError::NotAdmitted(
                name,
                why,
                "make it with `createdb --owner=USER --encoding=UTF8 --template=template0 NAME`",
            ),
            _ => StoreError::Unreachable(name, why),
        }
    }

    /// Returns the error for what the server, or the connection to it, said.
    pub(crate) fn error(&self, error: sqlx::Error) -> StoreError {
        if is_connection_lost(&error) {
            return self.unreachable(&error);
        }
        let code = error.as_database_error().and_then(|error| error.code());
        match code.as_deref() {
            Some(LOCK_NOT_AVAILABLE) => StoreError::Slow(ANSWER_TIMEOUT),
            Some(QUERY_CANCELED) => self.silent(ANSWER_TIMEOUT),
            _ => StoreError::Database(error),
        }
    }
}

impl fmt::Debug for ServerPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServerPool").field(&self.0.name).finish()
    }
}

impl Lent {
    /// Returns the connection.
    ///
    /// # Errors
    /// [`StoreError::Interrupted`] if it was given back, which this module never does before it is done with it.
    pub(crate) fn connection(&mut self) -> Result<&mut PgConnection, StoreError> {
        self.connection.as_mut().ok_or(StoreError::Interrupted)
    }

    /// Returns what came of a read, and gives the connection back if it is still good; `None`: the server had closed it
    /// before, so try the read again with another.
    pub(crate) fn settle<T>(
        self,
        done: Result<Result<T, sqlx::Error>, tokio::time::error::Elapsed>,
    ) -> Option<Result<T, StoreError>> {
        let is_reused = self.is_reused;
        let is_lost = matches!(&done, Ok(Err(error)) if is_connection_lost(error));
        let done = self.outcome(done);
        if is_lost && is_reused {
            return None;
        }
        Some(done.map_err(|(_, error)| error).map(|(lent, done)| {
            lent.give_back();
            done
        }))
    }

    /// Returns what came of a statement, with the connection if it is still good.
    pub(super) fn outcome<T>(
        self,
        done: Result<Result<T, sqlx::Error>, tokio::time::error::Elapsed>,
    ) -> Result<(Self, T), (Option<Self>, StoreError)> {
        match done {
            Ok(Ok(done)) => {
                outage::answered(&self.pool.0.name);
                Ok((self, done))
            }
            Ok(Err(error)) => {
                let is_lost = is_connection_lost(&error);
                let failed = self.pool.error(error);
                if is_lost {
                    // One that was idle may have been closed for that: the next one shows it.
                    if !self.is_reused {
                        outage::failed(&self.pool.0.name, &failed);
                    }
                    // What else is idle went the same way.
                    self.pool.0.idle.lock().clear();
                    return Err((None, failed));
                }
                Err((Some(self), failed))
            }
            Err(_) => {
                let failed = self.pool.silent(ANSWER_TIMEOUT);
                outage::failed(&self.pool.0.name, &failed);
                Err((None, failed))
            }
        }
    }

    /// Gives the connection back for others.
    pub(super) fn give_back(mut self) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        if self.pool.0.closed.load(Ordering::Relaxed) {
            return;
        }
        let mut idle = self.pool.0.idle.lock();
        idle.retain(|idle| idle.since.elapsed() < IDLE_CONNECTION);
        let since = clock::instant();
        idle.push(IdleConnection { connection, since });
    }

    pub(super) fn is_reused(&self) -> bool {
        self.is_reused
    }
}

/// Returns whether nothing more can be said over the connection.
pub(super) fn is_connection_lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => true,
        sqlx::Error::Database(error) => error
            .code()
            .is_some_and(|code| GOING_AWAY.contains(&code.as_ref())),
        _ => false,
    }
}

/// Returns an error's words, without those that sqlx puts before them.
pub(super) fn describe(error: &sqlx::Error) -> String {
    match error {
        // sqlx does not say which. A server's name that is not found is another error.
        sqlx::Error::Io(error) if error.kind() == io::ErrorKind::NotFound => format!(
            "a file that the address names is not there, as sslrootcert, sslcert, sslkey or the \
             server's socket: {error}"
        ),
        sqlx::Error::Io(error) => error.to_string(),
        sqlx::Error::Tls(error) => format!("TLS: {error}"),
        sqlx::Error::Configuration(error) => error.to_string(),
        sqlx::Error::Database(error) => error.message().to_owned(),
        error => error.to_string(),
    }
}
