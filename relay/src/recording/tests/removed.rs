//! Segments that are not on the device any more: what its agent finds at its start is enough for a verdict.

use super::*;

/// Returns a session with three segments, which the device has reported and not uploaded.
pub(super) async fn reported(bed: &Fixture) -> Device {
    let (_guard, key, watched) = bed.begin().await;
    let mut device = Device::recording(bed, SESSION, &key);
    let shown = noise(2_500_000);
    device.show(SESSION, &shown);
    for frame in shown.chunks(8 * 1024) {
        watched.pass(Stream::Stdout, frame, 0);
    }
    device.end(SESSION);
    assert_eq!(device.files.0.len(), 3);
    bed.recordings
        .over(&watched, exited(), false)
        .await
        .unwrap();
    device
}

async fn report(bed: &Fixture, device: &Device) {
    for report in device.spool.reports() {
        bed.say(report, 0).await;
    }
}

fn remove(device: &mut Device, segment: u32) {
    device.files.0.retain(|name, _| name.index != segment);
}

#[tokio::test]
async fn removed_segment_is_named_wherever_it_was() {
    // The last one is known to have been there only if the device has said so before.
    for (segment, before) in [(0, true), (0, false), (1, true), (1, false), (2, true)] {
        let bed = Fixture::new().await;
        let mut device = reported(&bed).await;
        if before {
            report(&bed, &device).await;
        }
        remove(&mut device, segment);
        device.restart();
        report(&bed, &device).await;
        let facts = bed.judged().await;
        let reason = facts.row.reason.unwrap();
        let named = format!("segment {segment} is missing: its file is not on the device any more");
        assert_eq!(
            (facts.row.state, reason.as_str()),
            (RecordingState::Tampered, named.as_str()),
            "{segment}, {before}"
        );
        assert_eq!(facts.row.verified, Some(false));
    }
}

/// Covers a device that waits for the answer to its offer: one about another segment would hold up all its uploads.
#[tokio::test]
async fn each_offer_behind_a_removed_segment_is_answered() {
    for part_of_the_first in [false, true] {
        let mut bed = Fixture::new().await;
        let mut device = reported(&bed).await;
        let offers: Vec<OfferedSegment> = device.spool.offers().collect();
        remove(&mut device, 1);
        device.restart();
        report(&bed, &device).await;
        // Which one was removed is not known to another run.
        bed.restart().await;
        let mut answers = Vec::new();
        for offer in [&offers[0], &offers[2]] {
            let most = match part_of_the_first && offer.segment == 0 {
                true => 50_000,
                false => usize::MAX,
            };
            answers.push(bed.upload(offer, device.file(offer.segment), most).await);
        }
        let about = |answer: &UploadAnswer| match answer {
            UploadAnswer::Stored(held) | UploadAnswer::Have(held) => held.segment,
            UploadAnswer::Refused(refusal) => refusal.segment,
            other => panic!("{other:?}"),
        };
        let about: Vec<u32> = answers.iter().map(about).collect();
        assert_eq!(about, [0, 2], "{answers:?}");
        assert!(matches!(answers[1], UploadAnswer::Stored(_)), "{answers:?}");
    }
}

#[tokio::test]
async fn removed_end_that_was_not_reported_is_not_taken_for_a_kill() {
    let bed = Fixture::new().await;
    let mut device = reported(&bed).await;
    remove(&mut device, 2);
    device.restart();
    bed.upload_all(&device).await;
    let facts = bed.judged().await;
    assert_eq!(facts.row.state, RecordingState::Truncated);
    let reason = facts.row.reason.unwrap();
    let said = "it stops without an end: its agent was killed, or its end was removed; ";
    assert!(reason.starts_with(said), "{reason}");
    assert!(
        reason.contains("bytes that the relay passed on are not proved"),
        "{reason}"
    );
}

#[tokio::test]
async fn segments_that_the_relay_has_are_not_missing() {
    let bed = Fixture::new().await;
    let mut device = reported(&bed).await;
    let offers: Vec<OfferedSegment> = device.spool.offers().collect();
    for offer in &offers[..2] {
        let answer = bed
            .upload(offer, device.file(offer.segment), usize::MAX)
            .await;
        assert!(matches!(answer, UploadAnswer::Stored(_)), "{answer:?}");
        remove(&mut device, offer.segment);
    }
    device.restart();
    report(&bed, &device).await;
    assert_eq!(bed.facts().await.row.state, RecordingState::Uploading);
    bed.upload_all(&device).await;
    let facts = bed.judged().await;
    assert_proved(&facts);
}
