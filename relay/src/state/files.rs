//! Files and folders of the state: made whole or not at all, and closed to others.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown,
};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::process::geteuid;

use super::StateError;

const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// The bits that let anybody but the owner in.
const OTHERS: u32 = 0o077;

/// More than any key file holds: a larger one is no key, and is not read into memory.
const MAX_KEY_FILE: u64 = 16 * 1024;

/// Makes the folder if it is not there; its parents get the usual mode.
pub(super) fn make_folder(dir: &Path) -> Result<(), StateError> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
        fs::create_dir_all(parent).map_err(io_error("make the folder", parent))?;
    }
    match DirBuilder::new().mode(FOLDER_MODE).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        made => made.map_err(io_error("make the folder", dir)),
    }
}

/// Closes a folder that was made for us with the usual mode.
pub(super) fn tighten_folder(dir: &Path) -> Result<(), StateError> {
    fs::set_permissions(dir, Permissions::from_mode(FOLDER_MODE))
        .map_err(io_error("set the mode of", dir))
}

/// Refuses a folder of another account, or one that a link of another account leads to: they could change what is in
/// it, or where it is.
pub(super) fn check_owner(dir: &Path) -> Result<(), StateError> {
    let own = geteuid().as_raw();
    let found = fs::symlink_metadata(dir).map_err(io_error("look at", dir))?;
    // A service manager leads to the folder of a service by a link of root's.
    let foreign_link = found.is_symlink() && ![0, own].contains(&found.uid());
    let meta = fs::metadata(dir).map_err(io_error("look at", dir))?;
    let owner = if foreign_link {
        found.uid()
    } else {
        meta.uid()
    };
    match foreign_link || owner != own {
        true => Err(StateError::Foreign {
            path: dir.to_owned(),
            owner,
            own,
        }),
        false => Ok(()),
    }
}

/// Refuses a folder that others can look into.
pub(super) fn check_folder(dir: &Path) -> Result<(), StateError> {
    let meta = fs::metadata(dir).map_err(io_error("look at", dir))?;
    check_mode(dir, meta.permissions().mode(), FOLDER_MODE)
}

/// Returns what is in the folder, but for what a file system puts there itself.
pub(super) fn names(dir: &Path) -> Result<Vec<String>, StateError> {
    let entries = fs::read_dir(dir).map_err(io_error("read the folder", dir))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(io_error("read the folder", dir))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.retain(|name| name != "lost+found");
    Ok(names)
}

/// Takes the lock of the serving relay, which the kernel gives back when the process ends, however it
/// ends. The file holds the process id, for the sentence that the second relay gets.
pub(super) fn lock(path: &Path, dir: &Path) -> Result<File, StateError> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
        .map_err(io_error("open", path))?;
    hand_over(&file, dir).map_err(io_error("set the owner of", path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let read = (&file).take(16).read_to_string(&mut pid);
            let known = read.is_ok() && !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit());
            return Err(StateError::Locked {
                dir: dir.to_owned(),
                pid: if known { pid } else { "unknown".to_owned() },
            });
        }
        Err(TryLockError::Error(error)) => return Err(io_error("lock", path)(error)),
    }
    let pid = std::process::id().to_string();
    file.set_len(0)
        .and_then(|()| file.write_all(pid.as_bytes()))
        .map_err(io_error("write", path))?;
    Ok(file)
}

/// Writes a file whole or not at all, with power cuts in mind: a temporary one beside it, fsync,
/// rename, fsync of the folder.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let temporary = path.with_extension("tmp");
    let fill = || -> io::Result<()> {
        // A cut-off start may have left one. It is not opened: where root writes into the folder of another account, that
        // may have put a link there.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(&temporary)?;
        file.set_permissions(Permissions::from_mode(FILE_MODE))?;
        hand_over(&file, dir)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(dir)?.sync_all()
    };
    fill().map_err(io_error("write", path))
}

/// Gives a file that root writes to the account of the folder, whose relay has to read it.
fn hand_over(file: &File, dir: &Path) -> io::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let owner = fs::metadata(dir)?;
    fchown(file, Some(owner.uid()), Some(owner.gid()))
}

/// Removes a file for good.
pub(super) fn remove(path: &Path) -> Result<(), StateError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::remove_file(path)
        .and_then(|()| File::open(dir)?.sync_all())
        .map_err(io_error("remove", path))
}

/// Returns whether a file holds nothing.
pub(super) fn is_empty(path: &Path) -> Result<bool, StateError> {
    let meta = fs::metadata(path).map_err(io_error("look at", path))?;
    Ok(meta.len() == 0)
}

/// Reads a key file that no other user may read.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, StateError> {
    let file = File::open(path).map_err(io_error("read", path))?;
    let meta = file.metadata().map_err(io_error("look at", path))?;
    check_mode(path, meta.permissions().mode(), FILE_MODE)?;
    let mut bytes = Vec::new();
    file.take(MAX_KEY_FILE)
        .read_to_end(&mut bytes)
        .map_err(io_error("read", path))?;
    Ok(bytes)
}

fn check_mode(path: &Path, mode: u32, wanted: u32) -> Result<(), StateError> {
    if mode & OTHERS == 0 {
        return Ok(());
    }
    Err(StateError::Exposed {
        path: path.to_owned(),
        mode: mode & 0o7777,
        wanted,
    })
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    move |source| StateError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}
