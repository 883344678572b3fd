//! Bulk data: exact, and fast.

use std::time::Instant;

use futures_lite::future::zip;
use holdfast_protocol::codec::frame::SessionMessage;
use holdfast_protocol::wire::{Exit, Open, ProcessRequest, SessionRefusal};

use edge_agent::session::subsystem::SftpServer;

use crate::harness::device::{Device, IS_ROOT, TESTER};
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

fn sftp() -> Open {
    open(ProcessRequest::Subsystem("sftp".to_owned()))
}

#[test]
fn sftp_is_served_by_the_agent_as_the_account() {
    run(async {
        let pair = Pair::new().await;
        // A version, then a file that is made anew: its name is one of the working directory.
        let requests = b"\0\0\0\x05\x01\0\0\0\x03\
            \0\0\0\x19\x03\0\0\0\x01\0\0\0\x08hf-local\0\0\0\x0a\0\0\0\0\
            \0\0\0\x11\x04\0\0\0\x02\0\0\0\x08\0\0\0\0\0\0\0\0";
        let outcome = exchange(&mut pair.open(sftp()).await, requests).await;
        assert_eq!(outcome.stderr(), "");
        assert_eq!(outcome.exit, Some(Exit::Status(0)));
        assert!(outcome.stdout.starts_with(&[0, 0]), "{:?}", outcome.stdout);
        let closed = b"\x65\0\0\0\x02\0\0\0\0\0\0\0\x07Success\0\0\0\x02en";
        assert!(outcome.stdout.ends_with(closed), "{:?}", outcome.stdout);
        if *IS_ROOT {
            let made = std::fs::metadata(pair.device.path("tester/hf-local")).unwrap();
            assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), TESTER);
        } else {
            let home = std::env::var_os("HOME").unwrap();
            std::fs::remove_file(std::path::Path::new(&home).join("hf-local")).unwrap();
        }
    });
}

#[test]
fn sftp_may_be_a_server_of_the_devices_own() {
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
        let path = "/usr/lib/openssh/sftp-server".to_owned();
        let pair = Pair::with(device, |config| {
            config.sftp_server = SftpServer::Device(path.clone());
        })
        .await;
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
            .to_end(open(ProcessRequest::Subsystem("netconf".to_owned())))
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
