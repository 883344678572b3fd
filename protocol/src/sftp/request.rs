//! The packets of a client, and the requests in them.

use thiserror::Error;

use super::attributes::Attributes;
use super::kind::{self, OPEN_AS, RELEASE};
use super::{MAX_PACKET, SftpFields};

/// A fault of a stream: nothing behind it can be understood any more.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Broken {
    /// A length over [`MAX_PACKET`].
    #[error("a packet has {0} bytes; the maximum is {MAX_PACKET}")]
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
pub enum ClientPacket<'a> {
    /// The first one. It has no number.
    Init {
        /// The client's version.
        version: u32,
    },
    /// All others.
    Request {
        /// The number of the answer.
        id: u32,
        /// The request, or why it is unclear.
        request: Result<SftpRequest<'a>, Unclear>,
    },
}

/// The reason why a request has no meaning. It is answered, and the next one read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unclear {
    /// Fields are missing, or longer than the packet.
    Malformed,
    /// Nothing that is spoken here.
    Unknown,
}

/// A request of a client. Paths and handles are its bytes as they came.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is a packet of the draft, field by field")]
pub enum SftpRequest<'a> {
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

/// Reads a packet that [`next_packet`] gave.
///
/// # Errors
/// [`Broken::TooShort`].
pub fn decode(packet: &[u8]) -> Result<ClientPacket<'_>, Broken> {
    let short = Broken::TooShort(packet.len());
    let mut fields = SftpFields::of(packet);
    let kind = fields.byte().ok_or(short)?;
    let id = fields.number().ok_or(short)?;
    Ok(match kind {
        kind::INIT => ClientPacket::Init { version: id },
        _ => ClientPacket::Request {
            id,
            request: request(kind, &mut Required(fields)),
        },
    })
}

fn request<'a>(kind: u8, fields: &mut Required<'a>) -> Result<SftpRequest<'a>, Unclear> {
    Ok(match kind {
        kind::OPEN => SftpRequest::Open {
            path: fields.string()?,
            flags: fields.number()?,
            attributes: fields.attributes()?,
        },
        kind::CLOSE => SftpRequest::Close(fields.string()?),
        kind::READ => SftpRequest::Read {
            handle: fields.string()?,
            offset: fields.long()?,
            length: fields.number()?,
        },
        kind::WRITE => SftpRequest::Write {
            handle: fields.string()?,
            offset: fields.long()?,
            data: fields.string()?,
        },
        kind::LSTAT => SftpRequest::Lstat(fields.string()?),
        kind::FSTAT => SftpRequest::Fstat(fields.string()?),
        kind::SETSTAT => SftpRequest::Setstat(fields.string()?, fields.attributes()?),
        kind::FSETSTAT => SftpRequest::Fsetstat(fields.string()?, fields.attributes()?),
        kind::OPENDIR => SftpRequest::Opendir(fields.string()?),
        kind::READDIR => SftpRequest::Readdir(fields.string()?),
        kind::REMOVE => SftpRequest::Remove(fields.string()?),
        kind::MKDIR => SftpRequest::Mkdir(fields.string()?, fields.attributes()?),
        kind::RMDIR => SftpRequest::Rmdir(fields.string()?),
        kind::REALPATH => SftpRequest::Realpath(fields.string()?),
        kind::STAT => SftpRequest::Stat(fields.string()?),
        kind::RENAME => SftpRequest::Rename {
            from: fields.string()?,
            to: fields.string()?,
        },
        kind::READLINK => SftpRequest::Readlink(fields.string()?),
        kind::SYMLINK => SftpRequest::Symlink {
            target: fields.string()?,
            link: fields.string()?,
        },
        kind::EXTENDED => extended(fields.string()?, fields)?,
        _ => return Err(Unclear::Unknown),
    })
}

fn extended<'a>(name: &[u8], fields: &mut Required<'a>) -> Result<SftpRequest<'a>, Unclear> {
    Ok(match name {
        kind::LIMITS => SftpRequest::Limits,
        kind::POSIX_RENAME => SftpRequest::PosixRename {
            from: fields.string()?,
            to: fields.string()?,
        },
        kind::HARDLINK => SftpRequest::Hardlink {
            from: fields.string()?,
            to: fields.string()?,
        },
        kind::FSYNC => SftpRequest::Fsync(fields.string()?),
        OPEN_AS => SftpRequest::OpenAs {
            handle: fields.string()?,
            path: fields.string()?,
            flags: fields.number()?,
            attributes: fields.attributes()?,
        },
        RELEASE => SftpRequest::Release(fields.string()?),
        kind::STATVFS => SftpRequest::Statvfs(fields.string()?),
        kind::FSTATVFS => SftpRequest::Fstatvfs(fields.string()?),
        kind::LSETSTAT => SftpRequest::Lsetstat(fields.string()?, fields.attributes()?),
        kind::EXPAND_PATH => SftpRequest::ExpandPath(fields.string()?),
        kind::HOME_DIRECTORY => SftpRequest::HomeDirectory(fields.string()?),
        kind::COPY_DATA => SftpRequest::CopyData {
            from: fields.string()?,
            offset: fields.long()?,
            length: fields.long()?,
            to: fields.string()?,
            to_offset: fields.long()?,
        },
        kind::USERS_GROUPS_BY_ID => SftpRequest::UsersGroupsById {
            users: fields.string()?,
            groups: fields.string()?,
        },
        _ => return Err(Unclear::Unknown),
    })
}

/// The fields of a request, each of which must be there.
struct Required<'a>(SftpFields<'a>);

impl<'a> Required<'a> {
    fn number(&mut self) -> Result<u32, Unclear> {
        self.0.number().ok_or(Unclear::Malformed)
    }

    fn long(&mut self) -> Result<u64, Unclear> {
        self.0.long().ok_or(Unclear::Malformed)
    }

    fn string(&mut self) -> Result<&'a [u8], Unclear> {
        self.0.string().ok_or(Unclear::Malformed)
    }

    fn attributes(&mut self) -> Result<Attributes, Unclear> {
        Attributes::take(&mut self.0).ok_or(Unclear::Malformed)
    }
}
