//! Members of a cluster, their runs side by side on one database, and the tunnels between which a device moves.

use holdfast_protocol::ids::UserName;

use super::*;
use crate::model::quota::Quota;
use crate::store::cluster::drain::DrainLeft;
use crate::store::cluster::members::{Located, MemberState};
use crate::store::devices::tunnels::OpenedTunnel;

const SECOND: MemberId = MemberId([2; 16]);

fn serving(id: MemberId, host: &str) -> ServingMember {
    ServingMember {
        id,
        tunnel_key: PublicKey(id.0.repeat(2).try_into().unwrap()),
        tunnel_address: format!("{host}:4433"),
        ssh_address: format!("{host}:2222"),
        bound_ssh: "127.0.0.1:2222".parse().unwrap(),
    }
}

async fn serve(bed: &Fixture, serving: &ServingMember) -> Result<String, StoreError> {
    bed.store
        .change(async |tx| tx.member_serves(serving, T0).await)
        .await
}

async fn add(bed: &Fixture, id: MemberId, host: &str) -> Result<String, StoreError> {
    let key = serving(id, host).tunnel_key;
    bed.store
        .change(async |tx| tx.add_member(id, key, host, Some(host), T0).await)
        .await
}

async fn open(bed: &Fixture, device: DeviceId, run: RelayId) -> Result<OpenedTunnel, StoreError> {
    bed.store
        .change(async |tx| tx.tunnel_opened(device, run, facts("1.2.3.4:5"), T0).await)
        .await
}

async fn beat(bed: &Fixture, run: RelayId, now: Timestamp) -> Result<(), StoreError> {
    bed.store
        .change(async |tx| tx.heartbeat(run, now).await)
        .await
}

async fn end_stale(bed: &Fixture, run: RelayId, now: Timestamp) -> Vec<RelayId> {
    let dead = bed
        .store
        .change(async |tx| tx.end_stale_runs(run, now).await);
    dead.await
        .unwrap()
        .into_iter()
        .map(|dead| dead.run)
        .collect()
}

async fn members_have_own_names_and_serve_until_they_leave(on: Backend) {
    let bed = Fixture::new(on).await;
    let stranger = serve(&bed, &serving(SECOND, "b.example.com")).await;
    assert!(matches!(stranger, Err(StoreError::NotMember)));
    let first = serving(MemberId::FIRST, "a.example.com");
    assert_eq!(serve(&bed, &first).await.unwrap(), "a.example.com");
    // One that is alone is called as its address is.
    let moved = serving(MemberId::FIRST, "[2001:db8::1]");
    assert_eq!(serve(&bed, &moved).await.unwrap(), "2001:db8::1");
    assert_eq!(serve(&bed, &first).await.unwrap(), "a.example.com");

    let second = add(&bed, SECOND, "a.example.com").await.unwrap();
    assert_eq!(second, "a.example.com-2");
    let serves = serve(&bed, &serving(SECOND, "b.example.com")).await;
    assert_eq!(serves.unwrap(), "a.example.com-2");
    let found = bed.store.member(SECOND).await.unwrap().unwrap();
    assert_eq!(found.tunnel_address.unwrap(), "b.example.com:4433");
    assert_eq!(found.public.unwrap(), "a.example.com");
    let by_key = bed.store.member_by_key(&found.tunnel_key).await.unwrap();
    assert_eq!(by_key.unwrap().id, SECOND);

    let leave = async |tx: &mut Tx| tx.set_member_state(SECOND, MemberState::Removed).await;
    assert!(bed.store.change(leave).await.unwrap());
    assert!(!bed.store.change(leave).await.unwrap());
    let left = serve(&bed, &serving(SECOND, "b.example.com")).await;
    assert!(matches!(left, Err(StoreError::MemberLeft(name)) if name == "a.example.com-2"));
    // Its name is free, and it is still known.
    let third = add(&bed, MemberId([3; 16]), "a.example.com").await.unwrap();
    assert_eq!(third, "a.example.com-2");
    let states: Vec<_> = bed.store.members().await.unwrap();
    let states: Vec<_> = states.iter().map(|member| member.state).collect();
    use MemberState::{Active, Removed};
    assert_eq!(states, [Active, Removed, Active]);
    for number in 4..10 {
        add(&bed, MemberId([number; 16]), "c").await.unwrap();
    }
    let full = add(&bed, MemberId([10; 16]), "c").await;
    assert!(matches!(full, Err(StoreError::ClusterFull)));
}

async fn no_two_members_have_one_address_for_devices(on: Backend) {
    let bed = Fixture::new(on).await;
    let mut first = serving(MemberId::FIRST, "a.example.com");
    serve(&bed, &first).await.unwrap();
    add(&bed, SECOND, "b").await.unwrap();
    let mut second = serving(SECOND, "b");
    second.tunnel_address.clone_from(&first.tunnel_address);
    let taken = serve(&bed, &second).await.unwrap_err();
    let expected =
        "devices reach another relay of the cluster, a.example.com, at a.example.com:4433";
    assert!(matches!(&taken, StoreError::AddressTaken { .. }));
    assert_eq!(taken.fault().found, expected);
    // One name for operators, of a balancer, is no matter; and the address is free once the other has moved.
    second.ssh_address.clone_from(&first.ssh_address);
    first.tunnel_address = "c.example.com:4433".to_owned();
    serve(&bed, &first).await.unwrap();
    serve(&bed, &second).await.unwrap();
}

async fn a_run_ends_earlier_runs_of_its_own_member_only(on: Backend) {
    let bed = Fixture::new(on).await;
    let (first, second) = (bed.run(MemberId::FIRST).await, bed.run(SECOND).await);
    let (here, there) = (bed.join(1, None).await, bed.join(2, None).await);
    open(&bed, here.id, first).await.unwrap();
    open(&bed, there.id, second).await.unwrap();
    let next = bed.run(SECOND).await;
    assert!(matches!(
        beat(&bed, second, at(1)).await,
        Err(StoreError::RunOver)
    ));
    for run in [first, next] {
        beat(&bed, run, at(1)).await.unwrap();
    }
    let devices = bed.store.devices(at(1)).await.unwrap();
    let is_online = |id| {
        let device = devices.iter().find(|device| device.id == id).unwrap();
        device.presence.state == PresenceState::Online
    };
    assert!(is_online(here.id) && !is_online(there.id));
    // What the last run had is reset by its own member alone, which has the keys for that.
    let left = async |member| bed.store.left_tunnels(member, at(1)).await.unwrap().len();
    let id = async |tx: &mut Tx| {
        let opened = tx
            .tunnel_opened(there.id, next, facts("1.2.3.4:5"), at(1))
            .await?;
        tx.note_connection_ids(&[(there.id, opened.generation, TunnelId([7; 8]))])
            .await
    };
    bed.store.change(id).await.unwrap();
    assert_eq!((left(MemberId::FIRST).await, left(SECOND).await), (0, 1));
}

async fn facts_of_one_member_say_nothing_of_another(on: Backend) {
    let bed = Fixture::new(on).await;
    bed.run(SECOND).await;
    let serves = async |member| bed.store.relay_serves(member, at(1)).await.unwrap();
    assert!(serves(SECOND).await);
    assert!(!serves(MemberId::FIRST).await);
}

async fn the_files_of_all_members_bound_what_is_removed(on: Backend) {
    let bed = Fixture::new(on).await;
    serve(&bed, &serving(MemberId::FIRST, "a")).await.unwrap();
    add(&bed, SECOND, "b").await.unwrap();
    let others = async || bed.store.audit_written_by_others().await.unwrap();
    let note = async |fact: &str, value: &str| {
        let fact = meta::of_member(fact, SECOND);
        let set = async |tx: &mut Tx| tx.meta_set(&fact, value).await;
        bed.store.change(set).await.unwrap();
    };
    // Who writes no file has nothing to wait for.
    assert_eq!(others().await, None);
    note(meta::AUDIT_FILE, "yes").await;
    assert_eq!(others().await, Some(0));
    note("audit_written", "7").await;
    bed.store.set_audit_written(3).await.unwrap();
    assert_eq!(others().await, Some(7));
    let leave = async |tx: &mut Tx| tx.set_member_state(SECOND, MemberState::Removed).await;
    assert!(bed.store.change(leave).await.unwrap());
    assert_eq!(others().await, None);
}

async fn a_run_that_is_dead_is_ended_and_stays_dead(on: Backend) {
    let bed = Fixture::new(on).await;
    let (first, second) = (bed.run(MemberId::FIRST).await, bed.run(SECOND).await);
    serve(&bed, &serving(MemberId::FIRST, "a")).await.unwrap();
    add(&bed, SECOND, "b").await.unwrap();
    serve(&bed, &serving(SECOND, "b")).await.unwrap();
    let device = bed.join(1, None).await;
    open(&bed, device.id, second).await.unwrap();
    let alice = UserName::new("alice").unwrap();
    let lease = LeaseRow {
        relay: second,
        number: 1,
        quota: Quota::Sessions,
        user: alice.clone(),
    };
    bed.store
        .change(async |tx| tx.take_lease(&lease, None, T0).await)
        .await
        .unwrap()
        .unwrap();
    beat(&bed, first, at(9)).await.unwrap();
    assert!(!bed.store.has_stale_runs(first, at(9)).await.unwrap());
    assert_eq!(end_stale(&bed, first, at(9)).await, []);
    // One that is late itself declares nothing of others.
    assert_eq!(end_stale(&bed, first, at(20)).await, []);
    beat(&bed, first, at(20)).await.unwrap();
    assert!(bed.store.has_stale_runs(first, at(20)).await.unwrap());
    assert_eq!(end_stale(&bed, first, at(20)).await, [second]);

    let in_use = bed.store.leases_in_use(&alice, at(20)).await.unwrap();
    assert_eq!(in_use.sessions, 0);
    assert_eq!(bed.store.locate(device.id).await.unwrap(), None);
    let presence = bed.store.devices(at(20)).await.unwrap()[0].presence;
    assert_eq!(presence.since, Some(T0));
    // Whatever it still tries is refused.
    for _ in 0..2 {
        assert!(matches!(
            beat(&bed, second, at(21)).await,
            Err(StoreError::RunOver)
        ));
    }
    let opened = open(&bed, device.id, second).await;
    assert!(matches!(opened, Err(StoreError::RunOver)));
    let taken = bed
        .store
        .change(async |tx| tx.take_lease(&lease, None, at(21)).await)
        .await;
    assert!(taken.is_err());
    let stop = async |tx: &mut Tx| tx.relay_stopped(first, at(22)).await;
    bed.store.change(stop).await.unwrap();
    assert!(matches!(
        beat(&bed, first, at(23)).await,
        Err(StoreError::RunOver)
    ));
    // A login that was on its way takes no slot of a limit that others have.
    let late = LeaseRow { number: 9, ..lease };
    for limit in [None, std::num::NonZeroU32::new(5)] {
        let taken = bed
            .store
            .change(async |tx| tx.take_lease(&late, limit, at(60)).await);
        assert!(matches!(taken.await, Err(StoreError::RunOver)), "{limit:?}");
    }
}

async fn a_device_is_located_at_the_member_that_has_its_newest_tunnel(on: Backend) {
    let bed = Fixture::new(on).await;
    let first = serving(MemberId::FIRST, "a.example.com");
    serve(&bed, &first).await.unwrap();
    add(&bed, SECOND, "b.example.com").await.unwrap();
    let (one, two) = (bed.run(MemberId::FIRST).await, bed.run(SECOND).await);
    let device = bed.join(1, None).await;
    let other = bed.join(2, None).await;
    let locate = async |id| bed.store.locate(id).await.unwrap();
    assert_eq!(locate(device.id).await, None);
    let opened = open(&bed, device.id, one).await.unwrap();
    assert_eq!(opened.replaced, None);
    let expected = Located {
        run: one,
        member: MemberId::FIRST,
        name: "a.example.com".to_owned(),
        tunnel_key: first.tunnel_key,
        tunnel_address: "a.example.com:4433".to_owned(),
        generation: opened.generation,
    };
    assert_eq!(locate(device.id).await, Some(expected));
    assert_eq!(locate(other.id).await, None);
    // Again at the same relay: nothing is left elsewhere.
    let again = open(&bed, device.id, one).await.unwrap();
    assert_eq!(again.replaced, None);
    assert!(!bed.store.has_replaced_tunnels(one).await.unwrap());

    let moved = open(&bed, device.id, two).await.unwrap();
    assert_eq!(moved.replaced, Some(one));
    assert!(moved.generation > again.generation);
    // The second has never served, so it has no address.
    assert_eq!(locate(device.id).await, None);
    serve(&bed, &serving(SECOND, "b.example.com"))
        .await
        .unwrap();
    let found = locate(device.id).await.unwrap();
    assert_eq!((found.run, found.member), (two, SECOND));
    let take = async |run| {
        let took = bed
            .store
            .change(async |tx| tx.take_replaced_tunnels(run).await)
            .await;
        took.unwrap()
    };
    assert!(bed.store.has_replaced_tunnels(one).await.unwrap());
    assert_eq!(take(two).await, []);
    assert_eq!(take(one).await, [(device.id, again.generation)]);
    assert!(!bed.store.has_replaced_tunnels(one).await.unwrap());

    // The old one closes itself only.
    let close = async |tx: &mut Tx| tx.tunnel_closed(device.id, again.generation, at(1)).await;
    bed.store.change(close).await.unwrap();
    assert!(locate(device.id).await.is_some());
    let leave = async |tx: &mut Tx| tx.set_member_state(SECOND, MemberState::Removed).await;
    bed.store.change(leave).await.unwrap();
    assert_eq!(locate(device.id).await, None);
}

/// Covers the key of a member that asks a second time: what it gets are the cluster's keys, so its own key alone is not
/// enough.
async fn a_relay_gets_the_keys_again_only_before_it_has_served(on: Backend) {
    let bed = Fixture::new(on).await;
    serve(&bed, &serving(MemberId::FIRST, "a.example.com"))
        .await
        .unwrap();
    let devices = bed.token(1, &[]).await;
    let relays = NewToken {
        for_relay: true,
        uses: 1,
        ttl: HOUR,
        labels: Labels::new(),
    };
    let create = async |tx: &mut Tx| tx.create_token(relays, T0).await;
    let relays = bed.store.change(create).await.unwrap().1;
    let key = serving(SECOND, "b").tunnel_key;
    let join = async |secret: &TokenSecret, now| {
        let join = async |tx: &mut Tx| tx.enrol_relay(secret, key, "b.example.com", now).await;
        bed.store.change(join).await
    };
    let (id, name) = join(&relays, T0).await.unwrap();
    assert_eq!(name, "b.example.com");
    // Cut short: with the same token, although it is used up, and with no other and no later.
    assert_eq!(join(&relays, T0).await.unwrap().0, id);
    let unknown = join(&TokenSecret([9; 20]), T0).await.unwrap_err();
    assert!(matches!(unknown, EnrolError::TokenUnknown), "{unknown}");
    let other = join(&devices, T0).await.unwrap_err();
    assert!(matches!(other, EnrolError::TokenForDevices(_)), "{other}");
    let late = join(&relays, T0.after(HOUR)).await.unwrap_err();
    assert!(matches!(late, EnrolError::TokenExpired { .. }), "{late}");

    let second = ServingMember {
        tunnel_key: key,
        ..serving(id, "b.example.com")
    };
    serve(&bed, &second).await.unwrap();
    let again = join(&relays, T0).await.unwrap_err();
    assert!(matches!(again, EnrolError::RelayHasServed(_)), "{again}");
}

async fn a_member_drains_until_it_serves_again(on: Backend) {
    let bed = Fixture::new(on).await;
    let first = serving(MemberId::FIRST, "a.example.com");
    serve(&bed, &first).await.unwrap();
    let run = bed.run(MemberId::FIRST).await;
    let left = async || bed.store.member_runs().await.unwrap()[&MemberId::FIRST].left;
    assert_eq!(bed.store.draining().await.unwrap().len(), 0);
    assert_eq!(left().await, None);
    for until in [at(9), at(7)] {
        let drain = async |tx: &mut Tx| tx.drain_member(MemberId::FIRST, until).await;
        bed.store.change(drain).await.unwrap();
        let draining = bed.store.draining().await.unwrap();
        assert_eq!(draining.get(&first.tunnel_key), Some(&until));
    }
    let counts = DrainLeft {
        tunnels: 2,
        sessions: 1,
    };
    let note = async |tx: &mut Tx| tx.note_drain_left(run, counts).await;
    bed.store.change(note).await.unwrap();
    assert_eq!(left().await, Some(counts));
    assert!(!counts.is_nothing());

    serve(&bed, &first).await.unwrap();
    bed.run(MemberId::FIRST).await;
    assert_eq!(bed.store.draining().await.unwrap().len(), 0);
    assert_eq!(left().await, None);
    let member = bed.store.member(MemberId::FIRST).await.unwrap().unwrap();
    assert_eq!(
        (member.state, member.drain_until),
        (MemberState::Active, None)
    );
}

on_both!(
    a_relay_gets_the_keys_again_only_before_it_has_served,
    a_member_drains_until_it_serves_again,
    members_have_own_names_and_serve_until_they_leave,
    no_two_members_have_one_address_for_devices,
    facts_of_one_member_say_nothing_of_another,
    the_files_of_all_members_bound_what_is_removed,
    a_run_ends_earlier_runs_of_its_own_member_only,
    a_run_that_is_dead_is_ended_and_stays_dead,
    a_device_is_located_at_the_member_that_has_its_newest_tunnel,
);
