//! Segments in the middle that are missing, empty, cut short or another recording's: they cost nothing but themselves.

use holdfast_protocol::limits::{MAX_BLOCK_PLAIN, MAX_MISSING_SEGMENTS, MAX_SEGMENT};
use holdfast_protocol::recording::segment::{BLOCK_HEAD_LEN, HEADER_LEN};
use holdfast_protocol::wire::SegmentLost;

use super::evidence::read;
use super::removed::reported;
use super::*;
use crate::recording::export::mark::Mark;

const OTHER: SessionId = SessionId([0xa5; 16]);

fn name(segment: u32) -> SegmentName {
    SegmentName {
        session: SESSION,
        index: segment,
    }
}

/// Returns where the blocks of a segment begin, and where its last one ends.
fn edges(file: &[u8]) -> Vec<usize> {
    let mut edges = vec![HEADER_LEN];
    while let Some([_, _, high, low]) = file
        .get(edges[edges.len() - 1]..)
        .and_then(<[u8]>::first_chunk)
    {
        let length = BLOCK_HEAD_LEN + usize::from(u16::from_be_bytes([*high, *low]));
        edges.push(edges[edges.len() - 1] + length);
    }
    edges
}

/// Restarts the device's agent, and uploads all that it has.
async fn upload(bed: &Fixture, device: &mut Device) {
    device.restart();
    for report in device.spool.reports() {
        bed.say(report, 0).await;
    }
    for offer in device.spool.offers() {
        let answer = bed.upload(&offer, device.file(offer.segment), usize::MAX);
        let answer = answer.await;
        assert!(matches!(answer, UploadAnswer::Stored(_)), "{answer:?}");
    }
}

/// Checks that only what was in that segment is missing of what was shown, and that it is named.
async fn costs_only(bed: &Fixture, segment: u32, reason: &str) {
    let facts = bed.judged().await;
    assert_eq!(facts.row.state, RecordingState::Tampered, "{reason}");
    let said = facts.row.reason.clone().unwrap();
    assert!(said.starts_with(reason), "{said}, not {reason}");
    let (before, at, behind) = read(bed, facts).await;
    assert_eq!((at.len(), at[0].segment), (1, segment), "{reason}: {at:?}");
    let shown = noise(2_500_000);
    let text: Vec<u8> = behind.iter().map(|(byte, _)| *byte).collect();
    assert!(
        shown.starts_with(&before) && shown.ends_with(&text),
        "{reason}"
    );
    assert_eq!(
        before.is_empty(),
        segment == 0 && at[0].block == 0,
        "{reason}"
    );
    assert_eq!(text.is_empty(), segment == 2, "{reason}");
    let lost = shown.len() - before.len() - text.len();
    let most = if at[0].block == 0 {
        MAX_SEGMENT
    } else {
        MAX_SEGMENT / 2 + MAX_BLOCK_PLAIN
    };
    assert!((1..=most).contains(&lost), "{reason}: {lost}");
    let is_marked = |(_, mark): &(u8, Option<Mark>)| *mark == Some(Mark::Unproved);
    assert!(behind.iter().all(is_marked), "{reason}");
}

#[tokio::test]
async fn removed_or_empty_segment_costs_no_other() {
    for segment in [0, 1] {
        for (is_removed, why) in [
            (true, "is missing: its file is not on the device any more"),
            (false, "was damaged on the device"),
        ] {
            let bed = Fixture::new().await;
            let mut device = reported(&bed).await;
            match is_removed {
                true => drop(device.files.0.remove(&name(segment))),
                false => device.files.0.get_mut(&name(segment)).unwrap().clear(),
            }
            upload(&bed, &mut device).await;
            assert_eq!(bed.facts().await.stored_segments(), 2);
            costs_only(&bed, segment, &format!("segment {segment} {why}")).await;
        }
    }
}

/// Covers a segment of another recording, one of another place, and one of another device's recording of the session.
#[tokio::test]
async fn segment_of_another_recording_costs_no_other() {
    for segment in [0, 1, 2] {
        let bed = Fixture::new().await;
        let mut device = reported(&bed).await;
        let (_guard, key, _) = bed.begin_as(OTHER).await;
        let mut other = Device::recording(&bed, OTHER, &key);
        other.show(OTHER, &noise(2_500_000));
        other.end(OTHER);
        let file = other.files.0.into_values().nth(1).unwrap();
        device.files.0.insert(name(segment), file);
        upload(&bed, &mut device).await;
        let reason = format!("segment {segment}, block 0: it belongs to session {OTHER}");
        costs_only(&bed, segment, &reason).await;

        let bed = Fixture::new().await;
        let mut device = reported(&bed).await;
        let file = device.files.0[&name((segment + 1) % 3)].clone();
        device.files.0.insert(name(segment), file);
        upload(&bed, &mut device).await;
        let reason = format!("segment {segment}, block 0: it is segment ");
        costs_only(&bed, segment, &reason).await;
    }
}

#[tokio::test]
async fn segment_that_was_cut_short_is_kept_and_named() {
    for segment in [0, 1, 2] {
        for within in [0, 7] {
            let bed = Fixture::new().await;
            let mut device = reported(&bed).await;
            // The end has been reported before.
            for report in device.spool.reports() {
                bed.say(report, 0).await;
            }
            let file = device.files.0.get_mut(&name(segment)).unwrap();
            let edges = edges(file);
            let (block, length) = (edges.len() / 2, file.len());
            file.truncate(edges[block] + within);
            assert!(file.len() > length / 3);
            upload(&bed, &mut device).await;
            assert_eq!(bed.facts().await.stored_segments(), 3);
            let reason = match (segment, within) {
                (2, _) => "segment 2, block 0: it is not what the device said".to_owned(),
                (_, 0) => format!("segment {segment}, block {block}: it was cut short"),
                _ => format!("segment {segment}, block {block}: a block has an impossible length"),
            };
            let facts = bed.judged().await;
            if segment == 2 {
                assert_eq!(facts.row.state, RecordingState::Tampered, "{within}");
                let said = facts.row.reason.clone().unwrap();
                assert!(said.starts_with(&reason), "{said}");
                let (before, at, behind) = read(&bed, facts).await;
                assert!(at.is_empty() && behind.is_empty() && before.len() > 2 * MAX_SEGMENT);
                continue;
            }
            costs_only(&bed, segment, &reason).await;
        }
    }
}

/// Covers a file that becomes shorter, or cannot be read any more, while its agent runs.
#[tokio::test]
async fn part_that_came_of_a_segment_is_kept() {
    for (why, said) in [
        (SegmentLost::Corrupt, "was damaged on the device"),
        (
            SegmentLost::Unreadable,
            "is missing: the device cannot read it",
        ),
    ] {
        let bed = Fixture::new().await;
        let mut device = reported(&bed).await;
        for report in device.spool.reports() {
            bed.say(report, 0).await;
        }
        let offers: Vec<OfferedSegment> = device.spool.offers().collect();
        for offer in &offers {
            let file = device.file(offer.segment);
            let most = if offer.segment == 1 {
                file.len() * 2 / 3
            } else {
                file.len()
            };
            bed.upload(offer, file, most).await;
            if offer.segment == 1 {
                device.spool.handle_unreadable(name(1), why);
                let reports: Vec<UploadMessage> = device.spool.reports().collect();
                for report in reports {
                    bed.say(report, 1).await;
                }
            }
        }
        assert_eq!(bed.facts().await.stored_segments(), 3);
        costs_only(&bed, 1, &format!("segment 1 {said}")).await;
    }
}

/// Covers a device that has one segment and says that it is a late one: its relay keeps no list of all before it.
#[tokio::test]
async fn segment_far_behind_missing_ones_is_refused() {
    let bed = Fixture::new().await;
    let device = reported(&bed).await;
    let offer = device.spool.offers().next().unwrap();
    let mut far = OfferedSegment {
        segment: MAX_MISSING_SEGMENTS + 1,
        ..offer
    };
    let answer = bed.upload(&far, device.file(0), usize::MAX).await;
    assert!(matches!(answer, UploadAnswer::Refused(_)), "{answer:?}");
    assert_eq!(bed.facts().await.segments, []);
    let facts = bed.judged().await;
    assert_eq!(facts.row.state, RecordingState::Tampered);

    let bed = Fixture::new().await;
    reported(&bed).await;
    far.segment -= 1;
    let answer = bed.upload(&far, device.file(0), usize::MAX).await;
    assert!(matches!(answer, UploadAnswer::Stored(_)), "{answer:?}");
    assert_eq!(bed.facts().await.stored_segments(), 1);
}

/// Covers a device that was at another relay meanwhile: what is stored there is not missing.
#[tokio::test]
async fn what_another_relay_has_stored_is_not_missing() {
    let mut bed = Fixture::new().await;
    let device = reported(&bed).await;
    let offers: Vec<OfferedSegment> = device.spool.offers().collect();
    let first = bed.recordings.clone();
    let slot = first.slot(SESSION);
    bed.upload(&offers[0], device.file(0), usize::MAX).await;
    bed.restart().await;
    bed.upload(&offers[1], device.file(1), usize::MAX).await;
    bed.recordings = first;
    bed.upload(&offers[2], device.file(2), usize::MAX).await;
    drop(slot);
    for report in device.spool.reports() {
        bed.say(report, 0).await;
    }
    let facts = bed.judged().await;
    assert_eq!(outcome(&facts), (RecordingState::Complete, Some(true)));
}
