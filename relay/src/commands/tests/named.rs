//! A device is named by its identifier wherever its name is taken.

use tokio::time::timeout;

use super::*;
use crate::store::backend::sql;

#[tokio::test]
async fn a_device_is_named_by_its_id_too() {
    let fixture = Fixture::serving().await;
    let cam = fixture.device(1, "cam", Labels::new()).await;
    let id = cam.id.to_string();
    let by_name = fixture.ok("devices show cam").await;
    assert_eq!(fixture.ok(&format!("devices show {id}")).await, by_name);
    assert_eq!(
        fixture
            .json(&format!("devices label {id} a=1 --json"))
            .await["labels"]["a"],
        "1"
    );
    let late = fixture.fails(&format!("wait {id} --timeout 1s")).await;
    assert!(late.starts_with("cam is still offline"), "{late}");
    fixture.ok(&format!("devices rename {id} camera")).await;
    assert_eq!(fixture.json("devices --json").await[0]["name"], "camera");
    fixture.ok(&format!("lock device {id} --message no")).await;
    assert!(fixture.ok("lock ls").await.contains("camera"));
    let none = fixture
        .fails(&format!("devices show {}", "0".repeat(32)))
        .await;
    assert!(none.starts_with("no device \"00000000"), "{none}");
}

#[tokio::test]
async fn an_id_outlives_the_name_that_it_had() {
    let mut fixture = Fixture::serving().await;
    let old = fixture.device(1, "cam", Labels::new()).await;
    let revoke = format!("devices revoke {}", old.id);
    let revoked = fixture.ok(&revoke).await;
    let wanted = format!("device cam ({}) revoked", old.id);
    assert!(revoked.starts_with(&wanted), "{revoked}");
    let again = fixture.ok(&revoke).await;
    assert!(again.starts_with(&format!("device cam ({}) was revoked already", old.id)));
    let new = fixture.device(2, "cam", Labels::new()).await;
    // Both have the name, and the listing shows the id of each, in a narrow terminal too.
    for width in [None, Some(60), Some(80)] {
        fixture.context.width = width;
        let all = fixture.ok("devices ls --all").await;
        for device in [&old, &new] {
            let is_named =
                |line: &str| line.starts_with("cam ") && line.ends_with(&device.id.to_string());
            assert!(all.lines().any(is_named), "{all}");
        }
    }
    fixture.context.width = None;
    let shown = fixture.json("devices show cam --json").await;
    assert_eq!(shown["id"], new.id.to_string());
    let shown = fixture.ok(&format!("devices show {}", old.id)).await;
    assert!(
        shown.starts_with("cam was revoked on 2026-11-22 05:06 UTC (0 seconds ago): its key is refused for good.\n\n"),
        "{shown}"
    );
    // What is revoked is not changed.
    for change in ["rename {} x", "label {} a=b"] {
        let line = format!("devices {}", change.replace("{}", &old.id.to_string()));
        let refused = fixture.fails(&line).await;
        assert!(refused.starts_with("no device"), "{refused}");
    }
}

#[tokio::test]
async fn a_name_like_an_id_takes_no_device_its_id() {
    let fixture = Fixture::serving().await;
    let cam = fixture.device(1, "cam", Labels::new()).await;
    // A device chooses its name, and of an earlier relay it could choose the id of another.
    let thief = fixture.device(2, "thief", Labels::new()).await;
    let named = sql::query("UPDATE devices SET name = $1 WHERE id = $2");
    let named = named.bind(cam.id.to_string()).bind(thief.id.0.to_vec());
    assert_eq!(fixture.context.store.execute(named).await, 1);
    let shown = fixture
        .json(&format!("devices show {} --json", cam.id))
        .await;
    assert_eq!(shown["name"], "cam");
    let revoked = fixture.ok(&format!("devices revoke {}", cam.id)).await;
    assert!(revoked.contains(&cam.id.to_string()), "{revoked}");
    assert!(revoked.starts_with("device cam "), "{revoked}");
    let shown = fixture
        .json(&format!("devices show {} --json", thief.id))
        .await;
    assert_eq!(
        (&shown["id"], &shown["revoked"]),
        (&thief.id.to_string().into(), &Value::Null)
    );
    // Nor does it take that of a revoked one: what is meant for that changes no other.
    for change in ["rename {} x", "label {} a=b"] {
        let line = format!("devices {}", change.replace("{}", &cam.id.to_string()));
        let refused = fixture.fails(&line).await;
        assert!(refused.starts_with("no device"), "{refused}");
    }
    let shown = fixture
        .json(&format!("devices show {} --json", thief.id))
        .await;
    assert_eq!(shown["labels"], serde_json::json!({}));
    // Now it is not given such a name, neither of a device that is there nor of a revoked one.
    let node = fixture.device(4, "node", Labels::new()).await;
    for taken in [cam.id, thief.id] {
        let line = format!("devices rename node {taken}");
        let refused = fixture.fails(&line).await;
        let begins = format!("name \"{taken}\" is taken by device");
        assert!(refused.starts_with(&begins), "{refused}");
    }
    let own = format!("devices rename node {} --json", node.id);
    assert_eq!(fixture.json(&own).await["id"], node.id.to_string());
    // A name of this form that is no device's id is a name.
    let machine = "0123456789abcdef".repeat(2);
    fixture.device(3, &machine, Labels::new()).await;
    fixture.ok(&format!("devices label {machine} a=b")).await;
}

#[tokio::test]
async fn an_id_may_be_typed_in_capitals() {
    let fixture = Fixture::serving().await;
    let cam = fixture.device(1, "cam", Labels::new()).await;
    let (small, id) = (cam.id.to_string(), cam.id.to_string().to_uppercase());
    for line in [
        "devices show ID --json",
        "devices label ID a=1 --json",
        "sessions --device ID",
        "recordings --device ID",
        "audit --device ID --json",
    ] {
        let said = fixture.ok(&line.replace("ID", &id)).await;
        assert_eq!(
            said,
            fixture.ok(&line.replace("ID", &small)).await,
            "{line}"
        );
    }
    let locked = fixture.ok(&format!("lock device {id}")).await;
    assert!(locked.contains("device cam is locked"), "{locked}");
    let late = fixture.fails(&format!("wait {id} --timeout 1s")).await;
    assert!(late.starts_with("cam is still offline"), "{late}");
    fixture.ok(&format!("devices rename {id} camera")).await;
    let revoked = fixture.ok(&format!("devices revoke {id}")).await;
    assert!(revoked.starts_with("device camera "), "{revoked}");
    // A name has no capitals.
    assert_eq!(fixture.run("devices show Camera").await.code, USAGE);
}

#[tokio::test]
async fn following_what_never_was_does_not_wait() {
    let fixture = Fixture::serving().await;
    for line in [
        "audit --follow --user alcie",
        "audit --follow --device cma",
        "audit --user alcie",
    ] {
        let said = timeout(Duration::from_secs(20), fixture.fails(line)).await;
        let said = said.expect("it waits for what never comes");
        assert!(said.starts_with("no "), "{said}");
        assert!(
            said.contains(", and no event about one of that name"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn a_sentence_comes_before_the_fields() {
    let fixture = Fixture::serving().await;
    fixture.device(1, "kitchen-cam", Labels::new()).await;
    let shown = fixture.ok("devices show kitchen-cam").await;
    let begins =
        "kitchen-cam has not been online yet: is `edge-agent run` running there?\n\nname  ";
    assert!(shown.starts_with(begins), "{shown}");
}

#[tokio::test]
async fn listings_have_the_names_that_people_type() {
    let mut fixture = Fixture::serving().await;
    fixture.device(1, "cam", Labels::new()).await;
    for command in ["devices", "sessions", "recordings"] {
        for flags in ["", " --json"] {
            let plain = fixture.ok(&format!("{command}{flags}")).await;
            for verb in ["ls", "list"] {
                let line = format!("{command} {verb}{flags}");
                assert_eq!(fixture.ok(&line).await, plain, "{line}");
            }
        }
    }
    fixture.ok("user add alice --principal alice").await;
    fixture.ok("sessions ls --device cam --user alice").await;
    fixture
        .ok("recordings list --device cam --state complete")
        .await;
    let none = fixture.fails("sessions --device cma").await;
    assert_eq!(none, "no device \"cma\": see `devices`\n");
    // A narrow terminal has no room for all columns.
    fixture.context.width = Some(46);
    let head = "ID  USER  WHERE  KIND  STARTED  IDLE  COMMAND\n";
    assert_eq!(fixture.ok("sessions").await, head);
}

#[tokio::test]
async fn a_search_ends_as_grep_does() {
    let fixture = Fixture::serving().await;
    for line in ["recordings grep x", "recordings grep x --json"] {
        let said = fixture.run(line).await;
        assert_eq!(
            (said.code, said.out.as_str(), said.err.as_str()),
            (1, "", "")
        );
    }
    let said = fixture
        .by(&operator(&[], false), "recordings grep x", "")
        .await;
    assert_eq!(said.code, 2, "{}", said.err);
    assert!(
        said.err.contains("may not run this command"),
        "{}",
        said.err
    );
}

#[tokio::test]
async fn recordings_of_what_there_never_was_are_refused() {
    let fixture = Fixture::serving().await;
    fixture.device(1, "cam", Labels::new()).await;
    fixture.ok("recordings --device cam").await;
    let none = fixture.fails("recordings --device cma").await;
    let wanted = "no device \"cma\", nor a recording of one: see `devices`\n";
    assert_eq!(none, wanted);
    let none = fixture.fails("recordings ls --user nosuch --json").await;
    let wanted = "no user \"nosuch\", nor a recording of one: see `user ls`\n";
    assert_eq!(none.replace("relay user", "user"), wanted);
    let grep = fixture.run("recordings grep x --user nosuch").await;
    assert_eq!(
        (grep.code, grep.err.lines().count()),
        (2, 1),
        "{}",
        grep.err
    );
}

#[tokio::test]
async fn no_user_has_the_name_of_the_relays_own_shell() {
    let fixture = Fixture::serving().await;
    for name in ["local", "Local"] {
        let sentence = format!("user name \"{name}\" is that of the relay's own shell");
        let refused = fixture
            .fails(&format!("user add {name} --principal x"))
            .await;
        assert!(refused.starts_with(&sentence), "{refused}");
        let text = format!("[users.{name}]\nroles = []\n");
        let refused = fixture.by(&Caller::Local, "apply -f -", &text).await;
        assert_eq!(refused.code, FAILED);
        assert!(refused.err.contains(&sentence), "{}", refused.err);
    }
}
