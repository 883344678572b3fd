//! The file operations that a recording lists, against those that the relay has seen.
//!
//! Device and relay follow the same two streams alike, so that what was answered is in both lists, in the order of the
//! answers. The relay digests its list as it digests a stream; the device computes nothing. What was under way at the
//! end may look different to both of them: of that the relay keeps tags.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::contradiction::Contradiction;
use super::lane::{Lane, StreamDirection, Unproved, View};
use super::{Chain, ChainKey, FILES, StreamDigest, StreamDigester, Tag};
use crate::limits::MAX_SFTP_UNDER_WAY;
use crate::recording::digest::Mac;
use crate::recording::record::{Event, FileOperation};
use crate::sftp::{FileOutcome, Followed, PossibleOperations};

/// The relay's digest of the file operations of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenFiles {
    /// The chain over the records of what was answered.
    pub answered: StreamDigest,
    /// The operations that were under way when the session ended, the open files first; at most `MAX_SFTP_UNDER_WAY`.
    pub under_way: Vec<OperationUnderWay>,
    /// True if nothing else can have been under way.
    pub is_complete: bool,
    /// True if the relay followed the operations to the end of the session.
    pub is_followed: bool,
    /// True if the device follows sftp as this relay does.
    pub is_comparable: bool,
}

/// An operation that was under way when the session ended. Of no use without the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationUnderWay {
    /// The tag of its action and its paths.
    pub what: Tag,
    /// The tag of the record that the device writes if it has seen no more than the relay; `None`: then it writes none.
    pub record: Option<Tag>,
    /// True if it is a file that was open: it has a record in any case.
    pub is_open: bool,
}

/// The relay's digest of the file operations of a session, as it grows.
#[derive(Clone, Debug)]
pub struct FileDigester {
    tagger: FileTagger,
    answered: StreamDigester,
    under_way: Vec<OperationUnderWay>,
    is_complete: bool,
    is_followed: bool,
    is_comparable: bool,
}

impl FileDigester {
    /// Creates the digest of a session in which nothing was done yet. `is_comparable` says that its device follows sftp
    /// as this relay does.
    #[must_use]
    pub fn new(key: &ChainKey, is_comparable: bool) -> Self {
        Self {
            tagger: FileTagger::new(key),
            answered: StreamDigester::on(Chain::on(key, FILES)),
            under_way: Vec::new(),
            is_complete: true,
            is_followed: true,
            is_comparable,
        }
    }

    /// Takes what the follower has seen while the session ran.
    pub fn follow(&mut self, seen: &[Followed]) {
        // Where the relay's following ends, the device's may go on: what was under way there is not compared.
        self.is_followed &= !seen.iter().any(|seen| matches!(seen, Followed::Lost(_)));
        if !self.is_followed {
            self.is_complete = false;
            return;
        }
        for followed in seen {
            if let Followed::Operation(operation) = followed {
                for record in FileOperation::of(operation) {
                    self.answered.update(&frame(&record), 0);
                }
            }
        }
    }

    /// Takes what the follower has left at the end of the session, and what else may have been done by then.
    pub fn finish(&mut self, left: &[Followed], possible: &PossibleOperations) {
        self.is_complete &= possible.is_complete;
        if !self.is_followed {
            return;
        }
        for opens in [true, false] {
            for followed in left {
                let Followed::Operation(operation) = followed else {
                    continue;
                };
                // A failure of an open file is its outcome.
                let is_open = operation.outcome != FileOutcome::NotAnswered;
                if is_open == opens {
                    for record in FileOperation::of(operation) {
                        let tag = self.tagger.record(&record);
                        self.leave(&record, Some(tag), is_open);
                    }
                }
            }
        }
        for operation in &possible.operations {
            for record in FileOperation::of(operation) {
                self.leave(&record, None, false);
            }
        }
    }

    /// Returns what was seen, to be kept until the recording arrives.
    #[must_use]
    pub fn seen(&self) -> SeenFiles {
        SeenFiles {
            answered: self.answered.seen(),
            under_way: self.under_way.clone(),
            is_complete: self.is_complete,
            is_followed: self.is_followed,
            is_comparable: self.is_comparable,
        }
    }

    fn leave(&mut self, record: &FileOperation<'_>, tag: Option<Tag>, is_open: bool) {
        if self.under_way.len() >= MAX_SFTP_UNDER_WAY {
            self.is_complete = false;
            return;
        }
        self.under_way.push(OperationUnderWay {
            what: self.tagger.what(record),
            record: tag,
            is_open,
        });
    }
}

/// Computes the tags of operations.
#[derive(Clone)]
struct FileTagger(Mac);

impl FileTagger {
    fn new(key: &ChainKey) -> Self {
        Self(Mac::new(&key.0))
    }

    fn record(&self, record: &FileOperation<'_>) -> Tag {
        self.tag(5, &frame(record))
    }

    fn what(&self, record: &FileOperation<'_>) -> Tag {
        let what = FileOperation {
            size: 0,
            result: 0,
            ..record.clone()
        };
        self.tag(6, &frame(&what))
    }

    fn tag(&self, domain: u8, frame: &[u8]) -> Tag {
        let mut mac = self.0.clone();
        mac.update(&[domain]);
        mac.update(frame);
        mac.finalize()
    }
}

impl core::fmt::Debug for FileTagger {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("FileTagger").finish_non_exhaustive()
    }
}

/// Returns the frame that represents a record on the chain.
fn frame(record: &FileOperation<'_>) -> Vec<u8> {
    // Numbers, enums and bytes always can be encoded.
    postcard::to_allocvec(record).unwrap_or_default()
}

/// Compares the file operations of a recording.
#[derive(Debug)]
pub(super) struct FileCheck<'s> {
    seen: &'s SeenFiles,
    tagger: FileTagger,
    view: View,
    answered: Lane<'s>,
    /// Those that were under way and have no record yet.
    left: Vec<&'s OperationUnderWay>,
    /// The records that fit none of these as it was left: a tag and a number each. They are assigned at the end, so that
    /// none takes the place of a later one which fits. No more than are left.
    changed: Vec<(Tag, u64)>,
    /// Records so far.
    recorded: u64,
    /// Those behind what was answered that are proved, as far as all before them are.
    proved: u64,
    /// True if there is one that can have been under way, and of which the relay has seen less.
    unproved: bool,
    /// The number of the first that the relay has not asked for.
    added: Option<u64>,
    has_gap: bool,
    is_unfollowed: bool,
}

/// The outcome for the file operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FileProof {
    /// The contradiction to what the relay has seen.
    pub(super) contradiction: Option<Contradiction>,
    /// The reason why not all are proved; `None` if they are.
    pub(super) lack: Option<Unproved>,
    /// Those that are proved, from the first on.
    pub(super) proved: u64,
    /// Those that are not, recorded ones and others.
    pub(super) unproved: u64,
}

impl<'s> FileCheck<'s> {
    pub(super) fn new(key: &ChainKey, seen: &'s SeenFiles, view: View) -> Self {
        let chain = Chain::on(key, FILES);
        Self {
            seen,
            tagger: FileTagger::new(key),
            view,
            answered: Lane::new(StreamDirection::Out, chain, &seen.answered),
            left: seen.under_way.iter().collect(),
            changed: Vec::new(),
            recorded: 0,
            proved: 0,
            unproved: false,
            added: None,
            has_gap: false,
            is_unfollowed: false,
        }
    }

    /// Takes the next record.
    pub(super) fn handle(&mut self, event: &Event<'_>) {
        match event {
            Event::File(record) => {
                self.recorded = self.recorded.saturating_add(1);
                if self.has_gap || self.added.is_some() {
                    return;
                }
                match self.answered.frames() < self.seen.answered.end.frames {
                    true => self.answered.data(&frame(record), true),
                    false => self.under_way(record),
                }
            }
            // Which records are missing is not known: from here on they cannot be compared.
            Event::Gap(gap) => self.has_gap |= gap.records > 0,
            Event::FilesUnfollowed(_) => self.is_unfollowed = true,
            _ => {}
        }
    }

    /// Takes a record of something whose answer the relay has not seen.
    fn under_way(&mut self, record: &FileOperation<'_>) {
        let tag = self.tagger.record(record);
        if self.take(|left| left.record == Some(tag)) {
            self.proved = self.proved.saturating_add(u64::from(!self.unproved));
            return;
        }
        self.unproved = true;
        match self.view {
            View::CutOff if self.changed.len() < self.left.len() => {
                let what = self.tagger.what(record);
                self.changed.push((what, self.recorded));
            }
            View::Stale => {}
            // All answers have passed before the exit status; and more records than were under way are too many.
            View::Exited | View::CutOff if !self.seen.is_complete => {}
            View::Exited | View::CutOff => self.added = Some(self.recorded),
        }
    }

    /// Takes the first of what is left for which that holds.
    fn take(&mut self, is_it: impl Fn(&OperationUnderWay) -> bool) -> bool {
        let found = self.left.iter().position(|left| is_it(left));
        found.map(|at| self.left.remove(at)).is_some()
    }

    /// Returns what was under way and has no record, and the number of the first record that is of nothing that was.
    fn settled(&self) -> (Vec<&'s OperationUnderWay>, Option<u64>) {
        let mut left = self.left.clone();
        let mut added = self.added;
        for (what, number) in &self.changed {
            // The open files come first: they have a record in any case.
            match left.iter().position(|left| left.what == *what) {
                Some(at) => {
                    left.remove(at);
                }
                None if self.seen.is_complete => {
                    added = Some(added.map_or(*number, |added| added.min(*number)));
                }
                None => {}
            }
        }
        (left, added)
    }

    /// Returns what is proved. `whole` says that the recording is complete by itself, `got_all` that the device has all
    /// requests.
    pub(super) fn finish(&self, whole: bool, got_all: bool) -> FileProof {
        let may_lack = !whole || self.has_gap || self.is_unfollowed;
        let (_, lack) = self.answered.finish(!may_lack, None, self.view);
        let answered = self.answered.held_frames();
        let behind = if lack.is_some_and(Unproved::is_contradiction) || self.has_gap {
            0
        } else {
            self.proved
        };
        let proved = answered.saturating_add(behind);
        let (left, added) = self.settled();
        let mut left = left.iter();
        let is_missing = left.any(|left| left.is_open || (got_all && left.record.is_some()));
        // What was under way beside those that were kept may be missing.
        let is_cut = !self.seen.is_complete && self.seen.under_way.len() >= MAX_SFTP_UNDER_WAY;
        let contradiction = match (lack, added) {
            (Some(Unproved::Altered { .. }), _) => Some(Contradiction::FilesAltered {
                from: answered.saturating_add(1),
            }),
            (_, Some(number)) => Some(Contradiction::FileAdded(number)),
            (Some(Unproved::Dropped), _) => Some(Contradiction::FilesMissing {
                recorded: self.recorded,
            }),
            (None, None) if is_missing && !may_lack => Some(Contradiction::FilesMissing {
                recorded: self.recorded,
            }),
            _ => None,
        };
        let behind_the_end = match self.view {
            View::Stale => Unproved::NotKept,
            View::CutOff | View::Exited => Unproved::NotShown,
        };
        let lack = match lack {
            _ if self.has_gap => Some(Unproved::Gaps),
            _ if whole && (self.is_unfollowed || !self.seen.is_followed) => {
                Some(Unproved::NotFollowed)
            }
            Some(lack) if !lack.is_contradiction() => Some(lack),
            _ if !whole => Some(Unproved::CutShort),
            _ => (self.unproved || is_cut).then_some(behind_the_end),
        };
        let most = self.recorded.max(self.seen.answered.end.frames);
        let found = FileProof {
            contradiction,
            lack,
            proved,
            unproved: most.saturating_sub(proved),
        };
        match contradiction {
            Some(_) if !self.seen.is_comparable => FileProof {
                contradiction: None,
                lack: Some(Unproved::NotComparable),
                ..found
            },
            _ => found,
        }
    }
}

#[cfg(test)]
mod tests;
