//! Writers that share commits.

use std::path::Path;

use super::*;
use crate::store::backend::sqlite::SqliteFile;

async fn store(folder: &Path) -> SqliteFile {
    let path = folder.join("relay.db");
    std::fs::File::create(&path).unwrap();
    let file = SqliteFile::at(&path);
    file.migrate().await.unwrap();
    file
}

/// Waits for a turn to write to the disk.
async fn turn(store: &SqliteFile) -> BatchWriter {
    let taken = store.turns.take(Durability::Disk, &store.durable).await;
    taken.unwrap()
}

async fn set(member: &mut BatchWriter, key: &str) -> Result<(), sqlx::Error> {
    let set = sqlx::query("INSERT INTO meta (key, value) VALUES ($1, 'x')").bind(key);
    set.execute(&mut **member).await.map(drop)
}

async fn keys(store: &SqliteFile) -> Vec<String> {
    let keys = sqlx::query_scalar("SELECT key FROM meta WHERE value = 'x' ORDER BY key");
    keys.fetch_all(&store.readers).await.unwrap()
}

#[tokio::test]
async fn waiting_writes_share_a_commit_and_abort_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path()).await;
    let mut first = turn(&store).await;
    let before = store.turns.0.commits.load(Ordering::Relaxed);
    set(&mut first, "first").await.unwrap();
    let writer = |key: &'static str, durability, gives_up: bool| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut member = store.turns.take(durability, &store.durable).await.unwrap();
            set(&mut member, key).await.unwrap();
            if gives_up {
                return drop(member);
            }
            member.commit().await.unwrap();
            assert!(keys(&store).await.iter().any(|known| known == key), "{key}");
        })
    };
    let mut writers = Vec::new();
    for (key, durability, gives_up) in [
        ("second", Durability::Disk, false),
        ("gone", Durability::Disk, true),
        ("third", Durability::Process, false),
        ("gone-last", Durability::Process, true),
    ] {
        writers.push(writer(key, durability, gives_up));
        store.turns.until_waiting(writers.len()).await;
    }
    first.commit().await.unwrap();
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(keys(&store).await, ["first", "second", "third"]);
    let commits = store.turns.0.commits.load(Ordering::Relaxed) - before;
    assert_eq!(commits, 1);
}

#[tokio::test]
async fn disk_durability_does_not_join_a_weaker_commit() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path()).await;
    let mut first = store
        .turns
        .take(Durability::Process, &store.presence)
        .await
        .unwrap();
    set(&mut first, "first").await.unwrap();
    let second = tokio::spawn({
        let store = store.clone();
        async move {
            let mut member = turn(&store).await;
            // What stood open was committed: it can be seen from outside.
            assert_eq!(keys(&store).await, ["first"]);
            set(&mut member, "second").await.unwrap();
            member.commit().await.unwrap();
        }
    });
    store.turns.until_waiting(1).await;
    first.commit().await.unwrap();
    second.await.unwrap();
    assert_eq!(keys(&store).await, ["first", "second"]);
}

#[tokio::test]
async fn failed_commit_fails_every_member() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path()).await;
    let mut first = turn(&store).await;
    set(&mut first, "first").await.unwrap();
    let second = tokio::spawn({
        let store = store.clone();
        async move {
            let mut member = turn(&store).await;
            // What only the commit finds: there is no such relay.
            let orphan = "PRAGMA defer_foreign_keys = ON;
                INSERT INTO leases (relay, number, kind, user_name, taken)
                VALUES (x'00', 1, 'session', 'absent', 0)";
            sqlx::raw_sql(orphan).execute(&mut *member).await.unwrap();
            let committed = member.commit().await;
            assert!(
                matches!(committed, Err(StoreError::Commit(_))),
                "{committed:?}"
            );
        }
    });
    store.turns.until_waiting(1).await;
    let committed = first.commit().await;
    assert!(
        matches!(committed, Err(StoreError::Commit(_))),
        "{committed:?}"
    );
    second.await.unwrap();
    assert_eq!(keys(&store).await, <[&str; 0]>::default());
    let mut next = turn(&store).await;
    set(&mut next, "next").await.unwrap();
    next.commit().await.unwrap();
    assert_eq!(keys(&store).await, ["next"]);
}

#[tokio::test]
async fn a_first_writer_that_gives_up_leaves_nothing_open() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path()).await;
    let mut first = turn(&store).await;
    set(&mut first, "first").await.unwrap();
    drop(first);
    // Another process's writer gets the file.
    let other = SqliteFile::at(&folder.path().join("relay.db"));
    let mut next = turn(&other).await;
    set(&mut next, "next").await.unwrap();
    next.commit().await.unwrap();
    assert_eq!(keys(&store).await, ["next"]);
}

#[tokio::test]
async fn writes_go_on_after_the_disk_was_full() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path()).await;
    let limit = |pages: String| {
        let store = store.clone();
        async move {
            let limit = format!("PRAGMA max_page_count = {pages}");
            let limit = sqlx::raw_sql(sqlx::AssertSqlSafe(limit));
            limit.execute(&store.durable).await.unwrap();
        }
    };
    let pages: i64 = sqlx::query_scalar("PRAGMA page_count")
        .fetch_one(&store.durable)
        .await
        .unwrap();
    limit(pages.to_string()).await;
    let mut first = turn(&store).await;
    set(&mut first, "first").await.unwrap();
    let second = tokio::spawn({
        let store = store.clone();
        async move {
            let mut second = turn(&store).await;
            set(&mut second, &"x".repeat(100_000)).await.unwrap_err();
        }
    });
    store.turns.until_waiting(1).await;
    // They share a transaction, which SQLite takes back as a whole.
    assert!(first.commit().await.is_err());
    second.await.unwrap();
    let mut third = turn(&store).await;
    set(&mut third, "third").await.unwrap();
    third.commit().await.unwrap();
    assert_eq!(keys(&store).await, ["third"]);
}
