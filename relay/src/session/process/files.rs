//! Follows the file operations of an sftp session, from the splice to the audit log.

use std::collections::VecDeque;

use holdfast_protocol::sftp::{Followed, Follower};
use tracing::warn;

use crate::model::role::Ability;
use crate::session::admission::recorded::Recorded;
use crate::session::registry::LiveSession;
use crate::session::report::Report;
use crate::session::sftp::Booked;
use crate::session::sftp::ahead::Ahead;
use crate::sync::Mutex;

/// The file operations of an sftp session, for the audit log; nothing of any other session.
pub(crate) struct Files<'a> {
    session: &'a LiveSession,
    report: &'a Report,
    recorded: Option<&'a Recorded>,
    follower: Option<Mutex<Follower>>,
    ahead: Option<Ahead>,
    /// Operations that are not in the log yet. One that is being written stays here until it is: a session that is
    /// cut off drops what writes, and its end goes on with the rest.
    unbooked: Mutex<VecDeque<Followed>>,
    /// Held by what writes the first of them.
    booking: tokio::sync::Mutex<()>,
}

impl<'a> Files<'a> {
    /// Returns the files of a session.
    #[must_use]
    pub(crate) fn of(
        session: &'a LiveSession,
        report: &'a Report,
        recorded: Option<&'a Recorded>,
    ) -> Self {
        let sftp = session.authorized.ability() == Ability::Sftp;
        Self {
            session,
            report,
            recorded,
            follower: sftp.then(Mutex::default),
            ahead: sftp.then(Ahead::default),
            unbooked: Mutex::default(),
            booking: tokio::sync::Mutex::default(),
        }
    }

    /// Returns the guesses of the session; `None` if it is no session of files.
    #[must_use]
    pub(crate) fn ahead(&self) -> Option<&Ahead> {
        self.ahead.as_ref()
    }

    /// Follows data that was sent to the device.
    pub(crate) async fn sent(&self, data: &[u8]) {
        self.follow(|follower| follower.handle_requests(data)).await;
    }

    /// Follows data that the device answered.
    pub(crate) async fn answered(&self, data: &[u8]) {
        self.follow(|follower| follower.handle_answers(data)).await;
    }

    /// Notes that the session is over.
    pub(crate) async fn end(&self) {
        let Some(follower) = &self.follower else {
            return;
        };
        let (possible, seen, unseen) = {
            let mut follower = follower.lock();
            let possible = follower.possible();
            follower.finish();
            let (seen, unseen) = taken(&mut follower);
            (possible, seen, unseen)
        };
        if let Some(Recorded { watched, .. }) = self.recorded {
            watched.finish_files(&seen, &possible);
        }
        self.book(seen, unseen).await;
    }

    async fn follow(&self, what: impl FnOnce(&mut Follower)) {
        let Some(follower) = &self.follower else {
            return;
        };
        let (seen, unseen) = {
            let mut follower = follower.lock();
            what(&mut follower);
            taken(&mut follower)
        };
        if let Some(Recorded { watched, .. }) = self.recorded.filter(|_| !seen.is_empty()) {
            watched.follow_files(&seen);
        }
        self.book(seen, unseen).await;
    }

    async fn book(&self, seen: Vec<Followed>, unseen: u64) {
        self.count(&seen, unseen);
        self.unbooked.lock().extend(seen);
        let _turn = self.booking.lock().await;
        loop {
            let Some(first) = self.unbooked.lock().front().cloned() else {
                return;
            };
            let booked = match first {
                Followed::Operation(operation) => Booked::operation(operation),
                Followed::Lost(why) => {
                    let why = why.to_string();
                    self.lost(&why).await;
                    Some(Booked::unfollowed(&why))
                }
            };
            if let Some(booked) = booked {
                self.report.sftp(self.session, booked).await;
            }
            self.unbooked.lock().pop_front();
        }
    }

    /// Counts what the device records of this: a path that was sent once is recorded with each operation on its handle.
    fn count(&self, seen: &[Followed], unseen: u64) {
        let Some(Recorded { watched, .. }) = self.recorded else {
            return;
        };
        let recorded = seen.iter().map(|followed| match followed {
            Followed::Operation(operation) => operation.recorded(),
            Followed::Lost(_) => 0,
        });
        let booked = recorded.fold(unseen, u64::saturating_add);
        if booked > 0 {
            watched.book(booked);
        }
    }

    /// Stops guessing, and the verification of the recording: what it says of files, the relay cannot compare.
    async fn lost(&self, why: &str) {
        if let Some(ahead) = &self.ahead {
            ahead.give_up();
        }
        warn!(session = %self.session.id, why, "the file operations of a session are not followed any more");
        let Some(Recorded {
            recordings,
            watched,
        }) = self.recorded
        else {
            return;
        };
        if let Err(error) = recordings.unfollowed(watched.id, why).await {
            warn!(session = %watched.id, %error, "cannot store that the file operations of a session are not followed");
        }
    }
}

/// Returns what a follower has seen, and the most bytes of records beside that.
fn taken(follower: &mut Follower) -> (Vec<Followed>, u64) {
    let seen = std::iter::from_fn(|| follower.poll()).collect();
    (seen, follower.take_unseen())
}
