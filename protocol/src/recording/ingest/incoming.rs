//! The segment that is coming: whether it is wanted, what is checked of it as it comes, and how it is stored.

use super::{Ingest, IngestAction, IngestFault, IngestState, MISSING_SEGMENT, UploadStream};
use crate::limits::{MAX_MISSING_SEGMENTS, MAX_SEGMENT, MAX_SEGMENTS, UPLOAD_ACK_EVERY};
use crate::recording::scan::{ExpectedSegment, ScanFault, SegmentScan};
use crate::recording::segment::SegmentLink;
use crate::wire::{OfferedSegment, SegmentBytes, SegmentHeld, SegmentRefused, UploadAnswer};

/// The segment that is coming.
#[derive(Debug)]
pub(super) struct IncomingSegment {
    pub(super) offer: OfferedSegment,
    scan: SegmentScan,
    received: u64,
    acknowledged: u64,
    /// The block that is not what was written, and how; 0 if the header is not. What is behind it is taken without
    /// being checked.
    pub(super) damage: Option<(u32, IngestFault)>,
    /// Everything of it that there is has come, and is being stored.
    storing: bool,
}

impl Ingest {
    /// Returns whether this segment is within [`Self::handle_allowed`].
    #[must_use]
    pub fn is_allowed(&self, offer: &OfferedSegment) -> bool {
        let stored = self.stored.iter().map(|(length, _)| *length);
        stored.fold(offer.length, u64::saturating_add) <= self.allowed
    }

    /// Returns whether bytes of this segment would be taken, and would be new.
    #[must_use]
    pub fn is_wanted(&self, offer: &OfferedSegment) -> bool {
        let is_open = self.is_open(offer.segment);
        let is_segment = offer.length <= MAX_SEGMENT as u64 && offer.segment < MAX_SEGMENTS;
        let is_new = offer.segment >= self.next_segment() && !self.is_far_behind(offer.segment);
        is_open && is_segment && is_new && self.is_allowed(offer)
    }

    /// Returns whether segments between the stored ones and this one are missing.
    #[must_use]
    pub fn is_behind_missing(&self, segment: u32) -> bool {
        segment > self.next_segment()
    }

    /// Returns whether more of them are missing than are passed over.
    fn is_far_behind(&self, segment: u32) -> bool {
        segment - segment.min(self.next_segment()) > MAX_MISSING_SEGMENTS
    }

    /// Notes that a segment is offered on `stream`.
    pub fn handle_offer(&mut self, stream: UploadStream, offer: &OfferedSegment) {
        if stream < self.stream {
            return;
        }
        self.stream = stream;
        if let Some(stored) = usize::try_from(offer.segment)
            .ok()
            .and_then(|index| self.stored.get(index))
        {
            return self.answer_stored(offer, *stored);
        }
        if !self.is_open(offer.segment) {
            return self.refuse(offer.segment, SegmentRefused::Tampered);
        }
        if offer.length > MAX_SEGMENT as u64 || offer.segment >= MAX_SEGMENTS {
            return self.tampered(offer.segment, 0, IngestFault::Bytes(ScanFault::Length));
        }
        if self.is_behind_missing(offer.segment) {
            // A device offers its segments in their order. It waits for the answer to what it has offered.
            self.incoming = None;
            self.settle(IngestState::Tampered {
                segment: self.next_segment(),
                block: 0,
                fault: IngestFault::Missing,
            });
            if self.is_far_behind(offer.segment) {
                return self.refuse(offer.segment, SegmentRefused::Tampered);
            }
            self.damaged = offer.segment.checked_sub(1);
        }
        if let Some((segment, block)) = self.cut.take() {
            self.damaged = Some(segment);
            self.settle(IngestState::Tampered {
                segment,
                block,
                fault: IngestFault::Bytes(ScanFault::CutShort),
            });
        }
        if !self.is_allowed(offer) {
            // While the session runs, the relay may be behind its device; what is too much then is so at its end.
            return match self.deadline {
                Some(_) => self.tampered(offer.segment, 0, IngestFault::TooLong),
                None => self.refuse(offer.segment, SegmentRefused::Unavailable),
            };
        }
        let resumes = self.incoming.as_ref().is_some_and(|incoming| {
            let at_end = incoming.received == offer.length;
            incoming.offer.segment == offer.segment
                && incoming.received <= offer.length
                && (!at_end || incoming.damage.is_some() || incoming.scan.link() == offer.hash)
        });
        if resumes {
            if let Some(incoming) = &mut self.incoming {
                incoming.offer = offer.clone();
            }
        } else {
            self.actions.push_back(IngestAction::Restart(offer.segment));
            self.pass_over(offer.segment);
            self.incoming = Some(self.begin(offer));
        }
        self.acknowledge();
        self.finish_segment();
    }

    /// Notes that bytes of `segment`, which was the last to be offered on the stream that they came on. The driver
    /// hands on only what comes on the newest tunnel of the device. An older stream's bytes are the same
    /// file's, and as good.
    pub fn handle_bytes(&mut self, segment: u32, bytes: &SegmentBytes) {
        let ours = |incoming: &&mut IncomingSegment| {
            !incoming.storing && incoming.offer.segment == segment
        };
        let Some(incoming) = self.incoming.as_mut().filter(ours) else {
            return;
        };
        // What came before, or leaves a hole, is not taken; the answer says where to go on.
        let known = incoming.received.checked_sub(bytes.offset);
        let new = known.and_then(|known| bytes.bytes.get(usize::try_from(known).ok()?..));
        let Some(new) = new.filter(|new| !new.is_empty()) else {
            return self.acknowledge();
        };
        incoming.received += new.len() as u64;
        if incoming.received > incoming.offer.length {
            return self.tampered(segment, 0, IngestFault::OtherHash);
        }
        let mut input = new;
        // Evidence is kept, too: what is wrong is appended before it is judged.
        self.actions
            .push_back(IngestAction::Append(segment, new.to_vec()));
        while incoming.damage.is_none() {
            match incoming.scan.read(&mut input) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                // The rest of it may be whole, and is wanted.
                Err(fault) => {
                    incoming.damage = Some((incoming.scan.blocks(), IngestFault::Bytes(fault)));
                }
            }
        }
        let unsaid = incoming.received - incoming.acknowledged;
        if unsaid >= UPLOAD_ACK_EVERY || incoming.received == incoming.offer.length {
            self.acknowledge();
        }
        self.finish_segment();
    }

    /// Notes that the segment that came is stored for good.
    pub fn handle_stored(&mut self, held: &SegmentHeld) {
        let ours = self
            .incoming
            .as_ref()
            .is_some_and(|incoming| incoming.storing && incoming.offer.segment == held.segment);
        if ours && held.segment == self.next_segment() {
            let Some(incoming) = self.incoming.take() else {
                return;
            };
            self.stored.push((held.offset, held.hash));
            if incoming.offer.length == held.offset {
                self.answer(UploadAnswer::Stored(held.clone()));
            }
            let is_cut = incoming.scan.closed().is_none() && incoming.damage.is_none();
            self.cut = is_cut.then(|| (held.segment, incoming.scan.blocks()));
            if let Some((block, fault)) = incoming.damage {
                self.damaged = Some(held.segment);
                self.settle(IngestState::Tampered {
                    segment: held.segment,
                    block,
                    fault,
                });
            }
            self.check_if_whole();
        }
    }

    /// Handles a segment that could not be stored: the device keeps it and offers it again.
    pub fn handle_store_failed(&mut self, segment: u32) {
        if self
            .incoming
            .take_if(|incoming| incoming.offer.segment == segment)
            .is_some()
        {
            self.refuse(segment, SegmentRefused::Unavailable);
        }
    }

    /// Notes that the device does not have the rest of the segment that is coming: what has come of it is stored.
    pub(super) fn store_rest(&mut self, segment: u32) {
        let Some(incoming) = &mut self.incoming else {
            return;
        };
        if incoming.offer.segment != segment || incoming.received == 0 || incoming.storing {
            return;
        }
        let cut = (
            incoming.scan.blocks(),
            IngestFault::Bytes(ScanFault::CutShort),
        );
        incoming.damage.get_or_insert(cut);
        incoming.storing = true;
        self.actions.push_back(IngestAction::Store(SegmentHeld {
            session: self.session,
            segment,
            offset: incoming.received,
            hash: incoming.scan.link(),
        }));
    }

    /// Keeps the places of missing segments, up to the one that begins to come.
    fn pass_over(&mut self, segment: u32) {
        if let Ok(count) = usize::try_from(segment)
            && count > self.stored.len()
        {
            self.stored.resize(count, MISSING_SEGMENT);
        }
    }

    fn begin(&self, offer: &OfferedSegment) -> IncomingSegment {
        let before = match self.stored.last() {
            Some((_, link)) => *link,
            None => SegmentLink::first(&self.session),
        };
        let behind_damage = self
            .damaged
            .is_some_and(|damaged| damaged + 1 == offer.segment);
        // Which segment is damaged is not kept. No chain proves anything of an altered recording any more.
        let is_altered = matches!(self.state, IngestState::Tampered { .. });
        IncomingSegment {
            offer: offer.clone(),
            scan: SegmentScan::new(ExpectedSegment {
                place: Some((self.session, offer.segment)),
                before: Some(before).filter(|_| !behind_damage && !is_altered),
            }),
            received: 0,
            acknowledged: 0,
            damage: None,
            storing: false,
        }
    }

    /// Notes that a segment that has come as a whole is stored, if it is what was offered.
    fn finish_segment(&mut self) {
        let Some(incoming) = self.incoming.as_mut() else {
            return;
        };
        let offer = &incoming.offer;
        if incoming.received != offer.length {
            return;
        }
        let segment = offer.segment;
        if incoming.damage.is_none()
            && let Err(fault) = incoming.scan.finish()
        {
            incoming.damage = Some((incoming.scan.blocks(), IngestFault::Bytes(fault)));
        }
        let differs = incoming.scan.link() != offer.hash;
        if differs && incoming.damage.is_none() {
            incoming.damage = Some((incoming.scan.blocks(), IngestFault::OtherHash));
        }
        if offer.closed && !incoming.storing {
            incoming.storing = true;
            self.actions.push_back(IngestAction::Store(SegmentHeld {
                session: self.session,
                segment,
                offset: offer.length,
                hash: offer.hash,
            }));
        }
    }

    fn answer_stored(&mut self, offer: &OfferedSegment, (length, link): (u64, SegmentLink)) {
        if (length, link) == (offer.length, offer.hash) {
            self.answer(UploadAnswer::Stored(SegmentHeld {
                session: self.session,
                segment: offer.segment,
                offset: length,
                hash: link,
            }));
        } else {
            self.refuse(offer.segment, SegmentRefused::Tampered);
        }
    }

    fn acknowledge(&mut self) {
        if let Some(incoming) = &mut self.incoming {
            incoming.acknowledged = incoming.received;
            let held = SegmentHeld {
                session: self.session,
                segment: incoming.offer.segment,
                offset: incoming.received,
                hash: incoming.scan.link(),
            };
            self.answer(UploadAnswer::Have(held));
        }
    }
}
