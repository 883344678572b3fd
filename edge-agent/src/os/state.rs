//! The agent's state folder: who the device is and what it belongs to.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread::sleep;

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, fchmod, openat, renameat, unlinkat};
use rustix::io::Errno;
use rustix::process::{Pid, geteuid};
use thiserror::Error;

use crate::os::clock;
use crate::os::folder::{self, FolderFault};
use crate::os::limits::{LOCK_POLL, LOCK_TIMEOUT};

/// The largest file of the folder that is read; the roster is the largest of them.
const MAX_FILE: u64 = 64 * 1024;
/// The file that a running agent holds locked.
const LOCK: &str = "lock";
/// The mark of an open file that was removed (proc(5)).
const DELETED: &str = " (deleted)";

/// A fault of the state folder or of a file in it.
#[derive(Debug, Error)]
pub enum StateDirError {
    /// The operating system refused.
    #[error("cannot {verb} {}: {source}{}", path.display(), remedy(source))]
    Io {
        /// The step that was tried.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The folder cannot be used, or other accounts have a say in it.
    #[error("the state folder {}{}", .0, remedy_of(.0))]
    Folder(#[from] FolderFault),
    /// Root looks at the folder of an agent that runs as an account of its own.
    #[error(
        "the state folder {} belongs to user id {uid}, and the agent of another account is not asked by root: run the \
         same command as that account, as in `sudo -u '#{uid}' edge-agent {command} --state {}`", path.display(), path.display()
    )]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// Its owner.
        uid: u32,
        /// The subcommand that was typed.
        command: &'static str,
    },
    /// A file is there but holds something else.
    #[error("{} is damaged ({expected} expected): restore it, or remove the state folder and join again", path.display())]
    Damaged {
        /// The path.
        path: PathBuf,
        /// The expected content.
        expected: &'static str,
    },
    /// The pinned key cannot be read.
    #[error("{} contains no release key: pin it again with `edge-agent join --release-key KEY`", .0.display())]
    BadReleaseKey(PathBuf),
    /// Another agent runs on this folder.
    #[error("another edge-agent already runs on {}: stop it first", .0.display())]
    Locked(PathBuf),
}

/// An open state folder.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    dir: File,
}

/// While it lives, no other agent runs on the folder.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

impl StateDir {
    /// Opens the folder and creates it, for its owner alone, if it is missing. It is not used if another account may
    /// change it or what leads to it.
    ///
    /// # Errors
    /// [`StateDirError::Folder`].
    pub fn create_or_open(path: &Path) -> Result<Self, StateDirError> {
        Ok(Self {
            path: path.to_owned(),
            dir: folder::open_private(path)?,
        })
    }

    /// Opens the folder for this subcommand, which only looks; `None` if it is not there: it is not made.
    ///
    /// # Errors
    /// [`StateDirError`]: as for [`Self::create_or_open`], or [`StateDirError::Foreign`].
    pub fn look_into(path: &Path, command: &'static str) -> Result<Option<Self>, StateDirError> {
        if !path.try_exists().unwrap_or(true) {
            return Ok(None);
        }
        let owner = path.metadata().ok().map(|meta| meta.uid());
        match owner {
            Some(uid) if uid != 0 && geteuid().is_root() => {
                let path = path.to_owned();
                Err(StateDirError::Foreign { path, uid, command })
            }
            _ => Self::create_or_open(path).map(Some),
        }
    }

    /// Returns the agents that still run although this folder was removed under them and made anew: they hold the lock
    /// of the former one.
    #[must_use]
    pub fn left_behind(&self) -> Vec<Pid> {
        self.holders(&[DELETED])
    }

    /// Returns all agents that run on this folder or on a former one at its place.
    #[must_use]
    pub fn running(&self) -> Vec<Pid> {
        self.holders(&["", DELETED])
    }

    /// Returns the processes that have the lock open by its path with one of these endings.
    fn holders(&self, endings: &[&str]) -> Vec<Pid> {
        let devices = self.devices();
        let Ok(path) = self.path.canonicalize() else {
            return Vec::new();
        };
        let lock = |ending: &&str| {
            let mut lock = path.join(LOCK).into_os_string();
            lock.push(ending);
            PathBuf::from(lock)
        };
        let locks: Vec<PathBuf> = endings.iter().map(lock).collect();
        let holds = |process: &Path| {
            let open = fs::read_dir(process.join("fd")).into_iter().flatten();
            open.flatten().map(|entry| entry.path()).any(|open| {
                fs::read_link(&open).is_ok_and(|file| locks.contains(&file))
                    && self.is_own(&open, &devices)
            })
        };
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        all.filter_map(|entry| {
            let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
            holds(&entry.path()).then_some(pid)
        })
        .collect()
    }

    /// Returns whether an open file with the path of the lock may be one of this folder. A process in another mount
    /// namespace, such as an agent in a container, has the same path for a file of its own.
    fn is_own(&self, open: &Path, devices: &[u64]) -> bool {
        let (Ok(file), Ok(folder)) = (fs::metadata(open), self.dir.metadata()) else {
            return false;
        };
        let is_removed = file.nlink() == 0;
        let is_lock = || {
            let lock = fs::metadata(self.file(LOCK));
            lock.is_ok_and(|lock| (lock.dev(), lock.ino()) == (file.dev(), file.ino()))
        };
        devices.contains(&file.dev()) && file.uid() == folder.uid() && (is_removed || is_lock())
    }

    /// Returns the file systems of the folder and of its files: an overlay may have several.
    fn devices(&self) -> Vec<u64> {
        let files = fs::read_dir(&self.path).into_iter().flatten().flatten();
        let all = files.map(|entry| entry.metadata());
        let all = all.chain([self.dir.metadata()]).flatten();
        all.map(|file| file.dev()).collect()
    }

    /// Takes the lock of the running agent.
    ///
    /// # Errors
    /// [`StateDirError::Locked`] if another process holds it.
    pub fn lock(&self) -> Result<StateLock, StateDirError> {
        let path = self.path.join(LOCK);
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.dir, LOCK, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| io_error("open", &path, error.into()))?;
        let file = File::from(file);
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                // For `lock_holder`, which does without where it cannot be written.
                let _ = file.set_len(0);
                let _ = write!(&file, "{}", std::process::id());
                Ok(StateLock { _file: file })
            }
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StateDirError::Locked(self.path.clone())),
            Err(error) => Err(io_error("lock", &path, error.into())),
        }
    }

    /// Takes the lock of the running agent. If another agent has it, which may be ending, that is waited for; `says` gets
    /// a sentence about it first.
    ///
    /// # Errors
    /// [`StateDirError::Locked`] if another process holds it all the time.
    pub fn lock_or_wait(&self, says: impl FnOnce(&str)) -> Result<StateLock, StateDirError> {
        let deadline = clock::instant() + LOCK_TIMEOUT;
        let mut says = Some(says);
        loop {
            match self.lock() {
                Err(StateDirError::Locked(_)) if clock::instant() < deadline => {}
                done => return done,
            }
            if let Some(says) = says.take() {
                let holder = self.lock_holder().map(Pid::as_raw_pid);
                let holder = holder.map(|pid| format!(" (process {pid})"));
                says(&format!(
                    "another edge-agent{} runs on {}: waiting up to {} s for its end",
                    holder.unwrap_or_default(),
                    self.path.display(),
                    LOCK_TIMEOUT.as_secs()
                ));
            }
            sleep(LOCK_POLL);
        }
    }

    /// Returns the process that took the lock last.
    #[must_use]
    pub fn lock_holder(&self) -> Option<Pid> {
        let text = String::from_utf8(self.read(LOCK).ok()??).ok()?;
        Pid::from_raw(text.trim().parse().ok()?)
    }

    /// Returns the path of a file of the folder.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Returns a path to `name` that is short enough for a Unix socket's address (108 bytes) wherever the
    /// folder is: it goes through this process's own descriptor of the folder, which must be kept
    /// open while the path is used.
    ///
    /// # Errors
    /// [`StateDirError::Io`].
    pub fn short_path(&self, name: &str) -> Result<(File, PathBuf), StateDirError> {
        let dir = self.dir.try_clone();
        let dir = dir.map_err(|source| io_error("open", &self.path, source))?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name);
        Ok((dir, path))
    }

    /// Reads a file; `None` if there is none.
    ///
    /// # Errors
    /// [`StateDirError`] if it is there but cannot be read.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StateDirError> {
        let path = self.file(name);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = match openat(&self.dir, name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(io_error("read", &path, error.into())),
        };
        let mut bytes = Vec::new();
        File::from(file)
            .take(MAX_FILE)
            .read_to_end(&mut bytes)
            .map_err(|source| io_error("read", &path, source))?;
        Ok(Some(bytes))
    }

    /// Writes a file, for its owner alone, so that after a power cut either the old or the new content
    /// is there.
    ///
    /// # Errors
    /// [`StateDirError::Io`].
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StateDirError> {
        replace_in(&self.dir, OsStr::new(name), bytes, 0o600)
            .map_err(|source| io_error("write", &self.file(name), source))
    }
}

/// Puts a file in the place of another, so that after a power cut one of the two is there, whole: a temporary
/// file beside it, synced, then renamed, then the folder synced. A program that runs can be replaced so, where
/// it could not be written to.
///
/// # Errors
/// The operating system's.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = parent.unwrap_or(Path::new("."));
    let folder = File::from(openat(CWD, parent, flags, Mode::empty())?);
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    replace_in(&folder, name, bytes, mode)
}

/// Returns the same in a folder that is held open. The temporary file is a new one: what another account may have put
/// in its place is not followed, and not written into.
fn replace_in(folder: &File, name: &OsStr, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(".new");
    match unlinkat(folder, &*temporary, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = openat(folder, &*temporary, flags, Mode::RUSR | Mode::WUSR)?;
    // The umask has had its say by now.
    fchmod(&file, Mode::from_raw_mode(mode))?;
    let mut file = File::from(file);
    file.write_all(bytes)?;
    file.sync_all()?;
    renameat(folder, &*temporary, folder, name)?;
    folder.sync_all()
}

/// Returns what to do about a refusal by the operating system.
fn remedy(source: &io::Error) -> &'static str {
    remedy_for(source, geteuid().is_root())
}

fn remedy_for(source: &io::Error, is_root: bool) -> &'static str {
    match (source.kind(), is_root) {
        (io::ErrorKind::PermissionDenied, false) => {
            ": run it as root (sudo), or name another folder with --state"
        }
        (io::ErrorKind::PermissionDenied, true) => {
            ": root is refused too, as SELinux or a network file system may do: name another folder with --state"
        }
        _ => "",
    }
}

fn remedy_of(fault: &FolderFault) -> &'static str {
    match fault {
        FolderFault::Io { source, .. } => remedy(source),
        FolderFault::Unsafe { .. } => "",
    }
}

fn io_error(verb: &'static str, path: &Path, source: io::Error) -> StateDirError {
    StateDirError::Io {
        verb,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
    use std::process::{Command, Stdio};

    #[test]
    fn forgotten_sudo_is_named() {
        let denied = || io::Error::from(Errno::ACCESS);
        let path = PathBuf::from("/var/lib/edge-agent");
        let other = "name another folder with --state";
        let sudo = format!(": run it as root (sudo), or {other}");
        assert_eq!(remedy_for(&denied(), false), sudo);
        let by_root = remedy_for(&denied(), true);
        assert!(
            by_root.ends_with(other) && !by_root.contains("sudo"),
            "{by_root}"
        );
        let here = remedy_for(&denied(), geteuid().is_root());
        let remedy = format!(": Permission denied (os error 13){here}");
        let folder = FolderFault::Io {
            path: path.clone(),
            source: denied(),
        };
        let folder = StateDirError::from(folder).to_string();
        assert_eq!(
            folder,
            format!("the state folder {}{remedy}", path.display())
        );
        let file = io_error("read", &path, denied()).to_string();
        assert_eq!(file, format!("cannot read {}{remedy}", path.display()));
        let full = io_error("read", &path, Errno::NOSPC.into()).to_string();
        assert!(!full.contains("sudo"), "{full}");
    }

    #[test]
    fn root_that_looks_learns_whose_folder_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        assert!(StateDir::look_into(&state, "doctor").unwrap().is_none());
        assert!(!state.exists(), "looking makes nothing");
        fs::create_dir(&state).unwrap();
        if !geteuid().is_root() {
            return;
        }
        chown(&state, Some(47_110), None).unwrap();
        let refused = StateDir::look_into(&state, "doctor")
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("belongs to user id 47110")
                && refused.contains("`sudo -u '#47110' edge-agent doctor --state "),
            "{refused}"
        );
    }

    #[test]
    fn agent_whose_folder_was_removed_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let former = StateDir::create_or_open(&path).unwrap();
        let lock = former.lock().unwrap();
        let own = rustix::process::getpid();
        assert_eq!(
            (former.left_behind(), former.running()),
            (vec![], vec![own])
        );
        fs::remove_dir_all(&path).unwrap();
        let state = StateDir::create_or_open(&path).unwrap();
        assert_eq!(
            (state.left_behind(), state.running()),
            (vec![own], vec![own])
        );
        drop(lock);
        assert_eq!((state.left_behind(), state.running()), (vec![], vec![]));
    }

    #[test]
    fn agent_that_is_ending_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::create_or_open(&folder.path().join("state")).unwrap();
        let former = state.lock().unwrap();
        let mut said = String::new();
        let lock = state.lock_or_wait(|text| {
            said = text.to_owned();
            drop(former);
        });
        assert!(lock.is_ok(), "{lock:?}");
        let holder = format!(
            "another edge-agent (process {}) runs on",
            std::process::id()
        );
        assert!(
            said.starts_with(&holder) && said.contains("waiting up to 15 s"),
            "{said}"
        );
        drop(lock);
        let free = state.lock_or_wait(|text| panic!("{text}"));
        assert!(free.is_ok(), "{free:?}");
    }

    // An agent in a container, which has the default folder there.
    #[test]
    fn a_lock_of_another_mount_namespace_is_not_ours() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let state = StateDir::create_or_open(&path).unwrap();
        let other = folder.path().join("volume");
        fs::create_dir(&other).unwrap();
        let mount = |source: &str| format!("mount {source} \"$0\"");
        let volume = mount("--bind \"$0/../volume\"");
        let memory = mount("-t tmpfs none");
        for (mount, end) in [(&memory, ""), (&volume, ""), (&memory, "; rm \"$0/lock\"")] {
            let script = format!("{mount} && exec 3>\"$0/lock\"{end}; echo ready; exec sleep 600");
            let mut unshare = Command::new("unshare");
            unshare.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]);
            let started = unshare.arg(&path).stdout(Stdio::piped()).spawn();
            let mut container = started.unwrap();
            let mut ready = [0; 6];
            let begun = container.stdout.take().unwrap().read_exact(&mut ready);
            let found = (state.left_behind(), state.running());
            let open = fs::read_link(format!("/proc/{}/fd/3", container.id()));
            container.kill().unwrap();
            container.wait().unwrap();
            // Not every machine has user namespaces for this account.
            if begun.is_err() {
                return;
            }
            let shown = open.unwrap();
            assert!(
                shown.starts_with(path.join("lock")) || !end.is_empty(),
                "{shown:?}"
            );
            assert_eq!(found, (vec![], vec![]), "{script}");
        }
    }

    #[test]
    fn a_planted_temporary_file_is_not_written_into() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("target");
        fs::write(&target, "precious").unwrap();
        let state = StateDir::create_or_open(&folder.path().join("state")).unwrap();
        symlink(&target, state.file(".membership.new")).unwrap();
        state.write("membership", b"new").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"precious");
        let written = state.file("membership");
        let meta = fs::symlink_metadata(&written).unwrap();
        assert!(meta.is_file() && meta.permissions().mode() & 0o7777 == 0o600);
        assert_eq!(state.read("membership").unwrap().unwrap(), b"new");
        assert!(state.read("nothing").unwrap().is_none());
    }

    #[test]
    fn a_folder_that_others_may_write_is_no_state_folder() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        let refused = StateDir::create_or_open(folder.path()).unwrap_err();
        let text = refused.to_string();
        assert!(
            text.starts_with("the state folder /")
                && text.contains("other accounts may write there"),
            "{text}"
        );
    }
}
