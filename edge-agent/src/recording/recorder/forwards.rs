//! Forwards in a shared log: when each began, and what had passed when it ended.
//!
//! A forward has no recording of its own: the relay names the shared log of its connection. Its beginning is accepted
//! by the spool before the operator is answered; room for its end is reserved with that, so the end is always recorded,
//! by the forward itself or by the end of the recording.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use event_listener::EventListener;
use holdfast_protocol::ids::SessionId;
use holdfast_protocol::recording::record::{
    ForwardClosed, ForwardDirection, ForwardEnding, ForwardOpened,
};
use holdfast_protocol::recording::spool::Accept;
use holdfast_protocol::wire::{ForwardLogRef, RecordingMode};

use super::{NotRecordable, Recorder, RecorderState};

/// The reason given for a forward whose log does not exist or has ended.
const OVER: &str = "the recording of this connection's forwards is over: try again";

/// The forwards of one shared log.
#[derive(Debug, Default)]
pub(in crate::recording) struct OpenForwards {
    /// Those that have not ended, by their numbers.
    open: BTreeMap<u32, Arc<ByteCounters>>,
    /// The reason why a strict recording takes no more of them.
    full: Option<String>,
}

/// Describes how a forward begins.
#[derive(Clone, Debug)]
pub(crate) struct ForwardBeginning {
    /// The direction.
    pub(crate) direction: ForwardDirection,
    /// The target that was asked for, or the address that was connected to.
    pub(crate) to: String,
    /// The peer, of a connection that was accepted.
    pub(crate) from: Option<SocketAddr>,
    /// The address that `to` resolves to.
    pub(crate) address: Option<SocketAddr>,
}

/// The bytes that have passed on a forward: its two directions count, and its end reads.
#[derive(Debug, Default)]
pub(crate) struct ByteCounters {
    sent: AtomicU64,
    received: AtomicU64,
}

impl ByteCounters {
    /// Notes that so many bytes went to the place that was connected to.
    pub(crate) fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Notes that so many bytes came from it.
    pub(crate) fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn closed(&self, id: u32, why: ForwardEnding) -> ForwardClosed {
        ForwardClosed {
            id,
            sent: self.sent.load(Ordering::Relaxed),
            received: self.received.load(Ordering::Relaxed),
            why,
        }
    }
}

/// A forward that is recorded in a shared log.
#[derive(Debug)]
pub(crate) struct LoggedForward {
    recorder: Arc<Recorder>,
    log: ForwardLogRef,
    /// The bytes that pass on it.
    pub(crate) passed: Arc<ByteCounters>,
}

/// The recorder's answer to a forward that begins.
enum BeginAnswer {
    /// Its beginning is recorded.
    Recorded,
    /// The spool is slower than its sessions: ask again when work was done.
    Wait,
    /// It can't be recorded.
    Refused(String),
}

impl LoggedForward {
    /// Records that a forward begins, in the log that the relay names; `None`: it can't be recorded, and may go on all
    /// the same.
    ///
    /// # Errors
    /// [`NotRecordable`]: it must not begin.
    pub(crate) async fn begin(
        recorder: &Arc<Recorder>,
        log: ForwardLogRef,
        beginning: &ForwardBeginning,
    ) -> Result<Option<Self>, NotRecordable> {
        let passed = Arc::<ByteCounters>::default();
        loop {
            let changed = recorder.changed.listen();
            match recorder.forward_begins(log, beginning, &passed) {
                BeginAnswer::Recorded => break,
                BeginAnswer::Wait => changed.await,
                BeginAnswer::Refused(why) if log.mode == RecordingMode::Strict => {
                    return Err(NotRecordable(why));
                }
                BeginAnswer::Refused(_) => return Ok(None),
            }
        }
        let recorder = Arc::clone(recorder);
        Ok(Some(Self {
            recorder,
            log,
            passed,
        }))
    }

    /// Records that it is over.
    pub(crate) fn end(self, why: ForwardEnding) {
        let now = self.recorder.now();
        let mut state = self.recorder.lock();
        state.forward_ends(now, &self.log, why);
        self.recorder.wake(&state);
        drop(state);
        self.recorder.forwards.notify(usize::MAX);
    }
}

impl Recorder {
    /// Returns how many forwards of a recording have not ended, and why it takes no more, if it does not.
    pub(crate) fn forwards_of(&self, session: SessionId) -> (usize, Option<String>) {
        let state = self.lock();
        let forwards = state.forwards.get(&session);
        forwards.map_or((0, None), |forwards| {
            (forwards.open.len(), forwards.full.clone())
        })
    }

    /// Resolves when [`Self::forwards_of`] may say something else than at this call.
    pub(crate) fn forwards_changed(&self) -> EventListener {
        self.forwards.listen()
    }

    fn forward_begins(
        &self,
        log: ForwardLogRef,
        beginning: &ForwardBeginning,
        passed: &Arc<ByteCounters>,
    ) -> BeginAnswer {
        let now = self.now();
        let mut state = self.lock();
        let answer = state.forward_begins(now, log, beginning, passed);
        self.wake(&state);
        drop(state);
        self.forwards.notify(usize::MAX);
        answer
    }
}

impl RecorderState {
    /// Opens the shared log of a recording that has begun.
    pub(in crate::recording) fn take_forwards(&mut self, session: SessionId) {
        self.forwards.insert(session, OpenForwards::default());
    }

    /// Records what is still open in a recording that is about to end as such.
    pub(in crate::recording) fn end_forwards(&mut self, now: Duration, session: SessionId) {
        let Some(forwards) = self.forwards.remove(&session) else {
            return;
        };
        let Ok(spool) = &mut self.spool else {
            return;
        };
        for (number, passed) in forwards.open {
            let closed = passed.closed(number, ForwardEnding::StillOpen);
            // There is room for it, or a gap that counts it.
            let _ = spool.accept_closed(now, session, closed);
        }
    }

    fn forward_begins(
        &mut self,
        now: Duration,
        log: ForwardLogRef,
        beginning: &ForwardBeginning,
        passed: &Arc<ByteCounters>,
    ) -> BeginAnswer {
        let over = || BeginAnswer::Refused(OVER.to_owned());
        let Some(forwards) = self.forwards.get_mut(&log.session) else {
            return over();
        };
        if let Some(why) = &forwards.full {
            return BeginAnswer::Refused(why.clone());
        }
        let Ok(spool) = &mut self.spool else {
            return over();
        };
        if forwards.open.contains_key(&log.number) {
            return over();
        }
        let from = beginning.from.map(|from| from.to_string());
        let opened = ForwardOpened {
            id: log.number,
            to: &beginning.to,
            from: from.as_deref().unwrap_or_default(),
            direction: beginning.direction,
            address: beginning.address,
        };
        match spool.accept_opened(now, log.session, opened) {
            Accept::Accepted | Accept::Gap => {
                forwards.open.insert(log.number, Arc::clone(passed));
                BeginAnswer::Recorded
            }
            Accept::Wait => BeginAnswer::Wait,
            Accept::Refused(why) => {
                let why = why.to_string();
                forwards.full = Some(why.clone());
                BeginAnswer::Refused(why)
            }
        }
    }

    fn forward_ends(&mut self, now: Duration, log: &ForwardLogRef, why: ForwardEnding) {
        let forwards = self.forwards.get_mut(&log.session);
        let Some(passed) = forwards.and_then(|forwards| forwards.open.remove(&log.number)) else {
            // The recording has ended before it, and recorded that.
            return;
        };
        if let Ok(spool) = &mut self.spool {
            let closed = passed.closed(log.number, why);
            // There is room for it, or a gap that counts it.
            let _ = spool.accept_closed(now, log.session, closed);
        }
    }
}
