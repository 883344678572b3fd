//! A card that was copied after `join`: two machines with one key.

use serde_json::Value;

use crate::harness::{Device, Relay, SOON, Way, wait_for, wait_until};

/// A device that is online, and a copy of its state folder in another device.
fn original_and_copy(relay: &Relay) -> (Device, Device) {
    let original = Device::online(relay, "cam");
    let copy = Device::new("copy");
    let mut cp = crate::harness::command("cp");
    cp.arg("-R").arg(original.state()).arg(copy.state());
    crate::harness::run(&mut cp).ok();
    (original, copy)
}

fn events(relay: &Relay) -> Vec<Value> {
    let rows = relay.admin(&["audit", "--event", "device.cloned", "--json"]);
    let rows = rows.ok().out();
    rows.lines()
        .map(|row| serde_json::from_str(row).unwrap())
        .collect()
}

#[test]
fn a_clone_is_in_the_log_the_list_doctor_and_refusals() {
    let relay = Relay::start();
    let alice = relay.admin_user();
    let (_original, mut copy) = original_and_copy(&relay);
    assert_eq!(relay.device("cam").unwrap()["cloned"], Value::Null);
    copy.run();
    let row = wait_for(SOON, "the event", || events(&relay).pop());
    assert_eq!(row["addresses"].as_array().unwrap().len(), 2, "{row}");
    assert_eq!(row["on_clone"], "newest");
    let cloned = &relay.device("cam").unwrap()["cloned"];
    assert_eq!(cloned["addresses"], row["addresses"], "{cloned}");
    assert_eq!(cloned["current"], true);
    let table = relay.admin(&["devices"]).ok();
    assert!(table.out().contains(", cloned"), "{table}");
    let doctor = relay.admin(&["doctor"]).exits(1);
    assert!(
        doctor.out().contains("two machines use the key of cam"),
        "{doctor}"
    );
    // They take the tunnel from each other, at a growing pause: one of the tries falls between two changes.
    for way in Way::BOTH {
        let said = wait_for(SOON, "a session", || {
            let output = alice.exec(way, "cam", "echo done");
            output.status.success().then_some(output)
        });
        assert_eq!(said.out(), "done\n");
        said.says("[holdfast] warning: two machines use the key of cam");
    }
    assert_eq!(events(&relay).len(), 1, "it is logged once");
}

#[test]
fn first_machine_keeps_the_tunnel_where_the_relay_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("relay.toml");
    std::fs::write(&config, "on_clone = \"first\"\n").unwrap();
    let relay = Relay::start_with(&["--config", config.to_str().unwrap()]);
    let (mut original, mut copy) = original_and_copy(&relay);
    copy.run();
    let sentence = "another machine, at 127.";
    wait_until(SOON, "the copy's refusal", || copy.log().contains(sentence));
    let status = wait_for(SOON, "the copy's status", || {
        let status = crate::harness::run(&mut copy.command(&["status"]));
        status.out().contains(sentence).then_some(status)
    });
    assert!(status.out().contains("join with a new token"), "{status}");
    let generation = |device: &Device| {
        let status = crate::harness::run(device.command(&["status"]).arg("--json"));
        let status: Value = serde_json::from_str(&status.out()).unwrap();
        status["generation"].as_u64()
    };
    let held = wait_for(SOON, "the original's tunnel", || generation(&original));
    let refusals = copy.log().matches(sentence).count();
    wait_until(SOON, "more refusals", || {
        copy.log().matches(sentence).count() > refusals
    });
    assert_eq!(
        generation(&original),
        Some(held),
        "the tunnel changed hands"
    );
    // When the first machine has gone, the other one is the device: a card that was moved.
    original.stop();
    copy.wait_up();
}

#[test]
fn device_that_restarts_or_is_killed_is_no_clone() {
    let relay = Relay::start();
    let mut device = Device::online(&relay, "cam");
    for _ in 0..4 {
        device.kill();
        device.run_online(&relay);
        device.restart(&relay);
    }
    assert_eq!(events(&relay), Vec::<Value>::new());
    assert_eq!(relay.device("cam").unwrap()["cloned"], Value::Null);
}
