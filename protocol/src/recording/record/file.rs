//! Records of file transfer, and how the actions that a follower sees are recorded.

use core::fmt;

use serde::{Deserialize, Serialize};

use super::RecordedBytes;
use crate::sftp::{FileAction, FileOutcome, Operation};

/// SFTP's status code for an operation that was still under way when its session ended.
const CONNECTION_LOST: u32 = 7;

/// The result of an operation whose outcome is not known: following ended before it.
const NOT_FOLLOWED: u32 = u32::MAX;

/// One operation of file transfer.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileOperation<'a> {
    /// The kind of operation.
    pub kind: FileKind,
    /// Its path, as the client gave it. Bytes: a path need not be text.
    #[serde(borrow)]
    pub path: RecordedBytes<'a>,
    /// The second path, of a rename or link.
    #[serde(borrow)]
    pub other: Option<RecordedBytes<'a>>,
    /// The bytes that were read or written, or the size that was set.
    pub size: u64,
    /// SFTP's status code (draft-ietf-secsh-filexfer-02 section 7): 0 is well.
    pub result: u32,
}

impl<'a> FileOperation<'a> {
    /// Returns the records of an operation, in their order: a file that was written and read has two. The device
    /// records them, and the relay expects them.
    pub fn of(operation: &'a Operation) -> impl Iterator<Item = Self> + 'a {
        let Operation {
            action,
            path,
            to,
            outcome,
            read,
            written,
        } = operation;
        let result = match outcome {
            FileOutcome::Status { code, .. } => *code,
            FileOutcome::NotAnswered | FileOutcome::NotClosed => CONNECTION_LOST,
            FileOutcome::NotFollowed => NOT_FOLLOWED,
        };
        let is_written = *action == FileAction::Write;
        let first = (is_written && *read > 0).then_some(Self {
            kind: FileKind::Read,
            path: RecordedBytes(path),
            other: None,
            size: *read,
            result,
        });
        let last = Self {
            kind: FileKind::from(*action),
            path: RecordedBytes(path),
            other: to.as_deref().map(RecordedBytes),
            size: if is_written { *written } else { *read },
            result,
        };
        first.into_iter().chain([last])
    }
}

/// An action on a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileKind {
    /// Opened and read; recorded when it is closed, with the bytes read.
    Read,
    /// Opened and written; recorded when it is closed, with the bytes written.
    Write,
    /// A folder's entries were listed.
    List,
    /// Attributes were asked for.
    Stat,
    /// Attributes were set.
    SetAttributes,
    /// A file was removed.
    Remove,
    /// A file or folder was renamed.
    Rename,
    /// A folder was made.
    MakeFolder,
    /// A folder was removed.
    RemoveFolder,
    /// A symbolic link was made.
    Symlink,
    /// A hard link was made.
    Link,
    /// A link was read, or a path resolved.
    Resolve,
    /// An extension that has no name here.
    Other,
}

impl From<FileAction> for FileKind {
    fn from(action: FileAction) -> Self {
        match action {
            FileAction::Read => Self::Read,
            FileAction::Write => Self::Write,
            FileAction::List => Self::List,
            FileAction::Stat => Self::Stat,
            FileAction::SetAttributes => Self::SetAttributes,
            FileAction::Remove => Self::Remove,
            FileAction::Rename => Self::Rename,
            FileAction::MakeFolder => Self::MakeFolder,
            FileAction::RemoveFolder => Self::RemoveFolder,
            FileAction::Symlink => Self::Symlink,
            FileAction::Link => Self::Link,
            FileAction::Resolve => Self::Resolve,
            // Relays of before do not know a kind of its own: it is one with two paths.
            FileAction::Copy | FileAction::Extension => Self::Other,
        }
    }
}

impl fmt::Debug for FileOperation<'_> {
    /// Leaves out the paths.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileOperation")
            .field("kind", &self.kind)
            .field("size", &self.size)
            .field("result", &self.result)
            .finish_non_exhaustive()
    }
}
