//! A spool that is full.

use std::env;
use std::process::Command;

use holdfast_protocol::recording::record::{EndReason, Stream};
use holdfast_protocol::wire::{Exit, RecordingMode, SessionRefusal};

use super::{Played, recorded, with_least_spool};
use crate::harness::device::{Device, IS_ROOT};
use crate::harness::{Outcome, Pair, exec, run};

/// Six MB that do not compress, the same each time; `echo` tells that it ended by itself.
const NOISE: &str = "head -c 6000000 /dev/zero | openssl enc -aes-128-ctr -K 00 -iv 00 2>/dev/null || \
                     exit 9; exit 4";

const SMALL: &str = "head -c 3500 /dev/zero | openssl enc -aes-128-ctr -K 00 -iv 00 2>/dev/null";

fn unavailable(outcome: &Outcome) -> &str {
    match &outcome.refused {
        Some(SessionRefusal::RecordingUnavailable(why)) => why,
        _ => panic!("{:?} {:?}", outcome.refused, outcome.exit),
    }
}

/// Under `strict`, nothing is shown that was not recorded; otherwise a gap tells what is missing.
async fn fill(pair: &Pair, full: &str) {
    let strict = recorded(1, RecordingMode::Strict, exec(NOISE));
    let outcome = pair.to_end(strict).await;
    assert!(unavailable(&outcome).contains(full), "{outcome:?}");
    assert!(outcome.exit.is_none());
    pair.live(0).await;
    // The rest of the room goes to smaller ones; then none begins.
    for number in 10.. {
        let small = recorded(number, RecordingMode::Strict, exec(SMALL));
        let outcome = pair.to_end(small).await;
        if outcome.exit.is_none() && outcome.stdout.is_empty() {
            assert!(unavailable(&outcome).contains(full), "{outcome:?}");
            break;
        }
        assert!(number < 60, "{:?}", pair.sessions.recorder().status());
    }

    // What has to be recorded but may go on begins unrecorded where there is no room at all.
    let loose = recorded(3, RecordingMode::BestEffort, exec("echo goes on"));
    assert_eq!(pair.to_end(loose).await.stdout(), "goes on\n");
    pair.live(0).await;
    let status = pair.sessions.recorder().status();
    assert!(status.used <= status.max, "{status:?}");
    assert!(status.waiting_since.is_some(), "{status:?}");

    let played = Played::complete(pair, 1, EndReason::SpoolFull).await;
    let recorded = &played.data[Stream::Stdout.index()];
    assert!(outcome.stdout.len() > 1_000_000, "{}", outcome.stdout.len());
    assert!(
        recorded.starts_with(&outcome.stdout),
        "more was shown than recorded"
    );
}

async fn fill_loosely(pair: &Pair) {
    let loose = recorded(4, RecordingMode::BestEffort, exec(NOISE));
    let outcome = pair.to_end(loose).await;
    assert_eq!(outcome.exit, Some(Exit::Status(4)));
    assert_eq!(outcome.stdout.len(), 6_000_000);
    pair.live(0).await;
    let status = pair.sessions.recorder().status();
    assert!(status.used <= status.max, "{status:?}");
    let played = Played::complete(pair, 4, EndReason::Exited).await;
    let [gap] = played.gaps.as_slice() else {
        panic!("{:?}", played.gaps)
    };
    let recorded = &played.data[Stream::Stdout.index()];
    assert!(outcome.stdout.starts_with(recorded));
    assert_eq!(recorded.len() as u64 + gap.bytes[1], 6_000_000);
}

#[test]
fn a_budget_that_is_used_up_ends_what_must_be_recorded() {
    run(async {
        let pair = with_least_spool().await;
        fill(&pair, "spool full (").await;
        let pair = with_least_spool().await;
        fill_loosely(&pair).await;
    });
}

#[test]
fn a_small_file_system_that_is_full_ends_what_must_be_recorded() {
    if !*IS_ROOT {
        return;
    }
    let program = env::current_exe().unwrap();
    // In a mount namespace of its own: nothing is left behind.
    let script = "mkdir /mnt/a /mnt/b; mount -t tmpfs -o size=4m,mode=755 tmpfs /mnt/a && \
                  mount -t tmpfs -o size=4m,mode=755 tmpfs /mnt/b && \
                  exec \"$0\" --exact recording::full::on_small_file_systems --ignored --nocapture";
    let ran = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c"])
        .arg(format!("mount -t tmpfs tmpfs /mnt && {script}"))
        .arg(program)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&ran.stdout);
    assert!(
        ran.status.success() && text.contains("1 passed"),
        "{text} {ran:?}"
    );
}

#[test]
#[ignore = "run by the test above, where the file systems are"]
fn on_small_file_systems() {
    run(async {
        let on = |path: &'static str| {
            move |config: &mut edge_agent::recording::RecorderConfig| {
                config.folder = path.into();
            }
        };
        let pair = Pair::recorded(linked("/mnt/a"), on("/mnt/a")).await;
        assert!(pair.sessions.recorder().status().volatile);
        fill(&pair, "disk full (").await;
        let pair = Pair::recorded(linked("/mnt/b"), on("/mnt/b")).await;
        fill_loosely(&pair).await;
    });
}

/// A device whose folder `spool` is another.
fn linked(path: &str) -> Device {
    let device = Device::new();
    std::os::unix::fs::symlink(path, device.path("spool")).unwrap();
    device
}
