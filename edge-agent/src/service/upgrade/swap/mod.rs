//! The steps of an upgrade on the disk. After each of them, and in the middle of each, the power may fail: there is
//! always a whole program in the program's place, and the next start knows from the journal what it is.
//!
//! 1. The new program is written beside the old one, and synced ([`stage`]). It is checked and tried there.
//! 2. The old program gets a second name, `….previous`; the folder is synced.
//! 3. The journal says that a trial begins; synced.
//! 4. The new program is renamed over the old one; the folder is synced ([`take`] does 2 to 4).
//! 5. The journal says that the new program is kept; or the second name is renamed over the program again, and then
//!    the journal says that it was put back ([`put_back`]).

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::plan::Journal;
use crate::service::digest::{Digest, Digester, PIECE};
use crate::service::limits::MAX_JOURNAL;

const JOURNAL: &str = "upgrade.json";

/// The operations of the steps on a file system. What is not synced may be lost at any time, whole or in part.
pub(crate) trait Disk {
    /// A file that is being written.
    type File;

    /// Opens a file for reading.
    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + '_>>;
    /// Returns a new, empty file, in place of one that may be there.
    fn create(&self, path: &Path, mode: u32) -> io::Result<Self::File>;
    /// Writes more into it.
    fn append(&self, file: &mut Self::File, bytes: &[u8]) -> io::Result<()>;
    /// Makes its content last.
    fn sync(&self, file: &Self::File) -> io::Result<()>;
    /// Gives a file a second name.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Renames a file over whatever is there. Two names of the same file both stay (rename(2)).
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a name.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder last.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
}

/// Describes where everything is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpgradePaths {
    /// The program.
    pub program: PathBuf,
    /// The state folder.
    pub state: PathBuf,
}

/// The reason why a step was not done.
#[derive(Debug, Error)]
pub enum SwapError {
    /// The operating system refused.
    #[error("cannot {verb} {}: {source}", path.display())]
    Io {
        /// The step that was tried.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Nothing is to be put back.
    #[error("the previous program is not at {} any more: the present one stays; install one with `edge-agent install`", .0.display())]
    NoPrevious(PathBuf),
    /// The staged program is another than was asked for.
    #[error("{} is not what was checked: start the upgrade again", .0.display())]
    NotStaged(PathBuf),
}

impl UpgradePaths {
    /// Returns the path of a new program until it replaces the present one.
    #[must_use]
    pub fn staged(&self) -> PathBuf {
        self.beside(".", ".staged")
    }

    /// Returns where the program before this one is kept.
    #[must_use]
    pub fn previous(&self) -> PathBuf {
        self.beside("", ".previous")
    }

    /// Returns a name that is only used between two steps.
    fn spare(&self) -> PathBuf {
        self.beside(".", ".spare")
    }

    fn journal(&self) -> PathBuf {
        self.state.join(JOURNAL)
    }

    fn beside(&self, before: &str, after: &str) -> PathBuf {
        let mut name = OsString::from(before);
        name.push(self.program.file_name().unwrap_or_default());
        name.push(after);
        self.program.with_file_name(name)
    }

    fn folder(&self) -> &Path {
        self.program.parent().unwrap_or(Path::new("/"))
    }
}

/// Writes a new program beside the present one, and gives its digest.
///
/// # Errors
/// [`SwapError::Io`].
pub(crate) fn stage<D: Disk>(
    disk: &D,
    places: &UpgradePaths,
    mut from: impl Read,
) -> Result<Digest, SwapError> {
    let staged = places.staged();
    let mut digester = Digester::default();
    let mut write = || {
        let mut file = disk.create(&staged, 0o755)?;
        let mut piece = vec![0; PIECE];
        loop {
            match from.read(&mut piece)? {
                0 => break,
                read => {
                    digester.update(&piece[..read]);
                    disk.append(&mut file, &piece[..read])?;
                }
            }
        }
        disk.sync(&file)
    };
    write().map_err(io_error("write", &staged))?;
    Ok(digester.finish())
}

/// Removes what was staged.
pub(crate) fn unstage<D: Disk>(disk: &D, places: &UpgradePaths) {
    // It does no harm, and is written over by the next upgrade.
    let _ = disk.remove(&places.staged());
}

/// Puts the staged program in the present one's place, on trial.
///
/// # Errors
/// [`SwapError`]; the old program is still there then, or the new one with a journal that says so.
pub(crate) fn take<D: Disk>(
    disk: &D,
    places: &UpgradePaths,
    journal: &Journal,
) -> Result<(), SwapError> {
    let (staged, spare, previous) = (places.staged(), places.spare(), places.previous());
    if digest(disk, &staged)? != journal.new {
        return Err(SwapError::NotStaged(staged));
    }
    second_name(disk, &places.program, &spare)?;
    disk.rename(&spare, &previous)
        .map_err(io_error("rename", &spare))?;
    let _ = disk.remove(&spare);
    sync_folder(disk, places)?;
    write_journal(disk, places, journal)?;
    disk.rename(&staged, &places.program)
        .map_err(io_error("rename", &staged))?;
    sync_folder(disk, places)
}

/// Puts the old program back, if it is not there already, and says so in the journal.
///
/// # Errors
/// [`SwapError`].
pub(crate) fn put_back<D: Disk>(
    disk: &D,
    places: &UpgradePaths,
    journal: &Journal,
    why: &str,
) -> Result<Journal, SwapError> {
    if digest(disk, &places.program)? == journal.new {
        let (spare, previous) = (places.spare(), places.previous());
        if !digest(disk, &previous).is_ok_and(|digest| digest == journal.old) {
            return Err(SwapError::NoPrevious(previous));
        }
        second_name(disk, &previous, &spare)?;
        disk.rename(&spare, &places.program)
            .map_err(io_error("rename", &spare))?;
        sync_folder(disk, places)?;
    }
    let over = journal.put_back(why);
    write_journal(disk, places, &over)?;
    Ok(over)
}

/// Returns the digest of a program.
///
/// # Errors
/// [`SwapError::Io`].
pub(crate) fn digest<D: Disk>(disk: &D, path: &Path) -> Result<Digest, SwapError> {
    disk.open(path)
        .and_then(Digest::of)
        .map_err(io_error("read", path))
}

/// Returns the journal; `None` if there is none, or none that can be read: nothing may keep an agent from starting.
pub(crate) fn read_journal<D: Disk>(disk: &D, places: &UpgradePaths) -> Option<Journal> {
    let mut bytes = Vec::new();
    let file = disk.open(&places.journal()).ok()?;
    file.take(MAX_JOURNAL).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Puts a journal in place of the one before: after a cut one of the two is there.
///
/// # Errors
/// [`SwapError::Io`].
pub(crate) fn write_journal<D: Disk>(
    disk: &D,
    places: &UpgradePaths,
    journal: &Journal,
) -> Result<(), SwapError> {
    let path = places.journal();
    let temporary = places.state.join(format!(".{JOURNAL}.new"));
    let bytes = serde_json::to_vec(journal).unwrap_or_default();
    let write = || {
        let mut file = disk.create(&temporary, 0o600)?;
        disk.append(&mut file, &bytes)?;
        disk.sync(&file)?;
        disk.rename(&temporary, &path)?;
        disk.sync_folder(&places.state)
    };
    write().map_err(io_error("write", &path))
}

/// Gives a file a second name, or a copy on a file system that knows no such thing.
fn second_name<D: Disk>(disk: &D, from: &Path, to: &Path) -> Result<(), SwapError> {
    match disk.remove(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_error("remove", to)(error));
        }
        _ => {}
    }
    if disk.link(from, to).is_ok() {
        return Ok(());
    }
    let copy = || {
        let mut bytes = disk.open(from)?;
        let mut file = disk.create(to, 0o755)?;
        let mut piece = vec![0; PIECE];
        loop {
            match bytes.read(&mut piece)? {
                0 => return disk.sync(&file),
                read => disk.append(&mut file, &piece[..read])?,
            }
        }
    };
    copy().map_err(io_error("copy to", to))
}

fn sync_folder<D: Disk>(disk: &D, places: &UpgradePaths) -> Result<(), SwapError> {
    let folder = places.folder();
    disk.sync_folder(folder)
        .map_err(io_error("sync the folder", folder))
}

fn io_error(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SwapError {
    let path = path.to_owned();
    move |source| SwapError::Io { verb, path, source }
}

#[cfg(test)]
mod tests;
