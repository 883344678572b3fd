//! The log's regular work in the relay that serves: lines for the file, sums, and the end of old rows.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::health::LogTarget;
use super::sink::{Sink, SinkOutput};
use super::{Audit, Event, EventKind, WhenUnwritable, line};
use crate::audit::limits::{
    AUDIT_PAGE, AUDIT_PROBE, AUDIT_REMOVAL, AUDIT_REMOVAL_PAUSE, AUDIT_REMOVAL_ROWS,
    AUDIT_SUM_POLL, AUDIT_TIMEOUT,
};
use crate::clock::{self, Timestamp};
use crate::limits::STORE_POLL;
use crate::model::invalid::Fault;
use crate::store::{AuditFilter, AuditRemoved, Durability, Store, StoreError};

/// The configuration of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AuditSettings {
    /// The output for lines beside the table.
    pub output: Option<SinkOutput>,
    /// The policy for new sessions while it cannot be written.
    pub when_unwritable: WhenUnwritable,
    /// The time that rows are kept; `None`: for ever.
    pub keep: Option<Duration>,
}

/// Runs until `stop` is cancelled, and then until the output has all that is in the table.
pub(crate) async fn serve(
    audit: Audit,
    store: Store,
    settings: AuditSettings,
    stop: CancellationToken,
) {
    let feeding = async {
        match settings.output.clone() {
            Some(output) => feed(&audit, &store, output, &stop).await,
            None => stop.cancelled().await,
        }
    };
    tokio::select! {
        () = feeding => {}
        () = tell_sums(&audit) => {}
        () = remove_old(&audit, &store, &settings) => {}
    }
}

async fn tell_sums(audit: &Audit) {
    let mut poll = interval(AUDIT_SUM_POLL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        poll.tick().await;
        audit.note_sums(Some(Timestamp::now())).await;
    }
}

/// The reason why lines did not come where they should.
#[derive(Debug, thiserror::Error)]
enum FeedError {
    #[error("{0}")]
    Output(#[from] std::io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl FeedError {
    fn fault(&self) -> Fault {
        match self {
            Self::Output(error) => {
                let inner = error
                    .get_ref()
                    .and_then(|inner| inner.downcast_ref::<Fault>());
                inner.map_or_else(|| Fault::new(error.to_string()), Fault::clone)
            }
            Self::Store(error) => error.fault(),
        }
    }
}

/// Brings every row of the table to the output, in order, from all writers.
async fn feed(audit: &Audit, store: &Store, output: SinkOutput, stop: &CancellationToken) {
    let sink = Arc::new(Mutex::new(Sink::new(output)));
    let mut poll = interval(STORE_POLL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut written = None;
    loop {
        let last = tokio::select! {
            _ = poll.tick() => false,
            () = audit.0.written.notified() => false,
            () = audit.0.reopen.notified() => {
                sink.clone().lock_owned().await.close();
                // A collector that waits for the new file finds it, though nothing is written yet.
                let _ = on_thread(audit, &sink, |sink| sink.open()).await;
                false
            }
            () = stop.cancelled() => true,
        };
        let caught_up = catch_up(audit, store, &sink, &mut written).await;
        if let Err(error) = caught_up {
            audit.0.health.note(LogTarget::File, Err(error.fault()));
            if !last {
                tokio::time::sleep(AUDIT_PROBE).await;
            }
        }
        if last {
            return;
        }
    }
}

/// Writes what is missing. `written` is the last row that the output has, once that is known.
async fn catch_up(
    audit: &Audit,
    store: &Store,
    sink: &Arc<Mutex<Sink>>,
    written: &mut Option<i64>,
) -> Result<(), FeedError> {
    let head = store.audit_head().await?;
    if *written == Some(head) && !audit.0.health.is_broken(LogTarget::File) {
        return Ok(());
    }
    loop {
        let last_line = on_thread(audit, sink, |sink| sink.open()).await?;
        let known = match *written {
            Some(known) => known,
            None => store.audit_written().await?.unwrap_or(0),
        };
        // A line that we do not have is of another relay's file, or our database is an older copy.
        let position = last_line.filter(|id| *id <= head).unwrap_or(0).max(known);
        *written = Some(position);
        let page = store
            .audit_after(&AuditFilter::default(), position, AUDIT_PAGE)
            .await?;
        let Some(last) = page.last().map(|entry| entry.id) else {
            audit.0.health.note(LogTarget::File, Ok(()));
            return Ok(());
        };
        let lines: Vec<u8> = page.iter().flat_map(line::json).collect();
        on_thread(audit, sink, move |sink| sink.write(&lines)).await?;
        *written = Some(last);
        // It may be lost with the power: the file has it too.
        store.set_audit_written(last).await?;
    }
}

/// Does something with the sink that may block. While it blocks for too long, it counts as broken.
async fn on_thread<T: Send + 'static>(
    audit: &Audit,
    sink: &Arc<Mutex<Sink>>,
    work: impl FnOnce(&mut OwnedMutexGuard<Sink>) -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    let mut sink = sink.clone().lock_owned().await;
    let mut done = tokio::task::spawn_blocking(move || work(&mut sink));
    let deadline = clock::instant() + AUDIT_TIMEOUT;
    let done = tokio::select! {
        done = &mut done => done,
        () = sleep_until(deadline) => {
            let slow = format!("it takes nothing for {} s", AUDIT_TIMEOUT.as_secs());
            audit.0.health.note(LogTarget::File, Err(Fault::new(slow)));
            done.await
        }
    };
    done.unwrap_or_else(|error| Err(std::io::Error::other(error)))
}

/// Removes rows that are older than they are kept, some at a time, and those only that the output has.
async fn remove_old(audit: &Audit, store: &Store, settings: &AuditSettings) {
    let Some(keep) = settings.keep else {
        return std::future::pending().await;
    };
    let mut poll = interval(AUDIT_REMOVAL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        poll.tick().await;
        let before = Timestamp::now().before(keep);
        loop {
            match remove_some(audit, store, settings, before).await {
                Ok(Some(removed)) if removed.count == i64::from(AUDIT_REMOVAL_ROWS) => {
                    tokio::time::sleep(AUDIT_REMOVAL_PAUSE).await;
                }
                Ok(_) => break,
                Err(error) => {
                    warn!(%error, "old rows of the audit log were not removed");
                    break;
                }
            }
        }
    }
}

async fn remove_some(
    audit: &Audit,
    store: &Store,
    settings: &AuditSettings,
    before: Timestamp,
) -> Result<Option<AuditRemoved>, StoreError> {
    let up_to = match settings.output {
        Some(_) => store.audit_written().await?.unwrap_or(0),
        None => i64::MAX,
    };
    // What one removes is gone for the files of all.
    let others = store.audit_written_by_others().await?;
    let up_to = others.map_or(up_to, |others| others.min(up_to));
    let mut tx = store.begin(Durability::Disk).await?;
    let removed = tx
        .remove_old_audit(before, up_to, AUDIT_REMOVAL_ROWS)
        .await?;
    let Some(removed) = removed else {
        return Ok(None);
    };
    let (ids, times) = (removed.ids, removed.times);
    let event = Event::new(EventKind::AuditRemoved)
        .because("older than the log is kept")
        .with("count", removed.count)
        .with("ids", vec![ids.0, ids.1])
        .with("first", times.0.rfc3339())
        .with("last", times.1.rfc3339())
        .with("before", before.rfc3339());
    tx.audit(audit.entry(event));
    tx.commit().await?;
    info!(count = removed.count, %before, "old rows of the audit log were removed");
    Ok(Some(removed))
}
