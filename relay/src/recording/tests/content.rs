//! Content up to a bound: the relay's row says that the session had one, and where each stream came to it.

use super::*;

/// Returns the verdict on a session that passed 20 frames of 8 KiB. `relay` and `device` are the bounds as each has
/// them.
async fn judge(relay: Option<u64>, device: Option<u64>) -> (Fixture, RecordingFacts) {
    let bed = Fixture::new().await;
    let shown = noise(20 * 8 * 1024);
    let (_guard, key, watched) = bed.begin_bounded(SESSION, relay).await;
    let mut recorded = Device::recording_bounded(&bed, SESSION, &key, |_| {}, device);
    for frame in shown.chunks(8 * 1024) {
        watched.pass(Stream::Stdout, frame, 0);
    }
    recorded.show(SESSION, &shown);
    recorded.end(SESSION);
    let facts = bed.ended(&watched, exited(), &recorded).await;
    (bed, facts)
}

#[tokio::test]
async fn content_behind_the_bound_is_proved_and_not_kept() {
    let (bed, facts) = judge(Some(30_000), Some(30_000)).await;
    assert_eq!(
        (facts.row.state, facts.row.verified),
        (RecordingState::Complete, Some(false))
    );
    assert_eq!(facts.row.reason.as_deref(), Some("content not kept"));
    let (text, signature) = (facts.row.verdict.unwrap(), facts.row.signature.unwrap());
    let verdict = signed_verdict(&text, &signature, &bed.state.cluster.public()).unwrap();
    assert!(verdict.is_content_not_kept());
    let [_, stdout, _] = &verdict.streams[..] else {
        panic!("{text}");
    };
    assert_eq!((stdout.proved, stdout.not_kept), (32_768, 131_072));
    let lack = "content not kept from byte 32768 on";
    assert_eq!(stdout.lack.as_deref(), Some(lack));
    assert_eq!(bed.events().await, ["recording.complete"]);
}

#[tokio::test]
async fn end_of_content_that_the_row_does_not_have_is_tampering() {
    for (relay, device) in [
        (None, Some(30_000)),
        (Some(60_000), Some(30_000)),
        (Some(30_000), Some(60_000)),
        (Some(30_000), None),
    ] {
        let (_bed, facts) = judge(relay, device).await;
        assert_eq!(
            (facts.row.state, facts.row.verified),
            (RecordingState::Tampered, Some(false)),
            "{relay:?} {device:?}"
        );
        assert_eq!(
            facts.row.reason.as_deref(),
            Some("the content of a stream does not end where the session's terms say")
        );
    }
}

#[tokio::test]
async fn what_is_not_kept_allows_no_more_to_be_uploaded() {
    let (_bed, bounded) = judge(Some(30_000), Some(30_000)).await;
    let (_bed, whole) = judge(None, None).await;
    let now = Timestamp::now();
    let (bounded, whole) = (bounded.extent(now).sealed(), whole.extent(now).sealed());
    assert!(bounded + 100_000 < whole, "{bounded} and {whole}");
}
