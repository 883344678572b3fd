use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use core::net::{Ipv4Addr, SocketAddr};

use proptest::prelude::*;

use super::*;
use crate::ids::{DeviceId, DeviceName, Login, UserName};
use crate::limits::{MAX_BLOCK_PLAIN, MAX_RECORD_DATA, MAX_SEGMENT};
use crate::recording::chain::DigestPoint;
use crate::recording::record::{RecordedBytes, RecordingStart, StartedWork, Stream};
use crate::recording::seal::SealSeed;
use crate::recording::segment::{BLOCK_HEAD_LEN, HEADER_LEN, SegmentWriter};
use crate::wire::{RecordingMode, StdinMode};

pub(super) const SESSION: SessionId = SessionId([0x5a; 16]);

pub(super) fn secret() -> RecordingSecret {
    RecordingSecret::from_seed(&[1; 32])
}

pub(in crate::recording) fn start(session: SessionId) -> Event<'static> {
    Event::Start(RecordingStart {
        session,
        device: DeviceId([0xd1; 16]),
        name: DeviceName::new("cam").unwrap(),
        agent: "0.1.0",
        user: UserName::new("alice").unwrap(),
        login: Login::new("pi").unwrap(),
        work: StartedWork::Shell,
        terminal: None,
        env: vec![],
        client: SocketAddr::from((Ipv4Addr::LOCALHOST, 4022)),
        wall: 1_700_000_000_000_000,
        monotonic: 0,
        mode: RecordingMode::Strict,
        stdin: StdinMode::Redact,
        streams: true,
        volatile: false,
    })
}

pub(super) fn end() -> Event<'static> {
    Event::End(RecordingEnd {
        why: EndReason::Exited,
        streams: [DigestPoint::default(); 3],
    })
}

/// Writes a recording of so many segments, each of so many blocks with so many records of output.
pub(super) fn write(
    session: SessionId,
    segments: u32,
    blocks: u32,
    text: &dyn Fn(u32) -> String,
) -> Vec<Vec<u8>> {
    let (key, mut seed) = (secret().public(), SealSeed::new([9; 32]));
    let mut before = SegmentLink::first(&session);
    let mut written = vec![];
    let mut micros = 0;
    for index in 0..segments {
        let mut out = vec![];
        let mut writer =
            SegmentWriter::begin(session, index, before, &key, &mut seed, &mut out).unwrap();
        let mut push = |writer: &mut SegmentWriter, out: &mut Vec<u8>, event: Event<'_>| {
            let delta = if micros == 0 { 0 } else { 1_000 };
            micros += 1_000;
            writer
                .push(&Record { delta, event }, micros - 1_000, out)
                .unwrap();
        };
        if index == 0 {
            push(&mut writer, &mut out, start(session));
        }
        for block in 0..blocks {
            let text = text(index * blocks + block);
            push(
                &mut writer,
                &mut out,
                Event::Data(Stream::Stdout, RecordedBytes(text.as_bytes())),
            );
            writer.flush(&mut out).unwrap();
        }
        let last = index + 1 == segments;
        if last {
            push(&mut writer, &mut out, end());
        }
        before = writer.close(last, &mut out).unwrap();
        written.push(out);
    }
    written
}

fn recording(segments: u32) -> Vec<Vec<u8>> {
    write(SESSION, segments, 3, &|n| {
        format!("output number {n}, and then some more of it\n")
    })
}

fn read(segments: &[Vec<u8>]) -> (ReadVerdict, String) {
    let secrets = [secret()];
    let mut reader = RecordingReader::new(SESSION, &secrets);
    let mut text = String::new();
    for segment in segments {
        let _ = reader.read_segment(segment, &mut |_, record| {
            if let Event::Data(_, bytes) = &record.event {
                text.push_str(core::str::from_utf8(bytes.0).unwrap());
            }
        });
    }
    (reader.verdict(), text)
}

#[track_caller]
fn tampered(segments: &[Vec<u8>], segment: u32, block: u32, fault: ScanFault) {
    let (verdict, _) = read(segments);
    let ReadVerdict::Tampered { at, fault: found } = verdict else {
        panic!("{verdict:?} where {fault:?} was expected");
    };
    assert_eq!((at.segment, at.block, found), (segment, block, fault));
}

/// Returns where each block of a segment begins, and its end.
pub(super) fn edges(segment: &[u8]) -> Vec<usize> {
    let mut edges = vec![HEADER_LEN];
    let mut at = HEADER_LEN;
    while at < segment.len() {
        let length = u32::from_be_bytes([0, segment[at + 1], segment[at + 2], segment[at + 3]]);
        at += BLOCK_HEAD_LEN + usize::try_from(length).unwrap();
        edges.push(at);
    }
    edges
}

#[test]
fn what_was_written_is_read() {
    let segments = recording(3);
    let (verdict, text) = read(&segments);
    assert_eq!(
        verdict,
        ReadVerdict::Complete {
            why: EndReason::Exited
        }
    );
    let expected: String = (0..9)
        .map(|n| format!("output number {n}, and then some more of it\n"))
        .collect();
    assert_eq!(text, expected);
}

#[test]
fn after_a_cut_at_any_byte_all_whole_blocks_stand() {
    let segments = recording(2);
    let edges = edges(&segments[0]);
    let (_, whole) = read(&segments);
    for cut in 0..segments[0].len() {
        let part = segments[0][..cut].to_vec();
        let mut scan = SegmentScan::new(ExpectedSegment::default());
        let mut input = part.as_slice();
        while scan.read(&mut input).unwrap().is_some() {}
        let expected = edges
            .iter()
            .rev()
            .find(|edge| **edge <= cut)
            .copied()
            .unwrap_or(0);
        assert_eq!(scan.whole(), expected as u64, "cut at {cut}");
        assert_eq!(scan.torn(), cut - expected, "cut at {cut}");
        let (verdict, text) = read(&[part]);
        assert!(matches!(verdict, ReadVerdict::Truncated { at } if at.offset == expected as u64));
        assert!(whole.starts_with(&text));
    }
    let (verdict, text) = read(&segments[..1]);
    let ReadVerdict::Truncated { at } = verdict else {
        panic!("{verdict:?}");
    };
    assert_eq!((at.segment, at.block, at.micros), (0, 4, 3_000));
    assert_eq!(text.len(), whole.len() / 2);
}

#[test]
fn garbage_behind_a_cut_does_not_hide_what_is_whole() {
    let segments = recording(1);
    let edges = edges(&segments[0]);
    for garbage in [vec![0; 500], vec![0xff; 500]] {
        let part = [&segments[0][..edges[2]], &garbage].concat();
        let mut scan = SegmentScan::new(ExpectedSegment::default());
        let mut input = part.as_slice();
        while let Ok(Some(_)) = scan.read(&mut input) {}
        assert_eq!(scan.whole(), edges[2] as u64);
    }
}

#[test]
fn every_flipped_bit_is_named() {
    let segments = recording(2);
    let edges = edges(&segments[1]);
    for byte in 0..segments[1].len() {
        let mut forged = segments.clone();
        forged[1][byte] ^= 1 << (byte % 8);
        let (verdict, _) = read(&forged);
        let block = edges
            .iter()
            .filter(|edge| **edge <= byte)
            .count()
            .saturating_sub(1);
        match verdict {
            ReadVerdict::Tampered { at, .. } => {
                assert_eq!(
                    (at.segment, at.block),
                    (1, u32::try_from(block).unwrap()),
                    "byte {byte}"
                );
            }
            // A length that reaches behind the end looks like a cut, in the same place.
            ReadVerdict::Truncated { at } => {
                assert_eq!(
                    (at.segment, at.block),
                    (1, u32::try_from(block).unwrap()),
                    "byte {byte}"
                );
            }
            ReadVerdict::Complete { .. } => panic!("byte {byte} may be flipped"),
        }
    }
}

#[test]
fn what_is_cut_swapped_dropped_or_anothers_is_named() {
    let segments = recording(4);
    let other = write(SessionId([7; 16]), 4, 3, &|n| n.to_string());
    let edges = edges(&segments[1]);

    let mut cut = segments.clone();
    cut[1].truncate(edges[2]);
    tampered(&cut, 1, 2, ScanFault::CutShort);

    let mut dropped = segments.clone();
    dropped.remove(1);
    tampered(
        &dropped,
        1,
        0,
        ScanFault::OutOfOrder {
            expected: 1,
            found: 2,
        },
    );

    let mut swapped = segments.clone();
    swapped.swap(1, 2);
    tampered(
        &swapped,
        1,
        0,
        ScanFault::OutOfOrder {
            expected: 1,
            found: 2,
        },
    );

    let mut replaced = segments.clone();
    replaced[2] = other[2].clone();
    tampered(&replaced, 2, 0, ScanFault::OtherSession(SessionId([7; 16])));

    let mut twice = segments.clone();
    twice.push(segments[3].clone());
    tampered(&twice, 3, 5, ScanFault::BehindEnd);

    // With blocks replaced and every check mended there still is no seal.
    let mut blocks = segments[1].clone();
    let (a, b) = (
        blocks[edges[1]..edges[2]].to_vec(),
        blocks[edges[2]..edges[3]].to_vec(),
    );
    assert_eq!(a.len(), b.len());
    blocks[edges[1]..edges[2]].copy_from_slice(&b);
    blocks[edges[2]..edges[3]].copy_from_slice(&a);
    let mut unmended = segments.clone();
    unmended[1] = blocks.clone();
    tampered(&unmended, 1, 1, ScanFault::Block);
    mend(&mut blocks);
    let mut mended = segments;
    mended[1] = blocks;
    tampered(&mended, 1, 1, ScanFault::Seal);
}

/// Computes every check of a segment anew, as is possible without the key.
fn mend(segment: &mut [u8]) {
    let mut scan = SegmentScan::new(ExpectedSegment::default());
    let mut input = &segment[..HEADER_LEN];
    scan.read(&mut input).unwrap();
    let mut link = scan.link();
    let edges = edges(segment);
    for pair in edges.windows(2) {
        let block = &mut segment[pair[0]..pair[1]];
        let head = [block[0], block[1], block[2], block[3]];
        link = link.behind_block(head, &block[BLOCK_HEAD_LEN..]);
        block[4..BLOCK_HEAD_LEN].copy_from_slice(&link.check());
    }
}

#[test]
fn only_the_right_key_opens_and_says_so() {
    let segments = recording(1);
    let wrong = [RecordingSecret::from_seed(&[2; 32])];
    let mut reader = RecordingReader::new(SESSION, &wrong);
    let fault = reader.read_segment(&segments[0], &mut |_, _| panic!("it opened"));
    assert_eq!(fault, Err(ScanFault::UnknownKey(secret().public().id())));
    let both = [wrong[0].clone(), secret()];
    let mut reader = RecordingReader::new(SESSION, &both);
    assert_eq!(reader.read_segment(&segments[0], &mut |_, _| {}), Ok(()));
}

#[test]
fn segment_holds_as_much_as_its_bound_says() {
    let (key, mut seed) = (secret().public(), SealSeed::new([3; 32]));
    let mut out = vec![];
    let first = SegmentLink::first(&SESSION);
    let mut writer = SegmentWriter::begin(SESSION, 0, first, &key, &mut seed, &mut out).unwrap();
    let mut noise = 1_u64;
    let mut data = [0_u8; MAX_RECORD_DATA];
    let mut records = 0;
    let push = |writer: &mut SegmentWriter, out: &mut Vec<u8>, event: Event<'_>| {
        writer.push(&Record { delta: 0, event }, 0, out).unwrap();
    };
    push(&mut writer, &mut out, start(SESSION));
    while !writer.is_full() {
        for byte in &mut data {
            noise = noise
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            *byte = noise.to_be_bytes()[0];
        }
        push(
            &mut writer,
            &mut out,
            Event::Data(Stream::Stdout, RecordedBytes(&data)),
        );
        records += 1;
    }
    push(&mut writer, &mut out, end());
    writer.close(true, &mut out).unwrap();
    assert!(out.len() <= MAX_SEGMENT, "{} bytes", out.len());
    assert!(out.len() > MAX_SEGMENT * 9 / 10);
    let plain = records * MAX_RECORD_DATA;
    assert!(
        out.len() * 100 <= plain * 105,
        "{} for {plain} that do not compress",
        out.len()
    );
    let (verdict, _) = {
        let secrets = [secret()];
        let mut reader = RecordingReader::new(SESSION, &secrets);
        reader.read_segment(&out, &mut |_, _| {}).unwrap();
        (reader.verdict(), ())
    };
    assert_eq!(
        verdict,
        ReadVerdict::Complete {
            why: EndReason::Exited
        }
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn records_of_any_size_come_back(
        sizes in prop::collection::vec(0..MAX_RECORD_DATA, 0..30),
        flushes: u64,
        spread in 1_u64..256,
    ) {
        let (key, mut seed) = (secret().public(), SealSeed::new([3; 32]));
        let mut out = vec![];
        let first = SegmentLink::first(&SESSION);
        let mut writer =
            SegmentWriter::begin(SESSION, 0, first, &key, &mut seed, &mut out).unwrap();
        writer.push(&Record { delta: 0, event: start(SESSION) }, 0, &mut out).unwrap();
        let mut expected = vec![];
        let mut noise = 1_u64;
        for (n, size) in sizes.iter().enumerate() {
            let data: Vec<u8> = (0..*size).map(|_| {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                ((noise >> 40) % spread).to_le_bytes()[0]
            }).collect();
            let event = Event::Data(Stream::Stdout, RecordedBytes(&data));
            writer.push(&Record { delta: 1, event }, n as u64 + 1, &mut out).unwrap();
            prop_assert!(writer.pending() <= MAX_BLOCK_PLAIN);
            if flushes >> (n % 64) & 1 == 1 {
                writer.flush(&mut out).unwrap();
            }
            expected.push(data);
        }
        writer.push(&Record { delta: 0, event: end() }, sizes.len() as u64, &mut out).unwrap();
        prop_assert!(writer.length() + writer.pending() <= out.len() + MAX_BLOCK_PLAIN);
        let link = writer.close(true, &mut out).unwrap();
        let secrets = [secret()];
        let mut reader = RecordingReader::new(SESSION, &secrets);
        let mut found = vec![];
        let outcome = reader.read_segment(&out, &mut |_, record| {
            if let Event::Data(_, bytes) = &record.event {
                found.push(bytes.0.to_vec());
            }
        });
        prop_assert_eq!(outcome, Ok(()));
        prop_assert_eq!(reader.verdict(), ReadVerdict::Complete { why: EndReason::Exited });
        prop_assert_eq!(reader.link(), link);
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn no_bytes_panic_the_reader(
        bytes: Vec<u8>,
        keep in 0_usize..2_000,
        at: prop::sample::Index,
    ) {
        let segments = recording(1);
        let mut near = segments[0].clone();
        near.truncate(keep);
        let at = at.index(near.len() + 1);
        near.splice(at..at, bytes.iter().copied());
        mend_if_possible(&mut near);
        for bytes in [bytes, near] {
            let (verdict, _) = read(&[bytes]);
            let whole = matches!(verdict, ReadVerdict::Complete { .. });
            prop_assert!(!whole || at >= segments[0].len() || keep >= segments[0].len());
        }
    }

    #[test]
    fn what_was_scanned_does_not_depend_on_the_cuts(cut in 1_usize..300, flip: prop::sample::Index, forge: bool) {
        let mut segment = recording(1).remove(0);
        if forge {
            let at = flip.index(segment.len());
            segment[at] ^= 1;
        }
        let scan = |cut: usize| {
            let mut scan = SegmentScan::new(ExpectedSegment::default());
            let mut seen = vec![];
            for mut part in segment.chunks(cut) {
                loop {
                    match scan.read(&mut part) {
                        Ok(Some(scanned)) => seen.push((scanned, scan.sealed().to_vec())),
                        Ok(None) => break,
                        Err(fault) => return (seen, Some(fault), scan.whole()),
                    }
                }
            }
            (seen, None, scan.whole())
        };
        prop_assert_eq!(scan(cut), scan(segment.len()));
    }
}

/// Gives the checks of whatever blocks there are a chance.
fn mend_if_possible(segment: &mut [u8]) {
    let mut at = HEADER_LEN;
    let mut scan = SegmentScan::new(ExpectedSegment::default());
    let Some(mut header) = segment.get(..HEADER_LEN) else {
        return;
    };
    if scan.read(&mut header).is_err() {
        return;
    }
    let mut link = scan.link();
    while let Some(head) = segment.get(at..at + BLOCK_HEAD_LEN) {
        let head = [head[0], head[1], head[2], head[3]];
        let length = u32::from_be_bytes([0, head[1], head[2], head[3]]);
        let end = at + BLOCK_HEAD_LEN + usize::try_from(length).unwrap();
        let Some(block) = segment.get_mut(at..end) else {
            return;
        };
        link = link.behind_block(head, &block[BLOCK_HEAD_LEN..]);
        block[4..BLOCK_HEAD_LEN].copy_from_slice(&link.check());
        at = end;
    }
}
