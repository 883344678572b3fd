//! The policy snapshot: as new as the store, also after a change by another process, and read once per version.

use holdfast_protocol::ids::UserName;

use super::*;
use crate::access::tests::fixture::role;
use crate::clock;
use crate::model::lock::LockTarget;
use crate::model::presets;
use crate::model::role::RoleName;

fn alice() -> UserName {
    UserName::new("alice").unwrap()
}

fn key(text: &str) -> UserKey {
    UserKey {
        fingerprint: format!("SHA256:{text}"),
        public_key: format!("ssh-ed25519 {text}"),
        comment: String::new(),
    }
}

fn authority() -> Authority {
    Authority {
        fingerprint: "SHA256:corp".to_owned(),
        name: "corp".to_owned(),
        public_key: "ssh-ed25519 corp".to_owned(),
        comment: String::new(),
        added: T0,
    }
}

fn lock() -> NewLock {
    NewLock {
        target: LockTarget::User(alice()),
        message: String::new(),
        by: None,
        expires: None,
    }
}

/// Checks that the shared snapshot is what a process that starts now reads, and returns its version.
async fn assert_is_new(bed: &Fixture, change: &str) -> i64 {
    let shared = bed.store.policy().await.unwrap();
    let other = bed.beside().await;
    let anew = other.policy().await.unwrap();
    other.close().await;
    assert_eq!(shared, anew, "after {change}");
    shared.version
}

async fn snapshot_is_new_after_every_change(on: Backend) {
    let bed = Fixture::new(on).await;
    let store = &bed.store;
    let mut version = assert_is_new(&bed, "nothing").await;
    let user = NewUser {
        keys: vec![key("a")],
        roles: vec!["admin".to_owned()],
        ..NewUser::default()
    };
    let operator: RoleName = "operator".parse().unwrap();
    let policy = Policy {
        roles: vec![role("tech", "allow = { abilities = ['review'] }")],
        users: vec![],
    };
    macro_rules! change {
        ($change:expr) => {
            $change.await.unwrap();
            let now = assert_is_new(&bed, stringify!($change)).await;
            assert!(now > version);
            version = now;
        };
    }
    change!(store.change(async |tx| tx.add_user(&alice(), &user, T0).await));
    change!(store.change(async |tx| tx.add_keys(&alice(), &[key("b")], T0).await));
    change!(store.change(async |tx| tx.remove_key(&alice(), "SHA256:a").await));
    change!(store.change(async |tx| tx.add_roles(&alice(), &["operator".to_owned()]).await));
    change!(store.change(async |tx| tx.take_role(&alice(), &operator).await));
    change!(store.change(async |tx| {
        tx.add_principals(&alice(), &["alice@corp".to_owned()])
            .await
    }));
    change!(store.change(async |tx| tx.remove_principal(&alice(), "alice@corp").await));
    change!(store.change(async |tx| tx.set_email(&alice(), Some("alice@example.com")).await));
    change!(store.change(async |tx| tx.set_disabled(&alice(), true).await));
    change!(store.change(async |tx| tx.set_disabled(&alice(), false).await));
    change!(store.change(async |tx| tx.apply(&policy, Apply::default(), T0).await));
    change!(store.change(async |tx| tx.remove_role(&"tech".parse().unwrap()).await));
    change!(store.change(async |tx| tx.trust(&authority()).await));
    change!(store.change(async |tx| tx.distrust("corp").await));
    change!(store.change(async |tx| {
        tx.revoke(&[RevokedThing::Key("SHA256:b".to_owned())], false, T0)
            .await
    }));
    change!(store.change(async |tx| tx.unrevoke(&["SHA256:b".to_owned()]).await));
    change!(store.change(async |tx| tx.add_lock(lock(), T0).await));
    change!(store.change(async |tx| tx.remove_lock(1).await));
    change!(store.change(async |tx| tx.remove_user(&alice()).await));
    assert!(version > 1);
}

async fn snapshot_is_read_once_per_version(on: Backend) {
    let bed = Fixture::new(on).await;
    bed.join(1, Some("cam")).await;
    let other = bed.beside().await;
    let before = bed.store.policy().await.unwrap();
    let counted = bed.store.selects();
    for _ in 0..10 {
        let same = bed.store.policy().await.unwrap();
        assert!(std::sync::Arc::ptr_eq(&before, &same));
    }
    assert_eq!(bed.store.selects() - counted, 10, "more than the version");
    // Another process changes the locks: users are not read again.
    other
        .change(async |tx| tx.add_lock(lock(), T0).await)
        .await
        .unwrap();
    let (counted, asked) = (bed.store.selects(), clock::instant());
    let (version, cam) = bed
        .store
        .device_named_at_version(&name("cam"))
        .await
        .unwrap();
    assert_eq!(cam, bed.store.device_named(&name("cam")).await.unwrap());
    let after = bed.store.policy_since(version, asked).await.unwrap();
    assert_eq!(after.locks.len(), 1);
    assert!(std::sync::Arc::ptr_eq(&before.people, &after.people));
    assert_eq!(bed.store.selects() - counted, 4);
    // Work in the background shares the snapshot, and is counted apart.
    let counted = bed.store.selects();
    let shared = bed.store.in_background().policy().await.unwrap();
    assert!(std::sync::Arc::ptr_eq(&shared, &after));
    assert_eq!(bed.store.selects(), counted);
}

async fn a_recent_snapshot_is_used_only_within_its_age(on: Backend) {
    let bed = Fixture::new(on).await;
    let other = bed.beside().await;
    assert!(bed.store.newest_policy().is_none());
    let before = bed.store.policy().await.unwrap();
    other
        .change(async |tx| tx.add_lock(lock(), T0).await)
        .await
        .unwrap();
    let recent = bed.store.policy_within(HOUR).await.unwrap();
    assert_eq!(recent.version, before.version);
    let now = bed.store.policy_within(Duration::ZERO).await.unwrap();
    assert!(now.version > before.version);
    // The next caller finds what was read just now.
    let recent = bed.store.policy_within(HOUR).await.unwrap();
    assert_eq!(recent.version, now.version);
    assert_eq!(bed.store.newest_policy(), Some(now));
}

async fn a_damaged_role_stops_only_its_holders(on: Backend) {
    let bed = Fixture::new(on).await;
    let store = &bed.store;
    let policy = Policy {
        roles: vec![role("tech", "allow = { abilities = ['review'] }")],
        users: vec![],
    };
    store
        .change(async |tx| tx.apply(&policy, Apply::default(), T0).await)
        .await
        .unwrap();
    let bob = UserName::new("bob").unwrap();
    for (name, held) in [(alice(), "tech"), (bob.clone(), "admin")] {
        let user = NewUser {
            roles: vec![held.to_owned()],
            ..NewUser::default()
        };
        store
            .change(async |tx| tx.add_user(&name, &user, T0).await)
            .await
            .unwrap();
    }
    bed.raw("UPDATE roles SET body = 'x' WHERE name = 'tech'")
        .await;
    let policy = store.policy().await.unwrap();
    assert!(policy.subject(&alice()).is_err());
    let subject = policy.subject(&bob).unwrap().unwrap();
    assert_eq!(subject.roles, [presets::preset("admin").unwrap()]);
    let carol = UserName::new("carol").unwrap();
    assert_eq!(policy.subject(&carol), Ok(None));
}

on_both!(
    snapshot_is_new_after_every_change,
    snapshot_is_read_once_per_version,
    a_recent_snapshot_is_used_only_within_its_age,
    a_damaged_role_stops_only_its_holders,
);
