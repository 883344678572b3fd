//! Console commands that stream: they are listed, and end as sessions do when their right, their time or their user
//! does.

use std::time::Duration;

use serde_json::Value;

use super::{apply, audited};
use crate::harness::{
    Relay, Running, SOON, Session, Site, SshClient, Terminal, User, Way, block_on, own_login,
    wait_for, wait_until,
};

const CHANGED: &str = "[holdfast] closed: your access to this relay was changed";

/// Puts roles into force by their abilities over the fleet.
#[track_caller]
fn roles(relay: &Relay, roles: &[(&str, &str)]) {
    let role = |(name, abilities): &(&str, &str)| {
        format!("[roles.{name}]\n[roles.{name}.allow]\nabilities = [{abilities}]\n")
    };
    apply(relay, &roles.iter().map(role).collect::<String>());
}

#[track_caller]
fn console(user: &User, line: &str) -> Running {
    Running::start(user.console().arg(line))
}

#[track_caller]
fn following(user: &User) -> Running {
    let following = console(user, "audit --follow");
    following.wait_out("audit.read");
    following
}

fn streams(relay: &Relay) -> Vec<Value> {
    let rows = relay.json(&["sessions", "--json"]);
    let rows = rows.as_array().unwrap().clone();
    rows.into_iter()
        .filter(|row| row["kind"] == "console")
        .collect()
}

/// Makes a recording of this user that takes a while to play, and gives its id.
#[track_caller]
fn recorded(site: &Site, user: &User) -> String {
    user.exec(Way::Direct, "kitchen-cam", "echo one; sleep 1; echo two")
        .ok();
    wait_for(SOON, "the recording", || {
        let rows = site
            .relay
            .json(&["recordings", "--json", "--user", user.name()]);
        let row = rows.as_array()?.first()?.clone();
        (row["state"] == "complete").then(|| row["id"].as_str().unwrap().to_owned())
    })
}

#[test]
fn a_follower_ends_when_the_right_is_taken() {
    let site = Site::new();
    let relay = &site.relay;
    roles(relay, &[("watcher", "'review'"), ("other", "'review-own'")]);
    let bob = relay.user("bob", &["watcher", "other"]);
    let follower = following(&bob);
    relay.admin(&["user", "role", "rm", "bob", "watcher"]).ok();
    // In force: what happens from now on is not shown.
    let _mallory = relay.user("mallory", &["other"]);
    let ended = follower.wait(SOON).exits(255).says(CHANGED);
    assert!(!ended.out().contains("mallory"), "{ended}");
    let rows = audited(relay, "client.disconnect", "bob");
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0]["reason"], "access-changed");
    assert_eq!(rows[0]["command"], "audit --follow");
}

#[test]
fn what_is_played_needs_the_right_to_that_recording() {
    let site = Site::new();
    let relay = &site.relay;
    let bob = relay.user("bob", &["operator"]);
    let (own, other) = (recorded(&site, &bob), recorded(&site, &site.alice));
    roles(relay, &[("watcher", "'review'")]);
    relay.admin(&["user", "role", "add", "bob", "watcher"]).ok();
    let play = |id: &str| {
        let play = console(&bob, &format!("play {id} --speed 0.02"));
        play.wait_out("one");
        play
    };
    let (mut own, other) = (play(&own), play(&other));
    relay.admin(&["user", "role", "rm", "bob", "watcher"]).ok();
    // Their own they may see by `review-own`, which they still have.
    let _ = other.wait(SOON).exits(255).says(CHANGED);
    assert!(own.is_alive());
    relay.admin(&["user", "disable", "bob"]).ok();
    let _ = own.wait(SOON).exits(255);
}

#[test]
fn a_stream_is_listed_and_killed() {
    let site = Site::new();
    let relay = &site.relay;
    roles(relay, &[("watcher", "'review'")]);
    let bob = relay.user("bob", &["watcher"]);
    let follower = following(&bob);
    let row = wait_for(SOON, "the stream in the list", || streams(relay).pop());
    assert_eq!(row["user"], "bob");
    assert_eq!(row["command"], "audit --follow");
    assert_eq!(row["device"], Value::Null);
    let table = relay.admin(&["sessions"]).ok().out();
    assert!(table.contains("console"), "{table}");
    let id = row["id"].as_str().unwrap();
    relay
        .admin(&["sessions", "kill", id, "--message", "enough"])
        .ok();
    let _ = follower
        .wait(SOON)
        .exits(255)
        .says("[holdfast] closed: ended by");
    wait_until(SOON, "an empty list", || streams(relay).is_empty());
}

#[test]
fn a_lock_on_its_user_ends_a_stream() {
    let site = Site::new();
    let relay = &site.relay;
    roles(relay, &[("watcher", "'review'")]);
    let bob = relay.user("bob", &["watcher"]);
    let follower = following(&bob);
    relay
        .admin(&["lock", "role", "watcher", "--message", "leaked"])
        .ok();
    let _ = follower.wait(SOON).exits(255).says("leaked");
}

#[test]
fn a_follower_that_shows_nothing_is_idle_at_a_terminal_too() {
    const CLOSED: &str = "[holdfast] closed: idle for 3 seconds (role watcher)";
    let site = Site::new();
    let relay = &site.relay;
    let role = "[roles.watcher]\nidle_timeout = \"3s\"\nallow = { abilities = ['review'] }\n";
    apply(relay, role);
    let bob = relay.user("bob", &["watcher"]);
    let follower = following(&bob);
    let mut console = bob.console();
    let mut terminal = Terminal::start(console.args(["-tt", "audit --follow"]), 80, 24);
    let ended = follower.wait(SOON).exits(255).says(CLOSED);
    let _ = ended.says("this session closes in 1.5 s.");
    terminal.expect(CLOSED);
    assert_eq!(terminal.wait(SOON).code(), Some(255));
}

#[test]
fn what_a_killed_run_has_begun_on_devices_ends_with_it() {
    let site = Site::new();
    let bob = site.relay.user("bob", &["operator"]);
    let note = site.device.folder().join("note");
    let line = format!(
        "trap 'echo x >{}; exit' HUP; echo up; sleep 600 & wait",
        note.display()
    );
    let mut exec = bob.console();
    exec.args(["exec", "--on", "'*'", "--login", &own_login(), "--"]);
    let run = Running::start(exec.arg(&line));
    run.wait_out("kitchen-cam: up");
    let row = wait_for(SOON, "the run in the list", || streams(&site.relay).pop());
    let id = row["id"].as_str().unwrap();
    site.relay.admin(&["sessions", "kill", id]).ok();
    let _ = run.wait(SOON).exits(255);
    wait_until(Duration::from_secs(4), "its end on the device", || {
        note.exists()
    });
}

/// A document that adds one role.
fn one_role(name: &str) -> String {
    format!("[roles.{name}]\n[roles.{name}.allow]\nabilities = ['review']\n")
}

/// Starts `apply` and waits until the relay has the line. Its input has not ended then.
#[track_caller]
fn applying(relay: &Relay, user: &User, input: &str) -> Running {
    let mut applying = console(user, "apply -f -");
    applying.write(input);
    wait_until(SOON, "the command", || relay.log().contains("apply -f -"));
    applying
}

#[test]
fn a_right_that_is_taken_while_input_comes_is_gone() {
    let site = Site::new();
    let relay = &site.relay;
    let bob = relay.user("bob", &["admin"]);
    let mut late = applying(relay, &bob, &one_role("late"));
    relay.admin(&["user", "role", "rm", "bob", "admin"]).ok();
    late.end_input();
    let refused = late.wait(SOON).exits(1);
    let roles = relay.admin(&["get", "roles"]).ok().out();
    assert!(!roles.contains("late"), "{roles}");
    refused.says("it needs the ability admin");
}

#[test]
fn input_that_is_cut_off_is_no_input() {
    let site = Site::new();
    let relay = &site.relay;
    let bob = relay.user("bob", &["admin"]);
    block_on(async {
        let client = SshClient::console(relay, &bob).await;
        let cut = client.exec("apply -f -").await;
        cut.send(&one_role("half")).await;
        cut.close().await;
        // What was sent before is with the relay once it answers to this.
        let ended = client.exec("whoami").await.wait().await;
        assert_eq!(ended.status, Some(0), "{ended:?}");
    });
    let said = "the client went away before the end of its input";
    wait_until(SOON, "the relay's word", || {
        let roles = relay.admin(&["get", "roles"]).ok().out();
        assert!(!roles.contains("half"), "{roles}");
        relay.log().contains(said)
    });
}

#[test]
fn a_console_channel_from_before_a_lock_runs_nothing() {
    let site = Site::new();
    let relay = &site.relay;
    let bob = relay.user("bob", &["admin"]);
    block_on(async {
        let client = SshClient::console(relay, &bob).await;
        let early = client.try_open().await.unwrap();
        // The connection stays for a moment, because a command of it hears its end.
        let mut following = client.exec("audit --follow").await;
        following.wait_out("audit.read").await;
        relay.admin(&["lock", "user", "bob"]).ok();
        let ended = Session::exec_on(early, "unlock 1").await.wait().await;
        assert_ne!(ended.status, Some(0), "{ended:?}");
    });
    let locks = relay.json(&["lock", "ls", "--json"]);
    assert_eq!(locks.as_array().unwrap().len(), 1, "{locks}");
}
