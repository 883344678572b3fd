//! Relays that die, that are declared dead, and between which a device moves.

use std::time::Duration;

use rustix::process::Signal;

use crate::harness::{Cluster, Device, SOON, Way, wait_until};

/// The time within which a device of a relay that died is back.
const BACK: Duration = Duration::from_secs(35);
/// The time within which a relay that is silent is declared dead, on a loaded machine.
const DEAD: Duration = Duration::from_secs(40);

#[test]
fn device_of_a_relay_that_died_is_back_at_another() {
    let Some(mut cluster) = Cluster::start(2) else {
        return;
    };
    let first = &cluster.relays[0];
    let alice = first.admin_user();
    let device = Device::online(first, "kitchen-cam");
    let dead = cluster.with_the_device();
    let living = 1 - dead;
    cluster.relays[dead].kill();
    cluster.wait_at(living, BACK);
    alice.configure(&cluster.relays[living], &["relay"]);
    let said = alice.exec(Way::Direct, device.name(), "echo back");
    assert_eq!(said.ok().out(), "back\n");
    let name = cluster.relays[dead].ssh().ip().to_string();
    let is_down = || {
        let members = cluster.relays[living].json(&["cluster", "ls", "--json"]);
        let mut members = members.as_array().unwrap().iter();
        members.any(|member| member["name"] == name && member["state"] == "down")
    };
    wait_until(DEAD, "it is down", is_down);
    // Back again: a new run, and the device stays where it is.
    cluster.relays[dead].start_again();
    cluster.relays[living].wait_state(device.name(), "online", SOON);
}

#[test]
fn relay_that_was_declared_dead_ends_its_run() {
    let Some(mut cluster) = Cluster::start(2) else {
        return;
    };
    let first = &cluster.relays[0];
    first.admin_user();
    let device = Device::online(first, "kitchen-cam");
    let paused = cluster.with_the_device();
    let living = 1 - paused;
    cluster.relays[paused].signal(Signal::STOP);
    let log = || cluster.relays[living].log();
    wait_until(DEAD, "it is declared dead", || {
        log().contains("declared dead")
    });
    cluster.wait_at(living, BACK);
    cluster.relays[paused].signal(Signal::CONT);
    let status = cluster.relays[paused].wait(SOON);
    assert_eq!(status.code(), Some(1));
    let log = cluster.relays[paused].log();
    assert!(log.contains("this run of the relay is over"), "{log}");
    // What it had left takes nothing from its successors.
    cluster.relays[living].wait_state(device.name(), "online", SOON);
    cluster.relays[paused].start_again();
    cluster.relays[living].wait_state(device.name(), "online", SOON);
}

#[test]
fn outage_that_all_relays_see_declares_none_dead() {
    let Some(mut cluster) = Cluster::start(2) else {
        return;
    };
    cluster.server.crash();
    // Longer than a heartbeat may be late.
    std::thread::sleep(Duration::from_secs(15));
    cluster.server.restart();
    for relay in 0..2 {
        let name = cluster.relays[relay].ssh().ip().to_string();
        cluster.wait_state(&name, "active", SOON);
    }
    std::thread::sleep(Duration::from_secs(15));
    for relay in &cluster.relays {
        let log = relay.log();
        assert!(!log.contains("declared dead"), "{log}");
    }
    for member in cluster.members() {
        assert_eq!(member["state"], "active", "{member}");
    }
}
