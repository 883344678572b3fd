//! The names and attributes of files: listed, linked, renamed, changed.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;

use holdfast_protocol::sftp::{Attributes, Code};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, RawDir, RenameFlags, Stat, Timespec, Timestamps,
    Uid, chmodat, chownat, fchmod, fchown, fstat, ftruncate, futimens, linkat, mkdirat, openat,
    readlinkat, renameat, renameat_with, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::attributes::{attributes, line};
use super::content::{GENTLE, mode};
use super::handles::Handle;
use super::root::{SftpLocation, SftpPath, name_of};
use super::serve::{FileServer, OperationStep};
use super::status::SftpStatus;
use crate::os::clock::WallTime;
use crate::sftp::limits::{MAX_SFTP_IDS, SFTP_LISTING};

/// The mode of a new folder where the client gives none, before the umask.
const FOLDER_MODE: u32 = 0o777;

impl FileServer {
    pub(super) fn stat(&mut self, id: u32, path: &[u8]) -> Result<OperationStep, SftpStatus> {
        let place = self.tree.target(SftpPath::new(path)?)?;
        self.tell(id, &place.stat(AtFlags::empty())?)
    }

    pub(super) fn lstat(&mut self, id: u32, path: &[u8]) -> Result<OperationStep, SftpStatus> {
        let place = self.tree.entry(SftpPath::new(path)?)?;
        self.tell(id, &place.stat(AtFlags::SYMLINK_NOFOLLOW)?)
    }

    pub(super) fn fstat(&mut self, id: u32, handle: &[u8]) -> Result<OperationStep, SftpStatus> {
        let open = self.handles.get(handle).ok_or(SftpStatus::NO_HANDLE)?;
        let stat = fstat(open.descriptor())?;
        self.tell(id, &stat)
    }

    fn tell(&mut self, id: u32, stat: &Stat) -> Result<OperationStep, SftpStatus> {
        self.answers.attributes(id, &attributes(stat));
        Ok(OperationStep::Answered)
    }

    pub(super) fn setstat(
        &mut self,
        path: &[u8],
        attributes: &Attributes,
    ) -> Result<OperationStep, SftpStatus> {
        let place = self.tree.target(SftpPath::new(path)?)?;
        let resized = attributes.size.map(|size| {
            let flags = OFlags::WRONLY | OFlags::CLOEXEC | GENTLE;
            let file = openat(place.folder(), place.name(), flags, Mode::empty())?;
            ftruncate(file, size)
        });
        all([
            resized,
            attributes
                .permissions
                .map(|bits| chmodat(place.folder(), place.name(), mode(bits), AtFlags::empty())),
            set_times(&place, attributes, AtFlags::empty()),
            set_owner(&place, attributes, AtFlags::empty()),
        ])
    }

    /// Sets attributes of the name itself, even if it is a link.
    pub(super) fn lsetstat(
        &mut self,
        path: &[u8],
        attributes: &Attributes,
    ) -> Result<OperationStep, SftpStatus> {
        if attributes.size.is_some() {
            return Err(SftpStatus::new(
                Code::BadMessage,
                "a link has no size to set",
            ));
        }
        let place = self.tree.entry(SftpPath::new(path)?)?;
        all([
            attributes
                .permissions
                .map(|bits| change_mode_of_entry(&place, mode(bits))),
            set_times(&place, attributes, AtFlags::SYMLINK_NOFOLLOW),
            set_owner(&place, attributes, AtFlags::SYMLINK_NOFOLLOW),
        ])
    }

    pub(super) fn fsetstat(
        &mut self,
        handle: &[u8],
        attributes: &Attributes,
    ) -> Result<OperationStep, SftpStatus> {
        let open = self.handles.get(handle).ok_or(SftpStatus::NO_HANDLE)?;
        let open = open.descriptor();
        let owned = attributes.owner.map(|(user, group)| {
            fchown(
                open,
                owner(user).map(Uid::from_raw),
                owner(group).map(Gid::from_raw),
            )
        });
        all([
            attributes.size.map(|size| ftruncate(open, size)),
            attributes.permissions.map(|bits| fchmod(open, mode(bits))),
            attributes
                .times
                .map(|pair| futimens(open, &timestamps(pair))),
            owned,
        ])
    }

    pub(super) fn opendir(&mut self, id: u32, path: &[u8]) -> Result<OperationStep, SftpStatus> {
        let path = SftpPath::new(path)?;
        self.check_room()?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | GENTLE;
        let folder = self.tree.open(path, flags, Mode::empty())?;
        let handle = self.handles.insert(Handle::Folder(folder));
        self.answers.handle(id, &handle);
        Ok(OperationStep::Answered)
    }

    /// Returns the names that the kernel gives in one go: some hundred.
    pub(super) fn readdir(&mut self, id: u32, handle: &[u8]) -> Result<OperationStep, SftpStatus> {
        let Some(Handle::Folder(folder)) = self.handles.get(handle) else {
            return Err(SftpStatus::NO_HANDLE);
        };
        let now = now();
        let is_whole = self.tree.is_whole();
        let people = &mut self.people;
        let mut buffer = [MaybeUninit::uninit(); SFTP_LISTING];
        let mut entries = RawDir::new(folder, &mut buffer);
        let count = self.answers.names(id, |names| {
            while let Some(entry) = entries.next() {
                let name = entry?.file_name().to_owned();
                if let Ok(stat) = stat_of_entry(folder, &name, is_whole) {
                    let line = line(name.to_bytes(), &stat, people, now);
                    names.push(name.to_bytes(), &line, &attributes(&stat));
                }
                // Answered before the kernel is asked for more; but an answer names something.
                if entries.is_buffer_empty() && !names.is_empty() {
                    break;
                }
            }
            Ok::<_, Errno>(())
        })?;
        if count == 0 {
            return Err(SftpStatus::EOF);
        }
        Ok(OperationStep::Answered)
    }

    pub(super) fn remove(&mut self, path: &[u8]) -> Result<OperationStep, SftpStatus> {
        let place = self.tree.entry(SftpPath::new(path)?)?;
        unlinkat(place.folder(), place.name(), AtFlags::empty())?;
        Ok(OperationStep::Well)
    }

    pub(super) fn rmdir(&mut self, path: &[u8]) -> Result<OperationStep, SftpStatus> {
        let place = self.tree.entry(SftpPath::new(path)?)?;
        unlinkat(place.folder(), place.name(), AtFlags::REMOVEDIR)?;
        Ok(OperationStep::Well)
    }

    pub(super) fn mkdir(
        &mut self,
        path: &[u8],
        attributes: &Attributes,
    ) -> Result<OperationStep, SftpStatus> {
        let place = self.tree.entry(SftpPath::new(path)?)?;
        let mode = mode(attributes.permissions.unwrap_or(FOLDER_MODE));
        mkdirat(place.folder(), place.name(), mode)?;
        Ok(OperationStep::Well)
    }

    /// Renames; in version 3 it replaces nothing.
    pub(super) fn rename(&mut self, from: &[u8], to: &[u8]) -> Result<OperationStep, SftpStatus> {
        let (from, to) = (SftpPath::new(from)?, SftpPath::new(to)?);
        let (from, to) = (self.tree.entry(from)?, self.tree.entry(to)?);
        let (old, new) = ((from.folder(), from.name()), (to.folder(), to.name()));
        match renameat_with(old.0, old.1, new.0, new.1, RenameFlags::NOREPLACE) {
            // Some file systems can't, and then a look before must do.
            Err(Errno::INVAL | Errno::NOSYS) => match to.stat(AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => renameat(old.0, old.1, new.0, new.1)?,
                Err(error) => return Err(error.into()),
                Ok(_) => return Err(Errno::EXIST.into()),
            },
            other => other?,
        }
        Ok(OperationStep::Well)
    }

    pub(super) fn posix_rename(
        &mut self,
        from: &[u8],
        to: &[u8],
    ) -> Result<OperationStep, SftpStatus> {
        let (from, to) = (SftpPath::new(from)?, SftpPath::new(to)?);
        let (from, to) = (self.tree.entry(from)?, self.tree.entry(to)?);
        renameat(from.folder(), from.name(), to.folder(), to.name())?;
        Ok(OperationStep::Well)
    }

    /// Creates a hard link; a symbolic link is linked itself, and not what it names.
    pub(super) fn hardlink(&mut self, from: &[u8], to: &[u8]) -> Result<OperationStep, SftpStatus> {
        let (from, to) = (SftpPath::new(from)?, SftpPath::new(to)?);
        let (from, to) = (self.tree.entry(from)?, self.tree.entry(to)?);
        let flags = AtFlags::empty();
        linkat(from.folder(), from.name(), to.folder(), to.name(), flags)?;
        Ok(OperationStep::Well)
    }

    /// Creates a symbolic link. Its target is any text: it is checked when it is followed.
    pub(super) fn symlink(
        &mut self,
        target: &[u8],
        link: &[u8],
    ) -> Result<OperationStep, SftpStatus> {
        let (target, link) = (SftpPath::new(target)?, SftpPath::new(link)?);
        let place = self.tree.entry(link)?;
        symlinkat(target.bytes(), place.folder(), place.name())?;
        Ok(OperationStep::Well)
    }

    pub(super) fn readlink(&mut self, id: u32, path: &[u8]) -> Result<OperationStep, SftpStatus> {
        let place = self.tree.entry(SftpPath::new(path)?)?;
        let target = readlinkat(place.folder(), place.name(), Vec::new())?;
        self.tell_path(id, target.to_bytes())
    }

    pub(super) fn realpath(&mut self, id: u32, path: &[u8]) -> Result<OperationStep, SftpStatus> {
        let real = self.tree.real(SftpPath::new(path)?)?;
        self.tell_path(id, &real)
    }

    /// Serves `expand-path@`: as a shell takes `~` and `~user`.
    pub(super) fn expand_path(
        &mut self,
        id: u32,
        path: &[u8],
    ) -> Result<OperationStep, SftpStatus> {
        let Some(after) = path.strip_prefix(b"~") else {
            return self.realpath(id, path);
        };
        let end = after.iter().position(|byte| *byte == b'/');
        let (user, rest) = after.split_at(end.unwrap_or(after.len()));
        let home = self.home_of(user)?;
        self.realpath(id, &[home.as_slice(), rest].concat())
    }

    pub(super) fn home_directory(
        &mut self,
        id: u32,
        user: &[u8],
    ) -> Result<OperationStep, SftpStatus> {
        let home = self.home_of(user)?;
        self.realpath(id, &home)
    }

    /// Returns the home of a user; within a root it is the root.
    fn home_of(&mut self, user: &[u8]) -> Result<Vec<u8>, SftpStatus> {
        if !self.tree.is_whole() {
            return Ok(b"/".to_vec());
        }
        let own = std::env::var_os("HOME").filter(|_| user.is_empty());
        let home = match own {
            Some(home) => Some(home.into_vec()),
            None => self.people.home(user),
        };
        home.ok_or(SftpStatus::new(Code::NoSuchFile, "no such account"))
    }

    /// Serves `users-groups-by-id@`: unknown ones are empty.
    pub(super) fn names_by_id(
        &mut self,
        id: u32,
        users: &[u8],
        groups: &[u8],
    ) -> Result<OperationStep, SftpStatus> {
        let (users, []) = users.as_chunks::<4>() else {
            return Err(SftpStatus::MALFORMED);
        };
        let (groups, []) = groups.as_chunks::<4>() else {
            return Err(SftpStatus::MALFORMED);
        };
        if users.len() + groups.len() > MAX_SFTP_IDS {
            return Err(SftpStatus::new(Code::Failure, "too many numbers at once"));
        }
        let people = &mut self.people;
        let mut name = |number: &[u8; 4], find: fn(&mut _, u32) -> Option<&str>| {
            let name = find(people, u32::from_be_bytes(*number));
            // A longer one is no account's, and would not fit.
            name.filter(|name| name.len() < 256)
                .unwrap_or_default()
                .to_owned()
        };
        let user = |number| name(number, super::people::People::user);
        let users: Vec<String> = users.iter().map(user).collect();
        let group = |number| name(number, super::people::People::group);
        let groups: Vec<String> = groups.iter().map(group).collect();
        self.answers.lists(id, [&users, &groups]);
        Ok(OperationStep::Answered)
    }

    fn tell_path(&mut self, id: u32, path: &[u8]) -> Result<OperationStep, SftpStatus> {
        self.answers.names(id, |names| {
            names.push(path, path, &Attributes::default());
            Ok::<_, SftpStatus>(())
        })?;
        Ok(OperationStep::Answered)
    }
}

/// Returns the attributes of a name. What is above the root is not shown: there, `..` looks like `.`.
fn stat_of_entry(folder: &OwnedFd, name: &CStr, is_whole: bool) -> Result<Stat, Errno> {
    let name = if name == c".." && !is_whole {
        c"."
    } else {
        name
    };
    statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)
}

/// Changes the mode of an entry. The kernel does so by path and follows links, or by an open descriptor. The way
/// round both is the name of a descriptor that only marks the place.
fn change_mode_of_entry(place: &SftpLocation<'_>, mode: Mode) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let entry = openat(place.folder(), place.name(), flags, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&entry)?.st_mode) == FileType::Symlink {
        return Err(Errno::OPNOTSUPP);
    }
    chmodat(CWD, name_of(&entry), mode, AtFlags::empty())
}

fn set_times(
    place: &SftpLocation<'_>,
    attributes: &Attributes,
    flags: AtFlags,
) -> Option<Result<(), Errno>> {
    let times = timestamps(attributes.times?);
    Some(utimensat(place.folder(), place.name(), &times, flags))
}

fn set_owner(
    place: &SftpLocation<'_>,
    attributes: &Attributes,
    flags: AtFlags,
) -> Option<Result<(), Errno>> {
    let (user, group) = attributes.owner?;
    let (user, group) = (
        owner(user).map(Uid::from_raw),
        owner(group).map(Gid::from_raw),
    );
    Some(chownat(place.folder(), place.name(), user, group, flags))
}

/// Returns an owner to set; the highest number means "leave as it is" to the kernel.
fn owner(number: u32) -> Option<u32> {
    Some(number).filter(|number| *number != u32::MAX)
}

fn timestamps((read, changed): (u32, u32)) -> Timestamps {
    let at = |seconds: u32| Timespec {
        tv_sec: seconds.into(),
        tv_nsec: 0,
    };
    Timestamps {
        last_access: at(read),
        last_modification: at(changed),
    }
}

/// Returns the first failure after all parts were tried, as OpenSSH does.
fn all<const N: usize>(parts: [Option<Result<(), Errno>>; N]) -> Result<OperationStep, SftpStatus> {
    parts.into_iter().flatten().collect::<Result<(), Errno>>()?;
    Ok(OperationStep::Well)
}

fn now() -> i64 {
    WallTime::now().secs().max(0)
}
