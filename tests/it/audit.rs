//! The audit log: who did what, at every door, in every place it is written to.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{
    Device, KeyKind, Output, Relay, Running, SOON, Site, Terminal, User, Way, is_root, own_login,
    run, run_with_input, wait_for, wait_until,
};

mod hostile;
mod sessions;
mod unwritable;

/// A relay whose log goes to a file as well; `more` is put into `[audit]`.
fn relay_with_file(more: &str) -> (Relay, PathBuf) {
    let mut relay = Relay::new(&[]);
    let file = relay.folder().join("audit.jsonl");
    configure(&mut relay, &format!("file = {file:?}\n{more}"));
    (relay, file)
}

/// Gives a relay an `[audit]`.
fn configure(relay: &mut Relay, audit: &str) {
    let config = relay.folder().join("relay.toml");
    fs::write(&config, format!("[audit]\n{audit}\n")).unwrap();
    relay.add_flags(&["--config", config.to_str().unwrap()]);
}

/// The log as `relay audit` prints it for machines, the oldest first.
#[track_caller]
fn log(relay: &Relay, filter: &[&str]) -> Vec<Value> {
    let all = ["audit", "--json", "--limit", "0"];
    lines(&relay.admin(&[&all, filter].concat()).ok().stdout)
}

#[track_caller]
fn lines(text: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(text).unwrap();
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    text.lines().map(parse).collect()
}

/// Waits until a row of that event fits.
#[track_caller]
fn wait_row(relay: &Relay, event: &str, fits: impl Fn(&Value) -> bool) -> Value {
    wait_for(SOON, &format!("a row {event}"), || {
        log(relay, &["--event", event]).into_iter().find(&fits)
    })
}

/// The file, when it has all rows up to `id`.
#[track_caller]
fn wait_file(file: &PathBuf, id: i64) -> Vec<Value> {
    wait_for(SOON, &format!("{} has row {id}", file.display()), || {
        let text = fs::read(file).ok()?;
        let rows = text.ends_with(b"\n").then(|| lines(&text))?;
        let has = rows
            .last()
            .is_some_and(|row| row["id"].as_i64() >= Some(id));
        has.then_some(rows)
    })
}

fn ids(rows: &[Value]) -> Vec<i64> {
    rows.iter().map(|row| row["id"].as_i64().unwrap()).collect()
}

/// From the first row on, none is missing and none is there twice.
#[track_caller]
fn is_unbroken(ids: &[i64]) {
    let count = i64::try_from(ids.len()).unwrap();
    assert_eq!(ids, (1..=count).collect::<Vec<_>>());
}

/// The last row's id, as the log has it now.
#[track_caller]
fn newest(relay: &Relay) -> i64 {
    let row = log(relay, &[]).pop().unwrap();
    row["id"].as_i64().unwrap()
}

#[test]
fn every_door_tells_what_was_done_and_by_whom() {
    let (mut relay, file) = relay_with_file("");
    relay.start_again();
    let alice = relay.admin_user();
    let device = Device::online(&relay, "kitchen-cam");
    let address = relay.device("kitchen-cam").unwrap()["id"].clone();
    let ask = |line: &str| run(alice.console().args(["--", line]));
    ask("devices label kitchen-cam site=berlin").ok();
    let bob = User::stranger(&relay, "bob", KeyKind::Ed25519);
    let key = fs::read(bob.key().with_extension("pub")).unwrap();
    run_with_input(
        alice.console().arg("user add bob --key - --role admin"),
        &key,
    )
    .ok();
    ask("user rm mallory").exits(1);
    relay.admin(&["user", "rm", "bob"]).ok();
    let token = relay.json(&["token", "create", "--uses", "2", "--json"]);
    ask(&format!("token rm {}", token["id"].as_str().unwrap())).ok();
    alice.exec(Way::Direct, device.name(), "true").ok();
    alice.exec(Way::Jump, device.name(), "true").ok();
    relay
        .admin(&["devices", "rename", "kitchen-cam", "hall-cam"])
        .ok();
    relay.admin(&["devices", "revoke", "hall-cam"]).ok();
    wait_row(&relay, "device.offline", |_| true);

    let rows = log(&relay, &[]);
    let find = |event: &str, fits: &dyn Fn(&Value) -> bool| -> Value {
        let row = rows.iter().find(|row| row["event"] == event && fits(row));
        row.unwrap_or_else(|| panic!("no {event}: {rows:#?}"))
            .clone()
    };
    let any = |_: &Value| true;
    assert_eq!(rows[0]["event"], "relay.started");
    let added = find("access.changed", &|row| row["target"] == "alice");
    assert_eq!(
        (&added["user"], &added["change"]),
        (&"local".into(), &"user.add".into())
    );
    assert_eq!(added["os_user"], own_login());
    assert_eq!(added["keys"].as_array().unwrap().len(), 1);

    let made = find("token.created", &any);
    let used = find("token.used", &any);
    assert_eq!(made["token"], used["token"]);
    let enrolled = find("device.enrolled", &any);
    for row in [&used, &enrolled, &find("device.online", &any)] {
        assert_eq!(
            (&row["device"], &row["device_id"]),
            (&"kitchen-cam".into(), &address)
        );
        let own = row["device_address"].as_str().unwrap();
        assert!(own.parse::<std::net::SocketAddr>().is_ok(), "{own}");
    }
    let login = find("user.login", &|row| row["way"] == "console");
    assert_eq!(
        (&login["user"], &login["how"]),
        (&"alice".into(), &"key".into())
    );
    assert!(login["key"].as_str().unwrap().starts_with("SHA256:"));
    assert!(login["client"].as_str().unwrap().starts_with("127."));
    find("user.login", &|row| {
        row["way"] == "direct" && row["login"] == own_login()
    });
    find("user.login", &|row| {
        row["way"] == "jump" && row["target"] == "kitchen-cam"
    });

    let label = find("access.changed", &|row| row["change"] == "device.label");
    assert_eq!(
        (&label["user"], &label["key"]),
        (&"alice".into(), &login["key"])
    );
    assert_eq!(label["labels"], serde_json::json!(["site=berlin"]));
    let absent = find("access.changed", &|row| row["target"] == "mallory");
    assert_eq!(absent["outcome"], "failed");
    assert_eq!(absent["reason"], "no user \"mallory\": see `relay user ls`");
    find("access.changed", &|row| {
        row["change"] == "user.rm" && row["outcome"] == "success"
    });
    let removed = find("token.removed", &any);
    assert_eq!(
        (&removed["user"], &removed["token"]),
        (&"alice".into(), &token["id"])
    );
    let renamed = find("access.changed", &|row| row["change"] == "device.rename");
    assert_eq!(
        (&renamed["target"], &renamed["name"]),
        (&"kitchen-cam".into(), &"hall-cam".into())
    );
    let revoked = find("device.revoked", &any);
    assert_eq!(
        (&revoked["device"], &revoked["device_id"]),
        (&"hall-cam".into(), &address)
    );

    // No secret, wherever it might have come from.
    let text = String::from_utf8(
        relay
            .admin(&["audit", "--json", "--limit", "0"])
            .ok()
            .stdout,
    )
    .unwrap();
    assert!(!text.contains(token["token"].as_str().unwrap().rsplit('.').next().unwrap()));

    let in_file = wait_file(&file, newest(&relay));
    let times: Vec<_> = rows
        .iter()
        .map(|row| row["time"].as_str().unwrap())
        .collect();
    assert!(times.is_sorted(), "{times:?}");
    for row in &rows {
        assert!(in_file.contains(row), "{row} is not in the file");
    }
    is_unbroken(&ids(&in_file));
}

#[test]
fn each_filter_picks_its_rows_and_the_newest_are_shown() {
    let site = Site::new();
    let relay = &site.relay;
    for n in 0..5 {
        relay.json(&["token", "create", "--uses", &(n + 1).to_string(), "--json"]);
    }
    let made = log(relay, &["--event", "token.created"]);
    let uses: Vec<_> = made
        .iter()
        .map(|row| row["uses"].as_i64().unwrap())
        .collect();
    assert_eq!(uses[uses.len() - 5..], [1, 2, 3, 4, 5]);
    let two = relay
        .admin(&[
            "audit",
            "--event",
            "token.created",
            "--limit",
            "2",
            "--json",
        ])
        .ok();
    assert_eq!(ids(&lines(&two.stdout)), ids(&made)[made.len() - 2..]);
    relay
        .admin(&["audit", "--user", "mallory"])
        .exits(1)
        .says("no user \"mallory\", and no event");
    let local = log(relay, &["--user", "local"]);
    assert!(!local.is_empty() && local.iter().all(|row| row["user"] == "local"));
    let name = site.device.name();
    let id = relay.device(name).unwrap()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let by_name = log(relay, &["--device", name]);
    assert!(by_name.iter().any(|row| row["event"] == "device.online"));
    assert_eq!(by_name, log(relay, &["--device", &id]));
    assert!(log(relay, &["--since", "2999-01-01"]).is_empty());
    assert!(log(relay, &["--until", "2020-01-01 00:00"]).is_empty());
    assert!(log(relay, &["--since", "1h", "--session", &"00".repeat(16)]).is_empty());
    for bad in [
        ["--event", "nonsense"],
        ["--since", "soon"],
        ["--limit", "-1"],
    ] {
        relay.admin(&[&["audit"][..], &bad].concat()).exits(2);
    }
    relay
        .admin(&["audit", "--session", "x"])
        .exits(2)
        .says("expected a session's id");

    let table = relay
        .admin(&["audit", "--event", "token.created"])
        .ok()
        .out();
    let mut shown = table.lines();
    assert!(shown.next().unwrap().starts_with("TIME (UTC)"), "{table}");
    assert_eq!(shown.count(), made.len());
    // Each of these readings is logged, with what was asked for.
    let read = wait_row(relay, "audit.read", |row| row["asked_device"] == name);
    assert_eq!(read["user"], "local");
}

#[test]
fn who_may_not_read_the_log_is_refused_and_logged() {
    let site = Site::new();
    let carol = site.relay.user("carol", &[]);
    run(carol.console().arg("audit --json"))
        .exits(1)
        .says("user \"carol\"");
    let row = wait_row(&site.relay, "audit.read", |row| row["user"] == "carol");
    assert_eq!(row["outcome"], "refused");
    run(carol.console().arg("token create")).exits(1);
    let row = wait_row(&site.relay, "token.created", |row| row["user"] == "carol");
    assert_eq!(row["outcome"], "refused");
}

#[test]
fn a_follower_sees_what_comes_at_either_door() {
    let site = Site::new();
    let args = [
        "audit",
        "--follow",
        "--json",
        "--event",
        "token.created",
        "--limit",
        "1",
    ];
    let here = Running::start(&mut site.relay.command(&args));
    let mut there = Running::start(site.alice.console().arg(args.join(" ")));
    let table = Running::start(site.alice.console().arg("audit --follow --limit 1"));
    for running in [&here, &there] {
        running.wait_out("token.created");
    }
    table.wait_out("TIME (UTC)");
    for uses in ["41", "42", "43"] {
        site.relay.token(&["--uses", uses]);
    }
    for running in [&here, &there] {
        running.wait_out("\"uses\":43");
        let seen = lines(running.out().as_bytes());
        let uses: Vec<_> = seen
            .iter()
            .map(|row| row["uses"].as_i64().unwrap())
            .collect();
        assert_eq!(uses[1..], [41, 42, 43]);
    }
    table.wait_out("uses=43");
    let mut ssh = site.alice.console();
    let mut terminal = Terminal::start(ssh.args(["-t", "audit --follow --limit 1"]), 200, 24);
    terminal.expect("TIME (UTC)");
    terminal.send("\u{3}");
    assert_eq!(terminal.wait(SOON).code(), Some(130));
    assert!(there.is_alive(), "it goes on until it is stopped");
    there.signal(Signal::INT);
    there.wait(SOON);
    site.relay.token(&["--uses", "44"]);
    here.wait_out("\"uses\":44");
    // The relay has nothing left of the client that went: its stop waits for no client.
    drop(here);
}

#[test]
fn a_flood_of_failed_logins_is_a_few_rows_that_count_them_all() {
    let mut relay = Relay::start();
    let mallory = User::stranger(&relay, "mallory", KeyKind::Ed25519);
    let tries: Vec<_> = (0..8)
        .map(|n| {
            Running::start(
                mallory
                    .tool("ssh")
                    .args(["-l", &format!("root{n}"), "relay"]),
            )
        })
        .collect();
    for one in tries {
        assert_eq!(one.wait(SOON).code(), 255);
    }
    wait_row(&relay, "user.login.failed", |row| {
        row["outcome"] == "refused"
    });
    // What is summed is written at the end of its minute, or when the relay stops.
    relay.terminate(SOON);
    let rows = log(&relay, &["--event", "user.login.failed"]);
    assert_eq!(rows.len(), 2, "{rows:#?}");
    let counted = rows[1]["count"].as_u64().unwrap() + 1;
    assert_eq!(counted, 8);
    assert!(rows[0]["names"][0].as_str().unwrap().starts_with("root"));
    assert!(rows[0]["keys"][0].as_str().unwrap().starts_with("SHA256:"));
    assert!(rows[0]["source"].as_str().unwrap().starts_with("127."));
    assert!(rows[0]["user"].is_null(), "no user was proved");
}

#[test]
fn a_restart_neither_loses_nor_doubles_a_line() {
    let (mut relay, file) = relay_with_file("");
    relay.start_again();
    relay.token(&[]);
    wait_file(&file, newest(&relay));
    // Rows of a command while no relay runs come with the next start.
    relay.terminate(SOON);
    relay.token(&[]);
    relay.start_again();
    let id = newest(&relay);
    is_unbroken(&ids(&wait_file(&file, id)));
    // A crash leaves half a line.
    relay.kill();
    let torn = [fs::read(&file).unwrap(), b"{\"time\":\"2026-".to_vec()].concat();
    fs::write(&file, torn).unwrap();
    relay.token(&[]);
    relay.start_again();
    let id = newest(&relay);
    is_unbroken(&ids(&wait_file(&file, id)));

    let old = file.with_extension("1");
    fs::rename(&file, &old).unwrap();
    relay.signal(Signal::HUP);
    wait_until(
        SOON,
        "a new file is there, before anything is written",
        || file.exists(),
    );
    relay.token(&[]);
    let id = newest(&relay);
    let new = wait_file(&file, id);
    let all = [ids(&lines(&fs::read(&old).unwrap())), ids(&new)].concat();
    is_unbroken(&all);
    // And without the signal, as the file is not the one that was opened.
    fs::rename(&file, file.with_extension("2")).unwrap();
    relay.token(&[]);
    assert!(wait_file(&file, newest(&relay)).len() < 4);
}

#[test]
fn the_log_can_go_to_stdout() {
    let mut relay = Relay::new(&[]);
    configure(&mut relay, "file = \"stdout\"");
    relay.start_again();
    relay.token(&[]);
    let id = newest(&relay);
    let out = wait_for(SOON, "the row on stdout", || {
        let out = relay.out();
        out.contains(&format!("\"id\":{id},")).then_some(out)
    });
    let (ready, rows) = out.split_once('\n').unwrap();
    assert!(ready.starts_with("ready "), "{ready}");
    let ids = ids(&lines(rows.as_bytes()));
    is_unbroken(&ids);
}

#[test]
fn a_device_that_comes_and_goes_writes_a_bounded_number_of_rows() {
    let mut relay = Relay::start();
    let mut device = Device::online(&relay, "kitchen-cam");
    for _ in 0..6 {
        device.restart(&relay);
    }
    relay.terminate(SOON);
    let rows = log(&relay, &["--device", "kitchen-cam"]);
    let mut count = BTreeMap::<_, u64>::new();
    let mut written = 0;
    for row in &rows {
        let event = row["event"].as_str().unwrap();
        if ["device.online", "device.offline", "device.replaced"].contains(&event) {
            *count.entry(event).or_default() += row["count"].as_u64().unwrap_or(1);
            written += 1;
        }
    }
    assert!((4..=6).contains(&written), "{rows:#?}");
    assert!(count.values().sum::<u64>() >= 13, "{count:?} of {rows:#?}");
}

#[test]
fn old_rows_go_and_that_is_logged() {
    let mut relay = Relay::new(&[]);
    configure(&mut relay, "keep = \"1ms\"");
    relay.start_again();
    relay.token(&[]);
    let before = newest(&relay);
    relay.restart();
    let row = wait_row(&relay, "audit.removed", |row| {
        row["ids"][1].as_i64() >= Some(before)
    });
    assert!(
        row["count"].as_i64().unwrap() > 1 && row["user"].is_null(),
        "{row}"
    );
    assert!(
        log(&relay, &[])
            .iter()
            .all(|row| row["id"].as_i64() > Some(before))
    );
}

/// The refusal of a new session while the log cannot be written.
const REFUSAL: &str =
    "the relay's audit log cannot be written, so no new session may start: tell an admin";

#[track_caller]
fn is_refused(output: Output) {
    output.exits(255).says(REFUSAL);
}

fn try_session(alice: &User, way: Way) -> Output {
    alice.exec(way, "kitchen-cam", "echo in")
}

fn needs_mounts() -> bool {
    is_root("a small file system of its own") && crate::harness::Accounts::are_possible()
}

fn link_to_full(path: &PathBuf) {
    let _ = fs::remove_file(path);
    symlink("/dev/full", path).unwrap();
}
