//! Users and tokens.

use holdfast_protocol::ids::UserName;

use super::*;
use crate::store::access::user_changes::AddedUser;

fn user(text: &str) -> UserName {
    UserName::new(text).unwrap()
}

fn key(text: &str) -> UserKey {
    UserKey {
        fingerprint: format!("SHA256:{text}"),
        public_key: format!("ssh-ed25519 {text}"),
        comment: String::new(),
    }
}

fn roles(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn new(keys: &[UserKey], names: &[&str]) -> NewUser {
    NewUser {
        keys: keys.to_vec(),
        roles: roles(names),
        ..NewUser::default()
    }
}

async fn a_user_is_found_by_any_of_the_keys_until_it_is_removed(on: Backend) {
    let bed = Fixture::new(on).await;
    let store = &bed.store;
    let alice = user("alice");
    let did = store
        .change(async |tx| {
            tx.add_user(&alice, &new(&[key("a"), key("b")], &["admin"]), T0)
                .await
        })
        .await
        .unwrap();
    assert_eq!(
        did,
        AddedUser {
            new_user: true,
            new_roles: 1,
            new_facts: false
        }
    );
    let expected = User {
        id: UserId(1),
        name: alice.clone(),
        email: None,
        roles: roles(&["admin"]),
        disabled: false,
    };
    for known in ["SHA256:a", "SHA256:b"] {
        assert_eq!(
            store.policy().await.unwrap().user_by_key(known),
            Some(&expected)
        );
    }
    assert_eq!(store.user(&alice).await.unwrap(), Some(expected));
    assert_eq!(store.policy().await.unwrap().user_by_key("SHA256:c"), None);

    store
        .change(async |tx| tx.remove_key(&alice, "SHA256:a").await)
        .await
        .unwrap();
    assert_eq!(store.policy().await.unwrap().user_by_key("SHA256:a"), None);
    assert!(
        store
            .change(async |tx| tx.remove_user(&alice).await)
            .await
            .unwrap()
    );
    assert!(
        !store
            .change(async |tx| tx.remove_user(&alice).await)
            .await
            .unwrap()
    );
    assert_eq!(store.policy().await.unwrap().user_by_key("SHA256:b"), None);
    // Nothing of the old user waits for a new one of that name.
    store
        .change(async |tx| tx.add_user(&alice, &new(&[key("z")], &[]), T0).await)
        .await
        .unwrap();
    let rows = store.users().await.unwrap();
    assert_eq!((rows[0].keys.len(), rows[0].user.roles.len()), (1, 0));
}

async fn adding_a_user_twice_changes_nothing(on: Backend) {
    let bed = Fixture::new(on).await;
    let (store, alice) = (&bed.store, user("alice"));
    store
        .change(async |tx| tx.add_user(&alice, &new(&[key("a")], &[]), T0).await)
        .await
        .unwrap();
    let again = store
        .change(async |tx| tx.add_user(&alice, &new(&[key("a")], &[]), T0).await)
        .await
        .unwrap();
    assert_eq!(
        again,
        AddedUser {
            new_user: false,
            new_roles: 0,
            new_facts: false
        }
    );
    let promoted = store
        .change(async |tx| tx.add_user(&alice, &new(&[key("a")], &["admin"]), T0).await)
        .await
        .unwrap();
    assert_eq!(
        promoted,
        AddedUser {
            new_user: false,
            new_roles: 1,
            new_facts: false
        }
    );

    let clash = store
        .change(async |tx| {
            tx.add_user(&alice, &new(&[key("mallory")], &["admin"]), T0)
                .await
        })
        .await;
    assert!(matches!(clash, Err(KeyError::Exists(_))), "{clash:?}");
    assert_eq!(
        store.policy().await.unwrap().user_by_key("SHA256:mallory"),
        None
    );
    assert_eq!(
        store
            .change(async |tx| tx.add_keys(&alice, &[key("a"), key("c")], T0).await)
            .await
            .unwrap(),
        1
    );
}

async fn a_key_belongs_to_one_user_and_a_clash_changes_nothing(on: Backend) {
    let bed = Fixture::new(on).await;
    let (store, alice, bob) = (&bed.store, user("alice"), user("bob"));
    store
        .change(async |tx| tx.add_user(&alice, &new(&[key("a")], &[]), T0).await)
        .await
        .unwrap();
    let error = store
        .change(async |tx| {
            tx.add_user(&bob, &new(&[key("b"), key("a")], &[]), T0)
                .await
        })
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("key SHA256:a belongs to user \"alice\""),
        "{error}"
    );
    assert_eq!(store.user(&bob).await.unwrap(), None);
    assert_eq!(store.policy().await.unwrap().user_by_key("SHA256:b"), None);

    store
        .change(async |tx| tx.add_user(&bob, &new(&[key("b")], &[]), T0).await)
        .await
        .unwrap();
    assert!(matches!(
        store
            .change(async |tx| tx.add_keys(&bob, &[key("a")], T0).await)
            .await,
        Err(KeyError::Taken { .. })
    ));
    let unknown = store
        .change(async |tx| tx.add_keys(&user("carol"), &[key("c")], T0).await)
        .await;
    assert!(matches!(unknown, Err(KeyError::UnknownUser(_))));
    let not_hers = store
        .change(async |tx| tx.remove_key(&alice, "SHA256:b").await)
        .await;
    assert!(matches!(not_hers, Err(KeyError::UnknownKey { .. })));
}

#[tokio::test]
async fn the_secret_of_a_token_is_nowhere_in_the_files() {
    let bed = Fixture::new(Backend::Sqlite).await;
    let token = NewToken {
        for_relay: false,
        uses: 2,
        ttl: HOUR,
        labels: label_map(&[("role", "camera")]),
    };
    let (id, secret) = bed
        .store
        .change(async |tx| tx.create_token(token, T0).await)
        .await
        .unwrap();
    let row = &bed.store.tokens().await.unwrap()[0];
    assert_eq!(
        (row.id.as_str(), row.uses, row.uses_left),
        (id.as_str(), 2, 2)
    );
    assert_eq!((row.created, row.expires), (T0, at(3600)));
    for entry in std::fs::read_dir(bed.bed.dir.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(20).any(|window| window == secret.0));
    }
    assert!(
        bed.store
            .change(async |tx| tx.remove_token(&id).await)
            .await
            .unwrap()
    );
    assert!(
        !bed.store
            .change(async |tx| tx.remove_token(&id).await)
            .await
            .unwrap()
    );
    let join = bed
        .store
        .change(async |tx| tx.enrol(enrolment(&secret, 1, None)).await)
        .await;
    assert!(matches!(join, Err(EnrolError::TokenUnknown)));
}

async fn tokens_that_are_long_over_are_forgotten(on: Backend) {
    let bed = Fixture::new(on).await;
    bed.token(1, &[]).await;
    let later = |days: u64| at(days * 86_400);
    let token = || NewToken {
        for_relay: false,
        uses: 1,
        ttl: HOUR,
        labels: Labels::new(),
    };
    bed.store
        .change(async |tx| tx.create_token(token(), later(20)).await)
        .await
        .unwrap();
    assert_eq!(bed.store.tokens().await.unwrap().len(), 2);
    bed.store
        .change(async |tx| tx.create_token(token(), later(31)).await)
        .await
        .unwrap();
    assert_eq!(bed.store.tokens().await.unwrap().len(), 2);
}

on_both!(
    a_user_is_found_by_any_of_the_keys_until_it_is_removed,
    adding_a_user_twice_changes_nothing,
    a_key_belongs_to_one_user_and_a_clash_changes_nothing,
    tokens_that_are_long_over_are_forgotten,
);
