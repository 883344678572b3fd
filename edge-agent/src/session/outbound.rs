//! From the process to the relay's stream.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_lite::Future;
use holdfast_protocol::codec::frame::{DataStream, HEADER_LEN, data_header};
use rustix::buffer::spare_capacity;
use rustix::io::{Errno, ioctl_fionread, read};
use smol::Async;

use crate::limits::{LAST_OUTPUT, MIN_OUTPUT_READ, OUTPUT_READ};

/// What there is to say about the output, besides data.
pub(super) enum Output {
    /// All of it was read, and stands in the queue.
    Ended,
    /// Nothing waits in the queue.
    Flushed,
    /// The relay takes no more.
    Gone,
}

/// The sending half of a session.
pub(super) struct Outbound {
    send: quinn::SendStream,
    /// Resolves when the relay wants no more, or has everything.
    stopped: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Frames for the stream. Output is read only when it is empty.
    queue: VecDeque<Bytes>,
    /// Stdout and stderr, in the order of their turns: who was served goes to the back.
    sources: Vec<Source>,
    opened: bool,
    ended: bool,
}

impl Outbound {
    pub(super) fn new(send: quinn::SendStream) -> Self {
        let stopped = send.stopped();
        let stopped = Box::pin(async move {
            let _ = stopped.await;
        });
        let (queue, sources) = (VecDeque::new(), Vec::new());
        Self {
            send,
            stopped,
            queue,
            sources,
            opened: false,
            ended: false,
        }
    }

    pub(super) fn set_priority(&self, priority: i32) {
        // It has been stopped already, then, which the next write notices.
        let _ = self.send.set_priority(priority);
    }

    /// Takes the process's outputs.
    pub(super) fn open(
        &mut self,
        out: Option<Arc<Async<OwnedFd>>>,
        err: Option<Arc<Async<OwnedFd>>>,
    ) {
        let source = |stream| {
            move |end| Source {
                end,
                stream,
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

    /// Queues a frame behind all that was read before.
    pub(super) fn push(&mut self, frame: Bytes) {
        self.queue.push_back(frame);
    }

    /// Reads no more, except what the kernel still holds, up to [`LAST_OUTPUT`].
    pub(super) fn stop_sources(&mut self) {
        for mut source in std::mem::take(&mut self.sources) {
            let mut total = 0;
            while total < LAST_OUTPUT
                && let Ok(Some(frame)) = source.read()
            {
                total += frame.len();
                self.queue.push_back(frame);
            }
        }
        self.ended = true;
    }

    /// Lets go of the outputs, and of what was read: nobody wants them.
    pub(super) fn close(&mut self) {
        self.sources = Vec::new();
        self.queue = VecDeque::new();
        self.ended = true;
    }

    /// Reads and forgets, at most about `turn` bytes: a process that tidies up after its client has gone
    /// must neither block on its last words nor die of them.
    pub(super) fn poll_discard(&mut self, cx: &mut Context<'_>, turn: &mut usize) {
        self.queue.clear();
        while *turn > 0
            && !self.sources.is_empty()
            && let Poll::Ready(frame) = self.poll_sources(cx)
        {
            *turn = turn.saturating_sub(frame.map_or(0, |frame| frame.len()));
        }
    }

    /// Moves output, at most about `turn` bytes. A frame that was read is given to QUIC at once; the
    /// next one is read only when QUIC has taken it.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, turn: &mut usize) -> Poll<Output> {
        loop {
            match self.poll_flush(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Output::Gone),
                Poll::Pending => return Poll::Pending,
            }
            if self.opened && !self.ended && self.sources.is_empty() {
                self.ended = true;
                return Poll::Ready(Output::Ended);
            }
            if *turn == 0 {
                return Poll::Pending;
            }
            let Poll::Ready(frame) = self.poll_sources(cx) else {
                let gone = self.stopped.as_mut().poll(cx).is_ready();
                return Poll::Ready(if gone { Output::Gone } else { Output::Flushed });
            };
            if let Some(frame) = frame {
                *turn = turn.saturating_sub(frame.len());
                self.queue.push_back(frame);
            }
        }
    }

    /// Ends the stream. Resolves when the relay has all of it, or is gone.
    pub(super) fn finish(&mut self) -> impl Future<Output = ()> + '_ {
        // It has been stopped already, then.
        let _ = self.send.finish();
        self.stopped.as_mut()
    }

    /// Breaks the stream off: nobody reads it.
    pub(super) fn reset(&mut self) {
        // It has ended already, then.
        let _ = self.send.reset(0_u32.into());
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), quinn::WriteError>> {
        while !self.queue.is_empty() {
            let frames = self.queue.make_contiguous();
            let written = ready!(pin!(self.send.write_chunks(frames)).poll(cx))?;
            self.queue.drain(..written.chunks);
        }
        Poll::Ready(Ok(()))
    }

    /// A frame of the first source that has one; `None` when a source has ended.
    fn poll_sources(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        for at in 0..self.sources.len() {
            if let Poll::Ready(frame) = self.sources[at].poll_read(cx) {
                let source = self.sources.remove(at);
                if frame.is_some() {
                    self.sources.push(source);
                }
                return Poll::Ready(frame);
            }
        }
        Poll::Pending
    }
}

/// One output of the process.
struct Source {
    end: Arc<Async<OwnedFd>>,
    stream: DataStream,
    /// The last read found nothing, and since then the kernel did not say that there is more.
    blocked: bool,
}

impl Source {
    /// The next frame; `None` at the end.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if self.blocked && ready!(self.end.poll_readable(cx)).is_err() {
                return Poll::Ready(None);
            }
            match self.read() {
                Ok(frame) => {
                    self.blocked = false;
                    return Poll::Ready(frame);
                }
                Err(Errno::WOULDBLOCK) => self.blocked = true,
                Err(Errno::INTR) => {}
                // EIO is a terminal's end of file: nobody holds its other end any more.
                Err(_) => return Poll::Ready(None),
            }
        }
    }

    /// Reads what is there into a frame of just that size: a keystroke's echo must not hold a large
    /// buffer while it waits for its acknowledgement, and a large read must not be copied.
    fn read(&mut self) -> Result<Option<Bytes>, Errno> {
        let waiting = ioctl_fionread(&*self.end).unwrap_or(0);
        let room = usize::try_from(waiting)
            .unwrap_or(OUTPUT_READ)
            .clamp(MIN_OUTPUT_READ, OUTPUT_READ);
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
