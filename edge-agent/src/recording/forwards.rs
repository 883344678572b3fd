//! Forwards as a recording tells them: when each began, and what had passed when it ended.
//!
//! A forward has no recording of its own: the relay names one that stands. Its beginning is accepted by the spool
//! before the operator hears of it; room for its end is set aside with that, so the end is always told, by the
//! forward itself or by the end of the recording.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use event_listener::EventListener;
use holdfast_protocol::ids::SessionId;
use holdfast_protocol::recording::record::{
    ForwardClosed, ForwardDirection, ForwardEnd, ForwardOpened,
};
use holdfast_protocol::recording::spool::Accept;
use holdfast_protocol::wire::{ForwardLogRef, RecordingMode};

use super::recorder::State;
use super::{Recorder, Unrecordable};

/// What is said of a forward whose recording does not stand.
const OVER: &str = "the recording of this connection's forwards is over: try again";

/// The forwards that are told in one recording.
#[derive(Debug, Default)]
pub(super) struct Forwards {
    /// Those that have not ended, by their numbers.
    open: BTreeMap<u32, Arc<ByteCounters>>,
    /// Why a strict recording takes no more of them.
    full: Option<String>,
}

/// How a forward begins.
#[derive(Clone, Debug)]
pub(crate) struct Beginning {
    /// Which way it goes.
    pub(crate) direction: ForwardDirection,
    /// What was asked for, or where somebody has come to.
    pub(crate) to: String,
    /// Who has come.
    pub(crate) from: Option<SocketAddr>,
    /// What `to` is here.
    pub(crate) address: Option<SocketAddr>,
}

/// What has passed on a forward: its two directions count, and whoever ends it reads.
#[derive(Debug, Default)]
pub(crate) struct ByteCounters {
    sent: AtomicU64,
    received: AtomicU64,
}

impl ByteCounters {
    /// So many bytes went to the place that was connected to.
    pub(crate) fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// So many bytes came from it.
    pub(crate) fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn closed(&self, id: u32, why: ForwardEnd) -> ForwardClosed {
        ForwardClosed {
            id,
            sent: self.sent.load(Ordering::Relaxed),
            received: self.received.load(Ordering::Relaxed),
            why,
        }
    }
}

/// A forward that is told in a recording.
#[derive(Debug)]
pub(crate) struct Told {
    recorder: Arc<Recorder>,
    told: ForwardLogRef,
    /// What passes on it.
    pub(crate) passed: Arc<ByteCounters>,
}

/// What the recording says to a forward.
enum Answer {
    /// It is told.
    Told,
    /// The spool is slower than its sessions: ask again when work was done.
    Wait,
    /// It can't be told.
    Refused(String),
}

impl Told {
    /// Tells that a forward begins, where the relay says; `None`: it can't be told, and may go on all the same.
    ///
    /// # Errors
    /// [`Unrecordable`]: it must not begin.
    pub(crate) async fn begin(
        recorder: &Arc<Recorder>,
        told: ForwardLogRef,
        beginning: &Beginning,
    ) -> Result<Option<Self>, Unrecordable> {
        let passed = Arc::<ByteCounters>::default();
        loop {
            let changed = recorder.changed.listen();
            match recorder.forward_begins(told, beginning, &passed) {
                Answer::Told => break,
                Answer::Wait => changed.await,
                Answer::Refused(why) if told.mode == RecordingMode::Strict => {
                    return Err(Unrecordable(why));
                }
                Answer::Refused(_) => return Ok(None),
            }
        }
        let recorder = Arc::clone(recorder);
        Ok(Some(Self {
            recorder,
            told,
            passed,
        }))
    }

    /// Tells that it is over.
    pub(crate) fn end(self, why: ForwardEnd) {
        let now = self.recorder.now();
        let mut state = self.recorder.lock();
        state.forward_ends(now, &self.told, why);
        self.recorder.wake(&state);
        drop(state);
        self.recorder.forwards.notify(usize::MAX);
    }
}

impl Recorder {
    /// How many forwards of a recording have not ended, and why it takes no more, if it does not.
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
        told: ForwardLogRef,
        beginning: &Beginning,
        passed: &Arc<ByteCounters>,
    ) -> Answer {
        let now = self.now();
        let mut state = self.lock();
        let answer = state.forward_begins(now, told, beginning, passed);
        self.wake(&state);
        drop(state);
        self.forwards.notify(usize::MAX);
        answer
    }
}

impl State {
    /// From here on forwards may be told in this recording, which has begun.
    pub(super) fn take_forwards(&mut self, session: SessionId) {
        self.forwards.insert(session, Forwards::default());
    }

    /// A recording is about to end: what is still open in it is told as that.
    pub(super) fn end_forwards(&mut self, now: Duration, session: SessionId) {
        let Some(forwards) = self.forwards.remove(&session) else {
            return;
        };
        let Ok(spool) = &mut self.spool else {
            return;
        };
        for (number, passed) in forwards.open {
            let closed = passed.closed(number, ForwardEnd::StillOpen);
            // There is room for it, or a gap that tells of it.
            let _ = spool.accept_closed(now, session, closed);
        }
    }

    fn forward_begins(
        &mut self,
        now: Duration,
        told: ForwardLogRef,
        beginning: &Beginning,
        passed: &Arc<ByteCounters>,
    ) -> Answer {
        let over = || Answer::Refused(OVER.to_owned());
        let Some(forwards) = self.forwards.get_mut(&told.session) else {
            return over();
        };
        if let Some(why) = &forwards.full {
            return Answer::Refused(why.clone());
        }
        let Ok(spool) = &mut self.spool else {
            return over();
        };
        if forwards.open.contains_key(&told.number) {
            return over();
        }
        let from = beginning.from.map(|from| from.to_string());
        let opened = ForwardOpened {
            id: told.number,
            to: &beginning.to,
            from: from.as_deref().unwrap_or_default(),
            direction: beginning.direction,
            address: beginning.address,
        };
        match spool.accept_opened(now, told.session, opened) {
            Accept::Accepted | Accept::Gap => {
                forwards.open.insert(told.number, Arc::clone(passed));
                Answer::Told
            }
            Accept::Wait => Answer::Wait,
            Accept::Refused(why) => {
                let why = why.to_string();
                forwards.full = Some(why.clone());
                Answer::Refused(why)
            }
        }
    }

    fn forward_ends(&mut self, now: Duration, told: &ForwardLogRef, why: ForwardEnd) {
        let forwards = self.forwards.get_mut(&told.session);
        let Some(passed) = forwards.and_then(|forwards| forwards.open.remove(&told.number)) else {
            // The recording has ended before it, and told so.
            return;
        };
        if let Ok(spool) = &mut self.spool {
            let closed = passed.closed(told.number, why);
            // There is room for it, or a gap that tells of it.
            let _ = spool.accept_closed(now, told.session, closed);
        }
    }
}
