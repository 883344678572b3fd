//! A recording from anywhere: scanning must not depend on the cuts, reading must not panic, and records
//! that decode must encode and decode to themselves. Half of the inputs are true recordings that were
//! bent, with their checks mended, so that what is behind the checks is reached.
#![no_main]

use std::net::SocketAddr;

use holdfast_protocol::ids::{DeviceId, Login, SessionId, UserName};
use holdfast_protocol::recording::chain::{
    ChainKey, Checker, Closing, ContentPoints, ControlDigest, Expectation, RecordedKind,
    StreamDigest,
};
use holdfast_protocol::recording::reader::{ReadVerdict, RecordingReader};
use holdfast_protocol::recording::record::{self, Event, Record, RecordedBytes, Stream};
use holdfast_protocol::recording::scan::{ExpectedSegment, SegmentScan};
use holdfast_protocol::recording::seal::{RecordingSecret, SealSeed};
use holdfast_protocol::recording::segment::{SegmentLink, SegmentWriter};
use libfuzzer_sys::fuzz_target;

const SESSION: SessionId = SessionId([0x5a; 16]);

fuzz_target!(|input: (u8, Vec<&[u8]>, u16, u8)| {
    let (cut, parts, at, bit) = input;
    let bytes = parts.concat();
    check_records(&bytes);
    check_scan(&bytes, usize::from(cut) + 1);
    read(&bytes);
    let mut segment = write(&parts);
    check_scan(&segment, usize::from(cut) + 1);
    let index = usize::from(at) % segment.len();
    segment[index] ^= bit;
    let verdict = read(&segment);
    assert!(bit == 0 || !matches!(verdict, ReadVerdict::Complete { .. }));
    check_scan(&segment, usize::from(cut) + 1);
});

fn check_records(bytes: &[u8]) {
    let mut input = bytes;
    while let Ok((delta, event)) = record::decode(&mut input) {
        let Some(event) = event else { continue };
        let record = Record { delta, event };
        let mut again = Vec::new();
        // A record may be longer encoded than it came only if it was not canonical.
        if record.encode(&mut again).is_ok() {
            let mut again = again.as_slice();
            assert_eq!(record::decode(&mut again), Ok((delta, Some(record.event))));
        }
    }
}

fn check_scan(bytes: &[u8], cut: usize) {
    assert_eq!(scan(bytes, bytes.len().max(1)), scan(bytes, cut));
}

fn scan(bytes: &[u8], cut: usize) -> (usize, Option<String>, u64) {
    let mut scan = SegmentScan::new(ExpectedSegment::default());
    let mut blocks = 0;
    for mut part in bytes.chunks(cut) {
        loop {
            match scan.read(&mut part) {
                Ok(Some(_)) => blocks += 1,
                Ok(None) => break,
                Err(fault) => return (blocks, Some(fault.to_string()), scan.whole()),
            }
        }
    }
    assert_eq!(scan.whole() + scan.torn() as u64, bytes.len() as u64);
    (blocks, None, scan.whole())
}

fn read(bytes: &[u8]) -> ReadVerdict {
    let secrets = [RecordingSecret::from_seed(&[1; 32])];
    let seen: [StreamDigest; 3] = Default::default();
    let key = ChainKey([3; 32]);
    let expected = Expectation {
        user: UserName::new("alice").unwrap(),
        device: DeviceId([1; 16]),
        login: Login::new("pi").unwrap(),
        client: SocketAddr::from(([127, 0, 0, 1], 4022)),
        kind: RecordedKind::Shell,
        begun: None,
        seen,
        control: Some(ControlDigest::default()),
        content: Some(ContentPoints {
            max: 16,
            ends: [None; 3],
        }),
        closing: Some(Closing::default()),
        forwards: None,
        files: None,
    };
    let mut checker = Checker::new(&key, &expected);
    let mut reader = RecordingReader::new(SESSION, &secrets);
    let _ = reader.read_segment(bytes, &mut |_, record| checker.handle(record));
    if let Some(mut behind) = reader.behind() {
        behind.read_segment(bytes, &mut |_, _| {});
    }
    let whole = matches!(reader.verdict(), ReadVerdict::Complete { .. });
    let _ = checker.finish(whole);
    reader.verdict()
}

/// A segment whose text is the input's: as records where it is some, or as output.
fn write(parts: &[&[u8]]) -> Vec<u8> {
    let (key, mut seed) = (
        RecordingSecret::from_seed(&[1; 32]).public(),
        SealSeed::new([2; 32]),
    );
    let mut out = Vec::new();
    let first = SegmentLink::first(&SESSION);
    let mut writer = SegmentWriter::begin(SESSION, 0, first, &key, &mut seed, &mut out).unwrap();
    for part in parts {
        let mut input = *part;
        while let Ok((delta, Some(event))) = record::decode(&mut input) {
            let _ = writer.push(&Record { delta, event }, 0, &mut out);
        }
        let event = Event::Data(Stream::Stdout, RecordedBytes(input));
        let _ = writer.push(&Record { delta: 1, event }, 0, &mut out);
        writer.flush(&mut out).unwrap();
    }
    writer.close(true, &mut out).unwrap();
    out
}
