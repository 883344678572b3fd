//! Operators who do not get what they asked for read why.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use sqlx::{Connection as _, SqliteConnection};

use crate::harness::{
    Device, KeyKind, Relay, Running, SOON, Site, User, Way, block_on, own_login, run, wait_until,
};

#[test]
fn an_unknown_device_is_named() {
    let site = Site::new();
    for way in Way::BOTH {
        let refused = site.alice.exec(way, "kitchen-cqm", "true").exits(255);
        refused.says("no device \"kitchen-cqm\" that you may reach");
        assert!(site.exec(way, "true").ok().err().is_empty());
    }
    // What cannot be a name is the name of no device.
    let mut ssh = site.alice.tool("ssh");
    let refused = run(ssh.args(["-l", "root+kitchen+cam", "relay", "true"])).exits(255);
    refused.says("no device \"kitchen+cam\" that you may reach");
}

#[test]
fn an_offline_device_says_since_when() {
    let mut site = Site::new();
    let _never = Device::joined(&site.relay, "attic-node");
    site.device.stop();
    site.relay.wait_state("kitchen-cam", "offline", SOON);
    let row = site.relay.device("kitchen-cam").unwrap();
    // `2026-11-22T05:06:07.5Z` is shown as `2026-11-22 05:06 UTC`.
    let since = row["offline_since"].as_str().unwrap()[..16].replace('T', " ");
    let ssh = site.relay.ssh();
    let wait = format!("ssh -p {} {} wait kitchen-cam", ssh.port(), ssh.ip());
    for way in Way::BOTH {
        let refused = site.exec(way, "true").exits(255);
        let refused = refused.says(&format!("kitchen-cam is offline since {since} UTC ("));
        refused.says(&format!(" ago). `{wait}` waits for it."));
        let refused = site.alice.exec(way, "attic-node", "true").exits(255);
        refused.says("attic-node has not been online yet: is `edge-agent run` running there?");
    }
    site.device.run_online(&site.relay);
    site.exec(Way::Direct, "true").ok();
}

#[test]
fn who_waits_for_a_device_learns_when_it_is_there() {
    let mut site = Site::new();
    let there = site.relay.admin(&["wait", "kitchen-cam"]).ok();
    assert_eq!(there.out(), "kitchen-cam is online\n");
    site.device.stop();
    site.relay.wait_state("kitchen-cam", "offline", SOON);
    // As the refusal has it: by address and port.
    let mut console = site.alice.tool("ssh");
    let ssh = site.relay.ssh();
    console.args(["-p", &ssh.port().to_string(), &ssh.ip().to_string()]);
    let mut console = Running::start(console.args(["wait", "kitchen-cam"]));
    let mut local = Running::start(&mut site.relay.command(&["wait", "kitchen-cam"]));
    let late = site
        .relay
        .admin(&["wait", "kitchen-cam", "--timeout", "2s"])
        .exits(1);
    let late = late.says("kitchen-cam is still offline after 2s (last seen ");
    assert!(late.took >= Duration::from_secs(2), "{late}");
    assert!(console.is_alive() && local.is_alive());

    site.device.run_online(&site.relay);
    for waiting in [console, local] {
        let output = waiting.wait(SOON).ok();
        assert_eq!(output.out(), "kitchen-cam is online\n");
    }
    site.exec(Way::Direct, "true").ok();
    let bob = site.relay.user("bob", &[]);
    run(bob.console().args(["wait", "kitchen-cam"]))
        .exits(1)
        .says("it needs a role");
    let unknown = run(site.alice.console().args(["wait", "kitchen-cqm"])).exits(1);
    unknown.says("no device \"kitchen-cqm\": see `devices`");
}

#[test]
fn a_store_that_does_not_answer_is_asked_once() {
    let site = Site::new();
    site.exec(Way::Direct, "true").ok();
    let url = format!("sqlite:{}", site.relay.state().join("relay.db").display());
    block_on(async {
        let mut store = SqliteConnection::connect(&url).await.unwrap();
        let broken = "ALTER TABLE devices RENAME TO gone";
        sqlx::query(broken).execute(&mut store).await.unwrap();
        store.close().await.unwrap();
    });
    let asked = || {
        let log = site.relay.log();
        log.matches("cannot look up what a decision needs").count()
    };
    let before = asked();
    let refused = site.exec(Way::Direct, "true").exits(255);
    refused.says("the relay's store does not answer: try again in a minute");
    assert_eq!(asked(), before + 1);
}

#[test]
fn a_session_whose_device_lost_power_ends_when_it_is_back() {
    let mut site = Site::new();
    let sessions = Way::BOTH.map(|way| {
        let session = site.start(way, "echo started; cat");
        session.wait_out("started");
        session
    });
    site.device.kill();
    // Its newer tunnel closes the one that was not ended.
    site.device.run();
    for session in sessions {
        let ended = session.wait(SOON).exits(255);
        ended.says("[holdfast] closed: the tunnel to kitchen-cam was lost");
    }
    site.exec(Way::Direct, "true").ok();
}

#[test]
fn a_device_that_does_not_answer_is_not_waited_for_for_ever() {
    let mut site = Site::new();
    // As good as without power: its tunnel is there, and the device is not.
    site.device.signal(Signal::STOP);
    let marks = tempfile::tempdir().unwrap();
    let mark = marks.path().join("began");
    let line = format!("touch {}", mark.display());
    let sessions = Way::BOTH.map(|way| site.start(way, &line));
    for session in sessions {
        let refused = session.wait(SOON * 2).exits(255);
        let refused = refused.says("kitchen-cam does not answer (silent for ");
        refused.says(" s): try again when it is back");
    }
    // The requests and their withdrawals wait side by side for a device that slept.
    site.device.signal(Signal::CONT);
    site.exec(Way::Direct, "sleep 1").ok();
    assert!(!mark.exists(), "what was given up began all the same");
    site.device.stop();
}

#[test]
fn a_terminal_shows_that_its_device_has_fallen_silent() {
    // An idle device is silent for longer than a session's silence limit.
    let site = Site::with(Device::new("kitchen-cam").flags(&["--keepalive", "60s"]));
    let seen = || {
        let row = site.relay.device("kitchen-cam").unwrap();
        row["last_seen"].as_str().unwrap().to_owned()
    };
    let (mut last, mut since) = (seen(), Instant::now());
    wait_until(
        SOON * 2,
        "a device that is quiet for longer than the notice takes",
        || {
            std::thread::sleep(Duration::from_millis(500));
            let now = seen();
            if now != last {
                (last, since) = (now, Instant::now());
            }
            since.elapsed() > Duration::from_secs(14)
        },
    );

    let mut shell = site.shell(Way::Direct);
    shell.send("sleep 2; echo here-$((6*7))\n");
    let beginning = shell.expect("here-42");
    assert!(!beginning.contains("[holdfast]"), "{beginning}");

    site.device.signal(Signal::STOP);
    shell.expect("[holdfast] kitchen-cam is not answering (1");
    shell.expect(" s). Waiting; ~. gives up.");
    site.device.signal(Signal::CONT);
    shell.expect("[holdfast] kitchen-cam is back");
    shell.send("exit 3\n");
    assert_eq!(shell.wait(SOON).code(), Some(3));
    assert_eq!(shell.shown().matches("[holdfast]").count(), 2);
}

#[test]
fn an_unknown_login_is_named() {
    let site = Site::new();
    for way in Way::BOTH {
        let mut ssh = site.alice.ssh(way, "no-such-account", "kitchen-cam");
        let refused = run(ssh.arg("true")).exits(255);
        let text = refused.err();
        assert!(
            text.contains("kitchen-cam runs no account \"no-such-account\"")
                || text.contains("it serves account"),
            "{refused}"
        );
    }
    let mut ssh = site.alice.tool("ssh");
    let refused = run(ssh.args(["-l", "ro ot+kitchen-cam", "relay", "true"])).exits(255);
    refused.says("\"ro ot+kitchen-cam\" is not of the form LOGIN+DEVICE: a login may hold");
}

#[test]
fn a_user_without_a_role_may_do_nothing() {
    let site = Site::new();
    let bob = site.relay.user("bob", &[]);
    for way in Way::BOTH {
        // Whether there is such a device is not said.
        for device in ["kitchen-cam", "kitchen-cqm"] {
            let refused = bob.exec(way, device, "echo inside").exits(255);
            let sentence =
                "user \"bob\" has no role yet, so nothing is allowed: ask an admin for one";
            assert_eq!(refused.says(sentence).out(), "", "{way:?}");
        }
    }
    // A role counts at once, for the user who asked in vain a moment ago.
    let key = bob.key().with_extension("pub");
    let add = [
        "user",
        "add",
        "bob",
        "--role",
        "admin",
        "--key",
        key.to_str().unwrap(),
    ];
    site.relay.admin(&add).ok();
    bob.exec(Way::Direct, "kitchen-cam", "true").ok();
}

#[test]
fn a_stranger_gets_no_further_than_the_key() {
    let site = Site::new();
    let mallory = User::stranger(&site.relay, "mallory", KeyKind::Ed25519);
    for way in Way::BOTH {
        let refused = mallory.exec(way, "kitchen-cam", "true").exits(255);
        refused.says("Permission denied (publickey)");
    }
    // Whatever name is typed: it is the key that says who the user is.
    let mut ssh = mallory.tool("ssh");
    run(ssh.args(["-l", "alice", "relay", "whoami"])).exits(255);
    let mut ssh = site.alice.tool("ssh");
    let output = run(ssh.args(["-l", "mallory", "relay", "whoami"])).ok();
    assert!(
        output.out().contains("alice") && !output.out().contains("mallory"),
        "{output}"
    );
}

#[test]
fn every_kind_of_key_opens_a_session() {
    let relay = Relay::start();
    let device = Device::online(&relay, "kitchen-cam");
    let kinds = [
        KeyKind::Ed25519,
        KeyKind::Ecdsa256,
        KeyKind::Ecdsa384,
        KeyKind::Ecdsa521,
        KeyKind::Rsa3072,
    ];
    for (n, kind) in kinds.into_iter().enumerate() {
        let user = relay.user_with(&format!("user-{n}"), kind, &["admin"]);
        for way in Way::BOTH {
            let output = user.exec(way, device.name(), "echo hello").ok();
            assert_eq!(output.out(), "hello\n", "{kind:?} {way:?}");
        }
        assert!(relay.log().contains(&format!("login user={}", user.name())));
    }
}

#[test]
fn a_removed_user_is_out_within_a_second() {
    let site = Site::new();
    for (n, way) in Way::BOTH.into_iter().enumerate() {
        let name = format!("bob-{n}");
        let bob = site.relay.user(&name, &["admin"]);
        let mut ssh = bob.ssh(way, &own_login(), "kitchen-cam");
        let mut session = Running::start(ssh.arg("echo started; cat"));
        session.wait_out("started");
        let mut other = site.start(way, "echo started; cat");
        other.wait_out("started");
        // The command itself waits for the relays: it is part of the second.
        let began = Instant::now();
        site.relay.admin(&["user", "rm", &name]).ok();
        wait_until(SOON, "the session's end", || !session.is_alive());
        let took = began.elapsed();
        assert!(
            took < Duration::from_millis(1_500),
            "{way:?}: cut off after {took:?}"
        );
        let ended = session.wait(SOON).exits(255);
        ended.says("your access to this relay was changed");
        bob.exec(way, "kitchen-cam", "true")
            .exits(255)
            .says("Permission denied (publickey)");
        // No other session notices.
        other.write("still here\n");
        other.wait_out("still here");
        other.end_input();
        other.wait(SOON).ok();
    }
}

#[test]
fn a_removed_key_is_out_and_the_other_stays() {
    let site = Site::new();
    let (bob, spare) = (
        site.relay.user("bob", &["admin"]),
        User::stranger(&site.relay, "spare", KeyKind::Ecdsa256),
    );
    let key = spare.key().with_extension("pub");
    site.relay
        .admin(&["user", "key", "add", "bob", "--key", key.to_str().unwrap()])
        .ok();
    let session = |user: &User| {
        let session = Running::start(
            user.ssh(Way::Direct, &own_login(), "kitchen-cam")
                .arg("echo started; cat"),
        );
        session.wait_out("started");
        session
    };
    let (mut kept, lost) = (session(&bob), session(&spare));
    let row = site.relay.json(&["user", "show", "bob", "--json"]);
    let fingerprint = row["keys"].as_array().unwrap().iter().find_map(|key| {
        let is_spare = key["public_key"].as_str()?.starts_with("ecdsa");
        is_spare.then(|| key["fingerprint"].as_str().unwrap().to_owned())
    });
    site.relay
        .admin(&["user", "key", "rm", "bob", &fingerprint.unwrap()])
        .ok();
    lost.wait(SOON)
        .exits(255)
        .says("your access to this relay was changed");
    kept.write("still here\n");
    kept.wait_out("still here");
    spare.exec(Way::Direct, "kitchen-cam", "true").exits(255);
    bob.exec(Way::Direct, "kitchen-cam", "true").ok();
}
