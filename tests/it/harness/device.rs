//! A device: an agent in a temporary folder.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use super::{Daemon, Output, Relay, SOON, agent_program, command, run};

pub(crate) struct Device {
    // Before the folder, which goes when it has ended.
    daemon: Option<Daemon>,
    folder: TempDir,
    name: String,
    /// The wrapper program and environment of the agent.
    wrapper: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    flags: Vec<String>,
    program: PathBuf,
}

impl Device {
    /// A device that has not joined anything yet.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            daemon: None,
            folder: tempfile::Builder::new()
                .prefix("hf-device-")
                .tempdir()
                .unwrap(),
            name: name.to_owned(),
            wrapper: vec![],
            env: vec![],
            flags: own_account(rustix::process::geteuid().is_root()),
            program: agent_program(),
        }
    }

    /// A device that has joined and does not run.
    #[track_caller]
    pub(crate) fn joined(relay: &Relay, name: &str) -> Self {
        let device = Self::new(name);
        device.join(&relay.token(&[]), &[]).ok();
        device
    }

    /// A device that has joined, runs and is online.
    #[track_caller]
    pub(crate) fn online(relay: &Relay, name: &str) -> Self {
        let mut device = Self::joined(relay, name);
        device.run_online(relay);
        device
    }

    /// Runs the agent by another program: `setpriv`, `faketime`, `unshare`, `ip netns exec`.
    pub(crate) fn wrapped(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(OsString::from).collect();
        self
    }

    /// Adds to the agent's environment.
    pub(crate) fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Runs this copy of the agent.
    pub(crate) fn program(mut self, program: PathBuf) -> Self {
        self.program = program;
        self
    }

    /// Adds flags of `edge-agent run`.
    pub(crate) fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(ToString::to_string));
        self
    }

    /// Runs `edge-agent join` under the device's name; `args` are more of its flags.
    #[track_caller]
    pub(crate) fn join(&self, token: &str, args: &[&str]) -> Output {
        let mut join = self.command(&["join", token, "--name", &self.name]);
        run(join.args(args))
    }

    /// An agent's command on this state folder.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let program = self.program.to_str().expect("a path in UTF-8");
        let mut agent = self.wrap(&[program]);
        agent.args(args).arg("--state").arg(self.state());
        agent
    }

    /// Any other command, run as the agent is.
    pub(crate) fn wrap(&self, line: &[&str]) -> Command {
        let mut words = self.wrapper.clone();
        words.extend(line.iter().map(OsString::from));
        let mut command = command(&words[0]);
        command.args(&words[1..]);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts `edge-agent run`.
    #[track_caller]
    pub(crate) fn run(&mut self) {
        assert!(self.daemon.is_none(), "it runs");
        let mut run = if self.wrapper.is_empty() {
            in_bare_home(self.command(&["run"]), self.folder.path())
        } else {
            self.command(&["run"])
        };
        let name = format!("agent-{}", self.name);
        self.daemon = Some(Daemon::start(
            &name,
            run.args(&self.flags),
            self.folder.path(),
        ));
    }

    /// Starts `edge-agent run` once more, and returns the agent that runs.
    #[track_caller]
    pub(crate) fn run_beside(&mut self) -> Daemon {
        let former = self.daemon.take().expect("it runs");
        self.run();
        former
    }

    /// Starts `edge-agent run` and waits until the relay calls the device online.
    #[track_caller]
    pub(crate) fn run_online(&mut self, relay: &Relay) {
        self.run();
        self.wait_online(relay);
    }

    /// Waits until the relay calls it online.
    #[track_caller]
    pub(crate) fn wait_online(&self, relay: &Relay) {
        relay.wait_state(&self.name, "online", SOON);
    }

    /// Waits until its agent says that it is online.
    #[track_caller]
    pub(crate) fn wait_up(&self) {
        super::wait_until(SOON, "the agent is online", || {
            run(&mut self.command(&["status"])).status.success()
        });
    }

    /// Stops the agent in good order.
    #[track_caller]
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait(SOON)
    }

    /// Kills the agent: a power cut, as far as the relay can see.
    #[track_caller]
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.wait(SOON);
    }

    /// Stops the agent and starts it again.
    #[track_caller]
    pub(crate) fn restart(&mut self, relay: &Relay) {
        self.stop();
        self.run_online(relay);
    }

    /// Sends the agent a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        self.daemon.as_ref().expect("it runs").signal(signal);
    }

    /// Waits for the agent's end.
    #[track_caller]
    pub(crate) fn wait(&mut self, within: Duration) -> ExitStatus {
        let status = self.daemon.as_mut().expect("it runs").wait(within);
        self.daemon = None;
        status
    }

    /// The agent's process id.
    pub(crate) fn id(&self) -> u32 {
        self.daemon.as_ref().expect("it runs").id()
    }

    /// The agent's log, over all its starts.
    pub(crate) fn log(&self) -> String {
        let log = self.folder().join(format!("agent-{}.log", self.name));
        String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned()
    }

    /// Its name in the fleet.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A folder for whatever belongs to this device; it goes with it.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The agent's state folder.
    pub(crate) fn state(&self) -> PathBuf {
        self.folder().join("state")
    }
}

/// Returns what an agent needs that is not root.
pub(super) fn own_account(is_root: bool) -> Vec<String> {
    match is_root {
        true => vec![],
        false => vec!["--allow-own-account".to_owned()],
    }
}

/// The command in a mount namespace in which root's home is empty: what is in the real one (a slow
/// `.bashrc`, one that takes locks) is not what is tested here. Not as root, it stays as it is.
fn in_bare_home(agent: Command, folder: &Path) -> Command {
    static MAY_MOUNT: OnceLock<bool> = OnceLock::new();
    let may_mount = || {
        run(command("unshare").args(["--mount", "true"]))
            .status
            .success()
    };
    if !rustix::process::getuid().is_root() || !*MAY_MOUNT.get_or_init(may_mount) {
        return agent;
    }
    let home = folder.join("home");
    std::fs::create_dir_all(&home).unwrap();
    let mut wrapped = command("unshare");
    wrapped.args(["--mount", "--propagation", "private", "sh", "-c"]);
    wrapped
        .arg("mount --bind \"$0\" /root && exec \"$@\"")
        .arg(&home);
    wrapped.arg(agent.get_program()).args(agent.get_args());
    for (name, value) in agent.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    wrapped
}
