//! A device that has the session's key and seals what it likes: whatever it does to a recording, the verdict is not
//! "verified" unless what is shown is what the relay passed on.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use holdfast_protocol::ids::{DeviceId, DeviceName, Login, SessionId, UserName};
use holdfast_protocol::recording::chain::{
    Chain, ChainKey, Checker, Closing, ContentEnd, ContentPoints, ControlDigest, DigestPoint,
    Expectation, RecordedKind, SeenForward, SeenForwards, SentControl, SessionStart,
    StreamDigester,
};
use holdfast_protocol::recording::reader::{ReadVerdict, RecordingReader};
use holdfast_protocol::recording::record::{
    self, CommandExit, CommandRun, ContentEnds, EndReason, Event, FileKind, FileOperation,
    ForwardClosed, ForwardDirection, ForwardEnding, ForwardOpened, Gap, GapReason, Record,
    RecordedBytes, RecordedTerminal, RecordingEnd, RecordingStart, Redacted, StartedWork, Stream,
};
use holdfast_protocol::recording::seal::{RecordingSecret, SealSeed};
use holdfast_protocol::recording::segment::{SegmentLink, SegmentWriter};
use holdfast_protocol::wire::{
    Exit, ForwardRequest, ProcessRequest, Pty, RecordingMode, RecordingTerms, SFTP, SessionRequest,
    Signal, StdinMode, WindowSize,
};

use crate::random::{Random, for_seeds};

const SESSION: SessionId = SessionId([0x5a; 16]);
const KEY: ChainKey = ChainKey([3; 32]);

/// A session as the relay knows it, and an honest recording of it: encoded records.
struct Session {
    expected: Expectation,
    passed: Shown,
    /// True if content passed that is not kept.
    is_cut: bool,
    records: Vec<Vec<u8>>,
}

/// The data that a reader of a recording is shown without a mark, as far as the relay can know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Shown {
    start: String,
    env: Vec<(String, String)>,
    /// Each byte of each stream; `None`: it is redacted.
    streams: [Vec<Option<u8>>; 3],
    /// Sizes and signals, each with the bytes of input before it.
    control: Vec<(usize, String)>,
    exit: Option<Exit>,
    /// The target of each forward, and the bytes sent and received.
    forwards: BTreeMap<u32, (String, Option<(u64, u64)>)>,
    /// True if a record of this kind has no place.
    strange: bool,
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
        let (standing, shown) = judge(&session.expected, &records);
        let holds = standing != Standing::NotProved;
        cases.set(cases.get() + 1);
        verified.set(verified.get() + u32::from(standing == Standing::Verified));
        cut.set(cut.get() + u32::from(standing == Standing::WithoutContent));
        let forged = changes > 0 && session.is_cut && !holds;
        forged_cut.set(forged_cut.get() + u32::from(forged));
        if changes == 0 {
            assert!(holds, "an honest recording is proved");
        }
        if holds {
            assert_eq!(standing == Standing::WithoutContent, session.is_cut);
            assert_same(&session.passed, &shown);
        }
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

/// The device may leave out of the environment what it refuses.
fn assert_same(passed: &Shown, shown: &Shown) {
    let mut sent = passed.env.iter();
    for entry in &shown.env {
        assert!(sent.any(|sent| sent == entry), "{entry:?} was not sent");
    }
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
    assert_eq!(passed.forwards.len(), shown.forwards.len());
    for ((id, (lead, counts)), (shown_id, (shown_lead, shown_counts))) in
        passed.forwards.iter().zip(&shown.forwards)
    {
        assert_eq!((id, lead), (shown_id, shown_lead));
        let (sent, received) = counts.unwrap();
        let (shown_sent, shown_received) = shown_counts.unwrap();
        // How much of what was sent reached the target, the device alone knows.
        assert!(shown_sent <= sent, "{id}: {shown_sent} of {sent}");
        assert_eq!(received, shown_received, "{id}");
    }
    assert!(!shown.strange, "a record that has no place");
}

/// Seals the records as a device would, opens them as the relay does, and gives its verdict and what it shows.
fn judge(expected: &Expectation, records: &[Vec<u8>]) -> (Standing, Shown) {
    let secret = RecordingSecret::from_seed(&[1; 32]);
    let mut out = Vec::new();
    let mut seed = SealSeed::new([2; 32]);
    let first = SegmentLink::first(&SESSION);
    let begun = SegmentWriter::begin(SESSION, 0, first, &secret.public(), &mut seed, &mut out);
    let mut writer = begun.unwrap();
    let mut at = 0_u64;
    for bytes in records {
        let Some(record) = decoded(bytes) else {
            continue;
        };
        at = at.saturating_add(record.delta);
        if writer.push(&record, at, &mut out).is_err() {
            return (Standing::NotProved, Shown::default());
        }
    }
    writer.close(true, &mut out).unwrap();

    let secrets = [secret];
    let mut reader = RecordingReader::new(SESSION, &secrets);
    let mut checker = Checker::new(&KEY, expected);
    let mut shown = Shown::default();
    let read = reader.read_segment(&out, &mut |_, record| {
        checker.handle(record);
        show(&mut shown, &record.event, expected);
    });
    let whole = read.is_ok() && matches!(reader.verdict(), ReadVerdict::Complete { .. });
    let assessment = checker.finish(whole);
    let standing = match (
        assessment.is_proved(),
        assessment.is_proved_without_content(),
    ) {
        (true, _) if whole => Standing::Verified,
        (_, true) if whole => Standing::WithoutContent,
        _ => Standing::NotProved,
    };
    (standing, shown)
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
    let place = match kind {
        RecordedKind::Shell | RecordedKind::Exec => stdin.len(),
        RecordedKind::Sftp | RecordedKind::Forwards => 0,
    };
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
            let bytes = bytes.0.iter().map(|byte| Some(*byte));
            shown.streams[stream.index()].extend(bytes);
        }
        Event::Redacted(redacted) => {
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
        Event::File(_) => shown.strange |= kind != RecordedKind::Sftp,
        Event::ForwardOpened(opened) => {
            let ForwardOpened {
                id,
                to,
                from,
                direction,
                address,
            } = opened;
            let lead = format!("{direction:?} {to} {from} {address:?}");
            let is_second = shown.forwards.insert(*id, (lead, None)).is_some();
            shown.strange |= is_second || kind != RecordedKind::Forwards;
        }
        Event::ForwardClosed(closed) => match shown.forwards.get_mut(&closed.id) {
            Some((_, counts @ None)) => *counts = Some((closed.sent, closed.received)),
            _ => shown.strange = true,
        },
        Event::Gap(_) => shown.strange = true,
        _ => {}
    }
}

/// A session of any kind, on which everything that was sent has arrived.
fn session(random: &mut Random) -> Session {
    let kinds = [
        RecordedKind::Shell,
        RecordedKind::Exec,
        RecordedKind::Sftp,
        RecordedKind::Forwards,
    ];
    let kind = kinds[random.index(4)];
    let command: Vec<u8> = (0..random.pick(1..9_000))
        .map(|n| b'a' + n.to_le_bytes()[0] % 26)
        .collect();
    let request: SessionRequest = match kind {
        RecordedKind::Shell => ProcessRequest::Shell.into(),
        RecordedKind::Exec => ProcessRequest::Exec(command).into(),
        RecordedKind::Sftp => ProcessRequest::Subsystem(SFTP.to_owned()).into(),
        RecordedKind::Forwards => ForwardRequest::Log.into(),
    };
    let pty = (kind == RecordedKind::Shell || random.chance(20)).then(|| Pty {
        term: "xterm".to_owned(),
        size: size(random),
        modes: vec![],
    });
    let env: Vec<(String, String)> = ["LANG", "LC_TIME", "TZ"]
        .into_iter()
        .filter(|_| random.chance(50))
        .map(|name| (name.to_owned(), "C.UTF-8".to_owned()))
        .collect();
    let terms = RecordingTerms {
        mode: [RecordingMode::Strict, RecordingMode::BestEffort][random.index(2)],
        stdin: [StdinMode::Redact, StdinMode::Full, StdinMode::Off][random.index(3)],
        key: KEY,
        recover: random.chance(10),
    };
    let closing = Closing {
        exit: (kind != RecordedKind::Forwards && random.chance(70))
            .then(|| Exit::Status(u32::try_from(random.pick(0..3)).unwrap())),
    };
    let client = SocketAddr::from((Ipv4Addr::LOCALHOST, 4022));
    let (started, rest) = StartedWork::of(&request);
    let holds_data = matches!(kind, RecordedKind::Shell | RecordedKind::Exec);
    let start = RecordingStart {
        session: SESSION,
        device: DeviceId([1; 16]),
        name: DeviceName::new("cam").unwrap(),
        agent: "",
        user: UserName::new("alice").unwrap(),
        login: Login::new("pi").unwrap(),
        work: started,
        terminal: pty.as_ref().map(|pty| RecordedTerminal {
            term: &pty.term,
            size: pty.size,
        }),
        env: env
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .collect(),
        client,
        wall: 0,
        monotonic: 0,
        mode: terms.mode,
        stdin: terms.stdin,
        streams: holds_data,
        volatile: false,
    };
    let mut records = vec![encoded(Event::Start(start))];
    for part in rest.chunks(3_000) {
        records.push(encoded(Event::CommandLine(RecordedBytes(part))));
    }
    let mut chains = Stream::ALL.map(|stream| Chain::new(&KEY, stream));
    let witnesses = Stream::ALL.map(|stream| StreamDigester::new(&KEY, stream));
    let bounded = holds_data && pty.is_none() && random.chance(60);
    let max = bounded.then(|| random.pick(0..100));
    let mut witnesses = witnesses.map(|witness| witness.bounded(max));
    let mut ends = [ContentEnd::new(max); 3];
    let mut is_cut = false;
    let mut control = StreamDigester::control(&KEY);
    let mut eof = None;
    let frames = if kind == RecordedKind::Forwards {
        0
    } else {
        random.pick(0..20)
    };
    for _ in 0..frames {
        let stdin = if holds_data { witnesses[0].frames() } else { 0 };
        if random.chance(20) {
            let (event, sent) = if random.chance(50) {
                let size = size(random);
                (Event::Resize(size), SentControl::Resize(size))
            } else {
                (Event::Signal(Signal::Int), SentControl::Signal(Signal::Int))
            };
            control.update(&sent.frame(stdin), 0);
            records.push(encoded(event));
            continue;
        }
        let stream = Stream::ALL[random.index(3)];
        if eof.is_some() && stream == Stream::Stdin {
            continue;
        }
        let frame: Vec<u8> = (0..random.pick(1..30))
            .map(|_| random.pick(0..256).to_le_bytes()[0])
            .collect();
        let end = &mut ends[stream.index()];
        let had_ended = end.at().is_some();
        end.look(&chains[stream.index()]);
        if let Some(from) = end.at() {
            if !had_ended {
                records.push(encoded(Event::ContentEnds(ContentEnds { stream, from })));
            }
            witnesses[stream.index()].update(&frame, 0);
            chains[stream.index()].update(&frame, 0);
            is_cut = true;
            continue;
        }
        witnesses[stream.index()].update(&frame, 0);
        let tag = chains[stream.index()].update(&frame, 0).unwrap();
        let hides = stream == Stream::Stdin
            && match terms.stdin {
                StdinMode::Full => false,
                StdinMode::Off => true,
                StdinMode::Redact => pty.is_some() && random.chance(30),
            };
        if !holds_data {
            if random.chance(30) {
                records.push(encoded(file(random)));
            }
        } else if hides {
            let length = u32::try_from(frame.len()).unwrap();
            records.push(encoded(Event::Redacted(Redacted { length, tag })));
        } else {
            let (first, rest) = frame.split_at(random.index(frame.len()));
            if !first.is_empty() {
                records.push(encoded(Event::Part(stream, RecordedBytes(first))));
            }
            records.push(encoded(Event::Data(stream, RecordedBytes(rest))));
        }
        if random.chance(5) && eof.is_none() {
            eof = Some(if holds_data { witnesses[0].frames() } else { 0 });
            records.push(encoded(Event::Eof(Stream::Stdin)));
        }
    }
    let given = u32::try_from(random.pick(1..5)).unwrap();
    let mut forwards = SeenForwards {
        given: Some(given),
        ended: BTreeMap::new(),
    };
    if kind == RecordedKind::Forwards {
        let (ids, mut more) = (1..=given, Vec::new());
        for id in ids {
            let (sent, received) = (random.pick(0..200), random.pick(0..200));
            records.push(encoded(forward(id)));
            more.push(encoded(Event::ForwardClosed(ForwardClosed {
                id,
                sent,
                received,
                why: ForwardEnding::Closed,
            })));
            let seen = SeenForward {
                direction: ForwardDirection::Out,
                to: Some("localhost:80".to_owned()),
                from: None,
                address: None,
                sent,
                received,
                opened: true,
                orderly: true,
            };
            forwards.ended.insert(id, seen);
        }
        records.append(&mut more);
    } else if let Some(exit) = closing
        .exit
        .or(random.chance(50).then_some(Exit::Status(9)))
    {
        records.push(encoded(Event::Exit(exit)));
    }
    records.push(encoded(Event::End(RecordingEnd {
        why: EndReason::Exited,
        streams: chains.each_ref().map(Chain::point),
    })));
    let expected = Expectation {
        user: UserName::new("alice").unwrap(),
        device: DeviceId([1; 16]),
        login: Login::new("pi").unwrap(),
        client,
        kind,
        begun: Some(SessionStart::of(&request, pty.as_ref(), &env, &terms)),
        seen: witnesses.each_ref().map(StreamDigester::seen),
        control: Some(ControlDigest {
            seen: control.seen(),
            eof,
        }),
        content: max.map(|max| ContentPoints {
            max,
            ends: witnesses.each_ref().map(StreamDigester::content_end),
        }),
        closing: Some(closing),
        forwards: (kind == RecordedKind::Forwards).then_some(forwards),
    };
    let mut passed = Shown::default();
    for bytes in &records {
        show(&mut passed, &decoded(bytes).unwrap().event, &expected);
    }
    Session {
        expected,
        passed,
        is_cut,
        records,
    }
}

/// Changes, drops, repeats, moves or adds something.
fn change(random: &mut Random, records: &mut Vec<Vec<u8>>) {
    if records.is_empty() {
        return records.push(anything(random));
    }
    let at = random.index(records.len());
    let other = random.index(records.len());
    match random.index(8) {
        0 => drop(records.remove(at)),
        1 => records.insert(other, records[at].clone()),
        2 => records.swap(at, other),
        3 => records.insert(at, anything(random)),
        4 => records[at] = anything(random),
        5 => edit(random, &mut records[at]),
        6 => end_content(random, records, at),
        _ => bend(random, &mut records[at]),
    }
}

/// Says that the content of a stream ends there, and leaves the rest of it out.
fn end_content(random: &mut Random, records: &mut Vec<Vec<u8>>, at: usize) {
    let stream = Stream::ALL[random.index(3)];
    let rest = records.split_off(at);
    let from = DigestPoint::default();
    records.push(encoded(Event::ContentEnds(ContentEnds { stream, from })));
    let is_of = |bytes: &Vec<u8>| match decoded(bytes).map(|record| record.event) {
        Some(Event::Data(of, _) | Event::Part(of, _)) => of == stream,
        Some(Event::Redacted(_)) => stream == Stream::Stdin,
        Some(Event::ContentEnds(ends)) => ends.stream == stream,
        _ => false,
    };
    records.extend(rest.into_iter().filter(|bytes| !is_of(bytes)));
}

/// Changes a field of the start, or of whatever it is.
fn edit(random: &mut Random, bytes: &mut Vec<u8>) {
    let Some(record) = decoded(bytes) else {
        return;
    };
    let mut bob = Vec::new();
    let event = match record.event {
        Event::Start(mut start) => {
            match random.index(11) {
                0 => start.user = UserName::new("bob").unwrap(),
                1 => start.login = Login::new("root").unwrap(),
                2 => start.device = DeviceId([2; 16]),
                3 => start.client.set_port(1),
                4 => start.streams = !start.streams,
                5 => start.work = StartedWork::Shell,
                6 => start.terminal = None,
                7 => start.env.push(("EVIL", "1")),
                8 => start.env = start.env.into_iter().rev().collect(),
                9 => start.mode = RecordingMode::BestEffort,
                _ => start.stdin = StdinMode::Off,
            }
            Event::Start(start)
        }
        Event::Data(stream, data) => {
            bob.extend_from_slice(data.0);
            bob.push(b'!');
            Event::Data(stream, RecordedBytes(&bob))
        }
        Event::Redacted(redacted) => Event::Redacted(Redacted {
            length: redacted.length.wrapping_add(1) % 1_000,
            ..redacted
        }),
        other => other,
    };
    *bytes = encoded(event);
}

/// Changes any byte behind the record's length, as long as it stays a record.
fn bend(random: &mut Random, bytes: &mut Vec<u8>) {
    let Some(record) = decoded(bytes) else {
        return;
    };
    let mut plain = Vec::new();
    record.encode(&mut plain).unwrap();
    let at = random.index(plain.len());
    plain[at] ^= 1 << random.index(8);
    if let Some(bent) = decoded(&plain)
        && bent.delta < 1 << 40
    {
        *bytes = plain;
    }
}

/// Makes gaps, the ends of content and the end say what the records lead to, as a device can that has the key. Where
/// the content of a stream has ended, the end says what it said.
fn refit(records: &mut [Vec<u8>]) {
    let mut chains = Stream::ALL.map(|stream| Chain::new(&KEY, stream));
    let mut has_ended = [false; 3];
    for bytes in records {
        let Some(record) = decoded(bytes) else {
            continue;
        };
        let points = chains.each_ref().map(Chain::point);
        let event = match record.event {
            Event::Data(stream, data) => {
                chains[stream.index()].update(data.0, 0);
                continue;
            }
            Event::Part(stream, data) => {
                chains[stream.index()].update(data.0, 1);
                continue;
            }
            Event::Redacted(redacted) => {
                chains[0].append(u64::from(redacted.length), &redacted.tag);
                continue;
            }
            Event::Gap(gap) => Event::Gap(Gap {
                after: points,
                bytes: [0; 3],
                ..gap
            }),
            Event::ContentEnds(ends) => {
                has_ended[ends.stream.index()] = true;
                Event::ContentEnds(ContentEnds {
                    from: points[ends.stream.index()],
                    ..ends
                })
            }
            Event::End(end) => {
                let [a, b, c] = [0, 1, 2].map(|index: usize| match has_ended[index] {
                    true => end.streams[index],
                    false => points[index],
                });
                Event::End(RecordingEnd {
                    streams: [a, b, c],
                    ..end
                })
            }
            _ => continue,
        };
        *bytes = encoded(event);
    }
}

/// A record of any kind.
fn anything(random: &mut Random) -> Vec<u8> {
    let stream = Stream::ALL[random.index(3)];
    encoded(match random.index(18) {
        0 => Event::CommandLine(RecordedBytes(b" more")),
        1 => Event::Data(stream, RecordedBytes(b"invented")),
        2 => Event::Part(stream, RecordedBytes(b"invented")),
        3 => Event::Data(stream, RecordedBytes(b"")),
        4 => Event::Redacted(Redacted {
            length: u32::try_from(random.pick(0..3)).unwrap(),
            tag: [7; 32],
        }),
        5 => Event::Eof(stream),
        6 => Event::Resize(size(random)),
        7 => Event::Signal(Signal::Term),
        8 => Event::Exit(Exit::Status(1)),
        9 => file(random),
        10 => forward(u32::try_from(random.pick(0..7)).unwrap()),
        11 => Event::ForwardClosed(ForwardClosed {
            id: u32::try_from(random.pick(0..7)).unwrap(),
            sent: random.pick(0..200),
            received: random.pick(0..200),
            why: [ForwardEnding::Closed, ForwardEnding::StillOpen][random.index(2)],
        }),
        12 => Event::Gap(Gap {
            micros: 0,
            bytes: [0, random.pick(0..3), 0],
            after: [DigestPoint::default(); 3],
            records: random.pick(0..2),
            why: GapReason::SpoolFull,
        }),
        13 => Event::Command(CommandRun {
            pid: 1,
            parent: 2,
            argv: vec![RecordedBytes(b"true")],
            cut: false,
            cwd: None,
        }),
        14 => Event::CommandExit(CommandExit {
            pid: 1,
            exit: Exit::Status(0),
        }),
        15 => Event::CommandsUnavailable("no reason"),
        16 => Event::ContentEnds(ContentEnds {
            stream,
            from: DigestPoint::default(),
        }),
        _ => Event::End(RecordingEnd {
            why: EndReason::ClientGone,
            streams: [DigestPoint::default(); 3],
        }),
    })
}

fn size(random: &mut Random) -> WindowSize {
    let columns = u32::try_from(random.pick(1..200)).unwrap();
    WindowSize::clamped(columns, 24, 0, 0)
}

fn file(random: &mut Random) -> Event<'static> {
    Event::File(FileOperation {
        kind: [FileKind::Read, FileKind::Remove][random.index(2)],
        path: RecordedBytes(b"/etc/passwd"),
        other: None,
        size: 1,
        result: 0,
    })
}

fn forward(id: u32) -> Event<'static> {
    Event::ForwardOpened(ForwardOpened {
        id,
        to: "localhost:80",
        from: "",
        direction: ForwardDirection::Out,
        address: None,
    })
}
