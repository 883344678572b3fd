//! Folders of the agent's own, in which no other account has a say.
//!
//! The agent is root, and writes where its flags say. An account that may write into a folder on the way there could
//! lead it elsewhere, or own what it writes into. So the way is walked name by name on descriptors, each folder is
//! judged, and what is then read and written is reached from the descriptor of the last one, never again by the path.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    FileType, Mode, OFlags, Stat, fstat, getxattr_query, mkdirat, open, openat, readlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;
use thiserror::Error;

use crate::os::limits::MAX_FOLDER_LINKS;

/// Mode bits (stat(2)).
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;
/// Only its owner may rename or remove what is in the folder.
const STICKY: u32 = 0o1000;

/// The reason why a folder is not used.
#[derive(Debug, Error)]
pub enum FolderFault {
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The request that it refused.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
    /// Another account has a say in it.
    #[error(
        "{} is not safe to use, because {why}: choose a folder that only root (or the agent's account) may change, such as \
         one in /var/lib, or in /run for what may be lost at a start", path.display()
    )]
    Unsafe {
        /// The folder or link, on the way or at its end.
        path: PathBuf,
        /// The fault of it.
        why: String,
    },
}

/// Opens a folder that no other account may change or move. What is missing of it is made, for the agent's account
/// alone.
///
/// # Errors
/// [`FolderFault`].
pub(crate) fn open_private(path: &Path) -> Result<File, FolderFault> {
    let failed = |path: &Path, error: Errno| FolderFault::Io {
        path: path.to_owned(),
        source: error.into(),
    };
    let whole = std::path::absolute(path).map_err(|source| FolderFault::Io {
        path: path.to_owned(),
        source,
    })?;
    let mut walk = FolderWalk::start(Path::new("/"))?;
    let mut names = names(&whole);
    let mut links = 0;
    while let Some(name) = names.pop_front() {
        let here = walk.path.join(&name);
        let found = walk.enter(&name).map_err(|error| failed(&here, error))?;
        let stat = fstat(&found).map_err(|error| failed(&here, error))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let fault = fault_of(&stat, has_acl(&found), names.is_empty());
                walk.step(found, here, fault)?;
            }
            FileType::Symlink => {
                links += 1;
                if links > MAX_FOLDER_LINKS {
                    return Err(failed(&here, Errno::LOOP));
                }
                let target = walk.read_link(&found, &stat, &here)?;
                if target.is_absolute() {
                    walk = FolderWalk::start(Path::new("/"))?;
                }
                for name in self::names(&target).into_iter().rev() {
                    names.push_front(name);
                }
            }
            _ => return Err(failed(&here, Errno::NOTDIR)),
        }
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = openat(&walk.at, ".", flags, Mode::empty());
    opened
        .map(File::from)
        .map_err(|error| failed(&walk.path, error))
}

/// Describes where the walk is.
struct FolderWalk {
    at: OwnedFd,
    path: PathBuf,
    /// True if other accounts may make names in `at`.
    is_shared: bool,
}

impl FolderWalk {
    /// Begins at the root of all paths, which is judged like every folder on the way.
    fn start(root: &Path) -> Result<Self, FolderFault> {
        let failed = |error: Errno| FolderFault::Io {
            path: root.to_owned(),
            source: error.into(),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let at = open(root, flags, Mode::empty()).map_err(failed)?;
        let stat = fstat(&at).map_err(failed)?;
        match fault_of(&stat, has_acl(&at), false) {
            Ok(is_shared) => Ok(Self {
                at,
                path: root.to_owned(),
                is_shared,
            }),
            Err(why) => Err(FolderFault::Unsafe {
                path: root.to_owned(),
                why,
            }),
        }
    }

    /// Opens a name without following it, and makes a folder where there is none.
    fn enter(&self, name: &OsStr) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(&self.at, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => {}
            opened => return opened,
        }
        match mkdirat(&self.at, name, Mode::RWXU) {
            // What was made meanwhile is judged as what was there before.
            Ok(()) | Err(Errno::EXIST) => openat(&self.at, name, flags, Mode::empty()),
            Err(error) => Err(error),
        }
    }

    fn step(
        &mut self,
        to: OwnedFd,
        path: PathBuf,
        fault: Result<bool, String>,
    ) -> Result<(), FolderFault> {
        match fault {
            Ok(is_shared) => {
                *self = Self {
                    at: to,
                    path,
                    is_shared,
                };
                Ok(())
            }
            Err(why) => Err(FolderFault::Unsafe { path, why }),
        }
    }

    /// Returns where a link leads, if it is not one that another account may have made.
    fn read_link(&self, link: &OwnedFd, stat: &Stat, path: &Path) -> Result<PathBuf, FolderFault> {
        if self.is_shared && !is_trusted(stat) {
            return Err(FolderFault::Unsafe {
                path: path.to_owned(),
                why: format!("it is a link of user id {}", stat.st_uid),
            });
        }
        let target = readlinkat(link, "", Vec::new()).map_err(|error| FolderFault::Io {
            path: path.to_owned(),
            source: error.into(),
        })?;
        Ok(PathBuf::from(OsString::from_vec(target.into_bytes())))
    }
}

/// Returns the names of a path, and `..` where it goes up.
fn names(path: &Path) -> VecDeque<OsString> {
    let components = path.components();
    let named =
        components.filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    named.map(|part| part.as_os_str().to_owned()).collect()
}

/// Returns whether other accounts may make names in a folder, or why it must not be used.
fn fault_of(stat: &Stat, has_acl: bool, is_last: bool) -> Result<bool, String> {
    if !is_trusted(stat) {
        return Err(format!("it belongs to user id {}", stat.st_uid));
    }
    let mode = stat.st_mode;
    // The group of root has no other members on any system that is in order. With an access list, the group's bits are
    // the most that any account or group of the list may do.
    let group_is_root = stat.st_gid == 0 && !has_acl;
    let is_shared = mode & OTHERS_WRITE != 0 || (mode & GROUP_WRITES != 0 && !group_is_root);
    if is_shared && (is_last || mode & STICKY == 0) {
        return Err(format!(
            "other accounts may write there (mode {:04o})",
            mode & 0o7777
        ));
    }
    Ok(is_shared)
}

/// Returns whether accounts and groups beside the owner's have rights of their own in a folder (acl(5)).
fn has_acl(folder: &OwnedFd) -> bool {
    // A descriptor that only names a folder is asked by its link.
    let path = format!("/proc/self/fd/{}", folder.as_raw_fd());
    let none = [Errno::NODATA, Errno::OPNOTSUPP, Errno::NOSYS];
    match getxattr_query(path, "system.posix_acl_access") {
        Ok(_) => true,
        // What cannot be found out is taken for the worse.
        Err(error) => !none.contains(&error),
    }
}

/// Returns whether it belongs to root or to the agent's own account.
fn is_trusted(stat: &Stat) -> bool {
    stat.st_uid == 0 || stat.st_uid == geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, chown, lchown, symlink};

    const OTHER: u32 = 47_110;

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[track_caller]
    fn refused(path: &Path, why: &str) {
        let fault = open_private(path).unwrap_err().to_string();
        assert!(fault.contains(why), "{fault}");
    }

    #[test]
    fn missing_folders_are_made_for_the_agent_alone() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b");
        let opened = open_private(&deep).unwrap();
        let mode = opened.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700);
        symlink("a", folder.path().join("link")).unwrap();
        open_private(&folder.path().join("link/../a/b")).unwrap();
        symlink("loop", folder.path().join("loop")).unwrap();
        refused(&folder.path().join("loop"), "symbolic links");
        fs::write(folder.path().join("file"), "").unwrap();
        refused(&folder.path().join("file"), "Not a directory");
    }

    #[test]
    fn folders_that_others_may_write_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let shared = folder.path().join("shared");
        let inner = shared.join("inner");
        fs::create_dir_all(&inner).unwrap();
        for mode in [0o777, 0o702] {
            chmod(&shared, mode);
            refused(&shared, "other accounts may write there");
            refused(&inner, "other accounts may write there");
        }
        // In a folder as /tmp is, what belongs to us is ours.
        chmod(&shared, 0o1777);
        refused(&shared, "other accounts may write there");
        open_private(&inner).unwrap();
        chmod(&inner, 0o707);
        refused(&inner, "(mode 0707)");
    }

    #[test]
    fn root_of_all_paths_is_judged_too() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!FolderWalk::start(folder.path()).unwrap().is_shared);
        chmod(folder.path(), 0o777);
        let fault = FolderWalk::start(folder.path())
            .map(drop)
            .unwrap_err()
            .to_string();
        assert!(fault.contains("other accounts may write there"), "{fault}");
        chmod(folder.path(), 0o1777);
        assert!(FolderWalk::start(folder.path()).unwrap().is_shared);
    }

    /// Returns `user::rwx,user:47110:rwx,group::r-x,mask::rwx,other::---` as the kernel has it.
    fn access_list() -> Vec<u8> {
        const NO_ID: u32 = u32::MAX;
        let entries = [
            (0x01_u16, 7_u16, NO_ID),
            (0x02, 7, OTHER),
            (0x04, 5, NO_ID),
            (0x10, 7, NO_ID),
            (0x20, 0, NO_ID),
        ];
        let mut list = 2_u32.to_le_bytes().to_vec();
        for (tag, permissions, id) in entries {
            list.extend(tag.to_le_bytes());
            list.extend(permissions.to_le_bytes());
            list.extend(id.to_le_bytes());
        }
        list
    }

    #[test]
    fn access_list_lets_others_write_behind_roots_group() {
        if !geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let spool = folder.path().join("spool");
        fs::create_dir(&spool).unwrap();
        chmod(&spool, 0o770);
        open_private(&spool).unwrap();
        let name = "system.posix_acl_access";
        let set = rustix::fs::setxattr(
            &spool,
            name,
            &access_list(),
            rustix::fs::XattrFlags::empty(),
        );
        if set == Err(Errno::OPNOTSUPP) {
            return;
        }
        set.unwrap();
        refused(&spool, "(mode 0770)");
        refused(&spool.join("deeper"), "(mode 0770)");
    }

    #[test]
    fn what_another_account_made_first_is_refused() {
        if !geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        chmod(folder.path(), 0o1777);
        let theirs = folder.path().join("spool");
        fs::create_dir(&theirs).unwrap();
        chmod(&theirs, 0o700);
        chown(&theirs, Some(OTHER), Some(OTHER)).unwrap();
        refused(&theirs, "it belongs to user id 47110");
        refused(&theirs.join("deeper"), "it belongs to user id 47110");
        let ours = folder.path().join("ours");
        fs::create_dir(&ours).unwrap();
        let link = folder.path().join("link");
        symlink(&ours, &link).unwrap();
        open_private(&link).unwrap();
        lchown(&link, Some(OTHER), Some(OTHER)).unwrap();
        refused(&link, "it is a link of user id 47110");
        // Root's group may write: it has no other members.
        chmod(&ours, 0o775);
        open_private(&ours).unwrap();
        chown(&ours, None, Some(OTHER)).unwrap();
        refused(&ours, "(mode 0775)");
    }
}
