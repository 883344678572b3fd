//! Writes down now and then what has passed in the sessions that go on. Another relay that judges a recording of one that
//! died compares it with that.

use std::collections::HashMap;

use holdfast_protocol::ids::SessionId;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::stream_digests::StreamDigests;
use super::{RecordingError, Recordings};
use crate::recording::limits::{NOTED_AT_ONCE, RECORDING_NOTE, RECORDING_NOTE_SHARED};
use crate::store::{Durability, SeenSession};

/// The digests that were written down, of each session.
pub(super) type NotedSessions = HashMap<SessionId, SeenSession>;

/// Runs until it is aborted.
pub(super) async fn run(recordings: &Recordings) {
    let mut ticks = interval(match recordings.0.store.is_shared() {
        true => RECORDING_NOTE_SHARED,
        false => RECORDING_NOTE,
    });
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut noted, mut fails) = (NotedSessions::new(), false);
    loop {
        ticks.tick().await;
        let done = recordings.note(&mut noted).await;
        // Once for each state: the database may be away for long.
        match &done {
            Ok(()) if fails => info!("the digests of sessions are stored again"),
            Err(error) if !fails => warn!(%error, "the digests of sessions cannot be stored"),
            _ => {}
        }
        fails = done.is_err();
    }
}

impl Recordings {
    /// Writes down what has changed since the last time.
    ///
    /// # Errors
    /// [`RecordingError`]: what was not written is written the next time.
    pub(super) async fn note(&self, noted: &mut NotedSessions) -> Result<(), RecordingError> {
        let live: Vec<StreamDigests> = self.0.live.lock().values().cloned().collect();
        noted.retain(|id, _| self.is_live(*id));
        for some in live.chunks(NOTED_AT_ONCE) {
            let seen = some.iter().map(|watched| (watched.id, watched.seen()));
            let changed = |(id, seen): &(SessionId, SeenSession)| noted.get(id) != Some(seen);
            let changed: Vec<_> = seen.filter(changed).collect();
            if changed.is_empty() {
                continue;
            }
            let mut tx = self.0.store.begin(Durability::Process).await?;
            for (id, seen) in &changed {
                tx.recording_seen(*id, seen).await?;
            }
            tx.commit().await?;
            noted.extend(changed);
        }
        Ok(())
    }
}
