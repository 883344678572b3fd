//! Writes what a client asks, as bytes: the reverse of [`decode`](super::decode).

use alloc::vec::Vec;

use super::packet::PacketWriter;
use super::request::SftpRequest;
use super::{VERSION, kind};

/// Requests, one behind the other, as they go to the server.
#[derive(Clone, Debug, Default)]
pub struct RequestWriter {
    packets: PacketWriter,
}

impl RequestWriter {
    /// Returns the requests that were written, which are removed.
    pub fn take(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.packets.bytes)
    }

    /// Appends the first packet of a client.
    pub fn init(&mut self) {
        let start = self.packets.begin(kind::INIT, VERSION);
        self.packets.end(start);
    }

    /// Appends a request, which is answered under this number.
    pub fn request(&mut self, id: u32, request: &SftpRequest<'_>) {
        let (kind, extension) = kind_of(request);
        let start = self.packets.begin(kind, id);
        if let Some(name) = extension {
            self.packets.string(name);
        }
        self.fields(request);
        self.packets.end(start);
    }

    fn fields(&mut self, request: &SftpRequest<'_>) {
        let to = &mut self.packets;
        match request {
            SftpRequest::Open {
                path,
                flags,
                attributes,
            } => {
                to.string(path);
                to.number(*flags);
                to.attributes(attributes);
            }
            SftpRequest::OpenAs {
                handle,
                path,
                flags,
                attributes,
            } => {
                to.string(handle);
                to.string(path);
                to.number(*flags);
                to.attributes(attributes);
            }
            SftpRequest::Read {
                handle,
                offset,
                length,
            } => {
                to.string(handle);
                to.long(*offset);
                to.number(*length);
            }
            SftpRequest::Write {
                handle,
                offset,
                data,
            } => {
                to.string(handle);
                to.long(*offset);
                to.string(data);
            }
            SftpRequest::Setstat(name, attributes)
            | SftpRequest::Fsetstat(name, attributes)
            | SftpRequest::Mkdir(name, attributes)
            | SftpRequest::Lsetstat(name, attributes) => {
                to.string(name);
                to.attributes(attributes);
            }
            SftpRequest::Close(name)
            | SftpRequest::Lstat(name)
            | SftpRequest::Fstat(name)
            | SftpRequest::Opendir(name)
            | SftpRequest::Readdir(name)
            | SftpRequest::Remove(name)
            | SftpRequest::Rmdir(name)
            | SftpRequest::Realpath(name)
            | SftpRequest::Stat(name)
            | SftpRequest::Readlink(name)
            | SftpRequest::Fsync(name)
            | SftpRequest::Release(name)
            | SftpRequest::Statvfs(name)
            | SftpRequest::Fstatvfs(name)
            | SftpRequest::ExpandPath(name)
            | SftpRequest::HomeDirectory(name) => to.string(name),
            SftpRequest::Rename { from: a, to: b }
            | SftpRequest::PosixRename { from: a, to: b }
            | SftpRequest::Hardlink { from: a, to: b }
            | SftpRequest::Symlink { target: a, link: b }
            | SftpRequest::UsersGroupsById {
                users: a,
                groups: b,
            } => {
                to.string(a);
                to.string(b);
            }
            SftpRequest::Limits => {}
            SftpRequest::CopyData {
                from,
                offset,
                length,
                to: target,
                to_offset,
            } => {
                to.string(from);
                to.long(*offset);
                to.long(*length);
                to.string(target);
                to.long(*to_offset);
            }
        }
    }
}

impl SftpRequest<'_> {
    /// Returns its packet, which is answered under this number.
    #[must_use]
    pub fn packet(&self, id: u32) -> Vec<u8> {
        let mut requests = RequestWriter::default();
        requests.request(id, self);
        requests.take()
    }
}

/// Returns the kind of a request's packet, and the name of an extended one.
fn kind_of(request: &SftpRequest<'_>) -> (u8, Option<&'static [u8]>) {
    let kind = match request {
        SftpRequest::Open { .. } => kind::OPEN,
        SftpRequest::Close(_) => kind::CLOSE,
        SftpRequest::Read { .. } => kind::READ,
        SftpRequest::Write { .. } => kind::WRITE,
        SftpRequest::Lstat(_) => kind::LSTAT,
        SftpRequest::Fstat(_) => kind::FSTAT,
        SftpRequest::Setstat(..) => kind::SETSTAT,
        SftpRequest::Fsetstat(..) => kind::FSETSTAT,
        SftpRequest::Opendir(_) => kind::OPENDIR,
        SftpRequest::Readdir(_) => kind::READDIR,
        SftpRequest::Remove(_) => kind::REMOVE,
        SftpRequest::Mkdir(..) => kind::MKDIR,
        SftpRequest::Rmdir(_) => kind::RMDIR,
        SftpRequest::Realpath(_) => kind::REALPATH,
        SftpRequest::Stat(_) => kind::STAT,
        SftpRequest::Rename { .. } => kind::RENAME,
        SftpRequest::Readlink(_) => kind::READLINK,
        SftpRequest::Symlink { .. } => kind::SYMLINK,
        SftpRequest::OpenAs { .. } => return extended(kind::OPEN_AS),
        SftpRequest::Release(_) => return extended(kind::RELEASE),
        SftpRequest::Limits => return extended(kind::LIMITS),
        SftpRequest::PosixRename { .. } => return extended(kind::POSIX_RENAME),
        SftpRequest::Hardlink { .. } => return extended(kind::HARDLINK),
        SftpRequest::Fsync(_) => return extended(kind::FSYNC),
        SftpRequest::Statvfs(_) => return extended(kind::STATVFS),
        SftpRequest::Fstatvfs(_) => return extended(kind::FSTATVFS),
        SftpRequest::Lsetstat(..) => return extended(kind::LSETSTAT),
        SftpRequest::ExpandPath(_) => return extended(kind::EXPAND_PATH),
        SftpRequest::HomeDirectory(_) => return extended(kind::HOME_DIRECTORY),
        SftpRequest::CopyData { .. } => return extended(kind::COPY_DATA),
        SftpRequest::UsersGroupsById { .. } => return extended(kind::USERS_GROUPS_BY_ID),
    };
    (kind, None)
}

fn extended(name: &'static [u8]) -> (u8, Option<&'static [u8]>) {
    (kind::EXTENDED, Some(name))
}
