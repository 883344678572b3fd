use super::*;
use proptest::prelude::*;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;

use crate::session::limits::{SHARED_WINDOW, SSH_WINDOW};

/// Returns the largest message that a client sends.
fn packet() -> Input {
    Input::Data(Bytes::from(vec![0; 32 * 1024]))
}

fn keystroke() -> Input {
    Input::Data(Bytes::from_static(b"xy"))
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_makes_the_sender_wait_and_then_gives_up() {
    let (sender, mut receiver) = queue(&InputBudget::default());
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
    let began = clock::instant();
    assert_eq!(sender.push(packet()).await, Err(PushError::Stalled));
    assert_eq!(began.elapsed().as_secs(), STALLED_CHANNEL.as_secs());
    assert!(sender.is_stalled());
    let again = timeout(Duration::from_millis(5), sender.push(packet())).await;
    assert_eq!(again, Ok(Err(PushError::Stalled)), "no second wait");
}

#[tokio::test(start_paused = true)]
async fn a_device_that_takes_a_little_now_and_then_is_waited_for() {
    let (sender, mut receiver) = queue(&InputBudget::default());
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
    let (sender, mut receiver) = queue(&InputBudget::default());
    let mut queued = 0;
    while sender.level() < QueueLevel::Loaded {
        sender.push(packet()).await.unwrap();
        queued += 32 * 1024;
    }
    assert!((CHANNEL_LOADED - 64 * 1024..=CHANNEL_LOADED + 64 * 1024).contains(&queued));
    let mut taken = 0;
    while sender.level() > QueueLevel::Low {
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
    fn new(connection: &InputBudget, packet: u32) -> Self {
        let (sender, receiver) = queue(connection);
        Self {
            sender,
            receiver,
            window: SSH_WINDOW,
            packet,
        }
    }

    /// Sends as much as it may at once; no other may be held up by it.
    async fn sends(&mut self, target: &mut u32, beside: QueueLevel) {
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
                (Client::new(&InputBudget::default(), packet), SSH_WINDOW);
            let mut taken = 0;
            while client.window > TRICKLE_WINDOW {
                client.sends(&mut target, QueueLevel::Low).await;
                while taken < taken_before && client.sender.waiting() > 0 {
                    if let Some(Input::Data(data)) = client.receiver.next().await {
                        taken += data.len();
                    }
                }
            }
            let level = client.sender.level();
            assert_eq!(
                level,
                QueueLevel::Loaded,
                "{} wait",
                client.sender.waiting()
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Runs a channel whose device accepts nothing, one whose device does, and one of either kind, in any order.
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
            let (connection, mut target) = (InputBudget::default(), SSH_WINDOW);
            let mut stalled = Client::new(&connection, packet);
            let mut flowing = [0; 2].map(|_| Client::new(&connection, 32 * 1024));
            for step in steps {
                let level = |client: &Client| client.sender.level();
                if step % eager == 0 {
                    let beside = flowing.iter().map(level).max();
                    stalled.sends(&mut target, beside.unwrap_or(QueueLevel::Low)).await;
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
    assert_eq!(allowance(QueueLevel::Low, QueueLevel::Low), SSH_WINDOW);
    assert_eq!(
        allowance(QueueLevel::Low, QueueLevel::Filling),
        SSH_WINDOW / 2
    );
    assert_eq!(
        allowance(QueueLevel::Filling, QueueLevel::Low),
        SSH_WINDOW / 2
    );
    assert_eq!(
        allowance(QueueLevel::Low, QueueLevel::Loaded),
        SHARED_WINDOW
    );
    assert_eq!(allowance(QueueLevel::Low, QueueLevel::Full), TRICKLE_WINDOW);
    assert_eq!(
        allowance(QueueLevel::Loaded, QueueLevel::Low),
        TRICKLE_WINDOW
    );
    // What was granted just before it was full, and once more by a neighbour.
    assert!(CHANNEL_FULL + 2 * SHARED_WINDOW as usize <= CHANNEL_QUEUE);
}

#[tokio::test(start_paused = true)]
async fn slow_drain_blocks_no_other_channel_and_ends() {
    let (sender, mut receiver) = queue(&InputBudget::default());
    // The whole of it takes half a day, and long to count.
    sender.trickle.forget_permits(TRICKLE_QUEUE * 19 / 20);
    while sender.level() < QueueLevel::Loaded {
        sender.push(packet()).await.unwrap();
    }
    while sender.level() < QueueLevel::Full {
        sender.push(packet()).await.unwrap();
    }
    let (began, mut sent) = (clock::instant(), 0);
    loop {
        let before = clock::instant();
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
    let (sender, mut receiver) = queue(&InputBudget::default());
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
    let (sender, receiver) = queue(&InputBudget::default());
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
    let (sender, mut receiver) = queue(&InputBudget::default());
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
