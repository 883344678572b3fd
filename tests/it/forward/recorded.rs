//! Forwards in recordings: one for each connection, with where each leads and what has passed.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use super::sockets::service;
use super::{Target, Tunnel, forwards, free_port, listed};
use crate::harness::{
    Device, Relay, Running, SOON, Site, User, Way, own_login, run, run_with_input, wait_for,
    wait_until,
};

/// Puts the role `tech` into force, which may run commands and forward, and is recorded so.
#[track_caller]
fn tech(relay: &Relay, recording: &str) -> User {
    let text = format!(
        "[roles.tech]\nrecording = '{recording}'\n[roles.tech.allow]\n\
         labels = {{ '*' = '*' }}\nlogins = ['*']\nabilities = ['exec', 'forward']\n"
    );
    run_with_input(&mut relay.command(&["apply", "-f", "-"]), text.as_bytes()).ok();
    relay.user("bob", &["tech"])
}

#[track_caller]
fn recordings(relay: &Relay) -> Vec<Value> {
    let rows = relay.json(&["recordings", "--json"]);
    rows.as_array().unwrap().clone()
}

/// Waits until that many recordings are complete, and there is no other.
#[track_caller]
fn complete(relay: &Relay, count: usize) -> Vec<Value> {
    wait_for(SOON, "complete recordings", || {
        let rows = recordings(relay);
        let all = rows.len() == count && rows.iter().all(|row| row["state"] == "complete");
        all.then_some(rows)
    })
}

/// The forwards that a recording tells of, by what they lead to: the beginning, and the end.
#[track_caller]
fn logged(relay: &Relay, id: &Value) -> Vec<(Value, Value)> {
    let lines = relay.export(id.as_str().unwrap(), "json");
    let records: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        (&records[0]["event"], &records[0]["kind"]),
        (&json!("start"), &json!("forward"))
    );
    assert_eq!(records.last().unwrap()["event"], "end");
    let of = |event: &str| {
        let found = records.iter().filter(|record| record["event"] == event);
        found.cloned().collect::<Vec<Value>>()
    };
    let (opened, closed) = (of("forward_opened"), of("forward_closed"));
    assert_eq!(opened.len(), closed.len(), "{lines}");
    assert_eq!(records.len(), 2 + 2 * opened.len(), "{lines}");
    let pair = |opened: Value| {
        let closed = closed.iter().find(|closed| closed["id"] == opened["id"]);
        (opened, closed.unwrap().clone())
    };
    opened.into_iter().map(pair).collect()
}

#[track_caller]
fn answer(mut stream: impl std::io::Read) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_connections_forwards_are_one_recording_beside_sessions() {
    let site = Site::with(Device::new("kitchen-cam").flags(&["--upload", "always"]));
    let target = Target::counting();
    let folder = tempfile::Builder::new().prefix("hf-r").tempdir().unwrap();
    let folder = folder.path().canonicalize().unwrap();
    let path = |name: &str| folder.join(name).display().to_string();
    service(&folder.join("app"));
    let (back, asked) = (free_port(), format!("localhost:{}", target.port()));
    let mut ssh = site.ssh(Way::Jump);
    ssh.args(["-o", "ExitOnForwardFailure=yes"]);
    ssh.args(["-L", &format!("{}:{asked}", path("tcp"))]);
    ssh.args(["-L", &format!("{}:{}", path("unix"), path("app"))]);
    ssh.args(["-R", &format!("{back}:127.0.0.1:{}", target.port())]);
    ssh.arg("echo ready; read x");
    let mut ssh = Running::start(&mut ssh);
    ssh.wait_out("ready");
    let local = |name: &str| {
        let stream = wait_for(SOON, "the local end", || {
            UnixStream::connect(folder.join(name)).ok()
        });
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
    };
    // Three connections, each of another size.
    let mut tcp = local("tcp");
    tcp.write_all(&vec![1; 1_234_567]).unwrap();
    tcp.shutdown(Shutdown::Write).unwrap();
    assert_eq!(answer(tcp), "1234567 bytes");
    let mut unix = local("unix");
    unix.write_all(b"hello").unwrap();
    unix.shutdown(Shutdown::Write).unwrap();
    let said = answer(unix);
    assert!(said.starts_with("5 bytes of "), "{said}");
    let mut comes = TcpStream::connect(("127.0.0.1", back)).unwrap();
    comes.set_read_timeout(Some(SOON)).unwrap();
    let peer = comes.local_addr().unwrap().to_string();
    comes.write_all(&[2; 3_000]).unwrap();
    comes.shutdown(Shutdown::Write).unwrap();
    assert_eq!(answer(comes), "3000 bytes");
    // While it is open, it is no row of its own among the sessions.
    wait_until(SOON, "the session and the port alone", || {
        let live = listed(&site.relay);
        let of = |kind: &str| live.iter().filter(|row| row["kind"] == kind).count();
        (of("exec"), of("forward"), live.len()) == (1, 1, 2)
    });
    ssh.write("x\n");
    ssh.wait(SOON);

    let rows = complete(&site.relay, 2);
    let of = |kind: &str| rows.iter().find(|row| row["kind"] == kind).unwrap();
    let (session, record) = (of("exec"), of("forward"));
    assert_eq!(
        (&session["verified"], &record["verified"]),
        (&json!(true), &json!(true))
    );
    for (name, value) in [
        ("user", "alice"),
        ("device", "kitchen-cam"),
        ("login", &own_login()),
    ] {
        assert_eq!(record[name], value);
    }
    let id = &record["id"];
    let all = logged(&site.relay, id);
    assert_eq!(all.len(), 4, "{all:?}");
    let find = |to: &str, direction: &str| {
        let of =
            |(opened, _): &&(Value, Value)| opened["to"] == to && opened["direction"] == direction;
        all.iter()
            .find(of)
            .unwrap_or_else(|| panic!("{to} {direction} in {all:?}"))
    };
    let counts = |closed: &Value| (closed["sent"].clone(), closed["received"].clone());
    let (opened, closed) = find(&asked, "out");
    let address = opened["address"].as_str().unwrap();
    assert!(
        address.ends_with(&format!(":{}", target.port())),
        "{address}"
    );
    assert_eq!(
        counts(closed),
        (json!(1_234_567), json!("1234567 bytes".len()))
    );
    assert_eq!(
        (&opened["from"], &closed["reason"]),
        (&Value::Null, &json!("closed"))
    );
    let (opened, closed) = find(&path("app"), "out");
    assert_eq!(counts(closed), (json!(5), json!(said.len())));
    assert_eq!(opened["address"], Value::Null);
    let at = format!("127.0.0.1:{back}");
    let (_, closed) = find(&format!("localhost:{back}"), "listen");
    assert_eq!(counts(closed), (json!(0), json!(0)));
    let (opened, closed) = find(&at, "in");
    assert_eq!(opened["from"], peer);
    assert_eq!(counts(closed), (json!("3000 bytes".len()), json!(3_000)));

    // Everybody who looks at recordings can look at it.
    let id = id.as_str().unwrap();
    let verified = site.relay.admin(&["recordings", "verify", id]).ok().out();
    assert!(verified.contains("complete and verified"), "{verified}");
    site.relay.admin(&["recordings", "show", id]).ok();
    let text = site.relay.export(id, "txt");
    assert!(
        text.contains(&format!("to {asked}, which is {address} there")),
        "{text}"
    );
    assert!(text.contains("1234567 bytes sent, 13 received"), "{text}");
    let found = site.relay.admin(&["recordings", "grep", &at]).ok().out();
    assert!(
        found.starts_with(&id[..10]) && found.contains(&peer),
        "{found}"
    );
    let played = site
        .relay
        .admin(&["play", id, "--idle-limit", "1ms"])
        .ok()
        .out();
    assert!(played.contains(&asked), "{played:?}");
    // The audit log leads to it, and has the same counts.
    let rows = forwards(&site.relay);
    let opened: Vec<&Value> = rows.iter().filter(|row| row["state"] == "open").collect();
    assert_eq!(opened.len(), 4);
    for row in opened {
        assert_eq!(
            (&row["recording"], &row["recorded_in"]),
            (&json!("best-effort"), &json!(id))
        );
    }
    assert!(
        rows.iter()
            .any(|row| row["bytes_in"] == 1_234_567 && row["bytes_out"] == 13)
    );
}

#[test]
fn under_strict_a_full_spool_lets_no_forward_through() {
    let device = Device::new("kitchen-cam").flags(&["--upload", "manual", "--spool-max", "2MiB"]);
    let site = Site::with(device);
    let bob = tech(&site.relay, "strict");
    let target = Target::counting();
    let to = format!("127.0.0.1:{}", target.port());
    let reach = || {
        let mut ssh = bob.ssh(Way::Direct, &own_login(), "kitchen-cam");
        run_with_input(ssh.args(["-W", &to]), b"abc")
    };
    assert_eq!(reach().ok().out(), "3 bytes");
    let echo = Target::echo();
    let folder = tempfile::Builder::new().prefix("hf-r").tempdir().unwrap();
    let ssh = bob.ssh(Way::Direct, &own_login(), "kitchen-cam");
    let tunnel = Tunnel::start(ssh, folder.path(), &format!("127.0.0.1:{}", echo.port()));
    let speaks = |stream: &mut UnixStream| {
        stream.write_all(b"x").is_ok() && stream.read_exact(&mut [0]).is_ok()
    };
    let mut live = tunnel.connect();
    assert!(speaks(&mut live));
    // Sessions take the room, down to the last of it.
    bob.exec(Way::Direct, "kitchen-cam", "cat /dev/urandom");
    for size in [30_000, 3_000] {
        let line = format!("head -c {size} /dev/urandom");
        let full = (0..50).any(|_| {
            bob.exec(Way::Direct, "kitchen-cam", &line)
                .stdout
                .is_empty()
        });
        assert!(full, "{size}");
    }
    let text = "recording unavailable on kitchen-cam: spool full (";
    let refused = wait_for(SOON, "a forward that does not begin", || {
        let said = reach();
        (said.code() == 255).then_some(said)
    });
    assert!(refused.err().contains(text), "{refused}");
    // One that is under way goes on until another can't be recorded.
    assert!(speaks(&mut live));
    let begun: Vec<UnixStream> = (0..100)
        .map(|_| tunnel.connect())
        .take_while(|stream| speaks(&mut stream.try_clone().unwrap()))
        .collect();
    assert!(begun.len() < 50, "{}", begun.len());
    wait_until(SOON, "the end of what was under way", || !speaks(&mut live));
    drop(tunnel);
    let ends = wait_for(SOON, "the ends in the log", || {
        let rows = forwards(&site.relay);
        let of_echo = rows.into_iter().filter(|row| row["port"] == echo.port());
        let ends: Vec<Value> = of_echo.filter(|row| row["state"] != "open").collect();
        (ends.len() == begun.len() + 2).then_some(ends)
    });
    let why = |row: &&Value| row["reason"] == "recording-unavailable";
    assert_eq!(ends.iter().filter(why).count(), begun.len() + 1, "{ends:?}");
    let row = ends.iter().find(|row| row["outcome"] == "refused").unwrap();
    assert!(row["reason"].as_str().unwrap().starts_with(text), "{row}");
    // Room that is made is room for forwards, too.
    run(&mut site.device.command(&["upload"])).ok();
    wait_until(SOON, "room", || reach().code() == 0);
}

#[test]
fn where_nothing_is_recorded_no_forward_is() {
    let site = Site::with(Device::new("kitchen-cam").flags(&["--upload", "always"]));
    let bob = tech(&site.relay, "off");
    let target = Target::counting();
    let mut ssh = bob.ssh(Way::Direct, &own_login(), "kitchen-cam");
    let to = format!("127.0.0.1:{}", target.port());
    let said = run_with_input(ssh.args(["-W", &to]), b"abc").ok();
    assert_eq!(said.out(), "3 bytes");
    assert_eq!(recordings(&site.relay), Vec::<Value>::new());
    let rows = forwards(&site.relay);
    assert_eq!(rows[0]["recording"], "off", "{rows:?}");
    // Beside recordings a spool holds the id of the boot in which it was last used.
    let files = fs::read_dir(site.device.state().join("spool"));
    let names = files
        .into_iter()
        .flatten()
        .map(|file| file.unwrap().file_name());
    let segments: Vec<_> = names.filter(|name| name != "boot").collect();
    assert_eq!(segments, Vec::<std::ffi::OsString>::new());
}
