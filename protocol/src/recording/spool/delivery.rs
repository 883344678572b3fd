//! The messages to a relay about the spool, and the effects of its answers.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::ops::Bound;

use super::{FileState, Spool};
use crate::ids::SessionId;
use crate::recording::medium::SegmentName;
use crate::wire::{
    OfferedSegment, SegmentGone, SegmentHeld, SegmentLost, SegmentRefused, SessionFinished,
    UploadMessage,
};

impl Spool {
    /// Returns the messages for a relay, which are repeated until they are noted.
    pub fn reports(&self) -> impl Iterator<Item = UploadMessage> + '_ {
        let finished = self.ended.iter().filter(|(_, ended)| !ended.noted);
        let finished = finished.map(|(session, ended)| {
            let (why, segments, hash) = ended.report;
            SessionFinished {
                session: *session,
                why,
                segments,
                hash,
            }
        });
        // What is gone comes first: a relay that knows how a recording ends would judge it without that. Unless it is
        // before the last segment: then the relay is to know that there were more.
        let has_more = |finished: &SessionFinished| {
            let gone = self.gone.get(&finished.session);
            gone.is_some_and(|gone| gone.segment < finished.segments)
        };
        let first = finished.clone().filter(has_more);
        let last = finished.filter(move |finished| !has_more(finished));
        let gone = self.gone.values().cloned().map(UploadMessage::Gone);
        first
            .map(UploadMessage::Finished)
            .chain(gone)
            .chain(last.map(UploadMessage::Finished))
    }

    /// Returns what may be uploaded, a session's segments in their order.
    pub fn offers(&self) -> impl Iterator<Item = OfferedSegment> + '_ {
        let waiting = |file: &super::SpoolFile| file.state == FileState::Waiting && file.length > 0;
        let waiting = self.files.iter().filter(move |(_, file)| waiting(file));
        waiting.map(|(name, file)| OfferedSegment {
            session: name.session,
            segment: name.index,
            length: file.length,
            hash: file.link,
            closed: file.closed,
        })
    }

    /// Returns the next recordings behind `after` of which there is a segment or a report, by ascending identifiers: at
    /// most so many.
    #[must_use]
    pub fn held(&self, after: Option<SessionId>, most: usize) -> Vec<SessionId> {
        let behind = after.map_or(Bound::Unbounded, Bound::Excluded);
        let range = (behind, Bound::Unbounded);
        let last_file = |session| SegmentName {
            session,
            index: u32::MAX,
        };
        let files = (behind.map(last_file), Bound::Unbounded);
        let mut of_files: Vec<SessionId> = Vec::new();
        for (name, _) in self.files.range(files) {
            if of_files.last() != Some(&name.session) {
                if of_files.len() == most {
                    break;
                }
                of_files.push(name.session);
            }
        }
        let live = self.live.range(range).map(|(session, _)| *session);
        let ended = self.ended.range(range).map(|(session, _)| *session);
        let gone = self.gone.range(range).map(|(session, _)| *session);
        let others = live.take(most).chain(ended.take(most));
        let all: BTreeSet<SessionId> = others.chain(gone.take(most)).chain(of_files).collect();
        all.into_iter().take(most).collect()
    }

    /// Notes that a relay has noted this report of [`Self::reports`], and no other.
    pub fn handle_noted(&mut self, report: &UploadMessage) {
        match report {
            UploadMessage::Finished(finished) => {
                if let Some(ended) = self.ended.get_mut(&finished.session) {
                    ended.noted = true;
                }
                self.forget_if_done(&finished.session);
            }
            // An earlier segment may have been lost since.
            UploadMessage::Gone(gone) if self.gone.get(&gone.session) == Some(gone) => {
                self.gone.remove(&gone.session);
            }
            UploadMessage::Gone(_)
            | UploadMessage::Offer(_)
            | UploadMessage::Bytes(_)
            | UploadMessage::Inventory(_) => {}
        }
    }

    /// Notes that a relay has stored a segment. It is removed only if it is the one that is here.
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

    /// Notes that a relay does not take a segment, or it can't be read: it is set aside, once.
    pub fn handle_refused(&mut self, name: SegmentName, why: SegmentRefused) {
        if why == SegmentRefused::Unavailable {
            return;
        }
        self.give_up(name);
    }

    /// Notes that a segment can't be read any more: the relay is informed, and the file is set aside.
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

    pub(super) fn report_gone(&mut self, name: SegmentName, why: SegmentLost) {
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

    /// Returns whether a segment may be removed. The newest one stays until the relay knows how the session ended: else
    /// a crash would leave nothing to tell it by.
    pub(super) fn may_remove(&self, name: &SegmentName) -> bool {
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

    pub(super) fn forget_if_done(&mut self, session: &SessionId) {
        let name = |index| SegmentName {
            session: *session,
            index,
        };
        let left = self.files.range(name(0)..=name(u32::MAX)).next().is_some();
        if !left && self.ended.get(session).is_some_and(|ended| ended.noted) {
            self.ended.remove(session);
        }
    }
}
