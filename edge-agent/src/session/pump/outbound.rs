//! From the process to the relay's stream.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_lite::Future;
use holdfast_protocol::codec::frame::{DataStream, HEADER_LEN, data_header};
use holdfast_protocol::recording::record::Stream;
use holdfast_protocol::recording::spool::DataPiece;
use quinn::{StoppedError, WriteError};
use rustix::buffer::spare_capacity;
use rustix::io::{Errno, ioctl_fionread, read};
use smol::Async;

use super::gone::PeerGone;
use crate::recording::{ByteCounters, NotRecordable, Recording};
use crate::session::limits::{FORWARD_PIECE, LAST_OUTPUT, MIN_OUTPUT_READ, OUTPUT_READ};

/// An event of the output, besides data.
pub(in crate::session) enum OutboundEvent {
    /// All of it was read, and is in the queue.
    Ended,
    /// Nothing waits in the queue.
    Flushed,
    /// The other end takes no more.
    Gone(PeerGone),
    /// The output can't be recorded, and so must not be shown.
    Unrecordable(NotRecordable),
}

/// Output in its order that is not recorded yet.
enum Unrecorded {
    /// A frame of data.
    Data(DataStream, Bytes),
    /// An output has come to its end.
    Eof(DataStream),
    /// A frame that says something else: it is not recorded, but waits for what is.
    Message(Bytes),
}

/// The sending half of a session.
pub(in crate::session) struct Outbound {
    send: quinn::SendStream,
    /// Resolves when the relay wants no more, or has everything.
    stopped: Pin<Box<dyn Future<Output = PeerGone> + Send>>,
    /// The bytes that were read, and wait for the recording. Output is read only when it is empty.
    unrecorded: VecDeque<Unrecorded>,
    /// Frames for the stream. Output is read only when it is empty.
    queue: VecDeque<Bytes>,
    /// Stdout and stderr, in the order of their turns: who was served goes to the back.
    sources: Vec<OutputSource>,
    opened: bool,
    ended: bool,
    /// A connection did not end in good order: its other end broke it off.
    broken: bool,
    /// Counts what comes, if that is recorded of a forward.
    pub(in crate::session) passed: Option<Arc<ByteCounters>>,
}

impl Outbound {
    pub(in crate::session) fn new(send: quinn::SendStream) -> Self {
        let stopped = send.stopped();
        let stopped = Box::pin(async move {
            match stopped.await {
                Err(StoppedError::ConnectionLost(why)) => PeerGone::closed(&why),
                Ok(Some(code)) => PeerGone::reset(code),
                _ => PeerGone::Client,
            }
        });
        let (queue, sources) = (VecDeque::new(), Vec::new());
        Self {
            send,
            stopped,
            unrecorded: VecDeque::new(),
            queue,
            sources,
            opened: false,
            ended: false,
            broken: false,
            passed: None,
        }
    }

    pub(in crate::session) fn set_priority(&self, priority: i32) {
        // It has been stopped already, then, which the next write notices.
        let _ = self.send.set_priority(priority);
    }

    /// Takes the process's outputs.
    pub(in crate::session) fn open(
        &mut self,
        out: Option<Arc<Async<OwnedFd>>>,
        err: Option<Arc<Async<OwnedFd>>>,
    ) {
        let source = |stream| {
            move |end| OutputSource {
                end,
                stream,
                most: OUTPUT_READ,
                blocked: false,
            }
        };
        let out = out.map(source(DataStream::Stdout));
        self.sources = out
            .into_iter()
            .chain(err.map(source(DataStream::Stderr)))
            .collect();
        self.opened = true;
    }

    /// Takes what a connection brings.
    pub(in crate::session) fn open_socket(&mut self, socket: Arc<Async<OwnedFd>>) {
        self.sources = vec![OutputSource {
            end: socket,
            stream: DataStream::Stdout,
            most: FORWARD_PIECE,
            blocked: false,
        }];
        self.opened = true;
    }

    /// Returns whether no source will bring more.
    pub(in crate::session) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Returns whether a connection was broken off by its other end.
    pub(in crate::session) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Queues a frame behind all that was read before.
    pub(in crate::session) fn push(&mut self, frame: Bytes) {
        self.unrecorded.push_back(Unrecorded::Message(frame));
    }

    /// Reads no more, except what the kernel still holds, up to [`LAST_OUTPUT`].
    pub(in crate::session) fn stop_sources(&mut self) {
        for mut source in std::mem::take(&mut self.sources) {
            let mut total = 0;
            while total < LAST_OUTPUT
                && let Ok(Some(frame)) = source.read()
            {
                total += frame.len();
                let data = Unrecorded::Data(source.stream, frame);
                self.unrecorded.push_back(data);
            }
            self.unrecorded.push_back(Unrecorded::Eof(source.stream));
        }
        self.ended = true;
    }

    /// Lets go of stdout, which is not read any more at the other end: what was read before goes its way.
    pub(in crate::session) fn close_stdout(&mut self) {
        let is_stdout = |source: &OutputSource| source.stream == DataStream::Stdout;
        if let Some(at) = self.sources.iter().position(is_stdout) {
            self.sources.remove(at);
            let eof = Unrecorded::Eof(DataStream::Stdout);
            self.unrecorded.push_back(eof);
        }
    }

    /// Lets go of the outputs, and of what was read: they are not wanted any more.
    pub(in crate::session) fn close(&mut self) {
        self.close_sources();
        (self.unrecorded, self.queue) = (VecDeque::new(), VecDeque::new());
    }

    /// Lets go of the outputs.
    pub(in crate::session) fn close_sources(&mut self) {
        self.sources = Vec::new();
        self.ended = true;
    }

    /// Says `frame` behind what was recorded, and nothing behind it.
    pub(in crate::session) fn cut_off(&mut self, frame: Bytes) {
        self.unrecorded = VecDeque::new();
        self.queue.push_back(frame);
    }

    /// Reads and forgets, at most about `turn` bytes: a process that tidies up after its client has gone
    /// must neither block on its last output nor die of it.
    pub(in crate::session) fn poll_discard(&mut self, cx: &mut Context<'_>, turn: &mut usize) {
        self.unrecorded.clear();
        while *turn > 0
            && !self.sources.is_empty()
            && let Poll::Ready((_, frame)) = self.poll_sources(cx)
        {
            *turn = turn.saturating_sub(frame.map_or(0, |frame| frame.len()));
        }
    }

    /// Forgets what was to be sent.
    pub(in crate::session) fn clear(&mut self) {
        self.queue.clear();
    }

    /// Sends what is left, and reads no more.
    pub(in crate::session) fn poll_last(&mut self, cx: &mut Context<'_>) -> Poll<OutboundEvent> {
        Poll::Ready(match ready!(self.poll_flush(cx)) {
            Ok(()) => OutboundEvent::Flushed,
            Err(error) => OutboundEvent::Gone(gone(&error)),
        })
    }

    /// Moves output, at most about `turn` bytes. A frame that was read is recorded and given to QUIC at
    /// once; the next one is read only when both have taken it.
    pub(in crate::session) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        recording: &mut Recording,
        turn: &mut usize,
    ) -> Poll<OutboundEvent> {
        loop {
            let recorded = self.poll_record(cx, recording);
            if let Poll::Ready(Err(why)) = recorded {
                return Poll::Ready(OutboundEvent::Unrecordable(why));
            }
            match self.poll_flush(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(OutboundEvent::Gone(gone(&error))),
                Poll::Pending => return Poll::Pending,
            }
            if recorded.is_pending() {
                return self.stopped.as_mut().poll(cx).map(OutboundEvent::Gone);
            }
            if self.opened && !self.ended && self.sources.is_empty() {
                self.ended = true;
                return Poll::Ready(OutboundEvent::Ended);
            }
            if *turn == 0 {
                return Poll::Pending;
            }
            let Poll::Ready((stream, frame)) = self.poll_sources(cx) else {
                let stopped = self.stopped.as_mut().poll(cx);
                return Poll::Ready(match stopped {
                    Poll::Ready(gone) => OutboundEvent::Gone(gone),
                    Poll::Pending => OutboundEvent::Flushed,
                });
            };
            self.unrecorded.push_back(match frame {
                Some(frame) => {
                    *turn = turn.saturating_sub(frame.len());
                    Unrecorded::Data(stream, frame)
                }
                None => Unrecorded::Eof(stream),
            });
        }
    }

    /// Records what was read, and queues it for the relay.
    fn poll_record(
        &mut self,
        cx: &mut Context<'_>,
        recording: &mut Recording,
    ) -> Poll<Result<(), NotRecordable>> {
        while let Some(next) = self.unrecorded.front() {
            let recorded = match next {
                Unrecorded::Data(stream, frame) => recording.poll_data(
                    cx,
                    DataPiece {
                        stream: Stream::from(*stream),
                        bytes: frame.get(HEADER_LEN..).unwrap_or_default(),
                        remaining: 0,
                        hidden: false,
                    },
                ),
                Unrecorded::Eof(stream) => recording.poll_eof(cx, Stream::from(*stream)),
                Unrecorded::Message(_) => Poll::Ready(Ok(())),
            };
            if let Err(why) = ready!(recorded) {
                return Poll::Ready(Err(why));
            }
            if let Some(Unrecorded::Data(_, frame) | Unrecorded::Message(frame)) =
                self.unrecorded.pop_front()
            {
                self.queue.push_back(frame);
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Ends the stream. Resolves when the relay has all of it, or is gone.
    pub(in crate::session) fn finish(&mut self) -> impl Future<Output = PeerGone> + '_ {
        // It has been stopped already, then.
        let _ = self.send.finish();
        self.stopped.as_mut()
    }

    /// Resets the stream, which is not read any more.
    pub(in crate::session) fn reset(&mut self) {
        // It has ended already, then.
        let _ = self.send.reset(0_u32.into());
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteError>> {
        while !self.queue.is_empty() {
            let frames = self.queue.make_contiguous();
            let written = ready!(pin!(self.send.write_chunks(frames)).poll(cx))?;
            self.queue.drain(..written.chunks);
        }
        Poll::Ready(Ok(()))
    }

    /// Returns a frame of the first source that has one; `None` when a source has ended.
    fn poll_sources(&mut self, cx: &mut Context<'_>) -> Poll<(DataStream, Option<Bytes>)> {
        for at in 0..self.sources.len() {
            if let Poll::Ready(read) = self.sources[at].poll_read(cx) {
                let source = self.sources.remove(at);
                let stream = source.stream;
                // EIO is a terminal's end of file: its other end is not open any more.
                self.broken |= read.as_ref().is_err_and(|error| *error != Errno::IO);
                let frame = read.unwrap_or(None);
                if let Some(frame) = &frame {
                    self.sources.push(source);
                    if let Some(passed) = &self.passed {
                        passed.received(frame.len().saturating_sub(HEADER_LEN));
                    }
                }
                return Poll::Ready((stream, frame));
            }
        }
        Poll::Pending
    }
}

fn gone(error: &WriteError) -> PeerGone {
    match error {
        WriteError::ConnectionLost(why) => PeerGone::closed(why),
        WriteError::Stopped(code) => PeerGone::reset(*code),
        _ => PeerGone::Client,
    }
}

/// One output of the process.
struct OutputSource {
    end: Arc<Async<OwnedFd>>,
    stream: DataStream,
    /// Most bytes of one read.
    most: usize,
    /// The last read found nothing, and since then the kernel did not say that there is more.
    blocked: bool,
}

impl OutputSource {
    /// Returns the next frame; `None` at the end.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Errno>> {
        loop {
            if self.blocked && ready!(self.end.poll_readable(cx)).is_err() {
                return Poll::Ready(Ok(None));
            }
            match self.read() {
                Ok(frame) => {
                    self.blocked = false;
                    return Poll::Ready(Ok(frame));
                }
                Err(Errno::WOULDBLOCK) => self.blocked = true,
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Reads what is there into a frame of just that size: a keystroke's echo must not hold a large
    /// buffer while it waits for its acknowledgement, and a large read must not be copied.
    fn read(&mut self) -> Result<Option<Bytes>, Errno> {
        let waiting = ioctl_fionread(&*self.end).unwrap_or(0);
        let room = usize::try_from(waiting)
            .unwrap_or(self.most)
            .clamp(MIN_OUTPUT_READ, self.most);
        let mut frame = Vec::with_capacity(HEADER_LEN + room);
        frame.extend_from_slice(&[0; HEADER_LEN]);
        let length = read(&*self.end, spare_capacity(&mut frame))?;
        frame[..HEADER_LEN].copy_from_slice(&data_header(self.stream, length));
        // A copy of what is small costs less than the room that it would hold.
        let frame = if 2 * frame.len() < frame.capacity() {
            Bytes::copy_from_slice(&frame)
        } else {
            Bytes::from(frame)
        };
        Ok((length > 0).then_some(frame))
    }
}
