//! Orders the writers, and makes commits that several of them share.
//!
//! SQLite allows one writer at a time, and what a commit costs is the disk's answer. So a writer that is
//! done while others wait for their turn leaves its transaction open for them: each adds its change behind
//! a savepoint, and one commit makes all of them last. No success is reported before that commit; if it
//! fails, all of them fail. A writer that gives up takes back only its own change.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sqlx::sqlite::SqliteConnection;
use sqlx::{Sqlite, SqlitePool, Transaction};
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};
use tokio::time::timeout;

use crate::store::limits::TURN_TIMEOUT;
use crate::store::{Durability, StoreError};

/// Drops the savepoint of the member that is done, and sets that of the next.
const NEXT: &str = "RELEASE member; SAVEPOINT member";
const FIRST: &str = "SAVEPOINT member";
const UNDO: &str = "ROLLBACK TO member";

/// The queue of writers. Cloning it is cheap.
#[derive(Clone, Default)]
pub(crate) struct WriteQueue(Arc<WriteQueueInner>);

#[derive(Default)]
struct WriteQueueInner {
    turn: Arc<Mutex<WriteSlot>>,
    /// The writers that wait for a turn: for them a transaction is left open.
    waiting: AtomicUsize,
    #[cfg(test)]
    commits: AtomicUsize,
}

/// The slot in which a transaction is left open between two turns.
type WriteSlot = Option<WriteGroup>;

/// An open transaction. Once it has members, its savepoint `member` is behind what they wrote.
struct WriteGroup {
    tx: Transaction<'static, Sqlite>,
    durability: Durability,
    /// The members that wait for the commit.
    members: Vec<oneshot::Sender<Result<(), StoreError>>>,
    /// True if something may be behind the savepoint: a member writes, or was dropped while it did.
    dirty: bool,
}

/// One writer's turn in a transaction. Dropped without a commit, it takes back what it wrote.
pub(crate) struct BatchWriter {
    turns: WriteQueue,
    /// Holds a group.
    turn: OwnedMutexGuard<WriteSlot>,
}

/// Counts a waiting writer, for as long as it lives.
struct Waits<'a>(&'a AtomicUsize);

impl WriteQueue {
    /// Waits for a turn, and for a transaction: one that is open and survives as much, or a new one on a
    /// connection of `pool`.
    pub(crate) async fn take(
        &self,
        durability: Durability,
        pool: &SqlitePool,
    ) -> Result<BatchWriter, StoreError> {
        let waits = Waits::new(&self.0.waiting);
        let turn = timeout(TURN_TIMEOUT, self.0.turn.clone().lock_owned()).await;
        let mut turn = turn.map_err(|_| StoreError::Slow(TURN_TIMEOUT))?;
        drop(waits);
        let turns = self.clone();
        if let Some(group) = &mut *turn {
            if group.durability >= durability && group.rollback_to_savepoint().await.is_ok() {
                group.dirty = true;
                return Ok(BatchWriter { turns, turn });
            }
            // In a task: should we be dropped, its members still get the result.
            let closed = tokio::spawn(async move {
                turns.close(&mut turn).await;
                turn
            });
            turn = closed.await.map_err(|_| StoreError::Interrupted)?;
        }
        *turn = Some(WriteGroup {
            tx: pool.begin_with("BEGIN IMMEDIATE").await?,
            durability,
            members: Vec::new(),
            dirty: true,
        });
        Ok(BatchWriter {
            turns: self.clone(),
            turn,
        })
    }

    /// Makes the changes of all members last, and notifies them.
    async fn close(&self, slot: &mut WriteSlot) {
        let Some(mut group) = slot.take() else {
            return;
        };
        let committed = match group.rollback_to_savepoint().await {
            Ok(()) => group.tx.commit().await,
            Err(error) => Err(error),
        };
        #[cfg(test)]
        self.0.commits.fetch_add(1, Ordering::Relaxed);
        let committed = committed.map_err(Arc::new);
        for member in group.members {
            // A member that was dropped in the meantime is not notified.
            let _ = member.send(committed.clone().map_err(StoreError::Commit));
        }
    }

    /// Lets others queue for the turn, while the caller has it.
    #[cfg(test)]
    pub(crate) async fn until_waiting(&self, count: usize) {
        while self.0.waiting.load(Ordering::Relaxed) < count {
            tokio::task::yield_now().await;
        }
    }

    /// Closes the transaction that is open when the turn comes: behind all who wait before.
    async fn close_later(self) {
        let mut turn = self.0.turn.clone().lock_owned().await;
        self.close(&mut turn).await;
    }
}

impl WriteGroup {
    /// Takes back what a member left without a commit.
    async fn rollback_to_savepoint(&mut self) -> Result<(), sqlx::Error> {
        if self.dirty {
            sqlx::raw_sql(UNDO).execute(&mut *self.tx).await?;
            self.dirty = false;
        }
        Ok(())
    }
}

impl BatchWriter {
    /// Makes the change last. It lasts when this returns, and not before.
    pub(crate) async fn commit(mut self) -> Result<(), StoreError> {
        let is_alone = self.group().members.is_empty();
        if is_alone && self.turns.0.waiting.load(Ordering::Relaxed) == 0 {
            #[cfg(test)]
            self.turns.0.commits.fetch_add(1, Ordering::Relaxed);
            return match self.turn.take() {
                Some(group) => Ok(group.tx.commit().await?),
                None => Err(StoreError::Interrupted),
            };
        }
        let next = if is_alone { FIRST } else { NEXT };
        sqlx::raw_sql(next).execute(&mut *self.group().tx).await?;
        let (done, outcome) = oneshot::channel();
        let group = self.group();
        group.dirty = false;
        group.members.push(done);
        if is_alone {
            tokio::spawn(self.turns.clone().close_later());
        }
        // Hands on the turn, and the transaction with it.
        drop(self);
        outcome.await.unwrap_or(Err(StoreError::Interrupted))
    }

    #[expect(
        clippy::expect_used,
        reason = "put there by `take`, removed by `commit` and the drop"
    )]
    fn group(&mut self) -> &mut WriteGroup {
        self.turn.as_mut().expect("a member has a group")
    }
}

impl Deref for BatchWriter {
    type Target = SqliteConnection;
    #[expect(
        clippy::expect_used,
        reason = "put there by `take`, removed by `commit` and the drop"
    )]
    fn deref(&self) -> &SqliteConnection {
        &self.turn.as_ref().expect("a member has a group").tx
    }
}

impl DerefMut for BatchWriter {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.group().tx
    }
}

impl Drop for BatchWriter {
    fn drop(&mut self) {
        // A transaction without any change is rolled back. One with members stays: the one that
        // comes next takes back what this one wrote.
        self.turn.take_if(|group| group.members.is_empty());
    }
}

impl<'a> Waits<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
