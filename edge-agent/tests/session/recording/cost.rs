//! Measures what a recording costs.

use std::time::Instant;

use holdfast_protocol::codec::frame::SessionMessage;
use holdfast_protocol::ids::SessionId;
use holdfast_protocol::limits::WRITE_DELAY;
use holdfast_protocol::wire::{Open, RecordingMode};

use super::recorded;
use crate::harness::device::{Device, resident};
use crate::harness::{Client, Pair, exec, run, with_pty};

const SESSIONS: u8 = 12;

/// Most bytes of memory that one recorded session takes beyond one that is not.
const BOUND: u64 = 256 * 1024;

/// Sessions that have written some text, and now wait.
async fn open_all(pair: &Pair, change: impl Fn(u8, Open) -> Open) -> Vec<Client> {
    let mut clients = Vec::new();
    for number in 0..SESSIONS {
        let open = Open {
            session: SessionId([number; 16]),
            ..with_pty(exec("seq 1 20000; echo en''d; cat"))
        };
        let mut client = pair.open(change(number, open)).await;
        client.until("end").await;
        clients.push(client);
    }
    // The last of it is written.
    smol::Timer::after(WRITE_DELAY + WRITE_DELAY / 2).await;
    clients
}

#[test]
fn a_recorded_session_takes_little_memory() {
    run(async {
        let pair = Pair::recorded(Device::new(), |_| {}).await;
        // What the first sessions need once and for all is not counted.
        drop(open_all(&pair, |_, open| open).await);
        pair.live(0).await;
        let before = resident();
        let plain = open_all(&pair, |_, open| open).await;
        let unrecorded = resident().saturating_sub(before);
        drop(plain);
        pair.live(0).await;
        let before = resident();
        let clients = open_all(&pair, |number, open| {
            recorded(number, RecordingMode::Strict, open)
        })
        .await;
        let each = resident().saturating_sub(before + unrecorded) / u64::from(SESSIONS);
        let status = pair.sessions.recorder().status();
        println!(
            "{} bytes for an unrecorded session, {each} more for a recorded one, {:?} written a byte",
            unrecorded / u64::from(SESSIONS),
            status.flash_per_byte
        );
        assert!(each < BOUND, "{each} bytes for each recorded session");
        drop(clients);
    });
}

#[test]
#[ignore = "a measurement: run it alone, with --release"]
fn throughput() {
    run(async {
        let megabytes = 48;
        for (number, name, command) in [
            (1, "zeros", format!("head -c {megabytes}M /dev/zero")),
            (
                2,
                "noise",
                format!(
                    "head -c {megabytes}M /dev/zero | \
                     openssl enc -aes-128-ctr -K 00 -iv 00 2>/dev/null"
                ),
            ),
        ] {
            let mut rates = Vec::new();
            for mode in [RecordingMode::Off, RecordingMode::Strict] {
                let pair = Pair::recorded(Device::new(), |_| {}).await;
                let open = recorded(number, mode, exec(&command));
                let mut client = pair.open(open).await;
                client.say(SessionMessage::Eof).await;
                let began = Instant::now();
                let mut bytes = 0;
                while let Some(chunk) = client.ear.recv.read_chunk(1 << 20, true).await.unwrap() {
                    bytes += chunk.bytes.len();
                }
                rates.push(bytes as f64 / began.elapsed().as_secs_f64() / 1e6);
                let ratio = pair.sessions.recorder().status().flash_per_byte;
                println!(
                    "{name} {mode:?}: {:?} MB/s, {ratio:?} written a byte",
                    rates.last()
                );
            }
        }
    });
}
