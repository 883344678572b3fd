//! The relay's side of an upload: one session's recording, from its first block to its verdict.
//!
//! It opens nothing: it checks the chain, and says what is to be stored and answered. A recording comes
//! to exactly one terminal state and stays in it.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use super::record::EndReason;
use super::scan::{ExpectedSegment, ScanFault, SegmentScan};
use super::segment::SegmentLink;
use crate::ids::SessionId;
use crate::limits::{MAX_SEGMENT, MAX_SEGMENTS, UPLOAD_ACK_EVERY};
use crate::wire::{
    OfferedSegment, SegmentBytes, SegmentGone, SegmentHeld, SegmentLost, SegmentRefusal,
    SegmentRefused, SessionFinished, UploadAnswer,
};

/// The state of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IngestState {
    /// The session runs.
    Recording,
    /// It has ended; not everything has come.
    Uploading,
    /// Everything has come, and is what the relay saw pass.
    Complete,
    /// It ends early.
    Truncated(Truncated),
    /// It is not what was recorded.
    Tampered {
        /// In which segment.
        segment: u32,
        /// In which block of it.
        block: u32,
        /// The fault.
        fault: IngestFault,
    },
    /// Nothing of it came.
    Lost(LostReason),
}

/// The reason why a recording ends early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truncated {
    /// The device lost power, or its agent was killed.
    PowerLoss,
    /// The device has lost the rest.
    Gone {
        /// From which segment on.
        segment: u32,
        /// The reason.
        why: SegmentLost,
    },
    /// The rest was not delivered in time.
    Expired,
    /// It stops without an end.
    NoEnd,
}

/// The reason why nothing came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostReason {
    /// The device says that it is gone.
    Gone(SegmentLost),
    /// It was not delivered in time.
    Expired,
    /// The device does not list it among those that it holds.
    NotHeld(SegmentLost),
}

/// The reason why a recording is tampered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IngestFault {
    /// Its bytes.
    Bytes(ScanFault),
    /// The segment is missing, and later ones are offered.
    Missing,
    /// The segment's file is not on the device any more.
    Removed,
    /// The segment is damaged on the device.
    Damaged,
    /// What came is not what the device said that there is.
    OtherHash,
    /// What it says was shown or typed is not what the relay saw pass.
    Contradicted,
    /// It is longer than an honest recording of the session can be.
    TooLong,
}

impl IngestState {
    /// Returns whether it stays so for good.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        !matches!(self, Self::Recording | Self::Uploading)
    }
}

/// The actions of the driver, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IngestAction {
    /// Send this on the upload stream that the message came on.
    Answer(UploadAnswer),
    /// Begin the segment's working file anew.
    Restart(u32),
    /// Append to it.
    Append(u32, Vec<u8>),
    /// Make the working file the object of this segment for good, then report with
    /// [`Ingest::handle_stored`].
    Store(SegmentHeld),
    /// Keep this report for good, then report with [`Ingest::handle_kept`].
    Keep(SessionFinished),
    /// Everything is here: open it, compare, and report with [`Ingest::handle_checked`].
    Check,
    /// The state has changed: keep it, and tell the audit log.
    Settled(IngestState),
}

/// An upload stream, in the order in which the relay came to know of them. A device gives one up before
/// it opens the next, but what it has sent on the old one may come later than what it says on the new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct UploadStream(pub u64);

/// One session's recording on the relay.
#[derive(Debug)]
pub struct Ingest {
    session: SessionId,
    /// The newest stream that something was offered on: what an older one offers counts no more.
    stream: UploadStream,
    state: IngestState,
    /// The stored segments: length and chain behind each.
    stored: Vec<(u64, SegmentLink)>,
    incoming: Option<IncomingSegment>,
    finished: Option<SessionFinished>,
    checking: bool,
    /// The stored segment with a damaged block: the one behind it need not follow from it.
    damaged: Option<u32>,
    /// The most bytes that all segments may have.
    allowed: u64,
    /// The segment that the device does not have any more. Those before it are evidence, and still wanted.
    gone: Option<u32>,
    deadline: Option<Duration>,
    actions: VecDeque<IngestAction>,
}

/// The segment that is coming.
#[derive(Debug)]
struct IncomingSegment {
    offer: OfferedSegment,
    scan: SegmentScan,
    received: u64,
    acknowledged: u64,
    /// The block that is not what was written, and how: what is behind it is taken without being checked.
    damage: Option<(u32, ScanFault)>,
    /// It is whole, and being stored.
    storing: bool,
}

impl Ingest {
    /// For a session that begins.
    #[must_use]
    pub fn new(session: SessionId) -> Self {
        Self::restore(session, IngestState::Recording, Vec::new(), None)
    }

    /// As the store remembers it: its state, the segments that are stored, and the device's report.
    #[must_use]
    pub fn restore(
        session: SessionId,
        state: IngestState,
        stored: Vec<(u64, SegmentLink)>,
        finished: Option<SessionFinished>,
    ) -> Self {
        // Which segment is gone is not kept, but how many there were is.
        let gone = match state {
            IngestState::Tampered { .. } => finished.as_ref().map(|finished| finished.segments),
            _ => None,
        };
        let mut ingest = Self {
            session,
            stream: UploadStream::default(),
            state,
            stored,
            incoming: None,
            finished,
            gone,
            checking: false,
            damaged: None,
            allowed: u64::MAX,
            deadline: None,
            actions: VecDeque::new(),
        };
        ingest.check_if_whole();
        ingest
    }

    /// Notes that the session is over, as far as the relay can see; its recording is expected by `deadline`.
    pub fn handle_session_over(&mut self, deadline: Duration) {
        if self.state == IngestState::Recording {
            self.settle(IngestState::Uploading);
        }
        if !self.state.is_terminal() {
            self.deadline.get_or_insert(deadline);
        }
    }

    /// Notes that an honest recording has at most so many bytes, by what the relay knows of its session now
    /// ([`super::allowance`]). Counts for what is offered from here on.
    pub fn handle_allowed(&mut self, bytes: u64) {
        self.allowed = bytes;
    }

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
        is_open && is_segment && offer.segment == self.next_segment() && self.is_allowed(offer)
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
        let next = self.next_segment();
        if offer.segment > next {
            // A device offers its segments in their order.
            return self.tampered(next, 0, IngestFault::Missing);
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
                Err(fault @ (ScanFault::Block | ScanFault::Kind | ScanFault::Length)) => {
                    incoming.damage = Some((incoming.scan.blocks(), fault));
                }
                Err(fault) => {
                    let block = incoming.scan.blocks();
                    return self.tampered(segment, block, IngestFault::Bytes(fault));
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
            let damage = self.incoming.take().and_then(|incoming| incoming.damage);
            self.stored.push((held.offset, held.hash));
            self.answer(UploadAnswer::Stored(held.clone()));
            if let Some((block, fault)) = damage {
                self.damaged = Some(held.segment);
                self.settle(IngestState::Tampered {
                    segment: held.segment,
                    block,
                    fault: IngestFault::Bytes(fault),
                });
            }
            self.check_if_whole();
        }
    }

    /// It could not be stored: the device keeps it and offers it again.
    pub fn handle_store_failed(&mut self, segment: u32) {
        if self
            .incoming
            .take_if(|incoming| incoming.offer.segment == segment)
            .is_some()
        {
            self.refuse(segment, SegmentRefused::Unavailable);
        }
    }

    /// Notes that the device says that the session has ended.
    pub fn handle_finished(&mut self, finished: &SessionFinished) {
        let known = self.finished.as_ref();
        if known.is_some_and(|known| finished.segments < known.segments) {
            self.handle_fewer(finished);
        }
        let unwanted = self.state.is_terminal() && self.gone.is_none();
        if self.finished.is_some() || unwanted {
            return self.answer(UploadAnswer::Noted(self.session));
        }
        self.actions.push_back(IngestAction::Keep(finished.clone()));
    }

    /// Judges a report of fewer segments than the device has reported before.
    fn handle_fewer(&mut self, finished: &SessionFinished) {
        let segment = finished.segments;
        if self.state.is_terminal() || segment < self.next_segment() {
            return;
        }
        self.gone = Some(segment);
        self.settle(match finished.why {
            // What is not on the disk yet may be lost with the power.
            Some(EndReason::PowerLoss) => IngestState::Truncated(Truncated::Gone {
                segment,
                why: SegmentLost::PowerLoss,
            }),
            _ => IngestState::Tampered {
                segment,
                block: 0,
                fault: IngestFault::Removed,
            },
        });
    }

    /// Notes that the report is kept.
    pub fn handle_kept(&mut self, finished: SessionFinished) {
        self.answer(UploadAnswer::Noted(self.session));
        if self.finished.is_none() {
            self.finished = Some(finished);
            if self.state == IngestState::Recording {
                self.settle(IngestState::Uploading);
            }
            self.check_if_whole();
        }
    }

    /// The device says that segments will never come.
    pub fn handle_gone(&mut self, gone: &SegmentGone) {
        // What was stored before is here all the same.
        if gone.segment >= self.next_segment() && !self.state.is_terminal() {
            let segment = gone.segment;
            let tampered = |fault| IngestState::Tampered {
                segment,
                block: 0,
                fault,
            };
            let state = match gone.why {
                SegmentLost::Corrupt => tampered(IngestFault::Damaged),
                // Of the first, a device that was cut off may have written nothing: then it has reported no end.
                SegmentLost::Missing if segment > 0 || self.finished.is_some() => {
                    tampered(IngestFault::Removed)
                }
                why if self.stored.is_empty() => IngestState::Lost(LostReason::Gone(why)),
                why => IngestState::Truncated(Truncated::Gone { segment, why }),
            };
            self.gone = Some(segment);
            self.settle(state);
        }
        self.answer(UploadAnswer::Noted(self.session));
    }

    /// Notes that the agent of the device, which was started after the session began, does not list it among what it
    /// holds: what is not stored will never come.
    pub fn handle_not_held(&mut self, why: SegmentLost) {
        let segment = self.next_segment();
        let finished = self.finished.as_ref();
        let is_whole = finished.is_some_and(|finished| segment >= finished.segments);
        if self.state.is_terminal() || is_whole {
            return;
        }
        self.gone = Some(segment);
        self.settle(match why {
            _ if self.stored.is_empty() => IngestState::Lost(LostReason::NotHeld(why)),
            SegmentLost::PowerLoss => IngestState::Truncated(Truncated::Gone { segment, why }),
            // The newest segment stays on a device until the relay knows the end.
            _ => IngestState::Tampered {
                segment,
                block: 0,
                fault: IngestFault::Removed,
            },
        });
    }

    /// Takes the outcome when what was stored has been opened and compared.
    pub fn handle_checked(&mut self, outcome: Checked) {
        if !self.checking || self.state.is_terminal() {
            return;
        }
        let power_loss = self
            .finished
            .as_ref()
            .is_some_and(|finished| finished.why == Some(EndReason::PowerLoss));
        self.settle(match outcome {
            Checked::Whole => IngestState::Complete,
            Checked::Short if power_loss => IngestState::Truncated(Truncated::PowerLoss),
            Checked::Short => IngestState::Truncated(Truncated::NoEnd),
            Checked::Tampered {
                segment,
                block,
                fault,
            } => IngestState::Tampered {
                segment,
                block,
                fault: IngestFault::Bytes(fault),
            },
            Checked::Contradicted => IngestState::Tampered {
                segment: 0,
                block: 0,
                fault: IngestFault::Contradicted,
            },
        });
    }

    /// Notes that time has passed.
    pub fn handle_timeout(&mut self, now: Duration) {
        if self.state.is_terminal() || self.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        if self.checking {
            return;
        }
        let incoming = self.incoming.as_ref();
        if let Some((segment, (block, fault))) =
            incoming.and_then(|incoming| Some((incoming.offer.segment, incoming.damage?)))
        {
            let fault = IngestFault::Bytes(fault);
            return self.settle(IngestState::Tampered {
                segment,
                block,
                fault,
            });
        }
        self.settle(if self.stored.is_empty() {
            IngestState::Lost(LostReason::Expired)
        } else {
            IngestState::Truncated(Truncated::Expired)
        });
    }

    /// Returns when [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.deadline.filter(|_| !self.state.is_terminal())
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<IngestAction> {
        self.actions.pop_front()
    }

    /// Returns its state.
    #[must_use]
    pub fn state(&self) -> IngestState {
        self.state
    }

    /// Returns the stored segments: length, and the chain behind each.
    #[must_use]
    pub fn stored(&self) -> &[(u64, SegmentLink)] {
        &self.stored
    }

    /// Returns whether a segment is still wanted: behind damage, and before what is gone, what is whole is evidence.
    fn is_open(&self, segment: u32) -> bool {
        let is_evidence = self.damaged.is_some() || self.gone.is_some_and(|gone| segment < gone);
        is_evidence || !self.state.is_terminal()
    }

    fn begin(&self, offer: &OfferedSegment) -> IncomingSegment {
        let before = match self.stored.last() {
            Some((_, link)) => *link,
            None => SegmentLink::first(&self.session),
        };
        let behind_damage = self
            .damaged
            .is_some_and(|damaged| damaged + 1 == offer.segment);
        IncomingSegment {
            offer: offer.clone(),
            scan: SegmentScan::new(ExpectedSegment {
                place: Some((self.session, offer.segment)),
                before: Some(before).filter(|_| !behind_damage),
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
        let differs = incoming.scan.torn() > 0 || incoming.scan.link() != offer.hash;
        if differs && incoming.damage.is_none() {
            let block = incoming.scan.blocks();
            return self.tampered(segment, block, IngestFault::OtherHash);
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

    fn check_if_whole(&mut self) {
        let Some(finished) = &self.finished else {
            return;
        };
        if self.state.is_terminal() || self.checking || self.next_segment() < finished.segments {
            return;
        }
        let at = usize::try_from(finished.segments).ok();
        let last = at.and_then(|count| self.stored.get(count.checked_sub(1)?));
        if last.is_some_and(|(_, link)| *link != finished.hash) {
            let segment = finished.segments.saturating_sub(1);
            return self.tampered(segment, 0, IngestFault::OtherHash);
        }
        self.checking = true;
        self.actions.push_back(IngestAction::Check);
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

    fn tampered(&mut self, segment: u32, block: u32, fault: IngestFault) {
        self.settle(IngestState::Tampered {
            segment,
            block,
            fault,
        });
        if let Some(incoming) = self.incoming.take() {
            self.refuse(incoming.offer.segment, SegmentRefused::Tampered);
        } else {
            self.refuse(segment, SegmentRefused::Tampered);
        }
    }

    fn refuse(&mut self, segment: u32, why: SegmentRefused) {
        self.answer(UploadAnswer::Refused(SegmentRefusal {
            session: self.session,
            segment,
            why,
        }));
    }

    fn settle(&mut self, state: IngestState) {
        if self.state.is_terminal() || self.state == state {
            return;
        }
        self.state = state;
        self.actions.push_back(IngestAction::Settled(state));
    }

    fn answer(&mut self, answer: UploadAnswer) {
        self.actions.push_back(IngestAction::Answer(answer));
    }

    fn next_segment(&self) -> u32 {
        // At most `MAX_SEGMENTS`.
        u32::try_from(self.stored.len()).unwrap_or(u32::MAX)
    }
}

/// The result of a check of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// Complete, and nothing contradicts it.
    Whole,
    /// It is valid, and stops early.
    Short,
    /// The reader has found a fault.
    Tampered {
        /// In which segment.
        segment: u32,
        /// In which block of it.
        block: u32,
        /// The fault.
        fault: ScanFault,
    },
    /// The streams are not what the relay saw pass.
    Contradicted,
}
