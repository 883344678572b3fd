use alloc::format;
use alloc::string::String;
use alloc::vec;

use proptest::prelude::*;

use super::super::tests::{SESSION, edges, secret, start, write};
use super::*;
use crate::recording::digest::sha256;
use crate::recording::reader::ReadVerdict;
use crate::recording::record::{RecordedBytes, Stream};
use crate::recording::seal::SealSeed;
use crate::recording::segment::{SegmentLink, SegmentWriter};

/// The output of a recording, with its times.
type Shown = Vec<(u64, String)>;

/// Returns text that does not compress, another for each number.
fn noise(number: u32) -> String {
    let digest = sha256(&[&number.to_be_bytes()]);
    digest
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>()
        + "\n"
}

/// Returns text as a terminal shows it, of which a part comes again and again.
fn lines(number: u32) -> String {
    format!(
        "operator@kitchen-cam:~$ command number {number}\r\nwhat it says: {}",
        noise(number)
    )
}

fn take(shown: &mut Shown, micros: u64, event: &Event<'_>) {
    if let Event::Data(Stream::Stdout, bytes) = event {
        shown.push((micros, String::from_utf8(bytes.0.to_vec()).unwrap()));
    }
}

/// Returns what is shown before the first damaged block, what behind it, and the places of damage.
fn read(segments: &[Vec<u8>]) -> (Shown, Shown, Vec<(u32, u32)>) {
    let secrets = [secret()];
    let mut reader = RecordingReader::new(SESSION, &secrets).of_whole_segments();
    let mut segments = segments.iter();
    let (mut before, mut behind, mut damage) = (vec![], vec![], vec![]);
    for segment in segments.by_ref() {
        let whole = reader.read_segment(segment, &mut |micros, record| {
            take(&mut before, micros, &record.event);
        });
        if whole.is_ok() {
            continue;
        }
        let Some(mut rest) = reader.behind() else {
            // Only the last footer is damaged: nothing is behind it.
            assert!(reader.end().is_some());
            let ReadVerdict::Tampered { at, .. } = reader.verdict() else {
                panic!("{:?}", reader.verdict());
            };
            damage.push((at.segment, at.block));
            break;
        };
        for segment in core::iter::once(segment).chain(segments) {
            let more = rest.read_segment(segment, &mut |micros, part| match part {
                Behind::Damage(at) => damage.push((at.segment, at.block)),
                Behind::Record(record) => take(&mut behind, micros, &record.event),
            });
            if !more {
                break;
            }
        }
        break;
    }
    (before, behind, damage)
}

fn all(segments: &[Vec<u8>]) -> Shown {
    let (all, behind, damage) = read(segments);
    assert!(behind.is_empty() && damage.is_empty());
    all
}

#[test]
fn what_is_behind_a_damaged_block_is_read() {
    let segments = write(SESSION, 3, 5, &noise);
    let all = all(&segments);
    let edges = edges(&segments[1]);
    // The content, the check, the length (also to behind the segment's end), and the kind of the third block.
    for place in [20, 4, 3, 2, 0] {
        let mut damaged = segments.clone();
        damaged[1][edges[2] + place] ^= 0x40;
        let (before, behind, damage) = read(&damaged);
        assert_eq!(before, all[..7], "{place}");
        // Its content is whole where the check alone is not.
        let next = if place == 4 { 7 } else { 8 };
        assert_eq!(behind, all[next..], "{place}");
        assert_eq!(damage, [(1, 2)], "{place}");
    }
}

#[test]
fn what_is_behind_a_damaged_header_is_read() {
    let segments = write(SESSION, 3, 5, &noise);
    let all = all(&segments);
    for (segment, number) in (0..3).zip(0..) {
        let before = 5 * segment;
        // The magic bytes, the version, the suite, what is zero, the session, the number, the key, the chain, the check.
        for place in [0, 4, 5, 6, 10, 27, 30, 50, 104] {
            let mut damaged = segments.clone();
            damaged[segment][place] ^= 0x40;
            let (shown, behind, damage) = read(&damaged);
            assert_eq!((&*shown, &*behind), all.split_at(before), "{place}");
            assert_eq!(damage, [(number, 0)], "{place}");
        }
        // Without the encapsulated key, or if the header is not there as a whole, nothing of the segment is read.
        let mut damaged = segments.clone();
        damaged[segment][80] ^= 0x40;
        let mut short = segments.clone();
        short[segment].truncate(HEADER_LEN - 1);
        for damaged in [damaged, short] {
            let (shown, behind, damage) = read(&damaged);
            assert_eq!(shown, all[..before]);
            assert_eq!(behind, all[before + 5..]);
            assert_eq!(damage, [(number, 0)]);
        }
    }
    let mut damaged = segments.clone();
    for segment in [0, 1] {
        damaged[segment][10] ^= 0x40;
    }
    let (shown, behind, damage) = read(&damaged);
    assert!(shown.is_empty());
    // What the chain is before the second one is not known any more.
    assert_eq!(behind, [&all[..5], &all[10..]].concat());
    assert_eq!(damage, [(0, 0), (1, 0)]);
}

/// Covers a search that has used up its bytes: what is whole stays readable.
#[test]
fn whole_blocks_need_no_search() {
    let segments = write(SESSION, 3, 5, &noise);
    let all = all(&segments);
    let mut damaged = segments.clone();
    damaged[0][edges(&segments[0])[2] + 20] ^= 1;
    let secrets = [secret()];
    let mut reader = RecordingReader::new(SESSION, &secrets).of_whole_segments();
    assert!(reader.read_segment(&damaged[0], &mut |_, _| {}).is_err());
    let mut rest = reader.behind().unwrap();
    rest.search = 0;
    let (mut behind, mut damage) = (vec![], vec![]);
    for segment in &damaged {
        rest.read_segment(segment, &mut |micros, part| match part {
            Behind::Damage(at) => damage.push((at.segment, at.block)),
            Behind::Record(record) => take(&mut behind, micros, &record.event),
        });
    }
    assert_eq!(damage, [(0, 2)]);
    assert_eq!(behind, all[5..], "the segments behind it");
}

#[test]
fn several_damaged_places_are_named() {
    let segments = write(SESSION, 2, 8, &noise);
    let all = all(&segments);
    let mut damaged = segments.clone();
    let at = edges(&segments[0]);
    // Two blocks side by side with their heads, one further on, and the footer of the segment.
    damaged[0][at[2]..at[4]].fill(0xa5);
    damaged[0][at[6] + 30] ^= 1;
    damaged[0][at[8] + 20] ^= 1;
    let (before, behind, damage) = read(&damaged);
    assert_eq!(before, all[..2]);
    let texts = |shown: &[(u64, String)]| -> Vec<String> {
        shown.iter().map(|(_, text)| text.clone()).collect()
    };
    assert_eq!(texts(&behind), texts(&[&all[4..6], &all[7..]].concat()));
    assert_eq!(damage, [(0, 2), (0, 6), (0, 8)]);
    // The next segment's footer has the time again.
    assert_eq!(behind[3..], all[8..]);
}

#[test]
fn blocks_that_refer_to_a_lost_one_are_not_guessed() {
    let segments = write(SESSION, 1, 40, &lines);
    let all = all(&segments);
    let mut damaged = segments.clone();
    let at = edges(&segments[0]);
    damaged[0][at[20] + 30] ^= 1;
    let (before, behind, _) = read(&damaged);
    assert_eq!(before, all[..20]);
    let mut written = all[21..].iter();
    for (_, text) in &behind {
        assert!(written.any(|(_, of)| of == text), "{text:?} is invented");
    }
    assert!((10..19).contains(&behind.len()), "{}", behind.len());
}

#[test]
fn what_is_before_the_lost_block_may_be_referred_to() {
    let mut out = vec![];
    let (key, mut seed) = (secret().public(), SealSeed::new([9; 32]));
    let link = SegmentLink::first(&SESSION);
    let mut writer = SegmentWriter::begin(SESSION, 0, link, &key, &mut seed, &mut out).unwrap();
    // The third one has nothing in common with the others, not even how its record begins.
    let texts = [noise(0), noise(1), noise(2) + &noise(3), noise(0)];
    let mut micros = 0;
    let event = start(SESSION);
    writer
        .push(&Record { delta: 0, event }, 0, &mut out)
        .unwrap();
    for (text, delta) in texts.iter().zip([1_000, 1_000, 100_000, 1_000]) {
        micros += delta;
        let event = Event::Data(Stream::Stdout, RecordedBytes(text.as_bytes()));
        writer
            .push(&Record { delta, event }, micros, &mut out)
            .unwrap();
        writer.flush(&mut out).unwrap();
    }
    writer.close(true, &mut out).unwrap();
    let at = edges(&out);
    assert!(at[4] - at[3] < (at[2] - at[1]) / 2, "it was packed");
    out[at[2] + 30] ^= 1;
    let (before, behind, damage) = read(&[out]);
    assert_eq!(before.len(), 2);
    assert_eq!(behind, [(103_000, noise(0))]);
    assert_eq!(damage, [(0, 2)]);
}

#[test]
fn other_faults_are_no_damage() {
    let segments = write(SESSION, 3, 2, &noise);
    let secrets = [secret()];
    // More than the session can have been.
    let mut reader = RecordingReader::new(SESSION, &secrets).bounded(10);
    assert!(reader.behind().is_none());
    let fault = reader.read_segment(&segments[0], &mut |_, _| {});
    assert_eq!(fault, Err(ScanFault::TooLong));
    assert!(reader.behind().is_none());
    // Something behind the end.
    let mut reader = RecordingReader::new(SESSION, &secrets);
    for segment in &segments {
        reader.read_segment(segment, &mut |_, _| {}).unwrap();
    }
    let fault = reader.read_segment(&segments[2], &mut |_, _| {});
    assert_eq!(fault, Err(ScanFault::BehindEnd));
    assert!(reader.behind().is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Covers damage anywhere: what is shown was written, in its order, and never seems to have been later.
    #[test]
    fn nothing_is_shown_that_was_not_written(
        is_text: bool,
        damage in prop::collection::vec((0_usize..4, any::<prop::sample::Index>(), 1_usize..200, 1_u8..), 1..4),
    ) {
        let segments = write(SESSION, 4, 12, if is_text { &lines } else { &noise });
        let all = all(&segments);
        let mut damaged = segments.clone();
        for (segment, place, length, byte) in &damage {
            let bytes = &mut damaged[*segment];
            let from = place.index(bytes.len());
            for to in bytes.iter_mut().skip(from).take(*length) {
                *to ^= byte;
            }
        }
        let (before, behind, places) = read(&damaged);
        prop_assert!(!places.is_empty() || damaged == segments);
        prop_assert_eq!(&before[..], &all[..before.len()]);
        let mut left = all[before.len()..].iter();
        let mut last = 0;
        for (micros, text) in &behind {
            let written = left.find(|(_, written)| written == text);
            let Some((at, _)) = written else {
                return Err(TestCaseError::fail(format!("{text:?} is invented")));
            };
            prop_assert!(last <= *micros && micros <= at, "{} {}", micros, at);
            last = *micros;
        }
    }
}
