//! Bulk data: exact, and fast.

use std::time::Instant;

use futures_lite::future::zip;
use holdfast_protocol::codec::frame::SessionMessage;
use holdfast_protocol::wire::{Exit, SessionRefusal, Work};

use crate::harness::device::{Device, IS_ROOT};
use crate::harness::{Client, Heard, Outcome, Pair, exec, open, run};

/// Bytes without a pattern that a transfer could hide behind (xorshift).
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

async fn exchange(client: &mut Client, data: &[u8]) -> Outcome {
    let Client { voice, ear } = client;
    let spoken = async {
        voice.write(data).await;
        voice.say(SessionMessage::Eof).await;
    };
    zip(spoken, ear.outcome()).await.1
}

#[test]
fn bytes_are_exact_both_ways_at_once() {
    run(async {
        let pair = Pair::new().await;
        let data = noise(16 * 1024 * 1024 + 12_345);
        let mut client = pair.open(exec("tee /dev/stderr")).await;
        let outcome = exchange(&mut client, &data).await;
        assert!(
            outcome.stdout == data,
            "stdout has {} bytes",
            outcome.stdout.len()
        );
        assert!(
            outcome.stderr == data,
            "stderr has {} bytes",
            outcome.stderr.len()
        );
        assert_eq!(outcome.exit, Some(Exit::Status(0)));
    });
}

#[test]
fn both_outputs_have_their_turn() {
    run(async {
        let pair = Pair::new().await;
        let mut client = pair.open(exec("yes >&2 & yes out")).await;
        let (mut out, mut err) = (0, 0);
        while out.min(err) < 1024 * 1024 {
            match client.hear().await {
                Heard::Stdout(data) => out += data.len(),
                Heard::Stderr(data) => err += data.len(),
                _ => {}
            }
            assert!(out.max(err) < 64 * 1024 * 1024, "{out} and {err} bytes");
        }
        client.vanish();
        pair.live(0).await;
    });
}

#[test]
fn sftp_is_the_devices_own_server_or_a_clear_answer() {
    run(async {
        if !*IS_ROOT {
            return;
        }
        let device = Device::new();
        device.write(
            "usr/lib/openssh/sftp-server",
            "#!/bin/sh\necho $0; id -u; cat; exit 3\n",
        );
        let server = device.path("usr/lib/openssh/sftp-server");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&server, mode).unwrap();
        let pair = Pair::with(device, |_| {}).await;
        let sftp = || open(Work::Subsystem("sftp".to_owned()));
        let outcome = exchange(&mut pair.open(sftp()).await, b"packet").await;
        assert_eq!(
            outcome.stdout(),
            "/usr/lib/openssh/sftp-server\n47110\npacket"
        );
        assert_eq!(outcome.exit, Some(Exit::Status(3)));
        std::fs::remove_file(server).unwrap();
        let refused = pair.to_end(sftp()).await.refused;
        assert!(
            matches!(refused, Some(SessionRefusal::NoSubsystem(_))),
            "{refused:?}"
        );
        let other = pair
            .to_end(open(Work::Subsystem("netconf".to_owned())))
            .await
            .refused;
        assert!(
            matches!(other, Some(SessionRefusal::NoSubsystem(_))),
            "{other:?}"
        );
    });
}

#[test]
#[ignore = "a measurement: run it alone, with --release"]
fn throughput() {
    run(async {
        let pair = Pair::new().await;
        let megabytes = 1024;
        let mut client = pair
            .open(exec(&format!("head -c {megabytes}M /dev/zero")))
            .await;
        let began = Instant::now();
        let mut bytes = 0;
        while let Some(chunk) = client.ear.recv.read_chunk(1 << 20, true).await.unwrap() {
            bytes += chunk.bytes.len();
        }
        let down = f64::from(megabytes) / began.elapsed().as_secs_f64();
        let mut client = pair.open(exec("cat > /dev/null")).await;
        let block = vec![0; 256 * 1024];
        let began = Instant::now();
        for _ in 0..megabytes * 4 {
            client.write(&block).await;
        }
        client.say(SessionMessage::Eof).await;
        client.outcome().await;
        let up = f64::from(megabytes) / began.elapsed().as_secs_f64();
        println!("down {down:.0} MB/s ({bytes} bytes), up {up:.0} MB/s");
    });
}
