//! The spool's folder.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use embedded_io::ErrorKind;
use holdfast_protocol::recording::medium::{Entry, FileName, Medium, NO_SPACE, READ_ONLY};
use rustix::fs::{FileType, FlockOperation, fstatvfs, lstat};
use thiserror::Error;

use crate::state;

/// Why a folder can't be the spool.
#[derive(Debug, Error)]
pub enum FolderError {
    /// The operating system refused.
    #[error("the spool {} cannot be used: {source}", path.display())]
    Io {
        /// Which folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Another agent writes into it.
    #[error("another edge-agent uses the spool {}", .0.display())]
    Locked(PathBuf),
}

/// An open folder of segments. While it lives, no other agent writes into it.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    dir: File,
    /// Names were made since the folder itself was synced.
    new_names: bool,
}

impl Folder {
    /// Opens the folder, and makes it, for its owner alone, if it is missing.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let failed = |source| FolderError::Io {
            path: path.to_owned(),
            source,
        };
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(path).map_err(failed)?;
        let dir = File::open(path).map_err(failed)?;
        match rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(FolderError::Locked(path.to_owned()));
            }
            Err(error) => return Err(failed(error.into())),
        }
        Ok(Self {
            path: path.to_owned(),
            dir,
            new_names: false,
        })
    }

    /// Whether it lies in memory, so that a power cut takes all of it.
    #[must_use]
    pub fn is_volatile(&self) -> bool {
        state::is_in_memory(&self.dir)
    }

    /// Size of its file system in bytes; `None` if the kernel can't tell.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        let stat = fstatvfs(&self.dir).ok()?;
        Some(stat.f_blocks.saturating_mul(stat.f_frsize))
    }

    fn file(&self, name: FileName) -> PathBuf {
        self.path.join(name.to_string())
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
        OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(self.file(name))?;
        self.new_names = true;
        Ok(())
    }

    fn append(&mut self, name: FileName, at: u64, bytes: &[u8]) -> Result<(), MediumError> {
        let file = OpenOptions::new().write(true).open(self.file(name))?;
        let length = file.metadata()?.len();
        if length < at {
            // A hole would be read as zeros: somebody cut the file.
            return Err(io::Error::from(io::ErrorKind::InvalidData).into());
        }
        if length > at {
            file.set_len(at)?;
        }
        Ok(file.write_all_at(bytes, at)?)
    }

    fn sync(&mut self, name: FileName) -> Result<(), MediumError> {
        File::open(self.file(name))?.sync_data()?;
        if self.new_names {
            self.sync_names()?;
        }
        Ok(())
    }

    fn rename(&mut self, from: FileName, to: FileName) -> Result<(), MediumError> {
        fs::rename(self.file(from), self.file(to))?;
        Ok(self.sync_names()?)
    }

    fn read(&mut self, name: FileName, at: u64, to: &mut [u8]) -> Result<usize, MediumError> {
        let file = File::open(self.file(name))?;
        loop {
            match file.read_at(to, at) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return Ok(read?),
            }
        }
    }

    fn remove(&mut self, name: FileName) -> Result<(), MediumError> {
        fs::remove_file(self.file(name))?;
        Ok(self.sync_names()?)
    }

    fn list(&mut self) -> Result<Vec<Entry>, MediumError> {
        let mut entries = Vec::new();
        for found in fs::read_dir(&self.path)? {
            let found = found?;
            let name = found.file_name().to_str().and_then(FileName::parse);
            // Not the standard library's: where pointers have 32 bits, its times end in 2038.
            let (Some(name), Ok(stat)) = (name, lstat(found.path())) else {
                continue;
            };
            if FileType::from_raw_mode(stat.st_mode).is_file() {
                entries.push(Entry {
                    name,
                    length: u64::try_from(stat.st_size).unwrap_or_default(),
                    modified: stat.st_mtime,
                });
            }
        }
        Ok(entries)
    }

    fn free(&mut self) -> Result<u64, MediumError> {
        let stat = fstatvfs(&self.dir).map_err(io::Error::from)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// What the system said, as a medium says it.
#[derive(Debug)]
pub struct MediumError(io::Error);

impl From<io::Error> for MediumError {
    fn from(error: io::Error) -> Self {
        Self(error)
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
}
