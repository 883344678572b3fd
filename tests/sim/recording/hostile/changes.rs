//! The changes that a device that has the key may make to a recording before it seals it.

use holdfast_protocol::ids::{DeviceId, Login, UserName};
use holdfast_protocol::recording::chain::{Chain, DigestPoint};
use holdfast_protocol::recording::record::{
    CommandExit, CommandRun, ContentEnds, EndReason, EnvironmentRefused, Event, FileOperation,
    ForwardClosed, ForwardDirection, ForwardEnding, ForwardOpened, Gap, GapReason, RecordedBytes,
    RecordingEnd, RecordingStart, Redacted, StartedWork, Stream,
};
use holdfast_protocol::sftp::{FileAction, FileOutcome, Operation};
use holdfast_protocol::wire::{Exit, RecordingMode, Signal, StdinMode, WindowSize};

use super::super::world::start;
use super::{KEY, SESSION, decoded, encoded};
use crate::random::Random;

/// Changes, drops, repeats, moves or adds something.
pub(super) fn change(random: &mut Random, records: &mut Vec<Vec<u8>>) {
    if records.is_empty() {
        return records.push(anything(random));
    }
    let at = random.index(records.len());
    let other = random.index(records.len());
    match random.index(9) {
        8 => forge_before_gap(records, at),
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

/// Puts invented output in place of some of the true one, and a gap with the true points behind that.
fn forge_before_gap(records: &mut Vec<Vec<u8>>, at: usize) {
    let mut chains = Stream::ALL.map(|stream| Chain::new(&KEY, stream));
    for bytes in &records[..at] {
        match decoded(bytes).map(|record| record.event) {
            Some(Event::Data(stream, data)) => {
                chains[stream.index()].update(data.0, 0);
            }
            Some(Event::Part(stream, data)) => {
                chains[stream.index()].update(data.0, 1);
            }
            Some(Event::Redacted(redacted)) => {
                chains[0].append(u64::from(redacted.length), &redacted.tag);
            }
            _ => {}
        }
    }
    let mut invented = 0;
    for bytes in &mut records[..at] {
        let Some(Event::Data(Stream::Stdout, data)) = decoded(bytes).map(|record| record.event)
        else {
            continue;
        };
        invented += 1;
        // The last of it is missing.
        let length = data
            .0
            .len()
            .saturating_sub(usize::from(invented == 1))
            .max(1);
        let forged = vec![b'#'; length];
        *bytes = encoded(Event::Part(Stream::Stdout, RecordedBytes(&forged)));
    }
    let after = chains.each_ref().map(Chain::point);
    let stdout = |records: &[Vec<u8>]| -> u64 {
        let each = records
            .iter()
            .map(|bytes| match decoded(bytes).map(|record| record.event) {
                Some(Event::Data(Stream::Stdout, data) | Event::Part(Stream::Stdout, data)) => {
                    data.0.len() as u64
                }
                Some(Event::Gap(gap)) => gap.bytes[1],
                _ => 0,
            });
        each.fold(0, u64::saturating_add)
    };
    let missing = after[1].bytes.saturating_sub(stdout(&records[..at]));
    let gap = Gap {
        micros: 0,
        bytes: [0, missing, 0],
        after,
        records: 0,
        why: GapReason::SpoolFull,
    };
    records.insert(at, encoded(Event::Gap(gap)));
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
        Event::File(file) => {
            let mut file = file.clone();
            match random.index(4) {
                0 => file.path = RecordedBytes(b"/harmless"),
                1 => file.size ^= 1,
                2 => file.result ^= 4,
                _ => file.other = None,
            }
            Event::File(file)
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
pub(super) fn refit(records: &mut [Vec<u8>]) {
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
    encoded(match random.index(21) {
        9 => return file(random),
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
        17 => Event::FilesUnfollowed("no reason"),
        18 => Event::EnvironmentRefused(EnvironmentRefused {
            names: vec![["LANG", "EVIL"][random.index(2)]],
            more: 0,
        }),
        19 => another_start(),
        _ => Event::End(RecordingEnd {
            why: EndReason::ClientGone,
            streams: [DigestPoint::default(); 3],
        }),
    })
}

pub(super) fn size(random: &mut Random) -> WindowSize {
    let columns = u32::try_from(random.pick(1..200)).unwrap();
    WindowSize::clamped(columns, 24, 0, 0)
}

/// An operation of sftp that ends so.
pub(super) fn operation(random: &mut Random, outcome: FileOutcome) -> Operation {
    let action = [
        FileAction::Read,
        FileAction::Write,
        FileAction::Remove,
        FileAction::Rename,
    ][random.index(4)];
    let is_file = matches!(action, FileAction::Read | FileAction::Write);
    let bytes = |random: &mut Random| if is_file { random.pick(0..3) } else { 0 };
    Operation {
        action,
        path: [b"/etc/passwd", b"/etc/shadow"][random.index(2)].to_vec(),
        to: (action == FileAction::Rename).then(|| b"/tmp/x".to_vec()),
        outcome,
        read: bytes(random),
        written: bytes(random),
    }
}

/// The record of any operation.
fn file(random: &mut Random) -> Vec<u8> {
    let outcome = [FileOutcome::OK, FileOutcome::NotAnswered][random.index(2)].clone();
    let operation = operation(random, outcome);
    let record = FileOperation::of(&operation).last().unwrap();
    encoded(Event::File(record))
}

fn forward(id: u32) -> Event<'static> {
    Event::ForwardOpened(opened(id))
}

pub(super) fn opened(id: u32) -> ForwardOpened<'static> {
    ForwardOpened {
        id,
        to: "localhost:80",
        from: "",
        direction: ForwardDirection::Out,
        address: None,
    }
}

/// The start of a shell that holds its data.
fn another_start() -> Event<'static> {
    Event::Start(RecordingStart {
        stdin: StdinMode::Full,
        ..start(SESSION, RecordingMode::BestEffort)
    })
}
