//! A device that has joined joins again: what the relay says of it is what it hears.

use std::net::UdpSocket;
use std::time::Duration;

use super::*;

/// The time in which an agent that dials in vain gives up on one address and tries all others.
const TRIES_AGAIN: Duration = Duration::from_secs(60);

/// The text that the relay's answer has for a device that it does not take.
const REMEDY: &str = "remove its state folder and join again with a";

#[test]
fn a_revoked_device_that_joins_again_hears_so() {
    let relay = Relay::start();
    let device = Device::joined(&relay, "kitchen-cam");
    let id = relay.device("kitchen-cam").unwrap()["id"].clone();
    let token = relay.token(&[]);
    device.join(&token, &[]).ok();
    relay.admin(&["devices", "revoke", "kitchen-cam"]).ok();
    // No agent runs that could have heard it.
    let known = device.join(&token, &[]).exits(1);
    let wanted = format!(
        "already joined as kitchen-cam (id {}), but this device was revoked: {REMEDY}",
        id.as_str().unwrap()
    );
    assert_eq!(known.out(), "");
    let folder = device.state().display().to_string();
    known.says(&wanted).says(&folder);
    // The token is as it was, for the device that begins anew.
    fs::remove_dir_all(device.state()).unwrap();
    device.join(&token, &[]).ok();
    relay.device("kitchen-cam").unwrap();
}

#[test]
fn a_device_that_the_relay_forgot_hears_so() {
    let mut relay = Relay::start();
    relay.terminate(SOON);
    let backup = fs::read(relay.state().join("relay.db")).unwrap();
    relay.start_again();
    let device = Device::joined(&relay, "kitchen-cam");
    relay.terminate(SOON);
    fs::write(relay.state().join("relay.db"), backup).unwrap();
    relay.start_again();
    let token = relay.token(&[]);
    let forgotten = device.join(&token, &[]).exits(1);
    forgotten
        .says("but the relay does not know this device")
        .says(REMEDY);
    assert_eq!(uses_left(&relay), [1], "the question used nothing");
    assert_eq!(relay.json(&["devices", "--json"]), json!([]));
}

#[test]
fn a_relay_that_does_not_answer_changes_nothing() {
    let mut relay = Relay::start();
    let device = Device::joined(&relay, "kitchen-cam");
    let token = relay.token(&[]);
    relay.terminate(SOON);
    let again = device.join(&token, &[]).ok();
    let said = again.out();
    assert!(
        said.starts_with("already joined as kitchen-cam (id ")
            && said.contains("nothing was changed. The relay could not be asked"),
        "{again}"
    );
}

#[test]
fn device_whose_relays_have_moved_finds_them_by_a_new_token() {
    let mut relay = Relay::start();
    let device = Device::online(&relay, "kitchen-cam");
    let id = relay.device("kitchen-cam").unwrap()["id"].clone();
    let away = Device::joined(&relay, "attic-node");
    relay.terminate(SOON);
    // Nothing answers at the only address that the devices know.
    let _silent = UdpSocket::bind(relay.tunnel()).unwrap();
    relay.leave_tunnel_address();
    relay.start_again();
    let token = relay.token(&[]);
    for device in [&device, &away] {
        let name = device.name();
        let said = device.join(&token, &[]).ok().out();
        assert!(
            said.starts_with(&format!("already joined as {name} (id ")),
            "{said}"
        );
        assert!(
            said.ends_with("): the addresses of its relays were renewed.\n"),
            "{said}"
        );
        let again = device.join(&token, &[]).ok().out();
        assert!(again.ends_with("): nothing was changed.\n"), "{again}");
    }
    // The agent that runs needs no restart, and the other starts as usual.
    relay.wait_state("kitchen-cam", "online", TRIES_AGAIN);
    let mut away = away;
    away.run_online(&relay);
    assert_eq!(relay.device("kitchen-cam").unwrap()["id"], id);
    assert_eq!(uses_left(&relay), [0, 0, 1], "neither used the new token");
    let other = Relay::start();
    let refused = away.join(&other.token(&[]), &[]).exits(1);
    refused.says("this device belongs to another cluster as attic-node");
}
