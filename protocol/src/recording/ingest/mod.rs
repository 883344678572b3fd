//! The relay's side of an upload: one session's recording, from its first block to its verdict.
//!
//! It opens nothing: it checks the chain, and says what is to be stored and answered. A recording comes
//! to exactly one terminal state and stays in it.

mod action;
mod incoming;
mod state;

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use self::incoming::IncomingSegment;
use super::record::EndReason;
use super::segment::SegmentLink;
use crate::ids::SessionId;
use crate::wire::{
    SegmentGone, SegmentLost, SegmentRefusal, SegmentRefused, SessionFinished, UploadAnswer,
};

pub use self::action::{Checked, IngestAction};
pub use self::state::{IngestFault, IngestState, LostReason, Truncated};

/// The place of a segment that is missing among those that are stored.
pub const MISSING_SEGMENT: (u64, SegmentLink) = (0, SegmentLink([0; 32]));

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
    /// The stored segments: length and chain behind each; [`MISSING_SEGMENT`] where one is missing.
    stored: Vec<(u64, SegmentLink)>,
    incoming: Option<IncomingSegment>,
    finished: Option<SessionFinished>,
    checking: bool,
    /// The segment that is damaged or missing: the one behind it need not follow from it, and is wanted.
    damaged: Option<u32>,
    /// The last stored segment, and the number of its blocks, if it has no footer: none may follow it.
    cut: Option<(u32, u32)>,
    /// The most bytes that all segments may have.
    allowed: u64,
    /// The number of segments that are evidence, and still wanted, although the state is final.
    gone: Option<u32>,
    deadline: Option<Duration>,
    actions: VecDeque<IngestAction>,
}

impl Ingest {
    /// Creates the ingest of a session that begins.
    #[must_use]
    pub fn new(session: SessionId) -> Self {
        Self::restore(session, IngestState::Recording, Vec::new(), None)
    }

    /// Restores it from the store: its state, the segments that are stored, and the device's report.
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
            cut: None,
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

    /// Notes that the device says that the session has ended.
    pub fn handle_finished(&mut self, finished: &SessionFinished) {
        let known = self.finished.as_ref();
        if known.is_some_and(|known| finished.segments < known.segments) {
            self.handle_fewer(finished);
        }
        let is_evidence_wanted = self.gone.is_some() || self.damaged.is_some();
        let unwanted = self.state.is_terminal() && !is_evidence_wanted;
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

    /// Handles the device's report that segments will never come.
    pub fn handle_gone(&mut self, gone: &SegmentGone) {
        // What was stored before is here all the same.
        if gone.segment >= self.next_segment() && !self.state.is_terminal() {
            let segment = gone.segment;
            let finished = self.finished.as_ref();
            let has_more = finished.is_some_and(|finished| segment + 1 < finished.segments);
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
                SegmentLost::Unreadable if has_more => tampered(IngestFault::Unreadable),
                why if self.stored.is_empty() => IngestState::Lost(LostReason::Gone(why)),
                why => IngestState::Truncated(Truncated::Gone { segment, why }),
            };
            self.gone = Some(segment);
            if matches!(state, IngestState::Tampered { .. }) {
                self.damaged = Some(segment);
            }
            self.settle(state);
            self.store_rest(segment);
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

    /// Returns the next action.
    pub fn poll_action(&mut self) -> Option<IngestAction> {
        self.actions.pop_front()
    }

    /// Returns its state.
    #[must_use]
    pub fn state(&self) -> IngestState {
        self.state
    }

    /// Returns the stored segments: length, and the chain behind each; [`MISSING_SEGMENT`] where one is missing.
    #[must_use]
    pub fn stored(&self) -> &[(u64, SegmentLink)] {
        &self.stored
    }

    /// Returns whether a segment is still wanted: behind damage, and around what is gone, what is whole is evidence.
    fn is_open(&self, segment: u32) -> bool {
        let is_evidence = self.damaged.is_some() || self.gone.is_some_and(|gone| segment < gone);
        is_evidence || !self.state.is_terminal()
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
            // What has come of it is stored, and is evidence.
            return self.settle(IngestState::Tampered {
                segment: finished.segments.saturating_sub(1),
                block: 0,
                fault: IngestFault::OtherHash,
            });
        }
        self.checking = true;
        self.actions.push_back(IngestAction::Check);
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
