//! Certificate authorities and revocations.

use super::*;
use crate::store::limits::{MAX_AUTHORITIES, MAX_REVOCATIONS};

fn authority(name: &str) -> Authority {
    Authority {
        fingerprint: format!("SHA256:{name}"),
        name: name.to_owned(),
        public_key: format!("ssh-ed25519 {name}"),
        comment: String::new(),
        added: T0,
    }
}

fn prints(name: &str) -> Prints {
    Prints {
        sha256: format!("SHA256:{name}"),
        sha1: format!("SHA1:{name}"),
    }
}

fn key(print: &str) -> RevokedThing {
    RevokedThing::Key(print.to_owned())
}

fn serials(of: Option<&str>, serials: std::ops::RangeInclusive<u64>) -> RevokedThing {
    let authority = of.map(str::to_owned);
    RevokedThing::Serials { authority, serials }
}

fn key_id(of: Option<&str>, id: &str) -> RevokedThing {
    let authority = of.map(str::to_owned);
    let id = id.to_owned();
    RevokedThing::KeyId { authority, id }
}

async fn an_authority_is_trusted_until_it_is_removed(on: Backend) {
    let bed = Fixture::new(on).await;
    let (store, corp) = (&bed.store, authority("corp"));
    assert!(!store.policy().await.unwrap().has_authorities());
    let before = store.access_version().await.unwrap();
    assert!(
        store
            .change(async |tx| tx.trust(&corp).await)
            .await
            .unwrap()
    );
    assert!(store.access_version().await.unwrap() > before);
    assert!(
        !store
            .change(async |tx| tx.trust(&corp).await)
            .await
            .unwrap(),
        "a second time"
    );
    assert!(store.policy().await.unwrap().has_authorities());
    assert!(store.policy().await.unwrap().is_trusted("SHA256:corp"));
    assert!(
        !store.policy().await.unwrap().is_trusted("corp"),
        "a name is no key"
    );
    assert_eq!(
        store.authorities().await.unwrap(),
        std::slice::from_ref(&corp)
    );

    let renamed = Authority {
        name: "other".to_owned(),
        ..corp.clone()
    };
    let known = store.change(async |tx| tx.trust(&renamed).await).await;
    assert!(matches!(known, Err(AuthorityError::Known { name, .. }) if name == "corp"));
    let clash = Authority {
        fingerprint: "SHA256:x".to_owned(),
        ..corp.clone()
    };
    assert!(matches!(
        store.change(async |tx| tx.trust(&clash).await).await,
        Err(AuthorityError::NameTaken(_))
    ));

    let before = store.access_version().await.unwrap();
    assert_eq!(
        store
            .change(async |tx| tx.distrust("SHA256:absent").await)
            .await
            .unwrap(),
        None
    );
    assert_eq!(
        store
            .change(async |tx| tx.distrust("SHA256:corp").await)
            .await
            .unwrap(),
        Some(corp.clone())
    );
    assert!(store.access_version().await.unwrap() > before);
    assert!(!store.policy().await.unwrap().is_trusted("SHA256:corp"));
    store
        .change(async |tx| tx.trust(&corp).await)
        .await
        .unwrap();
    assert_eq!(
        store
            .change(async |tx| tx.distrust("corp").await)
            .await
            .unwrap(),
        Some(corp)
    );
}

async fn there_are_so_many_authorities_and_no_more(on: Backend) {
    let bed = Fixture::new(on).await;
    for n in 0..MAX_AUTHORITIES {
        bed.store
            .change(async |tx| tx.trust(&authority(&format!("ca{n}"))).await)
            .await
            .unwrap();
    }
    let more = bed
        .store
        .change(async |tx| tx.trust(&authority("more")).await)
        .await;
    assert!(matches!(more, Err(AuthorityError::TooMany)));
}

async fn what_is_revoked_is_found_and_nothing_else(on: Backend) {
    let bed = Fixture::new(on).await;
    let store = &bed.store;
    let things = [
        key("SHA256:a"),
        key("SHA1:b"),
        serials(Some("SHA256:ca"), 100..=200),
        serials(Some("SHA256:ca"), u64::MAX..=u64::MAX),
        serials(None, 7..=7),
        key_id(Some("SHA256:ca"), "laptop"),
        key_id(None, ""),
    ];
    let change = store
        .change(async |tx| tx.revoke(&things, false, T0).await)
        .await
        .unwrap();
    assert_eq!((change.added, change.removed, change.total), (7, 0, 7));
    for (name, revoked) in [("a", true), ("b", true), ("c", false)] {
        assert_eq!(
            store.policy().await.unwrap().is_key_revoked(&prints(name)),
            revoked,
            "{name}"
        );
    }
    // A serial number is no signed one: the highest bit sorts above all others.
    let table = [
        ("SHA256:ca", 99, "x", false),
        ("SHA256:ca", 100, "x", true),
        ("SHA256:ca", 200, "x", true),
        ("SHA256:ca", 201, "x", false),
        ("SHA256:ca", u64::MAX, "x", true),
        ("SHA256:ca", u64::MAX - 1, "x", false),
        ("SHA256:ca", 1 << 63, "x", false),
        ("SHA256:other", 150, "x", false),
        ("SHA256:other", 7, "x", true),
        ("SHA256:ca", 0, "laptop", true),
        ("SHA256:ca", 0, "Laptop", false),
        ("SHA256:other", 0, "laptop", false),
        ("SHA256:other", 0, "", true),
    ];
    for (authority, serial, id, revoked) in table {
        let policy = store.policy().await.unwrap();
        let found = policy.is_certificate_revoked(authority, serial, id);
        assert_eq!(found, revoked, "{authority} {serial} {id:?}");
    }
    let listed: Vec<_> = store.revocations().await.unwrap();
    let listed: Vec<_> = listed
        .into_iter()
        .map(|revocation| revocation.thing)
        .collect();
    assert_eq!(listed, things);
}

async fn serial_zero_is_no_serial_number(on: Backend) {
    let bed = Fixture::new(on).await;
    bed.store
        .change(async |tx| tx.revoke(&[serials(None, 0..=u64::MAX)], false, T0).await)
        .await
        .unwrap();
    let policy = bed.store.policy().await.unwrap();
    let revoked = |serial| policy.is_certificate_revoked("SHA256:ca", serial, "x");
    assert!(!revoked(0));
    assert!(revoked(1));
}

async fn a_list_adds_unless_it_is_to_replace(on: Backend) {
    let bed = Fixture::new(on).await;
    let store = &bed.store;
    let first = [key("SHA256:a"), key("SHA256:b"), serials(None, 5..=5)];
    store
        .change(async |tx| tx.revoke(&first, false, T0).await)
        .await
        .unwrap();
    let second = [key("SHA256:b"), key("SHA256:c"), key("SHA256:c")];
    let change = store
        .change(async |tx| tx.revoke(&second, false, at(1)).await)
        .await
        .unwrap();
    assert_eq!((change.added, change.removed, change.total), (1, 0, 4));
    assert!(store.policy().await.unwrap().is_key_revoked(&prints("a")));

    let change = store
        .change(async |tx| tx.revoke(&second, true, at(2)).await)
        .await
        .unwrap();
    assert_eq!((change.added, change.removed, change.total), (0, 2, 2));
    assert!(!store.policy().await.unwrap().is_key_revoked(&prints("a")));
    let rows = store.revocations().await.unwrap();
    assert_eq!(
        rows.iter().map(|row| row.added).collect::<Vec<_>>(),
        [T0, at(1)],
        "kept"
    );

    let before = store.access_version().await.unwrap();
    let all_or_nothing = ["SHA256:b".to_owned(), "SHA256:absent".to_owned()];
    assert!(matches!(
        store.change(async |tx| tx.unrevoke(&all_or_nothing).await).await,
        Err(RevocationError::Unknown(name)) if name == "SHA256:absent"
    ));
    assert!(store.policy().await.unwrap().is_key_revoked(&prints("b")));
    assert_eq!(store.access_version().await.unwrap(), before);
    let which = [rows[0].id.to_string(), "SHA256:c".to_owned()];
    let change = store
        .change(async |tx| tx.unrevoke(&which).await)
        .await
        .unwrap();
    assert_eq!((change.removed, change.total), (2, 0));
    assert!(store.access_version().await.unwrap() > before);
}

async fn too_many_revocations_are_none(on: Backend) {
    let bed = Fixture::new(on).await;
    let many: Vec<_> = (0..=MAX_REVOCATIONS as u64)
        .map(|n| serials(None, n..=n))
        .collect();
    let more = bed
        .store
        .change(async |tx| tx.revoke(&many, false, T0).await)
        .await;
    assert!(matches!(more, Err(RevocationError::TooMany)));
    assert_eq!(bed.store.revocations().await.unwrap(), []);
}

on_both!(
    an_authority_is_trusted_until_it_is_removed,
    there_are_so_many_authorities_and_no_more,
    what_is_revoked_is_found_and_nothing_else,
    serial_zero_is_no_serial_number,
    a_list_adds_unless_it_is_to_replace,
    too_many_revocations_are_none,
);
