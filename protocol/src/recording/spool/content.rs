//! Content up to a bound: where that of each stream ends, and what the recording says of it.

use crate::limits::MAX_CONTENT_ENDS_RECORD;
use crate::recording::chain::{Chain, ContentEnd, DigestPoint};
use crate::recording::record::{ContentEnds, Stream};

use super::{Accept, DataPiece, LiveRecording, Spool};
use crate::ids::SessionId;
use core::time::Duration;

/// The points at which the content of a session's streams ends.
#[derive(Debug)]
pub(super) struct Content {
    ends: [ContentEnd; 3],
    /// The ends that have a record.
    recorded: [bool; 3],
}

impl Content {
    /// Creates it for streams of which so many bytes are kept; `None`: all of them.
    pub(super) fn new(max: Option<u64>) -> Self {
        Self {
            ends: [ContentEnd::new(max); 3],
            recorded: [false; 3],
        }
    }

    /// Returns whether what comes next on the stream, whose chain this is, is not kept.
    pub(super) fn ends_before(&mut self, stream: Stream, chain: &Chain) -> bool {
        self.ends[stream.index()].look(chain);
        self.has_ended(stream)
    }

    pub(super) fn has_ended(&self, stream: Stream) -> bool {
        self.ends[stream.index()].at().is_some()
    }

    /// Returns the point, or the end of the stream's content if that is before it.
    pub(super) fn cap(&self, stream: Stream, point: DigestPoint) -> DigestPoint {
        self.ends[stream.index()].cap(point)
    }

    /// Returns an end that has no record. From here on it counts as recorded.
    pub(super) fn take_unrecorded(&mut self) -> Option<ContentEnds> {
        let stream = Stream::ALL
            .into_iter()
            .find(|stream| self.has_ended(*stream) && !self.recorded[stream.index()])?;
        self.recorded[stream.index()] = true;
        let from = self.ends[stream.index()].at()?;
        Some(ContentEnds { stream, from })
    }

    fn is_recorded(&self) -> bool {
        let recorded = |stream: &Stream| !self.has_ended(*stream) || self.recorded[stream.index()];
        Stream::ALL.iter().all(recorded)
    }
}

impl Spool {
    /// Returns whether a piece of data lies behind the end of its stream's content.
    pub(super) fn is_behind_content(&mut self, session: SessionId, stream: Stream) -> bool {
        let live = self.live.get_mut(&session);
        live.is_some_and(|live| live.ended.is_none() && live.ends_content(stream))
    }

    /// Digests a piece of data whose content is not kept. The record that says so waits until there is room, at the
    /// latest for the end of the recording.
    pub(super) fn digest(
        &mut self,
        now: Duration,
        session: SessionId,
        piece: &DataPiece<'_>,
    ) -> Accept {
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
}

#[cfg(test)]
mod tests;
