//! What a session of file transfer does, read off the packets that pass (draft-ietf-secsh-filexfer-02, and
//! OpenSSH's extensions). Only heads of packets are kept; what a file holds passes by.

use std::collections::{BTreeMap, VecDeque};

use holdfast_protocol::recording::record::{Bytes, FileKind, FileOperation};

use crate::limits::{MAX_FILE_HANDLES, MAX_FILE_PATH, MAX_FILE_REQUESTS};

/// SFTP's status code for an operation that was still under way when its connection ended.
const CONNECTION_LOST: u32 = 7;

/// Of an operation whose outcome was not waited for: more were under way than are followed.
const NOT_FOLLOWED: u32 = u32::MAX;

/// How much of a packet is looked at: two paths, and what stands before them.
const HEAD: usize = 2 * (MAX_FILE_PATH + 4) + 64;

/// `SSH_FXP_VERSION`, which has a version where other packets have their number.
const VERSION: u8 = 2;

/// `SSH_FXF_WRITE`.
const FOR_WRITING: u32 = 2;

/// Follows both directions.
#[derive(Debug, Default)]
pub(super) struct Files {
    requests: Packets,
    answers: Packets,
    /// By the client's number of the request.
    pending: BTreeMap<u32, Request>,
    handles: BTreeMap<Vec<u8>, Handle>,
    done: VecDeque<Done>,
}

/// An operation that has ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Done {
    kind: FileKind,
    path: Vec<u8>,
    other: Option<Vec<u8>>,
    size: u64,
    result: u32,
}

/// What an answer is waited for.
#[derive(Debug)]
enum Request {
    Open {
        path: Vec<u8>,
        for_writing: bool,
    },
    /// One whose handle has its name already, and is followed by it.
    OpenAs(Vec<u8>),
    OpenFolder(Vec<u8>),
    Close(Vec<u8>),
    Read(Vec<u8>),
    Write {
        handle: Vec<u8>,
        length: u64,
    },
    Other(Done),
}

impl Request {
    /// What is recorded of a request whose answer is not waited for.
    fn unfollowed(self) -> Option<Done> {
        let done = match self {
            Self::Open {
                path,
                for_writing: true,
            } => Done::new(FileKind::Write, path),
            Self::Open { path, .. } => Done::new(FileKind::Read, path),
            Self::OpenFolder(path) => Done::new(FileKind::List, path),
            Self::Other(done) => done,
            Self::OpenAs(_) | Self::Close(_) | Self::Read(_) | Self::Write { .. } => return None,
        };
        Some(Done {
            result: NOT_FOLLOWED,
            ..done
        })
    }
}

/// A file or folder that is open.
#[derive(Debug)]
struct Handle {
    path: Vec<u8>,
    kind: FileKind,
    read: u64,
    written: u64,
}

impl Files {
    /// The client has sent this.
    pub(super) fn handle_requests(&mut self, mut bytes: &[u8]) {
        while self.requests.read(&mut bytes) {
            let head = std::mem::take(&mut self.requests.head);
            let Some((id, request)) = self.request(Fields(&head)) else {
                continue;
            };
            if self.pending.len() < MAX_FILE_REQUESTS {
                self.pending.insert(id, request);
            } else {
                self.done.extend(request.unfollowed());
            }
        }
    }

    /// The server has answered this.
    pub(super) fn handle_answers(&mut self, mut bytes: &[u8]) {
        while self.answers.read(&mut bytes) {
            let head = std::mem::take(&mut self.answers.head);
            self.answer(Fields(&head));
        }
    }

    /// The session is over: what is open will not be closed any more.
    pub(super) fn finish(&mut self) {
        for (_, handle) in std::mem::take(&mut self.handles) {
            self.close(handle, CONNECTION_LOST);
        }
    }

    /// The next operation that has ended.
    pub(super) fn front(&self) -> Option<FileOperation<'_>> {
        self.done.front().map(|done| FileOperation {
            kind: done.kind,
            path: Bytes(&done.path),
            other: done.other.as_deref().map(Bytes),
            size: done.size,
            result: done.result,
        })
    }

    /// It was recorded.
    pub(super) fn pop(&mut self) {
        self.done.pop_front();
    }

    fn request(&mut self, mut fields: Fields<'_>) -> Option<(u32, Request)> {
        let kind = fields.byte()?;
        let id = fields.number()?;
        let request = match kind {
            3 => Request::Open {
                path: fields.path()?,
                for_writing: fields.number()? & FOR_WRITING != 0,
            },
            4 => Request::Close(fields.path()?),
            5 => Request::Read(fields.path()?),
            6 => Request::Write {
                handle: fields.path()?,
                length: {
                    fields.take(8)?;
                    u64::from(fields.number()?)
                },
            },
            11 => Request::OpenFolder(fields.path()?),
            200 if fields.is_named(b"open-as@holdfast") => self.open_as(&mut fields)?,
            // The close behind it is what is recorded.
            200 if fields.is_named(b"release@holdfast") => return None,
            _ => Request::Other(self.other(kind, &mut fields)?),
        };
        Some((id, request))
    }

    /// An open that is followed from here on, because its file may be used before the answer.
    fn open_as(&mut self, fields: &mut Fields<'_>) -> Option<Request> {
        fields.path()?;
        let (name, path) = (fields.path()?, fields.path()?);
        let for_writing = fields.number()? & FOR_WRITING != 0;
        let has_room =
            self.handles.len() < MAX_FILE_HANDLES && self.pending.len() < MAX_FILE_REQUESTS;
        // Nobody opens two files under one name: the server will not.
        if !has_room || self.handles.contains_key(&name) {
            return Some(Request::Open { path, for_writing });
        }
        let handle = Handle::new(path, for_writing);
        self.handles.insert(name.clone(), handle);
        Some(Request::OpenAs(name))
    }

    /// An operation that is one request.
    fn other(&self, kind: u8, fields: &mut Fields<'_>) -> Option<Done> {
        let by_handle = |handle: &[u8]| self.handles.get(handle).map(|open| open.path.clone());
        let (kind, path) = match kind {
            7 | 17 => (FileKind::Stat, fields.path()?),
            8 => (FileKind::Stat, by_handle(&fields.path()?)?),
            9 => (FileKind::SetAttributes, fields.path()?),
            10 => (FileKind::SetAttributes, by_handle(&fields.path()?)?),
            13 => (FileKind::Remove, fields.path()?),
            14 => (FileKind::MakeFolder, fields.path()?),
            15 => (FileKind::RemoveFolder, fields.path()?),
            16 | 19 => (FileKind::Resolve, fields.path()?),
            18 => (FileKind::Rename, fields.path()?),
            20 => (FileKind::Symlink, fields.path()?),
            200 => {
                let name = fields.path()?;
                let kind = match name.as_slice() {
                    b"posix-rename@openssh.com" => FileKind::Rename,
                    b"hardlink@openssh.com" => FileKind::Link,
                    b"lsetstat@openssh.com" => FileKind::SetAttributes,
                    b"expand-path@openssh.com" => FileKind::Resolve,
                    _ => {
                        return Some(Done::new(FileKind::Other, name));
                    }
                };
                (kind, fields.path()?)
            }
            _ => return None,
        };
        let mut done = Done::new(kind, path);
        if matches!(kind, FileKind::Rename | FileKind::Symlink | FileKind::Link) {
            done.other = fields.path();
        }
        Some(done)
    }

    fn answer(&mut self, mut fields: Fields<'_>) -> Option<()> {
        let kind = fields.byte()?;
        let id = fields.number()?;
        if kind == VERSION {
            return None;
        }
        let request = self.pending.remove(&id)?;
        let (status, handle, data) = match kind {
            101 => (fields.number()?, None, 0),
            102 => (0, Some(fields.path()?), 0),
            103 => (0, None, u64::from(fields.number()?)),
            _ => (0, None, 0),
        };
        match request {
            Request::Open { path, for_writing } => {
                let kind = if for_writing {
                    FileKind::Write
                } else {
                    FileKind::Read
                };
                self.open(kind, path, handle, status);
            }
            Request::OpenAs(_) if status == 0 => {}
            Request::OpenAs(handle) => {
                let handle = self.handles.remove(&handle)?;
                self.close(handle, status);
            }
            Request::OpenFolder(path) => self.open(FileKind::List, path, handle, status),
            Request::Close(handle) => {
                let handle = self.handles.remove(&handle)?;
                self.close(handle, status);
            }
            Request::Read(handle) => self.handles.get_mut(&handle)?.read += data,
            Request::Write { handle, length } if status == 0 => {
                self.handles.get_mut(&handle)?.written += length;
            }
            Request::Write { .. } => {}
            Request::Other(done) => self.done.push_back(Done {
                result: status,
                ..done
            }),
        }
        Some(())
    }

    fn open(&mut self, kind: FileKind, path: Vec<u8>, handle: Option<Vec<u8>>, status: u32) {
        match handle {
            Some(handle) if self.handles.len() < MAX_FILE_HANDLES => {
                let open = Handle {
                    kind,
                    ..Handle::new(path, false)
                };
                self.handles.insert(handle, open);
            }
            // One too many to follow is told of when it is opened.
            _ => self.done.push_back(Done {
                result: status,
                ..Done::new(kind, path)
            }),
        }
    }

    fn close(&mut self, handle: Handle, result: u32) {
        let both = handle.kind == FileKind::Write && handle.read > 0;
        let mut done = Done::new(handle.kind, handle.path);
        done.result = result;
        if both {
            self.done.push_back(Done {
                kind: FileKind::Read,
                path: done.path.clone(),
                other: None,
                size: handle.read,
                result,
            });
        }
        done.size = match handle.kind {
            FileKind::Write => handle.written,
            _ => handle.read,
        };
        self.done.push_back(done);
    }
}

impl Handle {
    fn new(path: Vec<u8>, for_writing: bool) -> Self {
        let kind = if for_writing {
            FileKind::Write
        } else {
            FileKind::Read
        };
        Self {
            path,
            kind,
            read: 0,
            written: 0,
        }
    }
}

impl Done {
    fn new(kind: FileKind, path: Vec<u8>) -> Self {
        Self {
            kind,
            path,
            other: None,
            size: 0,
            result: 0,
        }
    }
}

/// Cuts one direction into packets, of which it keeps the heads.
#[derive(Debug, Default)]
struct Packets {
    length: [u8; 4],
    length_filled: usize,
    head: Vec<u8>,
    /// Bytes of the present packet that are to come.
    remaining: usize,
}

impl Packets {
    /// Takes bytes until a packet is whole: true, and `head` is its beginning. False when they are used up.
    fn read(&mut self, bytes: &mut &[u8]) -> bool {
        loop {
            while self.length_filled < 4 {
                let Some((first, rest)) = bytes.split_first() else {
                    return false;
                };
                if let Some(to) = self.length.get_mut(self.length_filled) {
                    *to = *first;
                }
                self.length_filled += 1;
                *bytes = rest;
                if self.length_filled == 4 {
                    // 32 bits fit.
                    self.remaining = u32::from_be_bytes(self.length) as usize;
                    self.head.clear();
                }
            }
            let (now, later) = bytes.split_at(self.remaining.min(bytes.len()));
            let room = HEAD - self.head.len().min(HEAD);
            self.head.extend_from_slice(now.get(..room).unwrap_or(now));
            self.remaining -= now.len();
            *bytes = later;
            if self.remaining > 0 {
                return false;
            }
            self.length_filled = 0;
            if !self.head.is_empty() {
                return true;
            }
        }
    }
}

/// The fields of a packet's head.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (now, later) = self.0.split_at_checked(length)?;
        self.0 = later;
        Some(now)
    }

    /// Whether an extended request, whose name is next, is this one.
    fn is_named(&self, name: &[u8]) -> bool {
        Fields(self.0).path().is_some_and(|here| here == name)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn number(&mut self) -> Option<u32> {
        let bytes = self.take(4)?;
        bytes.try_into().ok().map(u32::from_be_bytes)
    }

    /// A path, a handle or a name. One that is over the bound is cut.
    fn path(&mut self) -> Option<Vec<u8>> {
        // 32 bits fit.
        let length = self.number()? as usize;
        let bytes = self.take(length.min(self.0.len()))?;
        Some(bytes.get(..MAX_FILE_PATH).unwrap_or(bytes).to_vec())
    }
}

#[cfg(test)]
mod tests;
