//! The audit log: who did what, where, and how it went.
//!
//! The store's table is the log. [`Audit::record`] returns when the row is on the disk; many callers that
//! wait share one commit. A bounded queue is in front of it: when it is full its callers wait, and nothing is
//! dropped. A file or stdout is fed from the table, in its order, by the relay that serves (`sink`), so that
//! rows of admin commands beside it come there too.
//!
//! Changes by commands have their row in the same transaction as the change itself: see
//! [`Tx::audit`](crate::store::Tx::audit).

mod event;
mod health;
mod kind;
pub(crate) mod limits;
pub(crate) mod line;
mod log;
mod regular;
mod sink;
mod sums;
mod who;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use holdfast_protocol::ids::DeviceId;
use thiserror::Error;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::audit::limits::{
    AUDIT_ARRIVAL_ROWS, AUDIT_DEVICE_ROWS, AUDIT_QUEUE, AUDIT_REFUSAL_ROWS, AUDIT_SUM_WINDOW,
    MAX_SUMMED_ACTORS, MAX_SUMMED_DEVICES, MAX_SUMMED_SOURCES,
};
use crate::clock::Timestamp;
use crate::model::invalid::Fault;
use crate::model::source::Source;
use crate::store::{AuditEntry, Store};
use crate::sync::Mutex;

pub(crate) use event::Event;
pub(crate) use health::WhenUnwritable;
pub(crate) use kind::{AuditOutcome, EventKind};
pub(crate) use regular::{AuditSettings, serve};
pub(crate) use sink::SinkOutput;
pub(crate) use who::{Actor, CLOCK_SKEW, DeviceFacts};

use health::Health;
use log::{LogMessage, Writer};
use sums::Sums;

/// Writes the audit log. Cloning it is cheap, and all clones share one queue.
#[derive(Clone)]
pub(crate) struct Audit(Arc<AuditInner>);

/// The reason why an event is not in the log. The text is for the operator who is refused; the relay's own log says
/// more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum AuditError {
    /// The database or the file takes nothing.
    #[error("the relay's audit log cannot be written, so no new session may start: tell an admin")]
    Unwritable,
    /// The relay has stopped writing it.
    #[error("the relay is stopping")]
    Stopped,
}

struct AuditInner {
    queue: mpsc::Sender<LogMessage>,
    health: Arc<Health>,
    relay: Option<String>,
    /// Said to the file's writer: there are new rows.
    written: Arc<Notify>,
    /// Said to the file's writer: open it anew.
    reopen: Notify,
    /// Failed logins and refused enrolments, by where they came from.
    failures: Mutex<Sums<(EventKind, Source)>>,
    /// Counts refusals, by kind and user.
    refusals: Mutex<Sums<(EventKind, Option<String>)>>,
    /// Devices that come and go.
    devices: Mutex<Sums<DeviceId>>,
    /// Connections that devices announced and that were opened, by device and kind; their ends apart.
    arrivals: Mutex<Sums<(EventKind, DeviceId, ArrivalRow)>>,
}

/// The two rows of a connection that came to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum ArrivalRow {
    Open,
    End,
}

impl Audit {
    /// Begins to write into `store`. `relay` is what rows call this relay: the address in the roster. It
    /// needs a tokio runtime, and [`Audit::close`] before that ends.
    #[must_use]
    pub(crate) fn open(
        store: Store,
        relay: Option<String>,
        when_unwritable: WhenUnwritable,
    ) -> Self {
        let (queue, messages) = mpsc::channel(AUDIT_QUEUE);
        let health = Arc::new(Health::new(when_unwritable));
        let written = Arc::new(Notify::new());
        let writer = Writer {
            store,
            queue: messages,
            health: health.clone(),
            written: written.clone(),
            relay: relay.clone(),
            held: VecDeque::new(),
            lost: None,
        };
        tokio::spawn(writer.run());
        Self(Arc::new(AuditInner {
            queue,
            health,
            relay,
            written,
            reopen: Notify::new(),
            failures: Mutex::new(Sums::new(AUDIT_SUM_WINDOW, 1, MAX_SUMMED_SOURCES)),
            refusals: Mutex::new(Sums::new(
                AUDIT_SUM_WINDOW,
                AUDIT_REFUSAL_ROWS,
                MAX_SUMMED_ACTORS,
            )),
            devices: Mutex::new(Sums::new(
                AUDIT_SUM_WINDOW,
                AUDIT_DEVICE_ROWS,
                MAX_SUMMED_DEVICES,
            )),
            arrivals: Mutex::new(Sums::new(
                AUDIT_SUM_WINDOW,
                AUDIT_ARRIVAL_ROWS,
                MAX_SUMMED_DEVICES,
            )),
        }))
    }

    /// Writes an event down, and returns when it would survive a power cut. What is recorded before must
    /// not begin if this fails: a session's start. While the log cannot be written and
    /// `when_unwritable = "continue"`, this succeeds all the same, and the event is written later or counted
    /// in an `audit.lost`.
    ///
    /// # Errors
    /// [`AuditError`]; the event is not in the log, and will not be.
    pub(crate) async fn record(&self, event: Event) -> Result<(), AuditError> {
        self.record_all(vec![event]).await
    }

    /// Does the same with several events that belong together: all of them are written, or none.
    ///
    /// # Errors
    /// [`AuditError`]; none of them is in the log, and none will be.
    pub(crate) async fn record_all(&self, events: Vec<Event>) -> Result<(), AuditError> {
        let (done, written) = oneshot::channel();
        let entries = events.into_iter().map(|event| self.entry(event)).collect();
        self.send(LogMessage::Record(entries, done)).await?;
        written.await.unwrap_or(Err(AuditError::Stopped))
    }

    /// Queues an event that has happened already, such as a session's end: it is in the log before
    /// everything that is recorded after this returns. While the log cannot be written it is kept in memory,
    /// and if that fills too, it is counted in an `audit.lost`.
    pub(crate) async fn note(&self, event: Event) {
        let entry = Box::new(self.entry(event));
        // Fails only after `close`, when nothing more can be written.
        let _ = self.send(LogMessage::Note(entry)).await;
    }

    /// Checks whether new sessions may start now.
    ///
    /// # Errors
    /// [`AuditError::Unwritable`] while the log cannot be written and `when_unwritable = "refuse"`.
    pub(crate) fn admits(&self) -> Result<(), AuditError> {
        self.0.health.admits()
    }

    /// Returns the reason why the log cannot be written, if it cannot.
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.0.health.fault()
    }

    /// Notes a failure that anybody on the network can cause: the first of a source in each minute is
    /// written at once, the others of that minute are summed in one row.
    pub(crate) async fn note_failure(&self, source: Source, event: Event) {
        let key = (event.kind, source);
        let now = Timestamp::now();
        let event = event.with("source", source.to_string()).at(now);
        let event = self.0.failures.lock().take(key, event, now);
        self.note_all(event).await;
    }

    /// Notes that an authenticated user was refused something, which they can ask for as often as they like:
    /// of one user and kind of event, so many a minute are written at once, the others of that minute are summed
    /// in one row, which describes the last of them.
    pub(crate) async fn note_refusal(&self, event: Event) {
        let key = (event.kind, event.actor.user.clone());
        let now = Timestamp::now();
        let event = self.0.refusals.lock().take(key, event.at(now), now);
        self.note_all(event).await;
    }

    /// Notes that a device came or went: the first few times in each minute are written at once, the others
    /// of that minute are summed in one row, which tells the last of them.
    pub(crate) async fn note_device(&self, device: DeviceId, event: Event) {
        let now = Timestamp::now();
        let event = self.0.devices.lock().take(device, event.at(now), now);
        self.note_all(event).await;
    }

    /// Takes the row of a connection that a device announced, which it can do at will: of one device, so many a minute
    /// come back and are to be written, the others of that minute are summed in one row.
    #[must_use]
    pub(crate) fn sum_arrival(&self, device: DeviceId, event: Event) -> Option<Event> {
        let key = (event.kind, device, ArrivalRow::Open);
        let now = Timestamp::now();
        self.0.arrivals.lock().take(key, event.at(now), now)
    }

    /// Notes the end of a connection whose beginning was summed: in one row with the others of that minute.
    pub(crate) fn sum_arrival_end(&self, device: DeviceId, event: Event) {
        let key = (event.kind, device, ArrivalRow::End);
        let now = Timestamp::now();
        self.0.arrivals.lock().add(key, event.at(now), now);
    }

    /// Opens the log's file anew: after it was rotated.
    pub(crate) fn reopen(&self) {
        self.0.reopen.notify_one();
    }

    /// Writes what is queued and summed. Nothing is written after it.
    pub(crate) async fn close(&self) {
        self.note_sums(None).await;
        let (done, written) = oneshot::channel();
        if self.send(LogMessage::Close(done)).await.is_ok() {
            let _ = written.await;
        }
    }

    /// Returns the row that an event becomes, for a transaction of the store.
    #[must_use]
    pub(crate) fn entry(&self, event: Event) -> AuditEntry {
        event.entry(self.0.relay.as_deref(), Timestamp::now())
    }

    /// Notes the sums of the windows that are over at `now`; of all of them, if that is `None`.
    async fn note_sums(&self, now: Option<Timestamp>) {
        let failures = self.0.failures.lock().due(now);
        let refusals = self.0.refusals.lock().due(now);
        let devices = self.0.devices.lock().due(now);
        let arrivals = self.0.arrivals.lock().due(now);
        let due = failures.into_iter().chain(refusals).chain(devices);
        let due = due.chain(arrivals);
        self.note_all(due).await;
    }

    async fn note_all(&self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            self.note(event).await;
        }
    }

    async fn send(&self, message: LogMessage) -> Result<(), AuditError> {
        let sent = self.0.queue.send(message).await;
        sent.map_err(|_| AuditError::Stopped)
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audit").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
