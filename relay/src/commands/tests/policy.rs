//! `apply`, `get`, `role`, `doctor`, and what `user` and `whoami` say of roles.

use super::*;

const DOCUMENT: &str = r#"[roles.field-tech]
idle_timeout = "15m"
recording = "strict"
record_stdin = "redact"
source = ["203.0.113.0/24"]

[roles.field-tech.limits]
max_connections = 3
max_sessions = 5
max_channels = 10

[roles.field-tech.sftp]
read_only = true
root = "/srv/data"

[roles.field-tech.allow]
labels = { env = "!=lab", role = "camera", site = ["berlin", "paris"] }
logins = ["pi", "{user}"]
abilities = ["shell", "exec", "sftp"]

[roles.field-tech.deny]
logins = ["root"]
"#;

const USERS: &str = r#"[users.alice]
email = "alice@example.com"
roles = ["field-tech"]
keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti alice@laptop"]
principals = ["alice"]
"#;

async fn apply(fixture: &Fixture, flags: &str, text: &str) -> Said {
    fixture
        .by(&Caller::Local, &format!("apply -f - {flags}"), text)
        .await
}

#[track_caller]
fn says(said: &Said, out: &str) {
    assert_eq!(
        (said.code, said.out.as_str(), said.err.as_str()),
        (DONE, out, "")
    );
}

#[tokio::test]
async fn what_was_applied_is_given_back_and_again_changes_nothing() {
    let fixture = Fixture::new().await;
    let both = format!("{DOCUMENT}\n{USERS}");
    let planned = apply(&fixture, "--dry-run", &both).await;
    says(
        &planned,
        "+ role field-tech\n+ user alice\ndry run: nothing was changed\n",
    );
    assert_eq!(fixture.ok("get roles -o toml").await, "");
    says(
        &apply(&fixture, "", &both).await,
        "+ role field-tech\n+ user alice\n",
    );
    assert_eq!(fixture.ok("get roles -o toml").await, DOCUMENT);
    assert_eq!(fixture.ok("get users -o toml").await, USERS);
    assert_eq!(fixture.ok("get -o toml users").await, USERS);
    // Two forms are one too many, wherever they are asked for.
    for line in [
        "get users -o toml --json",
        "get -o toml users --json",
        "get --json users -o toml",
    ] {
        let said = fixture.run(line).await;
        assert_eq!((said.code, said.out.as_str()), (USAGE, ""), "{line}");
        assert!(
            said.err.contains(" cannot be given with --"),
            "{}",
            said.err
        );
    }
    let version = fixture.context.store.access_version().await.unwrap();
    for _ in 0..2 {
        says(&apply(&fixture, "", &both).await, "unchanged\n");
    }
    assert_eq!(
        fixture.context.store.access_version().await.unwrap(),
        version
    );
    let roles = fixture.json("get roles -o json").await;
    assert_eq!(roles["roles"]["field-tech"]["limits"]["max_sessions"], 5);
    let table = fixture.ok("get roles").await;
    assert!(
        table.contains("auditor     preset") && table.contains("field-tech  own"),
        "{table}"
    );
}

#[tokio::test]
async fn a_difference_is_one_line_for_each_thing_that_changes() {
    let fixture = Fixture::new().await;
    apply(&fixture, "", &format!("{DOCUMENT}\n{USERS}")).await;
    let version = fixture.context.store.access_version().await.unwrap();
    let changed = "[roles.field-tech]\nidle_timeout = \"never\"\n[roles.field-tech.limits]\nmax_sessions = 2\n\
        [users.alice]\nroles = [\"operator\"]\n[users.bob]\n";
    let said = apply(&fixture, "", changed).await;
    let lines: Vec<&str> = said.out.lines().collect();
    let expected = [
        "~ role field-tech: idle_timeout 15m -> never",
        "~ role field-tech: recording strict -> -",
        "~ role field-tech: record_stdin redact -> -",
        "~ role field-tech: source [\"203.0.113.0/24\"] -> -",
        "~ role field-tech: max_connections 3 -> -",
        "~ role field-tech: max_sessions 5 -> 2",
        "~ role field-tech: max_channels 10 -> -",
        "~ role field-tech: sftp.read_only true -> false",
        "~ role field-tech: sftp.root /srv/data -> -",
        "~ role field-tech: allow [{ abilities = [\"shell\", \"exec\", \"sftp\"], labels = { env = \"!=lab\", role = \"camera\", site = [\"berlin\", \"paris\"] }, logins = [\"pi\", \"{user}\"] }] -> -",
        "~ role field-tech: deny [{ logins = [\"root\"] }] -> -",
        "~ user alice: roles field-tech -> operator",
        "+ user bob",
    ];
    assert_eq!(lines, expected);
    assert!(fixture.context.store.access_version().await.unwrap() > version);
    // What the file does not name stays: alice's key, address and principal.
    let alice = fixture.json("user show alice --json").await;
    assert_eq!(alice["email"], "alice@example.com");
    assert_eq!(
        (
            alice["keys"].as_array().unwrap().len(),
            &alice["principals"][0]
        ),
        (1, &"alice".into())
    );
}

#[tokio::test]
async fn a_bad_file_changes_nothing() {
    let fixture = Fixture::new().await;
    let whole = format!("{DOCUMENT}\n{USERS}");
    let table = [
        (
            whole.replace("\"!=lab\"", "\"!=l b\""),
            "\"!=l b\": expected a label's value",
        ),
        (
            whole.replace("idle_timeout", "idle"),
            "stdin: line 2: unknown field `idle`",
        ),
        (
            whole.replace("roles = [\"field-tech\"]", "roles = [\"field-teck\"]"),
            "no role \"field-teck\", and user \"alice\" would have it",
        ),
        (
            whole.replace("[users.alice]", "[users.alice]\nshoe = 1"),
            "unknown field `shoe`",
        ),
        (
            format!("{whole}\n[users.bob]\nprincipals = [\"alice\"]"),
            "principal \"alice\" belongs to user \"alice\"",
        ),
        (
            format!(
                "{whole}\n{}",
                USERS
                    .replace("users.alice", "users.bob")
                    .replace("[\"alice\"]", "[\"bob\"]")
            ),
            "belongs to user \"alice\", and user \"bob\" would have it too",
        ),
        (
            format!("{whole}\n[roles.operator]"),
            "role \"operator\" is a preset",
        ),
    ];
    for (text, expected) in table {
        let said = apply(&fixture, "", &text).await;
        assert_eq!((said.code, said.out.as_str()), (FAILED, ""), "{}", said.err);
        assert!(said.err.contains(expected), "{expected}: {}", said.err);
        assert_eq!(said.err.lines().count(), 1);
        assert_eq!(fixture.ok("get roles -o toml").await, "");
        assert_eq!(fixture.ok("get users -o toml").await, "");
    }
    let long = "#".repeat(MAX_POLICY_INPUT + 1);
    assert!(
        apply(&fixture, "", &long)
            .await
            .err
            .starts_with("stdin is longer than")
    );
}

#[tokio::test]
async fn what_get_prints_as_json_is_applied() {
    let fixture = Fixture::new().await;
    apply(&fixture, "", &format!("{DOCUMENT}\n{USERS}")).await;
    let other = Fixture::new().await;
    for (what, applied) in [
        ("roles", "+ role field-tech\n"),
        ("users", "+ user alice\n"),
    ] {
        let printed = fixture.ok(&format!("get {what} -o json")).await;
        says(&apply(&other, "", &printed).await, applied);
        says(
            &apply(&other, "", &format!("\n\t {printed}")).await,
            "unchanged\n",
        );
    }
    for form in ["toml", "json"] {
        for what in ["roles", "users"] {
            let line = format!("get {what} -o {form}");
            assert_eq!(other.ok(&line).await, fixture.ok(&line).await);
        }
    }
    // From a file of the relay's machine, too.
    let file = fixture._dir.path().join("policy.json");
    std::fs::write(&file, other.ok("get roles -o json").await).unwrap();
    let line = format!("apply -f {}", file.display());
    assert_eq!(fixture.ok(&line).await, "unchanged\n");
}

#[tokio::test]
async fn a_mistake_in_json_is_one_sentence_with_its_place() {
    let fixture = Fixture::new().await;
    let table = [
        (
            r#"{"roles": {"r": {"idle": 1}}}"#,
            "stdin: line 1, column 23: unknown field `idle`",
        ),
        ("{\n\"role\": {}}", "stdin: line 2, column "),
        (
            r#"{"roles": {"r": {"forward": []}}}"#,
            "expected a table of destinations",
        ),
        (r#"{"roles": {"r": {}, "r": {}}}"#, "\"r\" is given twice"),
        (
            r#"{"roles": {"r": {"source": []}}}"#,
            "source is empty: name a network",
        ),
        (
            r#"{"roles": {"r": {"source": null}}}"#,
            "null is no value here: leave the field out",
        ),
        (
            r#"{"roles": {"r": {"deny": {"labels": {"a": "b", "a": "c"}}}}}"#,
            "\"a\" is given twice",
        ),
        (
            r#"{"roles": {"r": {"deny": {"logins": []}}}}"#,
            "roles.r.deny.logins is empty",
        ),
        (
            r#"{"roles": {"r": {"limits": {"max_sessions": -1}}}}"#,
            "-1: expected a whole number",
        ),
        (
            r#"{"users": {"a": {"email": "absent"}}}"#,
            "users.a: expected an e-mail address",
        ),
        (
            r#"{"users": {"a b": {}}}"#,
            "\"a b\": a user name may hold only",
        ),
        ("{} {}", "trailing characters"),
        ("{", "EOF"),
        ("{\"\u{9b}\": 1}", "unknown field `\\u{9b}`"),
    ];
    for (text, expected) in table {
        let said = apply(&fixture, "", text).await;
        assert_eq!((said.code, said.out.as_str()), (FAILED, ""), "{text}");
        assert!(said.err.contains(expected), "{text}: {}", said.err);
        assert_eq!(said.err.lines().count(), 1, "{}", said.err);
    }
}

#[tokio::test]
async fn an_empty_policy_is_refused() {
    let fixture = Fixture::new().await;
    for empty in ["", "\n", " \r\n\t"] {
        for flags in ["", "--prune", "--dry-run"] {
            let said = apply(&fixture, flags, empty).await;
            assert_eq!((said.code, said.out.as_str()), (FAILED, ""), "{empty:?}");
            assert_eq!(
                said.err,
                "stdin is empty: expected roles or users in TOML or JSON; did the command before the pipe fail?\n"
            );
        }
    }
    let file = fixture._dir.path().join("policy.toml");
    std::fs::write(&file, "").unwrap();
    let said = fixture.fails(&format!("apply -f {}", file.display())).await;
    assert!(
        said.ends_with("is empty: expected roles or users in TOML or JSON\n"),
        "{said}"
    );
    // One that says so is not.
    says(&apply(&fixture, "", "# none yet\n").await, "unchanged\n");
    says(&apply(&fixture, "", "{}").await, "unchanged\n");
}

#[tokio::test]
async fn prune_keeps_named_entries_and_the_last_admin() {
    let fixture = Fixture::new().await;
    let admin = "[users.root]\nroles = ['admin']\nprincipals = ['root']\n";
    apply(&fixture, "", &format!("{DOCUMENT}\n{USERS}\n{admin}")).await;
    // Of roles it says nothing, so they stay.
    let last = apply(&fixture, "--prune", USERS).await;
    assert!(
        last.err
            .starts_with("no user could administer the relay over ssh any more"),
        "{}",
        last.err
    );
    for away in ["roles = []", "disabled = true", "principals = []"] {
        let said = apply(&fixture, "", &format!("[users.root]\n{away}")).await;
        assert!(
            said.err.starts_with("no user could administer"),
            "{away}: {}",
            said.err
        );
    }
    let held = apply(&fixture, "--prune", "[roles.other]\n").await;
    assert!(
        held.err
            .starts_with("no role \"field-tech\", and user \"alice\" would have it"),
        "{}",
        held.err
    );
    says(
        &apply(&fixture, "--prune --dry-run", admin).await,
        "- user alice\ndry run: nothing was changed\n",
    );
    says(&apply(&fixture, "--prune", admin).await, "- user alice\n");
    says(
        &apply(&fixture, "--prune", "[roles.other]\n").await,
        "- role field-tech\n+ role other\n",
    );
    says(
        &apply(&fixture, "--prune", "# nothing\n").await,
        "unchanged\n",
    );
}

#[tokio::test]
async fn a_key_moves_from_one_user_to_another_in_one_file() {
    let fixture = Fixture::new().await;
    apply(&fixture, "", &format!("{DOCUMENT}\n{USERS}")).await;
    let moved = format!(
        "{}\n[users.alice]\nkeys = []\n",
        USERS
            .replace("users.alice", "users.bob")
            .replace("principals = [\"alice\"]", "")
    );
    let said = apply(&fixture, "", &moved).await;
    assert_eq!(
        said.out,
        format!("~ user alice: key {FINGERPRINT} removed\n+ user bob\n")
    );
    assert_eq!(
        fixture.json("user show bob --json").await["keys"][0]["fingerprint"],
        FINGERPRINT
    );
}

#[tokio::test]
async fn assigned_role_is_not_removed() {
    let fixture = Fixture::new().await;
    apply(&fixture, "", &format!("{DOCUMENT}\n{USERS}")).await;
    let held = fixture.fails("role rm field-tech").await;
    assert!(
        held.starts_with("role \"field-tech\" is assigned to user \"alice\""),
        "{held}"
    );
    fixture.ok("user role rm alice field-tech").await;
    assert_eq!(
        fixture.ok("role rm field-tech").await,
        "role field-tech removed\n"
    );
    assert_eq!(
        fixture.fails("role rm field-tech").await,
        "no role \"field-tech\": see `relay get roles`\n"
    );
    assert!(fixture.fails("role rm admin").await.contains("is a preset"));
    assert!(
        fixture
            .fails("get roles nothing")
            .await
            .contains("no role \"nothing\"")
    );
    assert!(
        fixture
            .ok("get roles auditor -o toml")
            .await
            .starts_with("[roles.auditor]\n")
    );
}

#[tokio::test]
async fn a_user_is_changed_one_thing_at_a_time() {
    let fixture = Fixture::new().await;
    let version = async || fixture.context.store.access_version().await.unwrap();
    let mut seen = version().await;
    let table = [
        (
            "user add bob --principal bob --email bob@example.com",
            "user bob added: no key, no role: may do nothing yet\n",
        ),
        (
            "user role add bob operator auditor",
            "user bob changed: no key, roles auditor, operator\n",
        ),
        (
            "user role add bob operator",
            "user bob unchanged: no key, roles auditor, operator\n",
        ),
        (
            "user role rm bob auditor",
            "user bob changed: no key, roles operator\n",
        ),
        (
            "user principal add bob robert",
            "user bob: 1 principal added\n",
        ),
        (
            "user principal rm bob bob",
            "user bob: principal bob removed\n",
        ),
        ("user email bob ''", "user bob: e-mail address none\n"),
        (
            "user disable bob",
            "user bob disabled: nothing is allowed from now on\n",
        ),
        ("user disable bob", "user bob unchanged: disabled already\n"),
        ("user enable bob", "user bob enabled\n"),
    ];
    for (line, expected) in table {
        assert_eq!(fixture.ok(line).await, expected, "{line}");
        let now = version().await;
        assert!(now > seen, "{line}");
        seen = now;
    }
    let bob = fixture.json("user show bob --json").await;
    assert_eq!(
        (&bob["email"], &bob["principals"][0], &bob["disabled"]),
        (&Value::Null, &"robert".into(), &false.into())
    );
    for (line, expected) in [
        ("user role add bob nothing", "no role \"nothing\""),
        ("user role add absent admin", "no user \"absent\""),
        (
            "user role rm bob admin",
            "user \"bob\" has no role \"admin\"",
        ),
        (
            "user principal rm bob x",
            "user \"bob\" has no principal \"x\"",
        ),
        (
            "user add eve --principal robert",
            "principal \"robert\" belongs to user \"bob\"",
        ),
    ] {
        let said = fixture.fails(line).await;
        assert!(said.starts_with(expected), "{line}: {said}");
    }
    for bad in [
        "user add eve",
        "user add eve --principal 'a b'",
        "user email bob x",
        "user role add bob",
    ] {
        assert_eq!(fixture.run(bad).await.code, USAGE, "{bad}");
    }
}

#[tokio::test]
async fn whoami_tells_roles_and_terms() {
    let fixture = Fixture::new().await;
    apply(&fixture, "", &format!("{DOCUMENT}\n{USERS}")).await;
    let from = |address: &str| {
        let (store, address) = (fixture.context.store.clone(), address.parse().unwrap());
        async move {
            let alice = store.user(&"alice".parse().unwrap()).await.unwrap();
            Caller::over_ssh(&store, &alice.unwrap(), address)
                .await
                .unwrap()
        }
    };
    let here = from("203.0.113.9").await;
    let said = fixture.by(&here, "whoami", "").await.out;
    for line in [
        "alice: roles field-tech\n",
        "idle timeout  15 minutes (role field-tech)\n",
        "max session   no limit\n",
        "lost client   the terminal is hung up; processes that ignore SIGHUP continue\n",
        "sessions      at most 5",
        "channels      at most 10 per connection\n",
        "recording     strict, what is typed without an echo is redacted\n",
        "sftp          read-only, within /srv/data\n",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    let json: Value =
        serde_json::from_str(&fixture.by(&here, "whoami --json", "").await.out).unwrap();
    assert_eq!(
        (&json["user"], &json["email"]),
        (&"alice".into(), &"alice@example.com".into())
    );
    assert_eq!(json["terms"]["max_sessions"]["max"], 5);
    assert_eq!(json["terms"]["idle_timeout_seconds"], 900);
    assert_eq!(json["terms"]["sftp_read_only"], true);
    assert_eq!(json["terms"]["sftp_root"], "/srv/data");
    let away = fixture
        .by(&from("198.51.100.9").await, "whoami", "")
        .await
        .out;
    assert_eq!(away, "alice: roles field-tech (without effect from here)\n");
}

#[tokio::test]
async fn doctor_looks_for_an_admin_who_can_log_in() {
    let fixture = Fixture::new().await;
    let no_admin = "no user who can log in may administer the relay";
    let by_principal =
        "user carol has principals and no key, and no authority for users is trusted";
    let add = "user add carol --principal carol --role admin";
    fixture.ok(add).await;
    let found = fixture.ok("doctor").await;
    assert!(
        found.contains(no_admin) && found.contains(by_principal),
        "{found}"
    );
    let key = ED25519.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let said = fixture
        .by(&Caller::Local, "ca trust - --name corp", &key)
        .await;
    assert_eq!(said.code, DONE, "{}", said.err);
    let found = fixture.ok("doctor").await;
    assert!(
        !found.contains(no_admin) && !found.contains(by_principal),
        "{found}"
    );
    let said = fixture.by(&Caller::Local, "ca revoke -", &key).await;
    assert_eq!(said.code, DONE, "{}", said.err);
    let found = fixture.ok("doctor").await;
    assert!(
        found.contains(no_admin) && found.contains(by_principal),
        "{found}"
    );
    let said = fixture.by(&Caller::Local, "ca unrevoke 1", "").await;
    assert_eq!(said.code, DONE, "{}", said.err);
    fixture.ok("user rm carol").await;
    assert!(fixture.ok("doctor").await.contains(no_admin));
}

#[tokio::test]
async fn doctor_finds_what_is_wrong_and_what_is_unsafe() {
    let mut fixture = Fixture::new().await;
    let found = fixture.ok("doctor").await;
    assert!(
        found.contains("database  whole") || found.contains("database  PostgreSQL"),
        "{found}"
    );
    assert!(found.contains("no relay serves from "), "{found}");
    assert!(
        found.contains("no user who can log in may administer the relay"),
        "{found}"
    );
    apply(&fixture, "", "[roles.night]\nidle_timeout = 'never'\n[roles.god.allow]\nlabels = { '*' = '*' }\nlogins = ['*']\nabilities = ['exec']\n[users.bob]\n").await;
    let found = fixture.ok("doctor").await;
    for line in [
        "role night has idle_timeout never",
        "role god allows every login on every device",
        "user bob has neither key nor principal",
        "user bob has no role",
    ] {
        assert!(found.contains(line), "{line}: {found}");
    }
    let rows = fixture.json("doctor --json").await;
    for row in rows.as_array().unwrap() {
        assert_ne!(row["level"], "problem", "{row}");
        assert_eq!(row["remedy"].is_null(), row["level"] == "ok", "{row}");
        let text = match row["remedy"].as_str() {
            Some(remedy) => format!("{}: {remedy}\n", row["message"].as_str().unwrap()),
            None => format!("{}\n", row["message"].as_str().unwrap()),
        };
        assert!(found.contains(&text), "{text}: {found}");
    }

    let stray = fixture.context.facts.folder.join("stray");
    std::fs::write(&stray, "").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&stray, mode).unwrap();
    let said = fixture.run("doctor").await;
    assert_eq!(said.code, FAILED);
    assert!(
        said.out.contains("stray is open to others (mode 0644)"),
        "{}",
        said.out
    );
    std::fs::remove_file(stray).unwrap();

    for (now, expected) in [
        (Timestamp(0), "which is not possible"),
        (
            T0.before(Duration::from_secs(86_400)),
            "written 24 hours later",
        ),
    ] {
        fixture.context.now = now;
        let said = fixture.run("doctor").await;
        assert!(
            said.code == FAILED && said.out.contains(expected),
            "{}",
            said.out
        );
    }
}
