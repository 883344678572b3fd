//! The idle cutoff, with the real clock.

use std::fs;
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

#[test]
fn a_quiet_command_is_warned_and_ended() {
    let (site, bob) = site();
    let began = Instant::now();
    // What it says is no activity, and what we say is not in its data.
    let sessions = Way::BOTH.map(|way| started(&bob, way, "while sleep 0.5; do echo tick; done"));
    for session in sessions {
        let ended = session.wait(SOON).exits(255).says(WARNED).says(CLOSED);
        assert!(!ended.err().contains("Press any key"), "{ended}");
        let out = ended.out();
        assert!(
            out.lines().all(|line| line == "started" || line == "tick"),
            "{out}"
        );
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
    let on_master = |line: &str| {
        let mut ssh = bob.ssh(Way::Direct, &own_login(), "kitchen-cam");
        ssh.args([
            "-o",
            &mux,
            "-o",
            "ControlMaster=auto",
            "-o",
            "ControlPersist=no",
        ]);
        Running::start(ssh.arg(line))
    };
    let mut busy = on_master("echo started; cat");
    busy.wait_out("started");
    let mut forgotten = on_master("echo started; cat");
    forgotten.wait_out("started");
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
    let mut sessions = Way::BOTH.map(|way| started(&bob, way, "cat"));
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
