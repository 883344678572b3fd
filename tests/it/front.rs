//! The SSH front: which keys and algorithms it takes, and what it bears from clients that have not logged in.

mod peer;
mod security_key;

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use russh::keys::HashAlg;
use serde_json::Value;

use crate::harness::{
    Device, KeyKind, Relay, Running, SOON, SshClient, User, Way, block_on, make_key, needs_program,
    run, wait_until,
};
pub(crate) use peer::Peer;
use security_key::{Fault, SecurityKey};

/// The relay's bounds (`relay/src/ssh/limits.rs`).
const MAX_KEY_OFFERS: usize = 32;
const MAX_UNAUTHENTICATED_PER_SOURCE: usize = 64;
const MAX_CHANNELS: usize = 64;

#[test]
fn every_kind_of_key_logs_in() {
    let relay = Relay::start();
    for (name, kind) in [
        ("ed25519", KeyKind::Ed25519),
        ("ecdsa-256", KeyKind::Ecdsa256),
        ("ecdsa-384", KeyKind::Ecdsa384),
        ("ecdsa-521", KeyKind::Ecdsa521),
        ("rsa-3072", KeyKind::Rsa3072),
    ] {
        let user = relay.user_with(name, kind, &["admin"]);
        let output = run(user.console().arg("whoami")).ok();
        assert!(output.out().contains(name), "{output}");
    }
}

#[test]
fn a_security_key_proves_its_user_and_only_by_what_it_signed() {
    let relay = Relay::start();
    for name in ["sk-ed25519", "sk-ecdsa"] {
        let make = match name {
            "sk-ecdsa" => SecurityKey::ecdsa,
            _ => SecurityKey::ed25519,
        };
        for (fault, key) in [
            Fault::None,
            Fault::OtherMessage,
            Fault::OtherApplication,
            Fault::OtherCounter,
        ]
        .map(|fault| (fault, make().with(fault)))
        {
            let name = format!("{name}-{}", fault as u8);
            // Made with a key of its own, which the relay does not know.
            let user = User::stranger(&relay, &name, KeyKind::Ed25519);
            let public = user.folder().join("security.pub");
            fs::write(&public, key.line()).unwrap();
            relay
                .admin(&["user", "add", &name, "--key", public.to_str().unwrap()])
                .ok();
            let socket = key.serve(&user.folder().join("agent"));
            let mut ssh = user.tool("ssh");
            ssh.arg(format!("-oIdentityAgent={}", socket.display()));
            ssh.arg(format!("-oIdentityFile={}", public.display()));
            let output = run(ssh.args(["relay", "whoami"]));
            if fault == Fault::None {
                assert!(output.ok().out().contains(&name));
            } else {
                output.exits(255).says("Permission denied (publickey)");
            }
            relay.admin(&["user", "rm", &name]).ok();
        }
    }
}

#[test]
fn rsa_signs_with_sha2_only() {
    let relay = Relay::start();
    let user = relay.user_with("alice", KeyKind::Rsa3072, &["admin"]);
    let with = |algorithm: &str| {
        let mut ssh = user.tool("ssh");
        ssh.arg(format!("-oPubkeyAcceptedAlgorithms={algorithm}"));
        run(ssh.args(["relay", "whoami"]))
    };
    with("rsa-sha2-256").ok();
    with("rsa-sha2-512").ok();
    with("ssh-rsa")
        .exits(255)
        .says("Permission denied (publickey)");
    // OpenSSH's client asks for what the relay says that it takes. This one signs all the same.
    let proves = |hash| block_on(SshClient::proves_by_rsa(&relay, &user, hash));
    assert!(proves(Some(HashAlg::Sha512)));
    assert!(!proves(None), "a SHA-1 signature was taken for proof");
}

#[test]
fn what_it_speaks_is_modern() {
    let relay = Relay::start();
    let alice = relay.admin_user();
    let mut ssh = alice.tool("ssh");
    let output = run(ssh.args(["-vvv", "-C", "relay", "whoami"])).ok();
    let debug = output.err();
    let offer = debug
        .split_once("peer server KEXINIT proposal")
        .map(|(_, offer)| offer)
        .unwrap_or_else(|| panic!("no proposal in {output}"));
    let offered = |what: &str| {
        let line = offer.lines().find_map(|line| line.split_once(what));
        let list = line.map(|(_, list)| list.trim()).unwrap_or_default();
        list.split(',').map(str::to_owned).collect::<Vec<_>>()
    };
    let kex = offered("KEX algorithms: ");
    assert_eq!(
        kex[0], "mlkem768x25519-sha256",
        "post-quantum first: {kex:?}"
    );
    assert!(
        kex.iter()
            .any(|name| name == "kex-strict-s-v00@openssh.com"),
        "{kex:?}"
    );
    assert!(debug.contains("will use strict KEX ordering"), "{debug}");
    for direction in ["ciphers ctos: ", "ciphers stoc: "] {
        let ciphers = offered(direction);
        let is_aead = |name: &String| name.contains("gcm") || name.contains("poly1305");
        assert!(ciphers.iter().all(is_aead), "{ciphers:?}");
        assert_eq!(ciphers[0], "aes256-gcm@openssh.com");
    }
    for direction in ["compression ctos: ", "compression stoc: "] {
        assert_eq!(
            offered(direction),
            ["none"],
            "though the client asks for it"
        );
    }
    let signatures = debug
        .split_once("server-sig-algs=<")
        .and_then(|(_, rest)| rest.split_once('>'))
        .map(|(list, _)| list.split(',').collect::<Vec<_>>())
        .unwrap_or_default();
    for wanted in [
        "ssh-ed25519",
        "sk-ssh-ed25519@openssh.com",
        "sk-ecdsa-sha2-nistp256@openssh.com",
        "rsa-sha2-512",
        "rsa-sha2-256",
    ] {
        assert!(
            signatures.contains(&wanted),
            "no {wanted} in {signatures:?}"
        );
    }
    assert!(!signatures.contains(&"ssh-rsa"), "{signatures:?}");
}

#[test]
fn ssh_audit_finds_nothing_to_fail() {
    if !needs_program("ssh-audit", "from PyPI; `cargo xtask test` brings it") {
        return;
    }
    let relay = Relay::start();
    let mut audit = crate::harness::command("ssh-audit");
    audit.args([
        "--json",
        "--skip-rate-test",
        "--port",
        &relay.ssh().port().to_string(),
    ]);
    let output = run(audit.arg(relay.ssh().ip().to_string()));
    // 0: good; 2: warnings; 3: failures; 1: it could not connect.
    assert!(matches!(output.code(), 0 | 2), "{output}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let failures: Vec<String> = ["kex", "key", "enc", "mac"]
        .iter()
        .flat_map(|kind| report[*kind].as_array().cloned().unwrap_or_default())
        .filter(|algorithm| !algorithm["notes"]["fail"].is_null())
        .map(|algorithm| algorithm.to_string())
        .collect();
    assert!(failures.is_empty(), "{failures:?}");
    assert!(
        report["kex"].as_array().is_some_and(|kex| !kex.is_empty()),
        "{output}"
    );
}

#[test]
fn who_one_is_follows_the_key_and_not_the_name() {
    let relay = Relay::start();
    let alice = relay.admin_user();
    let bob = relay.user("bob", &[]);
    let device = Device::online(&relay, "kitchen-cam");
    let whoami = run(bob.tool("ssh").args(["alice@relay", "whoami"])).ok();
    assert!(
        whoami.out().contains("bob") && !whoami.out().contains("alice"),
        "{whoami}"
    );
    // Bob may do nothing yet, whatever name he gives.
    let devices = run(bob.tool("ssh").args(["alice@relay", "devices"]));
    assert_eq!(devices.code(), 1, "{devices}");
    bob.exec(Way::Direct, device.name(), "true").exits(255);
    alice.exec(Way::Direct, device.name(), "true").ok();
}

#[test]
fn who_does_not_log_in_has_the_grace_time_and_no_more() {
    let relay = with_config("login_grace = \"2s\"\n");
    // One says nothing, one says its version and drips a packet that never ends, one is chatty from the
    // first byte on.
    let drips: [&[u8]; 3] = [b"", b"SSH-2.0-drip\r\n\x00\x00\x70\x00\x04", b"SSH-"];
    let peers: Vec<_> = drips
        .into_iter()
        .map(|first| {
            let mut peer = Peer::connect(relay.ssh(), None);
            peer.send(first);
            std::thread::spawn(move || {
                let began = Instant::now();
                while !peer.is_closed(Duration::from_millis(100)) && began.elapsed() < SOON {
                    if !first.is_empty() {
                        peer.send(b"x");
                    }
                }
                began.elapsed()
            })
        })
        .collect();
    for (peer, first) in peers.into_iter().zip(drips) {
        let took = peer.join().unwrap();
        let grace = Duration::from_millis(1_500)..Duration::from_secs(5);
        assert!(grace.contains(&took), "{first:?} is closed after {took:?}");
    }
    let alice = relay.admin_user();
    let session = Running::start(alice.console().arg("whoami"));
    session.wait(SOON).ok();
}

/// A first line that is not an SSH client's ends the connection at once, and not after the grace time.
#[test]
fn other_first_line_is_refused_at_once() {
    let relay = Relay::start();
    for first in [&b"\r\n"[..], b"\n", b"GET / HTTP/1.1\r\n\r\n"] {
        let mut peer = Peer::connect(relay.ssh(), None);
        peer.send(first);
        assert!(peer.is_closed(SOON / 2), "{first:?}");
        peer.expect("SSH-2.0-");
        peer.expect("Invalid SSH identification string");
    }
}

#[test]
fn many_keys_of_an_agent_are_bearable() {
    let relay = Relay::start();
    let alice = relay.admin_user();
    let with_wrong_keys = |count: usize| {
        let mut ssh = crate::harness::command("ssh");
        ssh.args(["-v", "-F"]).arg(alice.config());
        // Identities of the command line are tried before the configuration's, in their order.
        for number in 0..count {
            let key = alice.folder().join(format!("wrong-{number}"));
            if !key.exists() {
                make_key(&key, KeyKind::Ed25519);
            }
            ssh.arg("-i").arg(key);
        }
        run(ssh.args(["relay", "whoami"]))
    };
    with_wrong_keys(MAX_KEY_OFFERS - 1).ok();
    let output = with_wrong_keys(MAX_KEY_OFFERS + 3).exits(255);
    // The first answer is to "none".
    let answers = output
        .err()
        .matches("Authentications that can continue")
        .count()
        - 1;
    assert!(answers <= MAX_KEY_OFFERS, "{output}");
    output.says("IdentitiesOnly=yes");
    // However often it happens, no other client is kept out.
    for _ in 0..12 {
        with_wrong_keys(MAX_KEY_OFFERS + 3).exits(255);
    }
    run(alice.console().arg("whoami")).ok();
}

#[test]
fn a_noisy_source_leaves_the_others_alone() {
    let relay = Relay::start();
    let alice = relay.admin_user();
    let noisy = "127.0.0.2".parse().unwrap();
    let whoami_from = |source: &str| {
        let mut ssh = alice.tool("ssh");
        run(ssh.args(["-b", source, "relay", "whoami"]))
    };
    let mut peers: Vec<Peer> = (0..MAX_UNAUTHENTICATED_PER_SOURCE)
        .map(|_| Peer::connect(relay.ssh(), Some(noisy)))
        .collect();
    for peer in &mut peers {
        peer.expect("SSH-2.0-");
    }
    Peer::connect(relay.ssh(), Some(noisy)).expect("too many connections that have not logged in");
    whoami_from("127.0.0.2").exits(255);
    whoami_from("127.0.0.1").ok();
    // They leave without an attempt, which proves nothing against those who share their address.
    drop(peers);
    wait_until(SOON, "the relay to see that they left", || {
        let mut peer = Peer::connect(relay.ssh(), Some(noisy));
        peer.first_line().starts_with("SSH-2.0-")
    });
    for _ in 0..100 {
        Peer::connect(relay.ssh(), Some(noisy)).expect("SSH-2.0-");
    }
    whoami_from("127.0.0.2").ok();
    whoami_from("127.0.0.1").ok();
}

#[test]
fn held_connections_keep_no_one_out_where_someone_logged_in() {
    let relay = Relay::start();
    let alice = relay.admin_user();
    run(alice.console().arg("whoami")).ok();
    let mut peers: Vec<Peer> = (0..MAX_UNAUTHENTICATED_PER_SOURCE)
        .map(|_| Peer::connect(relay.ssh(), None))
        .collect();
    for peer in &mut peers {
        peer.expect("SSH-2.0-");
    }
    for _ in 0..3 {
        run(alice.console().arg("whoami")).ok();
    }
    // Each of these logins, and no more, has taken the place of one that was held.
    let gone = peers.iter_mut();
    let gone = gone.filter_map(|peer| peer.is_closed(Duration::from_millis(20)).then_some(()));
    let gone = gone.count();
    assert!((1..=3).contains(&gone), "{gone} were closed");
}

#[test]
fn a_flood_before_the_login_is_cut() {
    let relay = Relay::start();
    let mut peer = Peer::connect(relay.ssh(), None);
    peer.send(b"SSH-2.0-flood\r\n");
    // Packets in the clear that say SSH_MSG_IGNORE (RFC 4253 sections 6 and 11.2).
    let mut packet = vec![0, 0, 0x7f, 0xf8 - 4, 4, 2, 0, 0, 0x7f, 0xf8 - 4 - 10];
    packet.resize(0x7ff8, 0);
    let mut sent = 0_usize;
    let began = Instant::now();
    while sent < 256 << 20 && peer.try_send(&packet) {
        sent += packet.len();
    }
    eprintln!("cut after {} KiB in {:?}", sent / 1024, began.elapsed());
    // Beside the relay's half MiB, the kernel's buffers hold what was sent meanwhile.
    assert!(sent < 32 << 20, "{sent} bytes went in");
    assert!(
        began.elapsed() < SOON,
        "the grace time cut it, not the bound"
    );
}

#[test]
fn a_connection_has_a_bounded_number_of_channels() {
    let relay = Relay::start();
    let alice = relay.admin_user();
    let mut master = Master::open(&alice, "relay");
    // Channels of the console that wait for their input take nothing but their place.
    let waiting: Vec<Running> = (0..MAX_CHANNELS)
        .map(|_| {
            Running::start(
                master
                    .console(&alice)
                    .args(["user", "add", "x", "--key", "-"]),
            )
        })
        .collect();
    // All of them first: one that came while another command has the last place would be the one refused.
    wait_until(SOON, "all commands begun", || {
        let log = relay.log();
        let begun = log.lines().filter(|line| line.contains("user add x"));
        begun.count() == MAX_CHANNELS
    });
    run(master.console(&alice).arg("whoami")).exits(255);
    master
        .process
        .wait_err("too many channels on one connection (max 64)");
    // When one of them ends, there is room again.
    drop(waiting);
    wait_until(SOON, "room", || {
        run(master.console(&alice).arg("whoami")).code() == 0
    });
    assert!(master.process.is_alive());
}

/// An `ssh` that holds a connection for others (`ControlMaster`).
struct Master {
    process: Running,
    socket: std::path::PathBuf,
}

impl Master {
    fn open(user: &User, destination: &str) -> Self {
        let socket = user.folder().join("master");
        let mut ssh = user.tool("ssh");
        ssh.arg("-MN").arg("-S").arg(&socket).arg(destination);
        let process = Running::start(&mut ssh);
        wait_until(SOON, "the master's socket", || socket.exists());
        Self { process, socket }
    }

    /// A command on the master's connection, and on no other.
    fn console(&self, user: &User) -> Command {
        let mut ssh = user.tool("ssh");
        ssh.arg("-S").arg(&self.socket);
        ssh.args(["-oProxyCommand=false", "relay"]);
        ssh
    }
}

/// A relay with this configuration file.
fn with_config(toml: &str) -> Relay {
    let mut relay = Relay::new(&[]);
    let file = relay.folder().join("relay.toml");
    fs::write(&file, toml).unwrap();
    relay.add_flags(&["--config", file.to_str().unwrap()]);
    relay.start_again();
    relay
}
