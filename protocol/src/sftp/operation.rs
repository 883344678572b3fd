//! The operations on files, as a follower sees them.

use alloc::vec::Vec;

use crate::limits::RECORDING_PER_OPERATION;

/// An operation, and how it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The action.
    pub action: FileAction,
    /// On what, as the client gave it; the name of an extension that is not known here.
    pub path: Vec<u8>,
    /// The second path, of a rename, a link or a copy.
    pub to: Option<Vec<u8>>,
    /// The outcome.
    pub outcome: FileOutcome,
    /// Bytes of the file that the server gave.
    pub read: u64,
    /// Bytes of it that the server took.
    pub written: u64,
}

/// An action on a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileAction {
    /// It was opened for reading, possibly read, and closed.
    Read,
    /// It was opened for writing, and closed.
    Write,
    /// A folder was opened, to be listed.
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
    /// Bytes were copied from one open file into another.
    Copy,
    /// An extension that has no name here.
    Extension,
}

/// Describes how an operation went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileOutcome {
    /// The server's status: 0 is well.
    Status {
        /// Its code, section 7 of the draft.
        code: u32,
        /// Its words, cut to `MAX_SFTP_STATUS_TEXT` bytes; they may be none, or anything.
        text: Vec<u8>,
    },
    /// The session ended before the answer came.
    NotAnswered,
    /// The session ended before the file was closed.
    NotClosed,
    /// Following ended before the answer came: nothing is known of it.
    NotFollowed,
}

impl FileOutcome {
    /// It went well.
    pub const OK: Self = Self::Status {
        code: 0,
        text: Vec::new(),
    };
}

impl Operation {
    /// Returns the most bytes that its records in a recording take: a file that was written and read has two.
    #[must_use]
    pub fn recorded(&self) -> u64 {
        let paths = self.path.len() + self.to.as_ref().map_or(0, Vec::len);
        let records = 1 + u64::from(self.read > 0 && self.action == FileAction::Write);
        (paths as u64)
            .saturating_add(RECORDING_PER_OPERATION)
            .saturating_mul(records)
    }

    pub(super) fn new(action: FileAction, path: Vec<u8>, outcome: FileOutcome) -> Self {
        Self {
            action,
            path,
            to: None,
            outcome,
            read: 0,
            written: 0,
        }
    }
}
