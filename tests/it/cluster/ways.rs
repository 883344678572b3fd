//! Further ways to a device of another relay: proxies, an operator's agent, sftp, copies to a fleet; and a device that
//! moves to another relay under a session.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::across::Across;
use crate::harness::{
    Relay, Running, SOON, Terminal, Way, command, own_login, run, run_with_input, wait_for,
    wait_until,
};

/// The time within which a device whose relay does not answer is back at another, and its session there is over.
const MOVED: Duration = Duration::from_secs(60);

/// Returns the rows of the operators' audit log with one event.
#[track_caller]
fn rows(relay: &Relay, event: &str) -> Vec<Value> {
    let rows = relay
        .admin(&["audit", "--json", "--event", event])
        .ok()
        .out();
    let row = |row: &str| serde_json::from_str(row).unwrap();
    rows.lines().map(row).collect()
}

#[test]
fn proxy_of_names_asks_a_device_of_another_relay() {
    let Some(site) = Across::start() else {
        return;
    };
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = target.local_addr().unwrap().port();
    let answer = std::thread::spawn(move || {
        let (mut stream, _) = target.accept().unwrap();
        let mut data = Vec::new();
        stream.read_to_end(&mut data).unwrap();
        write!(stream, "{} bytes", data.len()).unwrap();
    });
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
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
    let mut ask = vec![5, 1, 0, 3, 9];
    ask.extend_from_slice(b"localhost");
    ask.extend_from_slice(&to.to_be_bytes());
    proxy.write_all(&ask).unwrap();
    let mut said = [0; 10];
    proxy.read_exact(&mut said).unwrap();
    assert_eq!((chosen, &said[..2]), ([5, 0], [5, 0].as_slice()));
    proxy.write_all(&[b'x'; 100_000]).unwrap();
    proxy.shutdown(Shutdown::Write).unwrap();
    let mut text = String::new();
    proxy.read_to_string(&mut text).unwrap();
    assert_eq!(text, "100000 bytes");
    answer.join().unwrap();
    let forwarded = rows(site.operators(), "port.forward");
    assert!(!forwarded.is_empty(), "the relay of the operator logs it");
}

#[test]
fn agent_is_taken_along_to_a_device_of_another_relay() {
    let Some(site) = Across::start() else {
        return;
    };
    let folder = tempfile::Builder::new().prefix("hf-a").tempdir().unwrap();
    let (socket, key) = (folder.path().join("socket"), folder.path().join("key"));
    let mut agent = command("ssh-agent");
    let _agent = Running::start(agent.arg("-D").arg("-a").arg(&socket));
    wait_until(SOON, "the ssh-agent", || {
        UnixStream::connect(&socket).is_ok()
    });
    let mut keygen = command("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "operator", "-f"]);
    run(keygen.arg(&key)).ok();
    let mut add = command("ssh-add");
    run(add.env("SSH_AUTH_SOCK", &socket).arg("-q").arg(&key)).ok();
    for way in Way::BOTH {
        let mut ssh = site.ssh(way);
        ssh.env("SSH_AUTH_SOCK", &socket).arg("-A");
        let said = run(ssh.arg("ssh-add -l")).ok().out();
        assert!(said.contains(" operator "), "{way:?}: {said}");
    }
    wait_until(SOON, "both ends of both in the log", || {
        rows(site.operators(), "agent.forward").len() == 4
    });
}

#[test]
fn sftp_and_copies_reach_a_device_of_another_relay() {
    let Some(site) = Across::start() else {
        return;
    };
    let (here, there) = (site.alice.folder(), site.device.folder());
    fs::write(here.join("from"), vec![7; 300_000]).unwrap();
    let batch = format!(
        "put {0}/from {1}/put\nrename {1}/put {1}/renamed\nget {1}/renamed {0}/back\nls {1}/renamed\n",
        here.display(),
        there.display()
    );
    for way in Way::BOTH {
        let mut sftp = site.alice.tool("sftp");
        sftp.args(["-b", "-"]);
        sftp.arg(way.destination(&own_login(), site.device.name()));
        let said = run_with_input(&mut sftp, batch.as_bytes()).ok();
        assert!(said.out().contains("/renamed"), "{said}");
        assert_eq!(fs::read(here.join("back")).unwrap(), vec![7; 300_000]);
        fs::remove_file(here.join("back")).unwrap();
    }
    let renamed = |row: &&Value| row["operation"] == "rename";
    wait_until(SOON, "the operations are in the log", || {
        rows(site.operators(), "sftp")
            .iter()
            .filter(renamed)
            .count()
            == 2
    });
    let mut console = site.alice.console();
    let to = there.join("copied");
    let on = format!("'*:{}'", to.display());
    console.args(["cp", "-", "--login", &own_login(), "--mode", "640"]);
    console.args(["--on", &on]);
    let said = run_with_input(&mut console, &[9; 500_000]).ok();
    assert!(said.out().contains("kitchen-cam"), "{said}");
    assert_eq!(fs::read(&to).unwrap(), vec![9; 500_000]);
}

/// Covers a relay that does not answer for a while: its device goes to another one, under a session across.
#[test]
fn device_moves_to_another_relay_under_a_session() {
    let Some(mut site) = Across::start() else {
        return;
    };
    let (operators, name) = (site.operators, site.device.name().to_owned());
    let mut terminal = Terminal::start(&site.ssh(Way::Direct), 80, 24);
    terminal.send("echo be''fore\r");
    terminal.expect("before");
    let stopped = Instant::now();
    site.devices().signal(Signal::STOP);
    site.cluster.wait_at(operators, MOVED);
    // Where it is now, it is reached at once, whatever becomes of the old session.
    let said = site.exec(Way::Direct, "echo here").ok();
    assert_eq!(said.out(), "here\n");
    terminal.wait(MOVED.saturating_sub(stopped.elapsed()) + SOON);
    // The old relay finds that it was declared dead, and takes nothing back.
    site.devices().signal(Signal::CONT);
    site.devices().wait(SOON);
    let listed = site.operators().json(&["devices", "--json"]);
    assert_eq!(
        listed[0]["relay"],
        *site.cluster.name(operators),
        "{listed}"
    );
    assert_eq!(site.exec(Way::Direct, "echo still").ok().out(), "still\n");
    // What was recorded of both sessions and the last one comes to the relay where the device is, and has one verdict.
    wait_until(MOVED, &format!("{name}'s recordings have verdicts"), || {
        let listed = site.operators().json(&["recordings", "--json"]);
        let listed = listed.as_array().unwrap();
        let is_done =
            |row: &Value| ["complete", "truncated"].contains(&row["state"].as_str().unwrap());
        listed.len() == 3 && listed.iter().all(is_done)
    });
    let verdicts = rows(site.operators(), "recording.complete").len()
        + rows(site.operators(), "recording.truncated").len();
    assert_eq!(verdicts, 3);
}
