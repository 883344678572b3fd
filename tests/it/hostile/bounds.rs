//! A place is taken before a peer's message costs anything: floods against a relay that has 256 MiB, beside another
//! user who notices nothing.

use std::process::Stdio;
use std::time::{Duration, Instant};

use hostile::Outcome;

use super::fixture::Siege;
use crate::harness::{Device, Hostile, Running, SOON, Way, own_login, run, wait_for, wait_until};

#[test]
fn announced_connections_are_held_back() {
    let mut siege = Siege::new();
    let mallory = Hostile::online(&siege.relay, "mallory", "incoming-flood", 30_000);
    // Nothing listens behind it: the client refuses each channel, and the next one's turn comes.
    let mut listening = siege.ssh(&["-N", "-R", "8080:127.0.0.1:9"]);
    let mut listening = listening.stdout(Stdio::null()).spawn().unwrap();
    wait_until(SOON * 2, "the flood has begun", || {
        siege.audited("port.forward").len() > 20
    });
    for _ in 0..3 {
        siege.is_borne("connections on a port");
    }
    let rows = siege.audited("port.forward").len();
    assert!(rows < 400, "{rows} rows in the audit log");
    listening.kill().unwrap();
    listening.wait().unwrap();
    drop(mallory);
}

/// Each is opened at a target that answers, and broken off by the device: both are rows of the audit log and lines of
/// the relay's.
#[test]
fn announced_connections_that_are_dropped_are_summed() {
    let mut siege = Siege::new();
    let mallory = Hostile::online(&siege.relay, "mallory", "incoming-and-drop", 30_000);
    let mut listening = siege.user_of("serve", "mallory").unwrap();
    let (began, listening) = (Instant::now(), Running::start(&mut listening));
    wait_until(SOON * 3, "many connections have come", || {
        siege.target.taken() >= 400
    });
    siege.is_borne("connections that are dropped");
    let taken = siege.target.taken();
    // A minute may be over meanwhile, and in each some are written.
    let minutes = usize::try_from(began.elapsed().as_secs() / 60).unwrap() + 2;
    drop((listening, mallory));
    let rows = siege.audited("port.forward");
    let most = minutes * 125 + 2;
    assert!(rows.len() < most, "{} rows of {taken}", rows.len());
    let lines = siege.relay.log();
    let lines = |words: &str| lines.matches(words).count();
    let (opened, ended) = (lines("forward open"), lines("forward end"));
    assert!(
        opened + ended < minutes * 6 + 3,
        "{opened} and {ended} lines of {taken}"
    );
}

#[test]
fn announced_agent_connections_are_held_back() {
    let mut siege = Siege::new();
    let mallory = Hostile::online(&siege.relay, "mallory", "incoming-on-agent", 30_000);
    let mut session = siege.ssh(&["-A"]);
    session.arg("true").env("SSH_AUTH_SOCK", siege.agent());
    let session = Running::start(&mut session);
    wait_until(SOON * 2, "the flood has begun", || {
        siege.audited("agent.forward").len() > 20
    });
    siege.is_borne("connections to an agent");
    let rows = siege.audited("agent.forward").len();
    assert!(rows < 400, "{rows} rows in the audit log");
    drop((session, mallory));
}

#[test]
fn address_that_comes_again_ends_its_forward() {
    let mut siege = Siege::new();
    let mallory = Hostile::online(&siege.relay, "mallory", "address-flood", 15_000);
    // A client may take the end of a channel for its end in good order: what counts is what the relay says.
    run(&mut siege.ssh(&["-W", "localhost:80"]));
    let outcome = mallory.outcome(SOON * 2);
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    let rows = siege.audited("port.forward");
    assert!(rows.len() <= 3, "{} rows: {:?}", rows.len(), rows.first());
    let last = rows
        .iter()
        .filter_map(|row| row["reason"].as_str())
        .next_back();
    assert!(
        last.is_some_and(|why| why.contains("comes once")),
        "{last:?}"
    );
    siege.is_borne("addresses of a forward");
}

#[test]
fn joins_that_wait_have_places_and_one_source_not_all() {
    let mut siege = Siege::new();
    let within = Duration::from_secs(1);
    let mallory = Hostile::start_within(&siege.relay, "mallory", "join-and-wait", 300, within);
    let outcome = mallory.outcome(SOON * 3);
    let Outcome::Refused(refused) = &outcome else {
        panic!("{outcome:?}")
    };
    let refused: u32 = refused.split(' ').next().unwrap().parse().unwrap();
    assert!(refused > 100, "{refused} of 300 were refused");
    siege.is_borne("joins that wait");
    // When they are over, the wanted ones get in.
    wait_until(SOON, "a device joins", || {
        let late = Device::new("late");
        late.join(&siege.relay.token(&[]), &[]).status.success()
    });
}

#[test]
fn failed_joins_and_logins_write_some_lines_and_are_counted() {
    let mut siege = Siege::new();
    let mallory = Hostile::start(&siege.relay, "mallory", "join-with-wrong-secret", 60);
    mallory.outcome(SOON * 2);
    let lines = |what: &str| siege.relay.log().matches(what).count();
    assert!(
        (1..=5).contains(&lines("a device or a relay was not enrolled")),
        "{}",
        siege.relay.log()
    );
    siege.operator(&siege.alice, "alice", "untrusted-certificate", 10);
    assert!(
        (1..=5).contains(&lines("certificate refused")),
        "{}",
        siege.relay.log()
    );
    siege.is_borne("failed joins and logins");
}

#[test]
fn who_may_copy_nowhere_parks_nothing() {
    let mut siege = Siege::new();
    let eve = siege.relay.user("eve", &["auditor"]);
    let outcome = siege.operator(&eve, "eve", "spool-without-right", 64);
    let Outcome::Refused(why) = &outcome else {
        panic!("{outcome:?}")
    };
    assert!(why.starts_with("the command"), "{why}");
    siege.is_borne("a copy without a right");
}

/// The first session inside a jump is one with it; all that come on top count, whichever jump they are in.
#[test]
fn jumps_do_not_multiply_channels() {
    let mut siege = Siege::new();
    let policy = "limits = { max_channels = 2 }\n\
        allow = { labels = { '*' = '*' }, logins = ['*'], abilities = ['exec', 'shell'] }";
    let file = siege.relay.folder().join("pair.toml");
    std::fs::write(&file, format!("[roles.pair]\n{policy}\n")).unwrap();
    siege
        .relay
        .admin(&["apply", "-f", file.to_str().unwrap()])
        .ok();
    let carol = siege.relay.user("carol", &["pair"]);
    let socket = carol.folder().join("outer");
    let socket = socket.to_str().unwrap();
    let mut outer = carol.tool("ssh");
    outer.args(["-M", "-N", "-S", socket, "relay"]);
    let _outer = Running::start(&mut outer);
    wait_until(SOON, "the outer connection is open", || {
        let mut check = carol.tool("ssh");
        run(check.args(["-S", socket, "-O", "check", "relay"]))
            .status
            .success()
    });
    let config = carol.config();
    let proxy = format!(
        "ProxyCommand=ssh -F {} -S {socket} -W %h:22 relay",
        config.display()
    );
    let inner = |more: &[&str]| {
        let mut ssh = carol.tool("ssh");
        ssh.args(["-o", &proxy]).args(more);
        ssh.arg(format!("{}@kitchen-cam.fleet", own_login()));
        ssh.arg("echo started; cat");
        ssh
    };
    let shared = carol.folder().join("inner");
    let shared = ["-S", shared.to_str().unwrap()];
    let first = Running::start(&mut inner(&[&["-M"], &shared[..]].concat()));
    wait_until(SOON, "the first session", || {
        first.out().contains("started")
    });
    let mut second = Running::start(&mut inner(&shared));
    wait_until(SOON, "the second session", || {
        second.out().contains("started")
    });
    let third = run(&mut inner(&[]));
    assert_eq!(third.status.code(), Some(255), "{third}");
    // The log is written beside the answer.
    let why = wait_for(SOON, "the refusal in the log", || {
        let rows = siege.audited("session.rejected");
        rows.last()?["reason"].as_str().map(str::to_owned)
    });
    assert!(why.contains("too many channels"), "{why}");
    // What is closed makes room: for a jump, and the session inside.
    second.end_input();
    second.wait(SOON).ok();
    wait_until(SOON, "a second jump", || {
        let mut ssh = inner(&[]);
        run(ssh.stdin(Stdio::null())).status.success()
    });
    siege.is_borne("jumps");
}

#[test]
fn forwards_that_lead_nowhere_write_a_bounded_number_of_rows() {
    let mut siege = Siege::new();
    let user = format!("{}+kitchen-cam", own_login());
    siege.operator(&siege.alice, &user, "forward-flood", 300);
    let failed = || {
        let listing = ["audit", "--json", "--event", "port.forward", "--limit", "0"];
        let rows = siege.relay.admin(&listing).ok().out();
        rows.matches("\"failed\"").count()
    };
    wait_until(SOON, "as many rows as are written singly", || {
        failed() >= 100
    });
    // What a session writes is written behind all of them.
    siege.alice.exec(Way::Direct, "kitchen-cam", "true").ok();
    assert!(failed() <= 102, "{} rows", failed());
    siege.is_borne("forwards that lead nowhere");
}
