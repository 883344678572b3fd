//! The stream between the relay and what a session is for, both ways: it reads frames, records what passes, and writes
//! frames. Processes and forwards each have a driver over it; what a frame means is theirs to say.

mod gone;
mod inbound;
mod outbound;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_lite::FutureExt as _;
use futures_lite::future::yield_now;
use holdfast_protocol::codec::CodecError;
use holdfast_protocol::codec::frame::{DataStream, FramePiece, SessionMessage};
use holdfast_protocol::recording::record::EndReason;
use holdfast_protocol::session::{SessionViolation, opening};
use holdfast_protocol::wire::Open;
use smol::Timer;

pub(super) use self::gone::PeerGone;
pub(super) use self::inbound::{Inbound, InputSink};
pub(super) use self::outbound::Outbound;

use self::inbound::InboundEvent;
use self::outbound::OutboundEvent;
use crate::recording::{NotRecordable, Recorder, Recording};
use crate::session::limits::{FINISH_TIMEOUT, OPEN_TIMEOUT, TURN_BYTES, WITHDRAWAL_TURNS};

/// Says whether data of a stream may come, and whether it is still wanted.
pub(super) type Judge<'a> = &'a dyn Fn(DataStream) -> Result<bool, SessionViolation>;

/// A session's stream.
pub(super) struct Pump {
    pub(super) inbound: Inbound,
    pub(super) outbound: Outbound,
    pub(super) recording: Recording,
    /// The relay is not there any more: nothing need be sent.
    pub(super) gone: Option<PeerGone>,
    /// The recording takes no more: nothing more may be shown or typed.
    cut_off: bool,
}

/// An event of the stream.
#[expect(clippy::large_enum_variant, reason = "one at a time, on the stack")]
pub(super) enum PumpEvent {
    /// A message has come.
    Message(SessionMessage),
    /// The relay is gone.
    Gone(PeerGone),
    /// The next data can't be recorded.
    Unrecordable(NotRecordable),
    /// All output was read and queued.
    OutputEnded,
    /// Nothing waits to be sent.
    Flushed,
}

/// The bytes that may pass in one turn, before others have theirs.
pub(super) struct Turn {
    incoming: usize,
    outgoing: usize,
}

impl Turn {
    pub(super) fn new() -> Self {
        Self {
            incoming: TURN_BYTES,
            outgoing: TURN_BYTES,
        }
    }

    /// Has the task polled again, if a direction has used its turn.
    pub(super) fn end(&self, cx: &Context<'_>) {
        if self.incoming == 0 || self.outgoing == 0 {
            // Others first; then on.
            cx.waker().wake_by_ref();
        }
    }
}

impl Pump {
    pub(super) fn new(
        recorder: &Arc<Recorder>,
        send: quinn::SendStream,
        recv: quinn::RecvStream,
    ) -> Self {
        Self {
            inbound: Inbound::new(recv),
            outbound: Outbound::new(send),
            recording: Recording::none(Arc::clone(recorder)),
            gone: None,
            cut_off: false,
        }
    }

    /// Returns the `Open` with which the stream begins. Without one in time, the stream is reset.
    pub(super) async fn opening(&mut self) -> Option<Open> {
        let first = poll_fn(|cx| {
            let (early, mut turn): (Judge<'_>, _) = (&|_| Err(SessionViolation::Open), TURN_BYTES);
            self.inbound.poll(cx, early, &mut self.recording, &mut turn)
        });
        let late = async {
            Timer::after(OPEN_TIMEOUT).await;
            InboundEvent::Gone(PeerGone::Client)
        };
        let open = match first.or(late).await {
            InboundEvent::Message(message) => opening(FramePiece::Message(message)).ok(),
            InboundEvent::Gone(_) | InboundEvent::Unrecordable(_) => None,
        };
        if open.is_none() {
            self.outbound.reset();
        }
        open
    }

    /// Returns whether what was asked for is not wanted any more. A device that slept finds the request in its socket
    /// and the withdrawal behind it: what waits there is read before anything is started.
    pub(super) async fn withdrawn(&mut self) -> Option<PeerGone> {
        for _ in 0..WITHDRAWAL_TURNS {
            yield_now().await;
            let gone = poll_fn(|cx| Poll::Ready(self.inbound.poll_gone(cx))).await;
            if let Poll::Ready(gone) = gone {
                return Some(gone);
            }
        }
        None
    }

    /// Moves data both ways until something else is to be done. Once the relay is gone, output is read and dropped.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        judge: Judge<'_>,
        turn: &mut Turn,
    ) -> Poll<PumpEvent> {
        let Self {
            inbound, outbound, ..
        } = self;
        if self.gone.is_some() {
            outbound.clear();
            outbound.poll_discard(cx, &mut turn.outgoing);
            return Poll::Pending;
        }
        let output = if self.cut_off {
            outbound.poll_discard(cx, &mut turn.outgoing);
            outbound.poll_last(cx)
        } else {
            let recording = &mut self.recording;
            if let Poll::Ready(input) = inbound.poll(cx, judge, recording, &mut turn.incoming) {
                return Poll::Ready(match input {
                    InboundEvent::Message(message) => PumpEvent::Message(message),
                    InboundEvent::Gone(gone) => PumpEvent::Gone(gone),
                    InboundEvent::Unrecordable(why) => PumpEvent::Unrecordable(why),
                });
            }
            outbound.poll(cx, recording, &mut turn.outgoing)
        };
        output.map(|output| match output {
            OutboundEvent::Ended => PumpEvent::OutputEnded,
            OutboundEvent::Flushed => PumpEvent::Flushed,
            OutboundEvent::Gone(gone) => PumpEvent::Gone(gone),
            OutboundEvent::Unrecordable(why) => PumpEvent::Unrecordable(why),
        })
    }

    /// Queues a message behind all that was read before.
    ///
    /// # Errors
    /// [`CodecError`] if it is over its bound. Every text of ours is cut to its own; if one was not, the stream can't go
    /// on.
    pub(super) fn send(&mut self, message: &SessionMessage) -> Result<(), CodecError> {
        self.outbound.push(message.encode()?.into());
        Ok(())
    }

    /// Sends `message` behind what was recorded and nothing behind it, and reads no more.
    ///
    /// # Errors
    /// As of [`Self::send`].
    pub(super) fn cut_off(&mut self, message: &SessionMessage) -> Result<(), CodecError> {
        let frame = message.encode()?;
        self.cut_off = true;
        self.inbound.stop();
        self.inbound.stdin.close();
        self.outbound.cut_off(frame.into());
        Ok(())
    }

    /// Returns whether the recording takes no more.
    pub(super) fn is_cut_off(&self) -> bool {
        self.cut_off
    }

    /// Returns why a recording ends early, if it does.
    pub(super) fn end_reason(&self) -> Option<EndReason> {
        match (self.cut_off, self.gone) {
            (true, _) => Some(EndReason::SpoolFull),
            (false, Some(PeerGone::Tunnel)) => Some(EndReason::TunnelLost),
            (false, Some(PeerGone::Client | PeerGone::Ended)) => Some(EndReason::ClientGone),
            (false, None) => None,
        }
    }

    /// Says that nothing more comes, and waits until the relay has it all, but not for ever.
    pub(super) async fn finish(&mut self) {
        self.inbound.stop();
        let acknowledged = self.outbound.finish();
        let too_long = async {
            Timer::after(FINISH_TIMEOUT).await;
            PeerGone::Client
        };
        acknowledged.or(too_long).await;
    }
}
