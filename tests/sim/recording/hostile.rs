//! A device that has the session's key and seals what it likes: whatever it does to a recording, the verdict is not
//! "verified" unless what is shown is what the relay passed on.

mod changes;
mod session;

use std::cell::Cell;
use std::collections::BTreeMap;

use holdfast_protocol::ids::{DeviceName, SessionId};
use holdfast_protocol::recording::chain::{
    Assessment, ChainKey, Checker, Expectation, RecordedKind,
};
use holdfast_protocol::recording::reader::{ReadVerdict, RecordingReader};
use holdfast_protocol::recording::record::{
    self, Event, ForwardDirection, ForwardOpened, Record, StartedWork, Stream,
};
use holdfast_protocol::recording::seal::{RecordingSecret, SealSeed};
use holdfast_protocol::recording::segment::{SegmentLink, SegmentWriter};
use holdfast_protocol::wire::Exit;

use crate::random::for_seeds;
use changes::{change, refit};
use session::session;

const SESSION: SessionId = SessionId([0x5a; 16]);
const KEY: ChainKey = ChainKey([3; 32]);

/// A session as the relay knows it, and an honest recording of it: encoded records.
struct Session {
    expected: Expectation,
    passed: Shown,
    /// True if content passed that is not kept.
    is_cut: bool,
    /// True if the relay was killed before it kept all that passed.
    is_short: bool,
    records: Vec<Vec<u8>>,
}

/// The relay's verdict on a recording, and what it shows of it.
struct Judged {
    standing: Standing,
    assessment: Assessment,
    shown: Shown,
}

/// The data that a reader of a recording is shown without a mark, as far as the relay can know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Shown {
    start: String,
    env: Vec<(String, String)>,
    /// The names of what was sent and not set.
    refused: Vec<String>,
    /// Each byte of each stream; `None`: it is redacted.
    streams: [Vec<Option<u8>>; 3],
    /// The places of gaps among them, and the bytes that they lack.
    gaps: [Vec<(usize, u64)>; 3],
    /// The end of input, with the frames of it before, and those so far.
    eof: Option<usize>,
    frames: usize,
    /// Sizes and signals, each with the bytes of input before it.
    control: Vec<(usize, String)>,
    exit: Option<Exit>,
    /// The target of each forward, and the bytes sent and received.
    forwards: BTreeMap<u32, (String, Option<(u64, u64)>)>,
    /// The operations on files.
    files: Vec<String>,
    /// True if a record of this kind has no place.
    strange: bool,
    /// True if operations on files are said to be missing.
    unfollowed: bool,
}

#[test]
fn only_a_recording_of_what_the_relay_passed_on_is_verified() {
    let (cases, verified) = (Cell::new(0_u32), Cell::new(0_u32));
    let (cut, forged_cut) = (Cell::new(0_u32), Cell::new(0_u32));
    for_seeds(500, |random| {
        let session = session(random);
        let changes = random.pick(0..4);
        let mut records = session.records.clone();
        for _ in 0..changes {
            change(random, &mut records);
        }
        if changes > 0 && random.chance(60) {
            refit(&mut records);
        }
        let segments = random.index(4) + 1;
        let is_partial = random.chance(15);
        let judged = judge(&session.expected, &records, segments, is_partial);
        let Judged {
            standing,
            assessment,
            shown,
        } = &judged;
        let standing = *standing;
        let holds = standing != Standing::NotProved;
        cases.set(cases.get() + 1);
        verified.set(verified.get() + u32::from(standing == Standing::Verified));
        cut.set(cut.get() + u32::from(standing == Standing::WithoutContent));
        let forged = changes > 0 && session.is_cut && !holds;
        forged_cut.set(forged_cut.get() + u32::from(forged));
        if changes == 0 {
            assert!(!assessment.is_contradicted(), "{assessment:?}");
            let is_whole = !session.is_short && !is_partial;
            assert!(holds || !is_whole, "an honest recording is proved");
        }
        if holds {
            assert_eq!(standing == Standing::WithoutContent, session.is_cut);
            assert_same(&session, shown);
        }
        assert_proved_parts(&session.passed, assessment, shown);
    });
    // Both outcomes were seen: neither half of this test is idle.
    let (cases, verified) = (cases.get(), verified.get());
    assert!(
        cases < 100 || (verified > 0 && verified < cases),
        "{verified}"
    );
    let (cut, forged_cut) = (cut.get(), forged_cut.get());
    assert!(
        cases < 100 || (cut > 0 && forged_cut > 0),
        "{cut} {forged_cut}"
    );
}

/// The relay's verdict on a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Verified,
    /// All is proved, and content is missing that need not be kept.
    WithoutContent,
    NotProved,
}

/// Checks that all that is shown of a recording without a mark is what passed, also where not all is proved.
fn assert_proved_parts(passed: &Shown, assessment: &Assessment, shown: &Shown) {
    for (index, proof) in assessment.streams.iter().enumerate() {
        let (passed, shown_bytes) = (&passed.streams[index], &shown.streams[index]);
        for at in proof.ranges.iter().cloned().flatten() {
            let at = usize::try_from(at).unwrap();
            let before = shown.gaps[index].iter().filter(|(gap, _)| *gap <= at);
            let missing: u64 = before.map(|(_, missing)| missing).sum();
            let offset = at + usize::try_from(missing).unwrap();
            let byte = shown_bytes[at];
            assert!(
                byte.is_none() || byte == passed[offset],
                "byte {at} of {:?} is not what passed",
                proof.stream
            );
        }
    }
    let proved = usize::try_from(assessment.proved_control).unwrap_or(usize::MAX);
    let pairs = shown.control.iter().zip(&passed.control).take(proved);
    for ((_, shown), (_, passed)) in pairs {
        assert_eq!(shown, passed);
    }
    assert!(proved.min(shown.control.len()) <= passed.control.len());
    // Of other kinds than sftp none is compared: any is a contradiction.
    if assessment.proved_files < u64::MAX {
        let proved = usize::try_from(assessment.proved_files).unwrap();
        let proved = shown.files.iter().take(proved);
        assert!(are_among(proved, &passed.files), "{:?}", shown.files);
    }
}

/// Returns whether each of these is one of the others, as often.
fn are_among<'a>(these: impl Iterator<Item = &'a String>, others: &[String]) -> bool {
    let mut others: Vec<&String> = others.iter().collect();
    these.into_iter().all(|this| {
        let found = others.iter().position(|other| *other == this);
        found.map(|at| others.remove(at)).is_some()
    })
}

/// The device may leave out of the environment what it refuses.
fn assert_same(session: &Session, shown: &Shown) {
    let passed = &session.passed;
    let mut unset: Vec<&str> = Vec::new();
    let mut set = shown.env.iter().peekable();
    for entry in &passed.env {
        if set.next_if(|set| *set == entry).is_none() {
            unset.push(&entry.0);
        }
    }
    assert_eq!(set.next(), None, "it was not sent");
    for name in &shown.refused {
        let at = unset.iter().position(|unset| unset == name);
        unset.remove(at.unwrap());
    }
    let control = session.expected.control.as_ref();
    let sent = control.and_then(|control| control.eof);
    let knows_eof = session.expected.closing.is_some() || sent.is_some();
    let is_sent = shown.eof.is_none() || shown.eof == passed.eof;
    assert!(
        is_sent || !knows_eof,
        "{:?}, not {:?}",
        shown.eof,
        passed.eof
    );
    assert!(!shown.unfollowed);
    let same_bytes = passed
        .streams
        .iter()
        .zip(&shown.streams)
        .all(|(passed, shown)| {
            let redacted_or_same = |(a, b): (&Option<u8>, &Option<u8>)| b.is_none() || a == b;
            passed.len() == shown.len() && passed.iter().zip(shown).all(redacted_or_same)
        });
    assert!(same_bytes, "{:?} and {:?}", passed.streams, shown.streams);
    assert_eq!(passed.start, shown.start);
    assert_eq!(passed.control, shown.control);
    assert_eq!(passed.exit, shown.exit);
    let files = session.expected.files.as_ref();
    let answered = files.map_or(0, |files| files.answered.end.frames);
    let answered = usize::try_from(answered).unwrap();
    assert_eq!(passed.files[..answered], shown.files[..answered]);
    // What was under way at the end has no order.
    assert_eq!(passed.files.len(), shown.files.len());
    assert!(
        are_among(shown.files.iter(), &passed.files),
        "{:?}",
        shown.files
    );
    assert_eq!(passed.forwards.len(), shown.forwards.len());
    for ((id, (lead, _)), (shown_id, (shown_lead, shown_counts))) in
        passed.forwards.iter().zip(&shown.forwards)
    {
        assert_eq!((id, lead), (shown_id, shown_lead));
        let seen = &session.expected.forwards.as_ref().unwrap().ended[id];
        let (sent, received) = shown_counts.unwrap();
        // How much of what was sent reached the target, the device alone knows; and what came behind a cut.
        assert!(sent <= seen.sent, "{id}: {sent} of {}", seen.sent);
        assert!(received >= seen.received, "{id}");
        assert!(received == seen.received || !seen.orderly, "{id}");
    }
    assert!(!shown.strange, "a record that has no place");
}

/// Seals the records as a device would, in so many segments, of which the last may be withheld, opens them as the relay
/// does, and gives its verdict and what it shows.
fn judge(expected: &Expectation, records: &[Vec<u8>], segments: usize, is_partial: bool) -> Judged {
    let secret = RecordingSecret::from_seed(&[1; 32]);
    let mut stored = sealed(records, segments, &secret);
    if is_partial {
        stored.pop();
    }
    let secrets = [secret];
    let mut reader = RecordingReader::new(SESSION, &secrets);
    let mut checker = Checker::new(&KEY, expected);
    let mut shown = Shown::default();
    for segment in &stored {
        let read = reader.read_segment(segment, &mut |_, record| {
            checker.handle(record);
            show(&mut shown, &record.event, expected);
        });
        if read.is_err() {
            break;
        }
    }
    let whole = matches!(reader.verdict(), ReadVerdict::Complete { .. });
    let assessment = checker.finish(whole);
    let standing = match (
        assessment.is_proved(),
        assessment.is_proved_without_content(),
    ) {
        // Nothing vouches for a list of operations that is said to be incomplete.
        _ if !whole || shown.unfollowed => Standing::NotProved,
        (true, _) => Standing::Verified,
        (_, true) => Standing::WithoutContent,
        _ => Standing::NotProved,
    };
    Judged {
        standing,
        assessment,
        shown,
    }
}

fn sealed(records: &[Vec<u8>], segments: usize, secret: &RecordingSecret) -> Vec<Vec<u8>> {
    let mut seed = SealSeed::new([2; 32]);
    let mut link = SegmentLink::first(&SESSION);
    let records: Vec<Record<'_>> = records.iter().filter_map(|bytes| decoded(bytes)).collect();
    let each = records.len().div_ceil(segments).max(1);
    let count = records.chunks(each).count();
    let (mut sealed, mut at) = (Vec::new(), 0_u64);
    for (index, part) in records.chunks(each).enumerate() {
        let mut out = Vec::new();
        let number = u32::try_from(index).unwrap();
        let public = secret.public();
        let begun = SegmentWriter::begin(SESSION, number, link, &public, &mut seed, &mut out);
        let mut writer = begun.unwrap();
        for record in part {
            at = at.saturating_add(record.delta);
            writer.push(record, at, &mut out).unwrap();
        }
        link = writer.close(index + 1 == count, &mut out).unwrap();
        sealed.push(out);
    }
    sealed
}

fn decoded(bytes: &[u8]) -> Option<Record<'_>> {
    let mut input = bytes;
    let (delta, event) = record::decode(&mut input).ok()?;
    let event = event.filter(|_| input.is_empty())?;
    Some(Record { delta, event })
}

fn encoded(event: Event<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    Record { delta: 1, event }.encode(&mut bytes).unwrap();
    bytes
}

fn show(shown: &mut Shown, event: &Event<'_>, expected: &Expectation) {
    let kind = expected.kind;
    let [stdin, _, _] = &shown.streams;
    // Where the data is only counted, a size has no place in it.
    let begun = expected.begun.as_ref();
    let holds_data = kind.holds_data(begun);
    let place = if holds_data { stdin.len() } else { 0 };
    let has_terminal = begun.is_some_and(|begun| begun.terminal.is_some());
    match event {
        Event::Start(start) => {
            let mut plain = start.clone();
            // Of these the device alone knows, and a device may have an old name.
            (plain.name, plain.agent) = (DeviceName::new("cam").unwrap(), "");
            (plain.wall, plain.monotonic, plain.volatile) = (0, 0, false);
            let env = std::mem::take(&mut plain.env);
            shown.env = env
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            let work = match &plain.work {
                StartedWork::Exec { length, head } => format!("{length} {:?}", head.0),
                other => format!("{other:?}"),
            };
            shown.start = format!("{plain:?} {work} {} {}", plain.client, plain.device);
            shown.start += &format!(" {:?} {}", plain.stdin, plain.streams);
        }
        Event::CommandLine(part) => shown.start += &format!("{:?}", part.0),
        Event::Data(stream, bytes) | Event::Part(stream, bytes) => {
            let is_frame = matches!(event, Event::Data(Stream::Stdin, _));
            shown.frames += usize::from(is_frame);
            let bytes = bytes.0.iter().map(|byte| Some(*byte));
            shown.streams[stream.index()].extend(bytes);
        }
        Event::Redacted(redacted) => {
            shown.frames += 1;
            let length = usize::try_from(redacted.length).unwrap();
            // What is too long is no recording of these sessions.
            let length = length.min(100_000);
            shown.streams[0].extend(std::iter::repeat_n(None, length));
        }
        Event::Resize(size) => shown.control.push((place, format!("{size:?}"))),
        Event::Signal(signal) => shown.control.push((place, format!("{signal:?}"))),
        // One that the relay did not pass on has a mark.
        Event::Exit(exit)
            if expected
                .closing
                .is_some_and(|closing| closing.exit.is_some()) =>
        {
            shown.exit = Some(*exit);
        }
        Event::File(file) => {
            shown.strange |= holds_data || kind != RecordedKind::Sftp;
            let paths = (file.path.0, file.other.map(|path| path.0));
            shown.files.push(format!("{file:?} {paths:?}"));
        }
        Event::FilesUnfollowed(_) => {
            shown.unfollowed = true;
            shown.strange |= holds_data || kind != RecordedKind::Sftp;
        }
        Event::Command(_) | Event::CommandExit(_) | Event::CommandsUnavailable(_) => {
            shown.strange |= !has_terminal;
        }
        Event::EnvironmentRefused(refused) => {
            let names = refused.names.iter().map(|name| (*name).to_owned());
            shown.refused.extend(names);
        }
        Event::Eof(Stream::Stdin) => {
            let frames = if holds_data { shown.frames } else { 0 };
            shown.strange |= shown.eof.replace(frames).is_some();
        }
        Event::ForwardOpened(opened) => {
            let ForwardOpened {
                id,
                to,
                from,
                direction,
                address,
            } = opened;
            // Which of its addresses a port was reached at is the device's word.
            let lead = match direction {
                ForwardDirection::In => format!("{direction:?} {from}"),
                _ => format!("{direction:?} {to} {from} {address:?}"),
            };
            let is_second = shown.forwards.insert(*id, (lead, None)).is_some();
            shown.strange |= is_second || kind != RecordedKind::Forwards;
        }
        Event::ForwardClosed(closed) => match shown.forwards.get_mut(&closed.id) {
            Some((_, counts @ None)) => *counts = Some((closed.sent, closed.received)),
            _ => shown.strange = true,
        },
        Event::Gap(gap) => {
            shown.strange = true;
            for (index, missing) in gap.bytes.into_iter().enumerate() {
                let at = shown.streams[index].len();
                shown.gaps[index].push((at, missing));
            }
        }
        _ => {}
    }
}
