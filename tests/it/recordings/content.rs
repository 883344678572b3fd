//! Without a terminal, the content of a stream is recorded up to a bound, and proved beyond it.

use std::fs;

use serde_json::Value;

use super::{exported, hoarding_site, segments, site, stream};
use crate::harness::{SOON, Site, User, Way, command, own_login, run, run_with_input, wait_for};

/// A user of whose streams a megabyte is kept.
#[track_caller]
fn bounded(site: &Site, options: &str) -> User {
    let policy = format!(
        "[roles.bounded]\n{options}\n[roles.bounded.allow]\nlabels = {{ '*' = '*' }}\n\
         logins = ['*']\nabilities = ['shell', 'exec', 'sftp']\n"
    );
    let mut apply = site.relay.command(&["apply", "-f", "-"]);
    run_with_input(&mut apply, policy.as_bytes()).ok();
    site.relay.user("bob", &["bounded"])
}

const STRICT_MIB: &str = "recording = 'strict'\nrecord_content = '1 MiB'";

/// The row of the one recording, when it has a verdict.
#[track_caller]
fn judged(site: &Site) -> Value {
    wait_for(SOON, "a verdict", || {
        let rows = site.relay.json(&["recordings", "--json"]);
        let row = rows.as_array()?.first()?.clone();
        row["verified"].is_boolean().then_some(row)
    })
}

#[track_caller]
fn assert_not_kept(row: &Value) {
    let said = (
        row["state"].as_str(),
        row["reason"].as_str(),
        &row["verified"],
    );
    let expected = (Some("complete"), Some("content not kept"), &false.into());
    assert_eq!(said, expected, "{row}");
}

#[test]
fn long_output_is_proved_whole_and_kept_in_part() {
    let site = hoarding_site();
    let bob = bounded(&site, STRICT_MIB);
    let line = "f=$(mktemp); head -c 30M /dev/urandom >$f; cat $f; sha256sum <$f >&2; rm $f";
    let said = bob.exec(Way::Direct, "kitchen-cam", line).ok();
    assert_eq!(said.stdout.len(), 30 << 20);
    let sum = run_with_input(&mut command("sha256sum"), &said.stdout).ok();
    assert!(said.err().contains(&sum.out()), "{}", said.err());

    let files = segments(&site.device);
    let waiting: u64 = files
        .iter()
        .map(|file| file.metadata().unwrap().len())
        .sum();
    assert!(waiting < 2 << 20, "{waiting} bytes in the spool");
    run(&mut site.device.command(&["upload"])).ok();
    let row = judged(&site);
    assert_not_kept(&row);
    assert!(row["bytes"].as_u64() < Some(2 << 20), "{row}");

    let id = row["id"].as_str().unwrap();
    let records = exported(&site.relay, id);
    let kept = stream(&records, "stdout");
    let (length, most) = (kept.len(), (1 << 20) + (256 << 10));
    assert!((1 << 20..most).contains(&length), "{length}");
    assert!(said.stdout.starts_with(&kept), "what is kept is what came");
    assert_eq!(stream(&records, "stderr"), said.stderr);
    let ends = |record: &&Value| record["event"] == "content_ends";
    let ends: Vec<&Value> = records.iter().filter(ends).collect();
    assert_eq!(ends.len(), 1, "{ends:?}");
    assert_eq!(
        (&ends[0]["stream"], &ends[0]["from_byte"]),
        (&"stdout".into(), &length.into())
    );

    let mark = format!("content not kept from byte {length} on");
    let card = site.relay.admin(&["recordings", "show", id]).ok().out();
    assert!(card.contains(&mark), "{card}");
    let said = site.relay.admin(&["recordings", "verify", id]).exits(8);
    assert!(said.out().contains("complete, content not kept"), "{said}");
    let table = site.relay.admin(&["recordings"]).ok().out();
    assert!(table.contains("content not kept"), "{table}");
    let mark = format!("stdout: {mark}");
    for format in ["txt", "asciicast"] {
        assert!(site.relay.export(id, format).contains(&mark), "{format}");
    }
    let raw = ["export", id, "--format", "raw"];
    let raw = site.relay.admin(&raw).exits(1);
    assert!(
        raw.stdout == kept && raw.err().contains(&mark),
        "{}",
        raw.err()
    );
    let found = ["recordings", "grep", "no such text"];
    let found = site.relay.admin(&found).exits(1).out();
    assert!(found.contains("not searched in 1 recording"), "{found}");
    // For machines there are hits alone on stdout.
    let found = ["recordings", "grep", "no such text", "--json"];
    let found = site.relay.admin(&found).exits(1);
    assert_eq!(found.out(), "");
    found.says("not searched in 1 recording");
}

#[test]
fn what_is_within_the_bound_is_verified() {
    let site = site();
    let bob = bounded(&site, STRICT_MIB);
    let line = "head -c 900K /dev/urandom";
    let said = bob.exec(Way::Direct, "kitchen-cam", line).ok();
    let row = judged(&site);
    assert_eq!(
        (&row["verified"], &row["reason"]),
        (&true.into(), &Value::Null)
    );
    let records = exported(&site.relay, row["id"].as_str().unwrap());
    assert_eq!(stream(&records, "stdout"), said.stdout);
}

#[test]
fn what_a_terminal_shows_is_kept_whole() {
    let site = site();
    let bob = bounded(&site, STRICT_MIB);
    let mut ssh = bob.ssh(Way::Direct, &own_login(), "kitchen-cam");
    let said = run(ssh.args(["-tt", "seq 300000"])).ok();
    assert!(said.stdout.len() > 2 << 20, "{}", said.stdout.len());
    let row = judged(&site);
    assert_eq!(
        (&row["verified"], &row["reason"]),
        (&true.into(), &Value::Null)
    );
    let records = exported(&site.relay, row["id"].as_str().unwrap());
    assert_eq!(stream(&records, "stdout"), said.stdout);
}

#[test]
fn copies_go_on_behind_the_bound_of_their_content() {
    let site = site();
    let bob = bounded(&site, STRICT_MIB);
    let source = site.relay.folder().join("noise");
    let noise: Vec<u8> = run(command("head").args(["-c", "3M", "/dev/urandom"]))
        .ok()
        .stdout;
    fs::write(&source, &noise).unwrap();
    let to = |name: &str| {
        let path = site.device.folder().join(name);
        let remote = Way::Direct.destination(&own_login(), "kitchen-cam");
        (format!("{remote}:{}", path.display()), path)
    };
    let (remote, copied) = to("by-scp");
    run(bob.tool("scp").arg("-O").arg(&source).arg(remote)).ok();
    assert!(fs::read(copied).unwrap() == noise);
    let row = judged(&site);
    assert_not_kept(&row);
    assert!(row["bytes"].as_u64() < Some(2 << 20), "{row}");

    // Of file transfer no content is kept: it is verified by its count and digest, as before.
    let (remote, copied) = to("by-sftp");
    run(bob.tool("scp").arg("-s").arg(&source).arg(remote)).ok();
    assert!(fs::read(copied).unwrap() == noise);
    let row = wait_for(SOON, "the verdict on file transfer", || {
        let rows = site.relay.json(&["recordings", "--kind", "sftp", "--json"]);
        let row = rows.as_array()?.first()?.clone();
        row["verified"].is_boolean().then_some(row)
    });
    assert_eq!(
        (&row["verified"], &row["reason"]),
        (&true.into(), &Value::Null)
    );
}

#[test]
fn role_may_ask_for_all_content() {
    let site = site();
    let bob = bounded(&site, "recording = 'strict'\nrecord_content = 'unlimited'");
    let line = "head -c 20M /dev/zero";
    bob.exec(Way::Direct, "kitchen-cam", line).ok();
    let row = judged(&site);
    assert_eq!(
        (&row["verified"], &row["reason"]),
        (&true.into(), &Value::Null)
    );
}
