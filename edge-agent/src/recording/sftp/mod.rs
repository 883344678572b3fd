//! The operations of a file transfer as its recording has them: those that the protocol's follower sees.

use std::collections::VecDeque;

use holdfast_protocol::recording::record::{Event, FileOperation};
use holdfast_protocol::sftp::{Followed, Follower, Operation};

/// Follows both directions.
#[derive(Debug, Default)]
pub(super) struct FollowedTransfer {
    follower: Follower,
    seen: VecDeque<SftpStream>,
}

/// Something to be recorded.
#[derive(Debug)]
enum SftpStream {
    /// An operation, and how many of its records are written.
    Done(Operation, usize),
    /// From here on nothing is known, for this reason.
    Unfollowed(String),
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
        match self.seen.front()? {
            SftpStream::Done(operation, written) => {
                FileOperation::of(operation).nth(*written).map(Event::File)
            }
            SftpStream::Unfollowed(why) => Some(Event::FilesUnfollowed(why)),
        }
    }

    /// Removes the record that was written.
    pub(super) fn pop(&mut self) {
        if let Some(SftpStream::Done(operation, written)) = self.seen.front_mut() {
            *written += 1;
            if FileOperation::of(operation).nth(*written).is_some() {
                return;
            }
        }
        self.seen.pop_front();
    }

    fn take(&mut self) {
        let seen = std::iter::from_fn(|| self.follower.poll());
        self.seen.extend(seen.map(|followed| match followed {
            Followed::Operation(operation) => SftpStream::Done(operation, 0),
            Followed::Lost(why) => SftpStream::Unfollowed(why.to_string()),
        }));
    }
}

#[cfg(test)]
mod tests;
