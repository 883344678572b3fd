//! A TCP load balancer before the relay: Debian's haproxy, and headers that are written out.

pub(crate) mod haproxy;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Instant;

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use serde_json::Value;

use self::haproxy::Haproxy;
use crate::harness::{Device, Relay, SOON, Site, Way, run, wait_until};

/// The address that the balancer's connections come from, alone in `proxy_protocol`.
const BALANCER: Ipv4Addr = Ipv4Addr::new(127, 9, 8, 7);

/// The first bytes of a header: signature, version and command, family, length.
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// The relay's bound (`relay/src/ssh/limits.rs`).
const MAX_UNAUTHENTICATED_PER_SOURCE: usize = 64;

fn relay() -> Relay {
    relay_with_log("relay=info")
}

fn relay_with_log(level: &str) -> Relay {
    let mut relay = Relay::new(&[]);
    relay.set_env("RUST_LOG", level);
    let file = relay.folder().join("relay.toml");
    fs::write(&file, format!("proxy_protocol = [\"{BALANCER}\"]\n")).unwrap();
    relay.add_flags(&["--config", file.to_str().unwrap()]);
    relay.start_again();
    relay
}

/// A connection to the relay from an address of this machine, and what was written first on it.
fn from(address: Ipv4Addr, relay: &Relay, first: &[u8]) -> TcpStream {
    let made = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&made, &SocketAddr::from((address, 0))).unwrap();
    connect(&made, &relay.ssh()).unwrap();
    let mut stream = TcpStream::from(made);
    stream.set_read_timeout(Some(SOON)).unwrap();
    // The relay may have closed it before all is written.
    let _ = stream.write_all(first);
    stream
}

/// The header of a connection that a client of the balancer has made.
fn header(client: Ipv4Addr) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    bytes.extend(client.octets());
    bytes.extend([203, 0, 113, 1, 0xc3, 0x50, 0, 22]);
    bytes
}

/// All that the relay says before it closes.
fn said(stream: &mut TcpStream) -> String {
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said);
    String::from_utf8_lossy(&said).into_owned()
}

/// The first bytes that the relay says.
fn greeting(stream: &mut TcpStream) -> String {
    let mut first = [0; 8];
    match stream.read_exact(&mut first) {
        Ok(()) => String::from_utf8_lossy(&first).into_owned(),
        Err(error) => error.to_string(),
    }
}

fn await_log(relay: &Relay, words: &str) {
    wait_until(SOON, words, || relay.log().contains(words));
}

#[test]
fn client_behind_a_balancer_keeps_its_address() {
    let site = Site::on(relay(), Device::new("kitchen-cam"));
    let relay = &site.relay;
    let haproxy = Haproxy::before(relay, BALANCER, &[]);
    let policy = "[roles.tech]\nsource = ['127.77.0.0/16']\n[roles.tech.allow]\n\
        labels = { '*' = '*' }\nlogins = ['*']\nabilities = ['exec']\n";
    let file = relay.folder().join("policy.toml");
    fs::write(&file, policy).unwrap();
    relay.admin(&["apply", "-f", file.to_str().unwrap()]).ok();
    let bob = relay.user("bob", &["tech"]);
    let config = fs::read_to_string(bob.config()).unwrap();
    let exec = |address: &str, way| {
        fs::write(bob.config(), haproxy.client(relay, &config, address)).unwrap();
        bob.exec(way, "kitchen-cam", "echo $SSH_CONNECTION")
    };
    let (ip, port) = (haproxy.address().ip(), haproxy.address().port());
    for way in Way::BOTH {
        let output = exec("127.77.1.2", way).ok().out();
        assert!(output.starts_with("127.77.1.2 "), "{output}");
        assert!(output.ends_with(&format!(" {ip} {port}\n")), "{output}");
        let refused = exec("127.78.1.2", way).exits(255);
        refused.says("no role of user \"bob\" may be used from 127.78.1.2");
    }
    let rows = relay
        .admin(&["audit", "--json", "--event", "user.login"])
        .ok();
    let clients: Vec<String> = rows
        .out()
        .lines()
        .map(|row| serde_json::from_str::<Value>(row).unwrap())
        .filter(|row| row["user"] == "bob")
        .map(|row| row["client"].as_str().unwrap().to_owned())
        .collect();
    assert!(!clients.is_empty());
    for client in clients {
        let (client, _) = client.rsplit_once(':').unwrap();
        assert!(["127.77.1.2", "127.78.1.2"].contains(&client), "{client}");
    }
    // A lock on an address is one on the client's, and not on the balancer's.
    let lock = |address: &str| {
        relay
            .admin(&["lock", "address", address, "--message", "stolen"])
            .ok();
    };
    lock(&BALANCER.to_string());
    exec("127.77.1.3", Way::Direct).ok();
    lock("127.77.1.2");
    exec("127.77.1.2", Way::Direct).exits(255).says("stolen");
    exec("127.77.1.3", Way::Direct).ok();
    // Without a balancer between all is as it was.
    run(site.alice.console().arg("devices")).ok();
}

#[test]
fn bounds_of_a_source_are_those_of_the_client() {
    let relay = relay();
    let (noisy, other) = (
        Ipv4Addr::new(198, 51, 100, 1),
        Ipv4Addr::new(198, 51, 100, 2),
    );
    let mut held = Vec::new();
    for _ in 0..MAX_UNAUTHENTICATED_PER_SOURCE {
        let mut stream = from(BALANCER, &relay, &header(noisy));
        assert_eq!(greeting(&mut stream), "SSH-2.0-");
        held.push(stream);
    }
    let refused = said(&mut from(BALANCER, &relay, &header(noisy)));
    assert!(
        refused.contains("too many connections that have not logged in"),
        "{refused}"
    );
    let mut stream = from(BALANCER, &relay, &header(other));
    assert_eq!(greeting(&mut stream), "SSH-2.0-");
    // The places of those that have ended are free again.
    drop(held);
    wait_until(SOON, "the source has room again", || {
        greeting(&mut from(BALANCER, &relay, &header(noisy))) == "SSH-2.0-"
    });
}

#[test]
fn header_is_required_from_a_balancer_and_nowhere_else() {
    let relay = relay();
    let ssh = b"SSH-2.0-OpenSSH_9.2p1\r\n";
    let mut long = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff".to_vec();
    long.extend([0; 2_000]);
    let cut = header(Ipv4Addr::LOCALHOST);
    for (first, came) in [
        (&ssh[..], "it began with the greeting of an SSH client"),
        (
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
            "it began with a line of version 1",
        ),
        (&long, "it began with a header of version 2 of 65551 bytes"),
        (&cut[..20], "the connection ended behind 20 of its bytes"),
    ] {
        let mut stream = from(BALANCER, &relay, first);
        if first.len() == 20 {
            stream.shutdown(Shutdown::Write).unwrap();
        }
        let sentence = said(&mut stream);
        assert!(
            sentence.contains("need a header of the PROXY protocol"),
            "{sentence}"
        );
        await_log(&relay, came);
    }
    let began = Instant::now();
    let sentence = said(&mut from(BALANCER, &relay, &cut[..20]));
    let waited = began.elapsed();
    assert!(
        sentence.contains("need a header of the PROXY protocol"),
        "{sentence}"
    );
    assert!((4..8).contains(&waited.as_secs()), "{waited:?}");
    await_log(&relay, "20 of its bytes came within 5 s");
    // So many lines a minute of one source.
    for _ in 0..20 {
        said(&mut from(BALANCER, &relay, ssh));
    }
    let lines = relay
        .log()
        .matches("its address is in `proxy_protocol`")
        .count();
    assert!((5..=10).contains(&lines), "{}", relay.log());

    let mut checked = from(BALANCER, &relay, LOCAL);
    assert_eq!(greeting(&mut checked), "SSH-2.0-");
    let elsewhere = Ipv4Addr::new(127, 9, 8, 6);
    for first in [LOCAL, &header(Ipv4Addr::LOCALHOST), b"PROXY UNKNOWN\r\n"] {
        let before = relay
            .log()
            .matches("in no network of `proxy_protocol`")
            .count();
        let refused = said(&mut from(elsewhere, &relay, first));
        assert!(
            refused.contains("Invalid SSH identification string"),
            "{refused}"
        );
        wait_until(SOON, "the log says so", || {
            relay
                .log()
                .matches("in no network of `proxy_protocol`")
                .count()
                > before
        });
    }
    await_log(&relay, &format!("add \"{elsewhere}\" there"));
    assert_eq!(greeting(&mut from(elsewhere, &relay, ssh)), "SSH-2.0-");
}

#[test]
fn second_header_is_that_of_the_balancers_client() {
    let relay = relay();
    let client = Ipv4Addr::new(198, 51, 100, 1);
    for own in [&header(Ipv4Addr::LOCALHOST)[..], b"PROXY UNKNOWN\r\n"] {
        let before = relay
            .log()
            .matches("behind that of the load balancer")
            .count();
        let both = [&header(client), own].concat();
        let refused = said(&mut from(BALANCER, &relay, &both));
        assert!(
            refused.contains("Invalid SSH identification string"),
            "{refused}"
        );
        wait_until(SOON, "the log says so", || {
            relay
                .log()
                .matches("behind that of the load balancer")
                .count()
                > before
        });
    }
    let log = relay.log();
    assert!(log.contains(&format!("balancer={BALANCER}:")), "{log}");
    assert!(log.contains(&format!("client={client}:")), "{log}");
    // Nothing advises to trust the client.
    assert!(
        !log.contains("there if") && !log.contains("add \""),
        "{log}"
    );
}

#[test]
fn balancer_checks_the_relay_and_sends_no_client_to_a_dead_one() {
    let mut relay = relay_with_log("relay=debug");
    let haproxy = Haproxy::before(
        &relay,
        BALANCER,
        &["option tcp-check", "tcp-check expect string SSH-2.0-"],
    );
    haproxy.await_state("UP");
    // After some checks no line of the log is about one.
    wait_until(SOON, "some checks", || {
        relay.log().matches("SSH connection closed").count() > 3
    });
    for word in ["PROXY protocol", "no login within"] {
        assert!(!relay.log().contains(word), "{}", relay.log());
    }
    relay.kill();
    haproxy.await_state("DOWN");
    relay.start_again();
    haproxy.await_state("UP");
    let alice = relay.admin_user();
    let config = fs::read_to_string(alice.config()).unwrap();
    fs::write(
        alice.config(),
        haproxy.client(&relay, &config, "127.77.1.2"),
    )
    .unwrap();
    run(alice.console().arg("devices")).ok();
}
