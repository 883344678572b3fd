//! A certificate's options force and permit.

use std::fs;

use super::Fixture;
use crate::harness::{SOON, Terminal, Way, own_login, run, run_with_input};

#[test]
fn a_source_address_lets_in_from_there() {
    let fixture = Fixture::new();
    fixture.sign(&["-O", "source-address=192.0.2.0/24,127.0.0.0/8,::1"]);
    for way in Way::BOTH {
        fixture.exec(way, "true").ok();
    }
}

#[test]
fn a_forced_command_runs_whatever_is_asked_for() {
    let fixture = Fixture::new();
    fixture.sign(&[
        "-O",
        "force-command=echo \"forced [$SSH_ORIGINAL_COMMAND]\"",
    ]);
    for way in Way::BOTH {
        let output = fixture.exec(way, "echo \"free\" $(id)").ok();
        assert_eq!(output.out(), "forced [echo \"free\" $(id)]\n", "{way:?}");
        let shell = run(fixture.ssh(way).arg("-T")).ok();
        assert_eq!(shell.out(), "forced []\n", "{way:?}");
        let sftp = run(fixture.ssh(way).args(["-s", "sftp"])).ok();
        assert_eq!(sftp.out(), "forced [internal-sftp]\n", "{way:?}");
        // A client cannot say what it asked for by other means.
        let mut ssh = fixture.ssh(way);
        ssh.args(["-T", "-o", "SetEnv=SSH_ORIGINAL_COMMAND=forged"]);
        assert_eq!(run(&mut ssh).ok().out(), "forced []\n", "{way:?}");
        let mut terminal = Terminal::start(fixture.ssh(way).arg("-t"), 80, 24);
        terminal.expect("forced []");
        terminal.wait(SOON);
    }
    // On the relay itself it is a command like any other.
    fixture.sign(&["-O", "force-command=whoami"]);
    let console = run(fixture.carol.console().arg("user rm alice")).ok();
    assert!(console.out().starts_with("carol"), "{console}");
    // Without one there is nothing to tell.
    fixture.sign(&[]);
    let output = fixture.exec(Way::Direct, "env").ok();
    assert!(!output.out().contains("SSH_ORIGINAL_COMMAND"), "{output}");
}

#[test]
fn internal_sftp_is_all_that_is_left() {
    let fixture = Fixture::new();
    fixture.sign(&["-O", "force-command=internal-sftp", "-O", "no-pty"]);
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    fs::write(&source, "text\n").unwrap();
    for way in Way::BOTH {
        let target = folder.path().join(format!("copy-{way:?}"));
        let host = way.destination(&own_login(), fixture.site.device.name());
        let mut scp = fixture.carol.tool("scp");
        scp.arg("-s")
            .arg(&source)
            .arg(format!("{host}:{}", target.display()));
        run(&mut scp).ok();
        assert_eq!(fs::read_to_string(&target).unwrap(), "text\n", "{way:?}");
        let mut sftp = fixture.carol.tool("sftp");
        let listed = run_with_input(
            sftp.args(["-b", "-", &host]),
            format!("ls {}\n", folder.path().display()).as_bytes(),
        );
        assert!(listed.ok().out().contains("copy-"), "{way:?}");
        let marker = folder.path().join("marker");
        let output = fixture.exec(way, &format!("echo free; touch {}", marker.display()));
        assert!(
            !output.out().contains("free") && !marker.exists(),
            "{output}"
        );
    }
}

#[test]
fn without_permit_pty_there_is_no_terminal() {
    let fixture = Fixture::new();
    fixture.sign(&["-O", "no-pty"]);
    for way in Way::BOTH {
        let output = fixture.exec(way, "tty; echo after").ok();
        assert_eq!(output.out(), "not a tty\nafter\n", "{way:?}");
        // OpenSSH's client gives up when its terminal is refused.
        let refused = run(fixture.ssh(way).args(["-tt", "tty"])).exits(255);
        refused.says("PTY allocation request failed");
    }
    // With no extension at all, both ways stay open: the jump forwards no port of anybody's.
    fixture.sign(&["-O", "clear"]);
    for way in Way::BOTH {
        assert_eq!(fixture.exec(way, "echo in").ok().out(), "in\n", "{way:?}");
    }
}
