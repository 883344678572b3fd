//! `cargo xtask demo`: a relay, a device and an operator on this machine, with the real `ssh`.

mod daemon;
mod interrupt;

use std::fs;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::process;
use crate::tools;
use crate::workspace::Workspace;
use daemon::DemoDaemon;
use interrupt::Interrupt;

/// Try it: a relay, a device and a shell on it, all on this machine
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask demo                      a shell on the device
  cargo xtask demo --once 'uname -a'    one command on the device; exits with its status

The relay and the device live in a temporary folder and end with the session.")]
pub(crate) struct Args {
    /// Run this command on the device and exit with its status
    #[arg(long, value_name = "COMMAND")]
    once: Option<String>,
}

const DEVICE: &str = "demo-device";
/// The exit status of ssh when it has no session.
const SSH_FAILED: i32 = 255;
/// A dev build on a loaded machine makes its keys and database within this.
const RELAY_READY: Duration = Duration::from_secs(30);
/// Enrolment is done by then, so this is one QUIC handshake.
const DEVICE_ONLINE: Duration = Duration::from_secs(30);
/// The interval at which the relay is asked for the device's state.
const POLL: Duration = Duration::from_millis(100);
/// The longest delay until we notice that the session ended.
const SESSION_POLL: Duration = Duration::from_millis(10);

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    tools::ensure(&[tools::SSH])?;
    let workspace = Workspace::load()?;
    eprintln!("building relay and edge-agent");
    process::run_aside(
        workspace
            .cargo()
            .args(["build", "--workspace", "--bins", "--locked"]),
    )?;

    let interrupt = Interrupt::install()?;
    let folder = tempfile::Builder::new()
        .prefix("holdfast-demo-")
        .tempdir()
        .context("cannot make a temporary folder")?;
    let mut demo = Demo {
        relay_program: workspace.dev_binary("relay"),
        agent_program: workspace.dev_binary("edge-agent"),
        folder: folder.path().to_owned(),
        interrupt,
        daemons: Vec::new(),
    };
    let played = demo.play(args);
    let ended = demo.stop();
    let has_session = played
        .as_ref()
        .is_ok_and(|status| status.code() != Some(SSH_FAILED));
    if !has_session && demo.interrupt.check().is_ok() {
        demo.show_logs();
    }
    folder
        .close()
        .context("cannot remove the temporary folder")?;
    let status = played?;
    ended?;
    Ok(exit_code(status, args.once.is_some()))
}

/// One demonstration: the programs, the folder they live in, and what runs.
struct Demo {
    relay_program: PathBuf,
    agent_program: PathBuf,
    folder: PathBuf,
    interrupt: Interrupt,
    /// In the order of their start.
    daemons: Vec<DemoDaemon>,
}

impl Demo {
    /// From an empty folder to the end of the session; gives ssh's exit status.
    fn play(&mut self, args: &Args) -> Result<ExitStatus> {
        let ready = self.start_relay()?;
        eprintln!(
            "relay serves ssh on {}, tunnels on {}",
            ready.ssh, ready.tunnel
        );
        self.add_operator()?;
        self.start_device()?;
        self.wait_online()?;
        eprintln!("{DEVICE} is online");
        let login = process::capture(Command::new("id").arg("-un"))?;
        let operator = Operator::prepare(self, ready.ssh, login.trim())?;
        let mut ssh = operator.session(args.once.as_deref());
        if args.once.is_none() {
            operator.print_hints(&ssh);
        }
        let mut session = ssh
            .spawn()
            .with_context(|| format!("cannot start `{}`", process::render(&ssh)))?;
        let ended = self.wait_for(&mut session);
        if ended.is_err() {
            // ssh may have ended meanwhile, by the same Ctrl-C.
            let _ = session.kill();
            session.wait().context("cannot wait for ssh")?;
        }
        ended
    }

    /// Waits for ssh, as long as what it talks to lives and no signal interrupts.
    fn wait_for(&mut self, session: &mut Child) -> Result<ExitStatus> {
        loop {
            if let Some(status) = session.try_wait().context("cannot wait for ssh")? {
                return Ok(status);
            }
            self.check_alive()?;
            std::thread::sleep(SESSION_POLL);
        }
    }

    fn start_relay(&mut self) -> Result<Ready> {
        let mut serve = self.relay(&["serve"]);
        serve.args(["--ssh", "127.0.0.1:0", "--tunnel", "127.0.0.1:0"]);
        let (relay, first_line) =
            DemoDaemon::start_and_read_line("relay", &mut serve, self.folder.join("relay.log"))?;
        self.daemons.push(relay);
        let deadline = Instant::now() + RELAY_READY;
        let line = loop {
            self.check_alive()?;
            if let Ok(line) = first_line.recv_timeout(POLL) {
                break line;
            }
            if Instant::now() > deadline {
                bail!("the relay did not say that it is ready within {RELAY_READY:?}");
            }
        };
        Ready::parse(&line).with_context(|| format!("the relay's first line is {line:?}"))
    }

    fn add_operator(&self) -> Result<()> {
        let mut keygen = Command::new("ssh-keygen");
        keygen
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "holdfast-demo", "-f"])
            .arg(self.key());
        process::run_aside(&mut keygen)?;
        let mut add = self.relay(&["user", "add", "demo", "--role", "admin"]);
        process::run_aside(add.arg("--key").arg(self.key().with_extension("pub")))
    }

    fn start_device(&mut self) -> Result<()> {
        let token = process::capture(&mut self.relay(&["token", "create"]))?;
        let mut join = self.agent(&["join", token.trim(), "--name", DEVICE]);
        // Not `run_aside`: its error would show the token.
        let status = join
            .stdout(std::io::stderr())
            .status()
            .context("cannot start edge-agent")?;
        if !status.success() {
            bail!("`edge-agent join` ended with {status}");
        }
        let agent = DemoDaemon::start(
            "edge-agent",
            // The demo need not run as root.
            &mut self.agent(&["run", "--allow-own-account"]),
            self.folder.join("agent.log"),
        )?;
        self.daemons.push(agent);
        Ok(())
    }

    fn wait_online(&mut self) -> Result<()> {
        let deadline = Instant::now() + DEVICE_ONLINE;
        loop {
            self.check_alive()?;
            let listing = process::capture(&mut self.relay(&["devices", "--json"]))?;
            let devices: Vec<DeviceRow> = serde_json::from_str(&listing)
                .with_context(|| format!("`relay devices --json` printed {listing:?}"))?;
            let device = devices.iter().find(|device| device.name == DEVICE);
            match device {
                Some(device) if device.state == "online" => return Ok(()),
                _ if Instant::now() < deadline => std::thread::sleep(POLL),
                Some(device) => bail!("{DEVICE} is {} after {DEVICE_ONLINE:?}", device.state),
                None => bail!("the relay does not list {DEVICE}"),
            }
        }
    }

    /// An error when a signal asked us to end, or when a daemon ended by itself.
    fn check_alive(&mut self) -> Result<()> {
        self.interrupt.check()?;
        self.daemons
            .iter_mut()
            .try_for_each(DemoDaemon::check_alive)
    }

    /// Ends what runs, the newest first: the agent does not have to miss its relay.
    fn stop(&mut self) -> Result<()> {
        let mut ended = Ok(());
        for daemon in self.daemons.iter_mut().rev() {
            ended = daemon.stop().and(ended);
        }
        ended
    }

    fn show_logs(&self) {
        for daemon in &self.daemons {
            daemon.show_log();
        }
    }

    fn key(&self) -> PathBuf {
        self.folder.join("key")
    }

    fn relay(&self, args: &[&str]) -> Command {
        with_state(&self.relay_program, args, &self.folder.join("relay"))
    }

    fn agent(&self, args: &[&str]) -> Command {
        with_state(&self.agent_program, args, &self.folder.join("device"))
    }
}

fn with_state(program: &Path, args: &[&str], state: &Path) -> Command {
    let mut command = Command::new(program);
    // Cargo points it at its own build folder; nothing we start needs that.
    command
        .env_remove("LD_LIBRARY_PATH")
        .args(args)
        .arg("--state")
        .arg(state);
    command
}

/// The line `ready ssh=IP:PORT tunnel=IP:PORT`.
#[derive(Debug, PartialEq)]
struct Ready {
    ssh: SocketAddr,
    tunnel: SocketAddr,
}

impl Ready {
    fn parse(line: &str) -> Result<Self> {
        let fields = line
            .trim()
            .strip_prefix("ready ")
            .context("it does not begin with \"ready\"")?;
        let field = |name: &str| {
            fields
                .split(' ')
                .find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
                .with_context(|| format!("it names no {name} address"))?
                .parse()
                .with_context(|| format!("its {name} address is no address"))
        };
        Ok(Self {
            ssh: field("ssh")?,
            tunnel: field("tunnel")?,
        })
    }
}

/// A device in `relay devices --json`, as far as it is needed.
#[derive(Deserialize)]
struct DeviceRow {
    name: String,
    state: String,
}

/// The operator's side: an ssh configuration of its own, so that nothing of the user's is read or
/// written.
struct Operator {
    config: PathBuf,
    login: String,
    port: u16,
}

impl Operator {
    fn prepare(demo: &Demo, ssh: SocketAddr, login: &str) -> Result<Self> {
        let config = demo.folder.join("ssh_config");
        let text = format!(
            "Host relay\n  HostName {host}\n  Port {port}\n\
             Host *\n  IdentityFile {key}\n  IdentitiesOnly yes\n  UserKnownHostsFile {known}\n  \
             GlobalKnownHostsFile none\n  StrictHostKeyChecking accept-new\n",
            host = ssh.ip(),
            port = ssh.port(),
            key = demo.key().display(),
            known = demo.folder.join("known_hosts").display(),
        );
        fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        Ok(Self {
            config,
            login: login.to_owned(),
            port: ssh.port(),
        })
    }

    fn session(&self, once: Option<&str>) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.env_remove("LD_LIBRARY_PATH")
            .arg("-F")
            .arg(&self.config);
        // ssh wants `--` here, so that a command may begin with a dash.
        ssh.args(["--", &format!("{}+{DEVICE}@relay", self.login)]);
        ssh.args(once);
        ssh
    }

    fn print_hints(&self, session: &Command) {
        let Self {
            config,
            login,
            port,
        } = self;
        let config = config.display();
        eprintln!(
            "\nThe relay listens on 127.0.0.1:{port}. From another terminal, while this shell is open:\n\
             \n  direct    ssh -F {config} {login}+{DEVICE}@relay uptime\
             \n  jump      ssh -F {config} -J relay {login}@{DEVICE} uptime\
             \n  copy      scp -F {config} /etc/hostname {login}+{DEVICE}@relay:/tmp/\
             \n  console   ssh -F {config} relay devices\n"
        );
        if std::io::stdin().is_terminal() {
            eprintln!(
                "{}    (the demo ends with this shell)\n",
                process::render(session)
            );
        }
    }
}

/// With `--once` ssh's own status. A shell's status is that of its last command, which says nothing
/// about the demo: only ssh's failure counts then.
fn exit_code(status: ExitStatus, once: bool) -> ExitCode {
    let code = status.code().unwrap_or(SSH_FAILED);
    if once || code == SSH_FAILED {
        ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
    } else {
        ExitCode::SUCCESS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_is_read_in_any_order_of_fields() -> Result<()> {
        let ready = Ready::parse("ready ssh=127.0.0.1:22 tunnel=[::1]:4433\n")?;
        assert_eq!(
            ready,
            Ready {
                ssh: "127.0.0.1:22".parse()?,
                tunnel: "[::1]:4433".parse()?
            }
        );
        assert_eq!(
            ready,
            Ready::parse("ready tunnel=[::1]:4433 ssh=127.0.0.1:22 web=x")?
        );
        Ok(())
    }

    #[test]
    fn a_line_that_is_not_ready_says_what_it_lacks() {
        let lacks = |line: &str| Ready::parse(line).unwrap_err().to_string();
        assert_eq!(lacks("listening"), "it does not begin with \"ready\"");
        assert_eq!(lacks("ready ssh=127.0.0.1:1"), "it names no tunnel address");
    }
}
