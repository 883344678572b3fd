//! The errors of a state folder, in sentences that name the file and the remedy.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// The reason why the state folder cannot be used.
#[derive(Debug, Error)]
pub(crate) enum StateError {
    /// No relay was ever started here.
    #[error(
        "no relay state in {0}: start `relay serve --state {0}` once, or name the right folder with --state"
    )]
    NoState(PathBuf),
    /// Another relay serves from the folder.
    #[error(
        "a relay already serves from {dir} (pid {pid}): stop it first, or give this one a folder of its own"
    )]
    Locked {
        /// The folder.
        dir: PathBuf,
        /// The process that holds the lock, as it wrote it down, or `unknown`.
        pid: String,
    },
    /// A file that was there at the first start is gone.
    #[error(
        "{0} is missing: restore it from a backup; the relay makes no new one, because devices and operators trust the old one"
    )]
    Missing(PathBuf),
    /// The folder is of a version that made no recordings.
    #[error("{0} is of an earlier version: start `relay serve` of this version once")]
    Older(PathBuf),
    /// A file does not hold what it must.
    #[error("{file} is damaged (expected {expected}, found {found}): restore it from a backup")]
    Damaged {
        /// The file.
        file: PathBuf,
        /// The expected content.
        expected: &'static str,
        /// The content.
        found: String,
    },
    /// A file or the folder can be reached by others than the owner.
    #[error("{path} is open to other users (mode {mode:04o}): run `chmod {wanted:o} {path}`")]
    Exposed {
        /// The file or folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// The expected permissions.
        wanted: u32,
    },
    /// The folder, or the link that leads to it, belongs to another account.
    #[error(
        "{path} belongs to user id {owner}, and this relay runs as user id {own}: start it as that account, or give it a \
         folder of its own with --state"
    )]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// The owner of the folder or link.
        owner: u32,
        /// The relay's own user id.
        own: u32,
    },
    /// The operating system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// The action that failed.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// No random numbers, or a key that cannot be written as text: the cryptographic library failed.
    #[error("the cryptographic library failed to make a key: {0}")]
    Crypto(&'static str),
}
