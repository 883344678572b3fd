//! The relay's keys, as the store remembers them.

use std::path::PathBuf;

use super::{Backend, Fixture, on_both};
use crate::audit::{Event, EventKind};
use crate::clock::Timestamp;
use crate::state::KeyFingerprint;
use crate::store::access::keys::BoundKeyError;
use crate::store::meta::ROSTER;
use crate::store::{AuditFilter, Durability};

const RECORDING: &str = "recording.key";

fn key(name: &'static str, fingerprint: &str) -> KeyFingerprint {
    KeyFingerprint {
        owner: None,
        name,
        file: PathBuf::from("/var/lib/holdfast").join(name),
        fingerprint: fingerprint.to_owned(),
        breaks: "nothing would work",
    }
}

async fn first_keys_are_noted_and_others_are_refused(on: Backend) {
    let bed = Fixture::new(on).await;
    let first = [key("tunnel.key", "aa"), key("ssh_ca", "SHA256:b")];
    bed.store.check_keys(&first).await.unwrap();
    bed.store
        .change(async |tx| tx.bind_keys(&first).await)
        .await
        .unwrap();
    bed.store
        .change(async |tx| tx.bind_keys(&first).await)
        .await
        .unwrap();
    let other = [key("ssh_ca", "SHA256:c"), key("quic", "dd")];
    for refused in [
        bed.store
            .change(async |tx| tx.bind_keys(&other).await)
            .await
            .unwrap_err(),
        bed.store.check_keys(&other).await.unwrap_err(),
    ] {
        assert_eq!(
            refused.to_string(),
            "/var/lib/holdfast/ssh_ca holds another key than this relay has used so far (expected fingerprint \
             SHA256:b, found SHA256:c): restore the file from a backup, since nothing would work; if the key was \
             replaced on purpose, start `relay serve --accept-key ssh_ca` once"
        );
    }
    let event = |key: &KeyFingerprint, before: Option<&str>| {
        let event = Event::new(EventKind::RelayKeyAccepted).with("before", before);
        event.with("file", key.name).entry(None, Timestamp(1))
    };
    let mut tx = bed.store.begin(Durability::Disk).await.unwrap();
    let unknown = tx.accept_keys(&other, &["ssh".into()]).await;
    assert!(matches!(unknown, Err(BoundKeyError::Unknown(..))));
    drop(tx);
    // A second time, nothing is replaced.
    for _ in 0..2 {
        let names = ["ssh_ca".to_owned()];
        let mut tx = bed.store.begin(Durability::Disk).await.unwrap();
        for (key, before) in tx.accept_keys(&other, &names).await.unwrap() {
            tx.audit(event(key, before.as_deref()));
        }
        tx.commit().await.unwrap();
    }
    let log = bed.store.audit_after(&AuditFilter::default(), 0, 10).await;
    let log = log.unwrap();
    assert_eq!(log.len(), 1, "{log:?}");
    assert_eq!(log[0].event, "relay.key.accepted");
    assert_eq!(
        (&log[0].more["file"], &log[0].more["before"]),
        (&"ssh_ca".into(), &"SHA256:b".into())
    );
    bed.store
        .change(async |tx| tx.bind_keys(&other).await)
        .await
        .unwrap();
    assert!(bed.store.check_keys(&first).await.is_err());
}

async fn recording_key_of_an_earlier_version_is_known_from_the_roster(on: Backend) {
    let bed = Fixture::new(on).await;
    bed.store
        .change(async |tx| tx.meta_set(ROSTER, "3 a:1 abcd").await)
        .await
        .unwrap();
    let refused = bed
        .store
        .change(async |tx| tx.bind_keys(&[key(RECORDING, "ef")]).await)
        .await;
    assert!(matches!(refused, Err(BoundKeyError::Replaced { .. })));
    let same = [key(RECORDING, "abcd")];
    bed.store
        .change(async |tx| tx.bind_keys(&same).await)
        .await
        .unwrap();
    bed.store
        .change(async |tx| tx.meta_set(ROSTER, "4 a:1 ef").await)
        .await
        .unwrap();
    bed.store
        .change(async |tx| tx.bind_keys(&same).await)
        .await
        .unwrap();
}

on_both!(
    first_keys_are_noted_and_others_are_refused,
    recording_key_of_an_earlier_version_is_known_from_the_roster,
);
