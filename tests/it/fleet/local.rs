//! The same in a shell on the relay's machine: `relay exec`, `relay cp`, by the real `ssh` and as the user of a key.

use std::fs;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use super::{Fleet, lines, table};
use crate::harness::{
    Device, KeyKind, Output, Relay, Running, SOON, Terminal, User, is_root, own_login, run,
    run_with_input, wait_until,
};

/// `relay exec` or `relay cp` with a user's key and no other.
fn local(relay: &Relay, user: &User, args: &[&str]) -> Command {
    let (what, rest) = args.split_first().unwrap();
    let mut command = relay.command(&[what, "--login", &own_login(), "-i"]);
    command.arg(user.key());
    for option in ["IdentitiesOnly=yes", "IdentityAgent=none", "BatchMode=yes"] {
        command.args(["-o", option]);
    }
    command.args(rest);
    command
}

impl Fleet {
    #[track_caller]
    fn here(&self, args: &[&str]) -> Output {
        run(&mut local(&self.relay, &self.alice, args))
    }
}

const ONLINE: &str = "role=camera,state!=off";

#[test]
fn a_command_runs_as_the_user_of_the_key() {
    let fleet = Fleet::new();
    let line = r#"echo "it  is" '$HOME' >&2; printf '%s|' a  b; exit 0"#;
    let output = fleet.here(&["exec", "--on", ONLINE, "--", line]).ok();
    for name in ["cam", "lab-cam"] {
        assert_eq!(lines(&output.out(), name), ["a|b|"], "{output}");
        assert_eq!(lines(&output.err(), name), ["it  is $HOME"], "{output}");
    }
    let well = |name: &str| (name.to_owned(), "0".to_owned(), String::new());
    assert_eq!(table(&output), [well("cam"), well("lab-cam")]);
    // No pipe of ours is read, and what failed is in the status.
    let mut command = local(&fleet.relay, &fleet.alice, &["exec", "--on", "site=lab"]);
    let failed = run_with_input(command.args(["--", "cat;", "exit", "3"]), b"x").exits(1);
    assert_eq!(lines(&failed.out(), "lab-cam"), [""; 0], "{failed}");
    assert_eq!(table(&failed)[0].1, "3");
    let json = fleet.here(&["exec", "--json", "--on", "site=lab", "--", "echo a"]);
    let row: Value = serde_json::from_str(&json.ok().out()).unwrap();
    assert_eq!(
        (&row["device"], &row["stdout"]),
        (&"lab-cam".into(), &"a\n".into())
    );

    // In the log, it was she and no local user.
    let rows = fleet.relay.admin(&["audit", "--event", "exec", "--json"]);
    let rows = rows.ok().out();
    assert_eq!(rows.lines().count(), 4);
    for row in rows.lines() {
        let row: Value = serde_json::from_str(row).unwrap();
        assert_eq!(row["user"], "alice", "{row}");
        assert!(row["client"].as_str().unwrap().starts_with("127."), "{row}");
    }
    // The console's word counts, and ssh's: the folder alone lets no user in.
    let bob = fleet.relay.user("bob", &[]);
    run(&mut local(
        &fleet.relay,
        &bob,
        &["exec", "--on", ONLINE, "--", "true"],
    ))
    .exits(1)
    .says("user \"bob\" may not run this command: it needs a role");
    let eve = User::stranger(&fleet.relay, "eve", KeyKind::Ed25519);
    run(&mut local(
        &fleet.relay,
        &eve,
        &["exec", "--on", ONLINE, "--", "true"],
    ))
    .exits(255)
    .says("Permission denied");
    fleet.here(&["exec", "--on", "role", "--", "true"]).exits(2);
}

#[test]
fn a_file_goes_to_every_device_that_is_meant() {
    if !is_root("homes of their own for the devices") {
        return;
    }
    let fleet = Fleet::new();
    let path = fleet.relay.folder().join("a file");
    let bytes: Vec<u8> = (0..700_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(&path, &bytes).unwrap();
    let place = format!("{ONLINE}:the tool");
    let cp = |file: &str, on: &str| ["cp", file, "--on", on, "--mode", "750"].map(str::to_owned);
    let run_cp = |args: &[String], input: &[u8]| {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        run_with_input(&mut local(&fleet.relay, &fleet.alice, &args), input)
    };
    let is_there = |device: &Device, wanted: &[u8]| {
        let found = fs::read(device.folder().join("home/the tool")).unwrap();
        assert!(found == wanted, "{}", device.name());
    };
    let output = run_cp(&cp(path.to_str().unwrap(), &place), b"not this").ok();
    assert_eq!(table(&output).len(), 2);
    is_there(&fleet.cam, &bytes);
    is_there(&fleet.lab, &bytes);
    run_cp(&cp("-", "site=lab:the tool"), b"from a pipe").ok();
    is_there(&fleet.lab, b"from a pipe");
    is_there(&fleet.cam, &bytes);
    // On a terminal it shows how far it is, and no byte of the file is taken for a key.
    let keys = fleet.relay.folder().join("keys");
    fs::write(&keys, b"\x03\n~.\n\x04\r\n").unwrap();
    let mut shown = local(&fleet.relay, &fleet.alice, &["cp", keys.to_str().unwrap()]);
    shown.args(["--wait", "1h", "--on", "role=camera:the tool"]);
    let mut terminal = Terminal::start(&shown, 80, 24);
    terminal.expect("2 of 3 done, 0 running, 1 offline: waiting");
    is_there(&fleet.cam, b"\x03\n~.\n\x04\r\n");
    terminal.send("\u{3}");
    assert_ne!(terminal.wait(SOON).code(), Some(0));

    let folder = fleet.relay.folder().to_str().unwrap();
    run_cp(&cp(folder, &place), b"")
        .exits(1)
        .says("is a folder");
    let missing = run_cp(&cp("/no/such", &place), b"").exits(1);
    assert_eq!(
        missing.err(),
        "cannot read /no/such: No such file or directory (os error 2)\n"
    );
}

#[test]
fn a_key_ends_what_runs_and_a_client_that_is_gone_does_not() {
    let fleet = Fleet::new();
    let flag = fleet.relay.folder().join("flag");
    let line = format!(
        "trap 'echo x >>{}; exit' HUP TERM; echo up; sleep 600 & wait",
        flag.display()
    );
    let ended = || fs::read_to_string(&flag).unwrap_or_default().len() / 2;
    // Without a terminal a signal ends `ssh` here, as with any session: an observer is lost, and that is no order to
    // stop.
    let go = fleet.relay.folder().join("go");
    let waits = format!(
        "echo up; i=0; until [ -e {} ] || [ $i -gt 600 ]; do sleep 0.1; i=$((i+1)); done; echo x >>{}",
        go.display(),
        flag.display()
    );
    let args = ["exec", "--on", "site=lab", "--", &waits];
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        let running = Running::start(&mut local(&fleet.relay, &fleet.alice, &args));
        running.wait_out("lab-cam: up");
        running.signal(signal);
        assert_ne!(running.wait(SOON).code(), 0);
    }
    wait_until(SOON, "no sessions", || {
        fleet.relay.json(&["sessions", "--json"]) == serde_json::json!([])
    });
    fs::write(&go, "").unwrap();
    wait_until(SOON, "the end of what is not waited for", || ended() == 3);
    let args = ["exec", "--on", "site=lab", "--", &line];
    let mut terminal = Terminal::start(&local(&fleet.relay, &fleet.alice, &args), 80, 24);
    terminal.expect("lab-cam: up\r\n");
    terminal.expect("0 of 1 done, 1 running");
    terminal.send("\u{3}");
    assert_eq!(terminal.wait(SOON).code(), Some(130));
    wait_until(SOON, "the end of what was interrupted", || ended() == 4);
}

#[test]
fn nothing_but_the_running_relay_of_the_folder_is_asked() {
    let mut relay = Relay::start();
    let alice = relay.admin_user();
    let exec = |relay: &Relay| local(relay, &alice, &["exec", "--on", "*", "--", "it's"]);
    // It is reached, though nothing fits.
    run(&mut exec(&relay))
        .exits(1)
        .says("no device that you may reach matches \"*\"");

    // Without `ssh`, it can be typed elsewhere.
    let empty = tempfile::tempdir().unwrap();
    let said = run(exec(&relay).env("PATH", empty.path())).exits(1).err();
    let (ip, port) = (relay.ssh().ip(), relay.ssh().port());
    let line = format!(
        r"`ssh -p {port} {ip} 'exec --on '\''*'\'' --login {} -- it'\''s'`",
        own_login()
    );
    assert!(
        said.starts_with("`ssh` is not installed") && said.contains(&line),
        "{said}"
    );

    // Another relay at the address, whatever users it has.
    let key = "ssh_host_ed25519_key";
    let other = Relay::start();
    let mine = fs::read(other.state().join(key)).unwrap();
    let pinned = fs::read(other.state().join("ssh_known_hosts")).unwrap();
    for (name, bytes) in [(key, mine), ("ssh_known_hosts", pinned)] {
        fs::write(relay.state().join(name), bytes).unwrap();
    }
    let loose = [
        "exec",
        "-o",
        "StrictHostKeyChecking=no",
        "--on",
        "*",
        "--",
        "true",
    ];
    run(&mut local(&relay, &alice, &loose))
        .exits(255)
        .says("Host key verification failed");

    relay.terminate(SOON);
    let said = run(&mut exec(&relay)).exits(1).err();
    let state = relay.state();
    let sentence = format!(
        "no relay serves from {}, and only a running one",
        state.display()
    );
    assert!(
        said.starts_with(&sentence) && said.lines().count() == 1,
        "{said}"
    );
}
