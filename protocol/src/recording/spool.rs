//! The spool: what is recorded waits here until a relay has stored it.
//!
//! It keeps a byte budget, batches what it writes, and never forgets what is not acknowledged. It does no
//! I/O: [`Spool::poll_work`] says what is to be done on the [medium](super::medium), and
//! [`Spool::handle_done`] is told the outcome. A byte is *accepted* when room for it is set aside; if the
//! medium fails afterwards, the spool holds the byte and tries again, and accepts no more.

mod live;
mod recover;
mod unavailable;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use embedded_io::ErrorKind;

use super::medium::SegmentName;
use super::record::{
    EndReason, Event, ForwardClosed, ForwardOpened, GapReason, Record, Start, Stream,
};
use super::seal::RecordingKey;
use super::segment::Link;
use crate::ids::SessionId;
use crate::limits::{
    GAP_HYSTERESIS, MAX_CLOSED_RECORD, MAX_SPOOL_FILES, MAX_UNWRITTEN, RECOVER_RESERVE,
    SPOOL_BYTES, SPOOL_RESERVE,
};
use crate::wire::{
    OfferedSegment, RecordingTerms, Refused, SegmentGone, SegmentHeld, SegmentLost,
    SessionFinished, UploadMessage,
};
use live::Live;
pub use recover::{Cut, Recovered};
pub use unavailable::Unavailable;

/// How a spool behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpoolConfig {
    /// The most that it may hold. At least `MIN_SPOOL_BYTES`.
    pub max_bytes: u64,
    /// Free space of the file system that it leaves alone.
    pub reserve: u64,
    /// When it makes sure that what it wrote survives a power cut.
    pub sync: Sync,
}

/// When written bytes are made safe from a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// With each write: a power cut takes what was not written yet.
    Block,
    /// When a segment is closed: a power cut may take an open segment.
    Close,
    /// Never: the system does it when it likes. For a spool in memory.
    Off,
}

/// What begins a recording.
#[derive(Clone, Debug)]
pub struct Begin<'a> {
    /// How it is recorded; not [`RecordingMode::Off`](crate::wire::RecordingMode::Off).
    pub terms: &'a RecordingTerms,
    /// To what it is sealed: from the roster.
    pub key: Option<RecordingKey>,
    /// 32 bytes of the system's random source, for this recording alone.
    pub seed: [u8; 32],
    /// The first record.
    pub start: Start<'a>,
    /// What of a command line is not in it ([`StartedWork::of`](super::record::StartedWork::of)).
    pub rest_of_command: &'a [u8],
}

/// A piece of a frame of data, as it comes from or goes to the wire.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// Which stream.
    pub stream: Stream,
    /// The bytes.
    pub bytes: &'a [u8],
    /// How many more of this frame are still to come.
    pub remaining: usize,
    /// Whether the terminal's echo is off. Of a frame that comes in pieces, the first one's counts.
    pub hidden: bool,
}

/// Whether something was recorded.
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

/// Something to be done on the medium. Each is given out once, and has to come back in `handle_done`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Append to a segment.
    Write(Write),
    /// Remove a segment that a relay has stored.
    Remove(SegmentName),
    /// Rename a segment that no relay takes.
    SetAside(SegmentName),
}

/// Bytes for a segment: whole blocks.
#[derive(Clone, PartialEq, Eq)]
pub struct Write {
    /// Which.
    pub segment: SegmentName,
    /// Where they belong; at 0 the file is made first.
    pub at: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Whether they have to be safe from a power cut before this is done.
    pub sync: bool,
    closes: bool,
    link: Link,
}

/// What was written, to judge the wear.
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
    live: BTreeMap<SessionId, Live>,
    files: BTreeMap<SegmentName, File>,
    /// Recordings that nothing is added to, and that the relay does not know to be so.
    ended: BTreeMap<SessionId, Ended>,
    gone: BTreeMap<SessionId, SegmentGone>,
    /// Bytes of all files, those that were set aside among them.
    stored: u64,
    /// Free bytes when the medium was last asked.
    free: u64,
    flash: Flash,
    /// The device's clock in seconds since 1970, as it was last told; `None` while it can't be trusted.
    clock: Option<i64>,
    /// The session that was served last.
    turn: SessionId,
}

/// A segment on the medium.
#[derive(Clone, Copy, Debug)]
struct File {
    /// How much of it stands: whole blocks.
    length: u64,
    link: Link,
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
struct Ended {
    report: (Option<EndReason>, u32, Link),
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
    /// relay is told that its recording is gone.
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
    pub fn accept_data(&mut self, now: Duration, session: SessionId, piece: Piece<'_>) -> Accept {
        if piece.bytes.is_empty() {
            return Accept::Accepted;
        }
        if self.live.get(&session).is_some_and(|live| !live.holds_data) {
            return self.record(session, |live| live.record_data(now, &piece));
        }
        let cost = Live::cost(piece.bytes.len());
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

    /// Records that a forward begins, before anything passes on it. Room for its end is set aside.
    pub fn accept_opened(
        &mut self,
        now: Duration,
        session: SessionId,
        opened: ForwardOpened<'_>,
    ) -> Accept {
        let end = Live::cost(MAX_CLOSED_RECORD);
        let accept = self.accept_beside(now, session, Event::ForwardOpened(opened), end);
        if accept == Accept::Accepted
            && let Some(live) = self.live.get_mut(&session)
        {
            live.promise(end);
        }
        accept
    }

    /// Records the end of a forward. If its beginning was accepted, there is room, whatever else has come since.
    pub fn accept_closed(
        &mut self,
        now: Duration,
        session: SessionId,
        closed: ForwardClosed,
    ) -> Accept {
        let end = Live::cost(MAX_CLOSED_RECORD);
        let event = Event::ForwardClosed(closed);
        let promised = self
            .live
            .get_mut(&session)
            .is_some_and(|live| live.redeem(end));
        match promised {
            true => self.record(session, |live| live.record(now, event)),
            false => self.accept(now, session, event),
        }
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
        let cost = Live::cost(encoded.len()) + more;
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
            // It can't be sealed any more: what is written of it stands, and is reported as cut short.
            self.live.remove(&session);
            self.abandon(session);
        }
    }

    /// Whether a recording of this session is under way.
    #[must_use]
    pub fn is_recording(&self, session: &SessionId) -> bool {
        self.live
            .get(session)
            .is_some_and(|live| live.ended.is_none())
    }

    /// Whether something of this session is not on the medium yet: it runs, or its end waits.
    #[must_use]
    pub fn is_unwritten(&self, session: &SessionId) -> bool {
        self.live.contains_key(session)
    }

    /// Whether no recording is under way and nothing waits to be written.
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.live.is_empty()
    }

    /// The next thing to do on the medium.
    pub fn poll_work(&mut self, now: Duration) -> Option<Work> {
        if let Some(write) = self.poll_write(now) {
            return Some(Work::Write(write));
        }
        let next = self.files.iter().find_map(|(name, file)| {
            let work = match file.state {
                FileState::Stored if self.may_remove(name) => Work::Remove(*name),
                FileState::Refused => Work::SetAside(*name),
                _ => return None,
            };
            (!file.busy && file.closed).then_some((*name, work))
        });
        let (name, work) = next?;
        if let Some(file) = self.files.get_mut(&name) {
            file.busy = true;
        }
        Some(work)
    }

    /// Work was done, or failed. `outcome` is what [`perform`](super::medium::perform) gave.
    pub fn handle_done(&mut self, now: Duration, work: Work, outcome: Result<u64, ErrorKind>) {
        if let Ok(free) = outcome {
            self.free = free;
        }
        match work {
            Work::Write(write) => self.handle_written(now, write, outcome.map(|_| ())),
            Work::Remove(name) => match outcome {
                // One that is not there needs no removing.
                Ok(_) | Err(ErrorKind::NotFound) => {
                    let file = self.files.remove(&name);
                    self.stored -= file.map_or(0, |file| file.length);
                    self.forget_if_done(&name.session);
                }
                Err(_) => self.unbusy(&name),
            },
            Work::SetAside(name) => {
                let file = self.files.remove(&name);
                if matches!(outcome, Err(ErrorKind::NotFound)) {
                    self.stored -= file.map_or(0, |file| file.length);
                }
                self.forget_if_done(&name.session);
            }
        }
    }

    /// When there will be work, if nothing happens before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.live.values().filter_map(Live::timeout).min()
    }

    /// Bytes that the spool holds or has promised to hold.
    #[must_use]
    pub fn used(&self) -> u64 {
        let live: u64 = self.live.values().map(Live::committed).sum();
        self.stored + live
    }

    /// Why the medium does not take what it is given, if it does not.
    #[must_use]
    pub fn trouble(&self) -> Option<ErrorKind> {
        let failing = self.live.values().find_map(|live| live.failing);
        failing.map(|failing| failing.kind)
    }

    /// What was written so far.
    #[must_use]
    pub fn flash(&self) -> Flash {
        self.flash
    }

    /// Tells what the device's clock says, for what operators are told of the age of things. `None` if it
    /// can't be trusted.
    pub fn handle_clock(&mut self, seconds: Option<i64>) {
        self.clock = seconds;
    }

    /// When the oldest segment that waits was begun, or last written before the agent's start: in seconds
    /// since 1970, where that is known.
    #[must_use]
    pub fn oldest(&self) -> Option<i64> {
        self.files.values().filter_map(|file| file.modified).min()
    }

    /// How it behaves.
    #[must_use]
    pub fn config(&self) -> &SpoolConfig {
        &self.config
    }

    /// What a relay should be told, again and again until it was noted.
    pub fn reports(&self) -> impl Iterator<Item = UploadMessage> + '_ {
        let finished = self.ended.iter().filter(|(_, ended)| !ended.noted);
        let finished = finished.map(|(session, ended)| {
            let (why, segments, hash) = ended.report;
            UploadMessage::Finished(SessionFinished {
                session: *session,
                why,
                segments,
                hash,
            })
        });
        finished.chain(self.gone.values().cloned().map(UploadMessage::Gone))
    }

    /// What may be uploaded, a session's segments in their order.
    pub fn offers(&self) -> impl Iterator<Item = OfferedSegment> + '_ {
        let waiting = |file: &File| file.state == FileState::Waiting && file.length > 0;
        let waiting = self.files.iter().filter(move |(_, file)| waiting(file));
        waiting.map(|(name, file)| OfferedSegment {
            session: name.session,
            segment: name.index,
            length: file.length,
            hash: file.link,
            closed: file.closed,
        })
    }

    /// A relay knows that the session has ended, or that its recording is gone.
    pub fn handle_noted(&mut self, session: SessionId) {
        if let Some(ended) = self.ended.get_mut(&session) {
            ended.noted = true;
        }
        self.gone.remove(&session);
        self.forget_if_done(&session);
    }

    /// A relay has stored a segment. It is removed only if it is the one that is here.
    pub fn handle_stored(&mut self, held: &SegmentHeld) -> bool {
        let name = SegmentName {
            session: held.session,
            index: held.segment,
        };
        let Some(file) = self.files.get_mut(&name) else {
            return false;
        };
        let same = file.closed && file.length == held.offset && file.link == held.hash;
        if same {
            file.state = FileState::Stored;
        }
        same
    }

    /// A relay does not take a segment, or it can't be read: it is set aside, once.
    pub fn handle_refused(&mut self, name: SegmentName, why: Refused) {
        if why == Refused::Unavailable {
            return;
        }
        self.give_up(name);
    }

    /// A segment can't be read any more: the relay is told, and the file is set aside.
    pub fn handle_unreadable(&mut self, name: SegmentName, why: SegmentLost) {
        if self.files.contains_key(&name) {
            self.give_up(name);
            self.report_gone(name, why);
        }
    }

    fn give_up(&mut self, name: SegmentName) {
        if let Some(file) = self.files.get_mut(&name) {
            file.state = FileState::Refused;
        }
    }

    fn report_gone(&mut self, name: SegmentName, why: SegmentLost) {
        let gone = SegmentGone {
            session: name.session,
            segment: name.index,
            why,
        };
        let first = self.gone.entry(name.session).or_insert(gone.clone());
        if gone.segment < first.segment {
            *first = gone;
        }
    }

    fn try_begin(&mut self, now: Duration, begin: &Begin<'_>) -> Result<(), Unavailable> {
        let key = begin.key.ok_or(Unavailable::NoKey)?;
        if let Some(kind) = self.trouble() {
            return Err(Unavailable::Medium(kind));
        }
        if self.files.len() + self.live.len() >= MAX_SPOOL_FILES {
            return Err(Unavailable::TooManyFiles);
        }
        let live = Live::begin(now, begin, key)?;
        self.room_for(live.committed(), live.recovers)?;
        let session = begin.start.session;
        // A session is begun once: the relay makes its identifier.
        if self.live.contains_key(&session) || self.ended.contains_key(&session) {
            return Err(Unavailable::Twice);
        }
        self.live.insert(session, live);
        Ok(())
    }

    /// Whether `cost` more bytes can be taken of a session; if not, what follows for it.
    fn admit(
        &mut self,
        now: Duration,
        session: SessionId,
        cost: u64,
        skip: &dyn Fn(&mut Live, GapReason),
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
            None => self.room_for(cost + hysteresis, live.recovers),
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
        push: impl FnOnce(&mut Live) -> Result<(), Unavailable>,
    ) -> Accept {
        let outcome = self.live.get_mut(&session).map(push);
        match outcome {
            Some(Ok(())) => Accept::Accepted,
            Some(Err(unavailable)) => Accept::Refused(unavailable),
            None => Accept::Refused(Unavailable::NotRecording),
        }
    }

    /// Whether the spool may grow by so much.
    fn room_for(&self, cost: u64, recovers: bool) -> Result<(), Unavailable> {
        let used = self.used();
        let reserve = if recovers { 0 } else { RECOVER_RESERVE };
        if used + cost + reserve > self.config.max_bytes {
            return Err(Unavailable::Full {
                used,
                max: self.config.max_bytes,
                oldest: self.oldest(),
            });
        }
        let promised: u64 = self.live.values().map(Live::committed).sum();
        if promised + cost + self.config.reserve > self.free {
            return Err(Unavailable::DiskFull {
                free: self.free,
                reserve: self.config.reserve,
            });
        }
        Ok(())
    }

    /// Sessions take turns, so that a busy one does not starve the others.
    fn poll_write(&mut self, now: Duration) -> Option<Write> {
        let after = self
            .live
            .range(self.turn..)
            .skip_while(|(id, _)| **id == self.turn);
        let order: Vec<SessionId> = after
            .chain(self.live.range(..=self.turn))
            .map(|(session, _)| *session)
            .collect();
        for session in order {
            let Some(live) = self.live.get_mut(&session) else {
                continue;
            };
            match live.take_write(now) {
                Ok(Some(mut write)) => {
                    self.turn = session;
                    write.sync = match self.config.sync {
                        Sync::Block => true,
                        Sync::Close => write.closes,
                        Sync::Off => false,
                    };
                    return Some(write);
                }
                Ok(None) => {}
                Err(_) => {
                    self.live.remove(&session);
                    self.abandon(session);
                }
            }
        }
        None
    }

    fn handle_written(&mut self, now: Duration, write: Write, outcome: Result<(), ErrorKind>) {
        let name = write.segment;
        self.flash.written += write.bytes.len() as u64;
        self.flash.syncs += u64::from(write.sync);
        if outcome.is_ok() {
            let known = self.files.get(&name);
            let file = File {
                length: write.at + write.bytes.len() as u64,
                link: write.link,
                closed: write.closes,
                modified: known.map_or(self.clock, |file| file.modified),
                state: known.map_or(FileState::Waiting, |file| file.state),
                busy: false,
            };
            self.stored += file.length - known.map_or(0, |known| known.length.min(file.length));
            self.files.insert(name, file);
        }
        let Some(live) = self.live.get_mut(&name.session) else {
            return;
        };
        live.handle_written(now, write, outcome);
        if live.is_written()
            && let Some((why, link, segments)) = live.ended
        {
            self.live.remove(&name.session);
            let ended = Ended {
                report: (Some(why), segments, link),
                noted: false,
            };
            self.ended.insert(name.session, ended);
        }
    }

    /// A session whose recording can't be continued: what is on the medium is all there will be.
    fn abandon(&mut self, session: SessionId) {
        let name = |index| SegmentName { session, index };
        let mut files = self.files.range_mut(name(0)..=name(u32::MAX));
        let Some((last, file)) = files.next_back() else {
            self.report_gone(name(0), SegmentLost::NoRoom);
            return;
        };
        file.closed = true;
        let ended = Ended {
            report: (Some(EndReason::PowerLoss), last.index + 1, file.link),
            noted: false,
        };
        self.ended.insert(session, ended);
    }

    /// The newest segment of a session stays until the relay knows how the session ended: otherwise a
    /// crash would leave nothing to tell it by.
    fn may_remove(&self, name: &SegmentName) -> bool {
        let session = name.session;
        let next = SegmentName {
            session,
            index: name.index.saturating_add(1),
        };
        let last = SegmentName {
            session,
            index: u32::MAX,
        };
        let newer = self.files.range(next..=last).next().is_some();
        let settled = !self.live.contains_key(&session)
            && self.ended.get(&session).is_none_or(|ended| ended.noted);
        newer || settled
    }

    fn forget_if_done(&mut self, session: &SessionId) {
        let name = |index| SegmentName {
            session: *session,
            index,
        };
        let left = self.files.range(name(0)..=name(u32::MAX)).next().is_some();
        if !left && self.ended.get(session).is_some_and(|ended| ended.noted) {
            self.ended.remove(session);
        }
    }

    fn unbusy(&mut self, name: &SegmentName) {
        if let Some(file) = self.files.get_mut(name) {
            file.busy = false;
        }
    }
}

impl core::fmt::Debug for Write {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "Write({} bytes at {} of {})",
            self.bytes.len(),
            self.at,
            self.segment
        )
    }
}

#[cfg(test)]
mod tests;
