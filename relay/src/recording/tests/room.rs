//! No room for recordings: uploads wait, and nothing is lost.

use holdfast_protocol::wire::SegmentRefused;

use super::*;

fn is_later(answer: &UploadAnswer) -> bool {
    matches!(answer, UploadAnswer::Refused(refusal) if refusal.why == SegmentRefused::Unavailable)
}

impl Fixture {
    async fn bound(&mut self, bounds: Bounds) {
        let hour = Duration::from_secs(3_600);
        self.recordings = start(&self.state, &self.store, hour, None, bounds).await;
    }
}

#[tokio::test]
async fn device_at_its_budget_offers_the_rest_later() {
    let mut bed = Fixture::new().await;
    let device = recorded(&bed, &noise(3 << 20)).await;
    bed.bound(Bounds {
        device_max: Some(3 << 19),
        ..Bounds::default()
    })
    .await;
    let offers: Vec<OfferedSegment> = device.spool.offers().collect();
    let first = bed.upload(&offers[0], device.file(0), usize::MAX).await;
    assert!(matches!(first, UploadAnswer::Stored(_)), "{first:?}");
    for _ in 0..3 {
        let second = bed.upload(&offers[1], device.file(1), usize::MAX).await;
        assert!(is_later(&second), "{second:?}");
    }
    // What is stored is said so, also without room.
    let again = bed.upload(&offers[0], device.file(0), usize::MAX).await;
    assert!(matches!(again, UploadAnswer::Stored(_)), "{again:?}");
    let facts = bed.facts().await;
    assert_eq!(facts.row.state, RecordingState::Uploading);
    assert_eq!(facts.row.offered, offers[0].length);
    bed.recordings.0.audit.close().await;
    assert_eq!(bed.events().await, ["recording.refused"]);
    bed.bound(Bounds::default()).await;
    bed.upload_all(&device).await;
    let facts = bed.judged().await;
    assert_proved(&facts);
}

#[tokio::test]
async fn nothing_is_received_where_the_disk_is_low() {
    let mut bed = Fixture::new().await;
    let device = recorded(&bed, b"hello").await;
    bed.bound(Bounds {
        min_free: u64::MAX / 2,
        ..Bounds::default()
    })
    .await;
    let offer = device.spool.offers().next().unwrap();
    let answer = bed.upload(&offer, device.file(0), usize::MAX).await;
    assert!(is_later(&answer), "{answer:?}");
    assert!(!bed.state.recordings().join(SESSION.to_string()).exists());
    bed.recordings.0.audit.close().await;
    assert_eq!(bed.events().await, ["recording.refused"]);
    bed.bound(Bounds::default()).await;
    bed.upload_all(&device).await;
    assert_eq!(bed.judged().await.row.state, RecordingState::Complete);
}
