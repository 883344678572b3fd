//! The agent is killed while it records.

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{env, thread};

use edge_agent::recording::spool_fs::Folder;
use holdfast_protocol::ids::SessionId;
use holdfast_protocol::recording::reader::ReadVerdict;
use holdfast_protocol::recording::record::Stream;
use holdfast_protocol::recording::spool::{Spool, SpoolConfig};
use holdfast_protocol::wire::RecordingMode;

use super::{Played, recorded, segments};
use crate::harness::device::Device;
use crate::harness::{Heard, Pair, exec, run};

/// The number of rounds; `HOLDFAST_SOAK_KILLS=200` is the full size.
const ROUNDS: u64 = 20;
const FOLDER: &str = "HOLDFAST_TEST_SPOOL";

/// Returns what the session writes: of any part it can be checked whether it is the beginning.
fn written(length: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(length + 16);
    for number in 1.. {
        if text.len() >= length {
            break;
        }
        writeln!(text, "{number}").unwrap();
    }
    text.truncate(length);
    text
}

/// A number for each round, the same in each run, and else like any other (the end of splitmix64).
fn scattered(round: u64) -> u64 {
    let mut x = round.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[test]
fn records_before_a_kill_are_kept_and_the_tail_is_cut() {
    let (mut recovered_something, mut cut) = (0, 0);
    let rounds = env::var("HOLDFAST_SOAK_KILLS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let begun = std::time::Instant::now();
    for round in 0..rounds {
        let folder = tempfile::tempdir().unwrap();
        let spool = folder.path().join("spool");
        let mut child = Command::new(env::current_exe().unwrap())
            .args([
                "--exact",
                "recording::crash::a_session_that_writes",
                "--ignored",
            ])
            .arg("--nocapture")
            .env(FOLDER, &spool)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = child.stdout.take().unwrap();
        // The session is under way when the child says so.
        let mut word = Vec::new();
        while !word.ends_with(b"under way") {
            let mut byte = [0];
            said.read_exact(&mut byte).unwrap();
            word.push(byte[0]);
        }
        // Anywhere between two writes and within them.
        thread::sleep(Duration::from_micros(scattered(round) % 200_000));
        child.kill().unwrap();
        child.wait().unwrap();

        // A power cut may take a part of the last write, too.
        let last = segments(&spool, 1).pop().filter(|_| round % 2 == 1);
        if let Some(last) = last {
            let file = OpenOptions::new().write(true).open(last).unwrap();
            let length = file.metadata().unwrap().len();
            file.set_len(length.saturating_sub(scattered(!round) % 5_000))
                .unwrap();
        }

        let mut medium = Folder::open(&spool).unwrap();
        let config = SpoolConfig::default();
        let (first, found) = Spool::recover(config, &mut medium).unwrap();
        assert_eq!(found.corrupt, [], "round {round}");
        assert!(found.cut.len() <= 1, "round {round}: {found:?}");
        let offers = first.offers().count();
        let (again, found_again) = Spool::recover(config, &mut medium).unwrap();
        assert_eq!(found_again.cut, [], "round {round}");
        assert_eq!(again.offers().count(), offers);
        if offers == 0 {
            continue;
        }
        assert_eq!(found.unfinished, [SessionId([1; 16])]);
        let played = Played::of(&spool, 1);
        let verdict = played.verdict;
        assert!(
            matches!(verdict, Some(ReadVerdict::Truncated { .. })),
            "{verdict:?}"
        );
        let output = &played.data[Stream::Stdout.index()];
        assert!(*output == written(output.len()), "round {round}");
        cut += found.cut.len();
        recovered_something += u32::from(!output.is_empty());
    }
    let seconds = begun.elapsed().as_secs();
    println!(
        "{rounds} kills in {seconds} s: {recovered_something} left something, {cut} ends were torn"
    );
    assert!(
        recovered_something > 10,
        "only {recovered_something} rounds wrote anything"
    );
    assert!(cut > 3, "only {cut} ends were torn");
}

#[test]
#[ignore = "run by the test above, which kills it"]
fn a_session_that_writes() {
    run(async {
        let folder = env::var_os(FOLDER).unwrap();
        let pair = Pair::recorded(Device::new(), |config| {
            config.folder = folder.clone().into()
        })
        .await;
        let open = recorded(1, RecordingMode::Strict, exec("seq 1 100000000"));
        let mut client = pair.open(open).await;
        loop {
            if let Heard::Stdout(data) = client.hear().await
                && data.starts_with(b"1\n2\n")
            {
                print!("under way");
                std::io::stdout().flush().unwrap();
            }
        }
    });
}
