//! What happens in sessions, told to who keeps a record of it: one function an event.

use std::net::SocketAddr;

use holdfast_protocol::escape::{Escaped, EscapedBytes};
use holdfast_protocol::ids::UserName;
use holdfast_protocol::wire::{Open, Work};
use tracing::info;

use super::ending::End;
use super::live::{Ending, LiveSession};
use crate::ssh::target::Target;

/// Tells of sessions. Cloning it is cheap.
#[derive(Clone, Debug, Default)]
pub struct Report {}

/// Whom and what a connection is about, for events that come before a session.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// Who.
    pub user: &'a UserName,
    /// From where.
    pub client: SocketAddr,
    /// What was asked for.
    pub target: Option<&'a Target>,
}

impl Report {
    /// A session begins; with an error, which is a sentence for the operator, it must not.
    ///
    /// # Errors
    /// No record of it can be made, and none of its kind may go unrecorded.
    pub async fn session_start(&self, session: &LiveSession, open: &Open) -> Result<(), String> {
        info!(session = %session.id, user = %open.user, device = %session.authorized.device().name,
            login = %open.login, work = ?open.work, client = %open.client, "session start");
        match &open.work {
            Work::Exec(command) => self.exec(session, command).await,
            Work::Subsystem(name) => self.subsystem(session, name).await,
            Work::Shell => {}
        }
        Ok(())
    }

    /// It is over.
    pub async fn session_end(&self, session: &LiveSession, end: &End) {
        let traffic = session.traffic();
        info!(session = %session.id, %end, bytes_in = traffic.bytes_in, bytes_out = traffic.bytes_out,
            seconds = session.age().as_secs(), "session end");
        if let End::Told(ending) = end {
            let about = About {
                user: &session.authorized.user().name,
                client: session.client,
                target: None,
            };
            self.client_disconnect(about, ending).await;
        }
    }

    /// A connection, a channel or a session is refused.
    pub async fn session_rejected(&self, about: About<'_>, reason: &str) {
        info!(user = %about.user, client = %about.client, target = ?about.target, reason = %Escaped(reason),
            "session rejected");
    }

    /// The relay ends a session or a connection that would have gone on.
    pub async fn client_disconnect(&self, about: About<'_>, ending: &Ending) {
        info!(user = %about.user, client = %about.client, reason = ending.cause.as_str(),
            text = %Escaped(&ending.why), "client disconnect");
    }

    /// An environment variable is not passed on. Its value may be a secret.
    pub async fn env_rejected(&self, about: About<'_>, name: &str) {
        info!(user = %about.user, client = %about.client, name = %Escaped(name), "environment variable rejected");
    }

    async fn exec(&self, session: &LiveSession, command: &[u8]) {
        tracing::debug!(session = %session.id, command = %EscapedBytes(command), "exec");
    }

    async fn subsystem(&self, session: &LiveSession, name: &str) {
        tracing::debug!(session = %session.id, name = %Escaped(name), "subsystem");
    }
}
