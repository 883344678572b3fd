//! A session that listens: it tells of each connection that comes, and keeps it until the relay takes it.

use std::collections::HashMap;
use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use futures_lite::{FutureExt as _, Stream as _};
use holdfast_protocol::codec::frame::SessionMessage;
use holdfast_protocol::ids::{Login, SessionId};
use holdfast_protocol::recording::record::ForwardDirection;
use holdfast_protocol::wire::{Exit, Incoming, Listen, SessionRefusal, SocketPath};
use smol::Timer;

use super::driver::Driver;
use super::forwards::host_and_port;
use super::inbound::Input;
use super::outbound::Output;
use super::{Gone, Kind};
use crate::recording::Beginning;
use crate::session::limits::{ARRIVAL_PATIENCE, ARRIVAL_POLL, MAX_ARRIVALS, TURN_BYTES};
use crate::session::listen::{self, Bound};
use crate::session::unix::{self, Listener};

/// Connections that have come and that the relay has not taken yet.
#[derive(Debug, Default)]
pub(super) struct Arrivals(Mutex<HashMap<SessionId, Vec<Arrival>>>);

#[derive(Debug)]
struct Arrival {
    number: u32,
    at: Instant,
    come: AcceptedConnection,
}

/// A connection that has come.
#[derive(Debug)]
pub(super) struct AcceptedConnection {
    pub(super) socket: OwnedFd,
    /// From where; `None` on a Unix socket.
    pub(super) peer: Option<SocketAddr>,
    /// Where to.
    pub(super) to: ArrivedAt,
}

/// Where a connection has come to.
#[derive(Debug)]
pub(super) enum ArrivedAt {
    /// An address of the device.
    Port(SocketAddr),
    /// A Unix socket.
    Path(Arc<str>),
    /// The socket of a session's SSH agent.
    Agent,
}

/// What stands for the peer of a Unix socket.
pub(super) const NO_ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Where a session listens.
#[derive(Debug)]
pub(super) enum Place {
    Port(Listen),
    Path(SocketPath),
}

impl Place {
    /// How it is recorded, of which the address comes when there is one.
    fn beginning(&self) -> Beginning {
        let to = match self {
            Self::Port(at) => host_and_port(&at.host, at.port),
            Self::Path(at) => at.path.clone(),
        };
        Beginning {
            direction: ForwardDirection::Listen,
            to,
            from: None,
            address: None,
        }
    }
}

/// Where it does.
pub(super) enum PortOrPath {
    Ports(Bound),
    Path(Listener, Arc<str>),
}

impl PortOrPath {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<AcceptedConnection> {
        match self {
            Self::Ports(bound) => bound.poll_accept(cx).map(|(stream, peer)| {
                // As sshd has it: what is forwarded was cut into packets already.
                let _ = stream.set_nodelay(true);
                // Of one that is gone already nobody will ask.
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

impl Arrivals {
    /// Takes a connection, which its number names once.
    pub(super) fn take(&self, listener: SessionId, number: u32) -> Option<AcceptedConnection> {
        let mut all = self.lock();
        let waiting = all.get_mut(&listener)?;
        let at = waiting
            .iter()
            .position(|arrival| arrival.number == number)?;
        Some(waiting.swap_remove(at).come)
    }

    pub(super) fn keep(&self, listener: SessionId, number: u32, come: AcceptedConnection) {
        let at = Instant::now();
        let arrival = Arrival { number, at, come };
        self.lock().entry(listener).or_default().push(arrival);
    }

    /// Whether there is room for one more; what nobody took in time goes.
    pub(super) fn has_room(&self, listener: SessionId) -> bool {
        let mut all = self.lock();
        let Some(waiting) = all.get_mut(&listener) else {
            return true;
        };
        waiting.retain(|arrival| arrival.at.elapsed() < ARRIVAL_PATIENCE);
        waiting.len() < MAX_ARRIVALS
    }

    pub(super) fn forget(&self, listener: SessionId) {
        self.lock().remove(&listener);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Vec<Arrival>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Driver {
    /// Listens until the relay breaks off.
    pub(super) async fn listen(
        &mut self,
        session: SessionId,
        login: Login,
        denied: Vec<Login>,
        at: Place,
    ) {
        if let Err(full) = self.occupy(Kind::Forward) {
            return self.core.handle_refused(full);
        }
        let program = self.sessions.config.program.clone();
        let mut beginning = at.beginning();
        let opened = async {
            let opened: Result<_, SessionRefusal> = match at {
                Place::Port(at) => listen::open(login, denied, at).await.map(PortOrPath::Ports),
                Place::Path(at) => {
                    let path = Arc::from(at.path.as_str());
                    let listener = unix::listen(&program, login, denied, at).await;
                    listener.map(|listener| PortOrPath::Path(listener, path))
                }
            };
            Ok(opened)
        };
        let gone = async { Err(self.inbound.broken_off().await) };
        let ear = match opened.or(gone).await {
            Ok(Ok(ear)) => ear,
            Ok(Err(why)) => return self.core.handle_refused(why),
            Err(gone) => return self.cancelled_before_start(gone),
        };
        if let PortOrPath::Ports(bound) = &ear {
            beginning.address = Some(bound.address);
        }
        if let Err(why) = self.tell(&beginning).await {
            return self.core.handle_refused(why);
        }
        self.core.handle_started(self.epoch.elapsed());
        self.send_answer();
        if let PortOrPath::Ports(bound) = &ear {
            self.send(&SessionMessage::Address(bound.address));
        }
        let mut number = 0;
        let gone = loop {
            match self.arrival(session, &ear).await {
                Ok(come) => {
                    let peer = come.peer.unwrap_or(NO_ADDRESS);
                    self.sessions.arrivals.keep(session, number, come);
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
        ear: &PortOrPath,
    ) -> Result<AcceptedConnection, Gone> {
        // Room comes with time, or when the relay takes one: both are looked for by the clock.
        let mut ticks = Timer::interval(ARRIVAL_POLL);
        poll_fn(|cx| {
            if let Poll::Ready(gone) = self.poll_relay(cx) {
                return Poll::Ready(Err(gone));
            }
            while Pin::new(&mut ticks).poll_next(cx).is_ready() {}
            match self.sessions.arrivals.has_room(session) {
                true => ear.poll_accept(cx).map(Ok),
                false => Poll::Pending,
            }
        })
        .await
    }

    /// Says what there is to say; ready when nobody listens any more.
    pub(super) fn poll_relay(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        let (mut turn_in, mut turn_out) = (TURN_BYTES, TURN_BYTES);
        let recording = &mut self.recording;
        loop {
            match self.inbound.poll(cx, &self.core, recording, &mut turn_in) {
                Poll::Ready(Input::Gone(gone)) => return Poll::Ready(gone),
                // Nothing that a relay may say concerns a port.
                Poll::Ready(_) => {}
                Poll::Pending => break,
            }
        }
        match self.outbound.poll(cx, recording, &mut turn_out) {
            Poll::Ready(Output::Gone(gone)) => Poll::Ready(gone),
            _ => Poll::Pending,
        }
    }
}
