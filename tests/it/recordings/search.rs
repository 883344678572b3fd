//! `recordings grep` for machines, and recordings of which a stored segment is gone.

use serde_json::Value;

use super::{rows, site, wait_state};
use crate::harness::{Output, SOON, Site, Way, run, wait_until};

/// Runs `recordings grep`.
fn grep(site: &Site, args: &[&str]) -> Output {
    site.relay.admin(&[&["recordings", "grep"], args].concat())
}

#[test]
fn hits_are_json_and_the_exit_status_is_that_of_grep() {
    let site = site();
    let login = crate::harness::own_login();
    site.exec(
        Way::Direct,
        "echo one needle; sleep 0.2; echo another needle; echo 'hay\"'",
    )
    .ok();
    let row = wait_state(&site.relay, "complete");
    let found = grep(&site, &["needle", "--json"]).ok();
    assert_eq!(found.err(), "");
    let out = found.out();
    let hits: Vec<Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let lines: Vec<_> = hits.iter().map(|hit| &hit["line"]).collect();
    assert!(lines.contains(&&"one needle".into()) && lines.contains(&&"another needle".into()));
    for hit in &hits {
        assert_eq!(
            (
                &hit["recording"],
                &hit["user"],
                &hit["device"],
                &hit["login"]
            ),
            (
                &row["id"],
                &"alice".into(),
                &"kitchen-cam".into(),
                &login.as_str().into()
            )
        );
        assert!(hit["time"].as_f64().unwrap() >= 0.0 && hit["tampered"].is_null());
    }
    let quoted = grep(&site, &["hay\"", "--json"]).ok().out();
    assert!(quoted.contains(r#"hay\""#), "{quoted}");
    for more in [&[][..], &["--json"]] {
        let none = grep(&site, &[&["no such text"], more].concat()).exits(1);
        assert_eq!((none.out(), none.err()), (String::new(), String::new()));
    }
    grep(&site, &["needle", "--kind", "movie"]).exits(2);
    let over_ssh = |line: &str| run(site.alice.console().arg(line));
    over_ssh("recordings grep needle").ok();
    over_ssh("recordings grep nothing").exits(1);
    // By its id, as by its name then.
    let device = site.relay.device("kitchen-cam").unwrap();
    let id = device["id"].as_str().unwrap();
    site.relay
        .admin(&["devices", "rename", "kitchen-cam", "attic-cam"])
        .ok();
    grep(&site, &["needle", "--device", id]).ok();
    grep(&site, &["needle", "--device", "attic-cam"]).exits(1);
    grep(&site, &["needle", "--device", "kitchen-cam"]).ok();
    let unknown = grep(&site, &["needle", "--device", "attic-cqm"]).exits(2);
    unknown.says("no device \"attic-cqm\"");
    let played = site
        .relay
        .admin(&["play", row["id"].as_str().unwrap(), "--from", "10:00"])
        .exits(1);
    played.says("00:00 long: there is nothing from 10:00 on");
}

#[test]
fn a_stored_segment_that_is_gone_is_named() {
    let site = site();
    site.exec(Way::Direct, "echo needle").ok();
    wait_until(SOON, "a recording", || {
        rows(&site.relay)
            .iter()
            .any(|row| row["state"] == "complete")
    });
    let row = wait_state(&site.relay, "complete");
    let id = row["id"].as_str().unwrap();
    site.relay.admin(&["recordings", "verify", id]).ok();
    let stored = site.relay.state().join("recordings").join(id);
    std::fs::remove_file(stored.join("00000000.seg")).unwrap();
    let verified = site.relay.admin(&["recordings", "verify", id]).exits(1);
    assert_eq!(
        (verified.out().as_str(), verified.err().lines().count()),
        ("", 1)
    );
    verified
        .says(&format!(
            "recording {id} cannot be read from where it is stored"
        ))
        .says("a segment of it is gone, restore it from a backup")
        .says("00000000.seg");
    let found = grep(&site, &["needle"]).exits(2);
    assert_eq!(found.out(), "");
    found.says("1 recording could not be read").says(id);
}
