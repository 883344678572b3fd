//! A PostgreSQL server that fails: each error is a sentence within 10 s, nothing that was acknowledged is lost, and the
//! store goes on by itself.

use holdfast_tests::postgres::OwnServer;

use super::database::on_server;
use super::*;
use crate::clock;

/// The time within which a caller has its answer or its error.
const BOUND: Duration = Duration::from_secs(10);

async fn put(store: &Store, key: &str) -> Result<(), StoreError> {
    let mut tx = store.begin(Durability::Disk).await?;
    tx.meta_set(key, "x").await?;
    tx.commit().await
}

/// Runs something that has to come to an end in time.
async fn bounded<T>(what: impl Future<Output = T>) -> T {
    let began = clock::instant();
    let done = what.await;
    assert!(began.elapsed() < BOUND, "took {:?}", began.elapsed());
    done
}

/// Waits until the store writes again.
async fn recovered(store: &Store) {
    let began = clock::instant();
    while put(store, "recovered").await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(30), "no recovery");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_of_the_server_loses_no_acknowledged_write() {
    let mut server = OwnServer::start();
    let store = Store::open(&on_server(server.get())).await.unwrap();
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            let (mut kept, mut failed) = (Vec::new(), Vec::new());
            let mut after = 0;
            for number in 0.. {
                let key = format!("key {number}");
                match bounded(put(&store, &key)).await {
                    Ok(()) => {
                        kept.push(key);
                        after += i32::from(!failed.is_empty());
                    }
                    Err(error) => {
                        failed.push(error.to_string());
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
                if after == 20 {
                    break;
                }
            }
            (kept, failed)
        }
    });
    while store.meta_get("key 20").await.unwrap().is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.crash();
    let down = bounded(store.meta_get("key 0")).await.unwrap_err();
    let down = down.to_string();
    assert!(down.contains("cannot be reached"), "{down}");
    assert!(down.contains("see whether PostgreSQL runs"), "{down}");
    server.restart();
    let (kept, failed) = writer.await.unwrap();
    for key in &kept {
        let found = store.meta_get(key).await.unwrap();
        assert!(found.is_some(), "{key} was acknowledged and is lost");
    }
    for error in &failed {
        let known = ["cannot be reached", "did not confirm", "rolled back"];
        assert!(known.iter().any(|known| error.contains(known)), "{error}");
    }
}

#[tokio::test]
async fn server_that_hangs_is_reported_and_used_again() {
    let server = OwnServer::start();
    let store = Store::open(&on_server(server.get())).await.unwrap();
    put(&store, "before").await.unwrap();
    let mut open = store.begin(Durability::Disk).await.unwrap();
    open.meta_set("half", "way").await.unwrap();
    server.hang(true);
    let (read, write) = tokio::join!(
        bounded(store.meta_get("before")),
        bounded(open.meta_set("more", "x"))
    );
    for error in [read.map(drop), write] {
        let error = error.unwrap_err().to_string();
        assert!(error.contains("did not answer within"), "{error}");
    }
    // The transaction is over, whatever the server does.
    let late = bounded(open.commit()).await.unwrap_err().to_string();
    assert!(late.contains("rolled back"), "{late}");
    let begun = bounded(store.begin(Durability::Disk)).await.err().unwrap();
    let begun = begun.to_string();
    assert!(begun.contains("did not answer within"), "{begun}");
    server.hang(false);
    recovered(&store).await;
    assert!(store.meta_get("before").await.unwrap().is_some());
    assert_eq!(store.meta_get("half").await.unwrap(), None);
}

#[tokio::test]
async fn exhausted_connections_are_reported_and_come_back() {
    let server = OwnServer::start();
    let store = Store::open(&on_server(server.get())).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..limits::SERVER_CONNECTIONS {
        held.push(store.db.snapshot().await.unwrap());
    }
    let error = bounded(store.meta_get("x")).await.unwrap_err().to_string();
    assert!(error.contains("all connections"), "{error}");
    assert!(error.contains("were in use for 3 s"), "{error}");
    let error = bounded(put(&store, "x")).await.unwrap_err().to_string();
    assert!(error.contains("all connections"), "{error}");
    drop(held);
    recovered(&store).await;
}

#[tokio::test]
async fn writer_that_was_given_up_keeps_its_turn_at_the_server() {
    const WAITING: &str =
        "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let database = TestDatabase::new(Backend::Postgres);
    let (store, other) = (database.open().await, database.open().await);
    // Another process writes.
    let writer = other.begin(Durability::Disk).await.unwrap();
    let waiting = async |count: i64| {
        let is = || sql::query_scalar::<i64>(WAITING).fetch_one(&other.db);
        while is().await.unwrap() != count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let begin = tokio::spawn({
        let store = store.clone();
        async move { drop(store.begin(Durability::Disk).await) }
    });
    waiting(1).await;
    begin.abort();
    assert!(begin.await.unwrap_err().is_cancelled());
    let begin = store.begin(Durability::Disk);
    let second = async {
        tokio::select! {
            _ = begin => panic!("the other writes"),
            () = waiting(2) => {}
        }
    };
    let second = tokio::time::timeout(Duration::from_millis(300), second).await;
    assert!(second.is_err(), "two wait at the server");
    drop(writer);
    recovered(&store).await;
}
