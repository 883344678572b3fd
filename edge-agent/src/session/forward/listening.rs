//! A forward that listens: it reports each accepted connection, and keeps it until the relay takes it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_lite::{FutureExt as _, Stream as _};
use holdfast_protocol::ids::SessionId;
use holdfast_protocol::recording::record::ForwardDirection;
use holdfast_protocol::wire::{Incoming, Listen, SessionRefusal, SocketPath};
use smol::Timer;

use super::BROKEN_OFF;
use super::log::host_and_port;
use super::{ForwardAccount, ForwardDriver};
use crate::recording::ForwardBeginning;
use crate::session::arrivals::{AcceptedConnection, ArrivedAt, NO_ADDRESS};
use crate::session::limits::ARRIVAL_POLL;
use crate::session::listen::{self, BoundPort};
use crate::session::registry::SlotKind;
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

impl ForwardDriver {
    /// Listens until the relay breaks off.
    pub(super) async fn listen(
        &mut self,
        session: SessionId,
        account: ForwardAccount,
        at: ListenTarget,
    ) {
        let listener = match self.open_listener(account, at).await {
            Some(listener) => listener,
            None => return self.drive(|_, _| Poll::Pending).await,
        };
        let mut number = 0;
        // Room comes with time, or when the relay takes one: both are looked for by the clock.
        let mut ticks = Timer::interval(ARRIVAL_POLL);
        self.drive(|driver, cx| {
            if driver.pump.gone.is_some() {
                driver.ended(BROKEN_OFF);
                return Poll::Ready(());
            }
            while Pin::new(&mut ticks).poll_next(cx).is_ready() {}
            if !driver.sessions.arrivals.has_room(session) {
                return Poll::Pending;
            }
            let Poll::Ready(connection) = listener.poll_accept(cx) else {
                return Poll::Pending;
            };
            let peer = connection.peer.unwrap_or(NO_ADDRESS);
            driver.sessions.arrivals.keep(session, number, connection);
            driver.core.handle_incoming(Incoming { number, peer });
            number = number.wrapping_add(1);
            Poll::Ready(())
        })
        .await;
        self.sessions.arrivals.forget(session);
    }

    /// Opens the listener and reports it; `None` if that was refused or is not wanted any more.
    async fn open_listener(
        &mut self,
        account: ForwardAccount,
        at: ListenTarget,
    ) -> Option<OpenListener> {
        match self.sessions.occupy(SlotKind::Forward) {
            Ok(slot) => self.slot = Some(slot),
            Err(full) => {
                self.core.handle_refused(full);
                return None;
            }
        }
        let program = self.sessions.config.program.clone();
        let mut beginning = at.beginning();
        let (login, denied) = (account.login, account.denied);
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
        let gone = async { Err(self.pump.inbound.broken_off().await) };
        let listener = match opened.or(gone).await {
            Ok(Ok(listener)) => listener,
            Ok(Err(why)) => {
                self.core.handle_refused(why);
                return None;
            }
            Err(gone) => {
                self.cancelled_before_start(gone);
                return None;
            }
        };
        let address = match &listener {
            OpenListener::Ports(bound) => Some(bound.address),
            OpenListener::Path(..) => None,
        };
        beginning.address = address;
        if let Err(why) = self.log_forward(&beginning).await {
            self.core.handle_refused(why);
            return None;
        }
        self.core.handle_started(account.names, address);
        Some(listener)
    }
}
