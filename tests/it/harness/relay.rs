//! A relay in a temporary folder.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::{Daemon, KeyKind, Output, SOON, User, command, relay_program, run, wait_for};

pub(crate) struct Relay {
    // Before the folder, which goes when it has ended.
    daemon: Option<Daemon>,
    folder: TempDir,
    ssh: SocketAddr,
    tunnel: SocketAddr,
    flags: Vec<String>,
    env: Vec<(String, String)>,
    /// The wrapper program of `relay serve`.
    wrapper: Vec<String>,
}

impl Relay {
    /// A relay that serves from a new state folder.
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same, with more flags.
    #[track_caller]
    pub(crate) fn start_with(flags: &[&str]) -> Self {
        let mut relay = Self::new(flags);
        relay.start_again();
        relay
    }

    /// A relay that was never started.
    pub(crate) fn new(flags: &[&str]) -> Self {
        let any = SocketAddr::from((own_address(), 0));
        Self {
            daemon: None,
            folder: tempfile::Builder::new()
                .prefix("hf-relay-")
                .tempdir()
                .unwrap(),
            ssh: any,
            tunnel: any,
            flags: flags.iter().map(ToString::to_string).collect(),
            env: vec![],
            wrapper: vec![],
        }
    }

    /// A relay with a new state folder, at the addresses of one that has stopped.
    #[track_caller]
    pub(crate) fn start_in_place_of(other: &Self) -> Self {
        let mut relay = Self::new(&[]);
        (relay.ssh, relay.tunnel) = (other.ssh, other.tunnel);
        relay.start_again();
        relay
    }

    /// Leaves its address for devices: at its next start it has another one.
    pub(crate) fn leave_tunnel_address(&mut self) {
        self.tunnel.set_port(0);
    }

    /// Runs it by another program at its next start.
    pub(crate) fn run_by(&mut self, wrapper: &[&str]) {
        self.wrapper = wrapper.iter().map(ToString::to_string).collect();
    }

    /// Adds flags for the next start.
    pub(crate) fn add_flags(&mut self, flags: &[&str]) {
        self.flags.extend(flags.iter().map(ToString::to_string));
    }

    /// Drops the flags for the next start.
    pub(crate) fn clear_flags(&mut self) {
        self.flags.clear();
    }

    /// Adds to its environment for the next start.
    pub(crate) fn set_env(&mut self, name: &str, value: &str) {
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// Serves on this address, run by another program: `ip netns exec`.
    pub(crate) fn wrapped(mut self, wrapper: &[&str], address: Ipv4Addr) -> Self {
        self.wrapper = wrapper.iter().map(ToString::to_string).collect();
        (self.ssh, self.tunnel) = ((address, 0).into(), (address, 0).into());
        self
    }

    /// Joins the cluster of a member, without serving.
    #[track_caller]
    pub(crate) fn join(&self, member: &Self, database: &str) -> Output {
        let token = member.token(&["--relay"]);
        self.join_with(&token, database)
    }

    /// Joins a cluster with a token.
    #[track_caller]
    pub(crate) fn join_with(&self, token: &str, database: &str) -> Output {
        let public = self.ssh.ip().to_string();
        let join = ["cluster", "join", token, "--database", database];
        self.admin(&[&join[..], &["--public", &public]].concat())
    }

    /// Starts it, or starts it again, and waits until it serves. It keeps the ports that it found at its
    /// first start, so that devices and clients find it again.
    #[track_caller]
    pub(crate) fn start_again(&mut self) {
        assert!(self.daemon.is_none(), "it runs");
        let mut serve = self.serve_command();
        let mut daemon = Daemon::start("relay", &mut serve, self.folder.path());
        let ready = wait_for(SOON, "the relay's line `ready …`", || {
            assert_eq!(daemon.ended(), None, "it ended: {}", daemon.log());
            let out = daemon.out();
            out.split_once('\n').map(|(line, _)| line.to_owned())
        });
        (self.ssh, self.tunnel) = addresses(&ready);
        self.daemon = Some(daemon);
    }

    /// `relay serve` for this folder and these addresses.
    pub(crate) fn serve_command(&self) -> Command {
        let mut words = self.wrapper.iter().map(OsStr::new).collect::<Vec<_>>();
        let program = relay_program();
        words.push(program.as_os_str());
        let mut serve = command(words[0]);
        serve.args(&words[1..]).arg("--state").arg(self.state());
        serve.arg("serve");
        serve.args(["--ssh", &self.ssh.to_string()]);
        serve.args(["--tunnel", &self.tunnel.to_string()]);
        serve.args(&self.flags);
        serve.envs(self.env.iter().map(|(name, value)| (name, value)));
        serve
    }

    /// A relay command on this state folder.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut relay = command(relay_program());
        relay.arg("--state").arg(self.state()).args(args);
        relay
    }

    /// Runs an admin command to its end.
    #[track_caller]
    pub(crate) fn admin(&self, args: &[&str]) -> Output {
        run(&mut self.command(args))
    }

    /// Runs an admin command that must do it, and reads its JSON.
    #[track_caller]
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let output = self.admin(args).ok();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output}"))
    }

    /// A recording in another form, such as `txt`.
    #[track_caller]
    pub(crate) fn export(&self, id: &str, format: &str) -> String {
        let export = ["export", id, "--format", format];
        self.admin(&export).ok().out()
    }

    /// Returns what `devices --json` says of a device.
    #[track_caller]
    pub(crate) fn device(&self, name: &str) -> Option<Value> {
        let Value::Array(rows) = self.json(&["devices", "--json"]) else {
            panic!("`devices --json` is no list")
        };
        rows.into_iter().find(|row| row["name"] == name)
    }

    /// Waits until the device has this state.
    #[track_caller]
    pub(crate) fn wait_state(&self, name: &str, state: &str, within: Duration) {
        super::wait_until(within, &format!("{name} is {state}"), || {
            self.device(name).is_some_and(|row| row["state"] == state)
        });
    }

    /// Adds a user with a new Ed25519 key.
    #[track_caller]
    pub(crate) fn user(&self, name: &str, roles: &[&str]) -> User {
        self.user_with(name, KeyKind::Ed25519, roles)
    }

    /// The same with another kind of key.
    #[track_caller]
    pub(crate) fn user_with(&self, name: &str, kind: KeyKind, roles: &[&str]) -> User {
        User::add(self, name, kind, roles)
    }

    /// An administrator named `alice`.
    #[track_caller]
    pub(crate) fn admin_user(&self) -> User {
        self.user("alice", &["admin"])
    }

    /// Makes a token; `args` are those of `token create`.
    #[track_caller]
    pub(crate) fn token(&self, args: &[&str]) -> String {
        let output = self.admin(&[&["token", "create"], args].concat()).ok();
        output.out().trim().to_owned()
    }

    /// Tells it to stop (SIGTERM) and waits for its end.
    #[track_caller]
    pub(crate) fn terminate(&mut self, within: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait(within)
    }

    /// Kills it (SIGKILL): a crash.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.wait(SOON);
    }

    /// Stops it in good order and starts it again.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        self.terminate(SOON);
        self.start_again();
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        self.daemon.as_ref().expect("it runs").signal(signal);
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn wait(&mut self, within: Duration) -> ExitStatus {
        let status = self.daemon.as_mut().expect("it runs").wait(within);
        self.daemon = None;
        status
    }

    /// Returns the address for operators.
    pub(crate) fn ssh(&self) -> SocketAddr {
        self.ssh
    }

    /// Returns the address for devices.
    pub(crate) fn tunnel(&self) -> SocketAddr {
        self.tunnel
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.daemon.as_ref().expect("it runs").id()
    }

    /// Its log, over all its starts.
    pub(crate) fn log(&self) -> String {
        let log = std::fs::read(self.folder().join("relay.log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Returns what it wrote to stdout since its last start.
    pub(crate) fn out(&self) -> String {
        self.daemon.as_ref().expect("it runs").out()
    }

    /// A folder for whatever belongs to this relay; it goes with it.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its state folder.
    pub(crate) fn state(&self) -> PathBuf {
        self.folder().join("state")
    }
}

/// A loopback address that no other test uses: with it no port of theirs can clash with ours, not even
/// when a relay comes back to the port it had.
fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = std::process::id()
        .wrapping_mul(64)
        .wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
    let octet = |shift: u32| u8::try_from(2 + (number / 250_u32.pow(shift)) % 250).unwrap();
    Ipv4Addr::new(127, octet(2), octet(1), octet(0))
}

/// Reads `ready ssh=IP:PORT tunnel=IP:PORT`.
#[track_caller]
fn addresses(ready: &str) -> (SocketAddr, SocketAddr) {
    let mut words = ready.split(' ');
    assert_eq!(words.next(), Some("ready"), "{ready:?}");
    let mut address = |name: &str| {
        let word = words.next().and_then(|word| word.strip_prefix(name));
        word.and_then(|address| address.parse().ok())
            .unwrap_or_else(|| panic!("no {name} in {ready:?}"))
    };
    (address("ssh="), address("tunnel="))
}
