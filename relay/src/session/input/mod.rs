//! The input of an operator's channel, on its way to the device: a queue with a budget of bytes.
//!
//! russh gives window back as soon as data arrives, not when it is taken, and has no call to give it later.
//! But each time it gives window back, it asks up to how much. So while a queue is loaded the answer is
//! [`TRICKLE_WINDOW`]: its client may send two bytes, and two more a round trip later, and each time the
//! question comes again, until the answer is the whole window. So one slow channel holds up neither the
//! others of its connection nor its own output, whose window messages come by the same way.
//!
//! russh keeps one answer for all channels of a connection: what it got for one, it gives to the next that
//! needs window, whichever that is. So beside a loaded channel the others get no more than
//! [`SHARED_WINDOW`](crate::session::limits::SHARED_WINDOW), and beside a full one the trickle ([`allowance`]).
//!
//! What was under way before fits into the budget, and half a day of trickle beside it. Should the budget be used up
//! all the same, the handler waits, and with it the connection; a channel whose device has taken nothing for a
//! minute is then given up.

mod chunk;
mod level;

use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, MutexGuard};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use holdfast_protocol::wire::{Signal, WindowSize};
use thiserror::Error;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::chunk::Chunk;
pub(crate) use self::level::{QueueLevel, allowance};
use crate::clock;
use crate::session::limits::{
    CHANNEL_FILLING, CHANNEL_FULL, CHANNEL_LOADED, CHANNEL_QUEUE, CHANNEL_SHARE, CONNECTION_FULL,
    CONNECTION_LOADED, CONNECTION_QUEUE, MESSAGE_CHUNK, MESSAGE_OVERHEAD, SMALL_MESSAGE,
    STALLED_CHANNEL, TRICKLE_PAUSE, TRICKLE_QUEUE, TRICKLE_WINDOW,
};
use crate::sync::Mutex;

/// The free part of the budget when a queue is no longer loaded.
#[expect(clippy::cast_possible_truncation, reason = "both are a few MiB")]
const ROOM_WHEN_RELIEVED: u32 = (CHANNEL_QUEUE - CHANNEL_LOADED) as u32;

/// A message of an operator on a channel.
#[derive(Debug)]
pub(crate) enum Input {
    /// Bytes for the process.
    Data(Bytes),
    /// No more of them.
    Eof,
    /// The terminal's new size.
    Resize(WindowSize),
    /// A signal.
    Signal(Signal),
    /// Its client reads no more standard output (`eow@openssh.com`).
    StdoutClosed,
}

/// The reason why nothing more goes into a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum PushError {
    /// The reader is gone: the session has ended.
    #[error("the session has ended")]
    Ended,
    /// It is full, and nothing was taken for [`STALLED_CHANNEL`].
    #[error("the device accepted no data for {} s", STALLED_CHANNEL.as_secs())]
    Stalled,
}

/// The budget of the channels of one connection together.
#[derive(Clone, Debug)]
pub(crate) struct InputBudget(Arc<Semaphore>);

impl Default for InputBudget {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(CONNECTION_QUEUE)))
    }
}

/// The permits for a queued message, of its channel's budget and of its connection's.
#[derive(Debug)]
struct QueuePermit {
    _own: OwnedSemaphorePermit,
    _shared: OwnedSemaphorePermit,
}

/// An entry of a queue.
#[derive(Debug)]
enum Queued {
    One(Input),
    /// Small messages, and those that came behind them.
    Chunk(Arc<Chunk>),
}

/// The state that both ends share.
#[derive(Debug)]
struct InputShared {
    /// The chunk that was queued last, if nothing was queued behind it.
    last: Mutex<Option<Arc<Chunk>>>,
    /// The time since which there was something to take and nothing was taken.
    untaken: Mutex<Instant>,
}

/// The handler's end.
#[derive(Clone, Debug)]
pub(crate) struct InputSender {
    queue: mpsc::Sender<(Queued, QueuePermit)>,
    budget: Arc<Semaphore>,
    trickle: Arc<Semaphore>,
    connection: InputBudget,
    shared: Arc<InputShared>,
    /// Says that the client is gone when the last clone is dropped.
    _alive: Arc<DropGuard>,
}

/// The session's end. `None` from [`Self::next`] means that the client is gone.
#[derive(Debug)]
pub(crate) struct InputReceiver {
    queue: mpsc::Receiver<(Queued, QueuePermit)>,
    shared: Arc<InputShared>,
    /// The message that a reader as a stream has begun to take.
    partial: Option<(Bytes, QueuePermit)>,
    ended: bool,
    gone: CancellationToken,
}

/// Returns a new queue of a connection's channel.
#[must_use]
pub(crate) fn queue(connection: &InputBudget) -> (InputSender, InputReceiver) {
    // The budgets fill before the number of places does, so `send` below never waits.
    let places = CHANNEL_QUEUE / MESSAGE_OVERHEAD + TRICKLE_QUEUE / MESSAGE_CHUNK;
    let (sender, receiver) = mpsc::channel(places);
    let gone = CancellationToken::new();
    let shared = Arc::new(InputShared {
        last: Mutex::default(),
        untaken: Mutex::new(clock::instant()),
    });
    (
        InputSender {
            queue: sender,
            budget: Arc::new(Semaphore::new(CHANNEL_QUEUE)),
            trickle: Arc::new(Semaphore::new(TRICKLE_QUEUE)),
            connection: connection.clone(),
            shared: shared.clone(),
            _alive: Arc::new(gone.clone().drop_guard()),
        },
        InputReceiver {
            queue: receiver,
            shared,
            partial: None,
            ended: false,
            gone,
        },
    )
}

impl InputSender {
    /// Puts `input` in, and waits for room if there is none.
    ///
    /// # Errors
    /// [`PushError`]; the input is lost, and so is the channel.
    pub(crate) async fn push(&self, input: Input) -> Result<(), PushError> {
        if self.queue.is_closed() {
            return Err(PushError::Ended);
        }
        let waiting = self.waiting();
        if waiting == 0 {
            *self.shared.untaken() = clock::instant();
        }
        match input {
            Input::Data(data) if data.len() <= SMALL_MESSAGE && waiting > 0 => {
                self.push_small(&data).await
            }
            input => {
                let bytes = if let Input::Data(data) = &input {
                    data.len()
                } else {
                    0
                };
                let place = self.place(&self.budget, bytes + MESSAGE_OVERHEAD).await?;
                *self.shared.last() = None;
                self.send(Queued::One(input), place).await
            }
        }
    }

    /// Holds the sender of a trickle for a moment, or until the queue is no longer loaded: on a fast network a round
    /// trip is nothing, and a trickle must not become a stream of packets.
    pub(crate) async fn pause(&self) {
        let relieved = self.budget.acquire_many(ROOM_WHEN_RELIEVED);
        let _ = timeout(TRICKLE_PAUSE, relieved).await;
    }

    /// Returns whether the reader is gone: the session has ended.
    #[must_use]
    pub(crate) fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    /// Returns whether nothing was taken for [`STALLED_CHANNEL`], and something waits.
    #[must_use]
    pub(crate) fn is_stalled(&self) -> bool {
        self.waiting() > 0 && self.shared.untaken().elapsed() >= STALLED_CHANNEL
    }

    /// Returns the fill level.
    #[must_use]
    pub(crate) fn level(&self) -> QueueLevel {
        let own = self.waiting();
        let all = CONNECTION_QUEUE - self.connection.0.available_permits();
        let has_its_share = own > CHANNEL_SHARE;
        if own > CHANNEL_FULL || (all > CONNECTION_FULL && has_its_share) {
            QueueLevel::Full
        } else if own > CHANNEL_LOADED || (all > CONNECTION_LOADED && has_its_share) {
            QueueLevel::Loaded
        } else if own > CHANNEL_FILLING {
            QueueLevel::Filling
        } else {
            QueueLevel::Low
        }
    }

    /// Returns the bytes that wait, without those that a trickle brought besides.
    fn waiting(&self) -> usize {
        CHANNEL_QUEUE - self.budget.available_permits()
    }

    /// Queues a small message. Such messages would fill the queue with what it costs to keep them: those behind others
    /// wait together.
    async fn push_small(&self, data: &[u8]) -> Result<(), PushError> {
        let last = self.shared.last().clone();
        if last.is_some_and(|chunk| chunk.append(data)) {
            return Ok(());
        }
        let is_trickle =
            data.len() <= TRICKLE_WINDOW as usize && self.level() >= QueueLevel::Loaded;
        let budget = if is_trickle && self.trickle.available_permits() >= MESSAGE_CHUNK {
            &self.trickle
        } else {
            &self.budget
        };
        let place = self.place(budget, MESSAGE_CHUNK).await?;
        let chunk = Arc::new(Chunk::new(data));
        *self.shared.last() = Some(chunk.clone());
        self.send(Queued::Chunk(chunk), place).await
    }

    async fn place(&self, budget: &Arc<Semaphore>, bytes: usize) -> Result<QueuePermit, PushError> {
        let cost = u32::try_from(bytes.min(CHANNEL_QUEUE)).unwrap_or(u32::MAX);
        let began = clock::instant();
        let shared = &self.shared;
        Ok(QueuePermit {
            _own: self.room(budget, cost, || *shared.untaken()).await?,
            // Who uses up what all share may be another: it is not this channel's fault before it has waited itself.
            _shared: self
                .room(&self.connection.0, cost, || began.max(*shared.untaken()))
                .await?,
        })
    }

    /// Waits for room until [`STALLED_CHANNEL`] after `since`, which may grow meanwhile.
    async fn room(
        &self,
        budget: &Arc<Semaphore>,
        cost: u32,
        since: impl Fn() -> Instant,
    ) -> Result<OwnedSemaphorePermit, PushError> {
        let mut room = pin!(budget.clone().acquire_many_owned(cost));
        loop {
            tokio::select! {
                biased;
                room = &mut room => return room.map_err(|_| PushError::Ended),
                () = self.queue.closed() => return Err(PushError::Ended),
                () = sleep_until(since() + STALLED_CHANNEL) => {
                    if since().elapsed() >= STALLED_CHANNEL {
                        return Err(PushError::Stalled);
                    }
                }
            }
        }
    }

    async fn send(&self, queued: Queued, place: QueuePermit) -> Result<(), PushError> {
        let sent = self.queue.send((queued, place)).await;
        sent.map_err(|_| PushError::Ended)
    }
}

impl InputShared {
    fn last(&self) -> MutexGuard<'_, Option<Arc<Chunk>>> {
        self.last.lock()
    }

    fn untaken(&self) -> MutexGuard<'_, Instant> {
        self.untaken.lock()
    }
}

impl InputReceiver {
    /// Returns the next input; `None` when the client is gone.
    pub(crate) async fn next(&mut self) -> Option<Input> {
        let queued = self.queue.recv().await;
        // The permit goes here: what was taken is the session's to hold, one message at a time.
        queued.map(|(queued, _place)| self.taken(queued))
    }

    /// Returns a token that is cancelled as soon as the client is gone, whatever still waits in the queue.
    #[must_use]
    pub(crate) fn gone(&self) -> CancellationToken {
        self.gone.clone()
    }

    fn taken(&self, queued: Queued) -> Input {
        *self.shared.untaken() = clock::instant();
        match queued {
            Queued::One(input) => input,
            Queued::Chunk(chunk) => Input::Data(chunk.take()),
        }
    }
}

/// The data alone, as a stream: for an SSH connection inside a channel. Everything else is skipped.
impl AsyncRead for InputReceiver {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if let Some((bytes, _)) = &mut self.partial {
                let count = bytes.len().min(buffer.remaining());
                buffer.put_slice(&bytes[..count]);
                bytes.advance(count);
                if bytes.is_empty() {
                    self.partial = None;
                }
                return Poll::Ready(Ok(()));
            }
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            let Some((queued, place)) = ready!(self.queue.poll_recv(cx)) else {
                self.ended = true;
                continue;
            };
            match self.taken(queued) {
                Input::Data(data) if !data.is_empty() => self.partial = Some((data, place)),
                Input::Data(_) | Input::Resize(_) | Input::Signal(_) | Input::StdoutClosed => {}
                Input::Eof => self.ended = true,
            }
        }
    }
}

#[cfg(test)]
mod tests;
