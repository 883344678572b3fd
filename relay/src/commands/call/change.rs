//! The change that a command makes, and its row in the audit log: one transaction.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::store::{AuditEntry, Durability, Store, StoreError, Tx};
use crate::sync::Mutex;

/// The audit row of a command, which the command's first transaction writes. The default is of a command without one.
#[derive(Clone, Default)]
pub(crate) struct CommandRow(Arc<CommandRowInner>);

#[derive(Default)]
struct CommandRowInner {
    entry: Mutex<Option<AuditEntry>>,
    written: AtomicBool,
}

/// A transaction of a command. Dropped without a commit, it takes back everything.
pub(in crate::commands) struct CommandTx {
    tx: Tx,
    row: CommandRow,
}

impl CommandRow {
    /// Returns a row that is not written yet.
    pub(in crate::commands) fn new(entry: AuditEntry) -> Self {
        Self(Arc::new(CommandRowInner {
            entry: Mutex::new(Some(entry)),
            written: AtomicBool::new(false),
        }))
    }

    /// Returns whether it was written, with the change that it describes.
    pub(in crate::commands) fn is_written(&self) -> bool {
        self.0.written.load(Ordering::Acquire)
    }

    fn take(&self) -> Option<AuditEntry> {
        let mut entry = self.0.entry.lock();
        entry.take()
    }
}

impl CommandTx {
    /// Begins a change, which survives a power cut once it is committed, and which takes the row with it unless an
    /// earlier one did.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) async fn begin(store: &Store, row: &CommandRow) -> Result<Self, StoreError> {
        let mut tx = store.begin(Durability::Disk).await?;
        if let Some(entry) = row.take() {
            tx.audit(entry);
        }
        let row = row.clone();
        Ok(Self { tx, row })
    }

    /// Makes the change and the command's audit row last; without the row if nothing was changed after all.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing was changed.
    pub(in crate::commands) async fn commit(self) -> Result<(), StoreError> {
        let is_audited = self.tx.is_audited();
        self.tx.commit().await?;
        if is_audited {
            self.row.0.written.store(true, Ordering::Release);
        }
        Ok(())
    }
}

impl Deref for CommandTx {
    type Target = Tx;
    fn deref(&self) -> &Tx {
        &self.tx
    }
}

impl DerefMut for CommandTx {
    fn deref_mut(&mut self) -> &mut Tx {
        &mut self.tx
    }
}

impl fmt::Debug for CommandRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandRow").finish_non_exhaustive()
    }
}
