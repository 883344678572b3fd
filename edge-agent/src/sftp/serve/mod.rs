//! The server: packets in, answers out, one after the other.

use std::os::fd::AsFd;

use holdfast_protocol::sftp::{
    Broken, ClientPacket, SftpAnswers, SftpRequest, Unclear, decode, next_packet,
};
use rustix::buffer::spare_capacity;
use rustix::io::{Errno, read, write};
use thiserror::Error;

use super::handles::Handles;
use super::people::People;
use super::root::SftpTree;
use super::status::SftpStatus;
use super::temporary::Temporary;
use crate::sftp::limits::{SFTP_ANSWERS, SFTP_INPUT};

/// A server, and what its client has open.
pub(super) struct FileServer {
    pub(super) tree: SftpTree,
    pub(super) read_only: bool,
    pub(super) handles: Handles,
    pub(super) people: People,
    pub(super) temporary: Temporary,
    pub(super) answers: SftpAnswers,
}

/// The reason why a server ended before its client did.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The input is not SFTP.
    #[error("the client does not speak SFTP: {0}")]
    Broken(#[from] Broken),
    /// Requests before the version was agreed on.
    #[error("the client does not speak SFTP: it began without a version")]
    NoVersion,
    /// Reading or writing failed.
    #[error("the connection is lost: {0}")]
    Lost(#[from] Errno),
}

/// The rest of an operation.
pub(super) enum OperationStep {
    /// To say that it went well.
    Well,
    /// Nothing: its answer is written.
    Answered,
}

impl FileServer {
    pub(super) fn new(tree: SftpTree, read_only: bool) -> Self {
        Self {
            tree,
            read_only,
            handles: Handles::default(),
            people: People::default(),
            temporary: Temporary::default(),
            answers: SftpAnswers::default(),
        }
    }

    /// Serves one client to its end, and takes away what was not to outlive it.
    ///
    /// # Errors
    /// [`ServeError`].
    pub(super) fn serve(&mut self, input: impl AsFd, output: impl AsFd) -> Result<(), ServeError> {
        let served = self.converse(input, output);
        self.temporary.remove(&self.tree);
        served
    }

    /// Answers whatever has come before it waits for more.
    fn converse(&mut self, input: impl AsFd, output: impl AsFd) -> Result<(), ServeError> {
        let mut buffer = Vec::with_capacity(SFTP_INPUT);
        let mut has_begun = false;
        loop {
            let mut rest = buffer.as_slice();
            while let Some(packet) = next_packet(&mut rest)? {
                let packet = decode(packet)?;
                has_begun |= matches!(packet, ClientPacket::Init { .. });
                if !has_begun {
                    return Err(ServeError::NoVersion);
                }
                self.answer(packet);
                if self.answers.bytes().len() >= SFTP_ANSWERS {
                    self.send(&output)?;
                }
            }
            let taken = buffer.len() - rest.len();
            buffer.drain(..taken);
            self.send(&output)?;
            // A packet that has not all come leaves room: the buffer is larger than any.
            match read(&input, spare_capacity(&mut buffer)) {
                Ok(0) => return Ok(()),
                Err(Errno::INTR) if self.temporary.has_to_end() => return Ok(()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Answers one packet.
    pub(super) fn answer(&mut self, packet: ClientPacket<'_>) {
        let (id, request) = match packet {
            // Whatever version a client offers: the answer to a later one is the highest that is spoken.
            ClientPacket::Init { .. } => return self.answers.version(),
            ClientPacket::Request { id, request } => (id, request),
        };
        let done = match request {
            Ok(request) => self.attempt(id, request),
            Err(Unclear::Malformed) => Err(SftpStatus::MALFORMED),
            Err(Unclear::Unknown) => Err(SftpStatus::UNSUPPORTED),
        };
        match done {
            Ok(OperationStep::Answered) => {}
            Ok(OperationStep::Well) => {
                self.answers
                    .status(id, SftpStatus::OK.code, &SftpStatus::OK.text)
            }
            Err(status) => self.answers.status(id, status.code, &status.text),
        }
    }

    /// Does it, unless what it is about was never opened, or nothing may be changed.
    fn attempt(&mut self, id: u32, request: SftpRequest<'_>) -> Result<OperationStep, SftpStatus> {
        for handle in handles_of(&request).into_iter().flatten() {
            if let Some(failure) = self.handles.failure(handle) {
                let failure = failure.clone();
                if matches!(request, SftpRequest::Close(_)) {
                    self.handles.forget(handle);
                }
                return Err(failure);
            }
            if !matches!(request, SftpRequest::Close(_) | SftpRequest::Release(_)) {
                self.handles.wake(handle)?;
            }
        }
        let given = match request {
            SftpRequest::OpenAs { handle, .. } => Some(self.handles.claim(handle)?),
            _ => None,
        };
        let done = if self.read_only && changes(&request) {
            Err(SftpStatus::READ_ONLY)
        } else {
            self.act(id, request)
        };
        if let (Some(given), Err(failure)) = (given, &done) {
            self.handles.fail(given, failure.clone());
        }
        done
    }

    fn act(&mut self, id: u32, request: SftpRequest<'_>) -> Result<OperationStep, SftpStatus> {
        match request {
            SftpRequest::Open {
                path,
                flags,
                attributes,
            } => self.open(id, path, flags, &attributes),
            SftpRequest::OpenAs {
                handle,
                path,
                flags,
                attributes,
            } => self.open_as(id, handle, path, flags, &attributes),
            SftpRequest::Close(handle) => self.close(handle),
            SftpRequest::Read {
                handle,
                offset,
                length,
            } => self.read(id, handle, offset, length),
            SftpRequest::Write {
                handle,
                offset,
                data,
            } => self.write(handle, offset, data),
            SftpRequest::Stat(path) => self.stat(id, path),
            SftpRequest::Lstat(path) => self.lstat(id, path),
            SftpRequest::Fstat(handle) => self.fstat(id, handle),
            SftpRequest::Setstat(path, attributes) => self.setstat(path, &attributes),
            SftpRequest::Lsetstat(path, attributes) => self.lsetstat(path, &attributes),
            SftpRequest::Fsetstat(handle, attributes) => self.fsetstat(handle, &attributes),
            SftpRequest::Opendir(path) => self.opendir(id, path),
            SftpRequest::Readdir(handle) => self.readdir(id, handle),
            SftpRequest::Remove(path) => self.remove(path),
            SftpRequest::Mkdir(path, attributes) => self.mkdir(path, &attributes),
            SftpRequest::Rmdir(path) => self.rmdir(path),
            SftpRequest::Realpath(path) => self.realpath(id, path),
            SftpRequest::Readlink(path) => self.readlink(id, path),
            SftpRequest::Symlink { target, link } => self.symlink(target, link),
            SftpRequest::Rename { from, to } => self.rename(from, to),
            SftpRequest::PosixRename { from, to } => self.posix_rename(from, to),
            SftpRequest::Hardlink { from, to } => self.hardlink(from, to),
            SftpRequest::Fsync(handle) => self.fsync(handle),
            SftpRequest::Release(handle) => self.release(handle),
            SftpRequest::Statvfs(path) => self.statvfs(id, path),
            SftpRequest::Fstatvfs(handle) => self.fstatvfs(id, handle),
            SftpRequest::Limits => self.limits(id),
            SftpRequest::ExpandPath(path) => self.expand_path(id, path),
            SftpRequest::HomeDirectory(user) => self.home_directory(id, user),
            SftpRequest::CopyData {
                from,
                offset,
                length,
                to,
                to_offset,
            } => self.copy_data((from, offset), length, (to, to_offset)),
            SftpRequest::UsersGroupsById { users, groups } => self.names_by_id(id, users, groups),
        }
    }

    fn send(&mut self, output: &impl AsFd) -> Result<(), Errno> {
        let mut bytes = self.answers.bytes();
        while !bytes.is_empty() {
            match write(output, bytes) {
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        self.answers.clear();
        Ok(())
    }
}

/// `SSH_FXF_WRITE`, `_APPEND`, `_CREAT` and `_TRUNC`.
const WRITING: u32 = 0x02 | 0x04 | 0x08 | 0x10;

/// Returns the handles that a request is about.
fn handles_of<'a>(request: &SftpRequest<'a>) -> [Option<&'a [u8]>; 2] {
    match *request {
        SftpRequest::Close(handle)
        | SftpRequest::Read { handle, .. }
        | SftpRequest::Write { handle, .. }
        | SftpRequest::Fstat(handle)
        | SftpRequest::Fsetstat(handle, _)
        | SftpRequest::Readdir(handle)
        | SftpRequest::Fsync(handle)
        | SftpRequest::Release(handle)
        | SftpRequest::Fstatvfs(handle) => [Some(handle), None],
        SftpRequest::CopyData { from, to, .. } => [Some(from), Some(to)],
        _ => [None, None],
    }
}

/// Returns whether a request would change anything. A kind that is not known to leave all as it is changes it.
fn changes(request: &SftpRequest<'_>) -> bool {
    match request {
        SftpRequest::Open { flags, .. } | SftpRequest::OpenAs { flags, .. } => flags & WRITING != 0,
        SftpRequest::Close(_)
        | SftpRequest::Release(_)
        | SftpRequest::Read { .. }
        | SftpRequest::Lstat(_)
        | SftpRequest::Fstat(_)
        | SftpRequest::Opendir(_)
        | SftpRequest::Readdir(_)
        | SftpRequest::Realpath(_)
        | SftpRequest::Stat(_)
        | SftpRequest::Readlink(_)
        | SftpRequest::Limits
        | SftpRequest::Statvfs(_)
        | SftpRequest::Fstatvfs(_)
        | SftpRequest::ExpandPath(_)
        | SftpRequest::HomeDirectory(_)
        | SftpRequest::UsersGroupsById { .. } => false,
        SftpRequest::Write { .. }
        | SftpRequest::Setstat(..)
        | SftpRequest::Fsetstat(..)
        | SftpRequest::Lsetstat(..)
        | SftpRequest::Remove(_)
        | SftpRequest::Mkdir(..)
        | SftpRequest::Rmdir(_)
        | SftpRequest::Rename { .. }
        | SftpRequest::PosixRename { .. }
        | SftpRequest::Hardlink { .. }
        | SftpRequest::Symlink { .. }
        | SftpRequest::Fsync(_)
        | SftpRequest::CopyData { .. } => true,
    }
}

#[cfg(test)]
mod tests;
