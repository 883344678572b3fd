//! The health checks, as a load balancer asks for them.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use holdfast_tests::postgres::OwnServer;
use rustix::process::Signal;

use crate::balancer::haproxy::Haproxy;
use crate::harness::{
    Daemon, Device, Relay, Running, SOON, Site, Way, own_login, run, wait_for, wait_until,
};

/// The relay's bounds (`relay/src/web/limits.rs`).
const MAX_HEALTH_CONNECTIONS: usize = 32;
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);

/// A relay that was never started, with health checks at this address.
fn relay(more: &str) -> (Relay, SocketAddr) {
    let mut relay = Relay::new(&[]);
    // No other test uses the relay's address, so the port stays free.
    let free = TcpListener::bind((relay.ssh().ip(), 0)).unwrap();
    let health = free.local_addr().unwrap();
    let file = relay.folder().join("relay.toml");
    fs::write(&file, format!("{more}[health]\nlisten = \"{health}\"\n")).unwrap();
    relay.add_flags(&["--config", file.to_str().unwrap()]);
    (relay, health)
}

/// Says this, and returns all that comes back.
fn answer(health: SocketAddr, request: &str) -> String {
    let Ok(mut stream) = TcpStream::connect(health) else {
        return String::new();
    };
    stream.set_read_timeout(Some(SOON)).unwrap();
    let _ = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// Asks for a path; returns the status and the sentence.
pub(crate) fn get(health: SocketAddr, path: &str) -> (String, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: relay\r\n\r\n");
    let answer = answer(health, &request);
    let status = answer.split(' ').nth(1).unwrap_or_default().to_owned();
    let (_, sentence) = answer.split_once("\r\n\r\n").unwrap_or_default();
    (status, sentence.trim_end().to_owned())
}

#[track_caller]
fn is_ready(health: SocketAddr) {
    let ready = ("200".to_owned(), "the relay takes logins".to_owned());
    wait_until(SOON, "the relay is ready", || {
        get(health, "/readyz") == ready
    });
}

/// Waits until the relay is not ready, for this reason. It runs all the same.
#[track_caller]
fn is_not_ready(health: SocketAddr, why: &str) {
    wait_until(SOON, why, || {
        let (status, sentence) = get(health, "/readyz");
        status == "503" && sentence.contains(why)
    });
    assert_eq!(get(health, "/healthz").0, "200");
}

#[test]
fn relay_is_ready_while_its_database_answers() {
    let mut server = OwnServer::start();
    let made = server
        .get()
        .psql("CREATE DATABASE relay TEMPLATE template0");
    made.unwrap();
    let (mut relay, health) = relay("");
    relay.add_flags(&["--database", &server.get().url("relay")]);
    relay.start_again();
    assert!(relay.out().contains(&format!(" health={health}\n")));
    is_ready(health);
    assert_eq!(get(health, "/healthz").1, "the relay runs");
    let doctor = relay.admin(&["doctor"]).out();
    assert!(
        doctor.contains("/readyz says that the relay takes logins"),
        "{doctor}"
    );
    let away = "the relay's database does not answer";
    server.hang(true);
    is_not_ready(health, away);
    server.hang(false);
    is_ready(health);
    server.crash();
    is_not_ready(health, away);
    server.restart();
    is_ready(health);
    relay.terminate(SOON);
    assert_eq!(get(health, "/healthz").0, "");

    // While it starts, it waits for the database for some seconds.
    server.hang(true);
    let mut starting = Daemon::start("starting", &mut relay.serve_command(), relay.folder());
    is_not_ready(health, "the relay is starting");
    server.hang(false);
    wait_for(SOON, "the relay serves, or has given up", || {
        let serves = get(health, "/readyz").0 == "200";
        (serves || starting.ended().is_some()).then_some(())
    });
}

#[test]
fn relay_that_stops_is_not_ready_and_still_runs() {
    let (mut relay, health) = relay("drain_grace = \"20s\"\n");
    relay.start_again();
    let mut site = Site::on(relay, Device::new("kitchen-cam"));
    let mut session = site.alice.ssh(Way::Direct, &own_login(), "kitchen-cam");
    let mut session = Running::start(session.arg("echo started; cat"));
    session.wait_out("started");
    is_ready(health);
    site.relay.signal(Signal::TERM);
    is_not_ready(health, "the relay is stopping, and takes no new logins");
    session.write("still here\n");
    session.wait_out("still here");
    session.end_input();
    session.wait(SOON).exits(0);
    assert!(site.relay.wait(SOON).success());
}

#[test]
fn only_two_paths_are_answered() {
    let (mut relay, health) = relay("");
    relay.start_again();
    for (request, status) in [
        ("GET / HTTP/1.1", "404"),
        ("GET /healthz/x HTTP/1.1", "404"),
        ("GET /healthz?x HTTP/1.0", "200"),
        ("HEAD /readyz HTTP/1.1", "200"),
        ("POST /readyz HTTP/1.1", "405"),
        ("SSH-2.0-OpenSSH_9.2p1", "400"),
        ("GET /healthz HTTP/3.9", "400"),
    ] {
        let answer = answer(health, &format!("{request}\r\nHost: relay\r\n\r\n"));
        let found = answer.split(' ').nth(1).unwrap_or_default();
        assert_eq!(found, status, "{request}: {answer}");
    }
    let fields = |count: usize, long: usize| {
        let field = format!("X-Field: {}\r\n", "x".repeat(long)).repeat(count);
        format!("GET /healthz HTTP/1.1\r\n{field}\r\n")
    };
    assert!(answer(health, &fields(20, 10)).contains(" 200 "));
    for too_much in [fields(40, 10), fields(1, 20_000)] {
        let refused = answer(health, &too_much);
        assert!(refused.is_empty() || refused.contains(" 431 "), "{refused}");
    }

    let mut second = Relay::new(&[]);
    let file = relay.folder().join("relay.toml");
    second.add_flags(&["--config", file.to_str().unwrap()]);
    let refused = run(&mut second.serve_command()).exits(1);
    refused.says(&format!(
        "cannot listen for health checks on {health}, as [health] says: Address already in use"
    ));
}

#[test]
fn health_checks_that_do_not_end_are_bounded() {
    let (mut relay, health) = relay("");
    relay.start_again();
    is_ready(health);
    let began = Instant::now();
    let open = || {
        let mut stream = TcpStream::connect(health).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(b"GET /healthz").unwrap();
        stream
    };
    let mut held: Vec<TcpStream> = (0..MAX_HEALTH_CONNECTIONS).map(|_| open()).collect();
    // One more is closed at once.
    let ends = |stream: &mut TcpStream| {
        let mut nothing = Vec::new();
        let _ = stream.read_to_end(&mut nothing);
        began.elapsed()
    };
    let refused = ends(&mut open());
    assert!(refused < HEALTH_TIMEOUT, "{refused:?}");
    for stream in &mut held {
        let ended = ends(stream);
        assert!(ended >= HEALTH_TIMEOUT && ended < SOON, "{ended:?}");
    }
    is_ready(health);
}

#[test]
fn balancer_asks_for_readiness() {
    let from = Ipv4Addr::new(127, 9, 8, 7);
    let (mut relay, health) = relay(&format!("proxy_protocol = [\"{from}\"]\n"));
    relay.start_again();
    let port = format!("default-server port {}", health.port());
    let haproxy = Haproxy::before(&relay, from, &["option httpchk GET /readyz", &port]);
    haproxy.await_state("UP");
    relay.kill();
    haproxy.await_state("DOWN");
}
