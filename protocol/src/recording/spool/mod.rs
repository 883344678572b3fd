//! The spool: what is recorded waits here until a relay has stored it.
//!
//! It keeps a byte budget, batches what it writes, and never forgets what is not acknowledged. It does no
//! I/O: [`Spool::poll_work`] says what is to be done on the [medium](super::medium), and
//! [`Spool::handle_done`] takes the outcome. A byte is *accepted* when room for it is set aside; if the
//! medium fails afterwards, the spool holds the byte and tries again, and accepts no more.

mod accept;
mod content;
mod damage;
mod delivery;
mod forwards;
mod live;
mod offer;
mod recover;
mod share;
mod unavailable;
mod work;

use alloc::collections::BTreeMap;
use core::time::Duration;

use embedded_io::ErrorKind;

use super::medium::SegmentName;
use super::record::{EndReason, Event};
use super::segment::SegmentLink;
use crate::ids::SessionId;
use crate::limits::{MAX_SPOOL_FILES, SPOOL_BYTES, SPOOL_RESERVE};
use crate::wire::{SegmentGone, SegmentLost};
pub use damage::Damage;
use live::LiveRecording;
pub use offer::{Accept, Begin, DataPiece};
pub use recover::{Recovered, TornEnd};
use share::SpoolShare;
pub use unavailable::Unavailable;
pub use work::{SpoolWork, SpoolWrite, perform};

/// Describes how a spool behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpoolConfig {
    /// The most that it may hold. At least `MIN_SPOOL_BYTES`.
    pub max_bytes: u64,
    /// Free space of the file system that it leaves alone.
    pub reserve: u64,
    /// The policy of making sure that what it wrote survives a power cut.
    pub sync: Sync,
}

/// Describes when written bytes are made safe from a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// With each write but that of a recording's beginning: a power cut takes what was not written yet.
    Block,
    /// At the close of a segment: a power cut may take an open segment.
    Close,
    /// Never: the system does it when it likes. For a spool in memory.
    Off,
}

/// The bytes that were written, to judge the wear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flash {
    /// Bytes written to the medium, repetitions too.
    pub written: u64,
    /// Bytes of data that were recorded.
    pub recorded: u64,
    /// Syncs.
    pub syncs: u64,
}

/// The spool of a device.
#[derive(Debug)]
pub struct Spool {
    config: SpoolConfig,
    live: BTreeMap<SessionId, LiveRecording>,
    files: BTreeMap<SegmentName, SpoolFile>,
    /// Recordings that nothing is added to, and that the relay does not know to be so.
    ended: BTreeMap<SessionId, EndedRecording>,
    gone: BTreeMap<SessionId, SegmentGone>,
    /// Bytes of all files, those that were set aside among them.
    stored: u64,
    /// Free bytes when the medium was last asked.
    free: u64,
    flash: Flash,
    /// The device's clock in seconds since 1970, as it was last reported; `None` while it can't be trusted.
    clock: Option<i64>,
    /// The session that was served last.
    turn: SessionId,
}

/// A segment on the medium.
#[derive(Clone, Copy, Debug)]
struct SpoolFile {
    /// The length of its whole blocks.
    length: u64,
    link: SegmentLink,
    /// Nothing will be added to it.
    closed: bool,
    /// Seconds since 1970, where that is known.
    modified: Option<i64>,
    state: FileState,
    /// Work on it is under way.
    busy: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileState {
    /// For the relay.
    Waiting,
    /// The relay has it: to be removed.
    Stored,
    /// No relay takes it: to be renamed.
    Refused,
}

#[derive(Clone, Copy, Debug)]
struct EndedRecording {
    report: (Option<EndReason>, u32, SegmentLink),
    noted: bool,
}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self {
            max_bytes: SPOOL_BYTES,
            reserve: SPOOL_RESERVE,
            sync: Sync::Block,
        }
    }
}

impl Spool {
    /// Begins a recording. Its start is accepted with it.
    ///
    /// # Errors
    /// [`Unavailable`]: there is none. Under `strict` the session must not begin; otherwise it may, and the
    /// relay is informed that its recording is gone.
    pub fn begin(&mut self, now: Duration, begin: &Begin<'_>) -> Result<(), Unavailable> {
        let outcome = self.try_begin(now, begin);
        let session = begin.start.session;
        let goes_on = begin.terms.recover || begin.terms.mode != crate::wire::RecordingMode::Strict;
        if outcome.is_err() && goes_on && self.gone.len() < MAX_SPOOL_FILES {
            let why = SegmentLost::NoRoom;
            let gone = SegmentGone {
                session,
                segment: 0,
                why,
            };
            self.gone.insert(session, gone);
        }
        outcome
    }

    /// Ends a recording. There is always room for it.
    pub fn end(
        &mut self,
        now: Duration,
        session: SessionId,
        exit: Option<Event<'_>>,
        why: EndReason,
    ) {
        let Some(live) = self.live.get_mut(&session) else {
            return;
        };
        let outcome = live
            .close_gap(now)
            .and_then(|()| exit.map_or(Ok(()), |exit| live.record(now, exit)))
            .and_then(|()| live.end(now, why));
        if outcome.is_err() {
            // It can't be sealed any more: what is written of it is kept, and is reported as cut short.
            self.live.remove(&session);
            self.abandon(session);
        }
    }

    /// Returns whether a recording of this session is under way.
    #[must_use]
    pub fn is_recording(&self, session: &SessionId) -> bool {
        self.live
            .get(session)
            .is_some_and(|live| live.ended.is_none())
    }

    /// Returns whether something of this session is not on the medium yet: it runs, or its end waits.
    #[must_use]
    pub fn is_unwritten(&self, session: &SessionId) -> bool {
        self.live.contains_key(session)
    }

    /// Returns whether no recording is under way and nothing waits to be written.
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.live.is_empty()
    }

    /// Returns when there will be work, if nothing happens before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.live.values().filter_map(LiveRecording::timeout).min()
    }

    /// Returns bytes that the spool holds or has promised to hold.
    #[must_use]
    pub fn used(&self) -> u64 {
        let live: u64 = self.live.values().map(LiveRecording::committed).sum();
        self.stored + live
    }

    /// Returns why the medium does not take what it is given, if it does not.
    #[must_use]
    pub fn trouble(&self) -> Option<ErrorKind> {
        let failing = self.live.values().find_map(|live| live.failing);
        failing.map(|failing| failing.kind)
    }

    /// Returns what was written so far.
    #[must_use]
    pub fn flash(&self) -> Flash {
        self.flash
    }

    /// Sets the device's clock, for the ages that are shown to operators. `None` if it
    /// can't be trusted.
    pub fn handle_clock(&mut self, seconds: Option<i64>) {
        self.clock = seconds;
    }

    /// Returns when the oldest segment that waits was begun, or last written before the agent's start: in seconds
    /// since 1970, where that is known.
    #[must_use]
    pub fn oldest(&self) -> Option<i64> {
        self.files.values().filter_map(|file| file.modified).min()
    }

    /// Returns how it behaves.
    #[must_use]
    pub fn config(&self) -> &SpoolConfig {
        &self.config
    }

    fn try_begin(&mut self, now: Duration, begin: &Begin<'_>) -> Result<(), Unavailable> {
        let key = begin.key.ok_or(Unavailable::NoKey)?;
        if let Some(kind) = self.trouble() {
            return Err(Unavailable::Medium(kind));
        }
        let share = SpoolShare::of(begin.terms, &begin.start);
        let files = (self.files.len() + self.live.len()) as u64;
        if files + share.left_of(MAX_SPOOL_FILES as u64) >= MAX_SPOOL_FILES as u64 {
            return Err(Unavailable::TooManyFiles);
        }
        let live = LiveRecording::begin(now, begin, key)?;
        self.room_for(live.committed(), share)?;
        let session = begin.start.session;
        // A session is begun once: the relay makes its identifier.
        if self.live.contains_key(&session) || self.ended.contains_key(&session) {
            return Err(Unavailable::Twice);
        }
        self.live.insert(session, live);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
