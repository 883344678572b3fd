//! Requests that are not passed on are reported on stderr, also to a client that logs nothing by itself.

use crate::harness::{SOON, Site, Terminal, Way, command, run};

/// A client of few words.
const QUIET: [&str; 2] = ["-o", "LogLevel=ERROR"];

#[test]
fn a_long_term_and_a_long_value_come_through() {
    let site = Site::new();
    for way in Way::BOTH {
        let mut ssh = site.ssh(way);
        ssh.env("TERM", "x".repeat(300));
        let shown = run(ssh.args(["-tt", "echo ${#TERM} of $TERM; tty"]))
            .ok()
            .out();
        assert!(
            shown.contains(&format!("300 of {}", "x".repeat(300))),
            "{way:?}: {shown}"
        );
        assert!(shown.contains("/dev/pts/"), "{way:?}: {shown}");

        let mut ssh = site.ssh(way);
        ssh.args(["-o", &format!("SetEnv=LC_LONG={}", "x".repeat(16 * 1024))]);
        let output = run(ssh.args(QUIET).arg("echo ${#LC_LONG}")).ok();
        assert_eq!(
            (output.out().as_str(), output.err().as_str()),
            ("16384\n", ""),
            "{way:?}"
        );
    }
}

#[test]
fn what_is_too_long_is_said() {
    let site = Site::new();
    for way in Way::BOTH {
        let mut ssh = site.ssh(way);
        ssh.args([
            "-o",
            &format!("SetEnv=LC_LONG={}", "x".repeat(16 * 1024 + 1)),
        ]);
        run(ssh.args(QUIET).arg("echo ran; echo ${LC_LONG-none}"))
            .ok()
            .says("LC_LONG is not passed on: its value has 16385 bytes; the maximum is 16384");

        // A client that did not insist on a terminal (`-t` does) goes on without one, and shows why there is none.
        let mut ssh = site.ssh(way);
        ssh.args(QUIET);
        let mut named = command("env");
        named.arg(format!("TERM={}", "x".repeat(513)));
        named.arg(ssh.get_program()).args(ssh.get_args());
        let mut terminal = Terminal::start(&named, 200, 24);
        terminal.expect("no terminal: TERM has 513 bytes; the maximum is 512");
        terminal.send("echo re''ady\r");
        terminal.expect("ready");
        terminal.send("exit\r");
        assert_eq!(terminal.wait(SOON).code(), Some(0), "{way:?}");

        let mut ssh = site.ssh(way);
        ssh.args(["-o", "SetEnv=LD_PRELOAD=x"]).args(QUIET);
        run(ssh.arg("true"))
            .ok()
            .says("LD_PRELOAD is not passed on: it chooses which code programs run");

        let mut ssh = site.ssh(way);
        run(ssh
            .args(QUIET)
            .args(["-R", "/no/such/folder/socket:localhost:1", "true"]))
        .ok()
        .says("kitchen-cam cannot listen on /no/such/folder/socket");
    }
}
