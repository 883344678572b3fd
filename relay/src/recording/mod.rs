//! Recordings on the relay: what it notes of a session that is recorded, what comes from devices, and what
//! is said of it at last.
//!
//! [`Recordings`] is the composition: a recording begins with its session ([`Recordings::begin`]), its
//! segments come on the device's tunnel (`upload`), the protocol's state machine judges each step
//! (`ingest`), and when all that will come has come it is opened, compared and signed ([`verify`]).

pub(crate) mod archive;
pub(crate) mod export;
pub(crate) mod limits;
pub(crate) mod objects;
pub(crate) mod stream_digests;
pub(crate) mod verify;

mod ingest;
mod keeper;
mod notes;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use holdfast_protocol::ids::SessionId;
use holdfast_protocol::recording::chain::{
    ChainKey, Closing, RecordedKind, SeenForward, SessionStart,
};
use holdfast_protocol::recording::ingest::UploadStream;
use holdfast_protocol::recording::seal::RecordingSecret;
use holdfast_protocol::wire::SegmentLost;
use thiserror::Error;

use crate::audit::{Audit, Event, EventKind};
use crate::clock::Timestamp;
use crate::recording::limits::RECORDING_CHECKS;
use crate::state::{SigningKey, State, random_bytes};
use crate::store::{
    Durability, NewRecording, Over, RecordingRow, RelayId, SessionFacts, Store, StoreError, Tx,
    recorded_kind,
};
use crate::sync::Mutex;

pub(crate) use keeper::run as keep;

use archive::Archive;
use ingest::UploadSlot;
use objects::Objects;
use objects::backend::{StorageBackend, StorageError};
use objects::budget::{Bounds, StorageBudget};
use stream_digests::{RecordedContent, StreamDigests};
use verify::checks::Checks;

/// The time that recordings are waited for and kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecordingSettings {
    /// The time after which what a device has not delivered is lost.
    pub expect_within: Duration,
    /// The time that they are kept; `None`: for ever.
    pub keep: Option<Duration>,
    /// The storage backend.
    pub place: StorageBackend,
    /// The maximum that they may take.
    pub bounds: Bounds,
}

/// The abilities of a device that decide what its recording holds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RecordingSupport {
    /// The bytes of each stream's content that it keeps; `None`: all.
    pub content_max: Option<u64>,
    /// True if it follows sftp as this relay does.
    pub follows_files: bool,
}

/// The recordings of this relay. Cloning it is cheap.
#[derive(Clone)]
pub(crate) struct Recordings(Arc<RecordingsInner>);

struct RecordingsInner {
    relay: RelayId,
    store: Store,
    audit: Audit,
    objects: Objects,
    secrets: Vec<RecordingSecret>,
    cluster: SigningKey,
    settings: RecordingSettings,
    /// Sessions that run here, and what has passed on them.
    live: Mutex<HashMap<SessionId, StreamDigests>>,
    /// Those of them that began before their device's agent, which does not hold their recordings.
    not_held: Mutex<HashMap<SessionId, SegmentLost>>,
    /// Recordings that something is done for now.
    slots: Mutex<HashMap<SessionId, Arc<UploadSlot>>>,
    /// The number of upload streams there were.
    streams: AtomicU64,
    /// Those whose verdict is being made.
    judged: Mutex<HashSet<SessionId>>,
    checks: Checks,
    budget: Mutex<StorageBudget>,
}

/// The reason why something could not be done for a recording. The device keeps what is not stored, and comes again.
#[derive(Debug, Error)]
pub(crate) enum RecordingError {
    /// The store.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The storage of objects failed.
    #[error("the recordings' store failed: {0}")]
    Objects(#[from] io::Error),
    /// There is no such place.
    #[error("{0}")]
    Storage(#[from] StorageError),
    /// A thread for it.
    #[error("a check was cancelled")]
    Cancelled,
    /// No random numbers.
    #[error("the relay has no random numbers")]
    Random,
    /// The state's cluster key.
    #[error("the cluster key cannot be read again")]
    ClusterKey,
}

impl Recordings {
    /// Creates the recordings of a relay that starts: every session of earlier runs is over.
    ///
    /// # Errors
    /// [`RecordingError`].
    pub(crate) async fn start(
        relay: RelayId,
        state: &State,
        store: Store,
        audit: Audit,
        settings: RecordingSettings,
    ) -> Result<Self, RecordingError> {
        let now = Timestamp::now();
        let expected = now.after(settings.expect_within);
        let objects = Objects::new(state.recordings(), &settings.place)?;
        let mut tx = store.begin(Durability::Disk).await?;
        tx.recordings_of_ended_runs_over(now, expected).await?;
        settings.place.remember(&mut tx).await?;
        settings.bounds.remember(&mut tx).await?;
        tx.commit().await?;
        let budget = StorageBudget::new(settings.bounds, store.recorded_bytes().await?);
        let cluster = SigningKey::from_pkcs8(state.cluster.pkcs8());
        Ok(Self(Arc::new(RecordingsInner {
            relay,
            store,
            audit,
            objects,
            secrets: vec![state.recording.clone()],
            cluster: cluster.ok_or(RecordingError::ClusterKey)?,
            settings,
            live: Mutex::default(),
            not_held: Mutex::default(),
            slots: Mutex::default(),
            streams: AtomicU64::default(),
            judged: Mutex::default(),
            checks: Checks::new(RECORDING_CHECKS),
            budget: Mutex::new(budget),
        })))
    }

    /// Notes in a change that the sessions of all runs that have ended are over.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn ended_runs_over(
        &self,
        tx: &mut Tx,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let expected = now.after(self.0.settings.expect_within);
        tx.recordings_of_ended_runs_over(now, expected).await
    }

    /// Returns the number of an upload stream that a device has opened just now.
    fn next_stream(&self) -> UploadStream {
        UploadStream(self.0.streams.fetch_add(1, Ordering::Relaxed))
    }

    /// Returns the stored recordings, for readers that may look into them.
    #[must_use]
    pub(crate) fn archive(&self, state: &State) -> Archive {
        Archive::of(state, self.0.objects.clone())
    }

    /// Begins the recording of a session, or of what passes on forwards: it is in the store before the device hears of
    /// it. Gives the key of its streams' digests, and what takes them; `begun` is what the session is begun with, given
    /// that key, and `device` what its device does.
    ///
    /// # Errors
    /// [`RecordingError`]: nothing of it is taken, then.
    pub(crate) async fn begin(
        &self,
        session: SessionFacts,
        begun: impl FnOnce(&ChainKey) -> SessionStart,
        device: RecordingSupport,
    ) -> Result<(ChainKey, StreamDigests), RecordingError> {
        let id = session.id;
        let key = ChainKey(random_bytes().map_err(|_| RecordingError::Random)?);
        let begun = begun(&key);
        let kind = recorded_kind(session.kind);
        let holds_data = kind.holds_data(Some(&begun));
        let lists_files = kind == RecordedKind::Sftp && !holds_data;
        let content = RecordedContent {
            holds_data,
            max: device.content_max,
            files: lists_files.then_some(device.follows_files),
        };
        let watched = StreamDigests::new(id, &key, content);
        let new = NewRecording {
            session,
            key: key.clone(),
            begun,
            seen: watched.seen(),
        };
        self.0.live.lock().insert(id, watched.clone());
        let begun = async {
            let mut tx = self.0.store.begin(Durability::Disk).await?;
            tx.recording_begun(self.0.relay, &new).await?;
            tx.commit().await
        };
        let begun = begun.await;
        if begun.is_err() {
            self.0.live.lock().remove(&id);
        }
        begun?;
        Ok((key, watched))
    }

    /// Notes that a recording was given up before [`Self::begin`] was done.
    pub(crate) fn not_begun(&self, id: SessionId) {
        self.0.live.lock().remove(&id);
        self.0.not_held.lock().remove(&id);
    }

    /// Notes that the file operations of a recorded session cannot be followed any more, for this reason.
    ///
    /// # Errors
    /// [`RecordingError`].
    pub(crate) async fn unfollowed(&self, id: SessionId, why: &str) -> Result<(), RecordingError> {
        let mut tx = self.0.store.begin(Durability::Disk).await?;
        tx.recording_unfollowed(id, why).await?;
        Ok(tx.commit().await?)
    }

    /// Notes that a forward in a recording is over, and what is known of it. It comes before [`Self::over`].
    ///
    /// # Errors
    /// [`RecordingError`]: then that forward is not proved.
    pub(crate) async fn forward_over(
        &self,
        watched: &StreamDigests,
        number: u32,
        seen: &SeenForward,
    ) -> Result<(), RecordingError> {
        let mut tx = self.0.store.begin(Durability::Process).await?;
        tx.recording_forward(watched.id, number, seen).await?;
        Ok(tx.commit().await?)
    }

    /// Notes that a recorded session is over; `closing` says whether the device sent its exit status, `refused` that it
    /// started nothing. From here on its recording can be judged.
    ///
    /// # Errors
    /// [`RecordingError`]: it is judged by what was noted before.
    pub(crate) async fn over(
        &self,
        watched: &StreamDigests,
        closing: Closing,
        refused: bool,
    ) -> Result<(), RecordingError> {
        let ended = Timestamp::now();
        let how = Over {
            ended,
            closing,
            refused,
            expected: ended.after(self.0.settings.expect_within),
        };
        let seen = watched.seen();
        let noted = async {
            let mut tx = self.0.store.begin(Durability::Disk).await?;
            tx.recording_over(watched.id, &seen, how).await?;
            tx.commit().await
        };
        let noted = noted.await;
        self.0.live.lock().remove(&watched.id);
        let not_held = self.0.not_held.lock().remove(&watched.id);
        noted?;
        self.session_over(watched.id, how.expected).await?;
        match not_held {
            Some(why) if !refused => self.settle_not_held(watched.id, why).await,
            _ => Ok(()),
        }
    }

    fn is_live(&self, id: SessionId) -> bool {
        self.0.live.lock().contains_key(&id)
    }

    /// Returns an event about a recording, with whose session it was.
    fn event(row: &RecordingRow, kind: EventKind) -> Event {
        let SessionFacts { id, login, .. } = &row.session;
        let event = Event::recording(kind, &id.to_string());
        let mut event = event.session(*id).login(login);
        event.device = Some(crate::audit::DeviceFacts {
            name: row.session.device_name.clone(),
            id: row.session.device,
            address: None,
            clock_skew: None,
        });
        event.with("recorded_user", row.session.user.as_str())
    }
}

impl fmt::Debug for Recordings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recordings").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
