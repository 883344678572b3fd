//! Lists the operations that the other follower may see of a session that was cut off, beside those that are unanswered
//! or open here.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::Follower;
use super::outcome::FollowedFile;
use crate::limits::MAX_SFTP_UNDER_WAY;
use crate::sftp::operation::{FileAction, FileOutcome, Operation};
use crate::sftp::pending::Pending;

/// Operations that may have been done: their requests have passed, and their answers have not. What
/// [`Follower::finish`] leaves is not among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PossibleOperations {
    /// Each with its action and its paths; the rest is not known.
    pub operations: Vec<Operation>,
    /// True if no others may have been done.
    pub is_complete: bool,
}

impl Follower {
    /// Returns what the other follower may see if the session ends now.
    #[must_use]
    pub fn possible(&self) -> PossibleOperations {
        let mut found = PossibleOperations {
            operations: Vec::new(),
            is_complete: self.lost.is_none(),
        };
        // A handle that the server has not named yet may be any of what is being opened.
        let is_named =
            |pending: &Pending| !matches!(pending, Pending::Open { .. } | Pending::List(_));
        let names_all = self.pending.values().all(is_named);
        let mut opening = BTreeMap::new();
        for pending in self.pending.values() {
            if let Pending::OpenAs { handle, path, .. } = pending {
                found.is_complete &= opening.insert(&**handle, &**path).is_none();
            }
        }
        let paths = |handle: &[u8]| {
            let open = self.open.get(handle).map(FollowedFile::path);
            open.into_iter().chain(opening.get(handle).copied())
        };
        for file in self.open.values() {
            if let Some(path) = file.unread() {
                found.push(FileAction::Read, path, None);
            }
        }
        for pending in self.pending.values() {
            match pending {
                Pending::Open { path, writes: true }
                | Pending::OpenAs {
                    path, writes: true, ..
                } => {
                    found.push(FileAction::Read, path, None);
                }
                Pending::ByHandle(action, handle) => {
                    found.is_complete &= names_all;
                    for path in paths(handle) {
                        found.push(*action, path, None);
                    }
                }
                Pending::Copy(from, to) => {
                    found.is_complete &= names_all;
                    for (from, to) in
                        paths(from).flat_map(|from| paths(to).map(move |to| (from, to)))
                    {
                        found.push(FileAction::Copy, from, Some(to));
                    }
                }
                _ => {}
            }
        }
        found
    }
}

impl PossibleOperations {
    fn push(&mut self, action: FileAction, path: &[u8], to: Option<&[u8]>) {
        if self.operations.len() >= MAX_SFTP_UNDER_WAY {
            self.is_complete = false;
            return;
        }
        self.operations.push(Operation {
            to: to.map(<[u8]>::to_vec),
            ..Operation::new(action, path.to_vec(), FileOutcome::NotAnswered)
        });
    }
}
