//! `lock`, `unlock`, `sessions`, and what `doctor` says of a relay that serves.

use super::*;
use crate::clock;
use crate::store::meta;

#[tokio::test]
async fn a_lock_is_listed_until_it_is_removed() {
    let fixture = Fixture::serving().await;
    fixture.device(1, "cam", Labels::new()).await;
    let add = "user add alice --role operator --key -";
    assert_eq!(fixture.by(&Caller::Local, add, ED25519).await.code, DONE);
    let said = fixture
        .ok("lock user alice --message 'laptop reported stolen' --ttl 1d")
        .await;
    assert_eq!(
        said,
        "lock 1: user alice is locked until 2026-11-23 05:06 UTC\n"
    );
    assert_eq!(
        fixture.ok("lock device cam").await,
        "lock 2: device cam is locked\n"
    );
    fixture.ok("lock role operator").await;
    fixture.ok("lock login root").await;
    let row: Value = fixture.json("lock address 203.0.113.0/24 --json").await;
    assert_eq!(
        (&row["value"], &row["id"]),
        (&"203.0.113.0/24".into(), &5.into())
    );
    let rows = fixture.json("lock ls --json").await;
    assert_eq!(rows.as_array().unwrap().len(), 5);
    assert_eq!(rows[0]["message"], "laptop reported stolen");
    assert_eq!(rows[0]["expires"], "2026-11-23T05:06:00.000000Z");
    assert_eq!(rows[0]["by"], Value::Null);
    assert_eq!(
        (&rows[1]["target"], &rows[1]["value"]),
        (&"device".into(), &"cam".into())
    );
    let table = fixture.ok("lock ls").await;
    assert!(
        table.contains("in 24 h") && table.contains("203.0.113.0/24"),
        "{table}"
    );
    assert_eq!(fixture.ok("unlock 2").await, "lock 2 removed\n");
    assert_eq!(
        fixture.fails("unlock 2").await,
        "no lock 2: see `relay lock ls`\n"
    );
}

#[tokio::test]
async fn what_is_not_there_is_not_locked() {
    let fixture = Fixture::serving().await;
    for (line, sentence) in [
        (
            "lock user alcie",
            "no user \"alcie\": see `relay user ls`\n",
        ),
        (
            "lock role operatr",
            "no role \"operatr\": see `relay role ls`\n",
        ),
        (
            "lock device cam",
            "no device \"cam\": see `relay devices`\n",
        ),
        (
            "lock device 'a\u{1b}'",
            "no device \"a\\u{1b}\": see `relay devices`\n",
        ),
    ] {
        assert_eq!(fixture.fails(line).await, sentence);
    }
    for bad in [
        "lock address 203.0.113.256".to_owned(),
        "lock address 10.0.0.1/8".to_owned(),
        "lock user alice --message 'two\nlines'".to_owned(),
        format!("lock user alice --message '{}'", "x".repeat(257)),
        "lock user alice --ttl 0s".to_owned(),
        "lock login 'no login'".to_owned(),
        "lock planet earth".to_owned(),
    ] {
        assert_eq!(fixture.run(&bad).await.code, USAGE, "{bad}");
    }
}

#[tokio::test]
async fn without_a_running_relay_no_wait_is_announced() {
    let fixture = Fixture::serving().await;
    let began = clock::instant();
    fixture.ok("lock login root").await;
    assert!(began.elapsed() < Duration::from_secs(2));
    // One that lives, and never looks.
    let relay = RelayId::random().unwrap();
    let store = &fixture.context.store;
    store
        .change(async |tx| {
            tx.relay_started(relay, MemberId::FIRST, Timestamp::now())
                .await
        })
        .await
        .unwrap();
    let said = fixture.run("lock login pi").await;
    assert_eq!(
        (said.code, said.out.as_str()),
        (FAILED, "lock 2: login pi is locked\n")
    );
    assert!(
        said.err
            .starts_with("this is stored, but 1 relay did not confirm within 5 s"),
        "{}",
        said.err
    );
    // A listing changes nothing, so there is nothing to wait for.
    let began = clock::instant();
    fixture.ok("lock ls").await;
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_filter_by_an_unknown_name_says_so() {
    let fixture = Fixture::serving().await;
    fixture.device(1, "cam", Labels::new()).await;
    fixture.ok("user add alice --principal alice").await;
    for known in [
        "sessions --user alice",
        "audit --user alice",
        "audit --user local",
        "audit --device cam",
    ] {
        fixture.ok(known).await;
    }
    assert_eq!(
        fixture.fails("sessions --user alcie").await,
        "no user \"alcie\": see `relay user ls`\n"
    );
    assert_eq!(
        fixture.fails("audit --user alcie").await,
        "no user \"alcie\", and no event about one of that name: see `relay user ls`\n"
    );
    for device in ["cma", "00000000000000000000000000000000"] {
        assert_eq!(
            fixture.fails(&format!("audit --device {device}")).await,
            format!(
                "no device \"{device}\", and no event about one of that name: see `relay devices`\n"
            )
        );
    }
    // What is removed is still in the log.
    let gone = Event::new(crate::audit::EventKind::UserLogin).user(Actor::by_key("gone", "k"));
    let entry = fixture.context.audit.entry(gone);
    let store = &fixture.context.store;
    store
        .change(async |tx| {
            tx.audit(entry);
            Ok::<_, store::StoreError>(())
        })
        .await
        .unwrap();
    let rows = fixture.ok("audit --user gone").await;
    assert_eq!(rows.lines().count(), 2, "{rows}");
    // Who sees only their own sessions does not hear which users there are.
    let said = fixture
        .by(&operator(&["operator"], false), "sessions --user alcie", "")
        .await;
    assert_eq!((said.code, said.err.as_str()), (DONE, ""));
}

#[tokio::test]
async fn doctor_says_of_a_serving_relay_alone_how_its_log_is() {
    let fixture = Fixture::serving().await;
    fixture
        .ok("user add alice --principal alice --role admin")
        .await;
    let store = &fixture.context.store;
    let note = async |found: &str, remedy: &str| {
        let noted = async |tx: &mut store::Tx| {
            tx.meta_set(meta::AUDIT_FAULT, found).await?;
            tx.meta_set(meta::AUDIT_REMEDY, remedy).await
        };
        store.change(noted).await.unwrap();
    };
    // What a relay noted that was ended since says nothing of now.
    for found in ["cannot write /x (no space (os error 28))", ""] {
        note(found, "make room there").await;
        let said = fixture.run("doctor").await.out;
        assert!(said.contains("no relay serves from"), "{said}");
        assert!(!said.contains("audit log"), "{said}");
    }
    let relay = RelayId::random().unwrap();
    let begins = async |tx: &mut store::Tx| {
        tx.relay_started(relay, MemberId::FIRST, Timestamp::now())
            .await
    };
    store.change(begins).await.unwrap();
    let said = fixture.run("doctor").await.out;
    assert!(said.contains("the audit log is written"), "{said}");
    note("cannot write /x (a: b)", "make room there").await;
    let said = fixture.run("doctor").await;
    assert_eq!(said.code, FAILED);
    let expected =
        "the relay cannot write the audit log: cannot write /x (a: b): make room there; until";
    assert!(said.out.contains(expected), "{}", said.out);
}
