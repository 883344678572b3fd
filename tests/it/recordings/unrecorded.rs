//! A relay that cannot note that there is a recording.

use sqlx::{Connection as _, SqliteConnection};

use crate::harness::{Relay, Site, Way, block_on, own_login, run};

/// Lets the relay's store take no recording, and all else.
fn break_recordings(relay: &Relay) {
    let url = format!("sqlite:{}", relay.state().join("relay.db").display());
    block_on(async {
        let mut store = SqliteConnection::connect(&url).await.unwrap();
        let broken = "CREATE TRIGGER broken BEFORE INSERT ON recordings
            BEGIN SELECT RAISE(ABORT, 'no more recordings'); END";
        sqlx::query(broken).execute(&mut store).await.unwrap();
        store.close().await.unwrap();
    });
}

#[test]
fn what_the_relay_cannot_note_runs_under_best_effort_alone() {
    let site = Site::new();
    let policy = "[roles.strict]\nrecording = \"strict\"\nallow = { labels = { \"*\" = \"*\" }, \
                  logins = [\"*\"], abilities = [\"exec\", \"recover\"] }\n";
    let file = site.relay.folder().join("policy.toml");
    std::fs::write(&file, policy).unwrap();
    run(site.relay.command(&["apply", "-f"]).arg(&file)).ok();
    let bob = site.relay.user("bob", &["strict"]);
    break_recordings(&site.relay);
    for way in Way::BOTH {
        assert_eq!(site.exec(way, "echo inside").ok().out(), "inside\n");
        let mut ssh = bob.ssh(way, &own_login(), "kitchen-cam");
        let refused = run(ssh.arg("echo inside")).exits(255);
        let refused = refused.says("recording unavailable: the relay's store does not answer");
        assert_eq!(refused.out(), "");
    }
    let starts = site
        .relay
        .admin(&["audit", "--json", "--event", "session.start"]);
    let rows = starts.ok().out();
    assert_eq!(rows.lines().count(), 2, "{rows}");
    assert!(
        rows.lines()
            .all(|row| row.contains("\"recording\":\"unavailable\"")),
        "{rows}"
    );
    assert_eq!(super::rows(&site.relay), Vec::<serde_json::Value>::new());
}
