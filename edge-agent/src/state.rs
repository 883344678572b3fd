//! The agent's state folder: who the device is and what it belongs to.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::process::Pid;
use thiserror::Error;

/// `f_type` of the file systems that lie in memory (statfs(2)): tmpfs and ramfs.
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];

/// The largest file of the folder that is read; the roster is the largest of them.
const MAX_FILE: u64 = 64 * 1024;

/// What can be wrong with the state folder or a file in it.
#[derive(Debug, Error)]
pub enum StateError {
    /// The operating system refused.
    #[error("cannot {verb} {}: {source}", path.display())]
    Io {
        /// What was tried.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A file is there but holds something else.
    #[error("{} is damaged ({expected} expected): restore it, or remove the state folder and join again", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// The pinned key cannot be read.
    #[error("{} holds no release key: pin it anew with `edge-agent join --release-key KEY`", .0.display())]
    BadReleaseKey(PathBuf),
    /// Another agent runs on this folder.
    #[error("another edge-agent already runs on {}: stop it first", .0.display())]
    Locked(PathBuf),
}

/// An open state folder.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
}

/// While it lives, no other agent runs on the folder.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

impl StateDir {
    /// Opens the folder and creates it, for its owner alone, if it is missing.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn create_or_open(path: &Path) -> Result<Self, StateError> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder
            .create(path)
            .map_err(|source| io_error("create the folder", path, source))?;
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// Takes the lock of the running agent.
    ///
    /// # Errors
    /// [`StateError::Locked`] if another process holds it.
    pub fn lock(&self) -> Result<StateLock, StateError> {
        let path = self.path.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|source| io_error("open", &path, source))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                // For `lock_holder`, which does without where it cannot be written.
                let _ = file.set_len(0);
                let _ = write!(&file, "{}", std::process::id());
                Ok(StateLock { _file: file })
            }
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StateError::Locked(self.path.clone())),
            Err(error) => Err(io_error("lock", &path, error.into())),
        }
    }

    /// The process that took the lock last.
    #[must_use]
    pub fn lock_holder(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.path.join("lock")).ok()?;
        Pid::from_raw(text.trim().parse().ok()?)
    }

    /// Where a file of the folder stands.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A path to `name` that is short enough for a Unix socket's address (108 bytes) wherever the
    /// folder stands: it goes through this process's own descriptor of the folder, which must be kept
    /// open while the path is used.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn short_path(&self, name: &str) -> Result<(File, PathBuf), StateError> {
        let dir = File::open(&self.path).map_err(|source| io_error("open", &self.path, source))?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name);
        Ok((dir, path))
    }

    /// Reads a file; `None` if there is none.
    ///
    /// # Errors
    /// [`StateError`] if it is there but cannot be read.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StateError> {
        let path = self.file(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(io_error("read", &path, source)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_FILE)
            .read_to_end(&mut bytes)
            .map_err(|source| io_error("read", &path, source))?;
        Ok(Some(bytes))
    }

    /// Writes a file, for its owner alone, so that after a power cut either the old or the new content
    /// is there.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        let path = self.file(name);
        replace(&path, bytes, 0o600).map_err(|source| io_error("write", &path, source))
    }
}

/// Puts a file in the place of another, so that after a power cut one of the two is there, whole: a temporary
/// file beside it, synced, then renamed, then the folder synced. A program that runs can be replaced so, where
/// it could not be written to.
///
/// # Errors
/// The operating system's.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    let temporary = path.with_file_name(name);
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(mode)
        .open(&temporary)?;
    // The umask, and a file that was left there, have had their say by now.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// Whether the open file or folder lies in memory, so that a power cut takes it.
pub(crate) fn is_in_memory(file: &File) -> bool {
    // The kernel's type of `f_type` has another width and sign on each architecture.
    rustix::fs::fstatfs(file).is_ok_and(|stat| {
        let kind = i128::from(stat.f_type) & 0xffff_ffff;
        IN_MEMORY.iter().any(|known| i128::from(*known) == kind)
    })
}

fn io_error(verb: &'static str, path: &Path, source: io::Error) -> StateError {
    StateError::Io {
        verb,
        path: path.to_owned(),
        source,
    }
}
