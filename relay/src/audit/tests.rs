use std::path::PathBuf;
use std::time::Duration;

use sqlx::{Connection as _, SqliteConnection};
use tokio::time::timeout;

use super::*;
use crate::audit::limits::{AUDIT_HELD, AUDIT_REFUSAL_ROWS};
use crate::store::AuditFilter;
use crate::store::tests::database::{Backend, TestDatabase, on_both};

/// A store with a log, in a folder of its own.
struct Fixture {
    database: TestDatabase,
    store: Store,
    audit: Audit,
}

impl Fixture {
    async fn new(when_unwritable: WhenUnwritable, on: Backend) -> Self {
        let database = TestDatabase::new(on);
        let store = database.open().await;
        let audit = Audit::open(store.clone(), Some("relay:1".to_owned()), when_unwritable);
        Self {
            database,
            store,
            audit,
        }
    }

    fn path(&self) -> PathBuf {
        self.database.dir.path().join("relay.db")
    }

    async fn entries(&self) -> Vec<AuditEntry> {
        let all = AuditFilter::default();
        self.store.audit_after(&all, 0, 1_000_000).await.unwrap()
    }

    /// Makes every write of the log fail, as a full disk would.
    async fn break_store(&self) {
        for table in ["audit", "meta"] {
            self.database.fail_inserts(table).await;
        }
    }

    async fn repair_store(&self) {
        for table in ["audit", "meta"] {
            self.database.allow_inserts(table).await;
        }
    }

    async fn wait_admits(&self, admits: bool) {
        let waited = timeout(Duration::from_secs(20), async {
            while self.audit.admits().is_ok() != admits {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        waited.await.unwrap();
    }
}

fn numbered(n: u64) -> Event {
    Event::new(EventKind::SessionStart).with("n", n)
}

async fn what_was_recorded_is_in_the_store_and_in_order(on: Backend) {
    let fixture = Fixture::new(WhenUnwritable::Refuse, on).await;
    for n in 0..5 {
        fixture.audit.note(numbered(n)).await;
    }
    fixture.audit.record(numbered(5)).await.unwrap();
    let entries = fixture.entries().await;
    let numbers: Vec<_> = entries
        .iter()
        .map(|entry| entry.more["n"].as_u64())
        .collect();
    assert_eq!(numbers, (0..6).map(Some).collect::<Vec<_>>());
    assert_eq!(entries[0].relay.as_deref(), Some("relay:1"));
    assert_eq!(entries[0].event, "session.start");
}

async fn many_that_wait_are_all_written_and_none_twice(on: Backend) {
    let fixture = Fixture::new(WhenUnwritable::Refuse, on).await;
    let mut waiting = tokio::task::JoinSet::new();
    for n in 0..2_000 {
        let audit = fixture.audit.clone();
        waiting.spawn(async move { audit.record(numbered(n)).await });
    }
    while let Some(done) = waiting.join_next().await {
        done.unwrap().unwrap();
    }
    let entries = fixture.entries().await;
    let mut numbers: Vec<_> = entries
        .iter()
        .map(|entry| entry.more["n"].as_u64().unwrap())
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..2_000).collect::<Vec<_>>());
}

async fn close_writes_queue_and_sums(on: Backend) {
    let fixture = Fixture::new(WhenUnwritable::Refuse, on).await;
    let source = Source::of("203.0.113.7".parse().unwrap());
    for n in 0..10 {
        let event = Event::new(EventKind::UserLoginFailed).with("n", n);
        fixture.audit.note_failure(source, event).await;
    }
    fixture.audit.close().await;
    let entries = fixture.entries().await;
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[1].more["count"], 9);
    assert_eq!(entries[1].more["source"], "203.0.113.7");
    assert_eq!(
        fixture.audit.record(numbered(1)).await,
        Err(AuditError::Stopped)
    );
}

async fn without_a_log_starts_fail_and_ends_are_logged_later(on: Backend) {
    let fixture = Fixture::new(WhenUnwritable::Refuse, on).await;
    fixture.audit.admits().unwrap();
    fixture.break_store().await;
    assert_eq!(
        fixture.audit.record(numbered(1)).await,
        Err(AuditError::Unwritable)
    );
    assert_eq!(fixture.audit.admits(), Err(AuditError::Unwritable));
    fixture.audit.note(numbered(2)).await;
    assert_eq!(
        fixture.audit.record(numbered(3)).await,
        Err(AuditError::Unwritable)
    );
    assert!(fixture.entries().await.is_empty());
    fixture.repair_store().await;
    fixture.wait_admits(true).await;
    fixture.audit.record(numbered(4)).await.unwrap();
    let numbers: Vec<_> = fixture
        .entries()
        .await
        .iter()
        .map(|e| e.more["n"].as_u64())
        .collect();
    assert_eq!(numbers, [Some(2), Some(4)]);
}

async fn events_that_belong_together_are_all_written_or_none(on: Backend) {
    let fixture = Fixture::new(WhenUnwritable::Refuse, on).await;
    fixture.break_store().await;
    let both = || vec![numbered(1), numbered(2)];
    let refused = fixture.audit.record_all(both()).await;
    assert_eq!(refused, Err(AuditError::Unwritable));
    fixture.audit.note(numbered(3)).await;
    fixture.repair_store().await;
    fixture.wait_admits(true).await;
    fixture.audit.record_all(both()).await.unwrap();
    let entries = fixture.entries().await;
    let numbers: Vec<_> = entries.iter().map(|e| e.more["n"].as_u64()).collect();
    assert_eq!(numbers, [Some(3), Some(1), Some(2)]);
}

async fn continue_keeps_sessions_and_counts_overflow(on: Backend) {
    let fixture = Fixture::new(WhenUnwritable::Continue, on).await;
    fixture.break_store().await;
    let all = AUDIT_HELD as u64 + 100;
    for n in 0..all {
        fixture.audit.note(numbered(n)).await;
    }
    fixture.audit.record(numbered(all)).await.unwrap();
    fixture.audit.admits().unwrap();
    fixture.repair_store().await;
    let waited = timeout(Duration::from_secs(20), async {
        while fixture.entries().await.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await.unwrap();
    let entries = fixture.entries().await;
    assert_eq!(entries.len(), AUDIT_HELD + 1);
    let last = entries.last().unwrap();
    assert_eq!(last.event, "audit.lost");
    assert_eq!(last.more["count"], 101);
    assert_eq!(last.more["events"]["session.start"], 101);
    fixture.audit.record(numbered(0)).await.unwrap();
    assert_eq!(
        fixture.entries().await.len(),
        AUDIT_HELD + 2,
        "recorded once"
    );
}

#[tokio::test]
async fn a_full_queue_makes_its_callers_wait() {
    let fixture = Fixture::new(WhenUnwritable::Refuse, Backend::Sqlite).await;
    // Another process writes to the database, for longer than any caller here waits.
    let url = format!("sqlite:{}", fixture.path().display());
    let mut other = SqliteConnection::connect(&url).await.unwrap();
    sqlx::query("BEGIN IMMEDIATE")
        .execute(&mut other)
        .await
        .unwrap();
    let mut queued = 0;
    while timeout(
        Duration::from_millis(500),
        fixture.audit.note(numbered(queued)),
    )
    .await
    .is_ok()
    {
        queued += 1;
        assert!(queued < 100_000, "the queue has no bound");
    }
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    fixture.audit.record(numbered(queued)).await.unwrap();
    let entries = fixture.entries().await;
    assert_eq!(
        entries.len() as u64,
        queued + 1,
        "nothing that was taken is lost"
    );
}

async fn refusals_of_one_user_are_summed_by_kind(on: Backend) {
    let fixture = Fixture::new(WhenUnwritable::Refuse, on).await;
    let kinds = [EventKind::SessionRejected, EventKind::EnvRejected];
    for n in 0..u64::from(AUDIT_REFUSAL_ROWS) + 5 {
        for kind in kinds {
            let event = Event::new(kind)
                .user(Actor::by_key("bob", "k"))
                .with("n", n);
            fixture.audit.note_refusal(event).await;
        }
    }
    let eve = Event::new(EventKind::SessionRejected).user(Actor::by_key("eve", "k"));
    fixture.audit.note_refusal(eve).await;
    fixture.audit.close().await;
    let entries = fixture.entries().await;
    for kind in kinds {
        let of_bob = |entry: &&AuditEntry| {
            entry.event == kind.as_str() && entry.user.as_deref() == Some("bob")
        };
        let rows: Vec<_> = entries.iter().filter(of_bob).collect();
        let (sum, single) = rows.split_last().unwrap();
        assert_eq!(single.len(), AUDIT_REFUSAL_ROWS as usize, "{kind}");
        assert!(single.iter().all(|row| !row.more.contains_key("count")));
        assert_eq!(sum.more["count"], 5, "{kind}");
    }
    let of_eve = entries
        .iter()
        .filter(|entry| entry.user.as_deref() == Some("eve"));
    assert_eq!(of_eve.count(), 1);
}

on_both!(
    what_was_recorded_is_in_the_store_and_in_order,
    many_that_wait_are_all_written_and_none_twice,
    close_writes_queue_and_sums,
    without_a_log_starts_fail_and_ends_are_logged_later,
    events_that_belong_together_are_all_written_or_none,
    continue_keeps_sessions_and_counts_overflow,
    refusals_of_one_user_are_summed_by_kind,
);
