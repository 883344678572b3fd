//! Measures what several relays share on one PostgreSQL server, which syncs each commit: how long a slot of a quota takes
//! to be taken and given back, and how fast three writers record events. `cargo xtask bench cluster` runs it.
#![expect(
    clippy::disallowed_macros,
    reason = "a test writes for who runs it, and may end when that fails"
)]

use std::time::Duration;

use holdfast_tests::postgres::OwnServer;
use tokio::task::JoinSet;

use super::control::leases;
use crate::audit::{Audit, Event, EventKind, WhenUnwritable};
use crate::clock;
use crate::state::{Database, DatabaseUrl};
use crate::store::Store;

/// The writers of the audit log, each with connections of its own.
const WRITERS: u64 = 3;
/// Sessions of each writer that record at the same time, and events of each.
const SESSIONS: u64 = 32;
const EVENTS: u64 = 100;

#[test]
#[ignore = "a measurement: `cargo xtask bench cluster`"]
fn one_server_for_several_relays() {
    let server = OwnServer::start_durable();
    let made = server
        .get()
        .psql("CREATE DATABASE relay TEMPLATE template0");
    made.unwrap();
    let url = DatabaseUrl::new(&server.get().url("relay")).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let database = Database::Server(url);
        let store = Store::open(&database).await.unwrap();
        leases(&store, Duration::from_millis(5)).await;
        record(&database).await;
        store.close().await;
    });
}

/// Records events by several writers at once, each of which waits for its commit.
async fn record(database: &Database) {
    let mut writers = Vec::new();
    for _ in 0..WRITERS {
        let store = Store::open(database).await.unwrap();
        let audit = Audit::open(store.clone(), None, WhenUnwritable::Refuse);
        writers.push((store, audit));
    }
    let (first, _) = &writers[0];
    let before = first.audit_head().await.unwrap();
    let began = clock::instant();
    let mut sessions = JoinSet::new();
    for (_, audit) in &writers {
        for _ in 0..SESSIONS {
            let audit = audit.clone();
            sessions.spawn(async move {
                for _ in 0..EVENTS {
                    let event = Event::new(EventKind::SessionStart);
                    audit.record(event.with("command", "uptime")).await.unwrap();
                }
            });
        }
    }
    while let Some(done) = sessions.join_next().await {
        done.unwrap();
    }
    let took = began.elapsed();
    let rows = WRITERS * SESSIONS * EVENTS;
    let head = first.audit_head().await.unwrap();
    assert_eq!((head - before).unsigned_abs(), rows, "ids without a gap");
    let rate = rows as f64 / took.as_secs_f64();
    println!("audit log: {rate:.0} rows a second, {WRITERS} writers with {SESSIONS} sessions each");
    for (store, audit) in writers {
        audit.close().await;
        store.close().await;
    }
}
