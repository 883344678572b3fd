//! A relay's state moves from its file to a PostgreSQL server.

mod places;

use std::path::Path;
use std::time::{Duration, Instant};

use holdfast_tests::postgres::OwnServer;
use rustix::process::Signal;
use serde_json::Value;
use sqlx::{Connection as _, PgConnection, SqliteConnection};

use crate::harness::{
    Daemon, Device, KeyKind, Output, Relay, SOON, Site, User, Way, block_on, run, wait_for,
    wait_until,
};

/// The listings that show a state, and change nothing.
const LISTINGS: [&[&str]; 9] = [
    &["get", "roles", "-o", "json"],
    &["get", "users", "-o", "json"],
    &["user", "ls", "--json"],
    &["devices", "ls", "--all", "--json"],
    &["token", "ls", "--json"],
    &["lock", "ls", "--json"],
    &["ca", "ls", "--json"],
    &["recordings", "--all", "--json"],
    &["ssh-config", "--known-hosts"],
];

/// Makes a database and returns its address.
fn database(server: &OwnServer, name: &str) -> String {
    let made = format!("CREATE DATABASE {name} TEMPLATE template0");
    server.get().psql(&made).unwrap();
    server.get().url(name)
}

fn migrate(relay: &Relay, url: &str) -> Output {
    relay.admin(&["migrate", "--to", url, "--json"])
}

/// Returns what the listings say.
fn listings(relay: &Relay) -> Vec<String> {
    let said = |words: &&[&str]| relay.admin(words).ok().out();
    LISTINGS.iter().map(said).collect()
}

fn audit(relay: &Relay) -> Vec<String> {
    let rows = relay.admin(&["audit", "--json", "--limit", "0"]).ok().out();
    rows.lines().map(ToOwned::to_owned).collect()
}

/// Checks that the ids of these rows, from one of them on, follow one on the other.
#[track_caller]
fn have_no_gap(rows: &[String], from: u64) {
    let id = |row: &String| {
        let row: Value = serde_json::from_str(row).unwrap();
        row["id"].as_u64().unwrap()
    };
    let mut ids: Vec<u64> = rows.iter().map(id).filter(|id| *id >= from).collect();
    ids.sort_unstable();
    assert!(ids.windows(2).all(|pair| pair[0] + 1 == pair[1]));
}

/// Changes the file of a relay that is stopped, by hand.
fn change_file(state: &Path, statements: &[&'static str]) {
    let url = format!("sqlite:{}", state.join("relay.db").display());
    block_on(async {
        let mut store = SqliteConnection::connect(&url).await.unwrap();
        for statement in statements {
            sqlx::query(*statement).execute(&mut store).await.unwrap();
        }
        store.close().await.unwrap();
    });
}

/// Asks the server.
fn count(url: &str, table: &'static str) -> i64 {
    block_on(async {
        let mut store = PgConnection::connect(url).await.unwrap();
        let count = sqlx::query_scalar(table).fetch_one(&mut store).await;
        store.close().await.unwrap();
        count.unwrap_or_default()
    })
}

#[test]
fn whole_state_moves_to_a_server() {
    let server = OwnServer::start();
    let url = database(&server, "relay");
    let mut site = Site::new();
    let policy = "[roles.tech]\nallow = { labels = { site = \"a\" }, logins = [\"*\"], abilities = [\"exec\"] }\n";
    let file = site.relay.folder().join("policy.toml");
    std::fs::write(&file, policy).unwrap();
    run(site.relay.command(&["apply", "-f"]).arg(&file)).ok();
    site.relay.user("bob", &["tech"]);
    site.relay.user("carol", &["operator"]);
    site.relay.admin(&["user", "rm", "carol"]).ok();
    site.relay.token(&["--label", "site=a"]);
    let _attic = Device::online(&site.relay, "attic-node");
    site.relay.admin(&["devices", "revoke", "attic-node"]).ok();
    for way in Way::BOTH {
        site.exec(way, "echo kept").ok();
    }
    let lock = |relay: &Relay| {
        let args = ["lock", "user", "bob", "--message", "a \\ and \u{1f980}"];
        let locked = relay.admin(&args).ok().out();
        let number = locked.split([' ', ':']).nth(1).unwrap();
        number.parse::<u64>().unwrap()
    };
    lock(&site.relay);
    let highest = lock(&site.relay);
    // The highest number is not given again, though its lock is gone.
    site.relay.admin(&["unlock", &highest.to_string()]).ok();
    let recordings = || site.relay.json(&["recordings", "--all", "--json"]);
    wait_until(SOON, "the recordings are complete", || {
        let rows = recordings();
        let rows = rows.as_array().unwrap();
        rows.len() == 2 && rows.iter().all(|row| row["state"] == "complete")
    });
    let recorded = recordings()[0]["id"].as_str().unwrap().to_owned();
    let exported = site.relay.export(&recorded, "txt");

    let serving = migrate(&site.relay, &url).exits(1);
    let serving = serving.says("a relay already serves from");
    let said = String::from_utf8_lossy(&serving.stderr).into_owned();
    assert!(said.trim_end().ends_with("): stop it first"), "{said}");
    site.relay.terminate(SOON);
    let (rows, before) = (audit(&site.relay), listings(&site.relay));
    let moved = migrate(&site.relay, &url).ok();
    let moved: Value = serde_json::from_slice(&moved.stdout).unwrap();
    assert_eq!(moved["moved"], true);
    // That the log was read is in it as well.
    let count = rows.len() + 1;
    assert_eq!(moved["tables"]["audit"], count);
    assert_eq!(moved["audit_ids"], serde_json::json!([1, count]));
    assert_eq!(moved["tables"]["users"], 2);
    assert_eq!(moved["tables"]["recordings"], 2);
    assert_eq!(moved["replaced"], 0);
    let place = site.relay.state().join("recordings");
    assert_eq!(moved["recordings"], place.to_str().unwrap());
    // One that was killed before the folder remembered the database finds that all is there.
    let remembered = site.relay.state().join("database");
    std::fs::remove_file(&remembered).unwrap();
    let again = migrate(&site.relay, &url).ok().out();
    assert!(again.contains("\"moved\": true"), "{again}");
    let same = |relay: &Relay| {
        assert_eq!(audit(relay)[..rows.len()], rows);
        assert_eq!(listings(relay), before);
    };
    same(&site.relay);
    // Once more: nothing changes, and it needs no lock.
    let again = migrate(&site.relay, &url).ok().out();
    assert!(again.contains("\"moved\": false"), "{again}");
    same(&site.relay);
    let elsewhere = migrate(&site.relay, &database(&server, "other")).exits(1);
    elsewhere.says("already, and --to is");

    site.relay.start_again();
    site.relay.wait_state("kitchen-cam", "online", SOON);
    same_but_presence(&before, &listings(&site.relay));
    assert_eq!(audit(&site.relay)[..rows.len()], rows);
    have_no_gap(&audit(&site.relay), 1);
    assert_eq!(lock(&site.relay), highest + 1);
    site.relay.admin(&["recordings", "verify", &recorded]).ok();
    assert_eq!(site.relay.export(&recorded, "txt"), exported);
    for way in Way::BOTH {
        assert_eq!(site.exec(way, "echo after").ok().out(), "after\n");
    }
    // The file takes no change of a command that began before, and the database is not overwritten.
    site.relay.terminate(SOON);
    let hidden = site.relay.state().join("hidden");
    std::fs::rename(&remembered, &hidden).unwrap();
    let late = site.relay.admin(&["lock", "user", "bob"]);
    let over = migrate(&site.relay, &url);
    std::fs::rename(&hidden, &remembered).unwrap();
    over.exits(1).says("one of the two has changed since");
    late.exits(1)
        .says("the state of this relay is in PostgreSQL by now");
}

/// Compares all listings but those that show who is online.
#[track_caller]
fn same_but_presence(before: &[String], after: &[String]) {
    for (number, (before, after)) in before.iter().zip(after).enumerate() {
        if LISTINGS[number][0] != "devices" {
            assert_eq!(before, after);
        }
    }
}

#[test]
fn interrupted_migration_is_run_again() {
    let mut server = OwnServer::start();
    let url = database(&server, "relay");
    let mut relay = Relay::start();
    User::add(&relay, "alice", KeyKind::Ed25519, &["admin"]);
    relay.terminate(SOON);
    // Enough that it takes seconds. Some old rows were removed.
    change_file(
        &relay.state(),
        &[
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000)
            INSERT INTO audit (time, event, outcome, reason, more)
            SELECT CAST(strftime('%s', 'now') AS INTEGER) * 1000000 - 600000000 + i, 'user.login', 'success', 'a reason of some length: ' || hex(randomblob(20)), '{}' FROM n",
            "UPDATE meta SET value = (SELECT MIN(time) + 1000 FROM audit) WHERE key = 'audit_removed_before'",
            "DELETE FROM audit WHERE time < (SELECT CAST(value AS BIGINT) FROM meta WHERE key = 'audit_removed_before')",
        ],
    );
    let rows = audit(&relay);
    let begin = |relay: &Relay, behind: i64| {
        let mut migrate = relay.command(&["migrate", "--to", &url]);
        let mut running = Daemon::start("migrate", &mut migrate, relay.folder());
        wait_for(Duration::from_secs(60), "some rows are there", || {
            assert_eq!(running.ended(), None, "{}", running.log());
            (count(&url, "SELECT COUNT(*) FROM audit") > behind).then_some(())
        });
        running
    };
    let mut running = begin(&relay, 0);
    running.signal(Signal::KILL);
    running.wait(SOON);
    let copied = count(&url, "SELECT COUNT(*) FROM audit");
    assert!(
        copied < i64::try_from(rows.len()).unwrap(),
        "it was too fast: {copied}"
    );
    // The state is where it was, and may change.
    assert!(!relay.state().join("database").exists());
    relay.start_again();
    relay.user("bob", &["operator"]);
    relay.terminate(SOON);
    // It goes on where it was, until the server is gone.
    let mut running = begin(&relay, copied);
    server.crash();
    assert_eq!(running.wait(SOON).code(), Some(1));
    let said = running.log();
    assert!(said.contains("cannot be reached"), "{said}");
    assert!(!relay.state().join("database").exists());
    server.restart();
    let (rows, before) = (audit(&relay), listings(&relay));
    let began = Instant::now();
    let moved = wait_for(SOON, "the state is moved", || {
        let moved = migrate(&relay, &url);
        (moved.status.success()).then_some(moved)
    });
    eprintln!("migrated {} rows in {:?}", rows.len(), began.elapsed());
    let moved: Value = serde_json::from_slice(&moved.stdout).unwrap();
    assert_eq!(moved["tables"]["audit"], rows.len() + 1);
    assert!(audit(&relay).starts_with(&rows));
    assert_eq!(listings(&relay), before);
    relay.start_again();
    have_no_gap(&audit(&relay), 30_000);
    relay.terminate(SOON);

    // What is there is no other relay's to fill.
    let mut other = Relay::start();
    other.terminate(SOON);
    migrate(&other, &url).exits(1).says("is not empty");
    assert!(!other.state().join("database").exists());
    assert_eq!(audit(&relay)[..rows.len()], rows);
}

#[test]
fn migration_names_what_the_server_cannot_store() {
    let server = OwnServer::start();
    let url = database(&server, "relay");
    let mut relay = Relay::start();
    relay.terminate(SOON);
    change_file(
        &relay.state(),
        &[
            "INSERT INTO audit (id, time, event, outcome, reason, more)
            VALUES (777, 1, 'user.login', 'failure', CAST(x'610062' AS TEXT), '{}')",
            "INSERT INTO roles (name, body, changed) VALUES ('broken', CAST(x'61ff' AS TEXT), 1)",
        ],
    );
    let refused = migrate(&relay, &url).exits(1);
    refused.says("roles.body of the row broken: expected a text in UTF-8");
    assert!(!relay.state().join("database").exists());
    change_file(&relay.state(), &["DELETE FROM roles"]);
    let moved = migrate(&relay, &url).ok();
    let moved: Value = serde_json::from_slice(&moved.stdout).unwrap();
    assert_eq!(moved["replaced"], 1);
    assert_eq!(moved["replaced_in"][0], "audit.reason of the row 777");
    assert!(audit(&relay).iter().any(|row| row.contains("a\u{FFFD}b")));
    // Where nothing answers, nothing is changed.
    let second = Relay::new(&[]);
    let nowhere = "postgres://holdfast@127.0.0.1:1/x";
    migrate(&second, nowhere).exits(1).says("no relay state in");
    let mut third = Relay::start();
    third.terminate(SOON);
    migrate(&third, nowhere).exits(1).says("cannot be reached");
    third.start_again();
}
