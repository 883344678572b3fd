//! The relays of a cluster in listings and in the audit log.

use std::time::Duration;

use serde_json::Value;

use crate::harness::{Cluster, Device, Relay, SOON, Terminal, Way, own_login, wait_until};

/// The time within which a relay that is silent is declared dead, on a loaded machine.
const DEAD: Duration = Duration::from_secs(40);

/// Returns the rows of the audit log with one event.
#[track_caller]
fn rows(relay: &Relay, event: &str) -> Vec<Value> {
    let args = ["audit", "--json", "--limit", "0", "--event", event];
    let lines = relay.admin(&args).ok().out();
    let row = |line: &str| serde_json::from_str(line).unwrap();
    lines.lines().map(row).collect()
}

/// Returns the heads of the plain listings.
#[track_caller]
fn heads(relay: &Relay) -> Vec<String> {
    let listings = [
        ["devices"].as_slice(),
        &["devices", "ls", "--all"],
        &["sessions"],
        &["recordings"],
        &["audit"],
    ];
    let head = |listing: &&[&str]| {
        let text = relay.admin(listing).ok().out();
        text.lines().next().unwrap().to_owned()
    };
    listings.iter().map(head).collect()
}

#[test]
fn every_listing_names_the_relay_where_there_are_several() {
    let Some(cluster) = Cluster::start(2) else {
        return;
    };
    let device = Device::online(&cluster.relays[0], "kitchen-cam");
    let with_device = cluster.with_the_device();
    let operators = 1 - with_device;
    let (of_device, of_operator) = (cluster.name(with_device), cluster.name(operators));
    let alice = cluster.relays[operators].admin_user();
    let ssh = alice.ssh(Way::Direct, &own_login(), device.name());
    let mut terminal = Terminal::start(&ssh, 80, 24);
    terminal.send("echo be''fore\r");
    terminal.expect("before");
    // All relays say the same, whichever has the operator.
    for relay in &cluster.relays {
        wait_until(SOON, "the session is listed", || {
            relay
                .json(&["sessions", "--json"])
                .as_array()
                .unwrap()
                .len()
                == 1
        });
        for (listing, name) in [
            ("devices", &of_device),
            ("sessions", &of_operator),
            ("recordings", &of_operator),
        ] {
            let listed = relay.json(&[listing, "--json"]);
            assert_eq!(listed[0]["relay"], **name, "{listing}: {listed}");
            let text = relay.admin(&[listing]).ok().out();
            assert!(text.lines().nth(1).unwrap().contains(&**name), "{text}");
        }
        let started = rows(relay, "session.start");
        assert_eq!(started[0]["relay"], *of_operator, "{started:?}");
        let text = relay
            .admin(&["audit", "--event", "session.start"])
            .ok()
            .out();
        assert!(text.contains(&of_operator), "{text}");
        let connected = rows(relay, "device.online");
        assert_eq!(connected[0]["relay"], *of_device, "{connected:?}");
        for head in heads(relay) {
            assert!(head.contains("RELAY"), "{head}");
        }
    }
    terminal.send("exit\r");
    terminal.wait(SOON);
    // A relay that is alone is not named.
    cluster.relays[operators]
        .admin(&["cluster", "leave", &of_device])
        .ok();
    for head in heads(&cluster.relays[operators]) {
        assert!(!head.contains("RELAY"), "{head}");
    }
}

#[test]
fn audit_log_names_relays_that_start_stop_and_die() {
    let Some(mut cluster) = Cluster::start(3) else {
        return;
    };
    let names: Vec<String> = (0..3).map(|relay| cluster.name(relay)).collect();
    let named = |rows: &[Value], field: &str| -> Vec<String> {
        let name = |row: &Value| row[field].as_str().unwrap().to_owned();
        rows.iter().map(name).collect()
    };
    assert_eq!(
        named(&rows(&cluster.relays[0], "relay.started"), "relay"),
        names
    );
    cluster.relays[1].terminate(SOON);
    let stopped = rows(&cluster.relays[0], "relay.stopped");
    assert_eq!(named(&stopped, "relay"), names[1..2]);
    cluster.relays[1].start_again();
    assert_eq!(rows(&cluster.relays[0], "relay.died"), Vec::<Value>::new());
    // Both that are left see that its heartbeats have ceased, and one of them says so.
    cluster.relays[2].kill();
    wait_until(DEAD, "it is declared dead", || {
        !rows(&cluster.relays[0], "relay.died").is_empty()
    });
    let died = rows(&cluster.relays[0], "relay.died");
    assert_eq!(named(&died, "member"), names[2..]);
    assert!(names[..2].contains(&named(&died, "relay")[0]), "{died:?}");
    assert!(died[0]["last_heartbeat"].is_string(), "{died:?}");
    cluster.relays[2].start_again();
    cluster.relays[2].terminate(SOON);
    assert_eq!(rows(&cluster.relays[0], "relay.died").len(), 1);
}

#[test]
fn relay_that_left_is_listed_on_request_and_may_leave_again() {
    let Some(cluster) = Cluster::start(2) else {
        return;
    };
    let (first, name) = (&cluster.relays[0], cluster.name(1));
    let leave = ["cluster", "leave", &name];
    first.admin(&leave).ok();
    let again = first.admin(&leave).ok().out();
    assert_eq!(again, format!("{name} has left the cluster already\n"));
    assert_eq!(rows(first, "relay.left").len(), 1);
    let listed = first.admin(&["cluster", "ls"]).ok().out();
    assert!(!listed.contains(&name), "{listed}");
    assert!(listed.lines().all(|line| line.len() <= 80), "{listed}");
    let all = first.admin(&["cluster", "ls", "--all"]).ok().out();
    assert!(all.contains(&format!("{name}  removed")), "{all}");
}
