//! The socket at which a session's processes reach the operator's SSH agent.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_lite::Stream as _;
use holdfast_protocol::codec::frame::SessionMessage;
use holdfast_protocol::ids::{Login, SessionId};
use holdfast_protocol::wire::{Incoming, SessionRefusal};
use smol::Timer;

use super::arrivals::{AcceptedConnection, ArrivedAt, NO_ADDRESS};
use super::registry::AgentSessions;
use crate::session::limits::ARRIVAL_POLL;
use crate::session::unix::{self, Listener};

/// The socket, as long as its session lives.
#[derive(Debug)]
pub(super) struct AgentSocket {
    sessions: Arc<AgentSessions>,
    session: SessionId,
    listener: Listener,
    /// The number of the next connection.
    number: u32,
    /// While there is no room: it comes with time, or when the relay takes one.
    ticks: Option<Timer>,
}

impl AgentSocket {
    /// Makes it.
    pub(super) async fn make(
        sessions: Arc<AgentSessions>,
        session: SessionId,
        login: Login,
        denied: Vec<Login>,
    ) -> Result<Self, SessionRefusal> {
        let listener = unix::agent(&sessions.config.program, login, denied).await?;
        Ok(Self {
            sessions,
            session,
            listener,
            number: 0,
            ticks: None,
        })
    }

    /// Returns its path.
    pub(super) fn path(&self) -> Option<String> {
        self.listener.path.clone()
    }

    /// Accepts the next connection and keeps it until the relay takes it; gives the message for the relay.
    pub(super) fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<SessionMessage> {
        while !self.sessions.arrivals.has_room(self.session) {
            let ticks = self
                .ticks
                .get_or_insert_with(|| Timer::interval(ARRIVAL_POLL));
            if Pin::new(ticks).poll_next(cx).is_pending() {
                return Poll::Pending;
            }
        }
        self.ticks = None;
        self.listener.poll_accept(cx).map(|stream| {
            let number = self.number;
            self.number = number.wrapping_add(1);
            let connection = AcceptedConnection {
                socket: stream.into(),
                peer: None,
                to: ArrivedAt::Agent,
            };
            self.sessions
                .arrivals
                .keep(self.session, number, connection);
            let peer = NO_ADDRESS;
            SessionMessage::Incoming(Incoming { number, peer })
        })
    }

    /// Drops what waits, because the session is over.
    pub(super) fn close(self) {
        self.sessions.arrivals.forget(self.session);
    }
}
