//! The contents of files: opened, read, written, copied.

use std::os::fd::OwnedFd;

use holdfast_protocol::sftp::{Attributes, Code, MAX_DATA, MAX_PACKET};
use rustix::fs::{Mode, OFlags, copy_file_range, fstat, fstatvfs, fsync};
use rustix::io::{Errno, pread, pwrite};

use super::handles::Handle;
use super::root::SftpPath;
use super::serve::{FileServer, OperationStep};
use super::status::SftpStatus;
use crate::sftp::limits::{MAX_SFTP_HANDLES, SFTP_COPY};

// The flags of `Open`, section 6.3.
const READ: u32 = 0x01;
const WRITE: u32 = 0x02;
const APPEND: u32 = 0x04;
const CREATE: u32 = 0x08;
const TRUNCATE: u32 = 0x10;
const EXCLUSIVE: u32 = 0x20;
/// The file was not there before.
const NEW: u32 = CREATE | EXCLUSIVE;

/// A FIFO without a peer must not hold up the other requests, nor a terminal become the session's.
pub(super) const GENTLE: OFlags = OFlags::NONBLOCK.union(OFlags::NOCTTY);

/// The mode of a new file where the client gives none, before the umask.
const FILE_MODE: u32 = 0o666;

impl FileServer {
    pub(super) fn open(
        &mut self,
        id: u32,
        path: &[u8],
        flags: u32,
        attributes: &Attributes,
    ) -> Result<OperationStep, SftpStatus> {
        let file = self.open_file(path, flags, attributes)?;
        let handle = self.handles.insert(Handle::File(file));
        self.answers.handle(id, &handle);
        Ok(OperationStep::Answered)
    }

    /// Serves `open-as@holdfast`; its handle is claimed.
    pub(super) fn open_as(
        &mut self,
        id: u32,
        handle: &[u8],
        path: &[u8],
        flags: u32,
        attributes: &Attributes,
    ) -> Result<OperationStep, SftpStatus> {
        let file = self.open_file(path, flags, attributes)?;
        self.handles.insert_as(handle, Handle::File(file));
        self.answers.handle(id, handle);
        Ok(OperationStep::Answered)
    }

    fn open_file(
        &mut self,
        path: &[u8],
        flags: u32,
        attributes: &Attributes,
    ) -> Result<OwnedFd, SftpStatus> {
        let path = SftpPath::new(path)?;
        self.check_room()?;
        let temporary = attributes.temporary && flags & NEW == NEW;
        if temporary {
            self.temporary.expect_one()?;
        }
        let mode = mode(attributes.permissions.unwrap_or(FILE_MODE));
        let file = self.tree.open(path, open_flags(flags) | GENTLE, mode)?;
        if temporary {
            self.temporary.add(path, &file)?;
        }
        Ok(file)
    }

    pub(super) fn check_room(&self) -> Result<(), SftpStatus> {
        if self.handles.have_room() {
            Ok(())
        } else {
            Err(SftpStatus::new(Code::Failure, "Too many open files"))
        }
    }

    pub(super) fn close(&mut self, handle: &[u8]) -> Result<OperationStep, SftpStatus> {
        // As the system calls it: so does OpenSSH.
        self.handles.remove(handle).ok_or(Errno::BADF)?;
        Ok(OperationStep::Well)
    }

    pub(super) fn read(
        &mut self,
        id: u32,
        handle: &[u8],
        offset: u64,
        length: u32,
    ) -> Result<OperationStep, SftpStatus> {
        let file = self.handles.file(handle).ok_or(SftpStatus::NO_HANDLE)?;
        // 32 bits fit.
        let length = length.min(MAX_DATA) as usize;
        self.answers.data(id, |bytes| {
            let start = bytes.len();
            bytes.resize(start + length, 0);
            let room = bytes.get_mut(start..).unwrap_or_default();
            let read = retried(|| pread(file, &mut *room, offset)).map_err(SftpStatus::from)?;
            bytes.truncate(start + read);
            // A read of nothing is odd, but it has not met the end.
            if read == 0 && length > 0 {
                return Err(SftpStatus::EOF);
            }
            Ok(read)
        })?;
        Ok(OperationStep::Answered)
    }

    pub(super) fn write(
        &mut self,
        handle: &[u8],
        offset: u64,
        data: &[u8],
    ) -> Result<OperationStep, SftpStatus> {
        let file = self.handles.file(handle).ok_or(SftpStatus::NO_HANDLE)?;
        write_all(file, data, offset)?;
        Ok(OperationStep::Well)
    }

    pub(super) fn fsync(&mut self, handle: &[u8]) -> Result<OperationStep, SftpStatus> {
        let open = self.handles.get(handle).ok_or(SftpStatus::NO_HANDLE)?;
        fsync(open.descriptor())?;
        Ok(OperationStep::Well)
    }

    /// Serves `release@holdfast`: the file is closed as `Close` would, but its handle stays good.
    pub(super) fn release(&mut self, handle: &[u8]) -> Result<OperationStep, SftpStatus> {
        self.handles.release(handle)?;
        Ok(OperationStep::Well)
    }

    pub(super) fn limits(&mut self, id: u32) -> Result<OperationStep, SftpStatus> {
        let data = u64::from(MAX_DATA);
        let handles = MAX_SFTP_HANDLES as u64;
        self.answers
            .numbers(id, &[MAX_PACKET as u64, data, data, handles]);
        Ok(OperationStep::Answered)
    }

    pub(super) fn statvfs(&mut self, id: u32, path: &[u8]) -> Result<OperationStep, SftpStatus> {
        let path = SftpPath::new(path)?;
        let found = self.tree.open(path, OFlags::PATH, Mode::empty())?;
        self.tell_space(id, &found)
    }

    pub(super) fn fstatvfs(&mut self, id: u32, handle: &[u8]) -> Result<OperationStep, SftpStatus> {
        let open = self.handles.get(handle).ok_or(SftpStatus::NO_HANDLE)?;
        let space = fstatvfs(open.descriptor())?;
        self.answers.numbers(id, &space_numbers(&space));
        Ok(OperationStep::Answered)
    }

    fn tell_space(&mut self, id: u32, of: &OwnedFd) -> Result<OperationStep, SftpStatus> {
        self.answers.numbers(id, &space_numbers(&fstatvfs(of)?));
        Ok(OperationStep::Answered)
    }

    /// Serves `copy-data`: from one open file into another, without passing the network.
    pub(super) fn copy_data(
        &mut self,
        (from, mut offset): (&[u8], u64),
        length: u64,
        (to, mut to_offset): (&[u8], u64),
    ) -> Result<OperationStep, SftpStatus> {
        let source = self.handles.file(from).ok_or(SftpStatus::NO_HANDLE)?;
        let target = self.handles.file(to).ok_or(SftpStatus::NO_HANDLE)?;
        // 0 means "to the end".
        let mut remaining = if length == 0 { u64::MAX } else { length };
        if same_file(source, target)? {
            let (low, high) = (offset.min(to_offset), offset.max(to_offset));
            if high - low < remaining {
                return Err(SftpStatus::new(
                    Code::Failure,
                    "the copy overlaps its source",
                ));
            }
        }
        while remaining > 0 {
            let now = usize::try_from(remaining)
                .unwrap_or(SFTP_COPY)
                .min(SFTP_COPY);
            let copied = match retried(|| {
                copy_file_range(source, Some(&mut offset), target, Some(&mut to_offset), now)
            }) {
                // Between file systems, into a file that is open for appending, off `/proc`.
                Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::BADF) => {
                    let copied = copy_by_hand(source, offset, target, to_offset, now)?;
                    offset += copied as u64;
                    to_offset += copied as u64;
                    copied
                }
                other => other?,
            };
            if copied == 0 {
                break;
            }
            remaining -= copied as u64;
        }
        // A copy of a part must be whole, as a write is.
        if length != 0 && remaining > 0 {
            return Err(SftpStatus::EOF);
        }
        Ok(OperationStep::Well)
    }
}

fn space_numbers(space: &rustix::fs::StatVfs) -> [u64; 11] {
    [
        space.f_bsize,
        space.f_frsize,
        space.f_blocks,
        space.f_bfree,
        space.f_bavail,
        space.f_files,
        space.f_ffree,
        space.f_favail,
        space.f_fsid,
        // Of the flags, "read-only" and "no set-user-id" are reported, and have the same values.
        space.f_flag.bits() & 3,
        space.f_namemax,
    ]
}

fn open_flags(flags: u32) -> OFlags {
    let has = |flag| flags & flag != 0;
    let mut open = match (has(READ), has(WRITE)) {
        (true, true) => OFlags::RDWR,
        (false, true) => OFlags::WRONLY,
        (_, false) => OFlags::RDONLY,
    };
    for (flag, with) in [
        (APPEND, OFlags::APPEND),
        (CREATE, OFlags::CREATE),
        (TRUNCATE, OFlags::TRUNC),
        (EXCLUSIVE, OFlags::EXCL),
    ] {
        if has(flag) {
            open |= with;
        }
    }
    open
}

/// Returns the bits that a client may set.
pub(super) fn mode(permissions: u32) -> Mode {
    Mode::from_raw_mode(permissions & 0o7777)
}

fn write_all(file: &OwnedFd, mut data: &[u8], mut offset: u64) -> Result<(), Errno> {
    while !data.is_empty() {
        let written = retried(|| pwrite(file, data, offset))?;
        if written == 0 {
            return Err(Errno::IO);
        }
        data = data.get(written..).unwrap_or_default();
        offset = offset.saturating_add(written as u64);
    }
    Ok(())
}

fn copy_by_hand(
    source: &OwnedFd,
    offset: u64,
    target: &OwnedFd,
    to_offset: u64,
    length: usize,
) -> Result<usize, Errno> {
    let mut buffer = vec![0; length.min(MAX_PACKET)];
    let read = retried(|| pread(source, &mut buffer, offset))?;
    write_all(target, buffer.get(..read).unwrap_or_default(), to_offset)?;
    Ok(read)
}

fn same_file(one: &OwnedFd, other: &OwnedFd) -> Result<bool, Errno> {
    let (one, other) = (fstat(one)?, fstat(other)?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

/// Repeats a call that a signal interrupted.
fn retried<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}
