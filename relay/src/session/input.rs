//! What an operator's channel sends, on its way to the device: a queue with a budget of bytes.
//!
//! russh gives window back as soon as data arrives, not when it is taken, and has no call to give it later.
//! But each time it gives window back, it asks up to how much. So while a queue is loaded the answer is
//! [`TRICKLE_WINDOW`]: its client may send two bytes, and two more a round trip later, and each time the
//! question comes again, until the answer is the whole window. So one slow channel holds up neither the
//! others of its connection nor its own output, whose window messages come by the same way.
//!
//! russh keeps one answer for all channels of a connection: what it got for one, it gives to the next that
//! needs window, whichever that is. So beside a loaded channel the others get no more than [`SHARED_WINDOW`],
//! and beside a full one the trickle ([`allowance`]).
//!
//! What was under way before fits into the budget, and half a day of trickle beside it. Should the budget be used up
//! all the same, the handler waits, and with it the connection; a channel whose device has taken nothing for a
//! minute is then given up.

use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use holdfast_protocol::wire::{Signal, WindowSize};
use thiserror::Error;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::limits::{
    CHANNEL_FILLING, CHANNEL_FULL, CHANNEL_LOADED, CHANNEL_QUEUE, CHANNEL_SHARE, CONNECTION_FULL,
    CONNECTION_LOADED, CONNECTION_QUEUE, MESSAGE_CHUNK, MESSAGE_OVERHEAD, SHARED_WINDOW,
    SMALL_MESSAGE, SSH_WINDOW, STALLED_CHANNEL, TRICKLE_PAUSE, TRICKLE_QUEUE, TRICKLE_WINDOW,
};

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
}

/// The reason why nothing more goes into a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum PushError {
    /// The reader is gone: the session has ended.
    #[error("the session has ended")]
    Ended,
    /// It is full, and nothing was taken for [`STALLED_CHANNEL`].
    #[error("the device took nothing for {} s", STALLED_CHANNEL.as_secs())]
    Stalled,
}

/// The fill level of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Nothing, or little.
    Low,
    /// The device falls behind.
    Filling,
    /// Its client gets a trickle.
    Loaded,
    /// Its neighbours' clients get one too.
    Full,
}

/// The budget of the channels of one connection together.
#[derive(Clone, Debug)]
pub(crate) struct Budget(Arc<Semaphore>);

impl Default for Budget {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(CONNECTION_QUEUE)))
    }
}

/// Returns how much window a channel's client may have at most, by its own queue's level and the highest of the others
/// on its connection.
#[must_use]
pub(crate) fn allowance(own: Level, others: Level) -> u32 {
    let own = match own {
        Level::Low => SSH_WINDOW,
        Level::Filling => SSH_WINDOW / 2,
        Level::Loaded | Level::Full => TRICKLE_WINDOW,
    };
    let beside = match others {
        Level::Low => SSH_WINDOW,
        Level::Filling => SSH_WINDOW / 2,
        Level::Loaded => SHARED_WINDOW,
        Level::Full => TRICKLE_WINDOW,
    };
    own.min(beside)
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

/// Small messages that wait as one, until they are taken.
#[derive(Debug)]
struct Chunk(Mutex<Option<BytesMut>>);

/// The state that both ends share.
#[derive(Debug)]
struct Shared {
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
    connection: Budget,
    shared: Arc<Shared>,
    /// Says that the client is gone when the last clone is dropped.
    _alive: Arc<DropGuard>,
}

/// The session's end. `None` from [`Self::next`] means that the client is gone.
#[derive(Debug)]
pub(crate) struct InputReceiver {
    queue: mpsc::Receiver<(Queued, QueuePermit)>,
    shared: Arc<Shared>,
    /// The message that a reader as a stream has begun to take.
    partial: Option<(Bytes, QueuePermit)>,
    ended: bool,
    gone: CancellationToken,
}

/// Returns a new queue of a connection's channel.
#[must_use]
pub(crate) fn queue(connection: &Budget) -> (InputSender, InputReceiver) {
    // The budgets fill before the number of places does, so `send` below never waits.
    let places = CHANNEL_QUEUE / MESSAGE_OVERHEAD + TRICKLE_QUEUE / MESSAGE_CHUNK;
    let (sender, receiver) = mpsc::channel(places);
    let gone = CancellationToken::new();
    let shared = Arc::new(Shared {
        last: Mutex::default(),
        untaken: Mutex::new(Instant::now()),
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
            *self.shared.untaken() = Instant::now();
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
    pub(crate) fn level(&self) -> Level {
        let own = self.waiting();
        let all = CONNECTION_QUEUE - self.connection.0.available_permits();
        let has_its_share = own > CHANNEL_SHARE;
        if own > CHANNEL_FULL || (all > CONNECTION_FULL && has_its_share) {
            Level::Full
        } else if own > CHANNEL_LOADED || (all > CONNECTION_LOADED && has_its_share) {
            Level::Loaded
        } else if own > CHANNEL_FILLING {
            Level::Filling
        } else {
            Level::Low
        }
    }

    /// Bytes that wait, what a trickle brought besides not counted.
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
        let is_trickle = data.len() <= TRICKLE_WINDOW as usize && self.level() >= Level::Loaded;
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
        let began = Instant::now();
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

impl Chunk {
    fn new(data: &[u8]) -> Self {
        let mut bytes = BytesMut::with_capacity(MESSAGE_CHUNK);
        bytes.extend_from_slice(data);
        Self(Mutex::new(Some(bytes)))
    }

    /// Returns whether there was room for `data`, and the chunk is not taken yet.
    fn append(&self, data: &[u8]) -> bool {
        match &mut *self.lock() {
            Some(bytes) if bytes.len() + data.len() <= MESSAGE_CHUNK => {
                bytes.extend_from_slice(data);
                true
            }
            _ => false,
        }
    }

    fn take(&self) -> Bytes {
        self.lock().take().unwrap_or_default().freeze()
    }

    fn lock(&self) -> MutexGuard<'_, Option<BytesMut>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn last(&self) -> MutexGuard<'_, Option<Arc<Chunk>>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn untaken(&self) -> MutexGuard<'_, Instant> {
        self.untaken.lock().unwrap_or_else(PoisonError::into_inner)
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
        *self.shared.untaken() = Instant::now();
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
                Input::Data(_) | Input::Resize(_) | Input::Signal(_) => {}
                Input::Eof => self.ended = true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;
    use tokio::io::AsyncReadExt as _;

    /// Returns the largest message that a client sends.
    fn packet() -> Input {
        Input::Data(Bytes::from(vec![0; 32 * 1024]))
    }

    fn keystroke() -> Input {
        Input::Data(Bytes::from_static(b"xy"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_makes_the_sender_wait_and_then_gives_up() {
        let (sender, mut receiver) = queue(&Budget::default());
        let mut taken = 0;
        while let Ok(pushed) = timeout(STALLED_CHANNEL / 2, sender.push(packet())).await {
            pushed.unwrap();
            taken += 32 * 1024;
        }
        assert!(
            (CHANNEL_QUEUE - 64 * 1024..=CHANNEL_QUEUE).contains(&taken),
            "{taken}"
        );
        assert!(!sender.is_stalled());
        assert!(receiver.next().await.is_some());
        assert_eq!(sender.push(packet()).await, Ok(()));
        let began = Instant::now();
        assert_eq!(sender.push(packet()).await, Err(PushError::Stalled));
        assert_eq!(began.elapsed().as_secs(), STALLED_CHANNEL.as_secs());
        assert!(sender.is_stalled());
        let again = timeout(Duration::from_millis(5), sender.push(packet())).await;
        assert_eq!(again, Ok(Err(PushError::Stalled)), "no second wait");
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_that_takes_a_little_now_and_then_is_waited_for() {
        let (sender, mut receiver) = queue(&Budget::default());
        while timeout(Duration::ZERO, sender.push(packet())).await.is_ok() {}
        let wide = Input::Data(Bytes::from(vec![0; 100 * 1024]));
        let takes = async {
            for _ in 0..4 {
                tokio::time::sleep(STALLED_CHANNEL * 3 / 4).await;
                receiver.next().await;
            }
        };
        let (pushed, ()) = tokio::join!(sender.push(wide), takes);
        assert_eq!(pushed, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn loaded_queue_narrows_and_restores_the_window() {
        let (sender, mut receiver) = queue(&Budget::default());
        let mut queued = 0;
        while sender.level() < Level::Loaded {
            sender.push(packet()).await.unwrap();
            queued += 32 * 1024;
        }
        assert!((CHANNEL_LOADED - 64 * 1024..=CHANNEL_LOADED + 64 * 1024).contains(&queued));
        let mut taken = 0;
        while sender.level() > Level::Low {
            assert!(receiver.next().await.is_some());
            taken += 32 * 1024;
        }
        assert!(queued - taken <= CHANNEL_FILLING);
    }

    /// A channel as russh sees it: below half of what it got last, it gives up to that much, and asks again.
    struct Client {
        sender: InputSender,
        receiver: InputReceiver,
        window: u32,
        packet: u32,
    }

    impl Client {
        fn new(connection: &Budget, packet: u32) -> Self {
            let (sender, receiver) = queue(connection);
            Self {
                sender,
                receiver,
                window: SSH_WINDOW,
                packet,
            }
        }

        /// Sends as much as it may at once; no other may be held up by it.
        async fn sends(&mut self, target: &mut u32, beside: Level) {
            let bytes = self.packet.min(self.window);
            self.window -= bytes;
            if self.window < *target / 2 {
                self.window = *target;
                *target = allowance(self.sender.level(), beside);
            }
            let data = Input::Data(Bytes::from(vec![0; bytes as usize]));
            let pushed = timeout(Duration::from_millis(1), self.sender.push(data)).await;
            assert_eq!(pushed, Ok(Ok(())), "{} wait", self.sender.waiting());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_client_may_send_before_it_hears_of_it_fits() {
        for packet in [500, 1_025, 32 * 1024] {
            for taken_before in (0..3 * 1024 * 1024).step_by(192 * 1024) {
                let (mut client, mut target) =
                    (Client::new(&Budget::default(), packet), SSH_WINDOW);
                let mut taken = 0;
                while client.window > TRICKLE_WINDOW {
                    client.sends(&mut target, Level::Low).await;
                    while taken < taken_before && client.sender.waiting() > 0 {
                        if let Some(Input::Data(data)) = client.receiver.next().await {
                            taken += data.len();
                        }
                    }
                }
                let level = client.sender.level();
                assert_eq!(level, Level::Loaded, "{} wait", client.sender.waiting());
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        /// One whose device takes nothing, one whose device does, and one of either kind, in any order.
        #[test]
        fn no_neighbour_lets_more_into_a_stalled_channel_than_fits(
            steps in prop::collection::vec(any::<u16>(), 3_000),
            eager in 1..20_u16,
            packet in 1_025..=32 * 1024_u32,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap();
            runtime.block_on(async {
                let (connection, mut target) = (Budget::default(), SSH_WINDOW);
                let mut stalled = Client::new(&connection, packet);
                let mut flowing = [0; 2].map(|_| Client::new(&connection, 32 * 1024));
                for step in steps {
                    let level = |client: &Client| client.sender.level();
                    if step % eager == 0 {
                        let beside = flowing.iter().map(level).max();
                        stalled.sends(&mut target, beside.unwrap_or(Level::Low)).await;
                        continue;
                    }
                    let which = usize::from(step >> 15);
                    let beside = stalled.sender.level().max(flowing[1 - which].sender.level());
                    let client = &mut flowing[which];
                    client.sends(&mut target, beside).await;
                    let is_taken = which == 0 || eager % 2 == 0;
                    for _ in 0..step >> 8 & 7 {
                        if is_taken && client.sender.waiting() > 0 {
                            client.receiver.next().await;
                        }
                    }
                }
            });
        }
    }

    #[test]
    fn a_channel_beside_a_loaded_one_gets_what_that_one_may_take() {
        assert_eq!(allowance(Level::Low, Level::Low), SSH_WINDOW);
        assert_eq!(allowance(Level::Low, Level::Filling), SSH_WINDOW / 2);
        assert_eq!(allowance(Level::Filling, Level::Low), SSH_WINDOW / 2);
        assert_eq!(allowance(Level::Low, Level::Loaded), SHARED_WINDOW);
        assert_eq!(allowance(Level::Low, Level::Full), TRICKLE_WINDOW);
        assert_eq!(allowance(Level::Loaded, Level::Low), TRICKLE_WINDOW);
        // What was granted just before it was full, and once more by a neighbour.
        assert!(CHANNEL_FULL + 2 * SHARED_WINDOW as usize <= CHANNEL_QUEUE);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_drain_blocks_no_other_channel_and_ends() {
        let (sender, mut receiver) = queue(&Budget::default());
        // The whole of it takes half a day, and long to count.
        sender.trickle.forget_permits(TRICKLE_QUEUE * 19 / 20);
        while sender.level() < Level::Loaded {
            sender.push(packet()).await.unwrap();
        }
        while sender.level() < Level::Full {
            sender.push(packet()).await.unwrap();
        }
        let (began, mut sent) = (Instant::now(), 0);
        loop {
            let before = Instant::now();
            let pushed = sender.push(keystroke()).await;
            assert_eq!(
                before.elapsed(),
                Duration::ZERO,
                "after {:?}",
                began.elapsed()
            );
            if pushed == Err(PushError::Stalled) {
                break;
            }
            sent += 2;
            sender.pause().await;
        }
        assert!(
            began.elapsed() * 20 > Duration::from_secs(10 * 3600),
            "{:?}",
            began.elapsed()
        );
        let mut taken = 0;
        while let Ok(Some(Input::Data(data))) = timeout(Duration::ZERO, receiver.next()).await {
            taken += if data.starts_with(b"xy") {
                data.len()
            } else {
                0
            };
        }
        assert_eq!(taken, sent, "nothing is lost");
    }

    #[tokio::test(start_paused = true)]
    async fn small_messages_keep_their_place_among_others() {
        let (sender, mut receiver) = queue(&Budget::default());
        let letters = |text: &'static str| Input::Data(Bytes::from_static(text.as_bytes()));
        for input in [
            letters("a"),
            letters("b"),
            letters("c"),
            Input::Eof,
            letters("d"),
        ] {
            sender.push(input).await.unwrap();
        }
        let mut seen = String::new();
        for _ in 0..2 {
            if let Some(Input::Data(data)) = receiver.next().await {
                seen.push_str(str::from_utf8(&data).unwrap());
            }
        }
        assert_eq!(seen, "abc");
        // Its place is taken: what comes now must not go there.
        sender.push(letters("e")).await.unwrap();
        assert!(matches!(receiver.next().await, Some(Input::Eof)));
        drop(sender);
        seen.clear();
        receiver.read_to_string(&mut seen).await.unwrap();
        assert_eq!(seen, "de");
    }

    #[tokio::test]
    async fn empty_messages_fill_the_queue_too() {
        let (sender, receiver) = queue(&Budget::default());
        let mut pushed = 0;
        while timeout(Duration::ZERO, sender.push(Input::Eof))
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
