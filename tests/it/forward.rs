//! Forwarding through a device, with the real `ssh`, on both ways in.

mod policy;
mod recorded;
mod reverse;
mod sockets;
mod target;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{
    Relay, Running, SOON, Site, Way, own_login, run, run_with_input, wait_for, wait_until,
};
use target::{Target, free_port};

/// An `ssh -N` that forwards, whose local end is a socket in a file: no port of the machine is taken.
struct Tunnel {
    /// Ended when it is dropped.
    ssh: Running,
    socket: PathBuf,
}

impl Tunnel {
    /// Forwards to `host:port` through `kitchen-cam`.
    #[track_caller]
    fn start(mut ssh: Command, folder: &std::path::Path, to: &str) -> Self {
        let socket = folder.join(format!("forward-{}", free_port()));
        ssh.args(["-N", "-o", "ExitOnForwardFailure=yes", "-L"]);
        ssh.arg(format!("{}:{to}", socket.display()));
        let ssh = Running::start(&mut ssh);
        wait_until(SOON, "the local end of the forward", || socket.exists());
        Self { ssh, socket }
    }

    fn connect(&self) -> UnixStream {
        // The file is there a moment before it is listened on.
        let stream = wait_for(SOON, "the local end", || {
            UnixStream::connect(&self.socket).ok()
        });
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
    }
}

/// Returns what the audit log has on forwards.
#[track_caller]
fn forwards(relay: &Relay) -> Vec<Value> {
    let rows = relay.admin(&["audit", "--event", "port.forward", "--json"]);
    let rows = rows.ok().out();
    rows.lines()
        .map(|row| serde_json::from_str(row).unwrap())
        .collect()
}

fn listed(relay: &Relay) -> Vec<Value> {
    let sessions = relay.json(&["sessions", "--json"]);
    sessions.as_array().unwrap().clone()
}

#[test]
fn a_port_is_forwarded_with_each_end_of_it_on_both_ways() {
    let site = Site::new();
    let target = Target::counting();
    for way in Way::BOTH {
        let tunnel = Tunnel::start(
            site.ssh(way),
            site.alice.folder(),
            &format!("localhost:{}", target.port()),
        );
        // The target answers when it has all, and only then.
        let mut stream = tunnel.connect();
        stream.write_all(&vec![7; 3_000_000]).unwrap();
        let one = wait_for(SOON, "the forward in the live sessions", || {
            listed(&site.relay)
                .into_iter()
                .find(|session| session["kind"] == "forward" && session["bytes_in"] == 3_000_000)
        });
        assert_eq!(one["command"], format!("localhost:{}", target.port()));
        assert_eq!(one["login"], own_login());
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "3000000 bytes", "{way:?}");
    }
    let rows = wait_for(SOON, "both ends of both forwards in the log", || {
        Some(forwards(&site.relay)).filter(|rows| rows.len() == 4)
    });
    for pair in rows.chunks(2) {
        let (open, closed) = (&pair[0], &pair[1]);
        assert_eq!(
            (&open["state"], &closed["state"]),
            (&"open".into(), &"closed".into())
        );
        for row in pair {
            assert_eq!(row["outcome"], "success");
            assert_eq!(
                (&row["user"], &row["host"]),
                (&"alice".into(), &"localhost".into())
            );
            assert_eq!(row["port"], target.port());
            assert!(
                row["address"]
                    .as_str()
                    .unwrap()
                    .ends_with(&format!(":{}", target.port()))
            );
            assert_eq!(row["session"], open["session"]);
        }
        assert_eq!(
            (&closed["bytes_in"], &closed["bytes_out"]),
            (&3_000_000.into(), &13.into())
        );
        assert!(closed["duration_seconds"].as_f64().unwrap() > 0.0);
        assert_eq!(closed["reason"], Value::Null);
    }
    wait_until(SOON, "an empty board", || listed(&site.relay).is_empty());
}

#[test]
fn standard_streams_go_to_a_target() {
    let site = Site::new();
    let target = Target::counting();
    for way in Way::BOTH {
        let mut ssh = site.ssh(way);
        ssh.args(["-W", &format!("127.0.0.1:{}", target.port())]);
        let output = run_with_input(&mut ssh, &[b'x'; 100_000]).ok();
        assert_eq!(output.out(), "100000 bytes", "{way:?}");
    }
}

#[test]
fn a_proxy_of_names_asks_the_device() {
    let site = Site::new();
    let target = Target::counting();
    let port = free_port();
    let mut ssh = site.ssh(Way::Jump);
    ssh.args(["-N", "-D", &format!("127.0.0.1:{port}")]);
    let _ssh = Running::start(&mut ssh);
    let mut proxy = wait_for(SOON, "the proxy", || {
        TcpStream::connect(("127.0.0.1", port)).ok()
    });
    proxy.set_read_timeout(Some(SOON)).unwrap();
    // SOCKS 5 (RFC 1928): no proof, then a connection to a name.
    proxy.write_all(&[5, 1, 0]).unwrap();
    let mut chosen = [0; 2];
    proxy.read_exact(&mut chosen).unwrap();
    assert_eq!(chosen, [5, 0]);
    let mut ask = vec![5, 1, 0, 3, 9];
    ask.extend_from_slice(b"localhost");
    ask.extend_from_slice(&target.port().to_be_bytes());
    proxy.write_all(&ask).unwrap();
    let mut answer = [0; 10];
    proxy.read_exact(&mut answer).unwrap();
    assert_eq!(answer[..2], [5, 0]);
    proxy.write_all(b"hello").unwrap();
    proxy.shutdown(Shutdown::Write).unwrap();
    let mut text = String::new();
    proxy.read_to_string(&mut text).unwrap();
    assert_eq!(text, "5 bytes");
}

#[test]
fn what_cannot_be_reached_is_said_in_words() {
    let mut site = Site::new();
    let closed = free_port();
    for way in Way::BOTH {
        let mut ssh = site.ssh(way);
        let to = format!("127.0.0.1:{closed}");
        let refused = run(ssh.args(["-W", &to])).exits(255);
        refused.says(&format!(
            "open failed: connect failed: kitchen-cam cannot reach {to}: connection refused"
        ));
    }
    let mut ssh = site.ssh(Way::Direct);
    let refused = run(ssh.args(["-W", "no-such-name.invalid:1"])).exits(255);
    refused.says("connect failed: kitchen-cam cannot reach no-such-name.invalid:1: ");
    let failed = forwards(&site.relay);
    let outcomes: Vec<&Value> = failed.iter().map(|row| &row["outcome"]).collect();
    assert_eq!(outcomes, ["failed", "failed", "failed"]);
    site.device.stop();
    site.relay.wait_state("kitchen-cam", "offline", SOON);
    let mut ssh = site.ssh(Way::Direct);
    let refused = run(ssh.args(["-W", &format!("127.0.0.1:{closed}")])).exits(255);
    refused.says("administratively prohibited: kitchen-cam is offline since ");
}

#[test]
fn a_slow_reader_holds_up_no_other() {
    let site = Site::new();
    let (endless, counting) = (Target::endless(), Target::counting());
    let folder = site.alice.folder();
    let to = |target: &Target| format!("127.0.0.1:{}", target.port());
    // Both on one connection, as one `ssh` has them.
    let mut ssh = site.ssh(Way::Direct);
    let second = folder.join("second");
    ssh.arg("-L")
        .arg(format!("{}:{}", second.display(), to(&counting)));
    let tunnel = Tunnel::start(ssh, folder, &to(&endless));
    let mut slow = tunnel.connect();
    slow.read_exact(&mut [0; 1]).unwrap();
    let stalled = |before: &mut u64| {
        let now = endless.sent();
        now > 0 && std::mem::replace(before, now) == now
    };
    let (mut before, mut since) = (0, Instant::now());
    wait_until(SOON, "the target is held back", || {
        if !stalled(&mut before) {
            since = Instant::now();
        }
        since.elapsed() > Duration::from_millis(500)
    });
    assert!(before < 32 * 1024 * 1024, "{before} bytes are under way");
    let mut other = UnixStream::connect(&second).unwrap();
    other.write_all(&[0; 1000]).unwrap();
    other.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    other.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "1000 bytes");
    // It comes back to life, and ends when its reader goes.
    slow.read_exact(&mut vec![0; 16 * 1024 * 1024]).unwrap();
    drop(slow);
    wait_until(SOON, "the target hears of the end", || endless.is_over());
}

/// The number of forwards at once; `HOLDFAST_SOAK_FORWARDS=500` is the full size.
const CONNECTIONS: usize = 100;

#[test]
fn a_hundred_connections_at_once_cost_little() {
    let many = std::env::var("HOLDFAST_SOAK_FORWARDS");
    let many = many.map_or(CONNECTIONS, |many| many.parse().unwrap());
    let site = Site::new();
    let target = Target::echo();
    let to = format!("127.0.0.1:{}", target.port());
    let tunnel = Tunnel::start(site.ssh(Way::Direct), site.alice.folder(), &to);
    let resident = |process: u32| {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.unwrap().trim().trim_end_matches(" kB");
        kib.parse::<u64>().unwrap() * 1024
    };
    let echo = |stream: &mut UnixStream, word: &str| {
        stream.write_all(word.as_bytes()).unwrap();
        let mut back = vec![0; word.len()];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(back, word.as_bytes());
    };
    let mut first = tunnel.connect();
    echo(&mut first, "hello");
    let (relay, agent) = (site.relay.id(), site.device.id());
    let before = (resident(relay), resident(agent));
    let mut all: Vec<UnixStream> = (1..many).map(|_| tunnel.connect()).collect();
    for (index, stream) in all.iter_mut().enumerate() {
        echo(stream, &format!("word {index}"));
    }
    wait_until(SOON, "all of them in the live sessions", || {
        listed(&site.relay).len() == many
    });
    let grown = (
        resident(relay).saturating_sub(before.0),
        resident(agent).saturating_sub(before.1),
    );
    // Of a debug build, which takes some 26 KiB for each in the relay and 12 KiB in the agent.
    let many = many as u64;
    let bounds = (
        (16 << 20) + many * (64 << 10),
        (6 << 20) + many * (32 << 10),
    );
    println!("{many} connections: relay and agent grew by {grown:?} bytes");
    assert!(grown.0 < bounds.0 && grown.1 < bounds.1, "{grown:?}");
    drop(all);
    wait_until(SOON, "one in the live sessions", || {
        listed(&site.relay).len() == 1
    });
    echo(&mut first, "still here");
    drop(tunnel.ssh);
    wait_until(SOON, "none in the live sessions", || {
        listed(&site.relay).is_empty()
    });
}
