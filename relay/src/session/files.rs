//! What an sftp session does with files, from the splice to the audit log.

use std::sync::{Mutex, PoisonError};

use super::live::LiveSession;
use super::report::Report;
use super::sftp::ahead::Ahead;
use super::sftp::{Follower, Operation};
use crate::access::role::Ability;

/// What an sftp session does with files, for the audit log; nothing of any other session.
pub struct Files<'a> {
    session: &'a LiveSession,
    report: &'a Report,
    follower: Option<Mutex<Follower>>,
    ahead: Option<Ahead>,
}

impl<'a> Files<'a> {
    /// Those of a session.
    #[must_use]
    pub fn of(session: &'a LiveSession, report: &'a Report) -> Self {
        let sftp = session.authorized.ability() == Ability::Sftp;
        Self {
            session,
            report,
            follower: sftp.then(Mutex::default),
            ahead: sftp.then(Ahead::default),
        }
    }

    /// What is guessed of the session; `None` if it is no session of files.
    #[must_use]
    pub fn ahead(&self) -> Option<&Ahead> {
        self.ahead.as_ref()
    }

    /// The device was sent this.
    pub async fn sent(&self, data: &[u8]) {
        self.tell(|follower| follower.request(data).into_iter().collect())
            .await;
    }

    /// The device answered this.
    pub async fn answered(&self, data: &[u8]) {
        self.tell(|follower| follower.answer(data)).await;
    }

    /// The session is over.
    pub async fn end(&self) {
        self.tell(Follower::end).await;
    }

    async fn tell(&self, follow: impl FnOnce(&mut Follower) -> Vec<Operation>) {
        let Some(follower) = &self.follower else {
            return;
        };
        let done = follow(&mut follower.lock().unwrap_or_else(PoisonError::into_inner));
        for operation in done {
            self.report.sftp(self.session, operation).await;
        }
    }
}
