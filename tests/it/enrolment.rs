//! Tokens, joining, names, labels, identities, revocation.

mod again;

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use holdfast_protocol::identity::token::Token;
use serde_json::{Value, json};

use crate::harness::{
    Device, Output, Relay, Running, SOON, Terminal, Way, own_login, run, wait_until,
};

/// The file of an agent's membership.
const MEMBERSHIP: &str = "membership";

fn parse(token: &str) -> Token {
    token.parse().unwrap()
}

/// Joins all of them in one moment.
fn join_at_once(devices: &[Device], token: &str) -> Vec<Output> {
    thread::scope(|scope| {
        let joins: Vec<_> = devices
            .iter()
            .map(|device| scope.spawn(|| device.join(token, &[])))
            .collect();
        joins.into_iter().map(|join| join.join().unwrap()).collect()
    })
}

#[track_caller]
fn uses_left(relay: &Relay) -> Vec<Value> {
    let Value::Array(tokens) = relay.json(&["token", "ls", "--json"]) else {
        panic!("`token ls --json` is no list")
    };
    tokens.iter().map(|row| row["uses_left"].clone()).collect()
}

#[test]
fn of_many_joins_on_a_token_exactly_its_uses_win() {
    let relay = Relay::start();
    for (uses, joins) in [(1, 10), (3, 6)] {
        let token = relay.token(&["--uses", &uses.to_string()]);
        let names = (0..joins).map(|n| format!("device-{uses}-{n}"));
        let devices: Vec<_> = names.map(|name| Device::new(&name)).collect();
        let (won, lost): (Vec<_>, Vec<_>) = join_at_once(&devices, &token)
            .into_iter()
            .partition(|output| output.code() == 0);
        assert_eq!(won.len(), uses);
        for refused in lost {
            refused.exits(1).says("token used up: ask for a new one");
        }
        let Value::Array(rows) = relay.json(&["devices", "--json"]) else {
            panic!("no list")
        };
        let prefix = format!("device-{uses}-");
        let named = |row: &&Value| row["name"].as_str().unwrap().starts_with(&prefix);
        assert_eq!(rows.iter().filter(named).count(), uses);
    }
    assert_eq!(uses_left(&relay), [0, 0]);
}

#[test]
fn a_token_expires() {
    let relay = Relay::start();
    let token = relay.token(&["--ttl", "1s", "--uses", "5"]);
    wait_until(SOON, "the token's expiry", || {
        relay.admin(&["token", "ls"]).ok().out().contains("expired")
    });
    let refused = Device::new("late").join(&token, &[]).exits(1);
    let refused = refused.says("token expired ");
    refused.says(" ago: ask for a new one (`relay token create`)");
    assert_eq!(relay.json(&["devices", "--json"]), json!([]));
}

#[test]
fn a_removed_or_foreign_token_is_unknown() {
    let relay = Relay::start();
    let token = relay.token(&[]);
    let row = relay.json(&["token", "ls", "--json"])[0].clone();
    relay
        .admin(&["token", "rm", row["id"].as_str().unwrap()])
        .ok();
    let device = Device::new("kitchen-cam");
    let refused = device.join(&token, &[]).exits(1);
    refused.says("the relay does not know this token: ask for a new one");
    // Half a token is reported before anything is dialled, and without repeating what it holds.
    let half = &token[..token.len() - 10];
    let refused = device.join(half, &[]).exits(2);
    refused.says("the token is damaged or cut off");
}

#[test]
fn a_relay_of_another_cluster_does_not_get_the_secret() {
    let (right, wrong) = (Relay::start(), Relay::start());
    // A secret that the wrong relay would take: if it ever came there, the device would be its member.
    let bait = Token {
        fingerprint: parse(&right.token(&[])).fingerprint,
        ..parse(&wrong.token(&[]))
    };
    let device = Device::new("kitchen-cam");
    let refused = device.join(&bait.expose(), &[]).exits(1);
    let address = wrong.tunnel();
    refused.says(&format!(
        "the relay at {address} is not of the cluster that the token names: no secret was sent"
    ));
    assert_eq!(uses_left(&wrong), [1], "the secret was sent");
    assert_eq!(wrong.json(&["devices", "--json"]), json!([]));
    // The same device, key and all, joins where it belongs.
    device.join(&right.token(&[]), &[]).ok();
}

#[test]
fn an_impostor_at_the_relays_address_is_not_believed() {
    let mut relay = Relay::start();
    let alice = relay.admin_user();
    let device = Device::online(&relay, "kitchen-cam");
    let token = relay.token(&[]);
    relay.terminate(SOON);

    let mut impostor = Relay::start_in_place_of(&relay);
    let refused = Device::new("attic-node").join(&token, &[]).exits(1);
    refused.says("is not of the cluster that the token names");
    // The member dials, learns the stranger's key in the handshake, and goes no further.
    wait_until(SOON, "the device refuses the impostor", || {
        let status = run(&mut device.command(&["status"])).exits(1);
        status
            .out()
            .contains("the relay's key is not on this device's roster")
    });
    assert_eq!(impostor.json(&["devices", "--json"]), json!([]));
    impostor.kill();

    relay.start_again();
    device.wait_online(&relay);
    alice.exec(Way::Direct, device.name(), "true").ok();
}

#[test]
fn a_key_that_the_relay_does_not_know_gets_no_tunnel() {
    let mut relay = Relay::start();
    relay.terminate(SOON);
    let backup = fs::read(relay.state().join("relay.db")).unwrap();
    relay.start_again();
    let mut device = Device::joined(&relay, "kitchen-cam");
    relay.terminate(SOON);
    // The relay comes back from a backup that is older than the device.
    fs::write(relay.state().join("relay.db"), backup).unwrap();
    relay.start_again();
    device.run();
    wait_until(SOON, "the agent says why", || {
        device
            .log()
            .contains("the relay does not know this device: remove its state folder and join again")
    });
    let status = run(&mut device.command(&["status"])).exits(1);
    assert!(
        status.out().contains("does not know this device"),
        "{status}"
    );
    assert_eq!(relay.json(&["devices", "--json"]), json!([]));
    // What the sentence says to do is what helps.
    device.stop();
    fs::remove_dir_all(device.state()).unwrap();
    device.join(&relay.token(&[]), &[]).ok();
    device.run_online(&relay);
}

#[test]
fn a_second_join_changes_nothing() {
    let relay = Relay::start();
    let token = relay.token(&["--uses", "2", "--label", "role=camera"]);
    let device = Device::new("kitchen-cam");
    let first = device.join(&token, &[]).ok().out();
    let before = relay.device("kitchen-cam").unwrap();
    let id = before["id"].as_str().unwrap().to_owned();
    let wanted = format!(
        "joined as kitchen-cam (id {id}), relay {}\n",
        relay.tunnel()
    );
    assert_eq!(first, wanted);
    for args in [&[][..], &["--label", "role=spy"]] {
        let again = device.join(&token, args).ok().out();
        let wanted = format!("already joined as kitchen-cam (id {id}): nothing was changed.");
        assert!(again.starts_with(&wanted), "{again}");
    }
    // A used-up token is as good, and so is one whose relay is asked again because the agent was cut off
    // before it could write down what it is.
    device.join(&relay.token(&[]), &[]).ok();
    fs::remove_file(device.state().join(MEMBERSHIP)).unwrap();
    device.join(&token, &["--label", "role=spy"]).ok();
    assert_eq!(relay.device("kitchen-cam").unwrap(), before);
    assert_eq!(
        uses_left(&relay)
            .iter()
            .filter_map(Value::as_i64)
            .sum::<i64>(),
        2
    );
    // Another cluster's token moves no device by itself.
    let other = Relay::start();
    let refused = device.join(&other.token(&[]), &[]).exits(1);
    refused.says("this device belongs to another cluster as kitchen-cam");
}

#[test]
fn names_are_unique_and_a_clash_says_what_to_do() {
    let relay = Relay::start();
    let first = Device::joined(&relay, "kitchen-cam");
    let id = relay.device(first.name()).unwrap()["id"].clone();
    let token = relay.token(&[]);
    let second = Device::new("kitchen-cam");
    let sentence = format!(
        "name \"kitchen-cam\" is taken by device {}: choose another with --name, or revoke the old one",
        id.as_str().unwrap()
    );
    second.join(&token, &[]).exits(1).says(&sentence);
    assert_eq!(uses_left(&relay), [0, 1], "a refused join uses nothing");
    relay.admin(&["devices", "revoke", "kitchen-cam"]).ok();
    second.join(&token, &[]).ok();
    assert_ne!(relay.device("kitchen-cam").unwrap()["id"], id);
    // Nor does a rename make two of a name.
    let _third = Device::joined(&relay, "attic-node");
    let refused = relay.admin(&["devices", "rename", "attic-node", "kitchen-cam"]);
    refused.exits(1).says("\"kitchen-cam\" is taken");
}

#[test]
fn a_device_without_a_wish_gets_a_name() {
    let relay = Relay::start();
    let device = Device::new("unused");
    let token = relay.token(&[]);
    let joined = run(&mut device.command(&["join", &token])).ok().out();
    let rows = relay.json(&["devices", "--json"]);
    let name = rows[0]["name"].as_str().unwrap();
    assert!(name.starts_with("device-"), "{name}");
    assert!(
        joined.starts_with(&format!("joined as {name} ")),
        "{joined}"
    );
}

#[test]
fn labels_are_fixed_at_the_joining_and_the_tokens_win() {
    let relay = Relay::start();
    let labels = || relay.device("kitchen-cam").unwrap()["labels"].clone();
    let mut device = Device::new("kitchen-cam");
    let token = relay.token(&["--label", "role=camera", "--label", "tier=1"]);
    device
        .join(&token, &["--label", "role=spy", "--label", "site=berlin"])
        .ok();
    let joined = json!({"role": "camera", "site": "berlin", "tier": "1"});
    assert_eq!(labels(), joined);
    // Whatever the device says afterwards, it stays so.
    fs::remove_file(device.state().join(MEMBERSHIP)).unwrap();
    let token = relay.token(&["--label", "role=token"]);
    device.join(&token, &["--label", "site=moscow"]).ok();
    device.run_online(&relay);
    assert_eq!(labels(), joined);
    relay
        .admin(&["devices", "label", "kitchen-cam", "site=hamburg", "tier="])
        .ok();
    let changed = json!({"role": "camera", "site": "hamburg"});
    assert_eq!(labels(), changed);
    device.restart(&relay);
    assert_eq!(labels(), changed);
}

#[test]
fn a_secret_is_nowhere_but_in_its_token() {
    let mut relay = Relay::new(&[]);
    relay.set_env("RUST_LOG", "trace");
    relay.start_again();
    let token = relay.token(&["--uses", "2"]);
    let used = Device::new("kitchen-cam").env("RUST_LOG", "trace");
    let joined = used.join(&token, &[]).ok();
    let refused = Device::new("kitchen-cam").join(&token, &[]).exits(1);
    relay.terminate(SOON);
    let secret = parse(&token).secret.0;
    let (_, payload) = token.rsplit_once('.').unwrap();
    let mut places = vec![
        ("join's output", joined.stdout),
        ("its errors", joined.stderr),
    ];
    places.push(("a refusal", refused.stderr));
    let log = relay.log();
    assert!(log.contains("TRACE"), "nothing was traced");
    places.push(("the relay's log", log.into_bytes()));
    let holds = |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
    for folder in [relay.state(), used.state()] {
        for entry in fs::read_dir(folder).unwrap() {
            let bytes = fs::read(entry.unwrap().path()).unwrap_or_default();
            places.push(("a state folder", bytes));
        }
    }
    for (place, bytes) in places {
        let found = holds(&bytes, &secret) || holds(&bytes, &payload.as_bytes()[43..]);
        assert!(!found, "the secret is in {place}");
    }
}

#[test]
fn revoking_a_device_can_end_the_rest_of_its_token() {
    let relay = Relay::start();
    let token = relay.token(&["--uses", "5"]);
    let id = relay.json(&["token", "ls", "--json"])[0]["id"].clone();
    let id = id.as_str().unwrap();
    for name in ["kitchen-cam", "hall-cam"] {
        Device::new(name).join(&token, &[]).ok();
    }
    assert_eq!(relay.device("hall-cam").unwrap()["enrolled_with"], id);
    let revoked = relay.admin(&["devices", "revoke", "kitchen-cam"]).ok();
    assert!(
        revoked.out().contains(&format!(
            "it enrolled with token {id}, with which 3 more may join"
        )) && revoked.out().contains(&format!("`relay token rm {id}`")),
        "{revoked}"
    );
    let revoked = relay.json(&["devices", "revoke", "hall-cam", "--token", "--json"]);
    assert_eq!(revoked["leftover_token"]["removed"], true, "{revoked}");
    let row = relay.admin(&["audit", "--json", "--event", "device.revoked"]);
    assert!(row.ok().out().contains(&format!("\"token\":\"{id}\"")));
    // Who still has the token cannot come back under another key.
    let refused = Device::new("spare").join(&token, &[]).exits(1);
    refused.says("the relay does not know this token");
    // One that was for a single use is no matter of concern.
    Device::new("door-cam").join(&relay.token(&[]), &[]).ok();
    let revoked = relay.admin(&["devices", "revoke", "door-cam"]).ok();
    assert!(!revoked.out().contains("token"), "{revoked}");
}

#[test]
fn a_revoked_device_is_cut_off_within_a_second() {
    let relay = Relay::start();
    let alice = relay.admin_user();
    let mut device = Device::online(&relay, "kitchen-cam");
    let mut sessions: Vec<_> = Way::BOTH
        .into_iter()
        .map(|way| {
            let mut ssh = alice.ssh(way, &own_login(), device.name());
            let session = Running::start(ssh.arg("echo started; cat"));
            session.wait_out("started");
            session
        })
        .collect();
    let mut terminal =
        Terminal::start(&alice.ssh(Way::Direct, &own_login(), "kitchen-cam"), 80, 24);
    terminal.send("echo in$((40 + 2))\r");
    terminal.expect("in42");

    let revoked = relay.admin(&["devices", "revoke", "kitchen-cam"]).ok();
    let began = Instant::now();
    assert!(
        revoked.out().contains("revoked: its key is refused"),
        "{revoked}"
    );
    wait_until(SOON, "the sessions' end", || {
        sessions.iter_mut().all(|session| !session.is_alive())
    });
    let took = began.elapsed();
    assert!(
        took < Duration::from_millis(1_500),
        "cut off after {took:?}"
    );
    for session in sessions {
        let ended = session.wait(SOON).exits(255);
        ended.says("[holdfast] closed: the device was revoked");
    }
    terminal.expect("[holdfast] closed: the device was revoked");
    assert_eq!(terminal.wait(SOON).code(), Some(255));

    for way in Way::BOTH {
        let refused = alice.exec(way, "kitchen-cam", "true").exits(255);
        refused.says("kitchen-cam was revoked on ");
    }
    assert_eq!(relay.json(&["devices", "--json"]), json!([]));
    wait_until(SOON, "the device knows", || {
        // The tunnel's end says so too, and only the relay's answer at the next attempt is kept as a refusal.
        device
            .log()
            .contains("this device was revoked: remove its state folder")
    });
    // For ever: neither a restart nor a new token lets the key in again.
    let known = device.join(&relay.token(&[]), &[]).exits(1);
    known.says("already joined as kitchen-cam").says(
        "but this device was revoked: remove its state folder and join again with a new token",
    );
    device.stop();
    fs::remove_file(device.state().join(MEMBERSHIP)).unwrap();
    let refused = device.join(&relay.token(&[]), &[]).exits(1);
    refused
        .says("this device was revoked: remove its state folder and join again with a new token");
    fs::remove_dir_all(device.state()).unwrap();
    device.join(&relay.token(&[]), &[]).ok();
    device.run_online(&relay);
    alice.exec(Way::Direct, "kitchen-cam", "true").ok();
}
