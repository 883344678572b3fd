//! `cargo xtask demo`: relays, devices and an operator on this machine, with the real `ssh`.

mod cluster;
mod daemon;
mod interrupt;
mod operator;
mod ready;
mod services;

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
use operator::Operator;
use ready::Ready;

/// Try it: a relay, a device and a shell on it, all on this machine
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask demo                      a shell on the device
  cargo xtask demo --once 'uname -a'    one command on the device; exits with its status
  cargo xtask demo --cluster            three relays on PostgreSQL and S3: a session across two of them,
                                        then one is killed, and a shell on the device that came back

All of it lives in a temporary folder and ends with the session.")]
pub(crate) struct Args {
    /// Three relays and two devices, on a PostgreSQL and an S3 server that are started for it
    #[arg(long)]
    cluster: bool,
    /// Run this command on the device and exit with its status
    #[arg(long, value_name = "COMMAND")]
    once: Option<String>,
}

const DEVICE: &str = "demo-device";
/// The exit status of ssh when it has no session.
const SSH_FAILED: i32 = 255;
/// A dev build on a loaded machine makes its keys and database within this.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Enrolment is done by then, so this is one QUIC handshake.
const ONLINE_WITHIN: Duration = Duration::from_secs(30);
/// The interval at which it is asked whether something has come about.
const POLL: Duration = Duration::from_millis(100);
/// The longest delay until we notice that the session ended.
const SESSION_POLL: Duration = Duration::from_millis(10);

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    tools::ensure(&[tools::SSH])?;
    let workspace = Workspace::load()?;
    let server_of_s3 = match args.cluster {
        true => Some(services::prepare(&workspace)?),
        false => None,
    };
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
    let once = args.once.as_deref();
    let played = match server_of_s3 {
        Some(server) => demo.play_cluster(&server, once),
        None => demo.play(once),
    };
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
    Ok(exit_code(status, once.is_some()))
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
    fn play(&mut self, once: Option<&str>) -> Result<ExitStatus> {
        let ready = self.serve(
            "relay",
            &["--ssh", "127.0.0.1:0", "--tunnel", "127.0.0.1:0"],
        )?;
        eprintln!(
            "relay serves ssh on {}, tunnels on {}",
            ready.ssh, ready.tunnel
        );
        self.add_operator("relay")?;
        self.start_device("relay", DEVICE)?;
        self.wait_online("relay", ONLINE_WITHIN, |row| row.name == DEVICE)?;
        eprintln!("{DEVICE} is online");
        let operator = Operator::prepare(&self.folder, &self.key(), ready.ssh)?;
        self.last_session(&operator, DEVICE, once)
    }

    /// Runs the session that ends the demonstration; gives ssh's exit status.
    fn last_session(
        &mut self,
        operator: &Operator,
        device: &str,
        once: Option<&str>,
    ) -> Result<ExitStatus> {
        let mut ssh = operator.session(device, once);
        if once.is_none() {
            operator.print_hints(device, &ssh);
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

    /// Starts a relay whose state folder has this name, and waits until it serves.
    fn serve(&mut self, name: &str, flags: &[&str]) -> Result<Ready> {
        let mut serve = self.relay(name, &["serve"]);
        let log = self.folder.join(format!("{name}.log"));
        let (relay, first_line) = DemoDaemon::start_and_read_line(name, serve.args(flags), log)?;
        self.daemons.push(relay);
        let line = self.wait(READY_WITHIN, &format!("{name} serves"), |_| {
            Ok(first_line.try_recv().ok())
        })?;
        Ready::parse(&line).with_context(|| format!("the first line of {name} is {line:?}"))
    }

    fn add_operator(&self, relay: &str) -> Result<()> {
        let mut keygen = Command::new("ssh-keygen");
        keygen
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "holdfast-demo", "-f"])
            .arg(self.key());
        process::run_aside(&mut keygen)?;
        let mut add = self.relay(relay, &["user", "add", "demo", "--role", "admin"]);
        process::run_aside(add.arg("--key").arg(self.key().with_extension("pub")))
    }

    /// Lets a device join at a relay, and starts its agent.
    fn start_device(&mut self, relay: &str, name: &str) -> Result<()> {
        let token = process::capture(&mut self.relay(relay, &["token", "create"]))?;
        let mut join = self.agent(name, &["join", token.trim(), "--name", name]);
        succeed_quietly(&mut join, "edge-agent join")?;
        let agent = DemoDaemon::start(
            name,
            // The demo need not run as root.
            &mut self.agent(name, &["run", "--allow-own-account"]),
            self.folder.join(format!("{name}.log")),
        )?;
        self.daemons.push(agent);
        Ok(())
    }

    /// Waits until a device that is wanted is online, by the word of a relay.
    fn wait_online(
        &mut self,
        relay: &str,
        within: Duration,
        wanted: impl Fn(&DeviceRow) -> bool,
    ) -> Result<DeviceRow> {
        self.wait(within, "a device is online", |demo| {
            let listing = process::capture(&mut demo.relay(relay, &["devices", "--json"]))?;
            let devices: Vec<DeviceRow> = serde_json::from_str(&listing)
                .with_context(|| format!("`relay devices --json` printed {listing:?}"))?;
            let mut online = devices.into_iter().filter(|row| row.state == "online");
            Ok(online.find(&wanted))
        })
    }

    /// Asks until there is an answer, as long as everything lives and no signal interrupts.
    fn wait<T>(
        &mut self,
        within: Duration,
        what: &str,
        mut ask: impl FnMut(&Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let deadline = Instant::now() + within;
        loop {
            self.check_alive()?;
            if let Some(found) = ask(self)? {
                return Ok(found);
            }
            if Instant::now() > deadline {
                bail!("it did not come about within {within:?} that {what}");
            }
            std::thread::sleep(POLL);
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

    fn relay(&self, name: &str, args: &[&str]) -> Command {
        with_state(&self.relay_program, args, &self.folder.join(name))
    }

    fn agent(&self, name: &str, args: &[&str]) -> Command {
        with_state(&self.agent_program, args, &self.folder.join(name))
    }
}

/// Runs a command whose arguments no error may show, as a token.
fn succeed_quietly(command: &mut Command, name: &str) -> Result<()> {
    let status = command.stdout(std::io::stderr()).status();
    let status = status.with_context(|| format!("cannot start {name}"))?;
    if !status.success() {
        bail!("`{name}` ended with {status}");
    }
    Ok(())
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

/// A device in `relay devices --json`, as far as it is needed.
#[derive(Deserialize)]
struct DeviceRow {
    name: String,
    state: String,
    /// The name of the relay that has its tunnel.
    relay: Option<String>,
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
