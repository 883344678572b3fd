//! Drives the protocol's state machine of an upload: what it asks for is done on the folder and in the
//! store, in its order, before anything is answered.

pub(super) mod inventory;
mod resume;
mod settle;
pub(crate) mod upload;
mod words;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use holdfast_protocol::ids::{DeviceId, SessionId};
use holdfast_protocol::recording::allowance::SessionExtent;
use holdfast_protocol::recording::ingest::{
    Ingest, IngestAction, IngestFault, IngestState, LostReason, Truncated, UploadStream,
};
use holdfast_protocol::wire::{
    OfferedSegment, SegmentHeld, SegmentRefusal, SegmentRefused, UploadAnswer, UploadMessage,
};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tracing::warn;

use self::resume::resume;
use super::objects::Objects;
use super::verify::Findings;
use super::{RecordingError, Recordings};
use crate::audit::EventKind;
use crate::clock::Timestamp;
use crate::log_limit::{self, LimitedLine};
use crate::recording::objects::budget::{Claim, NoRoom};
use crate::store::{Durability, RecordingState};

/// A recording that something is done for. It is read from the store when it is first needed, and again
/// after a failure: then nothing that was half done is relied upon.
pub(super) type UploadSlot = Mutex<Option<IngestEntry>>;

/// A recording as it is in memory.
pub(super) struct IngestEntry {
    id: SessionId,
    device: DeviceId,
    ingest: Ingest,
    /// Everything has come, and the session is not over yet.
    check_waits: bool,
    /// Another relay goes on with it: it is read from the store at the next need.
    is_stale: bool,
    /// The findings of the check, until they are written down.
    findings: Option<Findings>,
    /// The most bytes that an honest recording of it has, once its session is over.
    allowed: Option<u64>,
    /// The bytes that are claimed for it of the budgets.
    claimed: u64,
}

impl Recordings {
    /// Takes what a device says about one of its recordings on `stream`. The segment that its bytes are of is
    /// `offered`.
    ///
    /// # Errors
    /// [`RecordingError`]: nothing is answered.
    pub(super) async fn take(
        &self,
        device: DeviceId,
        id: SessionId,
        stream: UploadStream,
        message: UploadMessage,
        offered: Option<u32>,
    ) -> Result<Option<Vec<UploadAnswer>>, RecordingError> {
        let slot = self.slot(id);
        let mut entry = slot.lock().await;
        if let UploadMessage::Offer(offer) = &message
            && let Some(known) = entry.as_mut()
        {
            // What is between them may be at another relay, which the device was at meanwhile.
            known.is_stale |= known.ingest.is_behind_missing(offer.segment);
        }
        let taken = async {
            let Some(entry) = self.load(id, &mut entry).await? else {
                return Ok(None);
            };
            if entry.device != device {
                return Ok(None);
            }
            let mut offer = None;
            match message {
                UploadMessage::Offer(offered) => {
                    let allowed = self.allowed(entry).await?;
                    entry.ingest.handle_allowed(allowed);
                    if entry.ingest.is_wanted(&offered) {
                        if !self.claim(entry, &offered).await? {
                            let later = refusal(id, offered.segment, SegmentRefused::Unavailable);
                            return Ok(Some(vec![later]));
                        }
                        self.note_offer(id, entry, &offered).await?;
                    }
                    entry.ingest.handle_offer(stream, &offered);
                    offer = Some(offered);
                }
                UploadMessage::Bytes(bytes) => {
                    if let Some(segment) = offered {
                        entry.ingest.handle_bytes(segment, &bytes);
                    }
                }
                UploadMessage::Finished(finished) => entry.ingest.handle_finished(&finished),
                UploadMessage::Gone(gone) => entry.ingest.handle_gone(&gone),
                // It is of no single recording.
                UploadMessage::Inventory(_) => {}
            }
            self.pump(entry, offer.as_ref()).await.map(Some)
        };
        let taken = taken.await;
        if taken.is_err() {
            *entry = None;
        }
        drop(entry);
        taken
    }

    /// Notes that the session of a recording is over, and it is expected by `deadline`.
    pub(super) async fn session_over(
        &self,
        id: SessionId,
        deadline: Timestamp,
    ) -> Result<(), RecordingError> {
        self.with(id, |entry| {
            entry.ingest.handle_session_over(duration(deadline));
            entry.check_waits
        })
        .await?
        .is_some_and(|check_waits| check_waits)
        .then(|| self.judge_later(id));
        self.forget(id);
        Ok(())
    }

    /// Handles the passing of time: what was not delivered in time is given up.
    pub(super) async fn expire(&self, id: SessionId, now: Timestamp) -> Result<(), RecordingError> {
        self.with(id, |entry| entry.ingest.handle_timeout(duration(now)))
            .await?;
        self.forget(id);
        Ok(())
    }

    /// Forgets a recording that is not in use.
    pub(super) fn forget(&self, id: SessionId) {
        let mut slots = self.0.slots.lock();
        // Others get theirs under the same lock: with one reference, which is the table's, it is not in use.
        if slots
            .get(&id)
            .is_some_and(|slot| Arc::strong_count(slot) == 1)
        {
            slots.remove(&id);
        }
    }

    async fn with<T>(
        &self,
        id: SessionId,
        what: impl FnOnce(&mut IngestEntry) -> T,
    ) -> Result<Option<T>, RecordingError> {
        let slot = self.slot(id);
        let mut guard = slot.lock().await;
        let Some(entry) = self.load(id, &mut guard).await? else {
            return Ok(None);
        };
        let said = what(entry);
        let pumped = self.pump(entry, None).await;
        if pumped.is_err() {
            *guard = None;
        }
        pumped.map(|_| Some(said))
    }

    /// Returns the place of a recording in memory. A reference keeps it there.
    pub(super) fn slot(&self, id: SessionId) -> Arc<UploadSlot> {
        self.0.slots.lock().entry(id).or_default().clone()
    }

    async fn load<'e>(
        &self,
        id: SessionId,
        entry: &'e mut Option<IngestEntry>,
    ) -> Result<Option<&'e mut IngestEntry>, RecordingError> {
        if entry.as_ref().is_none_or(|entry| entry.is_stale) {
            let Some(facts) = self.0.store.recording(id).await? else {
                return Ok(None);
            };
            let state = restored(facts.row.state);
            let claimed = facts.row.offered.max(facts.row.bytes);
            let mut ingest = Ingest::restore(id, state, facts.segments, facts.report);
            if let Some(expected) = facts.expected {
                ingest.handle_session_over(duration(expected));
            }
            *entry = Some(IngestEntry {
                id,
                device: facts.row.session.device,
                ingest,
                check_waits: false,
                is_stale: false,
                findings: None,
                allowed: None,
                claimed,
            });
        }
        Ok(entry.as_mut())
    }

    /// Does all that the state machine asks for, and gives what is to be answered.
    async fn pump(
        &self,
        entry: &mut IngestEntry,
        offer: Option<&OfferedSegment>,
    ) -> Result<Vec<UploadAnswer>, RecordingError> {
        let (id, objects) = (entry.id, &self.0.objects);
        let mut answers = Vec::new();
        while let Some(action) = entry.ingest.poll_action() {
            match action {
                IngestAction::Answer(answer) => answers.push(answer),
                IngestAction::Restart(segment) => {
                    let known = self.received(entry, offer).await?;
                    on(objects, move |objects| objects.restart(id, segment)).await?;
                    if !known.is_empty() {
                        resume(&mut entry.ingest, segment, known);
                    }
                }
                IngestAction::Append(segment, bytes) => {
                    on(objects, move |objects| objects.append(id, segment, &bytes)).await?;
                }
                IngestAction::Store(held) => match self.store_segment(&held).await {
                    Ok(()) => entry.ingest.handle_stored(&held),
                    Err(error) => {
                        warn!(recording = %id, %error, "a segment cannot be stored");
                        entry.ingest.handle_store_failed(held.segment);
                    }
                },
                IngestAction::Keep(report) => {
                    let mut tx = self.0.store.begin(Durability::Disk).await?;
                    tx.recording_report(&report).await?;
                    tx.commit().await?;
                    entry.ingest.handle_kept(report);
                }
                IngestAction::Check if self.is_live(id) => entry.check_waits = true,
                // The relay of its operator checks it when it is over.
                IngestAction::Check if self.runs_elsewhere(id).await? => entry.is_stale = true,
                IngestAction::Check => self.judge_later(id),
                IngestAction::Settled(state) => self.settled(entry, state).await?,
            }
        }
        Ok(answers)
    }

    /// Returns whether the session of a recording runs at another relay, as far as the store tells.
    pub(super) async fn runs_elsewhere(&self, id: SessionId) -> Result<bool, RecordingError> {
        let store = &self.0.store;
        Ok(store.is_shared() && store.recording_runs_elsewhere(id, self.0.relay).await?)
    }

    async fn store_segment(&self, held: &SegmentHeld) -> Result<(), RecordingError> {
        let (id, segment) = (held.session, held.segment);
        self.0.objects.store(id, segment).await?;
        let mut tx = self.0.store.begin(Durability::Disk).await?;
        tx.recording_segment(id, segment, held.offset, &held.hash)
            .await?;
        Ok(tx.commit().await?)
    }

    /// Returns the most bytes that an honest recording has, by what is known of its session now.
    async fn allowed(&self, entry: &mut IngestEntry) -> Result<u64, RecordingError> {
        if let Some(allowed) = entry.allowed {
            return Ok(allowed);
        }
        // In this order: a session that ends meanwhile has its counts in the store before it is no longer here.
        let watched = self.0.live.lock().get(&entry.id).cloned();
        let Some(mut facts) = self.0.store.recording(entry.id).await? else {
            return Ok(0);
        };
        if let Some(watched) = watched.filter(|_| facts.row.ended.is_none()) {
            let seen = watched.seen();
            (facts.seen, facts.control) = (seen.streams, Some(seen.control));
            facts.booked = seen.booked;
            facts.content = seen.content;
            let extent = facts.extent(Timestamp::now());
            return Ok(SessionExtent {
                exact: true,
                ..extent
            }
            .sealed());
        }
        let allowed = facts.extent(Timestamp::now()).sealed();
        entry.allowed = facts.row.ended.map(|_| allowed);
        Ok(allowed)
    }

    /// Claims room for a segment that is to be received; false if there is none now. That is an audit event when it
    /// begins.
    async fn claim(
        &self,
        entry: &mut IngestEntry,
        offer: &OfferedSegment,
    ) -> Result<bool, RecordingError> {
        let free = on(&self.0.objects, Objects::free).await?;
        let stored = entry.ingest.stored().iter();
        let after = stored.fold(offer.length, |sum, (length, _)| sum.saturating_add(*length));
        let claim = Claim {
            device: entry.device,
            before: entry.claimed,
            after: after.max(entry.claimed),
            segment: offer.length,
        };
        let claimed = self.0.budget.lock().claim(claim, free);
        let NoRoom { shortage, is_new } = match claimed {
            Ok(()) => {
                entry.claimed = claim.after;
                return Ok(true);
            }
            Err(none) => none,
        };
        if is_new && let Some(facts) = self.0.store.recording(entry.id).await? {
            // A device whose segments fit by turns has it begin as often as it likes.
            if let Some(left_out) = log_limit::admits(LimitedLine::Upload, entry.device) {
                warn!(recording = %entry.id, why = %shortage, left_out, "uploads are refused");
            }
            let event = Self::event(&facts.row, EventKind::RecordingRefused);
            let event = event.with("free", free).refused(shortage.to_string());
            self.0.audit.note_refusal(event).await;
        }
        Ok(false)
    }

    /// Notes how much there is, for who looks how far the upload is.
    async fn note_offer(
        &self,
        id: SessionId,
        entry: &IngestEntry,
        offer: &OfferedSegment,
    ) -> Result<(), RecordingError> {
        let before = usize::try_from(offer.segment).unwrap_or(usize::MAX);
        let stored = entry.ingest.stored().iter().take(before);
        let bytes = stored.fold(offer.length, |sum, (length, _)| sum.saturating_add(*length));
        let mut tx = self.0.store.begin(Durability::Process).await?;
        tx.recording_offered(id, bytes).await?;
        Ok(tx.commit().await?)
    }
}

/// Returns the state in memory. Which of the final states it is does not matter any more: it stays.
fn restored(state: RecordingState) -> IngestState {
    match state {
        RecordingState::Recording => IngestState::Recording,
        RecordingState::Uploading => IngestState::Uploading,
        RecordingState::Complete => IngestState::Complete,
        RecordingState::Truncated => IngestState::Truncated(Truncated::NoEnd),
        RecordingState::Lost => IngestState::Lost(LostReason::Expired),
        RecordingState::Tampered => IngestState::Tampered {
            segment: 0,
            block: 0,
            fault: IngestFault::Contradicted,
        },
    }
}

fn refusal(session: SessionId, segment: u32, why: SegmentRefused) -> UploadAnswer {
    UploadAnswer::Refused(SegmentRefusal {
        session,
        segment,
        why,
    })
}

fn duration(time: Timestamp) -> Duration {
    time.since(Timestamp(0))
}

async fn on<T: Send + 'static>(
    objects: &Objects,
    what: impl FnOnce(&Objects) -> io::Result<T> + Send + 'static,
) -> Result<T, RecordingError> {
    let objects = objects.clone();
    blocking(move || what(&objects)).await
}

async fn blocking<T: Send + 'static>(
    what: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, RecordingError> {
    let done = spawn_blocking(what).await;
    Ok(done.map_err(|_| RecordingError::Cancelled)??)
}
