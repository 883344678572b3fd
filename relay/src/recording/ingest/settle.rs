//! The check of a recording, and the state that it ends in.

use holdfast_protocol::ids::SessionId;
use holdfast_protocol::recording::ingest::IngestState;
use tracing::{info, warn};

use super::words::{unknown_to_device, with_extent, words};
use super::{IngestEntry, blocking};
use crate::audit::{Event, EventKind};
use crate::recording::verify;
use crate::recording::{RecordingError, Recordings};
use crate::store::{Durability, RecordingFacts, RecordingState, SignedVerdict};

impl Recordings {
    /// Makes the verdict on a recording, in a task of its own.
    pub(in crate::recording) fn judge_later(&self, id: SessionId) {
        if !self.0.judged.lock().insert(id) {
            return;
        }
        let recordings = self.clone();
        tokio::spawn(async move {
            let judged = recordings.judge(id).await;
            recordings.0.judged.lock().remove(&id);
            if let Err(error) = judged {
                warn!(recording = %id, %error, "a recording cannot be checked: trying again in a minute");
            }
            recordings.forget(id);
        });
    }

    /// Opens a recording and compares it with what the relay saw, and settles it by what is found.
    async fn judge(&self, id: SessionId) -> Result<(), RecordingError> {
        let Some(facts) = self.0.store.recording(id).await? else {
            return Ok(());
        };
        let _turn = self.0.checks.turn(facts.row.session.device).await?;
        // It may have changed, or be gone, while others had their turns.
        let Some(facts) = self.0.store.recording(id).await? else {
            return Ok(());
        };
        let (objects, secrets) = (self.0.objects.clone(), self.0.secrets.clone());
        let examine =
            move || verify::examine(&facts, &objects, &secrets).map(|found| (facts, found));
        let (facts, findings) = blocking(examine).await?;
        let slot = self.slot(id);
        let mut guard = slot.lock().await;
        let Some(entry) = self.load(id, &mut guard).await? else {
            return Ok(());
        };
        if !entry.ingest.state().is_terminal() {
            entry.ingest.handle_checked(findings.checked());
            entry.findings = Some(findings);
            let settled = self.pump(entry, None).await;
            if settled.is_err() {
                *guard = None;
            }
            return settled.map(drop);
        }
        // Settled before: only what is here is still to be judged, and it may say more.
        let (state, reason) = match findings.contradiction() {
            Some(differs) if facts.row.state != RecordingState::Tampered => {
                (RecordingState::Tampered, Some(differs))
            }
            _ => {
                let reason = facts.row.reason.clone();
                (
                    facts.row.state,
                    with_extent(reason, facts.row.state, &findings),
                )
            }
        };
        let verdict = findings.sign(&facts, state, &self.0.cluster);
        let changed =
            (state != facts.row.state).then(|| event_of(&facts, state, reason.as_deref()));
        self.settle(&facts, state, reason.as_deref(), Some(&verdict), changed)
            .await
    }

    pub(super) async fn settled(
        &self,
        entry: &mut IngestEntry,
        state: IngestState,
    ) -> Result<(), RecordingError> {
        let findings = entry.findings.take();
        let (word, mut reason) = words(state, findings.as_ref());
        let log = |reason: &Option<String>| {
            info!(recording = %entry.id, state = word.as_str(), reason, "recording");
        };
        if !word.is_terminal() && findings.is_none() {
            log(&reason);
            // It is on its way: nothing is reported of it, and nothing of what is known is wanted. What is lost with
            // the power is known again at the device's next offer.
            let mut tx = self.0.store.begin(Durability::Process).await?;
            if !tx
                .recording_settled(entry.id, word, reason.as_deref(), None)
                .await?
            {
                entry.is_stale = true;
                return Ok(());
            }
            return Ok(tx.commit().await?);
        }
        let Some(facts) = self.0.store.recording(entry.id).await? else {
            return Ok(());
        };
        if let Some(unknown) = unknown_to_device(state, &facts) {
            reason = Some(unknown);
        }
        log(&reason);
        let cluster = &self.0.cluster;
        let verdict = findings
            .as_ref()
            .map(|found| found.sign(&facts, word, cluster));
        let mut events = Vec::new();
        if word.is_terminal() {
            events.push(event_of(&facts, word, reason.as_deref()));
        }
        if let Some(findings) = findings.filter(|findings| findings.gaps.0 > 0) {
            let event = Self::event(&facts.row, EventKind::RecordingGap);
            let event = event
                .with("gaps", findings.gaps.0)
                .with("bytes", findings.gaps.1);
            events.push(event);
        }
        self.settle(&facts, word, reason.as_deref(), verdict.as_ref(), events)
            .await?;
        if word.is_terminal() && verdict.is_none() {
            self.judge_later(entry.id);
        }
        Ok(())
    }

    /// Writes the state, the verdict and their audit rows in one transaction.
    async fn settle(
        &self,
        facts: &RecordingFacts,
        state: RecordingState,
        reason: Option<&str>,
        verdict: Option<&SignedVerdict>,
        events: impl IntoIterator<Item = Event>,
    ) -> Result<(), RecordingError> {
        let mut tx = self.0.store.begin(Durability::Disk).await?;
        for event in events {
            tx.audit(self.0.audit.entry(event));
        }
        let id = facts.row.session.id;
        if !tx.recording_settled(id, state, reason, verdict).await? {
            info!(recording = %id, "another relay has made the verdict");
            return Ok(());
        }
        Ok(tx.commit().await?)
    }
}

fn event_of(facts: &RecordingFacts, state: RecordingState, reason: Option<&str>) -> Event {
    let kind = match state {
        RecordingState::Tampered => EventKind::RecordingTampered,
        RecordingState::Lost => EventKind::RecordingLost,
        RecordingState::Truncated => EventKind::RecordingTruncated,
        _ => EventKind::RecordingComplete,
    };
    let event = Recordings::event(&facts.row, kind).with("bytes", facts.row.bytes);
    match reason {
        // Nothing failed: it is as the session's terms say.
        Some(reason) if state == RecordingState::Complete => event.with("note", reason),
        Some(reason) => event.failed(reason),
        None => event,
    }
}
