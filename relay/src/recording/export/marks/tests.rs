//! Marks against a plain model, which looks at one byte after the other.

use holdfast_protocol::ids::{DeviceId, DeviceName, Login, SessionId, UserName};
use holdfast_protocol::recording::chain::{
    Closing, DigestPoint, Partial, SeenFiles, StreamDigest, Tag,
};
use holdfast_protocol::recording::record::{
    EndReason, FileKind, FileOperation, Gap, GapReason, RecordingEnd, Redacted,
};
use proptest::prelude::*;

use super::*;
use crate::clock::Timestamp;
use crate::model::role::Ability;
use crate::store::{RecordingRow, RecordingState, SessionFacts};

/// Says what the relay knows of a stream, and what its verdict says of it.
#[derive(Clone, Debug)]
struct Known {
    /// The bytes that were passed on, gaps counted; some of them in a frame that has not ended.
    relayed: u64,
    partial: u64,
    /// The recorded bytes that are proved.
    ranges: Vec<Range<u64>>,
    /// The verdict is one of an older relay: it has their number alone.
    is_old: bool,
}

#[derive(Clone, Debug)]
struct Case {
    streams: [Known; 3],
    has_verdict: bool,
    ended: bool,
    is_tampered: bool,
    /// The end that was kept, with the exit status.
    closing: Option<Option<u32>>,
}

/// Describes a record of the device.
#[derive(Clone, Debug)]
enum Step {
    Data(Stream, usize, bool),
    Redacted(u32),
    Gap([u64; 3]),
    Exit(u32),
}

const KEPT: u64 = 40;

fn known() -> impl Strategy<Value = Known> {
    let bounds = prop::collection::btree_set(0..KEPT, 0..6);
    (0..KEPT, 0..4_u64, bounds, any::<bool>()).prop_map(|(relayed, partial, bounds, is_old)| {
        let bounds: Vec<u64> = bounds.into_iter().collect();
        let mut ranges: Vec<Range<u64>> = bounds.chunks_exact(2).map(|at| at[0]..at[1]).collect();
        if is_old {
            // What such a verdict says is that so many are proved, from the first on.
            let end = ranges.first().map_or(0, |range| range.end);
            ranges = std::iter::once(0..end).collect();
        }
        Known {
            relayed,
            partial: partial.min(relayed),
            ranges,
            is_old,
        }
    })
}

fn case() -> impl Strategy<Value = Case> {
    let streams = [known(), known(), known()];
    let closing = prop::option::of(prop::option::of(0..3_u32));
    (
        streams,
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        closing,
    )
        .prop_map(|(streams, has_verdict, ended, is_tampered, closing)| Case {
            streams,
            has_verdict,
            ended,
            is_tampered,
            closing: closing.filter(|_| ended),
        })
}

fn step() -> impl Strategy<Value = Step> {
    let stream = prop::sample::select(Stream::ALL.to_vec());
    prop_oneof![
        8 => (stream, 0..9_usize, any::<bool>()).prop_map(|(of, length, last)| Step::Data(of, length, last)),
        2 => (1..9_u32).prop_map(Step::Redacted),
        1 => prop::array::uniform3(0..5_u64).prop_map(Step::Gap),
        1 => (0..3_u32).prop_map(Step::Exit),
    ]
}

fn facts(case: &Case) -> RecordingFacts {
    let seen = case.streams.clone().map(|known| StreamDigest {
        end: DigestPoint {
            bytes: known.relayed - known.partial,
            ..DigestPoint::default()
        },
        partial: (known.partial > 0).then(|| Partial {
            bytes: known.partial,
            tag: Tag::default(),
        }),
        ..StreamDigest::default()
    });
    let status = |status| Closing { exit: status };
    RecordingFacts {
        row: RecordingRow {
            session: SessionFacts {
                user_id: None,
                id: SessionId([1; 16]),
                user: UserName::new("alice").unwrap(),
                device: DeviceId([2; 16]),
                device_name: DeviceName::new("cam").unwrap(),
                login: Login::new("pi").unwrap(),
                kind: Ability::Exec,
                command: None,
                client: "203.0.113.9:50022".parse().unwrap(),
                started: Timestamp(0),
                terminal: false,
            },
            ended: case.ended.then_some(Timestamp(1)),
            state: RecordingState::Complete,
            reason: None,
            bytes: 0,
            offered: 0,
            verified: None,
            verdict: None,
            signature: None,
            hold: None,
            relay: None,
        },
        segments: Vec::new(),
        report: None,
        key: None,
        seen,
        begun: None,
        control: None,
        content: None,
        closing: case.closing.map(|exit| status(exit.map(Exit::Status))),
        booked: 0,
        forwards: None,
        files: None,
        refused: false,
        expected: None,
        unfollowed: None,
    }
}

fn verdict(case: &Case) -> VerdictText {
    let streams = Stream::ALL.map(|stream| {
        let known = &case.streams[stream.index()];
        let pairs = known.ranges.iter().map(|range| [range.start, range.end]);
        StreamText {
            stream: name(stream).to_owned(),
            relayed: known.relayed,
            proved: known
                .ranges
                .iter()
                .map(|range| range.end - range.start)
                .sum(),
            ranges: (!known.is_old).then(|| pairs.collect()),
            redacted: 0,
            missing: 0,
            unproved: 0,
            unseen: 0,
            not_kept: 0,
            lack: None,
        }
    });
    VerdictText {
        recording: String::new(),
        state: String::new(),
        segments: 0,
        chain: String::new(),
        gaps: 0,
        streams: streams.into(),
        unfollowed: None,
        control: None,
        contradiction: None,
        forwards: None,
        files: None,
        proved_files: None,
        proved_control: None,
    }
}

impl Case {
    /// Returns the mark of one byte: the one at `at` of those that are recorded, `missing` bytes of gaps before it.
    fn mark(&self, stream: Stream, at: u64, missing: u64) -> Option<Mark> {
        let known = &self.streams[stream.index()];
        let ranges: &[Range<u64>] = if self.has_verdict { &known.ranges } else { &[] };
        if ranges.iter().any(|range| range.contains(&at)) {
            return None;
        }
        let compared = ranges.last().map_or(0, |range| range.end);
        if !self.ended && !self.is_tampered && at >= compared {
            return None;
        }
        let is_beyond = self.ended && at + missing >= known.relayed;
        Some(match (is_beyond && self.closing.is_some(), stream) {
            (true, Stream::Stdin) => Mark::Unsent,
            (true, _) => Mark::Unshown,
            (false, _) => Mark::Unproved,
        })
    }
}

/// The parts of a recording that were given: each byte with its mark, and the exit statuses.
#[derive(Debug, Default)]
struct Given {
    bytes: [Vec<(u8, Option<Mark>)>; 3],
    redacted: Vec<(u32, Option<Mark>)>,
    exits: Vec<(u32, Option<Mark>)>,
    delta: u64,
    /// Data that was given as a whole frame or the end of one.
    frames: usize,
}

impl Given {
    fn take(&mut self, record: &Record<'_>, mark: Option<Mark>) {
        self.delta += record.delta;
        match &record.event {
            Event::Data(stream, bytes) | Event::Part(stream, bytes) => {
                let bytes = bytes.0.iter().map(|byte| (*byte, mark));
                self.bytes[stream.index()].extend(bytes);
                self.frames += usize::from(matches!(record.event, Event::Data(..)));
            }
            Event::Redacted(redacted) => self.redacted.push((redacted.length, mark)),
            Event::Exit(Exit::Status(status)) => self.exits.push((*status, mark)),
            _ => {}
        }
    }
}

/// Marks the steps, and an end, and returns what is given and what the model expects.
fn run(case: &Case, steps: &[Step]) -> Result<(), TestCaseError> {
    let verdict = case.has_verdict.then(|| verdict(case));
    let mut marks = Marks::of(&facts(case), verdict.as_ref(), case.is_tampered);
    let mut given = Given::default();
    let (mut expected, mut redacted) = ([vec![], vec![], vec![]], vec![]);
    let (mut at, mut missing, mut frames) = ([0_u64; 3], [0_u64; 3], 0);
    for (number, step) in steps.iter().enumerate() {
        let text: Vec<u8> = (0..9)
            .map(|place| number.to_le_bytes()[0] * 9 + place)
            .collect();
        let event = match step {
            Step::Data(stream, length, last) => {
                for byte in &text[..*length] {
                    let place = stream.index();
                    let mark = case.mark(*stream, at[place], missing[place]);
                    expected[place].push((*byte, mark));
                    at[place] += 1;
                }
                frames += usize::from(*last);
                let bytes = RecordedBytes(&text[..*length]);
                if *last {
                    Event::Data(*stream, bytes)
                } else {
                    Event::Part(*stream, bytes)
                }
            }
            Step::Redacted(length) => {
                let from = at[0];
                let all = (from..from + u64::from(*length))
                    .map(|at| case.mark(Stream::Stdin, at, missing[0]));
                redacted.push((*length, all.collect::<Vec<_>>()));
                at[0] += u64::from(*length);
                let tag = Tag::default();
                Event::Redacted(Redacted {
                    length: *length,
                    tag,
                })
            }
            Step::Gap(bytes) => {
                for (missing, more) in missing.iter_mut().zip(bytes) {
                    *missing += more;
                }
                Event::Gap(Gap {
                    micros: 0,
                    bytes: *bytes,
                    after: [DigestPoint::default(); 3],
                    records: 0,
                    why: GapReason::SpoolFull,
                })
            }
            Step::Exit(status) => Event::Exit(Exit::Status(*status)),
        };
        marks.each(&Record { delta: 1, event }, &mut |record, mark| {
            given.take(record, mark)
        });
    }
    let event = Event::End(RecordingEnd {
        why: EndReason::Exited,
        streams: [DigestPoint::default(); 3],
    });
    marks.each(&Record { delta: 1, event }, &mut |record, mark| {
        given.take(record, mark)
    });

    prop_assert_eq!(&given.bytes, &expected);
    prop_assert_eq!(given.frames, frames);
    for ((length, mark), (asked, bytes)) in given.redacted.iter().zip(&redacted) {
        prop_assert_eq!(length, asked);
        match bytes[0] {
            Some(first) => prop_assert_eq!(*mark, Some(first)),
            // Of one that is proved in part, none of it is said to be.
            None if bytes.iter().any(Option::is_some) => {
                prop_assert_eq!(*mark, Some(Mark::Unproved));
            }
            None => prop_assert!(mark.is_none_or(|mark| mark == Mark::Unproved)),
        }
    }
    prop_assert_eq!(given.redacted.len(), redacted.len());
    // What the relay passed on is given once without a mark, whatever the recording says.
    if let Some(exit) = case.closing {
        let unmarked = given.exits.iter().filter(|(_, mark)| mark.is_none());
        let unmarked: Vec<u32> = unmarked.map(|(status, _)| *status).collect();
        prop_assert_eq!(unmarked, exit.into_iter().collect::<Vec<_>>());
    }
    Ok(())
}

proptest! {
    #[test]
    fn each_byte_has_the_mark_that_a_plain_model_says(
        case in case(),
        steps in prop::collection::vec(step(), 0..24),
    ) {
        run(&case, &steps)?;
    }

    #[test]
    fn nothing_behind_a_damaged_block_is_proved(
        case in case(),
        before in prop::collection::vec(step(), 0..8),
        behind in prop::collection::vec(step(), 1..8),
    ) {
        let verdict = case.has_verdict.then(|| verdict(&case));
        let mut marks = Marks::of(&facts(&case), verdict.as_ref(), true);
        let text = [b'x'; 9];
        let give = |marks: &mut Marks, step: &Step| {
            let mut given = Given::default();
            let event = match step {
                Step::Data(stream, length, _) => {
                    Event::Data(*stream, RecordedBytes(&text[..*length]))
                }
                Step::Redacted(length) => {
                    Event::Redacted(Redacted { length: *length, tag: Tag::default() })
                }
                Step::Gap(_) => Event::Eof(Stream::Stdin),
                Step::Exit(_) => Event::Signal(holdfast_protocol::wire::Signal::Int),
            };
            let mut marked = Vec::new();
            marks.each(&Record { delta: 1, event }, &mut |record, mark| {
                given.take(record, mark);
                marked.push(mark);
            });
            marked
        };
        for step in &before {
            give(&mut marks, step);
        }
        marks.damaged();
        for step in &behind {
            prop_assert_eq!(give(&mut marks, step), [Some(Mark::Unproved)]);
        }
    }
}

/// Covers three operations whose answers the relay has seen, two of them proved, and two more.
#[test]
fn file_operations_have_marks_by_their_number() {
    let marks_of = |ended, closing, gap_at: Option<usize>| {
        let known = Known {
            relayed: 0,
            partial: 0,
            ranges: vec![],
            is_old: false,
        };
        let case = Case {
            streams: [known.clone(), known.clone(), known],
            has_verdict: true,
            ended,
            is_tampered: false,
            closing,
        };
        let mut facts = facts(&case);
        let mut seen = SeenFiles::default();
        seen.answered.end.frames = 3;
        facts.files = Some(seen);
        let verdict = VerdictText {
            proved_files: Some(2),
            files: Some("not proved".to_owned()),
            ..verdict(&case)
        };
        let mut marks = Marks::of(&facts, Some(&verdict), false);
        let mut given = Vec::new();
        for number in 0..5 {
            let event = Event::File(FileOperation {
                kind: FileKind::Remove,
                path: RecordedBytes(b"f"),
                other: None,
                size: 0,
                result: 0,
            });
            if gap_at == Some(number) {
                let gap = Event::Gap(Gap {
                    micros: 0,
                    bytes: [0; 3],
                    after: [DigestPoint::default(); 3],
                    records: 1,
                    why: GapReason::SpoolFull,
                });
                marks.each(
                    &Record {
                        delta: 0,
                        event: gap,
                    },
                    &mut |_, _| {},
                );
            }
            marks.each(&Record { delta: 0, event }, &mut |_, mark| given.push(mark));
        }
        given
    };
    let (unproved, unseen) = (Some(Mark::Unproved), Some(Mark::Unanswered));
    let cut = marks_of(true, Some(None), None);
    assert_eq!(cut, [None, None, unproved, unseen, unseen]);
    let killed = marks_of(true, None, None);
    assert_eq!(killed, [None, None, unproved, unproved, unproved]);
    // No answer is missing where the session has ended by itself.
    let exited = marks_of(true, Some(Some(0)), None);
    assert_eq!(exited, [None, None, unproved, unproved, unproved]);
    let gap = marks_of(true, Some(None), Some(4));
    assert_eq!(gap, [None, None, unproved, unseen, unproved]);
    let running = marks_of(false, None, None);
    assert_eq!(running, [None; 5]);
}
