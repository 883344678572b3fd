use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use core::net::{Ipv4Addr, SocketAddr};

use super::*;
use crate::ids::{DeviceId, Login, UserName};
use crate::recording::record::{
    EndReason, Event, FileKind, FileOperation, Gap, GapReason, Record, RecordedBytes, RecordingEnd,
    Redacted,
};
use crate::wire::Exit;

const KEY: ChainKey = ChainKey([7; 32]);

/// The treatment of one frame on its way into the recording.
#[derive(Clone, Copy, Debug, PartialEq)]
enum FrameFate {
    Whole,
    InParts,
    Redacted,
    Lost,
}

/// Records as a device would write them, and the chain that it computed.
struct RecordedDevice {
    chain: Chain,
    lost: u64,
    records: Vec<(Vec<u8>, FrameKind)>,
}

#[derive(Clone, Debug)]
enum FrameKind {
    Data,
    Part,
    Redacted(Tag),
    Gap(DigestPoint, u64),
}

impl RecordedDevice {
    fn new(stream: Stream) -> Self {
        Self {
            chain: Chain::new(&KEY, stream),
            lost: 0,
            records: vec![],
        }
    }

    fn frame(&mut self, frame: &[u8], kept: FrameFate) {
        let tag = self.chain.update(frame, 0).unwrap();
        if kept != FrameFate::Lost {
            self.close_gap();
        }
        match kept {
            FrameFate::Whole => self.records.push((frame.to_vec(), FrameKind::Data)),
            FrameFate::InParts => {
                let (first, rest) = frame.split_at(frame.len() / 2);
                self.records.push((first.to_vec(), FrameKind::Part));
                self.records.push((rest.to_vec(), FrameKind::Data));
            }
            FrameFate::Redacted => self
                .records
                .push((vec![0; frame.len()], FrameKind::Redacted(tag))),
            FrameFate::Lost => self.lost += frame.len() as u64,
        }
    }

    /// Closes a gap. [`record`] sets its point: it has the chain before the present frame.
    fn close_gap(&mut self) {
        if self.lost == 0 {
            return;
        }
        let lost = core::mem::take(&mut self.lost);
        self.records
            .push((vec![], FrameKind::Gap(DigestPoint::default(), lost)));
    }
}

/// Returns what the relay knows of a shell on which this has passed, and whether it saw its exit status. It fits the
/// start that the reader's tests use.
pub(in crate::recording) fn expectation(seen: [StreamDigest; 3], exited: bool) -> Expectation {
    Expectation {
        user: UserName::new("alice").unwrap(),
        device: DeviceId([0xd1; 16]),
        login: Login::new("pi").unwrap(),
        client: SocketAddr::from((Ipv4Addr::LOCALHOST, 4022)),
        kind: RecordedKind::Shell,
        begun: None,
        seen,
        control: None,
        content: None,
        closing: Some(Closing {
            exit: exited.then_some(Exit::Status(0)),
        }),
        forwards: None,
        files: None,
    }
}

fn check(
    records: &[(Vec<u8>, FrameKind)],
    stream: Stream,
    end: DigestPoint,
    seen: &StreamDigest,
    ended: bool,
) -> StreamProof {
    let mut all = [
        StreamDigest::default(),
        StreamDigest::default(),
        StreamDigest::default(),
    ];
    all[stream.index()] = seen.clone();
    let empty = Stream::ALL.map(|stream| Chain::new(&KEY, stream).point());
    let expected = expectation(all, ended);
    let mut checker = Checker::new(&KEY, &expected);
    let mut handle = |event| checker.handle(&Record { delta: 0, event });
    for (bytes, kind) in records {
        handle(match kind {
            FrameKind::Data => Event::Data(stream, RecordedBytes(bytes)),
            FrameKind::Part => Event::Part(stream, RecordedBytes(bytes)),
            FrameKind::Redacted(tag) => Event::Redacted(Redacted {
                length: u32::try_from(bytes.len()).unwrap(),
                tag: *tag,
            }),
            FrameKind::Gap(after, missing) => {
                let mut gap = Gap {
                    micros: 0,
                    bytes: [0; 3],
                    after: empty,
                    records: 0,
                    why: GapReason::SpoolFull,
                };
                gap.after[stream.index()] = *after;
                gap.bytes[stream.index()] = *missing;
                Event::Gap(gap)
            }
        });
    }
    let mut streams = empty;
    streams[stream.index()] = end;
    handle(Event::End(RecordingEnd {
        why: EndReason::Exited,
        streams,
    }));
    let [stdin, stdout, stderr] = checker.finish(true).streams;
    match stream {
        Stream::Stdin => stdin,
        Stream::Stdout => stdout,
        Stream::Stderr => stderr,
    }
}

fn witness(stream: Stream, frames: &[Vec<u8>]) -> StreamDigester {
    let mut witness = StreamDigester::new(&KEY, stream);
    for frame in frames {
        let (first, rest) = frame.split_at(frame.len() / 3);
        witness.update(first, rest.len());
        witness.update(rest, 0);
    }
    witness
}

/// Runs `frames` through a device that keeps them so, gaps with their true points.
fn record(
    stream: Stream,
    frames: &[(Vec<u8>, FrameFate)],
) -> (Vec<(Vec<u8>, FrameKind)>, DigestPoint) {
    let mut device = RecordedDevice::new(stream);
    for (frame, kept) in frames {
        let before = device.chain.point();
        let had = device.records.len();
        device.frame(frame, *kept);
        for entry in device.records.iter_mut().skip(had) {
            if let FrameKind::Gap(after, _) = &mut entry.1 {
                *after = before;
            }
        }
    }
    let end = device.chain.point();
    if device.lost > 0 {
        let lost = device.lost;
        device.records.push((vec![], FrameKind::Gap(end, lost)));
    }
    (device.records, end)
}

fn frames(count: u8) -> Vec<Vec<u8>> {
    (1..=count).map(|n| vec![n; usize::from(n)]).collect()
}

fn total(frames: &[Vec<u8>]) -> u64 {
    frames.iter().map(|frame| frame.len() as u64).sum()
}

fn all(frames: &[Vec<u8>], kept: FrameFate) -> Vec<(Vec<u8>, FrameFate)> {
    frames.iter().map(|frame| (frame.clone(), kept)).collect()
}

#[test]
fn what_passed_and_was_recorded_is_proved() {
    let passed = frames(9);
    for kept in [FrameFate::Whole, FrameFate::InParts] {
        let (records, end) = record(Stream::Stdout, &all(&passed, kept));
        let seen = witness(Stream::Stdout, &passed).seen();
        let proof = check(&records, Stream::Stdout, end, &seen, true);
        assert_eq!(proof.lack, None);
        assert_eq!(
            (proof.proved, proof.unproved, proof.unseen),
            (total(&passed), 0, 0)
        );
    }
}

#[test]
fn redaction_hides_a_frame_but_not_its_length() {
    let passed = frames(9);
    let mut kept = all(&passed, FrameFate::Whole);
    kept[5].1 = FrameFate::Redacted;
    let (records, end) = record(Stream::Stdin, &kept);
    // Few points, so that the redacted frame is between two of them.
    let mut seen = witness(Stream::Stdin, &passed).seen();
    seen.points.clear();
    let proof = check(&records, Stream::Stdin, end, &seen, true);
    assert_eq!(proof.lack, None);
    assert_eq!((proof.proved, proof.redacted), (total(&passed) - 6, 6));

    let mut before = records.clone();
    before[2].0[0] ^= 1;
    let proof = check(&before, Stream::Stdin, end, &seen, true);
    assert_eq!(
        proof.lack,
        Some(Unproved::Altered { behind: 0 }),
        "altered before it"
    );
    let mut longer = records;
    longer[5].0.push(0);
    let proof = check(&longer, Stream::Stdin, end, &seen, true);
    assert!(
        proof.lack.is_some_and(Unproved::is_contradiction),
        "its length"
    );
}

#[test]
fn what_is_altered_dropped_added_or_swapped_is_found() {
    let passed = frames(9);
    let (records, end) = record(Stream::Stdout, &all(&passed, FrameFate::Whole));
    let seen = witness(Stream::Stdout, &passed).seen();
    let lack = |records: &[(Vec<u8>, FrameKind)], end| {
        check(records, Stream::Stdout, end, &seen, true).lack
    };
    let mut altered = records.clone();
    altered[3].0[0] ^= 1;
    assert_eq!(lack(&altered, end), Some(Unproved::Altered { behind: 6 }));
    let mut swapped = records.clone();
    swapped.swap(3, 4);
    assert_eq!(lack(&swapped, end), Some(Unproved::Altered { behind: 6 }));

    // A device that drops or adds can state an end that fits what it left.
    let (fewer, short) = record(Stream::Stdout, &all(&passed[..8], FrameFate::Whole));
    assert_eq!(lack(&fewer, short), Some(Unproved::Dropped));
    let more = [passed.as_slice(), &[vec![1, 2]]].concat();
    let (more, long) = record(Stream::Stdout, &all(&more, FrameFate::Whole));
    assert_eq!(lack(&more, long), Some(Unproved::Added));
    let cut = check(&more, Stream::Stdout, long, &seen, false);
    assert_eq!(
        (cut.lack, cut.unseen),
        (Some(Unproved::NotShown), 2),
        "the session was cut off before it came: it was not shown, and that is said"
    );
}

#[test]
fn a_stream_cannot_stand_for_another() {
    let passed = frames(3);
    let (records, end) = record(Stream::Stdout, &all(&passed, FrameFate::Whole));
    let seen = witness(Stream::Stderr, &passed).seen();
    let proof = check(&records, Stream::Stdout, end, &seen, true);
    assert_eq!(proof.lack, Some(Unproved::Altered { behind: 0 }));
}

#[test]
fn a_frame_that_passed_in_part_is_checked_as_far_as_it_passed() {
    let passed = frames(4);
    let whole = [passed.as_slice(), &[b"hello world".to_vec()]].concat();
    let mut seen = witness(Stream::Stdout, &passed);
    seen.update(b"hello", 6);
    for kept in [FrameFate::Whole, FrameFate::InParts] {
        let (mut records, end) = record(Stream::Stdout, &all(&whole, kept));
        let proof = check(&records, Stream::Stdout, end, &seen.seen(), false);
        assert_eq!(proof.lack, Some(Unproved::NotShown), "the rest of it");
        assert_eq!((proof.proved, proof.unseen), (total(&passed) + 5, 6));
        let last = if kept == FrameFate::Whole { 4 } else { 8 };
        records[last].0[0] ^= 1;
        let proof = check(&records, Stream::Stdout, end, &seen.seen(), false);
        assert!(proof.lack.is_some_and(Unproved::is_contradiction));
    }
}

#[test]
fn input_that_was_under_way_is_not_held_against_the_device() {
    let passed = frames(9);
    let (records, end) = record(Stream::Stdin, &all(&passed[..7], FrameFate::Whole));
    let seen = witness(Stream::Stdin, &passed).seen();
    let proof = check(&records, Stream::Stdin, end, &seen, false);
    assert_eq!(proof.lack, Some(Unproved::InFlight));
    assert_eq!(proof.proved, total(&passed[..7]));
    let proof = check(&records, Stream::Stdin, end, &seen, true);
    assert_eq!(
        proof.lack,
        Some(Unproved::InFlight),
        "also where the command ended first"
    );
}

#[test]
fn gaps_are_admitted_and_what_is_around_them_is_proved() {
    let passed = frames(9);
    let mut kept = all(&passed, FrameFate::Whole);
    kept[4].1 = FrameFate::Lost;
    kept[5].1 = FrameFate::Lost;
    let (records, end) = record(Stream::Stdout, &kept);
    let mut seen = witness(Stream::Stdout, &passed).seen();
    let proof = check(&records, Stream::Stdout, end, &seen, true);
    assert_eq!(proof.lack, Some(Unproved::Gaps));
    assert_eq!((proof.missing, proof.unproved), (11, 0));
    assert_eq!(proof.proved, total(&passed) - 11);
    let all = 0..total(&passed) - 11;
    assert_eq!(proof.ranges, core::slice::from_ref(&all));
    // With no point before the gap, nothing vouches for what is before it.
    seen.points.clear();
    let proof = check(&records, Stream::Stdout, end, &seen, true);
    assert_eq!((proof.proved, proof.unproved), (24, 10));
    let last = core::slice::from_ref(&(10..34));
    assert_eq!(proof.ranges, last, "what is proved need not come first");

    let mut lied = records;
    for entry in &mut lied {
        if let FrameKind::Gap(_, missing) = &mut entry.1 {
            *missing -= 1;
        }
    }
    let proof = check(&lied, Stream::Stdout, end, &seen, true);
    assert!(
        proof.lack.is_some_and(Unproved::is_contradiction),
        "the count must fit"
    );
}

#[test]
fn gap_that_lacks_nothing_hides_nothing() {
    let passed = frames(9);
    let (mut records, end) = record(Stream::Stdout, &all(&passed, FrameFate::Whole));
    let seen = witness(Stream::Stdout, &passed).seen();
    records[0].0[0] ^= 1;
    records[0].1 = FrameKind::Part;
    let [first, ..] = &seen.points[..] else {
        panic!("no point")
    };
    records.insert(1, (vec![], FrameKind::Gap(*first, 0)));
    let proof = check(&records, Stream::Stdout, end, &seen, true);
    assert_eq!(proof.lack, Some(Unproved::Altered { behind: 0 }));
    assert!(proof.ranges.is_empty());
}

#[test]
fn points_are_few_and_evenly_spread() {
    let mut witness = StreamDigester::new(&KEY, Stream::Stdout);
    for n in 0..100_000_u64 {
        witness.update(b"x", 0);
        let points = &witness.points;
        assert!(points.len() < MAX_CHECKPOINTS);
        let last = points.last().map_or(0, |point| point.frames);
        assert!(
            n + 1 - last <= (n + 1) / 32 + 1,
            "{n}: the last point is at {last}"
        );
    }
}

proptest! {
    #[test]
    fn any_alteration_of_any_record_is_found(
        sizes in prop::collection::vec(1_usize..40, 1..40),
        redacted: u64,
        victim: prop::sample::Index,
        at: prop::sample::Index,
        bit in 0_u8..8,
    ) {
        let passed: Vec<Vec<u8>> =
            sizes.iter().enumerate().map(|(n, size)| vec![n.to_le_bytes()[0]; *size]).collect();
        let kept: Vec<(Vec<u8>, FrameFate)> = passed.iter().enumerate().map(|(n, frame)| {
            let kept = if redacted >> (n % 64) & 1 == 1 { FrameFate::Redacted } else { FrameFate::Whole };
            (frame.clone(), kept)
        }).collect();
        let (mut records, end) = record(Stream::Stdin, &kept);
        let mut seen = witness(Stream::Stdin, &passed).seen();
        seen.points.clear();
        let honest = check(&records, Stream::Stdin, end, &seen, true);
        prop_assert_eq!(honest.lack, None);
        prop_assert_eq!(honest.proved + honest.redacted, total(&passed));
        let victim = victim.index(records.len());
        match &mut records[victim] {
            (_, FrameKind::Redacted(tag)) => tag[at.index(32)] ^= 1 << bit,
            (bytes, _) => {
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
            }
        }
        let forged = check(&records, Stream::Stdin, end, &seen, true);
        prop_assert!(forged.lack.is_some_and(Unproved::is_contradiction));
    }
}

#[test]
fn file_operations_that_the_relay_did_not_keep_are_not_proved() {
    let expected = Expectation {
        kind: RecordedKind::Sftp,
        ..expectation(Default::default(), true)
    };
    let mut checker = Checker::new(&KEY, &expected);
    let removal = FileOperation {
        kind: FileKind::Remove,
        path: RecordedBytes(b"/etc/shadow"),
        other: None,
        size: 0,
        result: 0,
    };
    for recorded in 0..2 {
        let found = checker.finish(true);
        assert_eq!(found.files, Some(Unproved::NotFollowed));
        assert_eq!((found.proved_files, found.unproved_files), (0, recorded));
        assert!(!found.is_proved() && !found.is_proved_without_content());
        let event = Event::File(removal.clone());
        checker.handle(&Record { delta: 0, event });
    }
}
