//! SFTP of a session as it goes by: what is booked of it in the audit log, and what the relay asks and answers ahead of
//! its client.
//!
//! The protocol's follower ([`holdfast_protocol::sftp::follow`]) sees what was done; here it gets the names of the log.

pub(crate) mod ahead;
mod puts;

use holdfast_protocol::sftp::{FileAction, FileOutcome, Operation};

/// An operation as the audit log has it. These names are relied upon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Booked {
    /// `read`, `write`, `copy`, `list`, `remove`, `mkdir`, `rmdir`, `rename`, `symlink`, `link`, `setstat`; or
    /// `unfollowed`, behind which there may be more.
    pub name: &'static str,
    /// The path, as the client gave it.
    pub path: Vec<u8>,
    /// The new path, of a rename or a link.
    pub to: Option<Vec<u8>>,
    /// `ok`, or what the device said instead.
    pub result: String,
    /// Bytes of the file that came from the device.
    pub bytes_read: u64,
    /// Bytes of it that the device took.
    pub bytes_written: u64,
}

impl Booked {
    /// Returns what is booked of an operation; `None` of one that only asks.
    #[must_use]
    pub(crate) fn operation(operation: Operation) -> Option<Self> {
        let Operation {
            action,
            path,
            to,
            outcome,
            read,
            written,
        } = operation;
        Some(Self {
            name: name(action)?,
            path,
            to,
            result: result(outcome),
            bytes_read: read,
            bytes_written: written,
        })
    }

    /// Returns the entry that following has ended.
    #[must_use]
    pub(crate) fn unfollowed(why: &str) -> Self {
        Self {
            name: "unfollowed",
            path: vec![],
            to: None,
            result: why.to_owned(),
            bytes_read: 0,
            bytes_written: 0,
        }
    }
}

fn name(action: FileAction) -> Option<&'static str> {
    Some(match action {
        FileAction::Read => "read",
        FileAction::Write => "write",
        FileAction::Copy => "copy",
        FileAction::List => "list",
        FileAction::Remove => "remove",
        FileAction::MakeFolder => "mkdir",
        FileAction::RemoveFolder => "rmdir",
        FileAction::Rename => "rename",
        FileAction::Symlink => "symlink",
        FileAction::Link => "link",
        FileAction::SetAttributes => "setstat",
        FileAction::Stat | FileAction::Resolve | FileAction::Extension => return None,
    })
}

/// Returns a status in the device's words, or else by its number.
fn result(outcome: FileOutcome) -> String {
    match outcome {
        FileOutcome::Status { code: 0, .. } => "ok".to_owned(),
        FileOutcome::Status { code, text } if text.is_empty() => format!("status {code}"),
        FileOutcome::Status { text, .. } => String::from_utf8_lossy(&text).into_owned(),
        FileOutcome::NotAnswered => "not answered".to_owned(),
        FileOutcome::NotClosed => "not closed".to_owned(),
        FileOutcome::NotFollowed => "not followed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_is_what_the_device_said() {
        let said = |code, text: &[u8]| {
            let text = text.to_vec();
            result(FileOutcome::Status { code, text })
        };
        assert_eq!(said(0, b"Success"), "ok");
        assert_eq!(said(4, b""), "status 4");
        assert_eq!(said(4, b"No space left"), "No space left");
        assert_eq!(result(FileOutcome::NotFollowed), "not followed");
    }

    #[test]
    fn what_only_asks_is_not_booked() {
        let operation = |action| {
            Booked::operation(Operation {
                action,
                path: b"f".to_vec(),
                to: None,
                outcome: FileOutcome::OK,
                read: 0,
                written: 7,
            })
        };
        assert_eq!(operation(FileAction::Stat), None);
        let written = operation(FileAction::Write).unwrap();
        assert_eq!((written.name, written.bytes_written), ("write", 7));
    }
}
