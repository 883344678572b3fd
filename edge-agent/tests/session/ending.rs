//! Sessions end: by the process, by the client, by the tunnel.

use std::time::{Duration, Instant};

use holdfast_protocol::codec::frame::{DataStream, SessionMessage, data_header};
use holdfast_protocol::limits::{DRAIN_GRACE, HANGUP_GRACE};
use holdfast_protocol::wire::{Exit, ProcessRequest};

use crate::harness::device::{Device, Watched};
use crate::harness::{Client, Pair, exec, open, run, with_pty};

/// The process whose number follows "pid " in the output.
async fn pid(client: &mut Client) -> Watched {
    let mut text = client.until("pid ").await;
    loop {
        let number = text
            .rsplit_once("pid ")
            .and_then(|(_, rest)| rest.split_once('\n'));
        if let Some((number, _)) = number {
            return Watched::new(number.trim());
        }
        text.push_str(&client.until("").await);
    }
}

#[test]
fn a_client_that_vanishes_takes_its_process_along() {
    run(async {
        let pair = Pair::new().await;
        for open in [
            exec("echo pid $$; exec cat"),
            with_pty(exec("echo pid $$; exec cat")),
        ] {
            let mut client = pair.open(open).await;
            let pid = pid(&mut client).await;
            assert!(pid.runs());
            client.vanish();
            pair.live(0).await;
            pid.ended().await;
        }
    });
}

#[test]
fn a_process_may_tidy_up_when_its_client_vanishes() {
    run(async {
        let pair = Pair::new().await;
        let note = pair.device.path("tester/note");
        let command = format!(
            "trap 'echo bye > {}; exit' HUP; echo pid $$; while :; do sleep 0.01; done",
            note.display()
        );
        let mut client = pair.open(exec(&command)).await;
        pid(&mut client).await;
        client.vanish();
        pair.live(0).await;
        assert_eq!(std::fs::read_to_string(note).unwrap(), "bye\n");
    });
}

#[test]
fn who_ignores_the_hangup_is_killed_with_its_group() {
    run(async {
        let pair = Pair::new().await;
        let command = "trap '' HUP; sh -c 'echo pid $$; while :; do sleep 0.1; done' & wait";
        let mut client = pair.open(exec(command)).await;
        let child = pid(&mut client).await;
        let began = Instant::now();
        client.vanish();
        pair.live(0).await;
        assert!(began.elapsed() >= HANGUP_GRACE);
        child.ended().await;
    });
}

#[test]
fn a_lost_tunnel_ends_its_sessions() {
    run(async {
        let pair = Pair::new().await;
        let mut client = pair.open(with_pty(open(ProcessRequest::Shell))).await;
        client.write(b"echo pid $$\n").await;
        let pid = pid(&mut client).await;
        pair.relay.close(0_u32.into(), b"");
        pair.live(0).await;
        pid.ended().await;
    });
}

#[test]
fn client_lost_behind_unread_input_is_noticed() {
    run(async {
        let pair = Pair::new().await;
        let mut client = pair.open(exec("echo pid $$; exec sleep 1000")).await;
        let pid = pid(&mut client).await;
        let Client { voice, mut ear } = client;
        let mut send = voice.send;
        // More than the pipe and the session hold: the stream is stuck when the reset comes.
        let full = async {
            let data = vec![0; 200 * 1024];
            loop {
                let header = data_header(DataStream::Stdin, data.len());
                if send
                    .write_all(&[&header, data.as_slice()].concat())
                    .await
                    .is_err()
                {
                    return;
                }
            }
        };
        let stuck = async {
            smol::Timer::after(Duration::from_millis(300)).await;
        };
        futures_lite::future::or(full, stuck).await;
        send.reset(0_u32.into()).unwrap();
        ear.recv.stop(0_u32.into()).unwrap();
        pair.live(0).await;
        pid.ended().await;
    });
}

#[test]
fn a_relay_that_breaks_the_protocol_has_gone_away() {
    run(async {
        let pair = Pair::new().await;
        let mut client = pair.open(exec("echo pid $$; exec sleep 1000")).await;
        let pid = pid(&mut client).await;
        client.say(SessionMessage::Exit(Exit::Status(0))).await;
        pair.live(0).await;
        pid.ended().await;
    });
}

#[test]
fn a_job_that_keeps_the_terminal_does_not_keep_the_session() {
    run(async {
        let pair = Pair::new().await;
        let command = "(trap '' HUP; echo pid $(exec sh -c 'echo $PPID'); exec sleep 1000) & sleep 0.2; exit 3";
        let mut client = pair.open(with_pty(exec(command))).await;
        let job = pid(&mut client).await;
        let began = Instant::now();
        assert_eq!(client.outcome().await.exit, Some(Exit::Status(3)));
        assert!(began.elapsed() >= DRAIN_GRACE);
        assert!(
            job.runs(),
            "it asked to outlive the session, as under nohup"
        );
        job.kill();
    });
}

#[test]
fn the_last_output_of_a_terminal_waits_for_a_slow_client() {
    run(async {
        // Small windows, so that the output waits in the terminal when its leader exits.
        let mut transport = quinn::TransportConfig::default();
        transport
            .stream_receive_window(8192_u32.into())
            .send_window(8192);
        let pair = Pair::over(Device::new(), |_| {}, transport).await;
        let command =
            "(trap '' HUP; exec sleep 5) & head -c 20000 /dev/zero | tr '\\0' x; echo END; exit 8";
        let mut client = pair.open(with_pty(exec(command))).await;
        smol::Timer::after(DRAIN_GRACE + Duration::from_millis(500)).await;
        let outcome = client.outcome().await;
        assert_eq!(outcome.stdout.len(), 20_004);
        assert!(outcome.stdout.ends_with(b"xEND\n"));
        assert_eq!(outcome.exit, Some(Exit::Status(8)));
    });
}
