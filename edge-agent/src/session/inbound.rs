//! From the relay's stream to the process.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use futures_lite::Future as _;
use holdfast_protocol::codec::frame::{FrameReader, Piece, SessionMessage};
use holdfast_protocol::session::DeviceSession;
use rustix::io::{Errno, writev};
use smol::Async;

use crate::limits::{INPUT_QUEUE_BYTES, INPUT_QUEUE_PIECES, STREAM_READ_PIECES};

/// What came, besides data.
#[expect(clippy::large_enum_variant, reason = "one at a time, on the stack")]
pub(super) enum Input {
    /// A message.
    Message(SessionMessage),
    /// The relay reset or ended the stream, broke the protocol, or is lost.
    Gone,
}

/// The receiving half of a session.
pub(super) struct Inbound {
    recv: quinn::RecvStream,
    reader: FrameReader,
    /// Read, but not yet cut into pieces. Holds at most [`STREAM_READ_PIECES`].
    raw: VecDeque<Bytes>,
    /// Where data goes.
    pub(super) stdin: Stdin,
}

impl Inbound {
    pub(super) fn new(recv: quinn::RecvStream) -> Self {
        Self {
            recv,
            reader: FrameReader::default(),
            raw: VecDeque::new(),
            stdin: Stdin::default(),
        }
    }

    /// Moves data, at most `turn` bytes, until a message has come. A message waits behind the data
    /// before it only while the queue is full, so that a signal reaches a process that reads nothing.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        core: &DeviceSession,
        turn: &mut usize,
    ) -> Poll<Input> {
        loop {
            if let Some(input) = self.cut(core, turn) {
                return Poll::Ready(input);
            }
            self.stdin.poll_flush(cx);
            if !self.stdin.has_room() {
                return self.poll_gone(cx);
            }
            if !self.raw.is_empty() {
                continue;
            }
            if *turn == 0 {
                return Poll::Pending;
            }
            let mut pieces = [const { Bytes::new() }; STREAM_READ_PIECES];
            let read = pin!(self.recv.read_chunks(&mut pieces)).poll(cx);
            match read {
                Poll::Ready(Ok(Some(count))) => self.raw.extend(pieces.into_iter().take(count)),
                Poll::Ready(Ok(None) | Err(_)) => return Poll::Ready(Input::Gone),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Tells the relay that nothing more is wanted.
    pub(super) fn stop(&mut self) {
        // It has ended already, then.
        let _ = self.recv.stop(0_u32.into());
    }

    /// Cuts what was read into pieces, as far as the queue has room for data.
    fn cut(&mut self, core: &DeviceSession, turn: &mut usize) -> Option<Input> {
        while self.stdin.has_room() {
            let bytes = self.raw.front_mut()?;
            let mut rest: &[u8] = bytes;
            match self.reader.read(&mut rest) {
                Ok(Some(Piece::Data(stream, data))) => match core.handle_data(stream) {
                    Ok(wanted) => {
                        *turn = turn.saturating_sub(data.len());
                        if wanted {
                            self.stdin.push(bytes.slice_ref(data));
                        }
                    }
                    Err(_) => return Some(Input::Gone),
                },
                Ok(Some(Piece::Message(message))) => {
                    bytes.advance(bytes.len() - rest.len());
                    return Some(Input::Message(message));
                }
                Ok(None) => {}
                Err(_) => return Some(Input::Gone),
            }
            let used = bytes.len() - rest.len();
            bytes.advance(used);
            if bytes.is_empty() {
                self.raw.pop_front();
            }
        }
        None
    }

    /// While nothing is read, a reset must be noticed all the same.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Input> {
        match pin!(self.recv.received_reset()).poll(cx) {
            // The stream has ended in good order, and its last bytes wait here.
            Poll::Ready(Ok(None)) | Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(Some(_)) | Err(_)) => Poll::Ready(Input::Gone),
        }
    }
}

/// The process's input: a queue before a pipe or a terminal.
#[derive(Default)]
pub(super) struct Stdin {
    /// `None` before the start, and when nobody reads any more: what comes then is dropped.
    end: Option<Arc<Async<OwnedFd>>>,
    queue: VecDeque<Bytes>,
    queued: usize,
    /// Close when the queue is empty.
    closing: bool,
    /// The last write was refused, and since then the kernel did not say that it would take more.
    blocked: bool,
}

impl Stdin {
    pub(super) fn open(&mut self, end: Arc<Async<OwnedFd>>) {
        self.end = Some(end);
    }

    /// Closes behind what is queued.
    pub(super) fn close_after_queue(&mut self) {
        self.closing = true;
    }

    /// Closes now.
    pub(super) fn close(&mut self) {
        self.end = None;
        self.queue = VecDeque::new();
        self.queued = 0;
    }

    fn has_room(&self) -> bool {
        self.queued < INPUT_QUEUE_BYTES && self.queue.len() < INPUT_QUEUE_PIECES
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
