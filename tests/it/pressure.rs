//! Back-pressure: a client that does not read slows itself alone, and nothing grows.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{
    Device, Echo, Relay, Running, SOON, User, Way, field, memory, own_login, p99, run, wait_for,
    wait_until,
};

/// The most that one stalled session may cost.
const RELAY_BYTES: u64 = 4 << 20;
const AGENT_BYTES: u64 = 1 << 20;

/// After so long with nothing taken a channel in the way of others is closed, and a little more.
const STALLED_CHANNEL: Duration = Duration::from_secs(70);

/// Returns how long the stalled sessions are watched; `cargo xtask soak` makes it ten minutes.
fn soak() -> Duration {
    let seconds = std::env::var("HOLDFAST_SOAK_SECONDS").ok();
    Duration::from_secs(seconds.and_then(|text| text.parse().ok()).unwrap_or(20))
}

#[test]
fn a_client_that_stops_reading_stops_its_process_alone() {
    let relay = Relay::start();
    let alice = relay.admin_user();
    let bob = relay.user("bob", &["admin"]);
    let device = Device::online(&relay, "kitchen-cam");
    let master = Master::open(&alice, device.name());
    let mut beside = Echo::start(master.session(&alice, "cat"));
    let mut other = Echo::start(exec(&bob, Way::Direct, &device, "cat"));
    warm_up(&alice, &device);
    let calm = (p99(&mut beside), p99(&mut other));
    let before = (memory(relay.id()), memory(device.id()));

    let mut stalled: Vec<Stalled> = ["a", "b", "c", "d"]
        .iter()
        .map(|name| device.folder().join(name))
        .zip([Some(&master), None, None, None])
        .zip([Way::Direct, Way::Direct, Way::Jump, Way::Jump])
        .map(|((file, master), way)| {
            let line = format!("echo $$ > {}; exec yes", file.display());
            let ssh = match master {
                Some(master) => master.session(&alice, &line),
                None => exec(&alice, way, &device, &line),
            };
            Stalled::start(ssh, &file)
        })
        .collect();
    let written: Vec<u64> = stalled.iter().map(Stalled::wait_blocked).collect();

    let (began, mut busy) = (Instant::now(), (Duration::ZERO, Duration::ZERO));
    let mut most = (0, 0);
    while began.elapsed() < soak() {
        busy = (busy.0.max(p99(&mut beside)), busy.1.max(p99(&mut other)));
        most = (
            most.0.max(memory(relay.id())),
            most.1.max(memory(device.id())),
        );
    }
    let sessions = stalled.len() as u64;
    let grown = (
        most.0.saturating_sub(before.0) / sessions,
        most.1.saturating_sub(before.1) / sessions,
    );
    eprintln!(
        "{sessions} stalled sessions, {:?}: relay +{} KiB, agent +{} KiB a session; \
         p99 echo on the same connection {:?} (calm {:?}), of another user {:?} (calm {:?}); \
         {} KiB were written before each stopped",
        soak(),
        grown.0 / 1024,
        grown.1 / 1024,
        busy.0,
        calm.0,
        busy.1,
        calm.1,
        written.iter().sum::<u64>() / sessions / 1024,
    );
    for (session, written) in stalled.iter_mut().zip(written) {
        assert_eq!(session.written(), written, "the process goes on");
        assert!(session.is_alive(), "the session waits, it does not end");
    }
    assert!(grown.0 <= RELAY_BYTES, "relay: {} bytes a session", grown.0);
    assert!(grown.1 <= AGENT_BYTES, "agent: {} bytes a session", grown.1);
    let bearable = |calm: Duration| (calm * 5).max(Duration::from_millis(250));
    assert!(busy.0 <= bearable(calm.0), "same connection: {:?}", busy.0);
    assert!(busy.1 <= bearable(calm.1), "another user: {:?}", busy.1);

    // Who reads again gets all of it, and the process goes on.
    let session = stalled.pop().unwrap();
    session.reads_again();
}

#[test]
fn a_process_that_reads_nothing_costs_its_own_channel_only() {
    let relay = Relay::start();
    let alice = relay.admin_user();
    let bob = relay.user("bob", &["admin"]);
    let device = Device::online(&relay, "kitchen-cam");
    let master = Master::open(&alice, device.name());
    let mut beside = Echo::start(master.session(&alice, "cat"));
    let mut other = Echo::start(exec(&bob, Way::Direct, &device, "cat"));
    warm_up(&alice, &device);
    let calm = p99(&mut other);
    let before = (memory(relay.id()), memory(device.id()));

    let file = device.folder().join("sleeper");
    let line = format!("echo $$ > {}; exec sleep 1000", file.display());
    let mut upload = master.session(&alice, &line);
    upload.stdin(fs::File::open("/dev/zero").unwrap());
    upload.stdout(Stdio::null()).stderr(Stdio::piped());
    let began = Instant::now();
    let mut upload = upload.spawn().unwrap();
    let sleeper = pid_in(&file);
    let (mut busy, mut held_up, mut most) = (Duration::ZERO, Duration::ZERO, (0, 0));
    while began.elapsed() < soak() {
        busy = busy.max(p99(&mut other));
        held_up = held_up.max(p99(&mut beside));
        most = (
            most.0.max(memory(relay.id())),
            most.1.max(memory(device.id())),
        );
    }
    let grown = (
        most.0.saturating_sub(before.0),
        most.1.saturating_sub(before.1),
    );
    eprintln!(
        "relay +{} KiB, agent +{} KiB; p99 echo on the same connection {held_up:?}, of another user \
         {busy:?} (calm {calm:?})",
        grown.0 / 1024,
        grown.1 / 1024
    );
    assert!(grown.0 <= RELAY_BYTES, "relay: {} bytes", grown.0);
    assert!(grown.1 <= AGENT_BYTES, "agent: {} bytes", grown.1);
    let bearable = (calm * 5).max(Duration::from_millis(250));
    assert!(busy <= bearable, "another user: {busy:?}");
    assert!(held_up <= bearable, "the same connection: {held_up:?}");
    // A process that takes its time does not cost the session. A client that leaves ends the session, not the process.
    assert!(upload.try_wait().unwrap().is_none(), "it was closed");
    upload.kill().unwrap();
    upload.wait().unwrap();
    beside.round_trip();
    wait_until(SOON, "the upload is no session any more", || {
        let rows = relay.json(&["sessions", "--json"]);
        let command = |row: &serde_json::Value| row["command"] == line.as_str();
        !rows.as_array().unwrap().iter().any(command)
    });
    assert!(Path::new(&format!("/proc/{sleeper}")).exists());
    run(Command::new("kill").arg(sleeper.to_string())).ok();
}

/// russh has one window for all channels of a connection: what the flowing one is given, the stalled one must not
/// take.
#[test]
fn an_upload_that_stalls_does_not_stop_one_that_flows() {
    let relay = Relay::start();
    let alice = relay.admin_user();
    let device = Device::online(&relay, "kitchen-cam");
    let master = Master::open(&alice, device.name());
    let mut beside = Echo::start(master.session(&alice, "cat"));
    warm_up(&alice, &device);
    let calm = p99(&mut beside);
    let before = memory(relay.id());

    let mut flowing = Upload::start(
        &master,
        &alice,
        &device.folder().join("flows"),
        "cat >/dev/null",
    );
    wait_until(SOON, "the upload flows", || flowing.read() > 64 << 20);
    let mut stalled = Upload::start(
        &master,
        &alice,
        &device.folder().join("stalls"),
        "sleep 1000",
    );
    let (began, mut busy, mut most) = (Instant::now(), Duration::ZERO, 0);
    while began.elapsed() < soak() / 2 {
        busy = busy.max(p99(&mut beside));
        most = most.max(memory(relay.id()));
    }
    let grown = most.saturating_sub(before);
    eprintln!(
        "relay +{} KiB; p99 echo on the same connection {busy:?} (calm {calm:?})",
        grown / 1024
    );
    let bearable = (calm * 5).max(Duration::from_millis(250));
    assert!(busy <= bearable, "the same connection: {busy:?}");
    assert!(grown <= 3 * RELAY_BYTES, "relay: {grown} bytes");
    assert!(
        flowing.client.try_wait().unwrap().is_none(),
        "it was closed"
    );

    // After a minute a channel that holds up others is closed; a shorter test ends it itself.
    if began.elapsed() < STALLED_CHANNEL {
        stalled.client.kill().unwrap();
    }
    let so_far = flowing.read();
    wait_until(SOON, "the other upload flows on", || {
        flowing.read() > so_far + (64 << 20)
    });
}

/// A session whose client does not read.
struct Stalled {
    client: Child,
    stdout: ChildStdout,
    process: u32,
}

impl Stalled {
    #[track_caller]
    fn start(mut ssh: Command, file: &Path) -> Self {
        ssh.stdin(Stdio::null()).stderr(Stdio::null());
        let mut client = ssh.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = client.stdout.take().unwrap();
        Self {
            client,
            stdout,
            process: pid_in(file),
        }
    }

    /// Waits until the process writes no more; says how much it has written.
    #[track_caller]
    fn wait_blocked(&self) -> u64 {
        let mut last = (self.written(), Instant::now());
        wait_for(SOON, "the process is blocked", || {
            let now = self.written();
            if now != last.0 {
                last = (now, Instant::now());
            }
            (now > 0 && last.1.elapsed() > Duration::from_secs(2)).then_some(now)
        })
    }

    /// Bytes that the process has written.
    fn written(&self) -> u64 {
        field(&format!("/proc/{}/io", self.process), "wchar:")
    }

    fn is_alive(&mut self) -> bool {
        self.client.try_wait().unwrap().is_none()
    }

    #[track_caller]
    fn reads_again(mut self) {
        let before = self.written();
        let mut bytes = vec![0; 32 << 20];
        self.stdout.read_exact(&mut bytes).unwrap();
        assert!(
            bytes.chunks(2).all(|line| line == b"y\n"),
            "nothing is lost"
        );
        assert!(self.written() > before, "the process goes on");
    }
}

impl Drop for Stalled {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}

/// An upload without an end, on a connection that is there.
struct Upload {
    client: Child,
    process: u32,
}

impl Upload {
    #[track_caller]
    fn start(master: &Master, user: &User, file: &Path, line: &str) -> Self {
        let line = format!("echo $$ > {}; exec {line}", file.display());
        let mut ssh = master.session(user, &line);
        ssh.stdin(fs::File::open("/dev/zero").unwrap());
        let client = ssh.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self {
            client: client.unwrap(),
            process: pid_in(file),
        }
    }

    /// Bytes that the process has read.
    fn read(&self) -> u64 {
        field(&format!("/proc/{}/io", self.process), "rchar:")
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}

/// An `ssh` that holds a connection for others.
struct Master {
    _process: Running,
    socket: PathBuf,
    destination: String,
}

impl Master {
    #[track_caller]
    fn open(user: &User, device: &str) -> Self {
        let socket = user.folder().join("master");
        let destination = Way::Direct.destination(&own_login(), device);
        let mut ssh = user.tool("ssh");
        ssh.arg("-MN").arg("-S").arg(&socket).arg(&destination);
        let process = Running::start(&mut ssh);
        wait_until(SOON, "the master's socket", || socket.exists());
        Self {
            _process: process,
            socket,
            destination,
        }
    }

    /// A session on the master's connection, and on no other.
    fn session(&self, user: &User, line: &str) -> Command {
        let mut ssh = user.tool("ssh");
        ssh.arg("-S").arg(&self.socket);
        ssh.args(["-oProxyCommand=false", &self.destination, line]);
        ssh
    }
}

fn exec(user: &User, way: Way, device: &Device, line: &str) -> Command {
    let mut ssh = user.ssh(way, &own_login(), device.name());
    ssh.arg(line);
    ssh
}

/// Some megabytes both ways: what the programs keep after that is not the stall's.
#[track_caller]
fn warm_up(user: &User, device: &Device) {
    for way in Way::BOTH {
        run(&mut exec(user, way, device, "head -c 8M /dev/zero")).ok();
    }
}

/// Waits for a process id in a file.
#[track_caller]
fn pid_in(file: &Path) -> u32 {
    wait_for(SOON, "the process has begun", || {
        fs::read_to_string(file).ok()?.trim().parse().ok()
    })
}
