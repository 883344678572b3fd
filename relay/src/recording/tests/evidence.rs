//! A device whose own root seals what they like is contradicted by the relay's row of the session.

use holdfast_protocol::limits::{MAX_BLOCK_PLAIN, MAX_SEGMENT};
use holdfast_protocol::recording::chain::SentControl;
use holdfast_protocol::recording::reader::DamagedBlock;
use holdfast_protocol::recording::record::{EndReason, Event, RecordedBytes, RecordedTerminal};
use holdfast_protocol::recording::segment::{BLOCK_HEAD_LEN, HEADER_LEN};
use holdfast_protocol::wire::{Signal, WindowSize};

use super::*;
use crate::recording::archive::{Part, Read};
use crate::recording::export::mark::Mark;

type Change = fn(&mut RecordingStart<'_>);

/// Returns the verdict on a session that the relay saw so, and the device recorded so.
async fn judge(
    pass: impl FnOnce(&StreamDigests),
    closing: Closing,
    change: Change,
    record: impl FnOnce(&mut Device),
) -> RecordingFacts {
    let bed = Fixture::new().await;
    let (_guard, key, watched) = bed.begin().await;
    let mut device = Device::recording_as(&bed, SESSION, &key, change);
    pass(&watched);
    record(&mut device);
    device.end(SESSION);
    bed.ended(&watched, closing, &device).await
}

fn typed(bytes: &[u8]) -> DataPiece<'_> {
    DataPiece {
        stream: Stream::Stdin,
        bytes,
        remaining: 0,
        hidden: false,
    }
}

const TAMPERED: (RecordingState, Option<bool>) = (RecordingState::Tampered, Some(false));

#[tokio::test]
async fn start_cannot_say_that_a_command_holds_no_data() {
    let facts = judge(
        |watched| watched.pass(Stream::Stdout, b"what passed", 0),
        exited(),
        |start| start.streams = false,
        |device| {
            device.show(SESSION, b"what passed");
            device.say(Event::Data(Stream::Stdout, RecordedBytes(b"an invention")));
        },
    )
    .await;
    assert_eq!(outcome(&facts), TAMPERED);
}

#[tokio::test]
async fn unsent_input_is_tampering_for_any_end() {
    for closing in [exited(), Closing::default()] {
        let facts = judge(
            |_| {},
            closing,
            |_| {},
            |device| {
                let piece = typed(b"rm -rf /\r");
                let accepted = device.spool.accept_data(NOW, SESSION, piece);
                assert_eq!(accepted, Accept::Accepted);
            },
        )
        .await;
        assert_eq!(outcome(&facts), TAMPERED, "{closing:?}");
        assert_eq!(facts.row.reason.unwrap(), "stdin has more than was sent");
    }
}

#[tokio::test]
async fn output_behind_a_cut_is_not_proved() {
    let facts = judge(
        |watched| watched.pass(Stream::Stdout, b"shown ", 0),
        Closing::default(),
        |_| {},
        |device| {
            device.show(SESSION, b"shown ");
            device.show(SESSION, b"never shown");
        },
    )
    .await;
    assert_eq!(outcome(&facts), (RecordingState::Complete, Some(false)));
    let verdict = facts.row.verdict.unwrap();
    assert!(
        verdict.contains("the last of it was not shown to the operator"),
        "{verdict}"
    );
    assert!(verdict.contains("\"unseen\":11"), "{verdict}");
}

#[tokio::test]
async fn what_a_killed_relay_did_not_keep_is_no_tampering() {
    let mut bed = Fixture::new().await;
    let (_guard, key, watched) = bed.begin().await;
    let mut device = Device::recording(&bed, SESSION, &key);
    device.show(SESSION, b"kept ");
    watched.pass(Stream::Stdout, b"kept ", 0);
    bed.recordings
        .note(&mut NotedSessions::new())
        .await
        .unwrap();
    let accepted = device.spool.accept_data(NOW, SESSION, typed(b"typed"));
    assert_eq!(accepted, Accept::Accepted);
    device.show(SESSION, b"not kept");
    device.end(SESSION);
    bed.restart().await;
    bed.upload_all(&device).await;
    let facts = bed.judged().await;
    assert_eq!(outcome(&facts), (RecordingState::Complete, Some(false)));
    let verdict = facts.row.verdict.unwrap();
    assert!(verdict.contains("the relay was killed"), "{verdict}");
}

#[tokio::test]
async fn every_fact_of_a_start_is_compared() {
    let changes: [(&str, Change); 9] = [
        ("user", |start| start.user = UserName::new("bob").unwrap()),
        ("device", |start| start.device = DeviceId([9; 16])),
        ("login", |start| start.login = Login::new("root").unwrap()),
        ("client", |start| {
            start.client = "198.51.100.1:1".parse().unwrap();
        }),
        ("kind", |start| start.work = StartedWork::Shell),
        ("command", |start| {
            start.work = StartedWork::Exec {
                length: 6,
                head: RecordedBytes(b"reboot"),
            };
        }),
        ("terminal", |start| {
            start.terminal = Some(RecordedTerminal {
                term: "xterm",
                size: WindowSize::default(),
            });
        }),
        ("environment", |start| start.env = vec![("LANG", "C")]),
        ("recording mode", |start| {
            start.mode = RecordingMode::BestEffort;
        }),
    ];
    for (fact, change) in changes {
        let facts = judge(|_| {}, exited(), change, |_| {}).await;
        assert_eq!(outcome(&facts), TAMPERED, "{fact}");
        let reason = facts.row.reason.unwrap();
        assert!(
            reason.contains(&format!("its start has another {fact}")),
            "{fact}: {reason}"
        );
    }
    // A stale name is the device's word: it may have been renamed.
    let renamed: Change = |start| start.name = DeviceName::new("old-name").unwrap();
    let facts = judge(|_| {}, exited(), renamed, |_| {}).await;
    assert_eq!(outcome(&facts), (RecordingState::Complete, Some(true)));
}

#[tokio::test]
async fn sizes_signals_and_the_exit_status_are_compared() {
    let size = WindowSize::clamped(80, 24, 0, 0);
    let honest = judge(
        |watched| {
            watched.pass_control(SentControl::Resize(size));
            watched.pass(Stream::Stdin, b"x", 0);
            watched.pass_control(SentControl::Signal(Signal::Int));
            watched.pass_eof();
        },
        exited(),
        |_| {},
        |device| {
            device.say(Event::Resize(size));
            let accepted = device.spool.accept_data(NOW, SESSION, typed(b"x"));
            assert_eq!(accepted, Accept::Accepted);
            device.say(Event::Signal(Signal::Int));
            device.say(Event::Eof(Stream::Stdin));
        },
    )
    .await;
    assert_eq!(outcome(&honest), (RecordingState::Complete, Some(true)));

    let inventions: [fn(&mut Device); 5] = [
        |device| device.say(Event::Resize(WindowSize::clamped(81, 24, 0, 0))),
        |device| {
            device.say(Event::Signal(Signal::Int));
            device.say(Event::Resize(WindowSize::clamped(80, 24, 0, 0)));
        },
        |device| {
            device.say(Event::Resize(WindowSize::clamped(80, 24, 0, 0)));
            device.say(Event::Signal(Signal::Kill));
        },
        |device| device.say(Event::Exit(Exit::Status(3))),
        |device| device.say(Event::Eof(Stream::Stdin)),
    ];
    for (number, record) in inventions.into_iter().enumerate() {
        let pass = |watched: &StreamDigests| watched.pass_control(SentControl::Resize(size));
        let facts = judge(pass, exited(), |_| {}, record).await;
        assert_eq!(outcome(&facts), TAMPERED, "{number}");
    }
}

#[tokio::test]
async fn a_recording_that_ends_early_says_how_much_is_not_proved() {
    let bed = Fixture::new().await;
    let (_guard, key, watched) = bed.begin().await;
    let mut device = Device::recording(&bed, SESSION, &key);
    for frame in [b"one ", b"two "] {
        watched.pass(Stream::Stdout, frame, 0);
    }
    device.show(SESSION, b"one ");
    // Its agent is killed: what is written stays.
    let later = NOW + Duration::from_secs(60);
    while let Some(work) = device.spool.poll_work(later) {
        let done = spool::perform(&mut device.files, &work);
        device.spool.handle_done(later, work, done);
    }
    device.restart();
    let facts = bed.ended(&watched, Closing::default(), &device).await;
    assert_eq!(facts.row.state, RecordingState::Truncated);
    let reason = facts.row.reason.unwrap();
    assert!(
        reason.ends_with("; 4 bytes that the relay passed on are not proved, from 00:00 on"),
        "{reason}"
    );
    assert!(
        !reason.contains("power"),
        "no other boot is known: {reason}"
    );
}

#[tokio::test]
async fn a_damaged_block_is_named_and_what_is_behind_it_is_delivered() {
    // In one of three segments, and in the only one, which is no longer than a partial end may be.
    for (length, segments) in [(2_500_000, 3), (100_000, 1)] {
        let bed = Fixture::new().await;
        let shown = noise(length);
        let mut device = recorded(&bed, &shown).await;
        let (_, file) = device.files.0.iter_mut().next().unwrap();
        let middle = file.len() / 2;
        file[middle] ^= 1;
        device.restart();
        bed.upload_all(&device).await;
        let facts = bed.judged().await;
        assert_eq!(facts.row.state, RecordingState::Tampered);
        let reason = facts.row.reason.clone().unwrap();
        let named = reason.strip_prefix("segment 0, block ").unwrap();
        let block = named.strip_suffix(": a block was altered").unwrap();
        assert!(block.parse::<u32>().unwrap() > 0, "{reason}");
        let stored: u64 = facts.segments.iter().map(|(length, _)| length).sum();
        let there: usize = device.files.0.values().map(Vec::len).sum();
        assert_eq!(facts.segments.len(), segments, "{reason}");
        assert_eq!(stored, there as u64, "all of it");

        let (before, at, behind) = read(&bed, facts).await;
        assert!(shown.starts_with(&before), "{reason}");
        let [at] = at.as_slice() else {
            panic!("{at:?}");
        };
        assert_eq!((at.segment, at.block.to_string().as_str()), (0, block));
        let text: Vec<u8> = behind.iter().map(|(byte, _)| *byte).collect();
        assert!(
            shown.ends_with(&text),
            "what is behind it is what was shown"
        );
        let lost = shown.len() - before.len() - text.len();
        assert!((1..=MAX_BLOCK_PLAIN).contains(&lost), "{lost}");
        let is_marked = |(_, mark): &(u8, Option<Mark>)| *mark == Some(Mark::Unproved);
        assert!(behind.iter().all(is_marked));
    }
}

/// Covers damage in a segment's header: that of its version and key id, and that of the encapsulated key, without which
/// none of the segment can be opened.
#[tokio::test]
async fn a_damaged_header_costs_at_most_its_own_segment() {
    for (length, segments, damaged) in [(2_500_000, 3, 1), (2_500_000, 3, 0), (100_000, 1, 0_u8)] {
        for (places, is_restored) in [([4, 30], true), ([70, 90], false)] {
            let bed = Fixture::new().await;
            let shown = noise(length);
            let mut device = recorded(&bed, &shown).await;
            let file = device.files.0.values_mut().nth(damaged.into()).unwrap();
            for place in places {
                file[place] ^= 1;
            }
            device.restart();
            bed.upload_all(&device).await;
            let facts = bed.judged().await;
            assert_eq!(facts.row.state, RecordingState::Tampered);
            let reason = facts.row.reason.clone().unwrap();
            let named = format!("segment {damaged}, block 0: its ");
            assert!(reason.starts_with(&named), "{reason}");
            assert_eq!(facts.segments.len(), segments, "{reason}");

            let (before, at, behind) = read(&bed, facts).await;
            let [at] = at.as_slice() else {
                panic!("{at:?}");
            };
            assert_eq!((at.segment, at.block), (damaged.into(), 0));
            assert_eq!(before.is_empty(), damaged == 0);
            assert!(shown.starts_with(&before));
            let text: Vec<u8> = behind.iter().map(|(byte, _)| *byte).collect();
            assert!(shown.ends_with(&text));
            let lost = shown.len() - before.len() - text.len();
            assert_eq!(lost == 0, is_restored, "{lost}");
            assert!(lost <= MAX_SEGMENT, "{lost}");
            let is_marked = |(_, mark): &(u8, Option<Mark>)| *mark == Some(Mark::Unproved);
            assert!(behind.iter().all(is_marked));
        }
    }
}

/// Covers a relay that is restarted after each segment, or has forgotten which one is damaged.
#[tokio::test]
async fn another_run_takes_what_is_behind_damage_too() {
    for place in [30, 70, 200_000] {
        let mut bed = Fixture::new().await;
        let shown = noise(2_500_000);
        let mut device = recorded(&bed, &shown).await;
        device.files.0.values_mut().next().unwrap()[place] ^= 1;
        device.restart();
        for report in device.spool.reports() {
            bed.say(report, 0).await;
        }
        for offer in device.spool.offers() {
            bed.upload(&offer, device.file(offer.segment), usize::MAX)
                .await;
            bed.restart().await;
        }
        let facts = bed.judged().await;
        let said = (facts.row.state, facts.segments.len());
        assert_eq!(said, (RecordingState::Tampered, 3), "{place}");
        let (before, at, behind) = read(&bed, facts).await;
        assert_eq!((at.len(), at[0].segment), (1, 0));
        let text: Vec<u8> = behind.iter().map(|(byte, _)| *byte).collect();
        assert!(shown.starts_with(&before) && shown.ends_with(&text));
        let lost = shown.len() - before.len() - text.len();
        assert!(lost <= MAX_SEGMENT, "{lost} at {place}");
    }
}

/// Covers bytes that are no part of a segment: those of the segments after it are taken all the same.
#[tokio::test]
async fn what_is_added_behind_a_footer_costs_no_later_segment() {
    let bed = Fixture::new().await;
    let shown = noise(2_500_000);
    let mut device = recorded(&bed, &shown).await;
    device.files.0.values_mut().next().unwrap().push(0xa5);
    device.restart();
    bed.upload_all(&device).await;
    let facts = bed.judged().await;
    assert_eq!(facts.row.state, RecordingState::Tampered);
    let reason = facts.row.reason.clone().unwrap();
    assert!(
        reason.ends_with("there is something behind the footer"),
        "{reason}"
    );
    assert_eq!(facts.segments.len(), 3, "{reason}");
    let (before, at, behind) = read(&bed, facts).await;
    assert_eq!((at.len(), at[0].segment), (1, 0));
    let text: Vec<u8> = behind.iter().map(|(byte, _)| *byte).collect();
    assert_eq!([before, text].concat(), shown);
}

/// Covers a block that seems to go on behind the end of its segment, like one that was torn by a crash.
#[tokio::test]
async fn a_damaged_length_hides_nothing_that_is_behind_it() {
    // In the only segment, and in the first of two.
    for (pieces, segments, block) in [(8, 1, 3), (70, 2, 30)] {
        let bed = Fixture::new().await;
        let (_guard, key, watched) = bed.begin().await;
        let mut device = Device::recording(&bed, SESSION, &key);
        let shown = noise(pieces * 500);
        let mut now = NOW;
        for piece in shown.chunks(500) {
            watched.pass(Stream::Stdout, piece, 0);
            let piece = DataPiece {
                stream: Stream::Stdout,
                bytes: piece,
                remaining: 0,
                hidden: false,
            };
            assert_eq!(
                device.spool.accept_data(now, SESSION, piece),
                Accept::Accepted
            );
            // Each has a block of its own.
            now += Duration::from_secs(5);
            device.work_until(now);
        }
        let exit = Event::Exit(Exit::Status(0));
        device
            .spool
            .end(now, SESSION, Some(exit), EndReason::Exited);
        device.work_until(now);
        assert_eq!(device.files.0.len(), segments);
        let (_, file) = device.files.0.iter_mut().next().unwrap();
        let mut at = HEADER_LEN;
        for _ in 0..block {
            let length = u16::from_be_bytes([file[at + 2], file[at + 3]]);
            at += BLOCK_HEAD_LEN + usize::from(length);
        }
        file[at + 2] ^= 0x70;
        device.restart();
        let facts = bed.ended(&watched, exited(), &device).await;
        let said = (facts.row.state, facts.row.reason.clone().unwrap());
        let named = format!("segment 0, block {block}: a block has an impossible length");
        assert_eq!(said, (RecordingState::Tampered, named));
        let (before, at, behind) = read(&bed, facts).await;
        assert_eq!(at, [DamagedBlock { segment: 0, block }]);
        let text: Vec<u8> = behind.iter().map(|(byte, _)| *byte).collect();
        let lost = 500 * usize::try_from(block).unwrap();
        assert_eq!((before.len(), text.len()), (lost, shown.len() - lost - 500));
        assert!(shown.starts_with(&before) && shown.ends_with(&text));
    }
}

/// Returns what is read of stdout before the first damaged block, the damage, and what is read behind it.
pub(super) async fn read(
    bed: &Fixture,
    facts: RecordingFacts,
) -> (Vec<u8>, Vec<DamagedBlock>, Vec<(u8, Option<Mark>)>) {
    let archive = bed.recordings.archive(&bed.state);
    let mut parts = archive.open(facts).await.read(|_, part| match part {
        Part::Damage(at) => Some(Err(at)),
        Part::Record(record, mark) => match &record.event {
            Event::Data(Stream::Stdout, bytes) | Event::Part(Stream::Stdout, bytes) => {
                Some(Ok((bytes.0.to_vec(), mark)))
            }
            _ => None,
        },
    });
    let (mut before, mut damage, mut behind) = (vec![], vec![], vec![]);
    while let Some(Read::Item(item)) = parts.recv().await {
        match item {
            Err(at) => damage.push(at),
            Ok((bytes, _)) if damage.is_empty() => before.extend(bytes),
            Ok((bytes, mark)) => behind.extend(bytes.into_iter().map(|byte| (byte, mark))),
        }
    }
    (before, damage, behind)
}
