use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use super::content::tests::noise;
use super::recover::MAX_TORN;
use super::*;
use crate::limits::{MAX_SEGMENT_AGE, RECOVER_RESERVE, SESSION_RESERVE, WRITE_DELAY};
use crate::recording::chain::tests::expectation;
use crate::recording::chain::{
    ChainKey, Checker, Expectation, RecordedKind, StreamDigester, StreamProof,
};
use crate::recording::reader::{ReadVerdict, RecordingReader};
use crate::recording::record::{
    ForwardClosed, ForwardDirection, ForwardEnding, ForwardOpened, RecordedBytes, RecordingStart,
    StartedWork, Stream,
};
use crate::recording::seal::RecordingSecret;
use crate::wire::{
    ForwardRequest, ProcessRequest, RecordingMode, RecordingTerms, SessionRequest, StdinMode,
    UploadMessage,
};

const SESSION: SessionId = SessionId([0x5a; 16]);
const KEY: ChainKey = ChainKey([3; 32]);
const T: Duration = Duration::from_secs(50);

pub(super) fn secret() -> RecordingSecret {
    RecordingSecret::from_seed(&[1; 32])
}

pub(super) fn spool(max_bytes: u64) -> Spool {
    let config = SpoolConfig {
        max_bytes,
        reserve: 1_000,
        sync: Sync::Block,
    };
    Spool {
        config,
        live: BTreeMap::new(),
        files: BTreeMap::new(),
        ended: BTreeMap::new(),
        gone: BTreeMap::new(),
        stored: 0,
        free: 1 << 40,
        clock: None,
        flash: Flash::default(),
        turn: SessionId([0; 16]),
    }
}

pub(super) fn terms(mode: RecordingMode, stdin: StdinMode) -> RecordingTerms {
    RecordingTerms {
        mode,
        stdin,
        key: KEY,
        recover: false,
    }
}

pub(super) fn begin(
    spool: &mut Spool,
    terms: &RecordingTerms,
    request: &SessionRequest,
    holds_data: bool,
) -> Result<(), Unavailable> {
    use crate::recording::reader::tests::start;
    let (work, rest_of_command) = StartedWork::of(request);
    let Event::Start(start) = start(SESSION) else {
        panic!("no start");
    };
    let start = RecordingStart {
        work,
        streams: holds_data,
        ..start
    };
    let key = Some(secret().public());
    let seed = [7; 32];
    spool.begin(
        T,
        &Begin {
            terms,
            key,
            seed,
            start,
            content_max: None,
            rest_of_command,
        },
    )
}

/// Does all work on a medium that keeps everything.
pub(super) fn work(spool: &mut Spool, now: Duration, files: &mut BTreeMap<u32, Vec<u8>>) {
    while let Some(work) = spool.poll_work(now) {
        if let SpoolWork::Write(write) = &work {
            let file = files.entry(write.segment.index).or_default();
            assert_eq!(file.len() as u64, write.at);
            file.extend_from_slice(&write.bytes);
        }
        spool.handle_done(now, work, Ok(1 << 40));
    }
}

/// Reads everything that passed on the streams by the records, and what the relay can prove.
fn read(
    files: &BTreeMap<u32, Vec<u8>>,
    seen: &[crate::recording::chain::StreamDigest; 3],
    kind: RecordedKind,
) -> (Vec<String>, [StreamProof; 3]) {
    let secrets = [secret()];
    let mut reader = RecordingReader::new(SESSION, &secrets);
    let expected = Expectation {
        kind,
        ..expectation(seen.clone(), true)
    };
    let mut checker = Checker::new(&KEY, &expected);
    let mut said = vec![];
    for file in files.values() {
        let outcome = reader.read_segment(file, &mut |_, record| {
            checker.handle(record);
            match &record.event {
                Event::Data(stream, bytes) | Event::Part(stream, bytes) => {
                    let text = core::str::from_utf8(bytes.0).unwrap();
                    said.push(format!("{stream:?} {text}"));
                }
                Event::Redacted(redacted) => said.push(format!("{} hidden", redacted.length)),
                _ => {}
            }
        });
        assert_eq!(outcome, Ok(()));
    }
    let complete = ReadVerdict::Complete {
        why: EndReason::Exited,
    };
    assert_eq!(reader.verdict(), complete);
    (said, checker.finish(true).streams)
}

#[test]
fn what_is_typed_without_echo_is_hidden_and_the_rest_is_proved() {
    for (mode, expected) in [
        (
            StdinMode::Redact,
            vec!["Stdin su\r", "6 hidden", "Stdout ok\n", "Stdin id\r"],
        ),
        (
            StdinMode::Full,
            vec![
                "Stdin su\r",
                "Stdin sec",
                "Stdin ret",
                "Stdout ok\n",
                "Stdin id\r",
            ],
        ),
        (
            StdinMode::Off,
            vec!["3 hidden", "6 hidden", "Stdout ok\n", "3 hidden"],
        ),
    ] {
        let mut spool = spool(SPOOL_BYTES);
        begin(
            &mut spool,
            &terms(RecordingMode::Strict, mode),
            &ProcessRequest::Shell.into(),
            true,
        )
        .unwrap();
        let mut witness = Stream::ALL.map(|stream| StreamDigester::new(&KEY, stream));
        let mut pass = |stream: Stream, bytes: &[u8], remaining, hidden| {
            let piece = DataPiece {
                stream,
                bytes,
                remaining,
                hidden,
            };
            assert_eq!(spool.accept_data(T, SESSION, piece), Accept::Accepted);
            witness[stream.index()].update(bytes, remaining);
        };
        pass(Stream::Stdin, b"su\r", 0, false);
        // Echo comes back between the two pieces of this frame.
        pass(Stream::Stdin, b"sec", 3, true);
        pass(Stream::Stdin, b"ret", 0, false);
        pass(Stream::Stdout, b"ok\n", 0, false);
        pass(Stream::Stdin, b"id\r", 0, false);
        spool.end(T, SESSION, None, EndReason::Exited);
        let mut files = BTreeMap::new();
        work(&mut spool, T, &mut files);
        let seen = witness.each_ref().map(StreamDigester::seen);
        let (said, proofs) = read(&files, &seen, RecordedKind::Shell);
        assert_eq!(said, expected, "{mode:?}");
        assert!(
            proofs.iter().all(|proof| proof.lack.is_none()),
            "{proofs:?}"
        );
    }
}

#[test]
fn long_command_is_recorded_whole_file_transfer_counted() {
    let command = "x".repeat(100_000);
    let mut spool = spool(SPOOL_BYTES);
    let exec = SessionRequest::from(ProcessRequest::Exec(command.clone().into_bytes()));
    let terms = terms(RecordingMode::Strict, StdinMode::Redact);
    begin(&mut spool, &terms, &exec, false).unwrap();
    let mut witness = Stream::ALL.map(|stream| StreamDigester::new(&KEY, stream));
    let data = vec![b'd'; 50_000];
    for _ in 0..100 {
        let piece = DataPiece {
            stream: Stream::Stdin,
            bytes: &data,
            remaining: 0,
            hidden: false,
        };
        assert_eq!(spool.accept_data(T, SESSION, piece), Accept::Accepted);
        witness[0].update(&data, 0);
    }
    spool.end(T, SESSION, None, EndReason::Exited);
    let mut files = BTreeMap::new();
    work(&mut spool, T, &mut files);
    assert!(files[&0].len() < 5_000, "only counted");
    let secrets = [secret()];
    let mut reader = RecordingReader::new(SESSION, &secrets);
    let mut found = 0;
    reader
        .read_segment(&files[&0], &mut |_, record| match &record.event {
            Event::Start(start) => match &start.work {
                StartedWork::Exec {
                    length: 100_000,
                    head,
                } => found += head.0.len(),
                other => panic!("{other:?}"),
            },
            Event::CommandLine(RecordedBytes(rest)) => found += rest.len(),
            _ => {}
        })
        .unwrap();
    assert_eq!(found, command.len());
    let seen = witness.each_ref().map(StreamDigester::seen);
    let (_, proofs) = read(&files, &seen, RecordedKind::Sftp);
    assert_eq!(
        proofs[0].lack,
        Some(crate::recording::chain::Unproved::CountedOnly)
    );
}

#[test]
fn writes_are_batched_and_old_segments_are_closed() {
    let mut spool = spool(SPOOL_BYTES);
    begin(
        &mut spool,
        &terms(RecordingMode::Strict, StdinMode::Full),
        &ProcessRequest::Shell.into(),
        true,
    )
    .unwrap();
    // The beginning: without it, an agent that is killed leaves what looks as if it had been removed.
    assert_eq!(spool.poll_timeout(), Some(T));
    let mut files = BTreeMap::new();
    work(&mut spool, T, &mut files);
    assert!(!files[&0].is_empty());
    let piece = DataPiece {
        stream: Stream::Stdout,
        bytes: b"ok\n",
        remaining: 0,
        hidden: false,
    };
    assert_eq!(spool.accept_data(T, SESSION, piece), Accept::Accepted);
    assert_eq!(spool.poll_work(T), None, "not at once");
    assert_eq!(spool.poll_timeout(), Some(T + WRITE_DELAY));
    work(&mut spool, T + WRITE_DELAY, &mut files);
    assert_eq!(
        spool.offers().map(|offer| offer.closed).collect::<Vec<_>>(),
        [false]
    );
    assert_eq!(spool.poll_timeout(), Some(T + MAX_SEGMENT_AGE));
    work(&mut spool, T + MAX_SEGMENT_AGE, &mut files);
    assert_eq!(
        spool.offers().map(|offer| offer.closed).collect::<Vec<_>>(),
        [true]
    );
    assert_eq!(spool.poll_timeout(), None, "a quiet session writes nothing");
    let flash = spool.flash();
    // The beginning need not be safe from a power cut.
    assert_eq!((flash.syncs, flash.written), (2, files[&0].len() as u64));
}

/// Covers a session that is fast while the medium is slow: what a power cut takes is still taken for its work.
#[test]
fn what_is_not_synced_is_no_more_than_a_torn_write() {
    for length in [0, 8, 20, 40, 70, 100].map(|blocks| blocks * 1024) {
        let mut spool = spool(SPOOL_BYTES);
        let terms = terms(RecordingMode::Strict, StdinMode::Full);
        begin(&mut spool, &terms, &ProcessRequest::Shell.into(), true).unwrap();
        let bytes = noise(length);
        let say = |spool: &mut Spool| {
            for bytes in bytes.chunks(4096) {
                let piece = DataPiece {
                    stream: Stream::Stdout,
                    bytes,
                    remaining: 0,
                    hidden: false,
                };
                assert_eq!(spool.accept_data(T, SESSION, piece), Accept::Accepted);
            }
        };
        say(&mut spool);
        let (mut unsynced, mut now) = (0, T);
        loop {
            let Some(SpoolWork::Write(write)) = spool.poll_work(now) else {
                now += WRITE_DELAY;
                continue;
            };
            unsynced += write.bytes.len() as u64;
            assert!(unsynced <= MAX_TORN, "{unsynced} of {length}");
            if write.sync {
                break;
            }
            say(&mut spool);
            spool.handle_done(now, SpoolWork::Write(write), Ok(1 << 40));
        }
    }
}

#[test]
fn beginning_of_a_quiet_session_is_synced_after_the_delay() {
    let mut spool = spool(SPOOL_BYTES);
    let terms = terms(RecordingMode::Strict, StdinMode::Full);
    begin(&mut spool, &terms, &ProcessRequest::Shell.into(), true).unwrap();
    let mut files = BTreeMap::new();
    work(&mut spool, T, &mut files);
    let beginning = files[&0].clone();
    assert!(spool.flash().syncs == 0 && !beginning.is_empty());
    assert_eq!(spool.poll_timeout(), Some(T + WRITE_DELAY));
    work(&mut spool, T + WRITE_DELAY, &mut files);
    let flash = spool.flash();
    assert_eq!((flash.syncs, flash.written), (1, beginning.len() as u64));
    assert_eq!(files[&0], beginning);
    assert_eq!(spool.poll_timeout(), Some(T + MAX_SEGMENT_AGE));
}

#[test]
fn who_may_begin_when_there_is_no_room() {
    let strict = terms(RecordingMode::Strict, StdinMode::Full);
    let recover = RecordingTerms {
        recover: true,
        ..strict.clone()
    };
    let mut full = spool(RECOVER_RESERVE + SESSION_RESERVE / 2);
    let refused = begin(&mut full, &strict, &ProcessRequest::Shell.into(), true).unwrap_err();
    assert!(refused.to_string().starts_with("spool full ("), "{refused}");
    assert_eq!(full.reports().count(), 0);
    assert_eq!(
        begin(&mut full, &recover, &ProcessRequest::Shell.into(), true),
        Ok(()),
        "an admin's rescue"
    );

    let loose = terms(RecordingMode::BestEffort, StdinMode::Full);
    let mut full = spool(1_000);
    assert!(begin(&mut full, &loose, &ProcessRequest::Shell.into(), true).is_err());
    let reports: Vec<UploadMessage> = full.reports().collect();
    assert!(matches!(&reports[..], [UploadMessage::Gone(gone)] if gone.why == SegmentLost::NoRoom));
    full.handle_noted(&reports[0]);
    assert_eq!(full.reports().count(), 0);

    let mut small_disk = spool(SPOOL_BYTES);
    small_disk.free = 2_000;
    let refused = begin(
        &mut small_disk,
        &strict,
        &ProcessRequest::Shell.into(),
        true,
    )
    .unwrap_err();
    assert!(refused.to_string().starts_with("disk full ("), "{refused}");
}

#[test]
fn sizes_as_large_as_numbers_get_are_no_fault() {
    let strict = terms(RecordingMode::Strict, StdinMode::Full);
    let mut spool = spool(u64::MAX);
    begin(&mut spool, &strict, &ProcessRequest::Shell.into(), true).unwrap();
    let event = Event::Signal(crate::wire::Signal::Int);
    assert_eq!(spool.accept(T, SESSION, event.clone()), Accept::Accepted);
    spool.config.reserve = u64::MAX;
    let refused = spool.accept(T, SESSION, event);
    assert!(
        matches!(refused, Accept::Refused(Unavailable::DiskFull { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_terminals_text_takes_at_most_half_of_its_bytes() {
    let mut spool = spool(SPOOL_BYTES);
    begin(
        &mut spool,
        &terms(RecordingMode::Strict, StdinMode::Full),
        &ProcessRequest::Shell.into(),
        true,
    )
    .unwrap();
    let mut files = BTreeMap::new();
    let (mut now, mut noise, mut shown) = (T, 1_u64, 0);
    for _ in 0..300 {
        let lines = (0..12).map(|_| {
            noise = noise
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let size = noise >> 44;
            format!(
                "-rw-r--r-- 1 root root {size:>8} Nov {:>2} 10:{:02} lib{:06x}.so\r\n",
                size % 30 + 1,
                size % 60,
                noise >> 40 & 0xff_ffff
            )
        });
        let text: String = lines.collect();
        let piece = DataPiece {
            stream: Stream::Stdout,
            bytes: text.as_bytes(),
            remaining: 0,
            hidden: false,
        };
        assert_eq!(spool.accept_data(now, SESSION, piece), Accept::Accepted);
        shown += text.len() as u64;
        now += WRITE_DELAY;
        work(&mut spool, now, &mut files);
    }
    spool.end(now, SESSION, None, EndReason::Exited);
    work(&mut spool, now, &mut files);
    let flash = spool.flash();
    assert_eq!(flash.recorded, shown);
    assert!(
        flash.written * 2 <= shown,
        "{} bytes for {shown}",
        flash.written
    );
}

fn opened(id: u32) -> ForwardOpened<'static> {
    ForwardOpened {
        id,
        to: "db:5432",
        from: "",
        direction: ForwardDirection::Out,
        address: Some("10.0.0.7:5432".parse().unwrap()),
    }
}

fn closed(id: u32) -> ForwardClosed {
    ForwardClosed {
        id,
        sent: u64::MAX,
        received: u64::MAX - u64::from(id),
        why: ForwardEnding::Closed,
    }
}

#[test]
fn end_of_a_forward_is_recorded_however_full_the_spool_is() {
    for mode in [RecordingMode::Strict, RecordingMode::BestEffort] {
        // A third of it is for a rescue, and who goes on without a recording leaves a part of the rest to the others.
        let max = 3 * RECOVER_RESERVE;
        let (mut spool, mut now) = (spool(max), T);
        let terms = terms(mode, StdinMode::Redact);
        begin(&mut spool, &terms, &ForwardRequest::Log.into(), false).unwrap();
        let mut files = BTreeMap::new();
        let mut open = 0;
        let full = loop {
            match spool.accept_opened(now, SESSION, opened(open)) {
                Accept::Accepted => open += 1,
                other => break other,
            }
            // Each in a block of its own: there is no dearer way.
            now += WRITE_DELAY;
            work(&mut spool, now, &mut files);
        };
        match mode {
            RecordingMode::Strict => {
                assert!(
                    matches!(full, Accept::Refused(Unavailable::Full { .. })),
                    "{full:?}"
                );
            }
            _ => assert_eq!(full, Accept::Gap),
        }
        assert!(open > 20, "{open}");
        for id in 0..open {
            let accepted = spool.accept_closed(now, SESSION, closed(id));
            assert_eq!(accepted, Accept::Accepted, "{mode:?} {id} of {open}");
            now += WRITE_DELAY;
            work(&mut spool, now, &mut files);
            assert!(spool.used() <= max, "{} bytes", spool.used());
        }
        spool.end(now, SESSION, None, EndReason::ClientGone);
        work(&mut spool, now, &mut files);
        assert!(spool.used() <= max);
        let (secrets, mut ends) = ([secret()], vec![]);
        let mut reader = RecordingReader::new(SESSION, &secrets);
        for file in files.values() {
            let read = reader.read_segment(file, &mut |_, record| {
                if let Event::ForwardClosed(closed) = &record.event {
                    ends.push(closed.clone());
                }
            });
            assert_eq!(read, Ok(()));
        }
        let why = EndReason::ClientGone;
        assert_eq!(reader.verdict(), ReadVerdict::Complete { why });
        let all: Vec<ForwardClosed> = (0..open).map(closed).collect();
        assert_eq!(ends, all, "{mode:?}");
        // What comes behind the end belongs to no recording.
        assert!(matches!(
            spool.accept_closed(now, SESSION, closed(0)),
            Accept::Refused(_)
        ));
    }
}
