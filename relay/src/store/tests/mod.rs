use std::net::SocketAddr;

use holdfast_protocol::identity::token::TokenSecret;
use holdfast_protocol::ids::{DeviceId, DeviceName, Generation, LabelKey, LabelValue, PublicKey};
use holdfast_protocol::limits::MAX_LABELS;
use holdfast_protocol::wire::Refusal;
use sqlx::{Connection as _, SqlitePool};

use super::*;
use crate::clock::Timestamp;

mod audit;
mod authorities;
mod control;
pub(crate) mod database;
mod fleet;
mod keys;
mod members;
mod outage;
mod people;
mod servers;
mod snapshot;
mod tables;
mod tx;

use database::{Backend, TestDatabase, on_both};

/// A store with a database of its own.
struct Fixture {
    bed: TestDatabase,
    store: Store,
}

impl Fixture {
    async fn new(on: Backend) -> Self {
        let bed = TestDatabase::new(on);
        let store = bed.open().await;
        Self { bed, store }
    }

    /// Returns another store on the same database, as another process has one.
    async fn beside(&self) -> Store {
        Store::open_existing(&self.bed.database).await.unwrap()
    }

    async fn raw(&self, sql: &str) {
        self.bed.raw(sql).await.unwrap();
    }

    /// Begins a run of a member's.
    async fn run(&self, member: MemberId) -> RelayId {
        let relay = RelayId::random().unwrap();
        self.store
            .change(async |tx| tx.relay_started(relay, member, T0).await)
            .await
            .unwrap();
        relay
    }

    async fn token(&self, uses: u32, labels: &[(&str, &str)]) -> TokenSecret {
        let token = NewToken {
            for_relay: false,
            uses,
            ttl: HOUR,
            labels: label_map(labels),
        };
        self.store
            .change(async |tx| tx.create_token(token, T0).await)
            .await
            .unwrap()
            .1
    }

    async fn join(&self, key: u8, name: Option<&str>) -> Device {
        let secret = self.token(1, &[]).await;
        self.store
            .change(async |tx| tx.enrol(enrolment(&secret, key, name)).await)
            .await
            .unwrap()
    }
}

const T0: Timestamp = Timestamp(1_795_323_960_000_000);
const HOUR: Duration = Duration::from_secs(3600);

fn at(secs: u64) -> Timestamp {
    T0.after(Duration::from_secs(secs))
}

fn name(text: &str) -> DeviceName {
    DeviceName::new(text).unwrap()
}

fn label_map(labels: &[(&str, &str)]) -> Labels {
    let label = |(k, v): &(&str, &str)| (LabelKey::new(k).unwrap(), LabelValue::new(v).unwrap());
    labels.iter().map(label).collect()
}

fn enrolment<'a>(secret: &'a TokenSecret, key: u8, wanted: Option<&str>) -> Enrolment<'a> {
    Enrolment {
        secret,
        key: PublicKey([key; 32]),
        name: wanted.map(name),
        labels: Labels::new(),
        agent_version: "0.1.0".to_owned(),
        target: "armv7-unknown-linux-musleabihf".to_owned(),
        now: T0,
    }
}

fn facts(address: &str) -> TunnelFacts {
    TunnelFacts {
        connection_id: None,
        address: address.parse().unwrap(),
        agent_version: "0.2.0".to_owned(),
        target: "aarch64-unknown-linux-musl".to_owned(),
        keepalive_secs: 25,
        local_address: Some("192.168.1.7:40000".parse().unwrap()),
    }
}

#[tokio::test]
async fn the_database_is_durable_and_strict() {
    let bed = Fixture::new(Backend::Sqlite).await;
    let pragma = async |pool: &SqlitePool, sql: &'static str| -> String {
        let value: sqlx::sqlite::SqliteRow = sqlx::query(sql).fetch_one(pool).await.unwrap();
        use sqlx::Row as _;
        let number = value.try_get::<i64, _>(0).map(|n| n.to_string());
        number.unwrap_or_else(|_| value.get::<String, _>(0))
    };
    let Db::Sqlite(file) = &bed.store.db else {
        panic!("no file");
    };
    for pool in [&file.readers, &file.durable, &file.presence] {
        assert_eq!(pragma(pool, "PRAGMA journal_mode").await, "wal");
        assert_eq!(pragma(pool, "PRAGMA foreign_keys").await, "1");
        assert_eq!(pragma(pool, "PRAGMA busy_timeout").await, "5000");
    }
    // 2 is FULL: a commit is on the disk. 1 is NORMAL: it may be lost with the power, but not damaged.
    assert_eq!(pragma(&file.durable, "PRAGMA synchronous").await, "2");
    assert_eq!(pragma(&file.presence, "PRAGMA synchronous").await, "1");
}

#[tokio::test]
async fn what_is_no_database_of_ours_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("relay.db");
    assert!(
        Store::open(&path).await.is_err(),
        "made a database on its own"
    );
    std::fs::write(&path, "this is a letter, not a database".repeat(99)).unwrap();
    assert!(Store::open(&path).await.is_err());
    std::fs::write(&path, "").unwrap();
    let error = Store::open_existing(&path).await.unwrap_err();
    assert!(
        matches!(error, StoreError::Version { found: 0, .. }),
        "{error}"
    );

    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "").unwrap();
    let store = Store::open(&path).await.unwrap();
    Store::open(&path).await.unwrap();
    Store::open_existing(&path).await.unwrap();
    let newer =
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
        VALUES (999, 'from the future', TRUE, x'00', 0)";
    store.close().await;
    let url = format!("sqlite:{}", path.display());
    let mut beside = sqlx::SqliteConnection::connect(&url).await.unwrap();
    sqlx::query(newer).execute(&mut beside).await.unwrap();
    beside.close().await.unwrap();
    let error = Store::open(&path).await.unwrap_err().to_string();
    assert!(error.contains("cannot be brought up to date"), "{error}");
    let error = Store::open_existing(&path).await.unwrap_err().to_string();
    assert!(error.contains("has tables of version 999"), "{error}");
}

async fn facts_are_kept_and_a_database_stays_with_its_cluster(on: Backend) {
    let bed = Fixture::new(on).await;
    assert_eq!(bed.store.meta_get("x").await.unwrap(), None);
    bed.store
        .change(async |tx| tx.meta_set("x", "1").await)
        .await
        .unwrap();
    bed.store
        .change(async |tx| tx.meta_set("x", "2").await)
        .await
        .unwrap();
    assert_eq!(bed.store.meta_get("x").await.unwrap().as_deref(), Some("2"));

    bed.store
        .change(async |tx| tx.bind_cluster(&PublicKey([1; 32])).await)
        .await
        .unwrap();
    bed.store
        .change(async |tx| tx.bind_cluster(&PublicKey([1; 32])).await)
        .await
        .unwrap();
    let other = bed
        .store
        .change(async |tx| tx.bind_cluster(&PublicKey([2; 32])).await)
        .await;
    assert!(matches!(other, Err(StoreError::OtherCluster)));
}

// PostgreSQL has no U+0000 in a text, so both have none.
async fn text_with_a_null_is_kept_without_it(on: Backend) {
    let bed = Fixture::new(on).await;
    let set = async |tx: &mut Tx| tx.meta_set("a\0b", "c\0\0d").await;
    bed.store.change(set).await.unwrap();
    for key in ["a\0b", "a\u{FFFD}b"] {
        let found = bed.store.meta_get(key).await.unwrap();
        assert_eq!(found.as_deref(), Some("c\u{FFFD}\u{FFFD}d"), "{key:?}");
    }
}

async fn foreign_writes_are_distinguished_from_presence(on: Backend) {
    let bed = Fixture::new(on).await;
    let device = bed.join(1, None).await;
    let beside = bed.beside().await;
    let data = bed.store.data_version().await.unwrap();
    let access = bed.store.access_version().await.unwrap();
    // On a server the number grows by what is written to other databases, too.
    if on == Backend::Sqlite {
        assert_eq!(bed.store.data_version().await.unwrap(), data);
    }

    let relay = RelayId::random().unwrap();
    beside
        .change(async |tx| tx.relay_started(relay, MemberId::FIRST, T0).await)
        .await
        .unwrap();
    beside
        .change(async |tx| {
            tx.tunnel_opened(device.id, relay, facts("1.2.3.4:5"), T0)
                .await
        })
        .await
        .unwrap();
    let after_presence = bed.store.data_version().await.unwrap();
    assert_ne!(after_presence, data);
    assert_eq!(bed.store.access_version().await.unwrap(), access);

    beside
        .change(async |tx| tx.revoke_device(&device.name, T0, false).await)
        .await
        .unwrap();
    assert_ne!(bed.store.data_version().await.unwrap(), after_presence);
    assert!(bed.store.access_version().await.unwrap() > access);
    assert_eq!(bed.store.revoked_devices().await.unwrap(), [device.id]);
}

async fn dropped_write_rolls_back_and_releases_the_lock(on: Backend) {
    let bed = Fixture::new(on).await;
    let mut tx = bed.store.begin(Durability::Disk).await.unwrap();
    tx.meta_set("half", "way").await.unwrap();
    drop(tx);
    bed.store
        .change(async |tx| tx.meta_set("whole", "1").await)
        .await
        .unwrap();
    assert_eq!(bed.store.meta_get("half").await.unwrap(), None);
}

on_both!(
    facts_are_kept_and_a_database_stays_with_its_cluster,
    foreign_writes_are_distinguished_from_presence,
    text_with_a_null_is_kept_without_it,
    dropped_write_rolls_back_and_releases_the_lock,
);
