//! Applies an answer to the files that are open: what was done, and what failed.

use alloc::vec::Vec;

use super::{FollowError, Follower};
use crate::limits::{MAX_SFTP_HANDLE, MAX_SFTP_OPEN, MAX_SFTP_STATUS_TEXT};
use crate::sftp::fields::SftpFields;
use crate::sftp::operation::{FileAction, FileOutcome, Operation};
use crate::sftp::pending::{Pending, opened_as};

/// The status of a read at the end of its file: no failure.
pub(super) const END_OF_FILE: u32 = 1;

/// A file or folder that is open.
#[derive(Debug)]
pub(super) struct FollowedFile {
    action: FileAction,
    path: Vec<u8>,
    read: u64,
    written: u64,
    /// The first failure of a read or a write.
    failure: Option<FileOutcome>,
}

impl Follower {
    pub(super) fn succeed(
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

    pub(super) fn fail(&mut self, pending: Pending, outcome: FileOutcome) {
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

    /// Notes an open file, under the handle that the answer names; that must be the `expected` one, if there is one.
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

    pub(super) fn close(&mut self, file: FollowedFile, outcome: FileOutcome) {
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

    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    /// Returns the path of a file that was opened for writing, and was not read.
    pub(super) fn unread(&self) -> Option<&[u8]> {
        let is_unread = self.action == FileAction::Write && self.read == 0;
        is_unread.then_some(&*self.path)
    }
}

pub(super) fn status(fields: &mut SftpFields<'_>) -> Result<FileOutcome, FollowError> {
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
