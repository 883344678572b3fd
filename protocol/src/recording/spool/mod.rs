//! The spool: what is recorded waits here until a relay has stored it.
//!
//! It keeps a byte budget, batches what it writes, and never forgets what is not acknowledged. It does no
//! I/O: [`Spool::poll_work`] says what is to be done on the [medium](super::medium), and
//! [`Spool::handle_done`] takes the outcome. A byte is *accepted* when room for it is set aside; if the
//! medium fails afterwards, the spool holds the byte and tries again, and accepts no more.

mod content;
mod damage;
mod delivery;
mod forwards;
mod live;
mod recover;
mod share;
mod unavailable;
mod work;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use embedded_io::ErrorKind;

use super::medium::SegmentName;
use super::record::{EndReason, Event, GapReason, Record, RecordingStart, Stream};
use super::seal::RecordingKey;
use super::segment::SegmentLink;
use crate::ids::SessionId;
use crate::limits::{GAP_HYSTERESIS, MAX_SPOOL_FILES, MAX_UNWRITTEN, SPOOL_BYTES, SPOOL_RESERVE};
use crate::wire::{RecordingTerms, SegmentGone, SegmentLost};
pub use damage::Damage;
use live::LiveRecording;
pub use recover::{Recovered, TornEnd};
use share::SpoolShare;
pub use unavailable::Unavailable;
pub use work::{SpoolWork, SpoolWrite};

/// Describes how a spool behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpoolConfig {
    /// The most that it may hold. At least `MIN_SPOOL_BYTES`.
    pub max_bytes: u64,
    /// Free space of the file system that it leaves alone.
    pub reserve: u64,
    /// Holds when it makes sure that what it wrote survives a power cut.
    pub sync: Sync,
}

/// Describes when written bytes are made safe from a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// With each write: a power cut takes what was not written yet.
    Block,
    /// When a segment is closed: a power cut may take an open segment.
    Close,
    /// Never: the system does it when it likes. For a spool in memory.
    Off,
}

/// The facts that begin a recording.
#[derive(Clone, Debug)]
pub struct Begin<'a> {
    /// Holds how it is recorded; not [`RecordingMode::Off`](crate::wire::RecordingMode::Off).
    pub terms: &'a RecordingTerms,
    /// To what it is sealed: from the roster.
    pub key: Option<RecordingKey>,
    /// 32 bytes of the system's random source, for this recording alone.
    pub seed: [u8; 32],
    /// The first record.
    pub start: RecordingStart<'a>,
    /// The bytes of each stream's content that are kept
    /// ([`SessionTerms::content_max`](crate::wire::SessionTerms::content_max)).
    pub content_max: Option<u64>,
    /// The part of a command line that is left out ([`StartedWork::of`](super::record::StartedWork::of)).
    pub rest_of_command: &'a [u8],
}

/// A piece of a frame of data, as it comes from or goes to the wire.
#[derive(Clone, Copy, Debug)]
pub struct DataPiece<'a> {
    /// The stream.
    pub stream: Stream,
    /// The bytes.
    pub bytes: &'a [u8],
    /// Holds how many more of this frame are still to come.
    pub remaining: usize,
    /// True if the terminal's echo is off. Of a frame that comes in pieces, the first one's counts.
    pub hidden: bool,
}

/// The outcome of offering something to the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Accept {
    /// It is, or will be as soon as the medium lets: go on.
    Accepted,
    /// The medium is slower than the session: offer it again when work was done.
    Wait,
    /// It is missing from the recording, which says so: go on.
    Gap,
    /// It is not recorded and must not be shown: end the session with this text.
    Refused(Unavailable),
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

    /// Records a piece of data, before it is shown. Nothing is changed by an answer of `Wait` or `Refused`.
    pub fn accept_data(
        &mut self,
        now: Duration,
        session: SessionId,
        piece: DataPiece<'_>,
    ) -> Accept {
        if piece.bytes.is_empty() {
            return Accept::Accepted;
        }
        if self.live.get(&session).is_some_and(|live| !live.holds_data) {
            return self.record(session, |live| live.record_data(now, &piece));
        }
        if self.is_behind_content(session, piece.stream) {
            return self.digest(now, session, &piece);
        }
        let cost = LiveRecording::cost(piece.bytes.len());
        let accept = self.admit(now, session, cost, &|live, why| {
            live.skip_data(now, &piece, why);
        });
        let Accept::Accepted = accept else {
            return accept;
        };
        let outcome = self.record(session, |live| live.record_data(now, &piece));
        if outcome == Accept::Accepted {
            self.flash.recorded += piece.bytes.len() as u64;
        }
        outcome
    }

    /// Records something else than data.
    pub fn accept(&mut self, now: Duration, session: SessionId, event: Event<'_>) -> Accept {
        self.accept_beside(now, session, event, 0)
    }

    /// Records something, if there is room for it and for `more` bytes beside it.
    fn accept_beside(
        &mut self,
        now: Duration,
        session: SessionId,
        event: Event<'_>,
        more: u64,
    ) -> Accept {
        let mut encoded = Vec::new();
        let delta = u64::MAX;
        let record = Record { delta, event };
        if let Err(error) = record.encode(&mut encoded) {
            return Accept::Refused(Unavailable::from(super::segment::WriteError::from(error)));
        }
        let cost = LiveRecording::cost(encoded.len()) + more;
        let accept = self.admit(now, session, cost, &|live, why| live.skip_record(now, why));
        let Accept::Accepted = accept else {
            return accept;
        };
        self.record(session, |live| live.record(now, record.event))
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

    /// Returns whether `cost` more bytes can be taken of a session; if not, what follows for it.
    fn admit(
        &mut self,
        now: Duration,
        session: SessionId,
        cost: u64,
        skip: &dyn Fn(&mut LiveRecording, GapReason),
    ) -> Accept {
        let Some(live) = self.live.get(&session) else {
            return Accept::Refused(Unavailable::NotRecording);
        };
        if live.ended.is_some() {
            return Accept::Refused(Unavailable::NotRecording);
        }
        let (gap, strict) = (live.is_gap(), live.strict);
        let hysteresis = if gap { GAP_HYSTERESIS } else { 0 };
        let room = match live.failing {
            Some(failing) => Err(Unavailable::Medium(failing.kind)),
            None => self.room_for(cost + hysteresis, live.share),
        };
        let slow = live.unwritten() > MAX_UNWRITTEN as u64;
        let Some(live) = self.live.get_mut(&session) else {
            return Accept::Refused(Unavailable::NotRecording);
        };
        match room {
            Ok(()) if slow => Accept::Wait,
            Ok(()) if gap && !live.may_close_gap() => {
                skip(live, GapReason::SpoolFull);
                Accept::Gap
            }
            Ok(()) if gap => match live.close_gap(now) {
                Ok(()) => Accept::Accepted,
                Err(unavailable) => Accept::Refused(unavailable),
            },
            Ok(()) => Accept::Accepted,
            Err(unavailable) if strict => Accept::Refused(unavailable),
            Err(unavailable) => {
                skip(live, unavailable.gap_reason());
                Accept::Gap
            }
        }
    }

    fn record(
        &mut self,
        session: SessionId,
        push: impl FnOnce(&mut LiveRecording) -> Result<(), Unavailable>,
    ) -> Accept {
        let outcome = self.live.get_mut(&session).map(push);
        match outcome {
            Some(Ok(())) => Accept::Accepted,
            Some(Err(unavailable)) => Accept::Refused(unavailable),
            None => Accept::Refused(Unavailable::NotRecording),
        }
    }

    /// Returns whether the spool may grow by so much for a session of this share.
    fn room_for(&self, cost: u64, share: SpoolShare) -> Result<(), Unavailable> {
        let used = self.used();
        let left = share.left_of(self.config.max_bytes);
        if used + cost + left + share.reserve() > self.config.max_bytes {
            return Err(Unavailable::Full {
                used,
                max: self.config.max_bytes,
                kept: left,
                kept_for: share.later(),
                oldest: self.oldest(),
            });
        }
        let promised: u64 = self.live.values().map(LiveRecording::committed).sum();
        // Where the file system is smaller than the spool may become, it is what is shared.
        let left = left.min(share.left_of(self.free));
        let reserve = self.config.reserve + left;
        if promised + cost + reserve > self.free {
            return Err(Unavailable::DiskFull {
                free: self.free,
                reserve,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
