//! Measures the speed of the audit log with a million events in it: `cargo xtask bench audit`.

#![expect(
    clippy::disallowed_macros,
    reason = "a test writes for who runs it, and may end when that fails"
)]

use std::time::Duration;

use crate::audit::{Actor, Audit, DeviceFacts, Event, EventKind, WhenUnwritable};
use crate::clock::{self, Timestamp};
use crate::store::{AuditEntry, AuditFilter, AuditKey, Store};
use holdfast_protocol::ids::{DeviceId, DeviceName, SessionId};

const ROWS: u64 = 1_000_000;
const PAGE: u32 = 100;
/// The time that an operator at a terminal may wait for a page.
const AIM: Duration = Duration::from_secs(1);
const BEGAN: Timestamp = Timestamp(1_795_323_960_000_000);

#[test]
#[ignore = "a measurement of some minutes: cargo xtask bench audit"]
fn a_page_of_a_million_events() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("relay.db");
        std::fs::write(&path, "").unwrap();
        let store = Store::open(&path).await.unwrap();
        fill(&store).await;
        let bytes = std::fs::metadata(&path).unwrap().len();
        println!("database  {} MiB for {ROWS} events", bytes / 1024 / 1024);
        for (name, filter) in filters() {
            let took = worst_page(&store, &filter).await;
            println!("page of {PAGE}, {name:<38} {:>8.2} ms", millis(took));
            assert!(took < AIM, "{name}: {took:?}");
        }
        record(&store).await;
    });
}

async fn fill(store: &Store) {
    let began = clock::instant();
    for batch in 0..ROWS / 1_000 {
        let entries: Vec<AuditEntry> = (0..1_000).map(|n| entry(batch * 1_000 + n)).collect();
        store
            .change(async |tx| tx.append_audit(&entries).await)
            .await
            .unwrap();
    }
    let rate = ROWS / began.elapsed().as_secs().max(1);
    println!("appended  {rate} events/s in commits of 1000, all indexes");
}

/// Events of 50 users on 500 devices over a hundred days; one user and one device have half of them.
fn entry(n: u64) -> AuditEntry {
    let kinds = [
        EventKind::SessionStart,
        EventKind::Exec,
        EventKind::SessionEnd,
        EventKind::UserLogin,
    ];
    let kind = match n {
        n if n.is_multiple_of(100_000) => EventKind::DeviceRevoked,
        n => kinds[usize::try_from(n % 4).unwrap()],
    };
    let spread = |n: u64, of: u64| {
        if n.is_multiple_of(2) {
            0
        } else {
            n.wrapping_mul(2_654_435_761) % of
        }
    };
    let device = spread(n, 500);
    let id = DeviceId(u128::from(device).to_be_bytes());
    let facts = DeviceFacts {
        name: DeviceName::new(&format!("device-{device}")).unwrap(),
        id,
        address: "192.168.1.7:41822".parse().ok(),
        clock_skew: None,
    };
    let event = Event::new(kind)
        .user(Actor::by_key(
            &format!("user-{}", spread(n / 2, 50)),
            "SHA256:UCUiLr7Pjs9wFFJMDByLgc3NrtdU344OgUM45wZPcIQ",
        ))
        .device(facts)
        .client("203.0.113.9:4711".parse().unwrap())
        .session(SessionId(u128::from(n / 3).to_be_bytes()))
        .with("command", "systemctl status some-service | head -20");
    let time = BEGAN.after(Duration::from_micros(n * 8_640_000));
    event.at(time).entry(Some("relay.example.com:4433"), time)
}

fn filters() -> Vec<(&'static str, AuditFilter)> {
    let all = AuditFilter::default();
    let day = |n: u64| Some(BEGAN.after(Duration::from_secs(n * 86_400)));
    let user = |n: u64| Some(format!("user-{n}"));
    let event = |kind: EventKind| Some(kind.as_str().to_owned());
    vec![
        ("no condition", all.clone()),
        (
            "--since a day in the middle",
            AuditFilter {
                since: day(50),
                until: day(51),
                ..all.clone()
            },
        ),
        (
            "--user of half of all",
            AuditFilter {
                user: user(0),
                ..all.clone()
            },
        ),
        (
            "--user of a hundredth",
            AuditFilter {
                user: user(7),
                ..all.clone()
            },
        ),
        (
            "--user that there is not",
            AuditFilter {
                user: user(99),
                ..all.clone()
            },
        ),
        (
            "--device of half of all",
            AuditFilter {
                device: Some("device-0".into()),
                ..all.clone()
            },
        ),
        (
            "--device by id",
            AuditFilter {
                device_id: Some(DeviceId([0; 16]).to_string()),
                ..all.clone()
            },
        ),
        (
            "--event of a quarter",
            AuditFilter {
                event: event(EventKind::Exec),
                ..all.clone()
            },
        ),
        (
            "--event of ten",
            AuditFilter {
                event: event(EventKind::DeviceRevoked),
                ..all.clone()
            },
        ),
        (
            "--session",
            AuditFilter {
                session: Some(SessionId(77_777_u128.to_be_bytes()).to_string()),
                ..all.clone()
            },
        ),
        (
            "--user of half, --event of ten",
            AuditFilter {
                user: user(0),
                event: event(EventKind::DeviceRevoked),
                ..all.clone()
            },
        ),
        (
            "--user of half, --device never theirs",
            AuditFilter {
                user: user(0),
                device: Some("device-499".into()),
                ..all.clone()
            },
        ),
        (
            "--device of half, --event, --since",
            AuditFilter {
                device: Some("device-0".into()),
                event: event(EventKind::Exec),
                since: day(99),
                ..all
            },
        ),
    ]
}

/// Returns the longest of five: the newest page, and the first page from the beginning.
async fn worst_page(store: &Store, filter: &AuditFilter) -> Duration {
    let mut worst = Duration::ZERO;
    for _ in 0..5 {
        let began = clock::instant();
        let head = store.audit_head().await.unwrap();
        let from = store.audit_newest(filter, head, PAGE).await.unwrap();
        store.audit_page(filter, from, head, PAGE).await.unwrap();
        worst = worst.max(began.elapsed());
        let began = clock::instant();
        store
            .audit_page(filter, AuditKey::START, head, PAGE)
            .await
            .unwrap();
        worst = worst.max(began.elapsed());
    }
    worst
}

async fn record(store: &Store) {
    let audit = Audit::open(store.clone(), None, WhenUnwritable::Refuse);
    let mut alone: Vec<Duration> = Vec::new();
    for _ in 0..200 {
        let began = clock::instant();
        audit.record(Event::exec(b"uptime")).await.unwrap();
        alone.push(began.elapsed());
    }
    alone.sort_unstable();
    println!(
        "record, one after the other: p50 {:.2} ms, p99 {:.2} ms",
        millis(alone[100]),
        millis(alone[197])
    );
    let began = clock::instant();
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let audit = audit.clone();
        all.spawn(async move {
            for _ in 0..100 {
                audit.record(Event::exec(b"uptime")).await.unwrap();
            }
        });
    }
    while let Some(done) = all.join_next().await {
        done.unwrap();
    }
    println!(
        "record, a hundred at once: {:.0} events/s, each on the disk",
        10_000.0 / began.elapsed().as_secs_f64()
    );
    audit.close().await;
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
