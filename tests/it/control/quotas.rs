//! Connections, sessions and channels: up to the limit and no further, and every slot comes back.

use rustix::process::Signal;

use super::{audited, role, started};
use crate::harness::{
    Running, SOON, Site, SshClient, Way, block_on, command, own_login, run, wait_until,
};

const CONNECTIONS: &str = "too many concurrent connections for user \"bob\" (max 2)";
const SESSIONS: &str = "too many concurrent sessions for user \"bob\" (max 2): close one, or see `";

#[test]
fn a_connection_too_many_is_refused_with_the_limit() {
    let site = Site::new();
    role(&site.relay, "tech", "limits = { max_connections = 2 }");
    let bob = site.relay.user("bob", &["tech"]);
    let first = started(&bob, Way::Direct, "cat");
    // A jump is one connection, and not two.
    let second = started(&bob, Way::Jump, "cat");
    for way in Way::BOTH {
        bob.exec(way, "kitchen-cam", "true")
            .exits(255)
            .says(CONNECTIONS);
    }
    // Others have limits of their own.
    site.exec(Way::Direct, "true").ok();
    for client in [first, second] {
        client.signal(Signal::KILL);
        bob.exec(Way::Direct, "kitchen-cam", "true").ok();
    }
    let rows = audited(&site.relay, "session.rejected", "bob");
    assert_eq!(rows.len(), 2);
    assert_eq!(
        (&rows[0]["reason"], &rows[0]["outcome"]),
        (&CONNECTIONS.into(), &"refused".into())
    );
}

#[test]
fn a_session_too_many_is_refused_with_the_limit() {
    let site = Site::new();
    role(&site.relay, "tech", "limits = { max_sessions = 2 }");
    let bob = site.relay.user("bob", &["tech"]);
    let first = started(&bob, Way::Direct, "cat");
    let second = started(&bob, Way::Jump, "cat");
    // The place where this relay is, and not one of an example.
    let (host, port) = (site.relay.ssh().ip(), site.relay.ssh().port());
    let sessions = format!("see `ssh -p {port} {host} sessions`");
    for way in Way::BOTH {
        let refused = bob.exec(way, "kitchen-cam", "echo inside").exits(255);
        let refused = refused.says(SESSIONS).says(&sessions);
        assert_eq!(refused.out(), "", "{way:?}");
    }
    // sftp is a session too; the console is not, so that who is at the limit can make room.
    let mut sftp = bob.tool("sftp");
    run(sftp.arg(Way::Direct.destination(&own_login(), "kitchen-cam")))
        .exits(255)
        .says(SESSIONS);
    let listed = || run(bob.console().arg("sessions --json")).ok().out();
    wait_until(SOON, "both sessions in the list", || {
        listed().matches("\"user\": \"bob\"").count() == 2
    });
    let whoami = run(bob.console().arg("whoami")).ok().out();
    assert!(whoami.contains("at most 2: 2 in use, 0 left"), "{whoami}");
    wait_until(SOON, "the count of refusals", || {
        let found = site.relay.admin(&["doctor"]).ok().out();
        found.contains("refused 0 connections, 3 sessions, 0 channels")
    });
    first.signal(Signal::KILL);
    bob.exec(Way::Jump, "kitchen-cam", "true").ok();
    drop(second);
}

#[test]
fn a_channel_too_many_is_refused() {
    let site = Site::new();
    role(&site.relay, "tech", "limits = { max_channels = 2 }");
    let bob = site.relay.user("bob", &["tech"]);
    block_on(async {
        let client = SshClient::connect(&site.relay, &bob, Way::Direct, "kitchen-cam").await;
        for _ in 0..3 {
            let mut sessions = Vec::new();
            for _ in 0..2 {
                let mut session = client.exec("echo started; cat").await;
                session.wait_out("started").await;
                sessions.push(session);
            }
            // However often it is tried: a refused channel leaves nothing behind.
            for _ in 0..70 {
                assert!(client.try_open().await.is_none());
            }
            for session in sessions {
                session.close().await;
            }
        }
    });
    let rows = audited(&site.relay, "session.rejected", "bob");
    let text = "too many channels on one connection of user \"bob\" (max 2)";
    assert!(rows.iter().all(|row| row["reason"] == text) && !rows.is_empty());
}

#[test]
fn fifty_logins_at_once_at_a_limit_of_three_give_three() {
    let site = Site::new();
    role(&site.relay, "tech", "limits = { max_connections = 3 }");
    let bob = site.relay.user("bob", &["tech"]);
    let start = || {
        let mut ssh = bob.ssh(Way::Direct, &own_login(), "kitchen-cam");
        Running::start(ssh.arg("echo started; cat"))
    };
    let mut clients: Vec<Running> = (0..50).map(|_| start()).collect();
    let is_in = |client: &Running| client.out().contains("started");
    wait_until(SOON * 5, "an answer for each", || {
        clients
            .iter_mut()
            .all(|client| is_in(client) || !client.is_alive())
    });
    let (inside, outside): (Vec<_>, Vec<_>) = clients.into_iter().partition(is_in);
    assert_eq!((inside.len(), outside.len()), (3, 47));
    for client in outside {
        let text = "too many concurrent connections for user \"bob\" (max 3)";
        client.wait(SOON).exits(255).says(text);
    }
    for mut client in inside {
        client.end_input();
        client.wait(SOON).ok();
    }
}

#[test]
fn commands_by_twenty_at_a_limit_of_twenty_are_never_refused() {
    let site = Site::new();
    role(
        &site.relay,
        "tech",
        "limits = { max_connections = 20, max_sessions = 20 }",
    );
    let bob = site.relay.user("bob", &["tech"]);
    let line = format!(
        "seq 500 | xargs -P20 -I% ssh -F {} {} echo %",
        bob.config().display(),
        Way::Direct.destination(&own_login(), "kitchen-cam")
    );
    let all = Running::start(command("sh").args(["-c", &line])).wait(SOON * 9);
    let all = all.ok();
    assert_eq!(all.err(), "");
    let mut numbers: Vec<u32> = all
        .out()
        .lines()
        .map(|line| line.parse().unwrap())
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=500).collect::<Vec<_>>());
}

#[test]
fn a_slot_comes_back_whatever_ends_its_session() {
    let mut site = Site::new();
    role(
        &site.relay,
        "tech",
        "limits = { max_connections = 1, max_sessions = 1 }",
    );
    let bob = site.relay.user("bob", &["tech"]);
    for way in Way::BOTH {
        // Its process ended, its client was killed, its device was lost.
        let session = started(&bob, way, "exit 3");
        session.wait(SOON).exits(3);
        started(&bob, way, "cat").signal(Signal::KILL);
        let session = started(&bob, way, "cat");
        site.device.kill();
        site.device.run();
        session
            .wait(SOON)
            .exits(255)
            .says("the tunnel to kitchen-cam was lost");
        site.device.wait_online(&site.relay);
        bob.exec(way, "kitchen-cam", "true").ok();
    }
    // What a killed relay held is free.
    let session = started(&bob, Way::Direct, "cat");
    site.relay.kill();
    session.wait(SOON).exits(255);
    site.relay.start_again();
    site.device.wait_online(&site.relay);
    bob.exec(Way::Direct, "kitchen-cam", "true").ok();
}

#[test]
fn a_lowered_limit_ends_nothing_and_admits_nothing_more() {
    let site = Site::new();
    role(&site.relay, "tech", "limits = { max_sessions = 3 }");
    let bob = site.relay.user("bob", &["tech"]);
    let mut sessions: Vec<Running> = (0..3).map(|_| started(&bob, Way::Direct, "cat")).collect();
    role(&site.relay, "tech", "limits = { max_sessions = 2 }");
    for session in &mut sessions {
        session.write("still here\n");
        session.wait_out("still here");
    }
    bob.exec(Way::Direct, "kitchen-cam", "true")
        .exits(255)
        .says(SESSIONS);
    for (left, mut session) in (0..3).rev().zip(sessions) {
        session.end_input();
        session.wait(SOON).ok();
        let next = bob.exec(Way::Direct, "kitchen-cam", "true");
        assert_eq!(next.code() == 0, left < 2, "{left} left: {next}");
    }
}
