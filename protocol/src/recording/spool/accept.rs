//! Whether what a session shows is accepted: there is room for it, it waits, it is left out, or the session ends.

use alloc::vec::Vec;
use core::time::Duration;

use super::live::LiveRecording;
use super::share::SpoolShare;
use super::{Spool, Unavailable};
use crate::ids::SessionId;
use crate::limits::{GAP_HYSTERESIS, MAX_UNWRITTEN};
use crate::recording::record::{Event, GapReason, Record, RecordingStart, Stream};
use crate::recording::seal::RecordingKey;
use crate::recording::segment::WriteError;
use crate::wire::RecordingTerms;

/// The facts that begin a recording.
#[derive(Clone, Debug)]
pub struct Begin<'a> {
    /// The recording mode; not [`RecordingMode::Off`](crate::wire::RecordingMode::Off).
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
    /// The part of a command line that is left out ([`StartedWork::of`](crate::recording::record::StartedWork::of)).
    pub rest_of_command: &'a [u8],
}

/// A piece of a frame of data, as it comes from or goes to the wire.
#[derive(Clone, Copy, Debug)]
pub struct DataPiece<'a> {
    /// The stream.
    pub stream: Stream,
    /// The bytes.
    pub bytes: &'a [u8],
    /// The bytes of this frame that are still to come.
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

impl Spool {
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
    pub(super) fn accept_beside(
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
            return Accept::Refused(Unavailable::from(WriteError::from(error)));
        }
        let cost = LiveRecording::cost(encoded.len()) + more;
        let accept = self.admit(now, session, cost, &|live, why| live.skip_record(now, why));
        let Accept::Accepted = accept else {
            return accept;
        };
        self.record(session, |live| live.record(now, record.event))
    }

    /// Returns whether `cost` more bytes can be taken of a session; if not, what follows for it.
    pub(super) fn admit(
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

    pub(super) fn record(
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
    pub(super) fn room_for(&self, cost: u64, share: SpoolShare) -> Result<(), Unavailable> {
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
