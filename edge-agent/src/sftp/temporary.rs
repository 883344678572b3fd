//! Files that go with the session, unless they have got another name by then: who copies a file onto a device writes it
//! under a name of no use, and may be gone before it has the right one.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use holdfast_protocol::sftp::Code;
use rustix::fs::{AtFlags, Stat, fstat, unlinkat};
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGTERM};

use super::root::{SftpPath, SftpTree};
use super::status::SftpStatus;
use crate::sftp::limits::MAX_SFTP_TEMPORARY;

/// Those of one client.
#[derive(Debug, Default)]
pub(super) struct Temporary {
    files: Vec<TemporaryFile>,
    /// Set by the signals that end a session; `None` as long as they may end the process as they do.
    end_requested: Option<Arc<AtomicBool>>,
}

/// A file to remove: under this name, and only if it is still this one.
#[derive(Debug)]
struct TemporaryFile {
    path: Vec<u8>,
    stat: Stat,
}

impl Temporary {
    /// Prepares for a file that is about to be made: from here on no signal ends the process without its removal.
    ///
    /// # Errors
    /// There are [`MAX_SFTP_TEMPORARY`].
    pub(super) fn expect_one(&mut self) -> Result<(), SftpStatus> {
        if self.files.len() >= MAX_SFTP_TEMPORARY {
            return Err(SftpStatus::new(Code::Failure, "Too many temporary files"));
        }
        self.end_requested.get_or_insert_with(|| {
            let flag = Arc::new(AtomicBool::new(false));
            for signal in [SIGHUP, SIGTERM] {
                // It fails for signals that can't be caught, and these can.
                let _ = signal_hook::flag::register(signal, Arc::clone(&flag));
            }
            flag
        });
        Ok(())
    }

    /// Adds a file that was made under `path`.
    ///
    /// # Errors
    /// The kernel does not tell what it is.
    pub(super) fn add(&mut self, path: SftpPath<'_>, file: impl AsFd) -> Result<(), Errno> {
        let stat = fstat(file)?;
        let path = path.bytes().to_owned();
        self.files.push(TemporaryFile { path, stat });
        Ok(())
    }

    /// Returns whether a signal said that the session is over.
    pub(super) fn has_to_end(&self) -> bool {
        let flag = self.end_requested.as_ref();
        flag.is_some_and(|flag| flag.load(Ordering::Relaxed))
    }

    /// Takes away what is left of them.
    pub(super) fn remove(&mut self, tree: &SftpTree) {
        for file in self.files.drain(..) {
            // What can't be removed stays: no client is left to report it to.
            let _ = file.remove(tree);
        }
    }
}

impl TemporaryFile {
    fn remove(&self, tree: &SftpTree) -> Result<(), SftpStatus> {
        let place = tree.entry(SftpPath::new(&self.path)?)?;
        let stat = place.stat(AtFlags::SYMLINK_NOFOLLOW)?;
        if (stat.st_dev, stat.st_ino) == (self.stat.st_dev, self.stat.st_ino) {
            unlinkat(place.folder(), place.name(), AtFlags::empty())?;
        }
        Ok(())
    }
}
