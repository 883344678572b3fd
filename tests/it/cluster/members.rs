//! Relays that join, are listed, and leave.

use std::time::Duration;

use serde_json::Value;

use crate::harness::{Cluster, Device, Relay, SOON, Way, run};

/// A device notices at its next beat that its relay is gone, and dials another.
const BACK: Duration = Duration::from_secs(35);

#[test]
fn relay_joins_with_a_token_and_shows_the_same_host_key() {
    let Some(mut cluster) = Cluster::start(1) else {
        return;
    };
    let joined = cluster.joined();
    let members = cluster.members();
    assert_eq!(members.len(), 2, "{members:?}");
    assert_eq!(members[0]["state"], "active");
    assert_eq!(members[1]["state"], "down");
    assert_eq!(members[1]["tunnel"], Value::Null);
    cluster.relays.push(joined);
    cluster.relays[1].start_again();

    // What the token's relay adds and removes is so at the other.
    let alice = cluster.relays[0].admin_user();
    let device = Device::online(&cluster.relays[0], "kitchen-cam");
    let fields = [
        "clock_offset",
        "devices",
        "heartbeat_age",
        "name",
        "sessions",
        "ssh",
        "state",
        "tunnel",
        "version",
    ];
    for (relay, member) in cluster.relays.iter().zip(cluster.members()) {
        let member = member.as_object().unwrap();
        let names: Vec<_> = member.keys().map(String::as_str).collect();
        assert_eq!(names, fields);
        assert_eq!(member["name"], relay.ssh().ip().to_string());
        assert_eq!(member["state"], "active");
        assert_eq!(member["tunnel"], relay.tunnel().to_string());
        assert_eq!(member["ssh"], relay.ssh().to_string());
        assert_eq!(member["version"], env!("CARGO_PKG_VERSION"));
        assert!(
            member["heartbeat_age"].as_f64().unwrap() < 10.0,
            "{member:?}"
        );
        assert!(
            member["clock_offset"].as_f64().unwrap().abs() < 1.0,
            "{member:?}"
        );
    }
    let text = cluster.relays[1].admin(&["cluster", "ls"]).ok().out();
    assert_eq!(text.lines().count(), 3, "{text}");
    let known = |relay: &Relay| std::fs::read(relay.state().join("ssh_known_hosts")).unwrap();
    assert_eq!(known(&cluster.relays[0]), known(&cluster.relays[1]));
    alice.configure(&cluster.relays[1], &["relay"]);
    let listed = run(alice.console().arg("devices")).ok();
    assert!(listed.out().contains("kitchen-cam"), "{listed}");

    // A command works on the folder of a relay that does not run.
    cluster.relays[1].terminate(SOON);
    let name = cluster.name(1);
    cluster.wait_state(&name, "down", SOON);
    let listed = cluster.relays[1].admin(&["devices"]).ok().out();
    assert!(listed.contains(device.name()), "{listed}");
}

#[test]
fn tokens_of_relays_and_devices_are_not_interchangeable() {
    let Some(cluster) = Cluster::start(1) else {
        return;
    };
    let first = &cluster.relays[0];
    let id = |rows: Value, number: usize| rows[number]["id"].as_str().unwrap().to_owned();
    let for_device = first.token(&[]);
    let relay = Relay::new(&[]);
    let refused = relay.join_with(&for_device, &cluster.database).exits(1);
    let token = id(first.json(&["token", "ls", "--json"]), 0);
    refused.says(&format!("token {token} lets devices join"));
    let for_relay = first.token(&["--relay"]);
    let device = Device::new("kitchen-cam");
    let token = id(first.json(&["token", "ls", "--json"]), 1);
    let refused = device.join(&for_relay, &[]).exits(1);
    refused.says(&format!("token {token} lets a relay join"));
    // Neither used the other's: both still work, and each once.
    device.join(&for_device, &[]).ok();
    relay.join_with(&for_relay, &cluster.database).ok();
    let other = Relay::new(&[]);
    let refused = other.join_with(&for_relay, &cluster.database).exits(1);
    refused.says("the token is used up");
}

#[test]
fn relay_that_has_to_be_alone_takes_no_other() {
    let relay = Relay::start();
    let refused = relay.admin(&["token", "create", "--relay"]).exits(1);
    refused.says("a cluster needs PostgreSQL");
    let Some(cluster) = Cluster::start(1) else {
        return;
    };
    // A second relay with keys of its own is another cluster's.
    let stranger = Relay::new(&[]);
    let refused = stranger.admin(&["serve", "--database", &cluster.database]);
    refused.exits(1).says("relay cluster join");
    // Where the others keep recordings in a bucket, so does this one.
    let mut joined = cluster.joined();
    joined.clear_flags();
    let refused = run(&mut joined.serve_command()).exits(1);
    refused.says("a cluster needs `store = \"s3\"`");
    // A database of another cluster uses no token.
    let made = cluster
        .server
        .get()
        .psql("CREATE DATABASE other TEMPLATE template0");
    made.unwrap();
    let other = cluster.server.get().url("other");
    let mut elsewhere = Relay::start_with(&["--database", &other]);
    elsewhere.terminate(SOON);
    let token = cluster.relays[0].token(&["--relay"]);
    let late = Relay::new(&["--config", &cluster.bucket.configuration()]);
    let refused = late.join_with(&token, &other).exits(1);
    refused.says("is not the database of the cluster that the token names");
    late.join_with(&token, &cluster.database).ok();
}

#[test]
fn relay_that_left_stops_and_its_devices_come_back_elsewhere() {
    let Some(mut cluster) = Cluster::start(2) else {
        return;
    };
    let first = &cluster.relays[0];
    let alice = first.admin_user();
    let device = Device::online(first, "kitchen-cam");
    let left = cluster.with_the_device();
    let name = cluster.name(left);
    let other = 1 - left;
    let only = cluster.relays[other].admin(&["cluster", "leave", "nowhere"]);
    only.exits(1).says("no relay \"nowhere\" in the cluster");
    let leave = ["cluster", "leave", &name];
    let said = cluster.relays[other].admin(&leave).ok().out();
    assert_eq!(said, format!("{name} has left the cluster\n"));
    let status = cluster.relays[left].wait(SOON);
    assert_eq!(status.code(), Some(1));
    let log = cluster.relays[left].log();
    assert!(
        log.contains(&format!("{name} has left the cluster")),
        "{log}"
    );
    cluster.relays[other].wait_state(device.name(), "online", BACK);
    alice.configure(&cluster.relays[other], &["relay"]);
    let said = alice.exec(Way::Direct, device.name(), "echo here");
    assert_eq!(said.ok().out(), "here\n");
    // It serves no more, and is the only one that does not.
    let refused = run(&mut cluster.relays[left].serve_command()).exits(1);
    refused.says("has left the cluster");
    let members = cluster.relays[other].json(&["cluster", "ls", "--json"]);
    assert_eq!(members[left]["state"], "removed", "{members}");
    let name = members[other]["name"].as_str().unwrap();
    let last = cluster.relays[other].admin(&["cluster", "leave", name]);
    last.exits(1).says("is the only relay of the cluster");
    let audit = ["audit", "--json", "--event", "relay.left"];
    let rows = cluster.relays[other].admin(&audit).ok().out();
    let done = |row: &&str| row.contains("success");
    assert_eq!(rows.lines().filter(done).count(), 1, "{rows}");
}
