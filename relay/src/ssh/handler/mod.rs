//! The handler of an SSH connection, which russh calls for each request of its client.

mod callbacks;
mod forwards;
mod jump;
mod open;
mod requests;
mod start;

use std::sync::Arc;

use holdfast_protocol::ids::DeviceName;

use super::channels::Channels;
use super::connection::Connection;
use super::host_keys::ListedKeys;
use super::login::{Login, LoginProof};
use crate::identity::Principal;
use crate::model::source::Source;
use crate::session::forward::reverse::Listeners;
use crate::ssh::Front;
use crate::ssh::channels::opener::Confirmed;
use crate::ssh::login::attempts::Attempts;

/// The handler of one SSH connection.
pub(crate) struct Handler {
    front: Arc<Front>,
    connection: Arc<Connection>,
    login: Login,
    channels: Channels,
    /// Ports that the device listens on for this connection.
    listeners: Listeners,
    /// Channels that the relay has opened.
    confirmed: Arc<Confirmed>,
    /// The host keys that the client was sent.
    host_keys: ListedKeys,
    /// True if the client wants no further sessions.
    no_more_sessions: bool,
}

impl Handler {
    /// Returns the handler of a TCP connection.
    #[must_use]
    pub(crate) fn outer(front: Arc<Front>, connection: Arc<Connection>, source: Source) -> Self {
        Self::new(front, connection, LoginProof::Key(source))
    }

    /// Returns the handler of a connection inside a jump.
    #[must_use]
    pub(crate) fn inner(
        front: Arc<Front>,
        connection: Arc<Connection>,
        principal: Principal,
        device: DeviceName,
    ) -> Self {
        Self::new(
            front,
            connection,
            LoginProof::Jump(Box::new(principal), device),
        )
    }

    /// Counts what the other end offered as proof.
    #[must_use]
    pub(crate) fn attempts(&self) -> Arc<Attempts> {
        self.login.attempts()
    }

    fn new(front: Arc<Front>, connection: Arc<Connection>, proof: LoginProof) -> Self {
        let login = Login::new(front.clone(), connection.clone(), proof);
        let channels = connection.channels();
        Self {
            front,
            connection,
            login,
            channels,
            listeners: Listeners::default(),
            confirmed: Arc::default(),
            host_keys: ListedKeys::default(),
            no_more_sessions: false,
        }
    }
}
