//! The files and folders that a client has open.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use holdfast_protocol::sftp::Code;
use rustix::fs::{
    Access, AtFlags, CWD, FileType, Mode, OFlags, accessat, fcntl_getfl, fstat, open,
};
use rustix::io::Errno;

use super::root::name_of;
use super::status::SftpStatus;
use crate::sftp::limits::{MAX_SFTP_FAILED, MAX_SFTP_HANDLES};

/// The open files and folders, by name. A name is never used twice, so that a late request for what was closed meets
/// nothing else.
#[derive(Debug, Default)]
pub(super) struct Handles {
    open: BTreeMap<Name, Handle>,
    next: u64,
    /// The reason why what was to be open under a given name is not, until it is closed.
    failed: BTreeMap<u32, SftpStatus>,
    /// Names that are given are this at least.
    next_given: u64,
}

/// The form of a handle: eight bytes if the server named it, four if the relay did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    Own(u64),
    Given(u32),
}

/// Something that is open.
#[derive(Debug)]
pub(super) enum Handle {
    /// To be read and written.
    File(OwnedFd),
    /// To be listed.
    Folder(OwnedFd),
    /// A file that is closed, but for its name: where it is, and how it was open.
    Released(OwnedFd, OFlags),
}

impl Handle {
    /// Returns the descriptor of a file or folder.
    pub(super) fn descriptor(&self) -> &OwnedFd {
        match self {
            Self::File(descriptor) | Self::Folder(descriptor) | Self::Released(descriptor, _) => {
                descriptor
            }
        }
    }
}

impl Handles {
    /// Returns whether one more may be opened: asked before, because opening may create or cut off a file.
    pub(super) fn have_room(&self) -> bool {
        self.open.len() < MAX_SFTP_HANDLES
    }

    /// Keeps it, and gives the name by which the client calls it.
    pub(super) fn insert(&mut self, handle: Handle) -> [u8; 8] {
        let number = self.next;
        self.next += 1;
        self.open.insert(Name::Own(number), handle);
        number.to_be_bytes()
    }

    /// Takes a name that the caller gives to what is opened next. Such names count up.
    ///
    /// # Errors
    /// It is none, or no new one.
    pub(super) fn claim(&mut self, name: &[u8]) -> Result<u32, SftpStatus> {
        let wrong = SftpStatus::new(Code::Failure, "no name for a handle");
        let Some(Name::Given(number)) = Name::of(name) else {
            return Err(wrong);
        };
        if u64::from(number) < self.next_given {
            return Err(wrong);
        }
        self.next_given = u64::from(number) + 1;
        Ok(number)
    }

    /// Keeps it under the name that was claimed for it.
    pub(super) fn insert_as(&mut self, name: &[u8], handle: Handle) {
        if let Some(name) = Name::of(name) {
            self.open.insert(name, handle);
        }
    }

    /// Notes that what was to be open under this name is not. Of more than [`MAX_SFTP_FAILED`] the oldest are
    /// forgotten, and are handles that are unknown.
    pub(super) fn fail(&mut self, number: u32, why: SftpStatus) {
        if self.failed.len() >= MAX_SFTP_FAILED {
            self.failed.pop_first();
        }
        self.failed.insert(number, why);
    }

    /// Returns why there is nothing under this name, if it was to be.
    pub(super) fn failure(&self, name: &[u8]) -> Option<&SftpStatus> {
        match Name::of(name)? {
            Name::Given(number) => self.failed.get(&number),
            Name::Own(_) => None,
        }
    }

    /// Forgets a handle whose file could not be opened.
    pub(super) fn forget(&mut self, name: &[u8]) {
        if let Some(Name::Given(number)) = Name::of(name) {
            self.failed.remove(&number);
        }
    }

    /// Returns what the client calls so.
    pub(super) fn get(&self, name: &[u8]) -> Option<&Handle> {
        self.open.get(&Name::of(name)?)
    }

    /// Returns a file that the client calls so.
    pub(super) fn file(&self, name: &[u8]) -> Option<&OwnedFd> {
        match self.get(name)? {
            Handle::File(file) => Some(file),
            Handle::Folder(_) | Handle::Released(..) => None,
        }
    }

    /// Closes a file that is only written, and keeps its name: a process that runs it or waits for its end finds it
    /// closed. It is left open if it could not be opened again.
    ///
    /// # Errors
    /// It is left open.
    pub(super) fn release(&mut self, name: &[u8]) -> Result<(), SftpStatus> {
        let open = Name::of(name).and_then(|name| self.open.get_mut(&name));
        let Some(handle @ Handle::File(_)) = open else {
            return Err(SftpStatus::NO_HANDLE);
        };
        let file = handle.descriptor();
        let flags = fcntl_getfl(file)?;
        // What is no file, or may not be opened a second time by its owner either, is left alone.
        let is_file = FileType::from_raw_mode(fstat(file)?.st_mode).is_file();
        if !is_file || flags & OFlags::RWMODE != OFlags::WRONLY {
            return Err(Errno::OPNOTSUPP.into());
        }
        let place = self::open(name_of(file), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        accessat(CWD, name_of(&place), Access::WRITE_OK, AtFlags::EACCESS)?;
        let keep = OFlags::RWMODE | OFlags::APPEND | OFlags::NONBLOCK;
        *handle = Handle::Released(place, flags & keep);
        Ok(())
    }

    /// Opens again what was released, because something is asked of it.
    ///
    /// # Errors
    /// The kernel's: its owner was changed in the meantime.
    pub(super) fn wake(&mut self, name: &[u8]) -> Result<(), Errno> {
        let open = Name::of(name).and_then(|name| self.open.get_mut(&name));
        let Some(handle @ Handle::Released(..)) = open else {
            return Ok(());
        };
        if let Handle::Released(place, flags) = handle {
            let flags = *flags | OFlags::CLOEXEC | OFlags::NOCTTY;
            *handle = Handle::File(self::open(name_of(place), flags, Mode::empty())?);
        }
        Ok(())
    }

    /// Lets go of it.
    pub(super) fn remove(&mut self, name: &[u8]) -> Option<Handle> {
        self.open.remove(&Name::of(name)?)
    }
}

impl Name {
    fn of(name: &[u8]) -> Option<Self> {
        let own = || name.try_into().ok().map(u64::from_be_bytes);
        let given = || name.try_into().ok().map(u32::from_be_bytes);
        own().map(Self::Own).or_else(|| given().map(Self::Given))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> OwnedFd {
        std::fs::File::open("/").unwrap().into()
    }

    #[test]
    fn a_name_is_never_used_again() {
        let mut handles = Handles::default();
        let first = handles.insert(Handle::Folder(folder()));
        assert!(handles.get(&first).is_some());
        assert!(handles.file(&first).is_none());
        assert!(handles.remove(&first).is_some());
        let second = handles.insert(Handle::File(folder()));
        assert_ne!(first, second);
        assert!(handles.get(&first).is_none());
        assert!(handles.file(&second).is_some());
        for wrong in [&b""[..], &[0; 7], &[0; 9], &[255; 8]] {
            assert!(handles.get(wrong).is_none());
        }
    }

    #[test]
    fn a_name_that_is_given_is_new_and_none_of_the_servers() {
        let mut handles = Handles::default();
        let own = handles.insert(Handle::Folder(folder()));
        for wrong in [&own[..], b"", b"abc", b"abcde", &[0; 8]] {
            assert!(handles.claim(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(handles.claim(&[0, 0, 0, 5]).unwrap(), 5);
        for old in [[0, 0, 0, 5], [0, 0, 0, 4], [0; 4]] {
            assert!(handles.claim(&old).is_err(), "{old:?}");
        }
        assert_eq!(handles.claim(&[255; 4]).unwrap(), u32::MAX);
        assert!(handles.claim(&[255; 4]).is_err());
        assert!(handles.get(&own).is_some());
    }

    #[test]
    fn failures_are_few() {
        let mut handles = Handles::default();
        let most = u32::try_from(MAX_SFTP_FAILED).unwrap();
        for number in 0..=most {
            handles.fail(number, SftpStatus::READ_ONLY);
        }
        assert!(handles.failure(&[0; 4]).is_none());
        assert!(handles.failure(&1_u32.to_be_bytes()).is_some());
        assert!(handles.failure(&most.to_be_bytes()).is_some());
        assert_eq!(handles.failed.len(), MAX_SFTP_FAILED);
    }
}
