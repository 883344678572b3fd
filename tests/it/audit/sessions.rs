//! The events of sessions.

use super::*;

/// The rows of the session that ran this command.
#[track_caller]
fn session_of(relay: &Relay, command: &str) -> Vec<Value> {
    let exec = wait_row(relay, "exec", |row| row["command"] == command);
    let id = exec["session"].as_str().unwrap().to_owned();
    wait_for(SOON, "the session's end", || {
        let mut rows = log(relay, &["--session", &id]);
        // What becomes of its recording is logged behind it.
        let end = rows.iter().position(|row| row["event"] == "session.end")?;
        rows.truncate(end + 1);
        Some(rows)
    })
}

#[test]
fn a_session_is_logged_from_start_to_end_on_both_ways() {
    let site = Site::new();
    site.relay
        .admin(&["user", "email", "alice", "alice@example.com"])
        .ok();
    for way in Way::BOTH {
        let command = format!("cat >&2; printf out; exit 7 # {way:?} \"\r\n\u{1b}[2J");
        run_with_input(site.ssh(way).arg(&command), b"input").exits(7);
        let rows = session_of(&site.relay, &command);
        let events: Vec<_> = rows
            .iter()
            .map(|row| row["event"].as_str().unwrap())
            .collect();
        assert_eq!(events, ["session.start", "exec", "session.end"], "{way:?}");
        let device = site.relay.device("kitchen-cam").unwrap();
        for row in &rows {
            assert_eq!(
                (&row["user"], &row["email"]),
                (&"alice".into(), &"alice@example.com".into())
            );
            assert!(row["key"].as_str().unwrap().starts_with("SHA256:"));
            assert!(row["client"].as_str().unwrap().starts_with("127."));
            assert_eq!(
                (&row["device"], &row["device_id"]),
                (&"kitchen-cam".into(), &device["id"])
            );
            let own = row["device_address"].as_str().unwrap();
            assert!(own.parse::<std::net::SocketAddr>().is_ok(), "{own}");
            assert_eq!(row["login"], own_login());
        }
        assert_eq!(rows[0]["kind"], "exec");
        let [exit, came, went] = ["exit", "bytes_in", "bytes_out"].map(|name| &rows[2][name]);
        // Both streams towards the client are counted.
        assert_eq!([exit, came, went], [7, 5, 8], "{way:?}");
        assert!(rows[2]["duration_seconds"].as_f64().unwrap() >= 0.0);
    }
}

#[test]
fn a_refused_session_is_logged_with_the_reason() {
    let site = Site::new();
    let carol = site.relay.user("carol", &[]);
    carol.exec(Way::Direct, "kitchen-cam", "true").exits(255);
    let row = wait_row(&site.relay, "session.rejected", |row| {
        row["user"] == "carol"
    });
    assert_eq!(
        (&row["outcome"], &row["target"]),
        (&"refused".into(), &"kitchen-cam".into())
    );
    assert_eq!(row["device"], "kitchen-cam");
    assert!(row["device_id"].is_string(), "{row}");
    // A jump's refusal names the device as well, and one to a device that there is not names none.
    let dave = site.relay.user("dave", &[]);
    dave.exec(Way::Jump, "kitchen-cam", "true").exits(255);
    let row = wait_row(&site.relay, "session.rejected", |row| row["user"] == "dave");
    assert_eq!(row["device"], "kitchen-cam");
    let erin = site.relay.user("erin", &[]);
    erin.exec(Way::Direct, "attic-cam", "true").exits(255);
    let row = wait_row(&site.relay, "session.rejected", |row| row["user"] == "erin");
    assert!(row["device"].is_null(), "{row}");
    assert!(
        row["reason"]
            .as_str()
            .is_some_and(|reason| !reason.is_empty()),
        "{row}"
    );
    let mut ssh = site.ssh(Way::Direct);
    run(ssh.args(["-o", "SetEnv LD_PRELOAD=secret", "true"])).ok();
    let row = wait_row(&site.relay, "env.rejected", |row| {
        row["name"] == "LD_PRELOAD"
    });
    assert!(!row.to_string().contains("secret"), "{row}");
}

#[test]
fn a_lock_and_what_it_ends_are_logged() {
    let site = Site::new();
    let mut session = site.start(Way::Direct, "echo started; cat");
    session.wait_out("started");
    site.relay
        .admin(&["lock", "user", "alice", "--message", "laptop \"stolen\""])
        .ok();
    session.end_input();
    session.wait(SOON).exits(255);
    let created = wait_row(&site.relay, "lock.created", |_| true);
    assert_eq!(
        (&created["user"], &created["value"]),
        (&"local".into(), &"alice".into())
    );
    let cut = wait_row(&site.relay, "client.disconnect", |row| {
        row["reason"] == "locked"
    });
    assert_eq!(cut["user"], "alice");
    let id = created["lock"].to_string();
    site.relay.admin(&["unlock", &id]).ok();
    let removed = wait_row(&site.relay, "lock.removed", |_| true);
    assert_eq!(removed["lock"], created["lock"]);
    is_one_line_each(&site.relay);
}

#[test]
fn a_policy_is_logged_with_what_it_changed() {
    let site = Site::new();
    let policy = "[roles.viewer]\n[roles.viewer.allow]\nlabels = { \"*\" = \"*\" }\nlogins = [\"*\"]\nabilities = [\"exec\"]\n";
    let apply = |args: &str| {
        run_with_input(
            site.alice.console().arg(format!("apply -f - {args}")),
            policy.as_bytes(),
        )
        .ok()
    };
    apply("--dry-run");
    apply("");
    apply("");
    let found: Vec<Value> = log(&site.relay, &["--event", "access.changed"])
        .into_iter()
        .filter(|row| row["change"] == "apply")
        .collect();
    assert_eq!(
        found.len(),
        1,
        "what changes nothing is not logged: {found:#?}"
    );
    assert_eq!(
        (&found[0]["user"], &found[0]["count"]),
        (&"alice".into(), &1.into())
    );
    assert!(
        found[0]["changes"][0]
            .as_str()
            .unwrap()
            .contains("role viewer"),
        "{}",
        found[0]
    );
}

#[track_caller]
fn is_one_line_each(relay: &Relay) {
    let table = relay.admin(&["audit", "--limit", "0"]).ok().out();
    let rows = log(relay, &[]).len();
    // The head, the rows, and what these two readings added in between.
    assert!(
        (rows - 1..=rows + 1).contains(&table.lines().count()),
        "{table}"
    );
    assert!(!table.contains(['\r', '\u{1b}']));
}

#[test]
fn file_operations_are_logged_with_path_and_result() {
    let site = Site::new();
    let folder = site.relay.folder().join("files");
    fs::create_dir(&folder).unwrap();
    let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    fs::write(at("there"), vec![b'x'; 100_000]).unwrap();
    for way in Way::BOTH {
        let odd = format!("'{}'", at("put \"\u{1b}[2J\""));
        let lines = [
            format!("get {} {}", at("there"), at("got")),
            format!("put {} {odd}", at("got")),
            format!("rename {odd} {}", at("renamed")),
            format!("mkdir {}", at("folder")),
            format!("-rmdir {}", at("missing")),
            format!("rm {}", at("renamed")),
            format!("rmdir {}", at("folder")),
        ];
        let mut sftp = site.alice.tool("sftp");
        sftp.args(["-b", "-"])
            .arg(way.destination(&own_login(), "kitchen-cam"));
        run_with_input(&mut sftp, lines.join("\n").as_bytes()).ok();
    }
    let rows = wait_for(SOON, "the rows of both ways", || {
        let rows = log(&site.relay, &["--event", "sftp"]);
        let ends = rows
            .iter()
            .filter(|row| row["operation"] == "rmdir")
            .count();
        (ends == 4).then_some(rows)
    });
    let found: Vec<_> = rows
        .iter()
        .map(|row| {
            let text = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
            let path = text("path").replace(folder.to_str().unwrap(), "");
            (text("operation"), path, text("outcome"))
        })
        .collect();
    let fits = |operation: &str, path: &str, outcome: &str| {
        let wanted = (operation.to_owned(), path.to_owned(), outcome.to_owned());
        let count = found.iter().filter(|row| **row == wanted).count();
        assert_eq!(count, 2, "{wanted:?} in {found:#?}");
    };
    fits("read", "/there", "success");
    fits("write", "/put \"\u{1b}[2J\"", "success");
    fits("rename", "/put \"\u{1b}[2J\"", "success");
    fits("mkdir", "/folder", "success");
    fits("rmdir", "/missing", "failed");
    fits("remove", "/renamed", "success");
    fits("rmdir", "/folder", "success");
    let read = rows.iter().find(|row| row["operation"] == "read").unwrap();
    assert_eq!(read["bytes_read"], 100_000);
    assert!(
        read["session"].is_string() && read["user"] == "alice",
        "{read}"
    );
    let written = rows.iter().find(|row| row["operation"] == "write").unwrap();
    assert_eq!(written["bytes_written"], 100_000);
}
