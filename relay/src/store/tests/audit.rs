//! The audit log's rows.

use super::*;
use crate::audit::{Actor, Event, EventKind};

fn entry(secs: u64, kind: EventKind, user: &str) -> AuditEntry {
    let event = Event::new(kind).user(Actor::by_key(user, "SHA256:x"));
    event.entry(Some("relay:1"), at(secs))
}

async fn ids(bed: &Fixture, filter: &AuditFilter, limit: u32) -> Vec<i64> {
    let head = bed.store.audit_head().await.unwrap();
    let mut after = match limit {
        0 => AuditKey::START,
        count => bed.store.audit_newest(filter, head, count).await.unwrap(),
    };
    let mut ids = Vec::new();
    loop {
        let page = bed.store.audit_page(filter, after, head, 3).await.unwrap();
        let Some(last) = page.last() else {
            return ids;
        };
        after = last.key();
        ids.extend(page.iter().map(|entry| entry.id));
    }
}

async fn filled(on: Backend) -> Fixture {
    let bed = Fixture::new(on).await;
    let mut entries = Vec::new();
    for n in 0..20 {
        let kind = [EventKind::UserLogin, EventKind::SessionStart][n % 2];
        let mut entry = entry(n as u64, kind, ["alice", "bob", "eve"][n % 3]);
        entry.device = (n >= 10).then(|| "cam".to_owned());
        entry.session = (n == 7).then(|| "00".repeat(16));
        entries.push(entry);
    }
    // Written later than it happened.
    entries.push(entry(3, EventKind::UserLogin, "alice"));
    bed.store
        .change(async |tx| tx.append_audit(&entries).await)
        .await
        .unwrap();
    bed
}

async fn filters_return_rows_in_time_order_across_pages(on: Backend) {
    let bed = filled(on).await;
    let all = AuditFilter::default();
    let mut by_time: Vec<i64> = (1..=4).collect();
    by_time.push(21);
    by_time.extend(5..=20);
    assert_eq!(ids(&bed, &all, 0).await, by_time);
    assert_eq!(ids(&bed, &all, 5).await, [16, 17, 18, 19, 20]);
    assert_eq!(ids(&bed, &all, 1_000).await, by_time);
    let alice = AuditFilter {
        user: Some("alice".to_owned()),
        ..all.clone()
    };
    assert_eq!(ids(&bed, &alice, 0).await, [1, 4, 21, 7, 10, 13, 16, 19]);
    let starts = AuditFilter {
        event: Some("session.start".to_owned()),
        ..alice.clone()
    };
    assert_eq!(ids(&bed, &starts, 0).await, [4, 10, 16]);
    let device = AuditFilter {
        device: Some("cam".to_owned()),
        since: Some(at(18)),
        ..all.clone()
    };
    assert_eq!(ids(&bed, &device, 0).await, [19, 20]);
    let session = AuditFilter {
        session: Some("00".repeat(16)),
        ..all.clone()
    };
    assert_eq!(ids(&bed, &session, 0).await, [8]);
    let span = AuditFilter {
        since: Some(at(2)),
        until: Some(at(4)),
        ..all
    };
    assert_eq!(ids(&bed, &span, 0).await, [3, 4, 21]);
    let behind = bed.store.audit_after(&alice, 13, 2).await.unwrap();
    assert_eq!(
        behind.iter().map(|entry| entry.id).collect::<Vec<_>>(),
        [16, 19]
    );
}

async fn an_entry_comes_back_as_it_was_written(on: Backend) {
    let bed = Fixture::new(on).await;
    let device = bed.join(1, Some("cam")).await;
    let event = Event::exec(b"a\xff\r\n\"\x1b")
        .user(Actor::by_key("alice", "SHA256:x").email(Some("alice@example.com")))
        .device(&device)
        .client("[2001:db8::1]:5".parse().unwrap())
        .session(holdfast_protocol::ids::SessionId([7; 16]))
        .login(&holdfast_protocol::ids::Login::new("pi").unwrap())
        .refused("no");
    let mut entry = event.entry(Some("relay:1"), T0);
    bed.store
        .change(async |tx| tx.append_audit(std::slice::from_ref(&entry)).await)
        .await
        .unwrap();
    let filter = AuditFilter::default();
    let head = bed.store.audit_head().await.unwrap();
    let read = bed.store.audit_after(&filter, head - 1, 9).await.unwrap();
    entry.id = head;
    assert_eq!(read, [entry]);
}

async fn no_row_is_ever_changed_and_only_old_ones_go(on: Backend) {
    let bed = filled(on).await;
    for forbidden in [
        "UPDATE audit SET user_name = 'mallory' WHERE id = 1",
        "DELETE FROM audit WHERE id = 1",
        "DELETE FROM audit",
    ] {
        let error = bed.bed.raw(forbidden).await.unwrap_err().to_string();
        assert!(error.contains("append-only"), "{forbidden}: {error}");
    }
    let tell = |removed: AuditRemoved| {
        let event = Event::new(EventKind::AuditRemoved).with("count", removed.count);
        event.entry(None, at(30))
    };
    let remove = async |before, up_to, limit| {
        let mut tx = bed.store.begin(Durability::Disk).await.unwrap();
        let removed = tx.remove_old_audit(before, up_to, limit).await.unwrap();
        removed
            .into_iter()
            .for_each(|removed| tx.audit(tell(removed)));
        tx.commit().await.unwrap();
        removed
    };
    assert_eq!(remove(T0, i64::MAX, 10).await, None);
    let removed = remove(at(10), i64::MAX, 4).await.unwrap();
    assert_eq!((removed.count, removed.ids), (4, (1, 4)));
    assert_eq!(removed.times, (at(0), at(3)));
    // What the file does not have yet stays.
    let removed = remove(at(10), 6, 100).await.unwrap();
    assert_eq!((removed.count, removed.ids), (2, (5, 6)));
    let left = bed
        .store
        .audit_after(&AuditFilter::default(), 0, 100)
        .await
        .unwrap();
    let left: Vec<_> = left.iter().map(|entry| entry.id).collect();
    assert_eq!(
        left,
        [
            7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23
        ]
    );
    let young = bed.bed.raw("DELETE FROM audit WHERE id = 20").await;
    assert!(
        young.is_err(),
        "what retention did not name is safe from it too"
    );
}

async fn a_change_and_its_row_are_one_transaction(on: Backend) {
    let bed = Fixture::new(on).await;
    let event = || Event::new(EventKind::AccessChanged).entry(None, T0);
    let alice = holdfast_protocol::ids::UserName::new("alice").unwrap();
    let key = UserKey {
        fingerprint: "SHA256:abc".to_owned(),
        public_key: "ssh-ed25519 AAAA".to_owned(),
        comment: String::new(),
    };
    let keys = [key];
    let mut tx = bed.store.begin(Durability::Disk).await.unwrap();
    tx.audit(event());
    let added = NewUser {
        keys: keys.to_vec(),
        ..NewUser::default()
    };
    tx.add_user(&alice, &added, T0).await.unwrap();
    assert!(tx.is_audited());
    tx.commit().await.unwrap();
    let all = AuditFilter::default();
    let rows = bed.store.audit_after(&all, 0, 10).await.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].more["keys"], serde_json::json!(["SHA256:abc"]));

    // The same again changes nothing, and tells nothing.
    let mut tx = bed.store.begin(Durability::Disk).await.unwrap();
    tx.audit(event());
    tx.add_user(&alice, &added, T0).await.unwrap();
    assert!(!tx.is_audited());
    tx.commit().await.unwrap();
    assert_eq!(bed.store.audit_head().await.unwrap(), 1);

    // What is dropped leaves nothing, not even its row.
    let mut tx = bed.store.begin(Durability::Disk).await.unwrap();
    tx.audit(event());
    assert!(tx.remove_user(&alice).await.unwrap());
    drop(tx);
    assert!(bed.store.user(&alice).await.unwrap().is_some());
    assert_eq!(bed.store.audit_head().await.unwrap(), 1);

    // Where the row cannot be written, nothing is changed.
    bed.bed.fail_inserts("audit").await;
    let mut tx = bed.store.begin(Durability::Disk).await.unwrap();
    tx.audit(event());
    assert!(tx.remove_user(&alice).await.unwrap());
    assert!(tx.commit().await.is_err());
    assert!(bed.store.user(&alice).await.unwrap().is_some());
    assert_eq!(bed.store.audit_head().await.unwrap(), 1);
}

async fn enrolment_and_token_use_are_one_event_batch(on: Backend) {
    let bed = Fixture::new(on).await;
    let secret = bed.token(1, &[]).await;
    let rows = [EventKind::TokenUsed, EventKind::DeviceEnrolled];
    let rows = rows.map(|kind| Event::new(kind).entry(None, T0));
    let mut tx = bed.store.begin(Durability::Disk).await.unwrap();
    rows.iter().cloned().for_each(|row| tx.audit(row));
    let device = tx.enrol(enrolment(&secret, 1, Some("cam"))).await;
    let device = device.unwrap();
    tx.commit().await.unwrap();
    let mut tx = bed.store.begin(Durability::Disk).await.unwrap();
    rows.iter().cloned().for_each(|row| tx.audit(row));
    tx.enrol(enrolment(&secret, 2, None)).await.unwrap_err();
    drop(tx);
    let rows = bed
        .store
        .audit_after(&AuditFilter::default(), 0, 10)
        .await
        .unwrap();
    let token = bed.store.tokens().await.unwrap().remove(0).id;
    let names: Vec<_> = rows.iter().map(|row| row.event.as_str()).collect();
    assert_eq!(names, ["token.used", "device.enrolled"]);
    for row in &rows {
        assert_eq!(row.more["token"], token.as_str());
        assert_eq!(row.device_id, Some(device.id.to_string()));
        assert_eq!(row.device.as_deref(), Some("cam"));
    }
}

on_both!(
    filters_return_rows_in_time_order_across_pages,
    an_entry_comes_back_as_it_was_written,
    no_row_is_ever_changed_and_only_old_ones_go,
    a_change_and_its_row_are_one_transaction,
    enrolment_and_token_use_are_one_event_batch,
);
