//! Locks, kills, live sessions and confirmations.

use holdfast_protocol::ids::{Login, SessionId, UserName};

use super::*;
use crate::model::lock::LockTarget;
use crate::model::role::Ability;
use crate::store::limits::MAX_LOCKS;

fn user(name: &str) -> UserName {
    UserName::new(name).unwrap()
}

fn new_lock(target: LockTarget, expires: Option<Timestamp>) -> NewLock {
    NewLock {
        target,
        message: "stolen \"laptop\"".into(),
        by: Some(user("bob")),
        expires,
    }
}

fn session(id: u8) -> SessionRow {
    SessionRow {
        session: SessionFacts {
            id: SessionId([id; 16]),
            user: user("alice"),
            user_id: Some(UserId(1)),
            device: DeviceId([7; 16]),
            device_name: name("cam"),
            login: Login::new("pi").unwrap(),
            kind: Ability::Exec,
            command: Some("ls \u{1b}[2J".into()),
            client: "[2001:db8::1]:50022".parse().unwrap(),
            started: at(u64::from(id)),
            terminal: false,
        },
        traffic: Traffic {
            bytes_in: 1,
            bytes_out: u64::from(id),
            active: at(5),
        },
    }
}

async fn relay(bed: &Fixture, now: Timestamp) -> RelayId {
    let relay = RelayId::random().unwrap();
    bed.store
        .change(async |tx| tx.relay_started(relay, MemberId(relay.0), now).await)
        .await
        .unwrap();
    relay
}

async fn a_lock_comes_back_as_it_was_made_and_its_number_never_again(on: Backend) {
    let bed = Fixture::new(on).await;
    let store = &bed.store;
    let network = crate::model::lock::network;
    let targets = [
        LockTarget::User(user("alice")),
        LockTarget::Role("operator".parse().unwrap()),
        LockTarget::Login(Login::new("root").unwrap()),
        LockTarget::Device(DeviceId([9; 16])),
        LockTarget::Address(network("203.0.113.0/24").unwrap()),
        LockTarget::Address(network("2001:db8::1").unwrap()),
    ];
    let before = store.access_version().await.unwrap();
    for target in &targets {
        let lock = new_lock(target.clone(), None);
        store
            .change(async |tx| tx.add_lock(lock, T0).await)
            .await
            .unwrap();
    }
    assert!(store.access_version().await.unwrap() > before);
    let locks = store.locks(at(1)).await.unwrap();
    let made: Vec<_> = locks.iter().map(|lock| lock.target.clone()).collect();
    assert_eq!(made, targets);
    let last = locks.last().unwrap().clone();
    assert_eq!(
        (last.message.as_str(), last.by),
        ("stolen \"laptop\"", Some(user("bob")))
    );
    assert!(
        store
            .change(async |tx| tx.remove_lock(last.id).await)
            .await
            .unwrap()
    );
    assert!(
        !store
            .change(async |tx| tx.remove_lock(last.id).await)
            .await
            .unwrap()
    );
    let again = new_lock(targets[0].clone(), None);
    assert!(
        store
            .change(async |tx| tx.add_lock(again, T0).await)
            .await
            .unwrap()
            > last.id
    );
}

async fn expired_locks_are_forgotten_and_the_others_are_bounded(on: Backend) {
    let bed = Fixture::new(on).await;
    let store = &bed.store;
    let soon = new_lock(LockTarget::User(user("alice")), Some(at(10)));
    store
        .change(async |tx| tx.add_lock(soon.clone(), T0).await)
        .await
        .unwrap();
    assert_eq!(store.locks(at(9)).await.unwrap().len(), 1);
    assert_eq!(store.locks(at(10)).await.unwrap(), []);
    for _ in 1..MAX_LOCKS {
        store
            .change(async |tx| tx.add_lock(soon.clone(), T0).await)
            .await
            .unwrap();
    }
    let full = store
        .change(async |tx| tx.add_lock(soon.clone(), T0).await)
        .await;
    assert!(matches!(full, Err(LockError::TooMany)));
    // Those that are over make room.
    store
        .change(async |tx| tx.add_lock(soon, at(10)).await)
        .await
        .unwrap();
}

async fn live_sessions_are_those_of_living_relays(on: Backend) {
    let bed = Fixture::new(on).await;
    let store = &bed.store;
    let (living, silent) = (relay(&bed, at(100)).await, relay(&bed, at(50)).await);
    let begun = |rows: &[u8]| BoardChange {
        begun: rows.iter().map(|id| session(*id)).collect(),
        ..BoardChange::default()
    };
    store
        .change(async |tx| tx.publish_sessions(living, &begun(&[2, 1])).await)
        .await
        .unwrap();
    store
        .change(async |tx| tx.publish_sessions(silent, &begun(&[3])).await)
        .await
        .unwrap();
    let live = store.sessions(at(101)).await.unwrap();
    assert_eq!(live, [(living, session(1)), (living, session(2))]);
    let traffic = Traffic {
        bytes_in: 10,
        bytes_out: u64::MAX,
        active: at(60),
    };
    let change = BoardChange {
        moved: vec![(session(1).session.id, traffic)],
        ended: vec![session(2).session.id],
        ..BoardChange::default()
    };
    store
        .change(async |tx| tx.publish_sessions(living, &change).await)
        .await
        .unwrap();
    let live = store.sessions(at(101)).await.unwrap();
    assert_eq!((live.len(), live[0].1.traffic.bytes_in), (1, 10));
    // They go with their run.
    store
        .change(async |tx| tx.relay_stopped(living, at(102)).await)
        .await
        .unwrap();
    assert_eq!(store.sessions(at(101)).await.unwrap(), []);
}

async fn a_kill_goes_to_the_run_that_has_the_session_and_with_it(on: Backend) {
    let bed = Fixture::new(on).await;
    let store = &bed.store;
    let (one, other) = (relay(&bed, T0).await, relay(&bed, T0).await);
    let begun = BoardChange {
        begun: vec![session(1)],
        ..BoardChange::default()
    };
    store
        .change(async |tx| tx.publish_sessions(one, &begun).await)
        .await
        .unwrap();
    let kill = Kill {
        session: session(1).session.id,
        message: "enough".into(),
        by: None,
    };
    assert!(
        store
            .change(async |tx| tx.kill_session(&kill).await)
            .await
            .unwrap()
    );
    assert_eq!(store.kills(one).await.unwrap(), std::slice::from_ref(&kill));
    assert_eq!(store.kills(other).await.unwrap(), []);
    let ended = BoardChange {
        ended: vec![session(1).session.id],
        ..BoardChange::default()
    };
    store
        .change(async |tx| tx.publish_sessions(one, &ended).await)
        .await
        .unwrap();
    assert_eq!(store.kills(one).await.unwrap(), []);
    assert!(
        !store
            .change(async |tx| tx.kill_session(&kill).await)
            .await
            .unwrap()
    );
}

async fn only_living_relays_are_waited_for(on: Backend) {
    let bed = Fixture::new(on).await;
    let store = &bed.store;
    let (one, two) = (relay(&bed, at(100)).await, relay(&bed, at(100)).await);
    // Dead, stopped, and from a clock that was set back since.
    relay(&bed, at(80)).await;
    relay(&bed, at(200)).await;
    let stopped = relay(&bed, at(100)).await;
    store
        .change(async |tx| tx.relay_stopped(stopped, at(100)).await)
        .await
        .unwrap();
    let behind = async |version| store.relays_behind(version, at(101)).await.unwrap();
    assert_eq!(behind(5).await, 2);
    store
        .change(async |tx| tx.relay_confirms(one, 5).await)
        .await
        .unwrap();
    assert_eq!(behind(5).await, 1);
    store
        .change(async |tx| tx.relay_confirms(two, 6).await)
        .await
        .unwrap();
    // What was confirmed later is not taken back by an earlier one.
    store
        .change(async |tx| tx.relay_confirms(two, 5).await)
        .await
        .unwrap();
    assert_eq!((behind(5).await, behind(6).await), (0, 1));
}

async fn console_stream_is_not_the_next_bearers_of_its_name(on: Backend) {
    let bed = Fixture::new(on).await;
    let store = &bed.store;
    let run = relay(&bed, at(5)).await;
    let alice = user("alice");
    let add = |now| {
        let alice = alice.clone();
        async move {
            let new = NewUser::default();
            store
                .change(async |tx| tx.add_user(&alice, &new, now).await)
                .await
                .unwrap();
            store.user(&alice).await.unwrap().unwrap().id
        }
    };
    let first = add(at(1)).await;
    let stream = ConsoleRow {
        id: SessionId([1; 16]),
        user: alice.clone(),
        user_id: Some(first),
        command: "audit --follow".to_owned(),
        client: "203.0.113.9:50000".parse().unwrap(),
        started: at(2),
        traffic: session(1).traffic,
    };
    let change = BoardChange {
        consoles: vec![stream.clone()],
        ..BoardChange::default()
    };
    store
        .change(async |tx| tx.publish_sessions(run, &change).await)
        .await
        .unwrap();
    let listed = async || store.console_streams(at(5)).await.unwrap();
    assert_eq!(listed().await, [(run, stream.clone())]);
    assert!(
        store
            .change(async |tx| tx.remove_user(&alice).await)
            .await
            .unwrap()
    );
    assert_eq!(listed().await[0].1.user_id, None);
    let second = add(at(3)).await;
    assert_ne!(first, second);
    assert_eq!(listed().await[0].1.user_id, None);
}

on_both!(
    a_lock_comes_back_as_it_was_made_and_its_number_never_again,
    expired_locks_are_forgotten_and_the_others_are_bounded,
    live_sessions_are_those_of_living_relays,
    a_kill_goes_to_the_run_that_has_the_session_and_with_it,
    only_living_relays_are_waited_for,
    console_stream_is_not_the_next_bearers_of_its_name,
);
