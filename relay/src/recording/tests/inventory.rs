//! Recordings that a device does not list among what it holds.

use holdfast_protocol::limits::{INVENTORY_PART, MAX_INVENTORIES, MAX_INVENTORY_PARTS};
use holdfast_protocol::wire::{InventoryPart, SegmentLost};

use super::removed::reported;
use super::*;
use crate::recording::ingest::inventory::{IncomingInventory, InventoryFault, InventoryQuota};

fn part(number: u32, sessions: Vec<SessionId>, last: bool) -> InventoryPart {
    InventoryPart {
        part: number,
        age: 0,
        why: SegmentLost::Missing,
        sessions,
        last,
    }
}

/// Lists these as held by an agent that was started now.
async fn lists(bed: &Fixture, sessions: Vec<SessionId>, why: SegmentLost) {
    let part = InventoryPart {
        why,
        ..part(0, sessions, true)
    };
    lists_at(bed, Timestamp::now(), part).await;
}

async fn lists_at(bed: &Fixture, opened: Timestamp, part: InventoryPart) {
    let mut inventory = IncomingInventory::default();
    let taken = bed
        .recordings
        .take_inventory(DEVICE, opened, &mut inventory, &part);
    taken.await.unwrap();
}

/// Has the relay store the first so many segments.
async fn stored(bed: &Fixture, device: &Device, segments: usize) {
    let offers: Vec<OfferedSegment> = device.spool.offers().take(segments).collect();
    for offer in &offers {
        let file = device.file(offer.segment);
        let answer = bed.upload(offer, file, usize::MAX).await;
        assert!(matches!(answer, UploadAnswer::Stored(_)), "{answer:?}");
    }
}

#[tokio::test]
async fn recording_that_is_not_listed_has_its_verdict_at_once() {
    use RecordingState::{Lost, Tampered, Truncated};
    use SegmentLost::{Missing, PowerLoss};
    for (segments, why, state, reason) in [
        (
            0,
            Missing,
            Lost,
            "the device no longer has it: its list of recordings lacks it",
        ),
        (
            0,
            PowerLoss,
            Lost,
            "the device no longer has it: it lost power",
        ),
        (
            1,
            Missing,
            Tampered,
            "segment 1 is missing: its file is not on the device",
        ),
        (
            1,
            PowerLoss,
            Truncated,
            "the rest is gone from segment 1 on: power_loss",
        ),
    ] {
        for is_reported in [true, false] {
            let bed = Fixture::new().await;
            let device = reported(&bed).await;
            for report in device.spool.reports().filter(|_| is_reported) {
                bed.say(report, 0).await;
            }
            stored(&bed, &device, segments).await;
            lists(&bed, vec![], why).await;
            let facts = bed.judged().await;
            assert_eq!((facts.row.state, facts.row.verified), (state, Some(false)));
            let said = facts.row.reason.unwrap();
            assert!(said.starts_with(reason), "{said}");
            // What comes all the same changes nothing: it stays with one verdict. Of an altered recording it is evidence.
            let offer = device.spool.offers().last().unwrap();
            let answer = bed
                .upload(&offer, device.file(offer.segment), usize::MAX)
                .await;
            let is_kept = matches!(answer, UploadAnswer::Stored(_));
            assert_eq!(is_kept, state == Tampered && is_reported, "{answer:?}");
            assert!(is_kept || matches!(answer, UploadAnswer::Refused(_)));
            assert_eq!(bed.facts().await.row.state, state);
            assert_eq!(bed.events().await.len(), 1);
        }
    }
}

#[tokio::test]
async fn what_is_listed_or_stored_is_not_lost() {
    for is_listed in [true, false] {
        let bed = Fixture::new().await;
        let device = reported(&bed).await;
        if !is_listed {
            // All is here, and its check may not be over.
            bed.upload_all(&device).await;
        }
        let held = if is_listed { vec![SESSION] } else { vec![] };
        lists(&bed, held, SegmentLost::Missing).await;
        bed.upload_all(&device).await;
        let facts = bed.judged().await;
        assert_proved(&facts);
    }
}

#[tokio::test]
async fn only_sessions_before_the_agents_start_are_compared() {
    let before = Timestamp::now();
    let bed = Fixture::new().await;
    let device = reported(&bed).await;
    // On this tunnel, or another one of the same agent: whatever it says of its start.
    for age in [0, 1 << 40, u64::MAX] {
        let part = InventoryPart {
            age,
            ..part(0, vec![], true)
        };
        lists_at(&bed, before, part).await;
    }
    let part = InventoryPart {
        age: 3_600_000,
        ..part(0, vec![], true)
    };
    lists_at(&bed, Timestamp::now(), part).await;
    assert_eq!(bed.facts().await.row.state, RecordingState::Uploading);
    bed.upload_all(&device).await;
    assert_eq!(bed.judged().await.row.state, RecordingState::Complete);
}

#[tokio::test]
async fn other_devices_list_says_nothing() {
    let bed = Fixture::new().await;
    let _device = reported(&bed).await;
    let mut inventory = IncomingInventory::default();
    let other = DeviceId([2; 16]);
    let part = part(0, vec![], true);
    let taken = bed
        .recordings
        .take_inventory(other, Timestamp::now(), &mut inventory, &part);
    taken.await.unwrap();
    assert_eq!(bed.facts().await.row.state, RecordingState::Uploading);
}

#[tokio::test]
async fn session_that_the_relay_still_serves_is_judged_at_its_end() {
    let bed = Fixture::new().await;
    let (_guard, _key, watched) = bed.begin().await;
    watched.pass(Stream::Stdout, b"hello", 0);
    lists(&bed, vec![], SegmentLost::Missing).await;
    assert_eq!(bed.facts().await.row.state, RecordingState::Recording);
    bed.recordings
        .over(&watched, Closing { exit: None }, false)
        .await
        .unwrap();
    let facts = bed.judged().await;
    assert_eq!(facts.row.state, RecordingState::Lost);
    assert_eq!(
        facts.row.reason.unwrap(),
        "the device no longer has it: its list of recordings lacks it; 5 bytes that the relay passed on are not proved, from 00:00 on"
    );
}

// The session may have begun on no device.
#[tokio::test]
async fn session_of_a_killed_relay_that_kept_nothing_is_lost() {
    for (why, reason) in [
        (
            SegmentLost::Missing,
            "the relay stopped before it kept anything of the session, and the device has nothing of it",
        ),
        (
            SegmentLost::PowerLoss,
            "the relay stopped before it kept anything of the session, and the device has nothing of it: it lost power",
        ),
    ] {
        let mut bed = Fixture::new().await;
        let (_guard, _key, _watched) = bed.begin().await;
        bed.restart().await;
        lists(&bed, vec![], why).await;
        let facts = bed.judged().await;
        assert_eq!(facts.row.state, RecordingState::Lost);
        assert_eq!(facts.row.reason.as_deref(), Some(reason));
        assert_eq!(bed.events().await, ["recording.lost"]);
    }
}

#[tokio::test]
async fn session_of_a_killed_relay_that_kept_a_digest_was_held() {
    let mut bed = Fixture::new().await;
    let (_guard, _key, watched) = bed.begin().await;
    watched.pass(Stream::Stdout, b"hello", 0);
    bed.recordings
        .note(&mut NotedSessions::new())
        .await
        .unwrap();
    bed.restart().await;
    lists(&bed, vec![], SegmentLost::Missing).await;
    let reason = bed.judged().await.row.reason.unwrap();
    let gone = "the device no longer has it: its list of recordings lacks it; 5 bytes";
    assert!(reason.starts_with(gone), "{reason}");
}

#[tokio::test]
async fn session_in_which_nothing_passed_may_not_have_begun() {
    let bed = Fixture::new().await;
    let (_guard, _key, watched) = bed.begin().await;
    let over = bed.recordings.over(&watched, Closing { exit: None }, false);
    over.await.unwrap();
    lists(&bed, vec![], SegmentLost::Missing).await;
    let reason = bed.judged().await.row.reason.unwrap();
    assert_eq!(
        reason,
        "nothing of the session passed the relay, and the device has nothing of it"
    );
}

#[test]
fn parts_come_in_order_and_end() {
    let quota = InventoryQuota::default();
    let mut inventory = IncomingInventory::default();
    let many = vec![SESSION; INVENTORY_PART + 1];
    for wrong in [part(1, vec![], true), part(0, many, false)] {
        let fault = inventory.check(&wrong, &quota);
        assert_eq!(fault, Err(InventoryFault::Part));
    }
    for number in 0..MAX_INVENTORY_PARTS {
        let next = part(number, vec![SESSION; INVENTORY_PART], false);
        inventory.check(&next, &quota).unwrap();
        assert_eq!(inventory.check(&next, &quota), Err(InventoryFault::Part));
    }
    let endless = part(MAX_INVENTORY_PARTS, vec![], true);
    assert_eq!(inventory.check(&endless, &quota), Err(InventoryFault::Part));
    // The others of the tunnel: on a stream of its own, and behind another one.
    let only = part(0, vec![], true);
    let behind = part(1, vec![], true);
    let mut inventory = IncomingInventory::default();
    for _ in 1..MAX_INVENTORIES {
        inventory.check(&only, &quota).unwrap();
        assert_eq!(inventory.check(&behind, &quota), Err(InventoryFault::Part));
    }
    for mut inventory in [inventory, IncomingInventory::default()] {
        let fault = inventory.check(&only, &quota);
        assert_eq!(fault, Err(InventoryFault::TooMany));
    }
}
