//! Content up to a bound: where that of each stream ends, and what the recording says of it.

use crate::recording::chain::{Chain, ContentEnd, DigestPoint};
use crate::recording::record::{ContentEnds, Stream};

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

    /// Returns whether each end has its record.
    pub(super) fn is_recorded(&self) -> bool {
        let recorded = |stream: &Stream| !self.has_ended(*stream) || self.recorded[stream.index()];
        Stream::ALL.iter().all(recorded)
    }
}

#[cfg(test)]
pub(super) mod tests;
