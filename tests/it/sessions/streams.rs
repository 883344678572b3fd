//! Commands without a terminal: status, streams, and every byte of them.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::harness::{
    Running, SOON, Site, Way, command, read_one_line, run, run_with_input, wait_for, wait_until,
};

/// The amount of data each way, in MiB; `HOLDFAST_SOAK_MIB=1024` is the full size.
const MIB: u64 = 64;

#[test]
fn the_exit_status_is_the_commands() {
    let site = Site::new();
    for way in Way::BOTH {
        for status in [0, 1, 7, 254, 255] {
            site.exec(way, &format!("exit {status}")).exits(status);
        }
        site.exec(way, "/no/such/program").exits(127);
        // It closes its streams long before its end: ssh, whose input is at its end too, must not close the
        // channel before the status has come.
        let early = "exec >&- 2>&-; sleep 0.3; exit 9";
        site.exec(way, early).exits(9);
        // An end by a signal has no status, for which OpenSSH's client says 255.
        site.exec(way, "kill -TERM $$").exits(255);
    }
}

#[test]
fn stderr_is_its_own_stream_and_goes_on_after_stdouts_end() {
    let site = Site::new();
    for way in Way::BOTH {
        let output = site
            .exec(way, "echo out; echo err >&2; echo out again")
            .ok();
        assert_eq!(output.out(), "out\nout again\n");
        assert_eq!(output.err(), "err\n");
        let mut session = site.start(way, "echo out; exec >&-; read x; echo late $x >&2; exit 3");
        session.wait_out("out");
        session.write("word\n");
        let output = session.wait(SOON).exits(3);
        assert_eq!(
            (output.out(), output.err()),
            ("out\n".into(), "late word\n".into())
        );
    }
}

#[test]
fn the_end_of_input_is_passed_on_and_nothing_else_ends() {
    let site = Site::new();
    for way in Way::BOTH {
        let mut ssh = site.ssh(way);
        let output = run_with_input(ssh.arg("cat; echo after; exit 4"), b"one\ntwo\n").exits(4);
        assert_eq!(output.out(), "one\ntwo\nafter\n", "{way:?}");
        // Without an end of input a command that reads none still ends.
        let session = site.start(way, "echo done; exit 5");
        assert_eq!(session.wait(SOON).exits(5).out(), "done\n", "{way:?}");
    }
}

#[test]
fn a_command_that_reads_nothing_ends_with_its_input_unread() {
    let site = Site::new();
    for way in Way::BOTH {
        let much = vec![b'x'; 8 << 20];
        let output = run_with_input(site.ssh(way).arg("head -c 3; exit 6"), &much);
        assert_eq!(output.exits(6).out(), "xxx", "{way:?}");
    }
}

#[test]
fn a_background_job_with_its_own_streams_holds_no_session() {
    let site = Site::new();
    for way in Way::BOTH {
        let line = "setsid sleep 300 </dev/null >/dev/null 2>&1 & echo $!";
        let output = site.exec(way, line).ok();
        assert!(output.took < Duration::from_secs(15), "{output}");
        run(command("kill").arg(output.out().trim())).ok();
    }
}

#[test]
fn a_long_command_and_odd_bytes_arrive_as_they_are() {
    let site = Site::new();
    for way in Way::BOTH {
        let long = "x".repeat(100_000);
        let output = site.exec(way, &format!("printf %s {long} | wc -c")).ok();
        assert_eq!(output.out().trim(), "100000");
        let odd = "printf '%s|' 'a  b' \"c'd\" '\u{e4}\u{1f980}' '$HOME'";
        let output = site.exec(way, odd).ok();
        assert_eq!(output.out(), "a  b|c'd|\u{e4}\u{1f980}|$HOME|");
    }
}

#[test]
fn every_byte_arrives_both_ways() {
    let site = Site::new();
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    let mib = std::env::var("HOLDFAST_SOAK_MIB").map_or(MIB, |mib| mib.parse().unwrap());
    write_random(&source, mib << 20);
    let wanted = digest(&source);
    for way in Way::BOTH {
        // Down.
        let copy = folder.path().join("down");
        let line = format!("cat {}", source.display());
        transfer(site.ssh(way).arg(line), Path::new("/dev/null"), &copy);
        assert_eq!(digest(&copy), wanted, "down {way:?}");
        // Up, and what the device counted comes back.
        let copy = folder.path().join("up");
        let line = format!("cat > {0}; wc -c < {0}", copy.display());
        let count = folder.path().join("count");
        transfer(site.ssh(way).arg(line), &source, &count);
        let count = fs::read_to_string(count).unwrap();
        assert_eq!(count.trim(), (mib << 20).to_string(), "up {way:?}");
        assert_eq!(digest(&copy), wanted, "up {way:?}");
    }
}

#[test]
fn a_filter_takes_and_gives_at_once() {
    let site = Site::new();
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    write_random(&source, MIB << 20);
    for way in Way::BOTH {
        let copy = folder.path().join("both");
        transfer(site.ssh(way).arg("cat"), &source, &copy);
        assert_eq!(digest(&copy), digest(&source), "{way:?}");
    }
}

/// Runs with files as stdin and stdout: nothing is gathered in memory.
#[track_caller]
fn transfer(command: &mut Command, from: &Path, to: &Path) {
    let mut child = command
        .stdin(File::open(from).unwrap())
        .stdout(File::create(to).unwrap())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let ended = wait_for(Duration::from_secs(600), "the end of a transfer", || {
        child.try_wait().unwrap()
    });
    assert!(ended.success(), "{ended}");
}

fn write_random(path: &Path, bytes: u64) {
    let mut random = File::open("/dev/urandom").unwrap().take(bytes);
    let mut file = File::create(path).unwrap();
    std::io::copy(&mut random, &mut file).unwrap();
    file.flush().unwrap();
}

fn digest(path: &Path) -> String {
    let output = run(command("sha256sum").arg(path)).ok();
    output.out().split(' ').next().unwrap().to_owned()
}

#[test]
fn sessions_of_one_device_do_not_mix() {
    let site = Site::new();
    let sessions: Vec<Running> = (0..12)
        .map(|n| {
            let way = Way::BOTH[n % 2];
            let line = format!("for i in $(seq 2000); do echo {n} $i; done; exit {n}");
            site.start(way, &line)
        })
        .collect();
    for (n, session) in (0..).zip(sessions) {
        let output = session.wait(SOON * 2).exits(n);
        let lines: Vec<String> = (1..=2000).map(|i| format!("{n} {i}")).collect();
        let wanted = lines.join("\n") + "\n";
        assert!(
            output.out() == wanted,
            "the lines of session {n} are not its own: {output}"
        );
    }
}

#[test]
fn a_command_whose_output_is_not_read_any_more_gets_pipe() {
    let site = Site::new();
    let end = site.device.folder().join("end");
    for way in Way::BOTH {
        let line = format!("yes; echo $? >{}; exit 3", end.display());
        let (first, status) = read_one_line(site.ssh(way).arg(line));
        assert_eq!((first.as_str(), status.code()), ("y\n", Some(3)), "{way:?}");
        assert_eq!(fs::read_to_string(&end).unwrap(), "141\n", "{way:?}");
        // By a signal, as with sshd.
        let (_, status) = read_one_line(site.ssh(way).arg("exec yes"));
        assert_eq!(status.code(), Some(255), "{way:?}");
        // Who takes it for an error goes on.
        let line = "trap '' PIPE; while echo y; do :; done; echo late >&2; exit 4";
        let (_, status) = read_one_line(site.ssh(way).arg(line));
        assert_eq!(status.code(), Some(4), "{way:?}");
    }
    // What a device recorded of them is what the relay saw.
    wait_until(SOON, "whole recordings", || {
        let complete = ["recordings", "--state", "complete", "--json"];
        site.relay.json(&complete).as_array().unwrap().len() == 6
    });
}
