//! Users, and who may run what.

use super::*;

#[tokio::test]
async fn a_user_is_added_shown_and_removed() {
    let bed = Bed::new().await;
    let add = "user add alice --key - --role admin";
    let said = bed.by(&Caller::Local, add, ED25519).await;
    assert_eq!(
        said.out,
        format!("user alice added: 1 key ({FINGERPRINT}), roles admin\n")
    );
    let said = bed.by(&Caller::Local, add, ED25519).await;
    assert_eq!(
        said.out,
        format!("user alice unchanged: 1 key ({FINGERPRINT}), roles admin\n")
    );
    let said = bed
        .by(&Caller::Local, "user add bob --key -", ED25519)
        .await;
    assert!(said.err.contains("belongs to user \"alice\"") && said.code == FAILED);

    let users = bed.json("user ls --json").await;
    assert_eq!(users[0]["name"], "alice");
    assert_eq!(users[0]["roles"][0], "admin");
    assert_eq!(users[0]["created"], "2026-11-22T05:06:00.000000Z");
    assert_eq!(users[0]["keys"][0]["fingerprint"], FINGERPRINT);
    let shown = bed.ok("user show alice").await;
    assert!(
        shown.contains(FINGERPRINT) && shown.contains("a\\u{1b}[2Jb"),
        "{shown}"
    );
    assert_eq!(bed.ok("user ls").await.lines().count(), 2);

    bed.ok(&format!("user key rm alice {FINGERPRINT}")).await;
    bed.fails(&format!("user key rm alice {FINGERPRINT}")).await;
    let said = bed
        .by(&Caller::Local, "user key add alice --key -", ED25519)
        .await;
    assert_eq!(
        said.out,
        format!("user alice: 1 key added ({FINGERPRINT})\n")
    );
    assert_eq!(bed.ok("user rm alice").await, "user alice removed\n");
    assert_eq!(
        bed.fails("user rm alice").await,
        "no user \"alice\": see `relay user ls`\n"
    );
}

#[tokio::test]
async fn a_role_that_does_not_exist_is_named_with_those_that_do() {
    let bed = Bed::new().await;
    let add = "user add alice --key - --role 'root\u{1b}'";
    let said = bed.by(&Caller::Local, add, ED25519).await;
    assert_eq!(said.code, FAILED);
    assert!(
        said.err
            .starts_with("no role \"root\\u{1b}\": see `relay get roles`"),
        "{}",
        said.err
    );
    let said = bed
        .by(&Caller::Local, "user add bob --key -", ED25519)
        .await;
    assert!(
        said.out.ends_with("no role: may do nothing yet\n"),
        "{}",
        said.out
    );
}

#[tokio::test]
async fn roles_are_listed_for_machines_without_what_nothing_implements() {
    let bed = Bed::new().await;
    let listed = bed.ok("role ls --json").await;
    let rows: Value = serde_json::from_str(&listed).unwrap();
    let admin = &rows[0];
    assert_eq!(
        (&admin["name"], &admin["kind"]),
        (&"admin".into(), &"preset".into())
    );
    let allows = admin["allows"].as_array().unwrap();
    assert!(allows.contains(&"recover".into()), "{listed}");
    assert!(!allows.contains(&"join".into()), "{listed}");
    assert!(!bed.ok("role ls").await.contains("join"));
}

#[tokio::test]
async fn the_console_opens_no_file_of_the_relay() {
    let bed = Bed::new().await;
    let admin = operator(&["admin"], false);
    for file in ["/etc/passwd", "/nonexistent", "./x"] {
        let said = bed
            .by(&admin, &format!("user add eve --key {file}"), "")
            .await;
        assert_eq!(said.code, FAILED);
        assert!(
            said.err.starts_with("over ssh, keys come by stdin"),
            "{}",
            said.err
        );
    }
    let said = bed.by(&admin, "user add eve --key -", ED25519).await;
    assert_eq!(said.code, DONE);
    assert_eq!(
        bed.by(&admin, "user add eve --key -", "").await.code,
        FAILED
    );
}

#[tokio::test]
async fn everybody_learns_who_they_are() {
    let bed = Bed::serving().await;
    let whoami = async |caller: &Caller| bed.by(caller, "whoami", "").await.out;
    let nobody = operator(&[], false);
    assert_eq!(whoami(&nobody).await, "bob: no role: may do nothing yet\n");
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
    let said = bed.by(&nobody, "whoami --json", "").await.out;
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (&said["user"], &said["disabled"]),
        (&Value::from("bob"), &Value::from(false))
    );
}
