//! The gaps of a recording: one opens when there is no room, and is recorded when there is again.

use core::time::Duration;

use super::LiveRecording;
use crate::recording::chain::DigestPoint;
use crate::recording::record::{Event, Gap, GapReason, Stream};
use crate::recording::spool::{DataPiece, Unavailable};

#[derive(Debug)]
pub(super) struct OpenGap {
    since: u64,
    /// The place where the streams stood: bytes before it that are in the recording, or redacted.
    from: [u64; 3],
    records: u64,
    why: GapReason,
}

impl LiveRecording {
    pub(in crate::recording::spool) fn is_gap(&self) -> bool {
        self.gap.is_some()
    }

    /// Leaves a piece of data out, which a gap will tell of.
    pub(in crate::recording::spool) fn skip_data(
        &mut self,
        now: Duration,
        piece: &DataPiece<'_>,
        why: GapReason,
    ) {
        self.open_gap(now, why);
        self.chains[piece.stream.index()].update(piece.bytes, piece.remaining);
    }

    /// Leaves another record out.
    pub(in crate::recording::spool) fn skip_record(&mut self, now: Duration, why: GapReason) {
        let gap = self.open_gap(now, why);
        gap.records = gap.records.saturating_add(1);
    }

    /// Returns whether a gap may end here: only between frames can the chains be taken up again.
    pub(in crate::recording::spool) fn may_close_gap(&self) -> bool {
        Stream::ALL.into_iter().all(|stream| {
            self.content.has_ended(stream) || self.chains[stream.index()].is_between_frames()
        })
    }

    /// Writes the records that wait: a gap, and the ends of content.
    pub(in crate::recording::spool) fn close_gap(
        &mut self,
        now: Duration,
    ) -> Result<(), Unavailable> {
        let Some(gap) = self.gap.take() else {
            return self.record_content_ends(now);
        };
        // What is not kept is not missing.
        let after = self.points_of_content();
        let micros = self.micros(now).saturating_sub(gap.since);
        self.push(
            now,
            Event::Gap(Gap {
                micros,
                bytes: [0, 1, 2].map(|index| after[index].bytes.saturating_sub(gap.from[index])),
                after,
                records: gap.records,
                why: gap.why,
            }),
        )?;
        self.record_content_ends(now)
    }

    fn open_gap(&mut self, now: Duration, why: GapReason) -> &mut OpenGap {
        let since = self.micros(now);
        // What was hidden of a frame that is cut by the gap leaves no record.
        let hidden = if self.gap.is_none() {
            core::mem::take(&mut self.hidden) as u64
        } else {
            0
        };
        let mut from = Stream::ALL.map(|stream| {
            let chain = &self.chains[stream.index()];
            match self.content.has_ended(stream) {
                true => self.content.cap(stream, chain.point()).bytes,
                false => chain.point().bytes + chain.begun(),
            }
        });
        from[0] -= hidden.min(from[0]);
        self.gap.get_or_insert(OpenGap {
            since,
            from,
            records: 0,
            why,
        })
    }

    /// Returns where the streams are, no further than content is kept.
    fn points_of_content(&self) -> [DigestPoint; 3] {
        Stream::ALL.map(|stream| {
            let point = self.chains[stream.index()].point();
            self.content.cap(stream, point)
        })
    }
}
