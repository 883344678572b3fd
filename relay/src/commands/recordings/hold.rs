//! Recordings that have to stay.

use holdfast_protocol::escape::Escaped;

use super::super::{Caller, Context, Failure};
use super::find;
use crate::audit::{Event, EventKind};
use crate::store::{Durability, Hold, RecordingFacts, StoreError, Tx};

pub(super) async fn hold(
    id: &str,
    reason: String,
    caller: &Caller,
    context: &Context,
) -> Result<String, Failure> {
    let facts = find(id, caller, context).await?;
    let id = facts.row.session.id;
    let event = Event::recording(EventKind::RecordingHeld, &id.to_string());
    let mut tx = begin(event.with("why", reason.as_str()), &facts, context).await?;
    let hold = Hold {
        since: context.now,
        by: caller.user().map(|user| user.name.clone()),
        reason,
    };
    if tx.recording_held(id, &hold).await? {
        tx.commit().await?;
        return Ok(format!("recording {id} stays until it is released\n"));
    }
    drop(tx);
    // What was found first is as old as the question.
    let facts = find(&id.to_string(), caller, context).await?;
    Err(Failure(format!("recording {id} {}", of(&facts))))
}

pub(super) async fn release(
    id: &str,
    caller: &Caller,
    context: &Context,
) -> Result<String, Failure> {
    let facts = find(id, caller, context).await?;
    let id = facts.row.session.id;
    let event = Event::recording(EventKind::RecordingReleased, &id.to_string());
    let mut tx = begin(event, &facts, context).await?;
    if !tx.recording_released(id).await? {
        return Err(Failure(format!("recording {id} is not held")));
    }
    tx.commit().await?;
    Ok(format!("recording {id} released\n"))
}

/// Returns the reason why a recording is not removed.
pub(super) fn keeps(facts: &RecordingFacts) -> Failure {
    let id = facts.row.session.id;
    Failure(format!(
        "recording {id} {}: release it first, with `relay recordings release {id}`",
        of(facts)
    ))
}

/// Returns `is held since … by alice (case 17)`.
fn of(facts: &RecordingFacts) -> String {
    match &facts.row.hold {
        Some(hold) => format!("is held {}", since(hold)),
        None => "is not held any more".to_owned(),
    }
}

/// Returns `since … by alice (case 17)`.
pub(super) fn since(hold: &Hold) -> String {
    let by = hold.by.as_ref();
    let by = by.map_or_else(|| "at the relay".to_owned(), |by| format!("by {by}"));
    let why = match hold.reason.as_str() {
        "" => String::new(),
        reason => format!(" ({})", Escaped(reason)),
    };
    format!("since {} {by}{why}", hold.since.rfc3339())
}

/// Begins a change of a recording, with its audit row.
async fn begin(event: Event, facts: &RecordingFacts, context: &Context) -> Result<Tx, StoreError> {
    let event = event.session(facts.row.session.id);
    let event = event.with("recorded_user", facts.row.session.user.as_str());
    let mut tx = context.store.begin(Durability::Disk).await?;
    tx.audit(context.audit.entry(context.event(event)));
    Ok(tx)
}
