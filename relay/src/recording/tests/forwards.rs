//! Forwards in a recording, against the relay's own counts of them.

use holdfast_protocol::limits::{MAX_FORWARDS_OF_RECORDING, RECORDING_PER_FORWARD};
use holdfast_protocol::recording::record::{
    ForwardClosed, ForwardDirection, ForwardEnding, ForwardOpened,
};

use holdfast_protocol::wire::ForwardRequest;

use super::*;

/// Begins the recording of a connection's forwards.
async fn begin(bed: &Fixture) -> (StreamDigests, Device) {
    let session = bed.facts_of(SESSION, Ability::Forward);
    let begun =
        |key: &ChainKey| SessionStart::of(&ForwardRequest::Log.into(), None, &[], &terms(key));
    let (key, watched) = bed
        .recordings
        .begin(session, begun, RecordingSupport::default())
        .await
        .unwrap();
    let device = Device::recording_as(bed, SESSION, &key, |start| {
        start.work = StartedWork::Forwards;
        start.streams = false;
    });
    (watched, device)
}

fn seen(to: &str, sent: u64, received: u64) -> SeenForward {
    SeenForward {
        direction: ForwardDirection::Out,
        to: Some(to.to_owned()),
        from: None,
        address: None,
        sent,
        received,
        opened: true,
        orderly: true,
    }
}

fn record(device: &mut Device, id: u32, to: &str, sent: u64, received: u64) {
    let opened = device.spool.accept_opened(
        NOW,
        SESSION,
        ForwardOpened {
            id,
            to,
            from: "",
            direction: ForwardDirection::Out,
            address: None,
        },
    );
    assert_eq!(opened, Accept::Accepted);
    let closed = ForwardClosed {
        id,
        sent,
        received,
        why: ForwardEnding::Closed,
    };
    let closed = device.spool.accept_closed(NOW, SESSION, closed);
    assert_eq!(closed, Accept::Accepted);
    device.work();
}

async fn judge(bed: &Fixture, watched: &StreamDigests, device: &mut Device) -> RecordingFacts {
    device.spool.end(NOW, SESSION, None, EndReason::ClientGone);
    device.work();
    let over = bed.recordings.over(watched, Closing::default(), false);
    over.await.unwrap();
    bed.upload_all(device).await;
    bed.judged().await
}

#[tokio::test]
async fn counts_of_forwards_are_the_relays() {
    let to = "localhost:80";
    for (received, state) in [
        (30, RecordingState::Complete),
        (29, RecordingState::Tampered),
    ] {
        let bed = Fixture::new().await;
        let (watched, mut device) = begin(&bed).await;
        let number = watched.number_forward();
        record(&mut device, number, to, 3, received);
        let seen = seen(to, 3, 30);
        let over = bed.recordings.forward_over(&watched, number, &seen);
        over.await.unwrap();
        let facts = judge(&bed, &watched, &mut device).await;
        let is_true = state == RecordingState::Complete;
        assert_eq!(outcome(&facts), (state, Some(is_true)), "{received}");
        let reason = "forward 1 has 29 bytes received in it; the relay passed on 30";
        assert_eq!(facts.row.reason.is_none(), is_true);
        if !is_true {
            assert_eq!(facts.row.reason.unwrap(), reason);
        }
    }
}

#[tokio::test]
async fn forwards_of_a_killed_relay_are_not_proved() {
    let mut bed = Fixture::new().await;
    let (watched, mut device) = begin(&bed).await;
    let number = watched.number_forward();
    record(&mut device, number, "localhost:80", 3, 30);
    bed.restart().await;
    device.spool.end(NOW, SESSION, None, EndReason::TunnelLost);
    device.work();
    bed.upload_all(&device).await;
    let facts = bed.judged().await;
    assert_eq!(outcome(&facts), (RecordingState::Complete, Some(false)));
    let verdict = facts.row.verdict.unwrap();
    assert!(verdict.contains("the relay was killed"), "{verdict}");
}

/// Records each with its target: together they are more than what a recording may grow by beside that.
#[tokio::test]
async fn as_many_forwards_as_there_may_be_are_no_excess() {
    let bed = Fixture::new().await;
    let (watched, mut device) = begin(&bed).await;
    let noise = noise(255 * 16 * 1024 / 2);
    let mut hosts = noise.chunks_exact(127);
    for _ in 0..MAX_FORWARDS_OF_RECORDING {
        let number = watched.number_forward();
        let to = format!("{}:65535", crate::hex::hex(hosts.next().unwrap()));
        watched.book(RECORDING_PER_FORWARD + to.len() as u64);
        record(&mut device, number, &to, 0, 0);
        let seen = seen(&to, 0, 0);
        let over = bed.recordings.forward_over(&watched, number, &seen);
        over.await.unwrap();
    }
    let facts = judge(&bed, &watched, &mut device).await;
    assert_proved(&facts);
}
