//! A transaction on a server.

use std::sync::Arc;

use sqlx::postgres::PgConnection;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::pool::{Lent, ServerPool, is_connection_lost};
use crate::store::limits::ANSWER_TIMEOUT;
use crate::store::{Durability, StoreError};

/// Begins a write: behind the lock, the server shows what the writer before it has committed.
const WRITE_DISK: &str = "BEGIN; SELECT pg_advisory_xact_lock(1)";
const WRITE_PROCESS: &str =
    "BEGIN; SET LOCAL synchronous_commit = off; SELECT pg_advisory_xact_lock(1)";
const READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// The turn of this process's writers: one of them waits at the server, the others here, without a connection each.
#[derive(Clone, Debug, Default)]
pub(super) struct WriteTurn(Arc<Mutex<()>>);

/// A transaction. Dropped without a commit, it is rolled back.
pub(crate) struct PostgresTransaction {
    /// `None` once the connection is of no use any more.
    lent: Option<Lent>,
    pool: ServerPool,
    /// Held until the server has let go of its lock.
    turn: Option<OwnedMutexGuard<()>>,
    /// A statement failed: the server takes no more of them, and answers a commit with a rollback.
    has_failed: bool,
}

impl WriteTurn {
    pub(super) async fn take(&self) -> OwnedMutexGuard<()> {
        self.0.clone().lock_owned().await
    }
}

impl PostgresTransaction {
    pub(super) async fn write(
        pool: &ServerPool,
        turn: OwnedMutexGuard<()>,
        durability: Durability,
    ) -> Result<Self, StoreError> {
        let begin = match durability {
            Durability::Disk => WRITE_DISK,
            Durability::Process => WRITE_PROCESS,
        };
        Self::begin(pool, Some(turn), begin).await
    }

    pub(super) async fn read(pool: &ServerPool) -> Result<Self, StoreError> {
        Self::begin(pool, None, READ).await
    }

    async fn begin(
        pool: &ServerPool,
        mut turn: Option<OwnedMutexGuard<()>>,
        sql: &'static str,
    ) -> Result<Self, StoreError> {
        loop {
            let lent = pool.take().await?;
            let is_reused = lent.is_reused();
            // From here on a rollback is owed, and the turn is kept for it: also if nothing waits for the server's answer
            // any more.
            let mut this = Self {
                lent: Some(lent),
                pool: pool.clone(),
                turn: turn.take(),
                has_failed: false,
            };
            let begin = sqlx::raw_sql(sql).execute(this.connection()?);
            let done = timeout(ANSWER_TIMEOUT, begin).await;
            let is_lost = matches!(&done, Ok(Err(error)) if is_connection_lost(error));
            match this.settle(done) {
                Err(_) if is_lost && is_reused => turn = this.turn.take(),
                Err(error) => return Err(error),
                Ok(_) => return Ok(this),
            }
        }
    }

    /// Returns the connection for the next statement.
    ///
    /// # Errors
    /// [`StoreError::Abandoned`] if it is lost.
    pub(crate) fn connection(&mut self) -> Result<&mut PgConnection, StoreError> {
        match &mut self.lent {
            Some(lent) => lent.connection(),
            None => Err(StoreError::Abandoned(self.pool.name().to_owned())),
        }
    }

    /// Returns what came of a statement.
    pub(crate) fn settle<T>(
        &mut self,
        done: Result<Result<T, sqlx::Error>, Elapsed>,
    ) -> Result<T, StoreError> {
        let Some(lent) = self.lent.take() else {
            return Err(StoreError::Abandoned(self.pool.name().to_owned()));
        };
        match lent.outcome(done) {
            Ok((lent, done)) => {
                self.lent = Some(lent);
                Ok(done)
            }
            Err((lent, error)) => {
                self.lent = lent;
                self.has_failed = true;
                Err(error)
            }
        }
    }

    /// Makes the changes last.
    ///
    /// # Errors
    /// [`StoreError::Unconfirmed`] if the server did not say whether it did.
    pub(crate) async fn commit(mut self) -> Result<(), StoreError> {
        let name = self.pool.name().to_owned();
        if self.has_failed {
            return Err(StoreError::Abandoned(name));
        }
        let commit = sqlx::raw_sql("COMMIT").execute(self.connection()?);
        let done = timeout(ANSWER_TIMEOUT, commit).await;
        self.settle(done).map_err(|error| match error {
            StoreError::Database(_) => error,
            _ => StoreError::Unconfirmed(name),
        })?;
        if let Some(lent) = self.lent.take() {
            lent.give_back();
        }
        Ok(())
    }
}

impl Drop for PostgresTransaction {
    fn drop(&mut self) {
        let (Some(mut lent), Ok(runtime)) = (self.lent.take(), Handle::try_current()) else {
            return;
        };
        let turn = self.turn.take();
        runtime.spawn(async move {
            let Ok(connection) = lent.connection() else {
                return;
            };
            let rollback = sqlx::raw_sql("ROLLBACK").execute(connection);
            // A connection that does not answer is closed, and the server rolls back by itself.
            if matches!(timeout(ANSWER_TIMEOUT, rollback).await, Ok(Ok(_))) {
                lent.give_back();
            }
            drop(turn);
        });
    }
}
