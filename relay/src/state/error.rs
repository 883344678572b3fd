//! The errors of a state folder, in sentences that name the file and the remedy.

use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::model::invalid::Fault;

/// The reason why the state folder cannot be used.
#[derive(Debug, Error)]
pub(crate) enum StateError {
    /// No relay was ever started here.
    NoState(PathBuf),
    /// A relay has the folder already, so that no other can join in it.
    InUse(PathBuf),
    /// A join in the folder was cut short.
    Joining(PathBuf),
    /// Another relay serves from the folder.
    Locked {
        /// The folder.
        dir: PathBuf,
        /// The process that holds the lock, as it wrote it down, or `unknown`.
        pid: String,
    },
    /// A file that was there at the first start is gone.
    Missing(PathBuf),
    /// The folder is of a version that made no recordings.
    Older(PathBuf),
    /// A file does not hold what it must.
    Damaged {
        /// The file.
        file: PathBuf,
        /// The expected content.
        expected: &'static str,
        /// The content.
        found: String,
    },
    /// A file or the folder can be reached by others than the owner.
    Exposed {
        /// The file or folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// The expected permissions.
        wanted: u32,
    },
    /// The folder, or the link that leads to it, belongs to another account.
    Foreign {
        /// The folder.
        path: PathBuf,
        /// The owner of the folder or link.
        owner: u32,
        /// The relay's own user id.
        own: u32,
    },
    /// The folder belongs to another database.
    OtherDatabase {
        /// The folder.
        dir: PathBuf,
        /// Its database, without a password.
        known: String,
        /// The one that was asked for, without a password.
        asked: String,
    },
    /// The operating system refused.
    Io {
        /// The action that failed.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// No random numbers, or a key that cannot be written as text: the cryptographic library failed.
    Crypto(&'static str),
}

impl StateError {
    /// Returns what was found, and the remedy.
    pub(crate) fn fault(&self) -> Fault {
        match self {
            Self::NoState(dir) => {
                let dir = dir.display();
                Fault::with_remedy(
                    format!("no relay state in {dir}"),
                    format!(
                        "start `relay serve --state {dir}` once, or name the right folder with --state"
                    ),
                )
            }
            Self::InUse(dir) => Fault::with_remedy(
                format!("{} is not empty", dir.display()),
                "a relay joins in a new state folder: name one with --state",
            ),
            Self::Joining(dir) => Fault::with_remedy(
                format!("a `relay cluster join` in {} was cut short", dir.display()),
                "give it again, with the same token or a new one",
            ),
            Self::Locked { dir, pid } => Fault::with_remedy(
                format!("a relay already serves from {} (pid {pid})", dir.display()),
                "stop it first, or give this one a folder of its own",
            ),
            Self::Missing(file) => Fault::with_remedy(
                format!("{} is missing", file.display()),
                "restore it from a backup; the relay makes no new one, because devices and operators trust the old one",
            ),
            Self::OtherDatabase { dir, known, asked } => Fault::with_remedy(
                format!(
                    "{} has the database {known}, and --database is {asked}",
                    dir.display()
                ),
                "start without --database; the state in a file moves to a server by `relay migrate --to`",
            ),
            Self::Older(dir) => Fault::with_remedy(
                format!("{} is of an earlier version", dir.display()),
                "start `relay serve` of this version once",
            ),
            Self::Damaged {
                file,
                expected,
                found,
            } => Fault::with_remedy(
                format!(
                    "{} is damaged (expected {expected}, found {found})",
                    file.display()
                ),
                "restore it from a backup",
            ),
            Self::Exposed { path, mode, wanted } => {
                let path = path.display();
                Fault::with_remedy(
                    format!("{path} is open to other users (mode {mode:04o})"),
                    format!("run `chmod {wanted:o} {path}`"),
                )
            }
            Self::Foreign { path, owner, own } => Fault::with_remedy(
                format!(
                    "{} belongs to user id {owner}, and this relay runs as user id {own}",
                    path.display()
                ),
                "start it as that account, or give it a folder of its own with --state",
            ),
            Self::Io {
                action,
                path,
                source,
            } => Fault::new(format!("cannot {action} {}: {source}", path.display())),
            Self::Crypto(why) => Fault::new(format!(
                "the cryptographic library failed to make a key: {why}"
            )),
        }
    }
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fault().fmt(f)
    }
}
