//! A write transaction as a value: changes, the audit rows that describe them, and one commit for all of it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use holdfast_protocol::ids::{DeviceId, DeviceName};
use serde_json::Value;
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard, Notify};
use tokio::time::{Instant, sleep_until};

use super::backend::connection::StoreConnection;
use super::entry::{self, AuditEntry};
use super::{Durability, Store, StoreError};
use crate::clock;

/// A write transaction. It is the only writer for as long as it is open, and never fails half-way for a lock. Dropped
/// without a commit, it takes back everything; so does one that has not begun a statement for
/// [`TX_TIMEOUT`](super::limits::TX_TIMEOUT).
pub(crate) struct Tx {
    writer: Arc<TxWriter>,
    expiry: TxExpiry,
    /// The time that it has for each step.
    timeout: Duration,
    /// Appended to the audit log by the commit.
    rows: Vec<AuditEntry>,
}

/// The turn of a transaction; empty once the transaction has stood still for too long.
type TxWriter = Mutex<Option<StoreConnection>>;

/// Takes transactions back whose time is over. Only one is open at any time, so one task is enough for all of them; it
/// runs while there are any.
#[derive(Clone, Default)]
pub(super) struct TxExpiry(Arc<TxExpiryInner>);

#[derive(Default)]
struct TxExpiryInner {
    state: crate::sync::Mutex<ExpiryState>,
    /// A transaction began that has less time than the one before.
    sooner: Notify,
}

#[derive(Default)]
struct ExpiryState {
    /// The transaction that began last, and when its time is over.
    last: Option<(Weak<TxWriter>, Instant)>,
    /// The time of the next look of the task; `None`: it does not run.
    looks: Option<Instant>,
}

impl Store {
    /// Begins a write transaction, whose commit survives as much as `durability` says. It waits for the writers before
    /// it, and those that come later wait for it: do nothing in between that may take long.
    ///
    /// # Errors
    /// [`StoreError::Slow`] if other writers hold the store for too long.
    pub(crate) async fn begin(&self, durability: Durability) -> Result<Tx, StoreError> {
        let writer = self.db.begin(durability).await?;
        let writer = Arc::new(Mutex::new(Some(writer)));
        self.expiry.begin(&writer, self.tx_timeout);
        Ok(Tx {
            writer,
            expiry: self.expiry.clone(),
            timeout: self.tx_timeout,
            rows: Vec::new(),
        })
    }

    /// Makes one change in a transaction of its own, without an audit row.
    #[cfg(test)]
    pub(crate) async fn change<T, E: From<StoreError>>(
        &self,
        change: impl AsyncFnOnce(&mut Tx) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut tx = self.begin(Durability::Disk).await?;
        let done = change(&mut tx).await?;
        tx.commit().await?;
        Ok(done)
    }
}

impl Tx {
    /// Adds a row to the audit log, which the commit writes: no change without its rows, and no rows without their
    /// change. The changes that come after it in this transaction may add facts to it, or drop it if they turn out to
    /// change nothing.
    pub(crate) fn audit(&mut self, entry: AuditEntry) {
        self.rows.push(entry);
    }

    /// Returns whether the commit will write rows to the audit log.
    #[must_use]
    pub(crate) fn is_audited(&self) -> bool {
        !self.rows.is_empty()
    }

    /// Makes the changes and their audit rows last. They last when this returns, and not before.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing was changed.
    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        let writer = self.writer.lock().await.take();
        let mut writer = writer.ok_or(StoreError::Expired(self.timeout))?;
        entry::append(&mut writer, &self.rows).await?;
        writer.commit().await
    }

    /// Returns the connection for the next statements of the transaction, whose time begins again with that: a change of
    /// many rows may take as long as it needs.
    ///
    /// # Errors
    /// [`StoreError::Expired`] if the transaction has stood still for too long.
    pub(super) async fn connection(
        &mut self,
    ) -> Result<MappedMutexGuard<'_, StoreConnection>, StoreError> {
        let writer = self.writer.lock().await;
        let connection = MutexGuard::try_map(writer, Option::as_mut)
            .map_err(|_| StoreError::Expired(self.timeout))?;
        self.expiry.extend(self.timeout);
        Ok(connection)
    }

    /// Adds to the rows what only the transaction can say.
    pub(super) fn fact(&mut self, name: &str, value: impl Into<Value>) {
        let value = value.into();
        for entry in &mut self.rows {
            entry.more.insert(name.to_owned(), value.clone());
        }
    }

    /// Adds the device to the rows that the change is about.
    pub(super) fn about(&mut self, id: DeviceId, name: &DeviceName) {
        for entry in &mut self.rows {
            entry.device = Some(name.to_string());
            entry.device_id = Some(id.to_string());
        }
    }

    /// Drops the rows: nothing is changed after all.
    pub(super) fn unchanged(&mut self) {
        self.rows.clear();
    }
}

impl TxExpiry {
    /// Begins the time of a transaction.
    fn begin(&self, writer: &Arc<TxWriter>, timeout: Duration) {
        let over = clock::instant() + timeout;
        let mut state = self.state();
        state.last = Some((Arc::downgrade(writer), over));
        match state.looks {
            None => {
                state.looks = Some(over);
                tokio::spawn(self.clone().run());
            }
            Some(looks) if over < looks => self.0.sooner.notify_one(),
            Some(_) => {}
        }
    }

    /// Restarts the time of the open transaction. The task finds that out when the old time is over.
    fn extend(&self, timeout: Duration) {
        if let Some((_, over)) = &mut self.state().last {
            *over = clock::instant() + timeout;
        }
    }

    async fn run(self) {
        while let Some(over) = self.next() {
            tokio::select! {
                () = sleep_until(over) => {}
                () = self.0.sooner.notified() => {}
            }
            if let Some(writer) = self.expired() {
                // Behind the statement that runs, if one does.
                drop(writer.lock().await.take());
            }
        }
    }

    /// Returns when the time of the open transaction is over; `None` if there is none.
    fn next(&self) -> Option<Instant> {
        let mut state = self.state();
        let open = state.last.as_ref();
        state.looks = open
            .filter(|(writer, _)| writer.strong_count() > 0)
            .map(|(_, over)| *over);
        state.looks
    }

    /// Returns the transaction whose time is over.
    fn expired(&self) -> Option<Arc<TxWriter>> {
        let mut state = self.state();
        let (writer, _) = state.last.take_if(|(_, over)| *over <= clock::instant())?;
        writer.upgrade()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, ExpiryState> {
        self.0.state.lock()
    }
}
