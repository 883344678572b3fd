//! The requests that wait for their answers, as far as they are followed.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::error::FollowError;
use super::fields::SftpFields;
use super::kind::{self, OPEN_AS};
use super::operation::{FileAction, FileOutcome, Operation};
use super::{WRITING, stream};
use crate::limits::{MAX_SFTP_HANDLE, MAX_SFTP_PATH, RECORDING_PER_OPERATION, SFTP_PENDING_COST};

/// A request that is not answered. What its handles mean is looked up when it is: a server does one request after the
/// other, so that every answer before this one is known by then.
#[derive(Debug)]
pub(super) enum Pending {
    /// A file; the server names its handle.
    Open {
        path: Vec<u8>,
        writes: bool,
    },
    /// A file under a handle that the request names.
    OpenAs {
        handle: Vec<u8>,
        path: Vec<u8>,
        writes: bool,
    },
    /// A folder.
    List(Vec<u8>),
    Close(Vec<u8>),
    Read(Vec<u8>),
    Write(Vec<u8>, u64),
    /// Something with the file of a handle.
    ByHandle(FileAction, Vec<u8>),
    Copy(Vec<u8>, Vec<u8>),
    /// One request that is an operation, but for its outcome.
    ByPath(Box<Operation>),
    /// Nothing that is booked.
    Unbooked,
}

impl Pending {
    /// Returns what the packet asks for, and its number.
    pub(super) fn of(packet: &stream::SeenPacket<'_>) -> Result<(u32, Self), FollowError> {
        let mut fields = packet.fields();
        let id = fields.number().ok_or(FollowError::Short)?;
        // One that lacks its fields is refused by every server.
        let pending = read(packet.kind, &mut fields)?.unwrap_or(Self::Unbooked);
        Ok((id, pending))
    }

    /// Returns what is booked of it when no answer comes.
    pub(super) fn unanswered(self, outcome: FileOutcome) -> Option<Operation> {
        Some(match self {
            Self::Open { path, writes } | Self::OpenAs { path, writes, .. } => {
                Operation::new(opened_as(writes), path, outcome)
            }
            Self::List(path) => Operation::new(FileAction::List, path, outcome),
            Self::ByPath(operation) => Operation {
                outcome,
                ..*operation
            },
            Self::Close(_)
            | Self::Read(_)
            | Self::Write(..)
            | Self::ByHandle(..)
            | Self::Copy(..)
            | Self::Unbooked => return None,
        })
    }

    /// Returns the most bytes that its records in a recording take whose answer is not seen here, beside what
    /// [`Self::unanswered`] gives: what it does to an open file is recorded with the file's path.
    pub(super) fn recorded(&self) -> u64 {
        let paths = match self {
            Self::ByHandle(..) | Self::Close(_) => 1,
            Self::Copy(..) => 2,
            _ => return 0,
        };
        (MAX_SFTP_PATH as u64 + RECORDING_PER_OPERATION) * paths
    }

    /// Returns how much it takes while it waits for its answer.
    pub(super) fn bytes(&self) -> usize {
        let names = match self {
            Self::Open { path, .. } | Self::List(path) => path.len(),
            Self::OpenAs { handle, path, .. } => handle.len() + path.len(),
            Self::Close(handle)
            | Self::Read(handle)
            | Self::Write(handle, _)
            | Self::ByHandle(_, handle) => handle.len(),
            Self::Copy(from, to) => from.len() + to.len(),
            Self::ByPath(operation) => {
                let to = operation.to.as_ref();
                size_of::<Operation>() + operation.path.len() + to.map_or(0, Vec::len)
            }
            Self::Unbooked => 0,
        };
        SFTP_PENDING_COST + names
    }

    /// Returns whether an answer of this kind, or a status that says that all is well, can be one to this.
    pub(super) fn fits(&self, answer: u8) -> bool {
        match self {
            Self::Open { .. } | Self::OpenAs { .. } | Self::List(_) => answer == kind::HANDLE,
            Self::Read(_) => answer == kind::DATA,
            Self::Close(_) | Self::Write(..) | Self::Copy(..) => answer == kind::STATUS,
            Self::ByHandle(action, _) => action_fits(*action, answer),
            Self::ByPath(operation) => action_fits(operation.action, answer),
            Self::Unbooked => tells(answer),
        }
    }
}

fn action_fits(action: FileAction, answer: u8) -> bool {
    match action {
        FileAction::Stat | FileAction::Resolve | FileAction::Extension => tells(answer),
        _ => answer == kind::STATUS,
    }
}

/// Answers that open nothing, and hold no file's bytes.
fn tells(answer: u8) -> bool {
    matches!(
        answer,
        kind::STATUS | kind::NAME | kind::ATTRS | kind::EXTENDED_REPLY
    )
}

pub(super) fn opened_as(writes: bool) -> FileAction {
    if writes {
        FileAction::Write
    } else {
        FileAction::Read
    }
}

fn read(kind: u8, fields: &mut SftpFields<'_>) -> Result<Option<Pending>, FollowError> {
    let by_path = |action, fields: &mut SftpFields<'_>| one(action, fields).map(by_path_of);
    let to_path = |action, fields: &mut SftpFields<'_>| {
        let operation = one(action, fields)?;
        let to = path(fields);
        Some(by_path_of(Operation { to, ..operation }))
    };
    Ok(match kind {
        kind::OPEN => open(fields),
        kind::OPENDIR => path(fields).map(Pending::List),
        kind::CLOSE => handle(fields)?.map(Pending::Close),
        kind::READ => handle(fields)?.map(Pending::Read),
        kind::WRITE => handle(fields)?.and_then(|handle| {
            fields.skip(8)?;
            Some(Pending::Write(handle, fields.number()?.into()))
        }),
        kind::FSTAT => handle(fields)?.map(|handle| Pending::ByHandle(FileAction::Stat, handle)),
        kind::FSETSTAT => {
            handle(fields)?.map(|handle| Pending::ByHandle(FileAction::SetAttributes, handle))
        }
        kind::LSTAT | kind::STAT => by_path(FileAction::Stat, fields),
        kind::SETSTAT => by_path(FileAction::SetAttributes, fields),
        kind::REMOVE => by_path(FileAction::Remove, fields),
        kind::MKDIR => by_path(FileAction::MakeFolder, fields),
        kind::RMDIR => by_path(FileAction::RemoveFolder, fields),
        kind::REALPATH | kind::READLINK => by_path(FileAction::Resolve, fields),
        kind::RENAME => to_path(FileAction::Rename, fields),
        // OpenSSH sends the target first, against the draft, and all follow it.
        kind::SYMLINK => to_path(FileAction::Symlink, fields),
        kind::EXTENDED => match fields.beginning() {
            None => None,
            Some(OPEN_AS) => match handle(fields)? {
                None => None,
                Some(handle) => open(fields).and_then(|open| match open {
                    Pending::Open { path, writes } => Some(Pending::OpenAs {
                        handle,
                        path,
                        writes,
                    }),
                    _ => None,
                }),
            },
            // The close behind it is what is booked.
            Some(kind::RELEASE) => None,
            Some(kind::POSIX_RENAME) => to_path(FileAction::Rename, fields),
            Some(kind::HARDLINK) => to_path(FileAction::Link, fields),
            Some(kind::LSETSTAT) => by_path(FileAction::SetAttributes, fields),
            Some(kind::EXPAND_PATH) => by_path(FileAction::Resolve, fields),
            Some(kind::COPY_DATA) => match handle(fields)? {
                None => None,
                Some(from) => match fields.skip(16) {
                    None => None,
                    Some(()) => handle(fields)?.map(|to| Pending::Copy(from, to)),
                },
            },
            Some(name) => Some(by_path_of(Operation::new(
                FileAction::Extension,
                cut(name),
                FileOutcome::OK,
            ))),
        },
        _ => None,
    })
}

fn by_path_of(operation: Operation) -> Pending {
    Pending::ByPath(Box::new(operation))
}

fn open(fields: &mut SftpFields<'_>) -> Option<Pending> {
    Some(Pending::Open {
        path: path(fields)?,
        writes: fields.number()? & WRITING != 0,
    })
}

fn one(action: FileAction, fields: &mut SftpFields<'_>) -> Option<Operation> {
    Some(Operation::new(action, path(fields)?, FileOutcome::OK))
}

/// Returns a path. No system takes one that is longer than what is kept of it.
fn path(fields: &mut SftpFields<'_>) -> Option<Vec<u8>> {
    fields.beginning().map(cut)
}

fn cut(bytes: &[u8]) -> Vec<u8> {
    bytes.get(..MAX_SFTP_PATH).unwrap_or(bytes).to_vec()
}

fn handle(fields: &mut SftpFields<'_>) -> Result<Option<Vec<u8>>, FollowError> {
    let handle = fields.beginning();
    match handle {
        Some(handle) if handle.len() > MAX_SFTP_HANDLE => Err(FollowError::LongHandle),
        handle => Ok(handle.map(<[u8]>::to_vec)),
    }
}
