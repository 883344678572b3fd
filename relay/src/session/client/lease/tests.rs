use std::time::Duration;

use super::*;
use crate::clock;
use crate::store::sessions::leases::InUse;
use crate::store::tests::database::{Backend, TestDatabase, on_both};
use crate::store::{MemberId, Tx};

/// A store with a relay that lives, and its slots.
struct Fixture {
    leases: Arc<Leases>,
    store: Store,
    alice: UserName,
    database: TestDatabase,
}

impl Fixture {
    async fn new(on: Backend) -> Self {
        let database = TestDatabase::new(on);
        let store = database.open().await;
        let relay = RelayId::random().unwrap();
        store
            .change(async |tx| {
                tx.relay_started(relay, MemberId::FIRST, Timestamp::now())
                    .await
            })
            .await
            .unwrap();
        let (leases, releaser) = Leases::new(store.clone(), relay);
        tokio::spawn(releaser.run(Arc::downgrade(&leases)));
        let alice = UserName::new("alice").unwrap();
        Self {
            leases,
            store,
            alice,
            database,
        }
    }

    async fn take(&self, max: u32) -> Result<Lease, LeaseError> {
        let limit = NonZeroU32::new(max);
        self.leases.take(Quota::Sessions, &self.alice, limit).await
    }

    async fn in_use(&self) -> u32 {
        let in_use = self.store.leases_in_use(&self.alice, Timestamp::now());
        in_use.await.unwrap().sessions
    }

    /// Waits until so many are in use: a drop only signals.
    async fn settle(&self, wanted: u32) {
        let settled = async {
            while self.in_use().await != wanted {
                sleep(Duration::from_millis(5)).await;
            }
        };
        // Well before the fixture's relay, which has no heartbeat, counts as dead and its slots with it.
        timeout(Duration::from_secs(5), settled).await.unwrap();
    }
}

async fn fifty_at_once_at_a_limit_of_three_give_three(on: Backend) {
    let fixture = Arc::new(Fixture::new(on).await);
    let takes: Vec<_> = (0..50)
        .map(|_| {
            let fixture = fixture.clone();
            tokio::spawn(async move { fixture.take(3).await })
        })
        .collect();
    let mut taken = Vec::new();
    for take in takes {
        match take.await.unwrap() {
            Ok(lease) => taken.push(lease),
            Err(LeaseError::Full(full)) => assert_eq!(full.max.get(), 3),
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((taken.len(), fixture.in_use().await), (3, 3));
    assert_eq!(fixture.leases.refusals(), [0, 47, 0]);
    drop(taken);
    fixture.settle(0).await;
}

async fn a_slot_is_free_when_its_release_returns(on: Backend) {
    let fixture = Fixture::new(on).await;
    for _ in 0..20 {
        let lease = fixture.take(1).await.unwrap();
        lease.release().await;
        assert_eq!(fixture.in_use().await, 0);
    }
}

async fn user_at_limit_waits_for_a_released_slot(on: Backend) {
    let fixture = Fixture::new(on).await;
    let lease = fixture.take(1).await.unwrap();
    let began = clock::instant();
    let (second, ()) = tokio::join!(fixture.take(1), async {
        sleep(Duration::from_millis(200)).await;
        drop(lease);
    });
    let (second, waited) = (second.unwrap(), began.elapsed());
    assert!(waited < LEASE_TIMEOUT, "{waited:?}");
    // And no longer than it must.
    let refused = fixture.take(1).await;
    assert!(matches!(refused, Err(LeaseError::Full(_))));
    assert!(began.elapsed() >= LEASE_TIMEOUT);
    drop(second);
    fixture.settle(0).await;
}

async fn a_panic_gives_the_slot_back(on: Backend) {
    let fixture = Fixture::new(on).await;
    let lease = fixture.take(1).await.unwrap();
    let task = tokio::spawn(async move {
        let _held = lease;
        panic!("on purpose");
    });
    assert!(task.await.is_err());
    fixture.settle(0).await;
}

async fn who_is_dropped_while_taking_holds_nothing(on: Backend) {
    let fixture = Fixture::new(on).await;
    for micros in [0, 50, 100, 200, 400, 800, 1_600, 3_200] {
        let _ = timeout(Duration::from_micros(micros), fixture.take(0)).await;
    }
    fixture.settle(0).await;
}

async fn a_lowered_limit_ends_nothing_and_admits_nothing_more(on: Backend) {
    let fixture = Fixture::new(on).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(fixture.take(4).await.unwrap());
    }
    assert!(fixture.take(2).await.is_err());
    assert_eq!(fixture.in_use().await, 4);
    held.truncate(2);
    fixture.settle(2).await;
    assert!(fixture.take(2).await.is_err());
    held.truncate(1);
    fixture.settle(1).await;
    held.push(fixture.take(2).await.unwrap());
}

/// Covers two relays on one store: a slot counts for the other until its holder is declared dead, not only while its
/// heartbeats come. They stop for all where the store is away, and no session ends by that.
async fn a_slot_of_another_run_counts_until_it_is_dead(on: Backend) {
    let fixture = Fixture::new(on).await;
    let held = fixture.take(1).await.unwrap();
    let (other, now) = (RelayId::random().unwrap(), Timestamp::now());
    fixture
        .store
        .change(async |tx| tx.relay_started(other, MemberId([1; 16]), now).await)
        .await
        .unwrap();
    let row = LeaseRow {
        relay: other,
        number: 0,
        quota: Quota::Sessions,
        user: fixture.alice.clone(),
    };
    let one = NonZeroU32::new(1);
    // Seconds since the heartbeat, and whether there is room.
    for (seconds, free) in [(0, false), (9, false), (11, false), (12, true)] {
        let then = now.after(Duration::from_secs(seconds));
        if free {
            let own = async |tx: &mut Tx| {
                tx.heartbeat(other, then).await?;
                tx.end_stale_runs(other, then).await
            };
            assert_eq!(fixture.store.change(own).await.unwrap().len(), 1);
        }
        let taken = fixture
            .store
            .change(async |tx| tx.take_lease(&row, one, then).await)
            .await
            .unwrap();
        assert_eq!(taken.is_ok(), free, "after {seconds} s");
    }
    drop(held);
}

async fn slots_end_with_the_run_that_took_them(on: Backend) {
    let fixture = Fixture::new(on).await;
    let held = fixture.take(0).await.unwrap();
    assert_eq!(fixture.in_use().await, 1);
    // A run whose heart stopped counts no more, for others.
    let later = Timestamp::now().after(Duration::from_secs(60));
    let in_use = fixture
        .store
        .leases_in_use(&fixture.alice, later)
        .await
        .unwrap();
    assert_eq!(in_use, InUse::default());
    // The next run begins with nothing.
    let next = RelayId::random().unwrap();
    fixture
        .store
        .change(async |tx| {
            tx.relay_started(next, MemberId::FIRST, Timestamp::now())
                .await
        })
        .await
        .unwrap();
    assert_eq!(fixture.in_use().await, 0);
    drop((held, fixture.database));
}

on_both!(
    a_slot_is_free_when_its_release_returns,
    user_at_limit_waits_for_a_released_slot,
    a_panic_gives_the_slot_back,
    who_is_dropped_while_taking_holds_nothing,
    a_lowered_limit_ends_nothing_and_admits_nothing_more,
    a_slot_of_another_run_counts_until_it_is_dead,
    slots_end_with_the_run_that_took_them,
);

on_both!(threads:
    fifty_at_once_at_a_limit_of_three_give_three,
);
