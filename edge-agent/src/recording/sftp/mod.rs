//! What a session of file transfer does, as a recording says it: the operations that the protocol's follower sees.

use std::collections::VecDeque;

use holdfast_protocol::recording::record::{Bytes, Event, FileKind, FileOperation};
use holdfast_protocol::sftp::{Action, Followed, Follower, Operation, Outcome};

/// SFTP's status code for an operation that was still under way when its connection ended.
const CONNECTION_LOST: u32 = 7;

/// Of an operation whose outcome is not known: following ended before it.
const NOT_FOLLOWED: u32 = u32::MAX;

/// Follows both directions.
#[derive(Debug, Default)]
pub(super) struct Files {
    follower: Follower,
    seen: VecDeque<Seen>,
}

/// What is to be recorded.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Done(Done),
    /// From here on nothing is known, for this reason.
    Unfollowed(String),
}

/// An operation that has ended.
#[derive(Debug, PartialEq, Eq)]
struct Done {
    kind: FileKind,
    path: Vec<u8>,
    other: Option<Vec<u8>>,
    size: u64,
    result: u32,
}

impl Files {
    /// The client has sent this.
    pub(super) fn handle_requests(&mut self, bytes: &[u8]) {
        self.follower.handle_requests(bytes);
        self.take();
    }

    /// The server has answered this.
    pub(super) fn handle_answers(&mut self, bytes: &[u8]) {
        self.follower.handle_answers(bytes);
        self.take();
    }

    /// The session is over: what is open will not be closed any more.
    pub(super) fn finish(&mut self) {
        self.follower.finish();
        self.take();
    }

    /// The next record.
    pub(super) fn front(&self) -> Option<Event<'_>> {
        self.seen.front().map(|seen| match seen {
            Seen::Done(done) => Event::File(FileOperation {
                kind: done.kind,
                path: Bytes(&done.path),
                other: done.other.as_deref().map(Bytes),
                size: done.size,
                result: done.result,
            }),
            Seen::Unfollowed(why) => Event::FilesUnfollowed(why),
        })
    }

    /// It was recorded.
    pub(super) fn pop(&mut self) {
        self.seen.pop_front();
    }

    fn take(&mut self) {
        while let Some(followed) = self.follower.poll() {
            match followed {
                Followed::Operation(operation) => self.done(operation),
                Followed::Lost(why) => self.seen.push_back(Seen::Unfollowed(why.to_string())),
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
            Outcome::Status { code, .. } => code,
            Outcome::NotAnswered | Outcome::NotClosed => CONNECTION_LOST,
            Outcome::NotFollowed => NOT_FOLLOWED,
        };
        // A file that was written and read is both.
        if action == Action::Write && read > 0 {
            self.seen.push_back(Seen::Done(Done {
                kind: FileKind::Read,
                path: path.clone(),
                other: None,
                size: read,
                result,
            }));
        }
        self.seen.push_back(Seen::Done(Done {
            kind: kind(action),
            path,
            other: to,
            size: if action == Action::Write {
                written
            } else {
                read
            },
            result,
        }));
    }
}

fn kind(action: Action) -> FileKind {
    match action {
        Action::Read => FileKind::Read,
        Action::Write => FileKind::Write,
        Action::List => FileKind::List,
        Action::Stat => FileKind::Stat,
        Action::SetAttributes => FileKind::SetAttributes,
        Action::Remove => FileKind::Remove,
        Action::Rename => FileKind::Rename,
        Action::MakeFolder => FileKind::MakeFolder,
        Action::RemoveFolder => FileKind::RemoveFolder,
        Action::Symlink => FileKind::Symlink,
        Action::Link => FileKind::Link,
        Action::Resolve => FileKind::Resolve,
        // Relays of before do not know a kind of its own: it is one with two paths.
        Action::Copy | Action::Extension => FileKind::Other,
    }
}

#[cfg(test)]
mod tests;
