//! Measures the speed of session control: decisions a second, and how long a slot of a quota takes to be taken and
//! given back while 10,000 are in use. `cargo xtask bench control` runs it.
#![expect(
    clippy::disallowed_macros,
    reason = "a test writes for who runs it, and may end when that fails"
)]

use std::num::NonZeroU32;
use std::time::Duration;

use crate::access::decision::{Facts, reach};
use crate::access::policy::{Ability, Subject};
use crate::clock::{self, Timestamp};
use crate::model::device::Presence;
use crate::model::quota::Quota;
use crate::model::role::rule::{LabelRule, LoginRule, Rule, ValuePattern, ValueRule};
use crate::model::role::{Role, RoleName};
use crate::store::{
    Device, Durability, Labels, LeaseRow, MemberId, PresenceState, RelayId, Store, User,
};
use holdfast_protocol::ids::{
    DeviceId, DeviceName, LabelKey, LabelValue, Login, PublicKey, UserName,
};

/// Slots in use while one more is taken.
const LIVE: i64 = 10_000;
const DECISIONS: u32 = 200_000;
const LEASES: i64 = 2_000;

#[test]
#[ignore = "a measurement: `cargo xtask bench control`"]
fn session_control() {
    decisions();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("relay.db");
        std::fs::write(&path, "").unwrap();
        let store = Store::open(&path).await.unwrap();
        leases(&store, Duration::from_millis(2)).await;
        store.close().await;
    });
}

/// Measures decisions for a user with three roles of ten rules each, on a device that only the last rule of each is
/// about.
fn decisions() {
    let roles = vec![role("night", 10), role("day", 10), role("berlin", 10)];
    let names = roles.iter().map(|role| role.name.to_string()).collect();
    let subject = Subject {
        elsewhere: None,
        user: user(names),
        roles,
    };
    let (device, login) = (device(), Login::new("pi").unwrap());
    let mut allowed = 0_u32;
    let began = clock::instant();
    for _ in 0..DECISIONS {
        let facts = Facts {
            subject: &subject,
            client: [203, 0, 113, 7].into(),
            name: "kitchen-cam",
            device: Some(&device),
        };
        let decided = reach(facts).and_then(|reach| reach.authorize(&login, Ability::Exec));
        allowed += u32::from(std::hint::black_box(decided).is_ok());
    }
    let rate = f64::from(DECISIONS) / began.elapsed().as_secs_f64();
    assert_eq!(allowed, DECISIONS);
    println!("decisions: {rate:.0} a second (3 roles, 30 rules)");
}

/// Measures slots, 99 of 100 of which should take no longer than `aim`.
pub(super) async fn leases(store: &Store, aim: Duration) {
    let relay = RelayId::random().unwrap();
    store
        .change(async |tx| {
            tx.relay_started(relay, MemberId::FIRST, Timestamp::now())
                .await
        })
        .await
        .unwrap();
    let lease = |number: i64, user: String| LeaseRow {
        relay,
        number,
        quota: Quota::Sessions,
        user: UserName::new(&user).unwrap(),
    };
    for number in 0..LIVE {
        let lease = lease(number, format!("user-{}", number % 500));
        take(store, &lease, 1_000).await;
    }
    let mut both = Vec::new();
    for number in LIVE..LIVE + LEASES {
        // This client has twenty already.
        let lease = lease(number, format!("user-{}", number % 500));
        let began = clock::instant();
        take(store, &lease, 100).await;
        release(store, relay, number).await;
        both.push(began.elapsed());
    }
    both.sort_unstable();
    let at = |percent: usize| both[both.len() * percent / 100].as_secs_f64() * 1e3;
    println!(
        "a slot taken and given back, {LIVE} in use: median {:.2} ms, p99 {:.2} ms (aim: under {} ms)",
        at(50),
        at(99),
        aim.as_millis()
    );
    let worst = both.last().copied().unwrap_or(Duration::ZERO);
    println!(
        "the slowest of {LEASES}: {:.2} ms",
        worst.as_secs_f64() * 1e3
    );
}

async fn take(store: &Store, lease: &LeaseRow, max: u32) {
    let mut tx = store.begin(Durability::Process).await.unwrap();
    let taken = tx.take_lease(lease, NonZeroU32::new(max), Timestamp::now());
    taken.await.unwrap().unwrap();
    tx.commit().await.unwrap();
}

async fn release(store: &Store, relay: RelayId, number: i64) {
    let mut tx = store.begin(Durability::Process).await.unwrap();
    tx.release_leases(relay, [number]).await.unwrap();
    tx.commit().await.unwrap();
}

/// Returns a role of `rules` rules, the last of which is about [`device`].
fn role(name: &str, rules: usize) -> Role {
    let rule = |number: usize| {
        let site = if number + 1 == rules {
            "berlin".to_owned()
        } else {
            format!("site-{number}")
        };
        let value = ValueRule(vec![ValuePattern::Exact(LabelValue::new(&site).unwrap())]);
        Rule {
            labels: Some(LabelRule([(LabelKey::new("site").unwrap(), value)].into())),
            logins: Some([LoginRule::Exact(Login::new("pi").unwrap()), LoginRule::User].into()),
            abilities: Some([Ability::Exec, Ability::Shell, Ability::Sftp].into()),
        }
    };
    Role {
        allow: (0..rules).map(rule).collect(),
        ..Role::empty(RoleName::new(name).unwrap())
    }
}

fn user(roles: Vec<String>) -> User {
    User {
        id: crate::store::UserId(1),
        name: UserName::new("alice").unwrap(),
        email: None,
        roles,
        disabled: false,
    }
}

fn device() -> Device {
    let label =
        |key: &str, value: &str| (LabelKey::new(key).unwrap(), LabelValue::new(value).unwrap());
    Device {
        id: DeviceId([1; 16]),
        name: DeviceName::new("kitchen-cam").unwrap(),
        key: PublicKey([1; 32]),
        labels: Labels::from([label("site", "berlin"), label("role", "camera")]),
        enrolled: Timestamp(0),
        presence: Presence {
            state: PresenceState::Online,
            since: None,
            last_seen: None,
            address: None,
        },
        agent_version: String::new(),
        target: String::new(),
        cloned: None,
        token: None,
        revoked: None,
    }
}
