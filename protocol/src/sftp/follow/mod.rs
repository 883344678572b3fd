//! Follows both directions of SFTP as they pass, and says what the server did: which file was read, written, removed or
//! renamed, and with what result. It changes nothing and holds nothing up.
//!
//! What is booked is what was answered, on the path of the request that the answer belongs to. Where that is not
//! certain, following ends, and says so, once and for good: a number that is used again while it is unanswered, an answer
//! that was not asked for or is of another kind, a success on a handle that is not open. Whatever is under way then is
//! booked as [`FileOutcome::NotFollowed`]. So a log without [`Followed::Lost`] has all that was done.
//!
//! The result depends on the two streams alone, not on how their packets interleave, so that a relay and a device that
//! follow the same session agree.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use thiserror::Error;

use super::VERSION;
use super::fields::SftpFields;
use super::kind;
use super::operation::{FileAction, FileOutcome, Operation};
use super::pending::{Pending, opened_as};
use super::stream::{Packets, SeenPacket};
use crate::limits::{
    MAX_SFTP_HANDLE, MAX_SFTP_OPEN, MAX_SFTP_PACKET, MAX_SFTP_PENDING, MAX_SFTP_STATUS_TEXT,
    SFTP_PENDING_COST, SFTP_RECORDED_PER_BYTE,
};

/// The status of a read at the end of its file: no failure.
const END_OF_FILE: u32 = 1;

/// The reason why a session's SFTP cannot be followed any more.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum FollowError {
    /// This is no packet of SFTP.
    #[error("invalid packet length: expected 1 to {MAX_SFTP_PACKET} bytes, got {0}")]
    Length(u32),
    /// A packet that ends before its number or its fields.
    #[error("a packet is too short")]
    Short,
    /// Another version of the protocol.
    #[error("the server speaks version {0} of SFTP: expected version {VERSION}")]
    Version(u32),
    /// The client used a number again.
    #[error("the client used request number {0} again before it was answered")]
    ReusedId(u32),
    /// The server answered what was not asked.
    #[error("the server answered request number {0}, which is not pending")]
    Unasked(u32),
    /// The server answered something else than was asked.
    #[error("the server answered request number {id} with an unexpected packet of kind {kind}")]
    WrongAnswer {
        /// The number of the request.
        id: u32,
        /// The kind of the answer.
        kind: u8,
    },
    /// A request on a handle that is not open succeeded.
    #[error("the server used a handle that is not open")]
    UnknownHandle,
    /// The server gave out a handle that is in use.
    #[error("the server gave out a handle that is in use")]
    HandleInUse,
    /// A handle over the protocol's bound.
    #[error("a handle is longer than {MAX_SFTP_HANDLE} bytes")]
    LongHandle,
    /// More unanswered requests than are followed.
    #[error("the pending requests take more than {MAX_SFTP_PENDING} bytes")]
    TooManyRequests,
    /// More open files than are followed.
    #[error("more than {MAX_SFTP_OPEN} files are open")]
    TooManyFiles,
}

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
    /// What the other follower may record beside that.
    unseen: u64,
}

/// A file or folder that is open.
#[derive(Debug)]
struct FollowedFile {
    action: FileAction,
    path: Vec<u8>,
    read: u64,
    written: u64,
    /// The first failure of a read or a write.
    failure: Option<FileOutcome>,
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

    fn succeed(
        &mut self,
        pending: Pending,
        fields: &mut SftpFields<'_>,
    ) -> Result<(), FollowError> {
        match pending {
            Pending::Open { path, writes } => {
                self.opened(FollowedFile::new(opened_as(writes), path), fields, None)
            }
            Pending::OpenAs {
                handle,
                path,
                writes,
            } => self.opened(
                FollowedFile::new(opened_as(writes), path),
                fields,
                Some(&handle),
            ),
            Pending::List(path) => {
                self.done(Operation::new(
                    FileAction::List,
                    path.clone(),
                    FileOutcome::OK,
                ));
                self.opened(FollowedFile::new(FileAction::List, path), fields, None)
            }
            Pending::Close(handle) => {
                let file = self
                    .open
                    .remove(&handle)
                    .ok_or(FollowError::UnknownHandle)?;
                self.close(file, FileOutcome::OK);
                Ok(())
            }
            Pending::Read(handle) => {
                let length = fields.number().ok_or(FollowError::Short)?;
                let file = self.file(&handle)?;
                file.read = file.read.saturating_add(length.into());
                Ok(())
            }
            Pending::Write(handle, length) => {
                let file = self.file(&handle)?;
                file.written = file.written.saturating_add(length);
                Ok(())
            }
            Pending::ByHandle(action, handle) => {
                let path = self.file(&handle)?.path.clone();
                self.done(Operation::new(action, path, FileOutcome::OK));
                Ok(())
            }
            Pending::Copy(from, to) => {
                let from = self.file(&from)?.path.clone();
                let to = Some(self.file(&to)?.path.clone());
                let copied = Operation::new(FileAction::Copy, from, FileOutcome::OK);
                self.done(Operation { to, ..copied });
                Ok(())
            }
            Pending::ByPath(operation) => {
                self.done(*operation);
                Ok(())
            }
            Pending::Unbooked => Ok(()),
        }
    }

    fn fail(&mut self, pending: Pending, outcome: FileOutcome) {
        match pending {
            // Closed or not, the client has done with it.
            Pending::Close(handle) => {
                if let Some(file) = self.open.remove(&handle) {
                    self.close(file, outcome);
                }
            }
            Pending::Read(handle) => {
                let is_over = matches!(
                    outcome,
                    FileOutcome::Status {
                        code: END_OF_FILE,
                        ..
                    }
                );
                if let Some(file) = self.open.get_mut(&handle).filter(|_| !is_over) {
                    file.failure.get_or_insert(outcome);
                }
            }
            Pending::Write(handle, _) => {
                if let Some(file) = self.open.get_mut(&handle) {
                    file.failure.get_or_insert(outcome);
                }
            }
            Pending::ByHandle(action, handle) => {
                if let Some(file) = self.open.get(&handle) {
                    let path = file.path.clone();
                    self.done(Operation::new(action, path, outcome));
                }
            }
            Pending::Copy(from, to) => {
                if let (Some(from), Some(to)) = (self.open.get(&from), self.open.get(&to)) {
                    let (from, to) = (from.path.clone(), Some(to.path.clone()));
                    let copied = Operation::new(FileAction::Copy, from, outcome);
                    self.done(Operation { to, ..copied });
                }
            }
            other => {
                if let Some(operation) = other.unanswered(outcome) {
                    self.done(operation);
                }
            }
        }
    }

    /// A file is open, under the handle that the answer names; that must be the `expected` one, if there is one.
    fn opened(
        &mut self,
        file: FollowedFile,
        fields: &mut SftpFields<'_>,
        expected: Option<&[u8]>,
    ) -> Result<(), FollowError> {
        let handle = fields.string().ok_or(FollowError::Short);
        let handle = match handle {
            Ok(handle) if handle.len() > MAX_SFTP_HANDLE => Err(FollowError::LongHandle),
            Ok(handle) if self.open.contains_key(handle) => Err(FollowError::HandleInUse),
            Ok(handle) if expected.is_some_and(|expected| expected != handle) => {
                Err(FollowError::UnknownHandle)
            }
            Ok(_) if self.open.len() >= MAX_SFTP_OPEN => Err(FollowError::TooManyFiles),
            other => other,
        };
        match handle {
            Ok(handle) => {
                self.open.insert(handle.to_vec(), file);
                Ok(())
            }
            Err(lost) => {
                self.close(file, FileOutcome::NotFollowed);
                Err(lost)
            }
        }
    }

    fn file(&mut self, handle: &[u8]) -> Result<&mut FollowedFile, FollowError> {
        self.open.get_mut(handle).ok_or(FollowError::UnknownHandle)
    }

    fn close(&mut self, file: FollowedFile, outcome: FileOutcome) {
        // A folder was booked when it was opened.
        if file.action == FileAction::List {
            return;
        }
        let outcome = file.failure.unwrap_or(outcome);
        self.done(Operation {
            read: file.read,
            written: file.written,
            ..Operation::new(file.action, file.path, outcome)
        });
    }

    fn done(&mut self, operation: Operation) {
        self.seen.push_back(Followed::Operation(operation));
    }
}

impl FollowedFile {
    fn new(action: FileAction, path: Vec<u8>) -> Self {
        Self {
            action,
            path,
            read: 0,
            written: 0,
            failure: None,
        }
    }
}

fn status(fields: &mut SftpFields<'_>) -> Result<FileOutcome, FollowError> {
    let code = fields.number().ok_or(FollowError::Short)?;
    if code == 0 {
        return Ok(FileOutcome::OK);
    }
    // Older servers send no text.
    let text = fields.beginning().unwrap_or_default();
    let text = text.get(..MAX_SFTP_STATUS_TEXT).unwrap_or(text);
    Ok(FileOutcome::Status {
        code,
        text: text.to_vec(),
    })
}

#[cfg(test)]
mod tests;
