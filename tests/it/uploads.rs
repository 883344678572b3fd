//! Many small files that OpenSSH's `sftp` and `scp` put, one after the other: the relay opens and closes them ahead.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::{
    Accounts, Device, Output, SOON, Site, User, Way, command, own_login, run, run_with_input,
    wait_for,
};

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// A folder with a folder of small files, of which some are empty or longer than the relay looks at.
fn files() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let files = folder.path().join("files");
    fs::create_dir_all(files.join("sub")).unwrap();
    for (number, name) in NAMES.iter().enumerate() {
        let length = [3_000_u32, 1, 0, 40_000, 300_000, 32_000][number];
        let bytes: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        fs::write(files.join(name), &bytes).unwrap();
        fs::write(files.join("sub").join(name), &bytes).unwrap();
        let mode = if number == 1 { 0o444 } else { 0o750 };
        fs::set_permissions(files.join(name), Permissions::from_mode(mode)).unwrap();
    }
    (folder, files)
}

fn sftp(user: &User, way: Way, login: &str, batch: &str) -> Output {
    let mut sftp = user.tool("sftp");
    sftp.args(["-q", "-b", "-"])
        .arg(way.destination(login, "kitchen-cam"));
    run_with_input(&mut sftp, batch.as_bytes())
}

/// Returns what was done with files below a folder, by the audit log: operation, path, outcome and bytes that were
/// written.
fn logged(site: &Site, below: &Path) -> Vec<(String, String, String, u64)> {
    let rows = ["audit", "--event", "sftp", "--json", "--limit", "0"];
    let rows = site.relay.admin(&rows).ok().out();
    let below = format!("{}/", below.display());
    let logged = rows.lines().filter_map(|row| {
        let row: Value = serde_json::from_str(row).unwrap();
        let text = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
        let path = text("path").strip_prefix(&below)?.to_owned();
        let written = row["bytes_written"].as_u64().unwrap_or(0);
        Some((text("operation"), path, text("outcome"), written))
    });
    let mut logged: Vec<_> = logged.collect();
    logged.sort();
    logged
}

#[test]
fn many_small_files_are_put_whole_and_logged_one_by_one() {
    let site = Site::new();
    let (folder, files) = files();
    for way in Way::BOTH {
        for (name, flags, sets) in [
            ("sftp", "", 0),
            ("sftp-p", "-p", 1),
            ("scp", "-r", 1),
            ("scp-p", "-rp", 2),
        ] {
            let to = folder.path().join(format!("{way:?}-{name}"));
            if name.starts_with("sftp") {
                let put = format!("put -r {flags} {} {}\n", files.display(), to.display());
                sftp(&site.alice, way, &own_login(), &put).ok();
            } else {
                let mut scp = site.alice.tool("scp");
                let host = way.destination(&own_login(), "kitchen-cam");
                scp.args(["-q", flags]).arg(&files);
                run(scp.arg(format!("{host}:{}", to.display()))).ok();
            }
            run(command("diff").arg("-r").arg(&files).arg(&to)).ok();
            let mode = |name: &str| fs::metadata(to.join(name)).unwrap().permissions().mode();
            assert_eq!((mode("a") & 0o777, mode("b") & 0o777), (0o750, 0o444));
            // Each of them is logged as if the device alone had answered.
            let mut expected = vec![];
            for folder in ["", "sub/"] {
                for name in NAMES {
                    let path = format!("{folder}{name}");
                    let length = fs::metadata(files.join(&path)).unwrap().len();
                    let row = |operation: &str, length| {
                        (operation.to_owned(), path.clone(), "success".into(), length)
                    };
                    expected.push(row("write", length));
                    expected.extend((0..sets).map(|_| row("setstat", 0)));
                }
            }
            expected.sort();
            let rows = wait_for(SOON, "a row for each file", || {
                let mut rows = logged(&site, &to);
                rows.retain(|(operation, path, ..)| operation != "mkdir" && path != "sub");
                (rows.len() >= expected.len()).then_some(rows)
            });
            assert_eq!(rows, expected, "{way:?} {name}");
        }
    }
}

#[test]
fn what_cannot_be_opened_is_named_wherever_it_is() {
    if !Accounts::are_possible() {
        return;
    }
    let accounts = Accounts::new().add("hf-pi", 4001, "/bin/sh", "*");
    let site = Site::with(accounts.device("kitchen-cam"));
    let (_folder, files) = files();
    let homes = site.device.folder().join("homes/hf-pi");
    let locked = homes.join("locked");
    fs::create_dir(&locked).unwrap();
    for way in Way::BOTH {
        let inbox = homes.join(format!("inbox-{way:?}"));
        fs::create_dir(&inbox).unwrap();
        chown(&inbox, Some(4001), Some(4001)).unwrap();
        for name in ["d", "empty"] {
            fs::write(inbox.join(name), "root's").unwrap();
        }
        // A folder where nothing may be made: the open itself is refused.
        let put = format!("put {}/a {}/a\n", files.display(), locked.display());
        let refused = sftp(&site.alice, way, "hf-pi", &put).exits(1);
        let sentence = format!("dest open \"{}/a\": Permission denied", locked.display());
        refused.says(&sentence);
        // A file among others that was opened ahead: the write is.
        let puts = ["a", "b", "d", "e"].map(|name| {
            let (here, there) = (files.display(), inbox.display());
            format!("put {here}/{name} {there}/{name}\n")
        });
        let refused = sftp(&site.alice, way, "hf-pi", &puts.concat()).exits(1);
        let sentence = format!("write remote \"{}/d\": Permission denied", inbox.display());
        refused.says(&sentence);
        assert_eq!(fs::read(inbox.join("d")).unwrap(), b"root's");
        assert_eq!(fs::read(inbox.join("a")).unwrap().len(), 3_000);
        // The batch ended there.
        assert!(!inbox.join("e").exists());
        // One that holds nothing fails by its close alone.
        let puts = format!(
            "put {0}/a {1}/x\nput {0}/c {1}/empty\n",
            files.display(),
            inbox.display()
        );
        let refused = sftp(&site.alice, way, "hf-pi", &puts).exits(1);
        refused.says("Permission denied");
        // The same by scp, and by whole folders, which go on behind it.
        for name in ["a", "b"] {
            fs::remove_file(inbox.join(name)).unwrap();
        }
        let host = way.destination("hf-pi", "kitchen-cam");
        let mut scp = site.alice.tool("scp");
        scp.args(["-q", "-r"]).arg(files.join("."));
        let refused = run(scp.arg(format!("{host}:{}", inbox.display()))).exits(1);
        let named = format!("{}/./d\": Permission denied", inbox.display());
        let err = refused.err();
        assert!(
            err.contains(&named) || err.contains(&named.replace("/./", "/")),
            "{err}"
        );
        for name in ["a", "b", "e", "f", "sub/d"] {
            let same = fs::read(inbox.join(name)).unwrap() == fs::read(files.join(name)).unwrap();
            assert!(same, "{name}");
        }
        assert_eq!(fs::read(inbox.join("d")).unwrap(), b"root's");
        let rows = wait_for(SOON, "the rows of what failed", || {
            let rows = logged(&site, &inbox);
            let failed = rows.into_iter().filter(|row| row.2 == "failed");
            let failed: Vec<_> = failed.map(|row| (row.0, row.1.replace("./", ""))).collect();
            (failed.len() >= 3).then_some(failed)
        });
        let write = |name: &str| ("write".to_owned(), name.to_owned());
        assert_eq!(rows, [write("d"), write("d"), write("empty")]);
    }
}

#[test]
fn a_recording_has_only_what_the_client_asked_for() {
    let site = Site::with(Device::new("kitchen-cam").flags(&["--upload", "always"]));
    let (folder, files) = files();
    let to = folder.path().join("to");
    let put = format!("put -r -p {} {}\n", files.display(), to.display());
    sftp(&site.alice, Way::Direct, &own_login(), &put).ok();
    let row = wait_for(SOON, "the recording", || {
        let found = site
            .relay
            .json(&["recordings", "--state", "complete", "--json"]);
        found.as_array().unwrap().first().cloned()
    });
    let id = row["id"].as_str().unwrap();
    let out = site.relay.admin(&["export", id, "--format", "json"]).ok();
    let below = format!("{}/", to.display());
    let (mut logged, mut others) = (vec![], vec![]);
    for line in out.out().lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        if record["event"] != "file" {
            continue;
        }
        let path = record["path"].as_str().unwrap();
        let operation = record["operation"].as_str().unwrap().to_owned();
        let bytes = record["bytes"].as_u64().unwrap();
        match path.strip_prefix(&below) {
            Some("sub") => {}
            Some(path) => {
                assert_eq!(record["result"], 0, "{record}");
                logged.push((path.to_owned(), operation, bytes));
            }
            None => others.push(path.to_owned()),
        }
    }
    let files = &files;
    let expected = ["", "sub/"].iter().flat_map(|folder| {
        NAMES.iter().flat_map(move |name| {
            let path = format!("{folder}{name}");
            let length = fs::metadata(files.join(&path)).unwrap().len();
            let set = (path.clone(), "set_attributes".to_owned(), 0);
            [set, (path, "write".to_owned(), length)]
        })
    });
    let mut expected: Vec<_> = expected.collect();
    expected.sort();
    logged.sort();
    assert_eq!(logged, expected);
    assert!(!others.concat().contains("@holdfast"), "{others:?}");
}
