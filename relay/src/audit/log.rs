//! The one writer of this process: it takes all that waits, and gives it to the store in one commit.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::health::{Health, LogTarget, WhenUnwritable};
use super::{AuditError, Event, EventKind};
use crate::audit::limits::{AUDIT_BATCH, AUDIT_HELD, AUDIT_PROBE, AUDIT_TIMEOUT};
use crate::clock::Timestamp;
use crate::model::invalid::Fault;
use crate::store::{AuditEntry, Durability, Store, StoreError};

/// A message of the queue.
pub(super) enum LogMessage {
    /// A caller waits for these rows.
    Record(Vec<AuditEntry>, LogDone),
    /// No caller waits for it.
    Note(Box<AuditEntry>),
    /// Write all that came before, and end.
    Close(LogDone),
}

/// The remedy where the database fails for a reason that names none.
const STORE_REMEDY: &str =
    "see that the disk of the state folder is writable, with free space, and not slow";

pub(super) type LogDone = oneshot::Sender<Result<(), AuditError>>;

/// The writer.
pub(super) struct Writer {
    pub(super) store: Store,
    pub(super) queue: mpsc::Receiver<LogMessage>,
    pub(super) health: Arc<Health>,
    /// Notified after each commit.
    pub(super) written: Arc<Notify>,
    /// The name of this relay in rows.
    pub(super) relay: Option<String>,
    /// The entries that could not be written yet: at most [`AUDIT_HELD`].
    pub(super) held: VecDeque<AuditEntry>,
    /// The entries that will never be written.
    pub(super) lost: Option<Lost>,
}

/// The entries that will never be written.
pub(super) struct Lost {
    count: u64,
    first: Timestamp,
    last: Timestamp,
    /// The number of lost events by name: as many names as there are kinds.
    events: BTreeMap<String, u64>,
}

impl Writer {
    /// Runs until it is closed, or all senders are gone.
    pub(super) async fn run(mut self) {
        let mut probe = interval(AUDIT_PROBE);
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(AUDIT_BATCH);
        loop {
            tokio::select! {
                taken = self.queue.recv_many(&mut batch, AUDIT_BATCH) => if taken == 0 {
                    return;
                },
                _ = probe.tick(), if self.health.is_broken(LogTarget::Store) => {}
            }
            if let Some(closed) = self.write(batch.drain(..)).await {
                let _ = closed.send(Ok(()));
                return;
            }
        }
    }

    /// Writes what is held and what came. Returns the caller that asked for the end, if one did.
    async fn write(&mut self, batch: impl Iterator<Item = LogMessage>) -> Option<LogDone> {
        let mut entries: Vec<AuditEntry> = self.held.drain(..).collect();
        let mut waiting = Vec::new();
        let mut closed = None;
        for message in batch {
            match message {
                LogMessage::Record(rows, done) => {
                    let from = entries.len();
                    entries.extend(rows);
                    waiting.push((from..entries.len(), done));
                }
                LogMessage::Note(entry) => entries.push(*entry),
                LogMessage::Close(done) => closed = Some(done),
            }
        }
        let lost = self.lost.as_ref().map(|lost| lost.entry(&self.relay));
        let with_lost = entries.len();
        entries.extend(lost);
        let outcome = self.attempt(&entries).await;
        self.health.note(
            LogTarget::Store,
            outcome.as_ref().map_or_else(
                |error| Err(error.fault().or_remedy(STORE_REMEDY)),
                |()| Ok(()),
            ),
        );
        match outcome {
            Ok(()) => {
                self.lost = None;
                self.written.notify_one();
                for (_, done) in waiting {
                    let _ = done.send(Ok(()));
                }
            }
            Err(_) => {
                entries.truncate(with_lost);
                self.hold(entries, waiting);
            }
        }
        closed
    }

    /// Tries one commit. One that takes too long counts as broken while it lasts: its callers wait for it, and
    /// new sessions need not.
    async fn attempt(&self, entries: &[AuditEntry]) -> Result<(), StoreError> {
        if entries.is_empty() {
            return match self.health.is_broken(LogTarget::Store) {
                true => self.probe().await,
                false => Ok(()),
            };
        }
        let append = self.append(entries);
        tokio::pin!(append);
        tokio::select! {
            done = &mut append => return done,
            () = sleep(AUDIT_TIMEOUT) => {}
        }
        let slow = format!(
            "the database takes longer than {} s",
            AUDIT_TIMEOUT.as_secs()
        );
        let slow = Fault::with_remedy(slow, STORE_REMEDY);
        self.health.note(LogTarget::Store, Err(slow));
        append.await
    }

    async fn append(&self, entries: &[AuditEntry]) -> Result<(), StoreError> {
        let mut tx = self.store.begin(Durability::Disk).await?;
        tx.append_audit(entries).await?;
        tx.commit().await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        let mut tx = self.store.begin(Durability::Disk).await?;
        tx.probe_audit(Timestamp::now()).await?;
        tx.commit().await
    }

    /// Keeps what no caller waits for, and under `continue` the rest as well.
    fn hold(&mut self, entries: Vec<AuditEntry>, waiting: Vec<(Range<usize>, LogDone)>) {
        let refuses = self.health.policy() == WhenUnwritable::Refuse;
        let refused = |place| refuses && waiting.iter().any(|(rows, _)| rows.contains(&place));
        for (place, entry) in entries.into_iter().enumerate() {
            if refused(place) {
                continue;
            }
            if self.held.len() < AUDIT_HELD {
                self.held.push_back(entry);
            } else {
                Lost::add(&mut self.lost, &entry);
            }
        }
        for (_, done) in waiting {
            let _ = done.send(match refuses {
                true => Err(AuditError::Unwritable),
                false => Ok(()),
            });
        }
    }
}

impl Lost {
    fn add(lost: &mut Option<Self>, entry: &AuditEntry) {
        let lost = lost.get_or_insert_with(|| Self {
            count: 0,
            first: entry.time,
            last: entry.time,
            events: BTreeMap::new(),
        });
        lost.count += 1;
        lost.first = lost.first.min(entry.time);
        lost.last = lost.last.max(entry.time);
        *lost.events.entry(entry.event.clone()).or_default() += 1;
    }

    fn entry(&self, relay: &Option<String>) -> AuditEntry {
        let events: serde_json::Map<_, _> = self
            .events
            .iter()
            .map(|(event, count)| (event.clone(), (*count).into()))
            .collect();
        Event::new(EventKind::AuditLost)
            .failed("the database could not be written, and there was no more room to keep events")
            .with("count", self.count)
            .with("first", self.first.rfc3339())
            .with("last", self.last.rfc3339())
            .with("events", events)
            .entry(relay.as_deref(), Timestamp::now())
    }
}
