//! Decides whether what a session shows is accepted: there is room for it, it waits, it is left out, or the session
//! ends.

use alloc::vec::Vec;
use core::time::Duration;

use super::live::LiveRecording;
use super::offer::{Accept, DataPiece};
use super::share::SpoolShare;
use super::{Spool, Unavailable};
use crate::ids::SessionId;
use crate::limits::{GAP_HYSTERESIS, MAX_CONTENT_ENDS_RECORD, MAX_UNWRITTEN};
use crate::recording::record::{Event, GapReason, Record, Stream};
use crate::recording::segment::WriteError;

/// The answer for a session while the medium is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnSlowMedium {
    /// It waits.
    Wait,
    /// It is over, and waits for nothing.
    Continue,
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
        let accept = self.admit(now, session, cost, OnSlowMedium::Wait, &|live, why| {
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
        self.accept_beside(now, session, event, 0, OnSlowMedium::Wait)
    }

    /// Records something else than data of a session that is over: it does not wait for a slow medium, which could not
    /// slow the session down any more.
    pub fn accept_last(&mut self, now: Duration, session: SessionId, event: Event<'_>) -> Accept {
        self.accept_beside(now, session, event, 0, OnSlowMedium::Continue)
    }

    /// Records that file operations are missing from here on, for this reason. There is always room for it once, before
    /// the end of a session.
    pub fn unfollowed(&mut self, now: Duration, session: SessionId, why: &str) {
        if !self.is_recording(&session) {
            return;
        }
        // A recording that takes no more is cut short, and says so.
        let _ = self.record(session, |live| {
            live.record(now, Event::FilesUnfollowed(why))
        });
    }

    /// Records something, if there is room for it and for `more` bytes beside it.
    pub(super) fn accept_beside(
        &mut self,
        now: Duration,
        session: SessionId,
        event: Event<'_>,
        more: u64,
        on_slow: OnSlowMedium,
    ) -> Accept {
        let mut encoded = Vec::new();
        let delta = u64::MAX;
        let record = Record { delta, event };
        if let Err(error) = record.encode(&mut encoded) {
            return Accept::Refused(Unavailable::from(WriteError::from(error)));
        }
        let cost = LiveRecording::cost(encoded.len()) + more;
        let skip = |live: &mut LiveRecording, why| live.skip_record(now, why);
        let accept = self.admit(now, session, cost, on_slow, &skip);
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
        on_slow: OnSlowMedium,
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
            Ok(()) if slow && on_slow == OnSlowMedium::Wait => Accept::Wait,
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

    /// Returns whether a piece of data lies behind the end of its stream's content.
    fn is_behind_content(&mut self, session: SessionId, stream: Stream) -> bool {
        let live = self.live.get_mut(&session);
        live.is_some_and(|live| live.ended.is_none() && live.ends_content(stream))
    }

    /// Digests a piece of data whose content is not kept. The record that says so waits until there is room, at the
    /// latest for the end of the recording.
    fn digest(&mut self, now: Duration, session: SessionId, piece: &DataPiece<'_>) -> Accept {
        let Some(live) = self.live.get(&session) else {
            return Accept::Accepted;
        };
        let cost = LiveRecording::cost(MAX_CONTENT_ENDS_RECORD * Stream::ALL.len());
        let is_time = !live.content.is_recorded()
            && !live.is_gap()
            && live.failing.is_none()
            && self.room_for(cost, live.share).is_ok();
        self.record(session, |live| {
            if is_time {
                live.record_content_ends(now)?;
            }
            live.digest(piece);
            Ok(())
        })
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
        if sum(&[used, cost, left, share.reserve()]) > self.config.max_bytes {
            return Err(Unavailable::Full {
                used,
                max: self.config.max_bytes,
                kept: left,
                kept_for: share.later(),
                oldest: self.oldest(),
            });
        }
        let promised: u64 = self.live.values().map(LiveRecording::committed).sum();
        // Where the file system is smaller than the spool may become, it is what is shared, without what is on its way
        // there: otherwise a write that is done would make room, and end a gap.
        let left = left.min(share.left_of(self.free.saturating_sub(promised)));
        let reserve = self.config.reserve.saturating_add(left);
        if sum(&[promised, cost, reserve]) > self.free {
            return Err(Unavailable::DiskFull {
                free: self.free,
                reserve,
            });
        }
        Ok(())
    }
}

/// Returns the sum of sizes. Those that the device's configuration says may be as large as numbers get.
fn sum(sizes: &[u64]) -> u64 {
    sizes.iter().copied().fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests;
