//! Sessions as the relay knows them, each with an honest recording.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use holdfast_protocol::ids::{DeviceId, DeviceName, Login, UserName};
use holdfast_protocol::recording::chain::{
    Chain, Closing, ContentEnd, ContentPoints, ControlDigest, Expectation, FileDigester,
    RecordedKind, SeenForward, SeenForwards, SentControl, SessionStart, StreamDigester,
};
use holdfast_protocol::recording::record::{
    ContentEnds, EndReason, EnvironmentRefused, Event, FileOperation, ForwardClosed,
    ForwardDirection, ForwardEnding, RecordedBytes, RecordedTerminal, RecordingEnd, RecordingStart,
    Redacted, StartedWork, Stream,
};
use holdfast_protocol::sftp::{FileOutcome, Followed, PossibleOperations};
use holdfast_protocol::wire::{
    Exit, ForwardRequest, ProcessRequest, Pty, RecordingMode, RecordingTerms, SFTP, SessionRequest,
    Signal, StdinMode,
};

use super::changes::{opened, operation, size};
use super::{KEY, SESSION, Session, Shown, decoded, encoded, show};
use crate::random::Random;

/// A session of any kind, on which everything that was sent has arrived.
pub(super) fn session(random: &mut Random) -> Session {
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
        RecordedKind::Sftp if random.chance(30) => {
            ProcessRequest::Subsystem("netconf".to_owned()).into()
        }
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
    let is_set: Vec<bool> = env.iter().map(|_| random.chance(70)).collect();
    let is_short = random.chance(15);
    let closing = Closing {
        exit: (kind != RecordedKind::Forwards && random.chance(70))
            .then(|| Exit::Status(u32::try_from(random.pick(0..3)).unwrap())),
    };
    let client = SocketAddr::from((Ipv4Addr::LOCALHOST, 4022));
    let (started, rest) = StartedWork::of(&request);
    let begun = SessionStart::of(&request, pty.as_ref(), &env, &terms);
    let holds_data = kind.holds_data(Some(&begun));
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
            .zip(&is_set)
            .filter(|(_, is_set)| **is_set)
            .map(|((name, value), _)| (&**name, &**value))
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
    let entries = env.iter().zip(&is_set).filter(|(_, is_set)| !**is_set);
    let names: Vec<&str> = entries.map(|((name, _), _)| &**name).collect();
    if !names.is_empty() {
        let refused = EnvironmentRefused { names, more: 0 };
        records.push(encoded(Event::EnvironmentRefused(refused)));
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
    let mut files = FileDigester::new(&KEY, true);
    let frames = if kind == RecordedKind::Forwards {
        0
    } else {
        random.pick(0..20)
    };
    let mut kept = None;
    let kept_until = random.pick(0..frames + 1);
    for number in 0..frames {
        if number == kept_until {
            kept = Some((witnesses.clone(), control.clone(), eof, files.clone()));
        }
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
            if kind == RecordedKind::Sftp && random.chance(50) {
                let operation = operation(random, FileOutcome::OK);
                for record in FileOperation::of(&operation) {
                    records.push(encoded(Event::File(record)));
                }
                files.follow(&[Followed::Operation(operation)]);
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
    if kind == RecordedKind::Sftp && !holds_data {
        let outcomes = [FileOutcome::NotAnswered, FileOutcome::NotClosed];
        let count = random.index(4);
        let left: Vec<_> = (0..count)
            .map(|_| {
                let outcome = outcomes[random.index(2)].clone();
                operation(random, outcome)
            })
            .collect();
        for operation in &left {
            for record in FileOperation::of(operation) {
                records.push(encoded(Event::File(record)));
            }
        }
        let left: Vec<_> = left.into_iter().map(Followed::Operation).collect();
        let possible = PossibleOperations {
            operations: vec![],
            is_complete: random.chance(80),
        };
        files.finish(&left, &possible);
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
            let mut seen = SeenForward {
                direction: ForwardDirection::Out,
                to: Some("localhost:80".to_owned()),
                from: None,
                address: None,
                sent,
                received,
                opened: true,
                orderly: random.chance(70),
            };
            let mut opened = opened(id);
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 80));
            match random.index(3) {
                0 => {}
                1 => {
                    (seen.direction, opened.direction) =
                        (ForwardDirection::Listen, ForwardDirection::Listen);
                    (seen.address, opened.address) = (Some(address), Some(address));
                }
                _ => {
                    (seen.direction, opened.direction) =
                        (ForwardDirection::In, ForwardDirection::In);
                    (seen.to, seen.from) = (None, Some(address));
                    opened.from = "127.0.0.1:80";
                }
            }
            records.push(encoded(Event::ForwardOpened(opened)));
            let behind_a_cut = if seen.orderly { 0 } else { random.pick(0..9) };
            more.push(encoded(Event::ForwardClosed(ForwardClosed {
                id,
                sent,
                received: received + behind_a_cut,
                why: ForwardEnding::Closed,
            })));
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
    let mut closing = Some(closing).filter(|_| random.chance(85));
    let all = (witnesses, control, eof, files);
    let (witnesses, control, eof, files) = match kept.filter(|_| is_short) {
        Some(kept) => {
            closing = None;
            kept
        }
        None => all,
    };
    let expected = Expectation {
        user: UserName::new("alice").unwrap(),
        device: DeviceId([1; 16]),
        login: Login::new("pi").unwrap(),
        client,
        kind,
        begun: Some(begun),
        seen: witnesses.each_ref().map(StreamDigester::seen),
        control: Some(ControlDigest {
            seen: control.seen(),
            eof,
        }),
        content: max.map(|max| ContentPoints {
            max,
            ends: witnesses.each_ref().map(StreamDigester::content_end),
        }),
        closing,
        forwards: (kind == RecordedKind::Forwards).then_some(forwards),
        files: (kind == RecordedKind::Sftp && !holds_data).then(|| files.seen()),
    };
    let mut passed = Shown::default();
    for bytes in &records {
        show(&mut passed, &decoded(bytes).unwrap().event, &expected);
    }
    passed.env = env;
    Session {
        expected,
        passed,
        is_cut,
        is_short,
        records,
    }
}
