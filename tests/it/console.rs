//! The console: the commands of `relay`, over ssh.

use serde_json::Value;

use crate::harness::{Device, KeyKind, Output, SOON, Site, Terminal, User, run, run_with_input};

#[track_caller]
fn ask(user: &User, line: &str) -> Output {
    // A command that begins with a dash is ssh's own without this.
    run(user.console().args(["--", line]))
}

#[test]
fn listing_is_the_same_in_cli_and_console() {
    let site = Site::new();
    let _offline = Device::joined(&site.relay, "attic-node");
    let strip = |mut rows: Value| {
        for row in rows.as_array_mut().unwrap() {
            let last_seen = row.as_object_mut().unwrap().remove("last_seen");
            assert!(last_seen.is_some());
        }
        rows
    };
    let output = ask(&site.alice, "devices --json").ok();
    let here: Value = serde_json::from_slice(&output.stdout).unwrap();
    let there = site.relay.json(&["devices", "--json"]);
    let fields = [
        "name",
        "id",
        "state",
        "last_seen",
        "labels",
        "address",
        "agent_version",
        "target",
    ];
    for row in here.as_array().unwrap() {
        for field in fields {
            assert!(row.get(field).is_some(), "no {field} in {row}");
        }
    }
    assert_eq!(strip(here), strip(there));
    let table = ask(&site.alice, "devices").ok().out();
    let mut lines = table.lines();
    assert_eq!(
        lines.next().unwrap().split_whitespace().next(),
        Some("NAME")
    );
    assert!(table.contains("kitchen-cam  online   now"), "{table}");
    assert!(table.contains("attic-node   offline  never"), "{table}");
}

#[test]
fn help_is_help_and_nonsense_is_usage() {
    let site = Site::new();
    for line in ["--help", "devices --help", "help"] {
        let output = ask(&site.alice, line).ok();
        assert!(output.out().contains("Usage"), "{line}: {output}");
    }
    // There is no shell, and that is said with what there is instead.
    let output = run(site.alice.console().arg("-T")).ok();
    assert!(
        output
            .out()
            .starts_with("This is a Holdfast relay. It has no shell"),
        "{output}"
    );
    for line in [
        "devcies",
        "devices --jsno",
        "devices show",
        "serve",
        "devices --state /tmp",
        "devices show 'kitchen-cam",
    ] {
        let output = ask(&site.alice, line).exits(2);
        assert!(
            output.out().is_empty() && !output.err().is_empty(),
            "{line}: {output}"
        );
    }
    let refused = ask(&site.alice, "devices show kitchen-cqm").exits(1);
    assert_eq!(refused.err(), "no device \"kitchen-cqm\": see `devices`\n");
    // What was typed is shown, and drives nothing.
    let output = ask(&site.alice, "devices 'show\u{1b}[2J'").exits(2);
    assert!(!output.err().contains('\u{1b}'), "{output}");
}

#[test]
fn who_is_no_admin_may_ask_who_they_are() {
    let site = Site::new();
    let bob = site.relay.user("bob", &[]);
    let output = ask(&bob, "whoami").ok();
    assert!(output.out().contains("bob"), "{output}");
    for line in [
        "devices",
        "devices --json",
        "user ls",
        "token create",
        "ssh-config",
    ] {
        let refused = ask(&bob, line).exits(1);
        assert_eq!(refused.out(), "", "{line}");
        assert_eq!(refused.err().lines().count(), 1, "{line}: {refused}");
        refused.says("bob");
    }
    assert_eq!(
        site.relay
            .json(&["token", "ls", "--json"])
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn a_fleet_is_run_from_afar() {
    let site = Site::new();
    let bob = User::stranger(&site.relay, "bob", KeyKind::Ed25519);
    let key = std::fs::read(bob.key().with_extension("pub")).unwrap();
    let mut add = site.alice.console();
    add.arg("user add bob --role admin --key -");
    let added = run_with_input(&mut add, &key).ok();
    assert!(
        added.out().starts_with("user bob added: 1 key (SHA256:"),
        "{added}"
    );
    let token = ask(&bob, "token create --label 'role=camera'").ok().out();
    let mut device = Device::new("attic-node");
    device.join(token.trim(), &[]).ok();
    device.run_online(&site.relay);
    ask(&bob, "devices rename attic-node attic-cam").ok();
    ask(&bob, "devices label attic-cam site=berlin").ok();
    let row = site.relay.device("attic-cam").unwrap();
    assert_eq!(row["labels"]["role"], "camera");
    assert_eq!(row["labels"]["site"], "berlin");
    let output = bob
        .exec(crate::harness::Way::Jump, "attic-cam", "echo here")
        .ok();
    assert_eq!(output.out(), "here\n");
    // A path means a file of the operator's machine, which the relay does not see; its own it keeps.
    let refused = ask(&bob, "user add eve --key /etc/hostname").exits(2);
    refused.says("over ssh, keys come by stdin");
}

#[test]
fn a_terminal_gets_whole_lines() {
    let site = Site::new();
    let mut console = site.alice.console();
    let mut terminal = Terminal::start(console.args(["-t", "devices"]), 80, 24);
    assert_eq!(terminal.wait(SOON).code(), Some(0));
    let shown = terminal.shown();
    assert!(shown.contains("kitchen-cam"), "{shown}");
    assert!(
        shown.lines().count() >= 2 && !shown.replace("\r\n", "").contains('\n'),
        "{shown:?}"
    );
}

#[test]
fn the_relay_itself_has_no_files() {
    let site = Site::new();
    let mut sftp = site.alice.tool("sftp");
    let refused = run(sftp.args(["-b", "-", "relay"]));
    assert_ne!(refused.code(), 0);
    refused.says("the relay itself has no subsystems: name a device, as in LOGIN+DEVICE@relay");
}
