//! Users, and who may run what.

use super::*;

#[tokio::test]
async fn a_user_is_added_shown_and_removed() {
    let fixture = Fixture::new().await;
    let add = "user add alice --key - --role admin";
    let said = fixture.by(&Caller::Local, add, ED25519).await;
    assert_eq!(
        said.out,
        format!("user alice added: 1 key ({FINGERPRINT}), roles admin\n")
    );
    let said = fixture.by(&Caller::Local, add, ED25519).await;
    assert_eq!(
        said.out,
        format!("user alice unchanged: 1 key ({FINGERPRINT}), roles admin\n")
    );
    let said = fixture
        .by(&Caller::Local, "user add bob --key -", ED25519)
        .await;
    assert!(said.err.contains("belongs to user \"alice\"") && said.code == FAILED);

    let users = fixture.json("user ls --json").await;
    assert_eq!(users[0]["name"], "alice");
    assert_eq!(users[0]["roles"][0], "admin");
    assert_eq!(users[0]["created"], "2026-11-22T05:06:00.000000Z");
    assert_eq!(users[0]["keys"][0]["fingerprint"], FINGERPRINT);
    let shown = fixture.ok("user show alice").await;
    assert!(
        shown.contains(FINGERPRINT) && shown.contains("a\\u{1b}[2Jb"),
        "{shown}"
    );
    assert_eq!(fixture.ok("user ls").await.lines().count(), 2);

    fixture
        .ok(&format!("user key rm alice {FINGERPRINT}"))
        .await;
    fixture
        .fails(&format!("user key rm alice {FINGERPRINT}"))
        .await;
    let said = fixture
        .by(&Caller::Local, "user key add alice --key -", ED25519)
        .await;
    assert_eq!(
        said.out,
        format!("user alice: 1 key added ({FINGERPRINT})\n")
    );
    assert_eq!(fixture.ok("user rm alice").await, "user alice removed\n");
    assert_eq!(
        fixture.fails("user rm alice").await,
        "no user \"alice\": see `relay user ls`\n"
    );
}

#[tokio::test]
async fn a_role_that_does_not_exist_is_named_with_those_that_do() {
    let fixture = Fixture::new().await;
    let add = "user add alice --key - --role 'root\u{1b}'";
    let said = fixture.by(&Caller::Local, add, ED25519).await;
    assert_eq!(said.code, FAILED);
    assert!(
        said.err
            .starts_with("no role \"root\\u{1b}\": see `relay get roles`"),
        "{}",
        said.err
    );
    let said = fixture
        .by(&Caller::Local, "user add bob --key -", ED25519)
        .await;
    assert!(
        said.out.ends_with("no role: may do nothing yet\n"),
        "{}",
        said.out
    );
}

#[tokio::test]
async fn json_roles_omit_unimplemented_abilities() {
    let fixture = Fixture::new().await;
    let listed = fixture.ok("role ls --json").await;
    let rows: Value = serde_json::from_str(&listed).unwrap();
    let admin = &rows[0];
    assert_eq!(
        (&admin["name"], &admin["kind"]),
        (&"admin".into(), &"preset".into())
    );
    let allows = admin["allows"].as_array().unwrap();
    assert!(allows.contains(&"recover".into()), "{listed}");
    assert!(!allows.contains(&"join".into()), "{listed}");
    assert!(!fixture.ok("role ls").await.contains("join"));
}

#[tokio::test]
async fn the_console_opens_no_file_of_the_relay() {
    let fixture = Fixture::new().await;
    let admin = operator(&["admin"], false);
    for file in ["/etc/passwd", "/nonexistent", "./x"] {
        let said = fixture
            .by(&admin, &format!("user add eve --key {file}"), "")
            .await;
        assert_eq!(said.code, USAGE);
        assert!(
            said.err.starts_with("over ssh, keys come by stdin"),
            "{}",
            said.err
        );
    }
    for line in ["apply -f policy.toml", "ca trust x.pub", "ca revoke x.krl"] {
        let said = fixture.by(&admin, line, "").await;
        assert_eq!(said.code, USAGE, "{line}");
        assert!(said.err.starts_with("over ssh, "), "{}", said.err);
        // Who may not give the command hears that first.
        let said = fixture.by(&operator(&["operator"], false), line, "").await;
        assert_eq!(said.code, FAILED, "{line}");
    }
    let said = fixture.by(&admin, "user add eve --key -", ED25519).await;
    assert_eq!(said.code, DONE);
    assert_eq!(
        fixture.by(&admin, "user add eve --key -", "").await.code,
        FAILED
    );
}

#[tokio::test]
async fn everybody_learns_who_they_are() {
    let fixture = Fixture::serving().await;
    let whoami = async |caller: &Caller| fixture.by(caller, "whoami", "").await.out;
    let no_roles = operator(&[], false);
    assert_eq!(
        whoami(&no_roles).await,
        "bob: no role: may do nothing yet\n"
    );
    let admin = whoami(&operator(&["admin"], false)).await;
    assert!(
        admin.starts_with("bob: roles admin\nidle timeout  15 minutes (the default)\n"),
        "{admin}"
    );
    let local = whoami(&Caller::Local).await;
    assert!(
        local.starts_with("the relay's own administrator"),
        "{local}"
    );
    let said = fixture.by(&no_roles, "whoami --json", "").await.out;
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (&said["user"], &said["disabled"]),
        (&Value::from("bob"), &Value::from(false))
    );
}

#[tokio::test]
async fn part_of_a_session_is_enough_for_audit() {
    let fixture = Fixture::new().await;
    let ids = ["3f9a", "3fbb", "71"].map(|begins| format!("{begins:0<32}"));
    for id in &ids {
        let id = holdfast_protocol::ids::SessionId::from_hex(id).unwrap();
        let event = Event::new(crate::audit::EventKind::SessionStart).session(id);
        fixture.context.audit.record(event).await.unwrap();
    }
    let shown = fixture.ok("audit --session 3F9").await;
    assert!(
        shown.contains(&ids[0]) && !shown.contains(&ids[1]),
        "{shown}"
    );
    assert!(fixture.ok("audit --session 7").await.contains(&ids[2]));
    let refused = fixture.fails("audit --session 3f").await;
    assert_eq!(
        refused,
        format!(
            "more than one session begins with \"3f\", give more of the id: {}, {}\n",
            ids[0], ids[1]
        )
    );
    let refused = fixture.fails("audit --session 99").await;
    assert!(
        refused.starts_with("no session \"99\" in the audit log"),
        "{refused}"
    );
    for bad in ["x", "'3f%'", "''", &"a".repeat(33)] {
        let refused = fixture.run(&format!("audit --session {bad}")).await;
        assert_eq!(refused.code, USAGE, "{bad}");
        assert!(
            refused.err.contains("or the beginning of it"),
            "{}",
            refused.err
        );
    }
}

#[tokio::test]
async fn locked_device_with_a_token_left_is_answered_with_it() {
    let fixture = Fixture::new().await;
    let token = NewToken {
        for_relay: false,
        uses: 3,
        ttl: Duration::from_secs(3600),
        labels: Labels::new(),
    };
    let store = &fixture.context.store;
    let (id, secret) = store
        .change(async |tx| tx.create_token(token, T0).await)
        .await
        .unwrap();
    let enrolment = Enrolment {
        secret: &secret,
        key: PublicKey([7; 32]),
        name: "cam".parse().ok(),
        labels: Labels::new(),
        agent_version: String::new(),
        target: String::new(),
        now: T0,
    };
    store
        .change(async |tx| tx.enrol(enrolment).await)
        .await
        .unwrap();
    let said = fixture.ok("lock device cam").await;
    assert!(
        said.contains(&format!(
            "warning: it enrolled with token {id}, with which 2 more may join"
        )),
        "{said}"
    );
    let said = fixture.json("lock device cam --json").await;
    assert_eq!(said["leftover_token"]["uses_left"], 2);
    fixture.ok(&format!("token rm {id}")).await;
    assert_eq!(fixture.ok("lock device cam").await.lines().count(), 1);
}

#[tokio::test]
async fn every_listing_fits_the_terminal() {
    let mut fixture = Fixture::serving().await;
    let key = ED25519.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let labels = (0..8).map(|n| {
        (
            format!("key{n}").parse().unwrap(),
            "x".repeat(60).parse().unwrap(),
        )
    });
    let labels: Labels = labels.collect();
    fixture.device(1, &"c".repeat(50), labels).await;
    let roles: Vec<String> = (0..20).map(|n| format!("role-{n}")).collect();
    let policy: String = roles
        .iter()
        .map(|role| format!("[roles.{role}]\n"))
        .collect();
    assert_eq!(
        fixture.by(&Caller::Local, "apply -f -", &policy).await.code,
        DONE
    );
    let roles: Vec<String> = roles.iter().map(|role| format!("--role {role}")).collect();
    let add = format!("user add alice --key - {}", roles.join(" "));
    assert_eq!(fixture.by(&Caller::Local, &add, &key).await.code, DONE);
    assert_eq!(
        fixture
            .by(&Caller::Local, "ca trust - --name corp", &key)
            .await
            .code,
        DONE
    );
    fixture
        .ok(&format!("lock user alice --message '{}'", "w".repeat(150)))
        .await;
    for line in [
        "devices",
        "user ls",
        "get users",
        "role ls",
        "get roles",
        "token ls",
        "lock ls",
        "ca ls",
        "ca revoked",
        "sessions",
        "recordings",
        "audit",
    ] {
        fixture.context.width = None;
        let whole = fixture.ok(line).await;
        fixture.context.width = Some(60);
        let fitted = fixture.ok(line).await;
        let widest = fitted
            .lines()
            .map(|line| line.chars().count())
            .max()
            .unwrap_or(0);
        assert!(widest <= 60, "{line}: {fitted}");
        if ["devices", "user ls", "lock ls", "audit"].contains(&line) {
            assert!(
                whole.lines().any(|line| line.chars().count() > 60),
                "{line}: {whole}"
            );
        }
    }
}

#[tokio::test]
async fn policy_that_names_join_is_refused_with_a_sentence() {
    let fixture = Fixture::new().await;
    for rule in ["allow", "deny"] {
        let policy = format!(
            "[roles.helper.{rule}]\nlabels = {{ '*' = '*' }}\nlogins = ['*']\nabilities = ['join']\n"
        );
        let said = fixture.by(&Caller::Local, "apply -f -", &policy).await;
        assert_eq!(said.code, FAILED);
        assert_eq!(
            said.err,
            "stdin: role \"helper\" names the ability \"join\", which no version of this relay implements: take it out\n"
        );
    }
}

#[tokio::test]
async fn what_a_policy_quotes_is_escaped_once() {
    let fixture = Fixture::new().await;
    let policy = "[roles.x]\nrecording = \"a\\u001b\\\\b\"\n";
    let said = fixture.by(&Caller::Local, "apply -f -", policy).await;
    assert_eq!(
        said.err,
        "stdin: line 2: \"a\\u{1b}\\\\b\": expected strict, best-effort, off\n"
    );
}
