//! Follows both directions of SFTP as they pass, and says what the server did: which file was read, written, removed or
//! renamed, and with what result. It changes nothing and holds nothing up.
//!
//! What is booked is what was answered, on the path of the request that the answer belongs to. Where that is not
//! certain, following ends, and says so, once and for good: a number that is used again while it is unanswered, an
//! answer that was not asked for or is of another kind, a success on a handle that is not open. Whatever is under way
//! then is booked as [`FileOutcome::NotFollowed`]. So a log without [`Followed::Lost`] has all that was done.
//!
//! The result depends on the two streams alone, not on how their packets interleave, so that a relay and a device that
//! follow the same session agree.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

mod outcome;
mod possible;

use self::outcome::{FollowedFile, status};
pub use self::possible::PossibleOperations;
use super::VERSION;
use super::error::FollowError;
use super::kind;
use super::operation::{FileOutcome, Operation};
use super::pending::Pending;
use super::stream::{Packets, SeenPacket};
use crate::limits::{MAX_SFTP_PENDING, SFTP_PENDING_COST, SFTP_RECORDED_PER_BYTE};

/// The observation of a follower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Followed {
    /// This was done.
    Operation(Operation),
    /// From here on nothing is known.
    Lost(FollowError),
}

/// Follows one session.
#[derive(Debug, Default)]
pub struct Follower {
    requests: Packets,
    answers: Packets,
    /// By the client's number of the request.
    pending: BTreeMap<u32, Pending>,
    /// The bytes that those take.
    pending_bytes: usize,
    /// Versions that are offered and not answered.
    versions: usize,
    open: BTreeMap<Vec<u8>, FollowedFile>,
    lost: Option<FollowError>,
    seen: VecDeque<Followed>,
    /// The number that the other follower may record beside that.
    unseen: u64,
}

impl Follower {
    /// Notes that the client sends this.
    pub fn handle_requests(&mut self, mut bytes: &[u8]) {
        let mut requests = core::mem::take(&mut self.requests);
        while self.lost.is_none() {
            let noted = match requests.take(&mut bytes) {
                Ok(Some(packet)) => self.request(&packet),
                Ok(None) => break,
                Err(lost) => Err(lost),
            };
            if let Err(lost) = noted {
                self.lose(lost);
            }
        }
        self.requests = requests;
        // This alone depends on how the two directions interleave: the other follower may see less pending, and go on.
        if self.lost == Some(FollowError::TooManyRequests) {
            let may = (bytes.len() as u64).saturating_mul(SFTP_RECORDED_PER_BYTE);
            self.unseen = self.unseen.saturating_add(may);
        }
    }

    /// Notes that the server answers this.
    pub fn handle_answers(&mut self, mut bytes: &[u8]) {
        let mut answers = core::mem::take(&mut self.answers);
        while self.lost.is_none() {
            let noted = match answers.take(&mut bytes) {
                Ok(Some(packet)) => self.answer(&packet),
                Ok(None) => break,
                Err(lost) => Err(lost),
            };
            if let Err(lost) = noted {
                self.lose(lost);
            }
        }
        self.answers = answers;
    }

    /// Notes that the session is over: what is unanswered or open will stay so.
    pub fn finish(&mut self) {
        self.leave(&FileOutcome::NotAnswered, &FileOutcome::NotClosed);
    }

    /// Returns the next that was seen.
    #[must_use]
    pub fn poll(&mut self) -> Option<Followed> {
        self.seen.pop_front()
    }

    /// Takes the most bytes that records of operations have whose answers are not seen here, but may be where the
    /// session is recorded.
    #[must_use]
    pub fn take_unseen(&mut self) -> u64 {
        core::mem::take(&mut self.unseen)
    }

    /// Returns why the session cannot be followed any more, if that is so.
    #[must_use]
    pub fn lost(&self) -> Option<FollowError> {
        self.lost
    }

    fn lose(&mut self, lost: FollowError) {
        self.lost = Some(lost);
        self.leave(&FileOutcome::NotFollowed, &FileOutcome::NotFollowed);
        self.seen.push_back(Followed::Lost(lost));
    }

    fn leave(&mut self, unanswered: &FileOutcome, unclosed: &FileOutcome) {
        self.pending_bytes = 0;
        for (_, pending) in core::mem::take(&mut self.pending) {
            self.unseen = self.unseen.saturating_add(pending.recorded());
            if let Some(operation) = pending.unanswered(unanswered.clone()) {
                self.done(operation);
            }
        }
        for (_, file) in core::mem::take(&mut self.open) {
            self.close(file, unclosed.clone());
        }
    }

    fn request(&mut self, packet: &SeenPacket<'_>) -> Result<(), FollowError> {
        if packet.kind == kind::INIT {
            self.versions += 1;
            self.pending_bytes += SFTP_PENDING_COST;
        } else {
            let (id, pending) = Pending::of(packet)?;
            if self.pending.contains_key(&id) {
                // It may be done as well, and is not forgotten.
                let unfollowed = pending.unanswered(FileOutcome::NotFollowed);
                self.seen.extend(unfollowed.map(Followed::Operation));
                return Err(FollowError::ReusedId(id));
            }
            self.pending_bytes += pending.bytes();
            self.pending.insert(id, pending);
        }
        match self.pending_bytes > MAX_SFTP_PENDING {
            true => Err(FollowError::TooManyRequests),
            false => Ok(()),
        }
    }

    fn answer(&mut self, packet: &SeenPacket<'_>) -> Result<(), FollowError> {
        let mut fields = packet.fields();
        let id = fields.number().ok_or(FollowError::Short)?;
        if packet.kind == kind::VERSION {
            self.versions = self
                .versions
                .checked_sub(1)
                .ok_or(FollowError::Unasked(id))?;
            self.pending_bytes = self.pending_bytes.saturating_sub(SFTP_PENDING_COST);
            return if id == VERSION {
                Ok(())
            } else {
                Err(FollowError::Version(id))
            };
        }
        let pending = self.pending.remove(&id).ok_or(FollowError::Unasked(id))?;
        self.pending_bytes = self.pending_bytes.saturating_sub(pending.bytes());
        let outcome = match packet.kind {
            kind::STATUS => status(&mut fields)?,
            _ => FileOutcome::OK,
        };
        if outcome == FileOutcome::OK {
            if !pending.fits(packet.kind) {
                let kind = packet.kind;
                let unfollowed = pending.unanswered(FileOutcome::NotFollowed);
                self.seen.extend(unfollowed.map(Followed::Operation));
                return Err(FollowError::WrongAnswer { id, kind });
            }
            self.succeed(pending, &mut fields)
        } else {
            self.fail(pending, outcome);
            Ok(())
        }
    }

    fn done(&mut self, operation: Operation) {
        self.seen.push_back(Followed::Operation(operation));
    }
}

#[cfg(test)]
mod tests;
