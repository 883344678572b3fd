//! A client that does not read stops its process, and no other session.

use std::time::{Duration, Instant};

use holdfast_protocol::codec::frame::SessionMessage;

use crate::harness::device::resident;
use crate::harness::{Client, Pair, exec, run, with_pty};

/// The most that the agent, the relay and both QUIC connections of a test may grow by for one stalled session.
const BOUND: u64 = 8 * 1024 * 1024;

async fn echo(client: &mut Client, word: &str) {
    client.write(word.as_bytes()).await;
    client.until(word).await;
}

#[test]
fn a_stalled_client_costs_little_and_disturbs_no_other() {
    run(async {
        let pair = Pair::new().await;
        let mut other = pair.open(exec("cat")).await;
        echo(&mut other, "hello").await;
        for stalling in [
            exec("yes"),
            exec("yes >&2 & yes"),
            with_pty(exec("yes")),
            exec("while :; do printf .; done"),
        ] {
            let before = resident();
            let mut stalled = pair.open(stalling).await;
            // It runs; from here on it is not read.
            stalled.hear().await;
            stalled.hear().await;
            let began = Instant::now();
            let mut rounds = 0;
            while began.elapsed() < Duration::from_secs(2) {
                echo(&mut other, &format!("word {rounds}.")).await;
                rounds += 1;
            }
            assert!(
                rounds > 100,
                "only {rounds} echoes beside a stalled session"
            );
            let grown = resident().saturating_sub(before);
            assert!(grown < BOUND, "{grown} bytes for a stalled session");
            stalled.vanish();
        }
        other.say(SessionMessage::Eof).await;
        other.outcome().await;
        pair.live(0).await;
    });
}

#[test]
fn a_process_that_does_not_read_stops_its_client() {
    run(async {
        let pair = Pair::new().await;
        let before = resident();
        let mut client = pair.open(exec("echo ready; exec sleep 1000")).await;
        client.until("ready").await;
        let data = vec![0; 64 * 1024];
        let mut sent = 0;
        let endless = async {
            loop {
                client.write(&data).await;
                sent += data.len();
            }
        };
        let for_a_while = async {
            smol::Timer::after(Duration::from_secs(1)).await;
        };
        futures_lite::future::or(endless, for_a_while).await;
        assert!(sent < 16 * 1024 * 1024, "{sent} bytes went somewhere");
        let grown = resident().saturating_sub(before);
        assert!(grown < BOUND, "{grown} bytes for input that is not read");
        client.vanish();
        pair.live(0).await;
    });
}

#[test]
fn a_signal_reaches_a_process_that_does_not_read() {
    run(async {
        let pair = Pair::new().await;
        let mut client = pair
            .open(exec(
                "trap 'exit 11' INT; echo ready; while :; do sleep 0.01; done",
            ))
            .await;
        client.until("ready").await;
        // More than the pipe holds, less than pipe and queue.
        client.write(&vec![0; 256 * 1024 + 1024]).await;
        client
            .say(SessionMessage::Signal(holdfast_protocol::wire::Signal::Int))
            .await;
        let exit = client.outcome().await.exit;
        assert_eq!(exit, Some(holdfast_protocol::wire::Exit::Status(11)));
    });
}

#[test]
fn a_process_that_closed_its_input_goes_on() {
    run(async {
        let pair = Pair::new().await;
        let mut client = pair
            .open(exec("exec <&-; echo closed; sleep 0.3; echo still here"))
            .await;
        client.until("closed").await;
        client.write(&vec![b'x'; 1024 * 1024]).await;
        client.say(SessionMessage::Eof).await;
        assert_eq!(
            client.outcome().await.stdout(),
            "\nstill here\n".trim_start()
        );
    });
}
