//! The idle cutoff, with the real clock.

use std::fs;
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{audited, role, started};
use crate::harness::{Running, SOON, Site, Terminal, User, Way, own_login};

const CLOSED: &str = "[holdfast] closed: idle for 4 seconds (role tech)";
const WARNED: &str = "[holdfast] no input for 2 seconds: this session closes in 2 s.";

fn site() -> (Site, User) {
    let site = Site::new();
    role(&site.relay, "tech", "idle_timeout = \"4s\"");
    let bob = site.relay.user("bob", &["tech"]);
    (site, bob)
}

#[track_caller]
fn took(began: Instant, least: u64) {
    let took = began.elapsed();
    let range =
        Duration::from_millis(least * 1_000 - 100)..Duration::from_millis(least * 1_000 + 3_000);
    assert!(range.contains(&took), "{took:?}");
}

/// A shell without a terminal, which says nothing more and waits for its client.
#[track_caller]
fn quiet(ssh: &mut Command) -> Running {
    let mut session = Running::start(ssh);
    session.write("echo started; exec cat\n");
    session.wait_out("started");
    session
}

fn quiet_by(user: &User, way: Way) -> Running {
    quiet(&mut user.ssh(way, &own_login(), "kitchen-cam"))
}

#[test]
fn a_quiet_shell_is_warned_and_ended() {
    let (site, bob) = site();
    let began = Instant::now();
    for session in Way::BOTH.map(|way| quiet_by(&bob, way)) {
        let ended = session.wait(SOON).exits(255).says(WARNED).says(CLOSED);
        assert!(!ended.err().contains("Press any key"), "{ended}");
        // What we say is not in its data.
        assert_eq!(ended.out(), "started\n");
    }
    took(began, 4);
    for event in ["client.disconnect", "session.end"] {
        let rows = audited(&site.relay, event, "bob");
        assert_eq!(rows.len(), 2, "{event}");
        assert!(rows.iter().all(|row| row["reason"] == "idle"), "{rows:?}");
        assert!(
            rows.iter().all(|row| row["device"] == "kitchen-cam"),
            "{rows:?}"
        );
    }
}

/// Without a terminal a running command is work, whether it says something, is silent, or is read slowly; so it is
/// where the console runs it on a fleet, which has a time of its own for it.
#[test]
fn a_command_without_a_terminal_is_work_until_it_ends() {
    let site = Site::new();
    role(&site.relay, "tech", "idle_timeout = \"2s\"");
    let bob = site.relay.user("bob", &["tech"]);
    let lines = [
        "sleep 5; echo over",
        "for i in 1 2 3 4 5; do echo $i; sleep 1; done; echo over",
    ];
    let sessions = Way::BOTH.map(|way| lines.map(|line| started(&bob, way, line)));
    let mut fleet = bob.console();
    fleet.args([
        "exec",
        "--on",
        "'*'",
        "--login",
        &own_login(),
        "--timeout",
        "60s",
        "--",
    ]);
    let fleet = Running::start(fleet.arg("sleep 5; echo over"));
    for session in sessions.into_iter().flatten() {
        let ended = session.wait(SOON).ok();
        assert!(ended.out().ends_with("over\n"), "{ended}");
        assert!(!ended.err().contains("holdfast"), "{ended}");
    }
    let output = fleet.wait(SOON).ok().out();
    assert!(output.contains("kitchen-cam: over"), "{output}");
    // A script on stdin: no more can be typed.
    let mut script = Running::start(&mut bob.ssh(Way::Direct, &own_login(), "kitchen-cam"));
    script.write("sleep 5; echo over\n");
    script.end_input();
    assert_eq!(script.wait(SOON).ok().out(), "over\n");
}

#[test]
fn what_a_terminal_shows_is_no_activity() {
    let (_site, bob) = site();
    let mut ssh = bob.ssh(Way::Direct, &own_login(), "kitchen-cam");
    ssh.args(["-tt", "echo started; while sleep 0.5; do echo tick; done"]);
    let began = Instant::now();
    let mut terminal = Terminal::start(&ssh, 80, 24);
    terminal.expect("started");
    terminal.expect(WARNED);
    terminal.expect(CLOSED);
    took(began, 4);
    assert_eq!(terminal.wait(SOON).code(), Some(255));
}

#[test]
fn the_longest_duration_ends_what_is_busy() {
    const REASON: &str = "a session lasts at most 4 seconds (role tech)";
    let site = Site::new();
    role(
        &site.relay,
        "tech",
        "idle_timeout = \"never\"\nmax_session = \"4s\"",
    );
    let bob = site.relay.user("bob", &["tech"]);
    let began = Instant::now();
    let silent = started(&bob, Way::Direct, "sleep 600");
    let busy = started(&bob, Way::Jump, "while sleep 0.2; do echo tick; done");
    let mut terminal = Terminal::start(&bob.ssh(Way::Direct, &own_login(), "kitchen-cam"), 80, 24);
    for session in [silent, busy] {
        let ended = session.wait(SOON).exits(255);
        let ended = ended.says(&format!("[holdfast] {REASON}: this session closes in 2 s."));
        let _ = ended.says(&format!("[holdfast] closed: {REASON}"));
    }
    terminal.send(" ");
    terminal.expect(&format!("[holdfast] closed: {REASON}"));
    took(began, 4);
    let rows = audited(&site.relay, "client.disconnect", "bob");
    assert!(
        rows.iter().all(|row| row["reason"] == "max-session"),
        "{rows:?}"
    );
    assert_eq!(rows.len(), 3);
    let rows = audited(&site.relay, "session.end", "bob");
    assert!(
        rows.iter().all(|row| row["process"] == "killed"),
        "{rows:?}"
    );
    // A longer one reaches what is live, and so does none.
    role(&site.relay, "tech", "max_session = \"5s\"");
    let mut lifted = started(&bob, Way::Direct, "cat");
    lifted.wait_err("this session closes in 2.5 s.");
    role(&site.relay, "tech", "");
    std::thread::sleep(Duration::from_secs(4));
    lifted.write("still here\n");
    lifted.wait_out("still here");
    lifted.end_input();
    let _ = lifted.wait(SOON).ok();
}

#[test]
fn a_key_keeps_a_shell_and_a_new_size_does_not() {
    let (_site, bob) = site();
    for way in Way::BOTH {
        let ssh = bob.ssh(way, &own_login(), "kitchen-cam");
        let mut terminal = Terminal::start(&ssh, 80, 24);
        terminal.send("PS1=; echo rea''dy\r");
        terminal.expect("ready");
        let began = Instant::now();
        terminal.expect(WARNED);
        terminal.expect("Press any key to stay.\r\n");
        took(began, 2);
        terminal.send(" ");
        let began = Instant::now();
        terminal.resize(100, 30);
        terminal.expect(WARNED);
        terminal.resize(81, 25);
        let between = terminal.expect(CLOSED);
        assert!(!between.contains(WARNED), "{between:?}");
        took(began, 4);
        assert_eq!(terminal.wait(SOON).code(), Some(255));
    }
}

#[test]
fn a_busy_neighbour_does_not_keep_a_forgotten_session() {
    let (_site, bob) = site();
    let socket = bob.folder().join("mux");
    let mux = format!("ControlPath={}", socket.display());
    let on_master = || {
        let mut ssh = bob.ssh(Way::Direct, &own_login(), "kitchen-cam");
        ssh.args([
            "-o",
            &mux,
            "-o",
            "ControlMaster=auto",
            "-o",
            "ControlPersist=no",
        ]);
        quiet(&mut ssh)
    };
    let mut busy = on_master();
    let mut forgotten = on_master();
    let (began, mut lines) = (Instant::now(), 0);
    while forgotten.is_alive() {
        assert!(began.elapsed() < SOON);
        lines += 1;
        busy.write(&format!("line {lines}\n"));
        busy.wait_out(&format!("line {lines}\n"));
        std::thread::sleep(Duration::from_millis(200));
    }
    took(began, 4);
    forgotten.wait(SOON).exits(255).says(CLOSED);
    busy.write("last\n");
    busy.wait_out("last");
    busy.end_input();
    busy.wait(SOON).ok();
}

#[test]
fn sftp_at_work_goes_on_and_sftp_at_rest_ends() {
    let (site, bob) = site();
    let folder = site.device.folder();
    let (big, copy) = (folder.join("big"), folder.join("copy"));
    fs::write(&big, vec![7; 1_500_000]).unwrap();
    let target = Way::Direct.destination(&own_login(), "kitchen-cam");
    // About six seconds, and the client only asks for more.
    let mut busy = bob.tool("sftp");
    busy.args(["-l", "2000", "-b", "-"]).arg(&target);
    let mut busy = Running::start(&mut busy);
    busy.write(&format!("get {} {}\n", big.display(), copy.display()));
    busy.end_input();
    let began = Instant::now();
    let mut quiet = bob.tool("sftp");
    let mut quiet = Running::start(quiet.arg(&target));
    quiet.wait_err(CLOSED);
    // `sftp` waits for its user to say something before it notices.
    quiet.end_input();
    let quiet = quiet.wait(SOON).says(WARNED);
    assert!(!quiet.out().contains("holdfast"), "{quiet}");
    took(began, 4);
    busy.wait(SOON).ok();
    assert!(
        began.elapsed() > Duration::from_secs(5),
        "it was too fast to tell anything"
    );
    assert_eq!(fs::read(copy).unwrap().len(), 1_500_000);
}

/// A client that has asked for everything, and then only reads: slower than the device sends, so that its window
/// is what the file comes through.
#[test]
fn a_download_is_activity_though_its_client_says_nothing() {
    const READS: u32 = 256;
    const LENGTH: u32 = 32 * 1024;
    let site = Site::new();
    role(&site.relay, "tech", "idle_timeout = \"2s\"");
    let bob = site.relay.user("bob", &["tech"]);
    let big = site.device.folder().join("big");
    fs::write(&big, vec![7; (READS * LENGTH) as usize]).unwrap();
    let mut ssh = bob.ssh(Way::Direct, &own_login(), "kitchen-cam");
    ssh.args(["-s", "sftp"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut ssh = ssh.stderr(Stdio::null()).spawn().unwrap();
    let (mut to, mut from) = (ssh.stdin.take().unwrap(), ssh.stdout.take().unwrap());
    let string = |bytes: &[u8]| {
        [
            &u32::try_from(bytes.len()).unwrap().to_be_bytes()[..],
            bytes,
        ]
        .concat()
    };
    // SSH_FXP_INIT, _OPEN to read, and then _READ.
    to.write_all(&string(&[1, 0, 0, 0, 3])).unwrap();
    let name = string(big.to_str().unwrap().as_bytes());
    let open = [&[3, 0, 0, 0, 0][..], &name, &[0, 0, 0, 1, 0, 0, 0, 0]].concat();
    to.write_all(&string(&open)).unwrap();
    let mut packet = || {
        let mut length = [0; 4];
        from.read_exact(&mut length).unwrap();
        let mut packet = vec![0; u32::from_be_bytes(length) as usize];
        from.read_exact(&mut packet).unwrap();
        packet
    };
    assert_eq!(packet()[0], 2, "SSH_FXP_VERSION");
    let handle = packet();
    assert_eq!(handle[0], 102, "SSH_FXP_HANDLE: {handle:?}");
    let reads = (0..READS).flat_map(|number| {
        let offset = u64::from(number * LENGTH).to_be_bytes();
        let (id, length) = (number.to_be_bytes(), LENGTH.to_be_bytes());
        string(&[&[5][..], &id, &handle[5..], &offset, &length].concat())
    });
    to.write_all(&reads.collect::<Vec<u8>>()).unwrap();
    for number in 0..READS {
        let data = packet();
        assert_eq!(
            (data[0], data.len()),
            (103, 9 + LENGTH as usize),
            "SSH_FXP_DATA {number}"
        );
        std::thread::sleep(Duration::from_millis(25));
    }
    drop(to);
    ssh.wait().unwrap();
}

#[test]
fn a_connection_without_sessions_ends_too() {
    let (_site, bob) = site();
    let began = Instant::now();
    let mut ssh = bob.ssh(Way::Direct, &own_login(), "kitchen-cam");
    let bare = Running::start(ssh.arg("-N"));
    bare.wait(SOON)
        .exits(255)
        .says("idle for 4 seconds (role tech)");
    took(began, 4);
}

#[test]
fn a_changed_timeout_reaches_what_is_live() {
    let site = Site::new();
    let idle_timeout = |text: &str| role(&site.relay, "tech", &format!("idle_timeout = {text:?}"));
    idle_timeout("1h");
    let bob = site.relay.user("bob", &["tech"]);
    let mut sessions = Way::BOTH.map(|way| quiet_by(&bob, way));
    let mut ssh = bob.ssh(Way::Direct, &own_login(), "kitchen-cam");
    let mut bare = Running::start(ssh.arg("-N"));
    let began = Instant::now();
    idle_timeout("6s");
    sessions[0].wait_err("no input for 3 seconds: this session closes in 3 s.");
    // Lifted, after the warning.
    idle_timeout("never");
    std::thread::sleep(Duration::from_secs(7).saturating_sub(began.elapsed()));
    assert!(sessions.iter_mut().all(Running::is_alive) && bare.is_alive());
    // Shorter than they have been idle: they are warned, and not ended at once.
    let began = Instant::now();
    idle_timeout("2s");
    for session in sessions {
        let ended = session.wait(SOON).exits(255);
        let ended = ended.says("seconds: this session closes in 1 s.");
        ended.says("[holdfast] closed: idle for 2 seconds (role tech)");
    }
    took(began, 1);
    bare.wait(SOON)
        .exits(255)
        .says("idle for 2 seconds (role tech)");
}
