//! Recordings that are longer than their sessions can have been, by what the relay knows.

use holdfast_protocol::limits::RECORDING_BASE;
use holdfast_protocol::wire::{SegmentRefusal, SegmentRefused};

use super::*;

/// Returns a session that is over, of which the device recorded so much more than passed.
async fn invented(bed: &Fixture, bytes: &[u8]) -> Device {
    let (_guard, key, watched) = bed.begin().await;
    let mut device = Device::recording(bed, SESSION, &key);
    device.show(SESSION, bytes);
    device.end(SESSION);
    bed.recordings
        .over(&watched, exited(), false)
        .await
        .unwrap();
    device
}

#[tokio::test]
async fn only_the_beginning_of_an_excess_is_kept() {
    let bed = Fixture::new().await;
    let device = invented(&bed, &noise(12 << 20)).await;
    bed.upload_all(&device).await;
    let facts = bed.judged().await;
    assert_eq!(facts.row.state, RecordingState::Tampered);
    let reason = facts.row.reason.unwrap();
    assert!(
        reason.starts_with("it is longer than the session can have been"),
        "{reason}"
    );
    assert!(facts.row.bytes > 1 << 20, "{}", facts.row.bytes);
    assert!(facts.row.bytes <= RECORDING_BASE * 2, "{}", facts.row.bytes);
    assert_eq!(facts.row.offered, facts.row.bytes);
    assert_eq!(bed.events().await, ["recording.tampered"]);
}

#[tokio::test]
async fn running_session_is_waited_for() {
    let bed = Fixture::new().await;
    let (_guard, key, watched) = bed.begin().await;
    let mut device = Device::recording(&bed, SESSION, &key);
    let shown = noise(8 << 20);
    device.show(SESSION, &shown);
    let offers: Vec<OfferedSegment> = device.spool.offers().collect();
    let mut refused = None;
    for offer in &offers {
        let answer = bed
            .upload(offer, device.file(offer.segment), usize::MAX)
            .await;
        if let UploadAnswer::Refused(refusal) = answer {
            refused = Some(refusal);
            break;
        }
    }
    let refused = refused.expect("more than the relay has seen pass");
    let SegmentRefusal { segment, why, .. } = refused;
    assert_eq!(why, SegmentRefused::Unavailable);
    for frame in shown.chunks(8 * 1024) {
        watched.pass(Stream::Stdout, frame, 0);
    }
    let offer = &offers[usize::try_from(segment).unwrap()];
    let answer = bed.upload(offer, device.file(segment), usize::MAX).await;
    assert!(matches!(answer, UploadAnswer::Stored(_)), "{answer:?}");
    device.end(SESSION);
    let facts = bed.ended(&watched, exited(), &device).await;
    assert_proved(&facts);
}

#[tokio::test]
async fn recording_that_unpacks_to_too_much_is_tampered() {
    let bed = Fixture::new().await;
    let device = invented(&bed, &vec![0; 24 << 20]).await;
    assert!(device.file(0).len() < 1 << 20);
    bed.upload_all(&device).await;
    let facts = bed.judged().await;
    assert_eq!(facts.row.state, RecordingState::Tampered);
    let reason = facts.row.reason.unwrap();
    assert!(reason.contains("it unpacks to more than"), "{reason}");
}
