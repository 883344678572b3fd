//! OpenSSH's options that other tests have no use for.

use std::process::{Command, Stdio};

use super::{MIB, bytes, is_quiet};
use crate::harness::{SOON, Site, Terminal, Way, own_login, run, run_with_input, wait_until};

/// The amount of data in all; `HOLDFAST_REKEY_MIB=200` is the full size, which takes a debug build half a minute.
const REKEYED_MIB: usize = 40;

#[test]
fn a_client_that_asks_for_new_keys_all_the_time_loses_no_byte() {
    let site = Site::new();
    // What is recorded as well is measured elsewhere; here are keys.
    let policy = site.relay.folder().join("policy.toml");
    let allow = "{ labels = { '*' = '*' }, logins = ['*'], abilities = ['exec'] }";
    let role = format!("[roles.quiet]\nrecording = 'off'\nallow = {allow}\n");
    std::fs::write(&policy, role).unwrap();
    let policy = policy.to_str().unwrap();
    site.relay.admin(&["apply", "-f", policy]).ok();
    let bob = site.relay.user("bob", &["quiet"]);
    let wanted = std::env::var("HOLDFAST_REKEY_MIB").ok();
    let mib = wanted.map_or(REKEYED_MIB, |text| text.parse().unwrap());
    // On the way of two connections each of them has keys of its own.
    for (way, share) in [(Way::Direct, 5), (Way::Jump, 20)] {
        let data = bytes(2 * mib / share * MIB);
        let mut ssh = bob.ssh(way, &own_login(), "kitchen-cam");
        ssh.args(["-v", "-o", "RekeyLimit=1M", "cat"]);
        let output = run_with_input(&mut ssh, &data).ok();
        assert!(
            output.stdout == data,
            "{} bytes came back",
            output.stdout.len()
        );
        let exchanges = output.err().matches("SSH2_MSG_NEWKEYS received").count();
        eprintln!("{way:?}: {exchanges} key exchanges in {:?}", output.took);
        assert!(exchanges > mib / share, "{exchanges} key exchanges");
    }
}

/// OpenSSH's client takes the `+` in a URI for a space.
#[test]
fn uri_leads_to_a_device() {
    let site = Site::new();
    for plus in ["+", "%2B"] {
        let uri = format!("ssh://{}{plus}kitchen-cam@relay", own_login());
        let mut ssh = site.alice.tool("ssh");
        let output = run(ssh.args([&uri, "echo $0 there"])).ok();
        assert!(output.out().ends_with(" there\n"), "{uri}: {output}");
        let path = site.device.folder().join("uri");
        let uri = uri.replace("ssh://", "scp://");
        let mut scp = site.alice.tool("scp");
        let to = format!("{uri}/{}", path.display());
        run(scp.arg(site.alice.config()).arg(to)).ok();
        assert!(path.exists(), "{uri}");
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn input_and_terminals_are_as_the_options_say() {
    let site = Site::new();
    for way in Way::BOTH {
        let with = |options: &[&str], line: &str| {
            let mut ssh = site.ssh(way);
            run_with_input(
                ssh.args(options).args((!line.is_empty()).then_some(line)),
                b"typed\n",
            )
        };
        assert_eq!(with(&[], "cat").ok().out(), "typed\n");
        assert_eq!(with(&["-n"], "cat; echo end").ok().out(), "end\n");
        assert_eq!(
            with(&["-oStdinNull=yes"], "cat; echo end").ok().out(),
            "end\n"
        );
        assert_eq!(with(&["-T"], "tty; cat").ok().out(), "not a tty\ntyped\n");
        let forced = with(&["-oRequestTTY=force"], "tty").ok();
        assert!(forced.out().contains("/dev/pts/"), "{forced}");
        let shell = run_with_input(site.ssh(way).args(["-T"]), b"tty; echo $0 done\n").ok();
        assert!(shell.out().starts_with("not a tty\n"), "{shell}");
        // What the device lets in of the environment, and no more.
        let set = ["-oSetEnv=LC_HOLDFAST=yes LD_PRELOAD=/no EDITOR=ed"];
        let output = with(&set, "echo [$LC_HOLDFAST] [$LD_PRELOAD] [$EDITOR]").ok();
        assert_eq!(output.out(), "[yes] [] []\n");
    }
}

/// Starts what goes into the background by itself, and waits until it is there.
#[track_caller]
fn into_background(ssh: &mut Command) {
    let ssh = ssh.stdin(Stdio::null()).stdout(Stdio::null());
    let status = ssh.stderr(Stdio::null()).status().unwrap();
    assert!(status.success(), "{ssh:?}");
}

#[test]
fn what_goes_into_the_background_works_there() {
    let site = Site::new();
    let flag = site.device.folder().join("flag");
    for way in Way::BOTH {
        let line = format!("echo there >{}", flag.display());
        into_background(site.ssh(way).args(["-f", &line]));
        wait_until(SOON, "the work in the background", || {
            std::fs::read(&flag).is_ok_and(|text| text == b"there\n")
        });
        std::fs::remove_file(&flag).unwrap();
    }
    // What was in the background has ended, and its session may be on its way out still.
    let sessions = || site.relay.json(&["sessions", "--json"]);
    wait_until(SOON, "no session", || sessions() == serde_json::json!([]));
    // Without a command it opens no channel at all, and stays.
    let mut idle = crate::harness::Running::start(site.ssh(Way::Direct).args(["-v", "-N"]));
    idle.wait_err("Entering interactive session");
    assert!(idle.is_alive());
    assert_eq!(sessions(), serde_json::json!([]));
}

#[test]
fn one_connection_carries_many_sessions() {
    let site = Site::new();
    for way in Way::BOTH {
        let before = super::logins(&site);
        let socket = site.alice.folder().join("master");
        let control = format!("-S{}", socket.display());
        into_background(site.ssh(way).args(["-M", "-N", "-f", &control]));
        let with = |args: &[&str]| run(site.ssh(way).arg(&control).args(args));
        with(&["-Ocheck"]).ok().says("Master running");
        for number in 0..8 {
            let output = with(&[&format!("echo {number}; exit {number}")]).exits(number);
            assert_eq!(output.out(), format!("{number}\n"));
        }
        with(&["-Oexit"]).ok();
        wait_until(SOON, "the end of the master", || !socket.exists());
        // A jump is a login at the relay, and one inside it.
        let connections = if way == Way::Direct { 1 } else { 2 };
        assert_eq!(super::logins(&site) - before, connections, "{way:?}");
    }
    is_quiet(&site);
}

#[test]
fn a_person_gets_out_by_the_escape() {
    let site = Site::new();
    for way in Way::BOTH {
        let mut shell = Terminal::start(&site.ssh(way), 80, 24);
        shell.send("echo re''ady\r");
        shell.expect("ready\r\n");
        // A break is for serial lines: a shell goes on.
        shell.send("\r~B");
        shell.send("echo aft''er\r");
        shell.expect("after\r\n");
        shell.send("\r~~\u{8} \u{8}true\r~#");
        shell.expect("The following connections are open:");
        shell.send("exec sleep 600\r");
        shell.expect("sleep 600");
        shell.send("\r~.");
        assert_eq!(shell.wait(SOON).code(), Some(255), "{way:?}");
        wait_until(SOON, "no session", || {
            site.relay.json(&["sessions", "--json"]) == serde_json::json!([])
        });
    }
}
