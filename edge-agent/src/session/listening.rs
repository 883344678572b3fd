//! A session that listens: it tells of each connection that comes, and keeps it until the relay takes it.

use std::collections::HashMap;
use std::future::poll_fn;
use std::net::{SocketAddr, TcpStream};
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use futures_lite::{FutureExt as _, Stream as _};
use holdfast_protocol::codec::frame::SessionMessage;
use holdfast_protocol::ids::{Login, SessionId};
use holdfast_protocol::wire::{Exit, Incoming, Listen};
use smol::Timer;

use super::driver::Driver;
use super::inbound::Input;
use super::outbound::Output;
use super::{Gone, Kind};
use crate::limits::{ARRIVAL_PATIENCE, ARRIVAL_POLL, MAX_ARRIVALS, TURN_BYTES};
use crate::listen::{self, Bound};

/// Connections that have come and that the relay has not taken yet.
#[derive(Debug, Default)]
pub(super) struct Arrivals(Mutex<HashMap<SessionId, Vec<Arrival>>>);

#[derive(Debug)]
struct Arrival {
    number: u32,
    at: Instant,
    stream: TcpStream,
}

impl Arrivals {
    /// Takes a connection, which its number names once.
    pub(super) fn take(&self, listener: SessionId, number: u32) -> Option<TcpStream> {
        let mut all = self.lock();
        let waiting = all.get_mut(&listener)?;
        let at = waiting
            .iter()
            .position(|arrival| arrival.number == number)?;
        Some(waiting.swap_remove(at).stream)
    }

    fn keep(&self, listener: SessionId, number: u32, stream: TcpStream) {
        let at = Instant::now();
        let arrival = Arrival { number, at, stream };
        self.lock().entry(listener).or_default().push(arrival);
    }

    /// Whether there is room for one more; what nobody took in time goes.
    fn has_room(&self, listener: SessionId) -> bool {
        let mut all = self.lock();
        let Some(waiting) = all.get_mut(&listener) else {
            return true;
        };
        waiting.retain(|arrival| arrival.at.elapsed() < ARRIVAL_PATIENCE);
        waiting.len() < MAX_ARRIVALS
    }

    fn forget(&self, listener: SessionId) {
        self.lock().remove(&listener);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Vec<Arrival>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Driver {
    /// Listens until the relay breaks off.
    pub(super) async fn listen(&mut self, session: SessionId, login: Login, at: Listen) {
        if let Err(full) = self.occupy(Kind::Forward) {
            return self.core.handle_refused(full);
        }
        let opened = async { Ok(listen::open(login, at).await) };
        let gone = async { Err(self.inbound.broken_off().await) };
        let bound = match opened.or(gone).await {
            Ok(Ok(bound)) => bound,
            Ok(Err(why)) => return self.core.handle_refused(why),
            Err(gone) => return self.nobody_waits(gone),
        };
        self.core.handle_started(self.epoch.elapsed());
        self.send_answer();
        self.send(&SessionMessage::Address(bound.address));
        let mut number = 0;
        let gone = loop {
            match self.arrival(session, &bound).await {
                Ok((stream, peer)) => {
                    self.sessions.arrivals.keep(session, number, stream);
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
        bound: &Bound,
    ) -> Result<(TcpStream, SocketAddr), Gone> {
        // Room comes with time, or when the relay takes one: both are looked for by the clock.
        let mut ticks = Timer::interval(ARRIVAL_POLL);
        poll_fn(|cx| {
            if let Poll::Ready(gone) = self.poll_relay(cx) {
                return Poll::Ready(Err(gone));
            }
            while Pin::new(&mut ticks).poll_next(cx).is_ready() {}
            match self.sessions.arrivals.has_room(session) {
                true => bound.poll_accept(cx).map(Ok),
                false => Poll::Pending,
            }
        })
        .await
    }

    /// Says what there is to say; ready when nobody listens any more.
    fn poll_relay(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
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
