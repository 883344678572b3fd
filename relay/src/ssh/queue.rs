//! What an operator's channel sends, on its way to the device: a queue with a budget of bytes.
//!
//! russh gives window back as soon as data arrives, not when it is taken, and has no call to give it later.
//! But each time it gives window back, it asks up to how much. So while a queue is loaded the answer is
//! [`TRICKLE_WINDOW`]: its client may send two bytes, and two more a round trip later, and each time the
//! question comes again, until the answer is the whole window. So one slow channel holds up neither the
//! others of its connection nor its own output, whose window messages come by the same way.
//!
//! What was under way before fits into the budget, and so does a long trickle. Should the budget be used up
//! all the same, the handler waits, and with it the connection; a channel whose device takes nothing for a
//! minute of that is given up.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use holdfast_protocol::wire::{Signal, WindowSize};
use thiserror::Error;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::limits::{
    CHANNEL_LOADED, CHANNEL_QUEUE, CHANNEL_SHARE, CONNECTION_LOADED, CONNECTION_QUEUE,
    MESSAGE_OVERHEAD, SSH_WINDOW, STALLED_CHANNEL, TRICKLE_PAUSE, TRICKLE_WINDOW,
};

/// What is free of the budget when a queue is no longer loaded.
#[expect(clippy::cast_possible_truncation, reason = "both are a few MiB")]
const ROOM_WHEN_RELIEVED: u32 = (CHANNEL_QUEUE - CHANNEL_LOADED) as u32;

/// What an operator sends on a channel.
#[derive(Debug)]
pub enum Input {
    /// Bytes for the process.
    Data(Bytes),
    /// No more of them.
    Eof,
    /// The terminal's new size.
    Resize(WindowSize),
    /// A signal.
    Signal(Signal),
}

/// Why nothing more goes into a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PushError {
    /// Nobody takes it any more: the session has ended.
    #[error("the session has ended")]
    Ended,
    /// It has been full for [`STALLED_CHANNEL`].
    #[error("the device took nothing for {} s", STALLED_CHANNEL.as_secs())]
    Stalled,
}

/// What the channels of one connection may hold together.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Semaphore>);

impl Default for Budget {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(CONNECTION_QUEUE)))
    }
}

/// What a queued message takes of its channel's budget and of its connection's.
#[derive(Debug)]
struct Place {
    _own: OwnedSemaphorePermit,
    _shared: OwnedSemaphorePermit,
}

/// The handler's end.
#[derive(Clone, Debug)]
pub struct InputSender {
    queue: mpsc::Sender<(Input, Place)>,
    budget: Arc<Semaphore>,
    shared: Budget,
    /// Says that the client is gone when the last clone is dropped.
    _alive: Arc<DropGuard>,
}

/// The session's end. `None` from [`Self::next`] means that the client is gone.
#[derive(Debug)]
pub struct InputReceiver {
    queue: mpsc::Receiver<(Input, Place)>,
    /// What a reader as a stream has begun to take.
    partial: Option<(Bytes, Place)>,
    ended: bool,
    gone: CancellationToken,
}

/// A new queue of a connection's channel.
#[must_use]
pub fn queue(shared: &Budget) -> (InputSender, InputReceiver) {
    // The budget fills before the number of places does, so `send` below never waits.
    let (sender, receiver) = mpsc::channel(CHANNEL_QUEUE / MESSAGE_OVERHEAD);
    let budget = Arc::new(Semaphore::new(CHANNEL_QUEUE));
    let gone = CancellationToken::new();
    (
        InputSender {
            queue: sender,
            budget,
            shared: shared.clone(),
            _alive: Arc::new(gone.clone().drop_guard()),
        },
        InputReceiver {
            queue: receiver,
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
    pub async fn push(&self, input: Input) -> Result<(), PushError> {
        let bytes = if let Input::Data(data) = &input {
            data.len()
        } else {
            0
        };
        let cost = u32::try_from((bytes + MESSAGE_OVERHEAD).min(CHANNEL_QUEUE)).unwrap_or(u32::MAX);
        let room = async {
            Ok::<_, AcquireError>(Place {
                _own: self.budget.clone().acquire_many_owned(cost).await?,
                _shared: self.shared.0.clone().acquire_many_owned(cost).await?,
            })
        };
        let place = tokio::select! {
            room = timeout(STALLED_CHANNEL, room) => match room {
                Ok(Ok(place)) => place,
                Ok(Err(_)) => return Err(PushError::Ended),
                Err(_) => return Err(PushError::Stalled),
            },
            () = self.queue.closed() => return Err(PushError::Ended),
        };
        self.queue
            .send((input, place))
            .await
            .map_err(|_| PushError::Ended)?;
        if self.is_loaded() && (1..=TRICKLE_WINDOW as usize).contains(&bytes) {
            // On a fast network a round trip is nothing: a trickle must not become a stream of packets.
            let relieved = self.budget.acquire_many(ROOM_WHEN_RELIEVED);
            let _ = timeout(TRICKLE_PAUSE, relieved).await;
        }
        Ok(())
    }

    /// Whether nobody takes anything any more: the session has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    /// Up to how much window the channel's client may have now.
    #[must_use]
    pub fn window(&self) -> u32 {
        if self.is_loaded() {
            TRICKLE_WINDOW
        } else {
            SSH_WINDOW
        }
    }

    fn is_loaded(&self) -> bool {
        let own = CHANNEL_QUEUE - self.budget.available_permits();
        let all = CONNECTION_QUEUE - self.shared.0.available_permits();
        own > CHANNEL_LOADED || (all > CONNECTION_LOADED && own > CHANNEL_SHARE)
    }
}

impl InputReceiver {
    /// The next input; `None` when the client is gone.
    pub async fn next(&mut self) -> Option<Input> {
        // The permit goes here: what was taken is the session's to hold, one message at a time.
        self.queue.recv().await.map(|(input, _place)| input)
    }

    /// Cancelled as soon as the client is gone, whatever still waits in the queue.
    #[must_use]
    pub fn gone(&self) -> CancellationToken {
        self.gone.clone()
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
            match ready!(self.queue.poll_recv(cx)) {
                Some((Input::Data(data), place)) if !data.is_empty() => {
                    self.partial = Some((data, place));
                }
                Some((Input::Data(_) | Input::Resize(_) | Input::Signal(_), _)) => {}
                Some((Input::Eof, _)) | None => self.ended = true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt as _;

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_makes_the_sender_wait_and_then_gives_up() {
        let (sender, mut receiver) = queue(&Budget::default());
        let packet = Bytes::from(vec![0; 32 * 1024]);
        let mut taken = 0;
        while let Ok(pushed) = timeout(
            STALLED_CHANNEL / 2,
            sender.push(Input::Data(packet.clone())),
        )
        .await
        {
            pushed.unwrap();
            taken += packet.len();
        }
        assert!(
            (CHANNEL_QUEUE - 64 * 1024..=CHANNEL_QUEUE).contains(&taken),
            "{taken}"
        );
        assert!(receiver.next().await.is_some());
        assert_eq!(sender.push(Input::Data(packet.clone())).await, Ok(()));
        assert_eq!(
            sender.push(Input::Data(packet)).await,
            Err(PushError::Stalled)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_loaded_queue_gives_its_client_a_trickle_and_then_the_whole_window_again() {
        let (sender, mut receiver) = queue(&Budget::default());
        let packet = || Input::Data(Bytes::from(vec![0; 32 * 1024]));
        let mut queued = 0;
        while sender.window() == SSH_WINDOW {
            sender.push(packet()).await.unwrap();
            queued += 32 * 1024;
        }
        assert!((CHANNEL_LOADED - 64 * 1024..=CHANNEL_LOADED + 64 * 1024).contains(&queued));
        assert_eq!(sender.window(), TRICKLE_WINDOW);
        for _ in 0..SSH_WINDOW / (32 * 1024) {
            let taken = timeout(TRICKLE_PAUSE, sender.push(packet())).await;
            assert_eq!(taken, Ok(Ok(())), "what was under way fits");
        }
        while sender.window() == TRICKLE_WINDOW {
            assert!(receiver.next().await.is_some());
        }
        assert_eq!(sender.window(), SSH_WINDOW);
    }

    #[tokio::test]
    async fn empty_messages_fill_the_queue_too() {
        let (sender, receiver) = queue(&Budget::default());
        let mut pushed = 0;
        while tokio::time::timeout(std::time::Duration::ZERO, sender.push(Input::Eof))
            .await
            .is_ok()
        {
            pushed += 1;
        }
        assert_eq!(pushed, CHANNEL_QUEUE / MESSAGE_OVERHEAD);
        drop(receiver);
        assert_eq!(sender.push(Input::Eof).await, Err(PushError::Ended));
    }

    #[tokio::test]
    async fn as_a_stream_only_data_is_seen() {
        let (sender, mut receiver) = queue(&Budget::default());
        sender
            .push(Input::Data(Bytes::from_static(b"he")))
            .await
            .unwrap();
        sender
            .push(Input::Resize(WindowSize::default()))
            .await
            .unwrap();
        sender
            .push(Input::Data(Bytes::from_static(b"llo")))
            .await
            .unwrap();
        sender.push(Input::Eof).await.unwrap();
        let mut text = String::new();
        receiver.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello");
    }
}
