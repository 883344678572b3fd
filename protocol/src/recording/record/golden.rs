//! Golden bytes of every record. Recordings are kept for years: a test here that fails means a change that
//! makes them unreadable, never a test to be mended.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use core::net::SocketAddr;

use super::*;

#[track_caller]
fn golden(event: Event<'_>, bytes: &str) -> u8 {
    let record = Record { delta: 300, event };
    let mut encoded = vec![];
    record.encode(&mut encoded).unwrap();
    let hex: String = encoded.iter().map(|byte| format!("{byte:02x}")).collect();
    let expected: String = bytes.split_whitespace().collect();
    assert_eq!(hex, expected, "{:?}", record.event);
    let mut input = encoded.as_slice();
    assert_eq!(decode(&mut input), Ok((300, Some(record.event))));
    assert!(input.is_empty());
    let Ok((_, kind)) = postcard::take_from_bytes::<u64>(&encoded[1..]) else {
        panic!("no delta");
    };
    kind[0]
}

fn point(n: u8) -> DigestPoint {
    DigestPoint {
        frames: u64::from(n),
        bytes: 300,
        value: [n; 32],
    }
}

fn hex32(byte: &str) -> String {
    byte.repeat(32)
}

#[test]
fn every_record_has_its_bytes() {
    let client: SocketAddr = "192.0.2.7:41822".parse().unwrap();
    let start = RecordingStart {
        session: SessionId([0x5a; 16]),
        device: DeviceId([0xd1; 16]),
        name: DeviceName::new("cam").unwrap(),
        agent: "0.1",
        user: UserName::new("alice").unwrap(),
        login: Login::new("pi").unwrap(),
        work: StartedWork::Exec {
            length: 2,
            head: RecordedBytes(b"ls"),
        },
        terminal: Some(RecordedTerminal {
            term: "vt",
            size: WindowSize::clamped(80, 24, 0, 0),
        }),
        env: vec![("LANG", "C")],
        client,
        wall: -1,
        monotonic: 300,
        mode: RecordingMode::BestEffort,
        stdin: StdinMode::Full,
        streams: true,
        volatile: false,
    };
    let [p1, p2, p3] = [1, 2, 3].map(point);
    let points = ["01", "02", "03"]
        .map(|n| format!("{n} ac02 {}", hex32(n)))
        .concat();
    let file = FileOperation {
        kind: FileKind::Rename,
        path: RecordedBytes(b"a"),
        other: Some(RecordedBytes(b"b")),
        size: 300,
        result: 4,
    };
    let command = CommandRun {
        pid: 300,
        parent: 1,
        argv: vec![RecordedBytes(b"ls"), RecordedBytes(b"-l")],
        cut: false,
        cwd: Some(RecordedBytes(b"/")),
    };
    let gap = Gap {
        micros: 300,
        bytes: [1, 2, 3],
        after: [p1, p2, p3],
        records: 4,
        why: GapReason::DiskFull,
    };
    let kinds = [
        golden(
            Event::Start(start),
            "58 ac02 00 5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1 03 63616d 03 302e31 05 616c696365 02 7069 01 02 02 6c73 01 02 7674 50 18 00 00 01 04 4c414e47 01 43 00 c0000207 dec602 01 ac02 01 01 01 00",
        ),
        golden(Event::CommandLine(RecordedBytes(b"x")), "05 ac02 01 01 78"),
        golden(
            Event::Data(Stream::Stdout, RecordedBytes(b"hi")),
            "07 ac02 02 01 02 6869",
        ),
        golden(
            Event::Part(Stream::Stderr, RecordedBytes(b"hi")),
            "07 ac02 03 02 02 6869",
        ),
        golden(
            Event::Redacted(Redacted {
                length: 9,
                tag: [7; 32],
            }),
            &format!("24 ac02 04 09 {}", hex32("07")),
        ),
        golden(Event::Eof(Stream::Stdin), "04 ac02 05 00"),
        golden(
            Event::Resize(WindowSize::clamped(300, 24, 0, 0)),
            "08 ac02 06 ac02 18 00 00",
        ),
        golden(Event::Signal(Signal::Int), "04 ac02 07 05"),
        golden(Event::Exit(Exit::Status(255)), "06 ac02 08 00 ff01"),
        golden(Event::File(file), "0c ac02 09 06 01 61 01 01 62 ac02 04"),
        golden(
            Event::ForwardOpened(ForwardOpened {
                id: 1,
                to: "a:1",
                from: "b",
                direction: ForwardDirection::In,
                address: Some(client),
            }),
            "14 ac02 0a 01 03 613a31 01 62 02 01 00 c0000207 dec602",
        ),
        golden(
            Event::ForwardClosed(ForwardClosed {
                id: 1,
                sent: 2,
                received: 300,
                why: ForwardEnding::TunnelLost,
            }),
            "08 ac02 0b 01 02 ac02 03",
        ),
        golden(
            Event::Gap(gap),
            &format!("73 ac02 0c ac02 01 02 03 {points} 04 01"),
        ),
        golden(
            Event::Command(command),
            "11 ac02 0d ac02 01 02 02 6c73 02 2d6c 00 01 01 2f",
        ),
        golden(
            Event::CommandExit(CommandExit {
                pid: 300,
                exit: Exit::Status(0),
            }),
            "07 ac02 0e ac02 00 00",
        ),
        golden(Event::CommandsUnavailable("no"), "06 ac02 0f 02 6e6f"),
        golden(
            Event::End(RecordingEnd {
                why: EndReason::SpoolFull,
                streams: [p1, p2, p3],
            }),
            &format!("6d ac02 10 04 {points}"),
        ),
        golden(Event::FilesUnfollowed("no"), "06 ac02 11 02 6e6f"),
        golden(
            Event::EnvironmentRefused(EnvironmentRefused {
                names: vec!["A", "B2"],
                more: 300,
            }),
            "0b ac02 12 02 01 41 02 4232 ac02",
        ),
        golden(
            Event::ContentEnds(ContentEnds {
                stream: Stream::Stdout,
                from: p2,
            }),
            &format!("27 ac02 13 01 02 ac02 {}", hex32("02")),
        ),
    ];
    let all: Vec<u8> = (0..KNOWN_EVENTS).collect();
    assert_eq!(kinds.as_slice(), all, "every kind, in its order");
}

#[test]
fn what_was_written_before_a_field_was_appended_is_read() {
    let old: [(&[u8], Event<'_>); 3] = [
        (
            b"\x0a\xac\x02\x0a\x01\x03a:1\x01b",
            Event::ForwardOpened(ForwardOpened {
                id: 1,
                to: "a:1",
                from: "b",
                direction: ForwardDirection::Out,
                address: None,
            }),
        ),
        // One of the two that are there.
        (
            b"\x0b\xac\x02\x0a\x01\x03a:1\x01b\x01",
            Event::ForwardOpened(ForwardOpened {
                id: 1,
                to: "a:1",
                from: "b",
                direction: ForwardDirection::Listen,
                address: None,
            }),
        ),
        (
            b"\x07\xac\x02\x0b\x01\x02\xac\x02",
            Event::ForwardClosed(ForwardClosed {
                id: 1,
                sent: 2,
                received: 300,
                why: ForwardEnding::Closed,
            }),
        ),
    ];
    for (mut bytes, event) in old {
        assert_eq!(decode(&mut bytes), Ok((300, Some(event))));
        assert!(bytes.is_empty());
    }
}
