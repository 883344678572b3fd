//! A device's recording of a session without a terminal against the relay's row, with a bound of its content.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use super::super::tests::{secret, spool, terms};
use super::super::{Accept, Begin, DataPiece, Spool, SpoolWork};
use crate::ids::SessionId;
use crate::limits::{SPOOL_BYTES, WRITE_DELAY};
use crate::recording::chain::tests::expectation;
use crate::recording::chain::{
    Assessment, ChainKey, Checker, ContentPoints, Contradiction, ControlDigest, Expectation,
    SentControl, StreamDigester, Unproved,
};
use crate::recording::reader::RecordingReader;
use crate::recording::reader::tests::start;
use crate::recording::record::{ContentEnds, EndReason, Event, RecordingStart, Stream};
use crate::wire::{Exit, RecordingMode, Signal, StdinMode};

const SESSION: SessionId = SessionId([0x5a; 16]);
const KEY: ChainKey = ChainKey([3; 32]);
const T: Duration = Duration::from_secs(50);

/// A session without a terminal, as its device records it and as the relay sees it.
struct Session {
    spool: Spool,
    now: Duration,
    max: Option<u64>,
    witness: [StreamDigester; 3],
    control: StreamDigester,
    eof: Option<u64>,
    files: BTreeMap<u32, Vec<u8>>,
}

impl Session {
    fn begin(spool_bytes: u64, mode: RecordingMode, max: Option<u64>) -> Self {
        let mut spool = spool(spool_bytes);
        let Event::Start(start) = start(SESSION) else {
            panic!("no start");
        };
        let terms = terms(mode, StdinMode::Full);
        let begin = Begin {
            terms: &terms,
            key: Some(secret().public()),
            seed: [7; 32],
            start: RecordingStart {
                terminal: None,
                ..start
            },
            content_max: max,
            rest_of_command: &[],
        };
        spool.begin(T, &begin).unwrap();
        Self {
            spool,
            now: T,
            max,
            witness: Stream::ALL.map(|stream| StreamDigester::new(&KEY, stream).bounded(max)),
            control: StreamDigester::control(&KEY),
            eof: None,
            files: BTreeMap::new(),
        }
    }

    /// Passes a frame, in two pieces.
    fn pass(&mut self, stream: Stream, frame: &[u8]) -> Accept {
        let (first, rest) = frame.split_at(frame.len() / 2);
        let mut worst = Accept::Accepted;
        for (bytes, remaining) in [(first, rest.len()), (rest, 0)] {
            let piece = DataPiece {
                stream,
                bytes,
                remaining,
                hidden: false,
            };
            let mut accept = self.spool.accept_data(self.now, SESSION, piece);
            while accept == Accept::Wait {
                self.work();
                accept = self.spool.accept_data(self.now, SESSION, piece);
            }
            self.witness[stream.index()].update(bytes, remaining);
            if accept != Accept::Accepted {
                worst = accept;
            }
        }
        worst
    }

    /// Passes a frame, with or without a gap.
    fn passes(&mut self, stream: Stream, frame: &[u8]) {
        let accept = self.pass(stream, frame);
        assert!(
            matches!(accept, Accept::Accepted | Accept::Gap),
            "{accept:?}"
        );
    }

    fn signal(&mut self) {
        let [stdin, _, _] = &self.witness;
        let frame = SentControl::Signal(Signal::Term).frame(stdin.frames());
        self.control.update(&frame, 0);
        let accepted = self
            .spool
            .accept(self.now, SESSION, Event::Signal(Signal::Term));
        assert_eq!(accepted, Accept::Accepted);
    }

    fn eof(&mut self) {
        let [stdin, _, _] = &self.witness;
        self.eof = Some(stdin.frames());
        let accepted = self
            .spool
            .accept(self.now, SESSION, Event::Eof(Stream::Stdin));
        assert_eq!(accepted, Accept::Accepted);
    }

    fn work(&mut self) {
        self.now += WRITE_DELAY;
        while let Some(work) = self.spool.poll_work(self.now) {
            if let SpoolWork::Write(write) = &work {
                let file = self.files.entry(write.segment.index).or_default();
                file.extend_from_slice(&write.bytes);
            }
            self.spool.handle_done(self.now, work, Ok(1 << 40));
        }
    }

    fn end(&mut self) {
        let exit = Event::Exit(Exit::Status(0));
        let why = EndReason::Exited;
        self.spool.end(self.now, SESSION, Some(exit), why);
        self.work();
    }

    fn stored(&self) -> u64 {
        self.files.values().map(|file| file.len() as u64).sum()
    }

    /// Returns the relay's assessment, and the records of where content ends.
    fn judged(&self) -> (Assessment, Vec<ContentEnds>) {
        self.judged_by(self.max.map(|max| ContentPoints {
            max,
            ends: self.witness.each_ref().map(StreamDigester::content_end),
        }))
    }

    fn judged_by(&self, content: Option<ContentPoints>) -> (Assessment, Vec<ContentEnds>) {
        let seen = self.witness.each_ref().map(StreamDigester::seen);
        let expected = Expectation {
            content,
            control: Some(ControlDigest {
                seen: self.control.seen(),
                eof: self.eof,
            }),
            ..expectation(seen, true)
        };
        let secrets = [secret()];
        let mut reader = RecordingReader::new(SESSION, &secrets);
        let mut checker = Checker::new(&KEY, &expected);
        let mut ends = vec![];
        for file in self.files.values() {
            let read = reader.read_segment(file, &mut |_, record| {
                checker.handle(record);
                if let Event::ContentEnds(end) = &record.event {
                    ends.push(end.clone());
                }
            });
            assert_eq!(read, Ok(()));
        }
        (checker.finish(true), ends)
    }
}

/// Returns bytes that do not compress.
pub(in crate::recording::spool) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    core::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    })
    .take(length)
    .collect()
}

#[test]
fn content_ends_behind_the_frame_that_reaches_the_bound() {
    let mut session = Session::begin(SPOOL_BYTES, RecordingMode::Strict, Some(10_000));
    for _ in 0..2_000 {
        let passed = session.pass(Stream::Stdout, &noise(4_000));
        assert_eq!(passed, Accept::Accepted);
        assert_eq!(session.pass(Stream::Stderr, b"line\n"), Accept::Accepted);
    }
    session.end();
    assert!(session.stored() < 40_000, "{} bytes", session.stored());
    let (assessment, ends) = session.judged();
    let [end] = &ends[..] else {
        panic!("{ends:?}");
    };
    assert_eq!((end.stream, end.from.bytes), (Stream::Stdout, 12_000));
    let [_, stdout, stderr] = &assessment.streams;
    assert_eq!(
        (stdout.relayed, stdout.proved, stdout.not_kept, stdout.lack),
        (
            8_000_000,
            12_000,
            7_988_000,
            Some(Unproved::ContentNotKept { from: 12_000 })
        )
    );
    assert_eq!((stderr.proved, stderr.lack), (10_000, None));
    assert_eq!(assessment.contradiction, None);
    assert!(!assessment.is_proved() && assessment.is_proved_without_content());
    assert_eq!(assessment.not_proved(), 0);
    // The relay's row decides whether the session had a bound, and which.
    for content in [
        None,
        Some(ContentPoints {
            max: 9_000,
            ends: [None; 3],
        }),
        Some(ContentPoints {
            max: 16_000,
            ends: [None; 3],
        }),
    ] {
        let (assessment, _) = session.judged_by(content.clone());
        assert_eq!(
            assessment.contradiction,
            Some(Contradiction::Content),
            "{content:?}"
        );
    }
}

#[test]
fn content_within_the_bound_is_whole() {
    for (max, length) in [(Some(300), 299), (Some(300), 300), (None, 100_000)] {
        let mut session = Session::begin(SPOOL_BYTES, RecordingMode::Strict, max);
        session.passes(Stream::Stdout, &noise(length));
        session.end();
        let (assessment, ends) = session.judged();
        assert!(assessment.is_proved(), "{length}: {assessment:?}");
        assert_eq!(ends, []);
    }
}

#[test]
fn bound_of_zero_keeps_no_content() {
    let mut session = Session::begin(SPOOL_BYTES, RecordingMode::Strict, Some(0));
    session.passes(Stream::Stdin, &noise(5_000));
    session.end();
    let (assessment, ends) = session.judged();
    assert_eq!(ends.len(), 1);
    let [stdin, stdout, _] = &assessment.streams;
    assert_eq!((stdin.proved, stdin.not_kept), (0, 5_000));
    assert_eq!(stdin.lack, Some(Unproved::ContentNotKept { from: 0 }));
    assert_eq!(stdout.lack, None);
    assert!(assessment.is_proved_without_content());
}

#[test]
fn signals_behind_the_end_of_input_that_is_kept_are_proved() {
    let mut session = Session::begin(SPOOL_BYTES, RecordingMode::Strict, Some(1_000));
    for length in [600, 600, 600] {
        session.passes(Stream::Stdin, &noise(length));
        session.signal();
    }
    session.eof();
    session.end();
    let (assessment, _) = session.judged();
    assert_eq!((assessment.control, assessment.contradiction), (None, None));
    assert!(assessment.is_proved_without_content());
}

#[test]
fn what_is_not_kept_is_no_gap_however_full_the_spool_is() {
    let mut session = Session::begin(3 << 20, RecordingMode::BestEffort, Some(200_000));
    assert_eq!(
        session.pass(Stream::Stdout, &noise(200_000)),
        Accept::Accepted
    );
    session.work();
    session.spool.stored = session.spool.config.max_bytes;
    for _ in 0..100 {
        let passed = session.pass(Stream::Stdout, &noise(100_000));
        assert_eq!(passed, Accept::Accepted);
    }
    session.end();
    let (assessment, ends) = session.judged();
    assert_eq!(ends.len(), 1);
    assert!(assessment.is_proved_without_content(), "{assessment:?}");
}

#[test]
fn content_that_ends_within_a_gap_is_missing_up_to_there() {
    let mut session = Session::begin(3 << 20, RecordingMode::BestEffort, Some(300_000));
    session.passes(Stream::Stdout, &noise(100_000));
    session.work();
    let stored = core::mem::replace(&mut session.spool.stored, 3 << 20);
    for _ in 0..5 {
        session.passes(Stream::Stdout, &noise(100_000));
    }
    assert_eq!(session.pass(Stream::Stderr, b"lost"), Accept::Gap);
    session.spool.stored = stored;
    assert_eq!(session.pass(Stream::Stderr, b"kept"), Accept::Accepted);
    session.passes(Stream::Stdout, &noise(100_000));
    session.end();
    let (assessment, ends) = session.judged();
    assert_eq!(ends.len(), 1);
    assert_eq!(assessment.contradiction, None);
    let [_, stdout, stderr] = &assessment.streams;
    assert_eq!(
        (stdout.proved, stdout.missing, stdout.lack),
        (100_000, 200_000, Some(Unproved::Gaps))
    );
    assert_eq!((stderr.proved, stderr.missing), (4, 4));
    assert!(!assessment.is_contradicted() && !assessment.is_proved_without_content());
}
