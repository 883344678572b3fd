//! Waits for the next event of a session: of its process, on its stream, or because it is time.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_lite::Future as _;
use holdfast_protocol::codec::frame::SessionMessage;
use holdfast_protocol::wire::Exit;
use smol::Timer;

use super::ProcessDriver;
use crate::recording::NotRecordable;
use crate::session::pump::{PeerGone, PumpEvent, Turn};

/// An event of a session.
pub(super) enum DriverEvent {
    Message(SessionMessage),
    PeerGone(PeerGone),
    Unrecordable(NotRecordable),
    OutputEnded,
    Exited(Exit),
    /// A connection to the socket of the operator's SSH agent, as it is announced to the relay.
    Arrival(SessionMessage),
    Timeout,
    /// The session is over, and its final message is on its way.
    Flushed,
}

/// The timer of the state machine.
pub(super) struct Deadline {
    timer: Timer,
    /// The end that `timer` is set to.
    at: Option<Duration>,
}

impl Deadline {
    pub(super) fn never() -> Self {
        Self {
            timer: Timer::never(),
            at: None,
        }
    }

    /// Resolves at this time after `epoch`.
    fn poll(&mut self, cx: &mut Context<'_>, epoch: Instant, at: Option<Duration>) -> Poll<()> {
        if at != self.at {
            self.at = at;
            match at {
                Some(at) => self.timer.set_at(epoch + at),
                None => self.timer.clear(),
            }
        }
        if at.is_none() || Pin::new(&mut self.timer).poll(cx).is_pending() {
            return Poll::Pending;
        }
        // A timer fires once: if the state machine asks for the same moment again, it is set again.
        self.at = None;
        Poll::Ready(())
    }
}

impl ProcessDriver {
    /// Returns the next event; wakes when there is one.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<DriverEvent> {
        let mut turn = Turn::new();
        if let Some(process) = self.process.as_mut().filter(|_| self.exited.is_none())
            && let Poll::Ready(exit) = process.poll_exit(cx)
        {
            return Poll::Ready(DriverEvent::Exited(exit));
        }
        if let Poll::Ready(event) = self.poll_stream(cx, &mut turn) {
            return Poll::Ready(event);
        }
        let lives = self.process.is_some() && self.exited.is_none() && self.pump.gone.is_none();
        let shown = lives && !self.pump.is_cut_off();
        if let Some(agent) = self.agent.as_mut().filter(|_| shown)
            && let Poll::Ready(message) = agent.poll_arrival(cx)
        {
            return Poll::Ready(DriverEvent::Arrival(message));
        }
        let at = self.core.poll_timeout();
        if self.deadline.poll(cx, self.epoch, at).is_ready() {
            return Poll::Ready(DriverEvent::Timeout);
        }
        turn.end(cx);
        Poll::Pending
    }

    fn poll_stream(&mut self, cx: &mut Context<'_>, turn: &mut Turn) -> Poll<DriverEvent> {
        let Self { core, pump, .. } = self;
        let event = pump.poll(cx, &|stream| core.handle_data(stream), turn);
        let Poll::Ready(event) = event else {
            return Poll::Pending;
        };
        Poll::Ready(match event {
            PumpEvent::Message(message) => DriverEvent::Message(message),
            PumpEvent::Gone(gone) => DriverEvent::PeerGone(gone),
            PumpEvent::Unrecordable(why) => DriverEvent::Unrecordable(why),
            PumpEvent::OutputEnded => DriverEvent::OutputEnded,
            PumpEvent::Flushed if core.is_done() => DriverEvent::Flushed,
            PumpEvent::Flushed => return Poll::Pending,
        })
    }
}
