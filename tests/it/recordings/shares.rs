//! Roles that share a device: what the lax one copies leaves room for those who must be recorded.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{exported, stream};
use crate::harness::{
    Device, SOON, Site, Terminal, User, Way, command, own_login, run, run_with_input, wait_for,
};

/// A site whose device has the smallest spool, and users of these roles. `options` are the lax one's.
#[track_caller]
fn shared(options: &str) -> (Site, User, User) {
    let device = Device::new("kitchen-cam").flags(&["--upload", "manual", "--spool-max", "2MiB"]);
    let site = Site::with(device);
    let rule = "labels = { '*' = '*' }\nlogins = ['*']\nabilities = ['shell', 'exec']";
    let policy = format!(
        "[roles.lax]\nrecording = 'best-effort'\n{options}\n[roles.lax.allow]\n{rule}\n\
         [roles.strict]\nrecording = 'strict'\n[roles.strict.allow]\n{rule}\n"
    );
    let mut apply = site.relay.command(&["apply", "-f", "-"]);
    run_with_input(&mut apply, policy.as_bytes()).ok();
    let (bob, carol) = (
        site.relay.user("bob", &["lax"]),
        site.relay.user("carol", &["strict"]),
    );
    (site, bob, carol)
}

/// A file on the device that cannot be made smaller, of several times what the spool holds.
#[track_caller]
fn noise(site: &Site) -> PathBuf {
    let path = site.device.folder().join("noise");
    let bytes = run(command("head").args(["-c", "5M", "/dev/urandom"])).ok();
    fs::write(&path, bytes.stdout).unwrap();
    path
}

/// Copies the file from the device by `rsync`, and shows it by `cat`.
#[track_caller]
fn copy(bob: &User, file: &Path) {
    let whole = fs::read(file).unwrap();
    let copied = bob.folder().join("copied");
    let remote = Way::Direct.destination(&own_login(), "kitchen-cam");
    let remote = format!("{remote}:{}", file.display());
    run(bob.rsync().arg("-a").arg(remote).arg(&copied)).ok();
    assert!(fs::read(&copied).unwrap() == whole);
    let line = format!("cat {}", file.display());
    let shown = bob.exec(Way::Direct, "kitchen-cam", &line).ok();
    assert!(shown.stdout == whole);
}

/// Opens a shell at a terminal, types a line, and leaves.
#[track_caller]
fn opens_a_shell(user: &User) {
    let ssh = user.ssh(Way::Direct, &own_login(), "kitchen-cam");
    let mut shell = Terminal::start(&ssh, 80, 24);
    shell.send("PS1=; echo op''ened; exit 7\r");
    shell.expect("opened");
    assert_eq!(shell.wait(SOON).code(), Some(7));
}

/// The recordings of a user, when that many have a verdict.
#[track_caller]
fn judged(site: &Site, user: &User, count: usize) -> Vec<Value> {
    run(&mut site.device.command(&["upload"])).ok();
    wait_for(SOON, "verdicts", || {
        let rows = site
            .relay
            .json(&["recordings", "--user", user.name(), "--all", "--json"]);
        let rows = rows.as_array()?.clone();
        let is_judged = |row: &Value| row["verified"].is_boolean();
        (rows.len() == count && rows.iter().all(is_judged)).then_some(rows)
    })
}

#[test]
fn what_a_lax_role_copies_leaves_room_for_strict_shells() {
    let (site, bob, carol) = shared("record_content = 'unlimited'");
    let file = noise(&site);
    copy(&bob, &file);
    for _ in 0..5 {
        opens_a_shell(&carol);
        let said = carol.exec(Way::Direct, "kitchen-cam", "echo recorded").ok();
        assert_eq!(said.out(), "recorded\n");
    }
    let rows = judged(&site, &carol, 10);
    assert!(rows.iter().all(|row| row["verified"] == true), "{rows:?}");
    // The lax ones say what they lack.
    let rows = judged(&site, &bob, 2);
    for row in rows {
        assert_eq!(row["verified"], false, "{row}");
        let records = exported(&site.relay, row["id"].as_str().unwrap());
        assert!(
            records.iter().any(|record| record["event"] == "gap"),
            "{row}"
        );
    }
}

#[test]
fn content_above_its_bound_leaves_no_gap_in_a_small_spool() {
    let (site, bob, carol) = shared("record_content = '256 KiB'");
    let file = noise(&site);
    copy(&bob, &file);
    opens_a_shell(&carol);
    let whole = fs::read(&file).unwrap();
    let rows = judged(&site, &bob, 2);
    for row in &rows {
        let said = (row["state"].as_str(), row["reason"].as_str());
        assert_eq!(said, (Some("complete"), Some("content not kept")), "{row}");
        let records = exported(&site.relay, row["id"].as_str().unwrap());
        let has = |event: &str| records.iter().any(|record| record["event"] == event);
        assert!(has("content_ends") && !has("gap"), "{row}");
    }
    let shown = rows.iter().find(|row| {
        let command = row["command"].as_str();
        command.is_some_and(|command| command.starts_with("cat"))
    });
    let records = exported(&site.relay, shown.unwrap()["id"].as_str().unwrap());
    let kept = stream(&records, "stdout");
    assert!(
        kept.len() >= 256 << 10 && whole.starts_with(&kept),
        "{}",
        kept.len()
    );
    let rows = judged(&site, &carol, 1);
    assert_eq!(rows[0]["verified"], true, "{rows:?}");
}
