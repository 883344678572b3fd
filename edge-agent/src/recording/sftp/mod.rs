//! The operations of a file transfer as its recording has them: those that the protocol's follower sees.

use std::collections::VecDeque;

use holdfast_protocol::recording::record::{Event, FileKind, FileOperation, RecordedBytes};
use holdfast_protocol::sftp::{FileAction, FileOutcome, Followed, Follower, Operation};

/// SFTP's status code for an operation that was still under way when its connection ended.
const CONNECTION_LOST: u32 = 7;

/// Of an operation whose outcome is not known: following ended before it.
const NOT_FOLLOWED: u32 = u32::MAX;

/// Follows both directions.
#[derive(Debug, Default)]
pub(super) struct FollowedTransfer {
    follower: Follower,
    seen: VecDeque<SftpStream>,
}

/// An operation to be recorded.
#[derive(Debug, PartialEq, Eq)]
enum SftpStream {
    Done(EndedOperation),
    /// From here on nothing is known, for this reason.
    Unfollowed(String),
}

/// An operation that has ended.
#[derive(Debug, PartialEq, Eq)]
struct EndedOperation {
    kind: FileKind,
    path: Vec<u8>,
    other: Option<Vec<u8>>,
    size: u64,
    result: u32,
}

impl FollowedTransfer {
    /// Notes that the client has sent this.
    pub(super) fn handle_requests(&mut self, bytes: &[u8]) {
        self.follower.handle_requests(bytes);
        self.take();
    }

    /// Notes that the server has answered this.
    pub(super) fn handle_answers(&mut self, bytes: &[u8]) {
        self.follower.handle_answers(bytes);
        self.take();
    }

    /// Notes that the session is over: what is open will not be closed any more.
    pub(super) fn finish(&mut self) {
        self.follower.finish();
        self.take();
    }

    /// Returns the next record.
    pub(super) fn front(&self) -> Option<Event<'_>> {
        self.seen.front().map(|seen| match seen {
            SftpStream::Done(done) => Event::File(FileOperation {
                kind: done.kind,
                path: RecordedBytes(&done.path),
                other: done.other.as_deref().map(RecordedBytes),
                size: done.size,
                result: done.result,
            }),
            SftpStream::Unfollowed(why) => Event::FilesUnfollowed(why),
        })
    }

    /// Removes the operation that was recorded.
    pub(super) fn pop(&mut self) {
        self.seen.pop_front();
    }

    fn take(&mut self) {
        while let Some(followed) = self.follower.poll() {
            match followed {
                Followed::Operation(operation) => self.done(operation),
                Followed::Lost(why) => self.seen.push_back(SftpStream::Unfollowed(why.to_string())),
            }
        }
    }

    fn done(&mut self, operation: Operation) {
        let Operation {
            action,
            path,
            to,
            outcome,
            read,
            written,
        } = operation;
        let result = match outcome {
            FileOutcome::Status { code, .. } => code,
            FileOutcome::NotAnswered | FileOutcome::NotClosed => CONNECTION_LOST,
            FileOutcome::NotFollowed => NOT_FOLLOWED,
        };
        // A file that was written and read is both.
        if action == FileAction::Write && read > 0 {
            self.seen.push_back(SftpStream::Done(EndedOperation {
                kind: FileKind::Read,
                path: path.clone(),
                other: None,
                size: read,
                result,
            }));
        }
        self.seen.push_back(SftpStream::Done(EndedOperation {
            kind: FileKind::from(action),
            path,
            other: to,
            size: if action == FileAction::Write {
                written
            } else {
                read
            },
            result,
        }));
    }
}

#[cfg(test)]
mod tests;
