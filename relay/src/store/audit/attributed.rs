//! Changes that are recorded in the audit log by the very transaction that makes them: no change without its
//! rows, and no rows without their change.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_protocol::ids::{DeviceId, DeviceName};
use serde_json::Value;

use crate::store::{AuditEntry, Store, Write};

/// The rows that the next durable change of a store takes with it.
#[derive(Clone)]
pub(crate) struct Attributed(Arc<AttributedInner>);

struct AttributedInner {
    entries: Mutex<Option<Vec<AuditEntry>>>,
    written: AtomicBool,
}

impl Attributed {
    /// Returns whether the change was made, and its rows written with it.
    #[must_use]
    pub(crate) fn is_written(&self) -> bool {
        self.0.written.load(Ordering::Acquire)
    }

    pub(crate) fn take(&self) -> Option<(Vec<AuditEntry>, Self)> {
        let entries = self.0.entries.lock();
        let entries = entries.unwrap_or_else(PoisonError::into_inner).take();
        entries.map(|entries| (entries, self.clone()))
    }

    pub(crate) fn set_written(&self) {
        self.0.written.store(true, Ordering::Release);
    }
}

impl Store {
    /// Returns the same store, whose next durable change appends `entries` to the audit log. A change that fails, or
    /// turns out to be none, appends nothing: see [`Attributed::is_written`].
    #[must_use]
    pub(crate) fn attributed(&self, entries: Vec<AuditEntry>) -> (Self, Attributed) {
        let attributed = Attributed(Arc::new(AttributedInner {
            entries: Mutex::new(Some(entries)),
            written: AtomicBool::new(false),
        }));
        let mut store = self.clone();
        store.attributed = Some(attributed.clone());
        (store, attributed)
    }
}

impl Write {
    /// Adds to the change's rows what only the transaction knows.
    pub(crate) fn fact(&mut self, name: &str, value: impl Into<Value>) {
        let value = value.into();
        for entry in self.entries() {
            entry.more.insert(name.to_owned(), value.clone());
        }
    }

    /// Says which device the change is about.
    pub(crate) fn about(&mut self, id: DeviceId, name: &DeviceName) {
        for entry in self.entries() {
            entry.device = Some(name.to_string());
            entry.device_id = Some(id.to_string());
        }
    }

    /// Says that nothing is changed after all: there is nothing to tell.
    pub(crate) fn unchanged(&mut self) {
        self.rows = None;
    }

    fn entries(&mut self) -> impl Iterator<Item = &mut AuditEntry> {
        self.rows.iter_mut().flat_map(|(entries, _)| entries)
    }
}
