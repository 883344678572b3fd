//! From the relay's stream to the process.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use futures_lite::Future as _;
use holdfast_protocol::codec::frame::{FramePiece, FrameReader, SessionMessage};
use holdfast_protocol::recording::record::{Event, Stream};
use holdfast_protocol::recording::spool;
use quinn::{ReadError, ResetError};
use rustix::io::{Errno, writev};
use rustix::net::{Shutdown, shutdown};
use smol::Async;

use super::Judge;
use super::gone::PeerGone;
use crate::os::pty;
use crate::recording::{ByteCounters, NotRecordable, Recording};
use crate::session::limits::{
    FORWARD_PIECE, INPUT_QUEUE_BYTES, INPUT_QUEUE_PIECES, STREAM_READ_PIECES,
};

/// An event of the input, besides data.
#[expect(clippy::large_enum_variant, reason = "one at a time, on the stack")]
pub(in crate::session) enum InboundEvent {
    /// A message.
    Message(SessionMessage),
    /// The other end is gone.
    Gone(PeerGone),
    /// The input can't be recorded, and so must not be obeyed.
    Unrecordable(NotRecordable),
}

/// The input that came, and is not recorded yet.
#[expect(clippy::large_enum_variant, reason = "one at a time, and seldom")]
enum CutInput {
    Data {
        bytes: Bytes,
        /// The bytes of its frame that are still to come.
        remaining: usize,
        hidden: bool,
        /// The process may have it.
        wanted: bool,
    },
    Message(SessionMessage),
}

/// The receiving half of a session.
pub(in crate::session) struct Inbound {
    recv: quinn::RecvStream,
    reader: FrameReader,
    /// Read, but not yet cut into pieces. Holds at most [`STREAM_READ_PIECES`].
    raw: VecDeque<Bytes>,
    /// The input that was cut, and still has to be recorded before it counts.
    cut: Option<CutInput>,
    /// The destination of data.
    pub(in crate::session) stdin: Stdin,
}

impl Inbound {
    pub(in crate::session) fn new(recv: quinn::RecvStream) -> Self {
        Self {
            recv,
            reader: FrameReader::default(),
            raw: VecDeque::new(),
            cut: None,
            stdin: Stdin::default(),
        }
    }

    /// Moves data, at most `turn` bytes, until a message has come. A message waits behind the data
    /// before it only while the queue is full, so that a signal reaches a process that reads nothing.
    pub(in crate::session) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        judge: Judge<'_>,
        recording: &mut Recording,
        turn: &mut usize,
    ) -> Poll<InboundEvent> {
        loop {
            if let Some(input) = self.cut(cx, judge, recording, turn) {
                return Poll::Ready(input);
            }
            self.stdin.poll_flush(cx);
            if self.cut.is_some() || !self.stdin.has_room() {
                return self.poll_gone(cx).map(InboundEvent::Gone);
            }
            if !self.raw.is_empty() {
                continue;
            }
            if *turn == 0 {
                return Poll::Pending;
            }
            let mut pieces = [const { Bytes::new() }; STREAM_READ_PIECES];
            let read = pin!(self.recv.read_chunks(&mut pieces)).poll(cx);
            let gone = match read {
                Poll::Ready(Ok(Some(count))) => {
                    self.raw.extend(pieces.into_iter().take(count));
                    continue;
                }
                Poll::Ready(Err(ReadError::ConnectionLost(why))) => PeerGone::closed(&why),
                Poll::Ready(Err(ReadError::Reset(code))) => PeerGone::reset(code),
                Poll::Ready(Ok(None) | Err(_)) => PeerGone::Client,
                Poll::Pending => return Poll::Pending,
            };
            return Poll::Ready(InboundEvent::Gone(gone));
        }
    }

    /// Resolves when the relay has broken off its half, or the tunnel is lost.
    pub(in crate::session) async fn broken_off(&mut self) -> PeerGone {
        match self.recv.received_reset().await {
            Ok(Some(code)) => PeerGone::reset(code),
            Err(ResetError::ConnectionLost(why)) => PeerGone::closed(&why),
            // It ended in good order: what it said is still to be read.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Tells the relay that nothing more is wanted.
    pub(in crate::session) fn stop(&mut self) {
        // It has ended already, then.
        let _ = self.recv.stop(0_u32.into());
    }

    /// Cuts what was read into pieces, as far as the queue has room for data and the recording takes it.
    fn cut(
        &mut self,
        cx: &mut Context<'_>,
        judge: Judge<'_>,
        recording: &mut Recording,
        turn: &mut usize,
    ) -> Option<InboundEvent> {
        loop {
            match self.pass(cx, recording) {
                Poll::Ready(None) => {}
                Poll::Ready(Some(input)) => return Some(input),
                Poll::Pending => return None,
            }
            if !self.stdin.has_room() {
                return None;
            }
            let bytes = self.raw.front_mut()?;
            let mut rest: &[u8] = bytes;
            match self.reader.read(&mut rest) {
                Ok(Some(FramePiece::Data(stream, data))) => match judge(stream) {
                    Ok(wanted) => {
                        *turn = turn.saturating_sub(data.len());
                        self.cut = Some(CutInput::Data {
                            bytes: bytes.slice_ref(data),
                            remaining: self.reader.remaining(),
                            hidden: recording.is_on() && self.stdin.is_hidden(),
                            wanted,
                        });
                    }
                    Err(_) => return Some(InboundEvent::Gone(PeerGone::Client)),
                },
                Ok(Some(FramePiece::Message(message))) => {
                    self.cut = Some(CutInput::Message(message))
                }
                Ok(None) => {}
                Err(_) => return Some(InboundEvent::Gone(PeerGone::Client)),
            }
            let used = bytes.len() - rest.len();
            bytes.advance(used);
            if bytes.is_empty() {
                self.raw.pop_front();
            }
        }
    }

    /// Records what was cut, and lets it through.
    fn pass(
        &mut self,
        cx: &mut Context<'_>,
        recording: &mut Recording,
    ) -> Poll<Option<InboundEvent>> {
        let recorded = match &self.cut {
            None => return Poll::Ready(None),
            Some(CutInput::Data {
                bytes,
                remaining,
                hidden,
                ..
            }) => recording.poll_data(
                cx,
                spool::DataPiece {
                    stream: Stream::Stdin,
                    bytes,
                    remaining: *remaining,
                    hidden: *hidden,
                },
            ),
            Some(CutInput::Message(message)) => match event_of(message) {
                Some(event) => recording.poll_event(cx, &event),
                None => Poll::Ready(Ok(())),
            },
        };
        if let Err(why) = ready!(recorded) {
            return Poll::Ready(Some(InboundEvent::Unrecordable(why)));
        }
        Poll::Ready(match self.cut.take() {
            Some(CutInput::Data { bytes, wanted, .. }) => {
                if wanted {
                    self.stdin.push(bytes);
                }
                None
            }
            Some(CutInput::Message(message)) => Some(InboundEvent::Message(message)),
            None => None,
        })
    }

    /// Polls for a reset while nothing is read.
    pub(in crate::session) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<PeerGone> {
        match pin!(self.recv.received_reset()).poll(cx) {
            // The stream has ended in good order, and its last bytes wait here.
            Poll::Ready(Ok(None)) | Poll::Pending => Poll::Pending,
            Poll::Ready(Err(ResetError::ConnectionLost(why))) => {
                Poll::Ready(PeerGone::closed(&why))
            }
            Poll::Ready(Ok(Some(code))) => Poll::Ready(PeerGone::reset(code)),
            Poll::Ready(Err(_)) => Poll::Ready(PeerGone::Client),
        }
    }
}

/// Returns what a recording says of a message; an `Open` is its start.
fn event_of(message: &SessionMessage) -> Option<Event<'static>> {
    match message {
        SessionMessage::Eof => Some(Event::Eof(Stream::Stdin)),
        SessionMessage::Resize(size) => Some(Event::Resize(*size)),
        SessionMessage::Signal(signal) => Some(Event::Signal(*signal)),
        SessionMessage::Open(_)
        | SessionMessage::Accepted
        | SessionMessage::Refused(_)
        | SessionMessage::Exit(_)
        | SessionMessage::Address(_)
        | SessionMessage::Incoming(_)
        | SessionMessage::Names(_)
        // That the output ends is recorded.
        | SessionMessage::CloseStdout => None,
    }
}

/// The target of the input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::session) enum InputSink {
    /// A process's pipe.
    #[default]
    Pipe,
    /// Its terminal.
    Terminal,
    /// A connection: its sending half is shut down behind the last byte.
    Socket,
}

/// The input of a process or a connection: a queue before it.
#[derive(Default)]
pub(in crate::session) struct Stdin {
    /// `None` before the start, and when it is not read any more: what comes then is dropped.
    end: Option<Arc<Async<OwnedFd>>>,
    queue: VecDeque<Bytes>,
    queued: usize,
    /// Close when the queue is empty.
    closing: bool,
    /// The last write was refused, and since then the kernel did not say that it would take more.
    blocked: bool,
    into: InputSink,
    /// Counts what goes in, if that is recorded of a forward.
    pub(in crate::session) passed: Option<Arc<ByteCounters>>,
}

impl Stdin {
    pub(in crate::session) fn open(&mut self, end: Arc<Async<OwnedFd>>, into: InputSink) {
        self.end = Some(end);
        self.into = into;
    }

    /// Returns whether nothing goes in any more.
    pub(in crate::session) fn is_closed(&self) -> bool {
        self.end.is_none()
    }

    /// Returns whether the terminal does not show what is typed.
    fn is_hidden(&self) -> bool {
        self.into == InputSink::Terminal
            && self.end.as_ref().is_none_or(|end| pty::hides_input(end))
    }

    /// Closes behind what is queued.
    pub(in crate::session) fn close_after_queue(&mut self) {
        self.closing = true;
    }

    /// Closes now.
    pub(in crate::session) fn close(&mut self) {
        self.end = None;
        self.queue = VecDeque::new();
        self.queued = 0;
    }

    fn has_room(&self) -> bool {
        let most = match self.into {
            InputSink::Pipe | InputSink::Terminal => INPUT_QUEUE_BYTES,
            InputSink::Socket => FORWARD_PIECE,
        };
        self.queued < most && self.queue.len() < INPUT_QUEUE_PIECES
    }

    fn push(&mut self, data: Bytes) {
        if self.end.is_some() {
            self.queued += data.len();
            self.queue.push_back(data);
        }
    }

    /// Writes until the queue is empty or the process takes no more.
    fn poll_flush(&mut self, cx: &mut Context<'_>) {
        while let Some(end) = &self.end {
            if self.queue.is_empty() {
                if self.closing {
                    if self.into == InputSink::Socket {
                        // One that is gone has no half to shut.
                        let _ = shutdown(end.get_ref(), Shutdown::Write);
                    }
                    self.close();
                }
                return;
            }
            if self.blocked {
                match end.poll_writable(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return self.close(),
                    Poll::Pending => return,
                }
            }
            let mut slices = [IoSlice::new(&[]); INPUT_QUEUE_PIECES];
            let filled = slices
                .iter_mut()
                .zip(&self.queue)
                .map(|(to, from)| *to = IoSlice::new(from));
            let count = filled.count();
            match writev(end.get_ref(), &slices[..count]) {
                Ok(written) => self.advance(written),
                Err(Errno::WOULDBLOCK) => self.blocked = true,
                Err(Errno::INTR) => {}
                // It reads no more (EPIPE), or its terminal is gone (EIO): that is its own affair.
                Err(_) => self.close(),
            }
        }
    }

    fn advance(&mut self, mut written: usize) {
        self.blocked = false;
        if let Some(passed) = &self.passed {
            passed.sent(written);
        }
        self.queued = self.queued.saturating_sub(written);
        while let Some(front) = self.queue.front_mut() {
            if front.len() > written {
                return front.advance(written);
            }
            written -= front.len();
            self.queue.pop_front();
        }
    }
}
