//! Regular work on recordings: checks that could not be made, what comes too late, what is old.

use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::{RecordingError, Recordings, notes};
use crate::audit::EventKind;
use crate::clock::Timestamp;
use crate::recording::limits::{RECORDING_PAGE, RECORDING_TICK};
use crate::store::Durability;

/// Runs until it is aborted.
pub(crate) async fn run(recordings: Recordings) {
    tokio::join!(notes::run(&recordings), work(&recordings));
}

async fn work(recordings: &Recordings) {
    if let Err(error) = recordings.0.objects.probe().await {
        warn!(%error, "the recordings' bucket does not answer: devices keep what they recorded until it does");
    }
    let mut ticks = interval(RECORDING_TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = recordings.look(Timestamp::now()).await {
            warn!(%error, "regular work on recordings failed");
        }
    }
}

impl Recordings {
    pub(super) async fn look(&self, now: Timestamp) -> Result<(), RecordingError> {
        for id in self.0.store.recordings_due(now, RECORDING_PAGE).await? {
            let facts = self.0.store.recording(id).await?;
            // A session that its device refused leaves nothing, and nothing is missed.
            if facts.is_some_and(|facts| facts.refused && facts.segments.is_empty()) {
                let mut tx = self.0.store.begin(Durability::Disk).await?;
                tx.recording_removed(id).await?;
                tx.commit().await?;
                continue;
            }
            // Reading it from the store asks for the check that is due, and time does the rest.
            self.expire(id, now).await?;
            let facts = self.0.store.recording(id).await?;
            if facts.is_some_and(|facts| facts.row.state.is_terminal() && facts.key.is_some()) {
                self.judge_later(id);
            }
        }
        if self.0.budget.lock().is_short() {
            // Recordings may have been removed meanwhile.
            let used = self.0.store.recorded_bytes().await?;
            self.0.budget.lock().count(used);
        }
        let Some(keep) = self.0.settings.keep else {
            return Ok(());
        };
        let old = self
            .0
            .store
            .recordings_before(now.before(keep), RECORDING_PAGE);
        for id in old.await? {
            self.remove_old(id).await?;
        }
        Ok(())
    }

    async fn remove_old(
        &self,
        id: holdfast_protocol::ids::SessionId,
    ) -> Result<(), RecordingError> {
        let Some(facts) = self.0.store.recording(id).await? else {
            return Ok(());
        };
        let event = Self::event(&facts.row, EventKind::RecordingRemoved);
        let event = event.because("it is older than `keep`");
        let mut tx = self.0.store.begin(Durability::Disk).await?;
        tx.audit(self.0.audit.entry(event));
        if !tx.recording_removed(id).await? {
            return Ok(());
        }
        tx.commit().await?;
        self.0.objects.remove(id).await?;
        info!(recording = %id, "removed: older than `keep`");
        Ok(())
    }
}
