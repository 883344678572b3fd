//! Takes up a segment of which a part came before the relay was restarted.

use holdfast_protocol::recording::ingest::{Ingest, IngestAction, IngestState};
use holdfast_protocol::recording::scan::{ExpectedSegment, SegmentScan};
use holdfast_protocol::recording::segment::SegmentLink;
use holdfast_protocol::wire::{OfferedSegment, SegmentBytes};

use super::{IngestEntry, on};
use crate::recording::{RecordingError, Recordings};

impl Recordings {
    /// Returns what came of the offered segment before the relay was restarted, or had to begin anew: whole blocks,
    /// and only if they can be a part of what is offered.
    pub(super) async fn received(
        &self,
        entry: &IngestEntry,
        offer: Option<&OfferedSegment>,
    ) -> Result<Vec<u8>, RecordingError> {
        let Some(offer) = offer else {
            return Ok(Vec::new());
        };
        let (id, segment) = (entry.id, offer.segment);
        let mut bytes = on(&self.0.objects, move |objects| {
            objects.received(id, segment)
        })
        .await?;
        let stored = entry.ingest.stored();
        let before = stored
            .last()
            .map_or_else(|| SegmentLink::first(&id), |(_, link)| *link);
        // Of an altered recording no chain proves anything any more.
        let is_altered = matches!(entry.ingest.state(), IngestState::Tampered { .. });
        let mut scan = SegmentScan::new(ExpectedSegment {
            place: Some((id, segment)),
            before: Some(before).filter(|_| !is_altered),
        });
        let mut input = bytes.as_slice();
        let is_current = loop {
            match scan.read(&mut input) {
                Ok(Some(_)) => {}
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        let whole = scan.whole();
        let fits = whole < offer.length || (whole == offer.length && scan.link() == offer.hash);
        bytes.truncate(usize::try_from(whole).unwrap_or(0));
        Ok(if is_current && fits {
            bytes
        } else {
            Vec::new()
        })
    }
}

/// Feeds a segment's working file to the state machine as if it came now, and has it say where to go on
/// instead of "from the beginning".
pub(super) fn resume(ingest: &mut Ingest, segment: u32, known: Vec<u8>) {
    // The answer to the offer is still in the queue.
    let answers: Vec<IngestAction> = std::iter::from_fn(|| ingest.poll_action()).collect();
    debug_assert!(
        answers.len() <= 1,
        "nothing follows a new segment but its answer"
    );
    let bytes = SegmentBytes {
        offset: 0,
        bytes: known,
    };
    ingest.handle_bytes(segment, &bytes);
    let nothing = SegmentBytes {
        offset: 0,
        bytes: Vec::new(),
    };
    ingest.handle_bytes(segment, &nothing);
}
