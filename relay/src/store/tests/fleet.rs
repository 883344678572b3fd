//! Devices: joining, presence, revocation.

use super::*;
use crate::store::devices::changes::RevokedDevice;

async fn of_many_joins_on_a_token_exactly_as_many_win_as_it_has_uses(on: Backend) {
    for uses in [1_u32, 3] {
        let bed = Fixture::new(on).await;
        let secret = bed.token(uses, &[]).await;
        // Two handles on one file, as two processes have them.
        let other = bed.beside().await;
        let mut joins = tokio::task::JoinSet::new();
        for key in 0..24 {
            let store = if key % 2 == 0 {
                bed.store.clone()
            } else {
                other.clone()
            };
            let secret = secret.clone();
            joins.spawn(async move {
                store
                    .change(async |tx| tx.enrol(enrolment(&secret, key, None)).await)
                    .await
            });
        }
        let (mut won, mut lost) = (0, 0);
        while let Some(join) = joins.join_next().await {
            match join.unwrap() {
                Ok(_) => won += 1,
                Err(EnrolError::TokenUsedUp) => lost += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!((won, lost), (uses, 24 - uses));
        assert_eq!(bed.store.devices(T0).await.unwrap().len(), uses as usize);
        assert_eq!(bed.store.tokens().await.unwrap()[0].uses_left, 0);
    }
}

async fn tunnels_that_nothing_closed_are_left(on: Backend) {
    let bed = Fixture::new(on).await;
    let relay = RelayId::random().unwrap();
    bed.store
        .change(async |tx| tx.relay_started(relay, MemberId::FIRST, at(0)).await)
        .await
        .unwrap();
    let mut tunnels = Vec::new();
    for (key, connection_id) in [
        (1, Some(TunnelId([1; 8]))),
        (2, Some(TunnelId([2; 8]))),
        (3, None),
    ] {
        let device = bed.join(key, None).await;
        let facts = TunnelFacts {
            connection_id,
            ..facts("192.0.2.1:5")
        };
        let opened = bed
            .store
            .change(async |tx| tx.tunnel_opened(device.id, relay, facts, at(1)).await);
        tunnels.push((device.id, opened.await.unwrap().generation));
    }
    let left = async |now| bed.store.left_tunnels(MemberId::FIRST, now).await.unwrap();
    let ids = |left: &[LeftTunnel]| left.iter().map(|left| left.id.0[0]).collect::<Vec<_>>();
    assert_eq!(ids(&left(at(2)).await).len(), 2);
    let (device, generation) = tunnels[0];
    bed.store
        .change(async |tx| tx.tunnel_closed(device, generation, at(2)).await)
        .await
        .unwrap();
    let (device, generation) = tunnels[2];
    let noted = [(device, generation, TunnelId([3; 8]))];
    bed.store
        .change(async |tx| tx.note_connection_ids(&noted).await)
        .await
        .unwrap();
    let moved = [(device, generation, at(3), "192.0.2.9:9".parse().unwrap())];
    bed.store
        .change(async |tx| tx.heard(&moved).await)
        .await
        .unwrap();
    // A run that died leaves them to the next, and to the one after, should that die as well.
    for _ in 0..2 {
        let next = RelayId::random().unwrap();
        bed.store
            .change(async |tx| tx.relay_started(next, MemberId::FIRST, at(4)).await)
            .await
            .unwrap();
        let left = left(at(5)).await;
        assert_eq!(ids(&left), [3, 2]);
        assert_eq!(left[0].address.to_string(), "192.0.2.9:9");
    }
    // Their devices have long given up.
    assert_eq!(left(at(1_000)).await, []);
    // A run that stops in good order leaves none.
    let last = RelayId::random().unwrap();
    bed.store
        .change(async |tx| tx.relay_started(last, MemberId::FIRST, at(6)).await)
        .await
        .unwrap();
    let facts = TunnelFacts {
        connection_id: Some(TunnelId([4; 8])),
        ..facts("192.0.2.1:5")
    };
    let opened = bed
        .store
        .change(async |tx| tx.tunnel_opened(device, last, facts, at(6)).await)
        .await;
    opened.unwrap();
    assert_eq!(ids(&left(at(6)).await), [4, 2]);
    bed.store
        .change(async |tx| tx.relay_stopped(last, at(7)).await)
        .await
        .unwrap();
    assert_eq!(ids(&left(at(7)).await), [2]);
}

async fn one_of_many_joins_for_a_name_wins(on: Backend) {
    let bed = Fixture::new(on).await;
    let secret = bed.token(20, &[]).await;
    let mut joins = tokio::task::JoinSet::new();
    for key in 0..10 {
        let (store, secret) = (bed.store.clone(), secret.clone());
        joins.spawn(async move {
            store
                .change(async |tx| tx.enrol(enrolment(&secret, key, Some("cam"))).await)
                .await
        });
    }
    let results = joins.join_all().await;
    assert_eq!(results.iter().filter(|join| join.is_ok()).count(), 1);
    let taken = |join: &Result<_, EnrolError>| matches!(join, Err(EnrolError::NameTaken { .. }));
    assert_eq!(results.iter().filter(|join| taken(join)).count(), 9);
    assert_eq!(bed.store.tokens().await.unwrap()[0].uses_left, 19);
}

async fn a_second_join_with_the_same_key_changes_and_uses_nothing(on: Backend) {
    let bed = Fixture::new(on).await;
    let secret = bed.token(2, &[("role", "camera")]).await;
    let first = bed
        .store
        .change(async |tx| tx.enrol(enrolment(&secret, 1, Some("cam"))).await)
        .await
        .unwrap();
    let again = bed
        .store
        .change(async |tx| tx.enrol(enrolment(&secret, 1, Some("other"))).await)
        .await
        .unwrap();
    assert_eq!(first, again);
    assert_eq!(bed.store.tokens().await.unwrap()[0].uses_left, 1);
    // Not even a token is asked for.
    let wrong = TokenSecret([0; 20]);
    assert_eq!(
        bed.store
            .change(async |tx| tx.enrol(enrolment(&wrong, 1, None)).await)
            .await
            .unwrap(),
        first
    );
}

async fn each_reason_against_a_join_has_its_own_answer(on: Backend) {
    let bed = Fixture::new(on).await;
    let secret = bed.token(1, &[]).await;
    let refusal = async |enrolment| {
        bed.store
            .change(async |tx| tx.enrol(enrolment).await)
            .await
            .unwrap_err()
            .refusal()
    };

    let wrong = TokenSecret([0; 20]);
    assert_eq!(
        refusal(enrolment(&wrong, 1, None)).await,
        Refusal::TokenUnknown
    );
    let late = |secs: u64| Enrolment {
        now: at(3600 + secs),
        ..enrolment(&secret, 1, None)
    };
    assert_eq!(
        refusal(late(0)).await,
        Refusal::TokenExpired { ago_secs: 0 }
    );
    assert_eq!(
        refusal(late(720)).await,
        Refusal::TokenExpired { ago_secs: 720 }
    );

    let holder = bed
        .store
        .change(async |tx| tx.enrol(enrolment(&secret, 1, Some("cam"))).await)
        .await
        .unwrap()
        .id;
    assert_eq!(
        refusal(enrolment(&secret, 2, None)).await,
        Refusal::TokenUsedUp
    );
    let fresh = bed.token(1, &[]).await;
    let taken = Refusal::NameTaken {
        name: name("cam"),
        holder,
    };
    assert_eq!(refusal(enrolment(&fresh, 2, Some("cam"))).await, taken);
    // The relay chose an id, and it stays that device's.
    let id = holder.to_string();
    let taken = Refusal::NameTaken {
        name: name(&id),
        holder,
    };
    assert_eq!(refusal(enrolment(&fresh, 2, Some(&id))).await, taken);

    bed.store
        .change(async |tx| tx.revoke_device(&name("cam"), T0, false).await)
        .await
        .unwrap();
    assert_eq!(refusal(enrolment(&fresh, 1, None)).await, Refusal::Revoked);
    assert_eq!(refusal(enrolment(&fresh, 2, Some(&id))).await, taken);
    // None of them used the token up.
    assert!(
        bed.store
            .change(async |tx| tx.enrol(enrolment(&fresh, 2, Some("cam"))).await)
            .await
            .is_ok()
    );
    bed.store.close().await;
    assert_eq!(
        refusal(enrolment(&fresh, 3, None)).await,
        Refusal::Unavailable
    );
}

async fn the_tokens_labels_win_and_too_many_are_refused(on: Backend) {
    let bed = Fixture::new(on).await;
    let secret = bed.token(5, &[("role", "camera"), ("site", "lab")]).await;
    let own = label_map(&[("role", "admin-box"), ("colour", "red")]);
    let mine = Enrolment {
        labels: own,
        ..enrolment(&secret, 1, None)
    };
    let device = bed
        .store
        .change(async |tx| tx.enrol(mine).await)
        .await
        .unwrap();
    let merged = label_map(&[("role", "camera"), ("site", "lab"), ("colour", "red")]);
    assert_eq!(device.labels, merged);

    let keys: Vec<String> = (0..MAX_LABELS - 1).map(|n| format!("k{n}")).collect();
    let many: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "v")).collect();
    let too_many = Enrolment {
        labels: label_map(&many),
        ..enrolment(&secret, 2, None)
    };
    let error = bed
        .store
        .change(async |tx| tx.enrol(too_many).await)
        .await
        .unwrap_err();
    assert!(matches!(error, EnrolError::TooManyLabels(17)), "{error}");
    let fits = Enrolment {
        labels: label_map(&many[1..]),
        ..enrolment(&secret, 2, None)
    };
    assert_eq!(
        bed.store
            .change(async |tx| tx.enrol(fits).await)
            .await
            .unwrap()
            .labels
            .len(),
        MAX_LABELS
    );
}

async fn a_device_without_a_wish_is_named_after_its_identifier(on: Backend) {
    let bed = Fixture::new(on).await;
    let device = bed.join(1, None).await;
    let digits = device.id.to_string();
    assert_eq!(device.name.as_str(), format!("device-{}", &digits[..8]));
    assert_eq!(
        bed.store.device(device.id).await.unwrap().as_ref(),
        Some(&device)
    );
    assert_eq!(
        bed.store.device_by_key(&device.key).await.unwrap(),
        Some(device)
    );
    assert_eq!(bed.store.device(DeviceId([0; 16])).await.unwrap(), None);
}

async fn leftover_token_is_removed_with_its_device(on: Backend) {
    let bed = Fixture::new(on).await;
    let secret = bed.token(3, &[]).await;
    for key in 1..=2 {
        let wanted = format!("cam-{key}");
        bed.store
            .change(async |tx| tx.enrol(enrolment(&secret, key, Some(&wanted))).await)
            .await
            .unwrap();
    }
    let token = bed.store.tokens().await.unwrap().remove(0);
    let revoke = async |cam: &str, secs, end_token| {
        let cam = name(cam);
        let revoked = bed
            .store
            .change(async |tx| tx.revoke_device(&cam, at(secs), end_token).await);
        revoked.await.unwrap().token
    };
    let left = TokenLeft {
        id: token.id,
        uses_left: 1,
        expires: at(3600),
    };
    assert_eq!(revoke("cam-1", 5, false).await, Some(left.clone()));
    assert!(
        bed.store
            .change(async |tx| tx.enrol(enrolment(&secret, 3, None)).await)
            .await
            .is_ok()
    );
    // Now it is used up; with another one, time is over.
    assert_eq!(revoke("cam-2", 6, false).await, None);
    let late = bed.token(2, &[]).await;
    bed.store
        .change(async |tx| tx.enrol(enrolment(&late, 4, Some("late"))).await)
        .await
        .unwrap();
    assert_eq!(revoke("late", 3600, false).await, None);

    let open = bed.token(2, &[]).await;
    bed.store
        .change(async |tx| tx.enrol(enrolment(&open, 5, Some("cam"))).await)
        .await
        .unwrap();
    let ended = revoke("cam", 7, true).await.unwrap();
    assert_eq!(ended.uses_left, 1);
    let tokens = bed.store.tokens().await.unwrap();
    assert!(tokens.iter().all(|token| token.id != ended.id));
    assert!(matches!(
        bed.store
            .change(async |tx| tx.enrol(enrolment(&open, 6, None)).await)
            .await,
        Err(EnrolError::TokenUnknown)
    ));
}

async fn a_revoked_device_stays_revoked_and_its_name_is_free(on: Backend) {
    let bed = Fixture::new(on).await;
    let old = bed.join(1, Some("cam")).await;
    let relay = bed.run(MemberId::FIRST).await;
    bed.store
        .change(async |tx| {
            tx.tunnel_opened(old.id, relay, facts("1.2.3.4:5"), T0)
                .await
        })
        .await
        .unwrap();
    let revoked = bed
        .store
        .change(async |tx| tx.revoke_device(&name("cam"), at(5), false).await)
        .await;
    // Its token was for one use.
    assert_eq!(
        revoked.unwrap(),
        RevokedDevice {
            id: old.id,
            name: name("cam"),
            token: None
        }
    );
    let again = bed
        .store
        .change(async |tx| tx.revoke_device(&name("cam"), at(6), false).await)
        .await;
    assert!(matches!(again, Err(RevokeError::Unknown(_))));

    // Asked by name, the revoked one answers until another has the name.
    let found = bed.store.device_named(&name("cam")).await.unwrap().unwrap();
    assert_eq!((found.id, found.revoked), (old.id, Some(at(5))));
    let opened = bed
        .store
        .change(async |tx| {
            tx.tunnel_opened(old.id, relay, facts("1.2.3.4:5"), at(7))
                .await
        })
        .await;
    assert!(matches!(opened, Err(StoreError::NotEnrolled)));

    let new = bed.join(2, Some("cam")).await;
    let found = bed.store.device_named(&name("cam")).await.unwrap().unwrap();
    assert_eq!((found.id, found.revoked), (new.id, None));
    assert_eq!(
        bed.store
            .device_by_key(&old.key)
            .await
            .unwrap()
            .unwrap()
            .revoked,
        Some(at(5))
    );
    bed.store
        .change(async |tx| tx.revoke_device(&name("cam"), at(9), false).await)
        .await
        .unwrap();
    let found = bed.store.device_named(&name("cam")).await.unwrap().unwrap();
    assert_eq!(found.id, new.id, "the last that had the name");
}

async fn renaming_keeps_names_unique(on: Backend) {
    let bed = Fixture::new(on).await;
    let cam = bed.join(1, Some("cam")).await;
    bed.join(2, Some("node")).await;
    let rename = async |old, new| {
        bed.store
            .change(async |tx| tx.rename_device(&name(old), &name(new)).await)
            .await
    };
    assert!(matches!(
        rename("none", "x").await,
        Err(RenameError::Unknown(_))
    ));
    let error = rename("node", "cam").await.unwrap_err();
    let expected = format!("name \"cam\" is taken by device {}", cam.id);
    assert!(error.to_string().starts_with(&expected), "{error}");
    rename("cam", "cam").await.unwrap();
    rename("cam", "camera").await.unwrap();
    rename("node", "cam").await.unwrap();
    let found = bed.store.device_named(&name("camera")).await.unwrap();
    assert_eq!(found.unwrap().id, cam.id);
}

async fn labels_are_set_and_removed_within_the_bound(on: Backend) {
    let bed = Fixture::new(on).await;
    bed.join(1, Some("cam")).await;
    let cam = name("cam");
    let key = |text: &str| LabelKey::new(text).unwrap();
    let set = |k: &str, v: &str| (key(k), Some(LabelValue::new(v).unwrap()));
    let label = async |changes: &[_]| {
        bed.store
            .change(async |tx| tx.label_device(&cam, changes).await)
            .await
    };
    label(&[set("a", "1"), set("b", "2")]).await.unwrap();
    let now = label(&[(key("a"), None), set("b", "3"), (key("zz"), None)])
        .await
        .unwrap();
    assert_eq!(now, label_map(&[("b", "3")]));
    let many: Vec<_> = (0..MAX_LABELS)
        .map(|n| set(&format!("k{n}"), "v"))
        .collect();
    assert!(matches!(
        label(&many).await,
        Err(LabelError::TooMany(_, 17))
    ));
    let unknown = bed
        .store
        .change(async |tx| tx.label_device(&name("none"), &[]).await)
        .await;
    assert!(matches!(unknown, Err(LabelError::Unknown(_))));
}

async fn generations_grow_and_old_tunnels_close_only_themselves(on: Backend) {
    let bed = Fixture::new(on).await;
    let device = bed.join(1, Some("cam")).await;
    let relay = RelayId::random().unwrap();
    bed.store
        .change(async |tx| tx.relay_started(relay, MemberId::FIRST, at(0)).await)
        .await
        .unwrap();
    let open = async |now| {
        let opened = bed
            .store
            .change(async |tx| {
                tx.tunnel_opened(device.id, relay, facts("1.2.3.4:5"), now)
                    .await
            })
            .await;
        opened.unwrap().generation
    };
    let first = open(at(1)).await;
    let second = open(at(1)).await;
    assert!(second > first);
    // A clock that was set back does not take the generation with it.
    let third = open(Timestamp(5)).await;
    assert!(third > second);
    let state = async |now| bed.store.devices(now).await.unwrap()[0].presence.state;
    let third_at_2 = open(at(2)).await;

    bed.store
        .change(async |tx| tx.tunnel_closed(device.id, second, at(3)).await)
        .await
        .unwrap();
    let heard: SocketAddr = "9.9.9.9:9".parse().unwrap();
    bed.store
        .change(async |tx| tx.heard(&[(device.id, first, at(4), heard)]).await)
        .await
        .unwrap();
    assert_eq!(state(at(4)).await, PresenceState::Online);
    let found = bed.store.devices(at(4)).await.unwrap().remove(0);
    assert_eq!(found.presence.last_seen, Some(at(2)));
    assert_eq!(
        (found.agent_version.as_str(), found.target.as_str()),
        ("0.2.0", "aarch64-unknown-linux-musl")
    );

    bed.store
        .change(async |tx| tx.tunnel_closed(device.id, third_at_2, at(5)).await)
        .await
        .unwrap();
    assert_eq!(state(at(5)).await, PresenceState::Offline);
    bed.store
        .change(async |tx| tx.heard(&[(device.id, third_at_2, at(6), heard)]).await)
        .await
        .unwrap();
    let found = bed.store.devices(at(6)).await.unwrap().remove(0);
    assert_eq!(
        found.presence.since,
        Some(at(5)),
        "a closed tunnel is heard no more"
    );
    assert!(open(at(5)).await > third_at_2);
}

async fn a_generation_outgrows_one_that_was_lost(on: Backend) {
    let bed = Fixture::new(on).await;
    let device = bed.join(1, None).await;
    let relay = bed.run(MemberId::FIRST).await;
    let open = async |now| {
        let opened = bed
            .store
            .change(async |tx| {
                tx.tunnel_opened(device.id, relay, facts("1.2.3.4:5"), now)
                    .await
            })
            .await;
        opened.unwrap().generation
    };
    let lost = open(at(1)).await;
    // What a power cut, or a database from yesterday's backup, does.
    bed.raw("DELETE FROM tunnels").await;
    assert!(open(at(2)).await > lost);
}

async fn presence_is_judged_by_tunnel_keepalive_and_heartbeat(on: Backend) {
    let bed = Fixture::new(on).await;
    let device = bed.join(1, Some("cam")).await;
    let presence = async |now| bed.store.devices(now).await.unwrap()[0].presence;
    let never = presence(at(0)).await;
    assert_eq!(
        (never.state, never.since, never.last_seen),
        (PresenceState::Offline, None, None)
    );

    let relay = RelayId::random().unwrap();
    let store = &bed.store;
    store
        .change(async |tx| tx.relay_started(relay, MemberId::FIRST, at(0)).await)
        .await
        .unwrap();
    let generation = store
        .change(async |tx| {
            tx.tunnel_opened(device.id, relay, facts("1.2.3.4:5"), at(0))
                .await
        })
        .await
        .unwrap()
        .generation;
    assert_eq!(presence(at(9)).await.state, PresenceState::Online);

    // Two keepalives of silence, with a relay that lives.
    store
        .change(async |tx| tx.heartbeat(relay, at(50)).await)
        .await
        .unwrap();
    assert_eq!(presence(at(50)).await.state, PresenceState::Online);
    assert_eq!(presence(at(51)).await.state, PresenceState::Stale);
    let moved: SocketAddr = "[2001:db8::1]:77".parse().unwrap();
    store
        .change(async |tx| tx.heard(&[(device.id, generation, at(51), moved)]).await)
        .await
        .unwrap();
    let there = presence(at(52)).await;
    assert_eq!(
        (there.state, there.address),
        (PresenceState::Online, Some(moved))
    );
    assert_eq!((there.since, there.last_seen), (None, Some(at(51))));

    // The relay is killed: its word counts for ten seconds, then the device is offline since its end.
    assert_eq!(presence(at(59)).await.state, PresenceState::Online);
    let orphan = presence(at(60)).await;
    assert_eq!(
        (orphan.state, orphan.since),
        (PresenceState::Offline, Some(at(51)))
    );

    // Its successor knows at once.
    store
        .change(async |tx| tx.heartbeat(relay, at(60)).await)
        .await
        .unwrap();
    let next = RelayId::random().unwrap();
    store
        .change(async |tx| tx.relay_started(next, MemberId::FIRST, at(61)).await)
        .await
        .unwrap();
    let after = presence(at(61)).await;
    assert_eq!(
        (after.state, after.since),
        (PresenceState::Offline, Some(at(60)))
    );

    store
        .change(async |tx| {
            tx.tunnel_opened(device.id, next, facts("1.2.3.4:5"), at(62))
                .await
        })
        .await
        .unwrap();
    assert_eq!(presence(at(63)).await.state, PresenceState::Online);
    store
        .change(async |tx| tx.relay_stopped(next, at(64)).await)
        .await
        .unwrap();
    let stopped = presence(at(64)).await;
    assert_eq!(
        (stopped.state, stopped.since),
        (PresenceState::Offline, Some(at(64)))
    );
}

async fn a_thousand_devices_are_heard_in_one_transaction(on: Backend) {
    let bed = Fixture::new(on).await;
    let secret = bed.token(1000, &[]).await;
    let relay = RelayId::random().unwrap();
    bed.store
        .change(async |tx| tx.relay_started(relay, MemberId::FIRST, T0).await)
        .await
        .unwrap();
    let address: SocketAddr = "1.2.3.4:5".parse().unwrap();
    let mut heard = Vec::new();
    for n in 0..1000_u16 {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&n.to_le_bytes());
        let join = Enrolment {
            key: PublicKey(key),
            ..enrolment(&secret, 0, None)
        };
        let device = bed
            .store
            .change(async |tx| tx.enrol(join).await)
            .await
            .unwrap();
        let opened = bed
            .store
            .change(async |tx| {
                tx.tunnel_opened(device.id, relay, facts("1.1.1.1:1"), T0)
                    .await
            })
            .await;
        heard.push((device.id, opened.unwrap().generation, at(1), address));
    }
    bed.store
        .change(async |tx| tx.heard(&heard).await)
        .await
        .unwrap();
    bed.store
        .change(async |tx| tx.heard(&[]).await)
        .await
        .unwrap();
    bed.store
        .change(async |tx| {
            tx.heard(&[(DeviceId([9; 16]), Generation(u64::MAX), at(2), address)])
                .await
        })
        .await
        .unwrap();
    let devices = bed.store.devices(at(1)).await.unwrap();
    assert!(devices.iter().all(|d| d.presence.last_seen == Some(at(1))));
    assert!(devices.iter().all(|d| d.presence.address == Some(address)));
    assert!(devices.is_sorted_by_key(|d| d.name.clone()));
}

on_both!(
    tunnels_that_nothing_closed_are_left,
    a_second_join_with_the_same_key_changes_and_uses_nothing,
    each_reason_against_a_join_has_its_own_answer,
    the_tokens_labels_win_and_too_many_are_refused,
    a_device_without_a_wish_is_named_after_its_identifier,
    leftover_token_is_removed_with_its_device,
    a_revoked_device_stays_revoked_and_its_name_is_free,
    renaming_keeps_names_unique,
    labels_are_set_and_removed_within_the_bound,
    generations_grow_and_old_tunnels_close_only_themselves,
    a_generation_outgrows_one_that_was_lost,
    presence_is_judged_by_tunnel_keepalive_and_heartbeat,
    a_thousand_devices_are_heard_in_one_transaction,
);

on_both!(threads:
    of_many_joins_on_a_token_exactly_as_many_win_as_it_has_uses,
    one_of_many_joins_for_a_name_wins,
);
