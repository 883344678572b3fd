//! `ssh -R`: the device listens, and what comes there goes to the operator.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;

use serde_json::Value;

use super::policy::role;
use super::{Target, forwards, free_port, listed};
use crate::harness::{Running, SOON, Site, Way, own_login, run, wait_for, wait_until};

/// Starts `ssh -N -R spec` and gives the port that it was given.
#[track_caller]
fn listening(mut ssh: Command, spec: &str) -> (Running, u16) {
    ssh.args(["-N", "-o", "ExitOnForwardFailure=yes", "-R", spec]);
    let ssh = Running::start(&mut ssh);
    ssh.wait_err("Allocated port ");
    let said = ssh.err();
    let port = said.split("Allocated port ").nth(1).unwrap();
    let port = port.split(' ').next().unwrap().parse().unwrap();
    (ssh, port)
}

#[track_caller]
fn count_at(address: (&str, u16), bytes: usize) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(&vec![0; bytes]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn is_open(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

#[test]
fn a_device_listens_on_a_port_as_long_as_the_connection_lives() {
    let site = Site::new();
    let target = Target::counting();
    for way in Way::BOTH {
        let spec = format!("0:127.0.0.1:{}", target.port());
        let (ssh, port) = listening(site.ssh(way), &spec);
        assert_eq!(count_at(("127.0.0.1", port), 1_000_000), "1000000 bytes");
        let all: Vec<_> = (0..8)
            .map(|n| std::thread::spawn(move || count_at(("127.0.0.1", port), n)))
            .collect();
        for (n, one) in all.into_iter().enumerate() {
            assert_eq!(one.join().unwrap(), format!("{n} bytes"));
        }
        let board = listed(&site.relay);
        assert!(
            board.iter().any(|one| one["kind"] == "forward"),
            "{board:?}"
        );
        drop(ssh);
        wait_until(SOON, "the end of the port", || !is_open(port));
        wait_until(SOON, "an empty board", || listed(&site.relay).is_empty());
    }
    let rows = forwards(&site.relay);
    let of = |direction: &str| -> Vec<&Value> {
        let rows = rows.iter().filter(|row| row["direction"] == direction);
        rows.collect()
    };
    let (ports, connections) = (of("listen"), of("in"));
    let served = |row: &&&Value| row["state"] == "closed" && row["bytes_in"].as_u64() > Some(6);
    assert_eq!(ports.len(), 4, "{rows:?}");
    assert_eq!(connections.iter().filter(served).count(), 18, "{rows:?}");
    let closed = connections.iter().find(|row| row["bytes_out"] == 1_000_000);
    assert_eq!(closed.unwrap()["state"], "closed");
    assert_eq!(closed.unwrap()["bytes_in"], 13);
    assert!(ports.iter().all(|row| row["outcome"] == "success"));
}

#[test]
fn a_port_is_taken_back() {
    let site = Site::new();
    let target = Target::counting();
    let port = free_port();
    let control = site.alice.folder().join("control");
    let spec = format!("{port}:127.0.0.1:{}", target.port());
    let mut ssh = site.ssh(Way::Direct);
    ssh.arg("-MN").arg("-S").arg(&control).args(["-R", &spec]);
    let _ssh = Running::start(&mut ssh);
    wait_until(SOON, "the port", || is_open(port));
    assert_eq!(count_at(("127.0.0.1", port), 3), "3 bytes");
    let mut cancel = site.ssh(Way::Direct);
    cancel.arg("-S").arg(&control);
    run(cancel.args(["-O", "cancel", "-R", &spec])).ok();
    wait_until(SOON, "the end of the port", || !is_open(port));
    // The connection is open, and may ask for it again.
    let mut again = site.ssh(Way::Direct);
    again.arg("-S").arg(&control);
    run(again.args(["-O", "forward", "-R", &spec])).ok();
    assert_eq!(count_at(("127.0.0.1", port), 4), "4 bytes");
}

#[test]
fn a_device_listens_on_loopback_unless_a_role_says_more() {
    let site = Site::new();
    role(&site.relay, "connect = []", "");
    let bob = site.relay.user("bob", &["tech"]);
    let ssh = |way| bob.ssh(way, &own_login(), "kitchen-cam");
    let refused = |way, bind: &str| {
        let mut ssh = ssh(way);
        ssh.args(["-v", "-N", "-o", "ExitOnForwardFailure=yes", "-R"]);
        let refused = run(ssh.arg(format!("{bind}:127.0.0.1:1"))).exits(255);
        refused.says("remote port forwarding failed")
    };
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().port();
    for way in Way::BOTH {
        for bind in ["0.0.0.0:0", "*:0", "[::]:0", "127.0.0.1.nip.invalid:0"] {
            refused(way, bind);
        }
        let said = refused(way, &format!("0.0.0.0:{taken}"));
        said.says("user \"bob\" may not have kitchen-cam listen on 0.0.0.0:");
        let (_ssh, port) = listening(ssh(way), "127.0.0.1:0:127.0.0.1:1");
        assert!(is_open(port));
    }
    role(&site.relay, "listen = ['*:*'], deny = ['*:1-1023']", "");
    let target = Target::counting();
    let spec = format!("0.0.0.0:0:127.0.0.1:{}", target.port());
    let (forward, port) = listening(ssh(Way::Direct), &spec);
    assert_eq!(count_at(("127.0.0.1", port), 5), "5 bytes");
    // Taken away under it: the port goes, and what came by it.
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(b"x").unwrap();
    wait_until(SOON, "both in the live sessions", || {
        listed(&site.relay).len() == 2
    });
    role(&site.relay, "listen = ['localhost:*']", "");
    assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0);
    wait_until(SOON, "the end of the port", || !is_open(port));
    drop(forward);
    let reasons = wait_for(SOON, "both ends in the log", || {
        let rows = forwards(&site.relay);
        let changed = rows.iter().filter(|row| row["reason"] == "access-changed");
        Some(changed.count()).filter(|count| *count == 2)
    });
    assert_eq!(reasons, 2);
}
