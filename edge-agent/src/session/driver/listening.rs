//! A session that listens: it reports each accepted connection, and keeps it until the relay takes it.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_lite::{FutureExt as _, Stream as _};
use holdfast_protocol::codec::frame::SessionMessage;
use holdfast_protocol::ids::{Login, SessionId};
use holdfast_protocol::recording::record::ForwardDirection;
use holdfast_protocol::wire::{Exit, Incoming, Listen, SessionRefusal, SocketPath};
use smol::Timer;

use super::super::arrivals::{AcceptedConnection, ArrivedAt, NO_ADDRESS};
use super::super::gone::PeerGone;
use super::super::inbound::InboundEvent;
use super::super::outbound::OutboundEvent;
use super::super::registry::SlotKind;
use super::SessionDriver;
use super::forwards::host_and_port;
use crate::recording::ForwardBeginning;
use crate::session::limits::{ARRIVAL_POLL, TURN_BYTES};
use crate::session::listen::{self, BoundPort};
use crate::session::unix::{self, Listener};

/// The endpoint on which a session is to listen.
#[derive(Debug)]
pub(super) enum ListenTarget {
    Port(Listen),
    Path(SocketPath),
}

impl ListenTarget {
    /// Returns its beginning as it is recorded; the address is added when there is one.
    fn beginning(&self) -> ForwardBeginning {
        let to = match self {
            Self::Port(at) => host_and_port(&at.host, at.port),
            Self::Path(at) => at.path.clone(),
        };
        ForwardBeginning {
            direction: ForwardDirection::Listen,
            to,
            from: None,
            address: None,
        }
    }
}

/// An open listener.
pub(super) enum OpenListener {
    Ports(BoundPort),
    Path(Listener, Arc<str>),
}

impl OpenListener {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<AcceptedConnection> {
        match self {
            Self::Ports(bound) => bound.poll_accept(cx).map(|(stream, peer)| {
                // As sshd has it: what is forwarded was cut into packets already.
                let _ = stream.set_nodelay(true);
                // The address of one that is gone already is not asked for.
                let to = stream.local_addr().unwrap_or(bound.address);
                AcceptedConnection {
                    socket: stream.into(),
                    peer: Some(peer),
                    to: ArrivedAt::Port(to),
                }
            }),
            Self::Path(listener, path) => {
                listener.poll_accept(cx).map(|stream| AcceptedConnection {
                    socket: stream.into(),
                    peer: None,
                    to: ArrivedAt::Path(Arc::clone(path)),
                })
            }
        }
    }
}

impl SessionDriver {
    /// Listens until the relay breaks off.
    pub(super) async fn listen(
        &mut self,
        session: SessionId,
        login: Login,
        denied: Vec<Login>,
        at: ListenTarget,
    ) {
        if let Err(full) = self.occupy(SlotKind::Forward) {
            return self.core.handle_refused(full);
        }
        let program = self.sessions.config.program.clone();
        let mut beginning = at.beginning();
        let opened = async {
            let opened: Result<_, SessionRefusal> = match at {
                ListenTarget::Port(at) => listen::open(login, denied, at)
                    .await
                    .map(OpenListener::Ports),
                ListenTarget::Path(at) => {
                    let path = Arc::from(at.path.as_str());
                    let listener = unix::listen(&program, login, denied, at).await;
                    listener.map(|listener| OpenListener::Path(listener, path))
                }
            };
            Ok(opened)
        };
        let gone = async { Err(self.inbound.broken_off().await) };
        let listener = match opened.or(gone).await {
            Ok(Ok(listener)) => listener,
            Ok(Err(why)) => return self.core.handle_refused(why),
            Err(gone) => return self.cancelled_before_start(gone),
        };
        if let OpenListener::Ports(bound) = &listener {
            beginning.address = Some(bound.address);
        }
        if let Err(why) = self.log_forward(&beginning).await {
            return self.core.handle_refused(why);
        }
        self.core.handle_started(self.epoch.elapsed());
        self.send_answer();
        if let OpenListener::Ports(bound) = &listener {
            self.send(&SessionMessage::Address(bound.address));
        }
        let mut number = 0;
        let gone = loop {
            match self.arrival(session, &listener).await {
                Ok(connection) => {
                    let peer = connection.peer.unwrap_or(NO_ADDRESS);
                    self.sessions.arrivals.keep(session, number, connection);
                    self.send(&SessionMessage::Incoming(Incoming { number, peer }));
                    number = number.wrapping_add(1);
                }
                Err(gone) => break gone,
            }
        };
        self.sessions.arrivals.forget(session);
        self.peer_gone(self.epoch.elapsed(), gone);
        self.ended(Exit::Status(0));
    }

    async fn arrival(
        &mut self,
        session: SessionId,
        listener: &OpenListener,
    ) -> Result<AcceptedConnection, PeerGone> {
        // Room comes with time, or when the relay takes one: both are looked for by the clock.
        let mut ticks = Timer::interval(ARRIVAL_POLL);
        poll_fn(|cx| {
            if let Poll::Ready(gone) = self.poll_relay(cx) {
                return Poll::Ready(Err(gone));
            }
            while Pin::new(&mut ticks).poll_next(cx).is_ready() {}
            match self.sessions.arrivals.has_room(session) {
                true => listener.poll_accept(cx).map(Ok),
                false => Poll::Pending,
            }
        })
        .await
    }

    /// Sends what is queued; ready when the relay is gone.
    pub(super) fn poll_relay(&mut self, cx: &mut Context<'_>) -> Poll<PeerGone> {
        let (mut turn_in, mut turn_out) = (TURN_BYTES, TURN_BYTES);
        let recording = &mut self.recording;
        loop {
            match self.inbound.poll(cx, &self.core, recording, &mut turn_in) {
                Poll::Ready(InboundEvent::Gone(gone)) => return Poll::Ready(gone),
                // Nothing that a relay may say concerns a port.
                Poll::Ready(_) => {}
                Poll::Pending => break,
            }
        }
        match self.outbound.poll(cx, recording, &mut turn_out) {
            Poll::Ready(OutboundEvent::Gone(gone)) => Poll::Ready(gone),
            _ => Poll::Pending,
        }
    }
}
