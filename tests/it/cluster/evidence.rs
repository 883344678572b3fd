//! The audit log of all relays, and the proof of a recording whose relay died.

use std::time::Duration;

use serde_json::Value;

use super::across::Across;
use crate::harness::{Cluster, Running, SOON, Way, run, wait_until};

/// The time within which a relay that died is declared dead, and what it left has its verdict, on a loaded machine.
const JUDGED: Duration = Duration::from_secs(80);

/// Returns the ids of rows of the audit log, in the order in which they are printed.
fn ids(rows: &str) -> Vec<i64> {
    let whole = rows.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let row = |row: &str| serde_json::from_str::<Value>(row).unwrap();
    let id = |line: &str| row(line)["id"].as_i64().unwrap();
    whole.lines().map(id).collect()
}

#[test]
fn audit_ids_have_no_gap_and_each_member_follows_all() {
    const EACH: usize = 12;
    let Some(cluster) = Cluster::start(2) else {
        return;
    };
    let users: Vec<_> = cluster
        .relays
        .iter()
        .zip(["alice", "bob"])
        .map(|(relay, name)| relay.user(name, &["admin"]))
        .collect();
    let follow = ["audit", "--follow", "--json", "--limit", "0"];
    let followers: Vec<Running> = cluster
        .relays
        .iter()
        .map(|relay| Running::start(&mut relay.command(&follow)))
        .collect();
    for follower in &followers {
        follower.wait_out("relay.started");
    }
    // Both write at once: logins and console commands at each.
    std::thread::scope(|scope| {
        for user in &users {
            scope.spawn(|| {
                for _ in 0..EACH {
                    run(user.console().arg("whoami")).ok();
                }
            });
        }
    });
    let all = || {
        let args = ["audit", "--json", "--limit", "0", "--event", "user.login"];
        let rows = cluster.relays[0].admin(&args).ok().out();
        let row = |row: &str| serde_json::from_str::<Value>(row).unwrap();
        rows.lines().map(row).collect::<Vec<_>>()
    };
    wait_until(SOON, "all logins are in the log", || {
        all().len() >= 2 * EACH
    });
    for relay in 0..2 {
        let name = cluster.name(relay);
        let logins = all();
        let there = logins.iter().filter(|row| row["relay"] == *name);
        assert_eq!(there.count(), EACH, "{name}");
    }
    let logins = all();
    let last = logins.last().unwrap()["id"].as_i64().unwrap();
    for follower in &followers {
        wait_until(SOON, "the follower has the last of them", || {
            ids(&follower.out()).contains(&last)
        });
        let ids = ids(&follower.out());
        let gapless: Vec<i64> = (1..).take(ids.len()).collect();
        assert_eq!(ids, gapless);
    }
}

#[test]
fn what_passed_before_the_operators_relay_died_is_proved() {
    let Some(mut site) = Across::start() else {
        return;
    };
    let operators = site.operators;
    let mut ssh = site.ssh(Way::Direct);
    ssh.arg("n=100; while [ $n -lt 200 ]; do echo line $n; n=$((n+1)); sleep 0.2; done");
    let session = Running::start(&mut ssh);
    // Some seconds, and fewer than between two notes of a relay that is alone.
    session.wait_out("line 125");
    site.cluster.relays[operators].kill();
    let passed = session.wait(SOON).out().matches("line").count();
    let other = &site.cluster.relays[1 - operators];
    let judged = || {
        let listed = other.json(&["recordings", "--json"]);
        let state = listed[0]["state"].as_str().unwrap().to_owned();
        (state != "recording" && state != "uploading").then_some(listed[0]["id"].clone())
    };
    wait_until(JUDGED, "it has its verdict", || judged().is_some());
    let id = judged().unwrap().as_str().unwrap().to_owned();
    let shown = other.json(&["recordings", "show", &id, "--json"]);
    let streams = shown["verdict"]["streams"].as_array().unwrap();
    let stdout = streams.iter().find(|stream| stream["stream"] == "stdout");
    let proved = stdout.unwrap()["proved"].as_u64().unwrap();
    // Nine bytes a line, and five lines a second; a loaded machine notes late.
    let proved = usize::try_from(proved / 9).unwrap();
    assert!(
        proved + 15 >= passed && proved > 0,
        "{proved} of {passed}: {shown}"
    );
    assert_ne!(shown["state"], "tampered", "{shown}");
}
