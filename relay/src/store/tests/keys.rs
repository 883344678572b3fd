//! The relay's keys, as the store remembers them.

use std::path::PathBuf;

use super::Bed;
use crate::audit::{Event, EventKind};
use crate::clock::Timestamp;
use crate::state::KeyFingerprint;
use crate::store::AuditFilter;
use crate::store::access::keys::BoundKeyError;
use crate::store::meta::ROSTER;

const RECORDING: &str = "recording.key";

fn key(name: &'static str, fingerprint: &str) -> KeyFingerprint {
    KeyFingerprint {
        name,
        file: PathBuf::from("/var/lib/holdfast").join(name),
        fingerprint: fingerprint.to_owned(),
        breaks: "nothing would work",
    }
}

#[tokio::test]
async fn first_keys_are_noted_and_others_are_refused() {
    let bed = Bed::new().await;
    let first = [key("tunnel.key", "aa"), key("ssh_ca", "SHA256:b")];
    bed.store.check_keys(&first).await.unwrap();
    bed.store.bind_keys(&first).await.unwrap();
    bed.store.bind_keys(&first).await.unwrap();
    let other = [key("ssh_ca", "SHA256:c"), key("quic", "dd")];
    for refused in [
        bed.store.bind_keys(&other).await.unwrap_err(),
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
    let unknown = bed.store.accept_keys(&other, &["ssh".into()], event).await;
    assert!(matches!(unknown, Err(BoundKeyError::Unknown(..))));
    // A second time, nothing is replaced.
    for _ in 0..2 {
        let names = ["ssh_ca".to_owned()];
        let accepted = bed.store.accept_keys(&other, &names, event).await;
        accepted.unwrap();
    }
    let log = bed.store.audit_after(&AuditFilter::default(), 0, 10).await;
    let log = log.unwrap();
    assert_eq!(log.len(), 1, "{log:?}");
    assert_eq!(log[0].event, "relay.key.accepted");
    assert_eq!(
        (&log[0].more["file"], &log[0].more["before"]),
        (&"ssh_ca".into(), &"SHA256:b".into())
    );
    bed.store.bind_keys(&other).await.unwrap();
    assert!(bed.store.check_keys(&first).await.is_err());
}

#[tokio::test]
async fn recording_key_of_an_earlier_version_is_known_from_the_roster() {
    let bed = Bed::new().await;
    bed.store.meta_set(ROSTER, "3 a:1 abcd").await.unwrap();
    let refused = bed.store.bind_keys(&[key(RECORDING, "ef")]).await;
    assert!(matches!(refused, Err(BoundKeyError::Replaced { .. })));
    let same = [key(RECORDING, "abcd")];
    bed.store.bind_keys(&same).await.unwrap();
    bed.store.meta_set(ROSTER, "4 a:1 ef").await.unwrap();
    bed.store.bind_keys(&same).await.unwrap();
}
