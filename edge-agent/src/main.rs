//! `edge-agent`: parse, build, run, exit code.

use edge_agent::os::sync::Mutex;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use async_signal::{Signal, Signals};
use clap::{CommandFactory as _, Parser as _};
use futures_lite::{FutureExt as _, StreamExt as _};

use edge_agent::cli::{
    Cli, Command, InstallArgs, Join, RunArgs, SelfTest, SftpArgs, StateArg, StatusArgs,
    UninstallArgs, UpgradeArgs, WatchArgs,
};
use edge_agent::os::output::{self, Stdout};
use edge_agent::os::state::StateDir;
use edge_agent::os::{process, runtime, volatile};
use edge_agent::recording::{Recorder, RecorderConfig, RecordingDevice};
use edge_agent::service::UPGRADE_GRACE;
use edge_agent::service::doctor::{self, FindingLevel};
use edge_agent::service::instance;
use edge_agent::service::notify::ServiceManager;
use edge_agent::service::status::{self, AgentStatus, Question};
use edge_agent::service::status_socket;
use edge_agent::service::upgrade::command::Upgrade;
use edge_agent::service::upgrade::trial::{Handover, Upgrades};
use edge_agent::service::upgrade::{self_test, watch};
use edge_agent::session::{AgentSessions, SessionConfig};
use edge_agent::session::{launch, unix};
use edge_agent::sftp;
use edge_agent::tunnel::enroll::{self, JoinError, Joined};
use edge_agent::tunnel::identity::Identity;
use edge_agent::tunnel::membership::Membership;
use edge_agent::tunnel::release;
use edge_agent::tunnel::status::TunnelStatus;
use edge_agent::tunnel::{self, Agent};
use holdfast_protocol::causes::Causes;
use holdfast_protocol::escape::Json;
use holdfast_protocol::wire::CloseCode;

const NOT_JOINED: &str =
    "this device has not joined a fleet yet: run `edge-agent join TOKEN` first";

fn main() -> ExitCode {
    match std::env::args_os().nth(1) {
        Some(first) if first == launch::ARGUMENT => launch::main(),
        Some(first) if first == launch::login::ARGUMENT => launch::login::main(),
        Some(first) if first == unix::ARGUMENT => unix::main(),
        _ => {}
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let tree = Cli::command();
            let known = tree
                .get_subcommands()
                .filter(|command| !command.is_hide_set());
            let known: Vec<_> = known.map(clap::Command::get_name).collect();
            return ExitCode::from(output::usage(&error, &known));
        }
    };
    let result = match cli.command {
        Command::Join(join) => runtime::run(self::join(join)),
        Command::Run(run) => self::run(run),
        Command::Status(args) => show_status(&args),
        Command::Doctor(args) => show_findings(&args),
        Command::Upload(args) => upload(&args),
        Command::Install(args) => install(args),
        Command::Uninstall(args) => uninstall(args),
        Command::InternalSftp(args) => serve_files(&args),
        Command::Upgrade(args) => upgrade(args),
        Command::SelfTest(args) => self_test(&args),
        Command::Guard(args) => {
            watch::guard(&args.state);
            Ok(ExitCode::SUCCESS)
        }
        Command::Watch(args) => watch_trial(&args),
    };
    result.unwrap_or_else(|error| {
        output::complain(format_args!("{}", Causes(error.as_ref())));
        ExitCode::FAILURE
    })
}

async fn join(join: Join) -> anyhow::Result<ExitCode> {
    let state = StateDir::create_or_open(&join.state.state)?;
    if let Some(sentence) = volatile::warning(&join.state.state) {
        output::complain(format_args!("{sentence}"));
    }
    // The token is spent and the key is pinned before a word is said of it.
    let mut out = Stdout::report();
    if let Some(key) = &join.release_key {
        release::pin(&state, key)?;
        out.say(format_args!("pinned the release key {key}"))?;
    }
    let Some(token) = join.token else {
        return Ok(ExitCode::SUCCESS);
    };
    let joined = enroll::join(&state, &token, join.name, join.labels).await;
    if let Err(error @ JoinError::Ended { .. }) = &joined {
        bail!("{error} (state folder: {})", join.state.state.display());
    }
    let joined = joined?;
    if matches!(joined, Joined::Now(_))
        && let Err(error) = RecorderConfig::note_joined(&join.state.state)
    {
        output::complain(format_args!("cannot note that no recordings wait: {error}"));
    }
    match joined {
        Joined::Now(member) => {
            out.say(format_args!(
                "joined as {} (id {}), relay {}",
                member.name(),
                member.id(),
                token.address
            ))?;
            for process in state.running() {
                output::complain(format_args!(
                    "the agent that runs (process {}) knows nothing of it: restart it, with `systemctl restart edge-agent` or `kill {}` and `edge-agent run`",
                    process.as_raw_pid(),
                    process.as_raw_pid()
                ));
            }
        }
        Joined::Before {
            membership,
            renewed,
            unasked,
        } => {
            let (name, id) = (membership.name(), membership.id());
            let Some(error) = unasked else {
                let changed = match renewed {
                    true => "the addresses of its relays were renewed",
                    false => "nothing was changed",
                };
                out.say(format_args!(
                    "already joined as {name} (id {id}): {changed}."
                ))?;
                return Ok(ExitCode::SUCCESS);
            };
            // A running agent may have heard it from another relay.
            let running = status::ask(&state, Question::Status).ok().flatten();
            let last = running.and_then(|running| running.last_error);
            if let Some(why) = last.filter(|why| enroll::ends_membership(why)) {
                bail!("already joined as {name} (id {id}), but {why}");
            }
            out.say(format_args!(
                "already joined as {name} (id {id}): nothing was changed. The relay could not be asked whether the device is still a member: {error}"
            ))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn run(run: RunArgs) -> anyhow::Result<ExitCode> {
    run.check_account(rustix::process::geteuid().is_root())?;
    let state = StateDir::create_or_open(&run.state.state)?;
    let _lock = state.lock_or_wait(|sentence| output::complain(format_args!("{sentence}")))?;
    for process in state.left_behind() {
        output::complain(format_args!(
            "another edge-agent (process {}) still runs with the former {}, which was removed: stop it with `kill {}`",
            process.as_raw_pid(),
            run.state.state.display(),
            process.as_raw_pid()
        ));
    }
    // Before anything else is started.
    process::left::adopt();
    let upgrades = Arc::new(Upgrades::at_start(&run.state.state)?);
    let membership = member_of(&state)?;
    let identity = Identity::load(&state)?.context(
        "the device's key is missing: restore identity.key, or remove the state folder and join again",
    )?;
    let recording = run.recording.config(&run.state.state);
    let recorder = Recorder::open(&recording, RecordingDevice::from(&membership));
    let config = SessionConfig {
        accept_env: run.accept_env,
        sftp_server: run.sftp_server,
        tasks: launch::TaskLimit::detect(),
        login: run.login,
        ..SessionConfig::default()
    };
    let sessions = AgentSessions::new(config, recorder.clone());
    let status = TunnelStatus::new(&membership);
    let instance = instance::of_this_run(membership.id());
    runtime::run(async {
        status_socket::serve(&state, status.clone(), sessions.clone(), upgrades.clone());
        let mut signals = Signals::new([Signal::Term, Signal::Int])?;
        let agent = Arc::new(Agent {
            state,
            identity,
            membership: Mutex::new(membership),
            sessions,
            status,
            keepalive: run.keepalive,
            instance,
        });
        let manager = ServiceManager::from_env();
        manager.ready();
        let stop = async {
            signals.next().await;
            None
        };
        let turn = async { Some(upgrades.turn(&agent.status).await) };
        let goodbye = |turn: &Option<Handover>| match turn {
            Some(_) => CloseCode::Upgrading,
            None => CloseCode::Done,
        };
        let alive = async {
            manager.keep_alive(|| agent.status.summary()).await;
            None
        };
        let turn = tunnel::run(&agent, stop.or(turn), goodbye).or(alive).await;
        let Some(turn) = turn else {
            manager.stopping();
            // Those that are to be killed when their observer is lost are.
            agent.sessions.ended(UPGRADE_GRACE).await;
            recorder.stop().await;
            return Ok(ExitCode::SUCCESS);
        };
        // The next program is the parent of what goes on, and adopts it.
        agent.sessions.ended(UPGRADE_GRACE).await;
        recorder.stop().await;
        upgrades.turn_into(&turn)?;
        Ok(ExitCode::FAILURE)
    })
}

fn show_status(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let folder = &args.state.state;
    let state = StateDir::look_into(folder, "status")?.with_context(|| {
        format!(
            "{NOT_JOINED}, or name its state folder with --state: there is no {}",
            folder.display()
        )
    })?;
    let membership = member_of(&state)?;
    let status =
        status::ask(&state, Question::Status)?.unwrap_or_else(|| AgentStatus::stopped(&membership));
    let mut out = Stdout::answer();
    let written = if args.json {
        out.say(format_args!("{}", Json(&serde_json::to_string(&status)?)))
    } else {
        out.say(format_args!("{status}"))
    };
    written.context("cannot write the answer")?;
    Ok(if status.state == "online" {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn show_findings(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let facts = doctor::look(&args.state.state);
    let found = doctor::run(&facts);
    let mut out = Stdout::answer();
    let written = if args.json {
        out.say(format_args!("{}", Json(&serde_json::to_string(&found)?)))
    } else {
        found
            .iter()
            .try_for_each(|found| out.say(format_args!("{found}")))
    };
    written.context("cannot write the answer")?;
    let is_well = found
        .iter()
        .all(|found| found.level != FindingLevel::Problem);
    Ok(ExitCode::from(u8::from(!is_well)))
}

fn upload(args: &StateArg) -> anyhow::Result<ExitCode> {
    let state = StateDir::look_into(&args.state, "upload")?;
    let status = state.map(|state| status::ask(&state, Question::Upload));
    let status = status
        .transpose()?
        .flatten()
        .context("no agent runs on this state folder: start it with `edge-agent run`")?;
    Stdout::report().say(format_args!("{status}"))?;
    Ok(ExitCode::SUCCESS)
}

fn upgrade(args: UpgradeArgs) -> anyhow::Result<ExitCode> {
    Upgrade::from(args).run(&mut Stdout::report())?;
    Ok(ExitCode::SUCCESS)
}

fn self_test(args: &SelfTest) -> anyhow::Result<ExitCode> {
    if let Err(error) = args.check_arguments() {
        error.exit();
    }
    let relay = runtime::run(self_test::run(&args.state.state))?;
    Stdout::report().say(format_args!("{relay} answers"))?;
    Ok(ExitCode::SUCCESS)
}

fn watch_trial(args: &WatchArgs) -> anyhow::Result<ExitCode> {
    if args.aside {
        watch::step_aside(&args.state.state)?;
    } else {
        watch::watch(&args.state.state);
    }
    Ok(ExitCode::SUCCESS)
}

fn install(args: InstallArgs) -> anyhow::Result<ExitCode> {
    if let Err(error) = args.check_run() {
        error.exit();
    }
    let dry_run = args.at.dry_run;
    let install = args.at.with(args.program, args.run);
    install.install(dry_run, &mut steps_of(dry_run))?;
    Ok(ExitCode::SUCCESS)
}

fn uninstall(args: UninstallArgs) -> anyhow::Result<ExitCode> {
    let dry_run = args.at.dry_run;
    let install = args.at.with(None, Vec::new());
    install.uninstall(args.purge, dry_run, &mut steps_of(dry_run))?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the output for the steps: what would be done is the answer, what is done does not stop because no one can
/// read it.
fn steps_of(dry_run: bool) -> Stdout {
    if dry_run {
        Stdout::answer()
    } else {
        Stdout::report()
    }
}

fn serve_files(args: &SftpArgs) -> anyhow::Result<ExitCode> {
    sftp::run(args.root.as_deref(), args.read_only)?;
    Ok(ExitCode::SUCCESS)
}

fn member_of(state: &StateDir) -> anyhow::Result<Membership> {
    Membership::load(state)?.context(NOT_JOINED)
}
