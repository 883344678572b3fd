//! The spool's folder.

use std::ffi::CStr;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use embedded_io::ErrorKind;
use holdfast_protocol::recording::medium::{FileName, Medium, MediumEntry, NO_SPACE, READ_ONLY};
use rustix::fs::{
    AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, fstatvfs, openat, renameat, statat,
    unlinkat,
};
use rustix::io::Errno;
use thiserror::Error;

use crate::os::folder::{self, FolderFault};
use crate::os::volatile::Persistence;

/// The reason why a folder can't be the spool.
#[derive(Debug, Error)]
pub enum FolderError {
    /// The operating system refused.
    #[error("the spool {} cannot be used: {source}", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// It cannot be opened, or other accounts have a say in it.
    #[error("the spool {0}")]
    Folder(#[from] FolderFault),
    /// Another agent writes into it.
    #[error("another edge-agent uses the spool {}", .0.display())]
    Locked(PathBuf),
}

/// An open folder of segments. While it lives, no other agent writes into it.
#[derive(Debug)]
pub struct Folder {
    dir: File,
    /// Names were made since the folder itself was synced.
    new_names: bool,
}

impl Folder {
    /// Opens the folder, and makes it, for its owner alone, if it is missing. Everything in it is reached from its
    /// descriptor, and no link in it is followed.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let failed = |source| FolderError::Io {
            path: path.to_owned(),
            source,
        };
        let dir = folder::open_private(path)?;
        match rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(FolderError::Locked(path.to_owned()));
            }
            Err(error) => return Err(failed(error.into())),
        }
        Ok(Self {
            dir,
            new_names: false,
        })
    }

    /// Returns whether it lies in memory, so that a power cut takes all of it.
    #[must_use]
    pub fn is_volatile(&self) -> bool {
        Persistence::of(&self.dir) != Persistence::Lasting
    }

    /// Returns the size of its file system in bytes; `None` if the kernel can't tell.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        let stat = fstatvfs(&self.dir).ok()?;
        Some(stat.f_blocks.saturating_mul(stat.f_frsize))
    }

    fn open_file(&self, name: FileName, flags: OFlags) -> Result<File, Errno> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        openat(&self.dir, name.to_string(), flags, mode).map(File::from)
    }

    /// Reads the beginning of a file that is no segment.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn read_note(&self, name: &str, most: u64) -> io::Result<String> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(openat(&self.dir, name, flags, Mode::empty())?);
        let mut text = String::new();
        file.take(most).read_to_string(&mut text)?;
        Ok(text)
    }

    /// Writes such a file: under the name `new` first, which then takes the place of `name`.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn write_note(&self, name: &str, new: &str, bytes: &[u8]) -> io::Result<()> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW;
        let open = || {
            openat(
                &self.dir,
                new,
                flags | OFlags::CLOEXEC,
                Mode::RUSR | Mode::WUSR,
            )
        };
        let made = match open() {
            // Left by a writing that was cut short.
            Err(Errno::EXIST) => {
                unlinkat(&self.dir, new, AtFlags::empty())?;
                open()?
            }
            made => made?,
        };
        let mut file = File::from(made);
        file.write_all(bytes)?;
        file.sync_data()?;
        Ok(renameat(&self.dir, new, &self.dir, name)?)
    }

    fn unlink(&self, name: FileName) -> Result<(), Errno> {
        unlinkat(&self.dir, name.to_string(), AtFlags::empty())
    }

    /// Returns what is there by this name, if it is a file of the spool.
    fn entry(&self, name: &CStr) -> Option<MediumEntry> {
        let parsed = name.to_str().ok().and_then(FileName::parse)?;
        // Not the standard library's: where pointers have 32 bits, its times end in 2038.
        let stat = statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let is_file = FileType::from_raw_mode(stat.st_mode).is_file();
        is_file.then(|| MediumEntry {
            name: parsed,
            length: u64::try_from(stat.st_size).unwrap_or_default(),
            modified: stat.st_mtime,
        })
    }

    fn sync_names(&mut self) -> io::Result<()> {
        self.dir.sync_all()?;
        self.new_names = false;
        Ok(())
    }
}

impl Medium for Folder {
    type Error = MediumError;

    fn create(&mut self, name: FileName) -> Result<(), MediumError> {
        let new = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
        match self.open_file(name, new) {
            // Left by a creation that failed halfway.
            Err(Errno::EXIST) => {
                self.unlink(name)?;
                self.open_file(name, new)?;
            }
            made => drop(made?),
        }
        self.new_names = true;
        Ok(())
    }

    fn append(&mut self, name: FileName, at: u64, bytes: &[u8]) -> Result<(), MediumError> {
        let file = self.open_file(name, OFlags::WRONLY)?;
        let length = file.metadata()?.len();
        if length < at {
            // A hole would be read as zeros: the file was cut short.
            return Err(io::Error::from(io::ErrorKind::InvalidData).into());
        }
        if length > at {
            file.set_len(at)?;
        }
        Ok(file.write_all_at(bytes, at)?)
    }

    fn sync(&mut self, name: FileName) -> Result<(), MediumError> {
        self.open_file(name, OFlags::RDONLY)?.sync_data()?;
        if self.new_names {
            self.sync_names()?;
        }
        Ok(())
    }

    fn rename(&mut self, from: FileName, to: FileName) -> Result<(), MediumError> {
        renameat(&self.dir, from.to_string(), &self.dir, to.to_string())?;
        Ok(self.sync_names()?)
    }

    fn read(&mut self, name: FileName, at: u64, to: &mut [u8]) -> Result<usize, MediumError> {
        let file = self.open_file(name, OFlags::RDONLY)?;
        loop {
            match file.read_at(to, at) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return Ok(read?),
            }
        }
    }

    fn remove(&mut self, name: FileName) -> Result<(), MediumError> {
        self.unlink(name)?;
        Ok(self.sync_names()?)
    }

    fn list(&mut self) -> Result<Vec<MediumEntry>, MediumError> {
        let mut entries = Vec::new();
        for found in Dir::read_from(&self.dir)? {
            entries.extend(self.entry(found?.file_name()));
        }
        Ok(entries)
    }

    fn free(&mut self) -> Result<u64, MediumError> {
        let stat = fstatvfs(&self.dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// An error of the system, as a medium reports it.
#[derive(Debug)]
pub struct MediumError(io::Error);

impl From<io::Error> for MediumError {
    fn from(error: io::Error) -> Self {
        Self(error)
    }
}

impl From<Errno> for MediumError {
    fn from(error: Errno) -> Self {
        Self(error.into())
    }
}

impl fmt::Display for MediumError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for MediumError {}

impl embedded_io::Error for MediumError {
    fn kind(&self) -> ErrorKind {
        match self.0.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => NO_SPACE,
            io::ErrorKind::ReadOnlyFilesystem => READ_ONLY,
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
            io::ErrorKind::InvalidData => ErrorKind::InvalidData,
            _ => ErrorKind::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use embedded_io::Error as _;
    use holdfast_protocol::ids::SessionId;
    use holdfast_protocol::recording::medium::SegmentName;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn name(index: u32) -> FileName {
        FileName::Segment(SegmentName {
            session: SessionId([5; 16]),
            index,
        })
    }

    #[test]
    fn what_a_failed_write_left_is_cut_off_and_a_hole_is_never_made() {
        let temporary = tempfile::tempdir().unwrap();
        let mut folder = Folder::open(&temporary.path().join("a/b")).unwrap();
        folder.create(name(0)).unwrap();
        folder.append(name(0), 0, b"whole torn").unwrap();
        folder.append(name(0), 5, b"!").unwrap();
        folder.sync(name(0)).unwrap();
        let mut buffer = [0; 64];
        let length = folder.read(name(0), 0, &mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"whole!");
        assert_eq!(folder.read(name(0), 6, &mut buffer).unwrap(), 0);
        let hole = folder.append(name(0), 12, b"x").unwrap_err();
        assert_eq!(hole.kind(), ErrorKind::InvalidData);
        assert_eq!(
            folder.append(name(1), 0, b"x").unwrap_err().kind(),
            ErrorKind::NotFound
        );
    }

    #[test]
    fn the_list_has_only_files_of_the_spool() {
        let temporary = tempfile::tempdir().unwrap();
        let mut folder = Folder::open(temporary.path()).unwrap();
        folder.create(name(3)).unwrap();
        folder.append(name(3), 0, b"abc").unwrap();
        fs::write(temporary.path().join("lost+found"), b"x").unwrap();
        fs::create_dir(temporary.path().join(name(4).to_string())).unwrap();
        let entries = folder.list().unwrap();
        let [entry] = entries.as_slice() else {
            panic!("{entries:?}")
        };
        assert_eq!((entry.name, entry.length), (name(3), 3));
        folder.remove(name(3)).unwrap();
        assert_eq!(folder.list().unwrap(), []);
    }

    #[test]
    fn one_agent_writes_into_it() {
        let temporary = tempfile::tempdir().unwrap();
        let _first = Folder::open(temporary.path()).unwrap();
        let second = Folder::open(temporary.path());
        assert!(matches!(second, Err(FolderError::Locked(_))));
    }

    #[test]
    fn a_link_by_a_segments_name_is_not_followed() {
        let temporary = tempfile::tempdir().unwrap();
        let target = temporary.path().join("target");
        fs::write(&target, "precious").unwrap();
        let mut folder = Folder::open(&temporary.path().join("spool")).unwrap();
        let planted = temporary.path().join("spool").join(name(0).to_string());
        symlink(&target, &planted).unwrap();
        assert_eq!(folder.list().unwrap(), []);
        assert!(folder.append(name(0), 0, b"x").is_err());
        assert!(folder.read(name(0), 0, &mut [0; 8]).is_err());
        folder.create(name(0)).unwrap();
        folder.append(name(0), 0, b"sealed").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"precious");
        assert_eq!(fs::read(&planted).unwrap(), b"sealed");
        // What a creation left that failed halfway begins anew.
        folder.create(name(0)).unwrap();
        assert_eq!(fs::read(&planted).unwrap(), b"");
    }

    #[test]
    fn a_folder_that_others_may_write_is_no_spool() {
        let temporary = tempfile::tempdir().unwrap();
        fs::set_permissions(temporary.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        let refused = Folder::open(temporary.path()).unwrap_err().to_string();
        assert!(
            refused.contains("other accounts may write there"),
            "{refused}"
        );
    }
}
