//! The relay's state folder, its configuration, its start and its end.

mod first_start;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{Device, Relay, Running, SOON, Terminal, Way, own_login, run, wait_until};

/// Every secret of a relay: what may never be made a second time.
const KEYS: [&str; 7] = [
    "cluster.key",
    "tunnel.key",
    "ssh_host_ed25519_key",
    "ssh_ca_ed25519_key",
    "quic_reset.key",
    "quic_token.key",
    "recording.key",
];

/// The relay's `drain_grace` where nothing else is configured.
const DEFAULT_GRACE: Duration = Duration::from_secs(5);

fn modes(folder: &Path) -> BTreeMap<String, u32> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            let mode = entry.metadata().unwrap().permissions().mode() & 0o7777;
            (entry.file_name().into_string().unwrap(), mode)
        })
        .collect()
}

#[test]
fn the_first_start_makes_a_folder_that_is_closed_to_others() {
    let relay = Relay::start();
    // Something is written, so that the database has its journal.
    relay.admin_user();
    let mode = fs::metadata(relay.state()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o700);
    let modes = modes(&relay.state());
    for name in KEYS.iter().chain(&["relay.db", "lock"]) {
        assert!(modes.contains_key(*name), "no {name} in {modes:?}");
    }
    // Files for their owner alone; the folder of the recordings, too.
    let closed = |name: &str| if name == "recordings" { 0o700 } else { 0o600 };
    let open: Vec<_> = modes
        .iter()
        .filter(|(name, mode)| **mode != closed(name))
        .collect();
    assert!(open.is_empty(), "not closed: {open:?}");
    assert!(
        !modes.keys().any(|name| name.contains("tmp")),
        "a temporary file was left: {modes:?}"
    );
}

#[test]
fn a_second_relay_on_the_folder_is_refused() {
    let mut relay = Relay::start();
    let alice = relay.admin_user();
    let mut second = relay.command(&["serve", "--ssh", "127.0.0.1:0", "--tunnel", "127.0.0.1:0"]);
    let pid = relay.id();
    let refused = run(&mut second).exits(1);
    let sentence = format!(
        "a relay already serves from {} (pid {pid}): stop it first",
        relay.state().display()
    );
    let refused = refused.says(&sentence);
    assert_eq!(refused.out(), "", "a refused relay is not ready");
    run(alice.console().arg("whoami")).ok();
    // A crash leaves no lock behind.
    relay.kill();
    relay.start_again();
    run(alice.console().arg("whoami")).ok();
}

/// `kill AGENT; edge-agent run`: the former one still ends its sessions and writes its recordings.
#[test]
fn agent_that_starts_waits_for_the_end_of_another() {
    let relay = Relay::start();
    let mut device = Device::online(&relay, "kitchen-cam");
    device.signal(Signal::STOP);
    let pid = device.id();
    let mut former = device.run_beside();
    let waits = format!("another edge-agent (process {pid}) runs on");
    wait_until(SOON, "the second agent waits", || {
        device.log().contains(&waits)
    });
    former.signal(Signal::TERM);
    former.signal(Signal::CONT);
    assert!(former.wait(SOON).success());
    device.wait_up();
}

#[test]
fn the_identity_outlives_a_restart() {
    let mut relay = Relay::start();
    let identity = |relay: &Relay| {
        let token = relay.token(&[]);
        let fingerprint = token.rsplit_once('.').unwrap().0.to_owned();
        let known_hosts = relay.admin(&["ssh-config", "--known-hosts"]).ok().out();
        (fingerprint, known_hosts)
    };
    let before = identity(&relay);
    relay.restart();
    assert_eq!(identity(&relay), before);
}

#[test]
fn a_damaged_or_missing_key_never_makes_a_new_identity() {
    let mut relay = Relay::start();
    relay.terminate(SOON);
    let refused = |name: &str, how: &str| {
        let refused = run(&mut relay.serve_command()).exits(1).says(name);
        assert_eq!(refused.err().lines().count(), 1, "{how} {name}: {refused}");
        refused
    };
    for name in KEYS {
        let path = relay.state().join(name);
        let good = fs::read(&path).unwrap();
        let cut = good[..good.len() / 2].to_vec();
        let mut flipped = good.clone();
        *flipped.last_mut().unwrap() ^= 1;
        flipped.push(b'x');
        for bad in [vec![], cut, flipped, b"no key at all".to_vec()] {
            fs::write(&path, &bad).unwrap();
            refused(name, "damaged").says("is damaged");
            assert_eq!(fs::read(&path).unwrap(), bad, "{name} was written to");
        }
        fs::remove_file(&path).unwrap();
        refused(name, "missing").says("is missing: restore it from a backup");
        assert!(!path.exists(), "{name} was made anew");
        // What cannot be read at all, even by root.
        fs::create_dir(&path).unwrap();
        refused(name, "unreadable");
        fs::remove_dir(&path).unwrap();
        fs::write(&path, good).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        refused(name, "exposed").says("is open to other users (mode 0644): run `chmod 600");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    }
    relay.start_again();
}

/// With another relay's `recording.key`, every recording would be unreadable without a word.
#[test]
fn key_of_another_relay_stops_the_relay() {
    let mut relay = Relay::start();
    let mut other = Relay::start();
    relay.terminate(SOON);
    other.terminate(SOON);
    for name in KEYS {
        let path = relay.state().join(name);
        let good = fs::read(&path).unwrap();
        fs::write(&path, fs::read(other.state().join(name)).unwrap()).unwrap();
        let refused = run(&mut relay.serve_command()).exits(1).says(name);
        let said = refused.err();
        assert_eq!(said.lines().count(), 1, "{said}");
        let (_, fingerprints) = said.split_once("(expected fingerprint ").unwrap();
        let (fingerprints, remedy) = fingerprints.split_once("): ").unwrap();
        let (expected, found) = fingerprints.split_once(", found ").unwrap();
        assert!(expected != found && found.len() >= 16, "{said}");
        assert!(
            remedy.starts_with("restore the file from a backup"),
            "{said}"
        );
        let doctor = relay.admin(&["doctor"]).exits(1);
        assert!(doctor.out().contains(found), "{doctor}");
        fs::write(&path, good).unwrap();
    }
    // The cluster's cannot be replaced, and an attempt changes nothing.
    let path = relay.state().join("cluster.key");
    let good = fs::read(&path).unwrap();
    fs::write(&path, fs::read(other.state().join("cluster.key")).unwrap()).unwrap();
    run(relay.serve_command().args(["--accept-key", "cluster.key"])).exits(1);
    fs::write(&path, good).unwrap();
    relay.start_again();
    relay.terminate(SOON);
    // One that was replaced on purpose.
    let name = "ssh_host_ed25519_key";
    let replaced = fs::read(other.state().join(name)).unwrap();
    fs::write(relay.state().join(name), replaced).unwrap();
    relay.add_flags(&["--accept-key", name]);
    relay.start_again();
    relay.admin(&["doctor"]).ok();
}

#[test]
fn a_damaged_database_is_an_error() {
    let mut relay = Relay::start();
    // The relay has looked into what was written beside it.
    run(relay.admin_user().console().arg("devices")).ok();
    relay.terminate(SOON);
    let database = relay.state().join("relay.db");
    let journal = relay.state().join("relay.db-wal");
    assert!(
        !journal.exists(),
        "a backup of relay.db alone would lack it"
    );
    fs::write(&database, b"not a database, not at all").unwrap();
    let refused = run(&mut relay.serve_command()).exits(1).says("relay.db");
    assert_eq!(refused.out(), "");
    let said = refused.err().matches("file is not a database").count();
    assert_eq!(said, 1, "{refused}");
    let refused = relay.admin(&["devices"]).exits(1);
    assert_eq!(refused.err().lines().count(), 1, "{refused}");
}

#[test]
fn admin_commands_need_a_state() {
    let relay = Relay::new(&[]);
    relay.admin(&["devices"]).exits(1).says("no relay state in");
    assert!(!relay.state().exists(), "an admin command made the folder");
    relay
        .admin(&["devcies"])
        .exits(2)
        .says("no command \"devcies\": did you mean \"devices\"?");
    relay
        .admin(&["serve", "--port", "1"])
        .exits(2)
        .says("--port");
}

#[test]
fn unknown_keys_of_the_configuration_are_refused() {
    let relay = Relay::new(&[]);
    let file = relay.folder().join("relay.toml");
    let refused = |text: &str, names: &str| {
        fs::write(&file, text).unwrap();
        let mut serve = relay.serve_command();
        run(serve.arg("--config").arg(&file)).exits(1).says(names);
        assert!(!relay.state().exists(), "it made its folder all the same");
    };
    refused("listen = \"127.0.0.1:0\"\n", "listen");
    refused(
        "\nssh = \"nowhere\"\n",
        "relay.toml: line 2: expected IP:PORT, as in 0.0.0.0:2222",
    );
    refused("ssh = \n", "relay.toml");
    let missing = relay.folder().join("missing.toml");
    let mut serve = relay.serve_command();
    run(serve.arg("--config").arg(missing))
        .exits(1)
        .says("missing.toml");
}

#[test]
fn the_file_configures_and_flags_beat_it() {
    // Only the file says where to listen; both ends are asked for by port 0.
    let mut relay = Relay::new(&[]);
    let file = relay.folder().join("relay.toml");
    let elsewhere = relay.folder().join("elsewhere");
    let text = format!(
        "state = {elsewhere:?}\nssh = \"127.0.0.1:0\"\ntunnel = \"127.0.0.1:0\"\n\
         public = \"relay.example.com:4433\"\ndrain_grace = \"1s\"\n"
    );
    fs::write(&file, text).unwrap();
    // `--state`, `--ssh` and `--tunnel` are given by flags too.
    relay.add_flags(&["--config", file.to_str().unwrap()]);
    relay.start_again();
    assert_ne!(relay.ssh().ip().to_string(), "127.0.0.1");
    assert!(relay.state().is_dir() && !elsewhere.exists());
    let token = relay.token(&[]);
    assert!(
        token.starts_with("hf1.relay.example.com:4433."),
        "the file's `public`"
    );
    relay.terminate(SOON);
    relay.add_flags(&["--public", "other.example.com"]);
    relay.start_again();
    let wanted = format!("hf1.other.example.com:{}.", relay.tunnel().port());
    assert!(relay.token(&[]).starts_with(&wanted), "the flag's");
}

#[test]
fn the_file_alone_is_enough() {
    let folder = tempfile::tempdir().unwrap();
    let (state, file) = (
        folder.path().join("state"),
        folder.path().join("relay.toml"),
    );
    let text = format!("state = {state:?}\nssh = \"127.0.0.1:0\"\ntunnel = \"127.0.0.1:0\"\n");
    fs::write(&file, text).unwrap();
    let mut serve = crate::harness::command(crate::harness::relay_program());
    let serve = Running::start(serve.arg("serve").arg("--config").arg(&file));
    serve.wait_out("ready ssh=127.0.0.1:");
    assert!(state.join("cluster.key").exists());
    serve.signal(rustix::process::Signal::TERM);
    serve.wait(SOON).ok();
}

#[test]
fn an_address_that_is_taken_is_named() {
    let relay = Relay::start();
    let other = Relay::new(&[]);
    let taken = relay.ssh().to_string();
    let free = relay.tunnel().ip().to_string() + ":0";
    let mut serve = other.command(&["serve", "--ssh", &taken, "--tunnel", &free]);
    run(&mut serve).exits(1).says(&taken);
    let taken = relay.tunnel().to_string();
    let mut serve = other.command(&["serve", "--ssh", &free, "--tunnel", &taken]);
    run(&mut serve).exits(1).says(&taken);
}

#[test]
fn an_idle_relay_stops_at_once() {
    let mut relay = Relay::start();
    let _device = Device::online(&relay, "kitchen-cam");
    let began = Instant::now();
    assert_eq!(relay.terminate(SOON).code(), Some(0), "{}", relay.log());
    let took = began.elapsed();
    assert!(
        took < DEFAULT_GRACE,
        "nothing is to be waited for, but it took {took:?}"
    );
    let out = fs::read_to_string(relay.folder().join("relay.out")).unwrap();
    assert_eq!(
        out.lines().count(),
        1,
        "stdout holds the ready line alone: {out:?}"
    );
}

#[test]
fn a_live_session_gets_the_grace_time_and_then_a_message() {
    for way in Way::BOTH {
        let mut relay = Relay::start();
        let alice = relay.admin_user();
        let device = Device::online(&relay, "kitchen-cam");
        let mut ssh = alice.ssh(way, &own_login(), device.name());
        let line = "echo started; while read line; do echo got $line; done";
        let mut session = Running::start(ssh.arg(line));
        session.wait_out("started");
        let began = Instant::now();
        relay.signal(rustix::process::Signal::TERM);
        wait_until(SOON, "the relay accepts no more connections", || {
            std::net::TcpStream::connect(relay.ssh()).is_err()
        });
        // The session lives on, both ways, until the grace time is over.
        session.write("one\n");
        session.wait_out("got one");
        let status = relay.wait(SOON);
        assert_eq!(status.code(), Some(0), "{way:?}");
        let took = began.elapsed();
        let longest = DEFAULT_GRACE + Duration::from_secs(5);
        assert!(
            took >= DEFAULT_GRACE - Duration::from_millis(200),
            "{way:?}: cut after {took:?}"
        );
        assert!(took < longest, "{way:?}: it took {took:?}");
        let ended = session.wait(SOON).exits(255);
        let ended = ended.says("[holdfast] closed: the relay is stopping");
        assert_eq!(
            ended.out(),
            "started\ngot one\n",
            "{way:?}: nothing in the data"
        );
    }
}

#[test]
fn a_session_that_ends_in_the_grace_time_ends_in_peace() {
    let mut relay = Relay::start();
    let alice = relay.admin_user();
    let device = Device::online(&relay, "kitchen-cam");
    let mut ssh = alice.ssh(Way::Direct, &own_login(), device.name());
    let mut session = Running::start(ssh.arg("echo started; read line; echo $line; exit 5"));
    session.wait_out("started");
    let began = Instant::now();
    relay.signal(rustix::process::Signal::TERM);
    wait_until(SOON, "the relay accepts no more connections", || {
        std::net::TcpStream::connect(relay.ssh()).is_err()
    });
    session.write("bye\n");
    let ended = session.wait(SOON).exits(5);
    assert_eq!(ended.out(), "started\nbye\n");
    assert_eq!(relay.wait(SOON).code(), Some(0));
    assert!(
        began.elapsed() < DEFAULT_GRACE,
        "it waited without a session: {:?}",
        began.elapsed()
    );
}

#[test]
fn a_terminal_shows_that_the_relay_stops() {
    let mut relay = Relay::start();
    let alice = relay.admin_user();
    let device = Device::online(&relay, "kitchen-cam");
    let ssh = alice.ssh(Way::Direct, &own_login(), device.name());
    let mut terminal = Terminal::start(&ssh, 80, 24);
    terminal.send("echo in$((40 + 2))\r");
    terminal.expect("in42");
    assert_eq!(relay.terminate(SOON).code(), Some(0));
    terminal.expect("[holdfast] closed: the relay is stopping");
    assert_eq!(terminal.wait(SOON).code(), Some(255));
}

#[test]
fn devices_are_back_soon_after_a_restart() {
    let mut relay = Relay::start();
    let alice = relay.admin_user();
    let device = Device::online(&relay, "kitchen-cam");
    relay.terminate(SOON);
    wait_until(SOON, "the device knows that the relay stops", || {
        device.log().contains("the relay stops")
    });
    relay.start_again();
    let began = Instant::now();
    wait_until(SOON, "the device is back", || {
        alice.exec(Way::Direct, device.name(), "true").code() == 0
    });
    let took = began.elapsed();
    assert!(
        took < Duration::from_secs(4),
        "the device was informed, and yet it took {took:?}"
    );
}
