//! A log that cannot be written: no new session, a clear text, and recovery by itself.

use super::*;
use std::net::Ipv4Addr;

/// The relay's log names the file, and what follows until it can be written.
#[track_caller]
fn is_said(relay: &Relay, file: &std::path::Path, follows: &str) {
    let log = relay.log();
    let line = log
        .lines()
        .find(|line| line.contains("the audit log cannot be written"));
    let line = line.unwrap_or_default();
    assert!(
        line.contains(&format!("cannot write {}", file.display())),
        "{log}"
    );
    assert!(line.contains(follows), "{log}");
}

#[test]
fn without_a_log_no_session_starts_and_with_it_they_do_again() {
    let (mut relay, file) = relay_with_file("");
    link_to_full(&file);
    relay.start_again();
    let alice = relay.admin_user();
    let _device = Device::online(&relay, "kitchen-cam");
    for way in Way::BOTH {
        is_refused(try_session(&alice, way));
    }
    // The console works: an admin has to look into it.
    run(alice.console().arg("devices")).ok();
    is_said(&relay, &file, "until then new sessions are refused");
    let found = |level: &str| {
        let doctor = run(alice.console().arg("doctor"));
        let is_found = doctor.out().lines().any(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some(level) && words.next() == Some("audit")
        });
        is_found.then_some(doctor)
    };
    let problem = wait_for(SOON, "the doctor", || found("problem"));
    let problem = problem.exits(1).out();
    assert!(problem.contains(file.to_str().unwrap()), "{problem}");
    fs::remove_file(&file).unwrap();
    wait_until(SOON, "sessions start again", || {
        try_session(&alice, Way::Direct).code() == 0
    });
    try_session(&alice, Way::Jump).ok();
    wait_for(SOON, "the doctor", || found("ok"));
    // Nothing is missing of the time in between: the table has it all.
    let id = newest(&relay);
    is_unbroken(&ids(&wait_file(&file, id)));
}

#[test]
fn a_running_session_lives_on_while_the_log_cannot_be_written() {
    let (mut relay, file) = relay_with_file("");
    relay.start_again();
    let alice = relay.admin_user();
    let device = Device::online(&relay, "kitchen-cam");
    let mut ssh = alice.ssh(Way::Direct, &own_login(), device.name());
    let mut session = Running::start(ssh.arg("echo started; read line; echo $line"));
    session.wait_out("started");
    link_to_full(&file);
    relay.token(&[]);
    wait_until(SOON, "new ones are refused", || {
        try_session(&alice, Way::Direct).code() == 255
    });
    is_refused(try_session(&alice, Way::Direct));
    session.write("still here\n");
    assert_eq!(session.wait(SOON).ok().out(), "started\nstill here\n");
}

#[test]
fn with_continue_sessions_go_on_without_a_log() {
    let (mut relay, file) = relay_with_file("when_unwritable = \"continue\"");
    link_to_full(&file);
    relay.start_again();
    let alice = relay.admin_user();
    let _device = Device::online(&relay, "kitchen-cam");
    wait_until(SOON, "the relay says so", || {
        relay.log().contains("the audit log cannot be written")
    });
    is_said(&relay, &file, "sessions go on");
    for way in Way::BOTH {
        try_session(&alice, way).ok();
    }
}

#[test]
fn a_full_disk_refuses_sessions_until_there_is_room_again() {
    if !needs_mounts() {
        return;
    }
    let mut relay = Relay::new(&[]);
    let disk = relay.folder().join("disk");
    fs::create_dir(&disk).unwrap();
    configure(
        &mut relay,
        &format!("file = {:?}", disk.join("audit.jsonl")),
    );
    let mount = "mount -t tmpfs -o size=256k none \"$0\" && exec \"$@\"";
    let wrapper = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        mount,
    ];
    let wrapper = [&wrapper[..], &[disk.to_str().unwrap()]].concat();
    let mut relay = relay.wrapped(&wrapper, Ipv4Addr::LOCALHOST);
    relay.start_again();
    let alice = relay.admin_user();
    let _device = Device::online(&relay, "kitchen-cam");
    try_session(&alice, Way::Direct).ok();

    // As the relay sees the disk: in its own mount namespace.
    let inside = PathBuf::from(format!("/proc/{}/root{}", relay.id(), disk.display()));
    let file = inside.join("audit.jsonl");
    wait_file(&file, newest(&relay));
    let filler = inside.join("filler");
    assert!(
        fs::write(&filler, vec![b'x'; 1024 * 1024]).is_err(),
        "the disk is small"
    );
    for _ in 0..20 {
        relay.token(&["--label", "note=to-fill-what-is-left-of-the-last-page"]);
    }
    wait_until(SOON, "sessions are refused", || {
        try_session(&alice, Way::Direct).code() == 255
    });
    is_refused(try_session(&alice, Way::Jump));
    fs::remove_file(&filler).unwrap();
    wait_until(SOON, "sessions start again", || {
        try_session(&alice, Way::Direct).code() == 0
    });
    let id = newest(&relay);
    let rows = wait_file(&file, id);
    is_unbroken(&ids(&rows));
}
