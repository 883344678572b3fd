//! Faults beside the relays of a cluster: of the bucket, a clock, the links between them, the database server.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::clock::{REAL_MONOTONIC, faketime};
use crate::harness::{
    Cluster, Device, Relay, SOON, Terminal, TunnelLink, Way, command, own_login, run, wait_for,
    wait_until,
};

/// The time within which a login says that a relay cannot be reached.
const LOGIN_BOUND: Duration = Duration::from_secs(15);

/// The time within which a session across ends when its relays cannot reach each other.
const SESSION_BOUND: Duration = Duration::from_secs(45);

/// More than the time after which a relay without heartbeats is declared dead.
const MORE_THAN_DEAD: Duration = Duration::from_secs(15);

/// Returns the recordings of one state, as a relay lists them.
#[track_caller]
fn recordings(relay: &Relay, state: &str) -> Vec<Value> {
    let found = relay.json(&["recordings", "--state", state, "--json"]);
    found.as_array().unwrap().clone()
}

#[test]
fn bucket_that_hangs_costs_no_session_and_no_recording() {
    let Some(cluster) = Cluster::start(2) else {
        return;
    };
    let mut device = Device::new("kitchen-cam").flags(&["--upload", "always"]);
    device.join(&cluster.relays[0].token(&[]), &[]).ok();
    device.run_online(&cluster.relays[0]);
    let alice = cluster.relays[0].admin_user();
    cluster.bucket.hang(true);
    for relay in &cluster.relays {
        alice.configure(relay, &["relay"]);
        let began = Instant::now();
        let said = alice.exec(Way::Direct, device.name(), "echo passes");
        assert_eq!(said.ok().out(), "passes\n");
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
        // The listings do not wait for it either.
        assert_eq!(recordings(relay, "complete"), [] as [Value; 0]);
    }
    cluster.bucket.hang(false);
    let relay = &cluster.relays[1];
    let complete = wait_for(2 * SOON, "both recordings are complete", || {
        let complete = recordings(relay, "complete");
        (complete.len() == 2).then_some(complete)
    });
    for row in complete {
        assert_eq!(row["verified"], true, "{row}");
    }
}

#[test]
fn clock_of_one_relay_may_be_an_hour_ahead() {
    let Some(library) = faketime() else {
        return;
    };
    let Some(mut cluster) = Cluster::start(2) else {
        return;
    };
    let ahead = &mut cluster.relays[1];
    ahead.terminate(SOON);
    ahead.set_env("LD_PRELOAD", library.to_str().unwrap());
    ahead.set_env("FAKETIME", "+1h");
    ahead.set_env(REAL_MONOTONIC.0, REAL_MONOTONIC.1);
    ahead.start_again();
    let device = Device::online(&cluster.relays[0], "kitchen-cam");
    let alice = cluster.relays[0].admin_user();
    let offset = wait_for(SOON, "the clock's offset is known", || {
        let members = cluster.members();
        let offset = members[1]["clock_offset"].as_f64().unwrap();
        (offset > 1.0).then_some(offset)
    });
    assert!((3590.0..3610.0).contains(&offset), "{offset}");
    // Neither declares the other dead.
    std::thread::sleep(MORE_THAN_DEAD);
    for relay in &cluster.relays {
        let log = relay.log();
        assert!(!log.contains("declared dead"), "{log}");
    }
    for member in cluster.members() {
        assert_eq!(member["state"], "active", "{member}");
    }
    // A token of ten minutes that the right one makes is good at the other, and sessions pass both ways.
    let late = Device::new("porch-cam");
    let token = cluster.relays[0].token(&["--ttl", "10m"]);
    late.join(&token, &[]).ok();
    for relay in &cluster.relays {
        alice.configure(relay, &["relay"]);
        let said = alice.exec(Way::Direct, device.name(), "echo passes");
        assert_eq!(said.ok().out(), "passes\n");
    }
    // Their times in the audit log are the database's.
    let rows = cluster.relays[0].admin(&["audit", "--json", "--event", "session.start"]);
    let rows = rows.ok().out();
    let rows: Vec<Value> = rows
        .lines()
        .map(|row| serde_json::from_str(row).unwrap())
        .collect();
    assert_eq!(rows.len(), 2, "{rows:?}");
    let mut soon = command("date");
    let soon = run(soon.args(["-u", "-d", "10 minutes", "+%Y-%m-%dT%H:%M:%S"])).ok();
    for row in &rows {
        let time = row["time"].as_str().unwrap();
        assert!(time < soon.out().trim(), "{time}");
    }
    // A lock is in force at both before it is acknowledged.
    let mut terminal =
        Terminal::start(&alice.ssh(Way::Direct, &own_login(), device.name()), 80, 24);
    terminal.send("echo be''fore\r");
    terminal.expect("before");
    cluster.relays[0]
        .admin(&["lock", "user", alice.name()])
        .ok();
    terminal.wait(SOON);
    let refused = alice.exec(Way::Direct, device.name(), "true");
    assert_ne!(refused.code(), 0, "{refused}");
}

#[test]
fn relays_that_are_cut_from_each_other_say_so() {
    let Some(mut cluster) = Cluster::start(2) else {
        return;
    };
    let mut links = Vec::new();
    for relay in &mut cluster.relays {
        relay.terminate(SOON);
        let link = TunnelLink::to(relay.tunnel());
        relay.add_flags(&["--public", &link.address().to_string()]);
        links.push(link);
    }
    for relay in &mut cluster.relays {
        relay.start_again();
    }
    let device = Device::online(&cluster.relays[0], "kitchen-cam");
    let other = Device::online(&cluster.relays[0], "porch-cam");
    let holders = || {
        let rows = cluster.relays[0].json(&["devices", "--json"]);
        let rows = rows.as_array().unwrap().clone();
        let at = |name| {
            let row = rows.iter().find(|row| row["name"] == name);
            row.map(|row| row["relay"].as_str().unwrap_or_default().to_owned())
        };
        (at(device.name()).unwrap(), at(other.name()).unwrap())
    };
    let (at, _) = holders();
    // The operator is at the relay that has not the device.
    let names = cluster.members();
    let holder = names.iter().position(|member| member["name"] == at);
    let holder = holder.unwrap_or_else(|| panic!("{at}: {names:?}"));
    let relay = &cluster.relays[1 - holder];
    let alice = relay.admin_user();
    // The relays' public addresses are not those that ssh is led to here.
    let ssh = || {
        let mut ssh = alice.ssh(Way::Direct, &own_login(), device.name());
        ssh.args(["-o", "StrictHostKeyChecking=no"]);
        ssh
    };
    let start = |relay: &Relay| {
        alice.configure(relay, &["relay"]);
        let mut terminal = Terminal::start(&ssh(), 80, 24);
        terminal.send("echo be''fore\r");
        terminal.expect("before");
        terminal
    };
    let mut local = start(&cluster.relays[holder]);
    let mut across = start(relay);
    for link in &links {
        link.cut(true);
    }
    let cut = Instant::now();
    let refused = run(ssh().arg("true"));
    assert!(cut.elapsed() < LOGIN_BOUND, "{:?}", cut.elapsed());
    assert_ne!(refused.code(), 0, "{refused}");
    refused.says(device.name());
    across.wait(SESSION_BOUND);
    assert!(cut.elapsed() < SESSION_BOUND, "{:?}", cut.elapsed());
    // Sessions at the device's own relay go on, and neither is declared dead.
    local.send("echo af''ter\r");
    local.expect("after");
    for member in cluster.members() {
        assert_eq!(member["state"], "active", "{member}");
    }
    for link in &links {
        link.cut(false);
    }
    wait_until(SOON, "the device is reached again", || {
        run(ssh().arg("true")).status.success()
    });
}

#[test]
fn standby_that_takes_over_has_all_that_was_acknowledged() {
    let Some((mut cluster, links)) = Cluster::start_linked(2) else {
        return;
    };
    let standby = cluster.server.start_standby();
    let device = Device::online(&cluster.relays[0], "kitchen-cam");
    let alice = cluster.relays[0].admin_user();
    alice.configure(&cluster.relays[1], &["relay"]);
    let ssh = alice.ssh(Way::Direct, &own_login(), device.name());
    let mut terminal = Terminal::start(&ssh, 80, 24);
    terminal.send("echo be''fore\r");
    terminal.expect("before");
    // The last write that is acknowledged.
    let bob = cluster.relays[1].user("bob", &["admin"]);
    cluster.server.crash();
    standby.promote();
    for link in &links {
        link.lead_to(standby.get());
    }
    terminal.send("echo af''ter\r");
    terminal.expect("after");
    bob.configure(&cluster.relays[1], &["relay"]);
    wait_until(SOON, "there are logins again", || {
        let said = bob.exec(Way::Direct, device.name(), "echo new");
        said.status.success() && said.out() == "new\n"
    });
    for relay in &cluster.relays {
        let log = relay.log();
        assert!(!log.contains("declared dead"), "{log}");
    }
    cluster.relays[0]
        .admin(&["lock", "user", alice.name()])
        .ok();
    terminal.wait(SOON);
}
