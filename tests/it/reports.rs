//! The report of a command goes onto a closed pipe, or onto a full disk: no panic, and the exit status is that of what
//! was done.

use std::fs::OpenOptions;
use std::process::{Command, Stdio};

use crate::harness::{Device, Relay, SOON};

/// The target of stdout.
#[derive(Clone, Copy, Debug)]
enum StdoutTarget {
    ClosedPipe,
    FullDisk,
}

impl StdoutTarget {
    const BOTH: [Self; 2] = [Self::ClosedPipe, Self::FullDisk];

    fn stdio(self) -> Stdio {
        match self {
            Self::ClosedPipe => {
                let (reader, writer) = std::io::pipe().unwrap();
                drop(reader);
                writer.into()
            }
            Self::FullDisk => OpenOptions::new()
                .write(true)
                .open("/dev/full")
                .unwrap()
                .into(),
        }
    }
}

/// Runs it with that stdout: its exit status, and what it says on stderr.
fn ends(mut command: Command, to: StdoutTarget) -> (Option<i32>, String) {
    let output = command
        .stdin(Stdio::null())
        .stdout(to.stdio())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("panicked"), "{command:?} to {to:?}: {said}");
    (output.status.code(), said)
}

/// An answer that cannot be written is a failure; a reader that went away is none.
#[track_caller]
fn answers(command: Command, to: StdoutTarget, done: i32) {
    let shown = format!("{command:?}");
    let (code, said) = ends(command, to);
    match to {
        StdoutTarget::ClosedPipe => assert_eq!((code, said.as_str()), (Some(done), ""), "{shown}"),
        StdoutTarget::FullDisk => {
            assert_eq!(code, Some(1), "{shown}: {said}");
            assert_eq!(said.lines().count(), 1, "{shown}: {said}");
            assert!(
                said.contains("cannot write the answer: "),
                "{shown}: {said}"
            );
        }
    }
}

/// Checks that the command is done, whether or not its report can be written.
#[track_caller]
fn reports(command: Command, to: StdoutTarget) {
    let shown = format!("{command:?}");
    let (code, said) = ends(command, to);
    assert_eq!(code, Some(0), "{shown}: {said}");
    match to {
        StdoutTarget::ClosedPipe => assert_eq!(said, "", "{shown}"),
        StdoutTarget::FullDisk => assert_eq!(said.lines().count(), 1, "{shown}: {said}"),
    }
}

#[test]
fn no_command_of_the_agent_ends_by_its_report() {
    let relay = Relay::start();
    let online = Device::online(&relay, "cam");
    for to in StdoutTarget::BOTH {
        answers(online.command(&["status"]), to, 0);
        answers(online.command(&["status", "--json"]), to, 0);
        reports(online.command(&["upload"]), to);
        answers(help(&online), to, 0);

        let name = format!("new-{to:?}").to_lowercase();
        let device = Device::new(&name);
        let token = relay.token(&["--uses", "1"]);
        reports(device.command(&["join", &token, "--name", &name]), to);
        relay.wait_state(&name, "offline", SOON);
        // And once more, with the token that is spent.
        reports(device.command(&["join", &token, "--name", &name]), to);
    }
}

/// The help has no state folder.
fn help(device: &Device) -> Command {
    let mut command = Command::new(device.command(&[]).get_program());
    command.arg("--help");
    command
}

#[test]
fn a_service_is_installed_though_its_steps_cannot_be_listed() {
    let relay = Relay::start();
    let device = Device::joined(&relay, "cam");
    for to in StdoutTarget::BOTH {
        let root = tempfile::tempdir().unwrap();
        let install = |verb: &str, dry_run: bool| {
            let mut command = Command::new(device.command(&[]).get_program());
            command
                .args([verb, "--init", "systemd", "--root"])
                .arg(root.path());
            command.args(dry_run.then_some("--dry-run"));
            command
        };
        let unit = root.path().join("etc/systemd/system/edge-agent.service");
        let linked = root
            .path()
            .join("etc/systemd/system/multi-user.target.wants/edge-agent.service");
        let (code, said) = ends(install("install", true), to);
        assert_eq!(
            code == Some(0),
            matches!(to, StdoutTarget::ClosedPipe),
            "{said}"
        );
        assert!(!unit.exists());
        reports(install("install", false), to);
        assert!(unit.exists() && linked.symlink_metadata().is_ok(), "{to:?}");
        reports(install("uninstall", false), to);
        assert!(
            !unit.exists() && linked.symlink_metadata().is_err(),
            "{to:?}"
        );
    }
}

#[test]
fn a_change_is_done_though_its_answer_cannot_be_written() {
    let relay = Relay::start();
    let device = Device::joined(&relay, "cam");
    for to in StdoutTarget::BOTH {
        answers(relay.command(&["devices"]), to, 0);
        answers(relay.command(&["devices", "--json"]), to, 0);
        answers(relay.command(&["audit"]), to, 0);
        answers(relay.command(&["--help"]), to, 0);
        // A token is made for its text.
        answers(relay.command(&["token", "create"]), to, 0);
        let label = format!("to={to:?}").to_lowercase();
        reports(relay.command(&["devices", "label", "cam", &label]), to);
        let shown = relay.admin(&["devices", "show", "cam"]).ok();
        assert!(shown.out().contains(&label), "{shown}");
    }
    drop(device);
}
