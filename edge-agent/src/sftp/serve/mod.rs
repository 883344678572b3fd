//! The server: packets in, answers out, one after the other.

use std::os::fd::AsFd;

use holdfast_protocol::sftp::{Answers, Broken, Packet, Request, Unclear, decode, next_packet};
use rustix::buffer::spare_capacity;
use rustix::io::{Errno, read, write};
use thiserror::Error;

use super::handles::Handles;
use super::people::People;
use super::root::Tree;
use super::status::Status;
use super::temporary::Temporary;
use crate::sftp::limits::{SFTP_ANSWERS, SFTP_INPUT};

/// A server, and what its client has open.
pub(super) struct Server {
    pub(super) tree: Tree,
    pub(super) read_only: bool,
    pub(super) handles: Handles,
    pub(super) people: People,
    pub(super) temporary: Temporary,
    pub(super) answers: Answers,
}

/// Why a server ended before its client did.
#[derive(Debug, Error)]
pub enum ServeError {
    /// What came is no SFTP.
    #[error("the client does not speak SFTP: {0}")]
    Broken(#[from] Broken),
    /// Requests before the version was agreed on.
    #[error("the client does not speak SFTP: it began without a version")]
    NoVersion,
    /// Reading or writing failed.
    #[error("the connection is lost: {0}")]
    Lost(#[from] Errno),
}

/// What an operation has left to do.
pub(super) enum Done {
    /// To say that it went well.
    Well,
    /// Nothing: its answer is written.
    Answered,
}

impl Server {
    pub(super) fn new(tree: Tree, read_only: bool) -> Self {
        Self {
            tree,
            read_only,
            handles: Handles::default(),
            people: People::default(),
            temporary: Temporary::default(),
            answers: Answers::default(),
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

    /// Whatever has come is answered before more is waited for.
    fn converse(&mut self, input: impl AsFd, output: impl AsFd) -> Result<(), ServeError> {
        let mut buffer = Vec::with_capacity(SFTP_INPUT);
        let mut has_begun = false;
        loop {
            let mut rest = buffer.as_slice();
            while let Some(packet) = next_packet(&mut rest)? {
                let packet = decode(packet)?;
                has_begun |= matches!(packet, Packet::Init { .. });
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
    pub(super) fn answer(&mut self, packet: Packet<'_>) {
        let (id, request) = match packet {
            // Whatever version a client offers: the answer to a later one is the highest that is spoken.
            Packet::Init { .. } => return self.answers.version(),
            Packet::Request { id, request } => (id, request),
        };
        let done = match request {
            Ok(request) => self.attempt(id, request),
            Err(Unclear::Malformed) => Err(Status::MALFORMED),
            Err(Unclear::Unknown) => Err(Status::UNSUPPORTED),
        };
        match done {
            Ok(Done::Answered) => {}
            Ok(Done::Well) => self.answers.status(id, Status::OK.code, &Status::OK.text),
            Err(status) => self.answers.status(id, status.code, &status.text),
        }
    }

    /// Does it, unless what it is about was never opened, or nothing may be changed.
    fn attempt(&mut self, id: u32, request: Request<'_>) -> Result<Done, Status> {
        for handle in handles_of(&request).into_iter().flatten() {
            if let Some(failure) = self.handles.failure(handle) {
                let failure = failure.clone();
                if matches!(request, Request::Close(_)) {
                    self.handles.forget(handle);
                }
                return Err(failure);
            }
            if !matches!(request, Request::Close(_) | Request::Release(_)) {
                self.handles.wake(handle)?;
            }
        }
        let given = match request {
            Request::OpenAs { handle, .. } => Some(self.handles.claim(handle)?),
            _ => None,
        };
        let done = if self.read_only && changes(&request) {
            Err(Status::READ_ONLY)
        } else {
            self.act(id, request)
        };
        if let (Some(given), Err(failure)) = (given, &done) {
            self.handles.fail(given, failure.clone());
        }
        done
    }

    fn act(&mut self, id: u32, request: Request<'_>) -> Result<Done, Status> {
        match request {
            Request::Open {
                path,
                flags,
                attributes,
            } => self.open(id, path, flags, &attributes),
            Request::OpenAs {
                handle,
                path,
                flags,
                attributes,
            } => self.open_as(id, handle, path, flags, &attributes),
            Request::Close(handle) => self.close(handle),
            Request::Read {
                handle,
                offset,
                length,
            } => self.read(id, handle, offset, length),
            Request::Write {
                handle,
                offset,
                data,
            } => self.write(handle, offset, data),
            Request::Stat(path) => self.stat(id, path),
            Request::Lstat(path) => self.lstat(id, path),
            Request::Fstat(handle) => self.fstat(id, handle),
            Request::Setstat(path, attributes) => self.setstat(path, &attributes),
            Request::Lsetstat(path, attributes) => self.lsetstat(path, &attributes),
            Request::Fsetstat(handle, attributes) => self.fsetstat(handle, &attributes),
            Request::Opendir(path) => self.opendir(id, path),
            Request::Readdir(handle) => self.readdir(id, handle),
            Request::Remove(path) => self.remove(path),
            Request::Mkdir(path, attributes) => self.mkdir(path, &attributes),
            Request::Rmdir(path) => self.rmdir(path),
            Request::Realpath(path) => self.realpath(id, path),
            Request::Readlink(path) => self.readlink(id, path),
            Request::Symlink { target, link } => self.symlink(target, link),
            Request::Rename { from, to } => self.rename(from, to),
            Request::PosixRename { from, to } => self.posix_rename(from, to),
            Request::Hardlink { from, to } => self.hardlink(from, to),
            Request::Fsync(handle) => self.fsync(handle),
            Request::Release(handle) => self.release(handle),
            Request::Statvfs(path) => self.statvfs(id, path),
            Request::Fstatvfs(handle) => self.fstatvfs(id, handle),
            Request::Limits => self.limits(id),
            Request::ExpandPath(path) => self.expand_path(id, path),
            Request::HomeDirectory(user) => self.home_directory(id, user),
            Request::CopyData {
                from,
                offset,
                length,
                to,
                to_offset,
            } => self.copy_data((from, offset), length, (to, to_offset)),
            Request::UsersGroupsById { users, groups } => self.names_by_id(id, users, groups),
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

/// The handles that a request is about, of what is open.
fn handles_of<'a>(request: &Request<'a>) -> [Option<&'a [u8]>; 2] {
    match *request {
        Request::Close(handle)
        | Request::Read { handle, .. }
        | Request::Write { handle, .. }
        | Request::Fstat(handle)
        | Request::Fsetstat(handle, _)
        | Request::Readdir(handle)
        | Request::Fsync(handle)
        | Request::Release(handle)
        | Request::Fstatvfs(handle) => [Some(handle), None],
        Request::CopyData { from, to, .. } => [Some(from), Some(to)],
        _ => [None, None],
    }
}

/// Whether a request would change anything. A kind that is not known to leave all as it is changes it.
fn changes(request: &Request<'_>) -> bool {
    match request {
        Request::Open { flags, .. } | Request::OpenAs { flags, .. } => flags & WRITING != 0,
        Request::Close(_)
        | Request::Release(_)
        | Request::Read { .. }
        | Request::Lstat(_)
        | Request::Fstat(_)
        | Request::Opendir(_)
        | Request::Readdir(_)
        | Request::Realpath(_)
        | Request::Stat(_)
        | Request::Readlink(_)
        | Request::Limits
        | Request::Statvfs(_)
        | Request::Fstatvfs(_)
        | Request::ExpandPath(_)
        | Request::HomeDirectory(_)
        | Request::UsersGroupsById { .. } => false,
        Request::Write { .. }
        | Request::Setstat(..)
        | Request::Fsetstat(..)
        | Request::Lsetstat(..)
        | Request::Remove(_)
        | Request::Mkdir(..)
        | Request::Rmdir(_)
        | Request::Rename { .. }
        | Request::PosixRename { .. }
        | Request::Hardlink { .. }
        | Request::Symlink { .. }
        | Request::Fsync(_)
        | Request::CopyData { .. } => true,
    }
}

#[cfg(test)]
mod tests;
