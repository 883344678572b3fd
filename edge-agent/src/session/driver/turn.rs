//! What happens next to a session: to its process, on its streams, or because it is time.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_lite::Future as _;
use holdfast_protocol::codec::frame::SessionMessage;
use holdfast_protocol::wire::Exit;

use super::super::gone::PeerGone;
use super::super::inbound::InboundEvent;
use super::super::outbound::OutboundEvent;
use super::SessionDriver;
use crate::recording::NotRecordable;
use crate::session::limits::{OPEN_TIMEOUT, TURN_BYTES};

/// An event of a session.
pub(super) enum SessionEvent {
    Message(SessionMessage),
    PeerGone(PeerGone),
    Unrecordable(NotRecordable),
    OutputEnded,
    Exited(Exit),
    /// Something for the relay that is none of the state machine's business.
    Tell(SessionMessage),
    Timeout,
    /// The session is over, and its final message is on its way.
    Flushed,
}

impl SessionDriver {
    /// Returns the next event; wakes when there is one.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<SessionEvent> {
        let (mut turn_in, mut turn_out) = (TURN_BYTES, TURN_BYTES);
        if let Some(process) = self.process.as_mut().filter(|_| self.exited.is_none())
            && let Poll::Ready(exit) = process.poll_exit(cx)
        {
            return Poll::Ready(SessionEvent::Exited(exit));
        }
        if let Poll::Ready(event) = self.poll_streams(cx, &mut turn_in, &mut turn_out) {
            return Poll::Ready(event);
        }
        let lives = self.process.is_some() && self.exited.is_none() && self.gone.is_none();
        if let Some(agent) = self.agent.as_mut().filter(|_| lives && !self.cut_off)
            && let Poll::Ready(message) = agent.poll_arrival(cx)
        {
            return Poll::Ready(SessionEvent::Tell(message));
        }
        if self.exited.is_none()
            && let Some(exit) = self.connection_end()
        {
            return Poll::Ready(SessionEvent::Exited(exit));
        }
        if self.poll_timer(cx).is_ready() {
            return Poll::Ready(SessionEvent::Timeout);
        }
        if turn_in == 0 || turn_out == 0 {
            // Others first; then on.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn poll_streams(
        &mut self,
        cx: &mut Context<'_>,
        turn_in: &mut usize,
        turn_out: &mut usize,
    ) -> Poll<SessionEvent> {
        if self.gone.is_some() {
            self.outbound.clear();
            self.outbound.poll_discard(cx, turn_out);
            return Poll::Pending;
        }
        let output = if self.cut_off {
            self.outbound.poll_discard(cx, turn_out);
            self.outbound.poll_last(cx)
        } else {
            let recording = &mut self.recording;
            match self.inbound.poll(cx, &self.core, recording, turn_in) {
                Poll::Ready(InboundEvent::Message(message)) => {
                    return Poll::Ready(SessionEvent::Message(message));
                }
                Poll::Ready(InboundEvent::Gone(gone)) => {
                    return Poll::Ready(SessionEvent::PeerGone(gone));
                }
                Poll::Ready(InboundEvent::Unrecordable(why)) => {
                    return Poll::Ready(SessionEvent::Unrecordable(why));
                }
                Poll::Pending => {}
            }
            self.outbound.poll(cx, recording, turn_out)
        };
        match output {
            Poll::Ready(OutboundEvent::Ended) => Poll::Ready(SessionEvent::OutputEnded),
            Poll::Ready(OutboundEvent::Flushed) if self.core.is_done() => {
                Poll::Ready(SessionEvent::Flushed)
            }
            Poll::Ready(OutboundEvent::Gone(gone)) => Poll::Ready(SessionEvent::PeerGone(gone)),
            Poll::Ready(OutboundEvent::Unrecordable(why)) => {
                Poll::Ready(SessionEvent::Unrecordable(why))
            }
            Poll::Ready(OutboundEvent::Flushed) | Poll::Pending => Poll::Pending,
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let at = if self.opened {
            self.core.poll_timeout()
        } else {
            Some(OPEN_TIMEOUT)
        };
        if at != self.timer_at {
            self.timer_at = at;
            match at {
                Some(at) => self.timer.set_at(self.epoch + at),
                None => self.timer.clear(),
            }
        }
        if at.is_none() || Pin::new(&mut self.timer).poll(cx).is_pending() {
            return Poll::Pending;
        }
        // A timer fires once: if the state machine asks for the same moment again, it is set again.
        self.timer_at = None;
        Poll::Ready(())
    }
}
