//! Golden files of a whole recording, written once and read for ever: `golden/*.hex`, a segment each.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::tests::{SESSION, end, secret, start};
use super::*;
use crate::ids::SessionId;
use crate::recording::record::{RecordedBytes, Stream};
use crate::recording::seal::SealSeed;
use crate::recording::segment::SegmentWriter;

const FILES: [&str; 2] = [
    include_str!("golden/v1-segment-0.hex"),
    include_str!("golden/v1-segment-1.hex"),
];

fn written() -> Vec<Vec<u8>> {
    let (key, mut seed) = (secret().public(), SealSeed::new([9; 32]));
    let text = "ls -l\r\ntotal 4\r\n".repeat(20);
    let mut segments = vec![];
    let mut before = SegmentLink::first(&SESSION);
    for index in 0..2 {
        let mut out = vec![];
        let mut writer =
            SegmentWriter::begin(SESSION, index, before, &key, &mut seed, &mut out).unwrap();
        let mut push = |delta: u64, at: u64, event| {
            writer.push(&Record { delta, event }, at, &mut out).unwrap();
        };
        if index == 0 {
            push(0, 0, start(SESSION));
            push(
                1_500,
                1_500,
                Event::Data(Stream::Stdout, RecordedBytes(text.as_bytes())),
            );
        } else {
            push(
                200,
                1_700,
                Event::Data(Stream::Stdin, RecordedBytes(b"exit\r")),
            );
            push(300, 2_000, end());
        }
        before = writer.close(index == 1, &mut out).unwrap();
        segments.push(out);
    }
    segments
}

fn hex(bytes: &[u8]) -> String {
    let lines = bytes.chunks(32).map(|line| {
        let line: String = line.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{line}\n")
    });
    lines.collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|digit| u8::try_from(digit.to_digit(16)?).ok())
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] * 16 + pair[1])
        .collect()
}

#[test]
fn a_recording_has_its_bytes() {
    for (segment, file) in written().iter().zip(FILES) {
        assert_eq!(hex(segment), file);
    }
}

#[test]
fn the_recordings_of_version_1_are_read() {
    let secrets = [secret()];
    let mut reader = RecordingReader::new(SESSION, &secrets);
    let mut seen: Vec<(u64, String)> = vec![];
    for file in FILES {
        let outcome = reader.read_segment(&unhex(file), &mut |at, record| {
            let text = match &record.event {
                Event::Data(stream, bytes) => {
                    format!("{stream:?} {}", core::str::from_utf8(bytes.0).unwrap())
                }
                event => format!("{event:?}"),
            };
            seen.push((at, text.chars().take(20).collect()));
        });
        assert_eq!(outcome, Ok(()));
    }
    let complete = ReadVerdict::Complete {
        why: EndReason::Exited,
    };
    assert_eq!(reader.verdict(), complete);
    let seen: Vec<(u64, &str)> = seen.iter().map(|(at, text)| (*at, text.as_str())).collect();
    let expected = [
        (0, "Start(Start { sessio"),
        (1_500, "Stdout ls -l\r\ntotal "),
        (1_700, "Stdin exit\r"),
        (2_000, "End(RecordingEnd { w"),
    ];
    assert_eq!(seen, expected);
    assert_eq!(SESSION, SessionId([0x5a; 16]));
}
