//! `ca`.

use super::*;

/// Returns the same key under another comment.
fn named(comment: &str) -> String {
    let key = ED25519.split(' ').take(2).collect::<Vec<_>>().join(" ");
    format!("{key} {comment}\n")
}

#[tokio::test]
async fn an_authority_is_trusted_by_name() {
    let mut fixture = Fixture::new().await;
    let local = Caller::Local;
    let trust = async |line: &str, key: &str| fixture.by(&local, line, key).await;
    let nameless = trust("ca trust -", ED25519).await;
    assert_eq!(nameless.code, FAILED);
    assert!(nameless.err.contains("--name"), "{}", nameless.err);
    for bad in ["''", "-x", "'a b'", "a:b"] {
        let said = trust(&format!("ca trust - --name={bad}"), ED25519).await;
        assert_eq!((said.code, said.out.as_str()), (FAILED, ""), "{bad}");
    }
    let said = trust("ca trust -", &named("corp")).await;
    assert_eq!(said.out, format!("authority corp trusted: {FINGERPRINT}\n"));
    let said = trust("ca trust - --name corp", ED25519).await;
    assert_eq!(
        said.out,
        format!("authority corp is trusted already: {FINGERPRINT}\n")
    );
    let said = trust("ca trust - --name other", ED25519).await;
    assert!(
        said.err.contains("is trusted already, as \"corp\""),
        "{}",
        said.err
    );

    let row = &fixture.json("ca ls --json").await[0];
    assert_eq!(row["name"], "corp");
    assert_eq!(row["fingerprint"], FINGERPRINT);
    assert_eq!(row["revoked"], false);
    let table = fixture.ok("ca ls").await;
    assert!(
        table.contains("corp  trusted  ssh-ed25519  SHA256:UCU"),
        "{table}"
    );
    // In a narrow terminal the fingerprint is whole, too.
    fixture.context.width = Some(70);
    let table = fixture.ok("ca ls").await;
    assert!(table.contains(FINGERPRINT), "{table}");
    assert!(table.contains("\ncorp  trusted  SHA256:"), "{table}");

    fixture.by(&local, "ca revoke -", FINGERPRINT).await;
    assert_eq!(fixture.json("ca ls --json").await[0]["revoked"], true);
    fixture.ok(&format!("ca unrevoke {FINGERPRINT}")).await;
    assert_eq!(fixture.json("ca ls --json").await[0]["revoked"], false);
    let removed = fixture.ok("ca rm corp").await;
    assert!(
        removed.starts_with(&format!("authority corp ({FINGERPRINT})")),
        "{removed}"
    );
    assert_eq!(
        fixture.fails("ca rm 'co\u{1b}rp'").await,
        "no authority \"co\\u{1b}rp\": see `relay ca ls`\n"
    );
}

#[tokio::test]
async fn log_has_each_change_and_none_that_was_not_made() {
    let fixture = Fixture::new().await;
    fixture.fails("ca rm corp").await;
    fixture.ok("ca host-key rotate").await;
    fixture.context.audit.close().await;
    let filter = store::AuditFilter::default();
    let rows = fixture
        .context
        .store
        .audit_after(&filter, 0, 10)
        .await
        .unwrap();
    let mut rows: Vec<_> = rows
        .iter()
        .map(|row| (row.more["change"].as_str().unwrap(), row.outcome.as_str()))
        .collect();
    rows.sort_unstable();
    assert_eq!(
        rows,
        [("ca.host-key.rotate", "success"), ("ca.rm", "failed")]
    );
}

#[tokio::test]
async fn several_keys_and_the_relays_own_are_no_authority() {
    let fixture = Fixture::new().await;
    let own = fixture.context.facts.ssh_ca.clone();
    let two = format!("{}{own} x\n", named("corp"));
    let said = fixture
        .by(&Caller::Local, "ca trust - --name corp", &two)
        .await;
    assert!(
        said.err.starts_with("stdin holds several keys"),
        "{}",
        said.err
    );
    let said = fixture
        .by(&Caller::Local, "ca trust - --name corp", &own)
        .await;
    assert!(
        said.err.contains("a key of the relay's own"),
        "{}",
        said.err
    );
    assert_eq!(fixture.ok("ca ls --json").await, "[]\n");
}

#[tokio::test]
async fn revocations_are_listed_for_people_and_machines() {
    let fixture = Fixture::new().await;
    let text = format!("{FINGERPRINT}\nSHA1:Z1PfE2457ue6HfxSfpVRLrGieO8\n");
    let said = fixture.by(&Caller::Local, "ca revoke -", &text).await;
    assert_eq!(said.out, "2 new revocations, 0 removed, 2 in all\n");
    let said = fixture
        .by(&Caller::Local, "ca revoke - --replace --json", FINGERPRINT)
        .await;
    let change: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(
        change,
        serde_json::json!({"added": 0, "removed": 1, "total": 1})
    );
    let things = [
        store::RevokedThing::Serials {
            authority: None,
            serials: 7..=u64::MAX,
        },
        store::RevokedThing::KeyId {
            authority: Some("SHA256:x".into()),
            id: "a\u{1b}[2J".into(),
        },
    ];
    fixture
        .context
        .store
        .change(async |tx| tx.revoke(&things, false, T0).await)
        .await
        .unwrap();
    let table = fixture.ok("ca revoked").await;
    assert!(!table.contains('\u{1b}'), "{table}");
    assert!(table.contains("serials 7-18446744073709551615"), "{table}");
    let rows = fixture.json("ca revoked --json").await;
    assert_eq!(rows[0]["kind"], "key");
    assert_eq!(rows[0]["fingerprint"], FINGERPRINT);
    assert_eq!(
        (&rows[1]["kind"], &rows[1]["last"]),
        (&"serial".into(), &u64::MAX.into())
    );
    assert_eq!(rows[2]["key_id"], "a\u{1b}[2J");
    assert_eq!(rows[2]["authority"], "SHA256:x");
    let unknown = fixture.fails("ca unrevoke 99").await;
    assert_eq!(
        unknown,
        "nothing revoked is called \"99\": see `relay ca revoked`\n"
    );
}

#[tokio::test]
async fn only_who_administers_may_and_no_file_of_the_relays_is_read() {
    let fixture = Fixture::new().await;
    let no_roles = operator(&[], false);
    for line in [
        "ca ls",
        "ca revoked",
        "ca trust -",
        "ca revoke -",
        "ca rm x",
        "ca unrevoke 1",
    ] {
        let said = fixture.by(&no_roles, line, &named("corp")).await;
        assert_eq!((said.code, said.out.as_str()), (FAILED, ""), "{line}");
        assert!(said.err.contains("bob"), "{line}: {}", said.err);
    }
    let admin = operator(&["admin"], false);
    for line in ["ca trust /etc/hostname", "ca revoke /etc/hostname"] {
        let said = fixture.by(&admin, line, "").await;
        assert!(said.err.starts_with("over ssh, "), "{line}: {}", said.err);
    }
}

#[tokio::test]
async fn replaced_host_key_is_named_beside_the_one_that_is_served() {
    let mut fixture = Fixture::serving().await;
    let shown = async |fixture: &mut Fixture| {
        let state = State::open(&fixture.context.facts.folder).unwrap();
        let archive = fixture.context.facts.archive.clone();
        fixture.context.facts = RelayFacts::of(&state, archive);
        let lines = fixture.ok("ssh-config --known-hosts").await;
        let keys = lines.lines().filter(|line| !line.starts_with('@'));
        keys.map(|line| line.split_once(' ').unwrap().1.to_owned())
            .collect::<Vec<_>>()
    };
    let old = shown(&mut fixture).await;
    fixture.ok("ca host-key rotate").await;
    let both = shown(&mut fixture).await;
    assert_eq!((both.len(), &both[0]), (2, &old[0]));
    let said = fixture.ok("ca host-key rotate --finish").await;
    assert!(said.contains("from its next start on"), "{said}");
    assert_eq!(
        shown(&mut fixture).await,
        [both[1].as_str(), both[0].as_str()]
    );
    let now = fixture.json("ca host-key --json").await;
    assert_eq!(now["served_public_key"], old[0].as_str());
    let text = fixture.ok("ca host-key").await;
    let served = now["served_fingerprint"].as_str().unwrap();
    let line = format!("shown now      {served}, until the relay is restarted");
    assert!(text.contains(&line), "{text}");
    for again in ["ca host-key rotate", "ca host-key rotate --finish"] {
        let refused = fixture.fails(again).await;
        assert!(refused.contains("restart the relay first"), "{refused}");
        assert!(refused.contains(served), "{refused}");
    }
    drop(State::create_or_open(&fixture.context.facts.folder).unwrap());
    assert_eq!(shown(&mut fixture).await, [both[1].as_str()]);
    assert!(fixture.json("ca host-key --json").await["served_public_key"].is_null());
    fixture.ok("ca host-key rotate").await;
}
