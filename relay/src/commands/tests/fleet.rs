//! Tokens, devices, ssh-config.

use super::*;

#[tokio::test]
async fn a_token_is_printed_alone_and_listed_without_its_secret() {
    let fixture = Fixture::new().await;
    assert!(
        fixture
            .fails("token create")
            .await
            .contains("start `relay serve` once")
    );

    let fixture = Fixture::serving().await;
    let printed = fixture
        .ok("token create --uses 3 --ttl 7d --label role=camera --label a=b")
        .await;
    let token: Token = printed.trim_end().parse().unwrap();
    assert_eq!(printed.lines().count(), 1);
    assert_eq!(token.address, "relay.example.com:4433");
    assert_eq!(token.fingerprint, fixture.context.facts.cluster);

    let row = &fixture.json("token ls --json").await[0];
    assert_eq!((&row["uses"], &row["uses_left"]), (&3.into(), &3.into()));
    assert_eq!(row["expires"], "2026-11-29T05:06:00.000000Z");
    assert_eq!(row["labels"]["role"], "camera");
    assert_eq!(row["for"], "device");
    let table = fixture.ok("token ls").await;
    assert!(
        table.contains("3 of 3  in 7 d   device  a=b,role=camera"),
        "{table}"
    );
    assert!(!table.contains(printed.trim_end().rsplit('.').next().unwrap()));

    let id = row["id"].as_str().unwrap();
    for unknown in ["''", "x", &format!("{id}0"), "%", "\u{1b}"] {
        let said = fixture.fails(&format!("token rm {unknown}")).await;
        assert!(said.starts_with("no token \""), "{said}");
    }
    // The beginning of it is enough.
    let begins = id[..6].to_uppercase();
    let removed = fixture.ok(&format!("token rm {begins}")).await;
    assert_eq!(removed, format!("token {id} removed\n"));
    fixture.fails(&format!("token rm {id}")).await;
    assert_eq!(fixture.ok("token ls").await.lines().count(), 1);
    let made = fixture.json("token create --json").await;
    assert!(made["token"].as_str().unwrap().parse::<Token>().is_ok());

    assert!(
        fixture
            .fails("token create --label a=b --label a=c")
            .await
            .contains("given twice")
    );
    let many: String = (0..17).map(|n| format!(" --label k{n}=v")).collect();
    assert!(
        fixture
            .fails(&format!("token create{many}"))
            .await
            .contains("17 labels")
    );
    for bad in [
        "--uses 0",
        "--uses x",
        "--ttl 0s",
        "--ttl 5",
        "--ttl 400d",
        "--label a",
        "--label a=",
        "--label '=b'",
    ] {
        assert_eq!(
            fixture.run(&format!("token create {bad}")).await.code,
            USAGE,
            "{bad}"
        );
    }
}

#[tokio::test]
async fn a_beginning_of_several_tokens_removes_none() {
    let fixture = Fixture::serving().await;
    // Of 17 tokens two begin with the same digit.
    for _ in 0..17 {
        fixture.ok("token create").await;
    }
    let tokens = fixture.json("token ls --json").await;
    let ids: Vec<&str> = tokens
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["id"].as_str().unwrap())
        .collect();
    let of = |digit: &str| ids.iter().filter(|id| id.starts_with(digit)).count();
    let shared = ids
        .iter()
        .map(|id| &id[..1])
        .find(|digit| of(digit) > 1)
        .unwrap();
    let said = fixture.fails(&format!("token rm {shared}")).await;
    let begins = format!("more than one token begins with \"{shared}\", give more of the id: ");
    assert!(said.starts_with(&begins), "{said}");
    assert!(
        ids.iter()
            .any(|id| id.starts_with(shared) && said.contains(id)),
        "{said}"
    );
    assert_eq!(fixture.json("token ls --json").await, tokens);
}

#[tokio::test]
async fn devices_are_listed_as_the_transcript_has_it() {
    let mut fixture = Fixture::serving().await;
    let args::Label(key, value) = "role=camera".parse().unwrap();
    let cam = fixture
        .device(1, "kitchen-cam", Labels::from([(key, value)]))
        .await;
    fixture.device(2, "attic-node", Labels::new()).await;
    fixture.online(&cam).await;
    let listing = fixture.ok("devices").await;
    let lines: Vec<&str> = listing.lines().collect();
    assert_eq!(
        lines[0],
        "NAME         STATE    SEEN   ADDRESS             LABELS       AGENT"
    );
    assert_eq!(
        lines[1],
        "attic-node   offline  never  -                   -            0.1.0\\u{1b}]0;x armv7"
    );
    assert_eq!(
        lines[2],
        "kitchen-cam  online   now    198.51.100.7:41822  role=camera  0.1.0 armv7"
    );
    assert_eq!(fixture.ok("devices ls").await, listing);

    let rows = fixture.json("devices --json").await;
    for field in [
        "name",
        "id",
        "state",
        "last_seen",
        "labels",
        "address",
        "agent_version",
        "target",
    ] {
        assert!(
            rows[0].get(field).is_some() && rows[1].get(field).is_some(),
            "{field}"
        );
    }
    assert_eq!(
        (&rows[0]["last_seen"], &rows[0]["address"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(rows[1]["last_seen"], "2026-11-22T05:06:00.000000Z");
    assert_eq!(rows[1]["address"], "198.51.100.7:41822");
    assert_eq!(rows[1]["state"], "online");
    assert_eq!(rows[1]["target"], "armv7-unknown-linux-musleabihf");
    assert_eq!(rows[1]["id"], cam.id.to_string());

    // The relay dies; three hours later the device is offline since then, and shows no address.
    fixture.context.now = T0.after(Duration::from_secs(3 * 3600));
    let shown = fixture.ok("devices").await;
    assert!(
        shown.contains("kitchen-cam  offline  3 h ago  -"),
        "{shown}"
    );
    let row = fixture.json("devices show kitchen-cam --json").await;
    assert_eq!(
        (&row["state"], &row["address"]),
        (&"offline".into(), &Value::Null)
    );
    assert!(
        fixture
            .ok("devices show kitchen-cam")
            .await
            .contains("kitchen-cam\n")
    );
}

#[tokio::test]
async fn devices_are_renamed_labelled_and_revoked() {
    let fixture = Fixture::serving().await;
    let device = fixture.device(1, "cam", Labels::new()).await;
    fixture.device(2, "node", Labels::new()).await;
    assert_eq!(
        fixture.ok("devices rename cam camera").await,
        "device cam is now camera\n"
    );
    assert_eq!(
        fixture.fails("devices rename cam x").await,
        "no device \"cam\": see `devices`\n"
    );
    let taken = fixture.fails("devices rename node camera").await;
    assert!(taken.starts_with(&format!("name \"camera\" is taken by device {}", device.id)));
    assert_eq!(
        fixture.ok("devices label camera b=2 a=1").await,
        "camera: a=1,b=2\n"
    );
    assert_eq!(fixture.ok("devices label camera b=").await, "camera: a=1\n");
    assert_eq!(fixture.run("devices label camera").await.code, USAGE);
    assert_eq!(fixture.run("devices rename camera BAD").await.code, USAGE);

    let revoked = fixture.ok("devices revoke camera").await;
    assert!(revoked.starts_with(&format!("device camera ({}) revoked", device.id)));
    let again = fixture.ok("devices revoke camera").await;
    assert!(
        again.contains("was revoked already, 2026-11-22 05:06 UTC"),
        "{again}"
    );
    assert_eq!(
        fixture.fails("devices revoke absent").await,
        "no device \"absent\": see `devices`\n"
    );
    assert_eq!(
        fixture
            .json("devices --json")
            .await
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let all = fixture.json("devices ls --all --json").await;
    assert_eq!(all[0]["name"], "camera");
    assert_eq!(all[0]["revoked"], "2026-11-22T05:06:00.000000Z");
    assert!(
        fixture
            .ok("devices ls --all")
            .await
            .contains("camera  revoked")
    );
}

#[tokio::test]
async fn ssh_config_names_relay_and_ca() {
    let fixture = Fixture::new().await;
    assert!(
        fixture
            .fails("ssh-config")
            .await
            .contains("start `relay serve` once")
    );
    let fixture = Fixture::serving().await;
    let (ca, host) = (
        &fixture.context.facts.ssh_ca,
        &fixture.context.facts.ssh_host,
    );
    let lines = fixture.ok("ssh-config --known-hosts").await;
    assert_eq!(
        lines,
        format!(
            "@cert-authority *.fleet {ca}\n@cert-authority [relay.example.com]:2222 {ca}\n\
             [relay.example.com]:2222 {host}\n"
        )
    );
    let config = fixture.ok("ssh-config").await;
    assert!(
        config.contains("\n    ProxyJump relay.example.com:2222\n"),
        "{config}"
    );
    let pasted: String = config
        .lines()
        .filter_map(|l| l.strip_prefix("#   "))
        .map(|l| format!("{l}\n"))
        .collect();
    assert_eq!(pasted, lines);

    fixture
        .context
        .store
        .change(async |tx| tx.meta_set(PUBLIC_SSH, "[2001:db8::1]:22").await)
        .await
        .unwrap();
    let lines = fixture.ok("ssh-config --known-hosts").await;
    assert!(
        lines.ends_with(&format!("\n2001:db8::1 {host}\n")),
        "{lines}"
    );
    assert!(
        fixture
            .ok("ssh-config")
            .await
            .contains("ProxyJump [2001:db8::1]:22\n")
    );
}
