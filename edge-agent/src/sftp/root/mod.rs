//! Resolves paths: in the whole file system, or in one folder that is shown as all of it.
//!
//! Within a root the kernel itself holds every step inside (`openat2` with `RESOLVE_IN_ROOT`, Linux 5.6):
//! `..` stops at the root, absolute links begin at it, and a folder that is moved during the walk makes the
//! kernel refuse. What an operation then touches is a descriptor, or one name in a folder that is held open:
//! nothing is looked up twice.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use holdfast_protocol::escape::Escaped;
use holdfast_protocol::limits::MAX_SFTP_PATH;
use holdfast_protocol::sftp::Code;
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, ResolveFlags, Stat, openat, openat2, readlinkat, statat,
};
use rustix::io::Errno;
use thiserror::Error;

use super::status::SftpStatus;
use crate::sftp::limits::SFTP_ROOT_ATTEMPTS;

/// The reason why there is no root to serve.
#[derive(Debug, Error)]
pub enum RootError {
    /// It can't be opened.
    #[error("the root {} can't be opened: {error}", Escaped(&path.to_string_lossy()))]
    Unreadable {
        /// As it was given.
        path: PathBuf,
        /// The kernel's reason.
        error: Errno,
    },
    /// Something on the way to it is a link.
    #[error(
        "the root {} is not served: a name in it is a symbolic link, which may later point elsewhere; give the folder's own path",
        Escaped(&path.to_string_lossy())
    )]
    Linked {
        /// As it was given.
        path: PathBuf,
    },
    /// The kernel is too old, or a filter forbids the call.
    #[error(
        "this kernel can't hold a session in a root (openat2, Linux 5.6): leave out --root, or update it"
    )]
    NoGuard,
    /// Descriptors can't be named.
    #[error("a root needs /proc: mount it")]
    NoProc,
}

/// A path that the kernel can be asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct SftpPath<'a>(&'a [u8]);

impl<'a> SftpPath<'a> {
    /// Checks what a client sent.
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, SftpStatus> {
        if bytes.contains(&0) {
            return Err(SftpStatus::new(Code::Failure, "the path holds a NUL byte"));
        }
        if bytes.len() > MAX_SFTP_PATH {
            return Err(Errno::NAMETOOLONG.into());
        }
        Ok(Self(bytes))
    }

    /// Returns the path as it came.
    pub(super) fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// Returns the folder, and the last name in it. Where that is no name (`.`, `..`, `/`), all of it is the folder
    /// and `.` the name, with which nothing can be removed, replaced or made.
    fn split(self) -> (&'a [u8], &'a [u8]) {
        let end = self.0.iter().rposition(|byte| *byte != b'/');
        let Some(end) = end else {
            return (b"/", b".");
        };
        let path = self.0.get(..=end).unwrap_or(self.0);
        let (folder, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => path.split_at(slash + 1),
            None => (&b"."[..], path),
        };
        match name {
            b"." | b".." => (path, b"."),
            _ => (folder, name),
        }
    }
}

/// The folder that paths are relative to, and the bound that they may not leave.
#[derive(Debug)]
pub(super) enum SftpTree {
    /// The file system; relative paths begin at the working directory.
    Whole,
    /// A folder, where all paths begin.
    Under(OwnedFd),
}

/// Something that system calls of the `*at` kind can be pointed at.
#[derive(Debug)]
pub(super) enum SftpLocation<'a> {
    /// A path of the whole file system.
    At(&'a [u8]),
    /// One name in a folder.
    In(OwnedFd, &'a [u8]),
    /// An open file, by the name that `/proc` has for it: the same thing until it is closed.
    Open {
        /// Closed, its number could come to mean something else.
        _held: OwnedFd,
        /// Of the descriptor.
        name: String,
    },
}

impl SftpLocation<'_> {
    /// Creates the name of a descriptor.
    pub(super) fn of(descriptor: OwnedFd) -> Self {
        let name = name_of(&descriptor);
        Self::Open {
            _held: descriptor,
            name,
        }
    }

    pub(super) fn folder(&self) -> BorrowedFd<'_> {
        match self {
            Self::At(_) | Self::Open { .. } => CWD,
            Self::In(folder, _) => folder.as_fd(),
        }
    }

    pub(super) fn name(&self) -> &[u8] {
        match self {
            Self::At(name) | Self::In(_, name) => name,
            Self::Open { name, .. } => name.as_bytes(),
        }
    }

    /// Returns its attributes.
    pub(super) fn stat(&self, flags: AtFlags) -> Result<Stat, Errno> {
        statat(self.folder(), self.name(), flags)
    }
}

impl SftpTree {
    /// Opens the folder `path` as the root. No name in it may be a link: a user who can change one could give
    /// the root another place.
    ///
    /// # Errors
    /// [`RootError`]: without a guard there is no service.
    pub(super) fn under(path: &Path) -> Result<Self, RootError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let guard = ResolveFlags::NO_SYMLINKS;
        let root = openat2(CWD, path, flags, Mode::empty(), guard);
        let path = || path.to_owned();
        let root = root.map_err(|error| match error {
            Errno::NOSYS | Errno::PERM | Errno::INVAL => RootError::NoGuard,
            Errno::LOOP => RootError::Linked { path: path() },
            error => RootError::Unreadable {
                path: path(),
                error,
            },
        })?;
        if readlinkat(CWD, name_of(&root), Vec::new()).is_err() {
            return Err(RootError::NoProc);
        }
        match open_in(&root, b"/", flags, Mode::empty()) {
            Ok(_) => Ok(Self::Under(root)),
            Err(Errno::NOSYS | Errno::PERM | Errno::INVAL) => Err(RootError::NoGuard),
            Err(error) => Err(RootError::Unreadable {
                path: path(),
                error,
            }),
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        matches!(self, Self::Whole)
    }

    /// Opens what `path` leads to.
    pub(super) fn open(
        &self,
        path: SftpPath<'_>,
        flags: OFlags,
        mode: Mode,
    ) -> Result<OwnedFd, Errno> {
        self.open_bytes(path.0, flags | OFlags::CLOEXEC, mode)
    }

    /// Returns the name itself, which may be a link or nothing yet.
    pub(super) fn entry<'a>(&self, path: SftpPath<'a>) -> Result<SftpLocation<'a>, Errno> {
        let Self::Under(root) = self else {
            return Ok(SftpLocation::At(path.0));
        };
        if path.0.is_empty() {
            return Err(Errno::NOENT);
        }
        let (folder, name) = path.split();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = open_in(root, folder, flags, Mode::empty())?;
        Ok(SftpLocation::In(folder, name))
    }

    /// Returns what the path leads to, links followed.
    pub(super) fn target<'a>(&self, path: SftpPath<'a>) -> Result<SftpLocation<'a>, Errno> {
        let Self::Under(root) = self else {
            return self.entry(path);
        };
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        Ok(SftpLocation::of(open_in(
            root,
            path.0,
            flags,
            Mode::empty(),
        )?))
    }

    /// Returns the absolute path of what `path` leads to, as a client may use it; the last name of it need not
    /// exist. Empty means where paths begin.
    pub(super) fn real(&self, path: SftpPath<'_>) -> Result<Vec<u8>, Errno> {
        let path = match path.0 {
            b"" => SftpPath(b"."),
            _ => path,
        };
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        match self.open_bytes(path.0, flags, Mode::empty()) {
            Ok(found) => self.path_of(&found),
            Err(Errno::NOENT) => {
                let (folder, name) = path.split();
                let flags = flags | OFlags::DIRECTORY;
                let folder = self.open_bytes(folder, flags, Mode::empty())?;
                let mut real = self.path_of(&folder)?;
                if real != b"/" {
                    real.push(b'/');
                }
                real.extend_from_slice(name);
                Ok(real)
            }
            Err(error) => Err(error),
        }
    }

    fn open_bytes(&self, path: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        match self {
            Self::Whole => openat(CWD, path, flags, mode),
            Self::Under(root) => open_in(root, path, flags, mode),
        }
    }

    fn path_of(&self, descriptor: &OwnedFd) -> Result<Vec<u8>, Errno> {
        let path = readlinkat(CWD, name_of(descriptor), Vec::new())?.into_bytes();
        let Self::Under(root) = self else {
            return Ok(path);
        };
        let root = readlinkat(CWD, name_of(root), Vec::new())?.into_bytes();
        let inside = match root.as_slice() {
            b"/" => Some(path.as_slice()),
            root => path.strip_prefix(root),
        };
        match inside {
            Some(b"") => Ok(b"/".to_vec()),
            Some(inside @ [b'/', ..]) => Ok(inside.to_vec()),
            // It was moved out in this moment.
            _ => Err(Errno::NOENT),
        }
    }
}

/// Opens a path within a root; there is no other way into one.
fn open_in(root: &OwnedFd, path: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let guard = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    // The kernel takes no mode where nothing is made.
    let mode = if flags.contains(OFlags::CREATE) {
        mode
    } else {
        Mode::empty()
    };
    for _ in 1..SFTP_ROOT_ATTEMPTS {
        match openat2(root, path, flags, mode, guard) {
            // Something was moved while the kernel walked, so that it can't tell where `..` leads.
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
    openat2(root, path, flags, mode, guard)
}

/// Returns a link that leads to an open descriptor, and to nothing else.
pub(super) fn name_of(descriptor: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", descriptor.as_raw_fd())
}

#[cfg(test)]
mod tests;
