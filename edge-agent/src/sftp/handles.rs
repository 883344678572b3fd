//! What a client has open.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use crate::limits::MAX_SFTP_HANDLES;

/// What is open, by number. A number is never given out twice, so that a late request for what was closed
/// meets nothing else.
#[derive(Debug, Default)]
pub(super) struct Handles {
    open: BTreeMap<u64, Handle>,
    next: u64,
}

/// Something that is open.
#[derive(Debug)]
pub(super) enum Handle {
    /// To be read and written.
    File(OwnedFd),
    /// To be listed.
    Folder(OwnedFd),
}

impl Handle {
    /// Either.
    pub(super) fn descriptor(&self) -> &OwnedFd {
        match self {
            Self::File(descriptor) | Self::Folder(descriptor) => descriptor,
        }
    }
}

impl Handles {
    /// Whether one more may be opened: asked before, because opening may create or cut off a file.
    pub(super) fn have_room(&self) -> bool {
        self.open.len() < MAX_SFTP_HANDLES
    }

    /// Keeps it, and gives the name by which the client calls it.
    pub(super) fn insert(&mut self, handle: Handle) -> [u8; 8] {
        let number = self.next;
        self.next += 1;
        self.open.insert(number, handle);
        number.to_be_bytes()
    }

    /// What the client calls so.
    pub(super) fn get(&self, name: &[u8]) -> Option<&Handle> {
        self.open.get(&number(name)?)
    }

    /// A file that the client calls so.
    pub(super) fn file(&self, name: &[u8]) -> Option<&OwnedFd> {
        match self.get(name)? {
            Handle::File(file) => Some(file),
            Handle::Folder(_) => None,
        }
    }

    /// Lets go of it.
    pub(super) fn remove(&mut self, name: &[u8]) -> Option<Handle> {
        self.open.remove(&number(name)?)
    }
}

fn number(name: &[u8]) -> Option<u64> {
    name.try_into().ok().map(u64::from_be_bytes)
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
}
