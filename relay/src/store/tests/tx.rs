//! Transactions that are held open.

use super::*;
use crate::clock;

/// Returns a store that shares `bed`'s queue of writers, and whose transactions are over as soon as another wants one.
fn impatient(bed: &Fixture) -> Store {
    Store {
        tx_timeout: Duration::from_millis(1),
        ..bed.store.clone()
    }
}

async fn set(tx: &mut Tx, key: &str) {
    tx.meta_set(key, "x").await.unwrap();
}

async fn is_set(bed: &Fixture, key: &str) -> bool {
    bed.store.meta_get(key).await.unwrap().is_some()
}

async fn transaction_held_too_long_gives_up_its_turn(on: Backend) {
    let bed = Fixture::new(on).await;
    let mut held = bed.store.begin(Durability::Disk).await.unwrap();
    set(&mut held, "in time").await;
    held.commit().await.unwrap();

    let mut held = impatient(&bed).begin(Durability::Disk).await.unwrap();
    // Fails if the time is over already.
    let _ = held.meta_set("held", "x").await;
    // Waits for its turn, which the first one never gives up by itself.
    let mut next = bed.store.begin(Durability::Disk).await.unwrap();
    set(&mut next, "next").await;
    next.commit().await.unwrap();
    let late = held.meta_set("late", "x").await.unwrap_err();
    assert_eq!(
        late.to_string(),
        "a change made no progress within 0 s and was rolled back: try again"
    );
    let committed = held.commit().await;
    assert!(matches!(committed, Err(StoreError::Expired(_))));
    for (key, is) in [
        ("in time", true),
        ("next", true),
        ("held", false),
        ("late", false),
    ] {
        assert_eq!(is_set(&bed, key).await, is, "{key}");
    }
}

async fn transaction_that_goes_on_keeps_its_turn(on: Backend) {
    // A list of 65,536 revocations is one change.
    let bed = Fixture::new(on).await;
    let timeout = Duration::from_secs(1);
    let store = Store {
        tx_timeout: timeout,
        ..bed.store.clone()
    };
    let mut long = store.begin(Durability::Disk).await.unwrap();
    let began = clock::instant();
    while began.elapsed() < 2 * timeout {
        set(&mut long, "long").await;
    }
    long.commit().await.unwrap();
    assert!(is_set(&bed, "long").await);
}

#[tokio::test]
async fn expired_transaction_leaves_its_commit_group_whole() {
    let bed = Fixture::new(Backend::Sqlite).await;
    let mut first = bed.store.begin(Durability::Disk).await.unwrap();
    set(&mut first, "first").await;
    let store = impatient(&bed);
    let held = tokio::spawn(async move { store.begin(Durability::Disk).await.unwrap() });
    // The first one finds the other waiting, and leaves the transaction open for it.
    let Db::Sqlite(file) = &bed.store.db else {
        panic!("no file");
    };
    file.turns.until_waiting(1).await;
    let committed = tokio::spawn(first.commit());
    let mut held = held.await.unwrap();
    let _ = held.meta_set("held", "x").await;
    // The group is committed without the change of the one that never ends.
    committed.await.unwrap().unwrap();
    assert!(held.commit().await.is_err());
    assert!(is_set(&bed, "first").await);
    assert!(!is_set(&bed, "held").await);
}

on_both!(
    transaction_held_too_long_gives_up_its_turn,
    transaction_that_goes_on_keeps_its_turn,
);
