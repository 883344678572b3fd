//! SFTP version 3 on the wire (draft-ietf-secsh-filexfer-02, OpenSSH's `PROTOCOL`): bytes to requests, and
//! answers to bytes. Nothing here opens a file.
//!
//! A packet is its length (four bytes, big-endian), a byte that tells its kind, a number that the client
//! chose, and fields. A string is its length and its bytes.

use std::borrow::Cow;

use thiserror::Error;

/// Largest packet, its length not counted: OpenSSH's. The draft asks for 34,000 bytes at least.
pub const MAX_PACKET: usize = 256 * 1024;

/// Most bytes that one read gives, and that one write can hold beside its other fields.
pub const MAX_DATA: u32 = 256 * 1024 - 1024;

/// The version that is spoken.
pub const VERSION: u32 = 3;

/// The kinds of requests, section 3 of the draft.
mod kind {
    pub(super) const INIT: u8 = 1;
    pub(super) const VERSION: u8 = 2;
    pub(super) const OPEN: u8 = 3;
    pub(super) const CLOSE: u8 = 4;
    pub(super) const READ: u8 = 5;
    pub(super) const WRITE: u8 = 6;
    pub(super) const LSTAT: u8 = 7;
    pub(super) const FSTAT: u8 = 8;
    pub(super) const SETSTAT: u8 = 9;
    pub(super) const FSETSTAT: u8 = 10;
    pub(super) const OPENDIR: u8 = 11;
    pub(super) const READDIR: u8 = 12;
    pub(super) const REMOVE: u8 = 13;
    pub(super) const MKDIR: u8 = 14;
    pub(super) const RMDIR: u8 = 15;
    pub(super) const REALPATH: u8 = 16;
    pub(super) const STAT: u8 = 17;
    pub(super) const RENAME: u8 = 18;
    pub(super) const READLINK: u8 = 19;
    pub(super) const SYMLINK: u8 = 20;
    pub(super) const EXTENDED: u8 = 200;
    // Answers.
    pub(super) const STATUS: u8 = 101;
    pub(super) const HANDLE: u8 = 102;
    pub(super) const DATA: u8 = 103;
    pub(super) const NAME: u8 = 104;
    pub(super) const ATTRS: u8 = 105;
    pub(super) const EXTENDED_REPLY: u8 = 201;
}

/// What is wrong with a stream: behind it nothing can be understood any more.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Broken {
    /// A length over [`MAX_PACKET`].
    #[error("a packet of {0} bytes: at most {MAX_PACKET} are taken")]
    TooLong(u32),
    /// A packet that has not even a kind and a number, so that it can't be answered.
    #[error("a packet of {0} bytes is too short")]
    TooShort(usize),
}

/// Takes the next whole packet off `input`, without its length; `None`: it has not all come.
///
/// # Errors
/// [`Broken::TooLong`].
pub fn next_packet<'a>(input: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Broken> {
    let Some((length, rest)) = input.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*length);
    // 32 bits fit.
    if length as usize > MAX_PACKET {
        return Err(Broken::TooLong(length));
    }
    let Some((packet, rest)) = rest.split_at_checked(length as usize) else {
        return Ok(None);
    };
    *input = rest;
    Ok(Some(packet))
}

/// A packet of the client.
#[derive(Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// The first one. It has no number.
    Init {
        /// The client's version.
        version: u32,
    },
    /// All others.
    Request {
        /// What the answer is to be numbered with.
        id: u32,
        /// What is asked for, or why that can't be told.
        request: Result<Request<'a>, Unclear>,
    },
}

/// Why a request has no meaning. It is answered, and the next one read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unclear {
    /// Fields are missing, or longer than the packet.
    Malformed,
    /// Nothing that is spoken here.
    Unknown,
}

/// What a client asks for. Paths and handles are its bytes as they came.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is a packet of the draft, field by field")]
pub enum Request<'a> {
    Open {
        path: &'a [u8],
        flags: u32,
        attributes: Attributes,
    },
    /// `open-as@holdfast`: as `Open`, but who asks names the handle, and uses it without waiting for the answer.
    OpenAs {
        handle: &'a [u8],
        path: &'a [u8],
        flags: u32,
        attributes: Attributes,
    },
    Close(&'a [u8]),
    Read {
        handle: &'a [u8],
        offset: u64,
        length: u32,
    },
    Write {
        handle: &'a [u8],
        offset: u64,
        data: &'a [u8],
    },
    Lstat(&'a [u8]),
    Fstat(&'a [u8]),
    Setstat(&'a [u8], Attributes),
    Fsetstat(&'a [u8], Attributes),
    Opendir(&'a [u8]),
    Readdir(&'a [u8]),
    Remove(&'a [u8]),
    Mkdir(&'a [u8], Attributes),
    Rmdir(&'a [u8]),
    Realpath(&'a [u8]),
    Stat(&'a [u8]),
    Rename {
        from: &'a [u8],
        to: &'a [u8],
    },
    Readlink(&'a [u8]),
    /// In OpenSSH's order, which all have: the draft has it the other way round.
    Symlink {
        target: &'a [u8],
        link: &'a [u8],
    },
    Limits,
    PosixRename {
        from: &'a [u8],
        to: &'a [u8],
    },
    Hardlink {
        from: &'a [u8],
        to: &'a [u8],
    },
    Fsync(&'a [u8]),
    /// `release@holdfast`: closes the file, and keeps its handle.
    Release(&'a [u8]),
    Statvfs(&'a [u8]),
    Fstatvfs(&'a [u8]),
    Lsetstat(&'a [u8], Attributes),
    ExpandPath(&'a [u8]),
    /// `home-directory`: of this account; of one's own, if it is empty.
    HomeDirectory(&'a [u8]),
    CopyData {
        from: &'a [u8],
        offset: u64,
        /// 0: to the end.
        length: u64,
        to: &'a [u8],
        to_offset: u64,
    },
    /// Numbers of users and of groups, four bytes each.
    UsersGroupsById {
        users: &'a [u8],
        groups: &'a [u8],
    },
}

/// The extensions, and the version of each that the answer to `Init` names.
const EXTENSIONS: [(&[u8], &[u8]); 14] = [
    (b"posix-rename@openssh.com", b"1"),
    (b"statvfs@openssh.com", b"2"),
    (b"fstatvfs@openssh.com", b"2"),
    (b"hardlink@openssh.com", b"1"),
    (b"fsync@openssh.com", b"1"),
    (b"lsetstat@openssh.com", b"1"),
    (b"limits@openssh.com", b"1"),
    (b"expand-path@openssh.com", b"1"),
    (b"copy-data", b"1"),
    (b"home-directory", b"1"),
    (b"users-groups-by-id@openssh.com", b"1"),
    (TEMPORARY, b"1"),
    (OPEN_AS, b"1"),
    (RELEASE, b"1"),
];

/// Our own: an attribute of that name, with nothing in it, of a file that `Open` makes and that was not there. The
/// file goes with the session, unless it has another name or is gone by then. The relay's `cp` asks for it.
const TEMPORARY: &[u8] = b"temporary@holdfast";

/// Our own: the relay opens a file by it under a handle that the client has already, so that what the client does with
/// it follows at once. If it can't be opened, whatever is asked of the handle is answered as the open was.
const OPEN_AS: &[u8] = b"open-as@holdfast";

/// Our own: the relay has a file closed by it which the client is about to close. If the client goes on instead, it
/// is opened again.
const RELEASE: &[u8] = b"release@holdfast";

/// Reads a packet that [`next_packet`] gave.
///
/// # Errors
/// [`Broken::TooShort`].
pub fn decode(packet: &[u8]) -> Result<Packet<'_>, Broken> {
    let short = Broken::TooShort(packet.len());
    let mut fields = Fields(packet);
    let kind = fields.byte().map_err(|_| short)?;
    let id = fields.number().map_err(|_| short)?;
    Ok(match kind {
        kind::INIT => Packet::Init { version: id },
        _ => Packet::Request {
            id,
            request: request(kind, &mut fields),
        },
    })
}

fn request<'a>(kind: u8, fields: &mut Fields<'a>) -> Result<Request<'a>, Unclear> {
    Ok(match kind {
        kind::OPEN => Request::Open {
            path: fields.string()?,
            flags: fields.number()?,
            attributes: fields.attributes()?,
        },
        kind::CLOSE => Request::Close(fields.string()?),
        kind::READ => Request::Read {
            handle: fields.string()?,
            offset: fields.long()?,
            length: fields.number()?,
        },
        kind::WRITE => Request::Write {
            handle: fields.string()?,
            offset: fields.long()?,
            data: fields.string()?,
        },
        kind::LSTAT => Request::Lstat(fields.string()?),
        kind::FSTAT => Request::Fstat(fields.string()?),
        kind::SETSTAT => Request::Setstat(fields.string()?, fields.attributes()?),
        kind::FSETSTAT => Request::Fsetstat(fields.string()?, fields.attributes()?),
        kind::OPENDIR => Request::Opendir(fields.string()?),
        kind::READDIR => Request::Readdir(fields.string()?),
        kind::REMOVE => Request::Remove(fields.string()?),
        kind::MKDIR => Request::Mkdir(fields.string()?, fields.attributes()?),
        kind::RMDIR => Request::Rmdir(fields.string()?),
        kind::REALPATH => Request::Realpath(fields.string()?),
        kind::STAT => Request::Stat(fields.string()?),
        kind::RENAME => Request::Rename {
            from: fields.string()?,
            to: fields.string()?,
        },
        kind::READLINK => Request::Readlink(fields.string()?),
        kind::SYMLINK => Request::Symlink {
            target: fields.string()?,
            link: fields.string()?,
        },
        kind::EXTENDED => extended(fields.string()?, fields)?,
        _ => return Err(Unclear::Unknown),
    })
}

fn extended<'a>(name: &[u8], fields: &mut Fields<'a>) -> Result<Request<'a>, Unclear> {
    Ok(match name {
        b"limits@openssh.com" => Request::Limits,
        b"posix-rename@openssh.com" => Request::PosixRename {
            from: fields.string()?,
            to: fields.string()?,
        },
        b"hardlink@openssh.com" => Request::Hardlink {
            from: fields.string()?,
            to: fields.string()?,
        },
        b"fsync@openssh.com" => Request::Fsync(fields.string()?),
        OPEN_AS => Request::OpenAs {
            handle: fields.string()?,
            path: fields.string()?,
            flags: fields.number()?,
            attributes: fields.attributes()?,
        },
        RELEASE => Request::Release(fields.string()?),
        b"statvfs@openssh.com" => Request::Statvfs(fields.string()?),
        b"fstatvfs@openssh.com" => Request::Fstatvfs(fields.string()?),
        b"lsetstat@openssh.com" => Request::Lsetstat(fields.string()?, fields.attributes()?),
        b"expand-path@openssh.com" => Request::ExpandPath(fields.string()?),
        b"home-directory" => Request::HomeDirectory(fields.string()?),
        b"copy-data" => Request::CopyData {
            from: fields.string()?,
            offset: fields.long()?,
            length: fields.long()?,
            to: fields.string()?,
            to_offset: fields.long()?,
        },
        b"users-groups-by-id@openssh.com" => Request::UsersGroupsById {
            users: fields.string()?,
            groups: fields.string()?,
        },
        _ => return Err(Unclear::Unknown),
    })
}

/// Attributes of a file, section 5: what of them is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// In bytes.
    pub size: Option<u64>,
    /// The numbers of its user and its group.
    pub owner: Option<(u32, u32)>,
    /// Its mode, with the bits of its type.
    pub permissions: Option<u32>,
    /// When it was read and changed last, in seconds since 1970.
    pub times: Option<(u32, u32)>,
    /// Whether a file that is made goes with the session.
    pub temporary: bool,
}

const HAS_SIZE: u32 = 1;
const HAS_OWNER: u32 = 2;
const HAS_PERMISSIONS: u32 = 4;
const HAS_TIMES: u32 = 8;
const HAS_EXTENDED: u32 = 1 << 31;

/// The fields of a packet.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Unclear> {
        let (now, later) = self.0.split_first_chunk().ok_or(Unclear::Malformed)?;
        self.0 = later;
        Ok(*now)
    }

    fn byte(&mut self) -> Result<u8, Unclear> {
        self.array().map(u8::from_be_bytes)
    }

    fn number(&mut self) -> Result<u32, Unclear> {
        self.array().map(u32::from_be_bytes)
    }

    fn long(&mut self) -> Result<u64, Unclear> {
        self.array().map(u64::from_be_bytes)
    }

    fn string(&mut self) -> Result<&'a [u8], Unclear> {
        // 32 bits fit.
        let length = self.number()? as usize;
        let (now, later) = self.0.split_at_checked(length).ok_or(Unclear::Malformed)?;
        self.0 = later;
        Ok(now)
    }

    fn attributes(&mut self) -> Result<Attributes, Unclear> {
        let has = self.number()?;
        let mut attributes = Attributes::default();
        if has & HAS_SIZE != 0 {
            attributes.size = Some(self.long()?);
        }
        if has & HAS_OWNER != 0 {
            attributes.owner = Some((self.number()?, self.number()?));
        }
        if has & HAS_PERMISSIONS != 0 {
            attributes.permissions = Some(self.number()?);
        }
        if has & HAS_TIMES != 0 {
            attributes.times = Some((self.number()?, self.number()?));
        }
        if has & HAS_EXTENDED != 0 {
            // Each of them takes eight bytes at least, so that the packet bounds their number.
            for _ in 0..self.number()? {
                attributes.temporary |= self.string()? == TEMPORARY;
                self.string()?;
            }
        }
        Ok(attributes)
    }
}

/// How a request went, section 7.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// For programs.
    pub code: Code,
    /// For people: English.
    pub text: Cow<'static, str>,
}

/// The codes of version 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[expect(missing_docs, reason = "the draft's own names")]
pub enum Code {
    Ok = 0,
    Eof = 1,
    NoSuchFile = 2,
    PermissionDenied = 3,
    Failure = 4,
    BadMessage = 5,
    OpUnsupported = 8,
}

/// Answers, one behind the other, as they go to the client.
#[derive(Debug, Default)]
pub struct Answers {
    bytes: Vec<u8>,
}

impl Answers {
    /// What there is to send.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// All was sent.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// The answer to `Init`.
    pub fn version(&mut self) {
        let start = self.begin(kind::VERSION, VERSION);
        for (name, version) in EXTENSIONS {
            self.string(name);
            self.string(version);
        }
        self.end(start);
    }

    /// How a request went.
    pub fn status(&mut self, id: u32, status: &Status) {
        let start = self.begin(kind::STATUS, id);
        self.number(status.code as u32);
        self.string(status.text.as_bytes());
        self.string(b"en");
        self.end(start);
    }

    /// A file or a folder is open.
    pub fn handle(&mut self, id: u32, handle: &[u8]) {
        let start = self.begin(kind::HANDLE, id);
        self.string(handle);
        self.end(start);
    }

    /// What `read` appends; if that is nothing, or fails, there is no answer.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn data<E>(
        &mut self,
        id: u32,
        read: impl FnOnce(&mut Vec<u8>) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let start = self.begin(kind::DATA, id);
        let at = self.bytes.len();
        self.number(0);
        match read(&mut self.bytes) {
            Ok(length) => {
                self.set_number(at, length);
                self.end(start);
                Ok(length)
            }
            Err(error) => {
                self.bytes.truncate(start);
                Err(error)
            }
        }
    }

    /// A file's attributes.
    pub fn attributes(&mut self, id: u32, attributes: &Attributes) {
        let start = self.begin(kind::ATTRS, id);
        self.fields_of(attributes);
        self.end(start);
    }

    /// Names, which `list` says one by one; how many there were. None, and there is no answer.
    ///
    /// # Errors
    /// Those of `list`.
    pub fn names<E>(
        &mut self,
        id: u32,
        list: impl FnOnce(&mut Names<'_>) -> Result<(), E>,
    ) -> Result<u32, E> {
        let start = self.begin(kind::NAME, id);
        let at = self.bytes.len();
        self.number(0);
        let mut names = Names {
            answers: self,
            count: 0,
        };
        let listed = list(&mut names);
        let count = names.count;
        match listed {
            Ok(()) if count > 0 => {
                self.set_number(at, count as usize);
                self.end(start);
                Ok(count)
            }
            other => {
                self.bytes.truncate(start);
                other.map(|()| 0)
            }
        }
    }

    /// The answer to an extended request: numbers.
    pub fn numbers(&mut self, id: u32, numbers: &[u64]) {
        let start = self.begin(kind::EXTENDED_REPLY, id);
        for number in numbers {
            self.bytes.extend_from_slice(&number.to_be_bytes());
        }
        self.end(start);
    }

    /// The answer to an extended request: lists of names, each as one string.
    pub fn lists(&mut self, id: u32, lists: [&[String]; 2]) {
        let start = self.begin(kind::EXTENDED_REPLY, id);
        for list in lists {
            let at = self.bytes.len();
            self.number(0);
            for name in list {
                self.string(name.as_bytes());
            }
            self.set_number(at, self.bytes.len() - at - 4);
        }
        self.end(start);
    }

    fn begin(&mut self, kind: u8, id: u32) -> usize {
        let start = self.bytes.len();
        self.number(0);
        self.bytes.push(kind);
        self.number(id);
        start
    }

    fn end(&mut self, start: usize) {
        self.set_number(start, self.bytes.len() - start - 4);
    }

    fn number(&mut self, number: u32) {
        self.bytes.extend_from_slice(&number.to_be_bytes());
    }

    /// All that is counted here is smaller than a packet.
    fn set_number(&mut self, at: usize, number: usize) {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        if let Some(to) = self.bytes.get_mut(at..at + 4) {
            to.copy_from_slice(&number.to_be_bytes());
        }
    }

    fn string(&mut self, string: &[u8]) {
        let at = self.bytes.len();
        self.number(0);
        self.bytes.extend_from_slice(string);
        self.set_number(at, string.len());
    }

    fn fields_of(&mut self, attributes: &Attributes) {
        let Attributes {
            size,
            owner,
            permissions,
            times,
            // Asked for, and never told.
            temporary: _,
        } = attributes;
        let flag = |is_given, flag| if is_given { flag } else { 0 };
        self.number(
            flag(size.is_some(), HAS_SIZE)
                | flag(owner.is_some(), HAS_OWNER)
                | flag(permissions.is_some(), HAS_PERMISSIONS)
                | flag(times.is_some(), HAS_TIMES),
        );
        if let Some(size) = size {
            self.bytes.extend_from_slice(&size.to_be_bytes());
        }
        if let Some((user, group)) = owner {
            self.number(*user);
            self.number(*group);
        }
        if let Some(permissions) = permissions {
            self.number(*permissions);
        }
        if let Some((read, changed)) = times {
            self.number(*read);
            self.number(*changed);
        }
    }
}

/// The names of one answer.
#[derive(Debug)]
pub struct Names<'a> {
    answers: &'a mut Answers,
    count: u32,
}

impl Names<'_> {
    /// Whether none was said yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// One more: its name, a line about it as `ls -l` has it, its attributes.
    pub fn push(&mut self, name: &[u8], line: &[u8], attributes: &Attributes) {
        self.answers.string(name);
        self.answers.string(line);
        self.answers.fields_of(attributes);
        self.count += 1;
    }
}

#[cfg(test)]
// By its path, because the fuzz target takes this file by its own.
#[path = "packet/tests.rs"]
mod tests;
